"""Engines against each other and against theory; parity with published arrays is in test_parity."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from flyxr.connectome import compile_network, open_connectome
from flyxr.engine import base, kernels, reference, sparse, stencil
from flyxr.engine.base import Parameters
from flyxr.testing import tiny_connectome, tiny_network

if TYPE_CHECKING:
    from numpy.typing import NDArray

FAST = [sparse, stencil]
ENGINES = [reference, *FAST]
TAU, BIAS, WEIGHT = 0.05, 0.8, 0.3


def linear_chain() -> tuple[base.Network, Parameters]:
    """R excites L with weight 2 × 0.15, all potentials positive: a linear network with a closed form."""
    network = compile_network(tiny_connectome(edges=[("R", "L", 1, [(0, 0)]), ("L", "T", -1, [(0, 0)])]))
    parameters = Parameters(
        bias=np.full((1, 3), BIAS), time_constant=np.full((1, 3), TAU), synapse_strength=np.array([[WEIGHT / 2, 0.0]])
    )
    return network, parameters


def exact(time: NDArray[np.floating], x: float) -> NDArray[np.floating]:
    """Potential of L at times after a step of the luminance from 0 to x, from the steady state of darkness."""
    relative = time / TAU
    return BIAS + WEIGHT * (BIAS + x * (1 - np.exp(-relative) - relative * np.exp(-relative)))


@pytest.mark.parametrize("engine", ENGINES)
def test_integrate__euler_error_has_slope_one(engine: object) -> None:
    network, parameters = linear_chain()
    steps, errors = np.array([40, 80, 160, 320, 640]), []
    start = np.full((1, 1, network.n_cells), BIAS)
    start[..., network.cell_type == 1] = BIAS * (1 + WEIGHT)
    for n in steps:
        dt = 0.2 / n
        stimulus = np.ones((1, n, network.n_columns))
        result = engine.integrate(network, parameters, stimulus, dt, state=start)  # type: ignore[attr-defined]
        of_l = result.responses[0, 0][:, network.cell_type == 1]
        errors.append(np.abs(of_l - exact(dt * np.arange(1, n + 1), 1.0)[:, None]).max())
    slope = np.polyfit(np.log(0.2 / steps), np.log(errors), 1)[0]
    assert slope == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("engine", ENGINES)
def test_integrate__steady_state_is_a_fixed_point(engine: object) -> None:
    network, parameters = tiny_network(extent=2)
    grey = np.full((1, 4000, network.n_columns), 0.5)
    settled = engine.integrate(network, parameters, grey, 0.01, frames=np.arange(0)).state  # type: ignore[attr-defined]
    after = engine.integrate(network, parameters, grey[:, :50], 0.01, state=settled)  # type: ignore[attr-defined]
    np.testing.assert_allclose(after.responses, np.broadcast_to(settled, (1, 50, network.n_cells))[None], atol=1e-6)


@pytest.mark.parametrize("engine", ENGINES)
def test_integrate__without_bias_silent_in_the_dark(engine: object) -> None:
    network, parameters = tiny_network()
    dark = np.zeros((2, 30, network.n_columns))
    result = engine.integrate(network, parameters._replace(bias=0 * parameters.bias), dark, 0.01)  # type: ignore[attr-defined]
    assert not result.responses.any()


@pytest.mark.parametrize("engine", ENGINES)
def test_integrate__time_constants_below_dt_count_as_dt(engine: object) -> None:
    network, parameters = tiny_network()
    stimulus = np.random.default_rng(0).random((1, 10, network.n_columns))
    short = parameters._replace(time_constant=np.full_like(parameters.time_constant, 0.001))
    equal = parameters._replace(time_constant=np.full_like(parameters.time_constant, 0.01))
    results = [engine.integrate(network, of, stimulus, 0.01).responses for of in (short, equal)]  # type: ignore[attr-defined]
    np.testing.assert_array_equal(*results)


def test_integrate__translated_stimulus_gives_translated_responses() -> None:
    """Away from the rim every column sees the same network."""
    network, parameters = tiny_network(extent=6)
    from flyxr import hexgrid

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
    got = sparse.integrate(network, parameters, stimulus, 0.01, state=state, device=device)
    np.testing.assert_allclose(got.responses, expected.responses, atol=2e-6)
    np.testing.assert_allclose(got.state, expected.state, atol=2e-6)


@pytest.mark.parametrize("engine", FAST)
@given(
    st.integers(1, 3),
    st.integers(1, 5),
    st.integers(1, 8),
    st.lists(st.integers(0, 20), unique=True, max_size=6),
    st.sets(st.integers(0, 7), max_size=8),
)
def test_fast_engines__equal_reference_for_any_record(
    engine: object, n_models: int, n_samples: int, n_frames: int, cells: list[int], frames: set[int]
) -> None:
    network, parameters = tiny_network(n_models=n_models)
    stimulus = np.random.default_rng(n_samples).random((n_samples, n_frames, network.n_columns))
    record = {
        "cells": np.array(cells, dtype=int),
        "frames": np.array(sorted(f for f in frames if f < n_frames), dtype=int),
    }
    whole = reference.integrate(network, parameters, stimulus, 0.01).responses
    part = engine.integrate(network, parameters, stimulus, 0.01, **record).responses  # type: ignore[attr-defined]
    expected = whole[:, :, record["frames"]][..., record["cells"]]
    assert part.shape == expected.shape
    np.testing.assert_allclose(part, expected, atol=2e-6)


@pytest.mark.parametrize("engine", ENGINES)
def test_integrate__order_of_models_and_size_of_batch_change_nothing(engine: object) -> None:
    network, parameters = tiny_network(n_models=3)
    stimulus = np.random.default_rng(0).random((5, 12, network.n_columns))
    whole = engine.integrate(network, parameters, stimulus, 0.01).responses  # type: ignore[attr-defined]
    backwards = Parameters(*(values[::-1] for values in parameters))
    reversed_ = engine.integrate(network, backwards, stimulus, 0.01).responses  # type: ignore[attr-defined]
    np.testing.assert_array_equal(whole, reversed_[::-1])
    for sample in range(5):
        alone = engine.integrate(network, parameters, stimulus[sample : sample + 1], 0.01).responses  # type: ignore[attr-defined]
        np.testing.assert_allclose(alone[:, 0], whole[:, sample], atol=1e-6)


@pytest.mark.parametrize("engine", ENGINES)
def test_integrate__goes_on_from_its_last_state(engine: object) -> None:
    network, parameters = tiny_network()
    stimulus = np.random.default_rng(0).random((2, 20, network.n_columns))
    whole = engine.integrate(network, parameters, stimulus, 0.01)  # type: ignore[attr-defined]
    first = engine.integrate(network, parameters, stimulus[:, :7], 0.01)  # type: ignore[attr-defined]
    rest = engine.integrate(network, parameters, stimulus[:, 7:], 0.01, state=first.state)  # type: ignore[attr-defined]
    np.testing.assert_array_equal(np.concatenate([first.responses, rest.responses], axis=2), whole.responses)
    np.testing.assert_array_equal(whole.responses[:, :, -1], whole.state)


def test_sparse__allocates_nothing_a_step() -> None:
    """Memory that torch asks for does not grow with the number of steps when nothing is recorded."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    network, parameters = tiny_network(extent=3)

    def allocations(n_frames: int) -> int:
        stimulus = np.zeros((2, n_frames, network.n_columns), dtype=np.float32)
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as run:
            sparse.integrate(network, parameters, stimulus, 0.01, frames=np.arange(0))
        return sum(1 for event in run.events() if event.name == "[memory]" and event.cpu_memory_usage > 0)

    torch.zeros(1)
    assert allocations(60) == allocations(10) > 0


