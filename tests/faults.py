"""Kill a call at each of its file operations in turn, and check what it leaves behind.

It is a program, since audit hooks cannot be removed: ``python tests/faults.py SCENARIO FOLDER [STRIDE]`` prints the
number of operations, and of distinct states of the store that they leave, for each mode; or the first failure.

An operation is anything that changes files: opening one to write, renaming, removing, creating a folder, syncing. The
chosen one and all later ones raise ``Death``, so that no clean-up reaches the disk. In the mode ``power`` all unsynced
data is cut in half, as after a loss of power. Each state of the store is checked once.
"""

from __future__ import annotations

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

import flyxr as fx
from flyxr import errors, identity
from flyxr.store.ledger import store_id
from flyxr.sweeping import SweepMismatchError
from flyxr.testing import corrupt_file, failing_engine, noise_rendering, tiny_connectome

if TYPE_CHECKING:
    from collections.abc import Callable

WRITING = os.O_WRONLY | os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_TRUNC
EVENTS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link"}
CONNECTOME = tiny_connectome(extent=2)


class Death(BaseException):
    """Stands for the death of the process."""


class Disk:
    """Counts operations below a folder, raises at one of them, and keeps track of unsynced files."""

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
        if event in ("os.remove", "os.rmdir") and arguments[1] >= 0:  # shutil.rmtree passes a descriptor of the folder
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
        # A real sync would only take time.

    def lose_power(self) -> None:
        """Cut unsynced data in half."""
        self.is_watching = False
        for path, kept in self.unsynced.items():
            if os.path.isfile(path):
                size = os.path.getsize(path)
                os.truncate(path, kept + (max(size, kept) - kept) // 2)


def sweep(
    path: Path, n_models: int, n_samples: int, *, rendering: xr.Dataset | None = None, **options: Any
) -> xr.Dataset:
    rendering = noise_rendering(n_samples) if rendering is None else rendering
    ensemble = fx.sample_ensemble(n_models, seed=0, connectome=CONNECTOME)
    options |= {"connectome": CONNECTOME, "device": "cpu", "block_samples": 2, "progress": False}
    responses = fx.sweep(rendering, ensemble, path, **options)
    assert isinstance(responses, xr.Dataset)
    return responses


OTHER_ANGLES = {"angle": ("sample", np.arange(5) * 7.0)}
PREPARE: dict[str, Callable[[Path], Any] | None] = {
    "create": None,
    "extend": lambda path: sweep(path, 2, 3),
    "resume": lambda path: interrupt_sweep(path),
    "relabel": lambda path: sweep(path, 3, 5),
    "overwrite": lambda path: sweep(path, 2, 3),
    "repair": lambda path: damage_sweep(path),
    "save": None,
    "save over": lambda path: fx.save(noise_rendering(3), path),
}
CALLS: dict[str, Callable[[Path], Any]] = {
    "create": lambda path: sweep(path, 2, 3),
    "extend": lambda path: sweep(path, 3, 5),
    "resume": lambda path: sweep(path, 3, 5),
    "relabel": lambda path: sweep(path, 3, 5, rendering=noise_rendering(5).assign_coords(OTHER_ANGLES), relabel=True),
    "overwrite": lambda path: sweep(path, 2, 3, initial_state="rest", overwrite=True),
    "repair": lambda path: sweep(path, 3, 5, verify=True),
    "save": lambda path: fx.save(noise_rendering(5), path),
    "save over": lambda path: fx.save(noise_rendering(5), path, overwrite=True),
}
REPEAT = {
    "overwrite": lambda path: sweep(path, 2, 3, initial_state="rest"),
    "save": lambda path: path if path.exists() else fx.save(noise_rendering(5), path),
}


def interrupt_sweep(path: Path) -> None:
    with failing_engine(3, OSError(28, "No space left on device")), suppress(OSError):
        sweep(path, 3, 5)


def damage_sweep(path: Path) -> None:
    sweep(path, 3, 5)
    corrupt_file(path / "response/c/1/1/0/0/0", keep_time=True)
    (path / "luminance/c/2/0/0").unlink()


def open_with_warnings(path: Path) -> tuple[xr.Dataset, list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        dataset = fx.open(path)
    return dataset, [str(record.message) for record in caught if issubclass(record.category, errors.FlyxrWarning)]


def check(path: Path, scenario: str, old: xr.Dataset | None, new: xr.Dataset) -> None:
    """Raise AssertionError if the store at the path is wrong about its content."""
    if not path.exists():
        with pytest.raises(
            errors.MissingError, match=None if old is None else "the process that was replacing it ended"
        ):
            fx.open(path)
        assert old is None or fx.open(next(path.parent.glob("r.zarr.partial-*/replaced"))).load().identical(old)
        return
    dataset, messages = open_with_warnings(path)
    if scenario.startswith("save"):
        assert not messages, messages
        assert dataset.load().identical(new) or (old is not None and dataset.load().identical(old)), "partial store"
        return
    status = fx.sweep_status(path)
    assert dict(status.sizes) == {dim: dataset.sizes[dim] for dim in ("model", "sample")}
    for coord in status.coords:
        assert status[coord].variable.identical(dataset[coord].variable), f"{coord} of status and store differ"
    labels = label_text(dataset)
    references = [reference for reference in (old, new) if reference is not None and label_text(reference) == labels]
    assert references, "the labels are neither the old nor the new ones"
    n_missing = 0
    for model in range(dataset.sizes["model"]):
        for sample in range(dataset.sizes["sample"]):
            is_done = bool(status.done[model, sample])
            try:
                values = dataset.response[model, sample].values
            except fx.store.StoreError:
                # Silent corruption is found on reading.
                assert not is_done or scenario == "repair", "a response that is done cannot be read"
                n_missing += not is_done
                continue
            if np.isnan(values).all():
                assert not is_done, "a response that is done is NaN"
                n_missing += 1
            else:
                expected = [reference.response[model, sample] for reference in references]
                assert any(np.array_equal(values, response) for response in expected), "other numbers"
    assert not n_missing or messages, "responses are missing, and opening does not warn"
    assert not (n_missing and status.attrs["complete"]), "complete, but responses are missing"
    assert status.attrs["complete"] == (not messages), (status.attrs, messages)


def label_text(dataset: xr.Dataset) -> str:
    coords = {name: (coord.dims, coord.values.tolist(), coord.attrs) for name, coord in dataset.coords.items()}
    return repr(sorted(coords.items()))


def store_state(path: Path) -> str:
    """Names and digests of all files, except for the random names of partial ones."""
    files = [file for file in sorted(path.rglob("*")) if file.is_file() and file.suffix != ".lock"]
    digests = [(file.name if file.suffix != ".partial" else "", identity.content_digest(file)) for file in files]
    return repr([*digests, sorted(folder.name for folder in path.parent.glob("*/replaced"))])


def run(scenario: str, folder: Path, stride: int) -> None:
    """Die at every ``stride``-th operation, in both modes."""
    call, prepare = CALLS[scenario], PREPARE[scenario]
    path, initial = folder / "work" / "r.zarr", folder / "initial" / "r.zarr"
    path.parent.mkdir(parents=True)
    old = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if prepare is not None:
            prepare(initial)
            shutil.copytree(initial, path)
            old = fx.open(initial).load() if scenario not in ("resume", "repair") else None
        call(path)
    new = fx.open(path).load()
    if old is None and prepare is not None:
        old = new
    disk = Disk(path.parent)
    for mode in ("kill", "power"):
        operation, states = 0, set()
        while True:
            restore(path, initial if prepare is not None else None)
            if not dies(disk, operation, lambda: call(path), mode):
                break
            if (state := store_state(path)) not in states:
                states.add(state)
                try:
                    check(path, scenario, old, new)
                    check_repeat(path, scenario, old, new)
                except BaseException as error:
                    case = f"{scenario}, {mode}, at operation {operation}"
                    raise AssertionError(f"{case}: {type(error).__name__}: {error}") from error
            operation += stride
        sys.stdout.write(f"{scenario}, {mode}: {operation} {len(states)}\n")


def restore(path: Path, initial: Path | None) -> None:
    """Restore the folder as it was before the call."""
    while path.parent.exists():  # threads of the dead call may still write
        shutil.rmtree(path.parent, ignore_errors=True)
    path.parent.mkdir()
    if initial is not None:
        shutil.copytree(initial, path)


def dies(disk: Disk, operation: int, call: Callable[[], Any], mode: str) -> bool:
    """Make a call that dies at an operation; return False if it ends before."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        disk.watch(operation)
        try:
            call()
        except Death:
            disk.is_watching = False
            if mode == "power":
                disk.lose_power()
            return True
        disk.is_watching = False
        return False


def check_repeat(path: Path, scenario: str, old: xr.Dataset | None, new: xr.Dataset) -> None:
    """Raise AssertionError if repeating the call does not give the same store as an undisturbed call."""
    if scenario == "save over" or (not path.exists() and old is not None):
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if scenario == "extend":
            with suppress(SweepMismatchError):
                assert sweep(path, 2, 3).load().identical(old), "the first call gives another result"
        if scenario == "overwrite" and store_id(path) == store_id(path.parents[1] / "initial" / "r.zarr"):
            return  # the old store is not replaced yet
        REPEAT.get(scenario, CALLS[scenario])(path)
    dataset, messages = open_with_warnings(path)
    assert not messages, messages
    xr.testing.assert_identical(dataset.load(), new)
    assert not list(path.rglob("*.partial"))


if __name__ == "__main__":
    run(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 1)
