"""Measures of responses to moving edges, bars and gratings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from flyxr import schema
from flyxr.arguments import Arguments, as_float, shorten
from flyxr.errors import Problem, raise_problems
from flyxr.optics import DEGREES_PER_COLUMN, DEGREES_PER_LED
from flyxr.selection import align_labels
from flyxr.tuning import base

if TYPE_CHECKING:
    from collections.abc import Sequence

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
        First and last position of the edge or bar in the frames to use, degrees along its direction of motion from the
        centre of the eye; requires the coordinates ``speed`` and ``first_offset``. Default: all frames from the onset
        to ``t_stim``.
    norm
        Divisor of the responses of each model and cell type, matched by label, such as :func:`response_norm`. It may
        have more labels than the responses.

    Returns
    -------
    Dataset
        ``peak_response`` (model, sample, cell_type), 0 or above; NaN where a cell type has no central cell.

    Raises
    ------
    SchemaError
        If the responses are not to such a stimulus, or ``norm`` lacks some of their labels.
    InputError
        If no frame of a sample lies in the window.

    Notes
    -----
    max over t of max(V(t), 0) / norm. Lappalainen et al. 2024, Methods; flyvis ``peak_responses``. Frames that are
    NaN, after the end of a shorter sample, are ignored. flyvis uses the magnitude of a window's start, so that a window
    right of the centre begins too early; here it begins where requested.

    Examples
    --------
    >>> edges = xr.DataArray(
    ...     [[[0.0, 2.0, -1.0, 5.0]]], dims=("model", "sample", "time"),
    ...     coords={"time": [-0.1, 0.0, 0.1, 0.2], "t_stim": ("sample", [0.1])})
    >>> peak_responses(edges).peak_response.values
    array([[2.]])
    """
    window = _check_window(window)
    peak, squeeze = _peak(responses, ("t_stim",), window, norm)
    arguments = {"window": window, "norm": norm}
    return base.wrap({"peak_response": peak}, responses, "peak_responses", arguments, squeeze)


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
        Responses to a moving stimulus, with the coordinates ``angle`` (degrees) and ``t_stim`` (s) on ``sample``.
    average
        Average over widths and speeds; otherwise these are dims of the result.
    window, norm
        As in :func:`peak_responses`.

    Returns
    -------
    Dataset
        ``tuning_curve`` (model, cell_type, intensity, angle), with a dim for each other condition of the stimulus.

    Raises
    ------
    SchemaError
        If the responses are not to such a stimulus, or ``norm`` lacks some of their labels.
    InputError
        If a condition has several samples, or lacks some directions.

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
    window = _check_window(window)
    curves, squeeze = _curves(responses, window, norm)
    if average:
        curves = curves.mean(_average_dims(curves))
    arguments = {"average": average, "window": window, "norm": norm}
    return base.wrap({"tuning_curve": curves}, responses, "tuning_curves", arguments, squeeze)