def test_sparse__leaves_the_denormals_of_the_caller_alone() -> None:
    import torch

    network, parameters = tiny_network()
    sparse.integrate(network, parameters, np.zeros((1, 2, network.n_columns)), 0.01)
    assert (torch.tensor([1e-40]) * 1 > 0).all()


def test_stencil__equals_reference_with_strides_and_gaps() -> None:
    """The published connectome, with types that do not fill the lattice, at extents small and large."""
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
        got = stencil.integrate(network, parameters, stimulus, 0.01, state=state)
        np.testing.assert_allclose(got.responses, expected.responses, atol=3e-6)
        np.testing.assert_allclose(got.state, expected.state, atol=3e-6)


def test_stencil__equals_reference_with_samples_side_by_side() -> None:
    """So many samples that batches are wide, of types with strides, recorded in runs longer than are copied at once."""
    network = compile_network(open_connectome(extent=5))
    rng = np.random.default_rng(0)
    parameters = Parameters(
        rng.normal(0.5, 0.3, (1, 65)), rng.uniform(0.004, 0.1, (1, 65)), rng.uniform(0, 0.01, (1, network.pairs.size))
    )
    stimulus, state = rng.random((37, 5, network.n_columns)), rng.normal(size=(1, 37, network.n_cells))
    expected = reference.integrate(network, parameters, stimulus, 0.01, state=state)
    got = stencil.integrate(network, parameters, stimulus, 0.01, state=state)
    np.testing.assert_allclose(got.responses, expected.responses, atol=3e-6)
    np.testing.assert_allclose(got.state, expected.state, atol=3e-6)


