"""Discs of light or darkness on grey: flashes and impulses."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from flyxr import hexgrid
from flyxr.arguments import as_int, as_seconds, shorten
from flyxr.errors import Problem
from flyxr.optics import EXTENT, GREY, STIMULUS_DT
from flyxr.stimuli import base, columns
from flyxr.stimuli.recording import recorded

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import xarray as xr
    from numpy.typing import ArrayLike, NDArray

    from flyxr.arguments import Duration


@recorded()
def flashes(
    radius: ArrayLike = (-1, 6),
    intensities: ArrayLike = (0, 1),
    *,
    alternations: Sequence[int] = (0, 1, 0),
    t_stim: Duration = 1.0,
    t_pre: Duration = 1.0,
    dt: Duration = STIMULUS_DT,
    baseline: float = GREY,
    extent: int = EXTENT,
) -> xr.Dataset:
    """Flashes of discs around the central column, or of the whole field.

    The same numbers as ``flyvis.datasets.flashes.Flashes`` with its ``dynamic_range`` as intensities and the middle of
    that range as baseline; here at every extent and for any number of intensities.

    Parameters
    ----------
    radius
        Radius of the disc, columns, one or several; -1 is the whole field.
    intensities
        Luminance of the disc, 0 to 1, one or several.
    alternations
        Sequence of phases: 0 for the baseline during ``t_pre``, 1 for the disc during ``t_stim``. Starts with 0 and
        contains a 1.
    t_stim, t_pre
        Duration of each 1 and of each 0, s; truncated to whole frames as in flyvis, which may lose one by rounding
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
        One error, a ValueError, for all invalid arguments, including a ``dt`` longer than a phase.

    Examples
    --------
    >>> rendering = flashes(radius=6, dt=1 / 100)
    >>> dict(rendering.luminance.sizes), rendering.intensity.values, float(rendering.time[0])
    ({'sample': 2, 'time': 300, 'column': 721}, array([0., 1.]), -1.0)
    """
    arguments = columns.stimulus_arguments()
    extent = arguments.integer("extent", extent, least=0)
    dt = arguments.duration("dt", dt)
    radii = arguments.numbers("radius", radius, "columns", least=-1)
    if (radii % 1 != 0).any():
        arguments.problems.append(f"expected radius as whole columns, or -1 for the whole field, got {radii.tolist()}")
    luminances = arguments.numbers("intensities", intensities, "luminance", least=0, most=1)
    baseline = arguments.number("baseline", baseline, "luminance", least=0, most=1)
    t_stim = columns.duration_of_frames(arguments, "t_stim", t_stim, dt)
    t_pre = columns.duration_of_frames(arguments, "t_pre", t_pre, dt)
    phases = arguments.numbers("alternations", alternations).tolist()
    if phases and not (set(phases) == {0, 1} and phases[0] == 0):
        arguments.problems.append(
            Problem(
                f"expected alternations of 0 (baseline) and 1 (flash) that start with 0, got {shorten(alternations)}",
                "e.g. (0, 1, 0)",
            )
        )
    arguments.raise_problems()

    n_grey, n_lit = columns.n_frames_truncated(t_pre, dt), columns.n_frames_truncated(t_stim, dt)
    is_lit = np.concatenate([np.full(n_lit if phase else n_grey, bool(phase)) for phase in phases])
    samples = np.array(list(itertools.product(luminances, radii)))
    discs = np.column_stack([np.zeros((len(samples), 2)), samples[:, 1], samples[:, 0]])
    return columns.wrap(
        _draw_lazily(discs, is_lit, baseline, extent),
        dt,
        int(is_lit.argmax()),
        extent,
        sample_coords={"intensity": samples[:, 0], "radius": samples[:, 1], "t_stim": np.full(len(samples), t_stim)},
    )


def _recorded_position(given: Mapping[str, Any]) -> str | NDArray[np.int64]:
    if isinstance(given["position"], str):
        return given["position"]
    u, v, _ = _find_positions(given["position"], given["extent"], [])
    return np.stack([u, v], axis=1)


@recorded(
    position=_recorded_position,
    duration=lambda given: as_seconds(given["dt"] if given["duration"] is None else given["duration"]),
)
def impulses(
    position: str | int | tuple[int, int] | Sequence[int | tuple[int, int]] = "central",
    intensities: ArrayLike = (0, 1),
    *,
    duration: Duration | None = None,
    t_pre: Duration = 1.0,
    t_post: Duration = 1.0,
    dt: Duration = STIMULUS_DT,
    extent: int = EXTENT,
) -> xr.Dataset:
    """Brief flashes of single columns or of the whole field on grey, for impulse responses and receptive fields.

    Parameters
    ----------
    position
        ``"central"``: the column u = v = 0. ``"whole"``: the whole field at once. A column as ``(u, v)`` or by its
        label, or a list of columns, one for each sample. ``"all"``: every column of the lattice; ``"within 3"``: those
        at most 3 columns from the central one.
    intensities
        Luminance of the impulse, 0 to 1, one or several: above 0.5 for positive impulses, below for negative ones.
    duration
        Duration of the impulse, s; one time step if None.
    t_pre, t_post
        Duration of the grey before and after it, s.
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
        One error, a ValueError, for all invalid arguments, including a ``dt`` above the duration.

    Notes
    -----
    Single columns are as in ``flyvis.datasets.dots.SpatialImpulses``, whose two intensities are symmetric about grey.

    Examples
    --------
    >>> rendering = impulses([(0, 0), (1, -1)], intensities=1, duration=0.02, dt=1 / 100)
    >>> dict(rendering.luminance.sizes), rendering.u_impulse.values
    ({'sample': 2, 'time': 202, 'column': 721}, array([0, 1]))
    >>> impulses("within 2", intensities=1).sizes["sample"]
    19
    """
    arguments = columns.stimulus_arguments()
    extent = arguments.integer("extent", extent, least=0)
    dt = arguments.duration("dt", dt)
    luminances = arguments.numbers("intensities", intensities, "luminance", least=0, most=1)
    duration = dt if duration is None else columns.duration_of_frames(arguments, "duration", duration, dt)
    t_pre = columns.duration_around(arguments, "t_pre", t_pre)
    t_post = columns.duration_around(arguments, "t_post", t_post)
    u, v, radius = _find_positions(position, extent, arguments.problems)
    arguments.raise_problems()

    n_before, n_lit, n_after = (columns.n_frames(time, dt) for time in (t_pre, duration, t_post))
    is_lit = np.repeat([False, True, False], [n_before, n_lit, n_after])
    index, intensity = (grid.ravel() for grid in np.meshgrid(np.arange(u.size), luminances, indexing="ij"))
    discs = np.column_stack([u[index], v[index], np.full(index.size, radius), intensity])
    return columns.wrap(
        _draw_lazily(discs, is_lit, GREY, extent),
        dt,
        n_before,
        extent,
        sample_coords={
            "u_impulse": u[index],
            "v_impulse": v[index],
            "radius": discs[:, 2],
            "intensity": intensity,
            "t_stim": np.full(index.size, duration),
        },
    )


def _find_positions(
    position: Any, extent: int, problems: list[str | Problem]
) -> tuple[NDArray[np.int64], NDArray[np.int64], float]:
    """Axial coordinates (position,) of the discs, and their radius; problems are appended to the list."""
    u, v = hexgrid.columns(extent)
    origin = np.zeros(1, np.int64)
    if isinstance(position, str):
        name, _, within = position.partition("within ")
        if position in ("central", "whole"):
            return origin, origin, -1.0 if position == "whole" else 0.0
        if position == "all" or (not name and within.isdecimal()):
            is_near = _distance(u, v) <= (int(within) if within else extent)
            return u[is_near], v[is_near], 0.0
        problems.append(
            f"expected position 'central', 'whole', 'all', 'within 3', (u, v), a column label or a list of these, got "
            f"{position!r}"
        )
        return origin, origin, 0.0
    is_single = isinstance(position, tuple) or not _is_list(position)
    items = [position] if is_single else list(position)
    indices: list[int] = []
    unknown = []
    for item in items:
        u_disc, v_disc = map(as_int, item) if _is_list(item) and len(item) == 2 else (None, None)
        index = None if _is_list(item) else as_int(item)
        if u_disc is not None and v_disc is not None:
            index = int(hexgrid.column_index(u_disc, v_disc, extent))
        if index is None or not 0 <= index < u.size:
            unknown.append(item)
            index = 0
        indices.append(index)
    if unknown or not indices:
        problems.append(
            f"expected position as columns of a lattice of extent {extent}, (u, v) or labels from 0 to {u.size - 1}, "
            f"got {unknown or 'an empty list'}"
        )
        return origin, origin, 0.0
    return u[indices], v[indices], 0.0


def _is_list(value: Any) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, str) and getattr(value, "shape", None) != ()


def _distance(du: NDArray[Any], dv: NDArray[Any]) -> NDArray[Any]:
    """Distance on the lattice, columns."""
    return np.asarray(np.maximum.reduce([np.abs(du), np.abs(dv), np.abs(du + dv)]))


def _draw_lazily(discs: NDArray[np.float64], is_lit: NDArray[np.bool_], background: float, extent: int) -> Any:
    """Lazy frames (sample, time, column) of discs (sample, [u, v, radius, intensity])."""
    return base.generate(
        _draw_discs,
        len(discs),
        (is_lit.size, hexgrid.n_columns(extent)),
        discs=discs,
        is_lit=is_lit,
        background=background,
        extent=extent,
    )


def _draw_discs(
    indices: NDArray[np.int64], *, discs: NDArray[np.float64], is_lit: NDArray[np.bool_], background: float, extent: int
) -> NDArray[np.float32]:
    """Frames (index, time, column)."""
    u, v = hexgrid.columns(extent)
    frames = np.full((indices.size, is_lit.size, u.size), background, np.float32)
    for sequence, (u_disc, v_disc, radius, intensity) in zip(frames, discs[indices], strict=True):
        is_inside = np.ones(u.size, bool) if radius == -1 else _distance(u - u_disc, v - v_disc) <= radius
        sequence[np.ix_(is_lit, is_inside)] = intensity
    return frames
