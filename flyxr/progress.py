"""Progress bars, which are text in notebooks, too."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager


@contextmanager
def without_widgets() -> Iterator[None]:
    """Import a package that has ``tqdm.auto``, which warns in a notebook without ipywidgets; flyxr needs none.

    Examples
    --------
    >>> with without_widgets():
    ...     import tqdm.auto
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "IProgress not found")
        yield


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

    with without_widgets():
        from tqdm.dask import TqdmCallback
    bar: AbstractContextManager[Any] = TqdmCallback(tqdm_class=tqdm, desc=description, delay=delay, unit="task")
    return bar
