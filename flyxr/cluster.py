"""Models grouped by the responses of a cell type with UMAP and Gaussian mixtures, and how far to believe the groups."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from flyxr import identity, provenance, schema
from flyxr.errors import FlyxrWarning, InputError, Problem, raise_problems
from flyxr.mixture import (
    FEWEST_MODELS,
    Settings,
    cluster_features,
    cluster_responses,
    flat_features,
    rand_index,
    without_clusters,
)
from flyxr.selection import central as central_column
from flyxr.selection import match_cell_types

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

_PROGRESS_AFTER = 3.0  # s


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
    n_clusters: Sequence[int] = (2, 3, 4, 5),
    criterion: str = "bic",
    n_init: int = 100,
    max_iter: int = 1000,
) -> xr.Dataset:
    """Cluster models by the responses of a cell type.

    For each cell type by itself: the responses of each model, all samples and frames one after another, are embedded
    with UMAP; the embedding, scaled to 0 to 1, is described by Gaussian mixtures; their number is the one with the
    lowest criterion. Computed at once, one dask task a cell type, with a progress bar after some seconds. Threads take
    turns; under a ``dask.distributed.Client`` or ``dask.config.set(scheduler="processes")`` cell types run in parallel.

    Parameters
    ----------
    central
        ``response`` (model, sample, time, cell_type), as ``responses.fly.central()`` gives it, to stimuli that drive
        all cells, such as natural movies. If ``column`` is there, the central one is taken.
    cell_types
        Names or glob patterns; without it all.
    seed
        Of UMAP and of the mixtures, from 0 up. The same seed gives the same labels on one machine, not on all: store
        the result.
    n_neighbors, min_dist, spread, metric, n_epochs, n_components
        Parameters of UMAP. ``n_neighbors`` is cut to what few models allow.
    n_clusters
        Numbers of Gaussians to try. Those are left out that would have fewer than two models each.
    criterion
        ``"bic"`` or ``"aic"``.
    n_init, max_iter
        Random initialisations of each mixture, and iterations of each at most.

    Returns
    -------
    Dataset
        - ``embedding`` (cell_type, model, component), NaN for models without a cluster
        - ``cluster`` (cell_type, model), 0 the cluster of lowest mean task error, then 1, …; without task errors the
          largest cluster first. -1 for models whose response is constant, absent or disconnected in UMAP's graph
        - ``score`` (cell_type, n_clusters), the criterion, NaN where it was not tried

        with ``model_name`` and ``task_error`` beside them and all arguments in the provenance.

    Raises
    ------
    SchemaError
        If these are no responses.
    UnknownCellTypeError
        If ``cell_types`` match nothing.
    ValueError
        If there are fewer than 4 models, or an argument is out of range.

    Warns
    -----
    UserWarning
        If models of a cell type respond alike, so that they are one cluster, or too few of them respond.

    Notes
    -----
    Lappalainen et al. 2024, Methods, clustering of models; flyvis ``umap_embedding``, ``gaussian_mixture`` and
    ``task_error_sort_labels``, and their documented defaults. A mixture finds Gaussians in any embedding, and UMAP
    tears gaps into data that have none: see :func:`cluster_stability` before believing in a cluster.

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
    settings = Settings(
        n_neighbors,
        min_dist,
        spread,
        metric,
        n_epochs,
        n_components,
        _ascending(n_clusters),
        criterion,
        n_init,
        max_iter,
    )
    array = _checked(central, cell_types, settings, [seed])
    names = array["cell_type"].values.tolist()
    task_error = array["task_error"].values
    results = _compute(
        [(cluster_responses, features, task_error, settings, seed) for features in _by_type(array)], "cluster"
    )
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
    arguments = {"cell_types": names, "seed": seed, **settings._asdict()}
    return schema.annotate(_noted(dataset, "cluster", arguments, central), "clusters")


