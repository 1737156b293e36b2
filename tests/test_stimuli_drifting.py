"""Drifting gratings: against their formula, rotated with the lattice, and rejected arguments."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import flyxr as fx
from flyxr import hexgrid, provenance, schema
from flyxr.stimuli import drifting


@given(st.floats(0, 360), st.floats(0.005, 0.09), st.floats(0, 20), st.floats(0.1, 1))
def test_gratings__rotate_with_the_lattice(angle: float, spatial: float, temporal: float, contrast: float) -> None:
    rendering = fx.stimuli.gratings(
        [angle, angle + 60], spatial, temporal, contrast, t_pre=0, t_post=0, t_stim=0.2, dt=0.02, extent=4
    )
    luminance, rotated_luminance = rendering.luminance.values
    u, v = hexgrid.columns(4)
    rotated = hexgrid.column_index(-v, u + v, 4)  # by 60 degrees, counter-clockwise
    np.testing.assert_allclose(luminance, rotated_luminance[:, rotated], atol=1e-5)


@pytest.mark.parametrize(("angle", "axis", "sign"), [(0, "x", 1), (90, "y", 1), (180, "x", -1), (270, "y", -1)])
def test_gratings__drift_as_the_docstring_says(angle: float, axis: str, sign: int) -> None:
    rendering = fx.stimuli.gratings(angle, 1 / 40, 1, 0.5, dt=0.01)
    luminance = rendering.luminance.sel(time=slice(0, 1.99)).values[0]
    distance = rendering[f"{axis}_column"].values * 5.8 * sign
    time = rendering.time.sel(time=slice(0, 1.99)).values[:, None]
    np.testing.assert_allclose(luminance, 0.5 + 0.25 * np.sin(2 * np.pi * (distance / 40 - time)), atol=1e-6)
    assert float(rendering.speed.item()) == pytest.approx(40 / 5.8)
    is_grey = (rendering.time < 0) | (rendering.time >= 2 - 1e-9)
    assert (rendering.luminance.values[0, is_grey.values] == 0.5).all()


def test_gratings__order_of_samples() -> None:
    rendering = fx.stimuli.gratings([0, 90], [0.02, 0.04], [1, 2], [0.5, 1], extent=2, dt=0.02)
    assert rendering.sizes["sample"] == 16
    assert rendering.angle.values.tolist() == [0] * 8 + [90] * 8
    assert rendering.contrast.values.tolist() == [0.5, 1] * 8
    assert rendering.temporal_frequency.attrs["units"] == "Hz"
    assert provenance.steps(rendering)[0]["arguments"]["spatial_frequencies"] == [0.02, 0.04]


@pytest.mark.parametrize("angle", [0, 15, 30, 45, 90, 200])
def test_highest_frequency__is_as_near_to_zero_as_to_a_reciprocal_vector(angle: float) -> None:
    """A wave and one shifted by a reciprocal vector are the same on the columns, which show the longer of the two."""
    frequency = float(drifting._highest_frequency(np.array([angle]))[0]) * 5.8  # cycles per column
    wave = frequency * np.exp(1j * np.radians(angle))
    reciprocal = 2 / np.sqrt(3) * np.exp(1j * np.radians(60 * np.arange(6)))
    nearest = np.abs(wave - reciprocal).min()
    assert nearest == pytest.approx(frequency)
    x, y = hexgrid.positions(*hexgrid.columns(3))
    phases = np.real(np.conj(reciprocal)[:, None] * (x + 1j * y))
    np.testing.assert_allclose(phases, phases.round(), atol=1e-9)


@pytest.mark.parametrize(
    ("arguments", "patterns"),
    [
        ({"temporal_frequencies": [1, 50], "dt": 0.01}, [r"dt=0.01 s undersamples temporal_frequencies \[50.0\] Hz"]),
        (
            {"spatial_frequencies": 0.11, "angles": [0, 30]},
            ["undersample spatial_frequencies 0.11 at angle 0", "0.09954"],
        ),
        ({"spatial_frequencies": [0, 0.05]}, ["spatial_frequencies as numbers above 0"]),
        ({"contrasts": [0, 0.5], "angles": np.inf}, ["contrasts as numbers above 0 and at most 1", "angles"]),
        ({"contrasts": 2}, ["contrasts", "at most 1"]),
        ({"t_stim": 0}, ["t_stim as a duration above 0"]),
        ({"t_stim": 0.01, "dt": 0.1, "temporal_frequencies": 0}, ["t_stim of at least one frame"]),
        ({"temporal_frequencies": [], "dt": np.nan, "extent": 0}, ["temporal_frequencies", "dt", "extent"]),
    ],
)
def test_bad_input__is_named(arguments: dict[str, Any], patterns: list[str]) -> None:
    with pytest.raises(schema.SchemaError) as error:
        fx.stimuli.gratings(**arguments)
    for pattern in patterns:
        assert error.match(pattern)
    if arguments.get("spatial_frequencies") == 0.11:
        assert "at angle 30" not in str(error.value)


def test_gratings__are_lazy(counting_scheduler: Any) -> None:
    rendering = fx.stimuli.gratings(extent=3)
    schema.validate(rendering, "rendering")
    assert counting_scheduler.calls == 0
    assert rendering.luminance.chunks is not None
