"""Labels of a Dataset (coordinates and attributes): to JSON and back, and the differences between two."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from flyxr.errors import InputError, Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

_NOT_LABELS = ("provenance", "flyxr_dataset")
_SCALARS = (str, bool, int, float, np.generic, type(None))
"""Types that object coordinates may hold."""


def encode(dataset: xr.Dataset) -> dict[str, Any]:
    """Coordinates and attributes as JSON, without provenance and kind.

    Examples
    --------
    >>> data = xr.Dataset(coords={"sample": [0, 1], "angle": ("sample", [0.0, np.nan])}, attrs={"trained": False})
    >>> decode(encode(data)).identical(data)
    True
    """
    coords = {str(name): _encode(str(name), coord.variable) for name, coord in dataset.coords.items()}
    attrs = {name: value for name, value in dataset.attrs.items() if name not in _NOT_LABELS}
    encoded: dict[str, Any] = json.loads(json.dumps({"coords": coords, "attrs": _plain(attrs)}))
    return encoded


def decode(labels: Mapping[str, Any]) -> xr.Dataset:
    """Inverse of :func:`encode`."""
    coords = {name: _decode(coord) for name, coord in labels["coords"].items()}
    return xr.Dataset(coords=coords, attrs=dict(labels["attrs"]))


def differences(stored: xr.Dataset, given: xr.Dataset) -> list[str]:
    """Differences between the labels of a store and given ones, one line each.

    Where the given dims are longer, only the labels that the store has are compared. Provenance is not a label.

    Examples
    --------
    >>> stored = xr.Dataset(coords={"sample": [0, 1], "angle": ("sample", [0, 30])})
    >>> differences(stored, stored.assign_coords(angle=("sample", [0, 60])))
    ['angle (sample): the store has 30 at position 1, this call 60']
    """
    given = given.isel({dim: slice(length) for dim, length in stored.sizes.items() if given.sizes.get(dim, 0) > length})
    lines = []
    for name in dict.fromkeys([*stored.coords, *given.coords]):
        if name not in given.coords:
            lines.append(f"{name}: the store has {_format_dims(stored[name])}, this call has no such coordinate")
        elif name not in stored.coords:
            lines.append(f"{name}: the store has no such coordinate, this call has {_format_dims(given[name])}")
        else:
            lines += _coord_differences(str(name), stored[name], given[name])
    for name in dict.fromkeys([*stored.attrs, *given.attrs]):
        old, new = (_plain(data.attrs.get(name)) for data in (stored, given))
        if name not in _NOT_LABELS and json.dumps(old) != json.dumps(new):
            lines.append(f"attribute {name}: the store has {old!r}, this call {new!r}")
    return lines


def _coord_differences(name: str, old: xr.DataArray, new: xr.DataArray) -> list[str]:
    if old.dims != new.dims or old.shape != new.shape:
        return [f"{name}: the store has {_format_dims(old)}, this call {_format_dims(new)}"]
    lines = []
    pairs = zip(old.values.ravel().tolist(), new.values.ravel().tolist(), strict=True)
    changed = [(position, a, b) for position, (a, b) in enumerate(pairs) if not _is_equal(a, b)]
    if changed:
        position, a, b = changed[0]
        where = f" at position {position}" if old.ndim else ""
        others = f", and {len(changed) - 1} others differ" if len(changed) > 1 else ""
        lines.append(f"{name} ({', '.join(map(str, old.dims))}): the store has {a!r}{where}, this call {b!r}{others}")
    old_attrs, new_attrs = (json.dumps(_plain(coord.attrs), sort_keys=True) for coord in (old, new))
    if old_attrs != new_attrs:
        lines.append(f"{name}: the store has the attributes {old_attrs}, this call {new_attrs}")
    return lines


def _is_equal(a: Any, b: Any) -> bool:
    return bool(a == b or (a != a and b != b))


def _format_dims(coord: xr.DataArray) -> str:
    return f"it along ({', '.join(map(str, coord.dims))}) with lengths {coord.shape}"


def _encode(name: str, variable: xr.Variable) -> dict[str, Any]:
    values = variable.values
    kind = values.dtype.kind
    unsupported = {type(value).__name__ for value in values.ravel().tolist() if not isinstance(value, _SCALARS)}
    if kind in "cV" or (kind == "O" and unsupported):
        got = ", ".join(sorted(unsupported)) or values.dtype
        raise InputError(
            Problem(f"expected text, numbers or times in the coordinate '{name}', got {got}", "convert it")
        )
    dtype = "object" if kind in "OUT" else values.dtype.str
    if kind in "mM":
        values = values.astype("<i8")
    return {"dims": list(variable.dims), "dtype": dtype, "values": _plain(values), "attrs": _plain(variable.attrs)}


def _decode(coord: Mapping[str, Any]) -> xr.Variable:
    dtype = np.dtype(coord["dtype"])
    shape = np.shape(coord["values"])
    if dtype.kind in "mM":
        values = np.array(coord["values"], dtype="<i8").astype(dtype)
    else:
        values = np.empty(shape, dtype)
        values[...] = np.array(coord["values"], dtype=dtype) if shape else coord["values"]
    return xr.Variable(coord["dims"], values, coord["attrs"])


def _plain(value: Any) -> Any:
    """Convert NumPy values to numbers, text, lists and dicts of Python, and anything else to text."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, bool | int | float | str | None) else str(value)
