"""Time one case of the benchmark in a process of its own: ``python worker.py REQUEST.json``.

The file does not import flyxr at the top, because the Python with flyvis runs it too. The tasks import what they time,
and the same code measures both sides.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

Timing = tuple[list[float], dict[str, Any]]
"""Seconds of the repeats, and functions that return the arrays to compare."""

T_FADE_IN = 1.0
READ_CELL_TYPE = "T4c"
_torch_libraries: list[Any] = []
"""References that keep registered operators alive."""


def main(path: str) -> None:
    """Read a request from a file, and write the answer to the file that it names."""
    request = json.loads(Path(path).read_text())
    Path(request["answer"]).write_text(json.dumps(answer(request)))


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Run the task of a request.

    Parameters
    ----------
    request
        ``side`` (``"flyxr"`` or ``"flyvis"``) and ``task``; ``inputs`` and ``results``, paths of npz files;
        ``spawned``, the start time of the process; ``repeats``; and the arguments of the task.

    Returns
    -------
    dict
        Results of the task, usually ``seconds`` of the repeats and ``peak_memory`` of the process, bytes.
    """
    task = TASKS[request["side"], request["task"]]
    result = task(request)
    if isinstance(result, dict):
        return result | ({"peak_memory": peak_memory()} if "seconds" in result else {})
    seconds, arrays = result
    peak = peak_memory()
    if arrays:
        np = importlib.import_module("numpy")
        np.savez(request["results"], **{name: values() for name, values in arrays.items()})
    return {"seconds": seconds, "peak_memory": peak}


