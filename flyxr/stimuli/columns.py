"""Shared parts of stimuli on the columns: argument checks, frame counts, wrapping."""

from __future__ import annotations

import math
import operator
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from flyxr import hexgrid, schema
from flyxr.errors import Problem, raise_problems
from flyxr.stimuli import base

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray

MAX_COLUMNS_PER_FRAME = 1.0
"""Largest motion between two frames, columns; faster motion skips columns and is undersampled."""

_ROUNDING = 1e-6


class Arguments:
    """Checks of a stimulus's arguments; their problems are collected and raised together.

    Examples
    --------
    >>> arguments = Arguments()
    >>> arguments.numbers("speeds", 4.8, "columns/s", above=0)
    array([4.8])
    >>> arguments.numbers("angles", [0, np.nan], "degrees").size, arguments.integer("extent", -1, minimum=0)
    (0, 0)
    >>> arguments.raise_problems()
    Traceback (most recent call last):
        ...
    flyxr.schema.SchemaError: not a rendering:
    - expected angles as finite numbers, in degrees, got [0, nan]
    - expected extent as an integer of at least 0, got -1
    """

    def __init__(self) -> None:
        self.problems: list[str | Problem] = []

    def numbers(
        self,
        name: str,
        values: ArrayLike,
        unit: str,
        *,
        above: float = -math.inf,
        minimum: float = -math.inf,
        maximum: float = math.inf,
        may_be_empty: bool = False,
    ) -> NDArray[np.float64]:
        """Return one number or several as float64 (value,); empty if they are invalid."""
        try:
            numbers = np.atleast_1d(np.asarray(values, dtype=np.float64))
        except (TypeError, ValueError):
            numbers = np.array([np.nan])
        limits = [f"above {above:g}"] if above > -math.inf else []
        limits += [f"at least {minimum:g}"] if minimum > -math.inf else []
        limits += [f"at most {maximum:g}"] if maximum < math.inf else []
        expected = " and ".join(limits) or "finite numbers"
        is_valid = np.isfinite(numbers) & (numbers > above) & (numbers >= minimum) & (numbers <= maximum)
        if numbers.ndim != 1 or (numbers.size == 0 and not may_be_empty):
            shape = "an empty list" if numbers.size == 0 else f"an array of shape {numbers.shape}"
            self.problems.append(f"expected {name} as one number or a list of them, in {unit}, got {shape}")
        elif not is_valid.all():
            self.problems.append(f"expected {name} as {expected}, in {unit}, got {_format_value(values)}")
        else:
            return numbers
        return np.empty(0)

    def number(
        self,
        name: str,
        value: float,
        unit: str,
        *,
        above: float = -math.inf,
        minimum: float = -math.inf,
        maximum: float = math.inf,
    ) -> float:
        """Return one number as float; 0 if it is invalid."""
        numbers = self.numbers(name, value, unit, above=above, minimum=minimum, maximum=maximum)
        if numbers.size > 1:
            self.problems.append(f"expected {name} as one number, in {unit}, got {_format_value(value)}")
        return float(numbers[0]) if numbers.size == 1 else 0.0

    def integer(self, name: str, value: Any, minimum: int) -> int:
        """Return one integer; the minimum if it is invalid."""
        try:
            integer = operator.index(value)
        except TypeError:
            integer = minimum - 1
        if integer < minimum:
            self.problems.append(f"expected {name} as an integer of at least {minimum}, got {value!r}")
        return max(integer, minimum)

    def duration(self, name: str, value: float, dt: float) -> float:
        """Return a duration of at least one frame, s; 0 if it is invalid."""
        duration = self.number(name, value, "s", above=0)
        if duration and dt and n_frames_truncated(duration, dt) < 1:
            self.problems.append(
                Problem(
                    f"expected {name} of at least one frame, got {duration:g} s, which dt={dt:g} s undersamples",
                    f"use dt of at most {duration:g}, or a longer {name}",
                )
            )
            return 0.0
        return duration

    def raise_problems(self) -> None:
        """Raise one SchemaError with all problems, if there are any."""
        raise_problems(schema.SchemaError, "not a rendering", self.problems)


def _format_value(values: Any) -> str:
    text = repr(values.tolist() if isinstance(values, np.ndarray) else values)
    return text if len(text) < 80 else f"{text[:76]}..."


def undersampling_problems(
    name: str, values: NDArray[np.float64], unit: str, columns_per_second: ArrayLike, dt: float
) -> list[Problem]:
    """List the values that move further than :data:`MAX_COLUMNS_PER_FRAME` in a step of dt seconds.

    Examples
    --------
    >>> print(*undersampling_problems("speeds", np.array([5.0, 80.0]), "columns/s", [5.0, 80.0], 1 / 50))
    dt=0.02 s undersamples speeds [80.0] columns/s, which move 1.6 columns per frame: use dt of at most ...
    """
    step = np.abs(np.asarray(columns_per_second, dtype=np.float64)) * dt
    is_too_fast = step > MAX_COLUMNS_PER_FRAME * (1 + _ROUNDING)
    if not is_too_fast.any():
        return []
    return [
        Problem(
            f"dt={dt:g} s undersamples {name} {values[is_too_fast].tolist()} {unit}, which move {step.max():.3g} "
            "columns per frame",
            f"use dt of at most {dt / step.max():.3g}, or leave these out",
        )
    ]


def n_frames(duration: float, dt: float) -> int:
    """Number of whole frames in a duration, without losing one by rounding.

    Examples
    --------
    >>> n_frames(0.29, 0.01), n_frames(0.295, 0.01)
    (29, 29)
    """
    return math.floor(duration / dt + _ROUNDING)


def n_frames_truncated(duration: float, dt: float) -> int:
    """Number of frames of flashes, edges and bars.

    Examples
    --------
    >>> n_frames_truncated(1.0, 1 / 200), n_frames_truncated(0.29, 0.01)
    (200, 28)
    """
    # quirk: flyvis truncates the rounded quotient, so 0.29 s have 28 frames of 0.01 s and 1 s has 92 of 1/93 s
    return int(duration / dt)


def wrap(
    luminance: Any,
    dt: float,
    n_before: int,
    extent: int,
    *,
    sample_coords: Mapping[str, ArrayLike],
    flow: Any = None,
) -> xr.Dataset:
    """Wrap a valid array (sample, time, column) as a rendering.

    Parameters
    ----------
    luminance
        float32 (sample, time, column), NumPy or dask.
    dt
        Time step, s.
    n_before
        Frames before stimulus onset.
    extent
        Radius of the lattice.
    sample_coords
        Coordinates of the dim ``sample``.
    flow
        Optic flow (sample, time, column, axis), columns/s.

    Examples
    --------
    >>> grey = np.full((1, 3, 7), 0.5, np.float32)
    >>> wrap(grey, 0.01, 1, 1, sample_coords={}).time.values
    array([-0.01, 0. , 0.01])
    """
    n_samples, n_times, _ = luminance.shape
    coords: dict[str, Any] = {"sample": np.arange(n_samples)}
    coords |= {name: ("sample", base.storable(values)) for name, values in sample_coords.items()}
    coords["time"] = schema.time_coord(n_times, dt, -n_before * dt)
    coords |= hexgrid.column_coords(extent)
    variables: dict[str, Any] = {"luminance": (("sample", "time", "column"), luminance)}
    if flow is not None:
        variables["flow"] = (("sample", "time", "column", "axis"), flow)
        coords["axis"] = np.array(["x", "y"], dtype=object)
    return schema.annotate(xr.Dataset(variables, coords), "rendering")
