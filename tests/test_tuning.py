"""Measures of responses.

Measures with the same definition are compared with flyvis 1.2.0 on responses stored with its outputs, to the tolerance
stated there. Not compared are dims that flyvis squeezes, preferred directions of cells that hardly respond (0 in
flyvis, NaN here), and known tuning curves between the measured directions, which flyvis extrapolates.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import chunk_sizes

import flyxr as fx
from flyxr import hexgrid, provenance, schema
from flyxr.tuning import base

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Golden = Callable[[str], dict[str, NDArray[Any]]]

LED = 2.25
TYPES = ["T4a", "T4b", "T4c", "T4d", "T5a", "T5b", "T5c", "T5d"]


def as_responses(values: NDArray[Any], arrays: dict[str, NDArray[Any]], **on_sample: NDArray[Any]) -> xr.Dataset:
    """Central responses of golden arrays in the form that ``fx.simulate`` gives."""
    n_models, n_samples = values.shape[:2]
    coords = {
        "model": np.arange(n_models),
        "model_name": ("model", np.array([f"m{i}" for i in range(n_models)], dtype=object)),
        "task_error": ("model", np.arange(n_models, dtype=float)),
        "sample": np.arange(n_samples),
        "time": arrays["coord_time"],
        "cell_type": arrays["coord_cell_type"].astype(object),
        **{name: ("sample", np.asarray(column, dtype=float)) for name, column in on_sample.items()},
    }
    return xr.Dataset({"response": (("model", "sample", "time", "cell_type"), values.astype(np.float32))}, coords)


def edges(arrays: dict[str, NDArray[Any]], values: NDArray[Any]) -> xr.Dataset:
    config = json.loads(str(arrays["config_json"]))
    return as_responses(
        values,
        arrays,
        angle=arrays["coord_angle"],
        width=arrays["coord_width"] * LED,
        intensity=arrays["coord_intensity"],
        speed=arrays["coord_speed"],
        t_stim=arrays["coord_t_stim"],
        first_offset=np.full(arrays["coord_angle"].shape, config["offsets"][0] * LED),
    )


@pytest.fixture(scope="module")
def synthetic(golden: Golden) -> tuple[xr.Dataset, dict[str, NDArray[Any]]]:
    arrays = golden("analysis_synth.npz")
    outputs = {name.removeprefix("out__"): values for name, values in arrays.items() if name.startswith("out__")}
    return edges(arrays, arrays["responses"]), outputs | {"norm": arrays["norm"]}


@pytest.fixture(scope="module")
def simulated(golden: Golden) -> tuple[xr.Dataset, dict[str, NDArray[Any]]]:
    arrays, outputs = golden("analysis_edge_inputs.npz"), golden("analysis_outputs.npz")
    named = {name.removeprefix("q16__"): values for name, values in outputs.items() if not name.startswith("f32__")}
    return edges(arrays, arrays["responses_f16"]), named


@pytest.fixture(scope="module")
def flashes(golden: Golden) -> tuple[xr.Dataset, dict[str, NDArray[Any]]]:
    arrays, outputs = golden("analysis_flash_inputs.npz"), golden("analysis_outputs.npz")
    responses = as_responses(
        arrays["responses_f16"],
        arrays,
        intensity=arrays["coord_intensity"],
        radius=arrays["coord_radius"],
        t_stim=np.ones(4),
    )
    return responses, {name.removeprefix("q16__"): values for name, values in outputs.items()}


EDGES = ["synthetic", "simulated"]
ATOL = {"synthetic": 1e-6, "simulated": 1e-5}


@pytest.fixture(params=EDGES)
def moving(request: pytest.FixtureRequest) -> tuple[xr.Dataset, dict[str, NDArray[Any]], float]:
    responses, outputs = request.getfixturevalue(request.param)
    return responses, outputs, ATOL[request.param]


def norm_of(responses: xr.Dataset, values: NDArray[Any]) -> xr.DataArray:
    return xr.DataArray(values, dims=("model", "cell_type"), coords={"cell_type": responses.cell_type})


def difference(found: NDArray[Any], expected: NDArray[Any]) -> NDArray[Any]:
    """Angle, degree, between degrees and flyvis's radians."""
    apart = (found - np.rad2deg(expected)) % 360
    return np.minimum(apart, 360 - apart)


# -- parity -----------------------------------------------------------------------------------------------------------


def test_peak_responses__equal_flyvis(moving: Any) -> None:
    responses, outputs, atol = moving
    found = fx.tuning.peak_responses(responses).peak_response
    np.testing.assert_allclose(found.transpose("model", "sample", "cell_type"), outputs["peak"], atol=atol, rtol=0)
    normed = fx.tuning.peak_responses(responses, norm=norm_of(responses, outputs["norm"])).peak_response
    np.testing.assert_allclose(normed, outputs["peak_norm"], atol=atol, rtol=0)


@pytest.mark.parametrize(
    ("data", "window", "name"),
    [
        ("synthetic", (-9.0, 9.0), "peak_window"),
        ("synthetic", (-11.25, 4.5), "peak_window_asym"),
        ("simulated", (-11.25, 11.25), "peak_window"),
    ],
)
def test_peak_responses__equal_flyvis_in_a_window(data: str, window: Any, name: str, request: Any) -> None:
    responses, outputs = request.getfixturevalue(data)
    found = fx.tuning.peak_responses(responses, window=window).peak_response
    np.testing.assert_allclose(found, outputs[name], atol=ATOL[data], rtol=0)
    assert not np.allclose(outputs[name], outputs["peak"])


def test_direction_selectivity_index__equals_flyvis(moving: Any) -> None:
    responses, outputs, atol = moving
    found = fx.tuning.direction_selectivity_index(responses).direction_selectivity_index
    assert found.dims == ("model", "cell_type", "intensity")
    np.testing.assert_allclose(found, outputs["dsi"], atol=atol, rtol=0)
    norm = norm_of(responses, outputs["norm"])
    normed = fx.tuning.direction_selectivity_index(responses, norm=norm).direction_selectivity_index
    np.testing.assert_allclose(normed, outputs["dsi_norm"], atol=atol, rtol=0)
    each = fx.tuning.direction_selectivity_index(responses, average=False).direction_selectivity_index
    each = each.isel(width=0).transpose("model", "cell_type", "intensity", "speed")
    np.testing.assert_allclose(each, outputs["dsi_noavg"].reshape(each.shape), atol=atol, rtol=0)


def test_direction_selectivity_index__equals_flyvis_in_a_window(simulated: Any) -> None:
    responses, outputs = simulated
    found = fx.tuning.direction_selectivity_index(responses, window=(-11.25, 11.25))
    np.testing.assert_allclose(found.direction_selectivity_index, outputs["dsi_window"], atol=1e-5, rtol=0)


