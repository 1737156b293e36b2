"""Catalog files: YAML of intake, read without running anything that they name, and written as a whole."""

from __future__ import annotations

import json
import os
import posixpath
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from flyxr import store
from flyxr.errors import FlyxrError, InputError, MissingError, Problem
from flyxr.paths import is_url
from flyxr.store import places

if TYPE_CHECKING:
    from collections.abc import Mapping

    from upath import UPath

    from flyxr.store.places import Place

VERSION = 1
"""Version of the metadata that flyxr writes into entries."""
MAX_BYTES = 2**22
"""Largest catalog file, bytes."""
MAX_ENTRIES = 10_000
MAX_NUMBER = 10_000
"""Largest number among the arguments of a stimulus that a catalog names."""
STIMULI = ("flashes", "gratings", "impulses", "moving_bars", "moving_digits", "moving_edges", "natural_motion")
"""Functions of :mod:`flyxr.stimuli` that a catalog may name; they read no files."""
ENSEMBLES = ("flyvis", "flyxr")
"""Ensembles that :func:`flyxr.open_ensemble` knows by name."""
_MAX_NESTING = 50
MAX_DEPTH = 8
"""Catalogs within catalogs."""
DRIVERS = {"zarr": "urlpath", "yaml_file_cat": "path"}
"""Drivers of intake that are supported, and the argument of each that holds a path."""
_ARGUMENTS = {"zarr": {"urlpath", "consolidated", "chunks", "storage_options"}, "yaml_file_cat": {"path"}}
CATALOG_DIR = "{{ CATALOG_DIR }}"
_CATALOG_DIR = re.compile(r"^\{\{\s*CATALOG_DIR\s*\}\}/")
_NAME = re.compile(r"[^\x00-\x1f\x7f/\\]{1,200}")


class CatalogError(FlyxrError, ValueError):
    """A catalog or one of its entries is not as expected."""


@dataclass(frozen=True)
class Entry:
    """An entry of a catalog.

    Attributes
    ----------
    name : str
        Name in the catalog.
    driver : str
        ``"zarr"`` for a store, ``"yaml_file_cat"`` for another catalog, ``"on_demand"`` for data that flyxr makes.
    target : str
        Path relative to the folder of the catalog, with slashes, or a URL.
    description : str
        A sentence for people.
    metadata : dict
        What :func:`flyxr.catalog.publish` recorded.
    storage_options : dict
        Options of the file system.
    problem : Problem or None
        Why the entry is not opened.
    """

    name: str
    driver: str = ""
    target: str = ""
    description: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    storage_options: Mapping[str, Any] = field(default_factory=dict)
    problem: Problem | None = None


def find_catalog(path: Any, storage_options: Mapping[str, Any] | None = None) -> Place:
    """Place of a catalog file; of ``catalog.yaml`` in it for a folder on this machine.

    Examples
    --------
    >>> find_catalog("catalog/catalog.yaml").as_posix()
    'catalog/catalog.yaml'
    """
    place = places.find(path, storage_options, name="catalog")
    if not places.is_remote(place) and place.is_dir():
        return place / "catalog.yaml"
    if place.suffix.lower() not in (".yaml", ".yml"):
        hint = "such as catalog/catalog.yaml"
        raise InputError(Problem(f"expected the path of a catalog that ends with .yaml, got {place}", hint))
    return place


def read_content(place: Place) -> dict[str, Any]:
    """Read a catalog file as plain data: no references, no tags, no templates are followed.

    Raises
    ------
    MissingError
        A FileNotFoundError. If there is none.
    CatalogError
        A ValueError. If it is too large, not a catalog of intake, or of a newer version of flyxr.
    """
    import yaml

    try:
        text = places.read_bytes(place, MAX_BYTES)
    except FileNotFoundError as error:
        raise MissingError(
            Problem(
                f"no catalog at {place}",
                "fx.catalog.publish(store, catalog) creates one",
                "`flyxr publish` creates one",
            )
        ) from error
    except OSError as error:
        if isinstance(error, FlyxrError):
            raise
        raise CatalogError(f"{place} cannot be read ({error})") from error
    try:
        content = _load_plain(text)
        got = type(content).__name__
    except (yaml.YAMLError, RecursionError, ValueError, TypeError, AttributeError, OverflowError) as error:
        content, got = None, f"{type(error).__name__}: {str(error)[:200]}"
    if not isinstance(content, dict):
        raise CatalogError(Problem(f"{place}: expected a catalog of intake, got {got}", "restore it from a copy"))
    if content.get("version") == 2 and "sources" not in content:
        text_problem = f"{place}: expected a catalog with 'sources:', got one of the second layout of intake"
        raise CatalogError(Problem(text_problem, "open it with intake.open_catalog"))
    problems = [
        f"expected {name!r} as a mapping, got {type(content[name]).__name__}"
        for name in ("sources", "metadata")
        if not isinstance(content.get(name, {}), dict)
    ]
    if problems:
        raise CatalogError(*problems, heading=f"{place} is not a catalog")
    version = content.get("metadata", {}).get("flyxr_catalog", VERSION)
    if version != VERSION:
        text_problem = f"{place}: expected a catalog of version {VERSION}, got {str(version)[:20]}"
        raise CatalogError(Problem(text_problem, "it is from another version of flyxr; pip install --upgrade flyxr"))
    if len(content.get("sources", {})) > MAX_ENTRIES:
        raise CatalogError(f"{place}: expected at most {MAX_ENTRIES:,} entries, got {len(content['sources']):,}")
    return {"metadata": {}, "sources": {}, **content}


