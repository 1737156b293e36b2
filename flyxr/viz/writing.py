"""Write pictures to files."""

from __future__ import annotations

import dataclasses
import io
import os
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import holoviews as hv
import numpy as np

from flyxr.arguments import Arguments
from flyxr.errors import DependencyError, InputError, Problem
from flyxr.paths import local_path
from flyxr.progress import progress_bar
from flyxr.viz import player, rastering, scenes, sheet

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

SUFFIXES = (".html", ".png", ".svg", ".gif", ".mp4")

DEFAULT_SCALE = {".png": 2.0, ".gif": 1.0}
"""Pixels of a file for each screen pixel."""

VIDEO_WIDTH = 1600
"""Pixels of a row of a video, unless its scale would be below 1 or above 2."""

N_GIF_COLOURS = 256

MAX_IMAGE_FRAMES, IMAGE_DURATION, IMAGE_SCALE = 24, 150, 1.5
"""Images in a notebook: most frames, the time each is shown (ms), and pixels of a still one for each screen pixel."""


def save(
    picture: Any,
    path: str | os.PathLike[str],
    *,
    fps: float = 10.0,
    scale: float | None = None,
    progress: bool = True,
) -> Path:
    """Write a picture to a file; the suffix chooses the format.

    No format needs a browser. Hexagons and frames of movies are painted by flyxr itself; elements with axes, such as
    time courses, are drawn by matplotlib, which is installed with ``pip install 'flyxr[plot]'``.

    Parameters
    ----------
    picture
        What a function of ``fx.viz`` returns, or any other HoloViews object, such as a Layout of several; or the
        result of :func:`flyxr.viz.animate`.
    path
        ``.html`` is a page that needs no network; frames have a slider, and play. ``.png`` and ``.svg`` are for one
        frame, ``.gif`` and ``.mp4`` for several. An existing file is replaced once the new one is complete.
    fps
        Frames shown in a second.
    scale
        Pixels of the file for each screen pixel of the picture; None takes 2 for ``.png``, 1 for ``.gif``, and from 1
        to 2 for ``.mp4``, less for a wide picture.
    progress
        Whether to show a progress bar for files that take more than a second.

    Returns
    -------
    pathlib.Path
        The file written.

    Raises
    ------
    ValueError
        If the picture is no HoloViews object, the suffix is another, an argument is out of range, or there are several
        frames for ``.png`` or ``.svg``.
    ImportError
        If a package for the format is not installed.

    Examples
    --------
    >>> import tempfile
    >>> import xarray as xr
    >>> from flyxr import hexgrid, viz
    >>> values = xr.DataArray(range(7), dims="column", coords=hexgrid.column_coords(1), name="response")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     viz.save(viz.hexmap(values), f"{folder}/response.png").name
    'response.png'
    """
    path, arguments = local_path(path), Arguments()
    fps = arguments.number("fps", fps, above=0)
    suffix = path.suffix.lower()
    scale = None if scale is None else arguments.number("scale", scale, above=0)
    if suffix not in SUFFIXES:
        text = f"expected a path that ends in {', '.join(SUFFIXES)}, got {path.name}"
        arguments.problems.append(Problem(text, f"e.g. {path.stem or 'picture'}.html"))
    arguments.raise_problems()
    picture = getattr(picture, "picture", picture)  # of an animation
    scene = scenes.read_scene(picture)
    if suffix in (".png", ".svg") and len(scene.keys) > 1:
        dims = ", ".join(dim.name for dim in scene.kdims)
        raise InputError(
            Problem(
                f"expected one frame for {suffix}, got {len(scene.keys)} over {dims}",
                "select one before drawing, e.g. with time=0.1, or write .gif, .mp4 or .html",
            )
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{suffix}")
    try:
        if suffix == ".html":
            _write_page(picture, scene, temporary, path.stem, fps)
        elif suffix == ".svg":
            temporary.write_text(sheet.Sheet(scene, has_caption=False).svg(), encoding="utf-8")
        else:
            _write_pixels(scene, temporary, path.name, fps, scale, progress)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def image(picture: Any) -> tuple[bytes, int, int]:
    """PNG of a picture for a notebook, animated if it has several frames, and its size.

    Parameters
    ----------
    picture
        A HoloViews object. Of many frames, :data:`MAX_IMAGE_FRAMES` are shown, spaced evenly.

    Returns
    -------
    bytes
        The file: PNG, or animated PNG, whose first frame shows where animations are not supported.
    int, int
        Width and height, screen pixels.

    Raises
    ------
    ValueError
        If the picture is no HoloViews object, or has no panel or unknown frames.

    Examples
    --------
    >>> from flyxr.testing import random_rendering
    >>> from flyxr.viz import hexmap
    >>> png, width, height = image(hexmap(random_rendering().isel(sample=0, time=0)))
    >>> png[1:4], height
    (b'PNG', 342)
    """
    from PIL import Image

    scene = scenes.read_scene(picture)
    if len(scene.keys) > MAX_IMAGE_FRAMES:
        chosen = np.linspace(0, len(scene.keys) - 1, MAX_IMAGE_FRAMES).round().astype(int)
        scene = dataclasses.replace(scene, keys=[scene.keys[position] for position in chosen])
    page = sheet.Sheet(scene, has_caption=len(scene.keys) > 1)
    frames = [Image.fromarray(frame.copy()) for frame in page.paint(IMAGE_SCALE if len(scene.keys) == 1 else 1.0)]
    if scene.is_pictures and len(frames) > 1:  # one palette makes the file a third as large
        palette = _gif_palette(scene)
        frames = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    elif len(frames) == 1:
        frames = [frame.quantize(256, dither=Image.Dither.NONE) for frame in frames]
    first, *others = frames
    buffer = io.BytesIO()
    if others:
        first.save(buffer, "png", save_all=True, append_images=others, duration=IMAGE_DURATION, loop=0)
    else:
        first.save(buffer, "png", optimize=True)
    return buffer.getvalue(), page.width, page.height


def _write_page(picture: Any, scene: scenes.Scene, path: Path, title: str, fps: float) -> None:
    if len(scene.keys) > 1 and scene.is_pictures:
        path.write_text(player.page(scene, title, fps), encoding="utf-8")
    else:
        hv.save(picture, path, fmt="html", backend="bokeh", resources="inline", title=title)


def _write_pixels(scene: scenes.Scene, path: Path, name: str, fps: float, scale: float | None, progress: bool) -> None:
    from PIL import Image

    page = sheet.Sheet(scene, has_caption=len(scene.keys) > 1)
    if scale is None:
        scale = DEFAULT_SCALE.get(path.suffix) or min(max(VIDEO_WIDTH / page.width, 1.0), 2.0)
    frames = progress_bar(f"write {name}", page.paint(scale), total=len(scene.keys), unit="frame", is_wanted=progress)
    if path.suffix == ".mp4":
        _write_video(frames, path, fps)
        return
    if path.suffix == ".png":
        for frame in frames:
            Image.fromarray(frame).save(path, dpi=(100 * scale, 100 * scale))
        return
    palette = _gif_palette(scene)
    pictures = [Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    first, *others = pictures
    first.save(path, save_all=True, append_images=others, duration=max(round(1000 / fps), 20), loop=0)


def _gif_palette(scene: scenes.Scene) -> Any:
    """One palette for all frames: the colours of the panels, and greys for the text."""
    from PIL import Image

    palettes = {tuple(panel.palette): None for panel in scene.panels if panel.kind != "other"}
    greys = [f"#{value:02x}{value:02x}{value:02x}" for value in np.linspace(0, 255, 32).astype(int)]
    if not scene.is_pictures:
        palettes[tuple(hv.plotting.util.process_cmap("rainbow", 64))] = None
    n_each = (N_GIF_COLOURS - 34) // max(len(palettes), 1)
    table = [rastering.rgb(["#ffffff", *greys, "#c9c9c9"])]
    for palette in palettes:
        chosen = np.linspace(0, len(palette) - 1, min(n_each, len(palette))).round().astype(int)
        table.append(rastering.rgb([palette[position] for position in chosen]))
    picture = Image.new("P", (1, 1))
    picture.putpalette(np.concatenate(table)[:N_GIF_COLOURS].tobytes())
    return picture


def _write_video(frames: Iterable[NDArray[np.uint8]], path: Path, fps: float) -> None:
    try:
        import av
    except ImportError as error:
        raise DependencyError(
            Problem("expected PyAV, which writes .mp4, got none", "pip install 'flyxr[video]', or write .gif")
        ) from error
    with av.open(str(path), "w", format="mp4") as container:
        stream: Any = None
        for frame in frames:
            even = frame[: frame.shape[0] // 2 * 2, : frame.shape[1] // 2 * 2]  # as the colours of video require
            if stream is None:
                stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
                stream.height, stream.width, stream.pix_fmt = *even.shape[:2], "yuv420p"
                stream.options = {"crf": "16", "preset": "veryfast"}
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")))
        container.mux(stream.encode())