def test_preferred_direction__equals_flyvis(moving: Any) -> None:
    responses, outputs, _ = moving
    found = fx.tuning.preferred_direction(responses)
    length = outputs.get("pd_vector_length_q16", found.vector_length.values)
    np.testing.assert_allclose(found.vector_length, length, atol=1e-4)
    clear = length > 1e-3
    assert clear.mean() > 0.3
    degrees = np.rad2deg(1e-4 if "pd_vector_length_q16" in outputs else 1e-6)
    assert difference(found.preferred_direction.values, outputs["pd"])[clear].max() < degrees
    normed = fx.tuning.preferred_direction(responses, norm=norm_of(responses, outputs["norm"]))
    assert difference(normed.preferred_direction.values, outputs["pd_norm"])[clear].max() < 2 * degrees
    each = fx.tuning.preferred_direction(responses, average=False)
    each = each.transpose("model", "cell_type", "width", "intensity", "speed")
    clear = each.vector_length.values > 1e-3
    assert difference(each.preferred_direction.values, outputs["pd_noavg"])[clear].max() < degrees


def test_tuning_curves__equal_flyvis(moving: Any) -> None:
    responses, outputs, atol = moving
    curve = fx.tuning.tuning_curves(responses).tuning_curve.sel(cell_type="T4c", intensity=1)
    expected = outputs["tuning_T4c_on"][:, 0, :, 0]
    np.testing.assert_allclose(curve / curve.max(), expected / expected.max(), atol=atol, rtol=0)


def test_flash_response_index__equals_flyvis(flashes: Any) -> None:
    responses, outputs = flashes
    clear = outputs["flash_modulation_last_radius"] > 1e-2
    for radius in (-1, 6):
        for nonnegative, suffix in ((True, ""), (False, "_signed")):
            found = fx.tuning.flash_response_index(responses, radius, nonnegative=nonnegative).flash_response_index
            expected = outputs[f"fri_radius{radius}{suffix}"][:, 0]
            np.testing.assert_allclose(found.values[clear], expected[clear], atol=1e-5, rtol=1e-5)
    assert clear.mean() > 0.5


def test_agreement__equals_flyvis(moving: Any) -> None:
    responses, outputs, _ = moving
    selectivity = fx.tuning.agreement(fx.tuning.direction_selectivity_index(responses))
    np.testing.assert_allclose(selectivity.correlation, outputs["dsi_corr_known"], atol=1e-6)
    direction = fx.tuning.agreement(fx.tuning.preferred_direction(responses))
    distance = direction.angular_distance_by_type.sel(cell_type=TYPES)
    found = fx.tuning.preferred_direction(responses).vector_length.sel(cell_type=TYPES)
    clear = np.concatenate([found[:, :4].sel(intensity=1), found[:, 4:].sel(intensity=0)], axis=1) > 1e-3
    assert clear.any()
    expected = np.rad2deg(outputs["angular_distance_known"][:, 0])
    np.testing.assert_allclose(distance.values[clear], expected[clear], atol=np.rad2deg(1e-4))
    np.testing.assert_allclose(direction.angular_distance, distance.mean("cell_type"))


def test_agreement__of_tuning_curves_equals_flyvis(synthetic: Any) -> None:
    responses, outputs = synthetic
    found = fx.tuning.agreement(fx.tuning.tuning_curves(responses, average=False))
    expected = outputs["corr_known_tuning"]
    preferred = np.concatenate([expected[:, :4, 1], expected[:, 4:, 0]], axis=1)
    np.testing.assert_allclose(found.correlation_by_type.sel(cell_type=TYPES), preferred, atol=1e-6)
    np.testing.assert_allclose(found.correlation, preferred.mean(axis=1), atol=1e-6)


def test_agreement__of_flashes_equals_flyvis(flashes: Any) -> None:
    responses, outputs = flashes
    found = fx.tuning.agreement(fx.tuning.flash_response_index(responses, radius=6)).correlation
    np.testing.assert_allclose(found, outputs["fri_corr_known"][:, 0], atol=1e-5)


def test_known_tuning__has_the_curves_of_flyvis(synthetic: Any) -> None:
    _, outputs = synthetic
    known = fx.tuning.known_tuning()
    expected = outputs["known_tuning_curves"][:, ::2]
    np.testing.assert_allclose(known.tuning_curve.sel(cell_type=["T4a", "T4c", "T5d"]), expected, atol=1e-12)
    assert known.tuning_curve.notnull().all("angle").sum() == 8


def test_measures__equal_flyvis_on_responses_that_are_not_rounded(golden: Golden) -> None:
    rounded, unrounded = golden("analysis_edge_inputs.npz"), golden("analysis_net0_f32.npz")
    outputs = golden("analysis_outputs.npz")
    responses = edges(rounded, unrounded["edge_responses_net0"][None])
    peak = fx.tuning.peak_responses(responses).peak_response
    np.testing.assert_allclose(peak[0], outputs["f32__peak"][0], atol=1e-7)
    index = fx.tuning.direction_selectivity_index(responses).direction_selectivity_index
    np.testing.assert_allclose(index[0], outputs["f32__dsi"][0], atol=1e-6)


# -- definitions ------------------------------------------------------------------------------------------------------

ANGLES = np.arange(0.0, 360.0, 30.0)


def motion_responses(
    preferred: float = 60.0, *, speeds: tuple[float, ...] = (10.0, 20.0), seed: int = 0, n_models: int = 3
) -> xr.Dataset:
    """Responses to edges of five cell types: tuned, untuned, silent, negative and absent."""
    angle, intensity, speed = (grid.ravel() for grid in np.meshgrid(ANGLES, [0.0, 1.0], speeds, indexing="ij"))
    time = np.round(np.arange(-10, 30) * 0.02, 6)
    t_stim = 8.0 / speed
    course = np.clip(1 - np.abs(time - t_stim[:, None] / 2) / 0.1, 0, None)
    tuned = 1 + np.cos(np.deg2rad(angle - preferred)) * (0.5 + 0.5 * intensity)
    types = np.stack([tuned[:, None] * course, course, 0 * course, -1 - course, np.nan * course], axis=-1)
    scale = np.random.default_rng(seed).uniform(0.5, 2, size=(n_models, 1, 1, 1))
    coords = {
        "model": np.arange(n_models),
        "model_name": ("model", np.array([f"m{i}" for i in range(n_models)], dtype=object)),
        "task_error": ("model", np.arange(n_models, dtype=float)),
        "sample": np.arange(angle.size),
        "time": time,
        "cell_type": np.array(["T4a", "Mi1", "L1", "L2", "Lawf1"], dtype=object),
        "angle": ("sample", angle),
        "intensity": ("sample", intensity),
        "speed": ("sample", speed),
        "width": ("sample", np.full(angle.size, 180.0)),
        "t_stim": ("sample", t_stim),
        "first_offset": ("sample", np.full(angle.size, -22.5)),
    }
    values = (scale * types[None]).astype(np.float32)
    return xr.Dataset({"response": (("model", "sample", "time", "cell_type"), values)}, coords)


