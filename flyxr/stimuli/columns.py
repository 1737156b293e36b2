"""What stimuli share that are made on the columns themselves: checks of arguments, frame counts, wrapping."""

from __future__ import annotations

import math
import operator
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from flyxr import hexgrid, provenance, schema
from flyxr.errors import Problem, raise_problems

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

COLUMN_DEGREES = 5.8
"""Visual angle between neighbouring columns, degree (Lappalainen et al. 2024)."""
GREY = 0.5
"""Luminance before a stimulus, around it, and in the padding after it."""
MOST_COLUMNS_A_FRAME = 1.0
"""What moves further between two frames leaves out columns, so that its motion is undersampled."""

_ROUNDING = 1e-6


class Arguments:
    """Arguments of a stimulus, checked one after the other; what is wrong with them is raised at once.

    Examples
    --------
    >>> arguments = Arguments()
    >>> arguments.numbers("speeds", 4.8, "columns/s", above=0)
    array([4.8])
    >>> arguments.numbers("angles", [0, np.nan], "degree").size, arguments.integer("extent", -1, least=0)
    (0, 0)
    >>> arguments.raise_problems()
    Traceback (most recent call last):
        ...
    flyxr.schema.SchemaError: not a rendering:
    - expected angles as finite numbers, in degree, got [0, nan]
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
        least: float = -math.inf,
        most: float = math.inf,
        may_be_empty: bool = False,
    ) -> NDArray[np.float64]:
        """One number or several, as float64 (value,); none if something is wrong with them."""
        try:
            numbers = np.atleast_1d(np.asarray(values, dtype=np.float64))
        except (TypeError, ValueError):
            numbers = np.array([np.nan])
        limits = [f"above {above:g}" if above > -math.inf else "", f"at least {least:g}" if least > -math.inf else ""]
        limits.append(f"at most {most:g}" if most < math.inf else "")
        wanted = " and ".join(limit for limit in limits if limit) or "finite numbers"
        if numbers.ndim != 1 or (numbers.size == 0 and not may_be_empty):
            shape = "an empty list" if numbers.size == 0 else f"an array of shape {numbers.shape}"
            self.problems.append(f"expected {name} as one number or a list of them, in {unit}, got {shape}")
        elif not (np.isfinite(numbers) & (numbers > above) & (numbers >= least) & (numbers <= most)).all():
            self.problems.append(f"expected {name} as {wanted}, in {unit}, got {_shown(values)}")
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
        least: float = -math.inf,
        most: float = math.inf,
    ) -> float:
        """One number as float; 0 if something is wrong with it."""
        found = self.numbers(name, value, unit, above=above, least=least, most=most)
        if found.size > 1:
            self.problems.append(f"expected {name} as one number, in {unit}, got {_shown(value)}")
        return float(found[0]) if found.size == 1 else 0.0

    def integer(self, name: str, value: Any, least: int) -> int:
        """One integer; the least if something is wrong with it."""
        try:
            integer = operator.index(value)
        except TypeError:
            integer = least - 1
        if integer < least:
            self.problems.append(f"expected {name} as an integer of at least {least}, got {value!r}")
        return max(integer, least)

    def duration(self, name: str, value: float, dt: float) -> float:
        """Time in s that at least one frame shows; 0 if something is wrong with it."""
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
        """Raise one SchemaError with all that is wrong, if anything is."""
        raise_problems(schema.SchemaError, "not a rendering", self.problems)


def _shown(values: Any) -> str:
    text = repr(values.tolist() if isinstance(values, np.ndarray) else values)
    return text if len(text) < 80 else f"{text[:76]}..."


def too_fast(
    name: str, values: NDArray[np.float64], unit: str, columns_per_second: ArrayLike, dt: float
) -> list[Problem]:
    """List which values move further than :data:`MOST_COLUMNS_A_FRAME` in a step of dt seconds.

    Examples
    --------
    >>> print(*too_fast("speeds", np.array([5.0, 80.0]), "columns/s", [5.0, 80.0], 1 / 50))
    dt=0.02 s undersamples speeds [80.0] columns/s, which move 1.6 columns a frame: use dt of at most 0.0125, ...
    """
    step = np.abs(np.asarray(columns_per_second, dtype=np.float64)) * dt
    wrong = step > MOST_COLUMNS_A_FRAME * (1 + _ROUNDING)
    if not wrong.any():
        return []
    return [
        Problem(
            f"dt={dt:g} s undersamples {name} {values[wrong].tolist()} {unit}, which move {step.max():.3g} columns a "
            "frame",
            f"use dt of at most {dt / step.max():.3g}, or leave these out",
        )
    ]


def n_frames(duration: float, dt: float) -> int:
    """Whole frames in a duration, a duration of whole frames not losing one by rounding.

    Examples
    --------
    >>> n_frames(0.29, 0.01), n_frames(0.295, 0.01)
    (29, 29)
    """
    return math.floor(duration / dt + _ROUNDING)


def n_frames_truncated(duration: float, dt: float) -> int:
    """Frames of flashes, edges and bars.

    Examples
    --------
    >>> n_frames_truncated(1.0, 1 / 200), n_frames_truncated(0.29, 0.01)
    (200, 28)
    """
    # quirk: flyvis cuts the quotient as it is rounded, so 0.29 s have 28 frames of 0.01 s and 1 s has 92 of 1/93 s
    return int(duration / dt)


def wrap(
    luminance: Any,
    dt: float,
    n_before: int,
    extent: int,
    *,
    operation: str,
    arguments: Mapping[str, object],
    sample_coords: Mapping[str, Sequence[Any] | NDArray[Any]],
    flow: Any = None,
) -> xr.Dataset:
    """Rendering around an array (sample, time, column) that is known to be in order.

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
    operation, arguments
        What made it, for its provenance.
    sample_coords
        Coordinates of the dim ``sample``.
    flow
        Optic flow (sample, time, column, axis), column/s.

    Examples
    --------
    >>> grey = np.full((1, 3, 7), 0.5, np.float32)
    >>> wrap(grey, 0.01, 1, 1, operation="grey", arguments={}, sample_coords={}).time.values
    array([-0.01, 0. , 0.01])
    """
    samples, frames, _ = luminance.shape
    coords: dict[str, Any] = {"sample": np.arange(samples)}
    for name, values in sample_coords.items():
        array = np.asarray(values)
        coords[name] = ("sample", array.astype(object) if array.dtype.kind == "U" else array)
    coords["time"] = schema.time_coord(frames, dt, -n_before * dt)
    coords |= hexgrid.column_coords(extent)
    variables: dict[str, Any] = {"luminance": (("sample", "time", "column"), luminance)}
    if flow is not None:
        variables["flow"] = (("sample", "time", "column", "axis"), flow)
        coords["axis"] = np.array(["x", "y"], dtype=object)
    rendering = schema.annotate(xr.Dataset(variables, coords), "rendering")
    plain = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in arguments.items()}
    return provenance.add(rendering, operation, plain)
