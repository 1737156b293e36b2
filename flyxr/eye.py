"""The eye: from frames of a movie to hexagonal columns, and from frame rate to integration step."""

from __future__ import annotations

import functools
import math
import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr

from flyxr import hexgrid, provenance, schema

if TYPE_CHECKING:
    from numpy.typing import NDArray

FILTERS = ("mean", "sum", "median")
_BATCH_BYTES = 2**26
"""Working memory of one batch of frames."""


@dataclass(frozen=True)
class BoxEye:
    """Square boxes of pixels around the centres of hexagonal columns (Lappalainen et al. 2024; ``flyvis.BoxEye``).

    Parameters
    ----------
    extent
        Radius of the hexagonal lattice, in columns: 15 gives the 721 columns that the published models see.
    kernel_size
        Edge of a box and distance of neighbouring boxes, pixel.

    Raises
    ------
    ValueError
        If ``extent`` is no integer of at least 0 or ``kernel_size`` none of at least 1.

    Examples
    --------
    >>> BoxEye().n_columns, BoxEye().min_frame_size
    (721, 391)
    """

    extent: int = 15
    kernel_size: int = 13

    def __post_init__(self) -> None:
        problems = []
        for name, least, example in (("extent", 0, 15), ("kernel_size", 1, 13)):
            value = getattr(self, name)
            try:
                good = operator.index(value) >= least
            except TypeError:
                good = False
            if not good:
                problems.append(f"expected {name} as an integer of at least {least}, got {value!r}: e.g. {example}")
        if problems:
            raise ValueError("; ".join(problems))

    @property
    def n_columns(self) -> int:
        """Number of columns."""
        return hexgrid.n_columns(self.extent)

    @property
    def receptor_centers(self) -> NDArray[np.int64]:
        """Centres of the boxes, (column, axis) with y downward and x, in pixels from the middle of the frame.

        Examples
        --------
        >>> BoxEye(extent=1, kernel_size=5).receptor_centers.tolist()
        [[-5, 0], [-2, 5], [-2, -5], [0, 0], [2, 5], [2, -5], [5, 0]]
        """
        u, v = hexgrid.columns(self.extent)
        # quirk: half pixels are cut toward zero, not down, so boxes are shifted to the middle on either side of it
        y = np.trunc(self.kernel_size * (u + v / 2)).astype(np.int64)
        return np.stack([y, self.kernel_size * v], axis=1)

    @property
    def min_frame_size(self) -> int:
        """Height and width, in pixels, below which frames are resized."""
        # quirk: from centre to centre, without the outer half of the boxes at the rim
        return 2 * self.extent * self.kernel_size + 1

    def render(self, movie: xr.Dataset | xr.DataArray, filter: Literal["mean", "sum", "median"] = "mean") -> xr.Dataset:
        """What each column receives of a movie.

        A frame that is smaller than :attr:`min_frame_size` in any direction is resized to it in both, bilinear with
        antialiasing, so that its aspect ratio is lost. A larger frame is seen in its middle only. Boxes that reach
        over the rim of the frame see darkness there (zeros) with ``"mean"`` and ``"sum"``, mirrored frame with
        ``"median"``.

        Parameters
        ----------
        movie
            ``luminance`` (sample, time, y, x), float from 0 to 1, or uint8, which is divided by 255.
        filter
            Mean, sum or median of the pixels in a box. The median of an even number is the lower of the two in the
            middle.

        Returns
        -------
        Dataset
            ``luminance`` (sample, time, column), float32; coordinates and attrs of the movie carry over.
            Lazy if the movie is, with one task for each of its chunks along ``sample`` and ``time``.

        Raises
        ------
        SchemaError
            If the movie is not one, or has NaN or values outside 0 to 1: for a lazy movie when it is computed.
        ValueError
            If the filter is another.

        Examples
        --------
        >>> from flyxr.stimuli import from_array
        >>> movie = from_array(np.full((1, 2, 64, 64), 0.5), frame_rate=50)
        >>> rendering = BoxEye(extent=2, kernel_size=5).render(movie)
        >>> dict(rendering.luminance.sizes), float(rendering.luminance.isel(sample=0, time=0, column=9))
        ({'sample': 1, 'time': 2, 'column': 19}, 0.5)
        """
        if filter not in FILTERS:
            raise ValueError(f"expected filter as one of {', '.join(map(repr, FILTERS))}, got {filter!r}")
        movie = schema.validate(movie, "movie", integer_luminance=True)
        luminance = movie["luminance"]
        if luminance.chunks is not None:
            luminance = luminance.chunk({"y": -1, "x": -1})
        columns = xr.apply_ufunc(
            _render,
            luminance,
            kwargs={"extent": int(self.extent), "kernel_size": int(self.kernel_size), "filter": filter},
            input_core_dims=[["y", "x"]],
            output_core_dims=[["column"]],
            dask="parallelized",
            dask_gufunc_kwargs={"output_sizes": {"column": self.n_columns}},
            output_dtypes=[np.float32],
            keep_attrs=True,
        )
        arguments = {"extent": int(self.extent), "kernel_size": int(self.kernel_size), "filter": filter}
        rendering = xr.Dataset({"luminance": columns}, attrs=movie.attrs).assign_coords(
            hexgrid.column_coords(self.extent)
        )
        return provenance.add(schema.annotate(rendering, "rendering"), "render", {"eye": "BoxEye", **arguments})

    def illustrate(self, height: int | None = None, width: int | None = None) -> Any:
        """Boxes and receptors over the frame, as a HoloViews overlay.

        Parameters
        ----------
        height, width
            Of the frames, pixel; :attr:`min_frame_size` if None. A frame that the eye resizes is drawn as resized.

        Returns
        -------
        holoviews.Overlay
            Bounds of the frame, a rectangle for each box and a point for each receptor, with the coordinates
            ``column``, ``u`` and ``v``; x to the right and y upward, in pixels from the lower left corner.

        Examples
        --------
        >>> [type(element).__name__ for element in BoxEye(extent=2, kernel_size=5).illustrate()]
        ['Bounds', 'Rectangles', 'Points']
        """
        import holoviews as hv

        least = self.min_frame_size
        height, width = least if height is None else height, least if width is None else width
        if min(height, width) < least:
            height = width = least
        before = _reach(self.kernel_size)[0]
        # a pixel is a square of edge 1, and row 0 is at the top
        left = self.receptor_centers[:, 1] + width // 2 - before
        top = height - (self.receptor_centers[:, 0] + height // 2 - before)
        u, v = hexgrid.columns(self.extent)
        labels = (np.arange(u.size), u, v)
        boxes = (left, top - self.kernel_size, left + self.kernel_size, top)
        receptors = (left + before + 0.5, top - before - 0.5)
        names = ["column", "u", "v"]
        x, y = hv.Dimension("x", unit="pixel"), hv.Dimension("y", unit="pixel")
        return (
            hv.Bounds((0, 0, width, height), kdims=[x, y])
            * hv.Rectangles((*boxes, *labels), kdims=["left", "bottom", "right", "top"], vdims=names)
            * hv.Points((*receptors, *labels), kdims=[x, y], vdims=names)
        )


def resample(data: xr.Dataset | xr.DataArray, dt: float) -> xr.Dataset:
    """From frame rate to integration step: each frame is repeated, or left out, as the new time axis needs.

    Parameters
    ----------
    data
        Rendering (sample, time, column) or movie (sample, time, y, x).
    dt
        Integration step, s. A step longer than a frame is allowed and leaves frames out.

    Returns
    -------
    Dataset
        The same with ``time`` from 0 in steps of ``dt``; lazy if ``data`` is. The frames are those of
        :func:`temporal_sample_indices`.

    Raises
    ------
    SchemaError
        If ``data`` is neither a rendering nor a movie.
    ValueError
        If ``dt`` is not positive.

    Examples
    --------
    >>> from flyxr.stimuli import from_array
    >>> movie = from_array(np.zeros((1, 3, 8, 8)), frame_rate=50)
    >>> resample(movie, dt=1 / 100).time.values
    array([0.  , 0.01, 0.02, 0.03, 0.04, 0.05])
    """
    kind = "movie" if isinstance(data, (xr.Dataset, xr.DataArray)) and {"y", "x"} & set(data.dims) else "rendering"
    dataset = schema.validate(data, kind, integer_luminance=True)
    frames = temporal_sample_indices(dataset.sizes["time"], 1 / schema.time_step(dataset), dt)
    picked = dataset.isel(time=frames).assign_coords(time=schema.time_coord(frames.size, dt))
    return provenance.add(schema.annotate(picked, kind), "resample", {"dt": dt})


def temporal_sample_indices(n_frames: int, frame_rate: float, dt: float) -> NDArray[np.int64]:
    """Which frame each integration step shows.

    Equal to ``flyvis.datasets.augmentation.temporal.get_temporal_sample_indices`` over all frames with
    ``augment=False``: the frame at the start of each step, cut to an integer after rounding to float32.

    Parameters
    ----------
    n_frames
        Number of frames, at least 1.
    frame_rate
        Frames per second.
    dt
        Integration step, s.

    Returns
    -------
    (time,) int

    Raises
    ------
    ValueError
        If one of the arguments is not positive.

    Examples
    --------
    >>> temporal_sample_indices(3, frame_rate=24, dt=1 / 50)
    array([0, 0, 0, 1, 1, 2, 2])
    """
    for name, value, unit in (("n_frames", n_frames, ""), ("frame_rate", frame_rate, " in 1/s"), ("dt", dt, " in s")):
        if not 0 < value < math.inf:
            raise ValueError(f"expected a positive {name}{unit}, got {value!r}")
    step = dt * frame_rate
    # quirk: a millionth of a frame is cut from the end, so that whole ratios don't gain a step by rounding
    count = math.ceil((n_frames - 1e-6) / step)
    # quirk: float32, which rounds 6.99999999 up to 7; never past the last frame
    indices = (np.arange(count) * step).astype(np.float32).astype(np.int64)
    return np.minimum(indices, n_frames - 1)


def _render(frames: NDArray[Any], *, extent: int, kernel_size: int, filter: str) -> NDArray[np.float32]:
    """(..., y, x) to (..., column), a batch of frames at a time."""
    *outer, height, width = frames.shape
    flat = frames.reshape(-1, height, width)
    out = np.empty((flat.shape[0], hexgrid.n_columns(extent)), np.float32)
    boxes = _Boxes.compiled(extent, kernel_size, height, width)
    kernel = boxes.median if filter == "median" else boxes.sum
    frame_bytes = 4 * (2 * height * width + (boxes.median_values if filter == "median" else 0))
    batch = max(1, _BATCH_BYTES // frame_bytes)
    for start in range(0, flat.shape[0], batch):
        part = slice(start, start + batch)
        out[part] = kernel(_luminance(flat[part]))
    if filter == "mean":
        np.divide(out, kernel_size**2, out=out)
    return out.reshape(*outer, -1)


def _luminance(frames: NDArray[Any]) -> NDArray[np.float32]:
    """Frames as float32 from 0 to 1."""
    if frames.dtype == np.uint8:
        return frames.astype(np.float32) / np.float32(255)
    problems = schema.luminance_problems(frames)
    if problems:
        raise schema.SchemaError("\n- ".join(["not a movie:", *problems]))
    return frames.astype(np.float32, copy=False)


def _reach(kernel_size: int) -> tuple[int, int]:
    """Pixels of a box before and after its centre, for mean and sum."""
    # quirk: an even box reaches one pixel further to the left and the top, for the median to the right and the bottom
    return kernel_size // 2, (kernel_size - 1) // 2


@dataclass(frozen=True)
class _Boxes:
    """Boxes over frames of one size.

    Resizing and summing over a box are both products of a part along y and a part along x, and many boxes share
    their rows or columns: at extent 15 the sums are ``rows @ frame @ cols``, (61, y) by (y, x) by (x, 31), of which
    721 of 1,891 values are columns.
    """

    kernel_size: int
    resize: tuple[NDArray[np.float32], NDArray[np.float32]] | None
    size: tuple[int, int]
    centers: tuple[NDArray[np.int64], NDArray[np.int64]]
    rows: NDArray[np.float32]
    cols: NDArray[np.float32]
    place: tuple[NDArray[np.int64], NDArray[np.int64]]

    @classmethod
    @functools.lru_cache(maxsize=8)
    def compiled(cls, extent: int, kernel_size: int, height: int, width: int) -> _Boxes:
        eye = BoxEye(extent, kernel_size)
        least = eye.min_frame_size
        # quirk: one direction too small, and both are resized; that may shrink the other
        resized = least > height or least > width
        size = (least, least) if resized else (height, width)
        y, x = (eye.receptor_centers + np.array(size) // 2).T
        places_y, place_y = np.unique(y, return_inverse=True)
        places_x, place_x = np.unique(x, return_inverse=True)
        rows, cols = _boxes(places_y, kernel_size, size[0]), _boxes(places_x, kernel_size, size[1])
        resize = None
        if resized:
            resize_y, resize_x = _bilinear(height, least), _bilinear(width, least)
            rows, cols = rows @ resize_y, cols @ resize_x
            resize = resize_y.astype(np.float32), resize_x.T.astype(np.float32)
        return cls(
            kernel_size=kernel_size,
            resize=resize,
            size=size,
            centers=(y, x),
            rows=rows.astype(np.float32),
            cols=np.ascontiguousarray(cols.T, np.float32),
            place=(place_y, place_x),
        )

    @property
    def median_values(self) -> int:
        """Numbers that the median holds for a frame."""
        return 2 * math.prod(self.size) + 2 * self.centers[0].size * self.kernel_size**2

    def sum(self, frames: NDArray[np.float32]) -> NDArray[np.float32]:
        """(frame, y, x) to (frame, column)."""
        n, height, width = frames.shape
        along_x = (frames.reshape(n * height, width) @ self.cols).reshape(n, height, -1)
        found: NDArray[np.float32] = (self.rows @ along_x)[:, *self.place]
        return found

    def median(self, frames: NDArray[np.float32]) -> NDArray[np.float32]:
        """(frame, y, x) to (frame, column)."""
        if self.resize is not None:
            frames = np.asarray(self.resize[0] @ frames @ self.resize[1])
        after, before = _reach(self.kernel_size)
        offsets = np.arange(self.kernel_size)
        # quirk: mirrored at the rim, where mean and sum see darkness
        mirror_y, mirror_x = (np.pad(np.arange(n), (before, after), mode="reflect") for n in self.size)
        rows = mirror_y[self.centers[0][:, None] + offsets][:, :, None]
        cols = mirror_x[self.centers[1][:, None] + offsets][:, None, :]
        values = frames[:, rows, cols].reshape(len(frames), self.centers[0].size, -1)
        lower_middle = (self.kernel_size**2 - 1) // 2
        values.partition(lower_middle, axis=-1)
        return values[..., lower_middle]


def _boxes(centers: NDArray[np.int64], kernel_size: int, size: int) -> NDArray[np.float64]:
    """(center, pixel), 1 where the box around a centre covers a pixel of the frame."""
    before, after = _reach(kernel_size)
    offset = np.arange(size) - centers[:, None]
    # quirk: what lies outside the frame counts as 0 and not as missing, so columns at the rim are too dark
    return ((offset >= -before) & (offset <= after)).astype(np.float64)


def _bilinear(size_in: int, size_out: int) -> NDArray[np.float64]:
    """(out, in) weights of bilinear resizing with half-pixel centres, widened to antialias where it shrinks."""
    # quirk: torch places the centres in float32, up to 4e-6 pixel off in a frame of 64; a median shows that
    scale = np.float32(size_in / size_out)
    centers = (np.float64(scale) * (np.arange(size_out) + 0.5)).astype(np.float32)
    distance = np.abs(np.arange(size_in, dtype=np.float32) - centers[:, None] + np.float32(0.5))
    weights = np.maximum(0, 1 - distance.astype(np.float64) / max(scale, 1))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))
