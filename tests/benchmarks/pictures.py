"""Benchmark of pictures: ``python tests/benchmarks/pictures.py [--extent N] [--frames N] [--models N] [--types N]``.

Prints a table of the time to build, draw, update and save pictures of random values, and of the size of the files.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import holoviews as hv
import numpy as np
import xarray as xr

from flyxr import hexgrid, viz

if TYPE_CHECKING:
    from collections.abc import Callable


def make_responses(extent: int, n_frames: int, n_models: int) -> xr.DataArray:
    """Random responses (model, time, column)."""
    coords = {"model": np.arange(n_models), "time": np.arange(n_frames) / 100, **hexgrid.column_coords(extent)}
    shape = (n_models, n_frames, coords["u"][1].size)
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    return xr.DataArray(values, coords, ("model", "time", "column"), name="response")


def make_courses(n_types: int, n_models: int = 50, n_times: int = 120) -> xr.DataArray:
    """Random time courses (cell_type, model, time) of models of known task error."""
    rng = np.random.default_rng(0)
    coords = {
        "cell_type": [f"type {number}" for number in range(n_types)],
        "model": np.arange(n_models),
        "task_error": ("model", rng.normal(5.3, 0.1, n_models)),
        "time": np.arange(n_times) / 100,
    }
    values = rng.normal(size=(n_types, n_models, n_times)).astype(np.float32)
    return xr.DataArray(values, coords, ("cell_type", "model", "time"), name="response")


def best_time(function: Callable[[], Any], repeats: int) -> float:
    """Shortest time of several calls, s."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def measure(
    extent: int = 15, n_frames: int = 67, n_models: int = 5, repeats: int = 5, n_types: int = 65
) -> list[tuple[str, float, int]]:
    """Rows of what was done, its time in s, and the size of the file in bytes or 0."""
    responses = make_responses(extent, n_frames, n_models)
    one = responses.isel(model=0)
    stimulus = ((one - one.min()) / (one.max() - one.min())).rename("luminance")
    renderer = hv.renderer("bokeh")
    rows: list[tuple[str, float, int]] = []

    def add(name: str, function: Callable[[], Any], n_calls: int = repeats) -> None:
        function()  # the first call loads the backend
        rows.append((name, best_time(function, n_calls), 0))

    add("build one picture", lambda: viz.hexmap(one.isel(time=0), clim=(-3, 3)))
    picture = viz.hexmap(one.isel(time=0), clim=(-3, 3))
    add("draw one picture", lambda: hv.render(picture, backend="bokeh"))
    moving = viz.hexmap(one, clim=(-3, 3), dynamic=True)
    plot = renderer.get_plot(moving)
    times, position = one["time"].values.tolist(), iter(range(10**6))
    add("update one picture", lambda: plot.update((times[next(position) % n_frames],)), max(repeats, 20))
    linked = hv.Layout([viz.hexmap(responses.isel(model=i), clim=(-3, 3), dynamic=True) for i in range(n_models)])
    linked_plot = renderer.get_plot(linked)
    add(f"update {n_models} linked pictures", lambda: linked_plot.update((times[next(position) % n_frames],)))
    courses = make_courses(n_types)
    traces = viz.traces(courses)
    panels = f"time courses of {n_types} cell types and {courses.sizes['model']} models"
    add(f"build {panels}", lambda: viz.traces(courses), min(repeats, 3))
    add(f"draw {panels}", lambda: hv.render(traces, backend="bokeh"), min(repeats, 3))
    maps = [viz.hexmap(responses.isel(model=i), clim=(-3, 3)) for i in range(n_models)]
    layout = hv.Layout([viz.hexmap(stimulus), *maps]).cols(3)
    with tempfile.TemporaryDirectory() as folder:
        for name, drawn, suffix in (
            ("save one picture", picture, ".png"),
            ("save one picture", picture, ".svg"),
            (f"save {n_frames} frames", maps[0], ".html"),
            (f"save {n_frames} frames", maps[0], ".mp4"),
            (f"save {n_frames} frames", maps[0], ".gif"),
            (f"save {n_frames} frames of stimulus and {n_models} models", layout, ".html"),
            (f"save {n_frames} frames of stimulus and {n_models} models", layout, ".mp4"),
            (f"save {panels}", traces, ".html"),
        ):
            path = Path(folder) / f"picture{suffix}"
            seconds = best_time(lambda d=drawn, p=path: viz.save(d, p, progress=False), min(repeats, 2))  # type: ignore[misc]
            rows.append((f"{name} as {suffix}", seconds, path.stat().st_size))
    return rows


def table(rows: list[tuple[str, float, int]]) -> str:
    """Rows as a table in Markdown."""
    lines = ["| what | time | file |", "| :-- | --: | --: |"]
    for name, seconds, size in rows:
        shown = f"{1000 * seconds:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"
        lines.append(f"| {name} | {shown} | {f'{size / 1e3:.0f} kB' if size else '–'} |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--extent", type=int, default=15)
    parser.add_argument("--frames", type=int, default=67)
    parser.add_argument("--models", type=int, default=5)
    parser.add_argument("--types", type=int, default=65)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = measure(arguments.extent, arguments.frames, arguments.models, n_types=arguments.types)
    print(table(rows))  # noqa: T201
