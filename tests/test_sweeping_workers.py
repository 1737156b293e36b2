"""Simulations and sweeps on dask.distributed: the same numbers, even if workers or the scheduler are lost."""

from __future__ import annotations

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
from distributed.comm.core import CommClosedError

import flyxr as fx
from flyxr import schema
from flyxr.engine import base
from flyxr.store.ledger import LEDGER_FILE
from flyxr.sweeping import Plan, SweepError
from flyxr.sweeping.workers import ClusterPool
from flyxr.testing import noise_rendering

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CONNECTOME = fx.open_connectome(extent=3)

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


def make_rendering(n_samples: int = 8, n_time: int = 20) -> xr.Dataset:
    return noise_rendering(n_samples, n_time, extent=3)


def make_ensemble(n_models: int = 4) -> xr.Dataset:
    return fx.sample_ensemble(n_models, seed=0, connectome=CONNECTOME)


@pytest.fixture(scope="module")
def client() -> Iterator[distributed.Client]:
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def sweep(path: Path, rendering: xr.Dataset, ensemble: xr.Dataset, **options: Any) -> xr.Dataset:
    responses = fx.sweep(rendering, ensemble, path, **{"connectome": CONNECTOME, "progress": False} | options)
    assert isinstance(responses, xr.Dataset)
    return responses


def simulate(rendering: xr.Dataset, ensemble: xr.Dataset, **options: Any) -> xr.Dataset:
    return fx.simulate(rendering, ensemble, connectome=CONNECTOME, **options).load()


def count_blocks(path: Path) -> int:
    file = path / LEDGER_FILE
    return file.read_text().count('{"block"') if file.exists() else 0


