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
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from flyxr.simulation.record import Recorded

DIVERGED = 1e12
"""Responses beyond this have diverged; published model 032 reaches 1e7 at bright edges that do not move."""

_torch_threads_lock = threading.Lock()


class DivergedError(FlyxrError, ArithmeticError):
    """Responses of a model grew without bound."""


class Block(NamedTuple):
    """Settings of a task that are the same for every block, and small.

    ``start`` is the name of the initial state, or ``"given"``. ``is_summed`` tells that a luminance is a sum of pixels,
    which may exceed 1. A task also takes parameters, stimulus and state.
    """

    tables: Tables
    dt: float
    start: str
    recorded: Recorded
    engine: str
    device: str
    is_summed: bool = False


def check_luminance(luminance: NDArray[np.floating], is_summed: bool) -> None:
    """Raise if a luminance (sample, time, column) is not finite, or outside 0 to 1 though it is not a sum of pixels."""
    is_finite = np.isfinite(luminance).all(axis=(1, 2))
    if not is_finite.all():
        raise schema.SchemaError(
            Problem(
                f"expected a finite luminance, got NaN or inf in {(~is_finite).sum()} of {len(luminance)} samples",
                "fill or cut the movie before rendering it; pad samples of different lengths with grey 0.5 and give "
                "the end of each as the coordinate t_end (sample), in s",
            )
        )
    problems = [] if is_summed else schema.luminance_problems(luminance, "rendering")
    if problems:
        way = "; a sum of pixels, as BoxEye().render(movie, filter='sum') makes it, is known by its provenance"
        raise schema.SchemaError(*(problem._replace(hint=f"{problem.hint}{way}") for problem in problems))


def check_state(state: NDArray[np.floating], tables: Tables) -> None:
    """Raise if a given state (model, sample, cell) has NaN or infinity; the message names the cells."""
    is_wrong = ~np.isfinite(state)
    if is_wrong.any():
        cell_type, column = (axis[is_wrong.any(axis=(0, 1))] for axis in np.nonzero(cell_presence(tables)))
        names = list(dict.fromkeys(tables.names[position] for position in cell_type))
        first_names = ", ".join([*names[:5], *(["…"] if len(names) > 5 else [])])
        raise schema.SchemaError(
            Problem(
                f"expected a finite initial state, got NaN or infinity in {int(is_wrong.sum())} of {is_wrong.size} "
                f"potentials, in the cell types {first_names}, first in {names[0]} at column {column[0]}",
                "give the state of all cells, e.g. responses with record='all' at a time before any sample ends",
            )
        )


def _integrate(
    block: Block, parameters: base.Parameters, stimulus: NDArray[np.floating], **options: Any
) -> base.EngineResult:
    engine, network = ENGINES[block.engine], compile_network(block.tables)
    with threads_of(block):
        return engine.load()(network, parameters, stimulus, block.dt, device=block.device, **options)


def threads_of(block: Block) -> AbstractContextManager[None]:
    """Context in which the engine of a block computes: one task at a time, if it uses all threads by itself."""
    return _exclusive_torch_threads() if ENGINES[block.engine].is_exclusive else nullcontext()


@contextmanager
def _exclusive_torch_threads() -> Iterator[None]:
    """Give one task at a time all threads of the process, since torch parallelises within a task."""
    import torch

    with _torch_threads_lock:
        n_threads_before = torch.get_num_threads()
        torch.set_num_threads(base.n_threads())
        try:
            yield
        finally:
            torch.set_num_threads(n_threads_before)


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

    A sample ends after its first ``n_frames`` (sample,); its later responses are NaN. Frames after the end of the
    longest sample of the block are not computed.
    """
    stimulus = np.asarray(stimulus, dtype=np.float32)
    check_luminance(stimulus, block.is_summed)
    if block.start == "given" and state is not None:
        check_state(state, block.tables)
    frames = block.recorded.frames
    if n_frames is not None:
        stimulus, frames = stimulus[:, : n_frames.max()], frames[frames < n_frames.max()]
    if block.start == "fade_in":
        ramp = base.fade_in(stimulus[:, 0], block.dt)
        stimulus, frames = np.concatenate([ramp, stimulus], axis=1), frames + ramp.shape[1]
    cells = cell_index(block.tables)[np.ix_(block.recorded.cell_types, block.recorded.columns)]
    result = _integrate(block, parameters, stimulus, state=state, cells=cells.ravel(), frames=frames)
    responses = result.responses.astype(np.float32, copy=False).reshape(*result.responses.shape[:-1], *cells.shape)
    largest = np.abs(result.state).max()
    if n_frames is not None:
        responses = _mask_ended(responses, block.recorded.frames, n_frames)
        # Ignore what a sample does after its end.
        last_state = result.state[:, n_frames == n_frames.max()]
        largest = np.max([np.abs(last_state).max(), np.nanmax(np.abs(responses), initial=0)])
    if not largest <= DIVERGED:
        raise diverged(largest, model_name, block.dt)
    return responses


def diverged(largest: float, model_name: str, dt: float) -> DivergedError:
    """Make the error for responses beyond the limit."""
    return DivergedError(
        Problem(
            f"responses of model {model_name} grow without bound (to {largest:.3g}) with a step of {dt:.4g} s",
            "try a smaller step with fx.resample(rendering, dt=...); if that does not help, the network itself is "
            "unstable",
            "try a smaller step with --dt; if that does not help, the network itself is unstable",
        )
    )


def _mask_ended(
    responses: NDArray[np.float32], frames: NDArray[np.int64], n_frames: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Responses at all recorded frames, NaN after the end of each sample."""
    masked = np.full((*responses.shape[:2], len(frames), *responses.shape[3:]), np.nan, np.float32)
    masked[:, :, : responses.shape[2]] = responses
    for sample, end in enumerate(n_frames):
        masked[:, sample, frames >= end] = np.nan
    return masked
