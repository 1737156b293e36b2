"""Results directories of flyvis, and zips of them, read into plain arrays without flyvis.

The layout is ``<task>/<ensemble>/<model>/``, for example ``flow/0000/000/``, with in each model's directory

- ``best_chkpt``, or ``chkpts/chkpt_<number>`` and the numbers in ``chkpt_index.h5``: checkpoints of torch;
- ``validation/epe.h5``, ``validation/loss.h5``: one validation error for each checkpoint.

Nothing that is read can run code: checkpoints are opened as tensors only, and what asks for more is refused.
A zip is read in memory and never unpacked to disk. Everything that is wrong with any of the models is named in
one error; no model is left out.
"""

from __future__ import annotations

import io
import os
import re
import zipfile
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from posixpath import join
from typing import TYPE_CHECKING, Protocol

import numpy as np

from flyxr.errors import FlyxrError, MissingError, Problem, raise_problems

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

MEASURES = ("epe", "loss")
"""Files of ``validation`` that may rank models, the preferred one first (flyvis ranks by end-point error)."""

PARAMETERS = {"bias": "nodes_bias", "time_constant": "nodes_time_const", "synapse_strength": "edges_syn_strength"}
"""Free parameters and their names in a checkpoint."""

SIGN, LOG_COUNT = "edges_sign", "edges_syn_count"

MAX_BYTES = 256 * 2**20
"""Largest file that is read; checkpoints of 50 kB to some MB are usual."""

_MAX_DEPTH = 4
_COUNT_RTOL = 1e-5  # checkpoints hold the logarithm of the count in single precision
_OTHER_CONNECTOME = (
    "open the connectome it was trained with and pass it as connectome=",
    "open it in Python, with the connectome it was trained with as connectome=",
)
"""Way out in Python and on the command line, which knows one connectome."""


class EnsembleError(FlyxrError, ValueError):
    """Files do not hold the ensemble they should; the message lists everything that is wrong."""


@dataclass(frozen=True)
class Layout:
    """What each checkpoint must fit: labels in flyvis's order, and the fixed numbers of the connectome.

    Attributes
    ----------
    cell_types : sequence of str
        (cell_type,)
    pairs : sequence of str
        (pair,), for messages.
    synapses : sequence of str
        (synapse,), for messages.
    sign : ndarray
        (pair,) +1 or -1.
    n_synapses : ndarray
        (synapse,) mean number of synapses.
    """

    cell_types: Sequence[str]
    pairs: Sequence[str]
    synapses: Sequence[str]
    sign: NDArray[np.float64]
    n_synapses: NDArray[np.float64]

    def labels(self) -> dict[str, Sequence[str]]:
        """Labels of the numbers of each tensor of a checkpoint."""
        return {
            PARAMETERS["bias"]: self.cell_types,
            PARAMETERS["time_constant"]: self.cell_types,
            PARAMETERS["synapse_strength"]: self.pairs,
            SIGN: self.pairs,
            LOG_COUNT: self.synapses,
        }


