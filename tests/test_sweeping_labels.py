"""What a sweep says of itself: labels, runs, old versions, and who else writes; the rest is in test_sweep."""

from __future__ import annotations

import json
import os
import shutil
import threading
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from test_sweep import CONNECTOME, computed, ensemble, lines_of, rendering, simulate, small_blocks, sweep

import flyxr as fx
from flyxr import provenance, schema
from flyxr.errors import FlyxrWarning
from flyxr.identity import ChangedError
from flyxr.store import StoreError, ledger
from flyxr.sweep import LabelMismatchError, SweepError, SweepMismatchError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["computed", "small_blocks"]  # fixtures

N = 5
CORRECTED: dict[str, tuple[Callable[[], dict[str, Any]], str]] = {
    "angle": (
        lambda: {"data": rendering().assign_coords(angle=("sample", np.arange(N) * 7.0))},
        r"angle \(sample\): the store has 30.0 at position 1, this call 7.0, and 3 others differ",
    ),
    "t_stim": (
        lambda: {"data": rendering().assign_coords(t_stim=("sample", np.full(N, 0.05)))},
        r"t_stim: the store has no such coordinate, this call has it along \(sample\)",
    ),
    "no angle": (
        lambda: {"data": rendering().drop_vars("angle")},
        "angle: the store has it along .*, this call has no such coordinate",
    ),
    "sample": (
        lambda: {"data": rendering().assign_coords(sample=np.arange(N) + 1)},
        r"sample \(sample\): the store has 0 at position 0, this call 1",
    ),
    "on time": (
        lambda: {"data": rendering().assign_coords(phase=("time", np.arange(6) % 2))},
        r"phase: the store has no such coordinate, this call has it along \(time\)",
    ),
    "of all": (
        lambda: {"data": rendering().assign_coords(experiment="second")},
        "experiment: the store has no such coordinate",
    ),
    "model_name": (
        lambda: {"models": ensemble().assign_coords(model_name=("model", np.array(list("abc"), dtype=object)))},
        r"model_name \(model\): the store has 'sample-0/000' at position 0, this call 'a'",
    ),
    "task_error": (
        lambda: {"models": ensemble().assign_coords(task_error=("model", [1.0, 2.0, 3.0]))},
        r"task_error \(model\): the store has nan at position 0, this call 1.0",
    ),
    "perturbation": (
        lambda: {"models": ensemble().assign_coords(perturbation=("model", np.array(["none"] * 3, dtype=object)))},
        "perturbation: the store has no such coordinate",
    ),
    "units": (
        lambda: {"data": with_units()},
        r"angle: the store has the attributes \{.*\}, this call \{.*turn.*\}",
    ),
    "attribute": (
        lambda: {"models": ensemble().assign_attrs(trained=True)},
        "attribute trained: the store has False, this call True",
    ),
}


def with_units() -> xr.Dataset:
    data = rendering()
    data["angle"].attrs["units"] = "turn"
    return data


@pytest.mark.parametrize(("options", "message"), CORRECTED.values(), ids=CORRECTED)
def test_sweep__other_labels_are_named_and_written_when_asked(
    tmp_path: Path, options: Callable[[], dict[str, Any]], message: str, computed: list[Any]
) -> None:
    path = tmp_path / "r.zarr"
    before = sweep(path).load()
    n_computed = len(computed)
    with pytest.raises(LabelMismatchError, match=rf"(?s)has other labels:\n- {message}.*with relabel=True") as error:
        sweep(path, **options())
    assert "--relabel" in error.value.message(command_line=True)
    xr.testing.assert_identical(fx.open(path).load(), before)
    got = sweep(path, **options(), relabel=True).load()
    assert len(computed) == n_computed
    xr.testing.assert_identical(got, sweep(tmp_path / "other.zarr", **options()).load())
    np.testing.assert_array_equal(got.response, before.response)
    plain = xr.open_zarr(path, consolidated=False)
    assert set(plain.coords) == set(got.coords)
    for name, coord in got.coords.items():
        np.testing.assert_array_equal(plain[name].values.astype(coord.dtype), coord.values)
    xr.testing.assert_identical(sweep(path, **options()).load(), got)
    with pytest.raises(LabelMismatchError):
        sweep(path)


