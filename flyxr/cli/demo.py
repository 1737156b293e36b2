"""The command ``demo``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import flyxr as fx
from flyxr import store
from flyxr.cli import base, inputs
from flyxr.errors import ExistsError, Problem

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

MODELS, SAMPLES, SEED, DT = 4, 4, 42, 1 / 100


def add_demo(commands: base.Commands) -> None:
    """Add the command ``demo``."""
    parser = base.add_command(
        commands,
        "demo",
        _demo,
        "render moving digits, simulate the responses of an ensemble, and write a report with pictures",
        example="flyxr demo --ensemble results/flow/0000 --out my-demo",
        paths=("ensemble", "out"),
        ensembles=("ensemble",),
    )
    parser.add_argument(
        "--ensemble",
        metavar="PATH",
        help=f"ensemble to simulate (default: the best {MODELS} published models, if `flyxr fetch-pretrained` has "
        "fetched them, else those that flyxr ships)",
    )
    parser.add_argument("--out", metavar="DIR", default="flyxr-demo", help="folder for the stores and the report")
    parser.add_argument("--overwrite", action="store_true", help="replace the results of an earlier demo")


def _demo(options: argparse.Namespace) -> None:
    from dask.utils import format_bytes

    started = time.perf_counter()
    out = options.out
    targets = {name: out / f"{name}.zarr" for name in ("stimulus", "rendering", "responses")}
    report = out / "report.html"
    if options.ensemble:
        ensemble, description = fx.open_ensemble(options.ensemble), str(options.ensemble)
    else:
        ensemble, description = inputs.best_ensemble(MODELS)
    for path in targets.values():
        store.check_target(path, overwrite=options.overwrite)
    if report.exists() and not options.overwrite:
        raise ExistsError(Problem(f"{report} exists", "add --overwrite to replace it, or choose another path"))
    n_models = ensemble.sizes["model"]
    is_trained = bool(ensemble.attrs.get("trained", False))

    print(f"     models      {description}")
    print(f"1/4  stimulus    {SAMPLES} sequences of moving digits")
    fx.save(
        fx.stimuli.moving_digits(n_samples=SAMPLES, seed=SEED),
        targets["stimulus"],
        overwrite=options.overwrite,
    )
    movie = fx.open(targets["stimulus"])

    eye = fx.BoxEye(extent=15, kernel_size=13)
    print(f"2/4  rendering   onto the {eye.n_columns} columns of the eye, in steps of {1e3 * DT:g} ms")
    fx.save(fx.resample(eye.render(movie), dt=DT), targets["rendering"], overwrite=options.overwrite)
    rendering = fx.open(targets["rendering"])

    responses = fx.simulate(rendering, ensemble)
    kind = "trained" if is_trained else "untrained"
    print(f"3/4  responses   of {n_models} {kind} models, {format_bytes(responses.response.nbytes)} before compression")
    fx.save(responses, targets["responses"], overwrite=options.overwrite)
    responses = fx.open(targets["responses"])

    print("4/4  report      with pictures")
    fx.viz.report(movie, rendering, responses, report, title="Moving digits, seen by the fly")

    seconds = time.perf_counter() - started
    print(f"\nDone in {seconds:.0f} s.")
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
    print(
        "\nContinue in Python:\n"
        "  import flyxr as fx\n"
        f'  responses = fx.open("{targets["responses"]}")\n'
        '  responses.response.fly.central("T4c")'
    )


def _n_bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
