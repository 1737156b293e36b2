"""Movies from arrays."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from flyxr import identity, schema
from flyxr.errors import Problem, raise_problems
from flyxr.stimuli.base import MOVIE_DIMS, frame_rate_problems, wrap
from flyxr.stimuli.recording import recorded

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike

_DIM_HINTS = {
    2: "for one frame add two dims with array[np.newaxis, np.newaxis]",
    3: "for one sequence of frames add the sample dim with array[np.newaxis]; "
    "for one frame of each sample add the time dim with array[:, np.newaxis]",
    5: "make the frames grey, e.g. array.mean(axis=-1) for colours in the last dim, or select one channel",
}
"""Hint for each wrong number of dims."""


@recorded("array", "sample_coords")
def from_array(
    array: Any,
    frame_rate: float,
    *,
    rescale: bool = False,
    sample_coords: Mapping[str, ArrayLike] | None = None,
) -> xr.Dataset:
    """Movie from an array of frames.

    Parameters
    ----------
    array
        NumPy, dask or xarray array (sample, time, y, x), or anything that NumPy converts to an array. Floats must lie
        from 0 (dark) to 1 (bright); uint8 is divided by 255. Dask arrays and memory maps stay lazy: nothing is read
        here, and values are checked in each chunk as it is computed. The dims of an xarray array are matched by name
        if they have these names, else by position; its coordinates along the first dim are kept.
    frame_rate
        Frames per second.
    rescale
        Map the smallest value of the whole array to 0 and the largest to 1, for any numeric dtype including uint8. A
        lazy array is then read twice.
    sample_coords
        Coordinates of the dim ``sample``, one value for each sample, e.g. ``{"angle": [0, 90]}``. A DataArray along
        the first dim of the array is matched by label if both have labels, and may have more of them.

    Returns
    -------
    Dataset
        ``luminance`` (sample, time, y, x), float32, 0 to 1; ``time`` in s. The input is not changed.

    Raises
    ------
    SchemaError
        One error, a ValueError, with a line for each problem: not four dims, no samples or frames, NaN or infinity,
        values outside 0 to 1, integers other than uint8, a frame rate that is not positive, coordinates of another
        length.

    Examples
    --------
    >>> import numpy as np
    >>> movie = from_array(np.zeros((2, 3, 8, 8)), frame_rate=50, sample_coords={"angle": [0, 90]})
    >>> dict(movie.luminance.sizes), movie.time.values, movie.angle.values
    ({'sample': 2, 'time': 3, 'y': 8, 'x': 8}, array([0.  , 0.02, 0.04]), array([ 0, 90]))
    >>> from_array(np.full((3, 8, 8), 2.0), frame_rate=50)
    Traceback (most recent call last):
        ...
    flyxr.schema.SchemaError: not a movie:
    - expected 4 dims (sample, time, y, x), got 3 with shape (3, 8, 8): for one sequence of frames ...
    - expected luminance from 0 to 1, got values from 2 to 2: ... fx.stimuli.from_array(..., rescale=True)
    """
    data, coords, problems = _unpack(array)
    is_lazy = _is_dask(data)
    for name, values in (sample_coords or {}).items():
        coords[name], label_problems = _align_to_samples(name, values, array)
        problems += label_problems
    problems += _shape_problems(data.shape)
    problems += frame_rate_problems(frame_rate)
    problems += _coord_problems(coords, data.shape[0] if data.ndim else 0)
    dtype_problems = _dtype_problems(data.dtype, rescale)
    problems += dtype_problems
    if not is_lazy and not dtype_problems and data.size:
        problems += _range_problems(data, rescale)
    raise_problems(schema.SchemaError, "not a movie", problems)
    if is_lazy:
        luminance = _scale_lazily(data, rescale)
    else:
        luminance = _scale(data, *(_limits(data) if rescale else (None, None)))
    return wrap(luminance, frame_rate, sample_coords=coords)


def _is_dask(data: Any) -> bool:
    return hasattr(data, "__dask_graph__")


def _unpack(array: Any) -> tuple[Any, dict[str, np.ndarray], list[str | Problem]]:
    """Values in the order of the dims of a movie, coordinates along samples, and problems of the dims."""
    coords: dict[str, np.ndarray] = {}
    problems: list[str | Problem] = []
    if isinstance(array, xr.DataArray):
        if set(array.dims) == set(MOVIE_DIMS):
            array = array.transpose(*MOVIE_DIMS)
        elif any(dim in MOVIE_DIMS and MOVIE_DIMS.index(str(dim)) != i for i, dim in enumerate(array.dims)):
            problems.append(
                Problem(
                    f"expected dims {_format_dims(MOVIE_DIMS)}, got {_format_dims(array.dims)}",
                    "rename them with .rename, or take them by position with array.data",
                )
            )
        for name, coord in array.coords.items():
            is_kept = coord.dtype.kind in "iu" if name == "sample" else name not in array.dims
            if is_kept and coord.dims == array.dims[:1]:
                coords[str(name)] = coord.values
        array = array.data
    # changes to a map of mode "c" are in memory only
    if isinstance(array, np.memmap) and array.filename is not None and array.mode != "c":
        return _lazy_memmap(array), coords, problems
    return array if _is_dask(array) else np.asarray(array), coords, problems


class _MappedFile:
    """A memory map whose file is compared with its stamp at each read."""

    def __init__(self, array: np.memmap[Any, Any], stamp: identity.FileStamp) -> None:
        self.array, self.path, self.stamp = array, str(array.filename), stamp
        self.shape, self.dtype, self.ndim = array.shape, array.dtype, array.ndim

    def __getitem__(self, key: Any) -> np.ndarray:
        identity.check_file(self.path, self.stamp)
        return np.array(self.array[key])


def _lazy_memmap(array: np.memmap[Any, Any]) -> Any:
    """Dask array of a memory map, named by the content of its file."""
    import dask.array as da
    from dask.base import tokenize

    if array.mode != "r":
        array.flush()  # writes changes of the map to the file
    stamp = identity.file_stamp(str(array.filename))
    start = array.ctypes.data - np.frombuffer(array._mmap, np.uint8).ctypes.data  # type: ignore[attr-defined]
    name = f"file-{tokenize(stamp.digest, start, array.strides, array.shape, array.dtype.str)}"
    meta = np.empty((0,) * array.ndim, array.dtype)
    return da.from_array(_MappedFile(array, stamp), chunks="auto", name=name, meta=meta)


def _align_to_samples(name: str, values: ArrayLike, array: Any) -> tuple[np.ndarray, list[str]]:
    """Select the values of a coordinate by the labels of an xarray array's samples, if both have labels."""
    if not (isinstance(values, xr.DataArray) and isinstance(array, xr.DataArray)):
        return np.asarray(values), []
    first = "sample" if set(array.dims) == set(MOVIE_DIMS) else next(iter(array.dims), None)
    if values.dims != (first,) or first not in values.indexes or first not in array.indexes:
        return values.values, []
    labels, sample_labels = values.indexes[first], array.indexes[first]
    if not labels.is_unique:
        return np.asarray(sample_labels), [f"expected each label of {name!r} once, got {labels.tolist()}"]
    positions = labels.get_indexer(sample_labels)
    if (positions < 0).any():
        missing = sample_labels[positions < 0].tolist()
        problem = f"expected {name!r} for each sample of the array, got none for {missing[:8]}"
        return np.asarray(sample_labels), [problem]
    return values.values[positions], []


