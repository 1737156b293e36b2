"""Bokeh figures of the browser: built once, then updated by new data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import holoviews as hv
import numpy as np
from bokeh import plotting
from bokeh.models import BoxSelectTool, ColumnDataSource, HoverTool, LassoSelectTool, Range1d, TapTool
from bokeh.models.annotations import Span

from flyxr import hexgrid
from flyxr.viz import colours, elements, selecting
from flyxr.viz.browser_reading import plain_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from flyxr.viz.browser_reading import Reader

PICTURE_HEIGHT, COURSE_WIDTH = 215, 400
"""Height of a picture and width of time courses, screen pixels."""

FRAME_OPTIONS: dict[str, Any] = {"default_tools": ["wheel_zoom", "pan", "reset"], "border": 0}

NOW, BACKGROUND = "#333333", "#dde5ee"
"""Colours of the line at the time on display, and around white columns."""

MARK = "#ff9f1c"
"""Colour of the outline around the column of the time courses."""

TAP_REACH = 0.6
"""Largest distance of a click from the middle of a column, in units of column pitch."""


class ColumnView:
    """Values in the columns, at one time.

    Parameters
    ----------
    reader
        The columns.
    name
        ``"luminance"`` or ``"response"``.
    title
        Heading of the picture.
    has_bar
        Whether there is a colour bar.

    Examples
    --------
    >>> import xarray as xr
    >>> from flyxr import hexgrid
    >>> from flyxr.viz.browser_reading import Reader
    >>> coords = {"time": [0.0], **hexgrid.column_coords(1), "cell_type": "T4c"}
    >>> view = ColumnView(Reader(xr.DataArray(np.ones((1, 7)), coords, ("time", "column"))), "response", "response")
    >>> view.show(np.arange(7))
    >>> view.source.data["response"].tolist()
    [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    """

    def __init__(self, reader: Reader, name: str, title: str, *, has_bar: bool = False) -> None:
        elements.load_backend()
        self.name, self.lattice, self.scale = name, reader.lattice, colours.LUMINANCE
        lattice = reader.lattice
        texts = elements.Lattice(np.array(reader.columns, dtype=object), lattice.u, lattice.v, lattice.x, lattice.y)
        bar = {"clabel": ""} if has_bar else {}
        options = {**FRAME_OPTIONS, **bar}
        style = elements.hexagon_style(lattice, self.scale, title if has_bar else "", PICTURE_HEIGHT, **options)
        blank = np.full(lattice.u.size, np.nan, dtype=np.float32)
        element = elements.hexagons(blank, _numbered(texts), name, self.scale.clim)
        self.figure = render(element.opts(style), title)
        glyphs = self.figure.renderers[0]
        self.source, self.mapper = glyphs.data_source, glyphs.glyph.fill_color.transform
        self.source.data = {**self.source.data, "column": texts.column}
        self.mark_source = ColumnDataSource({"x": [], "y": []})
        corners = hexgrid.hexagon()
        self._corners = np.vstack([corners, corners[:1]])
        self.figure.line("x", "y", source=self.mark_source, line_color=MARK, line_width=2)

    def set_scale(self, scale: colours.ColourScale) -> None:
        """Set the colours of the values, and the colour bar."""
        if scale != self.scale:
            self.scale = scale
            self.mapper.update(palette=scale.palette(), low=scale.clim[0], high=scale.clim[1])

    def show(self, values: NDArray[Any]) -> None:
        """Show values (column,)."""
        self.source.data = {**self.source.data, self.name: np.asarray(values, dtype=np.float32)}

    def mark(self, column: int) -> None:
        """Draw an outline around the column at a position."""
        x, y = (self._corners + [self.lattice.x[column], self.lattice.y[column]]).T
        self.mark_source.data = {"x": x, "y": y}

    def on_click(self, choose: Callable[[int], None]) -> None:
        """Call a function with the position of a column that is clicked."""

        def tapped(event: Any) -> None:
            distance = np.hypot(self.lattice.x - event.x, self.lattice.y - event.y)
            if distance.min() <= TAP_REACH:
                choose(int(np.argmin(distance)))

        self.figure.on_event("tap", tapped)


class FrameView:
    """Frame of a movie, at one time."""

    def __init__(self, frame: NDArray[np.uint8], title: str) -> None:
        elements.load_backend()
        height = min(PICTURE_HEIGHT, round(PICTURE_HEIGHT * frame.shape[0] / frame.shape[1]))
        style = elements.image_style(frame.shape, clim=(0, 255), height=max(height, 1), **FRAME_OPTIONS)
        style.kwargs["tools"] = []
        self.figure = render(elements.image(frame).opts(style), title)
        self.source = self.figure.renderers[0].data_source

    def show(self, frame: NDArray[np.uint8]) -> None:
        """Show a frame (y, x) of bytes."""
        self.source.data = {**self.source.data, "image": [frame]}


class CourseView:
    """Time courses of two samples in one column, with a line at the time on display.

    Parameters
    ----------
    times
        Times, s.
    label
        Label of the values.
    height
        Height of the frame, screen pixels.

    Examples
    --------
    >>> view = CourseView(np.array([0.0, 1.0]), "response", 100)
    >>> view.show([np.array([[1.0, 2.0], [3.0, 4.0]])])
    >>> view.means[0].data["y"], len(view.means[1].data["y"]), view.models[0].data["y"]
    (array([2., 3.]), 0, array([ 1.,  2., nan,  3.,  4., nan]))
    """

    def __init__(self, times: NDArray[np.float64], label: str, height: int) -> None:
        self.times = times
        first, last = float(times[0]), float(times[-1])
        self.figure = _figure(
            frame_width=COURSE_WIDTH,
            frame_height=height,
            x_range=Range1d(start=first, end=last if last > first else first + 1),
            y_range=Range1d(start=0, end=1),
            x_axis_label="time (s)",
            y_axis_label=label,
            tools="xpan,xwheel_zoom,reset",
            title="",
        )
        self.figure.toolbar.autohide = True
        self.models, self.means = ([ColumnDataSource({"x": [], "y": []}) for _ in range(2)] for _ in range(2))
        for source, colour in zip(self.models, colours.sample_colours(2), strict=True):
            self.figure.line("x", "y", source=source, line_color=colour, line_width=0.8, line_alpha=0.4)
        lines: list[Any] = [
            self.figure.line("x", "y", source=source, line_color=colour, line_width=2.5)
            for source, colour in zip(self.means, colours.sample_colours(2), strict=True)
        ]
        self.figure.add_tools(HoverTool(renderers=lines, tooltips=[("time (s)", "@x{0.000}"), (label, "@y")]))
        self.now = Span(location=first, dimension="height", line_color=NOW, line_dash="dotted", line_width=2)
        self.figure.add_layout(self.now)

    def show(self, samples: Sequence[NDArray[Any]]) -> None:
        """Show the courses (model, time) of one or two samples, and their means."""
        blank = np.zeros((0, self.times.size))
        for number in range(2):
            curves = samples[number] if number < len(samples) else blank
            x, y = elements.join_curves(self.times, curves if len(curves) > 1 else blank)
            self.models[number].data = {"x": x, "y": y}
            self.means[number].data = {"x": self.times, "y": curves.mean(axis=0)} if len(curves) else {"x": x, "y": y}
        finite = np.concatenate([np.zeros(0), *(curves[np.isfinite(curves)] for curves in samples)])
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
        margin = 0.05 * (high - low) or 0.5
        self.figure.y_range.update(start=low - margin, end=high + margin)

    def move(self, time: int) -> None:
        """Move the line to the time at a position."""
        self.now.location = float(self.times[time])


class EmbeddingView:
    """Models in the plane of their embedding, to click or to brush."""

    def __init__(self, reader: Reader) -> None:
        self.reader, self._is_updating = reader, False
        self.source = ColumnDataSource({name: [] for name in ("x", "y", "model", "cluster", "colour", "position")})
        brush = BoxSelectTool()
        self.figure = _figure(
            name="embedding",
            frame_width=COURSE_WIDTH,
            frame_height=240,
            x_range=Range1d(start=0, end=1),
            y_range=Range1d(start=0, end=1),
            x_axis_label="embedding 0",
            y_axis_label="embedding 1",
            tools=[TapTool(), brush, LassoSelectTool(), "reset"],
            active_drag=brush,
            title="",
        )
        points = self.figure.scatter(
            "x",
            "y",
            source=self.source,
            size=10,
            fill_color="colour",
            line_color="#333333",
            nonselection_fill_alpha=0.25,
            nonselection_line_alpha=0.25,
        )
        tooltips = [("model", "@model"), ("cluster", "@cluster")]
        self.figure.add_tools(HoverTool(renderers=[points], tooltips=tooltips))

    def show(self, cell_type: int) -> None:
        """Show the places of the models for a cell type."""
        place, cluster = self.reader.places[cell_type]
        positions = np.flatnonzero(np.isfinite(place).all(axis=1))
        labels = cluster[positions]
        palette = colours.sample_colours(max(int(labels.max(initial=0)) + 1, 1))
        self._highlight([])
        self.source.data = {
            "x": place[positions, 0],
            "y": place[positions, 1],
            "model": [self.reader.model_titles[position] for position in positions],
            "cluster": [str(label) if label >= 0 else "none" for label in labels],
            "colour": [palette[label] if label >= 0 else colours.NO_CELL for label in labels],
            "position": positions,
        }
        n_absent = len(place) - positions.size
        self.figure.title.text = self.reader.cell_types[cell_type] + (f" ({n_absent} not embedded)" if n_absent else "")
        for axis, bounds in zip((self.figure.x_range, self.figure.y_range), place[positions].T, strict=True):
            low, high = (float(bounds.min()), float(bounds.max())) if positions.size else (0.0, 1.0)
            margin = 0.1 * (high - low) or 0.5
            axis.update(start=low - margin, end=high + margin)

    def select(self, models: Sequence[int]) -> None:
        """Highlight models by their positions."""
        chosen = np.flatnonzero(np.isin(self.source.data["position"], models)).tolist()
        if chosen != sorted(self.source.selected.indices):
            self._highlight(chosen)

    def _highlight(self, indices: list[int]) -> None:
        self._is_updating = True
        try:
            self.source.selected.indices = indices
        finally:
            self._is_updating = False

    def on_select(self, choose: Callable[[list[int]], None]) -> None:
        """Call a function with the positions of models that are clicked or brushed."""

        def selected(_: str, __: Any, indices: list[int]) -> None:
            if indices and not self._is_updating:
                choose([int(self.source.data["position"][index]) for index in indices])

        self.source.selected.on_change("indices", selected)


def render(element: Any, title: str) -> Any:
    """Bokeh figure of an element."""
    picture = hv.render(element, backend="bokeh")
    picture.sizing_mode = None  # Bokeh warns of a frame of fixed size otherwise
    picture.min_border = 0
    picture.min_border_left = picture.min_border_right = 6
    picture.title.text, picture.toolbar.autohide = plain_text(title), True
    picture.toolbar.logo = None
    picture.title.text_font_size = "10pt"
    picture.background_fill_color = BACKGROUND
    picture.output_backend = "canvas"  # WebGL is slow to start, and not everywhere
    return picture


def _figure(**options: Any) -> Any:
    """Figure of Bokeh without its logo and its minor ticks."""
    create: Any = plotting.figure
    picture = create(**options)
    picture.title.text_font_size = "10pt"
    picture.toolbar.logo = None
    picture.axis.minor_tick_line_color = None
    return picture


def response_label(reader: Reader) -> str:
    """Name and units of the responses."""
    return plain_text(selecting.value_label(reader.response))


def _numbered(lattice: elements.Lattice) -> elements.Lattice:
    """Lattice with numbers for labels, whose range HoloViews needs."""
    return elements.Lattice(np.arange(lattice.u.size), lattice.u, lattice.v, lattice.x, lattice.y)
