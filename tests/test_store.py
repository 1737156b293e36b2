"""Saved stores: what comes back, what is atomic, and what is reported as missing or changed."""

from __future__ import annotations

import json
import os
import shutil
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
from flyxr import schema, store
from flyxr.errors import ExistsError, FlyxrWarning
from flyxr.identity import ChangedError
from flyxr.store import StoreError, journal, labels
from flyxr.store.encoding import encoding_of, types_per_chunk_before
from flyxr.store.metadata import check_metadata
from flyxr.testing import noise_rendering, tiny_connectome

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CONNECTOME = tiny_connectome(extent=1)


def make_movie() -> xr.Dataset:
    return fx.stimuli.moving_digits(n_samples=3, n_frames=4, size=16, sample_chunk=2)


def make_rendering(n_samples: int = 3, n_time: int = 4) -> xr.Dataset:
    return schema.annotate(noise_rendering(n_samples, n_time, extent=1), "rendering")


def make_ensemble() -> xr.Dataset:
    return fx.sample_ensemble(2, seed=0, connectome=CONNECTOME)


def make_responses(n_time: int = 4) -> xr.Dataset:
    return fx.simulate(make_rendering(n_time=n_time), make_ensemble(), connectome=CONNECTOME)


KINDS: dict[str, Callable[[], xr.Dataset]] = {
    "movie": make_movie,
    "rendering": make_rendering,
    "connectome": lambda: CONNECTOME,
    "packaged connectome": fx.open_connectome,
    "ensemble": make_ensemble,
    "responses": make_responses,
}


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_save__keeps_every_kind(make: Callable[[], xr.Dataset], tmp_path: Path) -> None:
    dataset = make()
    path = fx.save(dataset, tmp_path / "folder" / "data.zarr")
    assert fx.open(path).load().identical(dataset.load())
    assert os.listdir(path.parent) == ["data.zarr"]


LONG = 13_000
"""Number of frames with which one cell type fills a chunk of 1 MiB."""


