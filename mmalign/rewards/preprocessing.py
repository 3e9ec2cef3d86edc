"""What stands between a picture and an image encoder: size, crop and normalisation, on tensors and with a gradient."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as transforms

from mmalign.errors import ConfigError

ResizeMode = Literal["shortest", "longest", "squash"]
Crop = Literal["nearest", "down"]
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, kw_only=True, slots=True)
class Preprocessing:
    """How a checkpoint's authors prepare a picture.

    Raises:
        ConfigError: a mode that does not exist.
    """

    size: tuple[int, int]
    """(height, width) of the result in pixels."""
    resize_mode: ResizeMode = "shortest"
    """"shortest" side to ``size``, then crop; "longest", then pad; "squash" to the exact size."""
    interpolation: str = "bicubic"
    """"bicubic", "bilinear" or "random", which is bicubic here."""
    crop: Crop = "nearest"
    """Where a crop starts that leaves out an odd rest: at the nearest even pixel (torchvision), or rounded down."""
    cut_overshoot: bool = True
    """Bicubic overshoots at edges. Pillow's 8 bits cut that off; authors who resize tensors keep it."""
    fill_color: int = 0
    """Of the padding, in [0, 255]."""
    mean: tuple[float, ...] = CLIP_MEAN
    std: tuple[float, ...] = CLIP_STD

    def __post_init__(self) -> None:
        for name, known in (("resize_mode", ResizeMode), ("crop", Crop)):
            if getattr(self, name) not in get_args(known):
                raise ConfigError(
                    f"{name} = {getattr(self, name)!r}, expected one of {', '.join(get_args(known))}"
                )

    @classmethod
    def of(cls, values: Mapping[str, Any], **changes: Any) -> "Preprocessing":
        """From a checkpoint's own settings, with some changed; what does not concern the result is left out.

        Raises:
            ConfigError: a change that no setting has the name of.
        """
        known = {field.name for field in fields(cls)}
        if unknown := changes.keys() - known:
            raise ConfigError(
                f"preprocess: no setting is called '{min(unknown)}'; known: {', '.join(sorted(known))}"
            )
        settings = {key: value for key, value in {**values, **changes}.items() if key in known}
        size = settings["size"]
        settings["size"] = (size, size) if isinstance(size, int) else tuple(size)
        settings["mean"], settings["std"] = (
            tuple(settings.get("mean") or CLIP_MEAN),
            tuple(settings.get("std") or CLIP_STD),
        )
        return cls(**settings)

    def resize(self, pixels: Tensor) -> Tensor:
        """[B, 3, H, W] in [0, 1] to [B, 3, height, width]; a picture of that size is left as it is."""
        return resize_and_crop(
            pixels,
            size=self.size,
            resize_mode=self.resize_mode,
            interpolation=self.interpolation,
            crop=self.crop,
            cut_overshoot=self.cut_overshoot,
            fill_color=self.fill_color,
        )

    def shown(self, size: Sequence[int]) -> tuple[float, float, float, float]:
        """Which part of a picture of size (height, width) the result shows.

        >>> Preprocessing(size=(64, 64)).shown((64, 128))  # the middle half
        (0.0, 0.25, 1.0, 0.75)

        Returns:
            Top, left, bottom and right as shares of the picture's sides; below 0 or above 1 where it is padded.
        """
        if self.resize_mode == "squash" or tuple(size) == self.size:
            return 0.0, 0.0, 1.0, 1.0
        ratios = [have / want for have, want in zip(size, self.size, strict=True)]
        ratio = max(ratios) if self.resize_mode == "longest" else min(ratios)
        (top, bottom), (left, right) = ((0.5 - ratio / r / 2, 0.5 + ratio / r / 2) for r in ratios)
        return top, left, bottom, right

    def __call__(self, pixels: Tensor) -> Tensor:
        """[B, 3, H, W] in [0, 1] to what the encoder takes: [B, 3, height, width], (pixels - mean) / std."""
        return transforms.normalize(self.resize(pixels), list(self.mean), list(self.std))


def resize_and_crop(
    pixels: Tensor,
    *,
    size: int | Sequence[int],
    resize_mode: str,
    interpolation: str,
    crop: str = "nearest",
    cut_overshoot: bool = True,
    fill_color: int = 0,
) -> Tensor:
    """What open_clip, torchvision and transformers do before they normalise, on tensors and with a gradient.

    They resize pictures with Pillow, which rounds to 8 bits after rows and after columns; nothing is rounded here, so
    the two differ by about 1/255 at most.

    Args:
        pixels: [B, 3, H, W] in [0, 1].
        size: of the result, side or (height, width) in pixels.
        resize_mode: "shortest" side to ``size``, then crop; "longest", then pad; "squash" to the exact size.
        interpolation: "bicubic", "bilinear" or "random", which is bicubic here.
        crop: "nearest" or "down", as in ``Preprocessing``.
        cut_overshoot: into [0, 1].
        fill_color: of the padding, in [0, 255].

    Returns:
        [B, 3, size, size], in [0, 1] with ``cut_overshoot``.
    """
    target = (size, size) if isinstance(size, int) else (size[0], size[1])
    height, width = pixels.shape[-2:]
    if (height, width) == target:
        return pixels
    if resize_mode == "squash":
        resized = target
    elif resize_mode == "shortest" and target[0] == target[1]:
        # torchvision, used here, rounds the longer side down; open_clip's own resizing, below, rounds to nearest.
        short = min(height, width)
        resized = (int(target[0] * height / short), int(target[0] * width / short))
    else:
        ratios = (height / target[0], width / target[1])
        ratio = max(ratios) if resize_mode == "longest" else min(ratios)
        resized = (max(1, round(height / ratio)), max(1, round(width / ratio)))
        if resize_mode == "shortest":  # open_clip 3.3 does not pass the interpolation on here
            interpolation = "bicubic"
    mode = InterpolationMode.BILINEAR if interpolation == "bilinear" else InterpolationMode.BICUBIC
    # Pillow resizes rows, then columns, and its 8 bits cut the overshoot off each time.
    for shape in ([height, resized[1]], [resized[0], resized[1]]):
        pixels = transforms.resize(pixels, shape, mode, antialias=True)
        pixels = pixels.clamp(0, 1) if cut_overshoot else pixels
    return _crop_or_pad(pixels, target, crop=crop, fill=fill_color / 255)


def _crop_or_pad(pixels: Tensor, target: tuple[int, int], *, crop: str, fill: float) -> Tensor:
    """The middle [..., height, width], with a border where the picture is smaller; an odd border is larger behind."""
    lacking = [max(0, want - have) for want, have in zip(target, pixels.shape[-2:], strict=True)]
    if any(lacking):
        top, left = (lack // 2 for lack in lacking)
        pixels = transforms.pad(pixels, [left, top, lacking[1] - left, lacking[0] - top], fill=fill)
    rest = [have - want for want, have in zip(target, pixels.shape[-2:], strict=True)]
    top, left = (surplus // 2 if crop == "down" else round(surplus / 2) for surplus in rest)
    return pixels[..., top : top + target[0], left : left + target[1]]
