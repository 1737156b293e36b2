"""Euler steps of one batch and their adjoint, compiled by numba for float32 and float64; plain arrays in and out.

The samples of a batch lie side by side in every place. States are dense, (cell_type, column, sample), and zero where
there is no cell. What is read with an offset lies on a grid, see :mod:`flyxr.engine.lattice`. Short loops over a row
are functions of their own, because compilers see better there that the arrays do not overlap, and use the wide
registers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numba
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

AT_ONCE = 4
"""Synapses of one pass: the sum is loaded and stored so much more seldom. Synapses of a type come in such groups."""
_TRANSPOSED = 64
"""Cells of all samples that are copied to a record together, so that they stay in the first cache."""


class Plan(NamedTuple):
    """Where a batch has what: lengths and positions count numbers, samples among them.

    A type has a ``block`` of the grid, in which ``guard`` zeros come first; positions below count from there. Sums go
    over one segment at a time, from ``begin`` to ``end``, which has the rows from ``first_row[segment]`` to
    ``first_row[segment + 1]``; a row lies from ``row_begin`` to ``row_end``, and in the dense states at ``row_dense``.
    ``mask`` (mask, column x sample) is 1 where a type has a cell.
    """

    block: int
    guard: int
    dense: int
    begin: NDArray[np.int64]
    end: NDArray[np.int64]
    first_row: NDArray[np.int64]
    row_begin: NDArray[np.int64]
    row_end: NDArray[np.int64]
    row_dense: NDArray[np.int64]
    is_input: NDArray[np.bool_]
    mask: NDArray[np.floating]
    mask_of_type: NDArray[np.int64]


class Reads(NamedTuple):
    """What is added up for each type: positions on the grid and weights from ``first[type]`` to ``first[type + 1]``."""

    first: NDArray[np.int64]
    begin: NDArray[np.int64]
    weight: NDArray[np.floating]


class Record(NamedTuple):
    """Slot of each frame among those recorded, -1 for none, and runs of cells that are neighbours in the states."""

    slot: NDArray[np.int64]
    begin: NDArray[np.int64]
    first: NDArray[np.int64]
    length: NDArray[np.int64]


def compiled(function: Callable[..., Any], *fastmath: str) -> Any:
    """Compile a function on its first call, without Python's lock, and keep the code on disk where that is possible."""
    options: dict[str, Any] = {"nogil": True, "fastmath": {"contract", *fastmath}, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # nowhere to write a cache
        return numba.njit(**options)(function)


def _rectify_row(potential: Any, active: Any) -> None:
    zero = potential.dtype.type(0)
    for i in range(active.size):
        active[i] = max(potential[i], zero)


def _step_row(potential: Any, after: Any, active: Any, current: Any, there: Any, rate: Any, bias: Any) -> None:
    zero = potential.dtype.type(0)
    for i in range(after.size):
        value = there[i] * (potential[i] + rate * ((bias - potential[i]) + current[i]))
        after[i] = value
        active[i] = max(value, zero)


def _back_row(
    gradient: Any, earlier: Any, back: Any, before: Any, after: Any, there: Any, rate: Any
) -> tuple[Any, Any]:
    """Gradient of the states before; returns the sums of the gradient, and of its products with the change."""
    zero = gradient.dtype.type(0)
    total, by_change = zero, zero
    for i in range(earlier.size):
        value = gradient[i]
        kept = value - rate * value
        earlier[i] = there[i] * (kept + (back[i] if before[i] > zero else zero))
        total += value
        by_change += value * (after[i] - before[i])
    return total, by_change


def _add_row(values: Any, factor: Any, out: Any) -> None:
    for i in range(out.size):
        out[i] += factor * values[i]


rectify_row, step_row, add_row = compiled(_rectify_row), compiled(_step_row), compiled(_add_row)
back_row = compiled(_back_row, "reassoc")


def _advance(
    plan: Plan,
    reads: Reads,
    rate: NDArray[np.floating],
    bias: NDArray[np.floating],
    luminance: NDArray[np.floating],
    states: NDArray[np.floating],
    grid: NDArray[np.floating],
    record: Record,
    responses: NDArray[np.floating],
) -> None:
    """Step through all frames of a luminance (frame, column x sample), and record.

    The state before is ``states[0]``; each frame's state goes to the next row, and after the last to the first again.
    ``grid`` (2, type x block) is room for the activity, zero between the rows.
    """
    zero = rate.dtype.type(0)
    width = responses.shape[0]
    active, then_active = grid[0], grid[1]
    sums = np.empty(plan.row_end[-1], rate.dtype)
    for cell_type in range(rate.size):
        place, dense = cell_type * plan.block + plan.guard, cell_type * plan.dense
        for row in range(plan.row_begin.size):
            begin, stop, at = plan.row_begin[row], plan.row_end[row], dense + plan.row_dense[row]
            rectify_row(states[0, at : at + stop - begin], active[place + begin : place + stop])
    now = 0
    for frame in range(luminance.shape[0]):
        before, now = states[now], (frame + 1) % states.shape[0]
        after, x = states[now], luminance[frame]
        for cell_type in range(rate.size):
            place, dense = cell_type * plan.block + plan.guard, cell_type * plan.dense
            there = plan.mask[plan.mask_of_type[cell_type]]
            for segment in range(plan.begin.size):
                left, right = plan.begin[segment], plan.end[segment]
                rows = range(plan.first_row[segment], plan.first_row[segment + 1])
                current = sums[: right - left]
                current[:] = zero
                if plan.is_input[cell_type]:
                    for row in rows:
                        begin, stop, at = plan.row_begin[row] - left, plan.row_end[row] - left, plan.row_dense[row]
                        current[begin:stop] = x[at : at + stop - begin]
                for synapse in range(reads.first[cell_type], reads.first[cell_type + 1], 4):
                    p0, p1 = reads.begin[synapse] + left, reads.begin[synapse + 1] + left
                    p2, p3 = reads.begin[synapse + 2] + left, reads.begin[synapse + 3] + left
                    r0, r1 = active[p0 : p0 + right - left], active[p1 : p1 + right - left]
                    r2, r3 = active[p2 : p2 + right - left], active[p3 : p3 + right - left]
                    w0, w1 = reads.weight[synapse], reads.weight[synapse + 1]
                    w2, w3 = reads.weight[synapse + 2], reads.weight[synapse + 3]
                    for i in range(right - left):
                        current[i] += w0 * r0[i] + w1 * r1[i] + w2 * r2[i] + w3 * r3[i]
                for row in rows:
                    begin, stop, at = plan.row_begin[row], plan.row_end[row], plan.row_dense[row]
                    step_row(
                        before[dense + at : dense + at + stop - begin],
                        after[dense + at : dense + at + stop - begin],
                        then_active[place + begin : place + stop],
                        current[begin - left : stop - left],
                        there[at : at + stop - begin],
                        rate[cell_type],
                        bias[cell_type],
                    )
        active, then_active = then_active, active
        if record.slot[frame] >= 0:
            for run in range(record.begin.size):
                for first in range(0, record.length[run], _TRANSPOSED):
                    n = min(_TRANSPOSED, record.length[run] - first)
                    from_here, to_here = (record.begin[run] + first) * width, record.first[run] + first
                    for sample in range(width):
                        recorded = responses[sample, record.slot[frame], to_here : to_here + n]
                        for i in range(n):
                            recorded[i] = after[from_here + i * width + sample]


def _retreat(
    plan: Plan,
    reads: Reads,
    rate: NDArray[np.floating],
    states: NDArray[np.floating],
    grid: NDArray[np.floating],
    record: Record,
    place_of_recorded: NDArray[np.int64],
    of_responses: NDArray[np.floating],
    of_luminance: NDArray[np.floating],
    of_strength: NDArray[np.float64],
    of_type: NDArray[np.float64],
    with_strength: bool,
) -> None:
    """Take the gradient of the last of some states to that of the first, back through all frames between.

    ``grid`` (2, type x block) has the gradient in its first row, before and after; the weights of the reads, from
    targets to sources, have the rate of the target in them. Added up are ``of_strength`` (read,), products of a
    target's gradient and a source's activity; ``of_type`` (2, cell_type), the gradient and its product with the change
    of the state; and ``of_luminance`` (frame, column x sample), nothing where that has no frames.
    """
    zero = rate.dtype.type(0)
    width = of_responses.shape[0]
    n_frames = states.shape[0] - 1
    gradient, earlier = grid[0], grid[1]
    sums, sources = np.empty(plan.row_end[-1], rate.dtype), np.zeros(plan.row_end[-1], rate.dtype)
    for frame in range(n_frames - 1, -1, -1):
        if record.slot[frame] >= 0:
            for first in range(0, place_of_recorded.size, _TRANSPOSED):
                stop = min(first + _TRANSPOSED, place_of_recorded.size)
                for sample in range(width):
                    of_recorded = of_responses[sample, record.slot[frame]]
                    for i in range(first, stop):
                        gradient[place_of_recorded[i] + sample] += of_recorded[i]
        before, after = states[frame], states[frame + 1]
        for cell_type in range(rate.size):
            place, dense = cell_type * plan.block + plan.guard, cell_type * plan.dense
            there = plan.mask[plan.mask_of_type[cell_type]]
            for segment in range(plan.begin.size):
                left, right = plan.begin[segment], plan.end[segment]
                rows = range(plan.first_row[segment], plan.first_row[segment + 1])
                back, active = sums[: right - left], sources[: right - left]
                back[:] = zero
                if with_strength:
                    for row in rows:
                        begin, stop, at = plan.row_begin[row], plan.row_end[row], dense + plan.row_dense[row]
                        rectify_row(before[at : at + stop - begin], active[begin - left : stop - left])
                for synapse in range(reads.first[cell_type], reads.first[cell_type + 1], 4):
                    p0, p1 = reads.begin[synapse] + left, reads.begin[synapse + 1] + left
                    p2, p3 = reads.begin[synapse + 2] + left, reads.begin[synapse + 3] + left
                    r0, r1 = gradient[p0 : p0 + right - left], gradient[p1 : p1 + right - left]
                    r2, r3 = gradient[p2 : p2 + right - left], gradient[p3 : p3 + right - left]
                    w0, w1 = reads.weight[synapse], reads.weight[synapse + 1]
                    w2, w3 = reads.weight[synapse + 2], reads.weight[synapse + 3]
                    if with_strength:
                        s0, s1, s2, s3 = zero, zero, zero, zero
                        for i in range(right - left):
                            g0, g1, g2, g3 = r0[i], r1[i], r2[i], r3[i]  # loaded once for both
                            s0 += active[i] * g0
                            s1 += active[i] * g1
                            s2 += active[i] * g2
                            s3 += active[i] * g3
                            back[i] += w0 * g0 + w1 * g1 + w2 * g2 + w3 * g3
                        of_strength[synapse] += s0
                        of_strength[synapse + 1] += s1
                        of_strength[synapse + 2] += s2
                        of_strength[synapse + 3] += s3
                    else:
                        for i in range(right - left):
                            back[i] += w0 * r0[i] + w1 * r1[i] + w2 * r2[i] + w3 * r3[i]
                for row in rows:
                    begin, stop, at = plan.row_begin[row], plan.row_end[row], plan.row_dense[row]
                    of_row = gradient[place + begin : place + stop]
                    total, by_change = back_row(
                        of_row,
                        earlier[place + begin : place + stop],
                        back[begin - left : stop - left],
                        before[dense + at : dense + at + stop - begin],
                        after[dense + at : dense + at + stop - begin],
                        there[at : at + stop - begin],
                        rate[cell_type],
                    )
                    of_type[0, cell_type] += total
                    of_type[1, cell_type] += by_change
                    if plan.is_input[cell_type] and of_luminance.shape[0] > 0:
                        add_row(of_row, rate[cell_type], of_luminance[frame, at : at + stop - begin])
        gradient, earlier = earlier, gradient
    if n_frames % 2:
        grid[0] = grid[1]


advance = compiled(_advance)
retreat = compiled(_retreat, "reassoc")
