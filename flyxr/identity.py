"""What content is: hashes of values, samples, models and files, equal wherever and however the same content lies.

Everything that asks whether two things are the same asks here. A hash is a hash of values: in memory or lazy, in any
chunks, in any order of dims, as float32 or float64, as any kind of text, on any machine. What is too large to be read
for that is named by a token of its dask graph, which stands for one graph in one place, and is never taken for a hash.
"""

from __future__ import annotations

import hashlib
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

_READ_BYTES = 2**22
_LARGEST_INT = np.uint64(2**63 - 1)


class ChangedError(FlyxrError, ValueError):
    """A file or a store is no longer what it was when it was opened."""


class FileStamp(NamedTuple):
    """What a file is: its size in bytes, when it was written, in ns, and the digest of its content."""

    n_bytes: int
    mtime_ns: int
    digest: str


def digest(*parts: NDArray[Any] | bytes) -> str:
    """Hash of the bytes of arrays, 16 hexadecimal digits.

    Examples
    --------
    >>> digest(np.zeros(2)), digest(np.zeros(3))
    ('5250a507f994740e', '2bb6ae06ad472028')
    """
    found = hashlib.blake2b(digest_size=8)
    for part in parts:
        found.update(part if isinstance(part, bytes) else np.ascontiguousarray(part).tobytes())
    return found.hexdigest()


def combine(hashes: Iterable[str]) -> str:
    """One hash of several, in their order.

    Examples
    --------
    >>> combine(["a", "b"]) == combine(["ab"])
    False
    """
    return digest(json.dumps(list(hashes)).encode())


def content_hash(
    dataset: xr.Dataset, names: Iterable[Hashable] | None = None, *, dtypes: Mapping[str, DTypeLike] | None = None
) -> str:
    """Hash of names, dims and values of variables; attributes, chunks, order of dims and number of bits do not count.

    Parameters
    ----------
    dataset
        Lazy variables are computed, one after the other.
    names
        Variables and coordinates to hash; without it all.
    dtypes
        Types to take variables as, by name; else integers count as int64 and floats as float64.

    Returns
    -------
    str
        The first 16 hexadecimal digits of SHA-256.

    Raises
    ------
    InputError
        A ValueError. If values are neither numbers, times nor text.

    Examples
    --------
    >>> import xarray as xr
    >>> data = xr.Dataset({"a": ("x", np.array([1.0, 2.0], np.float32)), "b": ("x", ["on", "off"])})
    >>> content_hash(data) == content_hash(data.astype({"a": float, "b": object}).chunk())
    True
    >>> content_hash(data) == content_hash(data.assign(a=data.a + 0.5))
    False
    """
    found = hashlib.sha256()
    for name in sorted(map(str, dataset.variables if names is None else names)):
        variable = dataset[name].variable
        variable = variable.transpose(*sorted(variable.dims, key=str, reverse=True))
        found.update(f"{name}{variable.dims}{variable.shape}".encode())
        values = variable.values
        if _is_text(values.dtype):
            found.update(json.dumps(_as_text(values)).encode())
        else:
            dtype = np.dtype((dtypes or {}).get(name) or _hashed_as(values))
            found.update(dtype.str.encode())
            for part in _parts(values):  # so that no second copy of all is made
                found.update(_plain(part, dtype).tobytes())
    return found.hexdigest()[:16]


def sample_hashes(luminance: NDArray[np.floating], n_frames: NDArray[np.int64] | None = None) -> list[str]:
    """Hash of the luminance (sample, time, column) of each sample, up to its end; as float32, as engines take it.

    Examples
    --------
    >>> sample_hashes(np.zeros((2, 3, 7))) == sample_hashes(np.zeros((2, 3, 7), np.float32))
    True
    """
    values = np.asarray(luminance, dtype=np.float32)
    ends = [values.shape[1]] * len(values) if n_frames is None else n_frames.tolist()
    # Adding 0 makes 0 of -0, which is equal to it.
    return [digest(np.array([end]), sample[:end] + np.float32(0)) for sample, end in zip(values, ends, strict=True)]


def stimulus_hash(hashes: Iterable[str], time: NDArray[np.floating]) -> str:
    """Hash of a whole stimulus, from those of its samples and the time (time,) of its frames, s."""
    return combine([*hashes, digest(np.asarray(time, dtype=float) + 0.0)])


