"""UMAP and Gaussian mixtures of plain arrays: the groups of models for one cell type."""

from __future__ import annotations

import threading
import warnings
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

FEWEST_MODELS = 4
"""Models that are clustered, at least."""
MODELS_PER_CLUSTER = 2
"""Models for each Gaussian, at least: one Gaussian a model would always fit best."""
_SAME = 1e-6  # correlation distance, or relative to the responses in other metrics

# UMAP's parallel kernels must not run in two threads at once, limits of thread pools and filters of warnings belong to
# the process, and the mixtures hold the interpreter's lock almost all the time: threads take turns.
_one_at_a_time = threading.Lock()


class Settings(NamedTuple):
    """How a cell type is clustered; plain values, for tasks and provenance."""

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
    """One cell type: embedding (model, component), labels (model,), scores (n_clusters,), and why there are none."""

    embedding: NDArray[np.floating]
    labels: NDArray[np.int64]
    scores: NDArray[np.floating]
    remark: str


def cluster_responses(
    responses: NDArray[np.floating], task_error: NDArray[np.floating], settings: Settings, seed: int
) -> Clustered:
    """Clusters of one cell type, from its responses (model, ...); ``n_clusters`` ascend."""
    return cluster_features(flat_features(responses), task_error, settings, seed)


def flat_features(responses: NDArray[np.floating]) -> NDArray[np.float64]:
    """Responses (model, feature) without the frames that are NaN in all models."""
    features = np.asarray(responses, dtype=float).reshape(len(responses), -1)
    return features[:, ~np.isnan(features).all(axis=0)]


def cluster_features(
    features: NDArray[np.float64], task_error: NDArray[np.floating], settings: Settings, seed: int
) -> Clustered:
    """Clusters of one cell type, from its responses (model, feature)."""
    with _one_at_a_time:
        return _cluster(features, task_error, settings, seed)


def _cluster(
    features: NDArray[np.float64], task_error: NDArray[np.floating], settings: Settings, seed: int
) -> Clustered:
    tried = settings.n_clusters
    n_models = len(features)
    embedding = np.full((n_models, settings.n_components), np.nan)
    labels, scores = np.full(n_models, -1), np.full(len(tried), np.nan)
    valid = _responding(features)
    n_valid = int(valid.sum())
    if n_valid < max(FEWEST_MODELS, settings.n_components + 2):  # fewer have no spectral initialisation
        remark = f"no clusters, since the cell responds in {n_valid} of {n_models} models only"
        return Clustered(embedding, labels, scores, remark)
    kept = features[valid]
    if _alike(kept, settings.metric):
        embedding[valid], labels[valid] = 0.5, 0
        remark = f"one cluster, since {n_valid} models respond alike in the metric {settings.metric!r}"
        return Clustered(embedding, labels, scores, remark)
    embedding[valid] = _embed(kept, settings, seed)
    n_valid = int(np.isfinite(embedding).all(axis=1).sum())
    allowed = [number for number in tried if number * MODELS_PER_CLUSTER <= n_valid]
    if not allowed:
        remark = f"no clusters, since {n_valid} models are too few for {tried[0]} clusters of {MODELS_PER_CLUSTER}"
        return Clustered(embedding, labels, scores, remark)
    labels, found = gaussian_mixture(
        embedding,
        allowed,
        criterion=settings.criterion,
        n_init=settings.n_init,
        max_iter=settings.max_iter,
        seed=seed,
    )
    scores[: len(allowed)] = found
    return Clustered(embedding, sort_labels(labels, task_error), scores, "")


