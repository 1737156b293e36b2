"""Equal content has equal hashes in any form, and different content has different hashes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import dask.array as da
import numpy as np
import pytest
import strategies
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import flyxr as fx
from flyxr import identity, provenance, schema
from flyxr.connectome import tables
from flyxr.errors import FlyxrWarning, InputError
from flyxr.identity import ChangedError
from flyxr.sweeping import SweepMismatchError
from flyxr.testing import random_rendering, tiny_connectome

if TYPE_CHECKING:
    from pathlib import Path


@given(st.data())
def test_content_hash__depends_only_on_values(data: st.DataObject) -> None:
    dataset = data.draw(strategies.mixed_datasets())
    equivalent = data.draw(strategies.equivalent_datasets(dataset))
    assert identity.content_hash(equivalent) == identity.content_hash(dataset)


@given(strategies.mixed_datasets(), st.data())
def test_content_hash__differs_for_different_values(dataset: xr.Dataset, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["values", "counts", "flags", "name"]))
    changed = dataset.copy(deep=True)
    index = tuple(data.draw(st.integers(0, length - 1)) for length in changed[name].shape)
    value = changed[name].values[index]
    changed[name].values[index] = {
        "values": lambda: 0.5 if not value == 0.5 else 0.25,
        "counts": lambda: value + 1,
        "flags": lambda: not value,
        "name": lambda: f"{value}x",
    }[name]()
    assert identity.content_hash(changed) != identity.content_hash(dataset)
    assert identity.content_hash(dataset.rename({name: "other"})) != identity.content_hash(dataset)


def test_content_hash__equals_version_0_1_for_connectomes() -> None:
    """Ensembles saved by version 0.1 must find their connectome."""
    assert fx.open_connectome().attrs["connectome"] == "0d04c694ed377ca0"
    assert tiny_connectome().attrs["connectome"] == "1ff3ab9762b8f036"


def test_content_hash__equal_numbers_have_equal_hashes() -> None:
    zeros, other = (xr.Dataset({"a": ("x", values)}) for values in ([0.0, np.nan], [-0.0, -np.float64("nan")]))
    assert identity.content_hash(zeros) == identity.content_hash(other)
    large, negative = (xr.Dataset({"a": ("x", values)}) for values in (np.array([2**64 - 1], np.uint64), [-1]))
    assert identity.content_hash(large) != identity.content_hash(negative)


@pytest.mark.parametrize("part_bytes", [1, 50, 90])
def test_content_hash__does_not_depend_on_parts(part_bytes: int) -> None:
    data = xr.Dataset({"a": (("x", "y"), np.random.default_rng(0).random((7, 5)).astype(np.float32))})
    assert identity.content_hash(data, part_bytes=part_bytes) == identity.content_hash(data)


def test_content_hash__distinguishes_large_integers_in_parts() -> None:
    large, negative = (xr.Dataset({"a": ("x", values)}) for values in (np.array([1, 2**64 - 1], np.uint64), [1, -1]))
    assert identity.content_hash(large, part_bytes=8) != identity.content_hash(negative, part_bytes=8)


def test_content_hash__rejects_other_values() -> None:
    with pytest.raises(InputError, match="expected values that are text or numbers, got set"):
        identity.content_hash(xr.Dataset({"a": ("x", np.array([{1}], dtype=object))}))
    with pytest.raises(InputError, match="numbers, times or text, got complex"):
        identity.content_hash(xr.Dataset({"a": ("x", np.array([1j]))}))


@given(hnp.arrays(np.float32, (3, 4, 7), elements=st.floats(0, 1, width=32)), st.integers(1, 3))
def test_sample_hashes__depend_on_each_sample_up_to_its_end(values: np.ndarray, end: int) -> None:
    hashes = identity.sample_hashes(values)
    assert identity.sample_hashes(values[::-1].astype(np.float64)) == hashes[::-1]
    assert identity.sample_hashes(values[1:2]) == hashes[1:2]
    ends = np.array([end, 4, 4])
    cut = identity.sample_hashes(values, ends)
    padded = values.copy()
    padded[0, end:] = 0.5
    assert identity.sample_hashes(padded, ends) == cut
    assert cut[0] != hashes[0]
    assert cut[1:] == hashes[1:]


def test_model_hashes__do_not_depend_on_dtype_or_other_models() -> None:
    models = fx.sample_ensemble(4, seed=0, connectome=tiny_connectome())
    parameters = [models[name].values for name in ("bias", "time_constant", "synapse_strength")]
    hashes = identity.model_hashes(parameters)
    assert len(set(hashes)) == 4
    assert identity.model_hashes([values[2:].astype(float) for values in parameters]) == hashes[2:]
    changed = identity.model_hashes([parameters[0].astype(float) + 1e-12, *parameters[1:]])
    assert not set(changed) & set(hashes)


def test_file_stamp__follows_the_content(tmp_path: Path) -> None:
    file = tmp_path / "a.npy"
    file.write_bytes(b"one")
    stamp = identity.file_stamp(file)
    moved = shutil.copyfile(file, tmp_path / "b.npy")
    os.utime(moved, ns=(1, 1))
    assert identity.file_stamp(moved).digest == stamp.digest
    identity.check_file(moved, stamp)
    file.write_bytes(b"two")
    os.utime(file, ns=(stamp.mtime_ns, stamp.mtime_ns + 1))
    assert identity.file_stamp(file).digest != stamp.digest
    with pytest.raises(ChangedError, match=r"a.npy has changed since it was opened: open it again"):
        identity.check_file(file, stamp)


def test_file_stamp__reads_a_file_once(tmp_path: Path) -> None:
    """Content that changes while size, modification time and inode stay the same is not read again."""
    file = tmp_path / "a.npy"
    file.write_bytes(b"one")
    stamp = identity.file_stamp(file)
    with file.open("r+b") as stream:
        stream.write(b"two")
    os.utime(file, ns=(stamp.mtime_ns, stamp.mtime_ns))
    assert identity.content_digest(file) != stamp.digest
    assert identity.file_stamp(file) == stamp


def save_mnist(path: Path, value: int) -> Path:
    np.save(path, np.full((20, 3, 8, 8), value, np.uint8))
    return path


def save_video(path: Path, value: int) -> Path:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25, width=48, height=32, pix_fmt="yuv420p")
        for _ in range(6):
            frame = av.VideoFrame.from_ndarray(np.full((32, 48, 3), value, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def from_memory_map(path: Path) -> xr.Dataset:
    return fx.stimuli.from_array(np.load(path, mmap_mode="r").swapaxes(0, 1), frame_rate=30)


SOURCES = {
    "moving_mnist": (save_mnist, fx.stimuli.moving_mnist, "a.npy"),
    "from_video": (save_video, fx.stimuli.from_video, "a.avi"),
    "from_array": (save_mnist, from_memory_map, "a.npy"),
}


@pytest.mark.parametrize("source", SOURCES)
def test_stimuli__rewritten_file_is_another_stimulus(tmp_path: Path, source: str) -> None:
    write, read, name = SOURCES[source]
    file = write(tmp_path / name, 50)
    first, again = read(file), read(file)
    assert identity.token(first.luminance) == identity.token(again.luminance)
    before, stat = first.luminance.values, file.stat()
    write(file, 200)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    second = read(file)
    assert identity.token(second.luminance) != identity.token(first.luminance)
    assert not np.array_equal(second.luminance, before)
    assert identity.content_hash(second, ["luminance"]) != identity.content_hash(
        first.assign(luminance=(first.luminance.dims, before)), ["luminance"]
    )
    with pytest.raises(ChangedError, match="has changed since it was opened"):
        first.luminance.compute()
    if source != "from_array":
        digests = [provenance.steps(movie)[0]["hashes"]["file"] for movie in (first, second)]
        assert digests[0] != digests[1]


@pytest.mark.parametrize("mode", ["r+", "c"])
def test_from_array__modified_memory_map_is_another_stimulus(tmp_path: Path, mode: str) -> None:
    file = save_mnist(tmp_path / "a.npy", 50)
    array = np.load(file, mmap_mode=mode).swapaxes(0, 1)
    first = fx.stimuli.from_array(array, frame_rate=30)
    before = first.luminance.values
    array[0, 0, 0, 0] = 255
    second = fx.stimuli.from_array(array, frame_rate=30)
    assert second.luminance.values[0, 0, 0, 0] == 1
    assert before[0, 0, 0, 0] != 1
    assert identity.content_hash(second) != identity.content_hash(
        first.assign(luminance=(first.luminance.dims, before))
    )
    if mode == "r+":
        assert identity.token(first.luminance) != identity.token(second.luminance)


@pytest.mark.parametrize("source", SOURCES)
def test_stimuli__moved_file_is_the_same_stimulus(tmp_path: Path, source: str) -> None:
    write, read, name = SOURCES[source]
    file = write(tmp_path / name, 50)
    first = read(file)
    moved = tmp_path / f"moved{file.suffix}"
    shutil.copyfile(file, moved)
    assert identity.content_hash(read(moved)) == identity.content_hash(first)
    os.utime(file)  # a new modification time with the same content
    assert np.array_equal(first.luminance, read(moved).luminance)


def stimulus_identity(responses: xr.Dataset) -> dict[str, str | None]:
    """Hash and token of the stimulus in the provenance of responses."""
    step = provenance.steps(responses)[-1]
    return {kind: step.get(kind, {}).get("stimulus") for kind in ("hashes", "tokens")}


def test_stimulus__has_one_hash(tmp_path: Path) -> None:
    """The same in memory, as float64, and in a sweep of lazy data; a graph that is not read has a token instead."""
    connectome = tiny_connectome(extent=2)
    models = fx.sample_ensemble(2, seed=0, connectome=connectome)
    data = random_rendering(n_samples=5)
    loaded = stimulus_identity(fx.simulate(data, models))
    assert loaded["tokens"] is None
    assert loaded == stimulus_identity(fx.simulate(data.astype({"luminance": float}), models))
    lazy = stimulus_identity(fx.simulate(data.chunk(sample=2), models))
    assert lazy["hashes"] is None
    assert lazy["tokens"] is not None
    swept = fx.sweep(data.chunk(sample=2, time=3), models, tmp_path / "r.zarr", progress=False)
    assert stimulus_identity(swept) == loaded
    slower = data.assign_coords(time=schema.time_coord(6, 0.02))
    assert stimulus_identity(fx.simulate(slower, models)) != loaded


SCRIPT = """
import sys, numpy as np, xarray as xr
from flyxr import identity
data = xr.Dataset({"a": ("x", np.arange(5.0)), "b": ("x", list("fghij"))})
print(identity.content_hash(data), *identity.sample_hashes(np.ones((1, 2, 7))))
"""


def test_hashes__are_equal_in_all_processes() -> None:
    outputs = [
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
        ).stdout
        for seed in (1, 2)
    ]
    assert outputs[0] == outputs[1]


def test_connectome__is_identified_by_its_values(tmp_path: Path) -> None:
    """In memory, chunked, stored, and opened with xarray itself."""
    connectome = tiny_connectome(extent=2)
    rendering = random_rendering(n_samples=5)
    path = fx.save(connectome, tmp_path / "c.zarr")
    plain = xr.open_zarr(path, consolidated=False)
    assert str(plain.cell_type.dtype).startswith("StringDType")
    other_dtypes = connectome.assign(sign=connectome.sign.astype(float), stride=connectome.stride.astype(np.int8))
    for equivalent in (connectome.chunk(), fx.open(path), plain, other_dtypes):
        assert tables(equivalent).digest == connectome.attrs["connectome"]
    models = fx.sample_ensemble(1, seed=0, connectome=connectome)
    expected = fx.simulate(rendering, models).response.load()
    for equivalent in (fx.open(path), plain, connectome.chunk()):
        np.testing.assert_array_equal(fx.simulate(rendering, models, connectome=equivalent).response, expected)


def test_connectome__edited_on_disk_is_another(tmp_path: Path) -> None:
    import zarr

    connectome = tiny_connectome(extent=2)
    path = fx.save(connectome, tmp_path / "c.zarr")
    first = fx.open(path)
    assert tables(first).digest == connectome.attrs["connectome"]
    array = zarr.open_array(path / "n_synapses", mode="r+")
    array[...] = array[...] * 3
    second = tables(fx.open(path))
    assert second.digest != connectome.attrs["connectome"]
    np.testing.assert_array_equal(second.n_synapses, 3 * connectome.n_synapses)
    models = fx.sample_ensemble(1, seed=0, connectome=connectome)
    with pytest.raises(schema.SchemaError, match=r"expected an ensemble of the connectome \w+, got one of"):
        fx.simulate(random_rendering(n_samples=5), models, connectome=fx.open(path))


def test_state__edited_on_disk_is_another(tmp_path: Path) -> None:
    import zarr

    connectome = tiny_connectome(extent=2)
    rendering = random_rendering(n_samples=5)
    models = fx.sample_ensemble(1, seed=0, connectome=connectome)
    state = fx.simulate(rendering, models).isel(time=-1).drop_vars("luminance")
    path = fx.save(state, tmp_path / "state.zarr")
    first = fx.simulate(rendering, models, initial_state=fx.open(path))
    before = first.response.values
    fx.sweep(rendering, models, tmp_path / "r.zarr", initial_state=fx.open(path), progress=False)
    again = fx.sweep(rendering, models, tmp_path / "r.zarr", initial_state=fx.open(path).load(), progress=False)
    np.testing.assert_array_equal(again.response, before)
    array = zarr.open_array(path / "response", mode="r+")
    array[...] = array[...] + 1
    with pytest.warns(FlyxrWarning, match="another size than they were saved with"):
        edited = fx.open(path)
    second = fx.simulate(rendering, models, initial_state=edited)
    assert identity.token(second.response) != identity.token(first.response)
    assert np.abs(second.response.values - before).max() > 0.1
    with pytest.raises(SweepMismatchError, match="initial_state: the store has"):
        fx.sweep(rendering, models, tmp_path / "r.zarr", initial_state=edited, progress=False)


def test_token__is_the_name_of_the_graph() -> None:
    lazy = xr.DataArray(da.ones(4, chunks=2))
    assert identity.token(lazy) == lazy.data.name
    assert identity.token(lazy.compute()) is None
