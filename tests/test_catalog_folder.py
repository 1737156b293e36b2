"""The catalog of the repository: its entries open, and its recipe makes the same stores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import xarray as xr
from scripts import load_script

import flyxr as fx
from flyxr.catalog import base
from flyxr.errors import FlyxrError, MissingError

if TYPE_CHECKING:
    from types import ModuleType

FOLDER = Path(__file__).parents[1] / "catalog"


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    """The script that makes the stores."""
    return load_script(FOLDER / "make.py")


def test_catalog__every_entry_opens(recipe: ModuleType) -> None:
    catalog = fx.catalog.open(FOLDER)
    assert set(catalog) == {*recipe.DESCRIPTIONS, *recipe.ON_DEMAND}
    assert "refused" not in catalog.table
    for name in recipe.DESCRIPTIONS:
        dataset = catalog.open(name, verify=True)
        assert dataset.attrs["flyxr_dataset"] == catalog.entries[name].metadata["kind"]
    assert sum(entry.metadata.get("n_bytes", 0) for entry in catalog.entries.values()) < 600_000


def test_catalog__entries_on_demand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = fx.catalog.open(FOLDER)
    assert catalog["edges"].luminance.dims == ("sample", "time", "column")
    assert list(catalog.search(stimulus="moving_edges")) == ["edges"]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(MissingError, match="fetch_pretrained"):
        catalog["flyvis"]


@pytest.mark.parametrize(
    ("source", "match"),
    [
        ({"stimulus": "from_video", "arguments": {"path": "/etc/passwd"}}, "expected a stimulus among"),
        ({"stimulus": "__import__"}, "expected a stimulus among"),
        ({"ensemble": "/etc"}, "expected an ensemble among flyvis, flyxr"),
        ({"stimulus": "moving_digits", "arguments": {"n_samples": 10**9}}, "numbers up to 10,000"),
        ({"stimulus": "moving_digits", "arguments": {"n_samples": float("nan")}}, "numbers up to 10,000"),
        ({"stimulus": "moving_digits", "arguments": {"n_samples": [1]}}, "text or numbers"),
        ({"stimulus": "moving_digits", "arguments": {"no_such": 1}}, "expected arguments of"),
        ({"stimulus": "moving_digits", "arguments": {"n_samples": "many"}}, "n_samples"),
        ("moving_digits", "what makes the data"),
    ],
)
def test_open__refuses_to_make_other_things(source: Any, match: str, tmp_path: Path) -> None:
    content = {"metadata": {"version": 1, "on_demand": {"bad": source}}, "sources": {}}
    base.write_content(tmp_path / "catalog.yaml", content)
    catalog = fx.catalog.open(tmp_path)
    with pytest.raises(ValueError, match=match) as raised:
        catalog["bad"]
    assert isinstance(raised.value, FlyxrError)


def check_equal(made: xr.Dataset, kept: xr.Dataset) -> None:
    """Equal labels, and equal values up to rounding to 10 bits of mantissa."""
    assert made.sizes == kept.sizes
    for name, coord in kept.coords.items():
        xr.testing.assert_equal(made[name].variable, coord.variable)
    for name, variable in kept.data_vars.items():
        np.testing.assert_allclose(made[name].values, variable.values, rtol=2**-9, atol=1e-5)


def test_make__the_same_stores(recipe: ModuleType, tmp_path: Path) -> None:
    for name, path in recipe.make(tmp_path, with_clusters=False).items():
        check_equal(fx.open(path).load(), fx.open(FOLDER / "data" / path.name).load())
        assert name in recipe.DESCRIPTIONS


@pytest.mark.slow
def test_make__clusters_and_catalog(recipe: ModuleType, tmp_path: Path) -> None:
    recipe.publish(recipe.make(tmp_path / "data"), tmp_path / "catalog.yaml")
    made, kept = fx.catalog.open(tmp_path), fx.catalog.open(FOLDER)
    assert list(made) == list(kept)
    assert made["clusters"].sizes == kept["clusters"].sizes  # embeddings differ between machines
