"""Catalogs: published, moved, served, opened with flyxr and with intake alone, and refused where they are not safe."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import yaml
from serving import object_storage, serving

import flyxr as fx
from flyxr.catalog import CatalogError, base
from flyxr.errors import ExistsError, InputError, MissingError, UnwritableError
from flyxr.testing import corrupt_file, failing_engine, noise_rendering, tiny_connectome

if TYPE_CHECKING:
    from pathlib import Path

    pass

CONNECTOME = tiny_connectome(extent=2)
MODELS = fx.sample_ensemble(2, seed=0, connectome=CONNECTOME)
OPTIONS: dict[str, Any] = {"connectome": CONNECTOME, "device": "cpu", "progress": False}


@pytest.fixture(scope="module")
def original_lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a catalog of a rendering, an ensemble and the responses of a sweep."""
    folder = tmp_path_factory.mktemp("original")
    catalog = folder / "catalog" / "catalog.yaml"
    fx.save(noise_rendering(3), folder / "noise.zarr")
    fx.save(MODELS, folder / "catalog" / "models.zarr")
    fx.sweep(noise_rendering(3), MODELS, folder / "data" / "responses.zarr", **OPTIONS)
    fx.catalog.publish(folder / "noise.zarr", catalog, description="Noise", licence="CC0-1.0")
    fx.catalog.publish(folder / "catalog" / "models.zarr", catalog, description="Two untrained models")
    fx.catalog.publish(folder / "data" / "responses.zarr", catalog, name="answers", description="Answers to noise")
    return folder


@pytest.fixture
def lab(original_lab: Path, tmp_path: Path) -> Path:
    """Copy of the folder, which a test may change."""
    shutil.copytree(original_lab, tmp_path / "lab")
    return tmp_path / "lab"


def change(catalog: Path, name: str, **entry: Any) -> Path:
    """Change an entry of a catalog by hand."""
    content = yaml.safe_load(catalog.read_text())
    content["sources"].setdefault(name, {}).update(entry)
    catalog.write_text(yaml.safe_dump(content))
    return catalog


def test_publish__describes_the_store(lab: Path) -> None:
    entry = fx.catalog.open(lab / "catalog").entries["answers"]
    metadata = entry.metadata
    assert entry.target == "../data/responses.zarr"
    assert metadata["kind"] == "responses"
    assert metadata["dims"] == {"model": 2, "sample": 3, "time": 6, "cell_type": 3, "column": 19}
    assert metadata["cell_types"] == ["R", "L", "T"]
    assert metadata["hashes"].keys() >= {"connectome", "ensemble", "stimulus"}
    assert metadata["chunks"]["response"] == [1, 3, 6, 3, 19]
    assert metadata["versions"]["flyxr"] == fx.__version__
    files = [file for file in (lab / "data" / "responses.zarr").rglob("c/*") if file.is_file()]
    assert metadata["n_bytes"] > sum(file.stat().st_size for file in files)
    twin = json.loads((lab / "catalog" / "catalog.json").read_text())
    assert twin == yaml.safe_load((lab / "catalog" / "catalog.yaml").read_text())
    assert not list(lab.glob("**/*.partial"))


def test_open__entries_are_lazy_datasets(lab: Path, counting_scheduler: Any) -> None:
    calls = counting_scheduler.calls
    catalog = fx.catalog.open(lab / "catalog" / "catalog.yaml")
    answers = catalog["answers"]
    assert counting_scheduler.calls == calls
    assert answers.load().identical(fx.open(lab / "data" / "responses.zarr").load())
    assert catalog["models"].load().identical(fx.open(lab / "catalog" / "models.zarr").load())
    assert len(catalog) == 3
    assert "nothing" not in catalog