def _load_plain(text: bytes) -> Any:
    """Load YAML without tags and without aliases, which can stand for more data than any memory holds."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    depth = 0
    for event in yaml.parse(text, Loader=loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent) or depth > _MAX_NESTING:
            raise yaml.YAMLError(f"expected no aliases, and at most {_MAX_NESTING} levels")
    return yaml.load(text, loader)


def parse_entry(name: Any, source: Any) -> Entry:
    """Understand an entry of a catalog; one that must not be opened has a problem.

    Examples
    --------
    >>> parse_entry("digits", {"driver": "zarr", "args": {"urlpath": "{{ CATALOG_DIR }}/digits.zarr"}}).target
    'digits.zarr'
    >>> print(parse_entry("x", {"driver": "zarr", "args": {"urlpath": "{{ env(HOME) }}/x.zarr"}}).problem.text)
    expected a path below {{ CATALOG_DIR }} or a URL, got '{{ env(HOME) }}/x.zarr', a template of intake
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        return Entry(str(name)[:200], problem=Problem(f"expected a name of one line without slashes, got {name!r:.80}"))
    if not isinstance(source, dict):
        return Entry(name, problem=Problem(f"expected an entry with driver and args, got {type(source).__name__}"))
    driver, arguments = source.get("driver"), source.get("args", {})
    description = str(source.get("description", ""))[:2000]
    metadata = source.get("metadata") if isinstance(source.get("metadata"), dict) else {}
    known = Entry(name, str(driver)[:80], "", description, cast("dict[str, Any]", metadata))
    problem = _source_problem(driver, arguments)
    if problem:
        return Entry(name, known.driver, "", description, known.metadata, problem=problem)
    options = arguments.get("storage_options") or {}
    target, problem = _parse_target(arguments[DRIVERS[str(driver)]])
    return Entry(name, known.driver, target, description, known.metadata, dict(options), problem)


def _source_problem(driver: Any, arguments: Any) -> Problem | None:
    intake_hint = "open it with intake if you trust the catalog"
    if not isinstance(driver, str) or driver not in DRIVERS:
        supported = " or ".join(DRIVERS)
        return Problem(f"expected the driver {supported}, got {driver!r:.80}, which may run code", intake_hint)
    if not isinstance(arguments, dict) or not isinstance(arguments.get(DRIVERS[driver]), str):
        return Problem(f"expected args with {DRIVERS[driver]} as text, got {arguments!r:.80}")
    others = set(arguments) - _ARGUMENTS[driver]
    if others:
        text = f"expected args among {', '.join(sorted(_ARGUMENTS[driver]))}, got {', '.join(map(str, sorted(others)))}"
        return Problem(text, intake_hint)
    options = arguments.get("storage_options") or {}
    if not isinstance(options, dict) or any(key != "anon" or type(value) is not bool for key, value in options.items()):
        text = f"expected no storage_options but anon, got {options!r:.80}"
        return Problem(text, "pass your own storage_options= to fx.catalog.open")
    return None


def _parse_target(path: str) -> tuple[str, Problem | None]:
    """Path relative to the catalog, or URL, and what is wrong with it."""
    relative = _CATALOG_DIR.sub("", path)
    expected = "expected a path below {{ CATALOG_DIR }} or a URL"
    if "{{" in relative or "{%" in relative or "${" in relative:
        return "", Problem(
            f"{expected}, got {path!r:.120}, a template of intake", "open it with intake if you trust it"
        )
    if is_url(relative):
        return ("", Problem(f"{expected}, got {path!r:.120}")) if "::" in relative else (relative, None)
    if (
        relative.lower().startswith("file:")
        or relative.startswith(("/", "~", "\\"))
        or re.match(r"[A-Za-z]:", relative)
    ):
        return "", Problem(f"{expected}, got the absolute path {path!r:.120}", "open it with fx.open if you trust it")
    normal = posixpath.normpath(relative.replace("\\", "/"))
    if normal.startswith("../../"):
        text = (
            f"{expected}, got {path!r:.120}, which is further up than the folder that holds the folder of the catalog"
        )
        return "", Problem(text, "open it with fx.open if you trust it")
    return normal, None


