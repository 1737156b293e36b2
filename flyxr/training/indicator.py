"""The calcium indicator of :func:`flyxr.tuning.calcium` for tensors."""

from __future__ import annotations

import functools
import math

import torch


@functools.lru_cache(maxsize=8)
def calcium_matrix(n_frames: int, rise: float, decay: float, dt: float) -> torch.Tensor:
    """Matrix (frame, frame) that filters a signal, relative to its first frame, like :func:`flyxr.tuning.calcium`.

    Two first-order low-pass filters in a row have an impulse response proportional to exp(-t/decay) - exp(-t/rise).

    Examples
    --------
    >>> bool((calcium_matrix(200, 0.05, 0.2, 0.02).sum(1)[-1] - 1).abs() < 1e-5)
    True
    """
    lag = torch.arange(n_frames)[:, None] - torch.arange(n_frames)
    filters = []
    for time_constant in (rise, decay):
        kept = math.exp(-dt / time_constant)
        filters.append(torch.where(lag >= 0, (1 - kept) * kept ** lag.clamp(min=0).double(), 0))
    return (filters[0] @ filters[1]).float()
