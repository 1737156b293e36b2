"""Whether flyxr works on this machine: versions, hardware, folders, ensembles, and a simulated second."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from flyxr import downloads, ensemble, simulation, store
from flyxr.engine import ENGINES
from flyxr.engine.base import n_threads
from flyxr.errors import FlyxrError
from flyxr.stimuli import discs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LEAST_MEMORY, LEAST_DISK = 1e9, 1e9
"""Free memory and free space below which usual simulations fail, bytes."""

TIMES = (0.05, 0.3, 0.6)
"""Times of the expected responses, s."""

EXPECTED = {
    "R1": (0.33294, 0.33565, -0.22249),
    "L1": (-1.54368, -1.99552, 0.30660),
    "L2": (-0.37794, -0.41734, 0.37878),
    "Mi1": (2.30621, 0.74542, -0.15252),
    "Tm1": (-0.11984, -0.00721, 0.61316),
    "Mi9": (0.59086, -0.90727, 0.72728),
    "T4c": (1.74018, -0.35893, -1.10622),
    "T5c": (-0.22964, -0.20360, 0.59276),
}
"""Responses of the central cells at :data:`TIMES`, a.u., of the first model that flyxr ships, by ``reference``."""

TOLERANCE = 1e-4
"""Largest difference from the expected responses, a.u. Engines differ by less than 1e-6 in single precision."""

GIGABYTE = 1e9

Status = Literal["ok", "note", "wrong"]


@dataclass(frozen=True)
class Finding:
    """What was found out about one topic.

    Attributes
    ----------
    topic
        What was looked at, such as ``"memory"``.
    text
        What was found.
    status
        ``"ok"``; ``"note"`` if something optional is missing; ``"wrong"`` if something does not work.
    way_out
        What to do, if not all is well.
    """

    topic: str
    text: str
    status: Status = "ok"
    way_out: str = ""


def examine(folder: Path | None = None) -> Iterator[Finding]:
    """Examine the installation and the machine, one topic after the other.

    Parameters
    ----------
    folder
        Folder in which results will be written; default: the current one.

    Yields
    ------
    Finding
        What was found. An error of any kind is a finding, too.

    Examples
    --------
    >>> next(examine()).topic
    'versions'
    """
    folder = Path.cwd() if folder is None else folder
    topics: dict[str, Callable[[], Iterator[Finding]]] = {
        "versions": _examine_versions,
        "cores": _examine_cores,
        "memory": _examine_memory,
        "GPU": _examine_gpu,
        "disk": lambda: _examine_disk(folder),
        "cache": _examine_cache,
        "ensembles": _examine_ensembles,
        "stores": lambda: _examine_stores(folder),
        "simulation": _examine_simulations,
    }
    for topic, examine_topic in topics.items():
        try:
            yield from examine_topic()
        except FlyxrError as error:
            yield Finding(topic, str(error), "wrong")
        except Exception as error:  # whatever is broken, the other topics are examined
            way_out = "install flyxr anew with the versions in .ci/constraints.txt, or report this"
            yield Finding(topic, f"{type(error).__name__}: {error}", "wrong", way_out)


def _examine_versions() -> Iterator[Finding]:
    """Versions of the packages that flyxr needs, and the extras that are missing."""
    from packaging.requirements import Requirement

    def version(name: str) -> str | None:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return None

    try:
        requirements = [Requirement(text) for text in importlib.metadata.requires("flyxr") or ()]
    except importlib.metadata.PackageNotFoundError:
        yield Finding(
            "versions", "flyxr is not installed, but imported from a folder", "note", "pip install the folder"
        )
        return
    wrong, extras = [], dict[str, list[str]]()
    for requirement in requirements:
        installed = version(requirement.name)
        is_needed = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if is_needed and (installed is None or not requirement.specifier.contains(installed, prereleases=True)):
            wrong.append(f"{requirement.name}{requirement.specifier} is needed, got {installed or 'none'}")
        for extra in ("plot", "video", "netcdf", "s3", "gs"):
            if not is_needed and installed is None and requirement.marker.evaluate({"extra": extra}):  # type: ignore[union-attr]
                extras.setdefault(extra, []).append(requirement.name)
    shown = ", ".join(f"{name} {version(name)}" for name in ("numpy", "xarray", "zarr", "dask", "numba", "torch"))
    text = f"flyxr {version('flyxr')}, Python {platform.python_version()}, {shown}"
    if wrong:
        way_out = "pip install --upgrade these, with -c .ci/constraints.txt for versions that work together"
        yield Finding("versions", "; ".join([text, *wrong]), "wrong", way_out)
    else:
        yield Finding("versions", text)
    if extras:
        missing = ", ".join(f"{extra} ({', '.join(names)})" for extra, names in extras.items())
        way_out = f"pip install 'flyxr[{','.join(extras)}]' if you need them"
        yield Finding("extras", f"not installed: {missing}", "note", way_out)


def _examine_cores() -> Iterator[Finding]:
    yield Finding("cores", f"{n_threads()}, {platform.machine()}, {platform.system()} {platform.release()}")


def _examine_memory() -> Iterator[Finding]:
    import psutil
    from distributed.system import MEMORY_LIMIT  # respects the limit of a container

    free = min(psutil.virtual_memory().available, MEMORY_LIMIT)
    text = f"{free / GIGABYTE:.1f} GB free of {MEMORY_LIMIT / GIGABYTE:.1f} GB"
    if free < LEAST_MEMORY:
        way_out = "end other programs, or record less: record='central', and a lower memory_limit= (--memory-limit)"
        yield Finding("memory", text, "wrong", way_out)
    else:
        yield Finding("memory", text)


def _examine_gpu() -> Iterator[Finding]:
    import torch

    if torch.cuda.is_available():
        devices = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
        yield Finding("GPU", ", ".join(f"{each.name}, {each.total_memory / GIGABYTE:.0f} GB" for each in devices))
    elif shutil.which("nvidia-smi"):
        text = f"there is an NVIDIA driver, but torch {torch.__version__} cannot use it, so that the CPU is used"
        yield Finding("GPU", text, "note", "install a torch with CUDA, see https://pytorch.org/get-started")
    else:
        yield Finding("GPU", "none, the CPU is used")


def _examine_disk(folder: Path) -> Iterator[Finding]:
    free = shutil.disk_usage(folder).free
    text = f"{free / GIGABYTE:.1f} GB free in {folder}"
    if free < LEAST_DISK:
        yield Finding("disk", text, "wrong", "free some space, or write results to another disk")
    else:
        yield Finding("disk", text)


def _examine_cache() -> Iterator[Finding]:
    cache = downloads.default_cache()
    existing = next(path for path in (cache, *cache.parents) if path.is_dir())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        text = f"{existing} cannot be written: {error.strerror}"
        yield Finding("cache", text, "wrong", "make it writable, or set XDG_CACHE_HOME to another folder")
        return
    n_bytes = sum(file.stat().st_size for file in cache.rglob("*") if file.is_file())
    yield Finding("cache", f"{cache}, {n_bytes / 1e6:.0f} MB" if cache.is_dir() else f"{cache}, not there yet")


def _examine_ensembles() -> Iterator[Finding]:
    for name, named in ensemble.NAMED.items():
        if named.find().exists():
            n_models = ensemble.open_ensemble(name).sizes["model"]
            yield Finding("ensembles", f"{name}: {n_models} models, {named.title}")
        else:
            status: Status = "wrong" if name == "flyxr" else "note"  # that one is part of the package
            yield Finding("ensembles", f"{name}: not there, {named.title}", status, named.command)


def _examine_stores(folder: Path) -> Iterator[Finding]:
    """Whether a store can be written and read back."""
    flash = discs.flashes(radius=2, intensities=1, t_pre=0.02, t_stim=0.02, dt=1 / 100, extent=2)
    try:
        with tempfile.TemporaryDirectory(prefix=".flyxr-doctor-", dir=folder) as scratch:
            is_same = store.open(store.save(flash, Path(scratch, "flash.zarr"))).load().equals(flash.load())
    except OSError as error:
        way_out = "change to a folder that can be written"
        yield Finding("stores", f"{folder} cannot be written: {error.strerror or error}", "wrong", way_out)
        return
    if is_same:
        yield Finding("stores", "written and read back")
    else:
        way_out = "check the disk, and install zarr and numcodecs in the versions of .ci/constraints.txt"
        yield Finding("stores", "what was read is not what was written", "wrong", way_out)


def _examine_simulations() -> Iterator[Finding]:
    """Whether each engine computes the expected responses, on each device there is."""
    import torch

    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    for record in ENGINES.values():
        for device in (device for device in devices if device in record.devices):
            topic = f"{record.name} on {device}"
            try:
                difference = largest_difference(record.name, device)
            except Exception as error:  # an engine may fail in any way; the others are examined
                way_out = f"use another engine with engine= (--engine): {', '.join({*ENGINES} - {record.name})}"
                yield Finding(topic, f"failed with {type(error).__name__}: {error}", "wrong", way_out)
                continue
            text = f"a simulated second differs by {difference:.0e} from the expected responses, at most {TOLERANCE:g}"
            if difference <= TOLERANCE:
                yield Finding(topic, text)
            else:
                text = (
                    f"a simulated second differs by {difference:.2g} from the expected responses, above {TOLERANCE:g}"
                )
                way_out = "do not use its numbers: install the versions in .ci/constraints.txt, or report this"
                yield Finding(topic, text, "wrong", way_out)


def largest_difference(engine: str, device: str) -> float:
    """Largest difference of an engine from the expected responses to a flash, a.u.; infinite if some are NaN."""
    flash = discs.flashes(radius=6, intensities=1, t_pre=0.25, t_stim=0.5, dt=1 / 100)
    model = ensemble.open_ensemble("flyxr").isel(model=0)
    record = {"cell_type": list(EXPECTED), "column": "central"}
    options: dict[str, Any] = {"record": record, "initial_state": "steady_state", "engine": engine, "device": device}
    responses = simulation.simulate(flash, model, **options).response.isel(sample=0, column=0)
    values = responses.sel(time=list(TIMES), method="nearest").transpose("cell_type", "time").values
    difference = float(np.abs(values - np.array(list(EXPECTED.values()))).max())
    return difference if np.isfinite(difference) else np.inf
