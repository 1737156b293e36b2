"""Models in the plane of their embedding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import holoviews as hv
import numpy as np

from flyxr import schema
from flyxr.errors import InputError, Problem
from flyxr.viz import colours, elements, selecting

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

MARKERS = ("circle", "triangle", "square", "diamond", "inverted_triangle", "hex", "star", "plus")
"""Markers of clusters; they repeat after the eighth."""

WITHOUT_CLUSTER = "x"
"""Marker of models without a cluster."""

N_STANDARD_DEVIATIONS = 2.0
"""Distance of the ellipses from the mean of their models."""


def embedding(clusters: xr.Dataset, *, height: int = 300, columns: int = 3) -> Any:
    """Draw the models in the plane of their embedding, with a panel for each cell type.

    The marker tells the cluster. The colour is the task error, from dark blue for the best model to yellow for the
    worst, the same in all panels, or the cluster if no task error is known. An ellipse around each cluster of at least
    three models lies two standard deviations from their mean.

    Parameters
    ----------
    clusters
        Result of :func:`flyxr.cluster`; its ``embedding`` has at least two components, of which the first two are
        drawn. Models that have no place in the embedding are left out, and the title counts them. A dim of length one
        counts as selected.
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
        If the data has no ``embedding`` or no ``cluster``, there are fewer than two components, no cell type or no
        model, or an argument is out of range.

    Examples
    --------
    >>> import xarray as xr
    >>> clusters = xr.Dataset(
    ...     {
    ...         "embedding": (("model", "component"), [[0.0, 0.1], [0.1, 0.0], [0.9, 1.0]]),
    ...         "cluster": ("model", [0, 0, 1]),
    ...     },
    ...     {"cell_type": "T4c", "model": [0, 1, 2]},
    ... )
    >>> [layer.label for layer in embedding(clusters)]
    ['cluster 0 (2 models)', 'cluster 1 (1 model)']
    """
    height, columns = selecting.positive_integers(height=height, columns=columns)
    data = _check(clusters).compute()
    elements.load_backend()
    is_known = bool(np.isfinite(data["task_error"].values.astype(float)).any())
    scale, n_types = colours.task_error_scale(data["task_error"]) if is_known else None, data.sizes["cell_type"]
    panels = [
        _panel(data.isel(cell_type=i), scale, height, has_bar=i == min(columns, n_types) - 1) for i in range(n_types)
    ]
    return panels[0] if n_types == 1 else elements.layout(panels, columns)


def _check(clusters: Any) -> xr.Dataset:
    """Return the embedding (cell_type, model, component) and the clusters, with all labels; raise if it is no such."""
    dataset = schema.as_dataset(clusters, "clusters")
    missing = [name for name in ("embedding", "cluster") if name not in dataset]
    if missing:
        text = f"expected clusters with 'embedding' and 'cluster', got variables {list(map(str, dataset.data_vars))}"
        raise InputError(Problem(text, "call fx.cluster(responses.fly.central())"))
    data, _ = schema.complete(dataset[["embedding", "cluster"]], "clusters")
    sizes, wanted = data["embedding"].sizes, ("cell_type", "model", "component")
    if set(sizes) != set(wanted) or sizes["component"] < 2 or 0 in sizes.values():
        text = f"expected an embedding of dims {wanted}, at least one of each and two components, got {dict(sizes)}"
        raise InputError(Problem(text, "call fx.cluster with n_components=2, and keep the dim 'model'"))
    return data.transpose(*wanted)


def _panel(data: xr.Dataset, scale: colours.ColourScale | None, height: int, has_bar: bool) -> hv.Overlay:
    """Points and ellipses of one cell type, of data (model) and (model, component)."""
    x, y = data["embedding"].values[:, :2].T
    cluster, is_placed = data["cluster"].values, np.isfinite(x) & np.isfinite(y)
    names = list(map(str, selecting.labels(data["cluster"], "model_name")))
    models = [str(label) for label in selecting.labels(data["cluster"], "model")]
    columns = {"model": models, "name": names, "task_error": data["task_error"].values.astype(float)}
    layers: list[Any] = []
    points: list[Any] = []
    for label in np.unique(cluster[is_placed]):
        chosen = np.flatnonzero(is_placed & (cluster == label))
        noun = "model" if chosen.size == 1 else "models"
        title = f"cluster {label} ({chosen.size} {noun})" if label >= 0 else f"no cluster ({chosen.size} {noun})"
        values = {name: np.asarray(column)[chosen] for name, column in columns.items()}
        colour = colours.sample_colours(int(label) + 1)[-1] if label >= 0 else colours.NO_CELL
        marker = MARKERS[int(label) % len(MARKERS)] if label >= 0 else WITHOUT_CLUSTER
        element = hv.Points(
            (x[chosen], y[chosen], *values.values(), np.full(chosen.size, label)),
            ["embedding 0", "embedding 1"],
            [*columns, "cluster"],
            label=title,
        )
        fill: dict[str, Any] = {"color": colour}
        if scale is not None:
            bar_label = colours.task_error_label(scale) if has_bar and not points else ""
            fill = {"color": "task_error", **elements.scale_style(scale, bar_label)}
        style = {"marker": marker, "size": 9, "line_color": "#333333", "tools": ["hover"], **fill}
        points.append(element.opts(hv.opts.Points(**style, backend="bokeh")))
        if label >= 0 and chosen.size >= 3:
            outline = hv.Curve(_ellipse(x[chosen], y[chosen]), "embedding 0", "embedding 1")
            layers.append(outline.opts(hv.opts.Curve(color=colour, line_dash="dashed", backend="bokeh")))
    title, n_absent = str(data["cell_type"].item()), int((~is_placed).sum())
    if n_absent:
        title += f" ({n_absent} of {is_placed.size} models not embedded)"
    options = {
        "title": title,
        "frame_width": height,
        "frame_height": height,
        "xlim": (-0.15, 1.15),
        "ylim": (-0.15, 1.15),
        "legend_position": "bottom",
        "legend_cols": 2,
    }
    return hv.Overlay([*layers, *points]).opts(hv.opts.Overlay(**options, backend="bokeh"))


def _ellipse(x: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Closed outline of the points at two standard deviations from the mean of some points.

    Examples
    --------
    >>> x, y = _ellipse(np.array([0.0, 2.0, 1.0, 1.0]), np.array([0.0, 0.0, 1.0, -1.0]))
    >>> float(x.max().round(3)), float(y.max().round(3))
    (2.633, 1.633)
    """
    angle = np.linspace(0, 2 * np.pi, 101)
    values, vectors = np.linalg.eigh(np.cov(x, y))
    axes = N_STANDARD_DEVIATIONS * vectors * np.sqrt(values.clip(0))
    outline = axes @ np.stack([np.cos(angle), np.sin(angle)])
    return outline[0] + x.mean(), outline[1] + y.mean()
