"""HoloViews elements that the pictures share: hexagons for columns, images for frames, and their options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import holoviews as hv
import numpy as np

from flyxr import drawing, hexgrid
from flyxr.errors import InputError, Problem
from flyxr.viz import colours
from flyxr.viz.hexagons import Hexagons

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray


def load_backend() -> None:
    """Load HoloViews' Bokeh backend and how it draws hexagons; a backend that is current stays current."""
    drawing.load_backend()
    from flyxr.viz import glyphs  # noqa: F401  (registers the hexagons)


@dataclass(frozen=True)
class Lattice:
    """Columns in the plane: labels, axial coordinates, and positions in units of column pitch, each (column,)."""

    column: NDArray[Any]
    u: NDArray[Any]
    v: NDArray[Any]
    x: NDArray[Any]
    y: NDArray[Any]

    def first_column(self) -> Lattice:
        """Lattice of the first column only."""
        return Lattice(self.column[:1], self.u[:1], self.v[:1], self.x[:1], self.y[:1])

    def corners(self) -> NDArray[np.float64]:
        """Corners of the hexagons, (axis, column, corner), rounded to screen precision."""
        centers = np.stack([self.x, self.y])[:, :, None]
        return (centers + hexgrid.hexagon().T[:, None, :]).round(4)


def read_lattice(data: xr.DataArray) -> Lattice:
    """Read the positions of the columns of an array.

    Raises
    ------
    ValueError
        If the columns have no axial coordinates.
    """
    n_columns, coords = data.sizes["column"], data.coords
    if "u" not in coords or "v" not in coords:
        raise InputError(
            Problem(
                f"expected coordinates 'u' and 'v' on 'column', got {list(map(str, coords))}",
                "assign them with data.assign_coords(flyxr.hexgrid.column_coords(extent))",
            )
        )
    column = coords["column"].values if "column" in coords else np.arange(n_columns)
    u, v = coords["u"].values, coords["v"].values
    if "x_column" in coords and "y_column" in coords:
        return Lattice(column, u, v, coords["x_column"].values, coords["y_column"].values)
    return Lattice(column, u, v, *hexgrid.positions(u, v))


def hexagons(values: NDArray[Any], lattice: Lattice, name: str, clim: tuple[float, float], label: str = "") -> Hexagons:
    """One hexagon for each column, with its value (column,) and the labels of the column for hovering."""
    xs, ys = lattice.corners()
    # HoloViews looks for the range of each dimension of each picture, unless it is declared. It also links axes of
    # equal names, so the names differ from those of a frame.
    kdims = [hv.Dimension("x_column", range=_range(xs)), hv.Dimension("y_column", range=_range(ys))]
    vdims = [hv.Dimension(name, range=clim)]
    vdims += [hv.Dimension(n, range=_range(getattr(lattice, n))) for n in ("column", "u", "v")]
    data = (lattice.x, lattice.y, values, lattice.column, lattice.u, lattice.v)
    return Hexagons(data, kdims, vdims, label=label, datatype=["dictionary"])


def hexagon_style(
    lattice: Lattice, scale: colours.ColourScale, label: str = "", height: int = 300, **options: Any
) -> Any:
    """Options for hexagons: equal aspect, no axes, one colour scale, and a colour bar if there is a label."""
    (x0, x1), (y0, y1) = (_range(axis) for axis in lattice.corners())
    frame = _bare_frame(x1 - x0, y1 - y0, height)
    return hv.Options("Hexagons", **{**scale_style(scale, label), **frame, **options}, backend="bokeh")


def scale_style(scale: colours.ColourScale, label: str = "", n_colours: int = 256) -> dict[str, Any]:
    """Options of an element whose colours are values, with a colour bar if there is a label."""
    fill = {"cmap": scale.palette(n_colours), "clim": scale.clim, "clipping_colors": {"NaN": colours.NO_CELL}}
    bar = {"colorbar": True, "clabel": label.replace("_", " "), "colorbar_opts": {"width": 12}} if label else {}
    return {**fill, **bar}


def layout(panels: list[Any], columns: int) -> hv.Layout:
    """Panels with axes of their own, ``columns`` in a row."""
    return hv.Layout(panels).cols(columns).opts(hv.opts.Layout(shared_axes=False, backend="bokeh"))


def image(
    values: NDArray[Any], x: NDArray[Any] | None = None, y: NDArray[Any] | None = None, label: str = ""
) -> hv.Image:
    """One frame (y, x) in pixel coordinates; row 0 is at the top once the y axis points down."""
    n_rows, n_columns = values.shape
    x0, x1 = _pixel_edges(x, n_columns)
    y0, y1 = _pixel_edges(y, n_rows)
    return hv.Image(values[::-1], kdims=["x", "y"], vdims=["luminance"], bounds=(x0, y0, x1, y1), label=label)


def image_style(
    shape: tuple[int, ...], clim: tuple[float, float] = (0.0, 1.0), height: int = 300, **options: Any
) -> Any:
    """Options for frames (y, x): y downward, equal aspect, no axes, grey."""
    frame = _bare_frame(shape[1], shape[0], height)
    fill = {"invert_yaxis": True, "cmap": colours.palette(colours.GREY), "clim": clim}
    return hv.opts.Image(**{**frame, **fill, **options}, backend="bokeh")


def _bare_frame(width: float, height: float, n_pixels: int) -> dict[str, Any]:
    """Options for a frame without axes, ``n_pixels`` high."""
    size = drawing.equal_aspect(width, height, n_pixels)
    return {**size, "xaxis": None, "yaxis": None, "show_frame": False, "tools": ["hover"]}


def _pixel_edges(coord: NDArray[Any] | None, n_pixels: int) -> tuple[float, float]:
    if coord is None:
        return -0.5, n_pixels - 0.5
    half = (float(coord[-1]) - float(coord[0])) / (n_pixels - 1) / 2 if n_pixels > 1 else 0.5
    return float(coord[0]) - half, float(coord[-1]) + half


def key(label: Any) -> Any:
    """Label as a key of HoloViews: a tuple, which it would take for several keys, as text; times without rounding.

    Examples
    --------
    >>> key(("flow", 3)), key(0.1 + 0.2), key("a")
    ("('flow', 3)", 0.3, 'a')
    """
    if isinstance(label, float):
        return round(label, 6)
    return str(label) if isinstance(label, tuple) else label


def _range(values: NDArray[Any]) -> tuple[float, float]:
    return float(values.min()), float(values.max())


def join_curves(time: NDArray[Any], values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Join curves (curve, time) to one line, with a gap of NaN after each.

    Examples
    --------
    >>> join_curves(np.array([0.0, 1.0]), np.array([[5.0, 6.0], [7.0, 8.0]]))
    (array([ 0.,  1., nan,  0.,  1., nan]), array([ 5.,  6., nan,  7.,  8., nan]))
    """
    x, gap = np.append(time, np.nan), np.full((len(values), 1), np.nan, dtype=values.dtype)
    return np.tile(x, len(values)), np.hstack([values, gap]).ravel()
