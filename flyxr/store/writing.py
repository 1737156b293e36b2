"""Writing stores: completely or not at all, streamed, or region by region within a template."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from flyxr import schema
from flyxr.engine import base
from flyxr.store import files
from flyxr.store.encoding import encoding_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_PROGRESS_AFTER = 1.0  # s


def save(dataset: xr.Dataset | xr.DataArray, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write a Dataset to a zarr store, streaming what is lazy.

    The store appears at the path when it is complete and on the disk; until then it is ``<name>.partial-…`` beside it.
    It lists its files, so that one which is lost later is missed. Responses are chunked by cell type within one shard
    for each block of models × samples. A progress bar shows after a second.

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
    ExistsError
        A FileExistsError. If the path exists, and is not to be overwritten or no store.
    UnwritableError
        An OSError. If the path cannot be written.

    Examples
    --------
    >>> import flyxr as fx, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = fx.save(fx.sample_ensemble(n_models=2, seed=0), folder + "/ensemble.zarr")
    ...     fx.open(path).sizes["model"]
    2
    """
    path = files.check_target(path, overwrite=overwrite)
    if isinstance(dataset, xr.DataArray):
        dataset = dataset.to_dataset(name=dataset.name or "values")
    dataset = _of_its_kind(_without_encoding(dataset))
    encoding = {str(name): encoding_of(variable) for name, variable in dataset.variables.items()}
    for name, variable in dataset.variables.items():
        if variable.chunks is not None:
            whole = encoding[str(name)].get("shards", encoding[str(name)]["chunks"])
            dataset[name] = dataset[name].chunk(dict(zip(variable.dims, whole, strict=True)))
    with files.atomic_directory(path, replace=overwrite) as aside:
        _write(dataset, aside, encoding)
        for name in [*dataset.data_vars, *dataset.coords][:1]:
            files.write_manifest(aside, str(name))
    return path


def write_template(dataset: xr.Dataset, path: Path, block_samples: int) -> None:
    """Write a store without the values of what is lazy, at a path where there is nothing.

    A shard of responses holds one model and ``block_samples`` samples, also where there are fewer so far.
    """
    dataset = _without_encoding(dataset)
    encoding = {
        str(name): encoding_of(variable, {"model": 1, "sample": block_samples} if variable.chunks is not None else None)
        for name, variable in dataset.variables.items()
    }
    dataset.to_zarr(path, mode="w-", zarr_format=3, consolidated=False, encoding=encoding, compute=False)


def write_region(path: str | Path, name: str, values: NDArray[Any], start: tuple[int, ...]) -> files.StoredFile:
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
    StoredFile
        The file that they are in, which is on the disk, with its digest.
    """
    import zarr

    with one_writer():
        array = zarr.open_array(Path(path) / name, mode="r+", zarr_format=3, config={"write_empty_chunks": True})
        start = (*start, *(0,) * (array.ndim - len(start)))
        region = tuple(slice(first, first + length) for first, length in zip(start, values.shape, strict=True))
        array[region] = values
    chunk = [str(first // length) for first, length in zip(start, array.shards or array.chunks, strict=True)]
    return files.stamp(path, Path(name, "c", *chunk))


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
        return schema.validate(dataset, schema.kind_of(dataset))
    except schema.SchemaError:
        attrs = {name: value for name, value in dataset.attrs.items() if name != schema.KIND_ATTR}
        return dataset.drop_attrs(deep=False).assign_attrs(attrs)


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
