"""The benchmark of pictures runs, at a tiny size."""

from __future__ import annotations

from pathlib import Path

from scripts import load_script

pictures = load_script(Path(__file__).with_name("pictures.py"))


def test_pictures__measures() -> None:
    rows = pictures.measure(extent=1, n_frames=2, n_models=2, repeats=1, n_types=2)
    assert all(seconds > 0 for _, seconds, _ in rows)
    sizes = {name: size for name, _, size in rows if name.startswith("save")}
    assert len(sizes) == 8
    assert all(size > 200 for size in sizes.values())
    assert len(pictures.table(rows).splitlines()) == len(rows) + 2
