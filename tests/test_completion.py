from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr

import flyxr as fx
from flyxr import hexgrid, schema

TIME = {"time": [0.0, 0.01, 0.02]}


def luminance(n_columns: int = 7, *dims: str) -> xr.DataArray:
    sizes = {"sample": 2, "time": 3, "column": n_columns}
    dims = dims or ("sample", "time", "column")
    return xr.DataArray(np.zeros([sizes[dim] for dim in dims], np.float32), TIME, dims)


@pytest.mark.parametrize("extent", [1, 2, 15])
def test_complete__fills_in_samples_and_columns_of_a_full_lattice(extent: int) -> None:
    rendering = schema.validate(luminance(hexgrid.n_columns(extent)), "rendering")
    assert rendering.sample.values.tolist() == [0, 1]
    for name, (_, values) in hexgrid.column_coords(extent).items():
        np.testing.assert_array_equal(rendering[name].values, values)


@pytest.mark.parametrize("given", [["u", "v"], ["column"], ["column", "u", "v"]])
def test_complete__fills_in_the_rest_of_the_columns(given: list[str]) -> None:
    columns = hexgrid.column_coords(1)
    whole = schema.validate(luminance().assign_coords({name: columns[name] for name in given}), "rendering")
    assert set(columns) <= set(whole.coords)


@pytest.mark.parametrize(
    "coords",
    [{"u": ("column", np.zeros(7, int))}, {"column": np.arange(7)[::-1]}, {"column": np.arange(7) + 1}],
    ids=["u alone", "other order", "other labels"],
)
def test_complete__does_not_guess_columns(coords: dict[str, Any]) -> None:
    with pytest.raises(schema.SchemaError, match=r"expected the coordinates '.*[uv]' of the columns, got none: label"):
        schema.validate(luminance().assign_coords(coords), "rendering")


@pytest.mark.parametrize("n_columns", [1, 6, 720])
def test_complete__does_not_guess_a_lattice(n_columns: int) -> None:
    with pytest.raises(schema.SchemaError, match=rf"{n_columns} columns fill no lattice"):
        schema.validate(luminance(n_columns), "rendering")


def test_complete__fills_in_models() -> None:
    ensemble = fx.sample_ensemble(2, seed=0)
    bare = ensemble.drop_vars(["model", "model_name", "task_error", "pair"])
    whole = schema.validate(bare, "ensemble")
    assert whole.model.values.tolist() == [0, 1]
    assert whole.model_name.values.tolist() == ["0", "1"]
    assert np.isnan(whole.task_error).all()
    assert "task_error" not in bare.coords


SELECTED: dict[str, tuple[Any, str]] = {
    "a sample of a rendering": (lambda r, e: r.isel(sample=0), "rendering"),
    "a frame of a sample": (lambda r, e: r.isel(sample=0, time=1), "rendering"),
    "a mean over samples": (lambda r, e: r.mean("sample"), "rendering"),
    "a model": (lambda r, e: e.isel(model=1), "ensemble"),
    "a mean model": (lambda r, e: e.mean("model"), "ensemble"),
}


@pytest.mark.parametrize(("select", "kind"), SELECTED.values(), ids=SELECTED)
def test_expand__gives_back_dims_that_squeeze_removes(select: Any, kind: str) -> None:
    rendering = schema.validate(luminance(), "rendering").assign_coords(angle=("sample", [0.0, 90.0]))
    data = select(rendering, fx.sample_ensemble(2, seed=0))
    whole, squeeze = schema.expand(data, kind)
    for variable in schema.KINDS[kind].variables:
        assert variable.name not in data or set(whole[variable.name].dims) == set(variable.dims)
    xr.testing.assert_identical(squeeze(whole), data)


