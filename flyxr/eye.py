"""The eye: from frames of a movie to hexagonal columns, and from frame rate to integration step."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
import xarray as xr

from flyxr import hexgrid, provenance, schema
from flyxr.errors import InputError, Problem, raise_problems

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_array

FILTERS = ("mean", "sum", "median")
_BATCH_BYTES = 2**18  # working memory of a batch of frames: it stays in the cache from one pass to the next

_Data = TypeVar("_Data", xr.Dataset, xr.DataArray)
_Linear = Literal["mean", "sum"]


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
        check_arguments(extent=(self.extent, 0, 15), kernel_size=(self.kernel_size, 1, 13))

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
        antialiasing, so that its aspect ratio is lost. A larger frame is seen in its middle only: pixels outside the
        rectangle around all boxes are neither read nor checked. Boxes that reach over the rim of the frame see
        darkness there (zeros) with ``"mean"`` and ``"sum"``, mirrored frame with ``"median"``.

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
            If the movie is not one, or where read has NaN or values outside 0 to 1: if it is lazy, when computed.
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
        check_arguments(filter, FILTERS)
        movie = schema.validate(movie, "movie", integer_luminance=True)
        arguments = {"extent": int(self.extent), "kernel_size": int(self.kernel_size), "filter": filter}
        columns = along_frames(_render, movie["luminance"], ["y", "x"], {"column": self.n_columns}, **arguments)
        rendering = xr.Dataset({"luminance": columns}, hexgrid.column_coords(self.extent), movie.attrs)
        return provenance.add(schema.annotate(rendering, "rendering"), "render", {"eye": "BoxEye", **arguments})

    def operator(self, height: int, width: int, filter: _Linear = "mean") -> csr_array:
        """What the eye does to frames of one size, as a sparse matrix: resizing, boxes and sampling in one.

        ``operator @ frame.ravel()`` is what :meth:`render` gives of a frame, to an error of rounding. A row sums to 1
        with ``"mean"``, and to less where a box reaches over the rim of the frame: in 34 columns at extent 15 if there
        is no margin, down to 7/13.

        Parameters
        ----------
        height, width
            Of the frames, pixel.
        filter
            Mean or sum of the pixels in a box; the median is not linear.

        Returns
        -------
        scipy.sparse.csr_array
            (column, pixel) float32, pixels row by row from the top left. Built once for a size: each call gives the
            same read-only object.

        Raises
        ------
        ValueError
            If one of the arguments is none of these.

        Examples
        --------
        >>> operator = BoxEye(extent=2, kernel_size=5).operator(64, 48)
        >>> operator.shape, operator.nnz, operator.sum(axis=1)[9]
        ((19, 3072), 475, np.float32(1.0))
        """
        check_arguments(filter, FILTERS[:2], height=(height, 1, 64), width=(width, 1, 64))
        return _operator(int(self.extent), int(self.kernel_size), int(height), int(width), filter)

    def backproject(
        self, rendering: _Data, height: int, width: int, filter: _Linear = "mean", *, normalize: bool = False
    ) -> _Data:
        """Columns put back onto the pixels they see: the transpose (adjoint) of :meth:`operator`, not an inverse.

        Each column adds its value to pixels by the weights with which it sees them; pixels that no column sees are 0.
        The sum of ``render(movie) * rendering`` equals that of ``movie * backproject(rendering)``, so a gradient with
        regard to columns becomes one with regard to pixels.

        Parameters
        ----------
        rendering
            Data with the dim ``column``, e.g. ``luminance`` (sample, time, column) or responses. Its columns are told
            by ``u`` and ``v``, without these by the label ``column``, or else by position. Variables of a Dataset
            without this dim are carried over.
        height, width, filter
            Of the :meth:`operator`.
        normalize
            Divide each pixel by its sum of weights: a picture and no longer the adjoint, in which pixels are weighted
            means of the columns that see them, so that a constant stays constant.

        Returns
        -------
        Dataset or DataArray
            As given, with (…, y, x) in place of (…, column), float32. Of a rendering it is a movie by names and dims;
            its values are sure to lie from 0 to 1 only if the rendering's do and ``normalize`` is set. Lazy if the
            rendering is; a chunk grows by ``height * width / n_columns``.

        Raises
        ------
        SchemaError
            If there is no dim ``column``, or its columns are not those of this eye.
        ValueError
            As for :meth:`operator`.

        Examples
        --------
        >>> grey = xr.DataArray(np.full(19, 0.5), dims="column")
        >>> frame = BoxEye(extent=2, kernel_size=5).backproject(grey, 30, 40, normalize=True)
        >>> dict(frame.sizes), float(frame[15, 20]), float(frame[0, 0])
        ({'y': 30, 'x': 40}, 0.5, 0.0)
        """
        check_arguments(filter, FILTERS[:2], height=(height, 1, 64), width=(width, 1, 64))
        rendering = self._in_order(rendering)
        size = {"y": int(height), "x": int(width)}
        arguments = {"extent": int(self.extent), "kernel_size": int(self.kernel_size), "filter": filter}
        arguments |= {"height": size["y"], "width": size["x"], "normalize": bool(normalize)}

        def back(data: xr.DataArray) -> xr.DataArray:
            if "column" not in data.dims:
                return data
            frames: xr.DataArray = along_frames(_backproject, data, ["column"], size, **arguments)
            return frames.assign_coords({name: np.arange(length) for name, length in size.items()})

        if isinstance(rendering, xr.DataArray):
            return back(rendering)
        movie = rendering.map(back, keep_attrs=True)
        movie.attrs.pop(schema.KIND_ATTR, None)
        if "luminance" in movie and movie["luminance"].dims == schema.KINDS["movie"].variables[0].dims:
            movie = schema.annotate(movie, "movie")
        return provenance.add(movie, "backproject", {"eye": "BoxEye", **arguments})

    def _in_order(self, rendering: _Data) -> _Data:
        """Data over the columns of this eye, in its order."""
        place = np.arange(rendering.sizes.get("column", 0))
        if {"u", "v"} <= set(rendering.coords):
            place = hexgrid.column_index(rendering["u"].values, rendering["v"].values, self.extent)
        elif "column" in rendering.coords:
            place = rendering["column"].values
        own, count = np.arange(self.n_columns), rendering.sizes.get("column")
        if count != own.size or not np.array_equal(np.sort(place), own):
            missing = np.setdiff1d(own, place)[:3].tolist() if count == own.size else []
            lacking = f" without the columns {missing}" if missing else ""
            raise schema.SchemaError(
                Problem(
                    f"expected the {own.size} columns of extent {self.extent} as dim 'column', got "
                    f"{dict(rendering.sizes)}{lacking}",
                    "use the BoxEye that rendered them",
                )
            )
        return rendering if np.array_equal(place, own) else rendering.isel(column=np.argsort(place))

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
        before = self.kernel_size // 2
        # a pixel is a square of edge 1, and row 0 is at the top
        left = self.receptor_centers[:, 1] + width // 2 - before
        top = height - (self.receptor_centers[:, 0] + height // 2 - before)
        labels = (np.arange(self.n_columns), *hexgrid.columns(self.extent))
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
        The same with ``time`` from its first value on in steps of ``dt``; lazy if ``data`` is. The frames are those
        of :func:`temporal_sample_indices`.

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
    picked = dataset.isel(time=frames).assign_coords(time=schema.time_coord(frames.size, dt, float(dataset["time"][0])))
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
            raise InputError(f"expected a positive {name}{unit}, got {value!r}")
    step = dt * frame_rate
    # quirk: a millionth of a frame is cut from the end, so that whole ratios don't gain a step by rounding
    count = math.ceil((n_frames - 1e-6) / step)
    # quirk: float32, which rounds 6.99999999 up to 7; never past the last frame
    indices = (np.arange(count) * step).astype(np.float32).astype(np.int64)
    return np.minimum(indices, n_frames - 1)


def check_arguments(filter: str = "mean", filters: tuple[str, ...] = FILTERS, **integers: tuple[Any, int, int]) -> None:
    """Raise for a filter that isn't one of some, and for any of integers by name: (value, least, example)."""
    wrong = f"expected filter as one of {', '.join(map(repr, filters))}, got {filter!r}"
    problems: list[str | Problem] = [] if filter in filters else [wrong]
    for name, (value, least, example) in integers.items():
        if not isinstance(value, (int, np.integer)) or value < least:
            problems.append(
                Problem(f"expected {name} as an integer of at least {least}, got {value!r}", f"e.g. {example}")
            )
    raise_problems(InputError, "", problems)