def flash_responses() -> xr.Dataset:
    samples = [(0.0, -1.0), (0.0, 6.0), (1.0, -1.0), (1.0, 6.0)]
    values = np.random.default_rng(3).normal(size=(3, 4, 20, 2)).astype(np.float32)
    coords = {
        "model": [0, 1, 2],
        "model_name": ("model", np.array(["a", "b", "c"], dtype=object)),
        "task_error": ("model", [1.0, 2.0, 3.0]),
        "sample": range(4),
        "time": np.arange(-5, 15) * 0.01,
        "cell_type": np.array(["L1", "Mi1"], dtype=object),
        "intensity": ("sample", [sample[0] for sample in samples]),
        "radius": ("sample", [sample[1] for sample in samples]),
        "t_stim": ("sample", np.full(4, 0.05)),
    }
    return xr.Dataset({"response": (("model", "sample", "time", "cell_type"), values)}, coords)


def impulse_responses() -> xr.Dataset:
    """ON and OFF impulses in the seven central columns; T4c responds late and in proportion to u, Mi1 at once."""
    u, v = hexgrid.columns(1)
    position, intensity = (grid.ravel() for grid in np.meshgrid(np.arange(7), [0.0, 1.0], indexing="ij"))
    sign, u_impulse = np.where(intensity == 1, 1.0, -1.0), u[position]
    time = np.round(np.arange(-3, 5) * 0.01, 6)
    values = np.full((2, position.size, time.size, 2), 0.25)
    values[..., 4, 0] += sign * np.where(u_impulse == 0, 2.0, 0.5 * u_impulse)
    values[..., 3, 1] += sign * np.where((u_impulse == 0) & (v[position] == 0), -1.0, 0.1)
    coords = {
        "model": [0, 1],
        "model_name": ("model", np.array(["a", "b"], dtype=object)),
        "task_error": ("model", [1.0, 2.0]),
        "sample": np.arange(position.size),
        "time": time,
        "cell_type": np.array(["T4c", "Mi1"], dtype=object),
        "u_impulse": ("sample", u_impulse),
        "v_impulse": ("sample", v[position]),
        "radius": ("sample", np.zeros(position.size)),
        "intensity": ("sample", intensity),
        "t_stim": ("sample", np.full(position.size, 0.01)),
    }
    return xr.Dataset({"response": (("model", "sample", "time", "cell_type"), values)}, coords)


MEASURES: dict[str, tuple[Callable[..., xr.Dataset], Callable[..., xr.Dataset]]] = {
    "peak_responses": (fx.tuning.peak_responses, motion_responses),
    "peak_responses in a window": (lambda data: fx.tuning.peak_responses(data, window=(-5, 5)), motion_responses),
    "tuning_curves": (fx.tuning.tuning_curves, motion_responses),
    "direction_selectivity_index": (fx.tuning.direction_selectivity_index, motion_responses),
    "preferred_direction": (fx.tuning.preferred_direction, motion_responses),
    "flash_response_index": (fx.tuning.flash_response_index, flash_responses),
    "temporal_receptive_field": (fx.tuning.temporal_receptive_field, impulse_responses),
    "spatial_receptive_field": (fx.tuning.spatial_receptive_field, impulse_responses),
    "response_norm": (fx.tuning.response_norm, motion_responses),
    "agreement": (lambda data: fx.tuning.agreement(fx.tuning.preferred_direction(data)), motion_responses),
}
each_measure = pytest.mark.parametrize("name", MEASURES)


@each_measure
@given(data=st.data())
@settings(max_examples=8)
def test_measures__do_not_depend_on_chunks(name: str, data: st.DataObject) -> None:
    measure, make = MEASURES[name]
    responses = make()
    found = measure(responses.chunk(data.draw(chunk_sizes(responses.response.sizes))))
    xr.testing.assert_allclose(found.compute(), measure(responses), rtol=1e-6, atol=1e-6)


SUMMARIES = {
    "edges": motion_responses,
    "flashes": flash_responses,
    "impulses": lambda: impulse_responses(),
}


