"""Files in a directory or in a zip, which is read in memory and never unpacked to disk."""

from __future__ import annotations

import io
import os
import zipfile
from contextlib import contextmanager
from pathlib import Path
from posixpath import join
from typing import TYPE_CHECKING, Protocol

import numpy as np

from flyxr.errors import FlyxrError, MissingError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

MAX_BYTES = 256 * 2**20
"""Size of the largest file that is read; checkpoints usually have 50 kB to some MB."""

MAX_DIRECTORIES = 32
"""Directories in the name of a file in a zip; a damaged zip may have thousands, which take long to list."""


class EnsembleError(FlyxrError, ValueError):
    """Files do not hold the expected ensemble; the message lists all problems."""


class FileTree(Protocol):
    """Named files, on disk or in a zip; paths are relative with slashes, and the top is the empty path."""

    max_bytes: int

    def children(self, path: str) -> tuple[list[str], list[str]]:
        """Names of the directories and of the files at a path; empty if there is no such directory."""

    def size(self, path: str) -> int:
        """Size of a file in bytes."""

    def read(self, path: str) -> bytes:
        """Content of a file."""

    def label(self, path: str) -> str:
        """Name of a path for messages."""

    def parts(self, path: str) -> tuple[str, ...]:
        """Names of all known directories down to a path."""


class _DirectoryTree:
    def __init__(self, top: Path, max_bytes: int) -> None:
        self.top = top
        self.max_bytes = max_bytes

    def children(self, path: str) -> tuple[list[str], list[str]]:
        if not (self.top / path).is_dir():
            return [], []
        directories: list[str] = []
        files: list[str] = []
        with os.scandir(self.top / path) as entries:
            for entry in entries:
                (directories if entry.is_dir() else files).append(entry.name)
        return _sort_visible(directories), _sort_visible(files)

    def size(self, path: str) -> int:
        return (self.top / path).stat().st_size

    def read(self, path: str) -> bytes:
        return (self.top / path).read_bytes()

    def label(self, path: str) -> str:
        return str(self.top / path)

    def parts(self, path: str) -> tuple[str, ...]:
        return Path(os.path.abspath(self.top / path)).parts  # without the .. of a relative path


class _ZipTree:
    def __init__(self, archive: zipfile.ZipFile, max_bytes: int) -> None:
        self.archive = archive
        self.max_bytes = max_bytes
        self.members = {member.filename: member for member in archive.infolist() if not member.is_dir()}
        self.directories: dict[str, set[str]] = {"": set()}
        for name in archive.namelist():
            parts = name.split("/")[:-1]  # the name of a directory ends with a slash
            if len(parts) > MAX_DIRECTORIES:
                raise zipfile.BadZipFile(f"names of {len(parts)} directories")
            for depth, part in enumerate(parts):
                self.directories.setdefault("/".join(parts[: depth + 1]), set())
                self.directories["/".join(parts[:depth])].add(part)
        self.files: dict[str, list[str]] = {}
        for name in self.members:
            directory, _, file = name.rpartition("/")
            self.files.setdefault(directory, []).append(file)

    def children(self, path: str) -> tuple[list[str], list[str]]:
        return _sort_visible(self.directories.get(path, ())), _sort_visible(self.files.get(path, ()))

    def size(self, path: str) -> int:
        return self.members[path].file_size  # zipfile reads no more than that

    def read(self, path: str) -> bytes:
        return self.archive.read(self.members[path])

    def label(self, path: str) -> str:
        return join(str(self.archive.filename), path) if path else str(self.archive.filename)

    def parts(self, path: str) -> tuple[str, ...]:
        return tuple(path.split("/"))


def _sort_visible(names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if not name.startswith(".") and name != "__MACOSX")


@contextmanager
def open_tree(path: Path, max_bytes: int = MAX_BYTES) -> Iterator[tuple[FileTree, str]]:
    """Open the directory or zip that a path points into; yields it and the path inside it.

    Raises
    ------
    FileNotFoundError
        If there is no such path, on disk or inside the zip.
    EnsembleError
        If the path is a file but not a whole zip.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, open_tree(Path(folder)) as (tree, inside):
    ...     tree.children(inside)
    ([], [])
    """
    if path.is_dir():
        yield _DirectoryTree(path, max_bytes), ""
        return
    file = next((candidate for candidate in (path, *path.parents) if candidate.is_file()), None)
    if file is None:
        raise MissingError(f"{path}: no such file or directory")
    try:
        archive = zipfile.ZipFile(file)
        # A truncated zip may end with a checkpoint, which is a zip too and would be opened instead.
        if min((member.header_offset for member in archive.infolist()), default=0) > 0:
            archive.close()
            raise zipfile.BadZipFile("File is truncated")
        tree = _ZipTree(archive, max_bytes)
    except Exception as error:  # zipfile raises many kinds on damaged files
        raise EnsembleError(
            Problem(
                f"{file}: expected a directory or a whole zip of flyvis results, got neither ({error})",
                "if it is a zip, copy or download it again",
            )
        ) from None
    with archive:
        inside = "/".join(path.relative_to(file).parts)
        if inside not in tree.directories:
            raise MissingError(f"{path}: no directory {inside} in {file}")
        yield tree, inside


def read_file(tree: FileTree, path: str) -> bytes:
    """Read a file of at most ``tree.max_bytes``.

    Raises
    ------
    EnsembleError
        If it is larger or cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     size = (Path(folder) / "best_chkpt").write_bytes(b"content")
    ...     with open_tree(Path(folder)) as (tree, _):
    ...         read_file(tree, "best_chkpt")
    b'content'
    """
    try:
        check_size(tree.label(path), tree.size(path), tree.max_bytes)
        return tree.read(path)
    except EnsembleError:
        raise
    except Exception as error:  # the system, zipfile and its compressors raise many kinds
        raise EnsembleError(
            Problem(
                f"{tree.label(path)}: expected a readable file, got {type(error).__name__} ({error})", "copy it again"
            )
        ) from None


def check_size(label: str, n_bytes: int, max_bytes: int) -> None:
    """Raise for content that is too large to come from flyvis."""
    if n_bytes > max_bytes:
        raise EnsembleError(
            Problem(f"{label}: expected at most {max_bytes:,} bytes, got {n_bytes:,}", "it is not a file of flyvis")
        )


def read_numbers(tree: FileTree, path: str) -> NDArray[np.float64]:
    """Read an HDF5 file of flyvis, which holds one dataset ``data``; NaN where a number is not finite."""
    import h5py

    content, label = read_file(tree, path), tree.label(path)
    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            data = file["data"]
            check_size(label, data.nbytes, tree.max_bytes)  # a compressed dataset may be larger than its file
            numbers = np.atleast_1d(data[()]).astype(np.float64).ravel()
    except EnsembleError:
        raise
    except Exception as error:  # h5py raises many kinds on damaged files
        raise EnsembleError(
            Problem(
                f"{label}: expected an HDF5 file with numbers in 'data', got one that cannot be read "
                f"({str(error).strip()})",
                "copy it again",
            )
        ) from None
    return np.where(np.isfinite(numbers), numbers, np.nan)
