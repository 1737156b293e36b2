"""Stimuli as labelled Datasets, lazy where they can be large: movies of grey frames, and renderings on the columns."""

from flyxr.stimuli.arrays import from_array
from flyxr.stimuli.blocks import random_walk_of_blocks
from flyxr.stimuli.digits import moving_digits
from flyxr.stimuli.discs import flashes, impulses
from flyxr.stimuli.drifting import gratings
from flyxr.stimuli.mnist import moving_mnist
from flyxr.stimuli.moving import moving_bars, moving_edges
from flyxr.stimuli.natural import natural_motion
from flyxr.stimuli.video import from_video

__all__ = [
    "flashes",
    "from_array",
    "from_video",
    "gratings",
    "impulses",
    "moving_bars",
    "moving_digits",
    "moving_edges",
    "moving_mnist",
    "natural_motion",
    "random_walk_of_blocks",
]
