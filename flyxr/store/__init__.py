"""Datasets on disk: zarr v3 with a chunk policy, written completely or not at all, with a check for missing files."""

from __future__ import annotations

from flyxr.store.description import describe, describe_dataset
from flyxr.store.encoding import round_mantissa
from flyxr.store.files import (
    StoredFile,
    StoreError,
    atomic_directory,
    check_target,
    find_damaged,
    is_intact,
    is_remote_store,
    list_files,
    missing_error,
    nearest_folder,
    replace_remote,
    scratch_directory,
    stat_files,
    sync,
    write_attrs,
    write_json,
)
from flyxr.store.reading import open, read_labels
from flyxr.store.writing import save, write_region, write_template

__all__ = [
    "StoreError",
    "StoredFile",
    "atomic_directory",
    "check_target",
    "describe",
    "describe_dataset",
    "find_damaged",
    "is_intact",
    "is_remote_store",
    "list_files",
    "missing_error",
    "nearest_folder",
    "open",
    "read_labels",
    "replace_remote",
    "round_mantissa",
    "save",
    "scratch_directory",
    "stat_files",
    "sync",
    "write_attrs",
    "write_json",
    "write_region",
    "write_template",
]
