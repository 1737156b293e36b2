"""Bokeh figures of the report: drawn by HoloViews once, then updated in the browser by replacing their data."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import holoviews as hv
import numpy as np
from bokeh.models.annotations import Span
from bokeh.models.callbacks import CustomJS
from bokeh.models.widgets import Div, Select, Slider, Toggle

from flyxr.viz import elements, selecting

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr
    from numpy.typing import NDArray

    from flyxr.viz.colours import ColourScale

N_STRIP_FRAMES, STRIP_WIDTH, SLOT_WIDTH = 6, 1080, 1.06
"""Frames in a strip, its width in screen pixels, and the width of a slot relative to the picture in it."""

FIXED: dict[str, Any] = {"tools": [], "default_tools": [], "toolbar": None, "border": 0}
"""Options of a figure that cannot be moved."""

UPDATE = """
const s = samples.indexOf(sample.value), k = slider.value
for (let i = 0; i < sources.length; i++) {
    const n = steps[i].length
    const values = frames[i][n > 0 ? s * counts[i] + steps[i][k] : s]
    const data = Object.assign({}, sources[i].data)
    for (const name of names[i]) data[name] = names[i][0] == "image" ? [values] : values
    sources[i].data = data
}
for (const span of spans) span.location = times[k]
clock.text = times[k].toFixed(3) + " s"
"""

PLAY = """
window.clearInterval(window.flyxr_player)
const n = slider.end + 1
if (toggle.active)
    window.flyxr_player = window.setInterval(() => { slider.value = (slider.value + 1) % n }, 100)
