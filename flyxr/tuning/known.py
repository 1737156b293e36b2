"""Tuning of cell types that is known from experiments, and the agreement of models with it."""

from __future__ import annotations

import functools
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import xarray as xr

from flyxr import schema
from flyxr.errors import InputError, Problem
from flyxr.tuning import base

if TYPE_CHECKING:
    from collections.abc import Callable

FEWEST_TYPES = 3
"""Least number of cell types, or directions, for a correlation."""


def known_tuning() -> xr.Dataset:
    """Tuning of cell types that is known from experiments.

    Returns
    -------
    Dataset
        - ``polarity`` (cell_type): 1 for ON, -1 for OFF, NaN if unknown
        - ``direction_selective`` (cell_type): 1 or 0, NaN if unknown
        - ``preferred_direction`` (cell_type): degrees, NaN if there is none
        - ``tuning_curve`` (cell_type, angle): relative responses of T4 and T5 to moving edges, NaN for other types
        - ``polarity_source``, ``direction_source`` and ``tuning_curve_source`` (cell_type): literature, text

    Notes
    -----
    The entries are those that Lappalainen et al. 2024, Nature 634, 1132-1140, compare their models with, as tabulated
    in flyvis 1.2.0. The source names the original literature of an entry where it is certain. Angles are as in
    flyvis's moving stimuli.

    Examples
    --------
    >>> known = known_tuning().sel(cell_type="T4c")
    >>> float(known.polarity), float(known.preferred_direction), known.direction_source.item()
    (1.0, 90.0, 'Maisak et al. 2013, Nature 500, 212-216')
    """
    return _known_tuning().copy(deep=True)


@functools.cache
def _known_tuning() -> xr.Dataset:
    folder = files("flyxr") / "data"
    with (folder / "known_tuning.csv").open(encoding="utf-8") as file:
        cells = pd.read_csv(file).set_index("cell_type")
    with (folder / "known_tuning_curves.csv").open(encoding="utf-8") as file:
        curves = pd.read_csv(file).pivot(index="cell_type", columns="angle", values="response")
    curves = curves.reindex(cells.index)
    variables: dict[str, tuple[tuple[str, ...], np.ndarray, dict[str, str]]] = {}
    for name, text in (
        ("polarity", "preferred contrast: 1 ON, -1 OFF"),
        ("direction_selective", "1 selective for a direction of motion, 0 not"),
        ("preferred_direction", "preferred direction of motion"),
    ):
        units = {"units": "degree"} if name == "preferred_direction" else {}
        variables[name] = (("cell_type",), cells[name].to_numpy(float), {"long_name": text, **units})
    for name in ("polarity_source", "direction_source"):
        variables[name] = (("cell_type",), cells[name].fillna("").to_numpy(object), {"long_name": "literature"})
    is_measured = curves.notna().all(axis=1).to_numpy()
    source = "Maisak et al. 2013, Nature 500, 212-216, Fig. 3g and h, as digitised in flyvis"
    sources = np.where(is_measured, source, "").astype(object)
    variables["tuning_curve_source"] = (("cell_type",), sources, {"long_name": "literature"})
    curve = {"long_name": "response to edges moving in each direction, relative to the largest"}
    variables["tuning_curve"] = (("cell_type", "angle"), curves.to_numpy(float), curve)
    coords = {
        "cell_type": cells.index.to_numpy(object),
        "angle": ("angle", curves.columns.to_numpy(float), {"units": "degree"}),
    }
    return xr.Dataset(variables, coords)


