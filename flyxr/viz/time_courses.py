"""An element of HoloViews for time courses; ``glyphs`` draws it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import holoviews as hv
import numpy as np
import param
from holoviews.element.selection import Selection2DExpr

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray


class TimeCourses(Selection2DExpr, hv.element.Geometry):  # type: ignore[misc]
    """Curves over time: a row for each time of each curve, with the time, the value, and labels of the curve.

    The rows of a curve follow each other, and its times increase. A curve starts where the time does not.

    Examples
    --------
    >>> courses = TimeCourses.from_curves([0.0, 0.1], [[1.0, 2.0], [3.0, 4.0]], {"model": [7, 9]})
    >>> courses
    :TimeCourses   [time,response]   (model)
    >>> courses.curves()[1], courses.labels("model")
    ([array([1., 2.]), array([3., 4.])], array([7, 9]))
    >>> courses.select(model=9).dimension_values("response")
    array([3., 4.])
    """

    group = param.String(default="TimeCourses", constant=True)

    @classmethod
    def from_curves(
        cls,
        time: ArrayLike,
        values: ArrayLike,
        labels: Mapping[Any, ArrayLike],
        kdims: tuple[Any, Any] = ("time", "response"),
    ) -> TimeCourses:
        """Build the element from times (time), values (curve, time), and labels (curve) under dims of HoloViews."""
        time, values = np.asarray(time), np.asarray(values)
        columns = [np.repeat(np.asarray(label), time.size) for label in labels.values()]
        # A data frame, HoloViews' first choice, is slower to read.
        data = (np.tile(time, len(values)), values.ravel(), *columns)
        return cls(data, list(kdims), list(labels), datatype=["dictionary"])

    def starts(self) -> NDArray[np.int64]:
        """Positions of the first row of each curve."""
        time = self.dimension_values(0)
        is_start = np.ones(time.size, dtype=bool)
        is_start[1:] = np.diff(time) <= 0
        return np.flatnonzero(is_start)

    def curves(self) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
        """Times and values of each curve."""
        starts = self.starts()
        times, values = (np.split(self.dimension_values(axis), starts)[1:] for axis in (0, 1))
        return times, values

    def labels(self, dim: Any) -> NDArray[Any]:
        """Label of each curve."""
        labels: NDArray[Any] = np.asarray(self.dimension_values(dim))[self.starts()]
        return labels
