"""Downloads over a local server: kept once, whole, or not at all."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import pytest

from flyxr.downloads import default_cache, download
from flyxr.errors import DownloadError, InputError, Problem

if TYPE_CHECKING:
    from pathlib import Path

BODY = bytes(range(256)) * 40
SHA256 = hashlib.sha256(BODY).hexdigest()


def check_whole(path: Path) -> None:
    if path.read_bytes() != BODY:
        raise InputError(Problem("expected the whole file, got another"))


def test_download__once_with_progress(file_server: Any, tmp_path: Path, terminal: pytest.CaptureFixture[str]) -> None:
    file_server.body = BODY
    cache = tmp_path / "new" / "cache"
    path = download(file_server.url, "file.bin", cache=cache)
    assert "100%" in terminal.readouterr().err
    assert path == cache / "file.bin"
    assert path.read_bytes() == BODY
    download(file_server.url, "file.bin", cache=cache)
    assert file_server.n_requests == 1


def test_download__default_cache(file_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pooch

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if pooch.os_cache("flyxr") != tmp_path / "flyxr":
        pytest.skip("XDG_CACHE_HOME has no effect on this system")
    assert default_cache() == tmp_path / "flyxr"
    file_server.body = BODY
    assert download(file_server.url, "file.bin", progressbar=False) == (tmp_path / "flyxr" / "file.bin").resolve()


@pytest.mark.parametrize("known_hash", [SHA256, f"md5:{hashlib.md5(BODY).hexdigest()}"])
def test_download__known_hash(file_server: Any, tmp_path: Path, known_hash: str) -> None:
    file_server.body = BODY
    (tmp_path / "file.bin").write_bytes(b"an older file")
    path = download(file_server.url, "file.bin", cache=tmp_path, known_hash=known_hash, progressbar=False)
    assert path.read_bytes() == BODY


def test_download__other_hash_is_not_kept(file_server: Any, tmp_path: Path) -> None:
    file_server.body = BODY + b"more"
    with pytest.raises(DownloadError, match="does not match the known hash.*: call again"):
        download(file_server.url, "file.bin", cache=tmp_path, known_hash=SHA256, progressbar=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("sends_length", [True, False])
@pytest.mark.parametrize("n_cut", [1, 5000, len(BODY)])
def test_download__interrupted_is_not_kept(file_server: Any, tmp_path: Path, n_cut: int, sends_length: bool) -> None:
    file_server.body, file_server.n_cut, file_server.sends_length = BODY, n_cut, sends_length
    with pytest.raises(ConnectionError, match="try moving_digits"):
        download(
            file_server.url, "file.bin", cache=tmp_path, check=check_whole, hint="try moving_digits", progressbar=False
        )
    assert list(tmp_path.iterdir()) == []
    file_server.n_cut = 0
    path = download(file_server.url, "file.bin", cache=tmp_path, check=check_whole, progressbar=False)
    assert path.read_bytes() == BODY


def test_download__check_that_fails_is_named(file_server: Any, tmp_path: Path) -> None:
    file_server.body = b"<html>not found</html>"
    with pytest.raises(DownloadError, match="expected the whole file, got another"):
        download(file_server.url, "file.bin", cache=tmp_path, check=check_whole, progressbar=False)


def test_download__no_file_on_the_server(file_server: Any, tmp_path: Path) -> None:
    file_server.status = 404
    with pytest.raises(DownloadError, match="could not download .*404.*: call again"):
        download(file_server.url, "file.bin", cache=tmp_path, progressbar=False)
