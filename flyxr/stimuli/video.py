"""Movies from video files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flyxr import identity, schema
from flyxr.errors import DependencyError, MissingError, Problem, raise_problems
from flyxr.stimuli import arrays

if TYPE_CHECKING:
    import os

    import xarray as xr
    from numpy.typing import NDArray


@dataclass(frozen=True)
class _Video:
    """What is known of a video without decoding a frame; ``ticks`` are the times of frames in the file's own clock."""

    ticks: NDArray[np.int64]
    height: int
    width: int
    frame_rate: float
    uniform: bool


def from_video(
    path: str | os.PathLike[str],
    *,
    n_frames: int | None = None,
    frame_rate: float | None = None,
    size: tuple[int, int] | None = None,
    frame_chunk: int | None = None,
) -> xr.Dataset:
    """Movie of one sample from a video file, in grey.

    Needs the extra ``video`` (PyAV). Frames are decoded when they are computed, a chunk at a time; here
    the file is read for the times of its frames only. Several videos of one size make one movie with
    ``xr.concat([...], "sample").assign_coords(sample=range(n))``.

    Parameters
    ----------
    path
        A file that FFmpeg reads.
    n_frames
        Take that many frames from the start; all if None.
    frame_rate
        Frames per second, instead of the file's own rate; frames are neither dropped nor repeated.
    size
        (height, width) to resize frames to, bilinear with antialiasing; as they are if None. For the frame a
        :class:`flyxr.BoxEye` sees this only saves memory, since the eye resizes too.
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
        If the file is no video, its frames are not equally spaced in time and ``frame_rate`` is not given, or the
        other arguments don't fit it.

    Examples
    --------
    >>> import tempfile
    >>> import av
    >>> file = tempfile.mkdtemp() + "/grey.mp4"
    >>> with av.open(file, "w") as container:
    ...     stream = container.add_stream("mpeg4", rate=25, width=48, height=32, pix_fmt="yuv420p")
    ...     for _ in range(6):
    ...         frame = av.VideoFrame.from_ndarray(np.full((32, 48, 3), 128, np.uint8), format="rgb24")
    ...         container.mux(stream.encode(frame))
    ...     container.mux(stream.encode())
    >>> movie = from_video(file)
    >>> dict(movie.luminance.sizes), float(movie.time[1]), float(movie.luminance.mean().round(2))
    ({'sample': 1, 'time': 6, 'y': 32, 'x': 48}, 0.04, 0.5)
    """
    file = Path(path).expanduser().resolve()
    if not file.is_file():
        raise MissingError(Problem(f"expected a video at {file}, found no file", "check the path"))
    video = _inspect(file)
    rate = video.frame_rate if frame_rate is None else frame_rate
    frames = video.ticks.size if n_frames is None else n_frames
    height, width = (video.height, video.width) if size is None else size
    counts = {"n_frames": frames, "height": height, "width": width}
    if frame_chunk is not None:
        counts["frame_chunk"] = frame_chunk
    problems = arrays.frame_rate_problems(rate) + arrays.count_problems(**counts)
    if not problems and frames > video.ticks.size:
        problems.append(f"expected n_frames up to {video.ticks.size}, the length of {file.name}, got {frames}")
    if frame_rate is None and not video.uniform:
        way = "give {} to take them as equally spaced, or convert the file, e.g. with ffmpeg -vf fps=30"
        problems.append(
            Problem(
                f"expected frames equally spaced in time, got a variable frame rate in {file.name}",
                way.format("frame_rate=..."),
                way.format("--frame-rate 30"),
            )
        )
    raise_problems(schema.SchemaError, "not a movie", problems)
    stamp = identity.file_stamp(file)
    decoding = {
        "path": str(file),
        "stamp": tuple(stamp),
        "size": size and (height, width),
        "ticks": video.ticks[:frames],
    }
    luminance = arrays.generate(_decode, frames, (1, height, width), frame_chunk, **decoding)
    stimulus = {"name": "from_video", "file": file.name}
    return arrays.wrap(luminance.swapaxes(0, 1), rate, stimulus=stimulus, hashes={"file": stamp.digest})


def _import_av() -> Any:
    try:
        import av
    except ImportError as error:
        way = "install it with pip install 'flyxr[video]'"
        raise DependencyError(Problem(f"from_video needs av ({error})", way)) from error
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
        raise _refusal(file, str(error)) from error
    if not (ticks.size and rate and height and width):
        raise _refusal(file, "no frames with a time and a size in it")
    spacing = float(1 / (rate * base))
    # containers round times to their clock, e.g. to ms
    uniform = bool((np.abs(np.diff(ticks) - spacing) <= max(1, spacing / 10)).all())
    return _Video(ticks, height, width, float(rate), uniform)


def _refusal(file: Path, got: str) -> schema.SchemaError:
    return schema.SchemaError(
        Problem(
            f"expected a video that FFmpeg reads, got {file.name} ({got})",
            "check the file, or load its frames yourself and call fx.stimuli.from_array(array, frame_rate=...)",
            "check the file, or save its frames as a .npy array (sample, time, y, x) and add --frame-rate 30",
        )
    )


def _decode(
    indices: NDArray[np.int64],
    *,
    path: str,
    stamp: tuple[int, int, str],
    size: tuple[int, int] | None,
    ticks: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Frames (index, 1, y, x) of consecutive indices."""
    identity.check_file(path, identity.FileStamp(*stamp))
    wanted = ticks[indices]
    try:
        frames = _read(path, wanted, seek=indices[0] > 0)
        if len(frames) < wanted.size and indices[0] > 0:  # an index in the file that leads past the frame
            frames = _read(path, wanted, seek=False)
    except _import_av().FFmpegError as error:
        raise _refusal(Path(path), str(error)) from error
    if len(frames) < wanted.size:
        raise _refusal(Path(path), f"{len(frames)} of {wanted.size} frames from number {indices[0]} on can be decoded")
    grey: NDArray[np.float32] = np.stack(frames)[:, None].astype(np.float32) / np.float32(255)
    if size is not None:
        import torch

        resized = torch.nn.functional.interpolate(
            torch.from_numpy(grey), size=size, mode="bilinear", antialias=True, align_corners=False
        )
        grey = resized.clamp(0, 1).numpy()
    return grey


def _read(path: str, wanted: NDArray[np.int64], *, seek: bool) -> list[NDArray[np.uint8]]:
    """Grey frames (y, x) at the wanted times, as far as they are found."""
    av = _import_av()
    frames = []
    remaining = set(wanted.tolist())
    with av.open(path) as container:
        stream = container.streams.video[0]
        if seek:
            container.seek(int(wanted[0]), stream=stream)  # the last key frame before
        for frame in container.decode(stream):
            if frame.pts in remaining:
                frames.append(frame.to_ndarray(format="gray"))
                remaining.discard(frame.pts)
                if not remaining:
                    break
    return frames
