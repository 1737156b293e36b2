"""From the frame rate of a movie to the integration step of a network."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from flyxr import provenance, schema
from flyxr.arguments import Arguments

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from flyxr.arguments import Duration


def resample(data: xr.Dataset | xr.DataArray, dt: Duration) -> xr.Dataset:
    """Resample a rendering or movie from its frame rate to an integration step.

    Frames are repeated or skipped, not interpolated.

    Parameters
    ----------
    data
        Rendering (sample, time, column) or movie (sample, time, y, x).
    dt
        Integration step, s, or a duration such as ``"10ms"``. A step longer than a frame skips frames.

    Returns
    -------
    Dataset
        The same data with ``time`` in steps of ``dt`` from its first value on; lazy if ``data`` is. The frames are
        those of :func:`temporal_sample_indices`. Dims that were selected away stay away; a single frame that is shown
        for several steps has the dim ``time``.

    Raises
    ------
    SchemaError
        If ``data`` is neither a rendering nor a movie.
    ValueError
        If ``dt`` is not positive.

    Examples
    --------
    >>> from flyxr.stimuli import from_array
    >>> movie = from_array(np.zeros((1, 3, 8, 8)), frame_rate=50)
    >>> resample(movie, dt=1 / 100).time.values
    array([0.  , 0.01, 0.02, 0.03, 0.04, 0.05])
    """
    arguments = Arguments()
    step = arguments.duration("dt", dt)
    arguments.raise_problems()
    kind = schema.stimulus_kind(data)
    dataset, squeeze = schema.expand(data, kind, integer_luminance=True)
    frames = temporal_sample_indices(dataset.sizes["time"], 1 / schema.time_step(dataset), step)
    time = schema.time_coord(frames.size, step, float(dataset["time"][0]))
    resampled = dataset.isel(time=frames).assign_coords(time=time)
    return provenance.add(squeeze(schema.annotate(resampled, kind)), "resample", {"dt": step})


def temporal_sample_indices(n_frames: int, frame_rate: float, dt: Duration) -> NDArray[np.int64]:
    """Index of the frame that each integration step shows.

    Equal to ``flyvis.datasets.augmentation.temporal.get_temporal_sample_indices`` over all frames with
    ``augment=False``: the frame at the start of each step, cut to an integer after rounding to float32.

    Parameters
    ----------
    n_frames
        Number of frames, at least 1.
    frame_rate
        Frames per second.
    dt
        Integration step, s.

    Returns
    -------
    (time,) int

    Raises
    ------
    ValueError
        If one of the arguments is not positive.

    Examples
    --------
    >>> temporal_sample_indices(3, frame_rate=24, dt=1 / 50)
    array([0, 0, 0, 1, 1, 2, 2])
    """
    arguments = Arguments()
    n_frames = arguments.integer("n_frames", n_frames, least=1)
    rate, seconds = arguments.frame_rate(frame_rate), arguments.duration("dt", dt)
    arguments.raise_problems()
    step = seconds * rate
    # quirk: a millionth of a frame is cut from the end, so that whole ratios don't gain a step by rounding
    count = math.ceil((n_frames - 1e-6) / step)
    # quirk: float32, which rounds 6.99999999 up to 7; never past the last frame
    indices = (np.arange(count) * step).astype(np.float32).astype(np.int64)
    return np.minimum(indices, n_frames - 1)
