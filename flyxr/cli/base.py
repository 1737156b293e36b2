"""Shared parts of the commands: adding them to the parser, options, opening inputs, and printing."""

from __future__ import annotations

import argparse
import shlex
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import flyxr as fx
from flyxr import arguments, schema, store
from flyxr.errors import InputError, Problem
from flyxr.store import places

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import xarray as xr

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

_STIMULUS_HINT = "make one with `flyxr stimulus` or `flyxr render`"
_RESPONSES_HINT = "simulate them with `flyxr simulate`"
_KIND_HINTS = {
    ("movie", "rendering"): "it is rendered already: pass it to `flyxr simulate`",
    ("movie", "responses"): "make a movie with `flyxr stimulus digits`, or pass a video or a .npy array",
    ("movie", "ensemble"): "make a movie with `flyxr stimulus digits`, or pass a video or a .npy array",
    ("responses", "movie"): "compute its responses first: flyxr simulate MOVIE ENSEMBLE responses.zarr",
    ("responses", "rendering"): "compute its responses first: flyxr simulate RENDERING ENSEMBLE responses.zarr",
    ("responses", "ensemble"): "compute its responses first: flyxr simulate STIMULUS ENSEMBLE responses.zarr",
    ("rendering", "ensemble"): "the stimulus is the first argument, and the ensemble the second",
}
"""Way out by the expected kind of a store and the given one."""


_RENDER = "render it with `flyxr render`, or pass it to `flyxr simulate`"
_FILES = {
    ".npy": ("an array of NumPy", f"if it is a movie (sample, time, y, x), {_RENDER}"),
    ".html": ("a web page", "open it in a browser"),
    ".nc": ("a netCDF file", "open it in Python with xarray.open_dataset, and save it as a store with fx.save"),
    ".h5": ("an HDF5 file", "give the path of the directory of flyvis that holds the models, such as flow/0000"),
    ".zip": ("a zip file", "if it holds an ensemble, pass it as the ensemble of `flyxr simulate`"),
} | dict.fromkeys([".mp4", ".avi", ".mov", ".mkv", ".webm", ".mpg", ".m4v", ".gif"], ("a video", _RENDER))
"""Description of a file, and what to do with it, by its suffix."""


class HelpFormatter(argparse.HelpFormatter):
    """Show the defaults of options that have one, lists as they are typed."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        default = action.default
        if default is None or default is False or default in (argparse.SUPPRESS, ()):
            return action.help
        return f"{action.help} (default: {format_default(default)})"


class GroupedHelpFormatter(argparse.RawDescriptionHelpFormatter):
    """List commands by their default ``group``, and keep the lines of description and epilog."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if "\n" in text:
            return super()._fill_text(text, width, indent)
        return argparse.HelpFormatter._fill_text(self, text, width, indent)

    def _format_action(self, action: argparse.Action) -> str:
        if not isinstance(action, argparse._SubParsersAction):
            return super()._format_action(action)
        parts, group = list[str](), None
        self._action_max_length += self._indent_increment  # for the names, which are indented below their group
        for command in action._get_subactions():
            new = action.choices[command.dest].get_default("group")
            if new != group:
                parts.append(f"\n{'':{self._current_indent}}{new}:\n")
                group = new
            self._indent()
            parts.append(self._format_action(command))
            self._dedent()
        return "".join(parts)


def format_default(value: Any) -> str:
    """Format a default as it is typed.

    Examples
    --------
    >>> format_default((0, 0.25)), format_default(1 / 200), format_default("auto")
    ('0 0.25', '0.005', 'auto')
    """
    if isinstance(value, tuple | list):
        return " ".join(map(format_default, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def add_command(
    commands: Commands,
    name: str,
    run: Callable[[argparse.Namespace], int | None],
    summary: str,
    *,
    example: str,
    description: str = "",
    paths: Sequence[str] = (),
    ensembles: Sequence[str] = (),
    urls: Sequence[str] = (),
) -> argparse.ArgumentParser:
    """Add a command to a parser.

    Parameters
    ----------
    commands
        Subparsers to which it is added.
    name
        Name of the command.
    run
        Function of the command.
    summary
        One line for the list of commands.
    example
        A line that users can adapt.
    description
        Further sentences for the help of the command.
    paths
        Names of the arguments that are paths; :func:`flyxr.cli.run_command` converts them.
    ensembles
        Those of them that may be the name of an ensemble instead, such as ``flyvis``.
    urls
        Those of them that may be URLs.
    """
    parser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}. {description}".strip(),
        epilog=f"Example: {example}",
        formatter_class=HelpFormatter,
    )
    parser.set_defaults(run=run, paths=tuple(paths), ensembles=tuple(ensembles), urls=tuple(urls))
    return parser


