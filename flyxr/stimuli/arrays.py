"""Movies and renderings from arrays."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xarray as xr

from flyxr import provenance, schema
from flyxr.arguments import Arguments, shorten
from flyxr.errors import FlyxrWarning, Problem
from flyxr.stimuli import labelling, values

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

    from flyxr.arguments import Duration

_MIN_PIXELS = 5
"""Smallest height and width of frames whose axes have no names."""
_DARK = 0.02
"""Largest luminance of a movie that is likely on another scale."""


class _Options(NamedTuple):
    """Arguments of a public function."""

    frame_rate: float | None
    dt: Duration | None
    dims: Mapping[str, str] | Sequence[str] | None
    is_rescaled: bool
    fill_value: float | None
    sample_coords: Mapping[str, ArrayLike] | None
    channel: str | int | None = None
    grey: str | None = None


def from_array(
    array: Any,
    frame_rate: float | None = None,
    *,
    dt: Duration | None = None,
    dims: Mapping[str, str] | Sequence[str] | None = None,
    channel: str | int | None = None,
    grey: str | None = None,
    rescale: bool = False,
    fill_value: float | None = None,
    sample_coords: Mapping[str, ArrayLike] | None = None,
) -> xr.Dataset:
    """Movie from an array of frames.

    Parameters
    ----------
    array
        NumPy, dask, torch or xarray array (sample, time, y, x), or anything that NumPy converts to an array. Floats
        must lie from 0 (dark) to 1 (bright); uint8 is divided by 255. Dask arrays and memory maps stay lazy: nothing is
        read here, and values are checked in each chunk as it is computed. The dims of an xarray array are matched by
        name, in any order; names such as ``dim_0`` count as none. Its coordinates are kept.
    frame_rate
        Frames per second. An xarray array with times, in s or as timedeltas, needs none.
    dt
        Time between frames, s, instead of ``frame_rate``.
    dims
        Dims of an array with other names, e.g. ``{"frame": "time", "trial": "sample"}``, or a name for each axis, e.g.
        ``("y", "x", "time", "sample")``. Without it, common synonyms are matched with a warning. A movie may lack
        ``sample`` and ``time`` if axes have names; the result lacks them too.
    channel
        The colour to use of a colour array, whose last dim (or dim ``channel``) has 3 or 4 values: ``"red"``,
        ``"green"``, ``"blue"``, a label of the dim, or a position.
    grey
        ``"luma"`` converts colours to the luma of ITU-R BT.601, as in videos; a fourth channel is not used.
    rescale
        Map the smallest value of the whole array to 0 and the largest to 1, for any numeric dtype including uint8. A
        lazy array is then read twice.
    fill_value
        Luminance, 0 to 1, of values that are masked or NaN. They raise an error if it is None, and do not count in
        ``rescale``.
    sample_coords
        Coordinates of the dim ``sample``, one value for each sample, e.g. ``{"angle": [0, 90]}``. A DataArray along
        the samples of the array is matched by label if both have labels, and may have more of them.

    Returns
    -------
    Dataset
        ``luminance`` (sample, time, y, x), float32, 0 to 1; ``time`` in s. The input is not changed.

    Raises
    ------
    SchemaError
        One error, a ValueError, with a line for each problem: dims that cannot be matched, colours without ``channel``
        or ``grey``, frames of fewer than 5 pixels in a direction where axes have no names, no samples or frames,
        masked values, NaN or infinity, values outside 0 to 1, integers other than uint8, no frame rate or one that
        contradicts the times of the array, coordinates of another length.

    Warns
    -----
    FlyxrWarning
        If names of dims are matched as synonyms, if the shape looks like another order of axes, or if a movie in memory
        is nearly black, as 8-bit values of 0 and 1 are.

    Examples
    --------
    >>> import numpy as np
    >>> movie = from_array(np.zeros((2, 3, 8, 8)), frame_rate=50, sample_coords={"angle": [0, 90]})
    >>> dict(movie.luminance.sizes), movie.time.values, movie.angle.values
    ({'sample': 2, 'time': 3, 'y': 8, 'x': 8}, array([0.  , 0.02, 0.04]), array([ 0, 90]))
    >>> colours = np.zeros((30, 12, 16, 3), np.uint8)
    >>> dict(from_array(colours, frame_rate=30, grey="luma").luminance.sizes)
    {'time': 30, 'y': 12, 'x': 16}
    >>> from_array(np.full((3, 8, 8), 2.0), frame_rate=50)
    Traceback (most recent call last):
        ...
    flyxr.schema.SchemaError: not a movie:
    - expected 4 dims (sample, time, y, x), got 3 with shape (3, 8, 8): for one sequence of frames ...
    - expected luminance from 0 to 1, got values from 2 to 2: ... fx.stimuli.from_array(..., rescale=True)
    """
    options = _Options(frame_rate, dt, dims, bool(rescale), fill_value, sample_coords, channel, grey)
    return _read(array, "movie", "from_array", options)


def from_columns(
    array: Any,
    *,
    frame_rate: float | None = None,
    dt: Duration | None = None,
    dims: Mapping[str, str] | Sequence[str] | None = None,
    rescale: bool = False,
    fill_value: float | None = None,
    sample_coords: Mapping[str, ArrayLike] | None = None,
) -> xr.Dataset:
    """Rendering from an array of the luminance that each column receives.

    Parameters
    ----------
    array
        NumPy, dask, torch or xarray array (sample, time, column) or (time, column), or flyvis's (sample, time, 1,
        column). The columns are those of a full lattice (7, 19, 37, ..., 721), u ascending, then v ascending, as in
        flyvis. Values and laziness are as in :func:`from_array`.
    frame_rate, dt, dims, rescale, fill_value, sample_coords
        As in :func:`from_array`.

    Returns
    -------
    Dataset
        ``luminance`` (sample, time, column), float32, 0 to 1, without the dims that the array lacks; ``time`` in s.

    Raises
    ------
    SchemaError
        One error, a ValueError, with a line for each problem, as in :func:`from_array`; also for columns that fill no
        lattice.

    Warns
    -----
    FlyxrWarning
        As in :func:`from_array`.

    Examples
    --------
    >>> rendering = from_columns(np.full((2, 50, 721), 0.5), dt=0.01)
    >>> dict(rendering.luminance.sizes), rendering.u.values[:3]
    ({'sample': 2, 'time': 50, 'column': 721}, array([-15, -15, -15]))
    >>> from_columns(np.full((50, 721), 0.5), frame_rate=100).luminance.dims
    ('time', 'column')
    """
    options = _Options(frame_rate, dt, dims, bool(rescale), fill_value, sample_coords)
    return _read(array, "rendering", "from_columns", options)


def _read(array: Any, kind: str, function: str, options: _Options) -> xr.Dataset:
    """Make a movie or a rendering for a public function, whose caller is warned."""
    expected = schema.KINDS[kind].variables[0].dims
    arguments = Arguments(f"not {schema.kind_with_article(kind)}", schema.SchemaError)
    problems = arguments.problems
    if isinstance(array, xr.Dataset):
        name = next(iter(array.data_vars), "luminance")
        problems.append(Problem("expected an array, got a Dataset", f"take one of its variables, e.g. data[{name!r}]"))
        arguments.raise_problems()
    data, unreadable = values.as_array(array.data if isinstance(array, xr.DataArray) else array)
    problems += unreadable
    if any(math.isnan(length) for length in data.shape):
        text = f"expected known lengths, got shape {data.shape}"
        problems.append(Problem(text, "call array.compute_chunk_sizes() first"))
    if problems:
        arguments.raise_problems()
    if not isinstance(array, xr.DataArray):
        array = data  # a list has no shape
    if kind == "rendering" and options.dims is None:
        array, data = _without_channel(array, data)

    has_colours = options.channel is not None or options.grey is not None
    axes = labelling.name_axes(array, expected, options.dims, has_colours=has_colours, problems=problems)
    sizes = {} if axes is None else dict(zip(axes.dims, data.shape, strict=True))
    n_samples = sizes.get("sample", 1) if axes else data.shape[0] if data.ndim else 0
    coords: dict[str, xr.Variable] = {}
    if axes is not None:
        coords = labelling.named_coords(array, axes, problems)
        problems += _size_problems(axes, data.shape, sizes, expected, coords)
        order = [axes.dims.index(dim) for dim in (*expected, labelling.CHANNEL) if dim in axes.dims]
        data = data.transpose(order)
    time_labels = coords.pop("time", None)
    n_frames = sizes.get("time") if axes else 1
    time_name = labelling.original_name(array, axes, "time")
    time = labelling.time_axis(time_labels, n_frames, options.frame_rate, options.dt, arguments, time_name)
    coords |= _sample_coords(array, axes, options.sample_coords, n_samples, expected, problems)

    fill_value = options.fill_value
    if fill_value is not None:
        fill_value = arguments.number("fill_value", fill_value, least=0, most=1)
    divisor = 255.0 if data.dtype == np.uint8 and not options.is_rescaled else 1.0
    conversion = values.Conversion(kind, divisor, options.is_rescaled, fill_value)
    wrong_dtype = values.dtype_problems(data.dtype, options.is_rescaled, function)
    problems += wrong_dtype
    if axes is not None and not wrong_dtype:
        data = _select_colour(data, array, axes, options, conversion, problems)
    if not values.is_dask(data) and not wrong_dtype and data.size:
        problems += values.range_problems(data, conversion)
    arguments.raise_problems()
    assert axes is not None, "problems of the axes are raised above"

    luminance = values.convert(data, conversion)
    dims = tuple(dim for dim in expected if dim in axes.dims)
    coords |= {dim: xr.Variable(dim, np.arange(sizes[dim])) for dim in ("y", "x") if dim in dims and dim not in coords}
    if time is not None:
        coords["time"] = time
    dataset, squeeze = schema.expand(xr.Dataset({"luminance": (dims, luminance)}, coords), kind)
    result = squeeze(schema.annotate(dataset, kind))
    for warning in _warnings(axes, tuple(array.shape), luminance, options, kind):
        warnings.warn(FlyxrWarning(warning), stacklevel=3)
    return provenance.add(result, function, _recorded(options, axes, fill_value))


def _without_channel(array: Any, data: Any) -> tuple[Any, Any]:
    """Drop the third of four axes without names if it has length one, as in flyvis's stimuli."""
    if data.ndim != 4 or data.shape[2] != 1 or not labelling.has_default_names(array):
        return array, data
    return (array.isel({array.dims[2]: 0}) if isinstance(array, xr.DataArray) else data[:, :, 0]), data[:, :, 0]


