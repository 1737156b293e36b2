"""Measures of responses to moving edges, bars and gratings."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from flyxr import schema
from flyxr.errors import InputError, Problem, raise_problems
from flyxr.selection import align_labels
from flyxr.tuning import base

DEGREES_PER_COLUMN = 5.8
LED = 2.25
"""Width of one step of moving edges and bars, degree (flyvis renders them as LEDs of an arena)."""

Responses = xr.Dataset | xr.DataArray
Window = tuple[float, float] | None


def peak_responses(
    responses: Responses, *, window: Window = None, norm: xr.Dataset | xr.DataArray | None = None
) -> xr.Dataset:
    """Largest rectified response of each cell type to each sample, while the stimulus moves.

    Parameters
    ----------
    responses
        Responses to moving edges, bars or gratings, with the coordinate ``t_stim`` (s) on ``sample``.
    window
        From and to where the edge or bar moves in the frames that count, degree along its direction of motion, the
        centre of the eye at 0; needs the coordinates ``speed`` and ``first_offset``. Without it all frames from
        onset to ``t_stim`` count.
    norm
        Divides the responses of each model and cell type, such as :func:`response_norm`: those of the same labels. It
        may have more of them than the responses.

    Returns
    -------
    Dataset
        ``peak_response`` (model, sample, cell_type), 0 or above; NaN where a cell type has no central cell.

    Raises
    ------
    SchemaError
        If the responses are not those to such a stimulus, or ``norm`` lacks some of their labels.
    InputError
        If no frame of a sample lies in the window.

    Notes
    -----
    max over t of max(V(t), 0) / norm. Lappalainen et al. 2024, Methods; flyvis ``peak_responses``. Frames that are
    NaN, as those after the end of a shorter sample, are skipped. flyvis takes the magnitude of a window's start, so
    that a window right of the centre begins too early there; here it begins where it is said to.

    Examples
    --------
    >>> edges = xr.DataArray(
    ...     [[[0.0, 2.0, -1.0, 5.0]]], dims=("model", "sample", "time"),
    ...     coords={"time": [-0.1, 0.0, 0.1, 0.2], "t_stim": ("sample", [0.1])})
    >>> peak_responses(edges).peak_response.values
    array([[2.]])
    """
    peak = _peak(responses, ("t_stim",), window, norm)
    return base.wrap({"peak_response": peak}, responses, "peak_responses", {"window": window, "norm": norm})


def tuning_curves(
    responses: Responses,
    *,
    average: bool = True,
    window: Window = None,
    norm: xr.Dataset | xr.DataArray | None = None,
) -> xr.Dataset:
    """Peak response of each cell type to each direction of motion.

    Parameters
    ----------
    responses
        Responses to a moving stimulus, with the coordinates ``angle`` (degree) and ``t_stim`` (s) on ``sample``.
    average
        Average over widths and speeds; else these are dims of the result.
    window, norm
        As in :func:`peak_responses`.

    Returns
    -------
    Dataset
        ``tuning_curve`` (model, cell_type, intensity, angle), and a dim for each other condition of the stimulus.

    Raises
    ------
    SchemaError
        If the responses are not those to such a stimulus, or ``norm`` lacks some of their labels.
    InputError
        If a condition has several samples or some of its directions only.

    Notes
    -----
    Lappalainen et al. 2024, Fig. 2 and Methods; flyvis ``plot_angular_tuning``, which divides by the maximum.

    Examples
    --------
    >>> edges = xr.DataArray(
    ...     [[[2.0], [1.0]]], dims=("model", "sample", "time"),
    ...     coords={"time": xr.Variable("time", [0.0], {"step": 0.1}), "t_stim": ("sample", [0.1, 0.1]),
    ...             "angle": ("sample", [180.0, 0.0])})
    >>> tuning_curves(edges).tuning_curve.sel(angle=180).values
    array([2.])
    """
    curves = _curves(responses, window, norm)
    if average:
        curves = curves.mean(_averaged(curves))
    arguments = {"average": average, "window": window, "norm": norm}
    return base.wrap({"tuning_curve": curves}, responses, "tuning_curves", arguments)


def direction_selectivity_index(
    responses: Responses,
    average: bool = True,
    *,
    window: Window = None,
    norm: xr.Dataset | xr.DataArray | None = None,
) -> xr.Dataset:
    """How much more each cell type responds to one direction of motion than to the others.

    Parameters
    ----------
    responses
        Responses to a moving stimulus in directions evenly spaced around the circle, with the coordinates ``angle``
        (degree) and ``t_stim`` (s) on ``sample``.
    average
        Average over widths and speeds; else these are dims of the result.
    window, norm
        As in :func:`peak_responses`.

    Returns
    -------
    Dataset
        ``direction_selectivity_index`` (model, cell_type, intensity), 0 to 1, and a dim for each other condition of
        the stimulus; 0 for a cell that does not respond. No dim is dropped because its length is 1.

    Raises
    ------
    SchemaError
        If the responses are not those to such a stimulus, or ``norm`` lacks some of their labels.
    InputError
        If the directions are not evenly spaced, or a condition has several samples or some of its directions only.

    Notes
    -----
    With r the peak response to the direction theta,

        DSI = |sum over theta of r exp(i theta)| / max over intensity of (sum over theta of r).

    Lappalainen et al. 2024, Methods, direction selectivity index; flyvis ``direction_selectivity_index``. The index
    does not change when the responses are scaled by a positive factor.

    Examples
    --------
    >>> edges = xr.DataArray(
    ...     [[[3.0], [1.0]]], dims=("model", "sample", "time"),
    ...     coords={"time": xr.Variable("time", [0.0], {"step": 0.1}), "t_stim": ("sample", [0.1, 0.1]),
    ...             "angle": ("sample", [0.0, 180.0]), "intensity": ("sample", [1.0, 1.0])})
    >>> direction_selectivity_index(edges).direction_selectivity_index.values.round(6)
    array([[0.5]])
    """
    curves = _curves(responses, window, norm, even=True)
    total = curves.sum("angle", skipna=False)
    if "intensity" in total.dims:
        # As published: the larger response of ON and OFF is the measure for both.
        total = base.maximum(total, "intensity")
    length: xr.DataArray = xr.ufuncs.hypot(*_vector(curves))
    index = (length / total.where(total > 0)).fillna(0).where(length.notnull())
    if average:
        index = index.mean(_averaged(index))
    arguments = {"average": average, "window": window, "norm": norm}
    name = "direction_selectivity_index"
    return base.wrap({name: _ordered(index, curves)}, responses, name, arguments)


def preferred_direction(
    responses: Responses,
    average: bool = True,
    *,
    window: Window = None,
    norm: xr.Dataset | xr.DataArray | None = None,
) -> xr.Dataset:
    """Direction of motion that each cell type prefers.

    Parameters
    ----------
    responses
        As in :func:`direction_selectivity_index`.
    average
        Sum the vectors over widths and speeds; else these are dims of the result.
    window, norm
        As in :func:`peak_responses`.

    Returns
    -------
    Dataset
        ``preferred_direction`` (model, cell_type, intensity), degree, from 0 to below 360, and a dim for each other
        condition of the stimulus; NaN for a cell that does not respond, or alike to all directions. ``vector_length``,
        with the same dims, says how much there is behind it: where it is small the direction is arbitrary.

    Raises
    ------
    SchemaError
        If the responses are not those to such a stimulus, or ``norm`` lacks some of their labels.
    InputError
        If the directions are not evenly spaced, or a condition has several samples or some of its directions only.

    Notes
    -----
    With r the peak response to the direction theta: the angle of the sum over theta of r exp(i theta). Lappalainen
    et al. 2024, Methods; flyvis ``preferred_direction``, which gives radians from -pi to pi, and 0 for silent cells.

    Examples
    --------
    >>> edges = xr.DataArray(
    ...     [[[1.0], [3.0]]], dims=("model", "sample", "time"),
    ...     coords={"time": xr.Variable("time", [0.0], {"step": 0.1}), "t_stim": ("sample", [0.1, 0.1]),
    ...             "angle": ("sample", [90.0, 270.0])})
    >>> preferred_direction(edges).preferred_direction.values
    array([270.])
    """
    curves = _curves(responses, window, norm, even=True)
    x, y = _vector(curves)
    total = curves.sum("angle", skipna=False)
    if average:
        x, y, total = (array.sum(_averaged(array), min_count=1) for array in (x, y, total))
    length: xr.DataArray = xr.ufuncs.hypot(x, y)
    angle: xr.DataArray = xr.ufuncs.rad2deg(xr.ufuncs.arctan2(y, x)) % 360
    angle = angle.where(angle < 360, 0)  # rounding takes angles just below 0 to 360
    # What is left of a response that is the same in all directions is rounding, and has no direction.
    angle = angle.where(length > base.ROUNDING * total)
    arguments = {"average": average, "window": window, "norm": norm}
    variables = {"preferred_direction": _ordered(angle, curves), "vector_length": _ordered(length, curves)}
    return base.wrap(variables, responses, "preferred_direction", arguments)


def _peak(
    responses: Responses, needed: tuple[str, ...], window: Window, norm: xr.Dataset | xr.DataArray | None
) -> xr.DataArray:
    if window is not None:
        needed = (*needed, "speed", "first_offset")
    array = base.central_responses(responses, needed, schema.MOVING)
    start, stop = xr.zeros_like(array["t_stim"]), array["t_stim"]
    if window is not None:
        if not window[0] <= window[1]:
            raise InputError(f"expected window=(from, to), degree, with from <= to, got {window}")
        degrees_per_second = array["speed"] * DEGREES_PER_COLUMN
        start = (window[0] - array["first_offset"]) / degrees_per_second
        # As in flyvis, one LED is added to the end, so that a window around the centre is symmetric.
        stop = (window[1] + LED - array["first_offset"]) / degrees_per_second
    peak = base.maximum(array.clip(min=0), where=base.is_within(array, start, stop))
    if norm is not None:
        peak = peak / align_labels(_norm(norm), peak, "a norm")
    return peak


def _norm(norm: xr.Dataset | xr.DataArray) -> xr.DataArray:
    """What divides the responses, with its labels alone: other coordinates are those of the responses."""
    if isinstance(norm, xr.Dataset):
        if "response_norm" not in norm:
            text = f"expected a norm with the variable 'response_norm', got {list(map(str, norm.data_vars))}"
            raise schema.SchemaError(Problem(text, "call fx.tuning.response_norm"))
        norm = norm["response_norm"]
    array = xr.DataArray(norm)
    labels = {"model", "sample", "cell_type", *array.dims}
    return array.drop_vars([name for name in array.coords if name not in labels])


def _curves(
    responses: Responses, window: Window, norm: xr.Dataset | xr.DataArray | None, *, even: bool = False
) -> xr.DataArray:
    """Peak responses over the conditions of the stimulus, the direction last."""
    peak = _peak(responses, ("angle", "t_stim"), window, norm)
    peak = peak.assign_coords(angle=peak["angle"].astype(float) % 360)
    given = [name for name in base.CONDITIONS if name in peak.coords and peak[name].dims == ("sample",)]
    curves = base.unstack_conditions(peak, [*given, "angle"], schema.MOVING)
    asked = xr.ones_like(peak["angle"]).assign_coords(peak["angle"].coords)
    count = base.unstack_conditions(asked, [*given, "angle"], schema.MOVING).notnull().sum("angle")
    angles = curves["angle"].values
    problems: list[str | Problem] = []
    if bool(((count > 0) & (count < angles.size)).any()):
        problems.append(f"expected all {angles.size} directions in each condition, got some without: {angles.tolist()}")
    if even and not np.allclose(np.diff(angles, append=angles[0] + 360), 360 / angles.size):
        text = f"expected directions evenly spaced around the circle, got {angles.tolist()} degree"
        problems.append(Problem(text, "a vector sum over others has a direction of its own"))
    if even and angles.size < 2:
        problems.append(f"expected at least 2 directions, got {angles.tolist()}")
    raise_problems(schema.SchemaError, "the directions of motion do not suffice", problems)
    return curves


def _vector(curves: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """Sum of the responses as vectors in the plane of directions."""
    radian = np.deg2rad(curves["angle"])
    x, y = ((curves * component).sum("angle", skipna=False) for component in (np.cos(radian), np.sin(radian)))
    return x, y


def _averaged(array: xr.DataArray) -> list[Any]:
    return [dim for dim in ("width", "speed") if dim in array.dims]


def _ordered(array: xr.DataArray, like: xr.DataArray) -> xr.DataArray:
    return array.transpose(*(dim for dim in like.dims if dim in array.dims))
