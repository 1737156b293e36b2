"""Reading data by cell type and by central cell, and in the order of flyvis's cells."""

from __future__ import annotations

import difflib
import fnmatch
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd
import xarray as xr

from flyxr import hexgrid, schema
from flyxr.connectome import cell_index, cell_presence, find_connectome, open_connectome, tables
from flyxr.errors import FlyxrError, Problem, raise_problems

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


def align_labels(data: Data, like: xr.Dataset | xr.DataArray, name: str) -> Data:
    """Take data at the labels of other data, so that the two go together by label.

    Parameters
    ----------
    data
        What is taken, in the order of the other's labels; it may have more labels than these.
    like
        The other data. A dim that either has without labels goes by position. A label that was selected, as a
        coordinate without a dim, counts like a dim of one label.
    name
        What an error calls the data, such as ``"a norm"``.

    Returns
    -------
    Dataset or DataArray
        What came in at these labels, lazy if it was. Dims that the other data has not stay as they are.

    Raises
    ------
    SchemaError
        If labels are missing or twice there, or dims without labels differ in length; names all of them.

    Examples
    --------
    >>> first = xr.DataArray([1, 2], dims="cell_type", coords={"cell_type": ["Mi1", "L1"]})
    >>> second = xr.DataArray([10, 20, 30], dims="cell_type", coords={"cell_type": ["L1", "L2", "Mi1"]})
    >>> align_labels(second, first, "a norm").values
    array([30, 10])
    >>> align_labels(first, second, "a norm")
    Traceback (most recent call last):
        ...
    flyxr.schema.SchemaError: a norm does not fit:
    - expected a norm with each 'cell_type' of the other data, got one without ['L2']: select common ones with ...
    """
    problems: list[str | Problem] = []
    taken: dict[str, Any] = {}
    for dim in map(str, dict.fromkeys([*data.dims, *like.dims])):
        if not all(dim in array.dims or (dim in array.coords and not array[dim].dims) for array in (data, like)):
            continue
        there, wanted = _labels(data, dim), _labels(like, dim)
        if there is None or wanted is None:
            lengths = data.sizes.get(dim, 1), like.sizes.get(dim, 1)
            if lengths[0] != lengths[1]:
                text = f"expected {name} with {lengths[1]} of the dim '{dim}', which goes by position without labels"
                problems.append(Problem(f"{text}, got {lengths[0]}", "label it in both with .assign_coords"))
        elif not there.is_unique:
            twice = there[there.duplicated()].unique().tolist()
            problems.append(f"expected {name} with each '{dim}' once, got more than one of {_some(twice)}")
        elif len(missing := wanted[there.get_indexer(wanted) < 0].unique()):
            problems.append(
                Problem(
                    f"expected {name} with each '{dim}' of the other data, got one without {_some(missing.tolist())}",
                    f"select common ones with .sel({dim}=...), or make it for all of them",
                )
            )
        elif dim in data.dims:
            places = there.get_indexer(wanted)
            if dim not in like.dims:
                taken[dim] = int(places[0])
            elif not np.array_equal(places, np.arange(len(there))):
                taken[dim] = places
    raise_problems(schema.SchemaError, f"{name} does not fit", problems)
    return data.isel(taken)


def _labels(data: xr.Dataset | xr.DataArray, dim: str) -> pd.Index | None:
    """Labels along a dim, or the one that was selected; None if there are none."""
    if dim in data.dims and dim not in data.indexes:
        return None
    labels: pd.Index = data.indexes[dim] if dim in data.dims else pd.Index([data[dim].item()])
    return labels


def _some(labels: list[Any], most: int = 8) -> str:
    return f"{labels}" if len(labels) <= most else f"{labels[:most]} and {len(labels) - most} more"


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
        text = f"expected the dim 'cell_type', got {tuple(map(str, data.dims))}"
        raise schema.SchemaError(Problem(text, "select before it is dropped"))
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
        text = f"expected the dim 'column' with coordinates u and v, got {tuple(map(str, data.dims))}"
        raise schema.SchemaError(Problem(text, "select the central column before the dim is dropped"))
    middle = np.flatnonzero((data["u"].values == 0) & (data["v"].values == 0))
    if middle.size != 1:
        text = "expected the column u = v = 0, got columns without it"
        raise schema.SchemaError(Problem(text, "record='central' keeps it"))
    return data.isel(column=int(middle[0]))


