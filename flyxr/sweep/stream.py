"""The stream of a sweep: what is missing is submitted, and what comes back is entered into the ledger."""

from __future__ import annotations

import os
import platform
import warnings
from concurrent.futures import CancelledError
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from flyxr import ledger, provenance, schema, workers
from flyxr import store as stores
from flyxr.simulate import PACKAGES, DivergedError, parameters_of, state_of, steady_state
from flyxr.sweep.base import (
    Run,
    SweepError,
    check_same,
    digest,
    relative_error,
    template,
    write_block,
    write_stimulus,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from flyxr.ledger import Ledger, Shard
    from flyxr.workers import Cluster, Threads


def broken(path: Path, found: Ledger, *, verify: bool) -> list[Shard]:
    """Files of a store that are not as they were written."""
    return [shard for shard in found.shards.values() if not ledger.is_intact(path, shard, verify=verify)]


def write_labels(run: Run, path: Path) -> None:
    """Write a store with all its labels, and neither luminance nor responses, at a path where there is nothing."""
    bare = template(run, len(run.inputs["models"]), run.inputs["n_samples"])
    labelled = bare.assign_coords(run.prepared.labels.coords).assign_attrs(run.prepared.labels.attrs)
    stores.write_template(schema.annotate(labelled, "responses"), path, run.block_samples)


def _extend(run: Run) -> None:
    """Take more models or samples into the store: its labels and shapes, file by file, and again after a crash."""
    with stores.scratch(run.path) as folder:
        write_labels(run, folder / "store")
        for file in sorted(file for file in (folder / "store").rglob("*") if file.is_file()):
            target = run.path / file.relative_to(folder / "store")
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, target)
    ledger.append(run.path, inputs=run.inputs)


def write_missing(run: Run, team: Threads | Cluster, at_once: int, verify: bool) -> None:
    """Compute and write what is missing; the store is held by this process."""
    from tqdm import tqdm

    path = run.path
    diverged: dict[str, None] = {}
    ledger.mend(path)
    for rest in (path / "response").rglob("*.partial"):  # files that were cut off
        rest.unlink()
    found = ledger.read(path)
    assert found is not None
    check_same(found, run.inputs, path)
    for shard in broken(path, found, verify=verify):
        warnings.warn(f"{path / shard.path} is missing or corrupted and is computed anew", stacklevel=3)
        found.forget(shard)
        (path / shard.path).unlink(missing_ok=True)
    if found.inputs != run.inputs:
        _extend(run)
        found.grow(run.inputs)
    me = {"host": platform.node(), "pid": os.getpid(), "started": datetime.now(UTC).isoformat(timespec="seconds")}
    ledger.append(path, run={**me, **run.asked, "workers": str(team)})

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
                raise _stopped(error, path, found) from error
            raise
        team.stop()
    if diverged:
        raise DivergedError("\n".join([*diverged, _progress_text(path, found)]))
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
            if prepared.start == "steady_state" and model not in starts:
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
    ledger.append(path, **line)
    found.enter(line)


def _finish(run: Run, found: Ledger) -> None:
    """Say in the store what made it."""
    import zarr

    stimulus = digest(np.array([found.hashes[sample] for sample in sorted(found.hashes)]))
    arguments = {name: run.inputs[name] for name in ("dt", "initial_state", "precision", "block_samples")} | run.asked
    hashes = {**run.prepared.hashes, "stimulus": stimulus}
    made = provenance.add(run.prepared.labels, "sweep", arguments, hashes=hashes, packages=PACKAGES)
    group = zarr.open_group(run.path, mode="r+", zarr_format=3)
    group.attrs[provenance.ATTR] = made.attrs[provenance.ATTR]
    relative = relative_error(run.inputs["precision"])
    if relative:
        group["response"].attrs.update({"largest_relative_error": relative, "largest_error": found.largest_error})


def _stopped(error: BaseException, path: Path, found: Ledger) -> Exception:
    """The error, with what is done and the way on."""
    if isinstance(error, OSError) and error.errno:
        return type(error)(
            error.errno, f"the sweep stopped: {error.strerror}. {_progress_text(path, found)}", str(path)
        )
    return SweepError(f"the sweep stopped: {error or type(error).__name__}. {_progress_text(path, found)}")


def _progress_text(path: Path, found: Ledger) -> str:
    done, of_all = int(found.done.sum()), found.done.size
    return f"{done} of {of_all} responses of a model to a sample are in {path}; the same call again goes on from there"
