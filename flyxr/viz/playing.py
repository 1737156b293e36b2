"""Animations that play in a notebook without a server."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any

import xarray as xr

from flyxr.arguments import Arguments
from flyxr.errors import InputError, Problem
from flyxr.viz import columns, player, scenes, screen, sheet


@dataclass(frozen=True)
class Animation:
    """Frames with a play button and a slider; a notebook shows them, and :func:`flyxr.viz.save` writes them."""

    picture: Any
    """The HoloViews object with the frames."""

    page: str
    """A page that needs no network."""

    width: int
    height: int

    def _repr_html_(self) -> str:
        size = f'width="{self.width}" height="{self.height}" style="border: 0; max-width: 100%"'
        return f'<iframe srcdoc="{html.escape(self.page)}" {size}></iframe>'


def animate(data: Any, *, fps: float = 10.0, title: str = "", **options: Any) -> Animation:
    """Play frames in a notebook, without a server: in JupyterLab, VS Code or a page that was exported from them.

    Parameters
    ----------
    data
        Labelled data of columns or of a movie, with several times, which :func:`flyxr.viz.hexmap` or
        :func:`flyxr.viz.movie` draws; or a picture with several frames, such as the result of
        :func:`flyxr.viz.stimulus_response`.
    fps
        Frames shown in a second.
    title
        Heading of the page.
    **options
        Options of the function that draws labelled data.

    Returns
    -------
    Animation
        ``fx.viz.save(animation, "responses.mp4")`` writes it to a file.

    Raises
    ------
    ValueError
        If there is a single frame, the data is neither columns nor a movie, or an argument is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> import xarray as xr
    >>> from flyxr import hexgrid
    >>> coords = {"time": [0.0, 0.1], **hexgrid.column_coords(1)}
    >>> values = xr.DataArray(np.eye(2, 7), coords, ("time", "column"), name="response")
    >>> animation = animate(values, height=200)
    >>> animation.picture.keys()
    [0.0, 0.1]
    """
    arguments = Arguments()
    fps = arguments.number("fps", fps, above=0)
    if title != "":
        arguments.names("title", title)
    arguments.raise_problems()
    picture = _draw(data, options)
    scene = scenes.read_scene(picture)
    if not scene.is_pictures:
        raise InputError(
            Problem(
                "expected columns or frames of a movie in all panels, got an element with axes",
                "write the picture with fx.viz.save(picture, 'picture.html')",
            )
        )
    if len(scene.keys) < 2:
        raise InputError(
            Problem("expected several frames, got one", "keep the dim 'time', or draw the frame with fx.viz.hexmap")
        )
    page = sheet.Sheet(scene, has_caption=True)
    return Animation(picture, player.page(scene, title, fps), page.width + 40, page.height + 130)


def _draw(data: Any, options: dict[str, Any]) -> Any:
    if not isinstance(data, xr.DataArray | xr.Dataset):
        if options:
            raise InputError(
                Problem(
                    f"expected no options of a drawing function for a picture, got {sorted(options)}",
                    "give them to the function that drew it",
                )
            )
        return data
    return screen.movie(data, **options) if {"y", "x"} <= set(data.dims) else columns.hexmap(data, **options)
