"""Explicit Euler in torch, with gradients: one sparse product per step for all samples of a model.

This is the engine for GPUs. :func:`integrate` uses sparse products on any device. :func:`respond`, which is
differentiable, uses the faster stencil of :mod:`flyxr.engine.batches` on the CPU.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch

from flyxr.engine import batches, lattice, products
from flyxr.engine.base import EngineResult, Network, Parameters
from flyxr.errors import InputError, Problem, raise_problems

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MODELS_PER_PRODUCT = 32
"""Models of one sparse matrix, which takes 18 MB for each."""
CHECKPOINT_BYTES = 2**30
"""Default limit of the memory for the states that :func:`respond` keeps for a gradient, in bytes."""


class TorchParameters(NamedTuple):
    """Free parameters of models: :class:`flyxr.engine.base.Parameters` as tensors of one dtype and device.

    ``bias`` and ``time_constant`` (s) are (model, cell_type), ``synapse_strength`` is (model, pair).
    """

    bias: torch.Tensor
    time_constant: torch.Tensor
    synapse_strength: torch.Tensor


class TorchResult(NamedTuple):
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
) -> EngineResult:
    """Integrate all models for all samples in float32; see :class:`flyxr.engine.base.Engine`.

    With ``rate = dt / max(tau, dt)`` a step is ``V <- V + rate ((bias - V) + x + W max(V, 0))``, in buffers that are
    allocated once. Folding the rate into the weights and the decay would be no faster and would shift the fixed
    points: rounding ``1 - rate`` alone causes errors of 4e-4, this form errors of 1e-5.

    Raises
    ------
    InputError
        A ValueError. If ``device`` is a GPU that torch cannot use.

    Examples
    --------
    >>> from flyxr import testing
    >>> network, parameters = testing.tiny_network()
    >>> integrate(network, parameters, np.zeros((1, 5, network.n_columns)), 0.01).responses.shape
    (1, 1, 5, 21)
    """
    check_device(device)
    n_models, n_samples = len(parameters.bias), len(stimulus)
    cells = np.arange(network.n_cells) if cells is None else np.asarray(cells)
    frames = np.arange(stimulus.shape[1]) if frames is None else frames
    slot = {int(frame): position for position, frame in enumerate(frames)}
    luminance = torch.as_tensor(stimulus, dtype=torch.float32, device=device)
    responses = np.empty((n_models, n_samples, len(frames), len(cells)), np.float32)
    last_state = np.empty((n_models, n_samples, network.n_cells), np.float32)
    for first in range(0, n_models, _MODELS_PER_PRODUCT):
        models = slice(first, first + _MODELS_PER_PRODUCT)
        some_parameters = Parameters(*(values[models] for values in parameters))
        stepper = Stepper(network, some_parameters, dt, n_samples=n_samples, cells=cells, device=device)
        if state is not None:
            stepper.state = state[models]
        # A GPU writes to pinned memory while the host goes on.
        recorded = torch.empty((len(frames), *stepper.products.responses.shape), pin_memory=device.startswith("cuda"))
        with products.denormals_flushed():
            for frame in range(stimulus.shape[1]):
                stepper.products.step(luminance[:, frame])
                if frame in slot:
                    recorded[slot[frame]].copy_(stepper.products.responses, non_blocking=True)
        last_state[models] = stepper.state  # waits for the GPU
        responses[models] = recorded.permute(1, 2, 0, 3).numpy()
    responses[..., cells < 0] = math.nan
    return EngineResult(responses, last_state)


class Stepper:
    """Integrate frame by frame; see :class:`flyxr.engine.base.Stepper`.

    All models share one product. On a GPU, a step is a CUDA graph.

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
        check_device(device)
        bias, time_constant, strength = (
            torch.tensor(np.ascontiguousarray(values), dtype=torch.float32, device=device) for values in parameters
        )
        rate = bias.new_tensor(dt) / time_constant.clamp(min=dt)
        self.products = products.FrameStepper(network, bias, rate, strength, n_samples, np.maximum(cells, 0))
        self._absent = cells < 0
        self.state = np.asarray(parameters.bias)[:, None, network.cell_type]

    def step(self, luminance: NDArray[np.floating]) -> NDArray[np.float32]:
        """Advance by one frame (sample, column); return responses (model, sample, recorded cell)."""
        with products.denormals_flushed():
            self.products.step(torch.as_tensor(luminance))
        responses: NDArray[np.float32] = self.products.responses.cpu().numpy()
        responses[..., self._absent] = math.nan
        return responses

    @property
    def state(self) -> NDArray[np.float32]:
        """State (model, sample, cell), as a copy; can be set, also with one sample for all."""
        state: NDArray[np.float32] = self.products.states.transpose(1, 2).cpu().numpy().copy()
        return state

    @state.setter
    def state(self, state: NDArray[np.floating]) -> None:
        self.products.states.copy_(torch.as_tensor(np.array(state)).transpose(1, 2))


