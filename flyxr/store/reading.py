"""Opening stores lazily, and reporting missing files when a store is opened and when it is read."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xarray as xr

from flyxr import identity, schema
from flyxr.errors import FlyxrError, FlyxrWarning, Problem
from flyxr.identity import ChangedError
from flyxr.paths import local_path
from flyxr.store import files, labels
from flyxr.store.files import StoreError
from flyxr.store.ledger import LEDGER_FILE, Ledger, read_ledger, store_id
from flyxr.store.metadata import MAX_LABELS, check_metadata

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

_RESUME_HINTS = (
    "call fx.sweep with the same inputs again to finish it, and see fx.sweep_status(path)",
    "run the same `flyxr simulate` again to finish it, and see `flyxr info`",
)
_RECOMPUTE_HINTS = (
    "call fx.sweep with the same inputs again to recompute them",
    "run the same `flyxr simulate` again to recompute them",
)
_VERIFY_HINTS = (
    "if a sweep wrote the store, call fx.sweep with the same inputs and verify=True to recompute it; otherwise "
    "restore it from a copy",
    "if a sweep wrote the store, run the same `flyxr simulate` with --verify to recompute it; otherwise restore it "
    "from a copy",
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
        Chunked for dask as on disk, so that one cell type of the responses is read without the rest. Reading raises if
        the store was changed or replaced after it was opened. For a sweep that is running, reading includes blocks that
        were written since.

    Raises
    ------
    MissingError
        A FileNotFoundError. If the path does not exist.
    StoreError
        A ValueError. If the path is not a zarr v3 store, or its labels are missing; on computing, if a file is missing
        or corrupted. The message names the file.
    ChangedError
        A ValueError. On computing, if the store is no longer the one that was opened.
    SchemaError
        A ValueError. If the content does not match the kind of the store.

    Warns
    -----
    FlyxrWarning
        A UserWarning. If a sweep into the store is unfinished: missing responses read as NaN. If files are missing or
        have another size than they were written with; reading a missing one raises.
    """
    dataset, problems = open_with_problems(local_path(path))
    for problem in problems:
        warnings.warn(FlyxrWarning(problem), stacklevel=2)
    return dataset


def open_with_problems(path: Path) -> tuple[xr.Dataset, list[Problem]]:
    """Open a store as :func:`open` does, and return what it would warn of."""
    if not path.exists():
        raise files.missing_error(path, "a zarr store that fx.save or `flyxr` wrote")
    problems: list[Problem] = []
    with reading_store(path):
        ledger = read_ledger(path)
        if ledger is None:
            check_metadata(path)
            dataset = _open_saved(path, problems)
        else:
            dataset = _open_sweep(path, ledger, problems)
        dataset = _as_known_kind(path, dataset)
    return dataset, problems


@contextmanager
def reading_store(path: Path) -> Iterator[None]:
    """Convert whatever a damaged store raises to an error that names it."""
    try:
        yield
    except FlyxrError:
        raise
    except Exception as error:  # zarr, its codecs and xarray raise many kinds on damaged files
        text = f"{path} is damaged or no store of flyxr ({type(error).__name__}: {str(error)[:200]})"
        raise StoreError(Problem(text, "restore it from a copy")) from error


def _as_known_kind(path: Path, dataset: xr.Dataset) -> xr.Dataset:
    """Check a Dataset of a kind, and put its variables in order."""
    if isinstance(is_trained := dataset.attrs.get("trained"), bool):  # version 0.1; netCDF has no booleans
        dataset = dataset.assign_attrs(trained=int(is_trained))
    if schema.KIND_ATTR in dataset.attrs:
        kind = schema.kind_of(dataset, path)
        schema.validate(dataset, kind)
        # Folders of a store are in no order.
        ordered = [variable.name for variable in schema.KINDS[kind].variables if variable.name in dataset]
        others = [name for name in dataset.data_vars if name not in ordered]
        dataset = dataset[[*ordered, *others]].assign_coords(dataset.coords)
    return dataset


def read_labels(path: Path, ledger: Ledger) -> xr.Dataset:
    """Labels of a sweep, as a Dataset without variables.

    Raises
    ------
    StoreError
        A ValueError. If an interrupted extension left the zarr files of a store of version 0.1 with other shapes than
        its ledger; that version keeps labels in the zarr files only.
    """
    if ledger.labels is not None:
        with reading_store(path / LEDGER_FILE):
            return labels.decode(ledger.labels)
    with reading_store(path):
        check_metadata(path)
        dataset = _open_version_0_1(path, ledger)
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


def _load_text(dataset: xr.Dataset) -> xr.Dataset:
    """Load coordinates and text variables into memory, text as objects, and labels that are JSON decoded."""
    for name, coord in dataset.coords.items():
        if coord.size > MAX_LABELS:
            raise StoreError(f"expected at most {MAX_LABELS:,} labels, got {coord.size:,} of the coordinate {name!r}")
        values = coord.values
        dataset[name] = coord.copy(data=values.astype(object) if values.dtype.kind in "UT" else values)
    for name, variable in dataset.data_vars.items():
        if variable.dtype.kind in "UT":
            dataset[name] = variable.astype(object).load()
    return labels.from_text(dataset)


