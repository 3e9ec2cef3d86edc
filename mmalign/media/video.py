"""Moving pictures: frames in [0, 1] at a constant rate."""

from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from mmalign.errors import ConfigError
from mmalign.files import whole_file
from mmalign.media import animations, video_files
from mmalign.media.checks import MAX_VIDEO_PIXELS, Modality, check_values, to_8_bits
from mmalign.media.reading import check_suffix, reading
from mmalign.suffixes import VIDEO_SUFFIXES as VIDEO_SUFFIXES

WRITTEN_SUFFIXES = (".mp4", ".webm", ".gif", ".webp")
SLOWEST_FPS, FASTEST_FPS = 0.01, 1000.0


@dataclass(frozen=True, eq=False)
class Video:
    """Frames that follow each other at a constant rate, without sound; one frame is a video too.

    Args:
        frames: [T, 3, H, W] in [0, 1], RGB.
        fps: frames per second, 0.01 to 1000.

    Raises:
        ShapeError: ``frames`` is not [T, 3, H, W], no floating point, or in another unit.
        NonFiniteError: a pixel is NaN or infinite.
        ConfigError: the rate is out of its range.
    """

    modality: ClassVar[Modality] = "video"

    frames: Tensor
    fps: float

    def __post_init__(self) -> None:
        check_values("frames", self.frames, "T, 3, H, W")
        if not SLOWEST_FPS <= self.fps <= FASTEST_FPS:
            raise ConfigError(
                f"fps = {self.fps!r}, expected {SLOWEST_FPS} to {FASTEST_FPS:g} frames per second"
            )

    @property
    def duration_s(self) -> float:
        """Seconds: T / fps, since the last frame stays as long as the others."""
        return len(self.frames) / self.fps

    def at(self, fps: float, *, frames: int | None = None, resample: bool = False) -> "Video":
        """This video, if it is what somebody asks for.

            frame i of the result = the frame that is shown in the middle of [i, i + 1] / fps

        >>> video = Video(torch.linspace(0, 1, 6)[:, None, None, None].expand(6, 3, 2, 2), 12.0)
        >>> video.at(6.0, resample=True).frames[:, 0, 0, 0]
        tensor([0.2000, 0.6000, 1.0000])

        Args:
            fps: the rate that is wanted.
            frames: T that is wanted, at the wanted rate; None for any.
            resample: repeat or leave out frames of another rate; otherwise it is refused.

        Raises:
            ConfigError: rate or length differ; the message has both numbers.
        """
        video = self
        if abs(fps - self.fps) > 1e-3 * fps:
            if not resample:
                raise ConfigError(f"fps = {self.fps:g}, but {fps:g} is wanted; resample=True converts it")
            count = max(1, round(len(self.frames) * fps / self.fps))
            shown = ((torch.arange(count, dtype=torch.float64) + 0.5) * self.fps / fps).long()
            video = replace(self, frames=self.frames[shown.clamp(max=len(self.frames) - 1)], fps=fps)
        if frames not in (None, len(video.frames)):
            raise ConfigError(
                f"the video has {len(video.frames)} frames at {fps:g} per second, but {frames} are wanted; cut or "
                "repeat some"
            )
        return video

    def save(self, path: Path | str) -> None:
        """Write the video, whole or not at all; the suffix names the format.

        .mp4 is H.264 in yuv420p, which any player opens, and needs even sides; .webm is VP9. Both are nearly lossless
        but for colour edges, which have half the resolution. Animated .webp is lossless and .gif has 256 colours; their
        clocks round a frame's time to 1 and 10 ms, and frames that are alike come back as one.

        Raises:
            ConfigError: no video format has this suffix, or it cannot hold this size or rate.
        """
        suffix = check_suffix(path, WRITTEN_SUFFIXES, "video")
        frames = to_8_bits(self.frames).permute(0, 2, 3, 1).contiguous().numpy()
        with whole_file(path) as unfinished:
            if suffix in (".gif", ".webp"):
                animations.write(unfinished, suffix, frames, self.fps)
            else:
                video_files.write(unfinished, suffix, frames, Fraction(self.fps).limit_denominator(1001))

    @classmethod
    def load(
        cls,
        path: Path | str,
        *,
        fps: float | None = None,
        resample: bool = False,
        max_pixels: int = MAX_VIDEO_PIXELS,
    ) -> "Video":
        """Read all frames, turned upright; sound is left out, and a varying rate is read as its mean.

        Args:
            path: the content names the format, not the suffix.
            fps: the rate that is wanted; None for the file's own.
            resample: repeat or leave out frames of another rate; otherwise it is refused.
            max_pixels: T x H x W above which a file is refused.

        Raises:
            DataError: the file is missing, is no video, ends too early, is too large, or has another rate.
        """
        with reading(path, "video"):
            form = video_files.container(Path(path))
            if form is None:
                frames, rate = animations.read(Path(path), max_pixels=max_pixels)
            else:
                frames, rate = video_files.read(Path(path), form, max_pixels=max_pixels)
            video = cls(frames, rate)
            return video if fps is None else video.at(fps, resample=resample)
