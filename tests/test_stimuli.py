"""Movies of arrays, blocks and digits: values, laziness, labels, errors.

The blocks are compared with flyvis 1.2.0 in float64 to 1e-12, before the cast to float32 and the clipping at 0.
"""

from __future__ import annotations

import json
import os
import pickle
from typing import TYPE_CHECKING, Any

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from flyxr import provenance, schema, stimuli
from flyxr.errors import FlyxrWarning
from flyxr.stimuli import base, blocks, digits

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FRAMES = np.random.default_rng(0).random((4, 5, 6, 7))


# from_array


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_from_array__labels_values_and_dtype(dtype: Any) -> None:
    movie = stimuli.from_array(FRAMES.astype(dtype), 25)
    schema.validate(movie, "movie")
    assert movie.luminance.dims == ("sample", "time", "y", "x")
    assert movie.luminance.dtype == np.float32
    np.testing.assert_array_equal(movie.luminance, FRAMES.astype(dtype).astype(np.float32))
    np.testing.assert_array_equal(movie.time, np.arange(5) / 25)
    assert schema.time_step(movie) == 0.04
    for name, length in (("sample", 4), ("y", 6), ("x", 7)):
        np.testing.assert_array_equal(movie[name], np.arange(length))
    (step,) = provenance.steps(movie)
    assert step["operation"] == "from_array"
    assert step["arguments"] == {"rescale": False, "frame_rate": 25.0}


def test_from_array__uint8_and_bool_are_scaled() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    np.testing.assert_array_equal(
        stimuli.from_array(levels, 25).luminance.values, levels.astype(np.float32) / np.float32(255)
    )
    assert set(np.unique(stimuli.from_array(levels > 9, 25).luminance)) == {0, 1}


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.uint8, np.int16, np.int64])
def test_from_array__rescale_maps_the_whole_range(dtype: Any, lazy: bool) -> None:
    raw = (FRAMES * 50 + 10).astype(dtype)
    movie = stimuli.from_array(da.from_array(raw, chunks=(2, 3, 6, 4)) if lazy else raw, 25, rescale=True)
    expected = (raw.astype(float) - raw.min()) / (float(raw.max()) - raw.min())
    np.testing.assert_allclose(movie.luminance, expected, atol=1e-6)
    assert movie.luminance.min() == 0
    assert movie.luminance.max() == 1


@given(st.tuples(*(st.integers(1, n) for n in FRAMES.shape)), st.booleans())
def test_from_array__chunked_equals_unchunked(chunks: tuple[int, ...], rescale: bool) -> None:
    lazy = stimuli.from_array(da.from_array(FRAMES, chunks=chunks), 25, rescale=rescale)
    assert lazy.luminance.data.chunksize == chunks
    np.testing.assert_array_equal(lazy.luminance, stimuli.from_array(FRAMES, 25, rescale=rescale).luminance)


@pytest.mark.parametrize("rescale", [False, True])
def test_from_array__dask_computes_nothing(rescale: bool, counting_scheduler: Any) -> None:
    movie = stimuli.from_array(da.from_array(FRAMES, chunks=2), 25, rescale=rescale)
    assert counting_scheduler.calls == 0
    assert movie.luminance.chunks is not None


def test_from_array__memory_map_stays_lazy(tmp_path: Path) -> None:
    np.save(tmp_path / "frames.npy", FRAMES)
    movie = stimuli.from_array(np.load(tmp_path / "frames.npy", mmap_mode="r"), 25)
    assert movie.luminance.chunks is not None
    np.testing.assert_array_equal(movie.luminance, FRAMES.astype(np.float32))


@pytest.mark.parametrize(("value", "message"), [(1.5, "1.5"), (-0.5, "-0.5"), (np.nan, "NaN"), (-np.inf, "infinity")])
def test_from_array__lazy_values_are_checked_in_the_chunks(value: float, message: str) -> None:
    bad = FRAMES.copy()
    bad[3, 0, 0, 0] = value
    movie = stimuli.from_array(da.from_array(bad, chunks=(1, 5, 6, 7)), 25)
    movie.luminance[:3].compute()
    with pytest.raises(schema.SchemaError, match=message):
        movie.luminance.compute()


