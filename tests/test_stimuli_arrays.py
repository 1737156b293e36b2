"""Arrays that users bring: dims, labels, times, colours, masks, unusual shapes, and renderings from columns."""

from __future__ import annotations

import itertools
import warnings
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import flyxr as fx
from flyxr import provenance, schema
from flyxr.errors import FlyxrWarning
from flyxr.stimuli import from_array, from_columns
from flyxr.stimuli.values import LUMA_WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Callable

FRAMES = np.random.default_rng(0).random((2, 3, 8, 9), np.float32)
COLUMNS = np.random.default_rng(1).random((2, 4, 19), np.float32)
COLOURS = np.random.default_rng(2).random((2, 3, 8, 9, 3))
DIMS = ("sample", "time", "y", "x")


def named(values: Any = FRAMES, dims: tuple[str, ...] = DIMS, **coords: Any) -> xr.DataArray:
    return xr.DataArray(values, coords, dims)


def arguments_of(stimulus: xr.Dataset) -> dict[str, Any]:
    return dict(provenance.steps(stimulus)[-1]["arguments"])


def not_computed(values: np.ndarray) -> Any:
    """Dask array that fails when it is computed."""

    def fail(block: np.ndarray) -> np.ndarray:
        raise AssertionError("computed")

    return da.from_array(values).map_blocks(fail, dtype=values.dtype, meta=np.empty((0,) * values.ndim, values.dtype))


# dims


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_dims__own_names_in_any_order(order: tuple[int, ...]) -> None:
    turned = named(FRAMES.transpose(order), tuple(DIMS[axis] for axis in order))
    np.testing.assert_array_equal(from_array(turned, 30).luminance, FRAMES)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_dims__synonyms_are_matched_and_said(order: tuple[int, ...]) -> None:
    names = ("Trial", "frame", "hexals")
    turned = named(COLUMNS.transpose(order), tuple(names[axis] for axis in order))
    with pytest.warns(FlyxrWarning, match=r"'Trial' is 'sample'.*pass dims=\{.*'frame': 'time'") as caught:
        rendering = from_columns(turned, frame_rate=30)
    assert caught[0].filename == __file__
    np.testing.assert_array_equal(rendering.luminance, COLUMNS)
    assert arguments_of(rendering)["dims"] == {"Trial": "sample", "frame": "time", "hexals": "column"}
    dims = {"Trial": "sample", "frame": "time", "hexals": "column"}
    xr.testing.assert_identical(from_columns(turned, frame_rate=30, dims=dims).drop_attrs(), rendering.drop_attrs())


def test_dims__other_names_are_asked_for() -> None:
    array = named(dims=("rep", "tick", "h", "w"))
    suggestion = {"rep": "sample", "tick": "time", "h": "y", "w": "x"}
    with pytest.raises(schema.SchemaError) as caught:
        from_array(array, 30)
    assert f"got (rep, tick, h, w): pass dims={suggestion}" in str(caught.value)
    np.testing.assert_array_equal(from_array(array, 30, dims=suggestion).luminance, FRAMES)


def test_dims__are_never_matched_by_position_if_they_have_names() -> None:
    with pytest.raises(schema.SchemaError, match=r"got \(time, sample, y, b\)"):
        from_array(named(dims=("time", "sample", "y", "b")), 30)


@pytest.mark.parametrize("array", [xr.DataArray(FRAMES), named(dims=("sample", "dim_1", "dim_2", "dim_3"))])
def test_dims__default_names_count_as_none(array: xr.DataArray) -> None:
    np.testing.assert_array_equal(from_array(array, 30).luminance, FRAMES)


def test_dims__of_arrays_without_names() -> None:
    movie = from_array(FRAMES.transpose(2, 3, 1, 0), 30, dims=("y", "x", "time", "sample"))
    np.testing.assert_array_equal(movie.luminance, FRAMES)
    assert arguments_of(movie)["dims"] == ["y", "x", "time", "sample"]


