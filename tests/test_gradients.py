"""Gradients of the torch engine: against finite differences, and against autograd of the equations written plainly.

All tests run both ways that there are, by the stencil of the CPU and by the sparse products of other devices.

Compared are responses and gradients in all five inputs; not compared are the points where a derivative does not
exist, for which a convention is held instead, and times.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from flyxr.connectome import compile_network, open_connectome
from flyxr.engine import lattice, sparse, stencil
from flyxr.engine.sparse import TorchParameters, respond
from flyxr.testing import tiny_network

if TYPE_CHECKING:
    from collections.abc import Callable

    from flyxr.engine.base import Network

DT = 0.01
INPUTS = ["bias", "time_constant", "synapse_strength", "stimulus", "state"]
Tensors = tuple[torch.Tensor, ...]


@pytest.fixture(params=["stencil", "products"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How a gradient is computed on the CPU."""
    if request.param == "products":
        monkeypatch.setattr(sparse, "_STENCIL", frozenset())
    return str(request.param)


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
    """Bias, time constant, strength, stimulus and state at random, each with a gradient; no time constant near dt."""
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


def plain(network: Network, inputs: Tensors) -> Tensors:
    """Responses and last state from the equations, operation by operation."""
    bias, time_constant, strength, stimulus, state = inputs

    def put(array: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(array, device=bias.device)

    cell_type, source, target, pair = (
        put(array).long() for array in (network.cell_type, network.source, network.target, network.pair)
    )
    rate = (DT / time_constant.clamp(min=DT))[:, None, cell_type]
    weight = (put(network.signed_synapses) * strength[:, pair])[:, None]
    x = stimulus[..., put(network.column).long()] * put(network.is_input)
    responses = []
    for frame in range(stimulus.shape[1]):
        current = torch.zeros_like(state).index_add(2, target, weight * torch.relu(state)[..., source])
        state = state + rate * (-state + bias[:, None, cell_type] + current + x[:, frame])
        responses.append(state)
    return torch.stack(responses, 2), state


def engine(network: Network, inputs: Tensors, **options: object) -> Tensors:
    return respond(network, TorchParameters(*inputs[:3]), inputs[3], DT, state=inputs[4], **options)  # type: ignore[arg-type]


def gradients(outputs: Tensors, inputs: Tensors) -> Tensors:
    """Gradients of a loss in which every response and the last state has a weight of its own."""
    generator = torch.Generator().manual_seed(0)
    loss = torch.zeros((), dtype=inputs[0].dtype, device=inputs[0].device)
    for output in outputs:
        loss = loss + (torch.randn(output.shape, generator=generator, dtype=torch.float64).to(output) * output).sum()
    return torch.autograd.grad(loss, inputs)


def assert_close(got: Tensors, expected: Tensors, rtol: float) -> None:
    """Each tensor to a tolerance relative to its largest element."""
    for one, other in zip(got, expected, strict=True):
        assert one.shape == other.shape
        scale = float(other.detach().abs().max())
        np.testing.assert_allclose(one.detach().cpu(), other.detach().cpu(), rtol=0, atol=rtol * scale)


@pytest.mark.parametrize("position", range(5), ids=INPUTS)
@pytest.mark.parametrize("checkpoint", [1, 3])
def test_respond__gradient_equals_finite_differences(position: int, checkpoint: int, device: str) -> None:
    network, _ = tiny_network()
    inputs = draw(network, n_models=2, n_samples=2, n_frames=5, device=device)

    def outputs(tensor: torch.Tensor) -> Tensors:
        with_tensor = (*inputs[:position], tensor, *inputs[position + 1 :])
        return engine(network, with_tensor, checkpoint=checkpoint)

    assert torch.autograd.gradcheck(outputs, inputs[position], eps=1e-7, atol=1e-6, fast_mode=True, nondet_tol=1e-12)


@pytest.mark.parametrize("checkpoint", [None, 1, 4, 100])
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-10), (torch.float32, 2e-6)])
def test_respond__equals_autograd_of_the_equations(
    dtype: torch.dtype, rtol: float, checkpoint: int | None, device: str
) -> None:
    """Over more frames than one product for the synapse strengths takes, 21 of three samples."""
    network, _ = tiny_network(extent=2)
    exact, inputs = (draw(network, 2, n_frames=50, dtype=of, device=device) for of in (torch.float64, dtype))
    expected, outputs = plain(network, exact), engine(network, inputs, checkpoint=checkpoint)
    assert all(output.dtype == dtype and output.device == inputs[0].device for output in outputs)
    assert_close(outputs, expected, rtol)
    assert_close(gradients(outputs, inputs), gradients(expected, exact), rtol)


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-10), (torch.float32, 2e-5)])
def test_respond__equals_autograd_of_the_equations_for_the_connectome(
    dtype: torch.dtype, rtol: float, device: str
) -> None:
    network = compile_network(open_connectome(extent=4))
    exact, inputs = (
        draw(network, n_samples=2, n_frames=6, strength=0.005, dtype=of, device=device) for of in (torch.float64, dtype)
    )
    expected, outputs = plain(network, exact), engine(network, inputs, checkpoint=4)
    assert_close(outputs, expected, rtol)
    assert_close(gradients(outputs, inputs), gradients(expected, exact), rtol)


