"""Integrators of networks, each a module of this folder, and the record of each: what it is and where it runs.

Another engine is a module with a function ``integrate`` (see :class:`flyxr.engine.base.Engine`) and a record in
:data:`ENGINES`. Functions, command line and documentation read the records.
"""

from __future__ import annotations

import ctypes
import importlib
import logging
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from flyxr.errors import InputError, Problem

if TYPE_CHECKING:
    from flyxr.engine.base import Engine

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EngineRecord:
    """What is known of an engine without loading it.

    ``devices`` are the kinds that it runs on; ``n_side_by_side`` samples are computed at the cost of about one, so that
    blocks are multiples of it where they can be; an exclusive engine uses all threads of a process by itself, so that
    tasks take turns.
    """

    name: str
    devices: tuple[str, ...]
    n_side_by_side: int
    is_exclusive: bool
    description: str

    def load(self) -> Engine:
        """The function that integrates."""
        return cast("Engine", importlib.import_module(f"flyxr.engine.{self.name}").integrate)


ENGINES = {
    record.name: record
    for record in (
        EngineRecord("stencil", ("cpu",), 8, False, "numba, float32, the fastest on a CPU"),
        EngineRecord("sparse", ("cpu", "cuda"), 1, True, "torch, float32, on a CPU or a GPU"),
        EngineRecord("reference", ("cpu",), 1, False, "NumPy, float64 inside, slow: the truth for the others"),
    )
}
"""All engines by name; ``"auto"`` takes the first that runs on the device."""


def choose_engine(engine: str = "auto", device: str = "auto") -> tuple[str, str]:
    """Engine and device that compute; what ``"auto"`` stands for is chosen here and logged.

    Parameters
    ----------
    engine
        A name in :data:`ENGINES`, or ``"auto"``.
    device
        ``"cpu"``, ``"cuda"``, ``"cuda:1"``, …; ``"auto"`` is a GPU where there is one, unless the engine named knows
        the CPU only.

    Raises
    ------
    InputError
        A ValueError. If there is no such engine, or it does not run on the device.

    Examples
    --------
    >>> choose_engine("auto", "cpu"), choose_engine("auto", "cuda:1")
    (('stencil', 'cpu'), ('sparse', 'cuda:1'))
    """
    names = ["auto", *ENGINES]
    if engine not in names:
        raise InputError(f"expected engine {', '.join(map(repr, names[:-1]))} or {names[-1]!r}, got {engine!r}")
    able = list(ENGINES.values()) if engine == "auto" else [ENGINES[engine]]
    chosen_device = device
    if device == "auto":
        chosen_device = "cuda" if any("cuda" in record.devices for record in able) and _has_gpu() else "cpu"
    kind = str(chosen_device).partition(":")[0]
    chosen = next((record.name for record in able if kind in record.devices), None)
    if chosen is None:
        others = [record.name for record in ENGINES.values() if kind in record.devices]
        known = sorted({name for record in able for name in record.devices})
        raise InputError(
            Problem(
                f"the {engine} engine computes on the {' or '.join(known).upper()}, got device={device!r}"
                if engine != "auto"
                else f"expected device 'auto', {', '.join(map(repr, known))}, got {device!r}",
                f"use engine={others[0]!r}" if others else "",
                f"use --engine {others[0]}" if others else "",
            )
        )
    if "auto" in (engine, device):
        _log.info("engine=%r, device=%r: %s on %s", engine, device, chosen, chosen_device)
    return chosen, chosen_device


def _has_gpu() -> bool:
    """Whether torch can use a GPU; torch is only asked, and loaded, where there is a driver."""
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    import torch

    return torch.cuda.is_available()


def page() -> str:
    """The engines as a markdown page, for people."""
    lines = ["# Engines", "", "| engine | runs on | samples side by side | what it is |", "| --- | --- | --- | --- |"]
    lines += [
        f"| `{record.name}` | {', '.join(record.devices)} | {record.n_side_by_side} | {record.description} |"
        for record in ENGINES.values()
    ]
    return "\n".join([*lines, "", '`engine="auto"` takes the first that runs on the device.']) + "\n"