@pytest.mark.parametrize(
    ("dims", "message"),
    [
        ("time", r"expected dims as a mapping, or as a list of 4 names"),
        (("time", "y", "x"), "list of 4 names"),
        ({"rep": "sample"}, r"got \['rep'\], but it has no names: give one name for each axis"),
        (("sample", "time", "y", "trial"), r"out of \(sample, time, y, x, channel\), got \['trial'\]"),
        (("sample", "time", "y", "y"), "each dim once"),
    ],
)
def test_dims__bad_argument(dims: Any, message: str) -> None:
    with pytest.raises(schema.SchemaError, match=message):
        from_array(FRAMES, 30, dims=dims)


def test_dims__two_names_for_one() -> None:
    with pytest.raises(schema.SchemaError, match=r"\['frame', 't'\] mean the same dim"):
        from_array(named(dims=("frame", "t", "y", "x")), 30)


def test_dims__that_were_selected_away_stay_away() -> None:
    movie = from_array(named(FRAMES[0], DIMS[1:], fly="w1118"), 30)
    assert movie.luminance.dims == ("time", "y", "x")
    assert movie["fly"].item() == "w1118"
    assert "sample" not in movie.coords
    assert from_array(named(FRAMES[0, 0], DIMS[2:])).luminance.dims == ("y", "x")
    frame = from_array(named(FRAMES[0, 0], DIMS[2:]), 30)
    assert frame.time.dims == ()
    assert schema.time_step(frame) == 1 / 30
    assert from_columns(COLUMNS[0], frame_rate=30).luminance.dims == ("time", "column")
    rendering = fx.BoxEye(2, 5).render(movie)
    assert rendering.luminance.dims == ("time", "column")


@pytest.mark.parametrize(
    ("function", "array", "message"),
    [
        (from_array, named(COLUMNS, ("sample", "time", "column")), "use fx.stimuli.from_columns"),
        (from_array, named(COLUMNS, ("trial", "frame", "hexals")), "use fx.stimuli.from_columns"),
        (from_array, np.zeros((2, 3, 721)), "use fx.stimuli.from_columns"),
        (from_array, np.zeros((2, 3, 1, 721)), "use fx.stimuli.from_columns"),
        (from_columns, named(), r"use fx.BoxEye\(\).render"),
        (from_columns, np.zeros((2, 3, 700)), "expected columns of a full lattice .* got 700"),
        (from_columns, np.zeros((721, 3, 2)), r"np.moveaxis\(array, 0, -1\)"),
        (from_columns, np.zeros(721), r"give \(sample, time, column\) or \(time, column\)"),
        (
            from_array,
            fx.stimuli.moving_digits(1),
            r"got a Dataset: take one of its variables, e.g. data\['luminance'\]",
        ),
        (from_array, "movie.npy", r"np.load\(path\)"),
        (from_array, [[1], [1, 2]], "expected an array of numbers"),
        (from_array, named(COLOURS, (*DIMS, "rep"))[..., 0].expand_dims("rep"), "select one 'rep' with .isel"),
    ],
)
def test_other_kinds_of_data__are_sent_elsewhere(function: Callable[..., Any], array: Any, message: str) -> None:
    with pytest.raises(schema.SchemaError, match=message):
        function(array, frame_rate=30)


# labels


@pytest.mark.parametrize(
    "labels",
    [["a", "b"], [1.5, 2.5], [True, False], pd.date_range("2026", periods=2), [(0, "a"), (1, "b")], ["a", (1, 2)]],
    ids=["text", "floats", "booleans", "dates", "tuples", "mixed"],
)
@pytest.mark.parametrize("dim", ["sample", "trial"])
def test_labels__of_samples_live_on(labels: Any, dim: str) -> None:
    values = np.empty(2, object)
    values[:] = list(labels)
    array = xr.DataArray(FRAMES, dims=(dim, *DIMS[1:])).assign_coords({dim: values})
    movie = from_array(array, 30, dims={dim: "sample"})
    assert movie.indexes["sample"].tolist() == list(values)
    rendering = fx.BoxEye(2, 5).render(movie)
    assert rendering.indexes["sample"].tolist() == list(values)


