"""Results of flyvis as files: models that are read, checkpoints that are chosen, files that are rejected."""

from __future__ import annotations

import csv
import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest
import torch

import flyxr as fx
from flyxr.flyvis import PARAMETERS, EnsembleError, Layout, Results, read_results

if TYPE_CHECKING:
    from collections.abc import Callable

LAYOUT = Layout(
    cell_types=["R", "L", "T"],
    pairs=["R > L", "L > T"],
    synapses=["R > L (0, 0)", "L > T (0, 0)", "L > T (1, 0)"],
    sign=np.array([-1.0, 1.0]),
    n_synapses=np.array([40.0, 2.5, 1.0]),
)


def make_tensors(seed: int = 0) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(seed)
    values = {
        "nodes_bias": rng.normal(size=3),
        "nodes_time_const": rng.uniform(0.01, 0.1, 3),
        "edges_sign": LAYOUT.sign,
        "edges_syn_count": np.log(LAYOUT.n_synapses),
        "edges_syn_strength": rng.uniform(size=2),
    }
    return {key: torch.tensor(value, dtype=torch.float32) for key, value in values.items()}


def write_checkpoint(path: Path, network: Any, **other: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"network": network, "decoder": {"flow": {"bias": torch.zeros(7)}}, **other}, path)


def write_numbers(path: Path, values: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["data"] = values


def make_zip(folder: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder.parent))
    return path


@pytest.fixture
def ensemble(tmp_path: Path) -> Path:
    """Directory of three models whose order by error is 001, 002, 000."""
    folder = tmp_path / "flow" / "0000"
    for i, loss in enumerate([3.0, 1.0, 2.0]):
        write_checkpoint(folder / f"{i:03}" / "best_chkpt", make_tensors(i))
        write_numbers(folder / f"{i:03}" / "validation" / "loss.h5", [loss + 1, loss])
    return folder


def assert_same(actual: Results, expected: Results) -> None:
    assert actual.measure == expected.measure
    for a, b in zip(actual.models, expected.models, strict=True):
        assert (a.name, a.checkpoint, a.is_guess, a.task_error) == (b.name, b.checkpoint, b.is_guess, b.task_error)
        for name in PARAMETERS:
            np.testing.assert_array_equal(a.parameters[name], b.parameters[name])


def test_read_results__parameters_errors_and_names(ensemble: Path) -> None:
    results = read_results(ensemble, LAYOUT)
    assert results.measure == "validation/loss"
    assert [model.name for model in results.models] == ["flow/0000/000", "flow/0000/001", "flow/0000/002"]
    assert [model.task_error for model in results.models] == [3.0, 1.0, 2.0]
    for i, model in enumerate(results.models):
        assert model.checkpoint == "best_chkpt"
        for name, key in PARAMETERS.items():
            np.testing.assert_array_equal(model.parameters[name], make_tensors(i)[key].numpy())


@pytest.mark.parametrize("levels", [0, 1, 2])
def test_read_results__finds_the_only_ensemble_below(ensemble: Path, levels: int) -> None:
    start = [ensemble, *ensemble.parents][levels]
    assert_same(read_results(start, LAYOUT), read_results(ensemble, LAYOUT))


@pytest.mark.parametrize("inside", ["", "flow", "flow/0000"])
def test_read_results__zip_equals_directory(ensemble: Path, tmp_path: Path, inside: str) -> None:
    archive = make_zip(ensemble.parent, tmp_path / "results.zip")
    before = set(tmp_path.rglob("*"))
    assert_same(read_results(archive / inside, LAYOUT), read_results(ensemble, LAYOUT))
    assert set(tmp_path.rglob("*")) == before


def test_read_results__single_model(ensemble: Path) -> None:
    results = read_results(ensemble / "001", LAYOUT)
    assert [(model.name, model.task_error) for model in results.models] == [("flow/0000/001", 1.0)]


