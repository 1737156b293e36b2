"""Edges and bars that move across the field, as flyvis's monitor and hexagonal eye show them.

A moving edge steps through a set of still pictures, which are 2.25 degrees apart along the direction of motion (the
width of an LED of the monitor of Gruntman et al. 2018). :mod:`flyxr.stimuli.monitor` draws them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from flyxr import hexgrid
from flyxr.errors import Problem
from flyxr.optics import DEGREES_PER_COLUMN, DEGREES_PER_LED, EXTENT, GREY, STIMULUS_DT
from flyxr.stimuli import base, columns, monitor
from flyxr.stimuli.recording import recorded

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import ArrayLike, NDArray

    from flyxr.arguments import Arguments, Duration

ANGLES = tuple(range(0, 360, 30))
"""Default directions of motion, degrees."""
SPEEDS = (2.4, 4.8, 9.7, 13.0, 19.0, 25.0)
"""Default speeds, columns/s."""
OFFSETS = (-22.5, 22.5)
"""Default first and last position, degrees."""


@recorded()
def moving_edges(
    angles: ArrayLike = ANGLES,
    speeds: ArrayLike = SPEEDS,
    intensities: ArrayLike = (0, 1),
    *,
    offsets: tuple[float, float] = OFFSETS,
    height: float = monitor.FULL_FIELD,
    t_pre: Duration = 1.0,
    t_post: Duration = 1.0,
    dt: Duration = STIMULUS_DT,
    extent: int = EXTENT,
) -> xr.Dataset:
    """Edges that move across grey and leave their luminance behind.

    The same numbers as ``flyvis.datasets.moving_bar.MovingEdge``, except for two defects. Grey is exactly 0.5 while the
    edge moves, where flyvis has 127/255 and other levels rounded to 1/255 (together at most 0.0021 off). Samples that
    end before the slowest are padded with grey, where flyvis has NaN.

    Parameters
    ----------
    angles
        Direction of motion, degrees, counter-clockwise: at 0 the edge moves to the right (toward larger ``x_column``),
        at 90 upward (toward larger ``y_column``).
    speeds
        Columns per second; a column is 5.8 degrees wide.
    intensities
        Luminance of the edge, 0 to 1: 1 is an ON edge and 0 an OFF edge on the grey of 0.5.
    offsets
        First and last position of the edge along its direction, degrees from the middle, a multiple of 2.25 apart.
    height
        Length of the edge, degrees; 180 or more fills the field.
    t_pre, t_post
        Duration of the grey before the motion and of the last frame after it, s.
    dt
        Time step, s.
    extent
        Radius of the lattice, columns. A column sees the same at every extent.

    Returns
    -------
    Dataset
        ``luminance`` (sample, time, column), float32, lazy, with time 0 at the onset of motion. Coordinates on
        ``sample``: ``angle`` (varies slowest), ``intensity``, ``speed``, ``t_stim`` (from the first to the last
        position), ``first_offset`` and, if speeds differ, ``t_end``: frames from then on are padding.

    Raises
    ------
    SchemaError
        One error, a ValueError, for all invalid arguments, including angles at which no column sees the motion, and
        speeds of more than one column per time step.

    Notes
    -----
    Quirks of flyvis that published results depend on are kept:

    - Positions are truncated to whole pixels of 0.23 degrees, and ``t_stim`` to whole frames.
    - The last position is shown for a single frame. The edge moves by 20 positions in the time of 21, 5 % slower than
      ``speed``.
    - The monitor's lattice of hexagons is 2 / sqrt(3) wider than that of the columns. An edge at angle 0 crosses 0.87
      ``x_column`` in the time in which one at 90 crosses 1 ``y_column``. :func:`flyxr.stimuli.gratings` are drawn on
      the lattice itself.

    Examples
    --------
    >>> rendering = moving_edges(angles=[0, 90], speeds=[9.7, 19], intensities=1, dt=1 / 100)
    >>> dict(rendering.luminance.sizes), rendering.speed.values, rendering.t_end.values
    ({'sample': 4, 'time': 283, 'column': 721}, array([ 9.7, 19. , 9.7, 19. ]), array([1.83, 1.42, 1.83, 1.42]))
    """
    return _make_stimulus(True, angles, (), speeds, intensities, offsets, height, t_pre, t_post, dt, extent)


@recorded()
def moving_bars(
    angles: ArrayLike = ANGLES,
    widths: ArrayLike = (2.25, 4.5, 9.0),
    speeds: ArrayLike = SPEEDS,
    intensities: ArrayLike = (0, 1),
    *,
    offsets: tuple[float, float] = OFFSETS,
    height: float = 9 * DEGREES_PER_LED,
    t_pre: Duration = 1.0,
    t_post: Duration = 1.0,
    dt: Duration = STIMULUS_DT,
    extent: int = EXTENT,
) -> xr.Dataset:
    """Bars that move across grey.

    The same numbers as ``flyvis.datasets.moving_bar.MovingBar``, except for its defects. See :func:`moving_edges` for
    conventions, quirks and defects.

    Parameters
    ----------
    angles
        Direction of motion, degrees: 0 to the right, 90 upward.
    widths
        Width of the bar along its direction, degrees (flyvis: LEDs of 2.25 degrees); truncated to whole pixels of 0.23
        degrees, plus one pixel.
    speeds
        Columns per second; a column is 5.8 degrees wide.
    intensities
        Luminance of the bar, 0 to 1.
    offsets
        First and last position of the bar's middle along its direction, degrees, a multiple of 2.25 apart.
    height
        Length of the bar across its direction, degrees; 180 or more fills the field.
    t_pre, t_post
        Duration of the grey before and after the motion, s.
    dt
        Time step, s.
    extent
        Radius of the lattice, columns.

    Returns
    -------
    Dataset
        ``luminance`` (sample, time, column), float32, lazy. Coordinates as in :func:`moving_edges`, with ``width``
        after ``angle``.

    Raises
    ------
    SchemaError
        As in :func:`moving_edges`.

    Examples
    --------
    >>> rendering = moving_bars(angles=0, widths=[2.25, 9], speeds=19, intensities=1, dt=1 / 100)
    >>> rendering.width.values, rendering.t_stim.values.round(4), "t_end" in rendering.coords
    (array([2.25, 9. ]), array([0.4288, 0.4288]), False)
    """
    return _make_stimulus(False, angles, widths, speeds, intensities, offsets, height, t_pre, t_post, dt, extent)


def _make_stimulus(
    is_edge: bool,
    angles: ArrayLike,
    widths: ArrayLike,
    speeds: ArrayLike,
    intensities: ArrayLike,
    offsets: tuple[float, float],
    height: float,
    t_pre: Duration,
    t_post: Duration,
    dt: Duration,
    extent: int,
) -> xr.Dataset:
    """Check the arguments of edges or bars, and wrap their samples; edges have no widths."""
    arguments = columns.stimulus_arguments()
    extent = arguments.integer("extent", extent, least=1)
    dt = arguments.duration("dt", dt)
    angles = arguments.numbers("angles", angles, "degrees")
    widths = np.array([np.inf]) if is_edge else arguments.numbers("widths", widths, "degrees", above=0)
    speeds = arguments.numbers("speeds", speeds, "columns/s", above=0)
    intensities = arguments.numbers("intensities", intensities, "luminance", least=0, most=1)
    height = arguments.number("height", height, "degrees", above=0)
    t_pre = columns.duration_around(arguments, "t_pre", t_pre)
    t_post = columns.duration_around(arguments, "t_post", t_post)
    first, n_positions = _check_offsets(offsets, arguments)
    duration = np.zeros(speeds.size)
    if n_positions and speeds.size and dt > 0:
        # in radians as in flyvis, since the last bit may decide over a frame
        duration = (n_positions * np.radians(DEGREES_PER_LED)) / (speeds * np.radians(DEGREES_PER_COLUMN))
        arguments.problems += columns.undersampling_problems("speeds", speeds, "columns/s", speeds, dt)
        for speed, t_stim in zip(speeds.tolist(), duration.tolist(), strict=True):
            if columns.n_frames_truncated(t_stim, dt) < 1:
                arguments.problems.append(
                    f"dt={dt:g} s undersamples speed {speed:g} columns/s, at which the motion lasts {t_stim:g} s"
                )
    if n_positions and angles.size and widths.size:
        max_width = 0.0 if is_edge else float(widths.max())
        arguments.problems += _visibility_problems(angles, max_width, first, n_positions, extent)
    arguments.raise_problems()

    grid = np.meshgrid(angles, widths, intensities, np.arange(speeds.size), indexing="ij")
    angle, width, intensity, speed_index = (values.ravel() for values in grid)
    speed_index = speed_index.astype(np.int64)
    n_before, n_after = (columns.n_frames_truncated(time, dt) for time in (t_pre, t_post))
    n_moving = np.array([columns.n_frames_truncated(t_stim, dt) for t_stim in duration.tolist()])
    n_frames = n_before + int(n_moving.max()) + n_after
    luminance = base.generate(
        _draw_sequences,
        speed_index.size,
        (n_frames, hexgrid.n_columns(extent)),
        samples=np.column_stack([angle, width, intensity]),
        n_moving=n_moving[speed_index],
        n_before=n_before,
        n_after=n_after,
        n_frames=n_frames,
        path=monitor.BarPath(0.0, 0.0, height, first, n_positions, extent),
    )
    coords = {"angle": angle} if is_edge else {"angle": angle, "width": width}
    coords |= {"intensity": intensity, "speed": speeds[speed_index], "t_stim": duration[speed_index]}
    coords["first_offset"] = np.full(speed_index.size, first * DEGREES_PER_LED)
    if np.unique(n_moving).size > 1:
        coords["t_end"] = (n_moving[speed_index] + n_after) * dt
    return columns.wrap(luminance, dt, n_before, extent, sample_coords=coords)


def _check_offsets(offsets: Any, arguments: Arguments) -> tuple[float, int]:
    """First position in LEDs and number of positions; 0 and 0 if they are invalid."""
    ends = arguments.numbers("offsets", offsets, "degrees", least=-monitor.FULL_FIELD / 2, most=monitor.FULL_FIELD / 2)
    if ends.size not in (0, 2):
        arguments.problems.append(
            Problem(f"expected offsets as (first, last), in degrees, got {offsets!r}", f"e.g. {OFFSETS}")
        )
    if ends.size != 2:
        return 0.0, 0
    first, last = (ends / DEGREES_PER_LED).round(9).tolist()
    steps = round(last - first, 9)
    if steps < 1 or steps % 1:
        arguments.problems.append(
            Problem(
                f"expected offsets from the first to a larger last one, a multiple of {DEGREES_PER_LED} degrees apart, "
                f"got {tuple(ends.tolist())}",
                f"e.g. {OFFSETS}; for motion the other way use angle + 180",
            )
        )
        return 0.0, 0
    return first, int(steps) + 1


def _visibility_problems(
    angles: NDArray[np.float64], width: float, first: float, n_positions: int, extent: int
) -> list[Problem]:
    """List the angles at which the path of a bar does not cross the lattice."""
    u, v = hexgrid.columns(extent)
    right, up = v * DEGREES_PER_COLUMN, -(u + v / 2) * DEGREES_PER_COLUMN
    position = np.cos(np.radians(angles))[:, None] * right + np.sin(np.radians(angles))[:, None] * up
    margin = DEGREES_PER_COLUMN / 2 + width / 2
    start, stop = first * DEGREES_PER_LED, (first + n_positions - 1) * DEGREES_PER_LED
    is_invisible = (position.max(axis=1) + margin <= start) | (position.min(axis=1) - margin >= stop)
    if not is_invisible.any():
        return []
    return [
        Problem(
            f"expected motion that a lattice of extent {extent} sees, got none from {start:g} to {stop:g} degrees at "
            f"angles {angles[is_invisible].tolist()}",
            f"choose offsets within {-position.max():.4g} and {position.max():.4g}, or a larger extent",
        )
    ]


def _draw_sequences(
    indices: NDArray[np.int64],
    *,
    samples: NDArray[np.float64],
    n_moving: NDArray[np.int64],
    n_before: int,
    n_after: int,
    n_frames: int,
    path: monitor.BarPath,
) -> NDArray[np.float32]:
    """Frames (index, time, column) of samples (sample, [angle, width, intensity])."""
    frames = np.full((indices.size, n_frames, hexgrid.n_columns(path.extent)), GREY, np.float32)
    for sequence, index in zip(frames, indices.tolist(), strict=True):
        angle, width, intensity = samples[index].tolist()
        coverage = monitor.column_coverage(path._replace(angle=angle, width=width))
        luminance = (GREY + (intensity - GREY) * coverage).astype(np.float32)
        onset, end = n_before, n_before + int(n_moving[index])
        sequence[onset:end] = luminance[positions_shown(path.n_positions, end - onset)]
        if math.isinf(width):  # an edge stays, a bar leaves grey
            sequence[end : end + n_after] = sequence[end - 1]
    return frames


def positions_shown(n_positions: int, n_frames: int) -> NDArray[np.int64]:
    """Index of the position that each frame shows (``flyvis.datasets.rendering.utils.resample``).

    Examples
    --------
    >>> positions_shown(3, 7)
    array([0, 0, 0, 1, 1, 1, 2])
    """
    # quirk: truncated to an integer, not rounded, so the last position gets a single frame; and from steps in float32,
    # counted from both ends to the middle as torch.linspace does, which may fall just short of an integer
    frame, step = np.arange(n_frames, dtype=np.float64), np.float32(n_positions - 1) / np.float32(max(n_frames - 1, 1))
    from_end = n_positions - 1 - float(step) * (n_frames - 1 - frame)  # rounded once, after both operations
    index = np.where(frame < n_frames // 2, float(step) * frame, from_end).astype(np.float32)
    return index.astype(np.int64) if n_frames > 1 else np.zeros(n_frames, np.int64)
