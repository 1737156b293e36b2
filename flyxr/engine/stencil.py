"""Explicit Euler in numba, float32, on the CPU: connections as a stencil that slides over the lattice of columns.

Weights are the same in every column, so 2,355 numbers stand for 1.5 million. Each cell type has a block of its own, in
which the columns lie on a square grid with zeros around them: the current through one columnar offset is then one
weight times one shifted run of memory. A batch is some samples of one model, which lie side by side in every column.
Samples share nothing but weights, so any batches on any number of threads give the same bits.
"""

from __future__ import annotations

import itertools
import os
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numba
import numpy as np

from flyxr.engine.base import Integrated, Network, Parameters

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


_WIDEST = 8
"""Samples of a batch at most: more would leave the caches."""
_SIDE_BY_SIDE = 4
"""Samples of a batch from which a row of the grid is long enough to go row by row, and leave out its corners."""


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

    A step is ``V <- V + rate ((bias - V) + x + W max(V, 0))`` with ``rate = dt / max(tau, dt)``, in batches on as
    many threads as there are cores.

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
    if device != "cpu":
        raise ValueError(f"the stencil engine computes on the CPU, got device={device!r}: use engine='sparse'")
    layout = _layout(network)
    n_models, n_samples, n_frames = len(parameters.bias), len(stimulus), stimulus.shape[1]
    cells = np.arange(network.n_cells) if cells is None else cells
    recorded = np.arange(n_frames) if frames is None else frames
    slot = np.full(n_frames, -1)
    slot[recorded] = np.arange(len(recorded))
    there = cells >= 0
    runs = _runs(np.where(there, layout.place[cells], -1))

    responses = np.empty((n_models, n_samples, len(recorded), len(cells)), np.float32)
    responses[..., ~there] = np.nan
    last = np.empty((n_models, n_samples, network.n_cells), np.float32)
    luminance = np.asarray(stimulus, dtype=np.float32)
    of_model = [_model(layout, parameters, model, dt) for model in range(n_models)]

    def run(batch: tuple[int, slice]) -> None:
        model, samples = batch
        weight, rate, bias = of_model[model]
        width = samples.stop - samples.start
        potential = np.zeros((len(rate) * layout.block, width), np.float32)
        if state is None:
            potential[layout.place] = bias[network.cell_type, None]
        else:
            potential[layout.place] = state[model, samples if state.shape[1] > 1 else slice(None)].T
        _advance(
            potential.ravel(),
            np.ascontiguousarray(luminance[samples].transpose(1, 2, 0)),
            *(weight, rate, bias, layout.is_input, layout.column_place),
            *(
                layout.first_synapse,
                layout.first_read,
                np.repeat(layout.mask, width, axis=1),
                layout.mask_of_type,
                layout.guard,
            ),
            *(layout.whole if width < _SIDE_BY_SIDE else layout.rows),
            *(slot, *runs, responses[model, samples]),
        )
        last[model, samples] = potential[layout.place].T

    batches = [(model, samples) for model in range(n_models) for samples in _batches(n_models, n_samples)]
    if len(batches) == 1:
        run(batches[0])
    else:
        list(_threads(os.getpid()).map(run, batches))
    return Integrated(responses, last)


class _Layout(NamedTuple):
    """Where cells lie and what synapses read; synapses in the order of their target types.

    ``place`` (cell,) is the position of a cell in the potentials; ``column_place`` (column,) that of a column in the
    grid of a block; ``block`` the length of a type's block, a grid between two guards of zeros; ``first_read``
    (synapse,) where a synapse begins to read for the first position of the grid; ``mask`` (mask, position) is 1 where
    a cell may be. ``rows`` are begin and end of the columns of each row of the grid, ``whole`` of all of it.
    """

    place: NDArray[np.int64]
    column_place: NDArray[np.int64]
    block: int
    guard: int
    first_synapse: NDArray[np.int64]
    first_read: NDArray[np.int64]
    signed_synapses: NDArray[np.float32]
    pair: NDArray[np.int64]
    is_input: NDArray[np.bool_]
    mask: NDArray[np.float32]
    mask_of_type: NDArray[np.int64]
    rows: tuple[NDArray[np.int64], NDArray[np.int64]]
    whole: tuple[NDArray[np.int64], NDArray[np.int64]]


