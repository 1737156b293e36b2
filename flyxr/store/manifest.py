"""The list of all files of a store with their digests: completed for publishing, and compared with the files."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, cast

from flyxr import identity
from flyxr.engine import base
from flyxr.store import files, places
from flyxr.store.files import MANIFEST, parse_manifest
from flyxr.store.ledger import LEDGER_FILE, read_ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import xarray as xr
    from upath import UPath

    from flyxr.store.places import Place

_NOT_LISTED = (".lock", ".lease", ".partial", f"/{MANIFEST}")


def array_names(place: Place) -> list[str]:
    """Names of the arrays of a store that can list its files.

    Examples
    --------
    >>> import flyxr as fx, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     array_names(fx.save(fx.sample_ensemble(1, seed=0), folder + "/e.zarr"))[:2]
    ['bias', 'cell_type']
    """
    if places.is_remote(place):
        names = places.list_sizes(cast("UPath", place))
        return sorted(name.removesuffix("/zarr.json") for name in names if name.count("/") == 1 and "zarr.json" in name)
    return sorted(file.parent.name for file in cast("Path", place).glob("*/zarr.json"))


def find_manifest(place: Place, dataset: xr.Dataset) -> Place | None:
    """Path of the manifest of a store that was opened as a Dataset; None if there is none."""
    for name in files.manifest_folder(dataset):
        if places.exists(place / name / MANIFEST):
            return place / name / MANIFEST
    if not places.is_remote(place):  # stores of version 0.1 have it elsewhere
        return next(iter(sorted(cast("Path", place).glob(f"*/{MANIFEST}"))), None)
    return None


def complete_manifest(place: Place, dataset: xr.Dataset) -> Mapping[str, tuple[int, str]]:
    """Size and digest of each file of a store, by path; written into the store if it has no such list yet.

    Digests of the blocks of a sweep are those of its ledger; other files are read.
    """
    file = find_manifest(place, dataset)
    ledger = read_ledger(place)
    if file is not None and ledger is None:
        return parse_manifest(places.read_bytes(file), file)
    shards = {} if ledger is None else ledger.shards
    known = {path: shard.digest for path, shard in shards.items() if isinstance(shard.digest, str)}
    sizes = {
        name: n_bytes
        for name, (n_bytes, _) in files.list_files(place).items()
        if not name.endswith(_NOT_LISTED) and not name.startswith(LEDGER_FILE.as_posix())
    }

    def describe(name: str) -> tuple[int, str]:
        return sizes[name], known.get(name) or _digest(place / name)

    with ThreadPoolExecutor(base.n_threads()) as pool:
        manifest = dict(zip(sorted(sizes), pool.map(describe, sorted(sizes)), strict=True))
    for name in files.manifest_folder(dataset):
        files.write_json(place / name / MANIFEST, {path: list(entry) for path, entry in manifest.items()})
    return manifest


def find_changed(place: Place, dataset: xr.Dataset, progress: Callable[[int], object] = bool) -> list[str]:
    """Files of a store that are missing or differ from its manifest; every file is read.

    The metadata of the group are left out, since publishing changes them.

    Parameters
    ----------
    place
        Place of the store.
    dataset
        The Dataset that was opened from it.
    progress
        Called with the size of each file, bytes.
    """
    file = find_manifest(place, dataset)
    manifest = {} if file is None else parse_manifest(places.read_bytes(file), file)

    def is_changed(name: str) -> bool:
        n_bytes, digest = manifest[name]
        try:
            content = places.read_bytes(place / name)
        except FileNotFoundError:
            return True
        finally:
            progress(n_bytes)
        return len(content) != n_bytes or identity.bytes_digest(content) != digest

    names = [name for name in manifest if name != "zarr.json"]
    with ThreadPoolExecutor(8) as pool:
        return [name for name, changed in zip(names, pool.map(is_changed, names), strict=True) if changed]


def _digest(file: Place) -> str:
    if places.is_remote(file):
        return identity.bytes_digest(places.read_bytes(file))
    return identity.content_digest(cast("Path", file))


def write_consolidated(place: Place) -> None:
    """Put the metadata of all arrays into that of the group, so that one request opens a store.

    The layout is that of zarr-python, which the specification of zarr v3 does not have yet.
    """
    group = files.read_json(place / "zarr.json")
    arrays = {name: files.read_json(place / name / "zarr.json") for name in array_names(place)}
    inline = {"kind": "inline", "must_understand": False, "metadata": arrays}
    if group.get("consolidated_metadata") != inline:
        files.write_json(place / "zarr.json", {**group, "consolidated_metadata": inline})
