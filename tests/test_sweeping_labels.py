"""Labels, runs, versions and concurrent changes of the stores of sweeps."""

from __future__ import annotations

import json
import os
import shutil
import threading
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

import flyxr as fx
from flyxr import provenance, schema
from flyxr.errors import FlyxrWarning
from flyxr.identity import ChangedError
from flyxr.store import StoreError, files
from flyxr.store.ledger import LEDGER_FILE
from flyxr.sweeping import LabelMismatchError, SweepError, SweepMismatchError
from flyxr.sweeping.base import Run
from flyxr.testing import corrupt_file, failing_engine, noise_rendering, observed_engine, tiny_connectome

if TYPE_CHECKING:
    from collections.abc import Callable

CONNECTOME = tiny_connectome(extent=2)


def make_ensemble(n_models: int = 3) -> xr.Dataset:
    return fx.sample_ensemble(n_models, seed=0, connectome=CONNECTOME)


def sweep(
    path: Path, rendering: xr.Dataset | None = None, ensemble: xr.Dataset | None = None, **options: Any
) -> xr.Dataset:
    rendering = noise_rendering() if rendering is None else rendering
    ensemble = make_ensemble() if ensemble is None else ensemble
    options = {"connectome": CONNECTOME, "device": "cpu", "progress": False} | options
    responses = fx.sweep(rendering, ensemble, path, **options)
    assert isinstance(responses, xr.Dataset)
    return responses


def sweep_in_pairs(path: Path, *arguments: Any, **options: Any) -> xr.Dataset:
    """Sweep in blocks of two samples."""
    return sweep(path, *arguments, block_samples=2, **options)


def simulate(rendering: xr.Dataset | None = None, ensemble: xr.Dataset | None = None, **options: Any) -> xr.Dataset:
    rendering = noise_rendering() if rendering is None else rendering
    ensemble = make_ensemble() if ensemble is None else ensemble
    return fx.simulate(rendering, ensemble, **{"connectome": CONNECTOME, "device": "cpu"} | options)


def read_entries(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path / LEDGER_FILE).read_text().splitlines()]


def _objects(*items: Any) -> np.ndarray:
    labels = np.empty(len(items), dtype=object)
    labels[:] = items
    return labels


LABELS = {
    "text": _objects("a", "b"),
    "tuples": _objects(("a", 1), ("b", (2.5, None))),
    "mixed": _objects(1, "b"),
    "dates": np.array(["2026-01-01", "2026-01-02"], "datetime64[us]"),
    "durations": np.array([1, 2], "timedelta64[s]"),
    "floats": np.array([0.5, 1.5]),
    "booleans": np.array([True, False]),
    "objects of time": _objects(pd.Timestamp("2026-01-01 12:00"), pd.Timedelta("3ms")),
}


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_labels__of_any_kind_live_on(labels: np.ndarray, tmp_path: Path) -> None:
    coords = {"sample": xr.Variable("sample", labels), "own": ("sample", labels)}
    rendering = noise_rendering(2).assign_coords(coords)
    models = make_ensemble(2).assign_coords(model=xr.Variable("model", labels))
    expected = simulate(rendering, models)
    stored_rendering = fx.open(fx.save(rendering, tmp_path / "rendering.zarr"))
    stores = [
        fx.open(fx.save(expected, tmp_path / "responses.zarr")),
        sweep(tmp_path / "sweep.zarr", rendering, models),
        sweep(tmp_path / "sweep.zarr", stored_rendering, models),
        fx.open(tmp_path / "sweep.zarr"),
    ]
    for responses in stores:
        for name in ("sample", "model", "own"):
            assert responses[name].equals(expected[name])
            assert responses[name].values.tolist()[0] == labels.astype(expected[name].dtype).tolist()[0] or (
                labels.dtype.kind in "mM"
            )


def test_labels__of_a_multi_index_become_coordinates(tmp_path: Path) -> None:
    rendering = noise_rendering(2).assign_coords(speed=("sample", [1, 2]))
    stacked = rendering.drop_vars("sample").set_index(sample=["angle", "speed"])
    back = fx.open(fx.save(stacked, tmp_path / "rendering.zarr"))
    assert back.angle.dims == back.speed.dims == ("sample",)
    assert back.sample.values.tolist() == [0, 1]


