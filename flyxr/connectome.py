"""Cell types and their connections as a Dataset, and their compilation at an extent.

The tables that come with the package are the FIB-25/FIB-19 consensus connectome v2.2 of Lappalainen et al. 2024;
their source is noted in ``flyxr/data/README.md``.
"""

from __future__ import annotations

import functools
import json
import threading
import warnings
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from flyxr import hexgrid, identity, schema
from flyxr.engine.base import Network, Stencil
from flyxr.errors import FlyxrError, FlyxrWarning, InputError, MissingError, Problem, raise_problems

if TYPE_CHECKING:
    from collections.abc import Mapping
    from importlib.resources.abc import Traversable

    from numpy.typing import NDArray

EXTENT = 15
"""Radius of the lattice of the published models."""
SINGLE_STRIDE = 1_000_000
"""Stride of a cell type that has one cell, in the central column: larger than any lattice."""
_HULL_TOLERANCE = 1e-9
_TYPE_FIELDS = {"cell_type", "u_stride", "v_stride", "role"}
_SYNAPSE_FIELDS = {"source", "target", "du", "dv", "sign", "n_synapses", "filled"}
_known: dict[str, xr.Dataset] = {}
"""Connectomes that this process has seen, by the hash of their content."""


class ConnectomeError(FlyxrError, ValueError):
    """A connectome's file cannot be read as one; the message lists everything that is wrong."""


def open_connectome(path: str | Path | None = None, *, extent: int = 15, n_syn_fill: float = 1.0) -> xr.Dataset:
    """Open a connectome.

    Parameters
    ----------
    path
        Without it the connectome of the package. A directory holds the two tables ``cell_types.csv``
        (cell_type, u_stride, v_stride, role) and ``synapses.csv`` (source, target, du, dv, sign, n_synapses,
        filled). A ``.json`` file is in flyvis's form, an object with

        - ``nodes``: list of ``{"name": str, "pattern": ["stride", [u, v]] | ["tile", n] | ["single", _]}``
        - ``edges``: list of ``{"src": str, "tar": str, "alpha": sign, "offsets": [[[du, dv], n_synapses], ...]}``
        - ``input_units`` and ``output_units``: lists of names.
    extent
        Radius of the lattice of columns that models of this connectome have, from 1 up.
    n_syn_fill
        Synapses assumed at each gap inside the convex hull of a receptive field; 0 assumes none.

    Returns
    -------
    Dataset
        A connectome: ``stride`` (cell_type, axis), ``role`` (cell_type), ``sign`` (pair), ``n_synapses``
        (synapse), ``filled`` (synapse). Attributes ``extent`` and ``connectome``, the hash of its content. Functions
        that are given an ensemble of this connectome find it by that hash, as long as the process runs.

    Raises
    ------
    MissingError
        A FileNotFoundError. If there is nothing at the path.
    ConnectomeError
        A ValueError. If what is there is no connectome; everything that is wrong is listed.

    Notes
    -----
    Pairs and offsets stand in the order of ``flyvis.connectome.ConnectomeFromAvgFilters``, which is the order
    that the parameters of published models are stored in.

    Examples
    --------
    >>> connectome = open_connectome()
    >>> dict(connectome.sizes)
    {'cell_type': 65, 'axis': 2, 'pair': 605, 'synapse': 2378}
    """
    if extent < 1:
        raise InputError(f"expected an extent of at least 1, got {extent}: the published models have extent=15")
    if path is None:
        types, synapses = _read_tables(files("flyxr") / "data")
        synapses = _refill(synapses, n_syn_fill)
    else:
        path = Path(path)
        if not path.exists():
            raise MissingError(Problem(f"no connectome at {path}", "give a directory with two tables, or a .json file"))
        if (path / "zarr.json").is_file():
            raise ConnectomeError(Problem(f"{path} is a zarr store", "open it with fx.open and give it as connectome="))
        if path.is_dir():
            types, synapses = _read_tables(path)
            synapses = _refill(synapses, n_syn_fill)
        else:
            types, synapses = _read_json(path, n_syn_fill)
    _check(types, synapses, str(path or "the package's connectome"))
    return _dataset(types, synapses, extent)


