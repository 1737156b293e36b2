"""Forward and backward passes of the stencil: models and samples in batches, on a pool of threads."""

from __future__ import annotations

import itertools
import math
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from flyxr.engine import base
from flyxr.engine.kernels import advance, backpropagate
from flyxr.engine.lattice import batch_layout, empty_recording, network_layout, weighted_taps

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from flyxr.engine.base import Network, Parameters
    from flyxr.engine.kernels import Recording
    from flyxr.engine.lattice import Layout

    Batch = tuple[int, slice]

_MAX_BATCH_SIZE = 4
"""Samples of a batch at most; more would not fit the caches."""
_CACHE_LINE = 64
"""Bytes of a cache line."""
_MIN_GRADIENT_BATCHES = 4
"""Batches of a gradient at least, if there are as many samples. Unlike the batches of responses they do not depend on
the number of cores, so that sums over samples have the same order, and the same bits, on every machine."""


class ModelArrays(NamedTuple):
    """Parameters of some models in the dtype of the computation; ``rate`` is dt over the time constant."""

    bias: NDArray[np.floating]
    rate: NDArray[np.floating]
    synapse_strength: NDArray[np.floating]


class Gradients(NamedTuple):
    """Gradients of a loss.

    ``bias``, ``rate`` (model, cell_type) and ``synapse_strength`` (model, pair); ``stimulus`` (model, sample, frame,
    column), if asked for; ``state`` (model, sample, cell), the initial one.
    """

    bias: NDArray[np.floating]
    rate: NDArray[np.floating]
    synapse_strength: NDArray[np.floating]
    stimulus: NDArray[np.floating] | None
    state: NDArray[np.floating]


def model_arrays(parameters: Parameters, dt: float, dtype: type[np.floating] = np.float32) -> ModelArrays:
    """Convert parameters to the arrays that the kernels take."""
    bias, time_constant, strength = (np.array(values, dtype=dtype) for values in parameters)
    return ModelArrays(bias, dtype(dt) / np.maximum(time_constant, dtype(dt)), strength)


