"""Hypothesis strategies that several test files use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping


def chunk_sizes(sizes: Mapping[Hashable, int], max_chunks: int = 3) -> st.SearchStrategy[dict[Hashable, int]]:
    """Chunk size of each dim, for up to some number of chunks along it; pass them to ``.chunk``."""
    return st.fixed_dictionaries(
        {
            dim: st.integers(1, min(max_chunks, size)).map(lambda n, size=size: -(-size // n))
            for dim, size in sizes.items()
        }
    )
