"""Video files by FFmpeg (PyAV): H.264 in MP4, VP9 in WebM; read whole or refused."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmalign.errors import ConfigError, ShapeError
from mmalign.media.checks import check_size
from mmalign.media.decoding import BYTES_PER_FRAME_PIXEL, Growing

CODECS: dict[str, tuple[str, dict[str, str]]] = {
    ".mp4": ("libx264", {"preset": "medium"}),
    ".webm": ("libvpx-vp9", {"b:v": "0", "row-mt": "1", "cpu-used": "2"}),
}
CRF = 10
"""Constant quality, 0 to 51 in H.264 and to 63 in VP9; 0 is lossless, 18 is hard to tell from it by eye."""
BT709 = 1


def container(path: Path) -> str | None:
    """FFmpeg's name for the container, by the first bytes; None for what is no video container.

    The demuxer is chosen here and not by FFmpeg, some of whose formats are playlists that open other files.
    """
    with path.open("rb") as file:
        head = file.read(12)
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free"):
        return "mp4"
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return "matroska"
    return "avi" if head[:4] == b"RIFF" and head[8:12] == b"AVI " else None


def read(path: Path, form: str, *, max_pixels: int) -> tuple[Tensor, float]:
    """Frames [T, 3, H, W] in [0, 1] and the mean rate of a video file's first video stream.

    Raises:
        ShapeError: there is no frame, a frame is damaged or of another size, or the file ends too early.
        ConfigError: it has more than ``max_pixels``, or says no rate.
    """
    import av

    pictures: list[np.ndarray] = []
    pixels, last_s, first_s = 0, 0.0, float("inf")
    with path.open("rb") as file, av.open(file, "r", format=form) as opened:
        if not opened.streams.video:
            raise ShapeError("there is no video in it")
        stream = opened.streams.video[0]
        rate = stream.average_rate or stream.guessed_rate
        if not rate or stream.time_base is None:
            raise ConfigError("says no frame rate")
        area = stream.width * stream.height
        taken = Growing(BYTES_PER_FRAME_PIXEL * area * max(1, stream.frames))
        stream.codec_context.options = {"max_pixels": str(max_pixels)}  # of one frame, before it is decoded
        for packet in opened.demux(stream):
            if packet.is_corrupt:
                raise ShapeError(f"is damaged or ends too early, after {len(pictures)} frames")
            if packet.pts is not None:
                lasts_s = packet.duration * stream.time_base if packet.duration else 1 / rate
                first_s = min(first_s, float(packet.pts * stream.time_base))
                last_s = max(last_s, float(packet.pts * stream.time_base + lasts_s))
            for frame in packet.decode():
                pixels += frame.width * frame.height
                check_size(pixels, max_pixels, "pixels in all frames", "max_pixels")
                taken.reach(BYTES_PER_FRAME_PIXEL * pixels)
                pictures.append(_rgb(frame))
        promised_s = _promised_s(stream, form)
    if not pictures:
        raise ShapeError("holds no whole frame")
    # MP4 and AVI say how long the stream lasts, Matroska when it ends.
    shown_s = last_s if form == "matroska" else last_s - first_s
    if promised_s is not None and shown_s < promised_s - 0.75 / float(rate):
        raise ShapeError(f"ends too early: {shown_s:.2f} of {promised_s:.2f} seconds")
    return _stacked(pictures), float(rate)


def write(path: Path, suffix: str, frames: np.ndarray, rate: Fraction, *, crf: int = CRF) -> None:
    """Write uint8 [T, H, W, 3], tagged as BT.709 in limited range, with what players need at the front.

    Raises:
        ConfigError: a side is odd in MP4, or the encoder refuses the size.
    """
    import av

    codec, options = CODECS[suffix]
    height, width = frames.shape[1:3]
    if suffix == ".mp4" and (height % 2 or width % 2):
        raise ConfigError(
            f"the video is {width}x{height}, but H.264 in yuv420p has even sides; save it as .webm or .webp, or pad it"
        )
    try:
        moov_first = {"movflags": "+faststart"} if suffix == ".mp4" else {}
        with av.open(str(path), "w", format=suffix.removeprefix("."), options=moov_first) as opened:
            stream: Any = opened.add_stream(codec, rate=rate, options={**options, "crf": str(crf)})
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            context = stream.codec_context
            context.colorspace = context.color_primaries = context.color_trc = BT709
            for number, pixels in enumerate(frames):
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame = frame.reformat(
                    format="yuv420p",
                    dst_colorspace="ITU709",
                    dst_color_range="MPEG",
                    interpolation=_exact(),
                )
                frame.pts = number
                opened.mux(stream.encode(frame))
            opened.mux(stream.encode())
    except av.FFmpegError as error:
        raise ConfigError(
            f"{codec} cannot write {width}x{height} at {rate} frames per second ({error})"
        ) from None


def _exact() -> Any:
    """Scaling options of swscale without which decoded colours come out up to 3 of 255 too dark."""
    from av.video.reformatter import Interpolation

    return Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT


def _rgb(frame: Any) -> np.ndarray:
    """uint8 [H, W, 3] of a decoded frame, turned as the file says a camera was held."""
    if frame.is_corrupt:
        raise ShapeError("a frame is damaged")
    pixels: np.ndarray = frame.to_ndarray(format="rgb24", interpolation=_exact())
    return np.rot90(pixels, round(frame.rotation / 90)) if frame.rotation else pixels


def _promised_s(stream: Any, form: str) -> float | None:
    """Seconds that the header promises: MP4 and AVI count their frames, Matroska notes at its end when that was.

    Where Matroska notes nothing, FFmpeg may estimate a duration by the bit rate, which proves nothing.
    """
    if form != "matroska":
        return None if stream.duration is None else float(stream.duration * stream.time_base)
    try:
        hours, minutes, seconds = str(stream.metadata.get("DURATION")).split(":")
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    except ValueError:
        return None


def _stacked(pictures: Sequence[np.ndarray]) -> Tensor:
    """[T, 3, H, W] in [0, 1], filled frame by frame, so that no second copy is held."""
    height, width = pictures[0].shape[:2]
    frames = torch.empty(len(pictures), 3, height, width)
    for number, pixels in enumerate(pictures):
        if pixels.shape[:2] != (height, width):
            found = f"{pixels.shape[1]}x{pixels.shape[0]}"
            raise ShapeError(f"frame {number} is {found}, but the first is {width}x{height}")
        frames[number] = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)
    return frames.div_(255)
