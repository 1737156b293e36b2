"""The report: one simulation from stimulus to response on a page, in one file that needs no network."""

from __future__ import annotations

import html
import os
from dataclasses import dataclass
from importlib import resources
from string import Template
from typing import TYPE_CHECKING, Any

import holoviews as hv
import numpy as np
from bokeh.embed import components
from bokeh.resources import Resources
from dask.base import compute

from flyxr.errors import InputError, raise_problems
from flyxr.optics import GREY
from flyxr.paths import local_path
from flyxr.selection import align_labels
from flyxr.selection import central as select_central
from flyxr.viz import clusters as embeddings
from flyxr.viz import colours, courses, elements, figures, selecting

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping
    from pathlib import Path

    import xarray as xr
    from numpy.typing import NDArray

TRACED_TYPES = ("L1", "L2", "Mi1", "Tm3", "Mi9", "T4a", "T4b", "T4c", "T4d", "T5c")
"""Cell types whose time courses are drawn, if they were recorded."""

MODEL_TYPES = ("L1", "Mi1", "Mi9", "Tm3", "T4c", "T5c")
"""Cell types whose time courses are drawn by task error, if they were recorded."""

DEFAULT_TYPE = "T4c"
"""Cell type that is drawn in the columns, if it was recorded and no other is given."""

MAX_SAMPLES, MAX_MODELS, MAX_FRAMES, MAX_CURVE_POINTS, MAX_FRAME_PIXELS = 8, 50, 80, 300, 100
"""Limits of a page: samples, models, times of pictures, times of curves, and pixels along an edge of a frame."""

LEFT_OUT = (
    "strip_movie",
    "movie",
    "strip_responses",
    "responses",
    "strip_models",
    "by_error",
    "clusters",
    "by_cluster",
)
"""Pictures that are not on all pages."""

TRACES_WIDTH, AXIS_WIDTH = 1040, 62
"""Width of a row of time courses without its colour bar, and of the axis of each, screen pixels."""

BANNER = '<p class="banner">untrained: initial parameters, not the published models</p>'

NARROW = (
    "The eye samples a frame at points that are as far apart to the side as they are up and down. A regular lattice "
    "of hexagons is narrower, so the columns show the frame 0.87 (√3/2) times as wide."
)
"""Why the columns are narrower than the movie beside them."""


