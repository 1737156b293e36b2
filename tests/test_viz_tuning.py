"""Tuning curves, receptive fields and eyes: values are where they belong."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import holoviews as hv
import numpy as np
import pytest
import xarray as xr

import flyxr as fx
from flyxr import hexgrid, viz
from flyxr.viz.hexagons import Hexagons

if TYPE_CHECKING:
    from collections.abc import Callable

ANGLES = np.arange(0, 360, 45)


@pytest.fixture
def curves() -> xr.DataArray:
    """Curves (model, cell_type, angle) with the largest response upward, 90 degrees; the second model is the best."""
    shape = 1 + np.cos(np.deg2rad(ANGLES - 90))
    values = shape * np.array([1.0, 2.0, 3.0])[:, None, None] * np.array([1.0, 0.5])[:, None]
    coords = {
        "model": [4, 8, 9],
        "task_error": ("model", [5.3, 5.1, 5.2]),
        "cell_type": ["T4c", "T5d"],
        "angle": ANGLES,
    }
    return xr.DataArray(values, coords, ("model", "cell_type", "angle"), name="tuning_curve", attrs={"units": "a.u."})


@pytest.fixture
def field() -> xr.DataArray:
    """Spatial fields (model, cell_type, column), excited by the column above the centre only."""
    coords = hexgrid.column_coords(2)
    above = (coords["u"][1] == -1) & (coords["v"][1] == 0)
    values = np.where(above, 2.0, -0.5) * np.array([1.0, 0.1])[:, None, None] * np.ones((2, 3, 1))
    labels = {"model": [0, 1], "cell_type": ["Mi1", "Tm3", "L1"], **coords}
    return xr.DataArray(values, labels, ("model", "cell_type", "column"), name="spatial_receptive_field")


def layers(picture: hv.Overlay, kind: type) -> list[Any]:
    return [layer for layer in picture if type(layer) is kind]


def test_tuning__points_in_the_direction_of_the_largest_response(curves: xr.DataArray) -> None:
    (panel, other) = viz.tuning(curves)
    mean, ray = layers(panel, hv.Path)[:2]
    x, y = mean.dimension_values("x"), mean.dimension_values("y")
    expected = curves.sel(cell_type="T4c").mean("model").values
    np.testing.assert_allclose(np.hypot(x, y)[:8], expected)
    np.testing.assert_allclose(np.rad2deg(np.arctan2(y, x))[2], 90)
    assert (x[0], y[0]) == (x[-1], y[-1])  # closed
    assert ray.dimension_values("x")[-1] == pytest.approx(0, abs=1e-9)
    assert ray.dimension_values("y")[-1] > 0
    assert hv.Store.lookup_options("bokeh", panel, "plot").kwargs["title"] == "T4c"
    assert hv.Store.lookup_options("bokeh", other, "plot").kwargs["title"] == "T5d"


def test_tuning__draws_the_best_model_on_top(curves: xr.DataArray) -> None:
    panel = viz.tuning(curves.sel(cell_type="T4c"))
    models = layers(panel, hv.Contours)[1]
    assert [path["model"] for path in models.data] == ["4", "9", "8"]
    assert [path["task_error"] for path in models.data] == [5.3, 5.2, 5.1]
    assert hv.render(panel, backend="bokeh") is not None


def test_tuning__marks_the_known_direction(curves: xr.DataArray) -> None:
    known = fx.tuning.known_tuning().preferred_direction.sel(cell_type="T4c").item()
    (dot,) = layers(viz.tuning(curves.sel(cell_type="T4c")), hv.Points)
    x, y = dot.dimension_values("x")[0], dot.dimension_values("y")[0]
    assert np.rad2deg(np.arctan2(y, x)) % 360 == pytest.approx(known % 360)
    assert not layers(viz.tuning(curves.isel(cell_type=0).assign_coords(cell_type="Mi1")), hv.Points)


def test_tuning__labels_directions_and_values(curves: xr.DataArray) -> None:
    (labels,) = layers(viz.tuning(curves.sel(cell_type="T4c")), hv.Labels)
    text = {label: (x, y) for x, y, label in zip(*(labels.dimension_values(i) for i in range(3)), strict=True)}
    assert text["0°"][0] > 0
    assert text["90°"][1] > 0
    assert text["180°"][0] < 0
    assert any(label.endswith(" a.u.") for label in text)


def test_tuning__of_conditions_has_a_line_for_each(curves: xr.DataArray) -> None:
    both = xr.concat([curves, 2 * curves], "intensity").assign_coords(intensity=[0, 1])
    panel = viz.tuning(both.isel(cell_type=0))
    assert [layer.label for layer in layers(panel, hv.Path) if layer.label] == ["intensity 0", "intensity 1"]
    with pytest.raises(ValueError, match="expected one condition of the stimulus"):
        viz.tuning(xr.concat([both, both], "speed"))


def test_tuning__computes_the_curves_of_responses() -> None:
    rng = np.random.default_rng(0)
    coords = {
        "time": np.arange(4) / 10,
        "angle": ("sample", [0.0, 90.0, 180.0, 270.0]),
        "t_stim": ("sample", [0.3] * 4),
        "intensity": ("sample", [1.0] * 4),
        "speed": ("sample", [19.0] * 4),
        "model": [0],
        "cell_type": ["T4a"],
    }
    responses = xr.DataArray(
        rng.random((1, 4, 4, 1)), coords, ("model", "sample", "time", "cell_type"), name="response"
    )
    drawn = layers(viz.tuning(responses), hv.Path)[0]
    expected = layers(viz.tuning(fx.tuning.tuning_curves(responses)), hv.Path)[0]
    np.testing.assert_array_equal(drawn.dimension_values("x"), expected.dimension_values("x"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.rename(angle="phase"), "expected tuning curves with 'angle' in degrees"),
        (lambda c: c - 5, "expected peak responses of at least 0"),
        (lambda c: c.astype(complex), "expected one real number for each angle, got complex128"),
        (lambda c: c.isel(model=[]), "expected at least one tuning curve"),
        (lambda c: c.values, "got ndarray"),
        (lambda c: c.expand_dims(column=[0, 1]), "expected one real number for each angle"),
    ],
)
def test_tuning__refuses(curves: xr.DataArray, change: Callable[..., Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        viz.tuning(change(curves))


def test_tuning__of_nan_and_of_no_response(curves: xr.DataArray) -> None:
    for data in (curves * np.nan, curves * 0, curves.where(curves.angle != 90), curves.isel(angle=[0, 1])):
        assert hv.render(viz.tuning(data.isel(cell_type=0)), backend="bokeh") is not None


def test_tuning__of_lazy_data_is_the_same(curves: xr.DataArray) -> None:
    eager, lazy = (layers(viz.tuning(data.isel(cell_type=0)), hv.Path)[0] for data in (curves, curves.chunk()))
    np.testing.assert_array_equal(eager.dimension_values("y"), lazy.dimension_values("y"))


def test_receptive_field__is_excited_above_the_centre(field: xr.DataArray) -> None:
    layout = viz.receptive_field(field.sel(model=0))
    assert [panel.label for panel in layout] == ["Mi1, model 0", "Tm3, model 0", "L1, model 0"]
    panel = layout.values()[0]
    assert isinstance(panel, Hexagons)
    values = panel.dimension_values("spatial_receptive_field")
    highest = np.argmax(values)
    assert values[highest] == 2.0
    assert panel.dimension_values("y_column")[highest] == 1.0
    assert panel.dimension_values("x_column")[highest] == 0.0
    low, high = hv.Store.lookup_options("bokeh", panel, "plot").kwargs["clim"]
    assert (low, high) == (-2.0, 2.0)


def test_receptive_field__of_models_is_a_map(field: xr.DataArray) -> None:
    picture = viz.receptive_field(field.sel(cell_type="Mi1").to_dataset())
    assert isinstance(picture, hv.HoloMap)
    assert picture.keys() == [0, 1]


def test_receptive_field__in_time(field: xr.DataArray) -> None:
    coords = {"model": [0, 1], "time": np.arange(5) / 10, "cell_type": "Mi1"}
    course = xr.DataArray(np.ones((2, 5)), coords, ("model", "time"), name="temporal_receptive_field")
    assert isinstance(viz.receptive_field(course), hv.Overlay)
    with pytest.raises(ValueError, match=re.escape("select one with .sel(intensity=1)")):
        viz.receptive_field(xr.concat([course, course], "intensity").assign_coords(intensity=[0, 1]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.rename("response"), "expected a receptive field, got 'response'"),
        (lambda f: f.astype(complex), "complex128"),
        (lambda f: f.isel(column=0), "expected a receptive field"),
        (lambda f: f.isel(cell_type=[]), "expected at least one value"),
        (lambda f: f.to_dataset(name="x"), "call fx.tuning.spatial_receptive_field"),
        (
            lambda f: xr.Dataset({"spatial_receptive_field": f, "temporal_receptive_field": f}),
            "choose one with data[name]",
        ),
        (lambda f: 3, "expected a receptive field, got 3"),
    ],
)
def test_receptive_field__refuses(field: xr.DataArray, change: Callable[..., Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        viz.receptive_field(change(field))


def test_illustrate__draws_an_eye() -> None:
    eye = fx.BoxEye(extent=3, kernel_size=5)
    assert [type(layer).__name__ for layer in viz.illustrate(eye)] == ["Bounds", "Rectangles", "Points"]
    with pytest.raises(ValueError, match="expected an eye"):
        viz.illustrate(fx.BoxEye)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="draw movies with fx.viz.movie"):
        viz.illustrate(xr.DataArray([1.0]))  # type: ignore[arg-type]
