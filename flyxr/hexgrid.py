"""Axial coordinates of the hexagonal lattice of columns.

A lattice of extent ``e`` consists of the columns with ``|u|, |v|, |u + v| <= e``, sorted by u, then by v. The column
``u = v = 0`` is in its middle. NumPy only.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

from flyxr.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def n_columns(extent: int) -> int:
    """Count the columns of a lattice.

    Examples
    --------
    >>> n_columns(15)
    721
    """
    return 1 + 3 * extent * (extent + 1)


def extent_of(count: int) -> int:
    """Extent of the lattice with a given number of columns.

    Raises
    ------
    InputError
        A ValueError. If no lattice has that many columns; the message names the two nearest sizes.

    Examples
    --------
    >>> extent_of(721)
    15
    """
    extent = round((np.sqrt(max(12 * count - 3, 9)) - 3) / 6)
    if n_columns(extent) != count:
        below = max(extent - (n_columns(extent) > count), 0)
        raise InputError(
            f"{count} columns fill no hexagonal lattice: extent {below} has {n_columns(below)}, "
            f"extent {below + 1} has {n_columns(below + 1)}"
        )
    return int(extent)


def columns(extent: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Axial coordinates of all columns of a lattice.

    Returns
    -------
    u, v : (column,) int
        Sorted by u, then by v (``flyvis.utils.hex_utils.get_hex_coords``).

    Examples
    --------
    >>> columns(1)
    (array([-1, -1,  0,  0,  0,  1,  1]), array([ 0,  1, -1,  0,  1, -1,  0]))
    """
    axis = np.arange(-extent, extent + 1)
    u, v = (grid.ravel() for grid in np.meshgrid(axis, axis, indexing="ij"))
    inside = np.abs(u + v) <= extent
    return u[inside], v[inside]


def column_index(u: ArrayLike, v: ArrayLike, extent: int) -> NDArray[np.int64]:
    """Position of axial coordinates in the order of :func:`columns`; -1 outside the lattice.

    Examples
    --------
    >>> column_index([0, 2], [0, 0], extent=1)
    array([ 3, -1])
    """
    u, v = np.asarray(u), np.asarray(v)
    width = 2 * extent + 1
    table = np.full((width, width), -1)
    lattice_u, lattice_v = columns(extent)
    table[lattice_u + extent, lattice_v + extent] = np.arange(lattice_u.size)
    inside = (np.abs(u) <= extent) & (np.abs(v) <= extent)
    position = table[np.where(inside, u, 0) + extent, np.where(inside, v, 0) + extent]
    return np.where(inside, position, -1)


def locate_columns(
    extent: int, labels: ArrayLike, u: ArrayLike | None = None, v: ArrayLike | None = None
) -> NDArray[np.int64]:
    """Position of columns in the order of :func:`columns`, by u and v if both are given, else by label.

    Parameters
    ----------
    extent
        Radius of the lattice.
    labels : (column,)
        Labels of the columns; their positions if they have no labels.
    u, v : (column,) int, optional
        Axial coordinates of the columns.

    Returns
    -------
    (column,) int
        -1 for columns outside the lattice.

    Examples
    --------
    >>> locate_columns(1, [6, 0, 7])
    array([ 6,  0, -1])
    >>> locate_columns(1, [0, 1], u=[0, -1], v=[0, 0])
    array([3, 0])
    """
    if u is not None and v is not None:
        return column_index(u, v, extent)
    labels = np.asarray(labels)
    is_inside = (labels >= 0) & (labels < n_columns(extent))
    return np.where(is_inside, labels, np.int64(-1))


