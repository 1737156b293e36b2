"""Datasets on disk: zarr v3 with a chunk policy, written completely or not at all."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from flyxr import ledger, schema
from flyxr.engine import base

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

SHARD_BYTES = 256 * 2**20
"""Largest shard that is chosen for data without chunks of their own, byte."""
CHUNK_BYTES = 16 * 2**20
"""Largest chunk of movies and renderings, byte."""
TYPE_CHUNK_BYTES = 2**20
"""Chunk of responses that cell types share where one alone would be smaller: below, reading it takes no less time."""
_PROGRESS_AFTER = 1.0  # s


class StoreError(ValueError):
    """What lies at a path is not a store of flyxr."""


def save(dataset: xr.Dataset | xr.DataArray, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write a Dataset to a zarr store, streaming what is lazy.

    The store appears at the path when it is complete; until then it is ``<name>.partial-…`` beside it. Responses
    are chunked by cell type within one shard for each block of models × samples. A progress bar shows after a
    second.

    Parameters
    ----------
    dataset
        Any kind of Dataset, or a selection from one.
    path
        Where the store shall be; folders on the way are made.
    overwrite
        Replace the store that is there. Only a zarr store is ever replaced.

    Returns
    -------
    Path
        The path of the store.

    Raises
    ------
    FileExistsError
        If the path exists, and is not to be overwritten or no store.
    OSError
        If the path cannot be written.

    Examples
    --------
    >>> import flyxr as fx, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = fx.save(fx.sample_ensemble(n_models=2, seed=0), folder + "/ensemble.zarr")
    ...     fx.open(path).sizes["model"]
    2
    """
    path = check_target(path, overwrite=overwrite)
    if isinstance(dataset, xr.DataArray):
        dataset = dataset.to_dataset(name=dataset.name or "values")
    dataset = _of_its_kind(_without_encoding(dataset))
    encoding = {str(name): _encoding(variable) for name, variable in dataset.variables.items()}
    for name, variable in dataset.variables.items():
        if variable.chunks is not None:
            whole = encoding[str(name)].get("shards", encoding[str(name)]["chunks"])
            dataset[name] = dataset[name].chunk(dict(zip(variable.dims, whole, strict=True)))
    with made_aside(path, replace=overwrite) as aside:
        _write(dataset, aside, encoding)
    return path


def check_target(path: str | Path, *, overwrite: bool = False) -> Path:
    """Path that a store may be written to; the folder it lies in is made.

    Raises
    ------
    FileExistsError
        If the path exists, and is not to be overwritten or no store.
    OSError
        If the folder cannot be made or written.

    Examples
    --------
    >>> check_target("/proc/nowhere/responses.zarr")
    Traceback (most recent call last):
        ...
    FileNotFoundError: cannot write /proc/nowhere/responses.zarr: No such file or directory; choose another path
    """
    path = Path(path)
    if path.exists() or path.is_symlink():
        if not overwrite:
            raise FileExistsError(f"{path} exists: pass overwrite=True to replace it, or choose another path")
        if not (path / "zarr.json").is_file():
            raise FileExistsError(
                f"{path} exists and is not a zarr store, so it is not overwritten: choose another path"
            )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise type(error)(f"cannot write {path}: {error.strerror}; choose another path") from error
    return path


