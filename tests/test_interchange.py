"""To and from flyvis: directories that are read back bit for bit, configurations, and responses of flyvis."""

from __future__ import annotations

import json
import os
import subprocess
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask
import h5py
import numpy as np
import pytest
import torch
import xarray as xr
import yaml

import flyxr as fx
from flyxr import cli, flyvis
from flyxr.connectome import ConnectomeError
from flyxr.errors import ExistsError, InputError, UnwritableError
from flyxr.flyvis import EnsembleError
from flyxr.schema import SchemaError
from flyxr.testing import tiny_connectome

if TYPE_CHECKING:
    from collections.abc import Callable

PARAMETERS = ["bias", "time_constant", "synapse_strength"]


@pytest.fixture(scope="module")
def tiny() -> xr.Dataset:
    return tiny_connectome(extent=2)


@pytest.fixture(scope="module")
def ensemble(tiny: xr.Dataset) -> xr.Dataset:
    """Four models whose parameters all differ, sorted by task error."""
    sampled = fx.sample_ensemble(4, seed=1, connectome=tiny)
    rng = np.random.default_rng(0)
    noise = {name: sampled[name] * rng.uniform(0.5, 2, sampled[name].shape).astype(np.float32) for name in PARAMETERS}
    return sampled.assign(noise).assign_coords(task_error=("model", [5.1, 5.2, 1 / 3 + 5, 6.0]))


def assert_same_parameters(actual: xr.Dataset, expected: xr.Dataset) -> None:
    for name in PARAMETERS:
        assert actual[name].dtype == np.float32
        np.testing.assert_array_equal(actual[name], expected[name])
    np.testing.assert_array_equal(actual["task_error"], expected["task_error"])
    assert actual.attrs["connectome"] == expected.attrs["connectome"]
    assert actual.attrs["extent"] == expected.attrs["extent"]


def test_export_flyvis__is_read_back(ensemble: xr.Dataset, tmp_path: Path) -> None:
    path = fx.export_flyvis(ensemble, tmp_path / "new" / "results")
    assert path == tmp_path / "new" / "results" / "flow" / "0000"
    read = fx.open_ensemble(tmp_path / "new")
    assert_same_parameters(read, ensemble)
    assert read["model_name"].values.tolist() == [f"flow/0000/{i:03}" for i in range(4)]
    assert read.attrs["task_error_measure"] == "lowest validation/loss.h5 over checkpoints"
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["results"]


def test_export_flyvis__published_ensemble(pretrained: Path, tmp_path: Path) -> None:
    published = fx.open_ensemble(pretrained)
    fx.export_flyvis(published, tmp_path)
    assert_same_parameters(fx.open_ensemble(tmp_path), published)
    configs = [
        yaml.safe_load((folder / "_meta.yaml").read_text())
        for folder in (pretrained / "000", tmp_path / "flow/0000/000")
    ]
    assert configs[0]["config"]["network"] == configs[1]["config"]["network"]
    state, own = (
        torch.load(folder / "chkpts" / "chkpt_00000", map_location="cpu", weights_only=True)["network"]
        for folder in (pretrained / "000", tmp_path / "flow" / "0000" / "000")
    )
    assert set(own) == set(state)
    for key, tensor in state.items():
        assert (own[key].shape, own[key].dtype) == (tensor.shape, tensor.dtype)
        torch.testing.assert_close(own[key], tensor, rtol=0, atol=1e-6 if key == "edges_syn_count" else 0)


def test_export_flyvis__model_directories(ensemble: xr.Dataset, tmp_path: Path) -> None:
    path = fx.export_flyvis(ensemble, tmp_path)
    files = sorted(file.relative_to(path / "002").as_posix() for file in (path / "002").rglob("*") if file.is_file())
    assert files == ["_meta.yaml", "chkpt_index.h5", "chkpts/chkpt_00000", "validation/loss.h5"]
    with h5py.File(path / "002" / "validation" / "loss.h5") as file:
        assert file["data"][()].tolist() == [1 / 3 + 5]
    assert set(torch.load(path / "002" / "chkpts" / "chkpt_00000", weights_only=True)) == {"network"}  # no decoder


