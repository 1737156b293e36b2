"""Sweeps on the threads of this process; plans, labels and clusters have files of their own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

import flyxr as fx
from flyxr import provenance, schema
from flyxr.simulation import DivergedError
from flyxr.store import StoreError
from flyxr.store.ledger import LEDGER_FILE
from flyxr.sweeping import SweepError, SweepMismatchError
from flyxr.sweeping.base import relative_error
from flyxr.testing import corrupt_file, failing_engine, noise_rendering, observed_engine, tiny_connectome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CONNECTOME = tiny_connectome(extent=2)
N_TIME = 6


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


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("initial_state", ["fade_in", "steady_state", "rest"])
def test_sweep__equals_simulate(tmp_path: Path, initial_state: str, lazy: bool) -> None:
    rendering = noise_rendering().chunk(sample=1, time=2) if lazy else noise_rendering()
    got = sweep_in_pairs(tmp_path / "r.zarr", rendering, initial_state=initial_state)
    expected = simulate(initial_state=initial_state)
    schema.validate(got, "responses")
    xr.testing.assert_identical(got.load().drop_attrs(), expected.load().drop_attrs())
    assert {k: v for k, v in got.attrs.items() if k != "provenance"} == {
        k: v for k, v in expected.attrs.items() if k != "provenance"
    }
    assert got.response.attrs == expected.response.attrs


@pytest.mark.parametrize("record", ["central", ["T", "L"], {"column": [3, 7], "time": slice(0.02, None)}])
def test_sweep__records_as_simulate_does(tmp_path: Path, record: Any) -> None:
    got = sweep_in_pairs(tmp_path / "r.zarr", record=record)
    xr.testing.assert_identical(got.load().drop_attrs(), simulate(record=record).load().drop_attrs())


def test_sweep__accepts_a_state_per_model_and_sample(tmp_path: Path) -> None:
    final = simulate().isel(time=-1).load()
    got = sweep_in_pairs(tmp_path / "r.zarr", initial_state=final)
    np.testing.assert_array_equal(got.response, simulate(initial_state=final).response)


def test_sweep__short_samples_equal_separate_runs(tmp_path: Path) -> None:
    """Responses after the end of a sample are NaN."""
    ends = np.array([0.02, 0.06, 0.03, 0.06, 0.01])
    rendering = noise_rendering().assign_coords(t_end=("sample", ends))
    got = sweep_in_pairs(tmp_path / "r.zarr", rendering).load()
    for sample, end in enumerate(np.rint(ends * 100).astype(int)):
        alone = simulate(noise_rendering().isel(sample=[sample], time=slice(0, end))).response
        np.testing.assert_array_equal(got.response[:, [sample], :end], alone)
        assert got.response[:, sample, end:].isnull().all()
    xr.testing.assert_identical(got.drop_attrs(), simulate(rendering).load().drop_attrs())
    assert fx.sweep_status(tmp_path / "r.zarr").attrs["complete"]


def test_sweep__writes_one_file_per_block(tmp_path: Path) -> None:
    sweep_in_pairs(tmp_path / "r.zarr")
    array = zarr.open_array(tmp_path / "r.zarr" / "response", mode="r")
    assert array.shards is None  # all cell types share a chunk
    assert array.chunks == (1, 2, N_TIME, 3, 19)
    files = [file for file in (tmp_path / "r.zarr/response/c").rglob("*") if file.is_file()]
    assert len(files) == 3 * 3
    assert sorted(os.listdir(tmp_path)) == ["r.zarr"]


def test_sweep__opens_a_finished_store(tmp_path: Path, computed_blocks: list[Any]) -> None:
    first = sweep(tmp_path / "r.zarr")
    assert len(computed_blocks) == 3
    again = sweep(tmp_path / "r.zarr")
    assert len(computed_blocks) == 3
    xr.testing.assert_identical(first.load(), again.load())


def test_sweep__adds_provenance(tmp_path: Path) -> None:
    got = sweep(tmp_path / "r.zarr", record="central")
    step = provenance.steps(got)[-1]
    assert step["operation"] == "sweep"
    assert step["hashes"].keys() == {"connectome", "ensemble", "stimulus"}
    other = provenance.steps(sweep(tmp_path / "o.zarr", noise_rendering() * 0.5, record="central"))[-1]
    assert other["hashes"]["stimulus"] != step["hashes"]["stimulus"]
    assert other["hashes"]["ensemble"] == step["hashes"]["ensemble"]


def test_sweep__resumes_where_it_left_off(tmp_path: Path, computed_blocks: list[Any]) -> None:
    path = tmp_path / "r.zarr"
    error = OSError(28, "No space left on device")
    message = r"the sweep stopped: No space.*\d+ of 15 responses.*repeat the call to resume"
    with failing_engine(4, error), pytest.raises(OSError, match=message):
        sweep_in_pairs(path)
    status = fx.sweep_status(path)
    n_done = status.attrs["n_done"]
    assert 0 < n_done < 15
    assert not status.attrs["complete"]
    with pytest.warns(UserWarning, match=rf"unfinished sweep: {15 - n_done} of 15 .*missing and read as NaN"):
        partial = fx.open(path)
    np.testing.assert_array_equal(partial.response.isnull().all(["time", "cell_type", "column"]), ~status.done)

    n_blocks_done = sum("block" in entry for entry in read_entries(path))
    computed_blocks.clear()
    resumed = sweep_in_pairs(path).load()
    assert len(computed_blocks) == 9 - n_blocks_done
    xr.testing.assert_identical(resumed.drop_attrs(), simulate().load().drop_attrs())


def test_sweep__keyboard_interrupt_keeps_finished_blocks(tmp_path: Path) -> None:
    with failing_engine(4, KeyboardInterrupt()), pytest.raises(KeyboardInterrupt):
        sweep_in_pairs(tmp_path / "r.zarr")
    assert fx.sweep_status(tmp_path / "r.zarr").attrs["n_done"] > 0
    xr.testing.assert_identical(sweep_in_pairs(tmp_path / "r.zarr").load().drop_attrs(), simulate().load().drop_attrs())


@given(
    old=st.tuples(st.integers(1, 4), st.integers(1, 7)),
    more=st.tuples(st.integers(0, 2), st.integers(0, 5)),
    block_samples=st.integers(1, 4),
)
@settings(max_examples=12)
def test_sweep__computes_only_appended_models_and_samples(
    tmp_path_factory: pytest.TempPathFactory, old: tuple[int, int], more: tuple[int, int], block_samples: int
) -> None:
    path = tmp_path_factory.mktemp("sweep") / "r.zarr"
    new = (old[0] + more[0], old[1] + more[1])
    n_samples: list[int] = []
    with observed_engine(lambda _, stimulus: n_samples.append(len(stimulus))):
        sweep(path, noise_rendering(old[1]), make_ensemble(old[0]), block_samples=block_samples)
        got = sweep(path, noise_rendering(new[1]), make_ensemble(new[0]))
        assert sum(n_samples) == new[0] * new[1]
        again = sweep(path, noise_rendering(new[1]), make_ensemble(new[0]))
    assert sum(n_samples) == new[0] * new[1]
    expected = simulate(noise_rendering(new[1]), make_ensemble(new[0])).load()
    xr.testing.assert_identical(got.load().drop_attrs(), expected.drop_attrs())
    xr.testing.assert_identical(again.load(), got.load())


def test_sweep__repeats_an_extension_that_crashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.zarr"
    sweep_in_pairs(path)
    replace, count = os.replace, [0]

    def failing(source: Any, target: Any) -> None:
        count[0] += 1
        if count[0] == 4:
            raise OSError("crash")
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", failing)
        with pytest.raises(OSError, match="crash"):
            sweep_in_pairs(path, noise_rendering(8), make_ensemble(4))
    got = sweep_in_pairs(path, noise_rendering(8), make_ensemble(4)).load()
    xr.testing.assert_identical(got.drop_attrs(), simulate(noise_rendering(8), make_ensemble(4)).load().drop_attrs())


NOISE = noise_rendering()
DIFFERENT: dict[str, tuple[Callable[[], dict[str, Any]], str]] = {
    "stimulus": (lambda: {"rendering": NOISE.assign(luminance=NOISE.luminance * 0.5)}, "luminance of 5 samples"),
    "one sample": (
        lambda: {"rendering": NOISE.assign(luminance=NOISE.luminance.where(NOISE.sample != 3, 0.5))},
        "luminance of 1 samples differs, first at position 3",
    ),
    "end of a sample": (
        lambda: {"rendering": noise_rendering().assign_coords(t_end=("sample", [0.06, 0.05, 0.06, 0.06, 0.06]))},
        "luminance of .* samples differs",
    ),
    "parameters": (
        lambda: {"ensemble": make_ensemble().assign(bias=make_ensemble().bias + 1e-6)},
        "parameters of 3 models differ",
    ),
    "order of models": (lambda: {"ensemble": make_ensemble().isel(model=[1, 0, 2])}, "parameters of 2 models differ"),
    "fewer models": (lambda: {"ensemble": make_ensemble(2)}, "the store has 3, this call 2"),
    "fewer samples": (lambda: {"rendering": noise_rendering(4)}, "samples: the store has 5, this call 4"),
    "step": (lambda: {"rendering": noise_rendering(dt=1 / 200)}, "dt: the store has 0.01, this call 0.005"),
    "initial state": (lambda: {"initial_state": "rest"}, 'initial_state: the store has "fade_in", this call "rest"'),
    "record": (lambda: {"record": "central"}, "column: the store has .* this call"),
    "frames": (lambda: {"record": {"time": slice(0.02, None)}}, "frames: the store has"),
    "precision": (lambda: {"precision": 8}, 'precision: the store has "float32", this call 8'),
    "connectome": (
        lambda: {"connectome": OTHER, "ensemble": fx.sample_ensemble(3, 0, connectome=OTHER)},
        "connectome: ",
    ),
}
OTHER = tiny_connectome(extent=2, edges=[("R", "L", 1, [(0, 0)]), ("L", "T", 1, [(0, 0)])])


@pytest.mark.parametrize(("options", "message"), DIFFERENT.values(), ids=DIFFERENT)
def test_sweep__refuses_other_inputs_and_names_the_difference(
    tmp_path: Path, options: Callable[[], dict[str, Any]], message: str
) -> None:
    path = tmp_path / "r.zarr"
    before = sweep(path).load()
    with pytest.raises(SweepMismatchError, match=message):
        sweep(path, **options())
    xr.testing.assert_identical(fx.open(path).load(), before)
    assert sweep(path, **{**options(), "overwrite": True}) is not None


def test_sweep__names_all_differences_at_once(tmp_path: Path) -> None:
    sweep(tmp_path / "r.zarr")
    with pytest.raises(SweepMismatchError, match=r"(?s)dt: .*initial_state: .*overwrite=True"):
        sweep(tmp_path / "r.zarr", noise_rendering(dt=1 / 200), initial_state="rest")


def test_sweep__compares_content_and_not_chunks(tmp_path: Path, computed_blocks: list[Any]) -> None:
    sweep(tmp_path / "r.zarr")
    rendering = noise_rendering()
    fx.save(rendering, tmp_path / "rendering.zarr")
    sweep(tmp_path / "r.zarr", fx.open(tmp_path / "rendering.zarr"))
    sweep(tmp_path / "r.zarr", rendering.chunk(sample=2))
    assert len(computed_blocks) == 3


def test_sweep__something_else_at_the_path(tmp_path: Path) -> None:
    path = fx.save(make_ensemble(), tmp_path / "e.zarr")
    with pytest.raises(FileExistsError, match="exists and is not the store of a sweep"):
        sweep(path)
    (tmp_path / "thesis").mkdir()
    with pytest.raises(FileExistsError, match="not a zarr store, so it is not overwritten"):
        sweep(tmp_path / "thesis", overwrite=True)
    assert fx.open(path).identical(make_ensemble())
    assert sweep(path, overwrite=True).sizes["model"] == 3


@pytest.mark.parametrize("damage", ["flip a bit", "cut", "remove", "flip a bit of the luminance"])
def test_sweep__names_and_recomputes_a_damaged_file(tmp_path: Path, computed_blocks: list[Any], damage: str) -> None:
    path = tmp_path / "r.zarr"
    expected = sweep_in_pairs(path).load()
    name = "luminance/c/1/0/0" if "luminance" in damage else "response/c/1/2/0/0/0"
    file = path / name
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-40])
    elif damage == "remove":
        file.unlink()
    else:
        corrupt_file(file)
    warns = pytest.warns(UserWarning, match=rf"1 files of .* missing or have another size .*, first {name}")
    with nullcontext() if "flip" in damage else warns:
        damaged = fx.open(path)
    assert fx.sweep_status(path).attrs["complete"] == ("flip" in damage)
    state = "is missing" if damage == "remove" else "is corrupted or cannot be read"
    with pytest.raises(StoreError, match=rf"{file} {state}.*verify=True"):
        damaged.load()
    computed_blocks.clear()
    with pytest.warns(UserWarning, match=rf"{file} is missing or corrupted and will be recomputed"):
        got = sweep_in_pairs(path)
    assert computed_blocks == ([] if "luminance" in damage else [(float(make_ensemble().bias[1, 0]), 1)])
    xr.testing.assert_identical(got.load(), expected)


def test_sweep__verify_finds_silent_corruption(tmp_path: Path) -> None:
    path = tmp_path / "r.zarr"
    expected = sweep_in_pairs(path).load()
    corrupt_file(path / "response/c/0/1/0/0/0", keep_time=True)
    sweep_in_pairs(path)
    with pytest.warns(UserWarning, match=r"response/c/0/1/0/0/0 is missing or corrupted"):
        xr.testing.assert_identical(sweep_in_pairs(path, verify=True).load(), expected)


def test_sweep__opens_a_copied_store(tmp_path: Path, computed_blocks: list[Any]) -> None:
    expected = sweep(tmp_path / "r.zarr").load()
    shutil.copytree(tmp_path / "r.zarr", tmp_path / "copy.zarr", copy_function=shutil.copyfile)
    xr.testing.assert_identical(sweep(tmp_path / "copy.zarr").load(), expected)
    assert len(computed_blocks) == 3


def test_sweep__ignores_a_torn_line_of_the_ledger(tmp_path: Path) -> None:
    path = tmp_path / "r.zarr"
    expected = sweep_in_pairs(path).load()
    file = path / LEDGER_FILE
    content = file.read_bytes()
    file.write_bytes(content[: content.rindex(b'{"block"') + 30])
    assert fx.sweep_status(path).attrs["n_done"] < 15
    xr.testing.assert_identical(sweep_in_pairs(path).load(), expected)
    assert fx.sweep_status(path).attrs["complete"]


def test_sweep__refuses_an_invalid_ledger(tmp_path: Path) -> None:
    path = tmp_path / "r.zarr"
    sweep(path)
    (path / LEDGER_FILE).write_text('{"block": [0, 0, 5]}\n')
    for call in (lambda: sweep(path), lambda: fx.sweep_status(path), lambda: fx.open(path)):
        with pytest.raises(ValueError, match="sweep.jsonl is not the ledger of a sweep"):
            call()


def test_sweep__refuses_a_second_writer(tmp_path: Path) -> None:
    path, is_running, may_finish = tmp_path / "r.zarr", threading.Event(), threading.Event()

    def wait(*_: Any) -> None:
        is_running.set()
        assert may_finish.wait(60)

    first = threading.Thread(target=sweep_in_pairs, args=(path,))
    with observed_engine(wait):
        first.start()
        try:
            assert is_running.wait(60)
            message = rf"another sweep is writing to .*process {os.getpid()} on .*since"
            with pytest.raises(SweepError, match=message):
                sweep_in_pairs(path)
            with pytest.raises(SweepError, match="another sweep is writing"):
                sweep_in_pairs(path, overwrite=True)
        finally:
            may_finish.set()
            first.join()
    xr.testing.assert_identical(sweep_in_pairs(path).load().drop_attrs(), simulate().load().drop_attrs())


KILLED = """
import os, random, signal, sys, time
import flyxr as fx
from flyxr.testing import noise_rendering, observed_engine, tiny_connectome
connectome = tiny_connectome(extent=2)
rendering, ensemble = noise_rendering(16), fx.sample_ensemble(5, seed=0, connectome=connectome)
options = dict(connectome=connectome, block_samples=2, device="cpu", progress=False)
def log_and_wait(parameters, stimulus):
    with open(sys.argv[2], "a") as log:
        log.write(f"{parameters.bias[0, 0]} {stimulus[0, -1, 0]}\\n")
    time.sleep(0.1)
