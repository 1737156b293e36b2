"""A journal: an append-only file with one JSON object per line.

A line is on the disk when :func:`append` returns. A last line that a crash or a loss of power cut off is ignored.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from flyxr.errors import FlyxrError, Problem


class JournalError(FlyxrError, ValueError):
    """The journal cannot be read."""


def read(path: str | Path) -> list[dict[str, Any]]:
    """All complete lines, oldest first.

    Raises
    ------
    JournalError
        A ValueError. If a complete line is not a JSON object.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "journal.jsonl"
    >>> append(path, run=1)
    >>> _ = path.write_bytes(path.read_bytes() + b'{"cut o')
    >>> read(path)
    [{'run': 1}]
    """
    entries = []
    for number, line in enumerate(Path(path).read_bytes().split(b"\n")[:-1], 1):  # the rest was cut off
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise JournalError(Problem(f"line {number} of {path} is not JSON ({error})", "restore it")) from error
        if not isinstance(entry, dict):
            raise JournalError(Problem(f"expected an object in line {number} of {path}, got {entry!r}", "restore it"))
        entries.append(entry)
    return entries


def append(path: str | Path, **entry: Any) -> None:
    """Append an entry, completely or not at all, and wait until it is on the disk."""
    with Path(path).open("ab") as file:
        end = file.tell()
        try:
            file.write(json.dumps(entry).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        except OSError:
            os.truncate(path, end)
            raise


def repair(path: str | Path) -> None:
    """Remove a last line that was cut off, so that the next entry starts on a new line."""
    content = Path(path).read_bytes()
    end = content.rfind(b"\n") + 1
    if end < len(content):
        os.truncate(path, end)