@pytest.mark.parametrize("name", SUMMARIES)
def test_summary__reads_each_chunk_once(name: str, tmp_path: Any, chunks_read: list[Any]) -> None:
    responses = SUMMARIES[name]()
    blocks = responses.response.chunk(model=1, sample=-(-responses.sizes["sample"] // 2))
    stored = fx.open(fx.save(responses.assign(response=blocks), tmp_path / "responses.zarr"))
    n_chunks = responses.sizes["model"] * 2
    assert stored.response.data.npartitions == n_chunks
    assert chunks_read == []
    found = fx.tuning.summary(stored).compute()
    assert len(chunks_read) == len(set(chunks_read)) == n_chunks
    xr.testing.assert_allclose(found, fx.tuning.summary(responses), rtol=1e-6, atol=1e-6)


def count_tasks(dataset: xr.Dataset) -> int:
    return len(dict(dataset.__dask_graph__()))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "name", ["peak_responses", "tuning_curves", "direction_selectivity_index", "preferred_direction", "summary"]
)
def test_measures__have_few_tasks(name: str) -> None:
    """50 models x 144 edges x 485 frames, as a sweep stores them."""
    import dask.array as da

    angle, intensity, speed = (
        grid.ravel() for grid in np.meshgrid(ANGLES, [0.0, 1.0], np.arange(1.0, 1 + 72 / len(ANGLES)), indexing="ij")
    )
    assert angle.size == 144
    shape = (50, 144, 485, 65, 1)
    responses = xr.Dataset(
        {"response": (("model", "sample", "time", "cell_type", "column"), da.zeros(shape, chunks=(1, 48, *shape[2:])))},
        {
            "model": np.arange(50),
            "time": schema.time_coord(485, 0.01),
            "cell_type": [f"type {number}" for number in range(65)],
            "u": ("column", [0]),
            "v": ("column", [0]),
            "angle": ("sample", angle),
            "intensity": ("sample", intensity),
            "speed": ("sample", speed),
            "t_stim": ("sample", np.full(144, 4.0)),
        },
    )
    assert count_tasks(getattr(fx.tuning, name)(responses)) < 1300


@pytest.mark.parametrize(
    "name", ["tuning_curves", "direction_selectivity_index", "preferred_direction", "flash_response_index"]
)
def test_measures__are_the_same_to_the_last_bit_in_chunks(name: str) -> None:
    measure, make = MEASURES[name]
    responses = make()
    xr.testing.assert_equal(measure(responses.chunk(model=1, sample=3, cell_type=1)).compute(), measure(responses))


def test_peak_responses__of_frames_in_several_chunks_and_of_integers() -> None:
    responses = motion_responses()
    peak = fx.tuning.peak_responses(responses).peak_response
    np.testing.assert_array_equal(fx.tuning.peak_responses(responses.chunk(time=7)).peak_response, peak)
    whole = responses.isel(cell_type=[0, 1]).round().astype(np.int64)
    np.testing.assert_array_equal(
        fx.tuning.peak_responses(whole).peak_response, fx.tuning.peak_responses(whole.astype(float)).peak_response
    )


def test_peak_responses__use_the_frames_between_two_windows() -> None:
    """A mask with a gap, as no stimulus has, still selects frames one by one."""
    array = xr.DataArray([[[1.0, 9.0, 2.0]], [[5.0, 9.0, np.nan]]], dims=("cell_type", "sample", "time"))
    where = xr.DataArray([[True, False, True]], dims=("sample", "time"))
    np.testing.assert_array_equal(base.highest(array, where), [[2.0], [5.0]])
    np.testing.assert_array_equal(base.lowest(array, where), [[1.0], [5.0]])


@each_measure
def test_measures__are_lazy_and_do_not_modify_their_input(name: str, counting_scheduler: Any) -> None:
    measure, make = MEASURES[name]
    responses = make()
    lazy = responses.assign(response=responses.response.copy(data=responses.response.chunk(sample=3).data))
    found = measure(lazy)
    assert counting_scheduler.calls == 0
    assert all(variable.chunks is not None for variable in found.data_vars.values())
    xr.testing.assert_identical(responses, make())


@each_measure
def test_measures__do_not_depend_on_the_order_of_models_and_samples(name: str) -> None:
    measure, make = MEASURES[name]
    responses = make()
    rng = np.random.default_rng(5)
    shuffled = responses.isel(model=slice(None, None, -1), sample=rng.permutation(responses.sizes["sample"]))
    found = measure(shuffled).sel(model=responses.model)
    if "sample" in found.dims:
        found = found.sel(sample=responses.sample)
    xr.testing.assert_allclose(found, measure(responses), rtol=1e-6, atol=1e-6)


@each_measure
@given(factor=st.floats(1e-3, 1e3))
def test_measures__positive_rescaling(name: str, factor: float) -> None:
    measure, make = MEASURES[name]
    responses = make()
    before, after = measure(responses), measure(responses.assign(response=responses.response * np.float32(factor)))
    for variable in before.data_vars:
        unit = before[variable].attrs.get("units", "1")
        expected = before[variable] * (factor if unit == "a.u." else 1)
        xr.testing.assert_allclose(after[variable], expected, rtol=1e-4, atol=1e-4 * (factor if unit == "a.u." else 1))


@each_measure
def test_measures__ignore_frames_that_are_nan_and_other_columns(name: str) -> None:
    measure, make = MEASURES[name]
    responses = make()
    expected = measure(responses)
    step = schema.time_step(responses)
    longer = responses.reindex(
        time=np.append(responses.time.values, responses.time.values[-1] + step * np.arange(1, 6))
    )
    found = measure(longer)
    if "time" in found.dims:
        found = found.sel(time=expected.time, method="nearest").assign_coords(time=expected.time)
    xr.testing.assert_allclose(found, expected)
    columns = {"column": [0, 1, 2], "u": ("column", [-1, 0, 0]), "v": ("column", [0, 0, 1])}
    in_columns = xr.concat([responses * 2, responses, responses * 3], dim="column").assign_coords(columns)
    xr.testing.assert_allclose(measure(in_columns), expected)


@each_measure
def test_measures__keep_provenance_and_round_trip_through_a_store(name: str, tmp_path: Any) -> None:
    measure, make = MEASURES[name]
    responses = provenance.add(make(), "simulate", {"dt": 0.01}).assign_attrs(extent=15)
    found = measure(responses)
    assert [step["operation"] for step in provenance.steps(found)][0] == "simulate"
    assert len(provenance.steps(found)) > 1
    assert found.attrs["extent"] == 15
    if name not in ("agreement",):
        schema.validate(found, "measures")
    opened = fx.open(fx.save(found, tmp_path / "measure.zarr")).load()
    xr.testing.assert_equal(opened, found)


@given(st.integers(0, 11))
def test_preferred_direction__turns_with_the_stimulus(steps: int) -> None:
    responses = motion_responses(preferred=60.0)
    turned = responses.assign_coords(angle=(responses.angle + 30 * steps) % 360)
    before = fx.tuning.preferred_direction(responses).preferred_direction.sel(cell_type="T4a")
    after = fx.tuning.preferred_direction(turned).preferred_direction.sel(cell_type="T4a")
    np.testing.assert_allclose(before, 60, atol=1e-3)
    np.testing.assert_allclose((after - before - 30 * steps + 180) % 360, 180, atol=1e-3)
    index = fx.tuning.direction_selectivity_index
    xr.testing.assert_allclose(index(turned), index(responses), atol=1e-6)


def test_direction_measures__cells_without_a_direction() -> None:
    responses = motion_responses()
    index = fx.tuning.direction_selectivity_index(responses).direction_selectivity_index
    # ON: r = 1 + cos, so |sum| / sum = 6 / 12; OFF: half of that, relative to the same sum.
    np.testing.assert_allclose(index.sel(cell_type="T4a", intensity=[0, 1]).isel(model=0), [0.25, 0.5], atol=1e-6)
    np.testing.assert_allclose(index.sel(cell_type=["Mi1", "L1", "L2"]), 0, atol=1e-6)
    assert index.sel(cell_type="Lawf1").isnull().all()
    direction = fx.tuning.preferred_direction(responses)
    assert direction.preferred_direction.sel(cell_type=["L1", "L2", "Lawf1"]).isnull().all()
    np.testing.assert_allclose(direction.vector_length.sel(cell_type=["Mi1", "L1"]), 0, atol=1e-5)
    assert ((direction.preferred_direction >= 0) & (direction.preferred_direction < 360)).any()


def test_direction_measures__without_average_have_all_conditions_as_dims() -> None:
    responses = motion_responses()
    for name, measure in (
        ("direction_selectivity_index", fx.tuning.direction_selectivity_index),
        ("preferred_direction", fx.tuning.preferred_direction),
    ):
        found = measure(responses, average=False)[name]
        assert dict(found.sizes) == {"model": 3, "cell_type": 5, "width": 1, "intensity": 2, "speed": 2}
        one_speed = measure(responses.isel(sample=responses.speed.values == 10.0), average=False)[name]
        assert one_speed.sizes["speed"] == 1
        xr.testing.assert_allclose(one_speed, found.sel(speed=[10.0]), atol=1e-6)


def test_peak_responses__window_right_of_the_centre() -> None:
    time = np.arange(0, 1, 0.01)
    speed, first = 10.0, -22.5
    position = first + speed * 5.8 * time
    coords = {
        "time": time,
        "t_stim": ("sample", [0.9]),
        "speed": ("sample", [speed]),
        "first_offset": ("sample", [first]),
    }
    responses = xr.DataArray(np.where(position < 4, 5.0, 1.0)[None], dims=("sample", "time"), coords=coords)
    assert fx.tuning.peak_responses(responses, window=(-10, 10)).peak_response.item() == 5
    assert fx.tuning.peak_responses(responses, window=(4.5, 10)).peak_response.item() == 1
    with pytest.raises(ValueError, match="none in 1 of 1"):
        fx.tuning.peak_responses(responses, window=(-60, -50))
    with pytest.raises(ValueError, match="first <= last"):
        fx.tuning.peak_responses(responses, window=(5, -5))


def test_temporal_receptive_field__is_the_deviation_from_grey() -> None:
    found = fx.tuning.temporal_receptive_field(impulse_responses()).temporal_receptive_field
    assert found.dims == ("model", "cell_type", "intensity", "t_stim", "time")
    course = found.sel(cell_type="T4c", intensity=1, t_stim=0.01).isel(model=0)
    np.testing.assert_allclose(course, [0, 0, 0, 0, 2, 0, 0, 0])
    np.testing.assert_allclose(found.sel(cell_type="Mi1", intensity=0).max(), 1)


def test_temporal_receptive_field__of_the_whole_field() -> None:
    responses = impulse_responses().isel(sample=[6, 7])
    whole_field = responses.assign_coords(radius=("sample", [-1.0, -1.0]))
    without_place = responses.drop_vars(["u_impulse", "v_impulse", "radius"])
    expected = fx.tuning.temporal_receptive_field(responses)
    xr.testing.assert_equal(fx.tuning.temporal_receptive_field(whole_field), expected)
    xr.testing.assert_equal(fx.tuning.temporal_receptive_field(without_place), expected)
    with pytest.raises(schema.SchemaError, match="whole field"):
        fx.tuning.spatial_receptive_field(whole_field)


def test_spatial_receptive_field__is_taken_at_the_largest_central_response() -> None:
    found = fx.tuning.spatial_receptive_field(impulse_responses())
    field = found.spatial_receptive_field
    assert field.dims == ("model", "cell_type", "intensity", "t_stim", "column")
    np.testing.assert_allclose(
        found.field_time.sel(cell_type=["T4c", "Mi1"]).isel(model=0, intensity=1), [[0.01], [0.0]]
    )
    u, v = hexgrid.columns(1)
    np.testing.assert_array_equal(field.u, u)
    np.testing.assert_array_equal(field.v, v)
    on = field.sel(cell_type="T4c", intensity=1).isel(model=0, t_stim=0)
    np.testing.assert_allclose(on, np.where(u == 0, 2.0, 0.5 * u))
    np.testing.assert_allclose(field.sel(intensity=0), -field.sel(intensity=1))
    assert fx.viz.hexmap(on) is not None


def test_response_norm__of_rectified_responses() -> None:
    responses = xr.DataArray([[3.0, -4.0, np.nan]], dims=("sample", "time"))
    assert fx.tuning.response_norm(responses).response_norm.item() == pytest.approx(np.sqrt(12.5))
    assert fx.tuning.response_norm(responses, rectified=True).response_norm.item() == pytest.approx(np.sqrt(4.5))


def test_peak_responses__are_divided_by_a_norm() -> None:
    responses = motion_responses()
    norm = fx.tuning.response_norm(responses)
    found = fx.tuning.peak_responses(responses, norm=norm).peak_response.sel(cell_type=["T4a", "Mi1"])
    # The models differ only by a factor.
    np.testing.assert_allclose(found.isel(model=1), found.isel(model=0), rtol=1e-5)


def test_peak_responses__match_the_norm_by_label() -> None:
    responses = motion_responses().isel(cell_type=[0, 1])
    norm = fx.tuning.response_norm(responses)
    expected = fx.tuning.peak_responses(responses, norm=norm)
    shuffled = norm.isel(model=[2, 0, 1], cell_type=[1, 0])
    with_more_types = fx.tuning.response_norm(motion_responses()).assign_coords(model_name=("model", list("xyz")))
    for other_norm in (shuffled, shuffled.response_norm, with_more_types):
        found = fx.tuning.peak_responses(responses, norm=other_norm)
        xr.testing.assert_allclose(found, expected)  # rounding differs between layouts in memory
        assert set(found.coords) == set(expected.coords)
    one_type = fx.tuning.peak_responses(responses.sel(cell_type="Mi1"), norm=norm).peak_response
    np.testing.assert_array_equal(one_type, expected.peak_response.sel(cell_type="Mi1"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda norm: norm.assign_coords(model=[3, 4, 5]), r"with each 'model' of the other data.*\[0, 1, 2\]"),
        (lambda norm: norm.isel(model=[0, 2]), r"without \[1\]"),
        (lambda norm: norm.isel(cell_type=slice(3)), r"with each 'cell_type'.*\['L2', 'Lawf1'\]"),
        (lambda norm: norm.isel(model=0), r"without \[1, 2\]"),
        (lambda norm: norm.isel(model=[0, 0, 1, 2]), "more than one of"),
        (lambda norm: norm.drop_vars(["model", "model_name"]).isel(model=[0, 1]), "goes by position.*got 2"),
        (lambda norm: norm.rename(response_norm="other"), "call fx.tuning.response_norm"),
    ],
)
@pytest.mark.parametrize(
    "name", ["peak_responses", "tuning_curves", "direction_selectivity_index", "preferred_direction"]
)
def test_direction_measures__norm_with_missing_labels(name: str, change: Any, message: str) -> None:
    responses = motion_responses()
    norm = change(fx.tuning.response_norm(responses))
    with pytest.raises(schema.SchemaError, match=message):
        getattr(fx.tuning, name)(responses, norm=norm)


