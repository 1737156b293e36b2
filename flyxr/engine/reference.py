"""Explicit Euler in NumPy, in float64: short and slow, the reference that the other engines are tested against."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from flyxr.engine.base import EngineResult, Network, Parameters, check_cpu

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

    Each step adds ``dt / max(tau, dt) * (-V + bias + sum_j w_ij max(V_j, 0) + x)`` to the potential V
    (Lappalainen et al. 2024, Methods; flyvis ``PPNeuronIGRSynapses``).

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
    check_cpu("reference", device)
    cells = np.arange(network.n_cells) if cells is None else cells
    frames = np.arange(stimulus.shape[1]) if frames is None else frames
    n_models, n_samples = len(parameters.bias), len(stimulus)
    responses = np.empty((n_models, n_samples, len(frames), len(cells)))
    last_state = np.empty((n_models, n_samples, network.n_cells))
    luminance = np.where(network.is_input, stimulus.astype(float)[:, :, network.column], 0)
    for model in range(n_models):
        bias = parameters.bias[model].astype(float)[network.cell_type]
        rate = dt / np.maximum(parameters.time_constant[model].astype(float), dt)[network.cell_type]
        weight = network.signed_synapses * parameters.synapse_strength[model].astype(float)[network.pair]
        for sample in range(n_samples):
            potential = bias if state is None else state[model, sample % state.shape[1]].astype(float)
            n_recorded = 0
            for frame in range(stimulus.shape[1]):
                activity = np.maximum(potential, 0)
                current = np.bincount(network.target, weight * activity[network.source], network.n_cells)
                potential = potential + rate * (-potential + bias + current + luminance[sample, frame])
                if n_recorded < len(frames) and frames[n_recorded] == frame:
                    responses[model, sample, n_recorded] = potential[cells]
                    n_recorded += 1
            last_state[model, sample] = potential
    responses[..., cells < 0] = np.nan
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
        self._network, self._parameters, self._dt = network, parameters, dt
        self._cells, self._device = cells, device
        self._shape = (len(parameters.bias), n_samples, network.n_cells)
        self._state: NDArray[np.floating]
        self.state = np.asarray(parameters.bias, dtype=float)[:, None, network.cell_type]

    def step(self, luminance: NDArray[np.floating]) -> NDArray[np.floating]:
        """Advance by one frame (sample, column); return responses (model, sample, recorded cell)."""
        result = integrate(
            self._network,
            self._parameters,
            luminance[:, None],
            self._dt,
            state=self._state,
            cells=self._cells,
            device=self._device,
        )
        self._state = result.state
        return result.responses[:, :, 0]

    @property
    def state(self) -> NDArray[np.floating]:
        """State (model, sample, cell), as a copy; can be set, also with one sample for all."""
        return self._state.copy()

    @state.setter
    def state(self, state: NDArray[np.floating]) -> None:
        self._state = np.broadcast_to(state, self._shape).astype(float)
