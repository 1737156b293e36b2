"""Constants of the eye and of the displays in front of it, each declared once."""

from __future__ import annotations

from typing import Final

EXTENT: Final = 15
"""Radius of the hexagonal lattice of 721 columns that the published models see, columns."""

DEGREES_PER_COLUMN: Final = 5.8
"""Visual angle between neighbouring columns, degrees (Lappalainen et al. 2024)."""

DEGREES_PER_LED: Final = 2.25
"""Width of an LED of the display of Gruntman et al. (2018), the step of moving edges and bars, degrees."""

GREY: Final = 0.5
"""Luminance of the grey before, around and after a stimulus."""

FRAME_RATE: Final = 30.0
"""Default frame rate of movies that state none, frames per second."""

STIMULUS_DT: Final = 1 / 200
"""Default time step of stimuli on the columns, s."""

DIGIT_FRAME_SIZE: Final = 64
"""Height and width of a frame of Moving MNIST (Srivastava et al. 2015), pixels."""

DIGIT_SIZE: Final = 28
"""Height and width of a digit in such a frame, pixels."""

DIGIT_FRAMES: Final = 20
"""Frames of a sequence of Moving MNIST."""
