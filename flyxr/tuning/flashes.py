"""Measures of responses to flashes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from flyxr import schema
from flyxr.arguments import Arguments
from flyxr.errors import InputError, Problem
from flyxr.tuning import base

if TYPE_CHECKING:
    import xarray as xr

LARGE_RADIUS = 6
"""Radius of the flashes of published indices, columns."""


def flash_response_index(
    responses: xr.Dataset | xr.DataArray,
    radius: float | None = None,
    *,
    on_intensity: float = 1.0,
    off_intensity: float = 0.0,
    nonnegative: bool = True,
) -> xr.Dataset:
    """Preference of each cell type for ON or OFF flashes.

    Parameters
    ----------
    responses
        Responses to flashes on grey, with grey before and after, and the coordinates ``intensity``, ``radius``
        (columns) and ``t_stim`` (s) on ``sample``.
    radius
        Radius of the flashes, columns; -1 for the whole field. Default: 6, or else the largest radius.
    on_intensity, off_intensity
        Luminance of the two flashes to compare.
    nonnegative
        Shift the responses of a cell so that none is negative, by the magnitude of the minimum over both flashes.
        Otherwise the index of a cell with negative responses may leave the range from -1 to 1.

    Returns
    -------
    Dataset
        ``flash_response_index`` (model, cell_type), from -1 (OFF only) to 1 (ON only); 0 for a cell without any
        response.

    Raises
    ------
    SchemaError
        If the responses are not to flashes, or to one sample only.
    InputError
        If an argument is no number, or there are no flashes, or several, of this radius and these intensities.

    Notes
    -----
    With r the peak of the shifted response during the flash,

        FRI = (r_on - r_off) / (r_on + r_off).

    Lappalainen et al. 2024, Methods, flash response index; flyvis ``flash_response_index``. The index does not
    change when the responses are scaled by a positive factor.

    Examples
    --------
    >>> import xarray as xr
    >>> flashes = xr.DataArray(
    ...     [[[0, 0, 1.0], [0, 3.0, 1.0]]], dims=("model", "sample", "time"),
    ...     coords={"time": [-0.1, 0.0, 0.1], "intensity": ("sample", [0.0, 1.0]), "radius": ("sample", [6, 6]),
    ...             "t_stim": ("sample", [0.1, 0.1])})
    >>> flash_response_index(flashes).flash_response_index.values
    array([0.5])
    """
    numbers = Arguments("cannot compute the flash response index")
    on_intensity = numbers.number("on_intensity", on_intensity)
    off_intensity = numbers.number("off_intensity", off_intensity)
    radius = None if radius is None else numbers.number("radius", radius, "columns")
    numbers.raise_problems()
    required = ("intensity", "radius", "t_stim")
    array, squeeze = base.central_responses(
        responses, required, schema.FLASHES, conditions="flashes of both intensities"
    )
    if radius is None:
        radii = array["radius"].values
        radius = LARGE_RADIUS if LARGE_RADIUS in radii else float(radii.max())
    positions = []
    for intensity in (on_intensity, off_intensity):
        is_match = (array["radius"].values == radius) & np.isclose(array["intensity"].values, intensity)
        if is_match.sum() != 1:
            pairs = zip(array["radius"].values.tolist(), array["intensity"].values.tolist(), strict=True)
            text = f"expected one flash of radius {radius:g} and intensity {intensity:g}, got {is_match.sum()} "
            text += f"(radius, intensity: {sorted(set(pairs))})"
            hint = "choose radius=, on_intensity= and off_intensity= from these, and select one duration if there are "
            raise InputError(Problem(text, hint + "several"))
        positions.append(int(np.flatnonzero(is_match)[0]))
    flashes = array.isel(sample=positions)
    # quirk: the first frame after the flash counts, the last frame before it does not
    is_during = base.is_within(flashes, 0.0, flashes["t_stim"])
    flashes = flashes.drop_vars([name for name, coord in array.coords.items() if "sample" in coord.dims])
    is_during = is_during.drop_vars([name for name in is_during.coords if name != "time"])
    peak = base.gather(base.highest(flashes, is_during))
    on_peak, off_peak = peak.isel(sample=0), peak.isel(sample=1)
    if nonnegative:
        # quirk: a minimum above 0 is added, not subtracted; published values depend on it
        shift = abs(base.gather(base.lowest(flashes, is_during)).min("sample", skipna=False))
        on_peak, off_peak = on_peak + shift, off_peak + shift
    total = on_peak + off_peak
    index = ((on_peak - off_peak) / total.where(total != 0)).fillna(0).where(total.notnull())
    index = index.assign_coords(radius=float(radius))
    arguments = {
        "radius": radius,
        "on_intensity": on_intensity,
        "off_intensity": off_intensity,
        "nonnegative": nonnegative,
    }
    return base.wrap({"flash_response_index": index}, responses, "flash_response_index", arguments, squeeze)