def test_open__lists_and_searches(lab: Path) -> None:
    catalog = fx.catalog.open(lab / "catalog")
    assert catalog.table.loc["answers", "kind"] == "responses"
    assert catalog.table.loc["noise", "licence"] == "CC0-1.0"
    assert "refused" not in catalog.table
    assert "Two untrained models" in repr(catalog)
    assert "Two untrained models" in catalog._repr_html_()
    assert list(catalog.search(kind="responses")) == ["answers"]
    assert set(catalog.search(cell_type="T*")) == {"answers", "models"}
    assert list(catalog.search(text="UNTRAINED")) == ["models"]
    assert list(catalog.search(stimulus="moving_*")) == []
    with pytest.raises(KeyError, match=r"no entry 'answer'.*it has answers"):
        catalog["answer"]


def test_open__a_moved_folder_and_a_web_server(lab: Path, tmp_path: Path) -> None:
    expected = fx.open(lab / "data" / "responses.zarr").load()
    moved = tmp_path / "moved" / "deep"
    shutil.move(lab, moved)
    assert fx.catalog.open(moved / "catalog")["answers"].load().identical(expected)
    with serving(moved) as web:
        remote = fx.catalog.open(f"{web.url}/catalog/catalog.yaml")
        assert remote.open("answers", verify=True).load().identical(expected)
        assert remote["models"].sizes["model"] == 2


INTAKE = """
import sys, warnings
warnings.simplefilter("ignore")
import intake
catalog = intake.open_catalog(sys.argv[1])
data = catalog["answers"].to_dask()
assert data.response.chunks is not None
print(sorted(catalog), float(data.response.sum(skipna=True)), "flyxr" in sys.modules)
"""


def run_intake(url: str, **environment: str) -> list[str]:
    """Open a catalog in a process that imports intake and xarray only."""
    command = [sys.executable, "-c", INTAKE, url]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.split("]")[1].split()


def test_open__intake_alone_opens_the_same(lab: Path) -> None:
    expected = float(fx.open(lab / "data" / "responses.zarr").response.sum())
    total, has_flyxr = run_intake(str(lab / "catalog" / "catalog.yaml"))
    assert (float(total), has_flyxr) == (pytest.approx(expected, rel=1e-6), "False")
    with serving(lab) as web:
        total, _ = run_intake(f"{web.url}/catalog/catalog.yaml")
        assert float(total) == pytest.approx(expected, rel=1e-6)


def test_publish__in_object_storage(lab: Path) -> None:
    with object_storage() as options:
        url = "s3://lab/shared/catalog.yaml"
        fx.sweep(noise_rendering(3), MODELS, "s3://lab/shared/answers.zarr", storage_options=options, **OPTIONS)
        fx.catalog.publish("s3://lab/shared/answers.zarr", url, storage_options=options)
        catalog = fx.catalog.open(url, storage_options=options)
        answers = catalog.open("answers", verify=True)
        expected = fx.open(lab / "data" / "responses.zarr").response.values
        np.testing.assert_array_equal(answers.response.values, expected)
        keys = {"AWS_ACCESS_KEY_ID": options["key"], "AWS_SECRET_ACCESS_KEY": options["secret"]}
        total, has_flyxr = run_intake(url, AWS_ENDPOINT_URL=options["endpoint_url"], **keys)
        assert (float(total), has_flyxr) == (pytest.approx(float(np.nansum(expected)), rel=1e-5), "False")
        (lab / "catalog.yaml").write_bytes((lab / "catalog" / "catalog.yaml").read_bytes())
        with pytest.raises(CatalogError, match="near the catalog"):
            fx.catalog.publish("s3://lab/shared/answers.zarr", lab / "catalog.yaml", storage_options=options)


def test_publish__keeps_open_data_readable(tmp_path: Path) -> None:
    path = fx.save(noise_rendering(2), tmp_path / "noise.zarr")
    opened = fx.open(path)
    fx.catalog.publish(path, tmp_path / "catalog.yaml")
    assert opened.load().sizes["sample"] == 2


def test_publish__a_sweep_can_be_extended_and_published_again(tmp_path: Path) -> None:
    path, catalog = tmp_path / "r.zarr", tmp_path / "catalog.yaml"
    for n_samples in (2, 4):
        fx.sweep(noise_rendering(n_samples), MODELS, path, **OPTIONS)
        fx.catalog.publish(path, catalog, name="r", overwrite=True)
        assert fx.catalog.open(catalog).open("r", verify=True).sizes["sample"] == n_samples