def check_device(device: str) -> None:
    """Raise if torch cannot use a device.

    Examples
    --------
    >>> check_device("cpu")
    """
    if device.startswith("cuda") and not torch.cuda.is_available():
        text = f"expected a CUDA GPU for device={device!r}, got none that torch {torch.__version__} can use"
        raise InputError(Problem(text, "use device='cpu'", "use --device cpu"))


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
    checkpoint_bytes: int = CHECKPOINT_BYTES,
    method: Literal["auto", "stencil", "products"] = "auto",
    n_threads: int | None = None,
) -> TorchResult:
    """Compute responses that are differentiable with respect to parameters, stimulus and initial state.

    Dtype and device are those of the parameters. On the CPU the numbers are those of the stencil engine. The gradient
    comes from the adjoint of the Euler step instead of a graph of operations. There is no second derivative.

    Parameters
    ----------
    network, parameters
        The models. They are integrated by explicit Euler steps (equations of Lappalainen et al. 2024).
    stimulus : (sample, frame, column) or (model, sample, frame, column)
        Luminance; each frame is one integration step.
    dt
        Integration step, s.
    state : (model, sample or 1, cell), optional
        State before the first frame. The default is rest, where the potential equals the bias.
    cells : (recorded cell,) int, optional
        Cells to record, by default all.
    frames : (recorded frame,) int, optional
        Frames to record, ascending, by default all. A response is the state after its frame.
    checkpoint
        Number of frames from one state that is kept for the gradient to the next. The states between them are
        recomputed in the backward pass. 1 keeps all states and is fastest. By default
        :func:`checkpoint_interval` chooses it.
    checkpoint_bytes
        Memory that states may take if ``checkpoint`` is not given, in bytes.
    method
        ``"stencil"`` (CPU, float32 or float64) or ``"products"`` (sparse products, on any device). ``"auto"`` is the
        stencil where it is possible.
    n_threads
        Threads of the stencil, by default :func:`flyxr.engine.base.n_threads`.

    Returns
    -------
    TorchResult
        Responses (model, sample, recorded frame, recorded cell) and the last state (model, sample, cell).

    Raises
    ------
    InputError
        A ValueError. If ``checkpoint`` is not positive, cells or frames are out of range, frames are not ascending, or
        the stencil is asked for on a GPU or in another dtype.

    Notes
    -----
    Where a derivative does not exist, a potential of 0 counts as silent, and a time constant equal to ``dt`` counts as
    greater, so that training can increase it again. Time constants below ``dt`` have gradient 0.

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
    can_use_stencil = parameters.bias.device.type == "cpu" and parameters.bias.dtype in (torch.float32, torch.float64)
    if method == "stencil" and not can_use_stencil:
        place = f"{parameters.bias.dtype} on {parameters.bias.device}"
        raise InputError(Problem(f"the stencil takes float32 or float64 on the CPU, got {place}", "use method='auto'"))
    _check(network, stimulus.shape[-2], cells, frames, checkpoint)
    uses_stencil = can_use_stencil and method != "products"
    state_size = lattice.network_layout(network).state_size if uses_stencil else network.n_cells
    max_states = checkpoint_bytes // max(state_size * stimulus.shape[-3] * parameters.bias.element_size(), 1)
    inputs = _prepare(network, parameters, stimulus, dt, state, cells, frames, checkpoint, max_states)
    if uses_stencil:
        return TorchResult(*_StencilFunction.apply(*inputs, n_threads))  # type: ignore[no-untyped-call]
    return TorchResult(*products.respond(inputs))


def _check(
    network: Network,
    n_frames: int,
    cells: NDArray[np.integer] | None,
    frames: NDArray[np.integer] | None,
    checkpoint: int | None,
) -> None:
    problems: list[str | Problem] = []
    if checkpoint is not None and checkpoint < 1:
        problems.append(f"expected checkpoint as a number of frames from 1 up, got {checkpoint}")
    if cells is not None and len(cells) and not 0 <= np.min(cells) <= np.max(cells) < network.n_cells:
        problems.append(
            Problem(
                f"expected cells from 0 to {network.n_cells - 1}, got {np.min(cells)} to {np.max(cells)}",
                "leave out absent cells",
            )
        )
    if frames is not None and len(frames):
        if not 0 <= np.min(frames) <= np.max(frames) < n_frames:
            problems.append(
                Problem(
                    f"expected frames from 0 to {n_frames - 1}, got {np.min(frames)} to {np.max(frames)}",
                    "count them from the first frame of the stimulus",
                )
            )
        if (np.diff(frames) <= 0).any():
            problems.append(
                Problem(f"expected frames ascending, got {np.asarray(frames).tolist()[:8]}", "sort them with np.unique")
            )
    raise_problems(InputError, "cannot compute these responses", problems)


def _prepare(
    network: Network,
    parameters: TorchParameters,
    stimulus: torch.Tensor,
    dt: float,
    state: torch.Tensor | None,
    cells: NDArray[np.integer] | None,
    frames: NDArray[np.integer] | None,
    checkpoint: int | None,
    max_states: int,
) -> products.Inputs:
    """Bring all inputs to one dtype, one device, and all models and samples; the interval is None without gradient."""
    bias, time_constant, strength = parameters
    n_models, (n_samples, n_frames, n_columns) = len(bias), stimulus.shape[-3:]
    stimulus = stimulus.to(bias).expand(n_models, n_samples, n_frames, n_columns)
    rate = bias.new_tensor(dt) / time_constant.clamp(min=dt)
    if state is None:
        # Not bias[:, cell_type], whose backward pass takes as long as ten steps.
        state = bias.index_select(1, torch.as_tensor(network.cell_type, device=bias.device))[:, None]
    state = state.to(bias).expand(n_models, n_samples, network.n_cells)
    interval = None
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (bias, rate, strength, stimulus, state)):
        interval = checkpoint
        if interval is None:
            interval = checkpoint_interval(n_models, n_frames, max_states)
        interval = min(interval, max(n_frames, 1))
    return products.Inputs(bias, rate, strength, stimulus, state, network, cells, frames, interval)


def checkpoint_interval(n_models: int, n_frames: int, max_states: int) -> int:
    """Choose the number of frames between two states that are kept for a gradient.

    Parameters
    ----------
    n_models, n_frames
        Size of the simulation.
    max_states
        Number of states, each of one model and all samples, that fit the memory: those that are kept, and those of
        the interval that is recomputed.

    Returns
    -------
    int
        The smallest interval that fits, or the one with the fewest states if none does.

    Examples
    --------
    >>> [checkpoint_interval(1, 100, max_states) for max_states in (102, 60, 0)]
    [1, 2, 10]
    """
    leanest = max(1, min(n_frames, math.isqrt(n_models * n_frames)))
    intervals = range(1, leanest)
    return next((k for k in intervals if n_models * (math.ceil(n_frames / k) + 1) + k <= max_states), leanest)


class _StencilFunction(torch.autograd.Function):
    """All models and samples by the kernels for the CPU; arrays have the dims that :func:`respond` documents."""

    @staticmethod
    def forward(ctx: Any, *args: Any) -> tuple[torch.Tensor, torch.Tensor]:
        *tensors_and_options, n_threads = args
        inputs = products.Inputs(*tensors_and_options)
        network, n_frames = inputs.network, inputs.stimulus.shape[2]
        cells = np.arange(network.n_cells) if inputs.cells is None else np.asarray(inputs.cells)
        recording = lattice.recording(network, n_frames, cells, inputs.frames)
        n_recorded = n_frames if inputs.frames is None else len(inputs.frames)
        responses = inputs.bias.new_empty((*inputs.state.shape[:2], n_recorded, len(cells)))
        last_state, checkpoints = batches.forward(
            network,
            batches.ModelArrays(*(tensor.detach().contiguous().numpy() for tensor in inputs[:3])),
            inputs.stimulus.detach().numpy(),
            inputs.state.detach().numpy(),
            recording,
            responses.numpy(),
            interval=inputs.interval,
            n_threads=n_threads,
            context=products.denormals_flushed,
        )
        ctx.save_for_backward(*inputs[:4], torch.from_numpy(checkpoints))
        ctx.rest = network, recording, cells, inputs.interval, n_threads
        return responses, torch.from_numpy(last_state)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(
        ctx: Any, grad_responses: torch.Tensor, grad_last_state: torch.Tensor
    ) -> tuple[torch.Tensor | None, ...]:
        *parameters, stimulus, checkpoints = ctx.saved_tensors
        network, recording, cells, interval, n_threads = ctx.rest
        _, _, needs_strength, needs_stimulus, *_ = ctx.needs_input_grad
        gradients = batches.backward(
            network,
            batches.ModelArrays(*(tensor.contiguous().numpy() for tensor in parameters)),
            stimulus.numpy(),
            checkpoints.numpy(),
            interval,
            recording,
            cells,
            grad_responses.contiguous().numpy(),
            grad_last_state.numpy(),
            needs_strength=needs_strength,
            needs_stimulus=needs_stimulus,
            n_threads=n_threads,
            context=products.denormals_flushed,
        )
        tensors = (None if values is None else torch.from_numpy(values) for values in gradients)
        return *tensors, None, None, None, None, None
