"""Steps that all measures share: select central cells, arrange samples by condition, and wrap the result."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from flyxr import provenance, schema
from flyxr.errors import InputError, Problem, raise_problems
from flyxr.selection import central

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

ROUNDING = 1e-6
"""Fraction of a step below which two times are equal."""
CONDITIONS = ("width", "intensity", "speed", "contrast", "spatial_frequency", "temporal_frequency")
"""Parameters of moving stimuli other than the direction, as coordinates on ``sample``."""


DIMS = schema.KINDS["responses"].variables[0].dims
"""Dims of responses."""


def central_responses(
    responses: xr.Dataset | xr.DataArray,
    required: Sequence[str] = (),
    stimulus: schema.Stimulus | None = None,
    *,
    conditions: str = "",
) -> tuple[xr.DataArray, schema.Squeeze]:
    """Select the responses of the central cells and check that they are to the stimulus that a measure requires.

    Parameters
    ----------
    responses
        ``response`` with the dims ``sample`` and ``time``, each of length one if it was selected away, and optionally
        others. If ``column`` was selected away, that column is used.
    required
        Coordinates of the stimulus on ``sample``.
    stimulus
        The stimulus of the measure, for error messages.
    conditions
        What the samples are, if the measure needs several of them: ``"all directions"``.

    Returns
    -------
    array : DataArray
        Responses with the dims ``sample`` and ``time``, without ``column``.
    squeeze : Squeeze
        Removes ``sample`` from a result if the responses did not have it.

    Raises
    ------
    SchemaError
        If a dim or a coordinate is missing, or NaN; names the stimulus that the measure requires and that of the
        responses.
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
        raise schema.SchemaError(f"expected responses from fx.simulate, got {type(responses).__name__}")
    dataset, squeeze = schema.complete(array.to_dataset(name="response"), "responses")
    kept = tuple(dim for dim in squeeze.dims if dim in ("sample", "time"))
    array = squeeze._replace(dims=tuple(set(squeeze.dims) - set(kept)))(dataset)["response"]
    squeeze = squeeze._replace(dims=kept)
    problems = _dim_problems(array)
    if conditions and "sample" in kept:
        text = f"expected the dim 'sample' with {conditions}, got one sample or a mean"
        problems.append(Problem(text, "keep 'sample' when selecting, e.g. with .isel(sample=[...])"))
    missing = [name for name in required if name not in array.coords or "sample" not in array[name].dims]
    if missing and not problems:
        steps = provenance.steps(responses)
        operation = f" (their stimulus is {steps[0]['operation']})" if steps else ""
        text = f"expected responses to {stimulus}, with the coordinates {', '.join(required)} on 'sample', "
        text += f"got none of {', '.join(missing)}{operation}"
        problems.append(Problem(text, "simulate that stimulus, or assign the coordinates"))
    raise_problems(schema.SchemaError, "the responses do not fit the measure", problems)
    if stimulus:
        check_known(array, required, stimulus)
    if "column" in array.dims:
        array = central(array)
    column_coords = [name for name in ("column", "u", "v", "x_column", "y_column") if name in array.coords]
    return array.drop_vars(column_coords).rename("response"), squeeze


def _dim_problems(array: xr.DataArray) -> list[str | Problem]:
    """Dims that a measure needs, and dims that seem to be dims of the schema under other names."""
    missing = [dim for dim in DIMS if dim not in array.dims]
    is_misnamed = any(str(dim).lower() in schema.DIM_SYNONYMS.get(name, ()) for dim in array.dims for name in missing)
    text = f"expected 'sample', 'time' and others of the dims {DIMS}, got {tuple(map(str, array.dims))}"
    if is_misnamed or {"sample", "time"} & set(missing):
        return [Problem(text, schema.rename_hint(array, DIMS) or "keep 'sample' and 'time'")]
    return []


def is_unknown(array: xr.DataArray, name: str) -> xr.DataArray:
    """Mask (sample,) where a coordinate, of numbers or text, is NaN.

    Examples
    --------
    >>> is_unknown(xr.DataArray([0, 0], dims="sample", coords={"angle": ("sample", [90.0, np.nan])}), "angle").values
    array([False,  True])
    """
    return array[name].reset_coords(drop=True).isnull()


def check_known(array: xr.DataArray, names: Sequence[str], stimulus: schema.Stimulus) -> None:
    """Check that parameters of the stimulus, as coordinates on ``sample``, are known for each sample.

    Raises
    ------
    SchemaError
        If one is NaN, as for samples of another stimulus; names the stimulus that the measure requires.
    """
    counts = {name: int(is_unknown(array, name).sum()) for name in names}
    n_unknown = {name: count for name, count in counts.items() if count}
    if n_unknown:
        text = ", ".join(f"{name} that is NaN in {n} of {array.sizes['sample']}" for name, n in n_unknown.items())
        raise schema.SchemaError(
            Problem(
                f"expected responses to {stimulus}, with known {', '.join(names)} of each sample, got {text}",
                "simulate that stimulus, or select its samples with "
                f"responses.isel(sample=responses.{next(iter(n_unknown))}.notnull().values)",
            )
        )


