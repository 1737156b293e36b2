from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given
from hypothesis import strategies as st

import flyxr as fx
from flyxr import hexgrid, schema, store
from flyxr.errors import ExistsError, FlyxrWarning
from flyxr.identity import ChangedError
from flyxr.store import StoreError, journal, labels
from flyxr.store.encoding import encoding_of
from flyxr.testing import tiny_connectome

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CONNECTOME = tiny_connectome(extent=1)


def movie() -> xr.Dataset:
    return fx.stimuli.moving_digits(n_samples=3, n_frames=4, size=16, sample_chunk=2)


def rendering(n_samples: int = 3) -> xr.Dataset:
    values = np.random.default_rng(0).random((n_samples, 4, 7), dtype=np.float32)
    coords = {"sample": range(n_samples), "time": schema.time_coord(4, 0.01), **hexgrid.column_coords(1)}
    data = xr.Dataset({"luminance": (("sample", "time", "column"), values)}, coords)
    return schema.annotate(data.assign_coords(angle=("sample", np.arange(n_samples) * 1.5)), "rendering")


def ensemble() -> xr.Dataset:
    return fx.sample_ensemble(2, seed=0, connectome=CONNECTOME)


def responses() -> xr.Dataset:
    return fx.simulate(rendering(), ensemble(), connectome=CONNECTOME)


KINDS: dict[str, Callable[[], xr.Dataset]] = {
    "movie": movie,
    "rendering": rendering,
    "connectome": lambda: CONNECTOME,
    "packaged connectome": fx.open_connectome,
    "ensemble": ensemble,
    "responses": responses,
}


def files_in(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_save__every_kind_comes_back_the_same(make: Callable[[], xr.Dataset], tmp_path: Path) -> None:
    data = make()
    path = fx.save(data, tmp_path / "some" / "data.zarr")
    back = fx.open(path)
    assert back.load().identical(data.load())
    assert files_in(path.parent) == ["data.zarr"]


@pytest.mark.parametrize(("chunk_bytes", "n_types"), [(1, 1), (4 * 3 * 4 * 7 * 2, 2), (2**20, 3)])
def test_save__cell_types_share_a_chunk_as_far_as_they_are_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk_bytes: int, n_types: int
) -> None:
    monkeypatch.setattr("flyxr.store.encoding.TYPE_CHUNK_BYTES", chunk_bytes)
    path = fx.save(responses(), tmp_path / "r.zarr")
    array = zarr.open_group(path, mode="r")["response"]
    assert array.chunks == (1, 3, 4, n_types, 7)
    assert array.shards == (1, 3, 4, 4 if n_types == 2 else 3, 7)
    xr.testing.assert_identical(fx.open(path).load(), responses().load())


def test_save__a_large_cell_type_has_a_chunk_of_its_own() -> None:
    response = xr.Variable(("model", "sample", "time", "cell_type", "column"), np.zeros((1, 4, 100, 65, 721), "f2"))
    encoding = encoding_of(response)
    assert encoding["chunks"] == (1, 4, 100, 2, 721)
    assert encoding["shards"] == (1, 4, 100, 66, 721)
    assert encoding_of(response.astype("f4"))["chunks"] == (1, 4, 100, 1, 721)


def test_save__is_zarr_v3_with_the_chunks_of_responses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flyxr.store.encoding.TYPE_CHUNK_BYTES", 1)
    array = zarr.open_group(fx.save(responses(), tmp_path / "r.zarr"), mode="r")["response"]
    assert array.metadata.zarr_format == 3
    assert array.chunks == (1, 3, 4, 1, 7)
    assert array.shards == (1, 3, 4, 3, 7)
    codec = json.loads((tmp_path / "r.zarr/response/zarr.json").read_text())["codecs"][0]["configuration"]["codecs"]
    assert [part["name"] for part in codec] == ["bytes", "blosc", "crc32c"]
    assert codec[1]["configuration"]["cname"] == "lz4"
    assert not json.loads((tmp_path / "r.zarr/zarr.json").read_text()).get("consolidated_metadata")