def test_read_results__model_names_without_directories_above(ensemble: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "models.zip", "w") as archive:
        for file in (ensemble / "000").rglob("*.*"):
            archive.write(file, file.relative_to(ensemble))
        archive.write(ensemble / "000" / "best_chkpt", "000/best_chkpt")
    assert [model.name for model in read_results(tmp_path / "models.zip", LAYOUT).models] == ["000"]


def test_read_results__model_names_from_a_relative_path(ensemble: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ensemble / "000")
    assert read_results("..", LAYOUT).models[2].name == "flow/0000/002"


def test_read_results__ignores_hidden_files(ensemble: Path, tmp_path: Path) -> None:
    shutil.copytree(ensemble.parent, tmp_path / "__MACOSX" / "flow")
    (ensemble / ".003").mkdir()
    (ensemble / "._000").touch()
    (ensemble / "__cache__").mkdir()
    (ensemble / "000" / "chkpts").mkdir()
    (ensemble / "000" / "chkpts" / ".chkpt_00009").touch()
    assert len(read_results(tmp_path, LAYOUT).models) == 3


def test_read_results__several_ensembles_are_listed(ensemble: Path, tmp_path: Path) -> None:
    shutil.copytree(ensemble, ensemble.parent / "0001")
    archive = make_zip(ensemble.parent, tmp_path / "results.zip")
    for path in (ensemble.parent, archive):
        with pytest.raises(EnsembleError, match="expected one ensemble, got 2") as caught:
            read_results(path, LAYOUT)
        for line in str(caught.value).splitlines()[1:]:
            assert len(read_results(line.removeprefix("- "), LAYOUT).models) == 3


