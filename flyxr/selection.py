"""Reading data by cell type and by central cell, and in the order of flyvis's cells."""

from __future__ import annotations

import difflib
import fnmatch
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import xarray as xr

from flyxr import hexgrid, schema
from flyxr.connectome import cell_index, cell_presence, open_connectome, tables
from flyxr.errors import FlyxrError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

LARGEST_EXTENT = 100
"""Extents that the lattice of data is looked for among."""

Data = TypeVar("Data", xr.Dataset, xr.DataArray)


class UnknownCellTypeError(FlyxrError, KeyError):
    """A cell type that is not there; the message names the nearest that are."""


def match_cell_types(names: str | Iterable[str], available: Sequence[str]) -> list[str]:
    """Cell types that names and glob patterns mean, in the order of the names, each once.

    Raises
    ------
    UnknownCellTypeError
        If names match nothing; all of them are listed with the nearest cell types.

    Examples
    --------
    >>> match_cell_types(["T4*", "L1"], ["L1", "L2", "T4a", "T4b"])
    ['T4a', 'T4b', 'L1']
    """
    found: dict[str, None] = {}
    unknown = []
    for name in [names] if isinstance(names, str) else names:
        matches = [name] if name in available else fnmatch.filter(available, str(name))
        if not matches:
            folded = {str(there).lower(): str(there) for there in available}
            starts = [folded[key] for key in folded if key.startswith(str(name).lower().rstrip("*?"))][:3]
            alike = difflib.get_close_matches(str(name).lower(), list(folded), n=3, cutoff=0.4)
            nearest = dict.fromkeys([*starts, *(folded[key] for key in alike)])
            unknown.append(f"{name!r} (nearest: {', '.join(nearest) or 'none'})")
        found |= dict.fromkeys(matches)
    if unknown:
        raise UnknownCellTypeError(
            Problem(
                f"expected cell types among the {len(available)} there are, got {'; '.join(unknown)}",
                "see data.cell_type.values; patterns such as 'T4*' are allowed",
                "patterns such as 'T4*' are allowed",
            )
        )
    return list(found)


def celltype(data: Data, names: str | Iterable[str]) -> Data:
    """Select cell types.

    Parameters
    ----------
    data
        Anything with the dim ``cell_type``.
    names
        One name, which drops the dim; or a list or a glob pattern such as ``"T4*"``, which keep it.

    Returns
    -------
    Dataset or DataArray
        What came in, at these cell types, lazy if it was.

    Raises
    ------
    UnknownCellTypeError
        If names match nothing; names the nearest cell types.
    SchemaError
        If there is no dim ``cell_type``.

    Examples
    --------
    >>> celltype(open_connectome().stride, "Lawf1").values
    array([3, 2])
    """
    if "cell_type" not in data.dims:
        raise schema.SchemaError(
            f"expected the dim 'cell_type', got {tuple(map(str, data.dims))}: select before it is dropped"
        )
    available = data["cell_type"].values.tolist()
    matches = match_cell_types(names, available)
    if isinstance(names, str) and names in available:
        return data.isel(cell_type=available.index(names))
    return data.isel(cell_type=[available.index(name) for name in matches])


def central(data: Data, names: str | Iterable[str] | None = None) -> Data:
    """Select the central column, u = v = 0, and cell types if they are named.

    Parameters
    ----------
    data
        Anything with the dim ``column`` and its coordinates ``u`` and ``v``.
    names
        Cell types as in :func:`celltype`; without it all.

    Returns
    -------
    Dataset or DataArray
        Without the dim ``column``.

    Raises
    ------
    SchemaError
        If the central column is not there.
    UnknownCellTypeError
        If names match nothing.

    Examples
    --------
    >>> rendering = xr.DataArray(range(7), dims="column", coords=hexgrid.column_coords(1))
    >>> int(central(rendering))
    3
    """
    if names is not None:
        data = celltype(data, names)
    if "column" not in data.dims or not {"u", "v"} <= set(data.coords):
        raise schema.SchemaError(
            f"expected the dim 'column' with coordinates u and v, got {tuple(map(str, data.dims))}: "
            "select the central column before the dim is dropped"
        )
    middle = np.flatnonzero((data["u"].values == 0) & (data["v"].values == 0))
    if middle.size != 1:
        raise schema.SchemaError("expected the column u = v = 0, got columns without it: record='central' keeps it")
    return data.isel(column=int(middle[0]))


def _of_columns(data: xr.Dataset | xr.DataArray) -> xr.Dataset:
    """The package's connectome at the extent of the lattice that columns belong to."""
    if not {"u", "v"} <= set(data.coords):
        raise schema.SchemaError(
            "expected the coordinates u and v on 'column', got none: keep them, or give connectome="
        )
    u, v, column = (np.atleast_1d(data[name].values) for name in ("u", "v", "column"))
    for extent in range(max(1, int(np.abs([u, v, u + v]).max())), LARGEST_EXTENT):
        if np.array_equal(hexgrid.column_index(u, v, extent), column):
            return open_connectome(extent=extent)
    raise schema.SchemaError(
        "expected 'column' in the order u ascending, then v ascending, got another: give connectome="
    )


