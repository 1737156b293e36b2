"""Values in the hexagonal columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import xarray as xr

from flyxr.errors import InputError, Problem
from flyxr.viz import base

if TYPE_CHECKING:
    from collections.abc import Sequence


def hexmap(
    data: xr.DataArray | xr.Dataset,
    *,
    time: float | Sequence[float] | None = None,
    center: float | None = None,
    height: int = 300,
) -> Any:
    """Draw values in their columns, one hexagon a column.

    Luminance is drawn in greys from 0 to 1. Other values of both signs are drawn blue, white, red about 0 (or
    about ``center``), values of one sign from dark to bright. All pictures of one call have the same colours for
    the same values. A column without a value, where a cell type has no cell, is light grey.

    Parameters
    ----------
    data
        (..., column), with the coordinates of columns. A Dataset stands for its ``response``, of a single cell
        type, or else its ``luminance``. Dims of length one count as selected.
    time
        Draw the frames nearest to these times, s. None draws all.
    center
        Value at the middle of a diverging colour map, in units of the data.
    height
        Height of the picture, screen pixel.

    Returns
    -------
    holoviews.Polygons or holoviews.HoloMap
        Polygons if only ``column`` is left, otherwise a HoloMap over the other dims, ``time`` last. HoloViews takes
        about a second for each picture of 721 columns that it shows or saves; :func:`flyxr.viz.report` writes pages
        of many pictures much faster.

    Raises
    ------
    ValueError
        If there is no dim ``column``, a Dataset has several cell types, or there are more than 1000 pictures.

    Examples
    --------
    >>> import xarray as xr
    >>> from flyxr import hexgrid
    >>> values = xr.DataArray(range(7), dims="column", coords=hexgrid.column_coords(1), name="response")
    >>> picture = hexmap(values)
    >>> len(picture), picture.vdims
    (7, [Dimension('response'), Dimension('column'), Dimension('u'), Dimension('v')])
    """
    array = base.variable(data, "column")
    if isinstance(data, xr.Dataset) and array.sizes.get("cell_type", 1) > 1:
        raise InputError(
            Problem(
                f"expected responses of a single cell type, got {array.sizes['cell_type']}",
                "select one with responses.sel(cell_type='T4c'), or pass responses.response to choose among all",
            )
        )
    base.load_backend()
    return base.column_pictures(base.pick_times(array, time).compute(), center, height)
