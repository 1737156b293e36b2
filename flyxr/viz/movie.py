"""Frames of movies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flyxr.viz import elements, pictures, selecting

if TYPE_CHECKING:
    from collections.abc import Iterable

    import xarray as xr


def frames(movie: xr.DataArray | xr.Dataset, *, time: float | Iterable[float] | None = None, height: int = 300) -> Any:
    """Draw the frames of a movie in grey, black at 0 and white at 1, with y downward.

    Parameters
    ----------
    movie
        ``luminance`` (..., y, x), 0 to 1, or uint8. Dims of length one count as selected.
    time
        Times to draw, numbers in s or durations; the nearest frame is taken for each. None draws all frames.
    height
        Height of a picture, screen pixels.

    Returns
    -------
    holoviews.Image or holoviews.HoloMap
        An Image if the data has no dims but ``y`` and ``x``, otherwise a HoloMap over the other dims, ``time`` last.

    Raises
    ------
    ValueError
        If there are no dims ``y`` and ``x``, an argument is out of range, or there are more than 1000 frames.

    Examples
    --------
    >>> import numpy as np
    >>> import xarray as xr
    >>> movie = xr.DataArray(np.zeros((2, 4, 4)), dims=("time", "y", "x"), coords={"time": [0.0, 0.5]})
    >>> frames(movie).keys()
    [0.0, 0.5]
    >>> frames(movie, time=0.4).bounds.lbrt()
    (-0.5, -0.5, 3.5, 3.5)
    """
    (height,) = selecting.positive_integers(height=height)
    array = selecting.select_times(selecting.drawable_array(movie, "y", "x"), time).compute()
    elements.load_backend()
    return pictures.frame_pictures(selecting.scale_bytes(array), height)
