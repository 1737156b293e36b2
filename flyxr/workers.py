"""Who computes the blocks of a sweep: the threads of this process, or the workers of a dask.distributed cluster.

Both take functions and arguments among which may be futures, give futures of ``concurrent.futures``' kind, and hand out
those that are finished.
"""

from __future__ import annotations

import math
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any

import numpy as np

from flyxr.engine import base
from flyxr.errors import FlyxrError, InputError, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import xarray as xr

PATIENCE = 5.0
"""Time after which a cluster from which nothing came is asked whether it is still there, s."""


class LostError(FlyxrError, RuntimeError):
    """The cluster is not there any more."""


class Threads:
    """The threads of this process, as many as there are cores."""

    n_workers = 1
    memory = math.inf

    def __init__(self) -> None:
        self.threads_per_worker = base.n_threads()
        self._pool = ThreadPoolExecutor(self.threads_per_worker, thread_name_prefix="flyxr-block")
        # One thread makes stimuli ahead of the blocks that wait for them, with a pool for the chunks of a lazy one.
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="flyxr-stimulus")
        self._chunks = ThreadPoolExecutor(self.threads_per_worker, thread_name_prefix="flyxr-chunk")
        self._pending: set[Any] = set()

    def __str__(self) -> str:
        return f"{self.threads_per_worker} threads"

    def share(self, value: Any) -> Any:
        """Value that many calls take."""
        return value

    def load(self, array: xr.DataArray) -> Any:
        """Future of the values of an array."""
        return self._loader.submit(load, array, pool=self._chunks)

    def submit(self, function: Callable[..., Any], *arguments: Any, device: str = "cpu") -> Any:
        """Future of a call."""
        return self._pool.submit(_call, function, arguments)

    def stream(self, futures: Iterator[Any], at_once: int) -> Iterator[Any]:
        """Futures as they finish, so many under way at once."""
        for future in futures:
            self._pending.add(future)
            if len(self._pending) >= at_once:
                yield from self._finished()
        while self._pending:
            yield from self._finished()

    def _finished(self) -> Iterator[Any]:
        for future in wait(self._pending, return_when=FIRST_COMPLETED).done:
            self._pending.discard(future)
            yield future

    def stop(self) -> list[Any]:
        """Begin nothing more, and wait for what is under way; gives the futures that came to a good end."""
        for pool in (self._loader, self._pool, self._chunks):
            pool.shutdown(cancel_futures=True)
        return [future for future in self._pending if not future.cancelled() and future.exception() is None]


class Cluster:
    """The workers of a ``dask.distributed.Client``.

    Raises
    ------
    ValueError
        If the client is none, is closed, or has no workers.
    """

    def __init__(self, client: Any) -> None:
        import distributed

        if not isinstance(client, distributed.Client) or client.asynchronous:
            raise InputError(f"expected a dask.distributed.Client, not asynchronous, got {client!r}")
        if client.status != "running":
            raise InputError(
                Problem(f"expected a client that is connected, got one that is {client.status}", "make a new Client")
            )
        threads = client.nthreads()
        self.address = str(client.scheduler_info()["address"])
        if not threads:
            way = f"start some with `dask worker {self.address}`, or wait for them"
            raise InputError(
                Problem(f"expected workers, got none at {self.address}", f"{way} with client.wait_for_workers(1)", way)
            )
        self.client, self.n_workers, self.threads_per_worker = client, len(threads), max(threads.values())
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        self.memory = min((worker["memory_limit"] or math.inf for worker in workers), default=math.inf)
        self._has_gpus = any("GPU" in worker["resources"] for worker in workers)
        self._pending: set[Any] = set()

    def __str__(self) -> str:
        return f"{self.n_workers} workers of {self.threads_per_worker} threads at {self.address}"

    def share(self, value: Any) -> Any:
        """Future of a value that many calls take: sent to a worker once, and again if the worker is lost."""
        return self.client.submit(_same, value, pure=False)

    def load(self, array: xr.DataArray) -> Any:
        """Future of the values of an array, which workers compute if it is lazy."""
        return self.share(array.values) if array.chunks is None else self.client.compute(array.data)

    def submit(self, function: Callable[..., Any], *arguments: Any, device: str = "cpu") -> Any:
        """Future of a call; one at a time for each GPU where workers say that they have some."""
        resources = {"GPU": 1} if device != "cpu" and self._has_gpus else None
        return self.client.submit(function, *arguments, pure=False, resources=resources)

    def stream(self, futures: Iterator[Any], at_once: int) -> Iterator[Any]:
        """Futures as they finish; some more than are under way, so that no worker waits for the next."""
        for future in futures:
            self._pending.add(future)
            if len(self._pending) >= 2 * at_once:
                yield from self._finished()
        while self._pending:
            yield from self._finished()

    def _finished(self) -> Iterator[Any]:
        import distributed

        while True:
            try:
                with self.client.as_current():  # waits with the default client otherwise, which may be another or none
                    done = distributed.wait(self._pending, timeout=PATIENCE, return_when="FIRST_COMPLETED").done
                break
            except TimeoutError:
                if self.client.status != "running":
                    raise LostError(f"the scheduler at {self.address} is lost") from None
        for future in done:
            if future.cancelled():
                raise LostError(f"the scheduler at {self.address} is lost, or cancelled the work")
            self._pending.discard(future)
            yield future

    def stop(self) -> list[Any]:
        """Begin nothing more; what is under way on workers ends there, and is not waited for."""
        if self.client.status != "running":
            return []
        finished = [future for future in self._pending if future.status == "finished"]
        self.client.cancel(list(self._pending.difference(finished)))
        return finished


def load(array: xr.DataArray, pool: Any = None) -> Any:
    """Values of an array; with the threads of a pool if it is lazy."""
    if array.chunks is None:
        return array.values
    return np.asarray(array.data.compute(scheduler="threads", **({} if pool is None else {"pool": pool})))


def _call(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    return function(*(argument.result() if isinstance(argument, Future) else argument for argument in arguments))


def _same(value: Any) -> Any:
    return value
