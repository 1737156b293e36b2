"""Measures of cell types, model by model."""

from __future__ import annotations

import itertools
from typing import Any

import holoviews as hv
import numpy as np
import xarray as xr

from flyxr import schema, tuning
from flyxr.errors import InputError, Problem
from flyxr.viz import colours, elements, selecting

KNOWN_COLOURS = {1.0: "#d1495b", -1.0: "#2166ac", 0.0: "#8a8a8a"}
"""Colours of ON or selective, of OFF, and of not selective cell types."""

KNOWN = {
    "flash_response_index": ("polarity", {1.0: "known ON", -1.0: "known OFF"}),
    "direction_selectivity_index": ("direction_selective", {1.0: "known as selective", 0.0: "known as not selective"}),
}
"""Entry of :func:`flyxr.tuning.known_tuning` that tells how to colour the cell types of a measure."""

UNKNOWN = "not known"

MAX_PANELS = 12


def measures(data: xr.DataArray | xr.Dataset, *, width: int = 850, height: int = 220) -> Any:
    """Draw a measure over cell types: a point for each model, and the median of the models.

    The colour is what experiments know of the cell type, for a flash response index and a direction selectivity index.
    A preferred direction has a mark at the known direction, and no median, since 350 and 10 degrees have none.

    Parameters
    ----------
    data
        (cell_type) and any of ``model`` and conditions of the stimulus, such as ``intensity``; of a Dataset, its only
        measure is drawn. Dims of length one count as selected.
    width, height
        Size of a panel, screen pixels.

    Returns
    -------
    holoviews.Overlay or holoviews.Layout
        A panel, or a Layout of panels if there are several conditions.

    Raises
    ------
    ValueError
        If the data is no measure or has no cell types, a Dataset has several measures, there are more than 12
        conditions, or an argument is out of range.

    Examples
    --------
    >>> index = xr.DataArray(
    ...     [[0.5, -0.5], [0.7, -0.1]],
    ...     {"cell_type": ["Mi1", "Tm1"]},
    ...     ("model", "cell_type"),
    ...     name="flash_response_index",
    ... )
    >>> [layer.label for layer in measures(index)]
    ['known ON', 'known OFF', 'median']
    """
    width, height = selecting.positive_integers(width=width, height=height)
    array = _measure(data)
    extra = [str(dim) for dim in array.dims if dim not in ("model", "cell_type")]
    n_panels = int(np.prod([array.sizes[dim] for dim in extra], dtype=int))
    if n_panels > MAX_PANELS:
        sizes = ", ".join(f"{dim}: {array.sizes[dim]}" for dim in extra)
        raise InputError(
            Problem(f"expected at most {MAX_PANELS} conditions, got {n_panels} ({sizes})", "select some with .sel(...)")
        )
    array = array.compute()
    elements.load_backend()
    panels = []
    for positions in itertools.product(*(range(array.sizes[dim]) for dim in extra)):
        panel = array.isel(dict(zip(extra, positions, strict=True)))
        conditions = [f"{dim} {selecting.labels(panel, dim)[0]}" for dim in extra if dim in panel.coords]
        panels.append(_panel(panel, ", ".join(conditions), (width, height)))
    if not extra:
        return panels[0]
    return elements.layout(panels, 1)


def _measure(data: Any) -> xr.DataArray:
    """Return the measure (cell_type, …); raise if there is none or several."""
    names = {variable.name for variable in schema.KINDS["measures"].variables}
    if isinstance(data, xr.Dataset):
        present = [name for name in data.data_vars if name in names]
        if len(present) != 1:
            raise InputError(
                Problem(
                    f"expected one measure, got {present or list(map(str, data.data_vars))}",
                    "choose one with data[name], or compute it with fx.tuning",
                )
            )
        data = data[present[0]]
    if not isinstance(data, xr.DataArray) or "cell_type" not in data.coords or 0 in data.sizes.values():
        got = f"dims {dict(data.sizes)}" if isinstance(data, xr.DataArray) else type(data).__name__
        raise InputError(
            Problem(
                f"expected a measure with 'cell_type' and at least one value, got {got}", "compute one with fx.tuning"
            )
        )
    if "time" in data.dims or "column" in data.dims or data.dtype.kind not in "fiu":
        raise InputError(
            Problem(
                f"expected one real number for each model and cell type, got {data.dtype} with dims {dict(data.sizes)}",
                "draw time courses with fx.viz.traces, and values in columns with fx.viz.hexmap",
            )
        )
    data = data if "cell_type" in data.dims else data.expand_dims("cell_type")
    return selecting.squeeze(data, "cell_type", "model")


def _panel(array: xr.DataArray, title: str, size: tuple[int, int]) -> hv.Overlay:
    """Points of an array (cell_type) or (model, cell_type), coloured by what is known, with the median on top."""
    array = array if "model" in array.dims else array.expand_dims("model")
    array = array.transpose("cell_type", "model")
    types, name = list(map(str, selecting.labels(array, "cell_type"))), str(array.name or "value")
    models = [str(label) for label in selecting.labels(array, "model")] if "model" in array.coords else [""]
    models = models if len(models) == array.sizes["model"] else list(map(str, range(array.sizes["model"])))
    known = tuning.known_tuning()
    entry, words = KNOWN.get(name, ("", {}))
    states = _known(known, entry, types) if entry else np.full(len(types), np.nan)
    layers: list[Any] = []
    groups: list[tuple[str, str, Any]] = [
        (label, KNOWN_COLOURS[state], np.flatnonzero(states == state)) for state, label in words.items()
    ]
    unknown = np.flatnonzero(~np.isin(states, list(words)))
    groups.append((UNKNOWN if words else "models", colours.NO_CELL if words else colours.SAMPLES[0], unknown))
    values: Any = array.values
    for label, colour, chosen in groups:
        if not chosen.size:
            continue
        columns = (
            np.repeat(np.array(types, dtype=object)[chosen], len(models)),
            values[chosen].ravel(),
            np.tile(np.array(models, dtype=object), chosen.size),
        )
        points = hv.Scatter(columns, "cell_type", [name, "model"], label=label)
        style = {"color": colour, "size": 4, "alpha": 0.7, "jitter": 0.5, "tools": ["hover"]}
        layers.append(points.opts(hv.opts.Scatter(**style, backend="bokeh")))
    if name == "preferred_direction":
        layers.append(_marks(types, _known(known, name, types), name, "known direction"))
    elif len(models) > 1:
        layers.append(_marks(types, array.median("model").values, name, "median"))
    options = {
        "title": title,
        "frame_width": size[0],
        "frame_height": size[1],
        "xlabel": "cell type",
        "ylabel": selecting.value_label(array).replace("_", " "),
        "xrotation": 90,
        "legend_position": "right",
        "show_grid": True,
        "gridstyle": {"xgrid_line_color": None},
    }
    # The axis has the cell types in the order of the data, whichever group is drawn first.
    return hv.Overlay(layers).redim.values(cell_type=types).opts(hv.opts.Overlay(**options, backend="bokeh"))


def _known(known: xr.Dataset, name: str, types: list[str]) -> Any:
    """Known values of cell types, NaN for those that are not known."""
    return known[name].reindex(cell_type=np.array(types, dtype=object)).values


def _marks(types: list[str], values: Any, name: str, label: str) -> hv.Scatter:
    """A short horizontal line for each cell type."""
    marks = hv.Scatter((np.array(types, dtype=object), values), "cell_type", name, label=label)
    style = {"marker": "dash", "color": "#000000", "line_width": 2, "size": 11}
    return marks.opts(hv.opts.Scatter(**style, backend="bokeh"))
