"""Commands as a user runs them."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import flyxr as fx
from flyxr import cli, provenance
from flyxr.errors import FlyxrWarning, InputError, Problem
from flyxr.sweeping import Plan
from flyxr.testing import failing_engine

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Folder that the demo wrote, and what it printed."""
    folder = tmp_path_factory.mktemp("demo")
    out = folder / "out"
    run = subprocess.run(
        [sys.executable, "-m", "flyxr.cli", "demo", "--out", str(out)],
        env={**os.environ, "XDG_CACHE_HOME": str(folder / "cache")},  # without the published ensemble
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stderr == ""  # bars are drawn on terminals only
    return out, run.stdout


def test_demo__leaves_stores_and_a_page(demo: tuple[Path, str]) -> None:
    out, printed = demo
    stores = {"stimulus.zarr", "rendering.zarr", "responses.zarr", "central.zarr"}
    assert {path.name for path in out.iterdir()} == {*stores, "report.html"}
    responses = fx.open(out / "responses.zarr")
    assert dict(responses.response.sizes) == {"model": 4, "sample": 4, "time": 67, "cell_type": 65, "column": 721}
    assert [step["operation"] for step in provenance.steps(responses)] == [
        "moving_digits",
        "render",
        "resample",
        "simulate",
    ]
    t4c = responses.response.fly.central("T4c").load()
    assert np.isfinite(t4c).all()
    assert t4c.std("time").min() > 0
    assert "models      flyxr, 18 models" in printed
    assert f"flyxr browse {out}/responses.zarr --movie {out}/stimulus.zarr" in printed
    central = fx.open(out / "central.zarr").response
    assert central.sizes["model"] == 18
    np.testing.assert_allclose(central.fly.central("T4c").isel(model=slice(4)), t4c, atol=1e-6)
    assert "they are not the published models" in printed
    assert responses.attrs["trained"]
    page = (out / "report.html").read_text()
    assert "untrained" not in page.lower()
    assert "Time courses by task error" in page
    assert "18 models to sample 0" in page
    for store in stores:
        assert f"<dt>{out / store}</dt>" in page
    assert "<section hidden><h2>Models that respond alike" in page


def test_demo__prints_three_lines_that_run(demo: tuple[Path, str]) -> None:
    _, printed = demo
    lines = printed.split("Continue in Python:\n")[1].splitlines()
    assert len(lines) == 3
    run = [sys.executable, "-c", "\n".join(line.strip() for line in lines)]
    subprocess.run(run, check=True)


def test_demo__code_of_the_page_runs(demo: tuple[Path, str]) -> None:
    import html

    out, _ = demo
    code = re.findall(r"<dd><pre>(.*?)</pre></dd>", (out / "report.html").read_text(), re.S)
    assert len(code) == 4
    for block in code:
        exec(html.unescape(block), {"fx": fx})


@pytest.mark.slow
def test_demo__clusters_many_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("flyxr.cli.demo.FEWEST_CLUSTERED", 6)
    monkeypatch.setattr("flyxr.cli.demo.MODELS", 1)
    models = fx.open_ensemble("flyxr").isel(model=slice(6))
    fx.save(models, tmp_path / "models.zarr")
    out = tmp_path / "out"
    assert cli.main(["demo", "--ensemble", str(tmp_path / "models.zarr"), "--out", str(out)]) == 0
    clusters = fx.open(out / "clusters.zarr")
    assert sum(map(len, clusters.fly.members("T4c").values())) == 6
    assert "<section ><h2>Models that respond alike" in (out / "report.html").read_text()
    assert f"--clusters {out}/clusters.zarr" in capsys.readouterr().out


def test_demo__overwrites_only_on_request(demo: tuple[Path, str], capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = demo
    assert cli.main(["demo", "--out", str(out)]) == 2
    assert "stimulus.zarr exists: add --overwrite" in capsys.readouterr().err


def test_demo__writes_nothing_for_a_bad_ensemble(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["demo", "--ensemble", str(tmp_path / "none"), "--out", str(tmp_path / "out")]) == 2
    assert "none" in capsys.readouterr().err
    assert not list(tmp_path.glob("out/*"))


def test_demo__replaces_a_page_only_on_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "report.html").write_text("mine")
    assert cli.main(["demo", "--out", str(tmp_path)]) == 2
    assert "report.html exists: add --overwrite" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_render_simulate_info__from_an_array_to_responses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "movie.npy", np.random.default_rng(0).random((2, 3, 32, 32), dtype=np.float32))
    movie, rendering, ensemble, responses = (
        str(tmp_path / name) for name in ("movie.npy", "r.zarr", "e.zarr", "o.zarr")
    )
    fx.save(fx.sample_ensemble(2, seed=0), ensemble)
    assert cli.main(["render", movie, rendering, "--frame-rate", "50", "--dt", "0.01"]) == 0
    assert (
        cli.main(["simulate", rendering, ensemble, responses, "--record", "T4*", "L1", "--initial-state", "rest"]) == 0
    )
    capsys.readouterr()
    assert cli.main(["info", rendering, responses]) == 0
    printed = capsys.readouterr().out
    assert "r.zarr: rendering, 2 sample x 6 time x 721 column" in printed
    assert "models are not trained" in printed
    assert "made by sweep(dt=0.01, initial_state=rest" in printed
    got = fx.open(responses)
    expected = fx.simulate(fx.open(rendering), fx.open_ensemble(ensemble), record=["T4*", "L1"], initial_state="rest")
    np.testing.assert_array_equal(got.response, expected.response)


