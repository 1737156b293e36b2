"""Optimal stimuli: the gradient, a case that is solved by hand, many models, large potentials, bad input."""

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
from flyxr.testing import tiny_connectome

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EXTENT, N_TIME, DT = 2, 6, 1 / 50
FIELD = [(0, 0), (1, 0), (0, -1)]  # du, dv of what T reads, so its receptive field is at the opposite offsets
CONNECTOME = tiny_connectome(EXTENT, edges=[("R", "L", 1, [(0, 0)]), ("L", "T", 1, FIELD)])
U, V = hexgrid.columns(EXTENT)
SEEN = np.array([(-u, -v) in FIELD for u, v in zip(U, V, strict=True)])


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Tiny networks gain nothing from threads, which wait for each other where the machine has other work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def rendering(n_samples: int = 3, n_time: int = N_TIME, extent: int = EXTENT) -> xr.Dataset:
    columns = hexgrid.column_coords(extent)
    values = np.random.default_rng(0).random((n_samples, n_time, columns["u"][1].size), dtype=np.float32)
    coords = {"sample": 10 + np.arange(n_samples), "time": schema.time_coord(n_time, DT), **columns}
    return xr.Dataset({"luminance": (("sample", "time", "column"), values)}, coords)


def models(n_models: int = 1, connectome: xr.Dataset = CONNECTOME, **values: float) -> xr.Dataset:
    """Models whose cells are all active, so that responses are linear in luminance."""
    ensemble = fx.sample_ensemble(n_models, seed=0, connectome=connectome)
    values = {"synapse_strength": 0.5, "time_constant": 0.03} | values
    return ensemble.assign({name: xr.full_like(ensemble[name], value) for name, value in values.items()})


def find(cell_type: str = "T", ensemble: xr.Dataset | None = None, **options: Any) -> xr.Dataset:
    given = {"connectome": CONNECTOME, "progress": False, "n_iterations": 30} | options
    ensemble = models() if ensemble is None else ensemble
    return fx.optimal_stimulus(ensemble, cell_type, given.pop("rendering", rendering()), **given)


def responses(luminance: np.ndarray, ensemble: xr.Dataset, cell_type: str = "T") -> np.ndarray:
    """Responses (sample, time) of the central cell of one model, from the reference engine."""
    data = rendering(len(luminance), luminance.shape[1]).assign(luminance=(("sample", "time", "column"), luminance))
    record = {"cell_type": [cell_type], "column": "central"}
    options: dict[str, Any] = {"record": record, "connectome": CONNECTOME, "initial_state": "steady_state"}
    return fx.simulate(data, ensemble, engine="reference", **options).response.values[0, :, :, 0, 0].astype(float)


def ascent(objective: str, ensemble: xr.Dataset, start: np.ndarray, weight: float) -> optimal._Ascent:
    cell = next(optimal._cells(ensemble, "T", CONNECTOME, DT, "cpu"))
    target = responses(start[None], ensemble)[0] + (0.3 if objective == "keep" else 0)
    return optimal._Ascent(cell, start, objective, weight, 0.01, target, 4)


@pytest.mark.parametrize("objective", ["drive", "keep"])
@pytest.mark.parametrize(("frame", "column"), [(2, 9), (3, 6), (0, 0), (5, 9)])
def test_ascent__gradient_equals_finite_differences(objective: str, frame: int, column: int) -> None:
    ensemble, start = models(), rendering().luminance.values[0]
    target = responses(start[None], ensemble)[0] + 0.3
    step, weight = 0.05, 0.2
    changed = np.repeat(start[None].astype(np.float32), 2, axis=0)
    changed[0, frame, column] -= step
    changed[1, frame, column] += step
    response = responses(changed, ensemble)
    of_response = -np.exp(response[:, 4]) if objective == "drive" else ((response - target) ** 2).sum(1)
    loss = of_response + weight * ((changed.astype(float) - 0.5) ** 2).sum((1, 2))
    taken = ascent(objective, ensemble, start, weight)
    taken.step()
    slope = float(taken.pixels.grad[frame, column])  # type: ignore[index]
    assert slope == pytest.approx((loss[1] - loss[0]) / (changed[1] - changed[0])[frame, column], rel=2e-3, abs=1e-5)
    if (frame, column) == (2, 9):
        assert abs(slope - 2 * weight * (start[2, 9] - 0.5)) > 0.01, "the response has a part in it"


