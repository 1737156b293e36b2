"""Errors and warnings of flyxr. Messages say what was expected, what was given, and how to fix it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable


class Problem(NamedTuple):
    """A problem and its solution.

    ``text`` says what was expected and what was given. ``hint`` names the call that helps. ``command`` is the hint for
    users of the command line, if it differs.
    """

    text: str
    hint: str = ""
    command: str = ""

    def __str__(self) -> str:
        return self.line()

    def line(self, *, command_line: bool = False) -> str:
        """Format the problem with its hint, for Python or for the command line.

        Examples
        --------
        >>> problem = Problem("r.zarr exists", "pass overwrite=True", "add --overwrite")
        >>> problem.line(), problem.line(command_line=True)
        ('r.zarr exists: pass overwrite=True', 'r.zarr exists: add --overwrite')
        """
        hint = self.command if command_line and self.command else self.hint
        return f"{self.text}: {hint}" if hint else self.text


class _ProblemReport(Exception):
    """Base of errors and warnings: a list of problems, with an optional heading."""

    def __init__(self, *problems: str | Problem, heading: str = "") -> None:
        super().__init__(*problems)
        self.problems = problems
        self.heading = heading

    def __str__(self) -> str:
        return self.message()

    def message(self, *, command_line: bool = False) -> str:
        """Format all problems with their hints, for Python or for the command line."""
        lines = [
            problem.line(command_line=command_line) if isinstance(problem, Problem) else str(problem)
            for problem in self.problems
        ]
        return "\n- ".join([f"{self.heading}:", *lines]) if self.heading else "; ".join(lines)


class FlyxrError(_ProblemReport):
    """Base of all errors about invalid arguments, data or results.

    Each subclass also derives from the built-in exception that users would catch. Any other exception comes from the
    system, or is a bug in flyxr.

    Examples
    --------
    >>> str(InputError(Problem("expected dt above 0 s, got 0", "e.g. dt=1/100")))
    'expected dt above 0 s, got 0: e.g. dt=1/100'
    """


class InputError(FlyxrError, ValueError):
    """An argument has an invalid value."""


class MissingError(FlyxrError, FileNotFoundError):
    """A path does not exist."""


class ExistsError(FlyxrError, FileExistsError):
    """A path that is to be written already exists."""


class UnwritableError(FlyxrError, OSError):
    """A path cannot be written; ``errno`` is the error number of the system."""

    def __init__(self, *problems: str | Problem, heading: str = "", code: int | None = None) -> None:
        super().__init__(*problems, heading=heading)
        self.code = code

    @property
    def errno(self) -> int | None:  # type: ignore[override]
        """Error number of the system; unlike that of an OSError, it survives pickling."""
        return self.code


class DownloadError(FlyxrError, ConnectionError):
    """A file cannot be downloaded."""


class DependencyError(FlyxrError, ImportError):
    """A required package is not installed."""


class FlyxrWarning(_ProblemReport, UserWarning):
    """Something may not be as the user expects; the message says what, and how to fix it."""


def raise_problems(error: type[FlyxrError], heading: str, problems: Iterable[str | Problem]) -> None:
    """Raise one error that lists all problems, if there are any.

    Parameters
    ----------
    error
        Class of the error.
    heading
        Summary, followed by one line per problem. If empty, the problems are joined in one line.
    problems
        Texts, or problems with hints.

    Examples
    --------
    >>> raise_problems(InputError, "cannot cluster", [])
    >>> raise_problems(InputError, "cannot cluster", ["expected seeds from 0 up, got -1"])
    Traceback (most recent call last):
        ...
    flyxr.errors.InputError: cannot cluster:
    - expected seeds from 0 up, got -1
    """
    problems = list(problems)
    if problems:
        raise error(*problems, heading=heading)