def test_simulate__plans_stops_and_resumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    movie, ensemble, out = (str(tmp_path / name) for name in ("m.zarr", "e.zarr", "o.zarr"))
    fx.save(fx.stimuli.moving_digits(n_samples=2, n_frames=3), movie)
    fx.save(fx.sample_ensemble(3, seed=0), ensemble)
    command = ["simulate", movie, ensemble, out, "--dt", "0.01", "--record", "central", "--precision", "10"]
    assert cli.main([*command, "--plan"]) == 0
    assert "3 of 1 model x 2 samples" in capsys.readouterr().out
    assert not Path(out).exists()

    with failing_engine(1, OSError(28, "No space left on device")):
        assert cli.main([*command, "--device", "cpu"]) == 2
    assert re.search(r"of 6 responses .*repeat the command to resume", capsys.readouterr().err)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert cli.main(["info", out]) == 0
    printed = capsys.readouterr()
    assert re.search(r"[02] of 6 responses of a model to a sample are done", printed.out)
    assert re.search(r"missing in [23] of 3 models: .*\n.*missing in 2 of 2 samples: 0, 1", printed.out)
    assert "unfinished sweep" in printed.err
    assert "run the same `flyxr simulate` again to finish it, and see `flyxr info`" in printed.err

    assert cli.main(command) == 0
    assert cli.main(["info", out]) == 0
    assert "6 of 6 responses" in capsys.readouterr().out
    rendering = fx.resample(fx.BoxEye().render(fx.open(movie)), dt=0.01)
    expected = fx.simulate(rendering, fx.open_ensemble(ensemble), record="central").response.load()
    np.testing.assert_allclose(fx.open(out).response, expected, rtol=2**-11)

    assert cli.main([*command, "--initial-state", "rest"]) == 2
    assert re.search(
        r"(?s)initial_state: the store has .*or replace the store with --overwrite", capsys.readouterr().err
    )


