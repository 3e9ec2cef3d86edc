"""Videos keep their frames, their rate and their colours, in files that other programs read and write."""

import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import PIL.Image
import pytest
import torch
from PIL import ImageSequence

from mmalign.errors import ConfigError, DataError, NonFiniteError, ShapeError
from mmalign.media import Image, Video

T, H, W = 5, 48, 64
SUFFIXES = ["mp4", "webm", "gif", "webp"]


def moving_square() -> torch.Tensor:
    """A bright square on a coloured slope, another place in each frame; everything on a grid of two pixels."""
    frames = torch.empty(T, 3, H, W)
    frames[:, 0] = torch.linspace(0.1, 0.5, W)
    frames[:, 1] = torch.linspace(0.2, 0.6, H)[:, None]
    frames[:, 2] = 0.3
    for t in range(T):
        frames[t, :, 10:26, 4 + 8 * t : 20 + 8 * t] = torch.tensor([0.9, 0.7, 0.2])[:, None, None]
    return frames


VIDEO = Video(moving_square(), 12.5)


def seen_by_another_reader(path: Path) -> tuple[np.ndarray, float]:
    """Frames [T, H, W, 3] in 0..255 and rate, by PyAV or Pillow alone."""
    if path.suffix in (".gif", ".webp"):
        with PIL.Image.open(path) as opened:
            frames = [
                (np.array(frame.convert("RGB")), frame.info["duration"])
                for frame in ImageSequence.Iterator(opened)
            ]
        return np.stack([pixels for pixels, _ in frames]), 1000 * len(frames) / sum(
            time for _, time in frames
        )
    with av.open(path) as container:
        stream = container.streams.video[0]
        assert stream.average_rate is not None
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]), float(
            stream.average_rate
        )


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_another_reader_sees_the_same_frames(tmp_path: Path, suffix: str) -> None:
    VIDEO.save(tmp_path / f"a.{suffix}")
    frames, fps = seen_by_another_reader(tmp_path / f"a.{suffix}")
    assert frames.shape == (T, H, W, 3)
    assert fps == 12.5
    error = np.abs(frames.transpose(0, 3, 1, 2) / 255 - VIDEO.frames.numpy())
    assert error.mean() < 0.015
    assert np.median(error) < 0.01


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_saved_comes_back(tmp_path: Path, suffix: str) -> None:
    VIDEO.save(tmp_path / f"a.{suffix}")
    video = Video.load(tmp_path / f"a.{suffix}")
    assert video.frames.shape == VIDEO.frames.shape
    assert video.fps == 12.5
    worst = {"webp": 0.5 / 255 + 1e-6, "gif": 0.1}.get(suffix, 0.4)
    assert (video.frames - VIDEO.frames).abs().max() <= worst
    assert (video.frames - VIDEO.frames).mean((0, 2, 3)).abs().max() < 1 / 255, (
        "no channel got darker or lighter"
    )


def test_an_mp4_is_what_every_player_opens(tmp_path: Path) -> None:
    VIDEO.save(tmp_path / "a.mp4")
    with av.open(tmp_path / "a.mp4") as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        assert (context.colorspace, context.color_primaries, context.color_trc, context.color_range) == (
            1,
            1,
            1,
            1,
        )
        times = [frame.time for frame in container.decode(stream)]
    np.testing.assert_allclose(np.diff(times), 1 / 12.5, rtol=1e-3)
    data = (tmp_path / "a.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat"), "a browser starts before the file has arrived"


@pytest.mark.parametrize("suffix", ["mp4", "webm"])
@pytest.mark.parametrize("colour", [(200, 30, 60), (12, 240, 99), (255, 255, 255), (0, 0, 0), (30, 60, 220)])
def test_colours_are_those_of_bt709_in_limited_range(
    tmp_path: Path, suffix: str, colour: tuple[int, int, int]
) -> None:
    """Y = 16 + 219 L, Cb = 128 + 224 (B - L) / 1.8556, Cr = 128 + 224 (R - L) / 1.5748; L = luma, below."""
    red, green, blue = (value / 255 for value in colour)
    frames = torch.tensor([red, green, blue])[None, :, None, None].expand(2, 3, 32, 32)
    Video(frames, 8.0).save(tmp_path / f"a.{suffix}")
    with av.open(tmp_path / f"a.{suffix}") as container:
        planes = next(
            container.decode(video=0)
        ).to_ndarray()  # [H * 3 / 2, W]: Y, then Cb and Cr at half size
    luma = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    expected = [16 + 219 * luma, 128 + 224 * (blue - luma) / 1.8556, 128 + 224 * (red - luma) / 1.5748]
    found = [planes[16, 16], planes[32 + 4, 4], planes[32 + 12, 4]]
    np.testing.assert_allclose(found, expected, atol=2)
    back = Video.load(tmp_path / f"a.{suffix}").frames[:, :, 16, 16] * 255
    torch.testing.assert_close(back, torch.tensor(colour).float().expand(2, 3), atol=3, rtol=0)


