"""The hexagonal eye against flyvis's own arrays, and lazily; what both eyes share is in ``test_eye``.

Compared with flyvis 1.2.0: which pixels are in which hexagon (exact), mean (2e-6, or 5e-6 where frames are resized) and
sum (the same a pixel of the hexagon). Not compared: the median, which flyvis's HexEye does not return, and larger
frames, which it rejects.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import flyxr as fx
from flyxr import hexgrid, provenance, schema
from flyxr.testing import random_movie

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize("case", range(3))
@pytest.mark.parametrize("filter", ["mean", "sum"])
def test_render__equals_flyvis(case: int, filter: Any, golden: Callable[[str], dict[str, np.ndarray]]) -> None:
    arrays = golden("eye.npz")
    call = json.loads(str(arrays["hexeye_cases_json"]))[case]
    frames = np.random.default_rng(call["seed"]).random(call["shape"], dtype=np.float32)
    eye = fx.HexEye(hexgrid.extent_of(call["n_ommatidia"]), call["ppo"])
    resized = call["shape"][1:] != call["monitor"]
    rendered = eye.render(fx.stimuli.from_array(frames[None], 50), filter).luminance.values[0]
    atol = (5e-6 if resized else 2e-6) * (call["ppo"] ** 2 if filter == "sum" else 1)
    np.testing.assert_allclose(rendered, arrays[f"hexeye{case}_{filter}"], rtol=0, atol=atol)


@pytest.mark.parametrize(("name", "extent", "pitch"), [("0", 3, 25), ("1", 3, 25), ("2", 2, 9), ("_721_25", 15, 25)])
def test_pixel_to_hex__equals_flyvis(
    name: str, extent: int, pitch: int, golden: Callable[[str], dict[str, np.ndarray]]
) -> None:
    arrays = golden("eye.npz")
    pixels = hexgrid.pixel_to_hex(extent, pitch)
    np.testing.assert_array_equal(pixels, arrays[f"hexeye{name}_pixel_to_hex"])
    np.testing.assert_array_equal(np.bincount(pixels[pixels >= 0]), arrays[f"hexeye{name}_kernel_sum"])


@pytest.mark.parametrize(("extent", "pitch"), [(1, 5), (4, 12), (25, 25)])
def test_pixel_to_hex__shares_the_monitor_evenly(extent: int, pitch: int) -> None:
    pixels = hexgrid.pixel_to_hex(extent, pitch)
    size = np.bincount(pixels[pixels >= 0], minlength=hexgrid.n_columns(extent))
    area = np.sqrt(3) / 2 * pitch**2  # of a hexagon whose opposite sides are a pitch apart
    assert np.abs(size - area).max() < 4 * pitch  # a pixel along the rim at most
    middle = pitch * (2 * extent + 1) // 2
    assert pixels[middle, middle] == hexgrid.n_columns(extent) // 2


@pytest.mark.parametrize("filter", ["mean", "sum"])
@pytest.mark.parametrize("size", [(45, 45), (30, 70), (64, 51), (20, 20)])
def test_operator__equals_render(size: tuple[int, int], filter: Any) -> None:
    eye, movie = fx.HexEye(extent=2, kernel_size=9), random_movie(1, 2, *size)
    expected = eye.operator(*size, filter) @ movie.luminance.values[0].reshape(2, -1).T
    np.testing.assert_allclose(eye.render(movie, filter).luminance.values[0], expected.T, rtol=1e-5)


def test_render__larger_frame_is_seen_in_its_middle() -> None:
    eye, movie = fx.HexEye(extent=2, kernel_size=9), random_movie(1, 1, 61, 55)
    middle = movie.isel(y=slice(8, 53), x=slice(5, 50))
    np.testing.assert_array_equal(eye.render(movie).luminance, eye.render(middle).luminance)


def test_render__white_is_exactly_1_and_uint8_is_scaled() -> None:
    eye = fx.HexEye(extent=2, kernel_size=9)
    white = fx.stimuli.from_array(np.ones((1, 1, 45, 45)), 50)
    np.testing.assert_array_equal(eye.render(white).luminance, 1)
    eight_bit = (random_movie(1, 2, 45, 45) * 255).astype(np.uint8).luminance
    scaled = (eight_bit / np.float32(255)).astype(np.float32)
    np.testing.assert_allclose(eye.render(eight_bit).luminance, eye.render(scaled).luminance, atol=1e-6)


def test_render__chunked_equals_unchunked(counting_scheduler: Any) -> None:
    eye, movie = fx.HexEye(extent=2, kernel_size=9), random_movie(3, 4, 45, 45)
    lazy = eye.render(movie.chunk(sample=1, time=3, y=20))
    assert counting_scheduler.calls == 0
    np.testing.assert_array_equal(lazy.luminance.compute(), eye.render(movie).luminance)
    schema.validate(lazy, "rendering")
    assert provenance.steps(lazy)[-1]["arguments"]["eye"] == "HexEye"


def test_render__bad_input() -> None:
    with pytest.raises(ValueError, match=r"filter.*'median'"):
        fx.HexEye(2, 9).render(random_movie(1, 1, 45, 45), "median")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"extent.*kernel_size"):
        fx.HexEye(-1, 2)
    with pytest.raises(schema.SchemaError, match="finite"):
        fx.HexEye(2, 9).render(random_movie(1, 1, 45, 45).where(False))
    with pytest.raises(ValueError, match="height"):
        fx.HexEye(2, 9).operator(0, 10)
