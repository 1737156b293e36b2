"""Connections between cell types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import holoviews as hv
import numpy as np
import pandas as pd

from flyxr import hexgrid, schema
from flyxr.arguments import Arguments
from flyxr.connectome import open_connectome
from flyxr.errors import InputError, Problem
from flyxr.viz import colours, elements
from flyxr.viz.hexagons import Hexagons

if TYPE_CHECKING:
    from collections.abc import Iterable

    import xarray as xr
    from numpy.typing import NDArray

SYNAPSES = "signed synapses"
"""Number of synapses times their sign, positive for excitation."""

LEVEL = "level"
"""Colour of the matrix: sign(n) * log10(1 + |n|) for n signed synapses."""

TICKS = (0, 1, 3, 10, 30, 100, 300, 1000)
"""Numbers of synapses that the colour bar of the matrix may show."""

PANEL_HEIGHT, MATRIX_HEIGHT = 180, 850
"""Default heights, screen pixels."""


def connectivity(
    connectome: xr.Dataset | None = None,
    source: str | Iterable[str] | None = None,
    target: str | Iterable[str] | None = None,
    *,
    height: int | None = None,
    columns: int = 4,
) -> Any:
    """Draw the connections between cell types: the matrix of all, or receptive fields in columns.

    One name as source or target draws receptive fields, a picture for each pair of cell types that is connected. Each
    picture is the field of one cell of the target, in the middle: the hexagon of a column has the synapses that the
    target cell gets from the source cell in that column, red for excitation and blue for inhibition. As elsewhere, x
    points to the right and y upward, as the eye sees the scene. The connectome counts du and dv from the source to the
    target, so a synapse of offset (du, dv) is drawn at (-du, -dv). Columns without a synapse are grey.

    Otherwise, the matrix has a row for each source and a column for each target. Its colour is the number of synapses
    of one target cell with all cells of the source, on a scale that is linear near 0 and logarithmic beyond, so that
    few large numbers do not hide the others. Pairs without a connection are white.

    Parameters
    ----------
    connectome
        A connectome, see :func:`flyxr.open_connectome`. None takes the connectome of the package.
    source, target
        Cell types to draw. None takes all. One name draws receptive fields, a list restricts the matrix, in its order.
    height
        Height of a picture, screen pixels. None takes 180 for a receptive field and up to 850 for a matrix.
    columns
        Receptive fields per row.

    Returns
    -------
    holoviews.HeatMap, Hexagons or holoviews.Layout
        The matrix, or the receptive field of a pair. A Layout has a receptive field for each pair, on one colour scale,
        the pairs of most synapses first.

    Raises
    ------
    ValueError
        If the data is no connectome, a cell type is unknown, none of the cell types are connected, or an argument is
        out of range.

    Examples
    --------
    >>> from flyxr.testing import tiny_connectome
    >>> connectivity(tiny_connectome())
    :HeatMap   [target,source]   (level,signed synapses,offsets)
    >>> field = connectivity(tiny_connectome(), source="L", target="T")
    >>> dict(zip(zip(field["u"].tolist(), field["v"].tolist()), field["signed synapses"].tolist()))
    {(-1, 0): 2.0, (-1, 1): nan, (0, -1): nan, (0, 0): 2.0, (0, 1): 2.0, (1, -1): nan, (1, 0): nan}
    """
    dataset = open_connectome() if connectome is None else connectome
    dataset = schema.in_memory(schema.validate(dataset, "connectome"))
    types = [str(name) for name in dataset["cell_type"].values]
    arguments = Arguments()
    sources, targets = (_choose(arguments, *item, types) for item in (("source", source), ("target", target)))
    columns = arguments.integer("columns", columns, least=1)
    height = None if height is None else arguments.integer("height", height, least=1)
    arguments.raise_problems()
    table = _table(dataset)
    chosen = table[table["source"].isin(sources) & table["target"].isin(targets)]
    if chosen.empty:
        raise InputError(_absent(table, sources, targets))
    elements.load_backend()
    if isinstance(source, str) or isinstance(target, str):
        pairs = [(str(names[0]), str(names[1]), pair) for names, pair in chosen.groupby(["source", "target"])]
        pairs.sort(key=lambda pair: -abs(pair[2][SYNAPSES].sum()))
        return _fields(pairs, height or PANEL_HEIGHT, columns)
    return _matrix(chosen, sources, targets, height)


def _choose(arguments: Arguments, name: str, value: Any, types: list[str]) -> list[str]:
    """Names of cell types, all if None; notes those that are unknown."""
    if value is None:
        return types
    names = arguments.names(name, value)
    unknown = [item for item in names if item not in types]
    if unknown:
        text = f"expected {name} among the {len(types)} cell types of the connectome, got {', '.join(unknown)}"
        arguments.problems.append(Problem(text, "see connectome.cell_type"))
    return names


def _table(dataset: xr.Dataset) -> pd.DataFrame:
    """A row for each pair of cell types and offset."""
    pair = dataset["synapse_pair"].values.astype(int)
    # A connectome that was selected from another keeps the labels of its pairs.
    position = pd.Index(dataset["pair"].values).get_indexer(pair)
    table = pd.DataFrame(
        {name: dataset[name].values for name in ("du", "dv", "n_synapses", "filled")}
        | {name: dataset[name].values[position].astype(str) for name in ("source", "target")}
        | {"sign": dataset["sign"].values[position]}
    )
    table[SYNAPSES] = table["sign"] * table["n_synapses"]
    known: pd.DataFrame = table[position >= 0]
    return known


def _absent(table: pd.DataFrame, sources: list[str], targets: list[str]) -> Problem:
    """What is wrong if none of the sources are connected to any of the targets, and what is connected."""
    inputs = table["source"][table["target"].isin(targets)].unique().tolist()
    outputs = table["target"][table["source"].isin(sources)].unique().tolist()
    hints = [
        f"{direction} {', '.join(names[:12])}{', …' if len(names) > 12 else ''}"
        for direction, names in (("sources of the target are", inputs), ("targets of the source are", outputs))
        if names
    ]
    text = f"expected cell types that are connected, got none from {_enumerate(sources)} to {_enumerate(targets)}"
    return Problem(text, "; ".join(hints) or "choose others")


def _enumerate(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 5 else f"{len(names)} cell types"


def _matrix(table: pd.DataFrame, sources: list[str], targets: list[str], height: int | None) -> hv.HeatMap:
    """Sum of the synapses of each pair, with the sources from top to bottom."""
    totals = table.groupby(["source", "target"]).agg(**{SYNAPSES: (SYNAPSES, "sum"), "offsets": (SYNAPSES, "size")})
    totals = totals.reset_index()
    values = totals[SYNAPSES].to_numpy(float)
    level = _level(values)
    reach = float(abs(level).max()) or 1.0
    data = (totals["target"].to_numpy(), totals["source"].to_numpy(), level, values, totals["offsets"].to_numpy())
    element = hv.HeatMap(data, ["target", "source"], [hv.Dimension(LEVEL, range=(-reach, reach)), SYNAPSES, "offsets"])
    height = height or min(13 * len(sources) + 20, MATRIX_HEIGHT)
    width = max(round(height * len(targets) / len(sources)), 40)
    scale = colours.ColourScale(colours.DIVERGING, (-reach, reach), 0.0)
    options = {
        **elements.scale_style(scale, "synapses, excitatory (+) or inhibitory (−)"),
        "clipping_colors": {"NaN": "transparent"},
        "colorbar_opts": {"width": 12, **_colour_bar_ticks(reach)},
        "title": "synapses of one target cell (logarithmic colours)",
        "frame_height": height,
        "frame_width": width,
        "xrotation": 90,
        "fontsize": {"xticks": 8, "yticks": 8},
        "xlabel": "target",
        "ylabel": "source",
        "hover_tooltips": ["source", "target", SYNAPSES, "offsets"],
        "tools": ["hover"],
    }
    # A Bokeh axis of categories begins at the bottom.
    order = {"target": targets, "source": sources[::-1]}
    return element.redim.values(**order).opts(hv.opts.HeatMap(**options, backend="bokeh"))


def _level(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Signed logarithm that is linear near 0."""
    return np.asarray(np.sign(values) * np.log10(1 + np.abs(values)))