def test_sweep__of_a_selection_has_its_dims_and_a_whole_store(tmp_path: Path) -> None:
    rendering, models = noise_rendering(2).assign_coords(digit=("sample", _objects("3", "9"))), make_ensemble(2)
    one = sweep(tmp_path / "r.zarr", rendering.isel(sample=0), models.isel(model=0))
    xr.testing.assert_equal(one.load(), simulate(rendering, models).isel(sample=0, model=0).load())
    assert fx.open(tmp_path / "r.zarr").response.dims[:2] == ("model", "sample")
    again = sweep(tmp_path / "r.zarr", rendering.isel(sample=[0]), models.isel(model=[0]))
    assert again.response.dims[:2] == ("model", "sample")
    both = sweep(tmp_path / "r.zarr", rendering, models)
    xr.testing.assert_equal(both.load(), simulate(rendering, models).load())


N_SAMPLES = 5
CORRECTED: dict[str, tuple[Callable[[], dict[str, Any]], str]] = {
    "angle": (
        lambda: {"rendering": noise_rendering().assign_coords(angle=("sample", np.arange(N_SAMPLES) * 7.0))},
        r"angle \(sample\): the store has 30.0 at position 1, this call 7.0, and 3 others differ",
    ),
    "t_stim": (
        lambda: {"rendering": noise_rendering().assign_coords(t_stim=("sample", np.full(N_SAMPLES, 0.05)))},
        r"t_stim: the store has no such coordinate, this call has it along \(sample\)",
    ),
    "no angle": (
        lambda: {"rendering": noise_rendering().drop_vars("angle")},
        "angle: the store has it along .*, this call has no such coordinate",
    ),
    "sample": (
        lambda: {"rendering": noise_rendering().assign_coords(sample=np.arange(N_SAMPLES) + 1)},
        r"sample \(sample\): the store has 0 at position 0, this call 1",
    ),
    "on time": (
        lambda: {"rendering": noise_rendering().assign_coords(phase=("time", np.arange(6) % 2))},
        r"phase: the store has no such coordinate, this call has it along \(time\)",
    ),
    "of all": (
        lambda: {"rendering": noise_rendering().assign_coords(experiment="second")},
        "experiment: the store has no such coordinate",
    ),
    "model_name": (
        lambda: {"ensemble": make_ensemble().assign_coords(model_name=("model", np.array(list("abc"), dtype=object)))},
        r"model_name \(model\): the store has 'sample-0/000' at position 0, this call 'a'",
    ),
    "task_error": (
        lambda: {"ensemble": make_ensemble().assign_coords(task_error=("model", [1.0, 2.0, 3.0]))},
        r"task_error \(model\): the store has nan at position 0, this call 1.0",
    ),
    "perturbation": (
        lambda: {
            "ensemble": make_ensemble().assign_coords(perturbation=("model", np.array(["none"] * 3, dtype=object)))
        },
        "perturbation: the store has no such coordinate",
    ),
    "units": (
        lambda: {"rendering": rendering_in_turns()},
        r"angle: the store has the attributes \{.*\}, this call \{.*turn.*\}",
    ),
    "attribute": (
        lambda: {"ensemble": make_ensemble().assign_attrs(trained=1)},
        "attribute trained: the store has 0, this call 1",
    ),
}


def rendering_in_turns() -> xr.Dataset:
    rendering = noise_rendering()
    rendering["angle"].attrs["units"] = "turn"
    return rendering


@pytest.mark.parametrize(("options", "message"), CORRECTED.values(), ids=CORRECTED)
def test_sweep__names_other_labels_and_relabels_on_request(
    tmp_path: Path, options: Callable[[], dict[str, Any]], message: str, computed_blocks: list[Any]
) -> None:
    path = tmp_path / "r.zarr"
    before = sweep(path).load()
    computed_blocks.clear()
    with pytest.raises(LabelMismatchError, match=rf"(?s)has other labels:\n- {message}.*with relabel=True") as error:
        sweep(path, **options())
    assert "--relabel" in error.value.message(command_line=True)
    xr.testing.assert_identical(fx.open(path).load(), before)
    got = sweep(path, **options(), relabel=True).load()
    assert computed_blocks == []
    xr.testing.assert_identical(got, sweep(tmp_path / "other.zarr", **options()).load())
    np.testing.assert_array_equal(got.response, before.response)
    plain = xr.open_zarr(path, consolidated=False)
    assert set(plain.coords) == set(got.coords)
    for name, coord in got.coords.items():
        np.testing.assert_array_equal(plain[name].values.astype(coord.dtype), coord.values)
    xr.testing.assert_identical(sweep(path, **options()).load(), got)
    with pytest.raises(LabelMismatchError):
        sweep(path)


