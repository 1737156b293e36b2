"""The stream of a sweep: submit missing blocks, and record finished ones in the ledger."""

from __future__ import annotations

import os
import platform
import secrets
import shutil
import tempfile
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from flyxr import identity, provenance, schema
from flyxr import store as stores
from flyxr.errors import FlyxrWarning, Problem, UnwritableError
from flyxr.progress import progress_bar
from flyxr.simulation import PACKAGES, DivergedError, parameters_of, state_of, steady_state
from flyxr.store import labels, places
from flyxr.store.ledger import LEDGER_FILE, Ledger, read_ledger, repair_ledger
from flyxr.sweeping.base import (
    Run,
    SweepError,
    check_inputs,
    check_labels,
    label_differences,
    relative_error,
    template,
    write_block,
    write_stimulus,
)
from flyxr.sweeping.workers import LostError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from upath import UPath

    from flyxr.store import StoredFile
    from flyxr.sweeping.workers import Pool

_NOT_LABELS = (".lock", ".lease", ".partial", "/manifest.json")
CHUNK_FOLDERS = ("response/c/", "luminance/c/")
"""Folders with the files of blocks."""


def damaged_shards(path: Path, ledger: Ledger, *, verify: bool) -> list[StoredFile]:
    """Files of blocks that are missing or not as they were written."""
    return stores.find_damaged(path, ledger.shards.values(), verify=verify)


def write_labels(path: Path, run: Run, ledger: Ledger) -> None:
    """Write a store with the labels and shapes of its ledger, without values, to a new path."""
    dataset = template(run, *ledger.done.shape)
    final_attrs = ledger.final_attrs or {}
    dataset["response"].attrs.update(final_attrs.get("response", {}))
    decoded = labels.decode(ledger.labels or {})
    dataset = dataset.assign_coords(decoded.coords).assign_attrs({**decoded.attrs, **final_attrs.get("attrs", {})})
    dataset = schema.annotate(dataset, "responses")
    stores.write_template(dataset, path, run.block_samples, **run.layout)


def write_new(path: Path, run: Run) -> None:
    """Write a store with its labels and its ledger, without responses, to a new path."""
    entry = {"id": secrets.token_hex(8), "inputs": run.inputs, "labels": run.labels}
    ledger = Ledger()
    ledger.apply(entry)
    write_labels(path, run, ledger)
    for file in path.rglob("*"):
        stores.sync(file)
    ledger.record(path, **entry)
    _record_label_files(path, ledger)


def refresh_labels(run: Run, ledger: Ledger) -> None:
    """Bring the zarr files of labels and shapes up to date with the ledger; safe to repeat after a crash."""
    is_remote = places.is_remote(run.path)
    with stores.scratch_directory(Path(tempfile.gettempdir(), "flyxr") if is_remote else run.path) as folder:
        scratch = folder / "store"
        write_labels(scratch, run, ledger)
        new_files = sorted(file.relative_to(scratch) for file in scratch.rglob("*") if file.is_file())
        if is_remote:
            _replace_remote_labels(run, ledger, scratch, new_files)
            return
        for file in new_files:
            target = run.path / file
            # A coordinate of one value has the file ``c``, one along a dim has a folder ``c``.
            if target.is_dir():
                shutil.rmtree(target)
            if target.parent.is_file():
                target.parent.unlink()
            target.parent.mkdir(parents=True, exist_ok=True)
            stores.sync(scratch / file)
            os.replace(scratch / file, target)
    for name in ledger.coords - {file.parts[0] for file in new_files}:
        shutil.rmtree(run.path / name, ignore_errors=True)
    _record_label_files(run.path, ledger)


def _replace_remote_labels(run: Run, ledger: Ledger, scratch: Path, new_files: list[Path]) -> None:
    """Bring the labels of a store in object storage up to date, the metadata of the group last."""
    place = cast("UPath", run.path)
    old = places.list_sizes(place)
    for file in sorted(new_files, key=lambda file: file.as_posix() == "zarr.json"):
        places.write_bytes(place / file.as_posix(), (scratch / file).read_bytes())
    current = {file.as_posix() for file in new_files}
    is_label = ledger.coords | {file.parts[0] for file in new_files} - {"response", "luminance"}
    places.remove(place, [name for name in old if name.split("/")[0] in is_label and name not in current])
    _record_label_files(run.path, ledger)


