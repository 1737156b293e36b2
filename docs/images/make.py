"""Make the picture of the README: ``python docs/images/make.py --ensemble results/flow/0000 [--out docs/images]``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import holoviews as hv
import numpy as np

import flyxr as fx

if TYPE_CHECKING:
    import xarray as xr

TIMES = (0.1, 0.2, 0.3, 0.4, 0.5)
HEIGHT = 190


def make_picture(ensemble: xr.Dataset, times: tuple[float, ...] = TIMES, extent: int = 15) -> hv.Layout:
    """Frames of two moving digits, their rendering, and the responses of T4c in the best model, a row each."""
    movie = fx.stimuli.moving_digits(n_samples=1, seed=42).isel(sample=0)
    rendering = fx.resample(fx.BoxEye(extent=extent, kernel_size=13).render(movie), dt=1 / 100)
    best = ensemble.isel(model=[int(np.argmin(ensemble["task_error"].values))])
    connectome = fx.open_connectome(extent=extent)
    responses = fx.simulate(rendering, best, connectome=connectome, record=["T4c"]).isel(model=0).compute()
    response = responses["response"].sel(time=list(times), method="nearest")
    reach = float(np.abs(response).max())
    panels = []
    for time in times:
        panels.append(fx.viz.movie(movie, time=time, height=HEIGHT).relabel(f"{time:.1f} s"))
    for row in (
        [fx.viz.hexmap(rendering["luminance"].sel(time=time, method="nearest"), height=HEIGHT) for time in times],
        [
            fx.viz.hexmap(response.sel(time=time, method="nearest"), clim=(-reach, reach), height=HEIGHT)
            for time in times
        ],
    ):
        options = [
            hv.Options("Hexagons", colorbar=column == len(row) - 1, backend="bokeh") for column in range(len(row))
        ]
        panels += [panel.relabel("").opts(option) for panel, option in zip(row, options, strict=True)]
    return hv.Layout(panels).cols(len(times))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ensemble", required=True, help="the published ensemble, results of flyvis")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder of the picture")
    arguments = parser.parse_args()
    picture = make_picture(fx.open_ensemble(arguments.ensemble))
    fx.viz.save(picture, arguments.out / "t4c.png", scale=1.5)
