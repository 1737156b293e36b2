"""What made a Dataset: the steps that led to it, as JSON in its attributes."""

from __future__ import annotations

import functools
import json
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import xarray as xr

ATTR = "provenance"
"""Attribute that holds the steps, oldest first, as a JSON list."""


_version = functools.cache(version)  # it reads a file each time


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Versions of flyxr and of some packages.

    Examples
    --------
    >>> list(versions(["numpy"]))
    ['flyxr', 'numpy']
    """
    return {name: _version(name) for name in ("flyxr", *packages)}


def steps(dataset: xr.Dataset | xr.DataArray) -> list[dict[str, Any]]:
    """Steps that led to a Dataset, oldest first; empty where none are known.

    Examples
    --------
    >>> import xarray as xr
    >>> [step["operation"] for step in steps(add(xr.Dataset(), "render", {"extent": 15}))]
    ['render']
    """
    return list(json.loads(dataset.attrs.get(ATTR, "[]")))


def add(
    dataset: xr.Dataset,
    operation: str,
    arguments: Mapping[str, Any],
    *,
    hashes: Mapping[str, str] | None = None,
    tokens: Mapping[str, str] | None = None,
    packages: Iterable[str] = ("numpy", "xarray"),
    after: xr.Dataset | None = None,
) -> xr.Dataset:
    """Copy of a Dataset with one more step in its provenance.

    Parameters
    ----------
    dataset
        What the operation made.
    operation
        Name of the operation.
    arguments
        Its arguments; what JSON cannot hold is written as text.
    hashes
        Content hashes of what went in, by name; see :mod:`flyxr.identity`.
    tokens
        Names of the dask graphs of what went in lazily and was not read, by name. They say nothing about content.
    packages
        Packages whose versions are noted beside flyxr's.
    after
        The Dataset whose steps came before; without it those of ``dataset``.

    Examples
    --------
    >>> import xarray as xr
    >>> print(add(xr.Dataset(), "render", {"extent": 15}).attrs["provenance"][:55])
    [{"operation": "render", "arguments": {"extent": 15}, "
    """
    step = {
        "operation": operation,
        "arguments": dict(arguments),
        "hashes": dict(hashes or {}),
        "versions": versions(packages),
    }
    if tokens:
        step["tokens"] = dict(tokens)
    before = steps(dataset if after is None else after)
    return dataset.assign_attrs({ATTR: json.dumps([*before, step], default=str)})
