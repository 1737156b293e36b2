"""Clusters of models. UMAP coordinates are not compared with stored ones, since they differ between machines."""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, Any

import dask
import numpy as np
import pytest
import xarray as xr
from sklearn.metrics import adjusted_rand_score

import flyxr as fx
from flyxr import provenance, schema
from flyxr.clustering import base, members
from flyxr.selection import UnknownCellTypeError

if TYPE_CHECKING:
    from pathlib import Path

QUICK: dict[str, Any] = {"n_epochs": 300, "n_init": 2}
N = 45
GROUPS = np.repeat([2, 0, 1], N // 3)
"""The group of each model; group 0 has the lowest task error."""


def central(n_models: int = N, noise: float = 0.05) -> xr.Dataset:
    """Responses with three groups of models in T4c and two in T5a; other types do not respond, or respond alike."""
    rng = np.random.default_rng(1)
    groups = GROUPS[:n_models]
    shape = (n_models, 2, 30)
    values = {
        "T4c": rng.normal(size=(3, 2, 30))[groups] + noise * rng.normal(size=shape),
        "T5a": rng.normal(size=(3, 2, 30))[np.minimum(groups, 1)] + noise * rng.normal(size=shape),
        "Am": np.full(shape, 0.5),
        "Lawf1": np.full(shape, np.nan),
        "R1": np.tile(rng.normal(size=(1, 2, 30)), (n_models, 1, 1)) * rng.uniform(1, 2, size=(n_models, 1, 1)),
    }
    values["T4c"][-1] = 0.25
    coords = {
        "model": np.arange(n_models) * 10,
        "model_name": ("model", np.array([f"flow/{i}" for i in range(n_models)], dtype=object)),
        "task_error": ("model", 5 + groups + 0.01 * np.arange(n_models)),
        "sample": [0, 1],
        "time": schema.time_coord(30, 0.02),
        "cell_type": np.array(list(values), dtype=object),
    }
    response = np.stack(list(values.values()), axis=-1).astype(np.float32)
    return xr.Dataset({"response": (("model", "sample", "time", "cell_type"), response)}, coords)


@pytest.fixture(scope="module")
def clusters() -> xr.Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return fx.cluster(central(), **QUICK)


def test_cluster__finds_the_groups_in_order_of_task_error(clusters: xr.Dataset) -> None:
    labels = clusters.cluster.sel(cell_type="T4c").values
    np.testing.assert_array_equal(labels[:-1], GROUPS[:-1])
    assert labels[-1] == -1  # its response is constant
    assert np.isnan(clusters.embedding.sel(cell_type="T4c").values[-1]).all()
    np.testing.assert_array_equal(clusters.cluster.sel(cell_type="T5a") == 0, GROUPS == 0)
    assert clusters.score.sel(cell_type="T4c").idxmin() == 3
    scaled = clusters.embedding.sel(cell_type="T4c")
    np.testing.assert_allclose([scaled.min("model"), scaled.max("model")], [[0, 0], [1, 1]], atol=1e-12)


def test_cluster__cell_types_in_which_models_do_not_differ(clusters: xr.Dataset) -> None:
    assert (clusters.cluster.sel(cell_type=["Am", "Lawf1"]) == -1).all()
    assert (clusters.cluster.sel(cell_type="R1") == 0).all()
    assert clusters.score.sel(cell_type=["Am", "Lawf1", "R1"]).isnull().all()
    with pytest.warns(UserWarning, match="Lawf1: no clusters, since the cell responds in only 0 of 45 models"):
        fx.cluster(central(), "Lawf1", **QUICK)
    with pytest.warns(UserWarning, match="R1: one cluster, since 45 models respond alike"):
        fx.cluster(central(), "R1", **QUICK)


def test_cluster__keeps_all_arguments_and_coordinates(clusters: xr.Dataset) -> None:
    schema.validate(clusters, "clusters")
    np.testing.assert_array_equal(clusters.task_error, central().task_error)
    step = provenance.steps(clusters)[-1]
    assert step["operation"] == "cluster"
    defaults = {"seed": 42, "n_neighbors": 5, "min_dist": 0.105, "spread": 9.0, "metric": "correlation"}
    defaults |= {"n_clusters": [2, 3, 4, 5], "criterion": "bic", "max_iter": 1000, "n_components": 2, **QUICK}
    assert {name: step["arguments"][name] for name in defaults} == defaults
    assert {"umap-learn", "scikit-learn"} <= set(step["versions"])


def test_cluster__round_trips_through_a_store_without_pickles(clusters: xr.Dataset, tmp_path: Path) -> None:
    path = fx.save(clusters, tmp_path / "clusters.zarr")
    opened = fx.open(path)
    xr.testing.assert_identical(opened.load(), clusters)
    assert opened.fly.members("T4c").keys() == {0, 1, 2}
    codecs = [json.loads(file.read_text()).get("codecs", []) for file in path.rglob("zarr.json")]
    allowed = {"bytes", "blosc", "vlen-utf8", "zstd", "crc32c", "sharding_indexed"}
    assert {codec["name"] for array_codecs in codecs for codec in array_codecs} <= allowed


def test_cluster__round_trips_through_netcdf(clusters: xr.Dataset, tmp_path: Path) -> None:
    pytest.importorskip("h5netcdf")
    clusters.to_netcdf(tmp_path / "clusters.nc", engine="h5netcdf")
    xr.testing.assert_identical(xr.open_dataset(tmp_path / "clusters.nc", engine="h5netcdf").load(), clusters.load())


def test_cluster__does_not_depend_on_chunks_or_the_order_of_models(clusters: xr.Dataset) -> None:
    lazy = central().chunk({"model": 5, "cell_type": 1, "time": 7})
    from_lazy = fx.cluster(lazy, ["T4c", "T5a"], **QUICK)
    xr.testing.assert_equal(from_lazy.cluster, clusters.cluster.sel(cell_type=["T4c", "T5a"]))
    assert lazy.response.chunks is not None
    order = np.random.default_rng(0).permutation(N)
    permuted = fx.cluster(central().isel(model=order), "T4c", **QUICK)
    np.testing.assert_array_equal(permuted.cluster[0], clusters.cluster.sel(cell_type="T4c")[order])


def test_cluster__does_not_modify_its_input() -> None:
    data = central()
    before = data.copy(deep=True)
    with dask.config.set(scheduler="synchronous"):
        fx.cluster(data.response, "T4*", **QUICK)
    xr.testing.assert_identical(data, before)


def test_cluster__few_models() -> None:
    with pytest.raises(ValueError, match="at least 4 models, got 3"):
        fx.cluster(central().isel(model=slice(3)), "T4c", **QUICK)
    few = fx.cluster(central().isel(model=[0, 1, 15, 16]), "T4c", **QUICK)
    assert few.score.notnull().sum() == 1  # at least two models per Gaussian
    assert (few.cluster >= 0).all()


def test_cluster__lists_all_problems() -> None:
    with pytest.raises(ValueError, match="n_epochs.*\n.*criterion") as caught:
        fx.cluster(central(3), "T4c", criterion="score", n_epochs=0, n_clusters=[0], seed=-1)
    for message in ("at least 4 models", "n_clusters", "criterion", "n_epochs", "seed"):
        assert message in str(caught.value)
    with pytest.raises(UnknownCellTypeError, match="T4c"):
        fx.cluster(central(), "T4x", **QUICK)
    with pytest.raises(ValueError, match=r"at least 4 models, got 1.*keep 'model'"):
        fx.cluster(central().isel(model=0), **QUICK)
    with pytest.raises(schema.SchemaError, match=r"\.rename\(trial='sample', type='cell_type'\)"):
        fx.cluster(central().rename(sample="trial", cell_type="type"), **QUICK)
    with pytest.raises(schema.SchemaError, match="select one noise"):
        fx.cluster(central().expand_dims("noise"), **QUICK)
    with pytest.raises(schema.SchemaError, match="call fx.simulate"):
        fx.cluster(xr.Dataset({"bias": 1}), **QUICK)


SELECTED: dict[str, Any] = {
    "a cell type": lambda data: data.sel(cell_type="T4c"),
    "a sample": lambda data: data.isel(sample=0),
    "a mean over samples": lambda data: data.mean("sample"),
    "a column": lambda data: (
        data.expand_dims(column=[0]).assign_coords(u=("column", [3]), v=("column", [0])).isel(column=0)
    ),
}


@pytest.mark.parametrize("select", SELECTED.values(), ids=SELECTED)
def test_cluster__of_a_selection_lacks_the_dims_that_it_lacks(select: Any) -> None:
    selected = select(central().sel(cell_type=["T4c"]))
    clusters = fx.cluster(selected, **QUICK)
    dims = ("cell_type", "model") if "cell_type" in selected.dims else ("model",)
    assert clusters.cluster.dims == dims
    np.testing.assert_array_equal(clusters.cluster.values.ravel()[:-1], GROUPS[:-1])
    assert set(members(clusters, "T4c")) == {0, 1, 2}


def test_cluster_stability__of_a_cell_type() -> None:
    stability = fx.cluster_stability(central().sel(cell_type="T4c"), seeds=np.arange(2), n_subsets=np.int64(1), **QUICK)
    assert stability.adjusted_rand_index.dims == ("data", "change")
    assert stability.cell_type.item() == "T4c"


def tuples(*labels: Any) -> np.ndarray:
    array = np.empty(len(labels), dtype=object)
    array[:] = labels
    return array


LABELS: dict[str, Any] = {
    "text": np.array([f"m{i}" for i in range(N)], dtype=object),
    "tuples": tuples(*[("flow", i) for i in range(N)]),
    "dates": np.datetime64("2026-01-01", "ns") + np.arange(N) * np.timedelta64(1, "D"),
}


@pytest.mark.parametrize("kind", LABELS)
def test_cluster__keeps_labels_of_models_of_any_kind(kind: str) -> None:
    labels = LABELS[kind]
    clusters = fx.cluster(central().assign_coords(model=labels), "T4c", **QUICK)
    assert members(clusters, "T4c")[0].tolist() == labels[GROUPS == 0].tolist()


def test_cluster__takes_numbers_and_names_of_any_type(clusters: xr.Dataset) -> None:
    data = central()
    options = {"n_neighbors": np.int64(5), "min_dist": np.array(0.105), "seed": np.uint8(42), "n_clusters": range(2, 6)}
    for names in (data.cell_type[:1], data.indexes["cell_type"][:1], (name for name in ["T4c"]), data.cell_type[0]):
        found = fx.cluster(data, names, **options, **QUICK)
        xr.testing.assert_equal(found.cluster, clusters.cluster.sel(cell_type=["T4c"]))
    arguments = provenance.steps(found)[-1]["arguments"]
    assert (arguments["n_neighbors"], arguments["seed"], arguments["n_clusters"]) == (5, 42, [2, 3, 4, 5])


def test_cluster__one_number_of_clusters(clusters: xr.Dataset) -> None:
    found = fx.cluster(central(), "T4c", n_clusters=3, **QUICK)
    assert found.n_clusters.values.tolist() == [3]
    xr.testing.assert_equal(found.cluster, clusters.cluster.sel(cell_type=["T4c"]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": None}, "expected seed as an integer of at least 0, got None: a fixed seed"),
        ({"n_neighbors": 2.5}, "expected n_neighbors as an integer of at least 2, got 2.5"),
        (
            {"n_clusters": "3"},
            r"expected n_clusters as integers of at least 1, got '3': e.g. n_clusters=\[2, 3, 4, 5\]",
        ),
        ({"n_clusters": [2, 2.5]}, "expected n_clusters as integers"),
        ({"n_clusters": None}, "expected n_clusters as integers"),
        ({"metric": "hellinger"}, "expected metric as one of .*correlation.*, got 'hellinger'"),
        ({"metric": 2}, "expected metric as one of"),
        ({"criterion": ["bic"]}, "expected criterion 'bic' or 'aic'"),
        ({"min_dist": "0.1"}, "expected min_dist as a number at least 0, got '0.1'"),
        ({"min_dist": 10}, "expected min_dist of at most spread, got 10 and 9"),
        ({"n_epochs": True}, "expected n_epochs as an integer"),
        ({"cell_types": 3}, "expected cell_types as one name or a list of them, got 3"),
        ({"cell_types": [["T4c"]]}, "expected cell_types as one name"),
    ],
)
def test_cluster__arguments_of_another_type(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fx.cluster(central(), **{**QUICK, **options})


@pytest.mark.parametrize("seeds", [None, 3.5, ["a"], [1, -1], []])
def test_cluster_stability__seeds_of_another_type(seeds: Any) -> None:
    with pytest.raises(ValueError, match="expected seeds as integers of at least 0"):
        fx.cluster_stability(central(), "T4c", seeds=seeds)


def test_members__take_names_of_any_type(clusters: xr.Dataset) -> None:
    assert members(clusters, clusters.cell_type[0]).keys() == {0, 1, 2}
    with pytest.raises(ValueError, match="expected cell_type as one name"):
        members(clusters, 3)  # type: ignore[arg-type]


def test_cluster__selects_the_central_column() -> None:
    columns = {"column": ("column", [0, 1]), "u": ("column", [-1, 0]), "v": ("column", [0, 0])}
    data = central().isel(cell_type=[0]).expand_dims(column=2, axis=-1).assign_coords(columns)
    data["response"] = data.response * xr.DataArray([np.nan, 1.0], dims="column")
    clusters = fx.cluster(data, **QUICK)
    np.testing.assert_array_equal(clusters.cluster[0, :-1], GROUPS[:-1])


@pytest.mark.slow
def test_cluster__runs_cell_types_in_processes(clusters: xr.Dataset) -> None:
    with dask.config.set(scheduler="processes", num_workers=2):
        computed = fx.cluster(central(), ["T4c", "T5a"], **QUICK)
    xr.testing.assert_equal(computed.cluster, clusters.cluster.sel(cell_type=["T4c", "T5a"]))


def test_cluster__reads_responses_once(
    clusters: xr.Dataset, tmp_path: Path, chunks_read: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = central().assign(response=central().response.chunk(model=1))
    stored = fx.open(fx.save(data, tmp_path / "central.zarr"))
    found = fx.cluster(stored, ["T4c", "T5a"], **QUICK)
    assert len(chunks_read) == len(set(chunks_read)) == data.sizes["model"]
    expected = clusters.sel(cell_type=["T4c", "T5a"])
    xr.testing.assert_equal(found[["embedding", "cluster"]], expected[["embedding", "cluster"]])
    monkeypatch.setattr(base, "GROUP_BYTES", 1)  # one cell type at a time
    one_by_one = fx.cluster(stored, ["T4c", "T5a"], **QUICK)
    xr.testing.assert_equal(one_by_one, found)


def test_members__are_labels_of_models(clusters: xr.Dataset) -> None:
    models_by_cluster = members(clusters, "T4c")
    assert list(models_by_cluster) == [0, 1, 2]
    np.testing.assert_array_equal(models_by_cluster[0], clusters.model.values[GROUPS == 0])
    errors = [float(clusters.task_error.sel(model=models).mean()) for models in models_by_cluster.values()]
    assert errors == sorted(errors)
    assert members(clusters, "Am") == {}
    accessor = clusters.fly.members("T4c")
    assert all(np.array_equal(accessor[label], models) for label, models in models_by_cluster.items())
    with pytest.raises(UnknownCellTypeError, match="T4c"):
        members(clusters, "T4x")
    with pytest.raises(schema.SchemaError, match="pattern"):
        members(clusters, "T4*")
    with pytest.raises(schema.SchemaError, match="fx.cluster"):
        members(central(), "T4c")


def test_cluster_stability__of_separate_groups() -> None:
    stability = fx.cluster_stability(central(), "T4c", seeds=(0, 1), n_subsets=2, **QUICK)
    assert stability.adjusted_rand_index.dims == ("cell_type", "data", "change")
    index = stability.adjusted_rand_index.sel(cell_type="T4c")
    np.testing.assert_allclose(index.sel(data="responses"), 1)
    assert (index.sel(data="no_clusters") < 1).all()
    assert (stability.adjusted_rand_index_std >= 0).all()
    repeated = fx.cluster_stability(central(), "T4c", seeds=(0, 1), n_subsets=2, **QUICK)
    xr.testing.assert_identical(stability, repeated)


def test_cluster_stability__bad_input() -> None:
    with pytest.raises(ValueError, match="at least two seeds"):
        fx.cluster_stability(central(), "T4c", seeds=(0,))
    with pytest.raises(ValueError, match="4 remaining models"):
        fx.cluster_stability(central(6), "T4c", leave_out=0.5)
    with pytest.raises(ValueError, match="n_neighbours"):
        fx.cluster_stability(central(), "T4c", n_neighbours=5)


def test_cluster__labels_do_not_depend_on_the_seed(clusters: xr.Dataset) -> None:
    other = fx.cluster(central(), "T5a", seed=7, **QUICK)
    assert adjusted_rand_score(other.cluster[0], clusters.cluster.sel(cell_type="T5a")) == 1
