"""The overview of a Dataset in notebooks: its line, its picture, and what they must not do."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import xarray as xr
from PIL import Image

import flyxr as fx
from flyxr import hexgrid, notebook, schema, testing
from flyxr.store.ledger import LEDGER_FILE
from flyxr.viz import overview as module
from flyxr.viz.overview import overview, overview_html

if TYPE_CHECKING:
    from pathlib import Path

TYPES = ["R1", "L1", "Mi1", "T4c"]


def responses(n_models: int = 3, types: list[str] | None = None, extent: int = 2) -> xr.Dataset:
    """Responses in memory: -1 at the left of the lattice, 1 at the right, NaN in the middle."""
    types = TYPES if types is None else types
    coords = hexgrid.column_coords(extent)
    shape = (n_models, 4, 20, len(types), hexgrid.n_columns(extent))
    values = np.broadcast_to(np.sign(coords["v"][1]).astype(np.float32), shape).copy()
    values[..., coords["v"][1] == 0] = np.nan
    dims = schema.KINDS["responses"].variables[0].dims
    labels = {
        "model": np.arange(n_models),
        "sample": np.arange(4),
        "time": schema.time_coord(20, 0.01),
        "cell_type": np.array(types, dtype=object),
    }
    return schema.annotate(
        xr.Dataset({"response": (dims, values)}, {**labels, **coords}, {"trained": 1}),
        "responses",
    )


def pixels_of(page: str) -> np.ndarray:
    """Pixels (y, x, channel) of the picture."""
    (code,) = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(code))))


MOVIE = xr.Dataset(
    {"luminance": (("sample", "time", "y", "x"), np.zeros((2, 4, 3, 5), np.float32))},
    {"time": schema.time_coord(4, 0.05)},
)
CLUSTERS = xr.Dataset(
    {
        "embedding": (("cell_type", "model", "component"), np.zeros((2, 4, 2))),
        "cluster": (("cell_type", "model"), np.array([[0, 0, 1, -1], [0, 1, 2, 2]])),
        "score": (("cell_type", "n_clusters"), np.zeros((2, 3))),
    },
    {"cell_type": ["T4a", "T4b"]},
)
OPTIMAL = xr.Dataset(
    {
        "luminance": (("model", "time", "column"), np.full((2, 4, 7), 0.5, np.float32)),
        "response": (("model", "time"), np.zeros((2, 4))),
        "start_response": (("model", "time"), np.zeros((2, 4))),
        "loss": (("model", "iteration"), np.zeros((2, 3))),
    },
    {"time": schema.time_coord(4, 0.05), "cell_type": "T4c", **hexgrid.column_coords(1)},
)
LINES: dict[str, tuple[Any, str]] = {
    "movie": (lambda: MOVIE, "movie of 2 samples, 0.2 s in steps of 50 ms, frames of 5 × 3 pixels"),
    "rendering": (
        lambda: fx.pad_grey(fx.BoxEye().render(fx.stimuli.moving_digits(frame_rate=50, seed=0)), t_pre=0.5),
        "rendering of 4 samples, 1.4 s from \N{MINUS SIGN}0.5 s in steps of 20 ms, all 721 columns",
    ),
    "connectome": (
        fx.open_connectome,
        "connectome of 65 cell types, 605 pairs of cell types, 2,378 columnar offsets",
    ),
    "ensemble": (
        lambda: fx.sample_ensemble(n_models=3, seed=0).assign_coords(task_error=("model", [5.13, np.nan, 5.3])),
        "ensemble of 3 untrained models, all 65 cell types, 604 pairs of cell types, task error 5.13 to 5.3",
    ),
    "responses": (
        responses,
        "responses of 3 trained models to 4 samples, 0.2 s in steps of 10 ms, R1, L1, Mi1 and T4c in all 19 columns",
    ),
    "clusters": (lambda: CLUSTERS, "clusters of 4 models, T4a and T4b, 2 to 3 clusters"),
    "measures": (
        lambda: schema.annotate(
            xr.Dataset({"response_norm": (("model", "cell_type"), np.zeros((2, 6)))}, attrs={"trained": 0}), "measures"
        ),
        "measures of 2 untrained models, 6 cell types, response_norm",
    ),
    "optimal_stimuli": (
        lambda: OPTIMAL,
        "optimal stimuli of 2 models, T4c, 0.2 s in steps of 50 ms, all 7 columns",
    ),
}


@pytest.mark.parametrize("kind", schema.KINDS)
def test_overview__of_every_kind(kind: str) -> None:
    make, line = LINES[kind]
    data = make()
    assert overview(data) == line
    assert repr(data.fly) == line
    if kind != "measures":  # all of their variables are optional
        assert overview(data.drop_attrs(deep=False)).split()[0] == line.split()[0]
    assert f"<b>{line}</b>" in overview_html(data)
    assert data.fly._repr_html_().split("<b>")[1].startswith(line)


@pytest.mark.parametrize(
    ("select", "line"),
    [
        (lambda r: r.response, "responses of 3 models to 4 samples, 0.2 s in steps of 10 ms, R1, L1, Mi1 and T4c in"),
        (lambda r: r.sel(cell_type="T4c"), "ms, T4c in all 19 columns"),
        (lambda r: r.fly.central(), "T4c in the central column"),
        (lambda r: r.isel(column=[0, 2]), "T4c in 2 columns"),
        (lambda r: r.isel(column=0), "in the column u = -2, v = 0"),
        (lambda r: r.isel(model=1, sample=2), "responses of trained model 1 to sample 2, 0.2 s"),
        (lambda r: r.isel(time=3), "samples, at 0.03 s, R1"),
        (lambda r: r.isel(time=[3]), "samples, 0.01 s from 0.03 s in steps of 10 ms, R1"),
        (lambda r: r.isel(time=[0, 1, 5]), "3 times from 0 s to 0.05 s"),
        (lambda r: r.isel(model=[0]).assign_attrs(trained=0), "of 1 untrained model to"),
        (lambda r: r.drop_vars("time"), "to 4 samples, 20 times, R1"),
        (lambda r: r.assign_attrs(trained="yes"), "of 3 models to"),
        (lambda r: r.isel(cell_type=[0] * 6), "ms, 6 cell types in all 19 columns"),
        (lambda r: r.isel(cell_type=np.arange(65) % 4), "ms, all 65 cell types in all 19 columns"),
        (lambda r: r.isel(sample=[]), "to 0 samples"),
    ],
)
def test_overview__of_a_selection(select: Any, line: str) -> None:
    assert line in overview(select(responses()))


STRANGE = xr.Dataset({"temperature": ("x", [1.0])}).assign_attrs({schema.KIND_ATTR: "movie"})


@pytest.mark.parametrize(
    "data",
    [
        xr.Dataset(),
        STRANGE,
        xr.Dataset({"luminance": (("latitude", "longitude"), [[1.0]])}),
        xr.Dataset({"response": ("time", [1.0])}),
        xr.Dataset(attrs={schema.KIND_ATTR: ["movie"]}),
        xr.DataArray([1.0], dims="time"),
        xr.DataArray([1.0], dims="time", name="time"),
    ],
    ids=["empty", "misnamed", "a map", "a course", "another attribute", "nameless", "named as its dim"],
)
def test_overview__leaves_other_data_to_xarray(data: xr.Dataset | xr.DataArray) -> None:
    assert overview(data) == repr(data.fly) == module.UNKNOWN
    assert "flyxr-overview" not in overview_html(data)
    assert "xr-wrap" in overview_html(data)


def test_overview__never_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    data = responses()

    def fail(*_: object) -> None:
        raise RuntimeError("broken")

    with monkeypatch.context() as patch:
        patch.setattr(module, "_line", fail)
        assert overview(data) == module.UNKNOWN
        assert "flyxr-overview" not in overview_html(data)
    monkeypatch.setattr(module, "_middle_frame", fail)
    assert "responses of 3 trained" in overview_html(data)
    assert "<img" not in overview_html(data)


def test_overview__holds_no_markup_and_no_control_characters() -> None:
    name = "<script>alert(1)</script>\n\x1b[31m\"'\u202e"
    data = responses(types=[name, "x" * 300]).assign_coords(model=[name, "b", "c"], sample=[name, 1, 2, 3])
    for part in (data, data.isel(model=0, sample=0, cell_type=0), data.response):
        line, page = overview(part), overview_html(part)
        assert line.isprintable()
        assert len(line) < 300
        above = page.partition("</div>")[0]
        assert "<img" in above
        assert "<script" not in page
        assert re.fullmatch(r'<div class="flyxr-overview" style="[^"<]*"><img( \w+="[^"<]*")*><b>[^"<]*</b>', above)


# -- the picture ------------------------------------------------------------------------------------------------------


def test_picture__shows_each_column_in_its_place() -> None:
    data = responses(extent=15)
    height, width = (pixels := pixels_of(overview_html(data))).shape[:2]
    assert max(height, width) == module.PICTURE_SIZE
    blue, red = np.array(module.DIVERGING[0]), np.array(module.DIVERGING[-1])
    middle = pixels[height // 2]
    np.testing.assert_array_equal(middle[2, :3], blue)  # x grows with v
    np.testing.assert_array_equal(middle[-3, :3], red)
    np.testing.assert_array_equal(middle[width // 2], module.NO_VALUE)
    np.testing.assert_array_equal(pixels[0, 0], module.OUTSIDE)
    top = data.where(data.y_column > 0, 0.0)
    assert (pixels_of(overview_html(top))[: height // 4, width // 4, :3] == blue).any()
    assert not (pixels_of(overview_html(top))[-height // 4 :, width // 4, :3] == blue).all(axis=-1).any()


def test_picture__is_of_t4c_at_the_middle_time() -> None:
    data = responses()
    data["response"][:] = np.nan
    assert "<img" not in overview_html(data)  # as where a sweep has not written
    data["response"].loc[{"model": 0, "sample": 0, "time": 0.1, "cell_type": "T4c"}] = 1.0
    page = overview_html(data)
    assert 'title="model 0, sample 0, 0.1 s, T4c"' in page
    assert (pixels_of(page)[..., :3] == module.DIVERGING[-1]).all(axis=-1).any()


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_picture__of_a_movie_is_its_middle_frame(dtype: Any) -> None:
    frames = np.zeros((2, 4, 300, 200), dtype)
    frames[0, 2, 150:] = 255 if dtype is np.uint8 else 1
    pixels = pixels_of(overview_html(MOVIE.drop_vars("luminance").assign(luminance=(MOVIE.luminance.dims, frames))))
    assert pixels.shape == (75, 50, 4)
    np.testing.assert_array_equal(pixels[:37, :, :3], 0)
    np.testing.assert_array_equal(pixels[38:, :, :3], 255)


@pytest.mark.parametrize(
    "select",
    [
        lambda r: r.fly.central(),
        lambda r: r.isel(column=[3]),
        lambda r: r.isel(sample=[]),
        lambda r: r.drop_vars(["u", "v"]),
    ],
    ids=["central", "one column", "no samples", "no coordinates"],
)
def test_picture__is_left_out_where_there_is_none(select: Any) -> None:
    page = overview_html(select(responses()))
    assert "flyxr-overview" in page
    assert "<img" not in page


def lazy_data() -> dict[str, xr.Dataset]:
    movie = fx.stimuli.moving_digits(n_samples=2, frame_rate=50, seed=0)
    rendering = fx.BoxEye().render(movie)
    simulated = fx.simulate(rendering, fx.sample_ensemble(n_models=2, seed=0))
    return {
        "movie": movie,
        "rendering": rendering,
        "responses": simulated,
        "selection": simulated.fly.celltype("T4c").isel(model=0),
        "chunked": responses().chunk(),
        "lazy coordinates": CLUSTERS.assign_coords(task_error=("model", np.zeros(4))).chunk(),
    }


def test_overview__computes_nothing(counting_scheduler: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dask.local.get_sync", counting_scheduler)
    for name, data in lazy_data().items():
        before = counting_scheduler.calls
        page = overview_html(data)
        assert "flyxr-overview" in page, name
        assert "<img" not in page
        assert counting_scheduler.calls == before, name


def test_picture__of_a_store_reads_one_small_chunk(
    tmp_path: Path, counting_scheduler: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = responses()
    stored = fx.open(fx.save(data, tmp_path / "r.zarr"))
    for part in (stored, stored.isel(model=0), stored.sel(cell_type="T4c"), stored.response):
        assert "<img" in overview_html(part)
    np.testing.assert_array_equal(pixels_of(overview_html(stored)), pixels_of(overview_html(data)))
    assert "<img" not in overview_html(stored.assign(response=stored.response * 2))
    assert "complete" not in overview(stored)  # a saved store is there completely or not at all
    monkeypatch.setattr(module, "MAX_CHUNK_BYTES", 1000)
    assert "<img" not in overview_html(stored)
    assert counting_scheduler.calls == 0


# -- sweeps -----------------------------------------------------------------------------------------------------------


def sweep(path: Path, n_models: int) -> xr.Dataset:
    connectome = testing.tiny_connectome()
    rendering = testing.noise_rendering(n_samples=2, extent=1)
    ensemble = fx.sample_ensemble(n_models=n_models, seed=0, connectome=connectome)
    swept = fx.sweep(rendering, ensemble, path, connectome=connectome, progress=False)
    assert isinstance(swept, xr.Dataset)
    return swept


def test_overview__says_whether_a_sweep_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "r.zarr"
    swept = sweep(path, 3)
    assert overview(swept).endswith("R, L and T in all 7 columns, complete")
    assert overview(fx.open(path).isel(model=0)).endswith(", complete")
    assert overview(swept.compute()).endswith("columns")  # no longer read from the store

    shard = next(file for file in sorted((path / "response" / "c").rglob("*")) if file.is_file())
    content = shard.read_bytes()
    shard.unlink()
    with pytest.warns(UserWarning, match="missing"):
        damaged = fx.open(path)
    assert overview(damaged).endswith("incomplete: 4 of 6 responses of a model to a sample are written")
    assert "flyxr-overview" in overview_html(damaged)  # its picture would be of the missing file
    shard.write_bytes(content)

    ledger = path / LEDGER_FILE
    lines = ledger.read_text().splitlines(keepends=True)
    blocks = [line for line in lines if '"block"' in line]
    ledger.write_text("".join(line for line in lines if line != blocks[-1] and '"made"' not in line))
    with pytest.warns(UserWarning, match="unfinished"):
        unfinished = fx.open(path)
    assert "incomplete: 4 of 6" in overview(unfinished)


def test_overview__of_a_store_that_is_gone(tmp_path: Path) -> None:
    swept = sweep(tmp_path / "r.zarr", 1)
    (tmp_path / "r.zarr").rename(tmp_path / "elsewhere.zarr")
    assert overview(swept).endswith("columns")
    assert "flyxr-overview" in overview_html(swept)
    sweep(tmp_path / "r.zarr", 2)
    assert overview(swept).endswith("columns")


# -- notebooks --------------------------------------------------------------------------------------------------------


class Formatter(dict):  # type: ignore[type-arg]
    """As much of IPython's formatter of HTML as an extension needs."""

    __hash__ = object.__hash__  # type: ignore[assignment]

    def for_type(self, kind: type, function: Any = None) -> Any:
        earlier = self.get(kind)
        if function is not None:
            self[kind] = function
        return earlier


