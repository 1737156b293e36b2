"""The Moving MNIST data set, downloaded once and read lazily."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flyxr import identity, schema
from flyxr.errors import DownloadError, MissingError, Problem, raise_problems
from flyxr.stimuli import arrays

if TYPE_CHECKING:
    import os

    import xarray as xr
    from numpy.typing import NDArray

URL = "https://www.cs.toronto.edu/~nitish/unsupervised_video/mnist_test_seq.npy"
"""Where the authors of the data set publish it: uint8 (time 20, sample 10,000, y 64, x 64), 0.8 GB."""


def moving_mnist(
    path: str | os.PathLike[str] | None = None,
    *,
    frame_rate: float = 30.0,
    sample_chunk: int = 16,
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
        Local file in the published layout, uint8 (time, sample, y, x), of any lengths; nothing is downloaded then.
    frame_rate
        Frames per second; the file itself states none.
    sample_chunk
        Sequences in a chunk.
    url
        Where to download from; :data:`URL` if None.
    cache
        Directory that keeps the download; ``pooch.os_cache("flyxr")`` if None.
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
        A ValueError. On computing, if the file has other content than when it was opened.
    ConnectionError
        If the download fails; nothing half-written is left where the next call would take it for complete.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "few.npy"
    >>> np.save(file, np.zeros((20, 3, 64, 64), np.uint8))
    >>> dict(moving_mnist(file).luminance.sizes)
    {'sample': 3, 'time': 20, 'y': 64, 'x': 64}
    """
    problems = arrays.frame_rate_problems(frame_rate) + arrays.count_problems(sample_chunk=sample_chunk)
    raise_problems(schema.SchemaError, "not a movie", problems)
    if path is None:
        file = _download(URL if url is None else url, cache, progressbar)
    else:
        file = Path(path).expanduser().resolve()
        if not file.is_file():
            raise MissingError(
                Problem(
                    f"expected Moving MNIST at {file}, found no file", "leave path out to download it once (0.8 GB)"
                )
            )
    time, samples, height, width = _open(file).shape
    stamp = identity.file_stamp(file)
    what = {"path": str(file), "stamp": tuple(stamp), "time": time}
    luminance = arrays.generate(_sequences, samples, (time, height, width), sample_chunk, **what)
    stimulus = {"name": "moving_mnist", "file": file.name}
    return arrays.wrap(luminance, frame_rate, stimulus=stimulus, hashes={"file": stamp.digest})


def _sequences(indices: NDArray[np.int64], *, path: str, stamp: tuple[int, int, str], time: int) -> NDArray[np.float32]:
    """Frames (index, time, y, x) of consecutive sequences; the file is opened by the task, not carried in the graph."""
    identity.check_file(path, identity.FileStamp(*stamp))
    frames = _open(Path(path))[:time, indices[0] : indices[-1] + 1]
    return frames.swapaxes(0, 1).astype(np.float32) / np.float32(255)


def _open(file: Path) -> NDArray[np.uint8]:
    """Memory map (time, sample, y, x) of a file that is whole and in the published layout."""
    try:
        found: Any = np.load(file, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise _refusal(file, f"{file.stat().st_size:,} bytes that are no complete .npy array ({error})") from error
    if not isinstance(found, np.ndarray):
        found.close()
        raise _refusal(file, "an archive of several arrays")
    if found.ndim != 4 or found.dtype != np.uint8 or not found.size:
        raise _refusal(file, f"{found.dtype} of shape {found.shape}")
    surplus = file.stat().st_size - found.nbytes - getattr(found, "offset", 0)
    if surplus:
        raise _refusal(file, f"{surplus:,} bytes more than its header states")
    return found


def _refusal(file: Path, got: str) -> schema.SchemaError:
    return schema.SchemaError(
        Problem(
            f"expected Moving MNIST, a .npy file of uint8 (time, sample, y, x), published as (20, 10000, 64, 64), "
            f"got {got} in {file}",
            "for frames of your own use fx.stimuli.from_array(np.load(...), frame_rate=...); "
            "a broken download has to be deleted, then moving_mnist() downloads it again",
        )
    )


def _download(url: str, cache: str | os.PathLike[str] | None, progressbar: bool) -> Path:
    """Path of the cached file, which is downloaded if it is not there."""
    import pooch

    def download_whole(address: str, output_file: str, registry: Any) -> None:
        # pooch moves the temporary file into place when this returns, and removes it when this raises: no hash of
        # the data set is published, so a body that was cut short is found out here, before it can pass for complete
        pooch.HTTPDownloader(progressbar=progressbar, timeout=60)(address, output_file, registry)
        _open(Path(output_file))

    try:
        found = pooch.retrieve(
            url,
            known_hash=None,
            fname="mnist_test_seq.npy",
            path=pooch.os_cache("flyxr") if cache is None else Path(cache).expanduser(),
            downloader=download_whole,
        )
    except schema.SchemaError as error:
        raise DownloadError(
            Problem(
                f"the download of {url} was cut short or is another file; nothing was kept",
                "call again, or download the file by hand and give moving_mnist(path)",
            ),
            *error.problems,
        ) from error
    except OSError as error:
        raise DownloadError(
            Problem(
                f"could not download {url} ({error})",
                "call again, download the file by hand and give moving_mnist(path), or use moving_digits(), which "
                "needs no download",
            )
        ) from error
    return Path(found).resolve()
