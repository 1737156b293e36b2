"""Opening catalogs: listed, filtered, and their entries opened lazily."""

from __future__ import annotations

import html
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from flyxr import store as stores
from flyxr.arguments import Arguments
from flyxr.catalog import base
from flyxr.catalog.base import CatalogError, Entry
from flyxr.errors import FlyxrError, MissingError, Problem
from flyxr.progress import progress_bar
from flyxr.store import manifest
from flyxr.store.arrays import group_digest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import pandas as pd
    import xarray as xr

    from flyxr.store.places import Place

_SHORT = 60


def open(
    catalog: str | Path = "catalog/catalog.yaml",
    *,
    storage_options: Mapping[str, Any] | None = None,
    hosts: Sequence[str] = (),
) -> Catalog:
    """Open a catalog of stores; its entries are opened when they are asked for.

    Nothing that the catalog names is run: entries with other drivers than ``zarr`` and ``yaml_file_cat``, with
    templates, with absolute paths, or on other hosts than the catalog are listed with the reason, and refused.

    Parameters
    ----------
    catalog
        Path or URL of a catalog file (``.yaml``), or a folder on this machine with ``catalog.yaml``.
    storage_options
        Options of the fsspec file system of URLs.
    hosts
        Other hosts that entries may lie on, such as ``"data.example.org"`` or ``"s3://bucket"``.

    Returns
    -------
    Catalog
        A mapping from names to lazy Datasets, or to catalogs within it.

    Raises
    ------
    MissingError
        A FileNotFoundError. If there is no catalog.
    CatalogError
        A ValueError. If it is damaged, or of another version.

    Examples
    --------
    >>> import flyxr as fx, tempfile
    >>> folder = tempfile.mkdtemp()
    >>> path = fx.save(fx.sample_ensemble(n_models=2, seed=0), folder + "/untrained.zarr")
    >>> entry = fx.catalog.publish(path, folder + "/catalog.yaml")
    >>> catalog = fx.catalog.open(folder)
    >>> list(catalog), list(catalog.search(kind="responses"))
    (['untrained'], [])
    """
    arguments = Arguments()
    if isinstance(hosts, str) or not all(isinstance(host, str) for host in hosts):
        arguments.problems.append(f"expected hosts as a list of names, got {hosts!r:.80}")
    arguments.raise_problems()
    place = base.find_catalog(catalog, storage_options)
    return _open_place(place, storage_options or {}, tuple(host.lower() for host in hosts), ())


def _open_place(
    place: Place, storage_options: Mapping[str, Any], hosts: tuple[str, ...], parents: tuple[str, ...]
) -> Catalog:
    if str(place) in parents or len(parents) >= base.MAX_DEPTH:
        raise CatalogError(f"{place} contains itself, or more than {base.MAX_DEPTH} catalogs lie within each other")
    content = base.read_content(place)
    on_demand = content["metadata"].get("on_demand", {})
    parsed = [base.parse_entry(*item) for item in content["sources"].items()]
    parsed += [base.parse_on_demand(*item) for item in (on_demand.items() if isinstance(on_demand, dict) else ())]
    entries = {entry.name: entry for entry in parsed}
    return Catalog(place, entries, storage_options, hosts, parents)


