"""Whole files are read whole, also where their headers only guess how long they are, and cut ones are refused."""

import io
import struct
from pathlib import Path
from typing import Any

import av
import numpy as np
import PIL.Image
import pytest
import soundfile
from torch.testing import assert_close

from mmalign.errors import DataError
from mmalign.media import Audio, Video
from mmalign.media.mp3_files import Frames, frames_of
from mmalign.media.video_sound import read_sound

RATE, COUNT = 16_000, 40_000
random = np.random.default_rng(0)
SOUND = (0.2 * random.normal(size=COUNT) * np.abs(np.sin(np.arange(COUNT) / 4_000)) ** 3).astype(np.float32)
"""Loud and quiet, so that frames of a varying bit rate differ in size."""
PICTURES = random.integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)


def mp3(path: Path, **options: str) -> bytes:
    """By LAME through FFmpeg, which can leave the header of Xing out."""
    with av.open(str(path), "w", format="mp3", options={"id3v2_version": "0", **options}) as file:
        stream = file.add_stream("libmp3lame", rate=RATE, options={"q": "4"} if "q" in options else {})
        frame = av.AudioFrame.from_ndarray(SOUND[None], format="fltp", layout="mono")
        frame.sample_rate = RATE
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path.read_bytes()


@pytest.fixture(params=["counted", "uncounted", "varying", "tagged"])
def whole_mp3(tmp_path: Path, request: pytest.FixtureRequest) -> bytes:
    match request.param:
        case "counted":
            return mp3(tmp_path / "a.mp3")
        case "uncounted":
            return mp3(tmp_path / "a.mp3", write_xing="0")
        case "tagged":
            tag = b"ID3\3\0\0\0\0\1\0" + bytes(128)
            return tag + mp3(tmp_path / "a.mp3", write_xing="0") + b"TAG" + bytes(125)
    soundfile.write(tmp_path / "a.mp3", SOUND, RATE, format="MP3", bitrate_mode="VARIABLE")
    data = (tmp_path / "a.mp3").read_bytes()
    # Without its first frame, which counts the others: that one is as long as the sizes of all others say.
    first = data.index(data[:2], 4)
    assert frames_of(data[first:]) == Frames(frames_of(data).count, None, cut=False)
    return data[first:]


def test_an_mp3_is_read_to_its_end(tmp_path: Path, whole_mp3: bytes) -> None:
    (tmp_path / "b.mp3").write_bytes(whole_mp3)
    sound = Audio.load(tmp_path / "b.mp3")
    assert sound.sample_rate_hz == RATE
    assert COUNT <= sound.waveform.shape[1] < COUNT + 3 * 1152
    start = int(np.argmax(np.correlate(sound.waveform[0].numpy(), SOUND[:COUNT], "valid")))
    found = sound.waveform[0].numpy()[start : start + COUNT]
    assert np.corrcoef(found[-4_000:], SOUND[-4_000:])[0, 1] > 0.9  # its last quarter second too


def test_an_mp3_that_was_cut_is_refused(tmp_path: Path, whole_mp3: bytes) -> None:
    end = whole_mp3.rfind(b"TAG") if b"TAG" in whole_mp3 else len(whole_mp3)
    for share in (0.2, 0.5, 0.77, 0.95):
        (tmp_path / "b.mp3").write_bytes(whole_mp3[: int(share * end) + 3])
        with pytest.raises(DataError, match="ends too early"):
            Audio.load(tmp_path / "b.mp3")


def test_two_mp3s_behind_each_other_are_both_read(tmp_path: Path) -> None:
    data = mp3(tmp_path / "a.mp3")
    (tmp_path / "b.mp3").write_bytes(2 * data)
    assert Audio.load(tmp_path / "b.mp3").waveform.shape[1] > 2 * COUNT - 3 * 1152


def wav(size: int) -> bytes:
    data = (SOUND * 32_767).astype(np.int16).tobytes()
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, RATE, 2 * RATE, 2, 16)
    return b"RIFF" + struct.pack("<I", size) + b"WAVE" + form + b"data" + struct.pack("<I", size) + data


