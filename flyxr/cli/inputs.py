"""What the commands take: movies in files and stores, with the options of rendering, and the best ensemble at hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import flyxr as fx
from flyxr import optics, schema
from flyxr.cli import base
from flyxr.ensemble import NAMED
from flyxr.errors import InputError, MissingError, Problem

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    import xarray as xr

STIMULUS_HELP = "a video (mp4, avi, …), a .npy array (sample, time, y, x), or a zarr store of a movie"
_EYE_DEFAULTS: dict[str, Any] = {"extent": optics.EXTENT, "kernel_size": 13, "filter": "mean"}
_READING = ("frame_rate", "rescale", "fill_gaps")


def add_movie_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how a movie is read and rendered."""
    group = parser.add_argument_group("movies", "how a movie is read and rendered onto the columns")
    group.add_argument(
        "--frame-rate", type=base.number, help="frames per second of an array; overrides that of a video"
    )
    group.add_argument(
        "--fill-gaps",
        action="store_true",
        help="show each frame of a video until the next, as players do, where frames were lost",
    )
    group.add_argument(
        "--rescale", action="store_true", help="map the lowest value of an array to 0 and the highest to 1"
    )
    group.add_argument(
        "--extent", type=int, help=f"radius of the lattice of columns (default: {_EYE_DEFAULTS['extent']})"
    )
    group.add_argument(
        "--kernel-size",
        type=int,
        help=f"edge of the box of each column, pixels (default: {_EYE_DEFAULTS['kernel_size']})",
    )
    group.add_argument(
        "--filter",
        choices=["mean", "sum", "median"],
        help=f"how a box of pixels is reduced (default: {_EYE_DEFAULTS['filter']})",
    )
    parser.add_argument("--dt", type=base.seconds, help="resample to this integration step, s, e.g. 0.01 or 10ms")


def open_rendering(path: Path, options: argparse.Namespace, *kinds: str) -> xr.Dataset:
    """Open a movie or a rendering, render it if it is a movie, and resample it.

    Parameters
    ----------
    path
        A video, a ``.npy`` array or a store.
    options
        Parsed options of :func:`add_movie_options`.
    *kinds
        Kinds of stores that are accepted.

    Raises
    ------
    InputError
        A ValueError. If the path holds something else, or options do not apply to it.
    """
    data = _open(path, options, kinds)
    kind = schema.kind_of(data)
    if kind == "movie":
        given = {name: getattr(options, name) for name in _EYE_DEFAULTS}
        eye = {name: _EYE_DEFAULTS[name] if value is None else value for name, value in given.items()}
        data = fx.BoxEye(eye["extent"], eye["kernel_size"]).render(data, filter=eye["filter"])
    else:
        _refuse_options(options, tuple(_EYE_DEFAULTS), f"{path} is rendered already")
    return data if options.dt is None else fx.resample(data, dt=options.dt)


def _open(path: Path, options: argparse.Namespace, kinds: tuple[str, ...]) -> xr.Dataset:
    if path.is_dir():
        data = base.open_kind(path, *kinds)
        _refuse_options(options, _READING, f"{path} is a store, which has its times and values")
        return data
    if not path.is_file():
        raise MissingError(Problem(f"expected {STIMULUS_HELP} at {path}, found no file or folder", "check the path"))
    if path.suffix.lower() != ".npy":
        _refuse_options(options, ("rescale",), f"{path} is a video, whose grey values are from 0 to 1 already")
        return fx.stimuli.from_video(path, frame_rate=options.frame_rate, fill_gaps=options.fill_gaps)
    _refuse_options(options, ("fill_gaps",), f"{path} is an array, whose frames are equally spaced")
    if options.frame_rate is None:
        raise InputError(Problem(f"expected the frames per second of {path}, got none", "add --frame-rate 30"))
    movie = fx.stimuli.from_array(_read_array(path), frame_rate=options.frame_rate, rescale=options.rescale)
    movie["luminance"].max().compute()  # checks all values, before a sweep begins to write
    return movie


def _refuse_options(options: argparse.Namespace, names: tuple[str, ...], reason: str) -> None:
    """Raise if options are given that have no effect."""
    given = [f"--{name.replace('_', '-')}" for name in names if getattr(options, name) not in (None, False)]
    if given:
        raise InputError(Problem(f"expected no {' or '.join(given)}, since {reason}", "leave it out"))


def _read_array(path: Path) -> Any:
    import numpy as np

    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise InputError(
            Problem(
                f"expected a .npy file of numbers at {path}, got one that cannot be read ({error})",
                "write it with np.save(path, array)",
            )
        ) from error


def best_ensemble() -> tuple[xr.Dataset, str]:
    """Open the best ensemble at hand: the first named one that is there; one is part of the package.

    Returns
    -------
    ensemble : Dataset
        The models, best first.
    description : str
        Which they are, for printing.
    """
    name, named = next((name, named) for name, named in NAMED.items() if named.find().exists() or name == "flyxr")
    ensemble = fx.open_ensemble(name)
    return ensemble, f"{name}, {ensemble.sizes['model']} models, {named.title}"
