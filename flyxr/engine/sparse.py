"""Explicit Euler in torch, with gradients: one sparse product a step for all samples of a model.

This is the engine of GPUs. On the CPU :func:`respond` has the same numbers, and their gradients, from the kernels of
:mod:`flyxr.engine.lattice`; :func:`integrate` is the sparse product wherever it runs.
"""

from __future__ import annotations

import math
import warnings
from contextlib import contextmanager
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from flyxr.engine import lattice
from flyxr.engine.base import Integrated, Network, Parameters

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

KEPT_BYTES = 2**30
"""Memory for the states that :func:`respond` keeps for a gradient, where the caller does not say how many to keep."""
_PRODUCT_WIDTH = 64
"""Samples × frames of one product for the gradient of the synapse strengths: wider would leave the caches."""
_STENCIL = frozenset({("cpu", torch.float32), ("cpu", torch.float64)})
"""Devices and dtypes that the stencil knows, and is faster for; tests empty it to hold the sparse product to the same."""


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
    shape, n_cells = (len(parameters.bias), n_samples), network.n_cells
    n_recorded = n_frames if frames is None else len(frames), n_cells if cells is None else len(cells)
    responses, last = torch.empty((*shape, *n_recorded)), torch.empty((*shape, n_cells))

    def put(values: NDArray[np.floating]) -> torch.Tensor:
        return torch.as_tensor(values, dtype=torch.float32, device=device)

    luminance = put(stimulus)
    readable = None if cells is None else np.maximum(cells, 0)
    with torch.no_grad():
        for model in range(shape[0]):
            of_model = TorchParameters(*(put(values[model])[None] for values in parameters))
            start = None if state is None else put(state[model])[None]
            prepared = _prepare(network, of_model, luminance, dt, start, readable, frames, None)
            got = _by_products(*prepared)
            on_host = got.responses[0].cpu()
            for slot in range(responses.shape[2]):  # all at once would transpose outside the caches
                responses[model, :, slot] = on_host[:, slot]
            last[model].copy_(got.state[0])
    if cells is not None:
        responses[..., np.asarray(cells) < 0] = math.nan
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
        back. 1 keeps all and is fastest. Without it, the smallest number for which states take at most
        :data:`KEPT_BYTES`, or the number for which they take least.

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
    given = _prepare(network, parameters, stimulus, dt, state, cells, frames, checkpoint)
    stencil = (parameters.bias.device.type, parameters.bias.dtype) in _STENCIL
    return TorchIntegrated(*_RespondByStencil.apply(*given)) if stencil else _by_products(*given)  # type: ignore[no-untyped-call]


class _Inputs(NamedTuple):
    """What there is a gradient of, (model, …), then network, record, and frames from one kept state to the next."""

    bias: torch.Tensor
    rate: torch.Tensor
    strength: torch.Tensor
    stimulus: torch.Tensor
    state: torch.Tensor
    network: Network
    cells: NDArray[np.integer] | None
    frames: NDArray[np.integer] | None
    interval: int | None


