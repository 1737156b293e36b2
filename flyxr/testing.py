"""Makers of small data for tests and examples."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from flyxr import connectome, hexgrid, schema
from flyxr.engine.base import Network, Parameters


def tiny_connectome(
    extent: int = 1, *, edges: list[tuple[str, str, int, list[tuple[int, int]]]] | None = None
) -> xr.Dataset:
    """Make a connectome of three cell types: R inhibits L, L excites T from three columns, and T inhibits L.

    Parameters
    ----------
    extent
        Radius of the lattice.
    edges
        Connections to use instead: source, target, sign, and offsets (du, dv), each of two synapses.

    Examples
    --------
    >>> tiny_connectome().cell_type.values.tolist()
    ['R', 'L', 'T']
    """
    if edges is None:
        edges = [
            ("R", "L", -1, [(0, 0)]),
            ("L", "T", 1, [(0, 0), (1, 0), (0, -1)]),
            ("T", "L", -1, [(0, 0)]),
        ]
    spec: dict[str, Any] = {
        "nodes": [{"name": name, "pattern": ["stride", [1, 1]]} for name in "RLT"],
        "edges": [
            {"src": source, "tar": target, "alpha": sign, "offsets": [[offset, 2] for offset in offsets]}
            for source, target, sign, offsets in edges
        ],
        "input_units": ["R"],
        "output_units": ["T"],
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tiny.json"
        path.write_text(json.dumps(spec))
        return connectome.open_connectome(path, extent=extent, n_syn_fill=0)


def tiny_network(extent: int = 1, n_models: int = 1, seed: int = 0) -> tuple[Network, Parameters]:
    """Compile :func:`tiny_connectome`, and draw parameters at random.

    Examples
    --------
    >>> network, parameters = tiny_network()
    >>> network.n_cells, parameters.synapse_strength.shape
    (21, (1, 3))
    """
    network = connectome.compile_network(tiny_connectome(extent))
    rng = np.random.default_rng(seed)
    n_types, n_pairs = network.cell_type.max() + 1, len(network.pairs)
    parameters = Parameters(
        bias=rng.normal(0.5, 0.1, (n_models, n_types)).astype(np.float32),
        time_constant=rng.uniform(0.02, 0.1, (n_models, n_types)).astype(np.float32),
        synapse_strength=rng.uniform(0.05, 0.2, (n_models, n_pairs)).astype(np.float32),
    )
    return network, parameters


def random_rendering(
    extent: int = 2, n_samples: int = 2, n_frames: int = 6, *, dt: float = 0.01, seed: int = 0
) -> xr.Dataset:
    """Make a rendering whose luminance is drawn uniformly from 0 to 1.

    Examples
    --------
    >>> dict(random_rendering(extent=2).luminance.sizes)
    {'sample': 2, 'time': 6, 'column': 19}
    """
    shape = n_samples, n_frames, hexgrid.n_columns(extent)
    luminance = np.random.default_rng(seed).random(shape, dtype=np.float32)
    return xr.Dataset(
        {"luminance": (("sample", "time", "column"), luminance)},
        {"sample": np.arange(n_samples), "time": schema.time_coord(n_frames, dt), **hexgrid.column_coords(extent)},
    )
