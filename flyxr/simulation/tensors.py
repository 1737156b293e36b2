"""An ensemble as tensors, whose responses :mod:`torch.autograd` differentiates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from flyxr.connectome import compile_network
from flyxr.engine import base
from flyxr.simulation.checks import engine_parameters

if TYPE_CHECKING:
    import torch
    import xarray as xr
    from numpy.typing import NDArray

    from flyxr.engine.sparse import TorchParameters, TorchResult


@dataclass(frozen=True)
class EnsembleTensors:
    """Models of an ensemble with their parameters as tensors on one device.

    Attributes
    ----------
    network
        The compiled connectome.
    parameters
        ``bias`` and ``time_constant`` (model, cell_type), s, and ``synapse_strength`` (model, pair), in the order of
        the network.
    dt
        Integration step, s.
    """

    network: base.Network
    parameters: TorchParameters
    dt: float

    @property
    def device(self) -> torch.device:
        """Device of all tensors."""
        return self.parameters.bias.device

    def select(self, model: int) -> EnsembleTensors:
        """One model by position; dims are kept."""
        from flyxr.engine.sparse import TorchParameters

        one_model = (values[model : model + 1] for values in self.parameters)
        return EnsembleTensors(self.network, TorchParameters(*one_model), self.dt)

    def respond(self, luminance: torch.Tensor, **options: Any) -> TorchResult:
        """Responses to a luminance ((model,) sample, frame, column), with gradients.

        Parameters
        ----------
        luminance
            One integration step per frame.
        **options
            ``state``, ``cells``, ``frames`` and ``checkpoint`` of :func:`flyxr.engine.sparse.respond`.

        Returns
        -------
        TorchResult
            Responses (model, sample, recorded frame, recorded cell) and the last state (model, sample, cell).
        """
        from flyxr.engine.sparse import respond

        return respond(self.network, self.parameters, luminance, self.dt, **options)

    def steady_state(self) -> torch.Tensor:
        """State (model, sample 1, cell) after one second of grey from rest, without gradients."""
        import torch

        grey = torch.as_tensor(base.grey(self.network.n_columns, self.dt), device=self.device)
        with torch.no_grad():
            return self.respond(grey, frames=np.arange(0)).state


def ensemble_tensors(
    ensemble: xr.Dataset, connectome: xr.Dataset, dt: float, *, device: str = "cpu"
) -> EnsembleTensors:
    """Convert the parameters of an ensemble to float32 tensors, matched to the connectome by label.

    Parameters
    ----------
    ensemble
        Parameters of models, in memory.
    connectome
        The connectome of the models.
    dt
        Integration step, s.
    device
        ``"cpu"``, ``"cuda"``, ``"cuda:1"``, … .

    Returns
    -------
    EnsembleTensors
        For gradients with respect to parameters, set ``requires_grad`` on its ``parameters``.

    Examples
    --------
    >>> import flyxr as fx
    >>> import torch
    >>> connectome = fx.open_connectome(extent=2)
    >>> models = ensemble_tensors(fx.sample_ensemble(2, seed=0, connectome=connectome), connectome, dt=1 / 50)
    >>> luminance = torch.full((1, 3, 19), 0.5, requires_grad=True)
    >>> responses = models.select(0).respond(luminance, state=models.select(0).steady_state()).responses
    >>> responses.shape
    torch.Size([1, 1, 3, 1203])
    >>> responses.sum().backward()
    >>> luminance.grad.shape
    torch.Size([1, 3, 19])
    """
    import torch

    from flyxr.engine.sparse import TorchParameters

    def as_tensor(values: NDArray[np.floating]) -> torch.Tensor:
        return torch.as_tensor(values, dtype=torch.float32, device=device)

    parameters = TorchParameters(*map(as_tensor, engine_parameters(ensemble, connectome)))
    return EnsembleTensors(compile_network(connectome), parameters, dt)
