"""flyxr timed, and flyvis beside it: the same numbers on the same machine, one after the other.

Each case of each side runs in a process of its own, so that its peak memory is its own, and the sides take turns, so
that a machine that gets slower or busier does so for both.
"""

from __future__ import annotations

import json
import math
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flyxr.bench import limits, page, worker, workload
from flyxr.errors import FlyxrError, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["BenchmarkError", "run", "table", "write"]

_SAID = 600
"""Characters of what a failed process said that an error quotes."""

table = page.table


class BenchmarkError(FlyxrError, ValueError):
    """A side cannot be timed."""


@dataclass(frozen=True)
class Case:
    """One row: what a side is asked for, and what of the answers is compared.

    ``peer`` overrides the request for flyvis, or is None where it has nothing alike; its seconds are multiplied
    by ``peer_scale``, and ``peer_part`` says of what they were measured.
    """

    name: str
    title: str
    task: str
    request: dict[str, Any] = field(default_factory=dict)
    peer: dict[str, Any] | None = field(default_factory=dict)
    peer_scale: float = 1
    peer_part: str = "all"
    processes: int = 1
    limit: Callable[[dict[str, Any]], dict[str, float]] | None = None


def run(
    peer: str | Path | None = None,
    *,
    ensemble: str | Path | None = None,
    quick: bool = False,
    progress: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Run all cases on the CPU.

    Parameters
    ----------
    peer
        A Python that has flyvis; without it only flyxr is timed.
    ensemble
        Models to simulate, see :func:`flyxr.open_ensemble`; without it parameters are drawn at random.
    quick
        Small cases, to see that all works: some seconds without the peer, and no figures to compare.
    progress
        Is told a line before each step.

    Returns
    -------
    dict
        ``machine``, ``versions``, ``hardware`` (bandwidth, operations, sparse product as measured), ``load_average``
        and ``taken_by_others`` (share of the cores), and ``cases``, each with seconds, memory, ratio, largest
        difference, and limit. All of it can be written as JSON.

    Raises
    ------
    BenchmarkError
        If the peer's Python is missing or has no flyvis that works, or a case of flyxr fails. One of flyvis that
        fails, for want of memory for example, is an ``error`` in its row.
    """
    size = workload.QUICK if quick else workload.FULL
    with tempfile.TemporaryDirectory(prefix="flyxr-bench-") as folder:
        bench = _Bench(Path(folder), None if peer is None else str(peer), progress)
        versions = {"flyxr": worker.flyxr_about({})}
        if peer is not None:
            progress("looking at flyvis")
            versions["flyvis"] = bench.ask("flyvis", {"task": "about"})
        progress("making parameters and stimuli")
        np.savez(bench.inputs, **workload.inputs(size, ensemble))  # type: ignore[arg-type]
        report: dict[str, Any] = {
            "size": "quick" if quick else "full",
            "models": "drawn at random" if ensemble is None else str(ensemble),
            "date": time.strftime("%Y-%m-%d"),
            "machine": _machine(),
            "versions": {side: found["versions"] for side, found in versions.items()},
            "load_average": {"start": _load()},
        }
        progress("measuring memory bandwidth, operations and the sparse product")
        keys = ("copy_bytes", "matmul_size", "csr_samples")
        measured = {"task": "machine", **{key: getattr(size, key) for key in keys}}
        report["hardware"] = {**bench.ask("flyxr", measured), "copy_bytes": size.copy_bytes}
        store = {"store": str(bench.folder / "responses.zarr")}
        n_models, n_samples = size.stored
        bench.ask("flyxr", {"task": "store", "n_models": n_models, "n_samples": n_samples, **store})
        report["cases"] = [bench.row(case, report["hardware"]) for case in _cases(size, store)]
        report["load_average"]["end"] = _load()
        report["taken_by_others"] = {side: _taken_by_others(*used.tolist()) for side, used in bench.used.items()}
    return report


def write(report: dict[str, Any], *, out: str | Path | None = None, to_page: str | Path | None = None) -> None:
    """Write a report as JSON, as the page of the documentation, or both.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write({"size": "quick"}, out=folder + "/bench.json")
    ...     Path(folder, "bench.json").read_text().split()
    ['{', '"size":', '"quick"', '}']
    """
    if out is not None:
        Path(out).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if to_page is not None:
        Path(to_page).write_text(page.text(report), encoding="utf-8")


def _cases(size: workload.Size, store: dict[str, str]) -> Iterable[Case]:
    n = size.processes
    yield Case("import", "import", "import", processes=n)
    yield Case("compile", "compile the connectome at extent 15", "compile", peer={"fresh_root": True}, processes=n)
    yield Case("first_response", "start of the process to first response", "first_response", processes=n)
    for name, shape in size.movies.items():
        yield Case(
            f"render {name}",
            f"render {shape[0]} x {shape[1]} frames of {shape[2]} x {shape[3]}",
            "render",
            {"movie": name, "repeats": size.repeats},
            limit=partial(limits.of_rendering, shape=shape),
        )
    for case in size.simulations:
        yield _simulation(case, size)
    for n_samples in size.gradients:
        title = f"gradient of 1 model x {_count(n_samples, 'sequence')}, {_n_steps(size)} steps"
        request = {"n_samples": n_samples, "repeats": size.repeats}
        yield Case(f"gradient {n_samples}", title, "gradient", request, peer=None)
    n_models, n_samples = size.stored
    title = f"read one of 65 cell types of {n_models} x {n_samples} stored"
    yield Case("read", title, "read", {"repeats": size.repeats, **store}, peer=None)


def _simulation(case: workload.Simulation, size: workload.Size) -> Case:
    n_steps = _n_steps(size)
    part = f"{case.peer_models} x {case.peer_samples}" if case.peer_scale != 1 else "all"
    batch = f", {case.peer_batch} at a time" if case.peer_batch < case.peer_samples else ""
    return Case(
        f"simulate {case.n_models} x {case.n_samples}",
        f"simulate {_count(case.n_models, 'model')} x {_count(case.n_samples, 'sequence')}, {n_steps} steps",
        "simulate",
        {"n_models": case.n_models, "n_samples": case.n_samples, "repeats": size.repeats},
        peer={"n_models": case.peer_models, "n_samples": case.peer_samples, "batch": case.peer_batch},
        peer_scale=case.peer_scale,
        peer_part=part + batch,
        limit=partial(
            limits.of_simulation,
            n_models=case.n_models,
            n_samples=case.n_samples,
            n_steps=n_steps,
            n_frames=size.n_frames,
        ),
    )


def _n_steps(size: workload.Size) -> int:
    """Steps of a fade-in and the frames after it."""
    return round(1 / workload.DT) + size.n_frames


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'s' if number != 1 else ''}"


class _Bench:
    """Both sides, and the folder in which they find and leave their arrays."""

    def __init__(self, folder: Path, peer: str | None, progress: Callable[[str], None]) -> None:
        self.folder, self.progress = folder, progress
        self.inputs = folder / "inputs.npz"
        self.python = {"flyxr": sys.executable}
        if peer is not None:
            found = shutil.which(peer)
            if found is None:
                raise BenchmarkError(_no_peer(peer, "no program"))
            self.python["flyvis"] = str(Path(found).absolute())
        self.sides = tuple(self.python)
        self.define_operators = False
        self.used = {side: np.zeros(3) for side in self.sides}
        (folder / "flyvis-root").mkdir()

    def ask(self, side: str, request: dict[str, Any]) -> dict[str, Any]:
        """Answer of a process of its own."""
        with tempfile.TemporaryDirectory(dir=self.folder) as own:
            place = Path(own)
            root = place / "root" if request.get("fresh_root") else self.folder / "flyvis-root"
            root.mkdir(exist_ok=True)
            environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
            if side == "flyxr":
                paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
                environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
            else:
                environment["FLYVIS_ROOT_DIR"] = str(root)
            whole = {
                "side": side,
                "inputs": str(self.inputs),
                "results": str(self.folder / f"{side}.npz"),
                "answer": str(place / "answer.json"),
                "define_operators": self.define_operators,
                **request,
                "spawned": time.time(),
            }
            (place / "request.json").write_text(json.dumps(whole))
            command = [self.python[side], worker.__file__, str(place / "request.json")]
            before = _used()
            try:
                done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=place, check=False)
            except OSError as error:
                raise BenchmarkError(_no_peer(command[0], error.strerror or str(error))) from error
            if done.returncode == 0 and (place / "answer.json").exists():
                after = _used()
                self.used[side] += [later - earlier for later, earlier in zip(after, before, strict=True)]
                answer: dict[str, Any] = json.loads((place / "answer.json").read_text())
                return answer
        if side == "flyvis" and "operator torchvision::" in done.stderr and not self.define_operators:
            self.define_operators = True
            return self.ask(side, request)
        said = done.stderr.strip()[-_SAID:] or f"it gave no answer, status {done.returncode}"
        if side == "flyvis" and request["task"] == "about":
            raise BenchmarkError(_no_peer(command[0], said.splitlines()[-1]))
        raise BenchmarkError(f"{side} failed at {request['task']}: {said}")

    def row(self, case: Case, hardware: dict[str, Any]) -> dict[str, Any]:
        """Figures of a case."""
        row: dict[str, Any] = {"name": case.name, "title": case.title}
        for side in self.sides:
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
            seconds = [scale * taken for answer in answers for taken in answer["seconds"]]
            row[side] = {
                "seconds": seconds,
                "best": min(seconds),
                "median": float(np.median(seconds)),
                "measured": part,
                "scaled_by": scale,
                "peak_memory": max(answer["peak_memory"] for answer in answers),
            }
            if case.task == "gradient":
                names = ("checkpointed", "forward", "forward_products")
                row[side] |= {name: min(min(answer[name]) for answer in answers) for name in names}
        if "best" in (row.get("flyvis") or {}):
            row["ratio"] = row["flyvis"]["best"] / row["flyxr"]["best"]
            if case.task in ("render", "simulate"):
                row["difference"] = _difference(self.folder / "flyxr.npz", self.folder / "flyvis.npz")
        if case.limit is not None:
            row["limit"] = case.limit(hardware)
        return row


def _difference(ours: Path, theirs: Path) -> float:
    """Largest difference of the results of the two sides, on the part that both have."""
    differences = []
    with np.load(ours) as left, np.load(theirs) as right:
        for name in right.files:
            a, b = left[name], right[name]
            both = tuple(slice(min(lengths)) for lengths in zip(a.shape, b.shape, strict=True))
            differences.append(np.abs(a[both] - b[both]).max())
    return float(np.max(differences))  # NaN where any is


def _no_peer(python: str, got: str) -> Problem:
    way = (
        "make one with Python 3.9 to 3.12, `python3.11 -m venv flyvis-env && flyvis-env/bin/pip install flyvis`, and "
        "give flyvis-env/bin/python; without {} flyxr is timed alone"
    )
    return Problem(f"expected a Python with flyvis at {python}, got {got}", way.format("peer="), way.format("--peer"))


def _machine() -> dict[str, Any]:
    """Processor, cores and memory."""
    cpu = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), cpu)
    except OSError:
        pass
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else None
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory": memory,
        "system": f"{platform.system()} {platform.release()}",
    }


def _used() -> tuple[float, float, float]:
    """Seconds until now: of the clock, of the cores by all programs, of the cores by processes of the benchmark."""
    times = os.times()
    try:
        ticks = [int(count) for count in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        busy = (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")  # all but idle and waiting
    except (OSError, ValueError):
        busy = math.nan
    return time.monotonic(), busy, times.children_user + times.children_system


def _taken_by_others(clock: float, busy: float, own: float) -> float | None:
    """Share of the cores that other programs took meanwhile; None where that is not known.

    Examples
    --------
    >>> _taken_by_others(10.0, 5.0 * os.cpu_count(), 2.5 * os.cpu_count())
    0.25
    """
    if math.isnan(busy) or not clock:
        return None
    return round(max(0.0, busy - own) / (clock * (os.cpu_count() or 1)), 3)


def _load() -> list[float] | None:
    return [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else None
