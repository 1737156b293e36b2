"""Long runs: what they write, how they go on, what they refuse; clusters are in test_sweep_cluster."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import threading
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import flyxr as fx
from flyxr import hexgrid, provenance, schema
from flyxr import store as stores
from flyxr.simulation import DivergedError
from flyxr.store import StoreError, ledger
from flyxr.sweep import Plan, SweepError, SweepMismatchError
from flyxr.sweep.base import relative_error
from flyxr.testing import tiny_connectome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

base = importlib.import_module("flyxr.sweep.base")
stream = importlib.import_module("flyxr.sweep.stream")
plan = importlib.import_module("flyxr.sweep.plan")
CONNECTOME = tiny_connectome(extent=2)
N_TIME = 6


def rendering(n_samples: int = 5, n_time: int = N_TIME, dt: float = 1 / 100) -> xr.Dataset:
    columns = hexgrid.column_coords(2)
    values = np.random.default_rng(0).random((40, n_time, 19), dtype=np.float32)[:n_samples]
    coords = {"sample": np.arange(n_samples), "time": schema.time_coord(n_time, dt), **columns}
    data = xr.Dataset({"luminance": (("sample", "time", "column"), values)}, coords)
    return data.assign_coords(angle=("sample", np.arange(n_samples) * 30.0))


def ensemble(n_models: int = 3) -> xr.Dataset:
    return fx.sample_ensemble(n_models, seed=0, connectome=CONNECTOME)


def sweep(path: Path, data: xr.Dataset | None = None, models: xr.Dataset | None = None, **options: Any) -> xr.Dataset:
    data = rendering() if data is None else data
    models = ensemble() if models is None else models
    found = fx.sweep(data, models, path, **{"connectome": CONNECTOME, "progress": False} | options)
    assert isinstance(found, xr.Dataset)
    return found


def simulate(data: xr.Dataset | None = None, models: xr.Dataset | None = None, **options: Any) -> xr.Dataset:
    data = rendering() if data is None else data
    return fx.simulate(data, ensemble() if models is None else models, **{"connectome": CONNECTOME} | options)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> int:
    """Blocks of two samples."""
    monkeypatch.setattr(plan, "BLOCK_SAMPLES", 2)
    return 2


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Model and number of samples of each block that is computed from here on."""
    calls: list[tuple[str, int]] = []
    original = base.run_block

    def counted(block: Any, parameters: Any, stimulus: Any, state: Any, name: str, *rest: Any) -> Any:
        calls.append((name, len(stimulus)))
        return original(block, parameters, stimulus, state, name, *rest)

    monkeypatch.setattr(base, "run_block", counted)
    return calls


def failing_after(monkeypatch: pytest.MonkeyPatch, n_blocks: int, error: BaseException) -> None:
    """Let the computation of blocks fail after some."""
    original, lock, count = base.run_block, threading.Lock(), [0]

    def failing(*given: Any) -> Any:
        with lock:
            count[0] += 1
            if count[0] > n_blocks:
                raise error
        return original(*given)

    monkeypatch.setattr(base, "run_block", failing)


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("initial_state", ["fade_in", "steady_state", "rest"])
def test_sweep__equals_simulate(tmp_path: Path, initial_state: str, lazy: bool, small_blocks: int) -> None:
    data = rendering().chunk(sample=1, time=2) if lazy else rendering()
    got = sweep(tmp_path / "r.zarr", data, initial_state=initial_state)
    expected = simulate(initial_state=initial_state)
    schema.validate(got, "responses")
    xr.testing.assert_identical(got.load().drop_attrs(), expected.load().drop_attrs())
    assert {k: v for k, v in got.attrs.items() if k != "provenance"} == {
        k: v for k, v in expected.attrs.items() if k != "provenance"
    }
    assert got.response.attrs == expected.response.attrs


@pytest.mark.parametrize("record", ["central", ["T", "L"], {"column": [3, 7], "time": slice(0.02, None)}])
def test_sweep__records_as_simulate_does(tmp_path: Path, record: Any, small_blocks: int) -> None:
    got = sweep(tmp_path / "r.zarr", record=record)
    xr.testing.assert_identical(got.load().drop_attrs(), simulate(record=record).load().drop_attrs())


def test_sweep__takes_a_state_for_each_model_and_sample(tmp_path: Path, small_blocks: int) -> None:
    final = simulate().isel(time=-1).load()
    got = sweep(tmp_path / "r.zarr", initial_state=final)
    np.testing.assert_array_equal(got.response, simulate(initial_state=final).response)