class Bundles(dict):  # type: ignore[type-arg]
    """As much of IPython's formatter of several types as an extension needs."""

    lookup_by_type = dict.__getitem__

    def for_type_by_name(self, module: str, name: str, function: Any) -> None:
        self[f"{module}.{name}"] = function


class Shell:
    """As much of IPython's shell as an extension needs."""

    def __init__(self) -> None:
        self.display_formatter = self
        self.formatters = {"text/html": Formatter()}
        self.mimebundle_formatter = Bundles()


@pytest.mark.parametrize("earlier", [None, repr], ids=["nothing before", "another extension before"])
def test_extension__loads_and_unloads(earlier: Any) -> None:
    shell = Shell()
    formatter = shell.formatters["text/html"]
    if earlier is not None:
        formatter[xr.Dataset] = earlier
    fx.load_ipython_extension(shell)
    fx.load_ipython_extension(shell)
    assert overview(MOVIE) in formatter[xr.Dataset](MOVIE)
    fx.unload_ipython_extension(shell)
    assert formatter.get(xr.Dataset) is earlier
    fx.unload_ipython_extension(shell)
    assert formatter.get(xr.Dataset) is earlier


def test_extension__leaves_what_was_set_later() -> None:
    shell = Shell()
    notebook.show_overviews(shell)
    shell.formatters["text/html"][xr.Dataset] = repr
    notebook.restore(shell)
    assert shell.formatters["text/html"][xr.Dataset] is repr


