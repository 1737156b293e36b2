"""Simulations: checks, the record, one block, the lazy Dataset, the stepper, and ensembles as tensors."""

from __future__ import annotations

from flyxr.simulation.block import Block, DivergedError, run_block, steady_state
from flyxr.simulation.checks import (
    Prepared,
    bytes_per_sample,
    engine_parameters,
    ensemble_problems,
    parameters_of,
    prepare,
    state_of,
)
from flyxr.simulation.graph import BLOCK_SAMPLES, PACKAGES, RESPONSE_DIMS, simulate
from flyxr.simulation.record import Record, Recorded
from flyxr.simulation.stepping import Stepper
from flyxr.simulation.tensors import EnsembleTensors, ensemble_tensors

__all__ = [
    "BLOCK_SAMPLES",
    "PACKAGES",
    "RESPONSE_DIMS",
    "Block",
    "DivergedError",
    "EnsembleTensors",
    "Prepared",
    "Record",
    "Recorded",
    "Stepper",
    "bytes_per_sample",
    "engine_parameters",
    "ensemble_problems",
    "ensemble_tensors",
    "parameters_of",
    "prepare",
    "run_block",
    "simulate",
    "state_of",
    "steady_state",
]
