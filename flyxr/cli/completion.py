"""The command ``completion``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flyxr.cli import base

if TYPE_CHECKING:
    import argparse

SHELLS = ("bash", "zsh", "fish")


def add_completion(commands: base.Commands, parser: argparse.ArgumentParser) -> None:
    """Add the command ``completion``, for all commands of a parser."""
    command = base.add_command(
        commands,
        "completion",
        lambda options: print(completion_script(parser, options.shell)),
        "print a script that lets a shell complete commands, options and paths",
        example="flyxr completion bash > ~/.flyxr-completion.bash",
        description="Let your shell read it when it starts: `source <(flyxr completion bash)` in ~/.bashrc, "
        '`eval "$(flyxr completion zsh)"` in ~/.zshrc after compinit, or `flyxr completion fish | source` in '
        "~/.config/fish/config.fish.",
    )
    command.add_argument("shell", choices=SHELLS, help="shell that reads the script")


def completion_script(parser: argparse.ArgumentParser, shell: str) -> str:
    """Write the script that completes the commands of a parser in a shell."""
    import shtab

    for command in _subparsers(parser):
        for action in command._actions:
            if action.dest in command.get_default("paths"):
                action.complete = shtab.FILE  # type: ignore[attr-defined]
    return str(shtab.complete(parser, shell=shell))


def _subparsers(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    """Parsers of all commands and their parts."""
    found = []
    for action in parser._actions:
        if isinstance(action.choices, dict):
            for command in action.choices.values():
                found += [command, *_subparsers(command)]
    return found
