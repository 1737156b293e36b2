"""What the fly's visual system does with a stimulus: labelled, lazy, chunked.

The names below are the public ones; each is loaded when it is first used, so that ``import flyxr`` stays light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from flyxr import accessor  # registers ``.fly`` on Datasets and DataArrays
from flyxr.sweep import sweep, sweep_status  # at once, since a later import of the module would take the name

if TYPE_CHECKING:
    from flyxr import stimuli, tuning, viz
    from flyxr.clustering import cluster, cluster_stability
    from flyxr.connectome import open_connectome
    from flyxr.ensemble import open_ensemble, sample_ensemble
    from flyxr.eye import BoxEye, resample
    from flyxr.hexeye import HexEye
    from flyxr.optimal import optimal_stimulus
    from flyxr.perturb import clamp, perturbation_effect, scale, silence
    from flyxr.selection import from_neurons, to_neurons
    from flyxr.simulation import Record, simulate
    from flyxr.store import open_store, save

    open = open_store

__version__ = "0.2.0"

# ``open`` is public and not here, so that ``from flyxr import *`` leaves that of Python as it is.
__all__ = [
    "BoxEye",
    "HexEye",
    "Record",
    "accessor",
    "clamp",
    "cluster",
    "cluster_stability",
    "from_neurons",
    "open_connectome",
    "open_ensemble",
    "optimal_stimulus",
    "perturbation_effect",
    "resample",
    "sample_ensemble",
    "save",
    "scale",
    "silence",
    "simulate",
    "stimuli",
    "sweep",
    "sweep_status",
    "to_neurons",
    "tuning",
    "viz",
]

_SOURCES = {
    "BoxEye": ("flyxr.eye", "BoxEye"),
    "HexEye": ("flyxr.hexeye", "HexEye"),
    "Record": ("flyxr.simulation", "Record"),
    "simulate": ("flyxr.simulation", "simulate"),
    "clamp": ("flyxr.perturb", "clamp"),
    "cluster": ("flyxr.clustering", "cluster"),
    "cluster_stability": ("flyxr.clustering", "cluster_stability"),
    "from_neurons": ("flyxr.selection", "from_neurons"),
    "open": ("flyxr.store", "open_store"),
    "open_connectome": ("flyxr.connectome", "open_connectome"),
    "open_ensemble": ("flyxr.ensemble", "open_ensemble"),
    "optimal_stimulus": ("flyxr.optimal", "optimal_stimulus"),
    "perturbation_effect": ("flyxr.perturb", "perturbation_effect"),
    "resample": ("flyxr.eye", "resample"),
    "sample_ensemble": ("flyxr.ensemble", "sample_ensemble"),
    "save": ("flyxr.store", "save"),
    "scale": ("flyxr.perturb", "scale"),
    "silence": ("flyxr.perturb", "silence"),
    "to_neurons": ("flyxr.selection", "to_neurons"),
    "stimuli": ("flyxr.stimuli", None),
    "tuning": ("flyxr.tuning", None),
    "viz": ("flyxr.viz", None),
}


def __getattr__(name: str) -> Any:
    if name not in _SOURCES:
        raise AttributeError(f"module 'flyxr' has no attribute {name!r}; public names: {', '.join(sorted(_SOURCES))}")
    module, attribute = _SOURCES[name]
    value = importlib.import_module(module)
    if attribute is not None:
        value = getattr(value, attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_SOURCES})
