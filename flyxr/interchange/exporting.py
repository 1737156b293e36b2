"""Ensembles as directories that flyvis opens."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from flyxr import connectome as connectomes
from flyxr import flyvis, schema, store
from flyxr.ensemble import checkpoint_layout
from flyxr.errors import ExistsError, InputError, Problem, UnwritableError, raise_problems
from flyxr.paths import local_path
from flyxr.simulation import engine_parameters, ensemble_problems

if TYPE_CHECKING:
    from pathlib import Path

    import xarray as xr

ENSEMBLE = "flow/0000"
"""Directory of an exported ensemble, by which flyvis names it."""
CONNECTOME_FILE = "connectome.json"


def export_flyvis(
    ensemble: xr.Dataset, directory: str | os.PathLike[str], *, connectome: xr.Dataset | None = None
) -> Path:
    """Write an ensemble as a results directory that flyvis 1.2 opens.

    Parameters
    ----------
    ensemble
        Parameters of models. One model, as from ``ensemble.isel(model=0)``, counts as an ensemble of one.
    directory
        Directory to write, which does not exist or is empty, such as ``results`` in the root directory of flyvis
        (``FLYVIS_ROOT_DIR``). It appears when it is complete.
    connectome
        The connectome of the models; default: the one that the ensemble names.

    Returns
    -------
    Path
        Directory of the ensemble, ``flow/0000`` in ``directory``. flyvis opens it with
        ``EnsembleView("flow/0000")``, or with this path.

    Raises
    ------
    ExistsError
        A FileExistsError. If ``directory`` exists and is not empty.
    SchemaError
        A ValueError. If the ensemble does not fit the connectome, or parameters are not finite.
    ConnectomeError
        A ValueError. If the connectome of the ensemble is unknown.
    InputError
        A ValueError. If the connectome cannot be written in the format of flyvis.
    UnwritableError
        An OSError. If the directory cannot be written.

    Notes
    -----
    Models are ``flow/0000/000``, ``001``, ... in their order, each with its parameters in single precision
    (``chkpts/chkpt_00000``), its task error (``validation/loss.h5``; NaN if unknown) and its configuration
    (``_meta.yaml``). A connectome other than that of the package is written beside them as ``connectome.json``.

    Decoders are not exported, since ensembles have none: what flyvis decodes from responses, such as optic flow, is not
    available. Names of models are not kept, nor are perturbations as labels. :func:`flyxr.open_ensemble` reads the
    directory with the same parameters, sorted by task error.

    Examples
    --------
    >>> import flyxr as fx, tempfile
    >>> ensemble = fx.sample_ensemble(2, seed=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = export_flyvis(ensemble, folder + "/results")
    ...     sorted(file.name for file in (path / "001").iterdir())
    ['_meta.yaml', 'chkpt_index.h5', 'chkpts', 'validation']
    """
    target, hint = local_path(directory, "directory"), "choose another path"
    if os.path.lexists(target) and not (target.is_dir() and not any(target.iterdir())):
        text = f"expected a directory that does not exist or is empty, got {target}"
        raise ExistsError(Problem(text, hint))
    ensemble = schema.in_memory(schema.validate(ensemble, "ensemble"))
    connectome = connectomes.find_connectome(ensemble.attrs, connectome)
    problems = ensemble_problems(ensemble, connectome)
    raise_problems(schema.SchemaError, "the ensemble cannot be exported", problems)
    path = target / ENSEMBLE
    with store.scratch_directory(target / "flow") as scratch:
        try:
            _write_models(scratch / ENSEMBLE, path.absolute(), ensemble, connectome)
            target.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = f"cannot write {target}: {error.strerror}; choose another path"
            raise UnwritableError(reason, code=error.errno) from error
        try:
            os.rename(scratch / "flow", target / "flow")
        except OSError as error:
            raise ExistsError(Problem(f"another process has already created {target / 'flow'}", hint)) from error
        store.sync(target)
    return path


def _write_models(folder: Path, path: Path, ensemble: xr.Dataset, connectome: xr.Dataset) -> None:
    """Write all models and the connectome to a folder that will be moved to a path."""
    folder.mkdir(parents=True)
    config = flyvis.make_config(*_connectome_config(connectome, folder, path))
    layout, parameters = checkpoint_layout(connectome), engine_parameters(ensemble, connectome)
    measure = "epe" if "epe" in str(ensemble.attrs.get("task_error_measure", "")) else "loss"
    errors = ensemble["task_error"].values.tolist()
    width = max(3, len(str(len(errors) - 1)))  # flyvis sorts names as text
    for i, error in enumerate(errors):
        values = {name: getattr(parameters, name)[i] for name in flyvis.PARAMETERS}
        flyvis.write_model(folder / f"{i:0{width}}", values, layout, config, error=error, measure=measure)
    for file in [folder, *folder.rglob("*")]:
        store.sync(file)


def _connectome_config(connectome: xr.Dataset, folder: Path, path: Path) -> tuple[str, int, float]:
    """File, extent and filled synapses of a connectome, written to the folder unless flyvis has it.

    The folder will have been moved to the path when flyvis reads it.
    """
    digest, extent = connectomes.tables(connectome).digest, int(connectome.attrs["extent"])
    filled = np.unique(connectome["n_synapses"].values[connectome["filled"].values]).tolist()
    n_syn_fill = filled[0] if filled else 0
    if connectomes.open_connectome(n_syn_fill=n_syn_fill).attrs["connectome"] == digest:
        return flyvis.PACKAGED_CONNECTOME, extent, n_syn_fill
    file = folder / CONNECTOME_FILE
    file.write_text(json.dumps(_connectome_spec(connectome)), encoding="utf-8")
    written = connectomes.open_connectome(file, extent=extent, n_syn_fill=n_syn_fill)
    if written.attrs["connectome"] != digest:
        text = (
            "expected a connectome whose filled synapses are the gaps in its receptive fields, all of one number, as "
            "flyvis computes them, got others"
        )
        raise InputError(Problem(text, "open the connectome with fx.open_connectome(path, n_syn_fill=...)"))
    return str(path / CONNECTOME_FILE), extent, n_syn_fill


def _connectome_spec(connectome: xr.Dataset) -> dict[str, Any]:
    """Connectome in the JSON format of flyvis, without filled synapses."""
    names, strides = connectome["cell_type"].values.tolist(), connectome["stride"].values.tolist()
    roles = connectome["role"].values
    edges = []
    pairs = zip(*(connectome[name].values.tolist() for name in ("source", "target", "sign")), strict=True)
    for pair, (source, target, sign) in enumerate(pairs):
        synapses = connectome.isel(synapse=(connectome["synapse_pair"] == pair).values & ~connectome["filled"].values)
        columns = zip(synapses["du"].values.tolist(), synapses["dv"].values.tolist(), strict=True)
        counts = synapses["n_synapses"].values.tolist()
        offsets = [[list(offset), count] for offset, count in zip(columns, counts, strict=True)]
        # lambda_mult, how certain counts are, has no effect on the models; flyvis requires it
        edges.append({"src": source, "tar": target, "alpha": int(sign), "offsets": offsets, "lambda_mult": 0})
    return {
        "nodes": [{"name": name, "pattern": ["stride", stride]} for name, stride in zip(names, strides, strict=True)],
        "edges": edges,
        "input_units": [name for name, role in zip(names, roles, strict=True) if role == "input"],
        "output_units": [name for name, role in zip(names, roles, strict=True) if role == "output"],
    }
