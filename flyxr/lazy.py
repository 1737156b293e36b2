"""Public names of packages: loaded on first use, listed by ``dir``, and suggested when a name is misspelt.

A package lists its public names in its stub ``__init__.pyi``, following
`SPEC 1 <https://scientific-python.org/specs/spec-0001/>`_. Type checkers read the same table as the interpreter.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

import lazy_loader

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def attach_stub(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Make the names in a package's stub public, and load each on first use.

    Parameters
    ----------
    package, file
        ``__name__`` and ``__file__`` of the package.

    Returns
    -------
    tuple
        ``__getattr__``, ``__dir__`` and ``__all__`` of the package.

    Examples
    --------
    >>> import flyxr.stimuli
    >>> _, _, names = attach_stub("flyxr.stimuli", flyxr.stimuli.__file__)
    >>> "moving_digits" in names
    True
    """
    load, _, names = lazy_loader.attach_stub(package, file)
    fail, list_names = public_names(package, names)

    def load_or_fail(name: str) -> Any:
        return load(name) if name in names else fail(name)

    return load_or_fail, list_names, list(names)


def public_names(package: str, names: Sequence[str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Limit ``dir`` to the public names of a package that is already loaded, and suggest them for unknown names.

    Returns
    -------
    tuple
        ``__getattr__`` and ``__dir__`` of the package.

    Examples
    --------
    >>> fail, _ = public_names("flyxr", ["simulate", "sweep"])
    >>> fail("simulat")
    Traceback (most recent call last):
        ...
    AttributeError: module 'flyxr' has no attribute 'simulat' (nearest: simulate): dir(flyxr) lists the public names
    """

    def fail(name: str) -> Any:
        nearest = difflib.get_close_matches(name, names, n=3)
        suggestion = f" (nearest: {', '.join(nearest)})" if nearest else ""
        message = f"module {package!r} has no attribute {name!r}{suggestion}: dir({package}) lists the public names"
        raise AttributeError(message, name=name)

    def list_names() -> list[str]:
        return sorted(names)

    return fail, list_names