def members(clusters: xr.Dataset, cell_type: str) -> dict[int, NDArray[np.int64]]:
    """Models in each cluster of a cell type.

    Parameters
    ----------
    clusters
        What :func:`cluster` gave.
    cell_type
        Name of the cell type.

    Returns
    -------
    dict
        Labels of ``model`` for each cluster, that of the best mean task error first. Models without a cluster are
        left out.

    Raises
    ------
    SchemaError
        If these are no clusters.
    UnknownCellTypeError
        If the cell type is not there; names the nearest.

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
    available = np.atleast_1d(labels["cell_type"].values).tolist()
    if cell_type not in available:
        match_cell_types([cell_type], available)
        raise schema.SchemaError(f"expected the name of one cell type, got the pattern {cell_type!r}")
    if "cell_type" in labels.dims:
        labels = labels.isel(cell_type=available.index(cell_type))
    values, models = labels.values, labels["model"].values
    return {int(label): models[values == label] for label in np.unique(values[values >= 0])}


def cluster_stability(
    central: xr.Dataset | xr.DataArray,
    cell_types: str | Iterable[str] | None = None,
    *,
    seeds: Sequence[int] = (42, 43, 44, 45, 46),
    leave_out: float = 0.2,
    n_subsets: int = 5,
    **options: Any,
) -> xr.Dataset:
    """How far the clusters of models survive other seeds and left-out models.

    Parameters
    ----------
    central, cell_types
        As in :func:`cluster`.
    seeds
        Seeds to cluster with, two at least; the clusters are compared pair by pair.
    leave_out
        Part of the models that is left out at random, 0 to below 1; what remains is clustered with the first seed and
        compared with the clusters of all models.
    n_subsets
        How often models are left out.
    **options
        Other arguments of :func:`cluster`, such as ``n_neighbors``.

    Returns
    -------
    Dataset
        ``adjusted_rand_index`` (cell_type, data, change), the mean over comparisons, and ``adjusted_rand_index_std``;
        1 for clusters that agree wholly, about 0 for labels drawn at random. ``data`` is ``"responses"``, or
        ``"no_clusters"``: as many models drawn from one Gaussian with the mean and covariance of the responses, which
        have no clusters. ``change`` is ``"seed"`` or ``"left_out"``. Clusters are to be believed if they are stable,
        and more stable than those found where there are none.

    Raises
    ------
    SchemaError
        If these are no responses.
    UnknownCellTypeError
        If ``cell_types`` match nothing.
    ValueError
        If an argument is out of range, or so many models are left out that fewer than 4 remain.

    Notes
    -----
    Adjusted Rand index: Hubert and Arabie 1985, Journal of Classification 2, 193-218; ``sklearn.metrics``. Models
    without a cluster in one of the two are left out of a comparison. Takes 2 * (len(seeds) + n_subsets) times as long
    as :func:`cluster`.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> values = np.repeat(rng.normal(size=(2, 1, 40, 1)), 12, axis=0) + 0.1 * rng.normal(size=(24, 1, 40, 1))
    >>> central = xr.DataArray(values, dims=("model", "sample", "time", "cell_type"),
    ...                        coords={"model": range(24), "cell_type": ["T4c"]})
    >>> found = cluster_stability(central, seeds=(0, 1), n_subsets=1, n_epochs=200, n_init=2)
    >>> found.adjusted_rand_index.sel(cell_type="T4c", data="responses").values
    array([1., 1.])
    """
    import inspect

    defaults = {name: inspect.signature(cluster).parameters[name].default for name in Settings._fields}
    unknown = set(options) - set(defaults)
    if unknown:
        raise InputError(f"expected options among {sorted(defaults)}, got {sorted(unknown)}")
    settings = Settings(**{**defaults, **options})
    settings = settings._replace(n_clusters=_ascending(settings.n_clusters))
    array = _checked(central, cell_types, settings, list(seeds))
    names = array["cell_type"].values.tolist()
    n_models = array.sizes["model"]
    n_kept = n_models - round(leave_out * n_models)
    if len(set(seeds)) < 2 or n_subsets < 1 or not 0 <= leave_out < 1 or n_kept < FEWEST_MODELS:
        raise InputError(
            f"expected two seeds or more, one subset or more, and {FEWEST_MODELS} models or more that are kept, "
            f"got seeds={list(seeds)}, n_subsets={n_subsets}, leave_out={leave_out} of {n_models} models"
        )
    rng = np.random.default_rng(seeds[0])
    kept = [np.sort(rng.choice(n_models, n_kept, replace=False)) for _ in range(n_subsets)]
    runs: list[tuple[int, NDArray[np.int64] | None]] = [(seed, None) for seed in seeds]
    runs += [(seeds[0], subset) for subset in kept]
    tasks = [
        (_labels_of, features, settings, seed, subset, seeds[0] if null else None)
        for features in _by_type(array)
        for null in (False, True)
        for seed, subset in runs
    ]
    labels = np.reshape(_compute(tasks, "cluster_stability"), (len(names), 2, len(runs), n_models))
    mean, spread = np.empty((2, len(names), 2, 2))
    for index in np.ndindex(len(names), 2):
        of_seeds, of_subsets = labels[index][: len(seeds)], labels[index][len(seeds) :]
        pairs = [(i, j) for i in range(len(seeds)) for j in range(i)]
        by_change = (
            [rand_index(of_seeds[i], of_seeds[j]) for i, j in pairs],
            [rand_index(of_seeds[0], subset) for subset in of_subsets],
        )
        for change, found in enumerate(by_change):
            known = np.array([value for value in found if np.isfinite(value)])
            mean[(*index, change)] = known.mean() if known.size else np.nan
            spread[(*index, change)] = known.std() if known.size else np.nan
    dims = ("cell_type", "data", "change")
    text = {"long_name": "adjusted Rand index between two clusterings"}
    dataset = xr.Dataset(
        {
            "adjusted_rand_index": (dims, mean, text),
            "adjusted_rand_index_std": (dims, spread, {"long_name": "standard deviation over comparisons"}),
        },
        {
            "cell_type": array["cell_type"],
            "data": np.array(["responses", "no_clusters"], dtype=object),
            "change": np.array(["seed", "left_out"], dtype=object),
        },
        {name: value for name, value in central.attrs.items() if name != schema.KIND_ATTR},
    )
    arguments = {"cell_types": names, "seeds": list(seeds), "leave_out": leave_out, "n_subsets": n_subsets}
    return _noted(dataset, "cluster_stability", {**arguments, **settings._asdict()}, central)


def _ascending(n_clusters: Iterable[int]) -> tuple[int, ...]:
    return tuple(sorted(set(n_clusters)))


def _checked(
    central: xr.Dataset | xr.DataArray, cell_types: str | Iterable[str] | None, settings: Settings, seeds: list[int]
) -> xr.DataArray:
    """Responses of the cell types, with the dims in order, once everything that is asked for is possible."""
    if isinstance(central, xr.Dataset) and "response" in central:
        array = central["response"]
    elif isinstance(central, xr.DataArray):
        array = central
    else:
        raise schema.SchemaError(
            Problem(f"expected responses of central cells, got {type(central).__name__}", "call fx.simulate")
        )
    if "column" in array.dims:
        array = central_column(array)
    dims = ("cell_type", "model", "sample", "time")
    if "cell_type" in array.coords and "cell_type" not in array.dims:
        array = array.expand_dims("cell_type")
    missing = [dim for dim in dims if dim not in array.dims]
    if missing:
        raise schema.SchemaError(
            Problem(
                f"expected responses with the dims {', '.join(dims)}, got {tuple(map(str, array.dims))}",
                f"keep {missing}",
            )
        )
    if cell_types is not None:
        available = array["cell_type"].values.tolist()
        array = array.isel(cell_type=[available.index(name) for name in match_cell_types(cell_types, available)])
    problems = []
    if array.sizes["model"] < FEWEST_MODELS:
        problems.append(
            f"expected at least {FEWEST_MODELS} models, got {array.sizes['model']}: clusters of fewer mean nothing"
        )
    tried = settings.n_clusters
    if not tried or min(tried) < 1 or any(int(number) != number for number in tried):
        problems.append(f"expected n_clusters as whole numbers from 1 up, got {list(tried)}")
    if settings.criterion not in ("bic", "aic"):
        problems.append(f"expected criterion 'bic' or 'aic', got {settings.criterion!r}")
    for name in ("n_components", "n_epochs", "n_init", "max_iter"):
        if getattr(settings, name) < 1:
            problems.append(f"expected {name} from 1 up, got {getattr(settings, name)}")
    if settings.n_neighbors < 2:
        problems.append(f"expected n_neighbors from 2 up, got {settings.n_neighbors}")
    if not 0 <= settings.min_dist <= settings.spread:
        problems.append(f"expected 0 <= min_dist <= spread, got {settings.min_dist} and {settings.spread}")
    if min(seeds, default=0) < 0:
        problems.append(f"expected seeds from 0 up, got {seeds}")
    raise_problems(InputError, "cannot cluster", problems)
    if "task_error" not in array.coords:
        array = array.assign_coords(task_error=("model", np.full(array.sizes["model"], np.nan)))
    scalars = [name for name in array.coords if name not in dims and not array[name].dims]
    return array.drop_vars(scalars).transpose(*dims)


def _by_type(array: xr.DataArray) -> list[Any]:
    """Responses (model, sample, time) of each cell type, lazy if they are."""
    return [array.data[i] for i in range(array.sizes["cell_type"])]


def _model_coords(array: xr.DataArray) -> Mapping[Any, xr.DataArray]:
    coords = {name: coord for name, coord in array.coords.items() if coord.dims == ("model",)}
    if "model" not in coords:
        coords["model"] = xr.DataArray(np.arange(array.sizes["model"]), dims="model")
    return coords


def _noted(
    dataset: xr.Dataset, operation: str, arguments: Mapping[str, Any], central: xr.Dataset | xr.DataArray
) -> xr.Dataset:
    source = central if isinstance(central, xr.Dataset) else central.to_dataset(name="response")
    lazy = identity.token(source["response"])
    hashes = {} if lazy else {"responses": identity.content_hash(source, ["response"])}
    packages = ("numpy", "xarray", "scikit-learn", "umap-learn")
    tokens = {"responses": lazy} if lazy else None
    return provenance.add(dataset, operation, arguments, hashes=hashes, tokens=tokens, packages=packages)


def _compute(tasks: Sequence[tuple[Callable[..., Any], *tuple[Any, ...]]], name: str) -> list[Any]:
    """Results of tasks, each one dask task, in parallel where there are several."""
    import dask.base
    from dask.delayed import delayed
    from tqdm.dask import TqdmCallback

    lazy = [delayed(function, pure=False)(*arguments) for function, *arguments in tasks]
    with TqdmCallback(desc=name, delay=_PROGRESS_AFTER, unit="task"):
        return list(dask.base.compute(*lazy))


def _labels_of(
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
    chosen = np.arange(len(features)) if subset is None else subset
    labels = np.full(len(features), -1)
    unknown = np.full(len(chosen), np.nan)
    labels[chosen] = cluster_features(features[chosen], unknown, settings, seed).labels
    return labels
