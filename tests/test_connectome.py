from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import xarray as xr

import flyxr as fx
from flyxr import connectome as connectomes
from flyxr import hexgrid, schema
from flyxr.errors import FlyxrWarning
from flyxr.testing import random_rendering, tiny_connectome

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(scope="module", params=[3, 8, 15])
def compiled(
    request: pytest.FixtureRequest, golden: Callable[[str], dict[str, np.ndarray]]
) -> tuple[Any, Any, dict[str, np.ndarray]]:
    """Connectome, network and reference arrays at an extent."""
    tag = f"e{request.param}__"
    reference = {name.removeprefix(tag): a for name, a in golden("connectome.npz").items() if name.startswith(tag)}
    connectome = fx.open_connectome(extent=request.param)
    return connectome, connectomes.compile_network(connectome), reference


def test_compile_network__cells_equal_reference(compiled: Any) -> None:
    connectome, network, reference = compiled
    assert connectome.cell_type.values.tolist() == reference["cell_types"].tolist()
    assert network.n_cells == reference["n_nodes"]
    np.testing.assert_array_equal(np.bincount(network.cell_type), reference["counts"])
    middle = connectomes.cell_presence(connectome).shape[1] // 2
    np.testing.assert_array_equal(np.flatnonzero(network.column == middle), reference["central_cells_index"])
    for role, name in (("input", "input_cell_types"), ("output", "output_cell_types")):
        assert sorted(connectome.cell_type.values[connectome.role == role]) == sorted(reference[name].tolist())


def test_compile_network__pairs_equal_reference(compiled: Any) -> None:
    connectome, network, reference = compiled
    assert network.source.size == reference["n_edges"]
    pairs = connectome.isel(pair=network.pairs)
    assert pairs.source.values.tolist() == reference["pair_source"].tolist()
    assert pairs.target.values.tolist() == reference["pair_target"].tolist()
    np.testing.assert_array_equal(pairs.sign, reference["pair_sign"])
    np.testing.assert_array_equal(np.bincount(network.pair), reference["pair_n_edges"])
    total = np.bincount(network.pair, np.abs(network.signed_synapses))
    np.testing.assert_allclose(total, reference["pair_n_syn_sum_over_edges"], rtol=1e-6)
    taps = np.searchsorted(network.pairs, connectome.synapse_pair.values[network.synapses])
    np.testing.assert_array_equal(np.bincount(taps), reference["pair_n_taps"])
    summed = np.bincount(taps, connectome.n_synapses.values[network.synapses])
    np.testing.assert_allclose(summed, reference["pair_n_syn_sum_over_taps"], rtol=1e-6)


def test_compile_network__every_offset_equals_reference(golden: Callable[[str], dict[str, np.ndarray]]) -> None:
    reference = golden("connectome.npz")
    connectome = fx.open_connectome()
    network = connectomes.compile_network(connectome)
    taps = connectome.isel(synapse=network.synapses)
    pair = np.searchsorted(network.pairs, taps.synapse_pair.values)
    np.testing.assert_array_equal(pair, reference["e15__tap_pair_index"])
    np.testing.assert_array_equal(taps.du, reference["e15__tap_du"])
    np.testing.assert_array_equal(taps.dv, reference["e15__tap_dv"])
    np.testing.assert_allclose(taps.n_synapses, reference["e15__tap_n_syn"], rtol=1e-6)


