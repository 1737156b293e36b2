"""Checkpoints of flyvis: tensors, read without running code and compared with a connectome."""

from __future__ import annotations

import io
import re
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from flyxr.errors import Problem
from flyxr.flyvis.files import EnsembleError, check_size, read_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from flyxr.flyvis.files import FileTree

PARAMETERS = {"bias": "nodes_bias", "time_constant": "nodes_time_const", "synapse_strength": "edges_syn_strength"}
"""Free parameters and their names in a checkpoint."""

SIGN, LOG_COUNT = "edges_sign", "edges_syn_count"
"""Fixed numbers of the connectome in a checkpoint: signs, and logarithms of synapse counts."""

COUNT_RTOL = 1e-5
"""Relative tolerance of synapse counts, whose logarithm checkpoints hold in single precision."""

_OTHER_CONNECTOME = (
    "open the connectome it was trained with and pass it as connectome=",
    "open it in Python, with the connectome it was trained with as connectome=",
)
"""Hint in Python, and on the command line, which knows one connectome."""


@dataclass(frozen=True)
class Layout:
    """Labels that a checkpoint must fit, in flyvis's order, and the fixed numbers of its connectome.

    Attributes
    ----------
    cell_types : sequence of str
        (cell_type,)
    pairs : sequence of str
        (pair,), for messages.
    synapses : sequence of str
        (synapse,), for messages.
    sign : ndarray
        (pair,) +1 or -1.
    n_synapses : ndarray
        (synapse,) mean number of synapses.
    """

    cell_types: Sequence[str]
    pairs: Sequence[str]
    synapses: Sequence[str]
    sign: NDArray[np.float64]
    n_synapses: NDArray[np.float64]

    def labels(self) -> dict[str, Sequence[str]]:
        """Labels of the numbers in each tensor of a checkpoint."""
        return {
            PARAMETERS["bias"]: self.cell_types,
            PARAMETERS["time_constant"]: self.cell_types,
            PARAMETERS["synapse_strength"]: self.pairs,
            SIGN: self.pairs,
            LOG_COUNT: self.synapses,
        }


def read_checkpoint(tree: FileTree, path: str) -> dict[str, NDArray[np.float64]]:
    """Read the tensors of a checkpoint's network; decoders are ignored.

    Raises
    ------
    EnsembleError
        If the file is too large, truncated, damaged or not a checkpoint of flyvis, or would run code.
    """
    import torch

    content, label = read_file(tree, path), tree.label(path)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            check_size(label, sum(member.file_size for member in archive.infolist()), tree.max_bytes)
            damaged = archive.testzip()  # torch does not compare checksums
    except EnsembleError:
        raise
    except Exception as error:  # zipfile raises many kinds on damaged files
        raise EnsembleError(
            Problem(
                f"{label}: expected a checkpoint of torch (a zip archive), got {len(content)} bytes that are not one "
                f"({error})",
                "it may be truncated, copy it again",
            )
        ) from None
    if damaged:
        raise EnsembleError(
            Problem(f"{label}: expected a whole file, got another checksum of {damaged}", "copy it again")
        )
    # Published checkpoints also hold a validation loss, a NumPy scalar. These three only build a number.
    builders: list[Any] = [(np.float64(0).__reduce__()[0], "numpy.core.multiarray.scalar"), np.dtype]
    try:
        with torch.serialization.safe_globals([*builders, np.dtypes.Float64DType]):
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds on broken files
        raise EnsembleError(_load_problem(label, error)) from None
    network = state.get("network") if isinstance(state, dict) else None
    if not isinstance(network, dict) or not all(isinstance(value, torch.Tensor) for value in network.values()):
        got = f"the keys {', '.join(map(str, state))}" if isinstance(state, dict) else type(state).__name__
        raise EnsembleError(
            Problem(f"{label}: expected tensors under 'network', got {got}", "it is not a checkpoint of flyvis")
        )
    try:
        # a tensor that repeats its storage may be larger than its file
        if sum(value.numel() for value in network.values()) <= tree.max_bytes // 8:
            return {str(key): np.asarray(value.detach().double().numpy()) for key, value in network.items()}
        reason = "too many"
    except Exception as error:  # torch raises many kinds for tensors without numbers
        reason = str(error)
    raise EnsembleError(f"{label}: expected dense tensors of real numbers, got others ({reason})")


