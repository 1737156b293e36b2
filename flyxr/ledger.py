"""The ledger of a sweep: what is done of a store, in a file that is only ever appended to.

It lies inside the array ``response``, where zarr looks for nothing. A line is a JSON object with one of the keys
``inputs`` (what the store is made of, again whenever it is extended), ``run`` (who began to write, and when),
``stimulus`` (samples whose luminance is written) and ``block`` (a model's samples whose responses are written). A last
line that was cut off by a crash is as if it had not been written.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

PLACE = Path("response", "sweep.jsonl")
_READ_BYTES = 2**22


class LedgerError(ValueError):
    """A ledger that cannot be read."""


class Shard(NamedTuple):
    """A file of the store as it was written: path in the store, size in bytes, time in ns, and checksum."""

    path: str
    n_bytes: int
    mtime_ns: int
    crc32c: int


@dataclass
class Ledger:
    """What a ledger says.

    ``done`` and ``seconds`` are (model, sample), ``seen`` (sample,) says whose luminance is written, ``hashes`` are
    those of the samples' luminance; ``shards`` are the files by path, and ``written`` the (model, first sample, last
    sample + 1) that are in each, model -1 for luminance; ``runs`` are who wrote, oldest first; ``largest_error`` is
    what storing with fewer bits changed at most.
    """

    inputs: dict[str, Any]
    done: NDArray[np.bool_] = field(default_factory=lambda: np.zeros((0, 0), dtype=bool))
    seconds: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))
    seen: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, dtype=bool))
    hashes: dict[int, str] = field(default_factory=dict)
    shards: dict[str, Shard] = field(default_factory=dict)
    written: dict[str, list[tuple[int, int, int]]] = field(default_factory=dict)
    runs: list[dict[str, Any]] = field(default_factory=list)
    largest_error: float = 0.0

    @property
    def complete(self) -> bool:
        """Whether the responses of all models to all samples are there."""
        return bool(self.done.all() and self.seen.all())

    def grow(self, inputs: dict[str, Any]) -> None:
        """Take other inputs, with as many models and samples or more; the new ones are not done."""
        n_models, n_samples = len(inputs["models"]), int(inputs["n_samples"])
        more = ((0, n_models - self.done.shape[0]), (0, n_samples - self.done.shape[1]))
        self.inputs, self.done = inputs, np.pad(self.done, more)
        self.seconds = np.pad(self.seconds, more, constant_values=np.nan)
        self.seen = np.pad(self.seen, more[1])

    def missing(self, size: int) -> Iterator[tuple[int, int, int]]:
        """Model, first and last + 1 of the samples that are not done, a block of ``size`` samples after the other."""
        for first in range(0, self.seen.size, size):
            for model, done in enumerate(self.done[:, first : first + size]):
                gaps = np.flatnonzero(~done)
                if gaps.size:
                    yield model, first + int(gaps[0]), first + int(gaps[-1]) + 1

    def enter(self, line: dict[str, Any]) -> None:
        """Take what a line says is done."""
        shard = Shard(*line["shard"])
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

    def forget(self, shard: Shard) -> None:
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
        If it is no ledger.

    Examples
    --------
    >>> read("/nowhere") is None
    True
    """
    path = Path(store) / PLACE
    if not path.is_file():
        return None
    lines = path.read_bytes().split(b"\n")[:-1]  # what has no end of line was cut off
    found: Ledger | None = None
    try:
        for line in lines:
            found = _take(found, json.loads(line))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise LedgerError(
            f"{path} is no ledger of a sweep ({type(error).__name__}: {error}): restore it from a copy, or compute the "
            "store anew with overwrite=True"
        ) from error
    return found


def _take(found: Ledger | None, line: dict[str, Any]) -> Ledger:
    if "inputs" in line:
        found = found or Ledger({})
        found.grow(dict(line["inputs"]))
    elif found is None:
        raise ValueError("expected the inputs first")
    elif "run" in line:
        found.runs.append(dict(line["run"]))
    else:
        found.enter(line)
    return found


def append(store: str | Path, **line: Any) -> None:
    """Write one more line, whole or not at all."""
    path = Path(store) / PLACE
    with path.open("ab") as file:
        end = file.tell()
        try:
            file.write(json.dumps(line).encode() + b"\n")
            file.flush()
        except OSError:
            os.truncate(path, end)
            raise


def mend(store: str | Path) -> None:
    """Remove a last line that was cut off, so that the next one begins on its own."""
    path = Path(store) / PLACE
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)


def stamp(store: str | Path, path: str | Path) -> Shard:
    """Size, time and checksum of a file of a store."""
    file = Path(store) / path
    stat = file.stat()
    return Shard(str(path), stat.st_size, stat.st_mtime_ns, checksum(file))


def is_intact(store: str | Path, shard: Shard, *, verify: bool = False) -> bool:
    """Whether a file is as it was written.

    A file of another size is not; one that was touched since is compared by its checksum, as all are with ``verify``.
    """
    file = Path(store) / shard.path
    if not file.is_file():
        return False
    stat = file.stat()
    if stat.st_size != shard.n_bytes:
        return False
    return (stat.st_mtime_ns == shard.mtime_ns and not verify) or checksum(file) == shard.crc32c


def checksum(path: str | Path) -> int:
    """CRC-32C of a file."""
    import google_crc32c

    value = 0
    with Path(path).open("rb") as file:
        while part := file.read(_READ_BYTES):
            value = google_crc32c.extend(value, part)
    return int(value)