# -- known tuning -----------------------------------------------------------------------------------------------------


def test_known_tuning__every_entry_has_a_source_and_a_cell_type() -> None:
    known = fx.tuning.known_tuning()
    assert set(known.cell_type.values) <= set(fx.open_connectome().cell_type.values)
    assert set(known.polarity.values) == {-1.0, 1.0}
    assert (known.polarity_source != "").all()
    np.testing.assert_array_equal(known.direction_source != "", known.direction_selective.notnull())
    np.testing.assert_array_equal(known.preferred_direction.notnull(), known.direction_selective == 1)
    np.testing.assert_array_equal(known.tuning_curve_source != "", known.tuning_curve.notnull().all("angle"))
    known["polarity"][:] = 0
    assert (fx.tuning.known_tuning().polarity != 0).all()


def test_known_tuning__is_read_as_utf_8_in_every_locale() -> None:
    code = "import warnings, flyxr as fx; warnings.filterwarnings('error', module='flyxr'); fx.tuning.known_tuning()"
    subprocess.run([sys.executable, "-X", "warn_default_encoding", "-W", "ignore", "-c", code], check=True)


def test_agreement__of_known_tuning_is_perfect() -> None:
    known = fx.tuning.known_tuning()
    index = (0.5 * known.polarity).rename("flash_response_index").to_dataset()
    assert fx.tuning.agreement(index).correlation.item() == pytest.approx(1)
    assert fx.tuning.agreement(-index).correlation.item() == pytest.approx(-1)
    both = xr.concat([known.preferred_direction, known.preferred_direction + 90], xr.Variable("intensity", [1.0, 0.0]))
    directions = both.rename("preferred_direction").to_dataset().dropna("cell_type", how="all")
    found = fx.tuning.agreement(directions)
    np.testing.assert_allclose(found.angular_distance_by_type.sel(cell_type=TYPES), [0] * 4 + [90] * 4)
    assert found.angular_distance.item() == 45
    curves = known.tuning_curve.dropna("cell_type").expand_dims(intensity=[0.0, 1.0]).to_dataset()
    assert fx.tuning.agreement(curves).correlation.item() == pytest.approx(1)