def model_hashes(parameters: Iterable[NDArray[np.floating]]) -> list[str]:
    """Hash of each model, from arrays whose first axis are the models.

    Examples
    --------
    >>> bias = np.array([[0.5, 0.25], [0.5, 0.75]])
    >>> model_hashes([bias]) == model_hashes([bias.astype(np.float32)])
    True
    """
    return [digest(*map(_narrow, of_model)) for of_model in zip(*parameters, strict=True)]


def state_hash(state: xr.DataArray) -> str:
    """Hash of a state (model, sample, cell); a lazy one is computed one sample after the other."""
    samples = (state[:, [sample]].values for sample in range(state.sizes["sample"]))
    return combine([str(state.shape), *(digest(_narrow(of_sample)) for of_sample in samples)])


def token(array: xr.DataArray) -> str | None:
    """Name of the dask graph of an array; None where the array is in memory."""
    return str(array.data.name) if array.chunks is not None else None


def file_stamp(path: str | os.PathLike[str]) -> FileStamp:
    """What a file is; its content is read once a process, and again when its size or time has changed.

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
    """Raise if the content of a file is no longer what its stamp says; one that was only touched is as good.

    Raises
    ------
    ChangedError
        A ValueError.
    """
    stat = os.stat(path)
    if _size_and_time(stat) == stamp[:2]:
        return
    if stat.st_size != stamp.n_bytes or file_stamp(path).digest != stamp.digest:
        raise ChangedError(Problem(f"{path} has changed since it was opened", "open it again"))


def content_digest(path: str | os.PathLike[str]) -> str:
    """Digest of the content of a file (XXH3, 64 bits), 16 hexadecimal digits."""
    import xxhash

    found = xxhash.xxh3_64()
    with Path(path).open("rb") as file:
        while part := file.read(_READ_BYTES):
            found.update(part)
    return found.hexdigest()


def _size_and_time(stat: os.stat_result) -> tuple[int, int]:
    return stat.st_size, stat.st_mtime_ns


@lru_cache(maxsize=1024)
def _file_digest(path: str, inode: int, n_bytes: int, mtime_ns: int) -> str:
    return content_digest(path)


def _is_text(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "OUT"


def _as_text(values: NDArray[Any]) -> Any:
    """Nested lists of text, and of the numbers among text."""
    flat = [str(value) if isinstance(value, str) else value for value in values.ravel().tolist()]
    strange = {type(value).__name__ for value in flat if not isinstance(value, str | bool | int | float | None)}
    if strange:
        raise InputError(f"expected values that are text or numbers, got {', '.join(sorted(strange))}")
    return np.reshape(np.array(flat, dtype=object), values.shape).tolist()


def _parts(values: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Parts of an array along its first dim, one at least."""
    if not values.ndim or values.nbytes <= _READ_BYTES:
        yield values
        return
    size = max(1, _READ_BYTES * len(values) // values.nbytes)
    for first in range(0, len(values), size):
        yield values[first : first + size]


def _hashed_as(values: NDArray[Any]) -> str:
    """The one type that numbers of a kind are hashed as."""
    kind = values.dtype.kind
    if kind == "u" and (values > _LARGEST_INT).any():
        return "<u8"
    known = {"b": "|b1", "i": "<i8", "u": "<i8", "m": "<i8", "M": "<i8", "f": "<f8"}
    if kind not in known:
        raise InputError(f"expected values that are numbers, times or text, got {values.dtype}")
    return known[kind]


def _plain(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """The same numbers in another type, those that are equal with the same bytes."""
    if values.dtype.kind in "mM":
        values = values.astype(values.dtype.str[1:3] + "[ns]")
    plain = values.astype(dtype)
    if dtype.kind == "f":
        plain = plain + 0.0  # makes 0 of -0
        plain[np.isnan(plain)] = np.nan  # there are many NaN
    return plain


def _narrow(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """As float32 if that holds the same numbers."""
    narrow = np.asarray(values, dtype=np.float32) + np.float32(0)
    return narrow if np.array_equal(narrow, values, equal_nan=True) else np.asarray(values, dtype=float) + 0.0
