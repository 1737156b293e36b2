"""Natural photographs in motion, with their true optic flow."""

from __future__ import annotations

import functools
import itertools
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from flyxr import hexgrid
from flyxr.arguments import Arguments
from flyxr.errors import Problem
from flyxr.optics import EXTENT, STIMULUS_DT
from flyxr.stimuli import base, columns
from flyxr.stimuli.recording import recorded

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr
    from numpy.typing import ArrayLike, NDArray

    from flyxr.arguments import Duration

PHOTOGRAPHS = ("china", "flower")
"""Photographs that scikit-learn ships, 427 x 640 pixels: a temple, and a flower."""

_ACCEPTANCE = 1 / (2 * math.sqrt(2 * math.log(2)))  # standard deviation of a Gaussian one column wide at half height
_RGB_WEIGHTS = (0.2126, 0.7152, 0.0722)  # ITU-R BT.709
_BLUR_STEP = 0.1  # between blurred copies, in the logarithm of the magnification


@recorded(photographs=lambda given: Arguments().names("photographs", given["photographs"]))
def natural_motion(
    angles: ArrayLike = (0, 90, 180, 270),
    speeds: ArrayLike = 5.0,
    rotation_speeds: ArrayLike = (-45, 45),
    expansion_rates: ArrayLike = (-0.5, 0.5),
    *,
    photographs: str | Sequence[str] = PHOTOGRAPHS,
    n_crops: int = 1,
    seed: int = 42,
    pixels_per_column: float = 8.0,
    t_stim: Duration = 1.0,
    t_pre: Duration = 0.0,
    t_post: Duration = 0.0,
    dt: Duration = STIMULUS_DT,
    extent: int = EXTENT,
) -> xr.Dataset:
    """Natural photographs that translate, rotate or loom, with the true optic flow as a second variable.

    A photograph, mirrored endlessly at its rims, is still before time 0, moves, and is still again from ``t_stim`` on.
    Each column sees it through a Gaussian that is one column wide at half height, whatever the magnification of the
    photograph. A sample has one kind of motion; an empty list omits a kind.

    Parameters
    ----------
    angles, speeds
        Directions of translation, degrees (0 to the right, toward larger ``x_column``; 90 upward, toward larger
        ``y_column``), and its speeds, columns per second. Each angle is combined with each speed.
    rotation_speeds
        Speeds of rotation about the central column, degrees per second, counter-clockwise; negative for clockwise.
    expansion_rates
        Rates of looming, 1/s: a point r columns from the central one moves outward at rate * r; negative for receding.
    photographs
        ``"china"``, ``"flower"`` or both.
    n_crops
        Crops of each photograph, combined with each motion.
    seed
        Seed of the points of the photograph in front of the central column at time 0. The point of a crop is a
        function of ``seed`` and its own number alone.
    pixels_per_column
        Pixels of the photograph between neighbouring columns at time 0, at least 1. A larger number shows more of it.
    t_stim, t_pre, t_post
        Duration of the motion, and of the stills before and after it, s.
    dt
        Time step, s.
    extent
        Radius of the lattice, columns.

    Returns
    -------
    Dataset
        ``luminance`` (sample, time, column), float32, 0 to 1, and ``flow`` (sample, time, column, axis), float32,
        columns per second along x (``x_column``) and y (``y_column``), both lazy. Coordinates on ``sample``:
        ``photograph`` (varies slowest), ``crop``, ``motion`` (``"translation"``, ``"rotation"``, ``"looming"``) and
        ``t_stim``; ``angle``, ``speed``, ``rotation_speed`` and ``expansion_rate`` are NaN where they don't apply.

    Raises
    ------
    SchemaError
        One error, a ValueError, for all invalid arguments, including speeds of 0 and motion of more than one column
        per time step anywhere on the lattice.

    Notes
    -----
    Flow and luminance obey brightness constancy, except that a looming photograph is seen sharper as it grows.

    Examples
    --------
    >>> rendering = natural_motion(angles=0, photographs="china", expansion_rates=(), dt=1 / 50)
    >>> rendering.motion.values.tolist(), dict(rendering.flow.sizes)
    (['translation', 'rotation', 'rotation'], {'sample': 3, 'time': 50, 'column': 721, 'axis': 2})
    """
    arguments = columns.stimulus_arguments()
    extent = arguments.integer("extent", extent, least=1)
    n_crops, seed = arguments.integer("n_crops", n_crops, least=1), arguments.seed(seed)
    dt = arguments.duration("dt", dt)
    translation_angles = arguments.numbers("angles", angles, "degrees", may_be_empty=True)
    translation_speeds = arguments.numbers("speeds", speeds, "columns/s", above=0, may_be_empty=True)
    rotations = arguments.numbers("rotation_speeds", rotation_speeds, "degrees/s", may_be_empty=True)
    expansions = arguments.numbers("expansion_rates", expansion_rates, "1/s", may_be_empty=True)
    for name, values in (("rotation_speeds", rotations), ("expansion_rates", expansions)):
        if (values == 0).any():
            arguments.problems.append(f"expected {name} other than 0, which is no motion, got {values.tolist()}")
    t_stim = columns.duration_of_frames(arguments, "t_stim", t_stim, dt)
    t_pre = columns.duration_around(arguments, "t_pre", t_pre)
    t_post = columns.duration_around(arguments, "t_post", t_post)
    pixels_per_column = arguments.number("pixels_per_column", pixels_per_column, "pixels", least=1)
    names = arguments.names("photographs", photographs, PHOTOGRAPHS[0])
    if not all(name in PHOTOGRAPHS for name in names):
        arguments.problems.append(f"expected photographs out of {PHOTOGRAPHS}, got {names}")
    for name, values, unit, rim_speed in (
        ("speeds", translation_speeds, "columns/s", translation_speeds),
        ("rotation_speeds", rotations, "degrees/s", np.radians(rotations) * extent),
        ("expansion_rates", expansions, "1/s", expansions * extent),
    ):
        arguments.problems += columns.undersampling_problems(name, values, unit, rim_speed, dt)
    pairs = itertools.product(translation_angles.tolist(), translation_speeds.tolist())
    motions = [_Motion(angle=angle, speed=speed) for angle, speed in pairs]
    motions += [_Motion(rotation_speed=value) for value in rotations.tolist()]
    motions += [_Motion(expansion_rate=value) for value in expansions.tolist()]
    if not motions and not arguments.problems:
        hint = "give angles and speeds, rotation_speeds or expansion_rates"
        arguments.problems.append(Problem("expected a motion, got none", hint))
    arguments.raise_problems()

    n_before, n_moving, n_after = (columns.n_frames(time, dt) for time in (t_pre, t_stim, t_post))
    samples = list(itertools.product(names, range(n_crops), motions))
    elapsed = np.clip(np.arange(-n_before, n_moving + n_after), 0, n_moving) * dt
    is_moving = np.repeat([False, True, False], [n_before, n_moving, n_after])
    shape = (elapsed.size, hexgrid.n_columns(extent))
    luminance = base.generate(
        _draw_views,
        len(samples),
        shape,
        samples=samples,
        extent=extent,
        elapsed=elapsed,
        seed=seed,
        pixels_per_column=pixels_per_column,
    )
    flow = base.generate(
        _compute_flows,
        len(samples),
        (*shape, 2),
        luminance.chunks[0][0],
        samples=samples,
        extent=extent,
        is_moving=is_moving,
    )
    coords: dict[str, Any] = {
        "photograph": np.array([name for name, _, _ in samples], dtype=object),
        "crop": np.array([crop for _, crop, _ in samples]),
        "motion": np.array([motion.kind for _, _, motion in samples], dtype=object),
        "t_stim": np.full(len(samples), t_stim),
    }
    coords |= {name: np.array([getattr(motion, name) for _, _, motion in samples]) for name in _Motion._fields}
    return columns.wrap(luminance, dt, n_before, extent, sample_coords=coords, flow=flow)


