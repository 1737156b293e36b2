"""What the measures share: responses of the central cells, samples by condition of the stimulus, and the output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from flyxr import provenance, schema
from flyxr.errors import InputError, Problem, raise_problems
from flyxr.selection import central

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROUNDING = 1e-6
"""Times that differ by less than this part of a step are the same."""
CONDITIONS = ("width", "intensity", "speed", "contrast", "spatial_frequency", "temporal_frequency")
"""Parameters of moving stimuli beside the direction, as coordinates on ``sample``."""


def take(
    responses: xr.Dataset | xr.DataArray, needed: Sequence[str] = (), stimulus: schema.Stimulus | None = None
) -> xr.DataArray:
    """Responses of the central cells, once they are known to be those to the stimulus that a measure needs.

    Parameters
    ----------
    responses
        ``response`` with the dims ``sample`` and ``time``, and perhaps ``column``.
    needed
        Coordinates that the stimulus leaves on ``sample``.
    stimulus
        The stimulus that the measure is of, which the error names.

    Raises
    ------
    SchemaError
        If a dim or a coordinate is missing, or NaN; says which stimulus the measure needs and what the responses are
        to.
    """
    if isinstance(responses, xr.Dataset):
        if "response" not in responses:
            names = ", ".join(map(repr, map(str, responses.data_vars))) or "no variables"
            text = f"expected responses, with the variable 'response', got {names}"
            raise schema.SchemaError(Problem(text, "call fx.simulate"))
        array = responses["response"]
    elif isinstance(responses, xr.DataArray):
        array = responses
    else:
        raise schema.SchemaError(f"expected responses as fx.simulate gives them, got {type(responses).__name__}")
    problems: list[str | Problem] = [
        Problem(f"expected the dim '{dim}', got {tuple(map(str, array.dims))}", f"keep it with .isel({dim}=[i])")
        for dim in ("sample", "time")
        if dim not in array.dims
    ]
    chunked = [name for name, coord in array.coords.items() if coord.chunks is not None]
    array = array.assign_coords({name: array[name].compute() for name in chunked})
    lacking = [name for name in needed if name not in array.coords or "sample" not in array[name].dims]
    if lacking and not problems:
        steps = provenance.steps(responses)
        made = f" (their stimulus is {steps[0]['operation']})" if steps else ""
        text = f"expected responses to {stimulus}, with the coordinates {', '.join(needed)} on 'sample', "
        text += f"got none of {', '.join(lacking)}{made}"
        problems.append(Problem(text, "simulate that stimulus, or assign the coordinates"))
    raise_problems(schema.SchemaError, "the responses do not have what the measure needs", problems)
    if stimulus:
        check_known(array, needed, stimulus)
    if "column" in array.dims:
        array = central(array)
    dropped = [name for name in ("column", "u", "v", "x_column", "y_column") if name in array.coords]
    return array.drop_vars(dropped).rename("response")


def unknown(array: xr.DataArray, name: str) -> xr.DataArray:
    """For each sample whether a coordinate, of numbers or text, is NaN.

    Examples
    --------
    >>> unknown(xr.DataArray([0, 0], dims="sample", coords={"angle": ("sample", [90.0, np.nan])}), "angle").values
    array([False,  True])
    """
    return array[name].reset_coords(drop=True).isnull()


def check_known(array: xr.DataArray, names: Sequence[str], stimulus: schema.Stimulus) -> None:
    """Check that parameters of the stimulus, as coordinates on ``sample``, are known for each sample.

    Raises
    ------
    SchemaError
        If one is NaN, as where samples of another stimulus are among them; names the stimulus that the measure needs.
    """
    counts = {name: int(unknown(array, name).sum()) for name in names}
    wrong = {name: count for name, count in counts.items() if count}
    if wrong:
        found = ", ".join(f"{name} that is NaN in {n} of {array.sizes['sample']}" for name, n in wrong.items())
        raise schema.SchemaError(
            Problem(
                f"expected responses to {stimulus}, with known {', '.join(names)} of each sample, got {found}",
                "simulate that stimulus, or select its samples with "
                f"responses.isel(sample=responses.{next(iter(wrong))}.notnull().values)",
            )
        )


def wrap(
    variables: Mapping[str, xr.DataArray],
    responses: xr.Dataset | xr.DataArray,
    operation: str,
    arguments: Mapping[str, Any],
) -> xr.Dataset:
    """Dataset of measures, with the attributes and the history of the responses."""
    bare = {name: array.drop_attrs(deep=False) for name, array in variables.items()}
    dataset = xr.Dataset(bare).assign_attrs(responses.attrs)
    noted = {name: "given" if hasattr(value, "dims") else value for name, value in arguments.items()}
    return schema.annotate(provenance.add(dataset, operation, noted), "measures")


def within(array: xr.DataArray, start: xr.DataArray | float, stop: xr.DataArray | float) -> xr.DataArray:
    """Which frames lie from start to stop, s, both included, for each sample.

    Raises
    ------
    InputError
        If a sample has no such frame.
    """
    time = array["time"]
    tolerance = ROUNDING * schema.time_step(array.to_dataset())
    mask = (time >= start - tolerance) & (time <= stop + tolerance)
    empty = ~mask.any("time")
    if bool(empty.any()):
        text = f"expected frames in the window of each sample, got none in {int(empty.sum())} of {empty.size} "
        text += f"(time from {float(time[0]):g} s to {float(time[-1]):g} s)"
        raise InputError(Problem(text, "choose a window that the stimulus crosses, and record it"))
    return mask


def largest(array: xr.DataArray, dim: str = "time", where: xr.DataArray | bool = True) -> xr.DataArray:
    """Maximum of what is there along a dim; NaN where nothing is, without a warning when it is computed lazily."""
    found = array.where(array.notnull() & where, -np.inf).max(dim, skipna=False)
    return found.where(found > -np.inf)


def by_condition(array: xr.DataArray, names: Sequence[str], stimulus: schema.Stimulus) -> xr.DataArray:
    """Samples as a grid over their conditions: the dim ``sample`` becomes one dim a coordinate, in their order, last.

    A condition without a sample is NaN.

    Raises
    ------
    InputError
        If a condition has several samples.
    SchemaError
        If a coordinate is NaN.
    """
    check_known(array, names, stimulus)
    levels = [np.unique(array[name].values) for name in names]
    where = [np.searchsorted(level, array[name].values) for level, name in zip(levels, names, strict=True)]
    grid = np.full([level.size for level in levels], -1)
    table = pd.MultiIndex.from_arrays([array[name].values for name in names])
    if table.has_duplicates:
        first = table[table.duplicated()].tolist()[0]
        alike = array.isel(sample=np.flatnonzero(table == first))
        others = [
            str(name)
            for name, coord in alike.coords.items()
            if coord.dims == ("sample",) and name != "sample" and np.unique(coord.values).size > 1
        ]
        text = f"expected one sample of {stimulus} for each {', '.join(names)}, got {alike.sizes['sample']} for "
        text += ", ".join(f"{name} {value:g}" for name, value in zip(names, first, strict=True))
        hint = f"select one {' and one '.join(others)}" if others else "average samples that repeat"
        raise InputError(Problem(text, hint))
    grid[tuple(where)] = np.arange(array.sizes["sample"])
    coords = {name: (name, level.astype(float)) for name, level in zip(names, levels, strict=True)}
    positions = xr.DataArray(grid, coords, dims=names)
    on_sample = [name for name, coord in array.coords.items() if "sample" in coord.dims]
    spread = array.drop_vars(on_sample).isel(sample=positions.clip(min=0))
    if (grid < 0).any():
        spread = spread.where(positions >= 0)
    return spread.transpose(..., *names)
