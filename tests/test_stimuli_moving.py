"""Moving edges and bars.

Compared with flyvis 1.2.0: rendered positions (1e-6 after the step to 8-bit greys that flyvis has and flyxr omits;
without it 0.0021, half a grey level and the rounding of others), indices of the resampling (exact), whole sequences
(like the positions), order and values of parameters, frames that are padding. Not compared: ``dataset.time``, whose
step is not dt, and shuffled positions, which flyxr does not offer.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import dask
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import flyxr as fx
from flyxr import hexgrid, provenance, schema
from flyxr.stimuli import monitor, moving
from flyxr.testing import render_edge_in_8_bit

if TYPE_CHECKING:
    from collections.abc import Callable

GREY_LEVEL = 0.0021


def make_stimulus(arrays: dict[str, np.ndarray]) -> Any:
    """Stimulus of flyvis with flyxr's arguments, which are in degrees instead of LEDs."""
    call = json.loads(str(arrays["kwargs_json"]))
    first, stop = call.pop("offsets")
    call["offsets"] = (first * 2.25, (stop - 1) * 2.25)
    call["height"] *= 2.25
    if call.pop("post_pad_mode") == "value":
        call["widths"] = np.multiply(call["widths"], 2.25)
        return fx.stimuli.moving_bars(**call)
    return fx.stimuli.moving_edges(**call)


def make_path(arrays: dict[str, np.ndarray], angle: float, width: float) -> monitor.BarPath:
    height = json.loads(str(arrays["kwargs_json"]))["height"] * 2.25
    return monitor.BarPath(angle, np.inf if width == 80 else width * 2.25, height, -10, 21, 15)


@pytest.mark.parametrize("name", ["stim_moving_edge.npz", "stim_moving_bar.npz"])
def test_positions__equal_flyvis(name: str, golden: Callable[[str], dict[str, np.ndarray]]) -> None:
    arrays = golden(name)
    for (angle, width, intensity, *_), expected in zip(arrays["arg_group_df"], arrays["offsets_rendered"], strict=True):
        path = make_path(arrays, angle, width)
        np.testing.assert_allclose(render_edge_in_8_bit(path, intensity), expected, rtol=0, atol=1e-6)
        luminance = 0.5 + (intensity - 0.5) * monitor.column_coverage(path)
        np.testing.assert_allclose(luminance, expected, rtol=0, atol=1e-6 if angle == 0 else GREY_LEVEL)


@pytest.mark.parametrize("name", ["stim_moving_edge.npz", "stim_moving_bar.npz"])
def test_sequences__equal_flyvis(name: str, golden: Callable[[str], dict[str, np.ndarray]]) -> None:
    arrays = golden(name)
    rendering = make_stimulus(arrays)
    luminance = rendering.luminance.values
    assert list(luminance.shape) == arrays["sequence_shape"].tolist()

    assert arrays["arg_df_columns"].tolist() == ["angle", "width", "intensity", "t_stim", "speed"]
    for column, parameter in enumerate(["angle", "width", "intensity", "t_stim", "speed"]):
        if parameter in rendering.coords:
            expected = arrays["arg_df"][:, column] * (2.25 if parameter == "width" else 1)
            np.testing.assert_allclose(rendering[parameter], expected, rtol=1e-12)

    padding = rendering.time.values >= rendering.t_end.values[:, None] - 1e-6 * 0.01
    np.testing.assert_array_equal(padding, arrays["frame_is_nan"])
    assert (luminance[padding] == 0.5).all()
    assert np.isfinite(luminance).all()

    atol = np.where(arrays["arg_df"][:, :1] == 0, 1e-6, GREY_LEVEL)
    is_shown = ~padding
    error = np.abs(luminance[:, :, 360] - arrays["central_hexal"])
    assert (error <= atol)[is_shown].all()
    index = arrays["frames_index"]
    error = np.abs(luminance[:, index] - arrays["frames"])
    assert (error <= atol[:, :, None])[is_shown[:, index]].all()
    error = np.abs(luminance.sum(axis=2, dtype=float) - arrays["frame_sums"]) / 721
    assert (error <= atol)[is_shown].all()

    onset = int(np.argmin(np.abs(rendering.time.values)))
    assert rendering.time.values[onset] == 0
    call = json.loads(str(arrays["kwargs_json"]))
    for speed, n_frames in zip(call["speeds"], arrays["n_stim_frames"].tolist(), strict=True):
        positions = moving.positions_shown(21, n_frames)
        np.testing.assert_array_equal(positions, arrays[f"resample_indices_speed_{speed:g}"])
        sample = np.flatnonzero(rendering.speed.values == speed)[0]
        path = make_path(arrays, *arrays["arg_df"][sample, :2])
        expected = 0.5 + (arrays["arg_df"][sample, 2] - 0.5) * monitor.column_coverage(path)[positions]
        np.testing.assert_allclose(luminance[sample, onset : onset + n_frames], expected, atol=1e-6)


