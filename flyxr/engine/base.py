"""What all engines share: the arrays of a network, of its parameters and of a result."""

from __future__ import annotations

import multiprocessing
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from flyxr.optics import GREY

if TYPE_CHECKING:
    from numpy.typing import NDArray

FADE_IN = 1.0
"""Duration of the fade-in and of the grey before a steady state, s."""


class Stencil(NamedTuple):
    """Connections that are the same in every column: one row a columnar offset of a pair.

    ``source`` and ``target`` (synapse,) are cell types, ``offset`` (synapse, 2) is du, dv of the target minus the
    source, ``pair`` (synapse,) is the position in the synapse strengths, ``signed_synapses`` (synapse,) is sign times
    number.
    """

    source: NDArray[np.int64]
    target: NDArray[np.int64]
    offset: NDArray[np.int64]
    pair: NDArray[np.int64]
    signed_synapses: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Network:
    """Cells and edges of a connectome on a lattice, as plain arrays.

    Attributes
    ----------
    cell_type, column : (cell,) int
        Cell type and column of each cell; cells in the order of types, then columns.
    is_input : (cell,) bool
        Whether the cell receives the luminance of its column.
    source, target, pair : (edge,) int
        Source cell, target cell, and position of the edge's pair of types in the synapse strengths.
    signed_synapses : (edge,) float
        Sign times number of synapses.
    pairs, synapses : (pair,), (synapse,) int
        Positions, in the tables of the connectome, of the pairs and columnar offsets that connect any cells.
    stencil : Stencil
        The same edges once for all columns.
    u, v : (column,) int
        Axial coordinates of the columns.
    """

    cell_type: NDArray[np.int32]
    column: NDArray[np.int32]
    is_input: NDArray[np.bool_]
    source: NDArray[np.int32]
    target: NDArray[np.int32]
    pair: NDArray[np.int32]
    signed_synapses: NDArray[np.float32]
    pairs: NDArray[np.int64]
    synapses: NDArray[np.int64]
    stencil: Stencil
    u: NDArray[np.int64]
    v: NDArray[np.int64]

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return self.cell_type.size

    @property
    def n_columns(self) -> int:
        """Number of columns of the lattice."""
        return self.u.size


class Parameters(NamedTuple):
    """Free parameters of some models.

    ``bias`` and ``time_constant`` (s) are (model, cell_type), ``synapse_strength`` is (model, pair).
    """

    bias: NDArray[np.floating]
    time_constant: NDArray[np.floating]
    synapse_strength: NDArray[np.floating]


class Integrated(NamedTuple):
    """Responses (model, sample, frame, recorded cell) and the last state (model, sample, cell)."""

    responses: NDArray[np.floating]
    state: NDArray[np.floating]


class Engine(Protocol):
    """The call that every engine answers.

    Parameters
    ----------
    network, parameters
        The models; explicit Euler with the equations of Lappalainen et al. 2024.
    stimulus : (sample, frame, column) float
        Luminance, one integration step a frame.
    dt : float
        Step, s.
    state : (model, sample or 1, cell) float, optional
        State before the first frame; without it rest, where the potential is the bias.
    cells : (recorded cell,) int, optional
        Cells to record; without it all. Where it is -1 there is no cell, and the response is NaN.
    frames : (recorded frame,) int, optional
        Frames to record, ascending; without it all. A response is the state after its frame.
    device : str
        Where to compute, for engines that know several places.
    """

    def __call__(
        self,
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
        """Integrate all models for all samples."""
        ...


def n_threads() -> int:
    """Threads that this process may compute with; threads of engines, dask and zarr are all counted from here.

    In a worker of dask.distributed these are the worker's, in a process of a pool it is one, as such a pool has a
    process for each core, and else there are as many as cores that the process may run on, within the CPU quota of its
    container.

    Examples
    --------
    >>> n_threads() >= 1
    True
    """
    worker = sys.modules.get("distributed.worker")
    if worker is not None:
        try:
            return int(worker.get_worker().state.nthreads)
        except ValueError:  # loaded, but this is no task of it
            pass
    if multiprocessing.parent_process() is not None:
        return 1
    from dask.system import cpu_count  # counts what the affinity and the quota of a container leave

    return max(1, int(cpu_count()))


def n_frames(duration: float, dt: float) -> int:
    """Whole frames in a duration, as flyvis counts them.

    Examples
    --------
    >>> n_frames(1.0, 1 / 100), n_frames(1.0, 1 / 93)
    (100, 92)
    """
    return int(duration / dt)  # quirk: truncation, so 1/(1/93) gives 92 frames


def fade_in(first_frame: NDArray[np.floating], dt: float) -> NDArray[np.floating]:
    """One second in which the contrast of a frame grows linearly from 0 to 1 around grey.

    Parameters
    ----------
    first_frame : (sample, column)
        What the ramp ends with.
    dt : float
        Step, s.

    Returns
    -------
    (sample, frame, column)
        Both ends of the ramp are frames of it (``flyvis.network.Network.fade_in_state``).

    Examples
    --------
    >>> fade_in(np.ones((1, 1)), 1 / 3).ravel()
    array([0.5 , 0.75, 1.  ])
    """
    contrast = np.linspace(0, 1, n_frames(FADE_IN, dt), dtype=first_frame.dtype)
    ramp: NDArray[np.floating] = GREY + contrast[:, None] * (first_frame[:, None] - GREY)
    return ramp


def grey(n_columns: int, dt: float) -> NDArray[np.float32]:
    """One second of grey, (sample 1, frame, column).

    Examples
    --------
    >>> grey(7, 1 / 100).shape
    (1, 100, 7)
    """
    return np.full((1, n_frames(FADE_IN, dt), n_columns), GREY, dtype=np.float32)