def _record_label_files(path: Path, ledger: Ledger) -> None:
    """Record that the zarr files have the labels of the ledger, and their sizes.

    The metadata of the group is left out, since users may add attributes.
    """
    excluded = ("zarr.json", LEDGER_FILE.as_posix())
    sizes = {
        file: n_bytes
        for file, (n_bytes, _) in stores.list_files(path, exclude=CHUNK_FOLDERS).items()
        if file not in excluded and not file.startswith(f"{LEDGER_FILE}.") and not file.endswith(_NOT_LABELS)
    }
    ledger.record(path, files_say=ledger.labels_digest, files=sizes)


def write_missing(run: Run, pool: Pool, at_once: int, *, verify: bool, relabel: bool) -> None:
    """Compute and write the missing blocks, while this process holds the lock of the store."""
    path = run.path
    ledger = _repair(run, verify=verify, relabel=relabel)
    if ledger.is_complete:
        return
    block = run.prepared.block
    ledger.record(
        path,
        run={
            "host": platform.node(),
            "pid": os.getpid(),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "engine": block.engine,
            "device": block.device,
            "workers": str(pool),
            "versions": provenance.versions(PACKAGES),
        },
    )
    diverged = _run_blocks(run, pool, at_once, ledger)
    if diverged:
        raise DivergedError("\n".join([*diverged, str(_progress_problem("", path, ledger))]))
    _finish(run, ledger)


def _repair(run: Run, *, verify: bool, relabel: bool) -> Ledger:
    """Remove what a crash left, drop damaged files, and record the inputs and labels of the call."""
    path = run.path
    repair_ledger(path)
    ledger = read_ledger(path)
    assert ledger is not None
    stats = stores.list_files(path)
    for file in stats:
        if file.endswith(".partial") or (file.startswith(CHUNK_FOLDERS) and file not in ledger.shards):
            _remove(path, file)  # may be incomplete, and zarr would read it to update it
    check_inputs(ledger, run.inputs, path)
    if ledger.inputs["block_samples"] != run.block_samples:
        raise SweepError(Problem(f"another sweep has replaced {path}", "call again", "run it again"))
    differences = label_differences(run, ledger)
    if not relabel:
        check_labels(path, differences)
    for shard in damaged_shards(path, ledger, verify=verify):
        warnings.warn(FlyxrWarning(f"{path / shard.path} is missing or corrupted and will be recomputed"), stacklevel=4)
        ledger.drop_shard(shard)
        _remove(path, shard.path)
    ledger.drop_missing_files(stats)  # files of labels, which are rewritten below
    # The ledger changes before the files, so that it is right if the process dies in between.
    if ledger.inputs != run.inputs:
        ledger.record(path, inputs=run.inputs, labels=run.labels)
    elif differences or ledger.labels is None:
        ledger.record(path, labels=run.labels)
    if ledger.written_digest != ledger.labels_digest:
        refresh_labels(run, ledger)
    return ledger


def _remove(path: Path, file: str) -> None:
    """Remove a file of a store, if it is there."""
    if places.is_remote(path):
        places.remove(cast("UPath", path), [file])
    else:
        (path / file).unlink(missing_ok=True)


def _run_blocks(run: Run, pool: Pool, at_once: int, ledger: Ledger) -> list[str]:
    """Compute, write and record the missing blocks; return the messages of models that diverge."""
    path = run.path
    n_missing = sum(1 for _ in ledger.missing_blocks(run.block_samples))
    diverged: dict[str, None] = {}
    done = run.n_blocks - n_missing
    text = f"simulate {path.name}"
    with progress_bar(text, total=run.n_blocks, unit="block", initial=done, is_wanted=run.progress) as bar:
        try:
            for future in pool.completed(_submit_missing(run, pool, ledger), at_once):
                try:
                    entry = future.result()
                except DivergedError as error:
                    diverged[str(error)] = None
                    continue
                _record_result(path, ledger, entry)
                bar.update("block" in entry)
        except BaseException as error:
            for entry in pool.stop():
                _record_result(path, ledger, entry)
            cause = pool.cause(error)
            if isinstance(cause, OSError | SweepError | LostError):
                raise stopped_error(cause, path, ledger) from error
            raise
        pool.stop()
    return list(diverged)