def positions(u: ArrayLike, v: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Positions of columns in the plane, in units of the distance between neighbours.

    Returns
    -------
    x, y : float
        x points to the right, y upward, as the eye sees the scene. This is
        ``flyvis.utils.hex_utils.hex_to_pixel`` in the mode "default", divided by sqrt(3), its distance of neighbours.

    Examples
    --------
    >>> x, y = positions([0, 1, 0], [0, 0, 1])
    >>> x.round(3), y
    (array([0.   , 0.   , 0.866]), array([ 0. , -1. , -0.5]))
    """
    u, v = np.asarray(u, dtype=float), np.asarray(v, dtype=float)
    return np.sqrt(3) / 2 * v, 0.0 - (u + v / 2)  # 0.0 minus the value: no negative zero in the middle


def column_coords(extent: int) -> dict[str, tuple[str, NDArray[np.generic]]]:
    """Coordinates of the dim ``column`` for a full lattice, ready for ``assign_coords``.

    Examples
    --------
    >>> sorted(column_coords(1))
    ['column', 'u', 'v', 'x_column', 'y_column']
    """
    u, v = columns(extent)
    x, y = positions(u, v)
    coords = {"column": np.arange(u.size), "u": u, "v": v, "x_column": x, "y_column": y}
    return {name: ("column", values) for name, values in coords.items()}


def hexagon() -> NDArray[np.float64]:
    """Corners of the hexagon that a column covers, relative to its centre.

    Returns
    -------
    (corner, axis) float
        Six corners x, y in units of the column pitch, counter-clockwise. Hexagons of neighbours share an edge.

    Examples
    --------
    >>> float(abs(hexagon()[:, 1]).max().round(6))
    0.5
    """
    angle = np.arange(6) * np.pi / 3
    corners: NDArray[np.float64] = np.stack([np.cos(angle), np.sin(angle)], axis=1) / np.sqrt(3)
    return corners


@functools.lru_cache(maxsize=8)
def pixel_to_hex(extent: int, pitch: int) -> NDArray[np.int32]:
    """Map each pixel of a square monitor to the column whose hexagon contains it (``flyvis.HexEye.is_inside``).

    The monitor is ``2 * extent + 1`` pitches high and wide. Vertical neighbours are one pitch apart, and so are the
    vertical lines of hexagons: the lattice is wider than :func:`positions` by a factor of 2 / sqrt(3). Some pixels
    between the hexagons, and those in the corners, belong to no hexagon.

    Parameters
    ----------
    extent
        Radius of the lattice.
    pitch
        Distance of hexagons, pixels.

    Returns
    -------
    (y, x) int
        Index into :func:`columns`, -1 outside all hexagons; y points downward. Read-only, since it is cached.

    Examples
    --------
    >>> pixels = pixel_to_hex(extent=15, pitch=25)
    >>> pixels.shape, int(pixels[387, 387]), int((pixels < 0).sum())
    ((775, 775), 360, 218242)
    """
    size = pitch * (2 * extent + 1)
    # quirk: half precision, which rounds positions beyond 512 to half a pixel; single where it would round to a pixel
    dtype = np.float16 if size <= 1024 else np.float32
    u, v = columns(extent)
    x_middle, y_middle = (size // 2 + pitch * v).astype(dtype), (size // 2 + pitch * (u + v / 2)).astype(dtype)
    third = dtype(np.pi) / dtype(3)
    rotation = np.array([[np.cos(third), -np.sin(third)], [np.sin(third), np.cos(third)]]).astype(np.float32)
    corners = [np.array([2 / np.sqrt(3) * float(dtype(pitch / 2)), 0]).astype(dtype)]
    for _ in range(6):
        corners.append((rotation @ corners[-1].astype(np.float32)).astype(dtype))

    # Test the pixels in a window around the middle of each hexagon: (hexagon, y, x).
    reach = int(np.ceil(pitch / np.sqrt(3))) + 2
    window = np.arange(-reach, reach + 1)
    row = y_middle.astype(np.int64)[:, None, None] + window[:, None]
    column = x_middle.astype(np.int64)[:, None, None] + window
    inside = (row >= 0) & (row < size) & (column >= 0) & (column < size)
    x, y = column.astype(dtype), row.astype(dtype)
    for first, second in zip(corners[:-1], corners[1:], strict=True):
        x1, y1, x2, y2 = first[0] + x_middle, first[1] + y_middle, second[0] + x_middle, second[1] + y_middle
        slope = (y2 - y1) / (x2 - x1)
        side_of_middle = np.sign(y1 + slope * (x_middle - x1) - y_middle)
        x1, y1, slope, side_of_middle = (values[:, None, None] for values in (x1, y1, slope, side_of_middle))
        inside &= np.sign(y1 + slope * (x - x1) - y) == side_of_middle
    hexagon_index, window_row, window_column = np.nonzero(inside)
    pixels = np.full((size, size), -1, np.int32)
    pixels[row[hexagon_index, window_row, 0], column[hexagon_index, 0, window_column]] = hexagon_index
    pixels.flags.writeable = False
    return pixels
