"""Dims, labels and times of the arrays that users bring."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from flyxr import schema
from flyxr.arguments import as_float, as_int
from flyxr.errors import Problem
from flyxr.schema.problems import guess_names, time_problems
from flyxr.stimuli import base

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from flyxr.arguments import Arguments, Duration

CHANNEL = "channel"
"""Dim of the colours of an array."""
COLOURS = {"red": 0, "green": 1, "blue": 2}
"""Position of each colour in arrays without labels."""

_CHANNEL_NAMES = {"channel", "channels", "colour", "colours", "color", "colors", "rgb", "rgba", "band", "bands"}
_OPTIONAL = ("sample", "time")
_TIME_NAMES = ("time", "t")
_STEP_TOLERANCE = 5e-4  # relative; tells 29.97 from 30 frames per second


class Axes(NamedTuple):
    """Names of the axes of an array.

    ``guessed`` maps names of the array that are synonyms to dims. ``is_positional`` says that the axes have no names
    and were matched by position.
    """

    dims: tuple[str, ...]
    guessed: Mapping[str, str]
    is_positional: bool


def name_axes(
    array: Any, expected: tuple[str, ...], given: Any, *, has_colours: bool, problems: list[str | Problem]
) -> Axes | None:
    """Match the axes of an array with dims, by name or else by position.

    Parameters
    ----------
    array
        Any array; only an xarray array has names.
    expected
        Dims of a movie or a rendering.
    given
        Dims by name of the array, or one for each axis; None if the user names none.
    has_colours
        Whether one more axis holds colours.
    problems
        Problems are appended to it.

    Returns
    -------
    Axes
        None if there are problems.

    Examples
    --------
    >>> array = xr.DataArray(np.zeros((4, 2, 7)), dims=("frame", "sample", "column"))
    >>> name_axes(array, ("sample", "time", "column"), None, has_colours=False, problems=[]).dims
    ('time', 'sample', 'column')
    """
    names = _names(array)
    allowed = (*expected, CHANNEL)
    explicit = _explicit_names(names, given, allowed, problems)
    if explicit is None:
        return None
    if not explicit and has_default_names(array):
        dims = _positional_dims(tuple(array.shape), expected, has_colours, problems)
        return Axes(dims, {}, True) if dims else None
    matched = dict(explicit)
    guessed = {}
    for name in (name for name in names if name not in explicit):
        if name in expected:
            matched[name] = name
        elif name.lower() in _CHANNEL_NAMES:
            matched[name] = CHANNEL
        elif (dim := _synonym(name, expected)) is not None:
            matched[name] = guessed[name] = dim
    unmatched = [name for name in names if name not in matched]
    in_place = len(names) == len(expected) and all(
        matched.get(name, dim) == dim for name, dim in zip(names, expected, strict=True)
    )
    if in_place and all(_is_default(name) for name in unmatched):
        matched |= {name: dim for name, dim in zip(names, expected, strict=True) if name in unmatched}
        unmatched = []
    dims = tuple(matched.get(name, name) for name in names)
    required = {dim for dim in expected if dim not in _OPTIONAL}
    if unmatched or len(set(dims)) < len(dims) or not required <= set(dims):
        problems.append(_unmatched_problem(array, names, dims, expected))
        return None
    return Axes(dims, guessed, False)


def _names(array: Any) -> tuple[str, ...]:
    """Names of axes, with those of xarray for an array without."""
    return (
        tuple(map(str, array.dims)) if isinstance(array, xr.DataArray) else tuple(f"dim_{i}" for i in range(array.ndim))
    )


def has_default_names(array: Any) -> bool:
    """Whether no axis of an array has a name of its own.

    Examples
    --------
    >>> has_default_names(np.zeros((2, 3))), has_default_names(xr.DataArray([0], dims="x"))
    (True, False)
    """
    return all(map(_is_default, _names(array)))


def _is_default(name: str) -> bool:
    """Whether a name is one that xarray gives to dims without a name."""
    return re.fullmatch(r"dim_\d+", name) is not None


def _synonym(name: str, expected: tuple[str, ...]) -> str | None:
    dims = [dim for dim in expected if name.lower() == dim or name.lower() in schema.DIM_SYNONYMS.get(dim, ())]
    return dims[0] if len(dims) == 1 else None


def _explicit_names(
    names: tuple[str, ...], given: Any, allowed: tuple[str, ...], problems: list[str | Problem]
) -> dict[str, str] | None:
    """Dims that the user names, by name of the array; None if there are problems."""
    if given is None:
        return {}
    example = "e.g. dims={'frame': 'time'}, or dims=('sample', 'time', ...) with one name for each axis"
    if isinstance(given, Mapping):
        explicit = {str(name): str(dim) for name, dim in given.items()}
    elif isinstance(given, (list, tuple)) and len(given) == len(names):
        explicit = dict(zip(names, map(str, given), strict=True))
    else:
        text = f"expected dims as a mapping, or as a list of {len(names)} names for an array of {len(names)} axes"
        problems.append(Problem(f"{text}, got {given!r}", example))
        return None
    unknown = [name for name in explicit if name not in names]
    other = [dim for dim in explicit.values() if dim not in allowed]
    if unknown:
        own = "no names" if all(map(_is_default, names)) else format_dims(names)
        hint = f"give one name for each axis, e.g. dims={allowed[:-1]}" if own == "no names" else example
        problems.append(Problem(f"expected dims to rename those of the array, got {unknown}, but it has {own}", hint))
    if other:
        problems.append(Problem(f"expected dims out of {format_dims(allowed)}, got {other}", example))
    if len(set(explicit.values())) < len(explicit):
        problems.append(Problem(f"expected each dim once, got {list(explicit.values())}", example))
    return explicit if not unknown and not other and len(set(explicit.values())) == len(explicit) else None


def _positional_dims(
    shape: tuple[int, ...], expected: tuple[str, ...], has_colours: bool, problems: list[str | Problem]
) -> tuple[str, ...] | None:
    """Dims of an array without names; None if its number of dims does not fit."""
    if has_colours:
        dims = {len(expected) + 1: expected, len(expected): expected[1:]}.get(len(shape))
        if dims is not None and shape[-1] in (3, 4):
            return (*dims, CHANNEL)
        text = f"expected colours as 3 or 4 values in the last dim of {format_dims((*expected, CHANNEL))}"
        hint = "leave channel and grey out for grey frames, or name the axes, e.g. dims=('time', 'channel', 'y', 'x')"
        problems.append(Problem(f"{text}, got shape {shape}", hint))
        return None
    if len(shape) == len(expected):
        return expected
    if "column" in expected and len(shape) == len(expected) - 1:
        return expected[1:]
    problems.append(_shape_problem(shape, expected))
    return None


def _shape_problem(shape: tuple[int, ...], expected: tuple[str, ...]) -> Problem:
    text = f"expected {len(expected)} dims {format_dims(expected)}, got {len(shape)} with shape {shape}"
    if "column" in expected:
        return Problem(text, "give (sample, time, column) or (time, column), or name the axes with dims=(...)")
    if len(shape) == 3 and schema.is_lattice_size(shape[-1]):
        return Problem(text, "for columns in the last dim use fx.stimuli.from_columns(array, frame_rate=...)")
    if len(shape) == 5 and shape[-1] in (3, 4):
        return Problem(text, f"the last dim looks like colours: {COLOUR_HINT}")
    hints = {
        2: "for one frame add two dims with array[np.newaxis, np.newaxis]",
        3: "for one sequence of frames add the sample dim with array[np.newaxis]; "
        "for one frame of each sample add the time dim with array[:, np.newaxis]",
        5: "select one sequence or channel, or name the axes with dims=(...)",
    }
    return Problem(text, hints.get(len(shape), "give one number for each sample, frame, row and column"))


COLOUR_HINT = "pass channel='red', 'green', 'blue' or a number for one of them, or grey='luma' for their luminance"


def _unmatched_problem(array: Any, names: tuple[str, ...], dims: tuple[str, ...], expected: tuple[str, ...]) -> Problem:
    """Report names of dims that cannot be matched, or that lack one that is needed."""
    text = f"expected dims {format_dims(expected)}, got {format_dims(names)}"
    is_column = [name for name in names if _synonym(name, ("column",))]
    if "y" in expected and is_column and not {"y", "x"} & set(dims):
        hint = "for columns of the eye use fx.stimuli.from_columns(array, frame_rate=...)"
        return Problem(text, hint)
    if "column" in expected and {"y", "x"} & {_synonym(name, ("y", "x")) for name in names}:
        return Problem(
            text, "for frames of pixels use fx.BoxEye().render(fx.stimuli.from_array(array, frame_rate=...))"
        )
    repeated = sorted({dim for dim in dims if dims.count(dim) > 1})
    if repeated:
        sources = [name for name, dim in zip(names, dims, strict=True) if dim in repeated]
        return Problem(text, f"{sources} mean the same dim: select one of them, or name each with dims={{...}}")
    guess = guess_names(array, expected) if isinstance(array, xr.DataArray) else {}
    if guess:
        return Problem(text, f"pass dims={guess}, if that is what they are")
    missing = [dim for dim in expected if dim not in dims and dim not in _OPTIONAL]
    hints = [f"add {dim!r} with .expand_dims" for dim in missing]
    hints += [f"select one {dim!r} with .isel" for dim in dims if dim not in (*expected, CHANNEL)]
    return Problem(text, "; ".join(hints))


def format_dims(dims: Sequence[Hashable]) -> str:
    """Dims as messages name them.

    Examples
    --------
    >>> format_dims(("y", "x"))
    '(y, x)'
    """
    return f"({', '.join(map(str, dims))})"


def named_coords(array: Any, axes: Axes, problems: list[str | Problem]) -> dict[str, xr.Variable]:
    """Coordinates of an array under the names of the dims; those along colours are left out.

    Integers along a dim of frames, such as ``frame``, count frames and keep their name: they are no times.

    Examples
    --------
    >>> array = xr.DataArray(np.zeros((2, 3)), {"trial": ["a", "b"], "frame": [0, 1, 2]})
    >>> coords = named_coords(array, Axes(("sample", "time"), {}, False), [])
    >>> {name: coord.dims for name, coord in coords.items()}
    {'sample': ('sample',), 'frame': ('time',)}
    """
    if not isinstance(array, xr.DataArray):
        return {}
    stacked = [dim for dim, index in array.indexes.items() if isinstance(index, pd.MultiIndex) and dim in array.dims]
    array = array.reset_index(stacked) if stacked else array
    dims = dict(zip(map(str, array.dims), axes.dims, strict=True))
    coords: dict[str, xr.Variable] = {}
    for original, coord in array.coords.items():
        name = str(original)
        along = tuple(dims[str(dim)] for dim in coord.dims)
        if CHANNEL in along:
            continue
        new_name = dims.get(name, name)
        if new_name != name and (new_name in array.coords or _counts_frames(name, new_name, coord)):
            new_name = name
        if new_name in (*axes.dims, "time", "sample", "luminance") and along not in ((new_name,), ()):
            problems.append(
                f"expected another name for the coordinate {name!r} {format_dims(along)}, which is taken: rename it"
            )
            continue
        values = base.storable(coord.values) if coord.ndim < 2 else coord.data
        coords[new_name] = xr.Variable(along, values, coord.attrs)
    return coords


def original_name(array: Any, axes: Axes | None, dim: str) -> str:
    """Name that an array has for a dim; the dim if it has none."""
    if axes is None or dim not in axes.dims or not isinstance(array, xr.DataArray) or dim in array.coords:
        return dim
    return str(array.dims[axes.dims.index(dim)])


def _counts_frames(name: str, dim: str, labels: xr.DataArray) -> bool:
    return dim == "time" and name.lower() not in _TIME_NAMES and labels.dtype.kind in "iu"


def align_to_samples(name: str, values: Any, array: Any, axes: Axes) -> tuple[np.ndarray, list[str]]:
    """Values of a coordinate of ``sample``, (sample,), matched by label if it and the array have labels.

    Examples
    --------
    >>> array = xr.DataArray(np.zeros((2, 3)), {"trial": ["a", "b"]}, ("trial", "time"))
    >>> angle = xr.DataArray([90, 0], {"trial": ["b", "a"]}, "trial")
    >>> align_to_samples("angle", angle, array, Axes(("sample", "time"), {}, False))
    (array([ 0, 90]), [])
    """
    if not isinstance(values, xr.DataArray) or not isinstance(array, xr.DataArray) or "sample" not in axes.dims:
        return base.storable(values.values if isinstance(values, xr.DataArray) else values), []
    own = array.dims[axes.dims.index("sample")]
    if len(values.dims) != 1 or values.dims[0] not in (own, "sample"):
        return base.storable(values.values), []
    (dim,) = values.dims
    if dim not in values.indexes or own not in array.indexes:
        return base.storable(values.values), []
    labels, sample_labels = values.indexes[dim], array.indexes[own]
    if not labels.is_unique:
        return base.storable(sample_labels), [f"expected each label of {name!r} once, got {labels.tolist()}"]
    positions = labels.get_indexer(sample_labels)
    if (positions < 0).any():
        missing = sample_labels[positions < 0].tolist()
        problem = f"expected {name!r} for each sample of the array, got none for {missing[:8]}"
        return base.storable(sample_labels), [problem]
    return base.storable(values.values[positions]), []


def time_axis(
    labels: xr.Variable | None,
    n_frames: int | None,
    frame_rate: float | None,
    dt: Duration | None,
    arguments: Arguments,
    name: str = "time",
) -> xr.Variable | None:
    """Time of each frame, from the labels of an array, a frame rate or a step, which must agree.

    Parameters
    ----------
    labels
        Times of an array, (time,), or of its one frame, (); None if it has none.
    n_frames
        Number of frames; None for one frame without the dim ``time``.
    frame_rate
        Frames per second.
    dt
        Time between frames, s.
    arguments
        Collects problems.
    name
        Name of the labels in the array.

    Returns
    -------
    Variable
        (time,) or, without the dim, () in s; None if it is unknown, or if there are problems.

    Examples
    --------
    >>> from flyxr.arguments import Arguments
    >>> time_axis(None, 3, None, "20ms", Arguments()).values
    array([0.  , 0.02, 0.04])
    """
    step, stated = _stated_step(frame_rate, dt, arguments)
    if labels is None:
        if step is not None:
            axis = schema.time_coord(n_frames or 1, step)
            return axis if n_frames is not None else axis.squeeze("time")
        if n_frames is not None and not stated:
            text = "expected a positive frame_rate, in frames per second, or dt, in s, got neither"
            arguments.problems.append(Problem(text, "e.g. frame_rate=30", "e.g. --frame-rate 30"))
        return None
    seconds = _as_seconds(labels, arguments.problems, name)
    if seconds is None or (stated and step is None):
        return None
    if step is not None and n_frames is not None and _are_rounded(seconds, step):
        return schema.time_coord(n_frames, step, float(seconds[0]))
    problems = time_problems(np.atleast_1d(seconds))
    arguments.problems += problems
    if problems:
        return None
    own_step = labels.attrs.get("step")
    if seconds.size > 1:
        own_step = schema.time_step(xr.Dataset(coords={"time": seconds}))
    if step is not None and own_step is not None and not _agree(step, own_step):
        arguments.problems.append(
            Problem(
                f"expected {stated} to agree with the times of the array, got frames {own_step:g} s apart, which are "
                f"{1 / own_step:g} frames per second",
                f"leave {stated.partition('=')[0]} out, or leave the times out with array.drop_vars({name!r})",
            )
        )
        return None
    if step is None and own_step is None:
        if n_frames is None:
            return xr.Variable((), seconds[()])
        text = "expected frame_rate or dt for a single frame, whose time does not tell its duration, got neither"
        arguments.problems.append(Problem(text, "e.g. frame_rate=30"))
        return None
    if step is None:
        return xr.Variable(labels.dims, seconds, {"step": own_step})
    axis = schema.time_coord(n_frames or 1, step, float(np.atleast_1d(seconds)[0]))
    return axis if n_frames is not None else axis.squeeze("time")


def _stated_step(frame_rate: float | None, dt: Duration | None, arguments: Arguments) -> tuple[float | None, str]:
    """Time between frames that the user states, None if there is none or it is wrong, and how it was stated."""
    rate = None if frame_rate is None else arguments.frame_rate(frame_rate)
    step = None if dt is None else arguments.duration("dt", dt)
    if rate is None and step is None:
        return None, ""
    stated = f"frame_rate={rate:g}" if rate is not None else f"dt={step:g}"
    if (rate is not None and not rate > 0) or (step is not None and not step > 0):
        return None, stated
    if rate is None:
        return step, stated
    if step is not None and not _agree(step, 1 / rate):
        text = f"expected frame_rate and dt that agree, got {stated} frames per second and dt={step:g} s"
        arguments.problems.append(Problem(text, "give one of them"))
        return None, stated
    return 1 / rate, stated


def _agree(step: float, other: float) -> bool:
    return abs(step / other - 1) < _STEP_TOLERANCE


def _are_rounded(seconds: np.ndarray, step: float) -> bool:
    """Whether times are those of a step, rounded to ms."""
    exact = seconds[0] + np.arange(seconds.size) * step
    return seconds.size > 2 and np.allclose(seconds, exact.round(3), rtol=0, atol=1e-9)


def _as_seconds(labels: xr.Variable, problems: list[str | Problem], name: str) -> np.ndarray | None:
    """Times in s as float64; None for what are no times."""
    values = np.asarray(labels.values)
    if values.dtype.kind == "m":
        seconds = values.astype("timedelta64[ns]").astype(np.int64) / 1e9
        return np.where(np.isnat(values), np.nan, seconds)
    if values.dtype.kind == "f" and values.dtype.itemsize < 8:
        return np.array([as_float(value) for value in values.ravel()]).reshape(values.shape)
    if values.dtype.kind in "fiu":
        return values.astype(np.float64)
    text = f"expected the times of the array in s, got {values.dtype}"
    if values.dtype.kind == "M":
        hint = f"array.assign_coords({name}=(array.{name} - array.{name}[0]) / np.timedelta64(1, 's'))"
        problems.append(Problem(text, f"count from the first frame with {hint}"))
    else:
        problems.append(Problem(text, f"leave them out with array.drop_vars({name!r}) and give frame_rate=..."))
    return None


def channel_labels(array: Any, axes: Axes) -> list[Any] | None:
    """Labels of the colours of an array; None if it has none."""
    if not isinstance(array, xr.DataArray):
        return None
    dim = array.dims[axes.dims.index(CHANNEL)]
    return array.indexes[dim].tolist() if dim in array.indexes else None


def find_channel(channel: Any, labels: list[Any] | None, n_channels: int) -> int | None:
    """Position of a colour, by label, by name or by position; None if there is no such colour.

    Examples
    --------
    >>> find_channel("red", ["B", "G", "R"], 3), find_channel("red", None, 3), find_channel(2, None, 3)
    (2, 0, 2)
    """
    if labels is not None and channel in labels:
        return labels.index(channel)
    if isinstance(channel, str):
        name = channel.lower()
        text_labels = [label.lower() for label in labels or () if isinstance(label, str)]
        if text_labels:
            matches = [label for label in text_labels if label == name or (name in COLOURS and label == name[0])]
            return text_labels.index(matches[0]) if matches and len(text_labels) == n_channels else None
        return COLOURS[name] if name in COLOURS and n_channels in (3, 4) else None
    position = as_int(channel)
    return position if position is not None and 0 <= position < n_channels else None
