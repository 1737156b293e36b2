"""The browser in headless Chromium: clicks, brushing, values on hover, orientation, and text from strangers."""

from __future__ import annotations

import http.client
import io
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import xarray as xr

import flyxr as fx
from flyxr import hexgrid, schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.browser

HOSTILE = "<img src=x onerror='window.hacked=1'>"
SCREENSHOT_BYTES = 200_000

WHERE = """
const view = Bokeh.index.find_one(Bokeh.documents[0].get_model_by_name(arguments[0]))
const box = view.canvas_view.el.getBoundingClientRect()
return [box.left + view.frame.x_scale.compute(arguments[1]), box.top + view.frame.y_scale.compute(arguments[2])]
"""

FRAME = """
const view = Bokeh.index.find_one(Bokeh.documents[0].get_model_by_name(arguments[0]))
const box = view.canvas_view.el.getBoundingClientRect(), frame = view.frame.bbox
return [box.left + frame.left, box.top + frame.top, box.left + frame.right, box.top + frame.bottom]
"""

COLUMN = """
const picture = Bokeh.documents[0].get_model_by_name(arguments[0])
return Array.from(picture.renderers[arguments[1]].data_source.data[arguments[2]])
"""

DEEP = """
function* all(root) {
    for (const element of root.querySelectorAll("*")) {
        yield element
        if (element.shadowRoot) yield* all(element.shadowRoot)
    }
}
const found = [...all(document)]
"""

TOOLTIPS = f"""{DEEP}
return found.filter(e => /bk-tooltip-row-(label|value)/.test(e.className)).map(e => e.textContent).join(" ")
"""


