"""Open and compute thousands of damaged files of all kinds, and report what is not an error of flyxr.

    python tests/fuzz.py KIND [--n 10000] [--seed 0] [--jobs 2] [--only CASE]

The kinds are stores, zipped-stores, catalogs, zips, checkpoints and videos.

A case is a valid input with some bytes, JSON values or files changed, at random but the same for each seed. It may
succeed or raise an error of flyxr. A crash, more than five seconds, more than a few GB of memory, a started process, a
connection, a changed file beside the input, and any other exception are findings. Cases run in child processes, so
that a crash or a hang is one finding. ``test_fuzz.py`` runs a few cases of each kind.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import multiprocessing
import resource
import shutil
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS = 5.0
"""Time that a case may take."""
MEMORY = 3 * 2**30
"""Memory that a worker may use beyond its own at the start, bytes."""
MAX_COMPUTED = 2**26
"""Size up to which a Dataset is computed as a whole, bytes; of a larger one, the first value is."""
NUMBERS = [0, 1, -1, 2, 127, 255, 2**15, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**53, 2**62, 2**63 - 1, -(2**63)]
VALUES: list[Any] = [None, True, "", "x", "../../x", "x" * 5000, [], {}, [[]], 0.5, -0.5, 1e308, *NUMBERS]
STARTED = ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.fork", "socket.connect", "socket.getaddr")
"""Events that opening a file must not cause: started processes and connections."""


class Finding(NamedTuple):
    """A case that ended in another way than it may."""

    case: int
    outcome: str


# Damage


def damage_bytes(content: bytes, rng: np.random.Generator) -> bytes:
    """Change, insert, remove or repeat some bytes, more often at the start and at the end."""
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 4))):
        size = len(data)
        place = int(size * rng.choice([rng.random(), rng.random() ** 4, 1 - rng.random() ** 4])) if size else 0
        length = int(min(2 ** rng.integers(0, 8), size))
        match int(rng.integers(0, 8)):
            case 0 if size:
                data[min(place, size - 1)] ^= 1 << int(rng.integers(0, 8))
            case 1 if size:
                data[min(place, size - 1)] = int(rng.integers(0, 256))
            case 2:
                del data[place:]
            case 3:
                data[place:place] = rng.bytes(length)
            case 4:
                del data[place : place + length]
            case 5:
                data[place:place] = data[place : place + length]
            case 6:
                data[place : place + length] = bytes([int(rng.choice([0, 255]))]) * length
            case _:
                n_bytes = int(rng.choice([1, 2, 4, 8]))
                number = int(rng.choice(len(NUMBERS)))
                value = (NUMBERS[number] % 256**n_bytes).to_bytes(n_bytes, str(rng.choice(["little", "big"])))
                data[place : place + n_bytes] = value
    return bytes(data)


def damage_json(text: str, rng: np.random.Generator) -> str:
    """Replace, remove or rename a value anywhere in a JSON document."""
    document = json.loads(text)
    for _ in range(int(rng.integers(1, 3))):
        places: list[tuple[Any, Any]] = []
        pending = [document]
        while pending:
            node = pending.pop()
            keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else []
            places += [(node, key) for key in keys]
            pending += [node[key] for key in keys]
        if not places:
            return json.dumps(VALUES[int(rng.integers(len(VALUES)))])
        node, key = places[int(rng.integers(len(places)))]
        match int(rng.integers(0, 6)):
            case 0:
                del node[key]
            case 1 if isinstance(node, dict):
                node[f"{key}x"] = node.pop(key)
            case 2:
                other, other_key = places[int(rng.integers(len(places)))]
                with contextlib.suppress(LookupError):
                    node[key] = json.loads(json.dumps(other[other_key]))
            case 3 if rng.random() < 0.1:
                return json.dumps(document)[:-1] + ',"deep":' + "[" * 100_000
            case _:
                node[key] = VALUES[int(rng.integers(len(VALUES)))]
    return json.dumps(document)


def damage_folder(folder: Path, rng: np.random.Generator) -> None:
    """Damage some files of a folder, or remove, rename or exchange them."""
    for _ in range(int(rng.choice([1, 1, 1, 2, 3]))):
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        if not files:
            return
        described = [file for file in files if file.suffix in (".json", ".jsonl")]
        file = files[int(rng.integers(len(files)))]
        if described and rng.random() < 0.6:
            file = described[int(rng.integers(len(described)))]
        match int(rng.integers(0, 12)):
            case 0:
                file.unlink()
            case 1:
                file.rename(file.with_name(f"{file.name}x"))
            case 2:
                file.write_bytes(b"")
            case 3:
                file.unlink()
                file.mkdir()
            case 4:
                shutil.copy(files[int(rng.integers(len(files)))], folder / "copied")
                (folder / "copied").replace(file)
            case 5 | 6 | 7 | 8 if file in described:
                with contextlib.suppress(ValueError):
                    lines = file.read_text().splitlines()
                    line = int(rng.integers(len(lines)))
                    lines[line] = damage_json(lines[line], rng)
                    file.write_text("\n".join(lines) + "\n")
            case _:
                file.write_bytes(damage_bytes(file.read_bytes(), rng))


# Inputs: each kind has valid ones, a way to damage one, and what a user does with it


def make_stores(folder: Path) -> list[Path]:
    """Write one store of each kind, a finished sweep and an unfinished one."""
    import flyxr as fx
    from flyxr.testing import failing_engine, noise_rendering, random_movie

    connectome, models = _tiny()
    rendering = noise_rendering(3)
    labels = np.empty(3, object)
    labels[:] = [("a", 1), ("b", 2.5), ("c", None)]
    labelled = rendering.assign_coords(own=("sample", labels), day=("sample", np.arange(3).astype("datetime64[D]")))
    responses = fx.simulate(rendering, models, connectome=connectome, device="cpu")
    data = {
        "movie": random_movie(1, 3, 8, 8),
        "rendering": labelled.chunk({"sample": 1}),
        "ensemble": models,
        "connectome": connectome,
        "responses": responses,
        "measures": fx.tuning.response_norm(responses),
    }
    for name, dataset in data.items():
        fx.save(dataset, folder / f"{name}.zarr")
    options: dict[str, Any] = {"connectome": connectome, "device": "cpu", "progress": False, "block_samples": 2}
    fx.sweep(labelled, models, folder / "sweep.zarr", **options)
    with failing_engine(2, OSError(28, "full")), contextlib.suppress(OSError):
        fx.sweep(rendering, models, folder / "unfinished.zarr", **options)
    return sorted(folder.glob("*.zarr"))


def _tiny() -> tuple[Any, Any]:
    import flyxr as fx
    from flyxr.testing import tiny_connectome

    connectome = tiny_connectome(extent=2)
    return connectome, fx.sample_ensemble(2, seed=0, connectome=connectome)


def use_store(path: Path, rng: np.random.Generator) -> None:
    """Do with a store what a user does: open, compute, describe, ask for its progress, resume it."""
    import flyxr as fx
    from flyxr import store
    from flyxr.errors import FlyxrError
    from flyxr.testing import noise_rendering

    calls: list[Callable[[], Any]] = [lambda: compute(fx.open(path)), lambda: store.describe(path)]
    if path.name.startswith("ensemble"):
        calls.append(lambda: fx.open_ensemble(path))
    if path.name.startswith(("sweep", "unfinished")):
        calls.append(lambda: fx.sweep_status(path))
        connectome, models = _tiny()
        options: dict[str, Any] = {"connectome": connectome, "device": "cpu", "progress": False, "block_samples": 2}
        if rng.random() < 0.3:
            relabel, verify = rng.random(2) < 0.5
            calls.append(
                lambda: fx.sweep(
                    noise_rendering(3), models, path, **options, relabel=bool(relabel), verify=bool(verify)
                )
            )
    errors = []
    for call in calls:
        try:
            call()
        except FlyxrError as error:
            errors.append(error)
    if errors:
        raise errors[0]


def compute(dataset: Any) -> None:
    """Compute a Dataset, or one value of each variable of a large one."""
    if sum(variable.nbytes for variable in dataset.variables.values()) <= MAX_COMPUTED:
        dataset.load()
        return
    for variable in dataset.data_vars.values():
        if variable.size:
            variable.isel(dict.fromkeys(variable.dims, 0)).load()


def make_results(folder: Path) -> list[Path]:
    """Write results of flyvis with three models of a tiny network."""
    import h5py
    import torch

    rng = np.random.default_rng(0)
    for number in range(3):
        model = folder / "flow" / "0000" / f"{number:03}"
        (model / "validation").mkdir(parents=True)
        network = {
            "nodes_bias": rng.normal(size=3),
            "nodes_time_const": rng.uniform(0.01, 0.1, 3),
            "edges_sign": np.array([-1.0, 1.0, -1.0]),
            "edges_syn_count": np.log(np.full(5, 2.0)),
            "edges_syn_strength": rng.uniform(size=3),
        }
        tensors = {name: torch.tensor(values, dtype=torch.float32) for name, values in network.items()}
        torch.save({"network": tensors, "decoder": {"flow": {"bias": torch.zeros(7)}}}, model / "best_chkpt")
        with h5py.File(model / "validation" / "loss.h5", "w") as file:
            file["data"] = rng.uniform(5, 6, 2)
    return [folder / "flow"]


def make_zips(folder: Path) -> list[Path]:
    """Write zips of results, stored and deflated."""
    (results,) = make_results(folder)
    paths = []
    for name, compression in (("stored", zipfile.ZIP_STORED), ("deflated", zipfile.ZIP_DEFLATED)):
        paths.append(folder / f"{name}.zip")
        with zipfile.ZipFile(paths[-1], "w", compression) as archive:
            for file in sorted(results.rglob("*")):
                archive.write(file, file.relative_to(folder))
    return paths


def damage_file(path: Path, rng: np.random.Generator) -> None:
    """Damage the bytes of a file."""
    path.write_bytes(damage_bytes(path.read_bytes(), rng))


def damage_zip(path: Path, rng: np.random.Generator) -> None:
    """Damage a zip or, within a valid zip, its names."""
    if rng.random() < 0.8:
        damage_file(path, rng)
        return
    with zipfile.ZipFile(path) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    names = ["a/" * int(rng.integers(1, 30_000)) + "x", "../x", "/x", "flow/0000/000/best_chkpt", "é" * 99]
    with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # duplicate names
        for name, content in members:
            is_renamed = rng.random() < 0.2
            archive.writestr(names[int(rng.integers(len(names)))] if is_renamed else name, content)


def damage_checkpoint(folder: Path, rng: np.random.Generator) -> None:
    """Damage a checkpoint, its members within a valid zip, or a file of validation errors."""
    model = folder / "0000" / "001"
    if rng.random() < 0.2:
        damage_file(model / "validation" / "loss.h5", rng)
        return
    if rng.random() < 0.3:
        damage_file(model / "best_chkpt", rng)
        return
    with zipfile.ZipFile(model / "best_chkpt") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    pickled = next(name for name in members if name.endswith(".pkl"))
    name = pickled if rng.random() < 0.7 else sorted(members)[int(rng.integers(len(members)))]
    members[name] = damage_bytes(members[name], rng)
    with zipfile.ZipFile(model / "best_chkpt", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def use_results(path: Path, rng: np.random.Generator) -> None:
    """Open results of flyvis as an ensemble."""
    import flyxr as fx
    from flyxr.testing import tiny_connectome

    fx.open_ensemble(path, connectome=tiny_connectome(extent=2))


def make_videos(folder: Path) -> list[Path]:
    """Write small videos in several containers and codecs."""
    from flyxr.testing import write_video

    levels = np.arange(12) * 20
    kinds = [("a.mp4", "libx264"), ("b.mp4", "mpeg4"), ("c.avi", "mpeg4"), ("d.mkv", "libx264"), ("e.webm", "libvpx")]
    kinds += [("f.avi", "png"), ("g.mov", "mpeg4"), ("h.ts", "mpeg2video"), ("i.flv", "flv")]
    return [write_video(folder / name, levels, codec=codec) for name, codec in kinds]


def use_video(path: Path, rng: np.random.Generator) -> None:
    """Read all frames of a video."""
    from flyxr import stimuli

    compute(stimuli.from_video(path, fill_gaps=bool(rng.random() < 0.5)))


def make_zipped_stores(folder: Path) -> list[Path]:
    """Write zips of stores, with the store at the top or in a folder, stored and deflated."""
    stores = make_stores(folder / "stores")
    paths = []
    for number, store in enumerate(stores):
        paths.append(folder / f"{store.name}.zip")
        top = store if number % 2 else store.parent
        compression = zipfile.ZIP_STORED if number % 3 else zipfile.ZIP_DEFLATED
        with zipfile.ZipFile(paths[-1], "w", compression) as archive:
            for file in sorted(store.rglob("*")):
                if file.is_file():
                    archive.write(file, file.relative_to(top))
    shutil.rmtree(folder / "stores")
    return paths


def use_zipped_store(path: Path, rng: np.random.Generator) -> None:
    """Open and compute a zipped store."""
    import flyxr as fx

    compute(fx.open(path))


def make_catalogs(folder: Path) -> list[Path]:
    """Write a folder with stores, a catalog of them, and a catalog within it."""
    import flyxr as fx
    from flyxr.testing import noise_rendering

    top = folder / "lab"
    fx.save(fx.sample_ensemble(2, seed=0), top / "untrained.zarr")
    fx.save(noise_rendering(3), top / "inner" / "noise.zarr")
    fx.catalog.publish(top / "untrained.zarr", top / "catalog.yaml", licence="MIT")
    fx.catalog.publish(top / "inner" / "noise.zarr", top / "inner" / "catalog.yaml")
    with (top / "catalog.yaml").open("a") as file:
        file.write("  inner:\n    driver: yaml_file_cat\n    args: {path: '{{ CATALOG_DIR }}/inner/catalog.yaml'}\n")
    return [top]


def damage_catalog(folder: Path, rng: np.random.Generator) -> None:
    """Damage a catalog as text or as data, or a file of its stores."""
    import yaml

    if rng.random() < 0.2:
        damage_folder(folder, rng)
        return
    file = folder / ("catalog.yaml" if rng.random() < 0.7 else "inner/catalog.yaml")
    if rng.random() < 0.4:
        damage_file(file, rng)
        return
    with contextlib.suppress(ValueError, TypeError, RecursionError):
        document = json.dumps(yaml.safe_load(file.read_text()))
        for _ in range(3):
            document = damage_json(document, rng)
        damaged = json.loads(document)
        text = yaml.safe_dump(damaged)
        if rng.random() < 0.3:
            path = str(rng.choice(CATALOG_PATHS))
            text = text.replace("{{ CATALOG_DIR }}/untrained.zarr", path).replace("{{ CATALOG_DIR }}/noise.zarr", path)
        file.write_text(text)


CATALOG_PATHS = [
    "/etc",
    "../../../etc/passwd",
    "https://example.org/x.zarr",
    "s3://bucket/x.zarr",
    "memory://x",
    "{{ env(HOME) }}",
    "{{ shell(id) }}",
    "zip::https://example.org/x.zip",
    "{{ CATALOG_DIR }}/../lab/inner/noise.zarr",
    "{{ CATALOG_DIR }}/inner",
]


def use_catalog(path: Path, rng: np.random.Generator) -> None:
    """Open a catalog, show it, and open all entries, of the catalogs within it too."""
    import flyxr as fx
    from flyxr.errors import FlyxrError

    errors: list[FlyxrError] = []
    pending = [fx.catalog.open(path)]
    while pending and len(errors) < 50:
        catalog = pending.pop()
        repr(catalog)
        catalog._repr_html_()
        for name in catalog.search(cell_type="*") or catalog:
            try:
                entry = catalog.open(name, verify=bool(rng.random() < 0.5))
                pending += [entry] if isinstance(entry, fx.catalog.Catalog) else []
                if not isinstance(entry, fx.catalog.Catalog):
                    compute(entry)
            except FlyxrError as error:
                errors.append(error)
    if errors:
        raise errors[0]


class Kind(NamedTuple):
    """A kind of input: ``make(folder)`` writes valid ones, ``damage`` changes a copy, ``use`` opens it."""

    make: Callable[[Path], list[Path]]
    damage: Callable[[Path, np.random.Generator], None]
    use: Callable[[Path, np.random.Generator], None]


KINDS = {
    "stores": Kind(make_stores, damage_folder, use_store),
    "zipped-stores": Kind(make_zipped_stores, damage_zip, use_zipped_store),
    "catalogs": Kind(make_catalogs, damage_catalog, use_catalog),
    "zips": Kind(make_zips, damage_zip, use_results),
    "checkpoints": Kind(make_results, damage_checkpoint, use_results),
    "videos": Kind(make_videos, damage_file, use_video),
}


# Running


def run_case(kind: Kind, valid: list[Path], seed: int, case: int, folder: Path) -> str:
    """Outcome of a case: ``"read"``, the name of an error of flyxr, or a text that starts with ``"FINDING"``."""
    from flyxr.errors import FlyxrError

    rng = np.random.default_rng([seed, case])
    source = valid[int(rng.integers(len(valid)))]
    scratch = folder / f"case-{case}"
    scratch.mkdir()
    (scratch / "beside").write_text("untouched")
    path = scratch / source.name
    if source.is_dir():
        shutil.copytree(source, path)
    else:
        shutil.copy(source, path)
    kind.damage(path, rng)
    started = time.perf_counter()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            kind.use(path, rng)
        outcome = "read"
    except FlyxrError as error:
        outcome = type(error).__name__
    except BaseException as error:  # KeyboardInterrupt of a library is a finding, too
        places = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
        outcome = f"FINDING {type(error).__name__}: {str(error)[:300]} at {' < '.join(places[:-6:-1])}"
    seconds = time.perf_counter() - started
    if not outcome.startswith("FINDING") and seconds > SECONDS:
        outcome = f"FINDING {seconds:.1f} s"
    beside = sorted(file.name for file in scratch.iterdir())
    if not set(beside) <= {"beside", path.name} or (scratch / "beside").read_text() != "untouched":
        outcome = f"FINDING files beside the input: {beside}"
    if not outcome.startswith("FINDING"):
        shutil.rmtree(scratch)
    return f"{outcome} ({source.name})"


def _work(name: str, seed: int, cases: range, folder: Path, pipe: Any) -> None:
    """Run cases in a child process, and send the number and outcome of each."""
    kind = KINDS[name]
    (folder / "valid").mkdir()
    valid = kind.make(folder / "valid")
    run_case(kind, valid, seed, -1 % 2**31, folder)  # compiles and imports what later cases use
    n_pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = n_pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    def refuse(event: str, arguments: object) -> None:
        if event.startswith(STARTED):
            raise SystemExit(f"{event} {arguments}"[:200])

    sys.addaudithook(refuse)
    pipe.send((-1, "ready"))
    for case in cases:
        pipe.send((case, "started"))
        pipe.send((case, run_case(kind, valid, seed, case, folder)))
    pipe.close()


def _run_part(name: str, seed: int, cases: range, report: Callable[[int, str], None]) -> None:
    """Run cases in child processes, one after the other: a new one after each crash or hang."""
    context = multiprocessing.get_context("spawn")
    while cases:
        folder = Path(tempfile.mkdtemp(prefix=f"fuzz-{name}-"))
        receiver, sender = context.Pipe(duplex=False)
        child = context.Process(target=_work, args=(name, seed, cases, folder, sender), daemon=True)
        child.start()
        sender.close()
        running, limit = -1, 300.0
        try:
            while True:
                if not receiver.poll(limit):
                    report(running, f"FINDING no answer in {limit:g} s")
                    break
                case, outcome = receiver.recv()
                if outcome == "started":
                    running, limit = case, SECONDS + 10  # a loaded machine is slower
                elif case >= 0:
                    report(case, outcome)
                    running = case
        except EOFError:
            child.join()
            if limit == 300:
                raise RuntimeError(f"the valid inputs of {name} cannot be made") from None
            if running != cases[-1] or child.exitcode:
                report(
                    running + 1 if child.exitcode == 0 else running, f"FINDING the process died with {child.exitcode}"
                )
        child.kill()
        child.join()
        shutil.rmtree(folder, ignore_errors=True)
        cases = range(max(running, cases.start) + 1, cases.stop)


def main() -> int:
    """Run from the command line."""
    import threading
    from collections import Counter

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--n", type=int, default=10_000, help="number of cases")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="number of processes at a time")
    parser.add_argument("--only", type=int, help="run this case alone, in this process, and keep its files")
    options = parser.parse_args()
    if options.only is not None:
        folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
        (folder / "valid").mkdir()
        kind = KINDS[options.kind]
        print(run_case(kind, kind.make(folder / "valid"), options.seed, options.only, folder), "in", folder)  # noqa: T201
        return 0
    counts: Counter[str] = Counter()
    findings: list[Finding] = []
    lock = threading.Lock()

    def report(case: int, outcome: str) -> None:
        with lock:
            counts[outcome.split("(")[0].split(":")[0].strip()] += 1
            if outcome.startswith("FINDING"):
                findings.append(Finding(case, outcome))
                print(f"case {case}: {outcome}", flush=True)  # noqa: T201

    size = math.ceil(options.n / options.jobs)
    parts = [range(first, min(first + size, options.n)) for first in range(0, options.n, size)]
    threads = [
        threading.Thread(target=_run_part, args=(options.kind, options.seed, part, report), daemon=True)
        for part in parts
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f"{options.kind}: {sum(counts.values())} cases, {len(findings)} findings; {dict(counts)}")  # noqa: T201
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