@pytest.mark.parametrize(("n_time", "n_types", "shards"), [(LONG, 1, True), (LONG // 2, 3, False), (4, 3, False)])
def test_save__small_cell_types_share_a_chunk(tmp_path: Path, n_time: int, n_types: int, shards: bool) -> None:
    responses = make_responses(n_time)
    path = fx.save(responses, tmp_path / "r.zarr")
    array = zarr.open_group(path, mode="r")["response"]
    assert array.chunks == (1, 3, n_time, n_types, 7)
    assert array.shards == ((1, 3, n_time, 3, 7) if shards else None)
    xr.testing.assert_identical(fx.open(path).load(), responses.load())


def test_encoding_of__chunks_by_the_size_of_a_cell_type() -> None:
    def chunks(*shape: int, dtype: str = "f4", **options: Any) -> tuple[int, ...]:
        variable = xr.Variable(("model", "sample", "time", "cell_type", "column"), np.zeros(shape, dtype))
        encoding = encoding_of(variable, **options)
        lengths = encoding["chunks"]
        if "shards" in encoding:
            assert encoding["shards"][3] % lengths[3] == 0
            assert encoding["shards"][3] >= shape[3]
        else:
            assert lengths[3] >= shape[3]
        return tuple(lengths)

    assert chunks(1, 4, 100, 65, 721) == (1, 4, 100, 1, 721)  # 1.1 MiB each
    assert chunks(1, 4, 100, 65, 721, dtype="f2") == (1, 4, 100, 8, 721)  # 0.55 MiB each
    assert chunks(1, 64, 485, 65, 1) == (1, 64, 485, 65, 1)  # 7.7 MiB in all
    assert chunks(1, 64, 2000, 65, 1) == (1, 64, 2000, 9, 1)  # 32 MiB in all
    assert chunks(1, 4, 100, 65, 721, n_chunk_types=5) == (1, 4, 100, 5, 721)


def test_encoding_of__layout_up_to_version_0_2() -> None:
    """Sweeps whose ledger does not state their chunks have those of these rules."""
    response = xr.Variable(("model", "sample", "time", "cell_type", "column"), np.zeros((1, 4, 100, 65, 721), "f2"))
    assert types_per_chunk_before(65, response.nbytes // 65) == 2
    encoding = encoding_of(response, n_chunk_types=2, shard_single_chunks=True)
    assert (encoding["chunks"], encoding["shards"]) == ((1, 4, 100, 2, 721), (1, 4, 100, 66, 721))
    assert types_per_chunk_before(65, response.nbytes // 65 * 2) == 1
    assert types_per_chunk_before(65, 63 * 621 * 4) == 7
    assert types_per_chunk_before(3, 12) == 3
    small = encoding_of(response[:, :, :1, :, :1], n_chunk_types=65, shard_single_chunks=True)
    assert small["chunks"] == small["shards"] == (1, 4, 1, 65, 1)


@pytest.fixture
def sharded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each cell type a chunk of its own, however small it is."""
    monkeypatch.setattr("flyxr.store.encoding.TYPE_BYTES", 0)


@pytest.mark.usefixtures("sharded")
def test_save__writes_zarr_v3_with_checksums(tmp_path: Path) -> None:
    array = zarr.open_group(fx.save(make_responses(), tmp_path / "r.zarr"), mode="r")["response"]
    assert array.metadata.zarr_format == 3
    codecs = json.loads((tmp_path / "r.zarr/response/zarr.json").read_text())["codecs"][0]["configuration"]["codecs"]
    assert [codec["name"] for codec in codecs] == ["bytes", "blosc", "crc32c"]
    assert codecs[1]["configuration"]["cname"] == "lz4"
    assert not json.loads((tmp_path / "r.zarr/zarr.json").read_text()).get("consolidated_metadata")


def test_save__one_shard_per_block(tmp_path: Path) -> None:
    """Blocks of unequal size, and more blocks than threads."""
    ensemble = fx.sample_ensemble(5, seed=0, connectome=CONNECTOME)
    responses = fx.simulate(make_rendering(7).chunk(sample=2), ensemble, connectome=CONNECTOME)
    path = fx.save(responses, tmp_path / "r.zarr")
    shards = [name for _, _, names in os.walk(path / "response" / "c") for name in names]
    assert len(shards) == 5 * 4
    xr.testing.assert_identical(fx.open(path).load(), responses.load())


def test_open__reads_one_cell_type_without_the_rest(tmp_path: Path) -> None:
    responses = fx.open(fx.save(make_responses(LONG), tmp_path / "r.zarr"))
    assert responses.response.chunks[3] == (1, 1, 1)
    assert responses.cell_type.chunks is None
    assert responses.fly.celltype("T").response.load().shape == (2, 3, LONG, 7)


def test_open__reads_a_whole_block_of_small_cell_types(tmp_path: Path, chunks_read: list[Any]) -> None:
    """Also in the layout up to version 0.2, where a shard of them had several chunks."""
    responses = make_responses()
    for options in ({}, {"n_chunk_types": 2, "shard_single_chunks": True}):
        path = tmp_path / f"{len(options)}.zarr"
        store.write_template(responses, path, block_samples=3, **options)
        for model in range(2):
            store.write_region(path, "response", responses.response.values[[model]], (model, 0))
        chunks_read.clear()
        stored = fx.open(path).response
        assert stored.chunks[3] == (3,)
        np.testing.assert_array_equal(stored, responses.response)
        assert len(chunks_read) == 2
        chunks_read.clear()
        np.testing.assert_array_equal(stored.sel(cell_type="T"), responses.response.sel(cell_type="T"))
        position = responses.cell_type.values.tolist().index("T")
        assert len(chunks_read) == 2
        assert all(f", {position}, " in key for _, key in chunks_read)  # reads the chunk of this type only


def test_open__does_not_read_values(tmp_path: Path, counting_scheduler: Any) -> None:
    path = fx.save(make_responses(), tmp_path / "r.zarr")
    calls = counting_scheduler.calls
    repr(fx.open(path))
    assert counting_scheduler.calls == calls


def test_save__keeps_a_selection_as_it_is(tmp_path: Path) -> None:
    central = make_responses().fly.central("T").isel(model=0).load()
    back = fx.open(fx.save(central, tmp_path / "central.zarr")).load()
    xr.testing.assert_identical(back, central)
    assert back.attrs[schema.KIND_ATTR] == "responses"
    assert fx.open(fx.save(central, tmp_path / "central.zarr", reuse=True)).response.dims == ("sample", "time")
    luminance = fx.open(fx.save(central[["luminance"]], tmp_path / "luminance.zarr"))
    assert schema.KIND_ATTR not in luminance.attrs  # responses without a response
    array = fx.open(fx.save(central.response, tmp_path / "array.zarr"))
    np.testing.assert_array_equal(array.response, central.response)


def test_save__refuses_an_existing_path(tmp_path: Path) -> None:
    path = fx.save(make_ensemble(), tmp_path / "e.zarr")
    with pytest.raises(FileExistsError, match=r"e.zarr exists: pass overwrite=True"):
        fx.save(make_rendering(), path)
    assert fx.open(path).identical(make_ensemble())
    fx.save(make_rendering(), path, overwrite=True)
    assert fx.open(path).load().identical(make_rendering())
    assert os.listdir(tmp_path) == ["e.zarr"]


def test_save__never_replaces_other_folders(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match="is not a zarr store, so it is not overwritten"):
        fx.save(make_ensemble(), tmp_path / "thesis", overwrite=True)
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "years of work"


def test_save__an_error_keeps_the_old_store(tmp_path: Path) -> None:
    path = fx.save(make_ensemble(), tmp_path / "e.zarr")
    data = make_rendering().copy(deep=True)
    data["luminance"][1, 0, 0] = np.nan
    broken = fx.simulate(data.assign(luminance=data.luminance.chunk(sample=1)), make_ensemble(), connectome=CONNECTOME)
    with pytest.raises(schema.SchemaError, match="NaN"):
        fx.save(broken, path, overwrite=True)
    with pytest.raises(schema.SchemaError, match="NaN"):
        fx.save(broken, tmp_path / "new.zarr")
    assert os.listdir(tmp_path) == ["e.zarr"]
    assert fx.open(path).identical(make_ensemble())


def test_save__waits_for_running_tasks_when_one_fails(tmp_path: Path) -> None:
    import dask.array as da

    def wait_or_fail(index: np.ndarray) -> np.ndarray:
        time.sleep(0.3 * index[0])
        if index[0] == 0:
            raise ArithmeticError("the first block")
        return np.ones((1, 7))

    values = da.arange(2, chunks=1).map_blocks(wait_or_fail, new_axis=1, chunks=((1, 1), 7), meta=np.ones((0, 0)))
    with pytest.raises(ArithmeticError, match="the first block"):
        fx.save(xr.Dataset({"a": (("x", "y"), values)}), tmp_path / "a.zarr")
    assert os.listdir(tmp_path) == []
    time.sleep(0.5)
    assert os.listdir(tmp_path) == []


def test_save__a_killed_process_leaves_no_partial_store(tmp_path: Path) -> None:
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
    path = fx.save(make_ensemble(), tmp_path / "a.zarr")
    for target in (path, tmp_path / "new.zarr"):
        command = [sys.executable, "-c", program, str(target)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            assert process.stdout is not None
            assert process.stdout.readline().strip() == b"writing"
            process.kill()
    assert fx.open(path).identical(make_ensemble())
    assert not (tmp_path / "new.zarr").exists()
    assert [name.split("-")[0] for name in sorted(os.listdir(tmp_path))] == [
        "a.zarr",
        "a.zarr.partial",
        "new.zarr.partial",
    ]


def test_save__an_error_of_the_last_rename_keeps_the_old_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = fx.save(make_ensemble(), tmp_path / "e.zarr")
    rename, calls = os.rename, []

    def failing(source: Any, target: Any) -> None:
        calls.append(target)
        if len(calls) == 2:
            raise OSError("no")
        rename(source, target)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(OSError, match="no"):
        fx.save(make_rendering(), path, overwrite=True)
    assert fx.open(path).identical(make_ensemble())
    assert os.listdir(tmp_path) == ["e.zarr"]


def test_save__refuses_a_path_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot write .*file/e.zarr.*choose another path"):
        fx.save(make_ensemble(), tmp_path / "file" / "e.zarr")
    with pytest.raises(OSError, match="cannot write /proc/flyxr/e.zarr"):
        fx.save(make_ensemble(), "/proc/flyxr/e.zarr")


def test_save__does_not_change_its_argument(tmp_path: Path) -> None:
    data = make_rendering().assign_coords(name=("sample", np.array(["a", "b", "c"])))
    before = data.copy(deep=True)
    fx.save(data, tmp_path / "r.zarr")
    assert data.identical(before)
    assert data.name.dtype.kind == "U"


def test_open__refuses_other_paths(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no store at"):
        fx.open(tmp_path / "nothing.zarr")
    (tmp_path / "empty").mkdir()
    with pytest.raises(store.StoreError, match="cannot be read as that of a zarr v3 store"):
        fx.open(tmp_path / "empty")
    old = tmp_path / "old.zarr"
    xr.Dataset({"a": ("x", [1.0])}).to_zarr(old, zarr_format=2, consolidated=False)
    with pytest.raises(store.StoreError, match="cannot be read as that of a zarr v3 store"):
        fx.open(old)


def test_open__refuses_a_store_of_another_kind(tmp_path: Path) -> None:
    path = fx.save(make_ensemble(), tmp_path / "e.zarr")
    meta = json.loads((path / "zarr.json").read_text())
    meta["attributes"][schema.KIND_ATTR] = "responses"
    (path / "zarr.json").write_text(json.dumps(meta))
    with pytest.raises(schema.SchemaError, match="not responses"):
        fx.open(path)


def test_open__warns_of_a_missing_file_and_refuses_to_read_it(tmp_path: Path) -> None:
    path = fx.save(make_responses(), tmp_path / "r.zarr")
    (path / "response/c/1/0/0/0/0").unlink()
    with pytest.warns(FlyxrWarning, match=r"1 of \d+ files of .* are missing, first response/c/1/0/0/0/0; .* raises"):
        back = fx.open(path)
    np.testing.assert_array_equal(back.response[0], make_responses().response[0])
    with pytest.raises(StoreError, match=r"response/c/1/0/0/0/0 is missing: restore the store from a copy"):
        back.response[1].load()


@pytest.mark.parametrize("file", ["model_name/c/0", "time/c/0", "cell_type/zarr.json", "response/zarr.json"])
def test_open__refuses_a_store_without_its_labels(tmp_path: Path, file: str) -> None:
    path = fx.save(make_responses(), tmp_path / "r.zarr")
    (path / file).unlink()
    with pytest.raises(StoreError, match=rf"files of .* are missing, first {file}: restore the store from a copy"):
        fx.open(path)


@pytest.mark.parametrize("file", ["role/c/0", "sign/c/0", "stride/c/0/0"])
def test_open__a_missing_file_of_text_or_integers_is_not_a_default_value(tmp_path: Path, file: str) -> None:
    path = fx.save(CONNECTOME, tmp_path / "c.zarr")
    (path / file).unlink()
    if file.startswith("role"):
        with pytest.raises(StoreError, match="files of .* are missing"):
            fx.open(path)
        return
    with pytest.warns(FlyxrWarning, match="are missing"):
        back = fx.open(path)
    with pytest.raises(StoreError, match=rf"{file} is missing"):
        back.load()


def test_open__warns_of_a_file_of_another_size(tmp_path: Path) -> None:
    path = fx.save(make_ensemble(), tmp_path / "e.zarr")
    file = path / "bias/c/0/0"
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.warns(FlyxrWarning, match="1 files of .* have another size than .*, first bias/c/0/0"):
        fx.open(path)


def test_open__refuses_to_read_a_store_that_was_replaced(tmp_path: Path) -> None:
    path = fx.save(make_responses(), tmp_path / "r.zarr")
    old, part = fx.open(path), fx.open(path)
    part.response[0].load()
    fx.save(make_responses().isel(model=[1, 0]), path, overwrite=True)
    for data in (old, part):
        with pytest.raises(ChangedError, match=r"of .*r.zarr has changed since it was opened: open it again"):
            data.response.sel(model=0).load()
    new = fx.open(path)
    assert new.response.data.name != old.response.data.name
    np.testing.assert_array_equal(new.response[0], make_responses().response[1])


def test_open__refuses_to_read_a_variable_that_was_edited(tmp_path: Path) -> None:
    path = fx.save(make_ensemble(), tmp_path / "e.zarr")
    old = fx.open(path)
    array = zarr.open_array(path / "bias", mode="r+")
    array[...] = array[...] + 1
    with pytest.raises(ChangedError, match="'bias' of .* has changed since it was opened"):
        old.bias.load()
    old.time_constant.load()
    assert fx.open(path).bias.data.name != old.bias.data.name


def test_open__refuses_an_invalid_manifest(tmp_path: Path) -> None:
    path = fx.save(make_ensemble(), tmp_path / "e.zarr")
    (manifest,) = path.glob("*/manifest.json")
    manifest.write_text("[1]")
    with pytest.raises(StoreError, match="manifest.json is not the manifest of a store"):
        fx.open(path)


def test_open__integers_and_booleans_are_lazy_with_stable_names(tmp_path: Path) -> None:
    path = fx.save(CONNECTOME, tmp_path / "c.zarr")
    names = [fx.open(path)[name].data.name for name in ("stride", "filled")]
    assert names == [fx.open(path)[name].data.name for name in ("stride", "filled")]
    assert fx.open(path).load().identical(CONNECTOME)


def test_open__unpacks_numbers_of_other_software(tmp_path: Path) -> None:
    data = xr.Dataset({"a": ("x", [1.0, 2.5])})
    data.to_zarr(
        tmp_path / "p.zarr",
        zarr_format=3,
        consolidated=False,
        encoding={"a": {"dtype": "i2", "scale_factor": 0.5, "_FillValue": -1}},
    )
    np.testing.assert_array_equal(fx.open(tmp_path / "p.zarr").a, [1.0, 2.5])


def test_open__names_the_old_store_after_an_interrupted_replacement(tmp_path: Path) -> None:
    path = fx.save(make_ensemble(), tmp_path / "e.zarr")
    aside = tmp_path / "e.zarr.partial-abc"
    aside.mkdir()
    path.rename(aside / "replaced")
    with pytest.raises(
        FileNotFoundError, match=r"the process that was replacing it ended: .*partial-abc/replaced; move"
    ):
        fx.open(path)


def test_check_target__has_hints_for_python_and_the_command_line(tmp_path: Path) -> None:
    path = fx.save(make_ensemble(), tmp_path / "e.zarr")
    with pytest.raises(FileExistsError, match="pass overwrite=True") as error:
        fx.save(make_ensemble(), path)
    assert isinstance(error.value, ExistsError)
    assert "add --overwrite to replace it" in error.value.message(command_line=True)


def test_append__syncs_each_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.fstat(handle).st_size))
    path = tmp_path / "j.jsonl"
    journal.append(path, a=1)
    journal.append(path, b="é")
    assert synced == [9, path.stat().st_size]
    assert journal.read(path) == [{"a": 1}, {"b": "é"}]


def test_read__ignores_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    for number in range(3):
        journal.append(path, number=number)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert [line["number"] for line in journal.read(path)] == list(range(whole[:length].count(b"\n")))
        journal.repair(path)
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
def test_decode__inverts_encode(coords: dict[str, Any]) -> None:
    data = xr.Dataset(coords={"sample": ("sample", [3, 1, 2], {"units": "1"}), **coords}, attrs={"trained": True})
    back = labels.decode(json.loads(json.dumps(labels.encode(data))))
    xr.testing.assert_identical(back, data)
    assert {name: coord.dtype for name, coord in back.coords.items()} == {n: c.dtype for n, c in data.coords.items()}
    assert labels.differences(back, data) == []


def test_differences__nan_equals_nan() -> None:
    data = xr.Dataset(coords={"sample": ("sample", [1], {"a": np.nan, "b": [np.nan, 1]})}, attrs={"c": [np.nan]})
    assert labels.differences(labels.decode(labels.encode(data)), data) == []


@pytest.mark.parametrize("values", [[({1}, 2)], [{1}], [object()], [1j]])
def test_encode__refuses_other_types(values: list[Any]) -> None:
    array = np.empty(1, dtype=object if not isinstance(values[0], complex) else complex)
    array[0] = values[0]
    with pytest.raises(ValueError, match="expected text, numbers, times or tuples of them in 'odd', got"):
        labels.encode(xr.Dataset(coords={"odd": ("sample", array)}))


def test_open__refuses_a_store_without_the_folder_of_a_coordinate(tmp_path: Path) -> None:
    path = fx.save(make_responses(), tmp_path / "r.zarr")
    shutil.rmtree(path / "angle")
    with pytest.raises(StoreError, match="files of .* are missing, first angle/zarr.json"):
        fx.open(path)


def test_save__accepts_an_empty_dataset(tmp_path: Path) -> None:
    assert fx.open(fx.save(xr.Dataset(attrs={"a": 1}), tmp_path / "n.zarr")).identical(xr.Dataset(attrs={"a": 1}))


def test_round_mantissa__rounds_to_the_nearest() -> None:
    values = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    for bits in (1, 7, 15, 22):
        got = store.round_mantissa(values, bits)
        ulp = 2.0 ** (np.floor(np.log2(np.abs(values))) - bits)
        assert (np.abs(got - values) <= ulp / 2).all()
        np.testing.assert_array_equal(store.round_mantissa(got, bits), got)


@pytest.mark.parametrize("bits", [1, 10, 22])
def test_round_mantissa__keeps_all_nan_and_infinity(bits: int) -> None:
    special = np.array([0x7F800000, 0xFF800000, 0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001], np.uint32).view(np.float32)
    np.testing.assert_array_equal(store.round_mantissa(special, bits), special)


def test_describe__a_selection_without_provenance(tmp_path: Path) -> None:
    path = fx.save(xr.Dataset({"a": ("x", [1.0, 2.0], {"units": "1"})}), tmp_path / "a.zarr")
    header, variable = store.describe(path).splitlines()
    assert header.startswith(f"{path}: a selection, 2 x, ")
    assert variable == "  a  2 x  float64"


def test_netcdf__is_as_good_as_the_original(tmp_path: Path) -> None:
    pytest.importorskip("h5netcdf")
    connectome = fx.open_connectome(extent=1)
    models = fx.sample_ensemble(5, seed=0, connectome=connectome)
    flashes = fx.stimuli.flashes(radius=1, extent=1, t_stim=0.1, t_pre=0.05, dt=0.01)
    responses = fx.simulate(flashes, models, connectome=connectome, record="central").load()
    data = {
        "movie": fx.stimuli.moving_digits(n_samples=1, n_frames=2, seed=0),
        "flashes": flashes,
        "connectome": connectome,
        "models": models,
        "responses": responses,
        "measures": fx.tuning.summary(responses),
        "silenced": fx.silence(models, "Mi1"),
        "optimal": fx.optimal_stimulus(
            models.isel(model=[0]),
            "Mi1",
            flashes,
            regularisation=0.001,
            connectome=connectome,
            n_iterations=1,
            progress=False,
        ),
    }
    back = {}
    for name, dataset in data.items():
        dataset.to_netcdf(tmp_path / f"{name}.nc", engine="h5netcdf")
        back[name] = xr.open_dataset(tmp_path / f"{name}.nc", engine="h5netcdf")
        xr.testing.assert_identical(back[name].load(), dataset.load())
    again = fx.simulate(back["flashes"], back["models"], connectome=back["connectome"], record="central")
    np.testing.assert_array_equal(again.response, responses.response)
    assert fx.tuning.summary(back["responses"]).equals(data["measures"])
    xr.testing.assert_identical(fx.open(fx.save(back["models"], tmp_path / "models.zarr")).load(), models)


def test_open__coordinates_select_and_group(tmp_path: Path) -> None:
    rendering = make_rendering()
    rendering = rendering.assign_coords(digit=("sample", ["9 0", "1 2", "3 4"][: rendering.sizes["sample"]]))
    back = fx.open(fx.save(rendering.chunk(), tmp_path / "r.zarr"))
    assert back.where(back.digit == "9 0", drop=True).sizes["sample"] == 1
    assert sorted(dict(list(back.groupby("digit")))) == sorted(rendering.digit.values.tolist())


def edit_metadata(path: Path, **changes: Any) -> None:
    """Change the metadata of an array; ``inner`` are the lengths of chunks within shards of the lengths ``chunks``."""
    file = path / "zarr.json"
    metadata = json.loads(file.read_text())
    if "chunks" in changes:
        metadata["chunk_grid"]["configuration"]["chunk_shape"] = changes.pop("chunks")
    if "inner" in changes:
        metadata["codecs"][0]["configuration"]["chunk_shape"] = changes.pop("inner")
    file.write_text(json.dumps({**metadata, **changes}))


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("luminance", {"shape": [2, -6, 7]}, "expected a shape and as many lengths of chunks"),
        ("luminance", {"shape": [2, 6]}, "expected a shape and as many lengths of chunks"),
        ("luminance", {"shape": None}, "expected a shape and as many lengths of chunks"),
        ("luminance", {"shape": [2, 10**12, 7]}, "expected at most 16,777,216 chunks"),
        (
            "luminance",
            {"shape": [2, 10**12, 7], "chunks": [2, 10**12, 7]},
            "expected chunks of at most 2,147,483,648 bytes",
        ),
        ("luminance", {"chunks": [0, 6, 7]}, "expected a shape and as many lengths of chunks"),
        ("luminance", {"data_type": "object"}, "expected numbers, times or text, got the data type 'object'"),
        ("luminance", {"codecs": [{"name": "pickle"}]}, "expected codecs among blosc, .*, got 'pickle'"),
        ("response", {"inner": [1, 1, 1]}, "expected lengths of the chunks of a shard"),
        ("sample", {"shape": [2**25], "chunks": [2**25]}, "expected at most 16,777,216 labels"),
    ],
)
@pytest.mark.usefixtures("sharded")
def test_open__refuses_what_metadata_cannot_declare(
    tmp_path: Path, name: str, changes: dict[str, Any], message: str
) -> None:
    path = fx.save(make_responses(), tmp_path / "r.zarr")
    edit_metadata(path / name, **changes)
    with pytest.raises(StoreError, match=rf"{name}/zarr.json: {message}"):
        fx.open(path)


@pytest.mark.usefixtures("sharded")
def test_open__takes_shards_as_large_as_a_block(tmp_path: Path) -> None:
    path = fx.save(make_responses(), tmp_path / "r.zarr")
    metadata = json.loads((path / "response" / "zarr.json").read_text())
    inner = metadata["codecs"][0]["configuration"]["chunk_shape"]
    large = [length * factor for length, factor in zip(inner, (1, 200, 200, 3, 100), strict=True)]
    assert 4 * np.prod(large) > 2**31
    edit_metadata(path / "response", shape=large, chunks=large)
    check_metadata(path)
