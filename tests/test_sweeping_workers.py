"""Simulations and sweeps on dask.distributed: the same numbers, also where workers or a scheduler are lost."""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import distributed
import numpy as np
import pytest
import xarray as xr

import flyxr as fx
from flyxr import hexgrid, schema, workers
from flyxr.engine import base
from flyxr.store import ledger
from flyxr.sweep import Plan, SweepError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

plans = importlib.import_module("flyxr.sweep.plan")
CONNECTOME = fx.open_connectome(extent=3)

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


def rendering(n_samples: int = 8, n_time: int = 20) -> xr.Dataset:
    columns = hexgrid.column_coords(3)
    values = np.random.default_rng(0).random((n_samples, n_time, 37), dtype=np.float32)
    coords = {"sample": np.arange(n_samples), "time": schema.time_coord(n_time, 1 / 100), **columns}
    return xr.Dataset({"luminance": (("sample", "time", "column"), values)}, coords)


def ensemble(n_models: int = 4) -> xr.Dataset:
    return fx.sample_ensemble(n_models, seed=0, connectome=CONNECTOME)


@pytest.fixture(scope="module")
def client() -> Iterator[distributed.Client]:
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def sweep(path: Path, data: xr.Dataset, models: xr.Dataset, **options: Any) -> xr.Dataset:
    found = fx.sweep(data, models, path, **{"connectome": CONNECTOME, "progress": False} | options)
    assert isinstance(found, xr.Dataset)
    return found


def simulate(data: xr.Dataset, models: xr.Dataset, **options: Any) -> xr.Dataset:
    return fx.simulate(data, models, connectome=CONNECTOME, **options).load()


def n_blocks_of(path: Path) -> int:
    file = path / ledger.PLACE
    return file.read_text().count('{"block"') if file.exists() else 0