def test_agreement__another_table() -> None:
    known = fx.tuning.known_tuning()
    index = (0.5 * known.polarity).rename("flash_response_index").to_dataset()
    opposite = known.assign(polarity=-known.polarity)
    assert fx.tuning.agreement(index, known=opposite).correlation.item() == pytest.approx(-1)


def test_agreement__bad_input() -> None:
    index = xr.Dataset({"flash_response_index": ("cell_type", [0.1, 0.2])}, {"cell_type": ["L1", "Mi1"]})
    with pytest.raises(ValueError, match="at least 3 cell types whose polarity is known"):
        fx.tuning.agreement(index)
    ones = xr.Dataset({"flash_response_index": ("cell_type", np.ones(3))}, {"cell_type": ["L1", "L2", "L3"]})
    with pytest.raises(ValueError, match="differ in polarity"):
        fx.tuning.agreement(ones)
    with pytest.raises(schema.SchemaError, match="tuning_curves"):
        fx.tuning.agreement(motion_responses())
    on_only = fx.tuning.direction_selectivity_index(motion_responses()).sel(intensity=[1.0])
    with pytest.raises(ValueError, match="intensities 0 and 1"):
        fx.tuning.agreement(on_only)
    other = fx.tuning.tuning_curves(motion_responses().assign_coords(angle=lambda data: data.angle + 10))
    with pytest.raises(ValueError, match="directions"):
        fx.tuning.agreement(other)


@pytest.mark.parametrize("name", ["preferred_direction", "tuning_curve"])
def test_agreement__ignores_cell_types_of_unknown_polarity(name: str) -> None:
    known = fx.tuning.known_tuning()
    on = known[name]
    off = on.isel(angle=slice(None, None, -1)).values if name == "tuning_curve" else on + 90
    both = xr.concat([on, on.copy(data=off)], xr.Variable("intensity", [1.0, 0.0])).rename(name)
    measure = both.dropna("cell_type", how="all").to_dataset()
    unknown = known.assign(polarity=known.polarity.where(known.cell_type != "T4a"))
    found = fx.tuning.agreement(measure, known=unknown)
    mean, by_type = found.data_vars.values()
    assert "T4a" not in by_type.cell_type.values
    expected = fx.tuning.agreement(measure.drop_sel(cell_type="T4a"))
    xr.testing.assert_allclose(mean, next(iter(expected.data_vars.values())))


def test_agreement__cell_types_without_labels() -> None:
    index = xr.Dataset({"flash_response_index": ("cell_type", fx.tuning.known_tuning().polarity.values)})
    with pytest.raises(schema.SchemaError, match="over the labelled dim 'cell_type'"):
        fx.tuning.agreement(index)


# -- selections and arguments -----------------------------------------------------------------------------------------


@each_measure
@pytest.mark.parametrize("dim", ["model", "cell_type", "column"])
def test_measures__of_a_selection_lack_the_dim_that_it_lacks(name: str, dim: str) -> None:
    measure, make = MEASURES[name]
    columns = {"column": [0], "u": ("column", [0]), "v": ("column", [0])}
    responses = make().expand_dims("column", axis=-1).assign_coords(columns)
    if (name, dim) == ("agreement", "cell_type"):
        pytest.skip("a mean over cell types")
    whole, selected = measure(responses), measure(responses.isel({dim: 0}))
    for variable, array in selected.data_vars.items():
        expected = whole[variable]
        if dim != "column" and dim in expected.dims:
            assert dim not in array.dims
            expected = expected.sel({dim: responses[dim].values[0]})
        xr.testing.assert_allclose(array, expected)


@each_measure
def test_measures__of_a_selection_are_lazy(name: str, counting_scheduler: Any) -> None:
    measure, make = MEASURES[name]
    found = measure(make().isel(model=0).assign(response=lambda data: data.response.chunk(sample=3)))
    assert counting_scheduler.calls == 0
    assert all(variable.chunks is not None for variable in found.data_vars.values())


@pytest.mark.parametrize("name", ["peak_responses", "response_norm", "temporal_receptive_field", "tuning_curves"])
def test_measures__of_one_sample(name: str) -> None:
    measure, make = MEASURES[name]
    i = 7 if name == "temporal_receptive_field" else 1  # the impulse of intensity 1 in the central column
    one, kept = measure(make().isel(sample=i)), measure(make().isel(sample=[i]))
    assert "sample" not in one.dims
    for variable, array in kept.data_vars.items():
        xr.testing.assert_allclose(one[variable], array.squeeze("sample") if "sample" in array.dims else array)


def test_response_norm__of_one_frame() -> None:
    one = fx.tuning.response_norm(motion_responses().isel(time=5)).response_norm
    xr.testing.assert_allclose(one, fx.tuning.response_norm(motion_responses().isel(time=[5])).response_norm)


@pytest.mark.parametrize("select", [lambda r: r.isel(sample=0), lambda r: r.mean("sample")], ids=["one", "mean"])
@pytest.mark.parametrize(
    ("name", "conditions"),
    [
        ("flash_response_index", "flashes of both intensities"),
        ("direction_selectivity_index", "several directions of motion"),
        ("preferred_direction", "several directions of motion"),
        ("spatial_receptive_field", "impulses in the columns"),
    ],
)
def test_measures__of_several_conditions_say_so_of_one_sample(name: str, conditions: str, select: Any) -> None:
    measure, make = MEASURES[name]
    with pytest.raises(
        schema.SchemaError, match=f"'sample' with {conditions}, got one sample or a mean: keep 'sample'"
    ):
        measure(select(make()))