toggle.label = toggle.active ? "❚❚ pause" : "▶ play"
"""


class Player:
    """Figures that show the same sample and time: each has frames to put into its data source.

    Parameters
    ----------
    times
        Times of the frames, s.
    sample_labels
        Names of the samples to choose from.
    """

    def __init__(self, times: NDArray[Any], sample_labels: list[str]) -> None:
        self.times, self.sample_labels = times.tolist(), sample_labels
        self.spans: list[Span] = []
        self.args: dict[str, list[Any]] = {"sources": [], "names": [], "frames": [], "steps": [], "counts": []}
        self.slider = Slider(
            start=0,
            end=max(len(times) - 1, 1),
            value=0,
            step=1,
            show_value=False,
            width=420,
            disabled=len(times) == 1,
        )
        self.clock = Div(text=f"{times[0]:.3f} s", width=70)
        self.sample = Select(
            options=list[Any](sample_labels), value=sample_labels[0], width=260, disabled=len(sample_labels) == 1
        )
        self.toggle = Toggle(label="▶ play", width=90, disabled=len(times) == 1)

    def add(self, source: Any, names: tuple[str, ...], frames: list[Any], steps: Sequence[int], count: int) -> None:
        """Let a source show ``frames[sample * count + steps[time]]``, or ``frames[sample]`` if ``steps`` is empty."""
        present = [name for name in names if name in source.data]
        for key, value in zip(self.args, (source, present, frames, list(map(int, steps)), count), strict=True):
            self.args[key].append(value)

    def widgets(self) -> dict[str, Any]:
        """Connect the figures that were added, and return the widgets to put on the page."""
        controls = {
            "slider": self.slider,
            "clock": self.clock,
            "sample": self.sample,
            "times": self.times,
            "samples": self.sample_labels,
        }
        update = CustomJS(args={**controls, **self.args, "spans": self.spans}, code=UPDATE)
        self.slider.js_on_change("value", update)
        self.sample.js_on_change("value", update)
        self.toggle.js_on_change("active", CustomJS(args={"toggle": self.toggle, "slider": self.slider}, code=PLAY))
        return {"toggle": self.toggle, "slider": self.slider, "clock": self.clock, "sample": self.sample}


def column_strip(values: NDArray[Any], lattice: elements.Lattice, scale: ColourScale) -> Any:
    """Pictures (frame, column) side by side.

    HoloViews draws a single hexagon; the data source of the figure is then filled with all of them.
    """
    (xs, ys), (width, height) = lattice.corners(), np.ptp(lattice.corners(), axis=(1, 2))
    # Two columns along v and one back along u are a step to the right.
    n_steps = math.ceil(max(width, height) * SLOT_WIDTH / math.sqrt(3))
    slot = n_steps * math.sqrt(3)
    left = xs.min() - (slot - width) / 2
    first = lattice.first_column()
    style = elements.hexagon_style(
        first,
        scale,
        xlim=(left, left + N_STRIP_FRAMES * slot),
        ylim=(ys.min(), ys.max()),
        frame_width=STRIP_WIDTH,
        frame_height=round(STRIP_WIDTH * height / (N_STRIP_FRAMES * slot)),
        **FIXED,
    )
    figure = _render(elements.hexagons(values[0, :1], first, "value", scale.clim).opts(style))
    shifts = np.arange(len(values))[:, None] * n_steps
    axes = {"u": lattice.u - shifts, "v": lattice.v + 2 * shifts}
    _data_source(figure).data = {**{name: axis.ravel() for name, axis in axes.items()}, "value": values.ravel()}
    return figure


def frame_strip(frames: NDArray[Any]) -> Any:
    """Frames (frame, y, x) side by side, in slots as wide as those of :func:`column_strip`."""
    height, width = frames.shape[1:]
    slot = round(max(height, width) * SLOT_WIDTH) + 1
    strip = np.full((height, N_STRIP_FRAMES * slot), np.nan, dtype=np.float32)
    for number, frame in enumerate(frames):
        left = number * slot + (slot - width) // 2
        strip[:, left : left + width] = frame
    size = {"frame_width": STRIP_WIDTH, "frame_height": round(STRIP_WIDTH * height / strip.shape[1])}
    return _render(elements.image(strip).opts(elements.image_style(strip.shape, **size, **FIXED)))


def movie_figure(player: Player, luminance: NDArray[Any], displayed: NDArray[np.int64]) -> Any:
    """Frames (sample, frame, y, x); ``displayed`` (time) is the position of the frame on display."""
    # Bytes make the page four times smaller than float32, so the colours run from 0 to 255.
    frames = np.rint(np.nan_to_num(luminance, nan=0.5).clip(0, 1) * 255).astype(np.uint8)
    height, width = frames.shape[2:]
    style = elements.image_style((height, width), clim=(0, 255), height=min(330, 330 * height // width), **FIXED)
    figure = _render(elements.image(frames[0, displayed[0]]).opts(style))
    player.add(
        _data_source(figure), ("image",), list(frames.reshape(-1, height, width)), displayed.tolist(), frames.shape[1]
    )
    return figure


def column_figure(player: Player, data: xr.DataArray, scale: ColourScale, name: str) -> Any:
    """Values (sample, time, column) as hexagons."""
    lattice, values = elements.read_lattice(data), data.values.astype(np.float32)
    style = elements.hexagon_style(lattice, scale, height=330, default_tools=["wheel_zoom", "pan", "reset"])
    figure = _render(elements.hexagons(values[0, 0], lattice, name, scale.clim).opts(style))
    figure.toolbar.autohide = True
    n_times = values.shape[1]
    player.add(_data_source(figure), (name,), list(values.reshape(-1, values.shape[2])), range(n_times), n_times)
    return figure


def trace_figures(player: Player, central: xr.DataArray) -> list[Any]:
    """One figure per cell type of (cell_type, sample, model, time), with a line at the time of the slider."""
    figures, time, label = [], central["time"].values, selecting.value_label(central)
    for name, values in zip(central["cell_type"].values.tolist(), central.values, strict=True):
        finite = values[np.isfinite(values)]
        low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
        margin = 0.05 * (high - low) or 0.5
        lines = [(elements.join_curves(time, sample), (time, np.asarray(sample).mean(axis=0))) for sample in values]
        (models, mean), dims = lines[0], ("time", "response")
        layers = hv.Curve(models, *dims).opts(
            hv.opts.Curve(color="#7d8fb3", line_width=0.8, alpha=0.7, backend="bokeh")
        ) * hv.Curve(mean, *dims).opts(hv.opts.Curve(color="#1f3d7a", line_width=2.5, backend="bokeh"))
        options: dict[str, Any] = {
            "title": name,
            "xlabel": "time (s)",
            "ylabel": label,
            "frame_width": 155,
            "frame_height": 120,
            "xticks": 4,
            "ylim": (float(low - margin), float(high + margin)),
            **FIXED,
        }
        figure = _render(layers.opts(hv.opts.Overlay(**options, backend="bokeh")))
        figure.axis.minor_tick_line_color = None
        span = Span(location=float(time[0]), dimension="height", line_color="#d1495b", line_dash="dotted")
        figure.add_layout(span)
        player.spans.append(span)
        for layer, samples in enumerate(zip(*lines, strict=True)):
            frames = [response.astype(np.float32) for _, response in samples]
            player.add(_data_source(figure, layer), ("response",), frames, (), 0)
        figures.append(figure)
    return figures


def _render(element: Any) -> Any:
    figure = hv.render(element, backend="bokeh")
    figure.sizing_mode = None  # Bokeh warns of a frame of fixed size otherwise
    figure.min_border = 0
    return figure


def _data_source(figure: Any, layer: int = 0) -> Any:
    """Bokeh's data source of a layer."""
    return figure.renderers[layer].data_source
