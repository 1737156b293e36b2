"""Training: gradients against the equations, losses that fall, resumed and diverging runs, rejected input.

Networks are of extent 2, with all cell types. Learned direction selectivity is not tested here, since it takes
minutes; ``docs/ensemble/evaluate.py`` measures it.
"""

from __future__ import annotations

import errno
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import flyxr as fx
from flyxr import connectome as connectomes
from flyxr import provenance, schema
from flyxr.engine.sparse import TorchParameters
from flyxr.errors import ExistsError, FlyxrWarning, InputError, UnwritableError
from flyxr.selection import UnknownCellTypeError
from flyxr.simulation.checks import engine_parameters
from flyxr.training import checkpoints, losses, running
from flyxr.training.checks import make_task
from flyxr.training.loop import ModelTraining, Recipe
from flyxr.training.readout import FlowReadout

EXTENT = 2
QUICK: dict[str, Any] = {"n_iterations": 6, "batch_size": 8, "progress": False}


@pytest.fixture(scope="module")
def connectome() -> xr.Dataset:
    return fx.open_connectome(extent=EXTENT)


@pytest.fixture(scope="module")
def scenes() -> xr.Dataset:
    return fx.stimuli.moving_layers(16, seed=0, extent=EXTENT, n_directions=4).compute()


@pytest.fixture(scope="module")
def start(scenes: xr.Dataset, connectome: xr.Dataset) -> xr.Dataset:
    return fx.training.calibrated_ensemble(scenes, 2, seed=0, connectome=connectome)


def mean_square(responses: losses.Tensors, targets: losses.Tensors) -> torch.Tensor:
    """Loss of a user: T4a is depolarised, and follows the flow to the right."""
    return (responses["T4a"] - 0.5 - targets["flow"][..., 0] / 50).square().mean()


def make_training(
    scenes: xr.Dataset, connectome: xr.Dataset, start: xr.Dataset, loss: Any, **recipe: Any
) -> ModelTraining:
    task, _ = make_task(scenes, loss)
    parameters = engine_parameters(start.isel(model=[0]), connectome)
    return ModelTraining(connectome, parameters, task, loss, [], Recipe(**recipe), [0, 0])


def integrate(
    network: Any, parameters: dict[str, torch.Tensor], luminance: torch.Tensor, dt: float, n_cut: int
) -> torch.Tensor:
    """The equations, written plainly: states (time, sample, cell) from one second of grey.

    No gradient flows through the first frames and the grey, unless ``n_cut`` is 0.
    """
    cell_type = torch.as_tensor(network.cell_type, dtype=torch.long)
    weight = torch.zeros(network.n_cells, network.n_cells, dtype=torch.float64)
    strengths = parameters["synapse_strength"].exp()[0][torch.as_tensor(network.pair, dtype=torch.long)]
    index = torch.as_tensor(network.target, dtype=torch.long), torch.as_tensor(network.source, dtype=torch.long)
    weight = weight.index_put(index, strengths * torch.as_tensor(network.signed_synapses).double(), accumulate=True)
    bias, rate = parameters["bias"][0][cell_type], dt / parameters["time_constant"][0][cell_type].clamp(min=dt)
    is_input, column = torch.as_tensor(network.is_input), torch.as_tensor(network.column, dtype=torch.long)

    def step(state: torch.Tensor, frame: torch.Tensor) -> torch.Tensor:
        drive = torch.where(is_input, frame[:, column], 0.0)
        return state + rate * (bias - state + drive + state.relu() @ weight.T)

    grey = torch.full_like(luminance[:, 0], 0.5)
    with torch.set_grad_enabled(n_cut == 0):
        state = bias.expand(len(luminance), -1)
        for _ in range(50):
            state = step(state, grey)
        for frame in range(n_cut):
            state = step(state, luminance[:, frame])
    states = []
    for frame in range(n_cut, luminance.shape[1]):
        state = step(state, luminance[:, frame])
        states.append(state)
    return torch.stack(states)


