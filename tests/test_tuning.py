"""Measures of responses.

Parity with flyvis 1.2.0 is held on the responses stored beside its outputs, to the tolerance stated there, for every
measure whose definition is shared. Not compared: dims that flyvis squeezes away, preferred directions of cells that
hardly respond (flyvis calls silence a direction of 0, here it is NaN), and known tuning curves between the measured
directions, which flyvis extrapolates.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import xarray as xr

import flyxr as fx

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
