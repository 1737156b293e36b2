"""Training of an ensemble: models side by side as dask tasks, with checkpoints and progress."""

from __future__ import annotations

import tempfile
import threading
import warnings
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from flyxr import connectome as connectomes
from flyxr import identity, provenance, schema
from flyxr.arguments import Arguments
from flyxr.engine import base, choose_engine
from flyxr.ensemble import sample_ensemble
from flyxr.errors import FlyxrWarning, InputError, Problem
from flyxr.paths import local_path
from flyxr.simulation.checks import engine_parameters
from flyxr.training.calibration import calibrate
from flyxr.training.checkpoints import ModelFile, open_folder
from flyxr.training.checks import PARAMETERS, check_fixed, check_loss, make_task, training_connectome
from flyxr.training.loop import Recipe
from flyxr.training.losses import activity_penalty, describe
from flyxr.training.models import Plan, train_model

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    import xarray as xr

    from flyxr.training.losses import Loss, Penalty
    from flyxr.training.models import TrainedModel

JITTER = 0.1
"""Standard deviation of the logarithm of a strength at the start, relative to the calibrated one."""
POLL_INTERVAL = 0.5  # s
PACKAGES = ("numpy", "xarray", "dask", "torch", "numba")


def calibrated_ensemble(
    rendering: xr.Dataset | xr.DataArray,
    n_models: int,
    seed: int,
    *,
    connectome: xr.Dataset | None = None,
    extent: int | None = None,
) -> xr.Dataset:
    """Make untrained models in which every cell type responds to stimuli: the start of :func:`flyxr.train`.

    Parameters
    ----------
    rendering
        ``luminance`` (sample, time, column); 16 of its samples are used.
    n_models
        Number of models.
    seed
        Seed, at least 0. Model i depends only on (seed, i) and the rendering.
    connectome, extent
        As in :func:`flyxr.train`.

    Returns
    -------
    Dataset
        An ensemble. The strength of a synapse is a gain of its target type times exp(Normal(0, 0.1)) of the pair. Gains
        and biases are such that the potential of each type has a mean of about 0.15 and a standard deviation of about
        0.2, where the inputs of the type allow it. Time constants are 0.05 s.

    Raises
    ------
    InputError, SchemaError
        As in :func:`flyxr.train`.

    Examples
    --------
    >>> import flyxr as fx
    >>> connectome = fx.open_connectome(extent=2)
    >>> scenes = fx.stimuli.moving_layers(4, seed=0, extent=2)
    >>> ensemble = calibrated_ensemble(scenes, 1, seed=0, connectome=connectome)
    >>> dict(ensemble.sizes), ensemble.attrs["trained"]
    ({'model': 1, 'cell_type': 65, 'pair': 604}, 0)
    """
    arguments = Arguments()
    n_models, seed = arguments.integer("n_models", n_models, least=1), arguments.seed(seed)
    arguments.raise_problems()
    connectome = connectomes.open_connectome() if connectome is None else schema.validate(connectome, "connectome")
    task, extent = make_task(rendering, None, extent=extent)
    network = connectomes.compile_network(training_connectome(connectome, extent))
    models = []
    for i in range(n_models):
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(i,)))
        jitter = np.exp(JITTER * rng.standard_normal(network.pairs.size))
        models.append(calibrate(network, task.luminance, task.dt, jitter))
    template = sample_ensemble(n_models, seed, connectome=connectome)
    del template.attrs[provenance.ATTR]
    ensemble = _with_parameters(template, models, connectome)
    ensemble["model_name"] = ("model", np.array([f"calibrated-{seed}/{i:03}" for i in range(n_models)], dtype=object))
    ensemble = ensemble.assign_attrs(
        description=(
            "not trained: strengths proportional to synapse counts, with a gain and a bias per cell type at which all "
            "types respond to the stimuli"
        ),
        source=f"calibrated_ensemble(n_models={n_models}, seed={seed})",
    )
    operation = {"n_models": n_models, "seed": seed, "extent": extent}
    hashes = {"connectome": ensemble.attrs["connectome"]}
    return provenance.add(ensemble, "calibrated_ensemble", operation, hashes=hashes, packages=PACKAGES)


def _with_parameters(template: xr.Dataset, models: Sequence[base.Parameters], connectome: xr.Dataset) -> xr.Dataset:
    """Ensemble with the labels of a template, and parameters of models in the order of the connectome."""
    one = template.isel(model=[0])
    numbered = one.assign({name: one[name].copy(data=np.arange(one[name].size)[None]) for name in PARAMETERS})
    positions = engine_parameters(numbered, connectome)
    variables = {}
    for name in PARAMETERS:
        values = template[name].values.astype(np.float32)
        values[:, getattr(positions, name)[0]] = np.concatenate([getattr(model, name) for model in models])
        variables[name] = template[name].copy(data=values)
    return template.assign(variables)


