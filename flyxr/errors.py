"""The errors and warnings of flyxr: what was expected, what came, and the way out, in Python or on the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable


class Problem(NamedTuple):
    """One thing that is wrong.

    ``text`` says what was expected and what came, ``hint`` the call that helps, and ``command`` the same for somebody
    at the command line; without it the hint is good for both.
    """

    text: str
    hint: str = ""
    command: str = ""

    def __str__(self) -> str:
        return self.line()

    def line(self, *, command_line: bool = False) -> str:
        """The problem and its way out, in Python or on the command line.

        Examples
        --------
        >>> problem = Problem("r.zarr exists", "pass overwrite=True", "add --overwrite")
        >>> problem.line(), problem.line(command_line=True)
        ('r.zarr exists: pass overwrite=True', 'r.zarr exists: add --overwrite')
        """
        hint = self.command if command_line and self.command else self.hint
        return f"{self.text}: {hint}" if hint else self.text


class _Told(Exception):
    """What errors and warnings share: problems, each with its way out, below a heading if there is one."""

    def __init__(self, *problems: str | Problem, heading: str = "") -> None:
        super().__init__(*problems)
        self.problems = problems
        self.heading = heading

    def __str__(self) -> str:
        return self.message()

    def message(self, *, command_line: bool = False) -> str:
        """All problems as text, with the ways out in Python or on the command line."""
        lines = [
            problem.line(command_line=command_line) if isinstance(problem, Problem) else str(problem)
            for problem in self.problems
        ]
        return "\n- ".join([f"{self.heading}:", *lines]) if self.heading else "; ".join(lines)


class FlyxrError(_Told):
    """Base of all errors that say what is wrong with what was given, found or computed.

    Each is also of the built-in kind that people catch. An error that is no FlyxrError is one of the system, or a
    defect of flyxr.

    Examples
    --------
    >>> str(InputError(Problem("expected dt above 0 s, got 0", "e.g. dt=1/100")))
    'expected dt above 0 s, got 0: e.g. dt=1/100'
    """


class InputError(FlyxrError, ValueError):
    """An argument is none of those that are possible."""


class MissingError(FlyxrError, FileNotFoundError):
    """There is nothing at a path."""


class ExistsError(FlyxrError, FileExistsError):
    """Something lies at a path that is to be written."""


class UnwritableError(FlyxrError, OSError):
    """A path cannot be written; ``errno`` is that of the system."""

    def __init__(self, *problems: str | Problem, heading: str = "", code: int | None = None) -> None:
        super().__init__(*problems, heading=heading)
        self.code = code

    @property
    def errno(self) -> int | None:  # type: ignore[override]
        """Number of the error; that of an OSError is lost when it is pickled."""
        return self.code


class DownloadError(FlyxrError, ConnectionError):
    """A file cannot be downloaded."""


class DependencyError(FlyxrError, ImportError):
    """A package is needed that is not installed."""


class FlyxrWarning(_Told, UserWarning):
    """Something is not as people may think it is; the message says what, and the way out."""


def raise_problems(error: type[FlyxrError], heading: str, problems: Iterable[str | Problem]) -> None:
    """Raise one error with all problems, if there are any.

    Parameters
    ----------
    error
        Kind of the error.
    heading
        What is wrong as a whole; a line for each problem follows it. Empty for problems that stand alone.
    problems
        As text, or with their ways out.

    Examples
    --------
    >>> raise_problems(InputError, "cannot cluster", [])
    >>> raise_problems(InputError, "cannot cluster", ["expected seeds from 0 up, got -1"])
    Traceback (most recent call last):
        ...
    flyxr.errors.InputError: cannot cluster:
    - expected seeds from 0 up, got -1
    """
    found = list(problems)
    if found:
        raise error(*found, heading=heading)