def report(
    movie: xr.DataArray | xr.Dataset | None,
    rendering: xr.DataArray | xr.Dataset | None,
    responses: xr.DataArray | xr.Dataset,
    path: str | os.PathLike[str],
    *,
    title: str = "From stimulus to response in the fly visual system",
    notes: str = "",
    cell_type: str | None = None,
    model: Hashable | None = None,
    central: xr.DataArray | xr.Dataset | None = None,
    clusters: xr.Dataset | None = None,
    files: Mapping[str, str] | None = None,
) -> Path:
    """Write an HTML page with the stimulus, its rendering and the responses of the models.

    The page starts with a strip of frames. Below, the same pictures have a time slider and a choice of samples, beside
    the time courses of some cell types in the central column, for all models. Then come a picture of each of several
    models, time courses by task error, and clusters of models, as far as these are known. Movie and columns are grey
    0.5 before their first frame and after their end. The file is self-contained and opens without a network. Long runs
    are thinned to at most 8 samples, 50 models and 80 times of pictures, and the page says so.

    Parameters
    ----------
    movie
        ``luminance`` (sample, time, y, x). None leaves it out, for a stimulus on the columns.
    rendering
        ``luminance`` (sample, time, column). None takes the ``luminance`` beside the responses.
    responses
        ``response`` (model, sample, time, cell_type, column). A dim of which one label was selected has length one.
        Only what is drawn is computed, in one pass. If the attribute ``trained`` is 0, a banner says that these
        are not the published models.
    path
        HTML file to write; its folder is created if necessary. An existing file is replaced only once the new page is
        complete.
    title, notes
        Heading of the page, and a paragraph below its summary; plain text.
    cell_type
        Cell type to draw in the columns. None draws T4c, or the first recorded type if T4c was not recorded.
    model
        Label of the model to draw in the columns. None draws the first.
    central
        Responses of the central column, of more models than ``responses`` has, for the time courses by task error and
        by cluster. None takes those of ``responses``.
    clusters
        Result of :func:`flyxr.cluster` for these models, drawn with the time courses of each cluster. Of several cell
        types, the one in the columns is drawn, or else the first.
    files
        Code that opens each file that belongs to the page, by the name of the file, listed at its end.

    Returns
    -------
    pathlib.Path
        The file written.

    Raises
    ------
    ValueError
        If an argument is of another kind, there is no rendering, the responses lack the cell type or the model, or the
        movie or the rendering lacks samples of the responses.

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
    path, cell_type = local_path(path), None if cell_type is None else selecting.one_name("cell_type", cell_type)
    texts = {"title": title, "notes": notes}
    texts |= {f"files[{name!r}]": code for name, code in (files or {}).items()}
    wrong = [f"expected {name} as text, got {text!r}" for name, text in texts.items() if not isinstance(text, str)]
    raise_problems(InputError, "", wrong)
    content = _collect(movie, rendering, responses, cell_type, model)
    elements.load_backend()
    pictures = _pictures_of_models(content, central, clusters)
    page = _page(content, pictures, title, notes, files or {})
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
    """Computed data of a page; ``displayed`` (time) is the position of the frame on display at each time."""

    frames: NDArray[np.floating] | None  # (sample, frame, y, x)
    displayed: NDArray[np.int64]
    columns: xr.DataArray  # (sample, time, column)
    responses: xr.DataArray | None  # (sample, time, column)
    central: xr.DataArray | None  # (cell_type, sample, model, time)
    models: xr.DataArray | None  # (model, column), at one time
    summary: str
    remarks: tuple[str, ...]
    is_trained: bool | None

    @property
    def times(self) -> NDArray[np.float64]:
        """Times of the pictures, s."""
        times: NDArray[np.float64] = self.columns["time"].values
        return times


def _collect(movie: Any, rendering: Any, responses: Any, cell_type: str | None, model: Hashable | None) -> _Content:
    response = selecting.main_array(responses, "responses").rename("response")
    lattice, types = elements.read_lattice(response), response["cell_type"].values.tolist()
    if cell_type is None:
        cell_type = DEFAULT_TYPE if DEFAULT_TYPE in types else types[0]
    chosen = selecting.select_cell_type(selecting.select_model(response, model), cell_type)
    trained = responses.attrs.get("trained")
    is_trained = None if trained is None else bool(trained)
    sizes, remarks = dict(response.sizes), []
    response = response.isel(sample=slice(MAX_SAMPLES), model=slice(MAX_MODELS))
    for dim in ("sample", "model"):
        if response.sizes[dim] < sizes[dim]:
            remarks.append(f"The page shows the first {response.sizes[dim]} of {sizes[dim]} {dim}s.")

    thinned = selecting.thin(sizes["time"], MAX_FRAMES)
    times = response["time"].values[thinned]
    if len(thinned) < sizes["time"]:
        remarks.append(f"Pictures are {thinned[1]} steps apart.")
    frames = None
    if movie is not None:
        frames = align_labels(selecting.main_array(movie, "movie"), response["sample"], "a movie")
    columns = align_labels(selecting.columns_seen(rendering, responses), response["sample"], "a rendering")
    summary = _summary(response, sizes, frames, columns, is_trained)
    displayed = np.zeros(times.size, dtype=np.int64)
    if frames is not None:
        kept, displayed = np.unique(selecting.displayed_frames(frames["time"], times), return_inverse=True)
        has_grey = kept[0] < 0  # the grey before and after the movie is the frame of position 0
        frames = frames.isel(time=kept[kept >= 0])
        factor = -(-max(frames.sizes["y"], frames.sizes["x"]) // MAX_FRAME_PIXELS)
        frames = frames.coarsen({dim: min(factor, frames.sizes[dim]) for dim in ("y", "x")}, boundary="trim").mean()
        if has_grey:
            frames = frames.drop_vars("time").pad(time=(1, 0), constant_values=GREY)
    columns = selecting.luminance_on_display(columns, times)

    shown, central = None, None
    if lattice.u.size > 1:
        shown = chosen.isel(sample=slice(MAX_SAMPLES), time=thinned)
    else:
        remarks.append("One column was recorded, so there is no picture of the responses in the columns.")
    central_column = np.flatnonzero((lattice.u == 0) & (lattice.v == 0))
    if central_column.size:
        traced = [name for name in TRACED_TYPES if name in types] or types[: len(TRACED_TYPES)]
        curve_times = selecting.thin(sizes["time"], MAX_CURVE_POINTS)
        central = response.sel(cell_type=traced).isel(column=central_column[0], time=curve_times)
        central = central.transpose("cell_type", "sample", "model", "time")
    else:
        remarks.append("The central column was not recorded, so there are no time courses.")
    models = None
    if shown is not None and response.sizes["model"] > 1:
        models = response.sel(cell_type=cell_type).isel(model=slice(figures.N_STRIP_FRAMES), sample=0, time=thinned)
    frames, columns, shown, central, models = compute(frames, columns, shown, central, models)
    if models is not None:
        strength = abs(models).max("column").fillna(0).mean("model")
        models = models.isel(time=int(strength.argmax("time"))).transpose("model", "column")
    pixels = None if frames is None else frames.values
    return _Content(pixels, displayed, columns, shown, central, models, summary, tuple(remarks), is_trained)


@dataclass(frozen=True)
class _Pictures:
    """Pictures of many models, of HoloViews, and the sentences above them; None where there is nothing to draw."""

    by_error: Any = None
    about_errors: str = ""
    clusters: Any = None
    by_cluster: Any = None
    about_clusters: str = ""


def _pictures_of_models(content: _Content, central: Any, clusters: xr.Dataset | None) -> _Pictures:
    """Draw the time courses of one sample by task error, and clusters of the models, where these are known."""
    array = content.central
    if central is not None:
        array = selecting.main_array(select_central(central), "responses").isel(column=0)
    if array is None or array.sizes["model"] < 2:
        return _Pictures()
    array = array.isel(sample=0)
    types = array["cell_type"].values.tolist()
    shown = array.sel(cell_type=[name for name in MODEL_TYPES if name in types] or types[: len(MODEL_TYPES)]).compute()
    about = f"of {_count(array.sizes['model'], 'model')} to sample {selecting.labels(array, 'sample')[0]}"
    errors = array["task_error"].values if "task_error" in array.coords else np.empty(0)
    by_error = courses.traces(shown, by="task_error", width=270, height=150) if np.isfinite(errors).sum() > 1 else None
    if clusters is None:
        return _Pictures(by_error, about)
    in_clusters = np.atleast_1d(clusters["cell_type"].values).tolist()
    drawn = content.responses["cell_type"].item() if content.responses is not None else None
    name = drawn if drawn in in_clusters else in_clusters[0]
    chosen = clusters.sel(cell_type=name) if "cell_type" in clusters.dims else clusters
    by_cluster = None
    if name in types:
        n_panels = max(int(chosen["cluster"].max()) + 1, 1)
        width = min(220, TRACES_WIDTH // n_panels - AXIS_WIDTH)
        by_cluster = courses.traces(array.sel(cell_type=name), clusters=chosen, width=width, height=150)
    return _Pictures(by_error, about, embeddings.embedding(chosen, height=240), by_cluster, f"{name} {about}")


def _summary(
    response: xr.DataArray,
    sizes: dict[Any, int],
    frames: xr.DataArray | None,
    columns: xr.DataArray,
    is_trained: bool | None,
) -> str:
    time = response["time"].values
    step = f" of {np.diff(time).mean() * 1000:.3g} ms" if time.size > 1 else ""
    model = {True: "trained model", False: "untrained model", None: "model"}[is_trained]
    movie = ""
    if frames is not None:
        movie = f" of {_count(frames.sizes['time'], 'frame')} of {frames.sizes['x']} × {frames.sizes['y']} pixels"
    return (
        f"{_count(sizes['sample'], 'sample')}{movie}, seen by {_count(columns.sizes['column'], 'column')} and "
        f"simulated for {_count(time.size, 'step')}{step} in {_count(sizes['model'], model)}. Recorded: "
        f"{_count(sizes['cell_type'], 'cell type')} in {_count(sizes['column'], 'column')}."
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _sample_labels(data: xr.DataArray) -> list[str]:
    """Name each sample by its label and up to three of its stimulus parameters."""
    names = [str(name) for name, coord in data.coords.items() if coord.dims == ("sample",) and name != "sample"][:3]
    labels = []
    for sample in data["sample"]:
        values = {name: selecting.labels(sample, name)[0] for name in names}
        parameters = ", ".join(f"{n} {v:.4g}" if isinstance(v, float) else f"{n} {v}" for n, v in values.items())
        labels.append(f"sample {selecting.labels(sample, 'sample')[0]}" + (f" ({parameters})" if parameters else ""))
    return labels


def _page(content: _Content, pictures: _Pictures, title: str, notes: str, files: Mapping[str, str]) -> str:
    responses = content.responses
    in_strip = np.unique(np.linspace(0, len(content.times) - 1, figures.N_STRIP_FRAMES).round().astype(int))
    player = figures.Player(content.times, _sample_labels(content.columns))
    lattice = elements.read_lattice(content.columns)
    models: dict[str, Any] = {
        "strip_columns": figures.column_strip(content.columns.values[0, in_strip], lattice, colours.LUMINANCE),
        "columns": figures.column_figure(player, content.columns, colours.LUMINANCE, "luminance"),
    }
    if content.frames is not None:
        models["strip_movie"] = figures.frame_strip(content.frames[0, content.displayed[in_strip]])
        models["movie"] = figures.movie_figure(player, content.frames, content.displayed)
    bar = shown = ""
    if responses is not None:
        scale, shown = colours.colour_scale(responses), html.escape(selecting.selection_title(responses))
        bar = _colour_bar(scale, selecting.value_label(responses))
        lattice = elements.read_lattice(responses)
        models["strip_responses"] = figures.column_strip(responses.values[0, in_strip], lattice, scale)
        models["responses"] = figures.column_figure(player, responses, scale, "response")
    model_names, about_models = "", ""
    if content.models is not None:
        scale = colours.colour_scale(content.models)
        lattice = elements.read_lattice(content.models)
        models["strip_models"] = figures.column_strip(content.models.values, lattice, scale)
        names = [selecting.labels(content.models, name) for name in ("model", "model_name")]
        model_names = "".join(f"<span>{html.escape(f'{i} ({name})')}</span>" for i, name in zip(*names, strict=True))
        about_models = f"{content.models['cell_type'].item()} at {float(content.models['time']):.3f} s"
    for name in ("by_error", "clusters", "by_cluster"):
        if getattr(pictures, name) is not None:
            models[name] = hv.render(getattr(pictures, name), backend="bokeh")
    n_models, traces = 0, []
    if content.central is not None:
        n_models = content.central.sizes["model"]
        traces = figures.trace_figures(player, content.central)
    models |= {f"trace{number}": figure for number, figure in enumerate(traces)} | player.widgets()
    script, divs = components(models)
    library = Resources(mode="inline", components=["bokeh", "bokeh-widgets"])
    template = resources.files("flyxr.viz").joinpath("report.html").read_text(encoding="utf-8")
    parts = {
        **{name: "" for name in LEFT_OUT},
        **divs,
        "title": html.escape(title),
        "bokeh": "\n".join(f"<script>{code}</script>" for code in library.js_raw),
        "script": script,
        "banner": BANNER if content.is_trained is False else "",
        "summary": html.escape(content.summary),
        "notes": "".join(f"<p>{html.escape(text)}</p>" for text in (notes, *content.remarks) if text),
        "times": "".join(f"<span>{time:.3f} s</span>" for time in content.times[in_strip]),
        "sample_label": html.escape(player.sample_labels[0]),
        "traces": "".join(divs[f"trace{number}"] for number in range(len(traces))),
        "lines": f"Thin lines are the {n_models} models, the thick line is their mean." if n_models > 1 else "",
        "bar": bar,
        "grey": _colour_bar(colours.LUMINANCE, "luminance"),
        "shown": shown,
        "narrow": NARROW if content.frames is not None else "",
        "if_movie": "" if content.frames is not None else "hidden",
        "if_responses": "" if responses is not None else "hidden",
        "if_traces": "" if traces else "hidden",
        "model_names": model_names,
        "about_models": html.escape(about_models),
        "if_models": "" if content.models is not None else "hidden",
        "about_errors": html.escape(pictures.about_errors),
        "if_errors": "" if pictures.by_error is not None else "hidden",
        "about_clusters": html.escape(pictures.about_clusters),
        "if_clusters": "" if pictures.clusters is not None else "hidden",
        "files": "".join(
            f"<dt>{html.escape(name)}</dt><dd><pre>{html.escape(code)}</pre></dd>" for name, code in files.items()
        ),
        "if_files": "" if files else "hidden",
    }
    return Template(template).substitute(parts)


def _colour_bar(scale: colours.ColourScale, label: str) -> str:
    low, high = (f"{value:.3g}".replace("-", "−") for value in scale.clim)
    gradient = f"background: linear-gradient(to right, {', '.join(scale.palette(16))})"
    return f'<span class="bar">{html.escape(label)} {low} <i style="{gradient}"></i> {high}</span>'
