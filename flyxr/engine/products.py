"""Euler steps and their adjoint as products with a sparse matrix in torch, on any device."""

from __future__ import annotations

import logging
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

_log = logging.getLogger(__name__)

_PRODUCT_WIDTH = 64
"""Samples × frames of one product for the gradient of the synapse strengths; more would not fit the caches."""


class Inputs(NamedTuple):
    """Inputs of a simulation, in tensors of one dtype and device.

    ``bias`` and ``rate`` (dt over the time constant) are (model, cell_type), ``strength`` is (model, pair),
    ``stimulus`` (model, sample, frame, column) and ``state`` (model, sample, cell). ``cells`` and ``frames`` are
    recorded, all if None. ``interval`` is the number of frames from one state that is kept for a gradient to the next,
    None if no gradient is wanted.
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


def respond(inputs: Inputs) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute responses (model, sample, recorded frame, recorded cell) and the last state (model, sample, cell)."""
    n_frames, interval = inputs.stimulus.shape[2], inputs.interval
    frames = range(n_frames) if inputs.frames is None else inputs.frames.tolist()
    recording = _Recording(
        {frame: slot for slot, frame in enumerate(frames)},
        None if inputs.cells is None else torch.as_tensor(inputs.cells, device=inputs.bias.device),
    )
    with denormals_flushed():
        responses, last_state = _ProductFunction.apply(  # type: ignore[no-untyped-call]
            *inputs[:3],
            inputs.stimulus.permute(0, 2, 3, 1),
            inputs.state.transpose(1, 2),
            *(inputs.network, recording, max(n_frames, 1) if interval is None else interval),
        )
    return responses.permute(0, 3, 1, 2), last_state.transpose(1, 2)


