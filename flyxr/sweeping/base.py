"""What a sweep is of, and what its tasks do: arrays and paths in, files and lines of the ledger out."""

from __future__ import annotations

import json
import math
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xarray as xr

from flyxr import identity
from flyxr import store as stores
from flyxr.errors import FlyxrError, InputError, Problem
from flyxr.simulation import RESPONSE_DIMS, Block, Prepared, run_block
from flyxr.store import labels

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from flyxr.engine.base import Parameters
    from flyxr.simulation import Recorded
    from flyxr.store.ledger import Ledger

FLOAT16_LARGEST = float(np.finfo(np.float16).max)
_MANTISSA = {"float32": 23, "float16": 10}


class SweepError(FlyxrError, RuntimeError):
    """A sweep could not go on; what was done is kept."""


class SweepMismatchError(FlyxrError, ValueError):
    """The store at the path is of another sweep; the message names each difference."""


class LabelMismatchError(SweepMismatchError):
    """The store at the path is of the same sweep with other labels; the message names each difference."""


REPLACE = Problem(
    "ways out",
    "choose another path, or replace the store with overwrite=True",
    "choose another path, or replace the store with --overwrite",
)
RELABEL = Problem(
    "ways out",
    "write the labels of this call, which computes nothing anew, with relabel=True; choose another path; or replace "
    "the store with overwrite=True",
    "write the labels of this call, which computes nothing anew, with --relabel; choose another path; or replace "
    "the store with --overwrite",
)


class Run(NamedTuple):
    """What stays the same during a call; ``inputs`` and ``labels`` are what the store is of."""

    prepared: Prepared
    path: Path
    inputs: dict[str, Any]
    labels: dict[str, Any]
    progress: bool

    @property
    def block_samples(self) -> int:
        """Samples of a block, which are those of a file of the store."""
        return int(self.inputs["block_samples"])

    @property
    def n_blocks(self) -> int:
        """Number of blocks of one model and some samples."""
        return len(self.inputs["models"]) * math.ceil(int(self.inputs["n_samples"]) / self.block_samples)

    def n_frames(self, samples: slice) -> NDArray[np.int64] | None:
        """Frames before the end of some samples; None where all are of one length."""
        return None if self.prepared.n_frames is None else self.prepared.n_frames[samples]


def inputs_of(prepared: Prepared, precision: str | int) -> dict[str, Any]:
    """All that decides what is computed, except the luminance, in terms that JSON keeps and people read."""
    block, state = prepared.block, prepared.state
    start, time_axis = prepared.block.start, prepared.luminance["time"].values
    if state is not None:
        start = f"given, {identity.state_hash(state)}"
    return {
        "connectome": block.tables.digest,
        "extent": block.tables.extent,
        "dt": block.dt,
        "initial_state": start,
        "first_time": float(time_axis[0]),
        "n_time": int(time_axis.size),
        "cell_type": prepared.labels["cell_type"].values.tolist(),
        "column": block.recorded.columns.tolist(),
        "frames": block.recorded.frames.tolist(),
        "precision": precision,
        "models": identity.model_hashes(prepared.parameters),
        "n_samples": int(prepared.luminance.sizes["sample"]),
    }


def check_same(found: Ledger, inputs: Mapping[str, Any], path: Path) -> None:
    """Raise if a store is of other inputs; it may be of fewer models or samples, which come first then.

    Raises
    ------
    SweepMismatchError
        With a line for each difference.
    """
    growing = {"models", "n_samples", "block_samples"}
    problems: list[str | Problem] = [
        f"{name}: the store has {_short(found.inputs.get(name))}, this call {_short(inputs[name])}"
        for name in inputs
        if name not in growing and found.inputs.get(name) != inputs[name]
    ]
    old, new = found.inputs["models"], inputs["models"]
    changed = [position for position, (a, b) in enumerate(zip(old, new, strict=False)) if a != b]
    if changed:
        problems.append(f"ensemble: the parameters of {len(changed)} models differ, first at position {changed[0]}")
    for name, had, got in (("models", len(old), len(new)), ("samples", found.inputs["n_samples"], inputs["n_samples"])):
        if got < had:
            problems.append(
                Problem(
                    f"{name}: the store has {had}, this call {got}",
                    "give all of them, new ones last, or open the store with fx.open and select",
                )
            )
    if problems:
        raise SweepMismatchError(*problems, REPLACE, heading=f"{path} is of another sweep")


