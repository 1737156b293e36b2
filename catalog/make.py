"""Make the stores of this catalog, and publish them: ``python catalog/make.py``.

Everything is small and random seeds are fixed, so that a test makes the stores anew and compares them.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

import flyxr as fx

LICENCE = "MIT"
CELL_TYPES = ["T4c", "T5c"]
DESCRIPTIONS = {
    "digits": "Two sequences of moving digits",
    "rendering": "The digits on the 721 columns of the eye, in steps of 1/50 s",
    "models": "Twelve of the models that flyxr ships, trained on procedural optic flow (not the published ones)",
    "responses": "Responses of the central cell of every type of these models to the digits",
    "maps": "Responses of T4c and T5c of the first model to the first sequence, in all columns",
    "measures": "Norm of the central responses of each cell type of each model",
    "clusters": "Models with similar central responses of T4c and T5c, by UMAP and Gaussian mixtures",
}
ON_DEMAND: dict[str, dict[str, Any]] = {
    "flyvis": {
        "ensemble": "flyvis",
        "kind": "ensemble",
        "licence": "MIT",
        "description": "The 50 published models (Lappalainen et al. 2024), once fx.fetch_pretrained() has fetched them",
    },
    "edges": {
        "stimulus": "moving_edges",
        "arguments": {"dt": 0.01},
        "kind": "rendering",
        "licence": LICENCE,
        "description": "ON and OFF edges in twelve directions, computed when they are read",
    },
}


def make(folder: Path, *, with_clusters: bool = True) -> dict[str, Path]:
    """Write all stores into a folder; return their paths by name. Clusters take most of the time."""

    def save(name: str, dataset: Any) -> Any:
        return fx.open(fx.save(dataset, folder / f"{name}.zarr", overwrite=True))

    digits = save("digits", fx.stimuli.moving_digits(n_samples=2, seed=42, n_frames=16))
    rendering = save("rendering", fx.resample(fx.BoxEye(extent=15, kernel_size=13).render(digits), dt=1 / 50))
    models = save("models", fx.open_ensemble("flyxr").isel(model=slice(12)))
    options = {"precision": 10, "overwrite": True, "progress": False}
    fx.sweep(rendering, models, folder / "responses.zarr", record="central", **options)
    first = {"rendering": rendering.isel(sample=[0]), "ensemble": models.isel(model=[0])}
    fx.sweep(store=folder / "maps.zarr", record=CELL_TYPES, **first, **options)
    responses = fx.open(folder / "responses.zarr")
    save("measures", fx.tuning.response_norm(responses))
    if with_clusters:
        save("clusters", fx.cluster(responses.fly.central(), CELL_TYPES, seed=0))
    return {name: path for name in DESCRIPTIONS if (path := folder / f"{name}.zarr").exists()}


def publish(stores: dict[str, Path], catalog: Path) -> None:
    """Write the catalog of the stores, with what is made or fetched on demand."""
    for name, store in stores.items():
        fx.catalog.publish(store, catalog, name=name, description=DESCRIPTIONS[name], licence=LICENCE, overwrite=True)
    content = yaml.safe_load(catalog.read_text())
    content["metadata"]["on_demand"] = ON_DEMAND
    fx.catalog.base.write_content(catalog, content)


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    publish(make(target / "data"), target / "catalog.yaml")
