"""Select the arrays, frames and times that a picture shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from flyxr import schema
from flyxr.arguments import Arguments, as_seconds, shorten
from flyxr.errors import InputError, Problem
from flyxr.optics import GREY
from flyxr.selection import format_labels

if TYPE_CHECKING:
    from numpy.typing import NDArray


def drawable_array(data: object, *dims: str) -> xr.DataArray:
    """Return the array to draw: a DataArray itself, or the ``response`` or else the ``luminance`` of a Dataset.

    Raises
    ------
    ValueError
        If there is no such array, it lacks one of the dims, or it is empty.
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
    empty = [str(dim) for dim, length in data.sizes.items() if length == 0]
    if empty:
        text = f"expected at least one value along each dim, got none along {' and '.join(map(repr, empty))}"
        raise InputError(Problem(text, "check what was selected"))
    return data


def main_array(data: xr.Dataset | xr.DataArray, kind: str) -> xr.DataArray:
    """Return the main variable of a movie, a rendering or responses, with all dims of the schema in their order.

    A dim that was selected away returns with length one. A uint8 movie is scaled to the range 0 to 1.

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
    dataset, _ = schema.complete(dataset[[record.name]], kind)
    array = dataset[record.name]
    extra = [str(dim) for dim in array.dims if dim not in record.dims]
    if set(array.dims) != set(record.dims) or "time" not in array.coords:
        renamed = "" if set(extra) & set(schema.DIMS) else schema.rename_hint(array, record.dims)
        raise InputError(
            Problem(
                f"expected {noun} with dims {record.dims} and a 'time' coordinate in s, got dims "
                f"{tuple(map(str, array.dims))} and coordinates {list(map(str, array.coords))}",
                renamed or "keep these dims, and check the order of the arguments",
            )
        )
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


def displayed_frames(frame_times: xr.DataArray, times: NDArray[Any]) -> NDArray[np.int64]:
    """Position of the frame on display at each time: the last that has begun, or -1 before the first and after the end.

    A frame lasts until the next begins. A single frame whose ``time`` has no attribute ``step`` has no end.

    Examples
    --------
    >>> frame_times = xr.DataArray([0.0, 0.1], dims="time", coords={"time": [0.0, 0.1]})
    >>> displayed_frames(frame_times, np.array([-0.5, 0.05, 0.1, 0.2]))
    array([-1,  0,  1, -1])
    """
    starts, tolerance = frame_times.values, 1e-6  # rounding may put a time just before the frame that begins at it
    frames = np.searchsorted(starts, times + tolerance, side="right") - 1
    if starts.size > 1 or "step" in frame_times.attrs:
        end = starts[-1] + schema.time_step(frame_times.to_dataset(name="frame_times"))
        frames[times + tolerance >= end] = -1
    return frames


def luminance_on_display(luminance: xr.DataArray, times: NDArray[Any]) -> xr.DataArray:
    """Luminance (..., time) on display at some times, lazy if it is; grey before its first frame and after its end."""
    frames = displayed_frames(luminance["time"], times)
    shown = luminance.isel(time=frames.clip(0)).assign_coords(time=times)
    return shown if (frames >= 0).all() else shown.where(xr.DataArray(frames >= 0, dims="time"), GREY)


def select_times(data: xr.DataArray, time: Any) -> xr.DataArray:
    """Select the frames nearest to a time or several, as numbers in s or durations; None keeps all.

    Raises
    ------
    ValueError
        If the data has no time axis, or these are no times.
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
    is_one = isinstance(time, str) or not np.iterable(time)
    seconds = [as_seconds(item) for item in ([time] if is_one else time)]
    if not seconds or not all(value is not None and np.isfinite(value) for value in seconds):
        raise InputError(Problem(f"expected time as times in s, got {shorten(time)}", "e.g. time=0.1"))
    return data.sel(time=seconds[0] if is_one else seconds, method="nearest")


def select_label(data: xr.DataArray, dim: str, label: Any, hint: str) -> xr.DataArray:
    """Select one label of a dim, of any hashable kind.

    Raises
    ------
    ValueError
        If it is none of the labels.
    """
    scalar = np.asarray(label)[()] if getattr(label, "shape", None) == () else label
    try:
        position = data.indexes[dim].get_loc(scalar)
    except (KeyError, TypeError, pd.errors.InvalidIndexError):
        position = None
    if not isinstance(position, int):
        text = f"expected responses of one {dim} among {format_labels(labels(data, dim))}, got {shorten(label)}"
        raise InputError(Problem(text, hint))
    return data.isel({dim: position})