def test_tuning_cluster__from_responses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flashes, digits, tuning, clusters = (str(tmp_path / f"{name}.zarr") for name in ("f", "d", "t", "c"))
    models = fx.sample_ensemble(8, seed=0)
    models["bias"] = models.bias + 0.3 * (models.model % 2)
    options: dict[str, Any] = {
        "initial_state": "rest",
        "record": {"cell_type": ["Mi1", "Tm1", "Mi4"], "column": "central"},
    }
    flash = fx.stimuli.flashes(t_pre=0.04, t_stim=0.04, dt=1 / 50)
    fx.save(fx.simulate(flash, models, **options), flashes)
    movie = fx.resample(fx.BoxEye().render(fx.stimuli.moving_digits(n_samples=1)), dt=1 / 50)
    fx.save(fx.simulate(movie, models, **options), digits)

    assert cli.main(["tuning", flashes, tuning]) == 0
    expected = fx.tuning.flash_response_index(fx.open(flashes))
    np.testing.assert_array_equal(fx.open(tuning).flash_response_index, expected.flash_response_index)
    correlation = fx.tuning.agreement(expected).correlation.compute()
    printed = capsys.readouterr().out
    assert f"flash_response_index         {float(correlation.median()):.2f} (median)" in printed

    assert cli.main(["cluster", digits, clusters, "--cell-types", "Mi1"]) == 0
    printed = capsys.readouterr().out
    for label, members in fx.open(clusters).fly.members("Mi1").items():
        assert f"cluster {label}: {len(members)} models, mean task error nan" in printed
    assert cli.main(["tuning", digits, tuning, "--overwrite"]) == 2
    assert "expected responses to flashes, moving stimuli or impulses" in capsys.readouterr().err
    assert cli.main(["info", tuning]) == 0  # the old store is kept


def test_render__a_store_of_a_movie(tmp_path: Path) -> None:
    fx.save(fx.stimuli.moving_digits(n_samples=1, n_frames=2), tmp_path / "m.zarr")
    assert (
        cli.main(["render", str(tmp_path / "m.zarr"), str(tmp_path / "r.zarr"), "--extent", "3", "--filter", "median"])
        == 0
    )
    assert fx.open(tmp_path / "r.zarr").sizes["column"] == 37


