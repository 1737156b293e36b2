"""``fx.save(..., reuse=True)`` keeps a store that holds the same data, and names the differences of others."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr

import flyxr as fx
from flyxr import identity, schema
from flyxr.errors import ExistsError
from flyxr.store import StoreError
from flyxr.testing import corrupt_file, random_rendering, tiny_connectome, write_video

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import CountingScheduler

EYE = fx.BoxEye(extent=2, kernel_size=3)


def stamps(path: Path) -> dict[str, int]:
    """Modification times of all files of a store."""
    return {str(file): file.stat().st_mtime_ns for file in sorted(path.rglob("*"))}


def responses() -> xr.Dataset:
    models = fx.sample_ensemble(2, seed=0, connectome=tiny_connectome(2))
    return fx.simulate(random_rendering().chunk(sample=1), models, record=["L", "T"])


def measures() -> xr.Dataset:
    models = fx.sample_ensemble(2, seed=0, connectome=tiny_connectome(2))
    flashes = fx.stimuli.flashes(-1, dt=1 / 50, t_pre=0.1, t_stim=0.1, extent=2)
    return fx.tuning.flash_response_index(fx.simulate(flashes, models))


def render_digits() -> xr.Dataset:
    return schema.load_coords(EYE.render(fx.stimuli.moving_digits(2, n_frames=3)))


LAZY: dict[str, Callable[[], xr.Dataset]] = {
    "movie": lambda: fx.stimuli.moving_digits(2, n_frames=3),
    "rendering": lambda: render_digits(),
    "resampled": lambda: fx.resample(render_digits(), dt=1 / 100),
    "edges": lambda: fx.stimuli.moving_edges(0, 19, 1, dt=1 / 100),
    "natural": lambda: fx.stimuli.natural_motion(dt=1 / 50, extent=2),
    "responses": responses,
    "measures": measures,
    "selection": lambda: render_digits().isel(sample=[1]),
}
IN_MEMORY: dict[str, Callable[[], Any]] = {
    "ensemble": lambda: fx.sample_ensemble(2, seed=0),
    "connectome": fx.open_connectome,
    "rendering": random_rendering,
    "array": lambda: xr.DataArray([1.0, np.nan], dims="x", coords={"x": ["a", "b"]}),
    "text": lambda: xr.Dataset({"name": ("x", ["a", "b"]), "count": 3}),
    "dates": lambda: xr.Dataset({"a": ("day", [1, 2])}, {"day": np.array(["2020-01-01", "2020-01-02"], "M8[ns]")}),
}


@pytest.mark.parametrize("make", LAZY.values(), ids=LAZY)
def test_reuse__does_not_compute_equal_lazy_data(
    make: Callable[[], xr.Dataset], tmp_path: Path, counting_scheduler: CountingScheduler
) -> None:
    data, same = make(), make()
    counting_scheduler.calls = 0
    path = fx.save(data, tmp_path / "a.zarr", reuse=True)  # nothing there: saves
    before = stamps(path)
    assert counting_scheduler.calls > 0
    counting_scheduler.calls = 0
    assert fx.save(same, tmp_path / "a.zarr", reuse=True) == path
    assert fx.save(same, str(path), reuse=True, overwrite=True) == path
    assert counting_scheduler.calls == 0
    assert stamps(path) == before


@pytest.mark.parametrize("make", IN_MEMORY.values(), ids=IN_MEMORY)
def test_reuse__compares_data_in_memory(make: Callable[[], Any], tmp_path: Path) -> None:
    path = fx.save(make(), tmp_path / "a.zarr", reuse=True)
    before = stamps(path)
    assert fx.save(make(), path, reuse=True) == path
    assert stamps(path) == before


@pytest.mark.parametrize(
    "change",
    [lambda data: data.load(), lambda data: data.chunk(time=1), lambda data: data + 0, lambda data: data.copy()],
    ids=["loaded", "chunked", "recomputed", "copied"],
)
def test_reuse__compares_content_where_graphs_differ(change: Callable[..., Any], tmp_path: Path) -> None:
    rendering = LAZY["rendering"]()
    path = fx.save(rendering, tmp_path / "a.zarr")
    before = stamps(path)
    same = rendering.assign(luminance=rendering.luminance.copy(data=change(rendering.luminance).data))
    fx.save(same, path, reuse=True)
    assert stamps(path) == before
    with pytest.raises(ExistsError, match=r"luminance: 114 of 114 values differ, by up to 0\.5"):
        fx.save(
            same.assign(luminance=same.luminance.copy(data=(0.5 * change(rendering.luminance) + 0.5).data)),
            path,
            reuse=True,
        )


def test_reuse__does_not_trust_functions_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The token of a graph contains the name of an imported function, and not its code."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    module, tokens = None, set()

    def save(code: str) -> None:
        nonlocal module
        (tmp_path / "blending.py").write_text(f"def blend(block):\n    return {code}")
        module = importlib.reload(module) if module else importlib.import_module("blending")
        rendering = fx.stimuli.flashes(-1, 1, dt=1 / 10, extent=1)
        luminance = rendering.luminance.copy(data=rendering.luminance.data.map_blocks(module.blend))
        tokens.add(identity.token(luminance))
        fx.save(rendering.assign(luminance=luminance), tmp_path / "a.zarr", reuse=True)

    save("block")
    save("block + 0")
    with pytest.raises(ExistsError, match="luminance: 210 of 210 values differ"):
        save("block * 0")
    assert len(tokens) == 1


def blend_in_test(block: np.ndarray) -> np.ndarray:
    return block


def test_is_reliable__knows_foreign_functions_and_files(tmp_path: Path) -> None:
    rendering = LAZY["rendering"]()
    assert identity.is_reliable(rendering.luminance)
    path = fx.save(rendering, tmp_path / "a.zarr")
    assert identity.is_reliable(fx.open(path).luminance)
    assert not identity.is_reliable(xr.open_zarr(path, consolidated=False).luminance)
    assert not identity.is_reliable(rendering.luminance.copy(data=rendering.luminance.data.map_blocks(blend_in_test)))
    assert not identity.is_reliable(xr.DataArray(da.ones(3).map_blocks(lambda block: block)))


DIFFERENCES: dict[str, tuple[Callable[[], xr.Dataset], str]] = {
    "argument": (
        lambda: schema.load_coords(EYE.render(fx.stimuli.moving_digits(2, n_frames=3, seed=7))),
        r"moving_digits\(seed=…\): the store has 42, these data 7",
    ),
    "two arguments": (
        lambda: fx.BoxEye(2, 5).render(fx.stimuli.moving_digits(2, n_frames=3), filter="median"),
        r"(?s)render\(kernel_size=…\): the store has 3, these data 5.*"
        r"render\(filter=…\): the store has 'mean', these data 'median'",
    ),
    "operation": (
        lambda: fx.resample(LAZY["rendering"](), dt=1 / 100),
        "operations: the store is made by moving_digits > render, these data by moving_digits > render > resample",
    ),
    "lengths": (
        lambda: EYE.render(fx.stimuli.moving_digits(3, n_frames=3)),
        "luminance: the store has 2 sample x 3 time x 19 column, these data 3 sample x 3 time x 19 column",
    ),
    "dims": (
        lambda: LAZY["rendering"]().luminance.rename(column="cell").to_dataset(),
        "luminance: the store has 2 sample x 3 time x 19 column, these data 2 sample x 3 time x 19 cell",
    ),
    "dtype": (
        lambda: LAZY["rendering"]().astype({"luminance": float}),
        "luminance: the store has float32, these data float64",
    ),
    "labels": (
        lambda: LAZY["rendering"]().assign_coords(angle=("sample", [0.0, 90.0])),
        "angle: the store has no such coordinate",
    ),
    "label": (lambda: LAZY["rendering"]().assign_coords(sample=[0, 5]), "sample .*: the store has 1 at position 1.* 5"),
    "variables": (
        lambda: LAZY["rendering"]().assign(other=("sample", [1, 2])),
        "variable 'other': the store lacks it",
    ),
    "content": (
        lambda: (data := LAZY["rendering"]()).assign(luminance=data.luminance.copy(data=(data.luminance / 2).data)),
        r"luminance: \d+ of 114 values differ, by up to 0\.\d+",
    ),
}


@pytest.mark.parametrize(("make", "message"), DIFFERENCES.values(), ids=DIFFERENCES)
def test_reuse__names_each_difference(make: Callable[[], xr.Dataset], message: str, tmp_path: Path) -> None:
    path = fx.save(LAZY["rendering"](), tmp_path / "a.zarr")
    before = stamps(path)
    with pytest.raises(ExistsError, match=message) as caught:
        fx.save(make(), path, reuse=True)
    assert "pass overwrite=True to replace it, or choose another path" in str(caught.value)
    assert stamps(path) == before
    fx.save(make(), path, reuse=True, overwrite=True)
    xr.testing.assert_equal(fx.open(path), make())
    fx.save(make(), path, reuse=True)


def test_reuse__does_not_compute_data_with_other_arguments(
    tmp_path: Path, counting_scheduler: CountingScheduler
) -> None:
    path = fx.save(LAZY["rendering"](), tmp_path / "a.zarr")
    other = DIFFERENCES["argument"][0]()
    counting_scheduler.calls = 0
    with pytest.raises(ExistsError, match="seed"):
        fx.save(other, path, reuse=True)
    assert counting_scheduler.calls == 0


def from_video(path: Path) -> xr.Dataset:
    return EYE.render(fx.stimuli.from_video(path))


def from_npy(path: Path) -> xr.Dataset:
    return EYE.render(fx.stimuli.from_array(np.load(path, mmap_mode="r"), frame_rate=30))


def write_npy(path: Path, levels: np.ndarray) -> Path:
    np.save(path, np.broadcast_to(levels.astype(np.uint8)[None, :, None, None], (1, len(levels), 32, 48)))
    return path


SOURCES = {"video": ("a.avi", write_video, from_video), "npy": ("a.npy", write_npy, from_npy)}


@pytest.mark.parametrize("source", SOURCES)
def test_reuse__renders_a_file_once_for_its_content(
    source: str, tmp_path: Path, counting_scheduler: CountingScheduler
) -> None:
    name, write, render = SOURCES[source]
    file = write(tmp_path / name, np.arange(0, 100, 20))
    rendering = fx.open(fx.save(render(file), tmp_path / "r.zarr", reuse=True))
    expected = rendering.luminance.values
    counting_scheduler.calls = 0
    before = stamps(tmp_path / "r.zarr")
    rendering = fx.open(fx.save(render(file), tmp_path / "r.zarr", reuse=True))
    assert counting_scheduler.calls == 0
    np.testing.assert_array_equal(rendering.luminance, expected)

    moved = file.rename(tmp_path / f"moved{file.suffix}")
    fx.save(render(moved), tmp_path / "r.zarr", reuse=True)
    assert stamps(tmp_path / "r.zarr") == before

    write(moved, np.arange(100, 200, 20))
    os.utime(moved, ns=(1, 1))
    with pytest.raises(ExistsError, match="content of the file has changed" if source == "video" else "values differ"):
        fx.save(render(moved), tmp_path / "r.zarr", reuse=True)


SCRIPT = """
import sys, numpy as np, dask, flyxr as fx
calls = 0
def count(dsk, keys, **options):
    global calls
    calls += 1
    return dask.get(dsk, keys, **options)