def label_differences(run: Run, found: Ledger) -> list[str]:
    """What differs between the labels of a store and those of a call, a line for each."""
    try:
        stored = stores.labels_of(run.path, found)
    except stores.StoreError:  # an extension of version 0.1 that was interrupted: its labels are written anew
        return []
    return labels.differences(stored, labels.decode(run.labels))


def raise_labels(path: Path, differences: list[str]) -> None:
    """Raise if labels differ.

    Raises
    ------
    LabelMismatchError
        With a line for each difference.
    """
    if differences:
        raise LabelMismatchError(*differences, RELABEL, heading=f"{path} has other labels")


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:40]}… ({len(value)} in all)"


def check_precision(precision: str | int) -> None:
    """Raise if responses cannot be stored so.

    Raises
    ------
    ValueError
        If it is no name of a type and no number of bits from 1 to 22.
    """
    bits = isinstance(precision, int) and not isinstance(precision, bool) and 1 <= precision <= 22
    if not (bits or precision in _MANTISSA):
        raise InputError(f"expected precision 'float32', 'float16' or a number of bits from 1 to 22, got {precision!r}")


def dtype_of(precision: str | int) -> np.dtype[Any]:
    """Type that responses are stored as."""
    return np.dtype(np.float16 if precision == "float16" else np.float32)


def relative_error(precision: str | int) -> float:
    """Largest relative error that storing makes, of numbers that are not near 0."""
    return 0.0 if precision == "float32" else 2.0 ** -(_MANTISSA.get(str(precision)) or int(precision)) / 2


def rounded(responses: NDArray[np.float32], precision: str | int, model_name: str) -> tuple[NDArray[Any], float]:
    """Responses as they are stored, and the largest absolute error that this makes.

    Raises
    ------
    ValueError
        If they are too large for float16.
    """
    if precision == "float32":
        return responses, 0.0
    if precision == "float16":
        largest = float(np.nanmax(np.abs(responses), initial=0.0))
        if largest > FLOAT16_LARGEST:
            text = f"responses of {model_name} up to {largest:.3g} do not fit float16"
            raise InputError(Problem(text, "use precision=10", "use --precision 10"))
        stored: NDArray[Any] = responses.astype(np.float16)
    else:
        stored = stores.round_mantissa(responses, int(precision))
    return stored, float(np.nanmax(np.abs(stored - responses), initial=0.0))


def template(run: Run, n_models: int, n_samples: int) -> xr.Dataset:
    """Lazy variables of a store for some models and samples, without values."""
    import dask.array as da

    n_frames, _, n_columns = run.prepared.recorded_shape
    shape = (n_models, n_samples, *run.prepared.recorded_shape)
    response = da.zeros(shape, chunks=-1, dtype=dtype_of(run.inputs["precision"]))
    luminance = da.zeros((n_samples, n_frames, n_columns), chunks=-1, dtype=np.float32)
    return xr.Dataset({"response": (RESPONSE_DIMS, response), "luminance": (("sample", "time", "column"), luminance)})


def write_stimulus(
    path: str, stimulus: NDArray[np.floating], first: int, recorded: Recorded, n_frames: NDArray[np.int64] | None
) -> dict[str, Any]:
    """Write the recorded luminance of the samples from ``first`` on."""
    seen = np.asarray(stimulus, dtype=np.float32)[:, recorded.frames][:, :, recorded.columns]
    shard = stores.write_region(path, "luminance", seen, (first,))
    return {"stimulus": first, "hashes": identity.sample_hashes(stimulus, n_frames), "shard": shard}


def write_block(
    path: str,
    block: Block,
    parameters: Parameters,
    stimulus: NDArray[np.floating],
    within: slice,
    state: NDArray[np.floating] | None,
    model_name: str,
    n_frames: NDArray[np.int64] | None,
    place: tuple[int, int],
    precision: str | int,
) -> dict[str, Any]:
    """Compute the responses of a model to the samples ``within`` a stimulus, and write them at (model, sample)."""
    started = time.perf_counter()
    responses = run_block(block, parameters, stimulus[within], state, model_name, n_frames)
    stored, error = rounded(responses, precision, model_name)
    shard = stores.write_region(path, "response", stored, place)
    seconds = time.perf_counter() - started
    done = (place[0], place[1], place[1] + responses.shape[1])
    return {"block": done, "shard": shard, "seconds": seconds, "error": error}