@dataclass(frozen=True)
class Model:
    """One model, from its best checkpoint.

    Attributes
    ----------
    name : str
        ``"flow/0000/000"`` where the directories above are named so.
    checkpoint : str
        File that was read, relative to the model's directory.
    is_guess : bool
        There are several checkpoints and nothing says which is best, so the last one was read.
    task_error : float
        Lowest validation error over checkpoints; NaN where unknown.
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
    """One ensemble as it was found.

    Attributes
    ----------
    location : str
        Where it was found; for a zip the path inside follows the path of the zip.
    measure : str or None
        File of ``validation`` that the task errors are from; None if there is none.
    models : list of Model
        In the order of their directories.
    """

    location: str
    measure: str | None
    models: list[Model]


def read_results(path: str | os.PathLike[str], layout: Layout) -> Results:
    """Read the best checkpoint of every model of an ensemble.

    Parameters
    ----------
    path
        Directory of an ensemble, of one model, or a directory with a single ensemble up to four levels below
        it; a zip of one of these; or a place inside a zip, as in ``results.zip/results/flow/0000``.
    layout
        What the checkpoints must fit.

    Returns
    -------
    Results
        A model's best checkpoint is ``best_chkpt`` where that is present, else the one with the lowest
        validation error by ``epe.h5`` if every model has that file, else by ``loss.h5``; else the last one.

    Raises
    ------
    FileNotFoundError
        If there is no such path, on disk or inside the zip.
    EnsembleError
        If there is no ensemble or more than one; if a checkpoint or a file of validation errors is missing,
        truncated, does not fit, or would run code. One error names all of them.

    Notes
    -----
    Lappalainen et al. 2024, Nature 634, 1132-1140; the layout is that of flyvis 1.2.

    Examples
    --------
    >>> layout = Layout(["R1"], ["R1 > L1"], ["R1 > L1 (0, 0)"], np.array([-1.0]), np.array([40.0]))
    >>> read_results("nowhere", layout)
    Traceback (most recent call last):
        ...
    flyxr.errors.MissingError: nowhere: no such file or directory
    """
    with _open_tree(Path(path).expanduser()) as (tree, start):
        ensemble, directories = _find_ensemble(tree, start)
        measure = _choose_measure(tree, directories)
        models: list[Model] = []
        problems: list[str | Problem] = []
        for directory in directories:
            try:
                losses = _read_losses(tree, directory, measure)
            except EnsembleError as error:
                problems += error.problems
                losses = np.empty(0)
            try:
                checkpoint, is_guess = _choose_checkpoint(tree, directory, losses)
                tensors = _read_checkpoint(tree, join(directory, checkpoint))
            except EnsembleError as error:
                problems += error.problems
                continue
            label = tree.label(join(directory, checkpoint))
            misfits = [misfit._replace(text=f"{label}: {misfit.text}") for misfit in _misfits(tensors, layout)]
            problems += misfits
            if not misfits:
                name = _model_name(tree.parts(directory))
                parameters = {parameter: tensors[key] for parameter, key in PARAMETERS.items()}
                models.append(Model(name, checkpoint, is_guess, _lowest(losses), parameters))
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''} with {len(directories)} models"
        raise_problems(EnsembleError, f"{tree.label(ensemble)}: {count}", problems)
        return Results(tree.label(ensemble), measure, models)


class _Tree(Protocol):
    """Named files, on disk or in a zip; paths are relative with slashes, and the top is the empty path."""

    def children(self, path: str) -> tuple[list[str], list[str]]:
        """Names of the directories and of the files at a path; none if there is no such directory."""

    def size(self, path: str) -> int:
        """Size of a file in bytes."""

    def read(self, path: str) -> bytes:
        """Content of a file."""

    def label(self, path: str) -> str:
        """Name of a path for people."""

    def parts(self, path: str) -> tuple[str, ...]:
        """Names of all directories on the way to a path, as far as they are known."""


class _Directory:
    def __init__(self, top: Path) -> None:
        self.top = top

    def children(self, path: str) -> tuple[list[str], list[str]]:
        if not (self.top / path).is_dir():
            return [], []
        directories: list[str] = []
        files: list[str] = []
        with os.scandir(self.top / path) as entries:
            for entry in entries:
                (directories if entry.is_dir() else files).append(entry.name)
        return _visible(directories), _visible(files)

    def size(self, path: str) -> int:
        return (self.top / path).stat().st_size

    def read(self, path: str) -> bytes:
        return (self.top / path).read_bytes()

    def label(self, path: str) -> str:
        return str(self.top / path)

    def parts(self, path: str) -> tuple[str, ...]:
        return Path(os.path.abspath(self.top / path)).parts  # without the .. of a relative path


class _Zip:
    def __init__(self, archive: zipfile.ZipFile) -> None:
        self.archive = archive
        self.files = {member.filename: member for member in archive.infolist() if not member.is_dir()}
        self.directories: dict[str, set[str]] = {"": set()}
        for name in archive.namelist():
            parts = name.split("/")[:-1]  # a directory's own name ends with a slash
            for depth, part in enumerate(parts):
                self.directories.setdefault("/".join(parts[: depth + 1]), set())
                self.directories["/".join(parts[:depth])].add(part)
        self.files_in: dict[str, list[str]] = {}
        for name in self.files:
            directory, _, file = name.rpartition("/")
            self.files_in.setdefault(directory, []).append(file)

    def children(self, path: str) -> tuple[list[str], list[str]]:
        return _visible(self.directories.get(path, ())), _visible(self.files_in.get(path, ()))

    def size(self, path: str) -> int:
        return self.files[path].file_size  # reading stops there, whatever follows

    def read(self, path: str) -> bytes:
        return self.archive.read(self.files[path])

    def label(self, path: str) -> str:
        return join(str(self.archive.filename), path) if path else str(self.archive.filename)

    def parts(self, path: str) -> tuple[str, ...]:
        return tuple(path.split("/"))


def _visible(names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if not name.startswith(".") and name != "__MACOSX")


@contextmanager
def _open_tree(path: Path) -> Iterator[tuple[_Tree, str]]:
    """Tree that a path points into, and the path inside it."""
    if path.is_dir():
        yield _Directory(path), ""
        return
    file = next((place for place in (path, *path.parents) if place.is_file()), None)
    if file is None:
        raise MissingError(f"{path}: no such file or directory")
    try:
        archive = zipfile.ZipFile(file)
        # Of a truncated zip, the last checkpoint in it, which is a zip as well, would be opened in its place.
        if min((member.header_offset for member in archive.infolist()), default=0) > 0:
            archive.close()
            raise zipfile.BadZipFile("File is truncated")
    except zipfile.BadZipFile as error:
        raise EnsembleError(
            Problem(
                f"{file}: expected a directory or a whole zip of flyvis results, got neither ({error})",
                "if it is a zip, copy or download it again",
            )
        ) from None
    with archive:
        tree = _Zip(archive)
        inside = "/".join(path.relative_to(file).parts)
        if inside not in tree.directories:
            raise MissingError(f"{path}: no directory {inside} in {file}")
        yield tree, inside


def _find_ensemble(tree: _Tree, start: str) -> tuple[str, list[str]]:
    """Path of the only ensemble at or below a path, and the paths of all its models."""
    if _has_checkpoints(tree, start):
        return start, [start]
    found = list(_ensembles(tree, start, _MAX_DEPTH))
    if not found:
        raise EnsembleError(
            Problem(
                f"{tree.label(start)}: expected an ensemble as flyvis stores it (directories 000, 001, ... with "
                "best_chkpt or chkpts/chkpt_00000 in each), got none",
                "give the path of the directory of the models",
            )
        )
    if len(found) > 1:
        several = f"{tree.label(start)}: expected one ensemble, got {len(found)}: choose one by its path"
        raise EnsembleError(*map(tree.label, found), heading=several)
    names = [
        name for name in tree.children(found[0])[0] if name.isdigit() or _has_checkpoints(tree, join(found[0], name))
    ]
    return found[0], [join(found[0], name) for name in sorted(names, key=lambda name: (len(name), name))]


def _ensembles(tree: _Tree, path: str, depth: int) -> Iterator[str]:
    names = tree.children(path)[0]
    if any(_is_model(tree, path, name) for name in names):
        yield path
    elif depth:
        for name in names:
            yield from _ensembles(tree, join(path, name), depth - 1)


def _is_model(tree: _Tree, path: str, name: str) -> bool:
    """Whether a directory has to be a model's, even if its checkpoints are missing."""
    model = join(path, name)
    return _has_checkpoints(tree, model) or (name.isdigit() and "validation" in tree.children(model)[0])


