"""What `flyxr doctor` finds on a machine where all is well, and where something is wrong."""

from __future__ import annotations

import errno
import json
import tempfile
from collections import namedtuple
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import flyxr as fx
from flyxr import cli, diagnosis, engine
from flyxr.diagnosis import Finding, examine, largest_difference
from flyxr.testing import observed_engine

if TYPE_CHECKING:
    from pathlib import Path


def find(topic: str, folder: Path) -> list[Finding]:
    return [finding for finding in examine(folder) if finding.topic == topic]


@pytest.fixture
def no_simulation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without simulations, which take most of the time."""
    monkeypatch.setattr(engine, "ENGINES", {})
    monkeypatch.setattr(diagnosis, "ENGINES", {})


@pytest.mark.parametrize("name", ["stencil", "sparse", "reference"])
def test_largest_difference__is_far_below_the_tolerance(name: str, device: str) -> None:
    if device not in engine.ENGINES[name].devices:
        pytest.skip(f"{name} does not run on {device}")
    assert largest_difference(name, device) < diagnosis.TOLERANCE / 10


def test_expected__is_a_second_of_responses_that_vary() -> None:
    values = np.array(list(diagnosis.EXPECTED.values()))
    assert values.shape == (8, 3)
    assert (np.ptp(values, axis=1) > 100 * diagnosis.TOLERANCE).all()


def test_doctor__says_ok(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["doctor"]) == 0
    printed = capsys.readouterr().out
    assert "OK: flyxr works here" in printed
    assert f"flyxr {fx.__version__}" in printed
    assert "flyxr: 18 models" in printed
    assert "stencil on cpu" in printed
    assert "WRONG" not in printed
    assert not list(tmp_path.iterdir())


def test_doctor__prints_json(
    no_simulation: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["doctor", "--json"]) == 0
    findings = json.loads(capsys.readouterr().out)
    topics = [finding["topic"] for finding in findings]
    for topic in ("versions", "cores", "memory", "GPU", "disk", "cache", "ensembles", "stores"):
        assert topic in topics
    assert {finding["status"] for finding in findings} <= {"ok", "note"}


def test_doctor__wrong_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(diagnosis, "ENGINES", {"stencil": engine.ENGINES["stencil"]})
    monkeypatch.setitem(diagnosis.EXPECTED, "T4c", (0.0, 0.0, 0.0))
    assert cli.main(["doctor"]) == 1
    printed = capsys.readouterr().out
    assert "WRONG  stencil on cpu   a simulated second differs by 1.7" in printed
    assert "-> do not use its numbers" in printed
    assert "1 of" in printed


def test_examine__an_engine_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "ENGINES", {"stencil": engine.ENGINES["stencil"]})

    def fail(*_: object) -> None:
        raise ImportError("no numba")

    with observed_engine(fail):
        (finding,) = find("stencil on cpu", tmp_path)
    assert finding.status == "wrong"
    assert "ImportError: no numba" in finding.text


Usage = namedtuple("Usage", "free")


def test_examine__little_memory_and_a_full_disk(
    no_simulation: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(1e6))
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": 1e8}))
    findings = {finding.topic: finding for finding in examine(tmp_path)}
    assert findings["memory"].status == findings["disk"].status == "wrong"
    assert "0.1 GB free" in findings["memory"].text
    assert "record less" in findings["memory"].way_out


def test_examine__folders_that_cannot_be_written(
    no_simulation: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", fail)
    monkeypatch.setattr(tempfile, "TemporaryDirectory", fail)
    findings = {finding.topic: finding for finding in examine(tmp_path)}
    assert "XDG_CACHE_HOME" in findings["cache"].way_out
    assert findings["stores"].status == "wrong"
    assert "Read-only file system" in findings["stores"].text


def test_examine__packages_that_are_old_or_missing(
    no_simulation: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    required = ["numpy>=99", "nowhere>=1", 'nowhere-either; extra == "video"', 'unused; extra == "dev"']
    monkeypatch.setattr("importlib.metadata.requires", lambda name: required)
    (finding,) = find("versions", tmp_path)
    assert finding.status == "wrong"
    assert "numpy>=99 is needed, got 2" in finding.text
    assert "nowhere>=1 is needed, got none" in finding.text
    (extra,) = find("extras", tmp_path)
    assert extra.status == "note"
    assert extra.text == "not installed: video (nowhere-either)"
    assert "flyxr[video]" in extra.way_out


def test_examine__goes_on_after_an_error(no_simulation: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(diagnosis, "n_threads", fail)
    findings = {finding.topic: finding for finding in examine(tmp_path)}
    assert findings["cores"].status == "wrong"
    assert "RuntimeError: broken" in findings["cores"].text
    assert findings["stores"].status == "ok"


def test_examine__names_the_command_that_fetches_an_ensemble(
    no_simulation: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    published, shipped = find("ensembles", tmp_path)
    assert published.status == "note"
    assert "flyxr fetch-pretrained" in published.way_out
    assert shipped.status == "ok"
