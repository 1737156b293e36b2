"""Values in the hexagonal columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import xarray as xr

from flyxr.arguments import Arguments, shorten
from flyxr.errors import InputError, Problem
from flyxr.viz import colours, elements, pictures, selecting

if TYPE_CHECKING:
    from collections.abc import Iterable


def hexmap(
    data: xr.DataArray | xr.Dataset,
    *,
    time: float | Iterable[float] | None = None,
    center: float | None = None,
    clim: tuple[float, float] | None = None,
    height: int = 300,
    dynamic: bool | None = None,
) -> Any:
    """Draw values in their columns, one hexagon per column.

    Luminance is grey, from 0 to 1. Other values of both signs run from blue through white at 0 (or at ``center``) to
    red; values of one sign run from dark to bright. All pictures of one call share one colour scale; give several calls
    the same ``clim`` to compare their pictures. A column without a value, where a cell type has no cell, is light grey.

    Parameters
    ----------
    data
        (..., column), with the coordinates of columns. Of a Dataset, the ``response`` of a single cell type is drawn,
        or else the ``luminance``. Dims of length one count as selected.
    time
        Times to draw, numbers in s or durations; the nearest frame is taken for each. None draws all frames.
    center
        Value at the middle of a diverging colour map, in the units of the data.
    clim
        Values at the ends of the colour map, in the units of the data. 0, or ``center``, keeps its colour, white, if it
        lies between them. None takes those of the data.
    height
        Height of a picture, screen pixels.
    dynamic
        Whether several pictures are a DynamicMap, which draws and reads a picture once it is shown, rather than a
        HoloMap, which holds all of them. None takes a DynamicMap for lazy data, and in a notebook. The limits of the
        colours of lazy data are computed first, unless ``clim`` is given.

    Returns
    -------
    Hexagons, holoviews.HoloMap or holoviews.DynamicMap
        Hexagons, an element of HoloViews, if the data has no dim but ``column``, otherwise a map over the other dims,
        ``time`` last. :func:`flyxr.viz.save` writes it to a file.

    Raises
    ------
    ValueError
        If there is no dim ``column``, an argument is out of range, a Dataset has several cell types, or there are more
        than 1000 pictures in a HoloMap.

    Examples
    --------
    >>> import xarray as xr
    >>> from flyxr import hexgrid
    >>> values = xr.DataArray(range(7), dims="column", coords=hexgrid.column_coords(1), name="response")
    >>> picture = hexmap(values)
    >>> len(picture), picture.vdims
    (7, [Dimension('response'), Dimension('column'), Dimension('u'), Dimension('v')])
    """
    arguments = Arguments()
    height = arguments.integer("height", height, least=1)
    center = None if center is None else arguments.number("center", center)
    if clim is not None:
        clim = _colour_limits(arguments, clim, center)
    arguments.raise_problems()
    array = selecting.drawable_array(data, "column")
    if isinstance(data, xr.Dataset) and array.sizes.get("cell_type", 1) > 1:
        raise InputError(
            Problem(
                f"expected responses of a single cell type, got {array.sizes['cell_type']}",
                "select one with responses.sel(cell_type='T4c'), or pass responses.response to choose among all",
            )
        )
    elements.load_backend()
    array = selecting.select_times(array, time)
    if dynamic is False:
        array = array.compute()
    scale = colours.colour_scale(array, center=center, clim=clim)
    return pictures.column_pictures(array, scale, height, dynamic=dynamic)


def _colour_limits(arguments: Arguments, clim: Any, center: float | None) -> tuple[float, float]:
    """Ends of a colour map, two increasing numbers, with the center between them if there is one."""
    ends = arguments.numbers("clim", clim).tolist()
    if not ends:
        return 0.0, 1.0
    if len(ends) != 2 or ends[0] >= ends[1]:
        arguments.problems.append(
            Problem(f"expected clim as two numbers, low and high, got {shorten(clim)}", "e.g. clim=(-1, 1)")
        )
        return 0.0, 1.0
    if center is not None and not ends[0] < center < ends[1]:
        arguments.problems.append(f"expected center between the ends of clim, got center={center:g}, clim={clim}")
    return ends[0], ends[1]
