"""A process may die at any file operation, and the power may go: what is opened then says what is missing.

What is opened, what it says and how it goes on is checked by ``faults.py``.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCENARIOS = ("create", "extend", "go on", "relabel", "overwrite", "mend", "save", "save over")
"""A sweep that is new, has more models and samples, was interrupted, gets other labels, replaces another, or has files
that decayed; a store that is saved, or replaces another."""

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")


def die_at_each(scenario: str, folder: Path, stride: int) -> None:
    program = Path(__file__).parent / "faults.py"
    command = [sys.executable, str(program), scenario, str(folder), str(stride)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    assert [line.partition(":")[0] for line in lines] == [f"{scenario}, {mode}" for mode in ("kill", "power")]
    for line in lines:
        n_points, n_states = map(int, line.partition(":")[2].split())
        assert n_points > 20
        assert n_states > (0 if scenario == "save" else 1)  # nothing, until it is whole


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_death__at_some_operations(tmp_path: Path, scenario: str) -> None:
    die_at_each(scenario, tmp_path, stride=5 if scenario in ("go on", "mend") else 61)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_death__at_each_operation(tmp_path: Path, scenario: str) -> None:
    die_at_each(scenario, tmp_path, stride=1)
