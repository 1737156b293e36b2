"""Compare ensembles: flow error on held-out scenes, flash polarity, direction selectivity, diversity.

``python docs/ensemble/evaluate.py NAME=STORE [NAME=STORE ...]`` prints a table in Markdown; a store is anything that
``fx.open_ensemble`` opens. ``--json PATH`` adds the numbers of each model to a file, and prints all that are in it.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr

import flyxr as fx
from flyxr.training.readout import FlowReadout

if TYPE_CHECKING:
    from collections.abc import Iterable

T4, T5 = ["T4a", "T4b", "T4c", "T4d"], ["T5a", "T5b", "T5c", "T5d"]
DT = 1 / 100
SPEEDS = (4.8, 9.7, 19.0)  # columns/s
FIT_SEED, TEST_SEED = 10_001, 10_002  # scenes that no model was trained on
N_SCENES = 128
FRAMES = slice(0.18, 0.37, 3)  # s, s, frames
MIN_CLUSTERED = 8  # models
N_STEPS = 300
EVERY_COLUMN = 5  # of the columns that readouts are fitted to


@functools.cache
def scenes(n_scenes: int, seed: int, extent: int) -> xr.Dataset:
    """Scenes in memory."""
    return fx.stimuli.moving_layers(n_scenes, seed, n_directions=4, extent=extent).compute()


def flow_scores(ensemble: xr.Dataset, connectome: xr.Dataset, n_scenes: int = N_SCENES) -> dict[str, list[float]]:
    """Error relative to that of the mean flow, and R², by model: of a readout fitted to other scenes."""
    extent = int(connectome.attrs["extent"])
    outputs = connectome["cell_type"].values[connectome["role"].values == "output"].tolist()
    errors, r2 = [], []
    for model in range(ensemble.sizes["model"]):
        readout = FlowReadout(tuple(outputs), extent, 2)
        responses, flows = [], []
        for seed in (FIT_SEED, TEST_SEED):
            rendering = scenes(n_scenes, seed, extent)
            simulated = fx.simulate(
                rendering,
                ensemble.isel(model=[model]),
                initial_state="steady_state",
                record={"cell_type": outputs, "time": FRAMES},
                connectome=connectome,
            )["response"].compute()
            values = torch.as_tensor(simulated.isel(model=0).sel(cell_type=outputs).values)
            responses.append({name: values[:, :, i] for i, name in enumerate(outputs)})
            flow = rendering["flow"].sel(time=simulated["time"], method="nearest").values
            flows.append(readout.inner(torch.as_tensor(flow)))
        readout.fit(responses[0], flows[0])
        _refine(readout, readout.features(responses[0])[:, :, ::EVERY_COLUMN], flows[0][:, :, ::EVERY_COLUMN])
        with torch.no_grad():
            difference = readout(responses[1]) - flows[1]
        residual = flows[1] - flows[0].mean((0, 1, 2))
        errors.append(float(difference.norm(dim=-1).mean() / residual.norm(dim=-1).mean()))
        r2.append(float(1 - difference.square().sum() / residual.square().sum()))
    return {"flow_error": errors, "flow_r2": r2}


def _refine(readout: FlowReadout, features: torch.Tensor, flow: torch.Tensor) -> None:
    """Train all of a readout on given features."""
    adam = torch.optim.Adam(readout.parameters())
    rng = np.random.default_rng(0)
    features = features.detach()
    for step in range(N_STEPS):
        adam.param_groups[0]["lr"] = 1e-2 * 0.5 * (1 + np.cos(np.pi * step / N_STEPS)) + 1e-5
        samples = rng.choice(len(features), min(32, len(features)), replace=False)
        loss = (readout.decode(features[samples]) - flow[samples]).square().mean() / readout.flow_scale**2
        adam.zero_grad()
        loss.backward()
        adam.step()


def polarity_agreement(ensemble: xr.Dataset, connectome: xr.Dataset) -> dict[str, Any]:
    """Share of cell types of known polarity whose flash response index has the right sign, by model."""
    rendering = fx.stimuli.flashes(dt=DT)
    responses = fx.simulate(
        rendering, ensemble, initial_state="steady_state", record="central", connectome=connectome
    ).compute()
    index = fx.tuning.flash_response_index(responses)["flash_response_index"]
    polarity = fx.tuning.known_tuning()["polarity"].dropna("cell_type")
    is_right = np.sign(index.sel(cell_type=polarity["cell_type"])) == polarity
    median = np.sign(index.median("model").sel(cell_type=polarity["cell_type"])) == polarity
    wrong = polarity["cell_type"].values[is_right.mean("model").values < 0.5].tolist()
    return {
        "polarity": is_right.mean("cell_type").values.tolist(),
        "polarity_of_median": int(median.sum()),
        "n_polarity": polarity.size,
        "usually_wrong": wrong,
    }


def motion_scores(ensemble: xr.Dataset, connectome: xr.Dataset) -> dict[str, Any]:
    """Direction selectivity and preferred directions of T4 and T5, by model and of the median model."""
    rendering = fx.stimuli.moving_edges(speeds=SPEEDS, dt=DT)
    record = {"cell_type": T4 + T5, "column": "central"}
    responses = fx.simulate(
        rendering, ensemble, initial_state="steady_state", record=record, connectome=connectome
    ).compute()
    index = fx.tuning.direction_selectivity_index(responses)["direction_selectivity_index"]
    directions = fx.tuning.preferred_direction(responses)
    known = fx.tuning.known_tuning()["preferred_direction"].sel(cell_type=T4 + T5)
    curves = fx.tuning.tuning_curves(responses)["tuning_curve"]
    result: dict[str, Any] = {}
    distances, contrasts = [], []
    for name, types, intensity in (("t4", T4, 1), ("t5", T5, 0)):
        dsi = index.sel(cell_type=types, intensity=intensity)
        result[f"dsi_{name}"] = dsi.mean("cell_type").values.tolist()
        angle = directions["preferred_direction"].sel(cell_type=types, intensity=intensity)
        difference = abs(angle - known.sel(cell_type=types)) % 360
        distances.append(xr.where(difference <= 180, difference, 360 - difference).transpose("model", "cell_type"))
        largest = curves.sel(cell_type=types).max("angle")
        contrasts.append(
            (largest.sel(intensity=intensity) > largest.sel(intensity=1 - intensity)).transpose("model", ...)
        )
    distance = xr.concat(distances, "cell_type").fillna(180)
    result["n_right_directions"] = (distance <= 45).sum("cell_type").values.tolist()
    result["right_directions_of_median"] = int((distance.median("model") <= 45).sum())
    result["angular_distance"] = distance.mean("cell_type").values.tolist()
    result["n_right_contrasts"] = xr.concat(contrasts, "cell_type").sum("cell_type").values.tolist()
    return result


def diversity(ensemble: xr.Dataset) -> dict[str, float]:
    """Median correlation between models of log strengths and of biases."""
    result = {}
    logs = np.log(np.maximum(ensemble["synapse_strength"].values, 1e-9))
    for name, values in (("strength_correlation", logs), ("bias_correlation", ensemble["bias"].values)):
        correlation = np.corrcoef(values)
        n_models = len(values)
        result[name] = float(np.median(correlation[np.triu_indices(n_models, 1)])) if n_models > 1 else 1.0
    return result


def t4c_clusters(ensemble: xr.Dataset, connectome: xr.Dataset) -> int:
    """Number of clusters of the models' T4c responses to moving photographs."""
    rendering = fx.stimuli.natural_motion(dt=1 / 50)
    record = {"cell_type": ["T4c"], "column": "central"}
    responses = fx.simulate(rendering, ensemble, record=record, connectome=connectome).compute()
    clusters = fx.cluster(responses, seed=42)["cluster"]
    return int(np.unique(clusters.values[clusters.values >= 0]).size)


