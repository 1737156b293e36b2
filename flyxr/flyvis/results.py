"""Results directories of flyvis, and zips of them.

The layout is ``<task>/<ensemble>/<model>/``, for example ``flow/0000/000/``. The directory of a model holds

- ``best_chkpt``, or ``chkpts/chkpt_<number>`` and the numbers in ``chkpt_index.h5``: checkpoints of torch;
- ``validation/epe.h5``, ``validation/loss.h5``: one validation error for each checkpoint;
- ``_meta.yaml``: the configuration.

In the layout of the first publication, ``opticflow/000/0000/``, a model has ``best_chkpt`` and ``validation_loss.h5``.

Reading never runs code: checkpoints are opened as tensors only, and others are rejected. One error lists the problems
of all models; no model is left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from posixpath import join, split
from typing import TYPE_CHECKING

import numpy as np

from flyxr.errors import Problem, raise_problems
from flyxr.flyvis.checkpoint import PARAMETERS, find_mismatches, read_checkpoint
from flyxr.flyvis.configuration import META, find_other_dynamics, read_connectome_config, read_network_config
from flyxr.flyvis.files import MAX_BYTES, EnsembleError, open_tree, read_numbers
from flyxr.paths import local_path

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from flyxr.flyvis.checkpoint import Layout
    from flyxr.flyvis.configuration import ConnectomeConfig
    from flyxr.flyvis.files import FileTree

MEASURES = ("validation/epe", "validation/loss", "validation_loss")
"""HDF5 files that may rank models, the preferred one first (flyvis ranks by end-point error)."""

MAX_DEPTH = 5
"""Levels below a directory at which an ensemble is searched."""


@dataclass(frozen=True)
class Model:
    """One model, from its best checkpoint.

    Attributes
    ----------
    name : str
        ``"flow/0000/000"`` if the directories above have such names.
    checkpoint : str
        File that was read, relative to the model's directory.
    is_guess : bool
        Whether the last of several checkpoints was read because no file tells which is best.
    task_error : float
        Lowest validation error over checkpoints; NaN if unknown.
    parameters : dict of ndarray
        ``bias`` and ``time_constant`` (cell_type,), ``synapse_strength`` (pair,).
    """

    name: str
    checkpoint: str
    is_guess: bool
    task_error: float
    parameters: dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Results:
    """One ensemble.

    Attributes
    ----------
    location : str
        Path of the ensemble; in a zip, the path of the zip followed by the path inside.
    measure : str or None
        Name in :data:`MEASURES` of the files that the task errors are from; None if there are none.
    models : list of Model
        In the order of their directories.
    """

    location: str
    measure: str | None
    models: list[Model]


def read_results(path: str | os.PathLike[str], layout: Layout, *, max_bytes: int = MAX_BYTES) -> Results:
    """Read the best checkpoint of every model of an ensemble.

    Parameters
    ----------
    path
        Directory of an ensemble, of one model, or a directory with a single ensemble up to five levels below
        it; a zip of one of these; or a place inside a zip, as in ``results.zip/results/flow/0000``.
    layout
        Labels and numbers that the checkpoints must fit.
    max_bytes
        Size of the largest file that is read, as stored and as inflated.

    Returns
    -------
    Results
        A model's best checkpoint is ``best_chkpt`` if present, else the one with the lowest validation error: by
        the first of :data:`MEASURES` that every model has. Without validation errors it is the last one.

    Raises
    ------
    FileNotFoundError
        If there is no such path, on disk or inside the zip.
    EnsembleError
        If there is no ensemble or more than one; if a checkpoint or a file of validation errors is missing,
        truncated, does not fit, or would run code; or if a configuration names other equations. One error lists all
        problems.

    Notes
    -----
    Lappalainen et al. 2024, Nature 634, 1132-1140; the layout is that of flyvis 1.2.

    Examples
    --------
    >>> from flyxr.flyvis import Layout
    >>> layout = Layout(["R1"], ["R1 > L1"], ["R1 > L1 (0, 0)"], np.array([-1.0]), np.array([40.0]))
    >>> read_results("nowhere", layout)
    Traceback (most recent call last):
        ...
    flyxr.errors.MissingError: nowhere: no such file or directory
    """
    with open_tree(local_path(path), max_bytes) as (tree, start):
        ensemble, directories = find_ensemble(tree, start)
        measure = _choose_measure(tree, directories)
        models: list[Model] = []
        problems: list[str | Problem] = []
        for directory in directories:
            try:
                losses = _read_losses(tree, directory, measure)
            except EnsembleError as error:
                problems += error.problems
                losses = np.empty(0)
            label = tree.label(join(directory, META))
            problems += [
                problem._replace(text=f"{label}: {problem.text}")
                for problem in find_other_dynamics(read_network_config(tree, directory))
            ]
            try:
                checkpoint, is_guess = _choose_checkpoint(tree, directory, losses)
                tensors = read_checkpoint(tree, join(directory, checkpoint))
            except EnsembleError as error:
                problems += error.problems
                continue
            label = tree.label(join(directory, checkpoint))
            mismatches = [
                problem._replace(text=f"{label}: {problem.text}") for problem in find_mismatches(tensors, layout)
            ]
            problems += mismatches
            if not mismatches:
                name = _model_name(tree.parts(directory))
                parameters = {parameter: tensors[key] for parameter, key in PARAMETERS.items()}
                models.append(Model(name, checkpoint, is_guess, _lowest(losses), parameters))
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''} with {len(directories)} models"
        raise_problems(EnsembleError, f"{tree.label(ensemble)}: {count}", problems)
        return Results(tree.label(ensemble), measure, models)


def read_connectome_of(path: str | os.PathLike[str]) -> ConnectomeConfig | None:
    """Read which connectome the configuration of an ensemble's first model names; None if there is none.

    Parameters
    ----------
    path
        As for :func:`read_results`.

    Raises
    ------
    FileNotFoundError
        If there is no such path.
    EnsembleError
        If there is no ensemble or more than one, or the configuration has an extent that is too large.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     (Path(folder) / "000" / "chkpts").mkdir(parents=True)
    ...     print(read_connectome_of(folder))
    None
    """
    with open_tree(local_path(path)) as (tree, start):
        _, directories = find_ensemble(tree, start)
        return read_connectome_config(tree, directories[0])


def find_ensemble(tree: FileTree, start: str) -> tuple[str, list[str]]:
    """Path of the only ensemble at or below a path, and the paths of all its models."""
    if _has_checkpoints(tree, start):
        return start, [start]
    ensembles = list(_search_ensembles(tree, start, MAX_DEPTH))
    if not ensembles:
        raise EnsembleError(
            Problem(
                f"{tree.label(start)}: expected an ensemble as flyvis stores it (directories 000, 001, ... with "
                "best_chkpt or chkpts/chkpt_00000 in each), got none",
                "give the path of the directory of the models",
            )
        )
    if len(ensembles) > 1:
        heading = f"{tree.label(start)}: expected one ensemble, got {len(ensembles)}: choose one by its path"
        raise EnsembleError(*map(tree.label, ensembles), heading=heading)
    (ensemble,) = ensembles
    names = [
        name for name in tree.children(ensemble)[0] if name.isdigit() or _has_checkpoints(tree, join(ensemble, name))
    ]
    return ensemble, [join(ensemble, name) for name in sorted(names, key=lambda name: (len(name), name))]


def _search_ensembles(tree: FileTree, path: str, depth: int) -> Iterator[str]:
    names = tree.children(path)[0]
    if any(_is_model(tree, path, name) for name in names):
        yield path
    elif depth:
        for name in names:
            yield from _search_ensembles(tree, join(path, name), depth - 1)


def _is_model(tree: FileTree, path: str, name: str) -> bool:
    """Whether a directory must be that of a model, even if its checkpoints are missing."""
    model = join(path, name)
    return _has_checkpoints(tree, model) or (name.isdigit() and "validation" in tree.children(model)[0])


def _has_checkpoints(tree: FileTree, path: str) -> bool:
    directories, files = tree.children(path)
    return "best_chkpt" in files or "chkpts" in directories


def _model_name(parts: tuple[str, ...]) -> str:
    """Name of a model in flyvis: task, number of the ensemble, number of the model."""
    return "/".join(parts[-3:]) if len(parts) > 1 and parts[-2].isdigit() else parts[-1]


def _choose_measure(tree: FileTree, models: list[str]) -> str | None:
    """First measure that every model has, else the last one that any model has."""
    is_present = {name: [_has_file(tree, join(model, f"{name}.h5")) for model in models] for name in MEASURES}
    complete = [name for name in MEASURES if all(is_present[name])]
    partial = [name for name in MEASURES[::-1] if any(is_present[name])]
    return next(iter(complete + partial), None)


def _read_losses(tree: FileTree, model: str, measure: str | None) -> NDArray[np.float64]:
    """Validation error at each checkpoint; empty if there is none."""
    file = join(model, f"{measure}.h5")
    return read_numbers(tree, file) if _has_file(tree, file) else np.empty(0)


def _has_file(tree: FileTree, path: str) -> bool:
    directory, name = split(path)
    return name in tree.children(directory)[1]


def _lowest(losses: NDArray[np.float64]) -> float:
    return float(np.nanmin(losses)) if np.isfinite(losses).any() else np.nan


def _choose_checkpoint(tree: FileTree, model: str, losses: NDArray[np.float64]) -> tuple[str, bool]:
    """File of the best checkpoint, and whether it is a guess."""
    files = tree.children(model)[1]
    if "best_chkpt" in files:
        return "best_chkpt", False
    names = tree.children(join(model, "chkpts"))[1]
    numbered = {int(match[1]): name for name in names if (match := re.fullmatch(r"chkpt_(\d+)", name))}
    if not numbered:
        raise EnsembleError(
            Problem(
                f"{tree.label(model)}: expected best_chkpt or chkpts/chkpt_00000, got neither",
                "copy its checkpoint there, or move the model out of the ensemble",
            )
        )
    if not np.isfinite(losses).any():
        return f"chkpts/{numbered[max(numbered)]}", len(numbered) > 1
    numbers: list[float] = sorted(numbered)
    if "chkpt_index.h5" in files:
        numbers = read_numbers(tree, join(model, "chkpt_index.h5")).tolist()
    if len(numbers) != losses.size:
        raise EnsembleError(
            Problem(
                f"{tree.label(model)}: expected one validation error for each of {len(numbers)} checkpoints, got "
                f"{losses.size}",
                "name the checkpoint to read best_chkpt",
            )
        )
    best = numbers[int(np.nanargmin(losses))]
    if best not in numbered:
        raise EnsembleError(
            Problem(
                f"{tree.label(model)}: expected chkpts/chkpt_{best:05.0f}, which has the lowest validation error, got "
                f"{', '.join(sorted(numbered.values()))}",
                "copy it there, or name the checkpoint to read best_chkpt",
            )
        )
    return f"chkpts/{numbered[int(best)]}", False