def _prepare(
    network: Network,
    parameters: TorchParameters,
    stimulus: torch.Tensor,
    dt: float,
    state: torch.Tensor | None,
    cells: NDArray[np.integer] | None,
    frames: NDArray[np.integer] | None,
    checkpoint: int | None,
) -> _Inputs:
    """Inputs in one dtype, on one device, of all models and samples; the interval is None without a gradient."""
    bias, time_constant, strength = parameters
    n_models, (n_samples, n_frames, n_columns) = len(bias), stimulus.shape[-3:]
    stimulus = stimulus.to(bias).expand(n_models, n_samples, n_frames, n_columns)
    rate = bias.new_tensor(dt) / time_constant.clamp(min=dt)
    if state is None:
        state = bias[:, None, torch.as_tensor(network.cell_type, device=bias.device).long()]
    state = state.to(bias).expand(n_models, n_samples, network.n_cells)
    interval = None
    if torch.is_grad_enabled() and any(of.requires_grad for of in (bias, rate, strength, stimulus, state)):
        interval = checkpoint
        if interval is None:
            bytes_of_state = network.n_cells * n_samples * bias.element_size()
            interval = _frames_between_kept(n_models, n_frames, KEPT_BYTES // max(bytes_of_state, 1))
        interval = min(interval, max(n_frames, 1))
    return _Inputs(bias, rate, strength, stimulus, state, network, cells, frames, interval)


def _frames_between_kept(n_models: int, n_frames: int, n_states: int) -> int:
    """Smallest interval at which the states kept, and those of one interval, are at most so many, or fewest."""
    fewest = max(1, min(n_frames, math.isqrt(n_models * n_frames)))
    intervals = range(1, fewest)
    return next((k for k in intervals if n_models * (math.ceil(n_frames / k) + 1) + k <= n_states), fewest)


class _RespondByStencil(torch.autograd.Function):
    """All models and samples by the kernels for the CPU; arrays as :func:`respond` takes and returns them."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        given = _Inputs(*inputs)
        network, n_frames = given.network, given.stimulus.shape[2]
        cells = np.arange(network.n_cells) if given.cells is None else np.asarray(given.cells)
        record = lattice.record(network, n_frames, cells, given.frames)
        n_recorded = n_frames if given.frames is None else len(given.frames)
        responses = given.bias.new_empty((*given.state.shape[:2], n_recorded, len(cells)))
        last, kept = lattice.forward(
            network,
            lattice.Models(*(tensor.detach().contiguous().numpy() for tensor in given[:3])),
            given.stimulus.detach().numpy(),
            given.state.detach().numpy(),
            record,
            responses.numpy(),
            interval=given.interval,
            within=_denormals_flushed,
        )
        ctx.save_for_backward(*given[:4], torch.from_numpy(kept))
        ctx.rest = network, record, cells, given.interval
        return responses, torch.from_numpy(last)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, of_responses: torch.Tensor, of_last: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        *of_models, stimulus, kept = (tensor.contiguous().numpy() for tensor in ctx.saved_tensors)
        network, record, cells, interval = ctx.rest
        _, _, with_strength, with_stimulus, *_ = ctx.needs_input_grad
        got = lattice.backward(
            network,
            lattice.Models(*of_models),
            stimulus,
            kept,
            interval,
            record,
            cells,
            of_responses.contiguous().numpy(),
            of_last.numpy(),
            with_strength=with_strength,
            with_stimulus=with_stimulus,
            within=_denormals_flushed,
        )
        return *(None if values is None else torch.from_numpy(values) for values in got), None, None, None, None


def _by_products(
    bias: torch.Tensor,
    rate: torch.Tensor,
    strength: torch.Tensor,
    stimulus: torch.Tensor,
    state: torch.Tensor,
    network: Network,
    cells: NDArray[np.integer] | None,
    frames: NDArray[np.integer] | None,
    interval: int | None,
) -> TorchIntegrated:
    """Responses by sparse products, in which samples come last."""
    n_frames = stimulus.shape[2]
    recorded = range(n_frames) if frames is None else frames.tolist()
    record = _Record(
        {frame: slot for slot, frame in enumerate(recorded)},
        None if cells is None else torch.as_tensor(cells, device=bias.device),
    )
    with _denormals_flushed():
        responses, last = _RespondByProducts.apply(  # type: ignore[no-untyped-call]
            *(bias, rate, strength, stimulus.permute(0, 2, 3, 1), state.transpose(1, 2)),
            *(network, record, max(n_frames, 1) if interval is None else interval),
        )
    return TorchIntegrated(responses.permute(0, 3, 1, 2), last.transpose(1, 2))


class _RespondByProducts(torch.autograd.Function):
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
def _denormals_flushed() -> Iterator[None]:
    """Responses that fade to nothing stay fast; the setting of the thread is put back."""
    flushed_before = bool(torch.tensor([1e-40]) * 1 == 0)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(flushed_before)
