"""Check the metadata of a store before zarr uses it: a store of others may declare what cannot be."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeGuard

from flyxr.errors import Problem
from flyxr.store.files import RESTORE_HINTS, StoreError, read_json

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from flyxr.store.places import Place

CODECS = ("blosc", "bytes", "crc32c", "gzip", "sharding_indexed", "transpose", "vlen-utf8", "zstd")
"""Codecs of zarr v3 that only decode numbers or text."""
MAX_DIMS = 16
MAX_CHUNK_BYTES = 2**31
"""Largest chunk that is read, bytes; :func:`flyxr.save` writes up to 256 MiB."""
MAX_CHUNKS = 2**24
"""Largest number of chunks of an array."""
MAX_LABELS = 2**24
"""Largest number of labels along a dim, which are loaded on opening."""
_ITEM_BYTES = {"bool": 1, "int8": 1, "uint8": 1, "int16": 2, "uint16": 2, "float16": 2, "complex128": 16}
_ITEM_BYTES |= {"int32": 4, "uint32": 4, "float32": 4, "numpy.datetime64": 8, "numpy.timedelta64": 8, "string": 16}
_ITEM_BYTES |= {"int64": 8, "uint64": 8, "float64": 8, "complex64": 8, "variable_length_bytes": 16}


def check_metadata(path: Path, names: Iterable[str] | None = None, hints: tuple[str, str] = RESTORE_HINTS) -> None:
    """Check the metadata of arrays of a store, by default of all and of the group.

    Raises
    ------
    StoreError
        A ValueError. If a file cannot be read, or declares sizes that cannot be or codecs of others. The message names
        the file; ``hints`` are its ways out, in Python and on the command line.
    """
    if names is None:
        read_json(path / "zarr.json")
        arrays = sorted(path.glob("*/zarr.json"))
    else:
        arrays = [path / name / "zarr.json" for name in names]
    for file in arrays:
        metadata = read_json(file, hints)
        if metadata.get("node_type") == "array":
            check_array(metadata, file, hints)


def check_array(metadata: dict[str, Any], file: Place, hints: tuple[str, str] = RESTORE_HINTS) -> None:
    """Check the metadata of an array, as :func:`check_metadata`."""
    problem = _array_problem(metadata)
    if problem:
        raise StoreError(Problem(f"{file}: {problem}", *hints))


def _array_problem(metadata: dict[str, Any]) -> str:
    """What cannot be in the metadata of an array; empty if it can be."""
    shape, grid, dtype = (metadata.get(name) for name in ("shape", "chunk_grid", "data_type"))
    configuration = grid.get("configuration") if isinstance(grid, dict) else None
    chunks = configuration.get("chunk_shape") if isinstance(configuration, dict) else None
    if not (_are_lengths(shape, 0) and _are_lengths(chunks, 1) and len(shape) == len(chunks) <= MAX_DIMS):
        return f"expected a shape and as many lengths of chunks, got {_shorten(shape)} and {_shorten(chunks)}"
    item_bytes = _item_bytes(dtype)
    if item_bytes is None:
        return f"expected numbers, times or text, got the data type {_shorten(dtype)}"
    n_chunks = math.prod(-(-length // chunk) for length, chunk in zip(shape, chunks, strict=True))
    if n_chunks > MAX_CHUNKS:
        return f"expected at most {MAX_CHUNKS:,} chunks, got {n_chunks:,} by the shape {_shorten(shape)}"
    if len(shape) < 2 and math.prod(shape) > MAX_LABELS:
        return f"expected at most {MAX_LABELS:,} labels, got {math.prod(shape):,}"
    problem = _codec_problem(metadata.get("codecs"), chunks)
    if problem:
        return problem
    inner = _innermost_chunk(metadata["codecs"], chunks)
    if math.prod(inner) * item_bytes > MAX_CHUNK_BYTES:
        return f"expected chunks of at most {MAX_CHUNK_BYTES:,} bytes, got the lengths {_shorten(inner)}"
    return ""


def _innermost_chunk(codecs: list[Any], chunks: list[int]) -> list[int]:
    """Lengths of what is read at once: a chunk within a shard, since a shard is as large as a block of a sweep."""
    for codec in codecs:
        if isinstance(codec, dict) and codec.get("name") == "sharding_indexed":
            return _innermost_chunk(codec["configuration"].get("codecs", []), codec["configuration"]["chunk_shape"])
    return chunks


def _are_lengths(lengths: Any, least: int) -> TypeGuard[list[int]]:
    return isinstance(lengths, list) and all(type(length) is int and least <= length < 2**62 for length in lengths)


def _item_bytes(dtype: Any) -> int | None:
    """Bytes of an item; None for a data type that is not known."""
    name = dtype.get("name") if isinstance(dtype, dict) else dtype
    if name in ("fixed_length_utf32", "null_terminated_bytes", "raw_bytes") and isinstance(dtype, dict):
        configuration = dtype.get("configuration")
        length = configuration.get("length_bytes") if isinstance(configuration, dict) else None
        return length if type(length) is int and 0 < length <= 2**16 else None
    return _ITEM_BYTES.get(name) if isinstance(name, str) else None


def _codec_problem(codecs: Any, chunks: list[int]) -> str:
    """What is wrong with the codecs of chunks of the given lengths; those of a shard lie within it."""
    if not isinstance(codecs, list):
        return f"expected a list of codecs, got {_shorten(codecs)}"
    for codec in codecs:
        name = codec.get("name") if isinstance(codec, dict) else codec
        if name not in CODECS:
            return f"expected codecs among {', '.join(CODECS)}, got {_shorten(name)}"
        if name == "sharding_indexed":
            configuration = codec.get("configuration") if isinstance(codec, dict) else None
            inner = configuration.get("chunk_shape") if isinstance(configuration, dict) else None
            if not (isinstance(configuration, dict) and _are_lengths(inner, 1) and len(inner) == len(chunks)):
                return f"expected lengths of the chunks of a shard, got {_shorten(inner)}"
            if math.prod(-(-length // part) for length, part in zip(chunks, inner, strict=True)) > MAX_CHUNKS:
                return f"expected at most {MAX_CHUNKS:,} chunks in a shard, got the lengths {_shorten(inner)}"
            for part in ("codecs", "index_codecs"):
                problem = _codec_problem(configuration.get(part, []), inner)
                if problem:
                    return problem
    return ""


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
