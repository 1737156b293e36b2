"""Plan of a sweep: blocks that fit into memory, and estimates of time and disk space from blocks that are timed."""

from __future__ import annotations

import math
import shutil
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from flyxr import store as stores
from flyxr.errors import InputError, Problem
from flyxr.simulation import BLOCK_SAMPLES, bytes_per_sample, parameters_of, state_of
from flyxr.sweeping.base import Run, dtype_of, template, write_block

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from flyxr.simulation import Prepared
    from flyxr.store.ledger import Ledger
    from flyxr.sweeping.workers import Pool

PROCESS_BYTES = 400e6
"""Memory of a process before its first block: libraries and the compiled network, bytes."""
COPIES_PER_BLOCK = 4
"""Largest number of copies of a block's responses: as computed, rounded, compressed, and as the bytes of a file."""
WORKER_MEMORY_FRACTION = 0.6
"""Fraction of a worker's memory limit that a sweep uses; above it dask starts to spill to disk and to pause."""
BLOCKS_PER_THREAD = 4
"""Number of blocks per thread to aim at, so that no thread is left alone with the last block."""
MIN_BLOCK_SAMPLES = 8
"""Number of samples below which blocks are not split for more threads, since the files would be tiny."""


class Plan(NamedTuple):
    """Plan of a sweep; as text it is a small table.

    Attributes
    ----------
    n_blocks, n_done : int
        Number of blocks of one model and ``block_samples`` samples, and how many of them are done.
    block_samples : int
        Number of samples per block.
    at_once : int
        Number of blocks that run at a time.
    n_bytes : int
        Size of the responses before compression, bytes.
    worker_bytes : int
        Memory per worker, bytes.
    seconds, disk_bytes : float
        Time, s, and disk space, bytes, for the remaining blocks, extrapolated from blocks that were timed.
    free_bytes : int
        Free space of the disk, bytes.
    """

    n_blocks: int
    n_done: int
    block_samples: int
    at_once: int
    n_bytes: int
    worker_bytes: int
    seconds: float
    disk_bytes: float
    free_bytes: int

    def __str__(self) -> str:
        return self.text()

    def text(self, command_line: bool = False) -> str:
        """Table of the plan, with a warning if the disk is too small.

        Parameters
        ----------
        command_line
            Suggest options of the command line instead of arguments in Python.
        """
        from dask.utils import format_bytes, format_time

        rows = [
            ("blocks", f"{self.n_blocks} of 1 model x {self.block_samples} samples, {self.at_once} at a time"),
            ("done", f"{self.n_done} of {self.n_blocks} blocks"),
            ("responses", f"{format_bytes(self.n_bytes)} before compression"),
            ("disk", f"about {format_bytes(int(self.disk_bytes))} to write, {format_bytes(self.free_bytes)} free"),
            ("memory", f"up to {format_bytes(self.worker_bytes)} per worker"),
            ("time", f"about {format_time(self.seconds)}, from blocks that were timed"),
        ]
        if self.disk_bytes > self.free_bytes:
            hint = "record less, or reduce the precision with {}"
            problem = Problem(
                "the disk is too small",
                hint.format("precision=10 or 'float16'"),
                hint.format("--precision 10 or float16"),
            )
            rows.append(("WARNING", problem.line(command_line=command_line)))
        return "\n".join(f"{name:<10} {text}" for name, text in rows)