def _load_problem(label: str, error: Exception) -> Problem:
    """Explain why torch did not open a checkpoint, without its advice to trust the file."""
    code = re.search(r"GLOBAL ([\w.]+)", str(error))
    if code:
        return Problem(
            f"{label}: expected tensors only, got a pickle that would run code ({code[1]}), so it was not opened",
            "get the file from a source you trust",
        )
    first_line = str(error).strip().split("\n")[0][:120]
    return Problem(
        f"{label}: expected a checkpoint of torch, got one that cannot be read ({type(error).__name__}: {first_line})",
        "copy it again",
    )


def find_mismatches(tensors: dict[str, NDArray[np.float64]], layout: Layout) -> Iterator[Problem]:
    """List all differences between a checkpoint and a layout.

    Examples
    --------
    >>> layout = Layout(["R1"], ["R1 > L1"], ["R1 > L1 (0, 0)"], np.array([-1.0]), np.array([40.0]))
    >>> tensors = {name: np.zeros(1) for name in layout.labels()}
    >>> for problem in find_mismatches(tensors, layout):
    ...     print(problem.text)
    expected edges_sign as in the connectome, -1 for R1 > L1, got +0
    expected edges_syn_count as in the connectome, log of 40 for R1 > L1 (0, 0), got log of 1
    """
    expected = layout.labels()
    if tensors.keys() != expected.keys():
        got = ", ".join(tensors) or "none"
        text = f"expected the tensors {', '.join(expected)}, got {got}"
        yield Problem(text, "it is a checkpoint of another kind of model")
    fitting = {}
    for key, labels in expected.items():
        if key in tensors and tensors[key].shape == (len(labels),):
            fitting[key] = tensors[key]
        elif key in tensors:
            text = f"expected {key} with shape ({len(labels)},), got {tensors[key].shape}"
            yield Problem(text, *_OTHER_CONNECTOME)
    for key in PARAMETERS.values():
        wrong = ~np.isfinite(fitting.get(key, np.empty(0)))
        if wrong.any():
            text = f"expected {key} finite, got {fitting[key][wrong][0]} for {_format_labels(expected[key], wrong)}"
            yield Problem(text, "take another checkpoint")
    if SIGN in fitting:
        wrong = fitting[SIGN] != layout.sign
        if wrong.any():
            yield Problem(
                f"expected {SIGN} as in the connectome, {layout.sign[wrong][0]:+g} for "
                f"{_format_labels(layout.pairs, wrong)}, got {fitting[SIGN][wrong][0]:+g}",
                *_OTHER_CONNECTOME,
            )
    if LOG_COUNT in fitting:
        with np.errstate(over="ignore"):
            count = np.exp(fitting[LOG_COUNT])
        wrong = ~np.isclose(count, layout.n_synapses, rtol=COUNT_RTOL, atol=0)
        if wrong.any():
            yield Problem(
                f"expected {LOG_COUNT} as in the connectome, log of {layout.n_synapses[wrong][0]:g} for "
                f"{_format_labels(layout.synapses, wrong)}, got log of {count[wrong][0]:g}",
                *_OTHER_CONNECTOME,
            )


def _format_labels(labels: Sequence[str], mask: NDArray[np.bool_]) -> str:
    """Name the first label in a mask, and count the others."""
    positions = np.flatnonzero(mask).tolist()
    more = f" and {len(positions) - 1} more" if len(positions) > 1 else ""
    return f"{labels[positions[0]]}{more}"
