"""What a sweep is going to take: blocks that fit the memory, and time and bytes from some that are timed."""

from __future__ import annotations

import math
import shutil
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from flyxr import store as stores
from flyxr.errors import InputError, Problem
from flyxr.simulation import BLOCK_SAMPLES, bytes_per_sample, parameters_of, state_of
from flyxr.sweep.base import Run, dtype_of, template, write_block

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from flyxr.simulation import Prepared
    from flyxr.store.ledger import Ledger
    from flyxr.workers import Cluster, Threads

BASE_BYTES = 400e6
"""Memory of a process before its first block: libraries and the compiled network, byte."""
COPIES = 4
"""Copies of a block's responses at most: as computed, rounded, compressed, and as the bytes of a file."""
OF_A_WORKER = 0.6
"""Part of a worker's memory limit that is planned with; with more, dask would begin to write to disk and to pause."""
_BLOCKS_OF_A_THREAD, _FEWEST = 4, 8


class Plan(NamedTuple):
    """What a sweep is going to do; as text it is a small table.

    ``n_blocks`` in all and ``n_done`` of them, each of one model and ``block_samples`` samples; ``at_once`` are under
    way at a time; ``n_bytes`` of responses before compression; ``worker_bytes``, memory of a worker; ``seconds`` and
    ``disk_bytes`` of the blocks that are left, from blocks that were timed; ``free_bytes`` of the disk.
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
        """Table of what the sweep is going to take, with a warning if the disk is too small.

        Parameters
        ----------
        command_line
            Name the ways out as options of the command line, not as arguments in Python.
        """
        rows = [
            ("blocks", f"{self.n_blocks} of 1 model x {self.block_samples} samples, {self.at_once} at a time"),
            ("done", f"{self.n_done} of {self.n_blocks} blocks"),
            ("responses", f"{size_text(self.n_bytes)} before compression"),
            ("disk", f"about {size_text(self.disk_bytes)} to write, {size_text(self.free_bytes)} free"),
            ("memory", f"up to {size_text(self.worker_bytes)} a worker"),
            ("time", f"about {time_text(self.seconds)}, from blocks that were timed"),
        ]
        if self.disk_bytes > self.free_bytes:
            way = "record less, or store less with {}"
            small = Problem(
                "the disk is too small",
                way.format("precision=10 or 'float16'"),
                way.format("--precision 10 or float16"),
            )
            rows.append(("WARNING", small.line(command_line=command_line)))
        return "\n".join(f"{name:<10} {text}" for name, text in rows)


def choose_blocks(prepared: Prepared, limit: float, team: Threads | Cluster, size: int | None) -> tuple[int, int]:
    """Samples of a block, unless the store has chosen, and blocks under way at once, from a worker's memory in bytes.

    Raises
    ------
    ValueError
        If not even one block fits.
    """
    one, budget = bytes_per_sample(prepared, COPIES), limit - BASE_BYTES
    needed = one * (size or 1)
    if needed > budget:
        what = f"a block of {size} samples, as the store has it," if size and size > 1 else "one sample"
        way = "record fewer cell types, columns or frames, or cut the stimulus"
        raise InputError(
            Problem(
                f"expected a memory limit of at least {size_text(BASE_BYTES + needed)}, as {what} needs "
                f"{size_text(needed)} beside {size_text(BASE_BYTES)} for the process, got {size_text(limit)} a worker",
                f"raise memory_limit, {way}",
                f"raise --memory-limit, {way}",
            )
        )
    threads = 1 if prepared.block.device != "cpu" else min(team.threads_per_worker, max(1, int(budget // needed)))
    if size is None:
        most = max(1, min(BLOCK_SAMPLES, int(budget / threads // one)))
        # Some blocks for each thread, so that none is left alone with the last one, but no tiny files.
        n_responses = prepared.luminance.sizes["sample"] * len(prepared.model_names)
        size = min(most, max(_FEWEST, math.ceil(n_responses / (_BLOCKS_OF_A_THREAD * threads * team.n_workers))))
        chunk = max(prepared.luminance.chunks[0]) if prepared.luminance.chunks is not None else 1
        if chunk < size:  # whole chunks, so that none is made twice
            size -= size % chunk
    return size, threads * team.n_workers


def make(run: Run, found: Ledger | None, at_once: int, team: Threads | Cluster) -> Plan:
    """Plan of a run, with as many blocks computed and written to a temporary folder as would be under way at once."""
    n_left = run.n_blocks if found is None else sum(1 for _ in found.missing(run.block_samples))
    seconds, n_bytes = _timed(run, min(at_once, n_left), team) if n_left else (0.0, 0.0)
    folder = run.path if run.path.is_dir() else stores.nearest_folder(run.path)
    prepared, size = run.prepared, min(run.block_samples, int(run.inputs["n_samples"]))
    per_worker = at_once // team.n_workers
    return Plan(
        n_blocks=run.n_blocks,
        n_done=run.n_blocks - n_left,
        block_samples=size,
        at_once=at_once,
        n_bytes=len(run.inputs["models"])
        * run.inputs["n_samples"]
        * math.prod(prepared.recorded_shape)
        * dtype_of(run.inputs["precision"]).itemsize,
        worker_bytes=int(BASE_BYTES + per_worker * size * bytes_per_sample(prepared, COPIES)),
        seconds=n_left * seconds,
        disk_bytes=n_left * n_bytes,
        free_bytes=shutil.disk_usage(folder).free,
    )


def _timed(run: Run, n_blocks: int, team: Threads | Cluster) -> tuple[float, float]:
    """Seconds and bytes on disk of a block, from the first block of some models at once.

    Workers write to a folder beside the store, that is to the disk that the sweep would write to.
    """
    n_samples = min(run.block_samples, run.inputs["n_samples"])
    stimulus, block = team.load(run.prepared.luminance[:n_samples]), team.share(run.prepared.block)
    precision, device = run.inputs["precision"], run.prepared.block.device

    def calls(path: Path, n_blocks: int, n_samples: int) -> Iterator[Any]:
        samples = slice(0, n_samples)
        for number in range(n_blocks):
            model = number % len(run.inputs["models"])
            parameters, state = parameters_of(run.prepared, model), state_of(run.prepared, model, samples)
            name, n_frames = run.prepared.model_names[model], run.n_frames(samples)
            state = None if state is None else np.asarray(state)
            what = (block, parameters, stimulus, samples, state, name, n_frames, (number, 0), precision)
            yield team.submit(write_block, str(path), *what, device=device)

    with stores.scratch_directory(run.path) as folder:
        stores.write_template(template(run, n_blocks, n_samples), folder / "store", run.block_samples)
        for future in team.stream(calls(folder / "store", 1, 1), 1):  # compiles what there is to compile
            future.result()
        started = time.perf_counter()
        lines = [future.result() for future in team.stream(calls(folder / "store", n_blocks, n_samples), n_blocks)]
    team.stop()
    return (time.perf_counter() - started) / n_blocks, float(np.mean([line["shard"].n_bytes for line in lines]))


def size_text(n_bytes: float) -> str:
    """Bytes for people.

    Examples
    --------
    >>> size_text(1_234_567)
    '1.23 MB'
    """
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.3g} TB"


def time_text(seconds: float) -> str:
    """Seconds for people.

    Examples
    --------
    >>> time_text(4000)
    '1 h 7 min'
    """
    if seconds < 100:
        return f"{seconds:.2g} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