def test_publish__refuses_a_taken_name(lab: Path) -> None:
    catalog = lab / "catalog" / "catalog.yaml"
    before = catalog.read_bytes()
    with pytest.raises(ExistsError, match="has an entry 'noise'"):
        fx.catalog.publish(lab / "noise.zarr", catalog)
    assert catalog.read_bytes() == before
    fx.catalog.publish(lab / "noise.zarr", catalog, description="Other words", overwrite=True)
    assert fx.catalog.open(catalog).entries["noise"].description == "Other words"


def test_publish__refuses_an_unfinished_sweep(tmp_path: Path) -> None:
    with failing_engine(1, OSError(28, "full")), pytest.raises(OSError, match="full|stopped"):
        fx.sweep(noise_rendering(3), MODELS, tmp_path / "r.zarr", block_samples=1, **OPTIONS)
    with pytest.raises(CatalogError, match="unfinished"):
        fx.catalog.publish(tmp_path / "r.zarr", tmp_path / "catalog.yaml")
    assert not (tmp_path / "catalog.yaml").exists()


def test_publish__refuses_a_damaged_store(tmp_path: Path) -> None:
    path = fx.save(noise_rendering(3), tmp_path / "noise.zarr")
    next(file for file in path.glob("luminance/c/**/*") if file.is_file()).unlink()
    with pytest.raises(CatalogError, match="missing"):
        fx.catalog.publish(path, tmp_path / "catalog.yaml")


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"catalog": "catalog.txt"}, InputError, "ends with .yaml"),
        ({"name": "a/b"}, CatalogError, "without slashes"),
        ({"name": 3, "licence": 4}, InputError, "expected licence as text"),
        ({"catalog": "far/away/from/catalog.yaml"}, CatalogError, "near the catalog"),
        ({"store": "nothing.zarr"}, MissingError, "no store"),
        ({"catalog": "http://127.0.0.1:1/catalog.yaml"}, UnwritableError, "a place that can be written"),
    ],
)
def test_publish__refuses_what_is_wrong(
    arguments: dict[str, Any], error: type[Exception], match: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fx.save(noise_rendering(1), "noise.zarr")
    with pytest.raises(error, match=match):
        fx.catalog.publish(**{"store": "noise.zarr", "catalog": "catalog.yaml", **arguments})
    assert not list(tmp_path.glob("**/*.yaml"))


def test_open__says_what_happened_to_an_entry(lab: Path) -> None:
    catalog = fx.catalog.open(lab / "catalog")
    fx.save(noise_rendering(3, dt=1 / 50), lab / "noise.zarr", overwrite=True)
    with pytest.raises(CatalogError, match=r"has changed since it was published.*publish it again"):
        catalog["noise"]
    shutil.rmtree(lab / "noise.zarr")
    with pytest.raises(MissingError, match="there is no store at"):
        catalog["noise"]
    assert catalog["models"].sizes["model"] == 2


def test_open__verify_finds_a_changed_file(lab: Path) -> None:
    catalog = fx.catalog.open(lab / "catalog")
    catalog.open("answers", verify=True)
    shard = next(file for file in (lab / "data" / "responses.zarr").glob("response/c/**/*") if file.is_file())
    corrupt_file(shard, keep_time=True)
    with pytest.raises(CatalogError, match=r"1 files of .* differ from what was published, first response/c/"):
        catalog.open("answers", verify=True)


def test_open__refuses_a_newer_version(lab: Path) -> None:
    catalog = lab / "catalog" / "catalog.yaml"
    content = yaml.safe_load(catalog.read_text())
    content["metadata"]["flyxr_catalog"] = 2
    catalog.write_text(yaml.safe_dump(content))
    for use in (fx.catalog.open, lambda path: fx.catalog.publish(lab / "noise.zarr", path)):
        with pytest.raises(CatalogError, match="upgrade flyxr"):
            use(catalog)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "got NoneType"),
        ("- a\n- b", "got list"),
        ("sources: [a]", "expected 'sources' as a mapping"),
        ("sources: {a: &x {driver: zarr}, b: *x}", "expected no aliases"),
        ("!!python/object/apply:os.system ['true']", "could not determine a constructor"),
        ("[" * 3000, "at most 50 levels"),
        ("version: 2\nentries: {}\n", "second layout of intake"),
        ("a: " + "x" * (base.MAX_BYTES + 1), "expected at most"),
    ],
)
def test_open__refuses_what_is_no_catalog(text: str, match: str, tmp_path: Path) -> None:
    path = tmp_path / "catalog.yaml"
    path.write_text(text)
    with pytest.raises((CatalogError, OSError), match=match):
        fx.catalog.open(path)
    with pytest.raises(MissingError, match=r"fx\.catalog\.publish"):
        fx.catalog.open(tmp_path / "none.yaml")