@pytest.mark.parametrize(("first", "n_cut"), [(8, 3), (1, 0)])
def test_gradients__equal_those_of_the_equations(
    scenes: xr.Dataset, connectome: xr.Dataset, start: xr.Dataset, first: int, n_cut: int
) -> None:
    training = make_training(scenes, connectome, start, mean_square)
    samples, frames = np.arange(4), np.arange(first, first + 4)
    training.respond(samples, frames)["T4a"].square().mean().backward()
    network = connectomes.compile_network(connectome)
    plain = {name: values.detach().double().requires_grad_() for name, values in training.values.items()}
    luminance = torch.as_tensor(scenes["luminance"].values[:4, : first + 4], dtype=torch.float64)
    states = integrate(network, plain, luminance, 1 / 50, n_cut)
    is_t4a = network.cell_type == connectome["cell_type"].values.tolist().index("T4a")
    states[first - n_cut :][..., torch.as_tensor(is_t4a)].square().mean().backward()
    for name, values in training.values.items():
        expected = plain[name].grad.numpy()  # type: ignore[union-attr]
        np.testing.assert_allclose(values.grad.numpy(), expected, atol=2e-4 * np.abs(expected).max(), err_msg=name)


def test_train__lowers_the_loss(scenes: xr.Dataset, connectome: xr.Dataset) -> None:
    trained = fx.train(scenes, mean_square, connectome=connectome, n_iterations=25, batch_size=16, progress=False)
    loss = trained["loss"].values[0]
    assert loss[-5:].mean() < 0.98 * loss[0]
    assert trained["task_error"].values == pytest.approx(loss[-2:].mean(), rel=1e-5)


def test_train__gives_an_ensemble(scenes: xr.Dataset, connectome: xr.Dataset) -> None:
    trained = fx.train(scenes, fx.training.flow_loss(), connectome=connectome, validation=scenes, **QUICK)
    schema.validate(trained, "ensemble")
    assert trained.attrs["trained"] == 1
    assert np.isfinite(trained["task_error"].values).all()
    assert trained.attrs["task_error_measure"] == "loss on the validation stimuli"
    step = provenance.steps(trained)[-1]
    assert step["operation"] == "train"
    assert step["arguments"]["recipe"]["n_iterations"] == 6
    large = fx.stimuli.moving_layers(1, seed=1, extent=3)
    responses = fx.simulate(large, trained, record="central", connectome=fx.open_connectome(extent=3))
    assert np.isfinite(responses["response"].sel(cell_type="T4a").values).all()


def test_train__is_the_same_for_the_same_seed(scenes: xr.Dataset, connectome: xr.Dataset) -> None:
    one, same = (fx.train(scenes, fx.training.flow_loss(), connectome=connectome, seed=3, **QUICK) for _ in range(2))
    other = fx.train(scenes, fx.training.flow_loss(), connectome=connectome, seed=4, **QUICK)
    xr.testing.assert_equal(one, same)
    assert not np.allclose(one["synapse_strength"], other["synapse_strength"])


def test_train__models_in_processes_equal_one_alone(
    scenes: xr.Dataset, connectome: xr.Dataset, start: xr.Dataset
) -> None:
    both = fx.train(scenes, fx.training.flow_loss(), ensemble=start, connectome=connectome, **QUICK)
    alone = fx.train(scenes, fx.training.flow_loss(), ensemble=start.isel(model=[0]), connectome=connectome, **QUICK)
    for name in ("bias", "time_constant", "synapse_strength", "loss"):
        np.testing.assert_allclose(both[name].values[:1], alone[name].values, rtol=1e-6, err_msg=name)


def test_train__keeps_fixed_parameters(scenes: xr.Dataset, connectome: xr.Dataset, start: xr.Dataset) -> None:
    one = start.isel(model=[1])
    fixed = ["time_constant", "bias"]
    trained = fx.train(scenes, mean_square, ensemble=one, connectome=connectome, fixed=fixed, **QUICK)
    for name in fixed:
        np.testing.assert_array_equal(trained[name].values, one[name].values)
    assert not np.allclose(trained["synapse_strength"], one["synapse_strength"])


