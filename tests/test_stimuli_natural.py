"""Natural photographs in motion: their true flow against the luminance, and rejected arguments."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import flyxr as fx
from flyxr import hexgrid, schema
from flyxr.stimuli import natural

MOTIONS = [
    natural._Motion(angle=0, speed=4),
    natural._Motion(angle=125, speed=9),
    natural._Motion(rotation_speed=60),
    natural._Motion(rotation_speed=-25),
    natural._Motion(expansion_rate=0.7),
    natural._Motion(expansion_rate=-0.7),
]


def smooth_picture() -> np.ndarray:
    y, x = np.mgrid[:427, :640]
    return 0.5 + 0.25 * np.sin(x / 30 + 0.5) + 0.2 * np.cos(y / 25 - x / 60)


def render(motion: natural._Motion, points: np.ndarray, elapsed: np.ndarray) -> np.ndarray:
    return natural._view(smooth_picture(), np.array([210.0, 320.0]), motion, points, elapsed, 8.0)


@pytest.mark.parametrize("motion", MOTIONS, ids=lambda motion: motion.kind)
def test_flow__keeps_brightness_constant(motion: natural._Motion) -> None:
    """dL/dt + flow . grad L = 0, by central differences on a smooth picture."""
    points, step, time = natural._points(6), 0.25, np.array([0.3])
    gradient_x, gradient_y = (
        (render(motion, points + shift, time) - render(motion, points - shift, time)) / (2 * step)
        for shift in (step, step * 1j)
    )
    change = (render(motion, points, time + 0.01) - render(motion, points, time - 0.01)) / 0.02
    flow = motion.flow(points)
    advection = flow.real * gradient_x + flow.imag * gradient_y
    assert np.abs(change).max() > 0.1
    assert np.abs(change + advection).max() < 0.03 * np.abs(change).max()


@pytest.mark.parametrize("motion", MOTIONS, ids=lambda motion: motion.kind)
def test_flow__moves_points_of_the_photograph(motion: natural._Motion) -> None:
    """A point in front of a column moves along the flow."""
    points, dt, time = natural._points(5), 1e-5, np.array([0.4])
    moved = points + motion.flow(points) * dt
    np.testing.assert_allclose(motion.source(moved, time + dt), motion.source(points, time), atol=1e-7)


def test_natural_motion__translation_shifts_columns() -> None:
    """At one column per frame downward, a column sees the previous frame of its neighbour above."""
    rendering = fx.stimuli.natural_motion(
        270, 10.0, (), (), photographs="china", dt=0.1, t_stim=0.5, extent=4, pixels_per_column=8
    )
    luminance = rendering.luminance.values[0]
    u, v = hexgrid.columns(4)
    above = hexgrid.column_index(u - 1, v, 4)
    np.testing.assert_allclose(luminance[1:, above >= 0], luminance[:-1, above[above >= 0]], atol=1e-5)
    flow = rendering.flow.values[0]
    np.testing.assert_allclose(flow, np.broadcast_to([0, -10], flow.shape), atol=1e-5)
    assert luminance.std() > 0.02


def test_natural_motion__rotation_and_looming_are_about_the_middle() -> None:
    rendering = fx.stimuli.natural_motion(
        (), 5.0, 60, 0.5, photographs="flower", dt=0.1, t_stim=1.0, t_post=0.1, extent=4
    )
    rotating, looming = rendering.luminance.values
    u, v = hexgrid.columns(4)
    rotated = hexgrid.column_index(-v, u + v, 4)  # by 60 degrees counter-clockwise, after 1 s
    np.testing.assert_allclose(rotating[-1, rotated], rotating[0], atol=1e-5)
    assert np.ptp(looming[:, hexgrid.n_columns(4) // 2]) < 0.1
    x, y = rendering.x_column.values, rendering.y_column.values
    np.testing.assert_allclose(rendering.flow[0, 3], np.radians(60) * np.stack([-y, x], -1), atol=1e-5)
    np.testing.assert_allclose(rendering.flow[1, 3], 0.5 * np.stack([x, y], -1), atol=1e-5)
    assert (rendering.flow.values[:, -1] == 0).all()


def test_natural_motion__acceptance_is_the_same_at_every_magnification() -> None:
    """A photograph of twice the size equals one with half the pixels per column."""
    picture, points, time = smooth_picture(), natural._points(4), np.array([0.0, 0.2])
    looming = natural._Motion(expansion_rate=np.log(2) / 0.2)
    center = np.array([210.0, 320.0])
    grown = natural._view(picture, center, looming, points, time, 4.0)[1]
    expected = natural._view(picture, center, natural._Motion(angle=0, speed=1), points, time[:1], 2.0)[0]
    np.testing.assert_allclose(grown, expected, atol=1e-4)


def test_natural_motion__stands_still_before_and_after() -> None:
    rendering = fx.stimuli.natural_motion(photographs="china", t_pre=0.1, t_post=0.1, t_stim=0.2, dt=0.02, extent=3)
    is_still = (rendering.time.values < -1e-9) | (rendering.time.values > 0.2 - 1e-9)
    assert is_still.sum() == 10
    luminance, flow = rendering.luminance.values, rendering.flow.values
    assert (flow[:, is_still] == 0).all()
    assert (np.abs(flow[:, ~is_still]).max(axis=(1, 2, 3)) > 0).all()
    assert (luminance[:, :5] == luminance[:, :1]).all()
    assert (luminance[:, 15:] == luminance[:, 15:16]).all()
    assert (np.abs(np.diff(luminance[:, 5:15], axis=1)).max(axis=(1, 2)) > 0).all()
    # the flow of a frame leads to the next frame
    assert (luminance[:, 5] == luminance[:, 4]).all()


def test_natural_motion__samples() -> None:
    rendering = fx.stimuli.natural_motion([0, 90], [4, 8], 30, (), n_crops=2, dt=0.05, extent=2)
    assert rendering.sizes["sample"] == 2 * 2 * 5
    assert rendering.motion.values[:5].tolist() == ["translation"] * 4 + ["rotation"]
    assert rendering.photograph.values.tolist() == ["china"] * 10 + ["flower"] * 10
    assert rendering.crop.values[:10].tolist() == [0] * 5 + [1] * 5
    np.testing.assert_array_equal(rendering.speed[:5], [4, 8, 4, 8, np.nan])
    luminance = rendering.luminance.values
    assert luminance.min() >= 0
    assert luminance.max() <= 1
    assert (luminance[:5, 0] == luminance[0, 0]).all()  # the same crop in all motions
    assert not (luminance[5, 0] == luminance[0, 0]).all()
    fewer = fx.stimuli.natural_motion([0, 90], [4, 8], 30, (), n_crops=1, dt=0.05, extent=2)
    np.testing.assert_array_equal(fewer.luminance[:5], luminance[:5])
    other_seed = fx.stimuli.natural_motion([0, 90], [4, 8], 30, (), n_crops=1, seed=1, dt=0.05, extent=2)
    assert not (other_seed.luminance.values[:5] == luminance[:5]).all()


def test_natural_motion__is_resampled_simulated_and_saved(tmp_path: Any, counting_scheduler: Any) -> None:
    rendering = fx.stimuli.natural_motion(0, 5, (), (), photographs="china", t_stim=0.1, dt=0.02)
    schema.validate(rendering, "rendering")
    resampled = fx.resample(rendering, 0.01)
    ensemble = fx.sample_ensemble(1, seed=0)
    responses = fx.simulate(rendering, ensemble, record={"cell_type": ["T4c"], "column": "central"})
    assert counting_scheduler.calls == 0
    assert dict(resampled.flow.sizes) == {"sample": 1, "time": 10, "column": 721, "axis": 2}
    assert np.isfinite(responses.response.values).all()
    fx.save(rendering, tmp_path / "natural.zarr")
    reopened = fx.open(tmp_path / "natural.zarr")
    np.testing.assert_array_equal(reopened.flow, rendering.flow)
    assert reopened.axis.values.tolist() == ["x", "y"]
    assert reopened.flow.attrs["units"] == "columns/s"
    fx.save(responses, tmp_path / "responses.zarr")
    assert fx.open(tmp_path / "responses.zarr").motion.values.tolist() == ["translation"]


@pytest.mark.parametrize(
    ("arguments", "patterns"),
    [
        ({"speeds": [0, 5]}, ["speeds as numbers above 0"]),
        ({"rotation_speeds": [0, 10], "expansion_rates": 0}, ["rotation_speeds other than 0", "expansion_rates other"]),
        ({"speeds": 80, "dt": 0.02}, [r"dt=0.02 s undersamples speeds \[80.0\] columns/s"]),
        ({"rotation_speeds": [10, -360], "dt": 0.02}, [r"undersamples rotation_speeds \[-360.0\] degrees/s"]),
        ({"expansion_rates": 5, "dt": 0.02}, [r"undersamples expansion_rates \[5.0\] 1/s"]),
        ({"angles": (), "rotation_speeds": (), "expansion_rates": ()}, ["expected a motion, got none"]),
        ({"photographs": "tiger"}, ["photographs out of", "tiger"]),
        ({"photographs": []}, ["photographs as one name or a list of them"]),
        (
            {"n_crops": 0, "seed": -1, "pixels_per_column": 0.1},
            ["n_crops", "seed", "pixels_per_column as a number at least 1"],
        ),
        ({"dt": 0, "extent": 0}, ["dt as a duration above 0", "extent"]),
        ({"t_stim": 0.01, "dt": 0.1, "speeds": 1, "rotation_speeds": 10}, ["t_stim of at least one frame"]),
    ],
)
def test_bad_input__is_named(arguments: dict[str, Any], patterns: list[str]) -> None:
    with pytest.raises(schema.SchemaError) as error:
        fx.stimuli.natural_motion(**arguments)
    for pattern in patterns:
        assert error.match(pattern)
