"""Grey before and after a stimulus."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from flyxr import provenance, schema
from flyxr.arguments import Arguments
from flyxr.errors import Problem
from flyxr.optics import GREY
from flyxr.stimuli import columns

if TYPE_CHECKING:
    from flyxr.arguments import Duration


def pad_grey(
    data: xr.Dataset | xr.DataArray, t_pre: Duration = 0.5, t_post: Duration = 0.5, luminance: float = GREY
) -> xr.Dataset:
    """Add whole frames of grey before and after a movie or rendering.

    Times of the stimulus stay, so that time 0 is still its onset.

    Parameters
    ----------
    data
        Movie (sample, time, y, x) or rendering (sample, time, column); dims that were selected away stay away.
    t_pre, t_post
        Duration of the grey before and after, s, or text such as ``"500ms"``; 0 for none. A part of a frame is cut off.
    luminance
        Luminance of the grey, 0 to 1.

    Returns
    -------
    Dataset
        The same data with more frames; lazy if ``data`` is. Other variables and coordinates along ``time`` are missing
        (NaN) in the grey, and ``flow`` is 0. A movie of uint8 becomes float32 from 0 to 1, since no 8-bit value is
        exactly 0.5. The coordinate ``t_stim`` (sample), the end of the stimulus in s, is added where it is missing.
        Samples that end early, at ``t_end``, are grey from there on, and end ``t_post`` later.

    Raises
    ------
    SchemaError
        If ``data`` is neither a movie nor a rendering.
    InputError
        A ValueError, for a duration that is negative or shorter than a frame, or a luminance outside 0 to 1.

    Examples
    --------
    >>> from flyxr.stimuli import from_columns
    >>> rendering = from_columns(np.ones((2, 3, 7)), dt=0.25)
    >>> padded = pad_grey(rendering, t_pre=0.5, t_post=0.25)
    >>> padded.time.values, padded.t_stim.values
    (array([-0.5 , -0.25,  0.  ,  0.25,  0.5 ,  0.75]), array([0.75, 0.75]))
    >>> padded.luminance[0, :, 0].values
    array([0.5, 0.5, 1. , 1. , 1. , 0.5], dtype=float32)
    """
    kind = schema.stimulus_kind(data)
    dataset, squeeze = schema.expand(data, kind, integer_luminance=True)
    arguments = Arguments("cannot pad with grey")
    durations = {
        name: columns.duration_around(arguments, name, value) for name, value in (("t_pre", t_pre), ("t_post", t_post))
    }
    grey = arguments.number("luminance", luminance, least=0, most=1)
    step = schema.time_step(dataset)
    for name, duration in durations.items():
        if duration > 0 and columns.n_frames(duration, step) == 0:
            text = f"expected {name} of 0 or at least one frame of {step:g} s, got {duration:g} s"
            arguments.problems.append(Problem(text, "resample to a shorter step first with fx.resample(data, dt=...)"))
    arguments.raise_problems()
    n_pre, n_post = (columns.n_frames(duration, step) for duration in durations.values())

    dataset = _with_stimulus_end(_in_float(dataset), step)
    fills = {"luminance": grey, "flow": 0.0}
    if "t_end" in dataset.coords:
        has_ended = dataset["time"] >= dataset["t_end"] - 1e-6 * step
        ended = {name: dataset[name].where(~has_ended, fills[name]) for name in fills if name in dataset}
        dataset = dataset.assign({name: array.astype(dataset[name].dtype) for name, array in ended.items()})
        t_end = dataset["t_end"]
        dataset = dataset.assign_coords(t_end=(t_end.dims, t_end.values + n_post * step, t_end.attrs))
    padded = _pad(dataset, n_pre, n_post, step, fills)
    padded = squeeze(schema.annotate(padded, kind))
    return provenance.add(padded, "pad_grey", {**durations, "luminance": grey})


def _in_float(dataset: xr.Dataset) -> xr.Dataset:
    """Movie of uint8 as float32 from 0 to 1."""
    luminance = dataset["luminance"]
    if luminance.dtype != np.uint8:
        return dataset
    scaled = (luminance.astype(np.float32) / np.float32(255)).assign_attrs(luminance.attrs)
    return dataset.assign(luminance=scaled)


def _with_stimulus_end(dataset: xr.Dataset, step: float) -> xr.Dataset:
    """Add ``t_stim``, the end of each sample, unless it is known or lies before time 0."""
    end = float(dataset["time"][-1]) + step
    ends = dataset["t_end"].values if "t_end" in dataset.coords else np.full(dataset.sizes["sample"], end)
    if "t_stim" in dataset.coords or (ends <= 0).any():
        return dataset
    return dataset.assign_coords(t_stim=("sample", np.minimum(ends, end)))


def _pad(dataset: xr.Dataset, n_pre: int, n_post: int, step: float, fills: dict[str, float]) -> xr.Dataset:
    """Pad all variables along time, with NaN where no value is given for them."""
    time = dataset["time"].values
    before, after = time[0] - step * np.arange(n_pre, 0, -1), time[-1] + step * np.arange(1, n_post + 1)
    variables: dict[Any, xr.Variable] = {}
    for name, variable in dataset.variables.items():
        if "time" not in variable.dims or name == "time":
            continue
        fill = fills.get(str(name))
        variables[name] = variable.pad({"time": (n_pre, n_post)}, mode="constant", constant_values=fill)
    whole = xr.Variable("time", np.concatenate([before, time, after]), dataset["time"].attrs)
    padded_coords = {name: variable for name, variable in variables.items() if name in dataset.coords}
    data_vars = {name: variable for name, variable in variables.items() if name not in dataset.coords}
    return dataset.drop_dims("time").assign(data_vars).assign_coords({**padded_coords, "time": whole})