def test_from_array__dataarray_by_name_and_by_position() -> None:
    named = xr.DataArray(
        FRAMES, dims=("sample", "time", "y", "x"), coords={"sample": [7, 8, 9, 11], "angle": ("sample", range(4))}
    )
    movie = stimuli.from_array(named.transpose("y", "x", "time", "sample"), 25)
    np.testing.assert_array_equal(movie.luminance, FRAMES.astype(np.float32))
    assert list(movie.sample.values) == [7, 8, 9, 11]
    assert list(movie.angle.values) == [0, 1, 2, 3]
    renamed = named.rename(sample="trial", time="frame", y="row", x="col")
    with pytest.warns(FlyxrWarning, match="'trial' is 'sample'"):
        movie = stimuli.from_array(renamed, 25)
    np.testing.assert_array_equal(movie.luminance, FRAMES.astype(np.float32))
    assert list(movie.angle.values) == [0, 1, 2, 3]


def test_from_array__text_coordinates_are_objects() -> None:
    movie = stimuli.from_array(FRAMES, 25, sample_coords={"name": ["a", "b", "c", "dd"]})
    assert movie["name"].dtype == object


@pytest.mark.parametrize(
    ("array", "lines"),
    [
        (np.zeros((3, 4, 5)), ["array[np.newaxis]"]),
        (np.zeros((3, 4)), ["array[np.newaxis, np.newaxis]"]),
        (np.zeros((1, 2, 3, 4, 3)), ["channel='red'", "grey='luma'"]),
        (np.float64(0), ["got 0 with shape ()"]),
        (np.full((1, 1, 1, 2), [0, 2.0]), ["values from 0 to 2", "fx.stimuli.from_array(..., rescale=True)"]),
        (np.full((1, 1, 1, 2), [0, -0.5]), ["values from -0.5 to 0"]),
        (np.full((1, 1, 1, 2), [0, np.nan]), ["NaN or infinity in 1 of 2 values", "np.nan_to_num"]),
        (np.full((1, 1, 1, 2), [7, np.inf]), ["NaN or infinity in 1 of 2 values", "values from 7 to 7"]),
        (np.zeros((1, 2, 3, 4), int), ["got int64", "rescale=True"]),
        (np.zeros((1, 2, 3, 4), complex), ["got complex128", ".astype(float)"]),
        (np.zeros((0, 2, 3, 4)), ["none along sample"]),
        (np.zeros((1, 0, 3, 4)), ["none along time"]),
    ],
)
def test_from_array__problems_are_named(array: Any, lines: list[str]) -> None:
    with pytest.raises(schema.SchemaError) as caught:
        stimuli.from_array(array, 25)
    for line in lines:
        assert line in str(caught.value)


def test_from_array__unknown_chunk_sizes() -> None:
    unknown = da.from_array(FRAMES)[da.from_array(np.arange(4)) > 1]
    with pytest.raises(schema.SchemaError, match="compute_chunk_sizes"):
        stimuli.from_array(unknown, 25)


@pytest.mark.parametrize("frame_rate", [0, -1, np.nan, np.inf, None, "fast"])
def test_from_array__bad_frame_rate(frame_rate: Any) -> None:
    with pytest.raises(schema.SchemaError, match="positive frame_rate"):
        stimuli.from_array(FRAMES, frame_rate)


def test_from_array__all_problems_in_one_error() -> None:
    with pytest.raises(ValueError, match="not a movie") as caught:
        stimuli.from_array(np.full((2, 3, 4), 3.0), -1, sample_coords={"angle": [1], "time": [0, 1]})
    message = str(caught.value)
    assert message.count("\n- ") == 5
    for part in ("4 dims", "frame_rate", "2 values of 'angle'", "another name", "values from 3 to 3"):
        assert part in message


def test_from_array__rescale_needs_two_values() -> None:
    grey = np.full((1, 1, 8, 8), 7)
    with pytest.raises(schema.SchemaError, match="two different values"):
        stimuli.from_array(grey, 25, rescale=True)
    with pytest.raises(schema.SchemaError, match="two different values"):
        stimuli.from_array(da.from_array(grey), 25, rescale=True).luminance.compute()
    with pytest.raises(schema.SchemaError, match="NaN"):
        stimuli.from_array(np.full((1, 1, 1, 2), [0, np.nan]), 25, rescale=True)