def test_export_flyvis__order_and_unknown_errors(ensemble: xr.Dataset, tmp_path: Path) -> None:
    shuffled = ensemble.isel(model=[2, 0, 3]).assign_coords(task_error=("model", [np.nan] * 3))
    fx.export_flyvis(shuffled, tmp_path)
    with pytest.warns(UserWarning, match="not sorted by task error"):
        read = fx.open_ensemble(tmp_path)
    assert_same_parameters(read, shuffled)


def test_export_flyvis__end_point_errors(ensemble: xr.Dataset, tmp_path: Path) -> None:
    measure = "lowest validation/epe.h5 over checkpoints"
    fx.export_flyvis(ensemble.assign_attrs(task_error_measure=measure), tmp_path)
    read = fx.open_ensemble(tmp_path)
    assert_same_parameters(read, ensemble)
    assert read.attrs["task_error_measure"] == measure


def test_export_flyvis__more_than_a_thousand_models(
    tiny: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flyvis, "write_model", lambda folder, *_, **__: folder.mkdir())
    monkeypatch.setattr("flyxr.store.sync", lambda path: None)
    path = fx.export_flyvis(fx.sample_ensemble(1001, seed=0, connectome=tiny), tmp_path)
    names = sorted(folder.name for folder in path.iterdir() if folder.is_dir())
    assert names[:2] + names[-1:] == ["0000", "0001", "1000"]


def test_export_flyvis__one_model(ensemble: xr.Dataset, tmp_path: Path) -> None:
    fx.export_flyvis(ensemble.isel(model=1), tmp_path)
    assert_same_parameters(fx.open_ensemble(tmp_path), ensemble.isel(model=[1]))


@pytest.mark.parametrize("n_syn_fill", [1, 2.5, 0])
def test_export_flyvis__connectome_of_the_package(tmp_path: Path, n_syn_fill: float) -> None:
    connectome = fx.open_connectome(extent=3, n_syn_fill=n_syn_fill)
    exported = fx.sample_ensemble(1, seed=0, connectome=connectome).assign_coords(task_error=("model", [1.0]))
    path = fx.export_flyvis(exported, tmp_path)
    assert not (path / "connectome.json").exists()
    assert_same_parameters(fx.open_ensemble(tmp_path), exported)


def test_export_flyvis__another_connectome(ensemble: xr.Dataset, tiny: xr.Dataset, tmp_path: Path) -> None:
    path = fx.export_flyvis(ensemble, tmp_path / "results")
    config = yaml.safe_load((path / "000" / "_meta.yaml").read_text())["config"]["network"]["connectome"]
    assert config["file"] == str(path / "connectome.json")
    assert fx.open_connectome(config["file"], extent=2, n_syn_fill=0).identical(tiny)
    os.rename(tmp_path / "results", tmp_path / "moved")  # it is found beside the models
    with zipfile.ZipFile(tmp_path / "moved.zip", "w") as archive:
        for file in (tmp_path / "moved").rglob("*"):
            archive.write(file, file.relative_to(tmp_path))
    for place in (tmp_path / "moved", tmp_path / "moved.zip", tmp_path / "moved" / "flow" / "0000"):
        assert fx.open_ensemble(place).attrs["connectome"] == tiny.attrs["connectome"]


def test_export_flyvis__connectome_that_flyvis_cannot_compute(tiny: xr.Dataset, tmp_path: Path) -> None:
    filled = tiny.assign(filled=("synapse", [True] + [False] * (tiny.sizes["synapse"] - 1)))
    with pytest.raises(InputError, match="filled synapses are the gaps"):
        fx.export_flyvis(fx.sample_ensemble(1, seed=0, connectome=filled), tmp_path, connectome=filled)
    assert list(tmp_path.iterdir()) == []