@pytest.mark.parametrize("checkpoint", [1, 4])
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-10), (torch.float32, 2e-5)])
def test_respond__equals_autograd_of_the_equations_for_many_samples(
    dtype: torch.dtype, rtol: float, checkpoint: int, device: str
) -> None:
    """So many that they lie side by side, in batches of unequal width; with types that do not fill the lattice."""
    network = compile_network(open_connectome(extent=3))
    record = {"cells": np.array([network.n_cells - 1, 0, 0, *range(500, 700)]), "frames": np.array([0, 2, 5])}
    exact, inputs = (
        draw(network, n_samples=27, n_frames=6, strength=0.005, dtype=of, device=device)
        for of in (torch.float64, dtype)
    )
    whole, last = plain(network, exact)
    expected = whole[:, :, record["frames"]][..., record["cells"]], last
    outputs = engine(network, inputs, checkpoint=checkpoint, **record)
    assert_close(outputs, expected, rtol)
    assert_close(gradients(outputs, inputs), gradients(expected, exact), rtol)


@pytest.mark.parametrize("way", ["stencil"], indirect=True)
@pytest.mark.parametrize("checkpoint", [1, 3])
def test_respond__has_the_same_bits_on_any_number_of_threads(checkpoint: int, monkeypatch: pytest.MonkeyPatch) -> None:
    network, _ = tiny_network(extent=2)
    inputs = draw(network, 2, n_samples=19, dtype=torch.float32)
    results = []
    for cores in (1, 2, 7):
        monkeypatch.setattr(lattice, "n_threads", lambda n=cores: n)
        lattice._threads.cache_clear()
        outputs = engine(network, inputs, checkpoint=checkpoint)
        results.append((*outputs, *gradients(outputs, inputs)))
    lattice._threads.cache_clear()
    for result in results[1:]:
        assert all(torch.equal(one, other) for one, other in zip(result, results[0], strict=True))


def test_respond__gives_what_integrate_gives(way: str, device: str) -> None:
    network, parameters = tiny_network(extent=2, n_models=3)
    stimulus = np.random.default_rng(0).random((4, 9, network.n_columns), dtype=np.float32)
    state = np.random.default_rng(1).normal(size=(3, 1, network.n_cells)).astype(np.float32)
    tensors = TorchParameters(*(torch.as_tensor(values, device=device).requires_grad_() for values in parameters))
    same = stencil if way == "stencil" and device == "cpu" else sparse
    for start in (None, state):
        expected = same.integrate(network, parameters, stimulus, DT, state=start, device=device)
        given = None if start is None else torch.as_tensor(start)
        got = respond(network, tensors, torch.as_tensor(stimulus), DT, state=given, checkpoint=2)
        for one, other in zip(got, expected, strict=True):
            np.testing.assert_array_equal(one.detach().cpu(), other)


