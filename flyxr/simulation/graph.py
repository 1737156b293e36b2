"""A simulation as a lazy Dataset, with one dask task per model and block of samples."""

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
"""Limit for the responses and buffers of a block, bytes."""
BLOCK_SAMPLES = 64
"""Limit for the samples of a block; with more of them a step is no cheaper per sample."""
RESPONSE_DIMS = ("model", "sample", "time", "cell_type", "column")
PACKAGES = ("numpy", "xarray", "dask", "torch")
"""Packages whose versions are recorded with responses."""


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
        ``luminance`` (sample, time, column), 0 to 1, or a sum of pixels; its time step is the integration step, see
        :func:`flyxr.resample`. With the coordinate ``t_end`` (sample), s, a sample ends at that time: later responses
        are NaN.
    ensemble
        Parameters of models. Dims that were selected away from rendering or ensemble, as by ``ensemble.isel(model=0)``
        or ``ensemble.mean("model")``, are absent from the result.
    initial_state
        ``"fade_in"``: one second, from rest, in which the contrast of the first frame grows from 0 to 1 around grey.
        ``"steady_state"``: one second of grey 0.5, from rest, computed once per model. ``"rest"``: the potential is
        the bias. Or a state such as ``responses.isel(time=-1)``: ``response`` over (cell_type, column), and over
        model and sample if it differs between them.
    record
        ``"all"``; ``"central"``, the column u = v = 0; cell types, as names or glob patterns; or a
        :class:`flyxr.Record` or a dict with any of ``"cell_type"`` (names), ``"column"`` (labels, or ``"central"``) and
        ``"time"`` (a slice in s, its step in frames). Nothing else is held in memory.
    connectome
        The connectome of the models; default: the one that the ensemble names, if the package contains it or
        :func:`flyxr.open_connectome` has opened it.
    engine
        ``"auto"``, ``"stencil"`` (numba, float32, CPU), ``"sparse"`` (torch, float32, CPU or GPU) or ``"reference"``
        (NumPy, float64 inside, slow); see ``docs/engines.md``.
    device
        ``"auto"`` (a GPU if there is one), ``"cpu"``, ``"cuda"``, ``"cuda:1"``, … .

    Returns
    -------
    Dataset
        ``response`` (model, sample, time, cell_type, column), float32, NaN where a type has no cell, and
        ``luminance`` (sample, time, column). A response is the state after its frame. One dask task computes a block
        of one model and some samples, so that selecting one model computes that model alone. A block has at most as
        many samples as the largest chunk of a lazy rendering.

    Raises
    ------
    SchemaError
        If rendering or ensemble do not fit the schema, each other, or the connectome. If luminance is not finite or
        outside 0 to 1; that of a lazy rendering is checked when it is computed.
    UnknownCellTypeError
        If ``record`` names unknown cell types.
    InputError
        A ValueError. If the step is above 0.2 s, or another argument is invalid.
    ConnectomeError
        If the ensemble names a connectome that has not been opened.
    DivergedError
        When computed, if responses grow without bound, as they do if the step is unstable.

    Warns
    -----
    FlyxrWarning
        A UserWarning. If the step is above 1/50 s, or the ensemble does not name its connectome.

    Notes
    -----
    Passive point neurons with instantaneous graded synapses, explicit Euler (Lappalainen et al. 2024, Methods;
    flyvis ``Network.simulate``). Synapse strengths are not clipped: a negative one inverts the sign.

    A process that was forked after something was computed hangs when it computes, as with plain dask: start processes
    with ``multiprocessing.get_context("spawn")``, see ``docs/clusters.md``.

    Examples
    --------
    >>> import flyxr as fx
    >>> movie = fx.stimuli.moving_digits(n_samples=1, seed=0)
    >>> rendering = fx.resample(fx.BoxEye().render(movie), dt=1 / 50)
    >>> responses = fx.simulate(rendering, fx.sample_ensemble(n_models=2, seed=0), record=["T4c", "L1"])
    >>> dict(responses.response.sizes)
    {'model': 2, 'sample': 1, 'time': 34, 'cell_type': 2, 'column': 721}
    >>> fx.simulate(rendering.isel(sample=0), fx.sample_ensemble(2, seed=0).isel(model=0)).response.dims
    ('time', 'cell_type', 'column')
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
    stimulus_token = identity.token(prepared.luminance)
    stimulus_hash = {} if stimulus_token else {"stimulus": _stimulus_hash(prepared)}
    responses = provenance.add(
        prepared.labels.assign(response=(RESPONSE_DIMS, response_array(prepared))),
        "simulate",
        arguments,
        hashes={**prepared.hashes, **stimulus_hash},
        tokens={"stimulus": stimulus_token} if stimulus_token else None,
        packages=PACKAGES,
    )
    return prepared.squeeze(schema.annotate(responses, "responses"))