class Browser:
    """Chromium on a page, and what a person does in it."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, url: str) -> None:
        """Open an address, again if Chromium is stuck in loading it."""
        is_idle = """
        return location.href.startsWith(arguments[0]) && !window.isOld &&
            !!(window.Bokeh && Bokeh.documents.length && Bokeh.documents[0].is_idle)
        """
        for n_left in (2, 1, 0):
            self.run("window.isOld = true")
            self.driver.get(url)
            end = time.monotonic() + 15
            while time.monotonic() < end:
                if self.run(is_idle, url.split("?")[0]):
                    return
                time.sleep(0.05)
            print(f"{url} is stuck, {n_left} attempts left")  # noqa: T201
        pytest.fail(f"{url} did not open")

    def run(self, code: str, *arguments: Any) -> Any:
        return self.driver.execute_script(code, *arguments)

    def wait(self, is_done: Callable[[], Any], timeout: float = 15) -> Any:
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if result := is_done():
                return result
            time.sleep(0.05)
        pytest.fail("the page did not change in time")

    def column(self, name: str, column: str, renderer: int = 0) -> np.ndarray:
        """Data of a figure, as the browser has them."""
        return np.array(self.run(COLUMN, name, renderer, column))

    def mouse(self, name: str, *points: tuple[float, float], click: bool = False) -> None:
        """Move to points of a figure; drag if there are several."""
        from selenium.webdriver.common.action_chains import ActionChains

        actions = ActionChains(self.driver, duration=60)
        for number, (x, y) in enumerate(points):
            left, top = self.run(WHERE, name, x, y)
            actions.w3c_actions.pointer_action.move_to_location(round(left), round(top))
            if len(points) > 1 and number == 0:
                actions.w3c_actions.pointer_action.pointer_down()
        if len(points) > 1:
            actions.w3c_actions.pointer_action.pointer_up()
        elif click:
            actions.w3c_actions.pointer_action.click()
        actions.perform()

    def choose(self, label: str, option: str) -> None:
        """Choose an option of a list by its text."""
        find = """
        const box = found.find(e => e.tagName == "SELECT" && e.getRootNode().textContent.includes(arguments[0]))
        const option = [...box.options].find(o => o.text == arguments[1])
        return [box, option.value]
        """
        box, value = self.run(DEEP + find, label, option)
        self.run(
            "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('change', {bubbles: true}))",
            box,
            value,
        )

    def screenshot(self) -> Any:
        from PIL import Image

        content = self.driver.get_screenshot_as_png()
        assert len(content) < SCREENSHOT_BYTES
        return Image.open(io.BytesIO(content)).convert("L")

    def picture(self, name: str) -> np.ndarray:
        """Pixels of the frame of a figure, resized to 24 x 24."""
        box = tuple(round(edge) for edge in self.run(FRAME, name))
        return np.asarray(self.screenshot().crop(box).resize((24, 24)), dtype=float)


class Server:
    """The command `flyxr browse` in a process of its own."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "flyxr.cli", "browse", *arguments, "--no-browser"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline()
        match = re.search(r"http://127\.0\.0\.1:(\d+)", self.line)
        if match is None:
            pytest.fail(self.stop()[1])
        self.url, self.port = match[0], int(match[1])

    def stop(self) -> tuple[int, str]:
        """Press Ctrl-C; return the exit status and what was printed to stderr."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        _, errors = self.process.communicate(timeout=20)
        return self.process.returncode, errors


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pip install selenium")
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in programs:
        pytest.skip("no Chromium: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for option in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--window-size=1500,950",
    ):
        options.add_argument(option)
    options.page_load_strategy = "none"
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(programs[1]))
    yield Browser(driver)
    driver.quit()


@pytest.fixture(scope="module")
def responses() -> xr.Dataset:
    """Responses of 6 models to edges that move up and down."""
    edges = fx.stimuli.moving_edges(
        [90, 270], speeds=19, intensities=1, t_pre=0.1, t_post=0.1, dt=1 / 50, extent=4, offsets=(-9, 9)
    )
    shape = (6, 2, edges.sizes["time"], 2, edges.sizes["column"])
    values = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    dims = ("model", "sample", "time", "cell_type", "column")
    responses = edges.assign(response=(dims, values)).assign_attrs({schema.KIND_ATTR: "responses"})
    return responses.assign_coords(cell_type=["T4c", "T4d"], model=np.arange(6)).compute()


@pytest.fixture(scope="module")
def places() -> np.ndarray:
    return np.array([[0.1, 0.1], [0.2, 0.15], [0.15, 0.3], [0.8, 0.9], [0.9, 0.8], [0.95, 0.95]])


@pytest.fixture(scope="module")
def server(responses: xr.Dataset, places: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("browse")
    clusters = xr.Dataset(
        {
            "embedding": (("cell_type", "model", "component"), places[None]),
            "cluster": (("cell_type", "model"), [[0, 0, 0, 1, 1, 1]]),
            "score": (("cell_type", "n_clusters"), [[1.0]]),
        },
        {"cell_type": ["T4c"], "model": np.arange(6), "n_clusters": [2]},
        {schema.KIND_ATTR: "clusters"},
    )
    paths = fx.save(responses, folder / "responses.zarr"), fx.save(clusters, folder / "clusters.zarr")
    server = Server(str(paths[0]), "--clusters", str(paths[1]))
    yield server
    server.stop()


@pytest.fixture
def page(browser: Browser, server: Server) -> Browser:
    """Page as it opens; a test that changes its view changes its address."""
    if browser.driver.current_url != server.url + "/":
        browser.open(server.url)
    return browser


def test_page__has_stimulus_beside_response_of_both_directions(page: Browser, responses: xr.Dataset) -> None:
    time_index = responses.sizes["time"] // 2
    for row, sample in enumerate((0, 1)):
        at = {"sample": sample, "time": time_index}
        np.testing.assert_allclose(page.column(f"columns {row}", "luminance"), responses.luminance.isel(at), rtol=1e-6)
        expected = responses.response.isel(at).isel(model=0, cell_type=0)
        np.testing.assert_allclose(page.column(f"response {row}", "response"), expected, rtol=1e-6)
    boxes = [page.run(FRAME, f"{name} {row}") for row in (0, 1) for name in ("columns", "response")]
    boxes += [page.run(FRAME, name) for name in ("courses", "luminance", "embedding")]
    for number, (left, top, right, bottom) in enumerate(boxes):
        for other in boxes[number + 1 :]:
            assert right <= other[0] or other[2] <= left or bottom <= other[1] or other[3] <= top
    page.screenshot()


def test_page__has_regular_hexagons(page: Browser) -> None:
    origin, right, up = (np.array(page.run(WHERE, "response 0", *point)) for point in ((0, 0), (1, 0), (0, 1)))
    assert abs((right - origin)[0] + (up - origin)[1]) < 0.02 * (right - origin)[0]


def test_page__needs_no_other_machine(page: Browser, server: Server) -> None:
    names = page.run("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert names
    assert all(name.startswith(server.url) for name in names)
    assert not [entry for entry in page.driver.get_log("browser") if entry["level"] == "SEVERE"]


def test_click__on_a_hexagon_shows_its_course(page: Browser, responses: xr.Dataset) -> None:
    column = 12
    x, y = hexgrid.positions(responses.u.values[column], responses.v.values[column])
    page.mouse("response 1", (float(x), float(y)), click=True)
    page.wait(lambda: f"column={column}" in page.driver.current_url)
    for sample in (0, 1):
        expected = responses.response.isel(model=0, cell_type=0, sample=sample, column=column)
        np.testing.assert_allclose(page.column("courses", "y", 2 + sample), expected, rtol=1e-6)
        light = responses.luminance.isel(sample=sample, column=column)
        np.testing.assert_allclose(page.column("luminance", "y", 2 + sample), light, rtol=1e-6)


def test_hover__shows_the_value(page: Browser, responses: xr.Dataset) -> None:
    column = 20
    x, y = hexgrid.positions(responses.u.values[column], responses.v.values[column])
    page.mouse("response 0", (float(x), float(y)))
    text = page.wait(lambda: page.run(TOOLTIPS))
    value = responses.response.isel(model=0, cell_type=0, sample=0, column=column, time=responses.sizes["time"] // 2)
    match = re.search(r"response: *([-\d.e]+)", text.replace("\n", " "))
    assert match is not None, text
    assert float(match[1]) == pytest.approx(float(value), rel=1e-2)
    assert re.search(rf"column: *{column}\b", text.replace("\n", " "))


def test_brush__shows_the_mean_of_these_models(page: Browser, responses: xr.Dataset, places: np.ndarray) -> None:
    page.mouse("embedding", (0.05, 0.05), (0.15, 0.2), (0.3, 0.4))
    page.wait(lambda: page.driver.current_url.count("model=") == 3)
    shown = responses.response.isel(cell_type=0, time=responses.sizes["time"] // 2, model=[0, 1, 2])
    for row in (0, 1):
        expected = shown.isel(sample=row).mean("model")
        np.testing.assert_allclose(page.column(f"response {row}", "response"), expected, rtol=1e-5, atol=1e-6)
    courses = page.column("courses", "y", 0).reshape(3, -1)[:, :-1]
    np.testing.assert_allclose(
        courses.astype(float), responses.response.isel(cell_type=0, sample=0, model=[0, 1, 2], column=30), rtol=1e-6
    )
    page.mouse("embedding", tuple(places[4]), click=True)
    page.wait(lambda: re.findall(r"model=(\d)", page.driver.current_url) == ["4"])


def test_choices__of_cell_type_cluster_and_sample(page: Browser, responses: xr.Dataset) -> None:
    page.choose("cluster", "cluster 1 (3 models)")
    page.wait(lambda: re.findall(r"model=(\d)", page.driver.current_url) == ["3", "4", "5"])
    page.choose("cell type", "T4d")
    page.wait(lambda: "cell_type=T4d" in page.driver.current_url)
    expected = responses.response.isel(cell_type=1, sample=0, model=[3, 4, 5], time=responses.sizes["time"] // 2)
    np.testing.assert_allclose(page.column("response 0", "response"), expected.mean("model"), rtol=1e-5, atol=1e-6)


def test_play__moves_all_views(page: Browser) -> None:
    before = page.column("columns 0", "luminance")
    play = DEEP + "found.filter(e => e.tagName == 'BUTTON' && e.className.includes('play')).at(-1).click()"
    page.run(play)
    page.wait(lambda: not np.array_equal(page.column("columns 0", "luminance"), before))
    pause = DEEP + "found.find(e => e.tagName == 'BUTTON' && e.className.includes('pause')).click()"
    page.run(pause)
    page.wait(lambda: "time=" in page.driver.current_url)


def test_address__opens_the_same_view(page: Browser, server: Server, responses: xr.Dataset) -> None:
    page.open(server.url + "/?cell_type=T4d&sample=1&compare=0&model=2&model=5&time=0.1&column=7")
    position = int(np.argmin(abs(responses.time.values - 0.1)))
    expected = responses.response.isel(cell_type=1, sample=1, model=[2, 5]).isel(time=position).mean("model")
    np.testing.assert_allclose(page.column("response 0", "response"), expected, rtol=1e-5, atol=1e-6)


def test_server__serves_this_page_to_this_machine_only(server: Server) -> None:
    assert f"{server.url}, for this machine only. Press Ctrl-C" in server.line
    for path in ("/admin", "/rest/session_info", "/liveness", "/etc/passwd", "/static/../../../etc/passwd"):
        with pytest.raises(urllib.error.HTTPError, match="40[34]"):
            urllib.request.urlopen(server.url + path, timeout=10)
    addresses = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    for address in addresses - {"127.0.0.1"}:
        with pytest.raises(ConnectionRefusedError), socket.create_connection((address, server.port), timeout=2):
            pass
    headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    headers |= {"Sec-WebSocket-Key": "x" * 22 + "==", "Origin": "http://example.org"}
    connection.request("GET", "/ws", headers=headers)
    assert connection.getresponse().status == 403
    connection.close()


@pytest.fixture(scope="module")
def hostile_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Responses to a movie of an L, whose names are HTML."""
    folder = tmp_path_factory.mktemp("hostile")
    frames = np.full((2, 3, 80, 100), 0.2, np.float32)
    frames[:, :, 10:70, 30:42] = 1
    frames[:, :, 58:70, 30:75] = 1
    names = [f"{HOSTILE} {number}" for number in range(2)]
    movie = fx.stimuli.from_array(frames, 50, dims=("sample", "time", "y", "x")).assign_coords(sample=names)
    rendering = fx.BoxEye(extent=7, kernel_size=5).render(movie).compute()
    values = rendering.luminance.values[None, :, :, None, :] * np.ones((2, 1, 1, 2, 1), np.float32)
    responses = rendering.assign(response=(("model", "sample", "time", "cell_type", "column"), values))
    responses = responses.assign_coords(
        cell_type=names,
        model=names,
        model_name=("model", names),
        strange=("sample", names),
    ).assign_attrs({schema.KIND_ATTR: "responses", "title": HOSTILE})
    responses.response.attrs.update(units=HOSTILE, long_name=HOSTILE)
    clusters = xr.Dataset(
        {
            "embedding": (("cell_type", "model", "component"), np.array([[[0.2, 0.2], [0.8, 0.8]]])),
            "cluster": (("cell_type", "model"), [[0, 1]]),
            "score": (("cell_type", "n_clusters"), [[1.0]]),
        },
        {"cell_type": names[:1], "model": names, "n_clusters": [2]},
        {schema.KIND_ATTR: "clusters"},
    )
    paths = [
        str(fx.save(data, folder / f"{name}.zarr"))
        for name, data in (("responses", responses), ("clusters", clusters), ("movie", movie))
    ]
    server = Server(paths[0], "--clusters", paths[1], "--movie", paths[2])
    yield server
    server.stop()