def test_respond__starts_at_rest_which_has_the_gradient_of_the_bias() -> None:
    network, _ = tiny_network()
    inputs = draw(network, n_models=2)
    rest = inputs[0][:, None, network.cell_type].expand(2, 3, -1)
    expected = gradients(plain(network, (*inputs[:4], rest)), inputs[:4])
    got = gradients(respond(network, TorchParameters(*inputs[:3]), inputs[3], DT), inputs[:4])
    assert_close(got, expected, 1e-10)


@pytest.mark.parametrize("cells", [None, [4], [20, 0, 7], [3, 3], []])
@pytest.mark.parametrize("frames", [None, [0, 5, 11], [11], []])
def test_respond__gradient_of_any_record(cells: list[int] | None, frames: list[int] | None) -> None:
    network, _ = tiny_network()
    inputs = draw(network, n_models=2)
    whole, last = plain(network, inputs)
    part = whole if frames is None else whole[:, :, frames]
    part = part if cells is None else part[..., cells]
    record = {
        name: None if values is None else np.array(values, dtype=int)
        for name, values in (("cells", cells), ("frames", frames))
    }
    got = engine(network, inputs, checkpoint=5, **record)
    np.testing.assert_allclose(got[0].detach(), part.detach(), rtol=1e-12)
    assert_close(gradients(got, inputs), gradients((part, last), inputs), 1e-10)


@pytest.mark.parametrize("n_frames", [0, 1, 2])
def test_respond__few_frames(n_frames: int) -> None:
    network, _ = tiny_network()
    inputs = draw(network, n_frames=n_frames)
    responses, last = engine(network, inputs)
    assert responses.shape == (1, 3, n_frames, network.n_cells)
    of_state = torch.autograd.grad(last.sum(), inputs[4])[0]
    if n_frames == 0:
        assert (of_state == 1).all()


