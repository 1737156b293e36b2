"""Tests that need reference data are skipped without it, and fail if its folder is configured but missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("environment", "outcome"),
    [
        ({"CI": "true"}, "1 skipped"),
        ({"FLYXR_REFERENCE_DATA": "nowhere"}, "1 error"),
        ({"FLYXR_REFERENCE_DATA": "data"}, "1 passed"),
    ],
)
def test_reference_data__absent(tmp_path: Path, environment: dict[str, str], outcome: str) -> None:
    folder = tmp_path / "clone" / "tests"
    folder.mkdir(parents=True)
    (folder / "data").mkdir()
    shutil.copyfile(Path(__file__).with_name("conftest.py"), folder / "conftest.py")
    (folder / "test_it.py").write_text("def test_it(shared):\n    assert shared.is_dir()\n")
    inherited = {name: value for name, value in os.environ.items() if name not in ("CI", "FLYXR_REFERENCE_DATA")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py"]
    result = subprocess.run(
        command, cwd=folder, env=inherited | environment, capture_output=True, text=True, check=False
    )
    assert outcome in result.stdout
