"""Directories of flyvis's models, written from plain arrays."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from flyxr.flyvis.checkpoint import LOG_COUNT, PARAMETERS, SIGN
from flyxr.flyvis.configuration import META

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from flyxr.flyvis.checkpoint import Layout


def write_model(
    folder: Path,
    parameters: Mapping[str, NDArray[np.floating]],
    layout: Layout,
    config: Mapping[str, Any],
    *,
    error: float = np.nan,
    measure: str = "loss",
) -> None:
    """Write the directory of a model as flyvis 1.2 reads it, with one checkpoint and without a decoder.

    Parameters
    ----------
    folder
        Directory to create.
    parameters
        The free parameters :data:`PARAMETERS`: ``bias`` and ``time_constant`` (cell_type,), s, and
        ``synapse_strength`` (pair,).
    layout
        Labels and fixed numbers of the connectome.
    config
        Configuration, from :func:`flyxr.flyvis.make_config`.
    error
        Validation error of the checkpoint; NaN if unknown.
    measure
        What the error is: ``"loss"`` or ``"epe"``, the end-point error.
    """
    import torch
    import yaml

    (folder / "chkpts").mkdir(parents=True)
    (folder / "validation").mkdir()
    values = {key: parameters[name] for name, key in PARAMETERS.items()}
    values |= {SIGN: layout.sign, LOG_COUNT: np.log(layout.n_synapses)}
    network = {key: torch.from_numpy(np.array(values[key], dtype=np.float32)) for key in layout.labels()}
    content = io.BytesIO()  # torch raises errors of its own for a full disk
    torch.save({"network": network}, content)
    (folder / "chkpts" / "chkpt_00000").write_bytes(content.getbuffer())
    _write_numbers(folder / "chkpt_index.h5", [0])
    # flyvis looks for the loss if there is no end-point error, and needs one of them to find the best checkpoint
    for name in dict.fromkeys((measure, "loss")):
        _write_numbers(folder / "validation" / f"{name}.h5", [error])
    text = yaml.safe_dump({"config": dict(config), "status": "done"}, sort_keys=False)
    (folder / META).write_text(text, encoding="utf-8")


def _write_numbers(path: Path, values: list[int] | list[float]) -> None:
    """Write an HDF5 file as flyvis does, with one dataset ``data``."""
    import h5py

    with h5py.File(path, "w") as file:
        file["data"] = values
