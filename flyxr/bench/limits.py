"""Hardware limits: the minimum time of a case, from its bytes and operations."""

from __future__ import annotations

import math
from typing import Any

N_EDGES, N_CELLS, N_RECORDED = 1_513_231, 45_669, 65 * 721
"""Edges and cells of the network at extent 15, and values per recorded frame, including absent cells."""


def simulation_limits(
    hardware: dict[str, Any], n_models: int, n_samples: int, n_steps: int, n_frames: int
) -> dict[str, float]:
    """Limits of a simulation that records all cells.

    Parameters
    ----------
    hardware
        Measured ``bandwidth``, bytes/s, and ``flops``, 1/s; ``csr_step``, s, by number of samples.
    n_models, n_samples
        Number of models and samples.
    n_steps, n_frames
        Number of integration steps, and of recorded frames.

    Returns
    -------
    dict
        ``operations`` and ``output_bytes`` with their minimum seconds; ``least``, the larger of the two, which a
        stencil could reach since its weights stay in the cache; ``least_csr``, the minimum if each step reads a sparse
        matrix of the network; and ``csr_products``, the measured time of torch's products with that matrix alone.

    Examples
    --------
    >>> limits = simulation_limits({"bandwidth": 20e9, "flops": 200e9, "csr_step": {"1": 0.002}}, 50, 1, 120, 20)
    >>> {name: round(value, 3) for name, value in limits.items() if not name.endswith(("bytes", "operations"))}
    {'operations_s': 0.091, 'output_s': 0.009, 'least': 0.091, 'csr_s': 3.687, 'least_csr': 3.696, 'csr_products': 12.0}
    """
    operations = 2 * N_EDGES * n_steps * n_samples * n_models
    output_bytes = 4 * N_RECORDED * n_frames * n_samples * n_models
    csr_bytes = (8 * N_EDGES + 4 * (N_CELLS + 1)) * n_steps * n_models
    operations_s, output_s = operations / hardware["flops"], output_bytes / hardware["bandwidth"]
    csr_s = csr_bytes / hardware["bandwidth"]
    return {
        "operations": operations,
        "operations_s": operations_s,
        "output_bytes": output_bytes,
        "output_s": output_s,
        "least": max(operations_s, output_s),
        "csr_bytes": csr_bytes,
        "csr_s": csr_s,
        "least_csr": max(operations_s, csr_s + output_s),
        "csr_products": hardware["csr_step"].get(str(n_samples), math.nan) * n_steps * n_models,
    }


def rendering_limits(
    hardware: dict[str, Any], shape: tuple[int, int, int, int], n_columns: int = 721
) -> dict[str, float]:
    """Limit of a rendering that reads each frame (sample, frame, y, x) once and writes each column once.

    Examples
    --------
    >>> rendering_limits({"bandwidth": 20e9}, (1, 10, 720, 1280))["bytes"]
    36892840
    """
    n_bytes = 4 * shape[0] * shape[1] * (shape[2] * shape[3] + n_columns)
    return {"bytes": n_bytes, "least": n_bytes / hardware["bandwidth"]}