def test_export_flyvis__only_into_an_empty_directory(ensemble: xr.Dataset, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for path in (tmp_path / "full", tmp_path / "full" / "mine", tmp_path / "link"):
        with pytest.raises(ExistsError, match="does not exist or is empty, got .*choose another path"):
            fx.export_flyvis(ensemble, path)
    assert (tmp_path / "full" / "mine").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    (tmp_path / "to_empty").symlink_to(tmp_path / "empty")
    fx.export_flyvis(ensemble, tmp_path / "to_empty")
    assert (tmp_path / "empty" / "flow" / "0000" / "003").is_dir()


def test_export_flyvis__interrupted_leaves_nothing(
    ensemble: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = flyvis.write_model

    def write_two(folder: Path, *arguments: Any, **options: Any) -> None:
        if folder.name == "002":
            raise OSError(28, "No space left on device")
        write(folder, *arguments, **options)

    monkeypatch.setattr(flyvis, "write_model", write_two)
    with pytest.raises(UnwritableError, match="No space left on device"):
        fx.export_flyvis(ensemble, tmp_path / "results")
    assert list(tmp_path.iterdir()) == []


def test_export_flyvis__lists_all_problems(ensemble: xr.Dataset, tmp_path: Path) -> None:
    wrong = ensemble.isel(cell_type=[0, 1], pair=[0, 1])
    wrong = wrong.assign(bias=wrong["bias"].where(wrong["model"] != 2))
    with pytest.raises(SchemaError) as caught:
        fx.export_flyvis(wrong, tmp_path / "results")
    message = str(caught.value)
    for part in ("got none of ['T']", "strengths of all 3 pairs", "'bias' finite"):
        assert part in message
    with pytest.raises(SchemaError, match="not an ensemble"):
        fx.export_flyvis(xr.Dataset(), tmp_path / "results")
    with pytest.raises(ConnectomeError, match="to be open, got none"):
        fx.export_flyvis(ensemble.assign_attrs(connectome="other"), tmp_path / "results")
    assert list(tmp_path.iterdir()) == []


def write_config(folder: Path, content: str | dict[str, Any]) -> None:
    text = content if isinstance(content, str) else yaml.safe_dump({"config": {"network": content}})
    (folder / "_meta.yaml").write_text(text)


@pytest.mark.parametrize(
    "content",
    [
        "config: [",
        "- 1",
        "config: {network: 3}",
        "config: {network: {connectome: {file: 3}}}",
        "!!python/object/apply:os.system ['touch trap']",
        "a: &a [x]\nb: &b [*a,*a]\n" + "config: " + "[" * 1500,
        "x" * (2**20 + 1),
        {"connectome": {"file": "../../secret.json", "extent": 2}},
        {"connectome": {"file": "/etc/passwd"}},
    ],
)
def test_open_ensemble__configuration_that_cannot_be_used(
    ensemble: xr.Dataset, tiny: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.json").write_text("{}")
    path = fx.export_flyvis(ensemble, tmp_path / "results")
    for folder in path.iterdir():
        if folder.is_dir():
            write_config(folder, content)
    assert_same_parameters(fx.open_ensemble(path, connectome=tiny), ensemble)
    with pytest.raises(EnsembleError, match="open the connectome it was trained with"):
        fx.open_ensemble(path)
    assert not (tmp_path / "trap").exists()


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ({"connectome": {"file": "a.json", "extent": 10**9}}, r"extent of the connectome from 1 to 40, got 1000000000"),
        ({"connectome": {"file": "a.json", "extent": "2", "n_syn_fill": -1}}, "(?s)from 1 to 40, got 2.*n_syn_fill"),
        (
            {"dynamics": {"type": "Other", "activation": {"type": "elu"}}},
            "(?s)PPNeuronIGRSynapses, got Other.*relu, got elu",
        ),
    ],
)
def test_open_ensemble__configuration_of_other_models(
    ensemble: xr.Dataset, tmp_path: Path, network: dict[str, Any], message: str
) -> None:
    path = fx.export_flyvis(ensemble, tmp_path / "results")
    write_config(path / "000", network)
    with pytest.raises(EnsembleError, match=message):
        fx.open_ensemble(path)


def test_open_ensemble__invalid_connectome_beside_the_models(ensemble: xr.Dataset, tmp_path: Path) -> None:
    path = fx.export_flyvis(ensemble, tmp_path / "results")
    (path / "connectome.json").write_text("[]")
    with pytest.raises(ConnectomeError, match=r"connectome\.json is not a connectome"):
        fx.open_ensemble(path)


def test_import_flyvis__from_exported_models(
    ensemble: xr.Dataset, tiny: xr.Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = str(fx.export_flyvis(ensemble, tmp_path / "results")), str(tmp_path / "e.zarr")
    assert cli.main(["import-flyvis", path, out]) == 0
    assert "e.zarr: ensemble, 4 model x 3 cell_type" in capsys.readouterr().out
    assert_same_parameters(fx.open_ensemble(out), ensemble)
    assert cli.main(["import-flyvis", path, out]) == 2
    assert "exists: add --overwrite" in capsys.readouterr().err

    fx.save(tiny, tmp_path / "tiny.zarr")
    for connectome in (tmp_path / "tiny.zarr", Path(path) / "connectome.json"):
        arguments = ["--connectome", str(connectome), "--overwrite"]
        is_whole = connectome.suffix == ".zarr"  # a file without configuration is at extent 15
        assert cli.main(["import-flyvis", path, out, *arguments]) == 0
        assert fx.open_ensemble(out).attrs["extent"] == (2 if is_whole else 15)
    capsys.readouterr()
    assert cli.main(["import-flyvis", out, str(tmp_path / "f.zarr")]) == 2
    assert "expected results of flyvis, got a store" in capsys.readouterr().err
    assert cli.main(["import-flyvis", path, str(tmp_path / "f.zarr"), "--connectome", out]) == 2
    assert "expected a store of a connectome" in capsys.readouterr().err
    assert not (tmp_path / "f.zarr").exists()


# Responses of flyvis


def as_flyvis(responses: xr.Dataset, config: dict[str, Any], cells: Any = slice(None)) -> xr.Dataset:
    """Responses in the structure of flyvis's ``generic_responses``, with some of the cells."""
    neurons = fx.to_neurons(responses["response"], fx.open_connectome(extent=responses.attrs["extent"])).isel(
        neuron=cells
    )
    n_frames, u, v = responses.sizes["time"], responses["u"].values, responses["v"].values
    return xr.Dataset(
        {
            "responses": (("network_id", "sample", "frame", "neuron"), neurons.data),
            "stimulus": (("sample", "frame", "channel", "hex_pixel"), responses["luminance"].data[:, :, None]),
        },
        coords={
            "sample": responses["sample"].values,
            "frame": np.arange(n_frames),
            "channel": [0],
            "hex_pixel": np.arange(u.size),
            "neuron": np.arange(neurons.sizes["neuron"]),
            "time": ("frame", np.arange(n_frames).astype(float) * config["dt"] - config["t_pre"]),
            "cell_type": ("neuron", neurons["cell_type"].values.astype(str)),
            "u": ("neuron", neurons["u"].values.astype(np.int32)),
            "v": ("neuron", neurons["v"].values.astype(np.int32)),
            "u_in": ("hex_pixel", u.astype(np.int32)),
            "v_in": ("hex_pixel", v.astype(np.int32)),
            "network_id": np.arange(responses.sizes["model"]),
            "network_name": ("network_id", [f"flow/0000/{i:03}" for i in range(responses.sizes["model"])]),
        },
        attrs={"config": config},
    )


@pytest.fixture(scope="module")
def flashes() -> tuple[xr.Dataset, xr.Dataset]:
    """Responses of flyxr to flashes at extent 2, and the same ones as flyvis returns them."""
    connectome = fx.open_connectome(extent=2)
    stimulus = fx.stimuli.flashes(radius=(-1, 1), t_pre=0.04, t_stim=0.06, dt=1 / 50, extent=2)
    responses = fx.simulate(stimulus, fx.sample_ensemble(2, seed=0, connectome=connectome)).load()
    config = {"t_stim": 0.06, "t_pre": 0.04, "dt": 1 / 50, "radius": (-1, 1), "alternations": (0, 1, 0)}
    dataset = as_flyvis(responses, config)
    parameters = {"intensity": [0, 0, 1, 1], "radius": [-1, 1, -1, 1], "baseline": [0.5] * 4}
    return responses, dataset.assign_coords({name: ("sample", values) for name, values in parameters.items()})


def assert_same_responses(actual: xr.Dataset, expected: xr.Dataset) -> None:
    for name in ("response", "luminance"):
        assert actual[name].dims == expected[name].dims
        np.testing.assert_array_equal(actual[name], expected[name])
    np.testing.assert_allclose(actual["time"], expected["time"], rtol=1e-12)
    for name in ("sample", "cell_type", "column", "u", "v", "x_column", "model"):
        assert actual[name].values.tolist() == expected[name].values.tolist()


def test_from_flyvis__all_cells(flashes: tuple[xr.Dataset, xr.Dataset]) -> None:
    expected, dataset = flashes
    responses = fx.from_flyvis(dataset)
    assert_same_responses(responses, expected)
    for name in ("intensity", "radius", "t_stim"):
        np.testing.assert_array_equal(responses[name], expected[name])
    assert responses["baseline"].values.tolist() == [0.5] * 4
    assert responses["model_name"].values.tolist() == ["flow/0000/000", "flow/0000/001"]
    assert np.isnan(responses["task_error"]).all()
    assert responses.attrs["connectome"] == expected.attrs["connectome"]
    assert responses.attrs["extent"] == 2
    xr.testing.assert_equal(
        fx.tuning.flash_response_index(responses).flash_response_index.drop_vars("model_name"),
        fx.tuning.flash_response_index(expected).flash_response_index.drop_vars("model_name"),
    )
    fx.viz.traces(responses.isel(sample=0).response.fly.central("T4*"))
    json.dumps(responses.attrs)


@pytest.mark.parametrize("record", ["central", ["T4c", "L1"], {"cell_type": "T4*", "column": "central"}])
def test_from_flyvis__some_cells(flashes: tuple[xr.Dataset, xr.Dataset], record: Any) -> None:
    everything, dataset = flashes
    stimulus = everything[["luminance"]].drop_attrs(deep=False)
    ensemble = fx.sample_ensemble(2, seed=0, connectome=fx.open_connectome(extent=2))
    expected = fx.simulate(stimulus, ensemble, record=record).load()
    names, columns = expected["cell_type"].values, expected["column"].values
    is_kept = np.isin(dataset["cell_type"].values, names)
    if columns.size == 1:
        is_kept &= (dataset["u"].values == 0) & (dataset["v"].values == 0)
    some = dataset.isel(neuron=np.flatnonzero(is_kept)[::-1])
    in_order = fx.from_flyvis(some)
    order = [name for name in everything["cell_type"].values if name in names]
    assert_same_responses(in_order, expected.sel(cell_type=order))


def test_from_flyvis__shuffled_cells_and_pixels(flashes: tuple[xr.Dataset, xr.Dataset]) -> None:
    expected, dataset = flashes
    rng = np.random.default_rng(0)
    neurons, pixels = (rng.permutation(dataset.sizes[dim]) for dim in ("neuron", "hex_pixel"))
    assert_same_responses(fx.from_flyvis(dataset.isel(neuron=neurons, hex_pixel=pixels)), expected)


def test_from_flyvis__lazy_stays_lazy(flashes: tuple[xr.Dataset, xr.Dataset], counting_scheduler: Any) -> None:
    expected, dataset = flashes
    lazy = dataset.chunk({"network_id": 1, "sample": 2}).assign_coords(dataset.coords)
    central = lazy.isel(neuron=np.flatnonzero((lazy["u"].values == 0) & (lazy["v"].values == 0)))
    results = [fx.from_flyvis(lazy), fx.from_flyvis(central)]
    assert counting_scheduler.calls == 0
    for result in results:
        assert dask.is_dask_collection(result["response"].data)
        assert dask.is_dask_collection(result["luminance"].data)
    np.testing.assert_array_equal(results[0]["response"], expected["response"])
    xr.testing.assert_equal(results[1].compute(), fx.from_flyvis(central.compute()))


@pytest.mark.parametrize("selection", [{"network_id": 1}, {"sample": 2}, {"network_id": 0, "sample": 3}])
def test_from_flyvis__selected_away(flashes: tuple[xr.Dataset, xr.Dataset], selection: dict[str, int]) -> None:
    expected, dataset = flashes
    responses = fx.from_flyvis(dataset.isel(selection))
    ours = expected.isel({{"network_id": "model"}.get(dim, dim): index for dim, index in selection.items()})
    assert_same_responses(responses, ours)
    if "sample" in selection:
        assert responses["t_stim"].item() == 0.06


def test_from_flyvis__without_attributes_and_stimulus(flashes: tuple[xr.Dataset, xr.Dataset]) -> None:
    expected, dataset = flashes
    bare = dataset.drop_vars(["stimulus", "network_name", "network_id", "neuron", "sample"]).drop_attrs()
    responses = fx.from_flyvis(bare)
    np.testing.assert_array_equal(responses["response"], expected["response"])
    assert "luminance" not in responses
    assert "t_stim" not in responses.coords


def test_from_flyvis__another_connectome(flashes: tuple[xr.Dataset, xr.Dataset], tiny: xr.Dataset) -> None:
    _, dataset = flashes
    cells = np.flatnonzero(np.isin(dataset["cell_type"].values, ["L1", "L2"]))
    renamed = dataset.isel(neuron=cells)
    renamed = renamed.assign_coords(cell_type=("neuron", np.where(renamed["cell_type"] == "L1", "T", "R")))
    responses = fx.from_flyvis(renamed, connectome=tiny)
    assert responses["cell_type"].values.tolist() == ["R", "T"]
    assert responses.attrs["connectome"] == tiny.attrs["connectome"]
    with pytest.raises(SchemaError, match="got others: R, T: pass the connectome"):
        fx.from_flyvis(renamed)


def test_from_flyvis__lists_all_problems(flashes: tuple[xr.Dataset, xr.Dataset]) -> None:
    _, dataset = flashes
    with pytest.raises(SchemaError, match="expected the variable 'responses', got .*'response': .*already"):
        fx.from_flyvis(flashes[0])
    with pytest.raises(SchemaError, match="expected a Dataset of responses from flyvis, got DataArray"):
        fx.from_flyvis(dataset["responses"])
    wrong = dataset.rename(frame="step").drop_vars(["u", "v"])
    with pytest.raises(SchemaError) as caught:
        fx.from_flyvis(wrong)
    assert [part in str(caught.value) for part in ("'u' on", "'v' on", "of 'responses'", "of 'stimulus'")] == [True] * 4
    repeated = dataset.isel(neuron=[3, 3, 5], frame=[0, 2, 1])
    repeated = repeated.assign_coords(cell_type=("neuron", ["R1", "R1", "X"]), u=("neuron", [0, 0, 9]))
    with pytest.raises(SchemaError) as caught:
        fx.from_flyvis(repeated.drop_vars("stimulus"))
    for part in ("increasing", "got others: X", "each cell once, got R1"):
        assert part in str(caught.value)
    with pytest.raises(SchemaError, match="'stimulus' in each column of the cells once, got 18 hexagons"):
        fx.from_flyvis(dataset.isel(hex_pixel=slice(18)))


def reference(arrays: dict[str, np.ndarray]) -> xr.Dataset:
    """Responses that flyvis computed, from the reference arrays."""
    along = {"cell_type": "neuron", "u": "neuron", "v": "neuron", "u_in": "hex_pixel", "v_in": "hex_pixel"}
    coords: dict[str, Any] = {}
    for key, values in arrays.items():
        if key.startswith("coord_"):
            name = key.removeprefix("coord_")
            dim = along.get(name, {"time": "frame", "network_id": "network_id"}.get(name, "sample"))
            coords[name] = (dim, values)
    data = (arrays["dims"].tolist(), arrays["responses_f16"].astype(np.float32))
    return xr.Dataset({"responses": data}, coords, {"config": json.loads(str(arrays["config_json"]))})


def test_from_flyvis__measures_of_flyvis(golden: Callable[[str], dict[str, np.ndarray]]) -> None:
    outputs = golden("analysis_outputs.npz")
    edges = fx.from_flyvis(reference(golden("analysis_edge_inputs.npz")))
    assert edges.sizes["cell_type"] == 65
    assert edges["first_offset"].values.tolist() == [-22.5] * 8
    assert "width" not in edges.coords
    index = fx.tuning.direction_selectivity_index(edges).direction_selectivity_index
    np.testing.assert_allclose(index.transpose("model", "cell_type", "intensity"), outputs["q16__dsi"], atol=1e-5)
    flashes = fx.from_flyvis(reference(golden("analysis_flash_inputs.npz")))
    index = fx.tuning.flash_response_index(flashes, radius=6).flash_response_index
    np.testing.assert_allclose(index, outputs["q16__fri_radius6"][:, 0], atol=1e-5)


def test_from_flyvis__parameters_of_bars_of_different_speeds() -> None:
    speeds, dt = [9.7, 19.0], 1 / 50
    expected = fx.stimuli.moving_bars(
        angles=[0], widths=[4.5], speeds=speeds, intensities=1, dt=dt, extent=2, t_pre=0.1, t_post=0.2
    )
    shape = (1, 2, expected.sizes["time"], 1)
    dataset = xr.Dataset(
        {
            "responses": (("network_id", "sample", "frame", "neuron"), np.zeros(shape, np.float32)),
            "stimulus": (
                ("sample", "frame", "channel", "hex_pixel"),
                expected["luminance"]
                .where(expected["time"] < expected["t_end"])
                .transpose("sample", "time", "column")
                .values[:, :, None],
            ),
        },
        coords={
            "time": ("frame", np.arange(shape[2]) * dt - 0.1),
            **{name: ("neuron", [value]) for name, value in {"cell_type": "L1", "u": 0, "v": 0}.items()},
            **{name: ("sample", expected[name].values) for name in ("angle", "intensity", "t_stim", "speed")},
            "width": ("sample", [2, 2]),
        },
        attrs={"config": {"offsets": (-10, 11), "t_pre": 0.1, "t_post": 0.2, "dt": dt}},
    )
    responses = fx.from_flyvis(dataset)
    for name in ("angle", "width", "intensity", "speed", "t_stim", "first_offset", "t_end"):
        np.testing.assert_allclose(responses[name], expected[name], rtol=1e-12)
    assert responses["luminance"].notnull().all()
    np.testing.assert_array_equal(responses["luminance"], expected["luminance"].isel(column=[9]))


def test_from_flyvis__parameters_of_impulses(flashes: tuple[xr.Dataset, xr.Dataset]) -> None:
    _, dataset = flashes
    index = np.empty(4, object)
    index[:] = [np.array([9]), np.array([14]), np.array([9]), np.array([14])]
    dataset = dataset.drop_vars(["radius", "baseline"]).assign_coords(
        coordinate_index=("sample", index), offset=("sample", np.arange(4)), t_impulse=("sample", [0.02] * 4)
    )
    dataset.attrs["config"] = {"dt": 1 / 50, "t_pre": 0.04, "t_stim": 2, "dot_column_radius": 0}
    responses = fx.from_flyvis(dataset)
    u, v = dataset["u_in"].values, dataset["v_in"].values
    assert responses["u_impulse"].values.tolist() == u[[9, 14, 9, 14]].tolist()
    assert responses["v_impulse"].values.tolist() == v[[9, 14, 9, 14]].tolist()
    assert responses["t_stim"].values.tolist() == [0.02] * 4
    assert responses["radius"].values.tolist() == [0.0] * 4
    assert fx.tuning.temporal_receptive_field(responses).sizes["t_stim"] == 1


# flyvis itself

PEER = """
import json, sys
from pathlib import Path
import numpy as np, torch
try:
    import torchvision
except RuntimeError:  # of another version than torch; flyvis does not need its operators
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
import flyvis
from flyvis.analysis.stimulus_responses import generic_responses
from flyvis.datasets.flashes import Flashes
from flyvis.datasets.dots import CentralImpulses

results, out, extent = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
ensemble = flyvis.EnsembleView(results)
written = {"names": np.array(ensemble.names), "losses": ensemble.min_validation_losses("validation", "loss")}
np.savez(out / "ensemble.npz", **written, **ensemble.parameters())
if extent == 15:
    flashes = Flashes(dt=1 / 50, t_pre=0.2, t_stim=0.2, radius=[-1, 6])
    impulses = {"impulse_durations": [0.04], "t_stim": 0.2, "t_pre": 0.2, "dt": 1 / 50}
    impulses |= {"dot_column_radius": 0, "bg_intensity": 0.5, "intensity": 1, "device": "cpu"}
    datasets = {"central": ensemble.flash_responses(dataset=flashes)}
    datasets["impulses"] = generic_responses(
        ensemble, None, impulses, CentralImpulses, t_pre=1.0, t_fade_in=0.0, batch_size=1
    )
    datasets["all"] = generic_responses(
        ensemble, flashes, {}, Flashes, t_pre=1.0, t_fade_in=0.0, batch_size=1, cell_index=None
    )
    for name, data in datasets.items():
        variables = {**data.data_vars, **data.coords}
        values = {f"{key}:values": variable.values for key, variable in variables.items()}
        for key, array in values.items():
            if array.dtype == object:  # text, paths, or the index of each disc of one column
                values[key] = np.array([int(v[0]) if isinstance(v, (list, np.ndarray)) else str(v) for v in array])
        dims = {f"{key}:dims": np.array(variable.dims, dtype=str) for key, variable in variables.items()}
        attrs = {"config": data.attrs["config"], "network_config": data.attrs["network_config"]}
        np.savez(out / f"{name}.npz", **values, **dims, attrs=json.dumps(attrs, default=str))
"""


def run_flyvis(results: Path, out: Path, extent: int) -> None:
    """Open an ensemble with flyvis, and let it compute responses at extent 15."""
    python = os.environ.get("FLYXR_PEER")
    if python is None:
        pytest.skip("set FLYXR_PEER to a Python that has flyvis")
    out.mkdir()
    environment = {**os.environ, "FLYVIS_ROOT_DIR": str(out / "root"), "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": ""}
    command = [python, "-c", PEER, str(results), str(out), str(extent)]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr[-3000:]


def read_dataset(path: Path) -> xr.Dataset:
    """Dataset that flyvis returned."""
    with np.load(path) as arrays:
        variables = {
            key.removesuffix(":dims"): (arrays[key].tolist(), arrays[key.replace(":dims", ":values")])
            for key in arrays
            if key.endswith(":dims")
        }
        attrs = json.loads(str(arrays["attrs"]))
    data = {name: variables.pop(name) for name in ("responses", "stimulus")}
    return xr.Dataset(data, variables, attrs).astype(np.float32)


@pytest.mark.peer
@pytest.mark.timeout(1800)
def test_flyvis__opens_exports_and_its_responses_are_read(tmp_path: Path) -> None:
    models = fx.sample_ensemble(2, seed=3).assign_coords(task_error=("model", [5.0, 6.0]))
    rng = np.random.default_rng(0)
    models["bias"] = models["bias"] + rng.normal(0, 0.1, models["bias"].shape).astype(np.float32)
    run_flyvis(fx.export_flyvis(models, tmp_path / "results"), tmp_path / "out", 15)
    with np.load(tmp_path / "out" / "ensemble.npz") as arrays:
        assert arrays["names"].tolist() == ["flow/0000/000", "flow/0000/001"]
        assert arrays["losses"].tolist() == [5.0, 6.0]
        for name, key in flyvis.PARAMETERS.items():
            np.testing.assert_array_equal(arrays[key], models[name])

    flashes = fx.stimuli.flashes(radius=(-1, 6), t_pre=0.2, t_stim=0.2, dt=1 / 50)
    own = fx.simulate(flashes, models, initial_state="steady_state").load()
    for name, expected in {"all": own, "central": own.fly.central().expand_dims("column", -1)}.items():
        responses = fx.from_flyvis(read_dataset(tmp_path / "out" / f"{name}.npz"))
        assert responses["model_name"].values.tolist() == ["flow/0000/000", "flow/0000/001"]
        np.testing.assert_allclose(responses["response"], expected["response"], atol=2e-5)
        np.testing.assert_allclose(responses["time"], expected["time"], atol=1e-12)
        for parameter in ("radius", "intensity", "t_stim"):
            np.testing.assert_array_equal(responses[parameter], expected[parameter])
        assert fx.tuning.flash_response_index(responses).sizes["cell_type"] == 65

    impulses = fx.from_flyvis(read_dataset(tmp_path / "out" / "impulses.npz"))
    stimulus = fx.stimuli.impulses("central", duration=0.04, t_pre=0.2, t_post=0.16, dt=1 / 50)
    expected = fx.simulate(stimulus, models, initial_state="steady_state", record="central").load()
    for parameter in ("u_impulse", "v_impulse", "radius", "intensity", "t_stim"):
        np.testing.assert_array_equal(impulses[parameter], expected[parameter])
    np.testing.assert_array_equal(impulses["luminance"], expected["luminance"])
    np.testing.assert_allclose(impulses["response"], expected["response"], atol=1e-4)
    assert fx.tuning.temporal_receptive_field(impulses).sizes["cell_type"] == 65


@pytest.mark.peer
@pytest.mark.timeout(600)
def test_flyvis__opens_models_of_another_connectome(ensemble: xr.Dataset, tmp_path: Path) -> None:
    run_flyvis(fx.export_flyvis(ensemble, tmp_path / "results"), tmp_path / "out", 2)
    with np.load(tmp_path / "out" / "ensemble.npz") as arrays:
        assert arrays["losses"].tolist() == ensemble["task_error"].values.tolist()
        for name, key in flyvis.PARAMETERS.items():
            np.testing.assert_array_equal(arrays[key], ensemble[name])
