"""Provenance of a Dataset: the operations that made it, as JSON in its attributes."""

from __future__ import annotations

import functools
import json
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from flyxr.errors import InputError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import xarray as xr

ATTR = "provenance"
"""Attribute with the steps, oldest first, as a JSON list."""

_version = functools.cache(version)  # importlib.metadata reads a file on each call


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Look up the versions of flyxr and other packages.

    Examples
    --------
    >>> list(versions(["numpy"]))
    ['flyxr', 'numpy']
    """
    return {name: _version(name) for name in ("flyxr", *packages)}


def steps(dataset: xr.Dataset | xr.DataArray) -> list[dict[str, Any]]:
    """Read the steps that made a Dataset, oldest first; empty if none are recorded.

    Raises
    ------
    InputError
        A ValueError. If the attribute was changed to something else.

    Examples
    --------
    >>> import xarray as xr
    >>> [step["operation"] for step in steps(add(xr.Dataset(), "render", {"extent": 15}))]
    ['render']
    """
    listed = dataset.attrs.get(ATTR, "[]")
    try:
        recorded = json.loads(listed)
        is_valid = all(isinstance(step["operation"], str) and isinstance(step["arguments"], dict) for step in recorded)
    except (ValueError, TypeError, KeyError, RecursionError):
        is_valid = False
    if not is_valid:
        text = f"expected the attribute {ATTR!r} as the JSON list of steps that flyxr writes, got {str(listed)[:80]!r}"
        raise InputError(Problem(text, f"remove it, e.g. with del data.attrs[{ATTR!r}]"))
    return list(recorded)


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
    """Copy a Dataset and append a step to its provenance.

    Parameters
    ----------
    dataset
        Result of the operation.
    operation
        Name of the operation.
    arguments
        Arguments of the operation; values that JSON does not support are written as text.
    hashes
        Content hashes of the inputs, by name; see :mod:`flyxr.identity`.
    tokens
        Names of the dask graphs of lazy inputs that were not read, by name; see :func:`flyxr.identity.token`.
    packages
        Packages whose versions are recorded together with that of flyxr.
    after
        The Dataset whose provenance is continued, by default ``dataset``.

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
    earlier_steps = steps(dataset if after is None else after)
    return dataset.assign_attrs({ATTR: json.dumps([*earlier_steps, step], default=str)})
