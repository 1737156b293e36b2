"""The commands ``publish`` and ``catalog``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import flyxr as fx
from flyxr import schema, store
from flyxr.catalog import Catalog
from flyxr.cli import base

if TYPE_CHECKING:
    import argparse

_CATALOG = "catalog/catalog.yaml"


def add_publish(commands: base.Commands) -> None:
    """Add the command ``publish``."""
    parser = base.add_command(
        commands,
        "publish",
        _publish,
        "write a store into a catalog, so that others find and open it",
        example='flyxr publish responses.zarr --description "Responses to moving digits" --licence CC-BY-4.0',
        description="The store is checked to be complete. The catalog is a YAML file that intake opens, too, with the "
        "same content as JSON beside it. Paths are relative to the catalog: move the folder that holds both, or serve "
        "it with any web server or from a bucket.",
        paths=("store", "catalog"),
        urls=("store", "catalog"),
    )
    parser.add_argument("store", help="zarr store, or its URL (s3://, gs://, abfs://)")
    parser.add_argument("--catalog", default=_CATALOG, help="catalog file, or its URL; created if it does not exist")
    parser.add_argument("--name", help="name of the entry (default: that of the store)")
    parser.add_argument("--description", default="", help="a sentence about the data")
    parser.add_argument("--licence", default="", help="terms under which others may use the data, such as CC-BY-4.0")
    parser.add_argument("--overwrite", action="store_true", help="replace an entry of the same name")


def add_catalog(commands: base.Commands) -> None:
    """Add the command ``catalog``."""
    parser = base.add_command(
        commands,
        "catalog",
        _catalog,
        "list the stores of a catalog, or describe one of them",
        example="flyxr catalog https://example.org/lab/catalog.yaml responses --verify",
        description="Without names, the entries are listed. Nothing that a catalog names is run, and entries on other "
        "hosts are refused unless --host names these.",
        paths=("catalog",),
        urls=("catalog",),
    )
    parser.add_argument("catalog", nargs="?", default=_CATALOG, help="catalog file, its folder, or its URL")
    parser.add_argument("name", nargs="*", help="entries to describe; a/b is the entry b of the catalog a")
    parser.add_argument("--kind", help="list entries of this kind only, such as responses")
    parser.add_argument("--cell-type", help="list entries with this cell type only; 'T4*' stands for several")
    parser.add_argument("--stimulus", help="list entries of this stimulus only, such as moving_digits")
    parser.add_argument("--verify", action="store_true", help="compare all files with what was published")
    parser.add_argument("--host", action="append", help="other host that entries may lie on")


def _publish(options: argparse.Namespace) -> None:
    entry = fx.catalog.publish(
        options.store,
        options.catalog,
        name=options.name,
        description=options.description,
        licence=options.licence,
        overwrite=options.overwrite,
    )
    print(f"{options.catalog}: entry {entry.name}, {entry.metadata['kind']}, {entry.metadata['n_files']} files")
    print(f'Open it with fx.catalog.open("{options.catalog}")["{entry.name}"], or with intake:')
    print(f'  intake.open_catalog("{options.catalog}")["{entry.name}"].to_dask()')


def _catalog(options: argparse.Namespace) -> None:
    catalog = fx.catalog.open(options.catalog, hosts=options.host or [])
    if not options.name:
        found = catalog.search(kind=options.kind, cell_type=options.cell_type, stimulus=options.stimulus)
        print(f"{catalog.place}: {len(found)} of {len(catalog)} entries")
        if len(found):
            print(found.table.to_string(max_colwidth=60))
    for name in options.name:
        opened = catalog.open(name, verify=options.verify)
        if isinstance(opened, Catalog):
            print(repr(opened))
            continue
        *outer, inner = name.split("/")
        entry = (catalog["/".join(outer)] if outer else catalog).entries[inner]
        print(f"{name}: {schema.kind_of(opened, name)}, {base.format_dims(opened)}")
        print("\n".join(store.describe_dataset(opened)))
        print(f"  {entry.description or 'no description'}; licence {entry.metadata.get('licence') or 'not stated'}")
        if "digest" in entry.metadata:
            print("  all files are as they were published" if options.verify else "  --verify compares all files")
