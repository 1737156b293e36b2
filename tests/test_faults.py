"""Stores after the death of a process at any file operation, or a loss of power.

``faults.py`` checks that opening the store reports what is missing, and that repeating the call completes it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCENARIOS = ("create", "extend", "resume", "relabel", "overwrite", "repair", "save", "save over")
"""Sweeps that create, extend, resume, relabel, replace or repair a store; new saved stores, and replacements."""

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


def run_scenario(scenario: str, folder: Path, stride: int) -> None:
    program = Path(__file__).parent / "faults.py"
    command = [sys.executable, str(program), scenario, str(folder), str(stride)]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr[-3000:]
    lines = process.stdout.splitlines()
    assert [line.partition(":")[0] for line in lines] == [f"{scenario}, {mode}" for mode in ("kill", "power")]
    for line in lines:
        n_operations, n_states = map(int, line.partition(":")[2].split())
        assert n_operations > 20
        assert n_states > (0 if scenario == "save" else 1)  # a saved store appears only when it is complete


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_death__at_some_operations(tmp_path: Path, scenario: str) -> None:
    run_scenario(scenario, tmp_path, stride=19 if scenario in ("resume", "repair") else 97)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_death__at_each_operation(tmp_path: Path, scenario: str) -> None:
    run_scenario(scenario, tmp_path, stride=1)