def test_expand__keeps_labels_of_what_was_selected() -> None:
    rendering = schema.validate(luminance(), "rendering").assign_coords(
        angle=("sample", [0.0, 90.0]), sample=["a", "b"]
    )
    whole, _ = schema.expand(rendering.isel(sample=1), "rendering")
    assert whole.sample.values.tolist() == ["b"]
    assert whole.angle.dims == ("sample",)


def test_expand__computes_no_variable() -> None:
    def fail(block: np.ndarray) -> np.ndarray:
        raise AssertionError("computed")

    lazy = da.zeros((2, 3, 7), np.float32).map_blocks(fail, dtype=np.float32, meta=np.empty((0, 0, 0), np.float32))
    data = xr.DataArray(lazy, TIME, ("sample", "time", "column"))
    assert schema.validate(data, "rendering").luminance.chunks is not None
    assert schema.validate(data.isel(sample=0), "rendering").luminance.chunks is not None


def test_complete__loads_coordinates() -> None:
    rendering = schema.validate(luminance(), "rendering")
    lazy = (
        rendering.assign_coords(digit=("sample", ["9 0", "1"]))
        .chunk()
        .assign_coords(digit=("sample", da.from_array(np.array(["9 0", "1"], object), chunks=1)))
    )
    whole = schema.validate(lazy, "rendering")
    assert whole.where(whole.digit == "9 0", drop=True).sizes["sample"] == 1
    assert list(whole.luminance.groupby("digit").groups) == ["1", "9 0"]


@pytest.mark.parametrize("unit", ["ns", "us", "ms"])
def test_complete__takes_timedeltas_for_what_they_are(unit: str) -> None:
    time = (np.arange(3) * 10).astype("timedelta64[ms]").astype(f"timedelta64[{unit}]")
    whole = schema.validate(luminance().assign_coords(time=time), "rendering")
    assert whole.time.values.tolist() == [0.0, 0.01, 0.02]


def test_validate__says_how_to_convert_dates() -> None:
    dates = np.array(["2026-01-01T00:00:00.00", "2026-01-01T00:00:00.01", "2026-01-01T00:00:00.02"], "datetime64[ns]")
    data = luminance()
    with pytest.raises(
        schema.SchemaError, match=r"got datetime64.*time=...\): \(data.time - data.time\[0\]\) / np.time"
    ) as e:
        schema.validate(data.assign_coords(time=dates), "rendering")
    assert "astype" not in str(e.value)
    dated = data.assign_coords(time=dates)
    converted = dated.assign_coords(time=(dated.time - dated.time[0]) / np.timedelta64(1, "s"))
    assert schema.time_step(schema.validate(converted, "rendering")) == pytest.approx(0.01)


def test_complete__turns_a_multiindex_into_coordinates() -> None:
    trials = luminance().expand_dims(trial=["a", "b"]).assign_coords(sample=[0, 1]).rename(sample="angle")
    whole = schema.validate(trials.stack(sample=("trial", "angle")), "rendering")
    assert whole.sample.values.tolist() == [0, 1, 2, 3]
    assert whole.trial.values.tolist() == ["a", "a", "b", "b"]


def pixels() -> xr.Dataset:
    values = np.arange(12, dtype=np.float32).reshape(1, 1, 3, 4) / 12
    coords = {"time": [0.0], "y": [0, 1, 2], "x": [0, 1, 2, 3]}
    return schema.validate(xr.DataArray(values, coords, ("sample", "time", "y", "x")), "movie")


def test_complete__sorts_pixels_by_their_labels() -> None:
    turned = pixels().isel(y=slice(None, None, -1), x=[2, 0, 1, 3])
    xr.testing.assert_identical(schema.validate(turned, "movie"), pixels())


def test_complete__turns_rows_that_point_upward() -> None:
    upward = pixels().assign_coords(y=("y", [-10.0, 0.0, 10.0], {"positive": "up"}))
    values = schema.validate(upward, "movie").luminance.values
    np.testing.assert_array_equal(values, pixels().luminance.values[:, :, ::-1])
    turned = upward.isel(y=slice(None, None, -1))
    np.testing.assert_array_equal(schema.validate(turned, "movie").luminance.values, turned.luminance.values)


