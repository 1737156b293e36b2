"""Opening stores lazily, and reporting missing files when a store is opened and when it is read."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from flyxr import schema
from flyxr.errors import FlyxrWarning, Problem
from flyxr.store import files, labels, places
from flyxr.store.arrays import SavedArray, SweepArray, lazy_array, stats_digest
from flyxr.store.contents import (
    RECOMPUTE_HINTS,
    as_known_kind,
    combine_sweep,
    is_raw,
    load_text,
    reading_store,
    sweep_problems,
)
from flyxr.store.files import StoreError
from flyxr.store.ledger import LEDGER_FILE, Ledger, read_ledger, store_id
from flyxr.store.metadata import check_metadata
from flyxr.store.remote_reading import open_remote, read_remote_labels

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from flyxr.store.places import Place


def open(path: str | Path, *, storage_options: Mapping[str, Any] | None = None) -> xr.Dataset:
    """Open a store lazily; coordinates are loaded.

    Parameters
    ----------
    path
        A store that :func:`save` or :func:`flyxr.sweep` wrote: a path, a zipped store (``.zip``), or the URL of either
        (``https://``, ``s3://``, ``gs://``, ``abfs://``, ``memory://`` or ``file://``).
    storage_options
        Options of the fsspec file system of a URL, such as ``{"anon": True}`` for a public bucket. They become part of
        the lazy Dataset, since its workers read with them.

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
    InputError
        A ValueError. If the protocol of a URL is not supported.
    RemoteError
        An OSError. If a connection fails three times, or access is denied.
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
    dataset, problems = open_with_problems(places.find(path, storage_options))
    for problem in problems:
        warnings.warn(FlyxrWarning(problem), stacklevel=2)
    return dataset


def open_with_problems(path: Place) -> tuple[xr.Dataset, list[Problem]]:
    """Open a store as :func:`open` does, and return what it would warn of."""
    if places.is_remote(path):
        return open_remote(path)
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
        dataset = as_known_kind(path, dataset)
    return dataset, problems


def read_labels(path: Place, ledger: Ledger) -> xr.Dataset:
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
    if places.is_remote(path):
        return read_remote_labels(path)
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
    dataset = load_text(dataset)
    for name, variable in dataset.data_vars.items():
        if str(name) in lazy:
            variable_stats = {file: stat for file, stat in stats.items() if file.startswith(f"{name}/")}
            source = SavedArray(path.absolute(), str(name), stats_digest(variable_stats))
            dataset[name] = lazy_array(path, str(name), variable, source)
        elif variable.ndim and variable.dtype.kind not in "OUT":  # packed by other software; xarray decodes it
            dataset[name] = variable.chunk(variable.encoding.get("preferred_chunks", {}))
    return dataset


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
        dataset = load_text(_open_zarr(path))
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
    stats = files.stat_files(path, [*ledger.files, LEDGER_FILE.as_posix()])
    identifier, digest = store_id(path), stats_digest(stats)
    missing = ledger.drop_missing_files(stats)
    stored = {}
    check_metadata(path, [variable.name for variable in schema.KINDS["responses"].variables], RECOMPUTE_HINTS)
    for variable in schema.KINDS["responses"].variables:
        try:
            array = zarr.open_array(path / variable.name, mode="r", zarr_format=3)
        except Exception as error:
            raise StoreError(
                Problem(f"{path / variable.name / 'zarr.json'} cannot be read ({error})", *RECOMPUTE_HINTS)
            ) from error
        template = xr.DataArray(np.broadcast_to(np.empty((), array.dtype), array.shape), dims=variable.dims)
        template.encoding = {"chunks": array.chunks, "shards": array.shards}
        source = SweepArray(path.absolute(), variable.name, identifier, digest)
        stored[variable.name] = lazy_array(path, variable.name, template, source)
    dataset = combine_sweep(dataset, stored, ledger)
    dataset["response"].attrs.update(_errors_of_version_0_1(path, ledger))
    problems += sweep_problems(path, ledger, missing)
    return schema.annotate(dataset, "responses")


def _is_raw(path: Path, variable: xr.DataArray) -> bool:
    import zarr

    return is_raw(variable, zarr.open_array(path / str(variable.name), mode="r", zarr_format=3).dtype)


def _errors_of_version_0_1(path: Path, ledger: Ledger) -> dict[str, Any]:
    """Rounding errors that version 0.1 stored as attributes of the responses."""
    import zarr

    if ledger.labels is not None:
        return {}
    attrs = zarr.open_array(path / "response", mode="r", zarr_format=3).attrs
    return {name: attrs[name] for name in ("largest_relative_error", "largest_error") if name in attrs}
