"""Start of a training: strengths proportional to synapse counts, with a gain and a bias per cell type."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from flyxr.engine import base
from flyxr.engine.sparse import TorchParameters, respond

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flyxr.engine.base import Network

TARGET_STD = 0.2
TARGET_MEAN = 0.15
TIME_CONSTANT = 0.05
N_ROUNDS = 80
N_SAMPLES = 16
START_GAIN = 0.01
_GAIN_EXPONENT, _BIAS_STEP = 0.2, 0.5
_DECAY = 9.0  # of both steps, which end at a tenth
_MAX_FACTOR, _MAX_STEP = 1.3, 0.2


def calibrate(
    network: Network,
    luminance: NDArray[np.floating],
    dt: float,
    jitter: NDArray[np.float64],
    *,
    n_rounds: int = N_ROUNDS,
) -> base.Parameters:
    """Find the bias and the gain of each cell type at which it responds to stimuli with given mean and deviation.

    All synapses onto a type have the strength of its gain, times a factor of the pair, so that a connection is as
    strong as its number of synapses. Gains and biases change in small steps toward :data:`TARGET_STD` and
    :data:`TARGET_MEAN` of the potential, since the types drive each other.

    Parameters
    ----------
    network
        The compiled connectome.
    luminance : (sample, time, column)
        Stimuli; the first :data:`N_SAMPLES` samples and the second half of their times are used.
    dt
        Integration step, s.
    jitter : (pair,)
        Factor of each strength.
    n_rounds
        Number of steps.

    Notes
    -----
    The result is one model, with time constants of 0.05 s.
    """
    n_types = int(network.cell_type.max()) + 1
    target = np.zeros(jitter.size, int)
    target[network.stencil.pair] = network.stencil.target
    gain, bias = np.full(n_types, START_GAIN), np.full(n_types, TARGET_MEAN)
    is_target = np.isin(np.arange(n_types), target)
    stimuli = torch.as_tensor(luminance[:N_SAMPLES], dtype=torch.float32)
    for i in range(n_rounds):
        mean, std = _moments(network, _parameters(bias, gain[target] * jitter), stimuli, dt)
        step = 1 / (1 + _DECAY * i / n_rounds)
        factor = (TARGET_STD / np.maximum(std, 1e-6)) ** (_GAIN_EXPONENT * step)
        gain[is_target] *= np.clip(factor, 1 / _MAX_FACTOR, _MAX_FACTOR)[is_target]
        bias += np.clip(_BIAS_STEP * step * (TARGET_MEAN - mean), -_MAX_STEP, _MAX_STEP)
    return _parameters(bias, gain[target] * jitter)


def _parameters(bias: NDArray[np.float64], strength: NDArray[np.float64]) -> base.Parameters:
    time_constant = np.full((1, bias.size), TIME_CONSTANT, np.float32)
    return base.Parameters(bias[None].astype(np.float32), time_constant, strength[None].astype(np.float32))


def _moments(
    network: Network, parameters: base.Parameters, stimuli: torch.Tensor, dt: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation (cell_type,) of the potential."""
    tensors = TorchParameters(*(torch.as_tensor(values) for values in parameters))
    n_frames = stimuli.shape[1]
    none = np.arange(0)
    with torch.no_grad():
        grey = torch.as_tensor(base.grey(network.n_columns, dt))
        state = respond(network, tensors, grey, dt, frames=none, cells=none, n_threads=1).state
        frames = np.arange(n_frames // 2, n_frames)
        responses = respond(network, tensors, stimuli, dt, state=state, frames=frames, n_threads=1).responses[0]
    values = responses.numpy()
    first = np.flatnonzero(np.diff(network.cell_type, prepend=-1))  # cells are sorted by type
    n_values = np.diff(first, append=network.n_cells) * values.shape[0] * values.shape[1]
    mean = np.add.reduceat(values.sum((0, 1), dtype=np.float64), first) / n_values
    square = np.add.reduceat(np.square(values, dtype=np.float64).sum((0, 1)), first) / n_values
    return mean, np.sqrt(np.maximum(square - mean**2, 0))
