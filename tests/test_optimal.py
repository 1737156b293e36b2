"""Optimal stimuli: the gradient, a case with a closed form, many models, large potentials and bad input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import xarray as xr

import flyxr as fx
from flyxr import hexgrid, optimal, provenance, schema
from flyxr.connectome import cell_presence
from flyxr.errors import FlyxrWarning
from flyxr.selection import UnknownCellTypeError
from flyxr.simulation import ensemble_tensors
from flyxr.testing import random_rendering, tiny_connectome

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EXTENT, N_TIME, DT = 2, 6, 1 / 50
FIELD = [(0, 0), (1, 0), (0, -1)]  # du, dv of the inputs of T; its receptive field has the opposite offsets
CONNECTOME = tiny_connectome(EXTENT, edges=[("R", "L", 1, [(0, 0)]), ("L", "T", 1, FIELD)])
U, V = hexgrid.columns(EXTENT)
IN_FIELD = np.array([(-u, -v) in FIELD for u, v in zip(U, V, strict=True)])


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Threads slow tiny networks down."""
    n_before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_before)


def rendering(n_samples: int = 3, n_time: int = N_TIME, extent: int = EXTENT) -> xr.Dataset:
    data = random_rendering(extent, n_samples, n_time, dt=DT)
    return data.assign_coords(sample=10 + data.sample)


def models(n_models: int = 1, connectome: xr.Dataset = CONNECTOME, **values: float) -> xr.Dataset:
    """Models whose cells are all active, so that responses are linear in luminance."""
    ensemble = fx.sample_ensemble(n_models, seed=0, connectome=connectome)
    values = {"synapse_strength": 0.5, "time_constant": 0.03} | values
    return ensemble.assign({name: xr.full_like(ensemble[name], value) for name, value in values.items()})


def optimise(cell_type: str = "T", ensemble: xr.Dataset | None = None, **options: Any) -> xr.Dataset:
    options = {"connectome": CONNECTOME, "progress": False, "n_iterations": 30} | options
    ensemble = models() if ensemble is None else ensemble
    return fx.optimal_stimulus(ensemble, cell_type, options.pop("rendering", rendering()), **options)


def responses(luminance: np.ndarray, ensemble: xr.Dataset, cell_type: str = "T") -> np.ndarray:
    """Responses (sample, time) of the central cell of one model, from the reference engine."""
    data = rendering(len(luminance), luminance.shape[1]).assign(luminance=(("sample", "time", "column"), luminance))
    record = {"cell_type": [cell_type], "column": "central"}
    options: dict[str, Any] = {"record": record, "connectome": CONNECTOME, "initial_state": "steady_state"}
    return fx.simulate(data, ensemble, engine="reference", **options).response.values[0, :, :, 0, 0].astype(float)


def ascent(
    objective: str, ensemble: xr.Dataset, luminance: np.ndarray, regularisation: float
) -> optimal.GradientAscent:
    return optimal.GradientAscent(
        ensemble_tensors(ensemble, CONNECTOME, DT),
        optimal.central_cell(CONNECTOME, "T"),
        luminance,
        objective=objective,
        regularisation=regularisation,
        learning_rate=0.01,
        start_response=responses(luminance[None], ensemble)[0] + (0.3 if objective == "keep" else 0),
        peak=4,
    )


@pytest.mark.parametrize("objective", ["drive", "keep"])
@pytest.mark.parametrize(("frame", "column"), [(2, 9), (3, 6), (0, 0), (5, 9)])
def test_gradient_ascent__gradient_equals_finite_differences(objective: str, frame: int, column: int) -> None:
    ensemble, start = models(), rendering().luminance.values[0]
    target = responses(start[None], ensemble)[0] + 0.3
    step, weight = 0.05, 0.2
    shifted = np.repeat(start[None].astype(np.float32), 2, axis=0)
    shifted[0, frame, column] -= step
    shifted[1, frame, column] += step
    response = responses(shifted, ensemble)
    response_loss = -np.exp(response[:, 4]) if objective == "drive" else ((response - target) ** 2).sum(1)
    loss = response_loss + weight * ((shifted.astype(float) - 0.5) ** 2).sum((1, 2))
    steps = ascent(objective, ensemble, start, weight)
    steps.step()
    slope = float(steps.luminance.grad[frame, column])  # type: ignore[index]
    assert slope == pytest.approx((loss[1] - loss[0]) / (shifted[1] - shifted[0])[frame, column], rel=2e-3, abs=1e-5)
    if (frame, column) == (2, 9):
        assert abs(slope - 2 * weight * (start[2, 9] - 0.5)) > 0.01, "the response contributes"