def test_sweep__names_stimulus_and_labels_at_once(tmp_path: Path) -> None:
    sweep(tmp_path / "r.zarr")
    other = (
        noise_rendering()
        .assign(luminance=noise_rendering().luminance * 0.5)
        .assign_coords(angle=("sample", np.arange(N_SAMPLES)))
    )
    with pytest.raises(SweepMismatchError, match=r"(?s)luminance of 5 samples.*\n- angle \(sample\)"):
        sweep(tmp_path / "r.zarr", other)


@given(
    first=st.tuples(st.integers(1, 3), st.integers(1, 5)),
    more=st.tuples(st.integers(0, 1), st.integers(0, 3)),
    n_done=st.integers(0, 6),
    has_labels=st.booleans(),
)
@settings(max_examples=8)
def test_sweep__resumed_and_extended_equals_an_undisturbed_one(
    tmp_path_factory: pytest.TempPathFactory,
    first: tuple[int, int],
    more: tuple[int, int],
    n_done: int,
    has_labels: bool,
) -> None:
    """In values, labels and attributes."""
    folder = tmp_path_factory.mktemp("sweep")

    def inputs(n_models: int, n_samples: int) -> dict[str, Any]:
        rendering, ensemble = noise_rendering(n_samples), make_ensemble(n_models)
        if has_labels:
            rendering = rendering.assign_coords(t_stim=("sample", np.arange(n_samples) / 100), kind="moving")
            perturbation = np.array(["none"] * n_models, dtype=object)
            ensemble = ensemble.assign_coords(perturbation=("model", perturbation))
        return {"rendering": rendering, "ensemble": ensemble}

    with failing_engine(n_done, OSError(28, "No space left on device")):
        try:
            sweep_in_pairs(folder / "r.zarr", **inputs(*first))
        except OSError:
            assert not fx.sweep_status(folder / "r.zarr").attrs["complete"]
    extended = inputs(first[0] + more[0], first[1] + more[1])
    got = sweep_in_pairs(folder / "r.zarr", **extended).load()
    expected = sweep_in_pairs(folder / "u.zarr", **extended).load()
    xr.testing.assert_identical(got, expected)
    assert [variable.attrs for variable in got.variables.values()] == [v.attrs for v in expected.variables.values()]
    schema.validate(got, "responses")


def test_sweep__records_each_run(tmp_path: Path) -> None:
    path = tmp_path / "r.zarr"
    sweep(path, noise_rendering(3), engine="reference")
    got = sweep(path, noise_rendering(5), make_ensemble(4))
    runs = json.loads(fx.sweep_status(path).attrs["runs"])
    assert [(run["engine"], run["device"]) for run in runs] == [("reference", "cpu"), ("stencil", "cpu")]
    for run in runs:
        assert run["versions"] == provenance.versions(("numpy", "xarray", "dask", "torch"))
    arguments = provenance.steps(got)[-1]["arguments"]
    assert (arguments["engine"], arguments["device"]) == ("reference, stencil", "cpu")
    assert arguments["record"] == {"cell_type": "all", "column": "all", "time": "all"}


def test_sweep__relabelling_is_not_a_run(tmp_path: Path) -> None:
    path = tmp_path / "r.zarr"
    sweep(path)
    sweep(path, noise_rendering().drop_vars("angle"), relabel=True)
    assert len(json.loads(fx.sweep_status(path).attrs["runs"])) == 1
    assert fx.sweep_status(path).attrs["complete"]


