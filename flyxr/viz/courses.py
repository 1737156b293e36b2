"""Time courses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import holoviews as hv
import numpy as np
import xarray as xr

from flyxr.arguments import shorten
from flyxr.errors import InputError, Problem
from flyxr.selection import align_labels
from flyxr.viz import colours, elements, selecting
from flyxr.viz.time_courses import TimeCourses

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_CURVES = 500
"""Above this number of curves of single models in a panel, datashader draws them as an image."""

MAX_LEGEND_ENTRIES = 12

N_COLOURS = 64
"""Colours of task errors. Each panel of a page has them, so that many would make the page slow."""

MAX_PANELS_WITH_ALL_TOOLS = 20
"""Above this number of panels, they have the tools ``FEW_TOOLS`` only: Bokeh's box zoom alone takes a tenth of the time
to draw a panel."""

FEW_TOOLS = ("pan", "wheel_zoom", "reset")

OUTLIER_FACTOR = 3.0
"""A curve is an outlier if its peak is this many interquartile ranges of all peaks beyond their quartiles."""


def traces(
    data: xr.DataArray | xr.Dataset,
    *,
    by: Literal["task_error", "sample", "cluster", "perturbation"] | None = None,
    clusters: xr.Dataset | None = None,
    width: int = 280,
    height: int = 180,
    columns: int = 3,
) -> Any:
    """Draw time courses, with a panel for each cell type.

    By task error, each line is a model, from dark blue for the lowest error to yellow for the highest, with the best
    models on top and a colour bar. Models without a task error are grey, and a few of far higher error have the colour
    of the highest of the others; the colour bar counts them. By sample, each sample has a colour: thin
    lines are models, the thick line is their mean. Above 500 curves in a panel, datashader draws the thin lines as an
    image, which is dark where many models agree; the means stay curves.

    By cluster, there is a row of panels for each cell type and a panel for each of its clusters, with the same axes;
    the colours are task errors, or samples if these are unknown. By perturbation, each perturbation of the models has a
    colour, as a sample has.

    A few models with far larger responses do not flatten the others: the axis is that of the others, and the title
    says how many curves reach beyond it. Zooming out shows them, except in an image.

    Parameters
    ----------
    data
        (time) and any of ``model``, ``sample`` and ``cell_type``. Of a Dataset, the ``response`` is drawn. Dims of
        length one count as selected.
    by
        What the colours or panels mean. None takes the cluster if there are ``clusters``, the task error for several
        models of known task error and a single sample, and otherwise the sample.
    clusters
        Result of :func:`flyxr.cluster` for the cell types and models of the data, for ``by="cluster"``.
    width, height
        Size of a panel, screen pixels.
    columns
        Panels per row.

    Returns
    -------
    TimeCourses, holoviews.Overlay or holoviews.Layout
        A panel, or a Layout of panels if there are several cell types. By task error, a panel is one element of
        HoloViews, TimeCourses; by sample, it is an Overlay of those of the models and a Curve for each mean.

    Raises
    ------
    ValueError
        If there is no ``time``, there is another dim, such as ``column``, an argument is out of range, or ``by`` is
        ``"task_error"`` for several samples, one model, or models of unknown task error, ``"cluster"`` without clusters
        of these models, or ``"perturbation"`` for models without one, or several samples.

    Examples
    --------
    >>> import numpy as np
    >>> import xarray as xr
    >>> time = {"time": np.arange(10) / 100}
    >>> course = xr.DataArray(np.zeros((2, 10)), dims=("model", "time"), coords=time)
    >>> [type(layer).__name__ for layer in traces(course)]
    ['TimeCourses', 'Curve']
    >>> traces(course.assign_coords(task_error=("model", [5.0, 6.0])))
    :TimeCourses   [time,response]   (model,task error)
    """
    width, height, columns = selecting.positive_integers(width=width, height=height, columns=columns)
    array = selecting.squeeze(selecting.drawable_array(data, "time"), "time")
    extra = [str(dim) for dim in array.dims if dim not in ("model", "sample", "cell_type", "time")]
    if extra or "time" not in array.coords:
        raise InputError(
            Problem(
                "expected dim 'time' with a coordinate in s, and no other dims than model, sample and cell_type, got "
                f"{dict(array.sizes)}",
                f"select one {' and one '.join(extra) or 'time axis'}, e.g. the central column with "
                "responses.fly.central()",
            )
        )
    by = "cluster" if by is None and clusters is not None else by
    members = _clusters_of(array, by, clusters)
    array = _by_perturbation(array) if by == "perturbation" else array
    by_error = _is_by_task_error(array, None if by == "cluster" else by)
    array = array.compute()
    elements.load_backend()
    scale = colours.task_error_scale(array["task_error"]) if by_error else None
    has_all_tools = array.sizes.get("cell_type", 1) <= MAX_PANELS_WITH_ALL_TOOLS
    prefix = "" if by == "perturbation" else "sample "
    style = _Style(width, height, selecting.value_label(array), scale, prefix, has_all_tools)
    if members is not None:
        return style.cluster_panels(array, members)
    if "cell_type" not in array.dims:
        return style.panel(array, selecting.selected_cell_type(array), has_key=True)
    names = list(map(str, selecting.labels(array, "cell_type")))
    # The key is wider than a panel, so it stands at the end of the first row, where it moves no other panel.
    panels = [
        style.panel(array.isel(cell_type=i), name, has_key=i == min(columns, len(names)) - 1)
        for i, name in enumerate(names)
    ]
    return elements.layout(panels, columns)


def _is_by_task_error(array: xr.DataArray, by: str | None) -> bool:
    """Whether colours are task errors; raises if they are asked for and there are none."""
    if by not in (None, "task_error", "sample", "perturbation"):
        raise InputError(f"expected by as 'task_error', 'sample', 'cluster', 'perturbation' or None, got {shorten(by)}")
    problem = None
    if "model" not in array.dims:
        problem = Problem("expected several models for by='task_error', got one", "leave out by=")
    elif "task_error" not in array.coords or not np.isfinite(array["task_error"].values).any():
        problem = Problem(
            "expected models with a finite coordinate 'task_error' for by='task_error', got none",
            "leave out by=, or assign one with .assign_coords(task_error=('model', errors))",
        )
    elif "sample" in array.dims:
        problem = Problem(
            f"expected one sample for by='task_error', got {array.sizes['sample']}", "select one with .isel(sample=0)"
        )
    elif by is None and array.sizes["model"] > MAX_CURVES:
        return False
    if by == "task_error" and problem is not None:
        raise InputError(problem)
    return by not in ("sample", "perturbation") and problem is None


def _clusters_of(array: xr.DataArray, by: str | None, clusters: Any) -> xr.DataArray | None:
    """Cluster (cell_type, model) of each model of an array, or None if it is not drawn by cluster."""
    if by != "cluster":
        if clusters is not None:
            raise InputError(
                Problem(f"expected by='cluster' for clusters, got by={by!r}", "leave out by= or clusters=")
            )
        return None
    if not isinstance(clusters, xr.Dataset) or "cluster" not in clusters:
        got = f"variables {list(clusters.data_vars)}" if isinstance(clusters, xr.Dataset) else type(clusters).__name__
        hint = "pass clusters=fx.cluster(responses.fly.central())"
        raise InputError(Problem(f"expected clusters with the variable 'cluster' for by='cluster', got {got}", hint))
    if "model" not in array.dims:
        raise InputError(Problem("expected several models for by='cluster', got one", "keep the dim 'model'"))
    labelled = array if "cell_type" in array.coords else array.assign_coords(cell_type="")
    known = [name for name in ("cell_type", "model") if name in clusters.coords and name in labelled.coords]
    members = clusters["cluster"]
    for name in known:
        members = members if name in members.dims else members.expand_dims(name)
    aligned = align_labels(members, labelled, "clusters").compute()
    return aligned if "cell_type" in aligned.dims else aligned.expand_dims("cell_type")


def _by_perturbation(array: xr.DataArray) -> xr.DataArray:
    """Curves with the perturbations of their models along ``sample``, and the models before perturbation."""
    if "model" not in array.dims or "perturbation" not in array.coords or array["perturbation"].dims != ("model",):
        text = "expected models with the coordinate 'perturbation' for by='perturbation', got none"
        raise InputError(Problem(text, "simulate fx.silence(ensemble, ...), fx.scale or fx.clamp"))
    if "sample" in array.dims:
        text = f"expected one sample for by='perturbation', got {array.sizes['sample']}"
        raise InputError(Problem(text, "select one with .isel(sample=0)"))
    names = array["perturbation"].values
    before = array["unperturbed"].values if "unperturbed" in array.coords else array["model"].values
    array = array.drop_vars([name for name, coord in array.coords.items() if "model" in coord.dims or name == "sample"])
    groups = []
    for name in dict.fromkeys(names.tolist()):
        chosen = np.flatnonzero(names == name)
        groups.append(array.isel(model=chosen).assign_coords(model=before[chosen], sample=str(name)))
    return xr.concat(groups, "sample", join="outer")


@dataclass(frozen=True)
class _Style:
    """Size of the panels, label of the values, and what the colours mean."""

    width: int
    height: int
    label: str
    scale: colours.ColourScale | None
    """Colours of task errors, or None for colours of samples."""

    prefix: str
    """What stands before the label of a sample in the legend."""

    has_all_tools: bool
    """Whether the panels have all of HoloViews' tools."""

    def cluster_panels(self, array: xr.DataArray, members: xr.DataArray) -> hv.Layout:
        """A row of panels for each cell type, and a panel for each of its clusters (cell_type, model)."""
        by_type = array if "cell_type" in array.dims else array.expand_dims("cell_type")
        rows = []
        for i in range(by_type.sizes["cell_type"]):
            curves, cluster = by_type.isel(cell_type=i), members.isel(cell_type=i).values
            limits, _ = robust_limits(curves.values)
            present = sorted(set(cluster.tolist()), key=lambda label: (label < 0, label))  # those without one are last
            row = []
            for label in present:
                chosen = np.flatnonzero(cluster == label)
                count = f"{chosen.size} model{'' if chosen.size == 1 else 's'}"
                name = "no cluster" if label < 0 else f"cluster {label}"
                title = ", ".join(filter(None, [selecting.selected_cell_type(curves), f"{name} ({count})"]))
                has_key = i == 0 and label == present[-1]
                row.append(self.panel(curves.isel(model=chosen), title, has_key, limits))
            rows.append(row)
        columns = max(map(len, rows))
        panels = [panel for row in rows for panel in (*row, *[hv.Empty()] * (columns - len(row)))]
        return elements.layout(panels, columns)

    def panel(self, data: xr.DataArray, title: str, has_key: bool, limits: tuple[float, float] | None = None) -> Any:
        """Curves of data (time) and any of model and sample, with a legend or a colour bar if there is a key."""
        curves = data.expand_dims([dim for dim in ("model", "sample") if dim not in data.dims])
        curves = curves.transpose("sample", "model", "time")
        if limits is None:
            limits, n_outliers = robust_limits(curves.values)
        else:
            low, high = limits
            n_outliers = int(((curves.values < low) | (curves.values > high)).any(axis=-1).sum())
        if n_outliers:
            is_model = data.sizes.get("sample", 1) == 1
            noun = "models" if is_model else "curves"
            title += f" ({n_outliers} of {curves.sizes['sample'] * curves.sizes['model']} {noun} beyond the axis)"
        options: dict[str, Any] = {
            "title": title,
            "frame_width": self.width,
            "frame_height": self.height,
            "xlabel": "time (s)",
            "ylabel": self.label,
            "ylim": limits,
        }
        if not self.has_all_tools:
            options["default_tools"] = list(FEW_TOOLS)
        if self.scale is not None:
            return self._curves_by_error(curves.isel(sample=0), limits, self.scale, has_key, options)
        options["show_legend"] = has_key and 1 < data.sizes.get("sample", 1) <= MAX_LEGEND_ENTRIES
        layers = hv.Overlay(self._curves_by_sample(curves, limits))
        return layers.opts(hv.opts.Overlay(legend_position="right", **options, backend="bokeh"))

    def _curves_by_error(
        self,
        curves: xr.DataArray,
        limits: tuple[float, float],
        scale: colours.ColourScale,
        has_key: bool,
        options: dict[str, Any],
    ) -> TimeCourses:
        """Curves (model, time) in the colour of their task error, the best on top."""
        errors = curves["task_error"].values.astype(float)
        order = np.argsort(-np.nan_to_num(errors, nan=np.inf), kind="stable")
        error = hv.Dimension("task_error", label="task error", range=scale.clim)
        fill = elements.scale_style(scale, colours.task_error_label(scale) if has_key else "", N_COLOURS)
        line = {"color": "task_error", "line_width": 1.2, "tools": ["hover"]}
        style = hv.Options("TimeCourses", **line, **fill, **options, backend="bokeh")
        lines = _time_courses(curves.isel(model=order), limits, {"model": "model", error: "task_error"})
        coloured: TimeCourses = lines.opts(style)
        return coloured

    def _curves_by_sample(self, curves: xr.DataArray, limits: tuple[float, float]) -> list[Any]:
        """Thin curves (sample, model, time) in the colour of their sample, or their density, under their means."""
        values, time = curves.values, curves["time"].values
        samples: list[Any] = selecting.labels(curves, "sample") if "sample" in curves.coords else [None]
        palette = colours.sample_colours(len(samples))
        layers: list[Any] = []
        if values.shape[1] > 1 and values.shape[0] * values.shape[1] > MAX_CURVES:
            layers.append(_density_image(values.reshape(-1, time.size), time, limits, (self.width, self.height)))
        elif values.shape[1] > 1:
            for sample, colour in zip(curves, palette, strict=True):
                style = hv.Options(
                    "TimeCourses", color=colour, line_width=0.8, alpha=0.45, show_legend=False, backend="bokeh"
                )
                layers.append(_time_courses(sample, limits, {"model": "model"}).opts(style))
        means = curves.mean("model").values
        for sample, course, colour in zip(samples, means, palette, strict=True):
            label = "" if sample is None else f"{self.prefix}{sample}"
            curve = hv.Curve((time, course), "time", "response", label=label)
            layers.append(curve.opts(hv.opts.Curve(color=colour, line_width=2.5, backend="bokeh")))
        return layers


