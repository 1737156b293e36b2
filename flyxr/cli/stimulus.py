"""The command ``stimulus``: options named as the arguments in Python, with their defaults."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import flyxr as fx
from flyxr.cli import base

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable


class Option(NamedTuple):
    """Option for an argument of a stimulus: conversion of a value, number of values, and help."""

    convert: Callable[[str], Any]
    n_values: str | int | None
    help: str
    metavar: str | None = None


class Kind(NamedTuple):
    """A kind of stimulus: function in :mod:`flyxr.stimuli`, summary, example, and options."""

    function: str
    summary: str
    example: str
    options: dict[str, Option]


def position(text: str) -> str | int | tuple[int, int]:
    """Convert an option to a column, by its label or as u,v, or to the name of some columns.

    Examples
    --------
    >>> position("360"), position("(-1,2)"), position("within 3")
    (360, (-1, 2), 'within 3')
    """
    if match := re.fullmatch(r"\(?\s*(-?\d+)\s*,\s*(-?\d+)\s*\)?", text):
        return int(match[1]), int(match[2])
    return int(text) if text.isdecimal() else text


def _several(help: str, metavar: str) -> Option:
    return Option(base.number, "+", help, metavar)


_SECONDS = {
    "t_stim": Option(base.seconds, None, "duration of the stimulus, s"),
    "t_pre": Option(base.seconds, None, "duration of the grey before it, s"),
    "t_post": Option(base.seconds, None, "duration of the grey after it, s"),
    "dt": Option(base.seconds, None, "time step, s, e.g. 0.01, 1/100 or 10ms"),
}
_EXTENT = {"extent": Option(int, None, "radius of the lattice, columns; 15 is that of the published models")}
_ANGLES = {"angles": _several("directions of motion, degrees: 0 to the right, 90 upward", "ANGLE")}
_INTENSITIES = {"intensities": _several("luminances, 0 (dark) to 1 (bright); grey is 0.5", "LUMINANCE")}
_SPEEDS = {"speeds": _several("speeds, columns/s; a column is 5.8 degrees wide", "SPEED")}
_SEED = {"seed": Option(int, None, "seed of the random numbers")}
_BAR = {
    "offsets": Option(base.number, 2, "first and last position along the motion, degrees from the middle", "DEGREES"),
    "height": Option(base.number, None, "length across the motion, degrees; 180 fills the field"),
}
_MOVING = _BAR | {name: _SECONDS[name] for name in ("t_pre", "t_post", "dt")} | _EXTENT

KINDS: dict[str, Kind] = {
    "flashes": Kind(
        "flashes",
        "flashes of discs or of the whole field, for the flash response index",
        "flyxr stimulus flashes flashes.zarr --radius 6 --dt 0.01",
        {
            "radius": _several("radii of the disc, columns; -1 is the whole field", "COLUMNS"),
            **_INTENSITIES,
            "alternations": Option(int, "+", "sequence of baseline (0) and flash (1); starts with 0", "PHASE"),
            "baseline": Option(base.number, None, "luminance before and after the flash, and around it"),
            **{name: option for name, option in _SECONDS.items() if name != "t_post"},
            **_EXTENT,
        },
    ),
    "edges": Kind(
        "moving_edges",
        "moving ON and OFF edges, for direction selectivity and preferred directions",
        "flyxr stimulus edges edges.zarr --angles 0 90 180 270 --speeds 9.7 19 --dt 0.01",
        {**_ANGLES, **_SPEEDS, **_INTENSITIES, **_MOVING},
    ),
    "bars": Kind(
        "moving_bars",
        "moving bars, for direction selectivity and preferred directions",
        "flyxr stimulus bars bars.zarr --widths 2.25 9 --speeds 19 --intensities 1 --dt 0.01",
        {
            **_ANGLES,
            "widths": _several("widths along the motion, degrees", "DEGREES"),
            **_SPEEDS,
            **_INTENSITIES,
            **_MOVING,
        },
    ),
    "gratings": Kind(
        "gratings",
        "drifting sine gratings, for direction selectivity and frequency tuning",
        "flyxr stimulus gratings gratings.zarr --temporal-frequencies 1 4 --dt 0.01",
        {
            **_ANGLES,
            "spatial_frequencies": _several("cycles/degree, e.g. 1/30", "FREQUENCY"),
            "temporal_frequencies": _several("Hz; 0 is a static grating", "FREQUENCY"),
            "contrasts": _several("Michelson contrasts, above 0, at most 1", "CONTRAST"),
            **_SECONDS,
            **_EXTENT,
        },
    ),
    "impulses": Kind(
        "impulses",
        "brief flashes of columns or of the whole field, for receptive fields",
        "flyxr stimulus impulses impulses.zarr --position 'within 2' --intensities 1 --dt 0.01",
        {
            "position": Option(
                position,
                "+",
                "central, whole (the field), all (columns in turn), 'within 3', or columns as labels or '(u,v)'",
                "COLUMN",
            ),
            **_INTENSITIES,
            "duration": Option(base.seconds, None, "duration of the impulse, s; a time step if left out"),
            **{name: option for name, option in _SECONDS.items() if name != "t_stim"},
            **_EXTENT,
        },
    ),
    "natural": Kind(
        "natural_motion",
        "moving, rotating and looming photographs, with their optic flow",
        "flyxr stimulus natural natural.zarr --speeds 5 10 --n-crops 4 --seed 0 --dt 0.01",
        {
            "angles": Option(base.number, "*", "directions of translation, degrees; none if empty", "ANGLE"),
            "speeds": Option(base.number, "*", "speeds of translation, columns/s", "SPEED"),
            "rotation_speeds": Option(base.number, "*", "degrees/s, counter-clockwise; no rotations if empty", "SPEED"),
            "expansion_rates": Option(base.number, "*", "1/s, negative for receding; no looming if empty", "RATE"),
            "photographs": Option(str, "+", "china, flower, or both", "NAME"),
            "n_crops": Option(int, None, "crops of each photograph"),
            **_SEED,
            "pixels_per_column": Option(base.number, None, "pixels of the photograph between columns, at least 1"),
            **_SECONDS,
            **_EXTENT,
        },
    ),
    "digits": Kind(
        "moving_digits",
        "a movie of moving handwritten digits, for clustering",
        "flyxr stimulus digits digits.zarr --n-samples 16 --seed 0",
        {
            "n_samples": Option(int, None, "number of sequences"),
            **_SEED,
            "n_frames": Option(int, None, "frames of each sequence"),
            "size": Option(int, None, "height and width of a frame, pixels"),
            "n_digits": Option(int, None, "digits in each sequence"),
            "frame_rate": Option(base.number, None, "frames per second"),
            "digit_size": Option(int, None, "height and width of a digit, pixels; 28/64 of the frame if left out"),
            "speed": Option(base.number, None, "pixels per frame"),
        },
    ),
}


def add_stimulus(commands: base.Commands) -> None:
    """Add the command ``stimulus``, with one command for each kind."""
    summary = "write a stimulus: flashes, edges, bars, gratings, impulses, natural motion or digits"
    parser = commands.add_parser(
        "stimulus",
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}. `flyxr simulate` computes the responses, and `flyxr tuning` "
        "their measures.",
        epilog="Example: flyxr stimulus flashes flashes.zarr --radius 6 --dt 0.01",
    )
    parser.set_defaults(run=lambda options: parser.print_help(), paths=())
    kinds = parser.add_subparsers(metavar="KIND", title="kinds")
    for name, kind in KINDS.items():
        _add_kind(kinds, name, kind)


def _add_kind(kinds: base.Commands, name: str, kind: Kind) -> None:
    parser = base.add_command(
        kinds, name, _stimulus, f"write {kind.summary}", example=kind.example, description="", paths=("out",)
    )
    parser.add_argument("out", help="zarr store to write")
    parameters = inspect.signature(getattr(fx.stimuli, kind.function)).parameters
    for parameter, option in kind.options.items():
        parser.add_argument(
            f"--{parameter.replace('_', '-')}",
            type=option.convert,
            nargs=option.n_values,
            default=parameters[parameter].default,
            metavar=option.metavar,
            help=option.help,
        )
    base.add_overwrite(parser)
    parser.set_defaults(kind=name)


def _stimulus(options: argparse.Namespace) -> None:
    kind = KINDS[options.kind]
    arguments = {name: getattr(options, name) for name in kind.options}
    if isinstance(arguments.get("position"), list) and len(arguments["position"]) == 1:
        (arguments["position"],) = arguments["position"]
    stimulus = getattr(fx.stimuli, kind.function)(**arguments)
    base.print_saved(fx.save(stimulus, options.out, overwrite=options.overwrite))
