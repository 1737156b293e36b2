"""Tables of a report, and the page of the documentation around them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

_PAGE = """\
# Benchmarks

This page is written by `{command}`, where PYTHON is that of an
environment with flyvis; anyone can repeat it. `--out FILE.json` keeps all figures.

## What is compared

flyxr {flyxr} with {peer}: the same parameters ({models}) and the same stimuli (drifting gratings,
float32), given to both as arrays, on the CPU with all cores. Each case of each side runs in a fresh process, flyxr and
flyvis in turn. Before repeats are timed, one model and one sequence, or one frame, are computed, which warms caches and
compiles code. Python's files, and what a side keeps on disk between processes, are warm too.

- **import**: the statement alone. flyxr loads what it needs when it is needed, so *start of the process to first
  response*, from starting Python to the responses of one model to one sequence, is the fairer comparison.
- **compile**: cells and edges of the connectome on the lattice; for flyvis `Network()` in an empty root folder. The
  first response of flyvis uses a folder in which that has been done.
- **render**: movies in memory to 721 columns, `BoxEye(15, 13)`, mean.
- **simulate**: a fade-in of 1 s and then 20 frames with a step of 10 ms, that is 120 steps; the 20 frames of all cells
  end up in memory. flyvis computes its models one by one and, since it keeps all states of the fade-in, sequences in
  the batches that it was fastest with. Where the whole case would take it minutes, a part is timed and scaled up; the
  table says which.
- **gradient**: responses of the central cells over the same 120 steps, and the gradient of their mean square in all
  parameters; flyvis is not timed.
- **read**: responses on disk as `fx.save` writes them, opened and selected; flyvis has nothing alike.

Peak memory is the largest resident set of the process, imports included (of flyvis for the part that was timed). The
ratio is that of the best times, flyvis over flyxr. The difference is the largest absolute one: of all columns for
renderings; for responses of the central cell of each type in all frames and of all cells in the last one, on the part
that both computed.

## Figures

{machine}

{table}
{notes}
## How near to the physical limit

Measured on the same machine in the same run: a copy of {copy} in memory by all cores moves **{bandwidth}** (read
plus written), and a product of float32 matrices makes **{flops}** (a multiply-add counts as two).

A step of one model and one sequence is {n_edges:,} multiply-adds, one an edge. The responses of a recorded frame are
65 x 721 float32 numbers, 187 kB. What else a step must move depends on how the weights are kept:

- as a sparse matrix (CSR) of int32 indices and float32 weights, 8 byte an edge and 4 a row, 12.3 MB are read at each
  step of a model, whatever the number of sequences;
- as a stencil over the lattice, a model has {n_synapses:,} weights, 9.4 kB, and the state of a sequence is 183 kB:
  both stay in the caches.

So, with *S* steps, *F* recorded frames, *M* models and *N* sequences:

    operations    = 2 x {n_edges:,} x S x N x M / (operations a second)
    output        = 187,460 byte x F x N x M / bandwidth
    matrix        = 12.3 MB x S x M / bandwidth
    least         = max(operations, output)               no implementation can be faster
    least as CSR  = max(operations, matrix + output)      none that reads the matrix from memory can

{limits}

*torch CSR* is what the bare products of torch's int32 CSR matrix with the states would take for these steps; measured
on their own they take
{csr}.
*reached* is the least over the best time of flyxr. The peak of a matrix product is out of reach for a stencil, which
loads a value for each multiply-add where a matrix product uses each many times. A cache that holds the whole matrix
lets CSR go below its limit from memory.

For rendering, the limit is that of reading the frames once:

{rendering_limits}

## Forward and back

`flyxr.engine.sparse.respond` and the gradient in all parameters, as a multiple of the responses alone, in turns in one
process: by the stencil, as `respond` and `fx.simulate` compute them on the CPU, and by sparse products, as on a GPU.
*checkpointed* keeps every tenth state, and integrates again from there.

{gradients}
"""


def table(report: dict[str, Any]) -> str:
    """Table of all cases, in Markdown that is aligned for reading as it is.

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
    """The whole page."""
    hardware, versions = report["hardware"], report["versions"]
    peer = versions.get("flyvis")
    failed = [
        f"flyvis failed at *{case['title']}*: {case['flyvis']['error'].splitlines()[-1]}"
        for case in report["cases"]
        if "error" in (case.get("flyvis") or {})
    ]
    quick = ["Of small cases (`--quick`): these figures compare nothing."] if report["size"] == "quick" else []
    simulations = [case for case in report["cases"] if "csr_products" in case.get("limit", {})]
    renderings = [case for case in report["cases"] if "bytes" in case.get("limit", {})]
    limits = [["case", "operations", "output", "least", "least as CSR", "torch CSR", "flyxr", "reached"]]
    for case in simulations:
        limit, best = case["limit"], case["flyxr"]["best"]
        of_parts = [limit[name] for name in ("operations_s", "output_s", "least", "least_csr", "csr_products")]
        limits.append([case["name"], *map(_seconds, of_parts), _seconds(best), f"{limit['least'] / best:.1%}"])
    of_bytes = [["case", "bytes", "least", "flyxr", "reached"]]
    for case in renderings:
        limit, best = case["limit"], case["flyxr"]["best"]
        of_bytes.append(
            [
                case["name"],
                _size(limit["bytes"]),
                _seconds(limit["least"]),
                _seconds(best),
                f"{limit['least'] / best:.1%}",
            ]
        )
    of_gradients = [["case", "and back", "checkpointed", "forward", "ratio", "sparse forward", "ratio"]]
    for case in report["cases"]:
        if "forward" in case["flyxr"]:
            side = case["flyxr"]
            names = ("best", "checkpointed", "forward")
            of_gradients.append([case["name"], *(_seconds(side[name]) for name in names)])
            of_gradients[-1] += [f"{side['best'] / side['forward']:.2f}", _seconds(side["forward_products"])]
            of_gradients[-1].append(f"{side['best'] / side['forward_products']:.2f}")
    csr = ", ".join(f"{_seconds(taken)} a step for {count}" for count, taken in hardware["csr_step"].items())
    return _PAGE.format(
        command="flyxr bench --peer PYTHON --page docs/benchmarks.md",
        flyxr=versions["flyxr"].get("flyxr", ""),
        peer=f"flyvis {peer['flyvis']}" if peer else "nothing: no peer was given",
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
        rendering_limits=_markdown(of_bytes),
        gradients=_markdown(of_gradients),
    )


def _machine(report: dict[str, Any]) -> str:
    machine = report["machine"]
    memory = _size(machine["memory"]) if machine["memory"] else "unknown"
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores ({report['hardware']['threads']} threads of torch), "
        f"{memory} of memory, {machine['system']}; {report['date']}."
    ]
    for side, versions in report["versions"].items():
        named = ", ".join(f"{name} {version}" for name, version in versions.items() if name != side)
        lines.append(f"{side} {versions.get(side, '')}: {named}.")
    load = report["load_average"]
    if load["start"] is not None:
        start, end = (", ".join(f"{value:.2f}" for value in load[when]) for when in ("start", "end"))
        lines.append(f"Load average over 1, 5 and 15 minutes: {start} at the start, {end} at the end.")
    taken = [f"{share:.0%} while {side} ran" for side, share in report["taken_by_others"].items() if share is not None]
    if taken:
        lines.append(f"Other programs took of the cores: {', '.join(taken)}.")
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
