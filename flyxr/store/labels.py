"""Labels of a Dataset (coordinates and attributes): to JSON and back, and the differences between two."""

from __future__ import annotations

import json
import re
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from flyxr import schema
from flyxr.errors import InputError, Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

_NOT_LABELS = ("provenance", "flyxr_dataset")
_JSON_ATTR = "flyxr_json"
"""Attribute of a text variable on disk whose items are JSON."""


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
        # True is 1, as it was written by version 0.1; NaN is NaN.
        if name not in _NOT_LABELS and old != new and json.dumps(old) != json.dumps(new):
            lines.append(f"attribute {name}: the store has {old!r}, this call {new!r}")
    return lines


def _coord_differences(name: str, old: xr.DataArray, new: xr.DataArray) -> list[str]:
    # A coordinate of a selected sample has no dim, and is the same as one along a single sample.
    is_selection = 0 in (old.ndim, new.ndim) and old.size == new.size == 1
    if (old.dims != new.dims or old.shape != new.shape) and not is_selection:
        return [f"{name}: the store has {_format_dims(old)}, this call {_format_dims(new)}"]
    lines = []
    pairs = zip(_comparable(old), _comparable(new), strict=True)
    changed = [(position, a, b) for position, (a, b) in enumerate(pairs) if not _is_equal(a, b)]
    if changed:
        position, a, b = changed[0]
        where = f" at position {position}" if old.ndim else ""
        others = f", and {len(changed) - 1} others differ" if len(changed) > 1 else ""
        lines.append(f"{name} ({', '.join(map(str, old.dims))}): the store has {a!r}{where}, this call {b!r}{others}")
    old_attrs, new_attrs = (json.dumps(_own_attrs(name, coord), sort_keys=True) for coord in (old, new))
    if old_attrs != new_attrs:
        lines.append(f"{name}: the store has the attributes {old_attrs}, this call {new_attrs}")
    return lines


def _comparable(coord: xr.DataArray) -> list[Any]:
    """Values as Python's own; times of any resolution as pandas Timestamps or Timedeltas."""
    values = coord.values.ravel()
    if values.dtype.kind in "mM":
        return list(pd.Index(values).as_unit("ns"))
    return values.tolist()


def _own_attrs(name: str, coord: xr.DataArray) -> Any:
    """Attributes without the wording of the schema, which changes between versions of flyxr."""
    attrs = dict(coord.attrs)
    if name in schema.COORDS:
        attrs.pop("long_name", None)
        attrs = {key: _singular(value) if key == "units" else value for key, value in attrs.items()}
    return _plain(attrs)


def _singular(units: Any) -> str:
    """Units in the singular, as version 0.1 has them: ``column/s`` for ``columns/s``."""
    return re.sub(r"(?<=[a-z]{2})s\b", "", str(units))


def _is_equal(a: Any, b: Any) -> bool:
    return bool(a == b or (a != a and b != b))


def _format_dims(coord: xr.DataArray) -> str:
    return f"it along ({', '.join(map(str, coord.dims))}) with lengths {coord.shape}"


def to_text(dataset: xr.Dataset) -> xr.Dataset:
    """Convert variables of objects other than text to JSON text, which zarr can hold; :func:`from_text` inverts it.

    Raises
    ------
    InputError
        A ValueError. If an object is neither text, a number, a time, None, nor a tuple of these.

    Examples
    --------
    >>> labels = np.empty(2, object)
    >>> labels[:] = [("left", 1), ("right", 2)]
    >>> data = xr.Dataset(coords={"sample": labels})
    >>> to_text(data).sample.values[0], from_text(to_text(data)).identical(data)
    ('{"tuple": ["left", 1]}', True)
    """
    for name, variable in dataset.variables.items():
        if variable.dtype.kind in "UT":  # a label that was selected is text of fixed width
            dataset = dataset.assign({name: variable.astype(object)})
        elif variable.dtype.kind == "O" and not all(isinstance(value, str) for value in variable.values.flat):
            _check_storable(str(name), variable.values)
            text = np.empty(variable.shape, object)
            for index, value in np.ndenumerate(variable.values):
                text[index] = json.dumps(_encode_item(value))
            dataset = dataset.assign({name: (variable.dims, text, {**variable.attrs, _JSON_ATTR: 1})})
    return dataset


def from_text(dataset: xr.Dataset) -> xr.Dataset:
    """Inverse of :func:`to_text`.

    Raises
    ------
    ValueError
        If the text is not what :func:`to_text` writes.
    """
    for name, variable in dataset.variables.items():
        if _JSON_ATTR in variable.attrs:
            values = np.empty(variable.shape, object)
            for index, text in np.ndenumerate(variable.values):
                values[index] = _decode_item(json.loads(text))
            attrs = {key: value for key, value in variable.attrs.items() if key != _JSON_ATTR}
            dataset = dataset.assign({name: (variable.dims, values, attrs)})
    return dataset


def _encode(name: str, variable: xr.Variable) -> dict[str, Any]:
    values = variable.values
    _check_storable(name, values)
    kind = values.dtype.kind
    dtype = "object" if kind in "OUT" else values.dtype.str
    if kind == "O":
        items = np.empty(values.shape, object)
        for index, value in np.ndenumerate(values):
            items[index] = _encode_item(value)
        values = items
    if kind in "mM":
        values = values.astype("<i8")
    return {"dims": list(variable.dims), "dtype": dtype, "values": values.tolist(), "attrs": _plain(variable.attrs)}


def _check_storable(name: str, values: NDArray[Any]) -> None:
    """Raise if a variable holds something that JSON cannot."""
    kind = values.dtype.kind
    unsupported = {type(value).__name__ for value in values.flat if not _is_storable(value)} if kind == "O" else set()
    if kind in "cV" or unsupported:
        got = ", ".join(sorted(unsupported)) or values.dtype
        text = f"expected text, numbers, times or tuples of them in '{name}', got {got}"
        raise InputError(Problem(text, f"convert it, or leave it out with .drop_vars({name!r})"))


def _is_storable(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_storable, value))
    return value is None or isinstance(value, (str, bool, int, float, date, timedelta, np.generic))


def _encode_item(value: Any) -> Any:
    """One label in terms of JSON."""
    if isinstance(value, tuple):
        return {"tuple": [_encode_item(item) for item in value]}
    if isinstance(value, (timedelta, np.timedelta64)):
        return {"duration": pd.Timedelta(value).as_unit("ns").value}
    if isinstance(value, (date, np.datetime64)):
        return {"time": pd.Timestamp(value).isoformat()}
    return value.item() if isinstance(value, np.generic) else value


def _decode_item(item: Any) -> Any:
    if not isinstance(item, dict):
        return item
    ((kind, value),) = item.items()
    if kind == "tuple":
        return tuple(map(_decode_item, value))
    return pd.Timedelta(value, "ns") if kind == "duration" else pd.Timestamp(value)


def _decode(coord: Mapping[str, Any]) -> xr.Variable:
    dtype = np.dtype(coord["dtype"])
    if dtype.kind not in "biufmMO":
        raise InputError(f"expected labels of numbers, times or objects, got {dtype}")
    if dtype.kind == "O":
        items = np.array(coord["values"], dtype=object)
        values = np.empty(items.shape, object)
        for index, item in np.ndenumerate(items):
            values[index] = _decode_item(item)
    elif dtype.kind in "mM":
        values = np.array(coord["values"], dtype="<i8").astype(dtype)
    else:
        values = np.array(coord["values"], dtype=dtype)
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