def test_sweep__samples_that_end_before_others(tmp_path: Path, small_blocks: int) -> None:
    """As if each ran alone; what comes after its end is NaN and changes nothing."""
    ends = np.array([0.02, 0.06, 0.03, 0.06, 0.01])
    data = rendering().assign_coords(t_end=("sample", ends))
    got = sweep(tmp_path / "r.zarr", data).load()
    for sample, end in enumerate(np.rint(ends * 100).astype(int)):
        alone = simulate(rendering().isel(sample=[sample], time=slice(0, end))).response
        np.testing.assert_array_equal(got.response[:, [sample], :end], alone)
        assert got.response[:, sample, end:].isnull().all()
    xr.testing.assert_identical(got.drop_attrs(), simulate(data).load().drop_attrs())
    assert fx.sweep_status(tmp_path / "r.zarr").attrs["complete"]


def test_sweep__layout_is_one_file_for_a_block(tmp_path: Path, small_blocks: int) -> None:
    import zarr

    sweep(tmp_path / "r.zarr")
    array = zarr.open_array(tmp_path / "r.zarr" / "response", mode="r")
    assert array.shards == (1, 2, N_TIME, 3, 19)
    assert array.chunks == (1, 2, N_TIME, 3, 19)
    files = [file for file in (tmp_path / "r.zarr/response/c").rglob("*") if file.is_file()]
    assert len(files) == 3 * 3
    assert sorted(os.listdir(tmp_path)) == ["r.zarr"]


def test_sweep__finished_just_opens(tmp_path: Path, computed: list[Any]) -> None:
    first = sweep(tmp_path / "r.zarr")
    assert len(computed) == 3
    again = sweep(tmp_path / "r.zarr")
    assert len(computed) == 3
    xr.testing.assert_identical(first.load(), again.load())


def test_sweep__provenance_says_what_made_it(tmp_path: Path) -> None:
    got = sweep(tmp_path / "r.zarr", record="central")
    step = provenance.steps(got)[-1]
    assert step["operation"] == "sweep"
    assert step["hashes"].keys() == {"connectome", "ensemble", "stimulus"}
    other = provenance.steps(sweep(tmp_path / "o.zarr", rendering() * 0.5, record="central"))[-1]
    assert other["hashes"]["stimulus"] != step["hashes"]["stimulus"]
    assert other["hashes"]["ensemble"] == step["hashes"]["ensemble"]


def test_sweep__goes_on_where_it_stopped(tmp_path: Path, small_blocks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.zarr"
    with monkeypatch.context() as patch:
        failing_after(patch, 4, OSError(28, "No space left on device"))
        with pytest.raises(OSError, match=r"the sweep stopped: No space.*\d+ of 15 responses.*goes on from there"):
            sweep(path)
    status = fx.sweep_status(path)
    n_done = status.attrs["n_done"]
    assert 0 < n_done < 15
    assert not status.attrs["complete"]
    with pytest.warns(UserWarning, match=rf"unfinished sweep: {15 - n_done} of 15 .*missing and read as NaN"):
        partial = fx.open(path)
    np.testing.assert_array_equal(partial.response.isnull().all(["time", "cell_type", "column"]), ~status.done)

    calls: list[Any] = []
    original = base.run_block
    monkeypatch.setattr(base, "run_block", lambda *given: calls.append(given[4]) or original(*given))
    xr.testing.assert_identical(sweep(path).load().drop_attrs(), simulate().load().drop_attrs())
    blocks_done = sum("block" in line for line in lines_of(path)) - len(calls)
    assert len(calls) == 9 - blocks_done


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path / ledger.PLACE).read_text().splitlines()]


