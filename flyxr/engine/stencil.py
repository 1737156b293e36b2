"""Explicit Euler in numba, float32, on the CPU: connections as a stencil that slides over the lattice of columns.

Samples share only the weights, so the result has the same bits for any batches and any number of threads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from flyxr.engine import batches, lattice
from flyxr.engine.base import EngineResult, Network, Parameters
from flyxr.errors import InputError, Problem

if TYPE_CHECKING:
    from numpy.typing import NDArray


def integrate(
    network: Network,
    parameters: Parameters,
    stimulus: NDArray[np.floating],
    dt: float,
    *,
    state: NDArray[np.floating] | None = None,
    cells: NDArray[np.integer] | None = None,
    frames: NDArray[np.integer] | None = None,
    device: str = "cpu",
) -> EngineResult:
    """Integrate all models for all samples; see :class:`flyxr.engine.base.Engine`.

    A step is ``V <- V + rate ((bias - V) + x + W max(V, 0))`` with ``rate = dt / max(tau, dt)``. Batches run on as
    many threads as there are cores.

    Raises
    ------
    ValueError
        If ``device`` is not the CPU.

    Examples
    --------
    >>> from flyxr import testing
    >>> network, parameters = testing.tiny_network()
    >>> integrate(network, parameters, np.zeros((1, 5, network.n_columns)), 0.01).responses.shape
    (1, 1, 5, 21)
    """
    if device != "cpu":
        raise InputError(
            Problem(f"the stencil engine computes on the CPU, got device={device!r}", "use engine='sparse'")
        )
    cells = np.arange(network.n_cells) if cells is None else np.asarray(cells)
    recording = lattice.recording(network, stimulus.shape[1], cells, frames)
    n_recorded = stimulus.shape[1] if frames is None else len(frames)
    responses = np.empty((len(parameters.bias), len(stimulus), n_recorded, len(cells)), np.float32)
    responses[..., cells < 0] = np.nan
    model_stimulus = np.broadcast_to(np.asarray(stimulus, dtype=np.float32), (len(responses), *stimulus.shape))
    models = batches.model_arrays(parameters, dt)
    last_state, _ = batches.forward(network, models, model_stimulus, state, recording, responses)
    return EngineResult(responses, last_state)
