"""The command ``info``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

import flyxr as fx
from flyxr import store
from flyxr.cli import base
from flyxr.ensemble import NAMED
from flyxr.flyvis import EnsembleError
from flyxr.store import places

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    import xarray as xr

_EXPECTED = "a zarr store, or results of flyvis as a directory or zip file"


def add_info(commands: base.Commands) -> None:
    """Add the command ``info``."""
    parser = base.add_command(
        commands,
        "info",
        _info,
        "show what a store or an ensemble contains and how it was made",
        example="flyxr info responses.zarr results/flow/0000",
        paths=("store",),
        ensembles=("store",),
        urls=("store",),
    )
    parser.add_argument(
        "store", nargs="+", help="zarr store or its URL, results of flyvis as a directory or zip file, or `flyvis`"
    )


def _info(options: argparse.Namespace) -> None:
    for path in options.store:
        print(describe_named(path) if isinstance(path, str) else describe(path))


def describe_named(name: str) -> str:
    """Describe an ensemble that has a name, with its licence and what to cite.

    Raises
    ------
    MissingError
        A FileNotFoundError. If it was not fetched.
    """
    attrs = fx.open_ensemble(name).attrs
    origin = [f"  {key} {attrs[key]}" for key in ("source", "licence", "citation") if key in attrs]
    return "\n".join([store.describe(NAMED[name].find()), *origin])


def describe(path: Path) -> str:
    """Describe a store or results of flyvis.

    Raises
    ------
    InputError
        A ValueError. If it is neither; says what it is.
    MissingError
        A FileNotFoundError. If there is nothing at the path.
    """
    if places.is_remote(path) or base.is_zipped_store(path):
        return store.describe(path)
    is_inside_file = any(parent.is_file() for parent in path.parents)
    if base.is_store(path) or not (path.exists() or is_inside_file):
        return store.describe(path)
    if base.is_array(path) or base.is_version_2(path) or (path.is_file() and path.suffix.lower() != ".zip"):
        raise base.wrong_path_error(path, _EXPECTED)
    try:
        return "\n".join(_describe_ensemble(path, fx.open_ensemble(path)))
    except EnsembleError as error:
        if error.heading or not path.is_dir():  # damaged, or more than one
            raise
        raise base.wrong_path_error(path, _EXPECTED) from error


def _describe_ensemble(path: Path, ensemble: xr.Dataset) -> list[str]:
    """Lines about an ensemble of flyvis."""
    names, errors = ensemble["model_name"].values, ensemble["task_error"].values
    lines = [f"{path}: ensemble in the files of flyvis, {base.format_dims(ensemble)}"]
    if np.isfinite(errors).any():
        best = names[np.nanargmin(errors)]
        lines.append(f"  task error {np.nanmin(errors):.4g} (best, {best}) to {np.nanmax(errors):.4g}")
        lines.append(f"    {ensemble.attrs['task_error_measure']}")
    else:
        lines.append("  task errors are unknown")
    lines.append(f"  connectome {ensemble.attrs['connectome']}, extent {ensemble.attrs['extent']}")
    return [*lines, *store.describe_dataset(ensemble)]
