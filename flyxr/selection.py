"""Selection by cell type and central cell, alignment by label, and conversion to and from flyvis's order of cells."""

from __future__ import annotations

import difflib
import fnmatch
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd
import xarray as xr

from flyxr import hexgrid, schema
from flyxr.arguments import Arguments, plain_items
from flyxr.connectome import cell_index, cell_presence, find_connectome, open_connectome, tables
from flyxr.errors import FlyxrError, Problem, raise_problems

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

MAX_EXTENT = 100
"""Limit for the extent that is inferred from data."""

Data = TypeVar("Data", xr.Dataset, xr.DataArray)


class UnknownCellTypeError(FlyxrError, KeyError):
    """A cell type is missing; the message names the nearest ones."""


def match_cell_types(names: str | Iterable[str], available: Sequence[str], argument: str = "cell_types") -> list[str]:
    """Cell types that match names and glob patterns, in the order of the names, without duplicates.

    Parameters
    ----------
    names
        One name or anything that iterates over names.
    available
        Cell types to choose from.
    argument
        Name of the argument in error messages.

    Raises
    ------
    InputError
        If these are not names, or there are none.
    UnknownCellTypeError
        If names match nothing; the message lists all of them with the nearest cell types.

    Examples
    --------
    >>> match_cell_types(["T4*", "L1"], ["L1", "L2", "T4a", "T4b"])
    ['T4a', 'T4b', 'L1']
    """
    matched: dict[str, None] = {}
    unknown = []
    arguments = Arguments()
    listed = arguments.names(argument, names)
    arguments.raise_problems()
    for name in listed:
        matches = [name] if name in available else fnmatch.filter(available, name)
        if not matches:
            lower_case = {str(cell_type).lower(): str(cell_type) for cell_type in available}
            with_prefix = [key for key in lower_case if key.startswith(name.lower().rstrip("*?"))][:3]
            similar = difflib.get_close_matches(name.lower(), list(lower_case), n=3, cutoff=0.4)
            nearest = dict.fromkeys(lower_case[key] for key in [*with_prefix, *similar])
            unknown.append(f"{name!r} (nearest: {', '.join(nearest) or 'none'})")
        matched |= dict.fromkeys(matches)
    if unknown:
        raise UnknownCellTypeError(
            Problem(
                f"expected cell types among the {len(available)} available, got {'; '.join(unknown)}",
                "see data.cell_type.values; patterns such as 'T4*' are allowed",
                "patterns such as 'T4*' are allowed",
            )
        )
    return list(matched)


