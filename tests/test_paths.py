from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flyxr.errors import InputError
from flyxr.paths import local_path


@pytest.mark.parametrize("path", ["~/a.zarr", Path("~/a.zarr")])
def test_local_path__expands_the_home_folder(path: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert local_path(path) == tmp_path / "a.zarr"


URLS = [
    "memory://x.zarr",
    "s3://bucket/x.zarr",
    "https://a.b/x.zarr",
    "gs://b/x",
    "simplecache::s3://bucket/x",
    "file://host/x",
]


@pytest.mark.parametrize("url", [*URLS, *map(Path, URLS[:-1])], ids=repr)
def test_local_path__refuses_urls(url: Any) -> None:
    with pytest.raises(InputError, match="expected a path on this machine, got the URL"):
        local_path(url)


@pytest.mark.parametrize("path", ["file:///tmp/x.zarr", "file://localhost/tmp/x.zarr", "FILE:///tmp/x.zarr"])
def test_local_path__takes_local_urls(path: str) -> None:
    assert local_path(path) == Path("/tmp/x.zarr")


@pytest.mark.parametrize("path", ["a:b.zarr", "C:/x.zarr", "x.zarr", "./s3:x"])
def test_local_path__takes_names_with_colons(path: str) -> None:
    assert local_path(path) == Path(path)


@pytest.mark.parametrize("path", [None, "", 3, b"x.zarr", ["x"], "~nobody-of-this-name/x"])
def test_local_path__refuses_what_is_no_path(path: Any) -> None:
    with pytest.raises(InputError, match="expected path"):
        local_path(path)
