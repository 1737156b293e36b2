"""Simulate connectome-constrained networks of the fly visual system: labelled, lazy, chunked.

The public names are listed in ``__init__.pyi``. Each is loaded on first use, so that ``import flyxr`` stays light.
In a notebook, ``%load_ext flyxr`` shows what a Dataset holds above xarray's own table, and pictures as images.
"""

from flyxr import (
    accessor,  # noqa: F401 - registers ``.fly`` on Datasets and DataArrays
    lazy,
)

__version__ = "0.2.0"

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
__all__.remove("open")  # public, but ``from flyxr import *`` must not hide Python's own ``open``


def load_ipython_extension(ipython: object) -> None:
    """Show what a Dataset holds, and pictures as images; IPython calls this for ``%load_ext flyxr``."""
    from flyxr import notebook

    notebook.show_overviews(ipython)
    notebook.show_images(ipython)


def unload_ipython_extension(ipython: object) -> None:
    """Show Datasets and pictures as before; IPython calls this for ``%unload_ext flyxr``."""
    from flyxr import notebook

    notebook.restore(ipython)
