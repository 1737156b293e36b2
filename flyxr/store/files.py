"""Files of a store: written whole or not at all, durably, and known again by size, time and digest."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from flyxr import identity
from flyxr.engine import base
from flyxr.errors import ExistsError, FlyxrError, MissingError, Problem, UnwritableError

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping

MANIFEST = "manifest.json"
"""File that lists all files of a saved store; it lies in the folder of an array, where zarr looks for none."""
_READ_BYTES = 2**22


class StoreError(FlyxrError, ValueError):
    """What lies at a path is not a store of flyxr, or not all of it."""


class StoredFile(NamedTuple):
    """A file of a store as it was written: path in the store, size in bytes, time in ns, and digest of its content.

    In ledgers of version 0.1 the digest is a CRC-32C, as an integer.
    """

    path: str
    n_bytes: int
    mtime_ns: int
    digest: str | int


def sync(path: str | Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def stamp(store: str | Path, path: str | Path) -> StoredFile:
    """Size, time and digest of a file of a store, once it is on the disk."""
    file = Path(store) / path
    sync(file)
    stat = file.stat()
    return StoredFile(Path(path).as_posix(), stat.st_size, stat.st_mtime_ns, identity.content_digest(file))


def is_intact(store: str | Path, stored: StoredFile, *, verify: bool = False) -> bool:
    """Whether a file is as it was written.

    A file of another size is not; one that was touched since is compared by its digest, as all are with ``verify``.
    """
    file = Path(store) / stored.path
    if not file.is_file():
        return False
    stat = file.stat()
    if stat.st_size != stored.n_bytes:
        return False
    if stat.st_mtime_ns == stored.mtime_ns and not verify:
        return True
    found = _crc32c(file) if isinstance(stored.digest, int) else identity.content_digest(file)
    return found == stored.digest


def _crc32c(path: Path) -> int:
    import google_crc32c

    value = 0
    with path.open("rb") as file:
        while part := file.read(_READ_BYTES):
            value = google_crc32c.extend(value, part)
    return int(value)


def listing(folder: Path, *, without: Container[str] = ()) -> dict[str, tuple[int, int]]:
    """Size in bytes and time in ns of all files below a folder, by path in it; some folders may be left out."""
    found: dict[str, tuple[int, int]] = {}
    folders = [""]
    while folders:
        inner = folders.pop()
        with os.scandir(folder / inner) as entries:
            for entry in entries:
                name = f"{inner}{entry.name}"
                if entry.is_dir():
                    folders += [] if f"{name}/" in without else [f"{name}/"]
                    continue
                with suppress(FileNotFoundError):  # what is being written has had its name changed
                    stat = entry.stat()
                    found[name] = (stat.st_size, stat.st_mtime_ns)
    return found


def sizes_and_times(store: Path, paths: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Size in bytes and time in ns of those files of a store that are there; cheaper than listing its many folders."""
    found: dict[str, tuple[int, int]] = {}
    for path in paths:
        with suppress(FileNotFoundError, NotADirectoryError):
            stat = os.stat(f"{store}/{path}")
            found[path] = (stat.st_size, stat.st_mtime_ns)
    return found


def write_attrs(folder: Path, attrs: Mapping[str, object]) -> None:
    """Give attributes to a zarr group or array; its file is replaced at once, and on the disk."""
    file = folder / "zarr.json"
    metadata = json.loads(file.read_text(encoding="utf-8"))
    metadata["attributes"] = {**metadata.get("attributes", {}), **attrs}
    fresh = file.with_suffix(".partial")
    fresh.write_text(json.dumps(metadata), encoding="utf-8")
    sync(fresh)
    os.replace(fresh, file)


