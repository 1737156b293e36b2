"""From labels to an engine and back: one block of models × samples, then the lazy whole."""

from __future__ import annotations

import ctypes
import importlib
import logging
import math
import sys
import threading
import warnings
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from flyxr import hexgrid, provenance, schema
from flyxr.connectome import Tables, cell_index, cell_presence, compile_network, open_connectome, tables
from flyxr.engine import base
from flyxr.selection import central, match_cell_types

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from numpy.typing import NDArray

Record = "str | Iterable[str] | Mapping[str, Any]"

LARGEST_DT = 1 / 50
"""Step, s, above which responses are no longer close to those of smaller steps (flyvis warns there too)."""
BLOCK_BYTES = 256 * 2**20
"""Memory that a block's responses and buffers may take, byte."""
BLOCK_SAMPLES = 64
"""Samples of a block at most: more make a step no cheaper."""
_SIDE_BY_SIDE = 8
"""Samples that the stencil engine computes side by side: blocks are multiples of it where they can be."""
RESPONSE_DIMS = ("model", "sample", "time", "cell_type", "column")
PACKAGES = ("numpy", "xarray", "dask", "torch")
"""Packages whose versions are noted with responses."""
DIVERGED = 1e12
"""Responses beyond this are taken for a run that diverges; published model 032 reaches 1e7 where bright edges stay."""

_log = logging.getLogger(__name__)
_one_at_a_time = threading.Lock()


class DivergedError(ArithmeticError):
    """Responses of a model grew without bound."""


class Recorded(NamedTuple):
    """What is recorded, by position: cell types, columns and frames."""

    cell_types: NDArray[np.int64]
    columns: NDArray[np.int64]
    frames: NDArray[np.int64]


class Block(NamedTuple):
    """All that a task needs beside parameters, stimulus and state: small, and the same for every block."""

    tables: Tables
    dt: float
    fade_in: bool
    recorded: Recorded
    engine: str
    device: str


class Prepared(NamedTuple):
    """A simulation that is checked and resolved by position, of which nothing is computed.

    ``parameters`` are in the order of the compiled connectome, ``state`` is (model or 1, sample or 1, cell) and None
    where the simulation starts otherwise, ``n_frames`` (sample,) are the frames before the end of each sample and
    None where all are of one length. ``labels`` are responses without ``response``.
    """

    luminance: xr.DataArray
    parameters: base.Parameters
    block: Block
    start: str
    state: xr.DataArray | None
    n_frames: NDArray[np.int64] | None
    labels: xr.Dataset
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