BAD: dict[str, tuple[list[str], str]] = {
    "array without a rate": (["render", "{a}.npy", "{a}.out"], "--frame-rate"),
    "array out of range": (
        ["render", "{a}.npy", "{a}.out", "--frame-rate", "30"],
        "values from 0 to 7.*with --rescale",
    ),
    "array of integers": (
        ["render", "{a}.int.npy", "{a}.out", "--frame-rate", "30"],
        "got int64: map the smallest value to 0 and the largest to 1 with --rescale, or",
    ),
    "no positive rate": (["render", "{a}.npy", "{a}.out", "--frame-rate", "0"], "got 0.0: e.g. --frame-rate 30"),
    "no whole array": (["render", "{a}.cut.npy", "{a}.out", "--frame-rate", "30"], "file of numbers at .*cut.npy, got"),
    "no video": (["render", "{a}.txt", "{a}.out"], "a.txt .*check the file, or save its frames as a .npy array"),
    "no such file": (["render", "{a}.mp4", "{a}.out"], "found no file|no file"),
    "a movie for an ensemble": (
        ["simulate", "{a}.zarr", "{a}.zarr", "{a}.out"],
        "expected a store of an ensemble, got movie",
    ),
    "an ensemble for a stimulus": (
        ["simulate", "{a}.ensemble", "{a}.ensemble", "{a}.out"],
        "expected a store of a rendering or a movie.*got one of an ensemble",
    ),
    "a limit that is too small": (
        ["simulate", "{a}.zarr", "{a}.ensemble", "{a}.out", "--dt", "0.01", "--memory-limit", "1 MB"],
        "memory limit of at least .*raise --memory-limit",
    ),
    "no scheduler's address": (
        ["simulate", "{a}.zarr", "{a}.ensemble", "{a}.out", "--scheduler", "localhost"],
        "address of a dask.distributed scheduler, got localhost .*e.g. --scheduler tcp://",
    ),
    "no such cell type": (
        ["simulate", "{a}.zarr", "{a}.ensemble", "{a}.out", "--dt", "0.01", "--record", "T9"],
        r"got 'T9' \(nearest: T.*\): patterns such as 'T4\*' are allowed",
    ),
    "no folder to write to": (
        ["bench", "--quick", "--out", "{a}/nowhere/bench.json"],
        "expected a folder at .*: create it first",
    ),
    "no flyvis": (
        ["bench", "--quick", "--peer", "{a}.python"],
        "got no program: .*without --peer flyxr is timed alone",
    ),
    "no such precision": (
        ["simulate", "{a}.zarr", "{a}.ensemble", "{a}.out", "--dt", "0.01", "--precision", "double"],
        "'float32', 'float16' or a number of bits",
    ),
    "no such store": (["info", "{a}.nothing"], "no store at"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD)
def test_main__prints_errors_in_a_sentence(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stem = str(tmp_path / "a")
    np.save(stem + ".npy", np.full((1, 1, 8, 8), 7.0) * np.arange(8) / 7)
    np.save(stem + ".int.npy", np.ones((1, 1, 8, 8), np.int64))
    Path(stem + ".cut.npy").write_bytes(Path(stem + ".npy").read_bytes()[:200])
    Path(stem + ".txt").write_text("no video")
    fx.save(fx.stimuli.moving_digits(n_samples=1, n_frames=1), stem + ".zarr")
    fx.save(fx.sample_ensemble(1, seed=0), stem + ".ensemble")
    assert cli.main([argument.replace("{a}", stem) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error, re.S)
    assert "Traceback" not in error
    assert not Path(stem + ".out").exists()


def test_main__shows_a_traceback_on_request(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        cli.main(["--traceback", "info", str(tmp_path / "none")])


INFO = argparse.Namespace(command="info", traceback=False)


@pytest.mark.parametrize("kind", [TypeError, ValueError, KeyError, RuntimeError])
def test_run_command__raises_bugs(kind: type[Exception], capsys: pytest.CaptureFixture[str]) -> None:
    def fail(options: argparse.Namespace) -> None:
        raise kind("internal")

    with pytest.raises(kind, match="internal"):
        cli.run_command(fail, INFO)
    assert capsys.readouterr().err == "flyxr info: this is a bug in flyxr, please report it with the following lines\n"


def test_run_command__prints_errors_of_the_system(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(options: argparse.Namespace) -> None:
        raise OSError(28, "No space left on device")

    assert cli.run_command(fail, INFO) == 2
    assert capsys.readouterr().err == "flyxr info: [Errno 28] No space left on device\n"


def test_run_command__prints_hints_for_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    problem = Problem("r.zarr exists", "pass overwrite=True", "add --overwrite")

    def warn_and_raise(options: argparse.Namespace) -> None:
        warnings.warn(FlyxrWarning(problem), stacklevel=1)
        raise InputError(problem, "and more", heading="no")

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert cli.run_command(warn_and_raise, INFO) == 2
    warning, *error = capsys.readouterr().err.splitlines()
    assert warning == "flyxr info: r.zarr exists: add --overwrite"
    assert error == ["flyxr info: no:", "- r.zarr exists: add --overwrite", "- and more"]


def test_plan__small_disk_on_the_command_line() -> None:
    small = Plan(1, 0, 1, 1, 10, 10, 1.0, 1e12, 1000)
    assert str(small).endswith("too small: record less, or reduce the precision with precision=10 or 'float16'")
    assert small.text(command_line=True).endswith("record less, or reduce the precision with --precision 10 or float16")


@pytest.mark.parametrize(
    ("units", "shown"), [("1", ""), ("1/s", "  1/s"), ("10 mV", "  10 mV"), ("", "")], ids=["none", "rate", "ten", "no"]
)
def test_info__units(tmp_path: Path, capsys: pytest.CaptureFixture[str], units: str, shown: str) -> None:
    movie = fx.stimuli.moving_digits(n_samples=1, n_frames=2)
    movie["luminance"].attrs["units"] = units
    fx.save(movie, tmp_path / "m.zarr")
    capsys.readouterr()
    assert cli.main(["info", str(tmp_path / "m.zarr")]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("  luminance"))
    assert line == f"  luminance  1 sample x 2 time x 64 y x 64 x  float32{shown}"


def test_simulate__warns_of_a_long_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    movie, ensemble = str(tmp_path / "m.zarr"), str(tmp_path / "e.zarr")
    fx.save(fx.stimuli.moving_digits(n_samples=1, n_frames=2), movie)
    fx.save(fx.sample_ensemble(1, seed=0), ensemble)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert cli.main(["simulate", movie, ensemble, str(tmp_path / "o.zarr"), "--record", "central", "--plan"]) == 0
    assert re.search(r"integration step of .*add --dt 0\.01", capsys.readouterr().err)


@pytest.mark.parametrize(
    "command",
    [
        "demo",
        "doctor",
        "fetch-pretrained",
        "import-flyvis",
        "stimulus",
        "render",
        "simulate",
        "tuning",
        "cluster",
        "train",
        "browse",
        "info",
        "publish",
        "catalog",
        "bench",
        "completion",
    ],
)
def test_help__has_an_example_that_parses(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main([command, "--help"])
    example = " ".join(capsys.readouterr().out.split("Example: ")[1].split())
    arguments = shlex.split(example)
    assert arguments[:2] == ["flyxr", command]
    if ">" in arguments:
        arguments = arguments[: arguments.index(">")]
    cli.build_parser().parse_args(arguments[1:])


def test_help__lists_every_command_by_purpose_and_first_steps_that_parse() -> None:
    parser = cli.build_parser()
    text = parser.format_help()
    (commands,) = (action.choices for action in parser._actions if isinstance(action.choices, dict))
    groups = re.findall(r"^  ([a-z ]+):$", text, re.M)
    assert groups[0] == "start"
    assert "share" in groups
    listed = re.findall(r"^    ([a-z-]+)(?: {2}|$)", text, re.M)
    assert listed == list(commands)
    steps = re.findall(r"^  (flyxr .*)$", text.split("first steps:\n")[1], re.M)
    assert len(steps) == 6
    for step in steps:
        parser.parse_args(shlex.split(step, comments=True)[1:])


def readme_block(heading: str) -> str:
    section = re.split(rf"^## {heading}$", (ROOT / "README.md").read_text(), maxsplit=1, flags=re.M)[1]
    return re.search(r"^```\w*\n(.*?)\n```", section, re.M | re.S)[1]  # type: ignore[index]


@pytest.mark.parametrize("heading", ["Run it", "Test it"])
def test_readme__commands_are_single_lines_with_constraints(heading: str) -> None:
    (line,) = readme_block(heading).splitlines()
    assert "-c .ci/constraints.txt" in line


@pytest.mark.filterwarnings("default")
def test_info__lists_runs_and_missing_files_of_a_sweep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    connectome = fx.open_connectome(extent=1)
    movie = fx.stimuli.moving_digits(n_samples=2, n_frames=3, frame_rate=50, seed=0)
    rendering = fx.save(fx.BoxEye(extent=1).render(movie), tmp_path / "rendering.zarr")
    ensemble = fx.save(fx.sample_ensemble(2, seed=0, connectome=connectome), tmp_path / "ensemble.zarr")
    command = ["simulate", str(rendering), str(ensemble), str(tmp_path / "r.zarr"), "--engine", "reference"]
    assert cli.main(command) == 0
    capsys.readouterr()
    assert cli.main(["info", str(tmp_path / "r.zarr")]) == 0
    out = capsys.readouterr().out
    assert "4 of 4 responses of a model to a sample are done" in out
    assert f"reference on cpu, flyxr {fx.__version__}" in out
    (tmp_path / "r.zarr/response/c/1/0/0/0/0").unlink()
    assert cli.main(["info", str(tmp_path / "r.zarr")]) == 0
    printed = capsys.readouterr()
    assert "2 of 4 responses of a model to a sample are done" in printed.out
    assert "1 files that were written are missing or have another size" in printed.out
    assert "run the same `flyxr simulate` again to recompute them" in printed.err


def test_simulate__rejects_other_labels_and_writes_them_on_request(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    connectome = fx.open_connectome(extent=1)
    movie = fx.stimuli.moving_digits(n_samples=2, n_frames=3, frame_rate=50, seed=0)
    rendering = fx.BoxEye(extent=1).render(movie)
    ensemble = fx.save(fx.sample_ensemble(1, seed=0, connectome=connectome), tmp_path / "ensemble.zarr")
    for name, data in (("a", rendering), ("b", rendering.assign_coords(angle=("sample", [0.0, 90.0])))):
        fx.save(data, tmp_path / f"{name}.zarr")
    commands = {
        name: ["simulate", str(tmp_path / f"{name}.zarr"), str(ensemble), str(tmp_path / "r.zarr")] for name in "ab"
    }
    assert cli.main(commands["a"]) == 0
    assert cli.main(commands["b"]) == 2
    assert re.search(r"(?s)has other labels:\n- angle: .*with --relabel; .*--overwrite", capsys.readouterr().err)
    assert cli.main([*commands["b"], "--relabel"]) == 0
    assert fx.open(tmp_path / "r.zarr").angle.values.tolist() == [0.0, 90.0]


def test_train__writes_an_ensemble_and_continues(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scenes = fx.save(fx.stimuli.moving_layers(4, seed=0, extent=4), tmp_path / "scenes.zarr")
    command = ["train", str(scenes), str(tmp_path / "out.zarr"), "--iterations", "2", "--batch-size", "4"]
    command += ["--checkpoints", str(tmp_path / "run"), "--fixed", "time_constant", "--validation", str(scenes)]
    assert cli.main(command) == 0
    assert re.search(r"calibrated-0/000 +loss \d.* to \d.*, task error \d", capsys.readouterr().out)
    assert fx.open_ensemble(tmp_path / "out.zarr").attrs["trained"] == 1
    assert cli.main(command) == 2
    assert "out.zarr" in capsys.readouterr().err
    assert cli.main([*command, "--overwrite", "--seed", "1"]) == 2
    assert "holds checkpoints of another training" in capsys.readouterr().err


def test_contributing__names_existing_files() -> None:
    text = (ROOT / "docs/contributing.md").read_text()
    for path in re.findall(r"(?:flyxr|tests|docs|\.ci)/[\w./]*\w", text):
        is_made = path.startswith("docs/_build/")  # by the command beside it
        assert (ROOT / path).exists() or is_made or path.endswith("test_stimuli_"), path


def test_publish_catalog__write_list_and_describe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    catalog = str(tmp_path / "catalog.yaml")
    path = str(fx.save(fx.sample_ensemble(2, seed=0), tmp_path / "models.zarr"))
    arguments = ["publish", path, "--catalog", catalog, "--description", "Two models", "--licence", "CC0-1.0"]
    assert cli.main(arguments) == 0
    assert f'intake.open_catalog("{catalog}")["models"].to_dask()' in capsys.readouterr().out
    assert cli.main(arguments) == 2
    assert "add --overwrite to replace it" in capsys.readouterr().err
    assert cli.main(["catalog", catalog, "--kind", "ens*"]) == 0
    assert "1 of 1 entries" in capsys.readouterr().out
    assert cli.main(["catalog", str(tmp_path), "models", "--verify"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("models: ensemble, 2 model x 65 cell_type x 604 pair\n")
    assert "Two models; licence CC0-1.0" in printed
    assert "all files are as they were published" in printed
    assert cli.main(["catalog", catalog, "model"]) == 2
    assert "it has models" in capsys.readouterr().err


def test_catalog__describes_what_is_made_on_demand(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["catalog", str(Path(__file__).parents[1] / "catalog"), "edges"]) == 0
    assert capsys.readouterr().out.startswith("edges: rendering, ")
