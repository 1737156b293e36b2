"""Measures of responses to classic stimuli, and how far they agree with experiments."""

from __future__ import annotations

import sys

import numpy as np
import xarray as xr

from flyxr import provenance, schema
from flyxr.errors import FlyxrError, Problem
from flyxr.tuning.base import central_responses, is_unknown
from flyxr.tuning.flashes import flash_response_index
from flyxr.tuning.impulses import spatial_receptive_field, temporal_receptive_field
from flyxr.tuning.known import agreement, known_tuning
from flyxr.tuning.motion import direction_selectivity_index, peak_responses, preferred_direction, tuning_curves
from flyxr.tuning.norm import response_norm

__all__ = [
    "agreement",
    "agreements",
    "direction_selectivity_index",
    "flash_response_index",
    "known_tuning",
    "peak_responses",
    "preferred_direction",
    "response_norm",
    "spatial_receptive_field",
    "summary",
    "temporal_receptive_field",
    "tuning_curves",
]


def summary(responses: xr.Dataset | xr.DataArray) -> xr.Dataset:
    """Measures that the stimulus of the responses allows, each with its defaults.

    Parameters
    ----------
    responses
        Responses to flashes, to edges, bars or gratings that move, or to impulses: the coordinates on ``sample`` say
        which.

    Returns
    -------
    Dataset
        To flashes ``flash_response_index``, of radius 6 or else the largest there is; to moving stimuli
        ``direction_selectivity_index``, ``preferred_direction``, ``vector_length`` and ``tuning_curve``; to impulses
        ``temporal_receptive_field`` and, if there are some in several columns, ``spatial_receptive_field``: the
        measures of the stimulus in :data:`flyxr.schema.MEASURES`.

    Raises
    ------
    SchemaError
        If the responses are to none of these, or to others as well.
    InputError
        As the measures.

    Examples
    --------
    >>> edges = xr.DataArray(
    ...     [[[3.0], [1.0]]], dims=("model", "sample", "time"),
    ...     coords={"time": xr.Variable("time", [0.0], {"step": 0.1}), "t_stim": ("sample", [0.1, 0.1]),
    ...             "angle": ("sample", [0.0, 180.0]), "intensity": ("sample", [1.0, 1.0])})
    >>> list(summary(edges).data_vars)
    ['direction_selectivity_index', 'preferred_direction', 'vector_length', 'tuning_curve']
    """
    array = central_responses(responses)
    stimulus = _stimulus(array)
    parts = [
        getattr(sys.modules[__name__], measure.function)(responses)
        for measure in schema.MEASURES
        if measure.stimulus == stimulus
        and not any("sample" in variable.dims for variable in measure.variables)
        and (not measure.varied or any(np.unique(array[name].values).size > 1 for name in measure.varied))
    ]
    merged = xr.merge(parts, compat="override", join="outer", combine_attrs="override")
    return provenance.add(merged, "summary", {}, after=responses if isinstance(responses, xr.Dataset) else parts[0])


def _stimulus(array: xr.DataArray) -> schema.Stimulus:
    """The stimulus that responses are to."""
    found = {
        stimulus: is_unknown(array, stimulus.coordinate)
        for stimulus in schema.STIMULI
        if stimulus.coordinate in array.coords and "sample" in array[stimulus.coordinate].dims
    }
    if found and not found[(last := list(found)[-1])].any():
        return last
    got = f"none of the coordinates {_listed([one.coordinate for one in schema.STIMULI], 'and')} on 'sample'"
    if found:
        got = f"samples whose {last.coordinate} is NaN ({int(found[last].sum())} of {array.sizes['sample']})"
    text = f"expected responses to {_listed([one.name for one in schema.STIMULI], 'or')}, got {got}"
    hint = f"simulate fx.stimuli.{_listed([f'{one.functions[0]}()' for one in schema.STIMULI], 'or')}"
    raise schema.SchemaError(Problem(text, hint))


def _listed(words: list[str], last: str) -> str:
    return f"{', '.join(words[:-1])} {last} {words[-1]}"


def agreements(measures: xr.Dataset) -> dict[str, xr.DataArray]:
    """How far each measure agrees with what experiments know, as far as they know it; see :func:`agreement`.

    Returns
    -------
    dict
        A number for each model, by the name of the measure; empty if there is nothing to compare with.

    Examples
    --------
    >>> index = xr.Dataset({"flash_response_index": ("cell_type", [0.5, -0.5, 0.9])},
    ...                    coords={"cell_type": ["Mi1", "Tm1", "T4a"]})
    >>> {name: round(value.item(), 3) for name, value in agreements(index).items()}
    {'flash_response_index': 0.961}
    """
    found = {}
    for measure in schema.MEASURES:
        name = measure.variables[0].name
        if measure.compared is None or name not in measures:
            continue
        try:
            compared = agreement(measures[[name]])
        except FlyxrError:  # too little is known of these cell types, or of what is known is there
            continue
        found[name] = compared[measure.compared[1]]
    return found