def _has_checkpoints(tree: _Tree, path: str) -> bool:
    directories, files = tree.children(path)
    return "best_chkpt" in files or "chkpts" in directories


def _model_name(parts: tuple[str, ...]) -> str:
    """Name of a model as flyvis gives it: task, number of the ensemble, number of the model."""
    return "/".join(parts[-3:]) if len(parts) > 1 and parts[-2].isdigit() else parts[-1]


def _choose_measure(tree: _Tree, models: list[str]) -> str | None:
    """First measure that every model has, else the last one that any model has."""
    present = [tree.children(join(model, "validation"))[1] for model in models]
    held = {name: [f"{name}.h5" in files for files in present] for name in MEASURES}
    ranked = [name for name in MEASURES if all(held[name])] + [name for name in MEASURES[::-1] if any(held[name])]
    return ranked[0] if ranked else None


def _read_losses(tree: _Tree, model: str, measure: str | None) -> NDArray[np.float64]:
    """Get the validation error at each checkpoint; empty where there is none."""
    directory = join(model, "validation")
    if f"{measure}.h5" not in tree.children(directory)[1]:
        return np.empty(0)
    return _read_numbers(tree, join(directory, f"{measure}.h5"))


def _lowest(losses: NDArray[np.float64]) -> float:
    return float(np.nanmin(losses)) if np.isfinite(losses).any() else np.nan


