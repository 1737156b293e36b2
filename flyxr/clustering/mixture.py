"""UMAP and Gaussian mixtures of plain arrays: the groups of models for one cell type."""

from __future__ import annotations

import threading
import warnings
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from flyxr.clustering.restarts import fit_mixture

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

FEWEST_MODELS = 4
"""Least number of models to cluster."""
MODELS_PER_CLUSTER = 2
"""Least number of models per Gaussian; one Gaussian per model would always fit best."""
SAME_RESPONSE_DISTANCE = 1e-6
"""Distance below which models respond alike: a correlation distance, or relative to the responses in other metrics."""
METRICS = (
    "braycurtis",
    "canberra",
    "chebyshev",
    "correlation",
    "cosine",
    "dice",
    "euclidean",
    "hamming",
    "jaccard",
    "l1",
    "l2",
    "manhattan",
    "matching",
    "minkowski",
    "rogerstanimoto",
    "russellrao",
    "sokalsneath",
    "yule",
)
"""Metrics of vectors of any sign that both UMAP and scikit-learn know without further parameters."""

# Threads take turns: UMAP's parallel kernels are not thread-safe, thread-pool limits and warning filters are global to
# the process, and the mixtures hold the interpreter lock most of the time.
_umap_lock = threading.Lock()


class Settings(NamedTuple):
    """Settings of UMAP and the mixtures, as plain values for tasks and provenance."""

    n_neighbors: int
    min_dist: float
    spread: float
    metric: str
    n_epochs: int
    n_components: int
    n_clusters: tuple[int, ...]
    criterion: str
    n_init: int
    max_iter: int


class Clustered(NamedTuple):
    """Clusters of one cell type.

    ``embedding`` is (model, component), ``labels`` are (model,) and ``scores`` (n_clusters,). ``remark`` says why there
    are no clusters or a single one, and is empty otherwise.
    """

    embedding: NDArray[np.floating]
    labels: NDArray[np.int64]
    scores: NDArray[np.floating]
    remark: str


def cluster_responses(
    responses: NDArray[np.floating], task_error: NDArray[np.floating], settings: Settings, seed: int
) -> Clustered:
    """Cluster models by the responses (model, ...) of one cell type; ``n_clusters`` are ascending."""
    return cluster_features(flat_features(responses), task_error, settings, seed)


def flat_features(responses: NDArray[np.floating]) -> NDArray[np.float64]:
    """Flatten responses to (model, feature) and drop frames that are NaN in all models."""
    features = np.asarray(responses, dtype=float).reshape(len(responses), -1)
    return features[:, ~np.isnan(features).all(axis=0)]


def cluster_features(
    features: NDArray[np.float64], task_error: NDArray[np.floating], settings: Settings, seed: int
) -> Clustered:
    """Cluster models by the responses (model, feature) of one cell type."""
    with _umap_lock:
        return _cluster(features, task_error, settings, seed)


def _cluster(
    features: NDArray[np.float64], task_error: NDArray[np.floating], settings: Settings, seed: int
) -> Clustered:
    n_clusters = settings.n_clusters
    n_models = len(features)
    embedding = np.full((n_models, settings.n_components), np.nan)
    labels, scores = np.full(n_models, -1), np.full(len(n_clusters), np.nan)
    is_valid = models_that_respond(features)
    n_valid = int(is_valid.sum())
    if n_valid < max(FEWEST_MODELS, settings.n_components + 2):  # spectral initialisation needs as many
        remark = f"no clusters, since the cell responds in only {n_valid} of {n_models} models"
        return Clustered(embedding, labels, scores, remark)
    valid_features = features[is_valid]
    if _respond_alike(valid_features, settings.metric):
        embedding[is_valid], labels[is_valid] = 0.5, 0
        remark = f"one cluster, since {n_valid} models respond alike in the metric {settings.metric!r}"
        return Clustered(embedding, labels, scores, remark)
    embedding[is_valid] = _embed(valid_features, settings, seed)
    n_valid = int(np.isfinite(embedding).all(axis=1).sum())
    allowed = [number for number in n_clusters if number * MODELS_PER_CLUSTER <= n_valid]
    if not allowed:
        remark = f"no clusters, since {n_valid} models are too few for {n_clusters[0]} clusters of {MODELS_PER_CLUSTER}"
        return Clustered(embedding, labels, scores, remark)
    labels, allowed_scores = gaussian_mixture(
        embedding,
        allowed,
        criterion=settings.criterion,
        n_init=settings.n_init,
        max_iter=settings.max_iter,
        seed=seed,
    )
    scores[: len(allowed)] = allowed_scores
    return Clustered(embedding, sort_labels(labels, task_error), scores, "")