def wait_until(condition: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def begin(
    path: Path, data: xr.Dataset, models: xr.Dataset, client: distributed.Client
) -> tuple[threading.Thread, list[BaseException]]:
    """A sweep in a thread of its own, some blocks of which are done, and the errors that it will end with."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            sweep(path, data, models, client=client)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    wait_until(lambda: n_blocks_of(path) >= 2)
    return thread, failed


def test_simulate__on_a_cluster(client: distributed.Client) -> None:
    got = client.compute(fx.simulate(rendering(), ensemble(), connectome=CONNECTOME).response).result()
    np.testing.assert_array_equal(got, simulate(rendering(), ensemble()).response)


def test_simulate__a_worker_compiles_a_connectome_once(client: distributed.Client) -> None:
    def n_compiled() -> list[int]:
        from flyxr import connectome

        return [extent for _, extent in connectome._compiled]

    client.compute(fx.simulate(rendering(), ensemble(8), connectome=CONNECTOME).response).result()
    assert all(extents.count(3) <= 1 for extents in client.run(n_compiled).values())


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("initial_state", ["fade_in", "steady_state"])
def test_sweep__equals_simulate(client: distributed.Client, tmp_path: Path, initial_state: str, lazy: bool) -> None:
    data = rendering().chunk(sample=3) if lazy else rendering()
    got = sweep(tmp_path / "r.zarr", data, ensemble(), client=client, initial_state=initial_state)
    expected = simulate(rendering(), ensemble(), initial_state=initial_state)
    xr.testing.assert_identical(got.load().drop_attrs(), expected.drop_attrs())
    (run,) = json.loads(fx.sweep_status(tmp_path / "r.zarr").attrs["runs"])
    assert "2 workers of 1 threads" in run["workers"]


def test_sweep__begun_on_a_cluster_goes_on_in_this_process(client: distributed.Client, tmp_path: Path) -> None:
    sweep(tmp_path / "r.zarr", rendering(), ensemble(2), client=client)
    got = sweep(tmp_path / "r.zarr", rendering(11), ensemble(3))
    xr.testing.assert_identical(got.load().drop_attrs(), simulate(rendering(11), ensemble(3)).drop_attrs())


def test_sweep__plan_on_a_cluster(client: distributed.Client, tmp_path: Path) -> None:
    plan = fx.sweep(rendering(), ensemble(), tmp_path / "r.zarr", connectome=CONNECTOME, client=client, plan_only=True)
    assert isinstance(plan, Plan)
    assert plan.at_once == 2
    assert plan.seconds > 0
    assert os.listdir(tmp_path) == []


def test_sweep__threads_of_a_worker_are_those_it_was_given(client: distributed.Client) -> None:
    assert set(client.run(base.n_threads).values()) <= {1, base.n_threads()}  # outside of tasks: of the process
    assert client.submit(base.n_threads, pure=False).result() == 1


def test_sweep__memory_of_the_workers_bounds_blocks(client: distributed.Client) -> None:
    team = workers.Cluster(client)
    limits = [worker["memory_limit"] for worker in client.scheduler_info(n_workers=-1)["workers"].values()]
    assert team.memory == min(limits)
    assert (team.n_workers, team.threads_per_worker) == (2, 1)


def nap() -> tuple[float, float]:
    """When it began and ended."""
    began = time.monotonic()
    time.sleep(0.2)
    return began, time.monotonic()


@pytest.mark.parametrize(("device", "at_once"), [("cuda", 1), ("cpu", 4)])
def test_cluster__one_task_at_a_time_for_a_gpu(device: str, at_once: int) -> None:
    """Where workers say that they have one, as the page on clusters shows."""
    options: dict[str, Any] = {"n_workers": 1, "threads_per_worker": 4, "processes": False, "dashboard_address": ":0"}
    with (
        distributed.LocalCluster(resources={"GPU": 1}, **options) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        team = workers.Cluster(client)
        futures = [team.submit(nap, device=device) for _ in range(4)]
        naps = [future.result() for future in team.stream(iter(futures), 4)]
    assert max(sum(began <= start < ended for began, ended in naps) for start, _ in naps) == at_once


def test_sweep__closed_client(tmp_path: Path, client: distributed.Client) -> None:
    with distributed.Client(client.scheduler.address, set_as_default=False) as other:
        pass
    with pytest.raises(ValueError, match="a client that is connected, got one that is closed: make a new Client"):
        sweep(tmp_path / "r.zarr", rendering(), ensemble(), client=other)
    assert os.listdir(tmp_path) == []


def test_sweep__client_without_workers(tmp_path: Path) -> None:
    with (
        distributed.LocalCluster(n_workers=0, dashboard_address=":0") as cluster,
        distributed.Client(cluster, set_as_default=False) as empty,
        pytest.raises(ValueError, match=r"expected workers, got none at tcp://.*`dask worker tcp"),
    ):
        sweep(tmp_path / "r.zarr", rendering(), ensemble(), client=empty)


def test_sweep__nan_found_on_a_worker(tmp_path: Path, client: distributed.Client) -> None:
    data = rendering().copy(deep=True)
    data["luminance"][1, 3, 5] = np.nan
    with pytest.raises(schema.SchemaError, match="NaN or inf in 1 of"):
        sweep(tmp_path / "r.zarr", data.chunk(sample=1), ensemble(), client=client)


def test_sweep__a_worker_is_killed(client: distributed.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others take its blocks, and a new one comes."""
    monkeypatch.setattr(plans, "BLOCK_SAMPLES", 4)
    path, data, models = tmp_path / "r.zarr", rendering(40, 50), ensemble(8)
    thread, failed = begin(path, data, models, client)
    os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)
    thread.join(240)
    assert not failed
    assert not thread.is_alive()
    got = fx.open(path).load()
    xr.testing.assert_identical(got.drop_attrs(), simulate(data, models).drop_attrs())


class ByHand:
    """A scheduler and two workers, started as a user would on a cluster."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
        port = self.address.rsplit(":", 1)[1]
        dask = [sys.executable, "-m", "dask"]
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
        scheduler = [*dask, "scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard"]
        worker = [*dask, "worker", self.address, "--nworkers", "1", "--nthreads", "1", "--no-dashboard"]
        self.scheduler = subprocess.Popen(scheduler, **quiet)
        self.workers = [subprocess.Popen(worker, **quiet) for _ in range(2)]

    def stop(self) -> None:
        for process in (*self.workers, self.scheduler):
            process.terminate()
        for process in (*self.workers, self.scheduler):
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture
def by_hand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ByHand]:
    cluster = ByHand(tmp_path_factory.mktemp("cluster"))
    yield cluster
    cluster.stop()


def test_sweep__the_scheduler_is_lost(by_hand: ByHand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "PATIENCE", 0.5)
    monkeypatch.setattr(plans, "BLOCK_SAMPLES", 4)
    path, data, models = tmp_path / "r.zarr", rendering(40, 50), ensemble(8)
    client = distributed.Client(by_hand.address, set_as_default=False, timeout="60s")
    client.wait_for_workers(2, timeout=60)
    thread, failed = begin(path, data, models, client)
    by_hand.scheduler.kill()
    thread.join(120)
    client.close(timeout=1)
    assert not thread.is_alive()
    (error,) = failed
    assert isinstance(error, SweepError)
    assert "scheduler" in str(error)
    assert "the same call again goes on from there" in str(error)
    n_done = n_blocks_of(path)
    got = sweep(path, data, models)
    assert n_blocks_of(path) > n_done
    xr.testing.assert_identical(got.load().drop_attrs(), simulate(data, models).drop_attrs())