def test_save__one_shard_for_each_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of unequal size, more of them than threads: nothing is lost."""
    import importlib

    monkeypatch.setattr(importlib.import_module("flyxr.simulation.graph"), "BLOCK_SAMPLES", 2)
    data = fx.simulate(rendering(7), fx.sample_ensemble(5, seed=0, connectome=CONNECTOME), connectome=CONNECTOME)
    path = fx.save(data, tmp_path / "r.zarr")
    shards = [name for _, _, names in os.walk(path / "response" / "c") for name in names]
    assert len(shards) == 5 * 4
    xr.testing.assert_identical(fx.open(path).load(), data.load())


def test_open__reads_one_cell_type_without_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flyxr.store.encoding.TYPE_CHUNK_BYTES", 1)
    back = fx.open(fx.save(responses(), tmp_path / "r.zarr"))
    assert back.response.chunks[3] == (1, 1, 1)
    assert back.cell_type.chunks is None
    assert back.fly.celltype("T").response.load().shape == (2, 3, 4, 7)


def test_open__does_not_read_values(tmp_path: Path, counting_scheduler: Any) -> None:
    path = fx.save(responses(), tmp_path / "r.zarr")
    calls = counting_scheduler.calls
    repr(fx.open(path))
    assert counting_scheduler.calls == calls


def test_save__a_selection_no_longer_says_it_is_of_the_kind(tmp_path: Path) -> None:
    central = responses().fly.central("T").load()
    back = fx.open(fx.save(central, tmp_path / "central.zarr"))
    np.testing.assert_array_equal(back.response, central.response)
    assert schema.KIND_ATTR not in back.attrs
    assert schema.KIND_ATTR in central.attrs
    array = fx.open(fx.save(central.response, tmp_path / "array.zarr"))
    np.testing.assert_array_equal(array.response, central.response)


def test_save__existing_path_asks_for_overwrite(tmp_path: Path) -> None:
    path = fx.save(ensemble(), tmp_path / "e.zarr")
    with pytest.raises(FileExistsError, match=r"e.zarr exists: pass overwrite=True"):
        fx.save(rendering(), path)
    assert fx.open(path).identical(ensemble())
    fx.save(rendering(), path, overwrite=True)
    assert fx.open(path).load().identical(rendering())
    assert files_in(tmp_path) == ["e.zarr"]


def test_save__never_replaces_what_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match="is not a zarr store, so it is not overwritten"):
        fx.save(ensemble(), tmp_path / "thesis", overwrite=True)
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "years of work"


def test_save__failing_midway_leaves_what_was_there(tmp_path: Path) -> None:
    path = fx.save(ensemble(), tmp_path / "e.zarr")
    data = rendering().copy(deep=True)
    data["luminance"][1, 0, 0] = np.nan
    broken = fx.simulate(data.assign(luminance=data.luminance.chunk(sample=1)), ensemble(), connectome=CONNECTOME)
    with pytest.raises(schema.SchemaError, match="NaN"):
        fx.save(broken, path, overwrite=True)
    with pytest.raises(schema.SchemaError, match="NaN"):
        fx.save(broken, tmp_path / "new.zarr")
    assert files_in(tmp_path) == ["e.zarr"]
    assert fx.open(path).identical(ensemble())


def test_save__waits_for_what_still_writes_when_a_block_fails(tmp_path: Path) -> None:
    import dask.array as da

    def block(index: np.ndarray) -> np.ndarray:
        time.sleep(0.3 * index[0])
        if index[0] == 0:
            raise ArithmeticError("the first block")
        return np.ones((1, 7))

    values = da.arange(2, chunks=1).map_blocks(block, new_axis=1, chunks=((1, 1), 7), meta=np.ones((0, 0)))
    with pytest.raises(ArithmeticError, match="the first block"):
        fx.save(xr.Dataset({"a": (("x", "y"), values)}), tmp_path / "a.zarr")
    assert files_in(tmp_path) == []
    time.sleep(0.5)
    assert files_in(tmp_path) == []


def test_save__killed_midway_leaves_no_store_that_looks_whole(tmp_path: Path) -> None:
    program = """