def _size_problems(
    axes: labelling.Axes,
    shape: tuple[int, ...],
    sizes: dict[str, int],
    expected: tuple[str, ...],
    coords: Mapping[str, Any],
) -> list[str | Problem]:
    """List lengths of axes that cannot be right."""
    empty = [dim for dim in expected if sizes.get(dim) == 0]
    if empty:
        each = "sample, frame, row and column" if "y" in expected else "sample, frame and column"
        return [f"expected at least one {each}, got none along {', '.join(empty)}"]
    if "column" in expected:
        has_labels = {"u", "v"} <= set(coords)
        if has_labels or schema.is_lattice_size(sizes["column"]):
            return []
        text = f"expected columns of a full lattice (7, 19, 37, ..., 721), got {sizes['column']} from shape {shape}"
        others = [axis for axis, length in enumerate(shape) if schema.is_lattice_size(length)]
        if others:
            return [Problem(text, f"move axis {others[0]} to the end with np.moveaxis(array, {others[0]}, -1)")]
        return [Problem(text, "for frames of pixels use fx.BoxEye().render(fx.stimuli.from_array(...))")]
    height, width = sizes["y"], sizes["x"]
    if not axes.is_positional or min(height, width) >= _MIN_PIXELS:
        return []
    own_order = f"dims={expected if 'sample' in sizes else expected[1:]}"
    text = (
        f"expected frames of at least {_MIN_PIXELS} x {_MIN_PIXELS} pixels, got {height} x {width} from shape {shape}"
    )
    if height == 1 and schema.is_lattice_size(width):
        return [Problem(text, "for columns of the eye use fx.stimuli.from_columns(array, frame_rate=...)")]
    other_order = "for axes in another order name them, e.g. dims=('y', 'x', 'time', 'sample')"
    if width in (3, 4):
        other_order = f"for colours in the last dim {labelling.COLOUR_HINT}; {other_order}"
    return [Problem(text, f"{other_order}; if frames are this small, pass {own_order}")]