@pytest.mark.parametrize("size", [2 * COUNT, 0, 2**32 - 1, 2**32 - 1 - 36, 2**31 - 1, 2**31 - 37])
def test_a_wav_that_a_stream_wrote_is_read_to_its_end(tmp_path: Path, size: int) -> None:
    (tmp_path / "a.wav").write_bytes(wav(size))
    (tmp_path / "b.wav").write_bytes(wav(2 * COUNT))
    assert_close(
        Audio.load(tmp_path / "a.wav").waveform, Audio.load(tmp_path / "b.wav").waveform, rtol=0, atol=0
    )


@pytest.mark.parametrize("behind", [b"", b"LIST\4\0\0\0abcd"])
def test_a_wav_without_samples_is_empty(tmp_path: Path, behind: bytes) -> None:
    (tmp_path / "a.wav").write_bytes(wav(0)[:44] + behind)
    with pytest.raises(DataError, match="the sound is empty"):
        Audio.load(tmp_path / "a.wav")


def test_a_flac_that_a_stream_wrote_is_read_to_its_end(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", SOUND, RATE)
    data = bytearray((tmp_path / "a.flac").read_bytes())
    data[21] &= 0xF0
    data[22:26] = bytes(4)  # 36 bits of STREAMINFO: the number of samples is not known
    (tmp_path / "b.flac").write_bytes(data)
    assert_close(
        Audio.load(tmp_path / "b.flac").waveform, Audio.load(tmp_path / "a.flac").waveform, rtol=0, atol=1e-6
    )
    (tmp_path / "b.flac").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match="not a readable sound"):
        Audio.load(tmp_path / "b.flac")


def clip(path: Path, form: str, codec: str, *, first: int, sound: bool = False) -> None:
    """Six frames at 10 per second whose first is shown at ``first`` tenths of a second."""
    with av.open(str(path), "w", format=form) as file:
        stream: Any = file.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        heard = file.add_stream("aac", rate=RATE) if sound else None
        for number, pixels in enumerate(PICTURES):
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
            frame.pts = first + number
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
        if heard is not None:
            part = av.AudioFrame.from_ndarray(SOUND[None, :9_600], format="fltp", layout="mono")
            part.sample_rate = RATE
            file.mux(heard.encode(part))
            file.mux(heard.encode(None))


@pytest.mark.parametrize("first", [0, 7])
@pytest.mark.parametrize(
    ("form", "codec"), [("webm", "libvpx-vp9"), ("matroska", "mpeg4"), ("mp4", "libx264"), ("avi", "mpeg4")]
)
def test_a_video_that_begins_late_is_whole(tmp_path: Path, form: str, codec: str, first: int) -> None:
    path = tmp_path / "a.video"
    clip(path, form, codec, first=first)
    assert Video.load(path).frames.shape == (6, 3, 32, 32)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(DataError, match=r"ends too early|not a readable video"):
        Video.load(path)


def gif(path: Path) -> bytes:
    pictures = [PIL.Image.fromarray(pixels) for pixels in PICTURES]
    buffer = io.BytesIO()
    pictures[0].save(buffer, "GIF", save_all=True, append_images=pictures[1:], duration=100)
    path.write_bytes(buffer.getvalue())
    return buffer.getvalue()


@pytest.mark.parametrize("behind", [b"", b"made by x" + bytes(99)])
def test_a_gif_is_whole_whatever_stands_behind_its_end(tmp_path: Path, behind: bytes) -> None:
    (tmp_path / "b.gif").write_bytes(gif(tmp_path / "a.gif") + behind)
    assert Video.load(tmp_path / "b.gif").frames.shape == (6, 3, 32, 32)


def test_a_gif_that_was_cut_anywhere_is_refused(tmp_path: Path) -> None:
    data = gif(tmp_path / "a.gif")
    for end in range(20, len(data), 397):
        (tmp_path / "b.gif").write_bytes(data[:end])
        with pytest.raises(DataError, match=r"ends too early|not a readable video"):
            Video.load(tmp_path / "b.gif")


def test_the_sound_of_a_video_that_was_cut_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    clip(path, "matroska", "mpeg4", first=0, sound=True)
    assert read_sound(path).waveform.shape[1] >= 9_600