def test_compile_network__every_cell_equals_reference(golden: Callable[[str], dict[str, np.ndarray]]) -> None:
    reference = golden("connectome.npz")
    connectome = fx.open_connectome(extent=int(reference["node_order_extent"]))
    network = connectomes.compile_network(connectome)
    names = connectome.cell_type.values[network.cell_type]
    assert names.tolist() == reference["node_order_type"].tolist()
    u, v = hexgrid.columns(connectome.attrs["extent"])
    np.testing.assert_array_equal(u[network.column], reference["node_order_u"])
    np.testing.assert_array_equal(v[network.column], reference["node_order_v"])
    assert connectome.role.values[network.cell_type].tolist() == reference["node_order_role"].tolist()
    signed_in = np.bincount(network.target, network.signed_synapses, network.n_cells)
    np.testing.assert_allclose(signed_in, reference["e3__node_signed_n_syn_in"], rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(np.bincount(network.target, minlength=network.n_cells), reference["e3__node_n_in"])
    np.testing.assert_array_equal(np.bincount(network.source, minlength=network.n_cells), reference["e3__node_n_out"])


@pytest.mark.parametrize("extent", [1, 2, 17])
def test_compile_network__edges_connect_the_right_columns_at_any_extent(extent: int) -> None:
    connectome = fx.open_connectome(extent=extent)
    network = connectomes.compile_network(connectome)
    u, v = hexgrid.columns(extent)
    rng = np.random.default_rng(0)
    for edge in rng.integers(0, network.source.size, 50):
        source, target = network.source[edge], network.target[edge]
        offset = (
            u[network.column[target]] - u[network.column[source]],
            v[network.column[target]] - v[network.column[source]],
        )
        pair = network.pairs[network.pair[edge]]
        assert connectome.cell_type.values[network.cell_type[source]] == connectome.source.values[pair]
        rows = connectome.isel(synapse=connectome.synapse_pair.values == pair)
        row = rows.isel(synapse=(rows.du.values == offset[0]) & (rows.dv.values == offset[1]))
        assert network.signed_synapses[edge] == pytest.approx(float(row.n_synapses[0] * connectome.sign[pair]))


def test_compile_network__is_compiled_once() -> None:
    assert connectomes.compile_network(fx.open_connectome()) is connectomes.compile_network(fx.open_connectome())


def test_cell_presence__lawf_types_have_strides() -> None:
    present = connectomes.cell_presence(fx.open_connectome())
    assert present.sum() == 45669
    counts = dict(zip(fx.open_connectome().cell_type.values, present.sum(axis=1).tolist(), strict=True))
    assert counts.pop("Lawf1") == counts.pop("Lawf2") == 123
    assert set(counts.values()) == {721}


def test_open_connectome__from_two_tables(tmp_path: Path) -> None:
    source = files("flyxr") / "data"
    for name in ("cell_types.csv", "synapses.csv"):
        shutil.copy(str(source / name), tmp_path / name)
    assert fx.open_connectome(tmp_path).identical(fx.open_connectome())


def flyvis_json(connectome: Any) -> dict[str, Any]:
    """Convert a connectome to the JSON format of flyvis, without filled synapses."""
    known = connectome.isel(synapse=~connectome.filled.values)
    strides = zip(connectome.cell_type.values, connectome.stride.values.tolist(), strict=True)
    return {
        "nodes": [{"name": name, "pattern": ["stride", stride]} for name, stride in strides],
        "edges": [
            {
                "src": str(connectome.source.values[pair]),
                "tar": str(connectome.target.values[pair]),
                "alpha": int(connectome.sign[pair]),
                "offsets": [
                    [[int(du), int(dv)], float(n)]
                    for du, dv, n in zip(rows.du.values, rows.dv.values, rows.n_synapses.values, strict=True)
                ],
            }
            for pair, rows in known.groupby("synapse_pair")
        ],
        "input_units": connectome.cell_type.values[connectome.role == "input"].tolist(),
        "output_units": connectome.cell_type.values[connectome.role == "output"].tolist(),
    }


@pytest.fixture(scope="module")
def json_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("connectome") / "connectome.json"
    path.write_text(json.dumps(flyvis_json(fx.open_connectome())))
    return path


def test_open_connectome__json_fills_the_same_gaps_as_flyvis(json_path: Path) -> None:
    assert fx.open_connectome(json_path).identical(fx.open_connectome())


@pytest.mark.parametrize("fill", [0, 2.5])
def test_open_connectome__n_syn_fill_is_the_same_for_tables_and_json(json_path: Path, fill: float) -> None:
    from_json, packaged = fx.open_connectome(json_path, n_syn_fill=fill), fx.open_connectome(n_syn_fill=fill)
    assert from_json.identical(packaged)
    assert packaged.sizes["synapse"] == (2140 if fill == 0 else 2378)
    assert set(packaged.n_synapses.values[packaged.filled.values]) <= {fill}
    assert packaged.attrs["connectome"] != fx.open_connectome().attrs["connectome"]


def test_open_connectome__single_and_tile_patterns(tmp_path: Path) -> None:
    spec = {
        "nodes": [{"name": "A", "pattern": ["single", None]}, {"name": "B", "pattern": ["tile", 2]}],
        "edges": [{"src": "A", "tar": "B", "alpha": 1, "offsets": [[[0, 0], 3]]}],
        "input_units": ["A"],
        "output_units": [],
    }
    (tmp_path / "c.json").write_text(json.dumps(spec))
    network = connectomes.compile_network(fx.open_connectome(tmp_path / "c.json", extent=2))
    assert np.bincount(network.cell_type).tolist() == [1, 7]
    assert network.source.size == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda spec: spec["edges"][0].update(src="Nobody"), "Nobody"),
        (lambda spec: spec["edges"][0].update(alpha=3), "sign: expected a sign.*3"),
        (lambda spec: spec["nodes"][0].update(pattern=["spiral", 1]), "spiral"),
        (lambda spec: spec.pop("input_units"), "input_units"),
        (lambda spec: spec.update(input_units=[]), "role input"),
        (lambda spec: spec["edges"].append(spec["edges"][0]), "duplicate columnar offsets"),
        (lambda spec: spec["nodes"].append(spec["nodes"][0]), "duplicate cell types"),
    ],
)
def test_open_connectome__reports_invalid_json(tmp_path: Path, json_path: Path, change: Any, message: str) -> None:
    spec = json.loads(json_path.read_text())
    change(spec)
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(spec))
    with pytest.raises(connectomes.ConnectomeError, match=message):
        fx.open_connectome(path)


