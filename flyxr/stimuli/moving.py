"""Edges and bars that move across the field, as flyvis's monitor and hexagonal eye show them.

A moving edge is one of a set of still pictures at a time, 2.25 degrees (the width of an LED of the monitor of Gruntman
et al. 2018) apart along the direction of motion. In a picture, a pixel is covered by edge or bar wholly, not at all or,
at its rim, in part; a column is covered by the mean over the pixels in its hexagon.

Pixels are in front of the eye here, not in a picture that is turned: along the axes of an edge at angle 0, turned
coordinates of a pixel say how much of it is covered, which is what bilinear interpolation of the turned picture gives.
flyvis turns the picture with Pillow in 8-bit greys. Done to these pixels, this step gives flyvis's numbers to 3e-8 (the
tests do it); it is left out, as it darkens the whole field by half a grey level (0.5 becomes 127/255) at onset.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from flyxr import hexgrid
from flyxr.errors import Problem
from flyxr.stimuli import arrays, columns

if TYPE_CHECKING:
    from collections.abc import Iterator

    import xarray as xr
    from numpy.typing import ArrayLike, NDArray

LED_DEGREES = 2.25
"""Distance between the places at which edges and bars are rendered, degree."""
ANGLES = tuple(range(0, 360, 30))
SPEEDS = (2.4, 4.8, 9.7, 13.0, 19.0, 25.0)
OFFSETS = (-22.5, 22.5)

_EXTENT, _PITCH = 15, 25  # columns, pixel: the eye and monitor of flyvis's edges and bars
_MIDDLE = _PITCH * (2 * _EXTENT + 1) // 2
_EVERYWHERE = 180.0  # degree: what is that wide or high fills the monitor


def moving_edges(
    angles: ArrayLike = ANGLES,
    speeds: ArrayLike = SPEEDS,
    intensities: ArrayLike = (0, 1),
    *,
    offsets: tuple[float, float] = OFFSETS,
    height: float = _EVERYWHERE,
    t_pre: float = 1.0,
    t_post: float = 1.0,
    dt: float = 1 / 200,
    extent: int = 15,
) -> xr.Dataset:
    """Edges that move across grey and leave their luminance behind.

    The same numbers as ``flyvis.datasets.moving_bar.MovingEdge``, but for what is a defect there: grey stays 0.5
    exactly while the edge moves, where flyvis has 127/255 and other levels rounded to 1/255 (together at most 0.0021
    off), and samples that end before the slowest are padded with grey, where flyvis has NaN.

    Parameters
    ----------
    angles
        Direction of motion, degree: at 0 the edge moves to the right (toward larger ``x_column``), at 90 upward (toward
        larger ``y_column``), counter-clockwise.
    speeds
        Columns per second, a column being 5.8 degrees.
    intensities
        Luminance of the edge, 0 to 1: 1 is an ON edge and 0 an OFF edge on the grey of 0.5.
    offsets
        First and last place of the edge along its direction, degree from the middle, a multiple of 2.25 apart.
    height
        Length of the edge, degree; 180 or more fills the field.
    t_pre, t_post
        Grey before, and the last frame held after the motion, s.
    dt
        Time step, s.
    extent
        Radius of the lattice, columns. The columns of a smaller lattice see what those of a larger one see there.

    Returns
    -------
    Dataset
        ``luminance`` (sample, time, column), float32, lazy, with time 0 at the onset of motion. Coordinates on
        ``sample``: ``angle`` (varies slowest), ``intensity``, ``speed``, ``t_stim`` (from the first to the last place),
        ``first_offset`` and, if speeds differ, ``t_end``: frames from then on are padding.

    Raises
    ------
    SchemaError
        One error, a ValueError, for all arguments that make no moving edge, among them angles at which no column sees
        it move, and speeds of more than a column in a time step.

    Notes
    -----
    Quirks of flyvis that published results used are kept: places are cut to whole pixels of 0.23 degrees; ``t_stim`` is
    cut to whole frames; the last place is shown for a single frame, so that the edge moves by 20 places in the time
    of 21, 5 % slower than ``speed``; and the monitor's lattice of hexagons is 2 / sqrt(3) wider than that of the
    columns, so that an edge at angle 0 crosses 0.87 ``x_column`` in the time in which one at 90 crosses 1
    ``y_column``. :func:`flyxr.stimuli.gratings` are drawn on the lattice itself.

    Examples
    --------
    >>> rendering = moving_edges(angles=[0, 90], speeds=[9.7, 19], intensities=1, dt=1 / 100)
    >>> dict(rendering.luminance.sizes), rendering.speed.values, rendering.t_end.values
    ({'sample': 4, 'time': 283, 'column': 721}, array([ 9.7, 19. , 9.7, 19. ]), array([1.83, 1.42, 1.83, 1.42]))
    """
    return _moving(
        "moving_edges",
        {"angles": angles, "speeds": speeds, "intensities": intensities},
        {"offsets": offsets, "height": height, "t_pre": t_pre, "t_post": t_post, "dt": dt, "extent": extent},
    )


def moving_bars(
    angles: ArrayLike = ANGLES,
    widths: ArrayLike = (2.25, 4.5, 9.0),
    speeds: ArrayLike = SPEEDS,
    intensities: ArrayLike = (0, 1),
    *,
    offsets: tuple[float, float] = OFFSETS,
    height: float = 9 * LED_DEGREES,
    t_pre: float = 1.0,
    t_post: float = 1.0,
    dt: float = 1 / 200,
    extent: int = 15,
) -> xr.Dataset:
    """Bars that move across grey.

    The same numbers as ``flyvis.datasets.moving_bar.MovingBar``, but for what is a defect there: see
    :func:`moving_edges`, which has the same conventions and quirks.

    Parameters
    ----------
    angles
        Direction of motion, degree: 0 to the right, 90 upward.
    widths
        Of the bar along its direction, degree (flyvis: LEDs of 2.25 degrees); cut to whole pixels of 0.23 degrees, and
        one pixel more.
    speeds
        Columns per second, a column being 5.8 degrees.
    intensities
        Luminance of the bar, 0 to 1.
    offsets
        First and last place of the bar's middle along its direction, degree, a multiple of 2.25 apart.
    height
        Length of the bar across its direction, degree; 180 or more fills the field.
    t_pre, t_post
        Grey before and after the motion, s.
    dt
        Time step, s.
    extent
        Radius of the lattice, columns.

    Returns
    -------
    Dataset
        ``luminance`` (sample, time, column), float32, lazy. Coordinates as of :func:`moving_edges`, and ``width`` after
        ``angle``.

    Raises
    ------
    SchemaError
        As :func:`moving_edges`.

    Examples
    --------
    >>> rendering = moving_bars(angles=0, widths=[2.25, 9], speeds=19, intensities=1, dt=1 / 100)
    >>> rendering.width.values, rendering.t_stim.values.round(4), "t_end" in rendering.coords
    (array([2.25, 9. ]), array([0.4288, 0.4288]), False)
    """
    return _moving(
        "moving_bars",
        {"angles": angles, "widths": widths, "speeds": speeds, "intensities": intensities},
        {"offsets": offsets, "height": height, "t_pre": t_pre, "t_post": t_post, "dt": dt, "extent": extent},
    )


class _Path(NamedTuple):
    """Places at which a bar is rendered, and its size."""

    angle: float  # degree
    width: float  # degree; infinite for an edge
    height: float  # degree
    first: float  # LED
    n_places: int
    extent: int


def _moving(operation: str, lists: dict[str, Any], scalars: dict[str, Any]) -> xr.Dataset:
    """Check the arguments of an edge or a bar, and wrap its samples."""
    check = columns.Arguments()
    extent = check.integer("extent", scalars["extent"], least=1)
    dt = check.number("dt", scalars["dt"], "s", above=0)
    angles = check.numbers("angles", lists["angles"], "degree")
    bars = "widths" in lists
    widths = check.numbers("widths", lists["widths"], "degree", above=0) if bars else np.array([np.inf])
    speeds = check.numbers("speeds", lists["speeds"], "columns/s", above=0)
    intensities = check.numbers("intensities", lists["intensities"], "luminance", least=0, most=1)
    height = check.number("height", scalars["height"], "degree", above=0)
    t_pre, t_post = (check.number(name, scalars[name], "s", least=0) for name in ("t_pre", "t_post"))
    first, n_places = _places(scalars["offsets"], check)
    duration = np.zeros(speeds.size)
    if n_places and speeds.size and dt:
        # in radians, as flyvis has it: the last bit decides over a frame
        duration = (n_places * np.radians(LED_DEGREES)) / (speeds * np.radians(columns.COLUMN_DEGREES))
        check.problems += columns.too_fast("speeds", speeds, "columns/s", speeds, dt)
        for speed, t_stim in zip(speeds.tolist(), duration.tolist(), strict=True):
            if columns.n_frames_truncated(t_stim, dt) < 1:
                check.problems.append(f"dt={dt:g} s undersamples speed {speed:g} columns/s, which lasts {t_stim:g} s")
    if n_places and angles.size and widths.size:
        check.problems += _unseen(angles, float(widths.max()) if bars else 0.0, first, n_places, extent)
    check.raise_problems()

    grid = np.meshgrid(angles, widths, intensities, np.arange(speeds.size), indexing="ij")
    angle, width, intensity, which = (values.ravel() for values in grid)
    which = which.astype(np.int64)
    before, after = (columns.n_frames_truncated(time, dt) for time in (t_pre, t_post))
    moving = np.array([columns.n_frames_truncated(t_stim, dt) for t_stim in duration.tolist()])
    n_frames = before + int(moving.max()) + after
    luminance = arrays.generate(
        _sequences,
        which.size,
        (n_frames, hexgrid.n_columns(extent)),
        samples=np.column_stack([angle, width, intensity]),
        moving=moving[which],
        before=before,
        after=after,
        n_frames=n_frames,
        stays=not bars,
        path=_Path(0.0, 0.0, height, first, n_places, extent),
    )
    coords = {"angle": angle, "width": width, "intensity": intensity, "speed": speeds[which], "t_stim": duration[which]}
    if not bars:
        del coords["width"]
    coords["first_offset"] = np.full(which.size, first * LED_DEGREES)
    if np.unique(moving).size > 1:
        coords["t_end"] = (moving[which] + after) * dt
    arguments = {"angles": angles, "widths": widths, "speeds": speeds, "intensities": intensities}
    arguments = {name: values for name, values in arguments.items() if name in lists}
    rest = {
        "offsets": [float(offset) for offset in scalars["offsets"]],
        "height": height,
        "t_pre": t_pre,
        "t_post": t_post,
        "dt": dt,
        "extent": extent,
    }
    return columns.wrap(
        luminance, dt, before, extent, operation=operation, arguments={**arguments, **rest}, sample_coords=coords
    )


def _places(offsets: Any, check: columns.Arguments) -> tuple[float, int]:
    """First place in LEDs, and how many there are; 0 if something is wrong with them."""
    ends = check.numbers("offsets", offsets, "degree", least=-_EVERYWHERE / 2, most=_EVERYWHERE / 2)
    if ends.size not in (0, 2):
        check.problems.append(
            Problem(f"expected offsets as (first, last), in degree, got {offsets!r}", f"e.g. {OFFSETS}")
        )
    if ends.size != 2:
        return 0.0, 0
    first, last = (ends / LED_DEGREES).round(9).tolist()
    steps = round(last - first, 9)
    if steps < 1 or steps % 1:
        check.problems.append(
            Problem(
                f"expected offsets from the first to a larger last one, a multiple of {LED_DEGREES} degrees apart, "
                f"got {tuple(ends.tolist())}",
                f"e.g. {OFFSETS}; motion the other way has the angle + 180",
            )
        )
        return 0.0, 0
    return first, int(steps) + 1


def _unseen(angles: NDArray[np.float64], width: float, first: float, n_places: int, extent: int) -> list[Problem]:
    """List the angles at which the path of a bar does not cross the lattice."""
    u, v = hexgrid.columns(extent)
    right, up = v * columns.COLUMN_DEGREES, -(u + v / 2) * columns.COLUMN_DEGREES
    along = np.cos(np.radians(angles))[:, None] * right + np.sin(np.radians(angles))[:, None] * up
    reach = columns.COLUMN_DEGREES / 2 + width / 2
    start, stop = first * LED_DEGREES, (first + n_places - 1) * LED_DEGREES
    unseen = (along.max(axis=1) + reach <= start) | (along.min(axis=1) - reach >= stop)
    if not unseen.any():
        return []
    return [
        Problem(
            f"expected motion that a lattice of extent {extent} sees, got none from {start:g} to {stop:g} degrees at "
            f"angles {angles[unseen].tolist()}",
            f"choose offsets within {-along.max():.4g} and {along.max():.4g}, or a larger extent",
        )
    ]


def _sequences(
    indices: NDArray[np.int64],
    *,
    samples: NDArray[np.float64],
    moving: NDArray[np.int64],
    before: int,
    after: int,
    n_frames: int,
    stays: bool,
    path: _Path,
) -> NDArray[np.float32]:
    """Frames (index, time, column) of the samples (sample, [angle, width, intensity])."""
    out = np.full((indices.size, n_frames, hexgrid.n_columns(path.extent)), columns.GREY, np.float32)
    for sequence, index in zip(out, indices.tolist(), strict=True):
        angle, width, intensity = samples[index].tolist()
        coverage = _coverage(path._replace(angle=angle, width=width))
        frames = (columns.GREY + (intensity - columns.GREY) * coverage).astype(np.float32)
        onset, end = before, before + int(moving[index])
        sequence[onset:end] = frames[places_shown(path.n_places, end - onset)]
        if stays:
            sequence[end : end + after] = sequence[end - 1]
    return out


def places_shown(n_places: int, n_frames: int) -> NDArray[np.int64]:
    """Which place each frame shows (``flyvis.datasets.rendering.utils.resample``).

    Examples
    --------
    >>> places_shown(3, 7)
    array([0, 0, 0, 1, 1, 1, 2])
    """
    # quirk: cut to an integer, not rounded, so the last place gets a single frame; and from steps in float32, counted
    # from both ends to the middle as torch.linspace does it, which falls short of an integer here and there
    frame, step = np.arange(n_frames, dtype=np.float64), np.float32(n_places - 1) / np.float32(max(n_frames - 1, 1))
    from_end = n_places - 1 - float(step) * (n_frames - 1 - frame)  # rounded once, after both operations
    place = np.where(frame < n_frames // 2, float(step) * frame, from_end).astype(np.float32)
    return place.astype(np.int64) if n_frames > 1 else np.zeros(n_frames, np.int64)


class _Monitor(NamedTuple):
    """Pixels in hexagons, those of one column beside each other."""

    row: NDArray[np.int64]  # (pixel,), counted in flyvis's monitor, downward
    column: NDArray[np.int64]  # (pixel,)
    start: NDArray[np.int64]  # (column,) first pixel of each hexagon

    def mean(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Mean over the pixels of each hexagon, (pixel,) to (column,)."""
        n_pixels = np.diff(self.start, append=values.size)
        return np.asarray(np.add.reduceat(values, self.start) / n_pixels)


