"""A page that tells one simulation from stimulus to response, in one file that needs no network."""

from __future__ import annotations

import html
import os
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

import holoviews as hv
import numpy as np
from bokeh.embed import components
from bokeh.models.annotations import Span
from bokeh.models.callbacks import CustomJS
from bokeh.models.widgets import Div, Select, Slider, Toggle
from bokeh.resources import Resources
from dask.base import compute

from flyxr.selection import align_labels
from flyxr.viz import base

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

TRACED = ("L1", "L2", "Mi1", "Tm3", "Mi9", "T4a", "T4b", "T4c", "T4d", "T5c")
"""Cell types whose time courses are drawn, where they were recorded."""

MOST_SAMPLES, MOST_MODELS, MOST_TIMES, MOST_POINTS, MOST_PIXELS = 8, 50, 80, 300, 100
"""What a page holds at most: samples, models, times of pictures, times of curves, pixels along a frame."""

STRIP_FRAMES, STRIP_WIDTH, SLOT = 6, 1080, 1.06


def report(
    movie: xr.DataArray | xr.Dataset,
    rendering: xr.DataArray | xr.Dataset,
    responses: xr.DataArray | xr.Dataset,
    path: str | os.PathLike[str],
    *,
    title: str = "From stimulus to response in the fly visual system",
    notes: str = "",
    cell_type: str = "T4c",
) -> Path:
    """Write a page with the stimulus, what the columns receive, and the responses of the models.

    A strip of frames comes first, then the same with a slider over time and a choice of sample, with the central
    time courses of some cell types in all models. The file holds all it needs and opens without a network. Long
    runs are thinned: at most 8 samples, 50 models and 80 times of pictures, and the page says so.

    Parameters
    ----------
    movie
        ``luminance`` (sample, time, y, x).
    rendering
        ``luminance`` (sample, time, column).
    responses
        ``response`` (model, sample, time, cell_type, column). What is drawn is selected first, then computed at
        once. Where the attribute ``trained`` is False, a banner says that these aren't the published models.
    path
        The HTML file to write; its folder is made if need be. It is replaced as a whole or not at all.
    title, notes
        Heading of the page and a paragraph below its summary, plain text.
    cell_type
        The cell type drawn in the columns, of the first model. If it wasn't recorded, the first type that was is
        drawn, and the page says so.

    Returns
    -------
    pathlib.Path
        The file written.

    Raises
    ------
    ValueError
        If an argument is of another kind, or movie or rendering lack samples of the responses.

    Examples
    --------
    >>> import numpy as np
    >>> import tempfile
    >>> import xarray as xr
    >>> from flyxr import hexgrid
    >>> time, columns = [0.0, 0.01], hexgrid.column_coords(1)
    >>> movie = xr.DataArray(np.ones((2, 4, 4)), dims=("time", "y", "x"), coords={"time": time})
    >>> rendering = xr.DataArray(np.ones((2, 7)), dims=("time", "column"), coords={"time": time, **columns})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     report(movie, rendering, rendering.assign_coords(cell_type="T4c"), f"{folder}/report.html").name
    'report.html'
    """
    content = _collect(movie, rendering, responses, cell_type)
    base.load_backend()
    page = _page(content, title, notes)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(page, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


@dataclass(frozen=True)
class _Content:
    """What is drawn, computed; ``frame_at`` (time) is the frame on display at each time."""

    frames: xr.DataArray  # (sample, frame, y, x)
    frame_at: NDArray[np.int64]
    columns: xr.DataArray  # (sample, time, column)
    shown: xr.DataArray | None  # (sample, time, column)
    central: xr.DataArray | None  # (cell_type, sample, model, time)
    summary: str
    remarks: tuple[str, ...]
    trained: bool | None

    @property
    def times(self) -> NDArray[np.float64]:
        """Times of the pictures, s."""
        times: NDArray[np.float64] = self.columns["time"].values
        return times


def _collect(movie: Any, rendering: Any, responses: Any, cell_type: str) -> _Content:
    response = base.of_kind(responses, "responses").rename("response")
    where, types = base.lattice(response), response["cell_type"].values.tolist()
    trained = responses.attrs.get("trained")
    trained = None if trained is None else bool(trained)
    all_sizes, remarks = dict(response.sizes), []
    response = response.isel(sample=slice(MOST_SAMPLES), model=slice(MOST_MODELS))
    for dim in ("sample", "model"):
        if response.sizes[dim] < all_sizes[dim]:
            remarks.append(f"Drawn are the first {response.sizes[dim]} of {all_sizes[dim]} {dim}s.")

    thinned = base.thin(all_sizes["time"], MOST_TIMES)
    times = response["time"].values[thinned]
    if len(thinned) < all_sizes["time"]:
        remarks.append(f"Pictures are {thinned[1]} steps apart.")
    film = align_labels(base.of_kind(movie, "movie"), response["sample"], "a movie")
    columns = align_labels(base.of_kind(rendering, "rendering"), response["sample"], "a rendering")
    summary = _summary(response, all_sizes, film, columns, trained)
    at, frame_at = np.unique(base.shown_at(film["time"].values, times), return_inverse=True)
    film = film.isel(time=at)
    factor = -(-max(film.sizes["y"], film.sizes["x"]) // MOST_PIXELS)
    film = film.coarsen({dim: min(factor, film.sizes[dim]) for dim in ("y", "x")}, boundary="trim").mean()
    columns = columns.isel(time=base.shown_at(columns["time"].values, times)).assign_coords(time=times)

    shown = None
    if where.u.size > 1:
        if cell_type not in types:
            remarks.append(f"{cell_type} was not recorded; {types[0]} is shown instead.")
            cell_type = types[0]
        shown = response.isel(model=0, time=thinned).sel(cell_type=cell_type)
    else:
        remarks.append("One column was recorded, so there is no picture of the responses in the columns.")
    central, middle = None, np.flatnonzero((where.u == 0) & (where.v == 0))
    if middle.size:
        traced = [name for name in TRACED if name in types] or types[: len(TRACED)]
        central = response.sel(cell_type=traced).isel(column=middle[0], time=base.thin(all_sizes["time"], MOST_POINTS))
        central = central.transpose("cell_type", "sample", "model", "time")
    else:
        remarks.append("The central column was not recorded, so there are no time courses.")
    film, columns, shown, central = compute(film, columns, shown, central)
    return _Content(film, frame_at, columns, shown, central, summary, tuple(remarks), trained)


def _summary(
    response: xr.DataArray, sizes: dict[Any, int], film: xr.DataArray, columns: xr.DataArray, trained: bool | None
) -> str:
    time = response["time"].values
    step = f" of {np.diff(time).mean() * 1000:.3g} ms" if time.size > 1 else ""
    kind = {True: "trained ", False: "untrained ", None: ""}[trained]
    return (
        f"{_count(sizes['sample'], 'sample')} of {_count(film.sizes['time'], 'frame')} of {film.sizes['x']} × "
        f"{film.sizes['y']} pixels, seen by {_count(columns.sizes['column'], 'column')} and simulated for "
        f"{_count(time.size, 'step')}{step} in {_count(sizes['model'], f'{kind}model')}. Recorded: "
        f"{_count(sizes['cell_type'], 'cell type')} in {_count(sizes['column'], 'column')}."
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _figure(element: Any) -> Any:
    figure = hv.render(element, backend="bokeh")
    figure.sizing_mode = None  # a frame of fixed size, which Bokeh would otherwise remark on
    figure.min_border = 0
    return figure


def _source(figure: Any, position: int = 0) -> Any:
    """Bokeh's data source of a layer: what it draws, to be replaced."""
    return figure.renderers[position].data_source


STILL: dict[str, Any] = {"tools": [], "default_tools": [], "toolbar": None, "border": 0}


def _strip_of_columns(values: NDArray[Any], where: base.Lattice, chosen: base.Colours) -> Any:
    """Pictures (frame, column) side by side: one hexagon by HoloViews, then all of them in its data source."""
    (xs, ys), (width, height) = where.corners(), np.ptp(where.corners(), axis=(1, 2))
    slot = max(width, height) * SLOT
    left = xs.min() - (slot - width) / 2
    first = where.first()
    style = base.hexagon_style(
        first,
        "value",
        chosen,
        xlim=(left, left + STRIP_FRAMES * slot),
        ylim=(ys.min(), ys.max()),
        frame_width=STRIP_WIDTH,
        frame_height=round(STRIP_WIDTH * height / (STRIP_FRAMES * slot)),
        **STILL,
    )
    figure = _figure(base.hexagons(values[0, :1], first, "value", chosen.clim).opts(style))
    source, flat = _source(figure), values.astype(np.float32).ravel()
    rings_x = [[[ring]] for shift in range(len(values)) for ring in (xs + shift * slot).round(3).tolist()]
    rings_y = [[[ring]] for _ in values for ring in ys.round(3).tolist()]
    source.data = {"xs": rings_x, "ys": rings_y, **{name: flat for name in ("value", "color") if name in source.data}}
    return figure


def _strip_of_frames(frames: NDArray[Any]) -> Any:
    """Frames (frame, y, x) side by side, in slots as wide as those of the columns."""
    height, width = frames.shape[1:]
    slot = round(max(height, width) * SLOT) + 1
    strip = np.full((height, STRIP_FRAMES * slot), np.nan, dtype=np.float32)
    for number, frame in enumerate(frames):
        left = number * slot + (slot - width) // 2
        strip[:, left : left + width] = frame
    size = {"frame_width": STRIP_WIDTH, "frame_height": round(STRIP_WIDTH * height / strip.shape[1])}
    return _figure(base.image(strip).opts(base.image_style(strip.shape, **size, **STILL)))


MOVE = """
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


def _sample_labels(data: xr.DataArray) -> list[str]:
    """Name each sample by its label and up to three of its stimulus parameters."""
    names = [str(name) for name, coord in data.coords.items() if coord.dims == ("sample",) and name != "sample"][:3]
    labels = []
    for sample in data["sample"]:
        values = [sample[name].item() for name in names]
        given = [f"{n} {v:.4g}" if isinstance(v, float) else f"{n} {v}" for n, v in zip(names, values, strict=True)]
        labels.append(f"sample {sample.item()}" + (f" ({', '.join(given)})" if given else ""))
    return labels


class _Player:
    """Figures that move together: each has arrays to put into its data source, by sample and time."""

    def __init__(self, content: _Content) -> None:
        times = content.times
        labels = _sample_labels(content.columns)
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
        self.sample = Select(options=list[Any](labels), value=labels[0], width=260, disabled=len(labels) == 1)
        self.toggle = Toggle(label="▶ play", width=90, disabled=len(times) == 1)
        self.times, self.labels = times.tolist(), labels

    def add(self, source: Any, names: tuple[str, ...], frames: list[Any], steps: Any, count: int) -> None:
        """Let a source show ``frames[sample * count + steps[time]]``, or ``frames[sample]`` without steps."""
        present = [name for name in names if name in source.data]
        for key, value in zip(self.args, (source, present, frames, list(map(int, steps)), count), strict=True):
            self.args[key].append(value)

    def widgets(self) -> dict[str, Any]:
        """Connect what was added; the widgets to put on the page."""
        shared = {
            "slider": self.slider,
            "clock": self.clock,
            "sample": self.sample,
            "times": self.times,
            "samples": self.labels,
        }
        move = CustomJS(args={**shared, **self.args, "spans": self.spans}, code=MOVE)
        self.slider.js_on_change("value", move)
        self.sample.js_on_change("value", move)
        self.toggle.js_on_change("active", CustomJS(args={"toggle": self.toggle, "slider": self.slider}, code=PLAY))
        return {"toggle": self.toggle, "slider": self.slider, "clock": self.clock, "sample": self.sample}


def _movie_figure(player: _Player, content: _Content) -> Any:
    luminance = np.nan_to_num(content.frames.values, nan=0.5).clip(0, 1)
    # Sent as bytes, a quarter of the size; the colours go from 0 to 255 instead.
    frames = np.rint(luminance * 255).astype(np.uint8)
    height, width = frames.shape[2:]
    style = base.image_style((height, width), clim=(0, 255), height=min(330, 330 * height // width), **STILL)
    figure = _figure(base.image(frames[0, content.frame_at[0]]).opts(style))
    player.add(_source(figure), ("image",), list(frames.reshape(-1, height, width)), content.frame_at, frames.shape[1])
    return figure


def _columns_figure(player: _Player, data: xr.DataArray, chosen: base.Colours, name: str) -> Any:
    where, values = base.lattice(data), data.values.astype(np.float32)
    style = base.hexagon_style(where, name, chosen, height=330, default_tools=["wheel_zoom", "pan", "reset"])
    figure = _figure(base.hexagons(values[0, 0], where, name, chosen.clim).opts(style))
    figure.toolbar.autohide = True
    count = values.shape[1]
    player.add(_source(figure), (name, "color"), list(values.reshape(-1, values.shape[2])), range(count), count)
    return figure


def _trace_figures(player: _Player, central: xr.DataArray) -> list[Any]:
    """One figure a cell type: thin models, thick mean, and where the slider is."""
    figures, time, label = [], central["time"].values, base.label_of(central)
    for name, values in zip(central["cell_type"].values.tolist(), central.values, strict=True):
        finite = values[np.isfinite(values)]
        low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
        margin = 0.05 * (high - low) or 0.5
        courses = [(base.joined(time, sample), (time, np.asarray(sample).mean(axis=0))) for sample in values]
        (singles, mean), dims = courses[0], ("time", "response")
        layers = hv.Curve(singles, *dims).opts(
            hv.opts.Curve(color="#7d8fb3", line_width=0.8, alpha=0.7, backend="bokeh")
        ) * hv.Curve(mean, *dims).opts(hv.opts.Curve(color="#1f3d7a", line_width=2.5, backend="bokeh"))
        options: dict[str, Any] = {
            "title": name,
            "xlabel": "time (s)",
            "ylabel": label,
            "frame_width": 155,
            "xticks": 4,
        }
        options |= {"frame_height": 120, "ylim": (float(low - margin), float(high + margin)), **STILL}
        figure = _figure(layers.opts(hv.opts.Overlay(**options, backend="bokeh")))
        figure.axis.minor_tick_line_color = None
        span = Span(location=float(time[0]), dimension="height", line_color="#d1495b", line_dash="dotted")
        figure.add_layout(span)
        player.spans.append(span)
        for position, line in enumerate(zip(*courses, strict=True)):
            frames = [course.astype(np.float32) for _, course in line]
            player.add(_source(figure, position), ("response",), frames, (), 0)
        figures.append(figure)
    return figures


def _page(content: _Content, title: str, notes: str) -> str:
    grey, shown = base.Colours(base.GREY, (0.0, 1.0)), content.shown
    picked = np.unique(np.linspace(0, len(content.times) - 1, STRIP_FRAMES).round().astype(int))
    player, eye = _Player(content), base.lattice(content.columns)
    models: dict[str, Any] = {
        "strip_movie": _strip_of_frames(content.frames.values[0, content.frame_at[picked]]),
        "strip_columns": _strip_of_columns(content.columns.values[0, picked], eye, grey),
        "movie": _movie_figure(player, content),
        "columns": _columns_figure(player, content.columns.rename("luminance"), grey, "luminance"),
    }
    bar = cell_type = model = ""
    if shown is not None:
        chosen, cell_type = base.colours(shown), html.escape(base.selected(shown))
        model = html.escape(str(shown["model"].item()))
        bar = _bar(chosen, base.label_of(shown))
        models["strip_responses"] = _strip_of_columns(shown.values[0, picked], base.lattice(shown), chosen)
        models["responses"] = _columns_figure(player, shown, chosen, "response")
    n_models, traces = 0, []
    if content.central is not None:
        n_models = content.central.sizes["model"]
        traces = _trace_figures(player, content.central)
    models |= {f"trace{number}": figure for number, figure in enumerate(traces)} | player.widgets()
    script, divs = components(models)
    library = Resources(mode="inline", components=["bokeh", "bokeh-widgets"])
    template = files("flyxr.viz").joinpath("report.html").read_text(encoding="utf-8")
    parts = {
        **{name: "" for name in ("strip_responses", "responses")},
        **divs,
        "title": html.escape(title),
        "bokeh": "\n".join(f"<script>{code}</script>" for code in library.js_raw),
        "script": script,
        "banner": BANNER if content.trained is False else "",
        "summary": html.escape(content.summary),
        "notes": "".join(f"<p>{html.escape(text)}</p>" for text in (notes, *content.remarks) if text),
        "times": "".join(f"<span>{time:.3f} s</span>" for time in content.times[picked]),
        "sample_label": html.escape(player.labels[0]),
        "traces": "".join(divs[f"trace{number}"] for number in range(len(traces))),
        "thin": f"thin, each of {_count(n_models, 'model')}; thick, their mean" if n_models > 1 else "one model",
        "bar": bar,
        "grey": _bar(grey, "luminance"),
        "cell_type": cell_type,
        "model": model,
        "if_shown": "" if shown is not None else "hidden",
        "if_traced": "" if traces else "hidden",
    }
    return Template(template).substitute(parts)


def _bar(chosen: base.Colours, label: str) -> str:
    low, high = (f"{value:.3g}".replace("-", "−") for value in chosen.clim)
    gradient = f"background: linear-gradient(to right, {', '.join(chosen.hex(16))})"
    return f'<span class="bar">{html.escape(label)} {low} <i style="{gradient}"></i> {high}</span>'


BANNER = '<p class="banner">untrained: initial parameters, not the published models</p>'
