"""What a HoloViews object shows, panel by panel and frame by frame, for the writers of files and animations."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import holoviews as hv
import numpy as np

from flyxr.errors import InputError, Problem
from flyxr.viz import colours, elements
from flyxr.viz.hexagons import Hexagons

if TYPE_CHECKING:
    from numpy.typing import NDArray

DEFAULT_SIZE = 300
"""Width and height of a panel whose options do not tell them, screen pixels."""


@dataclass(frozen=True)
class Panel:
    """One picture, or one for each frame: a part of a layout."""

    content: Any
    """An element or an overlay, or a HoloMap or DynamicMap of them."""

    first: Any
    """The element or overlay of the first frame."""

    options: dict[str, Any]
    """Bokeh's options of the first frame."""

    @property
    def kind(self) -> Literal["columns", "frame", "other"]:
        """Hexagons, an image without axes, or any other element."""
        if isinstance(self.first, Hexagons):
            return "columns"
        is_bare = type(self.first) is hv.Image and self.options.get("xaxis", "bottom") is None
        return "frame" if is_bare and self.options.get("cnorm", "linear") == "linear" else "other"

    @property
    def title(self) -> str:
        """Title above the panel."""
        title = self.options.get("title")
        return str(self.first.label if title is None or "{" in title else title)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the frame, screen pixels."""
        found = (self.options.get(f"frame_{side}") or self.options.get(side) for side in ("width", "height"))
        return tuple(round(length or DEFAULT_SIZE) for length in found)  # type: ignore[return-value]

    @property
    def palette(self) -> list[str]:
        """Colours from the low end to the high end."""
        cmap = self.options.get("cmap", colours.GREY)
        return list(cmap) if isinstance(cmap, list | tuple) else list(hv.plotting.util.process_cmap(cmap, 256))

    @property
    def clim(self) -> tuple[float, float]:
        """Values at the ends of the palette."""
        low, high = self.options.get("clim", (None, None))
        if low is None or high is None:
            low, high = self.first.range(self.first.vdims[0])
        return float(low), float(high)

    @property
    def label(self) -> str:
        """Label of the colour bar, empty if there is none."""
        if not self.options.get("colorbar"):
            return ""
        return str(self.options.get("clabel") or self.first.vdims[0].pprint_label)

    @property
    def kdims(self) -> list[str]:
        """Dims over which there are frames."""
        return [dim.name for dim in self.content.kdims] if isinstance(self.content, hv.HoloMap) else []

    def element(self, key: tuple[Any, ...]) -> Any:
        """Element or overlay of one frame."""
        return self.content[key] if isinstance(self.content, hv.HoloMap) else self.content

    def values(self, element: Any) -> NDArray[Any]:
        """Values of a frame: (column), or (row, pixel) with the upper row first."""
        if self.kind == "columns":
            return np.asarray(element.dimension_values(element.vdims[0]))
        rows = element.dimension_values(element.vdims[0], flat=False)  # the lowest y first
        return np.asarray(rows if self.options.get("invert_yaxis") else rows[::-1])

    def lattice(self) -> elements.Lattice:
        """Columns of the first frame."""
        column, u, v = (self.first.dimension_values(name) for name in ("column", "u", "v"))
        x, y = (self.first.dimension_values(name) for name in ("x_column", "y_column"))
        return elements.Lattice(column, u, v, x, y)


@dataclass(frozen=True)
class Scene:
    """Panels in rows, and the frames that all of them share."""

    panels: list[Panel]
    n_columns: int
    kdims: list[Any]
    keys: list[tuple[Any, ...]]

    @property
    def is_pictures(self) -> bool:
        """Whether all panels show columns or frames of a movie."""
        return all(panel.kind != "other" for panel in self.panels)

    def panel_key(self, panel: Panel, key: tuple[Any, ...]) -> tuple[Any, ...]:
        """Part of a key that belongs to a panel."""
        names = [dim.name for dim in self.kdims]
        return tuple(key[names.index(name)] for name in panel.kdims)

    def caption(self, key: tuple[Any, ...]) -> str:
        """Labels of a frame, e.g. ``sample: 0, time: 0.1 s``."""
        return ", ".join(dim.pprint_value_string(value) for dim, value in zip(self.kdims, key, strict=True))


def read_scene(picture: Any) -> Scene:
    """Read the panels and frames of a HoloViews object.

    Raises
    ------
    ValueError
        If it is no HoloViews object, has no panel, or its panels have different frames.

    Examples
    --------
    >>> elements.load_backend()
    >>> curves = hv.HoloMap({0.1: hv.Curve([1, 2]), 0.2: hv.Curve([2, 1])}, "time")
    >>> scene = read_scene(curves + hv.Curve([3, 4]))
    >>> scene.keys, [scene.panel_key(panel, (0.2,)) for panel in scene.panels]
    ([(0.1,), (0.2,)], [(0.2,), ()])
    """
    if not isinstance(picture, hv.core.Dimensioned):
        text = f"expected a picture of HoloViews, as the functions of fx.viz return, got {type(picture).__name__}"
        raise InputError(Problem(text, "e.g. fx.viz.hexmap(responses.sel(cell_type='T4c'))"))
    elements.load_backend()
    parts, n_columns = _parts(picture)
    if not parts:
        raise InputError("expected a picture with at least one panel, got an empty layout")
    movable = [part for part in parts if isinstance(part, hv.HoloMap)]
    widest = max(movable, key=lambda part: len(part.kdims), default=None)
    if widest is None:
        return Scene([_panel(part, part) for part in parts], n_columns, [], [()])
    kdims, keys = list(widest.kdims), _keys(widest)
    names = [dim.name for dim in kdims]
    for part in movable:
        own = [dim.name for dim in part.kdims]
        wanted = {tuple(key[names.index(name)] for name in own) for key in keys} if set(own) <= set(names) else None
        if wanted is None or not wanted <= set(_keys(part)):
            raise InputError(
                Problem(
                    f"expected panels with the same frames, got frames over {names} and over {own} with other labels",
                    "write them to several files, or select the same times with .sel(time=..., method='nearest')",
                )
            )
    scene = Scene([], n_columns, kdims, keys)
    panels = []
    for part in parts:
        first = part
        if isinstance(part, hv.HoloMap):
            own = [names.index(dim.name) for dim in part.kdims]
            first = part[tuple(keys[0][position] for position in own)]
        panels.append(_panel(part, first))
    return Scene(panels, scene.n_columns, kdims, keys)


def options_of(element: Any) -> dict[str, Any]:
    """Options of an element or overlay for Bokeh, of the plot and of the style."""
    groups = (hv.Store.lookup_options("bokeh", element, group).kwargs for group in ("style", "plot", "norm"))
    return {name: value for kwargs in groups for name, value in kwargs.items()}


def _panel(part: Any, first: Any) -> Panel:
    return Panel(part, first, options_of(first))


def _parts(picture: Any) -> tuple[list[Any], int]:
    """Panels in reading order, and how many stand in a row."""
    if isinstance(picture, hv.AdjointLayout):
        picture = picture.main
    if isinstance(picture, hv.GridSpace | hv.NdLayout | hv.Layout):
        nested = [_parts(part)[0] for part in picture.values()]
        row = picture.shape[1] if isinstance(picture, hv.GridSpace) else picture._max_cols
        return [part for parts in nested for part in parts], row
    return [picture], 1


def _keys(frames: Any) -> list[tuple[Any, ...]]:
    """Keys of a HoloMap, or all combinations of the values that a DynamicMap declares."""
    if not isinstance(frames, hv.DynamicMap):
        return [key if isinstance(key, tuple) else (key,) for key in frames.keys()]
    undeclared = [dim.name for dim in frames.kdims if not dim.values]
    if undeclared:
        raise InputError(
            Problem(
                f"expected a DynamicMap whose frames are known, got no values of {undeclared}",
                "declare them with .redim.values(...)",
            )
        )
    return list(itertools.product(*(dim.values for dim in frames.kdims)))
