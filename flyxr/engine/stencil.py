"""Explicit Euler in numba, float32, on the CPU: connections as a stencil that slides over the lattice of columns.

Weights are the same in every column, so 2,355 numbers stand for 1.5 million. Each cell type has a block of its own, in
which the columns lie on a square grid with zeros around them: the current through one columnar offset is then one
weight times one shifted run of memory. A lane is one model with one sample; lanes share nothing, so any number of
them runs on any number of threads and gives the same bits.
"""

from __future__ import annotations

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

    A step is ``V <- V + rate ((bias - V) + x + W max(V, 0))`` with ``rate = dt / max(tau, dt)``, lane after lane, on
    as many threads as there are cores.

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
    runs = _runs(layout.place[cells])

    responses = np.empty((n_models, n_samples, len(recorded), len(cells)), np.float32)
    last = np.empty((n_models, n_samples, network.n_cells), np.float32)
    luminance = np.ascontiguousarray(stimulus, dtype=np.float32)
    of_model = [_model(layout, parameters, model, dt) for model in range(n_models)]

    def run(lane: int) -> None:
        model, sample = divmod(lane, n_samples)
        weight, rate, bias = of_model[model]
        given = bias[network.cell_type] if state is None else state[model, sample % state.shape[1]]
        potential = np.zeros((len(rate), layout.block), np.float32)
        potential.ravel()[layout.place] = given
        _advance(
            potential.ravel(),
            luminance[sample],
            *(weight, rate, bias, layout.is_input, layout.column_place),
            *(layout.first_synapse, layout.first_read, layout.mask, layout.mask_of_type, layout.guard),
            *(slot, *runs, responses[model, sample]),
        )
        last[model, sample] = potential.ravel()[layout.place]

    lanes = range(n_models * n_samples)
    if len(lanes) == 1:
        run(0)
    else:
        list(_threads(os.getpid()).map(run, lanes))
    return Integrated(responses, last)


class _Layout(NamedTuple):
    """Where cells lie and what synapses read; synapses in the order of their target types.

    ``place`` (cell,) is the position of a cell in the potentials; ``column_place`` (column,) that of a column in the
    grid of a block; ``block`` the length of a type's block, a grid between two guards of zeros; ``first_read``
    (synapse,) where a synapse begins to read for the first position of the grid; ``mask`` (mask, position) is 1 where
    a cell may be.
    """

    place: NDArray[np.int64]
    column_place: NDArray[np.int64]
    block: int
    guard: int
    order: NDArray[np.int64]
    first_synapse: NDArray[np.int64]
    first_read: NDArray[np.int64]
    signed_synapses: NDArray[np.float32]
    pair: NDArray[np.int64]
    is_input: NDArray[np.bool_]
    mask: NDArray[np.float32]
    mask_of_type: NDArray[np.int64]


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
    is_input = np.zeros(n_types, dtype=bool)
    is_input[network.cell_type[network.is_input]] = True
    return _Layout(
        place=place.astype(np.int64),
        column_place=column_place,
        block=block,
        guard=guard,
        order=order,
        first_synapse=np.searchsorted(stencil.target[order], np.arange(n_types + 1)),
        first_read=(stencil.source * block + guard - (du * row + dv))[order],
        signed_synapses=stencil.signed_synapses[order],
        pair=stencil.pair[order],
        is_input=is_input,
        mask=mask,
        mask_of_type=mask_of_type.ravel(),
    )


def _model(
    layout: _Layout, parameters: Parameters, model: int, dt: float
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Weight (synapse,), rate (cell_type,) and bias (cell_type,) of a model."""
    strength = parameters.synapse_strength[model].astype(np.float32)
    tau = parameters.time_constant[model].astype(np.float32)
    rate = np.float32(dt) / np.maximum(tau, np.float32(dt))
    return layout.signed_synapses * strength[layout.pair], rate, parameters.bias[model].astype(np.float32)


def _runs(places: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cells to record as runs of neighbours: where each begins in the potentials, and in the record, and the end."""
    first = np.flatnonzero(np.diff(places, prepend=-2) != 1)
    return places[first], np.append(first, places.size)


@lru_cache(maxsize=1)
def _threads(process: int) -> ThreadPoolExecutor:
    """One pool a process, which all tasks of the process share; a forked process makes its own."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return ThreadPoolExecutor(cores, thread_name_prefix="flyxr-stencil")


def _compiled(function: Callable[..., None]) -> Any:
    options: dict[str, Any] = {"nogil": True, "fastmath": {"contract"}, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # nowhere to write a cache
        return numba.njit(**options)(function)


def _advance_lane(
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
    slot: NDArray[np.int64],
    run_place: NDArray[np.int64],
    run_first: NDArray[np.int64],
    responses: NDArray[np.float32],
) -> None:
    """Advance the potentials of a lane by all frames of its luminance (time, column), in place, and record."""
    n_types, length = rate.size, mask.shape[1]
    block = potential.size // n_types
    active = np.maximum(potential, np.float32(0))
    next_active = np.zeros_like(potential)
    current = np.empty(length, np.float32)
    x = np.zeros(length, np.float32)
    for frame in range(luminance.shape[0]):
        for column in range(column_place.size):
            x[column_place[column]] = luminance[frame, column]
        for cell_type in range(n_types):
            if is_input[cell_type]:
                current[:] = x
            else:
                current[:] = np.float32(0)
            synapse, end = first_synapse[cell_type], first_synapse[cell_type + 1]
            while synapse + 4 <= end:  # four at a time: the sum is loaded and stored a quarter as often
                w0, w1, w2, w3 = weight[synapse], weight[synapse + 1], weight[synapse + 2], weight[synapse + 3]
                r0 = active[first_read[synapse] : first_read[synapse] + length]
                r1 = active[first_read[synapse + 1] : first_read[synapse + 1] + length]
                r2 = active[first_read[synapse + 2] : first_read[synapse + 2] + length]
                r3 = active[first_read[synapse + 3] : first_read[synapse + 3] + length]
                for i in range(length):
                    current[i] += w0 * r0[i] + w1 * r1[i] + w2 * r2[i] + w3 * r3[i]
                synapse += 4
            while synapse < end:
                w0 = weight[synapse]
                r0 = active[first_read[synapse] : first_read[synapse] + length]
                for i in range(length):
                    current[i] += w0 * r0[i]
                synapse += 1
            first = cell_type * block + guard
            of_type = potential[first : first + length]
            then_active = next_active[first : first + length]
            there = mask[mask_of_type[cell_type]]
            type_rate, type_bias = rate[cell_type], bias[cell_type]
            for i in range(length):
                value = there[i] * (of_type[i] + type_rate * ((type_bias - of_type[i]) + current[i]))
                of_type[i] = value
                then_active[i] = max(value, np.float32(0))
        active, next_active = next_active, active
        if slot[frame] >= 0:
            for run in range(run_place.size):
                for i in range(run_first[run + 1] - run_first[run]):
                    responses[slot[frame], run_first[run] + i] = potential[run_place[run] + i]


_advance = _compiled(_advance_lane)
