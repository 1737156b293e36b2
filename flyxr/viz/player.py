"""A page that plays frames of columns and of movies; it needs no library and no network."""

from __future__ import annotations

import base64
import gzip
import html
import json
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING, Any

import numpy as np

from flyxr.viz import rastering, sheet

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flyxr.viz.scenes import Panel, Scene


def page(scene: Scene, title: str, fps: float) -> str:
    """Write the page; the values are those that were drawn, as float32, and hovering shows them."""
    content = {
        "fps": fps,
        "n_columns": scene.n_columns,
        "dims": [{"name": dim.name, "unit": dim.unit or ""} for dim in scene.kdims],
        "keys": [[_plain(label) for label in key] for key in scene.keys],
        "panels": [_describe(scene, panel) for panel in scene.panels],
    }
    template = files("flyxr.viz").joinpath("player.html").read_text(encoding="utf-8")
    text = json.dumps(content, ensure_ascii=True, allow_nan=False).replace("<", "\\u003c")
    return Template(template).substitute(title=html.escape(title), scene=text)


def _describe(scene: Scene, panel: Panel) -> dict[str, Any]:
    """Everything that a panel shows, as JSON."""
    keys = [scene.panel_key(panel, key) for key in scene.keys]
    positions = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    frames = np.stack([panel.values(panel.element(key)) for key in positions])
    description: dict[str, Any] = {
        "kind": panel.kind,
        "title": panel.title,
        "name": panel.first.vdims[0].name,
        "label": panel.label,
        "size": list(panel.size),
        "palette": panel.palette,
        "missing": rastering.missing_colour(panel),
        "clim": list(panel.clim),
        "ticks": [[value, text] for value, text in sheet.ticks(*panel.clim)],
        "positions": [positions[key] for key in keys],
        "data": _pack(frames),
    }
    if panel.kind == "columns":
        lattice = panel.lattice()
        xs, ys = lattice.corners()
        corners = np.stack([xs, -ys], axis=-1).round(3)
        description["corners"] = corners.reshape(len(corners), -1).tolist()
        description["labels"] = np.stack([lattice.u, lattice.v], axis=1).tolist()
        bounds = [xs.min(), -ys.max(), np.ptp(xs), np.ptp(ys)]
        description["bounds"] = [round(float(bound), 3) for bound in bounds]
    else:
        description["shape"] = list(frames.shape[1:])
    return description


def _pack(frames: NDArray[Any]) -> dict[str, Any]:
    """Values as base64 of compressed bytes: uint8 if they are n/255 of it, as in most movies, otherwise float32.

    Examples
    --------
    >>> _pack(np.array([0.0, 1.0]))["type"], _pack(np.array([0.1, 1.0]))["type"]
    ('uint8', 'float32')
    """
    scaled = frames.astype(np.float64) * 255
    is_bytes = bool(np.isfinite(scaled).all() and scaled.min() >= 0 and scaled.max() <= 255)
    is_bytes = is_bytes and bool((np.abs(scaled - np.rint(scaled)) < 1e-3).all())
    packed = np.rint(scaled).astype(np.uint8) if is_bytes else frames.astype("<f4")
    data = base64.b64encode(gzip.compress(packed.tobytes(), 6, mtime=0)).decode()
    return {"type": "uint8" if is_bytes else "float32", "bytes": data}


def _plain(label: Any) -> Any:
    """Label as JSON has it."""
    if isinstance(label, bool | np.bool_) or not isinstance(label, int | float | np.integer | np.floating):
        return str(label)
    return label.item() if isinstance(label, np.generic) else label
