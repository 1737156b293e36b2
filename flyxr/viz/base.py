"""What the pictures share: data taken from Datasets, colours, and one element for hexagons and one for frames."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import holoviews as hv
import numpy as np
import xarray as xr

from flyxr import hexgrid, schema
from flyxr.errors import InputError, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

GREY = "gray"
DIVERGING = "coolwarm"
SEQUENTIAL = "bmy"
ABSENT = "#c9c9c9"
"""Colour of columns without a cell."""

MOST_PICTURES = 1000
_SELECTED = ("model", "sample", "cell_type")


def load_backend() -> None:
    """Load HoloViews' Bokeh backend if it isn't; a backend that is current stays current."""
    if hv.Store.current_backend not in hv.Store.loaded_backends():
        hv.extension("bokeh", logo=False)
    elif "bokeh" not in hv.Store.loaded_backends():
        import holoviews.plotting.bokeh  # noqa: F401  (registers the backend, does not select it)


def variable(data: object, *dims: str) -> xr.DataArray:
    """Take the array to draw: a DataArray, or the ``response`` or else the ``luminance`` of a Dataset.

    Raises
    ------
    ValueError
        If there is no such array or it lacks one of the dims.
    """
    wanted = f"a DataArray or Dataset with {' and '.join(map(repr, dims))}"
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
            Problem(f"expected {wanted}, got {type(data).__name__}", "name its dims with xr.DataArray(array, dims=...)")
        )
    missing = [dim for dim in dims if dim not in data.dims]
    if missing:
        raise InputError(
            Problem(
                f"expected {wanted}, got dims {tuple(map(str, data.dims))}",
                f"keep {' and '.join(map(repr, missing))} when selecting, or pass data of another kind",
            )
        )
    return data


def of_kind(data: xr.Dataset | xr.DataArray, kind: str) -> xr.DataArray:
    """Take the main variable of a movie, rendering or responses, with all dims of the schema in their order.

    A dim that was selected away (``sample``, ``model``, ``cell_type``) comes back with length one; uint8 movies are
    scaled to 0 to 1.

    Raises
    ------
    ValueError
        If the data is of another kind or lacks a dim.
    """
    dataset, record = schema.as_dataset(data, kind), schema.KINDS[kind].variables[0]
    if record.name not in dataset:
        raise InputError(
            Problem(
                f"expected a {kind} with '{record.name}', got variables {list(map(str, dataset.data_vars))}",
                "mind the order of the arguments",
            )
        )
    array = dataset[record.name]
    missing = [dim for dim in record.dims if dim not in array.dims]
    extra = [str(dim) for dim in array.dims if dim not in record.dims]
    if extra or not set(missing) <= set(_SELECTED) or "time" not in array.coords:
        raise InputError(
            Problem(
                f"expected a {kind} with dims {record.dims} and a 'time' coordinate in s, got dims "
                f"{tuple(map(str, array.dims))} and coordinates {list(map(str, array.coords))}",
                "keep these dims, and mind the order of the arguments",
            )
        )
    lazy = [name for name, coord in array.coords.items() if coord.chunks is not None]
    array = array.assign_coords({name: array[name].compute() for name in lazy}).expand_dims(missing)
    array = array.assign_coords({dim: np.arange(array.sizes[dim]) for dim in record.dims if dim not in array.coords})
    if array.dtype == np.uint8:
        array = array.astype(np.float32) / np.float32(255)
    return array.transpose(*record.dims)


def thin(count: int, most: int) -> NDArray[np.int64]:
    """Evenly spaced positions, the first included, at most so many."""
    return np.arange(0, count, max(-(-count // most), 1))


def shown_at(frame_times: NDArray[Any], times: NDArray[Any]) -> NDArray[np.int64]:
    """Position of the frame on display at each time: the last that began, the first before any has."""
    # A frame that begins at a step may come out a rounding error after it.
    return np.clip(np.searchsorted(frame_times, times + 1e-6, side="right") - 1, 0, None)


def label_of(data: xr.DataArray) -> str:
    """Name a value with its unit, for axes and colour bars."""
    name = str(data.name or "value")
    known = next((v.units for kind in schema.KINDS.values() for v in kind.variables if v.name == name), "")
    unit = data.attrs.get("units", known)
    return f"{name} ({unit})" if unit not in ("", "1") else name


def selected(data: xr.DataArray) -> str:
    """Name what was selected already: the cell type, if there is one."""
    return str(data["cell_type"].item()) if "cell_type" in data.coords and data["cell_type"].ndim == 0 else ""


@dataclass(frozen=True)
class Colours:
    """A colour map and the values at its ends."""

    cmap: str
    clim: tuple[float, float]

    def hex(self, count: int) -> list[str]:
        """Evenly spaced colours of the map, dark or low end first."""
        return list(hv.plotting.util.process_cmap(self.cmap, count))


def colours(data: xr.DataArray, center: float | None = None) -> Colours:
    """Choose colours from all values: grey 0 to 1 for luminance, else diverging about a centre or sequential.

    Without a centre, values of both signs diverge about 0 and values of one sign go from their lowest to their
    highest.
    """
    if data.name == "luminance" and center is None:
        return Colours(GREY, (0.0, 1.0))
    values = data.values[np.isfinite(data.values)]
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    if center is None and not low < 0 < high:
        return Colours(SEQUENTIAL, (low, high) if low < high else (low - 0.5, high + 0.5))
    middle = center or 0.0
    reach = max(high - middle, middle - low) or 0.5
    return Colours(DIVERGING, (middle - reach, middle + reach))


@dataclass(frozen=True)
class Lattice:
    """Columns in the plane: numbers, axial coordinates, and positions in column pitch, each (column,)."""

    column: NDArray[Any]
    u: NDArray[Any]
    v: NDArray[Any]
    x: NDArray[Any]
    y: NDArray[Any]

    def first(self) -> Lattice:
        """Lattice of the first column alone."""
        return Lattice(self.column[:1], self.u[:1], self.v[:1], self.x[:1], self.y[:1])

    def corners(self) -> NDArray[np.float64]:
        """Corners of the hexagons, (axis, column, corner), rounded to what a screen can show."""
        middle = np.stack([self.x, self.y])[:, :, None]
        return (middle + hexgrid.hexagon().T[:, None, :]).round(4)


def lattice(data: xr.DataArray) -> Lattice:
    """Read where the columns of an array lie.

    Raises
    ------
    ValueError
        If the columns have neither positions nor axial coordinates.
    """
    count, coords = data.sizes["column"], data.coords
    column = coords["column"].values if "column" in coords else np.arange(count)
    if "u" in coords and "v" in coords:
        u, v = coords["u"].values, coords["v"].values
    else:
        raise InputError(
            Problem(
                f"expected coordinates 'u' and 'v' on 'column', got {list(map(str, coords))}",
                "assign them with data.assign_coords(flyxr.hexgrid.column_coords(extent))",
            )
        )
    if "x_column" in coords and "y_column" in coords:
        return Lattice(column, u, v, coords["x_column"].values, coords["y_column"].values)
    return Lattice(column, u, v, *hexgrid.positions(u, v))


def _range(values: NDArray[Any]) -> tuple[float, float]:
    return float(values.min()), float(values.max())


def hexagons(values: NDArray[Any], where: Lattice, name: str, clim: tuple[float, float]) -> hv.Polygons:
    """One hexagon a column, with its value (column,) and the column's numbers to hover over."""
    (xs, ys), numbers = where.corners(), {"column": where.column, "u": where.u, "v": where.v}
    # A declared range spares HoloViews to look for it in each hexagon of each picture, most of its time.
    # The names differ from a frame's, as HoloViews links axes of one name.
    kdims = [hv.Dimension("x_column", range=_range(xs)), hv.Dimension("y_column", range=_range(ys))]
    vdims = [hv.Dimension(name, range=clim), *(hv.Dimension(n, range=_range(a)) for n, a in numbers.items())]
    rows = zip(xs, ys, values, *(array.tolist() for array in numbers.values()), strict=True)
    names = ("x_column", "y_column", name, *numbers)
    return hv.Polygons([dict(zip(names, row, strict=True)) for row in rows], kdims, vdims)


