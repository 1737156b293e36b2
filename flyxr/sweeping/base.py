"""Inputs of a sweep, and its tasks: arrays and paths in, files and ledger entries out."""

from __future__ import annotations

import json
import math
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xarray as xr

from flyxr import identity
from flyxr import store as stores
from flyxr.arguments import Arguments, as_int, shorten
from flyxr.errors import FlyxrError, InputError, Problem
from flyxr.simulation import RESPONSE_DIMS, Block, Prepared, run_block
from flyxr.store import labels
from flyxr.store.encoding import types_per_chunk, types_per_chunk_before

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from flyxr.engine.base import Parameters
    from flyxr.simulation import Recorded
    from flyxr.store.ledger import Ledger

FLOAT16_MAX = float(np.finfo(np.float16).max)
_MANTISSA_BITS = {"float32": 23, "float16": 10}


class SweepError(FlyxrError, RuntimeError):
    """The sweep stopped; finished blocks are kept."""


class SweepMismatchError(FlyxrError, ValueError):
    """The store holds another sweep; the message names each difference."""


class LabelMismatchError(SweepMismatchError):
    """The store holds the same sweep with other labels; the message names each difference."""


REPLACE_HINT = Problem(
    "solutions",
    "choose another path, or replace the store with overwrite=True",
    "choose another path, or replace the store with --overwrite",
)
RELABEL_HINT = Problem(
    "solutions",
    "write the labels of this call, without recomputing, with relabel=True; choose another path; or replace the store "
    "with overwrite=True",
    "write the labels of this call, without recomputing, with --relabel; choose another path; or replace the store "
    "with --overwrite",
)


class Run(NamedTuple):
    """Constants of a call of :func:`flyxr.sweep`; ``inputs`` and ``labels`` go into the ledger."""

    prepared: Prepared
    path: Path
    inputs: dict[str, Any]
    labels: dict[str, Any]
    progress: bool

    @property
    def block_samples(self) -> int:
        """Number of samples per block, and so per file of the store."""
        return int(self.inputs["block_samples"])

    @property
    def layout(self) -> dict[str, Any]:
        """Chunks of the store, as for :func:`flyxr.store.write_template`; they never change.

        Ledgers before version 0.2 do not state them.
        """
        if "chunk_types" in self.inputs:
            return {"n_chunk_types": int(self.inputs["chunk_types"])}
        return {"n_chunk_types": types_per_chunk_before(*self._type_sizes()), "shard_single_chunks": True}

    def state_layout(self) -> Run:
        """State the number of cell types per chunk of a new store in the inputs."""
        return self._replace(inputs={**self.inputs, "chunk_types": types_per_chunk(*self._type_sizes())})

    def _type_sizes(self) -> tuple[int, int]:
        """Number of cell types, and bytes of each in a block."""
        n_frames, n_types, n_columns = self.prepared.recorded_shape
        return n_types, self.block_samples * n_frames * n_columns * dtype_of(self.inputs["precision"]).itemsize

    @property
    def n_blocks(self) -> int:
        """Number of blocks, each of one model and ``block_samples`` samples."""
        return len(self.inputs["models"]) * math.ceil(int(self.inputs["n_samples"]) / self.block_samples)

    def n_frames(self, samples: slice) -> NDArray[np.int64] | None:
        """Number of frames before the end of each sample; None if all have the same length."""
        return None if self.prepared.n_frames is None else self.prepared.n_frames[samples]


def sweep_inputs(prepared: Prepared, precision: str | int) -> dict[str, Any]:
    """Everything except the luminance that determines the result, as readable JSON."""
    block, state = prepared.block, prepared.state
    initial_state = block.start if state is None else f"given, {identity.state_hash(state)}"
    time_values = prepared.luminance["time"].values
    return {
        "connectome": block.tables.digest,
        "extent": block.tables.extent,
        "dt": block.dt,
        "initial_state": initial_state,
        "first_time": float(time_values[0]),
        "n_time": int(time_values.size),
        "cell_type": prepared.labels["cell_type"].values.tolist(),
        "column": block.recorded.columns.tolist(),
        "frames": block.recorded.frames.tolist(),
        "precision": precision,
        "models": identity.model_hashes(prepared.parameters),
        "n_samples": int(prepared.luminance.sizes["sample"]),
    }


def check_inputs(ledger: Ledger, inputs: Mapping[str, Any], path: Path) -> None:
    """Check that a store has the same inputs, or the first models and samples of them.

    Raises
    ------
    SweepMismatchError
        With one line per difference.
    """
    growing = {"models", "n_samples", "block_samples", "chunk_types"}
    problems: list[str | Problem] = [
        f"{name}: the store has {_abbreviate(ledger.inputs.get(name))}, this call {_abbreviate(inputs[name])}"
        for name in inputs
        if name not in growing and ledger.inputs.get(name) != inputs[name]
    ]
    old, new = ledger.inputs["models"], inputs["models"]
    changed = [position for position, (a, b) in enumerate(zip(old, new, strict=False)) if a != b]
    if changed:
        problems.append(f"ensemble: the parameters of {len(changed)} models differ, first at position {changed[0]}")
    counts = {"models": (len(old), len(new)), "samples": (ledger.inputs["n_samples"], inputs["n_samples"])}
    for name, (n_stored, n_given) in counts.items():
        if n_given < n_stored:
            problems.append(
                Problem(
                    f"{name}: the store has {n_stored}, this call {n_given}",
                    "pass all of them, new ones last, or open the store with fx.open and select",
                )
            )
    if problems:
        raise SweepMismatchError(*problems, REPLACE_HINT, heading=f"{path} holds another sweep")


