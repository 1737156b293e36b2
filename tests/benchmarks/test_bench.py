"""The benchmark runs, compares both sides, and explains failures. No test checks a time."""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

import flyxr as fx
from flyxr import bench, cli
from flyxr.bench import cases, limits, page, worker, workload
from flyxr.bench.sides import Sides, largest_difference
from flyxr.errors import InputError

TINY = workload.Size(
    processes=1,
    repeats=2,
    movies={"tiny": (1, 2, 8, 8)},
    simulations=(workload.Simulation(2, 1, 1, 1, 1),),
    stored=(1, 1),
    measured=(4, 4, 6),
    clustered=1,
    csr_samples=(1,),
    gradients=(1,),
    n_frames=2,
    step_repeats=2,
    copy_bytes=2**12,
    matmul_size=8,
)
ANALYSES = {"measure direction_selectivity_index", "measure preferred_direction", "measure summary", "cluster"}
SHARED_ROWS = {"import", "compile", "first_response", "render tiny", "simulate 2 x 1", "step"}


Requests = list[dict[str, Any]]


class InProcess(Sides):
    """Run tasks in this process, with flyxr in the place of flyvis, and record the requests."""

    requests: ClassVar[Requests] = []

    def ask(self, side: str, request: dict[str, Any]) -> dict[str, Any]:
        self.requests.append({"side": side, **request})
        if request["task"] == "about":
            return {"versions": {"flyvis": "1.2.0", "python": "3.11"}}
        paths = {"inputs": str(self.inputs), "results": str(self.folder / f"{side}.npz"), "spawned": 0.0}
        return worker.answer({"side": "flyxr", **paths, **request})


class FailingPeer(InProcess):
    """A peer that cannot render."""

    def ask(self, side: str, request: dict[str, Any]) -> dict[str, Any]:
        if side == "flyvis" and request["task"] == "render":
            raise bench.BenchmarkError("out of memory")
        return super().ask(side, request)


@pytest.fixture(scope="module")
def both() -> tuple[dict[str, Any], Requests, list[str]]:
    """Report of a run with a peer, the requests, and the lines of progress."""
    lines: list[str] = []
    InProcess.requests.clear()
    report = bench.run(sys.executable, quick=True, size=TINY, sides=InProcess, progress=lines.append)
    return report, list(InProcess.requests), lines


def test_run__reports_every_figure(both: tuple[dict[str, Any], Requests, list[str]]) -> None:
    report, _, lines = both
    assert json.loads(json.dumps(report)) == report
    assert {case["name"] for case in report["cases"]} == SHARED_ROWS | ANALYSES | {"gradient 1", "read"}
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
    for case in report["cases"]:
        assert (case["name"] in ANALYSES) == ("read" in case["flyxr"])
        assert case["flyxr"].get("read", 1) > 0
    assert len(lines) == 3 + 2 * len(SHARED_ROWS) + 2 + len(ANALYSES)


def test_run__takes_turns_scales_and_compares(both: tuple[dict[str, Any], Requests, list[str]]) -> None:
    report, requests, _ = both
    sides = [
        request["side"] for request in requests if request["task"] in ("import", "compile", "first_response", "render")
    ]
    assert sides == ["flyxr", "flyvis"] * 4
    rows = {case["name"]: case for case in report["cases"]}
    assert {name for name, row in rows.items() if row["flyvis"]} == SHARED_ROWS
    simulated = rows["simulate 2 x 1"]
    assert simulated["flyvis"]["scaled_by"] == 2
    assert simulated["flyvis"]["measured"] == "1 x 1"
    assert simulated["difference"] == rows["render tiny"]["difference"] == rows["step"]["difference"] == 0
    assert simulated["ratio"] == simulated["flyvis"]["best"] / simulated["flyxr"]["best"]
    assert rows["compile"]["flyvis"]["measured"] == "all"


def test_page__contains_tables_and_machine(both: tuple[dict[str, Any], Requests, list[str]], tmp_path: Path) -> None:
    report = both[0]
    bench.write(report, out=tmp_path / "bench.json", to_page=tmp_path / "benchmarks.md")
    text = (tmp_path / "benchmarks.md").read_text()
    assert bench.table(report) in text
    assert report["machine"]["cpu"] in text
    assert "--quick" in text
    assert json.loads((tmp_path / "bench.json").read_text()) == report
    assert bench.table(report).count("none") == 2 + len(ANALYSES)  # neither reading nor gradients are compared
    assert text.split("## Measures and clusters")[1].count("| ") > 4 * len(ANALYSES)
    assert "| gradient 1 |" in text.split("## Gradients")[1]


def test_run__without_a_peer_has_one_side() -> None:
    report = bench.run(quick=True, size=TINY, tasks=["render"], sides=InProcess)
    (case,) = report["cases"]
    assert set(case) == {"name", "title", "flyxr", "limit"}
    assert "flyvis" not in bench.table(report)
    assert "nothing, since no peer was given" in page.text(report)


def test_run__keeps_the_row_of_a_failing_peer() -> None:
    report = bench.run(sys.executable, quick=True, size=TINY, tasks=["render"], sides=FailingPeer)
    (case,) = report["cases"]
    assert case["flyvis"] == {"error": "out of memory"}
    assert "ratio" not in case
    assert "failed" in bench.table(report)
    assert "flyvis failed at *render 1 x 2 frames of 8 x 8*: out of memory" in page.text(report)


def test_page__in_the_documentation_has_the_current_text() -> None:
    text = (Path(__file__).parents[2] / "docs/benchmarks.md").read_text()
    for paragraph in page.TEMPLATE.split("\n\n"):
        if "{" not in paragraph:
            assert paragraph in text