def wait_until(condition: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "timeout"
        time.sleep(0.01)


def start_sweep(
    path: Path, rendering: xr.Dataset, ensemble: xr.Dataset, client: distributed.Client
) -> tuple[threading.Thread, list[BaseException]]:
    """Start a sweep in a thread, and wait until some blocks are done; the list will hold its error."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            sweep(path, rendering, ensemble, client=client, block_samples=4)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    wait_until(lambda: count_blocks(path) >= 2)
    return thread, errors


def test_simulate__on_a_cluster(client: distributed.Client) -> None:
    got = client.compute(fx.simulate(make_rendering(), make_ensemble(), connectome=CONNECTOME).response).result()
    np.testing.assert_array_equal(got, simulate(make_rendering(), make_ensemble()).response)


def test_simulate__a_worker_compiles_a_connectome_once(client: distributed.Client) -> None:
    def compiled_extents() -> list[int]:
        from flyxr.connectome import network

        return [extent for _, extent in network.compiled_networks]

    client.compute(fx.simulate(make_rendering(), make_ensemble(8), connectome=CONNECTOME).response).result()
    extents = client.run(compiled_extents).values()
    assert any(3 in compiled for compiled in extents)
    assert all(compiled.count(3) <= 1 for compiled in extents)


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("initial_state", ["fade_in", "steady_state"])
def test_sweep__equals_simulate(client: distributed.Client, tmp_path: Path, initial_state: str, lazy: bool) -> None:
    rendering = make_rendering().chunk(sample=3) if lazy else make_rendering()
    got = sweep(tmp_path / "r.zarr", rendering, make_ensemble(), client=client, initial_state=initial_state)
    expected = simulate(make_rendering(), make_ensemble(), initial_state=initial_state)
    xr.testing.assert_identical(got.load().drop_attrs(), expected.drop_attrs())
    (run,) = json.loads(fx.sweep_status(tmp_path / "r.zarr").attrs["runs"])
    assert "2 workers of 1 threads" in run["workers"]


def test_sweep__started_on_a_cluster_resumes_in_this_process(client: distributed.Client, tmp_path: Path) -> None:
    sweep(tmp_path / "r.zarr", make_rendering(), make_ensemble(2), client=client)
    got = sweep(tmp_path / "r.zarr", make_rendering(11), make_ensemble(3))
    xr.testing.assert_identical(got.load().drop_attrs(), simulate(make_rendering(11), make_ensemble(3)).drop_attrs())


def test_sweep__plan_on_a_cluster(client: distributed.Client, tmp_path: Path) -> None:
    plan = fx.sweep(
        make_rendering(), make_ensemble(), tmp_path / "r.zarr", connectome=CONNECTOME, client=client, plan_only=True
    )
    assert isinstance(plan, Plan)
    assert plan.at_once == 2
    assert plan.seconds > 0
    assert os.listdir(tmp_path) == []


def test_n_threads__of_a_worker(client: distributed.Client) -> None:
    assert set(client.run(base.n_threads).values()) <= {1, base.n_threads()}  # outside of tasks: of the process
    assert client.submit(base.n_threads, pure=False).result() == 1


def test_cluster_pool__has_the_resources_of_the_workers(client: distributed.Client) -> None:
    pool = ClusterPool(client)
    limits = [worker["memory_limit"] for worker in client.scheduler_info(n_workers=-1)["workers"].values()]
    assert pool.memory == min(limits)
    assert (pool.n_workers, pool.threads_per_worker) == (2, 1)


def nap() -> tuple[float, float]:
    """Sleep, and return the times of start and end."""
    start = time.monotonic()
    time.sleep(0.2)
    return start, time.monotonic()


@pytest.mark.parametrize(("device", "at_once"), [("cuda", 1), ("cpu", 4)])
def test_cluster_pool__runs_one_task_at_a_time_per_gpu(device: str, at_once: int) -> None:
    """If workers declare the resource, as the page on clusters shows."""
    options: dict[str, Any] = {"n_workers": 1, "threads_per_worker": 4, "processes": False, "dashboard_address": ":0"}
    with (
        distributed.LocalCluster(resources={"GPU": 1}, **options) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        pool = ClusterPool(client)
        futures = [pool.submit(nap, device=device) for _ in range(4)]
        naps = [future.result() for future in pool.completed(iter(futures), 4)]
    assert max(sum(start <= moment < end for start, end in naps) for moment, _ in naps) == at_once


def test_sweep__refuses_a_closed_client(tmp_path: Path, client: distributed.Client) -> None:
    with distributed.Client(client.scheduler.address, set_as_default=False) as other:
        pass
    with pytest.raises(ValueError, match="a connected client, got one that is closed: create a new Client"):
        sweep(tmp_path / "r.zarr", make_rendering(), make_ensemble(), client=other)
    assert os.listdir(tmp_path) == []


def test_sweep__refuses_a_client_without_workers(tmp_path: Path) -> None:
    with (
        distributed.LocalCluster(n_workers=0, dashboard_address=":0") as cluster,
        distributed.Client(cluster, set_as_default=False) as empty,
        pytest.raises(ValueError, match=r"expected workers, got none at tcp://.*`dask worker tcp"),
    ):
        sweep(tmp_path / "r.zarr", make_rendering(), make_ensemble(), client=empty)


def test_sweep__raises_for_nan_on_a_worker(tmp_path: Path, client: distributed.Client) -> None:
    rendering = make_rendering().copy(deep=True)
    rendering["luminance"][1, 3, 5] = np.nan
    with pytest.raises(schema.SchemaError, match="NaN or inf in 1 of"):
        sweep(tmp_path / "r.zarr", rendering.chunk(sample=1), make_ensemble(), client=client)


def test_sweep__survives_the_death_of_a_worker(client: distributed.Client, tmp_path: Path) -> None:
    """The other worker computes its blocks, and the nanny starts a new worker."""
    path, rendering, ensemble = tmp_path / "r.zarr", make_rendering(40, 50), make_ensemble(8)
    thread, errors = start_sweep(path, rendering, ensemble, client)
    os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)
    thread.join(240)
    assert not errors
    assert not thread.is_alive()
    got = fx.open(path).load()
    xr.testing.assert_identical(got.drop_attrs(), simulate(rendering, ensemble).drop_attrs())


class ManualCluster:
    """A scheduler and two workers, started by commands as on a real cluster."""

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
def manual_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ManualCluster]:
    cluster = ManualCluster(tmp_path_factory.mktemp("cluster"))
    yield cluster
    cluster.stop()


def test_sweep__stops_if_the_scheduler_is_lost(manual_cluster: ManualCluster, tmp_path: Path) -> None:
    path, rendering, ensemble = tmp_path / "r.zarr", make_rendering(40, 50), make_ensemble(8)
    client = distributed.Client(manual_cluster.address, set_as_default=False, timeout="60s")
    client.wait_for_workers(2, timeout=60)
    thread, errors = start_sweep(path, rendering, ensemble, client)
    manual_cluster.scheduler.kill()
    thread.join(120)
    client.close(timeout=1)
    assert not thread.is_alive()
    (error,) = errors
    assert isinstance(error, SweepError)
    assert "scheduler" in str(error)
    assert "repeat the call to resume" in str(error)
    n_done = count_blocks(path)
    got = sweep(path, rendering, ensemble)
    assert count_blocks(path) > n_done
    xr.testing.assert_identical(got.load().drop_attrs(), simulate(rendering, ensemble).drop_attrs())


def test_sweep__stops_if_the_scheduler_is_lost_while_results_are_fetched(
    client: distributed.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, rendering, ensemble = tmp_path / "r.zarr", make_rendering(), make_ensemble()

    def lose_the_scheduler(*_: object, **__: object) -> None:
        raise CommClosedError("in <TCP (closed)>: Stream is closed")

    with monkeypatch.context() as patch:
        patch.setattr(distributed.Future, "result", lose_the_scheduler)
        patch.setattr(distributed.Client, "gather", lose_the_scheduler)
        with pytest.raises(SweepError, match=r"the scheduler at tcp://\S+ is lost\. .*: repeat the call to resume"):
            sweep(path, rendering, ensemble, client=client)
    xr.testing.assert_identical(
        sweep(path, rendering, ensemble).load().drop_attrs(), simulate(rendering, ensemble).drop_attrs()
    )