def select_cell_type(response: xr.DataArray, cell_type: str) -> xr.DataArray:
    """Select a recorded cell type; an unknown one raises a ValueError."""
    hint = "choose one of these with cell_type=, or record it with simulate(..., record=...)"
    return select_label(response, "cell_type", cell_type, hint)


def several(labels: Any) -> list[Any]:
    """Labels in a list or an array of one dim, or the single label that anything else is.

    Examples
    --------
    >>> several([4, 8]), several(4), several(("flow", 3)), several(np.array(["a", "b"], dtype=object))
    ([4, 8], [4], [('flow', 3)], ['a', 'b'])
    """
    if getattr(labels, "ndim", 0) == 1:
        return list(np.asarray(labels))
    return list(labels) if isinstance(labels, list) else [labels]


def select_model(response: xr.DataArray, model: Any) -> xr.DataArray:
    """Select a model by its label, or the first if it is None; an unknown one raises a ValueError."""
    if model is None:
        return response.isel(model=0)
    return select_label(response, "model", model, "choose one of these with model=")


def labels(data: xr.DataArray, dim: str) -> list[Any]:
    """Labels along a dim as Python's own values; dates as pandas Timestamps.

    Examples
    --------
    >>> labels(xr.DataArray([1, 2], {"sample": ["a", "b"]}, "sample"), "sample")
    ['a', 'b']
    """
    values = np.atleast_1d(data[dim].values)
    return list(pd.DatetimeIndex(values)) if values.dtype.kind == "M" else values.tolist()


def positive_integers(**values: Any) -> tuple[int, ...]:
    """Integers of at least 1, such as sizes; raises one error for all that are wrong.

    Examples
    --------
    >>> positive_integers(height=np.int64(300))
    (300,)
    """
    arguments = Arguments()
    integers = tuple(arguments.integer(name, value, least=1) for name, value in values.items())
    arguments.raise_problems()
    return integers


def one_name(argument: str, value: Any) -> str:
    """One name, of any type of text.

    Raises
    ------
    ValueError
        If it is no name, or there are several.
    """
    arguments = Arguments()
    names = arguments.names(argument, value)
    if len(names) > 1:
        arguments.problems.append(f"expected {argument} as one name, got {names}")
    arguments.raise_problems()
    return names[0]


def columns_seen(rendering: Any, responses: Any) -> xr.DataArray:
    """Luminance (sample, time, column) of a rendering, or the one beside the responses if the rendering is None.

    Raises
    ------
    ValueError
        If there is neither, or the rendering is of another kind.
    """
    if rendering is None:
        if not (isinstance(responses, xr.Dataset) and "luminance" in responses):
            text = "expected a rendering, or responses with 'luminance' beside 'response', got neither"
            raise InputError(Problem(text, "give the rendering that was simulated"))
        rendering = responses["luminance"]
    return main_array(rendering, "rendering")


def squeeze(data: xr.DataArray, *core_dims: str) -> xr.DataArray:
    """Drop dims of length one, which count as selected, other than the dims of the picture itself."""
    return data.squeeze([str(dim) for dim, length in data.sizes.items() if length == 1 and dim not in core_dims])


def value_label(data: xr.DataArray) -> str:
    """Name of the values with their units, for axes and colour bars."""
    name = str(data.name or "value")
    known = next((v.units for kind in schema.KINDS.values() for v in kind.variables if v.name == name), "")
    units = data.attrs.get("units", known)
    return f"{name} ({units})" if units not in ("", "1") else name


def selection_title(data: xr.DataArray) -> str:
    """Cell type, model, sample and time that were selected, as a title names them.

    Examples
    --------
    >>> coords = {"cell_type": "T4c", "model": 3, "model_name": "flow/0000/003", "time": 0.12}
    >>> selection_title(xr.DataArray([0.5], coords, "column"))
    'T4c, model 3 (flow/0000/003), 0.12 s'
    """
    selected = {str(name): labels(data, str(name))[0] for name, coord in data.coords.items() if coord.ndim == 0}
    parts = [str(selected[name]) for name in ("cell_type",) if name in selected]
    for dim in ("model", "sample"):
        if dim in selected:
            name = selected.get(f"{dim}_name")
            parts.append(f"{dim} {selected[dim]}" + (f" ({name})" if name not in (None, str(selected[dim])) else ""))
    if "time" in selected:
        parts.append(f"{selected['time']:.4g} s".replace("-", "−"))
    return ", ".join(parts)


def selected_cell_type(data: xr.DataArray) -> str:
    """Name of the cell type that was selected, or an empty string."""
    return str(data["cell_type"].item()) if "cell_type" in data.coords and data["cell_type"].ndim == 0 else ""
