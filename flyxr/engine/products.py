"""Euler steps and their adjoint as products with a sparse matrix in torch, on any device."""

from __future__ import annotations

import math
import warnings
from contextlib import contextmanager
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from flyxr.engine.base import Network

_PRODUCT_WIDTH = 64
"""Samples × frames of one product for the gradient of the synapse strengths: wider would leave the caches."""


class Inputs(NamedTuple):
    """What responses come from, in tensors of one dtype and device.

    ``bias``, ``rate`` (dt over the time constant; model, cell_type), ``strength`` (model, pair), ``stimulus`` (model,
    sample, frame, column) and ``state`` (model, sample, cell); then what is recorded, and the frames from one state
    that is kept for a gradient to the next, None where there will be no gradient.
    """

    bias: torch.Tensor
    rate: torch.Tensor
    strength: torch.Tensor
    stimulus: torch.Tensor
    state: torch.Tensor
    network: Network
    cells: NDArray[np.integer] | None
    frames: NDArray[np.integer] | None
    interval: int | None


def respond(given: Inputs) -> tuple[torch.Tensor, torch.Tensor]:
    """Responses (model, sample, recorded frame, recorded cell) and last state; inside, samples come last."""
    n_frames, interval = given.stimulus.shape[2], given.interval
    recorded = range(n_frames) if given.frames is None else given.frames.tolist()
    record = _Record(
        {frame: slot for slot, frame in enumerate(recorded)},
        None if given.cells is None else torch.as_tensor(given.cells, device=given.bias.device),
    )
    with denormals_flushed():
        responses, last = _Respond.apply(  # type: ignore[no-untyped-call]
            *given[:3],
            given.stimulus.permute(0, 2, 3, 1),
            given.state.transpose(1, 2),
            *(given.network, record, max(n_frames, 1) if interval is None else interval),
        )
    return responses.permute(0, 3, 1, 2), last.transpose(1, 2)


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
        bias, rates, strength, stimulus, kept = ctx.saved_tensors
        _, needs_rate, needs_strength, needs_stimulus, *_ = ctx.needs_input_grad
        of_bias, of_rates, of_strength = (torch.zeros_like(of) for of in (bias, rates, strength))
        of_stimulus, gradients = torch.zeros_like(stimulus), of_last.clone(memory_format=torch.contiguous_format)

        euler = _Euler(ctx.network, kept)
        structure, edges = euler.structure, euler.structure.by_target
        n_frames, (n_cells, n_samples) = stimulus.shape[1], kept.shape[2:]
        n_together = max(1, _PRODUCT_WIDTH // n_samples)  # frames of one product for the synapse strengths
        unkept = kept.new_empty((ctx.interval - 1, n_cells, n_samples))
        scaled, active = (kept.new_zeros((n_cells, n_together, n_samples)) for _ in range(2))
        now, back, change, by_rate = (kept.new_empty((n_cells, n_samples)) for _ in range(4))
        for model, gradient in enumerate(gradients):
            euler.load(bias[model], rates[model], strength[model], steps=ctx.interval > 1)
            luminance, decay = stimulus[model].contiguous(), 1 - euler.rate
            transposed = structure.by_source.matrix(structure.by_source.weight(strength[model]))
            by_cell, by_edge = kept.new_zeros(n_cells), edges.matrix(kept.new_zeros(len(edges.pair)))
            by_rate.zero_()
            scaled.zero_()  # the last frames may not fill a product
            states: list[torch.Tensor] = []
            for frame in reversed(range(n_frames)):
                if len(states) < 2:
                    states = euler.between(kept[model], luminance, frame, unkept)
                after, before = states.pop(), states[-1]
                ctx.record.add(frame, of_responses[model], gradient)
                torch.mul(euler.rate, gradient, out=now)
                torch.addmm(back, transposed, now, beta=0, out=back)
                torch.ops.aten.threshold_backward.grad_input(back, before, 0, grad_input=back)
                if needs_rate:
                    by_rate.addcmul_(gradient, torch.sub(after, before, out=change))
                torch.addcmul(back, decay, gradient, out=gradient)

                place = frame % n_together
                scaled[:, place] = now
                if needs_strength:
                    torch.clamp(before, min=0, out=active[:, place])
                if place == 0:
                    by_cell += scaled.sum((1, 2))
                    if needs_strength:
                        torch.sparse.sampled_addmm(by_edge, scaled.flatten(1), active.flatten(1).T, out=by_edge)
                    if needs_stimulus:
                        here = of_stimulus[model, frame : frame + n_together].transpose(0, 1)
                        here.index_add_(0, structure.input_column, scaled[structure.input_cell, : here.shape[1]])
            of_bias[model].index_add_(0, structure.cell_type, by_cell)
            of_rates[model].index_add_(0, structure.cell_type, by_rate.div_(euler.rate).sum(1))
            of_strength[model].index_add_(0, edges.pair, edges.signed_synapses * by_edge.values())
        return of_bias, of_rates, of_strength, of_stimulus, gradients, None, None, None


class _Euler:
    """Euler steps of one model after the other for some samples, in buffers made once."""

    def __init__(self, network: Network, like: torch.Tensor) -> None:
        self.structure = _structure(network, str(like.device))
        self.active, self.change = (like.new_empty(like.shape[-2:]) for _ in range(2))
        self.x = like.new_empty((len(self.structure.input_cell), like.shape[-1]))

    def load(self, bias: torch.Tensor, rate: torch.Tensor, strength: torch.Tensor, steps: bool = True) -> None:
        """Take the parameters of a model, bias and rate (cell_type,), strength (pair,); all that steps want or not."""
        edges, cell_type = self.structure.by_target, self.structure.cell_type
        self.bias, self.rate = bias[cell_type, None], rate[cell_type, None]
        if steps:
            self.matrix = edges.matrix(edges.weight(strength))

    def step(self, potential: torch.Tensor, luminance: torch.Tensor, out: torch.Tensor) -> None:
        """Potential (cell, sample) after a frame (column, sample), into ``out``, which may be the same."""
        torch.clamp(potential, min=0, out=self.active)
        torch.sub(self.bias, potential, out=self.change)
        torch.index_select(luminance, 0, self.structure.input_column, out=self.x)
        self.change.index_add_(0, self.structure.input_cell, self.x)
        torch.addmm(self.change, self.matrix, self.active, out=self.change)
        torch.addcmul(potential, self.rate, self.change, out=out)

    def between(
        self, kept: torch.Tensor, luminance: torch.Tensor, last: int, unkept: torch.Tensor
    ) -> list[torch.Tensor]:
        """States before the frames of an interval up to its last, and after it, where only both ends are kept."""
        interval = last // (len(unkept) + 1)
        first = interval * (len(unkept) + 1)
        states = [kept[interval]]
        for frame in range(first, last):
            self.step(states[-1], luminance[frame], out=unkept[frame - first])
            states.append(unkept[frame - first])
        return [*states, kept[interval + 1]]


class _Record(NamedTuple):
    """Positions of the recorded frames among responses, and the recorded cells where not all are."""

    slot: dict[int, int]
    cells: torch.Tensor | None

    def read(self, frame: int, potential: torch.Tensor, responses: torch.Tensor) -> None:
        """Copy what is recorded of a potential (cell, sample) to responses (frame, recorded cell, sample)."""
        slot = self.slot.get(frame)
        if slot is not None and self.cells is None:
            responses[slot] = potential
        elif slot is not None and self.cells is not None:
            torch.index_select(potential, 0, self.cells, out=responses[slot])

    def add(self, frame: int, responses: torch.Tensor, potential: torch.Tensor) -> None:
        """Add the responses to a frame to what they were read from."""
        slot = self.slot.get(frame)
        if slot is not None and self.cells is None:
            potential.add_(responses[slot])
        elif slot is not None and self.cells is not None:
            potential.index_add_(0, self.cells, responses[slot])


class _Structure:
    """The part of a network that all models share, on a device."""

    def __init__(self, network: Network, device: str) -> None:
        # Torch warns once a process that its CSR format is a beta; the parity tests hold what is used of it.
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
            torch.zeros((1, 1), device=device).to_sparse_csr()

        self.network, self.device = network, device
        self.by_target = _Edges(network, network.target, network.source, device)
        self.cell_type = torch.as_tensor(network.cell_type, device=device)
        self.input_cell = torch.as_tensor(np.flatnonzero(network.is_input), device=device)
        self.input_column = torch.as_tensor(network.column[network.is_input], device=device)

    @cached_property
    def by_source(self) -> _Edges:
        """Edges of the transposed matrix, which only gradients need."""
        return _Edges(self.network, self.network.source, self.network.target, self.device)


class _Edges:
    """Edges in the order of a sparse matrix (row, column); int32 indices are what the fast products want."""

    def __init__(self, network: Network, row: NDArray[np.int32], column: NDArray[np.int32], device: str) -> None:
        order = np.lexsort((column, row))
        first = np.zeros(network.n_cells + 1, dtype=np.int32)
        np.cumsum(np.bincount(row, minlength=network.n_cells), out=first[1:])
        self.shape = (network.n_cells, network.n_cells)
        self.first = torch.as_tensor(first, device=device)
        self.column = torch.as_tensor(column[order].astype(np.int32), device=device)
        self.pair = torch.as_tensor(network.pair[order], device=device)
        self.signed_synapses = torch.as_tensor(network.signed_synapses[order].astype(np.float32), device=device)

    def weight(self, strength: torch.Tensor) -> torch.Tensor:
        """Weight of each edge."""
        return self.signed_synapses * strength[self.pair]

    def matrix(self, values: torch.Tensor) -> torch.Tensor:
        """Sparse matrix of values of the edges."""
        return torch.sparse_csr_tensor(self.first, self.column, values, self.shape, check_invariants=False)


@lru_cache(maxsize=4)
def _structure(network: Network, device: str) -> _Structure:
    return _Structure(network, device)


@contextmanager
def denormals_flushed() -> Iterator[None]:
    """Responses that fade to nothing stay fast; the setting of the thread is put back."""
    flushed_before = bool(torch.tensor([1e-40]) * 1 == 0)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(flushed_before)
