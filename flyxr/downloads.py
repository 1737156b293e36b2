"""Files that are downloaded once and kept in a cache folder."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flyxr.errors import DownloadError, FlyxrError, Problem
from flyxr.paths import local_path
from flyxr.progress import is_watched, without_widgets

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator


def default_cache() -> Path:
    """Folder that keeps downloads: ``flyxr`` in the user's cache folder, which ``XDG_CACHE_HOME`` sets on Linux.

    Examples
    --------
    >>> default_cache().name
    'flyxr'
    """
    return Path(_import_pooch().os_cache("flyxr"))


@contextmanager
def quiet() -> Iterator[None]:
    """Keep pooch from printing a line for each of many files.

    Examples
    --------
    >>> with quiet():
    ...     import pooch
    ...     pooch.get_logger().isEnabledFor(20)
    False
    """
    pooch = _import_pooch()
    logger = pooch.get_logger()  # it is no part of the hierarchy of loggers, so that setting its level is no use
    was_disabled, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = was_disabled


def download(
    url: str,
    file_name: str,
    *,
    cache: str | os.PathLike[str] | None = None,
    known_hash: str | None = None,
    check: Callable[[Path], object] | None = None,
    hint: str = "call again, or download the file by hand",
    progressbar: bool = True,
    timeout: float = 60,
) -> Path:
    """Return the path of a file in the cache, and download it if it is missing.

    Parameters
    ----------
    url
        Address to download from.
    file_name
        Name of the file in the cache.
    cache
        Folder that keeps the file; :func:`default_cache` if None.
    known_hash
        Hash of the content, as hexadecimal SHA-256 or with its algorithm, ``"md5:..."``. A file in the cache with
        another hash is downloaded again.
    check
        Called with the path of a download before it enters the cache; raises a FlyxrError if the file is incomplete or
        another one. Needed if no hash is known, since a connection may end early without an error.
    hint
        What people can do if the download fails.
    progressbar
        Show the progress of the download.
    timeout
        Seconds to wait for the server to answer.

    Raises
    ------
    DownloadError
        A ConnectionError, if the download fails or the file is another one. The cache is left as it was.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> size = (folder / "few.npy").write_bytes(b"in the cache already")
    >>> download("https://example.org/few.npy", "few.npy", cache=folder).name
    'few.npy'
    """
    pooch = _import_pooch()

    def download_whole(address: str, output_file: str, registry: Any) -> None:
        # pooch moves this temporary file into the cache when the function returns, and removes it when it raises
        pooch.HTTPDownloader(progressbar=progressbar and is_watched(), timeout=timeout)(address, output_file, registry)
        if check is not None:
            check(Path(output_file))

    folder = default_cache() if cache is None else local_path(cache, "cache")
    try:
        path = pooch.retrieve(url, known_hash=known_hash, fname=file_name, path=folder, downloader=download_whole)
    except FlyxrError as error:
        text = f"the download of {url} was cut short or is another file; it was not kept"
        raise DownloadError(Problem(text, hint), *error.problems) from error
    except (OSError, ValueError) as error:  # pooch raises ValueError for another hash
        raise DownloadError(Problem(f"could not download {url} ({error})", hint)) from error
    return Path(path).resolve()


def _import_pooch() -> Any:
    with without_widgets():
        import pooch
    return pooch
