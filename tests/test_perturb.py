"""Silenced, scaled and clamped models: parameters, responses, labels, laziness and bad input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import flyxr as fx
from flyxr import provenance, schema
from flyxr.selection import UnknownCellTypeError
from flyxr.testing import random_rendering, tiny_connectome

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import CountingScheduler

CONNECTOME = fx.open_connectome(extent=2)
TINY = tiny_connectome()
PERTURBATIONS: dict[str, Callable[[xr.Dataset], xr.Dataset]] = {
    "silence": lambda ensemble: fx.silence(ensemble, ["Mi1", "Tm3"]),
    "scale": lambda ensemble: fx.scale(ensemble, source="Mi1", target="T4*", by=[0, 2]),
    "clamp": lambda ensemble: fx.clamp(ensemble, "Mi1", 0.5),
}


def models(n_models: int = 2, connectome: xr.Dataset = CONNECTOME) -> xr.Dataset:
    return fx.sample_ensemble(n_models, seed=0, connectome=connectome)


def rendering(extent: int = 2) -> xr.Dataset:
    return random_rendering(extent, n_frames=8, dt=1 / 50)


def strengths(ensemble: xr.Dataset, model: int) -> xr.DataArray:
    """Strengths of a model by source and target."""
    return ensemble.synapse_strength.sel(model=model).set_index(pair=["source", "target"])


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_perturbations__members_follow_the_unperturbed(name: str) -> None:
    given = models()
    perturbed = PERTURBATIONS[name](given)
    schema.validate(perturbed, "ensemble")
    n = perturbed.sizes["model"]
    assert n in (4, 6)
    assert perturbed.model.values.tolist() == list(range(n))
    assert perturbed.unperturbed.values.tolist() == [0, 1] * (n // 2)
    assert perturbed.perturbation.values.tolist()[:2] == ["none", "none"]
    assert all(text.startswith(f"{name} Mi1") or "Tm3" in text for text in perturbed.perturbation.values[2:])
    assert perturbed.model_name.values.tolist()[2] == f"sample-0/000 {perturbed.perturbation.values[2]}"
    unperturbed = perturbed.isel(model=[0, 1])
    for variable in schema.KINDS["ensemble"].variables:
        xr.testing.assert_identical(
            unperturbed[variable.name].drop_vars(["perturbation", "unperturbed"]), given[variable.name]
        )
        assert perturbed[variable.name].dtype == np.float32
    assert perturbed.attrs["connectome"] == given.attrs["connectome"]
    assert [step["operation"] for step in provenance.steps(perturbed)] == ["sample_ensemble", name]


def test_perturbations__new_labels_follow_the_highest_and_other_coordinates_are_kept() -> None:
    ensemble = models(3).isel(model=[2, 0]).assign_coords(group=("model", ["a", "b"]))
    silenced = fx.silence(ensemble, "Mi1")
    assert silenced.model.values.tolist() == [2, 0, 3, 4]
    assert silenced.unperturbed.values.tolist() == [2, 0, 2, 0]
    assert silenced.group.values.tolist() == ["a", "b"] * 2
    np.testing.assert_array_equal(silenced.bias.sel(model=3), ensemble.bias.sel(model=2))


def test_perturbations__task_error_is_nan_for_perturbed_models() -> None:
    ensemble = models().assign_coords(task_error=("model", [5.0, 6.0]))
    np.testing.assert_array_equal(fx.silence(ensemble, "Mi1").task_error, [5, 6, np.nan, np.nan])


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_perturbations__do_not_modify_their_input(name: str) -> None:
    ensemble = models()
    before = ensemble.copy(deep=True)
    PERTURBATIONS[name](ensemble)
    assert ensemble.identical(before)


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_perturbations__are_lazy(name: str, counting_scheduler: CountingScheduler) -> None:
    ensemble = models()
    lazy = PERTURBATIONS[name](ensemble.assign({key: value.chunk(model=1) for key, value in ensemble.items()}))
    effect = fx.perturbation_effect(lazy)
    assert counting_scheduler.calls == 0
    assert lazy.synapse_strength.chunks is not None
    xr.testing.assert_identical(lazy.compute(), PERTURBATIONS[name](ensemble))
    xr.testing.assert_identical(effect.compute(), fx.perturbation_effect(PERTURBATIONS[name](ensemble)))


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_perturbations__round_trip_through_a_store(name: str, tmp_path: Path) -> None:
    perturbed = PERTURBATIONS[name](models())
    opened = fx.open_ensemble(fx.save(perturbed, tmp_path / "ensemble.zarr"))
    xr.testing.assert_equal(opened, perturbed)
    assert opened.perturbation.values.tolist() == perturbed.perturbation.values.tolist()
    again = fx.silence(opened, "T4a")
    assert again.unperturbed.values.tolist() == [0, 1] * (again.sizes["model"] // 2)


def test_silence__removes_all_output_and_nothing_else() -> None:
    given, silenced = models(1), fx.silence(models(1), "L5")
    assert (strengths(given, 0).sel(source="L5") > 0).all()
    changed = strengths(silenced, 1) != strengths(given, 0)
    assert set(changed.source.values[changed]) == {"L5"}
    assert (strengths(silenced, 1).sel(source="L5") == 0).all()
    assert float(strengths(silenced, 1).sel(source="L5", target="L5").item()) == 0, "on its own type as well"
    np.testing.assert_array_equal(silenced.bias[1], silenced.bias[0])


def test_silence__separately_or_together() -> None:
    separate = fx.silence(models(1), ["T4*", "Mi1"])
    assert separate.perturbation.values.tolist() == ["none", *(f"silence {name}" for name in (*T4, "Mi1"))]
    together = fx.silence(models(1), "T4*", together=True)
    assert together.perturbation.values.tolist() == ["none", "silence T4a, T4b, T4c, T4d"]
    is_silent = strengths(together, 1) == 0
    assert set(is_silent.source.values[is_silent]) == set(T4)


T4 = ("T4a", "T4b", "T4c", "T4d")


def test_silence__downstream_cells_lose_their_input() -> None:
    """R feeds L, L feeds T: without output of L, T stays at its bias, while L still responds to R."""
    responses = fx.simulate(rendering(1), fx.silence(models(1, TINY), "L"), connectome=TINY).load()
    silenced = responses.response.sel(model=1)
    bias = float(models(1, TINY).bias.sel(cell_type="T").item())
    np.testing.assert_array_equal(silenced.sel(cell_type="T"), np.float32(bias))
    assert silenced.sel(cell_type="L").std() > 0
    assert responses.perturbation.values.tolist() == ["none", "silence L"]


def test_silence__a_type_without_synapses_warns() -> None:
    with pytest.warns(UserWarning, match=r"silencing Mi11, Tm30 changes nothing"):
        silenced = fx.silence(models(1), ["Tm30", "Mi11", "Mi1"])
    np.testing.assert_array_equal(silenced.synapse_strength.sel(model=1), silenced.synapse_strength.sel(model=0))


@given(st.floats(-3, 3, width=32), st.sampled_from(["Mi1", "Mi*", None]), st.sampled_from(["T4c", "T4*", None]))
def test_scale__multiplies_matching_pairs(by: float, source: str | None, target: str | None) -> None:
    if source is None and target is None:
        return
    ensemble = models(1)
    scaled = fx.scale(ensemble, source=source, target=target, by=by)
    is_match = np.ones(ensemble.sizes["pair"], dtype=bool)
    for names, pattern in ((ensemble.source.values, source), (ensemble.target.values, target)):
        if pattern is not None:
            is_match &= np.array([name.startswith(pattern.rstrip("*")) and len(name) >= 3 for name in names])
            is_match &= np.array(["*" in pattern or name == pattern for name in names])
    assert is_match.any()
    factor = np.where(is_match, np.float32(by), np.float32(1))
    np.testing.assert_array_equal(scaled.synapse_strength[1], ensemble.synapse_strength[0] * factor)


def test_scale__several_factors_are_several_perturbations() -> None:
    scaled = fx.scale(models(1), source="Mi1", target=["T4c", "T4d"], by=(0, 0.5))
    assert scaled.perturbation.values.tolist()[1:] == ["scale Mi1 > T4c, T4d by 0", "scale Mi1 > T4c, T4d by 0.5"]
    assert fx.scale(models(1), target="T4c", by=2).perturbation.values[1] == "scale * > T4c by 2"


def test_scale__all_output_by_zero_is_silence() -> None:
    scaled, silenced = fx.scale(models(), source="Mi1", by=0), fx.silence(models(), "Mi1")
    np.testing.assert_array_equal(scaled.synapse_strength, silenced.synapse_strength)


def test_scale__names_the_available_pairs() -> None:
    with pytest.raises(ValueError, match=r"source 'T4a' and the target 'Mi1'; there are pairs onto .*T4a") as error:
        fx.scale(models(1), source="T4a", target="Mi1", by=2)
    assert "there are pairs from R8, L1" in str(error.value)
    assert str(error.value).count("\n- ") == 2
    with pytest.raises(ValueError, match="no pair with the source 'L1' and the target 'T4a'"):
        fx.scale(models(1), source=["Mi1", "L1"], target="T4a", by=2)


INITIAL_STATES = ["fade_in", "steady_state", "rest", "given"]


@pytest.mark.parametrize("engine", ["stencil", "sparse", "reference"])
@pytest.mark.parametrize("start", INITIAL_STATES)
@pytest.mark.parametrize("potential", [0.75, -0.3, 0.0])
def test_clamp__potential_is_constant(start: str, engine: str, potential: float) -> None:
    ensemble = fx.clamp(models(1), ["Mi1", "Lawf1"], potential, together=True)
    initial: Any = start
    if start == "given":
        free = fx.simulate(rendering(), models(1), connectome=CONNECTOME).isel(time=-1, model=0, drop=True)
        initial = free.response
        assert abs(free.response.sel(cell_type="Mi1") - potential).min() > 0.01
    options: dict[str, Any] = {"connectome": CONNECTOME, "initial_state": initial, "engine": engine}
    response = fx.simulate(rendering(), ensemble, **options).response.sel(model=1).load()
    held = response.sel(cell_type=["Mi1", "Lawf1"]).stack(cell=["cell_type", "column"]).dropna("cell")
    assert held.sizes["cell"] > 19
    exact = held.isel(time=slice(1, None)) if start == "given" else held
    assert (exact == np.float32(potential)).all()
    np.testing.assert_allclose(held, potential, rtol=0, atol=1e-6)
    assert response.sel(cell_type="Tm3").std() > 0


def test_clamp__at_zero_equals_silence() -> None:
    clamped = fx.simulate(rendering(), fx.clamp(models(1), "Mi1", [0, -2]), connectome=CONNECTOME)
    silenced = fx.simulate(rendering(), fx.silence(models(1), "Mi1"), connectome=CONNECTOME)
    others = [name for name in CONNECTOME.cell_type.values if name != "Mi1"]
    for model in (1, 2):
        np.testing.assert_allclose(
            clamped.response.sel(model=model, cell_type=others),
            silenced.response.sel(model=1, cell_type=others),
            atol=1e-6,
        )


def test_clamp__rejects_input_types() -> None:
    with pytest.raises(ValueError, match="not inputs, got R1, R2: luminance drives"):
        fx.clamp(models(1), ["R1", "Mi1", "R2"], 0)
    for options in ({"connectome": TINY}, {}):
        with pytest.raises(ValueError, match="not inputs, got R:"):
            fx.clamp(models(1, TINY), "R", 0, **options)
    with pytest.raises(schema.SchemaError, match="expected an ensemble of the connectome .*leave connectome= out"):
        fx.clamp(models(1, TINY), "L", 0, connectome=CONNECTOME)


def test_perturbations__in_a_row_give_all_combinations() -> None:
    both = fx.silence(fx.scale(models(), source="Mi1", target="T4c", by=2), "Tm3")
    assert both.perturbation.values[::2].tolist() == [
        "none",
        "scale Mi1 > T4c by 2",
        "silence Tm3",
        "scale Mi1 > T4c by 2 + silence Tm3",
    ]
    assert both.unperturbed.values.tolist() == [0, 1] * 4
    assert both.model.values.tolist() == list(range(8))
    assert both.model_name.values[7] == "sample-0/001 scale Mi1 > T4c by 2 + silence Tm3"
    last, first = strengths(both, 7), strengths(both, 1)
    assert (last.sel(source="Tm3") == 0).all()
    assert last.sel(source="Mi1", target="T4c").item() == 2 * first.sel(source="Mi1", target="T4c").item()
    other_order = fx.scale(fx.silence(models(), "Tm3"), source="Mi1", target="T4c", by=2)
    np.testing.assert_array_equal(other_order.synapse_strength[-2:], both.synapse_strength[-2:])


@pytest.mark.parametrize("record", ["all", "central", ["T4c", "L1"]])
def test_perturbation_effect__matches_models_by_label(record: Any, counting_scheduler: CountingScheduler) -> None:
    ensemble = fx.silence(models(3), ["Mi1", "Tm3"]).isel(model=[8, 2, 4, 1, 0, 7, 5])
    lazy = fx.simulate(rendering(), ensemble, connectome=CONNECTOME, record=record)
    lazy_effect = fx.perturbation_effect(lazy)
    assert counting_scheduler.calls == 0
    responses, effect = lazy.load(), lazy_effect.load()
    assert effect.model.values.tolist() == [8, 4, 7, 5]
    assert effect.perturbation.values.tolist() == ["silence Tm3", "silence Mi1", "silence Tm3", "silence Mi1"]
    for model in effect.model.values:
        expected = responses.response.sel(model=model).values - responses.response.sel(model=model % 3).values
        np.testing.assert_array_equal(effect.response.sel(model=model), expected)
    np.testing.assert_array_equal(effect.luminance, responses.luminance)
    assert effect.response.attrs["units"] == "a.u."
    assert "difference" in effect.response.attrs["long_name"]
    schema.validate(effect, "responses")
    assert provenance.steps(effect)[-1]["operation"] == "perturbation_effect"


def test_perturbation_effect__of_a_sweep(tmp_path: Path) -> None:
    ensemble = fx.silence(models(2), ["Mi1", "Tm3"])
    options: dict[str, Any] = {"connectome": CONNECTOME, "record": "central"}
    swept = fx.perturbation_effect(fx.sweep(rendering(), ensemble, tmp_path / "responses.zarr", **options))
    simulated = fx.perturbation_effect(fx.simulate(rendering(), ensemble, **options))
    assert swept.perturbation.values.tolist() == simulated.perturbation.values.tolist()
    np.testing.assert_allclose(swept.response, simulated.response, atol=1e-6)
    opened = fx.open(fx.save(swept, tmp_path / "effect.zarr"))
    np.testing.assert_array_equal(opened.response, swept.response)


def test_perturbation_effect__of_measures_and_arrays() -> None:
    ensemble = fx.silence(models(2), "Mi1")
    responses = fx.simulate(rendering(), ensemble, connectome=CONNECTOME, record="central").load()
    measures = xr.Dataset({"peak": responses.response.max("time"), "rank": ("model", [3, 2, 1, 0])})
    effect = fx.perturbation_effect(measures)
    np.testing.assert_array_equal(
        effect.peak.sel(model=3), measures.peak.sel(model=3).values - measures.peak.sel(model=1).values
    )
    assert effect["rank"].values.tolist() == [1, 0], "integers are not measures"
    xr.testing.assert_equal(fx.perturbation_effect(measures.peak), effect.peak)


def test_perturbation_effect__missing_models() -> None:
    silenced = fx.silence(models(2), "Mi1")
    with pytest.raises(schema.SchemaError, match="coordinate 'unperturbed'"):
        fx.perturbation_effect(models())
    with pytest.raises(schema.SchemaError, match="none labelled \\[1\\]"):
        fx.perturbation_effect(silenced.sel(model=[0, 2, 3]))
    with pytest.raises(schema.SchemaError, match="only unperturbed ones"):
        fx.perturbation_effect(silenced.sel(model=[0, 1]))
    with pytest.raises(schema.SchemaError, match="the dim 'model'"):
        fx.perturbation_effect(silenced.isel(model=2))


INVALID: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "unknown": (lambda: fx.silence(models(1), "T4x"), UnknownCellTypeError, "nearest: Tm4, T4d"),
    "none": (lambda: fx.silence(models(1), []), ValueError, r"cell_types as one name or a list of them.*\['T4c'\]"),
    "names of another type": (lambda: fx.silence(models(1), [["Mi1"]]), ValueError, r"cell_types as one name"),
    "number": (lambda: fx.clamp(models(1), 3, 0.5), ValueError, "cell_types as one name or a list of them, got 3"),
    "no end": (lambda: fx.scale(models(1), by=2), ValueError, "a source, a target or both"),
    "no factor": (
        lambda: fx.scale(models(1), source="Mi1", by=[]),
        ValueError,
        "by as one number or a list of them, got an empty list",
    ),
    "infinite": (lambda: fx.scale(models(1), source="Mi1", by=[1, np.inf]), ValueError, r"got \[1, inf\]"),
    "nan": (
        lambda: fx.clamp(models(1), "Mi1", np.nan),
        ValueError,
        "expected potential as finite numbers, in a.u., got nan",
    ),
    "empty end": (
        lambda: fx.scale(models(1), source=[], by=1),
        ValueError,
        "expected source as one name or a list of them",
    ),
    "text as factor": (lambda: fx.scale(models(1), source="Mi1", by="2"), ValueError, "by as finite numbers, got '2'"),
    "float labels": (
        lambda: fx.silence(models(1).assign_coords(model=[0.5]), "Mi1"),
        ValueError,
        r"integers or text .*got 0.5: relabel them with ensemble.assign_coords\(model=np.arange\(1\)\)",
    ),
    "repeated": (
        lambda: fx.silence(fx.silence(models(1).assign_coords(model=["a"]), "Mi1"), "Mi1"),
        ValueError,
        "expected new labels for perturbed models, got 'a silence Mi1' again",
    ),
    "effect of text": (lambda: fx.perturbation_effect("x"), schema.SchemaError, "got str"),
    "unknown end": (lambda: fx.scale(models(1), target="T9", by=1), UnknownCellTypeError, "got 'T9'"),
}


@pytest.mark.parametrize("name", PERTURBATIONS)
@pytest.mark.parametrize("select", [lambda e: e.isel(model=1), lambda e: e.mean("model")], ids=["a model", "a mean"])
def test_perturbations__of_one_model_are_further_members(name: str, select: Any) -> None:
    given = select(models())
    perturbed = PERTURBATIONS[name](given)
    assert perturbed.bias.dims == ("model", "cell_type")
    first = int(given.get("model", 0))
    assert perturbed.model.values.tolist() == list(range(first, first + perturbed.sizes["model"]))
    assert set(perturbed.unperturbed.values.tolist()) == {first}
    np.testing.assert_array_equal(perturbed.bias[0], given.bias)
    schema.validate(perturbed, "ensemble")


CELL_TYPES = xr.DataArray(np.array(["Mi1", "Tm3"], dtype=object), dims="cell_type")
NAMES: dict[str, Any] = {
    "array": CELL_TYPES,
    "numpy": np.array(["Mi1", "Tm3"]),
    "index": pd.Index(["Mi1", "Tm3"]),
    "generator": lambda: (name for name in ["Mi1", "Tm3"]),
    "scalars": [CELL_TYPES[0], CELL_TYPES[1]],
    "tuple": ("Mi1", "Tm3"),
}


@pytest.mark.parametrize("kind", NAMES)
def test_perturbations__take_names_from_anything_that_has_them(kind: str) -> None:
    def names() -> Any:
        return NAMES[kind]() if kind == "generator" else NAMES[kind]

    xr.testing.assert_identical(fx.silence(models(), names()), fx.silence(models(), ["Mi1", "Tm3"]))
    assert fx.clamp(models(1), names(), 0.5).sizes["model"] == 3
    scaled = fx.scale(models(1), source=names(), by=np.float32(0.1))
    assert scaled.perturbation.values.tolist()[1] == "scale Mi1, Tm3 > * by 0.1"


def test_perturbations__take_a_scalar_as_a_name() -> None:
    xr.testing.assert_identical(fx.silence(models(1), CELL_TYPES[0]), fx.silence(models(1), "Mi1"))


def test_perturbations__extend_labels_that_are_text() -> None:
    ensemble = models().assign_coords(model=["a", "b"])
    silenced = fx.silence(ensemble, ["Mi1", "Tm3"])
    assert silenced.model.values.tolist()[2:] == ["a silence Mi1", "b silence Mi1", "a silence Tm3", "b silence Tm3"]
    assert silenced.unperturbed.values.tolist() == ["a", "b"] * 3
    assert fx.perturbation_effect(silenced).model.values.tolist() == silenced.model.values.tolist()[2:]


@pytest.mark.parametrize("case", INVALID)
def test_perturbations__bad_input(case: str) -> None:
    call, error, message = INVALID[case]
    with pytest.raises(error, match=message):
        call()


def test_silence__of_a_published_model_changes_what_is_downstream(pretrained: Path) -> None:
    """Without Mi1, T4c responds less, and photoreceptors, which receive little feedback, about as before."""
    connectome = fx.open_connectome(extent=4)
    ensemble = fx.open_ensemble(pretrained).isel(model=[0])
    responses = fx.simulate(rendering(extent=4), fx.silence(ensemble, "Mi1"), connectome=connectome, record="central")
    effect = np.abs(fx.perturbation_effect(responses).response).max(["sample", "time", "column"]).load()
    assert effect.sel(cell_type="T4c").item() > 0.1
    assert effect.sel(cell_type="R1").item() < 0.1 * effect.sel(cell_type="T4c").item()


def test_perturbation_effect__duplicate_models() -> None:
    perturbed = fx.silence(models(2), "Mi1")
    with pytest.raises(schema.SchemaError, match=r"expected each model once, got more than one of \[0\]"):
        fx.perturbation_effect(perturbed.isel(model=[0, 0, 1, 2, 3]))


def test_perturbation_effect__reads_each_model_once(tmp_path: Path, chunks_read: list[Any]) -> None:
    labels = np.arange(6)
    values = np.random.default_rng(0).normal(size=(6, 2, 5, 3, 1)).astype(np.float32)
    responses = xr.Dataset(
        {"response": (("model", "sample", "time", "cell_type", "column"), values)},
        {"model": labels, "unperturbed": ("model", labels % 2)},
    )
    path = fx.save(responses.chunk(model=1), tmp_path / "responses.zarr")
    effect = fx.perturbation_effect(fx.open(path).response)
    assert chunks_read == []
    np.testing.assert_array_equal(effect, values[2:] - values[[0, 1, 0, 1]])
    assert len(chunks_read) == len(set(chunks_read)) == 6