def _format_dims(dims: tuple[Any, ...]) -> str:
    return f"({', '.join(map(str, dims))})"


def _shape_problems(shape: tuple[int, ...]) -> list[str | Problem]:
    if len(shape) != 4:
        hint = _DIM_HINTS.get(len(shape), "give one number for each sample, frame, row and column")
        return [Problem(f"expected 4 dims {_format_dims(MOVIE_DIMS)}, got {len(shape)} with shape {shape}", hint)]
    if any(math.isnan(length) for length in shape):
        return [Problem(f"expected known lengths, got shape {shape}", "call array.compute_chunk_sizes() first")]
    empty = [dim for dim, length in zip(MOVIE_DIMS, shape, strict=True) if length == 0]
    if empty:
        return [f"expected at least one sample, frame, row and column, got none along {', '.join(empty)}"]
    return []


def _coord_problems(coords: Mapping[str, np.ndarray], n_samples: int) -> list[str]:
    problems = []
    for name, values in coords.items():
        if name in (*MOVIE_DIMS[1:], "luminance"):
            problems.append(f"expected another name for the sample coordinate {name!r}, which movies use already")
        if values.shape != (n_samples,):
            problems.append(
                f"expected {n_samples} values of {name!r}, one for each sample, got an array of shape {values.shape}"
            )
    return problems


def _dtype_problems(dtype: np.dtype[Any], rescale: bool) -> list[Problem]:
    if dtype.kind == "f" or dtype == np.uint8 or dtype.kind == "b" or (rescale and dtype.kind in "iu"):
        return []
    text = f"expected floats from 0 to 1 or uint8, got {dtype}"
    if dtype.kind in "iu":
        hint = "map the smallest value to 0 and the largest to 1 with {}, or divide by the largest possible value"
        return [Problem(text, hint.format("fx.stimuli.from_array(..., rescale=True)"), hint.format("--rescale"))]
    return [Problem(text, "convert it with .astype(float)")]


def _limits(data: np.ndarray) -> tuple[float, float]:
    return float(data.min()), float(data.max())


def _range_problems(data: np.ndarray, rescale: bool) -> list[Problem]:
    if data.dtype.kind == "b" or (data.dtype == np.uint8 and not rescale):
        return []
    if not rescale:
        return schema.luminance_problems(data)
    low, high = _limits(data)
    if math.isfinite(low) and math.isfinite(high):
        text = f"expected at least two different values to rescale, got only {low:g}"
        return [] if low < high else [Problem(text, "divide by a known maximum")]
    return schema.luminance_problems(data)[:1]


def _scale(data: np.ndarray, low: float | None = None, high: float | None = None) -> np.ndarray:
    if low is not None and high is not None:
        return np.asarray((np.subtract(data, low, dtype=np.float64) / (high - low)).astype(np.float32))
    if data.dtype == np.uint8:
        return data.astype(np.float32) / np.float32(255)
    return data.astype(np.float32, copy=False)


def _scale_lazily(data: Any, rescale: bool) -> Any:
    limits = (data.min(), data.max()) if rescale else ()
    return data.map_blocks(_scale_block, *limits, dtype=np.float32, meta=np.empty((0,) * 4, np.float32))


def _scale_block(block: np.ndarray, low: np.ndarray | None = None, high: np.ndarray | None = None) -> np.ndarray:
    if low is None or high is None:
        raise_problems(schema.SchemaError, "not a movie", _range_problems(block, False))
        return _scale(block)
    limits = np.stack([low.ravel(), high.ravel()])
    raise_problems(schema.SchemaError, "not a movie", _range_problems(limits, True))
    return _scale(block, float(low.item()), float(high.item()))
