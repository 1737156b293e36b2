"""Write the tables of a report, and the page of the documentation that contains them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

TEMPLATE = """\
# Benchmarks

`{command}` writes this page, where PYTHON is the interpreter of an
environment with flyvis. Anyone can repeat it. `--out FILE.json` saves all figures.

## What is compared

flyxr {flyxr} is compared with {peer}. Both get the same parameters ({models}) and the same stimuli (drifting
gratings, float32) as arrays, and run on the CPU with all cores. Each case of each side runs in a fresh process, and the
two sides take turns. Before repeats are timed, one model and one sequence, or one frame, are computed to warm up caches
and compile code. Python's files, and whatever a side keeps on disk between processes, are warm too.

- **import**: the import statement alone. flyxr imports its dependencies on first use, so the fairer comparison is
  *start of the process to first response*: from starting Python to the responses of one model to one sequence.
- **compile**: cells and edges of the connectome on the lattice. For flyvis this is `Network()` in an empty root folder.
  The first response of flyvis uses a folder in which the network is already compiled.
- **render**: movies in memory to 721 columns, with `BoxEye(15, 13)` and the mean of each box.
- **simulate**: a fade-in of 1 s and then 20 frames with a step of 10 ms, 120 steps in all. The 20 frames of all cells
  end up in memory. flyvis computes models one by one. It keeps all states of the fade-in, so sequences are computed in
  the batch size that was fastest. If the whole case would take flyvis minutes, only a part is timed and scaled up; the
  table says which.
- **step**: frame by frame, as in a closed loop, from rest: `fx.Stepper` on one side, and on the other the function of
  flyvis's network that computes the next state, with its parameters prepared once.
- **gradient**: responses of the central cells over the same 120 steps, and the gradient of their mean square with
  respect to all parameters. flyvis is not timed.
- **read**: open responses on disk as written by `fx.save`, and select one cell type. flyvis has no counterpart.
- **measure**: open responses of central cells to moving edges on disk, and compute a measure of `fx.tuning`. flyvis is
  not timed.
- **cluster**: open the same responses and cluster the models by cell types with `fx.cluster`, including the import and
  the compilation of UMAP. flyvis is not timed.

Peak memory is the largest resident set of the process, including imports (for flyvis, while computing the part that was
timed). The ratio is the best time of flyvis over the best time of flyxr. The difference is the largest absolute
difference on the part that both computed: over all columns for renderings; for responses over the central cell of each
type in all frames and over all cells in the last frame.

## Figures

{machine}

{table}
{notes}
## Comparison with the hardware limits

Measured on the same machine in the same run: copying {copy} in memory with all cores moves **{bandwidth}** (read
plus write), and multiplying float32 matrices reaches **{flops}** (a multiply-add counts as two operations).

A step of one model and one sequence takes {n_edges:,} multiply-adds, one per edge. The responses of a recorded frame
are 65 x 721 float32 numbers, 187 kB. How much more data a step must move depends on how the weights are stored:

- As a sparse matrix (CSR) of int32 indices and float32 weights, with 8 bytes per edge and 4 per row, each step of a
  model reads 12.3 MB, for any number of sequences.
- As a stencil over the lattice, a model has {n_synapses:,} weights, 9.4 kB, and the state of a sequence is 183 kB.
  Both stay in the caches.

With *S* steps, *F* recorded frames, *M* models and *N* sequences, the minimum times are:

    operations    = 2 x {n_edges:,} x S x N x M / (operations per second)
    output        = 187,460 bytes x F x N x M / bandwidth
    matrix        = 12.3 MB x S x M / bandwidth
    least         = max(operations, output)               for any implementation
    least as CSR  = max(operations, matrix + output)      for one that reads the matrix from memory

{limits}

*torch CSR* is the time that torch's products of an int32 CSR matrix with the states would take for these steps.
Measured on their own, they take
{csr}.

*reached* is the least time over the best time of flyxr. A stencil cannot reach the peak rate of a matrix product: it
loads a value for each multiply-add, where a matrix product uses each value many times. If a cache holds the whole
matrix, CSR can be faster than its limit from memory.

The limit of rendering is the time to read the frames once:

{rendering_limits}

## Gradients

`flyxr.engine.sparse.respond` with the gradient with respect to all parameters, compared with the responses alone. The
calls take turns in one process, by the stencil, as `respond` and `fx.simulate` use it on the CPU, and by sparse
products, as on a GPU. *checkpointed* stores every tenth state and recomputes the others.

{gradients}

## Measures and clusters

The calls take turns with reading all responses, in one process. *read* is the time to open and read them once.

