"""Numbers of any type that enter stimuli and eyes, and errors for all that is no number."""

from __future__ import annotations

import json
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import flyxr as fx
from flyxr import provenance
from flyxr.errors import FlyxrError
from flyxr.eye import temporal_sample_indices
from flyxr.testing import noise_rendering, random_movie

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

S = fx.stimuli
SMALL: dict[str, tuple[Callable[..., xr.Dataset], dict[str, Any]]] = {
    "flashes": (S.flashes, {"radius": 1, "t_stim": 1.0, "t_pre": 1.0, "dt": 0.1, "extent": 2}),
    "impulses": (S.impulses, {"duration": 0.1, "t_pre": 0.5, "t_post": 0.5, "dt": 0.1, "extent": 2}),
    "moving_edges": (
        S.moving_edges,
        {"angles": 0.0, "speeds": 5.0, "t_pre": 0.5, "t_post": 0.5, "dt": 0.1, "extent": 2, "height": 90.0},
    ),
    "moving_bars": (
        S.moving_bars,
        {"angles": 0.0, "widths": 9.0, "speeds": 5.0, "intensities": 1.0, "dt": 0.1, "extent": 2},
    ),
    "gratings": (
        S.gratings,
        {"angles": 0.0, "spatial_frequencies": 0.03, "contrasts": 0.5, "t_stim": 0.5, "dt": 0.1, "extent": 2},
    ),
    "natural_motion": (
        S.natural_motion,
        {"angles": 0.0, "speeds": 5.0, "seed": 3, "n_crops": 1, "pixels_per_column": 4.0, "dt": 0.1, "extent": 1},
    ),
    "moving_digits": (
        S.moving_digits,
        {"n_samples": 2, "seed": 3, "n_frames": 3, "size": 24, "n_digits": 1, "frame_rate": 20.0, "speed": 2.0},
    ),
    "random_walk_of_blocks": (
        S.random_walk_of_blocks,
        {"n_blocks": 2, "block_size": 4, "noise_std": 0.1, "step_size": 2, "seed": 3, "frame_rate": 20.0}
        | {"dataset_size": (1, 2, 16, 16), "p_center_attraction": 0.25},
    ),
}
DURATIONS = {"dt", "duration", "t_pre", "t_post", "t_stim"}


def other_types(name: str, value: Any) -> list[Any]:
    if isinstance(value, tuple):
        return [list(value), np.array(value), iter(value), xr.DataArray(np.array(value))]
    if isinstance(value, int):
        return [np.int64(value), np.uint8(value), np.array(value), xr.DataArray(value)]
    numbers = [np.float32(value), np.float64(value), np.array(value), Fraction(str(value)), Decimal(str(value))]
    if name not in DURATIONS:
        return numbers
    milliseconds = round(value * 1000)
    return [
        *numbers,
        f"{milliseconds}ms",
        timedelta(milliseconds=milliseconds),
        np.timedelta64(milliseconds, "ms"),
        pd.Timedelta(milliseconds, "ms"),
    ]


@pytest.mark.parametrize(("stimulus", "name"), [(stimulus, name) for stimulus in SMALL for name in SMALL[stimulus][1]])
def test_stimuli__take_numbers_of_any_type(stimulus: str, name: str) -> None:
    function, arguments = SMALL[stimulus]
    expected = function(**arguments)
    recorded = provenance.steps(expected)[-1]["arguments"]
    assert json.loads(json.dumps(recorded)) == recorded
    for value in other_types(name, arguments[name]):
        made = function(**(arguments | {name: value}))
        assert provenance.steps(made)[-1]["arguments"] == recorded
        xr.testing.assert_equal(made.drop_vars("luminance"), expected.drop_vars("luminance"))
    xr.testing.assert_equal(made.luminance, expected.luminance)


@pytest.mark.parametrize(("stimulus", "name"), [(stimulus, name) for stimulus in SMALL for name in SMALL[stimulus][1]])
@pytest.mark.parametrize("value", ["many", True, np.nan, b"1", {"a": 1}, object(), [[1.0]]])
def test_stimuli__refuse_what_is_no_number(stimulus: str, name: str, value: Any) -> None:
    function, arguments = SMALL[stimulus]
    with pytest.raises(FlyxrError, match=name):
        function(**(arguments | {name: value}))


@pytest.mark.parametrize(
    ("stimulus", "name"),
    [
        (stimulus, name)
        for stimulus in SMALL
        for name in SMALL[stimulus][1]
        if (stimulus, name) != ("impulses", "duration")
    ],
)
def test_stimuli__refuse_none(stimulus: str, name: str) -> None:
    function, arguments = SMALL[stimulus]
    with pytest.raises(FlyxrError, match=name):
        function(**(arguments | {name: None}))


@pytest.mark.parametrize("position", [None, 2.5, "middle", object(), [(0, 0, 0)], [[0.5, 0]], {}])
def test_impulses__bad_position(position: Any) -> None:
    with pytest.raises(FlyxrError, match="expected position"):
        S.impulses(position, extent=2)


