"""Hypothesis strategies that several test files use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flyxr.eye import BoxEye, Eye, HexEye

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from numpy.typing import NDArray


def extents() -> st.SearchStrategy[int]:
    """Radii of lattices."""
    return st.integers(0, 20)


@st.composite
def recorded_cells_and_frames(
    draw: st.DrawFn, n_cells: int, n_frames: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cells in any order and ascending frames to record; either may be empty."""
    cells = draw(st.lists(st.integers(0, n_cells - 1), unique=True, max_size=6))
    frames = draw(st.sets(st.integers(0, n_frames - 1), max_size=n_frames))
    return np.array(cells, dtype=int), np.array(sorted(frames), dtype=int)


@st.composite
def mixed_datasets(draw: st.DrawFn) -> xr.Dataset:
    """Datasets with floats, integers, booleans and text along the dims ``model`` and ``sample``."""
    n_models, n_samples = draw(hnp.array_shapes(min_dims=2, max_dims=2, max_side=4))
    floats = st.floats(width=32, allow_infinity=False)
    names = draw(st.lists(st.text(max_size=4), min_size=n_samples, max_size=n_samples))
    return xr.Dataset(
        {
            "values": (("model", "sample"), draw(hnp.arrays(np.float32, (n_models, n_samples), elements=floats))),
            "counts": ("model", draw(hnp.arrays(np.int64, n_models, elements=st.integers(-100, 100)))),
            "flags": ("sample", draw(hnp.arrays(np.bool_, n_samples))),
        },
        {"name": ("sample", np.array(names, dtype=object))},
        {"note": "attributes do not count"},
    )


@st.composite
def equivalent_datasets(draw: st.DrawFn, dataset: xr.Dataset) -> xr.Dataset:
    """Datasets with the content of one of :func:`mixed_datasets`, but other dtypes, chunks, order and attributes."""
    chunks = {dim: draw(st.integers(1, length)) for dim, length in dataset.sizes.items()}
    text_dtype = draw(st.sampled_from([object, np.dtypes.StringDType()]))
    equivalent = dataset.assign(
        values=dataset["values"].astype(draw(st.sampled_from([np.float32, np.float64]))),
        counts=dataset["counts"].astype(draw(st.sampled_from([np.int8, np.int16, np.int64]))),
    )
    equivalent = equivalent.assign_coords(name=equivalent["name"].astype(text_dtype))
    equivalent = equivalent.transpose("sample", "model").drop_attrs()
    equivalent = equivalent[draw(st.permutations(list(dataset.data_vars)))]
    return equivalent.chunk(chunks) if draw(st.booleans()) else equivalent


def eyes() -> st.SearchStrategy[Eye]:
    """Small eyes of both kinds."""
    extents = st.integers(0, 3)
    return st.one_of(st.builds(BoxEye, extents, st.integers(1, 6)), st.builds(HexEye, extents, st.integers(3, 8)))


def chunk_sizes(sizes: Mapping[Hashable, int], max_chunks: int = 3) -> st.SearchStrategy[dict[Hashable, int]]:
    """Chunk size of each dim, for up to some number of chunks along it; pass them to ``.chunk``."""
    return st.fixed_dictionaries(
        {
            dim: st.integers(1, min(max_chunks, size)).map(lambda n, size=size: -(-size // n))
            for dim, size in sizes.items()
        }
    )