def test_train__matches_parameters_by_label(scenes: xr.Dataset, connectome: xr.Dataset, start: xr.Dataset) -> None:
    one = start.isel(model=[0])
    reversed_labels = one.isel(cell_type=slice(None, None, -1), pair=slice(None, None, -1))
    trained, expected = (
        fx.train(scenes, mean_square, ensemble=given, connectome=connectome, **QUICK)
        for given in (reversed_labels, one)
    )
    np.testing.assert_array_equal(trained["bias"].sel(cell_type="T4c"), expected["bias"].sel(cell_type="T4c"))
    np.testing.assert_array_equal(trained["synapse_strength"].values[:, ::-1], expected["synapse_strength"].values)


def test_train__continues_where_it_was_killed(
    scenes: xr.Dataset, connectome: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"connectome": connectome, **QUICK}
    whole = fx.train(scenes, fx.training.flow_loss(), **options)
    monkeypatch.setattr(checkpoints, "SAVE_INTERVAL", -1.0)
    step, n_steps = ModelTraining.step, 0

    def stop(self: ModelTraining) -> float:
        nonlocal n_steps
        n_steps += 1
        if n_steps == 4:
            raise KeyboardInterrupt
        return step(self)

    monkeypatch.setattr(ModelTraining, "step", stop)
    with pytest.raises(KeyboardInterrupt):
        fx.train(scenes, fx.training.flow_loss(), checkpoints=tmp_path / "run", **options)
    resumed = fx.train(scenes, fx.training.flow_loss(), checkpoints=tmp_path / "run", **options)
    assert n_steps == 4 + 3
    for name in ("bias", "time_constant", "synapse_strength", "loss"):
        np.testing.assert_allclose(resumed[name], whole[name], rtol=1e-5, err_msg=name)
    again = fx.train(scenes, fx.training.flow_loss(), checkpoints=tmp_path / "run", **options)
    assert n_steps == 4 + 3
    xr.testing.assert_equal(again, resumed)


def test_train__rejects_checkpoints_of_another_training(
    scenes: xr.Dataset, connectome: xr.Dataset, tmp_path: Path
) -> None:
    fx.train(scenes, mean_square, connectome=connectome, checkpoints=tmp_path / "run", **QUICK)
    with pytest.raises(ExistsError, match=r"differs in seed: give the same arguments|differs in start, seed"):
        fx.train(scenes, mean_square, connectome=connectome, checkpoints=tmp_path / "run", seed=1, **QUICK)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(ExistsError, match=r"expected an empty folder for checkpoints, got .* with notes\.txt"):
        fx.train(scenes, mean_square, connectome=connectome, checkpoints=tmp_path / "mine", **QUICK)
    (tmp_path / "run" / "000.pt").write_bytes(b"no checkpoint")
    with pytest.raises(InputError, match="is damaged"):
        fx.train(scenes, mean_square, connectome=connectome, checkpoints=tmp_path / "run", **QUICK)


