"""Clusters of models by the responses of a cell type."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from flyxr import schema
from flyxr.arguments import Arguments
from flyxr.clustering import base
from flyxr.clustering.mixture import cluster_responses
from flyxr.errors import FlyxrWarning, Problem
from flyxr.selection import match_cell_types

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray


def cluster(
    central: xr.Dataset | xr.DataArray,
    cell_types: str | Iterable[str] | None = None,
    *,
    seed: int = 42,
    n_neighbors: int = 5,
    min_dist: float = 0.105,
    spread: float = 9.0,
    metric: str = "correlation",
    n_epochs: int = 1500,
    n_components: int = 2,
    n_clusters: int | Sequence[int] = (2, 3, 4, 5),
    criterion: str = "bic",
    n_init: int = 100,
    max_iter: int = 1000,
) -> xr.Dataset:
    """Cluster models by the responses of a cell type.

    Each cell type is clustered on its own. UMAP embeds the responses of each model, with all samples and frames
    concatenated. Gaussian mixtures are fitted to the embedding, scaled to 0 to 1, and the number of Gaussians is the
    one with the lowest criterion. The result is computed at once, in one dask task per cell type, with a progress bar
    after some seconds. Threads take turns; cell types run in parallel with a ``dask.distributed.Client`` or
    ``dask.config.set(scheduler="processes")``.

    Parameters
    ----------
    central
        ``response`` (model, sample, time, cell_type), as from ``responses.fly.central()``, to stimuli that drive all
        cells, such as natural movies. If there is a dim ``column``, the central column is used. A dim of which one
        label was selected has length one, and ``cell_type`` is then no dim of the result.
    cell_types
        Names or glob patterns; default: all.
    seed
        Seed of UMAP and of the mixtures, at least 0. The same seed gives the same labels on one machine, but not
        across machines: store the result.
    n_neighbors, min_dist, spread, metric, n_epochs, n_components
        Parameters of UMAP. ``metric`` is a function, or a name that scikit-learn knows, too. ``n_neighbors`` is at
        most the number of models minus one.
    n_clusters
        Numbers of Gaussians to try, or the one number to use. Numbers that leave fewer than two models per Gaussian
        are skipped.
    criterion
        ``"bic"`` or ``"aic"``.
    n_init, max_iter
        Random initialisations of each mixture, and the limit for iterations of each.

    Returns
    -------
    Dataset
        - ``embedding`` (cell_type, model, component), NaN for models without a cluster
        - ``cluster`` (cell_type, model): 0 for the cluster with the lowest mean task error, then 1, …; without task
          errors the largest cluster comes first. -1 for models whose response is constant, absent, or disconnected in
          UMAP's graph
        - ``score`` (cell_type, n_clusters), the criterion, NaN for numbers that were skipped

        The coordinates of ``model`` are kept, and the provenance has all arguments.

    Raises
    ------
    SchemaError
        If ``central`` is not responses.
    UnknownCellTypeError
        If ``cell_types`` match nothing.
    ValueError
        If there are fewer than 4 models, or an argument is out of range.

    Warns
    -----
    UserWarning
        If all models respond alike in a cell type, so that they are one cluster, or too few models respond.

    Notes
    -----
    Lappalainen et al. 2024, Methods, clustering of models; flyvis ``umap_embedding``, ``gaussian_mixture`` and
    ``task_error_sort_labels``, with their documented defaults. A mixture finds Gaussians in any embedding, and UMAP
    creates gaps in data that have none: check clusters with :func:`cluster_stability`.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> values = np.repeat(rng.normal(size=(2, 1, 40, 1)), 12, axis=0) + 0.1 * rng.normal(size=(24, 1, 40, 1))
    >>> central = xr.DataArray(values, dims=("model", "sample", "time", "cell_type"),
    ...                        coords={"model": range(24), "cell_type": ["T4c"], "task_error": ("model", range(24))})
    >>> clusters = cluster(central, n_epochs=200, n_init=2)
    >>> {label: len(models) for label, models in members(clusters, "T4c").items()}
    {0: 12, 1: 12}
    """
    array, squeeze = base.select_responses(central, cell_types)
    arguments = Arguments("cannot cluster")
    arguments.problems += base.model_problems(array)
    seed = arguments.seed(seed)
    settings = base.check_settings(
        arguments,
        {
            "n_neighbors": n_neighbors,
            "min_dist": min_dist,
            "spread": spread,
            "metric": metric,
            "n_epochs": n_epochs,
            "n_components": n_components,
            "n_clusters": n_clusters,
            "criterion": criterion,
            "n_init": n_init,
            "max_iter": max_iter,
        },
    )
    arguments.raise_problems()
    names = array["cell_type"].values.tolist()
    task_error = array["task_error"].values
    results = base.compute_by_type(array, [(cluster_responses, task_error, settings, seed)], "cluster")
    for name, result in zip(names, results, strict=True):
        if result.remark:
            warnings.warn(FlyxrWarning(f"{name}: {result.remark}"), stacklevel=2)
    dataset = xr.Dataset(
        {
            "embedding": (("cell_type", "model", "component"), np.stack([result.embedding for result in results])),
            "cluster": (("cell_type", "model"), np.stack([result.labels for result in results])),
            "score": (("cell_type", "n_clusters"), np.stack([result.scores for result in results])),
        },
        {**_model_coords(array), "cell_type": array["cell_type"], "n_clusters": list(settings.n_clusters)},
        central.attrs,
    )
    recorded = {"cell_types": names, "seed": seed, **settings._asdict()}
    return squeeze(schema.annotate(base.add_provenance(dataset, "cluster", recorded, central), "clusters"))


def members(clusters: xr.Dataset, cell_type: str) -> dict[int, NDArray[np.int64]]:
    """Models in each cluster of a cell type.

    Parameters
    ----------
    clusters
        Result of :func:`cluster`.
    cell_type
        Name of the cell type.

    Returns
    -------
    dict
        Labels of ``model`` for each cluster, the cluster with the best mean task error first. Models without a
        cluster are left out.

    Raises
    ------
    SchemaError
        If ``clusters`` is not a Dataset of clusters.
    UnknownCellTypeError
        If the cell type is missing; names the nearest.

    Examples
    --------
    >>> clusters = xr.Dataset({"cluster": (("cell_type", "model"), [[1, -1, 0, 1]])},
    ...                       {"cell_type": ["T4c"], "model": [0, 1, 2, 3]})
    >>> members(clusters, "T4c")
    {0: array([2]), 1: array([0, 3])}
    """
    if not (isinstance(clusters, xr.Dataset) and "cluster" in clusters and "model" in clusters["cluster"].dims):
        raise schema.SchemaError(
            Problem("expected clusters, with the variable 'cluster' (cell_type, model)", "call fx.cluster")
        )
    labels = clusters["cluster"]
    arguments = Arguments()
    names = arguments.names("cell_type", cell_type)
    arguments.raise_problems()
    available = np.atleast_1d(labels["cell_type"].values).tolist()
    if len(names) != 1 or names[0] not in available:
        match_cell_types(names, available, "cell_type")
        raise schema.SchemaError(f"expected the name of one cell type, not a pattern, got {cell_type!r}")
    if "cell_type" in labels.dims:
        labels = labels.isel(cell_type=available.index(names[0]))
    values, models = labels.values, labels["model"].values
    return {int(label): models[values == label] for label in np.unique(values[values >= 0])}


def _model_coords(array: xr.DataArray) -> Mapping[Any, xr.DataArray]:
    return {name: coord for name, coord in array.coords.items() if coord.dims == ("model",)}
