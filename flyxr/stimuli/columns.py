"""Shared parts of stimuli on the columns: argument checks, frame counts, wrapping."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from flyxr import hexgrid, schema
from flyxr.arguments import Arguments
from flyxr.errors import Problem
from flyxr.stimuli import base

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray

    from flyxr.arguments import Duration

MAX_COLUMNS_PER_FRAME = 1.0
"""Largest motion between two frames, columns; faster motion skips columns and is undersampled."""

_ROUNDING = 1e-6


def stimulus_arguments() -> Arguments:
    """Arguments of a stimulus, whose problems raise a SchemaError.

    Examples
    --------
    >>> arguments = stimulus_arguments()
    >>> arguments.integer("extent", -1, least=0)
    0
    >>> arguments.raise_problems()
    Traceback (most recent call last):
        ...
    flyxr.schema.SchemaError: not a rendering:
    - expected extent as an integer of at least 0, got -1
    """
    return Arguments("not a rendering", schema.SchemaError)


def duration_of_frames(arguments: Arguments, name: str, value: Duration, dt: float) -> float:
    """Duration of at least one frame, s; NaN if something is wrong with it.

    Examples
    --------
    >>> duration_of_frames(Arguments(), "t_stim", "100ms", 0.01)
    0.1
    """
    duration = arguments.duration(name, value)
    if duration > 0 and dt > 0 and n_frames_truncated(duration, dt) < 1:
        arguments.problems.append(
            Problem(
                f"expected {name} of at least one frame, got {duration:g} s, which dt={dt:g} s undersamples",
                f"use dt of at most {duration:g}, or a longer {name}",
            )
        )
        return math.nan
    return duration


def duration_around(arguments: Arguments, name: str, value: Duration) -> float:
    """Duration before or after a stimulus, which may be 0, s; NaN if something is wrong with it.

    Examples
    --------
    >>> duration_around(Arguments(), "t_pre", 0)
    0.0
    """
    return arguments.duration(name, value, above=-math.inf, least=0)


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
