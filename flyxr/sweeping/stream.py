"""The stream of a sweep: what is missing is submitted, and what comes back is entered into the ledger."""

from __future__ import annotations

import os
import platform
import secrets
import shutil
import warnings
from concurrent.futures import CancelledError
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from flyxr import identity, provenance, schema, workers
from flyxr import store as stores
from flyxr.errors import FlyxrWarning, Problem, UnwritableError
from flyxr.simulation import PACKAGES, DivergedError, parameters_of, state_of, steady_state
from flyxr.store import labels, ledger
from flyxr.sweep.base import (
    Run,
    SweepError,
    check_same,
    label_differences,
    raise_labels,
    relative_error,
    template,
    write_block,
    write_stimulus,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from flyxr.store import StoredFile
    from flyxr.store.ledger import Ledger
    from flyxr.workers import Cluster, Threads

CHUNKS = ("response/c/", "luminance/c/")
"""Where the files of blocks lie."""


def broken(path: Path, found: Ledger, *, verify: bool) -> list[StoredFile]:
    """Files of a store that are not as they were written."""
    return [shard for shard in found.shards.values() if not stores.is_intact(path, shard, verify=verify)]


def write_labels(path: Path, run: Run, found: Ledger) -> None:
    """Write a store with the labels and shapes of its ledger, and no values, at a path where there is nothing."""
    n_models, n_samples = found.done.shape
    bare = template(run, n_models, n_samples)
    made = found.made or {}
    bare["response"].attrs.update(made.get("response", {}))
    known = labels.decode(found.labels or {})
    labelled = bare.assign_coords(known.coords).assign_attrs({**known.attrs, **made.get("attrs", {})})
    stores.write_template(schema.annotate(labelled, "responses"), path, run.block_samples)


def write_new(path: Path, run: Run) -> None:
    """Write a store with its labels and its ledger, and no responses, at a path where there is nothing."""
    first = {"id": secrets.token_hex(8), "inputs": run.inputs, "labels": run.labels}
    found = ledger.Ledger()
    found.enter(first)
    write_labels(path, run, found)
    for file in path.rglob("*"):
        stores.sync(file)
    note(path, found, **first)
    _note_labels(path, found)


def refresh_labels(run: Run, found: Ledger) -> None:
    """Let the zarr files say what the ledger says, file by file, and again after a crash."""
    with stores.scratch_directory(run.path) as folder:
        write_labels(folder / "store", run, found)
        fresh = sorted(file.relative_to(folder / "store") for file in (folder / "store").rglob("*") if file.is_file())
        for file in fresh:
            target = run.path / file
            target.parent.mkdir(parents=True, exist_ok=True)
            stores.sync(folder / "store" / file)
            os.replace(folder / "store" / file, target)
    for name in found.coords - {file.parts[0] for file in fresh}:
        shutil.rmtree(run.path / name, ignore_errors=True)
    _note_labels(run.path, found)


def _note_labels(path: Path, found: Ledger) -> None:
    """Enter that the zarr files say what the ledger says, and their sizes; attributes of the store may be added to."""
    other = ("zarr.json", ledger.PLACE.as_posix())
    sizes = {
        file: n_bytes
        for file, (n_bytes, _) in stores.listing(path, without=CHUNKS).items()
        if file not in other and not file.endswith((".lock", ".partial"))
    }
    note(path, found, files_say=found.says, files=sizes)


def note(path: Path, found: Ledger, **line: Any) -> None:
    """Enter a line in the ledger, on disk and in memory."""
    ledger.append(path, **line)
    found.enter(line)


def write_missing(run: Run, team: Threads | Cluster, at_once: int, *, verify: bool, relabel: bool) -> None:
    """Compute and write what is missing; the store is held by this process."""
    from tqdm import tqdm

    path = run.path
    diverged: dict[str, None] = {}
    ledger.mend(path)
    found = ledger.read(path)
    assert found is not None
    there = stores.listing(path)
    for file in there:
        if file.endswith(".partial") or (file.startswith(CHUNKS) and file not in found.shards):
            (path / file).unlink()  # nobody knows whether it is whole, and zarr would read it to write beside it
    check_same(found, run.inputs, path)
    if found.inputs["block_samples"] != run.block_samples:
        raise SweepError(Problem(f"{path} was replaced by another sweep meanwhile", "call again", "run it again"))
    differences = label_differences(run, found)
    if not relabel:
        raise_labels(path, differences)
    for shard in broken(path, found, verify=verify):
        warnings.warn(
            FlyxrWarning(f"{path / shard.path} is missing or corrupted and is computed anew"),
            stacklevel=3,
        )
        found.forget(shard)
        (path / shard.path).unlink(missing_ok=True)
    found.lose(there)  # files of labels, which are written anew below
    # Entered before any file changes: the ledger says what the store is of, and the files follow.
    if found.inputs != run.inputs:
        note(path, found, inputs=run.inputs, labels=run.labels)
    elif differences or found.labels is None:
        note(path, found, labels=run.labels)
    if found.files_say != found.says:
        refresh_labels(run, found)
    if found.is_complete:
        return
    block = run.prepared.block
    note(
        path,
        found,
        run={
            "host": platform.node(),
            "pid": os.getpid(),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "engine": block.engine,
            "device": block.device,
            "workers": str(team),
            "versions": provenance.versions(PACKAGES),
        },
    )

    n_missing = sum(1 for _ in found.missing(run.block_samples))
    bar = tqdm(
        total=run.n_blocks,
        initial=run.n_blocks - n_missing,
        desc=path.name,
        unit="block",
        delay=1,
        disable=not run.progress,
    )
    with bar:
        try:
            for future in team.stream(_calls(run, team, found), at_once):
                try:
                    line = future.result()
                except DivergedError as error:
                    diverged[str(error)] = None
                    continue
                _enter(path, found, line)
                bar.update("block" in line)
        except BaseException as error:
            for future in team.stop():
                _enter(path, found, future.result())
            if isinstance(error, OSError | CancelledError | SweepError | workers.LostError):
                raise stopped(error, path, found) from error
            raise
        team.stop()
    if diverged:
        raise DivergedError("\n".join([*diverged, str(_progress("", path, found))]))
    _finish(run, found)


def _calls(run: Run, team: Threads | Cluster, found: Ledger) -> Iterator[Any]:
    """Submit what is missing, one call after the other, as futures are asked for."""
    prepared, path, size = run.prepared, str(run.path), run.block_samples
    block, device = team.share(prepared.block), prepared.block.device
    missing: dict[int, list[tuple[int, int, int]]] = {}
    for place in found.missing(size):
        missing.setdefault(place[1] // size * size, []).append(place)
    starts: dict[int, Any] = {}
    for first in range(0, run.inputs["n_samples"], size):
        of_block = missing.get(first, [])
        samples = slice(first, min(first + size, run.inputs["n_samples"]))
        unseen = not found.seen[samples].all()
        if not (of_block or unseen):
            continue
        stimulus = team.load(prepared.luminance[samples])
        if unseen:
            yield team.submit(write_stimulus, path, stimulus, first, prepared.block.recorded, run.n_frames(samples))
        for model, start, stop in of_block:
            parameters = parameters_of(prepared, model)
            if prepared.block.start == "steady_state" and model not in starts:
                starts[model] = team.submit(steady_state, block, parameters, device=device)
            given = state_of(prepared, model, slice(start, stop))
            state = starts.get(model) if given is None else np.asarray(given)
            name, n_frames = prepared.model_names[model], run.n_frames(slice(start, stop))
            within = slice(start - first, stop - first)
            what = (block, parameters, stimulus, within, state, name, n_frames, (model, start), run.inputs["precision"])
            yield team.submit(write_block, path, *what, device=device)


def _enter(path: Path, found: Ledger, line: dict[str, Any]) -> None:
    """Note what is done."""
    if not (path / line["shard"].path).exists():
        raise SweepError(
            f"{line['shard'].path} was written where this process does not see it: this process and the workers need "
            f"{path} on one file system"
        )
    for sample, given in enumerate(line.get("hashes", []), line.get("stimulus", 0)):
        if found.hashes.get(sample, given) != given:
            raise SweepError("the stimulus is another each time that it is computed: save it with fx.save, and open it")
    note(path, found, **line)


def _finish(run: Run, found: Ledger) -> None:
    """Say in the store what made it."""
    hashes = [found.hashes[sample] for sample in sorted(found.hashes)]
    arguments = {
        **{name: run.inputs[name] for name in ("dt", "initial_state", "precision", "block_samples")},
        "record": run.prepared.record,
        **{name: _distinct(found, name) for name in ("engine", "device")},
    }
    made = provenance.add(
        run.prepared.labels,
        "sweep",
        arguments,
        hashes={
            **run.prepared.hashes,
            "stimulus": identity.stimulus_hash(hashes, run.prepared.luminance["time"].values),
        },
        packages=PACKAGES,
    )
    of_response: dict[str, float] = {}
    if relative := relative_error(run.inputs["precision"]):
        of_response = {"largest_relative_error": relative, "largest_error": found.largest_error}
    said = {"attrs": {provenance.ATTR: made.attrs[provenance.ATTR]}, "response": of_response}
    if found.made == said:  # files that decayed were computed anew
        return
    note(run.path, found, made=said)
    stores.write_attrs(run.path, said["attrs"])
    stores.write_attrs(run.path / "response", said["response"])
    _note_labels(run.path, found)


def _distinct(found: Ledger, name: str) -> str:
    """What the runs of a sweep had, each once."""
    return ", ".join(dict.fromkeys(str(run[name]) for run in found.runs if name in run))


def stopped(error: BaseException, path: Path, found: Ledger) -> Exception:
    """The error, with what is done and the way on."""
    if isinstance(error, OSError) and error.errno:
        return UnwritableError(_progress(f"the sweep stopped: {error.strerror}. ", path, found), code=error.errno)
    return SweepError(_progress(f"the sweep stopped: {error or type(error).__name__}. ", path, found))


def _progress(text: str, path: Path, found: Ledger) -> Problem:
    done, of_all = int(found.done.sum()), found.done.size
    return Problem(
        f"{text}{done} of {of_all} responses of a model to a sample are in {path}",
        "the same call again goes on from there",
        "the same command again goes on from there",
    )
