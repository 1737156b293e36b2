"""Names of dims and variables, declared once, and the check that a Dataset follows them.

The records validate what enters a public function, write ``long_name`` and ``units``, and print the
schema page (``python -m flyxr.schema``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from flyxr.errors import FlyxrError, Problem, raise_problems
from flyxr.schema.records import (
    COORDS,
    DIMS,
    FLASHES,
    IMPULSES,
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
    "Stimulus",
    "Variable",
    "annotate",
    "as_dataset",
    "frames_to_end",
    "in_memory",
    "kind_of",
    "luminance_problems",
    "page",
    "time_coord",
    "time_step",
    "validate",
]

KIND_ATTR = "flyxr_dataset"
"""Attribute that names the kind of a Dataset, e.g. ``"responses"``."""

_ROUNDING = 1e-6
_KIND_NAMES = {"f": "float", "i": "int", "u": "int", "b": "bool", "O": "str", "U": "str", "T": "str"}


class SchemaError(FlyxrError, ValueError):
    """A Dataset does not follow the schema; the message lists everything that is wrong."""


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
    problems: list[str | Problem] = []
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


def in_memory(dataset: xr.Dataset) -> xr.Dataset:
    """The same in memory, and all its text as objects: what connectomes and ensembles are worked with as.

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
        n_wrong = values.size - finite.size
        problems.append(
            Problem(
                f"expected finite luminance, got NaN or infinity in {n_wrong} of {values.size} values",
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


def kind_of(dataset: xr.Dataset, path: str | Path = "this Dataset") -> str:
    """Kind that a Dataset says it is.

    Raises
    ------
    SchemaError
        If it says none, or one that is not known.

    Examples
    --------
    >>> kind_of(annotate(xr.Dataset(), "movie"))
    'movie'
    """
    kind = str(dataset.attrs.get(KIND_ATTR, "none"))
    if kind not in KINDS:
        raise SchemaError(f"expected {path} to say which kind it is, one of {', '.join(KINDS)}, got {kind}")
    return kind


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