@functools.lru_cache(maxsize=4)
def _monitor(extent: int) -> _Monitor:
    # smaller lattices are the middle of the eye that flyvis has, so that a column sees the same in both
    of_eye = max(extent, _EXTENT)
    u, v = hexgrid.columns(extent)
    own = np.full(hexgrid.n_columns(of_eye) + 1, -1)
    own[hexgrid.column_index(u, v, of_eye)] = np.arange(u.size)
    index = own[hexgrid.pixel_to_hex(of_eye, _PITCH)]
    row, column = np.nonzero(index >= 0)
    index = index[row, column]
    order = np.argsort(index, kind="stable")
    margin = _PITCH * (of_eye - _EXTENT)
    start = np.searchsorted(index[order], np.arange(u.size))
    return _Monitor(row[order] - margin, column[order] - margin, start)


def _turned(monitor: _Monitor, angle: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coordinates of pixels along and across the direction of motion, in pixels of the picture at angle 0."""
    # rounded like Pillow's, so that right angles keep whole pixels
    turn = -math.radians(angle % 360)
    cos, sin = round(math.cos(turn), 15), round(math.sin(turn), 15)
    right, down = monitor.column - _MIDDLE, monitor.row - _MIDDLE
    return cos * right + sin * down + _MIDDLE, cos * down - sin * right + _MIDDLE


def _between(place: NDArray[np.float64], start: float, stop: float) -> NDArray[np.float64]:
    """How much of a pixel at some place lies in the pixels start to stop - 1, interpolated."""
    return np.clip(place - (start - 1), 0, 1) - np.clip(place - (stop - 1), 0, 1)


def _pictures(path: _Path) -> Iterator[NDArray[np.float64]]:
    """How much of each pixel in a hexagon is covered, (pixel,), place by place."""
    along, across = _turned(_monitor(path.extent), path.angle)
    size = 2 * _MIDDLE + 1
    edge = math.isinf(path.width)

    def pixels(degrees: float) -> int:
        return int(math.radians(degrees) / np.radians(columns.COLUMN_DEGREES) * _PITCH)

    inside = np.ones(along.size)
    if path.height < _EVERYWHERE:
        high = pixels(path.height)
        inside = _between(across, int(_MIDDLE - high / 2), int(_MIDDLE + high / 2) + 1)
    # an edge is a bar as wide as the monitor that starts left of it
    wide = pixels(_EVERYWHERE if edge else path.width)
    middle = 0.0 if edge else np.radians(90)
    for led in range(path.n_places):
        # quirk: places are counted as if the monitor were 180 degrees wide, which is 31 columns of 5.81 and not 5.8
        # degrees, and cut to whole pixels, toward zero
        place = int(size * (middle + (path.first + led) * np.radians(LED_DEGREES)) / np.radians(180))
        start = int(place - wide / 2)
        stop = start + wide + 1
        yield _between(along, -math.inf if edge else start, stop) * inside


@functools.lru_cache(maxsize=64)
def _coverage(path: _Path) -> NDArray[np.float64]:
    """How much of each column is covered at each place, (place, column), read-only."""
    monitor = _monitor(path.extent)
    coverage = np.stack([monitor.mean(picture) for picture in _pictures(path)])
    coverage.flags.writeable = False
    return coverage
