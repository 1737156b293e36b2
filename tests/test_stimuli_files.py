"""Movies from files: Moving MNIST over a local server, and videos."""

from __future__ import annotations

import io
import pickle
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from flyxr import identity, schema, stimuli
from flyxr.stimuli import decoding
from flyxr.testing import write_video

if TYPE_CHECKING:
    from pathlib import Path

FRAMES = np.random.default_rng(0).integers(0, 256, (5, 7, 16, 16), dtype=np.uint8)


@pytest.fixture
def server(file_server: Any) -> Any:
    """Server of a small file in the layout of Moving MNIST."""
    content = io.BytesIO()
    np.save(content, FRAMES)
    file_server.body = content.getvalue()
    return file_server


# moving_mnist


def test_moving_mnist__downloads_once(server: Any, tmp_path: Path) -> None:
    cache = tmp_path / "new" / "cache"
    movie = stimuli.moving_mnist(url=server.url, cache=cache, frame_rate=25)
    schema.validate(movie, "movie")
    expected = FRAMES.swapaxes(0, 1).astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(movie.luminance, expected)
    assert schema.time_step(movie) == 0.04
    stimuli.moving_mnist(url=server.url, cache=cache)
    assert server.n_requests == 1
    assert [file.name for file in cache.iterdir()] == ["mnist_test_seq.npy"]


@pytest.mark.parametrize("sends_length", [True, False])
@pytest.mark.parametrize("n_cut", [1, 5000, 9000])
def test_moving_mnist__interrupted_download_is_not_kept(
    server: Any, tmp_path: Path, n_cut: int, sends_length: bool
) -> None:
    server.n_cut, server.sends_length = n_cut, sends_length
    cache = tmp_path / "cache"
    with pytest.raises(ConnectionError, match="call again, .*download"):
        stimuli.moving_mnist(url=server.url, cache=cache, progressbar=False)
    assert list(cache.iterdir()) == []
    server.n_cut = 0
    assert stimuli.moving_mnist(url=server.url, cache=cache, progressbar=False).sizes["sample"] == 7


def test_moving_mnist__foreign_download_is_not_kept(server: Any, tmp_path: Path) -> None:
    server.body = b"<html>not found</html>"
    with pytest.raises(ConnectionError, match="expected Moving MNIST"):
        stimuli.moving_mnist(url=server.url, cache=tmp_path / "cache", progressbar=False)
    assert list((tmp_path / "cache").iterdir()) == []


def test_moving_mnist__no_server(server: Any, tmp_path: Path) -> None:
    server.status = 404
    with pytest.raises(ConnectionError, match=r"404.*moving_digits"):
        stimuli.moving_mnist(url=server.url, cache=tmp_path / "cache", progressbar=False)


def test_moving_mnist__broken_cache_is_refused(server: Any, tmp_path: Path) -> None:
    (tmp_path / "mnist_test_seq.npy").write_bytes(server.body[:-1])
    with pytest.raises(schema.SchemaError, match=r"from_array.*delete a broken download, then moving_mnist\(\)"):
        stimuli.moving_mnist(url=server.url, cache=tmp_path)


@pytest.mark.parametrize(
    ("content", "got"),
    [
        (FRAMES[0], r"uint8 of shape \(7, 16, 16\)"),
        (FRAMES.astype(float), r"float64 of shape \(5, 7, 16, 16\)"),
        (FRAMES[:0], r"shape \(0, 7, 16, 16\)"),
        (np.array([{}], dtype=object), "not a complete .npy array"),
        (b"", "0 bytes that are not a complete"),
        (b"hello there", "11 bytes that are not a complete"),
        (b"cut", "not a complete .npy array"),
        (b"long", "4 bytes more than its header states"),
        (b"zip", "an archive"),
    ],
)
def test_moving_mnist__broken_or_foreign_file(content: Any, got: str, tmp_path: Path) -> None:
    file = tmp_path / "frames.npy"
    if isinstance(content, np.ndarray):
        np.save(file, content)
    elif content == b"zip":
        with file.open("wb") as stream:
            np.savez(stream, a=FRAMES)
    else:
        np.save(file, FRAMES)
        whole = file.read_bytes()
        file.write_bytes({b"cut": whole[:-1], b"long": whole + b"more"}.get(content, content))
    with pytest.raises(schema.SchemaError, match=got) as caught:
        stimuli.moving_mnist(file)
    assert "expected Moving MNIST" in str(caught.value)
    assert "delete a broken download" in str(caught.value)


