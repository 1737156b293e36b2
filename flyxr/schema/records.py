"""The records of the schema: dims, coordinates, variables, kinds of Datasets, stimuli and measures, declared once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


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
    """One kind of Dataset: what it must hold and what it may hold.

    A dim in ``squeezable`` may be selected away, and then counts as length one.
    """

    name: str
    description: str
    variables: tuple[Variable, ...]
    coords: tuple[str, ...]
    optional: tuple[str, ...] = ()
    squeezable: tuple[str, ...] = ()
    whole_lattice: bool = True


@dataclass(frozen=True)
class Stimulus:
    """A stimulus that measures need: functions in ``fx.stimuli`` and the coordinate on ``sample`` that tells it."""

    name: str
    functions: tuple[str, ...]
    coordinate: str

    def __str__(self) -> str:
        return f"{self.name} (fx.stimuli.{', '.join(self.functions)})"


@dataclass(frozen=True)
class Measure:
    """A measure of responses: a function of ``fx.tuning``, the stimulus it needs (None: any), and its variables.

    ``compared`` is the variable of ``fx.tuning.known_tuning`` that the first variable is compared with, and the
    comparison: ``correlation`` or ``angular_distance``. A summary has the measures of its stimulus that are not over
    ``sample``. Measures with ``varied`` are in it if one of these coordinates has several values.
    """

    function: str
    stimulus: Stimulus | None
    variables: tuple[Variable, ...]
    compared: tuple[str, str] | None = None
    varied: tuple[str, ...] = ()


DIMS: Mapping[str, str] = {
    "sample": "one stimulus sequence; stimulus parameters are coords on it",
    "time": "time since stimulus onset in s, with a uniform step",
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
    "n_clusters": "number of Gaussians in the mixture",
    "intensity": "luminance of the stimulus",
    "angle": "direction of motion",
    "t_stim": "duration of the stimulus",
}

KIND_ATTR = "flyxr_dataset"
"""Attribute that names the kind of a Dataset, e.g. ``"responses"``."""

DIM_SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "sample": ("samples", "trial", "trials", "sequence", "sequences", "stimulus", "n_samples"),
    "time": ("frame", "frames", "t", "n_frames"),
    "y": ("height", "row", "rows"),
    "x": ("width", "col", "cols"),
    "column": ("columns", "hexal", "hexals", "hex", "hexagon", "hex_pixel", "ommatidium", "ommatidia", "n_hexals"),
    "cell_type": ("cell_types", "type", "types"),
    "model": ("models", "network", "networks", "member"),
}
"""Other names of dims that are common, in lower case."""

_TEXT = "OUT"
_LABEL = "OUTiufbMm"
COORDS: Mapping[str, Variable] = {
    variable.name: variable
    for variable in (
        Variable("sample", ("sample",), _LABEL, "", "stimulus sequence"),
        Variable("time", ("time",), "f", "s", "time since stimulus onset"),
        Variable("column", ("column",), "iu", "", "column"),
        Variable("u", ("column",), "iu", "", "axial coordinate u"),
        Variable("v", ("column",), "iu", "", "axial coordinate v"),
        Variable("x_column", ("column",), "f", "column pitch", "position to the right"),
        Variable("y_column", ("column",), "f", "column pitch", "position upward"),
        Variable("cell_type", ("cell_type",), _TEXT, "", "cell type"),
        Variable("model", ("model",), _LABEL, "", "ensemble member, rank by task error where it is known"),
        Variable("model_name", ("model",), _TEXT, "", "name of the model"),
        Variable("task_error", ("model",), "f", "a.u.", "validation error of the task; NaN where unknown"),
        Variable("perturbation", ("model",), _TEXT, "", "perturbation of the model, or none"),
        Variable("unperturbed", ("model",), _LABEL, "", "label of the unperturbed model"),
        Variable("pair", ("pair",), "iu", "", "pair of cell types"),
        Variable("source", ("pair",), _TEXT, "", "source cell type"),
        Variable("target", ("pair",), _TEXT, "", "target cell type"),
        Variable("synapse", ("synapse",), "iu", "", "columnar offset of a pair"),
        Variable("synapse_pair", ("synapse",), "iu", "", "pair that a columnar offset belongs to"),
        Variable("du", ("synapse",), "iu", "columns", "u of the target minus u of the source"),
        Variable("dv", ("synapse",), "iu", "columns", "v of the target minus v of the source"),
        Variable("axis", ("axis",), _TEXT, "", "axis of the lattice or of the plane"),
        # parameters of stimuli, where they apply
        Variable("angle", ("sample",), "fiu", "degrees", "direction of motion, 0 to the right, 90 upward"),
        Variable("width", ("sample",), "fiu", "degrees", "width of the bar"),
        Variable("speed", ("sample",), "fiu", "columns/s", "speed of motion, a column being 5.8 degrees"),
        Variable("intensity", ("sample",), "fiu", "1", "luminance of the stimulus"),
        Variable("radius", ("sample",), "fiu", "columns", "radius of the disc, -1 for the whole field"),
        Variable("u_impulse", ("sample",), "fiu", "", "axial coordinate u of the centre of the disc"),
        Variable("v_impulse", ("sample",), "fiu", "", "axial coordinate v of the centre of the disc"),
        Variable("spatial_frequency", ("sample",), "f", "cycles/degree", "spatial frequency of the grating"),
        Variable("temporal_frequency", ("sample",), "f", "Hz", "temporal frequency of the grating"),
        Variable("contrast", ("sample",), "f", "1", "Michelson contrast of the grating"),
        Variable("rotation_speed", ("sample",), "f", "degrees/s", "speed of rotation, counter-clockwise"),
        Variable("expansion_rate", ("sample",), "f", "1/s", "relative rate of expansion; negative for contraction"),
        Variable("motion", ("sample",), _TEXT, "", "kind of motion"),
        Variable("photograph", ("sample",), _TEXT, "", "photograph shown"),
        Variable("crop", ("sample",), "iu", "", "random crop of the photograph"),
        Variable("first_offset", ("sample",), "f", "degrees", "position of edge or bar at time 0, along its direction"),
        Variable("t_stim", ("sample",), "f", "s", "duration of the stimulus proper, from time 0"),
        Variable("t_end", ("sample",), "f", "s", "end of the sample; later frames are padding"),
        Variable("iteration", ("iteration",), "iu", "", "step of an optimisation"),
        Variable("start_sample", ("model",), _LABEL, "", "sample that the optimisation started from"),
        Variable("peak_time", ("model",), "f", "s", "time of the largest response to that sample"),
        Variable("n_clusters", ("n_clusters",), "iu", "", "number of Gaussians in the mixture"),
    )
}

CONDITIONS = frozenset(name for name, coord in COORDS.items() if coord.dims == ("sample",)) - {"sample"}
"""Parameters of stimuli, which measures of them may have as dims."""
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
"""Where coordinates of several stimuli are present, the last one counts: impulses have a radius, too."""
MEASURES: tuple[Measure, ...] = (
    Measure(
        "peak_responses",
        MOVING,
        (Variable("peak_response", ("model", "sample", "cell_type"), "f", "a.u.", "largest rectified response"),),
    ),
    Measure(
        "flash_response_index",
        FLASHES,
        (Variable("flash_response_index", _BY_TYPE, "f", "1", "preference for ON (1) or OFF (-1) flashes"),),
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
            Variable("preferred_direction", _BY_CONTRAST, "f", "degrees", "preferred direction of motion"),
            Variable("vector_length", _BY_CONTRAST, "f", "a.u.", "length of the vector sum of peak responses"),
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
        (
            Variable(
                "temporal_receptive_field",
                (*_BY_IMPULSE, "time"),
                "f",
                "a.u.",
                "response to an impulse over time",
            ),
        ),
    ),
    Measure(
        "spatial_receptive_field",
        IMPULSES,
        (
            Variable("spatial_receptive_field", (*_BY_IMPULSE, "column"), "f", "a.u.", "response to each impulse"),
            Variable("field_time", _BY_IMPULSE, "f", "s", "time at which the spatial receptive field is taken"),
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
            "sequences of frames",
            (Variable("luminance", ("sample", "time", "y", "x"), "f", "1", "luminance, 0 dark to 1 bright"),),
            ("sample", "time"),
            squeezable=("sample", "time"),
        ),
        Kind(
            "rendering",
            "luminance that each column of the eye receives",
            (
                _LUMINANCE,
                Variable("flow", ("sample", "time", "column", "axis"), "f", "columns/s", "true optic flow"),
            ),
            ("sample", "time", *_COLUMN_COORDS),
            optional=("flow",),
            squeezable=("sample", "time"),
        ),
        Kind(
            "connectome",
            "cell types and their connections",
            (
                Variable("stride", ("cell_type", "axis"), "iu", "columns", "distance of cells along each axis"),
                Variable("role", ("cell_type",), _TEXT, "", "input, intermediate or output"),
                Variable("sign", ("pair",), "iuf", "", "+1 excitatory, -1 inhibitory"),
                Variable("n_synapses", ("synapse",), "f", "synapses", "mean number of synapses"),
                Variable("filled", ("synapse",), "b", "", "synapse assumed in a gap of a receptive field"),
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
            squeezable=("model",),
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
            squeezable=("model", "sample", "time", "cell_type", "column"),
            whole_lattice=False,
        ),
        Kind(
            "optimal_stimuli",
            "stimulus that drives the central cell of a type most, for each model",
            (
                Variable("luminance", ("model", "time", "column"), "f", "1", "luminance, 0 dark to 1 bright"),
                Variable("response", ("model", "time"), "f", "a.u.", "membrane potential of the cell after the frame"),
                Variable(
                    "start_response",
                    ("model", "time"),
                    "f",
                    "a.u.",
                    "response to the sample that it started from",
                ),
                Variable("loss", ("model", "iteration"), "f", "a.u.", "loss before the step"),
            ),
            (*_MODEL_COORDS, "time", *_COLUMN_COORDS, "iteration", "start_sample", "peak_time"),
            squeezable=("model",),
        ),
        Kind(
            "measures",
            "measures of responses; measures that are not averaged also have the conditions of the stimulus as dims",
            _MEASURED,
            (*_MODEL_COORDS, "cell_type"),
            optional=tuple(variable.name for variable in _MEASURED),
            squeezable=_BY_TYPE,
        ),
        Kind(
            "clusters",
            "models grouped by the responses of each cell type",
            (
                Variable("embedding", ("cell_type", "model", "component"), "f", "1", "UMAP, each axis from 0 to 1"),
                Variable("cluster", ("cell_type", "model"), "i", "", "cluster, best mean task error first; -1: none"),
                Variable("score", ("cell_type", "n_clusters"), "f", "", "criterion of the mixture, lower is better"),
            ),
            (*_MODEL_COORDS, "cell_type", "n_clusters"),
            squeezable=_BY_TYPE,
        ),
    )
}
