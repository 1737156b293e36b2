"""Frames of movies on the screen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flyxr.viz import elements, pictures, selecting

if TYPE_CHECKING:
    from collections.abc import Iterable

    import xarray as xr


def movie(
    movie: xr.DataArray | xr.Dataset,
    *,
    time: float | Iterable[float] | None = None,
    height: int = 300,
    dynamic: bool | None = None,
) -> Any:
    """Draw the frames of a movie in grey, black at 0 and white at 1, with y downward.

    Parameters
    ----------
    movie
        ``luminance`` (..., y, x), 0 to 1, or uint8. Dims of length one count as selected.
    time
        Times to draw, numbers in s or durations; the nearest frame is taken for each. None draws all frames.
    height
        Height of a picture, screen pixels.
    dynamic
        Whether several pictures are a DynamicMap, which draws and reads a picture once it is shown, rather than a
        HoloMap, which holds all of them. None takes a DynamicMap for lazy data, and in a notebook.

    Returns
    -------
    holoviews.Image, holoviews.HoloMap or holoviews.DynamicMap
        An Image if the data has no dims but ``y`` and ``x``, otherwise a map over the other dims, ``time`` last.

    Raises
    ------
    ValueError
        If there are no dims ``y`` and ``x``, an argument is out of range, or there are more than 1000 frames in a
        HoloMap.

    Examples
    --------
    >>> import numpy as np
    >>> import xarray as xr
    >>> frames = xr.DataArray(np.zeros((2, 4, 4)), dims=("time", "y", "x"), coords={"time": [0.0, 0.5]})
    >>> movie(frames).keys()
    [0.0, 0.5]
    >>> movie(frames, time=0.4).bounds.lbrt()
    (-0.5, -0.5, 3.5, 3.5)
    """
    (height,) = selecting.positive_integers(height=height)
    array = selecting.select_times(selecting.drawable_array(movie, "y", "x"), time)
    elements.load_backend()
    return pictures.frame_pictures(selecting.scale_bytes(array), height, dynamic=dynamic)
