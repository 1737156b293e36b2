"""The eye of the published models: each column sees the pixels in a square box."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from flyxr import hexgrid
from flyxr.eye import base
from flyxr.optics import EXTENT

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray
    from scipy.sparse import csr_array

BATCH_BYTES = 2**18
"""Working memory of a batch of frames, which stays in the cache from one pass to the next."""


@dataclass(frozen=True)
class BoxEye:
    """Square boxes of pixels around the centres of hexagonal columns (Lappalainen et al. 2024; ``flyvis.BoxEye``).

    Parameters
    ----------
    extent
        Radius of the hexagonal lattice, columns; 15 gives the 721 columns that the published models see.
    kernel_size
        Edge of a box and distance between neighbouring boxes, pixels.

    Raises
    ------
    ValueError
        If ``extent`` is not an integer of at least 0, or ``kernel_size`` not one of at least 1.

    Examples
    --------
    >>> BoxEye().n_columns, BoxEye().min_frame_size
    (721, 391)
    """

    extent: int = EXTENT
    kernel_size: int = 13

    def __post_init__(self) -> None:
        extent, kernel_size = base.check_arguments(
            extent=(self.extent, 0, EXTENT), kernel_size=(self.kernel_size, 1, 13)
        )
        object.__setattr__(self, "extent", extent)  # may be NumPy's
        object.__setattr__(self, "kernel_size", kernel_size)

    @property
    def n_columns(self) -> int:
        """Number of columns."""
        return hexgrid.n_columns(self.extent)

    @property
    def receptor_centers(self) -> NDArray[np.int64]:
        """Centres of the boxes, (column, axis): y downward and x, in pixels from the middle of the frame.

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
        """Smallest height and width of frames that are not resized, pixels."""
        # quirk: from centre to centre, without the outer half of the boxes at the rim
        return 2 * self.extent * self.kernel_size + 1

    def render(self, movie: xr.Dataset | xr.DataArray, filter: base.Filter = "mean") -> xr.Dataset:
        """Render a movie onto the columns.

        A frame smaller than :attr:`min_frame_size` in either direction is resized to it in both, bilinear with
        antialiasing, which changes its aspect ratio. Of a larger frame only the middle is seen: pixels outside the
        rectangle around all boxes are neither read nor checked. Boxes that reach beyond the frame see darkness there
        (zeros) with ``"mean"`` and ``"sum"``, and the mirrored frame with ``"median"``.

        Parameters
        ----------
        movie
            ``luminance`` (sample, time, y, x), float from 0 to 1, or uint8, which is divided by 255.
        filter
            Mean, sum or median of the pixels in a box. The median of an even number is the lower of the two middle
            values.

        Returns
        -------
        Dataset
            ``luminance`` (sample, time, column), float32, with the coordinates and attrs of the movie, and without the
            dims that were selected away from it. Lazy if the movie is, with one task for each of its chunks along
            ``sample`` and ``time``; coordinates are in memory.

        Raises
        ------
        SchemaError
            If ``movie`` is not a movie, or has NaN or values outside 0 to 1 where the eye looks. In a lazy movie,
            values are checked when they are computed.
        ValueError
            If the filter is unknown.

        Examples
        --------
        >>> from flyxr.stimuli import from_array
        >>> movie = from_array(np.full((1, 2, 64, 64), 0.5), frame_rate=50)
        >>> rendering = BoxEye(extent=2, kernel_size=5).render(movie)
        >>> dict(rendering.luminance.sizes), float(rendering.luminance.isel(sample=0, time=0, column=9))
        ({'sample': 1, 'time': 2, 'column': 19}, 0.5)
        """
        base.check_arguments(filter, base.FILTERS)
        return base.render_movie(self, render_frames, movie, filter)

    def operator(self, height: int, width: int, filter: base.LinearFilter = "mean") -> csr_array:
        """Return the eye as a sparse matrix for frames of one size: resizing, boxes and sampling in one.

        ``operator @ frame.ravel()`` equals :meth:`render` of that frame up to rounding. A row sums to 1 with
        ``"mean"``, and to less where a box reaches beyond the frame: for 34 columns at extent 15 without a margin,
        down to 7/13.

        Parameters
        ----------
        height, width
            Size of the frames, pixels.
        filter
            Mean or sum of the pixels in a box; the median is not linear.

        Returns
        -------
        scipy.sparse.csr_array
            (column, pixel) float32, pixels row by row from the top left. Built once for a size: each call returns the
            same read-only object.

        Raises
        ------
        ValueError
            If the filter is unknown or not linear, or a size is not a positive integer.

        Examples
        --------
        >>> operator = BoxEye(extent=2, kernel_size=5).operator(64, 48)
        >>> operator.shape, operator.nnz, operator.sum(axis=1)[9]
        ((19, 3072), 475, np.float32(1.0))
        """
        height, width = base.check_arguments(filter, base.LINEAR_FILTERS, height=(height, 1, 64), width=(width, 1, 64))
        return _operator(self, height, width, filter)

    def backproject(
        self,
        rendering: base.Columns,
        height: int,
        width: int,
        filter: base.LinearFilter = "mean",
        *,
        normalize: bool = False,
    ) -> base.Columns:
        """Project columns back onto the pixels they see: the transpose (adjoint) of :meth:`operator`, not an inverse.

        Each column adds its value to pixels by the weights with which it sees them; pixels that no column sees are 0.
        The sum of ``render(movie) * rendering`` equals that of ``movie * backproject(rendering)``, so a gradient with
        respect to columns becomes one with respect to pixels.

        Parameters
        ----------
        rendering
            Data with the dim ``column``, e.g. ``luminance`` (sample, time, column) or responses. Columns are matched
            by ``u`` and ``v``, without these by the label ``column``, or else by position. Variables of a Dataset
            without this dim are kept.
        height, width, filter
            As for :meth:`operator`.
        normalize
            Divide each pixel by its sum of weights. The result is a picture and no longer the adjoint: pixels are
            weighted means of the columns that see them, so that a constant stays constant.

        Returns
        -------
        Dataset or DataArray
            As given, with (…, y, x) in place of (…, column), float32. A rendering becomes a movie by names and dims;
            its values are only sure to lie from 0 to 1 if the rendering's do and ``normalize`` is set. Lazy if the
            rendering is; a chunk grows by ``height * width / n_columns``.

        Raises
        ------
        SchemaError
            If there is no dim ``column``, or its columns are not those of this eye.
        ValueError
            As for :meth:`operator`.

        Examples
        --------
        >>> import xarray as xr
        >>> grey = xr.DataArray(np.full(19, 0.5), dims="column")
        >>> frame = BoxEye(extent=2, kernel_size=5).backproject(grey, 30, 40, normalize=True)
        >>> dict(frame.sizes), float(frame[15, 20]), float(frame[0, 0])
        ({'y': 30, 'x': 40}, 0.5, 0.0)
        """
        return base.backproject(self, rendering, height, width, filter, normalize)

    def illustrate(self, height: int | None = None, width: int | None = None) -> Any:
        """Draw boxes and receptors over the frame, as a HoloViews overlay.

        Parameters
        ----------
        height, width
            Size of the frames, pixels; :attr:`min_frame_size` if None. A frame that the eye resizes is drawn as
            resized.

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

        minimum = self.min_frame_size
        height, width = base.check_arguments(
            height=(minimum if height is None else height, 1, minimum),
            width=(minimum if width is None else width, 1, minimum),
        )
        if min(height, width) < minimum:
            height = width = minimum
        before = self.kernel_size // 2
        # a pixel is a square of edge 1, and row 0 is at the top
        left = self.receptor_centers[:, 1] + width // 2 - before
        top = height - (self.receptor_centers[:, 0] + height // 2 - before)
        corners = (left, top - self.kernel_size, left + self.kernel_size, top)

        def draw(labels: dict[str, Any], kdims: list[Any], vdims: list[str]) -> Any:
            edges = ["left", "bottom", "right", "top"]
            return hv.Rectangles((*corners, *labels.values()), kdims=edges, vdims=vdims)

        return base.draw_fields(self, (height, width), draw, (left + before + 0.5, top - before - 0.5))


def render_frames(
    frames: NDArray[Any], *, eye: BoxEye, filter: base.Filter, batch_bytes: int = BATCH_BYTES
) -> NDArray[np.float32]:
    """Render (…, y, x) to (…, column), a batch of frames at a time."""
    *outer, height, width = frames.shape
    boxes = _Boxes.compiled(eye, height, width)
    window = frames.reshape(-1, height, width)[:, boxes.y.window, boxes.x.window]
    kernel = boxes.median if filter == "median" else boxes.sum
    batch_size = 1 if filter == "median" else max(1, batch_bytes // (8 * math.prod(window.shape[1:])))
    out = base.sum_batches(window, eye.n_columns, kernel, batch_size)
    scale = (eye.kernel_size**2 if filter == "mean" else 1) * (255 if frames.dtype == np.uint8 else 1)
    return np.divide(out, scale, out=out).reshape(*outer, -1)


@functools.lru_cache(maxsize=8)
def _operator(eye: BoxEye, height: int, width: int, filter: str) -> csr_array:
    """(column, pixel of the frame) weights, read-only."""
    weights = _Boxes.compiled(eye, height, width).products(slice(None), slice(None))
    weights.data /= eye.kernel_size**2 if filter == "mean" else 1
    return base.make_read_only(weights)


@dataclass(frozen=True)
class _Axis:
    """Boxes along one axis of a frame; boxes side by side share their place along y, stacked boxes along x."""

    weights: NDArray[np.float32]  # (place, pixel), of each pixel of the frame in the sum over a box
    place: NDArray[np.int64]  # (column,), index into the places
    window: slice  # pixels of the frame that boxes see: all, or those in the middle
    resize: csr_array | None  # (resized pixel, pixel)
    size: int  # of the window, or of the resized frame
    pixels: NDArray[np.int64]  # (column, offset), of the box of a median, counted in the window or the resized frame

    @classmethod
    def compiled(cls, centers: NDArray[np.int64], kernel_size: int, size: int, resized: int | None) -> _Axis:
        """Place boxes with the given centres along an axis of ``size`` pixels, ``resized`` to others if not None."""
        length = resized or size
        places, place = np.unique(centers + length // 2, return_inverse=True)
        # quirk: an even box reaches one pixel further to the left and the top, for the median to the right and bottom
        before, after = kernel_size // 2, (kernel_size - 1) // 2
        # quirk: pixels outside the frame count as 0 and not as missing, so columns at the rim are too dark
        weights = np.abs(np.arange(length) - places[:, None] + (before - after) / 2) <= (before + after) / 2
        # quirk: the median sees the frame mirrored there
        padded = np.pad(range(length), (after, before), mode="reflect")
        pixels = padded[places[place][:, None] + np.arange(kernel_size)]
        if resized:
            from scipy import sparse

            resize = base.bilinear(size, resized)
            weights, resize = weights @ resize, sparse.csr_array(resize, dtype=np.float32)
            return cls(weights.astype(np.float32), place, slice(size), resize, resized, pixels)
        start, stop = max(0, places[0] - before), min(size, places[-1] + before + 1)
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
    def compiled(cls, eye: BoxEye, height: int, width: int) -> _Boxes:
        # quirk: one direction too small, and both are resized; that may shrink the other
        resized = eye.min_frame_size if min(height, width) < eye.min_frame_size else None
        y = _Axis.compiled(eye.receptor_centers[:, 0], eye.kernel_size, height, resized)
        x = _Axis.compiled(eye.receptor_centers[:, 1], eye.kernel_size, width, resized)
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

    def sum(self, frames: NDArray[np.float32]) -> NDArray[np.float32]:
        """Sum over boxes, from windows of frames (frame, y, x) to (frame, column)."""
        return np.asarray(self.window @ frames.reshape(len(frames), -1).T).T

    def median(self, frames: NDArray[np.float32]) -> NDArray[np.float32]:
        """Median over boxes, from windows of frames (frame, y, x) to (frame, column)."""
        if self.y.resize is not None and self.x.resize is not None:
            frames = np.stack([self.y.resize @ (self.x.resize @ frame.T).T for frame in frames])
        values = np.take(frames.reshape(len(frames), -1), self.pixels, axis=1)
        lower_middle = (values.shape[-1] - 1) // 2
        values.partition(lower_middle, axis=-1)
        return values[..., lower_middle]
