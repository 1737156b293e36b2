"""The command ``browse``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import flyxr as fx
from flyxr.cli import base
from flyxr.errors import InputError, MissingError, Problem

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    import xarray as xr


def add_browse(commands: base.Commands) -> None:
    """Add the command ``browse``."""
    parser = base.add_command(
        commands,
        "browse",
        _browse,
        "show responses beside their stimulus on a page in the web browser",
        example="flyxr browse responses.zarr --clusters clusters.zarr --movie movie.zarr",
        description="Choose a cell type, a sample, models or a cluster, and play the time. Click a hexagon for its "
        "time courses; click or brush models in the embedding. A second sample, such as the opposite direction of "
        "motion, is shown beside the first. Only what is shown is read, so stores of any size open at once. The page "
        "is served to this machine only, until Ctrl-C, and its address holds the view.",
        paths=("store", "clusters", "movie"),
    )
    parser.add_argument("store", help="zarr store of responses")
    parser.add_argument(
        "--clusters", metavar="STORE", help="zarr store of `flyxr cluster`, to choose models in their embedding"
    )
    parser.add_argument("--movie", help="the stimulus before rendering: a zarr store of a movie, or a video")
    parser.add_argument("--port", type=int, default=0, help="port of the page; 0 takes any that is free")
    parser.add_argument("--no-browser", action="store_true", help="do not open the web browser")


def _browse(options: argparse.Namespace) -> None:
    responses = base.open_kind(options.store, "responses")
    clusters = None if options.clusters is None else base.open_kind(options.clusters, "clusters")
    movie = None if options.movie is None else _open_movie(options.movie)
    fx.viz.browse(responses, clusters, movie, port=options.port, open_browser=not options.no_browser)


def _open_movie(path: Path) -> xr.Dataset:
    """Movie of a store or a video."""
    if path.is_dir():
        return base.open_kind(path, "movie")
    if not path.is_file():
        raise MissingError(
            Problem(f"expected a store of a movie or a video at {path}, found nothing", "check the path")
        )
    if path.suffix.lower() == ".npy":
        hint = "make a movie of it in Python with fx.stimuli.from_array, and write it with fx.save"
        raise InputError(Problem(f"expected a store of a movie or a video, got an array of NumPy at {path}", hint))
    return fx.stimuli.from_video(path)