def test_sweep__interrupted_by_the_user_keeps_what_is_done(
    tmp_path: Path, small_blocks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        failing_after(patch, 4, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            sweep(tmp_path / "r.zarr")
    assert fx.sweep_status(tmp_path / "r.zarr").attrs["n_done"] > 0
    xr.testing.assert_identical(sweep(tmp_path / "r.zarr").load().drop_attrs(), simulate().load().drop_attrs())


@given(
    old=st.tuples(st.integers(1, 4), st.integers(1, 7)),
    more=st.tuples(st.integers(0, 2), st.integers(0, 5)),
    size=st.integers(1, 4),
)
@settings(max_examples=12)
def test_sweep__more_models_and_samples_compute_only_the_new(
    tmp_path_factory: pytest.TempPathFactory, old: tuple[int, int], more: tuple[int, int], size: int
) -> None:
    path = tmp_path_factory.mktemp("sweep") / "r.zarr"
    new = (old[0] + more[0], old[1] + more[1])
    calls: list[int] = []
    original = base.run_block
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "BLOCK_SAMPLES", size)
        patch.setattr(base, "run_block", lambda *given: calls.append(len(given[2])) or original(*given))
        sweep(path, rendering(old[1]), ensemble(old[0]))
        got = sweep(path, rendering(new[1]), ensemble(new[0]))
        assert sum(calls) == new[0] * new[1]
        again = sweep(path, rendering(new[1]), ensemble(new[0]))
    assert sum(calls) == new[0] * new[1]
    expected = simulate(rendering(new[1]), ensemble(new[0])).load()
    xr.testing.assert_identical(got.load().drop_attrs(), expected.drop_attrs())
    xr.testing.assert_identical(again.load(), got.load())


def test_sweep__an_extension_that_crashed_is_made_again(
    tmp_path: Path, small_blocks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "r.zarr"
    sweep(path)
    replace, count = os.replace, [0]

    def failing(source: Any, target: Any) -> None:
        count[0] += 1
        if count[0] == 4:
            raise OSError("crash")
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", failing)
        with pytest.raises(OSError, match="crash"):
            sweep(path, rendering(8), ensemble(4))
    got = sweep(path, rendering(8), ensemble(4)).load()
    xr.testing.assert_identical(got.drop_attrs(), simulate(rendering(8), ensemble(4)).load().drop_attrs())


DIFFERENT: dict[str, tuple[Callable[[], dict[str, Any]], str]] = {
    "stimulus": (lambda: {"data": rendering().assign(luminance=rendering().luminance * 0.5)}, "luminance of 5 samples"),
    "one sample": (
        lambda: {"data": rendering().assign(luminance=rendering().luminance.where(rendering().sample != 3, 0.5))},
        "luminance of 1 samples differs, first at position 3",
    ),
    "end of a sample": (
        lambda: {"data": rendering().assign_coords(t_end=("sample", [0.06, 0.05, 0.06, 0.06, 0.06]))},
        "luminance of .* samples differs",
    ),
    "parameters": (lambda: {"models": ensemble().assign(bias=ensemble().bias + 1e-6)}, "parameters of 3 models differ"),
    "order of models": (lambda: {"models": ensemble().isel(model=[1, 0, 2])}, "parameters of 2 models differ"),
    "fewer models": (lambda: {"models": ensemble(2)}, "the store has 3, this call 2"),
    "fewer samples": (lambda: {"data": rendering(4)}, "samples: the store has 5, this call 4"),
    "step": (lambda: {"data": rendering(dt=1 / 200)}, "dt: the store has 0.01, this call 0.005"),
    "initial state": (lambda: {"initial_state": "rest"}, 'initial_state: the store has "fade_in", this call "rest"'),
    "record": (lambda: {"record": "central"}, "column: the store has .* this call"),
    "frames": (lambda: {"record": {"time": slice(0.02, None)}}, "frames: the store has"),
    "precision": (lambda: {"precision": 8}, 'precision: the store has "float32", this call 8'),
    "connectome": (lambda: {"connectome": OTHER, "models": fx.sample_ensemble(3, 0, connectome=OTHER)}, "connectome: "),
}
OTHER = tiny_connectome(extent=2, edges=[("R", "L", 1, [(0, 0)]), ("L", "T", 1, [(0, 0)])])


@pytest.mark.parametrize(("options", "message"), DIFFERENT.values(), ids=DIFFERENT)
def test_sweep__other_inputs_are_refused_with_the_difference(
    tmp_path: Path, options: Callable[[], dict[str, Any]], message: str
) -> None:
    path = tmp_path / "r.zarr"
    before = sweep(path).load()
    with pytest.raises(SweepMismatchError, match=message):
        sweep(path, **options())
    xr.testing.assert_identical(fx.open(path).load(), before)
    assert sweep(path, **{**options(), "overwrite": True}) is not None


def test_sweep__all_differences_are_said_at_once(tmp_path: Path) -> None:
    sweep(tmp_path / "r.zarr")
    with pytest.raises(SweepMismatchError, match=r"(?s)dt: .*initial_state: .*overwrite=True"):
        sweep(tmp_path / "r.zarr", rendering(dt=1 / 200), initial_state="rest")


def test_sweep__content_counts_and_not_how_it_is_chunked(tmp_path: Path, computed: list[Any]) -> None:
    sweep(tmp_path / "r.zarr")
    data = rendering()
    fx.save(data, tmp_path / "rendering.zarr")
    sweep(tmp_path / "r.zarr", fx.open(tmp_path / "rendering.zarr"))
    sweep(tmp_path / "r.zarr", data.chunk(sample=2))
    assert len(computed) == 3


def test_sweep__something_else_at_the_path(tmp_path: Path) -> None:
    path = fx.save(ensemble(), tmp_path / "e.zarr")
    with pytest.raises(FileExistsError, match="no sweep made it"):
        sweep(path)
    (tmp_path / "thesis").mkdir()
    with pytest.raises(FileExistsError, match="not a zarr store, so it is not overwritten"):
        sweep(tmp_path / "thesis", overwrite=True)
    assert fx.open(path).identical(ensemble())
    assert sweep(path, overwrite=True).sizes["model"] == 3


def corrupt(file: Path, keep_time: bool = False) -> None:
    stat = file.stat()
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 0xFF
    file.write_bytes(content)
    if keep_time:
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize("damage", ["flip a bit", "cut", "remove", "flip a bit of the luminance"])
def test_sweep__a_corrupted_file_is_named_and_computed_anew(
    tmp_path: Path, small_blocks: int, computed: list[Any], damage: str
) -> None:
    path = tmp_path / "r.zarr"
    expected = sweep(path).load()
    place = "luminance/c/1/0/0" if "luminance" in damage else "response/c/1/2/0/0/0"
    file = path / place
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-40])
    elif damage == "remove":
        file.unlink()
    else:
        corrupt(file)
    lost = pytest.warns(UserWarning, match=rf"1 files of .* missing or have another size .*, first {place}")
    with nullcontext() if "flip" in damage else lost:
        damaged = fx.open(path)
    assert fx.sweep_status(path).attrs["complete"] == ("flip" in damage)
    what = "is missing" if damage == "remove" else "is corrupted or cannot be read"
    with pytest.raises(StoreError, match=rf"{file} {what}.*verify=True"):
        damaged.load()
    before = len(computed)
    with pytest.warns(UserWarning, match=rf"{file} is missing or corrupted and is computed anew"):
        got = sweep(path)
    assert computed[before:] == ([] if "luminance" in damage else [(str(got.model_name.values[1]), 1)])
    xr.testing.assert_identical(got.load(), expected)


