"""The commands ``fetch-pretrained`` and ``import-flyvis``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import flyxr as fx
from flyxr.cli import base
from flyxr.ensemble import NAMED
from flyxr.errors import InputError, Problem
from flyxr.pretrained import NAME

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    import xarray as xr


def add_fetch_pretrained(commands: base.Commands) -> None:
    """Add the command ``fetch-pretrained``."""
    parser = base.add_command(
        commands,
        "fetch-pretrained",
        _fetch_pretrained,
        "fetch the 50 published models once (3 MB)",
        example="flyxr fetch-pretrained --from flyvis-main.zip",
        description="From then on commands take them as `flyvis`, as in `flyxr simulate STIMULUS flyvis OUT`, and "
        "`flyxr demo` simulates them. After a broken connection, repeat the command: whole files are not fetched "
        "again. The models are those of Lappalainen et al. 2024, under the MIT licence. They are kept in the cache "
        "folder of the user, which XDG_CACHE_HOME sets.",
        paths=("source",),
    )
    parser.add_argument("--mirror", metavar="URL", help="address to download from instead of GitHub")
    parser.add_argument(
        "--from",
        dest="source",
        metavar="PATH",
        help="directory or zip with the models, for machines without a network: the repository flyvis at the commit of "
        "the publication, or what `flyvis download-pretrained` downloads",
    )


def add_import_flyvis(commands: base.Commands) -> None:
    """Add the command ``import-flyvis``."""
    parser = base.add_command(
        commands,
        "import-flyvis",
        _import_flyvis,
        "write models trained with flyvis to a zarr store",
        example="flyxr import-flyvis results/flow/0000 ensemble.zarr",
        description="The store is opened faster than the files of flyvis, and without torch. Models are sorted by task "
        "error; each is read from its best checkpoint.",
        paths=("results", "out", "connectome"),
    )
    parser.add_argument(
        "results", help="results of flyvis: the directory of an ensemble or of a model, or a zip of one of these"
    )
    parser.add_argument("out", help="zarr store to write")
    parser.add_argument(
        "--connectome",
        metavar="PATH",
        help="connectome of the models: a zarr store, a folder with two tables, or a .json file of flyvis (default: "
        "the one that their _meta.yaml names)",
    )
    base.add_overwrite(parser)


def _fetch_pretrained(options: argparse.Namespace) -> None:
    ensemble = fx.fetch_pretrained(source=options.source, mirror=options.mirror)
    base.print_saved(NAMED[NAME].find())
    print(f"  cite {ensemble.attrs['citation']}")
    print(f"  licence {ensemble.attrs['licence']}")
    print(f'Simulate them with `flyxr simulate STIMULUS {NAME} OUT`, or open them with fx.open_ensemble("{NAME}").')


def _import_flyvis(options: argparse.Namespace) -> None:
    if base.is_store(options.results):
        text = f"expected results of flyvis, got a store at {options.results}"
        raise InputError(Problem(text, "use it as it is, see `flyxr info`"))
    connectome = None if options.connectome is None else open_connectome(options.connectome)
    ensemble = fx.open_ensemble(options.results, connectome=connectome)
    base.print_saved(fx.save(ensemble, options.out, overwrite=options.overwrite))


def open_connectome(path: Path) -> xr.Dataset:
    """Open a connectome from a store, tables or a JSON file.

    Raises
    ------
    InputError
        A ValueError. If it is a store of another kind.
    """
    return base.open_kind(path, "connectome") if base.is_store(path) else fx.open_connectome(path)