def test_sweep__relabels_a_store_that_it_extends(tmp_path: Path) -> None:
    path = tmp_path / "r.zarr"
    sweep(path, noise_rendering(3))
    wrong = noise_rendering(5).assign_coords(angle=("sample", np.arange(5) * 7.0))
    with pytest.raises(LabelMismatchError, match=r"angle \(sample\): the store has 30.0 at position 1"):
        sweep(path, wrong)
    got = sweep(path, wrong, relabel=True)
    np.testing.assert_array_equal(got.angle, np.arange(5) * 7.0)
    xr.testing.assert_identical(got.load().drop_attrs(), simulate(wrong).load().drop_attrs())


def test_sweep__refuses_a_store_that_another_process_creates_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other sweep starts, and creates the store, while this one is creating it in its scratch directory."""
    path, is_running, may_finish = tmp_path / "r.zarr", threading.Event(), threading.Event()
    other, fsync = threading.Thread(target=sweep, args=(path,)), os.fsync

    def wait(*_: Any) -> None:
        is_running.set()
        assert may_finish.wait(60)

    def start_other(descriptor: int) -> None:
        monkeypatch.setattr(os, "fsync", fsync)
        other.start()
        assert is_running.wait(60)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", start_other)
    with observed_engine(wait):
        try:
            with pytest.raises(SweepError, match="another sweep is writing to"):
                sweep(path)
        finally:
            may_finish.set()
            other.join()
    assert fx.sweep_status(path).attrs["complete"]


def test_open__refuses_to_read_a_sweep_that_was_replaced(tmp_path: Path) -> None:
    path = tmp_path / "r.zarr"
    old = sweep(path)
    old.response[0].load()
    sweep(path, initial_state="rest", overwrite=True)
    for model in range(3):
        with pytest.raises(ChangedError, match="of .*r.zarr has changed since it was opened"):
            old.response[model].load()
    shutil.rmtree(path)
    with pytest.raises(ChangedError, match="of .*r.zarr has changed since it was opened"):
        old.luminance.load()


def test_open__reads_the_same_after_an_extension(tmp_path: Path) -> None:
    path = tmp_path / "r.zarr"
    old = sweep(path, noise_rendering(3))
    sweep(path, noise_rendering(5), make_ensemble(4))
    xr.testing.assert_identical(old.load().drop_attrs(), simulate(noise_rendering(3)).load().drop_attrs())


def test_open__a_modified_sweep_has_another_graph(tmp_path: Path) -> None:
    path = tmp_path / "r.zarr"
    first = sweep_in_pairs(path, noise_rendering(3))
    assert first.response.data.name == fx.open(path).response.data.name
    shard = path / "response/c/0/0/0/0/0"
    content = shard.read_bytes()
    shard.write_bytes(content)
    assert fx.open(path).response.data.name != first.response.data.name


def test_sweep__verify_finds_a_swapped_file(tmp_path: Path) -> None:
    """With the same size and time, and intact for zarr."""
    path = tmp_path / "r.zarr"
    expected = sweep_in_pairs(path).load()
    constant = noise_rendering().assign(luminance=noise_rendering().luminance * 0 + 0.5)
    sweep_in_pairs(tmp_path / "o.zarr", constant, initial_state="rest")
    sizes = {file.stat().st_size: file for file in (tmp_path / "o.zarr/response/c").rglob("*") if file.is_file()}
    name = "response/c/0/1/0/0/0"
    stat = (path / name).stat()
    other = next(iter(sizes.values())).read_bytes()
    (path / name).write_bytes(other)
    entries = read_entries(path)
    for entry in entries:
        if entry.get("shard", [""])[0] == name:
            entry["shard"][1] = len(other)
    (path / LEDGER_FILE).write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    os.utime(path / name, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.warns(UserWarning, match=rf"{name} is missing or corrupted and will be recomputed"):
        xr.testing.assert_identical(sweep_in_pairs(path, verify=True).load(), expected)


def test_ledger__has_posix_paths(tmp_path: Path) -> None:
    path = tmp_path / "r.zarr"
    sweep(path)
    entries = read_entries(path)
    shards = [entry["shard"] for entry in entries if "shard" in entry]
    assert shards
    for shard in shards:
        assert "\\" not in shard[0]
        shard[0] = shard[0].replace("/", "\\")  # as version 0.1 did on Windows
    (path / LEDGER_FILE).write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    assert fx.sweep_status(path).attrs["complete"]
    assert fx.open(path).response.notnull().all()


@pytest.fixture
def first_version(tmp_path: Path) -> Path:
    """Stores of version 0.1: ``noise_rendering()``, ``make_ensemble()``, a finished and an unfinished sweep of them."""
    with zipfile.ZipFile(Path(__file__).parent / "data" / "v0.1.zip") as archive:
        archive.extractall(tmp_path)
    return tmp_path


def test_first_version__opens(first_version: Path) -> None:
    expected = simulate(ensemble=make_ensemble(2)).load()
    xr.testing.assert_identical(fx.open(first_version / "finished.zarr").load().drop_attrs(), expected.drop_attrs())
    xr.testing.assert_identical(fx.open(first_version / "responses.zarr").load().drop_attrs(), expected.drop_attrs())
    back = fx.open(first_version / "rendering.zarr").load()
    xr.testing.assert_identical(back.drop_attrs(), noise_rendering().drop_attrs())
    ensemble = fx.open_ensemble(first_version / "ensemble.zarr")
    xr.testing.assert_identical(ensemble.drop_attrs(), make_ensemble(3).drop_attrs())
    assert ensemble.attrs["connectome"] == CONNECTOME.attrs["connectome"]
    connectome = fx.open(first_version / "connectome.zarr").load()
    xr.testing.assert_identical(connectome.drop_attrs(), CONNECTOME.drop_attrs())
    assert connectome.attrs == CONNECTOME.attrs
    with pytest.warns(FlyxrWarning, match=r"unfinished sweep: \d+ of 15"):
        unfinished = fx.open(first_version / "unfinished.zarr")
    done = fx.sweep_status(first_version / "unfinished.zarr").done
    np.testing.assert_array_equal(unfinished.response.notnull().all(["time", "cell_type", "column"]), done)


def test_first_version__resumes(first_version: Path, computed_blocks: list[Any]) -> None:
    rendering = fx.open(first_version / "rendering.zarr")
    ensemble = fx.open_ensemble(first_version / "ensemble.zarr")
    n_done = fx.sweep_status(first_version / "unfinished.zarr").attrs["n_done"]
    got = sweep_in_pairs(first_version / "unfinished.zarr", rendering, ensemble)
    assert sum(n for _, n in computed_blocks) == 15 - n_done
    xr.testing.assert_identical(got.load().drop_attrs(), simulate().load().drop_attrs())
    before = len(computed_blocks)
    xr.testing.assert_identical(
        sweep_in_pairs(first_version / "unfinished.zarr", rendering, ensemble).load(), got.load()
    )
    assert len(computed_blocks) == before


def test_first_version__opens_and_extends(first_version: Path, computed_blocks: list[Any]) -> None:
    path = first_version / "finished.zarr"
    before = (path / LEDGER_FILE).read_bytes()
    sweep_in_pairs(path, ensemble=make_ensemble(2))
    assert (path / LEDGER_FILE).read_bytes() == before
    assert computed_blocks == []
    with pytest.raises(LabelMismatchError, match=r"angle \(sample\)"):
        sweep_in_pairs(path, noise_rendering().assign_coords(angle=("sample", np.arange(5))), make_ensemble(2))
    got = sweep_in_pairs(path)
    assert len(computed_blocks) == 3
    xr.testing.assert_identical(got.load().drop_attrs(), simulate().load().drop_attrs())
    with pytest.raises(SweepMismatchError, match="dt: the store has"):
        sweep_in_pairs(path, noise_rendering(dt=1 / 200))


def test_first_version__finds_corrupted_files(first_version: Path) -> None:
    path = first_version / "finished.zarr"
    expected = fx.open(path).load()
    corrupt_file(path / "response/c/0/1/0/0/0")
    with pytest.warns(UserWarning, match=r"response/c/0/1/0/0/0 is missing or corrupted"):
        got = sweep_in_pairs(path, ensemble=make_ensemble(2))
    xr.testing.assert_identical(got.load().drop_attrs(), expected.drop_attrs())


def test_first_version__reports_an_interrupted_extension(first_version: Path) -> None:
    path = first_version / "finished.zarr"
    inputs = read_entries(path)[0]["inputs"]
    inputs["models"] = read_entries(first_version / "unfinished.zarr")[0]["inputs"]["models"]
    with (path / LEDGER_FILE).open("a") as file:
        file.write(json.dumps({"inputs": inputs}) + "\n")
    for call in (fx.open, fx.sweep_status):
        with pytest.raises(StoreError, match="was being extended when the process ended: .*call fx.sweep with"):
            call(path)
    xr.testing.assert_identical(sweep(path).load().drop_attrs(), simulate().load().drop_attrs())


def test_open__before_an_extension_reaches_the_zarr_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The models and samples that only the ledger has are missing."""
    path = tmp_path / "r.zarr"
    before = sweep_in_pairs(path, noise_rendering(3), make_ensemble(2)).load()
    replace = os.replace

    def interrupt(source: Any, target: Any) -> None:
        if Path(target).is_relative_to(path):
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", interrupt)
        with pytest.raises(KeyboardInterrupt):
            sweep_in_pairs(path)
    assert xr.open_zarr(path, consolidated=False).sizes["sample"] == 3
    with pytest.warns(FlyxrWarning, match="unfinished sweep: 9 of 15 responses"):
        opened = fx.open(path)
    loaded = opened.load()
    assert loaded.response.shape[:2] == (3, 5)
    np.testing.assert_array_equal(loaded.response[:2, :3], before.response)
    assert loaded.response[2].isnull().all()
    assert loaded.response[:, 3:].isnull().all()
    np.testing.assert_array_equal(loaded.angle, noise_rendering().angle)
    assert not fx.sweep_status(path).attrs["complete"]
    with pytest.raises(SweepMismatchError, match=r"models: the store has 3, this call 2"):
        sweep_in_pairs(path, noise_rendering(3), make_ensemble(2))
    xr.testing.assert_identical(sweep_in_pairs(path).load().drop_attrs(), simulate().load().drop_attrs())


