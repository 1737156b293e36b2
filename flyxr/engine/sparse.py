"""Explicit Euler in torch, on CPU or GPU, with gradients: one sparse product a step for all samples of a model."""

from __future__ import annotations

import math
import warnings
from contextlib import contextmanager
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from flyxr.engine.base import Integrated, Network, Parameters

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

KEPT_BYTES = 2**30
"""Memory for the states that :func:`respond` keeps for a gradient, where the caller does not say how many to keep."""
_PRODUCT_WIDTH = 64
"""Samples × frames of one product for the gradient of the synapse strengths: wider would leave the caches."""


class TorchParameters(NamedTuple):
    """Free parameters of some models, as :class:`flyxr.engine.base.Parameters`, in tensors of one dtype and device.

    ``bias`` and ``time_constant`` (s) are (model, cell_type), ``synapse_strength`` is (model, pair).
    """

    bias: torch.Tensor
    time_constant: torch.Tensor
    synapse_strength: torch.Tensor


class TorchIntegrated(NamedTuple):
    """Responses (model, sample, recorded frame, recorded cell) and the last state (model, sample, cell)."""

    responses: torch.Tensor
    state: torch.Tensor


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
    """Integrate all models for all samples in float32; see :class:`flyxr.engine.base.Engine`.

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
    n_samples, n_frames, _ = stimulus.shape
    shape = len(parameters.bias), n_samples
    responses = torch.empty(
        (*shape, n_frames if frames is None else len(frames), network.n_cells if cells is None else len(cells))
    )
    last = torch.empty((*shape, network.n_cells))

    def put(values: NDArray[np.floating]) -> torch.Tensor:
        return torch.as_tensor(values, dtype=torch.float32, device=device)

    luminance = put(stimulus)
    with torch.no_grad():
        for model in range(len(parameters.bias)):
            of_model = TorchParameters(*(put(values[model : model + 1]) for values in parameters))
            start = None if state is None else put(state[model : model + 1])
            got = respond(network, of_model, luminance, dt, state=start, cells=cells, frames=frames)
            responses[model].flatten(1).copy_(got.responses[0].flatten(1))  # two dims: torch transposes by blocks
            last[model].copy_(got.state[0])
    return Integrated(responses.numpy(), last.numpy())


def respond(
    network: Network,
    parameters: TorchParameters,
    stimulus: torch.Tensor,
    dt: float,
    *,
    state: torch.Tensor | None = None,
    cells: NDArray[np.integer] | None = None,
    frames: NDArray[np.integer] | None = None,
    checkpoint: int | None = None,
) -> TorchIntegrated:
    """Responses that :mod:`torch.autograd` differentiates in parameters, stimulus and initial state.

    The numbers are those of :func:`integrate`; dtype and device are those of the parameters. The gradient comes from
    the adjoint of the Euler step, not from a graph of operations. It can be taken once, not a second time of itself.

    Parameters
    ----------
    network, parameters
        The models; explicit Euler with the equations of Lappalainen et al. 2024.
    stimulus : (sample, frame, column) or (model, sample, frame, column)
        Luminance, one integration step a frame.
    dt
        Step, s.
    state : (model, sample or 1, cell), optional
        State before the first frame; without it rest, where the potential is the bias.
    cells : (recorded cell,) int, optional
        Cells to record; without it all.
    frames : (recorded frame,) int, optional
        Frames to record, ascending; without it all. A response is the state after its frame.
    checkpoint
        Frames from one state that is kept for the gradient to the next; those between are integrated again on the way
        back. 1 keeps all and is fastest. Without it the smallest number for which states take :data:`KEPT_BYTES`, or
        the one that takes least where none does.

    Returns
    -------
    TorchIntegrated
        Responses (model, sample, recorded frame, recorded cell) and the last state (model, sample, cell).

    Raises
    ------
    ValueError
        If ``checkpoint`` is not positive.

    Notes
    -----
    Where a derivative does not exist, a potential of 0 counts as silent, and a time constant equal to ``dt`` as one
    above it, so that training can lift it again; time constants below ``dt`` have gradient 0.

    Examples
    --------
    >>> from flyxr import testing
    >>> network, parameters = testing.tiny_network()
    >>> tensors = TorchParameters(*(torch.as_tensor(values).requires_grad_() for values in parameters))
    >>> responses = respond(network, tensors, torch.ones((2, 5, network.n_columns)), 0.01).responses
    >>> responses.shape
    torch.Size([1, 2, 5, 21])
    >>> responses.square().mean().backward()
    >>> tensors.synapse_strength.grad.shape
    torch.Size([1, 3])
    """
    if checkpoint is not None and checkpoint < 1:
        raise ValueError(f"expected checkpoint as a number of frames from 1 up, got {checkpoint}")
    bias, time_constant, strength = parameters
    n_models, (n_samples, n_frames, n_columns) = len(bias), stimulus.shape[-3:]
    stimulus = stimulus.to(bias).expand(n_models, n_samples, n_frames, n_columns)
    rate = dt / time_constant.clamp(min=dt)
    if state is None:
        state = bias[:, None, _structure(network, str(bias.device)).cell_type]
    state = state.to(bias).expand(n_models, n_samples, network.n_cells)
    inputs = (bias, rate, strength, stimulus.permute(0, 2, 3, 1), state.transpose(1, 2))
    if not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs)):
        checkpoint = max(n_frames, 1)
    elif checkpoint is None:
        bytes_of_state = network.n_cells * n_samples * bias.element_size()
        checkpoint = _frames_between_kept(n_models, n_frames, KEPT_BYTES // bytes_of_state)
    record = _Record(cells, frames, n_frames, bias.device)
    with _denormals_flushed():
        responses, last = _Respond.apply(*inputs, network, record, checkpoint)  # type: ignore[no-untyped-call]
    return TorchIntegrated(responses.permute(0, 3, 1, 2), last.transpose(1, 2))


def _frames_between_kept(n_models: int, n_frames: int, n_states: int) -> int:
    """Smallest interval at which the states kept, and those of one interval, are at most so many, or fewest."""
    fewest = max(1, min(n_frames, math.isqrt(n_models * n_frames)))
    intervals = range(1, fewest)
    return next((k for k in intervals if n_models * (math.ceil(n_frames / k) + 1) + k <= n_states), fewest)


class _Respond(torch.autograd.Function):
    """Euler steps and their adjoint for all models, one after the other; samples are the last axis of all arrays.

    With g the gradient of a state and q = rate g, the gradient of the state one step before is
    ``g - q + [V > 0] W^T q``. The gradients of bias and input are sums of q, that of a rate sums g times the change
    without its rate, and that of a synapse strength sums ``signed_synapses q_target max(V_source, 0)`` over its edges.
    """

    @staticmethod
    def forward(
        ctx: Any,
        bias: torch.Tensor,
        rate: torch.Tensor,
        strength: torch.Tensor,
        stimulus: torch.Tensor,
        state: torch.Tensor,
        network: Network,
        record: _Record,
        interval: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        (n_models, n_frames), (n_cells, n_samples) = stimulus.shape[:2], state.shape[1:]
        n_recorded = n_cells if record.cells is None else len(record.cells)
        responses = bias.new_empty((n_models, len(record.slot), n_recorded, n_samples))
        # The state before each interval, and the last.
        kept = bias.new_empty((n_models, math.ceil(n_frames / interval) + 1, n_cells, n_samples))
        unkept = torch.empty_like(kept[0, 0])
        euler = _Euler(network, kept)
        for model in range(n_models):
            euler.load(bias[model], rate[model], strength[model])
            luminance = stimulus[model].contiguous()
            before = kept[model, 0].copy_(state[model])
            for frame in range(n_frames):
                stop = frame + 1
                ends = stop % interval == 0 or stop == n_frames
                after = kept[model, math.ceil(stop / interval)] if ends else unkept
                euler.step(before, luminance[frame], out=after)
                record.read(frame, after, responses[model])
                before = after
        ctx.save_for_backward(bias, rate, strength, stimulus, kept)
        ctx.network, ctx.record, ctx.interval = network, record, interval
        return responses, kept[:, -1].clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, of_responses: torch.Tensor, of_last: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        *inputs, kept = ctx.saved_tensors
        adjoint = _Adjoint(ctx.network, ctx.record, ctx.interval, kept, ctx.needs_input_grad)
        with _denormals_flushed():
            of_models = [adjoint.run(*of_model) for of_model in zip(*inputs, kept, of_responses, of_last, strict=True)]
        gradients = [torch.stack(of) if need else None for of, need in zip(zip(*of_models, strict=True), ctx.needs_input_grad, strict=False)]
        return (*gradients, None, None, None)


class _Adjoint:
    """The way back through the steps of one model after the other, in buffers made once."""

    def __init__(
        self, network: Network, record: _Record, interval: int, kept: torch.Tensor, needs: tuple[bool, ...]
    ) -> None:
        self.record, self.interval = record, interval
        _, self.of_rate, self.of_strength, self.of_stimulus, *_ = needs
        n_cells, n_samples = kept.shape[2:]
        self.euler = _Euler(network, kept)
        self.unkept = kept.new_empty((interval - 1, n_cells, n_samples))
        self.n_together = max(1, _PRODUCT_WIDTH // n_samples)
        self.scaled = kept.new_empty((n_cells, self.n_together, n_samples))
        self.active = torch.zeros_like(self.scaled)
        self.now, self.back, self.change = (kept.new_empty((n_cells, n_samples)) for _ in range(3))

    def run(
        self,
        bias: torch.Tensor,
        rate: torch.Tensor,
        strength: torch.Tensor,
        stimulus: torch.Tensor,
        kept: torch.Tensor,
        of_responses: torch.Tensor,
        of_last: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        """Gradients of bias, rate, synapse strength, stimulus and state of one model; zero where none is needed."""
        euler, structure, now, back = self.euler, self.euler.structure, self.now, self.back
        euler.load(bias, rate, strength)
        transposed = structure.transposed(euler.matrix.values())
        luminance = stimulus.contiguous()
        of_bias, of_rate, of_edge = kept.new_zeros(len(now)), torch.zeros_like(now), torch.zeros_like(euler.matrix)
        of_luminance = torch.zeros_like(luminance)
        gradient = of_last.clone(memory_format=torch.contiguous_format)
        self.scaled.zero_()  # the last frames may not fill a product
        states: list[torch.Tensor] = []
        for frame in reversed(range(len(luminance))):
            if len(states) < 2:
                states = self._states(kept, luminance, frame)
            after, before = states.pop(), states[-1]
            self.record.add(frame, of_responses, gradient)
            torch.mul(euler.rate, gradient, out=now)
            torch.addmm(back, transposed, now, beta=0, out=back)
            torch.ops.aten.threshold_backward.grad_input(back, before, 0, grad_input=back)
            if self.of_rate:
                of_rate.addcmul_(gradient, torch.sub(after, before, out=self.change))
            gradient.sub_(now).add_(back)

            place = frame % self.n_together
            self.scaled[:, place] = now
            if self.of_strength:
                torch.clamp(before, min=0, out=self.active[:, place])
            if place == 0:
                of_bias += self.scaled.sum((1, 2))
                if self.of_strength:
                    torch.sparse.sampled_addmm(of_edge, self.scaled.flatten(1), self.active.flatten(1).T, out=of_edge)
                if self.of_stimulus:
                    here = of_luminance[frame : frame + self.n_together].transpose(0, 1)
                    here.index_add_(0, structure.input_column, self.scaled[structure.input_cell, : here.shape[1]])
        of_pairs = torch.zeros_like(strength).index_add_(0, structure.pair, structure.signed_synapses * of_edge.values())
        of_rates = structure.of_types(of_rate.sum(1) / euler.rate[:, 0], rate)
        return structure.of_types(of_bias, bias), of_rates, of_pairs, of_luminance, gradient

    def _states(self, kept: torch.Tensor, luminance: torch.Tensor, last: int) -> list[torch.Tensor]:
        """States before the frames of an interval up to its last frame, and after that frame."""
        before, first = last // self.interval, last // self.interval * self.interval
        states = [kept[before]]
        for frame in range(first, last):
            self.euler.step(states[-1], luminance[frame], out=self.unkept[frame - first])
            states.append(self.unkept[frame - first])
        return [*states, kept[before + 1]]


class _Euler:
    """Euler steps of one model after the other for some samples, in buffers made once."""

    def __init__(self, network: Network, like: torch.Tensor) -> None:
        self.structure = _structure(network, str(like.device))
        self.active, self.change = (like.new_empty(like.shape[-2:]) for _ in range(2))
        self.x = like.new_empty((len(self.structure.input_cell), like.shape[-1]))

    def load(self, bias: torch.Tensor, rate: torch.Tensor, strength: torch.Tensor) -> None:
        """Take the parameters of a model: bias and rate (cell_type,), strength (pair,)."""
        structure = self.structure
        self.bias, self.rate = bias[structure.cell_type, None], rate[structure.cell_type, None]
        self.matrix = structure.matrix(structure.signed_synapses * strength[structure.pair])

    def step(self, potential: torch.Tensor, luminance: torch.Tensor, out: torch.Tensor) -> None:
        """Potential (cell, sample) after a frame (column, sample), into ``out``, which may be the same."""
        torch.clamp(potential, min=0, out=self.active)
        torch.sub(self.bias, potential, out=self.change)
        torch.index_select(luminance, 0, self.structure.input_column, out=self.x)
        self.change.index_add_(0, self.structure.input_cell, self.x)
        torch.addmm(self.change, self.matrix, self.active, out=self.change)
        torch.addcmul(potential, self.rate, self.change, out=out)


class _Record:
    """Which frames are recorded, and which cells."""

    def __init__(
        self,
        cells: NDArray[np.integer] | None,
        frames: NDArray[np.integer] | None,
        n_frames: int,
        device: torch.device,
    ) -> None:
        self.cells = None if cells is None else torch.as_tensor(cells, device=device)
        self.slot = {frame: slot for slot, frame in enumerate(range(n_frames) if frames is None else frames.tolist())}

    def read(self, frame: int, potential: torch.Tensor, responses: torch.Tensor) -> None:
        """Copy what is recorded of a potential (cell, sample) into responses (recorded frame, recorded cell, sample)."""
        if frame in self.slot and self.cells is None:
            responses[self.slot[frame]] = potential
        elif frame in self.slot:
            torch.index_select(potential, 0, self.cells, out=responses[self.slot[frame]])

    def add(self, frame: int, responses: torch.Tensor, potential: torch.Tensor) -> None:
        """Add the responses to a frame to what they were read from."""
        if frame in self.slot and self.cells is None:
            potential.add_(responses[self.slot[frame]])
        elif frame in self.slot:
            potential.index_add_(0, self.cells, responses[self.slot[frame]])


class _Structure:
    """The part of a network that all models share, on a device: rows of the sparse matrix are targets."""

    def __init__(self, network: Network, device: str) -> None:
        self.n_cells = network.n_cells
        order = np.lexsort((network.source, network.target))

        # Torch warns once a process that its CSR format is a beta; the parity tests hold what is used of it.
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
            torch.zeros((1, 1), device=device).to_sparse_csr()

        def put(values: NDArray[np.generic]) -> torch.Tensor:
            return torch.as_tensor(np.ascontiguousarray(values), device=device)

        self.first_edge = put(_first_of_rows(network.target, network.n_cells))
        self.source = put(network.source[order].astype(np.int32))
        self.target = put(network.target[order])
        self.pair = put(network.pair[order])
        self.signed_synapses = put(network.signed_synapses[order].astype(np.float32))
        self.cell_type = put(network.cell_type)
        self.input_cell = put(np.flatnonzero(network.is_input))
        self.input_column = put(network.column[network.is_input])

    def matrix(self, weight: torch.Tensor) -> torch.Tensor:
        """Sparse matrix (target, source); int32 indices are what the fast products want."""
        return self._csr(self.first_edge, self.source, weight)

    def transposed(self, weight: torch.Tensor) -> torch.Tensor:
        """Sparse matrix (source, target) of the same weights."""
        first_edge, target, edge = self._by_source
        return self._csr(first_edge, target, weight[edge])

    def of_types(self, of_cells: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """Sums over the cells of each type."""
        return torch.zeros_like(like).index_add_(0, self.cell_type, of_cells)

    @cached_property
    def _by_source(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """First edges, targets and positions of the edges in the order of their sources; made for gradients only."""
        network = self.network
        source, target = network.source[self.order], network.target[self.order]
        order = np.lexsort((target, source))
        first = _first_of_rows(source, network.n_cells)
        return self.put(first), self.put(target[order].astype(np.int32)), self.put(order)

    def _csr(self, first: torch.Tensor, column: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return torch.sparse_csr_tensor(first, column, weight, (self.n_cells, self.n_cells), check_invariants=False)


def _first_of_rows(row: NDArray[np.integer], n_rows: int) -> NDArray[np.int32]:
    first = np.zeros(n_rows + 1, dtype=np.int32)
    np.cumsum(np.bincount(row, minlength=n_rows), out=first[1:])
    return first


@lru_cache(maxsize=4)
def _structure(network: Network, device: str) -> _Structure:
    return _Structure(network, device)


@contextmanager
def _denormals_flushed() -> Iterator[None]:
    """Responses that fade to nothing stay fast; the setting of the thread is put back."""
    flushed_before = bool(torch.tensor([1e-40]) * 1 == 0)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(flushed_before)