def add_overwrite(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--overwrite``."""
    parser.add_argument("--overwrite", action="store_true", help="replace an existing store")


def number(text: str) -> float:
    """Convert an option to a number, which may be a fraction.

    Examples
    --------
    >>> number("0.01"), number("1/100")
    (0.01, 0.01)
    """
    try:
        return float(Fraction(text)) if "/" in text else float(text)
    except (ValueError, ZeroDivisionError):
        raise argparse.ArgumentTypeError(f"expected a number such as 0.01 or 1/100, got {text!r}") from None


def seconds(text: str) -> float:
    """Convert an option to seconds, from a number, a fraction or text with a unit.

    Examples
    --------
    >>> seconds("0.01"), seconds("1/100"), seconds("10ms")
    (0.01, 0.01, 0.01)
    """
    duration = arguments.as_seconds(text)
    try:
        return number(text) if duration is None else duration
    except argparse.ArgumentTypeError:
        message = f"expected a duration in s such as 0.01, 1/100 or 10ms, got {text!r}"
        raise argparse.ArgumentTypeError(message) from None


def open_kind(path: Path, *kinds: str) -> xr.Dataset:
    """Open a store of one of some kinds.

    Raises
    ------
    InputError
        A ValueError. If it is of another kind; names the command that helps.
    """
    if path.exists() and not is_store(path):
        raise wrong_path_error(path, f"a store of {' or '.join(map(schema.kind_with_article, kinds))}")
    dataset = fx.open(path)
    kind = schema.kind_of(dataset, path)
    if kind not in kinds:
        expected = " or ".join(map(schema.kind_with_article, kinds))
        text = f"expected a store of {expected} at {path}, got one of {schema.kind_with_article(kind)}"
        default = _RESPONSES_HINT if "responses" in kinds else _STIMULUS_HINT
        raise InputError(Problem(text, _KIND_HINTS.get((kinds[0], kind), default)))
    return dataset


def is_store(path: Path) -> bool:
    """Whether a path is a zarr store and not an array in one."""
    return (path / "zarr.json").is_file() and not is_array(path)


def is_zipped_store(path: Path) -> bool:
    """Whether a path is a zip of a store; a damaged zip is none."""
    if path.suffix.lower() != ".zip" or not path.is_file():
        return False
    try:
        return places.exists(places.find(path) / "zarr.json")
    except places.RemoteError:
        return False


def is_array(path: Path) -> bool:
    """Whether a path is an array in a zarr store."""
    return (path / "zarr.json").is_file() and (path.absolute().parent / "zarr.json").is_file()


def is_version_2(path: Path) -> bool:
    """Whether a path is a store of zarr version 2."""
    return any((path / name).is_file() for name in (".zgroup", ".zattrs", ".zarray"))


def wrong_path_error(path: Path, expected: str) -> InputError:
    """Error for a path that exists and is not as expected; says what it is, and what to do with it.

    Examples
    --------
    >>> from pathlib import Path
    >>> print(wrong_path_error(Path("flight.mp4"), "a zarr store"))
    expected a zarr store, got a video at flight.mp4: render it with `flyxr render`, or pass it to `flyxr simulate`
    """
    if is_array(path):
        got, hint = "an array in a store", f"give the path of the store, {path.parent}"
    elif path.is_dir():
        got, hint = _describe_folder(path)
    else:
        got, hint = _FILES.get(path.suffix.lower(), ("another file", "`flyxr --help` lists what the commands read"))
    return InputError(Problem(f"expected {expected}, got {got} at {path}", hint))


def _describe_folder(path: Path) -> tuple[str, str]:
    names = sorted(entry.name for entry in path.iterdir() if not entry.name.startswith("."))
    stores = [str(path / name) for name in names if is_store(path / name)]
    if is_version_2(path):
        return "a store of zarr version 2", "open it in Python with xarray.open_zarr, and save it with fx.save"
    if stores:
        return f"a folder with {len(stores)} stores", f"choose one, see {shlex.join(['flyxr', 'info', *stores[:8]])}"
    content = ", ".join(names[:8]) + (", …" if len(names) > 8 else "") or "nothing"
    hint = "results of flyvis are a directory of models (000, 001, …) with best_chkpt or chkpts in each"
    return f"a folder that holds {content}", hint


def print_saved(path: Path) -> None:
    """Print the first line of the description of a store."""
    print(store.describe(path).splitlines()[0])


def format_dims(data: xr.Dataset | xr.DataArray) -> str:
    """Format the lengths of dims.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> format_dims(xr.DataArray(np.zeros((2, 3)), dims=("model", "time")))
    '2 model x 3 time'
    """
    return " x ".join(f"{length} {dim}" for dim, length in data.sizes.items())
