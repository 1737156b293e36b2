"""The eye against flyvis's own arrays, against a plain implementation, and lazily.

Compared with flyvis 1.2.0: receptor centres (exact), mean and median (2e-6), sum (2e-6 a pixel of the box), 5e-6 where
frames are resized; frame indices of the temporal resampling (exact). Not compared: whole filtered frames and the
resampling from a random start, which flyxr does not offer. ``operator`` and ``backproject``, which flyvis lacks, are
held to ``render`` and to what an adjoint is.
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
    resized = eye.bilinear(frame.shape[0], height) @ frame @ eye.bilinear(frame.shape[1], width).T
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


# the operator and its transpose

EYES = st.builds(BoxEye, st.integers(0, 3), st.integers(1, 6))
SIZES = st.tuples(st.integers(1, 50), st.integers(1, 50))
LINEAR = st.sampled_from(FILTERS[:2])


@given(EYES, SIZES, LINEAR)
def test_operator__equals_render(box_eye: BoxEye, size: tuple[int, int], filter: Any) -> None:
    movie = movie_of(1, 2, *size)
    operator = box_eye.operator(*size, filter)
    assert operator.shape == (box_eye.n_columns, size[0] * size[1])
    assert operator.dtype == np.float32
    expected = box_eye.render(movie, filter).luminance.values[0]
    np.testing.assert_allclose((operator @ movie.luminance.values.reshape(2, -1).T).T, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [(64, 64), (391, 391), (720, 1280), (436, 1024), (300, 1000)])
def test_operator__equals_render_of_the_published_eye(size: tuple[int, int]) -> None:
    movie = movie_of(1, 1, *size)
    rendered = BoxEye().operator(*size) @ movie.luminance.values.ravel()
    np.testing.assert_allclose(rendered, BoxEye().render(movie).luminance.values.ravel(), atol=2e-6)


def test_operator__rows_sum_to_one_but_at_the_rim() -> None:
    sums = BoxEye().operator(391, 391).sum(axis=1)
    rim = sums < 0.999
    assert rim.sum() == 34
    assert sums.min() == pytest.approx(7 / 13)
    np.testing.assert_allclose(sums[~rim], 1, rtol=1e-5)
    np.testing.assert_allclose(BoxEye().operator(403, 403).sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(BoxEye().operator(403, 403, "sum").sum(axis=1), 169, rtol=1e-5)


def test_operator__is_built_once_and_read_only() -> None:
    operator = BoxEye(2, 5).operator(30, 40)
    assert BoxEye(2, 5).operator(np.int64(30), 40) is operator  # type: ignore[arg-type]
    assert BoxEye(2, 5).operator(30, 40, "sum") is not operator
    with pytest.raises(ValueError, match="read-only"):
        operator.data[:] = 0


@given(EYES, SIZES, LINEAR, st.integers(0, 99))
def test_backproject__is_the_adjoint_of_render(box_eye: BoxEye, size: tuple[int, int], filter: Any, seed: int) -> None:
    movie = movie_of(2, 3, *size, seed=seed)
    rendered = box_eye.render(movie, filter).luminance
    weights = rendered.copy(data=np.random.default_rng(seed).normal(size=rendered.shape))
    pixels = movie.luminance * box_eye.backproject(weights, *size, filter)
    columns = rendered * weights
    atol = 1e-5 * float(abs(columns).sum()) + 1e-6
    np.testing.assert_allclose(pixels.sum(dtype=float), columns.sum(dtype=float), rtol=0, atol=atol)


@given(EYES, SIZES, LINEAR)
def test_backproject__normalized_keeps_a_constant(box_eye: BoxEye, size: tuple[int, int], filter: Any) -> None:
    columns = xr.DataArray(np.full(box_eye.n_columns, 0.25, np.float32), dims="column")
    frame = box_eye.backproject(columns, *size, filter, normalize=True).values
    seen = (box_eye.operator(*size) > 0).sum(axis=0).reshape(size) > 0
    np.testing.assert_allclose(frame[seen], 0.25, rtol=1e-5)
    assert not frame[~seen].any()


def test_backproject__rendering_gives_a_movie() -> None:
    box_eye = BoxEye(2, 5)
    rendering = box_eye.render(movie_of(2, 3, 32, 32, sample_coords={"angle": [0.0, 90.0]}))
    before = rendering.copy(deep=True)
    movie = schema.validate(box_eye.backproject(rendering, 40, 30, normalize=True), "movie")
    xr.testing.assert_identical(rendering, before)
    assert dict(movie.sizes) == {"sample": 2, "time": 3, "y": 40, "x": 30}
    assert movie.luminance.dtype == np.float32
    assert movie.attrs[schema.KIND_ATTR] == "movie"
    assert set(movie.coords) == {"sample", "time", "y", "x", "angle"}
    assert schema.time_step(movie) == schema.time_step(rendering)
    assert [step["operation"] for step in provenance.steps(movie)] == ["from_array", "render", "backproject"]
    box_eye.render(movie)


def test_backproject__any_dims_and_other_variables() -> None:
    box_eye = BoxEye(1, 3)
    values = np.random.default_rng(0).normal(size=(7, 2, 4))
    coords = {"cell_type": list("abcd")}
    data = xr.Dataset({"response": (("column", "model", "cell_type"), values), "n": ("model", [1, 2])}, coords)
    found = box_eye.backproject(data.assign_attrs({schema.KIND_ATTR: "responses"}), 9, 8)
    assert found.response.dims == ("model", "cell_type", "y", "x")
    expected = (values.reshape(7, -1).T @ box_eye.operator(9, 8)).reshape(2, 4, 9, 8)
    np.testing.assert_allclose(found.response, expected, rtol=1e-5, atol=1e-7)
    xr.testing.assert_identical(found.n, data.n)
    assert schema.KIND_ATTR not in found.attrs
    xr.testing.assert_identical(box_eye.backproject(data.response, 9, 8), found.response)


def test_backproject__lazy_rendering_computes_nothing(counting_scheduler: Any) -> None:
    box_eye = BoxEye(2, 5)
    rendering = box_eye.render(movie_of(4, 6, 16, 16))
    chunked = rendering.luminance.variable.chunk(sample=1, time=4, column=10)
    lazy = box_eye.backproject(rendering.assign(luminance=chunked), 16, 16)
    assert counting_scheduler.calls == 0
    assert lazy.luminance.chunks == ((1, 1, 1, 1), (4, 2), (16,), (16,))
    with dask.config.set(scheduler="synchronous"):
        computed = lazy.compute()
    np.testing.assert_array_equal(computed.luminance, box_eye.backproject(rendering, 16, 16).luminance)


@pytest.mark.parametrize("method", ["operator", "backproject"])
def test_operator_and_backproject__bad_arguments(method: str) -> None:
    given = (xr.DataArray(np.zeros(19), dims="column"),) if method == "backproject" else ()
    call = getattr(BoxEye(2, 5), method)
    with pytest.raises(
        ValueError, match="'mean', 'sum', got 'median'.*height as an integer .* got 0.*width .* got 2.5"
    ):
        call(*given, 0, 2.5, "median")


@pytest.mark.parametrize("drop", [[], ["u", "v"], ["column"]], ids=["by all", "by column", "by u and v"])
def test_backproject__goes_by_label(drop: list[str]) -> None:
    box_eye, rng = BoxEye(2, 5), np.random.default_rng(0)
    columns = xr.DataArray(rng.random(19, dtype=np.float32), dims="column", coords=hexgrid.column_coords(2))
    shuffled = columns.isel(column=rng.permutation(19)).drop_vars(drop)
    xr.testing.assert_identical(box_eye.backproject(shuffled, 16, 16), box_eye.backproject(columns, 16, 16))
    twice = columns.isel(column=[0, *range(18)]).drop_vars(drop)
    with pytest.raises(schema.SchemaError, match=r"19 columns of extent 2.*without the columns \[18\]"):
        box_eye.backproject(twice, 16, 16)


def test_backproject__other_columns() -> None:
    rendering = BoxEye(2, 5).render(movie_of(1, 1, 32, 32))
    for bad in (rendering.isel(column=0), rendering.isel(column=slice(7))):
        with pytest.raises(schema.SchemaError, match="expected the 19 columns of extent 2 .* use the BoxEye"):
            BoxEye(2, 5).backproject(bad, 32, 32)


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
    for filter in FILTERS:
        bytes_, floats = (BoxEye(2, 5).render(given, filter).luminance for given in (raw, movie))
        np.testing.assert_allclose(bytes_, floats, rtol=1e-6, err_msg=filter)


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


@pytest.mark.parametrize("filter", FILTERS)
@pytest.mark.parametrize("kernel_size", [4, 5])
def test_render__what_no_box_sees_is_not_checked(kernel_size: int, filter: Any) -> None:
    box_eye = BoxEye(2, kernel_size)
    movie = movie_of(1, 2, 60, 70)
    expected = box_eye.render(movie, filter)
    reach = 2 * kernel_size + kernel_size // 2
    bad = movie.luminance.where((abs(movie.y - 30) <= reach) & (abs(movie.x - 35) <= reach))
    np.testing.assert_array_equal(box_eye.render(bad, filter).luminance, expected.luminance)
    bad[0, 0, 30 - reach, 35] = np.nan
    with pytest.raises(schema.SchemaError, match="NaN or infinity in 1 of"):
        box_eye.render(bad, filter)


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