@pytest.mark.parametrize("engine", ENGINES)
def test_integrate__records_nan_where_there_is_no_cell(engine: object) -> None:
    network, parameters = tiny_network(n_models=2)
    stimulus = np.random.default_rng(0).random((3, 4, network.n_columns))
    cells = np.array([-1, 5, 6, -1, -1, 0, 20, -1])
    whole = engine.integrate(network, parameters, stimulus, 0.01).responses  # type: ignore[attr-defined]
    part = engine.integrate(network, parameters, stimulus, 0.01, cells=cells).responses  # type: ignore[attr-defined]
    np.testing.assert_array_equal(np.isnan(part).all((0, 1, 2)), cells < 0)
    np.testing.assert_array_equal(part[..., cells >= 0], whole[..., cells[cells >= 0]])


def test_stencil__gives_the_same_bits_in_any_batch() -> None:
    network, parameters = tiny_network(extent=4, n_models=3)
    stimulus = np.random.default_rng(0).random((5, 9, network.n_columns))
    whole = stencil.integrate(network, parameters, stimulus, 0.01).responses
    for model in range(3):
        of_model = Parameters(*(values[model : model + 1] for values in parameters))
        for sample in range(5):
            alone = stencil.integrate(network, of_model, stimulus[sample : sample + 1], 0.01).responses
            np.testing.assert_array_equal(alone[0, 0], whole[model, sample])


def test_stencil__compiles_where_no_cache_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    import numba

    asked = []

    def njit(**options: object) -> object:
        asked.append(options)
        if options.get("cache"):
            raise RuntimeError("no locator available")
        return lambda function: function

    monkeypatch.setattr(numba, "njit", njit)
    assert kernels.compiled(kernels._advance) is kernels._advance
    assert len(asked) == 2


