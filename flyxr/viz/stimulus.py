"""Stimulus and response side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flyxr import schema
from flyxr.errors import InputError, Problem
from flyxr.selection import align_labels
from flyxr.viz import elements, pictures, selecting

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray


def stimulus_response(
    movie: xr.DataArray | xr.Dataset,
    rendering: xr.DataArray | xr.Dataset,
    responses: xr.DataArray | xr.Dataset,
    *,
    cell_type: str = "T4c",
    model: int | None = None,
    n_times: int = 25,
) -> Any:
    """Draw the frames of a movie, its rendering and the responses side by side, with a common time slider.

    The times are those of the responses, thinned evenly. Movie and rendering may have other time steps: the frame on
    display at each time is drawn, which is the last that has begun.

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
        Label of the model to draw. None draws the first.
    n_times
        Maximum number of times to draw.

    Returns
    -------
    holoviews.Layout
        Three HoloMaps over ``time`` and, if there are several samples, ``sample``.

    Raises
    ------
    ValueError
        If an argument is of another kind, if the responses lack the cell type or the model or have a single column, or
        if the movie or the rendering lacks samples of the responses.

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
    response = selecting.main_array(responses, "responses")
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
    elements.load_backend()
    response = response.sel(cell_type=cell_type, model=response["model"][0] if model is None else model)
    response = response.isel(time=selecting.thin(response.sizes["time"], n_times)).rename("response").compute()
    times = response["time"].values
    frames = _luminance_at(times, movie, "movie", response["sample"])
    columns = _luminance_at(times, rendering, "rendering", response["sample"])
    return (
        pictures.frame_pictures(frames, title="stimulus")
        + pictures.column_pictures(columns, title="columns")
        + pictures.column_pictures(response)
    )


def _luminance_at(
    times: NDArray[Any], data: xr.DataArray | xr.Dataset, kind: str, samples: xr.DataArray
) -> xr.DataArray:
    """Luminance of a movie or rendering on display at some times, computed."""
    luminance = align_labels(selecting.main_array(data, kind), samples, schema.kind_with_article(kind))
    displayed = selecting.displayed_frames(luminance["time"].values, times)
    return luminance.isel(time=displayed).assign_coords(time=times).rename("luminance").compute()
