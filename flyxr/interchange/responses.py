"""Responses that flyvis computes, as responses of flyxr."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from flyxr import connectome as connectomes
from flyxr import flyvis, hexgrid, provenance, schema
from flyxr.arguments import as_float
from flyxr.errors import Problem, raise_problems
from flyxr.optics import DEGREES_PER_LED, EXTENT, GREY
from flyxr.schema.problems import time_problems
from flyxr.selection import from_neurons

if TYPE_CHECKING:
    from numpy.typing import NDArray

DIMS = ("network_id", "sample", "frame", "neuron")
"""Dims of responses of flyvis; the first two may be selected away."""
STIMULUS_DIMS = ("sample", "frame", "channel", "hex_pixel")
EDGE_WIDTH = 80
"""Width of the bar, in LEDs, as which flyvis shows an edge."""

_NOT_OF_SAMPLES = {"network_id", "network_name", "checkpoints", "channel", "frame", "time"}


class _Cells(NamedTuple):
    """Cells along ``neuron``: their types, their columns in the lattice of the connectome, and the connectome."""

    cell_type: NDArray[np.object_]
    column: NDArray[np.int64]
    connectome: xr.Dataset

    @property
    def extent(self) -> int:
        return int(self.connectome.attrs["extent"])


def from_flyvis(responses: Any, *, connectome: xr.Dataset | None = None) -> xr.Dataset:
    """Convert responses computed by flyvis to responses of flyxr, for its measures and pictures.

    Parameters
    ----------
    responses
        Dataset of flyvis 1.2, from ``EnsembleView.moving_edge_responses()``, ``NetworkView.flash_responses()`` and the
        like, or a selection from it: ``responses`` (network_id, sample, frame, neuron) with the coordinates
        ``cell_type``, ``u`` and ``v`` on ``neuron``, and optionally ``stimulus`` (sample, frame, channel, hex_pixel).
        Any cells: those in the central column, all, or some.
    connectome
        The connectome of the models; default: that of the package, at the extent of the data.

    Returns
    -------
    Dataset
        ``response`` (model, sample, time, cell_type, column), lazy if the responses are, and NaN where they lack a
        cell; ``luminance`` (sample, time, column), if there is a stimulus. ``model`` and ``sample`` are lacking if they
        were selected away. Names of models are kept; task errors are NaN, since flyvis's Dataset has none.

        Parameters of the stimulus get the names and units of flyxr: ``width`` in degrees instead of LEDs, ``t_stim`` of
        flashes and impulses, ``u_impulse`` and ``v_impulse``, ``first_offset`` of edges and bars. If samples differ in
        length, which flyvis pads with NaN, they have ``t_end``, and grey ``luminance`` from then on. Other parameters
        are kept as they are.

    Raises
    ------
    SchemaError
        A ValueError. If variables, dims or coordinates are missing, times are not evenly spaced, or cells are unknown
        or not unique. One error lists all problems.

    Examples
    --------
    >>> cells = {"cell_type": ("neuron", ["L1", "T4c"]), "u": ("neuron", [0, 0]), "v": ("neuron", [0, 0])}
    >>> dataset = xr.Dataset(
    ...     {"responses": (("network_id", "sample", "frame", "neuron"), np.zeros((1, 2, 3, 2), np.float32))},
    ...     coords={"network_id": [0], "time": ("frame", [0.0, 0.01, 0.02]), **cells},
    ... )
    >>> responses = from_flyvis(dataset)
    >>> dict(responses.response.sizes)
    {'model': 1, 'sample': 2, 'time': 3, 'cell_type': 2, 'column': 1}
    >>> responses.assign_coords(task_error=("model", [5.1])).task_error.item()
    5.1
    """
    if not isinstance(responses, xr.Dataset):
        text = f"expected a Dataset of responses from flyvis, got {type(responses).__name__}"
        raise schema.SchemaError(Problem(text, "pass all of what flyvis returns"))
    config = _mapping(responses.attrs.get("config"))
    problems = _structure_problems(responses)
    heading = "not responses of flyvis"
    raise_problems(schema.SchemaError, heading, problems)
    time, cells = _time(responses, config, problems), _cells(responses, connectome, problems)
    raise_problems(schema.SchemaError, heading, problems)
    response = _on_lattice(responses["responses"], cells)
    variables = {"response": response}
    if "stimulus" in responses:
        variables["luminance"] = _luminance(responses["stimulus"], response["column"].values, cells.extent)
    on_lattice = {"cell_type", *hexgrid.column_coords(1)}
    dataset = xr.Dataset({name: array.drop_vars(set(array.coords) - on_lattice) for name, array in variables.items()})
    dataset = dataset.rename({"frame": "time"} | ({"network_id": "model"} if "network_id" in dataset.dims else {}))
    dataset = dataset.assign_coords(
        {"time": time} | _model_coords(responses) | _sample_coords(responses, config, float(time[0]), cells.extent)
    )
    dataset.attrs = {"connectome": connectomes.tables(cells.connectome).digest, "extent": cells.extent}
    dataset = provenance.add(schema.annotate(dataset, "responses"), "from_flyvis", {"config": dict(config)})
    complete, squeeze = schema.expand(dataset, "responses")
    return squeeze(complete)


def _mapping(value: Any) -> Mapping[str, Any]:
    """A configuration among attributes, which is lost in files."""
    return value if isinstance(value, Mapping) else {}


def _structure_problems(data: xr.Dataset) -> list[str | Problem]:
    """Variables, dims and coordinates that are missing."""
    hint = "pass what flyvis 1.2 returns, such as ensemble_view.moving_edge_responses()"
    if "responses" not in data:
        names = ", ".join(map(repr, map(str, data.data_vars))) or "no variables"
        is_ours = "response" in data
        text = f"expected the variable 'responses', got {names}"
        return [Problem(text, "these are responses of flyxr already" if is_ours else hint)]
    problems: list[str | Problem] = []
    dims = tuple(map(str, data["responses"].dims))
    if not {"frame", "neuron"} <= set(dims) <= set(DIMS):
        problems.append(Problem(f"expected the dims {DIMS} of 'responses', got {dims}", hint))
    if data["responses"].dtype.kind != "f":
        problems.append(f"expected 'responses' of floating numbers, got {data['responses'].dtype}")
    for name in ("cell_type", "u", "v"):
        if name not in data.coords or data[name].dims != ("neuron",):
            got = data[name].dims if name in data.coords else "none"
            text = f"expected the coordinate '{name}' on 'neuron', got {got}"
            problems.append(Problem(text, "keep the coordinates of flyvis"))
    if "stimulus" in data:
        stimulus = data["stimulus"]
        dims = tuple(map(str, stimulus.dims))
        if not {"frame", "hex_pixel"} <= set(dims) <= set(STIMULUS_DIMS) or stimulus.sizes.get("channel", 1) != 1:
            sizes = ", ".join(f"{dim}: {length}" for dim, length in stimulus.sizes.items())
            text = f"expected the dims {STIMULUS_DIMS} of 'stimulus', with one channel, got {sizes}"
            problems.append(Problem(text, "drop it with .drop_vars('stimulus')"))
    return problems


def _time(data: xr.Dataset, config: Mapping[str, Any], problems: list[str | Problem]) -> xr.Variable:
    """Time of each frame, s."""
    n_frames, dt = data.sizes["frame"], config.get("dt")
    if "time" not in data.coords or data["time"].dims != ("frame",):
        text = "expected the coordinate 'time' on 'frame', in s, got none"
        problems.append(Problem(text, "assign it: .assign_coords(time=('frame', np.arange(n_frames) * dt - t_pre))"))
        return xr.Variable("time", [])
    values = data["time"].values.astype(np.float64)
    step = as_float(dt) or 0.0
    if n_frames > 1:
        problems += time_problems(values)
        step = float(values[-1] - values[0]) / (n_frames - 1)
    elif not (n_frames and step > 0):
        problems.append(Problem("expected several frames, or a time step, got none", "keep the attribute 'config'"))
    return schema.time_coord(n_frames, step, float(values[0])) if step > 0 else xr.Variable("time", values)


def _cells(data: xr.Dataset, connectome: xr.Dataset | None, problems: list[str | Problem]) -> _Cells:
    """Cells of the responses, with the connectome that has them."""
    cell_type = np.array([_text(name) for name in data["cell_type"].values], dtype=object)
    u, v = (data[name].values for name in ("u", "v"))
    if u.dtype.kind not in "iu" or v.dtype.kind not in "iu":
        problems.append(f"expected whole numbers as 'u' and 'v', got {u.dtype} and {v.dtype}")
        u = v = np.zeros(cell_type.size)
    elif not cell_type.size:
        problems.append("expected cells along 'neuron', got none")
    u, v = u.astype(np.int64), v.astype(np.int64)
    if connectome is None:
        connectome = connectomes.open_connectome().assign_attrs(extent=_extent(data, u, v))
    else:
        connectome = connectomes.find_connectome({"connectome": connectomes.tables(connectome).digest}, connectome)
    extent = int(connectome.attrs["extent"])
    hint = "pass the connectome of the models as connectome="
    column = hexgrid.column_index(u, v, extent)
    if (column < 0).any():
        first = int(np.flatnonzero(column < 0)[0])
        text = f"expected cells in columns within extent {extent}, got {cell_type[first]} at u {u[first]}, v {v[first]}"
        problems.append(Problem(text, hint))
    if unknown := sorted(set(cell_type) - set(connectome["cell_type"].values)):
        text = f"expected cell types of the connectome, got others: {', '.join(unknown[:8])}"
        problems.append(Problem(text, hint))
    is_repeated = pd.MultiIndex.from_arrays([cell_type, u, v]).duplicated()
    if is_repeated.any():
        first = int(is_repeated.argmax())
        text = f"expected each cell once, got {cell_type[first]} at u {u[first]}, v {v[first]} again"
        problems.append(Problem(text, "select each cell once"))
    return _Cells(cell_type, column, connectome)


def _extent(data: xr.Dataset, u: NDArray[np.int64], v: NDArray[np.int64]) -> int:
    """Radius of the lattice: of the models if it is known, else of the stimulus, else of the cells."""
    network = _mapping(data.attrs.get("network_config"))
    configured = _mapping(_mapping(network.get("network", network)).get("connectome")).get("extent")
    if type(configured) is int and 1 <= configured <= flyvis.MAX_EXTENT:
        return configured
    farthest = int(np.abs([u, v, u + v]).max(initial=0))
    n_pixels = data["stimulus"].sizes["hex_pixel"] if "stimulus" in data else 0
    extents = range(max(1, farthest), flyvis.MAX_EXTENT + 1)
    of_stimulus = [extent for extent in extents if hexgrid.n_columns(extent) == n_pixels]
    return of_stimulus[0] if of_stimulus else farthest or EXTENT


def _text(name: Any) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)


def _on_lattice(array: xr.DataArray, cells: _Cells) -> xr.DataArray:
    """Responses with the dims ``cell_type`` and ``column`` last, in the order of the connectome."""
    along_cells = [name for name, coord in array.coords.items() if "neuron" in coord.dims]
    array = array.drop_vars(along_cells)
    n_cells = int(connectomes.cell_presence(cells.connectome).sum())
    if cells.cell_type.size == n_cells:
        array = array.assign_coords(cell_type=("neuron", cells.cell_type), column=("neuron", cells.column))
        return from_neurons(array, cells.connectome)
    index = pd.MultiIndex.from_arrays([cells.cell_type, cells.column], names=["cell_type", "column"])
    unstacked = array.assign_coords(xr.Coordinates.from_pandas_multiindex(index, "neuron")).unstack("neuron")
    present = set(cells.cell_type)
    names = [name for name in cells.connectome["cell_type"].values if name in present]
    columns = np.unique(cells.column)
    lattice = {name: (dim, values[columns]) for name, (dim, values) in hexgrid.column_coords(cells.extent).items()}
    return unstacked.sel(cell_type=names, column=columns).assign_coords({"cell_type": names, **lattice})


def _luminance(stimulus: xr.DataArray, columns: NDArray[np.int64], extent: int) -> xr.DataArray:
    """Luminance in columns; where flyvis has NaN after the end of a sample, grey."""
    position = np.arange(stimulus.sizes["hex_pixel"])
    if {"u_in", "v_in"} <= set(stimulus.coords):
        of_pixels = hexgrid.column_index(stimulus["u_in"].values, stimulus["v_in"].values, extent)
        position = pd.Index(of_pixels).get_indexer(pd.Index(columns)) if pd.Index(of_pixels).is_unique else position[:0]
    else:
        position = columns if position.size == hexgrid.n_columns(extent) else position[:0]
    if position.size != columns.size or (position < 0).any():
        text = f"expected 'stimulus' in each column of the cells once, got {stimulus.sizes['hex_pixel']} hexagons"
        raise schema.SchemaError(Problem(text, "drop it with .drop_vars('stimulus')"))
    stimulus = stimulus.isel(channel=0) if "channel" in stimulus.dims else stimulus
    return stimulus.isel(hex_pixel=position).rename(hex_pixel="column").fillna(GREY).astype(np.float32)


def _model_coords(data: xr.Dataset) -> dict[str, Any]:
    """Labels and names of the models."""
    if "network_id" not in data.dims:
        scalars = {"network_id": "model", "network_name": "model_name"}
        kept = {ours: data[theirs].item() for theirs, ours in scalars.items() if theirs in data.coords}
        return kept | {"task_error": np.nan}
    n_models = data.sizes["network_id"]
    labels = data["network_id"].values if "network_id" in data.coords else np.arange(n_models)
    names = data["network_name"].values if "network_name" in data.coords else labels
    return {
        "model": labels,
        "model_name": ("model", np.array([_text(name) for name in names], dtype=object)),
        "task_error": ("model", np.full(n_models, np.nan)),
    }


def _sample_coords(data: xr.Dataset, config: Mapping[str, Any], start: float, extent: int) -> dict[str, Any]:
    """Parameters of the stimulus, with the names and units of flyxr; ``start`` is the time of the first frame, s."""
    is_selected = "sample" not in data.dims
    dims = () if is_selected else ("sample",)
    given = {
        str(name): coord.values.reshape(-1)
        for name, coord in data.coords.items()
        if coord.dims == dims and name not in _NOT_OF_SAMPLES
    }
    labels = given.pop("sample", np.arange(data.sizes.get("sample", 1)))
    disc = given.pop("coordinate_index", None)
    values: dict[str, Any] = {
        name: pd.Series(list(column)).infer_objects().to_numpy() for name, column in given.items()
    }
    if "t_impulse" in values:
        values["t_stim"] = values.pop("t_impulse")
        values.pop("offset", None)  # numbers the positions of the disc
        if disc is not None:
            u, v = hexgrid.columns(extent)
            centres = [np.asarray(index, dtype=np.int64).ravel() for index in disc]
            values["u_impulse"], values["v_impulse"] = (
                np.array([round(float(axis[index].mean())) for index in centres]) for axis in (u, v)
            )
        if "dot_column_radius" in config:
            values["radius"] = np.full(len(labels), float(config["dot_column_radius"]))
    elif "angle" in values and "speed" in values:
        if "width" in values:
            widths = np.asarray(values.pop("width"), dtype=np.float64)
            values |= {} if (widths == EDGE_WIDTH).all() else {"width": widths * DEGREES_PER_LED}
        if len(config.get("offsets", ())):
            values["first_offset"] = np.full(len(labels), float(config["offsets"][0]) * DEGREES_PER_LED)
        if "t_stim" in values and {"t_pre", "t_post", "dt"} <= set(config):
            t_pre, t_post, dt = (float(config[name]) for name in ("t_pre", "t_post", "dt"))
            n_frames = np.array([int((t_stim + t_pre + t_post) / dt) for t_stim in values["t_stim"].tolist()])
            if np.unique(n_frames).size > 1:
                values["t_end"] = start + n_frames * dt
    elif "radius" in values and "t_stim" in config:
        values["t_stim"] = np.full(len(labels), float(config["t_stim"]))
    if is_selected:
        return {name: value[0] for name, value in values.items()} | {"sample": labels[0]}
    return {"sample": labels} | {name: ("sample", value) for name, value in values.items()}
