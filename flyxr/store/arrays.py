"""Lazy arrays of stores: opened on reading, with names of files that are missing, changed or corrupted."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from flyxr import identity
from flyxr.errors import Problem
from flyxr.identity import ChangedError
from flyxr.store import files, places
from flyxr.store.contents import VERIFY_HINTS, reading_store
from flyxr.store.encoding import READ_BYTES
from flyxr.store.files import StoreError
from flyxr.store.ledger import read_ledger, store_id

if TYPE_CHECKING:
    from collections.abc import Container, Mapping
    from pathlib import Path

    import xarray as xr
    from numpy.typing import NDArray
    from upath import UPath

    from flyxr.store.places import Place


def stats_digest(stats: Mapping[str, tuple[int, int]]) -> str:
    """Digest of the sizes and times of files."""
    return identity.digest(repr(sorted(stats.items())).encode())


class SavedArray(NamedTuple):
    """An array of a saved store, with the digest of the sizes and times of its files when it was opened."""

    path: Path
    name: str
    digest: str


class SweepArray(NamedTuple):
    """An array of a sweep, with the identifier of the store and the digest of its files when it was opened."""

    path: Path
    name: str
    store_id: str
    digest: str


class RemoteArray(NamedTuple):
    """An array of a store on another machine or in a zip.

    ``metadata`` is the content of its ``zarr.json``. ``identity`` is the identifier of a sweep, or else the digest of
    the metadata of the group when it was opened. ``manifest`` is the path of the list of files, if there is one.
    """

    path: UPath
    name: str
    metadata: bytes
    identity: str
    is_sweep: bool
    manifest: str


Source = SavedArray | SweepArray | RemoteArray


def lazy_array(path: Place, name: str, variable: xr.DataArray, source: Source) -> xr.DataArray:
    """Dask array of a variable of a store, with one task per chunk, or for several small chunks of a shard."""
    import dask.array as da
    from dask.base import tokenize

    chunks = _chunks_to_read(variable)
    where = str(path) if places.is_remote(path) else str(path.absolute())
    graph_name = f"{name}-{tokenize(where, *map(str, source))}"
    backend = _CheckedArray(source, variable.shape, variable.dtype)
    meta = np.empty((0,) * variable.ndim, variable.dtype)
    return variable.copy(data=da.from_array(backend, chunks=chunks, name=graph_name, meta=meta))


def _chunks_to_read(variable: xr.DataArray) -> tuple[int, ...]:
    """Lengths of what a task reads: a chunk, or as many chunks of small cell types of one shard as fit READ_BYTES.

    A cell type that is large enough for chunks of its own is read without the others.
    """
    chunks: tuple[int, ...] = variable.encoding.get("chunks") or variable.shape
    shards = variable.encoding.get("shards")
    if not shards or "cell_type" not in variable.dims:
        return chunks
    axis = variable.dims.index("cell_type")
    if chunks[axis] == 1:
        return chunks
    n_chunks = shards[axis] // chunks[axis]
    chunk_bytes = math.prod(chunks) * variable.dtype.itemsize
    # A divisor of the number of chunks, so that no task reads two shards.
    n_read = max((n for n in range(1, n_chunks + 1) if n_chunks % n == 0 and n * chunk_bytes <= READ_BYTES), default=1)
    return (*chunks[:axis], n_read * chunks[axis], *chunks[axis + 1 :])


class _CheckedArray:
    """An array on disk, opened on reading; names files that are missing, changed or corrupted."""

    def __init__(self, source: Source, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.source, self.shape, self.dtype, self.ndim = source, shape, dtype, len(shape)

    def __getitem__(self, key: tuple[Any, ...]) -> NDArray[Any]:
        is_remote = isinstance(self.source, RemoteArray)
        if isinstance(self.source, SweepArray):
            _check_id(self.source)
        with reading_store(self.source.path / self.source.name):
            array, stats = _open_remote_array(self.source) if is_remote else _open_array(self.source)
        starts = [_start(index) for index in key]
        lengths = array.shards or array.chunks
        file = "/".join(["c", *(str(start // length) for start, length in zip(starts, lengths, strict=True))])
        if isinstance(self.source, SavedArray):
            _check_saved(self.source, file, stats)
        elif isinstance(self.source, SweepArray):
            _check_written(self.source, file)
        try:
            values: NDArray[Any] = array[key]
        except (places.RemoteError, StoreError):  # a lost connection, or a missing file, of another machine
            raise
        except Exception as error:
            path = self.source.path / self.source.name / file
            raise StoreError(Problem(f"{path} is corrupted or cannot be read ({error})", *VERIFY_HINTS)) from error
        return values


def _start(index: Any) -> int:
    if isinstance(index, slice):
        return int(index.start or 0)
    return int(np.min(index))


@lru_cache(maxsize=256)
def _open_array(source: SavedArray | SweepArray) -> tuple[Any, Mapping[str, tuple[int, int]]]:
    """Array on disk, and for a saved one the sizes and times of its files; once per process."""
    import zarr

    folder = source.path / source.name
    stats: dict[str, tuple[int, int]] = {}
    if isinstance(source, SavedArray):
        try:
            stats = files.list_files(folder)
        except OSError:
            raise _changed_error(source) from None
        if stats_digest({f"{source.name}/{file}": stat for file, stat in stats.items()}) != source.digest:
            raise _changed_error(source)
    return zarr.open_array(folder, mode="r", zarr_format=3), stats


def _check_saved(source: SavedArray, file: str, stats: Mapping[str, tuple[int, int]]) -> None:
    """Raise if a file of a saved store has changed since the store was opened, or is missing."""
    path = source.path / source.name / file
    try:
        stat = path.stat()
        current = (stat.st_size, stat.st_mtime_ns)
    except OSError:
        current = None
    if current != stats.get(file):
        raise _changed_error(source)
    if current is None and f"{source.name}/{file}" in _manifest(source):
        raise StoreError(Problem(f"{path} is missing", "restore the store from a copy"))


@lru_cache(maxsize=256)
def _manifest(source: SavedArray) -> Mapping[str, tuple[int, str]]:
    return files.read_manifest(source.path)


def _check_id(source: SweepArray) -> None:
    """Raise if another store has replaced the sweep since it was opened."""
    try:
        identifier = store_id(source.path)
    except OSError:
        raise _changed_error(source) from None
    if identifier != source.store_id:
        raise _changed_error(source)


def _check_written(source: SweepArray, file: str) -> None:
    """Raise if a file of a sweep is missing and its ledger says that it was written."""
    path = source.path / source.name / file
    if path.exists():
        return
    ledger = read_ledger(source.path)
    if ledger is not None and f"{source.name}/{file}" in ledger.shards:
        raise StoreError(Problem(f"{path} is missing", *VERIFY_HINTS))


@lru_cache(maxsize=256)
def _open_remote_array(source: RemoteArray) -> tuple[Any, Mapping[str, tuple[int, int]]]:
    """Array on another machine; once per process, after a check that the store is still the one that was opened."""
    import zarr

    from flyxr.store.remote import RemoteStore

    try:
        current = store_id(source.path) if source.is_sweep else group_digest(source.path)
    except FileNotFoundError:
        current = ""
    if current != source.identity:
        raise _changed_error(source)

    def check_missing(file: str) -> None:
        if file in _expected_files(source):
            raise StoreError(Problem(f"{source.path / file} is missing", "restore the store from a copy"))

    store = RemoteStore(source.path, {f"{source.name}/zarr.json": source.metadata}, check_missing)
    return zarr.open_array(store, path=source.name, mode="r", zarr_format=3), {}


def group_digest(path: Place) -> str:
    """Digest of the metadata of a group."""
    return identity.digest(places.read_bytes(path / "zarr.json", files.MAX_JSON_BYTES))


@lru_cache(maxsize=32)
def _manifest_of_place(path: UPath, manifest: str, identity: str) -> Container[str]:
    return files.parse_manifest(places.read_bytes(path / manifest), path / manifest)


def _expected_files(source: RemoteArray) -> Container[str]:
    """Files that a store on another machine should have, as far as it says so; read once a file is not found."""
    if source.is_sweep:
        ledger = read_ledger(source.path)
        return () if ledger is None else ledger.shards
    return _manifest_of_place(source.path, source.manifest, source.identity) if source.manifest else ()


def _changed_error(source: Source) -> ChangedError:
    return ChangedError(Problem(f"'{source.name}' of {source.path} has changed since it was opened", "open it again"))
