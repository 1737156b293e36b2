"""Time flyxr and flyvis with the same numbers on the same machine.

Each case of each side runs in a process of its own, so that peak memory can be measured. The sides take turns, so that
a machine that slows down affects both.
"""

from __future__ import annotations

import json
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flyxr.bench import cases, page, worker, workload
from flyxr.bench.sides import BenchmarkError, Sides, share_of_others
from flyxr.engine import choose_engine
from flyxr.paths import local_path

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

__all__ = ["BenchmarkError", "run", "table", "write"]

table = page.table


def run(
    peer: str | Path | None = None,
    *,
    ensemble: str | Path | None = None,
    device: str = "cpu",
    quick: bool = False,
    progress: Callable[[str], None] = lambda line: None,
    size: workload.Size | None = None,
    tasks: Collection[str] | None = None,
    sides: type[Sides] = Sides,
) -> dict[str, Any]:
    """Run all cases on the CPU, and those that a GPU can compute also there.

    Parameters
    ----------
    peer
        Python interpreter with flyvis. None times flyxr alone.
    ensemble
        Models to simulate, see :func:`flyxr.open_ensemble`. None draws random parameters.
    device
        ``"cuda"``, ``"cuda:1"``, …: add a row on this device below each row on the CPU that it can compute.
    quick
        Run small cases, to check that everything works. They take seconds without the peer and compare nothing.
    progress
        Called with a line before each step.
    size
        Sizes of the cases. None takes the small ones if ``quick``, else the full ones.
    tasks
        Run only the cases of these tasks, such as ``"import"`` or ``"render"``. None runs all.
    sides
        Class that runs the tasks of both sides.

    Returns
    -------
    dict
        ``machine``, ``versions``, ``hardware`` (measured bandwidth, operations and sparse products), ``load_average``,
        ``taken_by_others`` (share of the cores that other programs used), and ``cases``, each with seconds, memory,
        ratio, largest difference and limit. The dict can be written as JSON.

    Raises
    ------
    BenchmarkError
        If the peer's Python is missing or has no working flyvis, or if a case of flyxr fails. A case of flyvis that
        fails, for example for lack of memory, has an ``error`` in its row.
    InputError
        A ValueError. If torch cannot use the device.
    """
    if device != "cpu":
        from flyxr.engine.sparse import check_device

        check_device(choose_engine("sparse", device)[1])
    if size is None:
        size = workload.QUICK if quick else workload.FULL
    with tempfile.TemporaryDirectory(prefix="flyxr-bench-") as folder:
        both = sides(Path(folder), None if peer is None else str(peer), progress)
        versions = {"flyxr": worker.flyxr_about({})["versions"]}
        if peer is not None:
            progress("checking flyvis")
            versions["flyvis"] = both.ask("flyvis", {"task": "about"})["versions"]
        progress("creating parameters and stimuli")
        np.savez(both.inputs, **workload.inputs(size, ensemble))  # type: ignore[arg-type]
        report: dict[str, Any] = {
            "size": "quick" if quick else "full",
            "models": "drawn at random" if ensemble is None else str(ensemble),
            "date": time.strftime("%Y-%m-%d"),
            "machine": _machine(),
            "versions": versions,
            "load_average": {"start": _load_average()},
        }
        progress("measuring memory bandwidth, operations and sparse products")
        names = ("copy_bytes", "matmul_size", "csr_samples")
        request = {"task": "machine", **{name: getattr(size, name) for name in names}}
        report["hardware"] = {**both.ask("flyxr", request), "copy_bytes": size.copy_bytes}
        store = str(both.folder / "responses.zarr")
        selected = [case for case in cases.all_cases(size, store, device) if tasks is None or case.task in tasks]
        if any(case.task == "read" for case in selected):
            n_models, n_samples = size.stored
            both.ask("flyxr", {"task": "store", "n_models": n_models, "n_samples": n_samples, "store": store})
        report["cases"] = [both.measure(case, report["hardware"]) for case in selected]
        report["load_average"]["end"] = _load_average()
        report["taken_by_others"] = {
            side: share_of_others(*seconds.tolist()) for side, seconds in both.cpu_seconds.items()
        }
    return report


def write(report: dict[str, Any], *, out: str | Path | None = None, to_page: str | Path | None = None) -> None:
    """Write a report as JSON, as a page of the documentation, or both.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write({"size": "quick"}, out=folder + "/bench.json")
    ...     Path(folder, "bench.json").read_text().split()
    ['{', '"size":', '"quick"', '}']
    """
    if out is not None:
        local_path(out, "out").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if to_page is not None:
        local_path(to_page, "page").write_text(page.text(report), encoding="utf-8")


def _machine() -> dict[str, Any]:
    """Processor, cores, memory and operating system."""
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


def _load_average() -> list[float] | None:
    return [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else None
