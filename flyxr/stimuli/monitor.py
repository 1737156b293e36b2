"""Pictures of edges and bars on flyvis's monitor, as its hexagonal eye sees them.

In a picture, the edge or bar covers a pixel wholly, not at all or, at its rim, in part. The coverage of a column is the
mean over the pixels in its hexagon.

flyvis draws a picture at angle 0 and rotates it with Pillow in 8-bit greys. Here the coordinates of the eye's pixels
are rotated to those of an edge at angle 0, which gives the same coverage as bilinear interpolation of the rotated
picture. With the 8-bit step applied to these pixels, the numbers are flyvis's to 3e-8 (the tests do so). The step is
omitted because it darkens the whole field by half a grey level (0.5 becomes 127/255) at onset.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from flyxr import hexgrid
from flyxr.optics import DEGREES_PER_COLUMN, DEGREES_PER_LED, EXTENT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

PITCH = 25
"""Distance between neighbouring columns on flyvis's monitor, whose extent is 15, pixels."""
MIDDLE = PITCH * (2 * EXTENT + 1) // 2
"""Row and column of the middle of flyvis's monitor, pixels."""
FULL_FIELD = 180.0
"""Width or height of edges and bars that fill the monitor, degrees."""


class BarPath(NamedTuple):
    """Positions at which an edge or bar is drawn, and its size."""

    angle: float  # degrees
    width: float  # degrees; infinite for an edge
    height: float  # degrees
    first: float  # LEDs
    n_positions: int
    extent: int


class MonitorPixels(NamedTuple):
    """Pixels in hexagons, sorted by column of the lattice."""

    row: NDArray[np.int64]  # (pixel,), in flyvis's monitor, downward
    column: NDArray[np.int64]  # (pixel,)
    start: NDArray[np.int64]  # (column,) first pixel of each hexagon

    def mean(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Mean over the pixels of each hexagon, (pixel,) to (column,)."""
        n_pixels = np.diff(self.start, append=values.size)
        return np.asarray(np.add.reduceat(values, self.start) / n_pixels)


@functools.lru_cache(maxsize=4)
def monitor_pixels(extent: int) -> MonitorPixels:
    """Pixels of flyvis's monitor that the columns of a lattice see."""
    # a smaller lattice is the middle of flyvis's eye, so that a column sees the same in both
    eye_extent = max(extent, EXTENT)
    u, v = hexgrid.columns(extent)
    lattice_index = np.full(hexgrid.n_columns(eye_extent) + 1, -1)  # the last is that of pixels in no hexagon
    lattice_index[hexgrid.column_index(u, v, eye_extent)] = np.arange(u.size)
    index = lattice_index[hexgrid.pixel_to_hex(eye_extent, PITCH)]
    row, column = np.nonzero(index >= 0)
    index = index[row, column]
    order = np.argsort(index, kind="stable")
    margin = PITCH * (eye_extent - EXTENT)
    start = np.searchsorted(index[order], np.arange(u.size))
    return MonitorPixels(row[order] - margin, column[order] - margin, start)


def rotate(pixels: MonitorPixels, angle: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coordinates of pixels along and across the direction of motion, in pixels of the picture at angle 0."""
    # rounded as in Pillow, so that right angles keep whole pixels
    rotation = -math.radians(angle % 360)
    cos, sin = round(math.cos(rotation), 15), round(math.sin(rotation), 15)
    right, down = pixels.column - MIDDLE, pixels.row - MIDDLE
    return cos * right + sin * down + MIDDLE, cos * down - sin * right + MIDDLE


def overlap(position: NDArray[np.float64], start: float, stop: float) -> NDArray[np.float64]:
    """Fraction of a pixel at each position that lies in the pixels start to stop - 1, interpolated."""
    return np.clip(position - (start - 1), 0, 1) - np.clip(position - (stop - 1), 0, 1)


def pixel_coverage(path: BarPath) -> Iterator[NDArray[np.float64]]:
    """Covered fraction of each pixel in a hexagon, (pixel,), for one position after the other."""
    along, across = rotate(monitor_pixels(path.extent), path.angle)
    size = 2 * MIDDLE + 1
    is_edge = math.isinf(path.width)

    def to_pixels(degrees: float) -> int:
        return int(math.radians(degrees) / np.radians(DEGREES_PER_COLUMN) * PITCH)

    overlap_across = np.ones(along.size)
    if path.height < FULL_FIELD:
        height = to_pixels(path.height)
        overlap_across = overlap(across, int(MIDDLE - height / 2), int(MIDDLE + height / 2) + 1)
    # an edge is a bar as wide as the monitor that starts to the left of it
    width = to_pixels(FULL_FIELD if is_edge else path.width)
    middle = 0.0 if is_edge else np.radians(90)
    for led in range(path.n_positions):
        # quirk: positions assume a monitor of 180 degrees, which is 31 columns of 5.81 and not 5.8 degrees, and are
        # truncated to whole pixels, toward zero
        position = int(size * (middle + (path.first + led) * np.radians(DEGREES_PER_LED)) / np.radians(180))
        start = int(position - width / 2)
        stop = start + width + 1
        yield overlap(along, -math.inf if is_edge else start, stop) * overlap_across


@functools.lru_cache(maxsize=64)
def column_coverage(path: BarPath) -> NDArray[np.float64]:
    """Covered fraction of each column at each position, (position, column), read-only."""
    pixels = monitor_pixels(path.extent)
    coverage = np.stack([pixels.mean(picture) for picture in pixel_coverage(path)])
    coverage.flags.writeable = False
    return coverage
