"""Labels, laziness, records, states and bad input of ``simulate``; the numbers are held in test_parity."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import flyxr as fx
from flyxr import hexgrid, provenance, schema
from flyxr.connectome import cell_presence, compile_network
from flyxr.engine import choose_engine
from flyxr.selection import UnknownCellTypeError
from flyxr.simulation import DivergedError
from flyxr.testing import tiny_connectome

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import CountingScheduler

# ``flyxr.simulate`` is the function; its module is reached by name.
simulate_module = importlib.import_module("flyxr.simulation.graph")
EXTENT, N_TIME = 2, 6
CONNECTOME = fx.open_connectome(extent=EXTENT)


def rendering(n_samples: int = 2, n_time: int = N_TIME, dt: float = 1 / 100, extent: int = EXTENT) -> xr.Dataset:
    columns = hexgrid.column_coords(extent)
    values = np.random.default_rng(0).random((n_samples, n_time, columns["u"][1].size), dtype=np.float32)
    coords = {"sample": np.arange(n_samples), "time": schema.time_coord(n_time, dt), **columns}
    return xr.Dataset({"luminance": (("sample", "time", "column"), values)}, coords).assign_coords(
        angle=("sample", np.arange(n_samples) * 30.0)
    )


def ensemble(n_models: int = 2) -> xr.Dataset:
    return fx.sample_ensemble(n_models, seed=0, connectome=CONNECTOME)


def simulate(data: xr.Dataset | None = None, models: xr.Dataset | None = None, **options: Any) -> xr.Dataset:
    data = rendering() if data is None else data
    return fx.simulate(data, ensemble() if models is None else models, **{"connectome": CONNECTOME} | options)


def test_simulate__responses_are_labelled() -> None:
    responses = simulate()
    schema.validate(responses, "responses")
    assert dict(responses.response.sizes) == {"model": 2, "sample": 2, "time": 6, "cell_type": 65, "column": 19}
    assert responses.response.dtype == np.float32
    assert responses.response.attrs["units"] == "a.u."
    assert responses.attrs["trained"] is False or responses.attrs["trained"] == 0
    np.testing.assert_array_equal(responses.angle, [0, 30])
    np.testing.assert_array_equal(responses.luminance, rendering().luminance)
    assert responses.model_name.values.tolist() == ensemble().model_name.values.tolist()


def test_simulate__absent_cells_are_nan_and_no_others() -> None:
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


def test_simulate__one_model_of_many_runs_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[str] = []
    original = simulate_module.run_block

    def counted(block: Any, parameters: Any, stimulus: Any, state: Any, name: str, *rest: Any) -> Any:
        runs.append(name)
        return original(block, parameters, stimulus, state, name, *rest)

    monkeypatch.setattr(simulate_module, "run_block", counted)
    responses = simulate(models=ensemble(5))
    responses.sel(model=3).load()
    assert runs == [str(responses.model_name.values[3])]


def test_simulate__steady_state_is_computed_once_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = []
    original = simulate_module.steady_state
    monkeypatch.setattr(simulate_module, "steady_state", lambda *given: runs.append(1) or original(*given))
    simulate(rendering(4).chunk(sample=1), initial_state="steady_state").load()
    assert len(runs) == 2


@given(st.integers(1, 4), st.integers(1, N_TIME))
def test_simulate__chunked_equals_unchunked(samples: int, times: int) -> None:
    data = rendering(4)
    whole = simulate(data, engine="reference").load()
    chunked = simulate(data.chunk(sample=samples, time=times), engine="reference").load()
    np.testing.assert_array_equal(whole.response, chunked.response)


def test_simulate__size_of_blocks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = simulate(rendering(5)).load()
    monkeypatch.setattr(simulate_module, "BLOCK_SAMPLES", 2)
    blocks = simulate(rendering(5))
    assert blocks.response.chunks[1] == (2, 2, 1)
    np.testing.assert_allclose(blocks.response, whole.response, atol=1e-6)


def test_simulate__blocks_follow_the_chunks_of_a_lazy_rendering() -> None:
    """A block larger than a chunk would hold more of the movie at once than its maker meant."""
    assert simulate(rendering(6).chunk(sample=2)).response.chunks[1] == (2, 2, 2)


def test_simulate__memory_bounds_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulate_module, "BLOCK_BYTES", 3 * 4 * 2 * N_TIME * 65 * 19)
    assert simulate(rendering(8), initial_state="rest").response.chunks[1] == (2, 2, 2, 2)


def test_simulate__order_of_types_pairs_and_models_changes_nothing() -> None:
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


def test_simulate__never_writes_onto_what_it_is_given() -> None:
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
    "middle": ({"column": "central", "cell_type": "Lawf*"}, {"column": [9], "cell_type": ["Lawf1", "Lawf2"]}),
    "time": ({"time": slice(0.01, 0.03)}, {"time": [0.01, 0.02, 0.03]}),
    "stride": ({"time": slice(None, None, 2)}, {"time": [0, 0.02, 0.04]}),
}


@pytest.mark.parametrize("initial_state", ["fade_in", "rest"])
@pytest.mark.parametrize(("record", "selection"), RECORDS.values(), ids=RECORDS)
def test_simulate__record_equals_selecting_from_all(record: Any, selection: Any, initial_state: str) -> None:
    whole = simulate(initial_state=initial_state).load()
    part = simulate(initial_state=initial_state, record=record).load()
    expected = whole.sel(selection, method=None) if "time" not in selection else whole.sel(selection, method="nearest")
    xr.testing.assert_allclose(part.drop_attrs(), expected.drop_attrs(), atol=1e-6)


@pytest.mark.parametrize(("record", "expected"), [("all", 65 * 19), (["T4c"], 19), ("central", 65)])
def test_simulate__only_what_is_recorded_is_asked_of_the_engine(
    record: Any, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    engine = importlib.import_module(f"flyxr.engine.{choose_engine()[0]}")
    original = engine.integrate
    monkeypatch.setattr(
        engine, "integrate", lambda *given, **named: asked.append(len(named["cells"])) or original(*given, **named)
    )
    simulate(record=record).load()
    assert set(asked) == {expected}


def test_simulate__state_given_for_each_model_and_sample() -> None:
    final = simulate().isel(time=-1).load()
    continued = simulate(initial_state=final).load()
    for model in range(2):
        for sample in range(2):
            alone = simulate(
                rendering().isel(sample=[sample]),
                ensemble().isel(model=[model]),
                initial_state=final.response.isel(model=model, sample=sample, drop=True),
            )
            np.testing.assert_allclose(
                alone.response[0, 0], continued.response[model, sample], atol=1e-6, err_msg=f"{model} {sample}"
            )


def test_simulate__state_does_not_fit() -> None:
    whole = simulate().load()
    with pytest.raises(schema.SchemaError, match=r"isel\(time=-1\)"):
        simulate(initial_state=whole)
    with pytest.raises(schema.SchemaError, match=r"(?s)each 'sample' of .* without \[1\].*each 'cell_type'"):
        simulate(initial_state=whole.isel(time=-1, sample=[0], cell_type=slice(0, 3)))
    with pytest.raises(ValueError, match="'fade_in', 'steady_state', 'rest'"):
        simulate(initial_state="grey")


def test_simulate__step_above_one_fiftieth_warns() -> None:
    with pytest.warns(UserWarning, match=r"0.04 s is above 1/50 s.*dt=1/100"):
        simulate(rendering(dt=1 / 25))


def test_simulate__step_of_one_fiftieth_does_not_warn() -> None:
    simulate(rendering(dt=1 / 50))  # warnings are errors here


def test_simulate__growth_without_bound_is_an_error() -> None:
    connectome = tiny_connectome(
        extent=2, edges=[("R", "L", 1, [(0, 0)]), ("L", "T", 1, [(0, 0)]), ("T", "L", 1, [(0, 0)])]
    )
    models = fx.sample_ensemble(1, seed=0, connectome=connectome)
    models["synapse_strength"] = models.synapse_strength * 0 + 5.0
    with pytest.raises(DivergedError, match=r"sample-0/000 grow without bound.*step of 0.01 s"):
        fx.simulate(rendering(n_time=60), models, connectome=connectome).load()


def test_simulate__growth_after_the_end_of_a_sample_does_not_count() -> None:
    """Each sample runs as if alone, though longer ones stand beside it."""
    edges = [("R", "L", 1, [(0, 0)]), ("L", "T", 1, [(0, 0)]), ("T", "L", 1, [(0, 0)])]
    connectome = tiny_connectome(extent=2, edges=edges)
    models = fx.sample_ensemble(1, seed=0, connectome=connectome)
    models["synapse_strength"] = models.synapse_strength * 0 + 5.0
    data = rendering(n_time=60).copy(deep=True)
    data["luminance"][1] = 0  # stays below the growth of the other
    models["bias"] = models.bias * 0 - 0.01
    alone = fx.simulate(data.isel(sample=[0], time=slice(0, 4)), models, connectome=connectome, initial_state="rest")
    with pytest.raises(DivergedError):
        fx.simulate(data, models, connectome=connectome, initial_state="rest").load()
    ends = data.assign_coords(t_end=("sample", [0.04, 0.6]))
    got = fx.simulate(ends, models, connectome=connectome, initial_state="rest").response.load()
    np.testing.assert_array_equal(got[:, [0], :4], alone.response)
    assert got[:, 0, 4:].isnull().all()
    with pytest.raises(DivergedError):
        fx.simulate(data.assign_coords(t_end=("sample", [0.6, 0.04])), models, connectome=connectome).load()


def test_simulate__unknown_cell_types_are_named_with_the_nearest() -> None:
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
def test_simulate__record_that_makes_no_sense(record: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        simulate(record=record)


def test_simulate__extent_other_than_the_connectomes() -> None:
    with pytest.raises(
        schema.SchemaError, match=r"extent 15, got 19 columns \(extent 2\).*BoxEye\(extent=15\).*extent=2"
    ):
        fx.simulate(rendering(), fx.sample_ensemble(1, seed=0))


def test_simulate__ensemble_of_another_connectome() -> None:
    with pytest.raises(schema.SchemaError, match=r"expected an ensemble of the connectome \w+, got one of \w+"):
        fx.simulate(rendering(), ensemble(), connectome=tiny_connectome(extent=2))


def test_simulate__everything_wrong_with_the_parameters_is_said_at_once() -> None:
    models = ensemble().isel(cell_type=slice(0, 60), pair=slice(0, 600)).copy(deep=True)
    models["bias"][1, 3] = np.nan
    models["time_constant"][0, 0] = 0
    with pytest.raises(schema.SchemaError) as error:
        simulate(models=models)
    for part in (
        "TmY10",
        "strengths of all",
        "'bias' finite, got nan in 1 models",
        "'time_constant' finite and above 0",
    ):
        assert part in str(error.value)


@pytest.mark.parametrize("lazy", [False, True])
def test_simulate__nan_in_the_rendering(lazy: bool) -> None:
    data = rendering().copy(deep=True)
    data["luminance"][1, 3, 5] = np.nan
    with pytest.raises(schema.SchemaError, match="NaN or inf in 1 of"):
        simulate(data.chunk(sample=1) if lazy else data).load()


def test_simulate__renderings_that_are_none() -> None:
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


def test_simulate__provenance_says_what_made_it() -> None:
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
    got = simulate().compute(scheduler="processes", num_workers=1)
    np.testing.assert_array_equal(got.response, expected.response)


def test_simulate__torch_has_the_threads_of_the_process_and_gives_them_back(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from flyxr.engine import base, sparse

    used: list[int] = []
    original = sparse.integrate
    monkeypatch.setattr(base, "n_threads", lambda: 1)
    monkeypatch.setattr(
        sparse, "integrate", lambda *given, **named: used.append(torch.get_num_threads()) or original(*given, **named)
    )
    before = torch.get_num_threads()
    simulate(engine="sparse").load()
    assert set(used) == {1}
    assert torch.get_num_threads() == before


def test_simulate__blocks_are_of_about_one_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulate_module, "BLOCK_SAMPLES", 31)
    assert simulate(rendering(64)).response.chunks[1] == (24, 24, 16)
    assert simulate(rendering(33)).response.chunks[1] == (24, 9)
    assert simulate(rendering(31)).response.chunks[1] == (31,)


def test_simulate__graph_is_small() -> None:
    import pickle

    responses = simulate(rendering(4).chunk(sample=1), ensemble(8))
    network = compile_network(CONNECTOME)
    edges = network.source.nbytes + network.target.nbytes
    of_one_task = len(pickle.dumps(dict(responses.response.data.__dask_graph__()))) / 32
    assert of_one_task < edges / 5


def test_choose_engine__logs_what_it_chose(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="flyxr")
    assert choose_engine("auto", "cpu") == ("stencil", "cpu")
    assert "stencil on cpu" in caplog.text
    assert choose_engine("sparse", "cpu") == ("sparse", "cpu")
    assert choose_engine("reference") == ("reference", "cpu")


def test_choose_engine__takes_a_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flyxr.engine._has_gpu", lambda: True)
    assert choose_engine() == ("sparse", "cuda")
    assert choose_engine("stencil") == ("stencil", "cpu")


def test_choose_engine__never_falls_back_in_silence() -> None:
    with pytest.raises(ValueError, match="got 'dense'"):
        choose_engine("dense")
    for engine in ("stencil", "reference"):
        with pytest.raises(ValueError, match="computes on the CPU, got device='cuda': use engine='sparse'"):
            choose_engine(engine, "cuda")


def final_state() -> xr.Dataset:
    return simulate().isel(time=-1).load()


def test_simulate__nan_in_a_given_state_is_told_for_what_it_is() -> None:
    state = final_state()
    state["response"][0, 1, 2, 5] = np.nan
    message = r"finite initial state, got NaN or infinity in 1 of 4812 potentials, .* first in R3 at column 5"
    with pytest.raises(schema.SchemaError, match=message):
        simulate(initial_state=state)
    with pytest.raises(schema.SchemaError, match="NaN or infinity in 1 of"):
        simulate(initial_state=state.chunk(model=1)).load()


def test_simulate__a_state_goes_by_label() -> None:
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


def test_simulate__a_state_of_a_larger_lattice_goes_by_u_and_v() -> None:
    large = fx.open_connectome(extent=3)
    columns = hexgrid.column_coords(3)
    values = np.arange(65 * 37, dtype=np.float32).reshape(65, 37) / 5000
    state = xr.DataArray(values, dims=("cell_type", "column"), coords={"cell_type": large.cell_type, **columns})
    inside = np.flatnonzero(np.maximum.reduce([abs(state.u), abs(state.v), abs(state.u + state.v)]) <= 2)
    small = state.isel(column=inside).assign_coords(column=np.arange(19))
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
def test_simulate__a_state_that_does_not_fit(change: Callable[[xr.Dataset], xr.Dataset], message: str) -> None:
    with pytest.raises(schema.SchemaError, match=rf"(?s)does not fit:.*{message}"):
        simulate(initial_state=change(final_state()))


def test_simulate__a_steady_state_that_diverges_is_no_wrong_input() -> None:
    edges = [("R", "L", 1, [(0, 0)]), ("L", "T", 1, [(0, 0)]), ("T", "L", 1, [(0, 0)])]
    connectome = tiny_connectome(extent=2, edges=edges)
    models = fx.sample_ensemble(1, seed=0, connectome=connectome)
    models["synapse_strength"] = models.synapse_strength * 0 + 1e6
    with np.errstate(all="ignore"), pytest.raises(DivergedError, match="grow without bound"):
        fx.simulate(rendering(), models, initial_state="steady_state").load()
