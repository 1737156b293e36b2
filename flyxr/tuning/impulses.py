"""Receptive fields from responses to impulses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from flyxr import hexgrid, schema
from flyxr.errors import InputError, Problem
from flyxr.tuning import base

if TYPE_CHECKING:
    import xarray as xr

CONDITIONS = ("intensity", "t_stim")


def temporal_receptive_field(responses: xr.Dataset | xr.DataArray) -> xr.Dataset:
    """Time course of each cell type's response to an impulse of light in its own column.

    Parameters
    ----------
    responses
        Responses to impulses, with frames before the onset and the coordinates ``intensity`` and ``t_stim`` (s) on
        ``sample``; also ``u_impulse`` and ``v_impulse``, except for flashes of the whole field.

    Returns
    -------
    Dataset
        ``temporal_receptive_field`` (model, cell_type, intensity, t_stim, time): the response to the impulse at
        u = v = 0, or of the whole field, minus its mean before the onset.

    Raises
    ------
    SchemaError
        If the responses are not to impulses, or have no frame before the onset.
    InputError
        If there is no impulse in the central column, or several of one intensity and duration.

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
    array, squeeze = base.central_responses(responses, CONDITIONS, schema.IMPULSES)
    field = _central_impulse(_subtract_baseline(array)).transpose(..., *CONDITIONS, "time")
    return base.wrap({"temporal_receptive_field": field}, responses, "temporal_receptive_field", {}, squeeze)


def spatial_receptive_field(responses: xr.Dataset | xr.DataArray) -> xr.Dataset:
    """Response of each cell type to impulses of light in the columns around it, at one time.

    Parameters
    ----------
    responses
        Responses to impulses in several columns, with frames before the onset and the coordinates ``u_impulse``,
        ``v_impulse``, ``intensity`` and ``t_stim`` (s) on ``sample``.

    Returns
    -------
    Dataset
        ``spatial_receptive_field`` (model, cell_type, intensity, t_stim, column): the response to the impulse in each
        column minus its mean before the onset. It is taken at ``field_time`` (model, cell_type, intensity, t_stim), s,
        when the response to the impulse at u = v = 0 deviates most. ``column``, ``u`` and ``v`` are those of the
        impulse, for :func:`flyxr.viz.hexmap`.

    Raises
    ------
    SchemaError
        If the responses are not to impulses, or have no frame before the onset.
    InputError
        If there is no impulse in the central column, or several of one intensity and duration in a column.

    Notes
    -----
    Lappalainen et al. 2024, Fig. 4d and Methods. Published fields are taken at the first local extremum of an average
    over models. Here each model has its own time, that of the largest deviation after the onset, so that rounding
    errors before the response are not mistaken for it.

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
    required = ("u_impulse", "v_impulse", *CONDITIONS)
    array, squeeze = base.central_responses(responses, required, schema.IMPULSES, conditions="impulses in the columns")
    if "radius" in array.coords and (array["radius"].values == -1).any():
        raise schema.SchemaError(
            Problem(
                "expected impulses in single columns, got flashes of the whole field (radius -1)",
                "select the impulses with responses.isel(sample=responses.radius.values != -1)",
            )
        )
    array = _subtract_baseline(array)
    after = array.where(array["time"] >= -base.ROUNDING, drop=True)
    deviation = abs(_central_impulse(after))
    field_time = -base.maximum(-after["time"], where=deviation == base.maximum(deviation))
    field_time = field_time.transpose(..., *CONDITIONS)

    u, v = (after[name].values.astype(int) for name in ("u_impulse", "v_impulse"))
    extent = max(int(responses.attrs.get("extent", 0)), int(np.abs([u, v, u + v]).max()))
    column = hexgrid.column_index(u, v, extent)
    after = after.assign_coords(column=("sample", column)).drop_vars(["u_impulse", "v_impulse"])
    course = base.unstack_conditions(after, [*CONDITIONS, "column"], schema.IMPULSES)
    columns = course["column"].values.astype(int)
    lattice = {name: ("column", values[columns]) for name, (_, values) in hexgrid.column_coords(extent).items()}
    course = course.assign_coords(lattice)
    field = base.maximum(course, where=course["time"] == field_time).transpose(..., *CONDITIONS, "column")
    variables = {"spatial_receptive_field": field, "field_time": field_time}
    return base.wrap(variables, responses, "spatial_receptive_field", {}, squeeze)


def _subtract_baseline(array: xr.DataArray) -> xr.DataArray:
    """Responses minus their mean before the onset."""
    is_before = array["time"].values < -base.ROUNDING * schema.time_step(array.to_dataset())
    if not is_before.any():
        raise schema.SchemaError(
            Problem(
                f"expected frames before the onset at 0 s, got time from {float(array['time'][0]):g} s",
                "make the impulses with t_pre above 0 and record these frames, since a receptive field is relative to "
                "the response to grey",
            )
        )
    return array - array.isel(time=is_before).mean("time")


def _central_impulse(array: xr.DataArray) -> xr.DataArray:
    """Response to the impulse in the central column, or in the whole field, by intensity and duration."""
    names = [name for name in ("u_impulse", "v_impulse") if name in array.coords]
    if names:
        is_central = np.all([array[name].values == 0 for name in names], axis=0)
        if not is_central.any():
            columns = sorted(set(zip(*(array[name].values.tolist() for name in names), strict=True)))
            text = (
                f"expected an impulse in the central column, u_impulse = v_impulse = 0, got impulses in {columns[:6]}"
            )
            raise InputError(Problem(text, "add an impulse there"))
        array = array.isel(sample=np.flatnonzero(is_central)).drop_vars(names)
    return base.unstack_conditions(array, list(CONDITIONS), schema.IMPULSES)