def robust_limits(values: NDArray[Any]) -> tuple[tuple[float, float], int]:
    """Limits of an axis for curves (..., time), with a margin, and the number of curves that reach beyond them.

    Curves whose maximum or minimum is an outlier among those of all curves are left out if there are others, and if
    the limits would be twice as wide with them.

    Examples
    --------
    >>> curves = np.outer([16.0, 18.0, 20.0, 15.0, 16.0, 1000.0], [0.0, 1.0])
    >>> robust_limits(curves)
    ((-1.0, 21.0), 1)
    """
    curves = values.reshape(-1, values.shape[-1]).astype(float)
    curves[~np.isfinite(curves)] = np.nan
    curves = curves[~np.isnan(curves).all(axis=1)]
    if not curves.size:
        return (0.0, 1.0), 0
    peaks = np.stack([np.nanmin(curves, axis=1), np.nanmax(curves, axis=1)])
    lower, upper = np.quantile(peaks, [0.25, 0.75], axis=1)
    reach = OUTLIER_FACTOR * (upper - lower)
    is_outlier = (peaks[0] < lower[0] - reach[0]) | (peaks[1] > upper[1] + reach[1])
    inliers = peaks[:, ~is_outlier]
    if np.ptp(peaks) <= 2 * np.ptp(inliers):
        is_outlier[:], inliers = False, peaks
    low, high = float(inliers.min()), float(inliers.max())
    margin = 0.05 * (high - low) or 0.5
    return (low - margin, high + margin), int(is_outlier.sum())


