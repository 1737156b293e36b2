"""Input checks, parallel tasks and provenance that all functions of clustering share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from flyxr import identity, provenance, schema
from flyxr.clustering.mixture import FEWEST_MODELS, Settings
from flyxr.errors import InputError, Problem, raise_problems
from flyxr.selection import central as central_column
from flyxr.selection import match_cell_types

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

PROGRESS_DELAY = 3.0
"""Time before a progress bar is shown, s."""


def select_responses(
    central: xr.Dataset | xr.DataArray, cell_types: str | Iterable[str] | None, settings: Settings, seeds: list[int]
) -> xr.DataArray:
    """Responses (cell_type, model, sample, time) of the named cell types, after checking all arguments.

    Raises
    ------
    SchemaError
        If these are not responses.
    UnknownCellTypeError
        If ``cell_types`` match nothing.
    InputError
        If there are too few models, or settings or seeds are out of range; lists all problems.
    """
    if isinstance(central, xr.Dataset) and "response" in central:
        array = central["response"]
    elif isinstance(central, xr.DataArray):
        array = central
    else:
        raise schema.SchemaError(
            Problem(f"expected responses of central cells, got {type(central).__name__}", "call fx.simulate")
        )
    if "column" in array.dims:
        array = central_column(array)
    dims = ("cell_type", "model", "sample", "time")
    if "cell_type" in array.coords and "cell_type" not in array.dims:
        array = array.expand_dims("cell_type")
    missing = [dim for dim in dims if dim not in array.dims]
    if missing:
        raise schema.SchemaError(
            Problem(
                f"expected responses with the dims {', '.join(dims)}, got {tuple(map(str, array.dims))}",
                f"keep {missing}",
            )
        )
    if cell_types is not None:
        available = array["cell_type"].values.tolist()
        array = array.isel(cell_type=[available.index(name) for name in match_cell_types(cell_types, available)])
    problems = []
    if array.sizes["model"] < FEWEST_MODELS:
        problems.append(
            f"expected at least {FEWEST_MODELS} models, got {array.sizes['model']}: clusters of fewer are meaningless"
        )
    raise_problems(InputError, "cannot cluster", [*problems, *_setting_problems(settings, seeds)])
    if "task_error" not in array.coords:
        array = array.assign_coords(task_error=("model", np.full(array.sizes["model"], np.nan)))
    scalars = [name for name in array.coords if name not in dims and not array[name].dims]
    return array.drop_vars(scalars).transpose(*dims)


def _setting_problems(settings: Settings, seeds: list[int]) -> list[str]:
    problems = []
    n_clusters = settings.n_clusters
    if not n_clusters or min(n_clusters) < 1 or any(int(number) != number for number in n_clusters):
        problems.append(f"expected n_clusters as integers of at least 1, got {list(n_clusters)}")
    if settings.criterion not in ("bic", "aic"):
        problems.append(f"expected criterion 'bic' or 'aic', got {settings.criterion!r}")
    for name in ("n_components", "n_epochs", "n_init", "max_iter"):
        if getattr(settings, name) < 1:
            problems.append(f"expected {name} of at least 1, got {getattr(settings, name)}")
    if settings.n_neighbors < 2:
        problems.append(f"expected n_neighbors of at least 2, got {settings.n_neighbors}")
    if not 0 <= settings.min_dist <= settings.spread:
        problems.append(f"expected 0 <= min_dist <= spread, got {settings.min_dist} and {settings.spread}")
    if min(seeds, default=0) < 0:
        problems.append(f"expected seeds of at least 0, got {seeds}")
    return problems


def sort_unique(n_clusters: Iterable[int]) -> tuple[int, ...]:
    """Numbers of clusters in ascending order, each once."""
    return tuple(sorted(set(n_clusters)))


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
    from tqdm.dask import TqdmCallback

    lazy = [delayed(function, pure=False)(*arguments) for function, *arguments in tasks]
    with TqdmCallback(desc=description, delay=PROGRESS_DELAY, unit="task"):
        return list(dask.base.compute(*lazy))
