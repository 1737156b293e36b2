from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import flyxr as fx
from flyxr import bench, store
from flyxr.errors import InputError
from flyxr.paths import local_path
from flyxr.testing import random_rendering, tiny_connectome

if TYPE_CHECKING:
    from collections.abc import Callable


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


CONNECTOME = tiny_connectome(extent=2)
RENDERING = random_rendering()
MODELS = fx.sample_ensemble(1, seed=0, connectome=CONNECTOME)
RESPONSES = fx.simulate(RENDERING, MODELS, connectome=CONNECTOME, device="cpu")

WRITING: dict[str, Callable[[Any], Any]] = {
    "save": lambda path: fx.save(RENDERING, path),
    "sweep": lambda path: fx.sweep(RENDERING, MODELS, path, connectome=CONNECTOME, device="cpu", progress=False),
    "plan": lambda path: fx.sweep(RENDERING, MODELS, path, connectome=CONNECTOME, device="cpu", plan_only=True),
    "report": lambda path: fx.viz.report(None, RENDERING, RESPONSES, path, cell_type="T"),
    "bench": lambda path: bench.write({"size": "quick"}, out=path),
}
READING: dict[str, Callable[[Any], Any]] = {
    "open": fx.open,
    "open_ensemble": fx.open_ensemble,
    "open_connectome": fx.open_connectome,
    "sweep_status": fx.sweep_status,
    "describe": store.describe,
    "from_video": fx.stimuli.from_video,
    "moving_mnist": fx.stimuli.moving_mnist,
    "cache": lambda path: fx.stimuli.moving_mnist(cache=path),
}


TAKE_URLS = {"save", "sweep", "plan", "open", "open_ensemble", "sweep_status", "describe"}
"""Functions that read or write other places, which test_remote.py tests."""
LOCAL = {name: function for name, function in (WRITING | READING).items() if name not in TAKE_URLS}


@pytest.mark.parametrize("name", sorted(TAKE_URLS))
def test_functions__take_no_url_of_another_protocol_for_a_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for url in ("ftp://host/x", Path("ssh://host/x")):
        with pytest.raises(InputError, match="a URL of one of http, https, s3"):
            (WRITING | READING)[name](url)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("function", LOCAL.values(), ids=LOCAL)
@pytest.mark.parametrize("url", ["memory://x", "s3://bucket/x", Path("https://a.b/x")], ids=str)
def test_functions__take_no_url_for_a_folder(
    function: Callable[[Any], Any], url: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="expected a path on this machine, got the URL"):
        function(url)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("function", WRITING.values(), ids=WRITING)
def test_functions__write_to_the_home_folder(
    function: Callable[[Any], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(work)
    result = function("~/x")
    assert [path.name for path in home.glob("[!.]*")] == ([] if hasattr(result, "n_blocks") else ["x"])
    assert list(work.iterdir()) == []


@pytest.mark.parametrize("name", ["open", "sweep_status", "describe"])
def test_functions__read_from_the_home_folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    fx.sweep(RENDERING, MODELS, "~/x", connectome=CONNECTOME, device="cpu", progress=False)
    assert READING[name]("~/x") is not None
    np.testing.assert_array_equal(fx.open("~/x").response, RESPONSES.response)