_GIVE_CONNECTOME = "give the connectome of the data with connectome="


def _of_columns(data: xr.Dataset | xr.DataArray) -> xr.Dataset:
    """The connectome that data state, else the package's, at the extent of the lattice that columns belong to."""
    if not {"u", "v"} <= set(data.coords):
        text = "expected the coordinates u and v on 'column', got none"
        raise schema.SchemaError(Problem(text, "keep them, or give connectome="))
    u, v, column = (np.atleast_1d(data[name].values) for name in ("u", "v", "column"))
    for extent in range(max(1, int(np.abs([u, v, u + v]).max())), LARGEST_EXTENT):
        if "column" not in data.coords or np.array_equal(hexgrid.column_index(u, v, extent), column):
            return _stated(data).assign_attrs(extent=extent)
    text = "expected 'column' in the order u ascending, then v ascending, got another"
    raise schema.SchemaError(Problem(text, "give connectome="))


def _stated(data: xr.Dataset | xr.DataArray) -> xr.Dataset:
    return find_connectome(data.attrs) if "connectome" in data.attrs else open_connectome()


def lattice_columns(data: xr.Dataset | xr.DataArray, n_columns: int) -> tuple[NDArray[np.int64], list[str | Problem]]:
    """Which column of a lattice each along ``column`` is, -1 for none: by u and v, by label, or else by position."""
    extent, labels = hexgrid.extent_of(n_columns), data["column"].values
    if {"u", "v"} <= set(data.coords):
        place = hexgrid.column_index(data["u"].values, data["v"].values, extent)
        wrong = (place != labels) & (place >= 0)
        if "column" in data.coords and wrong.any():
            i = int(wrong.argmax())
            text = (
                f"expected 'column' {place[i]} at u {data['u'].values[i]}, v {data['v'].values[i]} at extent {extent}"
            )
            return place, [
                Problem(f"{text}, got {labels[i]}", "drop the labels that are wrong, of 'column' or of u and v")
            ]
        return place, []
    if "column" not in data.coords and labels.size != n_columns:
        text = f"expected {n_columns} columns, which go by position without labels, got {labels.size}"
        return labels, [Problem(text, "label them with u and v")]
    return np.where((labels >= 0) & (labels < n_columns), labels, -1), []


def _of_neurons(data: xr.Dataset | xr.DataArray) -> xr.Dataset:
    """The connectome that data state, else the package's, at the extent that has these cells, or at the next larger."""
    connectome = _stated(data)
    if "column" in data.coords and data["column"].dims == ("neuron",):
        columns = int(data["column"].max()) + 1
        fits = (extent for extent in range(1, LARGEST_EXTENT) if hexgrid.n_columns(extent) >= columns)
        return connectome.assign_attrs(extent=next(fits, LARGEST_EXTENT))
    labels = data.indexes.get("neuron")
    count = data.sizes["neuron"] if labels is None or labels.dtype.kind not in "iu" else int(labels.max()) + 1
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
        If the cell types or columns are not the connectome's, one is there twice, or the labels of columns are not
        those of their u and v.

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
    cells, extent = cell_index(connectome), connectome.attrs["extent"]
    columns, problems = lattice_columns(data, cells.shape[1])
    types = np.arange(data.sizes["cell_type"])
    if "cell_type" in data.indexes:
        types = connectome.indexes["cell_type"].get_indexer(data.indexes["cell_type"])
    elif types.size != cells.shape[0]:
        text = f"expected {cells.shape[0]} cell types, which go by position without labels, got {types.size}"
        problems.append(Problem(text, "label them"))
    for dim, places in (("cell_type", types), ("column", columns)):
        if (places < 0).any():
            others = _some(data[dim].values[places < 0].tolist())
            text = f"expected each '{dim}' among those of the connectome at extent {extent}, got others: {others}"
            problems.append(Problem(text, _GIVE_CONNECTOME))
        elif np.unique(places).size < places.size:
            twice = data.indexes[dim][pd.Index(places).duplicated()].unique().tolist() if dim in data.indexes else ""
            problems.append(f"expected each '{dim}' once, got more than one of {twice}")
    raise_problems(schema.SchemaError, "the data are not those of cells", problems)
    place = cells[np.ix_(types, columns)].ravel()
    stacked = data.stack(neuron=("cell_type", "column"), create_index=False)
    return stacked.isel(neuron=np.flatnonzero(place >= 0)).assign_coords(neuron=place[place >= 0])


