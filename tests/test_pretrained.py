"""The published ensemble: fetched whole over a server that breaks in every way, or from copies, and opened by name."""

from __future__ import annotations

import http.server
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pooch
import pytest
import xarray as xr

import flyxr as fx
from flyxr import cli, flyvis, provenance, store
from flyxr.errors import DownloadError, FlyxrWarning, InputError, MissingError, UnwritableError
from flyxr.flyvis import EnsembleError, fetch_files, published_files
from flyxr.flyvis.published import find_wrong_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FEW = published_files()[:3]


class Site:
    """Serves the files below a folder; ``faults`` maps paths to functions that answer instead."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.faults: dict[str, Callable[[Any, bytes], None]] = {}
        self.requested: list[str] = []
        self.is_over = threading.Event()
        site = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.removeprefix("/moved").lstrip("/")
                site.requested.append(path)
                body = (site.folder / path).read_bytes()
                site.faults.get(path, send)(self, body)

            def log_message(self, *_: object) -> None:
                pass

        self.httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.httpd.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.httpd.server_port}"


def send(handler: Any, body: bytes, *, status: int = 200, n_bytes: int | None = None, **headers: str) -> None:
    """Answer with a body that the headers announce to be ``n_bytes`` long; -1 for an unknown length."""
    handler.send_response(status)
    if n_bytes != -1:
        handler.send_header("Content-Length", str(len(body) if n_bytes is None else n_bytes))
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


def stall(site: Site) -> Callable[[Any, bytes], None]:
    """Answer with half of the file, and with nothing more until the test is over."""

    def answer(handler: Any, body: bytes) -> None:
        send(handler, body[: len(body) // 2], n_bytes=len(body))
        handler.wfile.flush()
        site.is_over.wait(20)

    return answer


@pytest.fixture
def site(shared: Path) -> Iterator[Site]:
    """Server of the files as they were published."""
    site = Site(shared / "pretrained" / "as-published")
    thread = threading.Thread(target=site.httpd.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield site
    site.is_over.set()
    site.httpd.shutdown()
    site.httpd.server_close()
    thread.join()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder of the user."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if pooch.os_cache("flyxr") != tmp_path / "cache" / "flyxr":
        pytest.skip("XDG_CACHE_HOME has no effect on this system")
    return tmp_path / "cache" / "flyxr"


@pytest.fixture(scope="module")
def fetched(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder of the user with the published ensemble, to be copied."""
    folder = tmp_path_factory.mktemp("fetched")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        fx.fetch_pretrained(source=shared / "pretrained" / "as-published")
    return folder / "flyxr"


def files_in(folder: Path) -> list[str]:
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


def test_published_files__are_those_of_the_table(shared: Path) -> None:
    table = published_files()
    assert len({file.path for file in table}) == 100
    assert list(find_wrong_files(shared / "pretrained" / "as-published", table)) == []
    for file in table[:4]:
        assert (shared / "pretrained" / "as-published" / file.path).stat().st_size == file.n_bytes


def test_fetch_pretrained__is_the_published_ensemble(
    site: Site, cache: Path, pretrained: Path, terminal: pytest.CaptureFixture[str]
) -> None:
    ensemble = fx.fetch_pretrained(mirror=site.url + "/")
    shown = terminal.readouterr().err
    assert "fetch the published models: 100%" in shown
    assert sorted(site.requested) == sorted(file.path for file in published_files())
    expected = fx.open_ensemble(pretrained)
    for name in expected.data_vars:
        assert ensemble[name].dtype == np.float32
        np.testing.assert_array_equal(ensemble[name], expected[name])
    np.testing.assert_allclose(ensemble["task_error"], expected["task_error"], rtol=1e-6)  # published with more digits
    assert ensemble["model_name"].values.tolist() == expected["model_name"].values.tolist()
    assert ensemble.attrs["trained"] == 1
    assert ensemble.attrs["source"].endswith(flyvis.COMMIT)
    assert ensemble.attrs["licence"].startswith("MIT")
    assert "Nature 634, 1132-1140" in ensemble.attrs["citation"]
    [step] = provenance.steps(ensemble)
    assert (step["operation"], step["arguments"]) == ("fetch_pretrained", {"commit": flyvis.COMMIT})
    assert str(cache) not in str(ensemble.attrs)

    site.requested.clear()
    xr.testing.assert_identical(fx.fetch_pretrained(mirror=site.url), ensemble)
    xr.testing.assert_identical(fx.open_ensemble("flyvis"), ensemble)
    assert site.requested == []
    assert {path.name for path in cache.iterdir()} == {"flyvis.zarr", "flyvis.lock", f"flyvis-{flyvis.COMMIT[:7]}"}


