"""Measures of responses to classic stimuli, and how far they agree with experiments."""

from flyxr.tuning.flashes import flash_response_index
from flyxr.tuning.impulses import spatial_receptive_field, temporal_receptive_field
from flyxr.tuning.known import agreement, known_tuning
from flyxr.tuning.motion import direction_selectivity_index, peak_responses, preferred_direction, tuning_curves
from flyxr.tuning.norm import response_norm

__all__ = [
    "agreement",
    "direction_selectivity_index",
    "flash_response_index",
    "known_tuning",
    "peak_responses",
    "preferred_direction",
    "response_norm",
    "spatial_receptive_field",
    "temporal_receptive_field",
    "tuning_curves",
]