def test_sweep__verify_finds_what_decayed_in_silence(tmp_path: Path, small_blocks: int) -> None:
    path = tmp_path / "r.zarr"
    expected = sweep(path).load()
    corrupt(path / "response/c/0/1/0/0/0", keep_time=True)
    sweep(path)
    with pytest.warns(UserWarning, match=r"response/c/0/1/0/0/0 is missing or corrupted"):
        xr.testing.assert_identical(sweep(path, verify=True).load(), expected)


def test_sweep__a_copied_store_is_as_good(tmp_path: Path, computed: list[Any]) -> None:
    import shutil

    expected = sweep(tmp_path / "r.zarr").load()
    shutil.copytree(tmp_path / "r.zarr", tmp_path / "copy.zarr", copy_function=shutil.copyfile)
    xr.testing.assert_identical(sweep(tmp_path / "copy.zarr").load(), expected)
    assert len(computed) == 3


def test_sweep__torn_line_of_the_ledger_is_as_if_not_written(tmp_path: Path, small_blocks: int) -> None:
    path = tmp_path / "r.zarr"
    expected = sweep(path).load()
    file = path / ledger.PLACE
    content = file.read_bytes()
    file.write_bytes(content[: content.rindex(b'{"block"') + 30])
    assert fx.sweep_status(path).attrs["n_done"] < 15
    xr.testing.assert_identical(sweep(path).load(), expected)
    assert fx.sweep_status(path).attrs["complete"]


def test_sweep__a_ledger_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "r.zarr"
    sweep(path)
    (path / ledger.PLACE).write_text('{"block": [0, 0, 5]}\n')
    for call in (lambda: sweep(path), lambda: fx.sweep_status(path), lambda: fx.open(path)):
        with pytest.raises(ValueError, match="sweep.jsonl is no ledger of a sweep"):
            call()