@pytest.mark.parametrize("objective", ["drive", "keep"])
def test_gradient_ascent__loss_is_as_published(objective: str) -> None:
    start = rendering().luminance.values[0]
    response = responses(start[None], models())[0]
    loss = -np.exp(response[4]) if objective == "drive" else N_TIME * 0.3**2
    expected = loss + 0.2 * ((start - 0.5) ** 2).sum()
    assert ascent(objective, models(), start, 0.2).step() == pytest.approx(expected, rel=1e-5)


def test_optimal_stimulus__solves_a_linear_cell() -> None:
    """With V = b + sum(a x), luminance is 1/2 + exp(V) a / (2 r), clipped to 0 to 1."""
    ensemble, weight = models(synapse_strength=0.3), 1.0
    optimum = optimise(ensemble=ensemble, regularisation=weight, n_iterations=800)
    peak = int(np.flatnonzero(optimum.time.values == optimum.peak_time.values[0])[0])
    grey = np.full((1 + N_TIME * U.size, N_TIME, U.size), 0.5)
    grey[1:] += 0.1 * np.eye(N_TIME * U.size).reshape(-1, N_TIME, U.size)
    at_peak = responses(grey.astype(np.float32), ensemble)[:, peak]
    a = (at_peak[1:] - at_peak[0]).reshape(N_TIME, U.size) / 0.1
    drive = np.exp(optimum.response.values[0, peak])
    expected = np.clip(0.5 + drive * a / (2 * weight), 0, 1)
    np.testing.assert_allclose(optimum.luminance[0], expected, atol=0.01)
    assert (expected[0, IN_FIELD] > 0.5).all()
    assert 0.55 < expected[0, IN_FIELD].max() < 0.98, "not all of it is clipped"
    np.testing.assert_allclose(optimum.luminance[0][:, ~IN_FIELD], 0.5, atol=0.005)


@pytest.mark.parametrize("regularisation", [None, 0.0, 0.05])
def test_optimal_stimulus__drives_the_cell_more(regularisation: float | None) -> None:
    optimum = optimise(regularisation=regularisation)
    at_peak = optimum.time == optimum.peak_time
    assert (optimum.response.where(at_peak).max("time") > optimum.start_response.max("time") + 0.05).all()
    assert float(optimum.luminance.min()) >= 0
    assert float(optimum.luminance.max()) <= 1
    assert float(optimum.loss[0, -1]) < float(optimum.loss[0, 0])


def test_optimal_stimulus__off_cell_prefers_dark() -> None:
    """R inhibits L, which excites T: with two synapses, T responds to R with a delay of two frames."""
    connectome = tiny_connectome(EXTENT)
    dimmed = xr.full_like(rendering(1), 0.5)
    dimmed.luminance[:, 2:] = 0.3
    ensemble = models(connectome=connectome, synapse_strength=0.1)  # stronger synapses would silence L
    options: dict[str, Any] = {"connectome": connectome, "rendering": dimmed, "regularisation": 0.001}
    optimum = optimise(ensemble=ensemble, n_iterations=60, **options)
    is_effective = np.isclose(optimum.time, optimum.peak_time.values[0] - 2 * DT)
    assert is_effective.sum() == 1
    assert (optimum.luminance[0].values[is_effective][:, IN_FIELD] < 0.1).all()


def test_optimal_stimulus__is_unchanged_outside_the_receptive_field() -> None:
    optimum = optimise(regularisation=0)
    start = rendering().luminance.sel(sample=optimum.start_sample[0])
    is_unseen = np.broadcast_to(~IN_FIELD, start.shape).copy()
    is_unseen[optimum.time.values > optimum.peak_time.values[0]] = True
    np.testing.assert_array_equal(optimum.luminance[0].values[is_unseen], start.values[is_unseen])
    assert (optimum.luminance[0].values != start.values).any()


def test_optimal_stimulus__starts_from_the_best_sample() -> None:
    data = rendering()
    sample_responses = responses(data.luminance.values, models())
    sample, frame = np.unravel_index(sample_responses.argmax(), sample_responses.shape)
    optimum = optimise(n_iterations=1)
    assert optimum.start_sample.item() == data.sample.values[sample]
    assert optimum.peak_time.item() == data.time.values[frame]
    np.testing.assert_allclose(optimum.start_response[0], sample_responses[sample], atol=1e-5)
    step = optimum.luminance[0] - data.luminance.isel(sample=sample)
    assert 0 < float(np.abs(step).max()) <= 0.01 + 1e-6