def _sample_coords(
    array: Any,
    axes: labelling.Axes | None,
    sample_coords: Mapping[str, ArrayLike] | None,
    n_samples: int,
    expected: tuple[str, ...],
    problems: list[str | Problem],
) -> dict[str, xr.Variable]:
    """Coordinates of samples that the user gives; without the dim ``sample``, each has one value."""
    coords = {}
    for name, given in (sample_coords or {}).items():
        if axes is None:
            labels = np.asarray(given)
        else:
            labels, label_problems = labelling.align_to_samples(name, given, array, axes)
            problems += label_problems
        if name in (*expected[1:], "luminance"):
            kind = "movies" if "y" in expected else "renderings"
            problems.append(f"expected another name for the sample coordinate {name!r}, which {kind} use already")
        is_scalar = axes is not None and "sample" not in axes.dims
        if is_scalar and labels.size == 1:
            coords[name] = xr.Variable((), labels.reshape(())[()])
        elif is_scalar or labels.shape != (n_samples,):
            text = f"expected {n_samples} values of {name!r}, one for each sample"
            problems.append(f"{text}, got an array of shape {labels.shape}")
        else:
            coords[name] = xr.Variable("sample", labels)
    return coords


def _select_colour(
    data: Any,
    array: Any,
    axes: labelling.Axes,
    options: _Options,
    conversion: values.Conversion,
    problems: list[str | Problem],
) -> Any:
    """One number for each pixel of an array whose last dim may hold colours."""
    channel, grey = options.channel, options.grey
    if channel is not None and grey is not None:
        problems.append("expected channel or grey, got both")
    if grey not in (None, "luma"):
        problems.append(f"expected grey='luma', got {shorten(grey)}")
    if labelling.CHANNEL not in axes.dims:
        if channel is not None or grey is not None:
            hint = "leave channel and grey out, or name the dim of colours with dims={...: 'channel'}"
            problems.append(Problem(f"expected a dim of colours, got {labelling.format_dims(axes.dims)}", hint))
        return data
    if data.shape[-1] == 1 and channel is None and grey is None:
        return data[..., 0]
    if channel is None and grey is None:
        text = f"expected one luminance for each pixel or column, got {data.shape[-1]} colours"
        command = "save grey frames, e.g. np.save(path, array.mean(axis=-1))"
        hint = labelling.COLOUR_HINT if conversion.kind == "movie" else "select one channel of the array"
        problems.append(Problem(text, hint, command))
        return data[..., 0]
    if problems:
        return data[..., 0]
    labels = labelling.channel_labels(array, axes)
    wanted = list(labelling.COLOURS) if grey is not None else [channel]
    found = [labelling.find_channel(name, labels, data.shape[-1]) for name in wanted]
    if None in found:
        choices = "'red', 'green', 'blue'" if labels is None else ", ".join(map(repr, labels))
        expected = f"expected {'channels ' if grey else 'channel as one of '}{choices}"
        problems.append(f"{expected} or a position below {data.shape[-1]}, got {shorten(grey or channel)}")
        return data[..., 0]
    if grey is None:
        return data[..., found[0]]
    return values.compute_luma(data[..., found], conversion)