def train(
    rendering: xr.Dataset | xr.DataArray,
    loss: Loss,
    *,
    ensemble: xr.Dataset | None = None,
    n_models: int | None = None,
    seed: int = 0,
    connectome: xr.Dataset | None = None,
    extent: int | None = None,
    targets: xr.Dataset | xr.DataArray | None = None,
    validation: xr.Dataset | None = None,
    penalties: Iterable[Penalty] | None = None,
    fixed: Iterable[str] = (),
    n_iterations: int = 2000,
    batch_size: int = 16,
    learning_rates: Mapping[str, float] | None = None,
    checkpoints: str | Path | None = None,
    device: str = "auto",
    progress: bool = True,
) -> xr.Dataset:
    """Train models on a task, or fit them to recordings.

    Models are trained side by side, each in its own dask task: on a ``dask.distributed`` client if there is one,
    otherwise in processes, one per core. A model has 734 parameters, which all columns share, so that models trained on
    a small lattice can be simulated on a large one.

    Parameters
    ----------
    rendering
        Stimuli: ``luminance`` (sample, time, column), finite. Its other variables over ``sample`` and ``time`` are
        targets. Each sample starts from grey. Its time step is the integration step.
    loss
        :func:`flyxr.training.flow_loss`, :func:`flyxr.training.response_loss`, or any function ``loss(responses,
        targets)`` of torch tensors that returns a scalar. ``responses`` maps each cell type to (sample, time, column),
        ``targets`` maps each target to (sample, time, …).
    ensemble
        Models to start from, such as :func:`flyxr.sample_ensemble` or published ones. By default
        :func:`flyxr.training.calibrated_ensemble`, since little is learned from the initial distributions of the
        published models in short trainings.
    n_models
        Number of models if no ensemble is given; default: 1.
    seed
        Seed of the start and of the batches. Model i depends only on (seed, i).
    connectome
        The connectome of the models; default: the one that the ensemble names, or that of the package.
    extent
        Radius of the lattice to train on, up to that of the rendering, which is the default.
    targets
        Further targets, with the samples and times of the rendering.
    validation
        Stimuli and targets like the rendering; the loss on them is then the task error.
    penalties
        Functions ``penalty(responses, parameters)``, which are added to the loss; default:
        :func:`flyxr.training.activity_penalty` if all cell types are recorded for the loss, otherwise none.
    fixed
        Parameters that are not trained: ``"bias"``, ``"time_constant"``, ``"synapse_strength"``.
    n_iterations, batch_size
        Number of steps, and of samples in each.
    learning_rates
        Largest steps of Adam by name of the parameter, which replace defaults: ``synapse_strength`` 0.004, relative;
        ``bias`` 0.002; ``time_constant`` 0.0001 s; ``loss`` 0.002, of the parameters of the loss. They grow during the
        first tenth of the iterations, at most 300, and then decay by a cosine.
    checkpoints
        Folder for checkpoints; a training that was stopped continues when it is called again with the same arguments.
        By default there are none. Workers on other machines need a folder that all machines share.
    device
        ``"auto"`` (a GPU if there is one), ``"cpu"``, ``"cuda"``, … .
    progress
        Show a progress bar over the iterations of all models.

    Returns
    -------
    Dataset
        An ensemble with the models in their order, and ``loss`` (model, iteration), before each step; NaN after a model
        diverged. ``task_error`` is the loss on the validation stimuli, or the mean of the last tenth of the losses.

    Raises
    ------
    SchemaError
        If the rendering, the ensemble or the connectome do not fit the schema.
    InputError
        A ValueError. If targets do not fit the rendering or are all NaN, the extent loses synapses of the connectome,
        an option is invalid, or no model has a finite loss in its first iteration.
    UnknownCellTypeError
        If the loss names unknown cell types.
    ExistsError
        If the folder of checkpoints holds another training.
    UnwritableError
        An OSError. If checkpoints cannot be written.

    Warns
    -----
    FlyxrWarning
        A UserWarning. If models diverged; each keeps the last parameters whose loss was finite.

    Notes
    -----
    Adam (Kingma and Ba 2014) on log strengths, biases and time constants; the latter stay above the step. Strengths
    keep their sign. Gradients are those of :func:`flyxr.engine.sparse.respond`. If the loss begins after the third
    frame, as that of :func:`flyxr.training.flow_loss`, none flow through the frames before. Samples of a rendering with
    the coordinate ``scene`` are drawn together if they have the same. See ``docs/ensemble.md`` for a recipe, its
    results and its cost.

    Examples
    --------
    >>> import flyxr as fx
    >>> connectome = fx.open_connectome(extent=2)
    >>> scenes = fx.stimuli.moving_layers(8, seed=0, extent=2)
    >>> trained = train(
    ...     scenes, fx.training.flow_loss(), connectome=connectome, n_iterations=2, batch_size=4, progress=False
    ... )
    >>> trained.loss.sizes["iteration"], trained.attrs["trained"]
    (2, 1)
    """
    recipe = _make_recipe(n_iterations, batch_size, learning_rates, check_fixed(fixed))
    arguments = Arguments()
    seed = arguments.seed(seed)
    n_models = None if n_models is None else arguments.integer("n_models", n_models, least=1)
    arguments.raise_problems()
    if ensemble is not None:
        ensemble = schema.in_memory(schema.validate(ensemble, "ensemble"))
        if n_models not in (None, ensemble.sizes["model"]):
            text = f"expected n_models={ensemble.sizes['model']}, as in the ensemble, got {n_models}"
            raise InputError(Problem(text, "leave n_models out, or select models of the ensemble"))
        connectome = connectomes.find_connectome(ensemble.attrs, connectome)
    elif connectome is None:
        connectome = connectomes.open_connectome()
    connectome = schema.in_memory(schema.validate(connectome, "connectome"))
    recorded = getattr(getattr(loss, "recording", None), "cell_types", None)
    if penalties is None:
        penalties = [activity_penalty()] if recorded is None else []
    penalties = list(penalties)
    check_loss(loss, penalties, connectome)
    task, extent = make_task(rendering, loss, targets, extent=extent)
    smaller = training_connectome(connectome, extent)
    tested = None if validation is None else make_task(validation, loss, extent=extent, name="validation")[0]
    _, device_name = choose_engine("sparse" if device != "cpu" else "auto", device)
    if ensemble is None:
        ensemble = calibrated_ensemble(rendering, n_models or 1, seed, connectome=connectome, extent=extent)
    start = engine_parameters(ensemble, smaller)
    starts = [base.Parameters(*(values[i : i + 1] for values in start)) for i in range(len(start.bias))]
    fingerprint = {
        "stimuli": identity.digest(task.luminance, *(task.targets[name] for name in sorted(task.targets))),
        "start": identity.digest(*start),
        "connectome": connectomes.tables(smaller).digest,
        "loss": describe(loss),
        "penalties": [describe(penalty) for penalty in penalties],
        "seed": seed,
        "recipe": {name: _plain(getattr(recipe, name)) for name in Recipe.__dataclass_fields__},
    }
    with _folder(checkpoints, fingerprint, len(starts)) as folder:
        plan = Plan(smaller, task, tested, loss, penalties, recipe, seed, str(folder), device_name)
        given = ensemble["model_name" if "model_name" in ensemble.coords else "model"].values.tolist()
        names = [str(name) for name in given]
        with _progress(folder, names, recipe.n_iterations, progress):
            models = _run(plan, starts)
    _report_diverged(models, names)
    return _wrap(ensemble, models, plan, validation is not None, fingerprint)


