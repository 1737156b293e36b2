"""Datasets on disk: zarr v3 with a chunk policy, written completely or not at all, and missed where they are not."""

from __future__ import annotations

from flyxr.store.encoding import round_mantissa
from flyxr.store.files import (
    StoredFile,
    StoreError,
    atomic_directory,
    check_target,
    is_intact,
    listing,
    missing,
    nearest_folder,
    scratch_directory,
    sizes_and_times,
    sync,
    write_attrs,
)
from flyxr.store.reading import labels_of, open
from flyxr.store.writing import save, write_region, write_template

__all__ = [
    "StoreError",
    "StoredFile",
    "atomic_directory",
    "check_target",
    "is_intact",
    "labels_of",
    "listing",
    "missing",
    "nearest_folder",
    "open",
    "round_mantissa",
    "save",
    "scratch_directory",
    "sizes_and_times",
    "sync",
    "write_attrs",
    "write_region",
    "write_template",
]