ZARR = "{{ CATALOG_DIR }}/models.zarr"


@pytest.mark.parametrize(
    ("entry", "match"),
    [
        ({"driver": "python", "args": {"urlpath": ZARR}}, "which may run code"),
        ({"driver": "intake_xarray.xzarr.ZarrSource", "args": {"urlpath": ZARR}}, "which may run code"),
        ({"driver": ["zarr"], "args": {"urlpath": ZARR}}, "which may run code"),
        ({"driver": "zarr", "args": {"urlpath": "{{ env(HOME) }}/models.zarr"}}, "a template of intake"),
        ({"driver": "zarr", "args": {"urlpath": "{{ CATALOG_DIR }}/{{ shell(id) }}"}}, "a template of intake"),
        ({"driver": "zarr", "args": {"urlpath": "{% include 'x' %}"}}, "a template of intake"),
        ({"driver": "zarr", "args": {"urlpath": "/etc/models.zarr"}}, "absolute path"),
        ({"driver": "zarr", "args": {"urlpath": "~/models.zarr"}}, "absolute path"),
        ({"driver": "zarr", "args": {"urlpath": "file:///etc/models.zarr"}}, "absolute path"),
        ({"driver": "zarr", "args": {"urlpath": "C:\\models.zarr"}}, "absolute path"),
        ({"driver": "zarr", "args": {"urlpath": "{{ CATALOG_DIR }}/../../../models.zarr"}}, "further up"),
        ({"driver": "zarr", "args": {"urlpath": "{{ CATALOG_DIR }}/a/../../../../m.zarr"}}, "further up"),
        ({"driver": "zarr", "args": {"urlpath": "zip::https://lab.org/x.zip"}}, "no store|below"),
        (
            {"driver": "zarr", "args": {"urlpath": "https://127.0.0.1:1/x.zarr"}},
            r"another host, 127.0.0.1:1: pass hosts=",
        ),
        ({"driver": "zarr", "args": {"urlpath": "s3://bucket/x.zarr"}}, r"another host, s3://bucket"),
        ({"driver": "zarr", "args": {"urlpath": ZARR, "storage_options": {"endpoint_url": "x"}}}, "storage_options"),
        ({"driver": "zarr", "args": {"urlpath": ZARR, "engine": "pydap"}}, "expected args among"),
        ({"driver": "zarr", "args": {"urlpath": [ZARR]}}, "urlpath as text"),
        ({"driver": "zarr", "args": None}, "urlpath as text"),
        ({"driver": "yaml_file_cat", "args": {"path": "{{ CATALOG_DIR }}/catalog.yaml"}}, "contains itself"),
        ({"driver": "yaml_file_cat", "args": {"path": "{{ CATALOG_DIR }}/models.zarr"}}, "cannot be read|directory"),
    ],
)
def test_open__refuses_entries_that_are_not_safe(lab: Path, entry: dict[str, Any], match: str) -> None:
    catalog = fx.catalog.open(change(lab / "catalog" / "catalog.yaml", "bad", **entry))
    assert "bad" in catalog.table.index
    with pytest.raises((CatalogError, OSError), match=match):
        catalog["bad"]
    assert catalog["models"].sizes["model"] == 2


