"""Valid and invalid forms of a record."""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import flyxr as fx
from flyxr import provenance
from flyxr.selection import UnknownCellTypeError
from flyxr.testing import random_rendering, tiny_connectome

if TYPE_CHECKING:
    from pathlib import Path

CONNECTOME = tiny_connectome(extent=2)
MODELS = fx.sample_ensemble(2, seed=0, connectome=CONNECTOME)
TYPES = ["R", "L", "T"]


RENDERING = random_rendering()
ALL = fx.simulate(RENDERING, MODELS).response.load()


def simulate(record: Any, **options: Any) -> xr.DataArray:
    response = fx.simulate(RENDERING, MODELS, record=record, **options).response.load()
    assert isinstance(response, xr.DataArray)
    return response


def generator(*names: str) -> Any:
    return (name for name in names)


VALID: dict[str, tuple[Any, dict[str, Any]]] = {
    "text": ("T", {"cell_type": ["T"]}),
    "pattern": ("[LT]", {"cell_type": ["L", "T"]}),
    "two names": (["T", "R"], {"cell_type": ["T", "R"]}),
    "duplicates": (["T", "R", "T"], {"cell_type": ["T", "R"]}),
    "generator": (generator("T", "L"), {"cell_type": ["T", "L"]}),
    "set": ({"T"}, {"cell_type": ["T"]}),
    "DataArray": (CONNECTOME.cell_type[:2], {"cell_type": ["R", "L"]}),
    "NumPy": (np.array(["T", "L"]), {"cell_type": ["T", "L"]}),
    "mapping": (types.MappingProxyType({"cell_type": "T"}), {"cell_type": ["T"]}),
    "iterator in a dict": (
        {"cell_type": generator("T"), "column": iter([3, 1])},
        {"cell_type": ["T"], "column": [3, 1]},
    ),
    "a record": (fx.Record("T", column=[2, 2, 5]), {"cell_type": ["T"], "column": [2, 5]}),
    "one column": ({"column": 4}, {"column": [4]}),
    "NumPy column": ({"column": np.int8(4)}, {"column": [4]}),
    "range": ({"column": range(3)}, {"column": [0, 1, 2]}),
    "DataArray of columns": ({"column": ALL.column[2:4]}, {"column": [2, 3]}),
    "steps": ({"time": slice(0.01, 0.05, np.int64(2))}, {"time": [0.01, 0.03, 0.05]}),
    "empty": ({}, {}),
    "None": ({"cell_type": None, "column": None, "time": None}, {}),
}


@pytest.mark.parametrize(("record", "selection"), VALID.values(), ids=VALID)
def test_record__equals_a_selection_from_all(record: Any, selection: dict[str, Any]) -> None:
    response = simulate(record)
    expected = ALL.sel({dim: labels for dim, labels in selection.items() if dim != "time"})
    if "time" in selection:
        expected = expected.isel(time=np.rint(np.array(selection["time"]) * 100).astype(int))
    xr.testing.assert_equal(response, expected)


INVALID: dict[str, tuple[Any, str]] = {
    "backwards": ({"time": slice(None, None, -1)}, r"a slice in s \(its step in frames, at least 1\), got slice"),
    "step of zero": ({"time": slice(None, None, 0)}, "at least 1"),
    "fractional step": ({"time": slice(None, None, 0.5)}, "at least 1"),
    "text as time": ({"time": slice("a", None)}, "as a slice in s"),
    "NaN as time": ({"time": slice(np.nan, None)}, "as a slice in s"),
    "number as time": ({"time": 0.1}, "as a slice in s"),
    "no types": ([], "selects nothing: no cell types"),
    "exhausted iterator": (iter(()), "selects nothing: no cell types"),
    "no columns": ({"column": []}, "selects nothing: no columns"),
    "no frames": (
        {"time": slice(5, 6)},
        "selects nothing: no frame from 5.0 s to 6.0 s, time is from 0 s to 0.05 s",
    ),
    "number": (3, "expected record as 'all', 'central', names of cell types, or a dict or fx.Record .*, got 3"),
    "numbers": ([1, 2], "cell types in record as names"),
    "unknown key": ({"cells": "T"}, r"record with any of \['cell_type', 'column', 'time'\], got \['cells'\]"),
    "booleans": ({"column": [True]}, "columns in record as integers"),
    "fractions": ({"column": [0.5]}, "columns in record as integers"),
    "column name": ({"column": "middle"}, "columns in record as integers, or 'central', got 'middle'"),
    "slice of columns": ({"column": slice(0, 3)}, "columns in record as integers"),
    "outside the lattice": ({"column": [3, 19, -1]}, r"columns in record from 0 to 18, or 'central', got \[19, -1\]"),
}


@pytest.mark.parametrize("engine", ["stencil", "reference"])
@pytest.mark.parametrize(("record", "message"), INVALID.values(), ids=INVALID)
def test_record__invalid(tmp_path: Path, record: Any, message: str, engine: str) -> None:
    with pytest.raises(ValueError, match=message):
        simulate(record, engine=engine)
    with pytest.raises(ValueError, match=message):
        fx.sweep(RENDERING, MODELS, tmp_path / "r.zarr", record=record, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_record__unknown_cell_types() -> None:
    with pytest.raises(UnknownCellTypeError, match="got 'X'"):
        simulate(["T", "X"])


@given(
    st.lists(st.sampled_from(TYPES), min_size=1, max_size=5),
    st.lists(st.integers(0, 18), min_size=1, max_size=5),
    st.integers(1, 4),
    st.floats(-0.02, 0.05),
)
def test_record__any_order_and_repeats(types: list[str], columns: list[int], step: int, start: float) -> None:
    response = simulate({"cell_type": types, "column": columns, "time": slice(start, None, step)})
    frames = np.flatnonzero(ALL.time.values >= start - 1e-8)[::step]
    expected = ALL.sel(cell_type=list(dict.fromkeys(types)), column=list(dict.fromkeys(columns))).isel(time=frames)
    xr.testing.assert_equal(response, expected)


def test_record__matches_columns_by_label() -> None:
    data = RENDERING.assign_coords(column=np.arange(19)[::-1])
    response = fx.simulate(data, MODELS, record={"column": [18]}).response.load()
    np.testing.assert_array_equal(response.isel(column=0), ALL.isel(column=0))
    assert response.column.item() == 18
    assert (response.u.item(), response.v.item()) == (-2, 0)


def test_record__is_resolved_in_the_provenance() -> None:
    data = fx.simulate(RENDERING, MODELS, record={"cell_type": iter("TL"), "time": slice(0.01, None, 2)})
    assert provenance.steps(data)[-1]["arguments"]["record"] == {
        "cell_type": ["T", "L"],
        "column": "all",
        "time": [0.01, 0.05, 0.02],
    }


def test_record__is_a_value() -> None:
    assert fx.Record(["T", "T"], column="central") == fx.Record("T", "central")
    assert fx.Record() == fx.Record(time=slice(None))