def direction_selectivity_index(
    responses: Responses,
    average: bool = True,
    *,
    window: Window = None,
    norm: xr.Dataset | xr.DataArray | None = None,
) -> xr.Dataset:
    """Selectivity of each cell type for one direction of motion over the others.

    Parameters
    ----------
    responses
        Responses to a moving stimulus in evenly spaced directions around the circle, with the coordinates ``angle``
        (degrees) and ``t_stim`` (s) on ``sample``.
    average
        Average over widths and speeds; otherwise these are dims of the result.
    window, norm
        As in :func:`peak_responses`.

    Returns
    -------
    Dataset
        ``direction_selectivity_index`` (model, cell_type, intensity), 0 to 1, with a dim for each other condition of
        the stimulus; 0 for a cell that does not respond. Dims of length 1 are kept.

    Raises
    ------
    SchemaError
        If the responses are not to such a stimulus, or ``norm`` lacks some of their labels.
    InputError
        If the directions are not evenly spaced, or a condition has several samples or lacks some directions.

    Notes
    -----
    With r the peak response to the direction theta,

        DSI = abs(sum over theta of r exp(i theta)) / max over intensity of (sum over theta of r).

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
    window = _check_window(window)
    curves, squeeze = _curves(responses, window, norm, even=True)
    (index,) = base.apply_to_conditions(_selectivity, curves, ["angle", *_average_dims(curves) * average])
    arguments = {"average": average, "window": window, "norm": norm}
    name = "direction_selectivity_index"
    return base.wrap({name: index}, responses, name, arguments, squeeze)


def preferred_direction(
    responses: Responses,
    average: bool = True,
    *,
    window: Window = None,
    norm: xr.Dataset | xr.DataArray | None = None,
) -> xr.Dataset:
    """Preferred direction of motion of each cell type.

    Parameters
    ----------
    responses
        As in :func:`direction_selectivity_index`.
    average
        Sum the vectors over widths and speeds; otherwise these are dims of the result.
    window, norm
        As in :func:`peak_responses`.

    Returns
    -------
    Dataset
        ``preferred_direction`` (model, cell_type, intensity), degrees, from 0 to below 360, with a dim for each
        other condition of the stimulus; NaN for a cell that does not respond, or responds equally to all directions.
        ``vector_length``, with the same dims, is the length of the summed vector; if it is small, the direction is
        arbitrary.

    Raises
    ------
    SchemaError
        If the responses are not to such a stimulus, or ``norm`` lacks some of their labels.
    InputError
        If the directions are not evenly spaced, or a condition has several samples or lacks some directions.

    Notes
    -----
    The angle of the sum over theta of r exp(i theta), with r the peak response to the direction theta. Lappalainen
    et al. 2024, Methods; flyvis ``preferred_direction``, which returns radians from -pi to pi, and 0 for silent cells.

    Examples
    --------
    >>> edges = xr.DataArray(
    ...     [[[1.0], [3.0]]], dims=("model", "sample", "time"),
    ...     coords={"time": xr.Variable("time", [0.0], {"step": 0.1}), "t_stim": ("sample", [0.1, 0.1]),
    ...             "angle": ("sample", [90.0, 270.0])})
    >>> preferred_direction(edges).preferred_direction.values
    array([270.])
    """
    window = _check_window(window)
    curves, squeeze = _curves(responses, window, norm, even=True)
    drop = ["angle", *_average_dims(curves) * average]
    angle, length = base.apply_to_conditions(_preference, curves, drop, n_results=2)
    arguments = {"average": average, "window": window, "norm": norm}
    variables = {"preferred_direction": angle, "vector_length": length}
    return base.wrap(variables, responses, "preferred_direction", arguments, squeeze)


def _check_window(window: Any) -> Window:
    """Window as two numbers."""
    if window is None:
        return None
    arguments = Arguments()
    positions = arguments.numbers("window", window, "degrees").tolist()
    if not arguments.problems and not (len(positions) == 2 and positions[0] <= positions[1]):
        text = f"expected window=(first, last), degrees, with first <= last, got {shorten(window)}"
        arguments.problems.append(text)
    arguments.raise_problems()
    return positions[0], positions[1]


def _peak(
    responses: Responses,
    required: tuple[str, ...],
    window: Window,
    norm: xr.Dataset | xr.DataArray | None,
    conditions: str = "",
) -> tuple[xr.DataArray, schema.Squeeze]:
    if window is not None:
        required = (*required, "speed", "first_offset")
    array, squeeze = base.central_responses(responses, required, schema.MOVING, conditions=conditions)
    start, stop = xr.zeros_like(array["t_stim"]), array["t_stim"]
    if window is not None:
        degrees_per_second = array["speed"] * DEGREES_PER_COLUMN
        start = (window[0] - array["first_offset"]) / degrees_per_second
        # quirk: one LED is added to the end, so that a window around the centre is symmetric
        stop = (window[1] + DEGREES_PER_LED - array["first_offset"]) / degrees_per_second
    peak = base.highest(array, base.is_within(array, start, stop)).clip(min=0)
    if norm is not None:
        peak = peak / align_labels(_norm_array(norm), peak, "a norm")
    return peak, squeeze


def _norm_array(norm: Any) -> xr.DataArray:
    """Norm without coordinates other than labels, which would replace those of the responses."""
    if isinstance(norm, xr.Dataset):
        if "response_norm" not in norm:
            text = f"expected a norm with the variable 'response_norm', got {list(map(str, norm.data_vars))}"
            raise schema.SchemaError(Problem(text, "call fx.tuning.response_norm"))
        norm = norm["response_norm"]
    if not isinstance(norm, xr.DataArray) and as_float(norm) is None:
        text = f"expected a norm as a labelled DataArray or Dataset, got {type(norm).__name__}"
        raise schema.SchemaError(Problem(text, "call fx.tuning.response_norm, or name its dims with xr.DataArray"))
    array = xr.DataArray(norm)
    labels = {"model", "sample", "cell_type", *array.dims}
    return array.drop_vars([name for name in array.coords if name not in labels])


def _curves(
    responses: Responses, window: Window, norm: xr.Dataset | xr.DataArray | None, *, even: bool = False
) -> tuple[xr.DataArray, schema.Squeeze]:
    """Peak responses over the conditions of the stimulus, with the direction last."""
    conditions = "several directions of motion" if even else ""
    peak, squeeze = _peak(responses, ("angle", "t_stim"), window, norm, conditions)
    peak = base.gather(peak).assign_coords(angle=peak["angle"].astype(float) % 360)
    names = [name for name in base.CONDITIONS if name in peak.coords and peak[name].dims == ("sample",)]
    curves = base.unstack_conditions(peak, [*names, "angle"], schema.MOVING)
    ones = xr.ones_like(peak["angle"]).assign_coords(peak["angle"].coords)
    n_directions = base.unstack_conditions(ones, [*names, "angle"], schema.MOVING).notnull().sum("angle")
    angles = curves["angle"].values
    problems: list[str | Problem] = []
    if bool(((n_directions > 0) & (n_directions < angles.size)).any()):
        text = f"expected all {angles.size} directions in each condition, got conditions that lack some of "
        problems.append(Problem(f"{text}{angles.tolist()}", "simulate all directions, or select conditions with all"))
    if even and not np.allclose(np.diff(angles, append=angles[0] + 360), 360 / angles.size):
        text = f"expected directions evenly spaced around the circle, got {angles.tolist()} degrees"
        problems.append(Problem(text, "simulate evenly spaced directions, since uneven ones bias the vector sum"))
    if even and angles.size < 2:
        problems.append(f"expected at least 2 directions, got {angles.tolist()}")
    raise_problems(schema.SchemaError, "cannot measure direction tuning", problems)
    return curves, squeeze


def _selectivity(curves: xr.DataArray, drop: Sequence[str]) -> tuple[xr.DataArray]:
    """Direction selectivity index of curves over ``angle``, averaged over the other dims to drop."""
    total = curves.sum("angle", skipna=False)
    if "intensity" in total.dims:
        # quirk: the larger of the ON and OFF responses normalises both
        total = base.maximum(total, "intensity")
    length: xr.DataArray = xr.ufuncs.hypot(*_vector_sum(curves))
    index = (length / total.where(total > 0)).fillna(0).where(length.notnull())
    return (index.mean([dim for dim in drop if dim != "angle"]),)


def _preference(curves: xr.DataArray, drop: Sequence[str]) -> tuple[xr.DataArray, xr.DataArray]:
    """Preferred direction, degrees, and length of the vector sum of curves over all dims to drop."""
    x, y = _vector_sum(curves)
    total = curves.sum("angle", skipna=False)
    if len(drop) > 1:
        summed = [dim for dim in drop if dim != "angle"]
        x, y, total = (array.sum(summed, min_count=1) for array in (x, y, total))
    length: xr.DataArray = xr.ufuncs.hypot(x, y)
    angle: xr.DataArray = xr.ufuncs.rad2deg(xr.ufuncs.arctan2(y, x)) % 360
    angle = angle.where(angle < 360, 0)  # rounding takes angles just below 0 to 360
    # The vector of a response that is equal in all directions is a rounding error.
    return angle.where(length > base.ROUNDING * total), length


def _vector_sum(curves: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """Components x and y of the vector sum of responses over directions."""
    radian = np.deg2rad(curves["angle"])
    x, y = ((curves * component).sum("angle", skipna=False) for component in (np.cos(radian), np.sin(radian)))
    return x, y


def _average_dims(array: xr.DataArray) -> list[Any]:
    return [dim for dim in ("width", "speed") if dim in array.dims]