def test_respond__models_at_once_equal_one_by_one() -> None:
    """With one stimulus for all, whose gradient is their sum, and with one for each."""
    network, _ = tiny_network(extent=2)
    inputs = draw(network, n_models=3)
    together = gradients((engine(network, inputs, checkpoint=3)[1],), inputs)
    weights = torch.randn((3, 3, network.n_cells), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    alone = []
    for model in range(3):
        of_model = tuple(
            tensor if position == 3 else tensor[model : model + 1] for position, tensor in enumerate(inputs)
        )
        last = engine(network, of_model, checkpoint=3)[1]
        alone.append(torch.autograd.grad((weights[model] * last).sum(), of_model))
    expected = [torch.cat(of) for of in zip(*alone, strict=True)]
    expected[3] = torch.stack([of[3] for of in alone]).sum(0)
    assert_close(together, tuple(expected), 1e-12)

    own = torch.rand((3, *inputs[3].shape), dtype=torch.float64, requires_grad=True)
    responses = engine(network, (*inputs[:3], own, inputs[4]))[0]
    of_own = torch.autograd.grad(responses[1].sum(), own)[0]
    assert of_own[1].any()
    assert not of_own[[0, 2]].any()


def test_respond__clamped_time_constants_have_no_gradient() -> None:
    network, _ = tiny_network()
    inputs = draw(network)
    time_constant = torch.tensor([[DT / 2, DT, 2 * DT]], dtype=torch.float64, requires_grad=True)
    responses = engine(network, (inputs[0], time_constant, *inputs[2:]))[0]
    below, equal, above = torch.autograd.grad(responses.sum(), time_constant)[0][0].tolist()
    assert below == 0
    assert equal != 0
    assert above != 0


def test_respond__a_potential_of_zero_is_silent() -> None:
    network, _ = tiny_network()
    inputs = draw(network, n_frames=1)
    zero = torch.zeros_like(inputs[4], requires_grad=True)
    responses = engine(network, (*inputs[:4], zero))[0]
    rate = DT / inputs[1].clamp(min=DT)
    of_state = torch.autograd.grad(responses.sum(), zero)[0]
    torch.testing.assert_close(of_state, (1 - rate)[:, None, network.cell_type].expand_as(of_state))


@pytest.mark.parametrize("needed", range(5), ids=INPUTS)
def test_respond__one_gradient_does_not_need_the_others(needed: int) -> None:
    network, _ = tiny_network()
    inputs = draw(network)
    expected = gradients(engine(network, inputs), inputs)[needed]
    alone = tuple(tensor if position == needed else tensor.detach() for position, tensor in enumerate(inputs))
    assert_close(gradients(engine(network, alone), (alone[needed],)), (expected,), 1e-12)


def saved_bytes(call: Callable[[], object]) -> int:
    """Bytes that autograd keeps for the way back, whatever is saved twice counted once."""
    storages: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        call()
    return sum(storages.values())


def test_respond__memory_grows_with_the_root_of_the_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    network, _ = tiny_network()

    def states(n_frames: int) -> float:
        inputs = draw(network, n_frames=n_frames)
        stimulus = inputs[3].untyped_storage().nbytes()
        kept = saved_bytes(lambda: engine(network, inputs, cells=np.array([0]))) - stimulus
        return kept / inputs[4].untyped_storage().nbytes()

    assert states(400) > 400
    monkeypatch.setattr(sparse, "KEPT_BYTES", 0)
    assert states(100) == pytest.approx(11, abs=0.5)
    assert states(400) == pytest.approx(21, abs=0.5)


def test_respond__keeps_as_many_states_as_the_limit_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those before each interval and the last, beside those of the interval under way."""
    assert [sparse._frames_between_kept(1, 100, n) for n in (200, 102, 101, 60, 40, 0)] == [1, 1, 2, 2, 3, 10]
    assert sparse._frames_between_kept(4, 100, 0) == 20
    assert sparse._frames_between_kept(200, 10, 0) == 10
    assert sparse._frames_between_kept(1, 0, 0) == 1


def test_respond__keeps_nothing_where_nothing_wants_a_gradient() -> None:
    network, _ = tiny_network()
    inputs = draw(network, n_frames=50)
    assert saved_bytes(lambda: engine(network, tuple(tensor.detach() for tensor in inputs))) == 0
    with torch.no_grad():
        assert not engine(network, inputs)[0].requires_grad


def test_respond__leaves_the_denormals_of_the_caller_alone() -> None:
    network, _ = tiny_network()
    inputs = draw(network, dtype=torch.float32)
    gradients(engine(network, inputs), inputs)
    assert (torch.tensor([1e-40]) * 1 > 0).all()


def test_respond__refuses_a_checkpoint_that_is_not_positive() -> None:
    network, _ = tiny_network()
    with pytest.raises(ValueError, match="from 1 up, got 0"):
        engine(network, draw(network), checkpoint=0)


def test_respond__says_all_that_is_wrong_with_a_record() -> None:
    network, _ = tiny_network()
    with pytest.raises(ValueError, match="cells from 0 to 20, got -1 to 3") as error:
        engine(network, draw(network), cells=np.array([3, -1]), frames=np.array([4, 4, 12]), checkpoint=0)
    for problem in ("checkpoint", "frames from 0 to 11, got 4 to 12", "frames ascending"):
        assert problem in str(error.value)


def test_respond__trains() -> None:
    """A few steps of gradient descent bring responses nearer to those of another model."""
    network, parameters = tiny_network(n_models=2)
    stimulus = torch.rand((2, 20, network.n_columns), generator=torch.Generator().manual_seed(0))
    goal = TorchParameters(*(torch.as_tensor(values[:1]) for values in parameters))
    model = TorchParameters(*(torch.as_tensor(values[1:]).requires_grad_() for values in parameters))
    expected = respond(network, goal, stimulus, DT).responses
    optimiser = torch.optim.Adam(list(model), lr=0.003)
    losses = []
    for _ in range(40):
        optimiser.zero_grad()
        loss = (respond(network, model, stimulus, DT).responses - expected).square().mean()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 4