def test_list_files__ignores_a_file_that_vanishes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.zarr"
    sweep(path)
    (path / "response/c/0/0/0/0/x.partial").touch()
    scan = os.scandir

    class Scan:
        def __init__(self, folder: Any) -> None:
            self.entries = list(scan(folder))

        def __enter__(self) -> Any:
            for entry in self.entries:
                if entry.name.endswith(".partial"):
                    os.unlink(entry.path)
            return iter(self.entries)

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(os, "scandir", Scan)
    names = files.list_files(path)
    assert not any(name.endswith(".partial") for name in names)
    assert "response/c/0/0/0/0/0" in names
    assert fx.sweep_status(path).attrs["complete"]


def test_open__does_not_list_the_files_of_a_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ledger has their names; listing a folder per file takes ten times as long."""
    path = tmp_path / "r.zarr"
    sweep(path)

    def refuse(folder: Any) -> Any:
        pytest.fail(f"{folder} was listed")

    monkeypatch.setattr(os, "scandir", refuse)
    assert fx.open(path).response.load().notnull().all()
    assert fx.sweep_status(path).attrs["complete"]
    assert sweep(path).sizes["model"] == 3


@pytest.mark.parametrize("file", ["angle/c/0", "angle/zarr.json", "time/zarr.json"])
def test_open__labels_of_a_sweep_are_right_if_their_files_are_missing(
    tmp_path: Path, file: str, computed_blocks: list[Any]
) -> None:
    """Other software would read wrong labels, so opening warns, and repeating the call rewrites them."""
    path = tmp_path / "r.zarr"
    expected = sweep(path).load()
    (path / file).unlink()
    with pytest.warns(FlyxrWarning, match=rf"1 files of .* are missing .*, first {file}; .*call fx.sweep"):
        xr.testing.assert_identical(fx.open(path).load(), expected)
    status = fx.sweep_status(path)
    assert (status.attrs["complete"], status.attrs["n_missing_files"]) == (False, 1)
    computed_blocks.clear()
    xr.testing.assert_identical(sweep(path).load(), expected)
    assert computed_blocks == []
    assert (path / file).exists()
    assert fx.sweep_status(path).attrs["complete"]


@pytest.mark.parametrize("array", ["response", "luminance"])
def test_open__refuses_a_sweep_without_the_metadata_of_an_array(tmp_path: Path, array: str) -> None:
    path = tmp_path / "r.zarr"
    expected = sweep(path).load()
    (path / array / "zarr.json").unlink()
    with pytest.raises(StoreError, match=rf"{array}/zarr.json cannot be read .*call fx.sweep with"):
        fx.open(path)
    xr.testing.assert_identical(sweep(path).load(), expected)


def test_sweep__names_an_array_whose_metadata_are_damaged(tmp_path: Path) -> None:
    path = tmp_path / "r.zarr"
    with failing_engine(2, OSError(28, "full")), pytest.raises(OSError, match="full"):
        sweep(path, engine="stencil")
    file = path / "response" / "zarr.json"
    text = file.read_text()
    file.write_text("{{" + text[2:])  # of the same size, so that the ledger does not notice
    with pytest.raises(StoreError, match=r"r.zarr/response is damaged"):
        sweep(path, engine="stencil")


def forget_layout(path: Path) -> None:
    """Turn a sweep into one of version 0.2, whose ledger does not state its chunks."""
    entries = read_entries(path)
    for entry in entries:
        entry.get("inputs", {}).pop("chunk_types", None)
    (path / LEDGER_FILE).write_text("".join(json.dumps(entry) + "\n" for entry in entries))


@pytest.fixture
def second_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished sweep of two models and three samples with the layout of version 0.2, two cell types per chunk."""
    path = tmp_path / "second.zarr"
    layout = {"n_chunk_types": 2, "shard_single_chunks": True}
    monkeypatch.setattr("flyxr.sweeping.base.types_per_chunk_before", lambda n_types, type_bytes: 2)
    with monkeypatch.context() as patch:
        patch.setattr(Run, "layout", layout)
        sweep_in_pairs(path, noise_rendering(3), make_ensemble(2))
    forget_layout(path)
    return path


