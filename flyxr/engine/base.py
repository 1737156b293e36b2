"""Shared by all engines: the arrays of a network, of its parameters and of a result."""

from __future__ import annotations

import multiprocessing
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from flyxr.errors import InputError, Problem
from flyxr.optics import GREY

if TYPE_CHECKING:
    from numpy.typing import NDArray

FADE_IN = 1.0
"""Duration of the fade-in, and of the grey that leads to the steady state, s."""


class Stencil(NamedTuple):
    """Connections, which are the same in every column: one row for each columnar offset of a pair.

    ``source`` and ``target`` (synapse,) are cell types. ``offset`` (synapse, 2) is du, dv, target minus source.
    ``pair`` (synapse,) is the position in the synapse strengths. ``signed_synapses`` (synapse,) is the sign times the
    number of synapses.
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
        Cell type and column of each cell; cells are ordered by type, then by column.
    is_input : (cell,) bool
        Whether the cell receives the luminance of its column.
    source, target, pair : (edge,) int
        Source cell, target cell, and position of the pair of types in the synapse strengths.
    signed_synapses : (edge,) float
        Sign times number of synapses.
    pairs, synapses : (pair,), (synapse,) int
        Positions in the connectome of the pairs and columnar offsets that connect at least two cells.
    stencil : Stencil
        The same edges, one row for all columns.
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
    """Free parameters of models.

    ``bias`` and ``time_constant`` (s) are (model, cell_type), ``synapse_strength`` is (model, pair).
    """

    bias: NDArray[np.floating]
    time_constant: NDArray[np.floating]
    synapse_strength: NDArray[np.floating]


class EngineResult(NamedTuple):
    """Responses (model, sample, frame, recorded cell) and the last state (model, sample, cell)."""

    responses: NDArray[np.floating]
    state: NDArray[np.floating]


class Engine(Protocol):
    """Function that integrates a network; every engine provides one.

    Parameters
    ----------
    network, parameters
        The models. They are integrated by explicit Euler steps (equations of Lappalainen et al. 2024).
    stimulus : (sample, frame, column) float
        Luminance; each frame is one integration step.
    dt : float
        Integration step, s.
    state : (model, sample or 1, cell) float, optional
        State before the first frame. The default is rest, where the potential equals the bias.
    cells : (recorded cell,) int, optional
        Cells to record, by default all. -1 stands for an absent cell, whose response is NaN.
    frames : (recorded frame,) int, optional
        Frames to record, ascending, by default all. A response is the state after its frame.
    device : str
        Device to compute on, for engines that support several.
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
    ) -> EngineResult:
        """Integrate all models for all samples."""
        ...


class Stepper(Protocol):
    """Class that integrates a network frame by frame and keeps its state and weights; every engine provides one.

    It computes the same numbers as ``integrate``. Its first state is rest. Nothing is compiled in a step, and no array
    of the size of a state is allocated.

    Parameters
    ----------
    network, parameters, dt, device
        As in :class:`Engine`.
    n_samples : int
        Number of samples.
    cells : (recorded cell,) int
        Cells to record. -1 stands for an absent cell, whose response is NaN.

    Attributes
    ----------
    state : (model, sample, cell) float
        The state, as a copy. It can be set, also with one sample for all.
    """

    state: NDArray[np.floating]

    def __init__(
        self,
        network: Network,
        parameters: Parameters,
        dt: float,
        *,
        n_samples: int,
        cells: NDArray[np.integer],
        device: str = "cpu",
    ) -> None: ...

    def step(self, luminance: NDArray[np.floating]) -> NDArray[np.floating]:
        """Advance by one frame (sample, column).

        Returns
        -------
        (model, sample, recorded cell) float
            Responses; the next step may overwrite them.
        """
        ...


def check_cpu(engine: str, device: str) -> None:
    """Raise if an engine that computes on the CPU is asked for another device.

    Examples
    --------
    >>> check_cpu("stencil", "cpu")
    """
    if device != "cpu":
        raise InputError(
            Problem(f"the {engine} engine computes on the CPU, got device={device!r}", "use engine='sparse'")
        )


def n_threads() -> int:
    """Count the threads that this process may compute with; engines, dask and zarr all use this number.

    A dask.distributed worker has its own number of threads. A process of a pool has one, since such a pool has a
    process for each core. Any other process has one thread for each core it may run on, within the CPU quota of its
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
        except ValueError:  # dask.distributed is loaded, but this thread runs none of its tasks
            pass
    if multiprocessing.parent_process() is not None:
        return 1
    from dask.system import cpu_count  # respects CPU affinity and the quota of a container

    return max(1, int(cpu_count()))


def n_frames(duration: float, dt: float) -> int:
    """Count the whole frames in a duration, as flyvis does.

    Examples
    --------
    >>> n_frames(1.0, 1 / 100), n_frames(1.0, 1 / 93)
    (100, 92)
    """
    return int(duration / dt)  # quirk: truncation, so 1/(1/93) gives 92 frames


def fade_in(first_frame: NDArray[np.floating], dt: float) -> NDArray[np.floating]:
    """Make one second of stimulus in which the contrast of a frame grows linearly from 0 to 1 around grey.

    Parameters
    ----------
    first_frame : (sample, column)
        Luminance at the end of the ramp.
    dt : float
        Integration step, s.

    Returns
    -------
    (sample, frame, column)
        Luminance; contrasts 0 and 1 are both included (``flyvis.network.Network.fade_in_state``).

    Examples
    --------
    >>> fade_in(np.ones((1, 1)), 1 / 3).ravel()
    array([0.5 , 0.75, 1.  ])
    """
    contrast = np.linspace(0, 1, n_frames(FADE_IN, dt), dtype=first_frame.dtype)
    ramp: NDArray[np.floating] = GREY + contrast[:, None] * (first_frame[:, None] - GREY)
    return ramp


def grey(n_columns: int, dt: float) -> NDArray[np.float32]:
    """Make one second of grey, (sample 1, frame, column).

    Examples
    --------
    >>> grey(7, 1 / 100).shape
    (1, 100, 7)
    """
    return np.full((1, n_frames(FADE_IN, dt), n_columns), GREY, dtype=np.float32)
