"""Frames of video files, as a player shows them: their times, gaps and orientation, and the frames themselves."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from flyxr import identity, schema
from flyxr.errors import DependencyError, FlyxrError, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

MAX_PIXELS = 2**26
"""Largest number of pixels of a frame; a file that declares more is damaged."""
MAX_FRAMES = 2**23
"""Largest duration of a video, frames: three days at 30 frames per second; a file with later times is damaged."""
MAX_PIXEL_ASPECT = 8
"""Largest ratio of the sides of a pixel; a file that declares more is damaged."""
_FIXED_POINT = 2**16
"""One, in the numbers of a display matrix."""


class Orientation(NamedTuple):
    """How a player turns a stored picture (y, x): exchange its axes if transposed, then reverse rows and columns."""

    is_transposed: bool = False
    is_reversed_y: bool = False
    is_reversed_x: bool = False

    def apply(self, picture: NDArray[Any]) -> NDArray[Any]:
        """Turn a picture (y, x).

        Examples
        --------
        >>> Orientation(is_transposed=True, is_reversed_x=True).apply(np.array([[1, 2], [3, 4]])).tolist()
        [[3, 1], [4, 2]]
        """
        turned = picture.T if self.is_transposed else picture
        return turned[:: -1 if self.is_reversed_y else 1, :: -1 if self.is_reversed_x else 1]


class Video(NamedTuple):
    """Properties of a video file, found without decoding more than its first frame.

    ``ticks`` (frame,) are the times of the frames in units of the file's clock, ``spacing`` is their distance by the
    frame rate. ``n_lost`` is the number of frames that the file should have after the last one. ``height`` and
    ``width`` are those of the stored picture, ``pixel_aspect`` is the width of a pixel by its height.
    """

    ticks: NDArray[np.int64]
    spacing: Fraction
    frame_rate: float
    n_lost: int
    height: int
    width: int
    pixel_aspect: Fraction
    orientation: Orientation

    @property
    def shown_size(self) -> tuple[int, int]:
        """Height and width of the picture that a player shows, whose pixels are square; none are lost."""
        height = self.height if self.pixel_aspect >= 1 else round(self.height / self.pixel_aspect)
        width = self.width if self.pixel_aspect <= 1 else round(self.width * self.pixel_aspect)
        return (width, height) if self.orientation.is_transposed else (height, width)

    @property
    def start_times(self) -> NDArray[np.float64]:
        """Time of each frame since the first, in frames."""
        return np.asarray((self.ticks - self.ticks[0]) / float(self.spacing))


def import_av() -> Any:
    """Import PyAV, which is an optional dependency."""
    try:
        import av
    except ImportError as error:
        hint = "install it with pip install 'flyxr[video]'"
        raise DependencyError(Problem(f"from_video needs av ({error})", hint)) from error
    return av


def file_error(file: Path, got: str, hint: str = "", command: str = "") -> schema.SchemaError:
    """Error for a file that cannot be read as a video."""
    python = "check the file, or load its frames yourself with fx.stimuli.from_array(array, frame_rate=...)"
    shell = "check the file, or save its frames as a .npy array (sample, time, y, x) and add --frame-rate 30"
    return schema.SchemaError(
        Problem(
            f"expected a video that FFmpeg reads, got {file.name} ({got})",
            hint or python,
            command or hint or shell,
        )
    )


@contextmanager
def _open_video(file: Path) -> Iterator[tuple[Any, Any]]:
    """Open a file and its first video stream; whatever PyAV raises on a damaged file names the file."""
    av = import_av()
    try:
        with av.open(str(file), metadata_errors="replace") as container:
            if not container.streams.video:
                n_other = len(container.streams)
                raise file_error(file, f"no video stream, but {n_other} of another kind, such as audio")
            yield container, container.streams.video[0]
    except FlyxrError:
        raise
    except Exception as error:  # FFmpegError, and also ValueError, AttributeError and MemoryError, were seen
        raise file_error(file, f"{type(error).__name__}: {error}") from error


def inspect(file: Path) -> Video:
    """Find the times and the orientation of the frames of a video.

    Raises
    ------
    SchemaError
        If the file is no video, has no frames, or declares what cannot be.
    """
    with _open_video(file) as (container, stream):
        rate, clock = stream.guessed_rate, stream.time_base
        times = [  # numbers only: the packets together are the whole file
            (packet.pts, packet.is_discard)
            for packet in container.demux(stream)
            if packet.pts is not None and packet.size
        ]
        ticks = np.sort(np.array([pts for pts, is_discarded in times if not is_discarded], dtype=np.int64))
        if not (ticks.size and rate and clock and stream.height and stream.width):
            raise file_error(file, "no frames with a time and a size in it")
        height, width = stream.height, stream.width
        if height * width > MAX_PIXELS:
            raise file_error(file, f"frames of {height} x {width} pixels, more than {MAX_PIXELS:,}")
        pixel_aspect = Fraction(stream.sample_aspect_ratio or 1)
        if not Fraction(1, MAX_PIXEL_ASPECT) <= pixel_aspect <= MAX_PIXEL_ASPECT:
            raise file_error(file, f"pixels whose width is {float(pixel_aspect):g} times their height")
        spacing = 1 / (Fraction(rate) * Fraction(clock))
        duration = round((ticks[-1] - ticks[0]) / float(spacing)) + 1
        if duration > MAX_FRAMES:
            raise file_error(file, f"times of frames that lie {duration:,} frames apart")
        n_read = max(len(times), duration)  # AVI counts lost frames, too
        n_declared = stream.frames
        if "matroska" in container.format.name and len(container.streams) == 1 and container.duration:
            n_declared = round(container.duration / 1e6 * float(rate)) - 1  # it may be rounded up
    orientation = _read_orientation(file)
    n_lost = max(0, n_declared - n_read)
    return Video(ticks, spacing, float(rate), n_lost, height, width, pixel_aspect, orientation)


def _read_orientation(file: Path) -> Orientation:
    """Orientation that the display matrix of the first frame states."""
    from av.sidedata.sidedata import Type

    with _open_video(file) as (container, stream):
        frame = next(container.decode(stream), None)
        if frame is None:
            raise file_error(file, "none of its frames can be decoded")
        side_data = frame.side_data.get(Type.DISPLAYMATRIX)
        if side_data is None:
            return Orientation()
        matrix = np.frombuffer(bytes(side_data), np.int32)
    return orientation_of(matrix, file)


def orientation_of(matrix: NDArray[np.int32], file: Path) -> Orientation:
    """Orientation of a display matrix, which maps a pixel (x, y) to (a x + c y, b x + d y), (a, b, -, c, d, ...).

    Raises
    ------
    SchemaError
        If it turns by another angle than a multiple of 90 degrees, or stretches.

    Examples
    --------
    >>> orientation_of(np.array([0, 65536, 0, -65536, 0, 0, 0, 0, 2**30], np.int32), Path("phone.mp4"))
    Orientation(is_transposed=True, is_reversed_y=False, is_reversed_x=True)
    """
    a, b, _, c, d = (round(float(value) / _FIXED_POINT, 3) for value in matrix[:5])
    if abs(a) == abs(d) == 1 and b == c == 0:
        return Orientation(False, d < 0, a < 0)
    if abs(b) == abs(c) == 1 and a == d == 0:
        return Orientation(True, b < 0, c < 0)
    raise file_error(
        file,
        f"a display matrix ({a:g}, {b:g}; {c:g}, {d:g}) that is no rotation by a multiple of 90 degrees",
        "turn the video with another program, e.g. ffmpeg",
    )


class Gap(NamedTuple):
    """A wrong distance between two frames: the number of the frame before it, and how many frames are missing.

    ``n_missing`` is None if the distance is no whole number of frames.
    """

    frame: int
    n_missing: int | None


def find_gaps(video: Video) -> list[Gap]:
    """Find the frames after which others are missing, or come at a time of their own.

    Containers round times to their clock, e.g. to ms. Where a frame lasts ten ticks or more, its distance to the next
    may differ by a tenth. Where it lasts fewer, a lost frame could pass as rounding, so that the times are compared
    with equal steps, each rounded to a tick.

    Examples
    --------
    >>> whole = Video(np.arange(5), Fraction(1), 25.0, 0, 4, 4, Fraction(1), Orientation())
    >>> find_gaps(whole), find_gaps(whole._replace(ticks=np.array([0, 1, 4, 5])))
    ([], [Gap(frame=1, n_missing=2)])
    """
    spacing = float(video.spacing)
    steps = np.diff(video.ticks) / spacing
    if spacing >= 10:
        wrong = np.flatnonzero(np.abs(steps - 1) > 0.1)
        return [Gap(int(frame), _n_missing(steps[frame], 0.1)) for frame in wrong]
    gaps = []
    rounding = (1 - 1 / video.spacing.denominator) / 2 + 1e-6  # none if a frame lasts a whole number of ticks
    low, high = video.ticks[0] - rounding, video.ticks[0] + rounding  # of the time of the first frame, not rounded
    number = 0
    for frame, tick in enumerate(video.ticks[1:].tolist()):
        first = tick - (number + 1) * spacing
        if max(low, first - rounding) > min(high, first + rounding):
            nearest = round((tick - (low + high) / 2) / spacing)
            if nearest != number + 1:
                gaps.append(Gap(frame, _n_missing(steps[frame], 1 / spacing)))
            number, first = nearest, tick - nearest * spacing
            low, high = first - rounding, first + rounding
        else:
            number, low, high = number + 1, max(low, first - rounding), min(high, first + rounding)
    return gaps


def _n_missing(n_frames: float, tolerance: float) -> int | None:
    """Number of frames missing in a distance of so many frames; None if it is no whole number of frames."""
    nearest = round(n_frames)
    return nearest - 1 if nearest > 1 and abs(n_frames - nearest) <= tolerance else None


def fill_gaps(video: Video) -> NDArray[np.int64]:
    """Times of the frames that a player shows at equal steps: each until the next begins.

    Examples
    --------
    >>> video = Video(np.array([0, 1, 4]), Fraction(1), 25.0, 0, 4, 4, Fraction(1), Orientation())
    >>> fill_gaps(video)
    array([0, 1, 1, 1, 4])
    """
    n_frames = int(np.rint(video.start_times[-1])) + 1
    # Half a frame: containers round times, up and down.
    shown = np.searchsorted(video.start_times, np.arange(n_frames) + 0.5, side="right") - 1
    return np.asarray(video.ticks[shown])


def decode_chunk(
    indices: NDArray[np.int64],
    *,
    path: str,
    stamp: tuple[int, int, str],
    ticks: NDArray[np.int64],
    orientation: tuple[bool, bool, bool],
    size: tuple[int, int],
) -> NDArray[np.float32]:
    """Frames (index, 1, y, x) of consecutive indices, 0 to 1, as a player shows them."""
    identity.check_file(path, identity.FileStamp(*stamp))
    frames = decode_frames(path, ticks, start=int(indices[0]), stop=int(indices[-1]) + 1)
    turn = Orientation(*orientation)
    grey: NDArray[Any] = np.stack([turn.apply(frame) for frame in frames])[:, None] / np.float32(255)
    if grey.shape[-2:] != tuple(size):
        import torch

        resized = torch.nn.functional.interpolate(
            torch.from_numpy(grey), size=size, mode="bilinear", antialias=True, align_corners=False
        )
        grey = resized.clamp(0, 1).numpy()
    return grey


def read_frames(path: str, ticks: NDArray[np.int64], *, seek: bool) -> dict[int, NDArray[np.uint8]]:
    """Read the grey frames (y, x) at the given times, leaving out those that are missing or damaged."""
    frames = {}
    remaining = set(ticks.tolist())
    with _open_video(Path(path)) as (container, stream):
        if seek:
            container.seek(int(ticks[0]), stream=stream)  # the last key frame before
        for frame in _decode(container, stream):
            if frame.pts in remaining:
                if not frame.is_corrupt:
                    frames[frame.pts] = frame.to_ndarray(format="gray")
                remaining.discard(frame.pts)
                if not remaining:
                    break
    return frames


def _decode(container: Any, stream: Any) -> Iterator[Any]:
    """Decode a stream without the packets that are damaged."""
    damaged = import_av().FFmpegError
    for packet in container.demux(stream):
        with suppress(damaged):
            yield from packet.decode()


def decode_frames(
    path: str,
    ticks: NDArray[np.int64],
    *,
    start: int,
    stop: int,
    read: Callable[..., dict[int, NDArray[np.uint8]]] = read_frames,
) -> NDArray[np.float32]:
    """Decode the frames ``start`` to ``stop - 1`` of a video.

    Parameters
    ----------
    path
        Path of the video.
    ticks
        (frame,) times of all frames in units of the file's clock; a frame may be repeated.
    start, stop
        Range of frames.
    read
        ``read(path, ticks, seek=...)`` returns the grey frames that it finds, by their times.

    Returns
    -------
    (frame, y, x) float32, 0 to 255

    Raises
    ------
    SchemaError
        If the file cannot be read, or a frame is missing or damaged.
    """
    wanted = ticks[start:stop]
    unique = np.unique(wanted)
    frames = read(path, unique, seek=start > 0)
    if len(frames) < unique.size and start > 0:  # the file's index may lead past the frame
        frames = read(path, unique, seek=False)
    if len(frames) < unique.size:
        n_whole = start + next(index for index, tick in enumerate(wanted.tolist()) if tick not in frames)
        hint = f"{{}} takes the {n_whole} frames before; or restore the file" if n_whole else "restore the file"
        raise file_error(
            Path(path),
            f"{len(frames)} of {unique.size} frames from number {start} on can be decoded",
            hint.format(f"n_frames={n_whole}"),
            hint.format(f"from_video(..., n_frames={n_whole}) in Python"),
        )
    shapes = dict.fromkeys(frame.shape for frame in frames.values())
    if len(shapes) > 1:
        raise file_error(Path(path), f"frames of different sizes, {' and '.join(map(str, shapes))}")
    return np.stack([frames[tick] for tick in wanted.tolist()]).astype(np.float32)
