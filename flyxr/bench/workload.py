"""Sizes of the cases, and the inputs of both sides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from flyxr import hexgrid
from flyxr.connectome import compile_network, open_connectome
from flyxr.ensemble import open_ensemble, sample_ensemble
from flyxr.errors import InputError, Problem

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

DT = 1 / 100
STEP_SAMPLES = 2
"""Sequences that are simulated frame by frame: two eyes."""
STRENGTH = 0.08
"""Mean summed weight of a pair of cell types, small enough that no network diverges."""


class Simulation(NamedTuple):
    """Models × samples of a case, and the part that the peer computes, in batches of samples."""

    n_models: int
    n_samples: int
    peer_models: int
    peer_samples: int
    peer_batch: int

    @property
    def peer_scale(self) -> float:
        """Ratio of the whole case to the part that the peer computes.

        Examples
        --------
        >>> Simulation(4, 16, 1, 8, 4).peer_scale
        8.0
        """
        return self.n_models * self.n_samples / (self.peer_models * self.peer_samples)


@dataclass(frozen=True)
class Size:
    """Sizes of all cases.

    ``processes`` is the number of fresh processes for the start-up cases, ``repeats`` the number of runs of the others
    in one process, ``step_repeats`` that of simulations frame by frame. ``movies`` have shapes (sample, frame, y, x).
    ``stored`` is (models, samples) of the responses on disk, ``measured`` (models, samples, frames) of the stored
    responses of central cells to moving edges, ``clustered`` the number of their cell types to cluster, ``gradients``
    the numbers of samples to differentiate, and ``csr_samples`` those to multiply with the sparse matrix.
    """

    processes: int
    repeats: int
    movies: dict[str, tuple[int, int, int, int]]
    simulations: tuple[Simulation, ...]
    stored: tuple[int, int]
    measured: tuple[int, int, int]
    clustered: int
    csr_samples: tuple[int, ...]
    gradients: tuple[int, ...]
    n_frames: int = 20
    step_repeats: int = 10
    copy_bytes: int = 2**29
    matmul_size: int = 4096


# flyvis keeps all states of the fade-in. Batches of 4 sequences took 3 GB and were fastest per sequence; batches of 16
# took 12 GB and four times as long.
FULL = Size(
    processes=3,
    repeats=3,
    movies={"64 x 64": (16, 20, 64, 64), "720p": (1, 10, 720, 1280)},
    simulations=(Simulation(50, 1, 3, 1, 1), Simulation(4, 16, 1, 16, 4), Simulation(1, 64, 1, 16, 4)),
    stored=(4, 16),
    measured=(50, 24, 485),
    clustered=65,
    csr_samples=(1, 4, 16, 64),
    gradients=(1, 4, 16),
)
QUICK = Size(
    processes=1,
    repeats=2,
    movies={"64 x 64": (2, 5, 64, 64)},
    simulations=(Simulation(2, 2, 1, 2, 1),),
    stored=(1, 2),
    measured=(8, 8, 50),
    clustered=2,
    csr_samples=(2,),
    gradients=(2,),
    copy_bytes=2**26,
    matmul_size=1024,
)


def inputs(size: Size, ensemble: str | Path | None = None) -> dict[str, NDArray[np.generic]]:
    """Parameters, luminance and movies for all cases.

    Parameters
    ----------
    size
        Sizes of the cases.
    ensemble
        Models to take parameters from, repeated if there are too few. None draws random parameters.

    Returns
    -------
    dict
        ``bias`` and ``time_constant`` (model, cell_type), ``synapse_strength`` (model, pair), ``luminance``
        (sample, frame, column), movies (sample, frame, y, x), all float32; and ``dt``, s.

    Raises
    ------
    ValueError
        If the ensemble belongs to another connectome than the one in the package.
    """
    n_models = max(case.n_models for case in size.simulations)
    n_samples = max(*(case.n_samples for case in size.simulations), *size.gradients, STEP_SAMPLES)
    parameters = _random_parameters(n_models) if ensemble is None else _ensemble_parameters(ensemble, n_models)
    x, y = hexgrid.positions(*hexgrid.columns(15))
    movies = {
        name: _gratings(*shape[:2], *np.meshgrid(np.arange(shape[3]), np.arange(shape[2])), wavelength=shape[2] / 4)
        for name, shape in size.movies.items()
    }
    luminance = _gratings(n_samples, size.n_frames, x, y, wavelength=8)
    return {**parameters, **movies, "luminance": luminance, "dt": np.array(DT)}


def _random_parameters(n_models: int) -> dict[str, NDArray[np.generic]]:
    """Parameters that vary as much as those of trained models, in networks that stay bounded."""
    connectome = open_connectome(extent=15)
    network = compile_network(connectome)
    pair = connectome["synapse_pair"].values[network.synapses]
    synapses = np.bincount(pair, connectome["n_synapses"].values[network.synapses])[network.pairs]
    rng = np.random.default_rng(0)
    n_types = connectome.sizes["cell_type"]
    parameters = {
        "bias": rng.normal(0.5, 0.3, (n_models, n_types)),
        "time_constant": rng.uniform(0.004, 0.12, (n_models, n_types)),
        "synapse_strength": STRENGTH / synapses * rng.lognormal(0, 0.8, (n_models, synapses.size)),
    }
    return {name: values.astype(np.float32) for name, values in parameters.items()}


def _ensemble_parameters(path: str | Path, n_models: int) -> dict[str, NDArray[np.generic]]:
    ensemble, reference = open_ensemble(path), sample_ensemble(1, seed=0)
    for name in ("cell_type", "source", "target"):
        if not np.array_equal(ensemble[name].values, reference[name].values):
            raise InputError(
                Problem(
                    "expected an ensemble with all cell types and pairs of the connectome in flyxr, got another "
                    f"{name} in {path}",
                    "pass one as fx.open_ensemble or fx.sample_ensemble return it",
                )
            )
    model = np.arange(n_models) % ensemble.sizes["model"]
    names = ("bias", "time_constant", "synapse_strength")
    return {name: ensemble[name].values[model].astype(np.float32) for name in names}


def _gratings(
    n_samples: int, n_frames: int, x: NDArray[np.generic], y: NDArray[np.generic], wavelength: float
) -> NDArray[np.float32]:
    """Drifting gratings (sample, frame, ...) from 0 to 1, each in its own direction."""
    frame = np.arange(n_frames).reshape(-1, *[1] * x.ndim)
    movie = np.empty((n_samples, n_frames, *x.shape), dtype=np.float32)
    for sample in range(n_samples):
        angle = 0.4 + 2 * np.pi * sample / n_samples  # not along a pixel axis
        phase = (x * np.cos(angle) + y * np.sin(angle)) / wavelength
        movie[sample] = 0.5 + 0.5 * np.sin(2 * np.pi * (phase - frame / 10))
    return movie
