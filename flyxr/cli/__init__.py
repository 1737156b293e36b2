"""The command line: arguments and printing. The public functions of the same names do the work."""

from __future__ import annotations

import argparse
import sys
import warnings
from typing import TYPE_CHECKING, Any

import flyxr as fx
from flyxr.cli import (
    base,
    browsing,
    completion,
    demo,
    doctor,
    info,
    measures,
    pretrained,
    responses,
    sharing,
    stimulus,
    timings,
    training,
)
from flyxr.ensemble import NAMED
from flyxr.errors import FlyxrError, FlyxrWarning
from flyxr.paths import is_url, local_path
from flyxr.store import places

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

FIRST_STEPS = """\
first steps:
  flyxr doctor                     # does everything work on this machine?
  flyxr demo                       # a first simulation, and a page with pictures
  flyxr stimulus flashes flashes.zarr --dt 0.01
  flyxr simulate flashes.zarr flyxr responses.zarr --record central --initial-state steady_state
  flyxr tuning responses.zarr tuning.zarr
  flyxr browse responses.zarr      # stimulus and responses, in the web browser

`flyxr COMMAND --help` explains a command, with an example. The models `flyxr`
come with the program; `flyvis` are the published ones, once they are fetched."""
"""End of the help."""

__all__ = ["build_parser", "main", "run_command"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse arguments and run a command; without a command, print the help.

    Returns
    -------
    int
        Exit status, see :func:`run_command`.

    Examples
    --------
    >>> main(["simulate", "nowhere.zarr", "ensemble.zarr", "out.zarr"])
    2
    """
    options = build_parser().parse_args(arguments)
    return run_command(options.run, options)


def run_command(run: Callable[[argparse.Namespace], int | None], options: argparse.Namespace) -> int:
    """Run the function of a command, and print errors and warnings for the user.

    Parameters
    ----------
    run
        Function of the command, which may return an exit status.
    options
        Its arguments, with the name of the ``command`` and whether to show a ``traceback``. The arguments that
        ``paths`` names become paths on this machine; those that ``ensembles`` names too may be names of ensembles.

    Returns
    -------
    int
        That of the command, 0 by default; or 2 after an error that the user can fix, which is printed in a sentence.
        Any other error is a bug in flyxr and is raised, after a line that says so.

    Examples
    --------
    >>> run_command(lambda options: None, argparse.Namespace(command="info", traceback=False))
    0
    """

    def print_message(message: object, *_: object, **__: object) -> None:
        if isinstance(message, FlyxrError | FlyxrWarning):
            message = message.message(command_line=True)
        print(f"flyxr {options.command}: {message}", file=sys.stderr)

    try:
        with warnings.catch_warnings():
            warnings.showwarning = print_message
            _convert_paths(options)
            status = run(options)
    except (FlyxrError, OSError) as error:
        if options.traceback:
            raise
        print_message(error)
        return 2
    except Exception:
        print_message("this is a bug in flyxr, please report it with the following lines")
        raise
    return status or 0


def _convert_paths(options: argparse.Namespace) -> None:
    """Expand ``~`` in paths, and refuse URLs where none are read; names of ensembles stay text."""
    named = getattr(options, "ensembles", ())

    urls = getattr(options, "urls", ())

    def convert(name: str, value: str) -> Any:
        if name in urls and is_url(value):
            return places.find(value, name=name)
        return value if name in named and value in NAMED else local_path(value, name)

    for name in getattr(options, "paths", ()):
        value = getattr(options, name)
        if isinstance(value, list):
            setattr(options, name, [convert(name, path) for path in value])
        elif value is not None:
            setattr(options, name, convert(name, value))


def build_parser() -> argparse.ArgumentParser:
    """Parser of all commands; ``run`` of the parsed arguments is the function of the command.

    Examples
    --------
    >>> build_parser().parse_args(["info", "responses.zarr"]).store
    ['responses.zarr']
    """
    parser = argparse.ArgumentParser(
        prog="flyxr",
        description="Simulate connectome-constrained networks of the fly visual system: render movies onto the columns "
        "of the eye, and compute the responses of ensembles of models.",
        epilog=FIRST_STEPS,
        formatter_class=base.GroupedHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"flyxr {fx.__version__}")
    parser.add_argument("--traceback", action="store_true", help="show the traceback of an error")
    parser.set_defaults(run=lambda options: parser.print_help(), paths=())
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    groups: dict[str, tuple[Callable[..., None], ...]] = {
        "start": (demo.add_demo, doctor.add_doctor),
        "get models": (pretrained.add_fetch_pretrained, pretrained.add_import_flyvis, training.add_train),
        "make stimuli": (stimulus.add_stimulus, responses.add_render),
        "simulate and measure": (responses.add_simulate, measures.add_tuning, measures.add_cluster),
        "look": (browsing.add_browse, info.add_info),
        "share": (sharing.add_publish, sharing.add_catalog),
        "this program": (timings.add_bench, lambda added: completion.add_completion(added, parser)),
    }
    for group, functions in groups.items():
        for add in functions:
            n_before = len(commands.choices)
            add(commands)
            for command in list(commands.choices.values())[n_before:]:
                command.set_defaults(group=group)
    return parser
