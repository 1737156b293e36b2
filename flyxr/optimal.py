"""The stimulus that drives a cell most: the best of a given set, and gradient ascent from there."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import xarray as xr

from flyxr import provenance, schema
from flyxr.connectome import cell_index, compile_network, find_connectome
from flyxr.engine import base, choose_engine
from flyxr.errors import FlyxrWarning, InputError, Problem, raise_problems
from flyxr.optics import GREY
from flyxr.selection import match_cell_types
from flyxr.simulation import engine_parameters, simulate

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from numpy.typing import NDArray

    from flyxr.engine.sparse import TorchParameters

REGULARISATION = {"drive": 3000 / (24 * 721), "keep": 1.0}
"""Weight of the squared distance from grey of a column in a frame: in ``flyvis.analysis.optimal_stimuli`` this is
``weight_mei`` of a mean over 24 frames of 721 columns, and ``l2_stim`` of a sum."""
LEARNING_RATE = 0.01
"""Step of Adam, luminance: ``lr`` of both procedures of flyvis."""
LARGEST_EXPONENT = 300.0
"""Potentials above it count as this in the exponential, whose square would overflow; grey weighs nothing there."""


def optimal_stimulus(
    ensemble: xr.Dataset,
    cell_type: str,
    rendering: xr.Dataset | xr.DataArray,
    *,
    objective: Literal["drive", "keep"] = "drive",
    n_iterations: int = 100,
    learning_rate: float = LEARNING_RATE,
    regularisation: float | None = None,
    connectome: xr.Dataset | None = None,
    device: str = "auto",
    progress: bool = True,
) -> xr.Dataset:
    """Find the stimulus that drives the central cell of a type most, for each model.

    It begins with the sample of ``rendering`` in which the response of the cell is highest at any time, and changes
    the luminance of all columns and frames along the gradient, within 0 to 1, while it draws them to grey.

    Parameters
    ----------
    ensemble
        Parameters of models.
    cell_type
        One cell type; its cell in the column u = v = 0 is driven.
    rendering
        The stimuli to begin with, ``luminance`` (sample, time, column); its time step is the integration step.
    objective
        With V the response of the cell, x the luminance and r the regularisation, ``"drive"`` lowers
        ``-exp(V(t)) + r sum((x - 1/2)^2)``, where t is the time of the highest response at the beginning: an ascent
        that makes the response higher. ``"keep"`` lowers ``sum((V - V_0)^2) + r sum((x - 1/2)^2)`` with the response
        V_0 at the beginning: it leaves the response as it was and of the stimulus what it is due to. Sums are over
        all frames, and columns.
    n_iterations
        Steps of the ascent.
    learning_rate
        Step of Adam, luminance.
    regularisation
        Weight of the squared distance from grey; without it the published one, 0.173 to drive and 1 to keep.
    connectome
        The connectome of the models; without it the one that the ensemble says it is of.
    device
        ``"auto"`` (a GPU where there is one), ``"cpu"``, ``"cuda"``, ``"cuda:1"``, … .
    progress
        Show a progress bar over the iterations of all models.

    Returns
    -------
    Dataset
        ``luminance`` (model, time, column); ``response`` (model, time), a.u., of the cell to it, after one second of
        grey; ``start_response`` (model, time) to the sample it began with; ``loss`` (model, iteration) before each
        step. Coordinates on ``model``: those of the ensemble, ``start_sample``, and ``peak_time``, s, of the highest
        response at the beginning. ``optimal[["luminance"]].rename(model="sample")`` is a rendering, one sample for
        each model, which :func:`flyxr.simulate` gives the same responses to with ``initial_state="steady_state"``.

    Raises
    ------
    SchemaError
        If rendering or ensemble do not fit the schema, or each other, or the connectome, or luminance is not finite.
    UnknownCellTypeError
        If there is no such cell type.
    ValueError
        If the cell type means several, or an option is out of its range.
    DivergedError
        If responses of a model grow without bound.

    Warns
    -----
    UserWarning
        If the cell is driven less than at the beginning, because the regularisation outweighs its response.

    Notes
    -----
    Lappalainen et al. 2024, Methods, "Maximally excitatory naturalistic and artificial stimuli". The first sample is
    chosen as in ``flyvis.analysis.optimal_stimuli.FindOptimalStimuli.optimal_stimuli``; ``"keep"`` is its
    ``regularized_optimal_stimuli`` (with luminance kept within 0 to 1), and ``"drive"`` the loss of
    ``GenerateOptimalStimuli.artificial_optimal_stimuli``, which begins with noise, drives the last frame, and takes
    3000 times the mean distance over its 24 frames of 721 columns; as a sum of the same weight, the stimulus does not
    depend on how long it is and how far the lattice reaches. All begin with one second of grey and use Adam (Kingma
    and Ba 2014) with step 0.01, over 100 iterations (200 from noise). No random number is drawn.

    Examples
    --------
    >>> import flyxr as fx
    >>> connectome = fx.open_connectome(extent=2)
    >>> movie = fx.stimuli.moving_digits(n_samples=2, seed=0)
    >>> rendering = fx.resample(fx.BoxEye(extent=2).render(movie), dt=1 / 50)
    >>> models = fx.sample_ensemble(n_models=1, seed=0, connectome=connectome)
    >>> optimal = optimal_stimulus(
    ...     models, "Mi1", rendering, regularisation=0.001, n_iterations=5, connectome=connectome, progress=False
    ... )
    >>> dict(optimal.luminance.sizes)
    {'model': 1, 'time': 34, 'column': 19}
    """
    rendering = schema.validate(rendering, "rendering")
    ensemble = schema.in_memory(schema.validate(ensemble, "ensemble"))
    connectome = find_connectome(ensemble.attrs, connectome)
    ensemble = ensemble.assign_attrs({"connectome": connectome.attrs["connectome"], **ensemble.attrs})
    weight = REGULARISATION.get(objective, 0.0) if regularisation is None else float(regularisation)
    _check_options(objective, n_iterations, learning_rate, weight)
    name = _one_type(cell_type, connectome)
    _, device_name = choose_engine("sparse", device)
    record = {"cell_type": [name], "column": "central"}
    responses = simulate(
        rendering, ensemble, initial_state="steady_state", record=record, connectome=connectome, device=device
    )

    from tqdm.auto import tqdm

    n_models = ensemble.sizes["model"]
    with tqdm(total=n_models * n_iterations, desc=name, unit="step", disable=not progress) as bar:
        bar.set_postfix_str("simulating the given samples")
        before = responses["response"].isel(cell_type=0, column=0).values
        start, peak = np.divmod([np.nanargmax(of_model) for of_model in before], before.shape[-1])
        chosen, position = np.unique(start, return_inverse=True)
        samples = rendering["luminance"].isel(sample=chosen).values
        found = []
        for i, of_model in enumerate(_cells(ensemble, name, connectome, schema.time_step(rendering), device_name)):
            target = before[i, start[i]]
            ascent = _Ascent(of_model, samples[position[i]], objective, weight, learning_rate, target, int(peak[i]))
            losses = []
            for _ in range(n_iterations):
                losses.append(ascent.step())
                bar.update()
                bar.set_postfix_str(f"{ensemble['model_name'].values[i]}, loss {losses[-1]:.4g}")
            found.append((*ascent.result(), losses))
    luminance, response, loss = (np.stack(part) for part in zip(*found, strict=True))

    models = np.arange(n_models)
    start_response = before[models, start]
    response = np.where(np.isnan(start_response), np.nan, response)  # frames after the end of a sample
    if objective == "drive":
        _warn_of_losses(response[models, peak], start_response[models, peak], ensemble, name, weight)
    along = {dim: {key: rendering[key] for key in rendering.coords if rendering[key].dims == (dim,)} for dim in _KEPT}
    optimal = xr.Dataset(
        {
            "luminance": (("model", "time", "column"), luminance),
            "response": (("model", "time"), response),
            "start_response": (("model", "time"), start_response),
            "loss": (("model", "iteration"), loss),
        },
        coords={
            **{key: coord for key, coord in ensemble.coords.items() if coord.dims == ("model",)},
            **along["time"],
            **along["column"],
            "iteration": np.arange(n_iterations),
            "start_sample": ("model", rendering["sample"].values[start]),
            "peak_time": ("model", rendering["time"].values[peak]),
        },
        attrs={"cell_type": name, "objective": objective, **{key: responses.attrs[key] for key in _ATTRS}},
    )
    arguments = {
        "cell_type": name,
        "objective": objective,
        "n_iterations": n_iterations,
        "learning_rate": learning_rate,
        "regularisation": weight,
        "device": device_name,
    }
    optimal = provenance.add(
        optimal,
        "optimal_stimulus",
        arguments,
        hashes=provenance.steps(responses)[-1]["hashes"],
        packages=("numpy", "xarray", "torch"),
        after=rendering,
    )
    return schema.annotate(optimal, "optimal_stimuli")


_KEPT = ("time", "column")
_ATTRS = ("connectome", "extent")


def _check_options(objective: str, n_iterations: int, learning_rate: float, regularisation: float) -> None:
    problems: list[str | Problem] = []
    if objective not in REGULARISATION:
        problems.append(f"expected objective 'drive' or 'keep', got {objective!r}")
    if n_iterations < 1:
        problems.append(f"expected n_iterations of at least 1, got {n_iterations}")
    if not 0 < learning_rate < np.inf:
        problems.append(Problem(f"expected a learning_rate above 0, got {learning_rate}", f"e.g. {LEARNING_RATE}"))
    if not 0 <= regularisation < np.inf:
        problems.append(
            Problem(f"expected a regularisation of at least 0, got {regularisation}", f"e.g. {REGULARISATION}")
        )
    raise_problems(InputError, "", problems)


def _one_type(cell_type: str, connectome: xr.Dataset) -> str:
    names = match_cell_types(cell_type, connectome["cell_type"].values.tolist())
    if len(names) != 1:
        raise InputError(Problem(f"expected one cell type, got {names}", "find the stimuli of one after the other"))
    return names[0]


def _warn_of_losses(
    after: NDArray[np.floating], before: NDArray[np.floating], ensemble: xr.Dataset, name: str, weight: float
) -> None:
    lost = np.flatnonzero(after < before - 1e-5 * (1 + np.abs(before)))  # engines differ by rounding
    if lost.size:
        i = lost[0]
        warnings.warn(
            FlyxrWarning(
                Problem(
                    f"{name} is driven less than by the given samples in {lost.size} of {len(after)} models, first "
                    f"{ensemble['model_name'].values[i]} ({before[i]:.4g} before, {after[i]:.4g} after)",
                    f"its response weighs less than the distance from grey; give a regularisation below {weight:.3g}",
                )
            ),
            stacklevel=3,
        )


class _Cell(NamedTuple):
    """The central cell of a type in one model, and the model's state after one second of grey."""

    network: base.Network
    parameters: TorchParameters
    state: torch.Tensor
    cell: NDArray[np.int64]
    dt: float

    def respond(self, luminance: torch.Tensor, frames: NDArray[np.int64] | None = None) -> torch.Tensor:
        """Response (recorded frame,) to a luminance (frame, column)."""
        from flyxr.engine.sparse import respond

        options = {"state": self.state, "cells": self.cell, "frames": frames}
        return respond(self.network, self.parameters, luminance[None], self.dt, **options).responses[0, 0, :, 0]  # type: ignore[arg-type]