def choose_blocks(
    prepared: Prepared,
    memory: float,
    pool: Pool,
    *,
    stored_samples: int | None = None,
    max_samples: int | None = None,
) -> tuple[int, int]:
    """Number of samples per block, and number of blocks that run at once.

    Parameters
    ----------
    prepared
        The simulation.
    memory
        Memory of a worker, bytes.
    pool
        The workers.
    stored_samples
        Number of samples per block of an existing store, which stays.
    max_samples
        Largest number of samples per block.

    Raises
    ------
    ValueError
        If not even one block fits.
    """
    from dask.utils import format_bytes

    sample_bytes, block_memory = bytes_per_sample(prepared, COPIES_PER_BLOCK), memory - PROCESS_BYTES
    needed = sample_bytes * (stored_samples or 1)
    if needed > block_memory:
        unit = f"a block of {stored_samples} samples, as in the store," if (stored_samples or 1) > 1 else "one sample"
        hint = "record fewer cell types, columns or frames, or cut the stimulus"
        raise InputError(
            Problem(
                f"expected a memory limit of at least {format_bytes(int(PROCESS_BYTES + needed))}, since {unit} needs "
                f"{format_bytes(needed)} and the process {format_bytes(int(PROCESS_BYTES))}, got "
                f"{format_bytes(int(memory))} per worker",
                f"raise memory_limit, {hint}",
                f"raise --memory-limit, {hint}",
            )
        )
    is_on_cpu = prepared.block.device == "cpu"
    threads = min(pool.threads_per_worker, max(1, int(block_memory // needed))) if is_on_cpu else 1
    if stored_samples is not None:
        return stored_samples, threads * pool.n_workers
    largest = max(1, min(max_samples or BLOCK_SAMPLES, int(block_memory / threads // sample_bytes)))
    n_samples = prepared.luminance.sizes["sample"]
    even = math.ceil(n_samples * len(prepared.model_names) / (BLOCKS_PER_THREAD * threads * pool.n_workers))
    block_samples = int(min(largest, max(MIN_BLOCK_SAMPLES, even)))
    chunk = max(prepared.luminance.chunks[0]) if prepared.luminance.chunks is not None else 1
    if chunk < block_samples:  # whole chunks, so that none is computed twice
        block_samples -= block_samples % chunk
    # Blocks of equal size: what a block lacks is stored as fill values, and takes time to read.
    equal = math.ceil(n_samples / math.ceil(n_samples / block_samples))
    if chunk < equal < n_samples:
        equal += -equal % chunk
    block_samples = min(block_samples, max(MIN_BLOCK_SAMPLES, equal))
    return block_samples, threads * pool.n_workers


def make_plan(run: Run, ledger: Ledger | None, at_once: int, pool: Pool) -> Plan:
    """Plan a run; as many blocks as run at once are timed and written to a temporary folder."""
    n_left = run.n_blocks if ledger is None else sum(1 for _ in ledger.missing_blocks(run.block_samples))
    seconds, n_bytes = _time_blocks(run, min(at_once, n_left), pool) if n_left else (0.0, 0.0)
    folder = run.path if run.path.is_dir() else stores.nearest_folder(run.path)
    n_models, n_samples = len(run.inputs["models"]), int(run.inputs["n_samples"])
    n_values = n_models * n_samples * math.prod(run.prepared.recorded_shape)
    block_samples = min(run.block_samples, n_samples)
    block_bytes = block_samples * bytes_per_sample(run.prepared, COPIES_PER_BLOCK)
    return Plan(
        n_blocks=run.n_blocks,
        n_done=run.n_blocks - n_left,
        block_samples=block_samples,
        at_once=at_once,
        n_bytes=n_values * dtype_of(run.inputs["precision"]).itemsize,
        worker_bytes=int(PROCESS_BYTES + at_once // pool.n_workers * block_bytes),
        seconds=n_left * seconds,
        disk_bytes=n_left * n_bytes,
        free_bytes=shutil.disk_usage(folder).free,
    )


def _time_blocks(run: Run, n_blocks: int, pool: Pool) -> tuple[float, float]:
    """Seconds and bytes on disk per block, from the first blocks of some models at once.

    The temporary folder is next to the store, so that workers write to the same disk.
    """
    n_samples = min(run.block_samples, run.inputs["n_samples"])
    stimulus, block = pool.load(run.prepared.luminance[:n_samples]), pool.share(run.prepared.block)
    precision, device = run.inputs["precision"], run.prepared.block.device

    def submit_blocks(path: Path, n_blocks: int, n_samples: int) -> Iterator[Any]:
        samples = slice(0, n_samples)
        for number in range(n_blocks):
            model = number % len(run.inputs["models"])
            parameters, state = parameters_of(run.prepared, model), state_of(run.prepared, model, samples)
            name, n_frames = run.prepared.model_names[model], run.n_frames(samples)
            state = None if state is None else np.asarray(state)
            arguments = (block, parameters, stimulus, samples, state, name, n_frames, (number, 0), precision)
            yield pool.submit(write_block, str(path), *arguments, device=device)

    with stores.scratch_directory(run.path) as folder:
        path = folder / "store"
        content = template(run, n_blocks, n_samples)
        stores.write_template(content, path, run.block_samples, **run.layout)
        for future in pool.completed(submit_blocks(path, 1, 1), 1):  # compile before timing
            future.result()
        started = time.perf_counter()
        entries = [future.result() for future in pool.completed(submit_blocks(path, n_blocks, n_samples), n_blocks)]
    pool.stop()
    seconds = time.perf_counter() - started
    return seconds / n_blocks, float(np.mean([entry["shard"].n_bytes for entry in entries]))