@pytest.mark.parametrize(
    ("codec", "pixels", "suffix"),
    [("libx265", "yuv420p", "mp4"), ("ffv1", "bgr0", "mkv"), ("mpeg4", "yuv420p", "avi")],
)
def test_what_another_writer_wrote_is_read(tmp_path: Path, codec: str, pixels: str, suffix: str) -> None:
    array = (VIDEO.frames * 255).round().byte().permute(0, 2, 3, 1).numpy()
    options = {"x265-params": "log-level=error"} if codec == "libx265" else {}
    with av.open(tmp_path / f"a.{suffix}", "w") as container:
        stream: Any = container.add_stream(
            codec, rate=Fraction(25, 2), options=options, width=W, height=H, pix_fmt=pixels
        )
        stream.bit_rate = 4_000_000
        for frame in array:
            container.mux(
                stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24"))
            )
        container.mux(stream.encode())
    video = Video.load(tmp_path / f"a.{suffix}")
    assert (video.fps, tuple(video.frames.shape)) == (12.5, (T, 3, H, W))
    assert (video.frames - VIDEO.frames).abs().mean() < (0.5 / 255 if codec == "ffv1" else 0.02)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_one_frame_is_a_video(tmp_path: Path, suffix: str) -> None:
    Video(VIDEO.frames[:1], 25.0).save(tmp_path / f"a.{suffix}")
    video = Video.load(tmp_path / f"a.{suffix}")
    assert video.frames.shape == (1, 3, H, W)
    assert video.fps == (10.0 if suffix == "webp" else 25.0)
    assert (video.frames - VIDEO.frames[:1]).abs().mean() < 0.02


@pytest.mark.parametrize("suffix", ["mp4", "webm"])
def test_a_video_in_which_nothing_moves_keeps_its_length(tmp_path: Path, suffix: str) -> None:
    Video(VIDEO.frames[:1].expand(7, -1, -1, -1), 24_000 / 1001).save(tmp_path / f"a.{suffix}")
    video = Video.load(tmp_path / f"a.{suffix}")
    assert len(video.frames) == 7
    assert video.fps == pytest.approx(24_000 / 1001, rel=1e-3)


@pytest.mark.parametrize("suffix", ["gif", "webp"])
def test_frames_that_an_animation_joined_are_told_apart_by_their_time(tmp_path: Path, suffix: str) -> None:
    order = [0, 1, 1, 1, 2, 3]
    Video(VIDEO.frames[order], 10.0).save(tmp_path / f"a.{suffix}")
    assert len(seen_by_another_reader(tmp_path / f"a.{suffix}")[0]) == 4
    video = Video.load(tmp_path / f"a.{suffix}")
    assert (len(video.frames), video.fps) == (6, 10.0)
    assert (video.frames - VIDEO.frames[order]).abs().mean() < 0.01


@pytest.mark.parametrize(
    ("times_ms", "count", "fps"),
    [
        ([33, 34, 33, 33], 4, 1000 / 33.25),
        ([40, 80, 40], 4, 25.0),
        ([80, 120, 80], 7, 25.0),
        ([0, 0, 0], 3, 10.0),
    ],
)
def test_frame_times_become_one_rate(tmp_path: Path, times_ms: list[int], count: int, fps: float) -> None:
    pictures = [PIL.Image.new("RGB", (8, 8), (60 * i, 0, 0)) for i in range(len(times_ms))]
    pictures[0].save(
        tmp_path / "a.webp", save_all=True, append_images=pictures[1:], duration=times_ms, lossless=True
    )
    video = Video.load(tmp_path / "a.webp")
    assert len(video.frames) == count
    assert video.fps == pytest.approx(fps)


