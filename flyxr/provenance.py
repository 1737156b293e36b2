"""What made a Dataset: content hashes, and the steps that led to it as JSON in its attributes."""

from __future__ import annotations

import functools
import hashlib
import json
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping

    import xarray as xr

ATTR = "provenance"
"""Attribute that holds the steps, oldest first, as a JSON list."""


def content_hash(dataset: xr.Dataset, names: Iterable[Hashable] | None = None) -> str:
    """Hash of names, dims, dtypes and values; attributes and chunks do not count.

    Parameters
    ----------
    dataset
        Lazy variables are hashed by the name of their dask graph, which stands for the content as long as the
        graph is built from the same inputs; nothing is computed.
    names
        Variables and coordinates to hash; without it all.

    Returns
    -------
    str
        The first 16 hexadecimal digits of SHA-256.

    Examples
    --------
    >>> import xarray as xr
    >>> content_hash(xr.Dataset({"a": ("x", [1.0, 2.0])})) == content_hash(xr.Dataset({"a": ("x", [1.0, 2.5])}))
    False
    """
    digest = hashlib.sha256()
    for name in sorted(map(str, dataset.variables if names is None else names)):
        variable = dataset[name].variable
        digest.update(f"{name}{variable.dims}{variable.shape}".encode())
        if variable.chunks is not None:
            digest.update(variable.data.name.encode())
            continue
        values = variable.values
        if values.dtype.kind in "OUT":
            digest.update(json.dumps(values.astype(str).tolist()).encode())
        else:
            digest.update(values.dtype.str.encode() + np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()[:16]


_version = functools.cache(version)  # it reads a file each time


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
        Content hashes of what went in, by name.
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
        "versions": {name: _version(name) for name in ("flyxr", *packages)},
    }
    before = steps(dataset if after is None else after)
    return dataset.assign_attrs({ATTR: json.dumps([*before, step], default=str)})
