"""Fixtures shared by all tests."""

from __future__ import annotations

import http.server
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import dask
import hypothesis
import numpy as np
import pytest

from flyxr.testing import observed_engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

hypothesis.settings.register_profile("dev", max_examples=14, deadline=None)
hypothesis.settings.register_profile(
    "ci",
    max_examples=50,
    deadline=None,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "dev")

REFERENCE_DATA = "FLYXR_REFERENCE_DATA"
"""Environment variable with the folder of the reference data. If it is set, the data must exist."""


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of the reference data, by default beside the checkout. Most users do not have it."""
    configured = os.environ.get(REFERENCE_DATA)
    folder = Path(configured) if configured else Path(__file__).parents[2] / "shared"
    if not folder.is_dir():
        reason = f"no reference data at {folder}: set {REFERENCE_DATA} to their folder"
        (pytest.fail if configured else pytest.skip)(reason)
    return folder


@pytest.fixture(scope="session")
def golden(shared: Path) -> Callable[[str], dict[str, np.ndarray]]:
    """Function that loads a file of reference arrays, computed with flyvis 1.2.0."""

    def load(name: str) -> dict[str, np.ndarray]:
        with np.load(shared / "golden" / name) as arrays:
            return dict(arrays)

    return load


@pytest.fixture(scope="session")
def pretrained(shared: Path) -> Path:
    """Directory of the published ensemble of 50 models."""
    return shared / "pretrained" / "flow" / "0000"


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    """Each device that torch supports."""
    import torch

    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return str(request.param)


@pytest.fixture
def terminal(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> pytest.CaptureFixture[str]:
    """What is printed, where errors seem to go to a terminal, so that progress bars are shown, at once."""
    for module in ("progress", "downloads"):
        monkeypatch.setattr(f"flyxr.{module}.is_watched", lambda: True)
    monkeypatch.setattr("flyxr.progress.DELAY", 0.0)
    return capfd


class CountingScheduler:
    """A dask scheduler that counts computations."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, dsk: object, keys: object, **kwargs: object) -> object:
        self.calls += 1
        return dask.get(dsk, keys, **kwargs)


@pytest.fixture
def counting_scheduler() -> Iterator[CountingScheduler]:
    """Scheduler in use during the test; ``calls`` is 0 until something is computed."""
    scheduler = CountingScheduler()
    with dask.config.set(scheduler=scheduler):
        yield scheduler


@pytest.fixture
def computed_blocks() -> Iterator[list[tuple[float, int]]]:
    """First bias of the model, and number of samples, of each block that threads of this process integrate."""
    blocks: list[tuple[float, int]] = []
    with observed_engine(lambda parameters, stimulus: blocks.append((float(parameters.bias[0, 0]), len(stimulus)))):
        yield blocks


@pytest.fixture
def chunks_read(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Name of the array and indices of each part that is read from the stores of flyxr."""
    from flyxr.store import arrays

    parts: list[tuple[str, str]] = []
    read = arrays._CheckedArray.__getitem__

    def read_and_note(array: arrays._CheckedArray, key: tuple[object, ...]) -> object:
        parts.append((array.source.name, repr(key)))
        return read(array, key)

    monkeypatch.setattr(arrays._CheckedArray, "__getitem__", read_and_note)
    return parts


class FileServer:
    """Serves one body under every path; the last ``n_cut`` bytes of it are held back."""

    def __init__(self) -> None:
        self.body = b""
        self.n_cut = 0
        self.sends_length = True
        self.status = 200
        self.n_requests = 0
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.n_requests += 1
                self.send_response(server.status)
                if server.sends_length:
                    self.send_header("Content-Length", str(len(server.body)))
                self.end_headers()
                self.wfile.write(server.body[: max(0, len(server.body) - server.n_cut)])

            def log_message(self, *_: object) -> None:
                pass

        self.httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.httpd.server_port}"


@pytest.fixture
def file_server() -> Iterator[FileServer]:
    """Local server of one file; a test sets its ``body``."""
    server = FileServer()
    thread = threading.Thread(target=server.httpd.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.httpd.shutdown()
    server.httpd.server_close()
    thread.join()