def _cells(ensemble: xr.Dataset, name: str, connectome: xr.Dataset, dt: float, device: str) -> Iterator[_Cell]:
    """The cell in one model after the other."""
    import torch

    from flyxr.engine.sparse import TorchParameters, respond

    network, parameters = compile_network(connectome), engine_parameters(ensemble, connectome)
    middle = int(np.flatnonzero((network.u == 0) & (network.v == 0))[0])
    # A type's stride divides 0, so every type has a cell in the central column.
    cell = cell_index(connectome)[connectome["cell_type"].values.tolist().index(name), [middle]].astype(np.int64)
    grey = torch.as_tensor(base.grey(network.n_columns, dt), device=device)
    for i in range(ensemble.sizes["model"]):
        of_model = TorchParameters(
            *(torch.as_tensor(values[i : i + 1], dtype=torch.float32, device=device) for values in parameters)
        )
        with torch.no_grad():
            state = respond(network, of_model, grey, dt, frames=np.arange(0)).state
        yield _Cell(network, of_model, state, cell, dt)


class _Ascent:
    """Steps of Adam on the luminance (frame, column) that a cell sees.

    Luminance, loss and steps are float64, since the square of an exponential is beyond float32 where potentials are
    above 44; the network is float32.
    """

    def __init__(
        self,
        cell: _Cell,
        luminance: NDArray[np.floating],
        objective: str,
        weight: float,
        learning_rate: float,
        target: NDArray[np.floating],
        peak: int,
    ) -> None:
        import torch

        self.cell, self.objective, self.weight = cell, objective, weight
        device = cell.state.device
        self.pixels = torch.tensor(luminance, dtype=torch.float64, device=device)
        # What is later than the response it is judged by is not integrated.
        wanted = np.array([peak]) if objective == "drive" else np.flatnonzero(np.isfinite(target))
        self.frames, self.stop = wanted, int(wanted[-1]) + 1
        self.target = torch.as_tensor(target[wanted], dtype=torch.float64, device=device)
        self.adam = torch.optim.Adam([self.pixels], lr=learning_rate)

    def step(self) -> float:
        """Change the luminance; the loss before."""
        import torch

        seen = self.pixels[: self.stop].float().requires_grad_()
        response = self.cell.respond(seen, self.frames)
        loss, of_response = self.loss_of_response(response.detach().double())
        scale = of_response.abs().max().clamp(min=1)  # so that an exponential fits float32 on the way back
        (of_seen,) = torch.autograd.grad(response, seen, (of_response / scale).float())
        from_grey = self.pixels - GREY
        gradient = 2 * self.weight * from_grey
        gradient[: self.stop] += scale * of_seen.double()
        self.pixels.grad = gradient
        self.adam.step()
        total = loss + self.weight * (from_grey**2).sum()
        self.pixels.clamp_(0, 1)
        return float(total)

    def loss_of_response(self, response: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The part of the loss that depends on the response, and its derivative."""
        if self.objective == "drive":
            driven = response.clamp(max=LARGEST_EXPONENT).exp()
            return -driven.sum(), -driven
        change = response - self.target
        return (change**2).sum(), 2 * change

    def result(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Luminance and the response to it, over all frames."""
        import torch

        with torch.no_grad():
            luminance = self.pixels.float()
            return luminance.cpu().numpy(), self.cell.respond(luminance).cpu().numpy()
