"""Tiny networks for tests and examples."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flyxr import connectome
from flyxr.engine.base import Network, Parameters
from flyxr.stimuli import from_array

if TYPE_CHECKING:
    import xarray as xr


def tiny_connectome(
    extent: int = 1, *, edges: list[tuple[str, str, int, list[tuple[int, int]]]] | None = None
) -> xr.Dataset:
    """Connectome of three cell types: R feeds L, L feeds T from three columns, T inhibits L.

    Parameters
    ----------
    extent
        Radius of the lattice.
    edges
        Other connections in place of these: source, target, sign, offsets (du, dv), each of two synapses.

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
    """Network of :func:`tiny_connectome` with parameters drawn at random.

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


def random_movie(
    n_samples: int, n_frames: int, height: int, width: int, *, seed: int = 0, frame_rate: float = 50, **kwargs: Any
) -> xr.Dataset:
    """Movie of pixels drawn uniformly from 0 to 1; ``kwargs`` are those of :func:`flyxr.stimuli.from_array`.

    Examples
    --------
    >>> dict(random_movie(2, 3, 8, 10).luminance.sizes)
    {'sample': 2, 'time': 3, 'y': 8, 'x': 10}
    """
    frames = np.random.default_rng(seed).random((n_samples, n_frames, height, width), np.float32)
    return from_array(frames, frame_rate, **kwargs)
