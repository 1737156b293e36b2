"""Opening stores on other machines and in zips, with few requests, and without trust in what they declare."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import xarray as xr

from flyxr import schema
from flyxr.errors import Problem
from flyxr.store import files, labels, places
from flyxr.store.arrays import RemoteArray, group_digest, lazy_array
from flyxr.store.contents import (
    RECOMPUTE_HINTS,
    as_known_kind,
    combine_sweep,
    is_raw,
    load_text,
    reading_store,
    sweep_problems,
)
from flyxr.store.files import MANIFEST, MAX_JSON_BYTES, StoreError
from flyxr.store.ledger import read_ledger, store_id
from flyxr.store.metadata import check_array

if TYPE_CHECKING:
    from collections.abc import Mapping

    from upath import UPath

    from flyxr.store.ledger import Ledger

_N_REQUESTS = 16
"""Number of files that are requested at once."""
MAX_ARRAYS = 2**12
"""Largest number of arrays of a store."""


def open_remote(path: UPath) -> tuple[xr.Dataset, list[Problem]]:
    """Open a store on another machine or in a zip; return it, and what is missing from it.

    A published store is opened from its consolidated metadata. An unfinished sweep is opened from its ledger. The
    arrays of any other store are listed, which few web servers can.
    """
    problems: list[Problem] = []
    try:
        content = places.read_bytes(path / "zarr.json", MAX_JSON_BYTES)
    except FileNotFoundError as error:
        raise places.missing_place_error(path, "a zarr store of version 3") from error
    with reading_store(path):
        group = files.parse_json(content, path / "zarr.json")
        consolidated = group.get("consolidated_metadata")
        ledger = None if isinstance(consolidated, dict) else read_ledger(path)
        if ledger is None:
            dataset = _open_saved(path, _read_metadata(path, content, group))
        else:
            dataset = _open_sweep(path, ledger, problems)
        dataset = as_known_kind(path, dataset)
    return dataset, problems


def read_remote_labels(path: UPath) -> xr.Dataset:
    """Refuse a sweep of version 0.1, which has its labels in its zarr files only."""
    text = f"expected a sweep of version 0.2 or later at {path}, got an older one"
    raise StoreError(Problem(text, "copy it to this machine to open it"))


def _read_metadata(path: UPath, content: bytes, group: Mapping[str, Any]) -> dict[str, bytes]:
    """Metadata files of the group and its arrays, by path, after they were checked."""
    consolidated = group.get("consolidated_metadata")
    if isinstance(consolidated, dict):
        arrays = dict(consolidated.get("metadata") or {})
    else:
        names = [name for name in places.list_names(path) if name != "zarr.json"]
        contents = _read_all(path, [f"{name}/zarr.json" for name in names[:MAX_ARRAYS]])
        arrays = {
            file.rsplit("/", 1)[0]: files.parse_json(text, path / file)
            for file, text in contents.items()
            if text is not None
        }
        if not arrays:
            raise StoreError(
                Problem(
                    f"{path} does not list its arrays, and its metadata are not consolidated",
                    "publish the store with fx.catalog.publish, or zip it",
                    "publish the store with `flyxr publish`, or zip it",
                )
            )
    if len(arrays) > MAX_ARRAYS:
        raise StoreError(f"expected at most {MAX_ARRAYS:,} arrays in {path}, got {len(arrays):,}")
    root = {name: value for name, value in group.items() if name != "consolidated_metadata"}
    metadata = {"zarr.json": json.dumps(root).encode()}
    for name, array in arrays.items():
        if not isinstance(array, dict) or array.get("node_type") != "array" or "/" in name:
            continue
        check_array(array, path / name / "zarr.json")
        metadata[f"{name}/zarr.json"] = json.dumps(array).encode()
    return metadata


def _read_all(path: UPath, names: list[str]) -> dict[str, bytes | None]:
    """Content of metadata files, several at once; None for a file that does not exist."""

    def read(name: str) -> bytes | None:
        try:
            return places.read_bytes(path / name, MAX_JSON_BYTES)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None

    with ThreadPoolExecutor(_N_REQUESTS) as pool:
        return dict(zip(names, pool.map(read, names), strict=True))


def _open_saved(path: UPath, metadata: dict[str, bytes]) -> xr.Dataset:
    """Open a saved store, or one of other software."""
    import zarr

    from flyxr.store.remote import RemoteStore

    store = RemoteStore(path, metadata)
    group = zarr.open_group(store, mode="r", zarr_format=3)
    opened = xr.open_zarr(store, zarr_format=3, consolidated=False, chunks=None)
    dtypes = {str(name): cast("zarr.Array[Any]", group[str(name)]).dtype for name in opened.data_vars}
    manifests = [f"{name}/{MANIFEST}" for name in files.manifest_folder(opened)]
    manifest = next((file for file in manifests if places.exists(path / file)), "")
    identifier = group_digest(path)
    # Labels lie in many small files, which are requested at once.
    with ThreadPoolExecutor(_N_REQUESTS) as pool:
        loaded = list(pool.map(lambda name: opened[name].variable.load(), [*opened.coords]))
    dataset = load_text(opened.assign_coords(dict(zip(opened.coords, loaded, strict=True))))
    for name, variable in dataset.data_vars.items():
        if not variable.ndim or variable.dtype.kind in "OUT":
            continue
        if is_raw(opened[name], dtypes[str(name)]):
            text = metadata[f"{name}/zarr.json"]
            source = RemoteArray(path, str(name), text, identifier, is_sweep=False, manifest=manifest)
            dataset[name] = lazy_array(path, str(name), variable, source)
        else:  # packed by other software; xarray decodes it
            dataset[name] = variable.chunk(variable.encoding.get("preferred_chunks", {}))
    return dataset


def _open_sweep(path: UPath, ledger: Ledger, problems: list[Problem]) -> xr.Dataset:
    """Open a sweep with the labels of its ledger."""
    import zarr

    from flyxr.store.remote import RemoteStore

    if ledger.labels is None:
        return read_remote_labels(path)
    missing: list[str] = []
    if not places.is_web(path):
        missing = ledger.drop_missing_files({name: (n_bytes, 0) for name, n_bytes in places.list_sizes(path).items()})
    stored = {}
    identifier = store_id(path)
    for variable in schema.KINDS["responses"].variables:
        name = variable.name
        try:
            text = places.read_bytes(path / name / "zarr.json", MAX_JSON_BYTES)
        except FileNotFoundError as error:
            raise StoreError(Problem(f"{path / name / 'zarr.json'} is missing", *RECOMPUTE_HINTS)) from error
        check_array(files.parse_json(text, path / name / "zarr.json", RECOMPUTE_HINTS), path / name, RECOMPUTE_HINTS)
        array = zarr.open_array(RemoteStore(path, {f"{name}/zarr.json": text}), path=name, mode="r", zarr_format=3)
        template = xr.DataArray(np.broadcast_to(np.empty((), array.dtype), array.shape), dims=variable.dims)
        template.encoding = {"chunks": array.chunks, "shards": array.shards}
        source = RemoteArray(path, name, text, identifier, is_sweep=True, manifest="")
        stored[name] = lazy_array(path, name, template, source)
    dataset = combine_sweep(labels.decode(ledger.labels), stored, ledger)
    problems += sweep_problems(path, ledger, missing)
    return schema.annotate(dataset, "responses")
