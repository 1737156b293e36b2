"""The state of a view, and the address that holds it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode

import numpy as np
import param

from flyxr.arguments import shorten

if TYPE_CHECKING:
    from flyxr.viz.browser_reading import Reader

DEFAULT_TYPE = "T4c"
"""Cell type that is shown first, if it was recorded."""

NONE = -1
"""Position of no sample."""

MAX_FIELDS = 10_000
"""Largest number of fields of an address."""


class View(param.Parameterized):
    """What a page shows, as positions in the responses.

    Examples
    --------
    >>> view = View(models=[2])
    >>> view.cell_type, view.compare, view.models
    (0, -1, [2])
    """

    cell_type = param.Integer(0, bounds=(0, None))
    sample = param.Integer(0, bounds=(0, None))
    compare = param.Integer(NONE, bounds=(NONE, None), doc="second sample, or -1 for none")
    models = param.List(default=[0], item_type=int)
    time = param.Integer(0, bounds=(0, None))
    column = param.Integer(0, bounds=(0, None))

    def __init__(self, **values: Any) -> None:
        initialise: Any = super().__init__
        initialise(**values)


def default_view(reader: Reader) -> dict[str, Any]:
    """Return the view that opens first: T4c in the best model, motion upward beside motion downward if there is any."""
    coords = reader.response.coords
    errors = np.array([np.nan])
    if "task_error" in coords and coords["task_error"].dims == ("model",):
        errors = coords["task_error"].values.astype(float)
    angles = coords.get("angle")
    sample = 0
    if angles is not None and angles.dims == ("sample",) and angles.dtype.kind in "fiu":
        sample = int(np.argmax(np.isclose(angles.values.astype(float), 90)))
    opposite = reader.opposite(sample)
    return {
        "cell_type": reader.cell_types.index(DEFAULT_TYPE) if DEFAULT_TYPE in reader.cell_types else 0,
        "sample": sample,
        "compare": NONE if opposite is None else opposite,
        "models": [int(np.nanargmin(errors)) if np.isfinite(errors).any() else 0],
        "time": reader.times.size // 2,
        "column": reader.central_column,
    }


def format_address(view: dict[str, Any], reader: Reader) -> str:
    """Query of a view, with labels instead of positions.

    Examples
    --------
    >>> from flyxr.testing import random_rendering
    >>> from flyxr.viz.browser_reading import Reader
    >>> import xarray as xr
    >>> responses = random_rendering().luminance.expand_dims(cell_type=["T4c"], model=[7]).rename("response")
    >>> reader = Reader(responses)
    >>> format_address(default_view(reader), reader)
    '?cell_type=T4c&sample=0&compare=&model=7&time=0.03&column=9'
    >>> parse_address("?cell_type=T4c&model=7&time=0.031&column=x", reader)
    ({'cell_type': 0, 'models': [0], 'time': 3}, ["column 'x'"])
    """
    query = [
        ("cell_type", reader.cell_types[view["cell_type"]]),
        ("sample", reader.samples[view["sample"]]),
        ("compare", reader.samples[view["compare"]] if view["compare"] != NONE else ""),
        *(("model", reader.models[position]) for position in view["models"]),
        ("time", f"{reader.times[view['time']]:.6g}"),
        ("column", reader.columns[view["column"]]),
    ]
    return "?" + urlencode(query)


def parse_address(search: str, reader: Reader) -> tuple[dict[str, Any], list[str]]:
    """Part of a view that a query holds, and the labels in it that the responses lack."""
    try:
        query = parse_qs(search.removeprefix("?"), keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        return {}, [f"more than {MAX_FIELDS} fields"]
    labels = {
        "cell_type": reader.cell_types,
        "sample": reader.samples,
        "compare": reader.samples,
        "model": reader.models,
        "column": reader.columns,
    }
    view: dict[str, Any] = {}
    unknown: list[str] = []
    for name, known in labels.items():
        texts = query.get(name, [])
        positions = {text: position for position, text in enumerate(known)} if texts else {}
        if name == "compare":
            positions |= {"": NONE} if texts else {}
        found = list(dict.fromkeys(positions[text] for text in texts if text in positions))
        unknown += [f"{name} {shorten(text)}" for text in texts if text not in positions][:3]
        if found:
            view["models" if name == "model" else name] = found if name == "model" else found[0]
    for text in query.get("time", [])[:1]:
        try:
            distance = np.abs(reader.times - float(text))
        except ValueError:
            distance = np.array([np.nan])
        if np.isnan(distance).any():
            unknown.append(f"time {shorten(text)}")
        else:
            view["time"] = int(np.argmin(distance))
    return view, unknown