def test_optimal_stimulus__keep_preserves_the_response_and_greys_the_rest() -> None:
    optimum = optimise(objective="keep", n_iterations=400, regularisation=1e-3)
    np.testing.assert_allclose(optimum.response, optimum.start_response, atol=0.01)
    np.testing.assert_allclose(optimum.luminance[0][:, ~IN_FIELD], 0.5, atol=0.005)
    assert float(np.abs(optimum.luminance[0][:-2, IN_FIELD] - 0.5).max()) > 0.05
    assert optimum.attrs["objective"] == "keep"


@pytest.mark.parametrize("objective", ["drive", "keep"])
def test_optimal_stimulus__ignores_frames_after_the_end_of_a_sample(objective: str) -> None:
    n_frames = 3
    padded = rendering().assign_coords(t_end=("sample", np.full(3, n_frames * DT)))
    optimum = optimise(objective=objective, regularisation=1e-3, rendering=padded)
    assert optimum.peak_time.item() < n_frames * DT
    for name in ("response", "start_response"):
        np.testing.assert_array_equal(np.isfinite(optimum[name][0]), np.arange(N_TIME) < n_frames)
    shorter = optimise(objective=objective, regularisation=1e-3, rendering=rendering().isel(time=slice(n_frames)))
    np.testing.assert_allclose(optimum.luminance[0, :n_frames], shorter.luminance[0], atol=1e-6)


def test_optimal_stimulus__models_are_independent() -> None:
    ensemble = fx.sample_ensemble(3, seed=1, connectome=CONNECTOME).isel(model=[2, 0, 1])
    ensemble = ensemble.assign(synapse_strength=ensemble.synapse_strength * 100)
    together = optimise(ensemble=ensemble)
    schema.validate(together, "optimal_stimuli")
    assert together.model.values.tolist() == [2, 0, 1]
    assert together.model_name.values.tolist() == ensemble.model_name.values.tolist()
    for i in range(3):
        single = optimise(ensemble=ensemble.isel(model=[i]))
        for name in ("luminance", "response", "start_response", "loss", "start_sample", "peak_time"):
            np.testing.assert_allclose(together[name][i], single[name][0], atol=1e-6, err_msg=name)


def test_optimal_stimulus__simulating_it_gives_its_responses() -> None:
    ensemble = fx.silence(models(2), "L")
    ensemble["bias"] = ensemble["bias"] + 0.1 * ensemble["model"]
    optimum = optimise("R", ensemble)
    simulated = fx.simulate(
        optimum[["luminance"]].rename(model="sample"),
        ensemble,
        initial_state="steady_state",
        record={"cell_type": ["R"], "column": "central"},
        connectome=CONNECTOME,
    ).response.load()
    assert dict(simulated.sizes) == {"model": 4, "sample": 4, "time": N_TIME, "cell_type": 1, "column": 1}
    for model in optimum.model.values:
        response = simulated.sel(model=model, sample=model).isel(cell_type=0, column=0)
        np.testing.assert_allclose(response, optimum.response.sel(model=model), atol=1e-5)
    assert optimum.perturbation.values.tolist() == ["none", "none", "silence L", "silence L"]


def test_optimal_stimulus__is_deterministic_and_does_not_modify_its_input(tmp_path: Path) -> None:
    data, ensemble = rendering(), models(2)
    before = data.copy(deep=True), ensemble.copy(deep=True)
    optimum, repeated = (optimise(ensemble=ensemble, rendering=data) for _ in range(2))
    xr.testing.assert_identical(optimum, repeated)
    assert data.identical(before[0])
    assert ensemble.identical(before[1])
    lazy = optimise(ensemble=ensemble, rendering=data.chunk(sample=1))
    xr.testing.assert_equal(lazy, optimum)
    opened = fx.open(fx.save(optimum, tmp_path / "optimal.zarr"))
    xr.testing.assert_equal(opened.load(), optimum)
    step = provenance.steps(optimum)[-1]
    assert step["operation"] == "optimal_stimulus"
    assert set(step["hashes"]) == {"connectome", "ensemble", "stimulus"}


@pytest.mark.parametrize("bias", [60.0, 150.0, 500.0])
def test_optimal_stimulus__drives_large_potentials(bias: float) -> None:
    """The exponential or its square overflows float32 or float64."""
    ensemble = models()
    ensemble["bias"] = ensemble["bias"].where(ensemble.cell_type != "T", bias)
    optimum = optimise(ensemble=ensemble)
    assert np.isfinite(optimum.loss).all()
    peak = optimum.time == optimum.peak_time
    assert float(optimum.response.where(peak).max()) > float(optimum.start_response.max()) + 0.05


def test_optimal_stimulus__warns_if_the_cell_is_driven_less() -> None:
    with pytest.warns(UserWarning, match=r"T is driven less .* 2 of 2 models, .* below 1e\+03"):
        optimise(ensemble=models(2, bias=0.2), regularisation=1000)