@each_measure
def test_measures__name_the_dims_that_other_names_stand_for(name: str) -> None:
    measure, make = MEASURES[name]
    responses = make()
    for renames, hint in (
        ({"sample": "trial", "time": "frame"}, r"\.rename\(trial='sample', frame='time'\)"),
        ({"cell_type": "type"}, r"\.rename\(type='cell_type'\)"),
        ({"model": "network"}, r"\.rename\(network='model'\)"),
    ):
        with pytest.raises(schema.SchemaError, match=hint):
            measure(responses.rename(renames))


def test_agreement__names_the_dims_that_other_names_stand_for() -> None:
    index = fx.tuning.flash_response_index(flash_responses()).rename(cell_type="type")
    with pytest.raises(schema.SchemaError, match=r"\.rename\(type='cell_type'\)"):
        fx.tuning.agreement(index)


def labels_as_tuples(labels: list[Any]) -> NDArray[Any]:
    array = np.empty(len(labels), dtype=object)
    array[:] = labels
    return array


KINDS_OF_LABELS: dict[str, Callable[[int], NDArray[Any]]] = {
    "text": lambda n: np.array([f"a{i}" for i in range(n)], dtype=object),
    "tuples": lambda n: labels_as_tuples([("a", i) for i in range(n)]),
    "dates": lambda n: np.datetime64("2026-01-01", "ns") + np.arange(n) * np.timedelta64(1, "D"),
}


@each_measure
@pytest.mark.parametrize("kind", KINDS_OF_LABELS)
def test_measures__keep_labels_of_any_kind(name: str, kind: str) -> None:
    measure, make = MEASURES[name]
    responses, labels = make(), KINDS_OF_LABELS[kind]
    n_models, n_samples = responses.sizes["model"], responses.sizes["sample"]
    found = measure(responses.assign_coords(model=labels(n_models), sample=labels(n_samples)))
    assert found.model.values.tolist() == labels(n_models).tolist()
    if "sample" in found.dims:
        assert found.sample.values.tolist() == labels(n_samples).tolist()
    for variable, array in measure(responses).data_vars.items():
        np.testing.assert_allclose(found[variable].values, array.values)
    assert measure(responses.assign_coords(model=labels(n_models)).isel(model=0)).model.item() == found.model[0].item()


