"""Gaussian mixtures and labels, compared with flyvis 1.2.0 on the same points.

Labels are equal if scikit-learn has the version that made the reference.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score

from flyxr.clustering import mixture

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

FLYVIS_NONE = -99999


@pytest.fixture(scope="module")
def arrays(golden: Callable[[str], dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    return golden("clustering.npz")


def ours(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Labels of flyvis with -1 for none."""
    return np.where(labels == FLYVIS_NONE, -1, labels)


@pytest.mark.parametrize("tag", ["raw", "scaled", "aic", "masked", "few"])
def test_gaussian_mixture__equals_flyvis(arrays: dict[str, NDArray[Any]], tag: str) -> None:
    options = json.loads(str(arrays[f"{tag}_kwargs_json"]))
    tried = options.get("range_n_clusters", [1, 2, 3, 4, 5])
    points = np.where(arrays[f"{tag}_mask"][:, None], arrays[f"{tag}_X"], np.nan)
    labels, scores = mixture.gaussian_mixture(
        points,
        tried,
        criterion=options.get("criterion", "bic"),
        n_init=options.get("n_init", 1),
        seed=options.get("random_state", 0),
    )
    expected = dict(zip(arrays[f"{tag}_range_n_clusters"].tolist(), arrays[f"{tag}_metric"].tolist(), strict=True))
    found = dict(zip(sorted(set(tried)), scores.tolist(), strict=True))
    assert {number for number, score in found.items() if np.isfinite(score)} == set(expected)
    np.testing.assert_allclose([found[number] for number in expected], list(expected.values()), rtol=1e-6)
    assert min(expected, key=lambda number: found[number]) == arrays[f"{tag}_n_components"]
    if version("scikit-learn") == str(arrays["sklearn_version"]):
        np.testing.assert_array_equal(labels, ours(arrays[f"{tag}_labels"]))
    else:
        assert adjusted_rand_score(labels, ours(arrays[f"{tag}_labels"])) > 0.99


@pytest.mark.parametrize("tag", ["scaled", "masked"])
def test_sort_labels__equals_flyvis(arrays: dict[str, NDArray[Any]], tag: str) -> None:
    suffix = "" if tag == "scaled" else "_masked"
    found = mixture.sort_labels(ours(arrays[f"{tag}_labels"]), arrays["task_error"])
    np.testing.assert_array_equal(found, ours(arrays[f"sorted_labels{suffix}_mean"]))


def test_sort_labels__loses_no_cluster_in_a_gap(arrays: dict[str, NDArray[Any]]) -> None:
    gap = arrays["noncontiguous_labels"]
    assert FLYVIS_NONE in arrays["noncontiguous_sorted_mean"]
    found = mixture.sort_labels(gap, arrays["task_error"])
    np.testing.assert_array_equal(found, mixture.sort_labels(np.where(gap == 5, 1, gap), arrays["task_error"]))
    assert set(found) == {0, 1, 2}


@given(st.lists(st.tuples(st.integers(-1, 6), st.floats(0, 10)), min_size=1, max_size=30))
def test_sort_labels__keeps_groups_and_orders_them_by_error(pairs: list[tuple[int, float]]) -> None:
    labels, errors = np.array([pair[0] for pair in pairs]), np.array([pair[1] for pair in pairs])
    sorted_labels = mixture.sort_labels(labels, errors)
    np.testing.assert_array_equal(sorted_labels == -1, labels == -1)
    groups = np.unique(sorted_labels[sorted_labels >= 0])
    np.testing.assert_array_equal(groups, np.arange(len(groups)))
    for group in groups:
        assert np.unique(labels[sorted_labels == group]).size == 1
    assert len(groups) == np.unique(labels[labels >= 0]).size
    assert np.all(np.diff([errors[sorted_labels == group].mean() for group in groups]) >= -1e-12)


def test_sort_labels__largest_first_without_task_errors() -> None:
    labels = np.array([0, 1, 1, 2, 2, 2, -1])
    np.testing.assert_array_equal(mixture.sort_labels(labels, np.full(7, np.nan)), [2, 1, 1, 0, 0, 0, -1])


def settings(**changes: Any) -> mixture.Settings:
    options: dict[str, Any] = {
        "n_neighbors": 5,
        "min_dist": 0.1,
        "spread": 9.0,
        "metric": "correlation",
        "n_epochs": 20,
        "n_components": 2,
        "n_clusters": (2, 3),
        "criterion": "bic",
        "n_init": 2,
        "max_iter": 100,
    }
    return mixture.Settings(**{**options, **changes})


def test_cluster_features__constant_models_are_none(arrays: dict[str, NDArray[Any]]) -> None:
    features = arrays["constant_row_input"]
    np.testing.assert_array_equal(mixture.models_that_respond(features), arrays["constant_row_mask"])
    degenerate = mixture.cluster_features(arrays["umap_degenerate_input"], arrays["task_error"], settings(), 0)
    assert (degenerate.labels == -1).all()
    np.testing.assert_array_equal(degenerate.embedding, arrays["umap_degenerate_embedding"])
    assert "responds in only 1 of 50" in degenerate.remark


@pytest.mark.parametrize("metric", ["correlation", "euclidean"])
def test_cluster_features__identical_models_are_one_cluster(metric: str) -> None:
    features = np.tile(np.random.default_rng(0).normal(size=30), (6, 1))
    clustered = mixture.cluster_features(features, np.zeros(6), settings(metric=metric), 0)
    assert (clustered.labels == 0).all()
    assert "alike" in clustered.remark
    assert np.isnan(clustered.scores).all()


def test_cluster_features__four_models_and_one_with_nan() -> None:
    features = np.random.default_rng(0).normal(size=(5, 30))
    features[2, 3] = np.nan
    clustered = mixture.cluster_features(features, np.arange(5.0), settings(), 0)
    np.testing.assert_array_equal(clustered.labels >= 0, [True, True, False, True, True])
    assert np.isfinite(clustered.scores).tolist() == [True, False]
    unclustered = mixture.cluster_features(features, np.arange(5.0), settings(n_clusters=(3,)), 0)
    assert (unclustered.labels == -1).all()
    assert "too few for 3 clusters of 2" in unclustered.remark


def test_flat_features__drops_frames_without_responses() -> None:
    responses = np.arange(24.0).reshape(2, 3, 4)
    padded = np.concatenate([responses, np.full((2, 3, 2), np.nan)], axis=2)
    np.testing.assert_array_equal(mixture.flat_features(padded), mixture.flat_features(responses))


def test_without_clusters__has_the_mean_and_covariance() -> None:
    features = np.random.default_rng(0).normal(size=(400, 3)) * [1, 5, 0.1] + [3, 0, -1]
    drawn = mixture.without_clusters(features, seed=1)
    np.testing.assert_allclose(drawn.mean(axis=0), features.mean(axis=0), atol=5 * 5 / 20)
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(features.T), atol=6)
    np.testing.assert_allclose(drawn.std(axis=0), features.std(axis=0), rtol=0.15)


def test_rand_index__ignores_models_without_a_cluster() -> None:
    first, second = np.array([0, 0, 1, 1, -1, 0]), np.array([1, 1, 0, 0, 0, -1])
    assert mixture.rand_index(first, second) == 1
    assert np.isnan(mixture.rand_index(first, np.full(6, -1)))