def test_read_results__missing_path(ensemble: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_results(tmp_path / "nowhere", LAYOUT)
    archive = make_zip(ensemble.parent, tmp_path / "results.zip")
    with pytest.raises(FileNotFoundError, match="no directory flow/0009"):
        read_results(archive / "flow" / "0009", LAYOUT)


def test_read_results__other_files(ensemble: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(EnsembleError, match="got none: give the path"):
        read_results(tmp_path / "empty", LAYOUT)
    (tmp_path / "notes.txt").write_text("notes")
    with pytest.raises(EnsembleError, match=r"notes\.txt: expected a directory or a whole zip"):
        read_results(tmp_path / "notes.txt", LAYOUT)
    archive = make_zip(ensemble.parent, tmp_path / "results.zip")
    archive.write_bytes(archive.read_bytes()[:-100])
    with pytest.raises(EnsembleError, match="download it again"):
        read_results(archive, LAYOUT)


@pytest.mark.parametrize(
    ("epe", "measure", "errors"),
    [
        ((1.0, 2.0, 3.0), "validation/epe", [1.0, 2.0, 3.0]),
        ((1.0, 2.0), "validation/loss", [3.0, 1.0, 2.0]),
        ((), "validation/loss", [3.0, 1.0, 2.0]),
    ],
)
def test_read_results__epe_only_where_every_model_has_it(
    ensemble: Path, epe: tuple[float, ...], measure: str, errors: list[float]
) -> None:
    for i, value in enumerate(epe):
        write_numbers(ensemble / f"{i:03}" / "validation" / "epe.h5", value)
    results = read_results(ensemble, LAYOUT)
    assert results.measure == measure
    assert [model.task_error for model in results.models] == errors


def test_read_results__errors_unknown(ensemble: Path) -> None:
    (ensemble / "001" / "validation" / "loss.h5").unlink()
    write_numbers(ensemble / "002" / "validation" / "loss.h5", [np.nan, np.nan])
    results = read_results(ensemble, LAYOUT)
    assert results.measure == "validation/loss"
    np.testing.assert_array_equal([model.task_error for model in results.models], [3.0, np.nan, np.nan])
    for i in range(3):
        shutil.rmtree(ensemble / f"{i:03}" / "validation")
    results = read_results(ensemble, LAYOUT)
    assert results.measure is None
    assert np.isnan([model.task_error for model in results.models]).all()


def number_checkpoints(ensemble: Path, numbers: list[int], index: list[int] | None, losses: Any) -> Path:
    """Give the model 000 numbered checkpoints in place of its best one."""
    model = ensemble / "000"
    (model / "best_chkpt").unlink()
    for number in numbers:
        write_checkpoint(model / "chkpts" / f"chkpt_{number:05}", make_tensors(number))
    if index is not None:
        write_numbers(model / "chkpt_index.h5", index)
    write_numbers(model / "validation" / "loss.h5", losses)
    return model


@pytest.mark.parametrize(
    ("numbers", "index", "losses", "best"),
    [
        ([0, 1, 2], [0, 1, 2], [3.0, 1.0, 2.0], 1),
        ([0, 1, 2], None, [3.0, 2.0, 1.0], 2),
        ([3, 7, 12], [3, 7, 12], [3.0, 2.0, 1.0], 12),
        ([3, 7, 12], None, [3.0, 1.0, 2.0], 7),
        ([4], [4], [1.0], 4),
        ([4], None, 1.0, 4),
        ([5], [2, 5, 9], [2.0, 1.0, 3.0], 5),
        ([0, 1], [0, 1], [np.nan, 2.0], 1),
    ],
)
def test_read_results__best_checkpoint(
    ensemble: Path, numbers: list[int], index: list[int] | None, losses: Any, best: int
) -> None:
    number_checkpoints(ensemble, numbers, index, losses)
    model = read_results(ensemble, LAYOUT).models[0]
    assert (model.checkpoint, model.is_guess) == (f"chkpts/chkpt_{best:05}", False)
    np.testing.assert_array_equal(model.parameters["bias"], make_tensors(best)["nodes_bias"].numpy())


def test_read_results__last_checkpoint_where_errors_are_unknown(ensemble: Path) -> None:
    model = number_checkpoints(ensemble, [0, 9, 10], None, 1.0)
    (model / "validation" / "loss.h5").unlink()
    read = read_results(ensemble, LAYOUT).models[0]
    assert (read.checkpoint, read.is_guess) == ("chkpts/chkpt_00010", True)


@pytest.mark.parametrize(
    ("numbers", "index", "losses", "message"),
    [
        ([0, 1], [0, 1], [1.0], "one validation error for each of 2 checkpoints, got 1"),
        ([0, 1], [0, 1, 2], [3.0, 2.0, 1.0], "expected chkpts/chkpt_00002, .* got chkpt_00000, chkpt_00001"),
    ],
)
def test_read_results__best_checkpoint_missing(
    ensemble: Path, numbers: list[int], index: list[int], losses: list[float], message: str
) -> None:
    number_checkpoints(ensemble, numbers, index, losses)
    with pytest.raises(EnsembleError, match=message):
        read_results(ensemble, LAYOUT)


class RunsCode:
    """Pickles to a call that makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


def test_read_results__code_is_rejected(ensemble: Path, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    write_checkpoint(ensemble / "001" / "best_chkpt", RunsCode(trap))
    torch.load(ensemble / "001" / "best_chkpt", weights_only=False)
    assert trap.exists()
    trap.unlink()
    for path in (ensemble, make_zip(ensemble.parent, tmp_path / "results.zip")):
        with pytest.raises(EnsembleError, match=r"001/best_chkpt: .* would run code") as caught:
            read_results(path, LAYOUT)
        assert "weights_only" not in str(caught.value)
    assert not trap.exists()


class Builds:
    """Pickles to a call of a function, as a checkpoint of the first layout does for its validation loss."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def name_as_numpy_1(path: Path) -> None:
    """Replace the names of NumPy's modules in a checkpoint by those of NumPy 1, which wrote the first layout."""
    with zipfile.ZipFile(path) as archive:
        members = {member: archive.read(member) for member in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content.replace(b"numpy._core", b"numpy.core") if name.endswith(".pkl") else content)


@pytest.mark.parametrize(
    "value",
    [
        np.zeros(3),  # numpy's _reconstruct
        np.float32(1),  # another dtype
        np.dtype("O"),
        Builds(os.system, "true"),
        Builds(eval, "1"),
        Builds(np.frombuffer, b"12345678"),
    ],
    ids=["array", "float32", "object dtype", "system", "eval", "frombuffer"],
)
def test_read_results__only_a_float64_is_built(ensemble: Path, value: Any) -> None:
    write_checkpoint(ensemble / "001" / "best_chkpt", make_tensors(1), validation_loss=np.float64(1))
    name_as_numpy_1(ensemble / "001" / "best_chkpt")
    read_results(ensemble, LAYOUT)
    write_checkpoint(ensemble / "001" / "best_chkpt", make_tensors(1), validation_loss=value)
    name_as_numpy_1(ensemble / "001" / "best_chkpt")
    with pytest.raises(EnsembleError, match=r"001/best_chkpt: expected (tensors only|a checkpoint of torch)"):
        read_results(ensemble, LAYOUT)


def test_read_results__as_first_published(pretrained: Path) -> None:
    connectome = fx.open_connectome()
    first = fx.open_ensemble(pretrained.parents[1] / "as-published", connectome=connectome)
    current = fx.open_ensemble(pretrained, connectome=connectome)
    for name in current.data_vars:
        np.testing.assert_array_equal(first[name], current[name])
    np.testing.assert_allclose(first.task_error, current.task_error, rtol=1e-6)  # the first layout has more digits
    assert first.model_name.values[:2].tolist() == ["opticflow/000/0000", "opticflow/000/0001"]


def set_tensor(key: str, values: Any) -> dict[str, torch.Tensor]:
    return {**make_tensors(), key: torch.as_tensor(values, dtype=torch.float32)}


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (set_tensor("nodes_bias", np.zeros(5)), r"nodes_bias with shape \(3,\), got \(5,\)"),
        (set_tensor("edges_syn_strength", np.zeros((2, 1))), r"edges_syn_strength with shape \(2,\), got \(2, 1\)"),
        (set_tensor("edges_syn_count", np.zeros(2)), r"edges_syn_count with shape \(3,\), got \(2,\)"),
        (set_tensor("edges_sign", [-1, -1]), r"edges_sign .* \+1 for L > T, got -1"),
        (set_tensor("edges_sign", [1, np.nan]), r"edges_sign .* -1 for R > L and 1 more, got \+1"),
        (
            set_tensor("edges_syn_count", np.log([40, 3, 1])),
            r"edges_syn_count .* 2\.5 for L > T \(0, 0\), got log of 3:",
        ),
        (set_tensor("edges_syn_count", [np.log(40), np.log(2.5), 1e9]), r"L > T \(1, 0\), got log of inf"),
        (set_tensor("nodes_time_const", [0.05, np.nan, 0.05]), "nodes_time_const finite, got nan for L:"),
        (set_tensor("edges_syn_strength", [np.inf, 0]), "edges_syn_strength finite, got inf for R > L:"),
        (
            set_tensor("edges_other", [0]),
            "expected the tensors .*, got .* edges_other: it is a checkpoint of another",
        ),
        ({"nodes_bias": torch.zeros(3)}, "expected the tensors .*, got nodes_bias"),
        ({"nodes_bias": 3}, "expected tensors under 'network', got the keys network, decoder"),
        (set_tensor("nodes_bias", np.zeros(3)) | {"nodes_bias": torch.zeros(3).to_sparse()}, "dense tensors"),
        (make_tensors() | {"nodes_bias": torch.zeros(1).expand(10**12)}, "dense tensors"),
        (torch.zeros(3), "expected tensors under 'network'"),
    ],
)
def test_read_results__foreign_checkpoint(ensemble: Path, network: Any, message: str) -> None:
    write_checkpoint(ensemble / "002" / "best_chkpt", network)
    with pytest.raises(EnsembleError, match=message) as caught:
        read_results(ensemble, LAYOUT)
    assert "002" in str(caught.value)


