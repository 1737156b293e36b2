"""Names of dims and variables, declared once, and the check that a Dataset follows them.

The records below validate what enters a public function, write ``long_name`` and ``units``, and print the
schema page (``python -m flyxr.schema``).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from flyxr.errors import FlyxrError, Problem, raise_problems

if TYPE_CHECKING:
    from collections.abc import Mapping

KIND_ATTR = "flyxr_dataset"
"""Attribute that names the kind of a Dataset, e.g. ``"responses"``."""

_ROUNDING = 1e-6
_KIND_NAMES = {"f": "float", "i": "int", "u": "int", "b": "bool", "O": "str", "U": "str", "T": "str"}


class SchemaError(FlyxrError, ValueError):
    """A Dataset does not follow the schema; the message lists everything that is wrong."""


@dataclass(frozen=True)
class Variable:
    """One variable or coordinate: its dims in order, numpy dtype kinds, units and a sentence."""

    name: str
    dims: tuple[str, ...]
    kinds: str
    units: str
    description: str


@dataclass(frozen=True)
class Kind:
    """One kind of Dataset: what it must hold and what it may hold."""

    name: str
    description: str
    variables: tuple[Variable, ...]
    coords: tuple[str, ...]
    optional: tuple[str, ...] = ()
    whole_lattice: bool = True


@dataclass(frozen=True)
class Stimulus:
    """What measures are of: its functions in ``fx.stimuli``, and the coordinate on ``sample`` that it is known by."""

    name: str
    functions: tuple[str, ...]
    coordinate: str

    def __str__(self) -> str:
        return f"{self.name} (fx.stimuli.{', '.join(self.functions)})"


@dataclass(frozen=True)
class Measure:
    """A measure of responses: a function of ``fx.tuning``, the stimulus it needs (None: any), and what it gives.

    ``compared`` is the variable of ``fx.tuning.known_tuning`` that the first variable is compared with, and by what:
    ``correlation`` or ``angular_distance``. A summary has the measures of its stimulus that are not over ``sample``,
    those with ``varied`` if one of these coordinates has several values.
    """

    function: str
    stimulus: Stimulus | None
    variables: tuple[Variable, ...]
    compared: tuple[str, str] | None = None
    varied: tuple[str, ...] = ()


DIMS: Mapping[str, str] = {
    "sample": "one stimulus sequence; stimulus parameters are coords on it",
    "time": "s, 0 at stimulus onset, uniform step",
    "y": "row of a movie frame, pixel, downward",
    "x": "column of a movie frame, pixel",
    "column": "hexagonal column, in the order u ascending, then v ascending",
    "cell_type": "cell type, in connectome order",
    "model": "ensemble member",
    "pair": "one (source cell type, target cell type)",
    "synapse": "one columnar offset of a pair",
    "axis": "axis of the lattice, u or v, or of the plane, x or y",
    "iteration": "step of an optimisation",
    "component": "axis of an embedding",
    "n_clusters": "number of Gaussians that was tried",
    "intensity": "luminance of the stimulus",
    "angle": "direction of motion",
    "t_stim": "duration of the stimulus",
}

_TEXT = "OUT"
COORDS: Mapping[str, Variable] = {
    variable.name: variable
    for variable in (
        Variable("sample", ("sample",), "iu", "", "stimulus sequence"),
        Variable("time", ("time",), "f", "s", "time since stimulus onset"),
        Variable("column", ("column",), "iu", "", "column"),
        Variable("u", ("column",), "iu", "", "axial coordinate u"),
        Variable("v", ("column",), "iu", "", "axial coordinate v"),
        Variable("x_column", ("column",), "f", "column pitch", "position to the right"),
        Variable("y_column", ("column",), "f", "column pitch", "position upward"),
        Variable("cell_type", ("cell_type",), _TEXT, "", "cell type"),
        Variable("model", ("model",), "iu", "", "ensemble member, rank by task error where it is known"),
        Variable("model_name", ("model",), _TEXT, "", "name of the model"),
        Variable("task_error", ("model",), "f", "a.u.", "validation error of the task; NaN where unknown"),
        Variable("perturbation", ("model",), _TEXT, "", "what was done to the model, or none"),
        Variable("unperturbed", ("model",), "iu", "", "label of the model that nothing was done to"),
        Variable("pair", ("pair",), "iu", "", "pair of cell types"),
        Variable("source", ("pair",), _TEXT, "", "source cell type"),
        Variable("target", ("pair",), _TEXT, "", "target cell type"),
        Variable("synapse", ("synapse",), "iu", "", "columnar offset of a pair"),
        Variable("synapse_pair", ("synapse",), "iu", "", "the pair a columnar offset belongs to"),
        Variable("du", ("synapse",), "iu", "column", "u of the target minus u of the source"),
        Variable("dv", ("synapse",), "iu", "column", "v of the target minus v of the source"),
        Variable("axis", ("axis",), _TEXT, "", "axis of the lattice or of the plane"),
        # parameters of stimuli, where they apply
        Variable("angle", ("sample",), "fiu", "degree", "direction of motion, 0 to the right, 90 upward"),
        Variable("width", ("sample",), "fiu", "degree", "width of the bar"),
        Variable("speed", ("sample",), "fiu", "column/s", "speed of motion, a column being 5.8 degrees"),
        Variable("intensity", ("sample",), "fiu", "1", "luminance of the stimulus"),
        Variable("radius", ("sample",), "fiu", "column", "radius of the disc, -1 for the whole field"),
        Variable("u_impulse", ("sample",), "fiu", "", "axial coordinate u of the disc's middle"),
        Variable("v_impulse", ("sample",), "fiu", "", "axial coordinate v of the disc's middle"),
        Variable("spatial_frequency", ("sample",), "f", "cycle/degree", "spatial frequency of the grating"),
        Variable("temporal_frequency", ("sample",), "f", "Hz", "temporal frequency of the grating"),
        Variable("contrast", ("sample",), "f", "1", "Michelson contrast of the grating"),
        Variable("rotation_speed", ("sample",), "f", "degree/s", "speed of rotation, counter-clockwise"),
        Variable("expansion_rate", ("sample",), "f", "1/s", "relative rate of expansion; negative for contraction"),
        Variable("motion", ("sample",), _TEXT, "", "kind of motion"),
        Variable("photograph", ("sample",), _TEXT, "", "photograph shown"),
        Variable("crop", ("sample",), "iu", "", "which random place in the photograph"),
        Variable("first_offset", ("sample",), "f", "degree", "place of edge or bar at time 0, along its direction"),
        Variable("t_stim", ("sample",), "f", "s", "duration of the stimulus proper, from time 0"),
        Variable("t_end", ("sample",), "f", "s", "end of the sample; later frames are padding"),
        Variable("iteration", ("iteration",), "iu", "", "step of an optimisation"),
        Variable("start_sample", ("model",), "iu", "", "sample that an optimal stimulus was found from"),
        Variable("peak_time", ("model",), "f", "s", "time of the highest response to the sample it was found from"),
        Variable("n_clusters", ("n_clusters",), "iu", "", "number of Gaussians that was tried"),
    )
}

_COLUMN_COORDS = ("column", "u", "v")
_MODEL_COORDS = ("model", "model_name", "task_error")
_LUMINANCE = Variable("luminance", ("sample", "time", "column"), "f", "1", "luminance, 0 dark to 1 bright")
_BY_TYPE = ("model", "cell_type")
_BY_CONTRAST = (*_BY_TYPE, "intensity")
_BY_IMPULSE = (*_BY_CONTRAST, "t_stim")
FLASHES = Stimulus("flashes", ("flashes",), "radius")
MOVING = Stimulus("moving stimuli", ("moving_edges", "moving_bars", "gratings"), "angle")
IMPULSES = Stimulus("impulses", ("impulses",), "u_impulse")
STIMULI = (FLASHES, MOVING, IMPULSES)
"""Where the coordinates of several are there, the last of them counts: impulses have a radius, too."""
MEASURES: tuple[Measure, ...] = (
    Measure(
        "peak_responses",
        MOVING,
        (Variable("peak_response", ("model", "sample", "cell_type"), "f", "a.u.", "largest rectified response"),),
    ),
    Measure(
        "flash_response_index",
        FLASHES,
        (Variable("flash_response_index", _BY_TYPE, "f", "1", "preference for ON (1) over OFF (-1) flashes"),),
        ("polarity", "correlation"),
    ),
    Measure(
        "direction_selectivity_index",
        MOVING,
        (Variable("direction_selectivity_index", _BY_CONTRAST, "f", "1", "selectivity for a direction, 0 to 1"),),
        ("direction_selective", "correlation"),
    ),
    Measure(
        "preferred_direction",
        MOVING,
        (
            Variable("preferred_direction", _BY_CONTRAST, "f", "degree", "direction of motion that a cell prefers"),
            Variable("vector_length", _BY_CONTRAST, "f", "a.u.", "length of the sum of peak responses as vectors"),
        ),
        ("preferred_direction", "angular_distance"),
    ),
    Measure(
        "tuning_curves",
        MOVING,
        (Variable("tuning_curve", (*_BY_CONTRAST, "angle"), "f", "a.u.", "peak response to each direction of motion"),),
        ("tuning_curve", "correlation"),
    ),
    Measure(
        "temporal_receptive_field",
        IMPULSES,
        (Variable("temporal_receptive_field", (*_BY_IMPULSE, "time"), "f", "a.u.", "course after an impulse"),),
    ),
    Measure(
        "spatial_receptive_field",
        IMPULSES,
        (
            Variable("spatial_receptive_field", (*_BY_IMPULSE, "column"), "f", "a.u.", "response to each impulse"),
            Variable("field_time", _BY_IMPULSE, "f", "s", "when the spatial receptive field was taken"),
        ),
        varied=("u_impulse", "v_impulse"),
    ),
    Measure(
        "response_norm", None, (Variable("response_norm", _BY_TYPE, "f", "a.u.", "root mean square of responses"),)
    ),
)
_MEASURED = tuple(variable for measure in MEASURES for variable in measure.variables)

KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            "movie",
            "sequences of frames, before the eye",
            (Variable("luminance", ("sample", "time", "y", "x"), "f", "1", "luminance, 0 dark to 1 bright"),),
            ("sample", "time"),
        ),
        Kind(
            "rendering",
            "what the columns of the eye receive",
            (
                _LUMINANCE,
                Variable("flow", ("sample", "time", "column", "axis"), "f", "column/s", "true optic flow of the image"),
            ),
            ("sample", "time", *_COLUMN_COORDS),
            optional=("flow",),
        ),
        Kind(
            "connectome",
            "cell types and their connections",
            (
                Variable("stride", ("cell_type", "axis"), "iu", "column", "a cell in each stride-th column"),
                Variable("role", ("cell_type",), _TEXT, "", "input, intermediate or output"),
                Variable("sign", ("pair",), "iuf", "", "+1 excitatory, -1 inhibitory"),
                Variable("n_synapses", ("synapse",), "f", "synapse", "mean number of synapses"),
                Variable("filled", ("synapse",), "b", "", "assumed, in a gap of a receptive field"),
            ),
            ("cell_type", "axis", "pair", "source", "target", "synapse", "synapse_pair", "du", "dv"),
        ),
        Kind(
            "ensemble",
            "free parameters of models",
            (
                Variable("bias", ("model", "cell_type"), "f", "a.u.", "resting potential"),
                Variable("time_constant", ("model", "cell_type"), "f", "s", "membrane time constant"),
                Variable("synapse_strength", ("model", "pair"), "f", "a.u.", "strength of one synapse"),
            ),
            (*_MODEL_COORDS, "cell_type", "pair", "source", "target"),
        ),
        Kind(
            "responses",
            "simulated responses of models to renderings",
            (
                Variable(
                    "response",
                    ("model", "sample", "time", "cell_type", "column"),
                    "f",
                    "a.u.",
                    "membrane potential after the frame; NaN where a cell type has no cell",
                ),
                _LUMINANCE,
            ),
            (*_MODEL_COORDS, "sample", "time", "cell_type", *_COLUMN_COORDS),
            optional=("luminance",),
            whole_lattice=False,
        ),
        Kind(
            "optimal_stimuli",
            "the stimulus that drives the central cell of a type most, for each model",
            (
                Variable("luminance", ("model", "time", "column"), "f", "1", "luminance, 0 dark to 1 bright"),
                Variable("response", ("model", "time"), "f", "a.u.", "membrane potential of the cell after the frame"),
                Variable("start_response", ("model", "time"), "f", "a.u.", "the same to the sample it was found from"),
                Variable("loss", ("model", "iteration"), "f", "a.u.", "loss before the step"),
            ),
            (*_MODEL_COORDS, "time", *_COLUMN_COORDS, "iteration", "start_sample", "peak_time"),
        ),
        Kind(
            "measures",
            "measures of responses; without the average they have the conditions of the stimulus as dims too",
            _MEASURED,
            (*_MODEL_COORDS, "cell_type"),
            optional=tuple(variable.name for variable in _MEASURED),
        ),
        Kind(
            "clusters",
            "models grouped by the responses of a cell type",
            (
                Variable("embedding", ("cell_type", "model", "component"), "f", "1", "UMAP, each axis from 0 to 1"),
                Variable("cluster", ("cell_type", "model"), "i", "", "cluster, best mean task error first; -1: none"),
                Variable("score", ("cell_type", "n_clusters"), "f", "", "criterion of the mixture, lower is better"),
            ),
            (*_MODEL_COORDS, "cell_type", "n_clusters"),
        ),
    )
}


def as_dataset(data: xr.Dataset | xr.DataArray, kind: str) -> xr.Dataset:
    """Take a DataArray for the Dataset whose one variable it is; a Dataset passes through."""
    if isinstance(data, xr.Dataset):
        return data
    main = KINDS[kind].variables[0].name
    if isinstance(data, xr.DataArray):
        return data.to_dataset(name=main)
    raise SchemaError(
        Problem(
            f"expected a {kind} (an xarray Dataset with '{main}'), got {type(data).__name__}",
            "wrap the array with fx.stimuli.from_array(array, frame_rate=...)"
            if kind == "movie"
            else f"build it with flyxr or open it with fx.open(path); its dims are {KINDS[kind].variables[0].dims}",
        )
    )


def validate(data: xr.Dataset | xr.DataArray, kind: str, *, integer_luminance: bool = False) -> xr.Dataset:
    """Check names, dims, dtypes, lengths, time and columns; values are not looked at.

    Parameters
    ----------
    data
        A DataArray counts as the first variable of the kind.
    kind
        A name in :data:`KINDS`.
    integer_luminance
        Also accept ``luminance`` as uint8, which a reader has to scale.

    Returns
    -------
    Dataset
        The same data with dims in the order of the schema; nothing is computed but coordinates that are lazy.

    Raises
    ------
    SchemaError
        One error with a line for each thing that is wrong.

    Examples
    --------
    >>> validate(xr.Dataset(), "rendering")
    Traceback (most recent call last):
        ...
    flyxr.schema.SchemaError: not a rendering:
    - expected variable 'luminance' (sample, time, column), got no variables
    """
    dataset, record = as_dataset(data, kind), KINDS[kind]
    chunked = [name for name in record.coords if name in dataset.coords and dataset[name].chunks is not None]
    dataset = dataset.assign_coords({name: dataset[name].compute() for name in chunked})
    problems = []
    for variable in record.variables:
        if variable.name not in dataset:
            if variable.name not in record.optional:
                present = ", ".join(map(repr, map(str, dataset.data_vars))) or "no variables"
                problems.append(f"expected variable '{variable.name}' {_dims(variable.dims)}, got {present}")
            continue
        uint8_accepted = integer_luminance and dataset[variable.name].dtype == np.uint8
        problems += _check_variable(dataset[variable.name], variable, uint8_accepted)
    if not problems:
        problems += [
            f"expected coordinate '{name}' {_dims(COORDS[name].dims)} ({COORDS[name].description}), got none"
            for name in record.coords
            if name not in dataset.coords
        ]
    if not problems:
        for name in record.coords:
            problems += _check_variable(dataset[name], COORDS[name], False)
        if "time" in record.coords:
            problems += _check_time(dataset["time"].values)
        if "column" in record.coords:
            problems += _check_columns(dataset, record.whole_lattice)
        for name in ("cell_type", "model", "sample", "pair"):
            if name in record.coords and not dataset.indexes[name].is_unique:
                twice = dataset.indexes[name][dataset.indexes[name].duplicated()].unique().tolist()
                problems.append(f"expected each {name} once, got more than one of {twice}")
    raise_problems(SchemaError, f"not a {kind}", problems)
    order = dict.fromkeys(dim for variable in record.variables for dim in variable.dims)
    return dataset.transpose(*(dim for dim in order if dim in dataset.dims), ...)


def _dims(dims: tuple[object, ...]) -> str:
    return f"({', '.join(map(str, dims))})"


def _check_variable(array: xr.DataArray, variable: Variable, uint8_accepted: bool) -> list[str | Problem]:
    problems: list[str | Problem] = []
    if set(array.dims) != set(variable.dims):
        missing = [dim for dim in variable.dims if dim not in array.dims]
        extra = [str(dim) for dim in array.dims if dim not in variable.dims]
        ways = [f"add {dim!r} with .expand_dims" for dim in missing] + [
            f"select one {dim!r} with .isel" for dim in extra
        ]
        problems.append(
            f"expected '{variable.name}' with dims {_dims(variable.dims)}, got {_dims(array.dims)}: {'; '.join(ways)}"
        )
    if array.dtype.kind not in variable.kinds and not uint8_accepted:
        expected = "/".join(dict.fromkeys(_KIND_NAMES[kind] for kind in variable.kinds))
        text = f"expected '{variable.name}' as {expected}, got {array.dtype}"
        if variable.name == "luminance":
            way = "convert it with fx.stimuli.from_array(array, frame_rate=..., rescale=True)"
            problems.append(Problem(text, way, "convert it with --rescale"))
        else:
            problems.append(Problem(text, "convert it with .astype"))
    empty = [str(dim) for dim, length in array.sizes.items() if length == 0]
    if empty:
        problems.append(f"expected at least one of each dim of '{variable.name}', got none along {', '.join(empty)}")
    return problems


def _check_time(time: np.ndarray) -> list[str | Problem]:
    steps = np.diff(time)
    if not np.isfinite(time).all() or (steps <= 0).any():
        return ["expected 'time' finite and increasing, in s, got another order or NaN: sort it with .sortby('time')"]
    if steps.size and not np.allclose(steps, steps.mean(), rtol=1e-3, atol=0):
        return [
            f"expected 'time' with a uniform step, got steps from {steps.min():.6g} s to {steps.max():.6g} s: "
            "interpolate onto a uniform axis with .interp(time=...)"
        ]
    return []


def _check_columns(dataset: xr.Dataset, whole_lattice: bool) -> list[str | Problem]:
    if not whole_lattice:
        return []
    u, v = dataset["u"].values, dataset["v"].values
    extent = int(np.abs([u, v, u + v]).max())
    expected = 1 + 3 * extent * (extent + 1)
    if len(set(zip(u.tolist(), v.tolist(), strict=True))) != expected or u.size != expected:
        return [
            f"expected the {expected} columns of a lattice of extent {extent}, got {u.size}, which fill no lattice: "
            "keep all columns that BoxEye(extent).render gives"
        ]
    if not np.array_equal(np.lexsort((v, u)), np.arange(u.size)):
        return [
            f"expected the {u.size} columns in the order u ascending, then v ascending, got another order: "
            "sort them with .sortby(['u', 'v'])"
        ]
    return []


def luminance_problems(values: np.ndarray) -> list[Problem]:
    """What is wrong with the values of a luminance; an error of rounding beyond 0 or 1 is not.

    Examples
    --------
    >>> luminance_problems(np.array([0.0, 0.5, 1.0]))
    []
    >>> str(luminance_problems(np.array([0.0, 2.0]))[0])
    'expected luminance from 0 to 1, got values from 0 to 2: ... with fx.stimuli.from_array(..., rescale=True)'
    """
    low, high = float(values.min()), float(values.max())
    if low >= -_ROUNDING and high <= 1 + _ROUNDING:
        return []
    finite = values[np.isfinite(values)]
    problems = []
    if finite.size < values.size:
        problems.append(
            Problem(
                f"expected finite luminance, got NaN or infinity in {values.size - finite.size} of {values.size} values",
                "replace them first, e.g. with np.nan_to_num",
            )
        )
    if finite.size and not (finite.min() >= -_ROUNDING and finite.max() <= 1 + _ROUNDING):
        problems.append(
            Problem(
                f"expected luminance from 0 to 1, got values from {finite.min():g} to {finite.max():g}",
                "map them onto 0 to 1 with fx.stimuli.from_array(..., rescale=True)",
                "map them onto 0 to 1 with --rescale",
            )
        )
    return problems


def annotate(dataset: xr.Dataset, kind: str) -> xr.Dataset:
    """Copy of a Dataset with its kind named and ``long_name`` and ``units`` on every variable of the schema.

    Examples
    --------
    >>> annotate(xr.Dataset({"bias": ("cell_type", [0.5])}), "ensemble").bias.attrs["units"]
    'a.u.'
    """
    dataset = dataset.assign_attrs({KIND_ATTR: kind})
    for variable in (*KINDS[kind].variables, *COORDS.values()):
        if variable.name in dataset.variables:
            attrs = {"long_name": variable.description, **({"units": variable.units} if variable.units else {})}
            dataset[variable.name].attrs.update({**attrs, **dataset[variable.name].attrs})
    return dataset


def time_coord(n_frames: int, step: float, start: float = 0.0) -> xr.Variable:
    """Time axis from a start in s, with its step in s kept beside it for the case of one frame.

    Examples
    --------
    >>> time_coord(3, 0.5).values, time_coord(3, 0.5, start=-0.5).values
    (array([0. , 0.5, 1. ]), array([-0.5,  0. ,  0.5]))
    """
    first = start / step
    whole = round(first)
    first = whole if abs(first - whole) < 1e-6 else first  # onset is exactly 0, also where start / step is not whole
    return xr.Variable("time", (np.arange(n_frames) + first) * step, {"step": step})


def time_step(dataset: xr.Dataset) -> float:
    """Step of the time axis in s.

    Raises
    ------
    SchemaError
        If there is one frame only and no ``step`` in the attributes of ``time``.

    Examples
    --------
    >>> time_step(xr.Dataset(coords={"time": [0.0, 0.01, 0.02]}))
    0.01
    """
    time = dataset["time"]
    if time.size > 1:
        mean = float(time[-1] - time[0]) / (time.size - 1)
        stated = float(time.attrs.get("step", mean))
        return stated if np.isclose(stated, mean, rtol=1e-9) else round(mean, 12)
    if "step" not in time.attrs:
        raise SchemaError(
            Problem("expected a time step, got a single frame without one", "set data.time.attrs['step'] in s")
        )
    return float(time.attrs["step"])


def frames_to_end(dataset: xr.Dataset) -> np.ndarray | None:
    """Frames of each sample before its end ``t_end``, (sample,); None where samples are as long as the time axis.

    Raises
    ------
    SchemaError
        If a sample is over before it begins, or ``t_end`` does not lie along ``sample``.

    Examples
    --------
    >>> time = {"time": [0.0, 0.01, 0.02], "sample": [0, 1]}
    >>> frames_to_end(xr.Dataset(coords={**time, "t_end": ("sample", [0.02, 0.03])}))
    array([2, 3])
    """
    if "t_end" not in dataset.coords:
        return None
    step, time, t_end = time_step(dataset), dataset["time"].values, dataset["t_end"]
    frames = (time < np.reshape(t_end.values.astype(float), (-1, 1)) - 1e-6 * step).sum(axis=1)
    if t_end.dims != ("sample",) or not frames.all():
        raise SchemaError(
            Problem(
                f"expected the end 't_end' (sample) of each sample, in s, after the first frame at {time[0]:g} s, got "
                f"{_dims(t_end.dims)} from {float(t_end.min()):g} s",
                "leave out samples that are over before they begin",
            )
        )
    return np.asarray(frames)


def page() -> str:
    """Schema as a markdown page, for people."""
    lines = ["# Dimensions, coordinates and variables", "", "| dim | meaning |", "| --- | --- |"]
    lines += [f"| `{name}` | {text} |" for name, text in DIMS.items()]
    lines += ["", "## Coordinates", "", "| coordinate (dims) | units | meaning |", "| --- | --- | --- |"]
    lines += [f"| `{c.name}` {_dims(c.dims)} | {c.units} | {c.description} |" for c in COORDS.values()]
    for kind in KINDS.values():
        lines += ["", f"## {kind.name}", "", kind.description[0].upper() + kind.description[1:] + ".", ""]
        lines += ["| variable (dims) | units | meaning |", "| --- | --- | --- |"]
        lines += [f"| `{v.name}` {_dims(v.dims)} | {v.units} | {v.description} |" for v in kind.variables]
        lines += ["", "Coordinates: " + ", ".join(f"`{name}`" for name in kind.coords) + "."]
        if kind.name == "measures":
            lines += ["", "| function of `fx.tuning` | gives | of | compared with | by |", "| --- |" + " --- |" * 4]
            for m in MEASURES:
                gives = ", ".join(f"`{variable.name}`" for variable in m.variables)
                of = f"{m.stimulus}, known by `{m.stimulus.coordinate}`" if m.stimulus else "any stimulus"
                lines.append(f"| `{m.function}` | {gives} | {of} | {' | '.join(m.compared or ('', ''))} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(page())
