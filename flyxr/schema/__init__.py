"""Names of dims and variables, declared once, and the check that a Dataset follows them.

The records validate what enters a public function, write ``long_name`` and ``units``, and print the schema page
(``python -m flyxr.schema``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from flyxr.errors import FlyxrError, Problem, raise_problems
from flyxr.schema.completion import Squeeze, complete, flatten_labels, is_lattice_size, load_coords, points_either_way
from flyxr.schema.problems import (
    WAYS_TO_MAKE,
    column_problems,
    format_dims,
    kind_with_article,
    luminance_problems,
    missing_coords,
    other_kind_problems,
    rename_hint,
    repeated_labels,
    time_problems,
    variable_problems,
    which_way_up,
)
from flyxr.schema.records import (
    CONDITIONS,
    COORDS,
    DIM_SYNONYMS,
    DIMS,
    FLASHES,
    IMPULSES,
    KIND_ATTR,
    KINDS,
    MEASURES,
    MOVING,
    STIMULI,
    Kind,
    Measure,
    Stimulus,
    Variable,
)

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "COORDS",
    "DIMS",
    "DIM_SYNONYMS",
    "FLASHES",
    "IMPULSES",
    "KINDS",
    "KIND_ATTR",
    "MEASURES",
    "MOVING",
    "STIMULI",
    "Kind",
    "Measure",
    "SchemaError",
    "Squeeze",
    "Stimulus",
    "Variable",
    "annotate",
    "as_dataset",
    "complete",
    "expand",
    "flatten_labels",
    "frames_to_end",
    "in_memory",
    "is_lattice_size",
    "kind_of",
    "kind_with_article",
    "load_coords",
    "luminance_problems",
    "page",
    "rename_hint",
    "stimulus_kind",
    "time_coord",
    "time_step",
    "validate",
]


class SchemaError(FlyxrError, ValueError):
    """A Dataset does not follow the schema; the message lists everything that is wrong."""


def as_dataset(data: xr.Dataset | xr.DataArray, kind: str) -> xr.Dataset:
    """Promote a DataArray to a one-variable Dataset; a Dataset passes through.

    Examples
    --------
    >>> list(as_dataset(xr.DataArray([0.5], dims="column"), "rendering"))
    ['luminance']
    """
    if isinstance(data, xr.Dataset):
        return data
    main = KINDS[kind].variables[0].name
    if isinstance(data, xr.DataArray):
        return data.drop_vars(main, errors="ignore").to_dataset(name=main)
    raise SchemaError(
        Problem(
            f"expected {kind_with_article(kind)} (an xarray Dataset with '{main}'), got {type(data).__name__}",
            WAYS_TO_MAKE.get(
                kind, f"build it with flyxr or open it with fx.open(path); its dims are {KINDS[kind].variables[0].dims}"
            ),
        )
    )


def validate(data: xr.Dataset | xr.DataArray, kind: str, *, integer_luminance: bool = False) -> xr.Dataset:
    """Complete a Dataset and check names, dims, dtypes, lengths, time and columns; values are not looked at.

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
        The same data with dims in the order of the schema. Missing coordinates that have one possible value are filled
        in, dims that were selected away have length one (:func:`expand` removes them from a result again), and
        coordinates are in memory. No variable is computed.

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
    return expand(data, kind, integer_luminance=integer_luminance)[0]


def expand(
    data: xr.Dataset | xr.DataArray, kind: str, *, integer_luminance: bool = False
) -> tuple[xr.Dataset, Squeeze]:
    """Validate data that may lack dims that were selected away, for a function whose result lacks them too.

    Parameters, errors and the Dataset are those of :func:`validate`.

    Returns
    -------
    dataset : Dataset
        With all dims of the schema.
    squeeze : Squeeze
        ``squeeze(result)`` removes the dims that the data did not have.

    Examples
    --------
    >>> luminance = xr.DataArray(np.zeros((2, 7)), {"time": [0.0, 0.01]}, ("time", "column"))
    >>> rendering, squeeze = expand(luminance, "rendering")
    >>> rendering.luminance.dims, squeeze(rendering).luminance.dims
    (('sample', 'time', 'column'), ('time', 'column'))
    """
    dataset, squeeze = complete(as_dataset(data, kind), kind)
    record = KINDS[kind]
    problems: list[str | Problem] = other_kind_problems(dataset, kind)
    for variable in record.variables if not problems else ():
        if variable.name not in dataset:
            if variable.name not in record.optional:
                present = ", ".join(map(repr, map(str, dataset.data_vars))) or "no variables"
                problems.append(f"expected variable '{variable.name}' {format_dims(variable.dims)}, got {present}")
            continue
        uint8_accepted = integer_luminance and dataset[variable.name].dtype == np.uint8
        free_dims = CONDITIONS if kind == "measures" else frozenset()
        problems += variable_problems(dataset[variable.name], variable, uint8_accepted, free_dims)
    if not problems:
        problems += missing_coords(dataset, record.coords)
    if not problems:
        for name in record.coords:
            problems += variable_problems(dataset[name], COORDS[name], False)
    if not problems:
        if "time" in record.coords:
            problems += time_problems(dataset["time"].values)
        if "column" in record.coords:
            problems += column_problems(dataset, record.whole_lattice)
        if kind == "movie" and points_either_way(dataset, "y"):
            problems.append(which_way_up(dataset["y"].values))
        for name in ("cell_type", "model", "sample", "pair"):
            if name in record.coords and not dataset.indexes[name].is_unique:
                problems.append(repeated_labels(dataset, name))
    raise_problems(SchemaError, f"not {kind_with_article(kind)}", problems)
    order = dict.fromkeys(dim for variable in record.variables for dim in variable.dims)
    return _refresh_step(dataset.transpose(*(dim for dim in order if dim in dataset.dims), ...)), squeeze


