"""A file imports only from floors below its own; files on one floor do not know each other."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "flyxr"
FLOORS = {
    "errors": -2,  # every room may import it
    "lazy": -2,
    "arguments": -1,
    "hexgrid": -1,
    "optics": -1,
    "paths": -1,
    "progress": -1,
    "schema": 0,
    "provenance": 0,
    "downloads": 0,
    "drawing": 0,
    "identity": 0,
    "engine": 0,
    "store": 1,
    "connectome": 1,
    "stimuli": 1,
    "eye": 1,
    "flyvis": 1,
    "ensemble": 2,
    "selection": 2,
    "testing": 2,
    "simulation": 3,
    "pretrained": 3,
    "sweeping": 4,
    "interchange": 4,
    "tuning": 5,
    "clustering": 5,
    "perturb": 5,
    "optimal": 5,
    "training": 5,
    "viz": 6,
    "accessor": 7,
    "notebook": 7,
    "catalog": 8,
    "bench": 8,
    "cli": 9,
}
# Files that the other files of a folder may import, lowest first; each of them may import only those before it. The
# engines share the arrays of a network. The torch engine computes gradients with the stencil (kernels, lattice,
# batches) on the CPU, and with sparse products on other devices.
SHARED: dict[str, tuple[str, ...]] = {
    "engine": ("base", "kernels", "lattice", "batches", "products"),
    "viz": (
        "colours",
        "selecting",
        "hexagons",
        "time_courses",
        "glyphs",
        "elements",
        "pictures",
        "scenes",
        "rastering",
        "printing",
        "sheet",
        "player",
        "figures",
        "columns",
        "screen",
        "courses",
        "browser_reading",
        "browser_state",
        "browser_views",
        "browser_page",
        "overview",
    ),
    "stimuli": ("recording", "base", "columns", "monitor", "values", "labelling", "decoding"),
    "eye": ("base",),
    "flyvis": ("files", "configuration", "checkpoint", "results"),
    "schema": ("records", "completion", "problems"),
    "simulation": ("record", "block", "checks"),
    "connectome": ("reading",),
    "store": (
        "places",
        "journal",
        "files",
        "metadata",
        "labels",
        "encoding",
        "ledger",
        "contents",
        "remote",
        "arrays",
        "remote_reading",
        "reading",
        "reuse",
        "manifest",
    ),
    "sweeping": ("workers", "base", "lease"),
    "catalog": ("base",),
    "cli": ("base", "inputs"),
    "bench": ("limits", "workload", "worker", "cases"),
    "training": ("readout", "indicator", "losses", "calibration", "loop", "checkpoints", "models", "checks"),
    "tuning": ("base",),
    "clustering": ("mixture", "base", "models"),
}
FILES = sorted(ROOT.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports_of(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.split(".")[0] == "flyxr"}


@pytest.mark.parametrize(
    "path", [path for path in FILES if path != ROOT / "__init__.py"], ids=lambda path: str(path.name)
)
def test_imports__point_downward(path: Path) -> None:
    room = room_of(path)
    assert room in FLOORS, f"{room} has no floor: give it the lowest one above all it imports"
    for name in imports_of(path):
        other = name.split(".")[1] if "." in name else ""
        if other == room:
            shared = SHARED.get(room, ())
            below = shared[: shared.index(path.stem)] if path.stem in shared else shared
            allowed = path.name in ("__init__.py", "__main__.py") or not {*name.split(".")[2:3]}.isdisjoint(below)
            assert allowed, f"{path.name} imports {name} beside it"
        elif other in FLOORS:
            below = FLOORS[other] < FLOORS[room]
            assert below, f"{path.name} on floor {FLOORS[room]} imports {name} on floor {FLOORS[other]}"
        else:
            assert FLOORS[room] == 9, f"{path.name} imports {name}, which has no floor"


def test_files__have_one_job() -> None:
    long = {path.name: lines for path in FILES if (lines := len(path.read_text().splitlines())) > 600}
    assert not long


def test_folders__have_a_home_for_everything() -> None:
    assert not {path.name for path in ROOT.rglob("*") if path.stem in {"utils", "helpers", "common", "misc"}}