def test_labels__along_every_dim_live_on() -> None:
    array = named(angle=("sample", [0, 90]), phase=("time", [0, 1, 2]), fly="w1118").assign_coords(
        luminance_map=(("y", "x"), np.zeros((8, 9))), x=np.arange(9) * 10
    )
    movie = from_array(array, 30)
    for name in array.coords:
        np.testing.assert_array_equal(movie[name], array[name])


def test_labels__of_rows_sort_them() -> None:
    array = named().assign_coords(y=("y", np.arange(8) * 2.5, {"positive": "up"}))
    np.testing.assert_array_equal(from_array(array, 30).luminance, FRAMES[:, :, ::-1])


def test_labels__of_a_multiindex_become_coordinates() -> None:
    array = named(dims=("fly", "time", "y", "x")).expand_dims(repeat=[0, 1]).stack(trial=("fly", "repeat"))
    movie = from_array(array, 30, dims={"trial": "sample"})
    assert movie["fly"].values.tolist() == [0, 0, 1, 1]
    assert movie.sizes["sample"] == 4


def test_labels__that_are_taken_are_named() -> None:
    with pytest.raises(schema.SchemaError, match=r"another name for the coordinate 'time' \(sample\)"):
        from_array(named(dims=("sample", "frame", "y", "x"), time=("sample", [0, 1])), 30, dims={"frame": "time"})


def test_labels__of_frames_count_them() -> None:
    array = named(dims=("sample", "frame", "y", "x"), frame=[5, 6, 7])
    movie = from_array(array, 30, dims={"frame": "time"})
    np.testing.assert_array_equal(movie.time, np.arange(3) / 30)
    assert movie.frame.dims == ("time",)


def test_labels__given_for_a_sample_that_was_selected() -> None:
    assert from_array(named(FRAMES[0], DIMS[1:]), 30, sample_coords={"angle": 90}).angle.item() == 90
    with pytest.raises(schema.SchemaError, match="expected 1 values of 'angle'"):
        from_array(named(FRAMES[0], DIMS[1:]), 30, sample_coords={"angle": [0, 90]})


# times


@pytest.mark.parametrize(
    "time",
    [[-0.02, 0.0, 0.02], np.float32([-0.02, 0, 0.02]), pd.to_timedelta([-20, 0, 20], "ms")],
    ids=["s", "float32", "timedelta"],
)
@pytest.mark.parametrize("rate", [{}, {"frame_rate": 50}, {"dt": "20ms"}, {"frame_rate": 50, "dt": 0.02}])
def test_time__of_the_array_is_used(time: Any, rate: dict[str, Any]) -> None:
    movie = from_array(named(time=time), **rate)
    np.testing.assert_array_equal(movie.time, [-0.02, 0, 0.02])
    assert schema.time_step(movie) == 0.02


def test_time__rounded_to_ms_agrees_with_a_rate() -> None:
    movie = from_array(named(time=[0, 0.033, 0.067]), 30)
    np.testing.assert_array_equal(movie.time, np.arange(3) / 30)


@pytest.mark.parametrize(
    ("coords", "rate", "message"),
    [
        ({}, {}, "expected a positive frame_rate, in frames per second, or dt, in s, got neither"),
        ({}, {"frame_rate": 30, "dt": 0.01}, r"expected frame_rate and dt that agree, got frame_rate=30 .* dt=0.01"),
        ({"time": [0, 0.02, 0.04]}, {"frame_rate": 30}, "expected frame_rate=30 to agree .* got frames 0.02 s apart"),
        ({"time": np.arange(3) / 29.97}, {"frame_rate": 30}, "29.97 frames per second"),
        ({"time": [0, 0.02, 0.04]}, {"dt": 0.01}, "expected dt=0.01 to agree .*: leave dt out, .*drop_vars"),
        ({"time": [0, 1, 2]}, {"frame_rate": 30}, "got frames 1 s apart"),
        ({"time": [0, 0.02, 0.05]}, {}, "uniform step"),
        ({"time": pd.date_range("2026", periods=3)}, {}, r"array.time\[0\]\) / np.timedelta64\(1, 's'\)"),
        ({"time": ["a", "b", "c"]}, {"frame_rate": 30}, r"drop_vars\('time'\)"),
    ],
)
def test_time__problems_are_named(coords: dict[str, Any], rate: dict[str, Any], message: str) -> None:
    with pytest.raises(schema.SchemaError, match=message):
        from_array(named(**coords), **rate)


