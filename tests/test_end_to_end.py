"""From classic stimuli to measures, compared with flyvis 1.2.0 and with the publication.

Compared with flyvis: responses and measures of six random networks to flashes, and to edges converted to 8-bit greys
as in flyvis. Compared with Lappalainen et al. 2024: flash response index, direction selectivity and preferred
directions of published models.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import xarray as xr

import flyxr as fx
from flyxr import schema
from flyxr.stimuli import monitor, moving
from flyxr.testing import render_edge_in_8_bit

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Golden = Callable[[str], dict[str, np.ndarray]]

ATOL, RTOL = 2e-5, 1e-4
T4, T5 = [f"T4{x}" for x in "abcd"], [f"T5{x}" for x in "abcd"]


@pytest.fixture(scope="module")
def ensemble(golden: Golden) -> xr.Dataset:
    """The six networks of the reference."""
    reference = golden("analysis_params.npz")
    pairs = np.array([pair.split(">") for pair in reference["pairs"].tolist()], dtype=object)
    return xr.Dataset(
        {
            "bias": (("model", "cell_type"), reference["bias"]),
            "time_constant": (("model", "cell_type"), reference["time_const"]),
            "synapse_strength": (("model", "pair"), reference["syn_strength"]),
        },
        {
            "model": range(6),
            "model_name": ("model", np.array([f"network {i}" for i in range(6)], dtype=object)),
            "task_error": ("model", reference["losses"].astype(float)),
            "cell_type": reference["types"].astype(object),
            "pair": range(len(pairs)),
            "source": ("pair", pairs[:, 0]),
            "target": ("pair", pairs[:, 1]),
        },
        {"connectome": fx.open_connectome().attrs["connectome"]},
    )


def respond(rendering: xr.Dataset, models: xr.Dataset) -> xr.Dataset:
    return fx.simulate(rendering, models, initial_state="steady_state", record="central").fly.central().load()


@pytest.fixture(scope="module")
def flashes(ensemble: xr.Dataset) -> xr.Dataset:
    return respond(fx.stimuli.flashes(radius=(-1, 6), intensities=(0, 1), dt=1 / 100), ensemble)


@pytest.fixture(scope="module")
def edges(ensemble: xr.Dataset) -> xr.Dataset:
    rendering = fx.stimuli.moving_edges(angles=[0, 90, 180, 270], speeds=19, dt=1 / 100).load()
    onset, values = int(np.flatnonzero(rendering.time == 0)[0]), rendering.luminance.values.copy()
    n_moving = int(rendering.t_stim.values[0] / 0.01)
    for sequence, angle, intensity in zip(values, rendering.angle.values, rendering.intensity.values, strict=True):
        path = monitor.BarPath(float(angle), np.inf, 180.0, -10, 21, 15)
        positions = render_edge_in_8_bit(path, float(intensity))
        sequence[onset : onset + n_moving] = positions[moving.positions_shown(21, n_moving)]
        sequence[onset + n_moving :] = sequence[onset + n_moving - 1]
    return respond(rendering.assign(luminance=(rendering.luminance.dims, values)), ensemble)


@pytest.mark.parametrize("stimulus", ["flash", "edge"])
def test_responses__equal_flyvis(stimulus: str, golden: Golden, request: pytest.FixtureRequest) -> None:
    responses = request.getfixturevalue({"flash": "flashes", "edge": "edges"}[stimulus]).response
    exact = golden("analysis_net0_f32.npz")[f"{stimulus}_responses_net0"]
    np.testing.assert_allclose(responses[0], exact, atol=ATOL, rtol=RTOL)
    rounded = golden(f"analysis_{stimulus}_inputs.npz")["responses_f16"].astype(np.float32)
    np.testing.assert_allclose(responses, rounded, atol=ATOL, rtol=1e-3)  # float16 rounds by at most 5e-4


def test_flash_response_index__equals_flyvis(flashes: xr.Dataset, golden: Golden) -> None:
    expected = golden("analysis_outputs.npz")
    is_modulated = expected["flash_modulation_last_radius"] > 1e-2
    measure = fx.tuning.flash_response_index(flashes, radius=6)
    np.testing.assert_allclose(
        measure.flash_response_index.values[is_modulated], expected["f32__fri_radius6"][:, 0][is_modulated], atol=ATOL
    )
    correlation = fx.tuning.agreement(measure).correlation
    np.testing.assert_allclose(correlation, expected["f32__fri_corr_known"][:, 0], atol=1e-3)


def test_measures_of_motion__equal_flyvis(edges: xr.Dataset, golden: Golden) -> None:
    expected = golden("analysis_outputs.npz")
    np.testing.assert_allclose(fx.tuning.peak_responses(edges).peak_response, expected["f32__peak"], atol=ATOL)
    index = fx.tuning.direction_selectivity_index(edges).direction_selectivity_index
    np.testing.assert_allclose(index, expected["f32__dsi"], atol=ATOL)
    direction = fx.tuning.preferred_direction(edges).preferred_direction
    difference = np.rad2deg(expected["f32__pd"]) - direction.transpose("model", "cell_type", "intensity").values
    difference = np.abs((difference + 180) % 360 - 180)[expected["pd_vector_length_f32"] > 1e-3]
    assert difference.max() < np.rad2deg(1e-3)


def test_edges__8_bit_greys_hardly_change_the_measure(ensemble: xr.Dataset, edges: xr.Dataset) -> None:
    """flyxr does not convert edges to 8-bit greys as flyvis does, which hardly changes the direction selectivity."""
    exact_edges = respond(fx.stimuli.moving_edges(angles=[0, 90, 180, 270], speeds=19, dt=1 / 100), ensemble)
    exact, rounded = (fx.tuning.direction_selectivity_index(responses) for responses in (exact_edges, edges))
    difference = np.abs(exact - rounded).direction_selectivity_index
    assert 0 < float(difference.max()) < 0.02


@pytest.fixture(scope="module")
def best(pretrained: Path) -> xr.Dataset:
    return fx.open_ensemble(pretrained).isel(model=slice(0, 10))


def test_published__contrasts_of_the_best_models(best: xr.Dataset) -> None:
    """The publication reports a median correlation with known polarities of about 0.8; T4 are ON and T5 OFF cells."""
    measure = fx.tuning.flash_response_index(respond(fx.stimuli.flashes(radius=6, dt=1 / 100), best))
    assert 0.7 < float(fx.tuning.agreement(measure).correlation.median()) < 0.9
    index = measure.flash_response_index
    assert float((index.sel(cell_type=T4) > 0).mean()) > 0.9
    assert float((index.sel(cell_type=T5) < 0).mean()) > 0.7


@pytest.mark.slow
def test_published__directions_of_t4_in_the_best_models(best: xr.Dataset) -> None:
    """T4 are selective for the direction of ON edges: a to the left, b to the right, c upward, d downward."""
    responses = respond(fx.stimuli.moving_edges(speeds=[13, 19], dt=1 / 100), best)
    index = fx.tuning.direction_selectivity_index(responses).direction_selectivity_index
    on, off = (index.sel(intensity=intensity, cell_type=T4) for intensity in (1, 0))
    assert float((on > off).mean()) > 0.9
    assert float(on.median()) > 5 * float(index.max("intensity").median())
    distance = fx.tuning.agreement(fx.tuning.preferred_direction(responses)).angular_distance_by_type
    assert float(distance.sel(cell_type=T4).median("model").max()) < 30


def test_summary__equals_the_measures(flashes: xr.Dataset, edges: xr.Dataset) -> None:
    summary = fx.tuning.summary(flashes)
    assert summary.flash_response_index.identical(fx.tuning.flash_response_index(flashes).flash_response_index)
    summary = fx.tuning.summary(edges)
    for measure in ("direction_selectivity_index", "preferred_direction"):
        expected: Any = getattr(fx.tuning, measure)(edges)
        assert summary[measure].identical(expected[measure])
    agreements = fx.tuning.agreements(summary)
    assert list(agreements) == ["direction_selectivity_index", "preferred_direction", "tuning_curve"]
    expected = fx.tuning.agreement(fx.tuning.preferred_direction(edges)).angular_distance
    np.testing.assert_array_equal(agreements["preferred_direction"], expected)
    assert json.loads(summary.attrs["provenance"])[-1]["operation"] == "summary"


def test_summary__rejects_responses_to_other_stimuli(edges: xr.Dataset) -> None:
    with pytest.raises(schema.SchemaError, match=r"simulate fx.stimuli.flashes\(\), moving_edges\(\) or impulses"):
        fx.tuning.summary(edges.drop_vars(["angle", "radius"], errors="ignore"))


def test_preferred_direction__rotates_with_network_and_stimulus(tmp_path: Path) -> None:
    """Six motion detectors differ by rotations of 60 degrees, under which the lattice is symmetric.

    A stimulus rotated by 60 degrees evokes in each detector the response of its neighbour. So the preferred directions
    are 60 degrees apart, all vector lengths are equal, and rotating the stimulus rotates all preferred directions.
    """
    neighbours = [(-1, 1), (-1, 0), (0, -1), (1, -1), (1, 0), (0, 1)]  # at 30, 90, 150, … degrees
    detectors = [f"T{number}" for number in range(6)]
    spec = {
        "nodes": [{"name": name, "pattern": ["stride", [1, 1]]} for name in ("R", "fast", "slow", *detectors)],
        "edges": [
            {"src": source, "tar": target, "alpha": sign, "offsets": [[offset, 1]]}
            for source, target, sign, offset in [
                ("R", "fast", 1, (0, 0)),
                ("R", "slow", 1, (0, 0)),
                *(("fast", detector, 1, (0, 0)) for detector in detectors),
                *(("slow", detector, -1, offset) for detector, offset in zip(detectors, neighbours, strict=True)),
            ]
        ],
        "input_units": ["R"],
        "output_units": detectors,
    }
    (tmp_path / "detectors.json").write_text(json.dumps(spec))
    connectome = fx.open_connectome(tmp_path / "detectors.json", extent=6, n_syn_fill=0)
    models = fx.sample_ensemble(1, seed=0, connectome=connectome)
    models["bias"] = models.bias * 0
    models["synapse_strength"] = models.synapse_strength * 0 + 1
    models["time_constant"] = xr.where(models.cell_type == "slow", 0.1, 0.02).broadcast_like(models.bias)

    def measure(rotation: float) -> list[xr.DataArray]:
        gratings = fx.stimuli.gratings(
            np.arange(0, 360, 30) + rotation, 1 / 30, 2, t_stim=1, t_pre=0.5, t_post=0, dt=1 / 100, extent=6
        )
        gratings = gratings.assign_coords(angle=gratings.angle - rotation)  # labels without the rotation
        responses = fx.simulate(gratings, models, connectome=connectome, initial_state="steady_state", record="central")
        result = fx.tuning.preferred_direction(responses.load())
        return [result[name].squeeze().sel(cell_type=detectors) for name in ("preferred_direction", "vector_length")]

    direction, length = measure(0)
    assert float(length.min()) > 0.05
    difference = np.diff(direction.values, append=direction.values[0] + 360)
    np.testing.assert_allclose((difference - 60 + 180) % 360 - 180, 0, atol=0.05)
    np.testing.assert_allclose(length, length[0], rtol=1e-3)
    rotated, _ = measure(60)
    np.testing.assert_allclose((rotated - direction + 60 + 180) % 360 - 180, 0, atol=0.05)
