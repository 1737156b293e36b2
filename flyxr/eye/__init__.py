"""The eyes: from the frames of a movie to hexagonal columns, from frame rate to integration step, FlyGym's order."""

from flyxr.eye.base import Eye
from flyxr.eye.boxes import BoxEye
from flyxr.eye.flygym import from_flygym, to_flygym
from flyxr.eye.hexagons import HexEye
from flyxr.eye.resampling import resample, temporal_sample_indices

__all__ = ["BoxEye", "Eye", "HexEye", "from_flygym", "resample", "temporal_sample_indices", "to_flygym"]