def test_open_connectome__reports_broken_files(tmp_path: Path) -> None:
    (tmp_path / "cell_types.csv").write_text("cell_type,u_stride\nA,1\n")
    with pytest.raises(connectomes.ConnectomeError, match=r"(?s)cell_types.csv: expected the columns.*synapses.csv"):
        fx.open_connectome(tmp_path)
    (tmp_path / "half.json").write_text('{"nodes": [')
    with pytest.raises(connectomes.ConnectomeError, match=r"half.json.*JSON"):
        fx.open_connectome(tmp_path / "half.json")
    with pytest.raises(FileNotFoundError, match=r"no connectome at"):
        fx.open_connectome(tmp_path / "absent")
    with pytest.raises(ValueError, match="extent as an integer of at least 1, got 0"):
        fx.open_connectome(extent=0)


def test_mean_synapses__depends_on_the_extent() -> None:
    small, large = (connectomes.mean_synapses(fx.open_connectome(extent=extent)) for extent in (8, 15))
    assert small.shape == large.shape == (604,)
    assert not np.allclose(small, large)


def test_tiny_connectome__has_the_documented_edges() -> None:
    network = connectomes.compile_network(tiny_connectome(extent=1))
    assert network.n_cells == 21
    assert network.source.size == 7 + (7 + 4 + 4) + 7  # T receives input from neighbours inside the lattice


def other_connectome(extent: int = 2) -> xr.Dataset:
    """A connectome that no other test opens."""
    return tiny_connectome(extent, edges=[("R", "L", 1, [(0, 0), (1, 1)]), ("L", "T", -1, [(0, 0)])])


def test_find_connectome__by_the_hash_of_an_ensemble(tmp_path: Path) -> None:
    connectome = other_connectome()
    models = fx.sample_ensemble(2, seed=0, connectome=connectome)
    data = random_rendering()
    expected = fx.simulate(data, models, connectome=connectome).load()
    responses = fx.simulate(data, models).load()
    xr.testing.assert_identical(responses, expected)
    swept = fx.sweep(data, models, tmp_path / "r.zarr", progress=False)
    np.testing.assert_array_equal(swept.response, expected.response)
    with pytest.raises(ValueError, match="expected cell types that are not inputs, got R"):
        fx.clamp(models, "R", 0.5)
    options = {"n_iterations": 1, "progress": False, "regularisation": 0.001}
    with_connectome = fx.optimal_stimulus(models, "T", data, connectome=connectome, **options)
    xr.testing.assert_identical(fx.optimal_stimulus(models, "T", data, **options), with_connectome)
    neurons = fx.to_neurons(responses)
    np.testing.assert_array_equal(neurons.response, fx.to_neurons(responses, connectome).response)
    xr.testing.assert_identical(fx.from_neurons(neurons), fx.from_neurons(neurons, connectome))


