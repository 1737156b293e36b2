"""Tiny networks and stimuli for tests and examples, and engines that count, wait or fail."""

from __future__ import annotations

import json
import os
import tempfile
import threading
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import xarray as xr

from flyxr import connectome, hexgrid, schema
from flyxr.engine import ENGINES, EngineRecord
from flyxr.engine.base import Network, Parameters
from flyxr.optics import GREY
from flyxr.stimuli import from_array, monitor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray

    from flyxr.engine.base import Engine, EngineResult


def tiny_connectome(
    extent: int = 1, *, edges: list[tuple[str, str, int, list[tuple[int, int]]]] | None = None
) -> xr.Dataset:
    """Make a connectome of three cell types: R inhibits L, L excites T from three columns, and T inhibits L.

    Parameters
    ----------
    extent
        Radius of the lattice.
    edges
        Connections to use instead: source, target, sign, and offsets (du, dv), each of two synapses.

    Examples
    --------
    >>> tiny_connectome().cell_type.values.tolist()
    ['R', 'L', 'T']
    """
    if edges is None:
        edges = [
            ("R", "L", -1, [(0, 0)]),
            ("L", "T", 1, [(0, 0), (1, 0), (0, -1)]),
            ("T", "L", -1, [(0, 0)]),
        ]
    spec: dict[str, Any] = {
        "nodes": [{"name": name, "pattern": ["stride", [1, 1]]} for name in "RLT"],
        "edges": [
            {"src": source, "tar": target, "alpha": sign, "offsets": [[offset, 2] for offset in offsets]}
            for source, target, sign, offsets in edges
        ],
        "input_units": ["R"],
        "output_units": ["T"],
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tiny.json"
        path.write_text(json.dumps(spec))
        return connectome.open_connectome(path, extent=extent, n_syn_fill=0)


def tiny_network(extent: int = 1, n_models: int = 1, seed: int = 0) -> tuple[Network, Parameters]:
    """Compile :func:`tiny_connectome`, and draw parameters at random.

    Examples
    --------
    >>> network, parameters = tiny_network()
    >>> network.n_cells, parameters.synapse_strength.shape
    (21, (1, 3))
    """
    network = connectome.compile_network(tiny_connectome(extent))
    rng = np.random.default_rng(seed)
    n_types, n_pairs = network.cell_type.max() + 1, len(network.pairs)
    parameters = Parameters(
        bias=rng.normal(0.5, 0.1, (n_models, n_types)).astype(np.float32),
        time_constant=rng.uniform(0.02, 0.1, (n_models, n_types)).astype(np.float32),
        synapse_strength=rng.uniform(0.05, 0.2, (n_models, n_pairs)).astype(np.float32),
    )
    return network, parameters


def random_rendering(
    extent: int = 2, n_samples: int = 2, n_frames: int = 6, *, dt: float = 0.01, seed: int = 0
) -> xr.Dataset:
    """Make a rendering whose luminance is drawn uniformly from 0 to 1.

    Examples
    --------
    >>> dict(random_rendering(extent=2).luminance.sizes)
    {'sample': 2, 'time': 6, 'column': 19}
    """
    shape = n_samples, n_frames, hexgrid.n_columns(extent)
    luminance = np.random.default_rng(seed).random(shape, dtype=np.float32)
    return xr.Dataset(
        {"luminance": (("sample", "time", "column"), luminance)},
        {"sample": np.arange(n_samples), "time": schema.time_coord(n_frames, dt), **hexgrid.column_coords(extent)},
    )


def noise_rendering(n_samples: int = 5, n_time: int = 6, dt: float = 1 / 100, extent: int = 2) -> xr.Dataset:
    """Rendering of up to 40 samples of uniform noise with the coordinate ``angle``; the first are always the same.

    Examples
    --------
    >>> dict(noise_rendering().sizes)
    {'sample': 5, 'time': 6, 'column': 19}
    """
    rendering = random_rendering(extent, 40, n_time, dt=dt).isel(sample=slice(n_samples))
    return rendering.assign_coords(angle=("sample", np.arange(n_samples) * 30.0))


class _ObservedEngine:
    """Record of an engine whose function calls another one first."""

    def __init__(self, record: EngineRecord, callback: Callable[[Parameters, NDArray[np.floating]], None]) -> None:
        self._record, self._callback = record, callback

    def __getattr__(self, name: str) -> Any:
        return getattr(self._record, name)

    def load(self) -> Engine:
        integrate = self._record.load()

        def observed(
            network: Network, parameters: Parameters, stimulus: Any, dt: float, **options: Any
        ) -> EngineResult:
            self._callback(parameters, stimulus)
            return integrate(network, parameters, stimulus, dt, **options)

        return observed


@contextmanager
def observed_engine(
    callback: Callable[[Parameters, NDArray[np.floating]], None], name: str = "stencil"
) -> Iterator[None]:
    """Call a function before each integration of an engine in this process.

    Parameters
    ----------
    callback
        Function of the parameters and of the stimulus (sample, time, column). It may count, wait or raise.
    name
        Name of the engine.

    Examples
    --------
    >>> import flyxr as fx
    >>> n_samples = []
    >>> ensemble = fx.sample_ensemble(2, seed=0, connectome=tiny_connectome(2))
    >>> with observed_engine(lambda parameters, stimulus: n_samples.append(len(stimulus))):
    ...     responses = fx.simulate(noise_rendering(), ensemble, connectome=tiny_connectome(2), device="cpu").compute()
    >>> n_samples
    [5, 5]
    """
    record = ENGINES[name]
    ENGINES[name] = cast("EngineRecord", _ObservedEngine(record, callback))
    try:
        yield
    finally:
        ENGINES[name] = record


@contextmanager
def failing_engine(n_calls: int, error: BaseException, name: str = "stencil") -> Iterator[None]:
    """Raise an error in all integrations of an engine after the first ``n_calls``.

    Examples
    --------
    >>> import flyxr as fx
    >>> ensemble = fx.sample_ensemble(2, seed=0, connectome=tiny_connectome(2))
    >>> with failing_engine(1, OSError("full")):
    ...     fx.simulate(noise_rendering(), ensemble, connectome=tiny_connectome(2), device="cpu").compute()
    Traceback (most recent call last):
        ...
    OSError: full
    """
    lock, count = threading.Lock(), 0

    def count_and_raise(parameters: Parameters, stimulus: NDArray[np.floating]) -> None:
        nonlocal count
        with lock:
            count += 1
            if count > n_calls:
                raise error

    with observed_engine(count_and_raise, name):
        yield


@contextmanager
def registered_engine(integrate: Engine, name: str, *, is_exclusive: bool = False) -> Iterator[None]:
    """Register a function as an engine for the CPU within the context, for example one that counts its calls.

    Parameters
    ----------
    integrate
        The function, see :class:`flyxr.engine.base.Engine`. It is called in this process only.
    name
        Name of the engine.
    is_exclusive
        See :class:`flyxr.engine.EngineRecord`.

    Examples
    --------
    >>> import flyxr as fx
    >>> from flyxr.engine.reference import integrate
    >>> n_samples = []
    >>> def count_samples(network, parameters, stimulus, dt, **options):
    ...     n_samples.append(len(stimulus))
    ...     return integrate(network, parameters, stimulus, dt, **options)
    >>> models = fx.sample_ensemble(1, seed=0, connectome=tiny_connectome(extent=2))
    >>> with registered_engine(count_samples, "counting"):
    ...     responses = fx.simulate(random_rendering(n_samples=3), models, engine="counting").compute()
    >>> n_samples
    [3]
    """

    class FunctionRecord(EngineRecord):
        def load(self) -> Engine:
            return integrate

    ENGINES[name] = FunctionRecord(name, ("cpu",), 1, is_exclusive, "a function")
    try:
        yield
    finally:
        del ENGINES[name]


def corrupt_file(path: Path, *, keep_time: bool = False) -> None:
    """Flip the bits of one byte of a file; with ``keep_time`` without changing its times.

    Examples
    --------
    >>> path = Path(tempfile.mkdtemp()) / "file"
    >>> _ = path.write_bytes(b"abc")
    >>> corrupt_file(path)
    >>> path.read_bytes() == b"abc"
    False
    """
    stat = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 0xFF
    path.write_bytes(content)
    if keep_time:
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def random_movie(
    n_samples: int, n_frames: int, height: int, width: int, *, seed: int = 0, frame_rate: float = 50, **kwargs: Any
) -> xr.Dataset:
    """Movie of pixels drawn uniformly from 0 to 1; ``kwargs`` are those of :func:`flyxr.stimuli.from_array`.

    Examples
    --------
    >>> dict(random_movie(2, 3, 8, 10).luminance.sizes)
    {'sample': 2, 'time': 3, 'y': 8, 'x': 10}
    """
    frames = np.random.default_rng(seed).random((n_samples, n_frames, height, width), np.float32)
    return from_array(frames, frame_rate, dims=("sample", "time", "y", "x"), **kwargs)


def render_edge_in_8_bit(path: monitor.BarPath, intensity: float) -> NDArray[np.float64]:
    """Luminance (position, column) of an edge or bar on grey as in flyvis, which rotates pictures in 8-bit greys.

    Examples
    --------
    >>> edge = monitor.BarPath(angle=90, width=np.inf, height=180, first=-10, n_positions=21, extent=1)
    >>> luminance = render_edge_in_8_bit(edge, 1)
    >>> luminance.shape, round(float(luminance.min()) * 255)
    ((21, 7), 127)
    """
    if path.angle % 360 == 0:  # not rotated
        return np.asarray(GREY + (intensity - GREY) * monitor.column_coverage(path))
    grey, level = int(255 * GREY), int(255 * intensity)
    pixels = monitor.monitor_pixels(path.extent)
    positions = monitor.pixel_coverage(path)
    return np.stack([pixels.mean(np.floor(grey + (level - grey) * coverage) / 255) for coverage in positions])


def write_video(
    path: Path,
    levels: ArrayLike,
    *,
    codec: str = "mpeg4",
    frame_rate: int = 25,
    ticks: Sequence[int] | None = None,
) -> Path:
    """Write a video whose frames, 32 x 48 pixels, have one colour each; returns its path.

    Needs the extra ``video``.

    Parameters
    ----------
    path
        File to write; its suffix sets the container.
    levels
        (frame,) grey levels or (frame, 3) colours, 0 to 255.
    codec
        ``"mpeg4"``, ``"libx264"``, which has frames predicted from both sides, or ``"png"``, which is lossless.
    frame_rate
        Frames per second.
    ticks
        Times of frames in units of 1 / ``frame_rate``; equally spaced if None.

    Examples
    --------
    >>> write_video(Path(tempfile.mkdtemp()) / "grey.avi", range(0, 250, 50)).name
    'grey.avi'
    """
    import av

    options = {"libx264": {"g": "8", "bf": "2", "qp": "1"}, "mpeg4": {"g": "8", "q": "1"}}.get(codec, {})
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=frame_rate, options=options)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "rgb24" if codec == "png" else "yuv420p"
        for index, level in enumerate(np.asarray(levels)):
            frame = av.VideoFrame.from_ndarray(np.full((32, 48, 3), level, np.uint8), format="rgb24")
            if ticks is not None:
                frame.pts, frame.time_base = int(ticks[index]), Fraction(1, frame_rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