def _submit_missing(run: Run, pool: Pool, ledger: Ledger) -> Iterator[Any]:
    """Submit the tasks of missing blocks one by one, as their futures are requested."""
    prepared, path, size = run.prepared, run.path, run.block_samples
    block, device = pool.share(prepared.block), prepared.block.device
    missing: dict[int, list[tuple[int, int, int]]] = {}
    for model, start, stop in ledger.missing_blocks(size):
        missing.setdefault(start // size * size, []).append((model, start, stop))
    steady_states: dict[int, Any] = {}
    for first in range(0, run.inputs["n_samples"], size):
        blocks = missing.get(first, [])
        samples = slice(first, min(first + size, run.inputs["n_samples"]))
        needs_luminance = not ledger.has_luminance[samples].all()
        if not (blocks or needs_luminance):
            continue
        stimulus = pool.load(prepared.luminance[samples])
        if needs_luminance:
            yield pool.submit(write_stimulus, path, stimulus, first, prepared.block.recorded, run.n_frames(samples))
        for model, start, stop in blocks:
            parameters = parameters_of(prepared, model)
            if prepared.block.start == "steady_state" and model not in steady_states:
                steady_states[model] = pool.submit(steady_state, block, parameters, device=device)
            given_state = state_of(prepared, model, slice(start, stop))
            state = steady_states.get(model) if given_state is None else np.asarray(given_state)
            arguments = (
                block,
                parameters,
                stimulus,
                slice(start - first, stop - first),
                state,
                prepared.model_names[model],
                run.n_frames(slice(start, stop)),
                (model, start),
                run.inputs["precision"],
            )
            yield pool.submit(write_block, path, *arguments, device=device)


def _record_result(path: Path, ledger: Ledger, entry: dict[str, Any]) -> None:
    """Record a finished task in the ledger."""
    if not places.is_remote(path) and not (path / entry["shard"].path).exists():
        raise SweepError(
            f"a worker wrote {entry['shard'].path}, but this process does not see it: {path} must be on a file system "
            "that this process and the workers share"
        )
    for sample, sample_hash in enumerate(entry.get("hashes", []), entry.get("stimulus", 0)):
        if ledger.sample_hashes.get(sample, sample_hash) != sample_hash:
            raise SweepError("the stimulus changes each time it is computed: save it with fx.save, and open it")
    ledger.record(path, **entry)


def _finish(run: Run, ledger: Ledger) -> None:
    """Write the provenance and the rounding error of a complete sweep."""
    hashes = [ledger.sample_hashes[sample] for sample in sorted(ledger.sample_hashes)]
    arguments = {
        **{name: run.inputs[name] for name in ("dt", "initial_state", "precision", "block_samples")},
        "record": run.prepared.record,
        **{name: _join_distinct(ledger, name) for name in ("engine", "device")},
    }
    annotated = provenance.add(
        run.prepared.labels,
        "sweep",
        arguments,
        hashes={
            **run.prepared.hashes,
            "stimulus": identity.stimulus_hash(hashes, run.prepared.luminance["time"].values),
        },
        packages=PACKAGES,
    )
    response_attrs: dict[str, float] = {}
    if relative := relative_error(run.inputs["precision"]):
        response_attrs = {"largest_relative_error": relative, "largest_error": ledger.largest_error}
    final_attrs = {"attrs": {provenance.ATTR: annotated.attrs[provenance.ATTR]}, "response": response_attrs}
    if ledger.final_attrs == final_attrs:  # damaged files of a complete sweep were recomputed
        return
    ledger.record(run.path, made=final_attrs)
    stores.write_attrs(run.path, final_attrs["attrs"])
    stores.write_attrs(run.path / "response", final_attrs["response"])
    _record_label_files(run.path, ledger)


def _join_distinct(ledger: Ledger, name: str) -> str:
    """Distinct values of a field of the runs, such as their engines."""
    return ", ".join(dict.fromkeys(str(run[name]) for run in ledger.runs if name in run))


def stopped_error(error: BaseException, path: Path, ledger: Ledger) -> Exception:
    """Error of a sweep that stopped, with its progress and a hint to resume."""
    if isinstance(error, OSError) and error.errno:
        problem = _progress_problem(f"the sweep stopped: {error.strerror}. ", path, ledger)
        return UnwritableError(problem, code=error.errno)
    return SweepError(_progress_problem(f"the sweep stopped: {error or type(error).__name__}. ", path, ledger))


def _progress_problem(text: str, path: Path, ledger: Ledger) -> Problem:
    return Problem(
        f"{text}{ledger.n_done} of {ledger.done.size} responses of a model to a sample are in {path}",
        "repeat the call to resume",
        "repeat the command to resume",
    )