def test_find_connectome__at_the_extent_of_an_ensemble() -> None:
    models = fx.sample_ensemble(1, seed=0, connectome=other_connectome(extent=3))
    assert fx.simulate(random_rendering(3), models).response.load().sizes["column"] == 37
    with pytest.raises(schema.SchemaError, match="expected a rendering at the connectome's extent 3, got 19 columns"):
        fx.simulate(random_rendering(2), models)
    assert fx.simulate(random_rendering(2), models, connectome=other_connectome(extent=2)).sizes["column"] == 19


def test_find_connectome__rejects_a_connectome_that_was_not_opened() -> None:
    models = fx.sample_ensemble(1, seed=0, connectome=other_connectome()).assign_attrs(connectome="0" * 16)
    for call in (lambda: fx.simulate(random_rendering(), models), lambda: fx.clamp(models, "T", 0.5)):
        with pytest.raises(
            connectomes.ConnectomeError,
            match=r"expected the connectome 0{16} of the ensemble .* fx.open_connectome\(path\)",
        ):
            call()


def test_find_connectome__warns_if_an_ensemble_names_none() -> None:
    connectome = other_connectome()
    models = fx.sample_ensemble(1, seed=0, connectome=connectome).drop_attrs()
    tripled = connectome.assign(n_synapses=connectome.n_synapses * 3)
    with pytest.warns(FlyxrWarning, match=r"does not name its connectome.*if it is, set") as caught:
        fx.simulate(random_rendering(), models, connectome=tripled)
    assert caught[0].filename == __file__
    with pytest.warns(FlyxrWarning, match=r"assumed to be \w+ \(the package's\)") as caught:
        fx.clamp(fx.sample_ensemble(1, seed=0).drop_attrs(), "Mi1", 0.5)
    assert caught[0].filename == __file__
    named = models.assign_attrs(connectome=connectome.attrs["connectome"])
    with pytest.raises(schema.SchemaError, match="expected an ensemble of the connectome"):
        fx.simulate(random_rendering(), named, connectome=tripled)


def test_open_connectome__rejects_a_store(tmp_path: Path) -> None:
    path = fx.save(tiny_connectome(), tmp_path / "c.zarr")
    with pytest.raises(connectomes.ConnectomeError, match=r"c.zarr is a zarr store: open it with fx.open"):
        fx.open_connectome(path)


def test_open_connectome__is_read_as_utf_8_in_every_locale(tmp_path: Path) -> None:
    types = "cell_type,u_stride,v_stride,role\nR,1,1,input\nTm\u00e9,1,1,output\n"
    synapses = "source,target,du,dv,sign,n_synapses,filled\nR,Tm\u00e9,0,0,1,2,0\n"
    (tmp_path / "cell_types.csv").write_text(types, encoding="utf-8")
    (tmp_path / "synapses.csv").write_text(synapses, encoding="utf-8")
    program = f"import flyxr as fx; print(ascii(fx.open_connectome({str(tmp_path)!r}).cell_type.values[1]))"
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == "'Tm\\xe9'"


def test_find_connectome__ignores_later_changes_of_a_connectome() -> None:
    edges = [("R", "L", 1, [(0, 0), (0, 1)]), ("L", "T", -1, [(0, 0)])]
    connectome = tiny_connectome(2, edges=edges)
    models = fx.sample_ensemble(1, seed=0, connectome=connectome)
    expected = fx.simulate(random_rendering(), models).response.load()
    connectome["n_synapses"] = connectome.n_synapses * 3
    np.testing.assert_array_equal(fx.simulate(random_rendering(), models).response, expected)
    with pytest.raises(schema.SchemaError, match="expected an ensemble of the connectome"):
        fx.simulate(random_rendering(), models, connectome=connectome)