def test_moving_mnist__missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="leave path out to download"):
        stimuli.moving_mnist(tmp_path / "missing.npy")


def test_moving_mnist__bad_arguments(tmp_path: Path) -> None:
    with pytest.raises(schema.SchemaError, match=r"frame_rate(.|\n)*sample_chunk"):
        stimuli.moving_mnist(tmp_path, frame_rate=0, sample_chunk=0)


def test_moving_mnist__lazy_and_never_whole_in_memory(tmp_path: Path, counting_scheduler: Any) -> None:
    import dask

    large = np.lib.format.open_memmap(tmp_path / "large.npy", "w+", np.uint8, (20, 2000, 64, 64))
    large[:, 1234] = 255
    large.flush()
    movie = stimuli.moving_mnist(tmp_path / "large.npy")
    assert counting_scheduler.calls == 0
    assert len(pickle.dumps(movie)) < 200_000
    assert movie.luminance.data.chunksize == (16, 20, 64, 64)
    with dask.config.set(scheduler="synchronous"):
        import tracemalloc

        tracemalloc.start()
        pixels = movie.luminance.isel(sample=[1233, 1234], time=3, y=0, x=0).values
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    np.testing.assert_array_equal(pixels, [0, 1])
    assert peak < 3e7


@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
def test_moving_mnist__chunked_equals_whole(chunk: int, tmp_path: Path) -> None:
    np.save(tmp_path / "few.npy", FRAMES)
    movie = stimuli.moving_mnist(tmp_path / "few.npy", sample_chunk=chunk)
    np.testing.assert_array_equal(movie.luminance, FRAMES.swapaxes(0, 1) / np.float32(255))


# from_video


LEVELS = np.arange(0, 256, 5)


@pytest.mark.parametrize(("suffix", "codec"), [("mp4", "libx264"), ("mkv", "libx264"), ("avi", "mpeg4")])
def test_from_video__frames_and_time(suffix: str, codec: str, tmp_path: Path) -> None:
    movie = stimuli.from_video(write_video(tmp_path / f"grey.{suffix}", LEVELS, codec=codec), frame_chunk=5)
    schema.validate(movie, "movie")
    assert movie.luminance.shape == (1, len(LEVELS), 32, 48)
    assert movie.luminance.dtype == np.float32
    assert schema.time_step(movie) == 0.04
    grey = movie.luminance.mean(("y", "x")).values[0]
    np.testing.assert_allclose(grey, LEVELS / 255, atol=0.012)
    assert movie.luminance.min() == pytest.approx(0, abs=0.005)
    assert movie.luminance.max() == pytest.approx(1, abs=0.005)


@pytest.mark.parametrize("chunk", [1, 3, 7, 11, 100])
def test_from_video__chunked_equals_whole(chunk: int, tmp_path: Path) -> None:
    file = write_video(tmp_path / "grey.mp4", LEVELS, codec="libx264")
    whole = stimuli.from_video(file, frame_chunk=1000).luminance
    np.testing.assert_array_equal(stimuli.from_video(file, frame_chunk=chunk).luminance, whole)


def test_from_video__frames_are_decoded_when_computed(tmp_path: Path, counting_scheduler: Any) -> None:
    movie = stimuli.from_video(write_video(tmp_path / "grey.mp4", LEVELS, codec="libx264"), frame_chunk=4)
    assert counting_scheduler.calls == 0
    assert movie.luminance.data.chunksize == (1, 4, 32, 48)


def test_from_video__n_frames_frame_rate_and_size(tmp_path: Path) -> None:
    file = write_video(tmp_path / "grey.mp4", LEVELS, codec="libx264")
    movie = stimuli.from_video(file, n_frames=6, frame_rate=100, size=(8, 12))
    assert movie.luminance.shape == (1, 6, 8, 12)
    assert schema.time_step(movie) == 0.01
    np.testing.assert_allclose(movie.luminance.mean(("y", "x"))[0], LEVELS[:6] / 255, atol=0.012)


