"""Movies from video files."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from flyxr import identity, provenance, schema
from flyxr.arguments import Arguments, shorten
from flyxr.errors import MissingError, Problem
from flyxr.paths import local_path
from flyxr.stimuli import base, decoding

if TYPE_CHECKING:
    import os
    from pathlib import Path

    import xarray as xr


def from_video(
    path: str | os.PathLike[str],
    *,
    n_frames: int | None = None,
    frame_rate: float | None = None,
    size: tuple[int, int] | None = None,
    frame_chunk: int | None = None,
    fill_gaps: bool = False,
) -> xr.Dataset:
    """Movie of one sample from a video file, in grey.

    Needs the extra ``video`` (PyAV). Only the times of frames and the first frame are read here; others are decoded
    when they are computed, a chunk at a time. Frames are turned and mirrored as the file asks players to, and stretched
    if its pixels are not square. To combine several videos of one size, use
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
    fill_gaps
        Show each frame until the next begins, as players do, where frames were lost or the frame rate varies. Without
        it, these raise, unless ``frame_rate`` is given.

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
        If the file is not a video, has no frames or breaks off; if its frames are not equally spaced in time and
        neither ``frame_rate`` nor ``fill_gaps`` is given; if it is to be turned by another angle than a multiple of 90
        degrees; or if other arguments do not fit it. When computed, if frames cannot be decoded.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from flyxr.testing import write_video
    >>> movie = from_video(write_video(Path(tempfile.mkdtemp()) / "grey.mp4", [128] * 6))
    >>> dict(movie.luminance.sizes), float(movie.time[1]), float(movie.luminance.mean().round(2))
    ({'sample': 1, 'time': 6, 'y': 32, 'x': 48}, 0.04, 0.5)
    """
    file = local_path(path).resolve()
    if not file.is_file():
        raise MissingError(Problem(f"expected a video at {file}, found no file", "check the path"))
    decoding.import_av()
    arguments = Arguments("not a movie", schema.SchemaError)
    rate = None if frame_rate is None else arguments.frame_rate(frame_rate)
    if n_frames is not None:
        n_frames = arguments.integer("n_frames", n_frames, least=1)
    if frame_chunk is not None:
        frame_chunk = arguments.integer("frame_chunk", frame_chunk, least=1)
    shown_size = None if size is None else _check_size(size, arguments)
    arguments.raise_problems()

    video = decoding.inspect(file)
    ticks = decoding.fill_gaps(video) if fill_gaps else video.ticks
    n_shown = ticks.size if n_frames is None else n_frames
    if n_shown > ticks.size:
        arguments.problems.append(f"expected n_frames up to {ticks.size}, the length of {file.name}, got {n_frames}")
    elif n_frames is None and video.n_lost:
        arguments.problems.append(_truncation_problem(file, video))
    ticks = ticks[:n_shown]
    if frame_rate is None and not fill_gaps:
        gaps = decoding.find_gaps(video._replace(ticks=ticks))
        arguments.problems += [_gap_problem(file, video, gaps)] if gaps else []
    arguments.raise_problems()
    rate = video.frame_rate if rate is None else rate

    height, width = video.shown_size if shown_size is None else shown_size
    stamp = identity.file_stamp(file)
    luminance = base.generate(
        decoding.decode_chunk,
        n_shown,
        (1, height, width),
        frame_chunk,
        path=str(file),
        stamp=tuple(stamp),
        ticks=ticks,
        orientation=tuple(video.orientation),
        size=(height, width),
    )
    movie = base.wrap(luminance.swapaxes(0, 1), rate)
    recorded = {"file": file.name, "frame_rate": float(rate), **_corrections(video, fill_gaps)}
    return provenance.add(movie, "from_video", recorded, hashes={"file": stamp.digest})


def _check_size(size: object, arguments: Arguments) -> tuple[int, int]:
    """Height and width in pixels."""
    numbers = list(size) if isinstance(size, Iterable) and not isinstance(size, str) else []
    if len(numbers) != 2:
        arguments.problems.append(f"expected size as (height, width), got {shorten(size)}")
        return 1, 1
    return arguments.integer("height", numbers[0], least=1), arguments.integer("width", numbers[1], least=1)


def _corrections(video: decoding.Video, fill_gaps: bool) -> dict[str, object]:
    """What differs from the stored pictures, for the provenance."""
    corrections: dict[str, object] = {"fill_gaps": True} if fill_gaps else {}
    if any(video.orientation):
        corrections["orientation"] = video.orientation._asdict()
    if video.pixel_aspect != 1:
        corrections["pixel_aspect"] = float(video.pixel_aspect)
    return corrections


def _truncation_problem(file: Path, video: decoding.Video) -> Problem:
    n_read = video.ticks.size
    return Problem(
        f"expected {n_read + video.n_lost} frames in {file.name}, as it states, got {n_read}: it breaks off",
        f"restore the file, or take what is there with n_frames={n_read}",
        "restore the file",
    )


def _gap_problem(file: Path, video: decoding.Video, gaps: list[decoding.Gap]) -> Problem:
    """Frames that are not equally spaced: lost ones, or a variable frame rate."""
    missing = [gap for gap in gaps if gap.n_missing is not None]
    if len(missing) < len(gaps):
        first = gaps[0].frame
        got = f"a variable frame rate in {file.name}, first between frames {first} and {first + 1}"
    else:
        n_missing = sum(gap.n_missing or 0 for gap in gaps)
        seconds = video.start_times / video.frame_rate
        places = [f"{gap.n_missing} after frame {gap.frame} at {seconds[gap.frame]:.3g} s" for gap in missing[:5]]
        places += ["..."] if len(missing) > 5 else []
        got = f"{file.name} without {n_missing} of {video.ticks.size + n_missing} frames: {', '.join(places)}"
    hint = "{} shows each frame until the next, as players do; {} takes the frames as equally spaced"
    return Problem(
        f"expected frames equally spaced in time, got {got}",
        hint.format("fill_gaps=True", "frame_rate=..."),
        hint.format("--fill-gaps", "--frame-rate 30"),
    )
