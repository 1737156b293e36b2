"""The command line: arguments and printing. The public functions of the same names do the work."""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import flyxr as fx
from flyxr import schema, store
from flyxr.engine import ENGINES
from flyxr.errors import ExistsError, FlyxrError, FlyxrWarning, InputError, MissingError, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import xarray as xr

DEMO_MODELS, DEMO_SAMPLES, DEMO_SEED, DEMO_DT = 4, 4, 42, 1 / 100


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse arguments and run a command.

    Returns
    -------
    int
        Exit status, see :func:`run_command`.

    Examples
    --------
    >>> main(["simulate", "nowhere.zarr", "ensemble.zarr", "out.zarr"])
    2
    """
    options = build_parser().parse_args(arguments)
    return run_command(options.run, options)


def run_command(run: Callable[[argparse.Namespace], None], options: argparse.Namespace) -> int:
    """Run the function of a command, and print errors and warnings for the user.

    Parameters
    ----------
    run
        Function of the command.
    options
        Its arguments, with the name of the ``command`` and whether to show a ``traceback``.

    Returns
    -------
    int
        0, or 2 after an error that the user can fix, which is printed in a sentence. Any other error is a bug in flyxr
        and is raised, after a line that says so.

    Examples
    --------
    >>> run_command(lambda options: None, argparse.Namespace(command="info", traceback=False))
    0
    """

    def print_message(message: object, *_: object, **__: object) -> None:
        if isinstance(message, FlyxrError | FlyxrWarning):
            message = message.message(command_line=True)
        print(f"flyxr {options.command}: {message}", file=sys.stderr)

    try:
        with warnings.catch_warnings():
            warnings.showwarning = print_message
            run(options)
    except (FlyxrError, OSError) as error:
        if options.traceback:
            raise
        print_message(error)
        return 2
    except Exception:
        print_message("this is a bug in flyxr, please report it with the following lines")
        raise
    return 0


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Show the defaults of options that have one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None or action.default is False else super()._get_help_string(action)


def build_parser() -> argparse.ArgumentParser:
    """Parser of all commands; ``run`` of the parsed arguments is the function of the command.

    Examples
    --------
    >>> build_parser().parse_args(["info", "responses.zarr"]).store
    ['responses.zarr']
    """
    parser = argparse.ArgumentParser(
        prog="flyxr",
        description="Simulate connectome-constrained networks of the fly visual system: render movies onto the columns "
        "of the eye, and compute the responses of ensembles of models.",
        epilog="Start with `flyxr demo`. `flyxr COMMAND --help` explains a command, with an example.",
    )
    parser.add_argument("--version", action="version", version=f"flyxr {fx.__version__}")
    parser.add_argument("--traceback", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: Any, summary: str, example: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            epilog=f"Example: {example}",
            formatter_class=_HelpFormatter,
        )
        sub.set_defaults(run=run)
        return sub

    demo = command(
        "demo",
        _demo,
        "render moving digits, simulate the responses of an ensemble, and write a report with pictures",
        "flyxr demo --ensemble results/flow/0000 --out my-demo",
    )
    demo.add_argument("--ensemble", metavar="PATH", help="ensemble to simulate (default: untrained models)")
    demo.add_argument("--out", metavar="DIR", default="flyxr-demo", help="folder for the stores and the report")
    demo.add_argument("--overwrite", action="store_true", help="replace the results of an earlier demo")

    render = command(
        "render",
        _render,
        "render a movie onto the columns of the eye",
        "flyxr render flight.mp4 rendering.zarr --dt 0.01",
    )
    render.add_argument("movie", help="a video, a .npy array (sample, time, y, x), or a zarr store of a movie")
    render.add_argument("out", help="zarr store to write")
    render.add_argument("--extent", type=int, default=15, help="radius of the lattice of columns")
    render.add_argument("--kernel-size", type=int, default=13, help="edge of the box of each column, pixels")
    render.add_argument(
        "--filter",
        choices=["mean", "sum", "median"],
        default="mean",
        help="how a box of pixels is reduced",
    )
    render.add_argument("--frame-rate", type=float, help="frames per second; overrides that of a video")
    render.add_argument("--rescale", action="store_true", help="map the lowest value to 0 and the highest to 1")
    render.add_argument("--dt", type=float, help="resample to this integration step, s")
    render.add_argument("--overwrite", action="store_true", help="replace an existing store")

    simulate = command(
        "simulate",
        _simulate,
        "simulate the responses of an ensemble to a stimulus into a store; run again, it resumes where it left off",
        "flyxr simulate rendering.zarr results/flow/0000 responses.zarr --record 'T4*' 'T5*' --plan",
    )
    simulate.add_argument("stimulus", help="zarr store of a rendering, or of a movie, which is rendered first")
    simulate.add_argument("ensemble", help="zarr store of an ensemble, or flyvis results as a directory or zip file")
    simulate.add_argument("out", help="zarr store to write or to resume")
    simulate.add_argument("--dt", type=float, help="resample to this integration step first, s")
    simulate.add_argument(
        "--initial-state",
        choices=["fade_in", "steady_state", "rest"],
        default="fade_in",
        help="state in which the models start",
    )
    simulate.add_argument(
        "--record",
        nargs="+",
        default=["all"],
        metavar="TYPE",
        help="all, central, or cell types and patterns",
    )
    simulate.add_argument("--plan", action="store_true", help="only print the blocks, bytes and time of the run")
    simulate.add_argument("--memory-limit", default="2 GB", metavar="BYTES", help="memory limit of a worker")
    simulate.add_argument(
        "--precision", default="float32", help="float32, float16, or the number of mantissa bits to keep"
    )
    simulate.add_argument("--scheduler", metavar="ADDRESS", help="dask.distributed scheduler to compute on")
    simulate.add_argument("--verify", action="store_true", help="read the whole store and recompute corrupted files")
    simulate.add_argument(
        "--relabel", action="store_true", help="replace the labels in the store by those of this stimulus and ensemble"
    )
    simulate.add_argument("--engine", default="auto", help=", ".join(["auto", *ENGINES]))
    simulate.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, …")
    simulate.add_argument("--overwrite", action="store_true", help="replace an existing store")

    tuning = command(
        "tuning",
        _tuning,
        "measure the tuning of cell types from responses to flashes, moving stimuli or impulses",
        "flyxr tuning responses.zarr tuning.zarr",
    )
    tuning.add_argument("responses", help="zarr store of responses")
    tuning.add_argument("out", help="zarr store to write")
    tuning.add_argument("--overwrite", action="store_true", help="replace an existing store")

    cluster = command(
        "cluster",
        _cluster,
        "find groups of models that respond alike, for each cell type",
        "flyxr cluster responses.zarr clusters.zarr --cell-types 'T4*' 'T5*' --stability",
    )
    cluster.add_argument("responses", help="zarr store of responses, ideally to natural or random movies")
    cluster.add_argument("out", help="zarr store to write")
    cluster.add_argument(
        "--cell-types", nargs="+", metavar="TYPE", help="names or patterns (default: all; takes hours)"
    )
    cluster.add_argument("--seed", type=int, default=42, help="seed of the embedding and the mixtures")
    cluster.add_argument(
        "--stability",
        action="store_true",
        help="also compare clusters across seeds and left-out models",
    )
    cluster.add_argument("--overwrite", action="store_true", help="replace an existing store")

    info = command("info", _info, "show what a store contains and how it was made", "flyxr info responses.zarr")
    info.add_argument("store", nargs="+", help="zarr store")

    bench = command(
        "bench",
        _bench,
        "time flyxr on this machine, and compare it with flyvis",
        "flyxr bench --peer flyvis-env/bin/python --out bench.json",
    )
    bench.add_argument("--peer", metavar="PYTHON", help="Python interpreter of an environment with flyvis")
    bench.add_argument("--ensemble", metavar="PATH", help="models to simulate (default: random parameters)")
    bench.add_argument("--out", metavar="FILE", help="JSON file for all figures")
    bench.add_argument("--page", metavar="FILE", help="Markdown page to write")
    bench.add_argument("--quick", action="store_true", help="small cases, to check that everything works")
    return parser


def _demo(options: argparse.Namespace) -> None:
    from dask.utils import format_bytes

    started = time.perf_counter()
    out = Path(options.out)
    targets = {name: out / f"{name}.zarr" for name in ("stimulus", "rendering", "responses")}
    report = out / "report.html"
    for path in targets.values():
        store.check_target(path, overwrite=options.overwrite)
    if report.exists() and not options.overwrite:
        raise ExistsError(Problem(f"{report} exists", "add --overwrite to replace it, or choose another path"))
    if options.ensemble:
        ensemble = fx.open_ensemble(options.ensemble)
    else:
        ensemble = fx.sample_ensemble(DEMO_MODELS, seed=DEMO_SEED)
    n_models = ensemble.sizes["model"]
    is_trained = bool(ensemble.attrs.get("trained", False))

    print(f"1/4  stimulus    {DEMO_SAMPLES} sequences of moving digits")
    fx.save(
        fx.stimuli.moving_digits(n_samples=DEMO_SAMPLES, seed=DEMO_SEED),
        targets["stimulus"],
        overwrite=options.overwrite,
    )
    movie = fx.open(targets["stimulus"])

    eye = fx.BoxEye(extent=15, kernel_size=13)
    print(f"2/4  rendering   onto the {eye.n_columns} columns of the eye, in steps of {1e3 * DEMO_DT:g} ms")
    fx.save(fx.resample(eye.render(movie), dt=DEMO_DT), targets["rendering"], overwrite=options.overwrite)
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
        print(
            "These models are UNTRAINED: parameters drawn from the initial distributions, not the published models.\n"
            "Simulate trained models with `flyxr demo --ensemble PATH`, e.g. flyvis's results/flow/0000."
        )
    for name, path in targets.items():
        print(f"  {path!s:32} {format_bytes(_bytes(path)):>10}  {_dims(fx.open(path))}  ({name})")
    print(f"  {report!s:32} {format_bytes(report.stat().st_size):>10}  open it in a browser")
    print(
        "\nContinue in Python:\n"
        "  import flyxr as fx\n"
        f'  responses = fx.open("{targets["responses"]}")\n'
        '  responses.response.fly.central("T4c")'
    )


def _render(options: argparse.Namespace) -> None:
    store.check_target(options.out, overwrite=options.overwrite)
    path = Path(options.movie)
    eye = fx.BoxEye(options.extent, options.kernel_size)
    if path.is_dir():
        movie = _open_kind(path, "movie")
    elif path.suffix == ".npy":
        if options.frame_rate is None:
            raise InputError(Problem(f"expected the frames per second of {path}, got none", "add --frame-rate 30"))
        movie = fx.stimuli.from_array(_read_array(path), frame_rate=options.frame_rate, rescale=options.rescale)
    else:
        movie = fx.stimuli.from_video(path, frame_rate=options.frame_rate)
    rendering = eye.render(movie, filter=options.filter)
    if options.dt is not None:
        rendering = fx.resample(rendering, dt=options.dt)
    _print_saved(fx.save(rendering, options.out, overwrite=options.overwrite))


def _read_array(path: Path) -> Any:
    import numpy as np

    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise InputError(
            Problem(
                f"expected a .npy file of numbers at {path}, got one that cannot be read ({error})",
                "write it with np.save(path, array)",
            )
        ) from error


def _simulate(options: argparse.Namespace) -> None:
    stimulus = _open_kind(Path(options.stimulus), "rendering", "movie")
    if schema.kind_of(stimulus) == "movie":
        stimulus = fx.BoxEye().render(stimulus)
    if options.dt is not None:
        stimulus = fx.resample(stimulus, dt=options.dt)
    precision = int(options.precision) if options.precision.isdecimal() else options.precision
    with _client(options.scheduler) as client:
        result = fx.sweep(
            stimulus,
            fx.open_ensemble(options.ensemble),
            options.out,
            record=options.record[0] if len(options.record) == 1 else options.record,
            initial_state=options.initial_state,
            engine=options.engine,
            device=options.device,
            client=client,
            memory_limit=options.memory_limit,
            precision=precision,
            plan_only=options.plan,
            verify=options.verify,
            relabel=options.relabel,
            overwrite=options.overwrite,
        )
    if options.plan:
        print(result.text(command_line=True))
    else:
        _print_saved(Path(options.out))


def _client(address: str | None) -> Any:
    if address is None:
        return nullcontext()
    from distributed import Client

    try:
        return Client(address, timeout="30s")
    except ValueError as error:
        raise InputError(
            Problem(
                f"expected the address of a dask.distributed scheduler, got {address} ({error})",
                "e.g. --scheduler tcp://127.0.0.1:8786",
            )
        ) from error


def _open_kind(path: Path, *kinds: str) -> xr.Dataset:
    dataset = fx.open(path)
    kind = schema.kind_of(dataset, path)
    if kind not in kinds:
        expected = " or ".join(map(schema.kind_with_article, kinds))
        raise InputError(f"expected a store of {expected} at {path}, got one of {schema.kind_with_article(kind)}")
    return dataset


def _tuning(options: argparse.Namespace) -> None:
    store.check_target(options.out, overwrite=options.overwrite)
    measures = fx.tuning.summary(_open_kind(Path(options.responses), "responses")).compute()
    _print_saved(fx.save(measures, options.out, overwrite=options.overwrite))
    for name, agreement in fx.tuning.agreements(measures).items():
        unit = "degrees from experiments" if name == "preferred_direction" else "correlation with experiments"
        low, median, high = agreement.values.min(), float(agreement.median()), agreement.values.max()
        print(f"  {name:28} {median:.2f} (median), {low:.2f} to {high:.2f} {unit}")


def _cluster(options: argparse.Namespace) -> None:
    store.check_target(options.out, overwrite=options.overwrite)
    responses = _open_kind(Path(options.responses), "responses").fly.central()
    clusters = fx.cluster(responses, options.cell_types, seed=options.seed)
    _print_saved(fx.save(clusters, options.out, overwrite=options.overwrite))
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


def _info(options: argparse.Namespace) -> None:
    for path in options.store:
        print(store.describe(path))


def _bench(options: argparse.Namespace) -> None:
    from flyxr import bench

    for path in filter(None, (options.out, options.page)):
        folder = Path(path).absolute().parent
        if not folder.is_dir():
            raise MissingError(
                Problem(f"expected a folder at {folder} to write {path} in, got none", "create it first")
            )
    report = bench.run(
        options.peer, ensemble=options.ensemble, quick=options.quick, progress=lambda line: print(line, file=sys.stderr)
    )
    bench.write(report, out=options.out, to_page=options.page)
    print(bench.table(report))


def _print_saved(path: Path) -> None:
    print(store.describe(path).splitlines()[0])


def _format_labels(labels: Sequence[Any], limit: int = 8) -> str:
    return ", ".join(map(str, labels[:limit])) + (", …" if len(labels) > limit else "")


def _dims(data: xr.Dataset | xr.DataArray) -> str:
    return " x ".join(f"{length} {dim}" for dim, length in data.sizes.items())


def _bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


if __name__ == "__main__":
    sys.exit(main())