def _of_neurons(count: int) -> xr.Dataset:
    """The package's connectome at the extent that has a number of cells, or at the next larger."""
    connectome = open_connectome()
    plain = tables(connectome)
    for extent in range(1, LARGEST_EXTENT):
        if cell_presence(plain._replace(extent=extent)).sum() >= count:
            break
    return connectome.assign_attrs(extent=extent)


def to_neurons(data: Data, connectome: xr.Dataset | None = None) -> Data:
    """Flatten cell types and columns into one dim of cells, in flyvis's order.

    Parameters
    ----------
    data
        Anything with the dims ``cell_type`` and ``column``.
    connectome
        The connectome of the data; without it that of the package, at the extent that fits the data.

    Returns
    -------
    Dataset or DataArray
        With the dim ``neuron`` last, 45,669 of them at extent 15, its label the index of the cell in flyvis's
        order; ``cell_type``, ``column``, ``u`` and ``v`` are coordinates on it. Places without a cell are left out.

    Raises
    ------
    SchemaError
        If the cell types or columns are not the connectome's.

    Examples
    --------
    >>> ones = xr.DataArray(np.ones((65, 721)), dims=["cell_type", "column"],
    ...                     coords={"cell_type": open_connectome().cell_type, **hexgrid.column_coords(15)})
    >>> to_neurons(ones).shape
    (45669,)
    """
    missing = [dim for dim in ("cell_type", "column") if dim not in data.dims]
    if missing:
        raise schema.SchemaError(f"expected the dims 'cell_type' and 'column', got none of {missing}")
    connectome = _of_columns(data) if connectome is None else schema.validate(connectome, "connectome")
    cells = cell_index(connectome)
    types = connectome.indexes["cell_type"].get_indexer(data.indexes["cell_type"])
    columns = data["column"].values
    if (types < 0).any() or columns.max() >= cells.shape[1]:
        raise schema.SchemaError(
            f"expected cell types and columns of the connectome at extent {connectome.attrs['extent']}, got others: "
            "give the connectome of the data with connectome="
        )
    place = cells[np.ix_(types, columns)].ravel()
    stacked = data.stack(neuron=("cell_type", "column"), create_index=False)
    return stacked.isel(neuron=np.flatnonzero(place >= 0)).assign_coords(neuron=place[place >= 0])


def from_neurons(data: Data, connectome: xr.Dataset | None = None) -> Data:
    """Undo :func:`to_neurons`: cell types and columns as dims of their own, NaN where no cell is.

    Parameters
    ----------
    data
        Anything with the dim ``neuron`` of all cells of a connectome, in flyvis's order.
    connectome
        The connectome of the data; without it that of the package, at the extent that fits the data.

    Returns
    -------
    Dataset or DataArray
        With the dims ``cell_type`` and ``column`` last.

    Raises
    ------
    SchemaError
        If the number of cells is not the connectome's.

    Examples
    --------
    >>> cells = xr.DataArray(np.arange(45669.0), dims="neuron")
    >>> from_neurons(cells).sel(cell_type="Lawf1").count().item()
    123
    """
    count = data.sizes.get("neuron", 0)
    connectome = _of_neurons(count) if connectome is None else schema.validate(connectome, "connectome")
    extent = int(connectome.attrs["extent"])
    present = cell_presence(connectome)
    if count != present.sum():
        raise schema.SchemaError(
            f"expected the dim 'neuron' with the {present.sum()} cells of the connectome at extent {extent}, "
            f"got {count}: give the connectome of the data with connectome="
        )

    def spread(values: NDArray[np.floating]) -> NDArray[np.floating]:
        dense = np.full((*values.shape[:-1], present.size), np.nan, dtype=np.result_type(values.dtype, np.float32))
        dense[..., present.ravel()] = values
        return dense.reshape(*values.shape[:-1], *present.shape)

    bare = data.drop_vars([name for name in ("neuron", "cell_type", *hexgrid.column_coords(1)) if name in data.coords])
    dense = xr.apply_ufunc(
        spread,
        bare,
        input_core_dims=[["neuron"]],
        output_core_dims=[["cell_type", "column"]],
        dask="parallelized",
        dask_gufunc_kwargs={"output_sizes": {"cell_type": present.shape[0], "column": present.shape[1]}},
        output_dtypes=[np.float32],
        keep_attrs=True,
    )
    coords = {"cell_type": connectome["cell_type"].values, **hexgrid.column_coords(extent)}
    result: Data = dense.assign_coords(coords)
    return result
