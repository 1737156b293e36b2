"""Layout of connections as a stencil that slides over the lattice of columns.

Weights are the same in every column, so 2,355 numbers stand for 1.5 million. Each cell type has a block of its own, in
which the columns lie on a square grid with zeros around them. The input through one columnar offset is then one weight
times one shifted run of memory, called a tap here. A batch consists of some samples of one model, interleaved in every
column.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from flyxr.engine.kernels import TAPS_PER_PASS, BatchLayout, Recording, Taps

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flyxr.engine.base import Network


class UnweightedTaps(NamedTuple):
    """Taps of all models: cell type ``i`` adds up the taps from ``first[i]`` to ``first[i + 1]``.

    ``begin`` (tap,) is the position on the grid, ``synapse`` (tap,) that in the stencil. ``is_padding`` (tap,) is true
    where a tap only completes a group.
    """

    first: NDArray[np.int64]
    begin: NDArray[np.int64]
    synapse: NDArray[np.int64]
    is_padding: NDArray[np.bool_]


class Layout(NamedTuple):
    """Where the cells of one sample lie.

    Rows of columns lie one after the other on ``n_places`` places, with a gap after each row. ``column_place``
    (column,) is the place of a column. States hold the places of each cell type. On the grid each type has a block of
    ``block_size`` places: ``guard_size`` zeros, its places, and zeros again. ``state`` (cell,) is the position of a
    cell in the states, ``grid`` (cell,) that on the grid. ``masks`` (mask, place) is true where a type with that
    ``mask_index`` (cell_type,) has a cell. ``forward_taps`` give the currents of targets, ``backward_taps`` the
    gradients of sources.
    """

    n_places: int
    column_place: NDArray[np.int64]
    block_size: int
    guard_size: int
    state: NDArray[np.int64]
    grid: NDArray[np.int64]
    masks: NDArray[np.bool_]
    mask_index: NDArray[np.int64]
    is_input: NDArray[np.bool_]
    forward_taps: UnweightedTaps
    backward_taps: UnweightedTaps

    @property
    def state_size(self) -> int:
        """Numbers in the state of one sample."""
        return len(self.is_input) * self.n_places


@lru_cache(maxsize=4)
def network_layout(network: Network) -> Layout:
    """Lay out a network; done once for each."""
    stencil, n_types = network.stencil, int(network.cell_type.max()) + 1
    du, dv = stencil.offset.T
    # Each row is one u. Rows are far enough apart that a shift along v ends in a gap, not in the next row.
    pitch = 2 * int(np.abs(network.v).max()) + 1 + int(np.abs(dv).max(initial=0))
    column_place = (network.u - network.u.min()) * pitch + network.v - network.v.min()
    column_place -= column_place.min()
    shift = du * pitch + dv
    n_places = _round_up(int(column_place.max()) + 1)
    guard_size = _round_up(int(np.abs(shift).max(initial=0)))
    block_size = n_places + 2 * guard_size
    has_cell = np.zeros((n_types, n_places), dtype=bool)
    has_cell[network.cell_type, column_place[network.column]] = True
    masks, mask_index = np.unique(has_cell, axis=0, return_inverse=True)
    is_input = np.zeros(n_types, dtype=bool)
    is_input[network.cell_type[network.is_input]] = True
    cell_type, cell_place = network.cell_type.astype(np.int64), column_place[network.column]
    return Layout(
        n_places=n_places,
        column_place=column_place,
        block_size=block_size,
        guard_size=guard_size,
        state=cell_type * n_places + cell_place,
        grid=cell_type * block_size + guard_size + cell_place,
        masks=masks,
        mask_index=mask_index.ravel(),
        is_input=is_input,
        forward_taps=_taps(stencil.target, stencil.source * block_size + guard_size - shift, n_types),
        backward_taps=_taps(stencil.source, stencil.target * block_size + guard_size + shift, n_types),
    )


def _round_up(n_places: int) -> int:
    """Round up, so that the values of each cell type begin with a cache line."""
    return -(-n_places // 16) * 16


def _taps(cell_type: NDArray[np.int64], begin: NDArray[np.int64], n_types: int) -> UnweightedTaps:
    """Sort taps by the cell type that adds them up, and repeat the last of each type until its groups are full."""
    order = np.argsort(cell_type, kind="stable")
    count = np.bincount(cell_type, minlength=n_types)
    ends, padded_count = np.cumsum(count), -(-count // TAPS_PER_PASS) * TAPS_PER_PASS
    first = np.append(0, np.cumsum(padded_count))
    position = np.arange(first[-1]) - np.repeat(first[:-1] - (ends - count), padded_count)
    end = np.repeat(ends, padded_count)
    synapse = order[np.minimum(position, end - 1)]
    return UnweightedTaps(first, begin[synapse], synapse, is_padding=position >= end)


@lru_cache(maxsize=32)
def batch_layout(network: Network, n_samples: int, dtype: str) -> BatchLayout:
    """Layout of a batch of ``n_samples`` interleaved samples."""
    layout = network_layout(network)
    return BatchLayout(
        type_size=layout.n_places * n_samples,
        block_size=layout.block_size * n_samples,
        guard_size=layout.guard_size * n_samples,
        is_input=layout.is_input,
        masks=np.repeat(layout.masks, n_samples, axis=1).astype(dtype),
        mask_index=layout.mask_index,
    )


def weighted_taps(taps: UnweightedTaps, weight: NDArray[np.floating], n_samples: int) -> Taps:
    """Taps of a batch, given the weight (synapse,) of each synapse of the stencil."""
    tap_weight = np.where(taps.is_padding, 0, weight[taps.synapse]).astype(weight.dtype)
    return Taps(taps.first, taps.begin * n_samples, tap_weight)


def recording(
    network: Network, n_frames: int, cells: NDArray[np.integer], frames: NDArray[np.integer] | None
) -> Recording:
    """Recording of some cells, of which one below 0 is absent, and of some frames or all."""
    frame_slot = np.full(n_frames, -1)
    recorded = np.arange(n_frames) if frames is None else frames
    frame_slot[recorded] = np.arange(len(recorded))
    return Recording(frame_slot, np.where(cells >= 0, network_layout(network).state[cells], -1))


def empty_recording(n_frames: int) -> Recording:
    """Recording of nothing."""
    return Recording(np.full(n_frames, -1), np.empty(0, np.int64))
