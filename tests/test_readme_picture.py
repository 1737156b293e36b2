"""The script that makes the picture of the README runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scripts import load_script

import flyxr as fx


def test_make_picture__has_three_rows(tmp_path: Path) -> None:
    path = Path(__file__).parents[1] / "docs" / "images" / "make.py"
    module = load_script(path)
    ensemble = fx.sample_ensemble(n_models=2, seed=0).assign_coords(task_error=("model", np.array([5.2, 5.1])))
    picture = module.make_picture(ensemble, times=(0.1, 0.2), extent=3)
    assert [type(panel).__name__ for panel in picture.values()] == ["Image"] * 2 + ["Hexagons"] * 4
    assert fx.viz.save(picture, tmp_path / "t4c.png").stat().st_size > 5000
