"""The commands ``render`` and ``simulate``."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import flyxr as fx
from flyxr.cli import base, inputs
from flyxr.engine import ENGINES
from flyxr.errors import InputError, Problem

if TYPE_CHECKING:
    import argparse

    import xarray as xr


def add_render(commands: base.Commands) -> None:
    """Add the command ``render``."""
    parser = base.add_command(
        commands,
        "render",
        _render,
        "render a movie onto the columns of the eye",
        example="flyxr render flight.mp4 rendering.zarr --dt 0.01",
        description="`flyxr simulate` renders movies too; a rendering on disk is useful for several simulations.",
        paths=("movie", "out"),
    )
    parser.add_argument("movie", help=inputs.STIMULUS_HELP)
    parser.add_argument("out", help="zarr store to write")
    inputs.add_movie_options(parser)
    base.add_overwrite(parser)


def add_simulate(commands: base.Commands) -> None:
    """Add the command ``simulate``."""
    parser = base.add_command(
        commands,
        "simulate",
        _simulate,
        "simulate the responses of an ensemble to a stimulus into a store; run again, it resumes where it left off",
        example="flyxr simulate flight.mp4 results/flow/0000 responses.zarr --dt 0.01 --record 'T4*' 'T5*' "
        "--columns central --plan",
        paths=("stimulus", "ensemble", "out"),
        ensembles=("ensemble",),
    )
    parser.add_argument(
        "stimulus", help=f"zarr store of a rendering; or a movie, which is rendered: {inputs.STIMULUS_HELP}"
    )
    parser.add_argument(
        "ensemble",
        help="zarr store of an ensemble; flyvis results as a directory or zip file; or `flyvis`, the published "
        "ensemble, once `flyxr fetch-pretrained` has fetched it",
    )
    parser.add_argument("out", help="zarr store to write or to resume")
    parser.add_argument(
        "--record",
        nargs="+",
        default=["all"],
        metavar="TYPE",
        help="cell types or quoted patterns such as 'T4*'; all, or central for all types in the central column",
    )
    parser.add_argument(
        "--columns",
        nargs="+",
        metavar="COLUMN",
        help="columns to record: central, or labels of columns such as 0 360 (default: all)",
    )
    parser.add_argument("--plan", action="store_true", help="only print the blocks, bytes and time of the run")
    parser.add_argument(
        "--initial-state",
        choices=["fade_in", "steady_state", "rest"],
        default="fade_in",
        help="state in which the models start; steady_state suits stimuli that begin with grey",
    )
    inputs.add_movie_options(parser)
    parser.add_argument("--memory-limit", default="2 GB", metavar="BYTES", help="memory limit of a worker")
    parser.add_argument(
        "--precision", default="float32", help="float32, float16, or the number of mantissa bits to keep"
    )
    parser.add_argument("--scheduler", metavar="ADDRESS", help="dask.distributed scheduler to compute on")
    parser.add_argument("--engine", default="auto", help=", ".join(["auto", *ENGINES]))
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, …")
    parser.add_argument("--verify", action="store_true", help="read the whole store and recompute corrupted files")
    parser.add_argument(
        "--relabel", action="store_true", help="replace the labels in the store by those of this stimulus and ensemble"
    )
    base.add_overwrite(parser)


def _render(options: argparse.Namespace) -> None:
    rendering = inputs.open_rendering(options.movie, options, "movie")
    base.print_saved(fx.save(rendering, options.out, overwrite=options.overwrite))


def _simulate(options: argparse.Namespace) -> None:
    rendering = inputs.open_rendering(options.stimulus, options, "rendering", "movie")
    record = parse_record(options.record, options.columns, rendering)
    precision = int(options.precision) if options.precision.isdecimal() else options.precision
    with _client(options.scheduler) as client:
        result = fx.sweep(
            rendering,
            fx.open_ensemble(options.ensemble),
            options.out,
            record=record,
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
        base.print_saved(options.out)


def parse_record(types: list[str], columns: list[str] | None, rendering: xr.Dataset) -> dict[str, Any]:
    """Convert the options ``--record`` and ``--columns`` to the record of a simulation.

    Raises
    ------
    InputError
        A ValueError. If the options contradict each other, or name columns that the rendering lacks.

    Examples
    --------
    >>> from flyxr.testing import random_rendering
    >>> parse_record(["T4*"], ["central"], random_rendering())
    {'cell_type': ['T4*'], 'column': 'central'}
    >>> parse_record(["all"], ["0", "18"], random_rendering())
    {'cell_type': None, 'column': [0, 18]}
    """
    reserved = [name for name in types if name in ("all", "central")]
    if reserved and len(types) > 1:
        text = f"expected --record {reserved[0]} alone, or cell types, got {' '.join(types)}"
        hint = "for cell types in the central column, add --columns central" if "central" in reserved else ""
        raise InputError(Problem(text, hint or "name cell types alone"))
    if reserved == ["central"]:
        if columns not in (None, ["central"]):
            text = f"expected --record central without other columns, got --columns {' '.join(columns or [])}"
            raise InputError(Problem(text, "for all cell types in these columns, use --record all"))
        columns = ["central"]
    return {"cell_type": None if reserved else types, "column": _find_columns(columns, rendering)}


def _find_columns(columns: list[str] | None, rendering: xr.Dataset) -> Any:
    """Labels of columns, from their text."""
    if columns is None or columns == ["central"]:
        return columns and columns[0]
    labels = rendering["column"].values.tolist()
    by_text = {str(label): label for label in labels}
    if unknown := [text for text in columns if text not in by_text]:
        text = f"expected --columns as central, or labels from {labels[0]} to {labels[-1]}, got {' '.join(unknown[:8])}"
        raise InputError(Problem(text, "`central` stands alone" if "central" in unknown else "labels count from 0"))
    return [by_text[text] for text in columns]


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
