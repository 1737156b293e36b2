"""The ledger of a sweep: what the store is of and what is done of it, in a journal.

It lies inside the array ``response``, where zarr looks for nothing. A line has one of the keys ``inputs`` (what the
store is of, with its ``labels``; again whenever it is extended), ``labels`` alone (other labels for the same),
``files_say`` (the labels and shapes that the zarr files have now, and the sizes of these ``files``), ``run`` (who began
to write, and with what), ``stimulus`` (samples whose luminance is written), ``block`` (a model's samples whose
responses are written) and ``made`` (attributes of a store that is complete).

The ledger is what counts: a line is entered before the files that it is about change, or after those that it says are
written, so that a process may die at any moment.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flyxr import identity
from flyxr.errors import FlyxrError, InputError, Problem
from flyxr.store import journal
from flyxr.store.files import StoredFile

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

PLACE = Path("response", "sweep.jsonl")
_HEAD_BYTES = 64


class LedgerError(FlyxrError, ValueError):
    """A ledger that cannot be read."""


@dataclass
class Ledger:
    """What a ledger says.

    ``labels`` are the coordinates and attributes as text, None in version 0.1. ``done`` and ``seconds`` are (model,
    sample), ``seen`` (sample,) says whose luminance is written, ``hashes`` are those of the samples' luminance;
    ``shards`` are the files by path, and ``written`` the (model, first sample, last sample + 1) that are in each, model
    -1 for luminance; ``runs`` are who wrote, oldest first; ``largest_error`` is what storing with fewer bits changed at
    most; ``made`` are the attributes that a complete store has, and ``files_say`` is what :attr:`says` was when the
    zarr files were last written; ``label_files`` are the sizes of these files, and ``coords`` the names of all
    coordinates that the store ever had.
    """

    inputs: dict[str, Any] = field(default_factory=dict)
    labels: dict[str, Any] | None = None
    done: NDArray[np.bool_] = field(default_factory=lambda: np.zeros((0, 0), dtype=bool))
    seconds: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))
    seen: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, dtype=bool))
    hashes: dict[int, str] = field(default_factory=dict)
    shards: dict[str, StoredFile] = field(default_factory=dict)
    written: dict[str, list[tuple[int, int, int]]] = field(default_factory=dict)
    runs: list[dict[str, Any]] = field(default_factory=list)
    largest_error: float = 0.0
    made: dict[str, Any] | None = None
    files_say: str = ""
    label_files: dict[str, int] = field(default_factory=dict)
    coords: set[str] = field(default_factory=set)

    @property
    def is_complete(self) -> bool:
        """Whether all responses are there, what made them is noted, and the zarr files have these labels, too."""
        is_said = self.made is not None and self.files_say == self.says
        return bool(self.done.all() and self.seen.all()) and (is_said or self.labels is None)

    @property
    def says(self) -> str:
        """Digest of all that the zarr files repeat of the ledger: shapes, labels, attributes."""
        return identity.digest(json.dumps([self.done.shape, self.labels, self.made]).encode())

    def grow(self, inputs: dict[str, Any]) -> None:
        """Take other inputs, with as many models and samples or more; the new ones are not done."""
        n_models, n_samples = len(inputs["models"]), int(inputs["n_samples"])
        more = ((0, n_models - self.done.shape[0]), (0, n_samples - self.done.shape[1]))
        self.inputs, self.done = inputs, np.pad(self.done, more)
        self.seconds = np.pad(self.seconds, more, constant_values=np.nan)
        self.seen = np.pad(self.seen, more[1])
        if more != ((0, 0), (0, 0)):
            self.made = None

    def missing(self, size: int) -> Iterator[tuple[int, int, int]]:
        """Model, first and last + 1 of the samples that are not done, a block of ``size`` samples after the other."""
        for first in range(0, self.seen.size, size):
            for model, done in enumerate(self.done[:, first : first + size]):
                gaps = np.flatnonzero(~done)
                if gaps.size:
                    yield model, first + int(gaps[0]), first + int(gaps[-1]) + 1

    def enter(self, line: dict[str, Any]) -> None:
        """Take what a line says."""
        if "inputs" in line:
            self.grow(dict(line["inputs"]))
            if "labels" in line:
                self._take_labels(line["labels"])
        elif "labels" in line:
            self._take_labels(line["labels"])
        elif "files_say" in line:
            self.files_say = str(line["files_say"])
            self.label_files = dict(line["files"])
        elif "made" in line:
            self.made = dict(line["made"])
        elif "run" in line:
            self.runs.append(dict(line["run"]))
        else:
            self._enter_file(line)

    def _take_labels(self, labels: dict[str, Any]) -> None:
        self.labels = dict(labels)
        self.coords |= set(labels["coords"])

    def _enter_file(self, line: dict[str, Any]) -> None:
        shard = StoredFile(*line["shard"])
        shard = shard._replace(path=shard.path.replace("\\", "/"))  # version 0.1 wrote the separator of the system
        self.shards[shard.path] = shard
        if "stimulus" in line:
            model, first = -1, int(line["stimulus"])
            stop = first + len(line["hashes"])
            self.hashes |= dict(enumerate(line["hashes"], first))
            self.seen[first:stop] = True
        else:
            model, first, stop = map(int, line["block"])
            self.done[model, first:stop] = True
            self.seconds[model, first:stop] = float(line["seconds"]) / (stop - first)
            self.largest_error = max(self.largest_error, float(line["error"]))
        self.written.setdefault(shard.path, []).append((model, first, stop))

    @property
    def files(self) -> list[str]:
        """Paths of all files that are known to have been written."""
        return [*self.shards, *self.label_files]

    def lose(self, there: Mapping[str, tuple[int, int]]) -> list[str]:
        """Take for not done what is in files that are not there, or have another size; gives these files.

        Parameters
        ----------
        there
            Size in bytes and time in ns of each of :attr:`files` that is there, by path.
        """
        sizes = {path: n_bytes for path, (n_bytes, _) in there.items()}
        lost = [shard for shard in self.shards.values() if sizes.get(shard.path) != shard.n_bytes]
        for shard in lost:
            self.forget(shard)
        labels = [path for path, n_bytes in self.label_files.items() if sizes.get(path) != n_bytes]
        if labels and self.files_say == self.says:
            self.files_say = ""
            return [*labels, *(shard.path for shard in lost)]
        return [shard.path for shard in lost]

    def forget(self, shard: StoredFile) -> None:
        """Take what a file holds for not done."""
        for model, first, stop in self.written.pop(shard.path, []):
            if model < 0:
                self.seen[first:stop] = False
            else:
                self.done[model, first:stop] = False
                self.seconds[model, first:stop] = np.nan
        self.shards.pop(shard.path, None)


def read(store: str | Path) -> Ledger | None:
    """Ledger of a store; None where there is none.

    Raises
    ------
    LedgerError
        A ValueError. If it is no ledger.

    Examples
    --------
    >>> read("/nowhere") is None
    True
    """
    path = Path(store) / PLACE
    if not path.is_file():
        return None
    found = Ledger()
    try:
        lines = journal.read(path)
        if not lines or "inputs" not in lines[0]:
            raise InputError("expected the inputs first")
        for line in lines:
            found.enter(line)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise LedgerError(
            Problem(
                f"{path} is no ledger of a sweep ({type(error).__name__}: {error})",
                "restore it from a copy, or compute the store anew with overwrite=True",
                "restore it from a copy, or compute the store anew with --overwrite",
            )
        ) from error
    return found


def append(store: str | Path, **line: Any) -> None:
    """Write one more line, whole or not at all, and wait until it is on the disk."""
    journal.append(Path(store) / PLACE, **line)


def mend(store: str | Path) -> None:
    """Remove a last line that was cut off, so that the next one begins on its own."""
    journal.mend(Path(store) / PLACE)


def store_id(store: str | Path) -> str:
    """What tells a store from another one that takes its place; without reading the whole ledger.

    Stores of version 0.1 have no name of their own, and go by the file of their ledger.
    """
    path = Path(store) / PLACE
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if head.startswith(b'{"id": "'):
        return head.split(b'"')[3].decode()
    return f"inode-{path.stat().st_ino}"
