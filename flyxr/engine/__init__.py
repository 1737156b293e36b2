"""Integrators of networks, and a registry of them.

An engine is a module of this folder with a function ``integrate`` and a class ``Stepper`` (see
:class:`flyxr.engine.base.Engine` and :class:`flyxr.engine.base.Stepper`), and a record in :data:`ENGINES`. Functions,
the command line and the documentation read the records.
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
    from flyxr.engine.base import Engine, Stepper

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EngineRecord:
    """Description of an engine, available without importing it.

    Attributes
    ----------
    name
        Name of the engine and of its module.
    devices
        Types of device that it runs on.
    batch_size
        Number of samples that it computes together most efficiently. Blocks of samples are multiples of it where
        possible.
    is_exclusive
        Whether it uses all threads of a process by itself, so that tasks must take turns.
    description
        One line for people.
    """

    name: str
    devices: tuple[str, ...]
    batch_size: int
    is_exclusive: bool
    description: str

    def load(self) -> Engine:
        """Import the engine and return its function ``integrate``."""
        return cast("Engine", importlib.import_module(f"flyxr.engine.{self.name}").integrate)

    def load_stepper(self) -> type[Stepper]:
        """Import the engine and return its class ``Stepper``."""
        return cast("type[Stepper]", importlib.import_module(f"flyxr.engine.{self.name}").Stepper)


ENGINES = {
    record.name: record
    for record in (
        EngineRecord("stencil", ("cpu",), 8, False, "numba, float32, the fastest on a CPU"),
        EngineRecord("sparse", ("cpu", "cuda"), 1, True, "torch, float32, on a CPU or a GPU"),
        EngineRecord("reference", ("cpu",), 1, False, "NumPy, float64 inside, slow: the reference for the others"),
    )
}
"""All engines by name; ``"auto"`` is the first that runs on the device. Another record may be added."""


def choose_engine(engine: str = "auto", device: str = "auto", *, has_gpu: bool | None = None) -> tuple[str, str]:
    """Choose an engine and a device; the choice for ``"auto"`` is logged.

    Parameters
    ----------
    engine
        A name in :data:`ENGINES`, or ``"auto"``.
    device
        ``"cpu"``, ``"cuda"``, ``"cuda:1"``, …; ``"auto"`` is a GPU if there is one and the engine supports it, and the
        CPU otherwise.
    has_gpu
        Whether torch can use a GPU. By default torch is asked.

    Returns
    -------
    engine, device : str
        Neither is ``"auto"``.

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
    candidates = list(ENGINES.values()) if engine == "auto" else [ENGINES[engine]]
    chosen_device = device
    if device == "auto":
        supports_gpu = any("cuda" in record.devices for record in candidates)
        chosen_device = "cuda" if supports_gpu and (_has_gpu() if has_gpu is None else has_gpu) else "cpu"
    device_type = str(chosen_device).partition(":")[0]
    chosen = next((record.name for record in candidates if device_type in record.devices), None)
    if chosen is None:
        alternatives = [record.name for record in ENGINES.values() if device_type in record.devices]
        supported = sorted({name for record in candidates for name in record.devices})
        raise InputError(
            Problem(
                f"the {engine} engine computes on the {' or '.join(supported).upper()}, got device={device!r}"
                if engine != "auto"
                else f"expected device 'auto', {', '.join(map(repr, supported))}, got {device!r}",
                f"use engine={alternatives[0]!r}" if alternatives else "",
                f"use --engine {alternatives[0]}" if alternatives else "",
            )
        )
    if "auto" in (engine, device):
        _log.info("engine=%r, device=%r: %s on %s", engine, device, chosen, chosen_device)
    return chosen, chosen_device


def _has_gpu() -> bool:
    """Ask whether torch can use a GPU; torch is imported only if there is a driver."""
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    import torch

    return torch.cuda.is_available()


def markdown_page() -> str:
    """Describe the engines on a page for the documentation."""
    lines = ["# Engines", "", "| engine | runs on | batch size | description |", "| --- | --- | --- | --- |"]
    lines += [
        f"| `{record.name}` | {', '.join(record.devices)} | {record.batch_size} | {record.description} |"
        for record in ENGINES.values()
    ]
    lines += ["", '`engine="auto"` chooses the first engine that runs on the device.']
    lines += ["The batch size is the number of samples that an engine computes together most efficiently."]
    return "\n".join(lines) + "\n"