def _read_tables(folder: Traversable | Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    tables: list[pd.DataFrame] = []
    problems: list[str | Problem] = []
    for name, fields in (("cell_types.csv", _TYPE_FIELDS), ("synapses.csv", _SYNAPSE_FIELDS)):
        try:
            with (folder / name).open("r", encoding="utf-8") as file:
                table = pd.read_csv(file, keep_default_na=False)
        except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
            problems.append(f"{name}: expected a table, got {error}")
            continue
        if not fields <= set(table.columns):
            problems.append(f"{name}: expected the columns {sorted(fields)}, got {list(table.columns)}")
        tables.append(table)
    raise_problems(ConnectomeError, f"no connectome in {folder}", problems)
    return tables[0], tables[1]


def _refill(synapses: pd.DataFrame, n_syn_fill: float) -> pd.DataFrame:
    assumed = synapses["filled"].astype(int) == 1
    if n_syn_fill <= 0:
        return synapses[~assumed]
    return synapses.assign(n_synapses=synapses["n_synapses"].where(~assumed, n_syn_fill))


def _read_json(path: Path, n_syn_fill: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    try:
        spec = json.loads(path.read_text(encoding="utf-8"))
        role = dict.fromkeys(spec["output_units"], "output") | dict.fromkeys(spec["input_units"], "input")
        types = [
            (node["name"], *_strides(*node["pattern"]), role.get(node["name"], "intermediate"))
            for node in spec["nodes"]
        ]
        rows: list[tuple[Any, ...]] = []
        for edge in spec["edges"]:
            known = {(int(du), int(dv)): float(n) for (du, dv), n in edge["offsets"]}
            gaps = _gaps_in_hull(np.array(list(known))) if n_syn_fill > 0 else []
            for (du, dv), n, filled in (
                *((offset, n, 0) for offset, n in known.items()),
                *((offset, n_syn_fill, 1) for offset in gaps),
            ):
                rows.append((edge["src"], edge["tar"], du, dv, edge["alpha"], n, filled))
    except (KeyError, TypeError, ValueError, UnicodeDecodeError) as error:
        raise ConnectomeError(
            Problem(
                f"{path} is not a connectome in flyvis's JSON form: {type(error).__name__}: {error}",
                "see the docstring of fx.open_connectome for the schema",
            )
        ) from error
    return (
        pd.DataFrame(types, columns=["cell_type", "u_stride", "v_stride", "role"]),
        pd.DataFrame(rows, columns=["source", "target", "du", "dv", "sign", "n_synapses", "filled"]),
    )


def _strides(pattern: str, argument: Any) -> tuple[int, int]:
    if pattern == "stride":
        return int(argument[0]), int(argument[1])
    if pattern == "tile":
        return int(argument), int(argument)
    if pattern == "single":
        return SINGLE_STRIDE, SINGLE_STRIDE
    raise InputError(f"expected a pattern 'stride', 'tile' or 'single', got {pattern!r}")


def _gaps_in_hull(offsets: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Offsets inside the convex hull of known ones that are not known, u ascending, then v ascending."""
    from scipy.spatial import ConvexHull, QhullError

    if len(offsets) < 3:
        return []
    try:
        planes = ConvexHull(offsets).equations
    except QhullError:  # all on one line: the hull has no inside
        return []
    lowest, highest = offsets.min(axis=0), offsets.max(axis=0)
    u, v = np.mgrid[lowest[0] : highest[0] + 1, lowest[1] : highest[1] + 1]
    grid = np.stack([u.ravel(), v.ravel()], axis=1)
    outside = grid @ planes[:, :2].T + planes[:, 2]
    # Quirk: points on the edge of the hull are inside, but not those on an edge along u where v is lowest.
    open_edge = planes[:, 1] < -1 + _HULL_TOLERANCE
    inside = (outside < np.where(open_edge, -_HULL_TOLERANCE, _HULL_TOLERANCE)).all(axis=1)
    known = {(int(du), int(dv)) for du, dv in offsets}
    return [(int(du), int(dv)) for du, dv in grid[inside] if (int(du), int(dv)) not in known]


def _check(types: pd.DataFrame, synapses: pd.DataFrame, where: str) -> None:
    problems: list[str | Problem] = []
    for table, name, fields in (
        (types, "stride", ["u_stride", "v_stride"]),
        (synapses, "offset", ["du", "dv"]),
        (synapses, "sign", ["sign"]),
        (synapses, "number of synapses", ["n_synapses"]),
    ):
        for field in fields:
            values = pd.to_numeric(table[field], errors="coerce").to_numpy(float)
            whole = name != "number of synapses"
            wrong = ~np.isfinite(values) | (whole & (values != np.round(values)))
            wrong |= {"stride": values < 1, "sign": np.abs(values) != 1, "number of synapses": values < 0}.get(
                name, False
            )
            if wrong.any():
                given = table[field][wrong].iloc[0]
                problems.append(f"{field}: expected a {name} in each row, got {given!r} in row {wrong.argmax()}")
    if len(types) == 0 or len(synapses) == 0:
        problems.append(f"expected cell types and synapses, got {len(types)} and {len(synapses)}")
    if types["cell_type"].duplicated().any():
        problems.append(f"cell types named twice: {types['cell_type'][types['cell_type'].duplicated()].tolist()}")
    unknown = sorted((set(synapses["source"]) | set(synapses["target"])) - set(types["cell_type"]))
    if unknown:
        problems.append(f"expected sources and targets among the cell types, got {unknown}")
    roles = sorted(set(types["role"]) - {"input", "intermediate", "output"})
    if roles:
        problems.append(f"expected roles input, intermediate or output, got {roles}")
    if "input" not in set(types["role"]):
        problems.append("expected at least one cell type with the role input, got none")
    twice = synapses.duplicated(["source", "target", "du", "dv"])
    if twice.any():
        problems.append(f"{int(twice.sum())} columnar offsets stand twice, first {synapses[twice].iloc[0].to_dict()}")
    raise_problems(ConnectomeError, f"no connectome in {where}", problems)


def _dataset(types: pd.DataFrame, synapses: pd.DataFrame, extent: int) -> xr.Dataset:
    keys = pd.MultiIndex.from_frame(synapses[["source", "target"]])
    synapse_pair, pairs = pd.factorize(keys)
    # The synapses of a pair follow one another, pairs in the order of their first synapse.
    order = np.argsort(synapse_pair, kind="stable")
    synapses, synapse_pair = synapses.iloc[order], synapse_pair[order]
    first = np.unique(synapse_pair, return_index=True)[1]

    def text(values: Any) -> NDArray[np.object_]:
        return np.asarray([str(value) for value in values], dtype=object)

    dataset = xr.Dataset(
        {
            "stride": (("cell_type", "axis"), types[["u_stride", "v_stride"]].to_numpy(np.int64)),
            "role": ("cell_type", text(types["role"])),
            "sign": ("pair", synapses["sign"].to_numpy(np.int8)[first]),
            "n_synapses": ("synapse", synapses["n_synapses"].to_numpy(np.float64)),
            "filled": ("synapse", synapses["filled"].to_numpy(np.int64).astype(bool)),
        },
        coords={
            "cell_type": text(types["cell_type"]),
            "axis": text(["u", "v"]),
            "pair": np.arange(len(pairs)),
            "source": ("pair", text(pairs.get_level_values(0))),
            "target": ("pair", text(pairs.get_level_values(1))),
            "synapse": np.arange(len(synapses)),
            "synapse_pair": ("synapse", synapse_pair.astype(np.int64)),
            "du": ("synapse", synapses["du"].to_numpy(np.int64)),
            "dv": ("synapse", synapses["dv"].to_numpy(np.int64)),
        },
    )
    named = schema.annotate(dataset, "connectome").assign_attrs(extent=extent)
    return _register(named.assign_attrs(connectome=_content_hash(named)))


def _content_hash(connectome: xr.Dataset) -> str:
    """Hash of what the schema says a connectome is; the extent, and what else is noted with it, do not count."""
    kind = schema.KINDS["connectome"]
    sign = connectome["sign"].values
    whole = np.array_equal(sign.astype(np.int8), sign)
    names = [*(variable.name for variable in kind.variables), *kind.coords]
    return identity.content_hash(connectome, names, dtypes={"sign": np.int8} if whole else None)


def _register(connectome: xr.Dataset) -> xr.Dataset:
    """Let functions find a connectome by the hash that its ensembles state."""
    if connectome.attrs["connectome"] not in _known:
        _known[connectome.attrs["connectome"]] = connectome.copy(deep=True)  # what is done to the user's stays his
    return connectome


def find(attrs: Mapping[Any, Any], connectome: xr.Dataset | None = None, *, stacklevel: int = 3) -> xr.Dataset:
    """Connectome of an ensemble, or of what was made from it: the one that is given, or else the one that it states.

    Parameters
    ----------
    attrs
        Attributes of the ensemble: ``connectome``, the hash of its connectome, and ``extent``.
    connectome
        The connectome that the user gave; that it is the one that is stated is not checked here, see :func:`mismatch`.
    stacklevel
        Frames up to the caller of the public function, for the warning.

    Returns
    -------
    Dataset
        In memory, text as objects, ``connectome`` in its attributes being the hash of what it holds.

    Raises
    ------
    ConnectomeError
        A ValueError. If this process has not seen the connectome that is stated.

    Warns
    -----
    FlyxrWarning
        A UserWarning. If none is stated, so that nobody can tell whether it is the right one.

    Examples
    --------
    >>> from flyxr.testing import tiny_connectome
    >>> tiny = tiny_connectome(extent=2)
    >>> find({"connectome": tiny.attrs["connectome"], "extent": 2}).identical(tiny)
    True
    """
    stated = attrs.get("connectome")
    if connectome is not None:
        found = schema.in_memory(schema.validate(connectome, "connectome"))
        extent = int(found.attrs.get("extent", EXTENT))
        found = _register(found.assign_attrs(connectome=_content_hash(found), extent=extent))
    elif stated is None or stated == _of_package().attrs["connectome"]:
        found = _of_package().assign_attrs(extent=int(attrs.get("extent", EXTENT)))
    elif stated in _known:
        found = _known[stated].assign_attrs(extent=int(attrs.get("extent", EXTENT)))
    else:
        raise ConnectomeError(
            Problem(
                f"expected the connectome {stated} that the ensemble is of, got none",
                "open it with fx.open_connectome(path), or give it as connectome=",
            )
        )
    if stated is None:
        warnings.warn(
            FlyxrWarning(
                Problem(
                    "the ensemble does not say which connectome it is of, and is taken for one of "
                    f"{found.attrs['connectome']}" + (" (the package's)" if connectome is None else ""),
                    "if it is, say so with ensemble.assign_attrs(connectome=connectome.attrs['connectome'])",
                )
            ),
            stacklevel=stacklevel,
        )
    return found


def mismatch(attrs: Mapping[Any, Any], connectome: xr.Dataset) -> list[str | Problem]:
    """What is wrong if an ensemble with these attributes is of another connectome."""
    stated, given = attrs.get("connectome"), connectome.attrs["connectome"]
    if stated in (None, given):
        return []
    return [
        Problem(
            f"expected an ensemble of the connectome {given}, got one of {stated}",
            "open the connectome of the models with fx.open_connectome(path) and leave connectome= out",
        )
    ]


@functools.cache
def _of_package() -> xr.Dataset:
    return open_connectome()


class Tables(NamedTuple):
    """A connectome as small plain arrays, with its hash: what a task carries to a worker."""

    digest: str
    names: tuple[str, ...]
    extent: int
    stride: NDArray[np.int64]
    is_input: NDArray[np.bool_]
    source: NDArray[np.int64]
    target: NDArray[np.int64]
    sign: NDArray[np.int8]
    synapse_pair: NDArray[np.int64]
    offset: NDArray[np.int64]
    n_synapses: NDArray[np.float64]


def tables(connectome: xr.Dataset) -> Tables:
    """Plain arrays of a connectome; (pair,) source and target are positions of cell types.

    Examples
    --------
    >>> tables(open_connectome()).source.shape
    (605,)
    """
    connectome = schema.in_memory(schema.validate(connectome, "connectome"))
    types = pd.Index(connectome["cell_type"].values)
    return Tables(
        digest=_content_hash(connectome),
        names=tuple(connectome["cell_type"].values.tolist()),
        extent=int(connectome.attrs.get("extent", EXTENT)),
        stride=connectome["stride"].values,
        is_input=connectome["role"].values == "input",
        source=types.get_indexer(connectome["source"].values),
        target=types.get_indexer(connectome["target"].values),
        sign=connectome["sign"].values,
        synapse_pair=connectome["synapse_pair"].values,
        offset=np.stack([connectome["du"].values, connectome["dv"].values], axis=1),
        n_synapses=connectome["n_synapses"].values,
    )


_compiled: dict[tuple[str, int], Network] = {}
_compiling = threading.Lock()


def compile_network(connectome: xr.Dataset | Tables) -> Network:
    """Lay a connectome out on its lattice: every cell, and every edge between two cells.

    A process compiles a connectome once and keeps it.

    Parameters
    ----------
    connectome
        A connectome, or its plain arrays.

    Returns
    -------
    Network
        Cells in flyvis's order: types in order, within a type u ascending, then v ascending. Edges in the order
        of the offsets, then of the sources.

    Examples
    --------
    >>> network = compile_network(open_connectome(extent=15))
    >>> network.n_cells, network.source.size, network.pairs.size, network.synapses.size
    (45669, 1513231, 604, 2355)
    """
    plain = connectome if isinstance(connectome, Tables) else tables(connectome)
    with _compiling:
        key = (plain.digest, plain.extent)
        if key not in _compiled:
            _compiled[key] = _compile(plain)
        return _compiled[key]


def cell_presence(connectome: xr.Dataset | Tables) -> NDArray[np.bool_]:
    """Where cells are: (cell_type, column), true where the type has a cell in the column.

    Examples
    --------
    >>> int(cell_presence(open_connectome(extent=15)).sum())
    45669
    """
    plain = connectome if isinstance(connectome, Tables) else tables(connectome)
    u, v = hexgrid.columns(plain.extent)
    on_u, on_v = (coordinate % plain.stride[:, axis, None] == 0 for axis, coordinate in enumerate((u, v)))
    return np.asarray(on_u & on_v)


def cell_index(connectome: xr.Dataset | Tables) -> NDArray[np.int32]:
    """Place of each cell in flyvis's order: (cell_type, column), -1 where the type has no cell in the column.

    Examples
    --------
    >>> int(cell_index(open_connectome(extent=15)).max())
    45668
    """
    present = cell_presence(connectome)
    cell = np.full(present.shape, -1, dtype=np.int32)
    cell[present] = np.arange(present.sum(), dtype=np.int32)
    return cell


def _compile(plain: Tables) -> Network:
    u, v = hexgrid.columns(plain.extent)
    cell = cell_index(plain)
    offsets, offset_of = np.unique(plain.offset, axis=0, return_inverse=True)
    target_column = hexgrid.column_index(u + offsets[:, :1], v + offsets[:, 1:], plain.extent)[offset_of.ravel()]
    source = cell[plain.source[plain.synapse_pair]]  # (synapse, column)
    target = np.take_along_axis(cell[plain.target[plain.synapse_pair]], target_column, axis=1)
    connected = (source >= 0) & (target >= 0) & (target_column >= 0)
    n_edges = connected.sum(axis=1)
    synapses = np.flatnonzero(n_edges)
    pairs, pair = np.unique(plain.synapse_pair[synapses], return_inverse=True)
    signed = (plain.sign[plain.synapse_pair] * plain.n_synapses).astype(np.float32)
    cell_type, column = np.nonzero(cell >= 0)
    return Network(
        cell_type=cell_type.astype(np.int32),
        column=column.astype(np.int32),
        is_input=plain.is_input[cell_type],
        source=source[connected],
        target=target[connected],
        pair=np.repeat(pair.astype(np.int32), n_edges[synapses]),
        signed_synapses=np.repeat(signed[synapses], n_edges[synapses]),
        pairs=pairs,
        synapses=synapses,
        stencil=Stencil(
            source=plain.source[plain.synapse_pair[synapses]],
            target=plain.target[plain.synapse_pair[synapses]],
            offset=plain.offset[synapses],
            pair=pair,
            signed_synapses=signed[synapses],
        ),
        u=u,
        v=v,
    )


def realised(connectome: xr.Dataset) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions of the pairs and of the columnar offsets that connect at least two cells at the extent.

    Returns
    -------
    pairs, synapses : int
        In the order in which flyvis stores the parameters of a model.

    Examples
    --------
    >>> pairs, synapses = realised(open_connectome())
    >>> pairs.size, synapses.size
    (604, 2355)
    """
    network = compile_network(connectome)
    return network.pairs, network.synapses


def mean_synapses(connectome: xr.Dataset) -> NDArray[np.float64]:
    """Mean number of synapses over the edges of each realised pair, (pair,).

    It depends on the extent, since a lattice cuts off the offsets that point out of it.

    Examples
    --------
    >>> float(mean_synapses(open_connectome())[0])
    40.0
    """
    network = compile_network(connectome)
    total = np.bincount(network.pair, np.abs(network.signed_synapses))
    return np.asarray(total / np.bincount(network.pair), dtype=np.float64)
