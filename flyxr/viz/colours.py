"""Colours of values and of samples."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import holoviews as hv
import numpy as np
from dask.base import compute

if TYPE_CHECKING:
    import xarray as xr

GREY = "gray"
DIVERGING = "coolwarm"
SEQUENTIAL = "bmy"
"""Colour maps of colorcet. Matplotlib has other ones of the same names, which HoloViews prefers if it is installed."""

N_COLOURS = 1025
"""Colours from which those of a diverging map are taken; the number is odd, so that one is in the middle."""

MIN_ERRORS, OUTLIER_FACTOR = 5, 3.0
"""Task errors that it takes to tell the usual ones, and how many interquartile ranges others lie above the quartile."""

NO_CELL = "#c9c9c9"
"""Colour of columns without a cell."""

SAMPLES = (
    "#1f3d7a",
    "#d1495b",
    "#2a9d8f",
    "#e09f3e",
    "#7b4ea3",
    "#4f772d",
    "#c2185b",
    "#00838f",
    "#8d6e63",
    "#546e7a",
)


def palette(cmap: str, count: int = 256, provider: str = "colorcet") -> list[str]:
    """Evenly spaced colours of a colour map, from the low end."""
    return list(_palette(cmap, count, provider))


@functools.cache
def _palette(cmap: str, count: int, provider: str) -> tuple[str, ...]:
    return tuple(hv.plotting.util.process_cmap(cmap, count, provider=provider))


@dataclass(frozen=True)
class ColourScale:
    """A colour map and the values at its ends."""

    cmap: str
    clim: tuple[float, float]

    middle: float | None = None
    """Value in the middle of the colour map, if it diverges."""

    n_above: int = 0
    """Number of values above the upper end, which have its colour."""

    def palette(self, count: int = 256) -> list[str]:
        """Evenly spaced colours, from the low end; those of a diverging map keep its middle where it belongs.

        Examples
        --------
        >>> whole, upper = ColourScale(DIVERGING, (-1, 1), 0.0), ColourScale(DIVERGING, (-0.5, 1), 0.0)
        >>> whole.palette()[-1] == upper.palette()[-1], whole.palette(5)[2] == upper.palette(4)[1]
        (True, True)
        """
        if self.middle is None:
            return palette(self.cmap, count)
        low, high = (value - self.middle for value in self.clim)
        reach = max(-low, high)
        colours, positions = palette(self.cmap, N_COLOURS), np.linspace(low / reach, high / reach, count)
        return [colours[position] for position in np.rint((positions + 1) / 2 * (N_COLOURS - 1)).astype(int)]


LUMINANCE = ColourScale(GREY, (0.0, 1.0))


def colour_scale(
    *arrays: xr.DataArray, center: float | None = None, clim: tuple[float, float] | None = None
) -> ColourScale:
    """Choose one colour scale for all values of some arrays of the same quantity.

    Luminance is grey from 0 to 1. With a center the scale diverges about it. Without one, values of both signs diverge
    about 0, and values of one sign run from their minimum to their maximum. ``clim`` sets the ends.
    """
    if arrays[0].name == "luminance" and center is None:
        return LUMINANCE if clim is None else ColourScale(GREY, clim)
    low, high = _limits(arrays) if clim is None else clim
    if center is None and not low < 0 < high:
        return _sequential(low, high)
    middle = center or 0.0
    if clim is not None:
        return ColourScale(DIVERGING, clim, middle)
    reach = max(high - middle, middle - low) or 0.5
    return ColourScale(DIVERGING, (middle - reach, middle + reach), middle)


def task_error_scale(task_error: xr.DataArray) -> ColourScale:
    """Colour scale from the lowest to the highest task error, whatever their signs.

    A few models of far higher error do not take the colours of the others: errors above the upper quartile by more than
    three interquartile ranges have the colour of the highest of the others, if this at least halves the scale.

    Examples
    --------
    >>> import xarray as xr
    >>> scale = task_error_scale(xr.DataArray([5.1, 5.2, 5.3, 5.4, 5.5, 9.0]))
    >>> scale.clim, scale.n_above, task_error_label(scale)
    ((5.1, 5.5), 1, 'task error (a.u.), 1 above')
    """
    errors = task_error.values.astype(float).ravel()
    errors = errors[np.isfinite(errors)]
    if not errors.size:
        return _sequential(0.0, 0.0)
    low, high = float(errors.min()), float(errors.max())
    lower, upper = np.quantile(errors, [0.25, 0.75])
    usual = errors[errors <= upper + OUTLIER_FACTOR * (upper - lower)]
    if errors.size < MIN_ERRORS or high - low < 2 * np.ptp(usual):
        return _sequential(low, high)
    scale = _sequential(low, float(usual.max()))
    return replace(scale, n_above=int((errors > scale.clim[1]).sum()))


def task_error_label(scale: ColourScale) -> str:
    """Label of the colour bar of task errors, with the number of models above it."""
    return f"task error (a.u.), {scale.n_above} above" if scale.n_above else "task error (a.u.)"


def _sequential(low: float, high: float) -> ColourScale:
    return ColourScale(SEQUENTIAL, (low, high) if low < high else (low - 0.5, high + 0.5))


def _limits(arrays: tuple[xr.DataArray, ...]) -> tuple[float, float]:
    """Minimum and maximum of the finite values, or 0 and 0 if there are none; lazy values are reduced by chunk."""
    finite = [array.where(np.isfinite(array)) for array in arrays]
    ends = [float(end) for pair in compute([(values.min(), values.max()) for values in finite])[0] for end in pair]
    ends = [end for end in ends if np.isfinite(end)]
    return min(ends, default=0.0), max(ends, default=0.0)


def sample_colours(count: int) -> list[str]:
    """Colours of samples; they repeat after the tenth."""
    return [SAMPLES[index % len(SAMPLES)] for index in range(count)]
