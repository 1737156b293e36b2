"""What the hardware allows: the least seconds that a case could take, from its bytes and operations."""

from __future__ import annotations

import math
from typing import Any

N_EDGES, N_CELLS, N_RECORDED = 1_513_231, 45_669, 65 * 721
"""Edges and cells of the network at extent 15, and values of a recorded frame, absent cells among them."""


def of_simulation(
    hardware: dict[str, Any], n_models: int, n_samples: int, n_steps: int, n_frames: int
) -> dict[str, float]:
    """Limits of a simulation of which all cells are recorded.

    Parameters
    ----------
    hardware
        ``bandwidth``, byte/s, and ``flops``, 1/s, as measured; ``csr_step``, s, by number of samples.
    n_models, n_samples
        What is simulated.
    n_steps, n_frames
        Integration steps, and how many of them are recorded.

    Returns
    -------
    dict
        ``operations`` and ``output_bytes`` with the seconds they take at least; ``least``, the larger of the two,
        which a stencil could reach, since its weights stay in the cache; ``least_csr``, where a sparse matrix of
        the network is read at each step instead; and ``csr_products``, what torch's products with that matrix took
        when nothing else was done.

    Examples
    --------
    >>> limits = of_simulation({"bandwidth": 20e9, "flops": 200e9, "csr_step": {"1": 0.002}}, 50, 1, 120, 20)
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


def of_rendering(hardware: dict[str, Any], shape: tuple[int, int, int, int], n_columns: int = 721) -> dict[str, float]:
    """Limit of a rendering: frames (sample, frame, y, x) are read once, columns written once.

    Examples
    --------
    >>> of_rendering({"bandwidth": 20e9}, (1, 10, 720, 1280))["bytes"]
    36892840
    """
    n_bytes = 4 * shape[0] * shape[1] * (shape[2] * shape[3] + n_columns)
    return {"bytes": n_bytes, "least": n_bytes / hardware["bandwidth"]}
