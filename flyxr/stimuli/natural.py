"""Natural photographs in motion, with their true optic flow."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from flyxr import hexgrid
from flyxr.errors import Problem
from flyxr.stimuli import arrays, columns

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr
    from numpy.typing import ArrayLike, NDArray

PHOTOGRAPHS = ("china", "flower")
"""Photographs that scikit-learn ships, 427 x 640 pixels: a temple, and a flower."""

_ACCEPTANCE = 1 / (2 * math.sqrt(2 * math.log(2)))  # standard deviation of a Gaussian of half width 1, columns
_LUMINANCE_OF_RGB = (0.2126, 0.7152, 0.0722)  # ITU-R BT.709
_BLUR_STEP = 0.1  # between blurred copies, in the logarithm of the magnification


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
    t_stim: float = 1.0,
    t_pre: float = 0.0,
    t_post: float = 0.0,
    dt: float = 1 / 200,
    extent: int = 15,
) -> xr.Dataset:
    """Natural photographs that translate, rotate or loom, with the true optic flow as a second variable.

    A photograph, mirrored at its rims without end, stands still before time 0, moves, and stands still again from
    ``t_stim`` on. Each column sees it through a Gaussian whose width at half height is one column, however
    large the photograph has become. A sample has one kind of motion; an empty list leaves out a kind.

    Parameters
    ----------
    angles, speeds
        Of translation: direction, degree (0 to the right, toward larger ``x_column``; 90 upward, toward larger
        ``y_column``), and columns per second; each angle at each speed.
    rotation_speeds
        Of rotation about the central column, degree per second, counter-clockwise; negative for clockwise.
    expansion_rates
        Of looming, 1/s: what is r columns from the central one moves outward by rate * r; negative for receding.
    photographs
        ``"china"``, ``"flower"`` or both.
    n_crops
        Places in each photograph; each moves in all ways.
    seed
        Of the places, which lie in front of the central column at time 0. A place is a function of ``seed`` and its
        own number alone.
    pixels_per_column
        Pixels of the photograph from one column to the next at time 0, at least 1: the more, the more of it is seen.
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
        One error, a ValueError, for all arguments that make no motion, among them speeds of 0 and those that move a
        column of the lattice by more than one column in a time step.

    Notes
    -----
    Flow and luminance obey brightness constancy but for what changes magnification: a photograph that looms is seen
    sharper as it grows.

    Examples
    --------
    >>> rendering = natural_motion(angles=0, photographs="china", expansion_rates=(), dt=1 / 50)
    >>> rendering.motion.values.tolist(), dict(rendering.flow.sizes)
    (['translation', 'rotation', 'rotation'], {'sample': 3, 'time': 50, 'column': 721, 'axis': 2})
    """
    check = columns.Arguments()
    extent = check.integer("extent", extent, least=1)
    n_crops, seed = check.integer("n_crops", n_crops, least=1), check.integer("seed", seed, least=0)
    dt = check.number("dt", dt, "s", above=0)
    translation_angles = check.numbers("angles", angles, "degree", may_be_empty=True)
    translation_speeds = check.numbers("speeds", speeds, "columns/s", above=0, may_be_empty=True)
    turning = check.numbers("rotation_speeds", rotation_speeds, "degrees/s", may_be_empty=True)
    growing = check.numbers("expansion_rates", expansion_rates, "1/s", may_be_empty=True)
    for name, values in (("rotation_speeds", turning), ("expansion_rates", growing)):
        if (values == 0).any():
            check.problems.append(f"expected {name} other than 0, which is no motion, got {values.tolist()}")
    t_stim = check.duration("t_stim", t_stim, dt)
    t_pre, t_post = check.number("t_pre", t_pre, "s", least=0), check.number("t_post", t_post, "s", least=0)
    pixels_per_column = check.number("pixels_per_column", pixels_per_column, "pixels", least=1)
    names = np.atleast_1d(np.asarray(photographs, dtype=object)).tolist()
    if not names or not all(name in PHOTOGRAPHS for name in names):
        check.problems.append(f"expected photographs out of {PHOTOGRAPHS}, got {names}")
    for name, values, unit, of_rim in (
        ("speeds", translation_speeds, "columns/s", translation_speeds),
        ("rotation_speeds", turning, "degrees/s", np.radians(turning) * extent),
        ("expansion_rates", growing, "1/s", growing * extent),
    ):
        check.problems += columns.too_fast(name, values, unit, of_rim, dt)
    motions = [_Motion(angle=a, speed=s) for a in translation_angles.tolist() for s in translation_speeds.tolist()]
    motions += [_Motion(rotation_speed=value) for value in turning.tolist()]
    motions += [_Motion(expansion_rate=value) for value in growing.tolist()]
    if not motions and not check.problems:
        way = "give angles and speeds, rotation_speeds or expansion_rates"
        check.problems.append(Problem("expected a motion, got none", way))
    check.raise_problems()

    before, moving, after = (columns.n_frames(time, dt) for time in (t_pre, t_stim, t_post))
    samples = [(name, crop, motion) for name in names for crop in range(n_crops) for motion in motions]
    elapsed = np.clip(np.arange(-before, moving + after), 0, moving) * dt
    in_motion = np.repeat([False, True, False], [before, moving, after])
    shape = (elapsed.size, hexgrid.n_columns(extent))
    plain: dict[str, Any] = {"samples": samples, "extent": extent}
    luminance = arrays.generate(
        _views, len(samples), shape, **plain, elapsed=elapsed, seed=seed, pixels_per_column=pixels_per_column
    )
    flow = arrays.generate(
        _flows, len(samples), (*shape, 2), luminance.chunks[0][0], **plain, elapsed=elapsed, in_motion=in_motion
    )
    coords: dict[str, Any] = {
        "photograph": np.array([name for name, _, _ in samples], dtype=object),
        "crop": np.array([crop for _, crop, _ in samples]),
        "motion": np.array([motion.kind for _, _, motion in samples], dtype=object),
        "t_stim": np.full(len(samples), t_stim),
    }
    coords |= {name: np.array([getattr(motion, name) for _, _, motion in samples]) for name in _Motion._fields}
    return columns.wrap(
        luminance,
        dt,
        before,
        extent,
        operation="natural_motion",
        arguments={
            "angles": translation_angles,
            "speeds": translation_speeds,
            "rotation_speeds": turning,
            "expansion_rates": growing,
            "photographs": names,
            "n_crops": n_crops,
            "seed": seed,
            "pixels_per_column": pixels_per_column,
            "t_stim": t_stim,
            "t_pre": t_pre,
            "t_post": t_post,
            "dt": dt,
            "extent": extent,
        },
        sample_coords=coords,
        flow=flow,
    )


class _Motion(NamedTuple):
    """One kind of motion; what does not apply is NaN."""

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
        """How large the photograph is, (time,), relative to time 0."""
        return np.exp(elapsed * self.expansion_rate) if self.kind == "looming" else np.ones(elapsed.size)

    def seen(self, points: NDArray[np.complex128], elapsed: NDArray[np.float64]) -> NDArray[np.complex128]:
        """Which point of the photograph, as it was at time 0, is in front of each column, (time, column)."""
        if self.kind == "translation":
            return np.asarray(points - elapsed[:, None] * self._velocity)
        if self.kind == "rotation":
            return np.asarray(points * np.exp(-1j * np.radians(self.rotation_speed) * elapsed)[:, None])
        return np.asarray(points / self.magnification(elapsed)[:, None])

    def flow(self, points: NDArray[np.complex128]) -> NDArray[np.complex128]:
        """Velocity of what is in front of each column, (column,), columns per second."""
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


def _views(
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
    out = np.empty((indices.size, elapsed.size, points.size), np.float32)
    for sequence, index in zip(out, indices.tolist(), strict=True):
        name, crop, motion = samples[index]
        image = _photograph(name)
        middle = np.random.default_rng([seed, crop]).random(2) * (np.array(image.shape) - 1)
        sequence[:] = _view(image, middle, motion, points, elapsed, pixels_per_column)
    return out


def _view(
    image: NDArray[np.float64],
    middle: NDArray[np.float64],
    motion: _Motion,
    points: NDArray[np.complex128],
    elapsed: NDArray[np.float64],
    pixels_per_column: float,
) -> NDArray[np.float64]:
    """What columns see (time, column) of a picture (y, x) whose pixel ``middle`` is in the middle at time 0."""
    from scipy import ndimage

    # what a column accepts is smaller in the picture the more it is magnified: copies blurred for some magnifications
    size = np.log(motion.magnification(elapsed))
    levels = np.linspace(size.min(), size.max(), 1 + math.ceil((size.max() - size.min()) / _BLUR_STEP))
    blur = _ACCEPTANCE * pixels_per_column * np.exp(-levels)
    copies = np.stack([ndimage.gaussian_filter(image, sigma, mode="mirror") for sigma in blur.tolist()])
    level = np.interp(size, levels, np.arange(levels.size))
    seen = motion.seen(points, elapsed) * pixels_per_column
    where = [np.broadcast_to(level[:, None], seen.shape), middle[0] - seen.imag, middle[1] + seen.real]
    if levels.size == 1:
        return np.asarray(ndimage.map_coordinates(copies[0], where[1:], order=1, mode="mirror"))
    return np.asarray(ndimage.map_coordinates(copies, where, order=1, mode="mirror"))


def _flows(
    indices: NDArray[np.int64],
    *,
    samples: list[tuple[str, int, _Motion]],
    extent: int,
    elapsed: NDArray[np.float64],
    in_motion: NDArray[np.bool_],
) -> NDArray[np.float32]:
    """Flow (index, time, column, axis); it does not change while the motion lasts."""
    points = _points(extent)
    out = np.zeros((indices.size, elapsed.size, points.size, 2), np.float32)
    for sequence, index in zip(out, indices.tolist(), strict=True):
        flow = samples[index][2].flow(points)
        sequence[in_motion] = np.stack([flow.real, flow.imag], axis=-1)
    return out


@functools.cache
def _photograph(name: str) -> NDArray[np.float64]:
    """Luminance (y, x) from 0 to 1 of a photograph of scikit-learn."""
    from sklearn.datasets import load_sample_image

    colours = load_sample_image(f"{name}.jpg")
    return np.asarray(colours @ np.array(_LUMINANCE_OF_RGB) / 255)
