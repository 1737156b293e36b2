"""Contents of stores, wherever they lie: errors, kinds, text, and the parts of a sweep."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from flyxr import schema
from flyxr.errors import FlyxrError, Problem
from flyxr.store import labels
from flyxr.store.files import StoreError
from flyxr.store.metadata import MAX_LABELS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import xarray as xr

    from flyxr.store.ledger import Ledger
    from flyxr.store.places import Place

RESUME_HINTS = (
    "call fx.sweep with the same inputs again to finish it, and see fx.sweep_status(path)",
    "run the same `flyxr simulate` again to finish it, and see `flyxr info`",
)
RECOMPUTE_HINTS = (
    "call fx.sweep with the same inputs again to recompute them",
    "run the same `flyxr simulate` again to recompute them",
)
VERIFY_HINTS = (
    "if a sweep wrote the store, call fx.sweep with the same inputs and verify=True to recompute it; otherwise "
    "restore it from a copy",
    "if a sweep wrote the store, run the same `flyxr simulate` with --verify to recompute it; otherwise restore it "
    "from a copy",
)


@contextmanager
def reading_store(path: Place) -> Iterator[None]:
    """Convert whatever a damaged store raises to an error that names it."""
    try:
        yield
    except FlyxrError:
        raise
    except Exception as error:  # zarr, its codecs and xarray raise many kinds on damaged files
        text = f"{path} is damaged or no store of flyxr ({type(error).__name__}: {str(error)[:200]})"
        raise StoreError(Problem(text, "restore it from a copy")) from error


def as_known_kind(path: Place, dataset: xr.Dataset) -> xr.Dataset:
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


def load_text(dataset: xr.Dataset) -> xr.Dataset:
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


def is_raw(variable: xr.DataArray, stored_dtype: np.dtype[Any]) -> bool:
    """Whether a variable has the same numbers on disk as in memory, without decoding; true for all saved numbers."""
    encoding = variable.encoding
    fill = encoding.get("_FillValue")
    is_decoded = any(encoding.get(name) is not None for name in ("scale_factor", "add_offset", "_Unsigned", "units"))
    if variable.dtype.kind not in "fiub" or is_decoded or not (fill is None or np.isnan(fill)):
        return False
    return bool(stored_dtype == variable.dtype)


def sweep_problems(path: Place, ledger: Ledger, missing: list[str]) -> list[Problem]:
    """Problem of a sweep with missing files, or of an unfinished one."""
    if missing:
        text = (
            f"{len(missing)} files of {path} are missing or have another size than they were written with, first "
            f"{missing[0]}; reading missing ones raises"
        )
        return [Problem(text, *RECOMPUTE_HINTS)]
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
    return [Problem(f"{path} is an unfinished sweep: {text}", *RESUME_HINTS)]


def combine_sweep(labels_only: xr.Dataset, stored: Mapping[str, xr.DataArray], ledger: Ledger) -> xr.Dataset:
    """The responses of a sweep: its labels, the final attributes of a complete one, and its lazy arrays.

    An extension updates the ledger before the zarr files; what they lack is missing.
    """
    dataset = labels_only
    if ledger.labels is not None:
        dataset = dataset.assign_attrs((ledger.final_attrs or {}).get("attrs", {}))
    n_models, n_samples = ledger.done.shape
    sizes: dict[Any, int] = {**dataset.sizes, "model": n_models, "sample": n_samples}
    for name, array in stored.items():
        padding = {dim: (0, sizes[dim] - length) for dim, length in array.sizes.items() if sizes[dim] > length}
        dataset[name] = array.pad(padding, constant_values=np.nan) if padding else array
    dataset["response"].attrs.update((ledger.final_attrs or {}).get("response", {}))
    return dataset
