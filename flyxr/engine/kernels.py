"""Euler steps of one batch and their adjoint, compiled by numba for float32 and float64; plain arrays in and out.

The samples of a batch are interleaved: they are the last axis of every array of places. States (cell_type, place,
sample) are zero where there is no cell. Values that are read with an offset lie on a grid with zeros around the places
of each cell type, see :mod:`flyxr.engine.lattice`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numba
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

TAPS_PER_PASS = 8
"""Taps added in one pass, so that the sum is loaded and stored less often. The taps of a type come in such groups. A
pass of the adjoint takes half a group, since each tap has a sum of its own there."""
_CELLS_PER_COPY = 64
"""Cells copied to the responses together, for all samples, so that they stay in the first-level cache."""


class BatchLayout(NamedTuple):
    """Where a batch keeps its values; lengths and positions count numbers, samples included.

    Each cell type has ``type_size`` numbers in the states, and a block of ``block_size`` numbers on the grid, where
    ``guard_size`` zeros come before them. ``masks`` (mask, place x sample) is 1 where a type with that ``mask_index``
    (cell_type,) has a cell.
    """

    type_size: int
    block_size: int
    guard_size: int
    is_input: NDArray[np.bool_]
    masks: NDArray[np.floating]
    mask_index: NDArray[np.int64]


class Taps(NamedTuple):
    """Weighted reads from the grid: cell type ``i`` adds up the taps from ``first[i]`` to ``first[i + 1]``.

    ``begin`` (tap,) is the position on the grid, ``weight`` (tap,) the factor.
    """

    first: NDArray[np.int64]
    begin: NDArray[np.int64]
    weight: NDArray[np.floating]


class Recording(NamedTuple):
    """Frames and cells to record.

    ``frame_slot`` (frame,) is the position of a frame in the responses, -1 if it is not recorded. ``place`` (recorded
    cell,) is the place of a cell in the states of one sample, -1 if it is absent.
    """

    frame_slot: NDArray[np.int64]
    place: NDArray[np.int64]


def jit(function: Callable[..., Any], *fastmath: str, inline: bool = False) -> Any:
    """Compile a function on its first call, without the GIL, and cache the code on disk where that is possible.

    A call takes longer than a short loop, so the functions with the loops are compiled into those that call them.
    """
    options: dict[str, Any] = {"nogil": True, "fastmath": {"contract", *fastmath}, "error_model": "numpy"}
    options["forceinline"] = inline
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # there is no directory to write a cache to
        return numba.njit(**options)(function)


def _rectify(potential: Any, activity: Any) -> None:
    zero = potential.dtype.type(0)
    for i in range(activity.size):
        activity[i] = max(potential[i], zero)


def _step(
    potential: Any, next_potential: Any, next_activity: Any, current: Any, mask: Any, rate: Any, bias: Any
) -> None:
    zero = potential.dtype.type(0)
    for i in range(next_potential.size):
        value = mask[i] * (potential[i] + rate * ((bias - potential[i]) + current[i]))
        next_potential[i] = value
        next_activity[i] = max(value, zero)


def _backpropagate_step(
    grad: Any, previous_grad: Any, synaptic_grad: Any, potential: Any, next_potential: Any, mask: Any, rate: Any
) -> tuple[Any, Any]:
    """Compute the gradient one step earlier; return the sums of the gradient and of its products with the change."""
    zero = grad.dtype.type(0)
    grad_sum, change_sum = zero, zero
    for i in range(previous_grad.size):
        value = grad[i]
        decayed = value - rate * value
        previous_grad[i] = mask[i] * (decayed + (synaptic_grad[i] if potential[i] > zero else zero))
        grad_sum += value
        change_sum += value * (next_potential[i] - potential[i])
    return grad_sum, change_sum


def _add(values: Any, factor: Any, out: Any) -> None:
    for i in range(out.size):
        out[i] += factor * values[i]


rectify, add = jit(_rectify, inline=True), jit(_add, inline=True)
step = jit(_step, inline=True)
backpropagate_step = jit(_backpropagate_step, "reassoc", inline=True)


def _advance(
    layout: BatchLayout,
    taps: Taps,
    rate: NDArray[np.floating],
    bias: NDArray[np.floating],
    luminance: NDArray[np.floating],
    states: NDArray[np.floating],
    state: int,
    grid: NDArray[np.floating],
    recording: Recording,
    responses: NDArray[np.floating],
) -> None:
    """Step through all frames of a luminance (frame, place x sample), and record.

    The initial state is ``states[state]``. The state after each frame goes to the next row, and from the last row back
    to the first. ``grid`` (2, type x block) is scratch memory for the activity; it must be zero around the places.
    """
    zero = rate.dtype.type(0)
    n_samples, size = responses.shape[0], layout.type_size
    activity, next_activity = grid[0], grid[1]
    current = np.empty(size, rate.dtype)
    for cell_type in range(rate.size):
        block, first = cell_type * layout.block_size + layout.guard_size, cell_type * size
        rectify(states[state, first : first + size], activity[block : block + size])
    for frame in range(luminance.shape[0]):
        potential, state = states[state], (state + 1) % states.shape[0]
        next_potential = states[state]
        for cell_type in range(rate.size):
            if layout.is_input[cell_type]:
                current[:] = luminance[frame]
            else:
                current[:] = zero
            for tap in range(taps.first[cell_type], taps.first[cell_type + 1], 8):
                begin, w = taps.begin[tap : tap + 8], taps.weight[tap : tap + 8]
                a0, a1, a2, a3 = activity[begin[0] :], activity[begin[1] :], activity[begin[2] :], activity[begin[3] :]
                a4, a5, a6, a7 = activity[begin[4] :], activity[begin[5] :], activity[begin[6] :], activity[begin[7] :]
                w0, w1, w2, w3, w4, w5, w6, w7 = w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7]
                for i in range(size):
                    first_half = w0 * a0[i] + w1 * a1[i] + w2 * a2[i] + w3 * a3[i]
                    current[i] += first_half + w4 * a4[i] + w5 * a5[i] + w6 * a6[i] + w7 * a7[i]
            block, first = cell_type * layout.block_size + layout.guard_size, cell_type * size
            step(
                potential[first : first + size],
                next_potential[first : first + size],
                next_activity[block : block + size],
                current,
                layout.masks[layout.mask_index[cell_type]],
                rate[cell_type],
                bias[cell_type],
            )
        activity, next_activity = next_activity, activity
        if recording.frame_slot[frame] >= 0:
            for first in range(0, recording.place.size, _CELLS_PER_COPY):
                end = min(first + _CELLS_PER_COPY, recording.place.size)
                for sample in range(n_samples):
                    recorded = responses[sample, recording.frame_slot[frame]]
                    for i in range(first, end):
                        if recording.place[i] >= 0:
                            recorded[i] = next_potential[recording.place[i] * n_samples + sample]


def _backpropagate(
    layout: BatchLayout,
    taps: Taps,
    rate: NDArray[np.floating],
    states: NDArray[np.floating],
    grid: NDArray[np.floating],
    recording: Recording,
    recorded_positions: NDArray[np.int64],
    grad_responses: NDArray[np.floating],
    grad_luminance: NDArray[np.floating],
    tap_sums: NDArray[np.float64],
    type_sums: NDArray[np.float64],
    needs_strength: bool,
) -> None:
    """Carry the gradient of the last of some states to the first, back through all frames between them.

    The first row of ``grid`` (2, type x block) holds the gradient, on entry and on return. The taps lead from targets
    to sources, and their weights include the rate of the target. The function adds to ``tap_sums`` (tap,), products of
    a target's gradient and a source's activity; to ``type_sums`` (2, cell_type), the gradient and its product with the
    change of the state; and to ``grad_luminance`` (frame, place x sample), unless that has no frames.
    """
    zero = rate.dtype.type(0)
    n_samples, size = grad_responses.shape[0], layout.type_size
    n_frames = states.shape[0] - 1
    grad, previous_grad = grid[0], grid[1]
    synaptic_grad, activity = np.empty(size, rate.dtype), np.empty(size, rate.dtype)
    for frame in range(n_frames - 1, -1, -1):
        if recording.frame_slot[frame] >= 0:
            for first in range(0, recorded_positions.size, _CELLS_PER_COPY):
                end = min(first + _CELLS_PER_COPY, recorded_positions.size)
                for sample in range(n_samples):
                    grad_recorded = grad_responses[sample, recording.frame_slot[frame]]
                    for i in range(first, end):
                        grad[recorded_positions[i] + sample] += grad_recorded[i]
        potential, next_potential = states[frame], states[frame + 1]
        for cell_type in range(rate.size):
            block, first = cell_type * layout.block_size + layout.guard_size, cell_type * size
            synaptic_grad[:] = zero
            if needs_strength:
                rectify(potential[first : first + size], activity)
            for tap in range(taps.first[cell_type], taps.first[cell_type + 1], 4):
                p0, p1, p2, p3 = taps.begin[tap], taps.begin[tap + 1], taps.begin[tap + 2], taps.begin[tap + 3]
                r0, r1, r2, r3 = grad[p0 : p0 + size], grad[p1 : p1 + size], grad[p2 : p2 + size], grad[p3 : p3 + size]
                w0, w1, w2, w3 = taps.weight[tap], taps.weight[tap + 1], taps.weight[tap + 2], taps.weight[tap + 3]
                if needs_strength:
                    s0, s1, s2, s3 = zero, zero, zero, zero
                    for i in range(size):
                        g0, g1, g2, g3 = r0[i], r1[i], r2[i], r3[i]  # loaded once for both sums
                        s0 += activity[i] * g0
                        s1 += activity[i] * g1
                        s2 += activity[i] * g2
                        s3 += activity[i] * g3
                        synaptic_grad[i] += w0 * g0 + w1 * g1 + w2 * g2 + w3 * g3
                    tap_sums[tap] += s0
                    tap_sums[tap + 1] += s1
                    tap_sums[tap + 2] += s2
                    tap_sums[tap + 3] += s3
                else:
                    for i in range(size):
                        synaptic_grad[i] += w0 * r0[i] + w1 * r1[i] + w2 * r2[i] + w3 * r3[i]
            type_grad = grad[block : block + size]
            grad_sum, change_sum = backpropagate_step(
                type_grad,
                previous_grad[block : block + size],
                synaptic_grad,
                potential[first : first + size],
                next_potential[first : first + size],
                layout.masks[layout.mask_index[cell_type]],
                rate[cell_type],
            )
            type_sums[0, cell_type] += grad_sum
            type_sums[1, cell_type] += change_sum
            if layout.is_input[cell_type] and grad_luminance.shape[0] > 0:
                add(type_grad, rate[cell_type], grad_luminance[frame])
        grad, previous_grad = previous_grad, grad
    if n_frames % 2:
        grid[0] = grid[1]


advance = jit(_advance)
backpropagate = jit(_backpropagate, "reassoc")