class _Motion(NamedTuple):
    """One motion; parameters of the other kinds are NaN."""

    angle: float = math.nan
    speed: float = math.nan
    rotation_speed: float = math.nan
    expansion_rate: float = math.nan

    @property
    def kind(self) -> str:
        """Name of the motion."""
        if math.isfinite(self.speed):
            return "translation"
        return "rotation" if math.isfinite(self.rotation_speed) else "looming"

    def magnification(self, elapsed: NDArray[np.float64]) -> NDArray[np.float64]:
        """Size of the photograph relative to time 0, (time,)."""
        return np.exp(elapsed * self.expansion_rate) if self.kind == "looming" else np.ones(elapsed.size)

    def source(self, points: NDArray[np.complex128], elapsed: NDArray[np.float64]) -> NDArray[np.complex128]:
        """Position at time 0 of the point that is in front of each column, (time, column)."""
        if self.kind == "translation":
            return np.asarray(points - elapsed[:, None] * self._velocity)
        if self.kind == "rotation":
            return np.asarray(points * np.exp(-1j * np.radians(self.rotation_speed) * elapsed)[:, None])
        return np.asarray(points / self.magnification(elapsed)[:, None])

    def flow(self, points: NDArray[np.complex128]) -> NDArray[np.complex128]:
        """Velocity of the point in front of each column, (column,), columns per second."""
        if self.kind == "translation":
            return np.full(points.shape, self._velocity)
        rate = 1j * np.radians(self.rotation_speed) if self.kind == "rotation" else self.expansion_rate
        return np.asarray(points * rate)

    @property
    def _velocity(self) -> complex:
        return complex(self.speed * np.exp(1j * np.radians(self.angle)))


