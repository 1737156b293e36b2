"""Measure the table of ``docs/flyvis-tutorial.md``: ``python docs/flyvis-tutorial/measure.py RESULTS --peer PYTHON``.

RESULTS holds the published models in the layout of flyvis, such as ``results/flow/0000``; PYTHON has flyvis 1.2. Both
sides take the same five models and four sequences of 20 frames, which flyvis makes. Each step is run once, in CPU time
of all threads, since the machine may be busy. Pictures are built and painted by flyxr only: those of flyvis need a
notebook.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

N_MODELS = 5

FLYXR: dict[str, str] = {
    "import": "import flyxr as fx",
    "data set": "movie = fx.stimuli.from_array(sequences, frame_rate=24)\nfx.viz.movie(movie.isel(sample=0))",
    "eye": "eye = fx.BoxEye(extent=15, kernel_size=13)\nfx.viz.illustrate(eye)",
    "one frame": "frame = movie.isel(sample=0, time=0)\nfx.viz.movie(frame) + fx.viz.hexmap(eye.render(frame))",
    "data set on disk": (
        'rendering = fx.open(fx.save(eye.render(movie), "digits-15-13.zarr", reuse=True))\n'
        "fx.viz.hexmap(rendering.isel(sample=0))"
    ),
    "time steps and grey": "stimulus = fx.pad_grey(fx.resample(rendering, dt=1 / 100), t_pre=0.5, t_post=0.5)",
    "one model": (
        'ensemble = fx.open_ensemble(results)\nbest = ensemble.isel(model=ensemble.task_error.argmin("model"))'
    ),
    "stationary state and responses": (
        "one = fx.resample(rendering.isel(sample=0), dt=1 / 100)\n"
        'responses = fx.simulate(one, best, initial_state="fade_in").compute()'
    ),
    "cells of a type": 'fx.viz.stimulus_response(None, one, responses, cell_type="T4c", n_times=10)',
    "central cell": 'fx.viz.traces(responses.response.fly.central("T4c"))',
    "ensemble": 'everyone = fx.simulate(one, ensemble, record="T4c").compute()',
    "several models": (
        'fx.viz.stimulus_response(None, one, everyone, cell_type="T4c", model=[0, 1, 2, 3, 4], n_times=10)'
    ),
    "traces by task error": 'fx.viz.traces(everyone.response.fly.central("T4c"))',
    "traces by cluster": (
        'clusters = fx.cluster(everyone.fly.central(), "T4c")\n'
        'fx.viz.traces(everyone.response.fly.central("T4c"), clusters=clusters)'
    ),
    "best up and best down model": (
        "best_two = [members[0] for members in list(clusters.fly.members('T4c').values())[:2]]\n"
        'fx.viz.stimulus_response(None, one, everyone, cell_type="T4c", model=best_two, n_times=10)'
    ),
}
"""Steps of the tutorial in flyxr, as in notebooks 01 to 04."""

FLYVIS: dict[str, str] = {
    "import": "import numpy as np, torch, flyvis",
    "data set": "from flyvis.utils.dataset_utils import random_walk_of_blocks\nsequences = random_walk_of_blocks(4)",
    "eye": "from flyvis.datasets.rendering import BoxEye\neye = BoxEye(extent=15, kernel_size=13)",
    "one frame": "eye(torch.tensor(sequences[0, 0]).float()[None, None])",
    "data set on disk": (
        "rendered = np.concatenate([eye(torch.tensor(s).float()[None]).cpu().numpy() for s in sequences])\n"
        "import h5py\n"
        "with h5py.File('rendered.h5', 'w') as file: file['sequences'] = rendered\n"
        "with h5py.File('rendered.h5') as file: rendered = file['sequences'][:]"
    ),
    "time steps and grey": (
        "from flyvis.datasets.augmentation.temporal import get_temporal_sample_indices\n"
        "frames = get_temporal_sample_indices(20, 20, framerate=24, dt=1 / 100, augment=False)\n"
        "one = torch.tensor(rendered)[0][frames.long()]"
    ),
    "one model": "network = flyvis.NetworkView(first).init_network()",
    "stationary state and responses": (
        "state = network.fade_in_state(1.0, 1 / 100, one[[0]])\n"
        "responses = network.simulate(one[None], 1 / 100, initial_state=state).cpu()"
    ),
    "ensemble": (
        "ensemble = flyvis.EnsembleView(results)\n"
        "everyone = np.array(list(ensemble.simulate(one[None], 1 / 100, fade_in=True)))"
    ),
}
"""The same steps in flyvis, without pictures; the others need pictures or the film Sintel."""

PEER = """
import json, sys, time
import torch
try:
    import torchvision
except RuntimeError:  # of another version than torch; flyvis does not need its operators
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
steps, results = json.loads(sys.argv[1]), sys.argv[2]
names, seconds = {"results": results, "first": results + "/000"}, {}
for name, code in steps.items():
    start = time.process_time()
    exec(code, names)
    seconds[name] = time.process_time() - start
import numpy as np
np.save("sequences.npy", names["sequences"])
json.dump(seconds, open("seconds.json", "w"))
"""


def measure_flyvis(python: str, results: Path, folder: Path) -> dict[str, float]:
    """CPU seconds of each step of flyvis, which leaves its sequences in the folder."""
    environment = {**os.environ, "FLYVIS_ROOT_DIR": str(folder), "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": ""}
    command = [python, "-c", PEER, json.dumps(FLYVIS), str(results)]
    process = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
    if process.returncode:
        raise SystemExit(process.stderr[-3000:])
    seconds: dict[str, float] = json.loads((folder / "seconds.json").read_text())
    return seconds


def measure_flyxr(results: Path, folder: Path) -> dict[str, float]:
    """CPU seconds of each step of flyxr; a picture is painted, too."""
    import numpy as np

    os.chdir(folder)
    names: dict[str, Any] = {"sequences": np.load("sequences.npy").astype(np.float32), "results": results}
    seconds = {}
    for name, code in FLYXR.items():
        *statements, last = code.split("\n")
        start = time.process_time()
        exec("\n".join(statements), names)
        if last.startswith("fx.viz"):
            from flyxr.viz.writing import image

            image(eval(last, names))
        else:
            exec(last, names)
        seconds[name] = time.process_time() - start
    return seconds


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("results", type=Path, help="published models in the layout of flyvis")
    parser.add_argument("--peer", required=True, help="Python that has flyvis")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        results = folder / "results" / "flow" / "0000"
        for number in range(N_MODELS):
            shutil.copytree(arguments.results / f"{number:03}", results / f"{number:03}")
        flyvis = measure_flyvis(arguments.peer, results, folder)
        flyxr = measure_flyxr(results, folder)
        os.chdir(Path(__file__).parent)
    lines = ["| step | flyxr, lines | flyxr, s | flyvis, s |", "| :-- | --: | --: | --: |"]
    for step, code in FLYXR.items():
        peer = f"{flyvis[step]:.2f}" if step in flyvis else "not run"
        lines.append(f"| {step} | {len(code.splitlines())} | {flyxr[step]:.2f} | {peer} |")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
