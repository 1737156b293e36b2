"""A journal: an append-only file with one JSON object per line.

A line is on the disk when :func:`append` returns. A last line that a crash or a loss of power cut off is ignored.

Object storage cannot append to an object. There a journal is a sequence of objects, ``sweep.jsonl``,
``sweep.jsonl.1``, ``sweep.jsonl.2``, …, of up to :data:`SEGMENT_LINES` lines each, the last of which is replaced as a
whole for each line.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flyxr.errors import FlyxrError, Problem
from flyxr.store import places

if TYPE_CHECKING:
    from collections.abc import Iterator

    from upath import UPath

    from flyxr.store.places import Place

SEGMENT_LINES = 256
"""Lines of an object of a journal in object storage: more make appending slower, fewer make reading slower."""
MAX_BYTES = 2**30
"""Largest journal file that is read, bytes."""

_last_segments: dict[str, int] = {}
"""Last known segment of journals in object storage, by URL; the journal may have grown since."""


class JournalError(FlyxrError, ValueError):
    """The journal cannot be read."""


def read(path: Place | str) -> list[dict[str, Any]]:
    """All complete lines, oldest first.

    Raises
    ------
    JournalError
        A ValueError. If a complete line is not a JSON object.
    RemoteError
        An OSError. If it cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "journal.jsonl"
    >>> append(path, run=1)
    >>> _ = path.write_bytes(path.read_bytes() + b'{"cut o')
    >>> read(path)
    [{'run': 1}]
    """
    path = path if places.is_remote(path) else Path(str(path))
    content = b"".join(segment for _, segment in _segments(path)) if places.is_remote(path) else _read_file(path)
    entries = []
    for number, line in enumerate(content.split(b"\n")[:-1], 1):  # the rest was cut off
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise JournalError(Problem(f"line {number} of {path} is not JSON ({error})", "restore it")) from error
        if not isinstance(entry, dict):
            raise JournalError(Problem(f"expected an object in line {number} of {path}, got {entry!r}", "restore it"))
        entries.append(entry)
    return entries


def append(path: Place | str, **entry: Any) -> None:
    """Append an entry, completely or not at all, and wait until it is on the disk."""
    line = json.dumps(entry).encode() + b"\n"
    if places.is_remote(path):
        _append_remote(path, line)
        return
    with Path(str(path)).open("ab") as file:
        end = file.tell()
        try:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        except OSError:
            os.truncate(str(path), end)
            raise


def repair(path: Place) -> None:
    """Remove a last line that was cut off, so that the next entry starts on a new line."""
    if places.is_remote(path):  # objects are complete
        return
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    if end < len(content):
        os.truncate(str(path), end)


def _read_file(path: Place) -> bytes:
    return places.read_bytes(path, MAX_BYTES)


def _segment(path: UPath, number: int) -> UPath:
    return path if number == 0 else path.parent / f"{path.name}.{number}"


def _segments(path: UPath, first: int = 0) -> Iterator[tuple[int, bytes]]:
    """Numbers and contents of the objects of a journal."""
    number = first
    while True:
        try:
            yield number, _read_file(_segment(path, number))
        except FileNotFoundError:
            return
        number += 1


def _append_remote(path: UPath, line: bytes) -> None:
    number, content = 0, b""
    for number, content in _segments(path, _last_segments.get(str(path), 0)):  # noqa: B007
        pass
    if content.count(b"\n") >= SEGMENT_LINES:
        number, content = number + 1, b""
    places.write_bytes(_segment(path, number), content + line)
    _last_segments[str(path)] = number
