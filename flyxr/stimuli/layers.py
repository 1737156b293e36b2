"""Random scenes of moving layers with their true optic flow, to train and test models of motion vision."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from flyxr import hexgrid
from flyxr.optics import EXTENT, GREY
from flyxr.stimuli import base, columns
from flyxr.stimuli.recording import recorded

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from flyxr.arguments import Duration

MOTIONS = ("translation", "rotation", "looming", "mixed", "still")
TEXTURES = ("photograph", "noise", "edges", "dots")

_MOTION_SHARES = (0.55, 0.12, 0.15, 0.12, 0.06)
_TEXTURE_SHARES = (0.4, 0.25, 0.25, 0.1)
_SPEEDS = (3.0, 15.0)  # columns/s
_ROTATION_SPEEDS = (0.4, 3.0)  # rad/s
_EXPANSION_RATES = (0.4, 2.5)  # 1/s
_MAX_SPEED = 15.0  # columns/s, anywhere on the lattice
_OBJECT_RADII = (2.0, 6.0)  # columns
_TEXTURE_SIZE = 192  # pixels
_TEXTURE_PIXELS = 4.0  # of a made texture between neighbouring columns
_PHOTOGRAPH_PIXELS = (4.0, 6.0, 8.0, 12.0)
_ACCEPTANCE = 0.425  # standard deviation of a Gaussian one column wide at half height, columns


@recorded()
def moving_layers(
    n_samples: int,
    seed: int = 42,
    *,
    single_layer_share: float = 0.6,
    n_directions: int = 1,
    t_fade: Duration = 0.12,
    t_stim: Duration = 0.4,
    dt: Duration = 1 / 50,
    extent: int = EXTENT,
) -> xr.Dataset:
    """Random textures that translate, rotate, loom or stand still, some behind moving objects, with their optic flow.

    The background is a photograph, noise, edges or dots. In front of it are no objects or one to three discs with
    their own texture and motion. Contrast, mean luminance, polarity, flicker and noise of the columns vary between
    samples. Contrast grows from grey during the first frames, while the scene already moves.

    Parameters
    ----------
    n_samples
        Number of samples.
    seed
        Seed, at least 0. Sample i depends only on (seed, i) and the arguments below.
    single_layer_share
        Share of samples without objects.
    n_directions
        Number of samples in a row that show the same scene, with its flow turned by equal steps around the circle:
        a translation goes in all directions, and a rotation becomes looming, the opposite rotation, and receding.
    t_fade
        Duration in which contrast grows from 0 to 1, s.
    t_stim
        Duration of a sample, s.
    dt
        Time step, s.
    extent
        Radius of the lattice, columns.

    Returns
    -------
    Dataset
        ``luminance`` (sample, time, column), float32, 0 to 1, and ``flow`` (sample, time, column, axis), float32,
        columns per second along x and y, of the layer in front, both lazy. Coordinates on ``sample``: ``motion`` and
        ``texture`` of the background, ``n_objects``, ``contrast`` and ``scene``, the number of the scene. The
        texture of samples of one scene is the same.

    Raises
    ------
    SchemaError
        One error, a ValueError, for all invalid arguments.

    Notes
    -----
    Each column sees textures through a Gaussian that is one column wide at half height. A flow is that of a similarity
    (translation, rotation and expansion), constant in time. Speeds are at most 15 columns per second, and one
    column per time step.

    Examples
    --------
    >>> scenes = moving_layers(3, seed=0, extent=6)
    >>> dict(scenes.flow.sizes)
    {'sample': 3, 'time': 20, 'column': 127, 'axis': 2}
    """
    arguments = columns.stimulus_arguments()
    n_samples, seed = arguments.integer("n_samples", n_samples, least=1), arguments.seed(seed)
    share = arguments.number("single_layer_share", single_layer_share, least=0, most=1)
    n_directions = arguments.integer("n_directions", n_directions, least=1)
    extent, dt = arguments.integer("extent", extent, least=1), arguments.duration("dt", dt)
    t_fade = columns.duration_around(arguments, "t_fade", t_fade)
    t_stim = columns.duration_of_frames(arguments, "t_stim", t_stim, dt)
    arguments.raise_problems()

    n_frames, n_fade = columns.n_frames(t_stim, dt), columns.n_frames(t_fade, dt)
    shape = (n_frames, hexgrid.n_columns(extent))
    numbers, turns = np.divmod(np.arange(n_samples), n_directions)
    scenes = [
        _draw_scene(np.random.default_rng([seed, number]), share, extent, dt, np.exp(2j * np.pi * turn / n_directions))
        for number, turn in zip(numbers.tolist(), turns.tolist(), strict=True)
    ]
    options: dict[str, Any] = {"scenes": scenes, "extent": extent, "dt": dt, "n_frames": n_frames}
    luminance = base.generate(_render_luminance, n_samples, shape, n_fade=n_fade, **options)
    flow = base.generate(_render_flow, n_samples, (*shape, 2), luminance.chunks[0][0], **options)
    coords: dict[str, Any] = {
        "motion": np.array([scene.layers[0].motion for scene in scenes], dtype=object),
        "texture": np.array([scene.layers[0].texture for scene in scenes], dtype=object),
        "scene": numbers,
        "n_objects": np.array([len(scene.layers) - 1 for scene in scenes]),
        "contrast": np.array([scene.contrast for scene in scenes]),
    }
    return columns.wrap(luminance, dt, 0, extent, sample_coords=coords, flow=flow)


class _Layer(NamedTuple):
    """A texture in motion; ``radius`` is infinite for the background, and ``center`` that of the object at time 0."""

    texture: str
    texture_seed: int
    orientation: complex
    pixels: float
    motion: str
    velocity: complex
    rate: complex  # expansion rate + i rotation speed
    center: complex
    radius: float

    def flow(self, points: NDArray[np.complex128], time: float) -> NDArray[np.complex128]:
        """Velocity (column,) at points, columns per second."""
        pivot = self.center + self.velocity * time if np.isfinite(self.radius) else 0
        return np.asarray(self.velocity + self.rate * (points - pivot))

    def source(self, points: NDArray[np.complex128], time: float) -> NDArray[np.complex128]:
        """Position (column,) at time 0, relative to the centre, of what is in front of each point."""
        if np.isfinite(self.radius):  # an object rotates and grows about its own moving centre
            return np.asarray((points - self.center - self.velocity * time) * np.exp(-self.rate * time))
        if self.rate == 0:
            return np.asarray(points - self.velocity * time)
        fixed = self.velocity / self.rate
        return np.asarray((points + fixed) * np.exp(-self.rate * time) - fixed)

    def coverage(self, points: NDArray[np.complex128], time: float) -> NDArray[np.float64]:
        """Share (column,) of each column that the layer covers."""
        if not np.isfinite(self.radius):
            return np.ones(points.size)
        distance = np.abs(points - self.center - self.velocity * time)
        return np.asarray(1 / (1 + np.exp((distance - self.radius) / (0.6 * _ACCEPTANCE))))


class _Scene(NamedTuple):
    """Layers from back to front, and how their luminance is seen."""

    layers: list[_Layer]
    contrast: float
    mean: float
    flicker: float  # amplitude
    flicker_frequency: float  # Hz
    noise: float  # standard deviation
    noise_seed: int


def _draw_scene(rng: np.random.Generator, single_layer_share: float, extent: int, dt: float, turn: complex) -> _Scene:
    """Scene whose flow is turned by the argument of a number on the unit circle."""
    n_objects = 0 if rng.random() < single_layer_share else int(rng.integers(1, 4))
    layers = [_draw_layer(rng, extent, dt, turn, is_object=i > 0) for i in range(n_objects + 1)]
    flickers = layers[0].motion == "still" or rng.random() < 0.1
    return _Scene(
        layers,
        contrast=float(rng.choice([-1, 1], p=[0.25, 0.75]) * rng.uniform(0.4, 1.3)),
        mean=float(rng.uniform(0.35, 0.65)),
        flicker=float(rng.uniform(0.05, 0.2)) if flickers else 0.0,
        flicker_frequency=float(rng.uniform(1, 6)),
        noise=float(rng.uniform(0, 0.04)) if rng.random() < 0.3 else 0.0,
        noise_seed=int(rng.integers(2**31)),
    )


def _draw_layer(rng: np.random.Generator, extent: int, dt: float, turn: complex, *, is_object: bool) -> _Layer:
    def log_uniform(low: float, high: float) -> float:
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))

    motion = str(rng.choice(MOTIONS, p=_MOTION_SHARES))
    radius = rng.uniform(*_OBJECT_RADII) if is_object else np.inf
    most = min(_MAX_SPEED, columns.MAX_COLUMNS_PER_FRAME / dt)
    direction = turn * np.exp(2j * np.pi * rng.random())
    velocity = direction * min(log_uniform(*_SPEEDS), most) if motion in ("translation", "mixed") else 0
    spin, growth = (
        rng.choice([-1, 1]) * log_uniform(*limits) * (motion in kinds)
        for limits, kinds in ((_ROTATION_SPEEDS, ("rotation", "mixed")), (_EXPANSION_RATES, ("looming", "mixed")))
    )
    rate = complex(growth, spin) * turn
    reach = min(radius, extent)
    if abs(rate):
        rate *= min(1.0, (most - abs(velocity)) / (reach * abs(rate)))
    middle = np.sqrt(rng.random()) * extent * np.exp(2j * np.pi * rng.random()) if is_object else 0
    texture = str(rng.choice(TEXTURES, p=_TEXTURE_SHARES))
    pixels = rng.choice(_PHOTOGRAPH_PIXELS) if texture == "photograph" else _TEXTURE_PIXELS
    return _Layer(
        texture,
        texture_seed=int(rng.integers(2**31)),
        orientation=complex(np.exp(2j * np.pi * rng.random())),
        pixels=float(pixels),
        motion=motion,
        velocity=complex(velocity),
        rate=rate,
        center=complex(middle - velocity * 0.2) if is_object else 0j,
        radius=float(radius),
    )


def _points(extent: int) -> NDArray[np.complex128]:
    """Positions (column,) x + iy, in columns."""
    x, y = hexgrid.positions(*hexgrid.columns(extent))
    return np.asarray(x + 1j * y)


def _render_luminance(
    indices: NDArray[np.int64], *, scenes: list[_Scene], extent: int, dt: float, n_frames: int, n_fade: int
) -> NDArray[np.float32]:
    """Frames (index, time, column)."""
    points, times = _points(extent), np.arange(n_frames) * dt
    fade = np.minimum(np.arange(1, n_frames + 1) / (n_fade + 1), 1)[:, None]
    frames = np.empty((indices.size, n_frames, points.size), np.float32)
    for sequence, index in zip(frames, indices.tolist(), strict=True):
        scene = scenes[index]
        view = np.zeros((n_frames, points.size))
        for layer in scene.layers:
            sampled = _sample_texture(layer, np.stack([layer.source(points, time) for time in times]))
            cover = np.stack([layer.coverage(points, time) for time in times])
            view += cover * (sampled - view)
        flicker = scene.flicker * np.sin(2 * np.pi * scene.flicker_frequency * times)[:, None]
        noise = scene.noise * np.random.default_rng(scene.noise_seed).standard_normal(view.shape)
        luminance = scene.mean + scene.contrast * view + flicker + noise
        sequence[:] = np.clip(GREY + fade * (luminance - GREY), 0, 1)
    return frames


def _render_flow(
    indices: NDArray[np.int64], *, scenes: list[_Scene], extent: int, dt: float, n_frames: int
) -> NDArray[np.float32]:
    """Flow (index, time, column, axis) of the layer in front."""
    points = _points(extent)
    flows = np.zeros((indices.size, n_frames, points.size, 2), np.float32)
    for sequence, index in zip(flows, indices.tolist(), strict=True):
        for frame, time in enumerate((np.arange(n_frames) * dt).tolist()):
            flow = np.zeros(points.size, complex)
            for layer in scenes[index].layers:
                flow = np.where(layer.coverage(points, time) > 0.5, layer.flow(points, time), flow)
            sequence[frame] = np.stack([flow.real, flow.imag], axis=-1)
    return flows


def _sample_texture(layer: _Layer, source: NDArray[np.complex128]) -> NDArray[np.float64]:
    """Contrast of the texture of a layer at positions of any shape, with mean about 0."""
    from scipy import ndimage

    rng = np.random.default_rng(layer.texture_seed)
    if layer.texture == "photograph":
        image = _blurred_photograph(int(rng.integers(2)), layer.pixels)
        mode = "mirror"
    else:
        image, mode = _make_texture(layer.texture, rng), "grid-wrap"
    corner = rng.random(2) * np.array(image.shape)
    position = source * layer.orientation * layer.pixels
    coordinates = [corner[0] - position.imag, corner[1] + position.real]
    sampled = ndimage.map_coordinates(image, coordinates, order=1, mode=mode)
    return np.asarray(sampled - sampled.mean() if layer.texture == "photograph" else sampled)


@functools.lru_cache(maxsize=8)
def _blurred_photograph(number: int, pixels: float) -> NDArray[np.float64]:
    """Luminance (y, x), 0 to 1, as seen through the acceptance of a column."""
    from scipy import ndimage
    from sklearn.datasets import load_sample_image

    colours = load_sample_image(("china.jpg", "flower.jpg")[number])
    grey = colours @ np.array([0.2126, 0.7152, 0.0722]) / 255  # ITU-R BT.709
    return np.asarray(ndimage.gaussian_filter(grey, _ACCEPTANCE * pixels, mode="mirror"))


def _make_texture(kind: str, rng: np.random.Generator) -> NDArray[np.float64]:
    """Periodic texture (y, x) with mean 0 and standard deviation 0.2, seen through the acceptance of a column."""
    size = _TEXTURE_SIZE
    frequency_y, frequency_x = np.meshgrid(np.fft.fftfreq(size), np.fft.rfftfreq(size), indexing="ij")
    frequency = np.hypot(frequency_x, frequency_y)  # cycles per pixel
    if kind == "noise":  # amplitude falls with a random power of the frequency
        white = np.fft.rfft2(rng.standard_normal((size, size)))
        spectrum = white / np.maximum(frequency, 1 / size) ** rng.uniform(0.5, 1.5)
    elif kind == "edges":  # stripes of random widths, at least one column
        widths = rng.uniform(1.0, 8.0, size) * _TEXTURE_PIXELS
        borders = np.cumsum(widths)
        stripe = np.searchsorted(borders[borders < size - _TEXTURE_PIXELS], np.arange(size))
        levels = rng.standard_normal(stripe.max() + 1)
        spectrum = np.fft.rfft2(np.broadcast_to(levels[stripe], (size, size)))
    else:  # dots, one to two columns wide, either bright or dark
        dots = np.zeros((size, size))
        n_dots = rng.integers(size**2 // 800, size**2 // 200)
        dots[rng.integers(size, size=n_dots), rng.integers(size, size=n_dots)] = rng.choice([-1, 1])
        width = rng.uniform(0.3, 0.8) * _TEXTURE_PIXELS
        spectrum = np.fft.rfft2(dots) * np.exp(-2 * (np.pi * frequency * width) ** 2)
    spectrum = spectrum * np.exp(-2 * (np.pi * frequency * _ACCEPTANCE * _TEXTURE_PIXELS) ** 2)
    spectrum[0, 0] = 0
    texture = np.fft.irfft2(spectrum, (size, size))
    return np.asarray(0.2 * texture / max(float(texture.std()), 1e-9))
