"""Long runs: planned, streamed to zarr block by block, and resumable."""

from __future__ import annotations

import json
import math
import tempfile
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import xarray as xr

from flyxr import identity
from flyxr import store as stores
from flyxr.arguments import Arguments, as_float, shorten
from flyxr.errors import ExistsError, FlyxrError, Problem, UnwritableError
from flyxr.progress import progress_bar
from flyxr.simulation import Record, prepare
from flyxr.store import labels, places
from flyxr.store.ledger import LEDGER_FILE, read_ledger
from flyxr.sweeping import lease, stream
from flyxr.sweeping.base import (
    REPLACE_HINT,
    LabelMismatchError,
    Run,
    SweepError,
    SweepMismatchError,
    check_inputs,
    check_labels,
    label_differences,
    parse_precision,
    sweep_inputs,
)
from flyxr.sweeping.plan import WORKER_MEMORY_FRACTION, Plan, choose_blocks, make_plan
from flyxr.sweeping.workers import ClusterPool, ThreadPool, load

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from flyxr.store.ledger import Ledger
    from flyxr.sweeping.workers import Pool

__all__ = ["LabelMismatchError", "Plan", "SweepError", "SweepMismatchError", "sweep", "sweep_status"]

_LOCK_FILE = LEDGER_FILE.with_suffix(".lock")


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
    block_samples: int | None = None,
    precision: str | int = "float32",
    plan_only: bool = False,
    verify: bool = False,
    relabel: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    storage_options: Mapping[str, Any] | None = None,
) -> xr.Dataset | Plan:
    """Simulate models × samples into a store, block by block, and resume where an earlier call left off.

    Repeating a call resumes an interrupted sweep, or opens a finished one. If models or samples are appended, only the
    new ones are computed. Blocks bound the memory; a lazy rendering is streamed. Labels, such as the coordinates of
    samples and models, must match those of the store, unless ``relabel`` replaces them.

    Parameters
    ----------
    rendering, ensemble, record, initial_state, connectome, engine, device
        As in :func:`flyxr.simulate`. ``engine`` and ``device`` may differ from those of an earlier call.
    store
        Path of the zarr store; with a client, on a file system that its workers share. Or a URL of object storage
        (``s3://``, ``gs://``, ``abfs://``), to which the workers write themselves.
    client
        A ``dask.distributed.Client``, whose workers compute and write; by default the threads of this process.
    memory_limit
        Memory of a worker, or of this process, in bytes or as text such as ``"2 GB"``; blocks are chosen to fit.
    block_samples
        Largest number of samples per block, and so per file; by default 64. Smaller blocks lose less when a process
        dies. An existing store keeps its block size.
    precision
        ``"float32"``, ``"float16"``, or a number of mantissa bits from 1 to 22. Float32 is rounded to that many bits
        and compresses better; 10 bits have a relative error of up to 2^-11. ``response.attrs`` states the largest
        error.
    plan_only
        Return a plan, with a time estimate from blocks that are timed. Nothing is kept on disk, and the folder of the
        store need not exist.
    verify
        Compare the digests of all files, not only of those that were modified since they were written. Corrupted files
        are recomputed.
    relabel
        Replace the coordinates and attributes of the store with those of this call, without recomputing.
    overwrite
        Replace an existing store.
    progress
        Show a progress bar, after a second.
    storage_options
        Options of the fsspec file system of a URL. They are sent to the workers and are not stored.

    Returns
    -------
    Dataset
        The responses, as from :func:`flyxr.open`, without the dims that were selected away from rendering and ensemble;
        the store has all dims. With ``plan_only`` a :class:`Plan`.

    Raises
    ------
    SweepMismatchError
        A ValueError. If the store has another stimulus, connectome, step, initial state, record or precision, or other
        parameters. The message names each difference, and the store is not changed.
    LabelMismatchError
        A SweepMismatchError. If the store has other labels. The message names each difference, and the store is not
        changed.
    SweepError
        If another sweep is writing to the store, or the scheduler is lost. Finished blocks are kept.
    ValueError
        If one sample does not fit the memory limit, the client is closed, or an argument is invalid.
    OSError
        If the disk is full or the store cannot be written. Finished blocks are kept.
    DivergedError
        If responses grow without bound; raised after all other models are computed.
    FileExistsError
        If the path exists and is not a sweep.

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
    path = _find(store, storage_options)
    places.check_writable(path)
    record = Record.take(record)  # once, since it may be an iterator
    arguments = Arguments()
    precision = parse_precision(precision, arguments)
    memory = _parse_memory(memory_limit, arguments)
    if block_samples is not None:
        block_samples = arguments.integer("block_samples", block_samples, least=1)
    arguments.raise_problems()
    pool: Pool = ThreadPool() if client is None else ClusterPool(client)
    options: dict[str, Any] = {"initial_state": initial_state, "record": record, "connectome": connectome}
    options |= {"engine": engine, "device": device}
    prepared = prepare(rendering, ensemble, **options, stacklevel=3)
    inputs = sweep_inputs(prepared, precision)
    ledger = _existing_ledger(path, overwrite)
    if ledger is not None:
        check_inputs(ledger, inputs, path)
    inputs["block_samples"], at_once = choose_blocks(
        prepared,
        min(memory, WORKER_MEMORY_FRACTION * pool.memory),
        pool,
        stored_samples=None if ledger is None else ledger.inputs["block_samples"],
        max_samples=block_samples,
    )
    run = Run(prepared, path, inputs, labels.encode(prepared.labels), progress)
    if ledger is None:
        run = run.state_layout()
    else:
        if "chunk_types" in ledger.inputs:
            inputs["chunk_types"] = ledger.inputs["chunk_types"]
        _check_content(run, ledger, relabel)
    if plan_only:
        if ledger is not None:
            ledger.extend(inputs)
        return make_plan(run, ledger, at_once, pool)
    if ledger is not None and _is_finished(ledger, run) and not stream.damaged_shards(path, ledger, verify=verify):
        return prepared.squeeze(stores.open(path))
    if ledger is None:
        stores.check_target(path, overwrite=overwrite)
        try:
            _create(run, overwrite)
        except ExistsError:  # another process was faster: continue with that store and its block size
            options |= {"client": client, "memory_limit": memory_limit, "precision": precision, "progress": progress}
            return sweep(rendering, ensemble, path, **options, verify=verify, relabel=relabel)
    else:
        _check_writable(path)
    with _exclusive_lock(path):
        try:
            stream.write_missing(run, pool, at_once, verify=verify, relabel=relabel)
        except OSError as error:
            ledger = read_ledger(path)
            if isinstance(error, FlyxrError) or ledger is None or not error.errno:
                raise
            raise stream.stopped_error(error, path, ledger) from error
    return prepared.squeeze(stores.open(path))


def _is_finished(ledger: Ledger, run: Run) -> bool:
    """Whether the store has the inputs and labels of the call, and nothing is missing."""
    is_same = ledger.inputs == run.inputs and not label_differences(run, ledger)
    return is_same and ledger.is_complete and not ledger.drop_missing_files(stores.stat_files(run.path, ledger.files))


def _find(store: str | Path, storage_options: Mapping[str, Any] | None) -> Path:
    place = places.find(store, storage_options, name="store")
    return cast("Path", place if places.is_remote(place) else place.absolute())


def sweep_status(store: str | Path, *, storage_options: Mapping[str, Any] | None = None) -> xr.Dataset:
    """Progress of a sweep.

    Parameters
    ----------
    store
        Path or URL of a store that :func:`sweep` has written, or is writing.
    storage_options
        Options of the file system of a URL.

    Returns
    -------
    Dataset
        ``done`` (model, sample), bool, and ``seconds`` (model, sample), the time for computing and writing, s, NaN
        where it is not done or its file is missing. Attributes: ``complete``; ``n_done`` and ``n_all``, the number of
        responses of a model to a sample; ``n_missing_files``, the number of written files that are missing or have
        another size; ``bytes_on_disk``; ``seconds``, the total of all blocks, s; ``runs``, as JSON, with the process,
        start, engine, device and versions of each; and ``inputs``, as JSON.

    Raises
    ------
    FileNotFoundError
        If the path does not exist.
    StoreError
        If the path is not the store of a sweep.

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
    path = _find(store, storage_options)
    if not _exists(path):
        raise stores.missing_error(path, "the store of fx.sweep or `flyxr simulate`")
    ledger = read_ledger(path)
    if ledger is None:
        raise stores.StoreError(Problem(f"{path} is not the store of a sweep", "see fx.open(path)", "see `flyxr info`"))
    missing = ledger.drop_missing_files(stores.stat_files(path, ledger.files))
    coords = stores.read_labels(path, ledger).coords
    return xr.Dataset(
        {"done": (("model", "sample"), ledger.done), "seconds": (("model", "sample"), ledger.seconds, {"units": "s"})},
        {name: coord for name, coord in coords.items() if coord.dims in (("model",), ("sample",))},
        {
            "complete": ledger.is_complete,
            "n_missing_files": len(missing),
            "n_done": ledger.n_done,
            "n_all": ledger.done.size,
            "bytes_on_disk": sum(shard.n_bytes for shard in ledger.shards.values()),
            "seconds": float(np.nansum(ledger.seconds)),
            "runs": json.dumps(ledger.runs),
            "inputs": json.dumps(ledger.inputs),
        },
    )