def test_stencil__runs_in_a_forked_process() -> None:
    """A pool of threads does not survive a fork: the child makes its own."""
    program = """
import os, numpy as np
from flyxr import testing
from flyxr.engine import stencil
network, parameters = testing.tiny_network(n_models=4)
expected = stencil.integrate(network, parameters, np.ones((2, 3, 7)), 0.01).responses
child = os.fork()
got = stencil.integrate(network, parameters, np.ones((2, 3, 7)), 0.01).responses
if child == 0:
    os._exit(0 if np.array_equal(got, expected) else 1)
assert os.waitpid(child, 0)[1] == 0
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


@pytest.mark.parametrize("engine", [reference, stencil])
def test_cpu_engines__refuse_another_device(engine: object) -> None:
    network, parameters = tiny_network()
    with pytest.raises(ValueError, match="engine='sparse'"):
        engine.integrate(network, parameters, np.zeros((1, 2, network.n_columns)), 0.01, device="cuda")  # type: ignore[attr-defined]


def test_fade_in__ramps_the_contrast_around_grey() -> None:
    ramp = base.fade_in(np.array([[1.0, 0.0]]), 1 / 100)
    assert ramp.shape == (1, 100, 2)
    np.testing.assert_allclose(ramp[0, 0], 0.5)
    np.testing.assert_allclose(ramp[0, -1], [1, 0])
    np.testing.assert_allclose(np.diff(ramp[0, :, 0]), 0.5 / 99)


DOCS = Path(__file__).parents[1] / "docs"


def test_engines__each_is_one_record(capsys: pytest.CaptureFixture[str]) -> None:
    """A module for each, and none without; what people read is made from the records."""
    import flyxr.cli
    from flyxr import engine, simulation

    folder = Path(engine.__file__).parent
    integrators = {path.stem for path in folder.glob("*.py") if "\ndef integrate(" in path.read_text(encoding="utf-8")}
    assert set(engine.ENGINES) == integrators
    for name, record in engine.ENGINES.items():
        assert record.name == name
        assert callable(record.load())
        assert f'"{name}"' in str(simulation.simulate.__doc__)
    assert (DOCS / "engines.md").read_text(encoding="utf-8") == engine.page(), (
        "python -m flyxr.engine > docs/engines.md"
    )
    with pytest.raises(SystemExit):
        flyxr.cli.main(["simulate", "--help"])
    assert ", ".join(["auto", *engine.ENGINES]) in " ".join(capsys.readouterr().out.split())


def test_engines__one_more_record_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is chosen, named in errors, in the docs, and its width makes the blocks."""
    import flyxr as fx
    from flyxr import engine, hexgrid, schema

    class Wide(engine.EngineRecord):
        def load(self) -> Any:
            return engine.ENGINES["stencil"].load()

    record = Wide("wide", ("cpu",), 5, False, "for the test")
    monkeypatch.setattr(engine, "ENGINES", {"wide": record, **engine.ENGINES})
    for module in ("flyxr.simulation.block", "flyxr.simulation.graph"):
        monkeypatch.setattr(f"{module}.ENGINES", engine.ENGINES)
    monkeypatch.setattr("flyxr.simulation.graph.BLOCK_SAMPLES", 14)
    assert engine.choose_engine("auto", "cpu") == ("wide", "cpu")
    with pytest.raises(ValueError, match="'auto', 'wide', 'stencil'"):
        engine.choose_engine("dense")
    assert "| `wide` | cpu | 5 | for the test |" in engine.page()
    connectome = tiny_connectome(extent=1)
    coords = {"sample": range(20), "time": schema.time_coord(3, 0.01), **hexgrid.column_coords(1)}
    values = np.random.default_rng(0).random((20, 3, 7), dtype=np.float32)
    data = xr.Dataset({"luminance": (("sample", "time", "column"), values)}, coords)
    models = fx.sample_ensemble(1, seed=0, connectome=connectome)
    responses = fx.simulate(data, models, engine="wide")
    assert responses.response.chunks[1] == (10, 10)
    expected = fx.simulate(data, models, engine="stencil").response
    np.testing.assert_array_equal(responses.response, expected)


def test_sparse__says_that_there_is_no_gpu() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    network, parameters = tiny_network()
    with pytest.raises(ValueError, match=r"expected a CUDA GPU for device='cuda', got none .*: use device='cpu'"):
        sparse.integrate(network, parameters, np.zeros((1, 2, 7)), 0.01, device="cuda")


def test_n_threads__is_within_the_quota_of_a_container(monkeypatch: pytest.MonkeyPatch) -> None:
    import dask.system

    monkeypatch.setattr(dask.system, "_try_extract_cgroup_cpu_quota", lambda: (100_000, 100_000))
    assert base.n_threads() == 1
