"""The browser: a page on this machine that shows responses beside their stimulus."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
import webbrowser
from typing import TYPE_CHECKING, Any

from flyxr.arguments import Arguments
from flyxr.errors import DependencyError, InputError, Problem
from flyxr.viz import elements
from flyxr.viz.browser_reading import Reader

if TYPE_CHECKING:
    import xarray as xr

ADDRESS = "127.0.0.1"
"""The page is served to this machine only."""

MAX_PORT = 65535

TITLE = "flyxr browse"


def browse(
    responses: xr.Dataset | xr.DataArray,
    clusters: xr.Dataset | None = None,
    movie: xr.Dataset | xr.DataArray | None = None,
    *,
    port: int = 0,
    open_browser: bool = True,
    serve: bool = True,
) -> Any:
    """Show responses beside their stimulus on a page in the web browser.

    Choose a cell type, a sample, and a model, several models or a cluster; play or drag the time. A click on a hexagon
    shows the time courses in this column. A click or a selection in the embedding shows the responses of these models,
    and the map is their mean. A second sample, such as motion in the opposite direction, is shown beside the first at
    the same time, with the same colours. Only what is shown is read, so that stores of any size open at once.

    The address of the page holds what it shows: open it on another machine that browses the same responses. The page is
    served to this machine only, until Ctrl-C.

    Parameters
    ----------
    responses
        ``response`` (model, sample, time, cell_type, column), best from a store, see :func:`flyxr.open`, with
        ``luminance`` (sample, time, column) beside it. Responses in one column are shown as time courses only.
    clusters
        Result of :func:`flyxr.cluster` for these models. Models are chosen from a list without it.
    movie
        ``luminance`` (sample, time, y, x), which is shown beside the columns.
    port
        Port of the page, 0 for any that is free.
    open_browser
        Whether to open the page in the web browser.
    serve
        Whether to serve the page. If False, the page is returned, for a notebook.

    Returns
    -------
    None or panel.viewable.Viewable
        None once Ctrl-C has ended the page; Panel's object to display if ``serve`` is False.

    Raises
    ------
    ValueError
        If an argument is of another kind or out of range, the responses are empty, the clusters share no model and cell
        type with them, the movie lacks samples of them, or the port cannot be opened.
    ImportError
        If Panel is not installed.

    Examples
    --------
    >>> from flyxr.testing import random_rendering
    >>> responses = random_rendering().luminance.expand_dims(cell_type=["T4c"], model=[0]).rename("response")
    >>> type(browse(responses, serve=False)).__name__
    'FlexBox'
    """
    arguments = Arguments()
    port = arguments.integer("port", port, least=0, hint="0 takes any free port")
    if port > MAX_PORT:
        arguments.problems.append(Problem(f"expected port of at most {MAX_PORT}, got {port}", "0 takes any free port"))
    flags: dict[str, Any] = {"open_browser": open_browser, "serve": serve}
    for name, value in flags.items():
        if not isinstance(value, bool):
            arguments.problems.append(f"expected {name} as True or False, got {value!r}")
    arguments.raise_problems()
    _check_panel()
    elements.load_backend()
    reader = Reader(responses, clusters, movie)
    if not serve:
        from flyxr.viz.browser_page import Page

        return Page(reader).layout()
    if _is_loop_running():
        text = "expected a script or a command line, got a notebook, which the page would block"
        raise InputError(Problem(text, "call browse(..., serve=False), and display what it returns"))
    _serve(reader, _free_port(port), open_browser)
    return None


def _check_panel() -> None:
    try:
        import panel  # noqa: F401
    except ImportError as error:
        raise DependencyError(Problem("expected Panel, which is not installed", "pip install panel")) from error


def _is_loop_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _free_port(port: int) -> int:
    """Port that can be opened; raises a ValueError if the one that is given cannot.

    Examples
    --------
    >>> 0 < _free_port(0) <= MAX_PORT
    True
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((ADDRESS, port))
        except OSError as error:
            text = f"expected a free port, got {port}, which cannot be opened ({error.strerror})"
            hint = "choose another, or {} for any that is free"
            raise InputError(Problem(text, hint.format("port=0"), hint.format("--port 0"))) from error
        return int(probe.getsockname()[1])


def _serve(reader: Reader, port: int, open_browser: bool) -> None:
    """Serve a page for each session until Ctrl-C."""
    import panel as pn
    from panel.io.server import get_server
    from tornado.ioloop import IOLoop

    from flyxr.viz.browser_page import Page

    def make_page() -> Any:
        return Page(reader, pn.state.location, pn.state.curdoc).layout()

    hosts = [f"{ADDRESS}:{port}", f"localhost:{port}"]
    is_main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT)
    loop = IOLoop(make_current=False)
    try:
        server = get_server(
            {"/": make_page}, port, ADDRESS, hosts, loop=loop, title=TITLE, start=False, show=False, admin=False
        )  # Ctrl-C stops the loop
        url = f"http://{ADDRESS}:{port}"
        server.start()
        if open_browser:
            loop.add_callback(webbrowser.open, url)
        print(f"The page is at {url}, for this machine only. Press Ctrl-C to stop it.", flush=True)  # noqa: T201
        try:
            loop.start()
        finally:
            server.stop()
    except KeyboardInterrupt:
        pass
    finally:
        if is_main:
            signal.signal(signal.SIGINT, handler)
        loop.close(all_fds=True)
        asyncio.set_event_loop(None)
