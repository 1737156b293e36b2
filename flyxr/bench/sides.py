"""The two sides of the benchmark, flyxr and flyvis, and the processes that run their tasks."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flyxr.bench import worker
from flyxr.errors import FlyxrError, Problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from flyxr.bench.cases import Case

_OTHER_TIMES = {
    "gradient": ("checkpointed", "forward", "forward_products"),
    "measure": ("read",),
    "cluster": ("read",),
}
"""Times that some tasks report besides their own."""
MAX_QUOTED = 600
"""Number of characters of the output of a failed process that an error quotes."""


class BenchmarkError(FlyxrError, ValueError):
    """A side cannot be timed."""


class Sides:
    """Both sides, and the folder through which they exchange arrays.

    Parameters
    ----------
    folder
        An empty folder.
    peer
        Python interpreter with flyvis, or None to time flyxr alone.
    progress
        Called with a line before each measurement.

    Raises
    ------
    BenchmarkError
        If there is no such interpreter.
    """

    def __init__(self, folder: Path, peer: str | None, progress: Callable[[str], None]) -> None:
        self.folder, self.progress = folder, progress
        self.inputs = folder / "inputs.npz"
        self.interpreters = {"flyxr": sys.executable}
        if peer is not None:
            path = shutil.which(peer)
            if path is None:
                raise BenchmarkError(_peer_problem(peer, "no program"))
            self.interpreters["flyvis"] = str(Path(path).absolute())
        self.define_operators = False
        self.cpu_seconds = {side: np.zeros(3) for side in self.interpreters}
        (folder / "flyvis-root").mkdir()

    def ask(self, side: str, request: dict[str, Any]) -> dict[str, Any]:
        """Run a task in a fresh process and return its answer.

        Raises
        ------
        BenchmarkError
            If the process fails.
        """
        with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
            folder = Path(scratch)
            root = folder / "root" if request.get("fresh_root") else self.folder / "flyvis-root"
            root.mkdir(exist_ok=True)
            environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
            if side == "flyxr":
                paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
                environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
            else:
                environment["FLYVIS_ROOT_DIR"] = str(root)
            full_request = {
                "side": side,
                "inputs": str(self.inputs),
                "results": str(self.folder / f"{side}.npz"),
                "answer": str(folder / "answer.json"),
                "define_operators": self.define_operators,
                **request,
                "spawned": time.time(),
            }
            (folder / "request.json").write_text(json.dumps(full_request))
            command = [self.interpreters[side], worker.__file__, str(folder / "request.json")]
            before = cpu_clock()
            try:
                process = subprocess.run(
                    command, capture_output=True, text=True, env=environment, cwd=folder, check=False
                )
            except OSError as error:
                raise BenchmarkError(_peer_problem(command[0], error.strerror or str(error))) from error
            if process.returncode == 0 and (folder / "answer.json").exists():
                self.cpu_seconds[side] += np.subtract(cpu_clock(), before)
                answer: dict[str, Any] = json.loads((folder / "answer.json").read_text())
                return answer
        if side == "flyvis" and "operator torchvision::" in process.stderr and not self.define_operators:
            self.define_operators = True
            return self.ask(side, request)
        output = process.stderr.strip()[-MAX_QUOTED:] or f"it gave no answer, status {process.returncode}"
        if side == "flyvis" and request["task"] == "about":
            raise BenchmarkError(_peer_problem(command[0], output.splitlines()[-1]))
        raise BenchmarkError(f"{side} failed at {request['task']}: {output}")

    def measure(self, case: Case, hardware: dict[str, Any]) -> dict[str, Any]:
        """Figures of a case, for a row of the table."""
        row: dict[str, Any] = {"name": case.name, "title": case.title}
        for side in self.interpreters:
            request, scale, part = {"task": case.task, **case.request}, 1.0, "all"
            if side == "flyvis":
                if case.peer is None:
                    row[side] = None
                    continue
                request, scale, part = request | case.peer, case.peer_scale, case.peer_part
            self.progress(f"{case.title}: {side}")
            try:
                answers = [self.ask(side, request) for _ in range(case.processes)]
            except BenchmarkError as error:
                if side == "flyxr":
                    raise
                row[side] = {"error": str(error)}
                continue
            seconds = [scale * value for answer in answers for value in answer["seconds"]]
            row[side] = {
                "seconds": seconds,
                "best": min(seconds),
                "median": float(np.median(seconds)),
                "measured": part,
                "scaled_by": scale,
                "peak_memory": max(answer["peak_memory"] for answer in answers),
            }
            if names := _OTHER_TIMES.get(case.task):
                row[side] |= {name: min(min(answer[name]) for answer in answers) for name in names}
        if "best" in (row.get("flyvis") or {}):
            row["ratio"] = row["flyvis"]["best"] / row["flyxr"]["best"]
            if case.task in ("render", "simulate", "step"):
                row["difference"] = largest_difference(self.folder / "flyxr.npz", self.folder / "flyvis.npz")
        if case.limit is not None:
            row["limit"] = case.limit(hardware)
        return row


def largest_difference(path: Path, peer_path: Path) -> float:
    """Largest absolute difference between the results of the two sides, on the part that both have; NaN if any is."""
    differences = []
    with np.load(path) as results, np.load(peer_path) as peer_results:
        for name in peer_results.files:
            a, b = results[name], peer_results[name]
            shared = tuple(slice(min(lengths)) for lengths in zip(a.shape, b.shape, strict=True))
            differences.append(np.abs(a[shared] - b[shared]).max())
    return float(np.max(differences))


def cpu_clock() -> tuple[float, float, float]:
    """Seconds so far: wall clock, CPU time of all programs, and CPU time of finished processes of the benchmark."""
    times = os.times()
    try:
        ticks = [int(count) for count in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        busy = (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")  # all but idle and waiting
    except (OSError, ValueError):
        busy = math.nan
    return time.monotonic(), busy, times.children_user + times.children_system


def share_of_others(wall: float, busy: float, own: float) -> float | None:
    """Share of the cores that other programs used; None if that is unknown.

    Examples
    --------
    >>> share_of_others(10.0, 5.0 * os.cpu_count(), 2.5 * os.cpu_count())
    0.25
    """
    if math.isnan(busy) or not wall:
        return None
    return round(max(0.0, busy - own) / (wall * (os.cpu_count() or 1)), 3)


def _peer_problem(python: str, got: str) -> Problem:
    hint = (
        "create one with Python 3.9 to 3.12, `python3.11 -m venv flyvis-env && flyvis-env/bin/pip install flyvis`, and "
        "pass flyvis-env/bin/python; without {} flyxr is timed alone"
    )
    return Problem(f"expected a Python with flyvis at {python}, got {got}", hint.format("peer="), hint.format("--peer"))
