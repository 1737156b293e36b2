"""Euler steps of one batch and their adjoint, compiled by numba for float32 and float64; plain arrays in and out.

The samples of a batch are interleaved: they are the last axis of every array of places. States are dense
(cell_type, column, sample) and zero where there is no cell. Values that are read with an offset lie on a padded grid,
see :mod:`flyxr.engine.lattice`. Short loops over a row are separate functions, because the compiler then sees that
the arrays do not overlap and uses wide registers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numba
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

TAPS_PER_PASS = 4
"""Taps added in one pass, so that the sum is loaded and stored less often. The taps of a type come in such groups."""
_CELLS_PER_COPY = 64
"""Cells copied to the responses together, for all samples, so that they stay in the first-level cache."""


class BatchLayout(NamedTuple):
    """Where a batch keeps its values; lengths and positions count numbers, samples included.

    Each cell type has a block of ``block_size`` numbers on the grid. It begins with ``guard_size`` zeros, and the
    positions below count from their end. Sums are computed one segment at a time, from ``segment_begin`` to
    ``segment_end``. A segment contains the rows from ``first_row[segment]`` to ``first_row[segment + 1]``. A row
    extends from ``row_begin`` to ``row_end`` on the grid and begins at ``row_dense`` in the dense states, where a cell
    type has ``dense_size`` numbers. ``masks`` (mask, column x sample) is 1 where a type with that ``mask_index``
    (cell_type,) has a cell.
    """

    block_size: int
    guard_size: int
    dense_size: int
    segment_begin: NDArray[np.int64]
    segment_end: NDArray[np.int64]
    first_row: NDArray[np.int64]
    row_begin: NDArray[np.int64]
    row_end: NDArray[np.int64]
    row_dense: NDArray[np.int64]
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

    ``frame_slot`` (frame,) is the position of a frame in the responses, -1 if it is not recorded. Recorded cells that
    are neighbours in the states form runs: ``run_begin`` is the position of a run in the states, ``run_first_cell``
    its position in the responses, ``run_length`` its number of cells.
    """

    frame_slot: NDArray[np.int64]
    run_begin: NDArray[np.int64]
    run_first_cell: NDArray[np.int64]
    run_length: NDArray[np.int64]


