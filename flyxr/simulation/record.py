"""The record of a simulation: cell types, columns and times, as users write them and as positions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from flyxr import schema
from flyxr.arguments import as_int, as_seconds, plain_items, shorten
from flyxr.errors import InputError, Problem, raise_problems
from flyxr.selection import central, match_cell_types

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

CENTRAL = "central"


class Recorded(NamedTuple):
    """Positions of the recorded cell types, columns and frames."""

    cell_types: NDArray[np.int64]
    columns: NDArray[np.int64]
    frames: NDArray[np.int64]


@dataclass(frozen=True)
class Record:
    """What to record of a simulation; nothing else is held in memory or written.

    Parameters
    ----------
    cell_type
        Names or glob patterns such as ``"T4*"``, in any iterable; default: all cell types. The order is kept and
        duplicates are dropped.
    column
        Labels of columns in any iterable, or ``"central"`` for the column u = v = 0; default: all columns. The order
        is kept and duplicates are dropped.
    time
        A slice in s, or of durations such as ``"10ms"``, with both ends included and its step in frames, at least 1;
        default: all frames.

    Raises
    ------
    InputError
        A ValueError. If something cannot be recorded, or nothing is selected.

    Examples
    --------
    >>> Record(cell_type="T4*", column="central")
    Record(cell_type=('T4*',), column='central', time=slice(None, None, 1))
    """

    cell_type: Any = None
    column: Any = None
    time: Any = None

    def __post_init__(self) -> None:
        problems: list[str | Problem] = []
        for name, convert in (("cell_type", _cell_types), ("column", _columns), ("time", _time)):
            try:
                object.__setattr__(self, name, convert(getattr(self, name)))
            except InputError as error:
                problems += error.problems
        raise_problems(InputError, "", problems)

    @classmethod
    def take(cls, value: Any) -> Record:
        """Convert text, names or a mapping to a record.

        Raises
        ------
        InputError
            A ValueError. If the argument has no such form.

        Examples
        --------
        >>> Record.take("central").column, Record.take(name for name in ("T4c", "L1")).cell_type
        ('central', ('T4c', 'L1'))
        """
        if isinstance(value, cls):
            return value
        if isinstance(value, str) and value in ("all", CENTRAL):
            return cls() if value == "all" else cls(column=CENTRAL)
        if isinstance(value, Mapping):
            known = ["cell_type", "column", "time"]
            if not set(value) <= set(known):
                unknown = sorted(map(str, set(value) - set(known)))
                raise InputError(f"expected record with any of {known}, got {unknown}")
            return cls(**value)
        if isinstance(value, Iterable):
            return cls(cell_type=value)
        raise InputError(
            f"expected record as 'all', 'central', names of cell types, or a dict or fx.Record with any of cell_type, "
            f"column and time, got {value!r}"
        )

    def resolve(self, rendering: xr.Dataset, connectome: xr.Dataset) -> Recorded:
        """Positions of the recorded cell types, columns and frames.

        Raises
        ------
        UnknownCellTypeError
            A KeyError. If names match no cell type.
        InputError
            A ValueError. If the rendering lacks a column, or has no frame within the time.
        """
        available = connectome["cell_type"].values.tolist()
        names = available if self.cell_type is None else match_cell_types(self.cell_type, available)
        labels, time = pd.Index(rendering["column"].values), rendering["time"].values
        if self.column is None:
            columns = np.arange(labels.size)
        elif self.column == CENTRAL:
            columns = labels.get_indexer([central(rendering["column"]).item()])
        else:
            columns = labels.get_indexer(list(self.column))
        if (columns < 0).any():
            unknown = [label for label, position in zip(self.column, columns, strict=True) if position < 0]
            bounds = f"from {labels.min()} to {labels.max()}"
            raise InputError(f"expected columns in record {bounds}, or 'central', got {unknown[:5]}")
        tolerance = 1e-6 * schema.time_step(rendering)
        is_within = np.ones(time.size, dtype=bool)
        if self.time.start is not None:
            is_within &= time >= self.time.start - tolerance
        if self.time.stop is not None:
            is_within &= time <= self.time.stop + tolerance
        frames = np.flatnonzero(is_within)[:: self.time.step]
        if not frames.size:
            raise InputError(
                f"record selects nothing: no frame from {self.time.start} s to {self.time.stop} s, time is from "
                f"{time[0]:g} s to {time[-1]:g} s"
            )
        types = np.array([available.index(name) for name in names], dtype=np.int64)
        return Recorded(types, np.asarray(columns, dtype=np.int64), frames)


def describe(recorded: Recorded, rendering: xr.Dataset, connectome: xr.Dataset) -> dict[str, Any]:
    """Describe a record for provenance: labels, or ``"all"``; for time, the first frame, the last and the step, s."""
    types, time = connectome["cell_type"].values, rendering["time"].values
    frames = time[recorded.frames]
    step = schema.time_step(rendering) * (int(np.diff(recorded.frames[:2])[0]) if frames.size > 1 else 1)
    lengths = (types.size, rendering.sizes["column"], time.size)
    all_types, all_columns, all_frames = (
        np.array_equal(positions, np.arange(length)) for positions, length in zip(recorded, lengths, strict=True)
    )
    return {
        "cell_type": "all" if all_types else types[recorded.cell_types].tolist(),
        "column": "all" if all_columns else recorded.columns.tolist(),
        "time": "all" if all_frames else [float(frames[0]), float(frames[-1]), step],
    }


def _cell_types(value: Any) -> tuple[str, ...] | None:
    """Names, each once; None for all cell types."""
    if value is None:
        return None
    names = plain_items([value] if isinstance(value, str) else value) if isinstance(value, Iterable) else [value]
    if not names:
        raise InputError("record selects nothing: no cell types are named")
    if not all(isinstance(name, str) for name in names):
        raise InputError(f"expected cell types in record as names, got {shorten(names)}")
    return tuple(dict.fromkeys(names))


def _columns(value: Any) -> tuple[int, ...] | str | None:
    """Labels of columns, each once, or ``"central"``; None for all columns."""
    if value is None or (isinstance(value, str) and value == CENTRAL):
        return value
    is_several = isinstance(value, Iterable) and not isinstance(value, str) and getattr(value, "shape", None) != ()
    items = list(value) if is_several else [value]
    columns = [as_int(item) for item in items]
    if None in columns:
        raise InputError(f"expected columns in record as integers, or 'central', got {shorten(value)}")
    if not columns:
        raise InputError("record selects nothing: no columns are named")
    return tuple(column for column in dict.fromkeys(columns) if column is not None)


def _time(value: Any) -> slice:
    """Slice with its ends in s, as float, and its step in frames, at least 1."""
    value = slice(None) if value is None else value
    if isinstance(value, slice):
        start, stop = (None if end is None else _seconds(end) for end in (value.start, value.stop))
        step = 1 if value.step is None else as_int(value.step)
        if step is not None and step >= 1 and not any(end is not None and math.isnan(end) for end in (start, stop)):
            return slice(start, stop, step)
    raise InputError(f"expected record['time'] as a slice in s (its step in frames, at least 1), got {shorten(value)}")


def _seconds(value: Any) -> float:
    """A duration in s; NaN for anything else."""
    seconds = as_seconds(value)
    return math.nan if seconds is None else seconds
