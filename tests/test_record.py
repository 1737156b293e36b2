"""What may be recorded, however it is written, and what of it is refused."""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import flyxr as fx
from flyxr import hexgrid, provenance, schema
from flyxr.selection import UnknownCellTypeError
from flyxr.testing import tiny_connectome

if TYPE_CHECKING:
    from pathlib import Path

CONNECTOME = tiny_connectome(extent=2)
MODELS = fx.sample_ensemble(2, seed=0, connectome=CONNECTOME)
TYPES = ["R", "L", "T"]


def rendering() -> xr.Dataset:
    values = np.random.default_rng(0).random((2, 6, 19), dtype=np.float32)
    coords = {"sample": [0, 1], "time": schema.time_coord(6, 0.01), **hexgrid.column_coords(2)}
    return xr.Dataset({"luminance": (("sample", "time", "column"), values)}, coords)


ALL = fx.simulate(rendering(), MODELS).response.load()


def record(given: Any, **options: Any) -> xr.DataArray:
    response = fx.simulate(rendering(), MODELS, record=given, **options).response.load()
    assert isinstance(response, xr.DataArray)
    return response


def once(*names: str) -> Any:
    return (name for name in names)


SAME: dict[str, tuple[Any, dict[str, Any]]] = {
    "text": ("T", {"cell_type": ["T"]}),
    "pattern": ("[LT]", {"cell_type": ["L", "T"]}),
    "order is kept": (["T", "R"], {"cell_type": ["T", "R"]}),
    "twice is once": (["T", "R", "T"], {"cell_type": ["T", "R"]}),
    "one-shot iterator": (once("T", "L"), {"cell_type": ["T", "L"]}),
    "set": ({"T"}, {"cell_type": ["T"]}),
    "labelled": (CONNECTOME.cell_type[:2], {"cell_type": ["R", "L"]}),
    "NumPy": (np.array(["T", "L"]), {"cell_type": ["T", "L"]}),
    "mapping": (types.MappingProxyType({"cell_type": "T"}), {"cell_type": ["T"]}),
    "iterator in a dict": ({"cell_type": once("T"), "column": iter([3, 1])}, {"cell_type": ["T"], "column": [3, 1]}),
    "a record": (fx.Record("T", column=[2, 2, 5]), {"cell_type": ["T"], "column": [2, 5]}),
    "one column": ({"column": 4}, {"column": [4]}),
    "NumPy column": ({"column": np.int8(4)}, {"column": [4]}),
    "range": ({"column": range(3)}, {"column": [0, 1, 2]}),
    "columns of data": ({"column": ALL.column[2:4]}, {"column": [2, 3]}),
    "steps": ({"time": slice(0.01, 0.05, np.int64(2))}, {"time": [0.01, 0.03, 0.05]}),
    "nothing said": ({}, {}),
    "None": ({"cell_type": None, "column": None, "time": None}, {}),
}


@pytest.mark.parametrize(("given_as", "selected"), SAME.values(), ids=SAME)
def test_record__is_what_a_selection_of_all_is(given_as: Any, selected: dict[str, Any]) -> None:
    got = record(given_as)
    expected = ALL.sel({dim: labels for dim, labels in selected.items() if dim != "time"})
    if "time" in selected:
        expected = expected.isel(time=np.rint(np.array(selected["time"]) * 100).astype(int))
    xr.testing.assert_equal(got, expected)


REFUSED: dict[str, tuple[Any, str]] = {
    "backwards": ({"time": slice(None, None, -1)}, r"a slice in s \(its step in frames, from 1 up\), got slice"),
    "step of none": ({"time": slice(None, None, 0)}, "from 1 up"),
    "half a step": ({"time": slice(None, None, 0.5)}, "from 1 up"),
    "time that is text": ({"time": slice("a", None)}, "as a slice in s"),
    "time that is NaN": ({"time": slice(np.nan, None)}, "as a slice in s"),
    "a time": ({"time": 0.1}, "as a slice in s"),
    "no types": ([], "selects nothing: no cell types"),
    "an iterator at its end": (iter(()), "selects nothing: no cell types"),
    "no columns": ({"column": []}, "selects nothing: no columns"),
    "no frames": ({"time": slice(5, 6)}, "selects nothing: no frame from 5.0 s to 6.0 s, time is from 0 s to 0.05 s"),
    "a number": (3, "expected record as 'all', 'central', names of cell types, or a dict or fx.Record .*, got 3"),
    "numbers": ([1, 2], "cell types in record as names"),
    "unknown key": ({"cells": "T"}, r"record with any of \['cell_type', 'column', 'time'\], got \['cells'\]"),
    "truth values": ({"column": [True]}, "columns in record as integers"),
    "fractions": ({"column": [0.5]}, "columns in record as integers"),
    "a name of a column": ({"column": "middle"}, "columns in record as integers, or 'central', got 'middle'"),
    "a slice of columns": ({"column": slice(0, 3)}, "columns in record as integers"),
    "out of the lattice": ({"column": [3, 19, -1]}, r"columns in record from 0 to 18, or 'central', got \[19, -1\]"),
}


@pytest.mark.parametrize("engine", ["stencil", "reference"])
@pytest.mark.parametrize(("given_as", "message"), REFUSED.values(), ids=REFUSED)
def test_record__that_makes_no_sense_is_refused(tmp_path: Path, given_as: Any, message: str, engine: str) -> None:
    if given_as is REFUSED["an iterator at its end"][0]:
        given_as = iter(())
    with pytest.raises(ValueError, match=message):
        record(given_as, engine=engine)
    with pytest.raises(ValueError, match=message):
        fx.sweep(rendering(), MODELS, tmp_path / "r.zarr", record=given_as, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_record__unknown_types_name_the_nearest() -> None:
    with pytest.raises(UnknownCellTypeError, match="got 'X'"):
        record(["T", "X"])


@given(
    st.lists(st.sampled_from(TYPES), min_size=1, max_size=5),
    st.lists(st.integers(0, 18), min_size=1, max_size=5),
    st.integers(1, 4),
    st.floats(-0.02, 0.05),
)
def test_record__any_order_and_repeats(types: list[str], columns: list[int], step: int, start: float) -> None:
    got = record({"cell_type": types, "column": columns, "time": slice(start, None, step)})
    frames = np.flatnonzero(ALL.time.values >= start - 1e-8)[::step]
    expected = ALL.sel(cell_type=list(dict.fromkeys(types)), column=list(dict.fromkeys(columns))).isel(time=frames)
    xr.testing.assert_equal(got, expected)


def test_record__columns_go_by_label() -> None:
    data = rendering().assign_coords(column=np.arange(19)[::-1])
    got = fx.simulate(data, MODELS, record={"column": [18]}).response.load()
    np.testing.assert_array_equal(got.isel(column=0), ALL.isel(column=0))
    assert got.column.item() == 18
    assert (got.u.item(), got.v.item()) == (-2, 0)


def test_record__what_was_resolved_is_in_the_provenance() -> None:
    data = fx.simulate(rendering(), MODELS, record={"cell_type": iter("TL"), "time": slice(0.01, None, 2)})
    assert provenance.steps(data)[-1]["arguments"]["record"] == {
        "cell_type": ["T", "L"],
        "column": "all",
        "time": [0.01, 0.05, 0.02],
    }


def test_record__is_a_value() -> None:
    assert fx.Record(["T", "T"], column="central") == fx.Record("T", "central")
    assert fx.Record() == fx.Record(time=slice(None))
