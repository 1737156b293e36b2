"""The IPython extension of flyxr, ``%load_ext flyxr``.

It shows what a Dataset holds above xarray's own table, and pictures as images. An image needs no script, server or
network, so that it stays in the file, and is there on GitHub, in an exported page and in a site of documentation.
"""

from __future__ import annotations

import base64
from contextlib import suppress
from typing import Any
from weakref import WeakKeyDictionary

import xarray as xr

from flyxr.errors import FlyxrError

_replaced: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
"""What showed Datasets before, by the formatter of each shell."""

PICTURE = ("holoviews.core.dimension", "Dimensioned")
"""Module and name of the class of all pictures of HoloViews, which is not loaded for it."""


def show_overviews(ipython: Any) -> None:
    """Let a shell of IPython show Datasets with :func:`flyxr.viz.overview.overview_html`.

    xarray's classes and options are left alone; :func:`restore` undoes it.
    """
    formatter = ipython.display_formatter.formatters["text/html"]
    earlier = formatter.for_type(xr.Dataset, _show)
    if earlier is not _show:
        _replaced[formatter] = earlier


def show_images(ipython: Any) -> None:
    """Let a shell show pictures of HoloViews as images, unless ``hv.extension`` has it show them with scripts."""
    ipython.display_formatter.mimebundle_formatter.for_type_by_name(*PICTURE, _show_image)


def restore(ipython: Any) -> None:
    """Let a shell show Datasets and pictures as it did before."""
    bundles = ipython.display_formatter.mimebundle_formatter
    with suppress(KeyError):
        if bundles.lookup_by_type(".".join(PICTURE)) is _show_image:
            bundles.pop(".".join(PICTURE))
    formatter = ipython.display_formatter.formatters["text/html"]
    if formatter.for_type(xr.Dataset) is not _show:
        return
    formatter.pop(xr.Dataset)
    if (earlier := _replaced.pop(formatter, None)) is not None:
        formatter.for_type(xr.Dataset, earlier)


def _show(data: xr.Dataset) -> str:
    from flyxr.viz.overview import overview_html

    return overview_html(data)


def _show_image(picture: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Data and metadata of a picture by MIME type."""
    from flyxr.viz.writing import image

    data, metadata = picture._repr_mimebundle_()
    if data:  # of hv.extension
        return data, metadata
    try:
        png, width, height = image(picture)
    except FlyxrError:  # a picture without frames, whose text is shown
        return {}, {}
    return {"image/png": base64.b64encode(png).decode()}, {"image/png": {"width": width, "height": height}}