def _refresh_step(dataset: xr.Dataset) -> xr.Dataset:
    """Correct the step that is kept beside the time axis, so that it holds if a single frame is selected later."""
    if "time" not in dataset.coords or dataset["time"].dims != ("time",) or dataset.sizes["time"] < 2:
        return dataset
    stated, step = dataset["time"].attrs.get("step"), time_step(dataset)
    if stated is None or stated == step:
        return dataset
    time = dataset["time"].variable.copy(deep=False)
    time.attrs = {**time.attrs, "step": step}
    return dataset.assign_coords(time=time)


def in_memory(dataset: xr.Dataset) -> xr.Dataset:
    """Load a Dataset into memory, with text as objects, as connectomes and ensembles are used.

    Examples
    --------
    >>> lazy = xr.Dataset({"role": ("cell_type", ["input"])}).chunk()
    >>> in_memory(lazy).role.variable._data
    array(['input'], dtype=object)
    """
    loaded = dataset.compute()
    return loaded.assign(
        {name: array.astype(object) for name, array in loaded.variables.items() if array.dtype.kind in "UT"}
    )


def kind_of(dataset: xr.Dataset, path: str | Path = "this Dataset") -> str:
    """Kind of a Dataset, from its attributes.

    Raises
    ------
    SchemaError
        If it names none, or an unknown one.

    Examples
    --------
    >>> kind_of(annotate(xr.Dataset(), "movie"))
    'movie'
    """
    kind = str(dataset.attrs.get(KIND_ATTR, "none"))
    if kind not in KINDS:
        raise SchemaError(f"expected {path} with the attribute {KIND_ATTR!r}, one of {', '.join(KINDS)}, got {kind}")
    return kind


def stimulus_kind(data: object) -> str:
    """Kind of a stimulus, by its dims: a movie has rows and columns of pixels; anything else should be a rendering.

    Examples
    --------
    >>> stimulus_kind(xr.DataArray(np.zeros((2, 3)), dims=("y", "x")))
    'movie'
    """
    is_movie = isinstance(data, (xr.Dataset, xr.DataArray)) and not {"y", "x"}.isdisjoint(data.dims)
    return "movie" if is_movie else "rendering"


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
                f"{format_dims(t_end.dims)} from {float(t_end.min()):g} s",
                "leave out samples that are over before they begin",
            )
        )
    return np.asarray(frames)


def page() -> str:
    """Schema as a markdown page, for people."""
    lines = ["# Dimensions, coordinates and variables", "", "| dim | meaning |", "| --- | --- |"]
    lines += [f"| `{name}` | {text} |" for name, text in DIMS.items()]
    lines += ["", "## Coordinates", "", "| coordinate (dims) | units | meaning |", "| --- | --- | --- |"]
    lines += [f"| `{c.name}` {format_dims(c.dims)} | {c.units} | {c.description} |" for c in COORDS.values()]
    for kind in KINDS.values():
        lines += ["", f"## {kind.name}", "", kind.description[0].upper() + kind.description[1:] + ".", ""]
        lines += ["| variable (dims) | units | meaning |", "| --- | --- | --- |"]
        lines += [f"| `{v.name}` {format_dims(v.dims)} | {v.units} | {v.description} |" for v in kind.variables]
        lines += ["", "Coordinates: " + ", ".join(f"`{name}`" for name in kind.coords) + "."]
        if kind.name == "measures":
            lines += [
                "",
                "| `fx.tuning` | gives | stimulus | compared with | by |",
                "| --- |" + " --- |" * 4,
            ]
            for m in MEASURES:
                gives = ", ".join(f"`{variable.name}`" for variable in m.variables)
                stimulus = f"{m.stimulus}, identified by `{m.stimulus.coordinate}`" if m.stimulus else "any stimulus"
                lines.append(f"| `{m.function}` | {gives} | {stimulus} | {' | '.join(m.compared or ('', ''))} |")
    return "\n".join(lines) + "\n"