def _responding(features: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which models have a response that varies."""
    responding = np.zeros(len(features), dtype=bool)
    if features.size:
        finite = np.isfinite(features).all(axis=1)
        # flyvis's rule for a constant response: a standard deviation of 0 within 1e-8.
        responding[finite] = ~np.isclose(features[finite].std(axis=1), 0)
    return responding


def _alike(features: NDArray[np.float64], metric: str) -> bool:
    """Whether nothing tells models apart, so that an embedding would show the noise of its initialisation."""
    from sklearn.metrics import pairwise_distances

    scale = 1.0 if metric in ("correlation", "cosine") else max(float(np.abs(features).max()), 1.0)
    return bool((pairwise_distances(features[:1], features, metric=metric) < _SAME * scale).all())


def _embed(features: NDArray[np.float64], settings: Settings, seed: int) -> NDArray[np.float64]:
    """UMAP of models (model, component), each axis scaled to 0 to 1; NaN for models that its graph does not connect."""
    with warnings.catch_warnings():
        # Importing warns that tensorflow is absent; fitting, that models are disconnected, which the result says too,
        # or that the initialisation had to be random.
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
    """Labels of points by the Gaussian mixture whose number of components has the lowest criterion.

    Parameters
    ----------
    points
        (point, coordinate); points with a NaN get no label.
    n_clusters
        Numbers of components to try, each once; those above the number of distinct points are left out.
    criterion
        ``"bic"`` or ``"aic"``.
    n_init, max_iter, seed
        As in :func:`flyxr.cluster.cluster`.

    Returns
    -------
    labels : array (point,)
        From 0 up, -1 for points with a NaN.
    scores : array
        The criterion for each of the ``n_clusters`` in ascending order, NaN where it was left out.

    Notes
    -----
    flyvis ``gaussian_mixture``; there the labels of points left out are -99999.

    Examples
    --------
    >>> points = np.array([[0.0, 0.1], [0.1, 0.0], [0.1, 0.1], [5.0, 5.1], [5.1, 5.0], [5.0, 5.0], [np.nan, 0.0]])
    >>> gaussian_mixture(points, [2], n_init=1)[0] >= 0
    array([ True,  True,  True,  True,  True,  True, False])
    """
    from sklearn.mixture import GaussianMixture
    from threadpoolctl import threadpool_limits

    valid = np.isfinite(points).all(axis=1)
    labels, tried = np.full(len(points), -1), sorted(set(n_clusters))
    scores = np.full(len(tried), np.nan)
    kept = points[valid]
    distinct = len(np.unique(kept, axis=0))
    best = np.inf
    for i, number in enumerate(tried):
        if number > distinct:
            continue
        with threadpool_limits(1):  # threads of BLAS and OpenMP cost twenty times the work on so few points
            mixture = GaussianMixture(number, random_state=seed, max_iter=max_iter, n_init=n_init).fit(kept)
        scores[i] = mixture.bic(kept) if criterion == "bic" else mixture.aic(kept)
        if scores[i] < best:
            best, labels[valid] = scores[i], mixture.predict(kept)
    return labels, scores


def sort_labels(labels: NDArray[np.integer], task_error: NDArray[np.floating]) -> NDArray[np.int64]:
    """Renumber clusters so that 0 has the lowest mean task error, then 1, …; -1 stays.

    Where no task error of a cluster is known it comes last, larger clusters before smaller ones.

    Notes
    -----
    flyvis ``task_error_sort_labels``, which loses a cluster if the labels have a gap; here none is lost.

    Examples
    --------
    >>> sort_labels(np.array([5, 5, 2, -1, 0]), np.array([1.0, 2.0, 0.5, 9.0, 7.0]))
    array([ 1,  1,  0, -1,  2])
    """
    found = np.unique(labels[labels >= 0])
    order = []
    for label in found:
        errors = task_error[labels == label]
        errors = errors[np.isfinite(errors)]
        order.append((errors.mean() if errors.size else np.inf, -(labels == label).sum(), label))
    renumbered = np.full(labels.shape, -1)
    for new, (_, _, label) in enumerate(sorted(order)):
        renumbered[labels == label] = new
    return renumbered


def without_clusters(features: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """As many models from one Gaussian that has the mean and covariance of these."""
    valid = np.isfinite(features).all(axis=1)
    if not valid.any():
        return features
    centre = features[valid].mean(axis=0)
    weights = np.random.default_rng(seed).normal(size=(len(features), int(valid.sum())))
    drawn: NDArray[np.float64] = centre + weights @ (features[valid] - centre) / np.sqrt(valid.sum())
    drawn[~valid] = np.nan
    return drawn


def rand_index(first: NDArray[np.int64], second: NDArray[np.int64]) -> float:
    """Adjusted Rand index over the models that have a cluster in both; NaN if there are fewer than two."""
    from sklearn.metrics import adjusted_rand_score

    both = (first >= 0) & (second >= 0)
    return float(adjusted_rand_score(first[both], second[both])) if both.sum() > 1 else float("nan")