def test_read_results__counts_within_rounding(ensemble: Path) -> None:
    write_checkpoint(
        ensemble / "002" / "best_chkpt", set_tensor("edges_syn_count", np.log(LAYOUT.n_synapses * 1.000003))
    )
    assert len(read_results(ensemble, LAYOUT).models) == 3
    write_checkpoint(
        ensemble / "002" / "best_chkpt", set_tensor("edges_syn_count", np.log(LAYOUT.n_synapses * 1.00003))
    )
    with pytest.raises(EnsembleError, match="edges_syn_count"):
        read_results(ensemble, LAYOUT)


@pytest.mark.parametrize("file", ["best_chkpt", "validation/loss.h5"])
@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.6, 0.99])
@pytest.mark.parametrize("kind", ["directory", "zip"])
def test_read_results__truncated_file(ensemble: Path, tmp_path: Path, file: str, fraction: float, kind: str) -> None:
    path = ensemble / "001" / file
    content = path.read_bytes()
    path.write_bytes(content[: int(fraction * len(content))])
    source = ensemble if kind == "directory" else make_zip(ensemble.parent, tmp_path / "results.zip")
    with pytest.raises(EnsembleError, match=rf"001/{file}: expected .* copy it again"):
        read_results(source, LAYOUT)


def test_read_results__validation_errors_that_are_not_numbers(ensemble: Path) -> None:
    write_numbers(ensemble / "000" / "validation" / "loss.h5", "text")
    with h5py.File(ensemble / "001" / "validation" / "loss.h5", "w") as file:
        file["other"] = 1.0
    with h5py.File(ensemble / "002" / "validation" / "loss.h5", "w") as file:
        file.create_group("data")
    with pytest.raises(EnsembleError, match="3 problems with 3 models"):
        read_results(ensemble, LAYOUT)