def test_optimal_stimulus__of_a_clamped_cell_is_grey() -> None:
    """The response does not decrease, so there is no warning."""
    optimum = optimise(ensemble=fx.clamp(models(), "T", 3.3, connectome=CONNECTOME), n_iterations=200)
    np.testing.assert_allclose(optimum.luminance.sel(model=1), 0.5, atol=0.005)
    np.testing.assert_allclose(optimum.response.sel(model=1), 3.3, atol=1e-6)


def test_optimal_stimulus__progress(terminal: pytest.CaptureFixture[str]) -> None:
    optimise(ensemble=models(2), n_iterations=3)
    assert terminal.readouterr().err == ""
    optimise(ensemble=models(2), n_iterations=3, progress=True)
    shown = terminal.readouterr().err
    assert "6/6" in shown
    assert "sample-0/001" in shown


@pytest.mark.parametrize("chunks", [None, 1])
def test_optimal_stimulus__luminance_has_to_be_finite(chunks: int | None) -> None:
    data = rendering()
    data.luminance[1, 2, 3] = np.nan
    with pytest.raises(schema.SchemaError, match="expected a finite luminance"):
        optimise(rendering=data if chunks is None else data.chunk(sample=chunks))


def test_optimal_stimulus__bad_input() -> None:
    with pytest.raises(UnknownCellTypeError, match="got 'T4c'"):
        optimise("T4c")
    with pytest.raises(ValueError, match=r"one cell type, got \['R', 'L', 'T'\]"):
        optimise("*")
    with pytest.raises(ValueError, match="objective") as error:
        optimise(objective="most", n_iterations=0, learning_rate=-1, regularisation=np.nan)
    assert all(word in str(error.value) for word in ("n_iterations", "learning_rate", "regularisation"))
    with pytest.raises(schema.SchemaError, match="extent 2"):
        optimise(rendering=rendering(extent=3))
    for cell_type in (3, [["T"]], None):
        with pytest.raises(ValueError, match="expected cell_type as one name"):
            optimise(cell_type)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"objective 'drive' or 'keep', got \['drive'\].*n_iterations.*got 2.5"):
        optimise(objective=["drive"], n_iterations=2.5)


def test_optimal_stimulus__of_one_model_and_one_sample() -> None:
    ensemble, options = models(2), {"n_iterations": 3, "regularisation": 0.001}
    one = optimise(ensemble=ensemble.isel(model=1), **options)
    assert one.luminance.dims == ("time", "column")
    assert one.model.item() == 1
    xr.testing.assert_equal(one, optimise(ensemble=ensemble.isel(model=[1]), **options).isel(model=0))
    mean = optimise(ensemble=ensemble.mean("model"), **options)
    assert "model" not in mean.coords
    first = rendering().isel(sample=0)
    assert optimise(rendering=first, **options).start_sample.values.tolist() == [10]
    assert optimise(rendering=first.luminance, **options).sizes["model"] == 1


def test_optimal_stimulus__takes_numbers_and_names_of_any_type() -> None:
    name = CONNECTOME.cell_type[CONNECTOME.cell_type == "T"]
    options = {"n_iterations": np.int64(3), "learning_rate": np.float32(0.01), "regularisation": np.array(1e-3)}
    expected = optimise(n_iterations=3, learning_rate=0.01, regularisation=1e-3)
    for given in (name, name[0], name.values, [name[0]]):
        xr.testing.assert_identical(optimise(given, **options), expected)  # type: ignore[arg-type]


def test_optimal_stimulus__every_type_has_a_central_cell() -> None:
    u, v = hexgrid.columns(3)
    assert cell_presence(fx.open_connectome(extent=3))[:, (u == 0) & (v == 0)].all()


def test_optimal_stimulus__of_a_published_model(pretrained: Path) -> None:
    """T4c, on a small lattice."""
    connectome = fx.open_connectome(extent=3)
    movie = fx.stimuli.moving_digits(n_samples=2, seed=0)
    data = fx.resample(fx.BoxEye(extent=3).render(movie), dt=DT).isel(time=slice(12))
    ensemble = fx.open_ensemble(pretrained).isel(model=[0])
    optimum = optimise("T4c", ensemble, rendering=data, connectome=connectome, n_iterations=20)
    at_peak = optimum.time == optimum.peak_time
    assert float(optimum.response.where(at_peak).max()) > 1.3 * float(optimum.start_response.max())


def test_optimal_stimulus__an_ensemble_without_a_connectome_warns_once() -> None:
    with pytest.warns(FlyxrWarning, match="does not name its connectome") as warnings:
        optimise(ensemble=models().drop_attrs(), n_iterations=1, regularisation=0.001)
    assert len(warnings) == 1
