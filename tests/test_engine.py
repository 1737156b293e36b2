"""Engines compared with each other and with theory; test_parity compares them with arrays computed by flyvis."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
import pytest
import strategies
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.profiler import ProfilerActivity, profile

import flyxr as fx
from flyxr import cli, hexgrid, simulation
from flyxr import engine as engines
from flyxr.connectome import compile_network, open_connectome
from flyxr.engine import base, kernels, reference, sparse, stencil
from flyxr.engine.base import Parameters
from flyxr.testing import random_rendering, tiny_connectome, tiny_network

if TYPE_CHECKING:
    from types import ModuleType

    from numpy.typing import NDArray

FAST_ENGINES: list[ModuleType] = [sparse, stencil]
ALL_ENGINES: list[ModuleType] = [reference, *FAST_ENGINES]
TAU, BIAS, WEIGHT = 0.05, 0.8, 0.3


def linear_chain() -> tuple[base.Network, Parameters]:
    """R excites L with weight 2 × 0.15. All potentials are positive, so the network is linear and has a closed form."""
    network = compile_network(tiny_connectome(edges=[("R", "L", 1, [(0, 0)]), ("L", "T", -1, [(0, 0)])]))
    parameters = Parameters(
        bias=np.full((1, 3), BIAS), time_constant=np.full((1, 3), TAU), synapse_strength=np.array([[WEIGHT / 2, 0.0]])
    )
    return network, parameters


def exact_potential(time: NDArray[np.floating], luminance: float) -> NDArray[np.floating]:
    """Potential of L after a step of the luminance from 0, from the steady state in the dark."""
    relative = time / TAU
    return BIAS + WEIGHT * (BIAS + luminance * (1 - np.exp(-relative) - relative * np.exp(-relative)))


@pytest.mark.parametrize("engine", ALL_ENGINES)
def test_integrate__euler_error_has_slope_one(engine: ModuleType) -> None:
    network, parameters = linear_chain()
    n_steps, errors = np.array([40, 80, 160, 320, 640]), []
    initial = np.full((1, 1, network.n_cells), BIAS)
    initial[..., network.cell_type == 1] = BIAS * (1 + WEIGHT)
    for n in n_steps:
        dt = 0.2 / n
        stimulus = np.ones((1, n, network.n_columns))
        result = engine.integrate(network, parameters, stimulus, dt, state=initial)
        l_responses = result.responses[0, 0][:, network.cell_type == 1]
        errors.append(np.abs(l_responses - exact_potential(dt * np.arange(1, n + 1), 1.0)[:, None]).max())
    slope = np.polyfit(np.log(0.2 / n_steps), np.log(errors), 1)[0]
    assert slope == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("engine", ALL_ENGINES)
def test_integrate__steady_state_is_a_fixed_point(engine: ModuleType) -> None:
    network, parameters = tiny_network(extent=2)
    grey = np.full((1, 4000, network.n_columns), 0.5)
    settled = engine.integrate(network, parameters, grey, 0.01, frames=np.arange(0)).state
    continued = engine.integrate(network, parameters, grey[:, :50], 0.01, state=settled)
    np.testing.assert_allclose(continued.responses, np.broadcast_to(settled, (1, 50, network.n_cells))[None], atol=1e-6)


@pytest.mark.parametrize("engine", ALL_ENGINES)
def test_integrate__is_silent_in_the_dark_without_bias(engine: ModuleType) -> None:
    network, parameters = tiny_network()
    dark = np.zeros((2, 30, network.n_columns))
    result = engine.integrate(network, parameters._replace(bias=0 * parameters.bias), dark, 0.01)
    assert not result.responses.any()


@pytest.mark.parametrize("engine", ALL_ENGINES)
def test_integrate__time_constants_below_dt_count_as_dt(engine: ModuleType) -> None:
    network, parameters = tiny_network()
    stimulus = np.random.default_rng(0).random((1, 10, network.n_columns))
    below, equal = (
        engine.integrate(
            network, parameters._replace(time_constant=np.full_like(parameters.time_constant, tau)), stimulus, 0.01
        )
        for tau in (0.001, 0.01)
    )
    np.testing.assert_array_equal(below.responses, equal.responses)


def test_integrate__translated_stimulus_gives_translated_responses() -> None:
    """Away from the rim the network is the same around every column."""
    network, parameters = tiny_network(extent=6)
    u, v = hexgrid.columns(6)
    for du, dv in ((1, 0), (0, -1), (-1, 1)):
        stimulus = np.zeros((2, 8, network.n_columns))
        stimulus[0, :, hexgrid.column_index(0, 0, 6)] = 1
        stimulus[1, :, hexgrid.column_index(du, dv, 6)] = 1
        responses = reference.integrate(network, parameters, stimulus, 0.02).responses[0]
        responses = responses.reshape(2, 8, 3, -1)
        near = np.maximum(np.maximum(abs(u), abs(v)), abs(u + v)) <= 2
        moved = hexgrid.column_index(u[near] + du, v[near] + dv, 6)
        np.testing.assert_allclose(responses[0][..., near], responses[1][..., moved], atol=1e-12)


def test_sparse__equals_reference(device: str) -> None:
    network, parameters = tiny_network(extent=3, n_models=3)
    stimulus = np.random.default_rng(1).random((4, 25, network.n_columns))
    state = np.random.default_rng(2).normal(size=(3, 4, network.n_cells))
    expected = reference.integrate(network, parameters, stimulus, 0.01, state=state)
    result = sparse.integrate(network, parameters, stimulus, 0.01, state=state, device=device)
    np.testing.assert_allclose(result.responses, expected.responses, atol=2e-6)
    np.testing.assert_allclose(result.state, expected.state, atol=2e-6)


@pytest.mark.parametrize("engine", FAST_ENGINES)
@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 8), st.data())
def test_fast_engines__equal_reference_for_any_record(
    engine: ModuleType, n_models: int, n_samples: int, n_frames: int, data: st.DataObject
) -> None:
    network, parameters = tiny_network(n_models=n_models)
    stimulus = np.random.default_rng(n_samples).random((n_samples, n_frames, network.n_columns))
    cells, frames = data.draw(strategies.recorded_cells_and_frames(network.n_cells, n_frames))
    everything = reference.integrate(network, parameters, stimulus, 0.01).responses
    recorded = engine.integrate(network, parameters, stimulus, 0.01, cells=cells, frames=frames).responses
    expected = everything[:, :, frames][..., cells]
    assert recorded.shape == expected.shape
    np.testing.assert_allclose(recorded, expected, atol=2e-6)


@pytest.mark.parametrize("engine", ALL_ENGINES)
def test_integrate__does_not_depend_on_order_of_models_or_batch_size(engine: ModuleType) -> None:
    network, parameters = tiny_network(n_models=3)
    stimulus = np.random.default_rng(0).random((5, 12, network.n_columns))
    whole = engine.integrate(network, parameters, stimulus, 0.01).responses
    reversed_models = Parameters(*(values[::-1] for values in parameters))
    reversed_responses = engine.integrate(network, reversed_models, stimulus, 0.01).responses
    np.testing.assert_array_equal(whole, reversed_responses[::-1])
    for sample in range(5):
        single = engine.integrate(network, parameters, stimulus[sample : sample + 1], 0.01).responses
        np.testing.assert_allclose(single[:, 0], whole[:, sample], atol=1e-6)


def test_sparse__models_in_several_products_have_the_same_bits(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    network, parameters = tiny_network(n_models=5)
    stimulus = np.random.default_rng(0).random((2, 12, network.n_columns))
    state = np.random.default_rng(1).random((5, 1, network.n_cells))
    one_product = sparse.integrate(network, parameters, stimulus, 0.01, state=state, device=device)
    monkeypatch.setattr(sparse, "_MODELS_PER_PRODUCT", 2)
    three_products = sparse.integrate(network, parameters, stimulus, 0.01, state=state, device=device)
    expected = reference.integrate(network, parameters, stimulus, 0.01, state=state)
    for result in (one_product, three_products):
        np.testing.assert_allclose(result.responses, expected.responses, atol=1e-6)
    np.testing.assert_array_equal(three_products.state, one_product.state)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_sparse__a_step_on_a_gpu_is_a_graph_and_does_not_wait() -> None:
    network, parameters = tiny_network(n_models=2)
    stepper = sparse.Stepper(network, parameters, 0.01, n_samples=2, cells=np.arange(4), device="cuda")
    assert stepper.products._graph is not None
    luminance = torch.rand((2, network.n_columns), device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            stepper.products.step(luminance)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("engine", ALL_ENGINES)
def test_integrate__continues_from_its_last_state(engine: ModuleType) -> None:
    network, parameters = tiny_network()
    stimulus = np.random.default_rng(0).random((2, 20, network.n_columns))
    whole = engine.integrate(network, parameters, stimulus, 0.01)
    first = engine.integrate(network, parameters, stimulus[:, :7], 0.01)
    rest = engine.integrate(network, parameters, stimulus[:, 7:], 0.01, state=first.state)
    np.testing.assert_array_equal(np.concatenate([first.responses, rest.responses], axis=2), whole.responses)
    np.testing.assert_array_equal(whole.responses[:, :, -1], whole.state)


def test_sparse__does_not_allocate_in_a_step() -> None:
    """The number of allocations by torch does not depend on the number of steps if nothing is recorded."""
    network, parameters = tiny_network(extent=3)

    def count_allocations(n_frames: int) -> int:
        stimulus = np.zeros((2, n_frames, network.n_columns), dtype=np.float32)
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as run:
            sparse.integrate(network, parameters, stimulus, 0.01, frames=np.arange(0))
        return sum(1 for event in run.events() if event.name == "[memory]" and event.cpu_memory_usage > 0)

    torch.zeros(1)
    assert count_allocations(60) == count_allocations(10) > 0


def test_sparse__restores_the_denormals_of_the_caller() -> None:
    network, parameters = tiny_network()
    sparse.integrate(network, parameters, np.zeros((1, 2, network.n_columns)), 0.01)
    assert (torch.tensor([1e-40]) * 1 > 0).all()


def test_stencil__equals_reference_with_strides_and_gaps() -> None:
    """The published connectome, in which some cell types do not fill the lattice, at small and large extents."""
    for extent in (1, 2, 6):
        connectome = open_connectome(extent=extent)
        network = compile_network(connectome)
        rng = np.random.default_rng(extent)
        parameters = Parameters(
            rng.normal(0.5, 0.3, (2, 65)),
            rng.uniform(0.004, 0.1, (2, 65)),
            rng.uniform(0, 0.01, (2, network.pairs.size)),
        )
        stimulus, state = rng.random((2, 12, network.n_columns)), rng.normal(size=(2, 1, network.n_cells))
        expected = reference.integrate(network, parameters, stimulus, 0.01, state=state)
        result = stencil.integrate(network, parameters, stimulus, 0.01, state=state)
        np.testing.assert_allclose(result.responses, expected.responses, atol=3e-6)
        np.testing.assert_allclose(result.state, expected.state, atol=3e-6)


def test_stencil__equals_reference_with_many_samples() -> None:
    """37 samples make batches of several sizes; more cells are recorded than are copied together."""
    network = compile_network(open_connectome(extent=5))
    rng = np.random.default_rng(0)
    parameters = Parameters(
        rng.normal(0.5, 0.3, (1, 65)), rng.uniform(0.004, 0.1, (1, 65)), rng.uniform(0, 0.01, (1, network.pairs.size))
    )
    stimulus, state = rng.random((37, 5, network.n_columns)), rng.normal(size=(1, 37, network.n_cells))
    expected = reference.integrate(network, parameters, stimulus, 0.01, state=state)
    result = stencil.integrate(network, parameters, stimulus, 0.01, state=state)
    np.testing.assert_allclose(result.responses, expected.responses, atol=3e-6)
    np.testing.assert_allclose(result.state, expected.state, atol=3e-6)


@pytest.mark.parametrize("engine", ALL_ENGINES)
def test_integrate__records_nan_where_there_is_no_cell(engine: ModuleType) -> None:
    network, parameters = tiny_network(n_models=2)
    stimulus = np.random.default_rng(0).random((3, 4, network.n_columns))
    cells = np.array([-1, 5, 6, -1, -1, 0, 20, -1])
    everything = engine.integrate(network, parameters, stimulus, 0.01).responses
    recorded = engine.integrate(network, parameters, stimulus, 0.01, cells=cells).responses
    np.testing.assert_array_equal(np.isnan(recorded).all((0, 1, 2)), cells < 0)
    np.testing.assert_array_equal(recorded[..., cells >= 0], everything[..., cells[cells >= 0]])


def test_stencil__same_bits_in_any_batch() -> None:
    network, parameters = tiny_network(extent=4, n_models=3)
    stimulus = np.random.default_rng(0).random((5, 9, network.n_columns))
    whole = stencil.integrate(network, parameters, stimulus, 0.01).responses
    for model in range(3):
        single_model = Parameters(*(values[model : model + 1] for values in parameters))
        for sample in range(5):
            single = stencil.integrate(network, single_model, stimulus[sample : sample + 1], 0.01).responses
            np.testing.assert_array_equal(single[0, 0], whole[model, sample])


def test_jit__compiles_without_a_cache_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def njit(**options: object) -> object:
        calls.append(options)
        if options.get("cache"):
            raise RuntimeError("no locator available")
        return lambda function: function

    monkeypatch.setattr(numba, "njit", njit)
    assert kernels.jit(exact_potential) is exact_potential
    assert len(calls) == 2


def test_stencil__runs_in_a_forked_process() -> None:
    """A pool of threads does not survive a fork, so the child makes its own."""
    program = """