def jit(function: Callable[..., Any], *fastmath: str) -> Any:
    """Compile a function on its first call, without the GIL, and cache the code on disk where that is possible."""
    options: dict[str, Any] = {"nogil": True, "fastmath": {"contract", *fastmath}, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # there is no directory to write a cache to
        return numba.njit(**options)(function)


def _rectify_row(potential: Any, activity: Any) -> None:
    zero = potential.dtype.type(0)
    for i in range(activity.size):
        activity[i] = max(potential[i], zero)


def _step_row(
    potential: Any, next_potential: Any, next_activity: Any, current: Any, mask: Any, rate: Any, bias: Any
) -> None:
    zero = potential.dtype.type(0)
    for i in range(next_potential.size):
        value = mask[i] * (potential[i] + rate * ((bias - potential[i]) + current[i]))
        next_potential[i] = value
        next_activity[i] = max(value, zero)


def _backpropagate_row(
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


def _add_row(values: Any, factor: Any, out: Any) -> None:
    for i in range(out.size):
        out[i] += factor * values[i]


rectify_row, step_row, add_row = jit(_rectify_row), jit(_step_row), jit(_add_row)
backpropagate_row = jit(_backpropagate_row, "reassoc")


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
    """Step through all frames of a luminance (frame, column x sample), and record.

    The initial state is ``states[state]``. The state after each frame goes to the next row, and from the last row back
    to the first. ``grid`` (2, type x block) is scratch memory for the activity; it must be zero between the rows.
    """
    zero = rate.dtype.type(0)
    n_samples = responses.shape[0]
    activity, next_activity = grid[0], grid[1]
    sums = np.empty(layout.row_end[-1], rate.dtype)
    for cell_type in range(rate.size):
        block, dense = cell_type * layout.block_size + layout.guard_size, cell_type * layout.dense_size
        for row in range(layout.row_begin.size):
            begin, end, position = layout.row_begin[row], layout.row_end[row], dense + layout.row_dense[row]
            rectify_row(states[state, position : position + end - begin], activity[block + begin : block + end])
    for frame in range(luminance.shape[0]):
        potential, state = states[state], (state + 1) % states.shape[0]
        next_potential, frame_luminance = states[state], luminance[frame]
        for cell_type in range(rate.size):
            block, dense = cell_type * layout.block_size + layout.guard_size, cell_type * layout.dense_size
            mask = layout.masks[layout.mask_index[cell_type]]
            for segment in range(layout.segment_begin.size):
                left, right = layout.segment_begin[segment], layout.segment_end[segment]
                rows = range(layout.first_row[segment], layout.first_row[segment + 1])
                current = sums[: right - left]
                current[:] = zero
                if layout.is_input[cell_type]:
                    for row in rows:
                        begin, end = layout.row_begin[row] - left, layout.row_end[row] - left
                        position = layout.row_dense[row]
                        current[begin:end] = frame_luminance[position : position + end - begin]
                for tap in range(taps.first[cell_type], taps.first[cell_type + 1], 4):
                    p0, p1 = taps.begin[tap] + left, taps.begin[tap + 1] + left
                    p2, p3 = taps.begin[tap + 2] + left, taps.begin[tap + 3] + left
                    a0, a1 = activity[p0 : p0 + right - left], activity[p1 : p1 + right - left]
                    a2, a3 = activity[p2 : p2 + right - left], activity[p3 : p3 + right - left]
                    w0, w1 = taps.weight[tap], taps.weight[tap + 1]
                    w2, w3 = taps.weight[tap + 2], taps.weight[tap + 3]
                    for i in range(right - left):
                        current[i] += w0 * a0[i] + w1 * a1[i] + w2 * a2[i] + w3 * a3[i]
                for row in rows:
                    begin, end, position = layout.row_begin[row], layout.row_end[row], layout.row_dense[row]
                    step_row(
                        potential[dense + position : dense + position + end - begin],
                        next_potential[dense + position : dense + position + end - begin],
                        next_activity[block + begin : block + end],
                        current[begin - left : end - left],
                        mask[position : position + end - begin],
                        rate[cell_type],
                        bias[cell_type],
                    )
        activity, next_activity = next_activity, activity
        if recording.frame_slot[frame] >= 0:
            for run in range(recording.run_begin.size):
                for first in range(0, recording.run_length[run], _CELLS_PER_COPY):
                    n_cells = min(_CELLS_PER_COPY, recording.run_length[run] - first)
                    position = (recording.run_begin[run] + first) * n_samples
                    cell = recording.run_first_cell[run] + first
                    for sample in range(n_samples):
                        recorded = responses[sample, recording.frame_slot[frame], cell : cell + n_cells]
                        for i in range(n_cells):
                            recorded[i] = next_potential[position + i * n_samples + sample]


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
    change of the state; and to ``grad_luminance`` (frame, column x sample), unless that has no frames.
    """
    zero = rate.dtype.type(0)
    n_samples = grad_responses.shape[0]
    n_frames = states.shape[0] - 1
    grad, previous_grad = grid[0], grid[1]
    sums, activities = np.empty(layout.row_end[-1], rate.dtype), np.zeros(layout.row_end[-1], rate.dtype)
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
            block, dense = cell_type * layout.block_size + layout.guard_size, cell_type * layout.dense_size
            mask = layout.masks[layout.mask_index[cell_type]]
            for segment in range(layout.segment_begin.size):
                left, right = layout.segment_begin[segment], layout.segment_end[segment]
                rows = range(layout.first_row[segment], layout.first_row[segment + 1])
                synaptic_grad, activity = sums[: right - left], activities[: right - left]
                synaptic_grad[:] = zero
                if needs_strength:
                    for row in rows:
                        begin, end = layout.row_begin[row], layout.row_end[row]
                        position = dense + layout.row_dense[row]
                        rectify_row(potential[position : position + end - begin], activity[begin - left : end - left])
                for tap in range(taps.first[cell_type], taps.first[cell_type + 1], 4):
                    p0, p1 = taps.begin[tap] + left, taps.begin[tap + 1] + left
                    p2, p3 = taps.begin[tap + 2] + left, taps.begin[tap + 3] + left
                    r0, r1 = grad[p0 : p0 + right - left], grad[p1 : p1 + right - left]
                    r2, r3 = grad[p2 : p2 + right - left], grad[p3 : p3 + right - left]
                    w0, w1 = taps.weight[tap], taps.weight[tap + 1]
                    w2, w3 = taps.weight[tap + 2], taps.weight[tap + 3]
                    if needs_strength:
                        s0, s1, s2, s3 = zero, zero, zero, zero
                        for i in range(right - left):
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
                        for i in range(right - left):
                            synaptic_grad[i] += w0 * r0[i] + w1 * r1[i] + w2 * r2[i] + w3 * r3[i]
                for row in rows:
                    begin, end, position = layout.row_begin[row], layout.row_end[row], layout.row_dense[row]
                    row_grad = grad[block + begin : block + end]
                    grad_sum, change_sum = backpropagate_row(
                        row_grad,
                        previous_grad[block + begin : block + end],
                        synaptic_grad[begin - left : end - left],
                        potential[dense + position : dense + position + end - begin],
                        next_potential[dense + position : dense + position + end - begin],
                        mask[position : position + end - begin],
                        rate[cell_type],
                    )
                    type_sums[0, cell_type] += grad_sum
                    type_sums[1, cell_type] += change_sum
                    if layout.is_input[cell_type] and grad_luminance.shape[0] > 0:
                        add_row(row_grad, rate[cell_type], grad_luminance[frame, position : position + end - begin])
        grad, previous_grad = previous_grad, grad
    if n_frames % 2:
        grid[0] = grid[1]


advance = jit(_advance)
backpropagate = jit(_backpropagate, "reassoc")
