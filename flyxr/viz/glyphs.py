"""How Bokeh draws hexagons; importing this module loads HoloViews' Bokeh backend and registers it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import holoviews as hv
import numpy as np
from holoviews.plotting.bokeh.element import ColorbarPlot
from holoviews.plotting.bokeh.styles import base_properties, fill_properties, line_properties

from flyxr.viz.hexagons import Hexagons

if TYPE_CHECKING:
    from collections.abc import Mapping

SIZE = 1 / np.sqrt(3)
"""Distance from the middle of a hexagon to its corners, in units of column pitch."""


class HexagonPlot(ColorbarPlot):  # type: ignore[misc]
    """Bokeh's glyph of hexagons with a flat top, which keep their shape when zoomed."""

    style_opts = [*base_properties, *line_properties, *fill_properties, "cmap"]
    _nonvectorized_styles = [*base_properties, *line_properties, "cmap"]
    _plot_methods = {"single": "hex_tile"}

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


hv.Store.register({Hexagons: HexagonPlot}, "bokeh")
