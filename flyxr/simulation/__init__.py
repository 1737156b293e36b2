"""From labels to an engine and back: checks, what is recorded, one block, the lazy whole."""

from __future__ import annotations

from flyxr.simulation.block import Block, DivergedError, run_block, steady_state
from flyxr.simulation.checks import Prepared, bytes_per_sample, engine_parameters, parameters_of, prepare, state_of
from flyxr.simulation.graph import BLOCK_SAMPLES, PACKAGES, RESPONSE_DIMS, simulate
from flyxr.simulation.record import Record, Recorded

__all__ = [
    "BLOCK_SAMPLES",
    "PACKAGES",
    "RESPONSE_DIMS",
    "Block",
    "DivergedError",
    "Prepared",
    "Record",
    "Recorded",
    "bytes_per_sample",
    "engine_parameters",
    "parameters_of",
    "prepare",
    "run_block",
    "simulate",
    "state_of",
    "steady_state",
]