def test_time__of_a_single_frame_needs_a_rate() -> None:
    array = named(FRAMES[:, :1], time=[0.5])
    with pytest.raises(schema.SchemaError, match="for a single frame"):
        from_array(array)
    movie = from_array(array, dt=0.25)
    assert (movie.time.item(), schema.time_step(movie)) == (0.5, 0.25)


# colours


def expected_luma(colours: np.ndarray) -> np.ndarray:
    return np.asarray(colours @ np.array(LUMA_WEIGHTS), np.float32)


@pytest.mark.parametrize("lazy", [False, True])
def test_colours__channel_and_luma(lazy: bool) -> None:
    colours = da.from_array(COLOURS, chunks=(1, 3, 8, 9, 2)) if lazy else COLOURS
    for channel in ("green", 1, np.int64(1)):
        movie = from_array(colours, 30, channel=channel)
        np.testing.assert_array_equal(movie.luminance, COLOURS[..., 1].astype(np.float32))
    movie = from_array(colours, 30, grey="luma")
    assert (movie.luminance.chunks is not None) == lazy
    np.testing.assert_allclose(movie.luminance, expected_luma(COLOURS), atol=1e-6)
    assert arguments_of(movie)["grey"] == "luma"
    assert from_array(colours[0], 30, grey="luma").luminance.dims == ("time", "y", "x")


def test_colours__of_8_bit_and_alpha() -> None:
    colours = (COLOURS * 255).astype(np.uint8)
    movie = from_array(np.concatenate([colours, colours[..., :1]], axis=-1), 30, grey="luma")
    np.testing.assert_allclose(movie.luminance, expected_luma(colours / 255), atol=1e-6)
    assert from_array(np.full((1, 1, 8, 8, 3), 255, np.uint8), 30, grey="luma").luminance.max() == 1
    from_array(np.full((30, 16, 32, 3), 99, np.uint8), 30, grey="luma")  # no warning of another order of axes


def test_colours__by_name_and_label() -> None:
    array = named(COLOURS[..., ::-1], (*DIMS, "Band"), Band=["B", "G", "R"]).transpose("Band", ...)
    np.testing.assert_array_equal(from_array(array, 30, channel="red").luminance, COLOURS[..., 0].astype(np.float32))
    np.testing.assert_array_equal(from_array(array, 30, channel="B").luminance, COLOURS[..., 2].astype(np.float32))
    np.testing.assert_allclose(from_array(array, 30, grey="luma").luminance, expected_luma(COLOURS), atol=1e-6)


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize(
    "array",
    [
        np.zeros((30, 120, 160, 3), np.uint8),
        np.zeros((30, 12, 16, 4)),
        COLOURS,
        *(named(COLOURS, (*DIMS, name)) for name in ("channel", "colour", "color", "RGB", "band")),
    ],
)
def test_colours__are_not_taken_for_pixels(array: Any, lazy: bool) -> None:
    array = da.from_array(array) if lazy and isinstance(array, np.ndarray) else array.chunk() if lazy else array
    with pytest.raises(schema.SchemaError, match=r"channel='red', .* or grey='luma'"):
        from_array(array, 30)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"channel": "purple"},
            "expected channel as one of 'red', 'green', 'blue' or a position below 3, got 'purple'",
        ),
        ({"channel": 3}, "got 3"),
        ({"channel": True}, "got True"),
        ({"grey": "mean"}, "expected grey='luma', got 'mean'"),
        ({"grey": "luma", "channel": 0}, "channel or grey, got both"),
    ],
)
def test_colours__bad_choice(options: dict[str, Any], message: str) -> None:
    with pytest.raises(schema.SchemaError, match=message):
        from_array(COLOURS, 30, **options)
    with pytest.raises(schema.SchemaError, match="expected colours as 3 or 4 values"):
        from_array(FRAMES, 30, channel=0)


