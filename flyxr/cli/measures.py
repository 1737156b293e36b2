"""The commands ``tuning`` and ``cluster``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import flyxr as fx
from flyxr import store
from flyxr.cli import base

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence


def add_tuning(commands: base.Commands) -> None:
    """Add the command ``tuning``."""
    parser = base.add_command(
        commands,
        "tuning",
        _tuning,
        "measure the tuning of cell types from responses to flashes, moving stimuli or impulses",
        example="flyxr tuning responses.zarr tuning.zarr",
        description="`flyxr stimulus` writes these stimuli, and `flyxr simulate` computes the responses.",
        paths=("responses", "out"),
    )
    parser.add_argument("responses", help="zarr store of responses")
    parser.add_argument("out", help="zarr store to write")
    base.add_overwrite(parser)


def add_cluster(commands: base.Commands) -> None:
    """Add the command ``cluster``."""
    parser = base.add_command(
        commands,
        "cluster",
        _cluster,
        "find groups of models that respond alike, for each cell type",
        example="flyxr cluster responses.zarr clusters.zarr --cell-types 'T4*' 'T5*' --stability",
        paths=("responses", "out"),
    )
    parser.add_argument("responses", help="zarr store of responses, ideally to natural or random movies")
    parser.add_argument("out", help="zarr store to write")
    parser.add_argument(
        "--cell-types", nargs="+", metavar="TYPE", help="names or patterns (default: all, a minute or two)"
    )
    parser.add_argument("--seed", type=int, default=42, help="seed of the embedding and the mixtures")
    parser.add_argument(
        "--stability",
        action="store_true",
        help="also compare clusters across seeds and left-out models (takes twenty times as long)",
    )
    base.add_overwrite(parser)


def _tuning(options: argparse.Namespace) -> None:
    measures = fx.tuning.summary(base.open_kind(options.responses, "responses"))
    store.check_target(options.out, overwrite=options.overwrite)
    measures = measures.compute()
    base.print_saved(fx.save(measures, options.out, overwrite=options.overwrite))
    for name, measure in measures.data_vars.items():
        low, high = float(measure.min()), float(measure.max())
        print(f"  {name:28} {low:.2f} to {high:.2f}, {base.format_dims(measure)}")
    for name, agreement in fx.tuning.agreements(measures).items():
        unit = "degrees from experiments" if name == "preferred_direction" else "correlation with experiments"
        low, median, high = agreement.values.min(), float(agreement.median()), agreement.values.max()
        print(f"  {name:28} {median:.2f} (median), {low:.2f} to {high:.2f} {unit}")


def _cluster(options: argparse.Namespace) -> None:
    responses = base.open_kind(options.responses, "responses").fly.central()
    store.check_target(options.out, overwrite=options.overwrite)
    clusters = fx.cluster(responses, options.cell_types, seed=options.seed)
    base.print_saved(fx.save(clusters, options.out, overwrite=options.overwrite))
    for cell_type in clusters["cell_type"].values:
        print(f"  {cell_type}")
        for label, models in clusters.fly.members(cell_type).items():
            error = float(clusters["task_error"].sel(model=models).mean())
            print(f"    cluster {label}: {len(models)} models, mean task error {error:.4g}: {_format_labels(models)}")
    if options.stability:
        stability = fx.cluster_stability(responses, options.cell_types)["adjusted_rand_index"]
        print("  adjusted Rand index across seeds and left-out models (in brackets: for data without clusters)")
        for cell_type, values in stability.groupby("cell_type"):
            index, null = (values.sel(data=name).values.ravel() for name in ("responses", "no_clusters"))
            print(f"    {cell_type}: {index[0]:.2f} ({null[0]:.2f}) and {index[1]:.2f} ({null[1]:.2f})")


def _format_labels(labels: Sequence[Any], limit: int = 8) -> str:
    return ", ".join(map(str, labels[:limit])) + (", …" if len(labels) > limit else "")
