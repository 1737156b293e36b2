"""Errors and warnings: their wording, that they travel between processes, and that nothing raises others."""

from __future__ import annotations

import ast
import builtins
import importlib
import pickle
import pkgutil
import warnings
from pathlib import Path

import pytest

import flyxr
from flyxr import errors
from flyxr.errors import FlyxrError, FlyxrWarning, InputError, Problem, raise_problems

PACKAGE = Path(flyxr.__file__).parent
FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))

ALLOWED = {("lazy.py", "AttributeError")}
"""What Python's own protocols ask for: a module's ``__getattr__``."""

WRONG = (
    Problem("expected one", "pass one=1", "add --one"),
    Problem("expected two", "see the manual"),
    "expected three",
)
IN_PYTHON = "cannot count:\n- expected one: pass one=1\n- expected two: see the manual\n- expected three"
ON_THE_COMMAND_LINE = IN_PYTHON.replace("pass one=1", "add --one")


def file_of(module: str) -> str:
    """Path of a module below the package."""
    path = Path(str(importlib.import_module(module).__file__))
    return path.relative_to(PACKAGE).as_posix()


@pytest.fixture(scope="module")
def kinds() -> set[type[BaseException]]:
    """Exceptions and warnings that modules of flyxr define, but for the private ones."""
    found = set()
    for module in pkgutil.walk_packages(flyxr.__path__, "flyxr."):
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, type) and issubclass(value, BaseException) and value.__module__ == module.name:
                found.add(value)
    return {kind for kind in found if not kind.__name__.startswith("_")}


def subclasses(kind: type[FlyxrError]) -> set[type[FlyxrError]]:
    """All below a class."""
    return {kind}.union(*(subclasses(below) for below in kind.__subclasses__()))


def test_kinds__all_have_the_base_and_a_built_in(kinds: set[type[BaseException]]) -> None:
    assert {errors.FlyxrError, errors.InputError, errors.FlyxrWarning} <= kinds
    assert {kind for kind in kinds if not issubclass(kind, FlyxrError | FlyxrWarning)} == set()
    assert {kind for kind in subclasses(FlyxrError) if kind.__module__.split(".")[0] == "flyxr"} <= kinds
    bare = {Exception, BaseException, object}
    for kind in kinds - {FlyxrError}:
        assert {base for base in kind.__mro__ if base.__module__ == "builtins"} - bare, kind


def test_kinds__pickle_with_both_wordings(kinds: set[type[BaseException]]) -> None:
    told = [kind for kind in kinds if issubclass(kind, FlyxrError | FlyxrWarning)]
    assert len(told) > 10
    for kind in told:
        for n_problems in (1, 2, 3):
            error = kind(*WRONG[:n_problems], heading="cannot count")
            copy = pickle.loads(pickle.dumps(error))
            assert type(copy) is kind
            assert copy.problems == WRONG[:n_problems]
            assert str(copy) == copy.message() == "\n".join(IN_PYTHON.split("\n")[: 1 + n_problems])
            assert copy.message(command_line=True) == "\n".join(ON_THE_COMMAND_LINE.split("\n")[: 1 + n_problems])


def test_message__without_a_heading_stands_in_one_line() -> None:
    assert str(InputError(*WRONG)) == "expected one: pass one=1; expected two: see the manual; expected three"


def test_raise_problems__keeps_the_ways_out() -> None:
    raise_problems(InputError, "cannot count", [])
    with pytest.raises(ValueError, match="cannot count:\n- expected one") as caught:
        raise_problems(InputError, "cannot count", iter(WRONG))
    assert caught.value.message(command_line=True) == ON_THE_COMMAND_LINE  # type: ignore[attr-defined]


def test_warning__is_a_user_warning() -> None:
    with pytest.warns(UserWarning, match="expected one: pass one=1") as caught:
        warnings.warn(FlyxrWarning(WRONG[0]), stacklevel=1)
    assert isinstance(caught[0].message, FlyxrWarning)


def built_in_exception(node: ast.expr | None) -> str | None:
    """Name of the built-in exception that is raised, if it is one."""
    node = node.func if isinstance(node, ast.Call) else node
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "type":
        return "type(...)"  # of an error that was caught
    found = getattr(builtins, node.id, None) if isinstance(node, ast.Name) else None
    return node.id if isinstance(node, ast.Name) and isinstance(found, type) else None


def name_of(node: ast.expr) -> str:
    """Last name of ``name`` or ``module.name``."""
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def findings(source: str, file: str) -> list[str]:
    """What a source has that only the family of errors should do."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Raise):
            name = built_in_exception(node.exc)
            if name is not None and (file, name) not in ALLOWED:
                found.append(f"line {node.lineno} raises {name}")
        if not isinstance(node, ast.Call):
            continue
        if name_of(node.func) == "warn" and not (
            node.args and isinstance(node.args[0], ast.Call) and name_of(node.args[0].func).endswith("Warning")
        ):
            found.append(f"line {node.lineno} warns with a text")
        if isinstance(node.func, ast.Attribute) and node.func.attr == "join":
            glue = node.func.value
            if isinstance(glue, ast.Constant) and "\n- " in str(glue.value) and file != "errors.py":
                found.append(f"line {node.lineno} joins problems")
    return found


@pytest.mark.parametrize("file", FILES)
def test_source__raises_and_warns_with_the_family_alone(file: str) -> None:
    assert findings((PACKAGE / file).read_text(encoding="utf-8"), file) == []


@pytest.mark.parametrize(
    "source",
    [
        "raise ValueError('x')",
        "raise KeyError",
        "raise type(error)('x') from error",
        "raise NotImplementedError",
        "warnings.warn('x', stacklevel=2)",
        "warnings.warn(f'{x}', UserWarning, stacklevel=2)",
        "'\\n- '.join(problems)",
    ],
)
def test_findings__see_what_is_wrong(source: str) -> None:
    assert len(findings(source, "cli.py")) == 1


def test_findings__pass_what_is_right() -> None:
    source = "raise InputError('x')\nraise\nraise error\nwarnings.warn(FlyxrWarning('x'), stacklevel=2)\n', '.join(x)"
    assert findings(source, "cli.py") == []
