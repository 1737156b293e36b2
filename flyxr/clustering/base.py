"""Input checks, parallel tasks and provenance that all functions of clustering share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from flyxr import identity, progress, provenance, schema
from flyxr.arguments import Arguments, as_int, shorten
from flyxr.clustering.mixture import FEWEST_MODELS, METRICS, Settings
from flyxr.errors import Problem
from flyxr.selection import central as central_column
from flyxr.selection import match_cell_types

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

PROGRESS_DELAY = 3.0
"""Time before a progress bar is shown, s."""


def select_responses(
    central: xr.Dataset | xr.DataArray, cell_types: str | Iterable[str] | None
) -> tuple[xr.DataArray, schema.Squeeze]:
    """Responses (cell_type, model, sample, time) of the named cell types.

    Returns
    -------
    array : DataArray
        The responses; dims that were selected away have length one.
    squeeze : Squeeze
        Removes ``cell_type`` from a result if the responses did not have it.

    Raises
    ------
    SchemaError
        If these are not responses.
    UnknownCellTypeError
        If ``cell_types`` match nothing.
    InputError
        If ``cell_types`` are not names.
    """
    if isinstance(central, xr.Dataset) and "response" in central:
        array = central["response"]
    elif isinstance(central, xr.DataArray):
        array = central
    else:
        raise schema.SchemaError(
            Problem(f"expected responses of central cells, got {type(central).__name__}", "call fx.simulate")
        )
    dataset, squeeze = schema.complete(array.to_dataset(name="response"), "responses")
    array = dataset["response"]
    dims = ("cell_type", "model", "sample", "time")
    missing = [dim for dim in dims if dim not in array.dims]
    extra = [str(dim) for dim in array.dims if dim not in (*dims, "column")]
    if missing or extra:
        has_column = any(str(dim).lower() in ("column", *schema.DIM_SYNONYMS["column"]) for dim in array.dims)
        renamed = schema.rename_hint(array, (*dims, "column") if has_column else dims)
        hint = renamed or "; ".join(
            [f"keep {', '.join(missing)}"] * bool(missing) + [f"select one {' and one '.join(extra)}"] * bool(extra)
        )
        text = f"expected responses with the dims {', '.join(dims)}, got {tuple(map(str, array.dims))}"
        raise schema.SchemaError(Problem(text, hint))
    if "column" in array.dims:
        array = array.isel(column=0, drop=True) if "column" in squeeze.dims else central_column(array)
    if cell_types is not None:
        if "cell_type" not in array.coords:
            text = "expected labels of 'cell_type' to choose cell_types, got none"
            raise schema.SchemaError(Problem(text, "label it with .assign_coords, or leave out cell_types="))
        available = array["cell_type"].values.tolist()
        array = array.isel(cell_type=[available.index(name) for name in match_cell_types(cell_types, available)])
    scalars = [name for name in array.coords if name not in dims and not array[name].dims]
    return array.drop_vars(scalars).transpose(*dims), squeeze


def model_problems(array: xr.DataArray) -> list[str | Problem]:
    """The problem that there are too few models to cluster, if there are."""
    if array.sizes["model"] >= FEWEST_MODELS:
        return []
    text = f"expected at least {FEWEST_MODELS} models, got {array.sizes['model']}: clusters of fewer are meaningless"
    return [Problem(text, "keep 'model' when selecting")]


def check_settings(arguments: Arguments, settings: Mapping[str, Any]) -> Settings:
    """Settings with Python's own numbers; notes all that is wrong with them."""
    numbers = {
        name: arguments.integer(name, settings[name], least=2 if name == "n_neighbors" else 1)
        for name in ("n_neighbors", "n_epochs", "n_components", "n_init", "max_iter")
    }
    min_dist = arguments.number("min_dist", settings["min_dist"], least=0)
    spread = arguments.number("spread", settings["spread"], above=0)
    if min_dist > spread:
        arguments.problems.append(f"expected min_dist of at most spread, got {min_dist:g} and {spread:g}")
    metric, criterion = settings["metric"], settings["criterion"]
    if not callable(metric) and not (isinstance(metric, str) and metric in METRICS):
        arguments.problems.append(f"expected metric as one of {', '.join(METRICS)}, got {shorten(metric)}")
    if not isinstance(criterion, str) or criterion not in ("bic", "aic"):
        arguments.problems.append(f"expected criterion 'bic' or 'aic', got {shorten(criterion)}")
    n_clusters = check_integers(arguments, "n_clusters", settings["n_clusters"], least=1, example="[2, 3, 4, 5]")
    return Settings(
        **numbers,
        min_dist=min_dist,
        spread=spread,
        metric=metric,
        criterion=criterion,
        n_clusters=tuple(sorted(set(n_clusters))),
    )


def check_integers(arguments: Arguments, name: str, values: Any, *, least: int, example: str) -> list[int]:
    """One integer, or several; empty if something is wrong with them."""
    items = list(values) if np.iterable(values) and not isinstance(values, str) else [values]
    integers = [integer for item in items if (integer := as_int(item)) is not None and integer >= least]
    if items and len(integers) == len(items):
        return integers
    text = f"expected {name} as integers of at least {least}, got {shorten(values)}"
    arguments.problems.append(Problem(text, f"e.g. {name}={example}"))
    return []


def split_cell_types(array: xr.DataArray) -> list[Any]:
    """Array (model, sample, time) of each cell type; lazy if the responses are."""
    return [array.data[i] for i in range(array.sizes["cell_type"])]


def add_provenance(
    dataset: xr.Dataset, operation: str, arguments: Mapping[str, Any], central: xr.Dataset | xr.DataArray
) -> xr.Dataset:
    """Record the operation, its arguments and the hash of the responses; a token if they are lazy."""
    source = central if isinstance(central, xr.Dataset) else central.to_dataset(name="response")
    token = identity.token(source["response"])
    hashes = {} if token else {"responses": identity.content_hash(source, ["response"])}
    packages = ("numpy", "xarray", "scikit-learn", "umap-learn")
    tokens = {"responses": token} if token else None
    return provenance.add(dataset, operation, arguments, hashes=hashes, tokens=tokens, packages=packages)


def compute_tasks(tasks: Sequence[tuple[Callable[..., Any], *tuple[Any, ...]]], description: str) -> list[Any]:
    """Compute each task, a function and its arguments, as one dask task; shows a progress bar."""
    import dask.base
    from dask.delayed import delayed

    lazy = [delayed(function, pure=False)(*arguments) for function, *arguments in tasks]
    with progress.task_bar(description, delay=PROGRESS_DELAY):
        return list(dask.base.compute(*lazy))