def label_differences(run: Run, ledger: Ledger) -> list[str]:
    """Differences between the labels of a store and those of a call, one line each."""
    try:
        stored = stores.read_labels(run.path, ledger)
    except stores.StoreError:  # an interrupted extension of version 0.1, whose labels will be rewritten
        return []
    return labels.differences(stored, labels.decode(run.labels))


def check_labels(path: Path, differences: list[str]) -> None:
    """Raise if labels differ.

    Raises
    ------
    LabelMismatchError
        With one line per difference.
    """
    if differences:
        raise LabelMismatchError(*differences, RELABEL_HINT, heading=f"{path} has other labels")


def _abbreviate(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:40]}… ({len(value)} in all)"


def parse_precision(precision: Any, arguments: Arguments) -> str | int:
    """Name of a type, or number of mantissa bits from 1 to 22; the first type if something is wrong with it."""
    if isinstance(precision, str) and precision in _MANTISSA_BITS:
        return precision
    n_bits = as_int(precision)
    if n_bits is not None and 1 <= n_bits <= 22:
        return n_bits
    text = "expected precision 'float32', 'float16' or a number of bits from 1 to 22"
    arguments.problems.append(f"{text}, got {shorten(precision)}")
    return "float32"


def dtype_of(precision: str | int) -> np.dtype[Any]:
    """Data type of the stored responses."""
    return np.dtype(np.float16 if precision == "float16" else np.float32)


def relative_error(precision: str | int) -> float:
    """Largest relative error of rounding numbers that are not near 0."""
    return 0.0 if precision == "float32" else 2.0 ** -(_MANTISSA_BITS.get(str(precision)) or int(precision)) / 2


def round_responses(
    responses: NDArray[np.float32], precision: str | int, model_name: str
) -> tuple[NDArray[Any], float]:
    """Round responses to a precision; return them and the largest absolute error.

    Raises
    ------
    ValueError
        If the responses are too large for float16.
    """
    if precision == "float32":
        return responses, 0.0
    if precision == "float16":
        largest = float(np.nanmax(np.abs(responses), initial=0.0))
        if largest > FLOAT16_MAX:
            text = f"responses of {model_name} up to {largest:.3g} do not fit float16"
            raise InputError(Problem(text, "use precision=10", "use --precision 10"))
        stored: NDArray[Any] = responses.astype(np.float16)
    else:
        stored = stores.round_mantissa(responses, int(precision))
    return stored, float(np.nanmax(np.abs(stored - responses), initial=0.0))


def template(run: Run, n_models: int, n_samples: int) -> xr.Dataset:
    """Lazy variables without values, as a template for :func:`flyxr.store.write_template`."""
    import dask.array as da

    n_frames, _, n_columns = run.prepared.recorded_shape
    shape = (n_models, n_samples, *run.prepared.recorded_shape)
    response = da.zeros(shape, chunks=-1, dtype=dtype_of(run.inputs["precision"]))
    luminance = da.zeros((n_samples, n_frames, n_columns), chunks=-1, dtype=np.float32)
    return xr.Dataset({"response": (RESPONSE_DIMS, response), "luminance": (("sample", "time", "column"), luminance)})


def write_stimulus(
    path: Path, stimulus: NDArray[np.floating], first: int, recorded: Recorded, n_frames: NDArray[np.int64] | None
) -> dict[str, Any]:
    """Write the recorded luminance of samples, the first of which is at position ``first``; return a ledger entry."""
    luminance = np.asarray(stimulus, dtype=np.float32)[:, recorded.frames][:, :, recorded.columns]
    shard = stores.write_region(path, "luminance", luminance, (first,))
    return {"stimulus": first, "hashes": identity.sample_hashes(stimulus, n_frames), "shard": shard}


def write_block(
    path: Path,
    block: Block,
    parameters: Parameters,
    stimulus: NDArray[np.floating],
    samples: slice,
    state: NDArray[np.floating] | None,
    model_name: str,
    n_frames: NDArray[np.int64] | None,
    position: tuple[int, int],
    precision: str | int,
) -> dict[str, Any]:
    """Compute the responses of a model to ``samples`` of a stimulus, write them, and return a ledger entry.

    ``position`` is that of the model and of the first sample in the store.
    """
    started = time.perf_counter()
    responses = run_block(block, parameters, stimulus[samples], state, model_name, n_frames)
    stored, error = round_responses(responses, precision, model_name)
    shard = stores.write_region(path, "response", stored, position)
    seconds = time.perf_counter() - started
    model, first = position
    return {"block": (model, first, first + responses.shape[1]), "shard": shard, "seconds": seconds, "error": error}
