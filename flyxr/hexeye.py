"""The exact hexagonal eye: each column sees the pixels within its hexagon."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr

from flyxr import hexgrid, provenance, schema
from flyxr.errors import raise_problems
from flyxr.eye import FILTERS, along_frames, bilinear, check_arguments

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_array

_BATCH_BYTES = 2**23  # working memory of a batch of frames


@dataclass(frozen=True)
class HexEye:
    """Hexagons of pixels around the centres of columns, where the boxes of BoxEye are too coarse (``flyvis.HexEye``).

    A column sees the pixels of :func:`flyxr.hexgrid.pixel_to_hex` and nothing else: no pixel counts in two columns,
    there is no dark rim, and some pixels between the hexagons count in none.

    Parameters
    ----------
    extent
        Radius of the hexagonal lattice, in columns.
    kernel_size
        Distance of neighbouring hexagons, pixel; at least 3.

    Raises
    ------
    ValueError
        If ``extent`` is no integer of at least 0 or ``kernel_size`` none of at least 3.

    Examples
    --------
    >>> HexEye().n_columns, HexEye().frame_size
    (721, 775)
    """

    extent: int = 15
    kernel_size: int = 25

    def __post_init__(self) -> None:
        check_arguments(extent=(self.extent, 0, 15), kernel_size=(self.kernel_size, 3, 25))

    @property
    def n_columns(self) -> int:
        """Number of columns."""
        return hexgrid.n_columns(self.extent)

    @property
    def frame_size(self) -> int:
        """Height and width, in pixels, of the monitor that the hexagons fill."""
        return self.kernel_size * (2 * self.extent + 1)

    def render(self, movie: xr.Dataset | xr.DataArray, filter: Literal["mean", "sum"] = "mean") -> xr.Dataset:
        """What each column receives of a movie.

        A frame that is smaller than :attr:`frame_size` in any direction is resized to it in both, bilinear with
        antialiasing, so that its aspect ratio is lost. A larger frame is seen in its middle only.

        Parameters
        ----------
        movie
            ``luminance`` (sample, time, y, x), float from 0 to 1, or uint8, which is divided by 255.
        filter
            Mean or sum of the pixels in a hexagon.

        Returns
        -------
        Dataset
            ``luminance`` (sample, time, column), float32; coordinates and attrs of the movie carry over.
            Lazy if the movie is, with one task for each of its chunks along ``sample`` and ``time``.

        Raises
        ------
        SchemaError
            If the movie is not one, or where seen has NaN or values outside 0 to 1: if it is lazy, when computed.
        ValueError
            If the filter is another.

        Examples
        --------
        >>> from flyxr.stimuli import from_array
        >>> movie = from_array(np.full((1, 2, 64, 64), 0.5), frame_rate=50)
        >>> rendering = HexEye(extent=2, kernel_size=9).render(movie)
        >>> dict(rendering.luminance.sizes), float(rendering.luminance.isel(sample=0, time=0, column=9))
        ({'sample': 1, 'time': 2, 'column': 19}, 0.5)
        """
        check_arguments(filter, FILTERS[:2])
        movie = schema.validate(movie, "movie", integer_luminance=True)
        arguments = {"extent": int(self.extent), "kernel_size": int(self.kernel_size), "filter": filter}
        columns = along_frames(_render, movie["luminance"], ["y", "x"], {"column": self.n_columns}, **arguments)
        rendering = xr.Dataset({"luminance": columns}, hexgrid.column_coords(self.extent), movie.attrs)
        return provenance.add(schema.annotate(rendering, "rendering"), "render", {"eye": "HexEye", **arguments})

    def operator(self, height: int, width: int, filter: Literal["mean", "sum"] = "mean") -> csr_array:
        """What the eye does to frames of one size, as a sparse matrix: resizing and hexagons in one.

        Parameters
        ----------
        height, width
            Of the frames, pixel.
        filter
            Mean or sum of the pixels in a hexagon.

        Returns
        -------
        scipy.sparse.csr_array
            (column, pixel) float32, pixels row by row from the top left. ``operator @ frame.ravel()`` is what
            :meth:`render` gives of a frame, to an error of rounding. Built once for a size, read-only.

        Raises
        ------
        ValueError
            If one of the arguments is none of these.

        Examples
        --------
        >>> operator = HexEye(extent=2, kernel_size=9).operator(64, 48)
        >>> operator.shape, int(operator.nnz), operator.sum(axis=1)[9].round(6)
        ((19, 3072), 1287, np.float32(1.0))
        """
        check_arguments(filter, FILTERS[:2], height=(height, 1, 64), width=(width, 1, 64))
        return _operator(int(self.extent), int(self.kernel_size), int(height), int(width), filter)


def _window(size: int, frame: int) -> slice:
    """Pixels of a larger frame that the monitor shows, along one direction."""
    start = frame // 2 - size // 2
    return slice(start, start + size)


@functools.lru_cache(maxsize=8)
def _sums(extent: int, kernel_size: int, height: int, width: int) -> csr_array:
    """(column, pixel seen) weights of the sum over a hexagon; of larger frames the middle is seen."""
    from scipy import sparse

    pixels = hexgrid.pixel_to_hex(extent, kernel_size).ravel()
    seen = np.flatnonzero(pixels >= 0)
    shape = (hexgrid.n_columns(extent), pixels.size)
    sums = sparse.csr_array((np.ones(seen.size, np.float32), (pixels[seen], seen)), shape=shape)
    size = kernel_size * (2 * extent + 1)
    if min(height, width) < size:
        rows, columns = (sparse.csr_array(bilinear(length, size), dtype=np.float32) for length in (height, width))
        sums = sparse.csr_array(sums @ sparse.kron(rows, columns, format="csr"))
    return sums


def _n_pixels(extent: int, kernel_size: int) -> NDArray[np.int64]:
    """(column,) pixels in each hexagon (``flyvis.HexEye.kernel_sum``)."""
    pixels = hexgrid.pixel_to_hex(extent, kernel_size)
    return np.bincount(pixels[pixels >= 0], minlength=hexgrid.n_columns(extent))


@functools.lru_cache(maxsize=8)
def _operator(extent: int, kernel_size: int, height: int, width: int, filter: str) -> csr_array:
    """(column, pixel of the frame) weights, read-only."""
    from scipy import sparse

    weights = _sums(extent, kernel_size, height, width).copy()
    if filter == "mean":
        weights.data /= np.repeat(_n_pixels(extent, kernel_size), np.diff(weights.indptr)).astype(np.float32)
    size = kernel_size * (2 * extent + 1)
    if min(height, width) >= size:
        row, column = np.divmod(weights.indices, size)
        place = (row + _window(size, height).start) * width + column + _window(size, width).start
        shape = (weights.shape[0], height * width)
        weights = sparse.csr_array((weights.data, place, weights.indptr), shape=shape)
    for array in (weights.data, weights.indices, weights.indptr):
        array.flags.writeable = False
    return weights


def _render(frames: NDArray[Any], *, extent: int, kernel_size: int, filter: str) -> NDArray[np.float32]:
    """(..., y, x) to (..., column), a batch of frames at a time."""
    *outer, height, width = frames.shape
    size = kernel_size * (2 * extent + 1)
    seen = frames.reshape(-1, height, width)
    if min(height, width) >= size:
        seen = seen[:, _window(size, height), _window(size, width)]
    sums = _sums(extent, kernel_size, height, width)
    out = np.empty((len(seen), len(_n_pixels(extent, kernel_size))), np.float32)
    batch = max(1, _BATCH_BYTES // (4 * sums.shape[1]))
    for start in range(0, len(seen), batch):
        part = seen[start : start + batch]
        if part.dtype != np.uint8:
            raise_problems(schema.SchemaError, "not a movie", schema.luminance_problems(part))
        out[start : start + batch] = (sums @ part.reshape(len(part), -1).astype(np.float32, copy=False).T).T
    n_pixels = _n_pixels(extent, kernel_size) if filter == "mean" else 1
    scale = np.float32(n_pixels) * np.float32(255 if frames.dtype == np.uint8 else 1)
    return np.divide(out, scale, out=out).reshape(*outer, -1)