def test_open__refuses_symbolic_links_to_other_places(lab: Path, tmp_path: Path) -> None:
    private = fx.save(noise_rendering(1), tmp_path / "private" / "noise.zarr")
    (lab / "catalog" / "link.zarr").symlink_to(private)
    entry = {"driver": "zarr", "args": {"urlpath": "{{ CATALOG_DIR }}/link.zarr"}}
    catalog = fx.catalog.open(change(lab / "catalog" / "catalog.yaml", "link", **entry))
    with pytest.raises(CatalogError, match="symbolic links"):
        catalog["link"]


def test_open__another_host_if_the_user_says_so(lab: Path, tmp_path: Path) -> None:
    with serving(lab) as web:
        host = web.url.removeprefix("http://")
        entry = {"driver": "zarr", "args": {"urlpath": f"{web.url}/noise.zarr"}}
        catalog = change(lab / "catalog" / "catalog.yaml", "elsewhere", **entry)
        with pytest.raises(CatalogError, match="another host"):
            fx.catalog.open(catalog)["elsewhere"]
        assert web.requests == []
        assert fx.catalog.open(catalog, hosts=[host])["elsewhere"].sizes["sample"] == 3
    with pytest.raises(InputError, match="hosts as a list"):
        fx.catalog.open(catalog, hosts="lab.org")


def test_open__catalogs_within_catalogs(lab: Path, tmp_path: Path) -> None:
    outer = lab / "catalog.yaml"
    inner = {"driver": "yaml_file_cat", "args": {"path": "{{ CATALOG_DIR }}/catalog/catalog.yaml"}}
    outer.write_text(yaml.safe_dump({"metadata": {"version": 1}, "sources": {"inner": inner}}))
    catalog = fx.catalog.open(lab)
    assert catalog.table.loc["inner", "kind"] == "catalog"
    assert list(catalog["inner"]) == ["noise", "models", "answers"]
    assert catalog["inner/noise"].sizes["sample"] == 3


def test_open__html_of_strangers_is_text(lab: Path) -> None:
    catalog = change(lab / "catalog" / "catalog.yaml", "models", description="<script>alert(1)</script>")
    catalog = change(catalog, "<b>bold</b>", driver="zarr", args={"urlpath": ZARR}, description="x")
    shown = fx.catalog.open(catalog)._repr_html_()
    assert "<script>" not in shown
    assert "<b>bold" not in shown


def test_publish__names_that_yaml_would_read_as_others(tmp_path: Path) -> None:
    path = fx.save(noise_rendering(1), tmp_path / "noise.zarr")
    for name in ("no", "1e3", "é", "a: b", "#x", "{{ x }}"):
        fx.catalog.publish(path, tmp_path / "catalog.yaml", name=name)
    assert list(fx.catalog.open(tmp_path)) == ["no", "1e3", "é", "a: b", "#x", "{{ x }}"]


CONCURRENT = """
import sys, flyxr as fx
fx.catalog.publish(sys.argv[1] + "/noise.zarr", sys.argv[1] + "/catalog.yaml", name=sys.argv[2])
"""


def test_publish__at_the_same_time_loses_no_entry(tmp_path: Path) -> None:
    fx.save(noise_rendering(1), tmp_path / "noise.zarr")
    command = [sys.executable, "-c", textwrap.dedent(CONCURRENT), str(tmp_path)]
    running = [subprocess.Popen([*command, name]) for name in "abc"]
    assert [process.wait() for process in running] == [0, 0, 0]
    assert set(fx.catalog.open(tmp_path)) == set("abc")


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test may reach another machine."""
    import socket

    connect = socket.socket.connect

    def refuse(self: socket.socket, address: Any) -> None:
        if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "localhost", "::1"):
            raise AssertionError(f"a connection to {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", refuse)
