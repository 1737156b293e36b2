"""Many rows as one picture, through datashader."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import holoviews as hv
import numpy as np

from flyxr.errors import InputError, Problem
from flyxr.viz import colours, elements, selecting

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

ROW_DIMS = ("model", "cell_type", "sample", "column")
"""Dims that may be rows; of two, the first is."""

LABEL_HEIGHT = 13
"""Least distance of two labels of rows, screen pixels."""

ROBUST_PERCENTILE, OUTLIER_FACTOR = 99.5, 2.0
"""The colours end at this percentile of the absolute values if the largest is more than this many times as large."""


def raster(data: xr.DataArray | xr.Dataset, *, width: int = 600, height: int = 450) -> Any:
    """Draw many rows as one picture: all cells over time, or models over time or over cell types.

    Rows are drawn from the top in the order of the data; models with a known task error from the best to the worst.
    Cells are grouped by cell type, and cells that do not exist take no row. Where there are more rows than pixels,
    datashader averages the rows of a pixel. Values of both signs are white at 0. If a few values are far larger than
    the others, the colours end before them, and the title says so.

    Parameters
    ----------
    data
        Two of (cell_type, column), ``model``, ``sample`` and ``time``: (cell_type, column, time), or (column, time),
        are all cells over time; (model, time), (sample, time) and (cell_type, time) are rows over time; and
        (model, cell_type) or (sample, cell_type) is a table. Of a Dataset, the ``response`` is drawn. Dims of length
        one count as selected.
    width, height
        Size of the picture, screen pixels.

    Returns
    -------
    holoviews.Image or holoviews.HeatMap
        An Image over time, or a HeatMap over cell types.

    Raises
    ------
    ValueError
        If the data has other dims, is empty, is no real number, or an argument is out of range.

    Examples
    --------
    >>> import xarray as xr
    >>> course = xr.DataArray(np.eye(3), {"time": [0.0, 0.1, 0.2]}, ("model", "time"), name="response")
    >>> raster(course).bounds.lbrt()
    (-0.05, -0.5, 0.25, 2.5)
    """
    width, height = selecting.positive_integers(width=width, height=height)
    array = selecting.squeeze(selecting.drawable_array(data), "time")
    if array.dtype.kind not in "fiub":
        text = f"expected real numbers, got values of type {array.dtype}"
        raise InputError(Problem(text, "take np.abs(data), or another real number for each value"))
    dims = set(map(str, array.dims))
    is_cells = "column" in dims and "time" in dims and dims <= {"cell_type", "column", "time"}
    is_table = len(dims) == 2 and dims in ({"model", "cell_type"}, {"sample", "cell_type"})
    is_course = len(dims) == 2 and "time" in dims and not dims.isdisjoint(ROW_DIMS)
    if not (is_cells or is_table or is_course):
        extra = [name for name in ("model", "sample", "cell_type") if name in dims]
        choice = " or one ".join(extra) or "time course"
        raise InputError(
            Problem(
                "expected (cell_type, column, time), or two of model, sample, cell_type and time, got "
                f"{dict(array.sizes)}",
                f"select one {choice}, e.g. with .isel({extra[0] if extra else 'time'}=0)",
            )
        )
    if not is_table and "time" not in array.coords:
        raise InputError(
            Problem("expected a coordinate 'time' in s, got none", "assign it with .assign_coords(time=...)")
        )
    if "task_error" in array.coords and array["task_error"].dims == ("model",):
        array = array.isel(model=np.argsort(array["task_error"].values, kind="stable"))
    array = array.compute()
    elements.load_backend()
    scale, remark = _robust_scale(array)
    title = ", ".join(filter(None, [selecting.selection_title(array), remark]))
    options = {
        "title": title,
        "frame_width": width,
        "frame_height": height,
        "tools": ["hover"],
        "invert_yaxis": True,
        **elements.scale_style(scale, selecting.value_label(array)),
    }
    if is_table:
        return _table(array, options)
    rows, labels = _rows(array)
    return _courses(rows, array["time"].values, labels, str(array.name or "value"), (width, height), options)


def _robust_scale(array: xr.DataArray) -> tuple[colours.ColourScale, str]:
    """Colour scale of an array, and what the title says if values lie beyond it."""
    finite = np.abs(array.values[np.isfinite(array.values)].astype(float))
    if finite.size == 0 or array.name == "luminance":
        return colours.colour_scale(array), ""
    reach, largest = float(np.percentile(finite, ROBUST_PERCENTILE)), float(finite.max())
    if not 0 < reach * OUTLIER_FACTOR < largest:
        return colours.colour_scale(array), ""
    clipped = array.clip(-reach, reach)
    share = float((finite > reach).mean())
    return colours.colour_scale(clipped), f"{share:.1%} of the values lie beyond the colours"


def _rows(array: xr.DataArray) -> tuple[NDArray[Any], list[tuple[float, str]]]:
    """Rows (row, time) from the top, and labels at their positions."""
    dims = [dim for dim in ("cell_type", "column", *ROW_DIMS) if dim in array.dims]
    dims = list(dict.fromkeys(dims))
    array = array.transpose(*dims, "time")
    if "column" not in dims:
        names = list(map(str, selecting.labels(array, dims[0]))) if dims[0] in array.coords else []
        return array.values, [(float(row), name) for row, name in enumerate(names)]
    array = array if "cell_type" in array.dims else array.expand_dims("cell_type")
    exists = np.isfinite(array.values).any(axis=2)
    if not exists.any():
        exists[:] = True  # all rows are NaN: the picture says so
    names = list(map(str, selecting.labels(array, "cell_type"))) if "cell_type" in array.coords else [""]
    counts = exists.sum(axis=1)
    middles = np.cumsum(counts) - counts / 2 - 0.5
    labels = [(float(middle), name) for middle, name, count in zip(middles, names, counts, strict=True) if count]
    return array.values[exists], labels


def _courses(
    rows: NDArray[Any],
    time: NDArray[Any],
    labels: list[tuple[float, str]],
    name: str,
    size: tuple[int, int],
    options: dict[str, Any],
) -> hv.Image:
    """Rows (row, time) as an image, averaged by datashader if there are more rows than pixels."""
    half = (float(time[-1]) - float(time[0])) / (time.size - 1) / 2 if time.size > 1 else 0.5
    bounds = (float(time[0]) - half, -0.5, float(time[-1]) + half, len(rows) - 0.5)
    dims = [hv.Dimension("time", unit="s"), "row"]
    picture = hv.Image(
        np.asarray(rows, dtype=float)[::-1], dims, [hv.Dimension(name, range=options["clim"])], bounds=bounds
    )
    if len(rows) > size[1] or time.size > size[0]:
        from holoviews.operation.datashader import rasterize

        resolution = {"width": min(size[0], time.size), "height": min(size[1], len(rows))}
        picture = rasterize(picture, aggregator="mean", dynamic=False, **resolution)
        picture = picture.clone(vdims=[hv.Dimension(name, range=options["clim"])], datatype=["grid", "xarray"])
    gap, shown = len(rows) * LABEL_HEIGHT / size[1], list[tuple[float, str]]()
    for position, label in labels:
        if not shown or position - shown[-1][0] >= gap:
            shown.append((position, label))
    axis = {"yticks": shown, "ylabel": ""} if shown else {"ylabel": "row"}
    return picture.opts(hv.opts.Image(**options, **axis, xlabel="time (s)", backend="bokeh"))


def _table(array: xr.DataArray, options: dict[str, Any]) -> hv.HeatMap:
    """Rows of models or samples over cell types."""
    row_dim = next(str(dim) for dim in array.dims if dim != "cell_type")
    array = array.transpose(row_dim, "cell_type")
    types = list(map(str, selecting.labels(array, "cell_type")))
    rows = (
        list(map(str, selecting.labels(array, row_dim)))
        if row_dim in array.coords
        else list(map(str, range(array.sizes[row_dim])))
    )
    columns = (
        np.tile(np.array(types, dtype=object), len(rows)),
        np.repeat(np.array(rows, dtype=object), len(types)),
        array.values.ravel(),
    )
    picture = hv.HeatMap(
        columns, ["cell_type", row_dim], hv.Dimension(str(array.name or "value"), range=options["clim"])
    )
    picture = picture.redim.values(**{"cell_type": types, row_dim: rows})
    style = {"xrotation": 90, "xlabel": "cell type", "ylabel": row_dim, "fontsize": {"ticks": "7pt"}}
    return picture.opts(hv.opts.HeatMap(**options, **style, backend="bokeh"))
