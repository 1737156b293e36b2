"""Pictures: read the drawn values back from HoloViews elements and Bokeh figures, without comparing pixels."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import dask
import holoviews as hv
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from bokeh.document import Document
from bokeh.models import ColorBar, CustomJS, LinearColorMapper
from bokeh.util.hex import axial_to_cartesian

import flyxr as fx
from flyxr import hexgrid, schema, viz
from flyxr.viz import colours, elements, figures, selecting
from flyxr.viz.hexagons import Hexagons
from flyxr.viz.time_courses import TimeCourses

if TYPE_CHECKING:
    from pathlib import Path

EXTENT, N_SAMPLES, N_TIMES, N_MODELS = 3, 2, 6, 3
TYPES = ["L1", "Mi1", "T4c", "Lawf1"]


@pytest.fixture(scope="module")
def rendering() -> xr.Dataset:
    """A dark dot on a random walk over the columns."""
    coords = hexgrid.column_coords(EXTENT)
    n_columns = coords["u"][1].size
    rng = np.random.default_rng(3)
    dot = (n_columns // 2 + rng.integers(-4, 5, (N_SAMPLES, N_TIMES)).cumsum(axis=1)).clip(0, n_columns - 1)
    luminance = np.where(np.arange(n_columns) == dot[..., None], 0.1, 0.8).astype(np.float32)
    time = np.arange(N_TIMES) / 100
    return xr.Dataset(
        {"luminance": (("sample", "time", "column"), luminance)},
        coords={"sample": [0, 1], "angle": ("sample", [0.0, 90.0]), "time": time, **coords},
    )


@pytest.fixture(scope="module")
def movie() -> xr.Dataset:
    """Three frames of 5 x 4 pixels at half the rate of the responses; all pixel values differ."""
    luminance = np.linspace(0, 1, N_SAMPLES * 3 * 5 * 4, dtype=np.float32).reshape(N_SAMPLES, 3, 5, 4)
    return xr.Dataset(
        {"luminance": (("sample", "time", "y", "x"), luminance)},
        coords={"sample": [0, 1], "time": np.arange(3) / 50},
    )


@pytest.fixture(scope="module")
def responses(rendering: xr.Dataset) -> xr.Dataset:
    """Responses of both signs; Lawf1 has a cell in every second column."""
    rng = np.random.default_rng(4)
    shape = (N_MODELS, N_SAMPLES, N_TIMES, len(TYPES), rendering.sizes["column"])
    response = rng.normal(0.3, 1, shape).astype(np.float32)
    response[:, :, :, TYPES.index("Lawf1"), ::2] = np.nan
    return rendering.assign(response=(("model", "sample", "time", "cell_type", "column"), response)).assign_coords(
        model=np.arange(N_MODELS),
        model_name=("model", ["a", "b", "c"]),
        task_error=("model", [5.0, 5.1, 5.2]),
        cell_type=np.array(TYPES, dtype=object),
    )


@pytest.fixture
def t4c(responses: xr.Dataset) -> xr.DataArray:
    """Responses of T4c at one time."""
    return responses["response"].sel(cell_type="T4c", model=0, sample=0).isel(time=2)


def figure_of(element: Any) -> Any:
    return hv.render(element, backend="bokeh")


def source_of(element: Any, position: int = 0) -> dict[str, Any]:
    return dict(figure_of(element).renderers[position].data_source.data)


def mapper_of(element: Any) -> LinearColorMapper:
    return figure_of(element).select_one({"type": LinearColorMapper})


def test_hexmap__draws_each_value_in_its_column(t4c: xr.DataArray) -> None:
    picture = viz.hexmap(t4c)
    assert isinstance(picture, Hexagons)
    for name in ("response", "column", "u", "v", "x_column", "y_column"):
        np.testing.assert_array_equal(picture.dimension_values(name), t4c.values if name == "response" else t4c[name])
    np.testing.assert_array_equal(source_of(picture)["response"], t4c.values)


def test_hexmap__hexagons_lie_where_the_columns_are(t4c: xr.DataArray) -> None:
    figure = figure_of(viz.hexmap(t4c))
    glyph, data = figure.renderers[0].glyph, figure.renderers[0].data_source.data
    x, y = axial_to_cartesian(data[glyph.q], data[glyph.r], glyph.size, glyph.orientation)
    np.testing.assert_allclose(x, t4c.x_column, atol=1e-12)
    np.testing.assert_allclose(y, t4c.y_column, atol=1e-12)
    assert glyph.size * np.sqrt(3) == pytest.approx(1)  # hexagons of neighbours share an edge
    assert figure.x_range.start <= x.min() - 0.57
    assert figure.y_range.end >= y.max() + 0.5


def test_pictures__are_neither_mirrored_nor_rotated() -> None:
    frame = np.zeros((1, 1, 64, 64), np.float32)
    frame[..., 10:50, 14:24] = frame[..., 40:50, 14:44] = 1  # the letter L
    movie = fx.stimuli.from_array(frame, 30).isel(sample=0, time=0)
    picture, columns = viz.movie(movie), viz.hexmap(fx.BoxEye().render(movie))
    x, y, level = (picture.dimension_values(name) for name in ("x", "y", "luminance"))
    expected = [np.corrcoef(level, axis)[0, 1] for axis in (x, -y)]
    assert figure_of(picture).y_range.start > figure_of(picture).y_range.end  # y points down in the movie
    glyph, data = figure_of(columns).renderers[0].glyph, source_of(columns)
    x, y = axial_to_cartesian(data[glyph.q], data[glyph.r], glyph.size, glyph.orientation)
    drawn = [np.corrcoef(data["luminance"], axis)[0, 1] for axis in (x, y)]
    assert np.sign(drawn).tolist() == np.sign(expected).tolist()
    is_bright = data["luminance"] > 0.5
    upper, lower = (is_bright & half for half in (y > 2, y < -4))
    assert x[upper].max() < 0 < x[lower].max()  # the foot of the L is at the lower right


def test_hexmap__has_equal_aspect_and_y_upward(t4c: xr.DataArray) -> None:
    figure = figure_of(viz.hexmap(t4c, height=400))
    width = figure.x_range.end - figure.x_range.start
    height = figure.y_range.end - figure.y_range.start
    assert height > 0
    assert figure.frame_height == 400
    assert figure.frame_width / figure.frame_height == pytest.approx(width / height, rel=0.01)
    assert not any(axis.visible for axis in figure.axis)


def test_hexmap__hovers_with_column_and_value(t4c: xr.DataArray) -> None:
    figure = figure_of(viz.hexmap(t4c))
    fields = [field for _, field in figure.hover[0].tooltips]
    assert [re.sub(r"\W", "", field) for field in fields] == ["response", "column", "u", "v"]
    assert set(source_of(viz.hexmap(t4c))) >= {"response", "column", "u", "v"}


def test_hexmap__maps_over_other_dims_time_last(responses: xr.Dataset) -> None:
    pictures = viz.hexmap(responses.response.sel(cell_type=["L1", "T4c"]).isel(model=0))
    assert [str(dim) for dim in pictures.kdims] == ["sample", "cell_type", "time"]
    assert len(pictures) == N_SAMPLES * 2 * N_TIMES
    drawn = pictures[1, "T4c", 0.03].dimension_values("response")
    expected = responses.response.sel(sample=1, cell_type="T4c", model=0).isel(time=3)
    np.testing.assert_array_equal(drawn, expected.values)


def test_hexmap__draws_the_nearest_time(responses: xr.Dataset) -> None:
    course = responses.response.sel(cell_type="T4c", model=0, sample=0)
    nearest = viz.hexmap(course, time=0.031).dimension_values("response")
    np.testing.assert_array_equal(nearest, course.isel(time=3).values)
    assert viz.hexmap(course, time=[0.0, 0.049]).keys() == [0.0, 0.05]


def test_hexmap__has_the_same_colours_in_all_frames(responses: xr.Dataset) -> None:
    course = responses.response.sel(cell_type="T4c", model=0, sample=0).copy()
    course[{"time": 4}] *= 10
    pictures, reach = viz.hexmap(course), float(abs(course).max())
    for time in pictures.keys():
        mapper = mapper_of(pictures[time])
        assert (mapper.low, mapper.high) == pytest.approx((-reach, reach))


def test_hexmap__diverges_about_a_given_center(t4c: xr.DataArray) -> None:
    mapper = mapper_of(viz.hexmap(t4c, center=0.5))
    assert (mapper.low + mapper.high) / 2 == pytest.approx(0.5)
    assert mapper.high - 0.5 == pytest.approx(float(abs(t4c - 0.5).max()))


@pytest.mark.parametrize(("clim", "center"), [((-2, 2), None), ((-1, 3), None), ((-3, 1), None), ((0, 3), 1.0)])
def test_hexmap__takes_the_ends_of_its_colours(
    t4c: xr.DataArray, clim: tuple[float, float], center: float | None
) -> None:
    mapper = mapper_of(viz.hexmap(t4c, clim=clim, center=center))
    assert (mapper.low, mapper.high) == clim
    # Whatever the ends, the middle of the map is at zero, or at the center, and equal distances have equal colours.
    whole = colours.palette(colours.DIVERGING, colours.N_COLOURS)
    middle = center or 0.0
    position = (middle - clim[0]) / (clim[1] - clim[0]) * (len(mapper.palette) - 1)
    nearest = whole.index(mapper.palette[round(position)]) - colours.N_COLOURS // 2
    assert abs(nearest) <= colours.N_COLOURS / len(mapper.palette)
    far = 0 if middle - clim[0] > clim[1] - middle else -1
    assert mapper.palette[far] == whole[far]


def test_hexmap__of_luminance_or_one_sign_takes_the_ends_of_its_colours(
    t4c: xr.DataArray, rendering: xr.Dataset
) -> None:
    grey = mapper_of(viz.hexmap(rendering.isel(sample=0, time=0), clim=(0.2, 0.6)))
    assert (grey.low, grey.high) == (0.2, 0.6)
    assert grey.palette == colours.LUMINANCE.palette()
    positive = mapper_of(viz.hexmap(abs(t4c), clim=(0, 9)))
    assert (positive.low, positive.high) == (0, 9)
    assert positive.palette == colours.palette(colours.SEQUENTIAL)


def test_hexmap__runs_from_low_to_high_if_all_values_have_one_sign(t4c: xr.DataArray) -> None:
    positive = abs(t4c) + 1
    mapper = mapper_of(viz.hexmap(positive))
    assert (mapper.low, mapper.high) == pytest.approx((float(positive.min()), float(positive.max())))
    assert mapper.palette != mapper_of(viz.hexmap(t4c)).palette


def test_hexmap__draws_constant_values(t4c: xr.DataArray) -> None:
    mapper = mapper_of(viz.hexmap(xr.full_like(t4c, 2.0)))
    assert mapper.low < 2.0 < mapper.high


def test_hexmap__draws_luminance_grey_from_0_to_1(rendering: xr.Dataset) -> None:
    mapper = mapper_of(viz.hexmap(rendering.isel(sample=0, time=0)))
    assert (mapper.low, mapper.high) == (0, 1)
    channels = np.array([[int(colour[start : start + 2], 16) for start in (1, 3, 5)] for colour in mapper.palette])
    assert (np.ptp(channels, axis=1) <= 1).all()
    assert (channels[0].max(), channels[-1].min()) == (0, 254)


def test_hexmap__leaves_absent_cells_grey(responses: xr.Dataset) -> None:
    picture = viz.hexmap(responses.response.sel(cell_type="Lawf1", model=0, sample=0).isel(time=0))
    assert mapper_of(picture).nan_color == colours.NO_CELL
    assert np.isnan(source_of(picture)["response"][::2]).all()
    assert np.isfinite(source_of(picture)["response"][1::2]).all()


def test_hexmap__names_value_and_unit_at_the_colour_bar(t4c: xr.DataArray) -> None:
    figure = figure_of(viz.hexmap(t4c))
    assert figure.select_one({"type": ColorBar}).title == "response (a.u.)"
    assert figure.title.text == "T4c, model 0 (a), sample 0, 0.02 s"


def test_hexmap__finds_positions_from_axial_coordinates(t4c: xr.DataArray) -> None:
    bare = t4c.drop_vars(["x_column", "y_column", "column"])
    for name in ("x_column", "y_column"):
        np.testing.assert_allclose(viz.hexmap(bare).dimension_values(name), t4c[name])


def test_hexmap__leaves_the_data_unchanged(responses: xr.Dataset) -> None:
    before = responses.copy(deep=True)
    viz.hexmap(responses.sel(cell_type="T4c"))
    xr.testing.assert_identical(responses, before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data, r"single cell type, got 4: select one with responses.sel"),
        (lambda data: data.response.values, r"got ndarray: name its dims"),
        (lambda data: data.response.mean("column"), r"'column', got dims .* keep 'column'"),
        (lambda data: data[["angle"]], r"'response' or 'luminance' in the Dataset, got \[\]"),
        (lambda data: data.response.drop_vars(["u", "v"]), r"coordinates 'u' and 'v'"),
        (lambda data: data.response.isel(time=np.zeros(400, dtype=int)), r"at most 1000 pictures, got 9600"),
    ],
)
def test_hexmap__rejects_unsuitable_data(responses: xr.Dataset, change: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        viz.hexmap(change(responses))


def test_hexmap__rejects_time_without_a_time_axis(t4c: xr.DataArray) -> None:
    with pytest.raises(ValueError, match="leave out time="):
        viz.hexmap(t4c, time=0.0)


def test_frames__draws_y_downward(movie: xr.Dataset) -> None:
    frame = movie.luminance.isel(sample=0, time=0)
    figure, source = figure_of(viz.movie(frame)), source_of(viz.movie(frame))
    assert figure.y_range.start > figure.y_range.end
    # Bokeh draws row 0 at y, the upper end of this axis.
    assert source["y"][0] == figure.y_range.end == -0.5
    np.testing.assert_array_equal(source["image"][0], frame.values)
    assert figure.frame_width / figure.frame_height == pytest.approx(4 / 5, rel=0.01)


def test_frames__maps_over_sample_and_time(movie: xr.Dataset) -> None:
    pictures = viz.movie(movie)
    assert [str(dim) for dim in pictures.kdims] == ["sample", "time"]
    expected = movie.luminance.sel(sample=1, time=0.04).values
    np.testing.assert_array_equal(source_of(pictures[1, 0.04])["image"][0], expected)
    mapper = mapper_of(pictures[1, 0.04])
    assert (mapper.low, mapper.high) == (0, 1)


def test_frames__scales_bytes(movie: xr.Dataset) -> None:
    frame = (movie.luminance.isel(sample=0, time=0) * 255).round().astype(np.uint8)
    np.testing.assert_allclose(source_of(viz.movie(frame))["image"][0], frame.values / 255, rtol=1e-6)


def test_frames__keeps_pixel_coordinates_of_a_selection(movie: xr.Dataset) -> None:
    frame = movie.luminance.isel(sample=0, time=0).assign_coords(x=np.arange(4), y=np.arange(5))
    assert viz.movie(frame.isel(x=[2], y=slice(1, 4))).bounds.lbrt() == (1.5, 0.5, 2.5, 3.5)


def test_frames__rejects_a_rendering(rendering: xr.Dataset) -> None:
    with pytest.raises(ValueError, match="keep 'y' and 'x'"):
        viz.movie(rendering)


def central(responses: xr.Dataset) -> xr.DataArray:
    return responses.response.isel(column=responses.sizes["column"] // 2)


def test_traces__draws_models_thin_under_their_mean(responses: xr.Dataset) -> None:
    course = central(responses).sel(cell_type="T4c", sample=0)
    panel = viz.traces(course, by="sample")
    singles, mean = panel
    np.testing.assert_array_equal(singles.labels("model"), [0, 1, 2])
    _, drawn = singles.curves()
    np.testing.assert_array_equal(drawn, course.transpose("model", "time").values)
    np.testing.assert_allclose(mean.dimension_values("response"), course.mean("model").values, rtol=1e-6)
    np.testing.assert_array_equal(mean.dimension_values("time"), course.time.values)
    thin, thick = figure_of(panel).renderers
    assert thin.glyph.line_width < thick.glyph.line_width


def test_traces__colours_models_by_task_error_with_the_best_on_top(responses: xr.Dataset) -> None:
    course = central(responses).sel(cell_type="T4c", sample=0)
    course = course.assign_coords(task_error=("model", [5.1, np.nan, 5.0]))
    panel = viz.traces(course)
    assert repr(panel) == repr(viz.traces(course, by="task_error"))
    figure = figure_of(panel)
    (renderer,) = figure.renderers
    np.testing.assert_array_equal(renderer.data_source.data["task_error"], [np.nan, 5.1, 5.0])  # drawn in this order
    expected = course.isel(model=[1, 0, 2]).transpose("model", "time").values
    np.testing.assert_array_equal(renderer.data_source.data["ys"], expected)
    mapper = mapper_of(panel)
    assert (mapper.low, mapper.high, mapper.nan_color) == (5.0, 5.1, colours.NO_CELL)
    assert figure.select_one({"type": ColorBar}).title == "task error (a.u.)"
    assert [field for _, field in figure.hover[0].tooltips] == ["@{model}", "@{task_error}"]


def test_traces__has_one_colour_bar_at_the_end_of_the_first_row(responses: xr.Dataset) -> None:
    data = central(responses).isel(sample=0)
    figures = [figure_of(panel) for panel in viz.traces(data, columns=3)]
    assert [len(list(figure.select({"type": ColorBar}))) for figure in figures] == [0, 0, 1, 0]
    assert len({mapper_of(panel).palette[0] for panel in viz.traces(data)}) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data, "expected one sample for by='task_error', got 2: select one with"),
        (lambda data: data.isel(sample=0, model=0), "expected several models for by='task_error', got one"),
        (lambda data: data.isel(sample=0).drop_vars("task_error"), "finite coordinate 'task_error'.*assign_coords"),
        (lambda data: data.isel(sample=0).assign_coords(task_error=data.task_error * np.nan), "finite coordinate"),
    ],
)
def test_traces__by_task_error_needs_models_of_known_error(responses: xr.Dataset, change: Any, message: str) -> None:
    data = change(central(responses).sel(cell_type="T4c"))
    with pytest.raises(ValueError, match=message):
        viz.traces(data, by="task_error")
    *_, last = viz.traces(data)
    assert isinstance(last, hv.Curve)  # by sample, with means


def test_traces__refuses_an_unknown_colouring(responses: xr.Dataset) -> None:
    with pytest.raises(ValueError, match=r"'perturbation' or None, got 'model'"):
        viz.traces(central(responses), by="model")  # type: ignore[arg-type]


def test_traces__is_not_flattened_by_outliers() -> None:
    time = np.arange(30) / 100
    scale = np.r_[1000.0, np.linspace(0.8, 1.2, 20), np.nan]
    course = xr.DataArray(
        np.sin(20 * time) * scale[:, None],
        dims=("model", "time"),
        coords={"time": time, "cell_type": "T4c", "task_error": ("model", np.arange(22.0))},
        name="response",
    )
    figure = figure_of(viz.traces(course))
    assert figure.title.text == "T4c (1 of 22 models beyond the axis)"
    assert -1.5 < figure.y_range.start < -0.1
    assert 1.2 < figure.y_range.end < 1.5
    assert len(figure.renderers[0].data_source.data["ys"]) == 22  # the outlier is there when one zooms out
    tiny = figure_of(viz.traces(course * 1e-9))
    assert (tiny.y_range.start, tiny.y_range.end) == pytest.approx(
        (1e-9 * figure.y_range.start, 1e-9 * figure.y_range.end)
    )
    infinite = figure_of(viz.traces(course.where(course < 100, np.inf)))
    assert infinite.y_range.end < 1000
    frame = figure_of(viz.traces(course.isel(time=[5])))
    assert frame.renderers
    usual = figure_of(viz.traces(course.isel(model=slice(1, 21))))
    assert usual.title.text == "T4c"


def test_traces__labels_axes_and_samples(responses: xr.Dataset) -> None:
    figure = figure_of(viz.traces(central(responses).sel(cell_type="T4c")))
    assert (figure.xaxis.axis_label, figure.yaxis.axis_label) == ("time (s)", "response (a.u.)")
    assert figure.title.text == "T4c"
    assert [item.label["value"] for item in figure.legend[0].items] == ["sample 0", "sample 1"]


def test_traces__colours_models_as_their_sample(responses: xr.Dataset) -> None:
    figure = figure_of(viz.traces(central(responses).sel(cell_type="T4c")))
    colours = [renderer.glyph.line_color for renderer in figure.renderers]
    assert len(set(colours)) == N_SAMPLES
    assert colours == [colours[0], colours[1]] * 2  # curves of models, then means


def test_traces__gives_each_cell_type_a_panel(responses: xr.Dataset) -> None:
    panels = viz.traces(central(responses).sel(cell_type=["Mi1", "T4c"]).isel(model=0), columns=1)
    assert isinstance(panels, hv.Layout)
    means = [panel.get(1).dimension_values("response") for panel in panels]
    expected = central(responses).sel(cell_type=["Mi1", "T4c"], sample=1).isel(model=0)
    np.testing.assert_array_equal(means, expected.transpose("cell_type", "time").values)
    assert panels.shape == (2, 1)


def test_traces__draws_a_single_course(responses: xr.Dataset) -> None:
    course = central(responses).isel(model=0, sample=0, cell_type=0, drop=True)
    (curve,) = viz.traces(course)
    np.testing.assert_array_equal(curve.dimension_values("response"), course.values)


def test_traces__draws_many_curves_with_datashader() -> None:
    time = np.linspace(0, 1, 50)
    values = np.sin(2 * np.pi * time) * np.linspace(-1, 1, 501)[:, None]
    course = xr.DataArray(values, dims=("model", "time"), coords={"time": time, "model": np.arange(501)})
    image, mean = viz.traces(course)
    assert isinstance(image, hv.Image)
    assert isinstance(mean, hv.Curve)
    counts = image.dimension_values(2, flat=False)
    assert image.bounds.lbrt() == pytest.approx((0, 1.1 * values.min(), 1, 1.1 * values.max()), rel=1e-2)
    # All curves start at zero; none comes near the corners.
    middle = counts.shape[0] // 2
    assert np.nanmax(counts[middle - 2 : middle + 2, :2]) > 100
    assert not np.nan_to_num(counts[:20, :20]).any()
    few = viz.traces(course.isel(model=slice(10)))
    assert isinstance(few.get(0), TimeCourses)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data, "select one column, e.g. the central column with"),
        (lambda data: data.isel(time=0), "keep 'time' when selecting"),
        (lambda data: data.isel(column=0).drop_vars("time"), "'time' with a coordinate in s"),
        (lambda data: "T4c", "got str"),
    ],
)
def test_traces__rejects_unsuitable_data(responses: xr.Dataset, change: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        viz.traces(change(responses))


def test_stimulus_response__shows_the_frame_on_display(
    movie: xr.Dataset, rendering: xr.Dataset, responses: xr.Dataset
) -> None:
    layout = viz.stimulus_response(movie, rendering, responses, model=1)
    stimulus, columns, shown = layout
    for part in layout:
        assert [str(dim) for dim in part.kdims] == ["sample", "time"]
        assert part.keys() == stimulus.keys()
    # Frames last 20 ms, responses are 10 ms apart.
    for time, frame in ((0.0, 0), (0.01, 0), (0.02, 1), (0.03, 1), (0.05, 2)):
        drawn = source_of(stimulus[1, time])["image"][0]
        np.testing.assert_array_equal(drawn, movie.luminance.isel(sample=1, time=frame).values)
    position = {"sample": 1, "time": 3}
    drawn = columns[1, 0.03].dimension_values("luminance")
    np.testing.assert_array_equal(drawn, rendering.luminance.isel(position).values)
    drawn = shown[1, 0.03].dimension_values("response")
    np.testing.assert_array_equal(drawn, responses.response.sel(model=1, cell_type="T4c").isel(position).values)


def test_stimulus_response__draws_models_and_cell_types_in_the_same_colours(
    movie: xr.Dataset, rendering: xr.Dataset, responses: xr.Dataset
) -> None:
    layout = viz.stimulus_response(movie, rendering, responses, cell_type=["T4c", "Lawf1"], model=[2, 0])
    _, _, *shown = layout
    chosen = [(name, model) for name in ("T4c", "Lawf1") for model in (2, 0)]
    drawn = responses.response.isel(sample=1, time=3)
    values = [drawn.sel(cell_type=name, model=model).values for name, model in chosen]
    for part, (name, model), expected in zip(shown, chosen, values, strict=True):
        picture = part[1, 0.03]
        np.testing.assert_array_equal(picture.dimension_values("response"), expected)
        assert picture.label == f"{name}, model {model} ({'abc'[model]})"
    reach = float(abs(responses.response.sel(cell_type=["T4c", "Lawf1"], model=[2, 0])).max())
    limits = [(mapper.low, mapper.high) for mapper in (mapper_of(part[0, 0.0]) for part in shown)]
    assert limits == [pytest.approx((-reach, reach))] * 4


def test_stimulus_response__thins_time(movie: xr.Dataset, rendering: xr.Dataset, responses: xr.Dataset) -> None:
    layout = viz.stimulus_response(movie, rendering, responses.sel(sample=0), n_times=3)
    assert [part.keys() for part in layout] == [[0.0, 0.02, 0.04]] * 3


def test_stimulus_response__does_not_link_pixels_with_columns(
    movie: xr.Dataset, rendering: xr.Dataset, responses: xr.Dataset
) -> None:
    layout = viz.stimulus_response(movie, rendering, responses.sel(sample=0), n_times=1)
    dims = [{str(dim) for dim in part.kdims} for part in layout]
    assert dims[0].isdisjoint(dims[1])
    assert dims[1] == dims[2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m, r, v: (r, m, v), r"expected a movie with dims .*check the order"),
        (lambda m, r, v: (m, r, r), r"expected responses with 'response'.*check the order"),
        (lambda m, r, v: (m, r, v.drop_sel(cell_type="T4c")), r"among \['L1', 'Mi1', 'Lawf1'\], got 'T4c': choose"),
        (lambda m, r, v: (m.isel(sample=[0]), r, v), r"got one without \[1\]"),
        (lambda m, r, v: (m, r.isel(sample=[0, 1, 1]), v), r"a rendering with each 'sample' once, got more than one"),
        (lambda m, r, v: (m, r, v.isel(column=[3])), r"got one column: simulate with record='all'"),
        (lambda m, r, v: (m, r, v.drop_vars("time")), r"responses with dims .* 'time' coordinate"),
        (lambda m, r, v: (None, None, v.response), r"expected a rendering, or responses with 'luminance'.*got neither"),
        (
            lambda m, r, v: (m.rename(time="frame", x="col"), r, v),
            r"\.rename\(frame='time', col='x'\) gives dims these names",
        ),
    ],
)
def test_stimulus_response__rejects_unsuitable_data(
    movie: xr.Dataset, rendering: xr.Dataset, responses: xr.Dataset, change: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        viz.stimulus_response(*change(movie, rendering, responses))


def test_stimulus_response__rejects_an_unknown_model(
    movie: xr.Dataset, rendering: xr.Dataset, responses: xr.Dataset
) -> None:
    for label in (7, [0, 7], (0, 1), {}, "a", 1.5):
        with pytest.raises(ValueError, match=r"one model among \[0, 1, 2\], got "):
            viz.stimulus_response(movie, rendering, responses, model=label)


@pytest.fixture(scope="module")
def page(
    movie: xr.Dataset, rendering: xr.Dataset, responses: xr.Dataset, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """A whole report of untrained models."""
    data = (movie, rendering, responses.assign_attrs(trained=False))
    before = [part.copy(deep=True) for part in data]
    path = viz.report(
        *data, tmp_path_factory.mktemp("page") / "new" / "report.html", title="<b> & co", notes="Two dots."
    )
    assert path.stat().st_size < 4e6
    assert os.listdir(path.parent) == ["report.html"]
    for part, copy in zip(data, before, strict=True):
        xr.testing.assert_identical(part, copy)
    return path.read_text(encoding="utf-8")


def markup(page: str) -> str:
    """Page without its scripts."""
    return re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)


def test_report__needs_no_network(page: str) -> None:
    sources = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            sources.extend((tag, name) for name, _ in attrs if name in ("src", "href"))

    Reader().feed(page)
    assert sources == []
    assert not re.findall(r"@import|url\(|https?:", markup(page))


def test_report__summarizes_the_simulation(page: str) -> None:
    text = markup(page)
    assert "2 samples of 3 frames of 4 × 5 pixels, seen by 37 columns" in text
    assert "simulated for 6 steps of 10 ms in 3 untrained models" in text
    assert "Recorded: 4 cell types in 37 columns" in text
    assert "<title>&lt;b&gt; &amp; co</title>" in text
    assert "<p>Two dots.</p>" in text
    assert "Responses of T4c" in text
    assert "sample 0 (angle 0)" in text
    assert not re.findall(r"\$\w+", text)


@pytest.mark.parametrize(("trained", "banner"), [(False, True), (True, False), (None, False)])
def test_report__warns_of_untrained_models(
    movie: xr.Dataset, rendering: xr.Dataset, responses: xr.Dataset, tmp_path: Path, trained: Any, banner: bool
) -> None:
    attrs = {} if trained is None else {"trained": trained}
    small = responses.isel(column=[18], cell_type=[2]).assign_attrs(attrs)
    text = viz.report(movie, rendering, small, tmp_path / "r.html").read_text(encoding="utf-8")
    assert ("initial parameters, not the published models" in markup(text)) is banner


def test_report__falls_back_to_a_recorded_type(
    movie: xr.Dataset, rendering: xr.Dataset, responses: xr.Dataset, tmp_path: Path
) -> None:
    other = responses.sel(cell_type=["Lawf1", "Mi1"])
    text = markup(viz.report(movie, rendering, other, tmp_path / "r.html").read_text(encoding="utf-8"))
    assert "Responses of Lawf1, model 0 (a)" in text


def test_report__draws_the_model_and_the_cell_type_that_are_asked_for(
    movie: xr.Dataset, rendering: xr.Dataset, responses: xr.Dataset, tmp_path: Path
) -> None:
    path = viz.report(movie, rendering, responses, tmp_path / "r.html", cell_type="Mi1", model=2)
    assert markup(path.read_text(encoding="utf-8")).count("Mi1, model 2 (c)") == 2  # the strip and the moving panel
    (drawn, _, _), shown = player_of(path)["response"], responses.response.sel(cell_type="Mi1", model=2)
    np.testing.assert_array_equal(np.reshape(drawn, shown.shape), shown.values)


def test_report__shows_many_models_their_clusters_and_files(
    movie: xr.Dataset, rendering: xr.Dataset, responses: xr.Dataset, tmp_path: Path
) -> None:
    known = responses.assign_coords(task_error=("model", [5.0, 6.0, 7.0]))
    embedding = np.arange(6.0).reshape(3, 2) / 6
    clusters = xr.Dataset(
        {"embedding": (("model", "component"), embedding), "cluster": ("model", [0, 0, 1])},
        {"cell_type": "T4c", "model": known.model},
    )
    path = viz.report(
        movie,
        rendering,
        known.isel(model=[0, 2]),
        tmp_path / "r.html",
        central=known.isel(column=[18]),
        clusters=clusters,
        files={"<a>.zarr": 'fx.open("a")'},
    )
    text = markup(path.read_text(encoding="utf-8"))
    assert "<span>0 (a)</span><span>2 (c)</span>" in text
    assert "in the central column of 3 models to sample 0" in text
    assert "Clusters of the responses of T4c of 3 models" in text
    assert "<dt>&lt;a&gt;.zarr</dt><dd><pre>fx.open(&quot;a&quot;)</pre></dd>" in text
    for heading in ("One cell type", "Time courses by task error", "Models that respond alike", "The files"):
        assert f"<section ><h2>{heading}" in text
    page = path.read_text(encoding="utf-8")
    assert page.count("T4c, cluster 0 (2 models)") == page.count("T4c, cluster 1 (1 model)") == 1


def test_report__hides_what_is_not_known_about_models(
    movie: xr.Dataset, rendering: xr.Dataset, responses: xr.Dataset, tmp_path: Path
) -> None:
    unknown = responses.isel(cell_type=[2]).assign_coords(task_error=("model", np.full(3, np.nan)))
    text = markup(viz.report(movie, rendering, unknown, tmp_path / "r.html").read_text(encoding="utf-8"))
    for heading in ("Time courses by task error", "Models that respond alike", "The files"):
        assert f"<section hidden><h2>{heading}" in text
    one = markup(viz.report(movie, rendering, unknown.isel(model=[0]), tmp_path / "o.html").read_text(encoding="utf-8"))
    assert "<section hidden><h2>One cell type in several models" in one
    with pytest.raises(ValueError, match=r"expected files\['a'\] as text, got 3"):
        viz.report(movie, rendering, unknown, tmp_path / "r.html", files={"a": 3})


@pytest.mark.parametrize("column", [slice(None), [18]], ids=["all columns", "the central column"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"cell_type": "T4x"},
            r"of one cell_type among \['L1', 'Mi1', 'T4c', 'Lawf1'\], got 'T4x': choose one of these",
        ),
        ({"model": 7}, r"of one model among \[0, 1, 2\], got 7: choose one of these with model="),
    ],
)
def test_report__refuses_what_was_not_recorded(
    movie: xr.Dataset,
    rendering: xr.Dataset,
    responses: xr.Dataset,
    tmp_path: Path,
    column: Any,
    options: dict[str, Any],
    message: str,
) -> None:
    with pytest.raises(ValueError, match=message):
        viz.report(movie, rendering, responses.isel(column=column), tmp_path / "r.html", **options)
    assert not list(tmp_path.iterdir())


def test_report__skips_columns_that_were_not_recorded(
    movie: xr.Dataset, rendering: xr.Dataset, responses: xr.Dataset, tmp_path: Path
) -> None:
    middle = responses.isel(column=[18])
    text = markup(viz.report(movie, rendering, middle, tmp_path / "r.html").read_text(encoding="utf-8"))
    assert "no picture of the responses in the columns" in text
    assert "<section hidden><h3>Responses" in text
    assert "seen by 37 columns" in text


def test_report__skips_courses_without_the_central_column(
    movie: xr.Dataset, rendering: xr.Dataset, responses: xr.Dataset, tmp_path: Path
) -> None:
    rim = responses.isel(column=slice(0, 4), sample=[1], model=0)
    text = markup(viz.report(movie, rendering, rim, tmp_path / "r.html").read_text(encoding="utf-8"))
    assert "The central column was not recorded" in text
    assert "<section hidden><h2>Time courses" in text
    assert "sample 1" in text


def test_report__computes_once_and_only_what_it_draws(
    movie: xr.Dataset, rendering: xr.Dataset, responses: xr.Dataset, tmp_path: Path
) -> None:
    touched = []

    def block(values: np.ndarray, block_info: Any = None) -> np.ndarray:
        touched.append(block_info[0]["chunk-location"])
        return values

    lazy = responses.chunk(model=1, cell_type=1)
    lazy = lazy.assign_coords({name: coord.compute() for name, coord in lazy.coords.items()})
    lazy["response"] = lazy.response.copy(data=lazy.response.data.map_blocks(block, dtype=np.float32))
    calls = 0

    def schedule(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        return dask.get(*args, **kwargs)

    touched.clear()
    with dask.config.set(scheduler=schedule):
        viz.report(movie.chunk(), rendering.assign(luminance=rendering.luminance.chunk()), lazy, tmp_path / "r.html")
    assert calls == 1
    models_computed = {cell_type: {chunk[0] for chunk in touched if chunk[3] == cell_type} for cell_type in range(4)}
    assert models_computed == {0: {0, 1, 2}, 1: {0, 1, 2}, 2: {0, 1, 2}, 3: set()}  # Lawf1 is not drawn
    assert len(touched) == 9


def test_report__lists_what_is_left_out(
    movie: xr.Dataset, rendering: xr.Dataset, responses: xr.Dataset, tmp_path: Path
) -> None:
    many = np.zeros(10, dtype=int)
    small = responses.isel(cell_type=[2])
    long = small.isel(time=np.zeros(161, dtype=int)).assign_coords(time=np.arange(161) / 1000)
    data = [d.isel(sample=many).assign_coords(sample=np.arange(10)) for d in (movie, rendering, long)]
    text = viz.report(*data, tmp_path / "r.html").read_text(encoding="utf-8")
    assert "The page shows the first 8 of 10 samples." in markup(text)
    assert "Pictures are 3 steps apart." in markup(text)
    assert "10 samples of 3 frames" in markup(text)
    assert "for 161 steps of 1 ms" in markup(text)


def test_report__keeps_the_old_page_if_writing_fails(
    movie: xr.Dataset, rendering: xr.Dataset, responses: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "r.html"
    old.write_text("old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        viz.report(movie, rendering, responses.isel(cell_type=[2]), old)
    assert old.read_text() == "old"
    assert os.listdir(tmp_path) == ["r.html"]


def test_report__rejects_unsuitable_data(
    movie: xr.Dataset, rendering: xr.Dataset, responses: xr.Dataset, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="expected a movie with dims"):
        viz.report(rendering, movie, responses, tmp_path / "r.html")
    with pytest.raises(ValueError, match=r"expected a rendering .*without \[1\]"):
        viz.report(movie, rendering.isel(sample=[0]), responses, tmp_path / "r.html")
    assert not os.listdir(tmp_path)


def test_report__strips_hold_each_frame_beside_the_other(responses: xr.Dataset) -> None:
    shown = responses.response.sel(cell_type="T4c", model=0, sample=0)
    lattice = elements.read_lattice(shown)
    elements.load_backend()
    figure = figures.column_strip(shown.values, lattice, colours.colour_scale(shown))
    data = figure.renderers[0].data_source.data
    np.testing.assert_array_equal(data["value"].reshape(shown.shape), shown.values)
    x, y = hexgrid.positions(data["u"], data["v"])
    np.testing.assert_allclose(y.reshape(shown.shape), np.tile(lattice.y, (N_TIMES, 1)))
    middles = x.reshape(shown.shape)
    slot = (figure.x_range.end - figure.x_range.start) / figures.N_STRIP_FRAMES
    shifts = np.arange(N_TIMES)[:, None] * slot * np.ones(lattice.x.size)
    np.testing.assert_allclose(middles - lattice.x, shifts, atol=2e-3)
    assert figure.frame_width / figure.frame_height == pytest.approx(
        (figure.x_range.end - figure.x_range.start) / (figure.y_range.end - figure.y_range.start), rel=0.01
    )


@pytest.mark.browser
def test_report__moves_in_a_browser(
    movie: xr.Dataset, rendering: xr.Dataset, responses: xr.Dataset, tmp_path: Path
) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium")
    path = viz.report(movie, rendering, responses, tmp_path / "r.html")
    head, tail = path.read_text(encoding="utf-8").rsplit("</body>", 1)
    move = """<script>setTimeout(() => {
        const models = [...Bokeh.documents[0]._all_models.values()]
        const find = (name) => models.find((model) => model.type.endsWith(name))
        const shows = (key) => models.map((model) => model.data ?? {}).filter((data) => key in data)
        find("Select").value = "sample 1 (angle 90)"
        find("Slider").value = 3
        setTimeout(() => {
            document.title = JSON.stringify({
                response: [...shows("response")[0].response],
                luminance: [...shows("luminance")[0].luminance],
                image: shows("image").map((data) => [...data.image[0]]).find((image) => Math.max(...image) > 1),
                clock: find("Div").text,
            })
        }, 2000)
    }, 2000)</script></body>"""
    path.write_text(head + move + tail, encoding="utf-8")
    command = [browser, "--headless", "--no-sandbox", "--virtual-time-budget=10000", f"--user-data-dir={tmp_path}/b"]
    done = subprocess.run([*command, "--dump-dom", path.as_uri()], capture_output=True, text=True, timeout=120)
    seen = json.loads(re.search(r"<title>(.*?)</title>", done.stdout)[1])  # type: ignore[index]
    position = {"sample": 1, "time": 3}
    expected = responses.response.sel(model=0, cell_type="T4c").isel(position)
    np.testing.assert_allclose(seen["response"], expected.values, rtol=1e-5)
    np.testing.assert_allclose(seen["luminance"], rendering.luminance.isel(position).values, rtol=1e-5)
    frame = movie.luminance.isel(sample=1, time=1).values
    np.testing.assert_array_equal(seen["image"], np.rint(frame * 255).ravel())
    assert seen["clock"] == "0.030 s"


@pytest.mark.browser
def test_report__has_no_hole_without_a_picture_of_the_responses(
    movie: xr.Dataset, rendering: xr.Dataset, responses: xr.Dataset, tmp_path: Path
) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium")
    central = responses.isel(column=responses.sizes["column"] // 2)
    path = viz.report(movie, rendering, central, tmp_path / "r.html")
    assert "0.87 (√3/2) times as wide" in path.read_text(encoding="utf-8")
    head, tail = path.read_text(encoding="utf-8").rsplit("</body>", 1)
    measure = """<script>setTimeout(() => {
        const boxes = [...document.querySelectorAll(".row > div")].map((panel) => panel.getBoundingClientRect())
        document.title = JSON.stringify(boxes.filter((box) => box.width > 0).map((box) => [box.left, box.right]))
    }, 2000)</script></body>"""
    path.write_text(head + measure + tail, encoding="utf-8")
    command = [browser, "--headless", "--no-sandbox", "--virtual-time-budget=10000", f"--user-data-dir={tmp_path}/b"]
    done = subprocess.run([*command, "--dump-dom", path.as_uri()], capture_output=True, text=True, timeout=120)
    stimulus, columns = json.loads(re.search(r"<title>(.*?)</title>", done.stdout)[1])  # type: ignore[index]
    assert 0 < columns[0] - stimulus[1] < 50


# -- outside the time of the movie, and without it --------------------------------------------------------------------


def shifted(data: xr.Dataset, start: float = -0.02, n_times: int = 10) -> xr.Dataset:
    """Data in steps of 10 ms from a start on, as after padding with grey; the frames repeat."""
    frames = np.arange(n_times) % data.sizes["time"]
    return data.isel(time=frames).assign_coords(time=schema.time_coord(n_times, 0.01, start))


OUTSIDE, WITHIN = (-0.02, -0.01, 0.06, 0.07), {0.0: 0, 0.01: 0, 0.05: 2}
"""Times before the start and after the end of the movie, and times within it with their frames."""


def test_stimulus_response__is_grey_outside_the_movie(
    movie: xr.Dataset, rendering: xr.Dataset, responses: xr.Dataset
) -> None:
    padded = shifted(rendering)
    stimulus, columns, _ = viz.stimulus_response(movie, padded, shifted(responses).isel(sample=0))
    for time in OUTSIDE:
        assert (source_of(stimulus[time])["image"][0] == 0.5).all()
        drawn = columns[time].dimension_values("luminance")
        np.testing.assert_array_equal(drawn, padded.luminance.isel(sample=0).sel(time=time, method="nearest"))
    for time, frame in WITHIN.items():
        drawn = source_of(stimulus[time])["image"][0]
        np.testing.assert_array_equal(drawn, movie.luminance.isel(sample=0, time=frame))


def test_stimulus_response__is_grey_outside_the_rendering(
    movie: xr.Dataset, rendering: xr.Dataset, responses: xr.Dataset
) -> None:
    _, columns, _ = viz.stimulus_response(movie, rendering, shifted(responses).isel(sample=0))
    for time in OUTSIDE:
        assert (columns[time].dimension_values("luminance") == 0.5).all()
    drawn = columns[0.05].dimension_values("luminance")
    np.testing.assert_array_equal(drawn, rendering.luminance.isel(sample=0, time=5))


def player_of(path: Path) -> dict[str, Any]:
    """What the time slider of a page puts into its figures: frames, and their position at each time, by name.

    Of figures with the same name, the first counts: hexagons, before time courses.
    """
    text = re.search(r"const docs_json = '(.*?)';\n", path.read_text(encoding="utf-8"), re.DOTALL)[1]  # type: ignore[index]
    (page,) = json.loads(text.replace("\\\\", "\\").replace("\\'", "'")).values()
    callbacks = [model for model in Document.from_json(page).models if isinstance(model, CustomJS)]
    args = next(callback.args for callback in callbacks if "frames" in callback.args)
    parts = zip(args["names"], args["frames"], args["steps"], args["counts"], strict=True)
    return {names[0]: (frames, steps, count) for names, frames, steps, count in reversed(list(parts))}


@pytest.mark.parametrize("in_bytes", [False, True], ids=["float", "bytes"])
def test_report__is_grey_outside_the_movie(
    movie: xr.Dataset, rendering: xr.Dataset, responses: xr.Dataset, tmp_path: Path, in_bytes: bool
) -> None:
    pixels = np.rint(movie.luminance * 255).astype(np.uint8)
    given = movie.assign(luminance=pixels) if in_bytes else movie
    data = shifted(responses).isel(cell_type=[2])
    path = viz.report(given, shifted(rendering, 0.0, 6), data, tmp_path / "r.html")
    player, times = player_of(path), data.time.values.round(6).tolist()
    frames, steps, count = player["image"]
    columns, _, n_times = player["luminance"]
    for sample in range(N_SAMPLES):
        for time in OUTSIDE:
            position = times.index(time)
            assert (frames[sample * count + steps[position]] == 128).all()
            assert (columns[sample * n_times + position] == 0.5).all()
        for time, frame in WITHIN.items():
            drawn = frames[sample * count + steps[times.index(time)]]
            np.testing.assert_array_equal(drawn, pixels.isel(sample=sample, time=frame))
    assert "2 samples of 3 frames" in markup(path.read_text(encoding="utf-8"))


def test_report__of_times_without_any_frame(
    movie: xr.Dataset, rendering: xr.Dataset, responses: xr.Dataset, tmp_path: Path
) -> None:
    late = shifted(responses, 1.0, 3).isel(cell_type=[2])
    frames, _, _ = player_of(viz.report(movie, shifted(rendering, 1.0, 3), late, tmp_path / "r.html"))["image"]
    assert all((frame == 128).all() for frame in frames)


def test_stimulus_response__needs_no_movie(rendering: xr.Dataset, responses: xr.Dataset, movie: xr.Dataset) -> None:
    data = responses.isel(sample=0)
    _, columns, shown = viz.stimulus_response(movie, rendering, data, n_times=2)
    for layout in (
        viz.stimulus_response(None, rendering, data, n_times=2),
        viz.stimulus_response(None, None, data, n_times=2),
        viz.stimulus_response(movie=None, rendering=None, responses=data, n_times=2),
    ):
        assert len(layout) == 2
        for part, expected in zip(layout, (columns, shown), strict=True):
            for time in expected.keys():
                name = part[time].vdims[0].name
                np.testing.assert_array_equal(
                    part[time].dimension_values(name),
                    expected[time].dimension_values(name),
                )
    assert len(viz.stimulus_response(movie, None, data, n_times=2)) == 3


def test_report__needs_no_movie(rendering: xr.Dataset, responses: xr.Dataset, tmp_path: Path) -> None:
    for given in (rendering, rendering.luminance, None):
        path = viz.report(None, given, responses.isel(cell_type=[2]), tmp_path / "r.html")
        player, text = player_of(path), markup(path.read_text(encoding="utf-8"))
        assert "image" not in player
        assert player["luminance"][2] == N_TIMES
        assert "2 samples, seen by 37 columns and simulated for 6 steps" in text
        assert "<section hidden><h3>Stimulus" in text
        assert not re.findall(r"\$\w+", text)
    with pytest.raises(ValueError, match="expected a rendering, or responses with 'luminance'"):
        viz.report(None, None, responses.response, tmp_path / "r.html")


# -- selections, labels and arguments ---------------------------------------------------------------------------------

SELECTIONS: dict[str, Any] = {
    "a model": lambda data: data.isel(model=0),
    "a mean model": lambda data: data.mean("model"),
    "a cell type": lambda data: data.sel(cell_type="T4c"),
    "a sample": lambda data: data.isel(sample=1),
    "a frame": lambda data: data.isel(time=2),
    "a frame of a sample": lambda data: data.sel(cell_type="T4c", model=1).isel(sample=1, time=2),
}


@pytest.mark.parametrize("select", SELECTIONS.values(), ids=SELECTIONS)
def test_pictures__of_a_selection(
    movie: xr.Dataset, rendering: xr.Dataset, responses: xr.Dataset, select: Any, tmp_path: Path
) -> None:
    selected = select(responses)
    parts = viz.stimulus_response(movie, rendering, selected, n_times=1)
    for part in parts:
        assert (isinstance(part, hv.HoloMap) and "sample" in map(str, part.kdims)) is ("sample" in selected.dims)
    assert viz.report(movie, rendering, selected, tmp_path / "r.html").exists()
    one = selected.response if "cell_type" not in selected.dims else selected.response.sel(cell_type="T4c")
    assert viz.hexmap(one.isel(model=0) if "model" in one.dims else one)


def test_report__of_a_column(movie: xr.Dataset, rendering: xr.Dataset, responses: xr.Dataset, tmp_path: Path) -> None:
    middle = responses.sizes["column"] // 2
    for column in (middle, [middle]):
        text = viz.report(movie, rendering, responses.isel(column=column), tmp_path / "r.html").read_text(
            encoding="utf-8"
        )
        assert "One column was recorded" in markup(text)
        assert "<section ><h2>Time courses" in markup(text)


def test_pictures__of_one_sample_of_movie_and_rendering(
    movie: xr.Dataset, rendering: xr.Dataset, responses: xr.Dataset, tmp_path: Path
) -> None:
    selected = [data.isel(sample=1) for data in (movie, rendering, responses)]
    assert len(viz.stimulus_response(*selected, n_times=1)) == 3
    frames, _, _ = player_of(viz.report(*selected, tmp_path / "r.html"))["image"]
    np.testing.assert_array_equal(frames[0], np.rint(movie.luminance.isel(sample=1, time=0) * 255))
    assert isinstance(viz.movie(movie.isel(sample=0, time=0)), hv.Image)


def tuples(n: int) -> np.ndarray:
    array = np.empty(n, dtype=object)
    array[:] = [("trial", i) for i in range(n)]
    return array


LABELS: dict[str, tuple[Any, str]] = {
    "text": (lambda n: np.array([f"trial {i}" for i in range(n)]), "trial 1"),
    "tuples": (tuples, "('trial', 1)"),
    "dates": (
        lambda n: np.datetime64("2026-01-01", "ns") + np.arange(n) * np.timedelta64(1, "D"),
        "2026-01-02 00:00:00",
    ),
}


@pytest.mark.parametrize("kind", LABELS)
def test_pictures__name_labels_of_any_kind(
    movie: xr.Dataset, rendering: xr.Dataset, responses: xr.Dataset, kind: str, tmp_path: Path
) -> None:
    make, text = LABELS[kind]
    data = [part.assign_coords(sample=make(N_SAMPLES)) for part in (movie, rendering, responses)]
    data[2] = data[2].assign_coords(model=make(N_MODELS))
    layout = viz.stimulus_response(*data, model=data[2].indexes["model"][1], n_times=1)
    assert [str(key[0]) if isinstance(key, tuple) else str(key) for key in next(iter(layout)).keys()][1] == text
    np.testing.assert_array_equal(
        list(layout)[2].last.dimension_values("response"),
        responses.response.isel(sample=1, model=1, time=0).sel(cell_type="T4c"),
    )
    assert figure_of(layout)
    page = markup(viz.report(*data[:2], data[2].isel(model=[1]), tmp_path / "r.html").read_text(encoding="utf-8"))
    assert f"model {html.escape(text)}" in page
    figure = figure_of(viz.traces(central(data[2]).sel(cell_type="T4c")))
    assert figure.legend[0].items[1].label["value"] == f"sample {text}"
    assert len(viz.hexmap(data[2].response.sel(cell_type="T4c").isel(time=0))) == N_SAMPLES * N_MODELS


def test_pictures__take_numbers_and_names_of_any_type(
    movie: xr.Dataset, rendering: xr.Dataset, responses: xr.Dataset, tmp_path: Path
) -> None:
    data = (movie, rendering, responses)
    layout = viz.stimulus_response(
        *data, cell_type=responses.cell_type[2], model=responses.model[1], n_times=np.int64(2)
    )
    same = viz.stimulus_response(*data, cell_type=np.array(["T4c"]), model=np.int64(1), n_times=2)
    assert [part.keys() for part in layout] == [part.keys() for part in same]
    assert list(layout)[2].last.label == list(same)[2].last.label == "T4c, model 1 (b)"
    course = responses.response.sel(cell_type="T4c", model=0, sample=0)
    for time in (0.03, np.float32(0.03), "30ms", np.timedelta64(30, "ms"), pd.Timedelta("30ms"), np.array(0.03)):
        drawn = viz.hexmap(course, time=time).dimension_values("response")
        np.testing.assert_array_equal(drawn, course.isel(time=3))
    assert viz.hexmap(course, time=np.array([0.0, 0.05]), height=np.int64(200), center=np.float32(0.5)).keys() == [
        0.0,
        0.05,
    ]
    assert viz.report(*data, tmp_path / "r.html", cell_type=responses.cell_type[1]).exists()


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (
            lambda m, r, v, p: viz.stimulus_response(m, r, v, cell_type=3),
            "cell_type as one name or a list of them, got 3",
        ),
        (
            lambda m, r, v, p: viz.stimulus_response(m, r, v, cell_type=[], model=[]),
            "cell_type as one name or a list of them, got an empty list.*model as a label or a list of them, got",
        ),
        (lambda m, r, v, p: viz.stimulus_response(m, r, v, model=[0, 9]), r"one model among \[0, 1, 2\], got 9"),
        (lambda m, r, v, p: viz.hexmap(v.isel(model=[]).sel(cell_type="L1")), "at least one value .* along 'model'"),
        (lambda m, r, v, p: viz.traces(central(v).isel(time=[])), "at least one value along each dim, got none along"),
        (lambda m, r, v, p: viz.movie(m.isel(sample=[], time=[])), "got none along 'sample' and 'time'"),
        (lambda m, r, v, p: viz.hexmap(v.sel(cell_type="L1"), clim=(1, 0)), "clim as two numbers, low and high, got"),
        (lambda m, r, v, p: viz.hexmap(v.sel(cell_type="L1"), clim=3), "clim as two numbers, low and high, got 3"),
        (lambda m, r, v, p: viz.hexmap(v.sel(cell_type="L1"), clim=(0, np.nan)), "clim as finite numbers"),
        (lambda m, r, v, p: viz.hexmap(v.sel(cell_type="L1"), clim=(0, 1), center=2), "center between the ends of"),
        (lambda m, r, v, p: viz.stimulus_response(m, r, v, n_times=0), "n_times as an integer of at least 1, got 0"),
        (lambda m, r, v, p: viz.stimulus_response(m, r, v, n_times="2"), "n_times as an integer"),
        (lambda m, r, v, p: viz.stimulus_response("m", r, v), "expected a movie .* got str"),
        (lambda m, r, v, p: viz.stimulus_response(m, "r", v), "expected a rendering .* got str"),
        (lambda m, r, v, p: viz.stimulus_response(m, r, None), "expected responses .* got NoneType"),
        (lambda m, r, v, p: viz.report(m, r, v, p, cell_type=3), "cell_type as one name"),
        (
            lambda m, r, v, p: viz.report(m, r, v, p, title=3, notes=None),
            "title as text, got 3; expected notes as text",
        ),
        (lambda m, r, v, p: viz.report(m, r, v, 3), "expected path as text or a pathlib.Path, got 3"),
        (lambda m, r, v, p: viz.report(m, r, v, "s3://bucket/r.html"), "path on this machine, got the URL s3:"),
        (lambda m, r, v, p: viz.hexmap(v.sel(cell_type="L1"), time="x"), "expected time as times in s, got 'x'"),
        (lambda m, r, v, p: viz.hexmap(v.sel(cell_type="L1"), time=[]), "expected time as times in s"),
        (lambda m, r, v, p: viz.hexmap(v.sel(cell_type="L1"), time=np.nan), "expected time as times in s"),
        (lambda m, r, v, p: viz.hexmap(v.sel(cell_type="L1"), center="0"), "center as a number"),
        (lambda m, r, v, p: viz.hexmap(v.sel(cell_type="L1"), height=1.5), "height as an integer"),
        (lambda m, r, v, p: viz.movie(m, time=True), "expected time as times in s"),
        (lambda m, r, v, p: viz.movie(m, height=None), "height as an integer"),
        (
            lambda m, r, v, p: viz.traces(v.isel(column=0), columns=0, width="w"),
            "width as an integer.*; .*columns as an",
        ),
    ],
)
def test_pictures__arguments_of_another_type(
    movie: xr.Dataset, rendering: xr.Dataset, responses: xr.Dataset, draw: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        draw(movie, rendering, responses, tmp_path / "r.html")
    assert not os.listdir(tmp_path)


def test_report__takes_paths_of_any_kind(
    movie: xr.Dataset, rendering: xr.Dataset, responses: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    small = responses.isel(cell_type=[2], column=[18])
    assert viz.report(movie, rendering, small, "~/a.html") == tmp_path / "a.html"
    assert viz.report(movie, rendering, small, (tmp_path / "b c.html").as_uri()) == tmp_path / "b c.html"
    assert sorted(os.listdir(tmp_path)) == ["a.html", "b c.html"]


# -- matplotlib -------------------------------------------------------------------------------------------------------

COLOURS = """
import sys
if sys.argv[1] == "without":
    sys.modules["matplotlib"] = None