def rotated_connectome(seed: int = 0) -> xr.Dataset:
    """Connectome in which the columnar offsets of each pair are rotated by a random multiple of 60 degrees."""
    connectome = fx.open_connectome()
    turns = np.random.default_rng(seed).integers(1, 6, connectome.sizes["pair"])[connectome["synapse_pair"].values]
    du, dv = connectome["du"].values.copy(), connectome["dv"].values.copy()
    for turn in range(1, 6):
        is_left = turns >= turn
        du[is_left], dv[is_left] = -dv[is_left], du[is_left] + dv[is_left]
    rotated = connectome.assign_coords(du=("synapse", du), dv=("synapse", dv))
    del rotated.attrs["connectome"]
    return rotated


def evaluate(ensemble: xr.Dataset, connectome: xr.Dataset, n_scenes: int = N_SCENES) -> dict[str, Any]:
    """All scores of an ensemble."""
    scores: dict[str, Any] = {"n_models": ensemble.sizes["model"]}
    scores |= flow_scores(ensemble, connectome, n_scenes)
    scores |= polarity_agreement(ensemble, connectome)
    scores |= motion_scores(ensemble, connectome)
    scores |= diversity(ensemble)
    if ensemble.sizes["model"] >= MIN_CLUSTERED:
        scores["t4c_clusters"] = t4c_clusters(ensemble, connectome)
    return scores


