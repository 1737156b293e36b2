"""Selection by cell type, alignment by label, and conversion to and from flyvis's order of cells."""

from __future__ import annotations

from typing import Any

import holoviews as hv
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import flyxr as fx
from flyxr import hexgrid, schema, selection
from flyxr.connectome import compile_network
from flyxr.selection import UnknownCellTypeError, match_cell_types
from flyxr.testing import tiny_connectome


def responses(extent: int = 2) -> xr.Dataset:
    connectome = fx.open_connectome(extent=extent)
    columns = hexgrid.column_coords(extent)
    n = len(columns["u"][1])
    values = np.random.default_rng(0).random((2, 1, 3, 65, n), dtype=np.float32)
    dims = schema.KINDS["responses"].variables[0].dims
    coords = {
        "model": [0, 1],
        "model_name": ("model", np.array(["a", "b"], dtype=object)),
        "task_error": ("model", [1.0, 2.0]),
        "sample": [0],
        "time": schema.time_coord(3, 0.01),
        "cell_type": connectome.cell_type.values,
        **columns,
    }
    luminance = (("sample", "time", "column"), np.zeros((1, 3, n), np.float32))
    return xr.Dataset({"response": (dims, values), "luminance": luminance}, coords)


def test_celltype__one_name_drops_the_dim_and_several_keep_it() -> None:
    data = responses()
    assert "cell_type" not in data.fly.celltype("T4c").response.dims
    assert data.fly.celltype("T4c").equals(data.sel(cell_type="T4c"))
    assert data.fly.celltype(["T5a", "L1"]).cell_type.values.tolist() == ["T5a", "L1"]
    assert data.fly.celltype("T4*").cell_type.values.tolist() == ["T4a", "T4b", "T4c", "T4d"]
    assert data.fly.celltype("CT1(Lo1)").cell_type.item() == "CT1(Lo1)"


def test_central__is_the_column_zero_zero() -> None:
    data = responses()
    central = data.fly.central()
    assert (int(central.u), int(central.v)) == (0, 0)
    np.testing.assert_array_equal(central.response, data.response.isel(column=9))
    assert central.luminance.dims == ("sample", "time")
    assert data.response.fly.central("T4c").equals(central.response.sel(cell_type="T4c"))


ACCESSORS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "celltype": (selection.celltype, ("Mi*",)),
    "central": (selection.central, (["T4c", "L2"],)),
    "to_neurons": (selection.to_neurons, ()),
}


@pytest.mark.parametrize("convert", [lambda data: data, lambda data: data.response], ids=["Dataset", "DataArray"])
@pytest.mark.parametrize("name", ACCESSORS)
def test_accessor__agrees_with_the_function(name: str, convert: Any) -> None:
    function, arguments = ACCESSORS[name]
    data = convert(responses())
    assert getattr(data.fly, name)(*arguments).identical(function(data, *arguments))


def test_accessor__has_a_test_for_every_method() -> None:
    assert {name for name in dir(fx.accessor.FlyAccessor) if not name.startswith("_")} == {
        *ACCESSORS,
        "members",  # in test_clustering
        *PICTURES,
        "animate",  # in test_viz_files
        "embedding",  # in test_viz_clusters
    }


PICTURES = {
    "hexmap": lambda data: data.isel(model=0, time=0).fly.celltype("T4c"),
    "traces": lambda data: data.fly.central(["T4c", "L2"]),
}


@pytest.mark.parametrize("convert", [lambda data: data, lambda data: data.response], ids=["Dataset", "DataArray"])
@pytest.mark.parametrize("name", PICTURES)
def test_accessor__draws_the_pictures_of_the_function(name: str, convert: Any) -> None:
    data = convert(PICTURES[name](responses()))
    picture, expected = getattr(data.fly, name)(height=123), getattr(fx.viz, name)(data, height=123)
    assert repr(picture) == repr(expected)
    assert next(iter(hv.render(picture, backend="bokeh").select({"frame_height": 123})))


def test_accessor__is_lazy(counting_scheduler: Any) -> None:
    data = responses()
    data["response"] = data.response.chunk(model=1)
    data.fly.celltype("T4*")
    data.fly.central("T4c")
    data.fly.to_neurons()
    fx.from_neurons(data.response.fly.to_neurons().drop_vars(["neuron"]))
    assert counting_scheduler.calls == 0


@pytest.mark.parametrize(
    ("name", "nearest"), [("T4e", "T4"), ("mi1", "Mi1"), ("Tm5", "Tm5"), ("CT1", "CT1"), ("T9*", "none|T")]
)
def test_match_cell_types__names_the_nearest(name: str, nearest: str) -> None:
    available = fx.open_connectome().cell_type.values.tolist()
    with pytest.raises(KeyError, match=f"nearest: .*{nearest}"):
        match_cell_types(name, available)


