"""Figures of matplotlib, for print and for files of elements with axes."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any

import holoviews as hv
import numpy as np

from flyxr.errors import DependencyError, Problem
from flyxr.viz.hexagons import Hexagons
from flyxr.viz.time_courses import TimeCourses

if TYPE_CHECKING:
    from numpy.typing import NDArray

DPI = 100
"""Screen pixels of a figure in an inch."""

FILL = "#30a2da"
"""HoloViews' own colour of areas."""

MARGIN = 0.08
"""Space around a figure, inches."""

BAR_GAP, BAR_WIDTH, BAR_SPACE = 8, 12, 70
"""Space before a colour bar, its width, and space from one bar to the next, screen pixels."""

POINTS = 72 / DPI
"""Size of a screen pixel in points."""

MARKERS = {
    "circle": "o",
    "triangle": "^",
    "square": "s",
    "diamond": "D",
    "inverted_triangle": "v",
    "hex": "h",
    "star": "*",
    "plus": "P",
    "x": "x",
    "dash": "_",
}
UNFILLED = ("x", "_")
"""Markers without an edge, of which matplotlib warns if it is given a colour."""
DASHES = {"dashed": "--", "dotted": ":", "dotdash": "-.", "solid": "-"}

SAME_NAME = (
    "alpha apply_ranges clabel clim clipping_colors cmap cnorm color colorbar invert_xaxis invert_yaxis legend_cols "
    "legend_position logx logy logz marker padding show_frame show_grid show_legend title xaxis xlabel xlim xrotation "
    "xticks yaxis ylabel ylim yrotation yticks"
).split()
"""Options that Bokeh and matplotlib share in HoloViews."""


def load_matplotlib() -> None:
    """Load HoloViews' matplotlib backend beside the current one.

    Raises
    ------
    DependencyError
        An ImportError. If matplotlib is not installed.
    """
    try:
        import holoviews.plotting.mpl  # noqa: F401  (registers the backend)
    except ImportError as error:
        raise DependencyError(
            Problem(
                "expected matplotlib, which draws elements with axes for .png, .svg, .gif and .mp4, got none",
                "pip install 'flyxr[plot]', or write .html",
            )
        ) from error
    if not isinstance(hv.Store.registry["matplotlib"].get(Hexagons), type):
        _register_hexagons()
        _register_time_courses()


def draw(element: Any, size: tuple[int, int]) -> Any:
    """Draw an element or overlay, whose frame has a size in screen pixels, as a figure of matplotlib."""
    drawn = for_matplotlib(element)
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = hv.render(drawn, backend="matplotlib")
    FigureCanvasAgg(figure)
    # The frame gets its size, and colour bars, which HoloViews placed for another size, follow.
    axes, *bars = figure.axes
    frame = axes.get_position(original=True)
    width, height = size[0] / frame.width, size[1] / frame.height  # of the figure, screen pixels
    figure.set_size_inches(width / DPI, height / DPI)
    axes.apply_aspect()
    frame = axes.get_position()
    for number, bar in enumerate(bars):
        left = frame.x1 + (BAR_GAP + number * BAR_SPACE) / width
        bar.set_position([left, frame.y0, BAR_WIDTH / width, frame.height])
    return figure


def figure_size(figure: Any) -> tuple[int, int]:
    """Width and height of a figure with its axes, labels and keys, screen pixels."""
    height, width, _ = pixels(figure, 1).shape
    return width, height


def pixels(figure: Any, scale: float) -> NDArray[np.uint8]:
    """Pixels (row, pixel, channel) of a figure."""
    from PIL import Image

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI * scale, bbox_inches="tight", pad_inches=MARGIN)
    buffer.seek(0)
    return np.asarray(Image.open(buffer).convert("RGB"))


def svg(element: Any, size: tuple[int, int], number: int) -> str:
    """Draw an element or overlay, as an ``svg`` element; its number on the sheet makes the names inside differ."""
    import matplotlib as mpl

    figure, buffer = draw(element, size), io.StringIO()
    with mpl.rc_context({"svg.hashsalt": f"panel {number}", "svg.fonttype": "none"}):
        options = {"bbox_inches": "tight", "pad_inches": MARGIN, "metadata": {"Date": None}}
        figure.savefig(buffer, format="svg", **options)
    text = buffer.getvalue()
    width, height = (float(length) / POINTS for length in re.findall(r'(?:width|height)="([\d.]+)pt"', text)[:2])
    text = re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', f'width="{width:g}" height="{height:g}"', text, count=1)
    return text[text.index("<svg") :]


def for_matplotlib(picture: Any) -> Any:
    """Copy of an element or overlay whose options for Bokeh are also those of matplotlib, as far as it has them."""
    load_matplotlib()
    copy = picture.map(_with_options, [hv.Element])
    return _with_options(copy) if isinstance(copy, hv.Overlay | hv.NdOverlay) else copy