class Catalog(Mapping[str, Any]):
    """Entries of a catalog: a mapping from names to lazy Datasets, or to catalogs within it.

    Parameters
    ----------
    place
        Place of the catalog file.
    entries
        Entries by name.
    storage_options
        Options of the file systems of URLs.
    hosts
        Other hosts that entries may lie on.
    parents
        Places of the catalogs that this one lies in.
    """

    def __init__(
        self,
        place: Place,
        entries: Mapping[str, Entry],
        storage_options: Mapping[str, Any],
        hosts: tuple[str, ...] = (),
        parents: tuple[str, ...] = (),
    ) -> None:
        self.place, self.entries = place, dict(entries)
        self._storage_options, self._hosts, self._parents = storage_options, hosts, parents

    def __getitem__(self, name: str) -> Any:
        """Open an entry, see :meth:`open`; ``"a/b"`` is the entry ``b`` of the catalog ``a``."""
        return self.open(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def open(self, name: str, *, verify: bool = False) -> Any:
        """Open an entry.

        Parameters
        ----------
        name
            Name of the entry.
        verify
            Read all its files, and compare them with the digests that were recorded when it was saved.

        Returns
        -------
        Dataset or Catalog
            A lazy Dataset, or a catalog within this one.

        Raises
        ------
        KeyError
            If there is no such entry; the message names similar ones.
        CatalogError
            A ValueError. If the entry must not be opened, or has changed since it was published.
        MissingError
            A FileNotFoundError. If the store of the entry is not there.
        """
        outer, _, inner = name.partition("/") if isinstance(name, str) else ("", "", "")
        if name not in self.entries and inner and outer in self.entries:
            return self.open(outer).open(inner, verify=verify)
        if name not in self.entries:
            raise _no_entry_error(self.place, name, self.entries)
        entry = self.entries[name]
        if entry.driver == "on_demand":
            return _make(self.place, entry)
        place = base.locate(self.place, entry, self._storage_options, self._hosts)
        if entry.driver == "yaml_file_cat":
            return _open_place(place, self._storage_options, self._hosts, (*self._parents, str(self.place)))
        self._check_unchanged(entry, place)
        dataset = stores.open(place)
        if verify:
            self._verify(entry, place, dataset)
        return dataset

    def _check_unchanged(self, entry: Entry, place: Place) -> None:
        """Raise if the metadata of a store differ from those that were published."""
        try:
            digest = group_digest(place)
        except FileNotFoundError as error:
            text = f"entry {entry.name!r} of {self.place}: there is no store at {place}"
            hint = "it was moved, removed, or is being replaced: ask whoever published it, or publish it again"
            raise MissingError(Problem(text, hint)) from error
        recorded = entry.metadata.get("digest")
        if recorded is not None and digest != recorded:
            text = f"entry {entry.name!r} of {self.place}: {place} has changed since it was published"
            hint = "publish it again with overwrite=True, or open what is there now with fx.open"
            raise CatalogError(Problem(text, hint))

    def _verify(self, entry: Entry, place: Place, dataset: xr.Dataset) -> None:
        """Raise if files of a store differ from those that were published."""
        total = entry.metadata.get("n_bytes")
        with progress_bar(f"verify {entry.name}", total=total, unit="B") as bar:
            if manifest.find_manifest(place, dataset) is None:
                text = f"entry {entry.name!r} of {self.place}: {place} has no list of its files"
                raise CatalogError(Problem(text, "publish it with fx.catalog.publish"))
            changed = manifest.find_changed(place, dataset, bar.update)
        if changed:
            text = (
                f"entry {entry.name!r} of {self.place}: {len(changed)} files of {place} differ from what was published"
            )
            raise CatalogError(Problem(f"{text}, first {changed[0]}", "restore the store from a copy"))

    def search(
        self,
        *,
        kind: str | None = None,
        cell_type: str | None = None,
        stimulus: str | None = None,
        text: str | None = None,
    ) -> Catalog:
        """Entries that match all conditions; patterns such as ``"T4*"`` are allowed.

        Parameters
        ----------
        kind
            Kind of Dataset, such as ``"responses"``.
        cell_type
            A cell type that the entry has.
        stimulus
            Function that made the stimulus, such as ``"moving_digits"``.
        text
            Part of the name or of the description.
        """

        def is_match(entry: Entry) -> bool:
            metadata = entry.metadata
            types = metadata.get("cell_types")
            names = [str(name) for name in types] if isinstance(types, list) else []
            conditions = [
                kind is None or fnmatchcase(_kind(entry), kind),
                cell_type is None or any(fnmatchcase(name, cell_type) for name in names),
                stimulus is None or fnmatchcase(str(metadata.get("stimulus", "")), stimulus),
                text is None or text.lower() in f"{entry.name} {entry.description}".lower(),
            ]
            return all(conditions)

        entries = {name: entry for name, entry in self.entries.items() if is_match(entry)}
        return Catalog(self.place, entries, self._storage_options, self._hosts, self._parents)

    @property
    def table(self) -> pd.DataFrame:
        """One row for each entry: kind, dims, stimulus, size, licence, description, and why it is refused, if it is."""
        import pandas as pd

        rows = [_row(entry) for entry in self.entries.values()]
        columns = ["kind", "dims", "stimulus", "size", "licence", "description", "refused"]
        table = pd.DataFrame(rows, index=pd.Index([*self.entries], name="name"), columns=columns)
        return table if table["refused"].any() else table.drop(columns="refused")

    def __repr__(self) -> str:
        head = f"<flyxr catalog {self.place}: {len(self)} entries>"
        return f"{head}\n{self.table.to_string(max_colwidth=_SHORT)}" if self.entries else head

    def _repr_html_(self) -> str:
        title = html.escape(str(self.place))
        return f"<p><b>Catalog</b> {title}, {len(self)} entries</p>{self.table.to_html(escape=True, border=0)}"


def _make(place: Place, entry: Entry) -> xr.Dataset:
    """Make a stimulus, or open an ensemble, that a catalog names."""
    from flyxr import ensemble, stimuli

    if entry.problem is not None:
        raise CatalogError(entry.problem._replace(text=f"entry {entry.name!r} of {place}: {entry.problem.text}"))
    if entry.target in base.ENSEMBLES:
        return ensemble.open_ensemble(entry.target)
    arguments = dict(entry.metadata.get("stimulus_parameters", {}))
    try:
        made: xr.Dataset = getattr(stimuli, entry.target)(**arguments)
    except TypeError as error:
        text = f"entry {entry.name!r} of {place}: expected arguments of fx.stimuli.{entry.target}, got {arguments}"
        raise CatalogError(Problem(f"{text} ({error})")) from error
    return made


class NoEntryError(FlyxrError, KeyError):
    """A catalog has no entry of a name."""


def _no_entry_error(place: Place, name: object, entries: Mapping[str, Entry]) -> NoEntryError:
    from difflib import get_close_matches

    similar = get_close_matches(str(name), entries, n=3, cutoff=0.4) or [*entries][:8]
    names = ", ".join(similar) or "nothing"
    return NoEntryError(Problem(f"{place} has no entry {str(name)[:_SHORT]!r}", f"it has {names}"))


def _kind(entry: Entry) -> str:
    return "catalog" if entry.driver == "yaml_file_cat" else str(entry.metadata.get("kind", ""))[:_SHORT]


def _row(entry: Entry) -> dict[str, str]:
    from dask.utils import format_bytes

    metadata = entry.metadata
    dims, n_bytes = metadata.get("dims"), metadata.get("n_bytes")
    sizes = " x ".join(f"{length} {dim}" for dim, length in dims.items()) if isinstance(dims, dict) else ""
    return {
        "kind": _kind(entry),
        "dims": sizes[:200],
        "stimulus": str(metadata.get("stimulus", ""))[:_SHORT],
        "size": format_bytes(n_bytes) if isinstance(n_bytes, int) and 0 <= n_bytes < 2**63 else "",
        "licence": str(metadata.get("licence", ""))[:_SHORT],
        "description": entry.description[:200],
        "refused": "" if entry.problem is None else entry.problem.text[:200],
    }
