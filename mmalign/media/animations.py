"""Animated GIF, WebP and PNG by Pillow."""

import math
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from PIL import ImageSequence
from torch import Tensor

from mmalign.errors import ConfigError, ShapeError
from mmalign.media.checks import check_size, to_8_bits
from mmalign.media.decoding import BYTES_PER_FRAME_PIXEL, BYTES_PER_PIXEL, Growing
from mmalign.media.image import Image, check_end, frame_count

MOVING_FORMATS = ("GIF", "WEBP", "PNG")
CLOCKS_MS = {".gif": 10, ".webp": 1}
"""What the time of a frame is a multiple of."""
GIF_FASTEST_FPS = 50
"""Above, viewers slow an animation down to 10 frames per second."""
UNSAID_MS = 100
"""The time of a frame that says none, as viewers take it."""


def write(path: Path, suffix: str, frames: np.ndarray, fps: float) -> None:
    """Write uint8 [T, H, W, 3] as an endless loop; every frame lasts equally long, to the format's clock.

    Both formats join frames that are alike, and a single frame of a WebP says no time.

    Raises:
        ConfigError: a GIF of more than 50 frames per second.
    """
    if suffix == ".gif" and fps > GIF_FASTEST_FPS:
        raise ConfigError(
            f"a GIF shows {GIF_FASTEST_FPS} frames per second at most, got {fps:g}; save it as .mp4"
        )
    clock_ms = CLOCKS_MS[suffix]
    duration_ms = clock_ms * max(1, round(1000 / fps / clock_ms))
    first, *others = (PIL.Image.fromarray(pixels) for pixels in frames)
    options: dict[str, Any] = {"lossless": True} if suffix == ".webp" else {}
    first.save(path, save_all=True, append_images=others, duration=duration_ms, loop=0, **options)


def read(path: Path, *, max_pixels: int) -> tuple[Tensor, float]:
    """Frames [T, 3, H, W] in [0, 1] and rate of an animation; a still is one frame.

    Formats join frames that are alike and give each its own time, so the time that divides all of them is the frame
    time here, and a frame that lasts longer is repeated.

    Raises:
        ShapeError: a frame has another size.
        ConfigError: it has more than ``max_pixels``.
    """
    pictures: list[Tensor] = []
    times_ms: list[int] = []
    with PIL.Image.open(path, formats=MOVING_FORMATS) as opened:
        check_end(path, opened)
        area = opened.width * opened.height
        count = frame_count(opened)
        check_size(count * area, max_pixels, "pixels in all frames", "max_pixels")
        taken = Growing(BYTES_PER_FRAME_PIXEL * count * area + BYTES_PER_PIXEL * area)
        for number, frame in enumerate(ImageSequence.Iterator(opened), 1):
            check_size(number * area, max_pixels, "pixels in all frames", "max_pixels")
            pixels = to_8_bits(Image.from_pil(frame).pixels)
            if pictures and pixels.shape != pictures[0].shape:
                raise ShapeError(
                    f"frame {number - 1} is {list(pixels.shape)}, the first {list(pictures[0].shape)}"
                )
            pictures.append(pixels)
            times_ms.append(max(1, round(float(frame.info.get("duration") or UNSAID_MS))))
    shortest_ms = reduce(math.gcd, times_ms)
    if sum(times_ms) > 4 * len(times_ms) * shortest_ms:  # times that only look irregular, such as 33, 34, 33
        shortest_ms = min(times_ms)
    repeats = [round(time / shortest_ms) for time in times_ms]
    check_size(sum(repeats) * area, max_pixels, "pixels in all frames", "max_pixels")
    taken.reach(BYTES_PER_FRAME_PIXEL * sum(repeats) * area)
    frames = torch.empty(sum(repeats), *pictures[0].shape)
    start = 0
    for pixels, count in zip(pictures, repeats, strict=True):
        frames[start : start + count] = pixels
        start += count
    return frames.div_(255), 1000 * sum(repeats) / sum(times_ms)