def _time_courses(curves: xr.DataArray, limits: tuple[float, float], labels: dict[Any, str]) -> TimeCourses:
    """One element for curves (model, time), with labels of the models for hovering."""
    curves = curves if "model" in curves.coords else curves.assign_coords(model=np.arange(curves.sizes["model"]))
    columns = {dim: [_plain(label) for label in selecting.labels(curves, name)] for dim, name in labels.items()}
    time = curves["time"].values
    # HoloViews looks for the range of each dimension, unless it is declared.
    kdims = (hv.Dimension("time", range=(float(time[0]), float(time[-1]))), hv.Dimension("response", range=limits))
    return TimeCourses.from_curves(time, curves.values, columns, kdims)


def _plain(label: Any) -> Any:
    """Number as it is, any other label as text."""
    return label if isinstance(label, int | float) else str(label)


def _density_image(
    values: NDArray[Any], time: NDArray[Any], limits: tuple[float, float], size: tuple[int, int]
) -> hv.Image:
    """Number of curves (curve, time) that pass through each pixel between two limits, for a panel of some size."""
    from holoviews.operation.datashader import rasterize

    x, y = elements.join_curves(time, values)
    line = hv.Curve((x, y), "time", "response")
    resolution = {"width": 2 * size[0], "height": 2 * size[1], "line_width": 2}
    ranges = {"x_range": (float(time[0]), float(time[-1])), "y_range": limits}
    counts = rasterize(line, aggregator="count", dynamic=False, **resolution, **ranges)
    style = {"cmap": colours.palette("Greys", provider="bokeh"), "clipping_colors": {"NaN": "transparent"}}
    return counts.opts(hv.opts.Image(alpha=0.6, cnorm="eq_hist", **style, backend="bokeh"))