import holoviews as hv, numpy as np, xarray as xr
import flyxr as fx
from bokeh.models import ContinuousColorMapper
from flyxr import hexgrid
for name in fx.viz.__all__:
    getattr(fx.viz, name)
assert sys.modules.get("matplotlib") is None, "matplotlib was imported"  # the backend of HoloViews imports it later
time = {"time": np.arange(3) / 10}
values = xr.DataArray(np.linspace(-1, 1, 21).reshape(3, 7), {**time, **hexgrid.column_coords(1)}, ("time", "column"))
luminance = ((values + 1) / 2).rename("luminance").to_dataset().assign_coords(cell_type="T4c")
movie = xr.DataArray(np.linspace(0, 1, 12).reshape(3, 2, 2), time, ("time", "y", "x"))
courses = xr.DataArray(np.random.default_rng(0).normal(size=(600, 3)), time, ("model", "time"))
responses = luminance.assign(response=values)
fx.viz.report(movie, luminance, responses, sys.argv[2])
for picture in (
    fx.viz.hexmap(values[0]),
    fx.viz.hexmap(abs(values[0])),
    fx.viz.hexmap(luminance.luminance[0]),
    fx.viz.movie(movie[0]),
    fx.viz.traces(courses),
    fx.viz.stimulus_response(movie, luminance, responses, n_times=1),
):
    figure = hv.render(picture, backend="bokeh")
    print(sorted(list(mapper.palette) for mapper in figure.select({"type": ContinuousColorMapper})))