@pytest.mark.parametrize("lazy", [False, True])
def test_colours__out_of_range_are_seen_in_each_channel(lazy: bool) -> None:
    colours = COLOURS.copy()
    colours[0, 0, 0, 0] = [2.0, 0, 0]  # with a luma of 0.6
    with pytest.raises(schema.SchemaError, match="values from .* to 2"):
        from_array(da.from_array(colours) if lazy else colours, 30, grey="luma").luminance.compute()


@pytest.mark.parametrize("shape", [(3, 5, 1, 16), (3, 5, 16, 1), (3, 5, 4, 16), (3, 5, 2, 2)])
def test_small_frames__need_names(shape: tuple[int, ...]) -> None:
    frames = np.full(shape, 0.5)
    with pytest.raises(schema.SchemaError, match=r"at least 5 x 5 .* pass dims=\('sample', 'time', 'y', 'x'\)"):
        from_array(frames, 30)
    assert from_array(frames, 30, dims=DIMS).luminance.shape == shape
    assert from_array(named(frames), 30).luminance.shape == shape


# shapes in another order, and dark movies


@pytest.mark.parametrize("shape", [(64, 64, 30, 10), (120, 160, 50, 10), (128, 128, 100, 20)])
def test_order__of_matlab_is_suspected(shape: tuple[int, ...]) -> None:
    frames = da.full(shape, 0.5)
    with pytest.warns(FlyxrWarning, match=r"e.g. dims=\('y', 'x', 'time', 'sample'\)"):
        from_array(frames, 30)
    from_array(frames, 30, dims=DIMS)
    from_array(frames, 30, dims=("y", "x", "time", "sample"))


@given(st.integers(1, 100), st.integers(1, 100), st.integers(16, 200), st.floats(0.5, 2))
def test_order__of_ordinary_movies_is_not(n_samples: int, n_frames: int, height: int, aspect: float) -> None:
    width = max(16, min(round(height * aspect), 2 * height - 1, 200))
    if height >= 2 * width:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        from_array(da.full((n_samples, n_frames, height, width), 0.5, chunks=-1), 30)


@pytest.mark.parametrize("frames", [(FRAMES > 0.5).astype(np.uint8), FRAMES * 0.015])
def test_dark_movies__are_suspected(frames: np.ndarray) -> None:
    with pytest.warns(FlyxrWarning, match=r"nearly black: rescale=True.*multiply it by 255.*\.astype\(float\)"):
        from_array(frames, 30)
    from_array(frames, 30, rescale=True)
    from_array(frames * 0, 30)
    from_array(da.from_array(frames), 30)


# masks

MASKED = np.ma.masked_less(FRAMES, 0.3)


def masked_lists() -> list[list[Any]]:
    return [list(sequence) for sequence in MASKED]


@pytest.mark.parametrize(
    "array",
    [
        MASKED,
        list(MASKED),
        masked_lists(),
        xr.DataArray(MASKED),
        da.from_array(MASKED, chunks=1),
        xr.DataArray(da.from_array(MASKED)),
    ],
    ids=["NumPy", "list", "lists", "xarray", "dask", "xarray of dask"],
)
@pytest.mark.parametrize("rescale", [False, True])
def test_masks__are_refused_or_filled(array: Any, rescale: bool) -> None:
    with pytest.raises(schema.SchemaError, match="masked: give them a luminance, e.g. fill_value=0.5|NaN"):
        from_array(array, 30, rescale=rescale).luminance.compute()
    filled = from_array(array, 30, rescale=rescale, fill_value=0.25).luminance.values
    assert (filled[MASKED.mask] == np.float32(0.25)).all()
    low, high = (float(MASKED.min()), float(MASKED.max())) if rescale else (0.0, 1.0)
    expected = ((MASKED - low) / (high - low)).compressed()
    np.testing.assert_allclose(filled[~MASKED.mask], expected, atol=1e-6)


def test_masks__of_8_bit_colours_and_columns() -> None:
    colours = np.ma.array((COLOURS * 255).astype(np.uint8), mask=COLOURS < 0.1)
    mask = np.ma.getmaskarray(colours).any(axis=-1)
    for array in (colours, da.from_array(colours, chunks=2)):
        filled = from_array(array, 30, grey="luma", fill_value=1).luminance.values
        assert (filled[mask] == 1).all()
        np.testing.assert_allclose(filled[~mask], expected_luma(colours.data / 255)[~mask], atol=1e-6)
    with pytest.raises(schema.SchemaError, match="masked"):
        from_columns(np.ma.masked_less(COLUMNS, 0.2), dt=0.01)


