"""Ensembles: the free parameters of many models as one Dataset, sampled at random or opened.

An ensemble is an ordinary Dataset, so that ``ensemble.sel(model=[0, 3])``, ``.mean("model")`` and arithmetic work.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xarray as xr

from flyxr import connectome as connectomes
from flyxr import downloads, flyvis, identity, provenance, schema, store
from flyxr.arguments import Arguments
from flyxr.errors import FlyxrWarning, MissingError, Problem
from flyxr.flyvis import EnsembleError
from flyxr.optics import EXTENT
from flyxr.paths import is_url, local_path
from flyxr.store import places

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from flyxr.store.places import Place

__all__ = ["EnsembleError", "open_ensemble", "sample_ensemble"]

BIAS_MEAN, BIAS_STD = 0.5, 0.05
TIME_CONSTANT = 0.05
STRENGTH_SCALE = 0.01

_ZARR_FILES = ("zarr.json", ".zgroup")


class NamedEnsemble(NamedTuple):
    """An ensemble that is opened by its name.

    ``find`` returns the path of its store, which may not exist yet. ``title`` says what it is. ``hint`` and ``command``
    say how to get it, in Python and on the command line.
    """

    find: Callable[[], Path]
    title: str
    hint: str
    command: str


NAMED: Mapping[str, NamedEnsemble] = {
    "flyvis": NamedEnsemble(
        lambda: downloads.default_cache() / "flyvis.zarr",
        "the published ensemble of Lappalainen et al. 2024",
        "fetch it with fx.fetch_pretrained()",
        "fetch it with `flyxr fetch-pretrained`",
    ),
    "flyxr": NamedEnsemble(
        lambda: Path(str(files("flyxr") / "data" / "ensemble.zarr")),
        "the ensemble that flyxr ships, trained on procedural optic flow",
        "install flyxr again, it is part of the package",
        "install flyxr again, it is part of the package",
    ),
}
"""Ensembles by name, the best one first."""


def sample_ensemble(n_models: int, seed: int, *, connectome: xr.Dataset | None = None) -> xr.Dataset:
    """Sample untrained models from the distributions that the published models were initialised with.

    Parameters
    ----------
    n_models
        Number of models, at least 1.
    seed
        Seed, at least 0. Model i depends only on (seed, i), so that more models do not change the first ones.
    connectome
        The connectome of the models; by default that of the package at extent 15.

    Returns
    -------
    Dataset
        An ensemble, float32, with ``trained=0`` in its attributes and ``task_error`` NaN:

        - ``bias`` (model, cell_type) ~ Normal(0.5, 0.05), a.u.
        - ``time_constant`` (model, cell_type) = 0.05 s
        - ``synapse_strength`` (model, pair) = 0.01 / mean number of synapses over the edges of the pair, a.u.

    Raises
    ------
    InputError
        A ValueError. If ``n_models`` is less than 1 or ``seed`` is negative.

    Notes
    -----
    Lappalainen et al. 2024, Nature 634, 1132-1140, Methods; defaults of ``flyvis.network.initialization``.

    Examples
    --------
    >>> ensemble = sample_ensemble(2, seed=42)
    >>> dict(ensemble.sizes), ensemble.attrs["trained"]
    ({'model': 2, 'cell_type': 65, 'pair': 604}, 0)
    >>> bool((ensemble.bias == sample_ensemble(5, seed=42).bias.isel(model=[0, 1])).all())
    True
    """
    arguments = Arguments()
    n_models, seed = arguments.integer("n_models", n_models, least=1), arguments.seed(seed)
    arguments.raise_problems()
    connectome = connectomes.open_connectome() if connectome is None else schema.validate(connectome, "connectome")
    strength = STRENGTH_SCALE / connectomes.mean_synapses(connectome)
    n_types = connectome.sizes["cell_type"]
    generators = [np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(i,))) for i in range(n_models)]
    ensemble = _dataset(
        {
            "bias": np.stack([generator.normal(BIAS_MEAN, BIAS_STD, n_types) for generator in generators]),
            "time_constant": np.full((n_models, n_types), TIME_CONSTANT),
            "synapse_strength": np.tile(strength, (n_models, 1)),
        },
        names=[f"sample-{seed}/{i:03}" for i in range(n_models)],
        task_error=np.full(n_models, np.nan),
        connectome=connectome,
    ).assign_attrs(
        trained=0,  # netCDF has no booleans
        description=(
            "not trained: drawn from the initial distributions of Lappalainen et al. 2024, "
            f"bias ~ Normal({BIAS_MEAN}, {BIAS_STD}), time constant {TIME_CONSTANT} s, "
            f"synapse strength {STRENGTH_SCALE} / mean synapse count of the pair"
        ),
        task_error_measure="none",
        source=f"sample_ensemble(n_models={n_models}, seed={seed})",
    )
    return provenance.add(
        ensemble,
        "sample_ensemble",
        {"n_models": n_models, "seed": seed},
        hashes={"connectome": ensemble.attrs["connectome"]},
    )


def open_ensemble(
    path: str | os.PathLike[str],
    *,
    connectome: xr.Dataset | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Open an ensemble of models from a zarr store or from results of flyvis.

    Parameters
    ----------
    path
        One of

        - ``"flyvis"``: the published ensemble, once :func:`flyxr.fetch_pretrained` has fetched it (a folder of that
          name is ``"./flyvis"``);
        - ``"flyxr"``, the ensemble that the package contains: trained on procedural optic flow, not the published
          models, see ``docs/ensemble.md``;
        - a zarr store of an ensemble, as written by :func:`flyxr.save`: a path, a zipped store, or the URL of either;
        - a directory of flyvis with models (``flow/0000``, which contains ``000``, ``001``, ...), the directory of one
          model (``flow/0000/000``), or a directory with a single ensemble at most four levels below it;
        - a zip of one of these, which is read in memory. If it contains several ensembles, choose one by a path that
          continues inside the zip, such as ``results.zip/results/flow/0000``.
    connectome
        The connectome the models were trained with. By default the one that the configuration of the models names: if
        its file lies beside them, that file, otherwise the connectome of the package, at the extent that the
        configuration states, or 15. If ``path`` is a store, the connectome is only compared with that of the store.
    storage_options
        Options of the fsspec file system of a URL, as for :func:`flyxr.open`.

    Returns
    -------
    Dataset
        An ensemble: ``bias`` (model, cell_type), a.u.; ``time_constant`` (model, cell_type), s;
        ``synapse_strength`` (model, pair), a.u., float32. Models of flyvis are sorted by task error, lowest first. Each
        is read from its best checkpoint: ``best_chkpt`` if present, otherwise the one with the lowest validation error.
        The task error is the lowest value in ``validation/epe.h5`` if every model has that file, otherwise in
        ``validation/loss.h5``; the attribute ``task_error_measure`` names the file.

    Raises
    ------
    MissingError
        A FileNotFoundError. If the path does not exist, or the named ensemble was not fetched.
    EnsembleError
        A ValueError. If there is no ensemble, or more than one; or if the checkpoint or validation error of a model is
        missing, truncated, would run code, does not match the connectome in shapes, signs or synapse counts, or belongs
        to other equations. It names all that is wrong, and no model is left out.
    StoreError, SchemaError
        ValueErrors. If a store cannot be read, or does not follow the schema.

    Warns
    -----
    FlyxrWarning
        A UserWarning. If the task error of any model is unknown. It is then NaN, and the models are in the order of
        their directories.

    Notes
    -----
    Files store parameters in the order of flyvis 1.2: cell types as in the connectome, pairs by their first edge.
    Files are opened without flyvis and without running code from them. Decoders are not read.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = store.save(sample_ensemble(2, seed=42), folder + "/ensemble.zarr")
    ...     open_ensemble(path).model_name.values.tolist()
    ['sample-42/000', 'sample-42/001']
    >>> open_ensemble("flyxr").attrs["trained"]
    1
    """
    if isinstance(path, str) and path in NAMED:
        return _open_named(path, connectome)
    if places.is_remote(path) or is_url(path):
        return _open_store(places.find(path, storage_options), connectome)
    place = local_path(path)
    if any((place / name).is_file() for name in _ZARR_FILES):
        return _open_store(place, connectome)
    if place.is_file() and (zipped := _zipped_store(place)) is not None:
        return _open_store(zipped, connectome)
    try:
        connectome = _configured_connectome(place) if connectome is None else connectome
        results = flyvis.read_results(place, checkpoint_layout(connectome))
    except FileNotFoundError as error:
        raise MissingError(
            Problem(
                f"{error} (looked for at {place.absolute()})",
                "an ensemble is a zarr store, a directory of flyvis such as flow/0000, or a zip of one; "
                "sample_ensemble(n_models, seed) needs no files",
                "an ensemble is a zarr store, a directory of flyvis such as flow/0000, or a zip of one",
            )
        ) from None
    models = results.models
    if any(np.isnan(model.task_error) for model in models):
        warnings.warn(FlyxrWarning(_unsorted(results)), stacklevel=2)
    else:
        models = sorted(models, key=lambda model: model.task_error)
    ensemble = _dataset(
        {name: np.stack([model.parameters[name] for model in models]) for name in flyvis.PARAMETERS},
        names=[model.name for model in models],
        task_error=np.array([model.task_error for model in models]),
        connectome=connectome,
    ).assign_attrs(
        trained=1,
        task_error_measure=(f"lowest {results.measure}.h5 over checkpoints" if results.measure else "none"),
        source=results.location,
    )
    return provenance.add(
        ensemble,
        "open_ensemble",
        {"path": os.fspath(path), "checkpoints": [model.checkpoint for model in models]},
        hashes={"connectome": ensemble.attrs["connectome"]},
        packages=("numpy", "xarray", "torch", "h5py"),
    )


