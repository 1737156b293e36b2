"""The stimulus that drives a cell most: gradient ascent from the best of a given set of stimuli."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Literal

import numpy as np
import xarray as xr

from flyxr import hexgrid, provenance, schema
from flyxr.arguments import Arguments, shorten
from flyxr.connectome import cell_index, find_connectome
from flyxr.engine import choose_engine
from flyxr.errors import FlyxrWarning, InputError, Problem
from flyxr.optics import GREY
from flyxr.selection import match_cell_types
from flyxr.simulation import EnsembleTensors, ensemble_tensors, simulate

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

REGULARISATION = {"drive": 3000 / (24 * 721), "keep": 1.0}
"""Weight of the squared distance from grey, per column and frame. In ``flyvis.analysis.optimal_stimuli`` these are
``weight_mei``, for a mean over 24 frames of 721 columns, and ``l2_stim``, for a sum."""
LEARNING_RATE = 0.01
"""Step size of Adam, luminance: ``lr`` of both procedures of flyvis."""
MAX_EXPONENT = 300.0
"""Limit for potentials in the exponential, whose square would overflow; the distance from grey is negligible there."""


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

    The ascent starts from the sample of ``rendering`` with the highest response of the cell at any time. It changes the
    luminance of all columns and frames along the gradient, within 0 to 1, and regularises them toward grey.

    Parameters
    ----------
    ensemble
        Parameters of models. Of one model, as from ``ensemble.isel(model=0)``, the result has no dim ``model``.
    cell_type
        One cell type; the target is its cell in the column u = v = 0.
    rendering
        The stimuli to start from, ``luminance`` (sample, time, column), or one of them (time, column); its time step
        is the integration step.
    objective
        V is the response of the cell, x the luminance and r the regularisation. ``"drive"`` minimises
        ``-exp(V(t)) + r sum((x - 1/2)^2)``, where t is the time of the highest initial response, and so increases the
        response. ``"keep"`` minimises ``sum((V - V_0)^2) + r sum((x - 1/2)^2)``, where V_0 is the initial response: it
        preserves the response and removes all of the stimulus that does not contribute to it. Sums are over all
        frames, and columns.
    n_iterations
        Steps of the ascent.
    learning_rate
        Step size of Adam, luminance.
    regularisation
        Weight of the squared distance from grey; default: the published values, 0.173 for ``"drive"`` and 1 for
        ``"keep"``.
    connectome
        The connectome of the models; default: the one that the ensemble names.
    device
        ``"auto"`` (a GPU if there is one), ``"cpu"``, ``"cuda"``, ``"cuda:1"``, … .
    progress
        Show a progress bar over the iterations of all models.

    Returns
    -------
    Dataset
        ``luminance`` (model, time, column); ``response`` (model, time), a.u., the response of the cell to it after one
        second of grey; ``start_response`` (model, time), the response to the initial sample; ``loss`` (model,
        iteration) before each step. Coordinates on ``model``: those of the ensemble, ``start_sample``, and
        ``peak_time``, s, of the highest initial response. ``optimal[["luminance"]].rename(model="sample")`` is a
        rendering with one sample per model. :func:`flyxr.simulate` with ``initial_state="steady_state"`` gives the
        same responses to it.

    Raises
    ------
    SchemaError
        If rendering or ensemble do not fit the schema, each other, or the connectome, or luminance is not finite.
    UnknownCellTypeError
        If there is no such cell type.
    ValueError
        If the name matches several cell types, or an option is out of range.
    DivergedError
        If responses of a model grow without bound.

    Warns
    -----
    UserWarning
        If the cell is driven less than initially, because the regularisation outweighs its response.

    Notes
    -----
    Lappalainen et al. 2024, Methods, "Maximally excitatory naturalistic and artificial stimuli". The initial sample is
    chosen as in ``flyvis.analysis.optimal_stimuli.FindOptimalStimuli.optimal_stimuli``. ``"keep"`` is its
    ``regularized_optimal_stimuli``, with luminance kept within 0 to 1. ``"drive"`` has the loss of
    ``GenerateOptimalStimuli.artificial_optimal_stimuli``, which starts from noise, drives the last frame, and weights
    the mean distance over its 24 frames of 721 columns by 3000. Here it is a sum of the same weight, so that the
    stimulus does not depend on its duration or the extent of the lattice. All start with one second of grey and use
    Adam (Kingma and Ba 2014) with step size 0.01, over 100 iterations (200 from noise). No random numbers are drawn.

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
    ensemble, squeeze = schema.expand(ensemble, "ensemble")
    ensemble = schema.in_memory(ensemble)
    connectome = find_connectome(ensemble.attrs, connectome)
    ensemble = ensemble.assign_attrs({"connectome": connectome.attrs["connectome"], **ensemble.attrs})
    n_iterations, learning_rate, weight = _check_options(objective, n_iterations, learning_rate, regularisation)
    name = _match_one_type(cell_type, connectome)
    _, device_name = choose_engine("sparse", device)
    record = {"cell_type": [name], "column": "central"}
    responses = simulate(
        rendering, ensemble, initial_state="steady_state", record=record, connectome=connectome, device=device
    )

    from tqdm import tqdm

    n_models = ensemble.sizes["model"]
    with tqdm(total=n_models * n_iterations, desc=name, unit="step", disable=not progress) as bar:
        bar.set_postfix_str("simulating the given samples")
        sample_responses = responses["response"].isel(cell_type=0, column=0).values  # (model, sample, time)
        n_frames = sample_responses.shape[-1]
        start, peak = np.divmod([np.nanargmax(values) for values in sample_responses], n_frames)
        start_samples, position = np.unique(start, return_inverse=True)
        start_luminance = rendering["luminance"].isel(sample=start_samples).values
        tensors = ensemble_tensors(ensemble, connectome, schema.time_step(rendering), device=device_name)
        cell = central_cell(connectome, name)
        results = []
        for i in range(n_models):
            ascent = GradientAscent(
                tensors.select(i),
                cell,
                start_luminance[position[i]],
                objective=objective,
                regularisation=weight,
                learning_rate=learning_rate,
                start_response=sample_responses[i, start[i]],
                peak=int(peak[i]),
            )
            losses = []
            for _ in range(n_iterations):
                losses.append(ascent.step())
                bar.update()
                bar.set_postfix_str(f"{ensemble['model_name'].values[i]}, loss {losses[-1]:.4g}")
            results.append((*ascent.result(), losses))
    luminance, response, loss = (np.stack(arrays) for arrays in zip(*results, strict=True))

    models = np.arange(n_models)
    start_response = sample_responses[models, start]
    response = np.where(np.isnan(start_response), np.nan, response)  # frames after the end of a sample
    if objective == "drive":
        _warn_of_decrease(response[models, peak], start_response[models, peak], ensemble, name, weight)
    coords = {key: coord for key, coord in rendering.coords.items() if coord.dims in (("time",), ("column",))}
    optimal = xr.Dataset(
        {
            "luminance": (("model", "time", "column"), luminance),
            "response": (("model", "time"), response),
            "start_response": (("model", "time"), start_response),
            "loss": (("model", "iteration"), loss),
        },
        coords={
            **{key: coord for key, coord in ensemble.coords.items() if coord.dims == ("model",)},
            **coords,
            "iteration": np.arange(n_iterations),
            "start_sample": ("model", rendering["sample"].values[start]),
            "peak_time": ("model", rendering["time"].values[peak]),
        },
        attrs={
            "cell_type": name,
            "objective": objective,
            **{key: responses.attrs[key] for key in ("connectome", "extent")},
        },
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
    return squeeze(schema.annotate(optimal, "optimal_stimuli"))


def _check_options(
    objective: object, n_iterations: object, learning_rate: object, regularisation: object
) -> tuple[int, float, float]:
    """Number of iterations, learning rate and regularisation as numbers; raises for all that is wrong."""
    arguments, weight = Arguments(), 0.0
    if not isinstance(objective, str) or objective not in REGULARISATION:
        arguments.problems.append(f"expected objective 'drive' or 'keep', got {shorten(objective)}")
    elif regularisation is None:
        weight = REGULARISATION[objective]
    n_iterations = arguments.integer("n_iterations", n_iterations, least=1)
    learning_rate = arguments.number("learning_rate", learning_rate, above=0, hint=f"e.g. {LEARNING_RATE}")
    if regularisation is not None:
        weight = arguments.number("regularisation", regularisation, least=0, hint=f"e.g. {REGULARISATION}")
    arguments.raise_problems()
    return n_iterations, learning_rate, weight


def _match_one_type(cell_type: str, connectome: xr.Dataset) -> str:
    names = match_cell_types(cell_type, connectome["cell_type"].values.tolist(), "cell_type")
    if len(names) != 1:
        raise InputError(Problem(f"expected one cell type, got {names}", "call fx.optimal_stimulus once for each"))
    return names[0]


def _warn_of_decrease(
    after: NDArray[np.floating], before: NDArray[np.floating], ensemble: xr.Dataset, name: str, regularisation: float
) -> None:
    decreased = np.flatnonzero(after < before - 1e-5 * (1 + np.abs(before)))  # engines differ by rounding
    if decreased.size:
        i = decreased[0]
        warnings.warn(
            FlyxrWarning(
                Problem(
                    f"{name} is driven less than by the given samples in {decreased.size} of {len(after)} models, "
                    f"first {ensemble['model_name'].values[i]} ({before[i]:.4g} before, {after[i]:.4g} after)",
                    f"the distance from grey outweighs the response; give a regularisation below {regularisation:.3g}",
                )
            ),
            stacklevel=3,
        )


def central_cell(connectome: xr.Dataset, cell_type: str) -> int:
    """Index of the cell of a type in the column u = v = 0.

    Every type has a cell there, since its stride divides 0.

    Examples
    --------
    >>> import flyxr as fx
    >>> central_cell(fx.open_connectome(extent=1), "R1")
    3
    """
    column = int(hexgrid.column_index(0, 0, connectome.attrs["extent"]))
    return int(cell_index(connectome)[connectome["cell_type"].values.tolist().index(cell_type), column])


class GradientAscent:
    """Steps of Adam on the luminance that drives one cell of one model.

    Luminance, loss and steps are float64, since the square of the exponential overflows float32 for potentials above
    44. The network is float32.

    Parameters
    ----------
    model
        One model.
    cell
        Index of the cell.
    luminance
        Initial luminance (frame, column).
    objective, regularisation, learning_rate
        As in :func:`optimal_stimulus`.
    start_response
        Response (frame,) to the initial luminance; frames that are NaN have no part in the loss.
    peak
        Frame of the highest initial response.
    """

    def __init__(
        self,
        model: EnsembleTensors,
        cell: int,
        luminance: NDArray[np.floating],
        *,
        objective: str,
        regularisation: float,
        learning_rate: float,
        start_response: NDArray[np.floating],
        peak: int,
    ) -> None:
        import torch

        self.model, self.cells, self.state = model, np.array([cell]), model.steady_state()
        self.objective, self.regularisation = objective, regularisation
        self.luminance = torch.tensor(luminance, dtype=torch.float64, device=model.device)
        self.frames = np.array([peak]) if objective == "drive" else np.flatnonzero(np.isfinite(start_response))
        self.n_integrated = int(self.frames[-1]) + 1  # later frames have no effect on the response in the loss
        self.target = torch.as_tensor(start_response[self.frames], dtype=torch.float64, device=model.device)
        self.adam = torch.optim.Adam([self.luminance], lr=learning_rate)

    def respond(self, luminance: torch.Tensor, frames: NDArray[np.int64] | None = None) -> torch.Tensor:
        """Response (recorded frame,) of the cell to a luminance (frame, column)."""
        result = self.model.respond(luminance[None], state=self.state, cells=self.cells, frames=frames)
        return result.responses[0, 0, :, 0]

    def step(self) -> float:
        """Update the luminance and return the loss before the step."""
        import torch

        stimulus = self.luminance[: self.n_integrated].float().requires_grad_()
        response = self.respond(stimulus, self.frames)
        loss, grad_response = self.response_loss(response.detach().double())
        scale = grad_response.abs().max().clamp(min=1)  # keeps the exponential within float32 in the backward pass
        (grad_stimulus,) = torch.autograd.grad(response, stimulus, (grad_response / scale).float())
        distance = self.luminance - GREY
        gradient = 2 * self.regularisation * distance
        gradient[: self.n_integrated] += scale * grad_stimulus.double()
        self.luminance.grad = gradient
        self.adam.step()
        total = loss + self.regularisation * (distance**2).sum()
        self.luminance.clamp_(0, 1)
        return float(total)

    def response_loss(self, response: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss of a response without the regularisation, and its derivative."""
        if self.objective == "drive":
            exponential = response.clamp(max=MAX_EXPONENT).exp()
            return -exponential.sum(), -exponential
        change = response - self.target
        return (change**2).sum(), 2 * change

    def result(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Luminance (frame, column) and the response (frame,) to it."""
        import torch

        with torch.no_grad():
            luminance = self.luminance.float()
            return luminance.cpu().numpy(), self.respond(luminance).cpu().numpy()