def test_moving_edges__equal_the_stimulus_of_flyvis_analysis(golden: Callable[[str], dict[str, np.ndarray]]) -> None:
    arrays = golden("analysis_edge_inputs.npz")
    config = json.loads(str(arrays["config_json"]))
    names = ("angles", "speeds", "intensities", "t_pre", "t_post", "dt")
    rendering = fx.stimuli.moving_edges(**{name: config[name] for name in names})
    np.testing.assert_array_equal(rendering.angle, arrays["coord_angle"])
    np.testing.assert_allclose(rendering.time, arrays["coord_time"], atol=1e-9)
    error = np.abs(rendering.luminance.values.sum(axis=2, dtype=float) - arrays["stimulus_frame_sums"]) / 721
    assert error[arrays["coord_angle"] == 0].max() < 1e-6
    assert error.max() < GREY_LEVEL


def test_positions_shown__equal_flyvis(golden: Callable[[str], dict[str, np.ndarray]]) -> None:
    arrays = golden("misc.npz")
    for case, (n_positions, t_stim, dt) in enumerate(
        [(a["n_offsets"], a["t_stim"], a["dt"]) for a in json.loads(str(arrays["resample_args_json"]))]
    ):
        np.testing.assert_array_equal(
            moving.positions_shown(n_positions, int(t_stim / dt)), arrays[f"resample{case}_indices"]
        )


@given(st.integers(1, 60), st.integers(1, 800))
def test_positions_shown__equal_torch(n_positions: int, n_frames: int) -> None:
    expected = torch.linspace(0, n_positions - 1, n_frames).long().numpy()
    np.testing.assert_array_equal(moving.positions_shown(n_positions, n_frames), expected)


def test_rotation__equals_pillow(golden: Callable[[str], dict[str, np.ndarray]]) -> None:
    """Rotated bars, pixel by pixel. One grey level is 1/255; the grey of 0.5 loses half of it."""
    arrays = golden("rotate_bars.npz")
    for case, call in enumerate(json.loads(str(arrays["bars_kwargs_json"]))):
        size = call["img_height_px"]
        row, column = np.divmod(np.arange(size**2), size)
        # the middle of the picture lies between pixels, that of the eye's monitor on one
        pixels = monitor.MonitorPixels(
            row + 0.5 + monitor.MIDDLE - size / 2, column + 0.5 + monitor.MIDDLE - size / 2, row
        )
        along, across = (c - monitor.MIDDLE + size / 2 - 0.5 for c in monitor.rotate(pixels, call["rotate"]))
        start = int(call["bar_loc_horizontal_px"] - call["bar_width_px"] / 2)
        top = int(call["bar_loc_vertical_px"] - call["bar_height_px"] / 2)
        bottom = int(call["bar_loc_vertical_px"] + call["bar_height_px"] / 2) + 1
        covered = monitor.overlap(along, -np.inf if start < 0 else start, start + call["bar_width_px"] + 1)
        covered *= monitor.overlap(across, top, bottom)
        # a rotated picture has no pixels outside this circle
        is_inside = np.hypot(row - size / 2, column - size / 2) < size / 2 - 1
        bar = call["bg_intensity"] + (call["bar_intensity"] - call["bg_intensity"]) * covered
        assert np.abs(bar - arrays[f"bars{case}"].ravel())[is_inside].max() <= 1.5 / 255


def test_frame_counts__are_flyvis_at_its_defaults() -> None:
    """Grey frames are counted on their own; flyvis counts them as differences of sums, with the same result."""
    for dt in (1 / 50, 1 / 100, 1 / 200, 1 / 400):
        for speed in moving.SPEEDS:
            t_stim = 21 * np.radians(2.25) / (speed * np.radians(5.8))
            assert int((t_stim + 1) / dt) - int(t_stim / dt) == int(1 / dt)
            assert int((t_stim + 2) / dt) - int((t_stim + 1) / dt) == int(1 / dt)


def test_moving_edges__defaults_are_flyvis() -> None:
    rendering = fx.stimuli.moving_edges()
    assert dict(rendering.luminance.sizes) == {"sample": 12 * 2 * 6, "time": 1078, "column": 721}
    assert sorted(set(rendering.angle.values)) == list(range(0, 360, 30))
    assert sorted(set(rendering.speed.values)) == [2.4, 4.8, 9.7, 13, 19, 25]
    assert set(rendering.first_offset.values) == {-22.5}
    bars = fx.stimuli.moving_bars()
    assert bars.sizes["sample"] == 12 * 3 * 2 * 6
    assert sorted(set(bars.width.values)) == [2.25, 4.5, 9]