@pytest.mark.parametrize("objective", ["drive", "keep"])
def test_ascent__loss_is_the_published_one(objective: str) -> None:
    start = rendering().luminance.values[0]
    response = responses(start[None], models())[0]
    loss = -np.exp(response[4]) if objective == "drive" else N_TIME * 0.3**2
    expected = loss + 0.2 * ((start - 0.5) ** 2).sum()
    assert ascent(objective, models(), start, 0.2).step() == pytest.approx(expected, rel=1e-5)


def test_optimal_stimulus__solves_a_linear_cell() -> None:
    """With V = b + sum(a x), luminance is 1/2 + exp(V) a / (2 r), cut to 0 to 1: bright in the field, else grey."""
    ensemble, weight = models(synapse_strength=0.3), 1.0
    found = find(ensemble=ensemble, regularisation=weight, n_iterations=800)
    peak = int(np.flatnonzero(found.time.values == found.peak_time.values[0])[0])
    grey = np.full((1 + N_TIME * U.size, N_TIME, U.size), 0.5)
    grey[1:] += 0.1 * np.eye(N_TIME * U.size).reshape(-1, N_TIME, U.size)
    at_peak = responses(grey.astype(np.float32), ensemble)[:, peak]
    a = (at_peak[1:] - at_peak[0]).reshape(N_TIME, U.size) / 0.1
    drive = np.exp(found.response.values[0, peak])
    expected = np.clip(0.5 + drive * a / (2 * weight), 0, 1)
    np.testing.assert_allclose(found.luminance[0], expected, atol=0.01)
    assert (expected[0, SEEN] > 0.5).all()
    assert 0.55 < expected[0, SEEN].max() < 0.98, "not all of it is cut"
    np.testing.assert_allclose(found.luminance[0][:, ~SEEN], 0.5, atol=0.005)


@pytest.mark.parametrize("regularisation", [None, 0.0, 0.05])
def test_optimal_stimulus__drives_the_cell_more(regularisation: float | None) -> None:
    found = find(regularisation=regularisation)
    at_peak = found.time == found.peak_time
    assert (found.response.where(at_peak).max("time") > found.start_response.max("time") + 0.05).all()
    assert float(found.luminance.min()) >= 0
    assert float(found.luminance.max()) <= 1
    assert float(found.loss[0, -1]) < float(found.loss[0, 0])


def test_optimal_stimulus__off_cell_wants_dark() -> None:
    """R inhibits L, which excites T: two synapses, so T shows what R saw two frames before."""
    connectome = tiny_connectome(EXTENT)
    dimmed = xr.full_like(rendering(1), 0.5)
    dimmed.luminance[:, 2:] = 0.3
    ensemble = models(connectome=connectome, synapse_strength=0.1)  # more would silence L
    options: dict[str, Any] = {"connectome": connectome, "rendering": dimmed, "regularisation": 0.001}
    found = find(ensemble=ensemble, n_iterations=60, **options)
    effective = np.isclose(found.time, found.peak_time.values[0] - 2 * DT)
    assert effective.sum() == 1
    assert (found.luminance[0].values[effective][:, SEEN] < 0.1).all()


def test_optimal_stimulus__stays_where_the_cell_sees_nothing() -> None:
    found = find(regularisation=0)
    start = rendering().luminance.sel(sample=found.start_sample[0])
    unseen = np.broadcast_to(~SEEN, start.shape).copy()
    unseen[found.time.values > found.peak_time.values[0]] = True
    np.testing.assert_array_equal(found.luminance[0].values[unseen], start.values[unseen])
    moved = found.luminance[0].values != start.values
    assert moved.any()


def test_optimal_stimulus__begins_with_the_best_sample() -> None:
    data = rendering()
    every = responses(data.luminance.values, models())
    sample, frame = np.unravel_index(every.argmax(), every.shape)
    found = find(n_iterations=1)
    assert found.start_sample.item() == data.sample.values[sample]
    assert found.peak_time.item() == data.time.values[frame]
    np.testing.assert_allclose(found.start_response[0], every[sample], atol=1e-5)
    step = found.luminance[0] - data.luminance.isel(sample=sample)
    assert 0 < float(np.abs(step).max()) <= 0.01 + 1e-6


