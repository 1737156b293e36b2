"""Datasets on disk: zarr v3 with a chunk policy, written completely or not at all."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from flyxr import schema

if TYPE_CHECKING:
    from collections.abc import Iterator

SHARD_BYTES = 256 * 2**20
"""Largest shard that is chosen for data without chunks of their own, byte."""
CHUNK_BYTES = 16 * 2**20
"""Largest chunk of movies and renderings, byte."""
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
    with _made_aside(path) as aside:
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
        If what is there is no zarr v3 store.
    SchemaError
        If the store says what kind it is and does not hold it.
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
        elif chunks := variable.encoding.get("chunks"):
            dataset[name] = variable.chunk(dict(zip(variable.dims, chunks, strict=True)))
    if schema.KIND_ATTR in dataset.attrs:
        schema.validate(dataset, kind_of(dataset, path))
    return dataset


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


def _encoding(variable: xr.Variable) -> dict[str, Any]:
    """Chunks, shards and compression of a variable."""
    from zarr.codecs import BloscCodec

    if variable.dtype.kind in "OUT":
        return {"chunks": tuple(max(1, length) for length in variable.shape)}
    sizes = dict(zip(map(str, variable.dims), variable.shape, strict=True))
    block = {dim: max(1, length) for dim, length in sizes.items()}
    limit = SHARD_BYTES if "cell_type" in sizes else CHUNK_BYTES
    if variable.chunks is not None:
        block = {str(dim): max(chunks) for dim, chunks in zip(variable.dims, variable.chunks, strict=True)}
    for dim in ("model", "sample", "time"):
        if dim in block and "time" in sizes:
            others = math.prod(length for name, length in block.items() if name != dim) * variable.dtype.itemsize
            block[dim] = max(1, min(block[dim], 1 if dim == "model" else limit // max(others, 1)))
    encoding: dict[str, Any] = {
        "chunks": tuple(block.values()),
        "compressors": BloscCodec(cname="lz4", clevel=5, shuffle="shuffle"),
    }
    if {"cell_type", "time"} <= set(sizes) and block["cell_type"] > 1:
        encoding["shards"] = encoding["chunks"]
        encoding["chunks"] = tuple(1 if dim == "cell_type" else length for dim, length in block.items())
    if variable.dtype.kind == "f":
        encoding["_FillValue"] = np.nan
    return encoding


def _write(dataset: xr.Dataset, path: Path, encoding: dict[str, dict[str, Any]]) -> None:
    import dask
    import zarr
    from tqdm.dask import TqdmCallback

    name = path.parent.name.partition(".partial-")[0]
    options = {"async.concurrency": 1}  # zarr's own threads would multiply with dask's
    with zarr.config.set(options), TqdmCallback(desc=name, delay=_PROGRESS_AFTER, unit="task"), ExitStack() as stack:
        if dask.config.get("scheduler", None) in (None, "threads", "threading"):
            # Dask's own threads would go on writing after one of them has failed; leaving this pool waits for them.
            pool = ThreadPoolExecutor(dask.config.get("num_workers", os.cpu_count()))
            stack.enter_context(dask.config.set(pool=stack.enter_context(pool)))
        dataset.to_zarr(path, mode="w-", zarr_format=3, consolidated=False, encoding=encoding)


@contextmanager
def _made_aside(path: Path) -> Iterator[Path]:
    """A path beside another, which takes its place when the block ends well and vanishes when it does not."""
    aside = Path(tempfile.mkdtemp(prefix=f"{path.name}.partial-", dir=path.parent))
    try:
        yield aside / "store"
        if path.exists():
            os.rename(path, aside / "replaced")
        os.rename(aside / "store", path)
    finally:
        if (aside / "replaced").exists() and not path.exists():
            os.rename(aside / "replaced", path)
        shutil.rmtree(aside, ignore_errors=True)