import sys, time, dask.array as da, xarray as xr, flyxr as fx
def block(index):
    if index[0]:
        print("writing", flush=True)
        time.sleep(60)
    return index[:, None] * 1.0
values = da.arange(2, chunks=1).map_blocks(block, new_axis=1, chunks=((1, 1), 1), meta=da.zeros((0, 0)).compute())
fx.save(xr.Dataset({"a": (("x", "y"), values)}), sys.argv[1], overwrite=True)
"""
    path = fx.save(ensemble(), tmp_path / "a.zarr")
    for target in (path, tmp_path / "new.zarr"):
        command = [sys.executable, "-c", program, str(target)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            assert process.stdout is not None
            assert process.stdout.readline().strip() == b"writing"
            process.kill()
    assert fx.open(path).identical(ensemble())
    assert not (tmp_path / "new.zarr").exists()
    assert [name.split("-")[0] for name in files_in(tmp_path)] == ["a.zarr", "a.zarr.partial", "new.zarr.partial"]


def test_save__failing_at_the_last_moment_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = fx.save(ensemble(), tmp_path / "e.zarr")
    rename, calls = os.rename, []

    def failing(source: Any, target: Any) -> None:
        calls.append(target)
        if len(calls) == 2:
            raise OSError("no")
        rename(source, target)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(OSError, match="no"):
        fx.save(rendering(), path, overwrite=True)
    assert fx.open(path).identical(ensemble())
    assert files_in(tmp_path) == ["e.zarr"]


def test_save__path_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot write .*file/e.zarr.*choose another path"):
        fx.save(ensemble(), tmp_path / "file" / "e.zarr")
    with pytest.raises(OSError, match="cannot write /proc/flyxr/e.zarr"):
        fx.save(ensemble(), "/proc/flyxr/e.zarr")


def test_save__does_not_write_onto_what_it_is_given(tmp_path: Path) -> None:
    data = rendering().assign_coords(name=("sample", np.array(["a", "b", "c"])))
    before = data.copy(deep=True)
    fx.save(data, tmp_path / "r.zarr")
    assert data.identical(before)
    assert data.name.dtype.kind == "U"


def test_open__what_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no store at"):
        fx.open(tmp_path / "nothing.zarr")
    (tmp_path / "empty").mkdir()
    with pytest.raises(store.StoreError, match="cannot be read as a zarr v3 store"):
        fx.open(tmp_path / "empty")
    old = tmp_path / "old.zarr"
    xr.Dataset({"a": ("x", [1.0])}).to_zarr(old, zarr_format=2, consolidated=False)
    with pytest.raises(store.StoreError, match="cannot be read as a zarr v3 store"):
        fx.open(old)


def test_open__store_that_is_not_what_it_says(tmp_path: Path) -> None:
    path = fx.save(ensemble(), tmp_path / "e.zarr")
    meta = json.loads((path / "zarr.json").read_text())
    meta["attributes"][schema.KIND_ATTR] = "responses"
    (path / "zarr.json").write_text(json.dumps(meta))
    with pytest.raises(schema.SchemaError, match="not a responses"):
        fx.open(path)


def lose(path: Path, place: str) -> Path:
    """Delete a file of a store."""
    (path / place).unlink()
    return path


def test_open__a_missing_file_is_told_and_never_read_as_something_else(tmp_path: Path) -> None:
    path = lose(fx.save(responses(), tmp_path / "r.zarr"), "response/c/1/0/0/0/0")
    with pytest.warns(FlyxrWarning, match=r"1 of \d+ files of .* are missing, first response/c/1/0/0/0/0, .* raises"):
        back = fx.open(path)
    np.testing.assert_array_equal(back.response[0], responses().response[0])
    with pytest.raises(StoreError, match=r"response/c/1/0/0/0/0 is missing: restore the store from a copy"):
        back.response[1].load()


@pytest.mark.parametrize("place", ["model_name/c/0", "time/c/0", "cell_type/zarr.json", "response/zarr.json"])
def test_open__without_its_labels_is_refused(tmp_path: Path, place: str) -> None:
    path = lose(fx.save(responses(), tmp_path / "r.zarr"), place)
    with pytest.raises(StoreError, match=rf"files of .* are missing, first {place}: restore the store from a copy"):
        fx.open(path)


@pytest.mark.parametrize("place", ["role/c/0", "sign/c/0", "stride/c/0/0"])
def test_open__a_missing_file_of_text_or_integers_is_no_default_value(tmp_path: Path, place: str) -> None:
    path = lose(fx.save(CONNECTOME, tmp_path / "c.zarr"), place)
    if place.startswith("role"):
        with pytest.raises(StoreError, match="files of .* are missing"):
            fx.open(path)
        return
    with pytest.warns(FlyxrWarning, match="are missing"):
        back = fx.open(path)
    with pytest.raises(StoreError, match=rf"{place} is missing"):
        back.load()


def test_open__a_file_of_another_size_is_told(tmp_path: Path) -> None:
    path = fx.save(ensemble(), tmp_path / "e.zarr")
    file = path / "bias/c/0/0"
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.warns(FlyxrWarning, match="1 files of .* have another size than .*, first bias/c/0/0"):
        fx.open(path)


def test_open__stays_what_it_was_when_the_store_is_replaced(tmp_path: Path) -> None:
    path = fx.save(responses(), tmp_path / "r.zarr")
    old, part = fx.open(path), fx.open(path)
    part.response[0].load()
    fx.save(responses().isel(model=[1, 0]), path, overwrite=True)
    for data in (old, part):
        with pytest.raises(ChangedError, match=r"r.zarr has changed since it was opened: .*open it again"):
            data.response.sel(model=0).load()
    new = fx.open(path)
    assert new.response.data.name != old.response.data.name
    np.testing.assert_array_equal(new.response[0], responses().response[1])


def test_open__stays_what_it_was_when_a_chunk_is_edited(tmp_path: Path) -> None:
    path = fx.save(ensemble(), tmp_path / "e.zarr")
    old = fx.open(path)
    array = zarr.open_array(path / "bias", mode="r+")
    array[...] = array[...] + 1
    with pytest.raises(ChangedError, match="has changed since it was opened: its 'bias' is not what it was"):
        old.bias.load()
    old.time_constant.load()
    assert fx.open(path).bias.data.name != old.bias.data.name


def test_open__a_manifest_that_is_none(tmp_path: Path) -> None:
    path = fx.save(ensemble(), tmp_path / "e.zarr")
    (manifest,) = path.glob("*/manifest.json")
    manifest.write_text("[1]")
    with pytest.raises(StoreError, match="manifest.json is no manifest of a store"):
        fx.open(path)


def test_open__integers_and_truth_values_are_lazy_and_named_by_what_they_are(tmp_path: Path) -> None:
    path = fx.save(CONNECTOME, tmp_path / "c.zarr")
    names = [fx.open(path)[name].data.name for name in ("stride", "filled")]
    assert names == [fx.open(path)[name].data.name for name in ("stride", "filled")]
    assert fx.open(path).load().identical(CONNECTOME)


def test_open__numbers_that_others_packed_are_unpacked(tmp_path: Path) -> None:
    data = xr.Dataset({"a": ("x", [1.0, 2.5])})
    data.to_zarr(
        tmp_path / "p.zarr",
        zarr_format=3,
        consolidated=False,
        encoding={"a": {"dtype": "i2", "scale_factor": 0.5, "_FillValue": -1}},
    )
    np.testing.assert_array_equal(fx.open(tmp_path / "p.zarr").a, [1.0, 2.5])


def test_open__nothing_there_after_a_replacement_that_was_interrupted(tmp_path: Path) -> None:
    path = fx.save(ensemble(), tmp_path / "e.zarr")
    aside = tmp_path / "e.zarr.partial-abc"
    aside.mkdir()
    path.rename(aside / "replaced")
    with pytest.raises(FileNotFoundError, match=r"being replaced when the process ended: .*partial-abc/replaced; move"):
        fx.open(path)


def test_check_target__says_how_to_replace_in_both_languages(tmp_path: Path) -> None:
    path = fx.save(ensemble(), tmp_path / "e.zarr")
    with pytest.raises(FileExistsError, match="pass overwrite=True") as error:
        fx.save(ensemble(), path)
    assert isinstance(error.value, ExistsError)
    assert "add --overwrite to replace it" in error.value.message(command_line=True)


def test_journal__a_line_is_on_the_disk_when_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.fstat(handle).st_size))
    path = tmp_path / "j.jsonl"
    journal.append(path, a=1)
    journal.append(path, b="é")
    assert synced == [9, path.stat().st_size]
    assert journal.read(path) == [{"a": 1}, {"b": "é"}]


def test_journal__a_line_that_is_torn(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    for number in range(3):
        journal.append(path, number=number)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert [line["number"] for line in journal.read(path)] == list(range(whole[:length].count(b"\n")))
        journal.mend(path)
        journal.append(path, number="next")
        assert journal.read(path)[-1] == {"number": "next"}
    path.write_bytes(b"[1]\n" + whole)
    with pytest.raises(journal.JournalError, match="expected an object in line 1"):
        journal.read(path)


@given(
    st.dictionaries(
        st.sampled_from(["angle", "motion", "when", "first", "note"]),
        st.sampled_from(
            [
                ("sample", np.array([0.1, np.nan, 1e300])),
                ("sample", np.array([1, -2, 3], np.int8)),
                ("sample", np.array(["é", "", "9 0"], dtype=object)),
                ("sample", np.array(["2020-01-01", "NaT", "2021-05-05"], "datetime64[ns]")),
                ("sample", np.array([True, False, True])),
                ((), np.float32(0.5)),
                ((), np.array("text", dtype=object)),
            ]
        ),
        max_size=3,
    )
)
def test_labels__come_back_as_they_were(coords: dict[str, Any]) -> None:
    data = xr.Dataset(coords={"sample": ("sample", [3, 1, 2], {"units": "1"}), **coords}, attrs={"trained": True})
    back = labels.decode(json.loads(json.dumps(labels.encode(data))))
    xr.testing.assert_identical(back, data)
    assert {name: coord.dtype for name, coord in back.coords.items()} == {n: c.dtype for n, c in data.coords.items()}
    assert labels.differences(back, data) == []


def test_labels__attributes_with_nan_are_the_same() -> None:
    data = xr.Dataset(coords={"sample": ("sample", [1], {"a": np.nan, "b": [np.nan, 1]})}, attrs={"c": [np.nan]})
    assert labels.differences(labels.decode(labels.encode(data)), data) == []


@pytest.mark.parametrize("values", [[(1, 2)], [{1}], [1j]])
def test_labels__of_other_kinds_are_refused(values: list[Any]) -> None:
    array = np.empty(1, dtype=object if not isinstance(values[0], complex) else complex)
    array[0] = values[0]
    with pytest.raises(ValueError, match="expected text, numbers or times in the coordinate 'odd', got"):
        labels.encode(xr.Dataset(coords={"odd": ("sample", array)}))


def test_open__without_the_folder_of_a_coordinate(tmp_path: Path) -> None:
    import shutil

    path = fx.save(responses(), tmp_path / "r.zarr")
    shutil.rmtree(path / "angle")
    with pytest.raises(StoreError, match="files of .* are missing, first angle/zarr.json"):
        fx.open(path)


def test_save__of_nothing(tmp_path: Path) -> None:
    assert fx.open(fx.save(xr.Dataset(attrs={"a": 1}), tmp_path / "n.zarr")).identical(xr.Dataset(attrs={"a": 1}))