"""


@pytest.mark.slow
def test_pictures__have_the_same_colours_without_matplotlib(tmp_path: Path) -> None:
    outputs = [
        subprocess.run(
            [sys.executable, "-c", COLOURS, which, str(tmp_path / "r.html")],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        ).stdout
        for which in ("with", "without")
    ]
    assert outputs[0] == outputs[1]
    assert outputs[0].count("#") > 5 * 256


def test_xarray_plot__of_our_objects_works_with_matplotlib(movie: xr.Dataset, responses: xr.Dataset) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    from matplotlib import pyplot

    assert central(responses).sel(cell_type="T4c", sample=0).plot.line(x="time")
    assert movie.luminance.isel(sample=0, time=0).plot.imshow()
    assert (
        responses.isel(model=0, sample=0, time=0)
        .sel(cell_type="T4c")
        .plot.scatter(x="x_column", y="y_column", hue="response")
    )
    pyplot.close("all")


def test_load_backend__selects_bokeh_if_none_is_loaded() -> None:
    code = """
import holoviews as hv, numpy as np, xarray as xr
from flyxr import hexgrid, schema, viz
assert not hv.Store.loaded_backends()
viz.hexmap(xr.DataArray(np.arange(7.0), dims="column", coords=hexgrid.column_coords(1)))
assert hv.Store.current_backend == "bokeh"
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=120)


