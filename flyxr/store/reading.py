"""Opening stores lazily, and saying what is missing of them, when they are opened and when they are read."""

from __future__ import annotations

import warnings
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xarray as xr

from flyxr import identity, schema
from flyxr.errors import FlyxrWarning, Problem
from flyxr.identity import ChangedError
from flyxr.store import files, labels, ledger
from flyxr.store.files import StoreError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from flyxr.store.ledger import Ledger

_AGAIN = (
    "call fx.sweep with the same inputs again to finish it, and see fx.sweep_status(path)",
    "run the same `flyxr simulate` again to finish it, and see `flyxr info`",
)
_ANEW = (
    "call fx.sweep with the same inputs again, which computes them anew",
    "run the same `flyxr simulate` again, which computes them anew",
)
_MEND = (
    "if a sweep made the store, call fx.sweep with the same inputs and verify=True, which computes it anew; else "
    "restore it from a copy",
    "if a sweep made the store, run flyxr simulate again with --verify, which computes it anew; else restore it from "
    "a copy",
)


def open(path: str | Path) -> xr.Dataset:
    """Open a store lazily; coordinates are loaded.

    Parameters
    ----------
    path
        A store that :func:`save` or :func:`flyxr.sweep` wrote.

    Returns
    -------
    Dataset
        Chunked for dask as it lies on disk, so that one cell type of the responses is read without the rest. It stays
        what it was when it was opened: reading a store that has been changed or replaced since raises. Of a sweep that
        is under way, what has been written meanwhile is read.

    Raises
    ------
    MissingError
        A FileNotFoundError. If there is nothing at the path.
    StoreError
        A ValueError. If what is there is no zarr v3 store, or its labels are missing; or, on computing, if a file of it
        is missing or corrupted, which is named.
    ChangedError
        A ValueError. On computing, if the store is no longer the one that was opened.
    SchemaError
        A ValueError. If the store says what kind it is and does not hold it.

    Warns
    -----
    FlyxrWarning
        A UserWarning. If a sweep into the store is unfinished: it says how much is missing, and that it reads as NaN.
        If files are missing or have another size than they were written with; reading a missing one raises.
    """
    path = Path(path)
    if not path.exists():
        raise files.missing(path, "a zarr store that fx.save or `flyxr` wrote")
    found = ledger.read(path)
    missing: list[Problem] = []
    if found is None:
        dataset = _open_saved(path, missing)
    else:
        dataset = _open_sweep(path, found, missing)
    if schema.KIND_ATTR in dataset.attrs:
        schema.validate(dataset, schema.kind_of(dataset, path))
    for problem in missing:
        warnings.warn(FlyxrWarning(problem), stacklevel=2)
    return dataset


def labels_of(path: Path, found: Ledger) -> xr.Dataset:
    """Labels of a sweep, as a Dataset without variables.

    Raises
    ------
    StoreError
        A ValueError. If the store is of version 0.1, which kept labels in zarr files alone, and was being extended when
        the process ended.
    """
    if found.labels is not None:
        return labels.decode(found.labels)
    dataset = _open_first_version(path, found)
    return dataset.drop_vars(list(dataset.data_vars))


def _open_zarr(path: Path) -> xr.Dataset:
    try:
        # Version 3 only: a store of version 2 may name codecs that unpickle what they read.
        dataset: xr.Dataset = xr.open_zarr(path, zarr_format=3, consolidated=False, chunks=None)
    except Exception as error:
        raise StoreError(
            Problem(
                f"{path} cannot be read as a zarr v3 store ({type(error).__name__}: {error})",
                "expected one that fx.save or `flyxr` wrote",
            )
        ) from error
    return dataset


def _as_objects(dataset: xr.Dataset) -> xr.Dataset:
    """The same with its coordinates and all text in memory, text as objects."""
    for name, coord in dataset.coords.items():
        values = coord.values
        dataset[name] = coord.copy(data=values.astype(object) if values.dtype.kind in "UT" else values)
    for name, variable in dataset.data_vars.items():
        if variable.dtype.kind in "UT":
            dataset[name] = variable.astype(object).load()
    return dataset


def _open_saved(path: Path, missing: list[Problem]) -> xr.Dataset:
    """Open what was saved, or what others wrote; files that are missing or changed are noted."""
    manifest = files.read_manifest(path)
    there = files.listing(path)
    lost = sorted(set(manifest) - set(there))
    _refuse_missing(path, [file for file in lost if file.endswith("zarr.json")])
    dataset = _open_zarr(path)
    lazy = {str(name) for name, variable in dataset.data_vars.items() if variable.ndim and _is_raw(path, variable)}
    _refuse_missing(path, [file for file in lost if file.split("/")[0] not in lazy])
    missing += _missing(path, lost, manifest, there)
    dataset = _as_objects(dataset)
    for name, variable in dataset.data_vars.items():
        if str(name) in lazy:
            inside = {file: stat for file, stat in there.items() if file.startswith(f"{name}/")}
            stamp = identity.digest(repr(sorted(inside.items())).encode())
            dataset[name] = _lazily(path, str(name), variable, Saved(path.absolute(), str(name), stamp))
        elif variable.ndim and variable.dtype.kind not in "OUT":  # packed by others, and read as xarray does
            dataset[name] = variable.chunk(variable.encoding.get("preferred_chunks", {}))
    return dataset


