"""Complete a Dataset on entry: fill in coordinates with one possible value, restore dims that were selected away."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

import numpy as np
import pandas as pd
import xarray as xr

from flyxr import hexgrid
from flyxr.schema.records import CONDITIONS, COORDS, KINDS, Kind

INTEGER_LABELS = ("sample", "model", "pair", "synapse")
"""Dims whose labels are 0, 1, … where there are none."""

COLUMN_POSITION = ("x_column", "y_column")

_Data = TypeVar("_Data", xr.Dataset, xr.DataArray)


class Squeeze(NamedTuple):
    """Dims that were selected away from an argument, and coordinates that were filled in along them.

    Calling it removes both from a result, as xarray would.

    Examples
    --------
    >>> data = xr.Dataset({"a": (("sample", "time"), [[1, 2]])}, {"sample": [0]})
    >>> dict(Squeeze(("sample",), ("sample",))(data).coords), Squeeze()(data).sizes["sample"]
    ({}, 1)
    """

    dims: tuple[str, ...] = ()
    derived: tuple[str, ...] = ()

    def __call__(self, result: _Data) -> _Data:
        """Remove the dims that the argument did not have, as long as they have length one."""
        squeezed = result.squeeze([dim for dim in self.dims if result.sizes.get(dim) == 1])
        scalar = [name for name in self.derived if name in squeezed.coords and not squeezed[name].dims]
        return squeezed.drop_vars(scalar)


def complete(dataset: xr.Dataset, kind: str) -> tuple[xr.Dataset, Squeeze]:
    """Fill in what follows from a Dataset, and give back dims that were selected away with length one.

    Parameters
    ----------
    dataset
        Any Dataset; it is not changed, and no variable is computed.
    kind
        A name in :data:`flyxr.schema.KINDS`.

    Returns
    -------
    dataset : Dataset
        With integer labels, coordinates of the columns of a full lattice, and names and unknown task errors of
        models, where these were missing; with time in seconds if it was a timedelta; with coordinates of one dim in
        memory. What has several possible values stays missing.
    squeeze : Squeeze
        Removes dims that were added from a result.

    Examples
    --------
    >>> frame = xr.Dataset({"luminance": (("time", "column"), np.zeros((2, 7)))}, {"time": [0.0, 0.01]})
    >>> rendering, squeeze = complete(frame, "rendering")
    >>> rendering.luminance.dims, sorted(rendering.coords)
    (('sample', 'time', 'column'), ['column', 'sample', 'time', 'u', 'v', 'x_column', 'y_column'])
    >>> squeeze(rendering).luminance.dims
    ('time', 'column')
    """
    record = KINDS[kind]
    dataset = _in_seconds(flatten_labels(load_coords(dataset)))
    dims = _selected_away(dataset, record)
    derived: list[str] = []
    if dims:
        dataset, derived = _expand(dataset, record, dims)
    dataset = _fill(dataset, record)
    if record.name == "movie":
        dataset = _top_left_first(dataset)
    return dataset, Squeeze(dims, tuple(derived))


def load_coords(dataset: _Data) -> _Data:
    """Load coordinates of at most one dim into memory, so that selecting and grouping by them works.

    Examples
    --------
    >>> lazy = xr.Dataset(coords={"digit": ("sample", ["3", "9"])}).chunk()
    >>> load_coords(lazy).digit.chunks is None
    True
    """
    lazy = {name: coord.compute() for name, coord in dataset.coords.items() if coord.ndim < 2 and _is_lazy(coord)}
    return dataset.assign_coords(lazy) if lazy else dataset


def _is_lazy(array: xr.DataArray) -> bool:
    return array.chunks is not None or not array.variable._in_memory


def flatten_labels(dataset: xr.Dataset) -> xr.Dataset:
    """Turn the levels of a MultiIndex into coordinates.

    Examples
    --------
    >>> flat = xr.Dataset(coords={"angle": ("sample", [0, 90]), "speed": ("sample", [1, 2])})
    >>> flatten_labels(flat.set_index(sample=["angle", "speed"])).equals(flat)
    True
    """
    stacked = [
        dim for dim, index in dataset.indexes.items() if isinstance(index, pd.MultiIndex) and dim in dataset.dims
    ]
    return dataset.reset_index(stacked) if stacked else dataset


def _in_seconds(dataset: xr.Dataset) -> xr.Dataset:
    """Convert a time axis of timedeltas to seconds."""
    if "time" not in dataset.coords or dataset["time"].dtype.kind != "m":
        return dataset
    time = dataset["time"]
    seconds = time.values.astype("timedelta64[ns]").astype(np.int64) / 1e9
    return dataset.assign_coords(time=(time.dims, np.where(np.isnat(time.values), np.nan, seconds), time.attrs))


def _selected_away(dataset: xr.Dataset, record: Kind) -> tuple[str, ...]:
    """Dims of the schema that the variables of a Dataset lack, though none has a dim of another name in their place."""
    variables = [variable for variable in record.variables if variable.name in dataset]
    others = CONDITIONS if record.name == "measures" else frozenset()
    if any(set(dataset[variable.name].dims) - set(variable.dims) - others for variable in variables):
        return ()
    dims = dict.fromkeys(dim for variable in variables for dim in variable.dims)
    return tuple(dim for dim in dims if dim in record.squeezable and dim not in dataset.dims)


def _expand(dataset: xr.Dataset, record: Kind, dims: tuple[str, ...]) -> tuple[xr.Dataset, list[str]]:
    """Add dims of length one to variables and coordinates; also names the coordinates that will be filled in."""
    scalar = {str(name) for name, coord in dataset.coords.items() if not coord.dims}
    along = {dim: [name for name, coord in COORDS.items() if coord.dims == (dim,)] for dim in dims}
    filled = (*record.coords, *COLUMN_POSITION)
    derived = [name for names in along.values() for name in names if name in filled and name not in scalar]
    if "time" in dims and "time" not in scalar:
        dataset, scalar = dataset.assign_coords(time=0.0), {*scalar, "time"}
    coords = {
        name: dataset[name].variable.set_dims({dim: 1})
        for dim, names in along.items()
        for name in names
        if name in scalar
    }
    variables = {}
    for variable in record.variables:
        if variable.name in dataset and (missing := [dim for dim in variable.dims if dim in dims]):
            values = dataset[variable.name].variable
            variables[variable.name] = values.set_dims({**dict.fromkeys(missing, 1), **values.sizes})
    return dataset.drop_vars(coords).assign(variables).assign_coords(coords), derived


def _fill(dataset: xr.Dataset, record: Kind) -> xr.Dataset:
    """Add the coordinates that have one possible value."""
    missing = [name for name in (*record.coords, *COLUMN_POSITION) if name not in dataset.coords]
    added: dict[str, Any] = {
        dim: np.arange(dataset.sizes[dim]) for dim in INTEGER_LABELS if dim in missing and dim in dataset.dims
    }
    if "model" in dataset.dims:
        labels = added.get("model", dataset["model"].values if "model" in dataset.coords else ())
        if "model_name" in missing:
            added["model_name"] = ("model", np.array([str(label) for label in labels], dtype=object))
        if "task_error" in missing:
            added["task_error"] = ("model", np.full(dataset.sizes["model"], np.nan))
    if "column" in record.coords and "column" in dataset.dims:
        added |= {name: values for name, values in _column_coords(dataset).items() if name in missing}
    return dataset.assign_coords(added) if added else dataset


def _column_coords(dataset: xr.Dataset) -> dict[str, Any]:
    """Coordinates of columns, from u and v or else of a full lattice; none where these do not tell."""
    n_columns = dataset.sizes["column"]
    if {"u", "v"} <= set(dataset.coords):
        u, v = dataset["u"], dataset["v"]
        if u.dims != ("column",) or v.dims != ("column",) or not {u.dtype.kind, v.dtype.kind} <= set("iu"):
            return {}
        x, y = hexgrid.positions(u.values, v.values)
        coords: dict[str, Any] = {"x_column": ("column", x), "y_column": ("column", y)}
        extent = int(np.abs([u.values, v.values, u.values + v.values]).max(initial=0))
        place = hexgrid.column_index(u.values, v.values, extent)
        return {**coords, "column": place} if hexgrid.n_columns(extent) == n_columns else coords
    if {"u", "v"} & set(dataset.coords) or not is_lattice_size(n_columns):
        return {}
    coords = hexgrid.column_coords(hexgrid.extent_of(n_columns))
    labels = dataset["column"].values if "column" in dataset.coords else coords["column"][1]
    return coords if np.array_equal(labels, coords["column"][1]) else {}


def is_lattice_size(n_columns: int) -> bool:
    """Whether so many columns fill a lattice of extent 1 or more.

    Examples
    --------
    >>> is_lattice_size(721), is_lattice_size(720), is_lattice_size(1)
    (True, False, False)
    """
    extent = round((max(12 * n_columns - 3, 0) ** 0.5 - 3) / 6)
    return extent > 0 and hexgrid.n_columns(extent) == n_columns


def _top_left_first(dataset: xr.Dataset) -> xr.Dataset:
    """Sort pixels by their labels, rows downward and columns to the right, so that position and label agree.

    Integers count pixels, downward as the schema says. Other labels of rows may point upward: the attribute
    ``positive`` says ``"up"`` or ``"down"``. Rows whose labels decrease without it are left as they are.
    """
    for dim in ("y", "x"):
        if dim in dataset.indexes and dataset.indexes[dim].dtype.kind in "iuf" and not points_either_way(dataset, dim):
            labels, is_upward = dataset.indexes[dim], dataset[dim].attrs.get("positive") == "up"
            if not (labels.is_monotonic_decreasing if is_upward else labels.is_monotonic_increasing):
                dataset = dataset.sortby(dim, ascending=not is_upward)
    return dataset


def points_either_way(dataset: xr.Dataset, dim: str) -> bool:
    """Whether labels of rows decrease without saying whether they point upward.

    Examples
    --------
    >>> points_either_way(xr.Dataset(coords={"y": [10.0, 0.0, -10.0]}), "y")
    True
    """
    labels = dataset.indexes.get(dim, pd.Index([]))
    is_decreasing = labels.size > 1 and labels.dtype.kind == "f" and labels.is_monotonic_decreasing
    return dim == "y" and is_decreasing and "positive" not in dataset[dim].attrs
