"""The exact hexagonal eye: each column sees the pixels within its hexagon."""

from __future__ import annotations

import functools
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

BATCH_BYTES = 2**23
"""Working memory of a batch of frames."""


@dataclass(frozen=True)
class HexEye:
    """Hexagons of pixels around the centres of columns, exact where BoxEye is coarse (``flyvis.HexEye``).

    A column sees the pixels that :func:`flyxr.hexgrid.pixel_to_hex` assigns to it: no pixel counts in two columns,
    there is no dark rim, and some pixels between the hexagons count in none.

    Parameters
    ----------
    extent
        Radius of the hexagonal lattice, columns.
    kernel_size
        Distance between neighbouring hexagons, pixels; at least 3.

    Raises
    ------
    ValueError
        If ``extent`` is not an integer of at least 0, or ``kernel_size`` not one of at least 3.

    Examples
    --------
    >>> HexEye().n_columns, HexEye().frame_size
    (721, 775)
    """

    extent: int = EXTENT
    kernel_size: int = 25

    def __post_init__(self) -> None:
        extent, kernel_size = base.check_arguments(
            extent=(self.extent, 0, EXTENT), kernel_size=(self.kernel_size, 3, 25)
        )
        object.__setattr__(self, "extent", extent)  # may be NumPy's
        object.__setattr__(self, "kernel_size", kernel_size)

    @property
    def n_columns(self) -> int:
        """Number of columns."""
        return hexgrid.n_columns(self.extent)

    @property
    def frame_size(self) -> int:
        """Height and width of the monitor that the hexagons fill, pixels."""
        return self.kernel_size * (2 * self.extent + 1)

    def render(self, movie: xr.Dataset | xr.DataArray, filter: base.LinearFilter = "mean") -> xr.Dataset:
        """Render a movie onto the columns.

        A frame smaller than :attr:`frame_size` in either direction is resized to it in both, bilinear with
        antialiasing, which changes its aspect ratio. Of a larger frame only the middle is seen.

        Parameters
        ----------
        movie
            ``luminance`` (sample, time, y, x), float from 0 to 1, or uint8, which is divided by 255.
        filter
            Mean or sum of the pixels in a hexagon.

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
        >>> rendering = HexEye(extent=2, kernel_size=9).render(movie)
        >>> dict(rendering.luminance.sizes), float(rendering.luminance.isel(sample=0, time=0, column=9))
        ({'sample': 1, 'time': 2, 'column': 19}, 0.5)
        """
        base.check_arguments(filter, base.LINEAR_FILTERS)
        return base.render_movie(self, render_frames, movie, filter)

    def operator(self, height: int, width: int, filter: base.LinearFilter = "mean") -> csr_array:
        """Return the eye as a sparse matrix for frames of one size: resizing and hexagons in one.

        ``operator @ frame.ravel()`` equals :meth:`render` of that frame up to rounding.

        Parameters
        ----------
        height, width
            Size of the frames, pixels.
        filter
            Mean or sum of the pixels in a hexagon.

        Returns
        -------
        scipy.sparse.csr_array
            (column, pixel) float32, pixels row by row from the top left. Built once for a size: each call returns the
            same read-only object.

        Raises
        ------
        ValueError
            If the filter is unknown, or a size is not a positive integer.

        Examples
        --------
        >>> operator = HexEye(extent=2, kernel_size=9).operator(64, 48)
        >>> operator.shape, int(operator.nnz), operator.sum(axis=1)[9].round(6)
        ((19, 3072), 1287, np.float32(1.0))
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

        Each column adds its value to the pixels of its hexagon; pixels that no column sees are 0. The sum of
        ``render(movie) * rendering`` equals that of ``movie * backproject(rendering)``, so a gradient with respect to
        columns becomes one with respect to pixels.

        Parameters
        ----------
        rendering
            Data with the dim ``column``, e.g. ``luminance`` (sample, time, column) or responses. Columns are matched
            by ``u`` and ``v``, without these by the label ``column``, or else by position. Variables of a Dataset
            without this dim are kept.
        height, width, filter
            As for :meth:`operator`.
        normalize
            Divide each pixel by its sum of weights. The result is a picture and no longer the adjoint: each pixel has
            the value of its hexagon, or a weighted mean of several where frames are resized, so that a constant stays
            constant.

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
        >>> frame = HexEye(extent=2, kernel_size=9).backproject(grey, 45, 60, normalize=True)
        >>> dict(frame.sizes), float(frame[22, 30]), float(frame[0, 0])
        ({'y': 45, 'x': 60}, 0.5, 0.0)
        """
        return base.backproject(self, rendering, height, width, filter, normalize)

    def illustrate(self, height: int | None = None, width: int | None = None) -> Any:
        """Draw hexagons and receptors over the frame, as a HoloViews overlay.

        Parameters
        ----------
        height, width
            Size of the frames, pixels; :attr:`frame_size` if None. A frame that the eye resizes is drawn as resized.

        Returns
        -------
        holoviews.Overlay
            Bounds of the frame, a polygon for each hexagon and a point for each receptor, with the coordinates
            ``column``, ``u`` and ``v``; x to the right and y upward, in pixels from the lower left corner.

        Examples
        --------
        >>> [type(element).__name__ for element in HexEye(extent=2, kernel_size=9).illustrate()]
        ['Bounds', 'Polygons', 'Points']
        """
        import holoviews as hv

        size = self.frame_size
        height, width = base.check_arguments(
            height=(size if height is None else height, 1, size), width=(size if width is None else width, 1, size)
        )
        if min(height, width) < size:
            height = width = size
        u, v = hexgrid.columns(self.extent)
        # a pixel is a square of edge 1 whose middle is at half a pixel, and row 0 is at the top
        x = _window(size, width).start + size // 2 + self.kernel_size * v + 0.5
        y = height - (_window(size, height).start + size // 2 + self.kernel_size * (u + v / 2) + 0.5)
        corners = self.kernel_size * hexgrid.hexagon()

        def draw(labels: dict[str, Any], kdims: list[Any], vdims: list[str]) -> Any:
            hexagons = [
                {"x": x[i] + corners[:, 0], "y": y[i] + corners[:, 1]}
                | {name: values[i] for name, values in labels.items()}
                for i in range(self.n_columns)
            ]
            return hv.Polygons(hexagons, kdims=kdims, vdims=vdims)

        return base.draw_fields(self, (height, width), draw, (x, y))


def render_frames(
    frames: NDArray[Any], *, eye: HexEye, filter: base.LinearFilter, batch_bytes: int = BATCH_BYTES
) -> NDArray[np.float32]:
    """Render (…, y, x) to (…, column), a batch of frames at a time."""
    *outer, height, width = frames.shape
    visible = frames.reshape(-1, height, width)
    if min(height, width) >= eye.frame_size:
        visible = visible[:, _window(eye.frame_size, height), _window(eye.frame_size, width)]
    sums = _sums(eye, height, width)

    def sum_pixels(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray((sums @ batch.reshape(len(batch), -1).T).T)

    out = base.sum_batches(visible, eye.n_columns, sum_pixels, max(1, batch_bytes // (4 * sums.shape[1])))
    n_pixels = _n_pixels(eye) if filter == "mean" else 1
    scale = np.float32(n_pixels) * np.float32(255 if frames.dtype == np.uint8 else 1)
    return np.divide(out, scale, out=out).reshape(*outer, -1)


def _window(size: int, frame_size: int) -> slice:
    """Pixels of a larger frame that the monitor shows, along one direction."""
    start = frame_size // 2 - size // 2
    return slice(start, start + size)


@functools.lru_cache(maxsize=8)
def _sums(eye: HexEye, height: int, width: int) -> csr_array:
    """(column, visible pixel) weights of the sum over a hexagon; of larger frames the middle is visible."""
    from scipy import sparse

    columns = hexgrid.pixel_to_hex(eye.extent, eye.kernel_size).ravel()
    inside = np.flatnonzero(columns >= 0)
    shape = (eye.n_columns, columns.size)
    sums = sparse.csr_array((np.ones(inside.size, np.float32), (columns[inside], inside)), shape=shape)
    size = eye.frame_size
    if min(height, width) < size:
        y, x = (sparse.csr_array(base.bilinear(length, size), dtype=np.float32) for length in (height, width))
        sums = sparse.csr_array(sums @ sparse.kron(y, x, format="csr"))
    return sums


def _n_pixels(eye: HexEye) -> NDArray[np.int64]:
    """(column,) pixels in each hexagon (``flyvis.HexEye.kernel_sum``)."""
    columns = hexgrid.pixel_to_hex(eye.extent, eye.kernel_size)
    return np.bincount(columns[columns >= 0], minlength=eye.n_columns)


@functools.lru_cache(maxsize=8)
def _operator(eye: HexEye, height: int, width: int, filter: str) -> csr_array:
    """(column, pixel of the frame) weights, read-only."""
    from scipy import sparse

    weights = _sums(eye, height, width).copy()
    if filter == "mean":
        weights.data /= np.repeat(_n_pixels(eye), np.diff(weights.indptr)).astype(np.float32)
    size = eye.frame_size
    if min(height, width) >= size:
        row, column = np.divmod(weights.indices, size)
        pixel = (row + _window(size, height).start) * width + column + _window(size, width).start
        shape = (weights.shape[0], height * width)
        weights = sparse.csr_array((weights.data, pixel, weights.indptr), shape=shape)
    return base.make_read_only(weights)
