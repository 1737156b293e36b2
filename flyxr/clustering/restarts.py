"""Gaussian mixtures with many random initialisations: scikit-learn's result, for a fraction of its time.

scikit-learn fits each initialisation on its own, which takes about a millisecond per iteration for fifty points, nearly
all of it in Python. Here the initialisations are scikit-learn's, all of them are fitted at once with NumPy to find the
best ones, and scikit-learn fits these again. So the result is scikit-learn's to the last bit.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from flyxr.errors import FlyxrWarning, Problem

if TYPE_CHECKING:
    from numpy.typing import NDArray

TOLERANCE = 1e-3
"""Change of the mean log-likelihood below which a fit has converged, as in scikit-learn."""
REGULARISATION = 1e-6
"""Added to variances, as in scikit-learn."""
ROUNDING = 1e-9
"""Differences between mean log-likelihoods that may be rounding errors."""


def fit_mixture(points: NDArray[np.floating], number: int, *, n_init: int, max_iter: int, seed: int) -> Any:
    """Fit ``GaussianMixture(number, random_state=seed, max_iter=max_iter, n_init=n_init)`` to points.

    Parameters
    ----------
    points
        (point, coordinate), finite.
    number
        Number of Gaussians.
    n_init, max_iter, seed
        As in :func:`flyxr.clustering.cluster`.

    Returns
    -------
    sklearn.mixture.GaussianMixture
        The fitted mixture; its parameters equal those that scikit-learn finds.

    Examples
    --------
    >>> points = np.array([[0.0, 0.1], [0.1, 0.0], [0.1, 0.1], [5.0, 5.1], [5.1, 5.0], [5.0, 5.0]])
    >>> labels = fit_mixture(points, 2, n_init=3, max_iter=100, seed=0).predict(points)
    >>> (labels == labels[0]).tolist()
    [True, True, True, False, False, False]
    """
    from sklearn import config_context
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    rng = np.random.RandomState(seed)  # noqa: NPY002 (scikit-learn's generator, to repeat its draws)
    starts: dict[tuple[int, ...], Any] = {}
    with config_context(assume_finite=True, skip_parameter_validation=True):
        for _ in range(n_init):
            state = rng.get_state()
            # What GaussianMixture does for each initialisation. A partition that recurs has the same fit.
            partition = KMeans(number, n_init=1, random_state=rng).fit(points).labels_
            starts.setdefault(tuple(partition.tolist()), state)
    try:
        bounds = _bounds_of_partitions(points, list(starts), number, max_iter)
    except np.linalg.LinAlgError:  # scikit-learn explains it
        return GaussianMixture(number, random_state=seed, max_iter=max_iter, n_init=n_init).fit(points)
    best: Any = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for state, bound in zip(starts.values(), bounds, strict=True):
            if bound < bounds.max() - ROUNDING * max(1.0, abs(bounds.max())):
                continue
            rng.set_state(state)
            mixture = GaussianMixture(number, random_state=rng, max_iter=max_iter).fit(points)
            if best is None or mixture.lower_bound_ > best.lower_bound_:
                best = mixture
    if not best.converged_:
        text = f"a mixture of {number} Gaussians did not converge in {max_iter} iterations"
        warnings.warn(FlyxrWarning(Problem(text, "raise max_iter")), stacklevel=2)
    return best


def _bounds_of_partitions(
    points: NDArray[np.floating], partitions: list[tuple[int, ...]], number: int, max_iter: int
) -> NDArray[np.float64]:
    """Mean log-likelihood (partition,) after fitting from each; partitions that differ in numbering are fitted once."""
    renumbered = []
    for partition in partitions:
        numbers: dict[int, int] = {}
        renumbered.append([numbers.setdefault(label, len(numbers)) for label in partition])
    distinct, inverse = np.unique(np.array(renumbered), axis=0, return_inverse=True)
    bounds: NDArray[np.float64] = lower_bounds(points, distinct, number, max_iter)[inverse.ravel()]
    return bounds


def lower_bounds(
    points: NDArray[np.floating], partitions: NDArray[np.integer], number: int, max_iter: int
) -> NDArray[np.float64]:
    """Mean log-likelihood of points under the mixtures that expectation maximisation finds from each partition.

    Parameters
    ----------
    points
        (point, coordinate).
    partitions
        (partition, point), the first Gaussian of each point.
    number
        Number of Gaussians.
    max_iter
        Largest number of iterations.

    Raises
    ------
    numpy.linalg.LinAlgError
        If a covariance is not positive definite.

    Notes
    -----
    The steps of ``sklearn.mixture.GaussianMixture`` with full covariances, for all partitions at once.

    Examples
    --------
    >>> points = np.array([[0.0], [2.0], [10.0], [12.0]])
    >>> lower_bounds(points, np.array([[0, 0, 1, 1], [0, 1, 0, 1]]), 2, 100).round(2)
    array([-2.11, -3.05])
    """
    bounds = np.full(len(partitions), -np.inf)
    active = np.arange(len(partitions))
    mixture = _maximise(points, np.eye(number)[partitions])
    for _ in range(max_iter):
        bound, responsibilities = _expect(points, *mixture)
        has_converged = np.abs(bound - bounds[active]) < TOLERANCE
        bounds[active] = bound
        active = active[~has_converged]
        if not active.size:
            break
        mixture = _maximise(points, responsibilities[~has_converged])
    return bounds


def _maximise(points: NDArray[np.floating], responsibilities: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Weights (fit, Gaussian), means, and inverse Cholesky factors of the covariances from (fit, point, Gaussian)."""
    sums = responsibilities.sum(axis=1) + 10 * np.finfo(np.float64).eps
    by_gaussian = np.swapaxes(responsibilities, 1, 2)
    means = by_gaussian @ points / sums[..., None]
    deviations = points - means[:, :, None]
    covariances = np.swapaxes(by_gaussian[..., None] * deviations, 2, 3) @ deviations / sums[..., None, None]
    covariances += REGULARISATION * np.eye(points.shape[1])
    factors = np.linalg.inv(np.linalg.cholesky(covariances))
    return sums / sums.sum(axis=1, keepdims=True), means, factors


def _expect(
    points: NDArray[np.floating],
    weights: NDArray[np.float64],
    means: NDArray[np.float64],
    factors: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean log-likelihood (fit,), and responsibilities (fit, point, Gaussian)."""
    scaled = (points - means[:, :, None]) @ np.swapaxes(factors, 2, 3)
    log_determinant = np.log(np.diagonal(factors, axis1=2, axis2=3)).sum(axis=-1)
    constant = np.log(weights) + log_determinant - 0.5 * points.shape[1] * np.log(2 * np.pi)
    log_likelihood = np.swapaxes(constant[..., None] - 0.5 * (scaled**2).sum(axis=-1), 1, 2)
    largest = log_likelihood.max(axis=-1, keepdims=True)
    norm = largest + np.log(np.exp(log_likelihood - largest).sum(axis=-1, keepdims=True))
    return norm[..., 0].mean(axis=1), np.exp(log_likelihood - norm)
