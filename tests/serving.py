"""Servers on this machine for tests: a web server of a folder that can misbehave, and one of object storage."""

from __future__ import annotations

import http.server
import re
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class FolderServer:
    """Serves the files of a folder with range requests, and counts bytes and requests."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.n_bytes = 0
        self.requests: list[str] = []
        self.n_drops = 0
        """Number of the next answers that are cut off in the middle."""
        self.delay = 0.0
        self.has_ranges = True
        self.redirects: dict[str, str] = {}
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                server.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.httpd.daemon_threads = True
        self.httpd.handle_error = lambda *_: None  # clients may close a connection early
        self.url = f"http://127.0.0.1:{self.httpd.server_port}"

    def reset(self) -> None:
        """Forget what was read so far."""
        self.n_bytes, self.requests = 0, []

    def answer(self, handler: Any) -> None:
        time.sleep(self.delay)
        self.requests.append(handler.path)
        file = self.folder / handler.path.lstrip("/")
        if handler.path in self.redirects:
            handler.send_response(302)
            handler.send_header("Location", self.redirects[handler.path])
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        if not file.is_file():
            handler.send_response(404)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        content, status = file.read_bytes(), 200
        asked = re.fullmatch(r"bytes=(-?\d+)-?(\d*)", handler.headers.get("Range", ""))
        if asked and self.has_ranges:
            first = int(asked[1])
            last = int(asked[2]) + 1 if asked[2] else None
            content, status = content[first:last], 206
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        if self.n_drops > 0:
            self.n_drops -= 1
            content = content[: len(content) // 2]
            handler.close_connection = True
        self.n_bytes += len(content)
        handler.wfile.write(content)


@contextmanager
def serving(folder: Path) -> Iterator[FolderServer]:
    """Serve a folder while the block runs."""
    server = FolderServer(folder)
    thread = threading.Thread(target=server.httpd.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.httpd.shutdown()
        server.httpd.server_close()
        thread.join()


@contextmanager
def object_storage() -> Iterator[dict[str, Any]]:
    """S3 on this machine with an empty bucket ``lab``; yields the storage options."""
    boto3 = pytest.importorskip("boto3")
    pytest.importorskip("s3fs")
    moto = pytest.importorskip("moto.server")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    options = {"key": "key", "secret": "secret", "endpoint_url": f"http://127.0.0.1:{port}"}
    client = boto3.client(
        "s3",
        region_name="us-east-1",
        aws_access_key_id="key",
        aws_secret_access_key="secret",
        endpoint_url=options["endpoint_url"],
    )
    client.create_bucket(Bucket="lab")
    try:
        yield options
    finally:
        server.stop()
