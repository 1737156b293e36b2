"""How Bokeh draws hexagons and time courses; importing this module loads HoloViews' Bokeh backend and registers it."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import holoviews as hv
import numpy as np
from bokeh.core.property.validation import validate
from bokeh.model import Model
from bokeh.models.annotations import Title
from bokeh.models.glyphs import MultiLine
from holoviews.core.util import dimension_sanitizer
from holoviews.plotting.bokeh.element import ColorbarPlot
from holoviews.plotting.bokeh.styles import base_properties, fill_properties, line_properties, mpl_to_bokeh
from holoviews.plotting.bokeh.util import cds_column_replace

from flyxr.viz.hexagons import Hexagons
from flyxr.viz.time_courses import TimeCourses

if TYPE_CHECKING:
    from collections.abc import Mapping

SIZE = 1 / np.sqrt(3)
"""Distance from the middle of a hexagon to its corners, in units of column pitch."""


class _SteadyPlot(ColorbarPlot):  # type: ignore[misc]
    """Plot whose glyph keeps its look while the values change."""

    def _update_glyph(self, renderer: Any, properties: Any, mapping: Any, glyph: Any, source: Any, data: Any) -> None:
        """Replace the values of the data source; touch the glyphs only if their look has changed.

        HoloViews sets all properties of five glyphs (of selected, muted and other marks), which takes longer than the
        values.
        """
        look = {**properties, **mapping}
        if data is source.data:  # the glyph was made with this look
            self._look = look
        elif self._has_same_look(look) and not cds_column_replace(source, data):
            if not self.static_source:
                self._update_datasource(source, data)
        else:
            self._look = look
            super()._update_glyph(renderer, properties, mapping, glyph, source, data)

    def _has_same_look(self, look: dict[str, Any]) -> bool:
        return look == self._look


class HexagonPlot(_SteadyPlot):
    """Bokeh's glyph of hexagons with a flat top, which keep their shape when zoomed."""

    style_opts = [*base_properties, *line_properties, *fill_properties, "cmap"]
    _nonvectorized_styles = [*base_properties, *line_properties, "cmap"]
    _plot_methods = {"single": "hex_tile"}
    _place: tuple[Any, ...] = ()

    def _hover_opts(self, element: Any) -> tuple[list[Any], dict[str, Any]]:
        return list(element.vdims), {}

    def get_data(self, element: Any, ranges: Any, style: Mapping[str, Any]) -> tuple[Any, Any, Any]:
        """Columns of the data source, the fields of the glyph, and its style.

        Bokeh puts the hexagon (q, r) at x = 3/2 size q and y = -sqrt(3) size (r + q/2), which is where
        :func:`flyxr.hexgrid.positions` puts the column (u = r, v = q).
        """
        value = element.vdims[0]
        mapper = self._get_colormapper(value, element, ranges, dict(style))
        data = {name: element.dimension_values(name) for name in ("u", "v")}
        data[value.name] = element.dimension_values(value)
        self._get_hover_data(data, element, element.vdims)
        colour = {"field": value.name, "transform": mapper}
        mapping = {"q": "v", "r": "u", "fill_color": colour, "line_color": colour}  # lines cover the seams
        return data, mapping, {**style, "size": SIZE, "orientation": "flattop"}

    def _update_ranges(self, element: Any, ranges: Any) -> None:
        """Set the ranges of the axes; columns that stay where they were leave them alone.

        HoloViews looks for the tools among all models of the figure, which takes longer than the rest of an update.
        """
        declared = tuple(dim.range for dim in element.kdims)
        place = (*declared, self.xlim, self.ylim)
        is_same = self.drawn and place == self._place and None not in itertools.chain(*declared)
        if not is_same:
            self._place = place
            super()._update_ranges(element, ranges)


class TimeCoursePlot(_SteadyPlot):
    """Bokeh's glyph of several lines, with a value of each for its colour and for hovering."""

    style_opts = [*base_properties, *line_properties, "cmap"]
    _nonvectorized_styles = [*base_properties, "cmap"]
    _plot_methods = {"single": "multi_line"}

    def _hover_opts(self, element: Any) -> tuple[list[Any], dict[str, Any]]:
        return [*self.overlay_dims, *element.vdims], {}

    def _element_transform(self, transform: Any, element: Any, ranges: Any) -> Any:
        return transform.apply(element.iloc[element.starts()], ranges=ranges, flat=True)

    def get_data(self, element: Any, ranges: Any, style: Mapping[str, Any]) -> tuple[Any, Any, Any]:
        """Columns of the data source, the fields of the glyph, and its style."""
        fields = ("ys", "xs") if self.invert_axes else ("xs", "ys")
        data: dict[str, Any] = dict(zip(fields, element.curves(), strict=True))
        names = {str(dim): dimension_sanitizer(dim.name) for dim in element.vdims}
        data.update({name: element.labels(dim) for dim, name in names.items()})
        self._get_hover_data(data, element, element.vdims)
        mapping: dict[str, Any] = {"xs": "xs", "ys": "ys"}
        style = dict(style)
        name = names.get(style["color"]) if isinstance(style.get("color"), str) else None
        if name is not None and data[name].dtype.kind in "fiu":
            # HoloViews' general way, a transform of styles, finds unique values and checks all properties.
            dim = element.get_dimension(style.pop("color"))
            with validate(False):
                mapper = self._get_colormapper(dim, element, ranges, style, name="color_color_mapper")
            mapping["line_color"] = {"field": name, "transform": mapper}
        return data, mapping, style

    def _init_plot(self, *args: Any, **kwargs: Any) -> Any:
        with validate(False):
            figure = super()._init_plot(*args, **kwargs)
        if isinstance(figure.title, str):
            figure.title = Title(text=figure.title)
        return figure

    def _update_labels(self, key: Any, plot: Any, element: Any) -> None:
        """Set the labels and fonts of the axes; HoloViews reads all properties of both to find which have changed."""
        dims = self._get_axis_dims(element)
        props = [self._axis_properties(axis, key, plot, dim) for axis, dim in zip("xy", dims, strict=False)]
        if self.drawn or any(isinstance(value, Model | dict) for part in props for value in part.values()):
            super()._update_labels(key, plot, element)
        else:
            for axis, part in zip((plot.xaxis[0], plot.yaxis[0]), props, strict=True):
                axis.update(**part)

    def _init_glyph(self, plot: Any, mapping: Any, properties: Any) -> tuple[Any, Any]:
        """Add the glyph; Bokeh itself derives those of selected and muted curves, unless a style tells them."""
        look = mpl_to_bokeh({**properties, **mapping})
        if any(name.startswith(("selection_", "nonselection_", "hover_", "muted_", "legend_")) for name in look):
            drawn: tuple[Any, Any] = super()._init_glyph(plot, mapping, properties)
            return drawn
        source, name = look.pop("source"), look.pop("name", None)
        of_renderer = {key: look.pop(key) for key in ("visible", "level") if key in look}
        for key in ("color", "alpha"):
            if key in look:
                look.setdefault(f"line_{key}", look.pop(key))
        tags = ["apply_ranges" if self.apply_ranges else "no_apply_ranges"]
        renderer = plot.add_glyph(source, MultiLine(tags=tags, **look), name=name, **of_renderer)
        if self.colorbar and "color_color_mapper" in self.handles:
            self._draw_colorbar(plot, self.handles["color_color_mapper"], "color_")
        return renderer, renderer.glyph


hv.Store.register({Hexagons: HexagonPlot, TimeCourses: TimeCoursePlot}, "bokeh")
