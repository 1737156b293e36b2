"""The order of FlyGym's ommatidia, and that of the columns here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from flyxr import hexgrid
from flyxr.arguments import shorten
from flyxr.errors import InputError, Problem

if TYPE_CHECKING:
    from numpy.typing import NDArray

_EXTENT = 15
"""Extent of FlyGym's eyes, of 721 ommatidia each."""


def from_flygym(readouts: Any) -> NDArray[np.float32]:
    """Convert what FlyGym's eyes see to luminance in the columns here.

    Parameters
    ----------
    readouts : (..., ommatidium, channel) or (..., ommatidium)
        Intensities of FlyGym's 721 ommatidia, such as ``observation["vision"]`` (eye, ommatidium, channel) of FlyGym 1,
        left eye first. Of the two channels, yellow and pale, an ommatidium fills one, and the other is 0.

    Returns
    -------
    (..., column)
        Luminance, 0 to 1, float32, with the scene upright: what FlyGym's camera has on the left or above has the
        smallest ``x_column`` or the largest ``y_column``.

    Raises
    ------
    InputError
        A ValueError. If there are not 721 ommatidia.

    Notes
    -----
    FlyGym numbers its ommatidia from left to right, and from top to bottom in each line (``Retina.ommatidia_id_map``,
    which is the same in FlyGym 1.2, 2.1 and flygym-gymnasium 1.3). Columns here go by u, then by v. Both lattices have
    the same size and orientation, so the values are only put in another order. The larger of the two channels is
    taken, as FlyGym's own example of a connectome-constrained network does.

    Examples
    --------
    >>> import flyxr as fx
    >>> readouts = np.zeros((2, 721, 2))
    >>> readouts[:, 0] = 1  # the top of the leftmost line
    >>> luminance = fx.eye.from_flygym(readouts)
    >>> luminance.shape
    (2, 721)
    >>> x, y = hexgrid.positions(*hexgrid.columns(15))
    >>> bool(x[luminance[0] == 1] == x.min()), y[luminance[0] == 1].item()
    (True, 7.5)
    """
    values, n_columns = _numbers(readouts), hexgrid.n_columns(_EXTENT)
    if values.ndim > 1 and values.shape[-2:] == (n_columns, 2):
        values = values.max(axis=-1)
    elif values.ndim == 0 or values.shape[-1] != n_columns:
        raise InputError(
            Problem(
                f"expected readouts of shape (..., {n_columns}, 2) or (..., {n_columns}), got {values.shape}",
                'give observation["vision"] of FlyGym',
            )
        )
    luminance = np.empty_like(values)
    luminance[..., _column_of_ommatidium()] = values
    return luminance


def to_flygym(values: Any) -> NDArray[np.float32]:
    """Put values of the columns here in the order of FlyGym's ommatidia, to show them on its retina.

    Parameters
    ----------
    values : (..., column)
        Luminance or responses in the 721 columns.

    Returns
    -------
    (..., ommatidium)
        For ``Retina.hex_pxls_to_human_readable``, with ommatidia as its first axis.

    Raises
    ------
    InputError
        A ValueError. If there are not 721 columns.

    Examples
    --------
    >>> import flyxr as fx
    >>> values = np.arange(721)
    >>> np.array_equal(fx.eye.from_flygym(fx.eye.to_flygym(values)), values)
    True
    """
    array, n_columns = _numbers(values), hexgrid.n_columns(_EXTENT)
    if array.ndim == 0 or array.shape[-1] != n_columns:
        text = f"expected values of shape (..., {n_columns}), got {array.shape}"
        raise InputError(Problem(text, "FlyGym has eyes of extent 15"))
    return array[..., _column_of_ommatidium()]


def _numbers(values: Any) -> NDArray[np.float32]:
    try:
        return np.asarray(values, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise InputError(f"expected an array of numbers, got {shorten(values)}") from error


def _column_of_ommatidium() -> NDArray[np.int64]:
    """Column of each of FlyGym's ommatidia: v goes from left to right, u from top to bottom."""
    u, v = hexgrid.columns(_EXTENT)
    return np.lexsort((u, v))
