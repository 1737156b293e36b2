"""Connections as a stencil that slides over the lattice of columns: layout, batches, and their runs on threads.

Weights are the same in every column, so 2,355 numbers stand for 1.5 million. Each cell type has a block of its own, in
which the columns lie on a square grid with zeros around them: what comes through one columnar offset is then one
weight times one shifted run of memory. A batch is some samples of one model, which lie side by side in every column.
"""

from __future__ import annotations

import itertools
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from flyxr.engine.base import n_threads
from flyxr.engine.kernels import AT_ONCE, Plan, Reads, Record, advance, retreat

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from flyxr.engine.base import Network, Parameters

    Batch = tuple[int, slice]

_WIDEST = 8
"""Samples of a batch at most: more would leave the caches."""
_SIDE_BY_SIDE = 6
"""Samples of a batch from which a row of the grid is long enough to go row by row, and leave out its corners."""
_SUMMED_BATCHES = 4
"""Batches of a gradient at least, where there are so many samples. Unlike those of responses they do not follow the
number of cores, so that sums over samples have one order, and the same bits, everywhere."""


class _Offsets(NamedTuple):
    """``synapse`` (read,) of the stencil that each read is of, ``filled`` False where it only fills up a group."""

    first: NDArray[np.int64]
    begin: NDArray[np.int64]
    synapse: NDArray[np.int64]
    filled: NDArray[np.bool_]


class Layout(NamedTuple):
    """Where cells lie, for one sample.

    ``dense`` (cell,) is the position of a cell among all types and columns, ``place`` (cell,) that on the grid, where
    a type has a ``block`` of ``guard`` zeros, the rows of its columns from ``row_begin`` to ``row_end`` (relative to
    the guard), of which ``row_column`` is the first column, and zeros again. ``present`` (mask, column) says where
    cells may be. ``to_targets`` and ``to_sources`` are the reads, without weights, for currents and for gradients.
    """

    dense: NDArray[np.int64]
    place: NDArray[np.int64]
    block: int
    guard: int
    row_begin: NDArray[np.int64]
    row_end: NDArray[np.int64]
    row_column: NDArray[np.int64]
    present: NDArray[np.bool_]
    mask_of_type: NDArray[np.int64]
    is_input: NDArray[np.bool_]
    to_targets: _Offsets
    to_sources: _Offsets


class Models(NamedTuple):
    """Parameters of some models in the dtype that is computed in: ``rate`` is dt over the time constant."""

    bias: NDArray[np.floating]
    rate: NDArray[np.floating]
    synapse_strength: NDArray[np.floating]


class Gradients(NamedTuple):
    """Of a loss, in bias, rate and strength (model, …), stimulus (model, sample, frame, column) and initial state."""

    bias: NDArray[np.floating]
    rate: NDArray[np.floating]
    synapse_strength: NDArray[np.floating]
    stimulus: NDArray[np.floating] | None
    state: NDArray[np.floating]


def models(parameters: Parameters, dt: float, dtype: type[np.floating] = np.float32) -> Models:
    """Parameters as the kernels want them."""
    bias, tau, strength = (np.array(values, dtype=dtype) for values in parameters)
    return Models(bias, dtype(dt) / np.maximum(tau, dtype(dt)), strength)


