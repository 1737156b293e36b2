"""Hypothesis strategies that several test files use."""

from __future__ import annotations

from hypothesis import strategies as st

from flyxr.eye import BoxEye, Eye, HexEye


def eyes() -> st.SearchStrategy[Eye]:
    """Small eyes of both kinds."""
    extents = st.integers(0, 3)
    return st.one_of(st.builds(BoxEye, extents, st.integers(1, 6)), st.builds(HexEye, extents, st.integers(3, 8)))
