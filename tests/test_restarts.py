"""Mixtures with many initialisations equal those of scikit-learn, to the last bit."""

from __future__ import annotations

import warnings
from functools import partial

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from flyxr.clustering import restarts
from flyxr.errors import FlyxrWarning


def points_in_groups(n_groups: int, n_points: int = 50, n_coordinates: int = 2, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = rng.uniform(size=(n_groups, n_coordinates))
    return centres[rng.integers(n_groups, size=n_points)] + 0.05 * rng.normal(size=(n_points, n_coordinates))


@pytest.mark.parametrize("number", [1, 2, 3, 5])
@pytest.mark.parametrize(("n_groups", "n_coordinates", "seed"), [(1, 2, 0), (2, 2, 1), (4, 2, 2), (3, 3, 3), (2, 1, 4)])
def test_fit_mixture__equals_scikit_learn(number: int, n_groups: int, n_coordinates: int, seed: int) -> None:
    points = points_in_groups(n_groups, n_coordinates=n_coordinates, seed=seed)
    expected = GaussianMixture(number, random_state=seed, max_iter=500, n_init=20).fit(points)
    found = restarts.fit_mixture(points, number, n_init=20, max_iter=500, seed=seed)
    for name in ("weights_", "means_", "covariances_", "lower_bound_"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
    np.testing.assert_array_equal(found.predict(points), expected.predict(points))
    assert found.bic(points) == expected.bic(points)


def test_fit_mixture__of_repeated_points_equals_scikit_learn() -> None:
    points = np.repeat(points_in_groups(3, n_points=10), 2, axis=0)
    expected = GaussianMixture(4, random_state=0, n_init=10).fit(points)
    found = restarts.fit_mixture(points, 4, n_init=10, max_iter=100, seed=0)
    np.testing.assert_array_equal(found.means_, expected.means_)


def test_fit_mixture__warns_if_the_best_fit_has_not_converged() -> None:
    points = points_in_groups(1)
    with pytest.warns(FlyxrWarning, match="3 Gaussians did not converge in 2 iterations: raise max_iter"):
        restarts.fit_mixture(points, 3, n_init=5, max_iter=2, seed=0)


def test_lower_bounds__are_those_of_each_initialisation() -> None:
    points = points_in_groups(3)
    partitions = np.random.default_rng(0).integers(3, size=(6, len(points)))
    bounds = restarts.lower_bounds(points, partitions, 3, 200)
    assert np.ptp(bounds) > 1e-6
    for partition, bound in zip(partitions, bounds, strict=True):
        mixture = GaussianMixture(3, random_state=0, max_iter=200)
        # Replaces scikit-learn's own initialisation by this partition.
        initialize = partial(lambda fit, start, X, *_, **__: fit._initialize(X, start), mixture, np.eye(3)[partition])
        mixture._initialize_parameters = initialize
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            mixture.fit(points)
        assert bound == pytest.approx(mixture.lower_bound_, rel=1e-9)


def test_lower_bounds__do_not_depend_on_the_numbering() -> None:
    points = points_in_groups(3)
    partition = np.random.default_rng(1).integers(3, size=len(points))
    swapped = np.array([2, 0, 1])[partition]
    first, second = restarts.lower_bounds(points, np.stack([partition, swapped]), 3, 100)
    assert first == pytest.approx(second, rel=1e-12)
