"""Tiny networks, random renderings and engines for tests and examples."""

from __future__ import annotations

import json
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from flyxr import connectome, hexgrid, schema
from flyxr.engine import ENGINES, EngineRecord
from flyxr.engine.base import Network, Parameters

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flyxr.engine.base import Engine


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


@contextmanager
def registered_engine(integrate: Engine, name: str, *, is_exclusive: bool = False) -> Iterator[None]:
    """Register a function as an engine for the CPU within the context, for example one that counts its calls.

    Parameters
    ----------
    integrate
        The function, see :class:`flyxr.engine.base.Engine`. It is called in this process only.
    name
        Name of the engine.
    is_exclusive
        See :class:`flyxr.engine.EngineRecord`.

    Examples
    --------
    >>> import flyxr as fx
    >>> from flyxr.engine.reference import integrate
    >>> n_samples = []
    >>> def count_samples(network, parameters, stimulus, dt, **options):
    ...     n_samples.append(len(stimulus))
    ...     return integrate(network, parameters, stimulus, dt, **options)
    >>> models = fx.sample_ensemble(1, seed=0, connectome=tiny_connectome(extent=2))
    >>> with registered_engine(count_samples, "counting"):
    ...     responses = fx.simulate(random_rendering(n_samples=3), models, engine="counting").compute()
    >>> n_samples
    [3]
    """

    class FunctionRecord(EngineRecord):
        def load(self) -> Engine:
            return integrate

    ENGINES[name] = FunctionRecord(name, ("cpu",), 1, is_exclusive, "a function")
    try:
        yield
    finally:
        del ENGINES[name]