def from_neurons(data: Data, connectome: xr.Dataset | None = None) -> Data:
    """Undo :func:`to_neurons`: cell types and columns as dims of their own, NaN where no cell is.

    Parameters
    ----------
    data
        Anything with the dim ``neuron`` of all cells of a connectome. They are told by the label ``neuron``, the index
        in flyvis's order; without it by the coordinates ``cell_type`` and ``column`` on ``neuron``; without these
        they are in flyvis's order.
    connectome
        The connectome of the data; without it that of the package, at the extent that fits the data.

    Returns
    -------
    Dataset or DataArray
        With the dims ``cell_type`` and ``column`` last.

    Raises
    ------
    SchemaError
        If a cell of the connectome is missing or there twice, or there are others; names them.

    Examples
    --------
    >>> cells = xr.DataArray(np.arange(45669.0), dims="neuron")
    >>> from_neurons(cells).sel(cell_type="Lawf1").count().item()
    123
    """
    if "neuron" not in data.dims:
        raise schema.SchemaError(f"expected the dim 'neuron', got {tuple(map(str, data.dims))}")
    connectome = _of_neurons(data) if connectome is None else schema.validate(connectome, "connectome")
    extent = int(connectome.attrs["extent"])
    present = cell_presence(connectome)
    order = np.argsort(_cells(data, connectome))
    if not np.array_equal(order, np.arange(order.size)):
        data = data.isel(neuron=order)

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


def _cells(data: xr.Dataset | xr.DataArray, connectome: xr.Dataset) -> NDArray[np.int64]:
    """Index in flyvis's order of each along ``neuron``: all of them, each once."""
    cells, names, count = cell_index(connectome), connectome.indexes["cell_type"], data.sizes["neuron"]
    n_cells, problems = int((cells >= 0).sum()), list[str | Problem]()
    labels = data.indexes.get("neuron")
    place = None if labels is None or isinstance(labels, pd.MultiIndex) else labels.to_numpy()
    if all(name in data.coords and data[name].dims == ("neuron",) for name in ("cell_type", "column")):
        types, columns = names.get_indexer(pd.Index(data["cell_type"].values)), data["column"].values
        inside = (types >= 0) & (columns >= 0) & (columns < cells.shape[1])
        named = np.where(inside, cells[types, np.where(inside, columns, 0)], -1)
        place = named if place is None else place
        if (place != named).any():
            i = int(np.flatnonzero(place != named)[0])
            cell = f"{data['cell_type'].values[i]} in column {columns[i]}"
            problems.append(
                Problem(f"expected {cell} as neuron {named[i]}, got {place[i]}", "drop the labels that are wrong")
            )
    unlabelled = place is None
    place = np.arange(count) if place is None else place
    missing, twice = np.setdiff1d(np.arange(n_cells), place), pd.Index(place).duplicated()
    others = ~np.isin(place, np.arange(n_cells))
    if missing.size or twice.any() or others.any():
        text = f"expected the dim 'neuron' with the {n_cells} cells of the connectome at extent "
        text += f"{connectome.attrs['extent']}, got {count}"
        if missing.size and not unlabelled:
            where = [np.argwhere(cells == cell)[0] for cell in missing[:3]]
            text += f", without {', '.join(f'{names[kind]} in column {column}' for kind, column in where)}"
            text += f" and {missing.size - 3} more" if missing.size > 3 else ""
        if (twice & ~others).any():
            text += f", with more than one of {_some(np.unique(place[twice & ~others]).tolist())}"
        if others.any() and not unlabelled:
            text += f", with {int(others.sum())} others"
        problems.append(Problem(text, _GIVE_CONNECTOME))
    raise_problems(schema.SchemaError, "the neurons are not those of the connectome", problems)
    return place