def test_text__of_strangers_does_not_run(browser: Browser, hostile_server: Server) -> None:
    browser.open(hostile_server.url + "/?cell_type=%3Cimg%20src=x%20onerror='window.hacked=1'%3E")
    for name, point in (("response 0", (0.0, 0.0)), ("columns 0", (0.0, 0.0)), ("embedding", (0.8, 0.8))):
        browser.mouse(name, point)
        text = browser.wait(lambda: browser.run(TOOLTIPS))
        assert ("<img" in text) == (name == "embedding")
        browser.mouse(name, point, click=True)
    browser.wait(lambda: "column=" in browser.driver.current_url)
    browser.screenshot()
    assert browser.run(DEEP + "return found.filter(e => e.tagName == 'IMG').length") == 0
    assert browser.run("return typeof window.hacked") == "undefined"


def test_columns__have_the_orientation_of_the_movie(browser: Browser, hostile_server: Server) -> None:
    browser.open(hostile_server.url)
    browser.mouse("courses", (0.0, 0.0))  # away from the pictures
    x0, x1 = (browser.run(FRAME, "movie 0")[edge] for edge in (0, 2))
    assert x1 > x0
    movie = browser.picture("movie 0")

    def correlation(picture: np.ndarray) -> float:
        middle = np.s_[5:-5, 5:-5]  # the lattice has no corners
        return float(np.corrcoef(movie[middle].ravel(), picture[middle].ravel())[0, 1])

    for name in ("columns 0", "response 0"):
        picture = browser.picture(name)
        as_seen = correlation(picture)
        assert as_seen > max(correlation(picture[:, ::-1]), correlation(picture[::-1]), correlation(picture.T)) + 0.2


def test_server__ends_with_ctrl_c(hostile_server: Server) -> None:
    status, errors = hostile_server.stop()
    assert status == 0
    assert "Traceback" not in errors
