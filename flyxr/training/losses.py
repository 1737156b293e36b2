"""Losses and penalties of training: functions of responses and targets, in torch.

A loss is any function ``loss(responses, targets)`` that returns a scalar tensor. ``responses`` maps each recorded cell
type to a tensor (sample, time, column), which is NaN where the type has no cell. ``targets`` maps each other variable
of the rendering over ``sample``, such as ``flow``, to a tensor of the same samples and times. A loss may have an
attribute ``recording`` (:class:`Recording`), which limits what is simulated and recorded for it. A loss that is a
:class:`torch.nn.Module` is trained with the model. Its method ``start(responses, targets, all_targets)`` is called once
before, with those of up to 256 samples, and with the targets of all.

A penalty is any function ``penalty(responses, parameters)``, where ``parameters`` are those of one model, ``bias`` and
``time_constant`` (1, cell_type) and ``synapse_strength`` (1, pair), in the order of the connectome.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr
from torch import nn

from flyxr import schema
from flyxr.arguments import Arguments, shorten
from flyxr.errors import InputError, Problem, raise_problems
from flyxr.training.indicator import calcium_matrix
from flyxr.training.readout import FlowReadout

if TYPE_CHECKING:
    from flyxr.engine.sparse import TorchParameters

Tensors = Mapping[str, torch.Tensor]
Loss = Callable[[Tensors, Tensors], torch.Tensor]
Penalty = Callable[[Tensors, "TorchParameters"], torch.Tensor]


@dataclass(frozen=True)
class Recording:
    """What a loss needs of the responses.

    Attributes
    ----------
    cell_types
        Names, or None for all types.
    central
        Whether the central column is enough.
    n_frames
        Number of random frames per iteration, or None for all.
    t_skip
        Duration at the beginning of a sample without a loss, s.
    """

    cell_types: tuple[str, ...] | None = None
    central: bool = False
    n_frames: int | None = None
    t_skip: float = 0.0


def flow_loss(
    *,
    target: str = "flow",
    cell_types: Iterable[str] | None = None,
    radius: int = 2,
    n_frames: int = 4,
    t_skip: float = 0.16,
) -> Loss:
    """Squared error of the optic flow that a readout decodes from responses, relative to that of the mean flow.

    Parameters
    ----------
    target
        Variable of the rendering (sample, time, column, axis), such as the ``flow`` of
        :func:`flyxr.stimuli.moving_layers` or :func:`flyxr.stimuli.natural_motion`.
    cell_types
        Types that the readout reads; by default those with the role ``"output"`` in the connectome.
    radius
        Radius of the average over columns that the readout reads.
    n_frames
        Random frames of each sample in one iteration.
    t_skip
        Duration at the beginning of a sample that is not used, s.

    Returns
    -------
    Loss
        Mean over samples, times and columns of the squared length of the difference of target and decoded flow,
        divided by that for the mean target: 1 minus the explained variance. Columns
        closer than ``radius`` to the rim are not used.

    Notes
    -----
    The readout is linear in the rectified responses, divided by 1 + softplus of another linear function of them. It is
    the same in all columns and has no memory, so that it can't compute motion from responses that do not contain it.

    Examples
    --------
    >>> flow_loss().recording.n_frames
    4
    """
    arguments = Arguments()
    radius = arguments.integer("radius", radius, least=0)
    n_frames = arguments.integer("n_frames", n_frames, least=1)
    t_skip = arguments.number("t_skip", t_skip, "s", least=0)
    types = None if cell_types is None else tuple(arguments.names("cell_types", cell_types))
    arguments.raise_problems()
    return FlowLoss(target, types, radius, Recording(None, False, n_frames, t_skip))


class FlowLoss(nn.Module):
    """See :func:`flow_loss`; ``readout`` is there after :meth:`start`."""

    mean_error: torch.Tensor

    def __init__(self, target: str, cell_types: tuple[str, ...] | None, radius: int, recording: Recording) -> None:
        super().__init__()
        self.target, self.cell_types, self.radius, self.recording = target, cell_types, radius, recording
        self.required_targets = (target,)
        self.readout: FlowReadout | None = None
        self.register_buffer("mean_error", torch.ones(()))

    def build(self, connectome: xr.Dataset, extent: int) -> None:
        """Make the readout for a lattice, not yet fitted."""
        outputs = connectome["cell_type"].values[connectome["role"].values == "output"].tolist()
        self.readout = FlowReadout(self.cell_types or tuple(outputs), extent, self.radius)

    def start(self, responses: Tensors, targets: Tensors, all_targets: Tensors) -> None:
        """Fit the linear part of the readout by ridge regression."""
        assert self.readout is not None
        every_flow = self.readout.inner(all_targets[self.target])
        self.mean_error.copy_((every_flow - every_flow.mean((0, 1, 2))).square().sum(-1).mean())
        flow = self.readout.inner(targets[self.target])
        self.readout.fit(responses, flow)

    def forward(self, responses: Tensors, targets: Tensors) -> torch.Tensor:
        """Loss of a batch."""
        assert self.readout is not None
        difference = self.readout(responses) - self.readout.inner(targets[self.target])
        relative: torch.Tensor = difference.square().sum(-1).mean() / self.mean_error
        return relative


def response_loss(
    recordings: xr.Dataset | xr.DataArray, *, rise: float | None = None, decay: float | None = None
) -> Loss:
    """Squared error of central responses to measured ones, each cell type with its best scale and offset.

    Parameters
    ----------
    recordings
        ``response`` (sample, time, cell_type): what was measured for the samples and times of the rendering, in any
        unit. Types, samples and times without a measurement are NaN or absent.
    rise, decay
        Time constants of a calcium indicator, s, through which the responses are seen; see
        :func:`flyxr.tuning.calcium`. By default the recordings are of potentials.

    Returns
    -------
    Loss
        Mean over cell types of the share of variance that is not explained, at the scale and offset that fit best over
        all samples and times of a batch: 1 - r², with the correlation r. A scale is not negative: for a negative r, the
        loss is 1 + r², so that there is a gradient toward the right sign.

    Raises
    ------
    InputError
        A ValueError. If nothing was measured, recordings lack dims, or only one time constant is given.

    Examples
    --------
    >>> import xarray as xr
    >>> measured = xr.DataArray(np.ones((1, 5, 1)), dims=("sample", "time", "cell_type"), coords={"cell_type": ["L1"]})
    >>> response_loss(measured).recording.cell_types
    ('L1',)
    """
    array = recordings.get("response") if isinstance(recordings, xr.Dataset) else recordings
    if not isinstance(array, xr.DataArray):
        text = f"expected recordings with the variable 'response', got {shorten(recordings)}"
        raise InputError(Problem(text, "name it with .rename"))
    problems: list[str | Problem] = []
    dims = set(array.dims)
    if "column" in dims:
        problems.append(Problem("expected recordings of central cells, got the dim 'column'", "call .fly.central()"))
    elif dims != {"sample", "time", "cell_type"}:
        problems.append(f"expected recordings with the dims sample, time and cell_type, got {sorted(map(str, dims))}")
    elif "cell_type" not in array.coords:
        problems.append(Problem("expected the names of the recorded cell types, got no labels", "assign_coords"))
    elif not np.isfinite(np.asarray(array.values, float)).any():
        problems.append("expected recordings with at least one measured value, got NaN only")
    if (rise is None) != (decay is None):
        problems.append(f"expected both rise and decay of the indicator, got rise={rise} and decay={decay}")
    elif rise is not None and decay is not None and not 0 < rise < decay:
        problems.append(f"expected 0 < rise < decay, in s, got rise={rise} and decay={decay}")
    raise_problems(InputError, "cannot fit these recordings", problems)
    array = array.transpose("sample", "time", "cell_type").astype(np.float32).load()
    is_measured = np.isfinite(array.values).any(axis=(0, 1))
    return ResponseLoss(array.isel(cell_type=is_measured), rise, decay)


class ResponseLoss:
    """See :func:`response_loss`; training passes the recordings of a batch as the target ``recording``."""

    def __init__(self, recordings: xr.DataArray, rise: float | None, decay: float | None) -> None:
        self.recordings, self.rise, self.decay, self.dt = recordings, rise, decay, float("nan")
        self.cell_types = tuple(recordings["cell_type"].values.tolist())
        self.recording = Recording(self.cell_types, central=True)
        self.required_targets = ("recording",)

    def targets(self, rendering: xr.Dataset) -> dict[str, torch.Tensor]:
        """Recordings as a tensor (sample, time, cell_type), matched with the rendering by label."""
        self.dt = schema.time_step(rendering)
        problems: list[str | Problem] = []
        array = self.recordings
        for dim in ("sample", "time"):
            if dim in array.coords:
                labels = rendering[dim].values
                if dim == "time":  # times are equal up to rounding
                    array = array.assign_coords(time=np.round(array["time"].values, 6))
                    labels = np.round(labels, 6)
                unknown = array.indexes[dim].difference(labels)
                if len(unknown):
                    problems.append(
                        Problem(
                            f"expected recordings of the {dim}s of the rendering, got {len(unknown)} others, first "
                            f"{unknown[0]}",
                            "select those that were presented, or interpolate to the times of the rendering",
                        )
                    )
                array = array.reindex({dim: labels})
            elif array.sizes[dim] != rendering.sizes[dim]:
                problems.append(f"expected recordings of {rendering.sizes[dim]} {dim}s, got {array.sizes[dim]}")
        raise_problems(InputError, "cannot fit these recordings", problems)
        return {"recording": torch.as_tensor(array.values)}

    def __call__(self, responses: Tensors, targets: Tensors) -> torch.Tensor:
        """Loss of a batch."""
        losses = []
        for i, name in enumerate(self.cell_types):
            response, measured = responses[name][..., 0], targets["recording"][..., i]
            if self.rise is not None and self.decay is not None:
                start = response[:, :1]
                filtered = calcium_matrix(response.shape[1], self.rise, self.decay, self.dt).to(response)
                response = start + (response - start) @ filtered.T
            is_measured = measured.isfinite()
            if int(is_measured.sum()) > 2:
                losses.append(_unexplained_variance(response[is_measured], measured[is_measured]))
        return torch.stack(losses).mean()


def _unexplained_variance(response: torch.Tensor, measured: torch.Tensor) -> torch.Tensor:
    """Share of variance after the best scale and offset, 1 - r²; 1 + r² for a negative r, which has a gradient."""
    response, measured = response - response.mean(), measured - measured.mean()
    norm = ((response.square().sum() + 1e-9) * (measured.square().sum() + 1e-9)).sqrt()
    r = (response * measured).sum() / norm
    return 1 - r * r.abs()


def activity_penalty(weight: float = 0.1, *, low: float = 0.03, high: float = 2.0) -> Penalty:
    """Penalty on cell types that are silent or saturated, which acts on their biases alone.

    Parameters
    ----------
    weight
        Factor of the penalty.
    low, high
        Limits of the mean rectified response of a type, a.u., between which there is no penalty.

    Returns
    -------
    Penalty
        Its gradient is that of ``weight * sum((m - limit)^2)`` over types with a mean response m outside the limits, as
        if a bias changed the mean response of its own type only, and that one to one: a silent cell has no gradient
        otherwise. Its value is 0 where no type is penalised.

    Examples
    --------
    >>> from flyxr.engine.sparse import TorchParameters
    >>> bias = torch.zeros(1, 1, requires_grad=True)
    >>> activity_penalty()({"Mi1": torch.zeros(1, 1, 7)}, TorchParameters(bias, bias, bias)).backward()
    >>> bool(bias.grad < 0)  # descent raises the bias
    True
    """

    def penalty(responses: Tensors, parameters: TorchParameters) -> torch.Tensor:
        with torch.no_grad():
            means = torch.stack([values.relu().nanmean() for values in responses.values()])
        excess = (means - high).relu() - (low - means).relu()
        slope = 2 * weight * excess
        bias = parameters.bias[0]
        return (slope * (bias - bias.detach())).sum() + weight * excess.square().sum()

    return penalty


def parameter_penalty(reference: xr.Dataset, weight: float = 1e-3) -> Penalty:
    """Squared distance of log synapse strengths from those of one model.

    Parameters
    ----------
    reference
        An ensemble with one model.
    weight
        Factor of the mean squared distance.

    Examples
    --------
    >>> import flyxr as fx
    >>> penalty = parameter_penalty(fx.sample_ensemble(1, seed=0))
    """
    values = np.atleast_2d(reference["synapse_strength"].values)
    if len(values) != 1:
        raise InputError(Problem(f"expected one reference model, got {len(values)}", "select one with .isel(model=0)"))
    floor = 1e-9
    logs = torch.log(torch.as_tensor(values, dtype=torch.float32).clamp(min=floor))

    def penalty(responses: Tensors, parameters: TorchParameters) -> torch.Tensor:
        return (
            weight
            * (parameters.synapse_strength.clamp(min=floor).log() - logs.to(parameters.bias.device)).square().mean()
        )

    return penalty


def describe(loss: Any) -> str:
    """Name of a loss or penalty for the attributes of an ensemble.

    Examples
    --------
    >>> describe(flow_loss())
    'FlowLoss'
    """
    name = getattr(loss, "__qualname__", type(loss).__name__)
    return str(name).split(".")[0]
