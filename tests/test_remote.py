"""Stores in zips, on web servers and in object storage: opened, saved, swept, and refused with a way out."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import textwrap
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from serving import FolderServer, object_storage, serving

import flyxr as fx
from flyxr import store
from flyxr.errors import ExistsError, FlyxrWarning, InputError, MissingError, UnwritableError
from flyxr.identity import ChangedError
from flyxr.store import journal, places
from flyxr.store.places import RemoteError
from flyxr.sweeping import SweepError, lease
from flyxr.testing import noise_rendering, tiny_connectome

if TYPE_CHECKING:
    from collections.abc import Iterator

    import xarray as xr


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, Any]]:
    """Options of object storage on this machine, with the bucket ``lab``."""
    with object_storage() as options:
        yield options


@pytest.fixture
def web(tmp_path: Path) -> Iterator[FolderServer]:
    """Web server of the folder ``tmp_path``."""
    with serving(tmp_path) as server:
        yield server


CONNECTOME = tiny_connectome(extent=2)
MODELS = fx.sample_ensemble(2, seed=0, connectome=CONNECTOME)
OPTIONS: dict[str, Any] = {"connectome": CONNECTOME, "device": "cpu", "progress": False, "block_samples": 1}


def publish(path: Path) -> Path:
    """Consolidate the metadata of a store, as publishing does."""
    fx.catalog.publish(path, path.parent / "catalog.yaml", name=path.stem, overwrite=True)
    return path


def zip_store(path: Path, target: Path, top: str = "") -> Path:
    with zipfile.ZipFile(target, "w") as archive:
        for file in sorted(path.rglob("*")):
            if file.is_file():
                archive.write(file, Path(top) / file.relative_to(path))
    return target


def test_find__knows_paths_urls_and_zips(tmp_path: Path) -> None:
    assert places.find(tmp_path) == tmp_path
    assert places.find(f"file://{tmp_path}/a%20b") == tmp_path / "a b"
    assert str(places.find("s3://lab/a.zarr") / "b") == "s3://lab/a.zarr/b"
    place = places.find("memory://flyxr-find")
    assert places.find(place) is place
    assert places.is_remote(pickle.loads(pickle.dumps(place)))
    assert not places.is_remote(tmp_path)


@pytest.mark.parametrize("url", ["ftp://host/a.zarr", "github://a:b@c/d", "simplecache::s3://lab/a", "reference://x"])
def test_find__refuses_other_protocols(url: str) -> None:
    with pytest.raises(InputError, match=r"URL of one of http, https, s3"):
        fx.open(url)


def test_find__names_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(places.PACKAGES, "gs", "no_such_package")
    with pytest.raises(ImportError, match="pip install no_such_package"):
        fx.open("gs://bucket/a.zarr")


def test_find__refuses_options_for_a_path(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="leave them out"):
        fx.open(tmp_path, storage_options={"anon": True})


@pytest.mark.parametrize("top", ["", "responses.zarr"])
def test_open__a_zipped_store(tmp_path: Path, top: str) -> None:
    path = fx.save(noise_rendering(3), tmp_path / "noise.zarr")
    opened = fx.open(zip_store(path, tmp_path / "noise.zarr.zip", top))
    assert opened.identical(fx.open(path))
    assert opened.luminance.chunks is not None
    assert opened.load().identical(fx.open(path).load())


def test_open__a_zip_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "broken.zarr.zip"
    path.write_bytes(b"PK but not a zip")
    with pytest.raises(RemoteError, match="cannot be read"):
        fx.open(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/b.txt", "no store")
    with pytest.raises(MissingError, match="no store"):
        fx.open(path)


def test_open__a_web_server_reads_one_cell_type_without_the_rest(web: FolderServer, tmp_path: Path) -> None:
    responses = fx.simulate(noise_rendering(4), MODELS, connectome=CONNECTOME, device="cpu").load()
    wide = responses.isel(time=np.arange(12_000) % 6).assign_coords(time=np.arange(12_000) / 100)
    wide = wide.chunk({"model": 1})  # a shard has a chunk for each cell type
    path = publish(fx.save(wide, tmp_path / "responses.zarr"))
    opened = fx.open(f"{web.url}/responses.zarr")
    n_opening = web.n_bytes
    web.reset()
    values = opened.response.sel(cell_type="T", model=0).values
    np.testing.assert_array_equal(values, wide.response.sel(cell_type="T", model=0).values)
    n_all = sum(file.stat().st_size for file in path.rglob("*"))
    assert web.n_bytes < 0.3 * n_all
    assert n_opening < 200_000  # metadata, and the labels of 12,000 times
    assert opened.load().identical(fx.open(path).load())


def test_open__a_web_server_with_faults(web: FolderServer, tmp_path: Path) -> None:
    path = publish(fx.save(noise_rendering(3), tmp_path / "noise.zarr"))
    web.n_drops = 2
    assert fx.open(f"{web.url}/noise.zarr").load().identical(fx.open(path).load())
    web.n_drops = 10**6
    with pytest.raises(RemoteError, match="call again"):
        fx.open(f"{web.url}/noise.zarr")
    web.n_drops, web.has_ranges = 0, False
    places._hosts_without_ranges.clear()
    with pytest.warns(FlyxrWarning, match="ignores requests for parts"):
        assert (
            places.read_bytes(places.find(f"{web.url}/noise.zarr/zarr.json"), span=(-5, None))
            == ((path / "zarr.json").read_bytes()[-5:])
        )
    with pytest.raises(MissingError, match="no store at"):
        fx.open(f"{web.url}/nothing.zarr")


def test_open__follows_redirects_on_the_same_host_only(web: FolderServer, tmp_path: Path) -> None:
    publish(fx.save(noise_rendering(1), tmp_path / "noise.zarr"))
    web.redirects["/moved/zarr.json"] = "/noise.zarr/zarr.json"
    assert places.read_bytes(places.find(f"{web.url}/moved/zarr.json")).startswith(b"{")
    web.redirects["/moved/zarr.json"] = "http://localhost:1/zarr.json"
    with pytest.raises(RemoteError, match="redirects to another host"):
        fx.open(f"{web.url}/moved")
    web.redirects["/moved/zarr.json"] = "/moved/zarr.json"
    with pytest.raises(RemoteError, match="at most 5 redirections"):
        fx.open(f"{web.url}/moved")


def test_open__a_web_server_that_cannot_list(web: FolderServer, tmp_path: Path) -> None:
    fx.save(noise_rendering(1), tmp_path / "noise.zarr")
    with pytest.raises(store.StoreError, match="not consolidated"):
        fx.open(f"{web.url}/noise.zarr")


def test_open__never_reads_more_than_the_limit(web: FolderServer, tmp_path: Path) -> None:
    (tmp_path / "zarr.json").write_bytes(b"x" * (store.files.MAX_JSON_BYTES + 2**21))
    with pytest.raises(RemoteError, match="expected at most"):
        fx.open(web.url)


def test_open__a_sweep_on_a_web_server(web: FolderServer, tmp_path: Path) -> None:
    local = fx.sweep(noise_rendering(2), MODELS, tmp_path / "sweep.zarr", **OPTIONS)
    opened = fx.open(f"{web.url}/sweep.zarr")
    assert opened.load().identical(local.load())


def test_open__a_missing_chunk_is_not_a_fill_value(web: FolderServer, tmp_path: Path) -> None:
    path = publish(fx.save(noise_rendering(1), tmp_path / "noise.zarr"))
    opened = fx.open(f"{web.url}/noise.zarr")
    next(path.glob("luminance/c/0/0/*")).unlink()
    with pytest.raises(store.StoreError, match="is missing"):
        opened.load()


def test_open__a_store_that_was_replaced(web: FolderServer, tmp_path: Path) -> None:
    path = publish(fx.save(noise_rendering(1), tmp_path / "noise.zarr"))
    opened = fx.open(f"{web.url}/noise.zarr")
    publish(fx.save(noise_rendering(1, dt=1 / 50), path, overwrite=True))
    with pytest.raises(ChangedError, match="open it again"):
        opened.load()


def test_save__to_object_storage(s3: dict[str, Any]) -> None:
    rendering = noise_rendering(3)
    path = fx.save(rendering.chunk({"sample": 1}), "s3://lab/save/noise.zarr", storage_options=s3)
    assert fx.open(path).load().identical(fx.open("s3://lab/save/noise.zarr", storage_options=s3).load())
    np.testing.assert_array_equal(fx.open(path).luminance.values, rendering.luminance.values)
    assert "in the store" in store.describe(path)
    with pytest.raises(ExistsError, match="overwrite=True"):
        fx.save(rendering, path)
    fx.save(rendering, path, reuse=True)
    with pytest.raises(ExistsError, match="holds other data"):
        fx.save(noise_rendering(2), path, reuse=True)
    fx.save(noise_rendering(2), path, overwrite=True)
    assert fx.open(path).sizes["sample"] == 2


def test_save__to_object_storage_is_complete_or_absent(s3: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    write, n_written = places.write_bytes, []

    def fail(place: Any, content: bytes, **options: Any) -> None:
        n_written.append(place)
        if len(n_written) > 5:
            raise UnwritableError("no space")
        write(place, content, **options)

    monkeypatch.setattr(places, "write_bytes", fail)
    with pytest.raises(UnwritableError, match="no space"):
        fx.save(noise_rendering(3), "s3://lab/half/noise.zarr", storage_options=s3)
    monkeypatch.undo()
    place = places.find("s3://lab/half/noise.zarr", s3)
    assert places.list_sizes(place) == {}
    # A process that was killed leaves files, and no store.
    places.write_bytes(place / "luminance" / "zarr.json", b"{}")
    with pytest.raises(MissingError, match="appears once it is complete"):
        fx.open(place)
    with pytest.raises(ExistsError, match="not a complete store"):
        fx.save(noise_rendering(3), place)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/a.zarr", "zip"])
def test_save__refuses_what_cannot_be_written(url: str, tmp_path: Path) -> None:
    if url == "zip":
        url = str(zip_store(fx.save(noise_rendering(1), tmp_path / "n.zarr"), tmp_path / "n.zarr.zip"))
    for write in (fx.save, lambda data, path: fx.sweep(data, MODELS, path, **OPTIONS)):
        with pytest.raises(UnwritableError, match="a place that can be written"):
            write(noise_rendering(1), url)


def test_save__says_what_is_wrong_with_a_bucket(s3: dict[str, Any]) -> None:
    with pytest.raises(UnwritableError, match="cannot write s3://nobucket"):
        fx.save(noise_rendering(1), "s3://nobucket/a.zarr", storage_options=s3)


def sweep(n_samples: int, path: Any, models: xr.Dataset = MODELS, **options: Any) -> xr.Dataset:
    return fx.sweep(noise_rendering(n_samples), models, path, **{**OPTIONS, **options})


def test_sweep__object_storage_resumes_and_extends(s3: dict[str, Any], tmp_path: Path) -> None:
    url = "s3://lab/sweeps/a.zarr"
    first = sweep(2, url, storage_options=s3)
    assert first.load().identical(sweep(2, tmp_path / "a.zarr").load())
    longer = sweep(5, url, storage_options=s3, verify=True)
    np.testing.assert_array_equal(longer.response.values, sweep(5, tmp_path / "a.zarr").response.values)
    assert fx.sweep_status(url, storage_options=s3).attrs["complete"]
    place = places.find(url, s3)
    shard = next(name for name in places.list_sizes(place) if name.startswith("response/c/1/"))
    places.write_bytes(place / shard, b"damaged"[: places.list_sizes(place)[shard]])
    with pytest.warns(FlyxrWarning, match="another size"):
        fx.open(place)
    with pytest.warns(FlyxrWarning, match="will be recomputed"):
        again = sweep(5, place)
    np.testing.assert_array_equal(again.response.values, longer.response.values)
    assert not places.exists(place / "response" / "sweep.lease")


def test_sweep__finds_damage_in_object_storage_with_verify(s3: dict[str, Any]) -> None:
    place = places.find("s3://lab/sweeps/verify.zarr", s3)
    values = sweep(2, place).response.values
    shard = next(name for name in places.list_sizes(place) if name.startswith("response/c/"))
    content = bytearray((place / shard).read_bytes())
    content[len(content) // 2] ^= 1
    places.write_bytes(place / shard, bytes(content))
    with pytest.warns(FlyxrWarning, match="will be recomputed"):
        again = sweep(2, place, verify=True)
    np.testing.assert_array_equal(again.response.values, values)


def test_sweep__relabels_in_object_storage(s3: dict[str, Any]) -> None:
    url = "s3://lab/sweeps/labels.zarr"
    named = MODELS.assign_coords(lab=("model", ["a", "b"]))
    sweep(1, url, storage_options=s3)
    with pytest.raises(fx.sweeping.LabelMismatchError, match="lab"):
        sweep(1, url, named, storage_options=s3)
    relabelled = sweep(1, url, named, storage_options=s3, relabel=True)
    assert relabelled.lab.values.tolist() == ["a", "b"]
    assert fx.open(url, storage_options=s3).lab.values.tolist() == ["a", "b"]
    sweep(1, url, storage_options=s3, relabel=True)
    assert "lab" not in {name.split("/")[0] for name in places.list_sizes(places.find(url, s3))}


DRIVER = """
import sys, flyxr as fx
sys.path.insert(0, {tests!r})
from test_remote import OPTIONS, CONNECTOME
from flyxr.testing import noise_rendering
models = fx.sample_ensemble(4, seed=0, connectome=CONNECTOME)
import flyxr.sweeping.stream as stream
record, count = stream._record_result, 0
def slow(*arguments):
    global count
    record(*arguments)
    count += 1
    if count == {stop}:
        import os, signal
        os.kill(os.getpid(), signal.SIGKILL)
