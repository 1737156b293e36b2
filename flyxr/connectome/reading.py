"""Reading of connectomes, and the connectomes that this process has opened."""

from __future__ import annotations

import functools
import json
import warnings
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from flyxr import identity, schema
from flyxr.arguments import Arguments
from flyxr.errors import FlyxrError, FlyxrWarning, InputError, MissingError, Problem, raise_problems
from flyxr.optics import EXTENT
from flyxr.paths import local_path

if TYPE_CHECKING:
    from collections.abc import Mapping
    from importlib.resources.abc import Traversable
    from pathlib import Path

    from numpy.typing import NDArray

SINGLE_STRIDE = 1_000_000
"""Stride of a cell type with one cell, in the central column; larger than any lattice."""
_HULL_TOLERANCE = 1e-9
_TYPE_FIELDS = {"cell_type", "u_stride", "v_stride", "role"}
_SYNAPSE_FIELDS = {"source", "target", "du", "dv", "sign", "n_synapses", "filled"}
_opened: dict[str, xr.Dataset] = {}
"""Connectomes that this process has opened, by the hash of their content."""


class ConnectomeError(FlyxrError, ValueError):
    """A connectome is invalid or unknown; the message lists all problems."""


def open_connectome(path: str | Path | None = None, *, extent: int = EXTENT, n_syn_fill: float = 1.0) -> xr.Dataset:
    """Open a connectome.

    Parameters
    ----------
    path
        A directory with the two tables ``cell_types.csv`` (cell_type, u_stride, v_stride, role) and ``synapses.csv``
        (source, target, du, dv, sign, n_synapses, filled), or a ``.json`` file. The default is the connectome of the
        package. A ``.json`` file has the format of flyvis, an object with

        - ``nodes``: list of ``{"name": str, "pattern": ["stride", [u, v]] | ["tile", n] | ["single", _]}``
        - ``edges``: list of ``{"src": str, "tar": str, "alpha": sign, "offsets": [[[du, dv], n_synapses], ...]}``
        - ``input_units`` and ``output_units``: lists of names.
    extent
        Radius of the lattice of columns, at least 1.
    n_syn_fill
        Number of synapses assumed at each gap inside the convex hull of a receptive field.

    Returns
    -------
    Dataset
        A connectome: ``stride`` (cell_type, axis), ``role`` (cell_type), ``sign`` (pair), ``n_synapses``
        (synapse), ``filled`` (synapse). The attributes are ``extent`` and ``connectome``, the hash of its content.
        Within this process, functions find the connectome of an ensemble by that hash.

    Raises
    ------
    MissingError
        A FileNotFoundError. If the path does not exist.
    ConnectomeError
        A ValueError. If the path is not a valid connectome; the message lists all problems.

    Notes
    -----
    Pairs and offsets are in the order of ``flyvis.connectome.ConnectomeFromAvgFilters``, in which the parameters of
    published models are stored.

    Examples
    --------
    >>> connectome = open_connectome()
    >>> dict(connectome.sizes)
    {'cell_type': 65, 'axis': 2, 'pair': 605, 'synapse': 2378}
    """
    arguments = Arguments()
    extent = arguments.integer("extent", extent, least=1, hint=f"the published models have extent={EXTENT}")
    n_syn_fill = arguments.number("n_syn_fill", n_syn_fill, "synapses", least=0)
    arguments.raise_problems()
    if path is None:
        types, synapses = _read_tables(files("flyxr") / "data")
        synapses = _set_filled(synapses, n_syn_fill)
    else:
        path = local_path(path)
        if not path.exists():
            raise MissingError(Problem(f"no connectome at {path}", "give a directory with two tables, or a .json file"))
        if (path / "zarr.json").is_file():
            raise ConnectomeError(Problem(f"{path} is a zarr store", "open it with fx.open and pass it as connectome="))
        if path.is_dir():
            types, synapses = _read_tables(path)
            synapses = _set_filled(synapses, n_syn_fill)
        else:
            types, synapses = _read_json(path, n_syn_fill)
    _check_tables(types, synapses, str(path or "the package's connectome"))
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
    raise_problems(ConnectomeError, f"no valid connectome in {folder}", problems)
    return tables[0], tables[1]