def open_store(path: str | Path) -> xr.Dataset:
    """Open a store lazily; coordinates are loaded.

    Parameters
    ----------
    path
        A store that :func:`save` wrote.

    Returns
    -------
    Dataset
        Chunked for dask as it lies on disk, so that one cell type of the responses is read without the rest.

    Raises
    ------
    FileNotFoundError
        If there is nothing at the path.
    StoreError
        If what is there is no zarr v3 store; or, on computing, if a file of it is corrupted, which is named.
    SchemaError
        If the store says what kind it is and does not hold it.

    Warns
    -----
    UserWarning
        If a sweep into the store is unfinished: it says how much is missing, and that it reads as NaN.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no store at {path}: expected a zarr store that fx.save or `flyxr` wrote")
    try:
        # Version 3 only: a store of version 2 may name codecs that unpickle what they read.
        dataset: xr.Dataset = xr.open_zarr(path, zarr_format=3, consolidated=False, chunks=None)
    except Exception as error:
        raise StoreError(
            f"{path} cannot be read as a zarr v3 store ({type(error).__name__}: {error}): "
            "expected one that fx.save or `flyxr` wrote"
        ) from error
    for name, coord in dataset.coords.items():
        values = coord.values
        dataset[name] = coord.copy(data=values.astype(object) if values.dtype.kind in "UT" else values)
    for name, variable in dataset.data_vars.items():
        if variable.dtype.kind in "UT":
            dataset[name] = variable.astype(object).load()
        elif variable.dtype.kind == "f" and variable.ndim:
            dataset[name] = variable.copy(data=_lazily(path.absolute(), str(name), variable))
        elif chunks := variable.encoding.get("chunks"):
            dataset[name] = variable.chunk(dict(zip(variable.dims, chunks, strict=True)))
    if schema.KIND_ATTR in dataset.attrs:
        schema.validate(dataset, kind_of(dataset, path))
    found = ledger.read(path)
    if found is not None and not found.complete:
        missing = found.done.size - int(found.done.sum())
        warnings.warn(
            f"{path} is an unfinished sweep: {missing} of {found.done.size} responses of a model to a sample "
            f"({missing / found.done.size:.0%}) are missing and read as NaN; call fx.sweep with the same inputs again "
            "to finish it, and see fx.sweep_status(path)",
            stacklevel=2,
        )
    return dataset


def _lazily(path: Path, name: str, variable: xr.DataArray) -> Any:
    """Dask array of a float variable of a store, one task a chunk."""
    import dask.array as da
    from dask.base import tokenize

    files = [path / name / "zarr.json", path / ledger.PLACE]
    stamps = tuple(
        (stat.st_ino, stat.st_mtime_ns, stat.st_size) for file in files if file.exists() for stat in [file.stat()]
    )
    stored = _Stored(path / name, stamps[0], variable.shape, variable.dtype)
    chunks = variable.encoding.get("chunks") or variable.shape
    return da.from_array(
        stored,
        chunks=chunks,
        name=f"{name}-{tokenize(str(path), stamps)}",
        meta=np.empty((0,) * variable.ndim, variable.dtype),
    )


class _Stored:
    """An array on disk: opened where it is read, and a file that cannot be read is named."""

    def __init__(self, path: Path, stamp: tuple[int, ...], shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.path, self.stamp, self.shape, self.dtype, self.ndim = path, stamp, shape, dtype, len(shape)

    def __getitem__(self, key: tuple[slice, ...]) -> NDArray[Any]:
        array = _opened(self.path, self.stamp)
        try:
            values: NDArray[Any] = array[key]
        except Exception as error:
            whole = array.shards or array.chunks
            at = "/".join(str((part.start or 0) // length) for part, length in zip(key, whole, strict=True))
            raise StoreError(
                f"{self.path / 'c' / at} is corrupted or cannot be read ({error}): if a sweep made the store, call "
                "fx.sweep with the same inputs and verify=True, which computes it anew; else restore it from a copy"
            ) from error
        return values


@lru_cache(maxsize=64)
def _opened(path: Path, stamp: tuple[int, ...]) -> Any:
    """Array on disk, opened once a process as long as its file of metadata stays the same."""
    import zarr

    return zarr.open_array(path, mode="r", zarr_format=3)


def write_template(dataset: xr.Dataset, path: Path, block_samples: int) -> None:
    """Write a store without the values of what is lazy, at a path where there is nothing.

    A shard of responses holds one model and ``block_samples`` samples, also where there are fewer so far.
    """
    dataset = _without_encoding(dataset)
    encoding = {
        str(name): _encoding(variable, {"model": 1, "sample": block_samples} if variable.chunks is not None else None)
        for name, variable in dataset.variables.items()
    }
    dataset.to_zarr(path, mode="w-", zarr_format=3, consolidated=False, encoding=encoding, compute=False)


def write_region(path: str | Path, name: str, values: NDArray[Any], start: tuple[int, ...]) -> ledger.Shard:
    """Write values into a variable of a store, within one shard, which nobody else may write at the time.

    Parameters
    ----------
    path
        The store.
    name
        The variable.
    values
        With the dims of the variable.
    start
        Where they begin along each dim; 0 along dims that are left out.

    Returns
    -------
    Shard
        The file that they are in, with its checksum.
    """
    import zarr

    with one_writer():
        array = zarr.open_array(Path(path) / name, mode="r+", zarr_format=3, config={"write_empty_chunks": True})
        start = (*start, *(0,) * (array.ndim - len(start)))
        region = tuple(slice(first, first + length) for first, length in zip(start, values.shape, strict=True))
        array[region] = values
    at = [str(first // length) for first, length in zip(start, array.shards or array.chunks, strict=True)]
    return ledger.stamp(path, Path(name, "c", *at))


_writers = 0
_writers_lock = threading.Lock()
_zarr_options: Any = None


@contextmanager
def one_writer() -> Iterator[None]:
    """While tasks write, zarr uses no threads of its own, which would multiply with those of the tasks."""
    import zarr

    global _writers, _zarr_options
    with _writers_lock:
        if _writers == 0:
            _zarr_options = zarr.config.set({"async.concurrency": 1})
        _writers += 1
    try:
        yield
    finally:
        with _writers_lock:
            _writers -= 1
            if _writers == 0:
                _zarr_options.__exit__(None, None, None)


def round_mantissa(values: NDArray[np.float32], bits: int) -> NDArray[np.float32]:
    """Round float32 to so many bits of the mantissa, half to even; what is dropped is 0 and compresses well.

    The relative error is at most ``2 ** -(bits + 1)``. NaN stays NaN.

    Examples
    --------
    >>> round_mantissa(np.array([1.0, 1.0 + 2**-8, np.nan], np.float32), 7)
    array([ 1.,  1., nan], dtype=float32)
    """
    drop = np.uint32(23 - bits)
    raw = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    one = np.uint32(1)
    rounded = ((raw + ((raw >> drop) & one) + (one << (drop - one)) - one) >> drop) << drop
    return np.where(np.isfinite(values), rounded.view(np.float32), values)


def kind_of(dataset: xr.Dataset, path: str | Path = "this Dataset") -> str:
    """Kind that a Dataset says it is.

    Raises
    ------
    StoreError
        If it says none, or one that is not known.

    Examples
    --------
    >>> kind_of(schema.annotate(xr.Dataset(), "movie"))
    'movie'
    """
    kind = str(dataset.attrs.get(schema.KIND_ATTR, "none"))
    if kind not in schema.KINDS:
        raise StoreError(f"expected {path} to say which kind it is, one of {', '.join(schema.KINDS)}, got {kind}")
    return kind


def _without_encoding(dataset: xr.Dataset) -> xr.Dataset:
    """Copy without on-disk encodings, coordinates loaded, text as objects: fixed-width text is not in zarr v3."""
    dataset = dataset.drop_encoding()
    dataset = dataset.assign_coords({name: coord.compute() for name, coord in dataset.coords.items()})
    for name, variable in dataset.variables.items():
        if variable.dtype.kind in "UT":
            dataset[name] = dataset[name].astype(object)
    return dataset


def _of_its_kind(dataset: xr.Dataset) -> xr.Dataset:
    """A selection that is no longer of the kind it came from stops saying so."""
    try:
        return schema.validate(dataset, kind_of(dataset))
    except (schema.SchemaError, StoreError):
        attrs = {name: value for name, value in dataset.attrs.items() if name != schema.KIND_ATTR}
        return dataset.drop_attrs(deep=False).assign_attrs(attrs)


def _encoding(variable: xr.Variable, given: dict[str, int] | None = None) -> dict[str, Any]:
    """Chunks, shards and compression of a variable; lengths of a block may be given, and those left out are whole."""
    from zarr.codecs import BloscCodec, Crc32cCodec

    if variable.dtype.kind in "OUT":
        return {"chunks": tuple(max(1, length) for length in variable.shape)}
    sizes = dict(zip(map(str, variable.dims), variable.shape, strict=True))
    block = {dim: max(1, length) for dim, length in sizes.items()}
    limit = SHARD_BYTES if "cell_type" in sizes else CHUNK_BYTES
    if given is not None:
        block |= {dim: length for dim, length in given.items() if dim in block}
    elif variable.chunks is not None:
        block = {str(dim): max(chunks) for dim, chunks in zip(variable.dims, variable.chunks, strict=True)}
    for dim in ("model", "sample", "time"):
        if given is None and dim in block and "time" in sizes:
            others = math.prod(length for name, length in block.items() if name != dim) * variable.dtype.itemsize
            block[dim] = max(1, min(block[dim], 1 if dim == "model" else limit // max(others, 1)))
    encoding: dict[str, Any] = {
        "chunks": tuple(block.values()),
        "compressors": (BloscCodec(cname="lz4", clevel=1, shuffle="shuffle"), Crc32cCodec()),
    }
    if {"cell_type", "time"} <= set(sizes) and block["cell_type"] > 1:
        of_one_type = math.prod(block.values()) // block["cell_type"] * variable.dtype.itemsize
        n_chunks = min(block["cell_type"], math.ceil(of_one_type * block["cell_type"] / TYPE_CHUNK_BYTES))
        n_types = math.ceil(block["cell_type"] / n_chunks)
        n_chunks = math.ceil(block["cell_type"] / n_types)
        encoding["chunks"] = tuple({**block, "cell_type": n_types}.values())
        encoding["shards"] = tuple({**block, "cell_type": n_types * n_chunks}.values())
    if variable.dtype.kind == "f":
        encoding["_FillValue"] = np.nan
    return encoding


def _write(dataset: xr.Dataset, path: Path, encoding: dict[str, dict[str, Any]]) -> None:
    import dask
    from tqdm.dask import TqdmCallback

    name = path.parent.name.partition(".partial-")[0]
    with one_writer(), TqdmCallback(desc=name, delay=_PROGRESS_AFTER, unit="task"), ExitStack() as stack:
        if dask.config.get("scheduler", None) in (None, "threads", "threading"):
            # Dask's own threads would go on writing after one of them has failed; leaving this pool waits for them.
            pool = ThreadPoolExecutor(dask.config.get("num_workers", base.n_threads()))
            stack.enter_context(dask.config.set(pool=stack.enter_context(pool)))
        dataset.to_zarr(path, mode="w-", zarr_format=3, consolidated=False, encoding=encoding)


@contextmanager
def made_aside(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """A path beside another, which takes its place when the block ends well and vanishes when it does not.

    Raises
    ------
    FileExistsError
        If there is something at the path by then, and it is not to be replaced.
    """
    with scratch(path) as aside:
        try:
            yield aside / "store"
            if path.exists() and replace:
                os.rename(path, aside / "replaced")
            elif path.exists():
                raise FileExistsError(f"{path} was made by somebody else meanwhile: choose another path")
            os.rename(aside / "store", path)
        finally:
            if (aside / "replaced").exists() and not path.exists():
                os.rename(aside / "replaced", path)


@contextmanager
def scratch(path: Path) -> Iterator[Path]:
    """A folder beside a path, on the same disk, that vanishes in the end."""
    aside = Path(tempfile.mkdtemp(prefix=f"{path.name}.partial-", dir=path.parent))
    try:
        yield aside
    finally:
        shutil.rmtree(aside, ignore_errors=True)
