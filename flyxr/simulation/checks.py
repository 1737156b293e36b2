"""A simulation checked and resolved by position, of which nothing is computed."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from flyxr import connectome as connectomes
from flyxr import hexgrid, identity, provenance, schema
from flyxr.connectome import Tables, cell_presence, compile_network, tables
from flyxr.engine import base, choose_engine
from flyxr.errors import FlyxrWarning, InputError, Problem, raise_problems
from flyxr.selection import align_labels, lattice_columns
from flyxr.simulation.block import Block, check_finite, check_state
from flyxr.simulation.record import Record, describe

if TYPE_CHECKING:
    from numpy.typing import NDArray

LARGEST_DT = 1 / 50
"""Step, s, above which responses are no longer close to those of smaller steps (flyvis warns there too)."""
INITIAL_STATES = ("fade_in", "steady_state", "rest")


class Prepared(NamedTuple):
    """A simulation that is checked and resolved by position, of which nothing is computed.

    ``parameters`` are in the order of the compiled connectome, ``state`` is (model or 1, sample or 1, cell) and None
    where the simulation starts otherwise, ``n_frames`` (sample,) are the frames before the end of each sample and
    None where all are of one length. ``labels`` are responses without ``response``, ``record`` is what is recorded in
    words, and ``hashes`` are those of connectome and ensemble.
    """

    luminance: xr.DataArray
    parameters: base.Parameters
    block: Block
    state: xr.DataArray | None
    n_frames: NDArray[np.int64] | None
    labels: xr.Dataset
    record: dict[str, Any]
    hashes: dict[str, str]

    @property
    def model_names(self) -> list[str]:
        """Name of each model."""
        return [str(name) for name in self.labels["model_name"].values]

    @property
    def recorded_shape(self) -> tuple[int, int, int]:
        """Number of frames, cell types and columns that are recorded."""
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
    """Check and resolve a simulation; arguments, errors and warnings are those of :func:`simulate`.

    Examples
    --------
    >>> import flyxr as fx
    >>> rendering = fx.BoxEye().render(fx.stimuli.moving_digits(n_samples=1, frame_rate=50, seed=0))
    >>> prepare(rendering, fx.sample_ensemble(n_models=2, seed=0), record="central").recorded_shape
    (20, 65, 1)
    """
    rendering = schema.validate(rendering, "rendering")
    ensemble = schema.in_memory(schema.validate(ensemble, "ensemble"))
    connectome = connectomes.find_connectome(ensemble.attrs, connectome, stacklevel=stacklevel + 1)
    plain = tables(connectome)
    _check_fit(rendering, ensemble, connectome, plain)
    parameters = engine_parameters(ensemble, connectome)
    dt = schema.time_step(rendering)
    if dt > LARGEST_DT * (1 + 1e-6):
        warnings.warn(
            FlyxrWarning(
                Problem(
                    f"the integration step of {dt:.4g} s is above 1/50 s: responses lose accuracy, may oscillate or "
                    "diverge, and the published models were trained with 1/50 s",
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
    state = None if isinstance(initial_state, str) else _state(initial_state, rendering, ensemble, connectome)
    if state is not None and state.chunks is None:
        check_state(state.values, plain)
    block = Block(plain, dt, start, recorded, *choose_engine(engine, device))

    luminance = rendering["luminance"]
    if luminance.chunks is None:
        check_finite(luminance.values)
    hashes = {
        "connectome": plain.digest,
        "ensemble": identity.combine(identity.model_hashes(parameters)),
    }
    kept = rendering[["luminance"]].isel(time=recorded.frames, column=recorded.columns)
    labels = kept.assign(luminance=kept["luminance"].astype(np.float32)).assign_coords(
        {name: coord for name, coord in ensemble.coords.items() if coord.dims == ("model",)}
        | {"cell_type": connectome["cell_type"].values[recorded.cell_types]}
    )
    labels.attrs = {
        **{name: ensemble.attrs[name] for name in ("trained",) if name in ensemble.attrs},
        "connectome": plain.digest,
        "extent": plain.extent,
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
    )


def _check_fit(rendering: xr.Dataset, ensemble: xr.Dataset, connectome: xr.Dataset, plain: Tables) -> None:
    problems: list[str | Problem] = []
    extent = hexgrid.extent_of(rendering.sizes["column"])
    if extent != plain.extent:
        problems.append(
            Problem(
                f"expected a rendering at the connectome's extent {plain.extent}, got {rendering.sizes['column']} "
                f"columns (extent {extent})",
                f"render with fx.BoxEye(extent={plain.extent}), or simulate a smaller lattice with "
                f"connectome=fx.open_connectome(extent={extent})",
                f"render with --extent {plain.extent}",
            )
        )
    of_another = connectomes.mismatch(ensemble.attrs, connectome)
    problems += of_another or _lacking(ensemble, connectome, plain)
    for name, least in (("bias", -np.inf), ("time_constant", 0), ("synapse_strength", -np.inf)):
        values = ensemble[name].values
        wrong = ~np.isfinite(values) | (values <= least)
        if wrong.any():
            models = ensemble["model_name"].values[wrong.any(axis=1)].tolist()
            problems.append(
                Problem(
                    f"expected '{name}' finite{' and above 0' if least == 0 else ''}, got {values[wrong][0]} "
                    f"in {len(models)} models, first {models[0]}",
                    "drop these models or mend the parameters",
                )
            )
    raise_problems(schema.SchemaError, "rendering, ensemble and connectome do not fit together", problems)


def _lacking(ensemble: xr.Dataset, connectome: xr.Dataset, plain: Tables) -> list[str | Problem]:
    """Cell types and pairs of the connectome that the ensemble has no parameters of, or several."""
    problems: list[str | Problem] = []
    types = set(connectome["cell_type"].values) - set(ensemble["cell_type"].values)
    if types:
        problems.append(
            Problem(f"expected parameters of all cell types, got none of {sorted(types)}", "keep the whole ensemble")
        )
    needed, given = _pairs(connectome).take(compile_network(plain).pairs), _pairs(ensemble)
    lacking = needed.difference(given)
    if not given.is_unique:
        problems.append(f"expected each pair once, got twice {given[given.duplicated()][:3].tolist()}")
    if len(lacking):
        problems.append(
            Problem(
                f"expected strengths of all {len(needed)} pairs, got none of {lacking[:3].tolist()}", "keep all pairs"
            )
        )
    return problems


def engine_parameters(ensemble: xr.Dataset, connectome: xr.Dataset) -> base.Parameters:
    """Parameters in the order of the compiled connectome, matched by label: what engines take.

    Examples
    --------
    >>> from flyxr.ensemble import sample_ensemble
    >>> engine_parameters(sample_ensemble(2, seed=0), connectomes.open_connectome()).synapse_strength.shape
    (2, 604)
    """
    of_type = ensemble.indexes["cell_type"].get_indexer(connectome.indexes["cell_type"])
    of_pair = _pairs(ensemble).get_indexer(_pairs(connectome).take(compile_network(connectome).pairs))
    return base.Parameters(
        ensemble["bias"].values[:, of_type],
        ensemble["time_constant"].values[:, of_type],
        ensemble["synapse_strength"].values[:, of_pair],
    )


def _pairs(dataset: xr.Dataset) -> pd.MultiIndex:
    """Source and target of each pair, as one index."""
    return pd.MultiIndex.from_arrays([dataset["source"].values, dataset["target"].values])


def _state(
    given: xr.Dataset | xr.DataArray, rendering: xr.Dataset, ensemble: xr.Dataset, connectome: xr.Dataset
) -> xr.DataArray:
    """A given state over (model or 1, sample or 1, cell), in the network's order of cells."""
    array = given["response"] if isinstance(given, xr.Dataset) else given
    problems: list[str | Problem] = []
    if not {"cell_type", "column"} <= set(array.dims) <= {"model", "sample", "cell_type", "column"}:
        problems.append(
            Problem(
                f"expected dims cell_type, column and perhaps model, sample, got {tuple(map(str, array.dims))}",
                "take one time with .isel(time=-1), and record='all'",
            )
        )
    else:
        array, wrong = _in_lattice_order(array, rendering.sizes["column"])
        problems += wrong
    raise_problems(schema.SchemaError, "the initial state does not fit", problems)
    # A model or sample that was selected is the state of all.
    array = array.drop_vars([name for name in ("model", "sample") if name in array.coords and name not in array.dims])
    like = xr.Dataset(coords={"model": ensemble["model"], "sample": rendering["sample"]})
    like = like.assign_coords(cell_type=connectome["cell_type"])
    array = align_labels(array, like, "the initial state")
    for dim in ("model", "sample"):
        array = array if dim in array.dims else array.expand_dims(dim)
    array = array.transpose("model", "sample", "cell_type", "column")
    flat = array.stack(cell=("cell_type", "column"), create_index=False)
    return flat.isel(cell=np.flatnonzero(cell_presence(connectome).ravel()))


