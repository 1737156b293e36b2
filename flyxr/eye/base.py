"""Shared parts of the eyes: argument checks, the way over frames, resizing, backprojection, pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypeVar

import numpy as np
import xarray as xr

from flyxr import drawing, hexgrid, provenance, schema
from flyxr.arguments import Arguments, shorten
from flyxr.errors import Problem, raise_problems

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from scipy.sparse import csr_array

Filter: TypeAlias = Literal["mean", "sum", "median"]
LinearFilter: TypeAlias = Literal["mean", "sum"]
Columns = TypeVar("Columns", xr.Dataset, xr.DataArray)
"""Data with the dim ``column``."""

LINEAR_FILTERS = ("mean", "sum")
FILTERS = (*LINEAR_FILTERS, "median")

ILLUSTRATION_HEIGHT = 400
"""Height of a drawing of an eye, screen pixels."""


class Eye(Protocol):
    """A lattice of columns in front of a movie. Eyes are small, immutable, hashable and picklable.

    The operator of an eye maps the pixels of a frame to columns; ``render`` applies it to movies, and ``backproject``
    applies its transpose.
    """

    @property
    def extent(self) -> int:
        """Radius of the lattice, columns."""

    @property
    def kernel_size(self) -> int:
        """Distance between neighbouring columns, pixels."""

    @property
    def n_columns(self) -> int:
        """Number of columns."""

    def render(self, movie: xr.Dataset | xr.DataArray, filter: LinearFilter = "mean") -> xr.Dataset:
        """Render a movie onto the columns."""

    def operator(self, height: int, width: int, filter: LinearFilter = "mean") -> csr_array:
        """Return the (column, pixel) weights for frames of one size."""

    def backproject(
        self, rendering: Columns, height: int, width: int, filter: LinearFilter = "mean", *, normalize: bool = False
    ) -> Columns:
        """Project columns back onto the pixels they see."""

    def illustrate(self, height: int | None = None, width: int | None = None) -> Any:
        """Draw the receptive fields over the frame."""


def check_arguments(
    filter: str = "mean", filters: tuple[str, ...] = FILTERS, **integers: tuple[Any, int, int]
) -> tuple[int, ...]:
    """Convert integers, given by name as (value, least, example), and raise one error for them and an unknown filter.

    Examples
    --------
    >>> check_arguments(height=(np.int64(48), 1, 64), width=(np.array(64), 1, 64))
    (48, 64)
    >>> check_arguments("max", LINEAR_FILTERS, height=(0, 1, 64))
    Traceback (most recent call last):
        ...
    flyxr.errors.InputError: expected filter as one of 'mean', 'sum', got 'max'; expected height as an integer of ...
    """
    arguments = Arguments()
    if not isinstance(filter, str) or filter not in filters:
        arguments.problems.append(f"expected filter as one of {', '.join(map(repr, filters))}, got {shorten(filter)}")
    converted = [
        arguments.integer(name, value, least=least, hint=f"e.g. {example}")
        for name, (value, least, example) in integers.items()
    ]
    arguments.raise_problems()
    return tuple(converted)


def along_frames(
    kernel: Callable[..., NDArray[np.float32]],
    data: xr.DataArray,
    dims: list[str],
    output_sizes: dict[str, int],
    **arguments: Any,
) -> xr.DataArray:
    """Apply a kernel to the given dims of an array, with one task for each chunk of the other dims.

    Parameters
    ----------
    kernel
        Module-level function; ``kernel(array, **arguments)`` replaces the last dims by those of ``output_sizes``.
    data
        NumPy or dask; chunks along ``dims`` are merged.
    dims
        Dims that the kernel consumes.
    output_sizes
        Names and sizes of the dims that it appends.
    **arguments
        Small picklable arguments; they travel in the graph.

    Examples
    --------
    >>> def brightest(frames):
    ...     return frames.max(axis=(-2, -1))[..., np.newaxis]
    >>> frames = xr.DataArray(np.ones((3, 4, 5), np.float32), dims=("time", "y", "x"))
    >>> dict(along_frames(brightest, frames, ["y", "x"], {"column": 1}).sizes)
    {'time': 3, 'column': 1}
    """
    if data.chunks is not None:
        # DataArray.chunk would make coordinates lazy, too
        data = data.copy(data=data.data.rechunk({data.get_axis_num(dim): -1 for dim in dims}))
    result: xr.DataArray = xr.apply_ufunc(
        kernel,
        data,
        kwargs=arguments,
        input_core_dims=[dims],
        output_core_dims=[list(output_sizes)],
        dask="parallelized",
        dask_gufunc_kwargs={"output_sizes": output_sizes},
        output_dtypes=[np.float32],
        keep_attrs=True,
    )
    return result


def render_movie(
    eye: Eye, kernel: Callable[..., NDArray[np.float32]], movie: xr.Dataset | xr.DataArray, filter: str
) -> xr.Dataset:
    """Render a movie with ``kernel(frames, eye=eye, filter=filter)``, which maps (…, y, x) to (…, column)."""
    movie, squeeze = schema.expand(movie, "movie", integer_luminance=True)
    sizes = {"column": eye.n_columns}
    columns = along_frames(kernel, movie["luminance"], ["y", "x"], sizes, eye=eye, filter=filter)
    rendering = xr.Dataset({"luminance": columns}, hexgrid.column_coords(eye.extent), movie.attrs)
    arguments = {**_describe(eye), "filter": filter}
    return provenance.add(squeeze(schema.annotate(rendering, "rendering")), "render", arguments)


def _describe(eye: Eye) -> dict[str, Any]:
    return {"eye": type(eye).__name__, "extent": eye.extent, "kernel_size": eye.kernel_size}


def sum_batches(
    frames: NDArray[Any],
    n_columns: int,
    kernel: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    batch_size: int,
) -> NDArray[np.float32]:
    """Apply a kernel (frame, y, x) to (frame, column) to batches of frames, whose values are checked on the way.

    Raises
    ------
    SchemaError
        If floats are not finite or outside 0 to 1. 8-bit values are passed to the kernel as they are, 0 to 255.
    """
    out = np.empty((len(frames), n_columns), np.float32)
    for start in range(0, len(frames), batch_size):
        batch = np.ascontiguousarray(frames[start : start + batch_size])
        if batch.dtype != np.uint8:
            raise_problems(schema.SchemaError, "not a movie", schema.luminance_problems(batch))
        out[start : start + batch_size] = kernel(batch.astype(np.float32, copy=False))
    return out


def bilinear(size_in: int, size_out: int) -> NDArray[np.float64]:
    """Weights of bilinear resizing along one axis, (out, in): half-pixel centres, antialiased where it shrinks.

    Examples
    --------
    >>> bilinear(4, 2)
    array([[0.42857143, 0.42857143, 0.14285714, 0.        ],
           [0.        , 0.14285714, 0.42857143, 0.42857143]])
    """
    # quirk: torch places the centres in float32, up to 4e-6 pixel off in a frame of 64; a median shows that
    scale = np.float32(size_in / size_out)
    centers = (np.float64(scale) * (np.arange(size_out) + 0.5)).astype(np.float32)
    distance = np.abs(np.arange(size_in, dtype=np.float32) - centers[:, None] + np.float32(0.5))
    weights = np.maximum(0, 1 - distance.astype(np.float64) / max(scale, 1))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def make_read_only(weights: csr_array) -> csr_array:
    """Freeze the arrays of a sparse matrix that is cached and handed out."""
    weights.sort_indices()  # SciPy would do it in place when it is first needed
    for array in (weights.data, weights.indices, weights.indptr):
        array.flags.writeable = False
    return weights


def backproject(eye: Eye, rendering: Columns, height: int, width: int, filter: str, normalize: bool) -> Columns:
    """Apply the transpose of an eye's operator; see :meth:`flyxr.BoxEye.backproject`."""
    height, width = check_arguments(filter, LINEAR_FILTERS, height=(height, 1, 64), width=(width, 1, 64))
    rendering = _in_column_order(eye, rendering)
    size = {"y": height, "x": width}
    arguments = {"filter": filter, "height": height, "width": width, "normalize": bool(normalize)}

    def to_frames(data: xr.DataArray) -> xr.DataArray:
        if "column" not in data.dims:
            return data
        frames = along_frames(backproject_columns, data, ["column"], size, eye=eye, **arguments)
        return frames.assign_coords({name: np.arange(length) for name, length in size.items()})

    if isinstance(rendering, xr.DataArray):
        return to_frames(rendering)
    movie = rendering.map(to_frames, keep_attrs=True)
    movie.attrs.pop(schema.KIND_ATTR, None)
    # a sample or a frame of a rendering becomes one of a movie
    if "luminance" in movie and set(movie["luminance"].dims) <= set(schema.KINDS["movie"].variables[0].dims):
        movie = schema.annotate(movie, "movie")
    return provenance.add(movie, "backproject", {**_describe(eye), **arguments})


