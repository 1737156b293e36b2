"""Long runs: planned, streamed to zarr block after block, and taken up again where they stopped."""

from __future__ import annotations

import json
import math
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr

from flyxr import identity, workers
from flyxr import store as stores
from flyxr.errors import ExistsError, FlyxrError, InputError, Problem, UnwritableError
from flyxr.simulation import Record, prepare
from flyxr.store import labels, ledger
from flyxr.sweep import plan as plans
from flyxr.sweep import stream
from flyxr.sweep.base import (
    REPLACE,
    LabelMismatchError,
    Run,
    SweepError,
    SweepMismatchError,
    check_precision,
    check_same,
    inputs_of,
    label_differences,
    raise_labels,
)
from flyxr.sweep.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from flyxr.store.ledger import Ledger

    Team = workers.Threads | workers.Cluster

__all__ = ["LabelMismatchError", "Plan", "SweepError", "SweepMismatchError", "sweep", "sweep_status"]

_LOCK = ledger.PLACE.with_suffix(".lock")


def sweep(
    rendering: xr.Dataset | xr.DataArray,
    ensemble: xr.Dataset,
    store: str | Path,
    *,
    record: Record | str | Iterable[str] | Mapping[str, Any] = "all",
    initial_state: Literal["fade_in", "steady_state", "rest"] | xr.Dataset | xr.DataArray = "fade_in",
    connectome: xr.Dataset | None = None,
    engine: str = "auto",
    device: str = "auto",
    client: Any = None,
    memory_limit: str | float = "2 GB",
    precision: str | int = "float32",
    plan_only: bool = False,
    verify: bool = False,
    relabel: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> xr.Dataset | Plan:
    """Simulate models × samples into a store, block after block, and go on where an earlier call stopped.

    The same call again finishes what was interrupted, or opens what is finished. With more models or samples after
    those of before, only the new ones are computed. Memory is bounded by blocks; a lazy rendering streams through.
    Labels, the coordinates of samples and models among them, are part of what a sweep is: other ones are refused unless
    ``relabel`` says that they replace those of the store.

    Parameters
    ----------
    rendering, ensemble, record, initial_state, connectome, engine, device
        As in :func:`flyxr.simulate`. ``engine`` and ``device`` may differ from those of an earlier call.
    store
        Path of the zarr store; with a client on a file system that its workers see too.
    client
        A ``dask.distributed.Client``, whose workers compute and write; without it the threads of this process.
    memory_limit
        Memory of a worker, or of this process, in bytes or as text such as ``"2 GB"``; blocks are chosen to fit.
    precision
        ``"float32"``; ``"float16"``; or a number of bits of the mantissa, from 1 to 22, to which float32 is rounded, so
        that it compresses well: 10 keeps a relative error of 2^-11. The largest error that it made is stated in
        ``response.attrs``.
    plan_only
        Only say what would be done, with a time estimate from blocks that are timed; nothing is kept on disk. The
        folder of the store need not exist.
    verify
        Read all files that are there and compare their checksums. Without it only those are read which were touched
        since they were written. Files that are corrupted are computed anew.
    relabel
        Write the coordinates and attributes of this call in place of those of the store. Nothing is computed anew.
    overwrite
        Replace the store that is there.
    progress
        Show a progress bar, after a second.

    Returns
    -------
    Dataset
        The responses as :func:`flyxr.open` gives them; a :class:`Plan` with ``plan_only``.

    Raises
    ------
    SweepMismatchError
        A ValueError. If the store is of another stimulus, other parameters, connectome, step, initial state, record or
        precision; each difference is named, and nothing is touched.
    LabelMismatchError
        A SweepMismatchError. If the store has other labels; each difference is named, and nothing is touched.
    SweepError
        If another sweep writes to the store, or the scheduler or all that it knows is lost. What is done is kept.
    ValueError
        If one sample does not fit the memory limit, the client is closed, or an argument is none of those above.
    OSError
        If the disk is full or the store cannot be written. What is done is kept.
    DivergedError
        If responses grow without bound; all other models are computed before it is raised.
    FileExistsError
        If something else lies at the path.

    Examples
    --------
    >>> import flyxr as fx, tempfile
    >>> movie = fx.stimuli.moving_digits(n_samples=2, frame_rate=50, seed=0)
    >>> rendering, ensemble = fx.BoxEye().render(movie), fx.sample_ensemble(n_models=2, seed=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     plan = fx.sweep(rendering, ensemble, folder + "/responses.zarr", record="central", plan_only=True)
    ...     responses = fx.sweep(rendering, ensemble, folder + "/responses.zarr", record="central").load()
    >>> plan.n_blocks, dict(responses.response.sizes)
    (2, {'model': 2, 'sample': 2, 'time': 20, 'cell_type': 65, 'column': 1})
    """
    path = Path(store).absolute()
    record = Record.take(record)  # once, since it may be an iterator
    check_precision(precision)
    limit = _memory(memory_limit)
    team: Team = workers.Threads() if client is None else workers.Cluster(client)
    options: dict[str, Any] = {"initial_state": initial_state, "record": record, "connectome": connectome}
    options |= {"engine": engine, "device": device}
    prepared = prepare(rendering, ensemble, **options, stacklevel=3)
    inputs = inputs_of(prepared, precision)
    found = _find(path, overwrite)
    if found is not None:
        check_same(found, inputs, path)
    limit = min(limit, plans.OF_A_WORKER * team.memory)
    size, at_once = plans.choose_blocks(prepared, limit, team, None if found is None else found.inputs["block_samples"])
    inputs["block_samples"] = size
    run = Run(prepared, path, inputs, labels.encode(prepared.labels), progress)
    if found is not None:
        _check_content(run, found, relabel)
    if plan_only:
        if found is not None:
            found.grow(inputs)
        return plans.make(run, found, at_once, team)
    if found is not None and _is_finished(found, run) and not stream.broken(path, found, verify=verify):
        return stores.open_store(path)
    if found is None:
        stores.check_target(path, overwrite=overwrite)
        try:
            _create(run, overwrite)
        except ExistsError:  # another process has made it meanwhile: with that one, and the blocks that it chose
            options |= {"client": client, "memory_limit": memory_limit, "precision": precision, "progress": progress}
            return sweep(rendering, ensemble, store, **options, verify=verify, relabel=relabel)
    else:
        _check_writable(path)
    with _exclusive_lock(path):
        try:
            stream.write_missing(run, team, at_once, verify=verify, relabel=relabel)
        except OSError as error:
            found = ledger.read(path)
            if isinstance(error, FlyxrError) or found is None or not error.errno:
                raise
            raise stream.stopped(error, path, found) from error
    return stores.open_store(path)


def _is_finished(found: Ledger, run: Run) -> bool:
    """Whether the store is all that the call asks for, in its ledger and in its zarr files."""
    is_same = found.inputs == run.inputs and not label_differences(run, found)
    return is_same and found.is_complete and not found.lose(stores.sizes_and_times(run.path, found.files))


def sweep_status(store: str | Path) -> xr.Dataset:
    """What is done of a sweep, what is missing, and what it took.

    Parameters
    ----------
    store
        Path of a store that :func:`sweep` made, or is making.

    Returns
    -------
    Dataset
        ``done`` (model, sample), bool, and ``seconds`` (model, sample), s, what computing and writing took, NaN where
        it is not done or its file is missing. Attributes: ``complete``; ``n_done`` and ``n_all`` responses of a model
        to a sample; ``n_missing_files``, that were written and are not there or have another size; ``bytes_on_disk``;
        ``seconds``, of all blocks together; ``runs``, who wrote, when, and with which engine, device and versions, as
        JSON; and ``inputs``, what the store is of, as JSON.

    Raises
    ------
    FileNotFoundError
        If there is nothing at the path.
    StoreError
        If no sweep made what is there.

    Examples
    --------
    >>> import flyxr as fx, tempfile
    >>> rendering = fx.BoxEye().render(fx.stimuli.moving_digits(n_samples=2, frame_rate=50, seed=0))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = fx.sweep(rendering, fx.sample_ensemble(1, seed=0), folder + "/r.zarr", record="central")
    ...     status = fx.sweep_status(folder + "/r.zarr")
    >>> status.attrs["complete"], status.done.values.tolist()
    (True, [[True, True]])
    """
    path = Path(store)
    if not path.exists():
        raise stores.missing(path, "one that fx.sweep or `flyxr simulate` made")
    found = ledger.read(path)
    if found is None:
        raise stores.StoreError(Problem(f"{path} was made by no sweep", "see fx.open(path)", "see `flyxr info`"))
    missing = found.lose(stores.sizes_and_times(path, found.files))
    known = stores.labels_of(path, found)
    return xr.Dataset(
        {"done": (("model", "sample"), found.done), "seconds": (("model", "sample"), found.seconds, {"units": "s"})},
        {name: coord for name, coord in known.coords.items() if coord.dims in (("model",), ("sample",))},
        {
            "complete": found.is_complete,
            "n_missing_files": len(missing),
            "n_done": int(found.done.sum()),
            "n_all": found.done.size,
            "bytes_on_disk": sum(shard.n_bytes for shard in found.shards.values()),
            "seconds": float(np.nansum(found.seconds)),
            "runs": json.dumps(found.runs),
            "inputs": json.dumps(found.inputs),
        },
    )


def _memory(memory_limit: str | float) -> float:
    from dask.utils import parse_bytes

    try:
        limit = float(parse_bytes(memory_limit))
    except (ValueError, TypeError, AttributeError):
        limit = math.nan
    if not limit > 0:
        raise InputError(f"expected memory_limit in bytes or as text such as '2 GB', got {memory_limit!r}")
    return limit


def _find(path: Path, overwrite: bool) -> Ledger | None:
    """Ledger of the sweep at the path; None where there is nothing, or it is to be replaced."""
    if not (path.exists() or path.is_symlink()):
        return None
    if overwrite:
        stores.check_target(path, overwrite=True)
        return None
    found = ledger.read(path)
    if found is None:
        way = "choose another path, or, if it is a store,"
        raise ExistsError(
            Problem(
                f"{path} exists and no sweep made it",
                f"{way} pass overwrite=True to replace it",
                f"{way} add --overwrite to replace it",
            )
        )
    return found


def _check_content(run: Run, found: Ledger, relabel: bool) -> None:
    """Compare the samples that were used, by content, and the labels with those given."""
    from tqdm import tqdm

    firsts = dict.fromkeys(sample // run.block_samples * run.block_samples for sample in sorted(found.hashes))
    changed: list[int] = []
    for first in tqdm(firsts, desc="compare the stimulus", delay=1, disable=not run.progress, leave=False):
        samples = slice(first, first + run.block_samples)
        hashes = identity.sample_hashes(workers.load(run.prepared.luminance[samples]), run.n_frames(samples))
        changed += [sample for sample, given in enumerate(hashes, first) if found.hashes.get(sample, given) != given]
    differences = [] if relabel else label_differences(run, found)
    if changed:
        raise SweepMismatchError(
            f"stimulus: the luminance of {len(changed)} samples differs, first at position {changed[0]}",
            *differences,
            REPLACE,
            heading=f"{run.path} is of another sweep",
        )
    raise_labels(run.path, differences)


def _check_writable(path: Path) -> None:
    try:
        with (path / _LOCK).open("ab"):
            pass
    except OSError as error:
        text = f"{path}: {error.strerror}: make it writable, or copy it, as it is unfinished or to be extended"
        raise UnwritableError(text, code=error.errno) from error


@contextmanager
def _exclusive_lock(path: Path) -> Iterator[None]:
    """Hold the store for this process; the system lets go of it when the process ends, however it does."""
    import filelock

    lock = filelock.FileLock(path / _LOCK)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        found = ledger.read(path)
        last = found.runs[-1] if found is not None and found.runs else {}
        who = "process {pid} on {host}, since {started}".format_map({"pid": "?", "host": "?", "started": "?"} | last)
        raise SweepError(f"another sweep writes to {path} ({who}): wait for it, or stop it") from None
    try:
        yield
    finally:
        lock.release()


def _create(run: Run, overwrite: bool) -> None:
    """Make the store with all its labels and no responses; it appears at its path at once."""
    replaced = overwrite and (run.path / ledger.PLACE).exists()
    # Nobody may be writing to what is replaced.
    with _exclusive_lock(run.path) if replaced else nullcontext():
        with stores.atomic_directory(run.path, replace=overwrite) as aside:
            stream.write_new(aside, run)
