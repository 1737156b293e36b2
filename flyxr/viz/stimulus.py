"""Stimulus and response side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flyxr.errors import InputError, Problem
from flyxr.selection import align_labels
from flyxr.viz import base

if TYPE_CHECKING:
    import xarray as xr


def stimulus_response(
    movie: xr.DataArray | xr.Dataset,
    rendering: xr.DataArray | xr.Dataset,
    responses: xr.DataArray | xr.Dataset,
    *,
    cell_type: str = "T4c",
    model: int | None = None,
    n_times: int = 25,
) -> Any:
    """Draw frames, what the columns receive, and the responses in the columns, with one time slider for all.

    The times are those of the responses, thinned evenly. Movie and rendering may have steps of their own: drawn is
    the frame on display at each time, the last that began.

    Parameters
    ----------
    movie
        ``luminance`` (sample, time, y, x).
    rendering
        ``luminance`` (sample, time, column).
    responses
        ``response`` (model, sample, time, cell_type, column); only what is drawn is computed.
    cell_type
        The cell type to draw.
    model
        Label of the model to draw. None takes the first.
    n_times
        Draw at most so many times.

    Returns
    -------
    holoviews.Layout
        Three HoloMaps over ``time`` and, if there are several, ``sample``.

    Raises
    ------
    ValueError
        If an argument is of another kind, or the responses lack the cell type, the model or the columns, or movie
        or rendering lack samples of the responses.

    Examples
    --------
    >>> import numpy as np
    >>> import xarray as xr
    >>> from flyxr import hexgrid
    >>> time, columns = [0.0, 0.01], hexgrid.column_coords(1)
    >>> movie = xr.DataArray(np.ones((2, 4, 4)), dims=("time", "y", "x"), coords={"time": time})
    >>> rendering = xr.DataArray(np.ones((2, 7)), dims=("time", "column"), coords={"time": time, **columns})
    >>> responses = rendering.assign_coords(cell_type="T4c")
    >>> [str(part.kdims[0]) for part in stimulus_response(movie, rendering, responses)]
    ['time', 'time', 'time']
    """
    response = base.of_kind(responses, "responses")
    if cell_type not in response.indexes["cell_type"]:
        raise InputError(
            Problem(
                f"expected responses of {cell_type!r}, got {response['cell_type'].values.tolist()}",
                "choose one of these with cell_type=, or record it with simulate(..., record=...)",
            )
        )
    if model is not None and model not in response.indexes["model"]:
        raise InputError(
            Problem(
                f"expected responses of model {model}, got {response['model'].values.tolist()}", "choose one of these"
            )
        )
    if response.sizes["column"] == 1:
        raise InputError(
            Problem(
                "expected responses in all columns, got one column",
                "simulate with record='all' or record=[cell types], or draw time courses with fx.viz.traces",
            )
        )
    base.load_backend()
    response = response.sel(cell_type=cell_type, model=response["model"][0] if model is None else model)
    response = response.isel(time=base.thin(response.sizes["time"], n_times)).rename("response").compute()
    times = response["time"].values
    shown = []
    for data, kind in ((movie, "movie"), (rendering, "rendering")):
        luminance = align_labels(base.of_kind(data, kind), response["sample"], f"a {kind}")
        at = base.shown_at(luminance["time"].values, times)
        shown.append(luminance.isel(time=at).assign_coords(time=times).rename("luminance").compute())
    frames, columns = shown
    left = base.frame_pictures(frames, title="stimulus")
    return left + base.column_pictures(columns, title="columns") + base.column_pictures(response)
