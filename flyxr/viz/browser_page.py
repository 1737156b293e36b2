"""The page of the browser: widgets and figures of one session, and how they follow each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import panel as pn
import xarray as xr
from bokeh.models.widgets import Div

from flyxr.errors import FlyxrError
from flyxr.viz import colours
from flyxr.viz.browser_reading import plain_text
from flyxr.viz.browser_state import NONE, View, default_view, format_address, parse_address
from flyxr.viz.browser_views import ColumnView, CourseView, EmbeddingView, FrameView, response_label

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from flyxr.viz.browser_reading import Reader

SIDE_WIDTH, LIST_ROWS = 230, 12
"""Width of the widgets, screen pixels, and rows of the list of models."""

ADDRESS_DELAY = 300
"""Time from a change to the address that holds it, ms."""

FRAME_INTERVAL = 100
"""Time from frame to frame while the page plays, ms."""


class Page:
    """Widgets and figures of one session; the view decides what they show.

    Parameters
    ----------
    reader
        What there is to show.
    location
        Panel's location of the session, whose query holds the view; None outside a server.
    document
        Bokeh's document of the session; None outside a server.

    Examples
    --------
    >>> from flyxr.testing import random_rendering
    >>> from flyxr.viz.browser_reading import Reader
    >>> luminance = random_rendering().luminance
    >>> page = Page(Reader(luminance.expand_dims(cell_type=["T4c", "T4d"], model=[7, 8]).rename("response")))
    >>> _ = page.view.param.update(cell_type=1, models=[0, 1], time=2)
    >>> page.rows[0].heading.text, bool((page.rows[0].response.source.data["response"] == luminance[0, 2]).all())
    ('sample 0', True)
    """

    def __init__(self, reader: Reader, location: Any = None, document: Any = None) -> None:
        self.reader, self._location, self._document = reader, location, document
        changes, unknown = parse_address(location.search if location is not None else "", reader)
        self.view = View(**{**default_view(reader), **changes})
        # The page reads its own address when it opens, so nothing is written to it before the first change.
        self._address, self._has_timeout, self._is_ready = "", False, False
        self.notice, self.remark = _text(color="#b02a37"), _text(color="#555555")
        self._unknown(unknown)
        palette = colours.sample_colours(2)  # those of the time courses
        self.rows = [_Row(reader, self._read_frame(), self._choose_column, colour) for colour in palette]
        for number, row in enumerate(self.rows):
            row.name_figures(number)
        self.courses = CourseView(reader.times, response_label(reader), height=190)
        self.light = CourseView(reader.times, "luminance", height=70)
        self.courses.figure.name, self.light.figure.name = "courses", "luminance"
        self.embedding = EmbeddingView(reader) if reader.places else None
        self._add_widgets()
        self._maps = np.zeros((0, 0, 0, 0), dtype=np.float32)
        self._luminance: list[NDArray[np.float32]] = []
        self.view.param.watch(self._changed, ["cell_type", "sample", "compare", "models", "time", "column"])
        if self.embedding is not None:
            self.embedding.on_select(self._choose_models)
        if location is not None:
            location.param.watch(self._follow_address, "search")
        self._update({"cell_type", "sample", "compare", "models", "time", "column"})
        self._is_ready = True

    def _add_widgets(self) -> None:
        reader, view, width = self.reader, self.view, SIDE_WIDTH
        samples = {title: position for position, title in enumerate(reader.sample_titles)}
        types = {name: position for position, name in enumerate(reader.cell_types)}
        models = {title: position for position, title in enumerate(reader.model_titles)}
        last = reader.times.size - 1
        self.cell_type = pn.widgets.Select(label="cell type", options=types, value=view.cell_type, width=width)
        self.sample = pn.widgets.Select(label="sample", options=samples, value=view.sample, width=width)
        self.compare = pn.widgets.Select(
            label="beside it", options={"no other sample": NONE, **samples}, value=view.compare, width=width
        )
        self.opposite = pn.widgets.Button(label="opposite direction", width=width)
        self.opposite.visible = any(reader.opposite(position) is not None for position in range(min(len(samples), 64)))
        self.cluster = pn.widgets.Select(label="cluster", options={"any models": NONE}, value=NONE, width=width)
        self.cluster.visible = bool(reader.places)
        self.models = pn.widgets.MultiSelect(
            label="models", options=models, value=list(view.models), size=LIST_ROWS, width=width
        )
        self.player = pn.widgets.Player(
            label="time",
            start=0,
            end=max(last, 1),
            value=view.time,
            interval=FRAME_INTERVAL,
            loop_policy="loop",
            show_loop_controls=False,
            show_value=False,
            width=420,
            disabled=last == 0,
        )
        self.clock = _text()
        for widget, name in ((self.cell_type, "cell_type"), (self.sample, "sample"), (self.compare, "compare")):
            widget.param.watch(lambda event, name=name: self.view.param.update(**{name: event.new}), "value")
        self.models.param.watch(lambda event: self._choose_models(event.new), "value")
        self.player.param.watch(lambda event: self.view.param.update(time=min(event.new, last)), "value")
        self.player.param.watch(lambda event: self._schedule_address(), "direction")
        self.cluster.param.watch(self._choose_cluster, "value")
        self.opposite.on_click(lambda event: self._choose_opposite())

    def layout(self) -> Any:
        """Panel's object to serve or to display."""
        side = [self.cell_type, self.sample, self.compare, self.opposite, self.cluster, self.models, self.remark]
        self._second = pn.Column(*self.rows[1].parts())
        self._second.visible = self.view.compare != NONE
        middle = [self.notice, *self.rows[0].parts(), self._second, pn.Row(self.player, self.clock)]
        right: list[Any] = [self.courses.figure, self.light.figure]
        if self.embedding is not None:
            self._plane = pn.pane.Bokeh(self.embedding.figure, visible=self.view.cell_type in self.reader.places)
            right.append(self._plane)
        self.light.figure.visible = self.reader.luminance is not None
        columns = pn.Column(*side, width=SIDE_WIDTH + 20), pn.Column(*middle), pn.Column(*right)
        return pn.FlexBox(*columns, justify_content="flex-start")  # narrow windows show the columns below each other

    # What people choose

    def _choose_column(self, column: int) -> None:
        self.view.param.update(column=column)

    def _choose_models(self, models: list[int]) -> None:
        if models:
            self.view.param.update(models=sorted(models))

    def _choose_cluster(self, event: Any) -> None:
        if event.new != NONE and (members := self._members().get(event.new)):
            self._choose_models(members)

    def _choose_opposite(self) -> None:
        opposite = self.reader.opposite(self.view.sample)
        self.view.param.update(compare=NONE if opposite is None else opposite)

    def _members(self) -> dict[int, list[int]]:
        """Positions of the models of each cluster of the cell type."""
        if self.view.cell_type not in self.reader.places:
            return {}
        cluster = self.reader.places[self.view.cell_type][1]
        return {int(label): np.flatnonzero(cluster == label).tolist() for label in np.unique(cluster[cluster >= 0])}

    # The address

    def _follow_address(self, event: Any) -> None:
        """Show the view of an address that is not the page's own, e.g. after going back."""
        if event.new != self._address:
            changes, unknown = parse_address(event.new, self.reader)
            self._unknown(unknown)
            self.view.param.update(**changes)

    def _unknown(self, labels: list[str]) -> None:
        more = ", …" if len(labels) > 3 else ""
        text = f"The address names what these responses lack: {', '.join(labels[:3])}{more}." if labels else ""
        self.notice.update(text=text, visible=bool(text))

    def _schedule_address(self) -> None:
        """Write the address soon, once for all changes until then."""
        if self._document is not None and self._is_ready and not self._has_timeout:
            self._has_timeout = True
            self._document.add_timeout_callback(self._write_address, ADDRESS_DELAY)

    def _write_address(self) -> None:
        self._has_timeout = False
        if self.player.direction == 0:  # each address is an entry of the browser's history
            self._address = format_address(self._state(), self.reader)
            self._location.search = self._address

    def _state(self) -> dict[str, Any]:
        return {name: getattr(self.view, name) for name in self.view.param if name != "name"}

    # What the page shows

    def _changed(self, *events: Any) -> None:
        self.notice.visible = False
        self._update({event.name for event in events})

    def _update(self, changed: set[str]) -> None:
        """Bring widgets and figures up to date after changes of the view."""
        view = self.view
        self.cell_type.value, self.sample.value, self.compare.value = view.cell_type, view.sample, view.compare
        self.models.value, self.player.value = list(view.models), view.time
        if "cell_type" in changed:
            self._update_embedding()
        if changed & {"cell_type", "models"}:
            self._update_clusters()
        if changed & {"cell_type", "sample", "compare", "models"}:
            try:
                self._read()
            except FlyxrError as error:
                self.notice.update(text=str(error), visible=True)
                self._maps = np.full_like(self._maps, np.nan)
            self._update_rows()
        if changed - {"time"}:
            self._update_courses()
        self._update_time()
        self._schedule_address()

    def _samples(self) -> list[int]:
        return [self.view.sample] + ([self.view.compare] if self.view.compare != NONE else [])

    def _read(self) -> None:
        """Read what the view shows, if it is not kept."""
        samples, models = self._samples(), self.view.models[: self.reader.max_models]
        self._maps = self.reader.read_maps(self.view.cell_type, samples, models)
        luminance = [self.reader.read_luminance(sample) for sample in samples]
        self._luminance = [values for values in luminance if values is not None]

    def _read_frame(self, sample: int | None = None) -> NDArray[np.uint8] | None:
        return self.reader.read_frame(self.view.sample if sample is None else sample, self.view.time)

    def _update_embedding(self) -> None:
        has_places = self.view.cell_type in self.reader.places
        if self.embedding is not None and has_places:
            self.embedding.show(self.view.cell_type)
        if hasattr(self, "_plane"):
            self._plane.visible = has_places

    def _update_clusters(self) -> None:
        members = self._members()
        options = {"any models": NONE}
        options |= {f"cluster {label} ({len(models)} models)": label for label, models in members.items()}
        shown = next((label for label, models in members.items() if models == sorted(self.view.models)), NONE)
        if self.cluster.options != options:
            self.cluster.param.update(options=options, value=shown)
        self.cluster.value = shown
        if self.embedding is not None and self.view.cell_type in self.reader.places:
            self.embedding.select(self.view.models)

    def _update_rows(self) -> None:
        reader, view, samples = self.reader, self.view, self._samples()
        with np.errstate(all="ignore"):
            self._means = self._maps.mean(axis=1)
        if hasattr(self, "_second"):
            self._second.visible = len(samples) > 1
        scale = colours.colour_scale(*(xr.DataArray(values, name="response") for values in self._means))
        for row, sample in zip(self.rows, samples, strict=False):
            row.heading.text = f"sample {reader.sample_titles[sample]}"
            if row.response is not None:
                row.response.set_scale(scale)
        remarks = [] if len(view.models) == 1 else [f"Maps are the mean of {self._maps.shape[1]} models."]
        if len(view.models) > self._maps.shape[1]:
            remarks = [f"The page shows the first {self._maps.shape[1]} of {len(view.models)} selected models."]
        if not reader.has_columns:
            remarks.append("One column was recorded, so there are no maps.")
        if reader.luminance is None and reader.movie is None:
            remarks.append("The responses have no luminance beside them, so there is no stimulus.")
        if reader.places and view.cell_type not in reader.places:
            remarks.append(f"{reader.cell_types[view.cell_type]} was not clustered, so there is no embedding.")
        if np.isnan(self._maps).all(axis=(1, 2, 3)).any():
            remarks.append("A sample has no responses of these models yet.")
        self.remark.text = " ".join(remarks)

    def _update_courses(self) -> None:
        reader, column = self.reader, self.view.column
        lattice = reader.lattice
        self.courses.show([maps[:, :, column] for maps in self._maps])
        self.light.show([values[None, :, column] for values in self._luminance])
        place = f"column {reader.columns[column]} (u {lattice.u[column]}, v {lattice.v[column]})"
        title = reader.cell_types[self.view.cell_type]
        if len(self.view.models) == 1:
            title += f", model {reader.models[self.view.models[0]]}"
        self.courses.figure.title.text = f"{title}, {place}"
        for row in self.rows:
            row.mark(column)

    def _update_time(self) -> None:
        time = self.view.time
        self.clock.text = f"{self.reader.times[time]:.3f} s"
        for number, sample in enumerate(self._samples()):
            luminance = self._luminance[number][time] if self._luminance else None
            self.rows[number].show(self._read_frame(sample), luminance, self._means[number, time])
        self.courses.move(time)
        self.light.move(time)


