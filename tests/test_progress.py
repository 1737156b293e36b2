"""Progress bars say what, how far and how long, and are silent where nobody watches."""

from __future__ import annotations

import re
import sys
import types
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import xarray as xr

import flyxr as fx
from flyxr.clustering.base import compute_by_type
from flyxr.progress import is_watched, progress_bar
from flyxr.testing import random_rendering

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CONNECTOME = fx.open_connectome(extent=1)
MODELS = fx.sample_ensemble(4, seed=0, connectome=CONNECTOME)
RENDERING = random_rendering(extent=1)
CENTRAL = xr.DataArray(np.zeros((2, 1, 1, 3)), dims=("cell_type", "model", "sample", "time"))


def verify(folder: Path) -> None:
    fx.save(MODELS, folder / "e.zarr")
    fx.catalog.publish(folder / "e.zarr", folder / "catalog.yaml")
    fx.catalog.open(folder / "catalog.yaml").open("e", verify=True)


CALLS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "save": ("write r.zarr", lambda folder: fx.save(fx.simulate(RENDERING, MODELS), folder / "r.zarr")),
    "render": (
        "write r.zarr",
        lambda folder: fx.save(
            fx.BoxEye(extent=1, kernel_size=3).render(fx.stimuli.moving_digits(n_samples=2).chunk()), folder / "r.zarr"
        ),
    ),
    "sweep": ("simulate r.zarr", lambda folder: fx.sweep(RENDERING, MODELS, folder / "r.zarr")),
    "cluster": ("cluster", lambda _: compute_by_type(CENTRAL, [(np.max,)], "cluster")),
    "verify": ("verify e", verify),
    "animate": (
        "write a.gif",
        lambda folder: fx.viz.save(fx.viz.hexmap(RENDERING.isel(sample=0), dynamic=False), folder / "a.gif"),
    ),
}


@pytest.mark.parametrize(("text", "call"), CALLS.values(), ids=CALLS)
def test_bars__say_what_and_how_far_in_a_terminal(
    text: str, call: Callable[[Path], Any], tmp_path: Path, terminal: pytest.CaptureFixture[str]
) -> None:
    call(tmp_path)
    shown = terminal.readouterr().err
    assert re.search(rf"{text}: +\d+%.*\[\d\d:\d\d<\d\d:\d\d", shown), shown


@pytest.mark.parametrize(("text", "call"), CALLS.values(), ids=CALLS)
def test_bars__are_silent_without_a_terminal(
    text: str,
    call: Callable[[Path], Any],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flyxr.progress.DELAY", 0.0)
    call(tmp_path)
    assert capfd.readouterr().err == ""


def test_bar__is_not_shown_to_those_who_do_not_want_it(terminal: pytest.CaptureFixture[str]) -> None:
    assert list(progress_bar("count", range(2), unit="number", is_wanted=False)) == [0, 1]
    assert terminal.readouterr().err == ""


def test_bar__waits_a_second(terminal: pytest.CaptureFixture[str]) -> None:
    assert list(progress_bar("count", range(2), unit="number", delay=60)) == [0, 1]
    assert "count" not in terminal.readouterr().err


def test_is_watched__in_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    shells: dict[str, Any] = {"notebook": types.SimpleNamespace(kernel=1), "console": object(), "none": None}
    watched = {}
    for name, shell in shells.items():
        ipython = types.SimpleNamespace(get_ipython=lambda shell=shell: shell)
        monkeypatch.setitem(sys.modules, "IPython", ipython)
        watched[name] = is_watched()
    assert watched == {"notebook": True, "console": False, "none": False}


def test_is_watched__without_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    assert not is_watched()
