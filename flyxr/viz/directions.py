"""Tuning curves of directions of motion, in polar coordinates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import holoviews as hv
import numpy as np
import xarray as xr

from flyxr import tuning as measures
from flyxr.errors import InputError, Problem
from flyxr.viz import colours, elements, selecting

if TYPE_CHECKING:
    from numpy.typing import NDArray

AXES = ("x", "y")
MODELS, MEAN, GRID = "#7d8fb3", "#000000", "#c9c9c9"
MAX_CONDITIONS = 10


def tuning(data: xr.DataArray | xr.Dataset, *, height: int = 260, columns: int = 3) -> Any:
    """Draw tuning curves of directions of motion in polar coordinates, with a panel for each cell type.

    The direction is that of motion, 0 to the right and 90 degrees upward, and the distance from the centre is the peak
    response. Each thin line is a model, from dark blue for the lowest task error to yellow for the highest, the best on
    top; the thick line is the mean of the models. A black ray points in the preferred direction of the mean, and a red
    dot at the rim marks the direction that is known from experiments. Several conditions, such as intensities, are
    lines of their own colours, each the mean of the models.

    Parameters
    ----------
    data
        ``tuning_curve`` (cell_type, angle), as from :func:`flyxr.tuning.tuning_curves`, with ``model`` and a condition
        of the stimulus, such as ``intensity``, or neither; or responses to moving stimuli, whose curves are computed.
        Dims of length one count as selected.
    height
        Height of a panel, screen pixels.
    columns
        Panels per row.

    Returns
    -------
    holoviews.Overlay or holoviews.Layout
        A panel, or a Layout of panels if there are several cell types.

    Raises
    ------
    ValueError
        If the data has no ``angle``, is empty, is below 0 or no real number, has several conditions of more than one
        kind, or an argument is out of range.

    Examples
    --------
    >>> curve = xr.DataArray(
    ...     [0.0, 1.0, 2.0, 1.0], {"angle": [0, 90, 180, 270], "cell_type": "T4b"}, "angle", name="tuning_curve"
    ... )
    >>> [type(layer).__name__ for layer in tuning(curve)]
    ['Contours', 'Labels', 'Path', 'Path', 'Points']
    """
    height, columns = selecting.positive_integers(height=height, columns=columns)
    array = selecting.squeeze(_curves(data), "angle").compute()
    conditions = [str(dim) for dim in array.dims if dim not in ("cell_type", "model", "angle")]
    n_conditions = int(np.prod([array.sizes[dim] for dim in conditions], dtype=int))
    if len(conditions) > 1 or n_conditions > MAX_CONDITIONS:
        sizes = ", ".join(f"{dim}: {array.sizes[dim]}" for dim in conditions)
        text = f"expected one condition of the stimulus, and at most {MAX_CONDITIONS} of its values, got {sizes}"
        raise InputError(Problem(text, "select some with .sel(...)"))
    values = array.values[np.isfinite(array.values)]
    if values.size and values.min() < 0:
        text = f"expected peak responses of at least 0, got {values.min():.4g}"
        raise InputError(Problem(text, "rectify them with .clip(0), or call fx.tuning.tuning_curves"))
    elements.load_backend()
    errors = array["task_error"] if "task_error" in array.coords and "model" in array.dims else None
    scale = None
    if errors is not None and errors.dims == ("model",) and np.isfinite(errors.values).any() and not conditions:
        scale = colours.task_error_scale(errors)
    if "cell_type" not in array.dims:
        return _panel(array, selecting.selected_cell_type(array), scale, height, has_key=True)
    names = list(map(str, selecting.labels(array, "cell_type")))
    panels = [
        _panel(array.isel(cell_type=i), name, scale, height, has_key=i == min(columns, len(names)) - 1)
        for i, name in enumerate(names)
    ]
    return elements.layout(panels, columns)


def _curves(data: Any) -> xr.DataArray:
    """Return the tuning curves (…, angle); compute those of responses; raise if there are none."""
    hint = "compute them with fx.tuning.tuning_curves(responses)"
    if isinstance(data, xr.Dataset) and "tuning_curve" in data:
        data = data["tuning_curve"]
    elif isinstance(data, xr.Dataset | xr.DataArray) and "angle" in data.coords and "time" in data.dims:
        data = measures.tuning_curves(data)["tuning_curve"]
    if not isinstance(data, xr.DataArray) or "angle" not in data.dims:
        got = (
            f"dims {tuple(map(str, data.dims))}" if isinstance(data, xr.DataArray | xr.Dataset) else type(data).__name__
        )
        raise InputError(Problem(f"expected tuning curves with 'angle' in degrees, got {got}", hint))
    if data.dtype.kind not in "fiu" or "angle" not in data.coords or "time" in data.dims or "column" in data.dims:
        text = f"expected one real number for each angle, got {data.dtype} with dims {dict(data.sizes)}"
        raise InputError(Problem(text, hint))
    if 0 in data.sizes.values():
        raise InputError(
            Problem(f"expected at least one tuning curve, got {dict(data.sizes)}", "check what was selected")
        )
    return data.sortby("angle")


def _panel(
    array: xr.DataArray, title: str, scale: colours.ColourScale | None, height: int, has_key: bool
) -> hv.Overlay:
    """Curves of one cell type, (angle) with ``model`` or a condition or neither."""
    angle = np.deg2rad(array["angle"].values.astype(float))
    finite = array.values[np.isfinite(array.values)]
    reach = float(finite.max()) if finite.size and finite.max() > 0 else 1.0
    layers = [_grid(reach), _numbers(reach, array)]
    by_model = array if "model" in array.dims else array.expand_dims("model")
    conditions = [str(dim) for dim in by_model.dims if dim not in ("model", "angle")]
    if not conditions and by_model.sizes["model"] > 1:
        layers.append(_models(by_model.transpose("model", "angle"), angle, scale, has_key))
    mean = by_model.mean("model")
    for number in range(mean.sizes[conditions[0]] if conditions else 1):
        curve = mean.isel({conditions[0]: number}) if conditions else mean
        name = f"{conditions[0]} {selecting.labels(curve, conditions[0])[0]}" if conditions else "mean"
        colour = colours.sample_colours(number + 1)[-1] if conditions else MEAN
        points = _closed(curve.values, angle)
        line = hv.Path([points], list(AXES), label=name)
        layers.append(line.opts(hv.opts.Path(color=colour, line_width=2.5, backend="bokeh")))
        direction = np.nansum(curve.values * np.exp(1j * angle))
        if np.abs(direction) > 1e-6 * reach:
            end = reach * direction / np.abs(direction)
            ray = hv.Path([np.array([[0.0, 0.0], [end.real, end.imag]])], list(AXES))
            layers.append(ray.opts(hv.opts.Path(color=colour, line_dash="dotted", line_width=1.5, backend="bokeh")))
    known = _known_direction(title)
    if np.isfinite(known):
        place = 1.08 * reach * np.exp(1j * np.deg2rad(known))
        dot = hv.Points([(place.real, place.imag, known)], list(AXES), "known direction")
        layers.append(dot.opts(hv.opts.Points(color="#d1495b", size=8, tools=["hover"], backend="bokeh")))
    limit = 1.3 * reach
    options: dict[str, Any] = {
        "title": title,
        "frame_width": height,
        "frame_height": height,
        "data_aspect": 1,
        "xlim": (-limit, limit),
        "ylim": (-limit, limit),
        "xaxis": None,
        "yaxis": None,
        "show_frame": False,
        "show_legend": bool(conditions) and has_key,
        "legend_position": "right",
    }
    return hv.Overlay(layers).opts(hv.opts.Overlay(**options, backend="bokeh"))


def _closed(values: NDArray[Any], angle: NDArray[Any]) -> NDArray[np.float64]:
    """Points (angle, axis) of a curve, closed if the angles go all the way round in equal steps."""
    points = np.stack([values * np.cos(angle), values * np.sin(angle)], axis=1)
    steps = np.diff(np.append(angle, angle[0] + 2 * np.pi))
    return np.vstack([points, points[:1]]) if angle.size > 2 and np.allclose(steps, steps[0]) else points


def _models(curves: xr.DataArray, angle: NDArray[Any], scale: colours.ColourScale | None, has_key: bool) -> hv.Contours:
    errors = curves["task_error"].values if "task_error" in curves.coords else np.full(curves.sizes["model"], np.nan)
    names = list(map(str, selecting.labels(curves, "model"))) if "model" in curves.coords else None
    order = np.argsort(np.where(np.isfinite(errors), -errors, -np.inf), kind="stable")  # the best on top
    paths = []
    for position in order:
        points = _closed(curves.values[position], angle)
        name = names[position] if names else str(position)
        paths.append({"x": points[:, 0], "y": points[:, 1], "task_error": float(errors[position]), "model": name})
    lines = hv.Contours(paths, list(AXES), ["task_error", "model"])
    fill: dict[str, Any] = {"color": MODELS}
    if scale is not None:
        label = colours.task_error_label(scale) if has_key else ""
        fill = {"color": "task_error", **elements.scale_style(scale, label)}
    return lines.opts(hv.opts.Contours(line_width=1, alpha=0.8, tools=["hover"], **fill, backend="bokeh"))


def _radii(reach: float) -> NDArray[np.float64]:
    """Two or three round radii up to the largest response."""
    power = 10.0 ** np.floor(np.log10(reach))
    step = next(factor * power for factor in (0.2, 0.5, 1, 2, 5) if reach / (factor * power) < 4)
    radii: NDArray[np.float64] = np.arange(1, int(reach / step + 1e-9) + 1) * step
    return radii


def _grid(reach: float) -> hv.Contours:
    turn = np.linspace(0, 2 * np.pi, 73)
    circles = [np.stack([radius * np.cos(turn), radius * np.sin(turn)], axis=1) for radius in _radii(reach)]
    spokes = [reach * np.array([[-np.cos(a), -np.sin(a)], [np.cos(a), np.sin(a)]]) for a in (0.0, np.pi / 2)]
    lines = hv.Contours([{"x": part[:, 0], "y": part[:, 1]} for part in (*circles, *spokes)], list(AXES))
    return lines.opts(hv.opts.Contours(color=GRID, line_width=0.8, backend="bokeh"))


def _numbers(reach: float, array: xr.DataArray) -> hv.Labels:
    """Directions around the rim, and the value of each circle, with units at the largest."""
    units = str(array.attrs.get("units", "a.u."))
    rim = [
        (1.2 * reach * np.cos(a), 1.2 * reach * np.sin(a), f"{round(np.rad2deg(a))}°") for a in np.arange(4) * np.pi / 2
    ]
    radii = _radii(reach)
    values = [
        (radius * np.cos(np.pi / 4), radius * np.sin(np.pi / 4), f"{radius:.4g}" + (f" {units}" if last else ""))
        for radius, last in zip(radii, np.arange(len(radii)) == len(radii) - 1, strict=True)
    ]
    labels = hv.Labels([*rim, *values], list(AXES), "text")
    return labels.opts(hv.opts.Labels(text_font_size="8pt", text_color="#666666", backend="bokeh"))


def _known_direction(cell_type: str) -> float:
    """Preferred direction that is known from experiments, degrees, or NaN."""
    known = measures.known_tuning()["preferred_direction"]
    return float(known.sel(cell_type=cell_type)) if cell_type in known["cell_type"].values else np.nan