def test_open_ensemble__by_name_without_torch(fetched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(fetched.parent))
    code = (
        "import sys, flyxr as fx; ensemble = fx.open_ensemble('flyvis'); assert ensemble.sizes['model'] == 50; "
        "sys.exit(bool({'torch', 'h5py'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


FAULTS: dict[str, tuple[Callable[[Any, bytes], None], str]] = {
    "not found": (lambda handler, body: send(handler, b"none", status=404), "404"),
    "server error": (lambda handler, body: send(handler, b"error", status=500), "500"),
    "cut midway": (lambda handler, body: send(handler, body[:1000], n_bytes=len(body)), "IncompleteRead|hash"),
    "cut without a length": (lambda handler, body: send(handler, body[:1000], n_bytes=-1), "hash"),
    "empty": (lambda handler, body: send(handler, b""), "hash"),
    "other content": (lambda handler, body: send(handler, bytes(len(body))), "hash"),
    "one bit": (lambda handler, body: send(handler, body[:-1] + bytes([body[-1] ^ 1])), "hash"),
    "a page": (lambda handler, body: send(handler, b"<html>sign in</html>"), "hash"),
}


@pytest.mark.parametrize(("answer", "reason"), FAULTS.values(), ids=FAULTS)
def test_fetch_files__names_and_keeps_nothing_of_a_broken_file(
    site: Site, tmp_path: Path, answer: Callable[[Any, bytes], None], reason: str
) -> None:
    broken = FEW[1].path
    site.faults[broken] = answer
    with pytest.raises(DownloadError, match=rf"(?s){broken} as published, got .*({reason})") as caught:
        fetch_files(FEW, tmp_path, url=site.url, progressbar=False)
    assert "2 of 3 files are in" in str(caught.value)
    assert "source=" in str(caught.value)
    assert "--from" in caught.value.message(command_line=True)
    assert files_in(tmp_path) == [FEW[0].path, FEW[2].path]

    site.faults.clear()
    site.requested.clear()
    fetch_files(FEW, tmp_path, url=site.url, progressbar=False)
    assert site.requested == [broken]
    assert files_in(tmp_path) == sorted(file.path for file in FEW)


def test_fetch_files__server_that_stops_answering(site: Site, tmp_path: Path) -> None:
    site.faults[FEW[0].path] = stall(site)
    with pytest.raises(DownloadError, match=f"{FEW[0].path} as published, got .*timed out"):
        fetch_files(FEW, tmp_path, url=site.url, progressbar=False, timeout=0.2)
    assert files_in(tmp_path) == [FEW[1].path, FEW[2].path]


def test_fetch_files__slow_server_and_moved_files(site: Site, tmp_path: Path) -> None:
    def trickle(handler: Any, body: bytes) -> None:
        send(handler, b"", n_bytes=len(body))
        for start in range(0, len(body), 10_000):
            handler.wfile.write(body[start : start + 10_000])
            time.sleep(0.02)

    def move(handler: Any, body: bytes) -> None:
        is_moved = handler.path.startswith("/moved")
        send(handler, body) if is_moved else send(handler, b"", status=302, Location=f"{site.url}/moved{handler.path}")

    site.faults |= {FEW[0].path: trickle, FEW[1].path: move}
    fetch_files(FEW, tmp_path, url=site.url, progressbar=False)
    assert files_in(tmp_path) == sorted(file.path for file in FEW)


def test_fetch_files__replaces_a_file_with_another_hash(site: Site, tmp_path: Path) -> None:
    fetch_files(FEW, tmp_path, url=site.url, progressbar=False)
    (tmp_path / FEW[0].path).write_bytes(b"old")
    site.requested.clear()
    fetch_files(FEW, tmp_path, url=site.url, progressbar=False)
    assert site.requested == [FEW[0].path]


def test_fetch_files__gives_up_after_some_failures(tmp_path: Path, site: Site) -> None:
    for file in published_files():
        site.faults[file.path] = FAULTS["server error"][0]
    with pytest.raises(DownloadError, match="0 of 100 files") as caught:
        fetch_files(published_files(), tmp_path, url=site.url, progressbar=False)
    assert 4 <= len(site.requested) < 30
    assert len(caught.value.problems) == 5
    assert files_in(tmp_path) == []


def test_fetch_files__no_server(tmp_path: Path) -> None:
    with pytest.raises(ConnectionError, match="got .*refused"):
        fetch_files(FEW, tmp_path, url="http://127.0.0.1:9", progressbar=False)


def test_fetch_files__killed_in_the_middle_and_resumed(site: Site, tmp_path: Path) -> None:
    site.faults[FEW[2].path] = stall(site)
    code = (
        "from pathlib import Path; from flyxr.flyvis import fetch_files, published_files; "
        f"fetch_files(published_files()[:3], Path({str(tmp_path)!r}), url={site.url!r}, progressbar=False)"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    parts = tmp_path / Path(FEW[2].path).parent
    deadline = time.monotonic() + 30
    while not (all((tmp_path / file.path).exists() for file in FEW[:2]) and list(parts.glob("tmp*"))):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert list(parts.glob("tmp*"))

    site.faults.clear()
    site.requested.clear()
    fetch_files(FEW, tmp_path, url=site.url, progressbar=False)
    assert site.requested == [FEW[2].path]
    assert files_in(tmp_path) == sorted(file.path for file in FEW)


def test_fetch_pretrained__makes_no_store_of_broken_files(site: Site, cache: Path) -> None:
    broken = published_files()[77].path
    site.faults[broken] = FAULTS["one bit"][0]
    with pytest.raises(DownloadError, match=f"{broken} .*hash"):
        fx.fetch_pretrained(mirror=site.url, progressbar=False)
    assert not list(cache.glob("flyvis.zarr*"))
    with pytest.raises(MissingError, match="found nothing: fetch it with fx.fetch_pretrained"):
        fx.open_ensemble("flyvis")
    assert len(files_in(cache / f"flyvis-{flyvis.COMMIT[:7]}")) == 99


def test_fetch_pretrained__interrupted_conversion_leaves_nothing(
    shared: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    source = shared / "pretrained" / "as-published"
    with monkeypatch.context() as patch:
        patch.setattr("flyxr.store.writing.write_tokens", interrupt)  # the values are written by then
        with pytest.raises(KeyboardInterrupt):
            fx.fetch_pretrained(source=source)
    assert files_in(cache) == ["flyvis.lock"]
    (cache / "flyvis.zarr.partial-killed" / "store").mkdir(parents=True)
    assert fx.fetch_pretrained(source=source).sizes["model"] == 50
    assert not list(cache.glob("*.partial-*"))


def test_fetch_pretrained__replaces_a_damaged_store(shared: Path, fetched: Path, cache: Path) -> None:
    shutil.copytree(fetched, cache)
    expected = fx.open_ensemble("flyvis")
    shutil.rmtree(cache / "flyvis.zarr" / "bias" / "c")
    with (
        pytest.warns(FlyxrWarning, match="1 of 22 files"),
        pytest.raises(store.StoreError, match="(?s)flyvis.zarr.*fx.fetch_pretrained"),
    ):
        fx.open_ensemble("flyvis")
    ensemble = fx.fetch_pretrained(source=shared / "pretrained" / "as-published")
    xr.testing.assert_identical(ensemble, expected)


def zip_folder(folder: Path, path: Path, top: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, Path(top) / file.relative_to(folder))
    return path


@pytest.mark.parametrize(
    ("folder", "top"),
    [
        ("pretrained/as-published", "flyvis-97d6b69"),
        ("pretrained/flow", "results/flow"),
        ("pretrained/flow/0000", None),
    ],
    ids=["zip of the repository", "zip of flyvis", "directory"],
)
def test_fetch_pretrained__from_a_copy(
    shared: Path, fetched: Path, cache: Path, tmp_path: Path, folder: str, top: str | None
) -> None:
    source = shared / folder if top is None else zip_folder(shared / folder, tmp_path / "copy.zip", top)
    ensemble = fx.fetch_pretrained(source=source)
    expected = fx.open_ensemble(fetched / "flyvis.zarr")
    xr.testing.assert_equal(ensemble.drop_vars("task_error"), expected.drop_vars("task_error"))
    assert ensemble.attrs["source"] == expected.attrs["source"]
    assert files_in(cache)[0] == "flyvis.lock"
    assert not list(cache.glob("flyvis-*"))


def test_fetch_pretrained__copy_with_wrong_files(shared: Path, cache: Path, tmp_path: Path) -> None:
    source = tmp_path / "copy"
    shutil.copytree(shared / "pretrained" / "as-published", source, copy_function=shutil.copyfile)
    for path in [source, *source.rglob("*")]:
        path.chmod(0o755)
    wrong, missing = (source / published_files()[i].path for i in (4, 7))
    wrong.write_bytes(b"not a checkpoint")
    missing.unlink()
    with pytest.raises(EnsembleError) as caught:
        fx.fetch_pretrained(source=source)
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert str(wrong) in lines[1]
    assert str(missing) in lines[2]
    assert not (cache / "flyvis.zarr").exists()


def test_fetch_pretrained__another_ensemble(shared: Path, cache: Path) -> None:
    with pytest.raises(EnsembleError, match="expected the 50 published models, got 3 with other parameters"):
        fx.fetch_pretrained(source=shared / "golden" / "results_tree.zip" / "results" / "flow" / "0007")
    assert not (cache / "flyvis.zarr").exists()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"mirror": "ftp://host"}, InputError, "begins with http:// or https://, got 'ftp://host': .*source="),
        ({"mirror": "https://host", "source": "a.zip"}, InputError, "source or mirror, got both"),
        ({"timeout": 0, "mirror": 3}, InputError, "(?s)timeout.*mirror"),
        ({"source": "s3://bucket/a.zip"}, InputError, "on this machine"),
        ({"source": "/nowhere/a.zip"}, MissingError, "no such file"),
    ],
)
def test_fetch_pretrained__rejects_invalid_arguments(
    cache: Path, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        fx.fetch_pretrained(**arguments)
    assert not (cache / "flyvis.zarr").exists()


def test_fetch_pretrained__cache_that_cannot_be_written(cache: Path) -> None:
    cache.parent.write_text("a file")
    with pytest.raises(UnwritableError, match="XDG_CACHE_HOME"):
        fx.fetch_pretrained()


def test_open_ensemble__folder_with_the_name_of_an_ensemble(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensemble = fx.sample_ensemble(1, seed=0)
    fx.save(ensemble, tmp_path / "flyvis")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingError, match=r"a folder of that name is opened as \./flyvis"):
        fx.open_ensemble("flyvis")
    for path in ("./flyvis", Path("flyvis"), tmp_path / "flyvis"):
        assert fx.open_ensemble(path).identical(ensemble)


def test_open_ensemble__named_one_of_another_connectome(fetched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flyxr.testing import tiny_connectome

    monkeypatch.setenv("XDG_CACHE_HOME", str(fetched.parent))
    assert fx.open_ensemble("flyvis", connectome=fx.open_connectome()).sizes["model"] == 50
    with pytest.raises(EnsembleError, match="expected models of the given connectome"):
        fx.open_ensemble("flyvis", connectome=tiny_connectome())


def test_commands__take_the_published_ensemble(
    fetched: Path,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["info", "flyvis"]) == 2
    assert "found nothing: fetch it with `flyxr fetch-pretrained`" in capsys.readouterr().err
    shutil.copytree(fetched, cache)
    assert cli.main(["fetch-pretrained", "--mirror", "https://nowhere.invalid"]) == 0
    printed = capsys.readouterr().out
    assert "flyvis.zarr: ensemble, 50 model" in printed
    assert "Lappalainen et al. 2024" in printed
    assert cli.main(["info", "flyvis"]) == 0
    assert "licence MIT" in capsys.readouterr().out
    flash = fx.stimuli.flashes(radius=-1, intensities=1, t_pre=0.02, t_stim=0.02, dt=1 / 100)
    fx.save(flash, tmp_path / "flash.zarr")
    simulated: list[Any] = []
    monkeypatch.setattr(fx, "sweep", lambda rendering, ensemble, *_, **__: simulated.append(ensemble))
    assert cli.main(["simulate", str(tmp_path / "flash.zarr"), "flyvis", str(tmp_path / "r.zarr")]) == 2
    assert "no store at" in capsys.readouterr().err  # since nothing was simulated
    assert simulated[0].identical(fx.open_ensemble("flyvis"))


def test_best_ensemble__published_one_if_it_was_fetched(
    fetched: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flyxr.cli.inputs import best_ensemble

    ensemble, description = best_ensemble()
    assert description.startswith("flyxr, 18 models, ")
    assert "procedural optic flow" in ensemble.attrs["description"]
    monkeypatch.setenv("XDG_CACHE_HOME", str(fetched.parent))
    ensemble, description = best_ensemble()
    assert description == "flyvis, 50 models, the published ensemble of Lappalainen et al. 2024"
    assert ensemble["model_name"].values.tolist() == [f"flow/0000/{i:03}" for i in range(50)]
