"""Places of stores: folders on this machine, zipped stores, web servers and object storage.

A place on this machine is a ``pathlib.Path``; any other is a ``upath.UPath``, which has the same operators and methods.
"""

from __future__ import annotations

import re
import time
import zipfile
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar
from urllib.parse import urlsplit

from flyxr.errors import (
    DependencyError,
    ExistsError,
    FlyxrError,
    FlyxrWarning,
    InputError,
    MissingError,
    Problem,
    UnwritableError,
)
from flyxr.paths import is_url, local_path
from flyxr.progress import progress_bar

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from upath import UPath

    Place: TypeAlias = Path | UPath

T = TypeVar("T")

PACKAGES = {
    "http": "aiohttp",
    "https": "aiohttp",
    "s3": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "abfs": "adlfs",
    "az": "adlfs",
    "memory": "fsspec",
}
"""Protocols that are supported, and the package that each of them needs."""

WRITABLE = ("s3", "gs", "gcs", "abfs", "az", "memory")
"""Protocols of places that can be written."""

MAX_BYTES = 2**31
"""Largest object that is read, bytes."""
N_TRIES = 3
_MAX_REDIRECTS = 5
_CONNECT_SECONDS, _READ_SECONDS, _TOTAL_SECONDS = 30, 60, 1800
_NOT_FOUND = (FileNotFoundError, IsADirectoryError, NotADirectoryError)


class RemoteError(FlyxrError, OSError):
    """A place on another machine cannot be read."""


def find(
    path: str | os.PathLike[str] | UPath, storage_options: Mapping[str, Any] | None = None, *, name: str = "path"
) -> Place:
    """The place that a path or a URL names; nothing is read, except the list of files of a zip on this machine.

    Parameters
    ----------
    path
        A path on this machine, a URL, or either of a zipped store, which ends with ``.zip``.
    storage_options
        Options of the fsspec file system of a URL, such as ``{"anon": True}`` for a public bucket.
    name
        What an error calls the path.

    Raises
    ------
    InputError
        A ValueError. If it is neither, or the protocol of the URL is not supported.
    DependencyError
        An ImportError. If the protocol needs a package that is not installed.

    Examples
    --------
    >>> find("responses.zarr")
    PosixPath('responses.zarr')
    >>> str(find("memory://bucket") / "responses.zarr")
    'memory://bucket/responses.zarr'
    """
    if is_remote(path):
        return path
    options = dict(storage_options or {})
    text = str(path)
    if not is_url(path):
        local = local_path(path, name)
        if options:
            text = f"expected storage_options for a URL, got the path {local} on this machine"
            raise InputError(Problem(text, "leave them out"))
        return _find_in_zip(str(local), {}) if local.suffix.lower() == ".zip" and local.is_file() else local
    text = re.sub(r"^(\w+):/(?!/)", r"\1://", text)  # a Path joins the two slashes to one
    protocol = text.split(":", 1)[0].lower()
    if protocol not in PACKAGES or "::" in text:
        supported = ", ".join(PACKAGES)
        raise InputError(
            Problem(
                f"expected {name} on this machine or a URL of one of {supported}, got {text}",
                "copy the data to one of these, or mount the place as a folder",
            )
        )
    _check_package(protocol)
    options = _with_defaults(protocol, options)
    if urlsplit(text).path.lower().endswith(".zip"):
        return _find_in_zip(text, {protocol: options})
    from upath import UPath

    return UPath(text.rstrip("/") if protocol != "memory" else text, **options)


def is_remote(place: object) -> bool:
    """Whether a place is not a folder on this machine, so that files may not be renamed or locked there.

    Examples
    --------
    >>> is_remote(find("responses.zarr")), is_remote(find("memory://responses.zarr"))
    (False, True)
    """
    return hasattr(place, "fs") and hasattr(place, "storage_options")


def is_web(place: object) -> bool:
    """Whether a place is on a web server, which may not list its files."""
    return is_remote(place) and place.protocol in ("http", "https")  # type: ignore[attr-defined]


