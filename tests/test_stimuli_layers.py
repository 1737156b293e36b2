"""Random scenes of moving layers: their true flow against the luminance, their variety, and rejected arguments."""

from __future__ import annotations

import numpy as np
import pytest

import flyxr as fx
from flyxr import schema
from flyxr.stimuli import layers
from flyxr.stimuli.natural import _points


def layer(**changes: object) -> layers._Layer:
    plain = layers._Layer("noise", 1, 1 + 0j, 4.0, "translation", 0j, 0j, 0j, np.inf)
    return plain._replace(**changes)


@pytest.mark.parametrize(
    "moving",
    [
        layer(velocity=3 + 4j),
        layer(rate=1j),
        layer(rate=0.8 + 0j),
        layer(velocity=-2 + 1j, rate=0.5 - 0.7j),
        layer(velocity=2 + 1j, rate=0.5 - 0.7j, center=1 + 1j, radius=3.0),
    ],
)
def test_flow__moves_points_of_the_texture(moving: layers._Layer) -> None:
    points, dt, time = _points(4), 1e-6, 0.3
    moved = points + moving.flow(points, time) * dt
    np.testing.assert_allclose(moving.source(moved, time + dt), moving.source(points, time), atol=1e-9)


def test_moving_layers__translation_shifts_columns() -> None:
    """At one column per frame downward, a column sees the previous frame of its neighbour above."""
    scene = layers._Scene([layer(velocity=-10j)], 1.0, 0.5, 0.0, 1.0, 0.0, 0)
    arguments = {"scenes": [scene], "extent": 4, "dt": 0.1, "n_frames": 5}
    view = layers._render_luminance(np.array([0]), n_fade=0, **arguments)[0]
    points = _points(4)
    above = np.argmin(abs(points[:, None] + 1j - points), axis=1)
    has_neighbour = abs(points + 1j - points[above]) < 1e-6
    np.testing.assert_allclose(view[1:, has_neighbour], view[:-1, above[has_neighbour]], atol=1e-6)
    flow = layers._render_flow(np.array([0]), **arguments)[0]
    np.testing.assert_allclose(flow, np.broadcast_to([0, -10], flow.shape), atol=1e-6)


def test_moving_layers__objects_hide_the_background() -> None:
    hidden = layer(velocity=2 + 0j)
    disc = layer(texture="edges", velocity=-2 + 0j, radius=2.0)
    scene = layers._Scene([hidden, disc], 1.0, 0.5, 0.0, 1.0, 0.0, 0)
    flow = layers._render_flow(np.array([0]), scenes=[scene], extent=5, dt=0.02, n_frames=1)[0, 0, :, 0]
    distance = abs(_points(5))
    assert (flow[distance < 1.9] == -2).all()
    assert (flow[distance > 2.1] == 2).all()


def test_moving_layers__samples_of_a_scene_differ_in_direction_alone() -> None:
    scenes = fx.stimuli.moving_layers(8, seed=3, n_directions=4, single_layer_share=1, extent=4).compute()
    flow = scenes["flow"].isel(time=0).values
    np.testing.assert_allclose(flow[:4].sum(0), 0, atol=1e-4)
    np.testing.assert_allclose(flow[1], np.stack([-flow[0, :, 1], flow[0, :, 0]], -1), atol=1e-4)
    assert scenes["scene"].values.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert len(set(scenes["texture"].values[:4])) == 1


def test_moving_layers__more_samples_keep_the_first() -> None:
    few, many = (fx.stimuli.moving_layers(n, seed=1, extent=3).compute() for n in (2, 5))
    np.testing.assert_array_equal(few["luminance"], many["luminance"].isel(sample=slice(2)))
    np.testing.assert_array_equal(few["flow"], many["flow"].isel(sample=slice(2)))


def test_moving_layers__has_all_motions_and_textures_within_the_speed_limit() -> None:
    scenes = fx.stimuli.moving_layers(150, seed=0, extent=3)
    assert set(scenes["motion"].values) == set(layers.MOTIONS)
    assert set(scenes["texture"].values) == set(layers.TEXTURES)
    assert set(scenes["n_objects"].values) == {0, 1, 2, 3}
    loaded = scenes.isel(sample=slice(60)).compute()
    assert np.hypot(*np.moveaxis(loaded["flow"].values, -1, 0)).max() < 15 * 1.05  # objects grow beyond their radius
    assert 0 <= float(loaded["luminance"].min()) < float(loaded["luminance"].max()) <= 1
    schema.validate(loaded, "rendering")


def test_moving_layers__contrast_grows_from_grey() -> None:
    scenes = fx.stimuli.moving_layers(20, seed=0, extent=3, t_fade=0.2).compute()
    deviation = abs(scenes["luminance"] - 0.5).mean(("sample", "column")).values
    assert deviation[0] < 0.2 * deviation[-1]
    assert (np.diff(deviation[:10]) > 0).all()


def test_moving_layers__rejects_arguments() -> None:
    with pytest.raises(schema.SchemaError, match=r"(?s)n_samples.*single_layer_share.*n_directions.*extent"):
        fx.stimuli.moving_layers(0, single_layer_share=2, n_directions=0, extent=0)
