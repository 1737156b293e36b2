"""One block of a simulation: plain arrays to an engine and back."""

from __future__ import annotations

import threading
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from flyxr import hexgrid, schema
from flyxr.connectome import Tables, cell_index, cell_presence, compile_network
from flyxr.engine import ENGINES, base
from flyxr.errors import FlyxrError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from flyxr.simulation.record import Recorded

DIVERGED = 1e12
"""Responses beyond this are taken for a run that diverges; published model 032 reaches 1e7 where bright edges stay."""

_one_at_a_time = threading.Lock()


class DivergedError(FlyxrError, ArithmeticError):
    """Responses of a model grew without bound."""


class Block(NamedTuple):
    """All that a task needs beside parameters, stimulus and state: small, and the same for every block.

    ``start`` is the name of the initial state, or ``"given"``.
    """

    tables: Tables
    dt: float
    start: str
    recorded: Recorded
    engine: str
    device: str


def check_finite(luminance: NDArray[np.floating]) -> None:
    """Raise if a luminance (sample, time, column) has NaN or infinity."""
    if not np.isfinite(luminance).all():
        wrong = (~np.isfinite(luminance)).any(axis=(1, 2)).sum()
        raise schema.SchemaError(
            Problem(
                f"expected a finite luminance, got NaN or inf in {wrong} of {len(luminance)} samples",
                "fill or cut the movie before it is rendered; samples of different length are filled up with grey 0.5, "
                "and say where each ends with the coordinate t_end (sample), in s",
            )
        )


def check_state(state: NDArray[np.floating], tables: Tables) -> None:
    """Raise if a given state (model, sample, cell) has NaN or infinity where there are cells; says where."""
    wrong = ~np.isfinite(state)
    if wrong.any():
        cell_type, column = (axis[wrong.any(axis=(0, 1))] for axis in np.nonzero(cell_presence(tables)))
        names = list(dict.fromkeys(tables.names[position] for position in cell_type))
        few = ", ".join([*names[:5], *(["…"] if len(names) > 5 else [])])
        raise schema.SchemaError(
            Problem(
                f"expected a finite initial state, got NaN or infinity in {int(wrong.sum())} of {wrong.size} "
                f"potentials, in the cell types {few}, first in {names[0]} at column {column[0]}",
                "give the state of all cells, such as responses with record='all' at one time before any sample's end",
            )
        )


def _integrate(
    block: Block, parameters: base.Parameters, stimulus: NDArray[np.floating], **options: Any
) -> base.EngineResult:
    engine, network = ENGINES[block.engine], compile_network(block.tables)
    with _all_threads() if engine.is_exclusive else nullcontext():
        return engine.load()(network, parameters, stimulus, block.dt, device=block.device, **options)


@contextmanager
def _all_threads() -> Iterator[None]:
    """Tasks take turns with torch, which uses all threads of the process by itself; the stencil's share a pool."""
    import torch

    with _one_at_a_time:
        before = torch.get_num_threads()
        torch.set_num_threads(base.n_threads())
        try:
            yield
        finally:
            torch.set_num_threads(before)


def steady_state(block: Block, parameters: base.Parameters) -> NDArray[np.floating]:
    """State (model, sample 1, cell) after one second of grey from rest."""
    stimulus = base.grey(hexgrid.n_columns(block.tables.extent), block.dt)
    return _integrate(block, parameters, stimulus, frames=np.arange(0)).state


def run_block(
    block: Block,
    parameters: base.Parameters,
    stimulus: NDArray[np.floating],
    state: NDArray[np.floating] | None,
    model_name: str,
    n_frames: NDArray[np.int64] | None = None,
) -> NDArray[np.float32]:
    """Responses (model 1, sample, time, cell_type, column) of one model to some samples.

    After its first ``n_frames`` (sample,) a sample is over: its responses are NaN, and frames after the longest
    sample of the block are not computed.
    """
    stimulus = np.asarray(stimulus, dtype=np.float32)
    check_finite(stimulus)
    if block.start == "given" and state is not None:
        check_state(state, block.tables)
    frames = block.recorded.frames
    if n_frames is not None:
        stimulus, frames = stimulus[:, : n_frames.max()], frames[frames < n_frames.max()]
    if block.start == "fade_in":
        lead = base.fade_in(stimulus[:, 0], block.dt)
        stimulus, frames = np.concatenate([lead, stimulus], axis=1), frames + lead.shape[1]
    wanted = cell_index(block.tables)[np.ix_(block.recorded.cell_types, block.recorded.columns)]
    result = _integrate(block, parameters, stimulus, state=state, cells=wanted.ravel(), frames=frames)
    responses = result.responses.astype(np.float32, copy=False).reshape(*result.responses.shape[:-1], *wanted.shape)
    largest = np.abs(result.state).max()
    if n_frames is not None:
        responses = _cut(responses, block.recorded.frames, n_frames)
        # What became of a sample after its end does not count.
        ran_to_its_end = result.state[:, n_frames == n_frames.max()]
        largest = np.max([np.abs(ran_to_its_end).max(), np.nanmax(np.abs(responses), initial=0)])
    if not largest <= DIVERGED:
        raise DivergedError(
            Problem(
                f"responses of model {model_name} grow without bound (to {largest:.3g}) with a step of "
                f"{block.dt:.4g} s",
                "if a smaller one, fx.resample(rendering, dt=...), does not help, the network itself is unstable",
                "if a smaller one, --dt, does not help, the network itself is unstable",
            )
        )
    return responses


def _cut(responses: NDArray[np.float32], frames: NDArray[np.int64], n_frames: NDArray[np.int64]) -> NDArray[np.float32]:
    """Responses over all recorded frames, NaN from the end of each sample on."""
    whole = np.full((*responses.shape[:2], len(frames), *responses.shape[3:]), np.nan, np.float32)
    whole[:, :, : responses.shape[2]] = responses
    for sample, end in enumerate(n_frames):
        whole[:, sample, frames >= end] = np.nan
    return whole