def backproject_columns(
    columns: NDArray[Any], *, eye: Eye, filter: LinearFilter, height: int, width: int, normalize: bool
) -> NDArray[np.float32]:
    """Project (…, column) back to (…, y, x)."""
    transpose = eye.operator(height, width, filter).T
    total = transpose.sum(axis=1) if normalize else np.ones(1, np.float32)
    total[total == 0] = 1
    flat = columns.reshape(-1, columns.shape[-1]).astype(np.float32, copy=False)
    out = np.empty((len(flat), height * width), np.float32)
    for frame, values in zip(out, flat, strict=True):
        np.divide(transpose @ values, total, out=frame)
    return out.reshape(*columns.shape[:-1], height, width)


def _in_column_order(eye: Eye, rendering: Columns) -> Columns:
    """Reorder data to the columns of an eye, by u and v, by label or by position."""
    n_columns = rendering.sizes.get("column")
    index = np.arange(n_columns or 0)
    if {"u", "v"} <= set(rendering.coords):
        index = hexgrid.column_index(rendering["u"].values, rendering["v"].values, eye.extent)
    elif "column" in rendering.coords:
        index = rendering["column"].values
    expected = np.arange(eye.n_columns)
    if n_columns != expected.size or not np.array_equal(np.sort(index), expected):
        missing = np.setdiff1d(expected, index)[:3].tolist() if n_columns == expected.size else []
        without = f" without the columns {missing}" if missing else ""
        raise schema.SchemaError(
            Problem(
                f"expected the {expected.size} columns of extent {eye.extent} as dim 'column', got "
                f"{dict(rendering.sizes)}{without}",
                f"use the {type(eye).__name__} that rendered them",
            )
        )
    return rendering if np.array_equal(index, expected) else rendering.isel(column=np.argsort(index))