def test_measures__take_numbers_of_any_type() -> None:
    flashes, moving = flash_responses(), motion_responses()
    expected = fx.tuning.flash_response_index(flashes, 6)
    found = fx.tuning.flash_response_index(flashes, np.float32(6), on_intensity=np.array(1), off_intensity=np.int64(0))
    xr.testing.assert_identical(found, fx.tuning.flash_response_index(flashes, 6.0))
    xr.testing.assert_equal(found, expected)
    window = fx.tuning.peak_responses(moving, window=(-5, 5))
    xr.testing.assert_identical(fx.tuning.peak_responses(moving, window=np.array([-5, 5], np.int16)), window)
    xr.testing.assert_equal(
        fx.tuning.peak_responses(moving, norm=2).peak_response, fx.tuning.peak_responses(moving).peak_response / 2
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fx.tuning.flash_response_index(flash_responses(), "6"), "radius as a number, in columns, got '6'"),
        (lambda: fx.tuning.flash_response_index(flash_responses(), on_intensity=None), "on_intensity as a number"),
        (lambda: fx.tuning.peak_responses(motion_responses(), window=3), r"window=\(first, last\), degrees.*got 3"),
        (lambda: fx.tuning.peak_responses(motion_responses(), window=(5, -5)), r"first <= last, got \(5, -5\)"),
        (lambda: fx.tuning.peak_responses(motion_responses(), window=("a", 1)), "window as finite numbers"),
        (lambda: fx.tuning.peak_responses(motion_responses(), norm="x"), "a norm as a labelled DataArray.*got str"),
        (lambda: fx.tuning.peak_responses(motion_responses(), norm=np.ones(3)), "a norm as a labelled.*got ndarray"),
        (lambda: fx.tuning.agreement("x"), "got str"),
        (lambda: fx.tuning.agreements("x"), "expected a Dataset of measures, got str"),
        (
            lambda: fx.tuning.agreement(fx.tuning.known_tuning(), known=3),
            "known tuning as a Dataset over .cell_type., got int",
        ),
        (lambda: fx.tuning.summary(motion_responses().isel(sample=0)), "several directions"),
    ],
)
def test_measures__arguments_of_another_type(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_agreement__of_one_cell_type() -> None:
    directions = fx.tuning.preferred_direction(motion_responses())
    one = fx.tuning.agreement(directions.sel(cell_type="T4a"))
    whole = fx.tuning.agreement(directions)
    assert one.angular_distance_by_type.dims == ("model",)
    xr.testing.assert_allclose(one.angular_distance_by_type, whole.angular_distance_by_type.sel(cell_type="T4a"))
    xr.testing.assert_equal(fx.tuning.agreement(directions.preferred_direction), whole)
    with pytest.raises(ValueError, match="at least 3 cell types.*keep 'cell_type'"):
        fx.tuning.agreement(fx.tuning.flash_response_index(flash_responses()).isel(cell_type=0))


# -- the records of measures ------------------------------------------------------------------------------------------


RESPONSES: dict[schema.Stimulus, Callable[..., xr.Dataset]] = {
    schema.FLASHES: flash_responses,
    schema.MOVING: motion_responses,
    schema.IMPULSES: impulse_responses,
}


def test_measures__match_their_records() -> None:
    known = fx.tuning.known_tuning()
    for measure in schema.MEASURES:
        assert measure.function in fx.tuning.__all__
        make = RESPONSES[measure.stimulus] if measure.stimulus else motion_responses
        found = getattr(fx.tuning, measure.function)(make())
        assert set(found.data_vars) == {variable.name for variable in measure.variables}
        schema.validate(found, "measures")
        assert measure.compared is None or measure.compared[0] in known
    assert {name for stimulus in schema.STIMULI for name in stimulus.functions} <= set(dir(fx.stimuli))
    others = {"agreement", "agreements", "calcium", "known_tuning", "summary"}
    assert {measure.function for measure in schema.MEASURES} == set(fx.tuning.__all__) - others
    variables = tuple(variable for measure in schema.MEASURES for variable in measure.variables)
    assert schema.KINDS["measures"].variables == variables


@pytest.mark.parametrize("stimulus", RESPONSES, ids=str)
def test_summary__has_the_measures_of_the_stimulus(stimulus: schema.Stimulus) -> None:
    """A measure that is added to the records is part of the summary."""
    measures = [measure for measure in schema.MEASURES if measure.stimulus == stimulus]
    expected = {
        variable.name for measure in measures for variable in measure.variables if "sample" not in variable.dims
    }
    assert set(fx.tuning.summary(RESPONSES[stimulus]()).data_vars) == expected


def test_agreements__has_all_measures_that_are_compared() -> None:
    known = fx.tuning.known_tuning()
    compared = {measure.variables[0].name: measure.compared for measure in schema.MEASURES if measure.compared}
    measures = xr.Dataset(
        {
            name: known[known_name].drop_attrs().expand_dims(model=[0], intensity=[0.0, 1.0])
            for name, (known_name, _) in compared.items()
        }
    )
    agreements = fx.tuning.agreements(measures)
    assert set(agreements) == set(compared)
    for name, agreement in agreements.items():
        xr.testing.assert_identical(agreement, fx.tuning.agreement(measures[[name]])[compared[name][1]])


def test_flash_response_index__default_radius_is_6_or_the_largest() -> None:
    responses = flash_responses()
    assert fx.tuning.flash_response_index(responses).radius == 6
    small = responses.assign_coords(radius=("sample", [-1.0, 3.0, -1.0, 3.0]))
    xr.testing.assert_identical(
        fx.tuning.flash_response_index(small), fx.tuning.flash_response_index(small, radius=3.0)
    )
    assert fx.tuning.summary(small).flash_response_index.radius == 3


# -- bad input --------------------------------------------------------------------------------------------------------


def test_measures__name_the_stimulus_they_require() -> None:
    flashes = provenance.add(xr.Dataset(), "flashes", {}).attrs
    responses = flash_responses().assign_attrs(flashes)
    with pytest.raises(schema.SchemaError, match="moving_edges.*got none of angle.*stimulus is flashes"):
        fx.tuning.direction_selectivity_index(responses)
    with pytest.raises(schema.SchemaError, match="fx.stimuli.flashes.*got none of radius"):
        fx.tuning.flash_response_index(motion_responses())
    with pytest.raises(schema.SchemaError, match="fx.stimuli.impulses.*u_impulse"):
        fx.tuning.spatial_receptive_field(motion_responses())
    with pytest.raises(schema.SchemaError, match="speed, first_offset"):
        fx.tuning.peak_responses(responses, window=(-5, 5))
    with pytest.raises(schema.SchemaError, match="before the onset"):
        fx.tuning.temporal_receptive_field(impulse_responses().isel(time=slice(3, None)))
    with pytest.raises(schema.SchemaError, match="call fx.simulate"):
        fx.tuning.response_norm(xr.Dataset({"luminance": 1}))


def test_flash_response_index__missing_flashes() -> None:
    with pytest.raises(ValueError, match="radius 3 and intensity 1, got 0"):
        fx.tuning.flash_response_index(flash_responses(), radius=3)
    with pytest.raises(ValueError, match=r"intensity 0.7.*\(6.0, 1.0\)"):
        fx.tuning.flash_response_index(flash_responses(), on_intensity=0.7)


def test_direction_measures__insufficient_directions() -> None:
    responses = motion_responses()
    half = responses.isel(sample=responses.angle.values <= 180)
    with pytest.raises(ValueError, match="evenly spaced"):
        fx.tuning.preferred_direction(half)
    assert fx.tuning.tuning_curves(half).tuning_curve.sizes["angle"] == 7
    missing = responses.isel(sample=slice(1, None))
    with pytest.raises(ValueError, match="all 12 directions"):
        fx.tuning.direction_selectivity_index(missing)
    twice = xr.concat([responses, responses], "sample").assign_coords(trial=("sample", np.repeat([0, 1], 48)))
    with pytest.raises(ValueError, match="select one trial"):
        fx.tuning.tuning_curves(twice)
    unpaired = responses.isel(sample=(responses.intensity.values == 1) | (responses.speed.values == 10))
    found = fx.tuning.direction_selectivity_index(unpaired, average=False).direction_selectivity_index
    assert found.sel(intensity=0, speed=20).isnull().all()


def natural_responses() -> xr.Dataset:
    """Responses to moving photographs, with NaN as angle and speed of some samples."""
    coords = fx.stimuli.natural_motion(photographs="china", dt=1 / 50, extent=1).drop_vars("luminance").coords
    sample_coords = {name: coord for name, coord in coords.items() if coord.dims == ("sample",)}
    responses = motion_responses().isel(sample=slice(coords.sizes["sample"])).reset_coords(drop=True)
    responses = responses.drop_vars([name for name, coord in responses.coords.items() if "sample" in coord.dims])
    return responses.assign_coords(sample_coords)


def test_summary__of_natural_motion_names_the_known_stimuli() -> None:
    responses = natural_responses()
    assert responses.angle.isnull().any()
    with pytest.raises(
        schema.SchemaError, match=r"flashes, moving stimuli or impulses, got samples whose angle is NaN.*"
    ) as error:
        fx.tuning.summary(responses)
    assert "simulate fx.stimuli.flashes(), moving_edges() or impulses()" in str(error.value)


@pytest.mark.parametrize("coordinate", ["angle", "speed", "width", "intensity", "contrast", "t_stim"])
@pytest.mark.parametrize("name", ["tuning_curves", "direction_selectivity_index", "preferred_direction"])
def test_direction_measures__conditions_that_are_nan(name: str, coordinate: str) -> None:
    responses = motion_responses().assign_coords(contrast=("sample", np.ones(48)))
    known = responses[coordinate].where(responses.sample > 3)
    message = rf"fx.stimuli.moving_edges, moving_bars, gratings.*got {coordinate} that is NaN in 4 of 48"
    with pytest.raises(schema.SchemaError, match=message):
        getattr(fx.tuning, name)(responses.assign_coords({coordinate: known}))
    with pytest.raises(schema.SchemaError, match="moving_edges"):
        getattr(fx.tuning, name)(natural_responses())


@pytest.mark.parametrize(
    ("name", "make", "coordinate"),
    [
        ("flash_response_index", flash_responses, "radius"),
        ("flash_response_index", flash_responses, "t_stim"),
        ("temporal_receptive_field", impulse_responses, "intensity"),
        ("spatial_receptive_field", impulse_responses, "u_impulse"),
        ("spatial_receptive_field", impulse_responses, "t_stim"),
    ],
)
def test_measures__conditions_that_are_nan(name: str, make: Any, coordinate: str) -> None:
    responses = make()
    known = responses[coordinate].where(responses.sample > 0)
    with pytest.raises(schema.SchemaError, match=rf"fx.stimuli..*got {coordinate} that is NaN in 1 of"):
        getattr(fx.tuning, name)(responses.assign_coords({coordinate: known}))
