"""A journal: JSON objects, a line each, in a file that is only ever appended to.

A line is on the disk when :func:`append` returns. A last line that was cut off, by a crash or by a loss of power, is as
if it had not been written.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from flyxr.errors import FlyxrError, Problem


class JournalError(FlyxrError, ValueError):
    """A journal that cannot be read."""


def read(path: str | Path) -> list[dict[str, Any]]:
    """All whole lines, oldest first.

    Raises
    ------
    JournalError
        A ValueError. If a line before the last is no JSON object.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "journal.jsonl"
    >>> append(path, run=1)
    >>> _ = path.write_bytes(path.read_bytes() + b'{"cut o')
    >>> read(path)
    [{'run': 1}]
    """
    lines = []
    for number, line in enumerate(Path(path).read_bytes().split(b"\n")[:-1], 1):  # what has no end was cut off
        try:
            found = json.loads(line)
        except ValueError as error:
            raise JournalError(Problem(f"line {number} of {path} is no JSON ({error})", "restore it")) from error
        if not isinstance(found, dict):
            raise JournalError(Problem(f"expected an object in line {number} of {path}, got {found!r}", "restore it"))
        lines.append(found)
    return lines


def append(path: str | Path, **line: Any) -> None:
    """Write one more line, whole or not at all, and wait until it is on the disk."""
    with Path(path).open("ab") as file:
        end = file.tell()
        try:
            file.write(json.dumps(line).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        except OSError:
            os.truncate(path, end)
            raise


def mend(path: str | Path) -> None:
    """Remove a last line that was cut off, so that the next one begins on its own."""
    content = Path(path).read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)
