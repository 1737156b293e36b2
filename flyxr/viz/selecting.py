"""Select the arrays, frames and times that a picture shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from flyxr import schema
from flyxr.errors import InputError, Problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

OPTIONAL_DIMS = ("model", "sample", "cell_type")
"""Dims that may have been selected away."""


def drawable_array(data: object, *dims: str) -> xr.DataArray:
    """Return the array to draw: a DataArray itself, or the ``response`` or else the ``luminance`` of a Dataset.

    Raises
    ------
    ValueError
        If there is no such array or it lacks one of the dims.
    """
    expected = f"a DataArray or Dataset with {' and '.join(map(repr, dims))}"
    if isinstance(data, xr.Dataset):
        names = [name for name in ("response", "luminance") if name in data]
        if not names:
            raise InputError(
                Problem(
                    f"expected 'response' or 'luminance' in the Dataset, got {list(map(str, data.data_vars))}",
                    "pass one variable as a DataArray, data[name]",
                )
            )
        data = data[names[0]]
    if not isinstance(data, xr.DataArray):
        raise InputError(
            Problem(
                f"expected {expected}, got {type(data).__name__}", "name its dims with xr.DataArray(array, dims=...)"
            )
        )
    missing = [dim for dim in dims if dim not in data.dims]
    if missing:
        raise InputError(
            Problem(
                f"expected {expected}, got dims {tuple(map(str, data.dims))}",
                f"keep {' and '.join(map(repr, missing))} when selecting, or pass data of another kind",
            )
        )
    return data


def main_array(data: xr.Dataset | xr.DataArray, kind: str) -> xr.DataArray:
    """Return the main variable of a movie, a rendering or responses, with all dims of the schema in their order.

    A dim that was selected away (``sample``, ``model``, ``cell_type``) returns with length one. A uint8 movie is scaled
    to the range 0 to 1.

    Raises
    ------
    ValueError
        If the data is of another kind or lacks a dim.
    """
    dataset, record = schema.as_dataset(data, kind), schema.KINDS[kind].variables[0]
    noun = schema.kind_with_article(kind)
    if record.name not in dataset:
        raise InputError(
            Problem(
                f"expected {noun} with '{record.name}', got variables {list(map(str, dataset.data_vars))}",
                "check the order of the arguments",
            )
        )
    array = dataset[record.name]
    missing = [dim for dim in record.dims if dim not in array.dims]
    extra = [str(dim) for dim in array.dims if dim not in record.dims]
    if extra or not set(missing) <= set(OPTIONAL_DIMS) or "time" not in array.coords:
        raise InputError(
            Problem(
                f"expected {noun} with dims {record.dims} and a 'time' coordinate in s, got dims "
                f"{tuple(map(str, array.dims))} and coordinates {list(map(str, array.coords))}",
                "keep these dims, and check the order of the arguments",
            )
        )
    lazy_coords = [name for name, coord in array.coords.items() if coord.chunks is not None]
    array = array.assign_coords({name: array[name].compute() for name in lazy_coords}).expand_dims(missing)
    array = array.assign_coords({dim: np.arange(array.sizes[dim]) for dim in record.dims if dim not in array.coords})
    return scale_bytes(array).transpose(*record.dims)


def scale_bytes(movie: xr.DataArray) -> xr.DataArray:
    """Scale a uint8 movie to float32 from 0 to 1; return any other movie unchanged."""
    return movie.astype(np.float32) / np.float32(255) if movie.dtype == np.uint8 else movie


def thin(length: int, max_length: int) -> NDArray[np.int64]:
    """Positions 0, n, 2n, … with the smallest step n that leaves at most ``max_length`` of them.

    Examples
    --------
    >>> thin(7, 4)
    array([0, 2, 4, 6])
    """
    return np.arange(0, length, max(-(-length // max_length), 1))


def displayed_frames(frame_times: NDArray[Any], times: NDArray[Any]) -> NDArray[np.int64]:
    """Position of the frame on display at each time: the last that has begun, or the first if none has.

    Examples
    --------
    >>> displayed_frames(np.array([0.0, 0.1]), np.array([-0.5, 0.05, 0.1]))
    array([0, 0, 1])
    """
    # Rounding may put a time just before the frame that begins at it.
    return np.clip(np.searchsorted(frame_times, times + 1e-6, side="right") - 1, 0, None)


def select_times(data: xr.DataArray, time: float | Sequence[float] | None) -> xr.DataArray:
    """Select the frames nearest to some times, s; None keeps all.

    Raises
    ------
    ValueError
        If the data has no time axis.
    """
    if time is None:
        return data
    if "time" not in data.dims or "time" not in data.coords:
        raise InputError(
            Problem(
                f"expected dim 'time' with a coordinate in s to select time={time}, got dims "
                f"{tuple(map(str, data.dims))}",
                "leave out time=",
            )
        )
    return data.sel(time=time, method="nearest")


def squeeze(data: xr.DataArray, *core_dims: str) -> xr.DataArray:
    """Drop dims of length one, which count as selected, other than the dims of the picture itself."""
    return data.squeeze([str(dim) for dim, length in data.sizes.items() if length == 1 and dim not in core_dims])


def value_label(data: xr.DataArray) -> str:
    """Name of the values with their units, for axes and colour bars."""
    name = str(data.name or "value")
    known = next((v.units for kind in schema.KINDS.values() for v in kind.variables if v.name == name), "")
    units = data.attrs.get("units", known)
    return f"{name} ({units})" if units not in ("", "1") else name


def selected_cell_type(data: xr.DataArray) -> str:
    """Name of the cell type that was selected, or an empty string."""
    return str(data["cell_type"].item()) if "cell_type" in data.coords and data["cell_type"].ndim == 0 else ""