def peak_memory() -> int:
    """Largest resident set of this process so far, bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # unlike ru_maxrss, it is not inherited from the parent process
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return 1024 * int(line.split()[1])
    import resource

    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else 1024 * largest


def _inputs(request: dict[str, Any]) -> dict[str, Any]:
    np = importlib.import_module("numpy")
    with np.load(request["inputs"]) as arrays:
        return dict(arrays)


def _timed(call: Callable[[], Any], repeats: int) -> tuple[list[float], Any]:
    """Seconds of each repeat, and the last result; only one result is in memory at a time."""
    seconds, result = [], None
    for _ in range(repeats):
        result = None
        start = time.perf_counter()
        result = call()
        seconds.append(time.perf_counter() - start)
    return seconds, result


def _versions(names: list[str]) -> dict[str, str]:
    from importlib import metadata

    versions = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


# ------------------------------------------------------------------------------------------------------------ flyxr


def flyxr_about(request: dict[str, Any]) -> dict[str, Any]:
    """Versions."""
    return {"versions": _versions(["flyxr", "torch", "numpy", "numba", "dask", "xarray", "zarr"])}


def flyxr_import(request: dict[str, Any]) -> Timing:
    """Import the package."""
    return _timed(lambda: importlib.import_module("flyxr"), 1)[0], {}


def flyxr_compile(request: dict[str, Any]) -> Timing:
    """Compile the connectome on the lattice."""
    from flyxr.connectome import compile_network, open_connectome

    return _timed(lambda: compile_network(open_connectome(extent=15)), 1)[0], {}


def flyxr_first_response(request: dict[str, Any]) -> Timing:
    """Time from the start of the process to the responses of one model to one sequence."""
    from flyxr.simulation import simulate

    rendering, ensemble = _labelled(_inputs(request), 1, 1)
    simulate(rendering, ensemble).compute()
    return [time.time() - request["spawned"]], {}


def flyxr_render(request: dict[str, Any]) -> Timing:
    """Render frames onto columns."""
    from flyxr.eye import BoxEye
    from flyxr.stimuli import from_array

    movie = from_array(_inputs(request)[request["movie"]], frame_rate=25)
    eye = BoxEye(extent=15, kernel_size=13)
    eye.render(movie.isel(time=slice(1)))
    seconds, rendering = _timed(lambda: eye.render(movie), request["repeats"])
    return seconds, {"columns": lambda: rendering["luminance"].values}


def flyxr_simulate(request: dict[str, Any]) -> Timing:
    """Simulate the responses of all cells, in memory."""
    from flyxr.selection import central, to_neurons
    from flyxr.simulation import simulate

    rendering, ensemble = _labelled(_inputs(request), request["n_models"], request["n_samples"])
    device = request.get("device", "cpu")
    simulate(rendering.isel(sample=[0]), ensemble.isel(model=[0]), device=device).compute()
    seconds, responses = _timed(lambda: simulate(rendering, ensemble, device=device).compute(), request["repeats"])
    response = responses["response"]
    return seconds, {
        "central": lambda: central(response).values,
        "last": lambda: to_neurons(response.isel(time=-1)).values,
    }


def flyxr_step(request: dict[str, Any]) -> Timing:
    """Simulate frame by frame, from rest; responses of the central cells."""
    import numpy as np

    from flyxr.simulation import Stepper

    inputs, n_samples = _inputs(request), request["n_samples"]
    rendering, ensemble = _labelled(inputs, 1, n_samples)
    frames = np.ascontiguousarray(rendering["luminance"].values.swapaxes(0, 1))
    options = {"n_samples": n_samples, "device": request.get("device", "cpu")}
    stepper = Stepper(ensemble, float(inputs["dt"]), initial_state="rest", **options)

    def run() -> list[Any]:
        stepper.reset()
        return [stepper.step(frame) for frame in frames]

    run()
    seconds, responses = _timed(run, request["repeats"])
    return seconds, {"central": lambda: np.stack(responses, axis=2)[..., 0]}


def flyxr_gradient(request: dict[str, Any]) -> dict[str, Any]:
    """Compute responses with gradients, in turn with responses alone, by the stencil and by sparse products."""
    import numpy as np
    import torch

    from flyxr.connectome import compile_network, open_connectome
    from flyxr.engine import base, sparse, stencil

    inputs, network = _inputs(request), compile_network(open_connectome(extent=15))
    names = ("bias", "time_constant", "synapse_strength")
    parameters = base.Parameters(*(inputs[name][:1] for name in names))
    luminance, dt = inputs["luminance"][: request["n_samples"]], float(inputs["dt"])
    stimulus = np.concatenate([base.fade_in(luminance[:, 0], dt), luminance], axis=1)
    central = np.flatnonzero((network.u[network.column] == 0) & (network.v[network.column] == 0))

    device = request.get("device", "cpu")

    def forward(engine: Any, device: str = "cpu") -> None:
        engine.integrate(network, parameters, stimulus, dt, cells=central, device=device)

    def forward_and_backward(checkpoint: int) -> None:
        tensors = sparse.TorchParameters(
            *(torch.tensor(values, requires_grad=True, device=device) for values in parameters)
        )
        tensor = torch.from_numpy(stimulus).to(device)
        result = sparse.respond(network, tensors, tensor, dt, cells=central, checkpoint=checkpoint)
        result.responses.square().mean().backward()  # type: ignore[no-untyped-call]
        if tensors.bias.grad is not None:
            tensors.bias.grad.cpu()  # waits for a GPU

    calls: dict[str, Callable[[], None]] = {
        "seconds": lambda: forward_and_backward(1),
        "checkpointed": lambda: forward_and_backward(10),
        "forward": lambda: forward(stencil),
        "forward_products": lambda: forward(sparse, device),
    }
    return _take_turns(calls, request["repeats"])


def flyxr_store(request: dict[str, Any]) -> dict[str, Any]:
    """Write responses to a store, untimed."""
    from flyxr.simulation import simulate
    from flyxr.store import save

    save(simulate(*_labelled(_inputs(request), request["n_models"], request["n_samples"])), request["store"])
    return {}


def flyxr_read(request: dict[str, Any]) -> Timing:
    """Read one cell type of the responses on disk."""
    from flyxr import store

    def read() -> Any:
        return store.open(request["store"])["response"].sel(cell_type=READ_CELL_TYPE).load()

    read()
    return _timed(read, request["repeats"])[0], {}


def flyxr_measure(request: dict[str, Any]) -> dict[str, Any]:
    """Open responses and compute a measure, in turn with opening and reading them."""
    from flyxr import store, tuning

    measure = getattr(tuning, request["measure"])
    with tempfile.TemporaryDirectory() as folder:
        path = _write_central(folder, request["measured"])
        calls: dict[str, Callable[[], Any]] = {
            "seconds": lambda: measure(store.open(path)).compute(),
            "read": lambda: store.open(path)["response"].load(),
        }
        return _take_turns(calls, request["repeats"])


def flyxr_cluster(request: dict[str, Any]) -> dict[str, Any]:
    """Open responses and cluster models, with the import and compilation of UMAP, and read the responses."""
    from flyxr import clustering, store

    def cluster(path: Path) -> None:
        responses = store.open(path)
        clustering.cluster(responses, responses["cell_type"].values[: request["n_types"]])

    with tempfile.TemporaryDirectory() as folder:
        path = _write_central(folder, request["measured"])
        calls: dict[str, Callable[[], Any]] = {
            "read": lambda: store.open(path)["response"].load(),
            "seconds": lambda: cluster(path),
        }
        return _take_turns(calls, request["repeats"], warm_up=("read",))


def _take_turns(
    calls: dict[str, Callable[[], Any]], repeats: int, warm_up: Iterable[str] | None = None
) -> dict[str, Any]:
    """Seconds of each repeat of each call; all are called once before, or those to warm up."""
    for name in calls if warm_up is None else warm_up:
        calls[name]()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            seconds[name] += _timed(call, 1)[0]
    return seconds


def _write_central(folder: str, shape: Sequence[int]) -> Path:
    """Write random responses of central cells to edges in 12 directions, one block per model as a sweep does."""
    import numpy as np
    import xarray as xr

    from flyxr import schema, store
    from flyxr.connectome import open_connectome

    n_models, n_samples, n_frames = shape
    cell_type = open_connectome(extent=1)["cell_type"].values
    n_angles = min(n_samples, 12)
    sample, rng = np.arange(n_samples), np.random.default_rng(0)
    # Slow fluctuations around five courses, so that models form groups.
    values = rng.normal(size=(5, n_samples, n_frames, cell_type.size)).astype(np.float32)[np.arange(n_models) % 5]
    for model in values:
        model += rng.normal(size=model.shape).astype(np.float32)
    np.cumsum(values, axis=2, out=values)
    dataset = xr.Dataset(
        {"response": (("model", "sample", "time", "cell_type", "column"), values[..., None])},
        {
            "model": np.arange(n_models),
            "task_error": ("model", rng.uniform(size=n_models)),
            "sample": sample,
            "time": schema.time_coord(n_frames, 0.01),
            "cell_type": cell_type,
            **{name: ("column", [0]) for name in ("column", "u", "v")},
            "angle": ("sample", sample % n_angles * 360 / n_angles),
            "intensity": ("sample", (sample // n_angles % 2).astype(float)),
            "speed": ("sample", 10.0 + sample // (2 * n_angles)),
            "t_stim": ("sample", np.full(n_samples, n_frames / 200)),
        },
    )
    dataset["response"] = dataset["response"].copy(data=dataset["response"].variable.chunk(model=1).data)
    return store.save(dataset, Path(folder, "central.zarr"))


def _labelled(inputs: dict[str, Any], n_models: int, n_samples: int) -> tuple[Any, Any]:
    """Rendering and ensemble from the inputs."""
    import xarray as xr

    from flyxr import hexgrid, schema
    from flyxr.ensemble import sample_ensemble

    luminance = inputs["luminance"][:n_samples]
    rendering = xr.Dataset(
        {"luminance": (("sample", "time", "column"), luminance)},
        coords={
            "sample": list(range(n_samples)),
            "time": schema.time_coord(luminance.shape[1], float(inputs["dt"])),
            **hexgrid.column_coords(15),
        },
    )
    ensemble = sample_ensemble(n_models, seed=0)
    for name in ("bias", "time_constant", "synapse_strength"):
        ensemble[name] = ensemble[name].copy(data=inputs[name][:n_models])
    return schema.annotate(rendering, "rendering"), ensemble


def machine(request: dict[str, Any]) -> dict[str, Any]:
    """Measure memory bandwidth, floating-point operations per second, and products with the sparse matrix."""
    import warnings

    import numpy as np
    import torch

    from flyxr.connectome import compile_network, open_connectome

    def best(call: Callable[[], Any], repeats: int = 5) -> float:
        call()
        return min(_timed(call, repeats)[0])

    source = torch.ones(request["copy_bytes"] // 4)
    target = torch.empty_like(source)
    bandwidth = 2 * 4 * source.numel() / best(lambda: target.copy_(source))
    size = request["matmul_size"]
    a, b, out = torch.ones((size, size)), torch.ones((size, size)), torch.empty((size, size))
    flops = 2 * size**3 / best(lambda: torch.mm(a, b, out=out))

    network = compile_network(open_connectome(extent=15))
    order = np.lexsort((network.source, network.target))
    first = np.zeros(network.n_cells + 1, dtype=np.int32)
    np.cumsum(np.bincount(network.target, minlength=network.n_cells), out=first[1:])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls its CSR format a beta
        matrix = torch.sparse_csr_tensor(
            torch.from_numpy(first),
            torch.from_numpy(network.source[order].astype(np.int32)),
            torch.from_numpy(network.signed_synapses[order]),
            (network.n_cells, network.n_cells),
        )
    products = {}
    for n_samples in request["csr_samples"]:
        states = torch.ones((network.n_cells, n_samples))
        product = torch.empty_like(states)
        call = functools.partial(torch.addmm, product, matrix, states, beta=0, out=product)
        products[str(n_samples)] = best(call, repeats=50)  # many, since each is short and easily disturbed
    return {
        "bandwidth": bandwidth,
        "flops": flops,
        "csr_step": products,
        "n_edges": network.source.size,
        "n_cells": network.n_cells,
        "n_synapses": network.synapses.size,
        "threads": torch.get_num_threads(),
    }


# ----------------------------------------------------------------------------------------------------------- flyvis


def _flyvis(request: dict[str, Any]) -> Any:
    """Import flyvis, if necessary with a torchvision whose compiled operators do not match torch.

    flyvis uses only torchvision's resizing of frames, which is written in Python. Importing torchvision fails, however,
    if the operators that it describes are not registered.
    """
    if request.get("define_operators"):
        torch = importlib.import_module("torch")
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _torch_libraries.append(library)
    module = importlib.import_module("flyvis")
    importlib.import_module("logging").getLogger().setLevel("ERROR")
    return module


def flyvis_about(request: dict[str, Any]) -> dict[str, Any]:
    """Versions, after importing flyvis and compiling its connectome into the root folder."""
    _flyvis(request).Network()
    return {"versions": _versions(["flyvis", "torch", "torchvision", "numpy"])}


def flyvis_import(request: dict[str, Any]) -> Timing:
    """Import the package."""
    return _timed(lambda: _flyvis(request), 1)[0], {}


def flyvis_compile(request: dict[str, Any]) -> Timing:
    """Build the network in an empty root folder."""
    flyvis = _flyvis(request)
    root = Path(os.environ["FLYVIS_ROOT_DIR"])
    assert not any(root.rglob("*")), f"expected an empty root folder, got {root}"
    return _timed(flyvis.Network, 1)[0], {}


def flyvis_first_response(request: dict[str, Any]) -> Timing:
    """Time from the start of the process to the responses of one model to one sequence."""
    flyvis = _flyvis(request)
    _responses(flyvis.Network(), _inputs(request), 1, 1, 1)
    return [time.time() - request["spawned"]], {}


def flyvis_render(request: dict[str, Any]) -> Timing:
    """Render frames onto columns."""
    _flyvis(request)
    torch = importlib.import_module("torch")
    eye = importlib.import_module("flyvis.datasets.rendering").BoxEye(15, 13)
    movie = torch.from_numpy(_inputs(request)[request["movie"]])
    eye(movie[:, :1])
    seconds, columns = _timed(lambda: eye(movie), request["repeats"])
    return seconds, {"columns": lambda: columns[:, :, 0].numpy()}


def flyvis_simulate(request: dict[str, Any]) -> Timing:
    """Simulate the responses of all cells, in memory."""
    np = importlib.import_module("numpy")
    network, inputs = _flyvis(request).Network(), _inputs(request)
    _responses(network, inputs, 1, 1, 1)
    n_models, n_samples, batch = request["n_models"], request["n_samples"], request["batch"]
    seconds, responses = _timed(lambda: _responses(network, inputs, n_models, n_samples, batch), request["repeats"])
    central = network.connectome.central_cells_index[:]
    return seconds, {
        "central": lambda: np.stack([np.concatenate([part[:, :, central] for part in model]) for model in responses]),
        "last": lambda: np.stack([np.concatenate([part[:, -1] for part in model]) for model in responses]),
    }


def flyvis_step(request: dict[str, Any]) -> Timing:
    """Simulate frame by frame, from rest, by the function of the network that computes its next state."""
    np, torch = importlib.import_module("numpy"), importlib.import_module("torch")
    network, inputs, n_samples = _flyvis(request).Network(), _inputs(request), request["n_samples"]
    _set_parameters(network, inputs, 0)
    frames, dt = torch.from_numpy(inputs["luminance"][:n_samples]).swapaxes(0, 1), float(inputs["dt"])
    nodes = network.connectome.nodes
    input_types = [cell_type.decode() for cell_type in network.connectome.input_cell_types[:]]
    input_cells = np.array([nodes.layer_index[cell_type][:] for cell_type in input_types])
    central = network.connectome.central_cells_index[:]
    stimulus = torch.zeros((n_samples, len(nodes.type)))

    def run() -> list[Any]:
        responses = []
        with torch.no_grad():
            parameters = network._param_api()
            state = network._initial_state(parameters, n_samples)
            for frame in frames:
                stimulus[:, input_cells] = frame[:, None]
                state = network._next_state(parameters, state, stimulus, dt)
                responses.append(state.nodes.activity[:, central].numpy())
        return responses

    run()
    seconds, responses = _timed(run, request["repeats"])
    return seconds, {"central": lambda: np.stack(responses, axis=1)[None]}


def _set_parameters(network: Any, inputs: dict[str, Any], model: int) -> None:
    torch = importlib.import_module("torch")
    with torch.no_grad():
        network.nodes_bias.data[:] = torch.from_numpy(inputs["bias"][model])
        network.nodes_time_const.data[:] = torch.from_numpy(inputs["time_constant"][model])
        network.edges_syn_strength.data[:] = torch.from_numpy(inputs["synapse_strength"][model])


def _responses(network: Any, inputs: dict[str, Any], n_models: int, n_samples: int, batch: int) -> list[list[Any]]:
    """Responses (sample, frame, cell) of each batch of samples, for each model."""
    torch = importlib.import_module("torch")
    movie, dt = torch.from_numpy(inputs["luminance"][:n_samples, :, None]), float(inputs["dt"])
    responses = []
    for model in range(n_models):
        _set_parameters(network, inputs, model)
        batches = []
        for part in torch.split(movie, batch):
            state = network.fade_in_state(T_FADE_IN, dt, part[:, 0])
            batches.append(network.simulate(part, dt, initial_state=state).numpy())
        responses.append(batches)
    return responses


TASKS: dict[tuple[str, str], Callable[[dict[str, Any]], Any]] = {
    ("flyxr", "about"): flyxr_about,
    ("flyxr", "import"): flyxr_import,
    ("flyxr", "compile"): flyxr_compile,
    ("flyxr", "first_response"): flyxr_first_response,
    ("flyxr", "render"): flyxr_render,
    ("flyxr", "simulate"): flyxr_simulate,
    ("flyxr", "step"): flyxr_step,
    ("flyxr", "gradient"): flyxr_gradient,
    ("flyxr", "store"): flyxr_store,
    ("flyxr", "read"): flyxr_read,
    ("flyxr", "measure"): flyxr_measure,
    ("flyxr", "cluster"): flyxr_cluster,
    ("flyxr", "machine"): machine,
    ("flyvis", "about"): flyvis_about,
    ("flyvis", "import"): flyvis_import,
    ("flyvis", "compile"): flyvis_compile,
    ("flyvis", "first_response"): flyvis_first_response,
    ("flyvis", "render"): flyvis_render,
    ("flyvis", "simulate"): flyvis_simulate,
    ("flyvis", "step"): flyvis_step,
}


if __name__ == "__main__":
    sys.path.pop(0)  # the folder of this file, whose files would hide modules of the same names
    main(sys.argv[1])