def simulate(
    rendering: xr.Dataset | xr.DataArray,
    ensemble: xr.Dataset,
    *,
    initial_state: Literal["fade_in", "steady_state", "rest"] | xr.Dataset | xr.DataArray = "fade_in",
    record: str | Iterable[str] | Mapping[str, Any] = "all",
    connectome: xr.Dataset | None = None,
    engine: str = "auto",
    device: str = "auto",
) -> xr.Dataset:
    """Simulate the responses of models to a rendering, lazily.

    Parameters
    ----------
    rendering
        ``luminance`` (sample, time, column); its time step is the integration step, see :func:`flyxr.resample`.
        With the coordinate ``t_end`` (sample), s, a sample is over at that time: responses after it are NaN.
    ensemble
        Parameters of models.
    initial_state
        ``"fade_in"``: one second in which the first frame's contrast grows from 0 to 1 around grey, from rest.
        ``"steady_state"``: one second of grey 0.5, from rest, computed once a model. ``"rest"``: the potential is
        the bias. Or a state: ``response`` over (cell_type, column) and, where it differs between them, over model
        and sample, such as ``responses.isel(time=-1)``.
    record
        ``"all"``; ``"central"``, the column u = v = 0; cell types, as names or glob patterns; or a dict with any of
        ``"cell_type"`` (names), ``"column"`` (labels, or ``"central"``) and ``"time"`` (a slice in s, its step in
        frames). Only what is recorded is held in memory.
    connectome
        The connectome of the models; without it that of the package at extent 15.
    engine
        ``"auto"``, ``"stencil"`` (numba, float32, CPU), ``"sparse"`` (torch, float32, CPU or GPU) or ``"reference"``
        (NumPy, float64 inside, slow).
    device
        ``"auto"`` (a GPU where there is one), ``"cpu"``, ``"cuda"``, ``"cuda:1"``, … .

    Returns
    -------
    Dataset
        ``response`` (model, sample, time, cell_type, column), float32, NaN where a type has no cell, and
        ``luminance`` (sample, time, column) beside it. A response is the state after its frame. One dask task
        computes a block of one model and some samples; selecting one model computes one model.

    Raises
    ------
    SchemaError
        If rendering or ensemble do not fit the schema, or each other, or the connectome.
    UnknownCellTypeError
        If ``record`` names unknown cell types.
    DivergedError
        On computing, if responses grow without bound, as they do when a step is unstable.

    Warns
    -----
    UserWarning
        If the step is above 1/50 s.

    Notes
    -----
    Passive point neurons with instantaneous graded synapses, explicit Euler (Lappalainen et al. 2024, Methods;
    flyvis ``Network.simulate``). Synapse strengths are taken as they are: a negative one inverts the sign.

    Examples
    --------
    >>> import flyxr as fx
    >>> movie = fx.stimuli.moving_digits(n_samples=1, seed=0)
    >>> rendering = fx.resample(fx.BoxEye().render(movie), dt=1 / 50)
    >>> responses = fx.simulate(rendering, fx.sample_ensemble(n_models=2, seed=0), record=["T4c", "L1"])
    >>> dict(responses.response.sizes)
    {'model': 2, 'sample': 1, 'time': 34, 'cell_type': 2, 'column': 721}
    """
    prepared = prepare(
        rendering,
        ensemble,
        initial_state=initial_state,
        record=record,
        connectome=connectome,
        engine=engine,
        device=device,
        stacklevel=3,
    )
    stimulus = {"stimulus": provenance.content_hash(schema.as_dataset(rendering, "rendering"), ["luminance", "time"])}
    arguments = {
        "dt": prepared.block.dt,
        "initial_state": prepared.start,
        "record": record if isinstance(record, str | dict) else list(record),
        "engine": engine,
        "device": device,
    }
    responses = provenance.add(
        prepared.labels.assign(response=(RESPONSE_DIMS, _graph(prepared))),
        "simulate",
        arguments,
        hashes={**prepared.hashes, **stimulus},
        packages=PACKAGES,
    )
    return schema.annotate(responses, "responses")


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
    ensemble = schema.validate(ensemble, "ensemble").load()
    connectome = open_connectome() if connectome is None else schema.validate(connectome, "connectome")
    plain = tables(connectome)
    _check_fit(rendering, ensemble, connectome, plain)
    parameters = engine_parameters(ensemble, connectome)
    dt = schema.time_step(rendering)
    if dt > LARGEST_DT * (1 + 1e-6):
        warnings.warn(
            f"the integration step of {dt:.4g} s is above 1/50 s: responses lose accuracy, may oscillate or diverge, "
            "and the published models were trained with 1/50 s; use fx.resample(rendering, dt=1/100)",
            stacklevel=stacklevel,
        )
    recorded = _resolve(record, rendering, connectome)
    start = initial_state if isinstance(initial_state, str) else "given"
    if isinstance(initial_state, str) and start not in ("fade_in", "steady_state", "rest"):
        raise ValueError(f"expected initial_state 'fade_in', 'steady_state', 'rest' or a state, got {start!r}")
    state = None if isinstance(initial_state, str) else _state(initial_state, rendering, ensemble, connectome)
    block = Block(plain, dt, start == "fade_in", recorded, *choose_engine(engine, device))

    luminance = rendering["luminance"]
    if luminance.chunks is None:
        _check_finite(luminance.values)
    hashes = {
        "connectome": plain.digest,
        "ensemble": provenance.content_hash(ensemble, list(parameters._fields)),
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
    return Prepared(luminance, parameters, block, start, state, schema.frames_to_end(rendering), labels, hashes)


def choose_engine(engine: str = "auto", device: str = "auto") -> tuple[str, str]:
    """Engine and device that compute; what ``"auto"`` stands for is chosen here and logged.

    Parameters
    ----------
    engine
        ``"stencil"`` on the CPU and ``"sparse"`` on a GPU are the fastest; ``"sparse"`` and the slow ``"reference"``
        run on the CPU as well.
    device
        A GPU where there is one, unless the engine named knows the CPU only.

    Raises
    ------
    ValueError
        If there is no such engine, or it does not run on the device.

    Examples
    --------
    >>> choose_engine("auto", "cpu"), choose_engine("auto", "cuda:1")
    (('stencil', 'cpu'), ('sparse', 'cuda:1'))
    """
    if engine not in ("auto", "stencil", "sparse", "reference"):
        raise ValueError(f"expected engine 'auto', 'stencil', 'sparse' or 'reference', got {engine!r}")
    chosen_device = device
    if device == "auto":
        chosen_device = "cuda" if engine in ("auto", "sparse") and _has_gpu() else "cpu"
    chosen = engine
    if engine == "auto":
        chosen = "stencil" if chosen_device == "cpu" else "sparse"
    if chosen in ("stencil", "reference") and chosen_device != "cpu":
        raise ValueError(f"the {chosen} engine computes on the CPU, got device={device!r}: use engine='sparse'")
    if "auto" in (engine, device):
        _log.info("engine=%r, device=%r: %s on %s", engine, device, chosen, chosen_device)
    return chosen, chosen_device


def _has_gpu() -> bool:
    """Whether torch can use a GPU; torch is only asked, and loaded, where there is a driver."""
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    import torch

    return torch.cuda.is_available()


def _check_fit(rendering: xr.Dataset, ensemble: xr.Dataset, connectome: xr.Dataset, plain: Tables) -> None:
    problems = []
    extent = hexgrid.extent_of(rendering.sizes["column"])
    if extent != plain.extent:
        problems.append(
            f"expected a rendering at the connectome's extent {plain.extent}, got {rendering.sizes['column']} columns "
            f"(extent {extent}): render with fx.BoxEye(extent={plain.extent}), or simulate a smaller lattice with "
            f"connectome=fx.open_connectome(extent={extent})"
        )
    trained_on = ensemble.attrs.get("connectome", plain.digest)
    if trained_on != plain.digest:
        problems.append(
            f"expected an ensemble of the connectome {plain.digest}, got one of {trained_on}: "
            "open the connectome of the models with fx.open_connectome(path) and give it as connectome="
        )
    else:
        types = set(connectome["cell_type"].values) - set(ensemble["cell_type"].values)
        if types:
            problems.append(
                f"expected parameters of all cell types, got none of {sorted(types)}: keep the whole ensemble"
            )
        needed, given = _pairs(connectome).take(compile_network(plain).pairs), _pairs(ensemble)
        lacking = needed.difference(given)
        if not given.is_unique:
            problems.append(f"expected each pair once, got twice {given[given.duplicated()][:3].tolist()}")
        if len(lacking):
            problems.append(
                f"expected strengths of all {len(needed)} pairs, got none of {lacking[:3].tolist()}: keep all pairs"
            )
    for name, least in (("bias", -np.inf), ("time_constant", 0), ("synapse_strength", -np.inf)):
        values = ensemble[name].values
        wrong = ~np.isfinite(values) | (values <= least)
        if wrong.any():
            models = ensemble["model_name"].values[wrong.any(axis=1)].tolist()
            problems.append(
                f"expected '{name}' finite{' and above 0' if least == 0 else ''}, got {values[wrong][0]} "
                f"in {len(models)} models, first {models[0]}: drop these models or mend the parameters"
            )
    if problems:
        raise schema.SchemaError("\n- ".join(["rendering, ensemble and connectome do not fit together:", *problems]))


def engine_parameters(ensemble: xr.Dataset, connectome: xr.Dataset) -> base.Parameters:
    """Parameters in the order of the compiled connectome, matched by label: what engines take.

    Examples
    --------
    >>> from flyxr.ensemble import sample_ensemble
    >>> engine_parameters(sample_ensemble(2, seed=0), open_connectome()).synapse_strength.shape
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


def _resolve(record: Any, rendering: xr.Dataset, connectome: xr.Dataset) -> Recorded:
    """Positions of what is recorded."""
    known = {"cell_type", "column", "time"}
    if isinstance(record, str) and record in ("all", "central"):
        record = {} if record == "all" else {"column": "central"}
    elif not hasattr(record, "keys"):
        record = {"cell_type": record}
    if set(record) - known:
        raise ValueError(f"expected record with any of {sorted(known)}, got {sorted(set(record) - known)}")
    available = connectome["cell_type"].values.tolist()
    names = match_cell_types(record.get("cell_type", available), available)
    positions = np.arange(rendering.sizes["column"])
    columns = record.get("column", positions)
    if isinstance(columns, str) and columns == "central":
        columns = [int(central(rendering["column"]))]
    columns = np.atleast_1d(np.asarray(columns))
    if columns.dtype.kind not in "iu" or (columns.size and not (0 <= columns.min() and columns.max() < positions.size)):
        raise ValueError(
            f"expected columns in record from 0 to {positions.size - 1}, or 'central', got {record['column']}"
        )
    time, when = rendering["time"].values, record.get("time", slice(None))
    if not isinstance(when, slice) or not (when.step is None or isinstance(when.step, int)):
        raise ValueError(f"expected record['time'] as a slice in s (its step in frames), got {when!r}")
    tolerance = 1e-6 * schema.time_step(rendering)
    within = np.ones(time.size, dtype=bool)
    if when.start is not None:
        within &= time >= when.start - tolerance
    if when.stop is not None:
        within &= time <= when.stop + tolerance
    frames = np.flatnonzero(within)[:: when.step]
    if not (names and columns.size and frames.size):
        raise ValueError(
            f"record selects nothing: {len(names)} cell types, {columns.size} columns, {frames.size} frames "
            f"of {len(available)}, {positions.size}, {time.size} (time from {time[0]:g} s to {time[-1]:g} s)"
        )
    types = np.array([available.index(name) for name in names])
    return Recorded(types, columns.astype(np.int64), frames)


def _state(
    given: xr.Dataset | xr.DataArray, rendering: xr.Dataset, ensemble: xr.Dataset, connectome: xr.Dataset
) -> xr.DataArray:
    """A given state over (model or 1, sample or 1, cell), in the network's order of cells."""
    array = given["response"] if isinstance(given, xr.Dataset) else given
    problems = []
    if not {"cell_type", "column"} <= set(array.dims) <= {"model", "sample", "cell_type", "column"}:
        problems.append(
            f"expected dims cell_type, column and perhaps model, sample, got {tuple(map(str, array.dims))}: "
            "take one time with .isel(time=-1), and record='all'"
        )
    for dim, labels in (
        ("model", ensemble["model"]),
        ("sample", rendering["sample"]),
        ("cell_type", connectome["cell_type"]),
        ("column", rendering["column"]),
    ):
        if dim in array.dims:
            lacking = set(labels.values.tolist()) - set(array[dim].values.tolist())
            if lacking:
                problems.append(f"expected a state for each {dim}, got none for {sorted(lacking)[:5]}")
            else:
                array = array.sel({dim: labels.values})
    if problems:
        raise schema.SchemaError("\n- ".join(["the initial state does not fit:", *problems]))
    for dim in ("model", "sample"):
        array = array if dim in array.dims else array.expand_dims(dim)
    array = array.transpose("model", "sample", "cell_type", "column")
    flat = array.stack(cell=("cell_type", "column"), create_index=False)
    return flat.isel(cell=np.flatnonzero(cell_presence(connectome).ravel()))


def _check_finite(luminance: NDArray[np.floating]) -> None:
    if not np.isfinite(luminance).all():
        wrong = (~np.isfinite(luminance)).any(axis=(1, 2)).sum()
        raise schema.SchemaError(
            f"expected a finite luminance, got NaN or inf in {wrong} of {len(luminance)} samples: "
            "fill or cut the movie before it is rendered; samples of different length are filled up with grey 0.5, and "
            "say where each ends with the coordinate t_end (sample), in s"
        )


def _graph(prepared: Prepared) -> Any:
    """Dask array of responses: one delayed task for each model and block of samples."""
    import dask.array as da
    from dask.base import tokenize
    from dask.delayed import delayed

    luminance, block, state = prepared.luminance, prepared.block, prepared.state
    n_samples, shape = luminance.sizes["sample"], prepared.recorded_shape
    size = _block_samples(prepared)
    if luminance.chunks is not None:
        size = min(size, max(luminance.chunks[0]))
    samples = luminance.data if luminance.chunks is not None else da.from_array(luminance.values, chunks=-1)
    stimulus = samples.rechunk((size, -1, -1)).to_delayed().ravel()
    starts = range(0, n_samples, size)

    shared = delayed(block, name=f"block-{tokenize(block, prepared.hashes)}", traverse=False)
    run = delayed(run_block, pure=True, traverse=False)
    models = []
    for model, name in enumerate(prepared.model_names):
        of_model = parameters_of(prepared, model)
        start = None
        if prepared.start == "steady_state":
            start = delayed(steady_state, pure=True, traverse=False)(shared, of_model)
        blocks = []
        for first, luminance_block in zip(starts, stimulus, strict=True):
            n = min(size, n_samples - first)
            if state is not None:
                start = state_of(prepared, model, slice(first, first + n))
            n_frames = None if prepared.n_frames is None else prepared.n_frames[first : first + n]
            task = run(shared, of_model, luminance_block, start, name, n_frames)
            blocks.append(da.from_delayed(task, (1, n, *shape), np.float32))
        models.append(da.concatenate(blocks, axis=1))
    return da.concatenate(models, axis=0) if len(models) > 1 else models[0]


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
    if prepared.block.fade_in:
        frames += base.n_frames(base.FADE_IN, prepared.block.dt)
    n_cells = compile_network(prepared.block.tables).n_cells
    return 4 * (copies * math.prod(prepared.recorded_shape) + 4 * n_cells + 3 * frames * n_columns)


def _block_samples(prepared: Prepared) -> int:
    """Samples of a block, from the memory that it may take; at least one, and about as many in each block."""
    n_samples = prepared.luminance.sizes["sample"]
    most = int(np.clip(BLOCK_BYTES // bytes_per_sample(prepared), 1, min(BLOCK_SAMPLES, n_samples)))
    even = math.ceil(n_samples / math.ceil(n_samples / most))
    whole = -(-even // _SIDE_BY_SIDE) * _SIDE_BY_SIDE
    return whole if whole <= most else even


def _integrate(
    block: Block, parameters: base.Parameters, stimulus: NDArray[np.floating], **options: Any
) -> base.Integrated:
    engine = importlib.import_module(f"flyxr.engine.{block.engine}")
    network = compile_network(block.tables)
    with _torch_alone() if block.engine == "sparse" else nullcontext():
        result: base.Integrated = engine.integrate(
            network, parameters, stimulus, block.dt, device=block.device, **options
        )
    return result


@contextmanager
def _torch_alone() -> Iterator[None]:
    """Tasks take turns with torch, which uses all threads of the process by itself; the stencil's share a pool."""
    import torch

    with _one_at_a_time:
        before = torch.get_num_threads()
        torch.set_num_threads(base.n_threads())
        try:
            yield
        finally:
            torch.set_num_threads(before)


def steady_state(block: Block, parameters: base.Parameters) -> NDArray[np.floating]:
    """State (model, sample 1, cell) after one second of grey from rest."""
    stimulus = base.grey(hexgrid.n_columns(block.tables.extent), block.dt)
    return _integrate(block, parameters, stimulus, frames=np.arange(0)).state


def run_block(
    block: Block,
    parameters: base.Parameters,
    stimulus: NDArray[np.floating],
    state: NDArray[np.floating] | None,
    model_name: str,
    n_frames: NDArray[np.int64] | None = None,
) -> NDArray[np.float32]:
    """Responses (model 1, sample, time, cell_type, column) of one model to some samples.

    After its first ``n_frames`` (sample,) a sample is over: its responses are NaN, and frames after the longest
    sample of the block are not computed.
    """
    stimulus = np.asarray(stimulus, dtype=np.float32)
    _check_finite(stimulus)
    frames = block.recorded.frames
    if n_frames is not None:
        stimulus, frames = stimulus[:, : n_frames.max()], frames[frames < n_frames.max()]
    if block.fade_in:
        lead = base.fade_in(stimulus[:, 0], block.dt)
        stimulus, frames = np.concatenate([lead, stimulus], axis=1), frames + lead.shape[1]
    wanted = cell_index(block.tables)[np.ix_(block.recorded.cell_types, block.recorded.columns)]
    result = _integrate(block, parameters, stimulus, state=state, cells=wanted.ravel(), frames=frames)
    responses = result.responses.astype(np.float32, copy=False).reshape(*result.responses.shape[:-1], *wanted.shape)
    largest = np.abs(result.state).max()
    if n_frames is not None:
        responses = _cut(responses, block.recorded.frames, n_frames)
        # What became of a sample after its end does not count.
        ran_to_its_end = result.state[:, n_frames == n_frames.max()]
        largest = np.max([np.abs(ran_to_its_end).max(), np.nanmax(np.abs(responses), initial=0)])
    if not largest <= DIVERGED:
        raise DivergedError(
            f"responses of model {model_name} grow without bound (to {largest:.3g}) with a step of {block.dt:.4g} s: "
            "if a smaller one, fx.resample(rendering, dt=...), does not help, the network itself is unstable"
        )
    return responses


def _cut(responses: NDArray[np.float32], frames: NDArray[np.int64], n_frames: NDArray[np.int64]) -> NDArray[np.float32]:
    """Responses over all recorded frames, NaN from the end of each sample on."""
    whole = np.full((*responses.shape[:2], len(frames), *responses.shape[3:]), np.nan, np.float32)
    whole[:, :, : responses.shape[2]] = responses
    for sample, end in enumerate(n_frames):
        whole[:, sample, frames >= end] = np.nan
    return whole
