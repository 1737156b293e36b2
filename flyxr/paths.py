"""Paths as people give them: one function for all of them, which also knows URLs."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from flyxr.errors import InputError, Problem

_URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+:[:/]")
"""A scheme of two letters or more, so that ``C:/`` is a drive; a Path joins the two slashes to one."""


def is_url(path: Any) -> bool:
    """Whether a path is a URL of another place than this machine.

    Examples
    --------
    >>> is_url("s3://bucket/responses.zarr"), is_url("C:/responses.zarr"), is_url("file:///tmp/responses.zarr")
    (True, False, False)
    """
    text = str(path) if isinstance(path, (str, os.PathLike)) else ""
    return bool(_URL.match(text)) and not text.lower().startswith("file:/")


def local_path(path: Any, name: str = "path") -> Path:
    """Path on this machine, with ``~`` expanded and ``file://`` understood.

    Parameters
    ----------
    path
        Text or a path.
    name
        What an error calls it.

    Raises
    ------
    InputError
        If it is neither, is empty, or is a URL of another place: a URL is never taken for the name of a folder.

    Examples
    --------
    >>> local_path("file:///tmp/a%20b.zarr").as_posix()
    '/tmp/a b.zarr'
    >>> local_path("s3://bucket/responses.zarr")
    Traceback (most recent call last):
        ...
    flyxr.errors.InputError: expected a path on this machine, got the URL s3://bucket/responses.zarr: ...
    """
    if not isinstance(path, (str, os.PathLike)) or not isinstance(text := os.fspath(path), str) or not text:
        raise InputError(f"expected {name} as text or a pathlib.Path, got {path!r}")
    if text.lower().startswith("file:/"):
        parts = urlsplit(text)
        if parts.netloc in ("", "localhost"):
            return Path(unquote(parts.path))
    if _URL.match(text):
        raise InputError(
            Problem(
                f"expected a path on this machine, got the URL {text}",
                "fx.open, fx.open_ensemble, fx.save, fx.sweep and fx.catalog take URLs; copy other data here",
            )
        )
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise InputError(f"expected {name} in a home folder that exists, got {text} ({error})") from error
