"""Descriptions of stores for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flyxr import provenance, schema
from flyxr.store import contents, files, places, reading
from flyxr.store.ledger import read_ledger

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import xarray as xr

    from flyxr.store.ledger import Ledger
    from flyxr.store.places import Place


def describe(path: str | Path, *, storage_options: Mapping[str, Any] | None = None) -> str:
    """Describe a store: kind, sizes, variables, provenance, and the progress of a sweep.

    The first line stands alone, as a summary.

    Parameters
    ----------
    path
        A store that :func:`save` or :func:`flyxr.sweep` wrote; a path or a URL, as for :func:`open`.
    storage_options
        Options of the file system of a URL.

    Returns
    -------
    str
        Several lines of text.

    Raises
    ------
    MissingError, StoreError, SchemaError
        As :func:`open`.

    Warns
    -----
    FlyxrWarning
        As :func:`open`.

    Examples
    --------
    >>> import flyxr as fx, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     print(describe(fx.save(fx.sample_ensemble(n_models=2, seed=0), folder + "/ensemble.zarr")))
    /.../ensemble.zarr: ensemble, 2 model x 65 cell_type x 604 pair, ... on disk
      models are not trained: initial parameters
      bias  2 model x 65 cell_type  float32  a.u.
      time_constant  2 model x 65 cell_type  float32  s
      synapse_strength  2 model x 604 pair  float32  a.u.
      made by sample_ensemble(n_models=2, seed=0)
        connectome ...
    """
    path = places.find(path, storage_options)
    dataset = reading.open(path)
    with contents.reading_store(path):
        return _describe(path, dataset)


def _describe(path: Place, dataset: xr.Dataset) -> str:
    """Text of an opened store."""
    from dask.utils import format_bytes

    kind = dataset.attrs.get(schema.KIND_ATTR, "a selection")
    size = "on a web server"
    if not places.is_web(path):
        n_bytes = sum(n_bytes for n_bytes, _ in files.list_files(path).values())
        size = f"{format_bytes(n_bytes)} {'in the store' if places.is_remote(path) else 'on disk'}"
    lines = [f"{path}: {kind}, {_format_dims(dataset)}, {size}"]
    lines += describe_dataset(dataset)
    ledger = read_ledger(path)
    if ledger is not None:
        lines += _describe_sweep(path, ledger, dataset)
    return "\n".join(lines)


def describe_dataset(dataset: xr.Dataset) -> list[str]:
    """Describe the models, variables and provenance of a Dataset, one indented line each.

    Examples
    --------
    >>> import flyxr as fx
    >>> describe_dataset(fx.sample_ensemble(n_models=2, seed=0))[:2]
    ['  models are not trained: initial parameters', '  bias  2 model x 65 cell_type  float32  a.u.']
    """
    lines = []
    if "trained" in dataset.attrs:
        lines.append(f"  models are {'trained' if dataset.attrs['trained'] else 'not trained: initial parameters'}")
    for variable in dataset.data_vars.values():
        units = variable.attrs.get("units", "")
        units = "" if units == "1" else units  # "1" stands for no units
        lines.append(f"  {variable.name}  {_format_dims(variable)}  {variable.dtype}  {units}".rstrip())
    for step in provenance.steps(dataset):
        arguments = ", ".join(f"{name}={value}" for name, value in step["arguments"].items())
        lines.append(f"  made by {step['operation']}({arguments if len(arguments) < 100 else arguments[:97] + '...'})")
        lines += [f"    {name} {digest}" for name, digest in step["hashes"].items()]
    return lines


def _describe_sweep(path: Place, ledger: Ledger, dataset: xr.Dataset) -> list[str]:
    """Progress of a sweep, what is missing, and its runs."""
    import numpy as np

    missing_files = ledger.drop_missing_files(files.stat_files(path, ledger.files))
    lines = [f"  {ledger.n_done} of {ledger.done.size} responses of a model to a sample are done"]
    for dim, axis in (("model", 1), ("sample", 0)):
        incomplete = dataset[dim].values[~ledger.done.all(axis=axis)].tolist()
        if incomplete:
            lines.append(
                f"    missing in {len(incomplete)} of {dataset.sizes[dim]} {dim}s: {_format_labels(incomplete)}"
            )
    if missing_files:
        lines.append(f"    {len(missing_files)} files that were written are missing or have another size")
    lines.append(f"    in {np.nansum(ledger.seconds):.3g} s of all workers together")
    for run in ledger.runs:
        version = run.get("versions", {}).get("flyxr", "before 0.2")
        lines.append(
            f"    started {run['started']} by process {run['pid']} on {run['host']}, {run['workers']}, "
            f"{run['engine']} on {run['device']}, flyxr {version}"
        )
    return lines


def _format_dims(data: xr.Dataset | xr.DataArray) -> str:
    return " x ".join(f"{length} {dim}" for dim, length in data.sizes.items())


def _format_labels(labels: Sequence[Any]) -> str:
    return ", ".join(map(str, labels[:8])) + (", …" if len(labels) > 8 else "")