def _refuse_missing(path: Path, lost: list[str]) -> None:
    """Raise if files are missing that are read when a store is opened: labels, shapes, text."""
    if lost:
        text = f"{len(lost)} files of {path} are missing, first {lost[0]}"
        raise StoreError(Problem(text, "restore the store from a copy"))


def _missing(
    path: Path, lost: list[str], manifest: Mapping[str, tuple[int, str]], there: Mapping[str, tuple[int, int]]
) -> list[Problem]:
    """Files of a store that was saved which are missing, or have another size."""
    problems = []
    if lost:
        text = f"{len(lost)} of {len(manifest)} files of {path} are missing, first {lost[0]}, and reading them raises"
        problems.append(Problem(text, "restore the store from a copy"))
    other = sorted(
        file
        for file, (n_bytes, _) in manifest.items()
        if file in there and there[file][0] != n_bytes and file != "zarr.json"  # attributes may be added
    )
    if other:
        text = f"{len(other)} files of {path} have another size than they were saved with, first {other[0]}"
        problems.append(Problem(text, "if you did not change the store, restore it from a copy"))
    return problems


def _open_first_version(path: Path, found: Ledger) -> xr.Dataset:
    """Labels and attributes of a sweep of version 0.1, which are in its zarr files alone."""
    try:
        dataset = _as_objects(_open_zarr(path))
        sizes = (dataset.sizes.get("model"), dataset.sizes.get("sample"))
    except StoreError:
        sizes = (None, None)
    if sizes != found.done.shape:
        raise StoreError(
            Problem(
                f"{path} was being extended when the process ended: its files are not of the (model, sample) "
                f"{found.done.shape} that its ledger has",
                "call fx.sweep with the same inputs again to finish it",
                "run the same `flyxr simulate` again to finish it",
            )
        )
    return dataset


def _open_sweep(path: Path, found: Ledger, missing: list[Problem]) -> xr.Dataset:
    """Open a sweep with the labels of its ledger, whatever its zarr files say; what is missing is noted."""
    import zarr

    dataset = labels_of(path, found)
    if found.labels is not None:
        dataset = dataset.assign_attrs((found.made or {}).get("attrs", {}))
    there = files.sizes_and_times(path, [*found.files, ledger.PLACE.as_posix()])
    stamp = identity.digest(repr(sorted(there.items())).encode())
    where = Swept(path.absolute(), "response", ledger.store_id(path), stamp)
    lost = found.lose(there)
    n_models, n_samples = found.done.shape
    sizes: dict[Any, int] = {**dataset.sizes, "model": n_models, "sample": n_samples}
    for variable in schema.KINDS["responses"].variables:
        try:
            array = zarr.open_array(path / variable.name, mode="r", zarr_format=3)
        except Exception as error:
            raise StoreError(
                Problem(f"{path / variable.name / 'zarr.json'} cannot be read ({error})", *_ANEW)
            ) from error
        bare = xr.DataArray(np.broadcast_to(np.empty((), array.dtype), array.shape), dims=variable.dims)
        bare.encoding = {"chunks": array.chunks}
        stored = _lazily(path, variable.name, bare, where._replace(name=variable.name))
        # Where the ledger has grown, and the files have not yet, the rest is missing.
        more = {dim: (0, sizes[dim] - length) for dim, length in stored.sizes.items() if sizes[dim] > length}
        dataset[variable.name] = stored.pad(more, constant_values=np.nan) if more else stored
    errors = (found.made or {}).get("response") or _of_first_version(path, found)
    dataset["response"].attrs.update(errors)
    n_missing = found.done.size - int(found.done.sum())
    if lost:
        text = f"{len(lost)} files of {path} are missing or have another size than they were written with, first "
        missing.append(Problem(f"{text}{lost[0]}; reading those that are missing raises", *_ANEW))
    elif not found.is_complete:
        share = f"{n_missing} of {found.done.size} responses of a model to a sample ({n_missing / found.done.size:.0%})"
        if n_missing:
            text = f"{share} are missing and read as NaN"
        elif not found.seen.all():
            text = f"the luminance of {int((~found.seen).sum())} samples is missing and reads as NaN"
        else:
            text = "all responses are there, but its zarr files do not say yet what they are"
        missing.append(Problem(f"{path} is an unfinished sweep: {text}", *_AGAIN))
    return schema.annotate(dataset, "responses")


def _of_first_version(path: Path, found: Ledger) -> dict[str, Any]:
    """Attributes that version 0.1 gave to the responses: the errors of storing with fewer bits."""
    import zarr

    if found.labels is not None:
        return {}
    attrs = zarr.open_array(path / "response", mode="r", zarr_format=3).attrs
    return {name: attrs[name] for name in ("largest_relative_error", "largest_error") if name in attrs}


