"""Files of a store: written completely or not at all, synced to disk, and checked by size, time and digest."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from flyxr import identity
from flyxr.engine import base
from flyxr.errors import ExistsError, FlyxrError, MissingError, Problem, UnwritableError
from flyxr.store import places

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping

    import xarray as xr
    from upath import UPath

    from flyxr.store.places import Place

MANIFEST = "manifest.json"
"""File that lists all files of a saved store; it lies in the folder of an array, where zarr ignores it."""
MAX_JSON_BYTES = 2**24
"""Largest metadata file, bytes."""
_READ_BYTES = 2**22
RESTORE_HINTS = ("expected a store that fx.save or `flyxr` wrote; restore it from a copy",) * 2


class StoreError(FlyxrError, ValueError):
    """The path is not a store of flyxr, or files of the store are missing or corrupted."""


class StoredFile(NamedTuple):
    """A file of a store as it was written: path in the store, size in bytes, mtime in ns, and digest of its content.

    In ledgers of version 0.1 the digest is a CRC-32C, as an integer.
    """

    path: str
    n_bytes: int
    mtime_ns: int
    digest: str | int


def sync(path: str | Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fingerprint(store: str | Path, path: str | Path) -> StoredFile:
    """Sync a file of a store; return its size, time and digest."""
    file = Path(store) / path
    sync(file)
    stat = file.stat()
    return StoredFile(Path(path).as_posix(), stat.st_size, stat.st_mtime_ns, identity.content_digest(file))


def find_damaged(store: Place, stored: Iterable[StoredFile], *, verify: bool = False) -> list[StoredFile]:
    """Files of a store that are missing or not as they were written, see :func:`is_intact`.

    On other machines, times of modification say nothing, so that digests are compared only with ``verify``.
    """
    if not places.is_remote(store):
        return [file for file in stored if not is_intact(cast("Path", store), file, verify=verify)]
    sizes = places.list_sizes(cast("UPath", store))

    def is_damaged(file: StoredFile) -> bool:
        if sizes.get(file.path) != file.n_bytes:
            return True
        return verify and identity.bytes_digest(places.read_bytes(store / file.path)) != file.digest

    return [file for file in stored if is_damaged(file)]


def is_intact(store: str | Path, stored: StoredFile, *, verify: bool = False) -> bool:
    """Whether a file is as it was written.

    The size must match. The digest is compared if the modification time differs, or always with ``verify``.
    """
    file = Path(store) / stored.path
    if not file.is_file():
        return False
    stat = file.stat()
    if stat.st_size != stored.n_bytes:
        return False
    if stat.st_mtime_ns == stored.mtime_ns and not verify:
        return True
    digest = _crc32c(file) if isinstance(stored.digest, int) else identity.content_digest(file)
    return digest == stored.digest


def _crc32c(path: Path) -> int:
    import google_crc32c

    value = 0
    with path.open("rb") as file:
        while part := file.read(_READ_BYTES):
            value = google_crc32c.extend(value, part)
    return int(value)


def list_files(folder: Place, *, exclude: Container[str] = ()) -> dict[str, tuple[int, int]]:
    """Size in bytes and mtime in ns of all files below a folder, by relative path, outside of ``exclude``d folders.

    Times on other machines are 0.
    """
    if places.is_remote(folder):
        sizes = places.list_sizes(cast("UPath", folder))
        return {name: (n_bytes, 0) for name, n_bytes in sizes.items() if not _is_below(name, exclude)}
    folder = cast("Path", folder)
    stats: dict[str, tuple[int, int]] = {}
    folders = [""]
    while folders:
        subfolder = folders.pop()
        with os.scandir(folder / subfolder) as entries:
            for entry in entries:
                name = f"{subfolder}{entry.name}"
                if entry.is_dir():
                    folders += [] if f"{name}/" in exclude else [f"{name}/"]
                    continue
                with suppress(FileNotFoundError):  # a file being written is renamed when it is complete
                    stat = entry.stat()
                    stats[name] = (stat.st_size, stat.st_mtime_ns)
    return stats


def _is_below(name: str, folders: Container[str]) -> bool:
    parts = name.split("/")
    return any("/".join([*parts[:depth], ""]) in folders for depth in range(1, len(parts)))


def stat_files(store: Place, paths: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Size in bytes and mtime in ns of the given files that exist; cheaper than listing the many folders of a store."""
    if places.is_remote(store):
        listed = list_files(store)
        return {path: listed[path] for path in paths if path in listed}
    stats: dict[str, tuple[int, int]] = {}
    for path in paths:
        with suppress(FileNotFoundError, NotADirectoryError):
            stat = os.stat(f"{store}/{path}")
            stats[path] = (stat.st_size, stat.st_mtime_ns)
    return stats


