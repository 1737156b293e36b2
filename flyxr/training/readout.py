"""A readout that decodes optic flow from responses, the same in all columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from flyxr import hexgrid

if TYPE_CHECKING:
    from collections.abc import Mapping

RIDGE = 1e-2
"""Penalty of the ridge regression on standardised features."""
MIN_FEATURE_SCALE = 0.01
START_DIVISOR = -3.0
"""Softplus argument of the divisor before training, so that it is close to 1."""


class FlowReadout(nn.Module):
    """Linear in rectified responses, averaged over columns, divided by 1 + softplus of another linear function.

    Parameters
    ----------
    cell_types
        Types that it reads.
    extent
        Radius of the lattice.
    radius
        Radius of the average over columns; columns closer to the rim are not decoded.
    """

    average: torch.Tensor
    inner_columns: torch.Tensor
    feature_scale: torch.Tensor
    flow_scale: torch.Tensor

    def __init__(self, cell_types: tuple[str, ...], extent: int, radius: int) -> None:
        super().__init__()
        self.cell_types = cell_types
        u, v = hexgrid.columns(extent)
        size = np.maximum(np.maximum(abs(u), abs(v)), abs(u + v))
        inner = np.flatnonzero(size <= max(extent - radius, 0))
        du, dv = u[inner, None] - u, v[inner, None] - v
        near = (np.maximum(np.maximum(abs(du), abs(dv)), abs(du + dv)) <= radius).astype(np.float32)
        self.register_buffer("average", torch.as_tensor(near / near.sum(1, keepdims=True)).T.contiguous())
        self.register_buffer("inner_columns", torch.as_tensor(inner))
        n_types = len(cell_types)
        # features and flow in units of their deviations at the start of training, so that one learning rate fits all
        self.register_buffer("feature_scale", torch.ones(n_types))
        self.register_buffer("flow_scale", torch.ones(()))
        self.weight, self.offset = nn.Parameter(torch.zeros(n_types, 2)), nn.Parameter(torch.zeros(2))
        self.divisor = nn.Parameter(torch.zeros(n_types, 1))
        self.divisor_offset = nn.Parameter(torch.full((1,), START_DIVISOR))

    def inner(self, values: torch.Tensor) -> torch.Tensor:
        """Values (sample, time, column, ...) in the columns that are decoded."""
        return values.index_select(2, self.inner_columns)

    def features(self, responses: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Averages (sample, time, column, cell_type) of rectified responses."""
        stacked = torch.stack([responses[name] for name in self.cell_types], dim=2).relu()
        return (stacked @ self.average).transpose(2, 3) / self.feature_scale

    def forward(self, responses: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Decode the flow (sample, time, inner column, axis), columns per second."""
        return self.decode(self.features(responses))

    def decode(self, features: torch.Tensor) -> torch.Tensor:
        """Decode the flow (..., axis) from features (..., cell_type)."""
        divisor = 1 + nn.functional.softplus(features @ self.divisor + self.divisor_offset)
        return self.flow_scale * (features @ self.weight + self.offset) / divisor

    @torch.no_grad()
    def fit(self, responses: Mapping[str, torch.Tensor], flow: torch.Tensor) -> None:
        """Fit weight and offset to a flow in the inner columns by ridge regression."""
        self.feature_scale.fill_(1.0)
        features = self.features(responses).flatten(0, 2).double()
        targets = flow.flatten(0, 2).double()
        self.feature_scale.copy_(features.std(0).clamp(min=MIN_FEATURE_SCALE))
        self.flow_scale.copy_(targets.std())
        features, targets = features / self.feature_scale, targets / self.flow_scale
        mean, target_mean = features.mean(0), targets.mean(0)
        centred = features - mean
        gram = centred.T @ centred / len(features)
        gram += RIDGE * torch.eye(len(gram), dtype=gram.dtype)
        divisor = 1 + float(np.log1p(np.exp(START_DIVISOR)))
        weight = torch.linalg.solve(gram, centred.T @ (targets - target_mean) / len(features)) * divisor
        self.weight.copy_(weight)
        self.offset.copy_(target_mean * divisor - mean @ weight)
        self.divisor.zero_()
        self.divisor_offset.fill_(START_DIVISOR)
