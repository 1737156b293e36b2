"""The command ``bench``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from flyxr.cli import base
from flyxr.errors import InputError, MissingError, Problem
from flyxr.progress import is_watched

if TYPE_CHECKING:
    import argparse


def add_bench(commands: base.Commands) -> None:
    """Add the command ``bench``."""
    parser = base.add_command(
        commands,
        "bench",
        _bench,
        "time flyxr on this machine, and compare it with flyvis",
        example="flyxr bench --peer flyvis-env/bin/python --out bench.json",
        paths=("peer", "ensemble", "out", "page"),
        ensembles=("ensemble",),
    )
    parser.add_argument("--peer", metavar="PYTHON", help="Python interpreter of an environment with flyvis")
    parser.add_argument("--ensemble", metavar="PATH", help="models to simulate (default: random parameters)")
    parser.add_argument("--device", default="cpu", help="cuda, cuda:1, ...: time a GPU beside the CPU")
    parser.add_argument("--out", metavar="FILE", help="JSON file for all figures")
    parser.add_argument("--page", metavar="FILE", help="Markdown page to write")
    parser.add_argument("--quick", action="store_true", help="small cases, to check that everything works")


def _bench(options: argparse.Namespace) -> None:
    from flyxr import bench

    for path in filter(None, (options.out, options.page)):
        folder = path.absolute().parent
        if not folder.is_dir():
            raise MissingError(
                Problem(f"expected a folder at {folder} to write {path} in, got none", "create it first")
            )
        if path.is_dir():
            raise InputError(Problem(f"expected a file to write, got the folder {path}", f"e.g. {path}/bench.json"))

    def show(line: str) -> None:
        if is_watched():
            print(line, file=sys.stderr)

    report = bench.run(
        options.peer, ensemble=options.ensemble, device=options.device, quick=options.quick, progress=show
    )
    bench.write(report, out=options.out, to_page=options.page)
    print(bench.table(report))
