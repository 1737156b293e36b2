"""Stimulus and response side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import holoviews as hv
from dask.base import compute

from flyxr.arguments import Arguments
from flyxr.errors import InputError, Problem
from flyxr.selection import align_labels
from flyxr.viz import colours, elements, pictures, selecting

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    import xarray as xr


def stimulus_response(
    movie: xr.DataArray | xr.Dataset | None,
    rendering: xr.DataArray | xr.Dataset | None,
    responses: xr.DataArray | xr.Dataset,
    *,
    cell_type: str | Iterable[str] = "T4c",
    model: Hashable | list[Hashable] | None = None,
    n_times: int = 25,
) -> Any:
    """Draw the frames of a movie, its rendering and the responses side by side, with a common time slider.

    The times are those of the responses, thinned evenly. Movie and rendering may have other time steps: the frame on
    display at each time is drawn, which is the last that has begun. Before its first frame and after its end, each is
    grey 0.5, as are the columns around a stimulus. Responses of all cell types and models have the same colours.

    Parameters
    ----------
    movie
        ``luminance`` (sample, time, y, x). None leaves it out, for a stimulus on the columns.
    rendering
        ``luminance`` (sample, time, column). None takes the ``luminance`` beside the responses.
    responses
        ``response`` (model, sample, time, cell_type, column); only what is drawn is computed. A dim of which one label
        was selected has length one.
    cell_type
        The cell type to draw, or several.
    model
        Label of the model to draw, or a list of labels: a picture for each model and cell type. None draws the first.
    n_times
        Maximum number of times to draw.

    Returns
    -------
    holoviews.Layout
        HoloMaps over ``time`` and, if there are several samples, ``sample``: the movie, the columns, and the responses,
        cell type by cell type.

    Raises
    ------
    ValueError
        If an argument is of another kind, there is no rendering, the responses lack the cell type or the model or have
        a single column, or the movie or the rendering lacks samples of the responses.

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
    >>> both = xr.concat([responses, 1 - responses], "model").assign_coords(model=[4, 8])
    >>> len(stimulus_response(None, rendering, both, model=[4, 8]))
    3
    """
    arguments = Arguments()
    n_times = arguments.integer("n_times", n_times, least=1)
    cell_types = arguments.names("cell_type", cell_type)
    models = selecting.several(model)
    if not models:
        arguments.problems.append("expected model as a label or a list of them, got an empty list")
    arguments.raise_problems()
    response = selecting.main_array(responses, "responses")
    if response.sizes["column"] == 1:
        raise InputError(
            Problem(
                "expected responses in all columns, got one column",
                "simulate with record='all' or record=[cell types], or draw time courses with fx.viz.traces",
            )
        )
    response = response.isel(time=selecting.thin(response.sizes["time"], n_times)).rename("response")
    selected = [
        selecting.select_model(selecting.select_cell_type(response, name), label)
        for name in cell_types
        for label in models
    ]
    luminances = [(selecting.main_array(movie, "movie"), "a movie")] if movie is not None else []
    luminances.append((selecting.columns_seen(rendering, responses), "a rendering"))
    times = response["time"].values
    shown = [
        selecting.luminance_on_display(align_labels(array, response["sample"], name), times).rename("luminance")
        for array, name in luminances
    ]
    selected, (*frames, columns) = compute(selected, shown)
    elements.load_backend()
    scale = colours.colour_scale(*selected)
    parts = [pictures.frame_pictures(array, title="stimulus") for array in frames]
    parts.append(pictures.column_pictures(columns, colours.LUMINANCE, title="columns"))
    parts += [pictures.column_pictures(array, scale) for array in selected]
    return hv.Layout(parts)