def agreement(measure: xr.Dataset | xr.DataArray, *, known: xr.Dataset | None = None) -> xr.Dataset:
    """Agreement of a measure of each model with experiments.

    Parameters
    ----------
    measure
        Result of a function that is compared in :data:`flyxr.schema.MEASURES`, for some or all cell types. The last
        two measures may be of one cell type that was selected, which is then no dim of the result:

        - :func:`flash_response_index`: Pearson correlation over cell types with the known polarities, 1 and -1
        - :func:`direction_selectivity_index`: Pearson correlation over cell types of its maximum over intensities with
          1 for types known to be direction selective and 0 for types known not to be
        - :func:`preferred_direction`: angular distance, 0 to 180 degrees, to the known directions, at the preferred
          contrast of each cell type (intensity 1 for ON, 0 for OFF); mean over cell types
        - :func:`tuning_curves`: Pearson correlation over directions with the known curves, at the preferred contrast
          of each cell type; if speeds and widths are dims, at those with the highest correlation, as an experimenter
          would choose them; mean over cell types

        Cell types whose tuning is unknown are ignored, for the last two measures also those of unknown polarity.
    known
        A table in the form of :func:`known_tuning`; default: that table.

    Returns
    -------
    Dataset
        ``correlation`` (model) or ``angular_distance`` (model). For the last two measures also
        ``correlation_by_type`` or ``angular_distance_by_type`` (model, cell_type). The correlation of a constant curve
        is 0.

    Raises
    ------
    SchemaError
        If ``measure`` is none of these measures, or its cell types have no labels.
    InputError
        If there are too few known cell types or directions, or an intensity is missing.

    Notes
    -----
    Lappalainen et al. 2024, Fig. 2d and Methods; flyvis ``fri_correlation_to_known``, ``dsi_correlation_to_known``,
    ``angular_distance_to_known`` and ``correlation_to_known_tuning_curves``.

    Examples
    --------
    >>> index = xr.Dataset({"flash_response_index": ("cell_type", [0.5, -0.5, 0.9])},
    ...                    coords={"cell_type": ["Mi1", "Tm1", "T4a"]})
    >>> round(agreement(index).correlation.item(), 3)
    0.961
    """
    known = known_tuning() if known is None else known
    if "cell_type" not in getattr(known, "dims", ()):
        text = f"expected known tuning as a Dataset over 'cell_type', got {type(known).__name__}"
        raise schema.SchemaError(Problem(text, "change a copy of fx.tuning.known_tuning()"))
    if isinstance(measure, xr.DataArray):
        measure = measure.to_dataset(name=measure.name or "unnamed")
    compared = {measure.variables[0].name: measure for measure in schema.MEASURES if measure.compared}
    is_dataset = isinstance(measure, xr.Dataset)
    names = [name for name in compared if is_dataset and name in measure]
    squeeze = schema.Squeeze()
    if len(names) == 1 and "cell_type" in measure.coords and not measure["cell_type"].dims:
        measure, squeeze = measure.expand_dims("cell_type"), schema.Squeeze(("cell_type",))
    if len(names) != 1 or "cell_type" not in measure[names[0]].indexes:
        got = list(map(str, measure.data_vars)) if isinstance(measure, xr.Dataset) else type(measure).__name__
        functions = ", ".join(record.function for record in compared.values())
        way = f"give the result of one of these functions of fx.tuning: {functions}"
        if len(names) == 1 and "cell_type" not in measure[names[0]].dims:
            way = schema.rename_hint(measure[names[0]], compared[names[0]].variables[0].dims) or way
        raise schema.SchemaError(
            Problem(
                f"expected a Dataset with one of {', '.join(compared)} over the labelled dim 'cell_type', got {got}",
                way,
            )
        )
    known_name, comparison = compared[names[0]].compared or ("", "")
    is_curve = set(known[known_name].dims) != {"cell_type"}
    compare = _curve_correlation if is_curve else _COMPARISONS[comparison]
    variables = compare(measure[names[0]], known, known_name)
    return base.wrap(variables, measure, "agreement", {"measure": names[0]}, squeeze)


def _select_known_types(array: xr.DataArray, truth: xr.DataArray, min_types: int) -> tuple[xr.DataArray, xr.DataArray]:
    """Select the cell types of both arrays for which the truth is known."""
    truth = truth.dropna("cell_type")
    array, truth = xr.align(array, truth, join="inner", exclude=set(array.dims) - {"cell_type"})
    if truth.sizes["cell_type"] < min_types:
        text = f"expected at least {min_types} cell types whose {truth.name} is known, got "
        text += f"{truth['cell_type'].values.tolist()}"
        way = "simulate with record='central', and keep 'cell_type' when selecting; see fx.tuning.known_tuning()"
        raise InputError(Problem(text, way))
    return array, truth


