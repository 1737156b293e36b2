"""Time courses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import holoviews as hv
import numpy as np

from flyxr.errors import InputError, Problem
from flyxr.viz import base

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

MOST_CURVES = 500
"""More single curves than this are drawn as an image by datashader."""

MOST_LEGEND = 12


def traces(data: xr.DataArray | xr.Dataset, *, width: int = 320, height: int = 180, columns: int = 3) -> Any:
    """Draw time courses: a panel for each cell type, a colour for each sample, thin models under a thick mean.

    With more than 500 single curves in all, the thin ones are counted into an image by datashader, dark where many
    models agree; the means stay curves.

    Parameters
    ----------
    data
        (time) and any of ``model``, ``sample`` and ``cell_type``. A Dataset stands for its ``response``. Dims of
        length one count as selected.
    width, height
        Size of a panel, screen pixel.
    columns
        Panels in a row.

    Returns
    -------
    holoviews.Overlay or holoviews.Layout
        One panel, or a Layout of panels if there are several cell types.

    Raises
    ------
    ValueError
        If there is no ``time``, or a dim other than these, such as ``column``.

    Examples
    --------
    >>> import numpy as np
    >>> import xarray as xr
    >>> time = {"time": np.arange(10) / 100}
    >>> panel = traces(xr.DataArray(np.zeros((2, 10)), dims=("model", "time"), coords=time))
    >>> [type(layer).__name__ for layer in panel]
    ['NdOverlay', 'Curve']
    """
    array = base.variable(data, "time")
    array = array.squeeze(base.single_dims(array, "time"))
    extra = [str(dim) for dim in array.dims if dim not in ("model", "sample", "cell_type", "time")]
    if extra or "time" not in array.coords:
        raise InputError(
            Problem(
                "expected dim 'time' with a coordinate in s, and none but model, sample and cell_type besides, got "
                f"{dict(array.sizes)}",
                f"select one {' and one '.join(extra) or 'time axis'}, the central column with "
                "responses.fly.central() or .isel(column=...)",
            )
        )
    array = array.compute()
    base.load_backend()
    shaded = array.size // array.sizes["time"] > MOST_CURVES
    style = {"frame_width": width, "frame_height": height, "xlabel": "time (s)", "ylabel": base.label_of(array)}
    if "cell_type" not in array.dims:
        return _panel(array, base.selected(array), shaded, style, legend=True)
    names = array["cell_type"].values.tolist()
    panels = [_panel(array.sel(cell_type=name), name, shaded, style, legend=name == names[-1]) for name in names]
    return hv.Layout(panels).cols(columns).opts(hv.opts.Layout(shared_axes=False, backend="bokeh"))


def _panel(data: xr.DataArray, title: str, shaded: bool, style: dict[str, Any], legend: bool) -> hv.Overlay:
    """Singles below means, of (time) and any of model and sample."""
    samples = data["sample"].values.tolist() if "sample" in data.dims else [None]
    models = data["model"].values.tolist() if "model" in data.dims else [None]
    data = data.expand_dims([dim for dim in ("model", "sample") if dim not in data.dims])
    values, time = data.transpose("sample", "model", "time").values, data["time"].values
    mean = data.mean("model").transpose("sample", "time").values
    palette = base.sample_colours(len(samples))
    layers = []
    if len(models) > 1 and shaded:
        layers.append(_shaded(values.reshape(-1, time.size), time, style))
    elif len(models) > 1:
        layers.append(_singles(values, time, samples, models, palette))
    for sample, course, colour in zip(samples, mean, palette, strict=True):
        label = "" if sample is None else f"sample {sample}"
        curve = hv.Curve((time, course), "time", "response", label=label)
        layers.append(curve.opts(hv.opts.Curve(color=colour, line_width=2.5, backend="bokeh")))
    legend = legend and 1 < len(samples) <= MOST_LEGEND
    more = {"title": title, "show_legend": legend, "legend_position": "right"}
    return hv.Overlay(layers).opts(hv.opts.Overlay(**style, **more, backend="bokeh"))


def _singles(
    values: NDArray[Any], time: NDArray[Any], samples: list[Any], models: list[Any], palette: list[str]
) -> hv.NdOverlay:
    """One thin curve for each sample and model, of (sample, model, time)."""
    curves = {}
    for s, sample in enumerate(samples):
        for m, model in enumerate(models):
            curve = hv.Curve((time, values[s, m]), "time", "response")
            thin = hv.opts.Curve(color=palette[s], line_width=0.8, alpha=0.45, show_legend=False, backend="bokeh")
            curves[0 if sample is None else sample, model] = curve.opts(thin)
    return hv.NdOverlay(curves, kdims=["sample", "model"], sort=False)


def _shaded(values: NDArray[Any], time: NDArray[Any], style: dict[str, Any]) -> hv.Image:
    """How many of the curves (curve, time) pass through each pixel."""
    from holoviews.operation.datashader import rasterize

    x, y = base.joined(time, values)
    line = hv.Curve((x, y), "time", "response")
    size = {"width": 2 * style["frame_width"], "height": 2 * style["frame_height"], "line_width": 2}
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    limits = {
        "x_range": (float(time[0]), float(time[-1])),
        "y_range": (low, high) if low < high else (low - 0.5, low + 0.5),
    }
    counts = rasterize(line, aggregator="count", dynamic=False, **size, **limits)
    return counts.opts(
        hv.opts.Image(cmap="Greys", alpha=0.6, cnorm="eq_hist", clipping_colors={"NaN": "transparent"}, backend="bokeh")
    )
