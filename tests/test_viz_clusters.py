"""The picture of clustered models: read the drawn values back from HoloViews elements and Bokeh figures."""

from __future__ import annotations

from typing import Any

import holoviews as hv
import numpy as np
import pytest
import xarray as xr
from bokeh.models import ColorBar

from flyxr import viz
from flyxr.viz import colours

CLUSTER = np.array([[0, 0, 0, 0, 1, 1, -1], [1, 1, 1, 0, 0, 0, -1]])


@pytest.fixture
def clusters() -> xr.Dataset:
    """Seven models; the last has no cluster, and no place in the embedding of T4c."""
    embedding = np.random.default_rng(0).uniform(size=(2, 7, 3))
    embedding[0, -1] = np.nan
    return xr.Dataset(
        {
            "embedding": (("cell_type", "model", "component"), embedding),
            "cluster": (("cell_type", "model"), CLUSTER),
        },
        {
            "cell_type": ["T4c", "T5c"],
            "model": np.arange(7) * 2,
            "model_name": ("model", list("abcdefg")),
            "task_error": ("model", [5.0, 5.1, np.nan, 5.3, 5.4, 5.5, 5.6]),
        },
    )


def points_of(panel: Any) -> dict[str, hv.Points]:
    return {layer.label: layer for layer in panel if isinstance(layer, hv.Points)}


def test_embedding__draws_each_model_once_in_its_cluster(clusters: xr.Dataset) -> None:
    panels = list(viz.embedding(clusters))
    for panel, cell_type in zip(panels, ("T4c", "T5c"), strict=True):
        one, drawn = clusters.sel(cell_type=cell_type), points_of(panel)
        for label, points in drawn.items():
            number = int(label.split()[1]) if label.startswith("cluster") else -1
            expected = one.isel(
                model=np.flatnonzero((one.cluster == number) & one.embedding.notnull().all("component"))
            )
            np.testing.assert_array_equal(points.dimension_values("embedding 0"), expected.embedding[:, 0])
            np.testing.assert_array_equal(points.dimension_values("embedding 1"), expected.embedding[:, 1])
            assert points.dimension_values("model").tolist() == list(map(str, expected.model.values))
            assert points.dimension_values("name").tolist() == expected.model_name.values.tolist()
            np.testing.assert_array_equal(points.dimension_values("task_error"), expected.task_error)
    assert list(points_of(panels[0])) == ["cluster 0 (4 models)", "cluster 1 (2 models)"]
    assert list(points_of(panels[1])) == ["no cluster (1 model)", "cluster 0 (3 models)", "cluster 1 (3 models)"]
    titles = [hv.render(panel, backend="bokeh").title.text for panel in panels]
    assert titles == ["T4c (1 of 7 models not embedded)", "T5c"]


def test_embedding__colours_by_task_error_on_one_scale(clusters: xr.Dataset) -> None:
    figures = [hv.render(panel, backend="bokeh") for panel in viz.embedding(clusters)]
    for figure in figures:
        mappers = [
            renderer.glyph.fill_color.transform
            for renderer in figure.renderers
            if getattr(renderer.glyph, "marker", None) is not None
        ]
        assert {(mapper.low, mapper.high, mapper.nan_color) for mapper in mappers} == {(5.0, 5.6, colours.NO_CELL)}
    assert [len(list(figure.select({"type": ColorBar}))) for figure in figures] == [0, 1]
    assert figures[1].select_one({"type": ColorBar}).title == "task error (a.u.)"


def test_embedding__colours_by_cluster_if_no_task_error_is_known(clusters: xr.Dataset) -> None:
    panel = viz.embedding(clusters.drop_vars(["task_error", "model_name"]).sel(cell_type="T5c"))
    figure = hv.render(panel, backend="bokeh")
    markers = [r.glyph for r in figure.renderers if getattr(r.glyph, "marker", None) is not None]
    assert [glyph.fill_color for glyph in markers] == [colours.NO_CELL, *colours.sample_colours(2)]
    assert len({str(glyph.marker) for glyph in markers}) == 3
    assert not list(figure.select({"type": ColorBar}))


def test_embedding__hovers_with_model_name_and_task_error(clusters: xr.Dataset) -> None:
    figure = hv.render(viz.embedding(clusters.isel(cell_type=[0])), backend="bokeh")
    names = {label for tool in figure.hover for label, _ in tool.tooltips}
    assert names >= {"model", "name", "task_error", "cluster"}


def test_embedding__ellipses_lie_two_standard_deviations_from_the_mean(clusters: xr.Dataset) -> None:
    one = clusters.sel(cell_type="T5c")
    outlines = [layer for layer in viz.embedding(one) if isinstance(layer, hv.Curve)]
    assert len(outlines) == 2
    for number, outline in enumerate(outlines):
        points = one.embedding.values[CLUSTER[1] == number, :2]
        offsets = np.stack([outline.dimension_values(i) for i in range(2)], axis=1) - points.mean(axis=0)
        distances = np.einsum("pi,ij,pj->p", offsets, np.linalg.inv(np.cov(points.T)), offsets)
        np.testing.assert_allclose(np.sqrt(distances), 2, rtol=1e-6)


def test_embedding__of_the_accessor_and_of_lazy_data(clusters: xr.Dataset) -> None:
    expected = viz.embedding(clusters)
    assert repr(clusters.fly.embedding()) == repr(viz.embedding(clusters.chunk(model=2))) == repr(expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.embedding, "expected clusters with 'embedding' and 'cluster'.*call fx.cluster"),
        (lambda data: data.drop_vars("embedding"), r"got variables \['cluster'\]"),
        (lambda data: data.isel(component=[0]), "two components.*n_components=2"),
        (lambda data: data.isel(model=[]), "at least one of each"),
        (lambda data: data.isel(cell_type=[]), "at least one of each"),
        (lambda data: "clusters", "expected clusters .*got str"),
    ],
)
def test_embedding__refuses_what_is_no_embedding(clusters: xr.Dataset, change: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        viz.embedding(change(clusters))


def test_embedding__refuses_sizes_that_are_no_integers(clusters: xr.Dataset) -> None:
    with pytest.raises(ValueError, match=r"height as an integer.*columns as an integer"):
        viz.embedding(clusters, height=0, columns=1.5)  # type: ignore[arg-type]
