"""Many rows as one picture: rows, their order and their labels."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import holoviews as hv
import numpy as np
import pytest
import xarray as xr

from flyxr import hexgrid, viz

if TYPE_CHECKING:
    from collections.abc import Callable

TYPES = ["L1", "Mi1", "Lawf1"]


@pytest.fixture
def cells() -> xr.DataArray:
    """Responses (cell_type, column, time): the number of the type, more at the last time; one type has few cells."""
    coords = {"cell_type": TYPES, "time": np.arange(4) / 100, **hexgrid.column_coords(3)}
    values = np.arange(3.0)[:, None, None] - 1 + np.zeros((3, 37, 4))
    values[:, :, -1] += 0.25
    values[2, 5:] = np.nan
    return xr.DataArray(values, coords, ("cell_type", "column", "time"), name="response")


def rows_of(picture: hv.Image) -> np.ndarray[Any, Any]:
    """Rows from the top of the picture."""
    assert hv.Store.lookup_options("bokeh", picture, "plot").kwargs["invert_yaxis"]
    return np.asarray(picture.dimension_values(picture.vdims[0], flat=False))  # the lowest y, at the top, first


def test_raster__groups_existing_cells_by_type(cells: xr.DataArray) -> None:
    picture = viz.raster(cells)
    rows = rows_of(picture)
    assert rows.shape == (37 + 37 + 5, 4)
    expected = np.repeat([-1.0, 0.0, 1.0], [37, 37, 5])
    np.testing.assert_allclose(rows[:, 0], expected)
    np.testing.assert_allclose(rows[:, -1], expected + 0.25)
    ticks = hv.Store.lookup_options("bokeh", picture, "plot").kwargs["yticks"]
    assert ticks == [(18.0, "L1"), (55.0, "Mi1"), (76.0, "Lawf1")]


def test_raster__averages_rows_with_datashader(cells: xr.DataArray) -> None:
    picture = viz.raster(cells.isel(cell_type=[0, 1]), height=37)
    rows = rows_of(picture)
    assert rows.shape == (37, 4)
    np.testing.assert_allclose(rows[:18, 0], -1)
    np.testing.assert_allclose(rows[19:, 0], 0)
    assert -1 <= rows[18, 0] <= 0
    assert hv.render(picture, backend="bokeh") is not None
    assert len(hv.Store.lookup_options("bokeh", picture, "plot").kwargs["yticks"]) == 2


def test_raster__has_white_at_zero(cells: xr.DataArray) -> None:
    low, high = hv.Store.lookup_options("bokeh", viz.raster(cells), "plot").kwargs["clim"]
    assert low == -high
    assert high == 1.25


def test_raster__says_what_lies_beyond_the_colours() -> None:
    values = np.ones((50, 100))
    values[0, 0] = 1000.0
    course = xr.DataArray(values, {"time": np.arange(100) / 100}, ("model", "time"), name="response")
    options = hv.Store.lookup_options("bokeh", viz.raster(course), "plot").kwargs
    assert "0.0% of the values lie beyond the colours" in options["title"]
    assert options["clim"][1] < 2


def test_raster__sorts_models_by_task_error() -> None:
    coords = {"model": [7, 8, 9], "task_error": ("model", [5.3, 5.1, 5.2]), "time": [0.0, 0.1]}
    course = xr.DataArray([[3.0, 3.0], [1.0, 1.0], [2.0, 2.0]], coords, ("model", "time"), name="response")
    picture = viz.raster(course.chunk())
    np.testing.assert_array_equal(rows_of(picture)[:, 0], [1, 2, 3])
    ticks = hv.Store.lookup_options("bokeh", picture, "plot").kwargs["yticks"]
    assert [label for _, label in ticks] == ["8", "9", "7"]


def test_raster__of_models_and_types_is_a_table() -> None:
    coords = {"model": [7, 8], "task_error": ("model", [5.3, 5.1]), "cell_type": ["T4c", "Mi1", "Am"]}
    table = xr.DataArray([[1.0, 2.0, 3.0], [4.0, 5.0, -6.0]], coords, ("model", "cell_type"), name="response")
    picture = viz.raster(table)
    assert isinstance(picture, hv.HeatMap)
    figure = hv.render(picture, backend="bokeh")
    assert figure.x_range.factors == ["T4c", "Mi1", "Am"]
    assert list(figure.y_range.factors)[-1] == "8"  # Bokeh counts from the bottom: the best model is at the top
    source = figure.renderers[0].data_source.data
    drawn = {(x, y): value for x, y, value in zip(source["cell_type"], source["model"], source["zvalues"], strict=True)}
    assert drawn["Am", "8"] == -6
    assert drawn["T4c", "7"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.expand_dims(model=[0, 1]), "select one model or one cell_type, e.g. with .isel(model=0)"),
        (lambda c: c.isel(time=0, cell_type=0), "expected (cell_type, column, time), or two of"),
        (lambda c: c.astype(complex), "expected real numbers, got values of type complex128"),
        (lambda c: c.isel(cell_type=[]), "got none along 'cell_type'"),
        (lambda c: c.drop_vars("time"), "expected a coordinate 'time' in s"),
        (lambda c: c.values, "got ndarray"),
    ],
)
def test_raster__refuses(cells: xr.DataArray, change: Callable[..., Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        viz.raster(change(cells))


def test_raster__of_one_time_and_of_nan(cells: xr.DataArray) -> None:
    for data in (cells.isel(time=[0]), cells * np.nan, cells.isel(cell_type=0), cells.isel(column=18)):
        assert hv.render(viz.raster(data), backend="bokeh") is not None
