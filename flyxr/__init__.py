"""Simulate connectome-constrained networks of the fly visual system: labelled, lazy, chunked.

The public names are listed in ``__init__.pyi``. Each is loaded on first use, so that ``import flyxr`` stays light.
"""

from flyxr import (
    accessor,  # noqa: F401 - registers ``.fly`` on Datasets and DataArrays
    lazy,
)

__version__ = "0.2.0"

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
__all__.remove("open")  # public, but ``from flyxr import *`` must not hide Python's own ``open``