def test_sweep__all_that_differs_is_said_at_once(tmp_path: Path) -> None:
    sweep(tmp_path / "r.zarr")
    other = rendering().assign(luminance=rendering().luminance * 0.5).assign_coords(angle=("sample", np.arange(N)))
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
    """In values, in every label and every attribute."""
    import test_sweep

    folder = tmp_path_factory.mktemp("sweep")

    def inputs(n_models: int, n_samples: int) -> dict[str, Any]:
        data, models = rendering(n_samples), ensemble(n_models)
        if has_labels:
            data = data.assign_coords(t_stim=("sample", np.arange(n_samples) / 100), kind="moving")
            models = models.assign_coords(perturbation=("model", np.array(["none"] * n_models, dtype=object)))
        return {"data": data, "models": models}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(test_sweep.plan, "BLOCK_SAMPLES", 2)
        with patch.context() as failing:
            test_sweep.failing_after(failing, n_done, OSError(28, "No space left on device"))
            try:
                sweep(folder / "r.zarr", **inputs(*first))
            except OSError:
                assert not fx.sweep_status(folder / "r.zarr").attrs["complete"]
        last = inputs(first[0] + more[0], first[1] + more[1])
        got = sweep(folder / "r.zarr", **last).load()
        expected = sweep(folder / "u.zarr", **last).load()
    xr.testing.assert_identical(got, expected)
    assert [variable.attrs for variable in got.variables.values()] == [v.attrs for v in expected.variables.values()]
    schema.validate(got, "responses")


def test_sweep__what_ran_is_noted_with_each_run(tmp_path: Path) -> None:
    path = tmp_path / "r.zarr"
    sweep(path, rendering(3), engine="reference")
    got = sweep(path, rendering(5), ensemble(4))
    runs = json.loads(fx.sweep_status(path).attrs["runs"])
    assert [(run["engine"], run["device"]) for run in runs] == [("reference", "cpu"), ("stencil", "cpu")]
    for run in runs:
        assert run["versions"] == provenance.versions(("numpy", "xarray", "dask", "torch"))
    arguments = provenance.steps(got)[-1]["arguments"]
    assert (arguments["engine"], arguments["device"]) == ("reference, stencil", "cpu")
    assert arguments["record"] == {"cell_type": "all", "column": "all", "time": "all"}


def test_sweep__relabelling_is_no_run(tmp_path: Path) -> None:
    path = tmp_path / "r.zarr"
    sweep(path)
    sweep(path, rendering().drop_vars("angle"), relabel=True)
    assert len(json.loads(fx.sweep_status(path).attrs["runs"])) == 1
    assert fx.sweep_status(path).attrs["complete"]


def test_sweep__labels_of_a_store_that_grows_are_those_of_the_call(tmp_path: Path) -> None:
    path = tmp_path / "r.zarr"
    sweep(path, rendering(3))
    wrong = rendering(5).assign_coords(angle=("sample", np.arange(5) * 7.0))
    with pytest.raises(LabelMismatchError, match=r"angle \(sample\): the store has 30.0 at position 1"):
        sweep(path, wrong)
    got = sweep(path, wrong, relabel=True)
    np.testing.assert_array_equal(got.angle, np.arange(5) * 7.0)
    xr.testing.assert_identical(got.load().drop_attrs(), simulate(wrong).load().drop_attrs())


def test_sweep__the_plan_needs_no_folder(tmp_path: Path) -> None:
    plan = fx.sweep(rendering(), ensemble(), tmp_path / "no/such/dir/r.zarr", plan_only=True)
    assert plan.seconds > 0
    assert plan.free_bytes > 0
    assert os.listdir(tmp_path) == []


def test_sweep__a_plan_where_nothing_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OSError, match=r"cannot write /proc/none/r.zarr: .*choose another path"):
        fx.sweep(rendering(), ensemble(), "/proc/none/r.zarr", plan_only=True)


