"""Shared parts of movies and other stimuli: checks, lazy generation, wrapping."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from flyxr import schema

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import ArrayLike


MOVIE_DIMS = ("sample", "time", "y", "x")
CHUNK_BYTES = 2**24
"""Target size of a chunk of a lazy stimulus."""
SAMPLE_CHUNK = 16
"""Default number of sequences in a chunk of a lazy movie."""


def wrap(luminance: Any, frame_rate: float, *, sample_coords: Mapping[str, np.ndarray] | None = None) -> xr.Dataset:
    """Wrap a valid array (sample, time, y, x) as a movie.

    Parameters
    ----------
    luminance
        float32 (sample, time, y, x), NumPy or dask.
    frame_rate
        Frames per second.
    sample_coords
        Coordinates of the dim ``sample``.

    Examples
    --------
    >>> wrap(np.zeros((1, 2, 3, 3), np.float32), 50).time.values
    array([0.  , 0.02])
    """
    n_samples, n_frames, height, width = luminance.shape
    coords: dict[str, Any] = {"sample": np.arange(n_samples)}
    for name, values in (sample_coords or {}).items():
        coords[name] = ("sample", storable(values))
    coords |= {
        "time": schema.time_coord(n_frames, 1 / frame_rate),
        "y": np.arange(height),
        "x": np.arange(width),
    }
    return schema.annotate(xr.Dataset({"luminance": (MOVIE_DIMS, luminance)}, coords), "movie")


def storable(values: ArrayLike) -> np.ndarray:
    """Labels as an array: fixed-width text becomes objects, since zarr has no settled encoding for it, and tuples stay.

    Examples
    --------
    >>> storable(["a", "b"]).dtype, storable([(0, 1), (2, 3)]).shape
    (dtype('O'), (2,))
    """
    if isinstance(values, (list, pd.Index)) and any(isinstance(value, tuple) for value in values):
        labels = np.empty(len(values), dtype=object)
        labels[:] = list(values)
        return labels
    array = np.asarray(values)
    return array.astype(object) if array.dtype.kind in "UT" else array


def generate(
    make: Callable[..., np.ndarray],
    n_samples: int,
    sample_shape: tuple[int, ...],
    sample_chunk: int | None = None,
    **arguments: object,
) -> Any:
    """Lazy float32 array (sample, time, ...), made by a function from sample indices.

    Parameters
    ----------
    make
        Module-level function; ``make(indices, **arguments)`` gives (index, time, ...).
    n_samples
        Number of samples.
    sample_shape
        Shape of one sample: (time, y, x) in a movie, (time, column) in a rendering.
    sample_chunk
        Samples in a chunk; as many as fit into :data:`CHUNK_BYTES` if None.
    **arguments
        Small picklable arguments; they travel in the graph.

    Examples
    --------
    >>> def grey(indices):
    ...     return np.full((indices.size, 2, 4, 4), 0.5, np.float32)
    >>> generate(grey, 5, (2, 4, 4), sample_chunk=2).chunks[0]
    (2, 2, 1)
    """
    import dask.array as da

    chunk = sample_chunk or max(1, CHUNK_BYTES // (4 * math.prod(sample_shape)))
    indices = da.arange(n_samples, chunks=chunk)
    return indices.map_blocks(
        make,
        new_axis=list(range(1, 1 + len(sample_shape))),
        chunks=(indices.chunks[0], *((length,) for length in sample_shape)),
        dtype=np.float32,
        meta=np.empty((0,) * (1 + len(sample_shape)), np.float32),
        **arguments,
    )
