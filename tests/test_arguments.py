from __future__ import annotations

import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from flyxr.arguments import Arguments, as_float, as_int, as_seconds
from flyxr.errors import InputError

NUMBERS: list[Any] = [
    0.02,
    np.float32(0.02),
    np.float16(0.02),
    np.float64(0.02),
    np.array(0.02),
    np.array(0.02, np.float32),
    Fraction(1, 50),
    Decimal("0.02"),
    torch.tensor(0.02),
    xr.DataArray(np.float32(0.02)),
]
DURATIONS: list[Any] = [
    *NUMBERS,
    "20ms",
    "20 ms",
    "0.02s",
    np.timedelta64(20, "ms"),
    np.array(20, "timedelta64[ms]"),
    pd.Timedelta("20ms"),
    datetime.timedelta(milliseconds=20),
    xr.DataArray(np.timedelta64(20_000_000, "ns")),
]
NO_NUMBERS: list[Any] = [None, True, np.True_, "0.02", b"1", [0.02], np.array([0.02]), {}, 1j]
NO_NUMBERS += [pytest.param(object(), id="object")]


@pytest.mark.parametrize("value", NUMBERS, ids=repr)
def test_as_float__takes_every_number(value: Any) -> None:
    number = as_float(value)
    assert type(number) is float
    assert number == 0.02


@pytest.mark.parametrize("value", NO_NUMBERS, ids=repr)
def test_as_float__takes_nothing_else(value: Any) -> None:
    assert as_float(value) is None


@pytest.mark.parametrize("n", [24, 30, 50, 60, 75, 90, 93, 120, 144, 200, 360, 1000])
def test_as_float__takes_a_rounded_step_for_what_it_means(n: int) -> None:
    assert as_float(np.float32(1 / n)) == 1 / n


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_as_float__stays_within_the_rounding_of_the_type(value: float) -> None:
    number = as_float(np.float32(value))
    assert number is not None
    assert np.float32(number) == np.float32(value)


@pytest.mark.parametrize("value", DURATIONS, ids=repr)
def test_as_seconds__takes_every_duration(value: Any) -> None:
    assert as_seconds(value) == 0.02


@pytest.mark.parametrize("value", [*NO_NUMBERS, "20", "ms", "20 parsecs", np.timedelta64("NaT"), pd.NaT], ids=repr)
def test_as_seconds__takes_nothing_else(value: Any) -> None:
    assert as_seconds(value) is None


@pytest.mark.parametrize(
    "value", [3, np.int64(3), np.uint8(3), np.array(3), torch.tensor(3), xr.DataArray(3)], ids=repr
)
def test_as_int__takes_every_integer(value: Any) -> None:
    assert type(as_int(value)) is int
    assert as_int(value) == 3


@pytest.mark.parametrize("value", [3.0, "3", True, None, np.array([3]), np.float32(3)], ids=repr)
def test_as_int__takes_nothing_else(value: Any) -> None:
    assert as_int(value) is None


def test_arguments__raise_all_problems_at_once() -> None:
    check = Arguments("cannot make it")
    check.number("contrast", "high", least=0, most=1)
    check.duration("dt", "10")
    check.frame_rate("50")
    check.integer("n_samples", 1.5, least=1)
    check.seed(None)
    check.names("cell_type", 3)
    check.numbers("angles", np.zeros((2, 2)), "degrees")
    with pytest.raises(InputError) as caught:
        check.raise_problems()
    assert str(caught.value).splitlines() == [
        "cannot make it:",
        "- expected contrast as a number at least 0 and at most 1, got 'high'",
        "- expected dt as a duration above 0, in s, got '10': e.g. dt=0.01, or dt='10ms'",
        "- expected a positive frame_rate, in frames per second, got '50': e.g. frame_rate=30",
        "- expected n_samples as an integer of at least 1, got 1.5",
        "- expected seed as an integer of at least 0, got None: "
        "a fixed seed such as seed=0 makes the result repeatable",
        "- expected cell_type as one name or a list of them, got 3: e.g. cell_type=['T4c']",
        "- expected angles as one number or a list of them, in degrees, got an array of shape (2, 2)",
    ]


@pytest.mark.parametrize(
    "names",
    [
        ["T4c", "L1"],
        ("T4c", "L1", "T4c"),
        np.array(["T4c", "L1"]),
        xr.DataArray(["T4c", "L1"]),
        pd.Index(["T4c", "L1"]),
    ],
)
def test_names__takes_anything_that_iterates(names: Any) -> None:
    assert Arguments().names("cell_type", names) == ["T4c", "L1"]


@pytest.mark.parametrize("name", ["T4c", np.str_("T4c"), np.array("T4c"), xr.DataArray("T4c")], ids=repr)
def test_names__takes_a_scalar_as_one_name(name: Any) -> None:
    names = Arguments().names("cell_type", name)
    assert names == ["T4c"]
    assert type(names[0]) is str
