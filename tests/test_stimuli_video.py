"""Videos as players show them: gaps, orientation, pixels that are not square, and damaged files."""

from __future__ import annotations

import shutil
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyxr import cli, provenance, schema, stimuli
from flyxr.stimuli import decoding
from flyxr.testing import write_video

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

LEVELS = np.arange(0, 256, 5)
PICTURE = np.zeros((32, 48), np.uint8)
PICTURE[:8, :16] = 255  # upper left
PICTURE[24:, :24] = 128  # lower left


def write_picture(
    path: Path,
    *,
    rotation: int = 0,
    is_mirrored: bool = False,
    pixel_aspect: Fraction = Fraction(1),
    matrix: list[int] | None = None,
) -> Path:
    """Write a video of three frames of one picture, with what the file asks players to do to it."""
    import av

    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25, options={"qp": "1"})
        stream.height, stream.width, stream.pix_fmt = *PICTURE.shape, "yuv420p"
        stream.codec_context.sample_aspect_ratio = pixel_aspect
        if matrix is not None:
            stream.set_display_matrix(matrix)
        elif rotation or is_mirrored:
            stream.set_display_rotation(rotation, hflip=is_mirrored)
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.stack([PICTURE] * 3, -1), format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("is_mirrored", [False, True])
def test_from_video__is_turned_as_players_do(rotation: int, is_mirrored: bool, tmp_path: Path) -> None:
    file = write_picture(tmp_path / "phone.mp4", rotation=rotation, is_mirrored=is_mirrored)
    movie = stimuli.from_video(file)
    expected = np.rot90(PICTURE, rotation // 90)
    expected = expected[:, ::-1] if is_mirrored else expected
    np.testing.assert_allclose(movie.luminance[0, 1], expected / 255, atol=0.05)
    recorded = provenance.steps(movie)[-1]["arguments"]
    assert ("orientation" in recorded) == (rotation != 0 or is_mirrored)
    schema.validate(movie, "movie")


@pytest.mark.parametrize(("aspect", "shape"), [(Fraction(4, 3), (32, 64)), (Fraction(1, 2), (64, 48))])
def test_from_video__has_square_pixels(aspect: Fraction, shape: tuple[int, int], tmp_path: Path) -> None:
    movie = stimuli.from_video(write_picture(tmp_path / "wide.mp4", pixel_aspect=aspect))
    assert movie.luminance.shape[2:] == shape
    assert movie.luminance[0, 0, 2, 8] > 0.95
    assert movie.luminance[0, 0, 2, -8] < 0.05
    assert provenance.steps(movie)[-1]["arguments"]["pixel_aspect"] == pytest.approx(float(aspect))
    assert stimuli.from_video(tmp_path / "wide.mp4", size=(8, 8)).luminance.shape[2:] == (8, 8)


def test_from_video__turned_by_another_angle(tmp_path: Path) -> None:
    file = write_picture(tmp_path / "tilted.mp4", rotation=30)
    with pytest.raises(schema.SchemaError, match=r"tilted\.mp4 .*no rotation by a multiple of 90 degrees.*ffmpeg"):
        stimuli.from_video(file)


def ticks_without(lost: range, n_frames: int = 30) -> NDArray[np.int64]:
    return np.delete(np.arange(n_frames), lost)


@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [
        ("lost.avi", "mpeg4", 25),
        ("lost.mp4", "mpeg4", 25),
        ("lost.mkv", "libx264", 1000),
        ("lost.mkv", "libx264", 30),
        ("lost.mkv", "libx264", 500),
        ("lost.webm", "libvpx", 25),
    ],
)
def test_from_video__lost_frames_are_found_whatever_the_clock(name: str, codec: str, rate: int, tmp_path: Path) -> None:
    ticks = ticks_without(range(10, 14))
    levels = ticks * 8
    file = write_video(tmp_path / name, levels, codec=codec, frame_rate=rate, ticks=ticks)
    with pytest.raises(schema.SchemaError, match=r"without 4 of 30 frames: 4 after frame 9 at .*frame_rate=\.\.\."):
        stimuli.from_video(file)
    filled = stimuli.from_video(file, fill_gaps=True, frame_chunk=7)
    expected = np.where((np.arange(30) >= 10) & (np.arange(30) < 14), 9, np.arange(30)) * 8
    np.testing.assert_allclose(filled.luminance.mean(("y", "x"))[0] * 255, expected, atol=6)
    assert schema.time_step(filled) == pytest.approx(1 / rate)
    assert provenance.steps(filled)[-1]["arguments"]["fill_gaps"] is True
    as_they_are = stimuli.from_video(file, frame_rate=rate)
    assert as_they_are.sizes["time"] == 26
    assert stimuli.from_video(file, n_frames=10).sizes["time"] == 10  # before the gap