def _check_package(protocol: str) -> None:
    from importlib.util import find_spec

    package = PACKAGES[protocol]
    if find_spec(package) is None:
        raise DependencyError(
            Problem(f"expected the package {package} for {protocol}:// URLs, got none", f"pip install {package}")
        )


def _with_defaults(protocol: str, options: dict[str, Any]) -> dict[str, Any]:
    """Options with limits on the time to wait, and without cached lists of files, which others may change."""
    if protocol in ("http", "https"):
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=_TOTAL_SECONDS, sock_connect=_CONNECT_SECONDS, sock_read=_READ_SECONDS)
        options["client_kwargs"] = {"timeout": timeout, **options.get("client_kwargs", {})}
        options.setdefault("allow_redirects", False)  # to another host only if the user says so
    return options if protocol == "memory" else {"use_listings_cache": False, **options}


def _find_in_zip(text: str, options: dict[str, dict[str, Any]]) -> UPath:
    """The folder with ``zarr.json`` in a zip: its top, or the only folder there."""
    from upath import UPath

    top = UPath(f"zip://::{text}", **options)
    names = call(lambda: [entry["name"].rstrip("/") for entry in top.fs.ls("", detail=True)], text)
    if "zarr.json" in names or len(names) != 1:
        return top
    return UPath(f"zip://{names[0]}::{text}", **options)


def call(function: Callable[[], T], label: object) -> T:
    """Call a function that reads from another machine, again if the connection fails.

    Raises
    ------
    FileNotFoundError
        If there is nothing at the place.
    RemoteError
        An OSError. If reading fails again; ``label`` names the place.

    Examples
    --------
    >>> call(lambda: 1, "memory://a")
    1
    """
    attempt = 0
    while True:
        attempt += 1
        try:
            return function()
        except (FlyxrError, *_NOT_FOUND):
            raise
        except Exception as error:  # file systems and their clients raise many kinds
            denied = isinstance(error, PermissionError) or getattr(error, "status", 0) in (401, 403)
            is_damaged = isinstance(error, (TypeError, ValueError, zipfile.BadZipFile))
            if attempt < N_TRIES and not denied and not is_damaged:
                time.sleep(0.1 * 2**attempt)
                continue
            hint = (
                "pass credentials, or {'anon': True} for a public bucket, as storage_options="
                if denied
                else "check the address and the connection, and call again"
            )
            text = f"{label} cannot be read ({type(error).__name__}: {str(error)[:200]})"
            raise RemoteError(Problem(text, hint)) from error


def read_bytes(place: Place, max_bytes: int = MAX_BYTES, span: tuple[int | None, int | None] = (None, None)) -> bytes:
    """Content of a file, or the span of it from a first byte to a last one; a negative first byte counts from the end.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    RemoteError
        An OSError. If it is larger than ``max_bytes``, or cannot be read.

    Examples
    --------
    >>> place = find("memory://flyxr/few.bin")
    >>> _ = place.write_bytes(b"abcdef")
    >>> read_bytes(place), read_bytes(place, span=(2, 4)), read_bytes(place, span=(-2, None))
    (b'abcdef', b'cd', b'ef')
    """
    return call(lambda: _read(place, max_bytes, span), place)


def _read(place: Place, max_bytes: int, span: tuple[int | None, int | None]) -> bytes:
    if is_web(place):
        return _read_web(place, max_bytes, span)
    start, end = span
    if not is_remote(place) or span == (None, None) or not place.fs.async_impl:  # type: ignore[union-attr]
        n_bytes = place.stat().st_size
        start = 0 if start is None else start if start >= 0 else max(0, n_bytes + start)
        end = n_bytes if end is None else min(end, n_bytes)
        _check_size(place, end - start, max_bytes)
        if not is_remote(place):
            with place.open("rb") as file:
                file.seek(start)
                return bytes(file.read(end - start))
    return bytes(place.fs.cat_file(place.path, start=start, end=end))  # type: ignore[union-attr]


