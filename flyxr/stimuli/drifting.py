"""Drifting sine gratings, drawn on the columns."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from flyxr import hexgrid
from flyxr.errors import Problem
from flyxr.optics import DEGREES_PER_COLUMN, EXTENT, GREY, STIMULUS_DT
from flyxr.stimuli import base, columns
from flyxr.stimuli.recording import recorded

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import ArrayLike, NDArray

    from flyxr.arguments import Duration

_PARAMETERS = ("angle", "spatial_frequency", "temporal_frequency", "contrast")


@recorded()
def gratings(
    angles: ArrayLike = tuple(range(0, 360, 30)),
    spatial_frequencies: ArrayLike = 1 / 30,
    temporal_frequencies: ArrayLike = 1.0,
    contrasts: ArrayLike = 1.0,
    *,
    t_stim: Duration = 2.0,
    t_pre: Duration = 1.0,
    t_post: Duration = 1.0,
    dt: Duration = STIMULUS_DT,
    extent: int = EXTENT,
) -> xr.Dataset:
    """Sine gratings that drift across the field, with grey before and after.

    The luminance of a column at ``s`` degrees from the middle along the direction of motion is
    ``0.5 * (1 + contrast * sin(2 * pi * (spatial_frequency * s - temporal_frequency * t)))``. Positions are those of
    the lattice, ``x_column`` and ``y_column`` times 5.8 degrees; a column samples the point in its middle.

    Parameters
    ----------
    angles
        Direction of motion, degrees: 0 to the right (toward larger ``x_column``), 90 upward (toward larger
        ``y_column``).
    spatial_frequencies
        Cycles per degree.
    temporal_frequencies
        Hz; 0 is a static grating.
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
        One error, a ValueError, for all invalid arguments. These include temporal frequencies of 1 / (2 dt) and above,
        and spatial frequencies that the lattice aliases to another direction: from 0.0995 cycles per degree on at 0
        degrees, and from 0.1149 on at 30 degrees.

    Notes
    -----
    The lattice resolves a wave that is nearer to zero than to any of its six shortest reciprocal vectors, which lie at
    multiples of 60 degrees and have 2 / sqrt(3) cycles per column.

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
    arguments = columns.stimulus_arguments()
    extent = arguments.integer("extent", extent, least=1)
    dt = arguments.duration("dt", dt)
    values = (
        arguments.numbers("angles", angles, "degrees"),
        arguments.numbers("spatial_frequencies", spatial_frequencies, "cycles/degree", above=0),
        arguments.numbers("temporal_frequencies", temporal_frequencies, "Hz", least=0),
        arguments.numbers("contrasts", contrasts, "Michelson contrast", above=0, most=1),
    )
    t_stim = columns.duration_of_frames(arguments, "t_stim", t_stim, dt)
    t_pre = columns.duration_around(arguments, "t_pre", t_pre)
    t_post = columns.duration_around(arguments, "t_post", t_post)
    samples = np.array(list(itertools.product(*values))).reshape(-1, len(_PARAMETERS))
    undersampled = values[2][values[2] * dt >= 0.5 * (1 - 1e-9)]
    if undersampled.size:
        arguments.problems.append(
            Problem(
                f"dt={dt:g} s undersamples temporal_frequencies {undersampled.tolist()} Hz",
                f"use dt below {0.5 / undersampled.max():.3g}, or leave these out",
            )
        )
    limit = _highest_frequency(samples[:, 0])
    is_aliased = samples[:, 1] >= limit * (1 - 1e-9)
    if is_aliased.any():
        unique = np.unique(samples[is_aliased, :2], axis=0)[:6].tolist()
        pairs = ", ".join(f"{frequency:.4g} at angle {angle:g}" for angle, frequency in unique)
        arguments.problems.append(
            Problem(
                f"columns undersample spatial_frequencies {pairs}",
                f"use less than {limit[is_aliased].min():.4g} cycles/degree",
            )
        )
    arguments.raise_problems()

    n_before, n_moving, n_after = (columns.n_frames(time, dt) for time in (t_pre, t_stim, t_post))
    n_frames = n_before + n_moving + n_after
    return columns.wrap(
        base.generate(
            _draw_gratings,
            len(samples),
            (n_frames, hexgrid.n_columns(extent)),
            samples=samples,
            n_frames=n_frames,
            motion=slice(n_before, n_before + n_moving),
            dt=dt,
            extent=extent,
        ),
        dt,
        n_before,
        extent,
        sample_coords={
            **dict(zip(_PARAMETERS, samples.T, strict=True)),
            "speed": samples[:, 2] / samples[:, 1] / DEGREES_PER_COLUMN,
            "t_stim": np.full(len(samples), t_stim),
        },
    )


def _highest_frequency(angle: NDArray[np.float64]) -> NDArray[np.float64]:
    """Spatial frequency, cycles per degree, from which on the lattice aliases motion to another angle."""
    angle_to_reciprocal = np.radians((angle + 30) % 60 - 30)
    return np.asarray(1 / (np.sqrt(3) * np.cos(angle_to_reciprocal) * DEGREES_PER_COLUMN))


def _draw_gratings(
    indices: NDArray[np.int64],
    *,
    samples: NDArray[np.float64],
    n_frames: int,
    motion: slice,
    dt: float,
    extent: int,
) -> NDArray[np.float32]:
    """Frames (index, time, column) of samples (sample, parameter)."""
    x, y = hexgrid.positions(*hexgrid.columns(extent))
    time = np.arange(motion.stop - motion.start)[:, None] * dt
    frames = np.full((indices.size, n_frames, x.size), GREY, np.float32)
    for sequence, (angle, spatial, temporal, contrast) in zip(frames, samples[indices].tolist(), strict=True):
        distance = (x * np.cos(np.radians(angle)) + y * np.sin(np.radians(angle))) * DEGREES_PER_COLUMN
        wave = np.sin(2 * np.pi * (spatial * distance - temporal * time))
        sequence[motion] = GREY * (1 + contrast * wave)
    return frames
