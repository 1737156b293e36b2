"""Worker pools that compute the blocks of a sweep: threads of this process, or workers of a dask.distributed cluster.

Both pools submit functions whose arguments may be futures, and yield futures as they complete.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any

import numpy as np

from flyxr.engine import base
from flyxr.errors import FlyxrError, InputError, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    import xarray as xr

PATIENCE = 5.0
"""Time without a result after which a pool checks that the scheduler is still connected, s."""


class LostError(FlyxrError, RuntimeError):
    """The cluster is lost."""


class Pool(ABC):
    """Workers with a bounded stream of tasks; the subclasses define who computes.

    ``n_workers`` processes of ``threads_per_worker`` threads, each with ``memory`` bytes.
    """

    n_workers = 1
    threads_per_worker = 1
    memory = math.inf

    def __init__(self) -> None:
        self._running: set[Any] = set()

    @abstractmethod
    def share(self, value: Any) -> Any:
        """Value, or its future, that many tasks take as an argument."""

    @abstractmethod
    def load(self, array: xr.DataArray) -> Any:
        """Future of the values of an array."""

    @abstractmethod
    def submit(self, function: Callable[..., Any], *arguments: Any, device: str = "cpu") -> Any:
        """Future of a call."""

    def completed(self, futures: Iterator[Any], limit: int) -> Iterator[Any]:
        """Futures in the order of completion; takes the next one while fewer than ``limit`` are running."""
        for future in futures:
            self._running.add(future)
            if len(self._running) >= limit:
                yield from self._next_completed()
        while self._running:
            yield from self._next_completed()

    def _next_completed(self) -> Iterator[Any]:
        for future in self._wait():
            self._running.discard(future)
            yield future

    @abstractmethod
    def _wait(self) -> Collection[Any]:
        """Wait for at least one running future."""

    @abstractmethod
    def stop(self) -> list[Any]:
        """Start no more tasks, and return the results of tasks that succeeded but were not yielded."""

    def cause(self, error: BaseException) -> BaseException:
        """Error to report for one that was raised while tasks were submitted, awaited or fetched."""
        return error


class ThreadPool(Pool):
    """Threads of this process, one per core by default."""

    def __init__(self, n_threads: int | None = None) -> None:
        super().__init__()
        self.threads_per_worker = n_threads or base.n_threads()
        self._blocks = ThreadPoolExecutor(self.threads_per_worker, thread_name_prefix="flyxr-block")
        # One thread loads stimuli ahead of the blocks that need them, with a pool for the chunks of lazy ones.
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="flyxr-stimulus")
        self._chunks = ThreadPoolExecutor(self.threads_per_worker, thread_name_prefix="flyxr-chunk")

    def __str__(self) -> str:
        return f"{self.threads_per_worker} threads"

    def share(self, value: Any) -> Any:
        """Value that many tasks take as an argument."""
        return value

    def load(self, array: xr.DataArray) -> Future[Any]:
        """Future of the values of an array."""
        return self._loader.submit(load, array, pool=self._chunks)

    def submit(self, function: Callable[..., Any], *arguments: Any, device: str = "cpu") -> Future[Any]:
        """Future of a call."""
        return self._blocks.submit(_call, function, arguments)

    def _wait(self) -> Collection[Future[Any]]:
        return wait(self._running, return_when=FIRST_COMPLETED).done

    def stop(self) -> list[Any]:
        """Cancel what has not started and wait for what is running; return the results of what succeeded."""
        for executor in (self._loader, self._blocks, self._chunks):
            executor.shutdown(cancel_futures=True)
        return [future.result() for future in self._running if not future.cancelled() and future.exception() is None]


class ClusterPool(Pool):
    """Workers of a ``dask.distributed.Client``.

    Parameters
    ----------
    client
        A connected client.
    patience
        Time without a result after which the connection to the scheduler is checked, s.

    Raises
    ------
    ValueError
        If ``client`` is not a client, is closed, or has no workers.
    """

    # ``Client.get_executor`` would lose behaviour: tasks cannot take its futures (steady states) as arguments, and it
    # reads the status of a future after fetching the result, so losing a worker in between raises a ValueError.

    def __init__(self, client: Any, *, patience: float = PATIENCE) -> None:
        import distributed

        super().__init__()
        if not isinstance(client, distributed.Client) or client.asynchronous:
            raise InputError(f"expected a synchronous dask.distributed.Client, got {client!r}")
        if client.status != "running":
            raise InputError(
                Problem(f"expected a connected client, got one that is {client.status}", "create a new Client")
            )
        threads = client.nthreads()
        self.address = str(client.scheduler_info()["address"])
        if not threads:
            hint = f"start some with `dask worker {self.address}`, or wait for them"
            raise InputError(
                Problem(
                    f"expected workers, got none at {self.address}", f"{hint} with client.wait_for_workers(1)", hint
                )
            )
        self.client, self.patience = client, patience
        self.n_workers, self.threads_per_worker = len(threads), max(threads.values())
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        self.memory = min((worker["memory_limit"] or math.inf for worker in workers), default=math.inf)
        self._has_gpus = any("GPU" in worker["resources"] for worker in workers)

    def __str__(self) -> str:
        return f"{self.n_workers} workers of {self.threads_per_worker} threads at {self.address}"

    def share(self, value: Any) -> Any:
        """Future of a value that many tasks take; sent to a worker once, and again if that worker is lost."""
        return self.client.submit(_identity, value, pure=False)

    def load(self, array: xr.DataArray) -> Any:
        """Future of the values of an array; the workers compute a lazy one."""
        return self.share(array.values) if array.chunks is None else self.client.compute(array.data)

    def submit(self, function: Callable[..., Any], *arguments: Any, device: str = "cpu") -> Any:
        """Future of a call; one at a time per GPU if the workers declare the resource ``GPU``."""
        resources = {"GPU": 1} if device != "cpu" and self._has_gpus else None
        return self.client.submit(function, *arguments, pure=False, resources=resources)

    def completed(self, futures: Iterator[Any], limit: int) -> Iterator[Any]:
        """Futures in the order of completion; ``limit`` more are queued, so that no worker waits for its next task."""
        return super().completed(futures, 2 * limit)

    def _wait(self) -> Collection[Any]:
        import distributed

        while True:
            try:
                with self.client.as_current():  # otherwise distributed.wait takes the default client
                    done: set[Any] = distributed.wait(
                        self._running, timeout=self.patience, return_when="FIRST_COMPLETED"
                    ).done
                break
            except TimeoutError:
                if self.client.status != "running":
                    raise LostError(f"the scheduler at {self.address} is lost") from None
        if any(future.cancelled() for future in done):
            raise CancelledError
        return done

    def stop(self) -> list[Any]:
        """Cancel all tasks without waiting for those that are running; return the results of what succeeded."""
        from distributed.comm.core import CommClosedError

        if self.client.status != "running":
            return []
        finished = [future for future in self._running if future.status == "finished"]
        try:
            self.client.cancel(list(self._running.difference(finished)))
            return list(self.client.gather(finished, errors="skip"))
        except (CommClosedError, CancelledError, TimeoutError):  # lost since the status was read
            return []

    def cause(self, error: BaseException) -> BaseException:
        """Error to report: in any call, a closed connection or a cancelled task means that the scheduler is lost."""
        from distributed.comm.core import CommClosedError

        if isinstance(error, CommClosedError):
            return LostError(f"the scheduler at {self.address} is lost")
        if isinstance(error, CancelledError):
            return LostError(f"the scheduler at {self.address} is lost, or cancelled the work")
        return error


def load(array: xr.DataArray, pool: Any = None) -> Any:
    """Values of an array; a lazy one is computed with the threads of ``pool``."""
    if array.chunks is None:
        return array.values
    return np.asarray(array.data.compute(scheduler="threads", **({} if pool is None else {"pool": pool})))


def _call(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    return function(*(argument.result() if isinstance(argument, Future) else argument for argument in arguments))


def _identity(value: Any) -> Any:
    return value
