"""Experiments on models: silence, clamp or rescale cell types, and compare with the unperturbed models.

Perturbed models are additional members along ``model``, so that one simulation or sweep runs them all.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd
import xarray as xr

from flyxr import connectome as connectomes
from flyxr import provenance, schema
from flyxr.arguments import Arguments
from flyxr.errors import FlyxrWarning, InputError, Problem, raise_problems
from flyxr.selection import match_cell_types

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

Data = TypeVar("Data", xr.Dataset, xr.DataArray)

UNPERTURBED = "none"
"""The ``perturbation`` of an unperturbed model."""
CLAMPED_TIME_CONSTANT = 1e-6
"""Time constant of a clamped cell type, s: below every step, so that one step reaches the potential."""


def silence(ensemble: xr.Dataset, cell_types: str | Iterable[str], *, together: bool = False) -> xr.Dataset:
    """Block the synaptic output of cell types.

    All output synapses of a silenced type have strength 0, including those onto its own type, as when transmission is
    blocked (shibire(ts), tetanus toxin). The cells still respond to their inputs, without feedback of their own output.

    Parameters
    ----------
    ensemble
        Parameters of models. Every member is perturbed, including perturbed ones, so that two perturbations in a row
        give all their combinations. One model, as from ``ensemble.isel(model=0)``, counts as an ensemble of one.
    cell_types
        Names or glob patterns such as ``"T4*"``.
    together
        Perturb all types at once; default: one perturbation per type.

    Returns
    -------
    Dataset
        An ensemble with the given members first, under their labels, then all models of the first perturbation, the
        second, …, under new labels: the next integers, or label and perturbation if labels are text. Perturbed models
        are further members, so that ``model`` is a dim of the result even if one model was given. Coordinates on
        ``model``: ``perturbation`` names the perturbation (``"none"``, ``"silence T4a"``), ``unperturbed`` is the label
        of the unperturbed model, and ``task_error`` is NaN for perturbed models, since it was not measured for them.
        Lazy if the ensemble is.

    Raises
    ------
    UnknownCellTypeError
        If names match nothing; names the nearest cell types.
    SchemaError
        If the ensemble does not fit the schema.
    ValueError
        If no cell type is named, or the labels of models are neither integers nor text.

    Warns
    -----
    UserWarning
        If a type has no output synapses, so that nothing changes.

    Examples
    --------
    >>> import flyxr as fx
    >>> ensemble = silence(fx.sample_ensemble(2, seed=0), ["Mi1", "Tm3"])
    >>> ensemble.perturbation.values.tolist()
    ['none', 'none', 'silence Mi1', 'silence Mi1', 'silence Tm3', 'silence Tm3']
    >>> ensemble.unperturbed.values.tolist()
    [0, 1, 0, 1, 0, 1]
    """
    ensemble = schema.validate(ensemble, "ensemble")
    source, strength = ensemble["source"].values, ensemble["synapse_strength"]
    names = _names("cell_types", cell_types)
    groups = _groups(ensemble, names, together)
    without_output = sorted({name for group in groups for name in group} - set(source.tolist()))
    if without_output:
        warnings.warn(
            FlyxrWarning(
                f"silencing {', '.join(without_output)} changes nothing: they have no output synapses in the ensemble"
            ),
            stacklevel=2,
        )
    perturbed = []
    for group in groups:
        is_kept = xr.Variable("pair", ~np.isin(source, group))
        silenced = ensemble.assign(synapse_strength=strength.where(is_kept, 0))
        perturbed.append((f"silence {', '.join(group)}", silenced))
    arguments = {"cell_types": names, "together": together}
    return _append_members(ensemble, perturbed, "silence", arguments)


def scale(
    ensemble: xr.Dataset,
    *,
    by: float | Iterable[float],
    source: str | Iterable[str] | None = None,
    target: str | Iterable[str] | None = None,
) -> xr.Dataset:
    """Multiply the strength of the synapses from some cell types onto others.

    Parameters
    ----------
    ensemble
        Parameters of models; see :func:`silence` for members that are already perturbed.
    by
        One factor, or several for one perturbation each. 0 removes the connections, a negative factor inverts them.
    source, target
        Presynaptic and postsynaptic cell types, as names or glob patterns. If only one is given, all synapses from
        the source, or onto the target, are scaled. All matching pairs are scaled together.

    Returns
    -------
    Dataset
        An ensemble with perturbed members, as from :func:`silence`; ``perturbation`` is for example
        ``"scale Mi1 > T4c by 0.5"``.

    Raises
    ------
    UnknownCellTypeError
        If names match no cell type.
    ValueError
        If neither source nor target is given, a name matches no pair, or ``by`` is not finite.
    SchemaError
        If the ensemble does not fit the schema.

    Examples
    --------
    >>> import flyxr as fx
    >>> scale(fx.sample_ensemble(1, seed=0), source="Mi1", target="T4*", by=[0, 0.5]).perturbation.values.tolist()
    ['none', 'scale Mi1 > T4* by 0', 'scale Mi1 > T4* by 0.5']
    """
    ensemble = schema.validate(ensemble, "ensemble")
    factors = _numbers("by", by)
    sources, targets = (
        None if names is None else _names(end, names) for end, names in (("source", source), ("target", target))
    )
    is_scaled = _matching_pairs(ensemble, sources, targets)
    connection = " > ".join("*" if names is None else ", ".join(names) for names in (sources, targets))
    strength = ensemble["synapse_strength"]
    perturbed = [
        (
            f"scale {connection} by {factor:g}",
            ensemble.assign(synapse_strength=strength.where(xr.Variable("pair", ~is_scaled), strength * factor)),
        )
        for factor in factors
    ]
    arguments = {"source": sources, "target": targets, "by": factors}
    return _append_members(ensemble, perturbed, "scale", arguments)


def clamp(
    ensemble: xr.Dataset,
    cell_types: str | Iterable[str],
    potential: float | Iterable[float],
    *,
    together: bool = False,
    connectome: xr.Dataset | None = None,
) -> xr.Dataset:
    """Hold cell types at a constant potential, as in voltage clamp.

    A clamped type has no input synapses, its bias is the potential, and its time constant is below every step. Its
    potential is constant for every initial state; with a state given to :func:`flyxr.simulate`, from the first frame
    on. Synapses transmit potentials above 0, so that a type clamped at 0 or below is silent.

    Parameters
    ----------
    ensemble
        Parameters of models; see :func:`silence` for members that are already perturbed.
    cell_types
        Names or glob patterns. Input types (R1 to R8) cannot be clamped, since luminance drives them whatever their
        parameters are.
    potential
        One potential, a.u., or several for one perturbation each.
    together
        Perturb all types at once; default: one perturbation per type.
    connectome
        The connectome of the models, which defines the input types; default: the one that the ensemble names.

    Returns
    -------
    Dataset
        An ensemble with perturbed members, as from :func:`silence`; ``perturbation`` is for example
        ``"clamp Mi9 at 0.5"``.

    Raises
    ------
    UnknownCellTypeError
        If names match nothing; names the nearest cell types.
    SchemaError
        If the ensemble does not fit the schema or the connectome.
    ValueError
        If no cell type is named, one is an input type, or the potential is not finite.

    Examples
    --------
    >>> import flyxr as fx
    >>> clamped = clamp(fx.sample_ensemble(1, seed=0), "Mi9", 0.75)
    >>> clamped.perturbation.values.tolist(), clamped.bias.sel(cell_type="Mi9").values.tolist()[1]
    (['none', 'clamp Mi9 at 0.75'], 0.75)
    """
    ensemble = schema.validate(ensemble, "ensemble")
    potentials, types = _numbers("potential", potential, "a.u."), _names("cell_types", cell_types)
    groups = _groups(ensemble, types, together)
    input_types = _input_types(ensemble, connectome)
    unclampable = [name for group in groups for name in group if name in input_types]
    if unclampable:
        raise InputError(
            Problem(
                f"expected cell types that are not inputs, got {', '.join(unclampable)}",
                "luminance drives them whatever their parameters are; fx.silence blocks their output",
            )
        )
    target, names = ensemble["target"].values, ensemble["cell_type"].values
    perturbed = []
    for group in groups:
        is_free = xr.Variable("cell_type", ~np.isin(names, group))
        without_input = ensemble.assign(
            synapse_strength=ensemble["synapse_strength"].where(xr.Variable("pair", ~np.isin(target, group)), 0),
            time_constant=ensemble["time_constant"].where(is_free, CLAMPED_TIME_CONSTANT),
        )
        for value in potentials:
            clamped = without_input.assign(bias=ensemble["bias"].where(is_free, value))
            perturbed.append((f"clamp {', '.join(group)} at {value:g}", clamped))
    arguments = {"cell_types": types, "potential": potentials, "together": together}
    return _append_members(ensemble, perturbed, "clamp", arguments)


def perturbation_effect(data: Data) -> Data:
    """Difference between perturbed models and their unperturbed counterparts.

    Parameters
    ----------
    data
        Data over ``model`` from an ensemble of :func:`silence`, :func:`scale` or :func:`clamp`: responses with any
        record, measures of them, or the ensemble itself.

    Returns
    -------
    Dataset or DataArray
        The perturbed models, under their labels. Each floating-point variable over ``model`` is the difference from
        the model that ``unperturbed`` names; NaN where either is NaN. Other variables are unchanged. Lazy if the data
        are. Differences of angles are not wrapped.

    Raises
    ------
    SchemaError
        If there is no perturbation, or an unperturbed model is missing.

    Examples
    --------
    >>> import flyxr as fx
    >>> effect = perturbation_effect(clamp(fx.sample_ensemble(2, seed=0), "Mi9", 0.5))
    >>> effect.model_name.values.tolist()
    ['sample-0/000 clamp Mi9 at 0.5', 'sample-0/001 clamp Mi9 at 0.5']
    >>> effect.bias.sel(cell_type="L1").values
    array([0., 0.], dtype=float32)
    """
    if not isinstance(data, (xr.Dataset, xr.DataArray)):
        raise schema.SchemaError(f"expected data over 'model' as a Dataset or DataArray, got {type(data).__name__}")
    data = schema.load_coords(data)
    if "model" not in data.dims or not {"model", "unperturbed"} <= set(data.coords):
        raise schema.SchemaError(
            Problem(
                "expected the dim 'model' with the coordinate 'unperturbed', got the dims "
                f"{tuple(map(str, data.dims))}",
                "perturb the ensemble with fx.silence, fx.scale or fx.clamp, and keep all of its models",
            )
        )
    labels, counterparts = data["model"].values, data["unperturbed"].values
    perturbed = np.flatnonzero(labels != counterparts)
    problems: list[str | Problem] = []
    index = pd.Index(labels)
    if index.is_unique:
        unperturbed = index.get_indexer(counterparts[perturbed])
    else:
        unperturbed = np.zeros(perturbed.size, dtype=np.int64)
        problems.append(f"expected each model once, got more than one of {index[index.duplicated()].unique().tolist()}")
    if not perturbed.size:
        problems.append(Problem("expected perturbed models, got only unperturbed ones", "keep some of them"))
    if (unperturbed < 0).any():
        missing = sorted(set(counterparts[perturbed][unperturbed < 0].tolist()))
        problems.append(
            Problem(
                f"expected the unperturbed counterpart of each model, got none labelled {missing}",
                "compute the effect before selecting models",
            )
        )
    raise_problems(schema.SchemaError, "cannot compute the perturbation effect", problems)

    def difference(array: xr.DataArray) -> xr.DataArray:
        if "model" not in array.dims or array.dtype.kind != "f":
            return array.isel(model=perturbed) if "model" in array.dims else array
        after, before = array.isel(model=perturbed), array.isel(model=unperturbed)
        name = str(array.attrs.get("long_name", array.name))
        return after.copy(data=after.data - before.data).assign_attrs(
            long_name=f"{name}, difference from the unperturbed model"
        )

    if isinstance(data, xr.DataArray):
        return difference(data)
    effect = data.isel(model=perturbed).assign({name: difference(array) for name, array in data.data_vars.items()})
    return provenance.add(effect, "perturbation_effect", {})


def _append_members(
    ensemble: xr.Dataset, perturbed: list[tuple[str, xr.Dataset]], operation: str, arguments: Mapping[str, object]
) -> xr.Dataset:
    """Append perturbed members, given as descriptions and Datasets of parameters, to an ensemble."""
    n_models = ensemble.sizes["model"]
    model = ensemble["model"].values
    perturbations, unperturbed = [UNPERTURBED] * n_models, model
    if {"perturbation", "unperturbed"} <= set(ensemble.coords):
        perturbations, unperturbed = ensemble["perturbation"].values.tolist(), ensemble["unperturbed"].values
    names = ensemble["model_name"].values.tolist()

    def label(dataset: xr.Dataset, labels: NDArray[Any], perturbations: list[str]) -> xr.Dataset:
        return dataset.assign_coords(
            model=("model", labels, ensemble["model"].attrs),
            perturbation=("model", np.array(perturbations, dtype=object)),
            unperturbed=("model", unperturbed),
        )

    members = [label(ensemble, model, perturbations)]
    prefixes = ["" if text == UNPERTURBED else f"{text} + " for text in perturbations]
    for i, (description, dataset) in enumerate(perturbed):
        labels = _new_labels(model, description, i * n_models)
        member = label(dataset, labels, [prefix + description for prefix in prefixes])
        member_names = [
            f"{name}{' +' if prefix else ''} {description}" for name, prefix in zip(names, prefixes, strict=True)
        ]
        members.append(
            member.assign_coords(
                model_name=("model", np.array(member_names, dtype=object), ensemble["model_name"].attrs),
                task_error=("model", np.full(n_models, np.nan), ensemble["task_error"].attrs),
            )
        )
    combined = xr.concat(
        members,
        "model",
        data_vars="minimal",
        coords="minimal",
        compat="override",
        join="override",
        combine_attrs="override",
    )
    return provenance.add(schema.annotate(combined, "ensemble"), operation, arguments)


def _new_labels(model: NDArray[Any], description: str, offset: int) -> NDArray[Any]:
    """Labels (model,) of perturbed members; ``offset`` is the number of those before them."""
    if model.dtype.kind in "iu":
        return np.arange(model.size) + (int(model.max()) + 1 + offset)
    labels = [f"{label} {description}" for label in model.tolist()]
    problems: list[str | Problem] = []
    way = f"relabel them with ensemble.assign_coords(model=np.arange({model.size}))"
    if not all(isinstance(label, str) for label in model.tolist()):
        text = f"expected integers or text as labels of models that are perturbed, got {model.tolist()[0]!r}"
        problems.append(Problem(text, way))
    elif not set(labels).isdisjoint(model.tolist()):
        problems.append(Problem(f"expected new labels for perturbed models, got {labels[0]!r} again", way))
    raise_problems(InputError, "", problems)
    return np.array(labels, dtype=object)


def _groups(ensemble: xr.Dataset, names: list[str], together: bool) -> list[list[str]]:
    """Cell types of each perturbation."""
    names = match_cell_types(names, ensemble["cell_type"].values.tolist())
    return [names] if together else [[name] for name in names]


def _matching_pairs(ensemble: xr.Dataset, source: list[str] | None, target: list[str] | None) -> NDArray[np.bool_]:
    """Mask (pair,) of the pairs from the source to the target; raises for names that match no such pair."""
    if source is None and target is None:
        raise InputError(Problem("expected a source, a target or both, got neither", "e.g. source='Mi1', target='T4c'"))
    ends = {"source": source, "target": target}
    pairs = {end: ensemble[end].values for end in ends}
    available = ensemble["cell_type"].values.tolist()
    matches = {end: {name: match_cell_types(name, available) for name in names or []} for end, names in ends.items()}
    is_match = np.ones(ensemble.sizes["pair"], dtype=bool)
    for end, names in ends.items():
        if names is not None:
            is_match &= np.isin(pairs[end], sum(matches[end].values(), []))
    problems = []
    for end, other_end, preposition in (("source", "target", "onto"), ("target", "source", "from")):
        for name, types in matches[end].items():
            has_end = np.isin(pairs[end], types)
            if not (has_end & is_match).any():
                partners = list(dict.fromkeys(pairs[other_end][has_end].tolist()))
                problems.append(
                    f"no pair with the {end} {name!r}"
                    + (f" and the {other_end} {', '.join(map(repr, ends[other_end] or []))}" if ends[other_end] else "")
                    + f"; there are pairs {preposition} {', '.join(partners) if partners else 'none'}"
                )
    raise_problems(InputError, "expected pairs of connected cell types", problems)
    return is_match


def _input_types(ensemble: xr.Dataset, connectome: xr.Dataset | None) -> set[str]:
    """Cell types that receive luminance."""
    connectome = connectomes.find_connectome(ensemble.attrs, connectome, stacklevel=4)
    raise_problems(schema.SchemaError, "", connectomes.mismatch(ensemble.attrs, connectome))
    return set(connectome["cell_type"].values[connectome["role"].values == "input"].tolist())


def _numbers(name: str, values: float | Iterable[float], unit: str = "") -> list[float]:
    arguments = Arguments()
    numbers: list[float] = arguments.numbers(name, values, unit).tolist()
    arguments.raise_problems()
    return numbers


def _names(name: str, values: str | Iterable[str]) -> list[str]:
    arguments = Arguments()
    names = arguments.names(name, values)
    arguments.raise_problems()
    return names
