"""Provenance of stimuli: the call that made them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ParamSpec

import numpy as np

from flyxr import provenance
from flyxr.arguments import Arguments, as_float, as_int, as_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import xarray as xr

P = ParamSpec("P")

_CONVERTERS: dict[str, Callable[[Any], Any]] = {
    "ArrayLike": lambda value: Arguments().numbers("", value).tolist(),
    "Sequence[int]": lambda value: [int(number) for number in Arguments().numbers("", value)],
    "Duration": as_seconds,
    "float": as_float,
    "int": as_int,
}
"""From the annotation of a parameter to its recorded form."""


def recorded(
    *omitted: str, **resolvers: Callable[[Mapping[str, Any]], Any]
) -> Callable[[Callable[P, xr.Dataset]], Callable[P, xr.Dataset]]:
    """Decorate a function that makes a stimulus, to record its name and arguments in the stimulus's provenance.

    Arguments are recorded by name, defaults included, in plain types: one number or several (``ArrayLike``) as a list
    of floats.

    Parameters
    ----------
    *omitted
        Arguments that are not recorded.
    **resolvers
        For arguments that stand for something else, such as None: a function from all arguments of the call to the
        recorded value.

    Examples
    --------
    >>> import xarray as xr
    >>> @recorded("chunk", duration=lambda given: given["duration"] or given["dt"])
    ... def blink(angles: ArrayLike = 0, duration: float | None = None, dt: float = 0.01, chunk: int = 8):
    ...     return xr.Dataset()
    >>> (step,) = provenance.steps(blink([0, 90]))
    >>> step["operation"], step["arguments"]
    ('blink', {'angles': [0.0, 90.0], 'duration': 0.01, 'dt': 0.01})
    """

    def decorate(function: Callable[P, xr.Dataset]) -> Callable[P, xr.Dataset]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> xr.Dataset:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            for name, value in bound.arguments.items():
                if isinstance(value, Iterator):  # can be read only once
                    bound.arguments[name] = list(value)
            stimulus = function(*bound.args, **bound.kwargs)
            values = {name: value for name, value in bound.arguments.items() if name not in omitted}
            for name, value in values.items():
                if name in resolvers:
                    value = resolvers[name](bound.arguments)
                else:
                    value = _CONVERTERS.get(signature.parameters[name].annotation, lambda value: value)(value)
                values[name] = _to_plain(value)
            return provenance.add(stimulus, function.__name__, values)

        return wrapper

    return decorate


def _to_plain(value: Any) -> Any:
    """Convert NumPy arrays and scalars to lists and numbers."""
    return np.asarray(value).tolist() if isinstance(value, (np.ndarray, np.generic)) else value
