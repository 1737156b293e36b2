"""``import flyxr`` is light."""

from __future__ import annotations

import json
import subprocess
import sys

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
    # 0.3 s is about half of what xarray takes on the machine that this was measured on; a ratio holds on any.
    assert figures["flyxr"] < 0.5 * figures["xarray"]


@pytest.mark.parametrize("name", fx.__all__)
def test_public_names__resolve(name: str) -> None:
    assert getattr(fx, name).__doc__


def test_public_names__unknown_one_is_named() -> None:
    with pytest.raises(AttributeError, match="simulat.*public names: .*simulate"):
        fx.simulat  # noqa: B018


def test_simulate__stays_the_function_when_its_module_is_imported() -> None:
    import flyxr.simulation  # noqa: F401

    assert callable(fx.simulate)


def test_public_names__all_leave_python_as_it_is() -> None:
    names: dict[str, object] = {}
    exec("from flyxr import *", names)
    assert names["simulate"] is fx.simulate
    assert "open" not in names
    assert "open" in dir(fx)
    assert callable(fx.open)