@pytest.mark.parametrize("alternations", [None, "010", [[0, 1]], [0.5, 1], 1])
def test_flashes__bad_alternations(alternations: Any) -> None:
    with pytest.raises(FlyxrError, match="expected alternations"):
        S.flashes(alternations=alternations, extent=2)


@pytest.mark.parametrize("photographs", [None, 3, [], ["china", 3]])
def test_natural_motion__bad_photographs(photographs: Any) -> None:
    with pytest.raises(FlyxrError, match="expected photographs"):
        S.natural_motion(photographs=photographs)


def test_random_walk_of_blocks__seed_is_limited() -> None:
    with pytest.raises(FlyxrError, match="seed up to 4294967295"):
        S.random_walk_of_blocks(seed=2**32)


@pytest.mark.parametrize("dt", [1 / 60, np.float32(1 / 60), Fraction(1, 60)])
def test_time_step__of_low_precision_gives_the_same_frames(dt: Any) -> None:
    flashes = S.flashes(dt=dt, t_stim=1.0, t_pre=1.0, extent=1)
    assert flashes.sizes["time"] == 180
    np.testing.assert_array_equal(flashes.time, S.flashes(dt=1 / 60, t_stim=1.0, t_pre=1.0, extent=1).time)
    assert fx.resample(random_movie(1, 90, 8, 8, frame_rate=30), dt).sizes["time"] == 180
    frames = np.full((1, 30, 8, 8), 0.5)
    np.testing.assert_array_equal(S.from_array(frames, dt=dt).time, S.from_array(frames, dt=1 / 60).time)


@pytest.mark.parametrize("frame_rate", [np.float32(30), np.int64(30), np.array(30.0), Fraction(30), Decimal(30)])
def test_frame_rate__of_any_type(frame_rate: Any, tmp_path: Path) -> None:
    frames = np.full((1, 3, 8, 8), 0.5)
    xr.testing.assert_identical(S.from_array(frames, frame_rate), S.from_array(frames, 30))
    np.save(tmp_path / "few.npy", np.zeros((3, 1, 8, 8), np.uint8))
    movie = S.moving_mnist(tmp_path / "few.npy", frame_rate=frame_rate, sample_chunk=np.int64(1))
    np.testing.assert_array_equal(movie.time, np.arange(3) * (1 / 30))
    np.testing.assert_array_equal(temporal_sample_indices(3, frame_rate, 0.01), temporal_sample_indices(3, 30, 0.01))


@pytest.mark.parametrize(
    "dt", ["10ms", "0.01 s", timedelta(milliseconds=10), pd.Timedelta("10ms"), np.float32(0.01), Decimal("0.01")]
)
def test_resample__takes_durations(dt: Any) -> None:
    resampled = fx.resample(noise_rendering(dt=0.02), dt)
    xr.testing.assert_identical(resampled, fx.resample(noise_rendering(dt=0.02), 0.01))
    assert provenance.steps(resampled)[-1]["arguments"] == {"dt": 0.01}


@pytest.mark.parametrize("dt", ["10", "fast", None, True, 0, -1, np.nan, [0.01, 0.02]])
def test_resample__refuses_what_is_no_duration(dt: Any) -> None:
    with pytest.raises(FlyxrError, match="expected dt as a duration above 0"):
        fx.resample(noise_rendering(), dt)


@pytest.mark.parametrize("eye", [fx.BoxEye, fx.HexEye])
@pytest.mark.parametrize("convert", [np.int64, np.uint8, np.array])
def test_eyes__take_integers_of_any_type(eye: Any, convert: Any) -> None:
    assert eye(convert(2), convert(5)) == eye(2, 5)
    assert type(eye(convert(2)).extent) is int
    operator = eye(2, 5).operator(convert(16), convert(17))
    assert operator is eye(2, 5).operator(16, 17)
    column = xr.DataArray(np.ones(19), dims="column")
    assert eye(2, 5).backproject(column, convert(16), convert(17)).shape == (16, 17)


@pytest.mark.parametrize("eye", [fx.BoxEye, fx.HexEye])
@pytest.mark.parametrize("value", [None, "2", True, 2.0, -1, np.nan])
def test_eyes__refuse_what_is_no_integer(eye: Any, value: Any) -> None:
    for call in (
        lambda: eye(extent=value),
        lambda: eye(kernel_size=value),
        lambda: eye(2, 5).operator(value, 16),
        lambda: eye(2, 5).illustrate(width=value) if value is not None else eye(value),
    ):
        with pytest.raises(FlyxrError, match=r"expected (extent|kernel_size|height|width) as an integer"):
            call()


@pytest.mark.parametrize("filter", [None, 3, ["mean"], "max"])
def test_eyes__unknown_filter(filter: Any) -> None:
    with pytest.raises(FlyxrError, match="expected filter as one of"):
        fx.BoxEye(2, 5).render(random_movie(1, 1, 8, 8), filter)
