"""Benchmarks of sweeps: ``python tests/benchmarks/sweeps.py CASE [--ensemble PATH] [--samples N]``, one per process.

many        sequences like Moving MNIST through the eye and one model, central cells: time, size, peak memory
cluster     the same on a LocalCluster of two processes, and on workers started by hand
growth      1 to 64 models x samples: time per step, model and sample, peak memory
throughput  a sweep, compared with computing alone and writing alone
layout      precision and cell types per chunk: writing, reading one type, reading one model, compression ratio, files
"""

from __future__ import annotations

import argparse
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import flyxr as fx
from flyxr.bench.worker import peak_memory
from flyxr.store.writing import write_dataset

if TYPE_CHECKING:
    import xarray as xr

DT = 1 / 100


def make_rendering(n_samples: int, n_frames: int = 20) -> xr.Dataset:
    """Lazy rendering of moving digits, in steps of 10 ms."""
    movie = fx.stimuli.moving_digits(n_samples=n_samples, n_frames=n_frames, seed=0)
    return fx.resample(fx.BoxEye().render(movie), dt=DT)


def make_ensemble(path: str | None, n_models: int) -> xr.Dataset:
    """Models of an ensemble, repeated if it has too few; untrained ones without a path."""
    if path is None:
        return fx.sample_ensemble(n_models, seed=0)
    ensemble = fx.open_ensemble(path)
    ensemble = ensemble.isel(model=np.arange(n_models) % ensemble.sizes["model"])
    return ensemble.assign_coords(model=np.arange(n_models))


def directory_size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def timed_sweep(rendering: xr.Dataset, ensemble: xr.Dataset, path: Path, **options: Any) -> float:
    shutil.rmtree(path, ignore_errors=True)
    started = time.perf_counter()
    fx.sweep(rendering, ensemble, path, **options)
    return time.perf_counter() - started


def many(folder: Path, ensemble: str | None, n_samples: int) -> list[dict[str, Any]]:
    path = folder / "r.zarr"
    seconds = timed_sweep(make_rendering(n_samples), make_ensemble(ensemble, 1), path, record="central")
    started = time.perf_counter()
    fx.sweep(make_rendering(n_samples), make_ensemble(ensemble, 1), path, record="central", progress=False)
    reopening = time.perf_counter() - started
    started = time.perf_counter()
    fx.open(path).response.sel(cell_type="T4c").load()
    reading = time.perf_counter() - started
    times = {"samples": n_samples, "s": seconds, "opened again, s": reopening, "T4c read, s": reading}
    return [{**times, "on disk": directory_size(path), "peak": peak_memory()}]


def cluster(folder: Path, ensemble: str | None, n_samples: int) -> list[dict[str, Any]]:
    import distributed

    def peaks(client: distributed.Client) -> int:
        return max(client.run(peak_memory).values())

    rows = []
    rendering, model = make_rendering(n_samples), make_ensemble(ensemble, 1)
    seconds = timed_sweep(rendering, model, folder / "threads.zarr", record="central")
    rows.append({"where": "threads of this process", "s": seconds, "peak per worker": peak_memory()})
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as local,
        distributed.Client(local) as client,
    ):
        seconds = timed_sweep(rendering, model, folder / "local.zarr", record="central", client=client)
        rows.append({"where": "LocalCluster of two processes", "s": seconds, "peak per worker": peaks(client)})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    dask = [sys.executable, "-m", "dask"]
    address = f"tcp://127.0.0.1:{port}"
    scheduler = [*dask, "scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard"]
    worker = [*dask, "worker", address, "--nworkers", "1", "--nthreads", "1", "--no-dashboard"]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
    processes = [subprocess.Popen(command, **quiet) for command in (scheduler, worker, worker)]
    try:
        with distributed.Client(address, timeout="60s") as client:
            client.wait_for_workers(2, timeout=60)
            seconds = timed_sweep(rendering, model, folder / "manual.zarr", record="central", client=client)
            rows.append({"where": "started by hand", "s": seconds, "peak per worker": peaks(client)})
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait()
    responses = [fx.open(folder / f"{name}.zarr").response.values for name in ("threads", "local", "manual")]
    assert all(np.array_equal(responses[0], other, equal_nan=True) for other in responses[1:])
    return rows