def align_labels(data: Data, like: xr.Dataset | xr.DataArray, name: str) -> Data:
    """Select from data the labels of other data, in their order.

    Parameters
    ----------
    data
        The data to select from; it may have more labels than the other data.
    like
        The other data. A dim that lacks labels in either is matched by position. A scalar coordinate, as left by
        selecting one label, counts as a dim of length one.
    name
        Name of the data in error messages, such as ``"a norm"``.

    Returns
    -------
    Dataset or DataArray
        The data at these labels, lazy if the input is. Dims that the other data lacks are kept.

    Raises
    ------
    SchemaError
        If labels are missing or duplicated, or dims without labels differ in length; lists all problems.

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
    indexers: dict[str, Any] = {}
    for dim in map(str, dict.fromkeys([*data.dims, *like.dims])):
        if not all(dim in array.dims or (dim in array.coords and not array[dim].dims) for array in (data, like)):
            continue
        labels, like_labels = _labels(data, dim), _labels(like, dim)
        if labels is None or like_labels is None:
            length, like_length = data.sizes.get(dim, 1), like.sizes.get(dim, 1)
            if length != like_length:
                text = f"expected {name} with {like_length} of the dim '{dim}', which goes by position without labels"
                problems.append(Problem(f"{text}, got {length}", "label it in both with .assign_coords"))
        elif not labels.is_unique:
            duplicates = labels[labels.duplicated()].unique().tolist()
            problems.append(f"expected {name} with each '{dim}' once, got more than one of {format_labels(duplicates)}")
        elif len(missing := like_labels[labels.get_indexer(like_labels) < 0].unique()):
            problems.append(
                Problem(
                    f"expected {name} with each '{dim}' of the other data, got one without "
                    f"{format_labels(missing.tolist())}",
                    f"select common ones with .sel({dim}=...), or compute it for all of them",
                )
            )
        elif dim in data.dims:
            index = labels.get_indexer(like_labels)
            if dim not in like.dims:
                indexers[dim] = int(index[0])
            elif not np.array_equal(index, np.arange(len(labels))):
                indexers[dim] = index
    raise_problems(schema.SchemaError, f"{name} does not fit", problems)
    return data.isel(indexers)


def _labels(data: xr.Dataset | xr.DataArray, dim: str) -> pd.Index | None:
    """Labels along a dim, or of its scalar coordinate; None if the dim has no labels."""
    if dim in data.dims and dim not in data.indexes:
        return None
    if dim in data.dims:
        labels: pd.Index = data.indexes[dim]
        return labels
    return pd.Index(np.atleast_1d(data[dim].values), tupleize_cols=False)


def format_labels(labels: list[Any], limit: int = 8) -> str:
    """Text of a list of labels, shortened beyond a limit.

    Examples
    --------
    >>> format_labels([1, 2, 3], limit=2)
    '[1, 2] and 1 more'
    """
    return f"{labels}" if len(labels) <= limit else f"{labels[:limit]} and {len(labels) - limit} more"


def celltype(data: Data, names: str | Iterable[str]) -> Data:
    """Select cell types.

    Parameters
    ----------
    data
        Anything with the dim ``cell_type``, or with the label of the type that was selected.
    names
        One name, which drops the dim; or a list or a glob pattern such as ``"T4*"``, which keep it.

    Returns
    -------
    Dataset or DataArray
        The data of these cell types, lazy if the input is.

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
    if "cell_type" not in data.coords:
        text = f"expected the labelled dim 'cell_type', got {tuple(map(str, data.dims))}"
        raise schema.SchemaError(Problem(text, "select cell types before dropping it, or label it"))
    available = np.atleast_1d(data["cell_type"].values).tolist()
    is_one = isinstance(names, str) or getattr(names, "shape", None) == ()
    matches = match_cell_types(names, available, "names")
    if "cell_type" not in data.dims:
        return data
    if is_one and plain_items([names]) == matches:
        return data.isel(cell_type=available.index(matches[0]))
    return data.isel(cell_type=[available.index(name) for name in matches])


