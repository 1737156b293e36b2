"""The eyes against flyvis's own arrays, against a plain implementation, and lazily.

Compared with flyvis 1.2.0: receptor centres (exact), mean and median (2e-6), sum (2e-6 a pixel of the box), 5e-6 where
frames are resized; frame indices of the temporal resampling (exact). Not compared: whole filtered frames and the
resampling from a random start, which flyxr does not offer. ``operator`` and ``backproject``, which flyvis lacks, are
compared with ``render`` and with the definition of an adjoint. The arrays of flyvis's HexEye are in ``test_hexeye``.
"""

from __future__ import annotations

import json
import pickle
from typing import TYPE_CHECKING, Any

import dask
import dask.array as da
import holoviews as hv
import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from strategies import eyes

from flyxr import hexgrid, provenance, schema, stimuli, store
from flyxr.eye import BoxEye, HexEye, base, boxes, hexagons, resample, temporal_sample_indices
from flyxr.testing import random_movie

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from pathlib import Path

    from flyxr.eye import Eye

FILTERS = ("mean", "sum", "median")
SMALL_EYES = [BoxEye(2, 5), HexEye(2, 9)]
each_eye = pytest.mark.parametrize("eye", SMALL_EYES, ids=["BoxEye", "HexEye"])


def plain_render(frame: np.ndarray, extent: int, kernel_size: int, filter: str) -> np.ndarray:
    """One box after the other, on a frame that is large enough."""
    u, v = hexgrid.columns(extent)
    before, after, mode = kernel_size // 2, (kernel_size - 1) // 2, "constant"
    if filter == "median":
        before, after, mode = after, before, "reflect"
    padded = np.pad(frame.astype(float), (before, after), mode=mode)
    columns = []
    for u_column, v_column in zip(u, v, strict=True):
        top = frame.shape[0] // 2 + int(kernel_size * (u_column + v_column / 2))
        left = frame.shape[1] // 2 + kernel_size * v_column
        box = np.sort(padded[top : top + kernel_size, left : left + kernel_size], axis=None)
        columns.append({"mean": box.mean(), "sum": box.sum(), "median": box[(box.size - 1) // 2]}[filter])
    return np.array(columns)


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
    call = golden_cases(arrays)[case]
    frames = np.random.default_rng(call["seed"]).random(call["shape"], dtype=np.float32)
    assert frames.sum(dtype=float) == pytest.approx(call["input_sum"])
    box_eye = BoxEye(call["extent"], call["kernel_size"])
    for filter in call["ftypes"]:
        rendered = box_eye.render(stimuli.from_array(frames, 30), filter).luminance.values
        atol = (5e-6 if call["resized"] else 2e-6) * (call["kernel_size"] ** 2 if filter == "sum" else 1)
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
    resized = base.bilinear(frame.shape[0], height) @ frame @ base.bilinear(frame.shape[1], width).T
    np.testing.assert_allclose(resized, arrays[f"resize_{height}x{width}_default"][0, 0], rtol=0, atol=1e-6)


def test_temporal_sample_indices__equal_flyvis(golden: Callable[[str], dict[str, np.ndarray]]) -> None:
    arrays = golden("misc.npz")
    compared = 0
    for case, call in enumerate(json.loads(str(arrays["ts_args_json"]))):
        if not call["augment"]:
            indices = temporal_sample_indices(call["n_frames"], call["framerate"], call["dt"])
            np.testing.assert_array_equal(indices, arrays[f"ts{case}_indices"])
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
    size = max(box_eye.min_frame_size, kernel_size)
    movie = random_movie(1, 2, size + margin[0], size + margin[1], seed=seed)
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
    movie = random_movie(1, 1, 25, 25)
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
def test_render_frames__batches_do_not_change_values(filter: Any) -> None:
    frames = random_movie(3, 4, 20, 30).luminance.values
    for module, eye in ((boxes, BoxEye(3, 4)), (hexagons, HexEye(2, 5))):
        if module is boxes or filter != "median":
            expected = module.render_frames(frames, eye=eye, filter=filter)  # type: ignore[arg-type]
            one_by_one = module.render_frames(frames, eye=eye, filter=filter, batch_bytes=1)  # type: ignore[arg-type]
            np.testing.assert_array_equal(one_by_one, expected)


def test_render__memory_is_bounded() -> None:
    import tracemalloc

    movie = stimuli.from_array(np.zeros((2, 200, 200, 500), np.uint8), 50).copy()
    BoxEye(3, 4).render(movie.isel(sample=[0], time=[0]))
    tracemalloc.start()
    BoxEye(3, 4).render(movie, "median")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * boxes.BATCH_BYTES < movie.nbytes


# the operator and its transpose

SIZES = st.tuples(st.integers(1, 50), st.integers(1, 50))
LINEAR = st.sampled_from(FILTERS[:2])


@given(eyes(), SIZES, LINEAR)
def test_operator__equals_render(eye: Eye, size: tuple[int, int], filter: Any) -> None:
    movie = random_movie(1, 2, *size)
    operator = eye.operator(*size, filter)
    assert operator.shape == (eye.n_columns, size[0] * size[1])
    assert operator.dtype == np.float32
    expected = eye.render(movie, filter).luminance.values[0]
    np.testing.assert_allclose((operator @ movie.luminance.values.reshape(2, -1).T).T, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [(64, 64), (391, 391), (720, 1280), (436, 1024), (300, 1000)])
def test_operator__equals_render_of_the_published_eye(size: tuple[int, int]) -> None:
    movie = random_movie(1, 1, *size)
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


@each_eye
def test_operator__is_built_once_and_read_only(eye: Eye) -> None:
    operator = eye.operator(30, 40)
    equal_eye = type(eye)(np.int64(eye.extent), eye.kernel_size)  # type: ignore[call-arg]
    assert equal_eye.operator(np.int64(30), 40) is operator  # type: ignore[arg-type]
    assert eye.operator(30, 40, "sum") is not operator
    with pytest.raises(ValueError, match="read-only"):
        operator.data[:] = 0


@given(eyes(), SIZES, LINEAR, st.integers(0, 99))
def test_backproject__is_the_adjoint_of_render(eye: Eye, size: tuple[int, int], filter: Any, seed: int) -> None:
    movie = random_movie(2, 3, *size, seed=seed)
    rendered = eye.render(movie, filter).luminance
    weights = rendered.copy(data=np.random.default_rng(seed).normal(size=rendered.shape))
    pixels = movie.luminance * eye.backproject(weights, *size, filter)
    columns = rendered * weights
    atol = 1e-5 * float(abs(columns).sum()) + 1e-6
    np.testing.assert_allclose(pixels.sum(dtype=float), columns.sum(dtype=float), rtol=0, atol=atol)


@given(eyes(), SIZES, LINEAR)
def test_backproject__normalized_keeps_a_constant(eye: Eye, size: tuple[int, int], filter: Any) -> None:
    columns = xr.DataArray(np.full(eye.n_columns, 0.25, np.float32), dims="column")
    frame = eye.backproject(columns, *size, filter, normalize=True).values
    is_seen = (eye.operator(*size) > 0).sum(axis=0).reshape(size) > 0
    np.testing.assert_allclose(frame[is_seen], 0.25, rtol=1e-5)
    assert not frame[~is_seen].any()


@each_eye
def test_backproject__rendering_gives_a_movie(eye: Eye) -> None:
    rendering = eye.render(random_movie(2, 3, 32, 32, sample_coords={"angle": [0.0, 90.0]}))
    before = rendering.copy(deep=True)
    movie = schema.validate(eye.backproject(rendering, 40, 30, normalize=True), "movie")
    xr.testing.assert_identical(rendering, before)
    assert dict(movie.sizes) == {"sample": 2, "time": 3, "y": 40, "x": 30}
    assert movie.luminance.dtype == np.float32
    assert movie.attrs[schema.KIND_ATTR] == "movie"
    assert set(movie.coords) == {"sample", "time", "y", "x", "angle"}
    assert schema.time_step(movie) == schema.time_step(rendering)
    assert [step["operation"] for step in provenance.steps(movie)] == ["from_array", "render", "backproject"]
    arguments = {"eye": type(eye).__name__, "extent": 2, "kernel_size": eye.kernel_size, "filter": "mean"}
    arguments |= {"height": 40, "width": 30, "normalize": True}
    assert provenance.steps(movie)[-1]["arguments"] == arguments
    eye.render(movie)


@pytest.mark.parametrize("eye", [BoxEye(1, 3), HexEye(1, 3)], ids=["BoxEye", "HexEye"])
def test_backproject__any_dims_and_other_variables(eye: Eye) -> None:
    values = np.random.default_rng(0).normal(size=(7, 2, 4))
    coords = {"cell_type": list("abcd")}
    data = xr.Dataset({"response": (("column", "model", "cell_type"), values), "n": ("model", [1, 2])}, coords)
    projected = eye.backproject(data.assign_attrs({schema.KIND_ATTR: "responses"}), 9, 8)
    assert projected.response.dims == ("model", "cell_type", "y", "x")
    expected = (values.reshape(7, -1).T @ eye.operator(9, 8)).reshape(2, 4, 9, 8)
    np.testing.assert_allclose(projected.response, expected, rtol=1e-5, atol=1e-7)
    xr.testing.assert_identical(projected.n, data.n)
    assert schema.KIND_ATTR not in projected.attrs
    xr.testing.assert_identical(eye.backproject(data.response, 9, 8), projected.response)


@each_eye
def test_backproject__lazy_rendering_computes_nothing(eye: Eye, counting_scheduler: Any) -> None:
    rendering = eye.render(random_movie(4, 6, 16, 16))
    chunked = rendering.luminance.variable.chunk(sample=1, time=4, column=10)
    lazy = eye.backproject(rendering.assign(luminance=chunked), 16, 16)
    assert counting_scheduler.calls == 0
    assert lazy.luminance.chunks == ((1, 1, 1, 1), (4, 2), (16,), (16,))
    with dask.config.set(scheduler="synchronous"):
        computed = lazy.compute()
    np.testing.assert_array_equal(computed.luminance, eye.backproject(rendering, 16, 16).luminance)


@each_eye
@pytest.mark.parametrize("method", ["operator", "backproject"])
def test_operator_and_backproject__bad_arguments(eye: Eye, method: str) -> None:
    data = (xr.DataArray(np.zeros(19), dims="column"),) if method == "backproject" else ()
    call = getattr(eye, method)
    with pytest.raises(
        ValueError, match="'mean', 'sum', got 'median'.*height as an integer .* got 0.*width .* got 2.5"
    ):
        call(*data, 0, 2.5, "median")


@each_eye
@pytest.mark.parametrize("drop", [[], ["u", "v"], ["column"]], ids=["by all", "by column", "by u and v"])
def test_backproject__matches_columns_by_label(eye: Eye, drop: list[str]) -> None:
    rng = np.random.default_rng(0)
    columns = xr.DataArray(rng.random(19, dtype=np.float32), dims="column", coords=hexgrid.column_coords(2))
    shuffled = columns.isel(column=rng.permutation(19)).drop_vars(drop)
    xr.testing.assert_identical(eye.backproject(shuffled, 16, 16), eye.backproject(columns, 16, 16))
    repeated = columns.isel(column=[0, *range(18)]).drop_vars(drop)
    with pytest.raises(schema.SchemaError, match=r"19 columns of extent 2.*without the columns \[18\]"):
        eye.backproject(repeated, 16, 16)


@each_eye
def test_backproject__other_columns(eye: Eye) -> None:
    rendering = eye.render(random_movie(1, 1, 32, 32))
    for bad in (rendering.isel(column=0), rendering.isel(column=slice(7))):
        message = f"expected the 19 columns of extent 2 .* use the {type(eye).__name__}"
        with pytest.raises(schema.SchemaError, match=message):
            eye.backproject(bad, 32, 32)


# labels


def test_render__labels_and_provenance() -> None:
    movie = random_movie(2, 3, 32, 32, sample_coords={"digit": ["3 7", "1 1"], "angle": [0.0, 90.0]})
    rendering = BoxEye(2, 5).render(movie, filter="sum")
    schema.validate(rendering, "rendering")
    assert rendering.luminance.dims == ("sample", "time", "column")
    assert rendering.luminance.dtype == np.float32
    assert list(rendering.digit.values) == ["3 7", "1 1"]
    movie_step, render_step = provenance.steps(rendering)
    assert [movie_step] == provenance.steps(movie)
    assert render_step["operation"] == "render"
    assert render_step["arguments"] == {"eye": "BoxEye", "extent": 2, "kernel_size": 5, "filter": "sum"}
    assert rendering.attrs[schema.KIND_ATTR] == "rendering"
    assert schema.time_step(rendering) == schema.time_step(movie)
    assert not {"y", "x"} & set(rendering.variables)


@pytest.mark.parametrize("select", [{"sample": 0}, {"time": 1}, {"sample": 0, "time": 1}])
@pytest.mark.parametrize("lazy", [False, True])
def test_selections__stay_without_the_dims(select: dict[Hashable, int], lazy: bool) -> None:
    movie = random_movie(2, 3, 20, 20).assign_coords(digit=("sample", ["3 7", "9 0"]))
    movie = movie.chunk(time=1) if lazy else movie
    selection, rendering = movie.isel(select), BoxEye(2, 5).render(movie)
    rendered = BoxEye(2, 5).render(selection)
    xr.testing.assert_equal(rendered, rendering.isel(select))
    assert (rendered.luminance.chunks is not None) == lazy
    for data in (movie, rendering):
        resampled = resample(data.isel(select), 0.01)
        keep = {name: index for name, index in select.items() if name != "time"}
        if "time" in select:  # a frame of 20 ms is shown twice
            expected = resample(data.isel({**keep, "time": [1]}), 0.01)
        else:
            expected = resample(data, 0.01).isel(keep)
        xr.testing.assert_equal(resampled, expected)
    assert "time" not in resample(rendering.isel(sample=0, time=0), 0.02).dims
    frames = BoxEye(2, 5).backproject(rendering.isel(select), 20, 20, normalize=True)
    xr.testing.assert_equal(frames, BoxEye(2, 5).backproject(rendering, 20, 20, normalize=True).isel(select))
    assert schema.kind_of(frames) == "movie"
    assert BoxEye(2, 5).render(frames.clip(0, 1)).luminance.dims == rendered.luminance.dims


def test_render__coordinates_are_in_memory(tmp_path: Path) -> None:
    movie = random_movie(2, 3, 20, 20).assign_coords(digit=("sample", np.array(["3 7", "9 0"], object)))
    path = store.save(movie, tmp_path / "movie.zarr")
    for opened in (
        store.open(path),
        xr.open_zarr(path, chunks={}, consolidated=False),
        movie.chunk().assign_coords(digit=("sample", da.from_array(np.array(["3 7", "9 0"], object), chunks=1))),
    ):
        rendering = BoxEye(2, 5).render(opened)
        assert rendering.luminance.chunks is not None
        assert rendering.where(rendering.digit == "9 0", drop=True).sizes["sample"] == 1
        assert all(coord.chunks is None for coord in rendering.coords.values())


def test_render__one_frame_keeps_its_time_step() -> None:
    assert schema.time_step(BoxEye(2, 5).render(random_movie(1, 1, 32, 32))) == 0.02


def test_render__uint8_is_scaled() -> None:
    levels = np.random.default_rng(0).integers(0, 256, (1, 2, 16, 16), dtype=np.uint8)
    movie = stimuli.from_array(levels, 50)
    raw = movie.assign(luminance=(movie.luminance.dims, levels))
    for filter in FILTERS:
        from_bytes, from_floats = (BoxEye(2, 5).render(data, filter).luminance for data in (raw, movie))
        np.testing.assert_allclose(from_bytes, from_floats, rtol=1e-6, err_msg=filter)


def test_render__takes_a_dataarray_and_any_order_of_dims() -> None:
    movie = random_movie(2, 3, 32, 32)
    transposed = movie.luminance.transpose("x", "time", "y", "sample")
    np.testing.assert_array_equal(BoxEye(2, 5).render(transposed).luminance, BoxEye(2, 5).render(movie).luminance)


def test_render__caller_object_is_untouched() -> None:
    movie = random_movie(2, 3, 32, 32)
    bare = xr.Dataset({"luminance": (movie.luminance.dims, movie.luminance.values)}, {"sample": [0, 1]})
    bare = bare.assign_coords(time=[0.0, 0.1, 0.2])
    before = bare.copy(deep=True)
    resample(BoxEye(2, 5).render(bare), 0.01)
    resample(bare, 0.01)
    xr.testing.assert_identical(bare, before)


# laziness


def test_render__lazy_movie_computes_nothing(counting_scheduler: Any) -> None:
    movie = random_movie(4, 6, 16, 16).chunk(sample=2, time=3, y=8)
    rendering = resample(BoxEye(2, 5).render(movie), 0.01)
    assert counting_scheduler.calls == 0
    assert rendering.luminance.chunks is not None
    with dask.config.set(scheduler="synchronous"):
        assert rendering.luminance.compute().shape == (4, 12, 19)


def test_render__one_task_a_chunk() -> None:
    movie = random_movie(4, 6, 16, 16).chunk(sample=2, time=3)
    lazy = BoxEye(2, 5).render(movie).luminance
    assert lazy.chunks == ((2, 2), (3, 3), (19,))
    (optimised,) = dask.optimize(lazy.data)
    n_added = len(optimised.__dask_graph__()) - len(movie.luminance.data.__dask_graph__())
    assert n_added <= 4


def test_render__eager_movie_gives_numpy() -> None:
    assert isinstance(BoxEye(2, 5).render(random_movie(1, 2, 16, 16)).luminance.data, np.ndarray)


@given(
    st.tuples(st.integers(1, 5), st.integers(1, 7), st.integers(1, 18), st.integers(1, 20)),
    st.sampled_from(FILTERS),
)
def test_render__chunked_equals_unchunked(chunks: tuple[int, int, int, int], filter: Any) -> None:
    movie = random_movie(4, 6, 18, 20)
    lazy = movie.chunk(dict(zip(("sample", "time", "y", "x"), chunks, strict=True)))
    box_eye = BoxEye(2, 5)
    np.testing.assert_allclose(
        resample(box_eye.render(lazy, filter), 0.007).luminance,
        resample(box_eye.render(movie, filter), 0.007).luminance,
        rtol=1e-6,
    )


def test_eyes__pickle_and_compare() -> None:
    for eye_class in (BoxEye, HexEye):
        assert pickle.loads(pickle.dumps(eye_class(3, 4))) == eye_class(3, 4) != eye_class(3, 5)
    assert BoxEye(3, 4) != HexEye(3, 4)


# errors


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (1.5, r"values from 0.5 to 1.5.*fx.stimuli.from_array\(..., rescale=True\)"),
        (-0.25, r"values from -0.25 to 0.5.*fx.stimuli.from_array\(..., rescale=True\)"),
        (np.nan, "NaN or infinity in 1 of.*nan_to_num"),
        (np.inf, "NaN or infinity in 1 of.*nan_to_num"),
    ],
)
@pytest.mark.parametrize("lazy", [False, True])
def test_render__bad_values(value: float, message: str, lazy: bool) -> None:
    movie = stimuli.from_array(np.full((1, 2, 16, 16), 0.5), 50)
    bad = movie.luminance.values.copy()
    bad[0, 1, 3, 3] = value
    movie = movie.assign(luminance=(movie.luminance.dims, bad))
    if lazy:
        rendering = BoxEye(2, 5).render(movie.chunk(time=1))
        rendering.luminance.isel(time=0).compute()
    with pytest.raises(schema.SchemaError, match=message):
        rendering.luminance.compute() if lazy else BoxEye(2, 5).render(movie)


@pytest.mark.parametrize("filter", FILTERS)
@pytest.mark.parametrize("kernel_size", [4, 5])
def test_render__pixels_outside_all_boxes_are_not_checked(kernel_size: int, filter: Any) -> None:
    box_eye = BoxEye(2, kernel_size)
    movie = random_movie(1, 2, 60, 70)
    expected = box_eye.render(movie, filter)
    reach = 2 * kernel_size + kernel_size // 2
    bad = movie.luminance.where((abs(movie.y - 30) <= reach) & (abs(movie.x - 35) <= reach))
    np.testing.assert_array_equal(box_eye.render(bad, filter).luminance, expected.luminance)
    bad[0, 0, 30 - reach, 35] = np.nan
    with pytest.raises(schema.SchemaError, match="NaN or infinity in 1 of"):
        box_eye.render(bad, filter)


def test_render__other_dims() -> None:
    movie = random_movie(1, 2, 16, 16)
    with pytest.raises(schema.SchemaError, match="add 'x' with .expand_dims"):
        BoxEye(2, 5).render(movie.isel(x=0, drop=True))
    with pytest.raises(schema.SchemaError, match="select one 'colour'"):
        BoxEye(2, 5).render(movie.expand_dims(colour=3))
    with pytest.raises(schema.SchemaError, match="from_array"):
        BoxEye(2, 5).render(movie.luminance.values)  # type: ignore[arg-type]


def test_render__unknown_filter() -> None:
    with pytest.raises(ValueError, match="'mean', 'sum', 'median', got 'max'"):
        BoxEye().render(random_movie(1, 1, 8, 8), "max")  # type: ignore[arg-type]


def test_box_eye__bad_parameters_are_named_together() -> None:
    with pytest.raises(ValueError, match=r"extent as an integer of at least 0, got -1.*kernel_size .* got 2.5"):
        BoxEye(extent=-1, kernel_size=2.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="kernel_size as an integer of at least 1, got 0"):
        BoxEye(kernel_size=0)


@pytest.mark.parametrize("dt", [0, -0.01, np.nan, np.inf])
def test_resample__bad_dt(dt: float) -> None:
    with pytest.raises(ValueError, match="expected dt as a duration above 0, in s, got"):
        resample(random_movie(1, 3, 8, 8), dt)


# resampling


def test_resample__time_axis_and_frames() -> None:
    rendering = BoxEye(2, 5).render(random_movie(2, 4, 32, 32))
    fine = resample(rendering, 0.005)
    assert schema.time_step(fine) == 0.005
    np.testing.assert_array_equal(fine.time, np.arange(16) * 0.005)
    np.testing.assert_array_equal(fine.luminance, rendering.luminance.isel(time=np.repeat(range(4), 4)))
    assert provenance.steps(fine)[:-1] == provenance.steps(rendering)
    assert provenance.steps(fine)[-1]["operation"] == "resample"


def test_resample__longer_step_skips_frames() -> None:
    movie = random_movie(1, 6, 8, 8)
    coarse = resample(movie, 0.04)
    np.testing.assert_array_equal(coarse.luminance, movie.luminance[:, ::2])
    np.testing.assert_array_equal(coarse.time, [0, 0.04, 0.08])


def test_resample__single_frame() -> None:
    assert resample(random_movie(1, 1, 8, 8), 0.01).sizes["time"] == 2


@pytest.mark.parametrize("frame_rate", [24, 30, 49, 50, 60, 93])
def test_resample__frame_rate_from_the_time_axis_equals_the_number(frame_rate: int) -> None:
    frames = np.linspace(0, 1, 40)[None, :, None, None]
    movie = stimuli.from_array(frames, frame_rate, dims=("sample", "time", "y", "x"))
    expected = movie.luminance.values.ravel()[temporal_sample_indices(40, frame_rate, 0.01)]
    np.testing.assert_array_equal(resample(movie, 0.01).luminance.values.ravel(), expected)


# pictures


def test_illustrate__boxes_lie_where_render_looks() -> None:
    box_eye, height, width = BoxEye(2, 5), 41, 52
    overlay = box_eye.illustrate(height, width)
    assert isinstance(overlay, hv.Overlay)
    bounds, rectangles, points = overlay
    assert bounds.range("x") == (0, width)
    assert bounds.range("y") == (0, height)
    assert len(points) == box_eye.n_columns
    for column in range(box_eye.n_columns):
        left, bottom, right, top = (rectangles.dimension_values(i)[column] for i in range(4))
        frame = np.zeros((height, width))
        frame[int(height - top) : int(height - bottom), int(left) : int(right)] = 1
        rendered = box_eye.render(stimuli.from_array(frame[None, None], 50)).luminance.values.ravel()
        assert rendered[column] == pytest.approx(1)
        assert left < points.dimension_values("x")[column] < right
        assert bottom < points.dimension_values("y")[column] < top


@pytest.mark.parametrize("size", [(46, 61), (45, 45)])
def test_illustrate__hexagons_lie_where_render_looks(size: tuple[int, int]) -> None:
    eye, (height, width) = HexEye(2, 9), size
    overlay = eye.illustrate(height, width)
    assert isinstance(overlay, hv.Overlay)
    bounds, polygons, points = overlay
    assert bounds.range("x") == (0, width)
    assert bounds.range("y") == (0, height)
    assert len(points) == eye.n_columns
    n_pixels = eye.operator(height, width, "sum").sum(axis=1)
    y, x = np.mgrid[:height, :width] + 0.5
    for column, hexagon in enumerate(polygons.data):
        assert [hexagon[name] for name in ("column", "u", "v")] == [column, *(a[column] for a in hexgrid.columns(2))]
        middle_x, middle_y = points.dimension_values("x")[column], points.dimension_values("y")[column]
        dx, dy = x - middle_x, height - y - middle_y
        # half a pixel inside each edge, whose normals are at 30, 90, ... degrees
        normals = np.radians(np.arange(30, 360, 60))
        edge_distance = max(np.dot((np.cos(a), np.sin(a)), (hexagon["x"][0] - middle_x, 0)) for a in normals)
        assert edge_distance == pytest.approx(eye.kernel_size / 2)
        projections = [np.cos(angle) * dx + np.sin(angle) * dy for angle in normals]
        inside = (np.max(projections, axis=0) < edge_distance - 0.5).astype(float)
        summed = eye.render(stimuli.from_array(inside[None, None], 50), "sum").luminance.values.ravel()
        assert summed[column] == pytest.approx(inside.sum(), rel=1e-6)
        assert 0.7 * n_pixels[column] < inside.sum() <= n_pixels[column]
        assert summed.sum() == pytest.approx(inside.sum(), rel=1e-6)


@pytest.mark.parametrize(("eye", "size"), [(BoxEye(2, 5), 21), (HexEye(2, 9), 45)], ids=["BoxEye", "HexEye"])
def test_illustrate__small_frame_is_drawn_as_resized(eye: Eye, size: int) -> None:
    bounds = next(iter(eye.illustrate(10, 400)))
    assert bounds.range("x") == bounds.range("y") == (0, size)


@pytest.mark.parametrize(("eye", "size"), [(BoxEye(), (391, 500)), (HexEye(3, 9), (80, 64))], ids=["BoxEye", "HexEye"])
def test_illustrate__has_equal_aspect_and_shows_the_receptors(eye: Eye, size: tuple[int, int]) -> None:
    figure = hv.render(eye.illustrate(*size), backend="bokeh")
    (x_range, y_range), (height, width) = (figure.x_range, figure.y_range), size
    pixels = figure.frame_width / (x_range.end - x_range.start), figure.frame_height / (y_range.end - y_range.start)
    assert pixels[0] == pytest.approx(pixels[1], rel=0.01)
    assert x_range.start < 0 < width < x_range.end
    assert y_range.start < 0 < height < y_range.end
    fields, receptors = (renderer.glyph for renderer in figure.renderers[-2:])
    assert fields.fill_alpha <= 0.2
    assert receptors.fill_color != fields.fill_color