def test_match_cell_types__message_has_no_quotes_of_a_key_error() -> None:
    with pytest.raises(UnknownCellTypeError) as error:
        match_cell_types("nobody", ["T4a"])
    assert str(error.value).startswith("expected cell types")


def test_celltype_and_central__missing_dims() -> None:
    data = responses()
    with pytest.raises(schema.SchemaError, match="expected the labelled dim 'cell_type'"):
        data.response.mean("cell_type").fly.celltype("T4c")
    with pytest.raises(schema.SchemaError, match="expected the dim 'column'"):
        data.mean("column").fly.central()
    with pytest.raises(schema.SchemaError, match="u = v = 0"):
        data.isel(column=0).fly.central()
    with pytest.raises(schema.SchemaError, match="u = v = 0"):
        data.isel(column=[0, 1]).fly.central()


def test_celltype_and_central__of_what_is_selected_already() -> None:
    data = responses().response
    one = data.fly.celltype("Mi1")
    xr.testing.assert_identical(one.fly.celltype("Mi1"), one)
    xr.testing.assert_identical(one.fly.central().fly.central(), one.fly.central())
    xr.testing.assert_identical(one.fly.central().fly.central("Mi1"), one.fly.central())
    with pytest.raises(UnknownCellTypeError, match="among the 1 available, got 'T4c'"):
        one.fly.celltype("T4c")


@pytest.mark.parametrize("names", [3, None, [["Mi1"]], [None], []])
def test_celltype__names_of_another_type(names: Any) -> None:
    with pytest.raises(ValueError, match="expected names as one name or a list of them"):
        responses().fly.celltype(names)


def test_celltype__takes_names_from_anything_that_has_them() -> None:
    data = responses().response
    expected = data.fly.celltype(["R1", "R2"])
    for names in (data.cell_type[:2], data.indexes["cell_type"][:2], (name for name in ["R1", "R2"]), ("R1", "R2")):
        xr.testing.assert_identical(data.fly.celltype(names), expected)
    xr.testing.assert_identical(data.fly.celltype(data.cell_type[0]), data.fly.celltype("R1"))
    xr.testing.assert_identical(data.fly.celltype(np.str_("R1")), data.fly.celltype("R1"))


def test_to_neurons__of_one_cell_type_or_column() -> None:
    data = responses().response
    for selected, kept in (
        (data.sel(cell_type="Mi1"), data.sel(cell_type=["Mi1"])),
        (data.isel(column=3), data.isel(column=[3])),
        (data.sel(cell_type="Mi1").isel(column=3), data.sel(cell_type=["Mi1"]).isel(column=[3])),
    ):
        xr.testing.assert_identical(fx.to_neurons(selected), fx.to_neurons(kept))


def test_to_neurons__is_in_the_order_of_cells() -> None:
    data = responses()
    network = compile_network(fx.open_connectome(extent=2))
    neurons = data.response.fly.to_neurons()
    assert neurons.dims[-1] == "neuron"
    expected = data.response.values[..., network.cell_type, network.column]
    np.testing.assert_array_equal(neurons, expected)
    np.testing.assert_array_equal(neurons.neuron, np.arange(network.n_cells))
    assert neurons.cell_type.values[0] == "R1"


@given(st.integers(1, 4))
def test_from_neurons__undoes_to_neurons(extent: int) -> None:
    data = responses(extent).response
    restored = fx.from_neurons(fx.to_neurons(data))
    assert restored.equals(data.where(np.isfinite(restored)))


def test_to_neurons__of_some_cell_types_keeps_the_labels_of_cells() -> None:
    data = responses()
    some_neurons = fx.to_neurons(data.response.sel(cell_type=["Lawf1", "T4c"]))
    all_neurons = fx.to_neurons(data.response)
    np.testing.assert_array_equal(some_neurons, all_neurons.sel(neuron=some_neurons.neuron))


def test_to_neurons__of_another_connectome() -> None:
    data = responses().response.isel(cell_type=slice(0, 3)).assign_coords(cell_type=list("RLT"))
    with pytest.raises(schema.SchemaError, match="give the connectome of the data"):
        fx.to_neurons(data)
    assert fx.to_neurons(data, tiny_connectome(extent=2)).sizes["neuron"] == 57
    with pytest.raises(schema.SchemaError, match=r"expected the dim 'neuron' with the \d+ cells.*got 56"):
        fx.from_neurons(xr.DataArray(np.zeros(56), dims="neuron"))


def labelled(dim: str, labels: Any, values: Any = None) -> xr.DataArray:
    """One-dimensional array; without labels if they are None."""
    coords = {} if labels is None else {dim: labels}
    return xr.DataArray(np.arange(len(labels)) if values is None else values, dims=dim, coords=coords)