def test_from_video__colours_become_luma(tmp_path: Path) -> None:
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    file = write_video(tmp_path / "colours.avi", np.array(colours), codec="png")
    grey = stimuli.from_video(file).luminance.mean(("y", "x"))[0]
    np.testing.assert_allclose(grey, [0.299, 0.587, 0.114], atol=0.01)


def test_from_video__variable_frame_rate(tmp_path: Path) -> None:
    ticks = np.cumsum(np.where(np.arange(len(LEVELS)) % 7 == 3, 4, 1))
    file = write_video(tmp_path / "variable.mp4", LEVELS, ticks=ticks)
    with pytest.raises(
        schema.SchemaError, match=r"without 21 of 73 frames: 3 after frame 2 at 0\.08 s.*frame_rate=\.\.\."
    ):
        stimuli.from_video(file)
    movie = stimuli.from_video(file, frame_rate=25, frame_chunk=5)
    np.testing.assert_allclose(movie.luminance.mean(("y", "x"))[0], LEVELS / 255, atol=0.012)


def test_from_video__not_a_video(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="found no file"):
        stimuli.from_video(tmp_path / "missing.mp4")
    text = tmp_path / "text.mp4"
    text.write_text("not a video")
    cut = write_video(tmp_path / "cut.mp4", LEVELS)
    cut.write_bytes(cut.read_bytes()[:1000])
    for file in (text, cut):
        with pytest.raises(schema.SchemaError, match=r"expected a video.*from_array"):
            stimuli.from_video(file)


def test_from_video__changed_file(tmp_path: Path) -> None:
    file = write_video(tmp_path / "grey.avi", LEVELS, codec="mpeg4")
    movie = stimuli.from_video(file)
    write_video(file, LEVELS[:9], codec="mpeg4")
    with pytest.raises(identity.ChangedError, match=r"grey.avi has changed since it was opened: open it again"):
        movie.luminance.compute()


def test_decode_frames__damaged_file(tmp_path: Path) -> None:
    file, ticks = write_video(tmp_path / "grey.avi", LEVELS[:9]), np.arange(len(LEVELS))
    with pytest.raises(schema.SchemaError, match="9 of 52 frames from number 0 on can be decoded"):
        decoding.decode_frames(str(file), ticks, start=0, stop=52)
    file.write_text("not a video any more")
    with pytest.raises(schema.SchemaError, match="expected a video that FFmpeg reads, got grey.avi"):
        decoding.decode_frames(str(file), ticks, start=0, stop=52)


def test_decode_frames__reads_from_the_start_if_seeking_fails(tmp_path: Path) -> None:
    file, ticks = str(write_video(tmp_path / "grey.avi", LEVELS)), np.arange(len(LEVELS))

    def seek_past(*args: Any, seek: bool) -> dict[int, np.ndarray]:
        return {} if seek else decoding.read_frames(*args, seek=False)

    frames = decoding.decode_frames(file, ticks, start=20, stop=40, read=seek_past)
    np.testing.assert_array_equal(frames, decoding.decode_frames(file, ticks, start=20, stop=40))
    np.testing.assert_allclose(frames.mean((1, 2)), LEVELS[20:40], atol=3)


def test_from_video__bad_arguments(tmp_path: Path) -> None:
    file = write_video(tmp_path / "grey.mp4", LEVELS, codec="libx264")
    with pytest.raises(schema.SchemaError, match=r"frame_rate(.|\n)*n_frames(.|\n)*height"):
        stimuli.from_video(file, n_frames=0, frame_rate=-1, size=(0, 4))
    with pytest.raises(schema.SchemaError, match="n_frames up to 52"):
        stimuli.from_video(file, n_frames=53)


def test_from_video__without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty.mp4").touch()
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImportError, match=r"pip install 'flyxr\[video\]'"):
        stimuli.from_video(tmp_path / "empty.mp4")
