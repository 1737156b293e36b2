"""Stability of clusters of models across seeds and left-out models."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from flyxr import schema
from flyxr.arguments import Arguments
from flyxr.clustering import base
from flyxr.clustering.mixture import (
    FEWEST_MODELS,
    Settings,
    cluster_features,
    flat_features,
    rand_index,
    without_clusters,
)
from flyxr.clustering.models import cluster
from flyxr.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray


def cluster_stability(
    central: xr.Dataset | xr.DataArray,
    cell_types: str | Iterable[str] | None = None,
    *,
    seeds: Sequence[int] = (42, 43, 44, 45, 46),
    leave_out: float = 0.2,
    n_subsets: int = 5,
    **options: Any,
) -> xr.Dataset:
    """Measure how stable clusters of models are across seeds and left-out models.

    Parameters
    ----------
    central, cell_types
        As in :func:`cluster`.
    seeds
        Seeds to cluster with, at least two; all pairs of clusterings are compared.
    leave_out
        Fraction of the models that is left out at random, from 0 to below 1. The others are clustered with the first
        seed and compared with the clusters of all models.
    n_subsets
        Number of random subsets.
    **options
        Other arguments of :func:`cluster`, such as ``n_neighbors``.

    Returns
    -------
    Dataset
        ``adjusted_rand_index`` (cell_type, data, change), the mean over comparisons, and ``adjusted_rand_index_std``;
        1 for identical clusters, about 0 for random labels. ``data`` is ``"responses"``, or ``"no_clusters"``: as many
        models drawn from one Gaussian with the mean and covariance of the responses, which has no clusters.
        ``change`` is ``"seed"`` or ``"left_out"``. Trust clusters that are stable, and more stable than those found in
        the data without clusters.

    Raises
    ------
    SchemaError
        If ``central`` is not responses.
    UnknownCellTypeError
        If ``cell_types`` match nothing.
    ValueError
        If an argument is out of range, or fewer than 4 models remain.

    Notes
    -----
    Adjusted Rand index: Hubert and Arabie 1985, Journal of Classification 2, 193-218; ``sklearn.metrics``. A
    comparison ignores models that lack a cluster in either clustering. The function takes
    2 * (len(seeds) + n_subsets) times as long as :func:`cluster`.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> values = np.repeat(rng.normal(size=(2, 1, 40, 1)), 12, axis=0) + 0.1 * rng.normal(size=(24, 1, 40, 1))
    >>> central = xr.DataArray(values, dims=("model", "sample", "time", "cell_type"),
    ...                        coords={"model": range(24), "cell_type": ["T4c"]})
    >>> stability = cluster_stability(central, seeds=(0, 1), n_subsets=1, n_epochs=200, n_init=2)
    >>> stability.adjusted_rand_index.sel(cell_type="T4c", data="responses").values
    array([1., 1.])
    """
    defaults = {name: inspect.signature(cluster).parameters[name].default for name in Settings._fields}
    unknown = set(options) - set(defaults)
    if unknown:
        raise InputError(f"expected options among {sorted(defaults)}, got {sorted(unknown)}")
    array, squeeze = base.select_responses(central, cell_types)
    names = array["cell_type"].values.tolist()
    n_models = array.sizes["model"]
    arguments = Arguments("cannot cluster")
    arguments.problems += base.model_problems(array)
    settings = base.check_settings(arguments, {**defaults, **options})
    seeds = base.check_integers(arguments, "seeds", seeds, least=0, example="(42, 43)")
    n_subsets = arguments.integer("n_subsets", n_subsets, least=1)
    leave_out = arguments.number("leave_out", leave_out, least=0, most=1)
    arguments.raise_problems()
    n_remaining = n_models - round(leave_out * n_models)
    if len(set(seeds)) < 2 or n_remaining < FEWEST_MODELS:
        raise InputError(
            f"expected at least two seeds and {FEWEST_MODELS} remaining models, got "
            f"seeds={seeds} and leave_out={leave_out:g} of {n_models} models"
        )
    rng = np.random.default_rng(seeds[0])
    subsets = [np.sort(rng.choice(n_models, n_remaining, replace=False)) for _ in range(n_subsets)]
    runs: list[tuple[int, NDArray[np.int64] | None]] = [(seed, None) for seed in seeds]
    runs += [(seeds[0], subset) for subset in subsets]
    tasks = [
        (_cluster_labels, settings, seed, subset, seeds[0] if is_null else None)
        for is_null in (False, True)
        for seed, subset in runs
    ]
    labels = np.reshape(base.compute_by_type(array, tasks, "cluster_stability"), (len(names), 2, len(runs), n_models))
    mean, std = np.empty((2, len(names), 2, 2))
    for index in np.ndindex(len(names), 2):
        seed_labels, subset_labels = labels[index][: len(seeds)], labels[index][len(seeds) :]
        pairs = [(i, j) for i in range(len(seeds)) for j in range(i)]
        indices_by_change = (
            [rand_index(seed_labels[i], seed_labels[j]) for i, j in pairs],
            [rand_index(seed_labels[0], labels_of_subset) for labels_of_subset in subset_labels],
        )
        for change, indices in enumerate(indices_by_change):
            finite = np.array([value for value in indices if np.isfinite(value)])
            mean[(*index, change)] = finite.mean() if finite.size else np.nan
            std[(*index, change)] = finite.std() if finite.size else np.nan
    dims = ("cell_type", "data", "change")
    dataset = xr.Dataset(
        {
            "adjusted_rand_index": (dims, mean, {"long_name": "adjusted Rand index between two clusterings"}),
            "adjusted_rand_index_std": (dims, std, {"long_name": "standard deviation over comparisons"}),
        },
        {
            "cell_type": array["cell_type"],
            "data": np.array(["responses", "no_clusters"], dtype=object),
            "change": np.array(["seed", "left_out"], dtype=object),
        },
        {name: value for name, value in central.attrs.items() if name != schema.KIND_ATTR},
    )
    recorded = {"cell_types": names, "seeds": seeds, "leave_out": leave_out, "n_subsets": n_subsets}
    return squeeze(base.add_provenance(dataset, "cluster_stability", {**recorded, **settings._asdict()}, central))


def _cluster_labels(
    responses: NDArray[np.floating],
    settings: Settings,
    seed: int,
    subset: NDArray[np.int64] | None,
    null_seed: int | None,
) -> NDArray[np.int64]:
    """Labels (model,) of one run of :func:`cluster_stability`; -1 for models that are left out."""
    features = flat_features(responses)
    if null_seed is not None:
        features = without_clusters(features, null_seed)
    models = np.arange(len(features)) if subset is None else subset
    labels = np.full(len(features), -1)
    task_error = np.full(len(models), np.nan)
    labels[models] = cluster_features(features[models], task_error, settings, seed).labels
    return labels