import os, numpy as np
from flyxr import testing
from flyxr.engine import stencil
network, parameters = testing.tiny_network(n_models=4)
expected = stencil.integrate(network, parameters, np.ones((2, 3, 7)), 0.01).responses
child = os.fork()
responses = stencil.integrate(network, parameters, np.ones((2, 3, 7)), 0.01).responses
if child == 0:
    os._exit(0 if np.array_equal(responses, expected) else 1)
assert os.waitpid(child, 0)[1] == 0
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


@pytest.mark.parametrize("engine", [reference, stencil])
def test_cpu_engines__reject_another_device(engine: ModuleType) -> None:
    network, parameters = tiny_network()
    with pytest.raises(ValueError, match="engine='sparse'"):
        engine.integrate(network, parameters, np.zeros((1, 2, network.n_columns)), 0.01, device="cuda")


def test_fade_in__ramps_the_contrast_around_grey() -> None:
    ramp = base.fade_in(np.array([[1.0, 0.0]]), 1 / 100)
    assert ramp.shape == (1, 100, 2)
    np.testing.assert_allclose(ramp[0, 0], 0.5)
    np.testing.assert_allclose(ramp[0, -1], [1, 0])
    np.testing.assert_allclose(np.diff(ramp[0, :, 0]), 0.5 / 99)


