"""Movies from video files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flyxr import identity, provenance, schema
from flyxr.errors import DependencyError, MissingError, Problem, raise_problems
from flyxr.paths import local_path
from flyxr.stimuli import base

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    import xarray as xr
    from numpy.typing import NDArray


@dataclass(frozen=True)
class _Video:
    """Properties of a video that need no decoding; ``ticks`` are the times of frames in units of the file's clock."""

    ticks: NDArray[np.int64]
    height: int
    width: int
    frame_rate: float
    is_uniform: bool


def from_video(
    path: str | os.PathLike[str],
    *,
    n_frames: int | None = None,
    frame_rate: float | None = None,
    size: tuple[int, int] | None = None,
    frame_chunk: int | None = None,
) -> xr.Dataset:
    """Movie of one sample from a video file, in grey.

    Needs the extra ``video`` (PyAV). Only the times of frames are read from the file here; frames are decoded when they
    are computed, a chunk at a time. To combine several videos of one size, use
    ``xr.concat([...], "sample").assign_coords(sample=range(n))``.

    Parameters
    ----------
    path
        A file that FFmpeg reads.
    n_frames
        Number of frames from the start; all if None.
    frame_rate
        Frames per second, instead of the file's rate. Frames are neither dropped nor repeated.
    size
        (height, width) to which frames are resized, bilinear with antialiasing; not resized if None. Before a
        :class:`flyxr.BoxEye`, which resizes too, this only saves memory.
    frame_chunk
        Frames in a chunk.

    Returns
    -------
    Dataset
        ``luminance`` (sample, time, y, x), float32, lazy: the video's luma (ITU-R BT.601 where the file holds
        colours as RGB) scaled to 0 (black) to 1 (white).

    Raises
    ------
    ImportError
        Without the extra ``video``.
    FileNotFoundError
        If there is no file.
    SchemaError
        If the file is not a video, its frames are not equally spaced in time and ``frame_rate`` is not given, or the
        other arguments do not fit it.

    Examples
    --------
    >>> import tempfile
    >>> from flyxr.testing import write_video
    >>> movie = from_video(write_video(Path(tempfile.mkdtemp()) / "grey.mp4", np.full(6, 128)))
    >>> dict(movie.luminance.sizes), float(movie.time[1]), float(movie.luminance.mean().round(2))
    ({'sample': 1, 'time': 6, 'y': 32, 'x': 48}, 0.04, 0.5)
    """
    file = local_path(path).resolve()
    if not file.is_file():
        raise MissingError(Problem(f"expected a video at {file}, found no file", "check the path"))
    video = _inspect(file)
    rate = video.frame_rate if frame_rate is None else frame_rate
    frames = video.ticks.size if n_frames is None else n_frames
    height, width = (video.height, video.width) if size is None else size
    counts = {"n_frames": frames, "height": height, "width": width}
    if frame_chunk is not None:
        counts["frame_chunk"] = frame_chunk
    problems = base.frame_rate_problems(rate) + base.count_problems(**counts)
    if not problems and frames > video.ticks.size:
        problems.append(f"expected n_frames up to {video.ticks.size}, the length of {file.name}, got {frames}")
    if frame_rate is None and not video.is_uniform:
        hint = "give {} to treat them as equally spaced, or convert the file, e.g. with ffmpeg -vf fps=30"
        problems.append(
            Problem(
                f"expected frames equally spaced in time, got a variable frame rate in {file.name}",
                hint.format("frame_rate=..."),
                hint.format("--frame-rate 30"),
            )
        )
    raise_problems(schema.SchemaError, "not a movie", problems)
    stamp = identity.file_stamp(file)
    luminance = base.generate(
        _decode_chunk,
        frames,
        (1, height, width),
        frame_chunk,
        path=str(file),
        stamp=tuple(stamp),
        size=size and (height, width),
        ticks=video.ticks[:frames],
    )
    movie = base.wrap(luminance.swapaxes(0, 1), rate)
    arguments = {"file": file.name, "frame_rate": float(rate)}
    return provenance.add(movie, "from_video", arguments, hashes={"file": stamp.digest})