def models_that_respond(features: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Mask (model,) of the models whose response (model, feature) is finite and varies."""
    responds = np.zeros(len(features), dtype=bool)
    if features.size:
        is_finite = np.isfinite(features).all(axis=1)
        # As in flyvis, a response is constant if its standard deviation is 0 within 1e-8.
        responds[is_finite] = ~np.isclose(features[is_finite].std(axis=1), 0)
    return responds


def _respond_alike(features: NDArray[np.float64], metric: str) -> bool:
    """Whether all models respond alike, so that an embedding would only show the noise of its initialisation."""
    from sklearn.metrics import pairwise_distances

    scale = 1.0 if metric in ("correlation", "cosine") else max(float(np.abs(features).max()), 1.0)
    return bool((pairwise_distances(features[:1], features, metric=metric) < SAME_RESPONSE_DISTANCE * scale).all())


def _embed(features: NDArray[np.float64], settings: Settings, seed: int) -> NDArray[np.float64]:
    """UMAP embedding (model, component) with each axis scaled to 0 to 1; NaN for models disconnected in its graph."""
    with warnings.catch_warnings():
        # The import warns of missing tensorflow. The fit warns of disconnected models, which the result marks, and of
        # a random initialisation.
        warnings.simplefilter("ignore")
        from umap import UMAP
        from umap.utils import disconnected_vertices

        reducer = UMAP(
            n_neighbors=min(settings.n_neighbors, len(features) - 1),
            min_dist=settings.min_dist,
            spread=settings.spread,
            metric=settings.metric,
            n_epochs=settings.n_epochs,
            n_components=settings.n_components,
            random_state=seed,
            n_jobs=1,
        )
        embedding = np.asarray(reducer.fit_transform(features), dtype=float)
        embedding[disconnected_vertices(reducer)] = np.nan
    lowest, highest = np.nanmin(embedding, axis=0), np.nanmax(embedding, axis=0)
    scaled: NDArray[np.float64] = (embedding - lowest) / np.where(highest > lowest, highest - lowest, 1)
    return scaled


def gaussian_mixture(
    points: NDArray[np.floating],
    n_clusters: Iterable[int] = (2, 3, 4, 5),
    *,
    criterion: str = "bic",
    n_init: int = 100,
    max_iter: int = 1000,
    seed: int = 42,
) -> tuple[NDArray[np.int64], NDArray[np.floating]]:
    """Label points with the Gaussian mixture that has the lowest criterion.

    Parameters
    ----------
    points
        (point, coordinate); points with a NaN get no label.
    n_clusters
        Numbers of components to try, each once; numbers above the number of distinct points are skipped.
    criterion
        ``"bic"`` or ``"aic"``.
    n_init, max_iter, seed
        As in :func:`flyxr.clustering.cluster`.

    Returns
    -------
    labels : array (point,)
        0, 1, …; -1 for points with a NaN.
    scores : array
        The criterion for each of the ``n_clusters`` in ascending order, NaN for skipped numbers.

    Notes
    -----
    flyvis ``gaussian_mixture``, which labels points with a NaN -99999.

    Examples
    --------
    >>> points = np.array([[0.0, 0.1], [0.1, 0.0], [0.1, 0.1], [5.0, 5.1], [5.1, 5.0], [5.0, 5.0], [np.nan, 0.0]])
    >>> gaussian_mixture(points, [2], n_init=1)[0] >= 0
    array([ True,  True,  True,  True,  True,  True, False])
    """
    from threadpoolctl import threadpool_limits

    is_valid = np.isfinite(points).all(axis=1)
    labels, numbers = np.full(len(points), -1), sorted(set(n_clusters))
    scores = np.full(len(numbers), np.nan)
    valid_points = points[is_valid]
    n_distinct = len(np.unique(valid_points, axis=0))
    best_score = np.inf
    for i, number in enumerate(numbers):
        if number > n_distinct:
            continue
        with threadpool_limits(1):  # with so few points, threads of BLAS and OpenMP make the fit twenty times slower
            mixture = fit_mixture(valid_points, number, n_init=n_init, max_iter=max_iter, seed=seed)
        scores[i] = mixture.bic(valid_points) if criterion == "bic" else mixture.aic(valid_points)
        if scores[i] < best_score:
            best_score, labels[is_valid] = scores[i], mixture.predict(valid_points)
    return labels, scores


def sort_labels(labels: NDArray[np.integer], task_error: NDArray[np.floating]) -> NDArray[np.int64]:
    """Renumber clusters by mean task error, starting with 0 for the lowest; -1 stays.

    Clusters without any known task error come last, larger ones first.

    Notes
    -----
    flyvis ``task_error_sort_labels``, which loses a cluster if the labels have a gap; this function keeps all.

    Examples
    --------
    >>> sort_labels(np.array([5, 5, 2, -1, 0]), np.array([1.0, 2.0, 0.5, 9.0, 7.0]))
    array([ 1,  1,  0, -1,  2])
    """
    sort_keys = []
    for label in np.unique(labels[labels >= 0]):
        errors = task_error[labels == label]
        errors = errors[np.isfinite(errors)]
        sort_keys.append((errors.mean() if errors.size else np.inf, -(labels == label).sum(), label))
    renumbered = np.full(labels.shape, -1)
    for new_label, (_, _, label) in enumerate(sorted(sort_keys)):
        renumbered[labels == label] = new_label
    return renumbered


def without_clusters(features: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Draw as many models from one Gaussian with the same mean and covariance."""
    is_valid = np.isfinite(features).all(axis=1)
    if not is_valid.any():
        return features
    mean = features[is_valid].mean(axis=0)
    weights = np.random.default_rng(seed).normal(size=(len(features), int(is_valid.sum())))
    drawn: NDArray[np.float64] = mean + weights @ (features[is_valid] - mean) / np.sqrt(is_valid.sum())
    drawn[~is_valid] = np.nan
    return drawn


def rand_index(first: NDArray[np.int64], second: NDArray[np.int64]) -> float:
    """Adjusted Rand index over the models with a cluster in both; NaN if there are fewer than two."""
    from sklearn.metrics import adjusted_rand_score

    in_both = (first >= 0) & (second >= 0)
    return float(adjusted_rand_score(first[in_both], second[in_both])) if in_both.sum() > 1 else float("nan")
