"""Pictures of whole arrays: one element, or a HoloMap of elements over the other dims."""

from __future__ import annotations

import functools
import itertools
import sys
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
"""Limit of a HoloMap."""

MAX_BLOCK_BYTES = 2**26
"""Limit of a block of lazy data, all times of a picture, that is read at once and kept while it is shown."""

N_BLOCKS = 4
"""Blocks of lazy data that are kept."""


def column_pictures(
    data: xr.DataArray,
    scale: colours.ColourScale,
    height: int = 300,
    title: str | None = None,
    dynamic: bool | None = None,
) -> Any:
    """Draw values (..., column) as hexagons, with a colour bar."""
    lattice, name = elements.read_lattice(data), str(data.name or "value")

    def draw(values: NDArray[Any], title: str) -> Any:
        return elements.hexagons(values, lattice, name, scale.clim, title)

    style = elements.hexagon_style(lattice, scale, selecting.value_label(data), height)
    return draw_pictures(data, ("column",), draw, style, title, dynamic)


def frame_pictures(data: xr.DataArray, height: int = 300, title: str | None = None, dynamic: bool | None = None) -> Any:
    """Draw frames (..., y, x)."""
    x, y = (data[dim].values if dim in data.coords else None for dim in ("x", "y"))

    def draw(values: NDArray[Any], title: str) -> Any:
        return elements.image(values, x, y, title)

    style = elements.image_style((data.sizes["y"], data.sizes["x"]), height=height)
    return draw_pictures(data, ("y", "x"), draw, style, title, dynamic)


def draw_pictures(
    data: xr.DataArray,
    core_dims: tuple[str, ...],
    draw: Callable[[NDArray[Any], str], Any],
    style: Any,
    title: str | None,
    dynamic: bool | None,
) -> Any:
    """Draw one picture of the core dims, or several over the other dims, time last.

    Several are a HoloMap, or a DynamicMap, which draws a picture once it is shown. ``dynamic`` None takes a DynamicMap
    for lazy data, and in a notebook. The default title is the cell type, model, sample and time that were selected.

    Raises
    ------
    ValueError
        If there would be more than ``MAX_PICTURES`` pictures in a HoloMap.
    """
    data = selecting.squeeze(data, *core_dims)
    map_dims = sorted((str(dim) for dim in data.dims if dim not in core_dims), key="time".__eq__)
    data = data.transpose(*map_dims, *core_dims)
    title = selecting.selection_title(data) if title is None else title
    if not map_dims:
        return draw(data.values, title).opts(style)
    is_dynamic = (data.chunks is not None or has_kernel()) if dynamic is None else dynamic
    labels = [list(map(elements.key, selecting.labels(data, dim))) for dim in map_dims]
    kdims = [
        hv.Dimension(dim, unit="s" if dim == "time" else None, values=values if is_dynamic else [])
        for dim, values in zip(map_dims, labels, strict=True)
    ]
    if is_dynamic:
        positions = [{label: number for number, label in enumerate(values)} for values in labels]
        read = _frame_reader(data, len(core_dims))

        def draw_frame(*key: Any) -> Any:
            position = tuple(numbers[label] for numbers, label in zip(positions, key, strict=True))
            return draw(read(position), title)

        # HoloViews copies all pictures that a DynamicMap keeps whenever it shows one; drawing one again is faster.
        return hv.DynamicMap(draw_frame, kdims=kdims, cache_size=1).opts(style)
    n_pictures = int(np.prod([data.sizes[dim] for dim in map_dims], dtype=int))
    if n_pictures > MAX_PICTURES:
        sizes = ", ".join(f"{dim}: {data.sizes[dim]}" for dim in map_dims)
        raise InputError(
            Problem(
                f"expected at most {MAX_PICTURES} pictures, got {n_pictures} ({sizes})",
                "select fewer with .sel(...), or thin the time axis with .isel(time=slice(None, None, 10))",
            )
        )
    frames = data.values.reshape(-1, *data.shape[len(map_dims) :])
    keys = itertools.product(*labels)
    pictures = {key: draw(frame, title) for key, frame in zip(keys, frames, strict=True)}
    return hv.HoloMap(pictures, kdims=kdims, sort=False).opts(style)


def has_kernel() -> bool:
    """Whether this runs in a notebook, whose kernel can draw a picture when it is shown."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None


def _frame_reader(data: xr.DataArray, n_core: int) -> Callable[[tuple[int, ...]], NDArray[Any]]:
    """Return a function from the position of a frame to its values; lazy data are read when they are needed."""
    if data.chunks is None:
        return lambda position: np.asarray(data.values[position])
    # The chunks of stores hold all times, so a block of all times costs as much as a single frame.
    block_bytes = data.dtype.itemsize * int(np.prod(data.shape[data.ndim - n_core - 1 :]))
    if block_bytes > MAX_BLOCK_BYTES:
        return lambda position: np.asarray(data[position].values)

    @functools.lru_cache(maxsize=N_BLOCKS)
    def read_block(position: tuple[int, ...]) -> NDArray[Any]:
        return np.asarray(data[position].values)

    return lambda position: read_block(position[:-1])[position[-1]]