def child():
    with observed_engine(log_and_wait):
        fx.sweep(rendering, ensemble, sys.argv[1], **options)
    os._exit(0)
random.seed(int(sys.argv[3]))
kills = 0
while True:
    pid = os.fork()
    if pid == 0:
        child()
    if kills < int(sys.argv[4]):
        time.sleep(random.uniform(0.02, 0.3))
        os.kill(pid, signal.SIGKILL)
    ended = os.waitpid(pid, 0)[1]
    if os.WIFEXITED(ended):
        print(kills, os.WEXITSTATUS(ended))
        break
    kills += 1
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills processes that it forks")
def test_sweep__killed_at_ten_random_moments(tmp_path: Path) -> None:
    """The result is bit-identical, and only running blocks are computed twice."""
    path, log = tmp_path / "r.zarr", tmp_path / "log"
    command = [sys.executable, "-c", KILLED, str(path), str(log), "7", "10"]
    output = subprocess.run(command, capture_output=True, text=True, check=False)
    assert output.returncode == 0, output.stderr
    kills, status = map(int, output.stdout.split())
    assert status == 0
    assert kills == 10
    computed = log.read_text().splitlines()
    at_once = max(2, os.cpu_count() or 1)
    assert len(set(computed)) == 5 * 8
    assert len(computed) - 5 * 8 <= kills * at_once
    recorded = [tuple(entry["block"]) for entry in read_entries(path) if "block" in entry]
    assert len(set(recorded)) == len(recorded) == 5 * 8
    got = fx.open(path).load()
    undisturbed = sweep(tmp_path / "u.zarr", noise_rendering(16), make_ensemble(5)).load()
    xr.testing.assert_identical(got.drop_attrs(), undisturbed.drop_attrs())
    assert not list(path.rglob("*.partial"))


