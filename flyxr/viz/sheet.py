"""A sheet of panels in rows with titles and colour bars, as pixels or as SVG."""

from __future__ import annotations

import base64
import functools
import html
import importlib.util
import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flyxr.viz import printing, rastering

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from flyxr.viz.scenes import Panel, Scene

MARGIN, GAP, BAR_WIDTH, FONT_SIZE = 12, 18, 12, 13
"""Space around the sheet and between its panels, width of a colour bar, and size of the text, screen pixels."""

LINE_HEIGHT, TICK_WIDTH = round(1.4 * FONT_SIZE), 48
"""Height of a line of text, and space for the numbers of a colour bar, screen pixels."""

TEXT_COLOUR = "#333333"


def ticks(low: float, high: float, count: int = 5) -> list[tuple[float, str]]:
    """Round numbers between two values, and their text.

    Examples
    --------
    >>> ticks(-1.2, 2.3)
    [(-1.0, '−1'), (0.0, '0'), (1.0, '1'), (2.0, '2')]
    """
    if not low < high:
        return [(low, f"{low:.3g}".replace("-", "−"))]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    positions = np.arange(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1) * step
    return [(float(value), f"{value + 0.0:.10g}".replace("-", "−")) for value in positions.round(12)]


@dataclass(frozen=True)
class Box:
    """Place of a panel on the sheet, screen pixels: its left upper corner, its size, and the lines of its title."""

    left: float
    top: float
    width: float
    height: float
    title: list[str]


class Sheet:
    """Where the panels of a scene stand.

    Parameters
    ----------
    scene
        Panels and frames.
    has_caption
        Whether a line above the panels names the frame.
    """

    def __init__(self, scene: Scene, has_caption: bool) -> None:
        self.scene, self.has_caption = scene, has_caption
        n_columns = max(min(scene.n_columns, len(scene.panels)), 1)
        # Figures of the first frame tell the sizes, and are painted then: drawing one takes a second.
        self.figures = {
            number: printing.draw(panel.first, panel.size)
            for number, panel in enumerate(scene.panels)
            if panel.kind == "other"
        }
        sizes = [_outer_size(panel, self.figures.get(number)) for number, panel in enumerate(scene.panels)]
        widths = [max(size[0] for size in sizes[column::n_columns]) for column in range(n_columns)]
        lefts = np.cumsum([MARGIN, *(width + GAP for width in widths)])
        top: float = MARGIN + (LINE_HEIGHT if has_caption else 0)
        self.boxes: list[Box] = []
        for row in range(0, len(sizes), n_columns):
            panels = scene.panels[row : row + n_columns]
            titles = [
                _wrap(panel.title, width) if panel.kind != "other" else []
                for panel, width in zip(panels, widths, strict=False)
            ]
            top += LINE_HEIGHT * max(map(len, titles))
            for column, (title, size) in enumerate(zip(titles, sizes[row:], strict=False)):
                self.boxes.append(Box(float(lefts[column]), top, *size, title))
            top += max(size[1] for size in sizes[row : row + n_columns]) + GAP
        self.width, self.height = int(lefts[-1] - GAP + MARGIN), int(top - GAP + MARGIN)

    def paint(self, scale: float) -> Iterator[NDArray[np.uint8]]:
        """Pixels (row, pixel, channel) of each frame, ``scale`` pixels for a screen pixel."""
        from PIL import Image, ImageDraw

        sheet = Image.new("RGB", (round(self.width * scale), round(self.height * scale)), "white")
        draw, font = ImageDraw.Draw(sheet), _font(FONT_SIZE * scale)
        painters = []
        for number, (panel, box) in enumerate(zip(self.scene.panels, self.boxes, strict=True)):
            for line, text in enumerate(reversed(box.title), 1):
                place = (box.left * scale, (box.top - line * LINE_HEIGHT) * scale)
                draw.text(place, _drawable(text), TEXT_COLOUR, font)
            if panel.kind != "other":
                painters.append(rastering.painter(panel, scale))
                if panel.label:
                    _paint_bar(sheet, panel, box, scale)
            else:
                painters.append(_printer(panel, scale, self.figures[number]))
        page = np.asarray(sheet).copy()
        shown: dict[int, tuple[Any, ...]] = {}
        for key in self.scene.keys:
            for number, (panel, box) in enumerate(zip(self.scene.panels, self.boxes, strict=True)):
                panel_key = self.scene.panel_key(panel, key)
                if shown.get(number) == panel_key:
                    continue
                element = panel.element(panel_key)
                pixels = painters[number](panel.values(element) if panel.kind != "other" else element)
                left, top = round(box.left * scale), round(box.top * scale)
                pixels = pixels[: page.shape[0] - top, : page.shape[1] - left]
                page[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
                shown[number] = panel_key
            if self.has_caption:
                strip = Image.new("RGB", (page.shape[1], round(LINE_HEIGHT * scale)), "white")
                caption = _drawable(self.scene.caption(key))
                ImageDraw.Draw(strip).text((MARGIN * scale, 0), caption, TEXT_COLOUR, font)
                top = round(MARGIN * scale / 2)
                page[top : top + strip.height] = np.asarray(strip)
            yield page

    def svg(self) -> str:
        """The first frame as SVG: hexagons are polygons, frames of movies are images."""
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="0 0 {self.width} {self.height}" width="{self.width}" height="{self.height}" '
            f'font-family="sans-serif" font-size="{FONT_SIZE}" fill="{TEXT_COLOUR}">',
            '<rect width="100%" height="100%" fill="white"/>',
        ]
        key = self.scene.keys[0]
        for panel, box in zip(self.scene.panels, self.boxes, strict=True):
            for line, text in enumerate(reversed(box.title), 1):
                y = box.top - (line - 1) * LINE_HEIGHT - 0.4 * FONT_SIZE
                parts.append(f'<text x="{box.left:g}" y="{y:g}">{html.escape(text)}</text>')
            element = panel.element(self.scene.panel_key(panel, key))
            if panel.kind == "columns":
                parts += _svg_columns(panel, panel.values(element), box)
            elif panel.kind == "frame":
                pixels = rastering.painter(panel, 1)(panel.values(element))
                parts.append(_svg_image(pixels, box.left, box.top, *panel.size))
            else:
                text = printing.svg(element, panel.size, len(parts))
                parts.append(f'<g transform="translate({box.left:g} {box.top:g})">{text}</g>')
            if panel.kind != "other" and panel.label:
                parts += _svg_bar(panel, box)
        return "\n".join([*parts, "</svg>"])


