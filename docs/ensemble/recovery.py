"""Fit models to simulated recordings of another model: ``python docs/ensemble/recovery.py ENSEMBLE``.

The first model of the ensemble, such as the published one, is 'recorded': its central responses to flashes and moving
edges, of 20 cell types, through a calcium indicator, with noise. Other models are fitted to these recordings. The error
is the share of variance that a response does not explain at its best scale and offset, for recorded and other cell
types, and for the stimuli of the fit and others.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

import flyxr as fx

if TYPE_CHECKING:
    import xarray as xr

DT, EXTENT = 1 / 50, 6
RISE, DECAY = 0.05, 0.2
NOISE = 0.1  # of the standard deviation of each cell type
N_ITERATIONS = 250
RECORDED = (
    "L1 L2 L3 L5 Mi1 Mi4 Mi9 Tm1 Tm2 Tm3 Tm4 Tm9 T4a T4b T4c T4d T5a T5b T5c T5d"  # as in imaging of the motion pathway
).split()


def stimuli(angles: list[float], speed: float, radius: int) -> xr.Dataset:
    """Edges and flashes, one after the other, as one rendering."""
    common: dict[str, Any] = {"t_pre": 0.2, "dt": DT, "extent": EXTENT}
    edges = fx.stimuli.moving_edges(angles, speed, t_post=0.2, **common)["luminance"].values
    flashes = fx.stimuli.flashes(radius, t_stim=0.4, **common)["luminance"].values
    n_missing = edges.shape[1] - flashes.shape[1]
    flashes = np.pad(flashes, ((0, 0), (0, max(n_missing, 0)), (0, 0)), constant_values=0.5)[:, : edges.shape[1]]
    return fx.stimuli.from_columns(np.concatenate([edges, flashes]), dt=DT)


def imaged(rendering: xr.Dataset, ensemble: xr.Dataset) -> xr.DataArray:
    """Central responses (model, sample, time, cell_type) through the indicator."""
    connectome = fx.open_connectome(extent=EXTENT)
    responses = fx.simulate(
        rendering, ensemble, initial_state="steady_state", record="central", connectome=connectome
    ).compute()
    imaged_responses: xr.DataArray = fx.tuning.calcium(responses["response"].isel(column=0), rise=RISE, decay=DECAY)
    return imaged_responses


def error(responses: xr.DataArray, truth: xr.DataArray) -> xr.DataArray:
    """Share of variance (model, cell_type) that is not explained at the best scale, at least 0, and offset."""
    dims = ("sample", "time")
    responses, truth = responses - responses.mean(dims), truth - truth.mean(dims)
    scale = ((responses * truth).sum(dims) / ((responses**2).sum(dims) + 1e-9)).clip(min=0)
    result: xr.DataArray = ((truth - scale * responses) ** 2).sum(dims) / (truth**2).sum(dims)
    return result


def main() -> None:
    """Fit and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ensemble", help="anything that fx.open_ensemble opens; its first model is recorded")
    parser.add_argument("--iterations", type=int, default=N_ITERATIONS)
    parser.add_argument(
        "--start", default="calibrated", help="'calibrated', or the position of a model of the ensemble"
    )
    options = parser.parse_args()
    ensemble = fx.open_ensemble(options.ensemble)
    fitted_to = stimuli([0, 60, 120, 180, 240, 300], 9.7, 6)
    held_out = stimuli([30, 90, 150, 210, 270, 330], 13, 3)
    truths = [imaged(rendering, ensemble.isel(model=0)) for rendering in (fitted_to, held_out)]
    noise = truths[0].copy(data=np.random.default_rng(0).standard_normal(truths[0].shape).astype(np.float32))
    recordings = (truths[0] + NOISE * truths[0].std(("sample", "time")) * noise).sel(cell_type=RECORDED)
    recordings = recordings.drop_vars([name for name in recordings.coords if name not in recordings.dims])
    if options.start == "calibrated":
        scenes = fx.stimuli.moving_layers(16, seed=0, extent=EXTENT)
        start = fx.training.calibrated_ensemble(scenes, 1, seed=1, extent=EXTENT)
    else:
        start = ensemble.isel(model=[int(options.start)])
    fitted = fx.train(
        fitted_to,
        fx.training.response_loss(recordings, rise=RISE, decay=DECAY),
        ensemble=start,
        penalties=[fx.training.parameter_penalty(start, 1e-3)],
        n_iterations=options.iterations,
        learning_rates={"synapse_strength": 0.01, "bias": 0.005, "time_constant": 0.0003},
        extent=EXTENT,
    )
    is_recorded = truths[0]["cell_type"].isin(RECORDED)
    lines = ["| stimuli | cell types | error of the start | error of the fit | types that improve |"]
    lines += ["| --- | --- | --- | --- | --- |"]
    for stimulus, rendering, truth in zip(("fitted", "held out"), (fitted_to, held_out), truths, strict=True):
        errors = [error(imaged(rendering, model).isel(model=0), truth) for model in (start, fitted)]
        for types, selected in (("recorded", is_recorded), ("not recorded", ~is_recorded)):
            before, after = (values[selected.values].dropna("cell_type") for values in errors)
            improved = f"{int((after < before).sum())} of {before.size}"
            lines.append(f"| {stimulus} | {types} | {before.mean():.3f} | {after.mean():.3f} | {improved} |")
            worst = (after - before).sortby(after - before)[-3:]
            named = zip(worst["cell_type"].values, worst.values, strict=True)
            sys.stderr.write(f"{stimulus}, {types}: worst {[(name, round(float(x), 2)) for name, x in named]}\n")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
