"""Numbers, durations and names as people give them, converted to Python's own; all that is wrong raises one error."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Iterable
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd

from flyxr.errors import FlyxrError, InputError, Problem, raise_problems

if TYPE_CHECKING:
    from numpy.typing import NDArray


Duration: TypeAlias = float | str | timedelta | np.timedelta64 | Fraction | Decimal
"""A duration: a number of seconds, text with a unit such as ``"10ms"``, or a duration of Python, NumPy or pandas."""


class Arguments:
    """Arguments of a function: each method converts one, and :meth:`raise_problems` raises all that is wrong at once.

    A method returns a harmless value (NaN, the least integer, an empty array) where it notes a problem.

    Parameters
    ----------
    heading
        What is wrong as a whole, e.g. ``"not a rendering"``; empty where the problems stand alone.
    error
        Class of the error.

    Examples
    --------
    >>> arguments = Arguments("cannot make the stimulus")
    >>> arguments.duration("dt", "10ms"), arguments.number("speed", np.float32(1 / 60), "columns/s") == 1 / 60
    (0.01, True)
    >>> arguments.numbers("angles", [0, np.nan], "degrees").size, arguments.integer("extent", -1, least=0)
    (0, 0)
    >>> arguments.raise_problems()
    Traceback (most recent call last):
        ...
    flyxr.errors.InputError: cannot make the stimulus:
    - expected angles as finite numbers, in degrees, got [0, nan]
    - expected extent as an integer of at least 0, got -1
    """

    def __init__(self, heading: str = "", error: type[FlyxrError] = InputError) -> None:
        self.heading, self.error = heading, error
        self.problems: list[str | Problem] = []

    def raise_problems(self) -> None:
        """Raise one error with all problems, if there are any."""
        raise_problems(self.error, self.heading, self.problems)

    def number(
        self,
        name: str,
        value: Any,
        unit: str = "",
        *,
        above: float = -math.inf,
        least: float = -math.inf,
        most: float = math.inf,
        hint: str = "",
        command: str = "",
    ) -> float:
        """One number as a float; NaN if something is wrong with it."""
        number = as_float(value)
        if number is not None and math.isfinite(number) and above < number and least <= number <= most:
            return number
        limits = _limits(above, least, most)
        text = f"expected {name} as a number{f' {limits}' if limits else ''}{f', in {unit}' if unit else ''}"
        self.problems.append(Problem(f"{text}, got {shorten(value)}", hint, command))
        return math.nan

    def numbers(
        self,
        name: str,
        values: Any,
        unit: str = "",
        *,
        above: float = -math.inf,
        least: float = -math.inf,
        most: float = math.inf,
        may_be_empty: bool = False,
    ) -> NDArray[np.float64]:
        """One number or several as float64 (value,); empty if something is wrong with them."""
        given = np.ndim(values) == 0 and not _is_iterable(values)
        items = [values] if given else list(values)
        numbers = np.array([math.nan if (number := as_float(item)) is None else number for item in items])
        unit_text = f", in {unit}" if unit else ""
        if not items and not may_be_empty:
            self.problems.append(f"expected {name} as one number or a list of them{unit_text}, got an empty list")
        elif any(np.ndim(item) > 0 for item in items):
            text = f"expected {name} as one number or a list of them{unit_text}"
            self.problems.append(f"{text}, got an array of shape {np.shape(values)}")
        elif not (np.isfinite(numbers) & (numbers > above) & (numbers >= least) & (numbers <= most)).all():
            expected = f"numbers {limits}" if (limits := _limits(above, least, most)) else "finite numbers"
            self.problems.append(f"expected {name} as {expected}{unit_text}, got {shorten(values)}")
        else:
            return numbers.astype(np.float64)
        return np.empty(0)

    def integer(self, name: str, value: Any, *, least: int, hint: str = "", command: str = "") -> int:
        """One integer; the least if something is wrong with it."""
        integer = as_int(value)
        if integer is not None and integer >= least:
            return integer
        text = f"expected {name} as an integer of at least {least}, got {shorten(value)}"
        self.problems.append(Problem(text, hint, command))
        return least

    def seed(self, value: Any, name: str = "seed") -> int:
        """Seed of a random generator; 0 if something is wrong with it."""
        return self.integer(name, value, least=0, hint=f"a fixed seed such as {name}=0 makes the result repeatable")

    def duration(self, name: str, value: Any, *, above: float = 0, least: float = -math.inf, hint: str = "") -> float:
        """Duration in seconds, from a number or a duration of Python, NumPy or pandas; NaN if something is wrong."""
        seconds = as_seconds(value)
        if seconds is not None and math.isfinite(seconds) and above < seconds and least <= seconds:
            return seconds
        limits = _limits(above, least, math.inf)
        text = f"expected {name} as a duration{f' {limits}' if limits else ''}, in s, got {shorten(value)}"
        self.problems.append(Problem(text, hint or f"e.g. {name}=0.01, or {name}='10ms'", f"e.g. --{name} 0.01"))
        return math.nan

    def frame_rate(self, value: Any) -> float:
        """Frames per second; NaN if something is wrong with it."""
        rate = as_float(value)
        if rate is not None and 0 < rate < math.inf:
            return rate
        text = f"expected a positive frame_rate, in frames per second, got {shorten(value)}"
        self.problems.append(Problem(text, "e.g. frame_rate=30", "e.g. --frame-rate 30"))
        return math.nan

    def names(self, name: str, value: Any, example: str = "T4c") -> list[str]:
        """Names from one text or anything that iterates over texts, each once; empty if something is wrong."""
        items = plain_items(value if _is_iterable(value) else [value])
        if items and all(isinstance(item, str) for item in items):
            return list(dict.fromkeys(items))
        text = f"expected {name} as one name or a list of them, got {shorten(value) if items else 'an empty list'}"
        self.problems.append(Problem(text, f"e.g. {name}=[{example!r}]"))
        return []


def as_float(value: Any) -> float | None:
    """Float of a number of any type; None for what is no number, such as text and booleans.

    A number of lower precision than a float becomes the simplest one that rounds to it: its shortest decimal if that
    is exact in its type, else the simplest fraction.

    Examples
    --------
    >>> as_float(np.float32(0.1)), as_float(np.float32(1 / 60)) == 1 / 60, as_float("0.1"), as_float(True)
    (0.1, True, None, None)
    """
    value = _scalar(value)
    if isinstance(value, np.floating) and value.dtype.itemsize < 8:
        return _from_low_precision(value)
    if isinstance(value, (bool, np.bool_, str, bytes, np.timedelta64, np.datetime64)) or value is None:
        return None
    if not isinstance(value, (int, float, np.integer, np.floating, Fraction, Decimal)):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf


def as_int(value: Any) -> int | None:
    """Integer of any integer type; None for anything else, such as text, booleans and floats.

    Examples
    --------
    >>> as_int(np.int64(3)), as_int(np.array(3)), as_int(3.0), as_int(True)
    (3, 3, None, None)
    """
    value = _scalar(value)
    try:
        return None if isinstance(value, (bool, np.bool_)) else operator.index(value)
    except TypeError:
        return None


def as_seconds(value: Any) -> float | None:
    """Seconds of a number, a duration of Python, NumPy or pandas, or text with a unit; None for anything else.

    Examples
    --------
    >>> as_seconds(0.01), as_seconds(np.timedelta64(10, "ms")), as_seconds("10ms"), as_seconds("0.01")
    (0.01, 0.01, 0.01, None)
    """
    value = _scalar(value)
    if isinstance(value, str) and re.search(r"\d\s*[A-Za-zµμ]", value):
        try:
            value = pd.Timedelta(value)
        except ValueError:
            return None
    if isinstance(value, timedelta) and not isinstance(value, pd.Timedelta):
        return value / timedelta(seconds=1)
    if isinstance(value, (np.timedelta64, pd.Timedelta)):
        return None if pd.isna(value) else pd.Timedelta(value).as_unit("ns").value / 1e9
    return as_float(value)


def plain_items(values: Iterable[Any]) -> list[Any]:
    """List of the items of an iterable, with NumPy's and xarray's scalars as Python's own.

    Examples
    --------
    >>> plain_items(np.array(["T4c", "L1"])), plain_items(range(2))
    (['T4c', 'L1'], [0, 1])
    """
    return [item.item() if hasattr(item, "item") and np.ndim(item) == 0 else item for item in values]


def shorten(value: Any, most: int = 80) -> str:
    """Text of a value for a message.

    Examples
    --------
    >>> shorten(np.arange(3)), shorten("50")
    ('[0, 1, 2]', "'50'")
    """
    text = repr(value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value)
    return text if len(text) < most else f"{text[: most - 4]}..."


def _scalar(value: Any) -> Any:
    """NumPy scalar of an array without dims; anything else as it is."""
    if not isinstance(value, np.generic) and hasattr(value, "__array__") and getattr(value, "shape", None) == ():
        return np.asarray(value)[()]
    return value


def _is_iterable(values: Any) -> bool:
    is_scalar = isinstance(values, (str, bytes)) or getattr(values, "shape", None) == ()
    return isinstance(values, Iterable) and not is_scalar


def _from_low_precision(value: np.floating[Any]) -> float:
    if not np.isfinite(value):
        return float(value)
    decimal = np.format_float_positional(value, unique=True, trim="-")
    n_digits = len(decimal.replace(".", "").replace("-", "").strip("0"))
    if n_digits <= np.finfo(value.dtype).precision:
        return float(decimal)
    exact, n = Fraction(float(value)), 1
    while n < 2**24:
        fraction = exact.limit_denominator(n)
        if value.dtype.type(float(fraction)) == value:
            return float(fraction)
        n *= 2
    return float(value)


def _limits(above: float, least: float, most: float) -> str:
    texts = [f"above {above:g}" if above > -math.inf else "", f"at least {least:g}" if least > -math.inf else ""]
    return " and ".join(text for text in [*texts, f"at most {most:g}" if most < math.inf else ""] if text)
