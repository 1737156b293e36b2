"""How Bokeh and matplotlib draw hexagons and time courses, and what an update touches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import holoviews as hv
import numpy as np
import pytest
import xarray as xr
from bokeh.models import ColorBar

from flyxr import hexgrid, viz
from flyxr.viz import colours, courses, elements
from flyxr.viz.time_courses import TimeCourses

if TYPE_CHECKING:
    from pathlib import Path

TIME = np.array([0.0, 0.1, 0.2])
ERRORS = [5.2, np.nan, 5.1]


@pytest.fixture
def curves() -> TimeCourses:
    """Three curves with a label in text and one in numbers."""
    elements.load_backend()
    values = np.array([[1.0, 2.0, 3.0], [np.nan, 5.0, 6.0], [7.0, 8.0, 9.0]])
    return TimeCourses.from_curves(TIME, values, {"model": ["a", "b", "c"], "task_error": ERRORS})


def options(**given: Any) -> Any:
    return hv.Options("TimeCourses", **given, backend="bokeh")


def renderer_of(element: Any) -> Any:
    (renderer,) = hv.render(element, backend="bokeh").renderers
    return renderer


def test_time_courses__keep_the_curves(curves: TimeCourses) -> None:
    times, values = curves.curves()
    assert [time.tolist() for time in times] == [TIME.tolist()] * 3
    np.testing.assert_array_equal(values, [[1, 2, 3], [np.nan, 5, 6], [7, 8, 9]])
    part = curves.select(time=(0.05, None), model=["a", "c"])
    assert [value.tolist() for value in part.curves()[1]] == [[2, 3], [8, 9]]
    assert part.labels("model").tolist() == ["a", "c"]
    frame = curves.select(time=0.1)
    assert [value.tolist() for value in frame.curves()[1]] == [[2], [5], [8]]
    assert curves.dframe().shape == (9, 4)


def test_time_courses__of_no_curve_are_drawn() -> None:
    elements.load_backend()
    none = TimeCourses.from_curves(TIME, np.empty((0, 3)), {"model": []})
    assert hv.render(none, backend="bokeh") is not None


@pytest.mark.parametrize("color", ["task_error", hv.dim("task_error")])
def test_time_courses__are_coloured_by_a_number(curves: TimeCourses, color: Any) -> None:
    style = options(color=color, clim=(5.0, 6.0), cmap=["#000000", "#ffffff"], colorbar=True, tools=["hover"])
    renderer = renderer_of(curves.opts(style))
    colour, data = renderer.glyph.line_color, renderer.data_source.data
    assert (colour.transform.low, colour.transform.high) == (5.0, 6.0)
    assert list(colour.transform.palette) == ["#000000", "#ffffff"]
    np.testing.assert_array_equal(data[colour.field], ERRORS)
    assert list(data["model"]) == ["a", "b", "c"]


def test_time_courses__take_other_styles(curves: TimeCourses) -> None:
    plain = renderer_of(curves.opts(options(color="red", line_width=3, alpha=0.5)))
    assert (plain.glyph.line_color, plain.glyph.line_width, plain.glyph.line_alpha) == ("red", 3, 0.5)
    by_text = renderer_of(curves.opts(options(color="model", cmap="Category10")))
    assert sorted(by_text.glyph.line_color.transform.factors) == ["a", "b", "c"]
    assert list(by_text.data_source.data[by_text.glyph.line_color.field]) == ["a", "b", "c"]
    width = renderer_of(curves.opts(options(line_width=hv.dim("task_error") * 2)))
    np.testing.assert_array_equal(width.data_source.data[width.glyph.line_width.field], 2 * np.array(ERRORS))
    muted = renderer_of(curves.opts(options(color="red", muted_alpha=0.3)))
    assert muted.muted_glyph.line_alpha == 0.3
    hidden = renderer_of(curves.opts(options(visible=False)))
    assert not hidden.visible


def test_time_courses__may_change_axes(curves: TimeCourses) -> None:
    style = options(xrotation=90, yticks=[1, 5], title="responses", fontsize={"ticks": "7pt"}, xlabel="t", ylabel="V")
    figure = hv.render(curves.opts(style), backend="bokeh")
    assert figure.xaxis[0].major_label_orientation == pytest.approx(np.pi / 2)
    assert figure.yaxis[0].ticker.ticks == [1, 5]
    assert figure.title.text == "responses"
    assert (figure.xaxis[0].axis_label, figure.yaxis[0].axis_label) == ("t", "V")
    assert figure.xaxis[0].major_label_text_font_size == "7pt"
    renderer = renderer_of(curves.opts(options(invert_axes=True)))
    np.testing.assert_array_equal(renderer.data_source.data["ys"], [TIME] * 3)


def test_time_courses__lie_over_and_beside_other_elements(curves: TimeCourses) -> None:
    line = hv.Curve((TIME, [4.0, 4.0, 4.0]), "time", "response")
    assert len(hv.render(curves * line, backend="bokeh").renderers) == 2
    assert len((curves + line).values()) == 2
    assert hv.render(curves + line, backend="bokeh") is not None


def test_time_courses__update_in_place(curves: TimeCourses) -> None:
    style = options(color="task_error", clim=(5.0, 6.0), tools=["hover"], framewise=True)
    frames = {}
    for key in (0, 1):
        scaled = TimeCourses.from_curves(
            TIME, (key + 1) * np.arange(6.0).reshape(2, 3), {"model": [f"{key}", "x"], "task_error": [5 + key, 6.0]}
        )
        frames[key] = scaled.opts(style)
    plot = hv.renderer("bokeh").get_plot(hv.HoloMap(frames, "stage"))
    renderer = plot.handles["glyph_renderer"]
    plot.update((1,))
    data = renderer.data_source.data
    np.testing.assert_array_equal(data["ys"], [[0, 2, 4], [6, 8, 10]])
    assert list(data["model"]) == ["1", "x"]
    assert list(data["task_error"]) == [6.0, 6.0]
    assert plot.state.y_range.end >= 10


def test_time_courses__are_printed_in_their_colours(curves: TimeCourses, tmp_path: Path) -> None:
    from PIL import Image

    style = {"color": "task_error", "clim": (5.1, 5.2), "cmap": ["#ff0000", "#0000ff"], "line_width": 6}
    style |= {"clipping_colors": {"NaN": "#00ff00"}, "frame_width": 200, "frame_height": 200}
    for given, expected in ((style, ["#ff0000", "#0000ff", "#00ff00"]), (style | {"color": "#ff0000"}, ["#ff0000"])):
        path = viz.save(curves.opts(options(**given)), tmp_path / "curves.png")
        pixels = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3)
        for colour in ("#ff0000", "#0000ff", "#00ff00"):
            rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
            assert ((pixels == rgb).all(axis=1).sum() > 100) == (colour in expected), colour


@pytest.fixture
def moving() -> xr.DataArray:
    """Responses (time, column)."""
    coords = {"time": TIME, **hexgrid.column_coords(2)}
    return xr.DataArray(np.arange(57.0).reshape(3, 19), coords, ("time", "column"), name="response")


def test_hexmap__updates_the_values_only(moving: xr.DataArray) -> None:
    picture = viz.hexmap(moving, clim=(0, 57), dynamic=True)
    plot = hv.renderer("bokeh").get_plot(picture)
    figure, renderer = plot.state, plot.handles["glyph_renderer"]
    figure.x_range.update(start=-1.0, end=1.0)  # someone has zoomed in
    events: list[str] = []
    for model in (renderer.glyph, renderer.muted_glyph, figure.x_range, figure.y_range):
        for name in model.properties():
            model.on_change(name, lambda name, old, new: events.append(name))
    for frame in (1, 2, 0):
        plot.update((TIME[frame],))
        np.testing.assert_array_equal(renderer.data_source.data["response"], moving.values[frame])
    assert events == []
    assert (figure.x_range.start, figure.x_range.end) == (-1.0, 1.0)


def test_hexmap__updates_columns_and_colours_that_differ(moving: xr.DataArray) -> None:
    lattices = [elements.read_lattice(moving), elements.read_lattice(moving.isel(column=slice(3, 9)))]
    frames = {}
    for key, lattice in enumerate(lattices):
        element = elements.hexagons(np.arange(lattice.u.size, dtype=float), lattice, "response", (0.0, 1.0))
        style = {"line_alpha": 1.0 - 0.5 * key, "framewise": True, "cmap": ["#000000", "#ffffff"][:: 1 - 2 * key]}
        frames[key] = element.opts(hv.Options("Hexagons", **style, backend="bokeh"))
    plot = hv.renderer("bokeh").get_plot(hv.HoloMap(frames, "stage"))
    plot.update((0,))
    before = plot.state.y_range.end
    plot.update((1,))
    data, glyph = plot.handles["glyph_renderer"].data_source.data, plot.handles["glyph_renderer"].glyph
    assert len(data["response"]) == len(data["u"]) == 6
    assert glyph.line_alpha == 0.5
    assert list(glyph.fill_color.transform.palette) == ["#ffffff", "#000000"]
    assert plot.state.y_range.end < before


def test_hexmap__keeps_one_picture_of_a_dynamic_map(moving: xr.DataArray) -> None:
    picture = viz.hexmap(moving, dynamic=True)
    for time in TIME:
        np.testing.assert_array_equal(picture[time].dimension_values("response"), moving.sel(time=time))
    assert len(picture.data) == 1


def many_types(n_types: int) -> xr.DataArray:
    coords = {"cell_type": [f"type {i}" for i in range(n_types)], "time": TIME, "task_error": ("model", [5.0, 6.0])}
    return xr.DataArray(np.ones((n_types, 2, 3)), coords, ("cell_type", "model", "time"), name="response")


def test_traces__of_many_cell_types_have_few_tools() -> None:
    for n_types, has_all in ((courses.MAX_PANELS_WITH_ALL_TOOLS, True), (courses.MAX_PANELS_WITH_ALL_TOOLS + 1, False)):
        panels = viz.traces(many_types(n_types)).values()
        figure = hv.render(panels[0], backend="bokeh")
        names = {type(tool).__name__ for tool in figure.toolbar.tools}
        assert names >= {"PanTool", "WheelZoomTool", "ResetTool", "HoverTool"}
        assert ("BoxZoomTool" in names) == has_all


@pytest.mark.parametrize(
    ("errors", "clim", "n_above"),
    [
        ([5.0, 5.1, 5.2, 5.3, 5.4, 9.0], (5.0, 5.4), 1),
        ([5.0, 5.1, 5.2, 5.3, 5.4, 9.0, np.nan, np.inf], (5.0, 5.4), 1),
        ([5.0, 5.1, 5.2, 5.3, 5.4, 5.9], (5.0, 5.9), 0),  # no outlier
        ([5.0, 5.1, 5.2, 9.0], (5.0, 9.0), 0),  # too few to tell
        ([-9.0, 5.0, 5.1, 5.2, 5.3, 5.4], (-9.0, 5.4), 0),  # a good model keeps its colour
        ([5.0] * 5 + [9.0], (4.5, 5.5), 1),
        ([np.nan] * 3, (-0.5, 0.5), 0),
    ],
)
def test_task_error_scale__is_that_of_the_usual_models(
    errors: list[float], clim: tuple[float, float], n_above: int
) -> None:
    scale = colours.task_error_scale(xr.DataArray(errors))
    assert scale.clim == clim
    assert scale.n_above == n_above


def test_task_error_scale__is_the_same_in_all_pictures() -> None:
    errors = ("model", [5.0, 5.1, 5.2, 5.3, 5.4, 9.0])
    course = xr.DataArray(
        np.ones((6, 3)), {"time": TIME, "task_error": errors, "cell_type": "T4c"}, ("model", "time"), name="response"
    )
    clusters = xr.Dataset(
        {"embedding": (("model", "component"), np.eye(6)[:, :2]), "cluster": ("model", [0] * 6)},
        {"cell_type": "T4c", "model": range(6), "task_error": errors},
    )
    angles = {"angle": [0, 90, 180, 270], "task_error": errors, "cell_type": "T4c"}
    tuning = xr.DataArray(np.ones((6, 4)), angles, ("model", "angle"), name="tuning_curve")
    for picture in (viz.traces(course), viz.embedding(clusters), viz.tuning(tuning)):
        bar = hv.render(picture, backend="bokeh").select_one({"type": ColorBar})
        assert bar.title == "task error (a.u.), 1 above"
        assert (bar.color_mapper.low, bar.color_mapper.high) == (5.0, 5.4)
