"""Configurations of flyvis's models, ``_meta.yaml``: the connectome that they name, and the one that is written."""

from __future__ import annotations

from posixpath import dirname, join
from typing import TYPE_CHECKING, Any, NamedTuple

from flyxr.errors import Problem
from flyxr.flyvis.files import EnsembleError, read_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flyxr.flyvis.files import FileTree

META = "_meta.yaml"
"""File of a model's configuration."""
PACKAGED_CONNECTOME = "fib25-fib19_v2.2.json"
"""Connectome that flyvis distributes; its numbers are those of the package's."""
MAX_EXTENT = 40
"""Largest extent that is taken from a configuration, which may come from anyone; 15 is usual."""
MAX_META_BYTES = 2**20

_DYNAMICS, _ACTIVATION = "PPNeuronIGRSynapses", "relu"


class ConnectomeConfig(NamedTuple):
    """The connectome of a model.

    ``name`` is the name of its file without directories. ``content`` is that of such a file in the directory of the
    model, or in one of the two above it if they were opened too; None if there is none. ``extent`` and ``n_syn_fill``
    are None if they are not given.
    """

    name: str
    content: bytes | None
    extent: int | None
    n_syn_fill: float | None


def read_network_config(tree: FileTree, model: str) -> dict[str, Any]:
    """Read the part of a model's configuration about its network; empty if there is none that can be read."""
    import yaml

    if META not in tree.children(model)[1] or tree.size(join(model, META)) > MAX_META_BYTES:
        return {}
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # builds plain values only
    try:
        config = yaml.load(read_file(tree, join(model, META)), Loader=loader)
        network = config["config"]["network"]
    except (EnsembleError, yaml.YAMLError, ValueError, TypeError, KeyError, IndexError, RecursionError):
        return {}  # whether the model fits the connectome is seen from its checkpoint
    return network if isinstance(network, dict) else {}


def find_other_dynamics(network: dict[str, Any]) -> Iterator[Problem]:
    """List what the equations of a model have that flyxr's have not.

    Examples
    --------
    >>> network = {"dynamics": {"type": "PPNeuronIGRSynapses", "activation": {"type": "elu"}}}
    >>> for problem in find_other_dynamics(network):
    ...     print(problem.text)
    expected the activation relu, got elu
    """
    dynamics = network.get("dynamics")
    if not isinstance(dynamics, dict):
        return
    activation = dynamics.get("activation")
    given = (dynamics.get("type"), activation.get("type") if isinstance(activation, dict) else None)
    for name, expected, got in zip(("dynamics", "activation"), (_DYNAMICS, _ACTIVATION), given, strict=True):
        if got not in (None, expected):
            yield Problem(f"expected the {name} {expected}, got {str(got)[:80]}", "flyxr cannot simulate this model")


def read_connectome_config(tree: FileTree, model: str) -> ConnectomeConfig | None:
    """Read which connectome a model names; None if it names none.

    The file is searched by its name in the directory of the model and the two above it, and nowhere else, since a
    configuration from others may name any file of this machine.

    Raises
    ------
    EnsembleError
        If the extent is not an integer from 1 to :data:`MAX_EXTENT`, or the number of filled synapses no number.
    """
    connectome = read_network_config(tree, model).get("connectome")
    if not isinstance(connectome, dict) or not isinstance(connectome.get("file"), str):
        return None
    name = connectome["file"].replace("\\", "/").rpartition("/")[2]
    extent, n_syn_fill = connectome.get("extent"), connectome.get("n_syn_fill")
    label, hint = tree.label(join(model, META)), "pass the connectome of the models as connectome="
    problems = []
    if extent is not None and not (type(extent) is int and 1 <= extent <= MAX_EXTENT):
        text = f"{label}: expected the extent of the connectome from 1 to {MAX_EXTENT}, got {str(extent)[:40]}"
        problems.append(Problem(text, hint, "pass it with --connectome"))
    if n_syn_fill is not None and not (type(n_syn_fill) in (int, float) and 0 <= n_syn_fill < 1e6):
        text = f"{label}: expected n_syn_fill as a number of synapses, got {str(n_syn_fill)[:40]}"
        problems.append(Problem(text, hint, "pass it with --connectome"))
    if problems:
        raise EnsembleError(*problems)
    content, directory = None, model
    for _ in range(3):
        if name and name in tree.children(directory)[1]:
            content = read_file(tree, join(directory, name))
            break
        if not directory:
            break
        directory = dirname(directory)
    return ConnectomeConfig(name, content, extent, n_syn_fill)


def make_config(file: str, extent: int, n_syn_fill: float) -> dict[str, Any]:
    """Configuration of a model that flyvis 1.2 opens, with the distributions that parameters start from.

    Parameters
    ----------
    file
        Connectome: the name of one that flyvis distributes, or a path.
    extent
        Radius of the lattice, columns.
    n_syn_fill
        Number of synapses assumed in gaps of receptive fields.

    Examples
    --------
    >>> make_config("fib25-fib19_v2.2.json", 15, 1)["network"]["connectome"]["extent"]
    15
    """
    by_type, by_pair = ["type"], ["source_type", "target_type"]
    connectome = {
        "type": "ConnectomeFromAvgFilters",
        "file": file,
        "extent": extent,
        "n_syn_fill": n_syn_fill,
    }
    bias = {
        "type": "RestingPotential",
        "groupby": by_type,
        "initial_dist": "Normal",
        "mode": "sample",
        "requires_grad": True,
        "mean": 0.5,
        "std": 0.05,
        "penalize": {"activity": True},
        "seed": 0,
    }
    time_constant = {
        "type": "TimeConstant",
        "groupby": by_type,
        "initial_dist": "Value",
        "value": 0.05,
        "requires_grad": True,
    }
    sign = {"type": "SynapseSign", "initial_dist": "Value", "requires_grad": False, "groupby": by_pair}
    count = {
        "type": "SynapseCount",
        "initial_dist": "Lognormal",
        "mode": "mean",
        "requires_grad": False,
        "std": 1.0,
        "groupby": [*by_pair, "du", "dv"],
    }
    strength = {
        "type": "SynapseCountScaling",
        "initial_dist": "Value",
        "requires_grad": True,
        "scale": 0.01,
        "clamp": "non_negative",
        "groupby": by_pair,
    }
    network = {
        "connectome": connectome,
        "dynamics": {"type": _DYNAMICS, "activation": {"type": _ACTIVATION}},
        "node_config": {"bias": bias, "time_const": time_constant},
        "edge_config": {"sign": sign, "syn_count": count, "syn_strength": strength},
    }
    return {"type": "NetworkDir", "network": network}