def _parse_memory(memory_limit: str | float, arguments: Arguments) -> float:
    """Memory in bytes; NaN if something is wrong with it."""
    from dask.utils import parse_bytes

    try:
        n_bytes = float(parse_bytes(memory_limit)) if isinstance(memory_limit, str) else as_float(memory_limit)
    except ValueError:
        n_bytes = None
    if n_bytes is not None and 0 < n_bytes < math.inf:
        return n_bytes
    arguments.problems.append(f"expected memory_limit in bytes or as text such as '2 GB', got {shorten(memory_limit)}")
    return math.nan


def _exists(path: Path) -> bool:
    return stores.is_remote_store(path) if places.is_remote(path) else path.exists() or path.is_symlink()


def _existing_ledger(path: Path, overwrite: bool) -> Ledger | None:
    """Ledger of the sweep at the path; None if the path does not exist or will be replaced."""
    if not _exists(path):
        return None
    if overwrite:
        stores.check_target(path, overwrite=True)
        return None
    ledger = read_ledger(path)
    if ledger is None:
        choice = "choose another path, or, if it is a store,"
        raise ExistsError(
            Problem(
                f"{path} exists and is not the store of a sweep",
                f"{choice} pass overwrite=True to replace it",
                f"{choice} add --overwrite to replace it",
            )
        )
    return ledger