def _choose_checkpoint(tree: _Tree, model: str, losses: NDArray[np.float64]) -> tuple[str, bool]:
    """File of the best checkpoint, and whether that is a guess."""
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
        numbers = _read_numbers(tree, join(model, "chkpt_index.h5")).tolist()
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


def _read(tree: _Tree, path: str) -> bytes:
    try:
        _check_size(tree.label(path), tree.size(path))
        return tree.read(path)
    except (OSError, RuntimeError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise EnsembleError(
            Problem(
                f"{tree.label(path)}: expected a readable file, got {type(error).__name__} ({error})", "copy it again"
            )
        ) from None


def _check_size(label: str, size: int) -> None:
    if size > MAX_BYTES:
        raise EnsembleError(
            Problem(f"{label}: expected at most {MAX_BYTES:,} bytes, got {size:,}", "it is no file of flyvis")
        )


def _read_numbers(tree: _Tree, path: str) -> NDArray[np.float64]:
    """Content of an HDF5 file of flyvis, which holds one dataset ``data``; NaN where not finite."""
    import h5py

    content, label = _read(tree, path), tree.label(path)
    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            data = file["data"]
            _check_size(label, data.nbytes)  # a compressed dataset may be larger than its file
            numbers = np.atleast_1d(data[()]).astype(np.float64).ravel()
    except EnsembleError:
        raise
    except (OSError, KeyError, AttributeError, TypeError, ValueError, RuntimeError) as error:
        raise EnsembleError(
            Problem(
                f"{label}: expected an HDF5 file with numbers in 'data', got one that cannot be read "
                f"({str(error).strip()})",
                "copy it again",
            )
        ) from None
    return np.where(np.isfinite(numbers), numbers, np.nan)


def _read_checkpoint(tree: _Tree, path: str) -> dict[str, NDArray[np.float64]]:
    """Tensors of a checkpoint's network; those of decoders are not looked at."""
    import torch

    content, label = _read(tree, path), tree.label(path)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            _check_size(label, sum(member.file_size for member in archive.infolist()))
            damaged = archive.testzip()  # torch does not compare checksums
    except (OSError, RuntimeError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise EnsembleError(
            Problem(
                f"{label}: expected a checkpoint of torch (a zip archive), got {len(content)} bytes that are none "
                f"({error})",
                "it may be truncated, copy it again",
            )
        ) from None
    if damaged:
        raise EnsembleError(
            Problem(f"{label}: expected a whole file, got another checksum of {damaged}", "copy it again")
        )
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds on broken files
        raise EnsembleError(_refusal(label, error)) from None
    network = state.get("network") if isinstance(state, dict) else None
    if not isinstance(network, dict) or not all(isinstance(value, torch.Tensor) for value in network.values()):
        got = f"the keys {', '.join(map(str, state))}" if isinstance(state, dict) else type(state).__name__
        raise EnsembleError(
            Problem(f"{label}: expected tensors under 'network', got {got}", "it is no checkpoint of flyvis")
        )
    try:
        if all(value.numel() <= MAX_BYTES // 8 for value in network.values()):  # a view may be larger than its file
            return {str(key): np.asarray(value.detach().double().numpy()) for key, value in network.items()}
        reason = "too many"
    except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:
        reason = str(error)
    raise EnsembleError(f"{label}: expected dense tensors of real numbers, got others ({reason})")


def _refusal(label: str, error: Exception) -> Problem:
    """Why torch did not open a checkpoint, without its advice to trust the file."""
    code = re.search(r"GLOBAL ([\w.]+)", str(error))
    if code:
        return Problem(
            f"{label}: expected tensors only, got a pickle that would run code ({code[1]}), so it was not opened",
            "get the file from a source you trust",
        )
    first_line = str(error).strip().split("\n")[0][:120]
    return Problem(
        f"{label}: expected a checkpoint of torch, got one that cannot be read ({type(error).__name__}: {first_line})",
        "copy it again",
    )


def _misfits(tensors: dict[str, NDArray[np.float64]], layout: Layout) -> Iterator[Problem]:
    """Everything in which a checkpoint differs from what a layout asks for."""
    expected = layout.labels()
    if tensors.keys() != expected.keys():
        got = ", ".join(tensors) or "none"
        text = f"expected the tensors {', '.join(expected)}, got {got}"
        yield Problem(text, "it is a checkpoint of another kind of model")
    fitting = {}
    for key, labels in expected.items():
        if key in tensors and tensors[key].shape == (len(labels),):
            fitting[key] = tensors[key]
        elif key in tensors:
            text = f"expected {key} with shape ({len(labels)},), got {tensors[key].shape}"
            yield Problem(text, *_OTHER_CONNECTOME)
    for key in PARAMETERS.values():
        wrong = ~np.isfinite(fitting.get(key, np.empty(0)))
        if wrong.any():
            where = _name_some(expected[key], wrong)
            text = f"expected {key} finite, got {fitting[key][wrong][0]} for {where}"
            yield Problem(text, "take another checkpoint")
    if SIGN in fitting:
        wrong = fitting[SIGN] != layout.sign
        if wrong.any():
            yield Problem(
                f"expected {SIGN} as in the connectome, {layout.sign[wrong][0]:+g} for "
                f"{_name_some(layout.pairs, wrong)}, got {fitting[SIGN][wrong][0]:+g}",
                *_OTHER_CONNECTOME,
            )
    if LOG_COUNT in fitting:
        with np.errstate(over="ignore"):
            count = np.exp(fitting[LOG_COUNT])
        wrong = ~np.isclose(count, layout.n_synapses, rtol=_COUNT_RTOL, atol=0)
        if wrong.any():
            yield Problem(
                f"expected {LOG_COUNT} as in the connectome, log of {layout.n_synapses[wrong][0]:g} for "
                f"{_name_some(layout.synapses, wrong)}, got log of {count[wrong][0]:g}",
                *_OTHER_CONNECTOME,
            )


def _name_some(labels: Sequence[str], wrong: NDArray[np.bool_]) -> str:
    positions = np.flatnonzero(wrong).tolist()
    more = f" and {len(positions) - 1} more" if len(positions) > 1 else ""
    return f"{labels[positions[0]]}{more}"
