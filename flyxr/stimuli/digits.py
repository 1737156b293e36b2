"""Moving handwritten digits, made at run time."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from flyxr.errors import raise_problems
from flyxr.schema import SchemaError
from flyxr.stimuli import arrays

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray


def moving_digits(
    n_samples: int = 4,
    seed: int = 42,
    n_frames: int = 20,
    size: int = 64,
    n_digits: int = 2,
    frame_rate: float = 30.0,
    *,
    digit_size: int | None = None,
    speed: float = 3.6,
    sample_chunk: int = 16,
) -> xr.Dataset:
    """Movie of handwritten digits that move straight and bounce off the walls, without a download.

    The kind of movie of Moving MNIST (Srivastava et al. 2015), from the 1,797 digits of 8 x 8 pixels that come with
    scikit-learn, enlarged by cubic splines. Where digits overlap, the brighter one shows.

    Parameters
    ----------
    n_samples
        Number of sequences, as many as wanted: they are made when computed, a chunk at a time.
    seed
        A sequence is a function of ``seed`` and its own index alone, so neither ``n_samples`` nor ``sample_chunk``
        changes it, and more frames prolong it.
    n_frames
        Frames of each sequence.
    size
        Height and width of a frame, pixel.
    n_digits
        Digits in each sequence.
    frame_rate
        Frames per second.
    digit_size
        Height and width of a digit, pixel; 28/64 of ``size`` if None, as in Moving MNIST.
    speed
        Pixels per frame, along a direction drawn for each digit. Positions are rounded to whole pixels.
    sample_chunk
        Sequences in a chunk.

    Returns
    -------
    Dataset
        ``luminance`` (sample, time, y, x), float32, lazy; the coordinate ``digit`` (sample) names the digits in a
        sequence, e.g. ``"3 7"``.

    Raises
    ------
    SchemaError
        One error for all arguments that make no movie.

    Examples
    --------
    >>> movie = moving_digits(n_samples=2)
    >>> dict(movie.luminance.sizes), movie.luminance.chunks is not None
    ({'sample': 2, 'time': 20, 'y': 64, 'x': 64}, True)
    >>> bool((movie.luminance.isel(sample=1) == moving_digits(n_samples=5).luminance.isel(sample=1)).all())
    True
    """
    counts = {"n_samples": n_samples, "n_frames": n_frames, "size": size, "n_digits": n_digits}
    problems = arrays.count_problems(**counts, sample_chunk=sample_chunk) + arrays.frame_rate_problems(frame_rate)
    if not (isinstance(seed, (int, np.integer)) and seed >= 0):
        problems.append(f"expected seed as an integer of at least 0, got {seed!r}")
    if not 0 <= speed < np.inf:
        problems.append(f"expected speed as pixels per frame, at least 0, got {speed!r}")
    raise_problems(SchemaError, "not a movie", problems)
    side = max(1, round(size * 28 / 64)) if digit_size is None else digit_size
    if arrays.count_problems(digit_size=side) or side > size:
        raise SchemaError(
            f"expected digit_size from 1 to size={size}, got {side!r}: digits must fit the frame", heading="not a movie"
        )
    drawing = {
        "seed": int(seed),
        "n_frames": int(n_frames),
        "size": int(size),
        "n_digits": int(n_digits),
        "digit_size": int(side),
        "speed": float(speed),
    }
    luminance = arrays.generate(_sequences, n_samples, (n_frames, size, size), sample_chunk, **drawing)
    labels = _handwritten()[1]
    names = [" ".join(map(str, labels[_draw(seed, index, n_digits)[0]])) for index in range(n_samples)]
    return arrays.wrap(
        luminance,
        frame_rate,
        sample_coords={"digit": np.array(names, dtype=object)},
        stimulus={"name": "moving_digits", **drawing},
    )


@functools.cache
def _handwritten() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Images (digit, y, x) from 0 to 1 and labels (digit) of scikit-learn."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    return digits.images / 16, digits.target


@functools.lru_cache(maxsize=4)
def _glyphs(side: int) -> NDArray[np.float32]:
    """Smoothly enlarged digits (digit, side, side) from 0 to 1."""
    from scipy import ndimage

    images, _ = _handwritten()
    edge = images.shape[-1]
    # a spline is linear in the pixels: enlarge the unit vectors once, not every image
    enlarge = ndimage.zoom(np.eye(edge), (side / edge, 1), order=3, mode="grid-constant", grid_mode=True)
    return np.asarray(np.clip(enlarge @ images @ enlarge.T, 0, 1), np.float32)


def _draw(seed: int, index: int, n_digits: int) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Which digits (digit), where they start (digit, axis; 0 to 1) and in what direction (digit, axis)."""
    random = np.random.default_rng([seed, index])
    which = random.integers(len(_handwritten()[1]), size=n_digits)
    start = random.random((n_digits, 2))
    angle = random.uniform(0, 2 * np.pi, n_digits)
    return which, start, np.stack([np.sin(angle), np.cos(angle)], axis=1)


def _sequences(
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
    glyphs, free = _glyphs(digit_size), size - digit_size
    frames = np.zeros((indices.size, n_frames, size, size), np.float32)
    elapsed = np.arange(n_frames)[:, None]
    for sequence, index in zip(frames, indices.tolist(), strict=True):
        for which, start, direction in zip(*_draw(seed, index, n_digits), strict=True):
            corners = _bounce(start * free + elapsed * speed * direction, free)
            for frame, (y, x) in zip(sequence, corners.tolist(), strict=True):
                under: Any = frame[y : y + digit_size, x : x + digit_size]
                np.maximum(under, glyphs[which], out=under)
    return frames


def _bounce(path: NDArray[np.float64], free: int) -> NDArray[np.int64]:
    """Fold an endless straight path into 0 to ``free``, and round to pixels."""
    if free == 0:
        return np.zeros(path.shape, np.int64)
    return np.asarray(np.rint(free - np.abs(path % (2 * free) - free)), np.int64)
