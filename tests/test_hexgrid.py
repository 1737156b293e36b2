"""The hexagonal lattice, compared with arrays computed by flyvis and with geometry."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import strategies
from hypothesis import given
from hypothesis import strategies as st

from flyxr import hexgrid

if TYPE_CHECKING:
    from collections.abc import Callable


def test_columns__equal_reference(golden: Callable[[str], dict[str, np.ndarray]]) -> None:
    reference = golden("misc.npz")
    for i, extent in enumerate(reference["hex_extents"].tolist()):
        u, v = hexgrid.columns(extent)
        np.testing.assert_array_equal(u, reference[f"hex{i}_u"])
        np.testing.assert_array_equal(v, reference[f"hex{i}_v"])
        x, y = hexgrid.positions(u, v)
        np.testing.assert_allclose(x * np.sqrt(3), reference[f"hex{i}_x"], atol=1e-12)
        np.testing.assert_allclose(y * np.sqrt(3), reference[f"hex{i}_y"], atol=1e-12)
        assert hexgrid.n_columns(extent) == reference["hex_num"][i]


@given(strategies.extents())
def test_extent_of__inverts_n_columns(extent: int) -> None:
    assert hexgrid.extent_of(hexgrid.n_columns(extent)) == extent


@pytest.mark.parametrize(
    ("count", "nearest"), [(0, "extent 0 has 1"), (720, "extent 15 has 721"), (722, "extent 15 has 721")]
)
def test_extent_of__names_the_nearest_lattices(count: int, nearest: str) -> None:
    with pytest.raises(ValueError, match=nearest):
        hexgrid.extent_of(count)


@given(strategies.extents(), st.integers(-25, 25), st.integers(-25, 25))
def test_column_index__is_the_position_in_columns(extent: int, u: int, v: int) -> None:
    lattice = list(zip(*(axis.tolist() for axis in hexgrid.columns(extent)), strict=True))
    expected = lattice.index((u, v)) if (u, v) in lattice else -1
    assert hexgrid.column_index(u, v, extent) == expected


def test_positions__neighbours_are_one_pitch_apart() -> None:
    u, v = hexgrid.columns(3)
    x, y = hexgrid.positions(u, v)
    distance = np.hypot(x[:, None] - x, y[:, None] - y)
    np.fill_diagonal(distance, np.inf)
    np.testing.assert_allclose(distance.min(axis=0), 1)
    neighbours = np.isclose(distance, 1).sum(axis=0)
    assert neighbours[hexgrid.column_index(0, 0, 3)] == 6


def test_hexagon__tiles_the_plane() -> None:
    corners = hexgrid.hexagon()
    area = 0.5 * abs(np.sum(corners[:, 0] * np.roll(corners[:, 1], -1) - corners[:, 1] * np.roll(corners[:, 0], -1)))
    assert area == pytest.approx(np.sqrt(3) / 2)  # the area of a lattice cell of pitch 1
    x, y = hexgrid.positions([0], [1])
    shared = [corner for corner in corners if np.isclose(corners + [x[0], y[0]], corner).all(axis=1).any()]
    assert len(shared) == 2
