"""The benchmarks of sweeps run, at a tiny size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from scripts import load_script

sweeps = load_script(Path(__file__).with_name("sweeps.py"))


@pytest.mark.parametrize(
    ("case", "n_rows"),
    [
        ("many", 1),
        ("growth", 1),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in (("throughput", 2), ("cluster", 3), ("layout", 14))),
    ],
)
def test_sweeps__measure(case: str, n_rows: int, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = sweeps.CASES[case](tmp_path, None, 1)
    assert len(rows) == n_rows
    assert all(value != 0 for row in rows for name, value in row.items() if name != "largest error")
