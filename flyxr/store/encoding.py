"""Encoding of variables on disk: chunks, shards, compression and rounding."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

SHARD_BYTES = 256 * 2**20
"""Largest shard for data without chunks of their own, bytes."""
CHUNK_BYTES = 16 * 2**20
"""Largest chunk of movies and renderings, bytes."""
TYPE_BYTES = 2**20
"""Smallest cell type with chunks of its own, bytes; smaller ones share a chunk."""
SHARED_CHUNK_BYTES = 4 * 2**20
"""Size of a chunk that cell types share, bytes."""
WHOLE_BLOCK_BYTES = 16 * 2**20
"""Largest block of small cell types that is a single chunk, bytes, such as one of central cells."""
READ_BYTES = 16 * 2**20
"""Largest part of a shard that a task reads at once where cell types share chunks, bytes."""


def types_per_chunk(n_types: int, type_bytes: int) -> int:
    """Number of cell types that share a chunk of a block of ``n_types`` cell types of ``type_bytes`` each.

    Reading a chunk takes some ms, however small it is, so that small cell types share one.

    Examples
    --------
    >>> types_per_chunk(65, 24 * 485 * 721 * 4)  # all columns
    1
    >>> types_per_chunk(65, 24 * 485 * 4)  # the central column
    65
    """
    if type_bytes >= TYPE_BYTES:
        return 1
    if type_bytes * n_types <= WHOLE_BLOCK_BYTES:
        return n_types
    return _balanced(n_types, type_bytes, SHARED_CHUNK_BYTES)


def types_per_chunk_before(n_types: int, type_bytes: int) -> int:
    """Number of cell types that share a chunk in sweeps whose ledger does not state it, before version 0.2.

    Examples
    --------
    >>> types_per_chunk_before(65, 64 * 485 * 4)
    9
    """
    return _balanced(n_types, type_bytes, TYPE_BYTES)


def _balanced(n_types: int, type_bytes: int, chunk_bytes: int) -> int:
    """Number of cell types in chunks of about ``chunk_bytes``, as equal as possible."""
    n_chunks = max(1, min(n_types, math.ceil(type_bytes * n_types / chunk_bytes)))
    return math.ceil(n_types / n_chunks)


def encoding_of(
    variable: xr.Variable,
    block: dict[str, int] | None = None,
    *,
    n_chunk_types: int | None = None,
    shard_single_chunks: bool = False,
) -> dict[str, Any]:
    """Chunks, shards and compression of a variable.

    Parameters
    ----------
    variable
        The variable to write.
    block
        Lengths of a block by dim; a dim that it lacks is not split. By default the chunks of the variable decide.
    n_chunk_types
        Number of cell types in a chunk of responses; by default that of :func:`types_per_chunk`.
    shard_single_chunks
        Whether a block of a single chunk is a shard, too, as before version 0.2. Reading it takes one more copy.
    """
    from zarr.codecs import BloscCodec, Crc32cCodec

    if variable.dtype.kind in "OUT":
        return {"chunks": tuple(max(1, length) for length in variable.shape)}
    sizes = dict(zip(map(str, variable.dims), variable.shape, strict=True))
    lengths = {dim: max(1, length) for dim, length in sizes.items()}
    itemsize = variable.dtype.itemsize
    max_bytes = SHARD_BYTES if "cell_type" in sizes else CHUNK_BYTES
    if block is not None:
        lengths |= {dim: length for dim, length in block.items() if dim in lengths}
    elif variable.chunks is not None:
        lengths = {str(dim): max(chunks) for dim, chunks in zip(variable.dims, variable.chunks, strict=True)}
    for dim in ("model", "sample", "time"):
        if block is None and dim in lengths and "time" in sizes:
            slice_bytes = math.prod(length for name, length in lengths.items() if name != dim) * itemsize
            max_length = 1 if dim == "model" else max_bytes // max(slice_bytes, 1)
            lengths[dim] = max(1, min(lengths[dim], max_length))
    encoding: dict[str, Any] = {
        "chunks": tuple(lengths.values()),
        "compressors": (BloscCodec(cname="lz4", clevel=1, shuffle="shuffle"), Crc32cCodec()),
    }
    if {"cell_type", "time"} <= set(sizes) and lengths["cell_type"] > 1:
        type_bytes = math.prod(lengths.values()) // lengths["cell_type"] * itemsize
        n_types = n_chunk_types or types_per_chunk(lengths["cell_type"], type_bytes)
        n_chunks = math.ceil(lengths["cell_type"] / n_types)
        encoding["chunks"] = tuple({**lengths, "cell_type": n_types}.values())
        if n_chunks > 1 or shard_single_chunks:
            encoding["shards"] = tuple({**lengths, "cell_type": n_types * n_chunks}.values())
    if variable.dtype.kind == "f":
        encoding["_FillValue"] = np.nan
    return encoding


def round_mantissa(values: NDArray[np.float32], bits: int) -> NDArray[np.float32]:
    """Round float32 to a number of mantissa bits, half to even; the dropped bits are 0 and compress well.

    The relative error is at most ``2 ** -(bits + 1)``. NaN and infinity stay as they are.

    Examples
    --------
    >>> round_mantissa(np.array([1.0, 1.0 + 2**-8, np.nan], np.float32), 7)
    array([ 1.,  1., nan], dtype=float32)
    """
    from numcodecs import BitRound

    values = np.asarray(values, dtype=np.float32)
    rounded = BitRound(bits).encode(values).view(np.float32)
    return np.where(np.isfinite(values), rounded, values)  # BitRound turns some NaN into numbers