class _Row:
    """Movie, columns and responses of one sample."""

    def __init__(
        self, reader: Reader, frame: NDArray[np.uint8] | None, choose: Callable[[int], None], colour: str
    ) -> None:
        self.heading = _text(font_weight="bold", color=colour)
        self.movie = None if frame is None else FrameView(frame, "stimulus")
        has_light = reader.has_columns and reader.luminance is not None
        self.columns = ColumnView(reader, "luminance", "columns") if has_light else None
        self.response = (
            ColumnView(reader, "response", response_label(reader), has_bar=True) if reader.has_columns else None
        )
        for view in (self.columns, self.response):
            if view is not None:
                view.on_click(choose)

    def parts(self) -> list[Any]:
        """Heading and figures, for a column."""
        figures = [view.figure for view in (self.movie, self.columns, self.response) if view is not None]
        return [self.heading, pn.Row(*figures)]

    def name_figures(self, number: int) -> None:
        """Name the figures, so that they are found in the document."""
        for name, view in (("movie", self.movie), ("columns", self.columns), ("response", self.response)):
            if view is not None:
                view.figure.name = f"{name} {number}"

    def mark(self, column: int) -> None:
        """Draw an outline around a column."""
        for view in (self.columns, self.response):
            if view is not None:
                view.mark(column)

    def show(self, frame: Any, luminance: Any, response: Any) -> None:
        """Show the pictures of one time."""
        for view, values in ((self.movie, frame), (self.columns, luminance), (self.response, response)):
            if view is not None and values is not None:
                view.show(values)


def _text(**styles: str) -> Div:
    """Text that is never taken for HTML or for a formula."""
    names: dict[str, str | None] = {name.replace("_", "-"): style for name, style in styles.items()}
    return Div(text=plain_text("…"), render_as_text=True, disable_math=True, styles=names)
