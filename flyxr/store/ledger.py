"""The ledger of a sweep: a journal of its inputs, and of the blocks that are written.

It lies in the folder of the array ``response``, where zarr ignores it. Each entry has one of these keys:

- ``inputs``: what is simulated, with its ``labels``; again whenever the sweep is extended
- ``labels`` alone: other labels for the same inputs
- ``files_say``: digest of the shapes and labels in the zarr files, with the sizes of these ``files``
- ``run``: who started to write, and with what
- ``stimulus``: samples whose luminance is written
- ``block``: samples of a model whose responses are written
- ``made``: attributes of the complete store

The ledger is the source of truth. An entry is recorded before the files that follow it change, or after the files that
it describes are written, so the process may die at any moment.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from flyxr import identity
from flyxr.errors import FlyxrError, InputError, Problem
from flyxr.store import journal, places
from flyxr.store.files import StoredFile

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from flyxr.store.places import Place

LEDGER_FILE = PurePosixPath("response", "sweep.jsonl")
MAX_RESPONSES = 2**24
"""Largest number of responses of a model to a sample in a store."""
_ID_BYTES = 64
_SHARD = re.compile(r"(response|luminance)/c(/[0-9]{1,18})+")


class LedgerError(FlyxrError, ValueError):
    """The ledger cannot be read."""


@dataclass
class Ledger:
    """State of a sweep according to its ledger.

    Attributes
    ----------
    inputs
        What is simulated.
    labels
        Coordinates and attributes as JSON; None in version 0.1.
    done : (model, sample)
        Whether the responses are written.
    seconds : (model, sample)
        Time that computing and writing took, s; NaN where it is not done.
    has_luminance : (sample,)
        Whether the luminance is written.
    sample_hashes
        Hash of the luminance, by sample.
    shards
        Files that are written, by path.
    shard_blocks
        (model, first sample, last sample + 1) of the blocks in each file, by path; model -1 for luminance.
    runs
        Who wrote, oldest first.
    largest_error
        Largest absolute error of rounding the responses.
    final_attrs
        Attributes of a complete store; None while it is incomplete.
    written_digest
        :attr:`labels_digest` when the zarr files of the labels were last written.
    label_files
        Sizes of these files, bytes, by path.
    coords
        Names of all coordinates that the store ever had.
    """

    inputs: dict[str, Any] = field(default_factory=dict)
    labels: dict[str, Any] | None = None
    done: NDArray[np.bool_] = field(default_factory=lambda: np.zeros((0, 0), dtype=bool))
    seconds: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))
    has_luminance: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, dtype=bool))
    sample_hashes: dict[int, str] = field(default_factory=dict)
    shards: dict[str, StoredFile] = field(default_factory=dict)
    shard_blocks: dict[str, list[tuple[int, int, int]]] = field(default_factory=dict)
    runs: list[dict[str, Any]] = field(default_factory=list)
    largest_error: float = 0.0
    final_attrs: dict[str, Any] | None = None
    written_digest: str = ""
    label_files: dict[str, int] = field(default_factory=dict)
    coords: set[str] = field(default_factory=set)

    @property
    def is_complete(self) -> bool:
        """Whether all responses, the final attributes and the current labels are in the zarr files."""
        has_labels = self.labels is None or (self.final_attrs is not None and self.written_digest == self.labels_digest)
        return bool(self.done.all() and self.has_luminance.all()) and has_labels

    @property
    def labels_digest(self) -> str:
        """Digest of what the zarr files repeat from the ledger: shapes, labels, attributes."""
        return identity.digest(json.dumps([self.done.shape, self.labels, self.final_attrs]).encode())

    @property
    def files(self) -> list[str]:
        """Paths of all files that were written."""
        return [*self.shards, *self.label_files]

    @property
    def n_done(self) -> int:
        """Number of responses of a model to a sample that are written."""
        return int(self.done.sum())

    def record(self, store: Place, **entry: Any) -> None:
        """Append an entry to the ledger of a store, wait until it is on the disk, and apply it."""
        journal.append(ledger_file(store), **entry)
        self.apply(entry)

    def apply(self, entry: dict[str, Any]) -> None:
        """Update the state with an entry."""
        if "inputs" in entry:
            self.extend(dict(entry["inputs"]))
            if "labels" in entry:
                self._set_labels(entry["labels"])
        elif "labels" in entry:
            self._set_labels(entry["labels"])
        elif "files_say" in entry:
            self.written_digest = str(entry["files_say"])
            self.label_files = dict(entry["files"])
        elif "made" in entry:
            self.final_attrs = dict(entry["made"])
        elif "run" in entry:
            self.runs.append(dict(entry["run"]))
        else:
            self._add_shard(entry)

    def extend(self, inputs: dict[str, Any]) -> None:
        """Set inputs with as many models and samples or more; the new ones are not done."""
        n_models, n_samples = len(inputs["models"]), int(inputs["n_samples"])
        if not (isinstance(inputs["models"], list) and 1 <= n_models * n_samples <= MAX_RESPONSES):
            raise InputError(
                f"expected from 1 to {MAX_RESPONSES:,} responses, got {n_models} models x {n_samples} samples"
            )
        if int(inputs["block_samples"]) < 1:
            raise InputError(f"expected at least one sample per block, got {inputs['block_samples']}")
        if int(inputs.get("chunk_types", 1)) < 1:
            raise InputError(f"expected at least one cell type per chunk, got {inputs['chunk_types']}")
        padding = ((0, n_models - self.done.shape[0]), (0, n_samples - self.done.shape[1]))
        self.inputs, self.done = inputs, np.pad(self.done, padding)
        self.seconds = np.pad(self.seconds, padding, constant_values=np.nan)
        self.has_luminance = np.pad(self.has_luminance, padding[1])
        if padding != ((0, 0), (0, 0)):
            self.final_attrs = None

    def _set_labels(self, labels: dict[str, Any]) -> None:
        # A sweep removes the folders of coordinates that are no longer there, so that names may not lead elsewhere.
        wrong = [name for name in labels["coords"] if re.search(r"[/\\]", name) or name in ("", ".", "..")]
        if wrong:
            raise InputError(f"expected names of coordinates, got {wrong[0]!r}")
        self.labels = dict(labels)
        self.coords |= set(labels["coords"])

    def _add_shard(self, entry: dict[str, Any]) -> None:
        shard = StoredFile(*entry["shard"])
        shard = shard._replace(path=shard.path.replace("\\", "/"))  # version 0.1 wrote the separator of the system
        if not _SHARD.fullmatch(shard.path):  # a sweep removes damaged files, so that paths may not lead elsewhere
            raise InputError(f"expected the path of a file of responses, got {shard.path!r}")
        self.shards[shard.path] = shard
        if "stimulus" in entry:
            model, first = -1, int(entry["stimulus"])
            stop = first + len(entry["hashes"])
            self.sample_hashes |= dict(enumerate(entry["hashes"], first))
            self.has_luminance[first:stop] = True
        else:
            model, first, stop = map(int, entry["block"])
            self.done[model, first:stop] = True
            self.seconds[model, first:stop] = float(entry["seconds"]) / (stop - first)
            self.largest_error = max(self.largest_error, float(entry["error"]))
        self.shard_blocks.setdefault(shard.path, []).append((model, first, stop))

    def missing_blocks(self, block_samples: int) -> Iterator[tuple[int, int, int]]:
        """Model, first sample and last sample + 1 of each block with responses that are not done."""
        for first in range(0, self.has_luminance.size, block_samples):
            for model, done in enumerate(self.done[:, first : first + block_samples]):
                missing = np.flatnonzero(~done)
                if missing.size:
                    yield model, first + int(missing[0]), first + int(missing[-1]) + 1

    def drop_missing_files(self, stats: Mapping[str, tuple[int, int]]) -> list[str]:
        """Mark the content of files that are missing or have another size as not done; return these files.

        Parameters
        ----------
        stats
            Size in bytes and mtime in ns of each of :attr:`files` that exists, by path.
        """
        sizes = {path: n_bytes for path, (n_bytes, _) in stats.items()}
        missing = [shard for shard in self.shards.values() if sizes.get(shard.path) != shard.n_bytes]
        for shard in missing:
            self.drop_shard(shard)
        label_files = [path for path, n_bytes in self.label_files.items() if sizes.get(path) != n_bytes]
        if label_files and self.written_digest == self.labels_digest:
            self.written_digest = ""
            return [*label_files, *(shard.path for shard in missing)]
        return [shard.path for shard in missing]

    def drop_shard(self, shard: StoredFile) -> None:
        """Mark the content of a file as not done."""
        for model, first, stop in self.shard_blocks.pop(shard.path, []):
            if model < 0:
                self.has_luminance[first:stop] = False
            else:
                self.done[model, first:stop] = False
                self.seconds[model, first:stop] = np.nan
        self.shards.pop(shard.path, None)


def ledger_file(store: Place | str) -> Place:
    """Path of the ledger of a store.

    Examples
    --------
    >>> ledger_file("responses.zarr").as_posix()
    'responses.zarr/response/sweep.jsonl'
    """
    place: Place = store if places.is_remote(store) else Path(str(store))
    return place / LEDGER_FILE.parent.name / LEDGER_FILE.name


def read_ledger(store: Place | str) -> Ledger | None:
    """Ledger of a store; None if it has none.

    Raises
    ------
    LedgerError
        A ValueError. If the file is not a ledger.

    Examples
    --------
    >>> read_ledger("/nowhere") is None
    True
    """
    path = ledger_file(store)
    if not places.is_remote(path) and not path.is_file():
        return None
    ledger = Ledger()
    try:
        entries = journal.read(path)
        if not entries and places.is_remote(path) and not places.exists(path):
            return None
        if not entries or "inputs" not in entries[0]:
            raise InputError("expected the inputs first")
        for entry in entries:
            ledger.apply(entry)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, ArithmeticError) as error:
        raise LedgerError(
            Problem(
                f"{path} is not the ledger of a sweep ({type(error).__name__}: {error})",
                "restore it from a copy, or recompute the store with overwrite=True",
                "restore it from a copy, or recompute the store with --overwrite",
            )
        ) from error
    return ledger


def repair_ledger(store: Place) -> None:
    """Remove a last line that was cut off, so that the next entry starts on a new line."""
    journal.repair(ledger_file(store))


def store_id(store: Place) -> str:
    """Identifier of a store, which differs from that of a store that replaces it; reads only the start of the ledger.

    Stores of version 0.1 have no identifier; the inode of their ledger takes its place.
    """
    path = ledger_file(store)
    start = places.read_bytes(path, span=(0, _ID_BYTES))
    if start.startswith(b'{"id": "'):
        return start.split(b'"')[3].decode()
    return f"inode-{path.stat().st_ino}"
