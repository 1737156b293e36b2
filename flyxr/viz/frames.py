"""Frames of movies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from flyxr.viz import base

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr


def frames(movie: xr.DataArray | xr.Dataset, *, time: float | Sequence[float] | None = None, height: int = 300) -> Any:
    """Draw the frames of a movie in greys, 0 black to 1 white, with y downward.

    Parameters
    ----------
    movie
        ``luminance`` (..., y, x), 0 to 1, or uint8. Dims of length one count as selected.
    time
        Draw the frames nearest to these times, s. None draws all.
    height
        Height of the picture, screen pixel.

    Returns
    -------
    holoviews.Image or holoviews.HoloMap
        An Image if only ``y`` and ``x`` are left, otherwise a HoloMap over the other dims, ``time`` last.

    Raises
    ------
    ValueError
        If there are no dims ``y`` and ``x``, or more than 1000 frames.

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
    array = base.pick_times(base.variable(movie, "y", "x"), time).compute()
    if array.dtype == np.uint8:
        array = array.astype(np.float32) / np.float32(255)
    base.load_backend()
    return base.frame_pictures(array, height)