def _check_size(place: Place, n_bytes: int, max_bytes: int) -> None:
    if n_bytes > max_bytes:
        raise RemoteError(f"{place}: expected at most {max_bytes:,} bytes, got {n_bytes:,}")


def _read_web(place: Any, max_bytes: int, span: tuple[int | None, int | None]) -> bytes:
    """Read from a web server, never more than ``max_bytes`` into memory, whatever the server sends."""
    from fsspec.asyn import sync

    return bytes(sync(place.fs.loop, _fetch, place, max_bytes, span))


async def _fetch(place: Any, max_bytes: int, span: tuple[int | None, int | None]) -> bytes:
    start, end = span
    headers = {"Accept-Encoding": "identity", **place.fs.kwargs.get("headers", {})}
    if span != (None, None):
        last = "" if end is None else end - 1
        headers["Range"] = f"bytes={start}" if start is not None and start < 0 else f"bytes={start or 0}-{last}"
    options = {name: value for name, value in place.fs.kwargs.items() if name != "headers"}
    session = await place.fs.set_session()
    url = place.fs.encode_url(place.path)
    for _ in range(_MAX_REDIRECTS):
        async with session.get(url, headers=headers, **options) as response:
            if response.status in (301, 302, 303, 307, 308) and "Location" in response.headers:
                url = _redirected(response)
                continue
            if response.status in (404, 410):
                raise MissingError(f"no file at {place}")
            if response.status == 416:  # an empty file has no range
                return b""
            response.raise_for_status()
            content = await _receive(place, response, max_bytes)
            if "Range" in headers and response.status != 206:
                _warn_of_ranges(place)
                return content[slice(start, end)]
            return content
    raise RemoteError(f"{place}: expected at most {_MAX_REDIRECTS} redirections, got more")


def _redirected(response: Any) -> Any:
    """Address that a server redirects to, on the same host."""
    url = response.url.join(response.url.__class__(response.headers["Location"]))
    if url.host != response.url.host or url.scheme not in ("http", "https"):
        text = f"{response.url} redirects to another host, {url}"
        raise RemoteError(Problem(text, "open that address if you trust it"))
    return url


async def _receive(place: Any, response: Any, max_bytes: int) -> bytes:
    content = bytearray()
    async for part in response.content.iter_chunked(2**20):
        content += part
        _check_size(place, len(content), max_bytes)
    expected = response.content_length
    if expected is not None and len(content) < expected:
        import aiohttp

        raise aiohttp.ClientPayloadError(f"expected {expected:,} bytes, got {len(content):,}")
    return bytes(content)


_hosts_without_ranges: set[str] = set()


def _warn_of_ranges(place: Any) -> None:
    import warnings

    host = urlsplit(str(place)).netloc
    if host not in _hosts_without_ranges:
        _hosts_without_ranges.add(host)
        text = f"the server {host} ignores requests for parts of files, so that whole files are read"
        warnings.warn(FlyxrWarning(Problem(text, "serve the folder with nginx or from a bucket")), stacklevel=2)


def exists(place: Place) -> bool:
    """Whether there is a file at a place.

    Examples
    --------
    >>> exists(find("memory://flyxr/nothing.bin"))
    False
    """
    if is_web(place):  # some servers do not answer HEAD
        try:
            read_bytes(place, span=(0, 1))
        except _NOT_FOUND:
            return False
        return True
    try:
        return bool(call(place.is_file, place))
    except _NOT_FOUND:
        return False


def list_sizes(place: UPath) -> dict[str, int]:
    """Sizes of all files below a place on another machine, bytes, by relative path; empty if it has none.

    Raises
    ------
    RemoteError
        An OSError. If the place cannot be listed, as on most web servers.
    """
    place.fs.invalidate_cache()
    root = place.path.rstrip("/")
    found = call(lambda: place.fs.find(root, detail=True), place)
    prefix = f"{root}/" if root else ""
    return {name.removeprefix(prefix): int(info.get("size") or 0) for name, info in found.items()}


