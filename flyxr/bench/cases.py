"""The cases of the benchmark: one row of the table each."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from flyxr.bench import limits, workload

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass(frozen=True)
class Case:
    """A task for both sides.

    ``peer`` overrides parts of the request for flyvis; it is None if flyvis has no counterpart. The seconds of flyvis
    are multiplied by ``peer_scale``, and ``peer_part`` says which part of the case it computes.
    """

    name: str
    title: str
    task: str
    request: dict[str, Any] = field(default_factory=dict)
    peer: dict[str, Any] | None = field(default_factory=dict)
    peer_scale: float = 1
    peer_part: str = "all"
    processes: int = 1
    limit: Callable[[dict[str, Any]], dict[str, float]] | None = None


def all_cases(size: workload.Size, store: str, device: str = "cpu") -> Iterator[Case]:
    """Cases of a benchmark; ``store`` is the path of the responses on disk. Some run on another device as well.

    Examples
    --------
    >>> [case.name for case in all_cases(workload.QUICK, "responses.zarr")][:3]
    ['import', 'compile', 'first_response']
    """
    for case in _cpu_cases(size, store):
        yield case
        if device != "cpu" and case.task in ("simulate", "step", "gradient"):
            request = {**case.request, "device": device}
            yield replace(
                case,
                name=f"{case.name} {device}",
                title=f"{case.title}, {device}",
                request=request,
                peer=None,
                limit=None,
            )


def _cpu_cases(size: workload.Size, store: str) -> Iterator[Case]:
    n = size.processes
    yield Case("import", "import", "import", processes=n)
    yield Case("compile", "compile the connectome at extent 15", "compile", peer={"fresh_root": True}, processes=n)
    yield Case("first_response", "start of the process to first response", "first_response", processes=n)
    for name, shape in size.movies.items():
        yield Case(
            f"render {name}",
            f"render {shape[0]} x {shape[1]} frames of {shape[2]} x {shape[3]}",
            "render",
            {"movie": name, "repeats": size.repeats},
            limit=partial(limits.rendering_limits, shape=shape),
        )
    for simulation in size.simulations:
        yield _simulation_case(simulation, size)
    sequences, frames = _count(workload.STEP_SAMPLES, "sequence"), _count(size.n_frames, "frame")
    title = f"step 1 model x {sequences} through {frames}, one at a time"
    yield Case("step", title, "step", {"n_samples": workload.STEP_SAMPLES, "repeats": size.step_repeats})
    for n_samples in size.gradients:
        title = f"gradient of 1 model x {_count(n_samples, 'sequence')}, {_n_steps(size)} steps"
        request = {"n_samples": n_samples, "repeats": size.repeats}
        yield Case(f"gradient {n_samples}", title, "gradient", request, peer=None)
    n_models, n_samples = size.stored
    title = f"read one of 65 cell types of {n_models} x {n_samples} stored"
    yield Case("read", title, "read", {"repeats": size.repeats, "store": store}, peer=None)
    yield from _analysis_cases(size)


def _analysis_cases(size: workload.Size) -> Iterator[Case]:
    """Measures and clusters of central responses on disk."""
    n_models, n_samples, n_frames = size.measured
    stored = f"{n_models} models x {n_samples} edges x {n_frames} frames"
    request = {"measured": size.measured, "repeats": size.repeats}
    for measure in ("direction_selectivity_index", "preferred_direction", "summary"):
        title = f"{measure} of {stored}"
        yield Case(f"measure {measure}", title, "measure", {**request, "measure": measure}, peer=None)
    title = f"cluster {n_models} models by {_count(size.clustered, 'cell type')}"
    yield Case("cluster", title, "cluster", {**request, "n_types": size.clustered, "repeats": 1}, peer=None)


def _simulation_case(simulation: workload.Simulation, size: workload.Size) -> Case:
    n_models, n_samples, n_steps = simulation.n_models, simulation.n_samples, _n_steps(size)
    part = f"{simulation.peer_models} x {simulation.peer_samples}" if simulation.peer_scale != 1 else "all"
    batch = f", {simulation.peer_batch} at a time" if simulation.peer_batch < simulation.peer_samples else ""
    return Case(
        f"simulate {n_models} x {n_samples}",
        f"simulate {_count(n_models, 'model')} x {_count(n_samples, 'sequence')}, {n_steps} steps",
        "simulate",
        {"n_models": n_models, "n_samples": n_samples, "repeats": size.repeats},
        peer={
            "n_models": simulation.peer_models,
            "n_samples": simulation.peer_samples,
            "batch": simulation.peer_batch,
        },
        peer_scale=simulation.peer_scale,
        peer_part=part + batch,
        limit=partial(
            limits.simulation_limits,
            n_models=n_models,
            n_samples=n_samples,
            n_steps=n_steps,
            n_frames=size.n_frames,
        ),
    )


def _n_steps(size: workload.Size) -> int:
    """Steps of the fade-in and the frames after it."""
    return round(1 / workload.DT) + size.n_frames


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number != 1 else ''}"