def growth(folder: Path, ensemble: str | None, n_samples: int) -> list[dict[str, Any]]:
    rows = []
    counts = [n for n in (1, 4, 16, 64) if n <= n_samples]
    timed_sweep(make_rendering(1), make_ensemble(ensemble, 1), folder / "warm.zarr", record="central", progress=False)
    for n_models in counts:
        for n in counts:
            rendering = make_rendering(n)
            seconds = timed_sweep(
                rendering, make_ensemble(ensemble, n_models), folder / "r.zarr", record="central", progress=False
            )
            steps = n_models * n * (rendering.sizes["time"] + 100)
            peak = peak_memory()
            rows.append(
                {"models": n_models, "samples": n, "s": seconds, "ms per step": 1e3 * seconds / steps, "peak": peak}
            )
    return rows


def throughput(folder: Path, ensemble: str | None, n_samples: int) -> list[dict[str, Any]]:
    rendering, models = make_rendering(n_samples, 60).load(), make_ensemble(ensemble, 4)
    rows = []
    for record in ("central", "all"):
        responses = fx.simulate(rendering, models, record=record)
        responses.response.isel(model=[0], sample=slice(0, 8)).load()
        ratios, repeats = [], []
        for _ in range(3):
            started = time.perf_counter()
            for model in range(4):  # one by one, since all of them may not fit into memory
                values = responses.isel(model=[model]).load()
            computing = time.perf_counter() - started
            started = time.perf_counter()
            for model in range(4):
                fx.save(values, folder / f"w{model}.zarr", overwrite=True)
            writing = time.perf_counter() - started
            sweeping = timed_sweep(rendering, models, folder / "r.zarr", record=record, progress=False)
            ratios.append(max(computing, writing) / sweeping)
            repeats.append({"record": record, "computing": computing, "writing": writing, "sweep": sweeping})
        best = int(np.argmax(ratios))
        rows.append({**repeats[best], "relative to the slower": ratios[best]})
    return rows


def layout(folder: Path, ensemble: str | None, n_samples: int) -> list[dict[str, Any]]:
    rows = []
    rendering, models = make_rendering(n_samples), make_ensemble(ensemble, 4)
    for record in ("all", "central"):
        exact = fx.simulate(rendering, models, record=record).load()
        for precision in ("float32", "float16", 10, 7):
            sweep_path = folder / "r.zarr"
            timed_sweep(rendering, models, sweep_path, record=record, precision=precision, progress=False)
            responses = fx.open(sweep_path).load().drop_encoding()
            blocks = responses.assign(response=responses.response.variable.chunk(model=1, sample=8))
            error = float(np.nanmax(np.abs(responses.response - exact.response)))
            for n_types in (1, 4, 16, None):
                if precision != "float32" and n_types is not None:
                    continue
                path = folder / "w.zarr"
                shutil.rmtree(path, ignore_errors=True)
                started = time.perf_counter()
                write_dataset(blocks, path, n_chunk_types=n_types)
                writing = time.perf_counter() - started
                started = time.perf_counter()
                fx.open(path).response.sel(cell_type="T4c").load()
                one_type = time.perf_counter() - started
                started = time.perf_counter()
                fx.open(path).response.isel(model=0).load()
                one_model = time.perf_counter() - started
                sizes = [file.stat().st_size for file in (path / "response" / "c").rglob("*") if file.is_file()]
                rows.append(
                    {
                        "record": record,
                        "precision": precision,
                        "types per chunk": n_types or "default",
                        "MB/s": responses.response.nbytes / writing / 1e6,
                        "ratio": exact.response.nbytes / sum(sizes),
                        "T4c, s": one_type,
                        "one model, s": one_model,
                        "files": len(sizes),
                        "largest error": error,
                    }
                )
    return rows


CASES = {"many": many, "cluster": cluster, "growth": growth, "throughput": throughput, "layout": layout}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--ensemble", help="trained models; without it untrained ones")
    parser.add_argument("--samples", type=int, default=64)
    options = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    with tempfile.TemporaryDirectory() as folder:
        for row in CASES[options.case](Path(folder), options.ensemble, options.samples):
            figures = {name: round(value, 4) if isinstance(value, float) else value for name, value in row.items()}
            sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