def test_largest_difference__compares_the_shared_part_and_shows_nan(tmp_path: Path) -> None:
    path, peer_path = tmp_path / "flyxr.npz", tmp_path / "flyvis.npz"
    np.savez(path, last=np.arange(6.0).reshape(2, 3))
    np.savez(peer_path, last=np.array([[0.0, 1.5]]))
    assert largest_difference(path, peer_path) == 0.5
    np.savez(peer_path, last=np.array([[0.0, np.nan]]))
    assert math.isnan(largest_difference(path, peer_path))


def test_run__measures_in_processes_of_their_own() -> None:
    lines: list[str] = []
    report = bench.run(size=TINY, tasks=["import"], progress=lines.append)
    assert lines[-1] == "import: flyxr"
    assert (report["taken_by_others"]["flyxr"] or 0) >= 0
    (case,) = report["cases"]
    assert case["flyxr"]["seconds"][0] > 0
    assert case["flyxr"]["peak_memory"] > 10e6


@pytest.mark.slow
def test_bench__as_a_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "--quick", "--out", str(tmp_path / "bench.json")]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[2].startswith("| import")
    assert "import: flyxr" in printed.err
    assert json.loads((tmp_path / "bench.json").read_text())["size"] == "quick"


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (None, "no program"),
        ("#!/bin/sh\nexit 0\n", "no answer"),
        (f'#!/bin/sh\nexec {sys.executable} -S "$@"\n', "No module named 'flyvis'"),
    ],
)
def test_run__explains_how_to_install_a_peer(
    program: str | None, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    python = tmp_path / "python"
    if program is not None:
        python.write_text(program)
        python.chmod(0o755)
    assert cli.main(["bench", "--quick", "--peer", str(python)]) == 2
    error = capsys.readouterr().err
    assert str(python) in error
    assert reason in error
    assert "pip install flyvis" in error
    assert "Traceback" not in error


def test_bench__checks_folders_before_it_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "--out", str(tmp_path / "nowhere" / "bench.json")]) == 2
    assert "expected a folder at" in capsys.readouterr().err


def test_ask__raises_if_a_task_of_flyxr_fails(tmp_path: Path) -> None:
    (tmp_path / "inputs.npz").write_bytes(b"")
    with pytest.raises(bench.BenchmarkError, match="flyxr failed at first_response"):
        Sides(tmp_path, None, print).ask("flyxr", {"task": "first_response"})


def test_all_cases__on_a_device_follow_those_on_the_cpu() -> None:
    names = [case.name for case in cases.all_cases(TINY, "store", "cuda:1")]
    assert names[names.index("step") + 1] == "step cuda:1"
    assert [name for name in names if "cuda" in name] == ["simulate 2 x 1 cuda:1", "step cuda:1", "gradient 1 cuda:1"]
    on_device = [case for case in cases.all_cases(TINY, "store", "cuda:1") if "cuda" in case.name]
    assert all(case.request["device"] == "cuda:1" and case.peer is None for case in on_device)


def test_run__on_a_device(device: str) -> None:
    report = bench.run(quick=True, size=TINY, tasks=["simulate", "step", "gradient"], device=device, sides=InProcess)
    assert len(report["cases"]) == (3 if device == "cpu" else 6)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_run__without_the_device_says_so() -> None:
    with pytest.raises(InputError, match="expected a CUDA GPU for device='cuda', got none"):
        bench.run(quick=True, size=TINY, device="cuda", sides=InProcess)


def test_inputs__are_bounded_and_repeatable() -> None:
    first, again = workload.inputs(TINY), workload.inputs(TINY)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert first["synapse_strength"].shape == (2, 604)
    assert first["synapse_strength"].min() > 0
    assert first["luminance"].shape == (2, 2, 721)
    for name in ("luminance", "tiny"):
        assert first[name].dtype == np.float32
        assert 0 <= first[name].min() < first[name].max() <= 1


def test_inputs__repeat_the_models_of_an_ensemble(tmp_path: Path) -> None:
    ensemble = fx.sample_ensemble(1, seed=3)
    fx.save(ensemble, tmp_path / "ensemble.zarr")
    inputs = workload.inputs(TINY, tmp_path / "ensemble.zarr")
    assert np.array_equal(inputs["bias"], np.repeat(ensemble.bias.values, 2, axis=0))


def test_inputs__reject_other_pairs(tmp_path: Path) -> None:
    fx.save(fx.sample_ensemble(1, seed=0).isel(pair=slice(None, None, -1)), tmp_path / "ensemble.zarr")
    with pytest.raises(ValueError, match="all cell types and pairs"):
        workload.inputs(TINY, tmp_path / "ensemble.zarr")


def test_simulation_limits__grow_with_work_and_for_the_matrix_only_with_models() -> None:
    hardware = {"bandwidth": 10e9, "flops": 1e15, "csr_step": {"1": 0.5}}
    one, many = (limits.simulation_limits(hardware, 1, n_samples, 100, 10) for n_samples in (1, 8))
    assert many["operations"] == 8 * one["operations"]
    assert many["output_bytes"] == 8 * one["output_bytes"]
    assert many["csr_bytes"] == one["csr_bytes"]
    assert one["least"] == one["output_s"] < one["least_csr"]
    assert one["csr_products"] == 50
    assert math.isnan(many["csr_products"])


@pytest.mark.peer
@pytest.mark.timeout(3600)
def test_run__results_of_both_sides_agree() -> None:
    python = os.environ.get("FLYXR_PEER")
    if python is None:
        pytest.skip("set FLYXR_PEER to a Python that has flyvis")
    report = bench.run(python)
    for case in report["cases"]:
        if case["flyvis"] is not None:
            assert "error" not in case["flyvis"], case
        assert case.get("difference", 0) < 1e-4