def _import_av() -> Any:
    try:
        import av
    except ImportError as error:
        hint = "install it with pip install 'flyxr[video]'"
        raise DependencyError(Problem(f"from_video needs av ({error})", hint)) from error
    return av


def _inspect(file: Path) -> _Video:
    av = _import_av()
    try:
        with av.open(str(file)) as container:
            stream = container.streams.video[0]
            rate, base, height, width = stream.guessed_rate, stream.time_base, stream.height, stream.width
            packets = (packet for packet in container.demux(stream) if not packet.is_discard)
            ticks = np.sort([packet.pts for packet in packets if packet.pts is not None]).astype(np.int64)
    except (OSError, ValueError, LookupError, av.FFmpegError) as error:
        raise _file_error(file, str(error)) from error
    if not (ticks.size and rate and height and width):
        raise _file_error(file, "no frames with a time and a size in it")
    spacing = float(1 / (rate * base))
    # containers round times to their clock, e.g. to ms
    is_uniform = bool((np.abs(np.diff(ticks) - spacing) <= max(1, spacing / 10)).all())
    return _Video(ticks, height, width, float(rate), is_uniform)


def _file_error(file: Path, got: str) -> schema.SchemaError:
    return schema.SchemaError(
        Problem(
            f"expected a video that FFmpeg reads, got {file.name} ({got})",
            "check the file, or load its frames yourself with fx.stimuli.from_array(array, frame_rate=...)",
            "check the file, or save its frames as a .npy array (sample, time, y, x) and add --frame-rate 30",
        )
    )


def _decode_chunk(
    indices: NDArray[np.int64],
    *,
    path: str,
    stamp: tuple[int, int, str],
    size: tuple[int, int] | None,
    ticks: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Frames (index, 1, y, x) of consecutive indices."""
    identity.check_file(path, identity.FileStamp(*stamp))
    grey = decode_frames(path, ticks, start=int(indices[0]), stop=int(indices[-1]) + 1)[:, None] / np.float32(255)
    if size is not None:
        import torch

        resized = torch.nn.functional.interpolate(
            torch.from_numpy(grey), size=size, mode="bilinear", antialias=True, align_corners=False
        )
        grey = resized.clamp(0, 1).numpy()
    return grey


def read_frames(path: str, ticks: NDArray[np.int64], *, seek: bool) -> list[NDArray[np.uint8]]:
    """Read the grey frames (y, x) at the given times, leaving out those that are missing."""
    av = _import_av()
    frames = []
    remaining = set(ticks.tolist())
    with av.open(path) as container:
        stream = container.streams.video[0]
        if seek:
            container.seek(int(ticks[0]), stream=stream)  # the last key frame before
        for frame in container.decode(stream):
            if frame.pts in remaining:
                frames.append(frame.to_ndarray(format="gray"))
                remaining.discard(frame.pts)
                if not remaining:
                    break
    return frames


def decode_frames(
    path: str,
    ticks: NDArray[np.int64],
    *,
    start: int,
    stop: int,
    read: Callable[..., list[NDArray[np.uint8]]] = read_frames,
) -> NDArray[np.float32]:
    """Decode the frames ``start`` to ``stop - 1`` of a video.

    Parameters
    ----------
    path
        Path of the video.
    ticks
        (frame,) times of all frames in units of the file's clock.
    start, stop
        Range of frames.
    read
        ``read(path, ticks, seek=...)`` returns the grey frames at the given times that it finds.

    Returns
    -------
    (frame, y, x) float32, 0 to 255

    Raises
    ------
    SchemaError
        If the file cannot be read or a frame is missing.
    """
    wanted = ticks[start:stop]
    try:
        frames = read(path, wanted, seek=start > 0)
        if len(frames) < wanted.size and start > 0:  # the file's index may lead past the frame
            frames = read(path, wanted, seek=False)
    except _import_av().FFmpegError as error:
        raise _file_error(Path(path), str(error)) from error
    if len(frames) < wanted.size:
        raise _file_error(Path(path), f"{len(frames)} of {wanted.size} frames from number {start} on can be decoded")
    return np.stack(frames).astype(np.float32)
