"""Time courses by cluster and by perturbation."""

from __future__ import annotations

import re
from typing import Any

import holoviews as hv
import numpy as np
import pytest
import xarray as xr

from flyxr import viz
from flyxr.viz.time_courses import TimeCourses


@pytest.fixture
def courses() -> xr.DataArray:
    """Responses (model, cell_type, time) of four models, the number of the model everywhere."""
    coords = {
        "model": [10, 11, 12, 13],
        "task_error": ("model", [5.4, 5.1, 5.3, 5.2]),
        "cell_type": ["T4c", "Mi1"],
        "time": np.arange(3) / 10,
    }
    values = np.arange(10.0, 14.0)[:, None, None] * np.ones((4, 2, 3))
    return xr.DataArray(values, coords, ("model", "cell_type", "time"), name="response")


@pytest.fixture
def clusters() -> xr.Dataset:
    """Clusters of the same models in another order, and of one model more."""
    labels = {"cell_type": ["Mi1", "T4c"], "model": [13, 12, 99, 11, 10]}
    return xr.Dataset({"cluster": (("cell_type", "model"), [[0, 0, 0, 0, 0], [1, 0, 0, -1, 0]])}, labels)


def options_of(panel: Any) -> dict[str, Any]:
    return dict(hv.Store.lookup_options("bokeh", panel, "plot").kwargs)


def models_of(courses: TimeCourses) -> list[Any]:
    assert isinstance(courses, TimeCourses)
    return courses.labels("model").tolist()


def test_traces__by_cluster_has_a_panel_for_each(courses: xr.DataArray, clusters: xr.Dataset) -> None:
    panels = viz.traces(courses, by="cluster", clusters=clusters).values()
    titles = [options_of(panel)["title"] for panel in panels if not isinstance(panel, hv.Empty)]
    assert titles == [
        "T4c, cluster 0 (2 models)",
        "T4c, cluster 1 (1 model)",
        "T4c, no cluster (1 model)",
        "Mi1, cluster 0 (4 models)",
    ]
    assert [isinstance(panel, hv.Empty) for panel in panels] == [False] * 4 + [True] * 2
    assert [models_of(panel) for panel in panels[:3]] == [[10, 12], [13], [11]]  # by label; the best on top
    assert len({options_of(panel)["ylim"] for panel in panels[:3]}) == 1


def test_traces__by_cluster_shares_its_colours(courses: xr.DataArray, clusters: xr.Dataset) -> None:
    panels = viz.traces(courses.sel(cell_type="T4c"), clusters=clusters).values()
    limits = {options_of(panel)["clim"] for panel in panels}
    assert limits == {(5.1, 5.4)}
    assert hv.render(viz.traces(courses, clusters=clusters), backend="bokeh") is not None


def test_traces__by_cluster_of_unknown_task_error(courses: xr.DataArray, clusters: xr.Dataset) -> None:
    panels = viz.traces(courses.drop_vars("task_error"), clusters=clusters).values()
    assert options_of(panels[0])["title"] == "T4c, cluster 0 (2 models)"


def test_traces__by_perturbation_overlays_the_models(courses: xr.DataArray) -> None:
    perturbed = courses.assign_coords(
        perturbation=("model", np.array(["none", "none", "silence Mi9", "silence Mi9"], dtype=object)),
        unperturbed=("model", [10, 11, 10, 11]),
    )
    panel = viz.traces(perturbed.sel(cell_type="T4c"), by="perturbation")
    means = {layer.label: layer.dimension_values("response") for layer in panel if isinstance(layer, hv.Curve)}
    assert list(means) == ["none", "silence Mi9"]
    np.testing.assert_allclose(means["none"], 10.5)
    np.testing.assert_allclose(means["silence Mi9"], 12.5)
    assert options_of(panel)["show_legend"]
    assert [models_of(layer) for layer in panel if isinstance(layer, TimeCourses)] == [[10, 11], [10, 11]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"by": "cluster"}, "pass clusters=fx.cluster(responses.fly.central())"),
        ({"by": "cluster", "clusters": xr.Dataset()}, "expected clusters with the variable 'cluster'"),
        ({"by": "perturbation"}, "expected models with the coordinate 'perturbation'"),
        ({"by": "colour"}, "'cluster', 'perturbation' or None, got 'colour'"),
        ({"by": "sample", "clusters": xr.Dataset()}, "expected by='cluster' for clusters"),
    ],
)
def test_traces__refuses(courses: xr.DataArray, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        viz.traces(courses, **arguments)


def test_traces__refuses_clusters_of_other_models(courses: xr.DataArray, clusters: xr.Dataset) -> None:
    with pytest.raises(ValueError, match="clusters"):
        viz.traces(courses.assign_coords(model=[1, 2, 3, 4]), clusters=clusters)


def test_traces__refuses_several_samples_of_perturbations(courses: xr.DataArray) -> None:
    both = courses.assign_coords(perturbation=("model", ["none"] * 4)).expand_dims(sample=[0, 1])
    with pytest.raises(ValueError, match=re.escape("select one with .isel(sample=0)")):
        viz.traces(both, by="perturbation")
