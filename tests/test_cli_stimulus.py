"""``flyxr stimulus``: the stimuli of ``fx.stimuli``, and from them to measures with the command line alone."""

from __future__ import annotations

import inspect
import re
import shlex
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import xarray as xr

import flyxr as fx
from flyxr import cli, provenance, schema
from flyxr.cli.stimulus import KINDS

if TYPE_CHECKING:
    from pathlib import Path

BRIEF = "--dt 0.02 --t-pre 0.1 --extent 2"
COMMANDS: dict[str, tuple[str, dict[str, Any]]] = {
    "flashes": (
        f"--radius -1 1 --intensities 0 0.25 1 --alternations 0 1 0 1 --t-stim 0.2 --baseline 0.4 {BRIEF}",
        {"radius": [-1, 1], "intensities": [0, 0.25, 1], "alternations": [0, 1, 0, 1], "t_stim": 0.2, "baseline": 0.4},
    ),
    "edges": (
        f"--angles 0 90 --speeds 9.7 --intensities 1 --offsets -9 9 --height 90 --t-post 0.1 {BRIEF}",
        {"angles": [0, 90], "speeds": 9.7, "intensities": 1, "offsets": (-9, 9), "height": 90, "t_post": 0.1},
    ),
    "bars": (
        f"--angles 0 --widths 2.25 9 --speeds 19 --intensities 1 --offsets -9 9 --t-post 0.1 {BRIEF}",
        {"angles": 0, "widths": [2.25, 9], "speeds": 19, "intensities": 1, "offsets": (-9, 9), "t_post": 0.1},
    ),
    "gratings": (
        f"--angles 0 90 --spatial-frequencies 1/30 --temporal-frequencies 1 4 --t-stim 0.2 --t-post 0.1 {BRIEF}",
        {"angles": [0, 90], "temporal_frequencies": [1, 4], "t_stim": 0.2, "t_post": 0.1},
    ),
    "impulses": (
        f"--position 'within 1' --intensities 1 --duration 40ms --t-post 100ms {BRIEF}",
        {"position": "within 1", "intensities": 1, "duration": 0.04, "t_post": 0.1},
    ),
    "natural": (
        f"--angles 0 --rotation-speeds --expansion-rates 0.5 --photographs china --n-crops 2 --seed 1 {BRIEF}",
        {"angles": 0, "rotation_speeds": [], "expansion_rates": 0.5, "photographs": "china", "n_crops": 2, "seed": 1},
    ),
    "digits": (
        "--n-samples 2 --seed 7 --n-frames 3 --size 32 --n-digits 1 --frame-rate 50 --speed 2",
        {"n_samples": 2, "seed": 7, "n_frames": 3, "size": 32, "n_digits": 1, "frame_rate": 50, "speed": 2},
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_stimulus__writes_that_of_python(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options, arguments = COMMANDS[kind]
    out = tmp_path / "s.zarr"
    assert cli.main(["stimulus", kind, str(out), *shlex.split(options)]) == 0
    assert "s.zarr: " + ("movie" if kind == "digits" else "rendering") in capsys.readouterr().out
    common = {} if kind == "digits" else {"dt": 1 / 50, "t_pre": 0.1, "extent": 2}
    expected = getattr(fx.stimuli, KINDS[kind].function)(**arguments, **common)
    got = fx.open(out)
    xr.testing.assert_identical(got.drop_attrs(), expected.drop_attrs().compute())
    (step,), (expected_step,) = provenance.steps(got), provenance.steps(expected)
    assert step == expected_step
    assert cli.main(["stimulus", kind, str(out), *shlex.split(options)]) == 2
    assert "s.zarr exists: add --overwrite" in capsys.readouterr().err
    assert cli.main(["stimulus", kind, str(out), *shlex.split(options), "--overwrite"]) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_stimulus__has_the_arguments_and_defaults_of_python(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    parameters = inspect.signature(getattr(fx.stimuli, KINDS[kind].function)).parameters
    options = vars(cli.build_parser().parse_args(["stimulus", kind, "s.zarr"]))
    assert set(parameters) - {"sample_chunk"} == set(KINDS[kind].options)
    for name in KINDS[kind].options:
        assert options[name] == parameters[name].default
    with pytest.raises(SystemExit, match="0"):
        cli.main(["stimulus", kind, "--help"])
    printed = " ".join(capsys.readouterr().out.split())
    example = shlex.split(printed.split("Example: ")[1])
    assert example[:3] == ["flyxr", "stimulus", kind]
    cli.build_parser().parse_args(example[1:])
    if kind not in ("digits", "natural"):
        assert "(default: 0.005)" in printed


def test_stimulus__writes_all_stimuli_of_measures() -> None:
    required = {function for stimulus in schema.STIMULI for function in stimulus.functions}
    assert required <= {kind.function for kind in KINDS.values()}


@pytest.mark.parametrize(
    ("text", "columns"), [("9", [9]), ("'(-1,0)' 9", [(-1, 0), 9]), ("'0,0' '(1, -1)'", [(0, 0), (1, -1)])]
)
def test_stimulus__takes_columns_by_label_or_position(text: str, columns: list[Any], tmp_path: Path) -> None:
    command = f"stimulus impulses {tmp_path}/s.zarr --position {text} --intensities 1 --t-post 0.1 {BRIEF}"
    assert cli.main(shlex.split(command)) == 0
    expected = fx.stimuli.impulses(columns, intensities=1, t_post=0.1, t_pre=0.1, dt=1 / 50, extent=2)
    np.testing.assert_array_equal(fx.open(tmp_path / "s.zarr").luminance, expected.luminance)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("flashes {out} --dt soon", "expected a duration in s such as 0.01, 1/100 or 10ms, got 'soon'"),
        ("edges {out} --angles left", "expected a number such as 0.01 or 1/100, got 'left'"),
        ("edges {out} --speeds 1/0", "expected a number such as"),
        ("digits {out} --seed 0.5", "invalid int value"),
        ("clouds {out}", "invalid choice: 'clouds'"),
    ],
)
def test_stimulus__explains_options_that_cannot_be_read(
    command: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["stimulus", *shlex.split(command.format(out=tmp_path / "s.zarr"))])
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("flashes {out} --intensities 2 --extent -1", "(?s)extent .*got -1.*intensities .*got"),
        ("edges {out} --speeds 1000", "undersamples speeds"),
        ("impulses {out} --position nowhere", "expected position .*got 'nowhere'"),
        ("natural {out} --photographs moon", "expected photographs"),
        ("digits {out} --n-samples 0", "expected n_samples"),
    ],
)
def test_stimulus__writes_nothing_for_bad_values(
    command: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["stimulus", *shlex.split(command.format(out=tmp_path / "new" / "s.zarr"))]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not list(tmp_path.iterdir())


CHAINS = {
    "flashes": ("--radius -1 --t-stim 0.1", ["flash_response_index"]),
    "edges": (
        "--angles 0 90 180 270 --speeds 19 --offsets -9 9 --t-post 0.1",
        ["direction_selectivity_index", "preferred_direction", "vector_length", "tuning_curve"],
    ),
    "gratings": ("--angles 0 90 180 270 --t-stim 0.2 --t-post 0.1", ["direction_selectivity_index"]),
    "impulses": (
        "--position 'within 1' --intensities 1 --t-post 0.1",
        ["temporal_receptive_field", "spatial_receptive_field"],
    ),
}


@pytest.mark.parametrize("kind", CHAINS)
def test_commands__reach_measures(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ensemble = fx.sample_ensemble(2, seed=0, connectome=fx.open_connectome(extent=2))
    fx.save(ensemble, tmp_path / "ensemble.zarr")
    options, measures = CHAINS[kind]
    columns = "all" if kind == "impulses" else "central"
    for command in (
        f"stimulus {kind} {tmp_path}/s.zarr {options} {BRIEF}",
        f"simulate {tmp_path}/s.zarr {tmp_path}/ensemble.zarr {tmp_path}/r.zarr --record {columns} "
        "--initial-state steady_state",
        f"tuning {tmp_path}/r.zarr {tmp_path}/t.zarr",
    ):
        assert cli.main(shlex.split(command)) == 0
    printed = capsys.readouterr().out
    got = fx.open(tmp_path / "t.zarr")
    for name in measures:
        values = got[name]
        assert f"  {name:28} {float(values.min()):.2f} to {float(values.max()):.2f}, " in printed
    assert "t.zarr: " in printed
    expected = fx.tuning.summary(fx.simulate(fx.open(tmp_path / "s.zarr"), ensemble, initial_state="steady_state"))
    for name in measures:
        np.testing.assert_array_equal(got[name], expected[name])
