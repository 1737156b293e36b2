"""Moving handwritten digits, made at run time."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from flyxr.arguments import Arguments, as_int
from flyxr.optics import DIGIT_FRAME_SIZE, DIGIT_FRAMES, DIGIT_SIZE, FRAME_RATE
from flyxr.schema import SchemaError
from flyxr.stimuli import base
from flyxr.stimuli.recording import recorded

if TYPE_CHECKING:
    from collections.abc import Mapping

    import xarray as xr
    from numpy.typing import NDArray


def _digit_size(size: int, digit_size: int | None) -> int:
    return max(1, round(size * DIGIT_SIZE / DIGIT_FRAME_SIZE)) if digit_size is None else digit_size


def _recorded_digit_size(given: Mapping[str, Any]) -> int:
    return _digit_size(as_int(given["size"]) or 1, as_int(given["digit_size"]))


@recorded("n_samples", "sample_chunk", digit_size=_recorded_digit_size)
def moving_digits(
    n_samples: int = 4,
    seed: int = 42,
    n_frames: int = DIGIT_FRAMES,
    size: int = DIGIT_FRAME_SIZE,
    n_digits: int = 2,
    frame_rate: float = FRAME_RATE,
    *,
    digit_size: int | None = None,
    speed: float = 3.6,
    sample_chunk: int = base.SAMPLE_CHUNK,
) -> xr.Dataset:
    """Movie of handwritten digits that move straight and bounce off the walls, without a download.

    The kind of movie of Moving MNIST (Srivastava et al. 2015), from the 1,797 digits of 8 x 8 pixels that come with
    scikit-learn, enlarged by cubic splines. Where digits overlap, the brighter one shows.

    Parameters
    ----------
    n_samples
        Number of sequences. They are made when they are computed, a chunk at a time, so there may be many.
    seed
        A sequence is a function of ``seed`` and its own index alone: neither ``n_samples`` nor ``sample_chunk``
        changes it, and more frames prolong it.
    n_frames
        Frames of each sequence.
    size
        Height and width of a frame, pixels.
    n_digits
        Digits in each sequence.
    frame_rate
        Frames per second.
    digit_size
        Height and width of a digit, pixels; 28/64 of ``size`` if None, as in Moving MNIST.
    speed
        Pixels per frame, along a direction drawn for each digit. Positions are rounded to whole pixels.
    sample_chunk
        Sequences in a chunk.

    Returns
    -------
    Dataset
        ``luminance`` (sample, time, y, x), float32, lazy; the coordinate ``digit`` (sample) names the digits of a
        sequence, e.g. ``"3 7"``.

    Raises
    ------
    SchemaError
        One error for all invalid arguments.

    Examples
    --------
    >>> movie = moving_digits(n_samples=2)
    >>> dict(movie.luminance.sizes), movie.luminance.chunks is not None
    ({'sample': 2, 'time': 20, 'y': 64, 'x': 64}, True)
    >>> bool((movie.luminance.isel(sample=1) == moving_digits(n_samples=5).luminance.isel(sample=1)).all())
    True
    """
    arguments = Arguments("not a movie", SchemaError)
    n_samples = arguments.integer("n_samples", n_samples, least=1)
    n_frames = arguments.integer("n_frames", n_frames, least=1)
    size = arguments.integer("size", size, least=1)
    n_digits = arguments.integer("n_digits", n_digits, least=1)
    if digit_size is not None:
        digit_size = arguments.integer("digit_size", digit_size, least=1)
    sample_chunk = arguments.integer("sample_chunk", sample_chunk, least=1)
    frame_rate, seed = arguments.frame_rate(frame_rate), arguments.seed(seed)
    speed = arguments.number("speed", speed, "pixels per frame", least=0)
    digit_size = _digit_size(size, digit_size)
    if digit_size > size and not arguments.problems:
        arguments.problems.append(
            f"expected digit_size from 1 to size={size}, got {digit_size!r}: digits must fit the frame"
        )
    arguments.raise_problems()
    luminance = base.generate(
        _draw_sequences,
        n_samples,
        (n_frames, size, size),
        sample_chunk,
        seed=seed,
        n_frames=n_frames,
        size=size,
        n_digits=n_digits,
        digit_size=digit_size,
        speed=speed,
    )
    labels = _handwritten()[1]
    names = [" ".join(map(str, labels[_draw_paths(seed, index, n_digits)[0]])) for index in range(n_samples)]
    return base.wrap(luminance, frame_rate, sample_coords={"digit": np.array(names, dtype=object)})


@functools.cache
def _handwritten() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Images (digit, y, x) from 0 to 1 and labels (digit) of scikit-learn."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    return digits.images / 16, digits.target


@functools.lru_cache(maxsize=4)
def _enlarged_digits(size: int) -> NDArray[np.float32]:
    """Smoothly enlarged digits (digit, size, size) from 0 to 1."""
    from scipy import ndimage

    images, _ = _handwritten()
    original_size = images.shape[-1]
    # a spline is linear in the pixels: enlarge the unit vectors once, not every image
    weights = ndimage.zoom(
        np.eye(original_size), (size / original_size, 1), order=3, mode="grid-constant", grid_mode=True
    )
    return np.asarray(np.clip(weights @ images @ weights.T, 0, 1), np.float32)


def _draw_paths(
    seed: int, index: int, n_digits: int
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Draw indices (digit), starts (digit, axis; 0 to 1) and directions (digit, axis) of the digits of a sequence."""
    rng = np.random.default_rng([seed, index])
    digit = rng.integers(len(_handwritten()[1]), size=n_digits)
    start = rng.random((n_digits, 2))
    angle = rng.uniform(0, 2 * np.pi, n_digits)
    return digit, start, np.stack([np.sin(angle), np.cos(angle)], axis=1)


def _draw_sequences(
    indices: NDArray[np.int64],
    *,
    seed: int,
    n_frames: int,
    size: int,
    n_digits: int,
    digit_size: int,
    speed: float,
) -> NDArray[np.float32]:
    """Frames (index, time, y, x)."""
    images, max_corner = _enlarged_digits(digit_size), size - digit_size
    frames = np.zeros((indices.size, n_frames, size, size), np.float32)
    elapsed = np.arange(n_frames)[:, None]
    for sequence, index in zip(frames, indices.tolist(), strict=True):
        for digit, start, direction in zip(*_draw_paths(seed, index, n_digits), strict=True):
            corners = _bounce(start * max_corner + elapsed * speed * direction, max_corner)
            for frame, (y, x) in zip(sequence, corners.tolist(), strict=True):
                window: Any = frame[y : y + digit_size, x : x + digit_size]
                np.maximum(window, images[digit], out=window)
    return frames


def _bounce(path: NDArray[np.float64], upper: int) -> NDArray[np.int64]:
    """Fold an endless straight path into 0 to ``upper``, and round to pixels."""
    if upper == 0:
        return np.zeros(path.shape, np.int64)
    return np.asarray(np.rint(upper - np.abs(path % (2 * upper) - upper)), np.int64)