def test_extension__in_ipython() -> None:
    shells = pytest.importorskip("IPython.core.interactiveshell", reason="IPython is not installed")
    shell = shells.InteractiveShell()
    own = MOVIE._repr_html_
    shell.run_line_magic("load_ext", "flyxr")
    shown, _ = shell.display_formatter.format(MOVIE)
    assert "<b>movie of 2 samples" in shown["text/html"]
    other, _ = shell.display_formatter.format(xr.Dataset())
    assert "flyxr-overview" not in other["text/html"]
    shell.run_line_magic("unload_ext", "flyxr")
    shown, _ = shell.display_formatter.format(MOVIE)
    assert "flyxr-overview" not in shown["text/html"]
    shown, _ = shell.display_formatter.format(MOVIE.fly)
    assert "<b>movie of 2 samples" in shown["text/html"]
    assert MOVIE._repr_html_ == own


LIGHT = """
import sys, numpy as np, xarray as xr, flyxr
own = xr.Dataset._repr_html_
data = xr.Dataset({"luminance": (("time", "y", "x"), np.zeros((2, 4, 4)))}, {"time": [0.0, 0.1]})
assert "<img" in data.fly._repr_html_(), repr(data.fly)
assert xr.Dataset._repr_html_ is own
loaded = {"holoviews", "bokeh", "PIL", "matplotlib", "torch", "IPython"} & sys.modules.keys()
assert not loaded, loaded
"""


def test_overview__loads_no_library_of_pictures() -> None:
    subprocess.run([sys.executable, "-c", LIGHT], check=True)
