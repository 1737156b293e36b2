"""The size of responses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flyxr.tuning import base

if TYPE_CHECKING:
    import xarray as xr


def response_norm(responses: xr.Dataset | xr.DataArray, *, rectified: bool = False) -> xr.Dataset:
    """Root mean square of each cell type's responses, which makes the responses of models comparable.

    Parameters
    ----------
    responses
        Responses to stimuli that drive all cells, such as natural movies.
    rectified
        Set negative responses to 0 first.

    Returns
    -------
    Dataset
        ``response_norm`` (model, cell_type), a.u.

    Raises
    ------
    SchemaError
        If ``responses`` is not responses.

    Notes
    -----
    sqrt of the mean over samples and frames of V². Lappalainen et al. 2024, Methods; flyvis ``responses_norm``.
    Frames that are NaN, after the end of a shorter sample, are ignored. flyvis counts them as 0, which makes the norm
    of samples of different lengths too small.

    Examples
    --------
    >>> import xarray as xr
    >>> response_norm(xr.DataArray([[1.0, 7.0]], dims=("sample", "time"))).response_norm.item()
    5.0
    """
    array, squeeze = base.central_responses(responses)
    if rectified:
        array = array.clip(min=0)
    # float64, to sum the squares of many frames
    norm = (array.astype(float) ** 2).mean(["sample", "time"]) ** 0.5
    return base.wrap({"response_norm": norm}, responses, "response_norm", {"rectified": rectified}, squeeze)
