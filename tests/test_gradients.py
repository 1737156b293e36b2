"""Gradients of the torch engine, compared with finite differences and with autograd of the equations.

All tests run with both methods: the stencil, which is the default on the CPU, and the sparse products.

Responses and gradients are compared for all five inputs. Times are not compared, nor the points where a derivative
does not exist, for which the documented convention is tested instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytest
import torch

from flyxr.connectome import compile_network, open_connectome
from flyxr.engine import lattice, sparse, stencil
from flyxr.engine.sparse import TorchParameters, checkpoint_interval, respond
from flyxr.testing import tiny_network

if TYPE_CHECKING:
    from flyxr.engine.base import Network

DT = 0.01
INPUTS = ["bias", "time_constant", "synapse_strength", "stimulus", "state"]
Tensors = tuple[torch.Tensor, ...]
Simulate = Callable[..., tuple[torch.Tensor, torch.Tensor]]


@pytest.fixture(params=["auto", "products"], ids=["stencil", "products"])
def method(request: pytest.FixtureRequest) -> Literal["auto", "products"]:
    """Each method; on the CPU "auto" is the stencil."""
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def simulate(method: Literal["auto", "products"]) -> Simulate:
    """Compute responses and last state from five inputs."""

    def call(network: Network, inputs: Tensors, **options: Any) -> tuple[torch.Tensor, torch.Tensor]:
        options = {"state": inputs[4] if len(inputs) > 4 else None, "method": method, **options}
        return respond(network, TorchParameters(*inputs[:3]), inputs[3], DT, **options)

    return call


def draw(
    network: Network,
    n_models: int = 1,
    n_samples: int = 3,
    n_frames: int = 12,
    *,
    strength: float = 0.1,
    dtype: torch.dtype = torch.float64,
    device: str = "cpu",
) -> Tensors:
    """Draw bias, time constant (never near dt), strength, stimulus and state, all of which require gradients."""
    rng = np.random.default_rng(0)
    n_types = int(network.cell_type.max()) + 1
    arrays = (
        rng.normal(0.2, 0.2, (n_models, n_types)),
        rng.choice([0.005, 0.02, 0.05, 0.1], (n_models, n_types)),
        strength * rng.uniform(0.5, 1.5, (n_models, len(network.pairs))),
        rng.random((n_samples, n_frames, network.n_columns)),
        rng.normal(0, 0.5, (n_models, n_samples, network.n_cells)),
    )
    return tuple(torch.as_tensor(array, dtype=dtype, device=device).requires_grad_() for array in arrays)


def equations(network: Network, inputs: Tensors) -> Tensors:
    """Compute responses and last state from the equations, operation by operation."""
    bias, time_constant, strength, stimulus, state = inputs

    def to_tensor(array: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(array, device=bias.device)

    cell_type, source, target, pair = (
        to_tensor(array).long() for array in (network.cell_type, network.source, network.target, network.pair)
    )
    rate = (DT / time_constant.clamp(min=DT))[:, None, cell_type]
    weight = (to_tensor(network.signed_synapses) * strength[:, pair])[:, None]
    luminance = stimulus[..., to_tensor(network.column).long()] * to_tensor(network.is_input)
    responses = []
    for frame in range(stimulus.shape[1]):
        current = torch.zeros_like(state).index_add(2, target, weight * torch.relu(state)[..., source])
        state = state + rate * (-state + bias[:, None, cell_type] + current + luminance[:, frame])
        responses.append(state)
    return torch.stack(responses, 2), state


def gradients(outputs: Tensors, inputs: Tensors) -> Tensors:
    """Compute gradients of a loss in which every response and the last state has its own weight."""
    generator = torch.Generator().manual_seed(0)
    loss = torch.zeros((), dtype=inputs[0].dtype, device=inputs[0].device)
    for output in outputs:
        loss = loss + (torch.randn(output.shape, generator=generator, dtype=torch.float64).to(output) * output).sum()
    return torch.autograd.grad(loss, inputs)


def assert_close(actual: Tensors, expected: Tensors, rtol: float) -> None:
    """Compare tensors; the tolerance is relative to the largest element of each."""
    for values, expected_values in zip(actual, expected, strict=True):
        assert values.shape == expected_values.shape
        scale = float(expected_values.detach().abs().max())
        np.testing.assert_allclose(values.detach().cpu(), expected_values.detach().cpu(), rtol=0, atol=rtol * scale)


@pytest.mark.parametrize("position", range(5), ids=INPUTS)
@pytest.mark.parametrize("checkpoint", [1, 3])
def test_respond__gradient_equals_finite_differences(
    position: int, checkpoint: int, device: str, simulate: Simulate
) -> None:
    network, _ = tiny_network()
    inputs = draw(network, n_models=2, n_samples=2, n_frames=5, device=device)

    def outputs(tensor: torch.Tensor) -> Tensors:
        with_tensor = (*inputs[:position], tensor, *inputs[position + 1 :])
        return simulate(network, with_tensor, checkpoint=checkpoint)

    assert torch.autograd.gradcheck(outputs, inputs[position], eps=1e-7, atol=1e-6, fast_mode=True, nondet_tol=1e-12)


@pytest.mark.parametrize("checkpoint", [None, 1, 4, 100])
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-10), (torch.float32, 2e-6)])
def test_respond__equals_autograd_of_the_equations(
    dtype: torch.dtype, rtol: float, checkpoint: int | None, device: str, simulate: Simulate
) -> None:
    """50 frames are more than one product for the synapse strengths takes, which is 21 for three samples."""
    network, _ = tiny_network(extent=2)
    exact, inputs = (
        draw(network, 2, n_frames=50, dtype=float_type, device=device) for float_type in (torch.float64, dtype)
    )
    expected, outputs = equations(network, exact), simulate(network, inputs, checkpoint=checkpoint)
    assert all(output.dtype == dtype and output.device == inputs[0].device for output in outputs)
    assert_close(outputs, expected, rtol)
    assert_close(gradients(outputs, inputs), gradients(expected, exact), rtol)


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-10), (torch.float32, 2e-5)])
def test_respond__equals_autograd_of_the_equations_for_the_connectome(
    dtype: torch.dtype, rtol: float, device: str, simulate: Simulate
) -> None:
    network = compile_network(open_connectome(extent=4))
    exact, inputs = (
        draw(network, n_samples=2, n_frames=6, strength=0.005, dtype=float_type, device=device)
        for float_type in (torch.float64, dtype)
    )
    expected, outputs = equations(network, exact), simulate(network, inputs, checkpoint=4)
    assert_close(outputs, expected, rtol)
    assert_close(gradients(outputs, inputs), gradients(expected, exact), rtol)


@pytest.mark.parametrize("checkpoint", [1, 4])
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-10), (torch.float32, 2e-5)])
def test_respond__equals_autograd_of_the_equations_for_many_samples(
    dtype: torch.dtype, rtol: float, checkpoint: int, device: str, simulate: Simulate
) -> None:
    """27 samples make wide batches of unequal size; some cell types do not fill the lattice."""
    network = compile_network(open_connectome(extent=3))
    record = {"cells": np.array([network.n_cells - 1, 0, 0, *range(500, 700)]), "frames": np.array([0, 2, 5])}
    exact, inputs = (
        draw(network, n_samples=27, n_frames=6, strength=0.005, dtype=float_type, device=device)
        for float_type in (torch.float64, dtype)
    )
    responses, last = equations(network, exact)
    expected = responses[:, :, record["frames"]][..., record["cells"]], last
    outputs = simulate(network, inputs, checkpoint=checkpoint, **record)
    assert_close(outputs, expected, rtol)
    assert_close(gradients(outputs, inputs), gradients(expected, exact), rtol)


@pytest.mark.parametrize("method", ["stencil"])
@pytest.mark.parametrize("checkpoint", [1, 3])
def test_respond__same_bits_for_any_number_of_threads(checkpoint: int, simulate: Simulate) -> None:
    network, _ = tiny_network(extent=2)
    inputs = draw(network, 2, n_samples=19, dtype=torch.float32)
    results = []
    for n_threads in (1, 2, 7):
        outputs = simulate(network, inputs, checkpoint=checkpoint, n_threads=n_threads)
        results.append((*outputs, *gradients(outputs, inputs)))
    for result in results[1:]:
        assert all(torch.equal(values, expected) for values, expected in zip(result, results[0], strict=True))


def test_respond__same_bits_as_integrate(method: Literal["auto", "products"], device: str) -> None:
    network, parameters = tiny_network(extent=2, n_models=3)
    stimulus = np.random.default_rng(0).random((4, 9, network.n_columns), dtype=np.float32)
    state = np.random.default_rng(1).normal(size=(3, 1, network.n_cells)).astype(np.float32)
    tensors = TorchParameters(*(torch.as_tensor(values, device=device).requires_grad_() for values in parameters))
    engine = stencil if method == "auto" and device == "cpu" else sparse
    for initial in (None, state):
        expected = engine.integrate(network, parameters, stimulus, DT, state=initial, device=device)
        result = respond(
            network,
            tensors,
            torch.as_tensor(stimulus),
            DT,
            state=None if initial is None else torch.as_tensor(initial),
            checkpoint=2,
            method=method,
        )
        for values, expected_values in zip(result, expected, strict=True):
            np.testing.assert_array_equal(values.detach().cpu(), expected_values)


def test_respond__starts_at_rest_which_has_the_gradient_of_the_bias(simulate: Simulate) -> None:
    network, _ = tiny_network()
    inputs = draw(network, n_models=2)
    rest = inputs[0][:, None, network.cell_type].expand(2, 3, -1)
    expected = gradients(equations(network, (*inputs[:4], rest)), inputs[:4])
    assert_close(gradients(simulate(network, inputs[:4]), inputs[:4]), expected, 1e-10)


@pytest.mark.parametrize("cells", [None, [4], [20, 0, 7], [3, 3], []])
@pytest.mark.parametrize("frames", [None, [0, 5, 11], [11], []])
def test_respond__gradient_of_any_record(cells: list[int] | None, frames: list[int] | None, simulate: Simulate) -> None:
    network, _ = tiny_network()
    inputs = draw(network, n_models=2)
    responses, last = equations(network, inputs)
    responses = responses if frames is None else responses[:, :, frames]
    responses = responses if cells is None else responses[..., cells]
    record = {
        name: None if values is None else np.array(values, dtype=int)
        for name, values in (("cells", cells), ("frames", frames))
    }
    outputs = simulate(network, inputs, checkpoint=5, **record)
    np.testing.assert_allclose(outputs[0].detach(), responses.detach(), rtol=1e-12)
    assert_close(gradients(outputs, inputs), gradients((responses, last), inputs), 1e-10)


@pytest.mark.parametrize("n_frames", [0, 1, 2])
def test_respond__few_frames(n_frames: int, simulate: Simulate) -> None:
    network, _ = tiny_network()
    inputs = draw(network, n_frames=n_frames)
    responses, last = simulate(network, inputs)
    assert responses.shape == (1, 3, n_frames, network.n_cells)
    grad_state = torch.autograd.grad(last.sum(), inputs[4])[0]
    if n_frames == 0:
        assert (grad_state == 1).all()


def test_respond__models_together_equal_models_one_by_one(simulate: Simulate) -> None:
    """With one stimulus for all models, whose gradient is a sum over models, and with one stimulus per model."""
    network, _ = tiny_network(extent=2)
    inputs = draw(network, n_models=3)
    together = gradients((simulate(network, inputs, checkpoint=3)[1],), inputs)
    weights = torch.randn((3, 3, network.n_cells), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    one_by_one = []
    for model in range(3):
        model_inputs = tuple(
            tensor if position == 3 else tensor[model : model + 1] for position, tensor in enumerate(inputs)
        )
        last = simulate(network, model_inputs, checkpoint=3)[1]
        one_by_one.append(torch.autograd.grad((weights[model] * last).sum(), model_inputs))
    expected = [torch.cat(grads) for grads in zip(*one_by_one, strict=True)]
    expected[3] = torch.stack([grads[3] for grads in one_by_one]).sum(0)
    assert_close(together, tuple(expected), 1e-12)

    model_stimulus = torch.rand((3, *inputs[3].shape), dtype=torch.float64, requires_grad=True)
    responses = simulate(network, (*inputs[:3], model_stimulus, inputs[4]))[0]
    grad_stimulus = torch.autograd.grad(responses[1].sum(), model_stimulus)[0]
    assert grad_stimulus[1].any()
    assert not grad_stimulus[[0, 2]].any()


def test_respond__clamped_time_constants_have_no_gradient(simulate: Simulate) -> None:
    network, _ = tiny_network()
    inputs = draw(network)
    time_constant = torch.tensor([[DT / 2, DT, 2 * DT]], dtype=torch.float64, requires_grad=True)
    responses = simulate(network, (inputs[0], time_constant, *inputs[2:]))[0]
    below, equal, above = torch.autograd.grad(responses.sum(), time_constant)[0][0].tolist()
    assert below == 0
    assert equal != 0
    assert above != 0


def test_respond__a_potential_of_zero_is_silent(simulate: Simulate) -> None:
    network, _ = tiny_network()
    inputs = draw(network, n_frames=1)
    zero = torch.zeros_like(inputs[4], requires_grad=True)
    responses = simulate(network, (*inputs[:4], zero))[0]
    rate = DT / inputs[1].clamp(min=DT)
    grad_state = torch.autograd.grad(responses.sum(), zero)[0]
    torch.testing.assert_close(grad_state, (1 - rate)[:, None, network.cell_type].expand_as(grad_state))


@pytest.mark.parametrize("needed", range(5), ids=INPUTS)
def test_respond__one_gradient_does_not_need_the_others(needed: int, simulate: Simulate) -> None:
    network, _ = tiny_network()
    inputs = draw(network)
    expected = gradients(simulate(network, inputs), inputs)[needed]
    detached = tuple(tensor if position == needed else tensor.detach() for position, tensor in enumerate(inputs))
    assert_close(gradients(simulate(network, detached), (detached[needed],)), (expected,), 1e-12)


def saved_bytes(call: Callable[[], object]) -> int:
    """Count the bytes that autograd saves for the backward pass, each storage once."""
    storages: dict[int, int] = {}

    def note_storage(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note_storage, lambda tensor: tensor):
        call()
    return sum(storages.values())


def test_respond__memory_grows_with_the_square_root_of_the_frames(
    simulate: Simulate, method: Literal["auto", "products"]
) -> None:
    network, _ = tiny_network()
    state_size = lattice.network_layout(network).state_size if method == "auto" else network.n_cells
    state_bytes = state_size * 3 * 8  # three samples, float64

    def n_states(n_frames: int, **options: Any) -> float:
        inputs = draw(network, n_frames=n_frames)
        stimulus_bytes = inputs[3].untyped_storage().nbytes()
        kept = saved_bytes(lambda: simulate(network, inputs, cells=np.array([0]), **options)) - stimulus_bytes
        return kept / state_bytes

    assert n_states(400) > 400
    assert n_states(100, checkpoint_bytes=0) == pytest.approx(11, abs=0.5)
    assert n_states(400, checkpoint_bytes=0) == pytest.approx(21, abs=0.5)


def test_checkpoint_interval__keeps_as_many_states_as_fit() -> None:
    """The states before each interval, the last state, and the states of one interval."""
    intervals = [checkpoint_interval(1, 100, max_states) for max_states in (200, 102, 101, 60, 40, 0)]
    assert intervals == [1, 1, 2, 2, 3, 10]
    assert checkpoint_interval(4, 100, 0) == 20
    assert checkpoint_interval(200, 10, 0) == 10
    assert checkpoint_interval(1, 0, 0) == 1


def test_respond__saves_nothing_without_a_gradient(simulate: Simulate) -> None:
    network, _ = tiny_network()
    inputs = draw(network, n_frames=50)
    assert saved_bytes(lambda: simulate(network, tuple(tensor.detach() for tensor in inputs))) == 0
    with torch.no_grad():
        assert not simulate(network, inputs)[0].requires_grad


def test_respond__restores_the_denormals_of_the_caller(simulate: Simulate) -> None:
    network, _ = tiny_network()
    inputs = draw(network, dtype=torch.float32)
    gradients(simulate(network, inputs), inputs)
    assert (torch.tensor([1e-40]) * 1 > 0).all()


def test_respond__rejects_a_checkpoint_that_is_not_positive(simulate: Simulate) -> None:
    network, _ = tiny_network()
    with pytest.raises(ValueError, match="from 1 up, got 0"):
        simulate(network, draw(network), checkpoint=0)


def test_respond__lists_every_problem_with_a_record(simulate: Simulate) -> None:
    network, _ = tiny_network()
    with pytest.raises(ValueError, match="cells from 0 to 20, got -1 to 3") as error:
        simulate(network, draw(network), cells=np.array([3, -1]), frames=np.array([4, 4, 12]), checkpoint=0)
    for problem in ("checkpoint", "frames from 0 to 11, got 4 to 12", "frames ascending"):
        assert problem in str(error.value)


def test_respond__rejects_the_stencil_in_another_dtype() -> None:
    network, parameters = tiny_network()
    tensors = TorchParameters(*(torch.as_tensor(values, dtype=torch.float16) for values in parameters))
    with pytest.raises(ValueError, match=r"takes float32 or float64 on the CPU, got torch.float16 on cpu: use method"):
        respond(network, tensors, torch.zeros((1, 2, network.n_columns)), DT, method="stencil")


def test_respond__trains(simulate: Simulate) -> None:
    """A few steps of gradient descent make the responses of a model more like those of another."""
    network, parameters = tiny_network(n_models=2)
    stimulus = torch.rand((2, 20, network.n_columns), generator=torch.Generator().manual_seed(0))
    target = tuple(torch.as_tensor(values[:1]) for values in parameters)
    model = tuple(torch.as_tensor(values[1:]).requires_grad_() for values in parameters)
    expected, _ = simulate(network, (*target, stimulus))
    optimiser = torch.optim.Adam(model, lr=0.003)
    losses = []
    for _ in range(40):
        optimiser.zero_grad()
        loss = (simulate(network, (*model, stimulus))[0] - expected).square().mean()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 4