def test_train__says_that_there_is_no_room_for_checkpoints(
    scenes: xr.Dataset, connectome: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "BYTES_PER_MODEL", 2**80)
    with pytest.raises(UnwritableError, match="of room for checkpoints") as caught:
        fx.train(scenes, mean_square, connectome=connectome, checkpoints=tmp_path / "run", **QUICK)
    assert caught.value.errno == errno.ENOSPC
    monkeypatch.undo()

    def fail(self: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(UnwritableError, match="cannot write checkpoints"):
        fx.train(scenes, mean_square, connectome=connectome, checkpoints=tmp_path / "other", **QUICK)
    assert list((tmp_path / "other").iterdir()) == []


def test_train__diverging_model_keeps_its_last_good_state(
    scenes: xr.Dataset, connectome: xr.Dataset, start: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second of two models has NaN as loss from its fourth iteration on."""
    one = start.isel(model=[1])
    good = fx.train(scenes, mean_square, ensemble=one, connectome=connectome, **(QUICK | {"n_iterations": 6}))
    calls = 0

    def breaks(responses: losses.Tensors, targets: losses.Tensors) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return mean_square(responses, targets) * (np.nan if calls > 3 else 1)

    with pytest.warns(FlyxrWarning, match=r"calibrated-0/001 in iteration 3"):
        trained = fx.train(scenes, breaks, ensemble=one, connectome=connectome, **QUICK)
    np.testing.assert_array_equal(np.isnan(trained["loss"].values[0]), np.arange(6) >= 3)
    np.testing.assert_array_equal(trained["loss"].values[0, :3], good["loss"].values[0, :3])
    for name in ("bias", "synapse_strength"):
        assert np.isfinite(trained[name].values).all()
        assert not np.array_equal(trained[name].values, one[name].values)


def test_train__rejects_a_loss_that_is_nan_from_the_start(scenes: xr.Dataset, connectome: xr.Dataset) -> None:
    def broken(responses: losses.Tensors, targets: losses.Tensors) -> torch.Tensor:
        return responses["Lawf1"].mean()  # NaN where there is no cell

    with pytest.raises(InputError, match="expected a finite loss in the first iteration"):
        fx.train(scenes, broken, connectome=connectome, **QUICK)


@pytest.mark.parametrize(
    "loss",
    [
        lambda responses, targets: responses["T4a"].square(),
        lambda responses, targets: targets["flow"].mean(),
        lambda responses, targets: 1.0,
    ],
)
def test_train__rejects_a_loss_without_gradient(scenes: xr.Dataset, connectome: xr.Dataset, loss: Any) -> None:
    with pytest.raises(InputError, match="expected the loss as one number that depends on the responses"):
        fx.train(scenes, loss, connectome=connectome, **QUICK)


def test_train__rejects_arguments(scenes: xr.Dataset, connectome: xr.Dataset, start: xr.Dataset) -> None:
    with pytest.raises(InputError, match=r"(?s)n_iterations.*batch_size.*learning_rates of .* got 'speed'"):
        fx.train(scenes, mean_square, n_iterations=0, batch_size=0, learning_rates={"speed": 1})
    with pytest.raises(InputError, match=r"expected fixed as at most two of .*, got \['gain'\]"):
        fx.train(scenes, mean_square, fixed=["gain"])
    with pytest.raises(InputError, match="expected n_models=2, as in the ensemble, got 3"):
        fx.train(scenes, mean_square, ensemble=start, connectome=connectome, n_models=3)
    with pytest.raises(InputError, match=r"expected a loss as a function of \(responses, targets\), got 'flow'"):
        fx.train(scenes, "flow", connectome=connectome)  # type: ignore[arg-type]
    with pytest.raises(UnknownCellTypeError, match="T4e"):
        fx.train(scenes, fx.training.flow_loss(cell_types=["T4e"]), connectome=connectome)


def test_train__names_synapses_that_an_extent_loses(scenes: xr.Dataset) -> None:
    with pytest.raises(InputError, match=r"loses 45 of 2355 columnar offsets: .* > .* \(du .*\).*: train at extent 4"):
        fx.train(scenes, mean_square, **QUICK)
    with pytest.raises(InputError, match="expected an extent of at most 2, that of the rendering, got 4"):
        fx.train(scenes, mean_square, extent=4, **QUICK)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda flow: flow.isel(column=slice(7)), "expected 19 columns in the target flow, as in the rendering, got 7"),
        (lambda flow: flow.isel(sample=slice(3)), "expected 16 samples in the target flow, as in the rendering, got 3"),
        (lambda flow: flow.isel(sample=slice(None, None, -1)), "expected the samples of the rendering in the target"),
        (lambda flow: flow * np.nan, "got only NaN in flow"),
        (lambda flow: flow.isel(sample=0), "expected targets over sample"),
    ],
)
def test_train__rejects_targets(scenes: xr.Dataset, connectome: xr.Dataset, change: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fx.train(scenes[["luminance"]], mean_square, targets=change(scenes["flow"]), connectome=connectome, **QUICK)


def test_train__requires_the_target_of_a_loss(scenes: xr.Dataset, connectome: xr.Dataset) -> None:
    with pytest.raises(InputError, match=r"expected the target 'flow' as a variable of the rendering, got none"):
        fx.train(scenes[["luminance"]], fx.training.flow_loss(), connectome=connectome, **QUICK)


def test_train__crops_a_rendering_to_the_extent(connectome: xr.Dataset, scenes: xr.Dataset) -> None:
    large = fx.stimuli.moving_layers(4, seed=0, extent=4).compute()
    task, extent = make_task(large, mean_square, extent=EXTENT)
    assert extent == EXTENT
    central = np.flatnonzero((large["u"] == 0) & (large["v"] == 0))[0]
    np.testing.assert_array_equal(task.luminance[:, :, 9], large["luminance"].values[:, :, central])
    assert task.targets["flow"].shape == (4, 20, 19, 2)


def recordings_of(scenes: xr.Dataset, ensemble: xr.Dataset, connectome: xr.Dataset) -> xr.DataArray:
    responses = fx.simulate(
        scenes, ensemble.isel(model=0), initial_state="steady_state", record="central", connectome=connectome
    )
    return responses["response"].isel(column=0).drop_vars(["model", "model_name", "task_error"], errors="ignore")


def test_response_loss__is_zero_for_own_responses_of_any_scale(
    scenes: xr.Dataset, connectome: xr.Dataset, start: xr.Dataset
) -> None:
    measured = 3 * recordings_of(scenes[["luminance"]], start, connectome).compute() - 7
    measured = measured.where(measured["time"] > 0.1)
    loss = fx.training.response_loss(measured.sel(cell_type=["Mi1", "T4c"]))
    training = make_training(scenes[["luminance"]], connectome, start, loss)
    assert training.evaluate(training.task) < 1e-3
    other = make_training(scenes[["luminance"]], connectome, start.isel(model=[1]), loss)
    assert other.evaluate(other.task) > 1e-2


def test_response_loss__sees_responses_through_the_indicator(
    scenes: xr.Dataset, connectome: xr.Dataset, start: xr.Dataset
) -> None:
    measured = recordings_of(scenes[["luminance"]], start, connectome).compute().sel(cell_type=["Mi1", "T4c"])
    imaged = fx.tuning.calcium(measured, rise=0.03, decay=0.1)
    seen = fx.training.response_loss(imaged, rise=0.03, decay=0.1)
    training = make_training(scenes[["luminance"]], connectome, start, seen)
    assert training.evaluate(training.task) < 1e-3
    unseen = make_training(scenes[["luminance"]], connectome, start, fx.training.response_loss(imaged))
    assert unseen.evaluate(unseen.task) > 0.05


def test_response_loss__has_a_gradient_toward_the_right_sign() -> None:
    wave = torch.sin(torch.arange(20.0))[None]
    measured = xr.DataArray(wave[..., None].numpy(), dims=("sample", "time", "cell_type"), coords={"cell_type": ["L1"]})
    loss = fx.training.response_loss(measured)
    response = (-wave[..., None] + 0.1 * torch.cos(torch.arange(20.0))[None, :, None]).requires_grad_()
    value = loss({"L1": response}, {"recording": wave[..., None]})
    assert 1.9 < float(value.detach()) < 2
    value.backward()
    assert response.grad is not None
    stepped = loss({"L1": (response - 0.1 * response.grad).detach()}, {"recording": wave[..., None]})
    assert float(stepped) < float(value.detach())


def test_response_loss__fits_models_to_recordings(
    scenes: xr.Dataset, connectome: xr.Dataset, start: xr.Dataset
) -> None:
    """The start has twice the time constants of the recorded model, and only they are fitted."""
    one = start.isel(model=[0])
    measured = recordings_of(scenes[["luminance"]], one, connectome)
    fitted = fx.train(
        scenes[["luminance"]],
        fx.training.response_loss(measured),
        ensemble=one.assign(time_constant=2 * one["time_constant"]),
        connectome=connectome,
        n_iterations=12,
        fixed=["bias", "synapse_strength"],
        learning_rates={"time_constant": 5e-3},
        progress=False,
    )
    assert fitted["loss"].values[0, -1] < 0.8 * fitted["loss"].values[0, 0]


def test_response_loss__rejects_recordings(scenes: xr.Dataset, connectome: xr.Dataset) -> None:
    dims = ("sample", "time", "cell_type")
    measured = xr.DataArray(np.ones((16, 20, 1)), dims=dims, coords={"cell_type": ["Mi1"]})
    for recordings, message in (
        (measured * np.nan, "expected recordings with at least one measured value, got NaN only"),
        (measured.expand_dims("column"), "expected recordings of central cells"),
        (measured.isel(time=0), "expected recordings with the dims sample, time and cell_type"),
        (measured.drop_vars("cell_type"), "expected the names of the recorded cell types"),
    ):
        with pytest.raises(InputError, match=message):
            fx.training.response_loss(recordings)
    with pytest.raises(InputError, match="expected both rise and decay"):
        fx.training.response_loss(measured, rise=0.1)
    with pytest.raises(InputError, match="expected 0 < rise < decay"):
        fx.training.response_loss(measured, rise=0.2, decay=0.1)
    for recordings, error, message in (
        (measured.isel(sample=slice(3)), InputError, "expected recordings of 16 samples, got 3"),
        (
            measured.assign_coords(sample=np.arange(16) + 100),
            InputError,
            "of the samples of the rendering, got 16 others",
        ),
        (measured.assign_coords(cell_type=["Mi99"]), UnknownCellTypeError, "Mi99"),
    ):
        loss = fx.training.response_loss(recordings)
        with pytest.raises(error, match=message):
            fx.train(scenes[["luminance"]], loss, connectome=connectome, **QUICK)


def test_flow_readout__recovers_a_linear_flow() -> None:
    rng = np.random.default_rng(0)
    readout = FlowReadout(("a", "b", "c"), EXTENT, 1)
    responses = {name: torch.as_tensor(rng.random((6, 4, 19)), dtype=torch.float32) for name in ("a", "b", "c")}
    weight = torch.as_tensor(rng.normal(size=(3, 2)), dtype=torch.float32)
    flow = readout.features(responses) @ weight + 2.0
    readout.fit(responses, flow)
    residual = (readout(responses) - flow).detach()
    assert float(residual.square().mean() / flow.var()) < 1e-3


def test_flow_readout__averages_over_neighbours() -> None:
    readout = FlowReadout(("a",), EXTENT, 1)
    impulse = torch.zeros(1, 1, 19)
    impulse[..., 9] = 7.0  # the central column
    np.testing.assert_allclose(readout.features({"a": impulse}).numpy().ravel(), np.ones(7), rtol=1e-6)


def test_activity_penalty__acts_on_biases_of_silent_and_saturated_types() -> None:
    bias = torch.zeros(1, 3, requires_grad=True)
    strength = torch.ones(1, 2, requires_grad=True)
    values = {"silent": -torch.ones(2, 3, 7), "fine": torch.ones(2, 3, 7), "saturated": 9 * torch.ones(2, 3, 7)}
    penalty = losses.activity_penalty()(values, TorchParameters(bias, bias, strength))
    penalty.backward()
    assert bias.grad is not None
    assert np.sign(bias.grad.numpy()).tolist() == [[-1, 0, 1]]
    assert strength.grad is None


def test_parameter_penalty__is_zero_for_the_reference(start: xr.Dataset) -> None:
    penalty = losses.parameter_penalty(start.isel(model=[0]), weight=1.0)
    values = [
        [torch.as_tensor(start[name].values[i : i + 1]) for name in ("bias", "time_constant", "synapse_strength")]
        for i in (0, 1)
    ]
    assert float(penalty({}, TorchParameters(*values[0]))) < 1e-12
    assert float(penalty({}, TorchParameters(*values[1]))) > 1e-3
    with pytest.raises(InputError, match="expected one reference model, got 2"):
        losses.parameter_penalty(start)


def test_calibrated_ensemble__activates_all_types(scenes: xr.Dataset, connectome: xr.Dataset) -> None:
    ensemble = fx.training.calibrated_ensemble(scenes, 1, seed=5, connectome=connectome)
    responses = fx.simulate(scenes, ensemble, initial_state="steady_state", connectome=connectome)["response"]
    late = responses.isel(model=0, time=slice(10, None))
    dims = ("sample", "time", "column")
    is_input = connectome["role"].values == "input"
    assert (abs(late.mean(dims) - 0.15) < 0.2).mean() > 0.8
    assert ((late.std(dims) > 0.1) & (late.std(dims) < 0.4)).values[~is_input].mean() > 0.8


def test_progress__shows_iterations_and_loss(
    scenes: xr.Dataset, connectome: xr.Dataset, terminal: pytest.CaptureFixture[str]
) -> None:
    fx.train(scenes, mean_square, connectome=connectome, **(QUICK | {"progress": True}))
    shown = terminal.readouterr().err
    assert "6/6" in shown
    assert "loss" in shown


def test_has_client__is_false_without_distributed() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not running._has_client()
