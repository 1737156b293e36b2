"""README and documentation: links, code that runs, commands that parse, every public name and every page."""

from __future__ import annotations

import fnmatch
import html.parser
import importlib
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from scripts import load_script

import flyxr as fx
from flyxr import cli

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
GENERATED = ("_build", "generated", "notebooks")
PAGES = sorted(path for path in DOCS.rglob("*.md") if path.relative_to(DOCS).parts[0] not in GENERATED)
MARKDOWN = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "flyxr" / "data" / "README.md", *PAGES]
RUN = ["README.md", *(f"docs/{name}.md" for name in ("start", "stimuli", "connectomes", "ensembles", "long-runs"))]
"""Files whose Python code is run."""


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(path: Path, language: str) -> list[str]:
    """Code blocks of a page in a language; those marked with a further word are left out."""
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(encoding="utf-8"), re.M | re.S)


def text_of(path: Path) -> str:
    """Page without its code."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    return re.sub(r"`[^`\n]*`", lambda code: "" if "](" in code[0] else code[0], text)


def anchors(path: Path) -> set[str]:
    """Anchors of the headings of a page, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+?)\s*$", text_of(path), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def public_objects() -> dict[int, str]:
    """Public functions and classes by their identity, with a full name of each."""
    objects = {}
    for name in dir(fx):
        value = getattr(fx, name)
        if isinstance(value, ModuleType):
            objects |= {id(getattr(value, other)): f"flyxr.{name}.{other}" for other in getattr(value, "__all__", ())}
        else:
            objects[id(value)] = f"flyxr.{name}"
    return objects


def test_api_page__has_every_public_name() -> None:
    listed = re.findall(r"^   (flyxr\.[\w.]+)$", (DOCS / "api.md").read_text(), re.M)
    assert len(listed) == len(set(listed))
    found = set()
    for name in listed:
        module, _, attribute = name.rpartition(".")
        value = getattr(importlib.import_module(module), attribute)
        assert value.__doc__, name
        found.add(id(value))
    assert {name for key, name in public_objects().items() if key not in found} == set()


def toctree_of(path: Path) -> set[str]:
    """Pages in the toctrees of a page."""
    found = set()
    for body in re.findall(r"^```\{toctree\}\n(.*?)^```$", path.read_text(), re.M | re.S):
        for entry in (line for line in body.splitlines() if line and not line.startswith(":")):
            wanted = (path.parent / entry).relative_to(DOCS).as_posix()
            found |= {page for page in map(str, pages_without_suffix()) if fnmatch.fnmatch(page, wanted)}
    return found


def pages_without_suffix() -> list[str]:
    return [path.relative_to(DOCS).with_suffix("").as_posix() for path in PAGES]


def test_pages__are_all_in_a_toctree() -> None:
    reached, new = {"index"}, {"index"}
    while new:
        new = set().union(*(toctree_of(DOCS / f"{page}.md") for page in new)) - reached
        reached |= new
    assert set(pages_without_suffix()) - reached == set()


@pytest.mark.parametrize("path", MARKDOWN, ids=name_of)
def test_links__resolve(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(path)):
        if re.match(r"\w+:", target):
            continue
        file, _, anchor = target.partition("#")
        linked = path.parent / file if file else path
        assert linked.is_file(), f"{target}: no such file"
        if anchor:
            assert anchor in anchors(linked), f"{target}: no such heading"


@pytest.mark.parametrize("path", MARKDOWN, ids=name_of)
def test_commands__parse(path: Path) -> None:
    lines = [line for block in blocks(path, "bash") for line in block.splitlines()]
    for line in lines:
        if line.startswith("flyxr "):
            cli.build_parser().parse_args(shlex.split(line.partition(" | ")[0], comments=True)[1:])


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", RUN)
def test_code__runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    code = blocks(ROOT / name, "python")
    assert code
    for block in code:
        exec(compile(block, name, "exec"), names)


@pytest.fixture
def build() -> ModuleType:
    """The configuration of the site, whose functions make the gallery."""
    pytest.importorskip("sphinx")
    return load_script(DOCS / "conf.py")


PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
NOTEBOOK = {
    "cells": [
        {"cell_type": "markdown", "source": ["# Moving edges\n", "\n", "What [T4](../docs/start.md) see.\n"]},
        {"cell_type": "code", "source": [], "outputs": [{"data": {"image/png": PIXEL}}]},
        {"cell_type": "code", "source": [], "outputs": [{"data": {"text/plain": "1"}}, {"name": "stdout"}]},
    ]
}


@pytest.mark.parametrize("n_notebooks", [0, 2])
def test_gallery__shows_each_notebook(
    n_notebooks: int, build: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "HERE", tmp_path / "docs")
    monkeypatch.setattr(build, "NOTEBOOKS", tmp_path / "notebooks")
    for folder in ("docs", "notebooks"):
        (tmp_path / folder).mkdir()
    for number in range(n_notebooks):
        (tmp_path / "notebooks" / f"0{number}-edges.ipynb").write_text(json.dumps(NOTEBOOK))
    build.copy_notebooks(None)
    page = (tmp_path / "docs" / "notebooks" / "index.md").read_text()
    assert page.count("[Moving edges](0") == n_notebooks
    assert page.count("What T4 see.") == n_notebooks
    assert len(list((tmp_path / "docs" / "notebooks" / "thumbnails").glob("*.png"))) == n_notebooks
    assert page.count("![Moving edges](thumbnails/0") == n_notebooks


class Links(html.parser.HTMLParser):
    """Links and anchors of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if "id" in values:
            self.ids.add(values["id"])
        loaded = {"a": "href", "link": "href", "img": "src", "script": "src"}.get(tag, "")
        if loaded in values:
            self.links.append(values[loaded])
            assert tag == "a" or not values[loaded].startswith(("http", "//")), f"needs a network: {values[loaded]}"


@pytest.mark.docs
@pytest.mark.timeout(600)
def test_site__builds_without_warnings_and_all_links_lead_somewhere(tmp_path: Path) -> None:
    pytest.importorskip("sphinx")
    site = tmp_path / "html"
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", str(DOCS), str(site)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-5000:]
    pages = {path.resolve(): Links(path) for path in site.rglob("*.html") if "_static" not in path.parts}
    assert len(pages) > len(PAGES) + len(public_objects())
    broken = set()
    for path, page in pages.items():
        for link in page.links:
            if re.match(r"\w+:", link) or link == "#":
                continue
            file, _, anchor = link.partition("#")
            linked = (path.parent / file.partition("?")[0]).resolve() if file else path
            if not linked.is_file() or (anchor and linked in pages and anchor not in pages[linked].ids):
                broken.add(f"{path.name}: {link}")
    assert not broken
    assert (site / "searchindex.js").read_text().startswith("Search.setIndex(")
