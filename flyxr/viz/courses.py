"""Time courses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import holoviews as hv
import numpy as np

from flyxr.errors import InputError, Problem
from flyxr.viz import colours, elements, selecting

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

MAX_CURVES = 500
"""Above this number of curves of single models, datashader draws them as an image."""

MAX_LEGEND_ENTRIES = 12


def traces(data: xr.DataArray | xr.Dataset, *, width: int = 320, height: int = 180, columns: int = 3) -> Any:
    """Draw time courses, with a panel for each cell type and a colour for each sample.

    Thin lines are models, the thick line is their mean. Above 500 curves in all, datashader draws the thin lines as an
    image, which is dark where many models agree. The means stay curves.

    Parameters
    ----------
    data
        (time) and any of ``model``, ``sample`` and ``cell_type``. Of a Dataset, the ``response`` is drawn. Dims of
        length one count as selected.
    width, height
        Size of a panel, screen pixels.
    columns
        Panels per row.

    Returns
    -------
    holoviews.Overlay or holoviews.Layout
        A panel, or a Layout of panels if there are several cell types.

    Raises
    ------
    ValueError
        If there is no ``time``, there is another dim, such as ``column``, or an argument is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> import xarray as xr
    >>> time = {"time": np.arange(10) / 100}
    >>> panel = traces(xr.DataArray(np.zeros((2, 10)), dims=("model", "time"), coords=time))
    >>> [type(layer).__name__ for layer in panel]
    ['NdOverlay', 'Curve']
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
    array = array.compute()
    elements.load_backend()
    is_shaded = array.size // array.sizes["time"] > MAX_CURVES
    style = {"frame_width": width, "frame_height": height, "xlabel": "time (s)", "ylabel": selecting.value_label(array)}
    if "cell_type" not in array.dims:
        return _panel(array, selecting.selected_cell_type(array), is_shaded, style, has_legend=True)
    names = list(map(str, selecting.labels(array, "cell_type")))
    panels = [
        _panel(array.isel(cell_type=i), name, is_shaded, style, has_legend=i == len(names) - 1)
        for i, name in enumerate(names)
    ]
    return hv.Layout(panels).cols(columns).opts(hv.opts.Layout(shared_axes=False, backend="bokeh"))


def _panel(data: xr.DataArray, title: str, is_shaded: bool, style: dict[str, Any], has_legend: bool) -> hv.Overlay:
    """Means above the curves of single models; the data is (time) and any of model and sample."""
    samples = selecting.labels(data, "sample") if "sample" in data.dims else [None]
    models = selecting.labels(data, "model") if "model" in data.dims else [None]
    data = data.expand_dims([dim for dim in ("model", "sample") if dim not in data.dims])
    values, time = data.transpose("sample", "model", "time").values, data["time"].values
    mean = data.mean("model").transpose("sample", "time").values
    palette = colours.sample_colours(len(samples))
    layers = []
    if len(models) > 1 and is_shaded:
        layers.append(_density_image(values.reshape(-1, time.size), time, style))
    elif len(models) > 1:
        layers.append(_thin_curves(values, time, samples, models, palette))
    for sample, course, colour in zip(samples, mean, palette, strict=True):
        label = "" if sample is None else f"sample {sample}"
        curve = hv.Curve((time, course), "time", "response", label=label)
        layers.append(curve.opts(hv.opts.Curve(color=colour, line_width=2.5, backend="bokeh")))
    show_legend = has_legend and 1 < len(samples) <= MAX_LEGEND_ENTRIES
    legend = {"show_legend": show_legend, "legend_position": "right"}
    return hv.Overlay(layers).opts(hv.opts.Overlay(title=title, **style, **legend, backend="bokeh"))


def _thin_curves(
    values: NDArray[Any], time: NDArray[Any], samples: list[Any], models: list[Any], palette: list[str]
) -> hv.NdOverlay:
    """A thin curve for each sample and model of values (sample, model, time)."""
    curves = {}
    for sample_index, sample in enumerate(samples):
        for model_index, model in enumerate(models):
            curve = hv.Curve((time, values[sample_index, model_index]), "time", "response")
            style = hv.opts.Curve(
                color=palette[sample_index], line_width=0.8, alpha=0.45, show_legend=False, backend="bokeh"
            )
            curves[0 if sample is None else elements.key(sample), elements.key(model)] = curve.opts(style)
    return hv.NdOverlay(curves, kdims=["sample", "model"], sort=False)


def _density_image(values: NDArray[Any], time: NDArray[Any], style: dict[str, Any]) -> hv.Image:
    """Number of curves (curve, time) that pass through each pixel."""
    from holoviews.operation.datashader import rasterize

    x, y = elements.join_curves(time, values)
    line = hv.Curve((x, y), "time", "response")
    size = {"width": 2 * style["frame_width"], "height": 2 * style["frame_height"], "line_width": 2}
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    limits = {
        "x_range": (float(time[0]), float(time[-1])),
        "y_range": (low, high) if low < high else (low - 0.5, low + 0.5),
    }
    counts = rasterize(line, aggregator="count", dynamic=False, **size, **limits)
    style = {"cmap": colours.palette("Greys", provider="bokeh"), "clipping_colors": {"NaN": "transparent"}}
    return counts.opts(hv.opts.Image(alpha=0.6, cnorm="eq_hist", **style, backend="bokeh"))
