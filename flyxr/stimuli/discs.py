"""Discs of light or darkness on grey: flashes and impulses."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from flyxr import hexgrid
from flyxr.errors import Problem
from flyxr.stimuli import arrays, columns

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr
    from numpy.typing import ArrayLike, NDArray


def flashes(
    radius: ArrayLike = (-1, 6),
    intensities: ArrayLike = (0, 1),
    *,
    alternations: Sequence[int] = (0, 1, 0),
    t_stim: float = 1.0,
    t_pre: float = 1.0,
    dt: float = 1 / 200,
    baseline: float = columns.GREY,
    extent: int = 15,
) -> xr.Dataset:
    """Flashes of discs around the central column, or of the whole field.

    The same numbers as ``flyvis.datasets.flashes.Flashes`` with its ``dynamic_range`` as intensities and the middle of
    it as baseline, where that gives any: here at every extent, for any number of intensities.

    Parameters
    ----------
    radius
        Radius of the disc, columns, one or several; -1 is the whole field.
    intensities
        Luminance of the disc, 0 to 1, one or several.
    alternations
        0 for the baseline during ``t_pre``, 1 for the disc during ``t_stim``; it starts with 0 and has a 1.
    t_stim, t_pre
        Duration of each 1 and of each 0, s; cut to whole frames as flyvis does it, which may cost one by rounding
        (0.3 s have 2 frames of 0.1 s).
    dt
        Time step, s.
    baseline
        Luminance before and after the flash, and around it.
    extent
        Radius of the lattice, columns.

    Returns
    -------
    Dataset
        ``luminance`` (sample, time, column), float32, lazy; time 0 is the onset of the first flash. Coordinates on
        ``sample``: ``intensity`` (varies slowest), ``radius``, ``t_stim``.

    Raises
    ------
    SchemaError
        One error, a ValueError, for all arguments that make no flashes, among them a ``dt`` longer than a phase.

    Examples
    --------
    >>> rendering = flashes(radius=6, dt=1 / 100)
    >>> dict(rendering.luminance.sizes), rendering.intensity.values, float(rendering.time[0])
    ({'sample': 2, 'time': 300, 'column': 721}, array([0., 1.]), -1.0)
    """
    check = columns.Arguments()
    extent = check.integer("extent", extent, least=0)
    dt = check.number("dt", dt, "s", above=0)
    radii = check.numbers("radius", radius, "columns", least=-1)
    if (radii % 1 != 0).any():
        check.problems.append(f"expected radius as whole columns, or -1 for the whole field, got {radii.tolist()}")
    levels = check.numbers("intensities", intensities, "luminance", least=0, most=1)
    baseline = check.number("baseline", baseline, "luminance", least=0, most=1)
    t_stim, t_pre = check.duration("t_stim", t_stim, dt), check.duration("t_pre", t_pre, dt)
    pattern = tuple(np.atleast_1d(np.asarray(alternations)).tolist())
    if not (set(pattern) == {0, 1} and pattern[0] == 0):
        check.problems.append(
            Problem(
                f"expected alternations of 0 (baseline) and 1 (flash) that start with 0, got {pattern}",
                "e.g. (0, 1, 0)",
            )
        )
    check.raise_problems()

    grey, lit = columns.n_frames_truncated(t_pre, dt), columns.n_frames_truncated(t_stim, dt)
    shown = np.concatenate([np.full(lit if phase else grey, bool(phase)) for phase in pattern])
    samples = np.array(list(itertools.product(levels, radii)))
    discs = np.column_stack([np.zeros((len(samples), 2)), samples[:, 1], samples[:, 0]])
    return columns.wrap(
        _generate(discs, shown, baseline, extent),
        dt,
        int(shown.argmax()),
        extent,
        operation="flashes",
        arguments={
            "radius": radii,
            "intensities": levels,
            "alternations": [int(phase) for phase in pattern],
            "t_stim": t_stim,
            "t_pre": t_pre,
            "dt": dt,
            "baseline": baseline,
            "extent": extent,
        },
        sample_coords={"intensity": samples[:, 0], "radius": samples[:, 1], "t_stim": np.full(len(samples), t_stim)},
    )


def impulses(
    position: str | int | tuple[int, int] | Sequence[int | tuple[int, int]] = "central",
    intensities: ArrayLike = (0, 1),
    *,
    duration: float | None = None,
    t_pre: float = 1.0,
    t_post: float = 1.0,
    dt: float = 1 / 200,
    extent: int = 15,
) -> xr.Dataset:
    """Brief flashes of single columns or of the whole field on grey, for impulse responses and receptive fields.

    Parameters
    ----------
    position
        ``"central"``: the column u = v = 0. ``"whole"``: the whole field at once. A column as ``(u, v)`` or by its
        label, or a list of columns, each in a sample of its own. ``"all"``: every column of the lattice;
        ``"within 3"``: those at most 3 columns from the central one.
    intensities
        Luminance of the impulse, 0 to 1, one or several: above 0.5 positive impulses, below negative ones.
    duration
        Of the impulse, s; one time step if None.
    t_pre, t_post
        Grey before and after it, s.
    dt
        Time step, s.
    extent
        Radius of the lattice, columns.

    Returns
    -------
    Dataset
        ``luminance`` (sample, time, column), float32, lazy; time 0 is the onset. Coordinates on ``sample``:
        ``u_impulse`` and ``v_impulse`` (the position varies slowest), ``radius`` (0 for a column, -1 for the whole
        field), ``intensity``, ``t_stim``.

    Raises
    ------
    SchemaError
        One error, a ValueError, for all arguments that make no impulses, among them a ``dt`` above the duration.

    Notes
    -----
    Single columns as in ``flyvis.datasets.dots.SpatialImpulses``, whose two intensities lie as far below grey as above.

    Examples
    --------
    >>> rendering = impulses([(0, 0), (1, -1)], intensities=1, duration=0.02, dt=1 / 100)
    >>> dict(rendering.luminance.sizes), rendering.u_impulse.values
    ({'sample': 2, 'time': 202, 'column': 721}, array([0, 1]))
    >>> impulses("within 2", intensities=1).sizes["sample"]
    19
    """
    check = columns.Arguments()
    extent = check.integer("extent", extent, least=0)
    dt = check.number("dt", dt, "s", above=0)
    levels = check.numbers("intensities", intensities, "luminance", least=0, most=1)
    duration = check.duration("duration", dt if duration is None else duration, dt) if dt else 0.0
    t_pre, t_post = check.number("t_pre", t_pre, "s", least=0), check.number("t_post", t_post, "s", least=0)
    u, v, radius = _positions(position, extent, check.problems)
    check.raise_problems()

    before, lit, after = (columns.n_frames(time, dt) for time in (t_pre, duration, t_post))
    shown = np.repeat([False, True, False], [before, lit, after])
    places, intensity = (grid.ravel() for grid in np.meshgrid(np.arange(u.size), levels, indexing="ij"))
    discs = np.column_stack([u[places], v[places], np.full(places.size, radius), intensity])
    return columns.wrap(
        _generate(discs, shown, columns.GREY, extent),
        dt,
        before,
        extent,
        operation="impulses",
        arguments={
            "position": position if isinstance(position, str) else np.stack([u, v], axis=1),
            "intensities": levels,
            "duration": duration,
            "t_pre": t_pre,
            "t_post": t_post,
            "dt": dt,
            "extent": extent,
        },
        sample_coords={
            "u_impulse": u[places],
            "v_impulse": v[places],
            "radius": discs[:, 2],
            "intensity": intensity,
            "t_stim": np.full(places.size, duration),
        },
    )


def _positions(
    position: Any, extent: int, problems: list[str | Problem]
) -> tuple[NDArray[np.int64], NDArray[np.int64], float]:
    """Axial coordinates (position,) of the discs, and their radius."""
    u, v = hexgrid.columns(extent)
    middle = np.zeros(1, np.int64)
    if isinstance(position, str):
        name, _, within = position.partition("within ")
        if position in ("central", "whole"):
            return middle, middle, -1.0 if position == "whole" else 0.0
        if position == "all" or (not name and within.isdecimal()):
            near = np.maximum.reduce([np.abs(u), np.abs(v), np.abs(u + v)]) <= (int(within) if within else extent)
            return u[near], v[near], 0.0
        problems.append(
            f"expected position 'central', 'whole', 'all', 'within 3', (u, v), a column label or a list of these two, "
            f"got {position!r}"
        )
        return middle, middle, 0.0
    wanted = [position] if isinstance(position, tuple) or np.isscalar(position) else list(position)
    found: list[int] = []
    unknown = []
    for item in wanted:
        try:
            place = np.asarray(item)
        except ValueError:  # of a ragged list
            place = np.empty(0)
        index = -1
        if place.shape == (2,) and place.dtype.kind in "iu":
            index = int(hexgrid.column_index(place[0], place[1], extent))
        elif place.shape == () and place.dtype.kind in "iu" and 0 <= place < u.size:
            index = int(place)
        if index < 0:
            unknown.append(item)
        found.append(index)
    if unknown or not found:
        problems.append(
            f"expected position as columns of a lattice of extent {extent}, (u, v) or labels from 0 to {u.size - 1}, "
            f"got {unknown or 'an empty list'}"
        )
        return middle, middle, 0.0
    return u[found], v[found], 0.0


def _generate(discs: NDArray[np.float64], shown: NDArray[np.bool_], background: float, extent: int) -> Any:
    shape = (shown.size, hexgrid.n_columns(extent))
    return arrays.generate(_discs, len(discs), shape, discs=discs, shown=shown, background=background, extent=extent)


def _discs(
    indices: NDArray[np.int64], *, discs: NDArray[np.float64], shown: NDArray[np.bool_], background: float, extent: int
) -> NDArray[np.float32]:
    """Frames (index, time, column) of discs, which are (sample, [u, v, radius, intensity])."""
    u, v = hexgrid.columns(extent)
    out = np.full((indices.size, shown.size, u.size), background, np.float32)
    for sequence, (u_middle, v_middle, radius, intensity) in zip(out, discs[indices], strict=True):
        du, dv = u - u_middle, v - v_middle
        distance = np.maximum.reduce([np.abs(du), np.abs(dv), np.abs(du + dv)])
        inside = np.ones(u.size, bool) if radius == -1 else distance <= radius
        sequence[np.ix_(shown, inside)] = intensity
    return out
