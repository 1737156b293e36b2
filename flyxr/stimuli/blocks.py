"""Blocks that walk at random over noise."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from flyxr.arguments import Arguments, as_int, shorten
from flyxr.errors import Problem
from flyxr.optics import FRAME_RATE
from flyxr.schema import SchemaError
from flyxr.stimuli import base
from flyxr.stimuli.recording import recorded

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr
    from numpy.typing import NDArray


MAX_SEED = 2**32 - 1
"""Largest seed of NumPy's legacy generator."""


@recorded()
def random_walk_of_blocks(
    n_blocks: int = 20,
    block_size: int = 4,
    top_lum: float = 0,
    bottom_lum: float = 0,
    dataset_size: Sequence[int] = (3, 20, 64, 64),
    noise_mean: float = 0.5,
    noise_std: float = 0.1,
    step_size: int = 4,
    p_random: float = 0.6,
    p_center_attraction: float = 0.3,
    p_edge_attraction: float = 0.1,
    seed: int = 42,
    frame_rate: float = FRAME_RATE,
) -> xr.Dataset:
    """Movie of square blocks that walk at random over Gaussian noise.

    The same numbers for the same arguments as ``flyvis.utils.dataset_utils.random_walk_of_blocks`` (Lappalainen et
    al. 2024), wherever these lie from 0 to 1.

    Parameters
    ----------
    n_blocks
        Blocks in each sequence.
    block_size
        Edge of a block, pixels. An odd size draws the next smaller even one.
    top_lum, bottom_lum
        Luminance of the upper and lower half of a block, before the division by the maximum.
    dataset_size
        (sample, time, y, x); frames are square.
    noise_mean, noise_std
        Mean and standard deviation of the background.
    step_size
        Pixels that a block moves along each axis between frames. It leaves at one edge and returns at the other.
    p_random
        Has no effect: a step is random if it is neither toward the centre nor toward the edge.
    p_center_attraction, p_edge_attraction
        Probability of a step toward the centre of the frame, and away from it.
    seed
        Seed of the random generator; NumPy's global generator is not used.
    frame_rate
        Frames per second.

    Returns
    -------
    Dataset
        ``luminance`` (sample, time, y, x), float32. All values are divided by the largest one in the movie, so its
        brightest pixel is 1 and luminances depend on the noise. With the default arguments all values lie from 0 (the
        blocks) to 1. With a wider background some pixels fall below 0 (0.6 % of them with ``noise_std=0.2``) and are
        clipped to 0.

    Raises
    ------
    SchemaError
        One error for all invalid arguments.

    Examples
    --------
    >>> movie = random_walk_of_blocks(n_blocks=2, dataset_size=(1, 4, 16, 16))
    >>> dict(movie.luminance.sizes), float(movie.luminance.max())
    ({'sample': 1, 'time': 4, 'y': 16, 'x': 16}, 1.0)
    """
    arguments = Arguments("not a movie", SchemaError)
    n_blocks, block_size = (
        arguments.integer("n_blocks", n_blocks, least=0),
        arguments.integer("block_size", block_size, least=1),
    )
    top_lum, bottom_lum = arguments.number("top_lum", top_lum), arguments.number("bottom_lum", bottom_lum)
    noise_mean = arguments.number("noise_mean", noise_mean)
    noise_std = arguments.number("noise_std", noise_std, least=0)
    step_size = arguments.integer("step_size", step_size, least=0)
    p_center_attraction = arguments.number("p_center_attraction", p_center_attraction, least=0, most=1)
    p_edge_attraction = arguments.number("p_edge_attraction", p_edge_attraction, least=0, most=1)
    seed = arguments.seed(seed)
    if seed > MAX_SEED:
        arguments.problems.append(f"expected seed up to {MAX_SEED}, got {seed}")
    frame_rate = arguments.frame_rate(frame_rate)
    size = tuple(as_int(length) or 0 for length in dataset_size) if isinstance(dataset_size, Iterable) else ()
    if len(size) != 4 or min(size) < 1 or size[-1] != size[-2]:
        arguments.problems.append(
            Problem(
                "expected dataset_size as four counts (sample, time, y, x) with y equal to x, got "
                f"{shorten(dataset_size)}",
                "e.g. dataset_size=(3, 20, 64, 64)",
            )
        )
    arguments.raise_problems()
    frames = _walk(
        n_blocks,
        block_size,
        top_lum,
        bottom_lum,
        size,
        noise_mean,
        noise_std,
        step_size,
        p_center_attraction,
        p_edge_attraction,
        seed,
    )
    return base.wrap(np.clip(frames, 0, 1).astype(np.float32), frame_rate)


def _walk(
    n_blocks: int = 20,
    block_size: int = 4,
    top_lum: float = 0,
    bottom_lum: float = 0,
    dataset_size: Sequence[int] = (3, 20, 64, 64),
    noise_mean: float = 0.5,
    noise_std: float = 0.1,
    step_size: int = 4,
    p_center_attraction: float = 0.3,
    p_edge_attraction: float = 0.1,
    seed: int = 42,
) -> NDArray[np.float64]:
    """Frames (sample, time, y, x) in float64, divided by their maximum and not clipped at 0."""
    rng = np.random.RandomState(seed)  # noqa: NPY002 - flyvis's numbers need its legacy generator
    frames = rng.normal(noise_mean, noise_std, tuple(dataset_size))
    n_samples, n_frames, height, _ = frames.shape
    middle, half = height // 2, block_size // 2

    def step(position: int) -> int:
        chance = rng.rand()
        if chance < p_center_attraction:
            direction = np.sign(middle - position)
        elif chance > 1 - p_edge_attraction:
            direction = np.sign(position - middle)
        else:
            direction = rng.choice([-1, 1])
        return int((position + int(direction) * step_size) % height)

    # the order of draws is part of the numbers: block, sample, time, then row before column
    for _ in range(n_blocks):
        for sample in range(n_samples):
            row = column = 0
            for time in range(n_frames):
                if time == 0:
                    row, column = (int(rng.choice(height)) for _ in "yx")
                else:
                    row, column = step(row), step(column)
                columns = np.arange(column - half, column + half) % height
                lower, upper = np.arange(row, row + half) % height, np.arange(row - half, row) % height
                frames[sample, time][np.ix_(lower, columns)] = bottom_lum
                frames[sample, time][np.ix_(upper, columns)] = top_lum
    maximum = frames.max()
    if not 0 < maximum < np.inf:
        raise SchemaError(
            Problem(f"expected a positive finite maximum to divide by, got {maximum:g}", "use a brighter noise_mean"),
            heading="not a movie",
        )
    return np.asarray(frames / maximum)