def parse_on_demand(name: Any, source: Any) -> Entry:
    """Understand an entry that intake does not know: a stimulus that flyxr makes, or an ensemble that it fetches.

    Examples
    --------
    >>> made = {"stimulus": "moving_digits", "arguments": {"n_samples": 2}}
    >>> parse_on_demand("digits", made).target
    'moving_digits'
    >>> print(parse_on_demand("digits", {"stimulus": "from_video"}).problem.text)
    expected a stimulus among flashes, ... got 'from_video'
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name) or not isinstance(source, dict):
        return Entry(str(name)[:200], "on_demand", problem=Problem("expected a name and what makes the data"))
    description, arguments = str(source.get("description", ""))[:2000], source.get("arguments", {})
    metadata = {key: source[key] for key in ("kind", "licence") if isinstance(source.get(key), str)}
    entry = Entry(name, "on_demand", str(source.get("stimulus", source.get("ensemble")))[:80], description, metadata)
    if "ensemble" in source:
        expected = f"expected an ensemble among {', '.join(ENSEMBLES)}, got {entry.target!r}"
        problem = None if entry.target in ENSEMBLES else Problem(expected)
        return replace(entry, metadata={"kind": "ensemble", **metadata}, problem=problem)
    if entry.target not in STIMULI:
        text = f"expected a stimulus among {', '.join(STIMULI)}, got {entry.target!r}"
        return replace(entry, problem=Problem(text))
    is_plain = isinstance(arguments, dict) and all(
        isinstance(key, str) and type(value) in (int, float, str) and (type(value) is str or abs(value) <= MAX_NUMBER)
        for key, value in arguments.items()
    )
    if not is_plain:
        text = f"expected arguments that are text or numbers up to {MAX_NUMBER:,}, got {arguments!r:.120}"
        return replace(entry, problem=Problem(text))
    return replace(entry, metadata={"stimulus": entry.target, "stimulus_parameters": arguments, **metadata})


def locate(
    catalog: Place, entry: Entry, storage_options: Mapping[str, Any] | None = None, hosts: tuple[str, ...] = ()
) -> Place:
    """Place of what an entry names.

    Raises
    ------
    CatalogError
        A ValueError. If the entry must not be opened, leads out of the folders of the catalog, or to a host that is
        neither that of the catalog nor in ``hosts``.
    """
    if entry.problem is not None:
        raise CatalogError(entry.problem._replace(text=f"entry {entry.name!r} of {catalog}: {entry.problem.text}"))
    if is_url(entry.target):
        host = host_of(entry.target)
        if host != host_of(catalog) and host not in hosts:
            text = f"entry {entry.name!r} of {catalog} lies on another host, {host}"
            hint = f"pass hosts=[{host!r}] if you trust it"
            raise CatalogError(Problem(text, hint, f"add --host {host} if you trust it"))
        return places.find(entry.target, {**entry.storage_options, **(storage_options or {})})
    if places.is_remote(catalog):
        return places.find(_join_url(catalog, entry.target), cast("UPath", catalog).storage_options)
    folder = cast("Path", catalog).absolute().parent
    path = Path(os.path.normpath(folder / entry.target))
    allowed = folder.resolve().parent
    if not path.resolve().is_relative_to(allowed):
        text = f"entry {entry.name!r} of {catalog} leads out of {allowed} by symbolic links, to {path.resolve()}"
        raise CatalogError(Problem(text, "open it with fx.open if you trust it"))
    return places.find(path)


def _join_url(catalog: UPath, target: str) -> str:
    """URL of a target relative to the folder of a catalog."""
    protocol, rest = str(catalog).split("://", 1)
    host, _, path = rest.partition("/")
    joined = posixpath.normpath(posixpath.join("/", posixpath.dirname(path), target))
    return f"{protocol}://{host}{joined}"


def host_of(place: Any) -> str:
    """Host of a URL with its protocol and port, or bucket; ``"this machine"`` for a path."""
    if not (places.is_remote(place) or is_url(place)):
        return "this machine"
    parts = urlsplit(str(place))
    return (
        parts.netloc.rsplit("@", 1)[-1].lower()
        if parts.scheme in ("http", "https")
        else f"{parts.scheme}://{parts.netloc}"
    )


def write_content(place: Place, content: Mapping[str, Any]) -> None:
    """Write a catalog file, and the same as JSON for tools that do not know intake; each is replaced atomically."""
    import yaml

    text = yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True, width=120).encode()
    json_place = place.with_suffix(".json")
    if places.is_remote(place):
        places.write_bytes(cast("UPath", place), text)
        places.write_bytes(cast("UPath", json_place), json.dumps(content, indent=1).encode())
        return
    for target, bytes_ in ((place, text), (json_place, json.dumps(content, indent=1).encode())):
        partial = target.with_name(f"{target.name}.partial")
        partial.write_bytes(bytes_)
        store.sync(cast("Path", partial))
        partial.replace(target)
