"""Cell types and their connections as a Dataset, and their compilation at an extent.

The tables in the package are the FIB-25/FIB-19 consensus connectome v2.2 of Lappalainen et al. 2024; see
``flyxr/data/README.md`` for their source.
"""

from flyxr.connectome.network import (
    Tables,
    cell_index,
    cell_presence,
    compile_network,
    mean_synapses,
    realised,
    tables,
)
from flyxr.connectome.reading import (
    ConnectomeError,
    find_connectome,
    mismatch,
    open_connectome,
)

__all__ = [
    "ConnectomeError",
    "Tables",
    "cell_index",
    "cell_presence",
    "compile_network",
    "find_connectome",
    "mean_synapses",
    "mismatch",
    "open_connectome",
    "realised",
    "tables",
]
