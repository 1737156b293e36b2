"""Drifting sine gratings, drawn on the columns."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from flyxr import hexgrid
from flyxr.errors import Problem
from flyxr.stimuli import arrays, columns

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import ArrayLike, NDArray

_PARAMETERS = ("angle", "spatial_frequency", "temporal_frequency", "contrast")


def gratings(
    angles: ArrayLike = tuple(range(0, 360, 30)),
    spatial_frequencies: ArrayLike = 1 / 30,
    temporal_frequencies: ArrayLike = 1.0,
    contrasts: ArrayLike = 1.0,
    *,
    t_stim: float = 2.0,
    t_pre: float = 1.0,
    t_post: float = 1.0,
    dt: float = 1 / 200,
    extent: int = 15,
) -> xr.Dataset:
    """Sine gratings that drift across the field, with grey before and after.

    The luminance of a column at ``s`` degrees from the middle along the direction of motion is
    ``0.5 * (1 + contrast * sin(2 * pi * (spatial_frequency * s - temporal_frequency * t)))``. Positions are those of
    the lattice, ``x_column`` and ``y_column`` times 5.8 degrees; a column sees the point in its middle.

    Parameters
    ----------
    angles
        Direction of motion, degree: 0 to the right (toward larger ``x_column``), 90 upward (toward larger
        ``y_column``).
    spatial_frequencies
        Cycles per degree.
    temporal_frequencies
        Hz; 0 is a grating that stands still.
    contrasts
        Michelson contrast, above 0, at most 1.
    t_stim, t_pre, t_post
        Duration of the grating, and of the grey before and after it, s.
    dt
        Time step, s.
    extent
        Radius of the lattice, columns.

    Returns
    -------
    Dataset
        ``luminance`` (sample, time, column), float32, lazy; time 0 is the onset. Coordinates on ``sample``: ``angle``
        (varies slowest), ``spatial_frequency``, ``temporal_frequency``, ``contrast``, ``speed`` (columns per second)
        and ``t_stim``.

    Raises
    ------
    SchemaError
        One error, a ValueError, for all arguments that make no gratings, among them temporal frequencies of 1 / (2 dt)
        and more, and spatial frequencies that the lattice shows as motion in another direction, from 0.0995 cycles per
        degree at 0 to 0.1149 at 30 degrees.

    Notes
    -----
    The lattice resolves a wave if none of its six shortest reciprocal vectors, at multiples of 60 degrees and
    2 / sqrt(3) cycles per column long, is nearer to it than zero is.

    Examples
    --------
    >>> rendering = gratings(angles=[0, 180], temporal_frequencies=[1, 4], dt=1 / 100)
    >>> dict(rendering.luminance.sizes), rendering.temporal_frequency.values
    ({'sample': 4, 'time': 400, 'column': 721}, array([1., 4., 1., 4.]))
    >>> gratings(temporal_frequencies=[1, 60], dt=1 / 100)
    Traceback (most recent call last):
        ...
    flyxr.schema.SchemaError: not a rendering:
    - dt=0.01 s undersamples temporal_frequencies [60.0] Hz: use dt below 0.00833, or leave these out
    """
    check = columns.Arguments()
    extent = check.integer("extent", extent, least=1)
    dt = check.number("dt", dt, "s", above=0)
    values = (
        check.numbers("angles", angles, "degree"),
        check.numbers("spatial_frequencies", spatial_frequencies, "cycles/degree", above=0),
        check.numbers("temporal_frequencies", temporal_frequencies, "Hz", least=0),
        check.numbers("contrasts", contrasts, "Michelson contrast", above=0, most=1),
    )
    t_stim = check.duration("t_stim", t_stim, dt)
    t_pre, t_post = check.number("t_pre", t_pre, "s", least=0), check.number("t_post", t_post, "s", least=0)
    samples = np.array(list(itertools.product(*values))).reshape(-1, len(_PARAMETERS))
    fast = values[2][values[2] * dt >= 0.5 * (1 - 1e-9)]
    if fast.size:
        check.problems.append(
            Problem(
                f"dt={dt:g} s undersamples temporal_frequencies {fast.tolist()} Hz",
                f"use dt below {0.5 / fast.max():.3g}, or leave these out",
            )
        )
    limit = _highest_frequency(samples[:, 0])
    fine = samples[:, 1] >= limit * (1 - 1e-9)
    if fine.any():
        pairs = ", ".join(f"{f:.4g} at angle {a:g}" for a, f in np.unique(samples[fine, :2], axis=0)[:6].tolist())
        check.problems.append(
            Problem(
                f"columns undersample spatial_frequencies {pairs}",
                f"use less than {limit[fine].min():.4g} cycles/degree",
            )
        )
    check.raise_problems()

    before, shown, after = (columns.n_frames(time, dt) for time in (t_pre, t_stim, t_post))
    return columns.wrap(
        arrays.generate(
            _drifting,
            len(samples),
            (before + shown + after, hexgrid.n_columns(extent)),
            samples=samples,
            before=before,
            shown=shown,
            after=after,
            dt=dt,
            extent=extent,
        ),
        dt,
        before,
        extent,
        operation="gratings",
        arguments={
            **dict(zip(("angles", "spatial_frequencies", "temporal_frequencies", "contrasts"), values, strict=True)),
            "t_stim": t_stim,
            "t_pre": t_pre,
            "t_post": t_post,
            "dt": dt,
            "extent": extent,
        },
        sample_coords={
            **dict(zip(_PARAMETERS, samples.T, strict=True)),
            "speed": samples[:, 2] / samples[:, 1] / columns.COLUMN_DEGREES,
            "t_stim": np.full(len(samples), t_stim),
        },
    )


def _highest_frequency(angle: NDArray[np.float64]) -> NDArray[np.float64]:
    """Spatial frequency, cycles per degree, from which on the lattice shows motion at an angle as another."""
    off_reciprocal = np.radians((angle + 30) % 60 - 30)
    return np.asarray(1 / (np.sqrt(3) * np.cos(off_reciprocal) * columns.COLUMN_DEGREES))


def _drifting(
    indices: NDArray[np.int64],
    *,
    samples: NDArray[np.float64],
    before: int,
    shown: int,
    after: int,
    dt: float,
    extent: int,
) -> NDArray[np.float32]:
    """Frames (index, time, column) of the samples (sample, parameter)."""
    x, y = hexgrid.positions(*hexgrid.columns(extent))
    time = np.arange(shown)[:, None] * dt
    out = np.full((indices.size, before + shown + after, x.size), columns.GREY, np.float32)
    for sequence, (angle, spatial, temporal, contrast) in zip(out, samples[indices].tolist(), strict=True):
        along = (x * np.cos(np.radians(angle)) + y * np.sin(np.radians(angle))) * columns.COLUMN_DEGREES
        wave = np.sin(2 * np.pi * (spatial * along - temporal * time))
        sequence[before : before + shown] = columns.GREY * (1 + contrast * wave)
    return out