class _ProductFunction(torch.autograd.Function):
    """Euler steps and their adjoint for all models, one after the other; samples are the last axis of all arrays.

    With g the gradient of a state and q = rate g, the gradient of the state one step before is
    ``g - q + [V > 0] W^T q``. The gradients of bias and input are sums of q. The gradient of a rate sums g times the
    change without its rate. The gradient of a synapse strength sums ``signed_synapses q_target max(V_source, 0)`` over
    its edges.
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
        recording: _Recording,
        interval: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        (n_models, n_frames), (n_cells, n_samples) = stimulus.shape[:2], state.shape[1:]
        n_recorded = n_cells if recording.cells is None else len(recording.cells)
        responses = bias.new_empty((n_models, len(recording.frame_slot), n_recorded, n_samples))
        # The state before each interval, and the last.
        checkpoints = bias.new_empty((n_models, math.ceil(n_frames / interval) + 1, n_cells, n_samples))
        scratch = torch.empty_like(checkpoints[0, 0])
        stepper = _Stepper(network, checkpoints)
        for model in range(n_models):
            stepper.load(bias[model], rate[model], strength[model])
            luminance = stimulus[model].contiguous()
            potential = checkpoints[model, 0].copy_(state[model])
            for frame in range(n_frames):
                end = frame + 1
                is_kept = end % interval == 0 or end == n_frames
                next_potential = checkpoints[model, math.ceil(end / interval)] if is_kept else scratch
                stepper.step(potential, luminance[frame], out=next_potential)
                recording.read(frame, next_potential, responses[model])
                potential = next_potential
        ctx.save_for_backward(bias, rate, strength, stimulus, checkpoints)
        ctx.network, ctx.recording, ctx.interval = network, recording, interval
        return responses, checkpoints[:, -1].clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(
        ctx: Any, grad_responses: torch.Tensor, grad_last_state: torch.Tensor
    ) -> tuple[torch.Tensor | None, ...]:
        bias, rate, strength, stimulus, checkpoints = ctx.saved_tensors
        _, needs_rate, needs_strength, needs_stimulus, *_ = ctx.needs_input_grad
        grad_bias, grad_rate, grad_strength = (torch.zeros_like(tensor) for tensor in (bias, rate, strength))
        grad_stimulus = torch.zeros_like(stimulus)
        grad_states = grad_last_state.clone(memory_format=torch.contiguous_format)

        stepper = _Stepper(ctx.network, checkpoints)
        structure, edges = stepper.structure, stepper.structure.by_target
        n_frames, (n_cells, n_samples) = stimulus.shape[1], checkpoints.shape[2:]
        frames_per_product = max(1, _PRODUCT_WIDTH // n_samples)
        scratch = checkpoints.new_empty((ctx.interval - 1, n_cells, n_samples))
        # Rate times gradient, and activity, of the frames of one product for the synapse strengths.
        scaled, activity = (checkpoints.new_zeros((n_cells, frames_per_product, n_samples)) for _ in range(2))
        scaled_grad, synaptic_grad, change, rate_sum = (checkpoints.new_empty((n_cells, n_samples)) for _ in range(4))
        for model, grad in enumerate(grad_states):
            stepper.load(bias[model], rate[model], strength[model], needs_steps=ctx.interval > 1)
            luminance, decay = stimulus[model].contiguous(), 1 - stepper.rate
            transposed = structure.by_source.matrix(structure.by_source.weight(strength[model]))
            cell_sum, edge_sum = checkpoints.new_zeros(n_cells), edges.matrix(checkpoints.new_zeros(len(edges.pair)))
            rate_sum.zero_()
            scaled.zero_()  # the last frames may not fill a product
            states: list[torch.Tensor] = []
            for frame in reversed(range(n_frames)):
                if len(states) < 2:
                    states = stepper.recompute(checkpoints[model], luminance, frame, scratch)
                next_potential, potential = states.pop(), states[-1]
                ctx.recording.add(frame, grad_responses[model], grad)
                torch.mul(stepper.rate, grad, out=scaled_grad)
                torch.addmm(synaptic_grad, transposed, scaled_grad, beta=0, out=synaptic_grad)
                torch.ops.aten.threshold_backward.grad_input(synaptic_grad, potential, 0, grad_input=synaptic_grad)
                if needs_rate:
                    rate_sum.addcmul_(grad, torch.sub(next_potential, potential, out=change))
                torch.addcmul(synaptic_grad, decay, grad, out=grad)

                slot = frame % frames_per_product
                scaled[:, slot] = scaled_grad
                if needs_strength:
                    torch.clamp(potential, min=0, out=activity[:, slot])
                if slot == 0:
                    cell_sum += scaled.sum((1, 2))
                    if needs_strength:
                        torch.sparse.sampled_addmm(edge_sum, scaled.flatten(1), activity.flatten(1).T, out=edge_sum)
                    if needs_stimulus:
                        grad_frames = grad_stimulus[model, frame : frame + frames_per_product].transpose(0, 1)
                        grad_inputs = scaled[structure.input_cell, : grad_frames.shape[1]]
                        grad_frames.index_add_(0, structure.input_column, grad_inputs)
            grad_bias[model].index_add_(0, structure.cell_type, cell_sum)
            grad_rate[model].index_add_(0, structure.cell_type, rate_sum.div_(stepper.rate).sum(1))
            grad_strength[model].index_add_(0, edges.pair, edges.signed_synapses * edge_sum.values())
        return grad_bias, grad_rate, grad_strength, grad_stimulus, grad_states, None, None, None


class FrameStepper:
    """Euler steps of some models for some samples, one frame at a time, without gradients.

    All models share one product with a block-diagonal matrix. All buffers are allocated once. On a GPU, a step is a
    CUDA graph, which the host starts without waiting for it.

    Parameters
    ----------
    network
        Cells and edges.
    bias, rate, strength
        Parameters (model, cell_type), (model, cell_type) and (model, pair) on one device.
    n_samples
        Number of samples.
    cells : (recorded cell,)
        Cells to record.

    Attributes
    ----------
    responses : (model, sample, recorded cell)
        Responses to the last frame.
    states : (model, cell, sample)
        The state, which begins at 0. It may be changed in place.
    """

    def __init__(
        self,
        network: Network,
        bias: torch.Tensor,
        rate: torch.Tensor,
        strength: torch.Tensor,
        n_samples: int,
        cells: NDArray[np.integer],
    ) -> None:
        n_models = len(bias)
        self.responses = bias.new_zeros((n_models, n_samples, len(cells)))
        self.states = bias.new_zeros((n_models, network.n_cells, n_samples))
        self._potential = self.states.view(-1, n_samples)
        self._luminance = bias.new_zeros((network.n_columns, n_samples))
        position = np.arange(n_models)[:, None] * network.n_cells + cells
        self._recorded = torch.as_tensor(position.ravel(), device=bias.device)
        self._selected = bias.new_zeros((position.size, n_samples))
        self._stepper = _Stepper(network, self._potential)
        self._stepper.load(bias, rate, strength)
        self._graph = self._capture() if bias.is_cuda else None

    def step(self, luminance: torch.Tensor) -> None:
        """Advance by one frame (sample, column)."""
        self._luminance.copy_(luminance.T)
        if self._graph is None:
            self._advance()
        else:
            self._graph.replay()

    def _advance(self) -> None:
        self._stepper.step(self._potential, self._luminance, out=self._potential)
        torch.index_select(self._potential, 0, self._recorded, out=self._selected)
        n_models, n_samples, n_cells = self.responses.shape
        self.responses.copy_(self._selected.view(n_models, n_cells, n_samples).transpose(1, 2))

    def _capture(self) -> torch.cuda.CUDAGraph | None:
        """Record a step as a CUDA graph; None, with a warning in the log, where that is not possible."""
        device = self.states.device
        stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):  # first calls allocate memory and choose algorithms
            for _ in range(3):
                self._advance()
        torch.cuda.current_stream(device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads may use the GPU meanwhile.
            with torch.cuda.device(device), torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self._advance()
        except RuntimeError as error:
            _log.warning("the steps run without a CUDA graph, and slower: %s", error)
            return None
        finally:
            self.states.zero_()
        return graph


class _Stepper:
    """Euler steps of one model at a time, or of several, for some samples, in buffers allocated once."""

    def __init__(self, network: Network, like: torch.Tensor) -> None:
        self.structure = _structure(network, str(like.device))
        self.activity, self.change = (like.new_empty(like.shape[-2:]) for _ in range(2))
        first_cell = torch.arange(0, like.shape[-2], network.n_cells, device=like.device)[:, None]
        self.input_cell = (first_cell + self.structure.input_cell).flatten()
        self.input_column = self.structure.input_column.repeat(len(first_cell))
        self.input = like.new_empty((len(self.input_cell), like.shape[-1]))

    def load(self, bias: torch.Tensor, rate: torch.Tensor, strength: torch.Tensor, needs_steps: bool = True) -> None:
        """Take parameters: bias and rate ((model,) cell_type), and strength ((model,) pair), which only steps need."""
        edges, cell_type = self.structure.by_target, self.structure.cell_type
        self.bias, self.rate = bias[..., cell_type].reshape(-1, 1), rate[..., cell_type].reshape(-1, 1)
        if needs_steps:
            self.matrix = edges.matrix(edges.weight(strength))

    def step(self, potential: torch.Tensor, luminance: torch.Tensor, out: torch.Tensor) -> None:
        """Compute the potential (cell, sample) after a frame (column, sample); ``out`` may be ``potential``.

        The cells of several models follow each other.
        """
        torch.clamp(potential, min=0, out=self.activity)
        torch.sub(self.bias, potential, out=self.change)
        torch.index_select(luminance, 0, self.input_column, out=self.input)
        self.change.index_add_(0, self.input_cell, self.input)
        torch.addmm(self.change, self.matrix, self.activity, out=self.change)
        torch.addcmul(potential, self.rate, self.change, out=out)

    def recompute(
        self, checkpoints: torch.Tensor, luminance: torch.Tensor, last: int, scratch: torch.Tensor
    ) -> list[torch.Tensor]:
        """States of an interval, from the one before its first frame to the one after ``last``, its last frame."""
        index = last // (len(scratch) + 1)
        first = index * (len(scratch) + 1)
        states = [checkpoints[index]]
        for frame in range(first, last):
            self.step(states[-1], luminance[frame], out=scratch[frame - first])
            states.append(scratch[frame - first])
        return [*states, checkpoints[index + 1]]


class _Recording(NamedTuple):
    """Position of each recorded frame in the responses, and the recorded cells, None if all are."""

    frame_slot: dict[int, int]
    cells: torch.Tensor | None

    def read(self, frame: int, potential: torch.Tensor, responses: torch.Tensor) -> None:
        """Copy the recorded cells of a potential (cell, sample) to responses (frame, recorded cell, sample)."""
        slot = self.frame_slot.get(frame)
        if slot is not None and self.cells is None:
            responses[slot] = potential
        elif slot is not None and self.cells is not None:
            torch.index_select(potential, 0, self.cells, out=responses[slot])

    def add(self, frame: int, grad_responses: torch.Tensor, grad: torch.Tensor) -> None:
        """Add the gradient of the responses to a frame to that of the state (cell, sample) they were read from."""
        slot = self.frame_slot.get(frame)
        if slot is not None and self.cells is None:
            grad.add_(grad_responses[slot])
        elif slot is not None and self.cells is not None:
            grad.index_add_(0, self.cells, grad_responses[slot])


class _Structure:
    """Cells and edges of a network, which all models share, on a device."""

    def __init__(self, network: Network, device: str) -> None:
        # Torch warns once per process that its CSR format is in beta; the parity tests cover what is used of it.
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
        """Edges of the transposed matrix, needed only for gradients."""
        return _Edges(self.network, self.network.source, self.network.target, self.device)


class _Edges:
    """Edges in the order of a sparse matrix (row, column), with the int32 indices that fast products need."""

    def __init__(self, network: Network, row: NDArray[np.int32], column: NDArray[np.int32], device: str) -> None:
        order = np.lexsort((column, row))
        row_start = np.zeros(network.n_cells + 1, dtype=np.int32)
        np.cumsum(np.bincount(row, minlength=network.n_cells), out=row_start[1:])
        self.n_cells = network.n_cells
        self.row_start = torch.as_tensor(row_start, device=device)
        self.column = torch.as_tensor(column[order].astype(np.int32), device=device)
        self.pair = torch.as_tensor(network.pair[order], device=device)
        self.signed_synapses = torch.as_tensor(network.signed_synapses[order].astype(np.float32), device=device)

    def weight(self, strength: torch.Tensor) -> torch.Tensor:
        """Compute the weight of each edge, ((model,) edge)."""
        return self.signed_synapses * strength[..., self.pair]

    def matrix(self, values: torch.Tensor) -> torch.Tensor:
        """Make a sparse matrix from values (edge,), or a block-diagonal one from values (model, edge)."""
        row_start, column, n_models = self.row_start, self.column, len(values) if values.dim() > 1 else 1
        if n_models > 1:
            model = torch.arange(n_models, dtype=torch.int32, device=column.device)[:, None]
            ends = (row_start[1:] + model * len(column)).flatten()
            row_start, column = torch.cat([row_start[:1], ends]), (column + model * self.n_cells).flatten()
        shape = (n_models * self.n_cells, n_models * self.n_cells)
        return torch.sparse_csr_tensor(row_start, column, values.flatten(), shape, check_invariants=False)


@lru_cache(maxsize=4)
def _structure(network: Network, device: str) -> _Structure:
    return _Structure(network, device)


@contextmanager
def denormals_flushed() -> Iterator[None]:
    """Flush denormal numbers to zero, which keeps decaying responses fast; restore the setting of the thread."""
    was_flushed = bool(torch.tensor([1e-40]) * 1 == 0)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(was_flushed)