def central(data: Data, names: str | Iterable[str] | None = None) -> Data:
    """Select the central column, u = v = 0, and optionally cell types.

    Parameters
    ----------
    data
        Anything with the dim ``column`` and its coordinates ``u`` and ``v``. If the central column is already selected,
        the data are returned.
    names
        Cell types as in :func:`celltype`; default: all.

    Returns
    -------
    Dataset or DataArray
        Without the dim ``column``.

    Raises
    ------
    SchemaError
        If the central column is missing.
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
    if not {"u", "v"} <= set(data.coords):
        text = f"expected the dim 'column' with coordinates u and v, got {tuple(map(str, data.dims))}"
        raise schema.SchemaError(Problem(text, "select the central column before dropping it"))
    is_central = (data["u"].values == 0) & (data["v"].values == 0)
    if is_central.sum() != 1:
        text = "expected the column u = v = 0, got columns without it"
        raise schema.SchemaError(Problem(text, "record it, e.g. with record='central'"))
    return data.isel(column=int(np.argmax(is_central))) if "column" in data.dims else data


CONNECTOME_HINT = "give the connectome of the data with connectome="


def _connectome_from_columns(data: xr.Dataset | xr.DataArray) -> xr.Dataset:
    """Connectome of the data, at the smallest extent that contains its columns under their labels."""
    if not {"u", "v"} <= set(data.coords):
        text = "expected the coordinates u and v on 'column', got none"
        raise schema.SchemaError(Problem(text, "keep them, or give connectome="))
    u, v, column = (np.atleast_1d(data[name].values) for name in ("u", "v", "column"))
    for extent in range(max(1, int(np.abs([u, v, u + v]).max())), MAX_EXTENT):
        if "column" not in data.coords or np.array_equal(hexgrid.column_index(u, v, extent), column):
            return _named_connectome(data).assign_attrs(extent=extent)
    text = "expected 'column' in the order u ascending, then v ascending, got another order"
    raise schema.SchemaError(Problem(text, "give connectome="))


def _named_connectome(data: xr.Dataset | xr.DataArray) -> xr.Dataset:
    """Connectome that the attributes of data name, else that of the package."""
    return find_connectome(data.attrs) if "connectome" in data.attrs else open_connectome()


def lattice_columns(data: xr.Dataset | xr.DataArray, n_columns: int) -> tuple[NDArray[np.int64], list[str | Problem]]:
    """Find the columns of data in a lattice by u and v, else by label, else by position.

    Returns
    -------
    index : (column,) int
        Position in the lattice, -1 for columns outside it.
    problems
        Columns whose label contradicts u and v, or unlabelled columns that do not fill the lattice.
    """
    extent, labels = hexgrid.extent_of(n_columns), data["column"].values
    has_labels, has_axes = "column" in data.coords, {"u", "v"} <= set(data.coords)
    axes = {name: data[name].values for name in ("u", "v") if has_axes}
    index = hexgrid.locate_columns(extent, labels, **axes)
    contradicts = (index != labels) & (index >= 0)
    if has_axes and has_labels and contradicts.any():
        i = int(contradicts.argmax())
        text = f"expected 'column' {index[i]} at u {axes['u'][i]}, v {axes['v'][i]} at extent {extent}, got {labels[i]}"
        return index, [Problem(text, "drop the wrong labels, those of 'column' or u and v")]
    if not has_axes and not has_labels and labels.size != n_columns:
        text = f"expected {n_columns} columns, which go by position without labels, got {labels.size}"
        return index, [Problem(text, "label them with u and v")]
    return index, []


def _connectome_from_neurons(data: xr.Dataset | xr.DataArray) -> xr.Dataset:
    """Connectome of the data, at the smallest extent that contains its cells."""
    connectome = _named_connectome(data)
    if "column" in data.coords and data["column"].dims == ("neuron",):
        n_columns = int(data["column"].max()) + 1
        extents = (extent for extent in range(1, MAX_EXTENT) if hexgrid.n_columns(extent) >= n_columns)
        return connectome.assign_attrs(extent=next(extents, MAX_EXTENT))
    labels = data.indexes.get("neuron")
    n_cells = data.sizes["neuron"] if labels is None or labels.dtype.kind not in "iu" else int(labels.max()) + 1
    connectome_tables = tables(connectome)
    for extent in range(1, MAX_EXTENT):
        if cell_presence(connectome_tables._replace(extent=extent)).sum() >= n_cells:
            break
    return connectome.assign_attrs(extent=extent)


def to_neurons(data: Data, connectome: xr.Dataset | None = None) -> Data:
    """Flatten cell types and columns into one dim of cells, in flyvis's order.

    Parameters
    ----------
    data
        Anything with the dims ``cell_type`` and ``column``. A dim of which one label was selected has length one.
    connectome
        The connectome of the data; default: that of the package, at the extent of the data.

    Returns
    -------
    Dataset or DataArray
        With the dim ``neuron`` last, 45,669 of them at extent 15. Its label is the index of the cell in flyvis's
        order; ``cell_type``, ``column``, ``u`` and ``v`` are coordinates on it. Positions without a cell are dropped.

    Raises
    ------
    SchemaError
        If cell types or columns are unknown to the connectome or duplicated, or the labels of columns contradict u and
        v.

    Examples
    --------
    >>> ones = xr.DataArray(np.ones((65, 721)), dims=["cell_type", "column"],
    ...                     coords={"cell_type": open_connectome().cell_type, **hexgrid.column_coords(15)})
    >>> to_neurons(ones).shape
    (45669,)
    """
    data = _expand_selected(data)
    missing = [dim for dim in ("cell_type", "column") if dim not in data.dims]
    if missing:
        raise schema.SchemaError(f"expected the dims 'cell_type' and 'column', got none of {missing}")
    connectome = _connectome_from_columns(data) if connectome is None else schema.validate(connectome, "connectome")
    cells, extent = cell_index(connectome), connectome.attrs["extent"]
    columns, problems = lattice_columns(data, cells.shape[1])
    types = np.arange(data.sizes["cell_type"])
    if "cell_type" in data.indexes:
        types = connectome.indexes["cell_type"].get_indexer(data.indexes["cell_type"])
    elif types.size != cells.shape[0]:
        text = f"expected {cells.shape[0]} cell types, which go by position without labels, got {types.size}"
        problems.append(Problem(text, "label them"))
    for dim, index in (("cell_type", types), ("column", columns)):
        if (index < 0).any():
            unknown = format_labels(data[dim].values[index < 0].tolist())
            text = f"expected each '{dim}' among those of the connectome at extent {extent}, got others: {unknown}"
            problems.append(Problem(text, CONNECTOME_HINT))
        elif np.unique(index).size < index.size:
            is_duplicate = pd.Index(index).duplicated()
            duplicates = data.indexes[dim][is_duplicate].unique().tolist() if dim in data.indexes else ""
            problems.append(f"expected each '{dim}' once, got more than one of {duplicates}")
    raise_problems(schema.SchemaError, "the data do not fit the cells of the connectome", problems)
    neuron = cells[np.ix_(types, columns)].ravel()
    stacked = data.stack(neuron=("cell_type", "column"), create_index=False)
    return stacked.isel(neuron=np.flatnonzero(neuron >= 0)).assign_coords(neuron=neuron[neuron >= 0])


def _expand_selected(data: Data) -> Data:
    """Give back the dims of cells of which one label was selected."""
    for dim in ("cell_type", "column"):
        if dim in data.dims or dim not in data.coords:
            continue
        names = [name for name, coord in schema.COORDS.items() if coord.dims == (dim,) and name in data.coords]
        values = {name: (dim, [data[name].item()]) for name in names}
        data = data.drop_vars(names).expand_dims(dim).assign_coords(values)
    return data


def from_neurons(data: Data, connectome: xr.Dataset | None = None) -> Data:
    """Undo :func:`to_neurons`: unflatten cells to cell types and columns, NaN where there is no cell.

    Parameters
    ----------
    data
        Anything with the dim ``neuron`` of all cells of a connectome. Cells are identified by the label ``neuron``,
        their index in flyvis's order; else by the coordinates ``cell_type`` and ``column`` on ``neuron``; else by
        position in flyvis's order.
    connectome
        The connectome of the data; default: that of the package, at the extent of the data.

    Returns
    -------
    Dataset or DataArray
        With the dims ``cell_type`` and ``column`` last.

    Raises
    ------
    SchemaError
        If a cell of the connectome is missing or duplicated, or there are other cells; names them.

    Examples
    --------
    >>> cells = xr.DataArray(np.arange(45669.0), dims="neuron")
    >>> from_neurons(cells).sel(cell_type="Lawf1").count().item()
    123
    """
    if "neuron" not in data.dims:
        raise schema.SchemaError(f"expected the dim 'neuron', got {tuple(map(str, data.dims))}")
    connectome = _connectome_from_neurons(data) if connectome is None else schema.validate(connectome, "connectome")
    extent = int(connectome.attrs["extent"])
    is_present = cell_presence(connectome)
    order = np.argsort(_cell_order(data, connectome))
    if not np.array_equal(order, np.arange(order.size)):
        data = data.isel(neuron=order)

    def unflatten(values: NDArray[np.floating]) -> NDArray[np.floating]:
        dense = np.full((*values.shape[:-1], is_present.size), np.nan, dtype=np.result_type(values.dtype, np.float32))
        dense[..., is_present.ravel()] = values
        return dense.reshape(*values.shape[:-1], *is_present.shape)

    cell_coords = [name for name in ("neuron", "cell_type", *hexgrid.column_coords(1)) if name in data.coords]
    dense = xr.apply_ufunc(
        unflatten,
        data.drop_vars(cell_coords),
        input_core_dims=[["neuron"]],
        output_core_dims=[["cell_type", "column"]],
        dask="parallelized",
        dask_gufunc_kwargs={"output_sizes": {"cell_type": is_present.shape[0], "column": is_present.shape[1]}},
        output_dtypes=[np.float32],
        keep_attrs=True,
    )
    coords = {"cell_type": connectome["cell_type"].values, **hexgrid.column_coords(extent)}
    result: Data = dense.assign_coords(coords)
    return result


def _cell_order(data: xr.Dataset | xr.DataArray, connectome: xr.Dataset) -> NDArray[np.int64]:
    """Index in flyvis's order of each cell along ``neuron``; raises unless each cell is there once."""
    cells, names, n_given = cell_index(connectome), connectome.indexes["cell_type"], data.sizes["neuron"]
    n_cells, problems = int((cells >= 0).sum()), list[str | Problem]()
    labels = data.indexes.get("neuron")
    neuron = None if labels is None or isinstance(labels, pd.MultiIndex) else labels.to_numpy()
    if all(name in data.coords and data[name].dims == ("neuron",) for name in ("cell_type", "column")):
        types, columns = names.get_indexer(pd.Index(data["cell_type"].values)), data["column"].values
        is_inside = (types >= 0) & (columns >= 0) & (columns < cells.shape[1])
        from_coords = np.where(is_inside, cells[types, np.where(is_inside, columns, 0)], -1)
        neuron = from_coords if neuron is None else neuron
        if (neuron != from_coords).any():
            i = int(np.flatnonzero(neuron != from_coords)[0])
            cell = f"{data['cell_type'].values[i]} in column {columns[i]}"
            text = f"expected {cell} as neuron {from_coords[i]}, got {neuron[i]}"
            problems.append(Problem(text, "drop the wrong labels"))
    has_labels = neuron is not None
    neuron = np.arange(n_given) if neuron is None else neuron
    missing, is_duplicate = np.setdiff1d(np.arange(n_cells), neuron), pd.Index(neuron).duplicated()
    is_unknown = ~np.isin(neuron, np.arange(n_cells))
    if missing.size or is_duplicate.any() or is_unknown.any():
        text = f"expected the dim 'neuron' with the {n_cells} cells of the connectome at extent "
        text += f"{connectome.attrs['extent']}, got {n_given}"
        if missing.size and has_labels:
            type_and_column = [np.argwhere(cells == cell)[0] for cell in missing[:3]]
            text += f", without {', '.join(f'{names[row]} in column {column}' for row, column in type_and_column)}"
            text += f" and {missing.size - 3} more" if missing.size > 3 else ""
        if (is_duplicate & ~is_unknown).any():
            duplicates = np.unique(neuron[is_duplicate & ~is_unknown]).tolist()
            text += f", with more than one of {format_labels(duplicates)}"
        if is_unknown.any() and has_labels:
            text += f", with {int(is_unknown.sum())} others"
        problems.append(Problem(text, CONNECTOME_HINT))
    raise_problems(schema.SchemaError, "the neurons do not match those of the connectome", problems)
    return neuron