@pytest.mark.parametrize(("angle", "direction"), [(0, (1, 0)), (90, (0, 1)), (180, (-1, 0)), (270, (0, -1))])
def test_moving_edges__move_as_the_docstring_says(angle: float, direction: tuple[int, int]) -> None:
    rendering = fx.stimuli.moving_edges(angle, 9.7, 1, dt=0.01, extent=4, offsets=(-31.5, 31.5))
    bright = rendering.luminance.values[0] - 0.5
    onset = (bright > 0.25).argmax(axis=0)  # the frame at which the edge arrives
    position = rendering.x_column.values * direction[0] + rendering.y_column.values * direction[1]
    assert np.corrcoef(onset, position)[0, 1] > 0.99
    # the monitor's lattice is wider than that of the columns, so the edge is slower along x
    speed = np.polyfit(onset * 0.01, position, 1)[0]
    assert speed == pytest.approx(9.7 * 28 / 29 * (np.sqrt(3) / 2 if direction[0] else 1), rel=0.02)


@pytest.mark.parametrize("angle", [0, 30, 90, 125])
def test_moving_edges__rotation_by_180_degrees_rotates_the_lattice(angle: float) -> None:
    luminance, rotated_luminance = (
        fx.stimuli.moving_edges(a, 9.7, 0, dt=0.02, extent=5).luminance.values[0] for a in (angle, angle + 180)
    )
    rotated = hexgrid.column_index(*(-axis for axis in hexgrid.columns(5)), 5)
    # differs by about one of the 25 pixels across a hexagon
    assert np.abs(luminance - rotated_luminance[:, rotated]).max() < 0.06


def test_moving_edges__rotation_by_60_degrees_rotates_the_lattice_roughly() -> None:
    """The columns are symmetric under rotation by 60 degrees, but the monitor's wider lattice is not."""
    u, v = hexgrid.columns(5)
    rotated = hexgrid.column_index(-v, u + v, 5)
    for angle in (0, 30, 90):
        arrivals = [
            (monitor.column_coverage(monitor.BarPath(a, np.inf, 180, -20, 41, 5)) > 0.5).argmax(axis=0)
            for a in (angle, angle + 60)
        ]
        x, y = 5.8 * v, -5.8 * (u + v / 2)
        for arrival, a in zip(arrivals, (angle, angle + 60), strict=True):
            expected = (x * np.cos(np.radians(a)) + y * np.sin(np.radians(a))) / 2.25 + 20
            inside = (expected > 1) & (expected < 40)
            assert np.abs(arrival - expected)[inside].max() <= 1.1
        assert np.abs(arrivals[0] - arrivals[1][rotated]).max() <= 3


@pytest.mark.parametrize("extent", [2, 17])
def test_moving_bars__same_columns_see_the_same_at_every_extent(extent: int) -> None:
    # above 15 the eye is larger, and half precision rounds other pixels at the rims of hexagons
    expected, luminance = (
        fx.stimuli.moving_bars([0, 40], 4.5, 19, 1, dt=0.02, extent=e, height=180).luminance.values
        for e in (15, extent)
    )
    small, large = sorted((15, extent))
    inner = hexgrid.column_index(*hexgrid.columns(small), large)
    if extent < 15:
        np.testing.assert_allclose(luminance, expected[:, :, inner], atol=0)
    else:
        np.testing.assert_allclose(luminance[:, :, inner], expected, atol=0.03)


def test_moving_edges__fill_larger_fields() -> None:
    rendering = fx.stimuli.moving_edges([0, 90], 25, 1, dt=0.02, extent=18)
    behind = np.stack([-rendering.x_column, -rendering.y_column]) > 6
    last = rendering.luminance.values[:, -1]
    assert (last[behind] == 1).all()
    assert (last[np.stack([rendering.x_column, rendering.y_column]) > 6] == 0.5).all()


def test_moving_edges__grey_is_grey_and_intensities_are_linear() -> None:
    rendering = fx.stimuli.moving_edges(30, 9.7, [0, 0.25, 0.75, 1], dt=0.02, extent=2)
    luminance = rendering.luminance.values
    assert (luminance[:, rendering.time.values < 0.01] == 0.5).all()
    np.testing.assert_allclose(luminance[0] - 0.5, 0.5 - luminance[3], atol=1e-6)
    np.testing.assert_allclose(luminance[2] - 0.5, (luminance[3] - 0.5) / 2, atol=1e-6)


def test_moving_bars__leave_grey_behind_and_edges_stay() -> None:
    bar = fx.stimuli.moving_bars(0, 2.25, 19, 1, dt=0.02, extent=3)
    edge = fx.stimuli.moving_edges(0, 19, 1, dt=0.02, extent=3)
    after = bar.time.values >= bar.t_stim.item()
    assert (bar.luminance.values[:, after] == 0.5).all()
    last = edge.luminance.values[0, after]
    assert (last == last[0]).all()
    assert last.max() == 1
    assert "t_end" not in bar.coords