def _outer_size(panel: Panel, figure: Any) -> tuple[float, float]:
    """Width and height of a panel with its colour bar, or of a figure with its axes."""
    if figure is not None:
        return printing.figure_size(figure)
    bar = 8 + BAR_WIDTH + TICK_WIDTH + LINE_HEIGHT if panel.label else 0
    return panel.size[0] + bar, panel.size[1]


def _bar(panel: Panel, box: Box) -> tuple[float, float, list[tuple[float, str]]]:
    """Left edge and height of a colour bar, and its ticks as fractions of the height from the top, with their text."""
    low, high = panel.clim
    reach = (high - low) or 1.0
    marks = [((high - value) / reach, text) for value, text in ticks(low, high)]
    return box.left + panel.size[0] + 8, float(panel.size[1]), marks


def _paint_bar(sheet: Any, panel: Panel, box: Box, scale: float) -> None:
    from PIL import Image, ImageDraw

    left, height, marks = _bar(panel, box)
    table = rastering.rgb(panel.palette)[::-1]
    n_rows = round(height * scale)
    rows = table[np.arange(n_rows) * len(table) // n_rows]
    strip = np.repeat(rows[:, None], round(BAR_WIDTH * scale), axis=1)
    sheet.paste(Image.fromarray(strip), (round(left * scale), round(box.top * scale)))
    draw, font = ImageDraw.Draw(sheet), _font(0.85 * FONT_SIZE * scale)
    for position, text in marks:
        y = box.top + position * height
        draw.line([((left + BAR_WIDTH) * scale, y * scale), ((left + BAR_WIDTH + 4) * scale, y * scale)], TEXT_COLOUR)
        place = ((left + BAR_WIDTH + 6) * scale, y * scale)
        draw.text(place, _drawable(text), TEXT_COLOUR, font, anchor="lm")
    label = Image.new("RGB", (round(height * scale), round(LINE_HEIGHT * scale)), "white")
    middle = (label.width / 2, label.height / 2)
    size = FONT_SIZE * scale
    size *= min(label.width / max(_font(size).getlength(panel.label), 1), 1)  # a long label is smaller, and not cut
    ImageDraw.Draw(label).text(middle, _drawable(panel.label), TEXT_COLOUR, _font(size), anchor="mm")
    corner = (round((left + BAR_WIDTH + TICK_WIDTH) * scale), round(box.top * scale))
    sheet.paste(label.rotate(90, expand=True), corner)


def _svg_bar(panel: Panel, box: Box) -> list[str]:
    left, height, marks = _bar(panel, box)
    colours = rastering.rgb(panel.palette)[::-1][:, None]
    parts = [_svg_image(colours, left, box.top, BAR_WIDTH, height)]
    for position, text in marks:
        y = box.top + position * height + 0.3 * FONT_SIZE
        parts.append(f'<text x="{left + BAR_WIDTH + 6:g}" y="{y:g}" font-size="{0.85 * FONT_SIZE:g}">{text}</text>')
    x, y = left + BAR_WIDTH + TICK_WIDTH + FONT_SIZE, box.top + height / 2
    rotated = f'transform="translate({x:g} {y:g}) rotate(-90)" text-anchor="middle"'
    return [*parts, f"<text {rotated}>{html.escape(panel.label)}</text>"]


def _svg_columns(panel: Panel, values: NDArray[Any], box: Box) -> list[str]:
    table = [*panel.palette, rastering.missing_colour(panel)]
    fill = [table[index] for index in rastering.colour_index(values, panel.clim, len(table) - 1)]
    xs, ys = panel.lattice().corners()
    width, height = panel.size
    x = box.left + (xs - xs.min()) / np.ptp(xs) * width
    y = box.top + (ys.max() - ys) / np.ptp(ys) * height
    corners = [" ".join(f"{a:.2f},{b:.2f}" for a, b in zip(*pair, strict=True)) for pair in zip(x, y, strict=True)]
    # Lines of the same colour cover the seams.
    return [
        f'<polygon points="{points}" fill="{colour}" stroke="{colour}" stroke-width="0.6"/>'
        for points, colour in zip(corners, fill, strict=True)
    ]


def _svg_image(pixels: NDArray[np.uint8], left: float, top: float, width: float, height: float) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    data = base64.b64encode(buffer.getvalue()).decode()
    place = f'x="{left:g}" y="{top:g}" width="{width:g}" height="{height:g}" preserveAspectRatio="none"'
    return f'<image {place} xlink:href="data:image/png;base64,{data}" style="image-rendering: pixelated"/>'


def _printer(panel: Panel, scale: float, first: Any) -> Any:
    """Function from an element to its pixels; the figure of the first frame is drawn already."""

    def pixels(element: Any) -> NDArray[np.uint8]:
        figure = first if element is panel.first else printing.draw(element, panel.size)
        return printing.pixels(figure, scale)

    return pixels


@functools.cache
def _font_file() -> Path | None:
    """Matplotlib's font, which has more characters than Pillow's, if it is installed."""
    found = importlib.util.find_spec("matplotlib")
    folders = [] if found is None else found.submodule_search_locations or []
    files = [Path(folder, "mpl-data", "fonts", "ttf", "DejaVuSans.ttf") for folder in folders]
    return next((file for file in files if file.is_file()), None)


def _font(size: float) -> Any:
    from PIL import ImageFont

    file = _font_file()
    return ImageFont.load_default(size=size) if file is None else ImageFont.truetype(file, size)


def _drawable(text: str) -> str:
    """Text in characters that the font has: Pillow's lacks the minus sign."""
    return text.replace("−", "-") if _font_file() is None else text


def _wrap(text: str, width: float) -> list[str]:
    """Lines of a text, none wider than ``width`` screen pixels unless a word is."""
    font, lines = _font(FONT_SIZE), list[str]()
    for word in text.split():
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(joined) <= width:
            lines[-1] = joined
        else:
            lines.append(word)
    return lines