def n_checkpoints(n_frames: int, interval: int) -> int:
    """Count the states kept for a gradient: one before each interval of frames, and the last.

    Examples
    --------
    >>> n_checkpoints(10, interval=1), n_checkpoints(10, interval=4)
    (11, 4)
    """
    return -(-n_frames // interval) + 1


def forward(
    network: Network,
    models: ModelArrays,
    stimulus: NDArray[np.floating],
    state: NDArray[np.floating] | None,
    recording: Recording,
    responses: NDArray[np.floating],
    *,
    interval: int | None = None,
    n_threads: int | None = None,
    context: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Integrate all models for all samples.

    Parameters
    ----------
    network, models
        The models.
    stimulus : (model, sample, frame, column)
        Luminance.
    state : (model, sample or 1, cell), optional
        State before the first frame; rest by default.
    recording
        Frames and cells to record.
    responses : (model, sample, recorded frame, recorded cell)
        Array to record to.
    interval
        Frames from one state that is kept for a gradient to the next. By default none is kept.
    n_threads
        Threads to compute with; by default :func:`flyxr.engine.base.n_threads`.
    context
        Makes a context manager that each batch is computed in, in its thread.

    Returns
    -------
    state : (model, sample, cell)
        The last state.
    checkpoints : (number,)
        The states kept for :func:`backward`, batch after batch.
    """
    layout, dtype = network_layout(network), models.bias.dtype
    n_threads = base.n_threads() if n_threads is None else n_threads
    n_models, n_samples, n_frames, _ = stimulus.shape
    state_size = layout.state_size
    last_state = np.empty((n_models, n_samples, network.n_cells), dtype)
    n_kept = 0 if interval is None else n_checkpoints(n_frames, interval)
    checkpoints = np.empty(n_models * n_samples * n_kept * state_size, dtype)

    def run(batch: Batch) -> None:
        model, samples = batch
        stepper = BatchStepper(network, models, model, samples)
        kept = checkpoints[_batch_slice(batch, n_samples, n_kept * state_size)].reshape(
            n_kept, state_size * stepper.width
        )
        states = kept if interval == 1 else aligned_zeros((2, state_size * stepper.width), dtype)
        states[0] = 0
        initial = models.bias[model, network.cell_type, None]
        if state is not None:
            initial = state[model, samples if state.shape[1] > 1 else slice(None)].T
        states[0].reshape(state_size, stepper.width)[layout.state] = initial
        luminance = _interleave(stimulus[model, samples], layout)
        if interval is None or interval == 1:
            stepper.step(luminance, states, recording, responses[model, samples])
            last = n_frames % len(states)
        else:
            last = 0
            kept[0] = states[0]
            for index, first in enumerate(range(0, n_frames, interval)):
                frames = slice(first, min(first + interval, n_frames))
                states[0] = states[last]
                part = recording._replace(frame_slot=recording.frame_slot[frames])
                stepper.step(luminance[frames], states, part, responses[model, samples])
                last = (frames.stop - frames.start) % 2
                kept[index + 1] = states[last]
        last_state[model, samples] = states[last].reshape(state_size, stepper.width)[layout.state].T

    min_batches = n_threads if interval is None else _MIN_GRADIENT_BATCHES
    run_all(run, split_batches(n_models, n_samples, min_batches), n_threads, context)
    return last_state, checkpoints


def backward(
    network: Network,
    models: ModelArrays,
    stimulus: NDArray[np.floating],
    checkpoints: NDArray[np.floating],
    interval: int,
    recording: Recording,
    cells: NDArray[np.integer],
    grad_responses: NDArray[np.floating],
    grad_last_state: NDArray[np.floating],
    *,
    needs_strength: bool = True,
    needs_stimulus: bool = True,
    n_threads: int | None = None,
    context: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Gradients:
    """Compute gradients from those of the responses and of the last state, by the adjoint of the Euler step.

    With g the gradient of a state and q = rate g, the gradient of the state one step before is
    ``g - q + [V > 0] W^T q``. The gradients of bias and input are sums of q. The gradient of a rate sums g times the
    change without its rate. The gradient of a synapse strength sums ``signed_synapses q_target max(V_source, 0)`` over
    its synapses. W^T is the stencil with its offsets reversed; each value that it reads also enters the sums for the
    strengths.
    """
    layout, dtype = network_layout(network), models.bias.dtype
    n_threads = base.n_threads() if n_threads is None else n_threads
    n_models, n_samples, n_frames, _ = stimulus.shape
    state_size, n_kept = layout.state_size, n_checkpoints(n_frames, interval)
    grad_state = np.empty((n_models, n_samples, network.n_cells), dtype)
    grad_stimulus = np.empty(stimulus.shape, dtype) if needs_stimulus else None
    batches = split_batches(n_models, n_samples, _MIN_GRADIENT_BATCHES)
    tap_sums = np.zeros((len(batches), layout.backward_taps.begin.size))
    type_sums = np.zeros((len(batches), 2, len(layout.is_input)))

    def run(number: int) -> None:
        model, samples = batches[number]
        stepper = BatchStepper(network, models, model, samples)
        width, rate = stepper.width, models.rate[model]
        kept = checkpoints[_batch_slice(batches[number], n_samples, n_kept * state_size)].reshape(
            n_kept, state_size * width
        )
        luminance = _interleave(stimulus[model, samples], layout) if interval > 1 else None
        recomputed = np.empty((interval + 1 if interval > 1 else 0, state_size * width), dtype)
        taps = weighted_taps(layout.backward_taps, stepper.weight * rate[network.stencil.target], width)
        grid = aligned_zeros((2, len(rate) * stepper.layout.block_size), dtype)
        grid[0].reshape(-1, width)[layout.grid] = grad_last_state[model, samples].T
        grad_luminance = np.zeros((n_frames if needs_stimulus else 0, stepper.layout.type_size), dtype)
        length = n_frames if interval == 1 else interval
        for index, first in reversed(list(enumerate(range(0, n_frames, max(length, 1))))):
            frames = slice(first, min(first + length, n_frames))
            states = kept
            if luminance is not None:
                states = recomputed[: frames.stop - frames.start + 1]
                states[0], states[-1] = kept[index], kept[index + 1]
                nothing = empty_recording(length)
                stepper.step(luminance[frames][:-1], states[:-1], nothing, grad_responses[model, samples])
            backpropagate(
                stepper.layout,
                taps,
                rate,
                states,
                grid,
                recording._replace(frame_slot=recording.frame_slot[frames]),
                layout.grid[cells] * width,
                grad_responses[model, samples],
                grad_luminance[frames],
                tap_sums[number],
                type_sums[number],
                needs_strength,
            )
        grad_state[model, samples] = grid[0].reshape(-1, width)[layout.grid].T
        if grad_stimulus is not None:
            places = grad_luminance.reshape(n_frames, layout.n_places, width)
            grad_stimulus[model, samples] = places[:, layout.column_place].transpose(2, 0, 1)

    run_all(run, range(len(batches)), n_threads, context)
    grad_bias, grad_rate = np.zeros(models.bias.shape), np.zeros(models.rate.shape)
    grad_strength = np.zeros(models.synapse_strength.shape)
    stencil, synapse = network.stencil, layout.backward_taps.synapse
    signed_synapses = np.where(layout.backward_taps.is_padding, 0, stencil.signed_synapses[synapse])
    target, pair = stencil.target[synapse], stencil.pair[synapse]
    for number, (model, _) in enumerate(batches):  # in this order for any number of threads
        rate = models.rate[model].astype(np.float64)
        grad_bias[model] += rate * type_sums[number, 0]
        grad_rate[model] += type_sums[number, 1] / rate
        terms = signed_synapses * rate[target] * tap_sums[number]
        grad_strength[model] += np.bincount(pair, terms, models.synapse_strength.shape[1])
    return Gradients(
        grad_bias.astype(dtype), grad_rate.astype(dtype), grad_strength.astype(dtype), grad_stimulus, grad_state
    )


class BatchStepper:
    """Euler steps of a batch: some samples of one model, in memory of its own."""

    def __init__(self, network: Network, models: ModelArrays, model: int, samples: slice) -> None:
        self.width = samples.stop - samples.start
        self.layout = batch_layout(network, self.width, models.bias.dtype.name)
        stencil = network.stencil
        self.weight = stencil.signed_synapses.astype(models.bias.dtype) * models.synapse_strength[model, stencil.pair]
        self.taps = weighted_taps(network_layout(network).forward_taps, self.weight, self.width)
        self.rate, self.bias = models.rate[model], models.bias[model]
        self.grid = aligned_zeros((2, len(self.rate) * self.layout.block_size), models.bias.dtype)

    def step(
        self,
        luminance: NDArray[np.floating],
        states: NDArray[np.floating],
        recording: Recording,
        responses: NDArray[np.floating],
        first: int = 0,
    ) -> None:
        """Step through a luminance (frame, place x sample) from the state in row ``first`` of the states."""
        advance(self.layout, self.taps, self.rate, self.bias, luminance, states, first, self.grid, recording, responses)


def _interleave(stimulus: NDArray[np.floating], layout: Layout) -> NDArray[np.floating]:
    """Copy (sample, frame, column) to (frame, place x sample)."""
    n_samples, n_frames, _ = stimulus.shape
    luminance = np.zeros((n_frames, layout.n_places, n_samples), stimulus.dtype)
    luminance[:, layout.column_place] = stimulus.transpose(1, 2, 0)
    return luminance.reshape(n_frames, layout.n_places * n_samples)


def _batch_slice(batch: Batch, n_samples: int, size: int) -> slice:
    """Slice of a batch in an array with ``size`` numbers for each sample of each model."""
    model, samples = batch
    return slice((model * n_samples + samples.start) * size, (model * n_samples + samples.stop) * size)


def aligned_zeros(shape: tuple[int, ...], dtype: Any) -> NDArray[np.floating]:
    """Make an array of zeros that begins with a cache line, since reads across two lines take twice as long.

    Examples
    --------
    >>> aligned_zeros((2, 16), np.float32).ctypes.data % 64
    0
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.zeros(size + _CACHE_LINE, np.uint8)
    begin = -memory.ctypes.data % _CACHE_LINE
    array: NDArray[np.floating] = memory[begin : begin + size].view(dtype)
    return array.reshape(shape)


def split_batches(n_models: int, n_samples: int, min_batches: int) -> list[Batch]:
    """Divide the samples of each model into batches that fit the caches, at least ``min_batches`` where possible.

    Examples
    --------
    >>> split_batches(1, 6, min_batches=2)
    [(0, slice(0, 3, None)), (0, slice(3, 6, None))]
    >>> split_batches(2, 1, min_batches=4)
    [(0, slice(0, 1, None)), (1, slice(0, 1, None))]
    """
    if not n_samples:
        return []
    width = max(1, min(_MAX_BATCH_SIZE, -(-n_samples * n_models // min_batches), n_samples))
    bounds = np.linspace(0, n_samples, -(-n_samples // width) + 1).round().astype(int).tolist()
    return [(model, slice(*bound)) for model in range(n_models) for bound in itertools.pairwise(bounds)]


def run_all(
    run: Callable[[Any], None],
    batches: Sequence[Any],
    n_threads: int,
    context: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> None:
    """Run all batches, in a pool of threads if there are several."""

    def run_in_context(batch: Any) -> None:
        with context():
            run(batch)

    if len(batches) == 1:
        run_in_context(batches[0])
    else:
        list(_thread_pool(os.getpid(), n_threads).map(run_in_context, batches))


@lru_cache(maxsize=2)
def _thread_pool(process: int, n_threads: int) -> ThreadPoolExecutor:
    """Pool that all tasks of a process share; a forked process makes its own."""
    return ThreadPoolExecutor(n_threads, thread_name_prefix="flyxr-stencil")
