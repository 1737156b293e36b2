"""Receptive fields from responses to impulses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from flyxr import hexgrid, schema
from flyxr.errors import InputError, Problem
from flyxr.tuning import base

if TYPE_CHECKING:
    import xarray as xr

_DURATION = ("intensity", "t_stim")


def temporal_receptive_field(responses: xr.Dataset | xr.DataArray) -> xr.Dataset:
    """Course of each cell type's response to an impulse of light in its own column.

    Parameters
    ----------
    responses
        Responses to impulses, with the coordinates ``intensity`` and ``t_stim`` (s) on ``sample``, ``u_impulse`` and
        ``v_impulse`` too unless the whole field flashes, and frames before the onset.

    Returns
    -------
    Dataset
        ``temporal_receptive_field`` (model, cell_type, intensity, t_stim, time): the response to the impulse at
        u = v = 0 (or of the whole field) minus its mean before onset.

    Raises
    ------
    SchemaError
        If the responses are not those to impulses, or have no frame before onset.
    InputError
        If there is no impulse in the central column, or several of an intensity and duration.

    Notes
    -----
    Lappalainen et al. 2024, Fig. 4e and Methods, single-ommatidium flashes; flyvis subtracts the first frame after
    onset instead of the mean before it.

    Examples
    --------
    >>> import xarray as xr
    >>> impulses = xr.DataArray(
    ...     [[[1.0, 3.0, 2.0]]], dims=("model", "sample", "time"),
    ...     coords={"time": [-0.1, 0.0, 0.1], "intensity": ("sample", [1.0]), "t_stim": ("sample", [0.02])})
    >>> temporal_receptive_field(impulses).temporal_receptive_field.squeeze().values
    array([0., 2., 1.])
    """
    array = _deviation(base.central_responses(responses, _DURATION, schema.IMPULSES))
    field = _central(array).transpose(..., *_DURATION, "time")
    return base.wrap({"temporal_receptive_field": field}, responses, "temporal_receptive_field", {})


def spatial_receptive_field(responses: xr.Dataset | xr.DataArray) -> xr.Dataset:
    """Response of each cell type to impulses of light in the columns around it, at one time.

    Parameters
    ----------
    responses
        Responses to impulses in several columns, with the coordinates ``u_impulse``, ``v_impulse``, ``intensity`` and
        ``t_stim`` (s) on ``sample``, and frames before the onset.

    Returns
    -------
    Dataset
        ``spatial_receptive_field`` (model, cell_type, intensity, t_stim, column): the response to the impulse in each
        column minus its mean before onset, at ``field_time`` (model, cell_type, intensity, t_stim), s, when the
        response to the impulse at u = v = 0 deviates most. ``column``, ``u`` and ``v`` are those of the impulse, for
        :func:`flyxr.viz.hexmap`.

    Raises
    ------
    SchemaError
        If the responses are not those to impulses, or have no frame before onset.
    InputError
        If there is no impulse in the central column, or several in a column of an intensity and duration.

    Notes
    -----
    Lappalainen et al. 2024, Fig. 4d and Methods. Published fields were taken at the first local extremum of an
    average over models; here each model has its own time, that of the largest deviation after onset, so that
    ripples of rounding before the response cannot be taken for it.

    Examples
    --------
    >>> import xarray as xr
    >>> impulses = xr.DataArray(
    ...     [[[1.0, 3.0, 2.0], [1.0, 0.5, 1.0]]], dims=("model", "sample", "time"),
    ...     coords={"time": [-0.1, 0.0, 0.1], "u_impulse": ("sample", [0, 1]), "v_impulse": ("sample", [0, 0]),
    ...             "intensity": ("sample", [1.0, 1.0]), "t_stim": ("sample", [0.02, 0.02])})
    >>> spatial_receptive_field(impulses).spatial_receptive_field.squeeze().values
    array([ 2. , -0.5])
    """
    array = base.central_responses(responses, ("u_impulse", "v_impulse", *_DURATION), schema.IMPULSES)
    if "radius" in array.coords and (array["radius"].values == -1).any():
        raise schema.SchemaError(
            Problem(
                "expected impulses in single columns, got some of the whole field (radius -1)",
                "select the others with responses.isel(sample=responses.radius.values != -1)",
            )
        )
    array = _deviation(array)
    after = array.where(array["time"] >= -base.ROUNDING, drop=True)
    size = abs(_central(after))
    field_time = -base.maximum(-after["time"], where=size == base.maximum(size))
    field_time = field_time.transpose(..., *_DURATION)

    u, v = (after[name].values.astype(int) for name in ("u_impulse", "v_impulse"))
    extent = max(int(responses.attrs.get("extent", 0)), int(np.abs([u, v, u + v]).max()))
    column = hexgrid.column_index(u, v, extent)
    placed = after.assign_coords(column=("sample", column)).drop_vars(["u_impulse", "v_impulse"])
    course = base.unstack_conditions(placed, [*_DURATION, "column"], schema.IMPULSES)
    columns = course["column"].values.astype(int)
    lattice = {name: ("column", values[columns]) for name, (_, values) in hexgrid.column_coords(extent).items()}
    course = course.assign_coords(lattice)
    field = base.maximum(course, where=course["time"] == field_time).transpose(..., *_DURATION, "column")
    variables = {"spatial_receptive_field": field, "field_time": field_time}
    return base.wrap(variables, responses, "spatial_receptive_field", {})


def _deviation(array: xr.DataArray) -> xr.DataArray:
    """Responses minus their mean before onset."""
    before = array["time"].values < -base.ROUNDING * schema.time_step(array.to_dataset())
    if not before.any():
        raise schema.SchemaError(
            Problem(
                f"expected frames before the onset at 0 s, got time from {float(array['time'][0]):g} s",
                "a receptive field is measured from the response to grey; make the impulses with t_pre above 0, and "
                "record it",
            )
        )
    return array - array.isel(time=before).mean("time")


def _central(array: xr.DataArray) -> xr.DataArray:
    """Response to the impulse in the central column, or in the whole field, by intensity and duration."""
    names = [name for name in ("u_impulse", "v_impulse") if name in array.coords]
    if names:
        middle = np.all([array[name].values == 0 for name in names], axis=0)
        if not middle.any():
            columns = sorted(set(zip(*(array[name].values.tolist() for name in names), strict=True)))
            text = f"expected an impulse in the central column, u_impulse = v_impulse = 0, got them in {columns[:6]}"
            raise InputError(Problem(text, "add one there"))
        array = array.isel(sample=np.flatnonzero(middle)).drop_vars(names)
    return base.unstack_conditions(array, list(_DURATION), schema.IMPULSES)
