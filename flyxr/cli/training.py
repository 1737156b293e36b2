"""The command ``train``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import flyxr as fx
from flyxr import store
from flyxr.cli import base

if TYPE_CHECKING:
    import argparse

PARAMETERS = ("bias", "time_constant", "synapse_strength")


def add_train(commands: base.Commands) -> None:
    """Add the command ``train``."""
    parser = base.add_command(
        commands,
        "train",
        _train,
        "train models on optic flow, or fit them to recordings; run again, it resumes where it left off",
        example="flyxr train scenes.zarr trained.zarr --models 4 --checkpoints run",
        description="The scenes are a rendering with its optic flow, as fx.stimuli.moving_layers makes it, on a small "
        "lattice such as extent 6. With --recordings, central responses (sample, time, cell_type) are fitted instead.",
        paths=("rendering", "out", "ensemble", "recordings", "validation", "checkpoints"),
        ensembles=("ensemble",),
    )
    parser.add_argument("rendering", help="zarr store of a rendering, with its targets")
    parser.add_argument("out", help="zarr store to write")
    parser.add_argument("--models", type=int, help="number of models (default: 1, or those of the ensemble)")
    parser.add_argument("--ensemble", metavar="PATH", help="models to start from (default: calibrated models)")
    parser.add_argument("--recordings", metavar="STORE", help="responses to fit, instead of optic flow")
    parser.add_argument("--indicator", nargs=2, type=base.seconds, metavar=("RISE", "DECAY"), help="of calcium, s")
    parser.add_argument("--target", default="flow", help="variable of the rendering with the optic flow")
    parser.add_argument("--validation", metavar="STORE", help="rendering whose loss is the task error")
    parser.add_argument("--fixed", nargs="+", default=[], choices=PARAMETERS, help="parameters that are not trained")
    parser.add_argument("--iterations", type=int, default=2000, help="number of steps")
    parser.add_argument("--batch-size", type=int, default=16, help="samples in a step")
    parser.add_argument("--extent", type=int, help="radius of the lattice to train on (default: the rendering's)")
    parser.add_argument("--seed", type=int, default=0, help="seed of start and batches")
    parser.add_argument("--checkpoints", metavar="DIR", help="folder for checkpoints (default: none)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, …")
    base.add_overwrite(parser)


def _train(options: argparse.Namespace) -> None:
    rendering = base.open_kind(options.rendering, "rendering")
    ensemble = None if options.ensemble is None else fx.open_ensemble(options.ensemble)
    validation = None if options.validation is None else base.open_kind(options.validation, "rendering")
    if options.recordings is None:
        loss = fx.training.flow_loss(target=options.target)
    else:
        recordings = base.open_kind(options.recordings, "responses")
        rise, decay = options.indicator or (None, None)
        loss = fx.training.response_loss(recordings, rise=rise, decay=decay)
    store.check_target(options.out, overwrite=options.overwrite)
    trained = fx.train(
        rendering,
        loss,
        ensemble=ensemble,
        n_models=options.models,
        seed=options.seed,
        extent=options.extent,
        validation=validation,
        fixed=options.fixed,
        n_iterations=options.iterations,
        batch_size=options.batch_size,
        checkpoints=options.checkpoints,
        device=options.device,
    )
    base.print_saved(fx.save(trained, options.out, overwrite=options.overwrite))
    losses = trained["loss"].values
    n_last = max(losses.shape[1] // 10, 1)
    for name, loss_curve, error in zip(trained["model_name"].values, losses, trained["task_error"].values, strict=True):
        first, last = loss_curve[:n_last].mean(), loss_curve[-n_last:].mean()
        print(f"  {name:28} loss {first:.4g} to {last:.4g}, task error {error:.4g}")