def _in_lattice_order(array: xr.DataArray, n_columns: int) -> tuple[xr.DataArray, list[str | Problem]]:
    """The same with the columns of a lattice, found by u and v or by label, in order."""
    place, problems = lattice_columns(array, n_columns)
    taken = np.flatnonzero(place >= 0)
    order = taken[np.argsort(place[taken], kind="stable")]
    has_axes = {"u", "v"} <= set(array.coords)
    if not problems and (
        not np.array_equal(place[order], np.arange(n_columns)) or (not has_axes and array.sizes["column"] != n_columns)
    ):
        text = f"expected a state in each of the {n_columns} columns once, got {array.sizes['column']} columns, "
        text += f"{np.unique(place[taken]).size} of them in the lattice"
        way = "give the state of all columns, with u and v if it is of a larger lattice"
        problems = [*problems, Problem(text, way)]
    return array.isel(column=order), problems


def parameters_of(prepared: Prepared, model: int) -> base.Parameters:
    """Parameters of one model, by position."""
    return base.Parameters(*(values[model : model + 1] for values in prepared.parameters))


def state_of(prepared: Prepared, model: int, samples: slice) -> Any:
    """Given state of one model and some samples, by position; lazy if it was given so, None if there is none."""
    state = prepared.state
    if state is None:
        return None
    return state.isel(
        model=[model if state.sizes["model"] > 1 else 0],
        sample=samples if state.sizes["sample"] > 1 else slice(None),
    ).data


def bytes_per_sample(prepared: Prepared, copies: int = 2) -> int:
    """Memory that one sample of a block takes, byte: so many copies of what is recorded, states, and stimulus."""
    frames, n_columns = prepared.luminance.sizes["time"], prepared.luminance.sizes["column"]
    if prepared.block.start == "fade_in":
        frames += base.n_frames(base.FADE_IN, prepared.block.dt)
    n_cells = compile_network(prepared.block.tables).n_cells
    return 4 * (copies * math.prod(prepared.recorded_shape) + 4 * n_cells + 3 * frames * n_columns)