def write_manifest(store: Path, name: str) -> None:
    """List all files of a store, with their sizes and digests, once they are on the disk; beside those of an array."""
    with ThreadPoolExecutor(base.n_threads()) as pool:
        stamps = list(pool.map(lambda file: stamp(store, file), sorted(listing(store))))
    found = {stored.path: [stored.n_bytes, stored.digest] for stored in stamps}
    file = store / name / MANIFEST
    file.write_text(json.dumps(found), encoding="utf-8")
    sync(file)


def read_manifest(store: Path) -> Mapping[str, tuple[int, str]]:
    """Size and digest of each file that a store was saved with, by path; empty where no manifest is.

    Raises
    ------
    StoreError
        A ValueError. If the manifest cannot be read.
    """
    for file in sorted(store.glob(f"*/{MANIFEST}")):
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            return {str(name): (int(n_bytes), str(digest)) for name, (n_bytes, digest) in found.items()}
        except (ValueError, TypeError, AttributeError) as error:
            raise StoreError(
                Problem(f"{file} is no manifest of a store ({type(error).__name__}: {error})", "restore the store")
            ) from error
    return {}


def nearest_folder(path: Path) -> Path:
    """The folder that a path lies in, or shall lie in, or the nearest above it that exists."""
    return next(folder for folder in path.absolute().parents if folder.is_dir())


def check_target(path: str | Path, *, overwrite: bool = False) -> Path:
    """Path that a store may be written to; the folder it lies in is made.

    Raises
    ------
    ExistsError
        A FileExistsError. If the path exists, and is not to be overwritten or no store.
    UnwritableError
        An OSError. If the folder cannot be made or written.

    Examples
    --------
    >>> check_target("/proc/nowhere/responses.zarr")
    Traceback (most recent call last):
        ...
    flyxr.errors.UnwritableError: cannot write /proc/nowhere/responses.zarr: No such file or directory; choose ...
    """
    path = Path(path)
    if path.exists() or path.is_symlink():
        if not overwrite:
            way = "to replace it, or choose another path"
            raise ExistsError(Problem(f"{path} exists", f"pass overwrite=True {way}", f"add --overwrite {way}"))
        if not (path / "zarr.json").is_file():
            raise ExistsError(
                Problem(f"{path} exists and is not a zarr store, so it is not overwritten", "choose another path")
            )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise unwritable(path, error) from error
    return path


def unwritable(path: Path, error: OSError) -> UnwritableError:
    """Error that says that a path cannot be written, and why."""
    return UnwritableError(f"cannot write {path}: {error.strerror}; choose another path", code=error.errno)


@contextmanager
def atomic_directory(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """A path beside another, which takes its place when the block ends well and vanishes when it does not.

    Raises
    ------
    ExistsError
        A FileExistsError. If there is something at the path by then, and it is not to be replaced.
    """
    with scratch_directory(path) as aside:
        try:
            yield aside / "store"
            if path.exists() and replace:
                os.rename(path, aside / "replaced")
            elif path.exists():
                raise ExistsError(Problem(f"{path} was made by another process meanwhile", "choose another path"))
            os.rename(aside / "store", path)
            sync(path.parent)
        finally:
            if (aside / "replaced").exists() and not path.exists():
                os.rename(aside / "replaced", path)


@contextmanager
def scratch_directory(path: Path) -> Iterator[Path]:
    """A folder beside a path, or above it where no folder is yet, that vanishes in the end."""
    folder = nearest_folder(path)
    try:
        aside = Path(tempfile.mkdtemp(prefix=f"{path.name}.partial-", dir=folder))
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        yield aside
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def missing(path: Path, expected: str) -> MissingError:
    """Error that says that nothing is at a path, and where what was there is if replacing it was interrupted."""
    rest = sorted(path.absolute().parent.glob(f"{path.name}.partial-*/replaced"))
    if rest:
        return MissingError(
            Problem(
                f"no store at {path}: it was being replaced when the process ended",
                f"the store that was there is {rest[-1]}; move it to {path} to have it back",
            )
        )
    return MissingError(f"no store at {path}: expected {expected}")
