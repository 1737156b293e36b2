"""Pictures of whole arrays: one element, or a HoloMap of elements over the other dims."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import holoviews as hv
import numpy as np

from flyxr.errors import InputError, Problem
from flyxr.viz import colours, elements, selecting

if TYPE_CHECKING:
    from collections.abc import Callable

    import xarray as xr
    from numpy.typing import NDArray

MAX_PICTURES = 1000


def column_pictures(data: xr.DataArray, scale: colours.ColourScale, height: int = 300, title: str | None = None) -> Any:
    """Draw computed values (..., column) as hexagons, with a colour bar."""
    lattice, name = elements.read_lattice(data), str(data.name or "value")

    def draw(values: NDArray[Any]) -> Any:
        return elements.hexagons(values, lattice, name, scale.clim)

    style = elements.hexagon_style(lattice, scale, selecting.value_label(data), height)
    return draw_pictures(data, ("column",), draw, style, title)


def frame_pictures(data: xr.DataArray, height: int = 300, title: str | None = None) -> Any:
    """Draw computed frames (..., y, x)."""
    x, y = (data[dim].values if dim in data.coords else None for dim in ("x", "y"))

    def draw(values: NDArray[Any]) -> Any:
        return elements.image(values, x, y)

    style = elements.image_style((data.sizes["y"], data.sizes["x"]), height=height)
    return draw_pictures(data, ("y", "x"), draw, style, title)


def draw_pictures(
    data: xr.DataArray, core_dims: tuple[str, ...], draw: Callable[[NDArray[Any]], Any], style: Any, title: str | None
) -> Any:
    """Draw one picture of the core dims, or a HoloMap of pictures over the other dims, time last.

    The default title is the cell type, model, sample and time that were selected.

    Raises
    ------
    ValueError
        If there would be more than ``MAX_PICTURES`` pictures.
    """
    data = selecting.squeeze(data, *core_dims)
    map_dims = sorted((str(dim) for dim in data.dims if dim not in core_dims), key="time".__eq__)
    n_pictures = int(np.prod([data.sizes[dim] for dim in map_dims], dtype=int))
    if n_pictures > MAX_PICTURES:
        sizes = ", ".join(f"{dim}: {data.sizes[dim]}" for dim in map_dims)
        raise InputError(
            Problem(
                f"expected at most {MAX_PICTURES} pictures, got {n_pictures} ({sizes})",
                "select fewer with .sel(...), or thin the time axis with .isel(time=slice(None, None, 10))",
            )
        )
    data = data.transpose(*map_dims, *core_dims)
    title = selecting.selection_title(data) if title is None else title
    if not map_dims:
        return draw(data.values).relabel(title).opts(style)
    keys = itertools.product(*(map(elements.key, selecting.labels(data, dim)) for dim in map_dims))
    frames = data.values.reshape(-1, *data.shape[len(map_dims) :])
    pictures = {key: draw(frame).relabel(title) for key, frame in zip(keys, frames, strict=True)}
    kdims = [hv.Dimension(dim, unit="s" if dim == "time" else None) for dim in map_dims]
    return hv.HoloMap(pictures, kdims=kdims, sort=False).opts(style)