def test_align_labels__selects_the_labels_of_the_other_data() -> None:
    first = labelled("model", [5, 3]).expand_dims(cell_type=["Mi1", "L1"])
    second = labelled("model", [3, 4, 5], [30, 40, 50]) + labelled("cell_type", ["L1", "L2", "Mi1"], [1, 2, 3])
    aligned = selection.align_labels(second, first, "a norm")
    np.testing.assert_array_equal(aligned.transpose("model", "cell_type"), [[53, 51], [33, 31]])
    dataset = selection.align_labels(second.to_dataset(name="n"), first, "a norm")
    xr.testing.assert_identical(dataset.n, aligned.rename("n"))
    one_type = selection.align_labels(second, first.sel(cell_type="L1"), "a norm")
    assert one_type.dims == ("model",)
    np.testing.assert_array_equal(one_type, [51, 31])


def test_align_labels__lists_all_problems() -> None:
    first = labelled("model", [5, 3]).expand_dims(cell_type=["Mi1", "L1"])
    second = labelled("model", [3, 3, 5]) + labelled("cell_type", ["T4a", "Mi1"])
    with pytest.raises(schema.SchemaError, match=r"'model' once, got more than one of \[3\]") as error:
        selection.align_labels(second, first, "a norm")
    assert "a norm with each 'cell_type' of the other data, got one without ['L1']" in str(error.value)
    with pytest.raises(schema.SchemaError, match=r"without \['Mi1', 'L1'\]"):
        selection.align_labels(second.isel(model=[0, 2]).sel(cell_type="T4a"), first, "a norm")


def test_align_labels__matches_by_position_only_without_labels() -> None:
    first = labelled("model", [5, 3])
    assert selection.align_labels(labelled("model", None, [1, 2]), first, "a norm").values.tolist() == [1, 2]
    with pytest.raises(schema.SchemaError, match="2 of the dim 'model', which goes by position.*got 3"):
        selection.align_labels(labelled("model", None, [1, 2, 3]), first, "a norm")
    assert selection.align_labels(labelled("sample", [7]), first, "a norm").sizes == {"sample": 1}


@pytest.mark.parametrize("drop", [[], ["neuron"]], ids=["by the label neuron", "by cell type and column"])
def test_from_neurons__matches_cells_by_label(drop: list[str]) -> None:
    neurons = fx.to_neurons(responses().response)
    for order in (neurons.sortby("cell_type"), neurons.isel(neuron=slice(None, None, -1))):
        xr.testing.assert_identical(fx.from_neurons(order.drop_vars(drop)), fx.from_neurons(neurons))
    stacked = responses().response.stack(neuron=("cell_type", "column"))
    dense = fx.from_neurons(neurons).isel(model=0, sample=0, time=0)
    is_present = np.isfinite(dense).stack(neuron=("cell_type", "column"))
    xr.testing.assert_equal(fx.from_neurons(stacked.isel(neuron=is_present.values)), fx.from_neurons(neurons))


def test_from_neurons__names_missing_and_duplicate_cells() -> None:
    neurons = fx.to_neurons(responses().response)
    first = neurons.cell_type.values[0], neurons.column.values[0]
    for data in (neurons, neurons.drop_vars("neuron")):
        with pytest.raises(schema.SchemaError, match=f"without {first[0]} in column {first[1]}"):
            fx.from_neurons(data.isel(neuron=slice(1, None)))
        with pytest.raises(schema.SchemaError, match=r"more than one of \[5\]"):
            fx.from_neurons(data.isel(neuron=[*range(data.sizes["neuron"]), 5]))
    with pytest.raises(schema.SchemaError, match=r"expected .* in column \d+ as neuron \d+, got 0"):
        fx.from_neurons(neurons.sortby("cell_type").assign_coords(neuron=np.arange(neurons.sizes["neuron"])))
    with pytest.raises(schema.SchemaError, match="expected the dim 'neuron', got"):
        fx.from_neurons(responses().response)


def test_to_neurons__labels_of_columns_agree_with_u_and_v() -> None:
    data, connectome = responses().response, fx.open_connectome(extent=2)
    shuffled = data.isel(column=slice(None, None, -1))
    expected = fx.to_neurons(data).reset_coords(drop=True)
    for columns in (shuffled, shuffled.drop_vars("column")):
        neurons = fx.to_neurons(columns, connectome).sortby("neuron")
        xr.testing.assert_equal(neurons.reset_coords(drop=True), expected)
    with pytest.raises(schema.SchemaError, match="expected 'column' 18 at u 2, v 0 at extent 2, got 0"):
        fx.to_neurons(shuffled.assign_coords(column=np.arange(19)), connectome)
    with pytest.raises(schema.SchemaError, match="got others: .*give the connectome"):
        fx.to_neurons(data.drop_vars(["u", "v"]).assign_coords(column=np.arange(19) - 1), connectome)
    with pytest.raises(schema.SchemaError, match=r"'cell_type' once, got more than one of \['T4a'\]"):
        fx.to_neurons(data.sel(cell_type=["T4a", "T4a"]))
    with pytest.raises(schema.SchemaError, match="65 cell types, which go by position.*got 3"):
        fx.to_neurons(data.isel(cell_type=slice(3)).drop_vars("cell_type"))