def test_sweep__two_at_once_are_refused(tmp_path: Path, small_blocks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    path, entered, go_on = tmp_path / "r.zarr", threading.Event(), threading.Event()
    original = base.run_block

    def waiting(*given: Any) -> Any:
        entered.set()
        assert go_on.wait(60)
        return original(*given)

    monkeypatch.setattr(base, "run_block", waiting)
    first = threading.Thread(target=sweep, args=(path,))
    first.start()
    try:
        assert entered.wait(60)
        with pytest.raises(SweepError, match=rf"another sweep writes to .*process {os.getpid()} on .*since"):
            sweep(path)
        with pytest.raises(SweepError, match="another sweep writes"):
            sweep(path, overwrite=True)
    finally:
        go_on.set()
        first.join()
    xr.testing.assert_identical(sweep(path).load().drop_attrs(), simulate().load().drop_attrs())


KILLED = """
import os, sys, time, random, signal, importlib
import numpy as np
sys.path.insert(0, {tests!r})
import test_sweep as t
base, plan = importlib.import_module("flyxr.sweep.base"), importlib.import_module("flyxr.sweep.plan")
original = base.run_block
def slow(block, parameters, stimulus, state, name, *rest):
    with open(sys.argv[2], "a") as log:
        log.write(f"{{name}} {{stimulus.ravel()[0]}}\\n")
    time.sleep(0.1)
    return original(block, parameters, stimulus, state, name, *rest)
base.run_block = slow
plan.BLOCK_SAMPLES = 2
def child():
    t.sweep(t.Path(sys.argv[1]), t.rendering(16), t.ensemble(5))
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
    """The result is bit-identical, and only blocks under way are computed twice."""
    path, log = tmp_path / "r.zarr", tmp_path / "log"
    program = KILLED.format(tests=str(Path(__file__).parent))
    command = [sys.executable, "-c", program, str(path), str(log), "7", "10"]
    output = subprocess.run(command, capture_output=True, text=True, check=False)
    assert output.returncode == 0, output.stderr
    kills, status = map(int, output.stdout.split())
    assert status == 0
    assert kills == 10
    computed = log.read_text().splitlines()
    at_once = 2 if (os.cpu_count() or 1) < 2 else os.cpu_count()
    assert len(set(computed)) == 5 * 8
    assert len(computed) - 5 * 8 <= kills * at_once
    entered = [tuple(line["block"]) for line in lines_of(path) if "block" in line]
    assert len(set(entered)) == len(entered) == 5 * 8
    got = fx.open(path).load()
    undisturbed = sweep(tmp_path / "u.zarr", rendering(16), ensemble(5)).load()
    xr.testing.assert_identical(got.drop_attrs(), undisturbed.drop_attrs())
    for block in (path / "response" / "c").rglob("*"):
        assert block.suffix != ".partial"


def test_sweep__diverging_models_do_not_stop_the_others(tmp_path: Path) -> None:
    connectome = tiny_connectome(
        extent=2, edges=[("R", "L", 1, [(0, 0)]), ("L", "T", 1, [(0, 0)]), ("T", "L", 1, [(0, 0)])]
    )
    models = fx.sample_ensemble(3, seed=0, connectome=connectome)
    wild = xr.where(models.model == 1, 5.0, models.synapse_strength)
    models["synapse_strength"] = wild.transpose("model", "pair").astype(np.float32)
    with pytest.raises(DivergedError, match=r"(?s)model sample-0/001 grow without bound.*10 of 15 responses"):
        sweep(tmp_path / "r.zarr", rendering(n_time=60), models, connectome=connectome)
    done = fx.sweep_status(tmp_path / "r.zarr").done.all("sample")
    assert done.values.tolist() == [True, False, True]


def test_sweep__nan_in_a_lazy_rendering(tmp_path: Path) -> None:
    data = rendering().copy(deep=True)
    data["luminance"][1, 3, 5] = np.nan
    with pytest.raises(schema.SchemaError, match="NaN or inf in 1 of"):
        sweep(tmp_path / "r.zarr", data.chunk(sample=1))


def test_sweep__a_stimulus_that_is_random_each_time_is_found_out(tmp_path: Path, small_blocks: int) -> None:
    def block(values: np.ndarray) -> np.ndarray:
        return np.random.default_rng().random(values.shape, dtype=np.float32)

    data = rendering().chunk(sample=2)
    random = data.assign(luminance=data.luminance.copy(data=da.map_blocks(block, data.luminance.data)))
    sweep(tmp_path / "r.zarr", random)
    with pytest.raises(SweepMismatchError, match="luminance of 5 samples differs"):
        sweep(tmp_path / "r.zarr", random)


@pytest.mark.parametrize("limit", ["400.1 MB", 1000])
def test_sweep__memory_too_small_for_one_sample(tmp_path: Path, limit: Any) -> None:
    with pytest.raises(ValueError, match=r"memory limit of at least .*one sample needs .*raise memory_limit, record"):
        sweep(tmp_path / "r.zarr", rendering(n_time=2000), memory_limit=limit)
    assert os.listdir(tmp_path) == []


def test_sweep__memory_bounds_blocks_and_threads() -> None:
    from flyxr import workers
    from flyxr.simulation import bytes_per_sample, prepare

    prepared = prepare(rendering(40), ensemble(50), connectome=CONNECTOME)
    one, team = bytes_per_sample(prepared, plan.COPIES), workers.Threads()
    team.threads_per_worker = 4
    sizes = [plan.choose_blocks(prepared, plan.BASE_BYTES + n * one, team, None) for n in (1.5, 4.5, 16.5, 400)]
    assert sizes == [(1, 1), (1, 4), (4, 4), (64, 4)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory_limit": "lots"}, "memory_limit in bytes or as text"),
        ({"memory_limit": -1}, "memory_limit in bytes or as text"),
        ({"precision": "double"}, "'float32', 'float16' or a number of bits from 1 to 22"),
        ({"precision": 23}, "'float32', 'float16' or a number of bits from 1 to 22"),
        ({"precision": True}, "'float32', 'float16' or a number of bits from 1 to 22"),
        ({"client": "tcp://localhost:8786"}, "a dask.distributed.Client"),
        ({"record": {"time": slice(5, 6)}}, "selects nothing"),
        ({"record": {"cell_type": []}}, "selects nothing"),
    ],
)
def test_sweep__bad_input_leaves_nothing(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sweep(tmp_path / "r.zarr", **options)
    assert os.listdir(tmp_path) == []


def test_sweep__path_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot write .*file/r.zarr.*choose another path"):
        sweep(tmp_path / "file" / "r.zarr")


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("may not mount a disk")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_sweep__full_disk(mounted: Path, small_blocks: int) -> None:
    path, many = mounted / "r.zarr", ensemble(12)
    data = rendering(40, 60)
    with pytest.raises(OSError, match=r"(?s)the sweep stopped: No space left.*of 480 responses.*goes on from there"):
        sweep(path, data, many)
    n_done = fx.sweep_status(path).attrs["n_done"]
    assert 0 < n_done < 480
    subprocess.run(["mount", "-o", "remount,size=64m", mounted], check=True)
    got = sweep(path, data, many)
    xr.testing.assert_identical(got.load().drop_attrs(), simulate(data, many).load().drop_attrs())


def test_sweep__read_only_store(mounted: Path, small_blocks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    finished, path = mounted / "f.zarr", mounted / "r.zarr"
    expected = sweep(finished).load()
    with monkeypatch.context() as patch:
        failing_after(patch, 4, OSError(5, "Input/output error"))
        with pytest.raises(OSError, match="Input/output error"):
            sweep(path)
    n_done = fx.sweep_status(path).attrs["n_done"]
    subprocess.run(["mount", "-o", "remount,ro", mounted], check=True)
    xr.testing.assert_identical(sweep(finished).load(), expected)
    with pytest.raises(OSError, match="Read-only file system: make it writable"):
        sweep(path)
    assert fx.sweep_status(path).attrs["n_done"] == n_done


def test_sweep__plan_computes_little_and_keeps_nothing(tmp_path: Path, small_blocks: int, computed: list[Any]) -> None:
    found = fx.sweep(rendering(), ensemble(), tmp_path / "r.zarr", connectome=CONNECTOME, plan_only=True)
    assert isinstance(found, Plan)
    assert (found.n_blocks, found.n_done, found.block_samples) == (9, 0, 2)
    assert found.n_bytes == 3 * 5 * N_TIME * 3 * 19 * 4
    assert found.seconds > 0
    assert 0 < found.disk_bytes < 10 * found.n_bytes
    assert len(computed) <= 1 + found.at_once
    assert os.listdir(tmp_path) == []
    for part in ("9 of 1 model x 2 samples", "0 of 9 blocks", "before compression", "a worker", "free"):
        assert part in str(found)


def test_sweep__plan_of_an_unfinished_or_longer_sweep(tmp_path: Path, small_blocks: int) -> None:
    path = tmp_path / "r.zarr"
    sweep(path, rendering(4))
    before = (path / ledger.PLACE).read_bytes()
    options: dict[str, Any] = {"connectome": CONNECTOME, "plan_only": True}
    done = fx.sweep(rendering(4), ensemble(), path, **options)
    longer = fx.sweep(rendering(5), ensemble(4), path, **options)
    assert isinstance(done, Plan)
    assert isinstance(longer, Plan)
    assert (done.n_blocks, done.n_done, done.seconds) == (6, 6, 0)
    assert (longer.n_blocks, longer.n_done) == (12, 6)
    assert (path / ledger.PLACE).read_bytes() == before
    with pytest.raises(SweepMismatchError):
        fx.sweep(rendering(4), ensemble(), path, initial_state="rest", **options)


def test_sweep__plan_warns_of_a_small_disk() -> None:
    small = Plan(1, 0, 1, 1, 10, 10, 1.0, 1e12, 1000)
    assert "the disk is too small" in str(small)
    assert "WARNING" not in str(small._replace(disk_bytes=10))


@pytest.mark.parametrize("precision", ["float16", 12, 7])
def test_sweep__fewer_bits_state_their_error(tmp_path: Path, precision: Any, small_blocks: int) -> None:
    exact = simulate().response.load()
    got = sweep(tmp_path / "r.zarr", precision=precision)
    assert got.response.dtype == (np.float16 if precision == "float16" else np.float32)
    error = np.abs(got.response.astype(np.float32) - exact)
    relative = {"float16": 2**-11, 12: 2**-13, 7: 2**-8}[precision]
    assert relative_error(precision) == relative == got.response.attrs["largest_relative_error"]
    assert (error <= relative * np.abs(exact) + 1e-7).all()
    assert float(error.max()) == pytest.approx(got.response.attrs["largest_error"], rel=1e-3)
    assert float(error.max()) > 0
    np.testing.assert_array_equal(got.response.isnull(), exact.isnull())


def test_sweep__float16_that_overflows(tmp_path: Path) -> None:
    models = ensemble(1)
    models["bias"] = models.bias + 1e5
    with pytest.raises(ValueError, match=r"do not fit float16: use precision=10"):
        sweep(tmp_path / "r.zarr", models=models, precision="float16", initial_state="rest")


def test_round_mantissa__is_to_the_nearest() -> None:
    values = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    for bits in (1, 7, 15, 22):
        got = stores.round_mantissa(values, bits)
        ulp = 2.0 ** (np.floor(np.log2(np.abs(values))) - bits)
        assert (np.abs(got - values) <= ulp / 2).all()
        np.testing.assert_array_equal(stores.round_mantissa(got, bits), got)


def test_sweep_status__what_is_no_sweep(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="expected one that fx.sweep"):
        fx.sweep_status(tmp_path / "none.zarr")
    with pytest.raises(StoreError, match="made by no sweep"):
        fx.sweep_status(fx.save(ensemble(), tmp_path / "e.zarr"))


def test_sweep_status__says_what_made_it(tmp_path: Path) -> None:
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
    np.testing.assert_array_equal(status.angle, rendering().angle)


def test_sweep__streams_a_lazy_rendering(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_blocks: int) -> None:
    """No more of a movie is held than the blocks that are under way need, and each part is made once."""
    made: list[int] = []
    lock = threading.Lock()

    def block(values: np.ndarray, block_info: Any = None) -> np.ndarray:
        if block_info:
            with lock:
                made.append(block_info[0]["chunk-location"][0])
        return values

    done: list[tuple[int, int]] = []
    original = base.run_block
    monkeypatch.setattr(base, "run_block", lambda *given: done.append((len(done), len(made))) or original(*given))
    data = rendering(40).chunk(sample=2)
    lazy = data.assign(luminance=data.luminance.copy(data=data.luminance.data.map_blocks(block, dtype=np.float32)))
    sweep(tmp_path / "r.zarr", lazy, ensemble(2))
    assert sorted(made) == list(range(20))
    ahead = [n_made - n_done / 2 for n_done, n_made in done]
    assert max(ahead) <= 4
