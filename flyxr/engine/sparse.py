"""Explicit Euler in torch, float32, on CPU or GPU: one sparse product a step for all samples of a model."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch

from flyxr.engine.base import Integrated, Network, Parameters

if TYPE_CHECKING:
    from collections.abc import Iterator

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
) -> Integrated:
    """Integrate all models for all samples; see :class:`flyxr.engine.base.Engine`.

    With ``rate = dt / max(tau, dt)`` a step is ``V <- V + rate ((bias - V) + x + W max(V, 0))``, in buffers made
    before the first. Folding the rate into weights and decay would be no faster and shift the fixed points: the
    rounding of ``1 - rate`` alone made errors of 4e-4 where this form makes 1e-5.

    Examples
    --------
    >>> from flyxr import testing
    >>> network, parameters = testing.tiny_network()
    >>> integrate(network, parameters, np.zeros((1, 5, network.n_columns)), 0.01).responses.shape
    (1, 1, 5, 21)
    """
    with torch.no_grad(), _denormals_flushed():
        return _integrate(network, parameters, stimulus, dt, state, cells, frames, device)


def _integrate(
    network: Network,
    parameters: Parameters,
    stimulus: NDArray[np.floating],
    dt: float,
    state: NDArray[np.floating] | None,
    cells: NDArray[np.integer] | None,
    frames: NDArray[np.integer] | None,
    device: str,
) -> Integrated:
    structure = _structure(network, device)
    n_samples, n_frames, _ = stimulus.shape
    recorded_frames = range(n_frames) if frames is None else frames.tolist()
    slot = {frame: position for position, frame in enumerate(recorded_frames)}
    recorded = None if cells is None else torch.as_tensor(cells, device=device)
    n_recorded = network.n_cells if cells is None else len(cells)

    n_models = len(parameters.bias)
    responses = torch.empty((n_models, n_samples, len(slot), n_recorded))
    last = torch.empty((n_models, n_samples, network.n_cells))
    on_device = torch.empty(responses.shape[1:], device=device)
    luminance = torch.as_tensor(stimulus, dtype=torch.float32).permute(1, 2, 0).contiguous().to(device)

    potential = torch.empty((network.n_cells, n_samples), device=device)
    active, change = torch.empty_like(potential), torch.empty_like(potential)
    kept = None if recorded is None else torch.empty((n_recorded, n_samples), device=device)
    x = torch.empty((len(structure.input_cell), n_samples), device=device)
    for model in range(n_models):
        bias = _of_cells(parameters.bias[model], structure)
        rate = dt / _of_cells(parameters.time_constant[model], structure).clamp(min=dt)
        strength = torch.as_tensor(parameters.synapse_strength[model], dtype=torch.float32, device=device)
        weight = structure.signed_synapses * strength[structure.pair]
        matrix = structure.matrix(weight, network.n_cells)
        if state is None:
            potential.copy_(bias.expand_as(potential))
        else:
            given = torch.as_tensor(state[model], dtype=torch.float32, device=device)
            potential.copy_(given.T.expand_as(potential))
        for frame in range(n_frames):
            torch.clamp(potential, min=0, out=active)
            torch.sub(bias, potential, out=change)
            torch.index_select(luminance[frame], 0, structure.input_column, out=x)
            change.index_add_(0, structure.input_cell, x)
            torch.addmm(change, matrix, active, out=change)
            potential.addcmul_(rate, change)
            if frame in slot:
                if recorded is not None and kept is not None:
                    torch.index_select(potential, 0, recorded, out=kept)
                on_device[:, slot[frame]] = (potential if kept is None else kept).T
        responses[model] = on_device
        last[model] = potential.T
    return Integrated(responses.numpy(), last.numpy())


class _Structure:
    """The part of a network that all models share, on a device: rows of the sparse matrix are targets."""

    def __init__(self, network: Network, device: str) -> None:
        order = np.lexsort((network.source, network.target))
        first = np.zeros(network.n_cells + 1, dtype=np.int32)
        np.cumsum(np.bincount(network.target, minlength=network.n_cells), out=first[1:])

        # Torch warns once a process that its CSR format is a beta; the parity tests hold what is used of it.
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
            torch.zeros((1, 1), device=device).to_sparse_csr()

        def put(values: NDArray[np.generic]) -> torch.Tensor:
            return torch.as_tensor(np.ascontiguousarray(values), device=device)

        self.first_edge = put(first)
        self.source = put(network.source[order].astype(np.int32))
        self.target = put(network.target[order])
        self.pair = put(network.pair[order])
        self.signed_synapses = put(network.signed_synapses[order].astype(np.float32))
        self.cell_type = put(network.cell_type)
        self.input_cell = put(np.flatnonzero(network.is_input))
        self.input_column = put(network.column[network.is_input])

    def matrix(self, weight: torch.Tensor, n_cells: int) -> torch.Tensor:
        """Sparse matrix (target, source); int32 indices are what the fast products want."""
        return torch.sparse_csr_tensor(self.first_edge, self.source, weight, (n_cells, n_cells), check_invariants=False)


@lru_cache(maxsize=4)
def _structure(network: Network, device: str) -> _Structure:
    return _Structure(network, device)


def _of_cells(of_types: NDArray[np.floating], structure: _Structure) -> torch.Tensor:
    values = torch.as_tensor(of_types, dtype=torch.float32, device=structure.cell_type.device)
    return values[structure.cell_type, None]


@contextmanager
def _denormals_flushed() -> Iterator[None]:
    """Responses that fade to nothing stay fast; the setting of the thread is put back."""
    flushed_before = bool(torch.tensor([1e-40]) * 1 == 0)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(flushed_before)
