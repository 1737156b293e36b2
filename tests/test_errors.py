"""Errors and warnings: their wording and pickling, and that the package raises no others."""

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
from flyxr.errors import FlyxrError, FlyxrWarning, InputError, Problem, raise_problems

PACKAGE = Path(flyxr.__file__).parent
FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))

ALLOWED = {("lazy.py", "AttributeError")}
"""Errors that the protocols of Python require: a module's ``__getattr__``."""

PROBLEMS = (
    Problem("expected one", "pass one=1", "add --one"),
    Problem("expected two", "see the manual"),
    "expected three",
)
IN_PYTHON = "cannot count:\n- expected one: pass one=1\n- expected two: see the manual\n- expected three"
ON_THE_COMMAND_LINE = IN_PYTHON.replace("pass one=1", "add --one")


@pytest.fixture(scope="module")
def error_classes() -> set[type[BaseException]]:
    """Public exceptions and warnings that modules of flyxr define."""
    classes = set()
    for module in pkgutil.walk_packages(flyxr.__path__, "flyxr."):
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, type) and issubclass(value, BaseException) and value.__module__ == module.name:
                classes.add(value)
    return {error_class for error_class in classes if not error_class.__name__.startswith("_")}


def subclasses(error_class: type[FlyxrError]) -> set[type[FlyxrError]]:
    """Find all subclasses of a class, and the class itself."""
    return {error_class}.union(*(subclasses(subclass) for subclass in error_class.__subclasses__()))


def test_errors__derive_from_the_base_and_a_built_in(error_classes: set[type[BaseException]]) -> None:
    assert {FlyxrError, InputError, FlyxrWarning} <= error_classes
    assert all(issubclass(error_class, FlyxrError | FlyxrWarning) for error_class in error_classes)
    in_flyxr = {error_class for error_class in subclasses(FlyxrError) if error_class.__module__.startswith("flyxr.")}
    assert in_flyxr <= error_classes
    general = {Exception, BaseException, object}
    for error_class in error_classes - {FlyxrError}:
        assert {base for base in error_class.__mro__ if base.__module__ == "builtins"} - general, error_class


def test_errors__pickle_with_both_wordings(error_classes: set[type[BaseException]]) -> None:
    with_problems = [cls for cls in error_classes if issubclass(cls, FlyxrError | FlyxrWarning)]
    assert len(with_problems) > 10
    for error_class in with_problems:
        for n_problems in (1, 2, 3):
            error = error_class(*PROBLEMS[:n_problems], heading="cannot count")
            copy = pickle.loads(pickle.dumps(error))
            assert type(copy) is error_class
            assert copy.problems == PROBLEMS[:n_problems]
            assert str(copy) == copy.message() == "\n".join(IN_PYTHON.split("\n")[: 1 + n_problems])
            assert copy.message(command_line=True) == "\n".join(ON_THE_COMMAND_LINE.split("\n")[: 1 + n_problems])


def test_message__is_one_line_without_a_heading() -> None:
    assert str(InputError(*PROBLEMS)) == "expected one: pass one=1; expected two: see the manual; expected three"


def test_raise_problems__keeps_the_hints() -> None:
    raise_problems(InputError, "cannot count", [])
    with pytest.raises(ValueError, match="cannot count:\n- expected one") as caught:
        raise_problems(InputError, "cannot count", iter(PROBLEMS))
    assert caught.value.message(command_line=True) == ON_THE_COMMAND_LINE  # type: ignore[attr-defined]


def test_warning__is_a_user_warning() -> None:
    with pytest.warns(UserWarning, match="expected one: pass one=1") as caught:
        warnings.warn(FlyxrWarning(PROBLEMS[0]), stacklevel=1)
    assert isinstance(caught[0].message, FlyxrWarning)


def built_in_exception(node: ast.expr | None) -> str | None:
    """Name of the built-in exception that is raised, if any."""
    node = node.func if isinstance(node, ast.Call) else node
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "type":
        return "type(...)"  # the class of a caught error
    is_built_in = isinstance(node, ast.Name) and isinstance(getattr(builtins, node.id, None), type)
    return node.id if isinstance(node, ast.Name) and is_built_in else None


def last_name(node: ast.expr) -> str:
    """``name`` of ``name`` or ``module.name``."""
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def find_violations(source: str, file: str) -> list[str]:
    """List where a source raises or warns with other classes than those of flyxr."""
    violations = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Raise):
            name = built_in_exception(node.exc)
            if name is not None and (file, name) not in ALLOWED:
                violations.append(f"line {node.lineno} raises {name}")
        if not isinstance(node, ast.Call):
            continue
        if last_name(node.func) == "warn" and not (
            node.args and isinstance(node.args[0], ast.Call) and last_name(node.args[0].func).endswith("Warning")
        ):
            violations.append(f"line {node.lineno} warns with text")
        if isinstance(node.func, ast.Attribute) and node.func.attr == "join":
            glue = node.func.value
            if isinstance(glue, ast.Constant) and "\n- " in str(glue.value) and file != "errors.py":
                violations.append(f"line {node.lineno} joins problems")
    return violations


@pytest.mark.parametrize("file", FILES)
def test_source__raises_and_warns_only_with_classes_of_flyxr(file: str) -> None:
    assert find_violations((PACKAGE / file).read_text(encoding="utf-8"), file) == []


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
def test_find_violations__reports_each_violation(source: str) -> None:
    assert len(find_violations(source, "cli.py")) == 1


def test_find_violations__accepts_valid_code() -> None:
    source = "raise InputError('x')\nraise\nraise error\nwarnings.warn(FlyxrWarning('x'), stacklevel=2)\n', '.join(x)"
    assert find_violations(source, "cli.py") == []