def test_masks__without_masked_values_are_no_problem() -> None:
    np.testing.assert_array_equal(from_array(np.ma.array(FRAMES, mask=False), 30).luminance, FRAMES)


def test_masks__only_masked_values() -> None:
    nothing = np.ma.masked_all((1, 1, 8, 8))
    for array in (nothing, da.from_array(nothing)):
        with pytest.raises(schema.SchemaError, match="missing values only: leave rescale out"):
            from_array(array, 30, rescale=True, fill_value=0.5).luminance.compute()
        assert (from_array(array, 30, fill_value=0.5).luminance == 0.5).all()


@pytest.mark.parametrize("fill_value", [-1, 2, "grey", np.nan])
def test_masks__bad_fill_value(fill_value: Any) -> None:
    with pytest.raises(schema.SchemaError, match="fill_value as a number at least 0 and at most 1"):
        from_array(MASKED, 30, fill_value=fill_value)


# columns


def as_tensor(values: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(values).requires_grad_()


@pytest.mark.parametrize(
    "convert",
    [
        np.array,
        np.ndarray.tolist,
        da.from_array,
        as_tensor,
        lambda values: values[:, :, None],
        lambda values: as_tensor(values[:, :, None].copy()),
        lambda values: named(values, ("sample", "time", "column")).transpose(),
        lambda values: named(values[:, :, None], ("sample", "time", "channel", "column")),
        xr.DataArray,
        lambda values: xr.DataArray(values[:, :, None]),
    ],
)
def test_from_columns__takes_every_kind_of_array(convert: Any) -> None:
    array = convert(COLUMNS)
    rendering = from_columns(array, frame_rate=100, sample_coords={"angle": [0, 90]})
    assert schema.validate(rendering, "rendering").luminance.dims == ("sample", "time", "column")
    np.testing.assert_array_equal(rendering.luminance, COLUMNS)
    assert (rendering.luminance.chunks is not None) == isinstance(array, da.Array)
    assert arguments_of(rendering) == {"rescale": False, "frame_rate": 100.0}
    assert rendering.angle.values.tolist() == [0, 90]


def test_from_columns__is_in_the_order_of_the_eye() -> None:
    rendering = fx.BoxEye(2, 5).render(from_array(FRAMES, 50))
    again = from_columns(rendering.luminance.values, frame_rate=50)
    xr.testing.assert_equal(again, rendering.drop_vars(["y", "x"], errors="ignore"))
    xr.testing.assert_equal(from_columns(rendering.luminance), rendering)


def test_from_columns__checks_values_in_chunks() -> None:
    with pytest.raises(schema.SchemaError, match=r"values from 0 to 2.*from_columns\(..., rescale=True\)"):
        from_columns(np.full((2, 19), [[0.0], [2.0]]), dt=0.01)
    lazy = from_columns(da.full((2, 3, 19), 2.0), dt=0.01)
    with pytest.raises(schema.SchemaError, match="not a rendering"):
        lazy.luminance.compute()


def test_from_columns__is_simulated() -> None:
    rendering = from_columns(np.random.default_rng(0).random((2, 5, 721)), dt="10ms")
    responses = fx.simulate(rendering, fx.sample_ensemble(1, seed=0), record="central")
    assert np.isfinite(responses.response.sel(cell_type="T4c")).all()


@pytest.mark.parametrize("rescale", [False, True])
def test_laziness__nothing_is_computed(rescale: bool) -> None:
    for array in (not_computed(FRAMES), xr.DataArray(not_computed(FRAMES[0]), dims=DIMS[1:])):
        assert from_array(array, 30, rescale=rescale, fill_value=0.5).luminance.chunks is not None
    assert from_array(not_computed(COLOURS), 30, grey="luma", rescale=rescale).luminance.chunks is not None
    assert from_columns(not_computed(COLUMNS), dt=0.01, rescale=rescale).luminance.chunks is not None