@lru_cache(maxsize=4)
def layout(network: Network) -> Layout:
    """Layout of a network, made once."""
    stencil, n_types = network.stencil, int(network.cell_type.max()) + 1
    du, dv = stencil.offset.T
    # Rows of the grid are one u each, and far enough apart that a shift along v ends in zeros, not in the next row.
    pitch = 2 * int(np.abs(network.v).max()) + 1 + int(np.abs(dv).max(initial=0))
    of_column = (network.u - network.u.min()) * pitch + network.v - network.v.min()
    shift = du * pitch + dv
    length, guard = int(of_column.max()) + 1, int(np.abs(shift).max(initial=0))
    block = -(-(length + 2 * guard) // 16) * 16
    present = np.zeros((n_types, network.n_columns), dtype=bool)
    present[network.cell_type, network.column] = True
    masks, mask_of_type = np.unique(present, axis=0, return_inverse=True)
    first = np.flatnonzero(np.diff(network.u, prepend=network.u.min() - 1))
    is_input = np.zeros(n_types, dtype=bool)
    is_input[network.cell_type[network.is_input]] = True
    return Layout(
        dense=network.cell_type.astype(np.int64) * network.n_columns + network.column,
        place=network.cell_type.astype(np.int64) * block + guard + of_column[network.column],
        block=block,
        guard=guard,
        row_begin=of_column[first],
        row_end=of_column[np.append(first[1:], network.n_columns) - 1] + 1,
        row_column=first,
        present=masks,
        mask_of_type=mask_of_type.ravel(),
        is_input=is_input,
        to_targets=_offsets(stencil.target, stencil.source * block + guard - shift, n_types),
        to_sources=_offsets(stencil.source, stencil.target * block + guard + shift, n_types),
    )


def _offsets(of_type: NDArray[np.int64], begin: NDArray[np.int64], n_types: int) -> _Offsets:
    """Reads in the order of the types they are added up for; the last of a type is repeated until groups are full."""
    order = np.argsort(of_type, kind="stable")
    count = np.bincount(of_type, minlength=n_types)
    ends, padded = np.cumsum(count), -(-count // AT_ONCE) * AT_ONCE
    first = np.append(0, np.cumsum(padded))
    position = np.arange(first[-1]) - np.repeat(first[:-1] - (ends - count), padded)
    filled = position < np.repeat(ends, padded)
    synapse = order[np.minimum(position, np.repeat(ends, padded) - 1)]
    return _Offsets(first, begin[synapse], synapse, filled)


@lru_cache(maxsize=32)
def _plan(network: Network, width: int, dtype: str) -> Plan:
    """Layout for so many samples side by side."""
    of, n_rows = layout(network), len(layout(network).row_begin)
    row_begin, row_end = of.row_begin * width, of.row_end * width
    by_row = width >= _SIDE_BY_SIDE
    return Plan(
        block=of.block * width,
        guard=of.guard * width,
        dense=network.n_columns * width,
        begin=row_begin if by_row else row_begin[:1],
        end=row_end if by_row else row_end[-1:],
        first_row=np.arange(n_rows + 1) if by_row else np.array([0, n_rows]),
        row_begin=row_begin,
        row_end=row_end,
        row_dense=of.row_column * width,
        is_input=of.is_input,
        mask=np.repeat(of.present, width, axis=1).astype(dtype),
        mask_of_type=of.mask_of_type,
    )


def _reads(offsets: _Offsets, weight: NDArray[np.floating], width: int) -> Reads:
    return Reads(
        offsets.first, offsets.begin * width, np.where(offsets.filled, weight[offsets.synapse], 0).astype(weight.dtype)
    )


def record(network: Network, n_frames: int, cells: NDArray[np.integer], frames: NDArray[np.integer] | None) -> Record:
    """Cells as runs of neighbours; where they are below 0 there is no cell, and no run."""
    slot = np.full(n_frames, -1)
    recorded = np.arange(n_frames) if frames is None else frames
    slot[recorded] = np.arange(len(recorded))
    places = np.where(cells >= 0, layout(network).dense[cells], -2)  # next to no place
    first = np.flatnonzero((np.diff(places, prepend=-2) != 1) | (places < 0))
    length = np.diff(np.append(first, places.size))
    kept = places[first] >= 0
    return Record(slot, places[first][kept], first[kept], length[kept])


def n_kept(n_frames: int, interval: int) -> int:
    """States that are kept where every so many frames one is: those before each interval, and the last."""
    return -(-n_frames // interval) + 1


def forward(
    network: Network,
    of: Models,
    stimulus: NDArray[np.floating],
    state: NDArray[np.floating] | None,
    what: Record,
    responses: NDArray[np.floating],
    *,
    interval: int | None = None,
    within: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Integrate all models for all samples.

    Parameters
    ----------
    network, of
        The models.
    stimulus : (model, sample, frame, column)
        Luminance.
    state : (model, sample or 1, cell), optional
        State before the first frame; without it rest.
    what, responses : (model, sample, recorded frame, recorded cell)
        What to record, and where to.
    interval
        Frames from one state that is kept for a gradient to the next; without it none is.
    within
        Surrounds the computation of each batch, in its thread.

    Returns
    -------
    The last state (model, sample, cell), and the states kept, batch after batch in one array, for :func:`backward`.
    """
    at, dtype = layout(network), of.bias.dtype
    n_models, n_samples, n_frames, _ = stimulus.shape
    n_dense = len(at.is_input) * network.n_columns
    last = np.empty((n_models, n_samples, network.n_cells), dtype)
    rows = 0 if interval is None else n_kept(n_frames, interval)
    kept = np.empty(n_models * n_samples * rows * n_dense, dtype)

    def run(batch: Batch) -> None:
        model, samples = batch
        steps = _Steps(network, of, model, samples)
        of_batch = kept[_span(batch, n_samples, rows * n_dense)].reshape(rows, n_dense * steps.width)
        states = of_batch if interval == 1 else np.empty((2, n_dense * steps.width), dtype)
        states[0] = 0
        start = of.bias[model, network.cell_type, None]
        if state is not None:
            start = state[model, samples if state.shape[1] > 1 else slice(None)].T
        states[0].reshape(n_dense, steps.width)[at.dense] = start
        luminance = _side_by_side(stimulus[model, samples])
        if interval is None or interval == 1:
            steps(luminance, states, what, responses[model, samples])
            now = n_frames % len(states)
        else:
            now = 0
            of_batch[0] = states[0]
            for slot, first in enumerate(range(0, n_frames, interval)):
                some = slice(first, min(first + interval, n_frames))
                states[0] = states[now]
                steps(luminance[some], states, what._replace(slot=what.slot[some]), responses[model, samples])
                now = (some.stop - some.start) % 2
                of_batch[slot + 1] = states[now]
        last[model, samples] = states[now].reshape(n_dense, steps.width)[at.dense].T

    at_least = n_threads() if interval is None else _SUMMED_BATCHES
    _each(run, batches(n_models, n_samples, at_least), within)
    return last, kept


def backward(
    network: Network,
    of: Models,
    stimulus: NDArray[np.floating],
    kept: NDArray[np.floating],
    interval: int,
    what: Record,
    cells: NDArray[np.integer],
    of_responses: NDArray[np.floating],
    of_last: NDArray[np.floating],
    *,
    with_strength: bool = True,
    with_stimulus: bool = True,
    within: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Gradients:
    """Gradients, given those of the responses and of the last state, by the adjoint of the Euler step.

    With g the gradient of a state and q = rate g, the gradient of the state one step before is
    ``g - q + [V > 0] W^T q``. The gradients of bias and input are sums of q, that of a rate sums g times the change
    without its rate, and that of a synapse strength sums ``signed_synapses q_target max(V_source, 0)`` over its
    synapses. W^T is the stencil with its offsets reversed, and shares what it reads with the sums for the strengths.
    """
    at, dtype = layout(network), of.bias.dtype
    n_models, n_samples, n_frames, n_columns = stimulus.shape
    n_dense, rows = len(at.is_input) * n_columns, n_kept(n_frames, interval)
    of_state = np.empty((n_models, n_samples, network.n_cells), dtype)
    of_stimulus = np.empty(stimulus.shape, dtype) if with_stimulus else None
    parts = batches(n_models, n_samples, _SUMMED_BATCHES)
    of_read = np.zeros((len(parts), at.to_sources.begin.size))
    of_type = np.zeros((len(parts), 2, len(at.is_input)))

    def run(number: int) -> None:
        model, samples = parts[number]
        steps = _Steps(network, of, model, samples)
        width, rate, plan = steps.width, of.rate[model], steps.plan
        states = kept[_span(parts[number], n_samples, rows * n_dense)].reshape(rows, n_dense * width)
        luminance = _side_by_side(stimulus[model, samples]) if interval > 1 else None
        between = np.empty((interval + 1 if interval > 1 else 0, n_dense * width), dtype)
        target_rate = rate[network.stencil.target]
        reads = _reads(at.to_sources, steps.weight * target_rate, width)
        grid = np.zeros((2, len(rate) * plan.block), dtype)
        grid[0].reshape(-1, width)[at.place] = of_last[model, samples].T
        of_x = np.zeros((n_frames if with_stimulus else 0, plan.dense), dtype)
        length = n_frames if interval == 1 else interval
        for slot, first in reversed(list(enumerate(range(0, n_frames, max(length, 1))))):
            some = slice(first, min(first + length, n_frames))
            if luminance is not None:
                between[0] = states[slot]
                nothing = Record(np.full(length, -1), *[np.empty(0, np.int64)] * 3)
                steps(luminance[some][:-1], between[: some.stop - some.start], nothing, of_responses[model, samples])
                between[some.stop - some.start] = states[slot + 1]
            retreat(
                plan,
                reads,
                rate,
                states if luminance is None else between[: some.stop - some.start + 1],
                grid,
                what._replace(slot=what.slot[some]),
                at.place[cells] * width,
                of_responses[model, samples],
                of_x[some],
                of_read[number],
                of_type[number],
                with_strength,
            )
        of_state[model, samples] = grid[0].reshape(-1, width)[at.place].T
        if of_stimulus is not None:
            of_stimulus[model, samples] = of_x.reshape(n_frames, n_columns, width).transpose(2, 0, 1)

    _each(run, range(len(parts)), within)
    of_bias, of_rate = np.zeros(of.bias.shape), np.zeros(of.rate.shape)
    of_strength = np.zeros(of.synapse_strength.shape)
    stencil, synapse = network.stencil, at.to_sources.synapse
    signed = np.where(at.to_sources.filled, stencil.signed_synapses[synapse], 0)
    target, pair = stencil.target[synapse], stencil.pair[synapse]
    for number, (model, _) in enumerate(parts):  # in this order on any number of threads
        rate = of.rate[model].astype(np.float64)
        of_bias[model] += rate * of_type[number, 0]
        of_rate[model] += of_type[number, 1] / rate
        of_strength[model] += np.bincount(pair, signed * rate[target] * of_read[number], of.synapse_strength.shape[1])
    return Gradients(
        of_bias.astype(dtype), of_rate.astype(dtype), of_strength.astype(dtype), stimulus=of_stimulus, state=of_state
    )


class _Steps:
    """Euler steps of a batch, in memory of its own."""

    def __init__(self, network: Network, of: Models, model: int, samples: slice) -> None:
        at = layout(network)
        self.width = samples.stop - samples.start
        self.plan = _plan(network, self.width, of.bias.dtype.name)
        stencil = network.stencil
        self.weight = stencil.signed_synapses.astype(of.bias.dtype) * of.synapse_strength[model, stencil.pair]
        self.reads = _reads(at.to_targets, self.weight, self.width)
        self.rate, self.bias = of.rate[model], of.bias[model]
        self.grid = np.zeros((2, len(self.rate) * self.plan.block), of.bias.dtype)

    def __call__(
        self,
        luminance: NDArray[np.floating],
        states: NDArray[np.floating],
        what: Record,
        responses: NDArray[np.floating],
    ) -> None:
        """Step through a luminance (frame, column x sample) from the first of the states."""
        advance(self.plan, self.reads, self.rate, self.bias, luminance, states, self.grid, what, responses)


def _side_by_side(stimulus: NDArray[np.floating]) -> NDArray[np.floating]:
    """(frame, column x sample) of (sample, frame, column)."""
    n_samples, n_frames, n_columns = stimulus.shape
    # Always a copy: a view could be read-only, which the kernels would be compiled for once more.
    return np.array(stimulus.transpose(1, 2, 0), order="C").reshape(n_frames, n_columns * n_samples)


def _span(batch: Batch, n_samples: int, size: int) -> slice:
    """Where a batch lies in an array of so many numbers for each sample of each model."""
    model, samples = batch
    return slice((model * n_samples + samples.start) * size, (model * n_samples + samples.stop) * size)


def batches(n_models: int, n_samples: int, at_least: int) -> list[Batch]:
    """Samples of each batch of each model: as many as fit the caches, but so many batches at least where they can be.

    Examples
    --------
    >>> batches(1, 10, at_least=2), batches(2, 1, at_least=4)
    ([(0, slice(0, 5, None)), (0, slice(5, 10, None))], [(0, slice(0, 1, None)), (1, slice(0, 1, None))])
    """
    if not n_samples:
        return []
    width = max(1, min(_WIDEST, -(-n_samples * n_models // at_least), n_samples))
    bounds = np.linspace(0, n_samples, -(-n_samples // width) + 1).round().astype(int).tolist()
    return [(model, slice(*bound)) for model in range(n_models) for bound in itertools.pairwise(bounds)]


def _each(run: Callable[[Any], None], parts: Sequence[Any], within: Callable[[], AbstractContextManager[None]]) -> None:
    """Run all parts, on as many threads as there are cores where there are several."""

    def surrounded(part: Any) -> None:
        with within():
            run(part)

    if len(parts) == 1:
        surrounded(parts[0])
    else:
        list(_threads(os.getpid(), n_threads()).map(surrounded, parts))


@lru_cache(maxsize=2)
def _threads(process: int, n_threads: int) -> ThreadPoolExecutor:
    """One pool a process, which all tasks of the process share; a forked process makes its own."""
    return ThreadPoolExecutor(n_threads, thread_name_prefix="flyxr-stencil")
