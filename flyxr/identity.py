"""Content hashes of Datasets, samples, models and files.

All code that asks whether two things have the same content uses these functions. A hash depends only on values: not on
chunks, on the order of dims, on the dtype of numbers or text, on whether data are lazy, or on the machine. Data that
are too large to be read are identified by a token, the name of their dask graph. It identifies a computation and not
content: equal content may have different tokens. It is never used as a hash.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from flyxr.errors import FlyxrError, InputError, Problem

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Mapping

    import xarray as xr
    from numpy.typing import DTypeLike, NDArray

READ_BYTES = 2**22
"""Default size of the parts in which arrays and files are hashed, in bytes."""
_KNOWN_PACKAGES = frozenset(
    [
        "flyxr",
        "xarray",
        "dask",
        "numpy",
        "toolz",
        "cytoolz",
        "tlz",
        "builtins",
        "functools",
        "operator",
        "_operator",
        "pathlib",
    ]
)
"""Packages whose functions change with their version alone."""
_LARGEST_INT = np.uint64(2**63 - 1)


class ChangedError(FlyxrError, ValueError):
    """A file or a store has changed since it was opened."""


class FileStamp(NamedTuple):
    """Identity of a file: its size in bytes, its modification time in ns, and the digest of its content."""

    n_bytes: int
    mtime_ns: int
    digest: str


def digest(*parts: NDArray[Any] | bytes) -> str:
    """Hash the bytes of arrays; 16 hexadecimal digits.

    Examples
    --------
    >>> digest(np.zeros(2)), digest(np.zeros(3))
    ('5250a507f994740e', '2bb6ae06ad472028')
    """
    hasher = hashlib.blake2b(digest_size=8)
    for part in parts:
        hasher.update(part if isinstance(part, bytes) else np.ascontiguousarray(part).tobytes())
    return hasher.hexdigest()


def combine(hashes: Iterable[str]) -> str:
    """Combine hashes, in their order, into one.

    Examples
    --------
    >>> combine(["a", "b"]) == combine(["ab"])
    False
    """
    return digest(json.dumps(list(hashes)).encode())


def content_hash(
    dataset: xr.Dataset,
    names: Iterable[Hashable] | None = None,
    *,
    dtypes: Mapping[str, DTypeLike] | None = None,
    part_bytes: int = READ_BYTES,
) -> str:
    """Hash the names, dims and values of variables, ignoring attributes, chunks, order of dims and number of bits.

    Parameters
    ----------
    dataset
        Lazy variables are computed one at a time.
    names
        Variables and coordinates to hash, by default all.
    dtypes
        Dtypes to convert variables to, by name. By default integers are converted to int64 and floats to float64.
    part_bytes
        Size of the parts in which arrays are converted, in bytes.

    Returns
    -------
    str
        The first 16 hexadecimal digits of SHA-256.

    Raises
    ------
    InputError
        A ValueError. If values are not numbers, times or text.

    Examples
    --------
    >>> import xarray as xr
    >>> data = xr.Dataset({"a": ("x", np.array([1.0, 2.0], np.float32)), "b": ("x", ["on", "off"])})
    >>> content_hash(data) == content_hash(data.astype({"a": float, "b": object}).chunk())
    True
    >>> content_hash(data) == content_hash(data.assign(a=data.a + 0.5))
    False
    """
    hasher = hashlib.sha256()
    for name in sorted(map(str, dataset.variables if names is None else names)):
        variable = dataset[name].variable
        variable = variable.transpose(*sorted(variable.dims, key=str, reverse=True))
        hasher.update(f"{name}{variable.dims}{variable.shape}".encode())
        values = variable.values
        if _is_text(values.dtype):
            hasher.update(json.dumps(_as_text(values)).encode())
        else:
            dtype = np.dtype((dtypes or {}).get(name) or _canonical_dtype(values))
            hasher.update(dtype.str.encode())
            for part in _parts(values, part_bytes):  # avoids a copy of the whole array
                hasher.update(_canonical_values(part, dtype).tobytes())
    return hasher.hexdigest()[:16]


def sample_hashes(luminance: NDArray[np.floating], n_frames: NDArray[np.int64] | None = None) -> list[str]:
    """Hash each sample of a luminance (sample, time, column), up to its end, as float32.

    Examples
    --------
    >>> sample_hashes(np.zeros((2, 3, 7))) == sample_hashes(np.zeros((2, 3, 7), np.float32))
    True
    """
    values = np.asarray(luminance, dtype=np.float32)
    ends = [values.shape[1]] * len(values) if n_frames is None else n_frames.tolist()
    # Adding 0 turns -0 into 0, which is equal to it.
    return [digest(np.array([end]), sample[:end] + np.float32(0)) for sample, end in zip(values, ends, strict=True)]


def stimulus_hash(hashes: Iterable[str], time: NDArray[np.floating]) -> str:
    """Hash a stimulus, given the hashes of its samples and the times (time,) of its frames, s."""
    return combine([*hashes, digest(np.asarray(time, dtype=float) + 0.0)])


def model_hashes(parameters: Iterable[NDArray[np.floating]]) -> list[str]:
    """Hash each model, given arrays whose first axis is the model.

    Examples
    --------
    >>> bias = np.array([[0.5, 0.25], [0.5, 0.75]])
    >>> model_hashes([bias]) == model_hashes([bias.astype(np.float32)])
    True
    """
    return [digest(*map(_as_float32_if_exact, arrays)) for arrays in zip(*parameters, strict=True)]


def state_hash(state: xr.DataArray) -> str:
    """Hash a state (model, sample, cell); a lazy state is computed one sample at a time."""
    samples = (state[:, [sample]].values for sample in range(state.sizes["sample"]))
    return combine([str(state.shape), *(digest(_as_float32_if_exact(sample)) for sample in samples)])


def token(array: xr.DataArray) -> str | None:
    """Name of the dask graph of an array; None if the array is in memory.

    The name contains a hash of all functions and arguments of the graph, and is the same in all processes. Data from
    files of flyxr have names that depend on the content of the file, or on its size and modification time. Equal
    tokens imply equal content if the graph :func:`is_reliable`. Different tokens imply nothing.
    """
    return str(array.data.name) if array.chunks is not None else None


def is_reliable(array: xr.DataArray) -> bool:
    """Whether equal tokens of a lazy array imply equal content.

    True if all functions and objects in the graph are of flyxr, xarray, dask or NumPy. The name of a graph neither
    contains the code of imported functions, which may change, nor always the content of files that other packages open.

    Examples
    --------
    >>> import xarray as xr
    >>> zeros = xr.DataArray(np.zeros(4)).chunk(2)
    >>> is_reliable(zeros + 1), is_reliable(xr.apply_ufunc(lambda block: block + 1, zeros, dask="parallelized"))
    (True, False)
    """
    import cloudpickle

    modules: set[str] = set()

    class ModuleCollector(cloudpickle.Pickler):  # type: ignore[misc]
        def reducer_override(self, obj: Any) -> Any:
            module = getattr(obj, "__module__", None)
            modules.add(str(module or type(obj).__module__))
            if isinstance(obj, np.ndarray) and obj.dtype != object:
                return np.ndarray, (0,)  # values are part of the name
            return super().reducer_override(obj)

    try:
        ModuleCollector(io.BytesIO()).dump(array.data.dask)
    except Exception:  # any object may be in a graph
        return False
    return all(module.split(".")[0] in _KNOWN_PACKAGES for module in modules) and not any(
        module.startswith("xarray.backends") for module in modules
    )


def file_stamp(path: str | os.PathLike[str]) -> FileStamp:
    """Identify a file. Its content is read once per process, and again if its size or modification time changes.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     file_stamp(file.name).digest
    '2d06800538d394c2'
    """
    stat = os.stat(path)
    return FileStamp(stat.st_size, stat.st_mtime_ns, _file_digest(str(path), stat.st_ino, *_size_and_time(stat)))


def check_file(path: str | os.PathLike[str], stamp: FileStamp) -> None:
    """Check that the content of a file is unchanged; its modification time may differ.

    Raises
    ------
    ChangedError
        A ValueError. If the content has changed since the stamp was made.
    """
    stat = os.stat(path)
    if _size_and_time(stat) == stamp[:2]:
        return
    if stat.st_size != stamp.n_bytes or file_stamp(path).digest != stamp.digest:
        raise ChangedError(Problem(f"{path} has changed since it was opened", "open it again"))


def content_digest(path: str | os.PathLike[str]) -> str:
    """Hash the content of a file (XXH3, 64 bits); 16 hexadecimal digits."""
    import xxhash

    hasher = xxhash.xxh3_64()
    with Path(path).open("rb") as file:
        while part := file.read(READ_BYTES):
            hasher.update(part)
    return hasher.hexdigest()


def bytes_digest(content: bytes) -> str:
    """Hash of bytes, as :func:`content_digest` of a file that holds them."""
    import xxhash

    return xxhash.xxh3_64(content).hexdigest()


def _size_and_time(stat: os.stat_result) -> tuple[int, int]:
    return stat.st_size, stat.st_mtime_ns


@lru_cache(maxsize=1024)
def _file_digest(path: str, inode: int, n_bytes: int, mtime_ns: int) -> str:
    return content_digest(path)


def _is_text(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "OUT"


def _as_text(values: NDArray[Any]) -> Any:
    """Convert to nested lists of text, with the numbers among it."""
    flat = [str(value) if isinstance(value, str) else value for value in values.ravel().tolist()]
    unsupported = {type(value).__name__ for value in flat if not isinstance(value, str | bool | int | float | None)}
    if unsupported:
        raise InputError(f"expected values that are text or numbers, got {', '.join(sorted(unsupported))}")
    return np.reshape(np.array(flat, dtype=object), values.shape).tolist()


def _parts(values: NDArray[Any], part_bytes: int) -> Iterator[NDArray[Any]]:
    """Split an array along its first dim, into at least one part."""
    if not values.ndim or values.nbytes <= part_bytes:
        yield values
        return
    size = max(1, part_bytes * len(values) // values.nbytes)
    for first in range(0, len(values), size):
        yield values[first : first + size]


def _canonical_dtype(values: NDArray[Any]) -> str:
    """Dtype in which all numbers of a kind are hashed."""
    kind = values.dtype.kind
    if kind == "u" and (values > _LARGEST_INT).any():
        return "<u8"
    dtypes = {"b": "|b1", "i": "<i8", "u": "<i8", "m": "<i8", "M": "<i8", "f": "<f8"}
    if kind not in dtypes:
        raise InputError(f"expected values that are numbers, times or text, got {values.dtype}")
    return dtypes[kind]


def _canonical_values(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Convert numbers to a dtype, such that equal numbers have equal bytes."""
    if values.dtype.kind in "mM":
        values = values.astype(values.dtype.str[1:3] + "[ns]")
    canonical = values.astype(dtype)
    if dtype.kind == "f":
        canonical = canonical + 0.0  # turns -0 into 0
        canonical[np.isnan(canonical)] = np.nan  # NaN has many bit patterns
    return canonical


def _as_float32_if_exact(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """Convert to float32 if that represents the same numbers, to float64 otherwise."""
    as_float32 = np.asarray(values, dtype=np.float32) + np.float32(0)
    return as_float32 if np.array_equal(as_float32, values, equal_nan=True) else np.asarray(values, dtype=float) + 0.0
