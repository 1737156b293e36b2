"""Connections between cell types: synapses where they belong, and receptive fields as the target sees them."""

from __future__ import annotations

import re
from typing import Any

import holoviews as hv
import numpy as np
import pytest
import xarray as xr

from flyxr import open_connectome, viz
from flyxr.viz.hexagons import Hexagons


@pytest.fixture(scope="module")
def connectome() -> xr.Dataset:
    return open_connectome()


def synapses_of(connectome: xr.Dataset, source: str, target: str) -> dict[tuple[int, int], float]:
    """Signed synapses of a pair by offset (du, dv)."""
    (pair,) = np.flatnonzero((connectome["source"] == source) & (connectome["target"] == target))
    chosen = connectome.isel(synapse=np.flatnonzero(connectome["synapse_pair"] == connectome["pair"][pair]))
    signed = connectome["sign"].values[pair] * chosen["n_synapses"].values
    return dict(zip(zip(chosen["du"].values.tolist(), chosen["dv"].values.tolist(), strict=True), signed, strict=True))


def test_connectivity__matrix_has_all_synapses_of_a_target_cell(connectome: xr.Dataset) -> None:
    picture = viz.connectivity()
    assert isinstance(picture, hv.HeatMap)
    table = picture.dframe().set_index(["source", "target"])
    for source, target in (("Mi1", "T4a"), ("Mi9", "T4a"), ("R1", "L1")):
        expected = sum(synapses_of(connectome, source, target).values())
        assert table.loc[(source, target), "signed synapses"] == pytest.approx(expected)
    assert table.loc[("R1", "L1"), "signed synapses"] < 0 < table.loc[("Mi1", "T4a"), "signed synapses"]


def test_connectivity__matrix_is_in_the_order_that_is_asked_for() -> None:
    figure = hv.render(viz.connectivity(source=["Tm3", "Mi1"], target=["T4b", "T4a"]), backend="bokeh")
    assert list(figure.x_range.factors) == ["T4b", "T4a"]
    assert set(figure.y_range.factors) == {"Tm3", "Mi1"}


def test_connectivity__field_lies_where_the_sources_are(connectome: xr.Dataset) -> None:
    picture = viz.connectivity(source="Tm3", target="T4a")
    assert isinstance(picture, Hexagons)
    names = ("u", "v", "signed synapses")
    drawn = {(u, v): value for u, v, value in zip(*(picture.dimension_values(n) for n in names), strict=True)}
    present = {place: value for place, value in drawn.items() if np.isfinite(value)}
    expected = synapses_of(connectome, "Tm3", "T4a")
    assert present == pytest.approx({(-du, -dv): value for (du, dv), value in expected.items()})
    assert set(present) != {(-u, -v) for u, v in present}  # the field is asymmetric: a mirrored one would not pass


def test_connectivity__of_one_target_draws_all_its_sources(connectome: xr.Dataset) -> None:
    layout = viz.connectivity(target="T4a")
    expected = set(connectome["source"].values[connectome["target"].values == "T4a"])
    assert {panel.label.split(" to ")[0] for panel in layout} == expected
    limits = {hv.Store.lookup_options("bokeh", panel, "plot").kwargs["clim"] for panel in layout}
    assert len(limits) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"source": "T4x"}, "expected source among the 65 cell types of the connectome, got T4x"),
        ({"target": ["T4a", "Q"], "columns": 0}, "got Q"),
        ({"source": "R1", "target": "T4a"}, "R1"),
        ({"connectome": xr.Dataset()}, "connectome"),
        ({"height": 0}, "expected height as an integer"),
    ],
)
def test_connectivity__refuses(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        viz.connectivity(**arguments)