def test_read_results__numbers_too_large_once_inflated(ensemble: Path) -> None:
    with h5py.File(ensemble / "000" / "validation" / "loss.h5", "w") as file:
        file.create_dataset("data", data=np.zeros(2**17), compression="gzip")
    with pytest.raises(EnsembleError, match=r"000/validation/loss.h5: .* at most 524,288 bytes, got 1,048,576"):
        read_results(ensemble, LAYOUT, max_bytes=2**19)


def test_read_results__pickle_cut_short(ensemble: Path) -> None:
    path = ensemble / "001" / "best_chkpt"
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content[:20] if name.endswith("data.pkl") else content)
    with pytest.raises(EnsembleError, match="001/best_chkpt: expected a checkpoint of torch, got one that cannot"):
        read_results(ensemble, LAYOUT)


def test_read_results__damaged_inside_a_zip(ensemble: Path, tmp_path: Path) -> None:
    archive = make_zip(ensemble.parent, tmp_path / "results.zip")
    content = bytearray(archive.read_bytes())
    start = content.find((ensemble / "001" / "best_chkpt").read_bytes())
    content[start + 1000 : start + 1200] = bytes(200)
    archive.write_bytes(content)
    with pytest.raises(EnsembleError, match=r"001/best_chkpt: expected a readable file, got BadZipFile"):
        read_results(archive, LAYOUT)