class Saved(NamedTuple):
    """Where a variable of a saved store lies, and the digest of the sizes and times of its files when it was opened."""

    path: Path
    name: str
    stamp: str


class Swept(NamedTuple):
    """Where a variable of a sweep lies, which store it is, and the digest of sizes and times when it was opened."""

    path: Path
    name: str
    store_id: str
    stamp: str


def _lazily(path: Path, name: str, variable: xr.DataArray, where: Saved | Swept) -> xr.DataArray:
    """Dask array of a variable of a store, one task a chunk."""
    import dask.array as da
    from dask.base import tokenize

    chunks = variable.encoding.get("chunks") or variable.shape
    graph_name = f"{name}-{tokenize(str(path.absolute()), *map(str, where))}"
    stored = _Stored(where, variable.shape, variable.dtype)
    meta = np.empty((0,) * variable.ndim, variable.dtype)
    return variable.copy(data=da.from_array(stored, chunks=chunks, name=graph_name, meta=meta))


def _is_raw(path: Path, variable: xr.DataArray) -> bool:
    """Whether the numbers on disk are those of the variable, with nothing left to decode, as in all that is saved."""
    import zarr

    encoding = variable.encoding
    fill = encoding.get("_FillValue")
    is_decoded = any(encoding.get(name) is not None for name in ("scale_factor", "add_offset", "_Unsigned", "units"))
    if variable.dtype.kind not in "fiub" or is_decoded or not (fill is None or np.isnan(fill)):
        return False
    return bool(zarr.open_array(path / str(variable.name), mode="r", zarr_format=3).dtype == variable.dtype)


class _Stored:
    """An array on disk: opened where it is read; a file that is missing, changed or corrupted is named."""

    def __init__(self, where: Saved | Swept, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.where, self.shape, self.dtype, self.ndim = where, shape, dtype, len(shape)

    def __getitem__(self, key: tuple[Any, ...]) -> NDArray[Any]:
        if isinstance(self.where, Swept):
            _check_id(self.where)
        array, there = _opened(self.where)
        starts = [_first(part) for part in key]
        whole = array.shards or array.chunks
        file = "/".join(["c", *(str(start // length) for start, length in zip(starts, whole, strict=True))])
        if isinstance(self.where, Saved):
            _check_saved(self.where, file, there)
        else:
            _check_written(self.where, file)
        try:
            values: NDArray[Any] = array[key]
        except Exception as error:
            path = self.where.path / self.where.name / file
            raise StoreError(Problem(f"{path} is corrupted or cannot be read ({error})", *_MEND)) from error
        return values


def _first(part: Any) -> int:
    if isinstance(part, slice):
        return int(part.start or 0)
    return int(np.min(part))


@lru_cache(maxsize=256)
def _opened(where: Saved | Swept) -> tuple[Any, Mapping[str, tuple[int, int]]]:
    """Array on disk, and the files that it had when it was opened; once a process."""
    import zarr

    folder = where.path / where.name
    there: dict[str, tuple[int, int]] = {}
    if isinstance(where, Saved):
        try:
            there = files.listing(folder)
        except OSError:
            raise _changed(where) from None
        inside = [(f"{where.name}/{file}", stat) for file, stat in there.items()]
        if identity.digest(repr(sorted(inside)).encode()) != where.stamp:
            raise _changed(where)
    return zarr.open_array(folder, mode="r", zarr_format=3), there


def _check_saved(where: Saved, file: str, there: Mapping[str, tuple[int, int]]) -> None:
    """Raise unless a file of a saved store is as it was when the store was opened, and when it was saved."""
    try:
        stat = (where.path / where.name / file).stat()
        found = (stat.st_size, stat.st_mtime_ns)
    except OSError:
        found = None
    if found != there.get(file):
        raise _changed(where)
    if found is None and f"{where.name}/{file}" in _manifest(where):
        path = where.path / where.name / file
        raise StoreError(Problem(f"{path} is missing", "restore the store from a copy"))


@lru_cache(maxsize=256)
def _manifest(where: Saved) -> Mapping[str, tuple[int, str]]:
    return files.read_manifest(where.path)


def _check_id(where: Swept) -> None:
    """Raise unless a sweep is the one that was opened."""
    try:
        found = ledger.store_id(where.path)
    except OSError:
        raise _changed(where) from None
    if found != where.store_id:
        raise _changed(where)


def _check_written(where: Swept, file: str) -> None:
    """Raise if a file of a sweep is not there, and its ledger says that it was written."""
    path = where.path / where.name / file
    if path.exists():
        return
    found = ledger.read(where.path)
    if found is not None and f"{where.name}/{file}" in found.shards:
        raise StoreError(Problem(f"{path} is missing", *_MEND))


def _changed(where: Saved | Swept) -> ChangedError:
    return ChangedError(
        Problem(f"{where.path} has changed since it was opened: its '{where.name}' is not what it was", "open it again")
    )
