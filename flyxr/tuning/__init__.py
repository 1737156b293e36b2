"""Measures of responses to classic stimuli, and their agreement with experiments."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from flyxr import lazy, provenance, schema
from flyxr.errors import FlyxrError, Problem
from flyxr.tuning.base import central_responses, is_unknown
from flyxr.tuning.flashes import flash_response_index
from flyxr.tuning.impulses import spatial_receptive_field, temporal_receptive_field
from flyxr.tuning.indicator import calcium
from flyxr.tuning.known import agreement, known_tuning
from flyxr.tuning.motion import direction_selectivity_index, peak_responses, preferred_direction, tuning_curves
from flyxr.tuning.norm import response_norm

__all__ = [
    "agreement",
    "agreements",
    "calcium",
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

if not TYPE_CHECKING:  # a type checker would take any name for public
    __getattr__, __dir__ = lazy.public_names(__name__, __all__)


def summary(responses: xr.Dataset | xr.DataArray) -> xr.Dataset:
    """Compute all measures that the stimulus of the responses allows, with default arguments.

    Parameters
    ----------
    responses
        Responses to flashes, to moving edges, bars or gratings, or to impulses, as identified by the coordinates on
        ``sample``.

    Returns
    -------
    Dataset
        The measures of the stimulus in :data:`flyxr.schema.MEASURES`. For flashes ``flash_response_index``, of radius 6
        or else the largest radius; for moving stimuli ``direction_selectivity_index``, ``preferred_direction``,
        ``vector_length`` and ``tuning_curve``; for impulses ``temporal_receptive_field`` and, if there are impulses in
        several columns, ``spatial_receptive_field``.

    Raises
    ------
    SchemaError
        If some of the responses are to other stimuli.
    InputError
        As for the measures.

    Examples
    --------
    >>> edges = xr.DataArray(
    ...     [[[3.0], [1.0]]], dims=("model", "sample", "time"),
    ...     coords={"time": xr.Variable("time", [0.0], {"step": 0.1}), "t_stim": ("sample", [0.1, 0.1]),
    ...             "angle": ("sample", [0.0, 180.0]), "intensity": ("sample", [1.0, 1.0])})
    >>> list(summary(edges).data_vars)
    ['direction_selectivity_index', 'preferred_direction', 'vector_length', 'tuning_curve']
    """
    array, _ = central_responses(responses)
    stimulus = _identify_stimulus(array)
    measures = [
        getattr(sys.modules[__name__], measure.function)(responses)
        for measure in schema.MEASURES
        if measure.stimulus == stimulus
        and not any("sample" in variable.dims for variable in measure.variables)
        and (not measure.varied or any(np.unique(array[name].values).size > 1 for name in measure.varied))
    ]
    merged = xr.merge(measures, compat="override", join="outer", combine_attrs="override")
    return provenance.add(merged, "summary", {}, after=responses if isinstance(responses, xr.Dataset) else measures[0])


def _identify_stimulus(array: xr.DataArray) -> schema.Stimulus:
    candidates = {
        stimulus: is_unknown(array, stimulus.coordinate)
        for stimulus in schema.STIMULI
        if stimulus.coordinate in array.coords and "sample" in array[stimulus.coordinate].dims
    }
    if candidates and not candidates[(last := list(candidates)[-1])].any():
        return last
    coordinates = _enumerate([stimulus.coordinate for stimulus in schema.STIMULI], "and")
    got = f"none of the coordinates {coordinates} on 'sample'"
    if candidates:
        got = f"samples whose {last.coordinate} is NaN ({int(candidates[last].sum())} of {array.sizes['sample']})"
    text = f"expected responses to {_enumerate([stimulus.name for stimulus in schema.STIMULI], 'or')}, got {got}"
    functions = _enumerate([f"{stimulus.functions[0]}()" for stimulus in schema.STIMULI], "or")
    command = "write a stimulus with `flyxr stimulus`, e.g. flashes or edges, and simulate it with `flyxr simulate`"
    raise schema.SchemaError(Problem(text, f"simulate fx.stimuli.{functions}", command))


def _enumerate(words: list[str], conjunction: str) -> str:
    return f"{', '.join(words[:-1])} {conjunction} {words[-1]}"


def agreements(measures: xr.Dataset | xr.DataArray) -> dict[str, xr.DataArray]:
    """Agreement of each measure with experiments, where they are known; see :func:`agreement`.

    Returns
    -------
    dict
        Agreement (model) by the name of the measure; empty if no measure can be compared.

    Examples
    --------
    >>> index = xr.Dataset({"flash_response_index": ("cell_type", [0.5, -0.5, 0.9])},
    ...                    coords={"cell_type": ["Mi1", "Tm1", "T4a"]})
    >>> {name: round(value.item(), 3) for name, value in agreements(index).items()}
    {'flash_response_index': 0.961}
    """
    if isinstance(measures, xr.DataArray):
        measures = measures.to_dataset(name=measures.name or "unnamed")
    if not hasattr(measures, "data_vars"):
        text = f"expected a Dataset of measures, got {type(measures).__name__}"
        raise schema.SchemaError(Problem(text, "call fx.tuning.summary"))
    by_measure = {}
    for measure in schema.MEASURES:
        name = measure.variables[0].name
        if measure.compared is None or name not in measures:
            continue
        try:
            compared = agreement(measures[[name]])
        except FlyxrError:  # too few of the known cell types, intensities or directions
            continue
        by_measure[name] = compared[measure.compared[1]]
    return by_measure