def _open_saved(path: Path, problems: list[Problem]) -> xr.Dataset:
    """Open a saved store, or one of other software; append missing and changed files to ``problems``."""
    manifest = files.read_manifest(path)
    stats = files.list_files(path)
    missing = sorted(set(manifest) - set(stats))
    _check_labels_exist(path, [file for file in missing if file.endswith("zarr.json")])
    dataset = _open_zarr(path)
    lazy = {str(name) for name, variable in dataset.data_vars.items() if variable.ndim and _is_raw(path, variable)}
    _check_labels_exist(path, [file for file in missing if file.split("/")[0] not in lazy])
    problems += _manifest_problems(path, missing, manifest, stats)
    dataset = _load_text(dataset)
    for name, variable in dataset.data_vars.items():
        if str(name) in lazy:
            variable_stats = {file: stat for file, stat in stats.items() if file.startswith(f"{name}/")}
            source = SavedArray(path.absolute(), str(name), _stats_digest(variable_stats))
            dataset[name] = _lazy_array(path, str(name), variable, source)
        elif variable.ndim and variable.dtype.kind not in "OUT":  # packed by other software; xarray decodes it
            dataset[name] = variable.chunk(variable.encoding.get("preferred_chunks", {}))
    return dataset


def _stats_digest(stats: Mapping[str, tuple[int, int]]) -> str:
    return identity.digest(repr(sorted(stats.items())).encode())


def _check_labels_exist(path: Path, missing: list[str]) -> None:
    """Raise if files are missing that opening a store reads: labels, shapes, text."""
    if missing:
        text = f"{len(missing)} files of {path} are missing, first {missing[0]}"
        raise StoreError(Problem(text, "restore the store from a copy"))


def _manifest_problems(
    path: Path, missing: list[str], manifest: Mapping[str, tuple[int, str]], stats: Mapping[str, tuple[int, int]]
) -> list[Problem]:
    """Problems for files of a saved store that are missing or have another size."""
    problems = []
    if missing:
        text = f"{len(missing)} of {len(manifest)} files of {path} are missing, first {missing[0]}; reading them raises"
        problems.append(Problem(text, "restore the store from a copy"))
    resized = sorted(
        file
        for file, (n_bytes, _) in manifest.items()
        if file in stats and stats[file][0] != n_bytes and file != "zarr.json"  # attributes may be added
    )
    if resized:
        text = f"{len(resized)} files of {path} have another size than they were saved with, first {resized[0]}"
        problems.append(Problem(text, "if you did not change the store, restore it from a copy"))
    return problems


def _open_version_0_1(path: Path, ledger: Ledger) -> xr.Dataset:
    """Open a sweep of version 0.1, which has labels and attributes in its zarr files only."""
    try:
        dataset = _load_text(_open_zarr(path))
        shape = (dataset.sizes.get("model"), dataset.sizes.get("sample"))
    except StoreError:
        shape = (None, None)
    if shape != ledger.done.shape:
        raise StoreError(
            Problem(
                f"{path} was being extended when the process ended: its ledger has the shape {ledger.done.shape} of "
                "(model, sample), its files another",
                "call fx.sweep with the same inputs again to finish it",
                "run the same `flyxr simulate` again to finish it",
            )
        )
    return dataset


def _open_sweep(path: Path, ledger: Ledger, problems: list[Problem]) -> xr.Dataset:
    """Open a sweep with the labels of its ledger; append what is missing to ``problems``."""
    import zarr

    dataset = read_labels(path, ledger)
    if ledger.labels is not None:
        dataset = dataset.assign_attrs((ledger.final_attrs or {}).get("attrs", {}))
    stats = files.stat_files(path, [*ledger.files, LEDGER_FILE.as_posix()])
    identifier, digest = store_id(path), _stats_digest(stats)
    missing = ledger.drop_missing_files(stats)
    n_models, n_samples = ledger.done.shape
    sizes: dict[Any, int] = {**dataset.sizes, "model": n_models, "sample": n_samples}
    check_metadata(path, [variable.name for variable in schema.KINDS["responses"].variables], _RECOMPUTE_HINTS)
    for variable in schema.KINDS["responses"].variables:
        try:
            array = zarr.open_array(path / variable.name, mode="r", zarr_format=3)
        except Exception as error:
            raise StoreError(
                Problem(f"{path / variable.name / 'zarr.json'} cannot be read ({error})", *_RECOMPUTE_HINTS)
            ) from error
        template = xr.DataArray(np.broadcast_to(np.empty((), array.dtype), array.shape), dims=variable.dims)
        template.encoding = {"chunks": array.chunks}
        source = SweepArray(path.absolute(), variable.name, identifier, digest)
        stored = _lazy_array(path, variable.name, template, source)
        # An extension updates the ledger before the zarr files; what they lack is missing.
        padding = {dim: (0, sizes[dim] - length) for dim, length in stored.sizes.items() if sizes[dim] > length}
        dataset[variable.name] = stored.pad(padding, constant_values=np.nan) if padding else stored
    errors = (ledger.final_attrs or {}).get("response") or _errors_of_version_0_1(path, ledger)
    dataset["response"].attrs.update(errors)
    problems += _sweep_problems(path, ledger, missing)
    return schema.annotate(dataset, "responses")


