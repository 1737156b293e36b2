"""Datasets on disk: zarr v3 with a chunk policy, written completely or not at all, with a check for missing files."""

from __future__ import annotations

from flyxr.store.description import describe, describe_dataset
from flyxr.store.encoding import round_mantissa
from flyxr.store.files import (
    StoredFile,
    StoreError,
    atomic_directory,
    check_target,
    is_intact,
    list_files,
    missing_error,
    nearest_folder,
    scratch_directory,
    stat_files,
    sync,
    write_attrs,
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
    "is_intact",
    "list_files",
    "missing_error",
    "nearest_folder",
    "open",
    "read_labels",
    "round_mantissa",
    "save",
    "scratch_directory",
    "stat_files",
    "sync",
    "write_attrs",
    "write_region",
    "write_template",
]