def test_moving__is_lazy_and_has_provenance(counting_scheduler: Any) -> None:
    rendering = fx.stimuli.moving_bars([0, 30], [2.25, 9], [9.7, 19], extent=3)
    schema.validate(rendering, "rendering")
    assert counting_scheduler.calls == 0
    assert rendering.luminance.chunks is not None
    step = provenance.steps(rendering)[0]
    assert step["operation"] == "moving_bars"
    assert step["arguments"]["widths"] == [2.25, 9]
    assert step["arguments"]["offsets"] == [-22.5, 22.5]
    assert rendering.speed.attrs["units"] == "columns/s"
    assert rendering.t_end.attrs["long_name"]
    again = fx.stimuli.moving_bars([0, 30], [2.25, 9], [9.7, 19], extent=3)
    assert again.luminance.data.name == rendering.luminance.data.name


def test_moving__single_sample_is_the_same() -> None:
    rendering = fx.stimuli.moving_edges([0, 30], [9.7, 19], dt=0.02, extent=3)
    with dask.config.set(scheduler="sync"):
        luminance = rendering.luminance.values
        np.testing.assert_array_equal(rendering.luminance.isel(sample=5).values, luminance[5])
    single = fx.stimuli.moving_edges(30, 19, 0, dt=0.02, extent=3).luminance.values[0]
    np.testing.assert_array_equal(luminance[5, : len(single)], single)


def test_moving__is_simulated_saved_and_opened(tmp_path: Any) -> None:
    rendering = fx.stimuli.moving_edges([0, 90], 19, 1, t_pre=0.1, t_post=0.1, dt=0.02)
    responses = fx.simulate(
        rendering, fx.sample_ensemble(1, seed=0), record={"cell_type": ["T4c"], "column": "central"}
    )
    np.testing.assert_array_equal(responses.angle, [0, 90])
    np.testing.assert_array_equal(responses.time, rendering.time)
    fx.save(rendering, tmp_path / "edges.zarr")
    reopened = fx.open(tmp_path / "edges.zarr")
    np.testing.assert_array_equal(reopened.luminance, rendering.luminance)
    np.testing.assert_array_equal(reopened.first_offset, rendering.first_offset)
    resampled = fx.resample(rendering, 1 / 100)
    assert float(resampled.time[0]) == pytest.approx(-0.1)
    onset = int(np.abs(resampled.time.values).argmin())
    assert resampled.time.values[onset] == 0
    np.testing.assert_array_equal(resampled.luminance[:, onset], rendering.luminance.sel(time=0, method="nearest"))


@pytest.mark.parametrize(
    ("arguments", "patterns"),
    [
        ({"speeds": [0, 5]}, ["speeds as numbers above 0", r"\[0, 5\]"]),
        ({"speeds": -3, "angles": []}, ["speeds as numbers above 0", "angles", "empty list"]),
        (
            {"speeds": [19, 60], "dt": 0.02},
            [r"dt=0.02 s undersamples speeds \[60.0\] columns/s", "1.2 columns per frame"],
        ),
        ({"offsets": (0, 2.25), "speeds": 49, "dt": 0.02}, ["undersamples speed 49"]),
        ({"angles": [0, np.nan]}, ["angles as finite numbers"]),
        ({"angles": [0, 90], "offsets": (45, 67.5), "extent": 3}, [r"angles \[0.0, 90.0\]", "larger extent"]),
        ({"extent": 0}, ["extent as an integer of at least 1"]),
        ({"extent": 2.5}, ["extent as an integer"]),
        ({"dt": 0}, ["dt as a duration above 0"]),
        (
            {"dt": -1, "t_pre": -1, "height": 0},
            ["dt as", "t_pre as a duration at least 0", "height as a number above 0"],
        ),
        ({"offsets": (-10, 11)}, ["multiple of 2.25 degrees apart"]),
        ({"offsets": (22.5, -22.5)}, ["larger last one", "angle \\+ 180"]),
        ({"offsets": -10}, [r"offsets as \(first, last\)"]),
        ({"offsets": (-225, 225)}, ["offsets as numbers at least -90 and at most 90"]),
        ({"intensities": [0, 1.5]}, ["intensities as numbers at least 0 and at most 1"]),
    ],
)
def test_bad_input__is_named(arguments: dict[str, Any], patterns: list[str]) -> None:
    with pytest.raises(schema.SchemaError) as error:
        fx.stimuli.moving_edges(**arguments)
    for pattern in patterns:
        assert error.match(pattern)


def test_bad_input__bars() -> None:
    with pytest.raises(schema.SchemaError, match="widths as numbers above 0"):
        fx.stimuli.moving_bars(widths=[0, 4.5])
