"""Labels, laziness, blocks, initial states and bad input of ``simulate``; test_parity tests the numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from strategies import chunk_sizes

import flyxr as fx
from flyxr import hexgrid, provenance, schema
from flyxr.connectome import cell_presence, compile_network
from flyxr.engine import base, choose_engine, reference
from flyxr.selection import UnknownCellTypeError
from flyxr.simulation import DivergedError, ensemble_tensors, prepare
from flyxr.simulation.graph import block_size, response_array
from flyxr.testing import random_rendering, registered_engine, tiny_connectome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import CountingScheduler

EXTENT, N_TIME = 2, 6
CONNECTOME = fx.open_connectome(extent=EXTENT)


def rendering(n_samples: int = 2, n_time: int = N_TIME, dt: float = 1 / 100) -> xr.Dataset:
    data = random_rendering(EXTENT, n_samples, n_time, dt=dt)
    return data.assign_coords(angle=("sample", np.arange(n_samples) * 30.0))


def ensemble(n_models: int = 2) -> xr.Dataset:
    return fx.sample_ensemble(n_models, seed=0, connectome=CONNECTOME)


def simulate(data: xr.Dataset | None = None, models: xr.Dataset | None = None, **options: Any) -> xr.Dataset:
    data = rendering() if data is None else data
    return fx.simulate(data, ensemble() if models is None else models, **{"connectome": CONNECTOME} | options)


@pytest.fixture
def engine_calls() -> Iterator[list[dict[str, Any]]]:
    """Arguments of each call of the engine ``"recording"``."""
    calls: list[dict[str, Any]] = []

    def integrate(network: Any, parameters: Any, stimulus: Any, dt: float, **options: Any) -> Any:
        calls.append({"parameters": parameters, "stimulus": stimulus, **options})
        return reference.integrate(network, parameters, stimulus, dt, **options)

    with registered_engine(integrate, "recording"):
        yield calls


def test_simulate__responses_are_labelled() -> None:
    responses = simulate()
    schema.validate(responses, "responses")
    assert dict(responses.response.sizes) == {"model": 2, "sample": 2, "time": 6, "cell_type": 65, "column": 19}
    assert responses.response.dtype == np.float32
    assert responses.response.attrs["units"] == "a.u."
    assert responses.attrs["trained"] == 0
    np.testing.assert_array_equal(responses.angle, [0, 30])
    np.testing.assert_array_equal(responses.luminance, rendering().luminance)
    assert responses.model_name.values.tolist() == ensemble().model_name.values.tolist()


def test_simulate__only_absent_cells_are_nan() -> None:
    response = simulate().response.load()
    present = cell_presence(CONNECTOME)
    np.testing.assert_array_equal(np.isfinite(response).all(["model", "sample", "time"]), present)
    np.testing.assert_array_equal(np.isfinite(response).any(["model", "sample", "time"]), present)


def test_simulate__is_lazy(counting_scheduler: CountingScheduler) -> None:
    data = rendering()
    responses = simulate(data.assign(luminance=data.luminance.chunk(sample=1, time=2)))
    repr(responses)
    responses._repr_html_()
    responses.fly.central("T4c")
    assert counting_scheduler.calls == 0
    responses.response.sum().compute()
    assert counting_scheduler.calls == 1


def test_simulate__selecting_a_model_runs_that_model_alone(engine_calls: list[dict[str, Any]]) -> None:
    models = ensemble(5)
    simulate(models=models, engine="recording").sel(model=3).load()
    assert len(engine_calls) == 1
    np.testing.assert_array_equal(engine_calls[0]["parameters"].bias, models.bias.sel(model=[3]))


def test_simulate__steady_state_is_computed_once_per_model(engine_calls: list[dict[str, Any]]) -> None:
    simulate(rendering(4).chunk(sample=1), initial_state="steady_state", engine="recording").load()
    n_recorded = [len(call["frames"]) for call in engine_calls]
    assert n_recorded.count(0) == 2  # grey is not recorded
    assert n_recorded.count(N_TIME) == 2 * 4


@given(chunk_sizes({"sample": 4, "time": N_TIME}, max_chunks=N_TIME))
def test_simulate__chunked_equals_unchunked(chunks: dict[str, int]) -> None:
    data = rendering(4)
    unchunked = simulate(data, engine="reference").load()
    chunked = simulate(data.chunk(chunks), engine="reference").load()
    np.testing.assert_array_equal(unchunked.response, chunked.response)


def prepared(n_samples: int, **options: Any) -> Any:
    return prepare(rendering(n_samples), ensemble(), connectome=CONNECTOME, **options)


def test_response_array__does_not_depend_on_the_block_size() -> None:
    one_block = response_array(prepared(5))
    blocks = response_array(prepared(5), max_samples=2)
    assert blocks.chunks[1] == (2, 2, 1)
    np.testing.assert_allclose(blocks.compute(), one_block.compute(), atol=1e-6)


def test_simulate__blocks_follow_the_chunks_of_a_lazy_rendering() -> None:
    """A larger block would hold more of the rendering in memory than its chunks allow."""
    assert simulate(rendering(6).chunk(sample=2)).response.chunks[1] == (2, 2, 2)


def test_block_size__is_limited_by_memory() -> None:
    assert block_size(prepared(8, initial_state="rest"), max_bytes=3 * 4 * 2 * N_TIME * 65 * 19) == 2


def test_simulate__does_not_depend_on_the_order_of_types_pairs_and_models() -> None:
    models = ensemble(3)
    shuffled = models.isel(
        model=[2, 0, 1],
        cell_type=slice(None, None, -1),
        pair=np.random.default_rng(0).permutation(models.sizes["pair"]),
    )
    expected = simulate(models=models).load()
    got = simulate(models=shuffled).load()
    assert got.cell_type.equals(expected.cell_type)
    np.testing.assert_array_equal(got.response, expected.response.isel(model=[2, 0, 1]))


def test_simulate__does_not_modify_its_inputs() -> None:
    data, models = rendering(), ensemble()
    before = data.copy(deep=True), models.copy(deep=True)
    simulate(data, models).load()
    assert data.identical(before[0])
    assert models.identical(before[1])


RECORDS: dict[str, tuple[Any, Any]] = {
    "central": ("central", {"column": [9]}),
    "name": ("T4c", {"cell_type": ["T4c"]}),
    "glob": (["T4*", "L1"], {"cell_type": ["T4a", "T4b", "T4c", "T4d", "L1"]}),
    "columns": ({"column": [3, 0]}, {"column": [3, 0]}),
    "central columns": ({"column": "central", "cell_type": "Lawf*"}, {"column": [9], "cell_type": ["Lawf1", "Lawf2"]}),
    "time": ({"time": slice(0.01, 0.03)}, {"time": [0.01, 0.02, 0.03]}),
    "stride": ({"time": slice(None, None, 2)}, {"time": [0, 0.02, 0.04]}),
}


@pytest.mark.parametrize("initial_state", ["fade_in", "rest"])
@pytest.mark.parametrize(("record", "selection"), RECORDS.values(), ids=RECORDS)
def test_simulate__record_equals_a_selection_from_all(record: Any, selection: Any, initial_state: str) -> None:
    complete = simulate(initial_state=initial_state).load()
    recorded = simulate(initial_state=initial_state, record=record).load()
    expected = complete.sel(selection, method="nearest" if "time" in selection else None)
    xr.testing.assert_allclose(recorded.drop_attrs(), expected.drop_attrs(), atol=1e-6)


@pytest.mark.parametrize(("record", "expected"), [("all", 65 * 19), (["T4c"], 19), ("central", 65)])
def test_simulate__engine_records_only_the_selected_cells(
    record: Any, expected: int, engine_calls: list[dict[str, Any]]
) -> None:
    simulate(record=record, engine="recording").load()
    assert {len(call["cells"]) for call in engine_calls} == {expected}


def test_simulate__state_for_each_model_and_sample() -> None:
    final = simulate().isel(time=-1).load()
    continued = simulate(initial_state=final).load()
    for model in range(2):
        for sample in range(2):
            single = simulate(
                rendering().isel(sample=[sample]),
                ensemble().isel(model=[model]),
                initial_state=final.response.isel(model=model, sample=sample, drop=True),
            )
            np.testing.assert_allclose(
                single.response[0, 0], continued.response[model, sample], atol=1e-6, err_msg=f"{model} {sample}"
            )


def test_simulate__invalid_states() -> None:
    responses = simulate().load()
    with pytest.raises(schema.SchemaError, match=r"isel\(time=-1\)"):
        simulate(initial_state=responses)
    with pytest.raises(schema.SchemaError, match=r"(?s)each 'sample' of .* without \[1\].*each 'cell_type'"):
        simulate(initial_state=responses.isel(time=-1, sample=[0], cell_type=slice(0, 3)))
    with pytest.raises(ValueError, match="'fade_in', 'steady_state', 'rest'"):
        simulate(initial_state="grey")


def test_simulate__step_above_one_fiftieth_warns() -> None:
    with pytest.warns(UserWarning, match=r"0.04 s is above 1/50 s.*dt=1/100"):
        simulate(rendering(dt=1 / 25))


def test_simulate__step_of_one_fiftieth_does_not_warn() -> None:
    simulate(rendering(dt=1 / 50))  # warnings are errors here


def test_simulate__unbounded_growth_raises() -> None:
    connectome = tiny_connectome(
        extent=2, edges=[("R", "L", 1, [(0, 0)]), ("L", "T", 1, [(0, 0)]), ("T", "L", 1, [(0, 0)])]
    )
    models = fx.sample_ensemble(1, seed=0, connectome=connectome)
    models["synapse_strength"] = models.synapse_strength * 0 + 5.0
    with pytest.raises(DivergedError, match=r"sample-0/000 grow without bound.*step of 0.01 s"):
        fx.simulate(rendering(n_time=60), models, connectome=connectome).load()


def test_simulate__growth_after_the_end_of_a_sample_is_ignored() -> None:
    """A sample is independent of longer samples in its block."""
    edges = [("R", "L", 1, [(0, 0)]), ("L", "T", 1, [(0, 0)]), ("T", "L", 1, [(0, 0)])]
    connectome = tiny_connectome(extent=2, edges=edges)
    models = fx.sample_ensemble(1, seed=0, connectome=connectome)
    models["synapse_strength"] = models.synapse_strength * 0 + 5.0
    data = rendering(n_time=60).copy(deep=True)
    data["luminance"][1] = 0  # stays below the growth of the other
    models["bias"] = models.bias * 0 - 0.01
    single = fx.simulate(data.isel(sample=[0], time=slice(0, 4)), models, connectome=connectome, initial_state="rest")
    with pytest.raises(DivergedError):
        fx.simulate(data, models, connectome=connectome, initial_state="rest").load()
    ends = data.assign_coords(t_end=("sample", [0.04, 0.6]))
    response = fx.simulate(ends, models, connectome=connectome, initial_state="rest").response.load()
    np.testing.assert_array_equal(response[:, [0], :4], single.response)
    assert response[:, 0, 4:].isnull().all()
    with pytest.raises(DivergedError):
        fx.simulate(data.assign_coords(t_end=("sample", [0.6, 0.04])), models, connectome=connectome).load()


def test_simulate__unknown_cell_types() -> None:
    with pytest.raises(UnknownCellTypeError, match=r"'T4e' \(nearest: .*T4d.*'mi12x' \(nearest: Mi12"):
        simulate(record=["T4e", "mi12x", "L1"])


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"time": slice(5, 6)}, "selects nothing: no frame from 5.0 s to 6.0 s"),
        ({"column": []}, "selects nothing|from 0 to 18"),
        ({"column": [19]}, r"from 0 to 18.*\[19\]"),
        ({"columns": [1]}, r"any of \['cell_type', 'column', 'time'\], got \['columns'\]"),
        ({"time": 0.1}, "a slice in s"),
    ],
)
def test_simulate__invalid_records(record: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        simulate(record=record)


def test_simulate__rendering_and_connectome_of_different_extents() -> None:
    with pytest.raises(
        schema.SchemaError, match=r"extent 15, got 19 columns \(extent 2\).*BoxEye\(extent=15\).*extent=2"
    ):
        fx.simulate(rendering(), fx.sample_ensemble(1, seed=0))


def test_simulate__ensemble_of_another_connectome() -> None:
    with pytest.raises(schema.SchemaError, match=r"expected an ensemble of the connectome \w+, got one of \w+"):
        fx.simulate(rendering(), ensemble(), connectome=tiny_connectome(extent=2))


def test_simulate__lists_all_problems_of_the_parameters() -> None:
    models = ensemble().isel(cell_type=slice(0, 60), pair=slice(0, 600)).copy(deep=True)
    models["bias"][1, 3] = np.nan
    models["time_constant"][0, 0] = 0
    with pytest.raises(schema.SchemaError) as error:
        simulate(models=models)
    for message in (
        "TmY10",
        "strengths of all",
        "'bias' finite, got nan in 1 models",
        "'time_constant' finite and above 0",
    ):
        assert message in str(error.value)


@pytest.mark.parametrize("is_lazy", [False, True])
def test_simulate__nan_in_the_rendering(is_lazy: bool) -> None:
    data = rendering().copy(deep=True)
    data["luminance"][1, 3, 5] = np.nan
    with pytest.raises(schema.SchemaError, match="NaN or inf in 1 of"):
        simulate(data.chunk(sample=1) if is_lazy else data).load()


def test_simulate__invalid_renderings() -> None:
    with pytest.raises(schema.SchemaError, match="uniform step"):
        simulate(rendering().assign_coords(time=[0, 1, 2, 3, 4, 9.0]))
    with pytest.raises(schema.SchemaError, match="18 columns fill no|fill no .*lattice"):
        simulate(rendering().isel(column=slice(1, None)))
    with pytest.raises(schema.SchemaError, match="at least one"):
        simulate(rendering().isel(sample=slice(0, 0)))
    with pytest.raises(schema.SchemaError, match="got ndarray"):
        simulate(np.zeros((1, 2, 19)))  # type: ignore[arg-type]


def test_simulate__a_single_frame() -> None:
    assert simulate(rendering().isel(time=slice(0, 1))).response.load().sizes["time"] == 1


def test_simulate__provenance() -> None:
    step = provenance.steps(simulate(record="central", initial_state="steady_state"))[-1]
    assert step["operation"] == "simulate"
    assert step["arguments"]["record"] == {"cell_type": "all", "column": [9], "time": "all"}
    assert (step["arguments"]["engine"], step["arguments"]["device"]) == ("stencil", "cpu")
    assert step["arguments"]["initial_state"] == "steady_state"
    assert step["hashes"].keys() == {"connectome", "ensemble", "stimulus"}
    assert {"flyxr", "torch", "numpy"} <= step["versions"].keys()
    other = provenance.steps(simulate(rendering() * 0.5))[-1]
    assert other["hashes"]["stimulus"] != step["hashes"]["stimulus"]
    assert other["hashes"]["ensemble"] == step["hashes"]["ensemble"]


def test_simulate__runs_in_processes() -> None:
    expected = simulate().load()
    computed = simulate().compute(scheduler="processes", num_workers=1)
    np.testing.assert_array_equal(computed.response, expected.response)


def test_simulate__exclusive_engines_have_all_threads_of_the_process() -> None:
    import torch

    n_torch_threads: list[int] = []

    def integrate(*arguments: Any, **options: Any) -> Any:
        n_torch_threads.append(torch.get_num_threads())
        return reference.integrate(*arguments, **options)

    n_before = torch.get_num_threads()
    try:
        torch.set_num_threads(base.n_threads() + 1)
        with registered_engine(integrate, "exclusive", is_exclusive=True):
            simulate(engine="exclusive").load()
        assert set(n_torch_threads) == {base.n_threads()}
        assert torch.get_num_threads() == base.n_threads() + 1, "restored"
    finally:
        torch.set_num_threads(n_before)


@pytest.mark.parametrize(("n_samples", "expected"), [(64, (24, 24, 16)), (33, (24, 9)), (31, (31,))])
def test_response_array__blocks_are_about_equal(n_samples: int, expected: tuple[int, ...]) -> None:
    assert response_array(prepared(n_samples), max_samples=31).chunks[1] == expected


def test_simulate__graph_is_small() -> None:
    import pickle

    responses = simulate(rendering(4).chunk(sample=1), ensemble(8))
    network = compile_network(CONNECTOME)
    edges = network.source.nbytes + network.target.nbytes
    bytes_per_task = len(pickle.dumps(dict(responses.response.data.__dask_graph__()))) / 32
    assert bytes_per_task < edges / 5


def test_choose_engine__logs_its_choice(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="flyxr")
    assert choose_engine("auto", "cpu") == ("stencil", "cpu")
    assert "stencil on cpu" in caplog.text
    assert choose_engine("sparse", "cpu") == ("sparse", "cpu")
    assert choose_engine("reference") == ("reference", "cpu")


def test_choose_engine__takes_a_gpu_where_there_is_one() -> None:
    assert choose_engine(has_gpu=True) == ("sparse", "cuda")
    assert choose_engine("stencil", has_gpu=True) == ("stencil", "cpu")


def test_choose_engine__does_not_fall_back() -> None:
    with pytest.raises(ValueError, match="got 'dense'"):
        choose_engine("dense")
    for engine in ("stencil", "reference"):
        with pytest.raises(ValueError, match="computes on the CPU, got device='cuda': use engine='sparse'"):
            choose_engine(engine, "cuda")


def final_state() -> xr.Dataset:
    return simulate().isel(time=-1).load()


def test_simulate__nan_in_a_given_state() -> None:
    state = final_state()
    state["response"][0, 1, 2, 5] = np.nan
    message = r"finite initial state, got NaN or infinity in 1 of 4812 potentials, .* first in R3 at column 5"
    with pytest.raises(schema.SchemaError, match=message):
        simulate(initial_state=state)
    with pytest.raises(schema.SchemaError, match="NaN or infinity in 1 of"):
        simulate(initial_state=state.chunk(model=1)).load()


def test_simulate__matches_a_state_by_label() -> None:
    state = final_state()
    expected = simulate(initial_state=state).response.load()
    shuffled = state.isel(
        model=slice(None, None, -1), sample=[1, 0], cell_type=slice(None, None, -1), column=slice(None, None, -1)
    )
    np.testing.assert_array_equal(simulate(initial_state=shuffled).response, expected)
    without_axes = shuffled.drop_vars(["u", "v", "x_column", "y_column"])
    np.testing.assert_array_equal(simulate(initial_state=without_axes).response, expected)
    renumbered = state.assign_coords(column=np.arange(19)[::-1])
    with pytest.raises(schema.SchemaError, match="expected 'column' 0 at u -2, v 0"):
        simulate(initial_state=renumbered)


def test_simulate__matches_a_state_of_a_larger_lattice_by_u_and_v() -> None:
    large = fx.open_connectome(extent=3)
    columns = hexgrid.column_coords(3)
    values = np.arange(65 * 37, dtype=np.float32).reshape(65, 37) / 5000
    state = xr.DataArray(values, dims=("cell_type", "column"), coords={"cell_type": large.cell_type, **columns})
    is_inside = np.maximum.reduce([abs(state.u), abs(state.v), abs(state.u + state.v)]) <= 2
    small = state.isel(column=np.flatnonzero(is_inside)).assign_coords(column=np.arange(19))
    expected = simulate(initial_state=small).response.load()
    np.testing.assert_array_equal(simulate(initial_state=state.drop_vars("column")).response, expected)
    with pytest.raises(schema.SchemaError, match="expected 'column' 0 at u -2, v 0 at extent 2, got 5"):
        simulate(initial_state=state)
    with pytest.raises(schema.SchemaError, match="expected a state in each of the 19 columns once, got 37 columns"):
        simulate(initial_state=state.drop_vars(["u", "v"]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.isel(model=[0]), "each 'model' of the other data, got one without"),
        (lambda state: state.isel(model=[0, 0, 1]), "each 'model' once, got more than one of"),
        (lambda state: state.isel(model=[0, 1, 0, 1, 0]).drop_vars("model"), "with 2 of the dim 'model'"),
        (lambda state: state.isel(cell_type=slice(3)), "each 'cell_type' of the other data"),
        (lambda state: state.isel(column=slice(3)), "each of the 19 columns once, got 3 columns"),
    ],
)
def test_simulate__states_that_do_not_fit(change: Callable[[xr.Dataset], xr.Dataset], message: str) -> None:
    with pytest.raises(schema.SchemaError, match=rf"(?s)does not fit:.*{message}"):
        simulate(initial_state=change(final_state()))


def test_simulate__diverging_steady_state() -> None:
    edges = [("R", "L", 1, [(0, 0)]), ("L", "T", 1, [(0, 0)]), ("T", "L", 1, [(0, 0)])]
    connectome = tiny_connectome(extent=2, edges=edges)
    models = fx.sample_ensemble(1, seed=0, connectome=connectome)
    models["synapse_strength"] = models.synapse_strength * 0 + 1e6
    with np.errstate(all="ignore"), pytest.raises(DivergedError, match="grow without bound"):
        fx.simulate(rendering(), models, initial_state="steady_state").load()


def test_ensemble_tensors__respond_like_simulate() -> None:
    import torch

    models, data = ensemble(), rendering()
    tensors = ensemble_tensors(models, CONNECTOME, dt=1 / 100)
    expected = fx.to_neurons(simulate(data, models, initial_state="steady_state").response, CONNECTOME)
    luminance = torch.from_numpy(data.luminance.values)
    responses = tensors.respond(luminance, state=tensors.steady_state()).responses
    np.testing.assert_allclose(responses, expected, atol=1e-5)
    second = tensors.select(1)
    responses = second.respond(luminance, state=second.steady_state(), frames=np.array([5])).responses
    np.testing.assert_allclose(responses, expected[[1], :, [5]], atol=1e-5)


def test_ensemble_tensors__have_gradients_in_parameters() -> None:
    import torch

    tensors = ensemble_tensors(ensemble(), CONNECTOME, dt=1 / 100)
    for values in tensors.parameters:
        values.requires_grad_()
    tensors.respond(torch.from_numpy(rendering().luminance.values)).responses.square().mean().backward()
    assert all((values.grad != 0).any() for values in tensors.parameters)
    assert not tensors.steady_state().requires_grad


SELECTIONS: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[str, ...]]] = {
    "a sample": ({"sample": 1}, {}, ("model", "time", "cell_type", "column")),
    "a model": ({}, {"model": 1}, ("sample", "time", "cell_type", "column")),
    "a sample and a model": ({"sample": 1}, {"model": 1}, ("time", "cell_type", "column")),
}


@pytest.mark.parametrize(("samples", "models", "dims"), SELECTIONS.values(), ids=SELECTIONS)
@pytest.mark.parametrize("lazy", [False, True])
def test_simulate__a_selection_is_the_selection_of_all(
    samples: dict[str, int],
    models: dict[str, int],
    dims: tuple[str, ...],
    lazy: bool,
    counting_scheduler: CountingScheduler,
) -> None:
    data = rendering()
    if lazy:
        data["luminance"] = data.luminance.copy(data=data.luminance.variable.chunk().data)
    responses = simulate(data.isel(samples), ensemble().isel(models))
    assert responses.response.dims == dims
    assert counting_scheduler.calls == 0
    xr.testing.assert_identical(
        responses.load().drop_attrs(), simulate().isel({**samples, **models}).load().drop_attrs()
    )


def test_simulate__a_mean_model_and_an_array_without_labels() -> None:
    responses = simulate(rendering().luminance.drop_vars("sample").isel(sample=0), ensemble().mean("model"))
    assert responses.response.dims == ("time", "cell_type", "column")
    assert not {"sample", "model", "model_name", "task_error"} & set(responses.coords)
    bare = xr.DataArray(rendering().luminance.values, {"time": rendering().time}, ("sample", "time", "column"))
    np.testing.assert_array_equal(simulate(bare).response, simulate().response)


def test_simulate__a_state_of_a_selection() -> None:
    models, data = ensemble().isel(model=0), rendering().isel(sample=0)
    whole = simulate(data, models, initial_state="rest")
    halves = [simulate(data.isel(time=slice(0, 3)), models, initial_state="rest")]
    halves.append(simulate(data.isel(time=slice(3, 6)), models, initial_state=halves[0].isel(time=-1)))
    xr.testing.assert_allclose(xr.concat(halves, "time").response, whole.response)


@pytest.mark.parametrize("factor", [170, -1])
def test_simulate__refuses_luminance_out_of_range(factor: float) -> None:
    data = rendering().assign(luminance=rendering().luminance * factor)
    message = r"expected luminance from 0 to 1, got .*from_columns\(\.\.\., rescale=True\)"
    with pytest.raises(schema.SchemaError, match=message):
        simulate(data)
    with pytest.raises(schema.SchemaError, match=message):
        simulate(data.chunk()).compute()


def test_simulate__takes_sums_of_pixels() -> None:
    movie = fx.stimuli.from_array(np.ones((1, 3, 32, 32)), 50)
    sums = fx.resample(fx.BoxEye(EXTENT).render(movie, filter="sum"), dt=1 / 50)
    assert sums.luminance.max() > 100
    assert np.isfinite(simulate(sums, record="central").response).all()


def test_simulate__asks_whether_time_is_in_ms() -> None:
    data = rendering()
    in_ms = data.assign_coords(time=data.time * 1000)
    with pytest.raises(ValueError, match=r"at most 0\.2 s, got 10 s: is time in ms\?.*time=rendering\.time / 1000"):
        simulate(in_ms)
    np.testing.assert_array_equal(simulate(in_ms.assign_coords(time=in_ms.time / 1000)).response, simulate().response)


def test_simulate__takes_times_as_timedeltas() -> None:
    data = rendering()
    as_timedeltas = data.assign_coords(time=(data.time * 1e9).round().astype("timedelta64[ns]"))
    xr.testing.assert_equal(simulate(as_timedeltas).response, simulate().response)
