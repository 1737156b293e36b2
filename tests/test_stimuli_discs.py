"""Flashes and impulses.

Compared with flyvis 1.2.0: flashes (exact, every sample, the frames and columns stored). Not compared: impulses, of
which no reference arrays exist.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import flyxr as fx
from flyxr import hexgrid, provenance, schema

if TYPE_CHECKING:
    from collections.abc import Callable


def distance(rendering: Any) -> np.ndarray:
    u, v = rendering.u.values, rendering.v.values
    return np.maximum.reduce([np.abs(u), np.abs(v), np.abs(u + v)])


def test_flashes__equal_flyvis(golden: Callable[[str], dict[str, np.ndarray]]) -> None:
    arrays = golden("stim_flashes.npz")
    made = json.loads(str(arrays["kwargs_json"]))
    intensities = made.pop("dynamic_range")
    rendering = fx.stimuli.flashes(intensities=intensities, **made)
    luminance = rendering.luminance.values
    assert list(luminance.shape) == arrays["shape"].tolist()
    assert arrays["arg_df_columns"].tolist() == ["baseline", "intensity", "radius"]
    np.testing.assert_array_equal(np.stack([rendering.intensity, rendering.radius], 1), arrays["arg_df"][:, 1:])
    np.testing.assert_array_equal(luminance[:, arrays["frames_index"]], arrays["frames"])
    np.testing.assert_array_equal(luminance[:, :, 360], arrays["central_hexal"])
    np.testing.assert_array_equal(luminance.sum(axis=2, dtype=float), arrays["frame_sums"])
    assert float(rendering.time[100]) == 0


@given(st.integers(0, 6), st.integers(-1, 8), st.floats(0, 1), st.floats(0, 1))
def test_flashes__are_discs_at_every_extent(extent: int, radius: int, intensity: float, baseline: float) -> None:
    rendering = fx.stimuli.flashes(radius, intensity, baseline=baseline, extent=extent, dt=0.1)
    inside = (distance(rendering) <= radius) | (radius == -1)
    during = rendering.luminance.sel(time=slice(-1e-9, 1 - 1e-9)).values[0]
    assert during.shape == (10, hexgrid.n_columns(extent))
    np.testing.assert_array_equal(
        during, np.where(inside, np.float32(intensity), np.float32(baseline))[None].repeat(10, 0)
    )
    outside = rendering.luminance.values[0, [0, 9, 20, 29]]
    np.testing.assert_array_equal(outside, np.float32(baseline))


def test_flashes__alternate() -> None:
    rendering = fx.stimuli.flashes(-1, 1, alternations=(0, 0, 1, 0, 1), t_stim=0.2, t_pre=0.4, dt=0.1, extent=1)
    expected = np.repeat([0.5, 1, 0.5, 1], [8, 2, 4, 2])
    np.testing.assert_array_equal(rendering.luminance[0, :, 3], expected)
    np.testing.assert_allclose(rendering.time[[0, 8]], [-0.8, 0], atol=1e-12)
    assert provenance.steps(rendering)[0]["operation"] == "flashes"


def test_impulses__light_single_columns() -> None:
    rendering = fx.stimuli.impulses([(0, 0), (1, -1), 5], [0.25, 1], duration=0.03, dt=0.01, extent=1)
    assert rendering.sizes["sample"] == 6
    u, v = hexgrid.columns(1)
    for sample in range(6):
        one = rendering.isel(sample=sample)
        lit = (u == int(one.u_impulse)) & (v == int(one.v_impulse))
        assert lit.sum() == 1
        shown = one.luminance.values
        np.testing.assert_array_equal(shown[100:103, lit], np.float32(one.intensity))
        assert (shown[100:103, ~lit] == 0.5).all()
        assert (shown[:100] == 0.5).all()
        assert (shown[103:] == 0.5).all()
    assert rendering.u_impulse.values.tolist() == [0, 0, 1, 1, 1, 1]
    assert rendering.v_impulse.values.tolist() == [0, 0, -1, -1, -1, -1]
    assert set(rendering.radius.values) == {0}


def test_impulses__names_of_positions() -> None:
    whole = fx.stimuli.impulses("whole", 1, extent=2, dt=0.01)
    assert (whole.luminance.sel(time=0) == 1).all()
    assert (whole.luminance.isel(time=101) == 0.5).all()
    assert whole.radius.item() == -1
    assert fx.stimuli.impulses("all", 1, extent=3).sizes["sample"] == 37
    within = fx.stimuli.impulses("within 1", 1, extent=3)
    assert within.sizes["sample"] == 7
    assert (within.luminance.sel(time=0).values.argmax(axis=1) == np.flatnonzero(distance(within) <= 1)).all()
    central = fx.stimuli.impulses(extent=2)
    assert central.intensity.values.tolist() == [0, 1]
    assert central.luminance.sel(time=0).values[:, 9].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("call", "patterns"),
    [
        (
            lambda: fx.stimuli.flashes(radius=[], intensities=[0, np.nan]),
            ["radius", "empty list", "intensities", "nan"],
        ),
        (lambda: fx.stimuli.flashes(radius=1.5), ["whole columns", "1.5"]),
        (lambda: fx.stimuli.flashes(radius=-2), ["radius as numbers at least -1", "-2"]),
        (lambda: fx.stimuli.flashes(intensities=2), ["intensities", "at most 1"]),
        (
            lambda: fx.stimuli.flashes(dt=0, extent=-1),
            ["dt as a duration above 0", "extent as an integer of at least 0"],
        ),
        (lambda: fx.stimuli.flashes(dt=0.5, t_stim=0.1), ["t_stim of at least one frame", "dt=0.5 s undersamples"]),
        (lambda: fx.stimuli.flashes(alternations=(1, 0)), ["alternations", "start with 0"]),
        (lambda: fx.stimuli.flashes(alternations=(0, 2)), ["alternations"]),
        (lambda: fx.stimuli.flashes(alternations=()), ["alternations"]),
        (lambda: fx.stimuli.flashes("six"), ["radius", "'six'"]),
        (lambda: fx.stimuli.flashes(dt=[0.1, 0.2]), ["dt as a duration"]),
        (lambda: fx.stimuli.impulses((9, 9), extent=3), ["columns of a lattice of extent 3", r"\(9, 9\)"]),
        (lambda: fx.stimuli.impulses([0, 37], extent=3), ["labels from 0 to 36", r"\[37\]"]),
        (lambda: fx.stimuli.impulses([]), ["empty list"]),
        (lambda: fx.stimuli.impulses("centre"), ["'central', 'whole'", "'centre'"]),
        (lambda: fx.stimuli.impulses(duration=0.001, dt=0.01), ["duration of at least one frame", "undersamples"]),
        (lambda: fx.stimuli.impulses(t_pre=-1, dt=np.nan), ["t_pre as a duration at least 0", "dt", "nan"]),
    ],
)
def test_bad_input__is_named(call: Callable[[], Any], patterns: list[str]) -> None:
    with pytest.raises(schema.SchemaError) as error:
        call()
    for pattern in patterns:
        assert error.match(pattern)


@pytest.mark.parametrize("make", [fx.stimuli.flashes, fx.stimuli.impulses])
def test_stimuli__are_lazy(make: Any, counting_scheduler: Any) -> None:
    rendering = make(extent=3)
    schema.validate(rendering, "rendering")
    assert counting_scheduler.calls == 0
    assert rendering.luminance.chunks is not None
    assert rendering.luminance.dtype == np.float32
