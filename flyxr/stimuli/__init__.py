"""Movies: sequences of grey frames as labelled Datasets, lazy where they can be large."""

from flyxr.stimuli.arrays import from_array
from flyxr.stimuli.blocks import random_walk_of_blocks
from flyxr.stimuli.digits import moving_digits
from flyxr.stimuli.mnist import moving_mnist
from flyxr.stimuli.video import from_video

__all__ = ["from_array", "from_video", "moving_digits", "moving_mnist", "random_walk_of_blocks"]
