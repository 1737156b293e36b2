"""Files that only an installation or a reader would miss if they were damaged."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
SUFFIXES = {".cff", ".cfg", ".ipynb", ".json", ".md", ".py", ".sh", ".toml", ".txt", ".yaml", ".yml", ""}


def constraints() -> dict[str, Requirement]:
    lines = (ROOT / ".ci/constraints.txt").read_text(encoding="utf-8").splitlines()
    requirements = [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]
    assert len({requirement.name for requirement in requirements}) == len(requirements)
    return {canonicalize_name(requirement.name): requirement for requirement in requirements}


def test_constraints__name_one_version_of_each_package() -> None:
    for name, requirement in constraints().items():
        assert re.fullmatch(r"==[^,*]+", str(requirement.specifier)), name


def test_constraints__meet_every_requirement() -> None:
    """What the commands of the README and the tests install has a known-good version, and one that is allowed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras, known = project["optional-dependencies"], constraints()
    lines = [*project["dependencies"], *extras["dev"], *extras["docs"], *extras["notebooks"]]
    for requirement in map(Requirement, lines):
        name = canonicalize_name(requirement.name)
        if name != "flyxr":
            version = str(known[name].specifier).removeprefix("==")
            assert requirement.specifier.contains(version, prereleases=True), name


def test_files__have_no_marks_of_a_merge() -> None:
    folders = [ROOT / name for name in ("flyxr", "tests", "docs", "notebooks", "catalog", ".ci")]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file() and path.suffix in SUFFIXES]
    files += [path for path in ROOT.iterdir() if path.is_file() and path.suffix in SUFFIXES]
    marked = re.compile(rb"^(<{7} |={7}$|>{7} )", re.MULTILINE)
    assert not [path for path in files if marked.search(path.read_bytes())]