def test_sweep__a_diverging_model_does_not_stop_the_others(tmp_path: Path) -> None:
    connectome = tiny_connectome(
        extent=2, edges=[("R", "L", 1, [(0, 0)]), ("L", "T", 1, [(0, 0)]), ("T", "L", 1, [(0, 0)])]
    )
    ensemble = fx.sample_ensemble(3, seed=0, connectome=connectome)
    strength = xr.where(ensemble.model == 1, 5.0, ensemble.synapse_strength)
    ensemble["synapse_strength"] = strength.transpose("model", "pair").astype(np.float32)
    with pytest.raises(DivergedError, match=r"(?s)model sample-0/001 grow without bound.*10 of 15 responses"):
        sweep(tmp_path / "r.zarr", noise_rendering(n_time=60), ensemble, connectome=connectome)
    done = fx.sweep_status(tmp_path / "r.zarr").done.all("sample")
    assert done.values.tolist() == [True, False, True]


def test_sweep__refuses_nan_in_a_lazy_rendering(tmp_path: Path) -> None:
    rendering = noise_rendering().copy(deep=True)
    rendering["luminance"][1, 3, 5] = np.nan
    with pytest.raises(schema.SchemaError, match="NaN or inf in 1 of"):
        sweep(tmp_path / "r.zarr", rendering.chunk(sample=1))


