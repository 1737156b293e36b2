"""Explicit Euler in numba, float32, on the CPU: connections as a stencil that slides over the lattice of columns.

Samples share only the weights, so the result has the same bits for any batches and any number of threads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from flyxr.engine import base, batches, lattice
from flyxr.engine.base import EngineResult, Network, Parameters

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MIN_PARALLEL_SAMPLES = 4
"""Models x samples from which a frame is computed by several threads; fewer take less time than waking them."""


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
    base.check_cpu("stencil", device)
    cells = np.arange(network.n_cells) if cells is None else np.asarray(cells)
    recording = lattice.recording(network, stimulus.shape[1], cells, frames)
    n_recorded = stimulus.shape[1] if frames is None else len(frames)
    responses = np.empty((len(parameters.bias), len(stimulus), n_recorded, len(cells)), np.float32)
    responses[..., cells < 0] = np.nan
    model_stimulus = np.broadcast_to(np.asarray(stimulus, dtype=np.float32), (len(responses), *stimulus.shape))
    models = batches.model_arrays(parameters, dt)
    last_state, _ = batches.forward(network, models, model_stimulus, state, recording, responses)
    return EngineResult(responses, last_state)


class Stepper:
    """Integrate frame by frame; see :class:`flyxr.engine.base.Stepper`.

    Examples
    --------
    >>> from flyxr import testing
    >>> network, parameters = testing.tiny_network()
    >>> stepper = Stepper(network, parameters, 0.01, n_samples=1, cells=np.arange(3))
    >>> stepper.step(np.ones((1, network.n_columns))).shape
    (1, 1, 3)
    """

    def __init__(
        self,
        network: Network,
        parameters: Parameters,
        dt: float,
        *,
        n_samples: int,
        cells: NDArray[np.integer],
        device: str = "cpu",
    ) -> None:
        base.check_cpu("stencil", device)
        models = batches.model_arrays(parameters, dt)
        self._layout, self._n_models, self._n_samples = lattice.network_layout(network), len(models.bias), n_samples
        self._n_threads = base.n_threads() if self._n_models * n_samples >= _MIN_PARALLEL_SAMPLES else 1
        self._batches = batches.split_batches(self._n_models, n_samples, self._n_threads)
        self._steppers = [batches.BatchStepper(network, models, *batch) for batch in self._batches]
        # The states of each batch before and after a frame, in turn.
        sizes = [self._layout.state_size * stepper.width for stepper in self._steppers]
        self._states = [batches.aligned_zeros((2, size), np.float32) for size in sizes]
        self._current = 0
        self._luminance = [np.zeros((1, stepper.layout.type_size), np.float32) for stepper in self._steppers]
        self._recording = lattice.recording(network, 1, cells, None)
        self._responses = np.full((self._n_models, n_samples, 1, len(cells)), np.nan, np.float32)
        self.state = models.bias[:, None, network.cell_type]

    def step(self, luminance: NDArray[np.floating]) -> NDArray[np.float32]:
        """Advance by one frame (sample, column); return responses (model, sample, recorded cell), in one array."""

        def run(number: int) -> None:
            (model, samples), stepper = self._batches[number], self._steppers[number]
            frame = self._luminance[number]
            frame.reshape(-1, stepper.width)[self._layout.column_place] = luminance[samples].T
            responses = self._responses[model, samples]
            stepper.step(frame, self._states[number], self._recording, responses, self._current)

        batches.run_all(run, range(len(self._batches)), self._n_threads)
        self._current = 1 - self._current
        return self._responses[:, :, 0]

    @property
    def state(self) -> NDArray[np.float32]:
        """State (model, sample, cell), as a copy; can be set, also with one sample for all."""
        place = self._layout.state
        state = np.empty((self._n_models, self._n_samples, place.size), np.float32)
        for (model, samples), stepper, states in zip(self._batches, self._steppers, self._states, strict=True):
            state[model, samples] = states[self._current].reshape(-1, stepper.width)[place].T
        return state

    @state.setter
    def state(self, state: NDArray[np.floating]) -> None:
        place = self._layout.state
        state = np.broadcast_to(state, (self._n_models, self._n_samples, place.size))
        for (model, samples), stepper, states in zip(self._batches, self._steppers, self._states, strict=True):
            states[self._current].reshape(-1, stepper.width)[place] = state[model, samples].T