def layout_of(path: Path) -> tuple[Any, Any]:
    array = zarr.open_array(path / "response", mode="r")
    return array.chunks, array.shards


def test_sweep__states_its_chunks_and_keeps_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another chunk policy of a later version does not change an existing store."""
    path = tmp_path / "r.zarr"
    sweep_in_pairs(path, noise_rendering(3), make_ensemble(2))
    assert read_entries(path)[0]["inputs"]["chunk_types"] == 3
    layout = layout_of(path)
    monkeypatch.setattr("flyxr.sweeping.base.types_per_chunk", lambda n_types, type_bytes: 1)
    got = sweep_in_pairs(path)
    assert layout_of(path) == layout
    xr.testing.assert_identical(got.load().drop_attrs(), simulate().load().drop_attrs())


def test_second_version__opens_and_is_not_written_to(second_version: Path, computed_blocks: list[Any]) -> None:
    before = (second_version / LEDGER_FILE).read_bytes()
    computed_blocks.clear()
    got = sweep_in_pairs(second_version, noise_rendering(3), make_ensemble(2))
    assert computed_blocks == []
    assert (second_version / LEDGER_FILE).read_bytes() == before
    expected = simulate(noise_rendering(3), make_ensemble(2))
    xr.testing.assert_identical(got.load().drop_attrs(), expected.load().drop_attrs())


def test_second_version__extends_with_its_own_chunks(second_version: Path, computed_blocks: list[Any]) -> None:
    layout = layout_of(second_version)
    assert (layout[0][3], layout[1][3]) == (2, 4)
    n_before = len(computed_blocks)
    got = sweep_in_pairs(second_version)
    assert sum(n for _, n in computed_blocks[n_before:]) == 15 - 6
    assert layout_of(second_version) == layout
    xr.testing.assert_identical(got.load().drop_attrs(), simulate().load().drop_attrs())


def test_second_version__recomputes_a_damaged_file_and_lost_metadata(second_version: Path) -> None:
    layout, expected = layout_of(second_version), fx.open(second_version).load()
    corrupt_file(second_version / "response/c/0/1/0/0/0")
    (second_version / "response/zarr.json").unlink()
    with pytest.warns(UserWarning, match="is missing or corrupted"):
        got = sweep_in_pairs(second_version, noise_rendering(3), make_ensemble(2))
    assert layout_of(second_version) == layout
    xr.testing.assert_identical(got.load().drop_attrs(), expected.drop_attrs())
