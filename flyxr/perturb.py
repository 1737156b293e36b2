"""Experiments on models: silenced, clamped and rescaled members beside the unperturbed ones, and what that changes.

Perturbed models are further members along ``model``, so that one simulation or sweep runs them all.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pandas as pd
import xarray as xr

from flyxr import connectome as connectomes
from flyxr import provenance, schema
from flyxr.errors import FlyxrWarning, InputError, Problem, raise_problems
from flyxr.selection import match_cell_types

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

Data = TypeVar("Data", xr.Dataset, xr.DataArray)

UNPERTURBED = "none"
"""The ``perturbation`` of a model as it was trained or drawn."""
CLAMPED_TIME_CONSTANT = 1e-6
"""Time constant of a clamped cell type, s: below every step, so that a step reaches the potential at once."""


def silence(ensemble: xr.Dataset, cell_types: str | Iterable[str], *, together: bool = False) -> xr.Dataset:
    """Block the synaptic output of cell types.

    All synapses that a silenced type makes have strength 0, on its own type as well, as where transmission is
    blocked (shibire(ts), tetanus toxin). Its own potential goes on, without what came back from others.

    Parameters
    ----------
    ensemble
        Parameters of models. Each member is perturbed, those that were perturbed before as well, so that two
        perturbations in a row give all their combinations.
    cell_types
        Names or glob patterns such as ``"T4*"``.
    together
        All types in one perturbation; without it one perturbation for each type.

    Returns
    -------
    Dataset
        An ensemble: the given members first, under their labels, then all models of the first perturbation, of the
        second, …, under the labels that follow. Coordinates on ``model``: ``perturbation`` tells what was done
        (``"none"``, ``"silence T4a"``), ``unperturbed`` is the label of the model that nothing was done to, and
        ``task_error`` is NaN for perturbed models, since it was never measured for them. Lazy if the ensemble is.

    Raises
    ------
    UnknownCellTypeError
        If names match nothing; names the nearest cell types.
    SchemaError
        If the ensemble does not fit the schema.
    ValueError
        If no cell type is named.

    Warns
    -----
    UserWarning
        If a type makes no synapses, so that nothing changes.

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
    groups = _groups(ensemble, cell_types, together)
    without = sorted({name for group in groups for name in group} - set(source.tolist()))
    if without:
        warnings.warn(
            FlyxrWarning(
                f"silencing {', '.join(without)} changes nothing: the ensemble has no synapses that they make"
            ),
            stacklevel=2,
        )
    perturbed = []
    for group in groups:
        kept = ("pair", ~np.isin(source, group))
        changed = ensemble.assign(synapse_strength=strength.where(xr.Variable(*kept), 0))
        perturbed.append((f"silence {', '.join(group)}", changed))
    return _with_members(ensemble, perturbed, "silence", {"cell_types": _plain(cell_types), "together": together})


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
        Parameters of models; see :func:`silence` for members that were perturbed before.
    by
        One factor, or several for one perturbation each. 0 removes the connections, a negative one inverts them.
    source, target
        Cell types before and after the synapse, as names or glob patterns. With one of them alone, all synapses from
        the source, or onto the target. All pairs that fit are scaled together.

    Returns
    -------
    Dataset
        An ensemble with perturbed members, as :func:`silence` returns it; ``perturbation`` is such as
        ``"scale Mi1 > T4c by 0.5"``.

    Raises
    ------
    UnknownCellTypeError
        If names match no cell type.
    ValueError
        If neither source nor target is given, a name is in no pair, or ``by`` is not finite.
    SchemaError
        If the ensemble does not fit the schema.

    Examples
    --------
    >>> import flyxr as fx
    >>> scale(fx.sample_ensemble(1, seed=0), source="Mi1", target="T4*", by=[0, 0.5]).perturbation.values.tolist()
    ['none', 'scale Mi1 > T4* by 0', 'scale Mi1 > T4* by 0.5']
    """
    ensemble = schema.validate(ensemble, "ensemble")
    factors = _numbers(by, "by")
    scaled = _matching_pairs(ensemble, _plain(source), _plain(target))
    connection = " > ".join("*" if names is None else ", ".join(names) for names in (_plain(source), _plain(target)))
    strength = ensemble["synapse_strength"]
    perturbed = [
        (
            f"scale {connection} by {factor:g}",
            ensemble.assign(synapse_strength=strength.where(xr.Variable("pair", ~scaled), strength * factor)),
        )
        for factor in factors
    ]
    arguments = {"source": _plain(source), "target": _plain(target), "by": factors}
    return _with_members(ensemble, perturbed, "scale", arguments)


def clamp(
    ensemble: xr.Dataset,
    cell_types: str | Iterable[str],
    potential: float | Iterable[float],
    *,
    together: bool = False,
    connectome: xr.Dataset | None = None,
) -> xr.Dataset:
    """Hold cell types at a constant potential, as in voltage clamp.

    A clamped type receives no synapses, its bias is the potential, and its time constant is below every step. So its
    potential is constant from every initial state; from one that is given to :func:`flyxr.simulate`, from the first
    frame on. Since synapses transmit what is above 0 only, a type at 0 or below is silent.

    Parameters
    ----------
    ensemble
        Parameters of models; see :func:`silence` for members that were perturbed before.
    cell_types
        Names or glob patterns. Input types (R1 to R8) cannot be clamped, since luminance enters whatever the
        parameters are.
    potential
        One potential, a.u., or several for one perturbation each.
    together
        All types in one perturbation; without it one perturbation for each type.
    connectome
        The connectome of the models, which tells the input types; without it the one that the ensemble says it is of.

    Returns
    -------
    Dataset
        An ensemble with perturbed members, as :func:`silence` returns it; ``perturbation`` is such as
        ``"clamp Mi9 at 0.5"``.

    Raises
    ------
    UnknownCellTypeError
        If names match nothing; names the nearest cell types.
    SchemaError
        If the ensemble does not fit the schema, or is one of another connectome.
    ValueError
        If no cell type is named, one is an input, or the potential is not finite.

    Examples
    --------
    >>> import flyxr as fx
    >>> clamped = clamp(fx.sample_ensemble(1, seed=0), "Mi9", 0.75)
    >>> clamped.perturbation.values.tolist(), clamped.bias.sel(cell_type="Mi9").values.tolist()[1]
    (['none', 'clamp Mi9 at 0.75'], 0.75)
    """
    ensemble = schema.validate(ensemble, "ensemble")
    potentials, groups = _numbers(potential, "potential"), _groups(ensemble, cell_types, together)
    inputs = _inputs(ensemble, connectome)
    seeing = [name for group in groups for name in group if name in inputs]
    if seeing:
        raise InputError(
            Problem(
                f"expected cell types that are no inputs, got {', '.join(seeing)}",
                "luminance enters them whatever their parameters are, so they cannot be clamped; fx.silence blocks "
                "what they pass on",
            )
        )
    target, names = ensemble["target"].values, ensemble["cell_type"].values
    perturbed = []
    for group in groups:
        unheld = xr.Variable("cell_type", ~np.isin(names, group))
        unclamped = ensemble.assign(
            synapse_strength=ensemble["synapse_strength"].where(xr.Variable("pair", ~np.isin(target, group)), 0),
            time_constant=ensemble["time_constant"].where(unheld, CLAMPED_TIME_CONSTANT),
        )
        for value in potentials:
            changed = unclamped.assign(bias=ensemble["bias"].where(unheld, value))
            perturbed.append((f"clamp {', '.join(group)} at {value:g}", changed))
    arguments = {"cell_types": _plain(cell_types), "potential": potentials, "together": together}
    return _with_members(ensemble, perturbed, "clamp", arguments)


def perturbation_effect(data: Data) -> Data:
    """Difference between perturbed models and the models that nothing was done to.

    Parameters
    ----------
    data
        Anything over ``model`` that was made from an ensemble of :func:`silence`, :func:`scale` or :func:`clamp`:
        responses with any record, measures of them, or the ensemble itself.

    Returns
    -------
    Dataset or DataArray
        The perturbed models, under their labels: each floating-point variable over ``model`` less that of the model
        that ``unperturbed`` names; NaN where either is. All else is as it was. Lazy if the data are. Differences of
        angles are not taken modulo a turn.

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
    if "model" not in data.dims or not {"model", "unperturbed"} <= set(data.coords):
        raise schema.SchemaError(
            Problem(
                "expected the dim 'model' with the coordinate 'unperturbed', got the dims "
                f"{tuple(map(str, data.dims))}",
                "perturb the ensemble with fx.silence, fx.scale or fx.clamp, and keep all its models",
            )
        )
    labels, counterparts = data["model"].values, data["unperturbed"].values
    perturbed = np.flatnonzero(labels != counterparts)
    problems: list[str | Problem] = []
    known = pd.Index(labels)
    if known.is_unique:
        places = known.get_indexer(counterparts[perturbed])
    else:
        places = np.zeros(perturbed.size, dtype=np.int64)
        problems.append(f"expected each model once, got more than one of {known[known.duplicated()].unique().tolist()}")
    if not perturbed.size:
        problems.append(Problem("expected perturbed models, got unperturbed ones alone", "keep some where they differ"))
    if (places < 0).any():
        missing = sorted(set(counterparts[perturbed][places < 0].tolist()))
        problems.append(
            Problem(
                f"expected the unperturbed counterpart of each model, got none labelled {missing}",
                "take the difference before models are selected",
            )
        )
    raise_problems(schema.SchemaError, "no effect of a perturbation can be told", problems)

    def difference(array: xr.DataArray) -> xr.DataArray:
        if "model" not in array.dims or array.dtype.kind != "f":
            return array.isel(model=perturbed) if "model" in array.dims else array
        after, before = array.isel(model=perturbed), array.isel(model=places)
        name = str(array.attrs.get("long_name", array.name))
        return after.copy(data=after.data - before.data).assign_attrs(
            long_name=f"{name}, difference from the unperturbed model"
        )

    if isinstance(data, xr.DataArray):
        return difference(data)
    effect = data.isel(model=perturbed).assign({name: difference(array) for name, array in data.data_vars.items()})
    return provenance.add(effect, "perturbation_effect", {})