def test_load_backend__keeps_the_current_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    elements.load_backend()
    monkeypatch.setattr(hv.Store, "loaded_backends", lambda: ["bokeh", "other"])
    monkeypatch.setattr(hv.Store, "current_backend", "other")
    elements.load_backend()
    assert hv.Store.current_backend == "other"


def test_displayed_frames__takes_the_last_frame_that_has_begun() -> None:
    starts = np.array([0.0, 0.1, 0.2])
    frames = xr.DataArray(starts, dims="time", coords={"time": starts}, name="time")
    times = np.array([-0.5, 0.0, 0.05, 0.1 - 1e-9, 0.19, 0.299, 0.3, 7.0])
    assert selecting.displayed_frames(frames, times).tolist() == [-1, 0, 0, 1, 1, 2, -1, -1]
    assert selecting.displayed_frames(frames[:1], times).tolist() == [-1, *[0] * 7]


@pytest.mark.parametrize(("count", "most", "expected"), [(6, 6, 6), (7, 6, 4), (67, 25, 23), (1, 6, 1)])
def test_thin__is_even_and_bounded(count: int, most: int, expected: int) -> None:
    positions = selecting.thin(count, most)
    assert positions[0] == 0
    assert len(positions) == expected <= most
    assert len(set(np.diff(positions))) <= 1