def _check_content(run: Run, ledger: Ledger, relabel: bool) -> None:
    """Compare the luminance of the stored samples and the labels with those of the call."""
    stored = ledger.sample_hashes
    firsts = dict.fromkeys(sample // run.block_samples * run.block_samples for sample in sorted(stored))
    changed: list[int] = []
    for first in progress_bar("compare the stimulus", firsts, unit="block", is_wanted=run.progress):
        samples = slice(first, first + run.block_samples)
        hashes = identity.sample_hashes(load(run.prepared.luminance[samples]), run.n_frames(samples))
        changed += [sample for sample, given in enumerate(hashes, first) if stored.get(sample, given) != given]
    differences = [] if relabel else label_differences(run, ledger)
    if changed:
        raise SweepMismatchError(
            f"stimulus: the luminance of {len(changed)} samples differs, first at position {changed[0]}",
            *differences,
            REPLACE_HINT,
            heading=f"{run.path} holds another sweep",
        )
    check_labels(run.path, differences)


def _check_writable(path: Path) -> None:
    if places.is_remote(path):  # locking the store writes to it
        return
    try:
        with (path / _LOCK_FILE).open("ab"):
            pass
    except OSError as error:
        text = f"{path} is unfinished or to be extended, but cannot be written: {error.strerror}"
        raise UnwritableError(Problem(text, "make it writable, or copy it"), code=error.errno) from error


@contextmanager
def _exclusive_lock(path: Path) -> Iterator[None]:
    """Lock the store for this process; the operating system releases the lock when the process ends or dies."""
    import filelock

    if places.is_remote(path):
        with lease.exclusive_lease(path):
            yield
        return
    lock = filelock.FileLock(path / _LOCK_FILE)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        ledger = read_ledger(path)
        last = ledger.runs[-1] if ledger is not None and ledger.runs else {}
        owner = "process {pid} on {host}, since {started}".format_map({"pid": "?", "host": "?", "started": "?"} | last)
        raise SweepError(Problem(f"another sweep is writing to {path} ({owner})", "wait for it, or stop it")) from None
    try:
        yield
    finally:
        lock.release()


def _create(run: Run, overwrite: bool) -> None:
    """Create the store atomically, with all labels and no responses."""
    if places.is_remote(run.path):
        with lease.exclusive_lease(run.path), stores.scratch_directory(Path(tempfile.gettempdir(), "flyxr")) as scratch:
            if not overwrite and _exists(run.path):
                raise ExistsError(Problem(f"another process has already created {run.path}", "choose another path"))
            stream.write_new(scratch / "store", run)
            stores.replace_remote(scratch / "store", run.path)
        return
    is_replaced = overwrite and (run.path / LEDGER_FILE).exists()
    # A store that another process writes to must not be replaced.
    with _exclusive_lock(run.path) if is_replaced else nullcontext():
        with stores.atomic_directory(run.path, replace=overwrite) as scratch:
            stream.write_new(scratch, run)