def _with_members(
    ensemble: xr.Dataset, perturbed: list[tuple[str, xr.Dataset]], operation: str, arguments: Mapping[str, object]
) -> xr.Dataset:
    """An ensemble followed by its perturbed members, each given as what was done and the parameters after it."""
    n_models = ensemble.sizes["model"]
    model = ensemble["model"].values
    done, origin = [UNPERTURBED] * n_models, model
    if {"perturbation", "unperturbed"} <= set(ensemble.coords):
        done, origin = ensemble["perturbation"].values.tolist(), ensemble["unperturbed"].values
    names = ensemble["model_name"].values.tolist()

    def labelled(dataset: xr.Dataset, labels: NDArray[np.integer], done: list[str]) -> xr.Dataset:
        return dataset.assign_coords(
            model=("model", labels, ensemble["model"].attrs),
            perturbation=("model", np.array(done, dtype=object)),
            unperturbed=("model", origin),
        )

    members = [labelled(ensemble, model, done)]
    for i, (label, dataset) in enumerate(perturbed):
        before = ["" if one == UNPERTURBED else f"{one} + " for one in done]
        member = labelled(
            dataset, model.max() + 1 + i * n_models + np.arange(n_models), [one + label for one in before]
        )
        after = [f"{name}{' +' if one else ''} {label}" for name, one in zip(names, before, strict=True)]
        members.append(
            member.assign_coords(
                model_name=("model", np.array(after, dtype=object), ensemble["model_name"].attrs),
                task_error=("model", np.full(n_models, np.nan), ensemble["task_error"].attrs),
            )
        )
    whole = xr.concat(
        members,
        "model",
        data_vars="minimal",
        coords="minimal",
        compat="override",
        join="override",
        combine_attrs="override",
    )
    return provenance.add(schema.annotate(whole, "ensemble"), operation, arguments)


