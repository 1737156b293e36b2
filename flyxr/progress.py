"""Progress bars: what is computed, how far it is, and how long it takes; silent where nobody watches."""

from __future__ import annotations

import sys
import warnings
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

DELAY = 1.0
"""Time before a bar is shown, so that short computations have none, s."""


def is_watched() -> bool:
    """Whether somebody sees a bar: in a terminal or a notebook, and not where errors go to a file or a pipe."""
    ipython = sys.modules.get("IPython")
    if ipython is not None and hasattr(ipython.get_ipython(), "kernel"):
        return True
    return sys.stderr is not None and sys.stderr.isatty()


def progress_bar(
    description: str,
    iterable: Iterable[Any] | None = None,
    *,
    total: int | None = None,
    unit: str,
    initial: int = 0,
    delay: float | None = None,
    is_wanted: bool = True,
) -> Any:
    """Progress bar of tqdm, with the time that is left; its methods do nothing if it is not shown.

    Parameters
    ----------
    description
        What is computed.
    iterable
        What to go through, if the bar is not updated by hand.
    total
        Number of units, if the iterable does not tell.
    unit
        Name of a unit; of ``"B"``, bytes, large numbers have prefixes.
    initial
        Units that were done before.
    delay
        Time before the bar is shown, s; default: ``DELAY``.
    is_wanted
        Whether the caller asked for it.

    Examples
    --------
    >>> list(progress_bar("count", range(3), unit="number"))
    [0, 1, 2]
    """
    from tqdm import tqdm

    return tqdm(
        iterable,
        description,
        total,
        unit=unit,
        unit_scale=unit == "B",
        initial=initial,
        delay=DELAY if delay is None else delay,
        disable=not (is_wanted and is_watched()),
        dynamic_ncols=True,
    )


def dask_progress_bar(description: str) -> Any:
    """Context in which dask's own schedulers show a progress bar over their tasks.

    Examples
    --------
    >>> from dask import delayed
    >>> with dask_progress_bar("add"):
    ...     delayed(sum)([1, 2]).compute()
    3
    """
    from tqdm import tqdm

    if not is_watched():
        return nullcontext()
    with without_widgets():
        from tqdm.dask import TqdmCallback
    return TqdmCallback(tqdm_class=tqdm, desc=description, delay=DELAY, unit="task", dynamic_ncols=True)


@contextmanager
def without_widgets() -> Iterator[None]:
    """Import a package that has ``tqdm.auto``, which warns in a notebook without ipywidgets; bars here are text.

    Examples
    --------
    >>> with without_widgets():
    ...     import tqdm.auto
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "IProgress not found")
        yield