def read_json(file: Place, hints: tuple[str, str] = RESTORE_HINTS) -> dict[str, Any]:
    """Read a JSON object.

    Raises
    ------
    StoreError
        A ValueError. If the file is missing, too large, or holds something else. ``hints`` are its ways out, in Python
        and on the command line.
    """
    try:
        text = places.read_bytes(file, MAX_JSON_BYTES)
    except OSError as error:
        raise _json_error(file, f"{type(error).__name__}: {error}", hints) from error
    return parse_json(text, file, hints)


def parse_json(text: bytes, file: Place, hints: tuple[str, str] = RESTORE_HINTS) -> dict[str, Any]:
    """Parse a JSON object, as :func:`read_json`."""
    try:
        content = json.loads(text)
        got = f"{type(content).__name__}, {len(text):,} bytes"
    except (ValueError, RecursionError) as error:
        content, got = None, f"{type(error).__name__}: {error}"
    if not isinstance(content, dict):
        raise _json_error(file, got, hints)
    return content


def _json_error(file: Place, got: str, hints: tuple[str, str]) -> StoreError:
    return StoreError(Problem(f"{file} cannot be read as that of a zarr v3 store ({got})", *hints))


def write_attrs(folder: Place, attrs: Mapping[str, object]) -> None:
    """Add attributes to a zarr group or array; its metadata file is replaced atomically and synced."""
    file = folder / "zarr.json"
    metadata = read_json(file)
    metadata["attributes"] = {**dict(metadata.get("attributes") or {}), **attrs}
    write_json(file, metadata)


def write_json(file: Place, content: Mapping[str, Any]) -> None:
    """Write a JSON file; one that exists is replaced atomically, and the new one is synced."""
    text = json.dumps(content).encode()
    if places.is_remote(file):
        places.write_bytes(cast("UPath", file), text)
        return
    partial = file.with_name(f"{file.name}.{secrets.token_hex(4)}.partial")  # others may write the same file
    partial.write_bytes(text)
    sync(cast("Path", partial))
    os.replace(partial, cast("Path", file))


def write_manifest(store: Path, name: str) -> None:
    """Sync all files of a store, and list their sizes and digests in the folder of the array ``name``."""
    with ThreadPoolExecutor(base.n_threads()) as pool:
        stored = list(pool.map(lambda file: fingerprint(store, file), sorted(list_files(store))))
    manifest = {file.path: [file.n_bytes, file.digest] for file in stored}
    path = store / name / MANIFEST
    path.write_text(json.dumps(manifest), encoding="utf-8")
    sync(path)


def manifest_folder(dataset: xr.Dataset) -> list[str]:
    """Name of the array whose folder holds the manifest: the first variable, or else coordinate; none if empty."""
    return (sorted(map(str, dataset.data_vars)) or sorted(map(str, dataset.coords)))[:1]


def read_manifest(store: Path) -> Mapping[str, tuple[int, str]]:
    """Size and digest of each file that a store was saved with, by path; empty without a manifest.

    Raises
    ------
    StoreError
        A ValueError. If the manifest cannot be read.
    """
    for file in sorted(store.glob(f"*/{MANIFEST}")):
        return parse_manifest(file.read_bytes(), file)
    return {}


def parse_manifest(content: bytes, file: Place) -> Mapping[str, tuple[int, str]]:
    """Size and digest of each file in a manifest, as :func:`read_manifest`."""
    try:
        manifest = json.loads(content)
        return {str(name): (int(n_bytes), str(digest)) for name, (n_bytes, digest) in manifest.items()}
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise StoreError(
            Problem(f"{file} is not the manifest of a store ({type(error).__name__}: {error})", "restore the store")
        ) from error