@pytest.mark.parametrize(
    ("name", "rate"), [("a.mkv", 30), ("a.mkv", 960), ("a.mkv", 400), ("a.mp4", 25), ("a.avi", 30)]
)
def test_from_video__rounded_times_are_no_gaps(name: str, rate: int, tmp_path: Path) -> None:
    movie = stimuli.from_video(write_video(tmp_path / name, LEVELS, frame_rate=rate))
    assert movie.sizes["time"] == LEVELS.size


@given(st.fractions(1, 9, max_denominator=40), st.integers(3, 60), st.integers(0, 1000), st.data())
def test_find_gaps__of_a_coarse_clock(spacing: Fraction, n_frames: int, phase: int, data: st.DataObject) -> None:
    exact = [spacing * frame + Fraction(phase, 1000) for frame in range(n_frames)]
    ticks = np.array([round(tick) for tick in exact])
    video = decoding.Video(ticks, spacing, 25.0, 0, 4, 4, Fraction(1), decoding.Orientation())
    assert decoding.find_gaps(video) == []
    frame = data.draw(st.integers(1, n_frames - 2))
    lost = video._replace(ticks=np.delete(ticks, frame))
    if spacing > 2 * (1 - Fraction(1, spacing.denominator)):  # else a lost frame may look like rounding
        assert [gap.frame for gap in decoding.find_gaps(lost)] == [frame - 1]
        np.testing.assert_array_equal(np.delete(decoding.fill_gaps(lost), frame), lost.ticks)


def test_render__fills_gaps_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ticks = ticks_without(range(10, 14))
    file = str(write_video(tmp_path / "lost.avi", ticks * 8, ticks=ticks))
    assert cli.main(["render", file, str(tmp_path / "r.zarr"), "--extent", "1"]) == 2
    assert "--fill-gaps shows each frame until the next" in capsys.readouterr().err
    assert cli.main(["render", file, str(tmp_path / "r.zarr"), "--extent", "1", "--fill-gaps"]) == 0


@pytest.mark.parametrize(("name", "codec"), [("whole.avi", "png"), ("whole.mkv", "libx264")])
def test_from_video__that_breaks_off(name: str, codec: str, tmp_path: Path) -> None:
    levels = np.random.default_rng(0).integers(0, 255, 60)
    whole = write_video(tmp_path / name, levels, codec=codec)
    cut = tmp_path / f"cut_{name}"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    with pytest.raises(
        schema.SchemaError, match=rf"expected \d+ frames in {cut.name}, .* got \d+: it breaks off"
    ) as error:
        stimuli.from_video(cut)
    n_read = int(str(error.value).split("n_frames=")[1])
    grey = stimuli.from_video(cut, n_frames=n_read - 1).luminance.mean(("y", "x"))[0]
    np.testing.assert_allclose(grey, levels[: n_read - 1] / 255, atol=0.02)


def test_from_video__damaged_in_the_middle_says_what_can_be_read(tmp_path: Path) -> None:
    file = write_video(tmp_path / "damaged.avi", LEVELS, codec="png")
    content = bytearray(file.read_bytes())
    position = content.find(b"IDAT", len(content) // 2) + 8
    content[position : position + 10] = b"\0" * 10
    file.write_bytes(content)
    movie = stimuli.from_video(file)
    with pytest.raises(
        schema.SchemaError, match=r"frames from number 0 on can be decoded\): n_frames=\d+ takes"
    ) as error:
        movie.luminance.compute()
    n_whole = int(str(error.value).split("n_frames=")[1].split()[0])
    assert n_whole == content[:position].count(b"IDAT") - 1
    grey = stimuli.from_video(file, n_frames=n_whole).luminance.mean(("y", "x"))[0]
    np.testing.assert_allclose(grey, LEVELS[:n_whole] / 255, atol=0.01)


def test_from_video__of_other_content(tmp_path: Path) -> None:
    import av

    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream: Any = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with av.open(str(tmp_path / "none.mp4"), "w") as container:
        container.add_stream("mpeg4", rate=25)
        container.start_encoding()
    (tmp_path / "empty.mp4").touch()
    shutil.copy(__file__, tmp_path / "text.mp4")
    whole = write_video(tmp_path / "whole.mp4", LEVELS)
    (tmp_path / "cut.mp4").write_bytes(whole.read_bytes()[:-100])
    messages = {
        "sound.mp4": "no video stream, but 1 of another kind, such as audio",
        "none.mp4": "",
        "empty.mp4": "",
        "text.mp4": "",
        "cut.mp4": "",
    }
    for name, message in messages.items():
        with pytest.raises(schema.SchemaError, match=rf"expected a video that FFmpeg reads, got {name} \(.*{message}"):
            stimuli.from_video(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="found no file"):
        stimuli.from_video(tmp_path)


@pytest.mark.parametrize("size", [3, "8x8", (8,), (0, 8)])
def test_from_video__bad_size(size: Any, tmp_path: Path) -> None:
    with pytest.raises(schema.SchemaError, match=r"expected (size as \(height, width\)|height)"):
        stimuli.from_video(write_picture(tmp_path / "a.mp4"), size=size)
