"""Run notebooks and store their outputs: ``python notebooks/make.py [01 05 ...]``.

A notebook runs from top to bottom in a new kernel, in an empty folder, without a network, and with an empty cache
folder, so that it takes the ensemble that flyxr ships. What differs from run to run is removed. Each code cell keeps a
hash of its source, by which a test finds cells that were edited and not run again. A cell has the tag ``varies`` if its
text differs between machines or runs, such as times, ports, clusters of UMAP, and results of long optimisations.

``python notebooks/make.py --cache ~/.cache --out FOLDER`` takes another cache folder, where the published models may
be, and writes to another folder. Outputs of published models are never stored in the repository.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import nbformat

FOLDER = Path(__file__).resolve().parent
VARIES = "varies"
"""Tag of a cell whose text differs between machines or runs."""

MAX_BYTES = 1_000_000
CLOSED = "http://127.0.0.1:9"
"""Proxy that nothing listens to: downloads fail at once."""


def paths(names: list[str] | None = None) -> list[Path]:
    """Notebooks whose names begin with one of ``names``; all if there are none."""
    found = sorted(FOLDER.glob("*.ipynb"))
    return [path for path in found if not names or path.stem.startswith(tuple(names))]


def run(path: Path, cache: Path | None = None) -> Any:
    """Run a notebook and return it with its outputs; the cache folder is an empty one if None is given."""
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "cache").mkdir()
        environment = {
            "XDG_CACHE_HOME": str(cache or Path(folder) / "cache"),
            **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), CLOSED),
            **dict.fromkeys(("no_proxy", "NO_PROXY"), "127.0.0.1,localhost"),
        }
        (Path(folder) / "work").mkdir()
        client = NotebookClient(
            notebook, timeout=1200, kernel_name="python3", resources={"metadata": {"path": str(Path(folder) / "work")}}
        )
        try:
            client.execute(env={**os.environ, **environment})
        except CellExecutionError as error:
            raise SystemExit(f"{path.name}: {error.ename}: {error.evalue}") from None
    return tidy(notebook)


def tidy(notebook: Any) -> Any:
    """Remove what differs from run to run, and note the source that was run."""
    for number, cell in enumerate(notebook.cells, 1):
        cell["id"] = f"cell-{number:02}"
        tags = cell.metadata.get("tags")
        cell.metadata = nbformat.NotebookNode({"tags": tags} if tags else {})
        if cell.cell_type == "code":
            cell.metadata["source_hash"] = source_hash(cell.source)
            cell.outputs = merge_streams([output for output in cell.outputs if not is_progress(output)])
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    nbformat.validate(notebook)
    return notebook


def source_hash(source: str) -> str:
    """Hash of the source of a cell."""
    return hashlib.sha256(source.encode()).hexdigest()[:16]


def is_progress(output: Any) -> bool:
    """Whether an output is a progress bar, which is overwritten as it grows, or the announcement of a download."""
    if output.output_type != "stream" or output.name != "stderr":
        return False
    return "\r" in output.text or not output.text.strip() or output.text.startswith("Downloading data from")


def merge_streams(outputs: list[Any]) -> list[Any]:
    """Outputs in which text that was written in several parts is one."""
    merged: list[Any] = []
    for output in outputs:
        last = merged[-1] if merged else None
        if last is not None and output.output_type == "stream" == last.output_type and output.name == last.name:
            last.text += output.text
        else:
            merged.append(output)
    return merged


def texts(notebook: Any) -> list[list[str]]:
    """Text outputs of each code cell; none of a cell that varies."""
    found: list[list[str]] = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            varies = VARIES in cell.metadata.get("tags", [])
            found.append([] if varies else [output_text(output) for output in cell.outputs])
    return found


def output_text(output: Any) -> str:
    """Text of an output, or the MIME type of a picture."""
    if output.output_type == "stream":
        return str(output.text)
    data = output.get("data", {})
    return "image/png" if "image/png" in data else str(data.get("text/plain", ""))


def main() -> None:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help="beginnings of names, such as 01; all notebooks if there are none")
    parser.add_argument("--cache", type=Path, help="cache folder, where published models may be; requires --out")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder to write to")
    arguments = parser.parse_args()
    if arguments.cache and arguments.out.resolve() == FOLDER:
        parser.error("--cache requires --out: outputs of published models are not stored in the repository")
    for path in paths(arguments.names):
        start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        notebook = run(path, arguments.cache)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        text = nbformat.writes(notebook) + "\n"
        if len(text) > MAX_BYTES:
            raise SystemExit(f"{path.name}: expected at most {MAX_BYTES:,} bytes, got {len(text):,}")
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / path.name).write_text(text, encoding="utf-8")
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        print(f"{path.name}: {time.perf_counter() - start:.0f} s, CPU {used:.0f} s, {len(text) / 1000:,.0f} kB")  # noqa: T201


if __name__ == "__main__":
    main()
