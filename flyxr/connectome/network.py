"""Compilation of a connectome at an extent: every cell, and every edge between two cells."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from flyxr import hexgrid, schema
from flyxr.connectome.reading import connectome_hash
from flyxr.engine.base import Network, Stencil
from flyxr.optics import EXTENT

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

compiled_networks: dict[tuple[str, int], Network] = {}
"""Networks that this process has compiled, by the hash and extent of their connectome."""
_compiling = threading.Lock()


class Tables(NamedTuple):
    """A connectome as small plain arrays with its hash, which tasks carry to workers.

    ``digest`` is the hash, ``names`` are the cell types. ``stride`` (cell_type, axis) and ``is_input`` (cell_type,)
    describe them. ``source`` and ``target`` (pair,) are positions of cell types, ``sign`` is (pair,). ``synapse_pair``
    (synapse,), ``offset`` (synapse, 2) and ``n_synapses`` (synapse,) describe the columnar offsets.
    """

    digest: str
    names: tuple[str, ...]
    extent: int
    stride: NDArray[np.int64]
    is_input: NDArray[np.bool_]
    source: NDArray[np.int64]
    target: NDArray[np.int64]
    sign: NDArray[np.int8]
    synapse_pair: NDArray[np.int64]
    offset: NDArray[np.int64]
    n_synapses: NDArray[np.float64]


def tables(connectome: xr.Dataset) -> Tables:
    """Convert a connectome to plain arrays.

    Examples
    --------
    >>> import flyxr as fx
    >>> tables(fx.open_connectome()).source.shape
    (605,)
    """
    connectome = schema.in_memory(schema.validate(connectome, "connectome"))
    types = pd.Index(connectome["cell_type"].values)
    return Tables(
        digest=connectome_hash(connectome),
        names=tuple(connectome["cell_type"].values.tolist()),
        extent=int(connectome.attrs.get("extent", EXTENT)),
        stride=connectome["stride"].values,
        is_input=connectome["role"].values == "input",
        source=types.get_indexer(connectome["source"].values),
        target=types.get_indexer(connectome["target"].values),
        sign=connectome["sign"].values,
        synapse_pair=connectome["synapse_pair"].values,
        offset=np.stack([connectome["du"].values, connectome["dv"].values], axis=1),
        n_synapses=connectome["n_synapses"].values,
    )


def compile_network(connectome: xr.Dataset | Tables) -> Network:
    """Enumerate the cells of a connectome on its lattice, and the edges between them.

    A process compiles each connectome once.

    Parameters
    ----------
    connectome
        A connectome as a Dataset or as plain arrays.

    Returns
    -------
    Network
        Cells are in the order of flyvis, by type, then u, then v. Edges are sorted by offset, then by source.

    Examples
    --------
    >>> import flyxr as fx
    >>> network = compile_network(fx.open_connectome(extent=15))
    >>> network.n_cells, network.source.size, network.pairs.size, network.synapses.size
    (45669, 1513231, 604, 2355)
    """
    plain = connectome if isinstance(connectome, Tables) else tables(connectome)
    with _compiling:
        key = (plain.digest, plain.extent)
        if key not in compiled_networks:
            compiled_networks[key] = _build_network(plain)
        return compiled_networks[key]


def cell_presence(connectome: xr.Dataset | Tables) -> NDArray[np.bool_]:
    """Mask (cell_type, column) that is true where the type has a cell in the column.

    Examples
    --------
    >>> import flyxr as fx
    >>> int(cell_presence(fx.open_connectome(extent=15)).sum())
    45669
    """
    plain = connectome if isinstance(connectome, Tables) else tables(connectome)
    u, v = hexgrid.columns(plain.extent)
    on_u_stride, on_v_stride = (uv % plain.stride[:, axis, None] == 0 for axis, uv in enumerate((u, v)))
    return np.asarray(on_u_stride & on_v_stride)


def cell_index(connectome: xr.Dataset | Tables) -> NDArray[np.int32]:
    """Position (cell_type, column) of each cell in the order of flyvis, -1 where the type has no cell.

    Examples
    --------
    >>> import flyxr as fx
    >>> int(cell_index(fx.open_connectome(extent=15)).max())
    45668
    """
    is_present = cell_presence(connectome)
    index = np.full(is_present.shape, -1, dtype=np.int32)
    index[is_present] = np.arange(is_present.sum(), dtype=np.int32)
    return index


def _build_network(plain: Tables) -> Network:
    u, v = hexgrid.columns(plain.extent)
    cell = cell_index(plain)
    offsets, offset_index = np.unique(plain.offset, axis=0, return_inverse=True)
    target_column = hexgrid.column_index(u + offsets[:, :1], v + offsets[:, 1:], plain.extent)[offset_index.ravel()]
    source = cell[plain.source[plain.synapse_pair]]  # (synapse, column)
    target = np.take_along_axis(cell[plain.target[plain.synapse_pair]], target_column, axis=1)
    is_connected = (source >= 0) & (target >= 0) & (target_column >= 0)
    n_edges = is_connected.sum(axis=1)
    synapses = np.flatnonzero(n_edges)
    pairs, pair = np.unique(plain.synapse_pair[synapses], return_inverse=True)
    signed_synapses = (plain.sign[plain.synapse_pair] * plain.n_synapses).astype(np.float32)
    cell_type, column = np.nonzero(cell >= 0)
    return Network(
        cell_type=cell_type.astype(np.int32),
        column=column.astype(np.int32),
        is_input=plain.is_input[cell_type],
        source=source[is_connected],
        target=target[is_connected],
        pair=np.repeat(pair.astype(np.int32), n_edges[synapses]),
        signed_synapses=np.repeat(signed_synapses[synapses], n_edges[synapses]),
        pairs=pairs,
        synapses=synapses,
        stencil=Stencil(
            source=plain.source[plain.synapse_pair[synapses]],
            target=plain.target[plain.synapse_pair[synapses]],
            offset=plain.offset[synapses],
            pair=pair,
            signed_synapses=signed_synapses[synapses],
        ),
        u=u,
        v=v,
    )


def realised(connectome: xr.Dataset) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find the pairs and the columnar offsets that connect at least two cells at the extent.

    Returns
    -------
    pairs, synapses : int
        Their positions, in the order in which flyvis stores the parameters of a model.

    Examples
    --------
    >>> import flyxr as fx
    >>> pairs, synapses = realised(fx.open_connectome())
    >>> pairs.size, synapses.size
    (604, 2355)
    """
    network = compile_network(connectome)
    return network.pairs, network.synapses


def mean_synapses(connectome: xr.Dataset) -> NDArray[np.float64]:
    """Mean number of synapses (pair,) over the edges of each realised pair.

    It depends on the extent, because offsets that lead out of the lattice make no edge.

    Examples
    --------
    >>> import flyxr as fx
    >>> float(mean_synapses(fx.open_connectome())[0])
    40.0
    """
    network = compile_network(connectome)
    total = np.bincount(network.pair, np.abs(network.signed_synapses))
    return np.asarray(total / np.bincount(network.pair), dtype=np.float64)
