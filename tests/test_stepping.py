"""The stepper gives the numbers of a simulation, frame by frame, and its mistakes leave the state alone."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import re
import resource
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import flyxr as fx
from flyxr import hexgrid, simulation
from flyxr.engine import ENGINES, stencil

DT = 1 / 100
STATE_DIMS = ("model", "sample", "cell_type", "column")
PAGE = Path(__file__).parents[1] / "docs/closed-loop.md"


@pytest.fixture(scope="module")
def connectome() -> xr.Dataset:
    return fx.open_connectome(extent=2)


@pytest.fixture(scope="module")
def models(connectome: xr.Dataset) -> xr.Dataset:
    models = fx.sample_ensemble(3, seed=0, connectome=connectome)
    return models.assign(synapse_strength=0.1 * models["synapse_strength"])


def frames(n_samples: int, n_frames: int = 12, extent: int = 2) -> xr.Dataset:
    rng = np.random.default_rng(0)
    luminance = rng.random((n_samples, n_frames, hexgrid.n_columns(extent)), dtype=np.float32)
    return fx.stimuli.from_columns(luminance, frame_rate=1 / DT)


def run(stepper: fx.Stepper, rendering: xr.Dataset) -> np.ndarray:
    """Responses (model, sample, time, cell_type, column)."""
    return np.stack([stepper.step(frame) for frame in rendering["luminance"].values.swapaxes(0, 1)], axis=2)


@pytest.mark.parametrize("engine", list(ENGINES))
@pytest.mark.parametrize("n_samples", [1, 2, 9])
@pytest.mark.parametrize("record", ["central", "all", {"cell_type": ["T4*", "Lawf1", "L1"], "column": [3, 9]}])
@pytest.mark.parametrize("initial_state", ["steady_state", "rest"])
def test_step__has_the_bits_of_a_simulation(
    models: xr.Dataset, connectome: xr.Dataset, engine: str, n_samples: int, record: Any, initial_state: Any
) -> None:
    rendering, options = frames(n_samples), {"record": record, "initial_state": initial_state, "engine": engine}
    stepper = fx.Stepper(models, DT, n_samples=n_samples, connectome=connectome, **options)
    expected = fx.simulate(rendering, models, connectome=connectome, **options)
    responses = run(stepper, rendering)
    np.testing.assert_array_equal(responses, expected["response"].values)
    assert responses.dtype == np.float32
    labelled = stepper.labels.assign(response=(STATE_DIMS, responses[:, :, -1]))
    xr.testing.assert_identical(
        labelled["response"].drop_attrs(), expected["response"].isel(time=-1, drop=True).drop_attrs()
    )


@given(st.integers(1, 4), st.integers(1, 9), st.integers(1, 4))
def test_step__has_the_bits_of_a_simulation_with_any_sizes(n_models: int, n_samples: int, n_threads: int) -> None:
    connectome = fx.open_connectome(extent=1)
    models = fx.sample_ensemble(n_models, seed=0, connectome=connectome)
    rendering = frames(n_samples, 3, extent=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stencil.base, "n_threads", lambda: n_threads)
        stepper = fx.Stepper(models, DT, n_samples=n_samples, connectome=connectome, initial_state="rest")
        responses = run(stepper, rendering)
    expected = fx.simulate(rendering, models, record="central", initial_state="rest", connectome=connectome)
    np.testing.assert_array_equal(responses, expected["response"].values)


def test_step__on_a_device_equals_the_cpu(models: xr.Dataset, connectome: xr.Dataset, device: str) -> None:
    rendering = frames(2)
    stepper = fx.Stepper(models, DT, n_samples=2, connectome=connectome, engine="sparse", device=device)
    reference = fx.Stepper(models, DT, n_samples=2, connectome=connectome, engine="reference")
    np.testing.assert_allclose(run(stepper, rendering), run(reference, rendering), atol=1e-5)


def test_step__takes_labelled_frames_in_any_order(models: xr.Dataset, connectome: xr.Dataset) -> None:
    rendering = frames(2, 1)
    stepper = fx.Stepper(models, n_samples=2, connectome=connectome)
    expected = run(stepper, rendering)[:, :, 0]
    frame, order = rendering.isel(time=0), np.random.default_rng(1).permutation(19)
    for given_frame in (
        frame,
        frame["luminance"],
        frame["luminance"].T,
        frame.isel(column=order),
        frame["luminance"].drop_vars(["u", "v"]).isel(column=order),
        frame["luminance"].values.tolist(),
    ):
        stepper.reset()
        np.testing.assert_array_equal(stepper.step(given_frame), expected)
    single = fx.Stepper(models, connectome=connectome)
    np.testing.assert_array_equal(single.step(frame["luminance"][0])[:, 0], expected[:, 0])


def test_step__writes_to_out(models: xr.Dataset, connectome: xr.Dataset) -> None:
    stepper = fx.Stepper(models, n_samples=2, connectome=connectome, record=["Lawf1", "T4c"])
    frame, out = np.full((2, 19), 0.3), np.zeros((3, 2, 2, 19), np.float32)
    assert stepper.step(frame, out=out) is out
    first = out.copy()
    stepper.reset()
    again = stepper.step(frame)
    np.testing.assert_array_equal(again, first)
    stepper.step(np.ones((2, 19)))
    np.testing.assert_array_equal(again, first)  # a result stays as it is
    for wrong in (np.zeros((3, 2, 2, 18), np.float32), np.zeros((3, 2, 2, 19)), [1, 2]):
        with pytest.raises(fx.errors.InputError, match=r"expected out as a float32 array of shape \(3, 2, 2, 19\)"):
            stepper.step(frame, out=wrong)  # type: ignore[arg-type]


def test_state__is_that_of_simulate_and_goes_back(models: xr.Dataset, connectome: xr.Dataset) -> None:
    rendering = frames(2)
    stepper = fx.Stepper(models, DT, n_samples=2, connectome=connectome)
    run(stepper, rendering.isel(time=slice(0, 5)))
    state, rest = stepper.state, run(stepper, rendering.isel(time=slice(5, None)))
    last = fx.simulate(
        rendering.isel(time=slice(0, 5)), models, connectome=connectome, initial_state="steady_state"
    ).isel(time=-1)
    np.testing.assert_array_equal(state["response"], last["response"])
    later = rendering.isel(time=slice(5, None))
    continued = fx.simulate(later, models, connectome=connectome, initial_state=state, record="central")
    np.testing.assert_array_equal(rest, continued["response"])
    for same_state in (state, last, state["response"], state.isel(model=[2, 0, 1], column=slice(None, None, -1))):
        stepper.state = same_state
        np.testing.assert_array_equal(run(stepper, later), rest)
        fresh = fx.Stepper(models, DT, n_samples=2, connectome=connectome, initial_state=same_state)
        np.testing.assert_array_equal(run(fresh, later), rest)
        fresh.reset()
        np.testing.assert_array_equal(run(fresh, later), rest)
    stepper.state = state.isel(sample=0)  # for both samples
    np.testing.assert_array_equal(stepper.state["response"][:, 0], stepper.state["response"][:, 1])


def test_time__is_that_of_the_next_frame(models: xr.Dataset, connectome: xr.Dataset) -> None:
    stepper = fx.Stepper(models, DT, connectome=connectome)
    assert stepper.time == 0
    run(stepper, frames(1))
    assert stepper.time == pytest.approx(0.12)
    assert "model: 3, sample: 1, cell_type: 65, column: 1" in repr(stepper)
    stepper.reset()
    assert stepper.time == 0


@pytest.mark.parametrize("engine", list(ENGINES))
def test_stepper__pickles_with_its_state(models: xr.Dataset, connectome: xr.Dataset, engine: str) -> None:
    rendering = frames(2)
    stepper = fx.Stepper(models, DT, n_samples=2, connectome=connectome, engine=engine, record=["T4*"])
    run(stepper, rendering)
    copy = pickle.loads(pickle.dumps(stepper))
    assert (copy.time, repr(copy)) == (stepper.time, repr(stepper))
    np.testing.assert_array_equal(run(copy, rendering), run(stepper, rendering))
    copy.reset()
    stepper.reset()
    np.testing.assert_array_equal(run(copy, rendering), run(stepper, rendering))


def test_stepper__one_for_each_thread(models: xr.Dataset, connectome: xr.Dataset) -> None:
    rendering = frames(9, 6)
    steppers = [fx.Stepper(models, DT, n_samples=9, connectome=connectome) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        first, *others = pool.map(lambda stepper: run(stepper, rendering), steppers)
    for other in others:
        np.testing.assert_array_equal(other, first)


WRONG_FRAMES: dict[str, tuple[Any, str]] = {
    "columns": (np.full((2, 18), 0.5), r"\(sample, column\) = \(2, 19\), got \(2, 18\)"),
    "samples": (np.full((3, 19), 0.5), r"\(2, 19\), got \(3, 19\)"),
    "no sample": (np.full(19, 0.5), r"\(2, 19\), got \(19,\)"),
    "nan": (np.where(np.arange(19) == 3, np.nan, np.full((2, 19), 0.5)), "NaN or infinity in 2 of 38 values"),
    "infinity": (np.full((2, 19), np.inf), "NaN or infinity"),
    "range": (np.full((2, 19), 255), "luminance from 0 to 1, got values from 255 to 255"),
    "negative": (np.full((2, 19), -0.5), "luminance from 0 to 1"),
    "text": ("grey", "as numbers"),
    "ragged": ([[0.5], [0.5, 0.5]], "as numbers"),
    "nothing": (None, "frame of shape|as numbers"),
    "time": (frames(2, 3)["luminance"], "dims sample and column"),
    "half of the lattice": (frames(2, 1)["luminance"].isel(time=0, column=slice(9)), "19 columns"),
    "other variable": (xr.Dataset({"response": ("column", np.zeros(19))}), "with 'luminance'"),
}


@pytest.mark.parametrize("wrong", list(WRONG_FRAMES))
def test_step__of_a_wrong_frame_leaves_the_state(models: xr.Dataset, connectome: xr.Dataset, wrong: str) -> None:
    stepper = fx.Stepper(models, DT, n_samples=2, connectome=connectome)
    run(stepper, frames(2, 3))
    before, time = stepper.state, stepper.time
    frame, message = WRONG_FRAMES[wrong]
    with pytest.raises(fx.errors.FlyxrError, match=message):
        stepper.step(frame)
    assert stepper.time == time
    xr.testing.assert_identical(stepper.state, before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dt": 0, "n_samples": 0}, "(?s)dt as a duration above 0.*n_samples as an integer of at least 1"),
        ({"dt": 1.0}, "step of at most 0.2 s"),
        ({"initial_state": "fade_in"}, "'fade_in' depends on the first frame"),
        ({"initial_state": 3}, "or a state with 'response', got 3"),
        ({"initial_state": xr.Dataset()}, "got a Dataset without it"),
        ({"record": {"time": slice(0, 1)}}, "record without time"),
        ({"record": ["T9"]}, "T9"),
        ({"engine": "stencil", "device": "cuda"}, "computes on the CPU"),
    ],
)
def test_stepper__of_wrong_arguments(
    models: xr.Dataset, connectome: xr.Dataset, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(fx.errors.FlyxrError, match=message):
        fx.Stepper(models, **{"connectome": connectome, **options})


def test_state__set_to_something_else(models: xr.Dataset, connectome: xr.Dataset) -> None:
    stepper = fx.Stepper(models, connectome=connectome)
    before = stepper.state
    for wrong in ("rest", before["response"].isel(column=0), before["response"] * np.nan, 3):
        with pytest.raises(fx.errors.FlyxrError, match="state|potential"):
            stepper.state = wrong
        xr.testing.assert_identical(stepper.state, before)


def test_step__says_which_model_diverged(models: xr.Dataset, connectome: xr.Dataset) -> None:
    unstable = models.assign(synapse_strength=(1000 * models["synapse_strength"]).where(models["model"] == 1, 0.0))
    stepper = fx.Stepper(unstable, 1 / 50, connectome=connectome, initial_state="rest", record="all")
    name = str(models["model_name"].values[1])
    bright = np.ones((500, 1, 19), np.float32)
    with pytest.raises(simulation.DivergedError, match=f"model {name} grow without bound"):
        run(stepper, fx.stimuli.from_columns(bright.swapaxes(0, 1), frame_rate=50))


def test_step__of_a_long_loop_needs_no_more_memory(models: xr.Dataset, connectome: xr.Dataset) -> None:
    stepper = fx.Stepper(models, DT, n_samples=2, connectome=connectome, record="all")
    frame = np.full((2, 19), 0.5, np.float32)

    def run_seconds(seconds: float) -> int:
        for _ in range(round(seconds / DT)):
            responses = stepper.step(frame)
            frame[:] = np.clip(0.5 + np.nan_to_num(responses[0, :, 0]), 0, 1)  # the stimulus follows the responses
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    before = run_seconds(5)
    assert run_seconds(60) - before < 2**10  # kB; every step's responses would take 30 MB
    assert stepper.time == pytest.approx(65)


def test_stepper__nothing_is_compiled_in_a_step() -> None:
    from flyxr.engine import kernels

    connectome = fx.open_connectome(extent=1)
    stepper = fx.Stepper(fx.sample_ensemble(1, seed=0, connectome=connectome), connectome=connectome)
    n_compiled = len(kernels.advance.signatures)
    stepper.step(np.zeros(7))
    stepper.step(np.asfortranarray(np.zeros((1, 7))))
    assert len(kernels.advance.signatures) == n_compiled


def test_stepper__of_selected_models(models: xr.Dataset, connectome: xr.Dataset) -> None:
    one = fx.Stepper(models.isel(model=1), connectome=connectome)
    all_models = fx.Stepper(models, connectome=connectome)
    np.testing.assert_array_equal(one.step(np.ones(19)), all_models.step(np.ones(19))[1:2])


def test_page__example_runs_and_prints_what_it_says() -> None:
    text = PAGE.read_text()
    example, expected = re.search(r"(?s)draws a small world.*?```python\n(.*?)```.*?```text\n(.*?)```", text).groups()  # type: ignore[union-attr]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(example, str(PAGE), "exec"), {})
    assert printed.getvalue() == expected


def test_page__first_example_runs() -> None:
    example = re.search(r"(?s)```python\n(.*?)```", PAGE.read_text())[1]  # type: ignore[index]
    exec(compile(example, str(PAGE), "exec"), {})


def test_page__mirrors_the_right_eye() -> None:
    code = re.search(r"mirrored = (.*?)  #", PAGE.read_text())[1]  # type: ignore[index]
    u, v = hexgrid.columns(15)
    mirrored = eval(code, {"np": np, "u": u, "v": v})
    x, y = hexgrid.positions(u, v)
    np.testing.assert_allclose(x[mirrored], -x)
    np.testing.assert_allclose(y[mirrored], y)


FLYGYM = """
import sys
import numpy as np
from flygym.vision.retina import Retina
retina = Retina()
picture = np.zeros((*retina.ommatidia_id_map.shape, 3), np.uint8)
picture[100:420, 120:170] = 255  # an L: its stem on the left, its foot on the right
picture[370:420, 120:330] = 255
readouts = retina.raw_image_to_hex_pxls(picture)
np.savez(sys.argv[1], readouts=readouts, id_map=retina.ommatidia_id_map, picture=picture)
"""


@pytest.mark.peer
@pytest.mark.timeout(600)
def test_from_flygym__keeps_a_scene_upright(tmp_path: Path) -> None:
    python = os.environ.get("FLYXR_FLYGYM")
    if python is None:
        pytest.skip("set FLYXR_FLYGYM to a Python that has flygym 1 or 2")
    environment = {**os.environ, "PYTHONPATH": "", "MUJOCO_GL": "disable"}
    command = [python, "-W", "ignore", "-c", FLYGYM, str(tmp_path / "seen.npz")]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr[-3000:]
    with np.load(tmp_path / "seen.npz") as arrays:
        readouts, id_map, picture = arrays["readouts"], arrays["id_map"], arrays["picture"]
    luminance = fx.eye.from_flygym(readouts)
    assert luminance.shape == (721,)
    # Where FlyGym has its ommatidia in the picture, in units of the distance between neighbours.
    row, column = np.indices(id_map.shape)
    n_pixels = np.bincount(id_map.ravel())
    x = np.bincount(id_map.ravel(), column.ravel())[1:] / n_pixels[1:]
    y = -np.bincount(id_map.ravel(), row.ravel())[1:] / n_pixels[1:]
    own_x, own_y = hexgrid.positions(*hexgrid.columns(15))
    pitch = (x.max() - x.min()) / (own_x.max() - own_x.min())
    np.testing.assert_allclose(fx.eye.from_flygym((x - x.mean()) / pitch), own_x, atol=0.05)
    np.testing.assert_allclose(fx.eye.from_flygym((y - y.mean()) / pitch), own_y, atol=0.05)
    # The eye here sees the same L.
    movie = fx.stimuli.from_array(picture[None, None, 5:-5, 5:-5, 0] / np.float32(255), frame_rate=100)
    seen = fx.HexEye(extent=15).render(movie)["luminance"].values.squeeze()
    assert np.corrcoef(seen, luminance)[0, 1] > 0.9
    assert np.corrcoef(seen, fx.eye.from_flygym(readouts[::-1]))[0, 1] < 0.5
    np.testing.assert_array_equal(fx.eye.to_flygym(luminance), readouts.max(axis=-1).astype(np.float32))


def test_from_flygym__of_two_eyes() -> None:
    rng = np.random.default_rng(0)
    values, is_pale = rng.random((2, 721)), rng.random(721) < 0.3
    channels = np.stack([np.where(is_pale, 0, values), np.where(is_pale, values, 0)], axis=-1)
    luminance = fx.eye.from_flygym(channels)
    np.testing.assert_array_equal(luminance, fx.eye.from_flygym(values))
    np.testing.assert_array_equal(fx.eye.to_flygym(luminance), values.astype(np.float32))
    x, y = hexgrid.positions(*hexgrid.columns(15))
    order = fx.eye.to_flygym(np.stack([x, -y]))
    assert (np.diff(order[0]) >= -1e-6).all()  # lines from left to right
    assert (np.diff(order[1])[np.diff(order[0]) < 0.1] > 0).all()  # and each from top to bottom


@pytest.mark.parametrize(
    "wrong", [np.zeros(720), np.zeros((2, 721, 3)), np.zeros((721, 2, 1)), 0.5, "eye", [[1], [1, 2]]]
)
def test_from_flygym__of_wrong_readouts(wrong: Any) -> None:
    with pytest.raises(fx.errors.InputError, match="expected"):
        fx.eye.from_flygym(wrong)
    with pytest.raises(fx.errors.InputError, match="expected"):
        fx.eye.to_flygym(wrong)