@pytest.mark.parametrize("rescale", [False, True])
def test_from_array__caller_array_is_untouched(rescale: bool) -> None:
    frames = FRAMES.astype(np.float32)
    frames.flags.writeable = False
    labelled = xr.DataArray(frames, dims=("sample", "time", "y", "x"), coords={"sample": range(4)})
    before = labelled.copy(deep=True)
    stimuli.from_array(frames, 25, rescale=rescale)
    stimuli.from_array(labelled, 25, rescale=rescale, sample_coords={"angle": range(4)})
    xr.testing.assert_identical(labelled, before)
    assert labelled.sample.attrs == {}


# random_walk_of_blocks


def test_walk__equals_flyvis(golden: Callable[[str], dict[str, np.ndarray]]) -> None:
    misc = golden("misc.npz")
    for case in ("rw0", "rw1"):
        frames = blocks._walk(**json.loads(str(misc[f"{case}_kwargs_json"])))
        np.testing.assert_array_equal(frames.shape, misc[f"{case}_shape"])
        np.testing.assert_allclose(frames.sum((2, 3)), misc[f"{case}_sum_per_frame"], rtol=0, atol=1e-9)
        rows = frames[0, -1].sum(1)
        np.testing.assert_allclose(rows, misc[f"{case}_row_sums_first_sample_last_frame"], rtol=0, atol=1e-11)
    np.testing.assert_allclose(frames, misc["rw1_full"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(blocks._walk()[[0, -1], [0, -1]], misc["rw0_frames"], rtol=0, atol=1e-12)


def test_random_walk_of_blocks__equals_the_walk() -> None:
    movie = stimuli.random_walk_of_blocks(frame_rate=24)
    schema.validate(movie, "movie")
    assert movie.luminance.shape == (3, 20, 64, 64)
    assert schema.time_step(movie) == 1 / 24
    np.testing.assert_array_equal(movie.luminance, blocks._walk().astype(np.float32))


def test_random_walk_of_blocks__noise_below_zero_is_clipped() -> None:
    arguments = {"noise_std": 0.5, "dataset_size": (1, 3, 32, 32)}
    raw = blocks._walk(**arguments)  # type: ignore[arg-type]
    assert raw.min() < 0
    movie = stimuli.random_walk_of_blocks(**arguments)  # type: ignore[arg-type]
    np.testing.assert_array_equal(movie.luminance, np.maximum(raw, 0).astype(np.float32))


def test_random_walk_of_blocks__p_random_has_no_effect_and_seed_has() -> None:
    arguments = {"dataset_size": [1, 3, 32, 32]}
    movie = stimuli.random_walk_of_blocks(**arguments)  # type: ignore[arg-type]
    same = stimuli.random_walk_of_blocks(**arguments, p_random=0.1)  # type: ignore[arg-type]
    np.testing.assert_array_equal(same.luminance, movie.luminance)
    other_seed = stimuli.random_walk_of_blocks(**arguments, seed=1)  # type: ignore[arg-type]
    assert (other_seed.luminance != movie.luminance).any()


def test_random_walk_of_blocks__global_generator_is_not_used() -> None:
    before = np.random.get_state()[1].copy()  # type: ignore[index,union-attr] # noqa: NPY002
    stimuli.random_walk_of_blocks(dataset_size=(1, 2, 16, 16))
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # type: ignore[index] # noqa: NPY002


def test_random_walk_of_blocks__errors() -> None:
    with pytest.raises(schema.SchemaError, match="y equal to x") as caught:
        stimuli.random_walk_of_blocks(dataset_size=(1, 2, 16, 17), block_size=0, frame_rate=0)
    assert str(caught.value).count("\n- ") == 3
    with pytest.raises(schema.SchemaError, match="four counts"):
        stimuli.random_walk_of_blocks(dataset_size=(1, 16, 16))
    with pytest.raises(schema.SchemaError, match="positive finite maximum"):
        stimuli.random_walk_of_blocks(noise_mean=-5, dataset_size=(1, 2, 16, 16))


# moving_digits


def test_moving_digits__labels_and_range() -> None:
    movie = stimuli.moving_digits(n_samples=6, n_frames=8, n_digits=3, frame_rate=24)
    schema.validate(movie, "movie")
    assert movie.luminance.shape == (6, 8, 64, 64)
    assert movie.luminance.dtype == np.float32
    assert schema.time_step(movie) == 1 / 24
    luminance = movie.luminance.compute()
    assert luminance.min() == 0
    assert 0.9 < luminance.max() <= 1
    assert all(len(name.split()) == 3 and name.replace(" ", "").isdigit() for name in movie.digit.values)


def test_moving_digits__building_draws_nothing(counting_scheduler: Any) -> None:
    n_enlarged = digits._enlarged_digits.cache_info().misses
    movie = stimuli.moving_digits(n_samples=1000, digit_size=29)
    assert counting_scheduler.calls == 0
    assert digits._enlarged_digits.cache_info().misses == n_enlarged
    assert len(movie.luminance.chunks[0]) == 63
    assert movie.luminance.nbytes > 3e8


@given(
    n_samples=st.integers(1, 6),
    chunk=st.integers(1, 7),
    n_frames=st.integers(1, 12),
    seed=st.integers(0, 2**40),
)
def test_moving_digits__sequence_depends_on_seed_and_index_only(
    n_samples: int, chunk: int, n_frames: int, seed: int
) -> None:
    many = stimuli.moving_digits(6, seed, 12, size=24, sample_chunk=6)
    few = stimuli.moving_digits(n_samples, seed, n_frames, size=24, sample_chunk=chunk)
    xr.testing.assert_equal(few.compute(), many.isel(sample=slice(n_samples), time=slice(n_frames)).compute())


def test_moving_digits__seeds_and_samples_differ() -> None:
    first, second = (stimuli.moving_digits(2, seed, 3).luminance.values for seed in (1, 2))
    assert (first != second).any()
    assert (first[0] != first[1]).any()


def test_moving_digits__move_at_constant_speed_and_bounce() -> None:
    elapsed = np.arange(200)[:, None]
    path = digits._bounce(np.array([[10.0, 30.0]]) + elapsed * 3.6 * np.array([[0.6, 0.8]]), 36)
    steps = np.abs(np.diff(path, axis=0))
    assert path.min() == 0
    assert path.max() == 36
    assert steps.max() <= np.ceil(3.6 * 0.8)
    is_inside = (path[1:-1] > 3) & (path[1:-1] < 33)
    has_turned = np.sign(np.diff(path[1:], axis=0)) != np.sign(np.diff(path[:-1], axis=0))
    assert not (has_turned & is_inside).any()
    assert has_turned.any(axis=0).all()


def test_moving_digits__overlap_shows_the_brighter() -> None:
    arguments = {"seed": 3, "n_frames": 20, "size": 40, "digit_size": 28, "speed": 3.6}
    both = digits._draw_sequences(np.array([5]), n_digits=2, **arguments)  # type: ignore[arg-type]
    digit, start, direction = digits._draw_paths(3, 5, 2)
    separate = np.zeros((2, *both.shape[1:]), np.float32)
    for number in range(2):
        path = start[number] * 12 + np.arange(20)[:, None] * 3.6 * direction[number]
        for frame, (y, x) in zip(separate[number], digits._bounce(path, 12), strict=True):
            frame[y : y + 28, x : x + 28] = digits._enlarged_digits(28)[digit[number]]
    assert (separate.min(0) > 0.5).any()
    np.testing.assert_array_equal(both[0], separate.max(0))


def test_moving_digits__label_names_the_digit_drawn() -> None:
    movie = stimuli.moving_digits(20, n_frames=1, size=28, digit_size=28, n_digits=1)
    labels = digits._handwritten()[1]
    enlarged = digits._enlarged_digits(28)
    for sample, name in enumerate(movie.digit.values):
        frame = movie.luminance.isel(sample=sample, time=0).values
        (match,) = np.unique(labels[(enlarged == frame).all((1, 2))])
        assert str(match) == name


def test_enlarged_digits__are_smooth_and_like_the_original() -> None:
    images, _ = digits._handwritten()
    enlarged = digits._enlarged_digits(32)
    assert enlarged.min() == 0
    assert enlarged.max() <= 1
    coarse = enlarged.reshape(-1, 8, 4, 8, 4).mean((2, 4))
    assert np.corrcoef(coarse.ravel(), images.ravel())[0, 1] > 0.97
    jumps = np.abs(np.diff(enlarged, axis=-1)).max()
    assert jumps < 0.6 * np.abs(np.diff(images, axis=-1)).max()


def test_moving_digits__errors_together() -> None:
    with pytest.raises(schema.SchemaError) as caught:
        stimuli.moving_digits(0, -1, n_frames=1.5, frame_rate=0, speed=-1)  # type: ignore[arg-type]
    for part in ("n_samples", "n_frames", "frame_rate", "seed", "speed"):
        assert part in str(caught.value)
    with pytest.raises(schema.SchemaError, match="digit_size from 1 to size=20, got 28"):
        stimuli.moving_digits(size=20, digit_size=28)


# shared


def test_generate__graph_is_small_and_chunks_are_bounded() -> None:
    lazy = stimuli.moving_digits(n_samples=64, sample_chunk=8).luminance.data
    assert len(pickle.dumps(lazy)) < 20_000
    assert base.generate(len, 100, (1024, 64, 64)).chunks[0] == (1,) * 100  # type: ignore[arg-type]


def test_stimuli__import_is_light() -> None:
    import subprocess
    import sys

    code = (
        "import sys, flyxr.stimuli, flyxr.eye;"
        "print([m for m in ('torch','scipy','sklearn','pooch','imageio','av','holoviews','dask.array') "
        "if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ}
    )
    assert result.stdout.strip() == "[]"


def test_movies__run_on_any_scheduler() -> None:
    movie = stimuli.moving_digits(4, n_frames=3, size=32, sample_chunk=1)
    results = []
    for scheduler in ("synchronous", "threads"):
        with dask.config.set(scheduler=scheduler):
            results.append(movie.luminance.values)
    np.testing.assert_array_equal(*results)


def test_from_array__sample_coords_are_matched_by_label() -> None:
    frames = np.arange(3 * 2 * 4 * 4, dtype=np.uint8).reshape(3, 2, 4, 4)
    labelled = xr.DataArray(frames, dims=("sample", "time", "y", "x"), coords={"sample": [7, 3, 5]})
    angle = xr.DataArray([30, 50, 70, 90], dims="sample", coords={"sample": [3, 5, 7, 9]})
    for array in (labelled, labelled.transpose("y", "x", "time", "sample")):
        assert stimuli.from_array(array, 25, sample_coords={"angle": angle}).angle.values.tolist() == [70, 30, 50]
    named = labelled.assign_coords(sample=["c", "a", "b"])
    text_labels = angle.isel(sample=slice(3)).assign_coords(sample=["a", "b", "c"])
    assert stimuli.from_array(named, 25, sample_coords={"angle": text_labels}).angle.values.tolist() == [70, 30, 50]
    bare = angle.isel(sample=slice(3)).drop_vars("sample")
    assert stimuli.from_array(labelled, 25, sample_coords={"angle": bare}).angle.values.tolist() == [30, 50, 70]
    with pytest.raises(schema.SchemaError, match=r"expected 'angle' for each sample of the array, got none for \[7\]"):
        stimuli.from_array(labelled, 25, sample_coords={"angle": angle.isel(sample=[0, 1])})
    with pytest.raises(schema.SchemaError, match="each label of 'angle' once"):
        stimuli.from_array(labelled, 25, sample_coords={"angle": angle.isel(sample=[0, 1, 2, 2])})


def test_provenance__records_arguments_with_their_defaults() -> None:
    def arguments(stimulus: xr.Dataset) -> dict[str, Any]:
        (step,) = provenance.steps(stimulus)
        return dict(step["arguments"])

    assert arguments(stimuli.moving_digits(2, np.int64(3), 5, size=32, speed=1)) == {  # type: ignore[arg-type]
        "seed": 3,
        "n_frames": 5,
        "size": 32,
        "n_digits": 2,
        "frame_rate": 30.0,
        "digit_size": 14,
        "speed": 1.0,
    }
    assert arguments(stimuli.impulses([(0, 0), 5], np.array([0.25]), dt=0.01, extent=1)) == {
        "position": [[0, 0], [1, -1]],
        "intensities": [0.25],
        "duration": 0.01,
        "t_pre": 1.0,
        "t_post": 1.0,
        "dt": 0.01,
        "extent": 1,
    }
    blocks_arguments = arguments(stimuli.random_walk_of_blocks(dataset_size=np.array([1, 2, 16, 16])))
    assert blocks_arguments["dataset_size"] == [1, 2, 16, 16]
    assert arguments(stimuli.natural_motion(0, 5, (), (), photographs="china", extent=1))["photographs"] == ["china"]
    assert stimuli.moving_digits.__name__ == "moving_digits"