{analyses}
"""


def table(report: dict[str, Any]) -> str:
    """Table of all cases in Markdown, aligned for reading as plain text.

    Examples
    --------
    >>> side = {"best": 0.5, "median": 0.6, "peak_memory": 2e8, "measured": "all"}
    >>> print(table({"versions": {"flyxr": {}}, "cases": [{"title": "import", "flyxr": side}]}))
    | case   | flyxr best | median | memory |
    | :----- | ---------: | -----: | -----: |
    | import |     500 ms | 600 ms | 200 MB |
    """
    peer = "flyvis" in report["versions"]
    rows = [["case", "flyxr best", "median", "memory"]]
    if peer:
        rows[0] += ["flyvis best", "median", "memory", "timed", "ratio", "difference"]
    for case in report["cases"]:
        rows.append([case["title"], *_figures(case["flyxr"])])
        if not peer:
            continue
        other = case["flyvis"]
        if other is None or "error" in other:
            rows[-1] += ["none" if other is None else "failed", *["–"] * 5]
            continue
        part = other["measured"] if other["measured"] == "all" else f"{other['measured']}; x {other['scaled_by']:.4g}"
        difference = f"{case['difference']:.1e}" if "difference" in case else "–"
        rows[-1] += [*_figures(other), part, f"{case['ratio']:.3g}", difference]
    return _markdown(rows)


def text(report: dict[str, Any]) -> str:
    """The whole page of the documentation in Markdown."""
    hardware, versions = report["hardware"], report["versions"]
    peer = versions.get("flyvis")
    failed = [
        f"flyvis failed at *{case['title']}*: {case['flyvis']['error'].splitlines()[-1]}"
        for case in report["cases"]
        if "error" in (case.get("flyvis") or {})
    ]
    quick = ["These figures are for small cases (`--quick`) and compare nothing."] if report["size"] == "quick" else []
    simulations = [case for case in report["cases"] if "csr_products" in case.get("limit", {})]
    renderings = [case for case in report["cases"] if "bytes" in case.get("limit", {})]
    limits = [["case", "operations", "output", "least", "least as CSR", "torch CSR", "flyxr", "reached"]]
    for case in simulations:
        limit, best = case["limit"], case["flyxr"]["best"]
        seconds = [limit[name] for name in ("operations_s", "output_s", "least", "least_csr", "csr_products")]
        limits.append([case["name"], *map(_seconds, seconds), _seconds(best), f"{limit['least'] / best:.1%}"])
    rendering_limits = [["case", "bytes", "least", "flyxr", "reached"]]
    for case in renderings:
        limit, best = case["limit"], case["flyxr"]["best"]
        rendering_limits.append(
            [
                case["name"],
                _size(limit["bytes"]),
                _seconds(limit["least"]),
                _seconds(best),
                f"{limit['least'] / best:.1%}",
            ]
        )
    gradients = [["case", "gradient", "checkpointed", "forward", "ratio", "sparse forward", "ratio"]]
    for case in report["cases"]:
        if "forward" in case["flyxr"]:
            side = case["flyxr"]
            names = ("best", "checkpointed", "forward")
            gradients.append([case["name"], *(_seconds(side[name]) for name in names)])
            gradients[-1] += [f"{side['best'] / side['forward']:.2f}", _seconds(side["forward_products"])]
            gradients[-1].append(f"{side['best'] / side['forward_products']:.2f}")
    analyses = [["case", "best", "read", "ratio"]]
    for case in report["cases"]:
        if "read" in case["flyxr"]:
            side = case["flyxr"]
            ratio = f"{side['best'] / side['read']:.2f}"
            analyses.append([case["title"], _seconds(side["best"]), _seconds(side["read"]), ratio])
    csr = ", ".join(f"{_seconds(seconds)} per step for {count}" for count, seconds in hardware["csr_step"].items())
    return TEMPLATE.format(
        command="flyxr bench --peer PYTHON --page docs/benchmarks.md",
        flyxr=versions["flyxr"].get("flyxr", ""),
        peer=f"flyvis {peer['flyvis']}" if peer else "nothing, since no peer was given",
        models=report["models"],
        machine=_machine(report),
        table=table(report),
        notes="\n".join(["", *quick, *failed, ""]) if quick or failed else "",
        copy=_size(hardware["copy_bytes"]),
        bandwidth=f"{hardware['bandwidth'] / 1e9:.3g} GB/s",
        flops=f"{hardware['flops'] / 1e9:.3g} GFLOP/s",
        n_edges=hardware["n_edges"],
        n_synapses=hardware["n_synapses"],
        limits=_markdown(limits),
        csr=f"{csr} sequences",
        rendering_limits=_markdown(rendering_limits),
        gradients=_markdown(gradients),
        analyses=_markdown(analyses),
    )


def _machine(report: dict[str, Any]) -> str:
    machine = report["machine"]
    memory = _size(machine["memory"]) if machine["memory"] else "unknown"
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores ({report['hardware']['threads']} torch threads), "
        f"{memory} of memory, {machine['system']}; {report['date']}."
    ]
    for side, versions in report["versions"].items():
        packages = ", ".join(f"{name} {version}" for name, version in versions.items() if name != side)
        lines.append(f"{side} {versions.get(side, '')}: {packages}.")
    load = report["load_average"]
    if load["start"] is not None:
        start, end = (", ".join(f"{value:.2f}" for value in load[when]) for when in ("start", "end"))
        lines.append(f"Load average over 1, 5 and 15 minutes: {start} at the start, {end} at the end.")
    shares = [f"{share:.0%} while {side} ran" for side, share in report["taken_by_others"].items() if share is not None]
    if shares:
        lines.append(f"Share of the cores used by other programs: {', '.join(shares)}.")
    return "  \n".join(lines)


def _figures(side: dict[str, Any]) -> list[str]:
    return [_seconds(side["best"]), _seconds(side["median"]), _size(side["peak_memory"])]


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "| " + " | ".join(f"{cell:{'<' if i == 0 else '>'}{widths[i]}}" for i, cell in enumerate(row)) + " |"
        for row in rows
    ]
    rule = [f":{'-' * (widths[0] - 1)}", *[f"{'-' * (width - 1)}:" for width in widths[1:]]]
    return "\n".join([lines[0], "| " + " | ".join(rule) + " |", *lines[1:]])


def _seconds(value: float) -> str:
    if math.isnan(value):
        return "–"
    if value < 1e-3:
        return f"{1e6 * value:.3g} µs"
    return f"{1e3 * value:.3g} ms" if value < 0.9995 else f"{value:.3g} s" if value < 999.5 else f"{value:.0f} s"


def _size(n_bytes: float) -> str:
    return f"{n_bytes / 1e6:.3g} MB" if n_bytes < 999.5e6 else f"{n_bytes / 1e9:.3g} GB"