def _warnings(
    axes: labelling.Axes, shape: tuple[int, ...], luminance: Any, options: _Options, kind: str
) -> list[Problem]:
    """List what may not be as the user expects."""
    problems = []
    if axes.guessed:
        text = ", ".join(f"{name!r} is {dim!r}" for name, dim in axes.guessed.items())
        hint = f"if that is right, pass dims={dict(axes.guessed)} to say so"
        problems.append(Problem(f"dims are matched by synonyms, {text}", hint))
    has_frames_of_numbers = kind == "movie" and labelling.CHANNEL not in axes.dims
    if has_frames_of_numbers and axes.is_positional and _may_be_in_another_order(shape):
        frame = f"{shape[2]} x {shape[3]}"
        text = f"shape {shape} is read as {labelling.format_dims(axes.dims)}, which gives frames of {frame} pixels"
        hint = f"if axes are in another order, name them, e.g. dims=('y', 'x', 'time', 'sample'); else dims={axes.dims}"
        problems.append(Problem(text, hint))
    if not values.is_dask(luminance) and not options.is_rescaled and 0 < (brightest := float(luminance.max())) < _DARK:
        way = "rescale=True maps the largest value to 1; or multiply it by 255, or convert it with .astype(float)"
        problems.append(Problem(f"the largest luminance is {brightest:.2g}, which is nearly black", way))
    return problems


def _may_be_in_another_order(shape: tuple[int, ...]) -> bool:
    """Whether the shape of a movie would make more sense in the order (y, x, time, sample).

    Frames of at least 16 x 16 pixels that are less than twice as long as wide are always taken as they are.
    """
    if len(shape) != 4:
        return False
    n_samples, n_frames, height, width = shape
    short, long = sorted((height, width))
    is_narrow = long >= 4 * short and short < 32 and min(n_samples, n_frames) >= 16
    is_small = short < 16 and min(n_samples, n_frames) >= 32 and long < max(n_samples, n_frames)
    are_first_square = n_samples == n_frames >= 16 and long >= 2 * short and short < n_samples
    return is_narrow or is_small or are_first_square


def _recorded(options: _Options, axes: labelling.Axes, fill_value: float | None) -> dict[str, Any]:
    """Arguments for the provenance, in plain types; those that are None are left out."""
    arguments = Arguments()
    frame_rate, dt = options.frame_rate, options.dt
    dims: Any = options.dims
    if isinstance(dims, Mapping) or (dims is None and axes.guessed):
        dims = {**dict(dims or {}), **axes.guessed}
    channel = options.channel
    recorded = {
        "rescale": options.is_rescaled,
        "frame_rate": None if frame_rate is None else arguments.frame_rate(frame_rate),
        "dt": None if dt is None else arguments.duration("dt", dt),
        "dims": dims if dims is None or isinstance(dims, Mapping) else list(dims),
        "channel": channel if channel is None or isinstance(channel, str) else int(channel),
        "grey": options.grey,
        "fill_value": fill_value,
    }
    return {name: value for name, value in recorded.items() if value is not None}
