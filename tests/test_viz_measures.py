"""The picture of measures over cell types: read the drawn values back from HoloViews elements and Bokeh figures."""

from __future__ import annotations

import warnings
from typing import Any

import holoviews as hv
import numpy as np
import pytest
import xarray as xr

from flyxr import tuning, viz

TYPES = ["Tm30", "Mi1", "Tm1", "T4c", "L1"]


@pytest.fixture
def index() -> xr.DataArray:
    """Flash response indices of three models; the last cell type has none."""
    values = np.random.default_rng(0).uniform(-1, 1, (3, 5)).astype(np.float32)
    values[:, -1] = np.nan
    coords = {"cell_type": TYPES, "model": [4, 8, 15], "radius": 6.0}
    return xr.DataArray(values, coords, ("model", "cell_type"), name="flash_response_index")


def drawn(panel: hv.Overlay) -> dict[tuple[str, str], float]:
    """Value of each cell type and model; the model of the marks is the name of their layer."""
    values = {}
    for layer in panel:
        names, numbers = layer.dimension_values("cell_type"), layer.dimension_values(1)
        is_mark = len(layer.vdims) == 1
        models = [layer.label] * len(names) if is_mark else layer.dimension_values("model")
        values |= dict(zip(zip(names, models, strict=True), numbers, strict=True))
    return values


def test_measures__draws_each_model_and_the_median(index: xr.DataArray) -> None:
    values = drawn(viz.measures(index))
    assert len(values) == 5 * 4
    for name in TYPES:
        for model in index.model.values:
            np.testing.assert_equal(values[name, str(model)], index.sel(cell_type=name, model=model).item())
        np.testing.assert_allclose(values[name, "median"], index.sel(cell_type=name).median().item())


def test_measures__keeps_the_order_of_cell_types_and_names_the_axes(index: xr.DataArray) -> None:
    figure = hv.render(viz.measures(index), backend="bokeh")
    assert figure.x_range.factors == TYPES
    assert figure.yaxis.axis_label == "flash response index"
    assert [item.label["value"] for item in figure.legend[0].items] == ["known ON", "known OFF", "not known", "median"]


def test_measures__groups_cell_types_by_what_is_known(index: xr.DataArray) -> None:
    polarity = tuning.known_tuning().polarity
    for layer in viz.measures(index):
        expected = {"known ON": 1, "known OFF": -1}.get(layer.label)
        for name in set(layer.dimension_values("cell_type")) if layer.label != "median" else ():
            value = polarity.sel(cell_type=name).item() if name in polarity.cell_type else np.nan
            assert value == expected if expected else np.isnan(value)
    selectivity = viz.measures(abs(index).rename("direction_selectivity_index"))
    assert {layer.label for layer in selectivity} >= {"known as selective", "known as not selective", "median"}


def test_measures__marks_known_directions_and_draws_no_median_of_angles(index: xr.DataArray) -> None:
    *_, marks = viz.measures((180 * index).rename("preferred_direction"))
    assert marks.label == "known direction"
    shown = dict(zip(marks.dimension_values("cell_type"), marks.dimension_values(1), strict=True))
    assert shown["T4c"] == tuning.known_tuning().preferred_direction.sel(cell_type="T4c").item()
    assert np.isnan(shown["Mi1"])


def test_measures__gives_each_condition_a_panel(index: xr.DataArray) -> None:
    both = xr.concat([index, -index], "intensity").assign_coords(intensity=[0.0, 1.0])
    panels = list(viz.measures(both.rename("direction_selectivity_index")))
    titles = [hv.render(panel, backend="bokeh").title.text for panel in panels]
    assert titles == ["intensity 0.0", "intensity 1.0"]
    assert drawn(panels[1])["Mi1", "4"] == -index.sel(cell_type="Mi1", model=4)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.isel(model=0),
        lambda data: data.sel(cell_type="Mi1"),
        lambda data: data.sel(cell_type="Mi1", model=8),
        lambda data: data.isel(model=[0], cell_type=[1]),
        lambda data: data.drop_vars("model"),
        lambda data: data.chunk(model=1),
        lambda data: data.rename("response_norm").to_dataset(),
        lambda data: data.isel(cell_type=[4]),
    ],
    ids=["a model", "a cell type", "a value", "length one", "no labels", "lazy", "Dataset", "NaN"],
)
def test_measures__takes_selections(index: xr.DataArray, change: Any) -> None:
    data = change(index)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        panel = viz.measures(data)
        assert hv.render(panel, backend="bokeh").renderers
    array = data.response_norm if isinstance(data, xr.Dataset) else data
    points = [value for (_, model), value in drawn(panel).items() if model != "median"]
    np.testing.assert_array_equal(np.sort(points), np.sort(array.values.ravel()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda data: data.rename("a").to_dataset(),
            r"expected one measure, got \['a'\]: choose one with data\[name\]",
        ),
        (lambda data: xr.Dataset({"response_norm": data, "peak_response": data}), "expected one measure, got"),
        (lambda data: data.isel(cell_type=[]), "at least one value"),
        (lambda data: data.isel(cell_type=0, drop=True), "expected a measure with 'cell_type'"),
        (lambda data: data.expand_dims(time=2), "time courses with fx.viz.traces"),
        (lambda data: data.expand_dims(column=721), "values in columns with fx.viz.hexmap"),
        (lambda data: data.astype(complex), "expected one real number for each model and cell type, got complex128"),
        (lambda data: data.expand_dims(angle=13), r"at most 12 conditions, got 13 \(angle: 13\): select some"),
        (lambda data: "Mi1", "got str"),
    ],
)
def test_measures__refuses_other_data(index: xr.DataArray, change: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        viz.measures(change(index))


def test_measures__refuses_sizes_that_are_no_integers(index: xr.DataArray) -> None:
    with pytest.raises(ValueError, match=r"width as an integer.*height as an integer"):
        viz.measures(index, width=0, height=1.5)  # type: ignore[arg-type]