def test_sweep__refuses_a_stimulus_that_changes_each_time(tmp_path: Path) -> None:
    def draw(values: np.ndarray) -> np.ndarray:
        return np.random.default_rng().random(values.shape, dtype=np.float32)

    rendering = noise_rendering().chunk(sample=2)
    luminance = rendering.luminance.copy(data=da.map_blocks(draw, rendering.luminance.data))
    random = rendering.assign(luminance=luminance)
    sweep_in_pairs(tmp_path / "r.zarr", random)
    with pytest.raises(SweepMismatchError, match="luminance of 5 samples differs"):
        sweep_in_pairs(tmp_path / "r.zarr", random)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory_limit": "lots"}, "memory_limit in bytes or as text"),
        ({"memory_limit": -1}, "memory_limit in bytes or as text"),
        ({"precision": "double"}, "'float32', 'float16' or a number of bits from 1 to 22"),
        ({"precision": 23}, "'float32', 'float16' or a number of bits from 1 to 22"),
        ({"precision": True}, "'float32', 'float16' or a number of bits from 1 to 22"),
        ({"block_samples": 0}, "block_samples as an integer of at least 1, got 0"),
        ({"client": "tcp://localhost:8786"}, "a synchronous dask.distributed.Client"),
        ({"record": {"time": slice(5, 6)}}, "selects nothing"),
        ({"record": {"cell_type": []}}, "selects nothing"),
    ],
)
def test_sweep__invalid_input_leaves_nothing(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sweep(tmp_path / "r.zarr", **options)
    assert os.listdir(tmp_path) == []


def test_sweep__refuses_a_path_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot write .*file/r.zarr.*choose another path"):
        sweep(tmp_path / "file" / "r.zarr")


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a disk is not permitted")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_sweep__full_disk(mounted: Path) -> None:
    path, rendering, ensemble = mounted / "r.zarr", noise_rendering(40, 60), make_ensemble(12)
    with pytest.raises(OSError, match=r"(?s)the sweep stopped: No space left.*of 480 responses.*to resume"):
        sweep_in_pairs(path, rendering, ensemble)
    n_done = fx.sweep_status(path).attrs["n_done"]
    assert 0 < n_done < 480
    subprocess.run(["mount", "-o", "remount,size=64m", mounted], check=True)
    got = sweep_in_pairs(path, rendering, ensemble).load()
    xr.testing.assert_identical(got.drop_attrs(), simulate(rendering, ensemble).load().drop_attrs())


def test_sweep__opens_a_finished_read_only_store(mounted: Path) -> None:
    finished, path = mounted / "f.zarr", mounted / "r.zarr"
    expected = sweep_in_pairs(finished).load()
    with failing_engine(4, OSError(5, "Input/output error")), pytest.raises(OSError, match="Input/output error"):
        sweep_in_pairs(path)
    n_done = fx.sweep_status(path).attrs["n_done"]
    subprocess.run(["mount", "-o", "remount,ro", mounted], check=True)
    xr.testing.assert_identical(sweep_in_pairs(finished).load(), expected)
    with pytest.raises(OSError, match="Read-only file system: make it writable"):
        sweep_in_pairs(path)
    assert fx.sweep_status(path).attrs["n_done"] == n_done


@pytest.mark.parametrize("precision", ["float16", 12, 7])
def test_sweep__states_the_error_of_fewer_bits(tmp_path: Path, precision: Any) -> None:
    exact = simulate().response.load()
    got = sweep_in_pairs(tmp_path / "r.zarr", precision=precision)
    assert got.response.dtype == (np.float16 if precision == "float16" else np.float32)
    error = np.abs(got.response.astype(np.float32) - exact)
    relative = {"float16": 2**-11, 12: 2**-13, 7: 2**-8}[precision]
    assert relative_error(precision) == relative == got.response.attrs["largest_relative_error"]
    assert (error <= relative * np.abs(exact) + 1e-7).all()
    assert float(error.max()) == pytest.approx(got.response.attrs["largest_error"], rel=1e-3)
    assert float(error.max()) > 0
    np.testing.assert_array_equal(got.response.isnull(), exact.isnull())


def test_sweep__refuses_an_overflow_of_float16(tmp_path: Path) -> None:
    ensemble = make_ensemble(1)
    ensemble["bias"] = ensemble.bias + 1e5
    with pytest.raises(ValueError, match=r"do not fit float16: use precision=10"):
        sweep(tmp_path / "r.zarr", ensemble=ensemble, precision="float16", initial_state="rest")


def test_sweep_status__refuses_other_paths(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="expected the store of fx.sweep"):
        fx.sweep_status(tmp_path / "none.zarr")
    with pytest.raises(StoreError, match="is not the store of a sweep"):
        fx.sweep_status(fx.save(make_ensemble(), tmp_path / "e.zarr"))


def test_sweep_status__has_inputs_and_runs(tmp_path: Path) -> None:
    sweep(tmp_path / "r.zarr")
    status = fx.sweep_status(tmp_path / "r.zarr")
    (run,) = json.loads(status.attrs["runs"])
    assert run["pid"] == os.getpid()
    assert json.loads(status.attrs["inputs"])["dt"] == 0.01
    assert (status.seconds > 0).all()
    assert status.attrs["seconds"] == pytest.approx(float(status.seconds.sum()))
    assert status.attrs["bytes_on_disk"] == sum(
        file.stat().st_size
        for name in ("response", "luminance")
        for file in (tmp_path / f"r.zarr/{name}/c").rglob("*")
        if file.is_file()
    )
    np.testing.assert_array_equal(status.angle, noise_rendering().angle)


def test_sweep__streams_a_lazy_rendering(tmp_path: Path) -> None:
    """Chunks are computed once, and not far ahead of the blocks that need them."""
    loaded: list[int] = []
    n_ahead: list[float] = []

    def load(values: np.ndarray, block_info: Any = None) -> np.ndarray:
        if block_info:
            loaded.append(block_info[0]["chunk-location"][0])
        return values

    rendering = noise_rendering(40).chunk(sample=2)
    luminance = rendering.luminance.copy(data=rendering.luminance.data.map_blocks(load, dtype=np.float32))
    with observed_engine(lambda *_: n_ahead.append(len(loaded) - len(n_ahead) / 2)):
        sweep_in_pairs(tmp_path / "r.zarr", rendering.assign(luminance=luminance), make_ensemble(2))
    assert sorted(loaded) == list(range(20))
    assert max(n_ahead) <= 4
