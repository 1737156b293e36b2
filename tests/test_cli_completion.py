"""Scripts that let shells complete commands, options and paths."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from flyxr import cli
from flyxr.cli.completion import SHELLS

if TYPE_CHECKING:
    from pathlib import Path

CASES = [
    ("flyxr si", ["simulate"]),
    ("flyxr stimulus fl", ["flashes"]),
    ("flyxr simulate --initial-s", ["--initial-state"]),
    ("flyxr simulate --initial-state st", ["steady_state"]),
    ("flyxr info resp", ["responses.zarr"]),
    ("flyxr completion b", ["bash"]),
]


def write_script(shell: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert cli.main(["completion", shell]) == 0
    path = folder / "script"
    path.write_text(capsys.readouterr().out)
    (folder / "responses.zarr").mkdir()
    return path


@pytest.mark.parametrize(("line", "expected"), CASES)
def test_completion__in_bash(
    line: str, expected: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if shutil.which("bash") is None:
        pytest.skip("no bash")
    write_script("bash", tmp_path, capsys)
    words = line.split()
    program = f"""
        source ./script
        complete -p flyxr >/dev/null || exit 1
        COMP_WORDS=({line}) COMP_CWORD={len(words) - 1}
        _shtab_flyxr flyxr {words[-1]} {words[-2]}
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    run = subprocess.run(["bash", "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert run.stdout.split() == expected


@pytest.mark.parametrize(("line", "expected"), CASES)
def test_completion__in_fish(
    line: str, expected: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if shutil.which("fish") is None:
        pytest.skip("no fish")
    write_script("fish", tmp_path, capsys)
    program = f"source ./script; complete -C '{line}'"
    run = subprocess.run(["fish", "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert [text.split("\t")[0].rstrip("/") for text in run.stdout.splitlines()] == expected


def test_completion__in_zsh(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if shutil.which("zsh") is None:
        pytest.skip("no zsh")
    write_script("zsh", tmp_path, capsys)
    program = 'autoload -U compinit; compinit -u -D; eval "$(cat script)"; echo $_comps[flyxr]'
    run = subprocess.run(["zsh", "-f", "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "_shtab_flyxr"


@pytest.mark.parametrize("shell", SHELLS)
def test_completion__knows_all_commands(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", shell]) == 0
    script = capsys.readouterr().out
    (commands,) = (action.choices for action in cli.build_parser()._actions if isinstance(action.choices, dict))
    for command in commands:
        assert command in script
