"""Eyes in front of a frame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flyxr.errors import InputError, Problem
from flyxr.viz import elements

if TYPE_CHECKING:
    from flyxr.eye.base import Eye


def illustrate(eye: Eye, *, height: int | None = None, width: int | None = None) -> Any:
    """Draw the receptive fields of an eye over the frame, as its own method ``illustrate`` does.

    Parameters
    ----------
    eye
        A :class:`flyxr.BoxEye` or a :class:`flyxr.HexEye`.
    height, width
        Size of the frames, pixels; the smallest that the eye renders without resizing if None. A frame that the eye
        resizes is drawn as resized.

    Returns
    -------
    holoviews.Overlay
        Bounds of the frame, the receptive field of each column, and a point for each receptor, with the coordinates
        ``column``, ``u`` and ``v``; x to the right and y upward, in pixels from the lower left corner.

    Raises
    ------
    ValueError
        If this is no eye, or a size is out of range.

    Examples
    --------
    >>> import flyxr as fx
    >>> [type(element).__name__ for element in illustrate(fx.BoxEye(extent=2, kernel_size=5))]
    ['Bounds', 'Rectangles', 'Points']
    """
    if isinstance(eye, type) or not callable(getattr(eye, "illustrate", None)):
        got = f"the class {eye.__name__}" if isinstance(eye, type) else type(eye).__name__
        text = f"expected an eye, such as fx.BoxEye(extent=15, kernel_size=13), got {got}"
        raise InputError(Problem(text, "draw movies with fx.viz.movie, and renderings with fx.viz.hexmap"))
    elements.load_backend()
    return eye.illustrate(height, width)
