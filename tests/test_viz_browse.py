"""The browser without a browser: what it reads, what it shows, its address, and its errors."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import socket
import time
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr
import zarr.storage

import flyxr as fx
from flyxr import cli, hexgrid, schema, store, viz
from flyxr.testing import noise_rendering, random_movie
from flyxr.viz import browser_page, browser_reading, browser_state

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOSTILE = "<img src=x onerror=window.hacked=1>"


class FakeLocation:
    """Location of a session, as Panel has it."""

    def __init__(self, search: str = "") -> None:
        self.search = search
        self.param = self
        self.follow: Any = None

    def watch(self, follow: Any, _: str) -> None:
        self.follow = follow


class FakeDocument:
    """Document whose timeouts have passed at once."""

    def add_timeout_callback(self, callback: Any, _: float) -> None:
        callback()


def make_responses(n_models: int = 4, n_samples: int = 4, extent: int = 2) -> xr.Dataset:
    rendering = noise_rendering(n_samples, extent=extent)
    shape = (n_models, n_samples, rendering.sizes["time"], 3, rendering.sizes["column"])
    values = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    responses = rendering.assign(response=(("model", "sample", "time", "cell_type", "column"), values))
    return responses.assign_coords(
        model=np.arange(n_models) * 10,
        cell_type=["L1", "T4c", "T4d"],
        angle=("sample", np.arange(n_samples) * 90.0),
        task_error=("model", [5.3, 5.1, 5.2, 5.4][:n_models]),
    ).assign_attrs(flyxr_dataset="responses")


def make_clusters() -> xr.Dataset:
    """Clusters of the models in another order, without the last, and of one cell type that was not simulated."""
    place = np.arange(12.0).reshape(2, 3, 2)
    return xr.Dataset(
        {
            "embedding": (("cell_type", "model", "component"), place),
            "cluster": (("cell_type", "model"), [[0, 1, 0], [0, 0, 0]]),
            "score": (("cell_type", "n_clusters"), [[1.0], [2.0]]),
        },
        {"cell_type": ["T4c", "Mi1"], "model": [20, 0, 10], "n_clusters": [2]},
        {schema.KIND_ATTR: "clusters"},
    )


@pytest.fixture
def page() -> browser_page.Page:
    reader = browser_reading.Reader(make_responses(), make_clusters())
    page = browser_page.Page(reader, FakeLocation(), FakeDocument())
    page.layout()
    return page


def test_page__opens_with_upward_beside_downward_motion_of_the_best_model(page: browser_page.Page) -> None:
    view = page.view
    assert (view.sample, view.compare, view.models, view.cell_type) == (1, 3, [1], 1)
    data = page.reader.response.isel(model=1, cell_type=1, time=view.time)
    for row, sample in zip(page.rows, (1, 3), strict=True):
        np.testing.assert_array_equal(row.response.source.data["response"], data.isel(sample=sample))
        luminance = make_responses().luminance.isel(sample=sample, time=view.time)
        np.testing.assert_array_equal(row.columns.source.data["luminance"], luminance)
        assert row.heading.text == f"sample {sample} (angle {90 * sample})"
    assert page.rows[0].response.mapper.low == page.rows[1].response.mapper.low


def test_page__follows_widgets(page: browser_page.Page) -> None:
    page.cell_type.value, page.sample.value, page.player.value = 2, 0, 5
    page.compare.value = browser_state.NONE
    assert not page._second.visible
    page.models.value = [0, 3]
    expected = page.reader.response.isel(model=[0, 3], cell_type=2, sample=0)
    shown = page.rows[0].response.source.data["response"]
    np.testing.assert_allclose(shown, expected.isel(time=5).mean("model"), rtol=1e-6)
    assert "mean of 2 models" in page.remark.text
    page._choose_column(7)
    np.testing.assert_allclose(page.courses.means[0].data["y"], expected.isel(column=7).mean("model"), rtol=1e-6)
    thin = np.asarray(page.courses.models[0].data["y"])
    np.testing.assert_array_equal(thin.reshape(2, -1)[:, :-1], expected.isel(column=7))
    assert page.courses.now.location == page.reader.times[5]
    page.opposite.clicks += 1
    assert page.compare.value == 2
    assert page._second.visible


def test_page__has_models_of_a_cluster_or_of_a_selection(page: browser_page.Page) -> None:
    embedding = page.embedding
    assert embedding is not None
    assert list(embedding.source.data["x"]) == [2.0, 4.0, 0.0]  # in the order of the responses
    assert page.cluster.options == {"any models": -1, "cluster 0 (2 models)": 0, "cluster 1 (1 models)": 1}
    page.cluster.value = 0
    assert page.view.models == [1, 2]
    assert page.models.value == [1, 2]
    assert embedding.source.selected.indices == [1, 2]
    embedding.source.selected.indices = [0]
    assert page.view.models == [0]
    assert page.cluster.value == 1
    page.view.models = [3]  # it has no place
    assert embedding.source.selected.indices == []
    assert page.view.models == [3]
    assert page.cluster.value == browser_state.NONE
    page.cell_type.value = 0
    assert not page._plane.visible
    assert "L1 was not clustered" in page.remark.text


def test_page__without_clusters_has_a_list_of_models() -> None:
    page = browser_page.Page(browser_reading.Reader(make_responses()))
    page.layout()
    assert page.embedding is None
    assert not page.cluster.visible
    assert list(page.models.options)[0] == "0 · error 5.3"


def test_page__without_other_columns_has_time_courses_only() -> None:
    responses = make_responses().isel(column=[9])
    page = browser_page.Page(browser_reading.Reader(responses))
    page.layout()
    assert page.rows[0].response is None
    assert "One column was recorded" in page.remark.text
    np.testing.assert_array_equal(page.courses.means[0].data["y"], responses.response[1, 1, :, 1, 0])


def test_page__without_stimulus_says_so() -> None:
    page = browser_page.Page(browser_reading.Reader(make_responses().response))
    page.layout()
    assert page.rows[0].columns is None
    assert "no stimulus" in page.remark.text


def test_address__holds_the_view(page: browser_page.Page) -> None:
    page.view.param.update(cell_type=2, sample=3, compare=browser_state.NONE, models=[0, 2], time=4, column=11)
    address = page._location.search
    assert address == "?cell_type=T4d&sample=3&compare=&model=0&model=20&time=0.04&column=11"
    other = browser_page.Page(page.reader, FakeLocation(address))
    assert other._state() == page._state()
    page._location.follow(type("Event", (), {"new": "?cell_type=L1&model=30"}))  # the back button
    assert (page.view.cell_type, page.view.models, page.view.sample) == (0, [3], 3)


@pytest.mark.parametrize("search", ["?cell_type=<b>&model=x", "?time=nan", "?time=x", "?" + "&".join(["a=1"] * 20_000)])
def test_address__of_unknown_labels_opens_and_says_so(search: str) -> None:
    page = browser_page.Page(browser_reading.Reader(make_responses()), FakeLocation(search), FakeDocument())
    assert page.view.cell_type == 1
    assert page.notice.visible
    assert "what these responses lack" in page.notice.text
    page.view.time = 1
    assert not page.notice.visible


def test_address__is_not_written_while_time_plays(page: browser_page.Page) -> None:
    page.player.direction = 1
    page.view.time = 0
    assert page._location.search == ""
    page.player.direction = 0
    assert "time=0&" in page._location.search


def test_text__of_strangers_is_never_html(tmp_path: Path) -> None:
    names = [HOSTILE, "$$\\href{javascript:window.hacked=1}{x}$$", "a\nb", "\\(x\\)"]
    responses = make_responses().assign_coords(
        cell_type=names[:3], sample=names, model=names, model_name=("model", names), angle=("sample", names)
    )
    page = browser_page.Page(browser_reading.Reader(responses.assign_attrs(title=HOSTILE)))
    for text in (page.notice, page.remark, page.clock, *(row.heading for row in page.rows)):
        assert text.render_as_text
        assert text.disable_math
    labels = [*page.reader.cell_types, *page.reader.model_titles, *page.reader.sample_titles]
    assert not any(sign in label for label in labels for sign in ("$$", "\\(", "\\[", "\n"))
    for row in page.rows:
        for view in (row.response, row.columns):
            for tool in view.figure.hover:
                assert isinstance(tool.tooltips, list)  # no template
                assert not any("safe" in field or "custom" in field for _, field in tool.tooltips)


def test_movie__has_frames_on_display_in_the_orientation_of_the_columns() -> None:
    frames = np.full((1, 6, 80, 100), 0.2, np.float32)
    frames[:, :, 10:70, 30:42] = 1
    frames[:, :, 58:70, 30:75] = 1  # an L
    movie = fx.stimuli.from_array(frames, 100, dims=("sample", "time", "y", "x"))
    rendering = fx.BoxEye(extent=7, kernel_size=5).render(movie).compute()
    responses = rendering.luminance.expand_dims(cell_type=["T4c"], model=[0]).rename("response")
    page = browser_page.Page(browser_reading.Reader(responses.to_dataset().assign(rendering), movie=movie))
    shown = page.rows[0].movie.source.data["image"][0]
    np.testing.assert_array_equal(shown, np.rint(frames[0, 0] * 255))
    data = page.rows[0].columns.source.data
    x, y = hexgrid.positions(data["u"], data["v"])
    is_light = data["luminance"] > 0.6
    upper_left, lower_right, upper_right = (
        is_light[(np.sign(x) == sx) & (np.sign(y) == sy)].sum() for sx, sy in ((-1, 1), (1, -1), (1, 1))
    )
    assert upper_left > 0
    assert lower_right > 0
    assert upper_right == 0


def test_movie__is_grey_before_and_after() -> None:
    responses = make_responses()
    movie = random_movie(4, 2, 8, 10, frame_rate=50)
    reader = browser_reading.Reader(responses.assign_coords(time=responses.time.values - 0.01), movie=movie)
    frames = [reader.read_frame(0, position) for position in range(6)]
    assert [frame is not None and bool((frame == 128).all()) for frame in frames] == [True, *[False] * 4, True]


def test_cache__forgets_what_was_used_longest_ago() -> None:
    cache = browser_reading.Cache(max_bytes=160)
    for key in "abac":
        cache.get_or_read(key, lambda: np.zeros(10))
    assert cache.get("b") is None
    assert cache.get("a") is not None
    assert cache.n_bytes == 160


@pytest.fixture(scope="module")
def large_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Store of 103 GB whose files are links to a single one of 90 MB."""
    path = tmp_path_factory.mktemp("large") / "large.zarr"
    n_models, n_samples, n_times, block = 50, 92, 120, 4
    shape = (n_models, n_samples, n_times, 65, 721)
    responses = xr.Dataset(
        {
            "response": (
                ("model", "sample", "time", "cell_type", "column"),
                da.zeros(shape, dtype=np.float32, chunks=(1, block, *shape[2:])),
            ),
            "luminance": (("sample", "time", "column"), np.zeros((n_samples, n_times, 721), np.float32)),
        },
        {
            **{name: np.arange(length) for name, length in (("model", n_models), ("sample", n_samples))},
            "time": schema.time_coord(n_times, 0.01),
            "cell_type": [f"type {number}" for number in range(65)],
            **hexgrid.column_coords(15),
        },
        {schema.KIND_ATTR: "responses"},
    )
    assert responses.nbytes > 100e9
    store.write_template(responses, path, block)
    values = np.random.default_rng(0).standard_normal((1, block, *shape[2:]), dtype=np.float32)
    store.write_region(path, "response", values, (0, 0))
    first = path / "response/c/0/0/0/0/0"
    for model in range(n_models):
        for sample in range(n_samples // block):
            file = path / f"response/c/{model}/{sample}/0/0/0"
            file.parent.mkdir(parents=True, exist_ok=True)
            if not file.exists():
                os.link(first, file)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def bytes_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of each piece that zarr reads from files."""
    pieces: list[int] = []
    read = zarr.storage.LocalStore.get

    async def get(self: Any, key: str, *args: Any, **options: Any) -> Any:
        content = await read(self, key, *args, **options)
        pieces.append(0 if content is None else len(content))
        return content

    monkeypatch.setattr(zarr.storage.LocalStore, "get", get)
    return pieces


def test_large_store__is_read_where_it_is_shown(large_store: Path, bytes_read: list[int]) -> None:
    page = browser_page.Page(browser_reading.Reader(fx.open(large_store)))
    page.layout()
    page.view.compare = 90
    chunk_bytes = 4 * 120 * 721 * 4  # four samples share a chunk

    def measure(**changes: Any) -> tuple[int, float]:
        bytes_read.clear()
        start = time.perf_counter()
        page.view.param.update(**changes)
        return sum(bytes_read), time.perf_counter() - start

    changes: list[tuple[dict[str, Any], int]] = [
        ({"cell_type": 20}, 2),
        ({"models": [7]}, 2),
        ({"sample": 41}, 1),
        ({"compare": 3}, 1),
        ({"models": list(range(8, 18))}, 20),
    ]
    measured = [(n_chunks, *measure(**change)) for change, n_chunks in changes]
    assert all(n_bytes <= n_chunks * (chunk_bytes + 20_000) for n_chunks, n_bytes, _ in measured)
    assert np.median([seconds for _, _, seconds in measured]) < 0.5
    kept = [measure(**change) for change in ({"sample": 40}, {"sample": 41}, {"time": 3}, {"column": 5})][1:]
    assert [n_bytes for n_bytes, _ in kept] == [0, 0, 0]


def test_large_store__updates_linked_views_at_once(large_store: Path) -> None:
    page = browser_page.Page(browser_reading.Reader(fx.open(large_store)))
    page.layout()
    page.view.param.update(compare=1, models=[0, 1, 2])
    seconds = []
    for number in range(20):
        start = time.perf_counter()
        page.view.param.update(**{("time", "column")[number % 2]: number})
        seconds.append(time.perf_counter() - start)
    assert np.median(seconds) < 0.05


def test_page__says_what_cannot_be_read(tmp_path: Path) -> None:
    path = fx.save(make_responses(), tmp_path / "r.zarr")
    page = browser_page.Page(browser_reading.Reader(fx.open(path)))
    for file in (path / "response/c").rglob("*"):
        if file.is_file():
            file.unlink()
    page.cell_type.value = 0
    page.view.models = [2]
    assert page.notice.visible
    assert "changed" in page.notice.text
    assert np.isnan(page.rows[0].response.source.data["response"]).all()


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "port": ({"port": -1}, "expected port as an integer of at least 0, got -1"),
    "large port": ({"port": 70_000}, "expected port of at most 65535, got 70000: 0 takes any free port"),
    "flag": ({"serve": 1}, "expected serve as True or False, got 1"),
    "no responses": ({"responses": noise_rendering()}, "response"),
    "no clusters": ({"clusters": xr.Dataset()}, "expected clusters with 'embedding' and 'cluster'.*call fx.cluster"),
    "other clusters": (
        {"clusters": make_clusters().assign_coords(model=[1, 2, 3])},
        "got none in common: cluster these responses with fx.cluster",
    ),
    "other movie": ({"movie": random_movie(2, 2, 8, 8)}, r"a movie with each 'sample'.*without \[2, 3\]"),
    "no movie": ({"movie": noise_rendering()}, "movie"),
    "no samples": ({"responses": make_responses().isel(sample=[])}, "got no sample|at least one"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD)
def test_browse__refuses_arguments_before_it_opens_a_port(
    arguments: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket.socket, "bind", lambda *_: pytest.fail("a port was opened"))
    with pytest.raises(ValueError, match=message):
        viz.browse(**{"responses": make_responses(), **arguments})


def test_browse__refuses_a_taken_port() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=rf"got {port}, which cannot be opened .*: choose another, or port=0"):
            viz.browse(make_responses(), port=port, open_browser=False)


def test_browse__does_not_block_a_notebook() -> None:
    async def cell() -> None:
        viz.browse(make_responses(), open_browser=False)

    with pytest.raises(ValueError, match=r"got a notebook.*serve=False"):
        asyncio.run(cell())
    assert type(viz.browse(make_responses(), serve=False)).__name__ == "FlexBox"


def test_browse__leaves_its_arguments_unchanged() -> None:
    responses, clusters = make_responses(), make_clusters()
    viz.browse(responses, clusters, serve=False)
    xr.testing.assert_identical(responses, make_responses())
    xr.testing.assert_identical(clusters, make_clusters())


def test_command__opens_stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called: dict[str, Any] = {}
    monkeypatch.setattr(viz, "browse", lambda *args, **options: called.update(args=args, options=options))
    paths = [fx.save(make_responses(), tmp_path / "r.zarr"), fx.save(make_clusters(), tmp_path / "c.zarr")]
    paths.append(fx.save(random_movie(4, 2, 8, 8), tmp_path / "m.zarr"))
    responses, clusters, movie = map(str, paths)
    command = ["browse", responses, "--clusters", clusters, "--movie", movie, "--port", "0", "--no-browser"]
    assert cli.main(command) == 0
    assert [schema.kind_of(data) for data in called["args"]] == ["responses", "clusters", "movie"]
    assert called["options"] == {"port": 0, "open_browser": False}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{a}/c.zarr"], "expected a store of responses .*got one of clusters"),
        (["{a}/r.zarr", "--clusters", "{a}/r.zarr"], "expected a store of clusters"),
        (["{a}/r.zarr", "--movie", "{a}/none.mp4"], "found nothing: check the path"),
        (["{a}/r.zarr", "--movie", "{a}/a.npy"], "got an array of NumPy .*fx.stimuli.from_array"),
        (["{a}/r.zarr", "--port", "70000"], "at most 65535"),
    ],
)
def test_command__prints_errors_in_a_sentence(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fx.save(make_responses(), tmp_path / "r.zarr")
    fx.save(make_clusters(), tmp_path / "c.zarr")
    np.save(tmp_path / "a.npy", np.zeros(3))
    assert cli.main(["browse", *(argument.replace("{a}", str(tmp_path)) for argument in arguments)]) == 2
    printed = capsys.readouterr().err
    assert re.search(message, printed), printed
    assert "Traceback" not in printed


def test_command__has_help_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["browse", "--help"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "Example: flyxr browse responses.zarr --clusters clusters.zarr --movie movie.zarr" in printed
    assert "until Ctrl-C" in printed
