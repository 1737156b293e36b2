"""Explicit Euler in torch, with gradients: one sparse product a step for all samples of a model.

This is the engine of GPUs. On the CPU :func:`respond` has the same numbers, and their gradients, from the kernels of
:mod:`flyxr.engine.lattice`; :func:`integrate` is the sparse product wherever it runs.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from flyxr.engine import lattice, products
from flyxr.engine.base import Integrated, Network, Parameters
from flyxr.errors import InputError, Problem, raise_problems

if TYPE_CHECKING:
    from numpy.typing import NDArray

KEPT_BYTES = 2**30
"""Memory for the states that :func:`respond` keeps for a gradient, where the caller does not say how many to keep."""
_STENCIL = frozenset({("cpu", torch.float32), ("cpu", torch.float64)})
"""Devices and dtypes for which the stencil is faster; tests empty it, to hold the sparse product to the same."""


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
    if device.startswith("cuda") and not torch.cuda.is_available():
        text = f"expected a CUDA GPU for device={device!r}, got none that torch {torch.__version__} can use"
        raise InputError(Problem(text, "use device='cpu'", "use --device cpu"))
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
            given = _prepare(network, of_model, luminance, dt, start, readable, frames, None)
            of_samples, state_after = products.respond(given)
            on_host = of_samples[0].cpu()
            for slot in range(responses.shape[2]):  # all at once would transpose outside the caches
                responses[model, :, slot] = on_host[:, slot]
            last[model].copy_(state_after[0])
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

    Dtype and device are those of the parameters; on the CPU the numbers are those of the stencil engine. The gradient
    comes from the adjoint of the Euler step, not from a graph of operations. It can be taken once, not a second time
    of itself.

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
        If ``checkpoint`` is not positive, or cells or frames are not in range or frames not ascending.

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
    _check(network, stimulus.shape[-2], cells, frames, checkpoint)
    given = _prepare(network, parameters, stimulus, dt, state, cells, frames, checkpoint)
    stencil = (parameters.bias.device.type, parameters.bias.dtype) in _STENCIL
    return TorchIntegrated(*(_RespondByStencil.apply(*given) if stencil else products.respond(given)))  # type: ignore[no-untyped-call]


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
                "leave out those that are not there",
            )
        )
    if frames is not None and len(frames):
        if not 0 <= np.min(frames) <= np.max(frames) < n_frames:
            problems.append(
                Problem(
                    f"expected frames from 0 to {n_frames - 1}, got {np.min(frames)} to {np.max(frames)}",
                    "count them from the first of the stimulus",
                )
            )
        if (np.diff(frames) <= 0).any():
            problems.append(
                Problem(f"expected frames ascending, got {np.asarray(frames).tolist()[:8]}", "sort them with np.unique")
            )
    raise_problems(InputError, "what is asked for cannot be computed", problems)


def _prepare(
    network: Network,
    parameters: TorchParameters,
    stimulus: torch.Tensor,
    dt: float,
    state: torch.Tensor | None,
    cells: NDArray[np.integer] | None,
    frames: NDArray[np.integer] | None,
    checkpoint: int | None,
) -> products.Inputs:
    """Inputs in one dtype, on one device, of all models and samples; the interval is None without a gradient."""
    bias, time_constant, strength = parameters
    n_models, (n_samples, n_frames, n_columns) = len(bias), stimulus.shape[-3:]
    stimulus = stimulus.to(bias).expand(n_models, n_samples, n_frames, n_columns)
    rate = bias.new_tensor(dt) / time_constant.clamp(min=dt)
    if state is None:
        # Not bias[:, cell_type], whose way back takes as long as ten steps.
        state = bias.index_select(1, torch.as_tensor(network.cell_type, device=bias.device))[:, None]
    state = state.to(bias).expand(n_models, n_samples, network.n_cells)
    interval = None
    if torch.is_grad_enabled() and any(of.requires_grad for of in (bias, rate, strength, stimulus, state)):
        interval = checkpoint
        if interval is None:
            bytes_of_state = network.n_cells * n_samples * bias.element_size()
            interval = _frames_between_kept(n_models, n_frames, KEPT_BYTES // max(bytes_of_state, 1))
        interval = min(interval, max(n_frames, 1))
    return products.Inputs(bias, rate, strength, stimulus, state, network, cells, frames, interval)


def _frames_between_kept(n_models: int, n_frames: int, n_states: int) -> int:
    """Smallest interval at which the states kept, and those of one interval, are at most so many, or fewest."""
    fewest = max(1, min(n_frames, math.isqrt(n_models * n_frames)))
    intervals = range(1, fewest)
    return next((k for k in intervals if n_models * (math.ceil(n_frames / k) + 1) + k <= n_states), fewest)


class _RespondByStencil(torch.autograd.Function):
    """All models and samples by the kernels for the CPU; arrays as :func:`respond` takes and returns them."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        given = products.Inputs(*inputs)
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
            within=products.denormals_flushed,
        )
        ctx.save_for_backward(*given[:4], torch.from_numpy(kept))
        ctx.rest = network, record, cells, given.interval
        return responses, torch.from_numpy(last)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, of_responses: torch.Tensor, of_last: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        *of_models, stimulus, kept = ctx.saved_tensors
        network, record, cells, interval = ctx.rest
        _, _, with_strength, with_stimulus, *_ = ctx.needs_input_grad
        got = lattice.backward(
            network,
            lattice.Models(*(tensor.contiguous().numpy() for tensor in of_models)),
            stimulus.numpy(),
            kept.numpy(),
            interval,
            record,
            cells,
            of_responses.contiguous().numpy(),
            of_last.numpy(),
            with_strength=with_strength,
            with_stimulus=with_stimulus,
            within=products.denormals_flushed,
        )
        return *(None if values is None else torch.from_numpy(values) for values in got), None, None, None, None