def test_validate__asks_which_way_rows_point() -> None:
    with pytest.raises(schema.SchemaError, match=r"counts rows downward, got 10 .* to -10 .*\['positive'\] = 'up'"):
        schema.validate(pixels().assign_coords(y=[10.0, 0.0, -10.0]), "movie")


def test_validate__corrects_the_step_that_is_kept_beside_time() -> None:
    rendering = schema.validate(luminance().assign_coords(time=schema.time_coord(3, 0.01)), "rendering")
    decimated = schema.validate(rendering.isel(time=[0, 2]), "rendering")
    assert schema.time_step(decimated.isel(time=[0])) == 0.02


def test_validate__names_grey_where_times_repeat() -> None:
    part = schema.validate(luminance(), "rendering")
    with pytest.raises(schema.SchemaError, match=r"more than once.*fx.pad_grey") as caught:
        schema.validate(xr.concat([part, part], "time"), "rendering")
    assert "sortby" not in str(caught.value)


def test_validate__does_not_sort_what_goes_back_and_forth() -> None:
    with pytest.raises(schema.SchemaError, match="goes back at frame 2") as caught:
        schema.validate(luminance().assign_coords(time=[0.0, 0.2, 0.1]), "rendering")
    assert "sortby" not in str(caught.value)


def test_validate__guesses_names_of_dims() -> None:
    data = xr.DataArray(np.zeros((3, 2, 7), np.float32), dims=("frame", "trial", "place"))
    with pytest.raises(schema.SchemaError, match=r"\.rename\(frame='time', trial='sample', place='column'\)"):
        schema.validate(data, "rendering")


@pytest.mark.parametrize(
    ("data", "kind", "way"),
    [
        (pixels(), "rendering", r"expected a rendering, got a movie: render it with fx.BoxEye\(\).render\(movie\)"),
        (luminance(), "movie", "expected a movie, got a rendering: it is rendered already"),
        (fx.sample_ensemble(1, seed=0), "rendering", "expected a rendering, got an ensemble"),
        (schema.validate(luminance(), "rendering"), "responses", r"got a rendering: simulate it with fx.simulate"),
    ],
)
def test_validate__says_what_leads_from_one_kind_to_the_other(data: Any, kind: str, way: str) -> None:
    if isinstance(data, xr.Dataset):
        data = (
            data
            if schema.KIND_ATTR in data.attrs
            else schema.annotate(data, "rendering" if "column" in data.dims else "movie")
        )
    with pytest.raises(schema.SchemaError, match=way):
        schema.validate(data, kind)


def test_validate__says_how_to_relabel_models_that_are_there_twice() -> None:
    both = xr.concat([fx.sample_ensemble(2, seed=0), fx.sample_ensemble(2, seed=1)], "model")
    with pytest.raises(schema.SchemaError, match=r"more than one of \[0, 1\].*assign_coords\(model=np.arange\(4\)\)"):
        schema.validate(both, "ensemble")


def test_validate__measures_may_have_the_conditions_of_their_stimulus_as_dims() -> None:
    connectome = fx.open_connectome(extent=1)
    ensemble = fx.sample_ensemble(2, seed=0, connectome=connectome)
    gratings = fx.stimuli.gratings(extent=1, angles=[0, 90, 180, 270], t_stim=0.2, dt=0.01)
    responses = fx.simulate(gratings, ensemble, connectome=connectome, record="central")
    measures = fx.tuning.summary(responses)
    assert "temporal_frequency" in measures.dims
    validated = schema.validate(measures, "measures")
    for name, measure in validated.items():
        xr.testing.assert_equal(measure, measures[name].transpose(*measure.dims))
    whole, squeeze = schema.expand(measures.isel(model=0), "measures")
    assert whole.sizes["model"] == 1
    assert "model" not in squeeze(whole).dims
