"""What every picture needs: HoloViews' Bokeh backend, and frames of equal aspect."""

from __future__ import annotations

import sys
from typing import Any


def load_backend() -> None:
    """Load HoloViews' Bokeh backend if necessary; a backend that is current stays current."""
    import holoviews as hv
    import holoviews.util

    is_set_up = hasattr(hv.opts, "Image")  # importing the backend alone does not
    if hv.Store.current_backend not in hv.Store.loaded_backends() or not is_set_up:
        # In a notebook, ``hv.extension`` also shows pictures with scripts that it writes into the output.
        if _shows_images():
            holoviews.util.extension("bokeh")
        else:
            hv.extension("bokeh", logo=False)
    import holoviews.plotting.bokeh  # noqa: F401  (registers the backend, does not select it)


def _shows_images() -> bool:
    """Whether ``%load_ext flyxr`` has a notebook show pictures as images."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and "flyxr" in shell.extension_manager.loaded


def equal_aspect(width: float, height: float, n_pixels: int) -> dict[str, Any]:
    """Options of a frame of equal aspect, ``n_pixels`` high; width and height are in the units of the data.

    Examples
    --------
    >>> equal_aspect(4, 2, 100)
    {'frame_height': 100, 'frame_width': 200, 'data_aspect': 1}
    """
    return {"frame_height": n_pixels, "frame_width": max(round(n_pixels * width / height), 1), "data_aspect": 1}
