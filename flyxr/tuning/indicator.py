"""Responses as a calcium indicator shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from flyxr import provenance, schema
from flyxr.arguments import Arguments
from flyxr.errors import Problem

if TYPE_CHECKING:
    from numpy.typing import NDArray

RISE, DECAY = 0.05, 0.2
"""Default time constants, s."""


def calcium(
    responses: xr.Dataset | xr.DataArray, *, rise: float = RISE, decay: float = DECAY
) -> xr.Dataset | xr.DataArray:
    """Responses as imaging would show them, seen through a calcium indicator.

    Parameters
    ----------
    responses
        ``response`` over ``time`` and any other dims, lazy or not.
    rise, decay
        Time constants of the indicator, s, with ``rise < decay``. The defaults, 0.05 and 0.2 s, are of the order of
        fast indicators such as GCaMP6f; give those of the indicator that was used.

    Returns
    -------
    Dataset or DataArray
        Like the responses, float32 if they are; lazy if they are. Scale and offset are those of the response, where
        imaging gives arbitrary ones.

    Raises
    ------
    SchemaError
        If the responses have no dim ``time``.
    InputError
        A ValueError. If the time constants are not positive and ascending.

    Notes
    -----
    Two first-order low-pass filters in a row: a step is followed as 1 - (decay exp(-t/decay) - rise exp(-t/rise)) /
    (decay - rise), an impulse proportionally to exp(-t/decay) - exp(-t/rise). Before the first frame the response is
    taken to be constant. The filter is linear: saturation and a threshold of calcium entry are not modelled.

    Examples
    --------
    >>> time = xr.Variable("time", np.arange(4) * 0.1, {"step": 0.1})
    >>> step = xr.DataArray([0.0, 1.0, 1.0, 1.0], dims="time", coords={"time": time}, name="response")
    >>> calcium(step, rise=0.05, decay=0.2).values.round(2)
    array([0.  , 0.34, 0.59, 0.75])
    """
    arguments = Arguments()
    rise = arguments.number("rise", rise, "s", above=0)
    decay = arguments.number("decay", decay, "s", above=0)
    if not arguments.problems and rise >= decay:
        arguments.problems.append(f"expected rise below decay, in s, got rise={rise:g} and decay={decay:g}")
    arguments.raise_problems()
    is_dataset = isinstance(responses, xr.Dataset)
    if is_dataset and "response" not in responses:
        text = f"expected responses, with the variable 'response', got {list(map(str, responses.data_vars))}"
        raise schema.SchemaError(Problem(text, "call fx.simulate"))
    if not is_dataset and not isinstance(responses, xr.DataArray):
        raise schema.SchemaError(f"expected responses from fx.simulate, got {type(responses).__name__}")
    array = responses["response"] if isinstance(responses, xr.Dataset) else responses
    if "time" not in array.dims:
        text = f"expected responses over time, got the dims {tuple(map(str, array.dims))}"
        raise schema.SchemaError(Problem(text, "keep 'time' when selecting"))
    dt = schema.time_step(array.to_dataset(name="response"))
    filtered: xr.DataArray = xr.apply_ufunc(
        _filter,
        array.chunk(time=-1) if array.chunks is not None else array,
        kwargs={"kept": (float(np.exp(-dt / rise)), float(np.exp(-dt / decay)))},
        input_core_dims=[["time"]],
        output_core_dims=[["time"]],
        dask="parallelized",
        output_dtypes=[array.dtype],
        keep_attrs=True,
    ).transpose(*array.dims)
    if not isinstance(responses, xr.Dataset):
        return filtered
    return provenance.add(responses.assign(response=filtered), "calcium", {"rise": rise, "decay": decay})


def _filter(values: NDArray[np.floating[Any]], *, kept: tuple[float, float]) -> NDArray[np.floating[Any]]:
    """Low-pass filters along the last axis, at rest at the first value."""
    from scipy.signal import lfilter

    start = values[..., :1]
    signal = np.asarray(values, np.float64) - start
    for share in kept:
        signal = lfilter([1 - share], [1, -share], signal, axis=-1)
    return np.asarray((signal + start).astype(values.dtype))
