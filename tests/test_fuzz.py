"""A few cases of ``fuzz.py``, which opens damaged files: they are read or raise an error of flyxr."""

from __future__ import annotations

from typing import TYPE_CHECKING

import fuzz
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

N_CASES = {"stores": 24, "zipped-stores": 15, "catalogs": 60, "zips": 30, "checkpoints": 60, "videos": 80}


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, list[Path]]]:
    """Valid inputs of each kind."""
    pytest.importorskip("av")
    folders = {name: tmp_path_factory.mktemp(name) for name in fuzz.KINDS}
    return {name: kind.make(folders[name]) for name, kind in fuzz.KINDS.items()}


@pytest.mark.parametrize("name", fuzz.KINDS)
def test_damaged_files__are_read_or_refused(name: str, valid: dict[str, list[Path]], tmp_path: Path) -> None:
    outcomes = [fuzz.run_case(fuzz.KINDS[name], valid[name], 1, case, tmp_path) for case in range(N_CASES[name])]
    assert [outcome for outcome in outcomes if outcome.startswith("FINDING")] == []
    assert sum(not outcome.startswith("read") for outcome in outcomes) > N_CASES[name] // 3


@pytest.mark.parametrize("name", fuzz.KINDS)
def test_valid_files__are_read(name: str, valid: dict[str, list[Path]], tmp_path: Path) -> None:
    undamaged = fuzz.KINDS[name]._replace(damage=lambda path, rng: None)
    outcomes = [fuzz.run_case(undamaged, [path], 0, case, tmp_path) for case, path in enumerate(valid[name])]
    assert {outcome.split()[0] for outcome in outcomes} == {"read"}


def test_run_case__finds_what_is_not_ours(valid: dict[str, list[Path]], tmp_path: Path) -> None:
    def fail(path: Path, rng: object) -> None:
        raise ZeroDivisionError("of a library")

    def write_beside(path: Path, rng: object) -> None:
        (path.parent / "another").touch()

    kind = fuzz.KINDS["videos"]
    assert "ZeroDivisionError" in fuzz.run_case(kind._replace(use=fail), valid["videos"], 0, 0, tmp_path)
    assert "beside" in fuzz.run_case(kind._replace(use=write_beside), valid["videos"], 0, 1, tmp_path)