def wrap(
    variables: Mapping[str, xr.DataArray],
    responses: xr.Dataset | xr.DataArray,
    operation: str,
    arguments: Mapping[str, Any],
    squeeze: schema.Squeeze = schema.Squeeze(),  # noqa: B008 (immutable)
) -> xr.Dataset:
    """Dataset of measures with the attributes and provenance of the responses."""
    without_attrs = {name: array.drop_attrs(deep=False) for name, array in variables.items()}
    dataset = xr.Dataset(without_attrs).assign_attrs(responses.attrs)
    plain_arguments = {name: "given" if hasattr(value, "dims") else value for name, value in arguments.items()}
    return squeeze(schema.annotate(provenance.add(dataset, operation, plain_arguments), "measures"))


def is_within(array: xr.DataArray, start: xr.DataArray | float, stop: xr.DataArray | float) -> xr.DataArray:
    """Mask of the frames from start to stop, s, both included, for each sample.

    Raises
    ------
    InputError
        If a sample has no such frame.
    """
    time = array["time"]
    tolerance = ROUNDING * schema.time_step(array.to_dataset())
    mask = (time >= start - tolerance) & (time <= stop + tolerance)
    is_empty = ~mask.any("time")
    if bool(is_empty.any()):
        text = f"expected frames in the window of each sample, got none in {int(is_empty.sum())} of {is_empty.size} "
        text += f"(time from {float(time[0]):g} s to {float(time[-1]):g} s)"
        raise InputError(Problem(text, "choose a window that the stimulus crosses, and record its frames"))
    return mask


def highest(array: xr.DataArray, where: xr.DataArray) -> xr.DataArray:
    """Largest value over the frames in a mask (sample, time), ignoring NaN; NaN if there is no value.

    Lazy arrays are reduced in one task per block, which makes no copy of it.
    """
    return _reduce_frames(array, where, np.fmax)


def lowest(array: xr.DataArray, where: xr.DataArray) -> xr.DataArray:
    """Smallest value over the frames in a mask (sample, time), as :func:`highest`."""
    return _reduce_frames(array, where, np.fmin)


def _reduce_frames(array: xr.DataArray, where: xr.DataArray, ufunc: np.ufunc) -> xr.DataArray:
    array = array if array.dtype.kind == "f" else array.astype(float)
    reduced: xr.DataArray = xr.apply_ufunc(
        _reduce_masked,
        array,
        where,
        input_core_dims=[["time"], ["time"]],
        kwargs={"ufunc": ufunc},
        dask="parallelized",
        dask_gufunc_kwargs={"allow_rechunk": True},
        output_dtypes=[array.dtype],
    )
    return reduced.transpose(*(dim for dim in array.dims if dim != "time"))


def _reduce_masked(
    values: NDArray[np.floating[Any]], mask: NDArray[np.bool_], *, ufunc: np.ufunc
) -> NDArray[np.floating[Any]]:
    """Reduce values (..., time) where a mask, which broadcasts against them, is true."""
    reduced = np.empty(values.shape[:-1], values.dtype)
    lengths = mask.shape[:-1]
    for position in np.ndindex(lengths):
        rows = (..., *(i if length > 1 else slice(None) for i, length in zip(position, lengths, strict=True)))
        frames = np.flatnonzero(mask[position])
        is_window = frames.size and frames[-1] - frames[0] + 1 == frames.size  # a slice copies nothing
        selected = values[(*rows, slice(frames[0], frames[-1] + 1) if is_window else frames)]
        reduced[rows] = ufunc.reduce(selected, axis=-1, initial=np.nan)
    return reduced


def gather(array: xr.DataArray) -> xr.DataArray:
    """Join the blocks of a lazy array that is small, such as peak responses, so that few tasks work on it."""
    if array.chunks is None:
        return array
    return array.copy(data=array.data.rechunk(tuple(-1 if dim == "sample" else "auto" for dim in array.dims)))


def maximum(array: xr.DataArray, dim: str = "time", where: xr.DataArray | bool = True) -> xr.DataArray:
    """Maximum along a dim, ignoring NaN; NaN if there is no value, without the warning of a lazy ``nanmax``."""
    filled = array.where(array.notnull() & where, -np.inf).max(dim, skipna=False)
    return filled.where(filled > -np.inf)