def _groups(ensemble: xr.Dataset, cell_types: str | Iterable[str], together: bool) -> list[list[str]]:
    """Cell types of each perturbation."""
    names = match_cell_types(_plain(cell_types) or [], ensemble["cell_type"].values.tolist())
    if not names:
        raise InputError(
            Problem("expected at least one cell type, got none", "name some, or use a pattern such as 'T4*'")
        )
    return [names] if together else [[name] for name in names]


def _matching_pairs(ensemble: xr.Dataset, source: list[str] | None, target: list[str] | None) -> NDArray[np.bool_]:
    """(pair,) whether a pair goes from the source to the target; every name has to be in such a pair."""
    if source is None and target is None:
        raise InputError(Problem("expected a source, a target or both, got neither", "e.g. source='Mi1', target='T4c'"))
    ends = {"source": source, "target": target}
    pairs = {end: ensemble[end].values for end in ends}
    available = ensemble["cell_type"].values.tolist()
    found = {end: {name: match_cell_types(name, available) for name in names or []} for end, names in ends.items()}
    fits = {
        end: np.isin(pairs[end], sum(found[end].values(), [])) if names is not None else np.full(len(pairs[end]), True)
        for end, names in ends.items()
    }
    both: NDArray[np.bool_] = fits["source"] & fits["target"]
    problems = []
    for end, other, way in (("source", "target", "onto"), ("target", "source", "from")):
        for name, types in found[end].items():
            here = np.isin(pairs[end], types)
            if not (here & both).any():
                there = list(dict.fromkeys(pairs[other][here].tolist()))
                problems.append(
                    f"no pair with the {end} {name!r}"
                    + (f" and the {other} {', '.join(map(repr, ends[other] or []))}" if ends[other] else "")
                    + f"; there are those {way} {', '.join(there) if there else 'none'}"
                )
    raise_problems(InputError, "expected pairs of cell types that are connected", problems)
    if not both.any():
        raise InputError(
            Problem("expected pairs of cell types that are connected, got none", "name a source or target")
        )
    return both


def _inputs(ensemble: xr.Dataset, connectome: xr.Dataset | None) -> set[str]:
    """Cell types that luminance enters."""
    connectome = connectomes.find_connectome(ensemble.attrs, connectome, stacklevel=4)
    raise_problems(schema.SchemaError, "", connectomes.mismatch(ensemble.attrs, connectome))
    return set(connectome["cell_type"].values[connectome["role"].values == "input"].tolist())


def _numbers(given: float | Iterable[float], name: str) -> list[float]:
    values = [float(value) for value in (given if isinstance(given, Iterable) else [given])]
    if not values or not np.isfinite(values).all():
        raise InputError(f"expected {name} as a finite number or several, got {values}")
    return values


def _plain(names: str | Iterable[str] | None) -> list[str] | None:
    return None if names is None else [names] if isinstance(names, str) else [str(name) for name in names]
