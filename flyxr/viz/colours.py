"""Colours of values and of samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import holoviews as hv
import numpy as np

if TYPE_CHECKING:
    import xarray as xr

GREY = "gray"
DIVERGING = "coolwarm"
SEQUENTIAL = "bmy"
"""Colour maps of colorcet. Matplotlib has other ones of the same names, which HoloViews prefers if it is installed."""

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
    return list(hv.plotting.util.process_cmap(cmap, count, provider=provider))


@dataclass(frozen=True)
class ColourScale:
    """A colour map and the values at its ends."""

    cmap: str
    clim: tuple[float, float]

    def palette(self, count: int = 256) -> list[str]:
        """Evenly spaced colours, from the low end."""
        return palette(self.cmap, count)


LUMINANCE = ColourScale(GREY, (0.0, 1.0))


def colour_scale(data: xr.DataArray, center: float | None = None) -> ColourScale:
    """Choose a colour scale for all values of an array.

    Luminance is grey from 0 to 1. With a center the scale diverges about it. Without one, values of both signs diverge
    about 0, and values of one sign run from their minimum to their maximum.
    """
    if data.name == "luminance" and center is None:
        return LUMINANCE
    finite = data.values[np.isfinite(data.values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    if center is None and not low < 0 < high:
        return ColourScale(SEQUENTIAL, (low, high) if low < high else (low - 0.5, high + 0.5))
    middle = center or 0.0
    reach = max(high - middle, middle - low) or 0.5
    return ColourScale(DIVERGING, (middle - reach, middle + reach))


def sample_colours(count: int) -> list[str]:
    """Colours of samples; they repeat after the tenth."""
    return [SAMPLES[index % len(SAMPLES)] for index in range(count)]