def unstack_conditions(array: xr.DataArray, names: Sequence[str], stimulus: schema.Stimulus) -> xr.DataArray:
    """Replace ``sample`` by one dim per condition of the stimulus, in the order of the names, last.

    A condition without a sample is NaN.

    Raises
    ------
    InputError
        If a condition has several samples.
    SchemaError
        If a coordinate is NaN.
    """
    check_known(array, names, stimulus)
    values = [array[name].values.astype(float) for name in names]
    conditions = pd.MultiIndex.from_arrays(values, names=list(names))
    if conditions.has_duplicates:
        raise _duplicate_error(array, conditions, stimulus)
    levels, codes = zip(*(np.unique(column, return_inverse=True) for column in values), strict=True)
    sizes = {name: level.size for name, level in zip(names, levels, strict=True)}
    dtype = array.dtype if array.dtype.kind == "f" else np.dtype(float)
    unstacked: xr.DataArray = xr.apply_ufunc(
        _arrange,
        array.drop_vars([name for name, coord in array.coords.items() if "sample" in coord.dims]).astype(dtype),
        input_core_dims=[["sample"]],
        output_core_dims=[list(names)],
        kwargs={"positions": np.ravel_multi_index(codes, tuple(sizes.values())), "shape": tuple(sizes.values())},
        dask="parallelized",
        dask_gufunc_kwargs={"allow_rechunk": True, "output_sizes": sizes},
        output_dtypes=[dtype],
    )
    return unstacked.assign_coords(dict(zip(names, levels, strict=True)))


def _arrange(
    values: NDArray[np.floating[Any]], *, positions: NDArray[np.integer[Any]], shape: tuple[int, ...]
) -> NDArray[np.floating[Any]]:
    """Values (..., *shape) from values (..., sample) at flat positions; NaN elsewhere."""
    arranged = np.full((*values.shape[:-1], math.prod(shape)), np.nan, values.dtype)
    arranged[..., positions] = values
    return arranged.reshape(*values.shape[:-1], *shape)


def apply_to_conditions(
    function: Callable[..., tuple[xr.DataArray, ...]], curves: xr.DataArray, drop: Sequence[str], n_results: int = 1
) -> tuple[xr.DataArray, ...]:
    """Apply a function of labelled arrays to curves over the conditions of a stimulus, in one task if they are lazy.

    Parameters
    ----------
    function
        Module-level function of curves (..., conditions) and ``drop``, which returns arrays without the dims ``drop``.
    curves
        From :func:`unstack_conditions`.
    drop
        Conditions that the results lack.
    n_results
        Number of results.
    """
    names = [dim for dim in curves.dims if dim in (*CONDITIONS, "angle")]
    kept = [name for name in names if name not in drop]
    results = xr.apply_ufunc(
        _apply_labelled,
        curves,
        input_core_dims=[names],
        output_core_dims=[kept] * n_results,
        kwargs={
            "function": function,
            "coords": {str(name): curves[name].values for name in names},
            "drop": tuple(drop),
            "kept": tuple(kept),
        },
        dask="parallelized",
        dask_gufunc_kwargs={"allow_rechunk": True},
        output_dtypes=[np.dtype(float)] * n_results,
    )
    return results if isinstance(results, tuple) else (results,)


def _apply_labelled(
    values: NDArray[np.floating[Any]],
    *,
    function: Callable[..., tuple[xr.DataArray, ...]],
    coords: Mapping[str, NDArray[Any]],
    drop: tuple[str, ...],
    kept: tuple[str, ...],
) -> tuple[NDArray[np.floating[Any]], ...] | NDArray[np.floating[Any]]:
    """Results of a labelled function as arrays, of which there is one, or a tuple of several."""
    others = [f"dim_{axis}" for axis in range(values.ndim - len(coords))]
    results = function(xr.DataArray(values, coords, [*others, *coords]), drop)
    arrays = tuple(result.transpose(*others, *kept).values for result in results)
    return arrays if len(arrays) > 1 else arrays[0]


def _duplicate_error(array: xr.DataArray, conditions: pd.MultiIndex, stimulus: schema.Stimulus) -> InputError:
    first = conditions[conditions.duplicated()].tolist()[0]
    duplicates = array.isel(sample=np.flatnonzero(conditions == first))
    varying = [
        str(name)
        for name, coord in duplicates.coords.items()
        if coord.dims == ("sample",) and name != "sample" and np.unique(coord.values).size > 1
    ]
    names = [str(name) for name in conditions.names]
    text = f"expected one sample of {stimulus} for each {', '.join(names)}, got {duplicates.sizes['sample']} for "
    text += ", ".join(f"{name} {value:g}" for name, value in zip(names, first, strict=True))
    hint = f"select one {' and one '.join(varying)}" if varying else "average samples that repeat"
    return InputError(Problem(text, hint))