def hexagon_style(where: Lattice, name: str, chosen: Colours, label: str = "", height: int = 300, **more: Any) -> Any:
    """Options of hexagons: equal aspect, no axes, colours common to all pictures; a colour bar if it has a label."""
    (x0, x1), (y0, y1) = (_range(axis) for axis in where.corners())
    filled = {"color": name, "cmap": chosen.cmap, "clim": chosen.clim, "clipping_colors": {"NaN": ABSENT}}
    bar = {"colorbar": True, "clabel": label, "colorbar_opts": {"width": 12}} if label else {}
    bare = _bare(x1 - x0, y1 - y0, height)
    return hv.opts.Polygons(**{**filled, **bar, **bare, "line_color": None, **more}, backend="bokeh")


def image(values: NDArray[Any], x: NDArray[Any] | None = None, y: NDArray[Any] | None = None) -> hv.Image:
    """One frame (y, x) at its pixels, row 0 above once the y axis points down."""
    rows, columns = values.shape
    x0, x1 = _pixels(x, columns)
    y0, y1 = _pixels(y, rows)
    return hv.Image(values[::-1], kdims=["x", "y"], vdims=["luminance"], bounds=(x0, y0, x1, y1))


def image_style(shape: tuple[int, ...], clim: tuple[float, float] = (0.0, 1.0), height: int = 300, **more: Any) -> Any:
    """Options of frames (y, x): y downward, equal aspect, no axes, grey."""
    bare = _bare(shape[1], shape[0], height)
    return hv.opts.Image(**{**bare, "invert_yaxis": True, "cmap": GREY, "clim": clim, **more}, backend="bokeh")


