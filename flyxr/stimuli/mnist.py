"""The Moving MNIST data set, downloaded once and read lazily."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flyxr import downloads, identity, provenance, schema
from flyxr.arguments import Arguments
from flyxr.errors import MissingError, Problem
from flyxr.optics import FRAME_RATE
from flyxr.paths import local_path
from flyxr.stimuli import base

if TYPE_CHECKING:
    import os

    import xarray as xr
    from numpy.typing import NDArray

URL = "https://www.cs.toronto.edu/~nitish/unsupervised_video/mnist_test_seq.npy"
"""Address at which the authors publish the data set: uint8 (time 20, sample 10,000, y 64, x 64), 0.8 GB."""


def moving_mnist(
    path: str | os.PathLike[str] | None = None,
    *,
    frame_rate: float = FRAME_RATE,
    sample_chunk: int = base.SAMPLE_CHUNK,
    url: str | None = None,
    cache: str | os.PathLike[str] | None = None,
    progressbar: bool = True,
) -> xr.Dataset:
    """Moving MNIST: 10,000 sequences of two handwritten digits that bounce off the walls (Srivastava et al. 2015).

    The file is downloaded once (0.8 GB) and read through a memory map, a chunk at a time. Without a network,
    :func:`flyxr.stimuli.moving_digits` makes the same kind of movie.

    Parameters
    ----------
    path
        Local file in the published layout, uint8 (time, sample, y, x), of any lengths. Nothing is downloaded if it is
        given.
    frame_rate
        Frames per second; the file does not state it.
    sample_chunk
        Sequences in a chunk.
    url
        Address to download from; :data:`URL` if None.
    cache
        Folder that keeps the download. If None, ``flyxr`` in the user's cache folder, which the environment variable
        ``XDG_CACHE_HOME`` sets on Linux.
    progressbar
        Show the progress of the download.

    Returns
    -------
    Dataset
        ``luminance`` (sample, time, y, x), float32, the file's values divided by 255, lazy: (10000, 20, 64, 64) for
        the published file. The numbers are those of ``flyvis.utils.dataset_utils.load_moving_mnist``.

    Raises
    ------
    SchemaError
        If the file is incomplete or another one, or ``frame_rate`` or ``sample_chunk`` is not positive.
    FileNotFoundError
        If there is no file at ``path``.
    ChangedError
        A ValueError. When computing, if the content of the file has changed since it was opened.
    ConnectionError
        If the download fails. An incomplete file never stays in the cache.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "few.npy"
    >>> np.save(file, np.zeros((20, 3, 64, 64), np.uint8))
    >>> dict(moving_mnist(file).luminance.sizes)
    {'sample': 3, 'time': 20, 'y': 64, 'x': 64}
    """
    arguments = Arguments("not a movie", schema.SchemaError)
    frame_rate = arguments.frame_rate(frame_rate)
    sample_chunk = arguments.integer("sample_chunk", sample_chunk, least=1)
    arguments.raise_problems()
    if path is None:
        file = downloads.download(
            URL if url is None else url,
            "mnist_test_seq.npy",
            cache=cache,
            check=_open_memmap,  # no hash of the file is published
            hint="call again, download the file by hand and call moving_mnist(path), or use moving_digits(), which "
            "needs no download",
            progressbar=progressbar,
        )
    else:
        file = local_path(path).resolve()
        if not file.is_file():
            raise MissingError(
                Problem(
                    f"expected Moving MNIST at {file}, found no file", "leave path out to download it once (0.8 GB)"
                )
            )
    n_frames, n_samples, height, width = _open_memmap(file).shape
    stamp = identity.file_stamp(file)
    luminance = base.generate(
        _read_sequences, n_samples, (n_frames, height, width), sample_chunk, path=str(file), stamp=tuple(stamp)
    )
    movie = base.wrap(luminance, frame_rate)
    recorded = {"file": file.name, "frame_rate": frame_rate}
    return provenance.add(movie, "moving_mnist", recorded, hashes={"file": stamp.digest})


def _read_sequences(indices: NDArray[np.int64], *, path: str, stamp: tuple[int, int, str]) -> NDArray[np.float32]:
    """Frames (index, time, y, x) of consecutive sequences; the task opens the file, which the graph does not hold."""
    identity.check_file(path, identity.FileStamp(*stamp))
    frames = _open_memmap(Path(path))[:, indices[0] : indices[-1] + 1]
    return frames.swapaxes(0, 1).astype(np.float32) / np.float32(255)


def _open_memmap(file: Path) -> NDArray[np.uint8]:
    """Memory map (time, sample, y, x) of a file that is whole and in the published layout."""
    try:
        frames: Any = np.load(file, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        size = file.stat().st_size
        raise _file_error(file, f"{size:,} bytes that are not a complete .npy array ({error})") from error
    if not isinstance(frames, np.ndarray):
        frames.close()
        raise _file_error(file, "an archive of several arrays")
    if frames.ndim != 4 or frames.dtype != np.uint8 or not frames.size:
        raise _file_error(file, f"{frames.dtype} of shape {frames.shape}")
    n_surplus = file.stat().st_size - frames.nbytes - getattr(frames, "offset", 0)
    if n_surplus:
        raise _file_error(file, f"{n_surplus:,} bytes more than its header states")
    return frames


def _file_error(file: Path, got: str) -> schema.SchemaError:
    return schema.SchemaError(
        Problem(
            f"expected Moving MNIST, a .npy file of uint8 (time, sample, y, x), published as (20, 10000, 64, 64), "
            f"got {got} in {file}",
            "for your own frames use fx.stimuli.from_array(np.load(...), frame_rate=...); "
            "delete a broken download, then moving_mnist() downloads it again",
        )
    )
