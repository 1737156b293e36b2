"""Let a process die at each file operation of a call in turn, and look at what it leaves.

Run as a program, since what it watches file operations with cannot be taken off again:
``python tests/faults.py SCENARIO FOLDER [STRIDE]`` prints how many points there were, and how many states of the store
they left, for each mode; or what went wrong at one.

An operation is whatever changes files: opening one to write, renaming, removing, making a folder, waiting for the disk.
At the chosen one, and at all that come after it, ``Death`` is raised instead, so that no clean-up reaches the disk.
In the mode ``power`` all that was written and not waited for is cut in half, as after a loss of power. A state of the
store that was looked at before is not looked at again.
"""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import threading
import warnings
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import xarray as xr

sys.path.insert(0, str(Path(__file__).parent))

import test_sweep as tiny

import flyxr as fx
from flyxr import errors, identity
from flyxr.store import ledger
from flyxr.sweep import SweepMismatchError

if TYPE_CHECKING:
    from collections.abc import Callable

WRITING = os.O_WRONLY | os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_TRUNC
EVENTS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link"}
plan = importlib.import_module("flyxr.sweep.plan")


class Death(BaseException):
    """The process is no more."""


class Disk:
    """Counts operations below a folder, dies at one of them, and knows what is not on the disk yet."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.lock, self.thread = str(folder), threading.RLock(), threading.get_ident()
        self.is_watching, self.count, self.last = False, 0, None
        self.unsynced: dict[str, int] = {}
        self.sync = os.fsync
        sys.addaudithook(self.hook)
        os.fsync = self.fsync

    def watch(self, last: int | None) -> None:
        self.is_watching, self.count, self.last = True, 0, last
        self.unsynced = {}

    def operation(self) -> None:
        self.count += 1
        if self.last is not None and self.count > self.last:
            raise Death

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.is_watching or (event != "open" and event not in EVENTS):
            return
        path = arguments[0]
        if not isinstance(path, str | os.PathLike):
            return
        path = os.fspath(path)
        if event in ("os.remove", "os.rmdir") and arguments[1] >= 0:  # as shutil.rmtree names what it removes
            path = f"{os.readlink(f'/proc/self/fd/{arguments[1]}')}/{path}"
        if not path.startswith(self.folder):
            return
        with self.lock:
            if event == "open":
                mode, flags = arguments[1], arguments[2] or 0
                if flags & WRITING or (isinstance(mode, str) and set(mode) & set("wa+x")):
                    self.operation()
                    if not path.endswith(".lock"):
                        size = os.path.getsize(path) if os.path.exists(path) and flags & os.O_APPEND else 0
                        self.unsynced.setdefault(path, size)
                return
            self.operation()
            if event == "os.rename":
                target = os.fspath(arguments[1])
                for old in list(self.unsynced):
                    if old == path or old.startswith(path + "/"):
                        self.unsynced[target + old[len(path) :]] = self.unsynced.pop(old)

    def fsync(self, handle: int) -> None:
        path = os.readlink(f"/proc/self/fd/{handle}")
        with self.lock:
            if self.is_watching and path.startswith(self.folder):
                self.operation()
                self.unsynced.pop(path, None)
        # Waiting for this disk would show nothing.

    def lose_power(self) -> None:
        """Cut what was not waited for in half."""
        self.is_watching = False
        for path, kept in self.unsynced.items():
            if os.path.isfile(path):
                size = os.path.getsize(path)
                os.truncate(path, kept + (max(size, kept) - kept) // 2)


def data(n_samples: int) -> xr.Dataset:
    return tiny.rendering(n_samples)


def sweep(path: Path, n_models: int, n_samples: int, **options: Any) -> xr.Dataset:
    rendering = options.pop("rendering", None)
    return tiny.sweep(path, data(n_samples) if rendering is None else rendering, tiny.ensemble(n_models), **options)


OTHER_ANGLES = {"angle": ("sample", np.arange(5) * 7.0)}
BEFORE: dict[str, Callable[[Path], Any] | None] = {
    "create": None,
    "extend": lambda path: sweep(path, 2, 3),
    "go on": lambda path: interrupted(path),
    "relabel": lambda path: sweep(path, 3, 5),
    "overwrite": lambda path: sweep(path, 2, 3),
    "mend": lambda path: damaged(path),
    "save": None,
    "save over": lambda path: fx.save(data(3), path),
}
CALLS: dict[str, Callable[[Path], Any]] = {
    "create": lambda path: sweep(path, 2, 3),
    "extend": lambda path: sweep(path, 3, 5),
    "go on": lambda path: sweep(path, 3, 5),
    "relabel": lambda path: sweep(path, 3, 5, rendering=data(5).assign_coords(OTHER_ANGLES), relabel=True),
    "overwrite": lambda path: sweep(path, 2, 3, initial_state="rest", overwrite=True),
    "mend": lambda path: sweep(path, 3, 5, verify=True),
    "save": lambda path: fx.save(data(5), path),
    "save over": lambda path: fx.save(data(5), path, overwrite=True),
}
AGAIN = {
    "overwrite": lambda path: sweep(path, 2, 3, initial_state="rest"),
    "save": lambda path: path if path.exists() else fx.save(data(5), path),
}


def interrupted(path: Path) -> None:
    base = importlib.import_module("flyxr.sweep.base")
    original, calls = base.run_block, []

    def failing(*given: Any) -> Any:
        calls.append(1)
        if len(calls) > 3:
            raise OSError(28, "No space left on device")
        return original(*given)

    base.run_block = failing
    try:
        sweep(path, 3, 5)
    except OSError:
        pass
    finally:
        base.run_block = original


def damaged(path: Path) -> None:
    sweep(path, 3, 5)
    tiny.corrupt(path / "response/c/1/1/0/0/0", keep_time=True)
    (path / "luminance/c/2/0/0").unlink()


def opened(path: Path) -> tuple[xr.Dataset, list[str]]:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        return fx.open(path), [str(one.message) for one in told if issubclass(one.category, errors.FlyxrWarning)]


def check(path: Path, scenario: str, old: xr.Dataset | None, new: xr.Dataset) -> None:
    """Raise AssertionError if what is at the path says something that is not so."""
    if not path.exists():
        with pytest.raises(errors.MissingError, match=None if old is None else "being replaced when the process ended"):
            fx.open(path)
        assert old is None or fx.open(next(path.parent.glob("r.zarr.partial-*/replaced"))).load().identical(old)
        return
    found, told = opened(path)
    if scenario.startswith("save"):
        assert not told, told
        assert found.load().identical(new) or (old is not None and found.load().identical(old)), "half of a store"
        return
    status = fx.sweep_status(path)
    assert dict(status.sizes) == {dim: found.sizes[dim] for dim in ("model", "sample")}
    for coord in status.coords:
        assert status[coord].variable.identical(found[coord].variable), f"{coord} of status and store differ"
    truths = [truth for truth in (old, new) if truth is not None]
    labels = [set_of_labels(truth) for truth in truths]
    assert set_of_labels(found) in labels, "labels of neither"
    alike = [truth for truth, known in zip(truths, labels, strict=True) if known == set_of_labels(found)]
    missing = 0
    for model in range(found.sizes["model"]):
        for sample in range(found.sizes["sample"]):
            there = found.response[model, sample]
            is_done = bool(status.done[model, sample])
            try:
                values = there.values
            except fx.store.StoreError:
                # What decayed in silence is found when it is read.
                assert not is_done or scenario == "mend", "a response that is done cannot be read"
                missing += not is_done
                continue
            if np.isnan(values).all():
                assert not is_done, "a response that is done is NaN"
                missing += 1
            else:
                assert any(np.array_equal(values, truth.response[model, sample]) for truth in alike), "other numbers"
    assert not missing or told, "responses are missing, and opening says nothing"
    assert not (missing and status.attrs["complete"]), "complete, and responses are missing"
    assert status.attrs["complete"] == (not told), (status.attrs, told)


def set_of_labels(found: xr.Dataset) -> str:
    coords = {name: (coord.dims, coord.values.tolist(), coord.attrs) for name, coord in found.coords.items()}
    return repr(sorted(coords.items()))


def state_of(path: Path) -> str:
    """All that is to be seen at the path, whatever names zarr gives to files that are not whole yet."""
    files = [file for file in sorted(path.rglob("*")) if file.is_file() and file.suffix != ".lock"]
    seen = [(file.name if file.suffix != ".partial" else "", identity.content_digest(file)) for file in files]
    return repr([*seen, sorted(folder.name for folder in path.parent.glob("*/replaced"))])


def run(scenario: str, folder: Path, stride: int) -> None:
    """Die at each point, in both modes."""
    plan.BLOCK_SAMPLES = 2
    call, before = CALLS[scenario], BEFORE[scenario]
    path, kept = folder / "work" / "r.zarr", folder / "kept" / "r.zarr"
    path.parent.mkdir(parents=True)
    old = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if before is not None:
            before(kept)
            shutil.copytree(kept, path)
            old = fx.open(kept).load() if scenario not in ("go on", "mend") else None
        call(path)
    new = fx.open(path).load()
    if old is None and before is not None:
        old = new
    disk = Disk(path.parent)
    for mode in ("kill", "power"):
        point, seen = 0, set()
        while True:
            renew(path, kept if before is not None else None)
            if not dies(disk, point, lambda: call(path), mode):
                break
            if (state := state_of(path)) not in seen:
                seen.add(state)
                try:
                    check(path, scenario, old, new)
                    check_way_on(path, scenario, old, new)
                except BaseException as error:
                    at = f"{scenario}, {mode}, at operation {point}"
                    raise AssertionError(f"{at}: {type(error).__name__}: {error}") from error
            point += stride
        sys.stdout.write(f"{scenario}, {mode}: {point} {len(seen)}\n")


def renew(path: Path, kept: Path | None) -> None:
    """Put the folder back to what it was before the call."""
    while path.parent.exists():  # threads of the dead may still be at it
        shutil.rmtree(path.parent, ignore_errors=True)
    path.parent.mkdir()
    if kept is not None:
        shutil.copytree(kept, path)


def dies(disk: Disk, point: int, call: Callable[[], Any], mode: str) -> bool:
    """Make a call that dies at an operation; whether it did."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        disk.watch(point)
        try:
            call()
        except Death:
            disk.is_watching = False
            if mode == "power":
                disk.lose_power()
            return True
        disk.is_watching = False
        return False


def check_way_on(path: Path, scenario: str, old: xr.Dataset | None, new: xr.Dataset) -> None:
    """Raise AssertionError if the same call again does not lead to what it would have led to undisturbed."""
    if scenario == "save over" or (not path.exists() and old is not None):
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if scenario == "extend":
            with suppress(SweepMismatchError):
                assert sweep(path, 2, 3).load().identical(old), "the first call gives something else"
        if scenario == "overwrite" and ledger.store_id(path) == ledger.store_id(path.parents[1] / "kept" / "r.zarr"):
            return  # nothing is replaced yet
        AGAIN.get(scenario, CALLS[scenario])(path)
    final, told = opened(path)
    assert not told, told
    xr.testing.assert_identical(final.load(), new)
    assert not list(path.rglob("*.partial"))


if __name__ == "__main__":
    run(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 1)