def _sweep_problems(path: Path, ledger: Ledger, missing: list[str]) -> list[Problem]:
    """Problem of a sweep with missing files, or of an unfinished one."""
    if missing:
        text = (
            f"{len(missing)} files of {path} are missing or have another size than they were written with, first "
            f"{missing[0]}; reading missing ones raises"
        )
        return [Problem(text, *_RECOMPUTE_HINTS)]
    if ledger.is_complete:
        return []
    n_all = ledger.done.size
    n_missing = n_all - ledger.n_done
    n_dark = int((~ledger.has_luminance).sum())
    if n_missing:
        share = f"{n_missing} of {n_all} responses of a model to a sample ({n_missing / n_all:.0%})"
        text = f"{share} are missing and read as NaN"
    elif n_dark:
        text = f"the luminance of {n_dark} samples is missing and reads as NaN"
    else:
        text = "all responses are written, but the labels in its zarr files are not up to date"
    return [Problem(f"{path} is an unfinished sweep: {text}", *_RESUME_HINTS)]


def _errors_of_version_0_1(path: Path, ledger: Ledger) -> dict[str, Any]:
    """Rounding errors that version 0.1 stored as attributes of the responses."""
    import zarr

    if ledger.labels is not None:
        return {}
    attrs = zarr.open_array(path / "response", mode="r", zarr_format=3).attrs
    return {name: attrs[name] for name in ("largest_relative_error", "largest_error") if name in attrs}


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


def _lazy_array(path: Path, name: str, variable: xr.DataArray, source: SavedArray | SweepArray) -> xr.DataArray:
    """Dask array of a variable of a store, with one task per chunk."""
    import dask.array as da
    from dask.base import tokenize

    chunks = variable.encoding.get("chunks") or variable.shape
    graph_name = f"{name}-{tokenize(str(path.absolute()), *map(str, source))}"
    backend = _CheckedArray(source, variable.shape, variable.dtype)
    meta = np.empty((0,) * variable.ndim, variable.dtype)
    return variable.copy(data=da.from_array(backend, chunks=chunks, name=graph_name, meta=meta))


def _is_raw(path: Path, variable: xr.DataArray) -> bool:
    """Whether a variable has the same numbers on disk as in memory, without decoding; true for all saved numbers."""
    import zarr

    encoding = variable.encoding
    fill = encoding.get("_FillValue")
    is_decoded = any(encoding.get(name) is not None for name in ("scale_factor", "add_offset", "_Unsigned", "units"))
    if variable.dtype.kind not in "fiub" or is_decoded or not (fill is None or np.isnan(fill)):
        return False
    return bool(zarr.open_array(path / str(variable.name), mode="r", zarr_format=3).dtype == variable.dtype)


class _CheckedArray:
    """An array on disk, opened on reading; names files that are missing, changed or corrupted."""

    def __init__(self, source: SavedArray | SweepArray, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.source, self.shape, self.dtype, self.ndim = source, shape, dtype, len(shape)

    def __getitem__(self, key: tuple[Any, ...]) -> NDArray[Any]:
        if isinstance(self.source, SweepArray):
            _check_id(self.source)
        with reading_store(self.source.path / self.source.name):
            array, stats = _open_array(self.source)
        starts = [_start(index) for index in key]
        lengths = array.shards or array.chunks
        file = "/".join(["c", *(str(start // length) for start, length in zip(starts, lengths, strict=True))])
        if isinstance(self.source, SavedArray):
            _check_saved(self.source, file, stats)
        else:
            _check_written(self.source, file)
        try:
            values: NDArray[Any] = array[key]
        except Exception as error:
            path = self.source.path / self.source.name / file
            raise StoreError(Problem(f"{path} is corrupted or cannot be read ({error})", *_VERIFY_HINTS)) from error
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
        if _stats_digest({f"{source.name}/{file}": stat for file, stat in stats.items()}) != source.digest:
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
        raise StoreError(Problem(f"{path} is missing", *_VERIFY_HINTS))


def _changed_error(source: SavedArray | SweepArray) -> ChangedError:
    return ChangedError(Problem(f"'{source.name}' of {source.path} has changed since it was opened", "open it again"))
