"""An element of HoloViews for values in hexagonal columns; ``glyphs`` draws it."""

from __future__ import annotations

import holoviews as hv
import param


class Hexagons(hv.Points):  # type: ignore[misc]
    """Values in hexagonal columns: ``x_column`` and ``y_column``, then the value, and ``u`` and ``v`` among the others.

    Examples
    --------
    >>> import numpy as np
    >>> from flyxr import hexgrid
    >>> u, v = hexgrid.columns(1)
    >>> x, y = hexgrid.positions(u, v)
    >>> Hexagons((x, y, np.arange(7), u, v), ["x_column", "y_column"], ["response", "u", "v"])
    :Hexagons   [x_column,y_column]   (response,u,v)
    """

    group = param.String(default="Hexagons", constant=True)