def _with_options(element: Any) -> Any:
    from matplotlib.colors import to_hex, to_rgba

    plot_class = hv.Store.registry["matplotlib"].get(type(element))
    if plot_class is None:
        return element
    groups = [hv.Store.lookup_options("bokeh", element, group).kwargs for group in ("style", "plot")]
    given = {name: value for kwargs in groups for name, value in kwargs.items()}
    wanted = {name: given[name] for name in SAME_NAME if name in given}
    if isinstance(wanted.get("marker"), str):
        wanted["marker"] = MARKERS.get(wanted["marker"], wanted["marker"])
    if "line_width" in given:
        wanted["linewidth"] = given["line_width"] * POINTS
    if "line_dash" in given:
        wanted["linestyle"] = DASHES.get(given["line_dash"], given["line_dash"])
    if "line_color" in given:
        wanted["edgecolors"] = wanted["edgecolor"] = given["line_color"]
    if "fill_alpha" in given and isinstance(given.get("color", FILL), str):
        wanted["facecolor"] = to_hex(to_rgba(given.get("color", FILL), given["fill_alpha"]), keep_alpha=True)
    if "size" in given and not isinstance(given["size"], str):
        wanted["s"] = (given["size"] * POINTS) ** 2
    if "frame_width" in given and "frame_height" in given:
        wanted["aspect"] = "equal" if given.get("data_aspect") == 1 else given["frame_width"] / given["frame_height"]
    wanted["show_values"] = False  # of a HeatMap
    if wanted.get("legend_position") == "bottom":  # HoloViews gives it the width of the frame, too little for several
        wanted["legend_cols"] = 1
    if wanted.get("marker") in UNFILLED:
        wanted |= {"edgecolor": None, "edgecolors": None}
    known = set(plot_class.param) | set(getattr(plot_class, "style_opts", ()))
    wanted = {name: value for name, value in wanted.items() if name in known}
    return element.opts(hv.Options(type(element).__name__, **wanted, backend="matplotlib"))


def _register_hexagons() -> None:
    """Teach HoloViews' matplotlib backend to draw hexagons."""
    from holoviews.plotting.mpl.element import ColorbarPlot
    from matplotlib.collections import PolyCollection

    from flyxr import hexgrid

    class HexagonPlot(ColorbarPlot):  # type: ignore[misc]
        """Hexagons as a collection of polygons."""

        style_opts = ["alpha", "cmap", "clim", "edgecolors", "linewidth", "visible"]
        _plot_methods = {"single": "add_collection"}

        def get_data(self, element: Any, ranges: Any, style: dict[str, Any]) -> tuple[Any, dict[str, Any], Any]:
            centers = np.stack([element.dimension_values(name) for name in ("x_column", "y_column")], axis=1)
            value = element.vdims[0]
            self._norm_kwargs(element, ranges, style, value)
            style["clim"] = style.pop("vmin"), style.pop("vmax")
            style["array"] = np.ma.masked_invalid(element.dimension_values(value))
            style.setdefault("edgecolors", "face")
            style.setdefault("linewidth", 0.3)
            style["linewidths"] = style.pop("linewidth")
            return (centers[:, None] + hexgrid.hexagon(),), style, {}

        def init_artists(self, axes: Any, plot_args: Any, plot_kwargs: Any) -> dict[str, Any]:
            collection = PolyCollection(*plot_args, **plot_kwargs)
            axes.add_collection(collection)
            return {"artist": collection}

        def update_handles(self, key: Any, axis: Any, element: Any, ranges: Any, style: Any) -> dict[str, Any]:
            _, style, axis_options = self.get_data(element, ranges, style)
            self.handles["artist"].set_array(style["array"])
            self.handles["artist"].set_clim(*style["clim"])
            return dict(axis_options)

    hv.Store.register({Hexagons: HexagonPlot}, "matplotlib")


def _register_time_courses() -> None:
    """Teach HoloViews' matplotlib backend to draw time courses."""
    from holoviews.plotting.mpl.element import ColorbarPlot
    from matplotlib.collections import LineCollection

    class TimeCoursePlot(ColorbarPlot):  # type: ignore[misc]
        """Time courses as a collection of lines."""

        style_opts = ["alpha", "cmap", "clim", "color", "linewidth", "linestyle", "visible"]
        _plot_methods = {"single": "add_collection"}

        def _apply_transforms(self, element: Any, ranges: Any, style: Any) -> Any:
            """Leave the colour to ``get_data`` if it is a label: a curve has one, and HoloViews takes one per row."""
            is_label = style.get("color") in [dim.name for dim in element.vdims]
            rest = {name: value for name, value in style.items() if name != "color" or not is_label}
            transformed = dict(super()._apply_transforms(element, ranges, rest))
            return {**transformed, "color": style["color"]} if is_label else transformed

        def get_data(self, element: Any, ranges: Any, style: dict[str, Any]) -> tuple[Any, dict[str, Any], Any]:
            lines = [np.stack(curve, axis=1) for curve in zip(*element.curves(), strict=True)]
            label = element.get_dimension(style.get("color")) if style.get("color") in element.vdims else None
            if label is not None:
                del style["color"]
                self._norm_kwargs(element, ranges, style, label)
                style["clim"] = style.pop("vmin"), style.pop("vmax")
                style["array"] = np.ma.masked_invalid(element.labels(label).astype(float))
            else:
                style = {name: value for name, value in style.items() if name not in ("cmap", "clim")}
            return (lines,), style, {}

        def init_artists(self, axes: Any, plot_args: Any, plot_kwargs: Any) -> dict[str, Any]:
            collection = LineCollection(*plot_args, **plot_kwargs)
            axes.add_collection(collection)
            return {"artist": collection}

    hv.Store.register({TimeCourses: TimeCoursePlot}, "matplotlib")