def draw_fields(
    eye: Eye,
    frame_size: tuple[int, int],
    draw: Callable[[dict[str, Any], list[Any], list[str]], Any],
    receptors: tuple[NDArray[np.floating], NDArray[np.floating]],
) -> Any:
    """Overlay the bounds of a frame, the receptive fields and a point for each receptor.

    Parameters
    ----------
    eye
        Eye to draw.
    frame_size
        Height and width of the frame, pixels.
    draw
        ``draw(labels, kdims, vdims)`` returns the element of the receptive fields; ``labels`` are ``column``, ``u`` and
        ``v``, each (column,).
    receptors
        x to the right and y upward, each (column,), in pixels from the lower left corner.
    """
    import holoviews as hv

    drawing.load_backend()
    height, width = frame_size
    u, v = hexgrid.columns(eye.extent)
    labels = {"column": np.arange(eye.n_columns), "u": u, "v": v}
    kdims, vdims = [hv.Dimension(name, unit="pixel") for name in "xy"], list(labels)
    points = hv.Points((*receptors, *labels.values()), kdims=kdims, vdims=vdims)
    fields = draw(labels, kdims, vdims)
    margin = eye.kernel_size  # receptive fields at the rim may reach beyond the frame
    limits = {"xlim": (-margin, width + margin), "ylim": (-margin, height + margin)}
    size = drawing.equal_aspect(width + 2 * margin, height + 2 * margin, ILLUSTRATION_HEIGHT)
    style: dict[str, dict[str, Any]] = {"Overlay": {**size, **limits}}
    style[type(fields).__name__] = {"fill_alpha": 0.1, "line_color": "#1f3d7a", "line_width": 0.5, "tools": ["hover"]}
    style["Points"] = {"color": "#d1495b", "size": 3}
    overlay = hv.Bounds((0, 0, width, height), kdims=kdims) * fields * points
    return overlay.opts(*(hv.Options(name, **options, backend="bokeh") for name, options in style.items()))