def _set_filled(synapses: pd.DataFrame, n_syn_fill: float) -> pd.DataFrame:
    is_filled = synapses["filled"].astype(int) == 1
    if n_syn_fill <= 0:
        return synapses[~is_filled]
    return synapses.assign(n_synapses=synapses["n_synapses"].where(~is_filled, n_syn_fill))


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
            measured = {(int(du), int(dv)): float(n) for (du, dv), n in edge["offsets"]}
            gaps = _gaps_in_hull(np.array(list(measured))) if n_syn_fill > 0 else []
            for (du, dv), n, filled in (
                *((offset, n, 0) for offset, n in measured.items()),
                *((offset, n_syn_fill, 1) for offset in gaps),
            ):
                rows.append((edge["src"], edge["tar"], du, dv, edge["alpha"], n, filled))
    except (KeyError, TypeError, ValueError, UnicodeDecodeError) as error:
        raise ConnectomeError(
            Problem(
                f"{path} is not a connectome in the JSON format of flyvis: {type(error).__name__}: {error}",
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
    """Find missing offsets inside the convex hull of the given ones, sorted by u, then by v."""
    from scipy.spatial import ConvexHull, QhullError

    if len(offsets) < 3:
        return []
    try:
        planes = ConvexHull(offsets).equations
    except QhullError:  # all on one line: the hull has no interior
        return []
    lowest, highest = offsets.min(axis=0), offsets.max(axis=0)
    u, v = np.mgrid[lowest[0] : highest[0] + 1, lowest[1] : highest[1] + 1]
    grid = np.stack([u.ravel(), v.ravel()], axis=1)
    distance = grid @ planes[:, :2].T + planes[:, 2]
    # Quirk: points on an edge of the hull are inside, except on an edge along u where v is lowest.
    is_open_edge = planes[:, 1] < -1 + _HULL_TOLERANCE
    is_inside = (distance < np.where(is_open_edge, -_HULL_TOLERANCE, _HULL_TOLERANCE)).all(axis=1)
    given = {(int(du), int(dv)) for du, dv in offsets}
    return [(int(du), int(dv)) for du, dv in grid[is_inside] if (int(du), int(dv)) not in given]


def _check_tables(types: pd.DataFrame, synapses: pd.DataFrame, place: str) -> None:
    problems: list[str | Problem] = []
    for table, name, fields in (
        (types, "stride", ["u_stride", "v_stride"]),
        (synapses, "offset", ["du", "dv"]),
        (synapses, "sign", ["sign"]),
        (synapses, "number of synapses", ["n_synapses"]),
    ):
        for field in fields:
            values = pd.to_numeric(table[field], errors="coerce").to_numpy(float)
            is_integer = name != "number of synapses"
            is_invalid = ~np.isfinite(values) | (is_integer & (values != np.round(values)))
            out_of_range = {"stride": values < 1, "sign": np.abs(values) != 1, "number of synapses": values < 0}
            is_invalid |= out_of_range.get(name, False)
            if is_invalid.any():
                value = table[field][is_invalid].iloc[0]
                problems.append(f"{field}: expected a {name} in each row, got {value!r} in row {is_invalid.argmax()}")
    if len(types) == 0 or len(synapses) == 0:
        problems.append(f"expected cell types and synapses, got {len(types)} and {len(synapses)}")
    if types["cell_type"].duplicated().any():
        problems.append(f"duplicate cell types: {types['cell_type'][types['cell_type'].duplicated()].tolist()}")
    unknown = sorted((set(synapses["source"]) | set(synapses["target"])) - set(types["cell_type"]))
    if unknown:
        problems.append(f"expected sources and targets among the cell types, got {unknown}")
    roles = sorted(set(types["role"]) - {"input", "intermediate", "output"})
    if roles:
        problems.append(f"expected roles input, intermediate or output, got {roles}")
    if "input" not in set(types["role"]):
        problems.append("expected at least one cell type with the role input, got none")
    is_duplicate = synapses.duplicated(["source", "target", "du", "dv"])
    if is_duplicate.any():
        first = synapses[is_duplicate].iloc[0].to_dict()
        problems.append(f"{int(is_duplicate.sum())} duplicate columnar offsets, first {first}")
    raise_problems(ConnectomeError, f"no valid connectome in {place}", problems)


def _dataset(types: pd.DataFrame, synapses: pd.DataFrame, extent: int) -> xr.Dataset:
    keys = pd.MultiIndex.from_frame(synapses[["source", "target"]])
    synapse_pair, pairs = pd.factorize(keys)
    # The synapses of a pair are contiguous; pairs are in the order of their first synapse.
    order = np.argsort(synapse_pair, kind="stable")
    synapses, synapse_pair = synapses.iloc[order], synapse_pair[order]
    first = np.unique(synapse_pair, return_index=True)[1]

    def to_text(values: Any) -> NDArray[np.object_]:
        return np.asarray([str(value) for value in values], dtype=object)

    dataset = xr.Dataset(
        {
            "stride": (("cell_type", "axis"), types[["u_stride", "v_stride"]].to_numpy(np.int64)),
            "role": ("cell_type", to_text(types["role"])),
            "sign": ("pair", synapses["sign"].to_numpy(np.int8)[first]),
            "n_synapses": ("synapse", synapses["n_synapses"].to_numpy(np.float64)),
            "filled": ("synapse", synapses["filled"].to_numpy(np.int64).astype(bool)),
        },
        coords={
            "cell_type": to_text(types["cell_type"]),
            "axis": to_text(["u", "v"]),
            "pair": np.arange(len(pairs)),
            "source": ("pair", to_text(pairs.get_level_values(0))),
            "target": ("pair", to_text(pairs.get_level_values(1))),
            "synapse": np.arange(len(synapses)),
            "synapse_pair": ("synapse", synapse_pair.astype(np.int64)),
            "du": ("synapse", synapses["du"].to_numpy(np.int64)),
            "dv": ("synapse", synapses["dv"].to_numpy(np.int64)),
        },
    )
    dataset = schema.annotate(dataset, "connectome").assign_attrs(extent=extent)
    return _register(dataset.assign_attrs(connectome=connectome_hash(dataset)))


def connectome_hash(connectome: xr.Dataset) -> str:
    """Hash the variables that the schema of a connectome lists; the extent and other attributes do not count.

    Examples
    --------
    >>> connectome_hash(open_connectome(extent=5)) == open_connectome().attrs["connectome"]
    True
    """
    kind = schema.KINDS["connectome"]
    sign = connectome["sign"].values
    is_integer = np.array_equal(sign.astype(np.int8), sign)
    names = [*(variable.name for variable in kind.variables), *kind.coords]
    return identity.content_hash(connectome, names, dtypes={"sign": np.int8} if is_integer else None)


def _register(connectome: xr.Dataset) -> xr.Dataset:
    """Remember a connectome, so that functions find it by the hash in the attributes of an ensemble."""
    if connectome.attrs["connectome"] not in _opened:
        _opened[connectome.attrs["connectome"]] = connectome.copy(deep=True)  # the user may modify the original
    return connectome


def find_connectome(
    attrs: Mapping[Any, Any], connectome: xr.Dataset | None = None, *, stacklevel: int = 3
) -> xr.Dataset:
    """Find the connectome of an ensemble, or of data made from it.

    Parameters
    ----------
    attrs
        Attributes of the ensemble: ``connectome``, the hash of its connectome, and ``extent``.
    connectome
        The connectome that the user passed, if any. It is returned even if the hash differs, see :func:`mismatch`.
    stacklevel
        Stack frames up to the caller of the public function, for the warning.

    Returns
    -------
    Dataset
        In memory, with text as objects, and with the hash of its content as the attribute ``connectome``.

    Raises
    ------
    ConnectomeError
        A ValueError. If this process has not opened a connectome with that hash.

    Warns
    -----
    FlyxrWarning
        A UserWarning. If the attributes name no connectome, so that it cannot be checked.

    Examples
    --------
    >>> from flyxr.testing import tiny_connectome
    >>> tiny = tiny_connectome(extent=2)
    >>> find_connectome({"connectome": tiny.attrs["connectome"], "extent": 2}).identical(tiny)
    True
    """
    expected = attrs.get("connectome")
    if connectome is not None:
        result = schema.in_memory(schema.validate(connectome, "connectome"))
        extent = int(result.attrs.get("extent", EXTENT))
        result = _register(result.assign_attrs(connectome=connectome_hash(result), extent=extent))
    elif expected is None or expected == _package_connectome().attrs["connectome"]:
        result = _package_connectome().assign_attrs(extent=int(attrs.get("extent", EXTENT)))
    elif expected in _opened:
        result = _opened[expected].assign_attrs(extent=int(attrs.get("extent", EXTENT)))
    else:
        raise ConnectomeError(
            Problem(
                f"expected the connectome {expected} of the ensemble to be open, got none",
                "open it with fx.open_connectome(path), or pass it as connectome=",
            )
        )
    if expected is None:
        warnings.warn(
            FlyxrWarning(
                Problem(
                    "the ensemble does not name its connectome, which is assumed to be "
                    f"{result.attrs['connectome']}" + (" (the package's)" if connectome is None else ""),
                    "if it is, set ensemble.assign_attrs(connectome=connectome.attrs['connectome'])",
                )
            ),
            stacklevel=stacklevel,
        )
    return result


def mismatch(attrs: Mapping[Any, Any], connectome: xr.Dataset) -> list[str | Problem]:
    """List the problem if an ensemble with these attributes has another connectome."""
    expected, given = attrs.get("connectome"), connectome.attrs["connectome"]
    if expected in (None, given):
        return []
    return [
        Problem(
            f"expected an ensemble of the connectome {given}, got one of {expected}",
            "open the connectome of the models with fx.open_connectome(path) and leave connectome= out",
        )
    ]


@functools.cache
def _package_connectome() -> xr.Dataset:
    return open_connectome()
