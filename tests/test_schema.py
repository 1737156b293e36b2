from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from flyxr import hexgrid, schema

DOCS = Path(__file__).parents[1] / "docs"


def movie() -> xr.Dataset:
    coords = {"sample": [0, 1], "time": schema.time_coord(3, 0.02), "y": range(4), "x": range(5)}
    return xr.Dataset({"luminance": (("sample", "time", "y", "x"), np.zeros((2, 3, 4, 5), np.float32))}, coords)


def rendering(extent: int = 1) -> xr.Dataset:
    columns = hexgrid.column_coords(extent)
    values = np.zeros((2, 3, len(columns["u"][1])), np.float32)
    coords = {"sample": [0, 1], "time": schema.time_coord(3, 0.02), **columns}
    return xr.Dataset({"luminance": (("sample", "time", "column"), values)}, coords)


@pytest.mark.parametrize(("data", "kind"), [(movie(), "movie"), (rendering(), "rendering")])
def test_validate__passes_and_leaves_the_data_alone(data: xr.Dataset, kind: str) -> None:
    before = data.copy(deep=True)
    assert schema.validate(data, kind).identical(data)
    assert data.identical(before)


def test_validate__puts_dims_in_order() -> None:
    turned = rendering().transpose("column", "sample", "time")
    assert schema.validate(turned, "rendering").luminance.dims == ("sample", "time", "column")


def test_validate__takes_a_data_array() -> None:
    assert "luminance" in schema.validate(rendering().luminance.rename("anything"), "rendering")


WRONG: dict[str, tuple[Any, str, str]] = {
    "too few dims": (
        movie().isel(x=0),
        "movie",
        r"expected 'luminance' with dims .* add 'x' with .expand_dims",
    ),
    "too many dims": (movie().expand_dims("colour"), "movie", r"got \(colour, .*select one 'colour' with .isel"),
    "no samples": (movie().isel(sample=slice(0, 0)), "movie", "at least one of each dim.*none along sample"),
    "no frames": (movie().isel(time=slice(0, 0)), "movie", "none along time"),
    "integers": (movie().astype(np.int16), "movie", r"as float, got int16.*rescale=True"),
    "uint8": (movie().astype(np.uint8), "movie", "as float, got uint8"),
    "no time": (movie().drop_vars("time"), "movie", "expected coordinate 'time'"),
    "uneven time": (movie().assign_coords(time=[0, 0.1, 0.3]), "movie", r"uniform step, got steps from 0.1 s to 0.2 s"),
    "backward time": (movie().assign_coords(time=[0.2, 0.1, 0]), "movie", r"increasing.*sortby\('time'\)"),
    "nan time": (movie().assign_coords(time=[0, np.nan, 1]), "movie", "expected 'time' finite"),
    "half a lattice": (rendering().isel(column=slice(0, 5)), "rendering", "7 columns .*extent 1, got 5, which fill no"),
    "shuffled columns": (
        rendering().isel(column=[1, 0, 2, 3, 4, 5, 6]),
        "rendering",
        r"another order.*sortby\(\['u', 'v'\]",
    ),
    "twice a sample": (rendering().isel(sample=[0, 0]), "rendering", r"each sample once, got more than one of \[0\]"),
    "another kind": (movie(), "ensemble", "expected variable 'bias'.*got 'luminance'"),
    "no xarray": (np.zeros((2, 3)), "movie", "got ndarray: wrap the array with fx.stimuli.from_array"),
}


@pytest.mark.parametrize(("data", "kind", "message"), WRONG.values(), ids=WRONG)
def test_validate__says_what_is_wrong(data: Any, kind: str, message: str) -> None:
    with pytest.raises(schema.SchemaError, match=message):
        schema.validate(data, kind)


def test_validate__says_everything_at_once() -> None:
    wrong = rendering().isel(column=[1, 0, 2, 3, 4, 5, 6], sample=[0, 0]).assign_coords(time=[0, 0.1, 0.3])
    with pytest.raises(ValueError, match="not a rendering") as error:
        schema.validate(wrong, "rendering")
    assert str(error.value).count("\n- ") == 3


def test_validate__uint8_where_a_reader_scales() -> None:
    assert schema.validate(movie().astype(np.uint8), "movie", integer_luminance=True).luminance.dtype == np.uint8


def test_annotate__writes_units_on_a_copy() -> None:
    data = rendering()
    annotated = schema.annotate(data, "rendering")
    assert annotated.time.attrs["units"] == "s"
    assert annotated.luminance.attrs["long_name"].startswith("luminance")
    assert annotated.attrs[schema.KIND_ATTR] == "rendering"
    assert "units" not in data.time.attrs
    assert not data.attrs


@pytest.mark.parametrize("values", [[0.0, 1.0], [0.5], [-1e-7, 1 + 1e-7]])
def test_luminance_problems__none(values: list[float]) -> None:
    assert schema.luminance_problems(np.array(values)) == []


def test_luminance_problems__names_range_and_nan() -> None:
    nan, span = map(str, schema.luminance_problems(np.array([np.nan, -2, 255])))
    assert "NaN or infinity in 1 of 3" in nan
    assert "from -2 to 255" in span
    assert "rescale=True" in span


def test_time_step__of_one_frame() -> None:
    assert schema.time_step(rendering().isel(time=[1])) == 0.02
    with pytest.raises(schema.SchemaError, match=r"time.attrs\['step'\]"):
        schema.time_step(xr.Dataset(coords={"time": [0.0]}))


def test_time_step__of_a_stride_is_not_the_one_stated() -> None:
    assert schema.time_step(rendering().isel(time=slice(None, None, 2))) == pytest.approx(0.04)


def test_page__is_the_one_in_the_docs() -> None:
    assert (DOCS / "schema.md").read_text() == schema.page(), "run `python -m flyxr.schema > docs/schema.md`"


def test_coords__have_a_record_for_every_dim() -> None:
    for kind in schema.KINDS.values():
        assert set(kind.coords) <= set(schema.COORDS)
        assert {dim for variable in kind.variables for dim in variable.dims} <= set(schema.DIMS)