def _make_recipe(
    n_iterations: Any, batch_size: Any, learning_rates: Mapping[str, float] | None, fixed: tuple[str, ...]
) -> Recipe:
    arguments = Arguments()
    n_iterations = arguments.integer("n_iterations", n_iterations, least=1)
    batch_size = arguments.integer("batch_size", batch_size, least=1)
    rates = dict(Recipe().learning_rates)
    for name, rate in (learning_rates or {}).items():
        if name not in rates:
            arguments.problems.append(f"expected learning_rates of {', '.join(rates)}, got {name!r}")
        else:
            rates[name] = arguments.number(f"learning_rates[{name!r}]", rate, least=0)
    arguments.raise_problems()
    warm_up = min(300, max(n_iterations // 10, 1))
    return Recipe(n_iterations, warm_up, batch_size, rates, fixed)


def _plain(value: Any) -> Any:
    return dict(value) if hasattr(value, "items") else list(value) if isinstance(value, tuple) else value


@contextmanager
def _folder(path: str | Path | None, fingerprint: Mapping[str, Any], n_models: int) -> Iterator[Path]:
    """Folder of checkpoints; a temporary one if none was given."""
    with nullcontext(path) if path is not None else tempfile.TemporaryDirectory(prefix="flyxr-train-") as given:
        folder = local_path(given, "checkpoints")
        open_folder(folder, fingerprint, n_models)
        yield folder


@contextmanager
def _progress(folder: Path, names: Sequence[str], n_iterations: int, is_shown: bool) -> Iterator[None]:
    """Progress bar of all models, read from the files that their tasks write."""
    if not is_shown:
        yield
        return
    from tqdm import tqdm

    files = [ModelFile(folder, i) for i in range(len(names))]
    is_done = threading.Event()

    def update() -> None:
        reports = [file.progress() for file in files]
        bar.update(sum(iteration for iteration, _ in reports) - bar.n)
        losses = [loss for iteration, loss in reports if iteration]
        if losses:
            bar.set_postfix_str(f"loss {np.nanmean(losses):.4g}")

    def poll() -> None:
        while not is_done.wait(POLL_INTERVAL):
            update()

    with tqdm(total=len(names) * n_iterations, desc=f"training {len(names)} models", unit="step") as bar:
        thread = threading.Thread(target=poll, daemon=True)
        thread.start()
        try:
            yield
        finally:
            is_done.set()
            thread.join()
            update()


def _run(plan: Plan, starts: Sequence[base.Parameters]) -> list[TrainedModel]:
    """Run one task per model."""
    from dask.base import compute
    from dask.delayed import delayed

    shared = delayed(plan, traverse=False)
    task = delayed(train_model, pure=False, traverse=False)
    tasks = [task(shared, start, i) for i, start in enumerate(starts)]
    if _has_client() or len(starts) > 1:
        options: dict[str, Any] = {} if _has_client() else {"scheduler": "processes", "num_workers": base.n_threads()}
        if plan.device != "cpu" and not _has_client():
            options = {"scheduler": "synchronous"}  # models share one GPU
        return list(compute(*tasks, **options))
    return [train_model(plan, starts[0], 0)]


def _has_client() -> bool:
    import sys

    distributed = sys.modules.get("distributed")
    if distributed is None:
        return False
    try:
        distributed.get_client()
    except ValueError:
        return False
    return True


def _report_diverged(models: Sequence[TrainedModel], names: Sequence[str]) -> None:
    diverged = [(name, model.diverged_at) for name, model in zip(names, models, strict=True) if model.diverged_at >= 0]
    if len(diverged) == len(models) and all(iteration == 0 for _, iteration in diverged):
        raise InputError(
            Problem(
                "expected a finite loss in the first iteration, got NaN or infinity for all models",
                "a loss of your own must leave out what is NaN in targets and responses, e.g. with torch.isfinite",
            )
        )
    if diverged:
        text = ", ".join(f"{name} in iteration {iteration}" for name, iteration in diverged)
        hint = "they keep the last parameters whose loss was finite; smaller learning_rates may help"
        warnings.warn(
            FlyxrWarning(Problem(f"the loss of {len(diverged)} models was not finite: {text}", hint)), stacklevel=3
        )


def _wrap(
    start: xr.Dataset, models: Sequence[TrainedModel], plan: Plan, is_validated: bool, fingerprint: Mapping[str, Any]
) -> xr.Dataset:
    losses = np.stack([model.losses for model in models])
    n_last = max(plan.recipe.n_iterations // 10, 1)
    if is_validated:
        task_error = np.array([model.validation_loss for model in models])
        measure = "loss on the validation stimuli"
    else:
        finite = [values[np.isfinite(values)][-n_last:] for values in losses]
        task_error = np.array([values.mean() if values.size else np.nan for values in finite])
        measure = f"mean loss of the last {n_last} iterations"
    ensemble = _with_parameters(start, [model.parameters for model in models], plan.connectome)
    ensemble = ensemble.assign_coords(task_error=("model", task_error))
    ensemble["loss"] = (("model", "iteration"), losses.astype(np.float32), {"long_name": "loss before each step"})
    ensemble = schema.annotate(ensemble, "ensemble").assign_attrs(
        trained=1,
        task_error_measure=measure,
        description=f"trained with {describe(plan.loss)} for {plan.recipe.n_iterations} iterations",
        source="fx.train",
    )
    hashes = {"connectome": fingerprint["connectome"], "stimuli": fingerprint["stimuli"]}
    arguments = {name: value for name, value in fingerprint.items() if name not in hashes}
    arguments["extent"] = int(plan.connectome.attrs["extent"])
    return provenance.add(ensemble, "train", arguments, hashes=hashes, packages=PACKAGES)