ROWS = (
    ("models", "n_models", "{:.0f}"),
    ("flow error / that of the mean flow", "flow_error", "{:.2f}"),
    ("flow R²", "flow_r2", "{:.2f}"),
    ("flash polarity, share of known types", "polarity", "{:.2f}"),
    ("DSI of T4, ON edges", "dsi_t4", "{:.2f}"),
    ("DSI of T5, OFF edges", "dsi_t5", "{:.2f}"),
    ("preferred directions within 45 degrees, of 8", "n_right_directions", "{:.0f}"),
    ("the same, of the median model", "right_directions_of_median", "{:.0f}"),
    ("T4 prefers ON, T5 OFF, of 8", "n_right_contrasts", "{:.0f}"),
    ("correlation of log strengths between models", "strength_correlation", "{:.2f}"),
    ("correlation of biases between models", "bias_correlation", "{:.2f}"),
    ("clusters of T4c", "t4c_clusters", "{:.0f}"),
)


def table(scores: dict[str, dict[str, Any]]) -> str:
    """Markdown; of numbers by model the median and the range."""
    lines = ["| | " + " | ".join(scores) + " |", "| --- |" + " --- |" * len(scores)]
    for title, key, form in ROWS:
        cells = []
        for values in scores.values():
            value = values.get(key)
            if isinstance(value, list):
                low, middle, high = (form.format(f(value)) for f in (np.min, np.median, np.max))
                cells.append(f"{middle} ({low} to {high})" if len(value) > 1 else middle)
            else:
                cells.append("" if value is None else form.format(value))
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(arguments: Iterable[str]) -> None:
    """Evaluate the ensembles that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ensembles", nargs="+", metavar="NAME=STORE")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--scenes", type=int, default=N_SCENES)
    parser.add_argument("--models", type=int, help="only the first models of each ensemble")
    parser.add_argument("--rotated", action="store_true", help="the models have the rotated connectome")
    options = parser.parse_args(list(arguments))
    connectome = rotated_connectome() if options.rotated else fx.open_connectome()
    scores = json.loads(options.json.read_text()) if options.json is not None and options.json.exists() else {}
    for given in options.ensembles:
        name, _, path = given.partition("=")
        ensemble = fx.open_ensemble(path).isel(model=slice(options.models))
        scores[name] = evaluate(ensemble, connectome, options.scenes)
        if options.json is not None:
            options.json.write_text(json.dumps(scores, indent=1))
    sys.stdout.write(table(scores) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