def _zipped_store(path: Path) -> Place | None:
    """Place of the store in a zip; None if it holds something else."""
    try:
        place = places.find(path)
    except places.RemoteError:  # results of flyvis say more about a damaged zip
        return None
    return place if places.is_remote(place) and places.exists(place / "zarr.json") else None


def _unsorted(results: flyvis.Results) -> str:
    unknown = [model.name for model in results.models if np.isnan(model.task_error)]
    guessed = [model.name for model in results.models if model.is_guess]
    file = f"{results.measure or flyvis.MEASURES[1]}.h5"
    message = (
        f"{results.location}: models are in the order of their directories, not sorted by task error: {file} is "
        f"missing or holds no number for {len(unknown)} of {len(results.models)} ({', '.join(unknown)})"
    )
    if guessed:
        message += f"; the last checkpoint was used for {', '.join(guessed)}"
    return message


def _open_named(name: str, connectome: xr.Dataset | None) -> xr.Dataset:
    named = NAMED[name]
    path = named.find()
    if not path.exists():
        folder = f"; a folder of that name is opened as ./{name}" if Path(name).exists() else ""
        text = f"expected {named.title} at {path}, found nothing"
        raise MissingError(Problem(text, named.hint + folder, named.command + folder))
    try:
        return _open_store(path, connectome)
    except (store.StoreError, identity.ChangedError) as error:
        text = f"expected {named.title} at {path}, got a store that is damaged"
        raise store.StoreError(*error.problems, Problem(text, named.hint, named.command)) from error


