"""What a medium is checked for where it enters: shape, finite numbers, its unit, and a size that memory can hold."""

import math
from typing import Literal

import torch
from torch import Tensor

from mmalign.errors import ConfigError, NonFiniteError, ShapeError
from mmalign.media.decoding import counted

Modality = Literal["image", "video", "scene3d", "audio", "speech"]

MAX_PICTURE_PIXELS = 2**26
"""H x W that a file may have, 8192 x 8192: 0.8 GB in fp32."""
MAX_VIDEO_PIXELS = 2**27
"""T x H x W that a file may have, 145 frames of 1280 x 720: 1.6 GB in fp32."""
MAX_SOUND_VALUES = 2**27
"""C x N that a file may have, 23 minutes in stereo at 48 kHz: 0.5 GB in fp32."""
MAX_MESH_FACES = 2**22
"""Triangles that a file may have, and vertices."""
MAX_MESH_BYTES = 2**28
"""Size that a mesh file may have, with its textures."""

OTHER_UNIT = 16.0
"""A value this large is no overshoot: the numbers are in another unit, such as 0 to 255."""


def check_values(name: str, values: Tensor, shape: str, *, low: float = 0.0) -> None:
    """Refuse what is no tensor of a medium.

    Args:
        name: of the field, for the message.
        values: nominally in [``low``, 1]; generators and resamplers overshoot, so only a value beyond 16 is refused.
        shape: names or sizes of its axes, such as "3, H, W"; no axis may be empty.
        low: 0 for pixels, -1 for waveforms.

    Raises:
        ShapeError: another shape, an empty axis, integers, or another unit.
        NonFiniteError: NaN or infinity among the values.
    """
    axes = shape.split(", ")
    fits = values.ndim == len(axes) and all(
        size == int(axis) if axis.isdigit() else size > 0
        for axis, size in zip(axes, values.shape, strict=True)
    )
    if not fits:
        raise ShapeError(f"{name}: expected [{shape}], none of them 0, got {list(values.shape)}")
    if not values.is_floating_point():
        raise ShapeError(f"{name}: expected floating point in [{low:g}, 1], got {values.dtype}; divide first")
    smallest, largest = _ends(values.detach())
    if not (math.isfinite(smallest) and math.isfinite(largest)):
        bad = int((~values.detach().isfinite()).sum())
        raise NonFiniteError(f"{name}: {bad} of {values.numel()} values are NaN or infinite")
    if max(-smallest, largest) > OTHER_UNIT:
        raise ShapeError(
            f"{name}: expected values in [{low:g}, 1], got {smallest:g} to {largest:g}; divide them first"
        )


def _ends(values: Tensor) -> tuple[float, float]:
    """The smallest and the largest value, NaN where one is NaN."""
    if values.device.type == "cpu" and values.dtype != torch.bfloat16:
        array = (
            values.numpy()
        )  # a hundred times as fast where channels lie last, as they do in a loaded picture
        return float(array.min()), float(array.max())
    low, high = torch.aminmax(values)
    return float(low), float(high)


def check_size(count: int, limit: int, what: str, option: str) -> None:
    """Refuse to fill memory with what nobody meant to load.

    Args:
        count: how many there are.
        limit: how many there may be.
        what: the name of one such thing, in the plural.
        option: the argument that raises the limit.

    Raises:
        ConfigError: ``count`` is above ``limit``; the message has both, and the way out.
    """
    if counted() and option in ("max_pixels", "max_samples"):
        return  # what reading takes is limited by who reads, and so is the way out
    if count > limit:
        raise ConfigError(
            f"holds at least {count:,} {what}, the limit is {limit:,}; make it smaller, or load it with {option}=…"
        )


def to_8_bits(pixels: Tensor) -> Tensor:
    """Pixels in [0, 1] rounded to 0..255 as uint8 on the CPU, as diffusers rounds; what lies outside is cut.

    >>> to_8_bits(torch.tensor([-0.5, 0.5, 1.5]))
    tensor([  0, 128, 255], dtype=torch.uint8)
    """
    # In place after the first copy: a large picture is held twice, not four times.
    return pixels.detach().float().clamp(0, 1).mul_(255).round_().to(torch.uint8).cpu()


def to_16_bits(waveform: Tensor) -> Tensor:
    """A waveform in [-1, 1] rounded to steps of 1/32768 as int16 on the CPU; what lies outside is cut.

    The step is the one that decoders divide by, so a saved sound that is loaded and saved again stays as it is.

    >>> to_16_bits(torch.tensor([-1.5, -0.5, 0.5, 1.0]))
    tensor([-32768, -16384,  16384,  32767], dtype=torch.int16)
    """
    steps = waveform.detach().float().clamp(-1, 1).mul_(32768).round_()
    return steps.clamp_(max=32767).to(torch.int16).cpu()
