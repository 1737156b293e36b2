"""Plans of sweeps, and the choice of blocks."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

import flyxr as fx
from flyxr.simulation import bytes_per_sample, prepare
from flyxr.store.ledger import LEDGER_FILE
from flyxr.sweeping import Plan, SweepMismatchError
from flyxr.sweeping.plan import COPIES_PER_BLOCK, PROCESS_BYTES, choose_blocks
from flyxr.sweeping.workers import ThreadPool
from flyxr.testing import noise_rendering, random_rendering, tiny_connectome

if TYPE_CHECKING:
    from pathlib import Path

    import xarray as xr

CONNECTOME = tiny_connectome(extent=2)
OPTIONS: dict[str, Any] = {"connectome": CONNECTOME, "device": "cpu", "progress": False}


def make_ensemble(n_models: int = 3) -> xr.Dataset:
    return fx.sample_ensemble(n_models, seed=0, connectome=CONNECTOME)


@pytest.mark.parametrize("limit", ["400.1 MB", 1000])
def test_sweep__refuses_memory_too_small_for_one_sample(tmp_path: Path, limit: Any) -> None:
    message = r"memory limit of at least .*one sample needs .*raise memory_limit, record"
    with pytest.raises(ValueError, match=message):
        fx.sweep(noise_rendering(n_time=2000), make_ensemble(), tmp_path / "r.zarr", memory_limit=limit, **OPTIONS)
    assert os.listdir(tmp_path) == []


def test_choose_blocks__memory_bounds_blocks_and_threads() -> None:
    prepared = prepare(noise_rendering(40), make_ensemble(50), connectome=CONNECTOME, device="cpu")
    sample_bytes, pool = bytes_per_sample(prepared, COPIES_PER_BLOCK), ThreadPool(4)
    memories = [PROCESS_BYTES + n_samples * sample_bytes for n_samples in (1.5, 4.5, 16.5, 400)]
    assert [choose_blocks(prepared, memory, pool) for memory in memories] == [(1, 1), (1, 4), (4, 4), (40, 4)]
    assert choose_blocks(prepared, memories[-1], pool, max_samples=3) == (3, 4)
    assert choose_blocks(prepared, memories[-1], pool, stored_samples=80, max_samples=3) == (80, 4)


@pytest.mark.parametrize(
    ("n_samples", "chunk", "expected"),
    [(24, 1, 24), (24, 9, 24), (144, 1, 48), (144, 9, 54), (65, 1, 33), (2, 1, 8), (1000, 100, 63)],
)
def test_choose_blocks__are_equal_and_hold_whole_chunks(n_samples: int, chunk: int, expected: int) -> None:
    """A block that lacks samples would hold fill values instead."""
    rendering = random_rendering(n_samples=n_samples).chunk(sample=chunk)
    prepared = prepare(rendering, make_ensemble(50), connectome=CONNECTOME, device="cpu")
    assert choose_blocks(prepared, 100e9, ThreadPool(2))[0] == expected


def test_sweep__plan_computes_little_and_keeps_nothing(tmp_path: Path, computed_blocks: list[Any]) -> None:
    path = tmp_path / "r.zarr"
    plan = fx.sweep(noise_rendering(), make_ensemble(), path, block_samples=2, plan_only=True, **OPTIONS)
    assert isinstance(plan, Plan)
    assert (plan.n_blocks, plan.n_done, plan.block_samples) == (9, 0, 2)
    assert plan.n_bytes == 3 * 5 * 6 * 3 * 19 * 4
    assert plan.seconds > 0
    assert 0 < plan.disk_bytes < 10 * plan.n_bytes
    assert len(computed_blocks) <= 1 + plan.at_once
    assert os.listdir(tmp_path) == []
    for part in ("9 of 1 model x 2 samples", "0 of 9 blocks", "before compression", "per worker", "free"):
        assert part in str(plan)


def test_sweep__plan_of_a_finished_or_extended_sweep(tmp_path: Path) -> None:
    path = tmp_path / "r.zarr"
    fx.sweep(noise_rendering(4), make_ensemble(), path, block_samples=2, **OPTIONS)
    before = (path / LEDGER_FILE).read_bytes()
    finished = fx.sweep(noise_rendering(4), make_ensemble(), path, plan_only=True, **OPTIONS)
    extended = fx.sweep(noise_rendering(5), make_ensemble(4), path, plan_only=True, **OPTIONS)
    assert isinstance(finished, Plan)
    assert isinstance(extended, Plan)
    assert (finished.n_blocks, finished.n_done, finished.seconds) == (6, 6, 0)
    assert (extended.n_blocks, extended.n_done) == (12, 6)
    assert (path / LEDGER_FILE).read_bytes() == before
    with pytest.raises(SweepMismatchError):
        fx.sweep(noise_rendering(4), make_ensemble(), path, initial_state="rest", plan_only=True, **OPTIONS)


def test_sweep__plan_needs_no_folder(tmp_path: Path) -> None:
    plan = fx.sweep(noise_rendering(), make_ensemble(), tmp_path / "no/such/dir/r.zarr", plan_only=True, **OPTIONS)
    assert isinstance(plan, Plan)
    assert plan.seconds > 0
    assert plan.free_bytes > 0
    assert os.listdir(tmp_path) == []


def test_sweep__plan_refuses_a_path_that_cannot_be_written() -> None:
    with pytest.raises(OSError, match=r"cannot write /proc/none/r.zarr: .*choose another path"):
        fx.sweep(noise_rendering(), make_ensemble(), "/proc/none/r.zarr", plan_only=True, **OPTIONS)


def test_plan__warns_of_a_small_disk() -> None:
    plan = Plan(1, 0, 1, 1, 10, 10, 1.0, 1e12, 1000)
    assert "the disk is too small" in str(plan)
    assert "WARNING" not in str(plan._replace(disk_bytes=10))
