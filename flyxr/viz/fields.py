"""Receptive fields that were measured with impulses."""

from __future__ import annotations

from typing import Any

import holoviews as hv
import xarray as xr

from flyxr.arguments import shorten
from flyxr.errors import InputError, Problem
from flyxr.viz import colours, courses, elements, pictures, selecting

NAMES = ("spatial_receptive_field", "temporal_receptive_field")


def receptive_field(data: xr.DataArray | xr.Dataset, *, height: int = 220, columns: int = 4) -> Any:
    """Draw receptive fields: in columns, or as time courses.

    A spatial field has a hexagon for each column in which an impulse was shown. Red columns excite the cell, blue ones
    inhibit it, and white ones do nothing; all cell types and models have the same colours. A temporal field is a
    course of time for each model, see :func:`flyxr.viz.traces`.

    Parameters
    ----------
    data
        Result of :func:`flyxr.tuning.spatial_receptive_field` or :func:`flyxr.tuning.temporal_receptive_field`, or its
        variable. Dims of length one count as selected.
    height
        Height of a panel, screen pixels.
    columns
        Panels per row.

    Returns
    -------
    Hexagons, holoviews.HoloMap, holoviews.Overlay or holoviews.Layout
        A panel, or a Layout of panels if there are several cell types. Spatial fields of several models or conditions
        are a HoloMap over these.

    Raises
    ------
    ValueError
        If the data is no receptive field, is empty or no real number, has several conditions in a temporal field, or
        an argument is out of range.

    Examples
    --------
    >>> from flyxr import hexgrid
    >>> coords = {"cell_type": ["Mi1", "Tm3"], **hexgrid.column_coords(1)}
    >>> field = xr.DataArray(
    ...     [[0.0] * 3 + [1.0] + [0.0] * 3] * 2, coords, ("cell_type", "column"), name="spatial_receptive_field"
    ... )
    >>> [panel.label for panel in receptive_field(field)]
    ['Mi1', 'Tm3']
    """
    height, columns = selecting.positive_integers(height=height, columns=columns)
    array = _field(data)
    if array.name == "temporal_receptive_field":
        array = selecting.squeeze(array, "time")
        conditions = [str(dim) for dim in array.dims if dim not in ("model", "cell_type", "time")]
        if conditions:
            sizes = {dim: array.sizes[dim] for dim in conditions}
            hint = f"select one with .sel({conditions[0]}={selecting.labels(array, conditions[0])[-1]!r})"
            raise InputError(Problem(f"expected one condition of the stimulus, got {sizes}", hint))
        return courses.traces(array, height=height, width=round(1.4 * height), columns=columns)
    elements.load_backend()
    array = array.compute()
    scale = colours.colour_scale(array, center=0.0)
    array = selecting.squeeze(array, "column")
    if "cell_type" not in array.dims:
        return pictures.column_pictures(array, scale, height)
    panels = [pictures.column_pictures(array.isel(cell_type=i), scale, height) for i in range(array.sizes["cell_type"])]
    return hv.Layout(panels).cols(columns)


def _field(data: Any) -> xr.DataArray:
    """Return the receptive field; raise if there is none."""
    hint = "call fx.tuning.spatial_receptive_field or fx.tuning.temporal_receptive_field on responses to impulses"
    if isinstance(data, xr.Dataset):
        present = [name for name in NAMES if name in data]
        if len(present) > 1:
            raise InputError(Problem(f"expected one receptive field, got {present}", "choose one with data[name]"))
        if not present:
            text = f"expected a receptive field, got variables {list(map(str, data.data_vars))}"
            raise InputError(Problem(text, hint))
        data = data[present[0]]
    if not isinstance(data, xr.DataArray):
        raise InputError(Problem(f"expected a receptive field, got {shorten(data)}", hint))
    dim = {"spatial_receptive_field": "column", "temporal_receptive_field": "time"}.get(str(data.name))
    if dim is None or dim not in data.dims or data.dtype.kind not in "fiu":
        text = f"expected a receptive field, got {data.name!r}, {data.dtype}, with dims {dict(data.sizes)}"
        raise InputError(Problem(text, hint))
    if 0 in data.sizes.values():
        raise InputError(Problem(f"expected at least one value, got {dict(data.sizes)}", "check what was selected"))
    return data