def test_optimal_stimulus__keep_leaves_the_response_and_greys_the_rest() -> None:
    found = find(objective="keep", n_iterations=400, regularisation=1e-3)
    np.testing.assert_allclose(found.response, found.start_response, atol=0.01)
    np.testing.assert_allclose(found.luminance[0][:, ~SEEN], 0.5, atol=0.005)
    assert float(np.abs(found.luminance[0][:-2, SEEN] - 0.5).max()) > 0.05
    assert found.attrs["objective"] == "keep"


@pytest.mark.parametrize("objective", ["drive", "keep"])
def test_optimal_stimulus__knows_no_response_after_the_end_of_a_sample(
    objective: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where responses are NaN: the highest is looked for before, and what comes later has no part in the loss."""
    original, ends = optimal.simulate, 3
    monkeypatch.setattr(
        optimal, "simulate", lambda *given, **options: (got := original(*given, **options)).where(got.time < ends * DT)
    )
    found = find(objective=objective, regularisation=1e-3)
    assert found.peak_time.item() < ends * DT
    for name in ("response", "start_response"):
        np.testing.assert_array_equal(np.isfinite(found[name][0]), np.arange(N_TIME) < ends)
    monkeypatch.undo()
    shorter = find(objective=objective, regularisation=1e-3, rendering=rendering().isel(time=slice(ends)))
    np.testing.assert_allclose(found.luminance[0, :ends], shorter.luminance[0], atol=1e-6)


def test_optimal_stimulus__each_model_as_if_alone() -> None:
    ensemble = fx.sample_ensemble(3, seed=1, connectome=CONNECTOME).isel(model=[2, 0, 1])
    ensemble = ensemble.assign(synapse_strength=ensemble.synapse_strength * 100)
    together = find(ensemble=ensemble)
    schema.validate(together, "optimal_stimuli")
    assert together.model.values.tolist() == [2, 0, 1]
    assert together.model_name.values.tolist() == ensemble.model_name.values.tolist()
    for i in range(3):
        alone = find(ensemble=ensemble.isel(model=[i]))
        for name in ("luminance", "response", "start_response", "loss", "start_sample", "peak_time"):
            np.testing.assert_allclose(together[name][i], alone[name][0], atol=1e-6, err_msg=name)


def test_optimal_stimulus__is_a_rendering_that_gives_its_responses() -> None:
    ensemble = fx.silence(models(2), "L")
    ensemble["bias"] = ensemble["bias"] + 0.1 * ensemble["model"]
    found = find("R", ensemble)
    again = fx.simulate(
        found[["luminance"]].rename(model="sample"),
        ensemble,
        initial_state="steady_state",
        record={"cell_type": ["R"], "column": "central"},
        connectome=CONNECTOME,
    ).response.load()
    assert dict(again.sizes) == {"model": 4, "sample": 4, "time": N_TIME, "cell_type": 1, "column": 1}
    for model in found.model.values:
        own = again.sel(model=model, sample=model).isel(cell_type=0, column=0)
        np.testing.assert_allclose(own, found.response.sel(model=model), atol=1e-5)
    assert found.perturbation.values.tolist() == ["none", "none", "silence L", "silence L"]


def test_optimal_stimulus__is_deterministic_and_leaves_its_input(tmp_path: Path) -> None:
    data, ensemble = rendering(), models(2)
    before = data.copy(deep=True), ensemble.copy(deep=True)
    one, other = (find(ensemble=ensemble, rendering=data) for _ in range(2))
    xr.testing.assert_identical(one, other)
    assert data.identical(before[0])
    assert ensemble.identical(before[1])
    lazy = find(ensemble=ensemble, rendering=data.chunk(sample=1))
    xr.testing.assert_equal(lazy, one)
    opened = fx.open(fx.save(one, tmp_path / "optimal.zarr"))
    xr.testing.assert_equal(opened.load(), one)
    step = provenance.steps(one)[-1]
    assert step["operation"] == "optimal_stimulus"
    assert set(step["hashes"]) == {"connectome", "ensemble", "stimulus"}


@pytest.mark.parametrize("bias", [60.0, 150.0, 500.0])
def test_optimal_stimulus__large_potentials_are_driven_as_well(bias: float) -> None:
    """Whose exponential, or its square, is beyond float32, or float64."""
    ensemble = models()
    ensemble["bias"] = ensemble["bias"].where(ensemble.cell_type != "T", bias)
    found = find(ensemble=ensemble)
    assert np.isfinite(found.loss).all()
    peak = found.time == found.peak_time
    assert float(found.response.where(peak).max()) > float(found.start_response.max()) + 0.05


def test_optimal_stimulus__warns_where_the_cell_is_driven_less() -> None:
    with pytest.warns(UserWarning, match=r"T is driven less .* 2 of 2 models, .* below 1e\+03"):
        find(ensemble=models(2, bias=0.2), regularisation=1000)


def test_optimal_stimulus__of_a_clamped_cell_is_grey() -> None:
    """And nothing is lost by it, so nothing warns."""
    found = find(ensemble=fx.clamp(models(), "T", 3.3, connectome=CONNECTOME), n_iterations=200)
    np.testing.assert_allclose(found.luminance.sel(model=1), 0.5, atol=0.005)
    np.testing.assert_allclose(found.response.sel(model=1), 3.3, atol=1e-6)


def test_optimal_stimulus__progress(capfd: pytest.CaptureFixture[str]) -> None:
    find(ensemble=models(2), n_iterations=3)
    assert capfd.readouterr().err == ""
    find(ensemble=models(2), n_iterations=3, progress=True)
    shown = capfd.readouterr().err
    assert "6/6" in shown
    assert "sample-0/001" in shown


@pytest.mark.parametrize("chunks", [None, 1])
def test_optimal_stimulus__luminance_has_to_be_finite(chunks: int | None) -> None:
    data = rendering()
    data.luminance[1, 2, 3] = np.nan
    with pytest.raises(schema.SchemaError, match="expected a finite luminance"):
        find(rendering=data if chunks is None else data.chunk(sample=chunks))


def test_optimal_stimulus__bad_input() -> None:
    with pytest.raises(UnknownCellTypeError, match="got 'T4c'"):
        find("T4c")
    with pytest.raises(ValueError, match=r"one cell type, got \['R', 'L', 'T'\]"):
        find("*")
    with pytest.raises(ValueError, match="objective") as error:
        find(objective="most", n_iterations=0, learning_rate=-1, regularisation=np.nan)
    assert all(word in str(error.value) for word in ("n_iterations", "learning_rate", "regularisation"))
    with pytest.raises(schema.SchemaError, match="extent 2"):
        find(rendering=rendering(extent=3))
    with pytest.raises(schema.SchemaError, match="not a rendering"):
        find(rendering=rendering().luminance[0].to_dataset())


def test_optimal_stimulus__every_type_has_a_central_cell() -> None:
    u, v = hexgrid.columns(3)
    assert cell_presence(fx.open_connectome(extent=3))[:, (u == 0) & (v == 0)].all()


def test_optimal_stimulus__of_a_published_model(pretrained: Path) -> None:
    """T4c, on a small lattice."""
    connectome = fx.open_connectome(extent=3)
    movie = fx.stimuli.moving_digits(n_samples=2, seed=0)
    data = fx.resample(fx.BoxEye(extent=3).render(movie), dt=DT).isel(time=slice(12))
    ensemble = fx.open_ensemble(pretrained).isel(model=[0])
    found = find("T4c", ensemble, rendering=data, connectome=connectome, n_iterations=20)
    at_peak = found.time == found.peak_time
    assert float(found.response.where(at_peak).max()) > 1.3 * float(found.start_response.max())


def test_optimal_stimulus__an_ensemble_that_states_no_connectome_warns_once() -> None:
    with pytest.warns(FlyxrWarning, match="does not name its connectome") as told:
        find(ensemble=models().drop_attrs(), n_iterations=1, regularisation=0.001)
    assert len(told) == 1
