"""Ensembles: sampled like the untrained published models, and opened from stores, directories and zips."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest
import torch
import xarray as xr

import flyxr as fx
from flyxr import connectome as connectomes
from flyxr import ensemble as ensembles
from flyxr import provenance, schema, store
from flyxr.ensemble import EnsembleError, open_ensemble, sample_ensemble
from flyxr.testing import tiny_connectome

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(scope="module")
def tiny() -> xr.Dataset:
    return tiny_connectome()


@pytest.fixture
def results(tmp_path: Path, tiny: xr.Dataset) -> Path:
    """Results of flyvis: three models of the tiny connectome, sorted by error 001, 002, 000."""
    folder = tmp_path / "flow" / "0000"
    for i, loss in enumerate([3.0, 1.0, 2.0]):
        (folder / f"{i:03}" / "validation").mkdir(parents=True)
        rng = np.random.default_rng(i)
        network = {
            "nodes_bias": rng.normal(size=3),
            "nodes_time_const": rng.uniform(0.01, 0.1, 3),
            "edges_sign": tiny["sign"].values,
            "edges_syn_count": np.log(tiny["n_synapses"].values),
            "edges_syn_strength": rng.uniform(size=3),
        }
        tensors = {key: torch.tensor(value, dtype=torch.float32) for key, value in network.items()}
        torch.save({"network": tensors, "decoder": {}}, folder / f"{i:03}" / "best_chkpt")
        with h5py.File(folder / f"{i:03}" / "validation" / "loss.h5", "w") as file:
            file["data"] = [loss]
    return folder


def edit_checkpoint(results: Path, model: str, key: str, position: int, value: float) -> None:
    path = results / model / "best_chkpt"
    state = torch.load(path, weights_only=True)
    state["network"][key][position] = value
    torch.save(state, path)


def test_sample_ensemble__follows_the_schema(tiny: xr.Dataset) -> None:
    ensemble = sample_ensemble(3, seed=42, connectome=tiny)
    assert dict(ensemble.sizes) == {"model": 3, "cell_type": 3, "pair": 3}
    assert {variable.dtype for variable in ensemble.data_vars.values()} == {np.dtype(np.float32)}
    assert ensemble["model_name"].values.tolist() == ["sample-42/000", "sample-42/001", "sample-42/002"]
    assert np.isnan(ensemble["task_error"]).all()
    assert ensemble["bias"].attrs["units"] == "a.u."
    assert ensemble["time_constant"].attrs["units"] == "s"
    assert ensemble.attrs["connectome"] == tiny.attrs["connectome"]
    assert ensemble.attrs["extent"] == 1
    xr.testing.assert_identical(schema.validate(ensemble, "ensemble"), ensemble)
    [step] = provenance.steps(ensemble)
    assert step["arguments"] == {"n_models": 3, "seed": 42}
    assert step["hashes"] == {"connectome": tiny.attrs["connectome"]}


def test_sample_ensemble__is_described_as_untrained(tiny: xr.Dataset) -> None:
    ensemble = sample_ensemble(1, seed=0, connectome=tiny)
    assert ensemble.attrs["trained"] == 0
    assert "trained" in repr(ensemble)
    assert "not trained: drawn from" in repr(ensemble)


def test_sample_ensemble__model_depends_only_on_seed_and_number(tiny: xr.Dataset) -> None:
    few, many = (sample_ensemble(n, seed=7, connectome=tiny) for n in (3, 10))
    np.testing.assert_array_equal(few["bias"], many["bias"].isel(model=slice(3)))
    rows = np.concatenate([many["bias"].values, sample_ensemble(10, seed=8, connectome=tiny)["bias"].values])
    assert len(np.unique(rows, axis=0)) == 20


def test_sample_ensemble__bias_is_normal() -> None:
    bias = sample_ensemble(200, seed=0)["bias"].values
    assert bias.mean() == pytest.approx(0.5, abs=4 * 0.05 / np.sqrt(bias.size))
    assert bias.std() == pytest.approx(0.05, rel=4 / np.sqrt(2 * bias.size))
    within_one_std = np.mean(np.abs(bias - 0.5) < 0.05)
    assert within_one_std == pytest.approx(0.6827, abs=4 * np.sqrt(0.6827 * 0.3173 / bias.size))


@pytest.mark.parametrize("extent", [5, 15])
def test_sample_ensemble__strength_as_flyvis_initialises(
    golden: Callable[[str], dict[str, np.ndarray]], extent: int
) -> None:
    arrays = golden(f"sim_extent{extent}.npz")
    ensemble = sample_ensemble(2, seed=1, connectome=connectomes.open_connectome(extent=extent))
    keys = [
        f"{source}>{target}"
        for source, target in zip(ensemble["source"].values, ensemble["target"].values, strict=True)
    ]
    assert keys == arrays["syn_strength_keys"].tolist()
    assert ensemble["cell_type"].values.tolist() == arrays["bias_keys"].tolist()
    for model in range(2):
        np.testing.assert_allclose(
            ensemble["synapse_strength"].isel(model=model), arrays["syn_strength_default_init"], rtol=1e-5
        )
    if extent == 15:
        np.testing.assert_allclose(
            ensemble["time_constant"].isel(model=0), arrays["time_const_default_init"], rtol=1e-5
        )
        assert ensemble.attrs["connectome"] == sample_ensemble(1, seed=0).attrs["connectome"]


@pytest.mark.parametrize(
    ("n_models", "seed", "message"),
    [(0, 1, "n_models as an integer of at least 1"), (1, -1, "seed as an integer of at least 0")],
)
def test_sample_ensemble__rejects_invalid_arguments(tiny: xr.Dataset, n_models: int, seed: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sample_ensemble(n_models, seed, connectome=tiny)


def test_sample_ensemble__is_an_ordinary_dataset(tiny: xr.Dataset) -> None:
    ensemble = sample_ensemble(4, seed=0, connectome=tiny)
    assert ensemble.sel(model=[0, 3])["model_name"].values.tolist() == ["sample-0/000", "sample-0/003"]
    assert ensemble.mean("model")["bias"].dims == ("cell_type",)


def test_open_ensemble__sorted_by_task_error(results: Path, tiny: xr.Dataset) -> None:
    ensemble = open_ensemble(results, connectome=tiny)
    assert ensemble["model_name"].values.tolist() == ["flow/0000/001", "flow/0000/002", "flow/0000/000"]
    assert ensemble["task_error"].values.tolist() == [1.0, 2.0, 3.0]
    assert ensemble["model"].values.tolist() == [0, 1, 2]
    for rank, number in enumerate([1, 2, 0]):
        network = torch.load(results / f"{number:03}" / "best_chkpt", weights_only=True)["network"]
        np.testing.assert_array_equal(ensemble["bias"].isel(model=rank), network["nodes_bias"])
        np.testing.assert_array_equal(ensemble["time_constant"].isel(model=rank), network["nodes_time_const"])
        np.testing.assert_array_equal(ensemble["synapse_strength"].isel(model=rank), network["edges_syn_strength"])


def test_open_ensemble__attributes(results: Path, tiny: xr.Dataset) -> None:
    ensemble = open_ensemble(str(results), connectome=tiny)
    assert ensemble.attrs["trained"] == 1
    assert ensemble.attrs["connectome"] == tiny.attrs["connectome"]
    assert ensemble.attrs["extent"] == 1
    assert ensemble.attrs["task_error_measure"] == "lowest validation/loss.h5 over checkpoints"
    assert ensemble.attrs["source"] == str(results)
    [step] = provenance.steps(ensemble)
    assert step["arguments"] == {"path": str(results), "checkpoints": ["best_chkpt"] * 3}
    json.dumps(ensemble.attrs)


def test_open_ensemble__zip_equals_directory(results: Path, tiny: xr.Dataset, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "results.zip", "w") as archive:
        for file in results.rglob("*"):
            archive.write(file, file.relative_to(tmp_path))
    xr.testing.assert_equal(
        open_ensemble(tmp_path / "results.zip", connectome=tiny), open_ensemble(results, connectome=tiny)
    )


def test_open_ensemble__equal_errors_keep_the_order_of_directories(results: Path, tiny: xr.Dataset) -> None:
    for i in range(3):
        with h5py.File(results / f"{i:03}" / "validation" / "loss.h5", "w") as file:
            file["data"] = 1.0
    names = open_ensemble(results, connectome=tiny)["model_name"].values
    assert names.tolist() == ["flow/0000/000", "flow/0000/001", "flow/0000/002"]


def test_open_ensemble__warns_and_does_not_sort_if_errors_are_unknown(results: Path, tiny: xr.Dataset) -> None:
    shutil.rmtree(results / "001" / "validation")
    message = r"not sorted by task error: validation/loss\.h5 is missing .* for 1 of 3 \(flow/0000/001\)$"
    with pytest.warns(UserWarning, match=message) as caught:
        ensemble = open_ensemble(results, connectome=tiny)
    assert caught[0].filename == __file__
    assert ensemble["model_name"].values.tolist() == ["flow/0000/000", "flow/0000/001", "flow/0000/002"]
    np.testing.assert_array_equal(ensemble["task_error"], [3.0, np.nan, 2.0])


def test_open_ensemble__without_any_errors(results: Path, tiny: xr.Dataset) -> None:
    for i in range(3):
        shutil.rmtree(results / f"{i:03}" / "validation")
    (results / "002" / "chkpts").mkdir()
    (results / "002" / "best_chkpt").rename(results / "002" / "chkpts" / "chkpt_00003")
    shutil.copy(results / "002" / "chkpts" / "chkpt_00003", results / "002" / "chkpts" / "chkpt_00001")
    with pytest.warns(UserWarning, match=r"for 3 of 3 .*; the last checkpoint was used for flow/0000/002$"):
        ensemble = open_ensemble(results, connectome=tiny)
    assert np.isnan(ensemble["task_error"]).all()
    assert ensemble.attrs["task_error_measure"] == "none"


def test_open_ensemble__lists_all_problems(results: Path, tiny: xr.Dataset) -> None:
    edit_checkpoint(results, "000", "edges_sign", 1, -1.0)
    edit_checkpoint(results, "001", "edges_syn_count", 2, 3.0)
    (results / "002" / "best_chkpt").unlink()
    with pytest.raises(EnsembleError) as caught:
        open_ensemble(results, connectome=tiny)
    _, *lines = str(caught.value).splitlines()
    assert [str(results / f"{i:03}") in line for i, line in enumerate(lines)] == [True] * 3
    assert "edges_sign as in the connectome, +1 for L > T, got -1" in lines[0]
    assert "edges_syn_count as in the connectome, log of 2 for L > T (1, 0)" in lines[1]
    assert "got neither" in lines[2]
    assert isinstance(caught.value, ValueError)


def test_open_ensemble__other_connectome(results: Path) -> None:
    with pytest.raises(EnsembleError, match=r"nodes_bias with shape \(65,\), got \(3,\): open the connectome"):
        open_ensemble(results)


def test_open_ensemble__no_such_path(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such file .*flow/0000\): an ensemble is a zarr store"):
        open_ensemble(tmp_path / "flow" / "0000")


@pytest.mark.parametrize("kind", ["sampled", "trained"])
def test_open_ensemble__store_roundtrip(results: Path, tiny: xr.Dataset, tmp_path: Path, kind: str) -> None:
    ensemble = (
        sample_ensemble(3, seed=0, connectome=tiny) if kind == "sampled" else open_ensemble(results, connectome=tiny)
    )
    store.save(ensemble, tmp_path / "ensemble.zarr")
    for connectome in (None, tiny):
        opened = open_ensemble(tmp_path / "ensemble.zarr", connectome=connectome)
        xr.testing.assert_identical(opened, ensemble)
        assert opened.attrs["trained"] == (kind == "trained")
        assert opened.chunks == {}


def test_open_ensemble__store_of_another_kind(tiny: xr.Dataset, tmp_path: Path) -> None:
    store.save(tiny, tmp_path / "connectome.zarr")
    with pytest.raises(EnsembleError, match="expected a store of an ensemble, got connectome: open it with"):
        open_ensemble(tmp_path / "connectome.zarr")


def test_open_ensemble__store_of_another_connectome(tiny: xr.Dataset, tmp_path: Path) -> None:
    store.save(sample_ensemble(1, seed=0, connectome=tiny), tmp_path / "ensemble.zarr")
    with pytest.raises(EnsembleError, match="expected models of the given connectome"):
        open_ensemble(tmp_path / "ensemble.zarr", connectome=connectomes.open_connectome())


@pytest.mark.parametrize("name", ["flow/0007", "flow/0008"])
def test_open_ensemble__ranked_as_flyvis_ranks(shared: Path, name: str) -> None:
    expected: dict[str, Any] = json.loads((shared / "golden" / "results_tree_expected.json").read_text())[name]
    ensemble = open_ensemble(shared / "golden" / "results_tree.zip" / "results" / name)
    assert ensemble["model_name"].values.tolist() == expected["ranked_epe"]
    assert ensemble["task_error"].values.tolist() == sorted(expected["min_epe"])
    assert ensemble.attrs["task_error_measure"] == "lowest validation/epe.h5 over checkpoints"
    best = [f"chkpts/{expected['best_checkpoint'][model]}" for model in expected["ranked_epe"]]
    assert provenance.steps(ensemble)[0]["arguments"]["checkpoints"] == best


def test_open_ensemble__parameters_have_their_keys(shared: Path) -> None:
    import pandas as pd

    table = pd.read_csv(shared / "golden" / "results_tree_parameters.csv").set_index(
        ["model", "checkpoint", "parameter", "key"]
    )["value"]
    ensemble = open_ensemble(shared / "golden" / "results_tree.zip" / "results" / "flow" / "0008")
    pairs = [
        f"{source}>{target}"
        for source, target in zip(ensemble["source"].values, ensemble["target"].values, strict=True)
    ]
    for rank, checkpoint in enumerate(provenance.steps(ensemble)[0]["arguments"]["checkpoints"]):
        values = table[ensemble["model_name"].values[rank], int(checkpoint[-5:])]
        model = ensemble.isel(model=rank)
        for variable, parameter, keys in (
            ("bias", "bias", ensemble["cell_type"].values),
            ("time_constant", "time_const", ensemble["cell_type"].values),
            ("synapse_strength", "syn_strength", pairs),
        ):
            np.testing.assert_array_equal(model[variable], values[parameter][keys].to_numpy(np.float32))


def test_open_ensemble__several_ensembles_in_a_zip(shared: Path) -> None:
    with pytest.raises(EnsembleError, match=r"got 2: choose one by its path:\n.*results_tree\.zip/results/flow/0007\n"):
        open_ensemble(shared / "golden" / "results_tree.zip")


def test_open_ensemble__published(pretrained: Path) -> None:
    open_ensemble(pretrained / "000")
    start = time.perf_counter()
    ensemble = open_ensemble(pretrained)
    assert time.perf_counter() - start < 2.0
    assert dict(ensemble.sizes) == {"model": 50, "cell_type": 65, "pair": 604}
    assert ensemble["model_name"].values.tolist() == [f"flow/0000/{i:03}" for i in range(50)]
    assert (ensemble["task_error"].diff("model") >= 0).all()
    assert all(np.isfinite(values).all() for values in ensemble.values())


def test_open_ensemble__published_from_a_zip(pretrained: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "published.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(pretrained.rglob("*")):
            archive.write(file, file.relative_to(pretrained.parents[1]))
    xr.testing.assert_equal(open_ensemble(tmp_path / "published.zip"), open_ensemble(pretrained))
    assert [path.name for path in tmp_path.iterdir()] == ["published.zip"]


def test_open_ensemble__does_not_warn_without_a_reason(results: Path, tiny: xr.Dataset) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        open_ensemble(results, connectome=tiny)
    assert not caught


def test_ensemble__imports_neither_torch_nor_h5py() -> None:
    code = f"import sys, {ensembles.__name__}; sys.exit(bool({{'torch', 'h5py'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_open_ensemble__opens_the_shipped_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trained models, best first, of the package's connectome, that say what they are."""
    (tmp_path / "flyxr").mkdir()
    monkeypatch.chdir(tmp_path)
    ensemble = fx.open_ensemble("flyxr")
    assert 10 <= ensemble.sizes["model"] <= 20
    assert ensemble.attrs["connectome"] == fx.open_connectome().attrs["connectome"]
    assert "not the published models" in ensemble.attrs["description"]
    assert ensemble.attrs["trained"] == 1
    assert (np.diff(ensemble["task_error"]) >= 0).all()
    assert (ensemble["time_constant"] >= 1 / 50).all()
    store = Path(fx.__file__).parent / "data" / "ensemble.zarr"
    assert sum(file.stat().st_size for file in store.rglob("*") if file.is_file()) < 300_000


def test_open_ensemble__shipped_models_are_direction_selective() -> None:
    """T4c prefers ON edges that move upward, T5c OFF edges; measured for the best two models, on a small lattice."""
    models = fx.open_ensemble("flyxr").isel(model=[0, 1])
    edges = fx.stimuli.moving_edges(angles=[90, 270], speeds=9.7, dt=1 / 50, extent=8)
    responses = fx.simulate(edges, models, record=["T4c", "T5c"], connectome=fx.open_connectome(extent=8))
    curves = fx.tuning.tuning_curves(responses)["tuning_curve"]
    for cell_type, intensity in (("T4c", 1), ("T5c", 0)):
        curve = curves.sel(cell_type=cell_type)
        assert (curve.sel(intensity=intensity, angle=90) > 1.3 * curve.sel(intensity=intensity, angle=270)).all()
        assert (curve.sel(intensity=intensity, angle=90) > curve.sel(intensity=1 - intensity, angle=90)).all()