DOCS = Path(__file__).parents[1] / "docs"


def test_engines__each_module_has_a_record(capsys: pytest.CaptureFixture[str]) -> None:
    """The records agree with the modules, the documentation and the command line."""
    folder = Path(engines.__file__).parent
    modules = {path.stem for path in folder.glob("*.py") if "\ndef integrate(" in path.read_text(encoding="utf-8")}
    assert set(engines.ENGINES) == modules
    for name, record in engines.ENGINES.items():
        assert record.name == name
        assert callable(record.load())
        assert f'"{name}"' in str(simulation.simulate.__doc__)
    page = (DOCS / "engines.md").read_text(encoding="utf-8")
    assert page == engines.markdown_page(), "run python -m flyxr.engine > docs/engines.md"
    with pytest.raises(SystemExit):
        cli.main(["simulate", "--help"])
    assert ", ".join(["auto", *engines.ENGINES]) in " ".join(capsys.readouterr().out.split())


def test_engines__accept_another_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new engine can be chosen, appears in messages and in the documentation, and determines the block size."""

    class WideRecord(engines.EngineRecord):
        def load(self) -> Any:
            return engines.ENGINES["stencil"].load()

    record = WideRecord("wide", ("cpu", "tpu"), 5, False, "for the test")
    monkeypatch.setitem(engines.ENGINES, "wide", record)
    assert engines.choose_engine("wide", "cpu") == ("wide", "cpu")
    assert engines.choose_engine("auto", "tpu") == ("wide", "tpu")
    with pytest.raises(ValueError, match="'reference' or 'wide', got 'dense'"):
        engines.choose_engine("dense")
    assert "| `wide` | cpu, tpu | 5 | for the test |" in engines.markdown_page()
    rendering = random_rendering(extent=1, n_samples=92, n_frames=3)
    models = fx.sample_ensemble(1, seed=0, connectome=tiny_connectome(extent=1))
    responses = fx.simulate(rendering, models, engine="wide")
    assert responses.response.chunks[1] == (50, 42)  # two blocks, the first a multiple of 5
    expected = fx.simulate(rendering, models, engine="stencil").response
    np.testing.assert_array_equal(responses.response, expected)


def test_sparse__reports_a_missing_gpu() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    network, parameters = tiny_network()
    with pytest.raises(ValueError, match=r"expected a CUDA GPU for device='cuda', got none .*: use device='cpu'"):
        sparse.integrate(network, parameters, np.zeros((1, 2, 7)), 0.01, device="cuda")


def test_n_threads__is_within_the_quota_of_a_container(monkeypatch: pytest.MonkeyPatch) -> None:
    import dask.system

    monkeypatch.setattr(dask.system, "_try_extract_cgroup_cpu_quota", lambda: (100_000, 100_000))
    assert base.n_threads() == 1