def _correlation(array: xr.DataArray, known: xr.Dataset, name: str) -> dict[str, xr.DataArray]:
    """Correlation over cell types of the maximum over intensities."""
    if "intensity" in array.dims:
        _check_intensities(array)
        array = base.maximum(array, "intensity")
    array, truth = _select_known_types(array, known[name], FEWEST_TYPES)
    if np.unique(truth.values).size < 2:
        text = f"expected cell types that differ in {truth.name}, got {float(truth[0]):g} for all of "
        text += f"{truth['cell_type'].values.tolist()}"
        raise InputError(Problem(text, "a correlation needs both; simulate with record='central'"))
    is_valid = array.notnull() & truth.notnull()
    array, truth = (values.where(is_valid) - values.where(is_valid).mean("cell_type") for values in (array, truth))
    # xr.corr warns of a division by 0 if a lazy measure is equal in all cell types.
    norm: xr.DataArray = ((array**2).sum("cell_type") * (truth**2).sum("cell_type")) ** 0.5
    return {"correlation": (array * truth).sum("cell_type") / norm.where(norm > 0)}


def _check_intensities(array: xr.DataArray) -> None:
    if not {0.0, 1.0} <= set(array["intensity"].values.tolist()):
        text = f"expected the intensities 0 and 1, got {array['intensity'].values.tolist()}"
        raise InputError(Problem(text, "simulate both, since ON cells prefer one and OFF cells the other"))


def _with_polarity(known: xr.Dataset, name: str) -> xr.DataArray:
    """Known tuning of the cell types whose polarity is known too, NaN for the others, which cannot be compared."""
    return known[name].where(known["polarity"].notnull())


def _at_preferred_contrast(array: xr.DataArray, known: xr.Dataset) -> xr.DataArray:
    """Select the intensity that each cell type is known to prefer."""
    if "intensity" not in array.dims:
        text = "expected the dim 'intensity', got none"
        raise InputError(Problem(text, "keep it, since ON cells prefer one intensity and OFF cells another"))
    intensity = known["polarity"].sel(cell_type=array["cell_type"]).where(lambda sign: sign > 0, 0).clip(0, 1)
    if not set(intensity.values.tolist()) <= set(array["intensity"].values.tolist()):
        _check_intensities(array)
    return array.sel(intensity=intensity).drop_vars("intensity")


def _angular_distance(direction: xr.DataArray, known: xr.Dataset, name: str) -> dict[str, xr.DataArray]:
    direction, truth = _select_known_types(direction, _with_polarity(known, name), 1)
    difference = abs(_at_preferred_contrast(direction, known) - truth) % 360
    distance = difference.where(difference <= 180, 360 - difference)
    return {"angular_distance": distance.mean("cell_type"), "angular_distance_by_type": distance}


def _curve_correlation(curves: xr.DataArray, known: xr.Dataset, name: str) -> dict[str, xr.DataArray]:
    """Correlation of tuning curves over directions."""
    truth = _with_polarity(known, name).dropna("cell_type")
    common = np.intersect1d(curves["angle"].values, truth["angle"].values)
    if common.size < FEWEST_TYPES:
        text = f"expected at least {FEWEST_TYPES} of the directions {truth['angle'].values.tolist()}, got "
        raise InputError(
            Problem(text + f"{curves['angle'].values.tolist()}", "simulate edges that move in these directions")
        )
    curves = curves.sel(cell_type=[name for name in curves["cell_type"].values if name in truth["cell_type"].values])
    if not curves.sizes["cell_type"]:
        text = f"expected cell types with known tuning curves, {truth['cell_type'].values.tolist()}, got none of them"
        raise InputError(Problem(text, "record them"))
    curves = _at_preferred_contrast(curves, known).sel(angle=common)
    truth = truth.sel(cell_type=curves["cell_type"], angle=common)
    correlation = xr.corr(curves, truth, dim="angle").fillna(0)
    for dim in ("speed", "width"):
        correlation = base.maximum(correlation, dim) if dim in correlation.dims else correlation
    return {"correlation": correlation.mean("cell_type"), "correlation_by_type": correlation}


_COMPARISONS: dict[str, Callable[[xr.DataArray, xr.Dataset, str], dict[str, xr.DataArray]]] = {
    "correlation": _correlation,
    "angular_distance": _angular_distance,
}