def _points(extent: int) -> NDArray[np.complex128]:
    """Positions (column,) x + iy, in columns."""
    x, y = hexgrid.positions(*hexgrid.columns(extent))
    return np.asarray(x + 1j * y)


def _draw_views(
    indices: NDArray[np.int64],
    *,
    samples: list[tuple[str, int, _Motion]],
    extent: int,
    elapsed: NDArray[np.float64],
    seed: int,
    pixels_per_column: float,
) -> NDArray[np.float32]:
    """Frames (index, time, column)."""
    points = _points(extent)
    frames = np.empty((indices.size, elapsed.size, points.size), np.float32)
    for sequence, index in zip(frames, indices.tolist(), strict=True):
        name, crop, motion = samples[index]
        image = _photograph(name)
        center = np.random.default_rng([seed, crop]).random(2) * (np.array(image.shape) - 1)
        sequence[:] = _view(image, center, motion, points, elapsed, pixels_per_column)
    return frames


def _view(
    image: NDArray[np.float64],
    center: NDArray[np.float64],
    motion: _Motion,
    points: NDArray[np.complex128],
    elapsed: NDArray[np.float64],
    pixels_per_column: float,
) -> NDArray[np.float64]:
    """Luminance (time, column) of an image (y, x) whose pixel ``center`` faces the central column at time 0."""
    from scipy import ndimage

    # a column accepts a smaller part of a magnified image: interpolate between copies blurred for some magnifications
    log_size = np.log(motion.magnification(elapsed))
    n_levels = 1 + math.ceil((log_size.max() - log_size.min()) / _BLUR_STEP)
    levels = np.linspace(log_size.min(), log_size.max(), n_levels)
    blur = _ACCEPTANCE * pixels_per_column * np.exp(-levels)
    copies = np.stack([ndimage.gaussian_filter(image, sigma, mode="mirror") for sigma in blur.tolist()])
    level = np.interp(log_size, levels, np.arange(levels.size))
    source = motion.source(points, elapsed) * pixels_per_column
    coordinates = [np.broadcast_to(level[:, None], source.shape), center[0] - source.imag, center[1] + source.real]
    if levels.size == 1:
        return np.asarray(ndimage.map_coordinates(copies[0], coordinates[1:], order=1, mode="mirror"))
    return np.asarray(ndimage.map_coordinates(copies, coordinates, order=1, mode="mirror"))


def _compute_flows(
    indices: NDArray[np.int64],
    *,
    samples: list[tuple[str, int, _Motion]],
    extent: int,
    is_moving: NDArray[np.bool_],
) -> NDArray[np.float32]:
    """Flow (index, time, column, axis), which is constant during the motion."""
    points = _points(extent)
    flows = np.zeros((indices.size, is_moving.size, points.size, 2), np.float32)
    for sequence, index in zip(flows, indices.tolist(), strict=True):
        flow = samples[index][2].flow(points)
        sequence[is_moving] = np.stack([flow.real, flow.imag], axis=-1)
    return flows


@functools.cache
def _photograph(name: str) -> NDArray[np.float64]:
    """Luminance (y, x) from 0 to 1 of a photograph of scikit-learn."""
    from sklearn.datasets import load_sample_image

    colours = load_sample_image(f"{name}.jpg")
    return np.asarray(colours @ np.array(_RGB_WEIGHTS) / 255)
