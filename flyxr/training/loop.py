"""Training of one model: batches, gradients, steps of Adam."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from flyxr.arguments import shorten
from flyxr.connectome import cell_index, compile_network
from flyxr.engine import base
from flyxr.engine.sparse import TorchParameters, respond
from flyxr.errors import InputError, Problem
from flyxr.optics import GREY
from flyxr.training.losses import Recording

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import xarray as xr
    from numpy.typing import NDArray

    from flyxr.training.losses import Loss, Penalty

N_CUT = 3
"""Frames at the beginning of a sample through which no gradient flows, if the loss begins after them. If it begins
earlier, gradients flow through the second of grey before the sample too."""
N_WARM = 5
"""Frames of grey in each iteration, which follow the grey state to that of the changed parameters."""
N_START = 256
"""Samples to which losses are fitted before the first step."""
MIN_RATE = 0.02
"""Learning rate at the end, relative to the highest."""
MIN_STRENGTH = 1e-7
"""Strengths below it are trained as if they were this, since a step changes the logarithm."""


@dataclass(frozen=True)
class Recipe:
    """Settings of a training.

    Attributes
    ----------
    n_iterations, warm_up
        Number of iterations, and of those in which learning rates grow; then they decay by a cosine.
    batch_size
        Samples of an iteration.
    learning_rates
        Steps of Adam: relative for ``synapse_strength``, absolute for ``bias``, for ``time_constant``, s, and for the
        parameters of a ``loss``.
    fixed
        Parameters that are not trained.
    """

    n_iterations: int = 3000
    warm_up: int = 300
    batch_size: int = 16
    learning_rates: Mapping[str, float] = field(
        default_factory=lambda: {"synapse_strength": 4e-3, "bias": 2e-3, "time_constant": 1e-4, "loss": 2e-3}
    )
    fixed: tuple[str, ...] = ()

    def rate(self, iteration: int) -> float:
        """Factor of the learning rates.

        Examples
        --------
        >>> [round(Recipe(100, 10).rate(i), 2) for i in (0, 9, 99)]
        [0.1, 1.0, 0.02]
        """
        if iteration < self.warm_up:
            return (iteration + 1) / self.warm_up
        done = (iteration - self.warm_up) / max(self.n_iterations - self.warm_up, 1)
        return MIN_RATE + (1 - MIN_RATE) * 0.5 * (1 + math.cos(math.pi * done))


@dataclass(frozen=True)
class Task:
    """What all models are trained on, as plain arrays.

    Attributes
    ----------
    luminance : (sample, time, column)
        Stimuli.
    targets
        Arrays (sample, time, ...) by name.
    dt
        Integration step, s.
    scenes : (sample,)
        Samples with the same number are drawn together; by default each alone.
    """

    luminance: NDArray[np.float32]
    targets: Mapping[str, NDArray[np.float32]]
    dt: float
    scenes: NDArray[np.int64] | None = None


class ModelTraining:
    """One model in training.

    Parameters
    ----------
    connectome
        Connectome at the extent of the stimuli.
    parameters
        Start, one model.
    task, loss, penalties, recipe
        What to train and how.
    seed
        Seeds of the batches: iteration i draws from (*seed, i), so that a training can be continued anywhere.
    """

    def __init__(
        self,
        connectome: xr.Dataset,
        parameters: base.Parameters,
        task: Task,
        loss: Loss,
        penalties: Sequence[Penalty],
        recipe: Recipe,
        seed: Sequence[int],
        device: str = "cpu",
    ) -> None:
        self.network, self.task, self.loss, self.penalties = compile_network(connectome), task, loss, penalties
        self.recipe, self.seed = recipe, list(seed)
        self.recording: Recording = getattr(loss, "recording", Recording())
        self.luminance = torch.as_tensor(task.luminance, device=device)
        self.targets = {name: torch.as_tensor(values, device=device) for name, values in task.targets.items()}
        self.n_samples, self.n_frames, self.n_columns = self.luminance.shape
        self._choose_cells(connectome)
        bias, time_constant, strength = (
            torch.as_tensor(values, dtype=torch.float32, device=device) for values in parameters
        )
        self.values = {
            "bias": bias.clone(),
            "time_constant": time_constant.clone(),
            "synapse_strength": strength.clamp(min=MIN_STRENGTH).log(),
        }
        groups: list[dict[str, Any]] = []
        for name, tensor in self.values.items():
            if name not in recipe.fixed:
                groups.append({"params": [tensor.requires_grad_()], "lr": recipe.learning_rates[name]})
        self.iteration = 0
        self.losses: list[float] = []
        self.grey: torch.Tensor | None = None
        self._start_loss(connectome)
        if isinstance(loss, torch.nn.Module) and (trained := list(loss.parameters())):
            groups.append({"params": trained, "lr": recipe.learning_rates["loss"]})
        self.base_rates = [group["lr"] for group in groups]
        self.adam = torch.optim.Adam(groups)
        self.remember()

    def _choose_cells(self, connectome: xr.Dataset) -> None:
        names = connectome["cell_type"].values.tolist()
        chosen = names if self.recording.cell_types is None else list(self.recording.cell_types)
        index = cell_index(connectome)[[names.index(name) for name in chosen]]
        if self.recording.central:
            index = index[:, [self.n_columns // 2]]
        self.cell_types, self.cells = chosen, index[index >= 0]
        self.is_present = torch.as_tensor(index >= 0)

    def _start_loss(self, connectome: xr.Dataset) -> None:
        if hasattr(self.loss, "build"):
            self.loss.build(connectome, int(connectome.attrs["extent"]))
        if not hasattr(self.loss, "start"):
            return
        if isinstance(self.loss, torch.nn.Module):
            self.loss.to(self.luminance.device)
        samples = np.random.default_rng([*self.seed, 2**32 - 1]).permutation(self.n_samples)[:N_START]
        frames = np.arange(self.first_frame, self.n_frames)
        with torch.no_grad():
            responses = self.respond(samples, frames)
        self.loss.start(responses, self._targets_of(samples, frames), self.targets)

    @property
    def first_frame(self) -> int:
        """First frame with a loss."""
        return min(round(self.recording.t_skip / self.task.dt), self.n_frames - 1)

    def parameters(self) -> TorchParameters:
        """Parameters of the model as the engine takes them."""
        values = self.values
        return TorchParameters(values["bias"], values["time_constant"], values["synapse_strength"].exp())

    def respond(self, samples: NDArray[np.int64], frames: NDArray[np.int64]) -> dict[str, torch.Tensor]:
        """Responses (sample, time, column) of each recorded type."""
        stimulus, parameters, dt = self.luminance[samples], self.parameters(), self.task.dt
        n_cut = N_CUT if frames[0] >= N_CUT else 0
        if n_cut:
            with torch.no_grad():
                n_grey = base.n_frames(base.FADE_IN, dt) if self.grey is None else N_WARM
                self.grey = self._last_state(parameters, self._grey(n_grey), self.grey)
                state = self._last_state(parameters, stimulus[:, :n_cut], self.grey)
        else:
            state = self._last_state(parameters, self._grey(base.n_frames(base.FADE_IN, dt)))
        recorded = respond(
            self.network,
            parameters,
            stimulus[:, n_cut : int(frames[-1]) + 1],
            dt,
            state=state,
            cells=self.cells,
            frames=frames - n_cut,
            n_threads=1,
        ).responses[0]
        responses = {}
        by_type = torch.split(recorded, self.is_present.sum(1).tolist(), dim=-1)
        for name, is_present, values in zip(self.cell_types, self.is_present, by_type, strict=True):
            if values.shape[-1] < len(is_present):
                sparse = values.new_full((*values.shape[:2], len(is_present)), math.nan)
                sparse[..., is_present] = values
                values = sparse
            responses[name] = values
        return responses

    def _grey(self, n_frames: int) -> torch.Tensor:
        """Grey (sample 1, frame, column)."""
        return self.luminance.new_full((1, n_frames, self.n_columns), GREY)

    def _last_state(
        self, parameters: TorchParameters, stimulus: torch.Tensor, state: torch.Tensor | None = None
    ) -> torch.Tensor:
        """State (model, sample, cell) after a stimulus; by default from rest."""
        none = np.arange(0)
        return respond(
            self.network, parameters, stimulus, self.task.dt, state=state, frames=none, cells=none, n_threads=1
        ).state

    def _targets_of(self, samples: NDArray[np.int64], frames: NDArray[np.int64]) -> dict[str, torch.Tensor]:
        return {name: values[samples][:, frames] for name, values in self.targets.items()}

    def step(self) -> float:
        """One iteration, unless the loss or its gradient is not finite; returns the loss before it, or NaN.

        Raises
        ------
        InputError
            If the loss is no scalar tensor that depends on the responses.
        """
        rng = np.random.default_rng([*self.seed, self.iteration])
        n_samples = min(self.recipe.batch_size, self.n_samples)
        samples = self._draw_samples(rng, n_samples)
        frames = np.arange(self.first_frame, self.n_frames)
        if self.recording.n_frames is not None and self.recording.n_frames < len(frames):
            frames = np.sort(rng.choice(frames, self.recording.n_frames, replace=False))
        responses = self.respond(samples, frames)
        loss = self.loss(responses, self._targets_of(samples, frames))
        if not isinstance(loss, torch.Tensor) or loss.numel() != 1 or not loss.requires_grad:
            text = f"expected the loss as one number that depends on the responses, got {shorten(loss)}"
            raise InputError(Problem(text, "compute it with torch from responses, e.g. with .mean() at the end"))
        total = loss
        for penalty in self.penalties:
            total = total + penalty(responses, self.parameters())
        self.adam.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        gradients = [tensor.grad for group in self.adam.param_groups for tensor in group["params"]]
        value = float(total.detach())
        if not math.isfinite(value) or not all(g is None or bool(g.isfinite().all()) for g in gradients):
            return math.nan
        self.remember()
        for group, rate in zip(self.adam.param_groups, self.base_rates, strict=True):
            group["lr"] = rate * self.recipe.rate(self.iteration)
        self.adam.step()
        with torch.no_grad():
            if "time_constant" not in self.recipe.fixed:
                self.values["time_constant"].clamp_(min=self.task.dt)
        self.iteration += 1
        self.losses.append(float(loss.detach()))
        return self.losses[-1]

    def remember(self) -> None:
        """Keep the parameters, which gave a finite loss."""
        self.good = {name: tensor.detach().clone() for name, tensor in self.values.items()}

    def restore(self) -> None:
        """Return to the last parameters that gave a finite loss."""
        with torch.no_grad():
            for name, tensor in self.values.items():
                tensor.copy_(self.good[name])
        self.grey = None

    def result(self) -> base.Parameters:
        """Parameters of the model as arrays."""
        bias, time_constant, strength = (tensor.detach().cpu().numpy() for tensor in self.parameters())
        return base.Parameters(bias, time_constant, strength)

    @torch.no_grad()
    def evaluate(self, task: Task) -> float:
        """Mean loss over all samples and frames of other stimuli, in batches; NaN if it is not finite."""
        own = self.luminance, self.targets, self.n_samples
        self.luminance = own[0].new_tensor(task.luminance)
        self.targets = {name: torch.as_tensor(values).to(own[0].device) for name, values in task.targets.items()}
        self.n_samples = len(task.luminance)
        frames = np.arange(self.first_frame, self.luminance.shape[1])
        size = self.recipe.batch_size
        total = 0.0
        try:
            for first in range(0, self.n_samples, size):
                samples = np.arange(first, min(first + size, self.n_samples))
                responses = self.respond(samples, frames)
                total += len(samples) * float(self.loss(responses, self._targets_of(samples, frames)))
        finally:
            self.luminance, self.targets, self.n_samples = own
        return total / len(task.luminance)

    def _draw_samples(self, rng: np.random.Generator, n_samples: int) -> NDArray[np.int64]:
        """Samples of a batch; those of one scene come together."""
        if self.task.scenes is None:
            return np.sort(rng.choice(self.n_samples, n_samples, replace=False))
        scenes = rng.permutation(np.unique(self.task.scenes))
        order = np.argsort(scenes)
        rank = order[np.searchsorted(scenes[order], self.task.scenes)]
        return np.sort(np.argsort(rank, kind="stable")[:n_samples])

    def state_dict(self) -> dict[str, Any]:
        """All that changes, as tensors and plain values."""
        loss = self.loss.state_dict() if isinstance(self.loss, torch.nn.Module) else {}
        return {
            "values": {name: tensor.detach().clone() for name, tensor in self.values.items()},
            "grey": self.grey,
            "adam": self.adam.state_dict(),
            "loss": {name: tensor.clone() for name, tensor in loss.items()},
            "iteration": self.iteration,
            "losses": torch.tensor(self.losses, dtype=torch.float64),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state."""
        with torch.no_grad():
            for name, tensor in self.values.items():
                tensor.copy_(state["values"][name])
        self.grey = state["grey"]
        self.adam.load_state_dict(state["adam"])
        if isinstance(self.loss, torch.nn.Module):
            self.loss.load_state_dict(state["loss"])
        self.iteration, self.losses = int(state["iteration"]), state["losses"].tolist()
        self.remember()