def test_a_phone_held_upright_gives_an_upright_video(tmp_path: Path) -> None:
    """The track header's matrix turns the picture by 90 degrees clockwise: x' = -y, y' = x."""
    VIDEO.save(tmp_path / "a.mp4")
    data = bytearray((tmp_path / "a.mp4").read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    one = 1 << 16
    data[at : at + 36] = struct.pack(">9i", 0, one, 0, -one, 0, 0, H * one, 0, 1 << 30)
    (tmp_path / "b.mp4").write_bytes(data)
    turned = Video.load(tmp_path / "b.mp4").frames
    assert torch.equal(turned, Video.load(tmp_path / "a.mp4").frames.rot90(-1, (2, 3)))


def test_a_rate_that_was_not_asked_for_is_refused_or_converted(tmp_path: Path) -> None:
    VIDEO.save(tmp_path / "a.webp")
    with pytest.raises(DataError, match=r"a\.webp: fps = 12\.5, but 25 is wanted; resample=True"):
        Video.load(tmp_path / "a.webp", fps=25)
    twice = Video.load(tmp_path / "a.webp", fps=25, resample=True)
    assert torch.equal(twice.frames, Video.load(tmp_path / "a.webp").frames.repeat_interleave(2, 0))
    assert twice.duration_s == VIDEO.duration_s
    with pytest.raises(ConfigError, match=r"has 5 frames at 12\.5 per second, but 9 are wanted"):
        VIDEO.at(12.5, frames=9)
    assert VIDEO.at(12.5, frames=5) is VIDEO


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_video_that_ends_too_early_is_not_judged_in_part(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"a.{suffix}"
    VIDEO.save(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(DataError, match=r"ends too early|not a readable|no whole frame"):
        Video.load(path)


def test_an_animation_that_ends_between_two_frames_is_refused_too(tmp_path: Path) -> None:
    """What is left of it is sound but for the byte that closes a GIF; with one frame left it would be a still."""
    VIDEO.save(tmp_path / "a.gif")
    data = (tmp_path / "a.gif").read_bytes()
    frames = [at for at in range(len(data)) if data.startswith(b"\x21\xf9\x04", at)]  # each opens a frame
    assert len(frames) == T
    for end in frames[1:]:
        (tmp_path / "b.gif").write_bytes(data[:end])
        for kind in (Video, Image):
            with pytest.raises(DataError, match="ends too early"):
                kind.load(tmp_path / "b.gif")


def test_a_last_packet_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    VIDEO.save(tmp_path / "a.mp4")
    (tmp_path / "a.mp4").write_bytes((tmp_path / "a.mp4").read_bytes()[:-1])
    with pytest.raises(DataError, match=r"is damaged or ends too early, after \d frames"):
        Video.load(tmp_path / "a.mp4")


def test_a_video_too_large_for_memory_is_refused_with_the_limit(tmp_path: Path) -> None:
    for suffix in ("mp4", "webp"):
        VIDEO.save(tmp_path / f"a.{suffix}")
        assert len(Video.load(tmp_path / f"a.{suffix}", max_pixels=T * H * W).frames) == T
        with pytest.raises(DataError, match=r"pixels in all frames, the limit is 15,359; .*max_pixels="):
            Video.load(tmp_path / f"a.{suffix}", max_pixels=T * H * W - 1)
    with pytest.raises(
        DataError, match="not a readable video"
    ):  # refused by the decoder, before it decodes a frame
        Video.load(tmp_path / "a.mp4", max_pixels=100)


def test_odd_sides_are_refused_in_mp4_and_kept_elsewhere(tmp_path: Path) -> None:
    odd = Video(VIDEO.frames[:, :, :47, :63], 8.0)
    with pytest.raises(ConfigError, match=r"63x47, but H\.264 in yuv420p has even sides; save it as \.webm"):
        odd.save(tmp_path / "a.mp4")
    for suffix in ("webm", "webp", "gif"):
        odd.save(tmp_path / f"a.{suffix}")
        assert Video.load(tmp_path / f"a.{suffix}").frames.shape == odd.frames.shape
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.gif", "a.webm", "a.webp"]


def test_what_a_format_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a GIF shows 50 frames per second at most, got 60"):
        Video(VIDEO.frames, 60.0).save(tmp_path / "a.gif")
    with pytest.raises(ConfigError, match=r"a video is saved as \.mp4, \.webm, \.gif, \.webp"):
        VIDEO.save(tmp_path / "a.mov")
    assert not list(tmp_path.iterdir())


def test_a_playlist_does_not_open_other_files(tmp_path: Path) -> None:
    VIDEO.save(tmp_path / "a.mp4")
    for text in (
        "ffconcat version 1.0\nfile a.mp4\n",
        f"#EXTM3U\n#EXTINF:1,\n{tmp_path}/a.mp4\n#EXT-X-ENDLIST\n",
    ):
        (tmp_path / "b.mp4").write_text(text)
        with pytest.raises(DataError, match=r"b\.mp4: not a readable video"):
            Video.load(tmp_path / "b.mp4")


def test_a_file_without_pictures_is_no_video(tmp_path: Path) -> None:
    with av.open(tmp_path / "a.mp4", "w") as container:
        stream = container.add_stream("aac", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(DataError, match=r"a\.mp4: there is no video in it"):
        Video.load(tmp_path / "a.mp4")


@pytest.mark.parametrize("shape", [(3, 4, 6), (0, 3, 4, 6), (2, 1, 4, 6), (2, 4, 6, 3)])
def test_frames_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"frames: expected \[T, 3, H, W\]"):
        Video(torch.zeros(shape), 8.0)


@pytest.mark.parametrize("fps", [0.0, -8.0, float("nan"), float("inf"), 1e9])
def test_a_rate_is_a_sensible_number(fps: float) -> None:
    with pytest.raises(ConfigError, match=r"expected 0\.01 to 1000 frames per second"):
        Video(VIDEO.frames, fps)


def test_a_frame_with_nan_is_refused() -> None:
    frames = VIDEO.frames.clone()
    frames[3, 1, 2, 2] = torch.nan
    with pytest.raises(NonFiniteError, match="frames: 1 of 46080 values"):
        Video(frames, 8.0)
