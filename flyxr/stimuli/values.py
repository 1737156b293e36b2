"""Values of the arrays that users bring: masks, colours, ranges, and their conversion to luminance."""

from __future__ import annotations

import functools
import math
import os
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from flyxr import identity, schema
from flyxr.errors import Problem, raise_problems

if TYPE_CHECKING:
    from numpy.typing import NDArray

LUMA_WEIGHTS = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the luma of ITU-R BT.601, which is also that of videos."""


class Conversion(NamedTuple):
    """How the values of an array become a luminance; it travels to the tasks of lazy arrays."""

    kind: str  # movie or rendering
    divisor: float  # 255 for uint8 that is not rescaled, else 1
    is_rescaled: bool
    fill_value: float | None  # luminance of missing values; None if there must be none


def as_array(array: Any) -> tuple[Any, list[str | Problem]]:
    """NumPy or dask array of anything that users call an array; masks of NumPy stay.

    Files that are mapped into memory become lazy, and tensors of torch are copied from their device.

    Examples
    --------
    >>> as_array([[0, 1]])
    (array([[0, 1]]), [])
    """
    if isinstance(array, np.memmap) and array.filename is not None and array.mode != "c":
        return _lazy_memmap(array), []  # changes to a map of mode "c" are in memory only
    if is_dask(array) or type(array) in (np.ndarray, np.ma.MaskedArray):
        return array, []
    if hasattr(array, "detach") and hasattr(array, "cpu"):
        tensor = array.detach().cpu()
        try:
            return tensor.numpy(), []
        except TypeError:  # NumPy lacks bfloat16
            return tensor.float().numpy(), []
    if isinstance(array, (str, bytes, os.PathLike)):
        hint = "load it with np.load(path), or read a video with fx.stimuli.from_video(path)"
        return np.empty(0), [Problem(f"expected an array, got {array!r}", hint)]
    try:
        return _stack_masked(array) if _has_mask(array) else np.asarray(array), []
    except (TypeError, ValueError) as error:
        return np.empty(0), [f"expected an array of numbers, got {type(array).__name__} ({error})"]


def is_dask(data: Any) -> bool:
    """Whether an array is lazy.

    Examples
    --------
    >>> is_dask(np.zeros(2))
    False
    """
    return hasattr(data, "__dask_graph__")


def _has_mask(array: Any) -> bool:
    """Whether an array, or one in a list, is masked: NumPy would drop the masks of a list."""
    if isinstance(array, (list, tuple)):
        return any(map(_has_mask, array))
    return isinstance(array, np.ma.MaskedArray)


def _stack_masked(array: Any) -> Any:
    return np.ma.stack(list(map(_stack_masked, array))) if isinstance(array, (list, tuple)) else np.ma.asanyarray(array)


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


def dtype_problems(dtype: np.dtype[Any], is_rescaled: bool, function: str) -> list[Problem]:
    """List what is wrong with a dtype.

    Examples
    --------
    >>> [str(problem) for problem in dtype_problems(np.dtype(complex), False, "from_array")]
    ['expected floats from 0 to 1 or uint8, got complex128: convert it with .astype(float)']
    """
    if dtype.kind == "f" or dtype == np.uint8 or dtype.kind == "b" or (is_rescaled and dtype.kind in "iu"):
        return []
    text = f"expected floats from 0 to 1 or uint8, got {dtype}"
    if dtype.kind in "iu":
        hint = "map the smallest value to 0 and the largest to 1 with {}, or divide by the largest possible value"
        return [Problem(text, hint.format(f"fx.stimuli.{function}(..., rescale=True)"), hint.format("--rescale"))]
    return [Problem(text, "convert it with .astype(float)")]


def compute_luma(data: Any, conversion: Conversion) -> Any:
    """Luma (ITU-R BT.601) of red, green and blue in the last dim, float64; a fourth channel is not used.

    Examples
    --------
    >>> compute_luma(np.array([[1.0, 0.0, 0.0]]), Conversion("movie", 1, False, None))
    array([0.299])
    """
    if not is_dask(data):
        return _luma(data, conversion)
    last = data.ndim - 1
    meta = np.empty((0,) * last, np.float64)
    return data.rechunk({last: -1}).map_blocks(_luma, conversion, drop_axis=last, dtype=np.float64, meta=meta)


def _luma(colours: Any, conversion: Conversion) -> Any:
    if colours.dtype.kind == "f" and not conversion.is_rescaled:  # a wrong colour may have a luma that is not wrong
        problems = range_problems(colours[..., :3], conversion)
        raise_problems(schema.SchemaError, f"not {schema.kind_with_article(conversion.kind)}", problems)
    return sum(weight * colours[..., index].astype(np.float64) for index, weight in enumerate(LUMA_WEIGHTS))


def range_problems(data: NDArray[Any], conversion: Conversion) -> list[Problem]:
    """List what is wrong with values: masked ones, NaN, those out of range, and none to rescale by.

    Examples
    --------
    >>> masked = np.ma.array([0.5, 0.0], mask=[False, True])
    >>> [str(problem) for problem in range_problems(masked, Conversion("movie", 1, False, None))]
    ['expected values without a mask, got 1 of 2 masked: give them a luminance, e.g. fill_value=0.5']
    """
    n_masked = int(np.ma.getmaskarray(data).sum()) if np.ma.is_masked(data) else 0
    if n_masked and conversion.fill_value is None:
        text = f"expected values without a mask, got {n_masked} of {data.size} masked"
        return [Problem(text, "give them a luminance, e.g. fill_value=0.5")]
    present = _present_values(data, conversion)
    if not present.size:
        return _end_problems(math.inf, -math.inf) if conversion.is_rescaled else []
    if not conversion.is_rescaled:
        is_within = present.dtype.kind == "b" or conversion.divisor != 1
        return [] if is_within else schema.luminance_problems(present, conversion.kind)
    low, high = float(present.min()), float(present.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        return schema.luminance_problems(present, conversion.kind)[:1]
    return _end_problems(low, high)


def _end_problems(low: float, high: float) -> list[Problem]:
    """List what is wrong with the smallest and largest value to rescale by."""
    if low > high:
        return [Problem("expected values to rescale by, got missing values only", "leave rescale out")]
    if math.isfinite(low) and math.isfinite(high):
        text = f"expected at least two different values to rescale, got only {low:g}"
        return [] if low < high else [Problem(text, "divide by a known maximum")]
    return schema.luminance_problems(np.array([low, high]))[:1]


def limits(data: NDArray[Any], conversion: Conversion) -> tuple[float, float]:
    """Smallest and largest value that is not missing; infinite if all are.

    Examples
    --------
    >>> limits(np.array([1.0, np.nan, 3.0]), Conversion("movie", 1, True, 0.5))
    (1.0, 3.0)
    """
    present = _present_values(data, conversion)
    return (float(present.min()), float(present.max())) if present.size else (math.inf, -math.inf)


def _missing_values(data: NDArray[Any], conversion: Conversion) -> NDArray[np.bool_] | None:
    """Which values are masked, or NaN if they can be filled; None if none are."""
    missing = np.ma.getmaskarray(data) if np.ma.is_masked(data) else None
    if conversion.fill_value is not None and data.dtype.kind == "f":
        is_nan = np.isnan(np.ma.getdata(data))
        missing = is_nan if missing is None else missing | is_nan
    return missing if missing is not None and missing.any() else None


def _present_values(data: NDArray[Any], conversion: Conversion) -> NDArray[Any]:
    missing = _missing_values(data, conversion)
    values = np.asarray(np.ma.getdata(data))
    return values if missing is None else values[~missing]


def convert(data: Any, conversion: Conversion) -> Any:
    """Luminance, float32, of an array whose values are valid (in memory) or are checked in each chunk (lazy).

    Examples
    --------
    >>> convert(np.array([0, 255], np.uint8), Conversion("movie", 255, False, None))
    array([0., 1.], dtype=float32)
    """
    if not is_dask(data):
        return _scale(data, conversion, limits(data, conversion) if conversion.is_rescaled else None)
    meta = np.empty((0,) * data.ndim, np.float32)
    arguments = _lazy_limits(data, conversion) if conversion.is_rescaled else ()
    return data.map_blocks(_convert_block, *arguments, conversion=conversion, dtype=np.float32, meta=meta)


def _lazy_limits(data: Any, conversion: Conversion) -> tuple[Any, Any]:
    import dask.array as da

    meta = np.empty((0,) * data.ndim, np.float64)
    low, high = (
        da.reduction(
            data, functools.partial(chunk, conversion=conversion), combine, keepdims=True, meta=meta, dtype=float
        )
        for chunk, combine in ((_block_minimum, np.min), (_block_maximum, np.max))
    )
    return low, high


def _block_minimum(block: Any, axis: Any, keepdims: bool, *, conversion: Conversion) -> Any:
    return np.full((1,) * block.ndim, _block_limits(block, conversion)[0])


def _block_maximum(block: Any, axis: Any, keepdims: bool, *, conversion: Conversion) -> Any:
    return np.full((1,) * block.ndim, _block_limits(block, conversion)[1])


def _block_limits(block: Any, conversion: Conversion) -> tuple[float, float]:
    if conversion.fill_value is None and np.ma.is_masked(block):
        raise_problems(schema.SchemaError, _heading(conversion), range_problems(block, conversion))
    return limits(block, conversion)


def _heading(conversion: Conversion) -> str:
    return f"not {schema.kind_with_article(conversion.kind)}"


def _convert_block(block: Any, low: Any = None, high: Any = None, *, conversion: Conversion) -> NDArray[np.float32]:
    if low is None or high is None:
        raise_problems(schema.SchemaError, _heading(conversion), range_problems(block, conversion))
        return _scale(block, conversion)
    ends = float(low.item()), float(high.item())
    raise_problems(schema.SchemaError, _heading(conversion), _end_problems(*ends))
    return _scale(block, conversion, ends)


def _scale(data: NDArray[Any], conversion: Conversion, ends: tuple[float, float] | None = None) -> NDArray[np.float32]:
    missing = _missing_values(data, conversion)
    values = np.asarray(np.ma.getdata(data))
    if ends is not None:
        low, high = ends
        luminance = (np.subtract(values, low, dtype=np.float64) / (high - low)).astype(np.float32)
    elif conversion.divisor != 1:
        luminance = values.astype(np.float32) / np.float32(conversion.divisor)
    else:
        luminance = values.astype(np.float32, copy=False)
    return luminance if missing is None else np.where(missing, np.float32(conversion.fill_value or 0), luminance)