def test_read_results__damaged_number(ensemble: Path) -> None:
    path = ensemble / "001" / "best_chkpt"
    content = bytearray(path.read_bytes())
    content[content.find(make_tensors(1)["nodes_bias"].numpy().tobytes()) + 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(EnsembleError, match="001/best_chkpt: expected a whole file, got another checksum of .*data/0"):
        read_results(ensemble, LAYOUT)


def test_read_results__too_large(ensemble: Path, tmp_path: Path) -> None:
    archive = make_zip(ensemble.parent, tmp_path / "results.zip")
    max_bytes = (ensemble / "000" / "best_chkpt").stat().st_size - 1
    for path in (ensemble, archive):
        with pytest.raises(EnsembleError, match="3 problems") as caught:
            read_results(path, LAYOUT, max_bytes=max_bytes)
        assert str(caught.value).count("best_chkpt: expected at most") == 3


def test_read_results__too_large_once_inflated(ensemble: Path) -> None:
    path = ensemble / "000" / "best_chkpt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(2**20))
    with pytest.raises(EnsembleError, match="000/best_chkpt: expected at most 524,288 bytes, got 1,048,576"):
        read_results(ensemble, LAYOUT, max_bytes=2**19)


def test_read_results__lists_all_problems_at_once(ensemble: Path) -> None:
    shutil.rmtree(ensemble / "000")
    (ensemble / "000").mkdir()
    write_checkpoint(ensemble / "001" / "best_chkpt", set_tensor("edges_sign", [1, 1]) | {"nodes_bias": torch.zeros(4)})
    (ensemble / "001" / "validation" / "loss.h5").write_bytes(b"")
    shutil.copytree(ensemble / "002", ensemble / "003")
    (ensemble / "003" / "best_chkpt").write_bytes(b"PK")
    (ensemble / "best").mkdir()
    (ensemble / "best" / "best_chkpt").touch()
    with pytest.raises(EnsembleError) as caught:
        read_results(ensemble, LAYOUT)
    first, *lines = str(caught.value).splitlines()
    assert first == f"{ensemble}: 6 problems with 5 models:"
    expected = {
        "000": "expected best_chkpt or chkpts/chkpt_00000, got neither",
        "001/validation/loss.h5": "expected an HDF5 file",
        "001/best_chkpt": "expected edges_sign",
        "003/best_chkpt": "expected a checkpoint of torch",
        "best/best_chkpt": "got 0 bytes that are not one (File is not a zip file)",
    }
    for name, text in expected.items():
        assert [line for line in lines if line.startswith(f"- {ensemble / name}: ") and text in line], name
    assert [line for line in lines if "001/best_chkpt: expected nodes_bias with shape" in line]
    assert isinstance(caught.value, ValueError)


@pytest.fixture(scope="module")
def expected(shared: Path) -> dict[str, Any]:
    return dict(json.loads((shared / "golden" / "results_tree_expected.json").read_text()))


@pytest.fixture(scope="module")
def parameters(shared: Path) -> dict[tuple[str, int], dict[str, dict[str, float]]]:
    """Values by model, checkpoint, parameter and key."""
    table: dict[tuple[str, int], dict[str, dict[str, float]]] = {}
    with (shared / "golden" / "results_tree_parameters.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            values = table.setdefault((row["model"], int(row["checkpoint"])), {}).setdefault(row["parameter"], {})
            values[row["key"]] = float(row["value"])
    return table


@pytest.mark.parametrize("kind", ["directory", "zip"])
@pytest.mark.parametrize("name", ["flow/0007", "flow/0008"])
def test_read_results__as_flyvis_reports(
    shared: Path,
    golden: Callable[[str], dict[str, np.ndarray]],
    expected: dict[str, Any],
    parameters: dict[tuple[str, int], dict[str, dict[str, float]]],
    tmp_path: Path,
    name: str,
    kind: str,
) -> None:
    path = shared / "golden" / "results_tree.zip"
    if kind == "directory":
        with zipfile.ZipFile(path) as archive:
            archive.extractall(tmp_path)
        path = tmp_path
    arrays = golden("sim_extent15.npz")
    layout = Layout(
        cell_types=arrays["bias_keys"].tolist(),
        pairs=arrays["syn_strength_keys"].tolist(),
        synapses=arrays["syn_count_keys"].tolist(),
        sign=arrays["sign"].astype(float),
        n_synapses=arrays["syn_count_semantic"].astype(float),
    )
    results = read_results(path / "results" / name, layout)
    report = expected[name]
    assert results.measure == "validation/epe"
    assert [model.name for model in results.models] == report["names"]
    assert [model.task_error for model in results.models] == report["min_epe"]
    best = {model.name: model.checkpoint.removeprefix("chkpts/") for model in results.models}
    assert best == report["best_checkpoint"]
    columns = {
        "bias": ("bias", layout.cell_types),
        "time_constant": ("time_const", layout.cell_types),
        "synapse_strength": ("syn_strength", layout.pairs),
    }
    for model in results.models:
        number = int(model.checkpoint.removeprefix("chkpts/chkpt_"))
        for parameter, (column, keys) in columns.items():
            values = parameters[model.name, number][column]
            assert len(values) == len(keys)
            np.testing.assert_array_equal(
                model.parameters[parameter].astype(np.float32), np.float32([values[key] for key in keys])
            )
