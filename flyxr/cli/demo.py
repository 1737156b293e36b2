"""The command ``demo``."""

from __future__ import annotations

import shlex
import time
from typing import TYPE_CHECKING

import flyxr as fx
from flyxr import store
from flyxr.cli import base, inputs
from flyxr.errors import ExistsError, Problem

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    import xarray as xr

MODELS, SAMPLES, SEED, DT = 4, 4, 42, 1 / 100

FEWEST_CLUSTERED, CLUSTERED_TYPE = 20, "T4c"
"""Least number of models to cluster, and the cell type whose responses are compared. Of fewer, clusters mean little."""

CENTRAL_TYPES = ("L1", "L2", "Mi1", "Mi9", "Tm3", "T4a", "T4b", "T4c", "T4d", "T5c")
"""Cell types of all models in the central column."""


def add_demo(commands: base.Commands) -> None:
    """Add the command ``demo``."""
    parser = base.add_command(
        commands,
        "demo",
        _demo,
        "render moving digits, simulate the responses of an ensemble, and write a report with pictures",
        example="flyxr demo --ensemble results/flow/0000 --out my-demo",
        description=f"Simulates the first {MODELS} models, best task error first, in all columns. Of an ensemble with "
        f"more models, all are simulated in the central column; from {FEWEST_CLUSTERED} models on, they are grouped by "
        f"their responses of {CLUSTERED_TYPE}.",
        paths=("ensemble", "out"),
        ensembles=("ensemble",),
    )
    parser.add_argument(
        "--ensemble",
        metavar="PATH",
        help="ensemble to simulate (default: the published models, if `flyxr fetch-pretrained` has fetched them, else "
        "those that flyxr ships)",
    )
    parser.add_argument("--out", metavar="DIR", default="flyxr-demo", help="folder for the stores and the report")
    parser.add_argument("--overwrite", action="store_true", help="replace the results of an earlier demo")


def _demo(options: argparse.Namespace) -> None:
    from dask.utils import format_bytes

    started = time.perf_counter()
    out = options.out
    report = out / "report.html"
    if options.ensemble:
        ensemble, description = fx.open_ensemble(options.ensemble), str(options.ensemble)
    else:
        ensemble, description = inputs.best_ensemble()
    best, n_models = ensemble.isel(model=slice(MODELS)), ensemble.sizes["model"]
    has_more, has_clusters = n_models > MODELS, n_models >= FEWEST_CLUSTERED
    names = ["stimulus", "rendering", "responses", *(["central"] if has_more else [])]
    targets = {name: out / f"{name}.zarr" for name in [*names, *(["clusters"] if has_clusters else [])]}
    for path in targets.values():
        store.check_target(path, overwrite=options.overwrite)
    if report.exists() and not options.overwrite:
        raise ExistsError(Problem(f"{report} exists", "add --overwrite to replace it, or choose another path"))
    is_trained = bool(ensemble.attrs.get("trained", False))
    n_steps = len(targets) + 1

    def save(name: str, data: xr.Dataset, text: str) -> xr.Dataset:
        print(f"{[*targets].index(name) + 1}/{n_steps}  {name:10}  {text}", flush=True)
        return fx.open(fx.save(data, targets[name], overwrite=options.overwrite))

    print(f"     models      {description}")
    movie = fx.stimuli.moving_digits(n_samples=SAMPLES, seed=SEED)
    movie = save("stimulus", movie, f"{SAMPLES} sequences of moving digits")
    eye = fx.BoxEye(extent=15, kernel_size=13)
    rendering = fx.resample(eye.render(movie), dt=DT)
    text = f"onto the {eye.n_columns} columns of the eye, in steps of {1e3 * DT:g} ms"
    rendering = save("rendering", rendering, text)
    responses = fx.simulate(rendering, best)
    size = format_bytes(responses.response.nbytes)
    kind = "trained" if is_trained else "untrained"
    text = f"of {best.sizes['model']} {kind} models, all cells, {size} before compression"
    responses = save("responses", responses, text)
    central = clusters = None
    if has_more:
        record = {"cell_type": list(CENTRAL_TYPES), "column": "central"}
        central = save(
            "central", fx.simulate(rendering, ensemble, record=record), f"responses of all {n_models} models"
        )
    if central is not None and has_clusters:
        print(f"{n_steps - 1}/{n_steps}  clusters    of models that respond alike in {CLUSTERED_TYPE}", flush=True)
        found = fx.cluster(central.fly.central(), [CLUSTERED_TYPE])
        clusters = fx.open(fx.save(found, targets["clusters"], overwrite=options.overwrite))
    print(f"{n_steps}/{n_steps}  report      with pictures", flush=True)
    fx.viz.report(
        movie,
        rendering,
        responses,
        report,
        title="Moving digits, seen by the fly",
        central=central,
        clusters=clusters,
        files={str(path): HOW_TO_OPEN[name].format(path=path) for name, path in targets.items()},
    )

    print(f"\nDone in {time.perf_counter() - started:.0f} s.")
    if not is_trained:
        print("These models are UNTRAINED: parameters drawn from the initial distributions, not the published models.")
    elif description.startswith("flyxr,"):
        print(
            "These models ship with flyxr, see docs/ensemble.md; they are not the published models.\n"
            "Fetch those with `flyxr fetch-pretrained`, then the demo simulates them."
        )
    for name, path in targets.items():
        print(f"  {path!s:32} {format_bytes(_n_bytes(path)):>10}  {base.format_dims(fx.open(path))}  ({name})")
    print(f"  {report!s:32} {format_bytes(report.stat().st_size):>10}  open it in a browser")
    browse = ["flyxr", "browse", str(targets["responses"]), "--movie", str(targets["stimulus"])]
    browse += ["--clusters", str(targets["clusters"])] if has_clusters else []
    print(f"\nBrowse the responses, with everything linked:\n  {shlex.join(browse)}")
    print(
        "\nContinue in Python:\n"
        "  import flyxr as fx\n"
        f'  responses = fx.open("{targets["responses"]}")\n'
        '  responses.response.fly.central("T4c")'
    )


HOW_TO_OPEN = {
    "stimulus": 'movie = fx.open("{path}")\nfx.viz.movie(movie)',
    "rendering": 'rendering = fx.open("{path}")\nfx.viz.hexmap(rendering)',
    "responses": 'responses = fx.open("{path}")\nresponses.response.sel(cell_type="T4c", model=responses.model[0])',
    "central": 'central = fx.open("{path}").response.fly.central("T4c")\nfx.viz.traces(central.isel(sample=0))',
    "clusters": 'clusters = fx.open("{path}")\nclusters.fly.members("T4c")',
}
"""Code that opens each store."""


def _n_bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
