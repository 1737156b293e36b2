"""How variables lie on disk: chunks, shards and compression."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

SHARD_BYTES = 256 * 2**20
"""Largest shard that is chosen for data without chunks of their own, byte."""
CHUNK_BYTES = 16 * 2**20
"""Largest chunk of movies and renderings, byte."""
TYPE_CHUNK_BYTES = 2**20
"""Chunk of responses that cell types share where one alone would be smaller: below, reading it takes no less time."""


def encoding_of(variable: xr.Variable, given: dict[str, int] | None = None) -> dict[str, Any]:
    """Chunks, shards and compression of a variable; lengths of a block may be given, and those left out are whole."""
    from zarr.codecs import BloscCodec, Crc32cCodec

    if variable.dtype.kind in "OUT":
        return {"chunks": tuple(max(1, length) for length in variable.shape)}
    sizes = dict(zip(map(str, variable.dims), variable.shape, strict=True))
    block = {dim: max(1, length) for dim, length in sizes.items()}
    limit = SHARD_BYTES if "cell_type" in sizes else CHUNK_BYTES
    if given is not None:
        block |= {dim: length for dim, length in given.items() if dim in block}
    elif variable.chunks is not None:
        block = {str(dim): max(chunks) for dim, chunks in zip(variable.dims, variable.chunks, strict=True)}
    for dim in ("model", "sample", "time"):
        if given is None and dim in block and "time" in sizes:
            others = math.prod(length for name, length in block.items() if name != dim) * variable.dtype.itemsize
            block[dim] = max(1, min(block[dim], 1 if dim == "model" else limit // max(others, 1)))
    encoding: dict[str, Any] = {
        "chunks": tuple(block.values()),
        "compressors": (BloscCodec(cname="lz4", clevel=1, shuffle="shuffle"), Crc32cCodec()),
    }
    if {"cell_type", "time"} <= set(sizes) and block["cell_type"] > 1:
        of_one_type = math.prod(block.values()) // block["cell_type"] * variable.dtype.itemsize
        n_chunks = min(block["cell_type"], math.ceil(of_one_type * block["cell_type"] / TYPE_CHUNK_BYTES))
        n_types = math.ceil(block["cell_type"] / n_chunks)
        n_chunks = math.ceil(block["cell_type"] / n_types)
        encoding["chunks"] = tuple({**block, "cell_type": n_types}.values())
        encoding["shards"] = tuple({**block, "cell_type": n_types * n_chunks}.values())
    if variable.dtype.kind == "f":
        encoding["_FillValue"] = np.nan
    return encoding


def round_mantissa(values: NDArray[np.float32], bits: int) -> NDArray[np.float32]:
    """Round float32 to so many bits of the mantissa, half to even; what is dropped is 0 and compresses well.

    The relative error is at most ``2 ** -(bits + 1)``. NaN stays NaN.

    Examples
    --------
    >>> round_mantissa(np.array([1.0, 1.0 + 2**-8, np.nan], np.float32), 7)
    array([ 1.,  1., nan], dtype=float32)
    """
    drop = np.uint32(23 - bits)
    raw = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    one = np.uint32(1)
    rounded = ((raw + ((raw >> drop) & one) + (one << (drop - one)) - one) >> drop) << drop
    return np.where(np.isfinite(values), rounded.view(np.float32), values)
