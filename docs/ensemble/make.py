"""Remake the ensemble that flyxr ships: ``python docs/ensemble/make.py FOLDER``.

Trains one model for each seed in ``SEEDS`` on the same scenes, each in a process of its own, and keeps those whose
optic flow on held-out scenes has an R² above ``MIN_R2``, without a look at any other property. It can be stopped and
called again. The kept models are written to ``FOLDER/ensemble.zarr``; ``FOLDER/selection.json`` holds the scores of all
seeds. Copy the store to ``flyxr/data/ensemble.zarr``.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import evaluate
import numpy as np
import xarray as xr

import flyxr as fx
from flyxr import provenance, store

SEEDS = range(101, 121)
"""Seeds 1 to 5 and from 1000 on were used to choose the recipe."""
MIN_R2 = 0.25
EXTENT = 6
SCENES: dict[str, Any] = {"n_samples": 2400, "seed": 0, "n_directions": 4, "dt": 1 / 50, "extent": EXTENT}
RECIPE: dict[str, Any] = {
    "n_iterations": 1100,
    "batch_size": 16,
    "learning_rates": {"synapse_strength": 0.012, "bias": 0.006, "time_constant": 0.0003, "loss": 0.006},
}


def train_one(folder: Path, seed: int, connectome: xr.Dataset | None = None) -> str:
    """Train the model of one seed, unless that is done, and return its path."""
    path = folder / f"{seed:04}.zarr"
    if not path.exists():
        scenes = fx.open(folder / "scenes.zarr")
        model = fx.train(
            scenes,
            fx.training.flow_loss(),
            n_models=1,
            seed=seed,
            connectome=connectome,
            checkpoints=folder / f"{seed:04}",
            progress=False,
            **RECIPE,
        )
        name = np.array([f"flyxr/{seed:03}"], dtype=object)
        fx.save(model.assign_coords(model=[seed], model_name=("model", name)), path)
    return str(path)


def score_one(folder: Path, seed: int) -> dict[str, float]:
    """Error and R² of the flow on held-out scenes of the model of one seed."""
    path = folder / f"{seed:04}.json"
    if not path.exists():
        model = fx.open_ensemble(train_one(folder, seed))
        scores = {name: values[0] for name, values in evaluate.flow_scores(model, fx.open_connectome()).items()}
        path.write_text(json.dumps(scores))
    scores: dict[str, float] = json.loads(path.read_text())
    sys.stderr.write(f"seed {seed}: {scores}\n")
    return scores


def select(folder: Path, seeds: list[int], scores: list[dict[str, float]]) -> xr.Dataset:
    """Ensemble of the models above the threshold, best first; the task error is the flow error."""
    kept = sorted(
        (number for number, score in enumerate(scores) if score["flow_r2"] > MIN_R2),
        key=lambda number: scores[number]["flow_error"],
    )
    models = [fx.open_ensemble(folder / f"{seeds[number]:04}.zarr").drop_vars("loss") for number in kept]
    ensemble = xr.concat(models, "model", combine_attrs="override")
    errors = np.array([scores[number]["flow_error"] for number in kept])
    ensemble = ensemble.assign_coords(model=np.arange(len(kept)), task_error=("model", errors))
    ensemble = ensemble.assign_attrs(
        description=(
            "trained on procedural optic flow, see docs/ensemble.md: not the published models; "
            f"{len(kept)} of {len(seeds)} seeds, selected by the R² of the flow on held-out scenes alone"
        ),
        task_error_measure="flow error on held-out scenes, relative to that of the mean flow",
        source="flyxr",
    )
    return provenance.add(ensemble, "select", {"seeds": seeds, "min_r2": MIN_R2})


def make_references(folder: Path, seeds: list[int], n_controls: int) -> None:
    """Write ``calibrated.zarr``, the untrained start of all seeds, and ``control.zarr``.

    The controls are trained by the same recipe on a connectome whose columnar offsets are rotated at random.
    """
    scenes = fx.open(folder / "scenes.zarr")
    starts = [fx.training.calibrated_ensemble(scenes, 1, seed) for seed in seeds]
    starts = [start.assign_coords(model=[seed]) for start, seed in zip(starts, seeds, strict=True)]
    fx.save(xr.concat(starts, "model", combine_attrs="override"), folder / "calibrated.zarr", overwrite=True)
    rotated = evaluate.rotated_connectome()
    controls = [fx.open_ensemble(train_one(folder, seed, rotated)) for seed in range(201, 201 + n_controls)]
    if controls:
        control = xr.concat(controls, "model", combine_attrs="override").drop_vars("loss")
        fx.save(control, folder / "control.zarr", overwrite=True)


def main() -> None:
    """Train, score and select."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--controls", type=int, help="make the models to compare with, and this number of controls")
    options = parser.parse_args()
    folder, seeds = options.folder, options.seeds
    folder.mkdir(parents=True, exist_ok=True)
    scenes = fx.stimuli.moving_layers(**SCENES)
    if not (folder / "scenes.zarr").exists():
        fx.save(scenes, folder / "scenes.zarr")
    if options.controls is not None:
        make_references(folder, seeds, options.controls)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.processes, mp_context=context) as pool:
        paths = [pool.submit(train_one, folder, seed) for seed in seeds]
        for path in paths:
            path.result()
        scores = [future.result() for future in [pool.submit(score_one, folder, seed) for seed in seeds]]
    (folder / "selection.json").write_text(json.dumps(dict(zip(map(str, seeds), scores, strict=True)), indent=1))
    ensemble = select(folder, seeds, scores)
    path = store.save(ensemble, folder / "ensemble.zarr", overwrite=True)
    n_bytes = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    sys.stderr.write(f"{ensemble.sizes['model']} of {len(seeds)} models, {n_bytes / 1000:.0f} kB\n")


if __name__ == "__main__":
    main()
