"""Writing stores: completely or not at all, lazy data in a stream, or region by region into a template."""

from __future__ import annotations

import os
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import xarray as xr

from flyxr import identity, progress, schema
from flyxr.engine import base
from flyxr.errors import ExistsError
from flyxr.store import files, labels, places
from flyxr.store.contents import reading_store
from flyxr.store.encoding import TYPE_CHUNK_BYTES, encoding_of
from flyxr.store.reuse import check_same, write_tokens

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray
    from upath import UPath

    from flyxr.store.places import Place

_PROGRESS_AFTER = 1.0  # s


def save(
    dataset: xr.Dataset | xr.DataArray,
    path: str | Path,
    *,
    overwrite: bool = False,
    reuse: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> Path:
    """Write a Dataset to a zarr store; lazy variables are streamed.

    The store appears at the path when it is complete and on the disk; until then it is ``<name>.partial-…`` in the same
    folder. A manifest lists its files, so that :func:`open` reports missing ones. Responses are chunked by cell
    type, with one shard per block of models × samples. A progress bar appears after a second.

    Parameters
    ----------
    dataset
        Any Dataset, or a selection from one.
    path
        Path of the store, whose parent folders are created, or a URL of object storage (``s3://``, ``gs://``,
        ``abfs://``, ``memory://``). There the store is written to the folder for temporary files, which ``TMPDIR``
        sets, and uploaded, the metadata of the group last: until then there is no store at the URL.
    overwrite
        Replace an existing zarr store; anything else at the path raises.
    reuse
        Keep an existing store if it holds the same Dataset: made by the same operations with the same arguments from
        the same files, with equal labels and content. Lazy data are not computed if their provenance decides this, and
        are computed and compared otherwise (see Notes). A store with other data raises, or is replaced if
        ``overwrite`` is also true.
    storage_options
        Options of the fsspec file system of a URL, such as ``{"key": ..., "secret": ...}``.

    Returns
    -------
    Path
        The path of the store; for a URL a ``upath.UPath``, which the other functions take too.

    Raises
    ------
    ExistsError
        A FileExistsError. If the path exists, unless it is a zarr store and ``overwrite`` is true, or it holds the same
        Dataset and ``reuse`` is true. With ``reuse``, the message names each difference.
    StoreError
        A ValueError. With ``reuse``, if the store is damaged or an unfinished sweep, unless ``overwrite`` is true.
    UnwritableError
        An OSError. If the path cannot be written.

    Notes
    -----
    With ``reuse``, provenance decides without computing if the lazy data have the same dask graph as those that the
    store was saved from, and the graph has only functions and arrays of flyxr, xarray, dask and NumPy. With functions
    of your own, data opened by other packages, data in memory, or stores of another version of flyxr, values are
    compared. A stimulus that was rendered from a file of other content is different, and one from a moved file is not.

    Examples
    --------
    >>> import flyxr as fx, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = fx.save(fx.sample_ensemble(n_models=2, seed=0), folder + "/ensemble.zarr")
    ...     fx.open(path).sizes["model"]
    2

    Render a movie on the first run of a script, and open the rendering on the next ones:

    >>> folder = tempfile.mkdtemp()
    >>> for run in range(2):
    ...     rendering = fx.BoxEye(extent=2).render(fx.stimuli.moving_digits(n_samples=1))
    ...     rendering = fx.open(fx.save(rendering, folder + "/rendering.zarr", reuse=True))
    """
    path = cast("Path", places.find(path, storage_options))
    if isinstance(dataset, xr.DataArray):
        dataset = dataset.to_dataset(name=dataset.name or "values")
    if reuse and (files.is_remote_store(path) if places.is_remote(path) else os.path.lexists(path)):
        try:
            check_same(path, _update_kind(_prepare(dataset)))
            return path
        except (ExistsError, files.StoreError):
            if not overwrite:
                raise
    path = files.check_target(path, overwrite=overwrite)
    dataset = _update_kind(_prepare(dataset))
    if places.is_remote(path):
        with tempfile.TemporaryDirectory(prefix="flyxr-") as folder:
            scratch = Path(folder, path.name)
            _write_saved(dataset, scratch)
            files.replace_remote(scratch, cast("UPath", path))
        return path
    with files.atomic_directory(path, replace=overwrite) as scratch:
        _write_saved(dataset, scratch)
    return path


def _write_saved(dataset: xr.Dataset, path: Path) -> None:
    """Write a store with its tokens and its manifest to a new path."""
    write_dataset(dataset, path)
    for name in files.manifest_folder(dataset):
        write_tokens(dataset, path, name)
        files.write_manifest(path, name)


def write_dataset(dataset: xr.Dataset, path: Path, *, type_chunk_bytes: int = TYPE_CHUNK_BYTES) -> None:
    """Write a Dataset without encodings to a new path, with the chunks of :func:`encoding_of`."""
    dataset = labels.to_text(dataset)
    encoding = {
        str(name): encoding_of(variable, type_chunk_bytes=type_chunk_bytes)
        for name, variable in dataset.variables.items()
    }
    lazy = {name: variable for name, variable in dataset.data_vars.items() if variable.chunks is not None}
    for name, variable in lazy.items():  # one writer per shard
        shard = encoding[str(name)].get("shards", encoding[str(name)]["chunks"])
        dataset = dataset.assign({name: variable.chunk(dict(zip(variable.dims, shard, strict=True)))})
    _write_zarr(dataset, path, encoding)


def write_template(dataset: xr.Dataset, path: Path, block_samples: int) -> None:
    """Write a store to a new path, without the values of lazy variables.

    A shard of responses holds one model and ``block_samples`` samples, even if there are fewer samples so far.
    """
    dataset = labels.to_text(_prepare(dataset))
    encoding = {
        str(name): encoding_of(variable, {"model": 1, "sample": block_samples} if variable.chunks is not None else None)
        for name, variable in dataset.variables.items()
    }
    dataset.to_zarr(path, mode="w-", zarr_format=3, consolidated=False, encoding=encoding, compute=False)


def write_region(path: Place | str, name: str, values: NDArray[Any], start: tuple[int, ...]) -> files.StoredFile:
    """Write values into a variable of a store, within one shard that no other task writes at the same time.

    Parameters
    ----------
    path
        Path of the store.
    name
        Name of the variable.
    values
        Values with the dims of the variable.
    start
        First index along the leading dims; 0 along the others.

    Returns
    -------
    StoredFile
        File of the shard, synced to disk, with its digest.
    """
    import zarr

    if places.is_remote(path):
        return _write_remote_region(cast("UPath", path), name, values, start)
    path = Path(str(path))
    with _single_threaded_zarr():
        with reading_store(path / name):
            array = zarr.open_array(path / name, mode="r+", zarr_format=3, config={"write_empty_chunks": True})
        chunk = _assign_region(array, values, start)
    return files.fingerprint(path, Path(name, "c", *chunk))


def _assign_region(array: Any, values: NDArray[Any], start: tuple[int, ...]) -> list[str]:
    """Assign values to a region of an array on disk; return the position of its shard, as text."""
    start = (*start, *(0,) * (array.ndim - len(start)))
    region = tuple(slice(first, first + length) for first, length in zip(start, values.shape, strict=True))
    array[region] = values
    return [str(first // length) for first, length in zip(start, array.shards or array.chunks, strict=True)]


def _write_remote_region(path: UPath, name: str, values: NDArray[Any], start: tuple[int, ...]) -> files.StoredFile:
    """Encode a shard in memory, and send it as one object."""
    import zarr

    from flyxr.store.remote import RemoteStore

    with _single_threaded_zarr():
        with reading_store(path / name):
            metadata = places.read_bytes(path / name / "zarr.json", files.MAX_JSON_BYTES)
            store = RemoteStore(path, {f"{name}/zarr.json": metadata}, is_read_only=False)
            array = zarr.open_array(store, path=name, mode="r+", zarr_format=3, config={"write_empty_chunks": True})
        chunk = _assign_region(array, values, start)
    file = "/".join([name, "c", *chunk])
    content = store.written[file]
    places.write_bytes(path / file, content)
    return files.StoredFile(file, len(content), 0, identity.bytes_digest(content))


_n_writers = 0
_writers_lock = threading.Lock()
_zarr_options: Any = None


@contextmanager
def _single_threaded_zarr() -> Iterator[None]:
    """Keep zarr from using threads while tasks write, since they would multiply with those of the tasks."""
    import zarr

    global _n_writers, _zarr_options
    with _writers_lock:
        if _n_writers == 0:
            _zarr_options = zarr.config.set({"async.concurrency": 1})
        _n_writers += 1
    try:
        yield
    finally:
        with _writers_lock:
            _n_writers -= 1
            if _n_writers == 0:
                _zarr_options.__exit__(None, None, None)


def _prepare(dataset: xr.Dataset) -> xr.Dataset:
    """Drop encodings, load coordinates, flatten them, and convert text to objects, as zarr has no fixed-width text."""
    dataset = schema.flatten_labels(dataset.drop_encoding())
    dataset = dataset.assign_coords({name: coord.compute() for name, coord in dataset.coords.items()})
    for name, variable in dataset.variables.items():
        if variable.dtype.kind in "UT":
            dataset[name] = dataset[name].astype(object)
    return dataset


def _update_kind(dataset: xr.Dataset) -> xr.Dataset:
    """Complete a Dataset of a kind; remove the kind of a selection that is no longer a valid Dataset of it."""
    try:
        completed, squeeze = schema.expand(dataset, schema.kind_of(dataset))
        return squeeze(completed)
    except schema.SchemaError:
        attrs = {name: value for name, value in dataset.attrs.items() if name != schema.KIND_ATTR}
        return dataset.drop_attrs(deep=False).assign_attrs(attrs)


def _write_zarr(dataset: xr.Dataset, path: Path, encoding: dict[str, dict[str, Any]]) -> None:
    import dask

    name = path.parent.name.partition(".partial-")[0]
    with _single_threaded_zarr(), progress.task_bar(name, delay=_PROGRESS_AFTER), ExitStack() as stack:
        if dask.config.get("scheduler", None) in (None, "threads", "threading"):
            # Dask's own threads keep writing after a task has failed; leaving this pool waits for them.
            pool = ThreadPoolExecutor(dask.config.get("num_workers", base.n_threads()))
            stack.enter_context(dask.config.set(pool=stack.enter_context(pool)))
        dataset.to_zarr(path, mode="w-", zarr_format=3, consolidated=False, encoding=encoding)