def _bare(width: float, height: float, pixels: int) -> dict[str, Any]:
    frame = {"frame_height": pixels, "frame_width": max(round(pixels * width / height), 1)}
    return {**frame, "data_aspect": 1, "xaxis": None, "yaxis": None, "show_frame": False, "tools": ["hover"]}


def _pixels(coordinate: NDArray[Any] | None, count: int) -> tuple[float, float]:
    if coordinate is None:
        return -0.5, count - 0.5
    half = (float(coordinate[-1]) - float(coordinate[0])) / (count - 1) / 2 if count > 1 else 0.5
    return float(coordinate[0]) - half, float(coordinate[-1]) + half


def pick_times(data: xr.DataArray, time: float | Sequence[float] | None) -> xr.DataArray:
    """Select the frames nearest to some times in s; None keeps all.

    Raises
    ------
    ValueError
        If the data has no time to select from.
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


def single_dims(data: xr.DataArray, *core: str) -> list[str]:
    """Dims of length one that are no part of the picture and count as selected."""
    return [str(dim) for dim, length in data.sizes.items() if length == 1 and dim not in core]


def pictures(
    data: xr.DataArray, core: tuple[str, ...], draw: Callable[[NDArray[Any]], Any], style: Any, title: str | None
) -> Any:
    """Draw an array: one picture of its core dims, or a HoloMap of pictures over its other dims, time last.

    The title, without one given, is the cell type that was selected.

    Raises
    ------
    ValueError
        If there would be more pictures than a page can hold.
    """
    data = data.squeeze(single_dims(data, *core))
    others = sorted((str(dim) for dim in data.dims if dim not in core), key="time".__eq__)
    count = int(np.prod([data.sizes[dim] for dim in others], dtype=int))
    if count > MOST_PICTURES:
        sizes = ", ".join(f"{dim}: {data.sizes[dim]}" for dim in others)
        raise InputError(
            Problem(
                f"expected at most {MOST_PICTURES} pictures, got {count} ({sizes})",
                "select fewer with .sel(...), or thin the time axis with .isel(time=slice(None, None, 10))",
            )
        )
    data = data.transpose(*others, *core)
    title = selected(data) if title is None else title
    if not others:
        return draw(data.values).relabel(title).opts(style)
    keys = itertools.product(*(_keys(data, dim) for dim in others))
    frames = data.values.reshape(-1, *data.shape[len(others) :])
    drawn = {key: draw(frame).relabel(title) for key, frame in zip(keys, frames, strict=True)}
    return hv.HoloMap(drawn, kdims=[dimension(dim) for dim in others], sort=False).opts(style)


def column_pictures(
    data: xr.DataArray, center: float | None = None, height: int = 300, title: str | None = None
) -> Any:
    """Draw computed values (..., column) in their columns, with a colour bar."""
    where, chosen, name = lattice(data), colours(data, center), str(data.name or "value")

    def draw(values: NDArray[Any]) -> Any:
        return hexagons(values, where, name, chosen.clim)

    return pictures(data, ("column",), draw, hexagon_style(where, name, chosen, label_of(data), height), title)


def frame_pictures(data: xr.DataArray, height: int = 300, title: str | None = None) -> Any:
    """Draw computed frames (..., y, x)."""
    x, y = (data[dim].values if dim in data.coords else None for dim in ("x", "y"))

    def draw(values: NDArray[Any]) -> Any:
        return image(values, x, y)

    style = image_style((data.sizes["y"], data.sizes["x"]), height=height)
    return pictures(data, ("y", "x"), draw, style, title)


def dimension(dim: str) -> hv.Dimension:
    """HoloViews' dimension for a dim of ours, with its unit."""
    return hv.Dimension(dim, unit="s" if dim == "time" else None)


def _keys(data: xr.DataArray, dim: str) -> list[Any]:
    keys = data[dim].values.tolist()
    return [round(key, 6) if isinstance(key, float) else key for key in keys]


def joined(time: NDArray[Any], values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Join curves (curve, time) to one line with a gap, NaN, after each."""
    x, gap = np.append(time, np.nan), np.full((len(values), 1), np.nan, dtype=values.dtype)
    return np.tile(x, len(values)), np.hstack([values, gap]).ravel()


def sample_colours(count: int) -> list[str]:
    """Colours of samples, the first again after the tenth."""
    palette = [
        "#1f3d7a",
        "#d1495b",
        "#2a9d8f",
        "#e09f3e",
        "#7b4ea3",
        "#4f772d",
        "#c2185b",
        "#00838f",
        "#8d6e63",
        "#546e7a",
    ]
    return [palette[index % len(palette)] for index in range(count)]
