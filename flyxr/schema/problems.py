"""What is wrong with a Dataset: each function lists problems, with what was expected, what came, and the way out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from flyxr.errors import Problem
from flyxr.schema.completion import is_lattice_size
from flyxr.schema.records import COORDS, DIM_SYNONYMS, KIND_ATTR, KINDS, Variable

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr

_ROUNDING = 1e-6
_NEW_TIME = "give frames times of their own with .assign_coords(time=...)"
_KIND_NAMES = {
    "f": "float",
    "i": "int",
    "u": "int",
    "b": "bool",
    "O": "str",
    "U": "str",
    "T": "str",
    "M": "datetime",
    "m": "timedelta",
}

WAYS_TO_MAKE = {
    "movie": "wrap the array with fx.stimuli.from_array(array, frame_rate=...)",
    "rendering": "render a movie with fx.BoxEye().render(movie), or wrap an array with fx.stimuli.from_columns",
    "responses": "simulate them with fx.simulate(rendering, ensemble), or open them with fx.open(path)",
    "ensemble": "open one with fx.open_ensemble(path), or draw one with fx.sample_ensemble(n_models=4, seed=0)",
}
_MAKERS = {"movie": "from_array", "rendering": "from_columns"}
"""Functions of ``fx.stimuli`` that take arrays of any range."""
_WAYS_ON = {
    ("rendering", "movie"): Problem("", "render it with fx.BoxEye().render(movie)", "render it with flyxr render"),
    ("movie", "rendering"): Problem("", "it is rendered already: give it to fx.simulate(rendering, ensemble)"),
    ("responses", "rendering"): Problem("", "simulate it with fx.simulate(rendering, ensemble)"),
    ("responses", "ensemble"): Problem("", "simulate it with fx.simulate(rendering, ensemble)"),
    ("responses", "movie"): Problem("", "render and simulate it: fx.simulate(fx.BoxEye().render(movie), ensemble)"),
}
"""What leads from the Dataset that was given to the one that was expected."""


def kind_with_article(kind: str) -> str:
    """Kind of a Dataset as a sentence names it.

    Examples
    --------
    >>> kind_with_article("ensemble"), kind_with_article("movie"), kind_with_article("responses")
    ('an ensemble', 'a movie', 'responses')
    """
    if kind in ("responses", "measures", "clusters", "optimal_stimuli"):
        return kind.replace("_", " ")
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def other_kind_problems(dataset: xr.Dataset, kind: str) -> list[str | Problem]:
    """The problem that a Dataset is of another kind, with the way from one to the other."""
    given = dataset.attrs.get(KIND_ATTR)
    record = KINDS[kind]
    main = record.variables[0]
    if main.name in dataset and not set(dataset[main.name].dims) - set(main.dims):
        return []
    if given not in KINDS or given == kind:
        dims = set(dataset[main.name].dims) if main.name in dataset else set()
        fits = [other for other in ("movie", "rendering") if dims and dims == set(KINDS[other].variables[0].dims)]
        given = fits[0] if fits and fits[0] != kind else None
    if given is None:
        return []
    way = _WAYS_ON.get((kind, given), Problem("", WAYS_TO_MAKE.get(kind, "")))
    return [way._replace(text=f"expected {kind_with_article(kind)}, got {kind_with_article(given)}")]


def missing_coords(dataset: xr.Dataset, names: Sequence[str]) -> list[str | Problem]:
    """List coordinates that are missing and cannot be derived; those of the columns share a line."""
    missing = [name for name in names if name not in dataset.coords]
    column_names = [name for name in missing if COORDS[name].dims == ("column",)]
    problems: list[str | Problem] = []
    for name in missing:
        if name in column_names:
            continue
        text = f"expected coordinate '{name}' {format_dims(COORDS[name].dims)}, {COORDS[name].description}, got none"
        way = f"add it with .assign_coords(time=np.arange({dataset.sizes['time']}) / frame_rate), in s"
        problems.append(Problem(text, way if name == "time" else ""))
    if column_names:
        text = f"expected the coordinates {', '.join(map(repr, column_names))} of the columns, got none"
        n_columns = dataset.sizes["column"]
        if is_lattice_size(n_columns):
            way = "label columns with .assign_coords(u=..., v=...), or drop 'column', 'u' and 'v' if u ascends, then v"
            problems.append(Problem(text, way))
        else:
            way = "render with fx.BoxEye(extent).render(movie), or label them with .assign_coords(u=..., v=...)"
            problems.append(Problem(f"{text}, and {n_columns} columns fill no lattice (7, 19, 37, ..., 721)", way))
    return problems


def repeated_labels(dataset: xr.Dataset, name: str) -> Problem:
    """Report labels that occur more than once."""
    index = dataset.indexes[name]
    text = f"expected each {name} once, got more than one of {index[index.duplicated()].unique().tolist()[:8]}"
    if name not in ("model", "sample"):
        return Problem(text)
    return Problem(text, f"relabel them with .assign_coords({name}=np.arange({index.size}))")


def which_way_up(y: np.ndarray) -> Problem:
    """Report rows whose labels may point either way."""
    return Problem(
        f"expected 'y' that counts rows downward, got {y[0]:g} in the first row to {y[-1]:g} in the last",
        "if y points upward, set movie.y.attrs['positive'] = 'up'; if it points downward, sort rows with .sortby('y')",
    )


def format_dims(dims: tuple[object, ...]) -> str:
    """Dims as a message names them: ``(sample, time)``."""
    return f"({', '.join(map(str, dims))})"


def variable_problems(
    array: xr.DataArray, variable: Variable, uint8_accepted: bool, free_dims: frozenset[str] = frozenset()
) -> list[str | Problem]:
    """List what is wrong with the dims, dtype and lengths of a variable, which may have or lack the free dims."""
    problems: list[str | Problem] = []
    if set(array.dims) - free_dims != set(variable.dims) - free_dims:
        text = f"expected '{variable.name}' with dims {format_dims(variable.dims)}, got {format_dims(array.dims)}"
        problems.append(Problem(text, _dims_hint(array, variable.dims)))
    if array.dtype.kind not in variable.kinds and not uint8_accepted:
        expected = "/".join(dict.fromkeys(_KIND_NAMES[kind] for kind in variable.kinds))
        text = f"expected '{variable.name}' as {expected}, got {array.dtype}"
        if variable.name == "luminance":
            maker = _MAKERS["rendering" if "column" in variable.dims else "movie"]
            way = f"convert it with fx.stimuli.{maker}(array, frame_rate=..., rescale=True)"
            problems.append(Problem(text, way, "convert it with --rescale"))
        elif array.dtype.kind == "M":
            way = "(data.time - data.time[0]) / np.timedelta64(1, 's') is the time since the first frame, in s"
            problems.append(Problem(text, f"assign it with .assign_coords({variable.name}=...): {way}"))
        else:
            unit = f", in {variable.units}" if variable.units not in ("", "1") else ""
            problems.append(Problem(f"{text}{unit}", "convert it with .astype"))
    empty = [str(dim) for dim, length in array.sizes.items() if length == 0]
    if empty:
        problems.append(f"expected at least one of each dim of '{variable.name}', got none along {', '.join(empty)}")
    return problems


def _dims_hint(array: xr.DataArray, dims: tuple[str, ...]) -> str:
    renamed = rename_hint(array, dims)
    missing = [dim for dim in dims if dim not in array.dims]
    extra = [str(dim) for dim in array.dims if dim not in dims]
    if renamed:
        return renamed
    return "; ".join(
        [f"add {dim!r} with .expand_dims" for dim in missing] + [f"select one {dim!r} with .isel" for dim in extra]
    )


def rename_hint(array: xr.DataArray, dims: tuple[str, ...]) -> str:
    """Call of ``.rename`` that gives dims the names of the schema, as far as it can be guessed; empty if it cannot.

    A name that is known (``trial``, ``frame``) tells most, then the length of a full lattice, then the order.

    Parameters
    ----------
    array
        The array with dims of other names.
    dims
        Names of the schema.

    Examples
    --------
    >>> import xarray as xr
    >>> array = xr.DataArray(np.zeros((4, 2, 721)), dims=("t", "rep", "place"))
    >>> rename_hint(array, ("sample", "time", "column"))
    ".rename(t='time', rep='sample', place='column') gives dims these names, if that is what they are"
    """
    guess = guess_names(array, dims)
    renames = ", ".join(f"{name}={dim!r}" for name, dim in guess.items())
    return f".rename({renames}) gives dims these names, if that is what they are" if guess else ""


def guess_names(array: xr.DataArray, dims: tuple[str, ...]) -> dict[str, str]:
    """Guess the dim of the schema that each dim of another name is; empty if there are too many.

    Examples
    --------
    >>> import xarray as xr
    >>> guess_names(xr.DataArray(np.zeros((4, 2)), dims=("t", "rep")), ("sample", "time"))
    {'t': 'time', 'rep': 'sample'}
    """
    others = [str(dim) for dim in array.dims if dim not in dims]
    missing = [dim for dim in dims if dim not in array.dims]
    if not others or len(others) > len(missing):
        return {}
    guess = {name: dim for name in others for dim in missing if name.lower() in DIM_SYNONYMS.get(dim, ())}
    for name in others:
        is_lattice = is_lattice_size(array.sizes[name])
        if "column" in missing and "column" not in guess.values() and name not in guess and is_lattice:
            guess[name] = "column"
    left = [dim for dim in missing if dim not in guess.values()]
    unknown = [name for name in others if name not in guess]
    guess |= dict(zip(unknown, left[len(left) - len(unknown) :], strict=True))
    return {name: guess[name] for name in others}


def time_problems(time: np.ndarray) -> list[str | Problem]:
    """List what is wrong with a time axis, in s."""
    steps = np.diff(time)
    if not np.isfinite(time).all():
        return [Problem("expected 'time' finite, in s, got NaN or infinity", "drop these frames with .isel or .dropna")]
    if (steps <= 0).any():
        text = "expected 'time' increasing, in s, got "
        if np.unique(time).size < time.size:
            way = "fx.pad_grey(data, t_pre=0.5, t_post=0.5) puts grey around a stimulus"
            return [Problem(f"{text}some times more than once, as after xr.concat of parts along 'time'", way)]
        if (steps < 0).all():
            return [Problem(f"{text}a decreasing axis", "sort it with .sortby('time')")]
        return [Problem(f"{text}an axis that goes back at frame {int((steps <= 0).argmax()) + 1}", _NEW_TIME)]
    if steps.size and not np.allclose(steps, steps.mean(), rtol=1e-3, atol=0):
        return [
            f"expected 'time' with a uniform step, got steps from {steps.min():.6g} s to {steps.max():.6g} s: "
            "interpolate onto a uniform axis with .interp(time=...)"
        ]
    return []


def column_problems(dataset: xr.Dataset, whole_lattice: bool) -> list[str | Problem]:
    """List what is wrong with columns that must fill a lattice."""
    if not whole_lattice:
        return []
    u, v = dataset["u"].values, dataset["v"].values
    extent = int(np.abs([u, v, u + v]).max())
    expected = 1 + 3 * extent * (extent + 1)
    if len(set(zip(u.tolist(), v.tolist(), strict=True))) != expected or u.size != expected:
        return [
            f"expected the {expected} columns of a lattice of extent {extent}, got {u.size}, which fill no lattice: "
            "keep all columns that BoxEye(extent).render gives"
        ]
    if not np.array_equal(np.lexsort((v, u)), np.arange(u.size)):
        return [
            f"expected the {u.size} columns in the order u ascending, then v ascending, got another order: "
            "sort them with .sortby(['u', 'v'])"
        ]
    return []


def luminance_problems(values: np.ndarray, kind: str = "movie") -> list[Problem]:
    """List what is wrong with the luminance of a movie or a rendering; a rounding error beyond 0 or 1 is not.

    Examples
    --------
    >>> luminance_problems(np.array([0.0, 0.5, 1.0]))
    []
    >>> str(luminance_problems(np.array([0.0, 2.0]))[0])
    'expected luminance from 0 to 1, got values from 0 to 2: ... with fx.stimuli.from_array(..., rescale=True)'
    """
    low, high = float(values.min()), float(values.max())
    if low >= -_ROUNDING and high <= 1 + _ROUNDING:
        return []
    finite = values[np.isfinite(values)]
    problems = []
    if finite.size < values.size:
        n_wrong = values.size - finite.size
        problems.append(
            Problem(
                f"expected finite luminance, got NaN or infinity in {n_wrong} of {values.size} values",
                "replace them first, e.g. with np.nan_to_num",
            )
        )
    if finite.size and not (finite.min() >= -_ROUNDING and finite.max() <= 1 + _ROUNDING):
        problems.append(
            Problem(
                f"expected luminance from 0 to 1, got values from {finite.min():g} to {finite.max():g}",
                f"map them onto 0 to 1 with fx.stimuli.{_MAKERS[kind]}(..., rescale=True)",
                "map them onto 0 to 1 with --rescale",
            )
        )
    return problems
