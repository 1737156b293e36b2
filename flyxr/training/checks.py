"""Checks of what a training is given, which come before the first simulation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from flyxr import connectome as connectomes
from flyxr import hexgrid, schema
from flyxr.arguments import shorten
from flyxr.errors import InputError, Problem, raise_problems
from flyxr.selection import match_cell_types
from flyxr.training.loop import Task

if TYPE_CHECKING:
    from collections.abc import Mapping

PARAMETERS = ("bias", "time_constant", "synapse_strength")
MOST_SYNAPSES = 5
"""Synapses that a message names."""


def training_connectome(connectome: xr.Dataset, extent: int) -> xr.Dataset:
    """Connectome at the extent of the stimuli, on which no synapse of the models may be lost.

    Raises
    ------
    InputError
        If some columnar offsets connect no two cells of the smaller lattice; the message names them.
    """
    smaller = connectome.assign_attrs(extent=extent)
    _, synapses = connectomes.realised(connectome)
    _, kept = connectomes.realised(smaller)
    lost = np.setdiff1d(synapses, kept)
    if lost.size:
        pair = connectome["synapse_pair"].values[lost]
        names = [
            f"{source} > {target} (du {du}, dv {dv})"
            for source, target, du, dv in zip(
                connectome["source"].values[pair],
                connectome["target"].values[pair],
                connectome["du"].values[lost],
                connectome["dv"].values[lost],
                strict=True,
            )
        ][:MOST_SYNAPSES]
        own = int(connectome.attrs["extent"])
        fitting = next(
            (
                e
                for e in range(extent + 1, own)
                if synapses.size == connectomes.realised(connectome.assign_attrs(extent=e))[1].size
            ),
            own,
        )
        raise InputError(
            Problem(
                f"expected an extent at which all synapses of the connectome connect cells, got extent {extent}, which "
                f"loses {lost.size} of {synapses.size} columnar offsets: {', '.join(names)}"
                f"{', …' if lost.size > MOST_SYNAPSES else ''}",
                f"train at extent {fitting} or above, or pass connectome=fx.open_connectome(extent={extent}), of which "
                "they are no part",
            )
        )
    return smaller


def make_task(
    rendering: Any, loss: Any, targets: Any = None, *, extent: int | None = None, name: str = "rendering"
) -> tuple[Task, int]:
    """Stimuli and targets as arrays on a lattice, and its extent.

    Raises
    ------
    SchemaError, InputError
        If the rendering is none; if targets have other samples, times or columns, are not numbers or all NaN, or those
        that the loss requires are missing.
    """
    given = rendering
    rendering = schema.validate(rendering, "rendering")
    own_extent = hexgrid.extent_of(rendering.sizes["column"])
    extent = own_extent if extent is None else extent
    problems: list[str | Problem] = []
    if extent > own_extent:
        problems.append(
            Problem(
                f"expected an extent of at most {own_extent}, that of the {name}, got {extent}",
                "render at a larger extent",
            )
        )
        extent = own_extent
    u, v = hexgrid.columns(extent)
    inner = hexgrid.column_index(u, v, own_extent)
    luminance = rendering["luminance"].transpose("sample", "time", "column")
    source = given if isinstance(given, xr.Dataset) else rendering
    variables = {
        str(key): array for key, array in source.data_vars.items() if key != "luminance" and "sample" in array.dims
    }
    if targets is not None:
        variables |= _given_targets(targets, rendering, problems)
    required = getattr(loss, "required_targets", ())
    arrays: dict[str, np.ndarray] = {}
    if hasattr(loss, "targets"):
        arrays |= {key: tensor.numpy() for key, tensor in loss.targets(rendering).items()}
    for key in required:
        if key not in variables and key not in arrays:
            problems.append(
                Problem(
                    f"expected the target {key!r} as a variable of the {name}, got {sorted(variables) or 'none'}",
                    "e.g. fx.stimuli.moving_layers(...) has 'flow'; or name yours with flow_loss(target=...)",
                )
            )
    for key, array in variables.items():
        if required and key not in required:
            continue
        if "time" not in array.dims:
            problems.append(Problem(f"expected targets over sample and time, got {key} over {array.dims}", "expand it"))
            continue
        order = [dim for dim in ("sample", "time", "column") if dim in array.dims]
        values = array.transpose(*order, ...)
        values = values.isel(column=inner) if "column" in array.dims else values
        numbers = np.asarray(values.values)
        if numbers.dtype.kind not in "fiub":
            problems.append(f"expected targets as numbers, got {key} of type {numbers.dtype}")
        elif not np.isfinite(numbers).any():
            problems.append(f"expected targets with at least one finite value, got only NaN in {key}")
        else:
            arrays[key] = numbers.astype(np.float32)
    values = np.asarray(luminance.isel(column=inner).values, np.float32)
    if not np.isfinite(values).all():
        problems.append(
            Problem(f"expected finite luminance, got NaN in the {name}", "drop samples of shorter duration")
        )
    raise_problems(InputError, "cannot train on these stimuli", problems)
    scenes = None
    if "scene" in rendering.coords and rendering["scene"].dims == ("sample",):
        scenes = np.unique(rendering["scene"].values, return_inverse=True)[1]
    return Task(values, arrays, schema.time_step(rendering), scenes), extent


def _given_targets(targets: Any, rendering: xr.Dataset, problems: list[str | Problem]) -> Mapping[str, xr.DataArray]:
    """Targets that lie in a Dataset of their own."""
    if isinstance(targets, xr.DataArray):
        targets = targets.to_dataset(name=targets.name or "target")
    if not isinstance(targets, xr.Dataset):
        problems.append(f"expected targets as a Dataset or DataArray, got {type(targets).__name__}")
        return {}
    fitting = {}
    for key, array in targets.data_vars.items():
        if "sample" not in array.dims:
            problems.append(f"expected targets over sample, got {key} over {tuple(map(str, array.dims))}")
            continue
        is_fitting = True
        for dim in ("sample", "time", "column"):
            if dim not in array.dims:
                continue
            expected, got = rendering.sizes[dim], array.sizes[dim]
            if expected != got:
                problems.append(
                    Problem(
                        f"expected {expected} {dim}s in the target {key}, as in the rendering, got {got}",
                        f"select the same {dim}s in both",
                    )
                )
                is_fitting = False
            elif dim in array.coords and not _equal(array[dim].values, rendering[dim].values):
                problems.append(
                    Problem(f"expected the {dim}s of the rendering in the target {key}, got others", "sort or reindex")
                )
                is_fitting = False
        if is_fitting:
            fitting[str(key)] = array
    return fitting


def _equal(one: np.ndarray, other: np.ndarray) -> bool:
    if one.dtype.kind in "fiu" and other.dtype.kind in "fiu":
        return bool(np.allclose(one, other))
    return bool(np.array_equal(one, other))


def check_loss(loss: Any, penalties: Any, connectome: xr.Dataset) -> None:
    """Check that a loss is a function and knows only cell types of the connectome."""
    problems: list[str | Problem] = []
    if not callable(loss):
        problems.append(
            Problem(f"expected a loss as a function of (responses, targets), got {shorten(loss)}", "e.g. flow_loss()")
        )
    for penalty in penalties:
        if not callable(penalty):
            problems.append(f"expected penalties as functions of (responses, parameters), got {shorten(penalty)}")
    raise_problems(InputError, "cannot train with this loss", problems)
    for named in (getattr(loss, "cell_types", None), getattr(getattr(loss, "recording", None), "cell_types", None)):
        if named is not None:
            match_cell_types(list(named), connectome["cell_type"].values.tolist(), "cell_types of the loss")


def check_fixed(fixed: Any) -> tuple[str, ...]:
    """Names of fixed parameters."""
    names = (fixed,) if isinstance(fixed, str) else tuple(fixed)
    unknown = [name for name in names if name not in PARAMETERS]
    if unknown or len(set(names)) == len(PARAMETERS):
        text = f"expected fixed as at most two of {', '.join(PARAMETERS)}, got {shorten(list(names))}"
        raise InputError(Problem(text, "e.g. fixed=['time_constant']"))
    return names