def _colour_bar_ticks(reach: float) -> dict[str, Any]:
    """Ticks of a colour bar from -reach to reach levels, labelled in synapses."""
    from bokeh.models import FixedTicker

    numbers = sorted({sign * number for number in TICKS for sign in (-1, 1)})
    ticks = {float(level): f"{n:g}" for n, level in zip(numbers, _level(np.array(numbers)), strict=True)}
    ticks = {level: label for level, label in ticks.items() if abs(level) <= reach}
    return {"ticker": FixedTicker(ticks=list(ticks)), "major_label_overrides": ticks}


def _fields(pairs: list[tuple[str, str, pd.DataFrame]], height: int, columns: int) -> Any:
    """Receptive field of each pair, on one lattice and one colour scale."""
    offsets = np.concatenate([pair[["du", "dv"]].to_numpy() for *_, pair in pairs])
    extent = max(int(np.abs(np.c_[offsets, offsets.sum(axis=1)]).max()), 1)
    column = np.arange(hexgrid.n_columns(extent))
    u, v = hexgrid.columns(extent)
    lattice = elements.Lattice(column, u, v, *hexgrid.positions(u, v))
    reach = max(float(abs(pair[SYNAPSES]).max()) for *_, pair in pairs) or 1.0
    scale = colours.ColourScale(colours.DIVERGING, (-reach, reach), 0.0)
    panels = []
    for i, (source, target, pair) in enumerate(pairs):
        has_bar = i == min(columns, len(pairs)) - 1
        style = elements.hexagon_style(lattice, scale, SYNAPSES if has_bar else "", height)
        panels.append(_field(pair, lattice, scale.clim).relabel(f"{source} to {target}").opts(style))
    return panels[0] if len(panels) == 1 else elements.layout(panels, columns)


def _field(pair: pd.DataFrame, lattice: elements.Lattice, clim: tuple[float, float]) -> Hexagons:
    """Synapses of one pair, in the columns of its source cells around the target cell."""
    # Offsets are target minus source, and the target is in the middle.
    extent = int(np.abs(lattice.u).max())
    position = hexgrid.column_index(-pair["du"].to_numpy(), -pair["dv"].to_numpy(), extent)
    values = np.full(lattice.u.size, np.nan)
    values[position] = 0
    np.add.at(values, position, pair[SYNAPSES].to_numpy(float))
    filled = np.full(lattice.u.size, "", dtype=object)
    filled[position] = np.where(pair["filled"], "assumed in a gap", "measured")
    kdims = [hv.Dimension(name) for name in ("x_column", "y_column")]
    vdims = [hv.Dimension(SYNAPSES, range=clim), "u", "v", "du", "dv", "evidence"]
    return Hexagons((lattice.x, lattice.y, values, lattice.u, lattice.v, -lattice.u, -lattice.v, filled), kdims, vdims)