stream._record_result = slow
fx.sweep(noise_rendering(6), models, {url!r}, storage_options={s3!r}, **OPTIONS)
"""


@pytest.mark.parametrize("stops", [(7,), pytest.param((5, 9, 3), marks=pytest.mark.slow)], ids=["once", "thrice"])
def test_sweep__a_killed_driver_resumes_in_object_storage(
    s3: dict[str, Any], tmp_path: Path, stops: tuple[int, ...]
) -> None:
    url, n_before = f"s3://lab/sweeps/killed-{len(stops)}.zarr", 0
    for stop in stops:
        code = DRIVER.format(tests=str(Path(__file__).parent), stop=stop, s3=s3, url=url)
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
        )
        assert done.returncode == -9, done.stderr[-2000:]
        with pytest.warns(FlyxrWarning, match="unfinished"):
            fx.open(url, storage_options=s3)
        n_done = fx.sweep_status(url, storage_options=s3).attrs["n_done"]
        assert n_before < n_done < 24
        n_before = n_done
    models = fx.sample_ensemble(4, seed=0, connectome=CONNECTOME)
    resumed = sweep(6, url, models, storage_options=s3)
    whole = sweep(6, tmp_path / "whole.zarr", models)
    np.testing.assert_array_equal(resumed.response.values, whole.response.values)
    runs = json.loads(fx.sweep_status(url, storage_options=s3).attrs["runs"])
    assert len({run["pid"] for run in runs}) == len(stops) + 1


def test_exclusive_lease__one_at_a_time(s3: dict[str, Any]) -> None:
    place = places.find("s3://lab/sweeps/lease.zarr", s3)
    with (
        lease.exclusive_lease(place),
        pytest.raises(SweepError, match="another sweep is writing"),
        lease.exclusive_lease(place),
    ):
        pass
    with lease.exclusive_lease(place):
        pass
    assert places.list_sizes(place) == {}


@pytest.mark.parametrize("host", ["this", "other"])
def test_exclusive_lease__a_dead_owner_is_replaced(s3: dict[str, Any], host: str) -> None:
    place = places.find(f"s3://lab/sweeps/dead-{host}.zarr", s3)
    content = json.loads(lease._content("dead"))
    content |= {"pid": 2**22 + 1} if host == "this" else {"host": "elsewhere"}
    places.write_bytes(place / "response/sweep.lease", json.dumps(content).encode())
    if host == "other":
        with pytest.raises(SweepError, match=r"elsewhere.*call again in 1\d\d s"), lease.exclusive_lease(place):
            pass
        content["time"] = time.time() - lease.EXPIRE_SECONDS - 1
        places.write_bytes(place / "response/sweep.lease", json.dumps(content).encode())
    with lease.exclusive_lease(place):
        pass


def test_exclusive_lease__is_renewed(s3: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.05)
    place = places.find("s3://lab/sweeps/renewed.zarr", s3)
    with lease.exclusive_lease(place):
        first = lease._read(place / "response/sweep.lease")["time"]
        time.sleep(0.5)
        assert lease._read(place / "response/sweep.lease")["time"] > first


def test_append__segments_of_a_journal_in_object_storage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "SEGMENT_LINES", 3)
    place = places.find("memory://flyxr-journal/response/sweep.jsonl")
    for number in range(8):
        journal.append(place, number=number)
        if number == 4:
            journal._last_segments.clear()  # as in another process
    assert [entry["number"] for entry in journal.read(place)] == [*range(8)]
    assert places.list_names(place.parent) == ["sweep.jsonl", "sweep.jsonl.1", "sweep.jsonl.2"]


def test_open_ensemble__a_url(s3: dict[str, Any], tmp_path: Path) -> None:
    fx.save(MODELS, "s3://lab/models.zarr", storage_options=s3)
    opened = fx.open_ensemble("s3://lab/models.zarr", storage_options=s3)
    local = fx.open_ensemble(fx.save(MODELS, tmp_path / "models.zarr"))
    assert opened.identical(local)
    zipped = fx.open_ensemble(zip_store(tmp_path / "models.zarr", tmp_path / "models.zarr.zip"))
    assert zipped.identical(local)