def along_frames(kernel: Any, data: xr.DataArray, dims: list[str], sizes: dict[str, int], **arguments: Any) -> Any:
    """A kernel from some dims to others of given sizes, which come last; one task a chunk of what remains."""
    if data.chunks is not None:
        data = data.chunk(dict.fromkeys(dims, -1))
    return xr.apply_ufunc(
        kernel,
        data,
        kwargs=arguments,
        input_core_dims=[dims],
        output_core_dims=[list(sizes)],
        dask="parallelized",
        dask_gufunc_kwargs={"output_sizes": sizes},
        output_dtypes=[np.float32],
        keep_attrs=True,
    )


def _render(frames: NDArray[Any], *, extent: int, kernel_size: int, filter: str) -> NDArray[np.float32]:
    """(..., y, x) to (..., column), a batch of frames at a time."""
    *outer, height, width = frames.shape
    boxes = _Boxes.compiled(extent, kernel_size, height, width)
    seen = frames.reshape(-1, height, width)[:, boxes.y.window, boxes.x.window]
    out = np.empty((len(seen), hexgrid.n_columns(extent)), np.float32)
    kernel = boxes.median if filter == "median" else boxes.sum
    batch = 1 if filter == "median" else max(1, _BATCH_BYTES // (8 * math.prod(seen.shape[1:])))
    for start in range(0, len(seen), batch):
        part = np.ascontiguousarray(seen[start : start + batch])
        if part.dtype != np.uint8:
            raise_problems(schema.SchemaError, "not a movie", schema.luminance_problems(part))
        out[start : start + batch] = kernel(part.astype(np.float32, copy=False))
    scale = (kernel_size**2 if filter == "mean" else 1) * (255 if frames.dtype == np.uint8 else 1)
    return np.divide(out, scale, out=out).reshape(*outer, -1)


def _backproject(
    columns: NDArray[Any], *, extent: int, kernel_size: int, filter: str, height: int, width: int, normalize: bool
) -> NDArray[np.float32]:
    """(..., column) to (..., y, x)."""
    transpose = _operator(extent, kernel_size, height, width, filter).T
    total = transpose.sum(axis=1) if normalize else np.ones(1, np.float32)
    total[total == 0] = 1
    flat = columns.reshape(-1, columns.shape[-1]).astype(np.float32, copy=False)
    out = np.empty((len(flat), height * width), np.float32)
    for frame, values in zip(out, flat, strict=True):
        np.divide(transpose @ values, total, out=frame)
    return out.reshape(*columns.shape[:-1], height, width)


@functools.lru_cache(maxsize=8)
def _operator(extent: int, kernel_size: int, height: int, width: int, filter: str) -> csr_array:
    """(column, pixel of the frame) weights, read-only."""
    weights = _Boxes.compiled(extent, kernel_size, height, width).products(slice(None), slice(None))
    weights.data /= kernel_size**2 if filter == "mean" else 1
    for array in (weights.data, weights.indices, weights.indptr):
        array.flags.writeable = False
    return weights


@dataclass(frozen=True)
class _Axis:
    """Boxes along one axis of a frame; those in a row share their place along y, those below each other along x."""

    weights: NDArray[np.float32]  # (place, pixel), of each pixel of the frame in the sum over a box
    place: NDArray[np.int64]  # (column,), index into the places
    window: slice  # pixels of the frame that boxes see: all, or those in the middle
    resize: csr_array | None  # (resized pixel, pixel)
    size: int  # of the window, or of the resized frame
    pixels: NDArray[np.int64]  # (column, offset), of the box of a median, counted in the window or the resized frame

    @classmethod
    def of(cls, centers: NDArray[np.int64], kernel_size: int, size: int, edge: int | None) -> _Axis:
        length = edge or size
        places, place = np.unique(centers + length // 2, return_inverse=True)
        # quirk: an even box reaches one pixel further to the left and the top, for the median to the right and bottom
        more, less = kernel_size // 2, (kernel_size - 1) // 2
        # quirk: what lies outside the frame counts as 0 and not as missing, so columns at the rim are too dark
        weights = np.abs(np.arange(length) - places[:, None] + (more - less) / 2) <= (more + less) / 2
        # quirk: the median sees the frame mirrored there
        pixels = np.pad(range(length), (less, more), mode="reflect")[places[place][:, None] + np.arange(kernel_size)]
        if edge:
            from scipy import sparse

            resize = bilinear(size, edge)
            weights, resize = weights @ resize, sparse.csr_array(resize, dtype=np.float32)
            return cls(weights.astype(np.float32), place, slice(size), resize, edge, pixels)
        start, stop = max(0, places[0] - more), min(size, places[-1] + more + 1)
        return cls(weights.astype(np.float32), place, slice(start, stop), None, stop - start, pixels - start)


@dataclass(frozen=True)
class _Boxes:
    """Boxes over frames of one size.

    Resizing and summing over a box are both products of a part along y and a part along x. At extent 15 there are 61
    places along y and 31 along x; 721 of their 1,891 products are columns.
    """

    y: _Axis
    x: _Axis
    place: NDArray[np.int64]  # (column,), index into the products

    @classmethod
    @functools.lru_cache(maxsize=8)
    def compiled(cls, extent: int, kernel_size: int, height: int, width: int) -> _Boxes:
        eye = BoxEye(extent, kernel_size)
        # quirk: one direction too small, and both are resized; that may shrink the other
        resized = eye.min_frame_size if min(height, width) < eye.min_frame_size else None
        y = _Axis.of(eye.receptor_centers[:, 0], kernel_size, height, resized)
        x = _Axis.of(eye.receptor_centers[:, 1], kernel_size, width, resized)
        return cls(y, x, y.place * len(x.weights) + x.place)

    @functools.cached_property
    def pixels(self) -> NDArray[np.int64]:
        """(column, value) index of the pixels of a median."""
        indices = self.y.pixels[:, :, None] * self.x.size + self.x.pixels[:, None, :]
        return indices.reshape(len(indices), -1)

    def products(self, y: slice, x: slice) -> csr_array:
        """(column, pixel) weights of the sum over a box, for the pixels of a part of the frame."""
        from scipy import sparse

        return sparse.kron(sparse.csr_array(self.y.weights[:, y]), self.x.weights[:, x], format="csr")[self.place]

    @functools.cached_property
    def window(self) -> csr_array:
        """(column, pixel of the window) weights of the sum over a box."""
        return self.products(self.y.window, self.x.window)

    def sum(self, seen: NDArray[np.float32]) -> NDArray[np.float32]:
        """Windows of frames (frame, y, x) to (frame, column)."""
        return np.asarray(self.window @ seen.reshape(len(seen), -1).T).T

    def median(self, seen: NDArray[np.float32]) -> NDArray[np.float32]:
        """Windows of frames (frame, y, x) to (frame, column)."""
        if self.y.resize is not None and self.x.resize is not None:
            seen = np.stack([self.y.resize @ (self.x.resize @ frame.T).T for frame in seen])
        values = np.take(seen.reshape(len(seen), -1), self.pixels, axis=1)
        lower_middle = (values.shape[-1] - 1) // 2
        values.partition(lower_middle, axis=-1)
        return values[..., lower_middle]


def bilinear(size_in: int, size_out: int) -> NDArray[np.float64]:
    """(out, in) weights of bilinear resizing with half-pixel centres, widened to antialias where it shrinks."""
    # quirk: torch places the centres in float32, up to 4e-6 pixel off in a frame of 64; a median shows that
    scale = np.float32(size_in / size_out)
    centers = (np.float64(scale) * (np.arange(size_out) + 0.5)).astype(np.float32)
    distance = np.abs(np.arange(size_in, dtype=np.float32) - centers[:, None] + np.float32(0.5))
    weights = np.maximum(0, 1 - distance.astype(np.float64) / max(scale, 1))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))
