"""What the commands read: movies in files and stores, records, paths, and results of flyvis."""

from __future__ import annotations

import re
import shlex
import shutil
import warnings
from typing import TYPE_CHECKING

import numpy as np
import pytest
import xarray as xr

import flyxr as fx
from flyxr import cli
from flyxr.cli.responses import parse_record
from flyxr.errors import InputError
from flyxr.testing import random_rendering, write_video

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a movie as a video, an array and a store, a rendering, an ensemble, and other files."""
    folder = tmp_path_factory.mktemp("inputs")
    write_video(folder / "m.mp4", np.arange(0, 180, 30))
    rng = np.random.default_rng(0)
    np.save(folder / "m.npy", rng.random((2, 4, 16, 16)))
    np.save(folder / "wide.npy", 7 * rng.random((2, 4, 16, 16)))
    movie = fx.stimuli.from_array(np.load(folder / "m.npy"), frame_rate=25)
    fx.save(movie, folder / "m.zarr")
    fx.save(fx.BoxEye(extent=2).render(movie), folder / "r.zarr")
    fx.save(fx.sample_ensemble(2, seed=0, connectome=fx.open_connectome(extent=2)), folder / "e.zarr")
    (folder / "notes.txt").write_text("notes")
    (folder / "page.html").write_text("<p>")
    (folder / "empty").mkdir()
    (folder / "old.zarr").mkdir()
    (folder / "old.zarr" / ".zgroup").write_text('{"zarr_format": 2}')
    return folder


def run(command: str, inputs: Path, out: Path) -> int:
    return cli.main(shlex.split(command.format(i=inputs, o=out)))


EYE = "--extent 2 --kernel-size 5 --filter median"
MOVIES = {
    "video": ("m.mp4", "", lambda path: fx.stimuli.from_video(path)),
    "video rate": ("m.mp4", "--frame-rate 50", lambda path: fx.stimuli.from_video(path, frame_rate=50)),
    "array": ("m.npy", "--frame-rate 25", lambda path: fx.stimuli.from_array(np.load(path), 25)),
    "rescaled": (
        "wide.npy",
        "--frame-rate 25 --rescale",
        lambda path: fx.stimuli.from_array(np.load(path), 25, rescale=True),
    ),
    "store": ("m.zarr", "", fx.open),
}


@pytest.mark.parametrize(("name", "options", "read"), MOVIES.values(), ids=MOVIES)
def test_render_simulate__take_the_same_movies(name: str, options: str, read, inputs: Path, tmp_path: Path) -> None:
    command = f"{options} {EYE} --dt 10ms"
    assert run(f"render {{i}}/{name} {{o}}/r.zarr {command}", inputs, tmp_path) == 0
    rendering = fx.resample(fx.BoxEye(2, 5).render(read(inputs / name), filter="median"), dt=1 / 100)
    np.testing.assert_array_equal(fx.open(tmp_path / "r.zarr").luminance, rendering.luminance)

    assert run(f"simulate {{i}}/{name} {{i}}/e.zarr {{o}}/a.zarr {command} --record L1", inputs, tmp_path) == 0
    assert run("simulate {o}/r.zarr {i}/e.zarr {o}/b.zarr --record L1", inputs, tmp_path) == 0
    xr.testing.assert_equal(fx.open(tmp_path / "a.zarr"), fx.open(tmp_path / "b.zarr"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "{i}/r.zarr {i}/e.zarr {o}/x.zarr --extent 2",
            "no --extent, since .*r.zarr is rendered already: leave it out",
        ),
        ("{i}/r.zarr {i}/e.zarr {o}/x.zarr --filter sum --kernel-size 5", "no --kernel-size or --filter, since"),
        ("{i}/m.zarr {i}/e.zarr {o}/x.zarr --frame-rate 5", "no --frame-rate, since .*m.zarr is a store"),
        ("{i}/m.mp4 {i}/e.zarr {o}/x.zarr --rescale", "no --rescale, since .*m.mp4 is a video"),
        ("{i}/m.npy {i}/e.zarr {o}/x.zarr", "frames per second of .*m.npy, got none: add --frame-rate 30"),
        ("{i}/wide.npy {i}/e.zarr {o}/x.zarr --frame-rate 25 --extent 2", "with --rescale"),
        ("{i}/none.mp4 {i}/e.zarr {o}/x.zarr", "expected a video .*none.mp4, found no file or folder"),
        ("{i}/e.zarr {i}/r.zarr {o}/x.zarr", "the stimulus is the first argument, and the ensemble the second"),
        ("{i}/empty {i}/e.zarr {o}/x.zarr", "got a folder that holds nothing"),
        ("{i} {i}/e.zarr {o}/x.zarr", "got a folder with 3 stores at .*choose one, see flyxr info .*e.zarr"),
        (
            "{i}/m.zarr/luminance {i}/e.zarr {o}/x.zarr",
            "got an array in a store at .*give the path of the store, .*m.zarr",
        ),
        ("{i}/r.zarr {i}/none {o}/x.zarr", r"none: no such file.*an ensemble is a zarr store, .* a zip of one$"),
        ("{i}/r.zarr {i}/m.zarr {o}/x.zarr", "expected a store of an ensemble, got movie: see `flyxr info`"),
    ],
)
def test_simulate__names_the_way_out(
    arguments: str, message: str, inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert run(f"simulate {arguments}", inputs, tmp_path) == 2
    assert re.search(message, capsys.readouterr().err.strip(), re.S)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "record"),
    [
        ("--record T4* L1 --columns central", {"cell_type": ["T4*", "L1"], "column": "central"}),
        ("--record T4c --columns 18 0", {"cell_type": ["T4c"], "column": [18, 0]}),
        ("--columns 3", {"column": [3]}),
        ("--record all --columns central", {"column": "central"}),
        ("--record central", "central"),
        ("--record central --columns central", "central"),
    ],
)
def test_simulate__records_types_and_columns(options: str, record, inputs: Path, tmp_path: Path) -> None:
    assert run(f"simulate {{i}}/r.zarr {{i}}/e.zarr {{o}}/x.zarr --dt 0.01 {options}", inputs, tmp_path) == 0
    rendering = fx.resample(fx.open(inputs / "r.zarr"), dt=0.01)
    expected = fx.simulate(rendering, fx.open(inputs / "e.zarr"), record=record)
    xr.testing.assert_equal(fx.open(tmp_path / "x.zarr"), expected.compute())


@pytest.mark.parametrize(
    ("types", "columns", "message"),
    [
        (["central", "T4c"], None, "expected --record central alone.* add --columns central"),
        (["all", "T4c"], None, "expected --record all alone.* name cell types alone"),
        (["central"], ["3"], "without other columns, got --columns 3: .* use --record all"),
        (["T4c"], ["19"], "expected --columns as central, or labels from 0 to 18, got 19: labels count from 0"),
        (["T4c"], ["middle"], "got middle"),
        (["T4c"], ["central", "3"], "got central: `central` stands alone"),
    ],
)
def test_parse_record__names_contradictions(types: list[str], columns: list[str] | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_record(types, columns, random_rendering())


def test_parse_record__finds_labels_of_any_kind() -> None:
    rendering = random_rendering(extent=1).assign_coords(column=[f"c{i}" for i in range(7)])
    assert parse_record(["T4c"], ["c3"], rendering) == {"cell_type": ["T4c"], "column": ["c3"]}


URL_COMMANDS = [
    "demo --ensemble {p}",
    "demo --out {p}",
    "fetch-pretrained --from {p}",
    "import-flyvis {p} {o}/x.zarr",
    "import-flyvis {i} {p}",
    "import-flyvis {i} {o}/x.zarr --connectome {p}",
    "stimulus flashes {p}",
    "render {p} {o}/x.zarr",
    "render {i}/m.mp4 {p}",
    "simulate {p} {i}/e.zarr {o}/x.zarr",
    "simulate {i}/r.zarr {p} {o}/x.zarr",
    "simulate {i}/r.zarr {i}/e.zarr {p}",
    "tuning {p} {o}/x.zarr",
    "tuning {i}/r.zarr {p}",
    "cluster {p} {o}/x.zarr",
    "cluster {i}/r.zarr {p}",
    "train {p} {o}/x.zarr",
    "train {i}/r.zarr {p}",
    "train {i}/r.zarr {o}/x.zarr --checkpoints {p}",
    "bench --quick --out {p}",
    "bench --quick --page {p}",
    "bench --quick --ensemble {p}",
    "bench --quick --peer {p}",
]


@pytest.mark.parametrize("url", ["s3://bucket/a.zarr", "https://host/a.mp4"])
@pytest.mark.parametrize("command", URL_COMMANDS)
def test_commands__refuse_urls(
    command: str,
    url: str,
    inputs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(shlex.split(command.format(i=inputs, o=tmp_path, p=url))) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"expected a path on this machine, got the URL {url}: " in line
    assert not list(tmp_path.iterdir())


def test_commands__expand_the_home_folder(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(inputs)
    shutil.copytree(inputs / "e.zarr", tmp_path / "e.zarr")
    shutil.copy(inputs / "m.npy", tmp_path / "m.npy")
    for command in (
        "stimulus flashes '~/f.zarr' --radius -1 --dt 0.02 --t-pre 0.1 --t-stim 0.1 --extent 2",
        "render '~/m.npy' '~/r.zarr' --frame-rate 25 --extent 2",
        "simulate '~/f.zarr' '~/e.zarr' '~/o.zarr' --record central",
        "tuning '~/o.zarr' '~/t.zarr'",
        "info '~/t.zarr' '~/e.zarr'",
    ):
        assert cli.main(shlex.split(command)) == 0
    assert {path.name for path in tmp_path.iterdir()} >= {"f.zarr", "r.zarr", "o.zarr", "t.zarr"}
    assert not (inputs / "~").exists()
    assert cli.main(["info", "~/none.zarr"]) == 2
    assert f"no store at {tmp_path}/none.zarr" in capsys.readouterr().err


INFO = {
    "video": ("m.mp4", "got a video at .*m.mp4: render it with `flyxr render`"),
    "array": ("m.npy", "got an array of NumPy at .*m.npy: if it is a movie"),
    "text": ("notes.txt", "got another file at .*notes.txt: `flyxr --help` lists"),
    "page": ("page.html", "got a web page at .*: open it in a browser"),
    "folder": (".", "got a folder with 3 stores at .*: choose one, see flyxr info .*e.zarr .*m.zarr .*r.zarr"),
    "empty": ("empty", "got a folder that holds nothing at .*000, 001, … with best_chkpt|best_chkpt"),
    "old store": ("old.zarr", "got a store of zarr version 2 at .*open it in Python with xarray.open_zarr"),
    "variable": ("m.zarr/luminance", "got an array in a store at .*give the path of the store, .*m.zarr"),
    "nothing": ("none", "no store at .*none"),
    "inside a file": ("notes.txt/a", "whole zip of flyvis results|no such|expected"),
}


@pytest.mark.parametrize(("name", "message"), INFO.values(), ids=INFO)
def test_info__says_what_a_path_is(name: str, message: str, inputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info", str(inputs / name)]) == 2
    assert re.search(message, capsys.readouterr().err)


def test_info__reads_results_of_flyvis(pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = tmp_path / "results" / "flow" / "0000"
    for model in ("000", "001", "002"):
        shutil.copytree(pretrained / model, few / model)
    zipped = shutil.make_archive(str(tmp_path / "results"), "zip", tmp_path, "results")
    errors = fx.open_ensemble(few).task_error.values
    for path in (few, tmp_path / "results", zipped, f"{zipped}/results/flow/0000"):
        assert cli.main(["info", str(path)]) == 0
        printed = capsys.readouterr().out
        assert f"{path}: ensemble in the files of flyvis, 3 model x 65 cell_type x 604 pair" in printed
        assert f"  task error {errors.min():.4g} (best, flow/0000/00" in printed
        assert f" to {errors.max():.4g}\n    lowest validation/loss.h5 over checkpoints" in printed
        assert "  connectome 0d04c694ed377ca0, extent 15" in printed
        assert "  models are trained" in printed
    (few / "001" / "best_chkpt").write_bytes(b"cut")
    assert cli.main(["info", str(few)]) == 2
    assert "001/best_chkpt" in capsys.readouterr().err


def test_main__prints_help_without_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    printed = capsys.readouterr().out
    commands = re.findall(r"^    (\w+) {2,}", printed, re.M)
    expected = "demo doctor train stimulus render simulate tuning cluster browse info publish catalog bench completion"
    assert commands == expected.split()
    assert cli.main(["stimulus"]) == 0
    printed = capsys.readouterr().out
    assert re.findall(r"^    (\w+) {2,}write", printed, re.M) == [
        "flashes",
        "edges",
        "bars",
        "gratings",
        "impulses",
        "natural",
        "digits",
    ]
    assert "Example: flyxr stimulus flashes" in printed