def _configured_connectome(path: Path) -> xr.Dataset:
    """Connectome that the configuration of models names, or that of the package."""
    config = flyvis.read_connectome_of(path)
    if config is None:
        return connectomes.open_connectome()
    options = {name: getattr(config, name) for name in ("extent", "n_syn_fill") if getattr(config, name) is not None}
    if config.name == flyvis.PACKAGED_CONNECTOME or config.content is None:
        return connectomes.open_connectome(**options)
    with tempfile.TemporaryDirectory() as folder:  # the file may lie in a zip
        copy = Path(folder) / config.name
        copy.write_bytes(config.content)
        return connectomes.open_connectome(copy, **options)


def _open_store(path: Place, connectome: xr.Dataset | None) -> xr.Dataset:
    ensemble = schema.in_memory(store.open(path))
    kind = ensemble.attrs.get(schema.KIND_ATTR)
    if kind != "ensemble":
        raise EnsembleError(
            Problem(
                f"{path}: expected a store of an ensemble, got {kind or 'an unknown kind'}",
                "open it with fx.open",
                "see `flyxr info`",
            )
        )
    if connectome is not None:
        given, stored = connectomes.tables(connectome).digest, ensemble.attrs.get("connectome")
        if given != stored:
            raise EnsembleError(
                Problem(
                    f"{path}: expected models of the given connectome ({given}), got others ({stored})",
                    "pass the connectome of these models, or leave it out",
                )
            )
    return ensemble


def checkpoint_layout(connectome: xr.Dataset) -> flyvis.Layout:
    """Describe the checkpoint of a model of a connectome."""
    pairs, synapses = connectomes.realised(connectome)
    pair_names = [
        f"{source} > {target}"
        for source, target in zip(connectome["source"].values, connectome["target"].values, strict=True)
    ]
    offsets = connectome[["synapse_pair", "du", "dv"]].isel(synapse=synapses)
    return flyvis.Layout(
        cell_types=connectome["cell_type"].values.tolist(),
        pairs=[pair_names[pair] for pair in pairs],
        synapses=[
            f"{pair_names[pair]} ({du}, {dv})"
            for pair, du, dv in zip(*(offsets[name].values for name in ("synapse_pair", "du", "dv")), strict=True)
        ],
        sign=connectome["sign"].values[pairs].astype(float),
        n_synapses=connectome["n_synapses"].values[synapses].astype(float),
    )


def _dataset(
    parameters: Mapping[str, NDArray[np.floating]],
    *,
    names: Sequence[str],
    task_error: NDArray[np.float64],
    connectome: xr.Dataset,
) -> xr.Dataset:
    """Label parameters with their models, cell types and pairs."""
    pairs, _ = connectomes.realised(connectome)
    dims = {variable.name: variable.dims for variable in schema.KINDS["ensemble"].variables}
    dataset = xr.Dataset(
        {name: (dims[name], values.astype(np.float32)) for name, values in parameters.items()},
        coords={
            "model": np.arange(len(names)),
            "model_name": ("model", np.array(names, dtype=object)),
            "task_error": ("model", task_error),
            "cell_type": connectome["cell_type"].values,
            "pair": connectome["pair"].values[pairs],
            "source": ("pair", connectome["source"].values[pairs]),
            "target": ("pair", connectome["target"].values[pairs]),
        },
        attrs={
            "connectome": connectomes.tables(connectome).digest,
            "extent": int(connectome.attrs.get("extent", EXTENT)),
        },
    )
    return schema.validate(schema.annotate(dataset, "ensemble"), "ensemble")
