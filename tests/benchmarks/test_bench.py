"""The benchmark runs, compares what it says, and ends with a sentence where it cannot; no test holds a time."""

from __future__ import annotations

import json
import math
import os
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import flyxr as fx
from flyxr import bench, cli
from flyxr.bench import limits, page, worker, workload

if TYPE_CHECKING:
    from pathlib import Path

TINY = workload.Size(
    processes=1,
    repeats=2,
    movies={"tiny": (1, 2, 8, 8)},
    simulations=(workload.Simulation(2, 1, 1, 1, 1),),
    stored=(1, 1),
    csr_samples=(1,),
    gradients=(1,),
    n_frames=2,
    copy_bytes=2**12,
    matmul_size=8,
)
SHARED_ROWS = {"import", "compile", "first_response", "render tiny", "simulate 2 x 1"}


Asked = list[dict[str, Any]]


def play(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """Have tiny cases run in this process, flyxr playing the peer as well; returns what is asked for."""
    asked: Asked = []

    def ask(self: Any, side: str, request: dict[str, Any]) -> dict[str, Any]:
        asked.append({"side": side, **request})
        if request["task"] == "about":
            return {"versions": {"flyvis": "1.2.0", "python": "3.11"}}
        paths = {"inputs": str(self.inputs), "results": str(self.folder / f"{side}.npz"), "spawned": 0.0}
        return worker.answer({"side": "flyxr", **paths, **request})

    monkeypatch.setattr(bench._Bench, "ask", ask)
    monkeypatch.setattr(workload, "QUICK", TINY)
    return asked


@pytest.fixture(scope="module")
def both() -> tuple[dict[str, Any], Asked, list[str]]:
    """Report of a run with a peer, what was asked for, and what was told."""
    told: list[str] = []
    with pytest.MonkeyPatch.context() as monkeypatch:
        asked = play(monkeypatch)
        return bench.run(sys.executable, quick=True, progress=told.append), asked, told


@pytest.fixture
def only_render(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run with a single case."""
    play(monkeypatch)
    every = bench._cases
    monkeypatch.setattr(bench, "_cases", lambda *args: [case for case in every(*args) if case.task == "render"])


def test_run__gives_every_figure(both: tuple[dict[str, Any], Asked, list[str]]) -> None:
    report, _, told = both
    assert json.loads(json.dumps(report)) == report
    assert {case["name"] for case in report["cases"]} == SHARED_ROWS | {"gradient 1", "read"}
    for case in report["cases"]:
        for figures in filter(None, (case["flyxr"], case["flyvis"])):
            assert 0 < figures["best"] <= figures["median"]
            assert figures["peak_memory"] > 0
    hardware = report["hardware"]
    assert hardware["n_edges"] == limits.N_EDGES
    assert hardware["n_cells"] == limits.N_CELLS
    assert min(hardware["bandwidth"], hardware["flops"], *hardware["csr_step"].values()) > 0
    assert report["machine"]["cores"] == os.cpu_count()
    assert report["versions"]["flyxr"]["flyxr"] == fx.__version__
    gradient = next(case["flyxr"] for case in report["cases"] if case["name"] == "gradient 1")
    assert min(gradient[name] for name in ("checkpointed", "forward", "forward_products")) > 0
    assert len(told) == 3 + 2 * len(SHARED_ROWS) + 2


def test_run__takes_turns_scales_a_part_and_compares(both: tuple[dict[str, Any], Asked, list[str]]) -> None:
    report, asked, _ = both
    sides = [each["side"] for each in asked if each["task"] in ("import", "compile", "first_response", "render")]
    assert sides == ["flyxr", "flyvis"] * 4
    rows = {case["name"]: case for case in report["cases"]}
    assert {name for name, row in rows.items() if row["flyvis"]} == SHARED_ROWS
    simulated = rows["simulate 2 x 1"]
    assert simulated["flyvis"]["scaled_by"] == 2
    assert simulated["flyvis"]["measured"] == "1 x 1"
    assert simulated["difference"] == rows["render tiny"]["difference"] == 0
    assert simulated["ratio"] == simulated["flyvis"]["best"] / simulated["flyxr"]["best"]
    assert rows["compile"]["flyvis"]["measured"] == "all"


def test_page__has_the_tables_and_the_machine(both: tuple[dict[str, Any], Asked, list[str]], tmp_path: Path) -> None:
    report = both[0]
    bench.write(report, out=tmp_path / "bench.json", to_page=tmp_path / "benchmarks.md")
    text = (tmp_path / "benchmarks.md").read_text()
    assert bench.table(report) in text
    assert report["machine"]["cpu"] in text
    assert "--quick" in text
    assert json.loads((tmp_path / "bench.json").read_text()) == report
    assert bench.table(report).count("none") == 2  # the peer stores nothing, and is not asked for gradients
    assert "| gradient 1 |" in text.split("## Forward and back")[1]


@pytest.mark.usefixtures("only_render")
def test_run__without_a_peer_has_one_side() -> None:
    report = bench.run(quick=True)
    (case,) = report["cases"]
    assert set(case) == {"name", "title", "flyxr", "limit"}
    assert "flyvis" not in bench.table(report)
    assert "nothing: no peer was given" in page.text(report)


@pytest.mark.usefixtures("only_render")
def test_run__a_peer_that_fails_in_a_case_keeps_the_row(monkeypatch: pytest.MonkeyPatch) -> None:
    well = bench._Bench.ask

    def ask(self: Any, side: str, request: dict[str, Any]) -> dict[str, Any]:
        if side == "flyvis" and request["task"] == "render":
            raise bench.BenchmarkError("out of memory")
        return well(self, side, request)

    monkeypatch.setattr(bench._Bench, "ask", ask)
    report = bench.run(sys.executable, quick=True)
    (case,) = report["cases"]
    assert case["flyvis"] == {"error": "out of memory"}
    assert "ratio" not in case
    assert "failed" in bench.table(report)
    assert "flyvis failed at *render 1 x 2 frames of 8 x 8*: out of memory" in page.text(report)


def test_difference__is_of_the_part_that_both_have_and_shows_nan(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours.npz", tmp_path / "theirs.npz"
    np.savez(ours, last=np.arange(6.0).reshape(2, 3))
    np.savez(theirs, last=np.array([[0.0, 1.5]]))
    assert bench._difference(ours, theirs) == 0.5
    np.savez(theirs, last=np.array([[0.0, np.nan]]))
    assert math.isnan(bench._difference(ours, theirs))


def test_bench__as_a_command_in_processes_of_their_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(workload, "QUICK", TINY)
    monkeypatch.setattr(bench, "_cases", lambda size, store: [bench.Case("import", "import", "import")])
    monkeypatch.setattr(bench._Bench, "ask", _only_imports(bench._Bench.ask))
    assert cli.main(["bench", "--quick", "--out", str(tmp_path / "bench.json")]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[2].startswith("| import")
    assert "import: flyxr" in printed.err
    report = json.loads((tmp_path / "bench.json").read_text())
    assert (report["taken_by_others"]["flyxr"] or 0) >= 0
    (case,) = report["cases"]
    assert case["flyxr"]["seconds"][0] > 0
    assert case["flyxr"]["peak_memory"] > 10e6


def _only_imports(ask: Any) -> Any:
    def chosen(self: Any, side: str, request: dict[str, Any]) -> dict[str, Any]:
        if request["task"] == "import":
            return ask(self, side, request)  # type: ignore[no-any-return]
        return {"bandwidth": 1.0, "flops": 1.0, "csr_step": {}}

    return chosen


@pytest.mark.parametrize(
    ("program", "said"),
    [
        (None, "no program"),
        ("#!/bin/sh\nexit 0\n", "no answer"),
        (f'#!/bin/sh\nexec {sys.executable} -S "$@"\n', "No module named 'flyvis'"),
    ],
)
def test_run__a_peer_without_flyvis_is_told_the_way_out(
    program: str | None, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    python = tmp_path / "python"
    if program is not None:
        python.write_text(program)
        python.chmod(0o755)
    assert cli.main(["bench", "--quick", "--peer", str(python)]) == 2
    error = capsys.readouterr().err
    assert str(python) in error
    assert said in error
    assert "pip install flyvis" in error
    assert "Traceback" not in error


def test_bench__says_at_once_where_it_cannot_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "--out", str(tmp_path / "nowhere" / "bench.json")]) == 2
    assert "no folder" in capsys.readouterr().err


def test_run__a_case_of_flyxr_that_fails_ends_it(tmp_path: Path) -> None:
    (tmp_path / "inputs.npz").write_bytes(b"")
    with pytest.raises(bench.BenchmarkError, match="flyxr failed at first_response"):
        bench._Bench(tmp_path, None, print).ask("flyxr", {"task": "first_response"})


def test_inputs__are_bounded_and_repeatable() -> None:
    first, again = workload.inputs(TINY), workload.inputs(TINY)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert first["synapse_strength"].shape == (2, 604)
    assert first["synapse_strength"].min() > 0
    assert first["luminance"].shape == (1, 2, 721)
    for name in ("luminance", "tiny"):
        assert first[name].dtype == np.float32
        assert 0 <= first[name].min() < first[name].max() <= 1


def test_inputs__take_the_models_of_an_ensemble_in_turn(tmp_path: Path) -> None:
    ensemble = fx.sample_ensemble(1, seed=3)
    fx.save(ensemble, tmp_path / "ensemble.zarr")
    inputs = workload.inputs(TINY, tmp_path / "ensemble.zarr")
    assert np.array_equal(inputs["bias"], np.repeat(ensemble.bias.values, 2, axis=0))


def test_inputs__of_other_pairs_raise(tmp_path: Path) -> None:
    fx.save(fx.sample_ensemble(1, seed=0).isel(pair=slice(None, None, -1)), tmp_path / "ensemble.zarr")
    with pytest.raises(ValueError, match="all cell types and pairs"):
        workload.inputs(TINY, tmp_path / "ensemble.zarr")


def test_of_simulation__grows_with_work_and_matrix_only_with_models() -> None:
    hardware = {"bandwidth": 10e9, "flops": 1e15, "csr_step": {"1": 0.5}}
    one, many = (limits.of_simulation(hardware, 1, n, 100, 10) for n in (1, 8))
    assert many["operations"] == 8 * one["operations"]
    assert many["output_bytes"] == 8 * one["output_bytes"]
    assert many["csr_bytes"] == one["csr_bytes"]
    assert one["least"] == one["output_s"] < one["least_csr"]
    assert one["csr_products"] == 50
    assert math.isnan(many["csr_products"])


@pytest.mark.peer
@pytest.mark.timeout(3600)
def test_run__of_both_sides_agree() -> None:
    python = os.environ.get("FLYXR_PEER")
    if python is None:
        pytest.skip("set FLYXR_PEER to a Python that has flyvis")
    report = bench.run(python)
    for case in report["cases"]:
        if case["flyvis"] is not None:
            assert "error" not in case["flyvis"], case
        assert case.get("difference", 0) < 1e-4