def test_sweep__two_that_create_one_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other has made it by the time that this one is to appear: it is refused while that one writes."""
    from flyxr import store

    path, entered, go_on = tmp_path / "r.zarr", threading.Event(), threading.Event()
    import test_sweep

    original, create = test_sweep.base.run_block, store.atomic_directory
    other = threading.Thread(target=sweep, args=(path,))

    def waiting(*given: Any) -> Any:
        entered.set()
        assert go_on.wait(60)
        return original(*given)

    def overtaken(*given: Any, **options: Any) -> Any:
        monkeypatch.setattr(store, "atomic_directory", create)
        other.start()
        assert entered.wait(60)
        return create(*given, **options)

    monkeypatch.setattr(test_sweep.base, "run_block", waiting)
    monkeypatch.setattr(store, "atomic_directory", overtaken)
    try:
        with pytest.raises(SweepError, match="another sweep writes to"):
            sweep(path)
    finally:
        go_on.set()
        other.join()
    assert fx.sweep_status(path).attrs["complete"]


def test_sweep__open_data_of_a_store_that_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "r.zarr"
    old = sweep(path)
    old.response[0].load()
    sweep(path, initial_state="rest", overwrite=True)
    for model in range(3):
        with pytest.raises(ChangedError, match="r.zarr has changed since it was opened"):
            old.response[model].load()
    shutil.rmtree(path)
    with pytest.raises(ChangedError, match="r.zarr has changed since it was opened"):
        old.luminance.load()


def test_sweep__open_data_of_a_store_that_grows_stay_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "r.zarr"
    old = sweep(path, rendering(3))
    sweep(path, rendering(5), ensemble(4))
    xr.testing.assert_identical(old.load().drop_attrs(), simulate(rendering(3)).load().drop_attrs())


def test_sweep__two_openings_of_what_changed_share_no_graph(tmp_path: Path, small_blocks: int) -> None:
    path = tmp_path / "r.zarr"
    first = sweep(path, rendering(3))
    assert first.response.data.name == fx.open(path).response.data.name
    shard = path / "response/c/0/0/0/0/0"
    content = shard.read_bytes()
    shard.write_bytes(content)
    assert fx.open(path).response.data.name != first.response.data.name


def test_sweep__verify_finds_a_file_in_the_place_of_another(tmp_path: Path, small_blocks: int) -> None:
    """Of the same size and time, and whole as a file of zarr."""
    path = tmp_path / "r.zarr"
    expected = sweep(path).load()
    constant = rendering().assign(luminance=rendering().luminance * 0 + 0.5)
    sweep(tmp_path / "o.zarr", constant, initial_state="rest")
    sizes = {file.stat().st_size: file for file in (tmp_path / "o.zarr/response/c").rglob("*") if file.is_file()}
    place = "response/c/0/1/0/0/0"
    stat = (path / place).stat()
    other = next(iter(sizes.values())).read_bytes()
    (path / place).write_bytes(other)
    lines = (path / ledger.PLACE).read_text().splitlines(keepends=True)
    patched = []
    for line in lines:
        entry = json.loads(line)
        if entry.get("shard", [""])[0] == place:
            entry["shard"][1] = len(other)
            line = json.dumps(entry) + "\n"
        patched.append(line)
    (path / ledger.PLACE).write_text("".join(patched))
    os.utime(path / place, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.warns(UserWarning, match=rf"{place} is missing or corrupted and is computed anew"):
        xr.testing.assert_identical(sweep(path, verify=True).load(), expected)


def test_ledger__has_the_separator_of_no_system(tmp_path: Path) -> None:
    path = tmp_path / "r.zarr"
    sweep(path)
    shards = [line["shard"][0] for line in lines_of(path) if "shard" in line]
    assert shards
    assert not any("\\" in shard for shard in shards)
    file = path / ledger.PLACE
    on_windows = []
    for line in lines_of(path):
        if "shard" in line:
            line["shard"][0] = line["shard"][0].replace("/", "\\")
        on_windows.append(json.dumps(line))
    file.write_text("\n".join(on_windows) + "\n")
    assert fx.sweep_status(path).attrs["complete"]
    assert fx.open(path).response.notnull().all()


@pytest.fixture
def first_version(tmp_path: Path) -> Path:
    """Stores that flyxr 0.1.0 wrote: of ``rendering()`` and ``ensemble()``, a finished and an unfinished sweep."""
    with zipfile.ZipFile(Path(__file__).parent / "data" / "v0.1.zip") as archive:
        archive.extractall(tmp_path)
    return tmp_path


def test_first_version__opens(first_version: Path) -> None:
    expected = simulate(models=ensemble(2)).load()
    xr.testing.assert_identical(fx.open(first_version / "finished.zarr").load().drop_attrs(), expected.drop_attrs())
    xr.testing.assert_identical(fx.open(first_version / "responses.zarr").load().drop_attrs(), expected.drop_attrs())
    back = fx.open(first_version / "rendering.zarr").load()
    xr.testing.assert_identical(back.drop_attrs(), rendering().drop_attrs())
    models = fx.open_ensemble(first_version / "ensemble.zarr")
    xr.testing.assert_identical(models.drop_attrs(), ensemble(3).drop_attrs())
    assert models.attrs["connectome"] == CONNECTOME.attrs["connectome"]
    xr.testing.assert_identical(fx.open(first_version / "connectome.zarr").load(), CONNECTOME)
    with pytest.warns(FlyxrWarning, match=r"unfinished sweep: \d+ of 15"):
        unfinished = fx.open(first_version / "unfinished.zarr")
    done = fx.sweep_status(first_version / "unfinished.zarr").done
    np.testing.assert_array_equal(unfinished.response.notnull().all(["time", "cell_type", "column"]), done)


def test_first_version__goes_on(first_version: Path, small_blocks: int, computed: list[Any]) -> None:
    data = fx.open(first_version / "rendering.zarr")
    models = fx.open_ensemble(first_version / "ensemble.zarr")
    n_done = fx.sweep_status(first_version / "unfinished.zarr").attrs["n_done"]
    got = sweep(first_version / "unfinished.zarr", data, models)
    assert sum(n for _, n in computed) == 15 - n_done
    xr.testing.assert_identical(got.load().drop_attrs(), simulate().load().drop_attrs())
    before = len(computed)
    xr.testing.assert_identical(sweep(first_version / "unfinished.zarr", data, models).load(), got.load())
    assert len(computed) == before


def test_first_version__finished_just_opens_and_grows(
    first_version: Path, small_blocks: int, computed: list[Any]
) -> None:
    path = first_version / "finished.zarr"
    before = (path / ledger.PLACE).read_bytes()
    sweep(path, models=ensemble(2))
    assert (path / ledger.PLACE).read_bytes() == before
    assert computed == []
    with pytest.raises(LabelMismatchError, match=r"angle \(sample\)"):
        sweep(path, rendering().assign_coords(angle=("sample", np.arange(5))), ensemble(2))
    got = sweep(path)
    assert len(computed) == 3
    xr.testing.assert_identical(got.load().drop_attrs(), simulate().load().drop_attrs())
    with pytest.raises(SweepMismatchError, match="dt: the store has"):
        sweep(path, rendering(dt=1 / 200))


def test_first_version__corrupted_files_are_found_by_the_checksum_of_that_version(
    first_version: Path, small_blocks: int
) -> None:
    from test_sweep import corrupt

    path = first_version / "finished.zarr"
    expected = fx.open(path).load()
    corrupt(path / "response/c/0/1/0/0/0")
    with pytest.warns(UserWarning, match=r"response/c/0/1/0/0/0 is missing or corrupted"):
        got = sweep(path, models=ensemble(2))
    xr.testing.assert_identical(got.load().drop_attrs(), expected.drop_attrs())


def test_first_version__an_extension_that_was_interrupted_is_told(first_version: Path) -> None:
    path = first_version / "finished.zarr"
    inputs = lines_of(path)[0]["inputs"]
    inputs["models"] = lines_of(first_version / "unfinished.zarr")[0]["inputs"]["models"]
    with (path / ledger.PLACE).open("a") as file:
        file.write(json.dumps({"inputs": inputs}) + "\n")
    for call in (fx.open, fx.sweep_status):
        with pytest.raises(StoreError, match="was being extended when the process ended: .*call fx.sweep with"):
            call(path)
    xr.testing.assert_identical(sweep(path).load().drop_attrs(), simulate().load().drop_attrs())


def test_open__while_the_files_have_not_grown_yet(
    tmp_path: Path, small_blocks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger has more models and samples than the zarr files: the rest is missing, and all else is there."""
    from flyxr.sweep import stream

    path = tmp_path / "r.zarr"
    before = sweep(path, rendering(3), ensemble(2)).load()
    with monkeypatch.context() as patch:
        patch.setattr(stream, "refresh_labels", lambda run, found: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            sweep(path)
    assert xr.open_zarr(path, consolidated=False).sizes["sample"] == 3
    with pytest.warns(FlyxrWarning, match="unfinished sweep: 9 of 15 responses"):
        opened = fx.open(path)
    found = opened.load()
    assert found.response.shape[:2] == (3, 5)
    np.testing.assert_array_equal(found.response[:2, :3], before.response)
    assert found.response[2].isnull().all()
    assert found.response[:, 3:].isnull().all()
    np.testing.assert_array_equal(found.angle, rendering().angle)
    assert not fx.sweep_status(path).attrs["complete"]
    with pytest.raises(SweepMismatchError, match=r"models: the store has 3, this call 2"):
        sweep(path, rendering(3), ensemble(2))
    xr.testing.assert_identical(sweep(path).load().drop_attrs(), simulate().load().drop_attrs())


def test_sweep_status__while_files_come_and_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is renamed between being listed and being looked at is no error."""
    from flyxr.store import files

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

    monkeypatch.setattr(files.os, "scandir", Scan)
    there = files.listing(path)
    assert not any(file.endswith(".partial") for file in there)
    assert "response/c/0/0/0/0/0" in there
    assert fx.sweep_status(path).attrs["complete"]


def test_open__a_sweep_is_not_searched_for_its_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its ledger knows them; a folder for each file takes ten times as long to list."""
    from flyxr.store import files

    path = tmp_path / "r.zarr"
    sweep(path)

    def refuse(folder: Any) -> Any:
        pytest.fail(f"{folder} is listed")

    monkeypatch.setattr(files.os, "scandir", refuse)
    assert fx.open(path).response.load().notnull().all()
    assert fx.sweep_status(path).attrs["complete"]
    assert sweep(path).sizes["model"] == 3


@pytest.mark.parametrize("place", ["angle/c/0", "angle/zarr.json", "time/zarr.json"])
def test_open__labels_of_a_sweep_are_right_where_files_of_them_are_lost(
    tmp_path: Path, place: str, computed: list[Any]
) -> None:
    """Other tools would read another label: it is told, and mended by the same call."""
    path = tmp_path / "r.zarr"
    expected = sweep(path).load()
    (path / place).unlink()
    with pytest.warns(FlyxrWarning, match=rf"1 files of .* are missing .*, first {place}; .*call fx.sweep"):
        xr.testing.assert_identical(fx.open(path).load(), expected)
    status = fx.sweep_status(path)
    assert (status.attrs["complete"], status.attrs["n_missing_files"]) == (False, 1)
    before = len(computed)
    xr.testing.assert_identical(sweep(path).load(), expected)
    assert len(computed) == before
    assert (path / place).exists()
    assert fx.sweep_status(path).attrs["complete"]


@pytest.mark.parametrize("array", ["response", "luminance"])
def test_open__without_the_shape_of_an_array(tmp_path: Path, array: str) -> None:
    path = tmp_path / "r.zarr"
    expected = sweep(path).load()
    (path / array / "zarr.json").unlink()
    with pytest.raises(StoreError, match=rf"{array}/zarr.json cannot be read .*call fx.sweep with"):
        fx.open(path)
    xr.testing.assert_identical(sweep(path).load(), expected)
