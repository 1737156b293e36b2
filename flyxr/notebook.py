"""The IPython extension of flyxr: ``%load_ext flyxr`` shows what a Dataset holds above xarray's own table."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import xarray as xr

_replaced: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
"""What showed Datasets before, by the formatter of each shell."""


def show_overviews(ipython: Any) -> None:
    """Let a shell of IPython show Datasets with :func:`flyxr.viz.overview.overview_html`.

    xarray's classes and options are left alone; :func:`restore` undoes it.
    """
    formatter = ipython.display_formatter.formatters["text/html"]
    earlier = formatter.for_type(xr.Dataset, _show)
    if earlier is not _show:
        _replaced[formatter] = earlier


def restore(ipython: Any) -> None:
    """Let a shell show Datasets as it did before :func:`show_overviews`."""
    formatter = ipython.display_formatter.formatters["text/html"]
    if formatter.for_type(xr.Dataset) is not _show:
        return
    formatter.pop(xr.Dataset)
    if (earlier := _replaced.pop(formatter, None)) is not None:
        formatter.for_type(xr.Dataset, earlier)


def _show(data: xr.Dataset) -> str:
    from flyxr.viz.overview import overview_html

    return overview_html(data)
