"""Labels of a Dataset, its coordinates and attributes, as JSON and back, and what differs between two."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from flyxr.errors import InputError, Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

_NOT_LABELS = ("provenance", "flyxr_dataset")
_KEPT = (str, bool, int, float, np.generic, type(None))
"""What JSON keeps of values that are objects."""


def encode(dataset: xr.Dataset) -> dict[str, Any]:
    """Coordinates and attributes as JSON holds them, but for what made the Dataset and its kind.

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
    """Undo :func:`encode`."""
    coords = {name: _decode(coord) for name, coord in labels["coords"].items()}
    return xr.Dataset(coords=coords, attrs=dict(labels["attrs"]))


def differences(stored: xr.Dataset, given: xr.Dataset) -> list[str]:
    """What differs between the labels of a store and those that are given, a line for each.

    Of dims along which more is given, as many labels as the store has are compared. How a Dataset was made is no label.

    Examples
    --------
    >>> stored = xr.Dataset(coords={"sample": [0, 1], "angle": ("sample", [0, 30])})
    >>> differences(stored, stored.assign_coords(angle=("sample", [0, 60])))
    ['angle (sample): the store has 30 at position 1, this call 60']
    """
    lengths = {dim: slice(length) for dim, length in stored.sizes.items() if given.sizes.get(dim, 0) > length}
    given = given.isel(lengths)
    lines = []
    for name in dict.fromkeys([*stored.coords, *given.coords]):
        if name not in given.coords:
            lines.append(f"{name}: the store has {_where(stored[name])}, this call has no such coordinate")
        elif name not in stored.coords:
            lines.append(f"{name}: the store has no such coordinate, this call has {_where(given[name])}")
        else:
            lines += _coord_differences(str(name), stored[name], given[name])
    for name in dict.fromkeys([*stored.attrs, *given.attrs]):
        old, new = (_plain(data.attrs.get(name)) for data in (stored, given))
        if name not in _NOT_LABELS and json.dumps(old) != json.dumps(new):
            lines.append(f"attribute {name}: the store has {old!r}, this call {new!r}")
    return lines


def _coord_differences(name: str, old: xr.DataArray, new: xr.DataArray) -> list[str]:
    if old.dims != new.dims or old.shape != new.shape:
        return [f"{name}: the store has {_where(old)}, this call {_where(new)}"]
    lines = []
    pairs = zip(old.values.ravel().tolist(), new.values.ravel().tolist(), strict=True)
    wrong = [(position, a, b) for position, (a, b) in enumerate(pairs) if not _same(a, b)]
    if wrong:
        position, a, b = wrong[0]
        at = f" at position {position}" if old.ndim else ""
        more = f", and {len(wrong) - 1} others differ" if len(wrong) > 1 else ""
        lines.append(f"{name} ({', '.join(map(str, old.dims))}): the store has {a!r}{at}, this call {b!r}{more}")
    had, has = (json.dumps(_plain(coord.attrs), sort_keys=True) for coord in (old, new))
    if had != has:
        lines.append(f"{name}: the store has the attributes {had}, this call {has}")
    return lines


def _same(a: Any, b: Any) -> bool:
    return bool(a == b or (a != a and b != b))


def _where(coord: xr.DataArray) -> str:
    return f"it along ({', '.join(map(str, coord.dims))}) with lengths {coord.shape}"


def _encode(name: str, variable: xr.Variable) -> dict[str, Any]:
    values = variable.values
    kind = values.dtype.kind
    strange = {type(value).__name__ for value in values.ravel().tolist() if not isinstance(value, _KEPT)}
    if kind in "cV" or (kind == "O" and strange):
        got = ", ".join(sorted(strange)) or values.dtype
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
    """Numbers, text, lists and dicts of Python in place of NumPy's; what else there is as text."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value if isinstance(value, bool | int | float | str | None) else str(value)
