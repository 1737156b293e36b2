"""Measures of responses to classic stimuli, and how far they agree with experiments."""

from __future__ import annotations

import xarray as xr

from flyxr import provenance, schema
from flyxr.tuning.base import take
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
        ``tuning_curve``, ``direction_selectivity_index``, ``preferred_direction`` and ``vector_length``; to impulses
        ``temporal_receptive_field`` and, if there are some in several columns, ``spatial_receptive_field``.

    Raises
    ------
    SchemaError
        If the responses are to none of these.
    ValueError
        As the measures.

    Examples
    --------
    >>> edges = xr.DataArray(
    ...     [[[3.0], [1.0]]], dims=("model", "sample", "time"),
    ...     coords={"time": xr.Variable("time", [0.0], {"step": 0.1}), "t_stim": ("sample", [0.1, 0.1]),
    ...             "angle": ("sample", [0.0, 180.0]), "intensity": ("sample", [1.0, 1.0])})
    >>> list(summary(edges).data_vars)
    ['tuning_curve', 'direction_selectivity_index', 'preferred_direction', 'vector_length']
    """
    coords = set(take(responses).coords)
    if "u_impulse" in coords:
        parts = [temporal_receptive_field(responses)]
        if len(set(zip(responses["u_impulse"].values, responses["v_impulse"].values, strict=True))) > 1:
            parts.append(spatial_receptive_field(responses))
    elif "angle" in coords:
        parts = [measure(responses) for measure in (tuning_curves, direction_selectivity_index, preferred_direction)]
    elif "radius" in coords:
        radii = responses["radius"].values
        parts = [flash_response_index(responses, radius=6 if 6 in radii else float(radii.max()))]
    else:
        raise schema.SchemaError(
            "expected responses to flashes, moving stimuli or impulses, got none of the coordinates radius, angle and "
            "u_impulse on 'sample': simulate fx.stimuli.flashes(), moving_edges() or impulses()"
        )
    merged = xr.merge(parts, compat="override", join="outer", combine_attrs="override")
    return provenance.add(merged, "summary", {}, after=responses if isinstance(responses, xr.Dataset) else parts[0])


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
    for name in ("flash_response_index", "direction_selectivity_index", "preferred_direction", "tuning_curve"):
        if name not in measures:
            continue
        try:
            compared = agreement(measures[[name]])
        except ValueError:  # too little is known of these cell types, or of what is known is there
            continue
        found[name] = compared["angular_distance" if name == "preferred_direction" else "correlation"]
    return found
