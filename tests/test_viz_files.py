"""Pictures written to files and animations: pixels, pages and videos show the values where they belong."""

from __future__ import annotations

import base64
import gzip
import html
import json
import os
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import dask
import holoviews as hv
import numpy as np
import pytest
import xarray as xr

import flyxr as fx
from flyxr import hexgrid, viz
from flyxr.viz import elements, pictures, player, printing, rastering, scenes, sheet

if TYPE_CHECKING:
    from pathlib import Path

SUFFIXES = ("html", "png", "svg", "gif", "mp4")
BRIGHT, DARK = 200, 60


def l_shape(extent: int = 3) -> tuple[xr.DataArray, xr.DataArray]:
    """An L in the pixels of a movie, and its rendering: a long stroke down the left, a short one to the right."""
    size = 13 * (2 * extent + 1)
    frame = np.zeros((size, size), dtype=np.float32)
    left, right, top, bottom = size // 4, 3 * size // 4, size // 5, 4 * size // 5
    frame[top:bottom, left : left + size // 6] = 1
    frame[bottom - size // 6 : bottom, left:right] = 1
    movie = xr.DataArray(frame[None], dims=("time", "y", "x"), coords={"time": [0.0]}, name="luminance")
    return movie, fx.BoxEye(extent=extent, kernel_size=13).render(movie)["luminance"]


@pytest.fixture(scope="module")
def frames() -> xr.DataArray:
    """Two frames of 37 columns: all of a frame is equal, but for the first and the central column."""
    coords = hexgrid.column_coords(3)
    values = np.array([[-1.0], [1.0]]) * np.ones((2, 37))
    values[:, 0], values[:, 18] = 0.0, np.nan
    return xr.DataArray(values, {"time": [0.0, 0.01], **coords}, ("time", "column"), name="response")


def read_pixels(path: Path) -> np.ndarray[Any, Any]:
    from PIL import Image

    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def quadrants(pixels: np.ndarray[Any, Any]) -> list[float]:
    """Mean grey of the upper left, upper right, lower left and lower right part of the middle of a picture."""
    grey = pixels.mean(axis=2) if pixels.ndim == 3 else pixels
    height, width = grey.shape
    middle = grey[height // 5 : 4 * height // 5, width // 5 : 4 * width // 5]
    rows, columns = middle.shape[0] // 2, middle.shape[1] // 2
    return [
        float(part.mean()) for half in (middle[:rows], middle[rows:]) for part in (half[:, :columns], half[:, columns:])
    ]


def test_save__keeps_the_orientation_of_the_stimulus(tmp_path: Path) -> None:
    movie, rendering = l_shape()
    for picture in (viz.movie(movie), viz.hexmap(rendering)):
        path = viz.save(picture, tmp_path / "l.png")
        box = sheet.Sheet(scenes.read_scene(picture), has_caption=False).boxes[0]
        width, height = scenes.read_scene(picture).panels[0].size
        left, top = round(2 * box.left), round(2 * box.top)
        pixels = read_pixels(path)[top : top + 2 * height, left : left + 2 * width]
        upper_left, upper_right, lower_left, lower_right = quadrants(pixels)
        assert upper_right < min(upper_left, lower_right) < lower_left


def test_save__svg_keeps_the_orientation_of_the_stimulus(tmp_path: Path) -> None:
    _, rendering = l_shape()
    text = viz.save(viz.hexmap(rendering), tmp_path / "l.svg").read_text()
    polygons = re.findall(r'<polygon points="([^"]+)" fill="#(..)', text)
    corners = np.array([[list(map(float, pair.split(","))) for pair in points.split()] for points, _ in polygons])
    x, y = corners.mean(axis=1).T
    grey = np.array([int(colour, 16) for _, colour in polygons])
    assert grey.size == rendering.sizes["column"]
    bright = grey > BRIGHT
    assert bright.any()
    assert x[bright].mean() < x.mean()
    assert y[bright].mean() > y.mean()  # y of SVG points down
    lengths = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2)
    np.testing.assert_allclose(lengths, lengths.mean(), rtol=0.01)  # regular hexagons


def test_painter__paints_each_column_in_its_colour(frames: xr.DataArray) -> None:
    panel = scenes.read_scene(viz.hexmap(frames.isel(time=0), clim=(-1, 1))).panels[0]
    values = frames.isel(time=0).values
    pixels = rastering.painter(panel, 1)(values)
    index = rastering.column_of_pixel(panel.lattice(), *panel.size)
    assert set(np.unique(index)) == set(range(-1, 37))
    expected = rastering.rgb([panel.palette[0], panel.palette[128], rastering.missing_colour(panel), "#ffffff"])
    for column, colour in ((5, 0), (0, 1), (18, 2), (-1, 3)):
        is_inside = index == column
        inside = pixels[is_inside]
        share = (inside == expected[colour]).all(axis=1).mean()
        assert share > 0.7, column  # the others are mixed at the edges
        difference = np.abs(np.median(inside, axis=0) - expected[colour])
        assert difference.max() == 0


def test_column_of_pixel__agrees_with_the_nearest_column() -> None:
    u, v = hexgrid.columns(4)
    lattice = elements.Lattice(np.arange(u.size), u, v, *hexgrid.positions(u, v))
    index = rastering.column_of_pixel(lattice, 101, 97)
    xs, ys = lattice.corners()
    x = xs.min() + np.ptp(xs) * (np.arange(101) + 0.5) / 101
    y = ys.max() - np.ptp(ys) * (np.arange(97) + 0.5) / 97
    distance = np.hypot(x[None, :, None] - lattice.x, y[:, None, None] - lattice.y)
    is_inside = index >= 0
    chosen = np.take_along_axis(distance, index.clip(0)[:, :, None], axis=2)[:, :, 0]
    np.testing.assert_allclose(chosen[is_inside], distance.min(axis=2)[is_inside], atol=1e-12)  # any of two as near
    assert (distance.min(axis=2)[~is_inside] > 0.49).all()


def test_colour_index__is_that_of_bokeh() -> None:
    from bokeh.palettes import Greys256

    values = np.array([-3.0, 0.0, 0.25, 0.999, 1.0, 7.0])
    expected = [0, 0, 64, 255, 255, 255]
    assert rastering.colour_index(values, (0.0, 1.0), len(Greys256)).tolist() == expected


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_save__writes_every_format(frames: xr.DataArray, tmp_path: Path, suffix: str) -> None:
    data = frames if suffix in ("html", "gif", "mp4") else frames.isel(time=0)
    path = viz.save(viz.hexmap(data, height=120), tmp_path / "folder" / f"map.{suffix}", progress=False)
    assert path == tmp_path / "folder" / f"map.{suffix}"
    assert path.stat().st_size > 500
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_save__video_has_every_frame(frames: xr.DataArray, tmp_path: Path) -> None:
    import av

    path = viz.save(viz.hexmap(frames, clim=(-1, 1)), tmp_path / "map.mp4", fps=5, scale=1)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        pictures = [frame.to_ndarray(format="rgb24").astype(int) for frame in container.decode(stream)]
        assert stream.average_rate == 5
    assert len(pictures) == 2
    first, second = (picture[100:250, 60:220].mean(axis=(0, 1)) for picture in pictures)
    assert first[2] > first[0] + 50  # blue, then red
    assert second[0] > second[2] + 50


def test_save__gif_has_every_frame(frames: xr.DataArray, tmp_path: Path) -> None:
    from PIL import Image

    path = viz.save(viz.hexmap(frames, clim=(-1, 1)), tmp_path / "map.gif", fps=5)
    with Image.open(path) as picture:
        assert picture.n_frames == 2  # type: ignore[attr-defined]
        assert picture.info["duration"] == 200
        colours = []
        for number in range(2):
            picture.seek(number)
            colours.append(np.asarray(picture.convert("RGB"))[100:250, 60:220].astype(int).mean(axis=(0, 1)))
    assert colours[0][2] > colours[0][0] + 50
    assert colours[1][0] > colours[1][2] + 50


def read_page(path: Path) -> dict[str, Any]:
    text = path.read_text()
    return json.loads(re.search(r"^const scene = (.*)$", text, re.M)[1])  # type: ignore[index]


def unpack(data: dict[str, str]) -> np.ndarray[Any, Any]:
    values = np.frombuffer(gzip.decompress(base64.b64decode(data["bytes"])), data["type"])
    return values / 255 if data["type"] == "uint8" else values


def test_save__page_has_the_values(frames: xr.DataArray, tmp_path: Path) -> None:
    movie = xr.DataArray(np.arange(24).reshape(2, 3, 4) / 255, dims=("time", "y", "x"), coords={"time": [0.0, 0.01]})
    picture = viz.movie(movie) + viz.hexmap(frames) + viz.hexmap(frames.isel(time=1))
    scene = read_page(viz.save(picture, tmp_path / "map.html"))
    assert scene["keys"] == [[0.0], [0.01]]
    assert [panel["kind"] for panel in scene["panels"]] == ["frame", "columns", "columns"]
    assert [panel["positions"] for panel in scene["panels"]] == [[0, 1], [0, 1], [0, 0]]
    np.testing.assert_allclose(unpack(scene["panels"][0]["data"]).reshape(2, 3, 4), movie.values, atol=1e-7)
    np.testing.assert_array_equal(unpack(scene["panels"][1]["data"]).reshape(2, 37), frames.values)
    np.testing.assert_array_equal(unpack(scene["panels"][2]["data"]), frames.values[1])
    np.testing.assert_array_equal(scene["panels"][1]["labels"], np.stack([frames["u"], frames["v"]], axis=1))


def test_save__page_holds_no_foreign_code(frames: xr.DataArray, tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script>"
    data = frames.assign_coords(cell_type=evil, model=0, model_name=f"<img src=x>{evil}").rename(evil)
    text = viz.save(viz.hexmap(data), tmp_path / "map.html").read_text()
    assert evil not in text
    assert "<img" not in text
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")


def test_save__page_of_many_frames_is_small(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    coords = {"time": np.arange(67) / 100, **hexgrid.column_coords(15)}
    data = xr.DataArray(rng.normal(size=(67, 721)).astype(np.float32), coords, ("time", "column"), name="response")
    assert viz.save(viz.hexmap(data), tmp_path / "map.html").stat().st_size < 3e6


def test_save__of_elements_with_axes(tmp_path: Path, frames: xr.DataArray) -> None:
    pytest.importorskip("matplotlib")
    time = np.arange(20) / 100
    course = xr.DataArray(
        np.sin(time * 30) * [[1], [2]], {"time": time, "task_error": ("model", [5.0, 6.0])}, ("model", "time")
    )
    picture = viz.traces(course) + viz.hexmap(frames.isel(time=0))
    pixels = read_pixels(viz.save(picture, tmp_path / "both.png"))
    assert (np.ptp(pixels, axis=2) > 100).mean() > 0.02  # coloured lines, a colour bar and a map
    text = viz.save(picture, tmp_path / "both.svg").read_text()
    assert text.count("<polygon") == 37
    assert "time (s)" in text
    assert hv.Store.current_backend == "bokeh"
    moving = viz.save(viz.traces(course) + viz.hexmap(frames), tmp_path / "both.gif", progress=False)
    assert moving.stat().st_size > 1000


def test_save__of_dynamic_pictures_is_that_of_all_frames(frames: xr.DataArray, tmp_path: Path) -> None:
    eager = read_page(viz.save(viz.hexmap(frames), tmp_path / "eager.html"))
    lazy = read_page(viz.save(viz.hexmap(frames.chunk()), tmp_path / "lazy.html"))
    assert eager == lazy


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"path": "map.jpg"}, "ends in .html, .png, .svg, .gif, .mp4, got map.jpg"),
        ({"path": "map"}, "e.g. map.html"),
        ({"fps": 0}, "fps as a number above 0"),
        ({"scale": -1}, "scale as a number above 0"),
        ({"path": "map.png"}, "expected one frame for .png, got 2 over time"),
        ({"path": "map.svg"}, "or write .gif, .mp4 or .html"),
        ({"picture": 3}, "expected a picture of HoloViews, as the functions of fx.viz return, got int"),
    ],
)
def test_save__refuses(frames: xr.DataArray, tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    picture = arguments.pop("picture", viz.hexmap(frames))
    path = tmp_path / arguments.pop("path", "map.gif")
    path.write_text("kept")
    with pytest.raises(ValueError, match=re.escape(message)):
        viz.save(picture, path, **arguments)
    assert path.read_text() == "kept"
    assert len(list(tmp_path.iterdir())) == 1


def test_save__says_all_that_is_wrong(frames: xr.DataArray, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"fps.*scale.*ends in"):
        viz.save(viz.hexmap(frames), tmp_path / "map.jpg", fps=-1, scale=0)


def test_save__refuses_panels_with_other_times(frames: xr.DataArray, tmp_path: Path) -> None:
    other = viz.hexmap(frames.assign_coords(time=[0.0, 0.5]))
    with pytest.raises(ValueError, match="expected panels with the same frames"):
        viz.save(viz.hexmap(frames) + other, tmp_path / "map.gif")


def test_save__needs_matplotlib_only_for_axes(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "import numpy as np, xarray as xr, flyxr as fx\n"
        "from flyxr import hexgrid, viz\n"
        "values = xr.DataArray(np.arange(7.0), hexgrid.column_coords(1), ('column',), name='response')\n"
        f"viz.save(viz.hexmap(values), r'{tmp_path}/map.png')\n"
        f"viz.save(viz.hexmap(values), r'{tmp_path}/map.svg')\n"
        "course = xr.DataArray(np.arange(3.0), {'time': [0, .1, .2]}, ('time',))\n"
        "try:\n"
        f"    viz.save(viz.traces(course), r'{tmp_path}/traces.png')\n"
        "except ImportError as error:\n"
        "    print(error)\n"
    )
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert "pip install 'flyxr[plot]'" in run.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["map.png", "map.svg"]


def test_animate__plays_labelled_data_and_pictures(frames: xr.DataArray, tmp_path: Path) -> None:
    animation = viz.animate(frames, fps=5, title="T4c & others", clim=(-1, 1))
    assert 'srcdoc="&lt;!DOCTYPE html&gt;' in animation._repr_html_()
    assert "<h1>T4c &amp; others</h1>" in animation.page
    assert viz.save(animation, tmp_path / "a.html").exists()
    assert viz.animate(viz.hexmap(frames)).picture.keys() == [0.0, 0.01]
    movie = xr.DataArray(np.zeros((2, 3, 4)), dims=("time", "y", "x"), coords={"time": [0.0, 0.01]})
    assert isinstance(frames.fly.animate().picture, hv.HoloMap)
    assert isinstance(movie.fly.animate().picture.last, hv.Image)


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (lambda f: f.isel(time=0), {}, "expected several frames, got one"),
        (lambda f: f, {"fps": 0}, "fps as a number above 0"),
        (lambda f: f, {"title": 3}, "expected title"),
        (lambda f: viz.hexmap(f), {"height": 3}, "expected no options of a drawing function for a picture"),
        (lambda f: hv.Curve([1, 2]), {}, "expected columns or frames of a movie in all panels"),
        (lambda f: 3, {}, "expected a picture of HoloViews"),
        (lambda f: f.drop_vars(["u", "v"]), {}, "expected coordinates 'u' and 'v'"),
    ],
)
def test_animate__refuses(frames: xr.DataArray, data: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        viz.animate(data(frames), **options)


def count_reads(data: xr.DataArray) -> tuple[xr.DataArray, list[int]]:
    """Lazy copy of an array with a chunk for each label of the first dim, and a list of the chunks that were read."""
    read: list[int] = []
    values = data.values

    def load(block: np.ndarray[Any, Any], block_info: Any = None) -> np.ndarray[Any, Any]:
        position = block_info[0]["chunk-location"][0]
        read.append(position)
        return values[position : position + 1]

    lazy = data.chunk({data.dims[0]: 1})
    return lazy.copy(data=lazy.data.map_blocks(load, dtype=data.dtype, meta=values[:0])), read


def test_hexmap__reads_lazy_data_when_a_picture_is_shown(frames: xr.DataArray) -> None:
    models = xr.concat([frames, 2 * frames, 3 * frames], "model").assign_coords(model=[3, 4, 5])
    lazy, read = count_reads(models)
    with dask.config.set(scheduler="synchronous"):
        picture = viz.hexmap(lazy, clim=(-3, 3))
        assert isinstance(picture, hv.DynamicMap)
        assert not read
        shown = picture[4, 0.01]
        assert read == [1]
        picture[4, 0.0]  # all times of a model are one block
        assert read == [1]
    np.testing.assert_array_equal(shown.dimension_values("response"), models.sel(model=4, time=0.01))


def test_hexmap__colours_of_lazy_data_are_those_of_all(frames: xr.DataArray) -> None:
    eager, lazy = viz.hexmap(frames), viz.hexmap(frames.chunk({"time": 1}))
    assert isinstance(eager, hv.HoloMap)
    assert scenes.read_scene(lazy).panels[0].clim == scenes.read_scene(eager).panels[0].clim == (-1, 1)


def test_hexmap__is_dynamic_where_a_kernel_is(frames: xr.DataArray, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not isinstance(viz.hexmap(frames), hv.DynamicMap)
    monkeypatch.setattr(pictures, "has_kernel", lambda: True)
    assert isinstance(viz.hexmap(frames), hv.DynamicMap)
    assert not isinstance(viz.hexmap(frames.chunk(), dynamic=False), hv.DynamicMap)


def test_ticks__are_round_numbers() -> None:
    assert [text for _, text in sheet.ticks(-0.31, 0.31)] == ["−0.2", "0", "0.2"]
    assert sheet.ticks(1.0, 1.0) == [(1.0, "1")]
    for low, high in ((0, 1), (-5.1, 7.3), (1e-9, 3e-9), (-2e6, 5e6)):
        marks = [value for value, _ in sheet.ticks(low, high)]
        assert 2 <= len(marks) <= 6
        assert low <= min(marks) <= max(marks) <= high


def test_page__packs_bytes_only_if_they_are_exact() -> None:
    assert player._pack(np.array([0.0, 0.5, np.nan]))["type"] == "float32"
    values = np.array([0, 3, 255]) / 255
    np.testing.assert_allclose(unpack(player._pack(values)), values)


@pytest.mark.browser
def test_page__plays_in_a_browser(tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium: apt-get install chromium")
    movie, rendering = l_shape()
    both = [xr.concat([data, 1 - data], "time").assign_coords(time=[0.0, 0.01]) for data in (movie, rendering)]
    path = viz.save(viz.movie(both[0]) + viz.hexmap(both[1]), tmp_path / "l.html")
    text = path.read_text().replace(
        "start()\n</script>",
        """start().then(() => {
    const shown = () => [...document.querySelectorAll("polygon")].map((hexagon) => hexagon.getAttribute("fill"))
    const corner = () => [...document.querySelector("canvas").getContext("2d").getImageData(26, 80, 1, 1).data]
    const result = {first: shown(), canvas: corner()}
    const slider = document.querySelector("#controls input")
    slider.value = 1
    slider.dispatchEvent(new Event("input"))
    result.second = shown()
    document.querySelectorAll("polygon")[3].dispatchEvent(new MouseEvent("mousemove", {clientX: 9, clientY: 9}))
    result.tip = document.getElementById("tip").textContent
    result.clock = document.querySelector("#controls span").textContent
    element("pre", document.body, JSON.stringify(result)).id = "result"
})
</script>""",
    )
    path.write_text(text)
    command = [browser, "--headless", "--no-sandbox", "--virtual-time-budget=10000", f"--user-data-dir={tmp_path}/b"]
    run = subprocess.run(
        [*command, "--dump-dom", path.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    result = json.loads(html.unescape(re.search(r'<pre id="result">(.*?)</pre>', run.stdout)[1]))  # type: ignore[index]
    palette = scenes.read_scene(viz.hexmap(rendering.isel(time=0))).panels[0].palette
    for name, frame in zip(("first", "second"), both[1].values, strict=True):
        assert result[name] == [palette[index] for index in rastering.colour_index(frame, (0, 1), len(palette))]
    expected = round(255 * float(movie.values[0, 80, 26]))
    assert result["canvas"][:3] == [expected] * 3
    labels = [int(both[1][name].values[3]) for name in ("u", "v")]
    assert result["tip"].replace("−", "-").startswith(f"u {labels[0]}, v {labels[1]}\nluminance ")
    assert float(result["tip"].split()[-1]) == pytest.approx(float(both[1].values[1, 3]), abs=1e-4)
    assert result["clock"] == "time 0.010 s"
    points = re.findall(r'<polygon points="([^"]+)"', run.stdout)
    corners = np.array([list(map(float, text.split())) for text in points]).reshape(len(points), 6, 2)
    x, y = corners.mean(axis=1).T
    np.testing.assert_allclose(x, rendering["x_column"], atol=1e-3)
    np.testing.assert_allclose(y, -rendering["y_column"], atol=1e-3)  # y of SVG points down


def test_matplotlib__keeps_the_orientation_of_the_stimulus() -> None:
    pytest.importorskip("matplotlib")
    _, rendering = l_shape()
    picture = viz.hexmap(rendering)
    figure = hv.render(printing.for_matplotlib(picture), backend="matplotlib")
    (collection,) = figure.axes[0].collections
    centers = np.array([path.vertices[:6].mean(axis=0) for path in collection.get_paths()])
    np.testing.assert_allclose(centers[:, 0], rendering["x_column"], atol=1e-6)
    np.testing.assert_allclose(centers[:, 1], rendering["y_column"], atol=1e-6)
    np.testing.assert_allclose(collection.get_array(), rendering.values[0])
    assert collection.get_clim() == (0, 1)
    assert not figure.axes[0].yaxis_inverted()


# -- figures of matplotlib --------------------------------------------------------------------------------------------


def test_draw__colour_bar_stands_beside_the_frame() -> None:
    clusters = xr.Dataset(
        {"embedding": (("model", "component"), np.random.default_rng(0).random((7, 2)))},
        {"cell_type": "T4c", "model": range(7), "task_error": ("model", np.arange(7.0))},
    ).assign(cluster=("model", [0, 1, 1, 1, 2, 2, 2]))
    panel = scenes.read_scene(fx.viz.embedding(clusters)).panels[0]
    frame, bar = (axes.get_position() for axes in printing.draw(panel.first, panel.size).axes)
    assert frame.x1 < bar.x0 < frame.x1 + 0.05
    np.testing.assert_allclose([bar.y0, bar.height], [frame.y0, frame.height])


def test_draw__areas_are_as_transparent_as_on_the_screen() -> None:
    panel = scenes.read_scene(fx.BoxEye(extent=1, kernel_size=5).illustrate()).panels[0]
    boxes = printing.draw(panel.first, panel.size).axes[0].collections[0]
    np.testing.assert_allclose(boxes.get_facecolor()[:, 3], 0.1, atol=0.01)


def test_paint__a_figure_is_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    draw = printing.draw
    monkeypatch.setattr(printing, "draw", lambda *arguments: drawn.append(arguments) or draw(*arguments))
    course = xr.DataArray(np.zeros(3), {"time": [0.0, 0.1, 0.2]}, "time", name="response")
    page = sheet.Sheet(scenes.read_scene(fx.viz.traces(course)), has_caption=False)
    assert [frame.shape for frame in page.paint(1)] == [(page.height, page.width, 3)]
    assert len(drawn) == 1
