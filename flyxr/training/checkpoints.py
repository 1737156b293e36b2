"""Checkpoints of a training: a folder with one file per model, so that a stopped training goes on where it was."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import time
import uuid
from typing import TYPE_CHECKING, Any

from flyxr.errors import ExistsError, InputError, Problem, UnwritableError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PLAN = "training.json"
SAVE_INTERVAL = 20.0
"""Time between two checkpoints of a model, s."""
PROGRESS_INTERVAL = 1.0
"""Time between two reports of progress, s."""
BYTES_PER_MODEL = 2**20
"""Room that a model needs: two checkpoints at a time, of less than half of this each."""
FORMAT = 1


def open_folder(folder: Path, plan: Mapping[str, Any], n_models: int) -> None:
    """Make a folder for the checkpoints of a training, or find that it holds those of the same training.

    Raises
    ------
    ExistsError
        If the folder holds another training, or something else.
    UnwritableError
        If the folder cannot be written or the disk is too full.
    """
    path, wanted = folder / PLAN, {"format": FORMAT, **plan}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            others = sorted(item.name for item in folder.iterdir() if not item.name.startswith("."))
            if others:
                raise ExistsError(
                    Problem(
                        f"expected an empty folder for checkpoints, got {folder} with {others[0]}",
                        "give a new folder",
                    )
                )
        else:
            _check_same(path, wanted)
        free, needed = shutil.disk_usage(folder).free, n_models * BYTES_PER_MODEL
        if free < needed:
            text = f"expected {needed / 2**20:.0f} MiB of room for checkpoints at {folder}, got {free / 2**20:.0f} MiB"
            raise UnwritableError(Problem(text, "free some room, or give a folder on another disk"), code=errno.ENOSPC)
        _write(path, json.dumps(wanted, indent=1).encode())
    except UnwritableError:
        raise
    except ExistsError:
        raise
    except OSError as error:
        raise _unwritable(folder, error) from error


def _check_same(path: Path, wanted: Mapping[str, Any]) -> None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        differing = [name for name in wanted if found.get(name) != wanted[name]]
    except (ValueError, AttributeError):
        differing = ["everything: the file is damaged"]
    if differing:
        raise ExistsError(
            Problem(
                f"{path.parent} holds checkpoints of another training, which differs in {', '.join(differing)}",
                "give the same arguments to continue it, or a new folder",
            )
        )


def _unwritable(folder: Path, error: OSError) -> UnwritableError:
    text = f"cannot write checkpoints to {folder}: {error.strerror or error}"
    hint = "give a folder with room that you may write to; what was written is kept, and training goes on from it"
    return UnwritableError(Problem(text, hint), code=error.errno)


def _write(path: Path, content: bytes) -> None:
    """Write a file completely or not at all."""
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


class ModelFile:
    """Checkpoint and progress of one model.

    Parameters
    ----------
    folder
        Folder of the training.
    model
        Position of the model.
    """

    def __init__(self, folder: Path, model: int) -> None:
        self.path = folder / f"{model:03}.pt"
        self.progress_path = folder / f".{model:03}.progress"
        self._saved = self._reported = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """Read the last state, or None if there is none.

        Raises
        ------
        InputError
            If the file is damaged.
        """
        import pickle

        import torch

        if not self.path.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(self.path, weights_only=True)
        except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError) as error:
            raise InputError(
                Problem(f"the checkpoint {self.path} is damaged", "remove it: the model then starts again")
            ) from error
        return state

    def save(self, state: Mapping[str, Any]) -> None:
        """Write a state."""
        import torch

        buffer = io.BytesIO()
        torch.save(dict(state), buffer)
        try:
            _write(self.path, buffer.getvalue())
        except OSError as error:
            raise _unwritable(self.path.parent, error) from error
        self._saved = time.monotonic()

    def is_due(self) -> bool:
        """Whether it is time to save."""
        return time.monotonic() - self._saved > SAVE_INTERVAL

    def report(self, iteration: int, loss: float, *, force: bool = False) -> None:
        """Write iteration and loss for the progress bar, from time to time."""
        if force or time.monotonic() - self._reported > PROGRESS_INTERVAL:
            self._reported = time.monotonic()
            try:
                self.progress_path.write_text(f"{iteration} {loss:.6g}")
            except OSError:  # progress is no reason to stop
                return

    def progress(self) -> tuple[int, float]:
        """Last report; 0 and NaN if there is none."""
        try:
            iteration, loss = self.progress_path.read_text().split()
            return int(iteration), float(loss)
        except (OSError, ValueError):
            return 0, float("nan")
