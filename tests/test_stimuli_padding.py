"""Grey before and after movies and renderings."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import flyxr as fx
from flyxr import provenance, schema
from flyxr.testing import noise_rendering, random_movie

if TYPE_CHECKING:
    from pathlib import Path


def stimuli() -> list[Any]:
    rendering, movie = noise_rendering(3), random_movie(3, 6, 8, 9, frame_rate=100)
    return [rendering, movie, rendering.luminance, rendering.chunk(time=2), movie.chunk(sample=1)]


@pytest.mark.parametrize("stimulus", stimuli(), ids=["rendering", "movie", "DataArray", "lazy", "lazy movie"])
@pytest.mark.parametrize(("t_pre", "n_pre"), [(0, 0), (0.03, 3), ("35ms", 3)])
@pytest.mark.parametrize(("t_post", "n_post"), [(0, 0), (0.02, 2)])
def test_pad_grey__adds_whole_frames(stimulus: Any, t_pre: Any, n_pre: int, t_post: Any, n_post: int) -> None:
    padded = fx.pad_grey(stimulus, t_pre, t_post, 0.25)
    luminance = stimulus.luminance if isinstance(stimulus, xr.Dataset) else stimulus
    assert padded.sizes["time"] == n_pre + luminance.sizes["time"] + n_post
    middle = padded.luminance.isel(time=slice(n_pre, n_pre + luminance.sizes["time"]))
    np.testing.assert_array_equal(middle, luminance)
    np.testing.assert_array_equal(middle.time, luminance.time)
    grey = padded.luminance.drop_isel(time=range(n_pre, n_pre + luminance.sizes["time"]))
    assert (grey == 0.25).all()
    np.testing.assert_allclose(padded.time, (np.arange(padded.sizes["time"]) - n_pre) * 0.01, atol=1e-12)
    assert schema.time_step(padded) == 0.01
    assert padded.luminance.dtype == np.float32
    assert (padded.luminance.chunks is None) == (luminance.chunks is None)
    np.testing.assert_allclose(padded.t_stim, 0.06)
    for name in luminance.coords:
        if name != "time":
            np.testing.assert_array_equal(padded[name], luminance[name])
    schema.validate(padded, "movie" if "x" in padded.dims else "rendering")


@pytest.mark.parametrize("select", [{"sample": 1}, {"sample": 1, "time": [2]}])
def test_pad_grey__of_a_selection(select: dict[str, Any]) -> None:
    padded = fx.pad_grey(noise_rendering(3).isel(select), 0.02, 0.02)
    assert padded.luminance.dims == ("time", "column")
    assert padded.angle.item() == 30
    assert padded.t_stim.dims == ()


def test_pad_grey__computes_nothing() -> None:
    def fail(block: np.ndarray) -> np.ndarray:
        raise AssertionError("computed")

    rendering = noise_rendering(3)
    lazy = da.from_array(rendering.luminance.values).map_blocks(fail, dtype=np.float32, meta=np.empty((0, 0, 0)))
    rendering = rendering.assign(luminance=(rendering.luminance.dims, lazy))
    rendering = rendering.assign_coords(t_end=("sample", [0.02, 0.03, 0.06]))
    assert fx.pad_grey(rendering).luminance.chunks is not None
    assert fx.pad_grey(rendering.isel(sample=0)).luminance.chunks is not None


def test_pad_grey__keeps_attrs_and_records_itself() -> None:
    rendering = fx.stimuli.flashes(dt=0.01, extent=2).assign_attrs(author="me")
    before = rendering.copy(deep=True)
    padded = fx.pad_grey(rendering, t_pre=np.float32(0.1), t_post="100ms", luminance=np.float32(0.1))
    xr.testing.assert_identical(rendering, before)
    assert padded.attrs["author"] == "me"
    step = provenance.steps(padded)[-1]
    assert (step["operation"], step["arguments"]) == ("pad_grey", {"t_pre": 0.1, "t_post": 0.1, "luminance": 0.1})
    assert float(padded.time[0]) == -1.1
    assert (padded.t_stim == 1).all()


def test_pad_grey__ends_of_samples_move() -> None:
    edges = fx.stimuli.moving_edges(0, [9.7, 25], 1, dt=0.01, extent=2, t_pre=0.1, t_post=0.2)
    padded = fx.pad_grey(edges, 0.1, 0.3)
    np.testing.assert_allclose(padded.t_end, edges.t_end + 0.3)
    for sample in range(2):
        own, wider = edges.isel(sample=sample), padded.isel(sample=sample)
        kept = own.luminance[own.time < own.t_end - 1e-9]
        np.testing.assert_array_equal(wider.luminance.sel(time=kept.time), kept)
        assert (wider.luminance[wider.time > own.t_end - 1e-9] == 0.5).all()
    assert schema.frames_to_end(padded).tolist() == (schema.frames_to_end(edges) + 40).tolist()  # type: ignore[union-attr]


def test_pad_grey__stimulus_ends_with_the_sample() -> None:
    rendering = noise_rendering(2).assign_coords(t_end=("sample", [0.02, 0.06]))
    np.testing.assert_allclose(fx.pad_grey(rendering).t_stim, [0.02, 0.06])


def test_pad_grey__nothing_flows_in_grey() -> None:
    natural = fx.stimuli.natural_motion(0, 5, (), (), photographs="china", dt=1 / 50, extent=1, t_stim=0.1)
    padded = fx.pad_grey(natural, 0.1, 0.1)
    assert (padded.flow[:, :5] == 0).all()
    assert (padded.flow[:, -5:] == 0).all()
    np.testing.assert_array_equal(padded.flow[:, 5:-5], natural.flow)


def test_pad_grey__other_variables_are_missing_in_grey() -> None:
    rendering = noise_rendering(2).assign_coords(phase=("time", np.arange(6.0)))
    rendering["weight"] = "time", np.ones(6)
    rendering["name"] = "axis", ["a"]
    padded = fx.pad_grey(rendering, 0.01, 0.01)
    np.testing.assert_array_equal(padded.phase, [np.nan, *range(6), np.nan])
    assert np.isnan(padded.weight[[0, -1]]).all()
    assert padded.name.values.tolist() == ["a"]


def test_pad_grey__8_bit_movies_become_floats() -> None:
    movie = random_movie(1, 3, 8, 9)
    raw = (movie.luminance * 255).astype(np.uint8)
    padded = fx.pad_grey(movie.assign(luminance=raw), 0.02, 0)
    assert padded.luminance.dtype == np.float32
    assert (padded.luminance[:, 0] == 0.5).all()
    np.testing.assert_array_equal(padded.luminance[:, 1:], raw.astype(np.float32) / np.float32(255))


def test_pad_grey__is_rendered_simulated_and_saved(tmp_path: Path) -> None:
    movie = fx.pad_grey(random_movie(2, 3, 20, 20, frame_rate=100), 0.02, 0.02)
    opened = fx.open(fx.save(fx.pad_grey(fx.BoxEye().render(movie), 0.01, 0), tmp_path / "padded.zarr"))
    assert opened.sizes["time"] == 8
    responses = fx.simulate(opened, fx.sample_ensemble(1, seed=0), record="central").response
    np.testing.assert_allclose(responses.time, np.arange(-3, 5) * 0.01, atol=1e-12)
    assert np.isfinite(responses.sel(cell_type="T4c")).all()


@pytest.mark.parametrize(
    "t_pre", ["20ms", timedelta(milliseconds=20), pd.Timedelta("20ms"), Fraction(1, 50), Decimal("0.02")]
)
def test_pad_grey__durations_of_any_type(t_pre: Any) -> None:
    padded = fx.pad_grey(noise_rendering(1), t_pre, np.timedelta64(10, "ms"))
    assert padded.sizes["time"] == 6 + 2 + 1
    assert provenance.steps(padded)[-1]["arguments"]["t_pre"] == 0.02


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"t_pre": -1}, "t_pre as a duration at least 0"),
        ({"t_post": None}, "t_post as a duration"),
        ({"t_pre": "soon"}, "t_pre as a duration"),
        ({"t_pre": 0.005}, "t_pre of 0 or at least one frame of 0.01 s, got 0.005 s: resample"),
        ({"luminance": 2}, "luminance as a number at least 0 and at most 1"),
        ({"luminance": None}, "luminance as a number"),
    ],
)
def test_pad_grey__bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fx.pad_grey(noise_rendering(1), **arguments)


@pytest.mark.parametrize("data", [None, np.zeros((2, 3)), fx.sample_ensemble(1, seed=0)])
def test_pad_grey__other_data(data: Any) -> None:
    with pytest.raises(schema.SchemaError, match="expected a rendering"):
        fx.pad_grey(data)