def _stimulus_hash(prepared: Prepared) -> str:
    luminance = prepared.luminance
    hashes = identity.sample_hashes(luminance.values, prepared.n_frames)
    return identity.stimulus_hash(hashes, luminance["time"].values)


def response_array(prepared: Prepared, *, max_samples: int = BLOCK_SAMPLES, max_bytes: int = BLOCK_BYTES) -> Any:
    """Dask array of responses, with one delayed task per model and block of samples.

    Parameters
    ----------
    prepared
        The simulation.
    max_samples, max_bytes
        As in :func:`block_size`.
    """
    import dask.array as da
    from dask.base import tokenize
    from dask.delayed import delayed

    luminance, block = prepared.luminance, prepared.block
    n_samples, shape = luminance.sizes["sample"], prepared.recorded_shape
    size = block_size(prepared, max_samples=max_samples, max_bytes=max_bytes)
    samples = luminance.data if luminance.chunks is not None else da.from_array(luminance.values, chunks=-1)
    stimuli = samples.rechunk((size, -1, -1)).to_delayed().ravel()
    starts = range(0, n_samples, size)

    shared_block = delayed(block, name=f"block-{tokenize(block, prepared.hashes)}", traverse=False)
    run = delayed(run_block, pure=True, traverse=False)
    models = []
    for model, name in enumerate(prepared.model_names):
        parameters = parameters_of(prepared, model)
        state = None
        if block.start == "steady_state":
            state = delayed(steady_state, pure=True, traverse=False)(shared_block, parameters)
        blocks = []
        for start, stimulus in zip(starts, stimuli, strict=True):
            n = min(size, n_samples - start)
            if prepared.state is not None:
                state = state_of(prepared, model, slice(start, start + n))
            n_frames = None if prepared.n_frames is None else prepared.n_frames[start : start + n]
            task = run(shared_block, parameters, stimulus, state, name, n_frames)
            blocks.append(da.from_delayed(task, (1, n, *shape), np.float32))
        models.append(da.concatenate(blocks, axis=1))
    return da.concatenate(models, axis=0) if len(models) > 1 else models[0]


def block_size(prepared: Prepared, *, max_samples: int = BLOCK_SAMPLES, max_bytes: int = BLOCK_BYTES) -> int:
    """Number of samples per block: at least one, and about equal in all blocks.

    Parameters
    ----------
    prepared
        The simulation.
    max_samples
        Limit for the samples of a block.
    max_bytes
        Limit for the memory of a block. The largest chunk of a lazy rendering is a limit as well.
    """
    luminance = prepared.luminance
    n_samples = luminance.sizes["sample"]
    limit = int(np.clip(max_bytes // bytes_per_sample(prepared), 1, min(max_samples, n_samples)))
    even = math.ceil(n_samples / math.ceil(n_samples / limit))
    batch_size = ENGINES[prepared.block.engine].batch_size
    multiple = -(-even // batch_size) * batch_size
    size = multiple if multiple <= limit else even
    return size if luminance.chunks is None else min(size, max(luminance.chunks[0]))
