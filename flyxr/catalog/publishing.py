"""Publishing stores in a catalog: checked, consolidated, described."""

from __future__ import annotations

import os
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from flyxr import provenance, schema
from flyxr.arguments import Arguments
from flyxr.catalog import base
from flyxr.catalog.base import CATALOG_DIR, CatalogError, Entry
from flyxr.errors import ExistsError, Problem, UnwritableError, raise_problems
from flyxr.paths import is_url
from flyxr.store import manifest, places
from flyxr.store.arrays import group_digest
from flyxr.store.reading import open_with_problems

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import xarray as xr

    from flyxr.store.places import Place

_MAX_CELL_TYPES = 200
_PACKAGES = ("numpy", "torch", "xarray", "zarr")


def publish(
    store: str | Path,
    catalog: str | Path = "catalog/catalog.yaml",
    *,
    name: str | None = None,
    description: str = "",
    licence: str = "",
    overwrite: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> Entry:
    """Write a store into a catalog, so that others find, filter and open it.

    The store is checked to be complete, and its metadata are consolidated, so that it opens over the web with few
    requests. The catalog is a YAML file of intake; the same content lies beside it as JSON. Paths are relative to the
    catalog: move or serve the folder that holds both.

    Parameters
    ----------
    store
        Path or URL of a store that :func:`flyxr.save` or a finished :func:`flyxr.sweep` wrote.
    catalog
        Path or URL of the catalog, which ends with ``.yaml``. The store must lie in its folder, in the folder above, or
        below one of them.
    name
        Name of the entry; by default that of the store without suffix.
    description
        A sentence about the data.
    licence
        Terms under which others may use the data, such as ``"CC-BY-4.0"``.
    overwrite
        Replace an entry of the same name.
    storage_options
        Options of the fsspec file system of URLs.

    Returns
    -------
    Entry
        The entry that was written.

    Raises
    ------
    CatalogError
        A ValueError. If the store is unfinished or damaged, or lies elsewhere than the catalog.
    ExistsError
        A FileExistsError. If the catalog has an entry of this name, unless ``overwrite`` is true.
    MissingError
        A FileNotFoundError. If there is no store.
    UnwritableError
        An OSError. If the store or the catalog cannot be written.

    Examples
    --------
    >>> import flyxr as fx, tempfile
    >>> folder = tempfile.mkdtemp()
    >>> path = fx.save(fx.sample_ensemble(n_models=2, seed=0), folder + "/untrained.zarr")
    >>> entry = fx.catalog.publish(path, folder + "/catalog.yaml", description="Two untrained models")
    >>> fx.catalog.open(folder + "/catalog.yaml")["untrained"].sizes["model"]
    2
    """
    place = places.find(store, storage_options, name="store")
    catalog_place = base.find_catalog(catalog, storage_options if is_url(catalog) else None)
    places.check_writable(place)
    places.check_writable(catalog_place)
    name = place.name.removesuffix(".zip").removesuffix(".zarr") if name is None else name
    arguments = Arguments()
    for label, text in (("description", description), ("licence", licence), ("name", name)):
        if not isinstance(text, str):
            arguments.problems.append(f"expected {label} as text, got {text!r:.80}")
    arguments.raise_problems()
    target = _relative_target(place, catalog_place)
    parsed = base.parse_entry(name, {"driver": "zarr", "args": {"urlpath": target}})
    if parsed.problem is not None:
        raise CatalogError(parsed.problem)
    dataset, problems = open_with_problems(place)
    raise_problems(CatalogError, f"{place} cannot be published", problems)
    _check_name(catalog_place, name, overwrite)
    manifest.write_consolidated(place)
    files = manifest.complete_manifest(place, dataset)
    source = {
        "driver": "zarr",
        "description": description,
        "args": {"urlpath": target, "consolidated": True},
        "metadata": {
            **describe(dataset),
            "licence": licence,
            "n_files": len(files),
            "n_bytes": sum(n_bytes for n_bytes, _ in files.values()),
            "digest": group_digest(place),
            "published": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    }
    with _exclusive(catalog_place):
        _check_name(catalog_place, name, overwrite)
        content = _read_or_new(catalog_place)
        content["sources"][name] = source
        base.write_content(catalog_place, content)
    return base.parse_entry(name, source)


def describe(dataset: xr.Dataset) -> dict[str, Any]:
    """What a catalog says of a Dataset, in terms of JSON.

    Examples
    --------
    >>> import flyxr as fx
    >>> described = describe(fx.sample_ensemble(n_models=2, seed=0))
    >>> described["kind"], described["dims"]["model"], described["made_by"]
    ('ensemble', 2, ['sample_ensemble'])
    """
    steps = provenance.steps(dataset)
    described: dict[str, Any] = {
        "kind": str(dataset.attrs.get(schema.KIND_ATTR, "dataset")),
        "dims": {str(dim): int(length) for dim, length in dataset.sizes.items()},
        "variables": {str(name): str(variable.dtype) for name, variable in dataset.data_vars.items()},
        "made_by": [str(step["operation"]) for step in steps],
        "hashes": {},
        "versions": provenance.versions(_PACKAGES),
    }
    chunks = {str(name): [int(lengths[0]) for lengths in v.chunks] for name, v in dataset.data_vars.items() if v.chunks}
    if chunks:
        described["chunks"] = chunks
    if "cell_type" in dataset.coords:
        described["cell_types"] = [str(name) for name in dataset["cell_type"].values.ravel()[:_MAX_CELL_TYPES]]
    if steps and described["kind"] in ("movie", "rendering", "responses"):
        described["stimulus"] = str(steps[0]["operation"])
        described["stimulus_parameters"] = {key: _plain(value) for key, value in steps[0]["arguments"].items()}
    for step in steps:
        described["hashes"] |= {str(key): str(value) for key, value in step.get("hashes", {}).items()}
    for attr in ("trained", "source", "connectome"):
        if attr in dataset.attrs:
            described[f"ensemble_{attr}" if attr != "connectome" else attr] = _plain(dataset.attrs[attr])
    return described


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value][:_MAX_CELL_TYPES]
    if isinstance(value, bool | int | float | str | None):
        return value
    return value.item() if hasattr(value, "item") and getattr(value, "size", 1) == 1 else str(value)


def _relative_target(place: Place, catalog: Place) -> str:
    """Path of a store relative to the folder of a catalog, as intake writes it."""
    problem = Problem(
        f"expected a store near the catalog {catalog}, in its folder or in the folder above, got {place}",
        "choose a catalog beside the store, so that both are moved and served together",
    )
    if places.is_remote(place) != places.is_remote(catalog):
        raise CatalogError(problem)
    if places.is_remote(place):
        if base.host_of(place) != base.host_of(catalog):
            raise CatalogError(problem)
        relative = os.path.relpath(str(place).split("://")[1], str(catalog.parent).split("://")[1])
    else:
        folder = cast("Path", catalog).absolute().parent.resolve()
        relative = os.path.relpath(cast("Path", place).resolve(), folder)
    relative = relative.replace(os.sep, "/")
    if relative.startswith("../../") or relative in (".", ".."):
        raise CatalogError(problem)
    return f"{CATALOG_DIR}/{relative}"


def _check_name(catalog: Place, name: str, overwrite: bool) -> None:
    if overwrite or not places.exists(catalog):
        return
    if name in base.read_content(catalog)["sources"]:
        choice = "to replace it, or choose another name"
        text = f"{catalog} has an entry {name!r}"
        raise ExistsError(
            Problem(text, f"pass overwrite=True {choice}", "add --overwrite to replace it, or choose another --name")
        )


def _read_or_new(catalog: Place) -> dict[str, Any]:
    if places.exists(catalog):
        return base.read_content(catalog)
    return {"metadata": {"version": 1, "flyxr_catalog": base.VERSION}, "sources": {}}


@contextmanager
def _exclusive(catalog: Place) -> Iterator[None]:
    """Keep others on this machine from writing the catalog; object storage replaces it as a whole."""
    import filelock

    if places.is_remote(catalog):
        yield
        return
    path = cast("Path", catalog)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(path.with_name(f".{path.name}.lock"), timeout=30):
            yield
    except OSError as error:
        if isinstance(error, UnwritableError):
            raise
        text = f"cannot write {catalog}: {error.strerror or error}"
        raise UnwritableError(Problem(text, "choose another place"), code=error.errno) from error
