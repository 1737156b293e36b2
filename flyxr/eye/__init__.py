"""The eyes: from the frames of a movie to hexagonal columns, and from frame rate to integration step."""

from flyxr.eye.base import Eye
from flyxr.eye.boxes import BoxEye
from flyxr.eye.hexagons import HexEye
from flyxr.eye.resampling import resample, temporal_sample_indices

__all__ = ["BoxEye", "Eye", "HexEye", "resample", "temporal_sample_indices"]
