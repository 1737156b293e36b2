"""The eye against flyvis's own arrays, against a plain implementation, and lazily.

Compared with flyvis 1.2.0: receptor centres (exact), mean and median (2e-6), sum (2e-6 a pixel of the box), 5e-6 where
frames are resized; frame indices of the temporal resampling (exact). Not compared: whole filtered frames and the
resampling from a random start, which flyxr does not offer.
"""

from __future__ import annotations

import json
import pickle
from typing import TYPE_CHECKING, Any

import dask
import holoviews as hv
import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from flyxr import eye, hexgrid, provenance, schema, stimuli
from flyxr.eye import BoxEye, resample, temporal_sample_indices

if TYPE_CHECKING:
    from collections.abc import Callable

FILTERS = ("mean", "sum", "median")


def movie_of(*shape: int, seed: int = 0, **kwargs: Any) -> xr.Dataset:
    return stimuli.from_array(np.random.default_rng(seed).random(shape, np.float32), 50, **kwargs)


def plain_render(frame: np.ndarray, extent: int, kernel_size: int, filter: str) -> np.ndarray:
    """One box after the other, on a frame that is large enough."""
    u, v = hexgrid.columns(extent)
    more, less = kernel_size // 2, (kernel_size - 1) // 2
    before, after, mode = (less, more, "reflect") if filter == "median" else (more, less, "constant")
    padded = np.pad(frame.astype(float), (before, after), mode=mode)
    out = []
    for a, b in zip(u, v, strict=True):
        top = frame.shape[0] // 2 + int(kernel_size * (a + b / 2))
        left = frame.shape[1] // 2 + kernel_size * b
        box = np.sort(padded[top : top + kernel_size, left : left + kernel_size], axis=None)
        out.append({"mean": box.mean(), "sum": box.sum(), "median": box[(box.size - 1) // 2]}[filter])
    return np.array(out)


def golden_cases(arrays: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    return list(json.loads(str(arrays["cases_json"])))


# against flyvis


def test_receptor_centers__equal_flyvis(golden: Callable[[str], dict[str, np.ndarray]]) -> None:
    arrays = golden("eye.npz")
    for case in golden_cases(arrays):
        box_eye = BoxEye(case["extent"], case["kernel_size"])
        np.testing.assert_array_equal(box_eye.receptor_centers, arrays[f"c{case['case']}_receptor_centers"])
        assert case["min_frame_size"] == [box_eye.min_frame_size] * 2


@pytest.mark.parametrize("case", range(12))
def test_render__equals_flyvis(case: int, golden: Callable[[str], dict[str, np.ndarray]]) -> None:
    arrays = golden("eye.npz")
    made = golden_cases(arrays)[case]
    frames = np.random.default_rng(made["seed"]).random(made["shape"], dtype=np.float32)
    assert frames.sum(dtype=float) == pytest.approx(made["input_sum"])
    box_eye = BoxEye(made["extent"], made["kernel_size"])
    for filter in made["ftypes"]:
        rendered = box_eye.render(stimuli.from_array(frames, 30), filter).luminance.values
        atol = (5e-6 if made["resized"] else 2e-6) * (made["kernel_size"] ** 2 if filter == "sum" else 1)
        expected = arrays[f"c{case}_{filter}"][:, :, 0]
        np.testing.assert_allclose(rendered, expected, rtol=0, atol=atol, err_msg=filter)


@pytest.mark.parametrize("filter", ["mean", "median"])
def test_render__ramp_equals_flyvis(filter: Any, golden: Callable[[str], dict[str, np.ndarray]]) -> None:
    arrays = golden("eye.npz")
    extent, kernel_size = arrays["ramp_extent_kernel"]
    rendered = BoxEye(int(extent), int(kernel_size)).render(stimuli.from_array(arrays["ramp_input"], 30), filter)
    np.testing.assert_allclose(rendered.luminance, arrays[f"ramp_{filter}"][:, :, 0], rtol=0, atol=2e-6)


@pytest.mark.parametrize(("height", "width"), [(19, 23), (19, 6), (4, 6)])
def test_bilinear__equals_torchvision(height: int, width: int, golden: Callable[[str], dict[str, np.ndarray]]) -> None:
    arrays = golden("eye.npz")
    frame = arrays["resize_input"][0, 0]
    resized = eye._bilinear(frame.shape[0], height) @ frame @ eye._bilinear(frame.shape[1], width).T
    np.testing.assert_allclose(resized, arrays[f"resize_{height}x{width}_default"][0, 0], rtol=0, atol=1e-6)


def test_temporal_sample_indices__equal_flyvis(golden: Callable[[str], dict[str, np.ndarray]]) -> None:
    arrays = golden("misc.npz")
    compared = 0
    for case, call in enumerate(json.loads(str(arrays["ts_args_json"]))):
        if not call["augment"]:
            found = temporal_sample_indices(call["n_frames"], call["framerate"], call["dt"])
            np.testing.assert_array_equal(found, arrays[f"ts{case}_indices"])
            compared += 1
    assert compared == 7


@given(st.integers(1, 200), st.sampled_from([12, 24, 25, 30, 50, 60, 100]), st.floats(1e-3, 0.2))
def test_temporal_sample_indices__equal_torch(n_frames: int, frame_rate: int, dt: float) -> None:
    expected = torch.arange(0, n_frames - 1e-6, dt * frame_rate).long().clamp(max=n_frames - 1)
    np.testing.assert_array_equal(temporal_sample_indices(n_frames, frame_rate, dt), expected)


# against a plain implementation, and by theory


@given(
    extent=st.integers(0, 4),
    kernel_size=st.integers(1, 6),
    margin=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    filter=st.sampled_from(FILTERS),
    seed=st.integers(0, 99),
)
def test_render__equals_plain(extent: int, kernel_size: int, margin: tuple[int, int], filter: Any, seed: int) -> None:
    box_eye = BoxEye(extent, kernel_size)
    least = max(box_eye.min_frame_size, kernel_size)
    movie = movie_of(1, 2, least + margin[0], least + margin[1], seed=seed)
    expected = [plain_render(frame, extent, kernel_size, filter) for frame in movie.luminance.values[0]]
    np.testing.assert_allclose(box_eye.render(movie, filter).luminance[0], expected, rtol=1e-5, atol=1e-6)


def test_render__rim_is_dark_and_middle_is_not() -> None:
    white = stimuli.from_array(np.ones((1, 1, 391, 391)), 50)
    rendered = BoxEye().render(white).luminance.values.ravel()
    assert (rendered < 0.999).sum() == 34
    assert rendered.min() == pytest.approx(7 / 13)
    assert BoxEye().render(white, "median").luminance.values.min() == 1


def test_render__larger_frame_is_seen_in_its_middle() -> None:
    box_eye = BoxEye(2, 5)
    movie = movie_of(1, 1, 25, 25)
    wide = movie.luminance.pad(y=2, x=3, constant_values=1)
    large = stimuli.from_array(wide.data, 50)
    np.testing.assert_allclose(box_eye.render(large).luminance, box_eye.render(movie).luminance, atol=1e-6)


def test_render__orientation_follows_the_lattice() -> None:
    """Bright on the right and at the bottom of the frame, as the coordinates of columns have it."""
    for axis, name, sign in ((-1, "x_column", 1), (-2, "y_column", -1)):
        ramp = np.moveaxis(np.broadcast_to(np.linspace(0, 1, 60, dtype=np.float32), (1, 1, 60, 60)), -1, axis)
        rendered = BoxEye(3, 5).render(stimuli.from_array(ramp, 50))
        assert sign * np.corrcoef(rendered.luminance.values.ravel(), rendered[name])[0, 1] > 0.99


@pytest.mark.parametrize("filter", FILTERS)
def test_render__batches_change_nothing(filter: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    movie = movie_of(3, 4, 20, 30)
    whole = BoxEye(3, 4).render(movie, filter)
    monkeypatch.setattr(eye, "_BATCH_BYTES", 1)
    xr.testing.assert_identical(BoxEye(3, 4).render(movie, filter), whole)


def test_render__memory_is_bounded() -> None:
    import tracemalloc

    movie = stimuli.from_array(np.zeros((2, 200, 200, 500), np.uint8), 50).copy()
    BoxEye(3, 4).render(movie.isel(sample=[0], time=[0]))
    tracemalloc.start()
    BoxEye(3, 4).render(movie, "median")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * eye._BATCH_BYTES < movie.nbytes


# labels


def test_render__labels_and_provenance() -> None:
    movie = movie_of(2, 3, 32, 32, sample_coords={"digit": ["3 7", "1 1"], "angle": [0.0, 90.0]})
    rendering = BoxEye(2, 5).render(movie, filter="sum")
    schema.validate(rendering, "rendering")
    assert rendering.luminance.dims == ("sample", "time", "column")
    assert rendering.luminance.dtype == np.float32
    assert list(rendering.digit.values) == ["3 7", "1 1"]
    made, rendered = provenance.steps(rendering)
    assert [made] == provenance.steps(movie)
    assert rendered["operation"] == "render"
    assert rendered["arguments"] == {"eye": "BoxEye", "extent": 2, "kernel_size": 5, "filter": "sum"}
    assert rendering.attrs[schema.KIND_ATTR] == "rendering"
    assert schema.time_step(rendering) == schema.time_step(movie)
    assert not {"y", "x"} & set(rendering.variables)


def test_render__one_frame_keeps_its_time_step() -> None:
    assert schema.time_step(BoxEye(2, 5).render(movie_of(1, 1, 32, 32))) == 0.02


def test_render__uint8_is_scaled() -> None:
    levels = np.random.default_rng(0).integers(0, 256, (1, 2, 16, 16), dtype=np.uint8)
    movie = stimuli.from_array(levels, 50)
    raw = movie.assign(luminance=(movie.luminance.dims, levels))
    np.testing.assert_array_equal(BoxEye(2, 5).render(raw).luminance, BoxEye(2, 5).render(movie).luminance)


def test_render__takes_a_dataarray_and_any_order_of_dims() -> None:
    movie = movie_of(2, 3, 32, 32)
    turned = movie.luminance.transpose("x", "time", "y", "sample")
    np.testing.assert_array_equal(BoxEye(2, 5).render(turned).luminance, BoxEye(2, 5).render(movie).luminance)


def test_render__caller_object_is_untouched() -> None:
    movie = movie_of(2, 3, 32, 32)
    bare = xr.Dataset({"luminance": (movie.luminance.dims, movie.luminance.values)}, {"sample": [0, 1]})
    bare = bare.assign_coords(time=[0.0, 0.1, 0.2])
    before = bare.copy(deep=True)
    resample(BoxEye(2, 5).render(bare), 0.01)
    resample(bare, 0.01)
    xr.testing.assert_identical(bare, before)


# laziness


def test_render__lazy_movie_computes_nothing(counting_scheduler: Any) -> None:
    movie = movie_of(4, 6, 16, 16).chunk(sample=2, time=3, y=8)
    rendering = resample(BoxEye(2, 5).render(movie), 0.01)
    assert counting_scheduler.calls == 0
    assert rendering.luminance.chunks is not None
    with dask.config.set(scheduler="synchronous"):
        assert rendering.luminance.compute().shape == (4, 12, 19)


def test_render__one_task_a_chunk() -> None:
    movie = movie_of(4, 6, 16, 16).chunk(sample=2, time=3)
    lazy = BoxEye(2, 5).render(movie).luminance
    assert lazy.chunks == ((2, 2), (3, 3), (19,))
    (optimised,) = dask.optimize(lazy.data)
    added = len(optimised.__dask_graph__()) - len(movie.luminance.data.__dask_graph__())
    assert added <= 4


def test_render__eager_movie_gives_numpy() -> None:
    assert isinstance(BoxEye(2, 5).render(movie_of(1, 2, 16, 16)).luminance.data, np.ndarray)


@given(
    st.tuples(st.integers(1, 5), st.integers(1, 7), st.integers(1, 18), st.integers(1, 20)),
    st.sampled_from(FILTERS),
)
def test_render__chunked_equals_unchunked(chunks: tuple[int, int, int, int], filter: Any) -> None:
    movie = movie_of(4, 6, 18, 20)
    lazy = movie.chunk(dict(zip(("sample", "time", "y", "x"), chunks, strict=True)))
    box_eye = BoxEye(2, 5)
    np.testing.assert_allclose(
        resample(box_eye.render(lazy, filter), 0.007).luminance,
        resample(box_eye.render(movie, filter), 0.007).luminance,
        rtol=1e-6,
    )


def test_box_eye__pickles_and_compares() -> None:
    assert pickle.loads(pickle.dumps(BoxEye(3, 4))) == BoxEye(3, 4) != BoxEye(3, 5)


# errors


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (1.5, r"values from 0.5 to 1.5.*fx.stimuli.from_array\(..., rescale=True\)"),
        (-0.25, r"values from -0.25 to 0.5.*fx.stimuli.from_array\(..., rescale=True\)"),
        (np.nan, "NaN or infinity in 1 of.*nan_to_num"),
        (np.inf, "NaN or infinity in 1 of.*nan_to_num"),
    ],
)
@pytest.mark.parametrize("lazy", [False, True])
def test_render__bad_values(value: float, named: str, lazy: bool) -> None:
    movie = stimuli.from_array(np.full((1, 2, 16, 16), 0.5), 50)
    bad = movie.luminance.values.copy()
    bad[0, 1, 3, 3] = value
    movie = movie.assign(luminance=(movie.luminance.dims, bad))
    if lazy:
        rendering = BoxEye(2, 5).render(movie.chunk(time=1))
        rendering.luminance.isel(time=0).compute()
    with pytest.raises(schema.SchemaError, match=named):
        rendering.luminance.compute() if lazy else BoxEye(2, 5).render(movie)


def test_render__other_dims() -> None:
    movie = movie_of(1, 2, 16, 16)
    with pytest.raises(schema.SchemaError, match=r"add 'sample' with .expand_dims"):
        BoxEye(2, 5).render(movie.isel(sample=0, drop=True))
    with pytest.raises(schema.SchemaError, match="select one 'colour'"):
        BoxEye(2, 5).render(movie.expand_dims(colour=3))
    with pytest.raises(schema.SchemaError, match="from_array"):
        BoxEye(2, 5).render(movie.luminance.values)  # type: ignore[arg-type]


def test_render__unknown_filter() -> None:
    with pytest.raises(ValueError, match="'mean', 'sum', 'median', got 'max'"):
        BoxEye().render(movie_of(1, 1, 8, 8), "max")  # type: ignore[arg-type]


def test_box_eye__bad_parameters_are_named_together() -> None:
    with pytest.raises(ValueError, match=r"extent as an integer of at least 0, got -1.*kernel_size .* got 2.5"):
        BoxEye(extent=-1, kernel_size=2.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="kernel_size as an integer of at least 1, got 0"):
        BoxEye(kernel_size=0)


@pytest.mark.parametrize("dt", [0, -0.01, np.nan, np.inf])
def test_resample__bad_dt(dt: float) -> None:
    with pytest.raises(ValueError, match="expected a positive dt in s, got"):
        resample(movie_of(1, 3, 8, 8), dt)


# resampling


def test_resample__time_axis_and_frames() -> None:
    rendering = BoxEye(2, 5).render(movie_of(2, 4, 32, 32))
    fine = resample(rendering, 0.005)
    assert schema.time_step(fine) == 0.005
    np.testing.assert_array_equal(fine.time, np.arange(16) * 0.005)
    np.testing.assert_array_equal(fine.luminance, rendering.luminance.isel(time=np.repeat(range(4), 4)))
    assert provenance.steps(fine)[:-1] == provenance.steps(rendering)
    assert provenance.steps(fine)[-1]["operation"] == "resample"


def test_resample__longer_step_leaves_frames_out() -> None:
    movie = movie_of(1, 6, 8, 8)
    coarse = resample(movie, 0.04)
    np.testing.assert_array_equal(coarse.luminance, movie.luminance[:, ::2])
    np.testing.assert_array_equal(coarse.time, [0, 0.04, 0.08])


def test_resample__single_frame() -> None:
    assert resample(movie_of(1, 1, 8, 8), 0.01).sizes["time"] == 2


@pytest.mark.parametrize("frame_rate", [24, 30, 49, 50, 60, 93])
def test_resample__frame_rate_from_the_time_axis_equals_the_number(frame_rate: int) -> None:
    movie = stimuli.from_array(np.linspace(0, 1, 40)[None, :, None, None], frame_rate)
    picked = movie.luminance.values.ravel()[temporal_sample_indices(40, frame_rate, 0.01)]
    np.testing.assert_array_equal(resample(movie, 0.01).luminance.values.ravel(), picked)


# picture


def test_illustrate__boxes_lie_where_render_looks() -> None:
    box_eye, height, width = BoxEye(2, 5), 41, 52
    overlay = box_eye.illustrate(height, width)
    assert isinstance(overlay, hv.Overlay)
    bounds, boxes, points = overlay
    assert bounds.range("x") == (0, width)
    assert bounds.range("y") == (0, height)
    assert len(points) == box_eye.n_columns
    for column in range(box_eye.n_columns):
        left, bottom, right, top = (boxes.dimension_values(i)[column] for i in range(4))
        frame = np.zeros((height, width))
        frame[int(height - top) : int(height - bottom), int(left) : int(right)] = 1
        rendered = box_eye.render(stimuli.from_array(frame[None, None], 50)).luminance.values.ravel()
        assert rendered[column] == pytest.approx(1)
        assert left < points.dimension_values("x")[column] < right
        assert bottom < points.dimension_values("y")[column] < top


def test_illustrate__small_frame_is_drawn_as_resized() -> None:
    bounds = next(iter(BoxEye(2, 5).illustrate(10, 400)))
    assert bounds.range("x") == bounds.range("y") == (0, 21)