def nearest_folder(path: Path) -> Path:
    """The nearest parent folder of a path that exists."""
    return next(folder for folder in path.absolute().parents if folder.is_dir())


def check_target(path: str | Path, *, overwrite: bool = False) -> Path:
    """Check that a store can be written to a path, and create its parent folder.

    Raises
    ------
    ExistsError
        A FileExistsError. If the path exists, unless it is a zarr store and ``overwrite`` is true.
    UnwritableError
        An OSError. If the folder cannot be created or written.

    Examples
    --------
    >>> check_target("/proc/nowhere/responses.zarr")
    Traceback (most recent call last):
        ...
    flyxr.errors.UnwritableError: cannot write /proc/nowhere/responses.zarr: No such file or directory; choose ...
    """
    if places.is_remote(path):
        return cast("Path", _check_remote_target(cast("UPath", path), overwrite=overwrite))
    path = Path(path)
    if path.exists() or path.is_symlink():
        if not overwrite:
            choice = "to replace it, or choose another path"
            raise ExistsError(Problem(f"{path} exists", f"pass overwrite=True {choice}", f"add --overwrite {choice}"))
        if not (path / "zarr.json").is_file():
            raise ExistsError(
                Problem(f"{path} exists and is not a zarr store, so it is not overwritten", "choose another path")
            )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise unwritable_error(path, error) from error
    return path


def _check_remote_target(place: UPath, *, overwrite: bool) -> UPath:
    places.check_writable(place)
    if is_remote_store(place):
        if not overwrite:
            choice = "to replace it, or choose another path"
            raise ExistsError(Problem(f"{place} exists", f"pass overwrite=True {choice}", f"add --overwrite {choice}"))
        return place
    others = places.list_names(place)
    if others:
        text = f"{place} holds {', '.join(others[:3])} and is not a complete store, so it is not overwritten"
        hint = "remove what a process that ended has left there, or choose another path"
        raise ExistsError(Problem(text, hint))
    return place


def is_remote_store(place: Place) -> bool:
    """Whether there is a complete store at a place on another machine."""
    return places.exists(place / "zarr.json")


def replace_remote(folder: Path, place: UPath) -> None:
    """Upload a store. One that is there vanishes first, so that it is never a mixture of both."""
    if is_remote_store(place):
        old = places.list_sizes(place)
        places.remove(place, ["zarr.json"])  # from here on there is no store
        places.remove(place, old)
    places.upload(folder, place, progress=f"upload {place.name}")


def unwritable_error(path: Path, error: OSError) -> UnwritableError:
    """Error for a path that cannot be written, with the reason."""
    return UnwritableError(f"cannot write {path}: {error.strerror}; choose another path", code=error.errno)


@contextmanager
def atomic_directory(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """A temporary path for a folder, which moves to ``path`` if the block succeeds and is removed if it fails.

    Raises
    ------
    ExistsError
        A FileExistsError. If the path exists by then and ``replace`` is false.
    """
    with scratch_directory(path) as scratch:
        try:
            yield scratch / "store"
            if path.exists() and replace:
                os.rename(path, scratch / "replaced")
            elif path.exists():
                raise ExistsError(Problem(f"another process has already created {path}", "choose another path"))
            os.rename(scratch / "store", path)
            sync(path.parent)
        finally:
            if (scratch / "replaced").exists() and not path.exists():
                os.rename(scratch / "replaced", path)


@contextmanager
def scratch_directory(path: Path) -> Iterator[Path]:
    """A temporary folder in the nearest existing parent of a path."""
    try:
        scratch = Path(tempfile.mkdtemp(prefix=f"{path.name}.partial-", dir=nearest_folder(path)))
    except OSError as error:
        raise unwritable_error(path, error) from error
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def missing_error(path: Place, expected: str) -> MissingError:
    """Error for a path without a store; names the old store if a replacement was interrupted."""
    if places.is_remote(path):
        return places.missing_place_error(path, expected)
    path = cast("Path", path)
    replaced = sorted(path.absolute().parent.glob(f"{path.name}.partial-*/replaced"))
    if replaced:
        return MissingError(
            Problem(
                f"no store at {path}: the process that was replacing it ended",
                f"the old store is {replaced[-1]}; move it to {path} to restore it",
            )
        )
    return MissingError(f"no store at {path}: expected {expected}")