@lru_cache(maxsize=4)
def _layout(network: Network) -> _Layout:
    stencil, n_types = network.stencil, int(network.cell_type.max()) + 1
    du, dv = stencil.offset.T
    # Rows of the grid are one u each, and far enough apart that a shift along v ends in zeros, not in the next row.
    row = 2 * int(np.abs(network.v).max()) + 1 + int(np.abs(dv).max(initial=0))
    column_place = (network.u - network.u.min()) * row + network.v - network.v.min()
    length = int(network.u.max() - network.u.min() + 1) * row
    guard = int(np.abs(du * row + dv).max(initial=0))
    block = -(-(length + 2 * guard) // 16) * 16
    order = np.argsort(stencil.target, kind="stable")
    place = network.cell_type * block + guard + column_place[network.column]
    present = np.zeros((n_types, length), np.float32)
    present[network.cell_type, column_place[network.column]] = 1
    mask, mask_of_type = np.unique(present, axis=0, return_inverse=True)
    starts = np.flatnonzero(np.diff(network.u, prepend=network.u.min() - 1))
    is_input = np.zeros(n_types, dtype=bool)
    is_input[network.cell_type[network.is_input]] = True
    return _Layout(
        place=place.astype(np.int64),
        column_place=column_place,
        block=block,
        guard=guard,
        first_synapse=np.searchsorted(stencil.target[order], np.arange(n_types + 1)),
        first_read=(stencil.source * block + guard - (du * row + dv))[order],
        signed_synapses=stencil.signed_synapses[order],
        pair=stencil.pair[order],
        is_input=is_input,
        mask=mask,
        mask_of_type=mask_of_type.ravel(),
        rows=(column_place[starts], column_place[np.append(starts[1:], network.u.size) - 1] + 1),
        whole=(np.array([0]), np.array([length])),
    )


def _model(
    layout: _Layout, parameters: Parameters, model: int, dt: float
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Weight (synapse,), rate (cell_type,) and bias (cell_type,) of a model."""
    strength = parameters.synapse_strength[model].astype(np.float32)
    tau = parameters.time_constant[model].astype(np.float32)
    rate = np.float32(dt) / np.maximum(tau, np.float32(dt))
    return layout.signed_synapses * strength[layout.pair], rate, parameters.bias[model].astype(np.float32)


def _runs(places: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Cells to record as runs of neighbours: where each begins in the potentials and in the record, and its length.

    Places below 0 are of no cell, and in no run.
    """
    first = np.flatnonzero((np.diff(places, prepend=-2) != 1) | (places < 0))
    length = np.diff(np.append(first, places.size))
    kept = places[first] >= 0
    return places[first][kept], first[kept], length[kept]


def _batches(n_models: int, n_samples: int) -> list[slice]:
    """Samples of each batch: as many as fit the caches, but a batch for each core."""
    width = max(1, min(_WIDEST, -(-n_samples * n_models // _cores()), n_samples))
    bounds = np.linspace(0, n_samples, -(-n_samples // width) + 1).round().astype(int).tolist()
    return [slice(first, stop) for first, stop in itertools.pairwise(bounds)]


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@lru_cache(maxsize=1)
def _threads(process: int) -> ThreadPoolExecutor:
    """One pool a process, which all tasks of the process share; a forked process makes its own."""
    return ThreadPoolExecutor(_cores(), thread_name_prefix="flyxr-stencil")


def _compiled(function: Callable[..., None]) -> Any:
    options: dict[str, Any] = {"nogil": True, "fastmath": {"contract"}, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # nowhere to write a cache
        return numba.njit(**options)(function)


def _advance_batch(
    potential: NDArray[np.float32],
    luminance: NDArray[np.float32],
    weight: NDArray[np.float32],
    rate: NDArray[np.float32],
    bias: NDArray[np.float32],
    is_input: NDArray[np.bool_],
    column_place: NDArray[np.int64],
    first_synapse: NDArray[np.int64],
    first_read: NDArray[np.int64],
    mask: NDArray[np.float32],
    mask_of_type: NDArray[np.int64],
    guard: int,
    begins: NDArray[np.int64],
    ends: NDArray[np.int64],
    slot: NDArray[np.int64],
    run_place: NDArray[np.int64],
    run_first: NDArray[np.int64],
    run_length: NDArray[np.int64],
    responses: NDArray[np.float32],
) -> None:
    """Advance the potentials of a batch by all frames of its luminance (time, column, sample), in place, and record."""
    n_types, width = rate.size, luminance.shape[2]
    length = mask.shape[1] // width
    block = potential.size // (n_types * width)
    active = np.maximum(potential, np.float32(0))
    next_active = np.zeros_like(potential)
    current = np.empty(length * width, np.float32)
    x = np.zeros(length * width, np.float32)
    for frame in range(luminance.shape[0]):
        for column in range(column_place.size):
            for sample in range(width):
                x[column_place[column] * width + sample] = luminance[frame, column, sample]
        for cell_type in range(n_types):
            if is_input[cell_type]:
                current[:] = x
            else:
                current[:] = np.float32(0)
            synapse, end = first_synapse[cell_type], first_synapse[cell_type + 1]
            while synapse + 4 <= end:  # four at a time: the sum is loaded and stored a quarter as often
                w0, w1, w2, w3 = weight[synapse], weight[synapse + 1], weight[synapse + 2], weight[synapse + 3]
                p0, p1, p2, p3 = (
                    first_read[synapse] * width,
                    first_read[synapse + 1] * width,
                    first_read[synapse + 2] * width,
                    first_read[synapse + 3] * width,
                )
                for segment in range(begins.size):
                    begin, stop = begins[segment] * width, ends[segment] * width
                    total = current[begin:stop]
                    r0, r1 = active[p0 + begin : p0 + stop], active[p1 + begin : p1 + stop]
                    r2, r3 = active[p2 + begin : p2 + stop], active[p3 + begin : p3 + stop]
                    for i in range(stop - begin):
                        total[i] += w0 * r0[i] + w1 * r1[i] + w2 * r2[i] + w3 * r3[i]
                synapse += 4
            while synapse < end:
                w0, p0 = weight[synapse], first_read[synapse] * width
                for segment in range(begins.size):
                    begin, stop = begins[segment] * width, ends[segment] * width
                    total = current[begin:stop]
                    r0 = active[p0 + begin : p0 + stop]
                    for i in range(stop - begin):
                        total[i] += w0 * r0[i]
                synapse += 1
            first = (cell_type * block + guard) * width
            of_type = potential[first : first + length * width]
            then_active = next_active[first : first + length * width]
            there = mask[mask_of_type[cell_type]]
            type_rate, type_bias = rate[cell_type], bias[cell_type]
            for i in range(length * width):
                value = there[i] * (of_type[i] + type_rate * ((type_bias - of_type[i]) + current[i]))
                of_type[i] = value
                then_active[i] = max(value, np.float32(0))
        active, next_active = next_active, active
        if slot[frame] >= 0:
            for run in range(run_place.size):
                for sample in range(width):
                    for i in range(run_length[run]):
                        recorded = potential[(run_place[run] + i) * width + sample]
                        responses[sample, slot[frame], run_first[run] + i] = recorded


_advance = _compiled(_advance_batch)
