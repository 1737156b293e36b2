"""Pixels of columns and of frames: each takes the colour of the column or of the value that it shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from flyxr.viz import colours

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from flyxr.viz.elements import Lattice
    from flyxr.viz.scenes import Panel

N_SUBPIXELS = 3
"""Subpixels along the edge of a pixel, whose colours are averaged, so that the edges of hexagons are smooth."""


def rgb(palette: list[str]) -> NDArray[np.uint8]:
    """Colours ``#rrggbb`` or names of CSS as (colour, channel).

    Examples
    --------
    >>> rgb(["#ff0010", "white"]).tolist()
    [[255, 0, 16], [255, 255, 255]]
    """
    from PIL import ImageColor

    return np.array([ImageColor.getrgb(colour)[:3] for colour in palette], dtype=np.uint8)


def colour_index(values: NDArray[Any], clim: tuple[float, float], n_colours: int) -> NDArray[np.int64]:
    """Position of the colour of each value, as Bokeh maps them; ``n_colours`` for NaN.

    Examples
    --------
    >>> colour_index(np.array([-9.0, 0.0, 0.5, 1.0, np.nan]), (0.0, 1.0), 4)
    array([0, 0, 2, 3, 4])
    """
    low, high = clim
    with np.errstate(invalid="ignore"):
        scaled = np.nan_to_num((values - low) / ((high - low) or 1.0), nan=0.0) * n_colours
    return np.where(np.isnan(values), n_colours, scaled.clip(0, n_colours - 1).astype(np.int64))


def column_of_pixel(lattice: Lattice, width: int, height: int) -> NDArray[np.int64]:
    """Position of the column that each pixel (row, pixel) of a picture shows, or -1 outside of all columns.

    Examples
    --------
    >>> from flyxr import hexgrid
    >>> from flyxr.viz.elements import Lattice
    >>> u, v = hexgrid.columns(1)
    >>> pixels = column_of_pixel(Lattice(np.arange(7), u, v, *hexgrid.positions(u, v)), 5, 5)
    >>> pixels[0, 0].item(), pixels[2, 2].item()
    (-1, 3)
    """
    xs, ys = lattice.corners()
    x = xs.min() + np.ptp(xs) * (np.arange(width) + 0.5) / width
    y = ys.max() - np.ptp(ys) * (np.arange(height) + 0.5) / height
    v = 2 * x[None, :] / np.sqrt(3)  # the inverse of hexgrid.positions
    u = -y[:, None] - v / 2
    # The column with the nearest middle: of the three axial coordinates, whose sum is 0, the one that was rounded most
    # follows from the others.
    axes = np.stack(np.broadcast_arrays(u, v, -u - v))
    rounded = np.rint(axes)
    error = np.abs(rounded - axes)
    is_u = (error[0] > error[1]) & (error[0] > error[2])
    is_v = ~is_u & (error[1] > error[2])
    u = np.where(is_u, -rounded[1] - rounded[2], rounded[0]).astype(np.int64)
    v = np.where(is_v, -rounded[0] - rounded[2], rounded[1]).astype(np.int64)
    first_u, first_v = lattice.u.min(), lattice.v.min()
    table = np.full((np.ptp(lattice.u) + 1, np.ptp(lattice.v) + 1), -1)
    table[lattice.u - first_u, lattice.v - first_v] = np.arange(lattice.u.size)
    u, v = u - first_u, v - first_v
    is_inside = (u >= 0) & (u < table.shape[0]) & (v >= 0) & (v < table.shape[1])
    return np.where(is_inside, table[u.clip(0, table.shape[0] - 1), v.clip(0, table.shape[1] - 1)], -1)


def painter(panel: Panel, scale: float) -> Callable[[NDArray[Any]], NDArray[np.uint8]]:
    """Return a function that paints the values of a frame as pixels (row, pixel, channel), on white."""
    width, height = (max(round(length * scale), 1) for length in panel.size)
    colour_table = rgb([*panel.palette, missing_colour(panel), "#ffffff"])
    clim, n_colours = panel.clim, len(colour_table) - 2
    if panel.kind == "frame":

        def paint_frame(values: NDArray[Any]) -> NDArray[np.uint8]:
            rows = np.arange(height) * values.shape[0] // height
            pixels = np.arange(width) * values.shape[1] // width
            painted: NDArray[np.uint8] = colour_table[colour_index(values, clim, n_colours)[rows[:, None], pixels]]
            return painted

        return paint_frame
    # Most pixels lie in one column; the colours of the others are averages over their subpixels.
    n = N_SUBPIXELS
    subpixels = column_of_pixel(panel.lattice(), width * n, height * n)
    subpixels = subpixels.reshape(height, n, width, n).swapaxes(1, 2).reshape(height * width, n * n)
    whole, is_mixed = subpixels[:, 0], (subpixels != subpixels[:, :1]).any(axis=1)
    mixed = subpixels[is_mixed]

    def paint_columns(values: NDArray[Any]) -> NDArray[np.uint8]:
        index = np.append(colour_index(values, clim, n_colours), n_colours + 1)  # -1 takes the last, white
        of_column = colour_table[index]
        pixels: NDArray[np.uint8] = of_column[whole]
        pixels[is_mixed] = of_column[mixed].mean(axis=1).round()
        return pixels.reshape(height, width, 3)

    return paint_columns


def missing_colour(panel: Panel) -> str:
    """Colour of a value that is NaN."""
    return str(panel.options.get("clipping_colors", {}).get("NaN", colours.NO_CELL))
