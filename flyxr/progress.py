"""Progress bars of dask tasks."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from contextlib import AbstractContextManager


def task_bar(description: str, *, delay: float) -> AbstractContextManager[Any]:
    """Show the progress of the dask tasks that are computed in a context, as text.

    Parameters
    ----------
    description
        Text before the bar.
    delay
        Time after which the bar appears, s.

    Examples
    --------
    >>> import dask.array as da
    >>> with task_bar("sum", delay=60):
    ...     int(da.ones(4, chunks=2).sum())
    4
    """
    from tqdm import tqdm

    with warnings.catch_warnings():  # widgets, which are not used here, are missing in a notebook without ipywidgets
        warnings.filterwarnings("ignore", "IProgress not found")
        from tqdm.dask import TqdmCallback
    bar: AbstractContextManager[Any] = TqdmCallback(tqdm_class=tqdm, desc=description, delay=delay, unit="task")
    return bar
