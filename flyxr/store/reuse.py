"""Whether a store holds a given Dataset: by provenance and tokens where these suffice, else by content."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from flyxr import identity, provenance
from flyxr.errors import ExistsError, FlyxrError, Problem, raise_problems
from flyxr.store import files, labels, places, reading

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import xarray as xr

    from flyxr.store.places import Place

TOKENS = "tokens.json"
"""File with the tokens of the lazy variables that a store was saved from; it lies beside the manifest."""
_PLACES = ("file", "path", "source")
"""Arguments and attributes that say where data came from. Their content is compared instead, so that data may move."""


def write_tokens(dataset: xr.Dataset, store: Path, name: str) -> None:
    """Write the tokens of the lazy variables of a Dataset into the folder of the array ``name``."""
    tokens = {str(key): identity.token(variable) for key, variable in dataset.data_vars.items()}
    lazy = {key: token for key, token in tokens.items() if token is not None}
    content = {"tokens": lazy, "versions": provenance.versions(())}
    (store / name / TOKENS).write_text(json.dumps(content), encoding="utf-8")


def check_same(path: Place, dataset: xr.Dataset) -> None:
    """Check that a store holds a Dataset; see :func:`find_differences`.

    Raises
    ------
    ExistsError
        A FileExistsError. If the store holds something else; names each difference.
    StoreError
        A ValueError. If the store cannot be opened, is damaged, or is an unfinished sweep.
    """
    is_store = places.exists(path / "zarr.json")
    hint = f"{'pass overwrite=True to replace it, or ' if is_store else ''}choose another path"
    try:
        stored, problems = reading.open_with_problems(path)
    except (FlyxrError, NotADirectoryError) as error:
        raise files.StoreError(Problem(f"cannot reuse {path}: {error}", hint)) from error
    if problems:
        raise files.StoreError(Problem(f"cannot reuse {path}: {'; '.join(map(str, problems))}", f"or {hint}"))
    raise_problems(ExistsError, f"{path} holds other data; {hint}", find_differences(path, stored, dataset))


def find_differences(path: Place, stored: xr.Dataset, given: xr.Dataset) -> list[str]:
    """List the differences between a store and a Dataset, one line each.

    Operations, arguments, hashes, dims, dtypes and labels are compared first, without computing. If these agree, lazy
    variables are the same if they have the token that the store was saved with and the token is reliable (see
    :func:`flyxr.identity.is_reliable`). Others are computed and compared by content, a chunk at a time.

    Parameters
    ----------
    path
        Path of the store.
    stored
        The Dataset that was opened from the path.
    given
        The Dataset to compare, as it would be saved.
    """
    lines = _step_differences(provenance.steps(stored), provenance.steps(given))
    shape_lines = _shape_differences(stored, given)
    lines += shape_lines
    if not shape_lines:
        lines += labels.differences(_drop_places(stored), _drop_places(given))
    if lines:
        return lines
    # Times of modification on other machines do not say whether the tokens still hold.
    tokens = {} if places.is_remote(path) or not _is_as_saved(cast("Path", path)) else _read_tokens(cast("Path", path))
    undecided = []
    for name, variable in given.data_vars.items():
        token = identity.token(variable)
        if token is None or tokens.get(str(name)) != token or not identity.is_reliable(variable):
            undecided.append(name)
    return _content_differences(stored[undecided], given[undecided])


def _read_tokens(path: Path) -> Mapping[str, str]:
    """Tokens by variable; empty if they are missing, or if another version of flyxr wrote them."""
    for file in sorted(path.glob(f"*/{TOKENS}")):
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            return dict(content["tokens"]) if content["versions"] == provenance.versions(()) else {}
        except (ValueError, TypeError, KeyError, RecursionError):
            return {}
    return {}


def _is_as_saved(path: Path) -> bool:
    """Whether the files of a store have the content that it was saved with.

    The digest is compared where a file is newer than the manifest, as after a copy or a change in place.
    """
    manifest, stats = files.read_manifest(path), files.list_files(path)
    saved = max((stat[1] for file, stat in stats.items() if file.endswith(f"/{files.MANIFEST}")), default=0)
    changed = [file for file in manifest if file not in stats or stats[file][1] > saved]
    return bool(manifest) and all(
        file in stats and identity.content_digest(path / file) == manifest[file][1] for file in changed
    )


def _drop_places(dataset: xr.Dataset) -> xr.Dataset:
    return dataset.assign_attrs(dict.fromkeys(_PLACES, "") if set(_PLACES) & set(dataset.attrs) else {})


def _step_differences(stored: list[dict[str, Any]], given: list[dict[str, Any]]) -> list[str]:
    """Differences between the steps of two provenances; versions and tokens are ignored."""
    operations = [[step["operation"] for step in steps] for steps in (stored, given)]
    if operations[0] != operations[1]:
        old, new = (" > ".join(names) or "an unknown operation" for names in operations)
        return [f"operations: the store is made by {old}, these data by {new}"]
    lines = []
    for old_step, new_step in zip(stored, given, strict=True):
        operation = old_step["operation"]
        old, new = old_step["arguments"], new_step["arguments"]
        for name in dict.fromkeys([*old, *new]):
            is_same = old.get(name) == new.get(name) or json.dumps(old.get(name)) == json.dumps(new.get(name))  # NaN
            if name not in _PLACES and not is_same:
                lines.append(
                    f"{operation}({name}=…): the store has {_shorten(old, name)}, these data {_shorten(new, name)}"
                )
        old, new = old_step.get("hashes", {}), new_step.get("hashes", {})
        for name in old.keys() & new.keys():
            if old[name] != new[name]:
                lines.append(f"{operation}: the content of the {name} has changed, from {old[name]} to {new[name]}")
    return lines


def _shorten(arguments: Mapping[str, Any], name: str, limit: int = 80) -> str:
    text = repr(arguments[name]) if name in arguments else "no such argument"
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _shape_differences(stored: xr.Dataset, given: xr.Dataset) -> list[str]:
    """Variables that only one Dataset has, and those with other dims, lengths or dtypes."""
    lines = []
    for name in dict.fromkeys([*stored.data_vars, *given.data_vars]):
        if name not in given.data_vars or name not in stored.data_vars:
            has = ("the store has", "these data lack it") if name in stored.data_vars else ("the store lacks", "")
            lines.append(f"variable {name!r}: {has[0]} it{', ' * bool(has[1])}{has[1]}")
            continue
        old, new = stored[name], given[name]
        if old.dims != new.dims or old.shape != new.shape:
            lines.append(f"{name}: the store has {_format_sizes(old)}, these data {_format_sizes(new)}")
        if old.dtype != new.dtype:
            lines.append(f"{name}: the store has {old.dtype}, these data {new.dtype}")
    for dim in dict.fromkeys([*stored.sizes, *given.sizes]):
        old_length, new_length = stored.sizes.get(dim, 0), given.sizes.get(dim, 0)
        if old_length != new_length and not lines:
            lines.append(f"dim {dim!r}: the store has {old_length}, these data {new_length}")
    return lines


def _format_sizes(array: xr.DataArray) -> str:
    return " x ".join(f"{length} {dim}" for dim, length in array.sizes.items()) or "a single value"


def _content_differences(stored: xr.Dataset, given: xr.Dataset) -> list[str]:
    """Differences between the values of variables with equal dims, lengths and dtypes."""
    from dask.base import compute

    counts, largest = {}, {}
    for name, variable in given.data_vars.items():
        array = stored[name]
        if variable.chunks is not None and array.chunks is not None:
            array = array.chunk(dict(zip(variable.dims, variable.chunks, strict=True)))
        old, new = array.variable, variable.variable
        differs = (old != new) & ~((old != old) & (new != new))  # NaN equals NaN
        counts[name] = differs.sum()
        if new.dtype.kind in "fiu" and new.size:
            largest[name] = abs(old.astype(np.float64) - new.astype(np.float64)).where(differs, 0).max()
    counts, largest = compute(counts, largest)
    lines = []
    for name, count in counts.items():
        if n_differing := int(count):
            extent = f", by up to {float(largest[name]):.3g}" if name in largest else ""
            lines.append(f"{name}: {n_differing} of {given[name].size} values differ{extent}")
    return lines