connectome = fx.open_connectome(extent=2)
models = fx.sample_ensemble(2, seed=0, connectome=connectome)
eye, digits = fx.BoxEye(extent=2, kernel_size=3), fx.stimuli.moving_digits(2, n_frames=3).drop_vars("digit")
flashes = fx.stimuli.flashes(-1, dt=1/50, t_pre=.1, t_stim=.1, extent=2)
with dask.config.set(scheduler=count):
    for name, data in {
        "video": eye.render(fx.stimuli.from_video(folder + "/a.avi")),
        "npy": eye.render(fx.stimuli.from_array(np.load(folder + "/a.npy", mmap_mode="r"), 30, rescale=True)),
        "resampled": fx.resample(eye.render(digits), 1/100),
        "hexagons": fx.HexEye(extent=2, kernel_size=3).render(digits),
        "responses": fx.simulate(flashes, models, initial_state="steady_state"),
    }.items():
        fx.save(data, f"{folder}/{name}.zarr", reuse=True)
    rendering = fx.resample(fx.open(folder + "/video.zarr"), 1/50)
    fx.save(fx.simulate(rendering, models, record="central"), folder + "/again.zarr", reuse=True)
"""


def test_reuse__works_between_processes(tmp_path: Path) -> None:
    write_video(tmp_path / "a.avi", np.arange(0, 100, 20))
    write_npy(tmp_path / "a.npy", np.arange(0, 100, 20))
    names: dict[str, Any] = {"folder": str(tmp_path)}
    exec(SCRIPT, names)
    assert names["calls"] >= 6
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", f"folder = {str(tmp_path)!r}\n{SCRIPT}\nprint(calls)"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "7"},
    )
    assert run.stdout == "0\n"


def remove_chunk(path: Path) -> None:
    next(file for file in sorted(path.glob("luminance/c/**/*")) if file.is_file()).unlink()


def truncate_chunk(path: Path) -> None:
    file = next(file for file in sorted(path.glob("luminance/c/**/*")) if file.is_file())
    file.write_bytes(file.read_bytes()[:5])


def remove_group(path: Path) -> None:
    (path / "zarr.json").unlink()


DAMAGES = {"no chunk": remove_chunk, "short chunk": truncate_chunk, "no group": remove_group}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_reuse__refuses_a_damaged_store(damage: Callable[[Path], None], tmp_path: Path) -> None:
    path = fx.save(LAZY["rendering"](), tmp_path / "a.zarr")
    damage(path)
    with pytest.raises(StoreError, match=r"(?s)cannot reuse .*a\.zarr.*choose another path") as caught:
        fx.save(LAZY["rendering"](), path, reuse=True)
    if damage is remove_group:
        with pytest.raises(ExistsError, match="not a zarr store, so it is not overwritten"):
            fx.save(LAZY["rendering"](), path, reuse=True, overwrite=True)
        return
    assert "pass overwrite=True" in str(caught.value)
    fx.save(LAZY["rendering"](), path, reuse=True, overwrite=True)
    np.testing.assert_array_equal(fx.open(path).luminance, LAZY["rendering"]().luminance)


@pytest.mark.parametrize("is_lazy", [True, False])
def test_reuse__reports_corruption(is_lazy: bool, tmp_path: Path) -> None:
    rendering = LAZY["rendering"]() if is_lazy else LAZY["rendering"]().load()
    path = fx.save(rendering, tmp_path / "a.zarr")
    corrupt_file(next(file for file in sorted(path.glob("luminance/c/**/*")) if file.is_file()))
    with pytest.raises(StoreError, match="is corrupted or cannot be read"):
        fx.save(rendering, path, reuse=True)


def test_reuse__recognises_a_copied_store(tmp_path: Path, counting_scheduler: CountingScheduler) -> None:
    rendering = LAZY["rendering"]()
    path = shutil.copytree(fx.save(rendering, tmp_path / "a.zarr"), tmp_path / "b.zarr", copy_function=shutil.copyfile)
    counting_scheduler.calls = 0
    fx.save(rendering, path, reuse=True)
    assert counting_scheduler.calls == 0


def test_reuse__reads_a_store_that_was_changed_in_place(tmp_path: Path) -> None:
    rendering = LAZY["rendering"]()
    path = fx.save(rendering, tmp_path / "a.zarr")
    other = fx.save(LAZY["rendering"]() / 2, tmp_path / "b.zarr")
    for file in sorted(path.glob("luminance/c/**/*")):
        if file.is_file():  # padded to the size in the manifest
            content = (other / file.relative_to(path)).read_bytes()
            n_bytes = file.stat().st_size
            file.write_bytes(content[:n_bytes].ljust(n_bytes, b"0"))
    with pytest.raises((ExistsError, StoreError), match="values differ|corrupted"):
        fx.save(rendering, path, reuse=True)


@pytest.mark.parametrize("make_path", [lambda path: path.mkdir(), lambda path: path.write_text("notes")])
def test_reuse__leaves_other_paths_alone(make_path: Callable[[Path], Any], tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    make_path(path)
    for overwrite in (False, True):
        with pytest.raises((StoreError, ExistsError), match="choose another path"):
            fx.save(random_rendering(), path, reuse=True, overwrite=overwrite)
    assert path.exists()


def test_reuse__expands_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for _ in range(2):
        assert fx.save(random_rendering(), "~/a.zarr", reuse=True) == tmp_path / "a.zarr"


def test_reuse__distinguishes_a_sweep(tmp_path: Path) -> None:
    models = fx.sample_ensemble(2, seed=0, connectome=tiny_connectome(2))
    fx.sweep(random_rendering(), models, tmp_path / "r.zarr", progress=False)
    with pytest.raises(ExistsError, match="made by sweep, these data by simulate"):
        fx.save(fx.simulate(random_rendering(), models), tmp_path / "r.zarr", reuse=True)


def test_reuse__compares_content_with_stores_of_other_versions(
    tmp_path: Path, counting_scheduler: CountingScheduler
) -> None:
    data = LAZY["rendering"]()
    path = fx.save(data, tmp_path / "a.zarr")
    (file,) = path.glob("*/tokens.json")
    text = file.read_text()
    for other in (text.replace(fx.__version__, "0.1.9"), "{}", "no JSON"):
        file.write_text(other.ljust(len(text)))  # a file of another length counts as damage
        counting_scheduler.calls = 0
        fx.save(data, path, reuse=True)
        assert counting_scheduler.calls > 0
    file.write_text(text)
    counting_scheduler.calls = 0
    fx.save(data, path, reuse=True)
    assert counting_scheduler.calls == 0
