"""``import flyxr`` loads little, and packages list their public names and no others."""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import pydoc
import subprocess
import sys
from types import ModuleType

import pytest

import flyxr as fx

HEAVY = [
    "torch",
    "dask",
    "distributed",
    "zarr",
    "holoviews",
    "bokeh",
    "panel",
    "umap",
    "intake",
    "matplotlib",
    "sklearn",
]
PROGRAM = f"""
import sys, time, json, logging, warnings
start = time.perf_counter()
import xarray
middle = time.perf_counter()
before = (len(logging.getLogger().handlers), len(warnings.filters), dict(xarray.get_options()))
import flyxr
end = time.perf_counter()
after = (len(logging.getLogger().handlers), len(warnings.filters), dict(xarray.get_options()))
loaded = [name for name in {HEAVY} if name in sys.modules]
print(json.dumps(dict(xarray=middle - start, flyxr=end - middle, loaded=loaded, unchanged=before == after)))
"""


def test_import__is_light() -> None:
    output = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True).stdout
    figures = json.loads(output)
    assert figures["loaded"] == []
    assert figures["unchanged"]
    # A ratio holds on any machine. On the one where this was measured, half the time of xarray is about 0.3 s.
    assert figures["flyxr"] < 0.5 * figures["xarray"]


@pytest.mark.parametrize("name", fx.__all__)
def test_public_names__resolve(name: str) -> None:
    assert getattr(fx, name).__doc__


def test_public_names__unknown_one_suggests_the_nearest() -> None:
    with pytest.raises(AttributeError, match=r"'simulat' \(nearest: simulate.*\): dir\(flyxr\) lists the public names"):
        fx.simulat  # noqa: B018


def test_simulate__stays_the_function_when_its_module_is_imported() -> None:
    import flyxr.simulation  # noqa: F401

    assert callable(fx.simulate)


@pytest.mark.parametrize(
    "package", [fx, fx.stimuli, fx.training, fx.tuning, fx.viz], ids=lambda package: package.__name__
)
def test_public_names__are_all_that_dir_lists(package: ModuleType) -> None:
    for module in pkgutil.iter_modules(package.__path__):
        if module.name not in {"cli", "__main__"}:
            importlib.import_module(f"{package.__name__}.{module.name}")
    assert {*dir(package)} == {*package.__all__} | ({"open"} if package is fx else set())
    for name in dir(package):
        value = getattr(package, name)
        modules = {"accessor", "catalog", "eye", "stimuli", "training", "tuning", "viz"}
        assert name in modules or not isinstance(value, ModuleType), name
        assert value.__name__.rpartition(".")[2] == name
    with pytest.raises(AttributeError, match=f"'{package.__name__}' has no attribute 'nonsense': dir"):
        package.nonsense  # noqa: B018


def test_import__eager_loading_works() -> None:
    environment = {**os.environ, "EAGER_IMPORT": "1"}
    subprocess.run([sys.executable, "-c", "import flyxr; flyxr.viz"], env=environment, check=True)


def test_open__is_documented_under_its_public_name() -> None:
    assert pydoc.render_doc(fx.open).startswith("Python Library Documentation: function open in module flyxr.store")
    assert fx.open.__doc__.startswith("Open a store lazily")


def test_public_names__star_import_keeps_the_open_of_python() -> None:
    names: dict[str, object] = {}
    exec("from flyxr import *", names)
    assert names["simulate"] is fx.simulate
    assert "open" not in names
    assert "open" in dir(fx)
    assert callable(fx.open)
