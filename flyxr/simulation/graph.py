"""A simulation as a lazy Dataset: one dask task for each model and block of samples."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from flyxr import identity, provenance, schema
from flyxr.engine import ENGINES
from flyxr.simulation.block import run_block, steady_state
from flyxr.simulation.checks import Prepared, bytes_per_sample, parameters_of, prepare, state_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import xarray as xr

    from flyxr.simulation.record import Record

BLOCK_BYTES = 256 * 2**20
"""Memory that a block's responses and buffers may take, byte."""
BLOCK_SAMPLES = 64
"""Samples of a block at most: more make a step no cheaper."""
RESPONSE_DIMS = ("model", "sample", "time", "cell_type", "column")
PACKAGES = ("numpy", "xarray", "dask", "torch")
"""Packages whose versions are noted with responses."""


def simulate(
    rendering: xr.Dataset | xr.DataArray,
    ensemble: xr.Dataset,
    *,
    initial_state: Literal["fade_in", "steady_state", "rest"] | xr.Dataset | xr.DataArray = "fade_in",
    record: Record | str | Iterable[str] | Mapping[str, Any] = "all",
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
        ``"all"``; ``"central"``, the column u = v = 0; cell types, as names or glob patterns; or a
        :class:`flyxr.Record` or a dict with any of ``"cell_type"`` (names), ``"column"`` (labels, or ``"central"``) and
        ``"time"`` (a slice in s, its step in frames). Only what is recorded is held in memory.
    connectome
        The connectome of the models; without it the one that the ensemble says it is of, which the package brings or
        :func:`flyxr.open_connectome` has opened.
    engine
        ``"auto"``, ``"stencil"`` (numba, float32, CPU), ``"sparse"`` (torch, float32, CPU or GPU) or ``"reference"``
        (NumPy, float64 inside, slow); see ``docs/engines.md``.
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
    ConnectomeError
        If the ensemble is of a connectome that has not been opened.
    DivergedError
        On computing, if responses grow without bound, as they do when a step is unstable.

    Warns
    -----
    FlyxrWarning
        A UserWarning. If the step is above 1/50 s, or the ensemble does not say which connectome it is of.

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
    block = prepared.block
    arguments = {
        "dt": block.dt,
        "initial_state": prepared.block.start,
        "record": prepared.record,
        "engine": block.engine,
        "device": block.device,
    }
    lazy = identity.token(prepared.luminance)
    stimulus = {} if lazy else {"stimulus": _stimulus_hash(prepared)}
    responses = provenance.add(
        prepared.labels.assign(response=(RESPONSE_DIMS, _graph(prepared))),
        "simulate",
        arguments,
        hashes={**prepared.hashes, **stimulus},
        tokens={"stimulus": lazy} if lazy else None,
        packages=PACKAGES,
    )
    return schema.annotate(responses, "responses")


def _stimulus_hash(prepared: Prepared) -> str:
    luminance = prepared.luminance
    hashes = identity.sample_hashes(luminance.values, prepared.n_frames)
    return identity.stimulus_hash(hashes, luminance["time"].values)


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
        if prepared.block.start == "steady_state":
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


def _block_samples(prepared: Prepared) -> int:
    """Samples of a block, from the memory that it may take; at least one, and about as many in each block."""
    n_samples = prepared.luminance.sizes["sample"]
    most = int(np.clip(BLOCK_BYTES // bytes_per_sample(prepared), 1, min(BLOCK_SAMPLES, n_samples)))
    even = math.ceil(n_samples / math.ceil(n_samples / most))
    n_side_by_side = ENGINES[prepared.block.engine].batch_size
    whole = -(-even // n_side_by_side) * n_side_by_side
    return whole if whole <= most else even