def list_names(place: UPath) -> list[str]:
    """Names of what lies directly in a place on another machine; empty if it cannot be listed."""
    place.fs.invalidate_cache()
    try:
        entries = call(lambda: place.fs.ls(place.path, detail=False), place)
    except (*_NOT_FOUND, RemoteError):
        return []
    return sorted({str(entry).rstrip("/").rsplit("/", 1)[-1] for entry in entries})


def check_writable(place: Place) -> None:
    """Raise if nothing can be written at a place, such as a web server or a zip."""
    if is_remote(place) and place.protocol not in WRITABLE:  # type: ignore[union-attr]
        kind = "in a zip" if place.protocol == "zip" else "on a web server"  # type: ignore[union-attr]
        raise UnwritableError(
            Problem(
                f"expected a place that can be written, got {place}, which is {kind}",
                "write to this machine or to object storage such as s3://",
            )
        )


def write_bytes(place: UPath, content: bytes, *, exclusive: bool = False) -> None:
    """Write an object completely or not at all; with ``exclusive`` only if there is none.

    Raises
    ------
    FileExistsError
        With ``exclusive``, if there is an object. Storage without conditional writes is asked beforehand.
    UnwritableError
        An OSError. If it cannot be written.

    Examples
    --------
    >>> place = find("memory://flyxr/new.bin")
    >>> write_bytes(place, b"content")
    >>> place.read_bytes()
    b'content'
    """
    fs, path = place.fs, place.path
    for attempt in range(N_TRIES):
        try:
            if exclusive and (place.protocol != "s3" or attempt > 0) and exists(place):
                raise ExistsError(f"{place} exists")
            fs.pipe_file(path, content, **({"mode": "create"} if exclusive and place.protocol == "s3" else {}))
            return
        except FileExistsError:
            raise
        except Exception as error:  # file systems and their clients raise many kinds
            if attempt + 1 < N_TRIES and not isinstance(error, (PermissionError, FileNotFoundError)):
                time.sleep(0.2 * 2**attempt)
                continue
            text = f"cannot write {place} ({type(error).__name__}: {str(error)[:200]})"
            raise UnwritableError(Problem(text, "check the credentials, or choose another place")) from error


def remove(place: UPath, names: Iterable[str]) -> None:
    """Remove files below a place on another machine; those that are not there are ignored."""
    for name in names:
        try:
            place.fs.rm_file(f"{place.path.rstrip('/')}/{name}")
        except _NOT_FOUND:
            continue
        except Exception as error:  # file systems and their clients raise many kinds
            text = f"cannot remove {place / name} ({type(error).__name__}: {error})"
            raise UnwritableError(Problem(text, "check the credentials")) from error


def upload(folder: Path, place: UPath, *, last: str = "zarr.json", progress: str = "") -> None:
    """Upload all files of a folder, the file ``last`` after the others, since it makes the store visible.

    If this fails, the files that were uploaded are removed.

    Raises
    ------
    UnwritableError
        An OSError. If a file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "zarr.json").write_bytes(b"{}")
    >>> upload(folder, find("memory://flyxr/store"))
    >>> list_sizes(find("memory://flyxr/store"))
    {'zarr.json': 2}
    """
    from concurrent.futures import ThreadPoolExecutor

    names = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    others = [name for name in names if name != last]

    def put(name: str) -> None:
        write_bytes(place / name, (folder / name).read_bytes())

    try:
        # Object storage is slow to answer and fast to receive, so that several files are sent at once.
        with ThreadPoolExecutor(16) as pool, progress_bar(progress, total=len(names), unit="file") as bar:
            for _ in pool.map(put, others):
                bar.update()
            if last in names:
                put(last)
                bar.update()
    except BaseException:
        remove(place, names)
        raise


def missing_place_error(place: Place, expected: str) -> MissingError:
    """Error for a place on another machine without a store."""
    return MissingError(
        Problem(f"no store at {place}: expected {expected}", "check the address; a store appears once it is complete")
    )
