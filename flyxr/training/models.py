"""The task of one model: train it from its last checkpoint to the end."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flyxr.training.checkpoints import ModelFile
from flyxr.training.loop import ModelTraining, Recipe, Task

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr

    from flyxr.engine.base import Parameters
    from flyxr.training.losses import Loss, Penalty

SMOOTHING = 50
"""Iterations of the mean loss in the progress bar."""


@dataclass(frozen=True)
class Plan:
    """All that the tasks of a training share.

    ``connectome`` is at the extent of the stimuli, ``task`` the stimuli to train on and ``validation`` those to test
    on, ``folder`` that of the checkpoints.
    """

    connectome: xr.Dataset
    task: Task
    validation: Task | None
    loss: Loss
    penalties: Sequence[Penalty]
    recipe: Recipe
    seed: int
    folder: str
    device: str = "cpu"


@dataclass(frozen=True)
class TrainedModel:
    """Result of a task.

    ``parameters`` are those of one model, ``losses`` (iteration,) those before each step, ``validation_loss`` NaN
    without validation, ``diverged_at`` the iteration whose loss was not finite, or -1.
    """

    parameters: Parameters
    losses: np.ndarray[Any, np.dtype[np.float64]]
    validation_loss: float
    diverged_at: int


def train_model(plan: Plan, parameters: Parameters, model: int) -> TrainedModel:
    """Train one model, or continue from its checkpoint."""
    import torch

    from flyxr.engine.products import denormals_flushed

    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # models are trained side by side
    try:
        with denormals_flushed():
            return _train(plan, parameters, model)
    finally:
        torch.set_num_threads(n_threads)


def _train(plan: Plan, parameters: Parameters, model: int) -> TrainedModel:
    loss = copy.deepcopy(plan.loss)  # each model trains its own readout
    training = ModelTraining(
        plan.connectome, parameters, plan.task, loss, plan.penalties, plan.recipe, [plan.seed, model], plan.device
    )
    file = ModelFile(Path(plan.folder), model)
    state = file.load()
    diverged_at = -1
    if state is not None:
        training.load_state_dict(state)
        diverged_at = int(state["diverged_at"])
    while training.iteration < plan.recipe.n_iterations and diverged_at < 0:
        if math.isnan(training.step()):
            diverged_at = training.iteration
            training.restore()
            break
        if file.is_due():
            file.save({**training.state_dict(), "diverged_at": diverged_at})
        file.report(training.iteration, float(np.mean(training.losses[-SMOOTHING:])))
    if state is None or int(state["iteration"]) < training.iteration or diverged_at >= 0:
        file.save({**training.state_dict(), "diverged_at": diverged_at})
    file.report(plan.recipe.n_iterations, float(np.mean(training.losses[-SMOOTHING:] or [np.nan])), force=True)
    losses = np.full(plan.recipe.n_iterations, np.nan)
    losses[: len(training.losses)] = training.losses
    validation_loss = float("nan")
    if plan.validation is not None:
        validation_loss = training.evaluate(plan.validation)
    return TrainedModel(training.result(), losses, validation_loss, diverged_at)
