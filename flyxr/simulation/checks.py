"""Check the inputs of a simulation and resolve labels to positions, without computing anything."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from flyxr import connectome as connectomes
from flyxr import hexgrid, identity, provenance, schema
from flyxr.arguments import shorten
from flyxr.connectome import cell_presence, compile_network, tables
from flyxr.engine import base, choose_engine
from flyxr.errors import FlyxrWarning, InputError, Problem, raise_problems
from flyxr.selection import align_labels, lattice_columns
from flyxr.simulation.block import Block, check_luminance, check_state
from flyxr.simulation.record import Record, describe

if TYPE_CHECKING:
    from numpy.typing import NDArray

LARGEST_DT = 1 / 50
"""Step, s, above which responses depend on the step (flyvis warns there too)."""
MAX_DT = 0.2
"""Step, s, above which time is rather in ms; no network follows a stimulus at such a step."""
INITIAL_STATES = ("fade_in", "steady_state", "rest")


class Prepared(NamedTuple):
    """A checked simulation, resolved to positions; nothing is computed yet.

    ``parameters`` are in the order of the compiled connectome. ``state`` is a given initial state (model or 1, sample
    or 1, cell), else None. ``n_frames`` (sample,) is the number of frames before the end of each sample, None if all
    samples are equally long. ``labels`` is the Dataset of responses without ``response``, ``record`` describes the
    record for provenance, and ``hashes`` are those of connectome and ensemble. ``squeeze`` removes the dims that
    rendering and ensemble lacked from the responses.
    """

    luminance: xr.DataArray
    parameters: base.Parameters
    block: Block
    state: xr.DataArray | None
    n_frames: NDArray[np.int64] | None
    labels: xr.Dataset
    record: dict[str, Any]
    hashes: dict[str, str]
    squeeze: schema.Squeeze

    @property
    def model_names(self) -> list[str]:
        """Name of each model."""
        return [str(name) for name in self.labels["model_name"].values]

    @property
    def recorded_shape(self) -> tuple[int, int, int]:
        """Number of recorded frames, cell types and columns."""
        recorded = self.block.recorded
        return len(recorded.frames), len(recorded.cell_types), len(recorded.columns)


def prepare(
    rendering: xr.Dataset | xr.DataArray,
    ensemble: xr.Dataset,
    *,
    initial_state: Any = "fade_in",
    record: Any = "all",
    connectome: xr.Dataset | None = None,
    engine: str = "auto",
    device: str = "auto",
    stacklevel: int = 2,
) -> Prepared:
    """Check a simulation and resolve it to positions.

    Arguments, errors and warnings are those of :func:`simulate`.

    Examples
    --------
    >>> import flyxr as fx
    >>> rendering = fx.BoxEye().render(fx.stimuli.moving_digits(n_samples=1, frame_rate=50, seed=0))
    >>> prepare(rendering, fx.sample_ensemble(n_models=2, seed=0), record="central").recorded_shape
    (20, 65, 1)
    """
    rendering, squeeze_rendering = schema.expand(rendering, "rendering")
    ensemble, squeeze_ensemble = schema.expand(ensemble, "ensemble")
    ensemble = schema.in_memory(ensemble)
    connectome = connectomes.find_connectome(ensemble.attrs, connectome, stacklevel=stacklevel + 1)
    connectome_tables = tables(connectome)
    _check_fit(rendering, ensemble, connectome)
    parameters = engine_parameters(ensemble, connectome)
    dt = schema.time_step(rendering)
    if dt > MAX_DT * (1 + 1e-6):
        raise InputError(
            Problem(
                f"expected an integration step of at most {MAX_DT:g} s, got {dt:g} s",
                "is time in ms? Then convert it with .assign_coords(time=rendering.time / 1000); if not, use "
                "fx.resample(rendering, dt=1/100)",
                "is time in ms? Then divide the times by 1000; if not, add --dt 0.01",
            )
        )
    if dt > LARGEST_DT * (1 + 1e-6):
        warnings.warn(
            FlyxrWarning(
                Problem(
                    f"the integration step of {dt:.4g} s is above 1/50 s: responses are less accurate and may "
                    "oscillate or diverge; the published models were trained with 1/50 s",
                    "use fx.resample(rendering, dt=1/100)",
                    "add --dt 0.01",
                )
            ),
            stacklevel=stacklevel,
        )
    recorded = Record.take(record).resolve(rendering, connectome)
    start = initial_state if isinstance(initial_state, str) else "given"
    if isinstance(initial_state, str) and start not in INITIAL_STATES:
        names = ", ".join(map(repr, INITIAL_STATES))
        raise InputError(f"expected initial_state {names} or a state, got {start!r}")
    state = None if isinstance(initial_state, str) else _align_state(initial_state, rendering, ensemble, connectome)
    if state is not None and state.chunks is None:
        check_state(state.values, connectome_tables)
    is_summed = any(
        step["operation"] == "render" and step["arguments"].get("filter") == "sum"
        for step in provenance.steps(rendering)
    )
    block = Block(connectome_tables, dt, start, recorded, *choose_engine(engine, device), is_summed)

    luminance = rendering["luminance"]
    if luminance.chunks is None:
        check_luminance(luminance.values, is_summed)
    hashes = {
        "connectome": connectome_tables.digest,
        "ensemble": identity.combine(identity.model_hashes(parameters)),
    }
    shown = rendering[["luminance"]].isel(time=recorded.frames, column=recorded.columns)
    labels = shown.assign(luminance=shown["luminance"].astype(np.float32)).assign_coords(
        {name: coord for name, coord in ensemble.coords.items() if coord.dims == ("model",)}
        | {"cell_type": connectome["cell_type"].values[recorded.cell_types]}
    )
    labels.attrs = {
        **{name: value for name, value in ensemble.attrs.items() if name == "trained"},
        "connectome": connectome_tables.digest,
        "extent": connectome_tables.extent,
        provenance.ATTR: rendering.attrs.get(provenance.ATTR, "[]"),
    }
    return Prepared(
        luminance,
        parameters,
        block,
        state,
        schema.frames_to_end(rendering),
        schema.annotate(labels, "responses"),
        describe(recorded, rendering, connectome),
        hashes,
        schema.Squeeze(*(mine + other for mine, other in zip(squeeze_rendering, squeeze_ensemble, strict=True))),
    )


def _check_fit(rendering: xr.Dataset, ensemble: xr.Dataset, connectome: xr.Dataset) -> None:
    problems: list[str | Problem] = []
    extent, expected_extent = hexgrid.extent_of(rendering.sizes["column"]), int(connectome.attrs["extent"])
    if extent != expected_extent:
        problems.append(
            Problem(
                f"expected a rendering at the connectome's extent {expected_extent}, got "
                f"{rendering.sizes['column']} columns (extent {extent})",
                f"render with fx.BoxEye(extent={expected_extent}), or simulate a smaller lattice with "
                f"connectome=fx.open_connectome(extent={extent})",
                f"render with --extent {expected_extent}",
            )
        )
    problems += ensemble_problems(ensemble, connectome)
    raise_problems(schema.SchemaError, "rendering, ensemble and connectome do not fit together", problems)


def ensemble_problems(ensemble: xr.Dataset, connectome: xr.Dataset) -> list[str | Problem]:
    """List what is wrong with the parameters of an ensemble in memory for a connectome.

    Examples
    --------
    >>> from flyxr.ensemble import sample_ensemble
    >>> ensemble_problems(sample_ensemble(2, seed=0), connectomes.open_connectome())
    []
    """
    mismatch = connectomes.mismatch(ensemble.attrs, connectome)
    problems: list[str | Problem] = mismatch or _parameter_problems(ensemble, connectome)
    for name, lower_bound in (("bias", -np.inf), ("time_constant", 0), ("synapse_strength", -np.inf)):
        values = ensemble[name].values
        is_wrong = ~np.isfinite(values) | (values <= lower_bound)
        if is_wrong.any():
            models = ensemble["model_name"].values[is_wrong.any(axis=1)].tolist()
            problems.append(
                Problem(
                    f"expected '{name}' finite{' and above 0' if lower_bound == 0 else ''}, got {values[is_wrong][0]} "
                    f"in {len(models)} models, first {models[0]}",
                    "drop these models or correct their parameters",
                )
            )
    return problems


def _parameter_problems(ensemble: xr.Dataset, connectome: xr.Dataset) -> list[str | Problem]:
    """Cell types and pairs of the connectome whose parameters are missing or duplicated in the ensemble."""
    problems: list[str | Problem] = []
    missing_types = set(connectome["cell_type"].values) - set(ensemble["cell_type"].values)
    if missing_types:
        text = f"expected parameters of all cell types, got none of {sorted(missing_types)}"
        problems.append(Problem(text, "keep the whole ensemble"))
    required, available = _pairs(connectome).take(compile_network(connectome).pairs), _pairs(ensemble)
    missing_pairs = required.difference(available)
    if not available.is_unique:
        duplicates = available[available.duplicated()][:3].tolist()
        problems.append(f"expected each pair once, got duplicates of {duplicates}")
    if len(missing_pairs):
        text = f"expected strengths of all {len(required)} pairs, got none of {missing_pairs[:3].tolist()}"
        problems.append(Problem(text, "keep all pairs"))
    return problems


def engine_parameters(ensemble: xr.Dataset, connectome: xr.Dataset) -> base.Parameters:
    """Parameters as engines take them: in the order of the compiled connectome, matched by label.

    Examples
    --------
    >>> from flyxr.ensemble import sample_ensemble
    >>> engine_parameters(sample_ensemble(2, seed=0), connectomes.open_connectome()).synapse_strength.shape
    (2, 604)
    """
    types = ensemble.indexes["cell_type"].get_indexer(connectome.indexes["cell_type"])
    pairs = _pairs(ensemble).get_indexer(_pairs(connectome).take(compile_network(connectome).pairs))
    return base.Parameters(
        ensemble["bias"].values[:, types],
        ensemble["time_constant"].values[:, types],
        ensemble["synapse_strength"].values[:, pairs],
    )


def _pairs(dataset: xr.Dataset) -> pd.MultiIndex:
    """Source and target of each pair, as one index."""
    return pd.MultiIndex.from_arrays([dataset["source"].values, dataset["target"].values])


def _align_state(
    initial_state: xr.Dataset | xr.DataArray, rendering: xr.Dataset, ensemble: xr.Dataset, connectome: xr.Dataset
) -> xr.DataArray:
    """Given state (model or 1, sample or 1, cell), with cells in the order of the network."""
    array = initial_state.get("response") if isinstance(initial_state, xr.Dataset) else initial_state
    if not isinstance(array, xr.DataArray):
        names = ", ".join(map(repr, INITIAL_STATES))
        got = "a Dataset without it" if isinstance(initial_state, xr.Dataset) else shorten(initial_state)
        raise InputError(
            Problem(
                f"expected initial_state {names}, or a state with 'response', got {got}",
                "take one time of responses to record='all', such as responses.isel(time=-1)",
            )
        )
    problems: list[str | Problem] = []
    if not {"cell_type", "column"} <= set(array.dims) <= {"model", "sample", "cell_type", "column"}:
        problems.append(
            Problem(
                f"expected dims cell_type, column and perhaps model, sample, got {tuple(map(str, array.dims))}",
                "take one time with .isel(time=-1), and record='all'",
            )
        )
    else:
        array, column_problems = sort_columns(array, rendering.sizes["column"])
        problems += column_problems
    raise_problems(schema.SchemaError, "the initial state does not fit", problems)
    # The state of one selected model or sample applies to all of them.
    array = array.drop_vars([name for name in ("model", "sample") if name in array.coords and name not in array.dims])
    like = xr.Dataset(coords={"model": ensemble["model"], "sample": rendering["sample"]})
    like = like.assign_coords(cell_type=connectome["cell_type"])
    array = align_labels(array, like, "the initial state")
    for dim in ("model", "sample"):
        array = array if dim in array.dims else array.expand_dims(dim)
    array = array.transpose("model", "sample", "cell_type", "column")
    flat = array.stack(cell=("cell_type", "column"), create_index=False)
    return flat.isel(cell=np.flatnonzero(cell_presence(connectome).ravel()))


def sort_columns(array: xr.DataArray, n_columns: int) -> tuple[xr.DataArray, list[str | Problem]]:
    """Select the columns of a lattice in its order, and list what is wrong with them."""
    index, problems = lattice_columns(array, n_columns)
    inside = np.flatnonzero(index >= 0)
    order = inside[np.argsort(index[inside], kind="stable")]
    has_axes = {"u", "v"} <= set(array.coords)
    if not problems and (
        not np.array_equal(index[order], np.arange(n_columns)) or (not has_axes and array.sizes["column"] != n_columns)
    ):
        text = f"expected a state in each of the {n_columns} columns once, got {array.sizes['column']} columns, "
        text += f"{np.unique(index[inside]).size} of them in the lattice"
        hint = "give the state of all columns, with u and v if its lattice is larger"
        problems = [*problems, Problem(text, hint)]
    return array.isel(column=order), problems


def parameters_of(prepared: Prepared, model: int) -> base.Parameters:
    """Parameters of one model, by position."""
    return base.Parameters(*(values[model : model + 1] for values in prepared.parameters))


def state_of(prepared: Prepared, model: int, samples: slice) -> Any:
    """Given initial state of one model and some samples, by position; lazy if given so, None if there is none."""
    state = prepared.state
    if state is None:
        return None
    return state.isel(
        model=[model if state.sizes["model"] > 1 else 0],
        sample=samples if state.sizes["sample"] > 1 else slice(None),
    ).data


def bytes_per_sample(prepared: Prepared, copies: int = 2) -> int:
    """Memory of one sample of a block, bytes: copies of its recorded responses, its states and its stimulus."""
    frames, n_columns = prepared.luminance.sizes["time"], prepared.luminance.sizes["column"]
    if prepared.block.start == "fade_in":
        frames += base.n_frames(base.FADE_IN, prepared.block.dt)
    n_cells = compile_network(prepared.block.tables).n_cells
    return 4 * (copies * math.prod(prepared.recorded_shape) + 4 * n_cells + 3 * frames * n_columns)
