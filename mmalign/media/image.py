"""A picture: pixels in [0, 1], and the files that pictures come in."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import PIL.Image
import torch
from PIL import ExifTags, ImageOps
from torch import Tensor

from mmalign.errors import ConfigError, NonFiniteError, ShapeError
from mmalign.files import whole_file
from mmalign.media.checks import MAX_PICTURE_PIXELS, Modality, check_size, check_values, to_8_bits
from mmalign.media.reading import check_suffix, reading
from mmalign.suffixes import IMAGE_SUFFIXES as IMAGE_SUFFIXES

PILLOW_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
"""What is looked for in a file whatever its suffix. Not all that Pillow knows: for some it starts other programs."""


@dataclass(frozen=True, eq=False)
class Image:
    """A picture.

    Args:
        pixels: [3, H, W] in [0, 1], RGB.

    Raises:
        ShapeError: ``pixels`` is not [3, H, W], no floating point, or in another unit.
        NonFiniteError: a pixel is NaN or infinite.
    """

    modality: ClassVar[Modality] = "image"

    pixels: Tensor

    def __post_init__(self) -> None:
        check_values("pixels", self.pixels, "3, H, W")

    def to_pil(self) -> PIL.Image.Image:
        """The picture rounded to 8 bits, as diffusers rounds it."""
        return PIL.Image.fromarray(to_8_bits(self.pixels).permute(1, 2, 0).contiguous().numpy())

    def save(self, path: Path | str) -> None:
        """Write the picture, whole or not at all; the suffix names the format.

        Raises:
            ConfigError: no picture format has this suffix.
        """
        check_suffix(path, IMAGE_SUFFIXES, "picture")
        with whole_file(path) as unfinished:
            self.to_pil().save(unfinished)

    @classmethod
    def from_pil(cls, picture: PIL.Image.Image) -> "Image":
        """Any PIL picture as RGB, turned upright if its EXIF says so; transparent parts are laid on white.

        Grey of 16 bits keeps them; CMYK is converted without its colour profile.

        Raises:
            ShapeError: grey in a unit that cannot be known: whole numbers of 32 bits, or fractions beyond [0, 1].
            NonFiniteError: a fraction is NaN or infinite.
        """
        if picture.getexif().get(ExifTags.Base.Orientation, 1) != 1:
            picture = ImageOps.exif_transpose(picture)
        if picture.mode in ("F", "I") or picture.mode.startswith("I;16"):
            return cls(_grey(picture).expand(3, -1, -1).contiguous())
        if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
            picture = picture.convert("RGBA")
            white = PIL.Image.new("RGBA", picture.size, "white")
            picture = PIL.Image.alpha_composite(white, picture)
        array = np.array(picture if picture.mode == "RGB" else picture.convert("RGB"))
        return cls(torch.from_numpy(array).permute(2, 0, 1).float().div_(255))

    @classmethod
    def load(cls, path: Path | str, *, max_pixels: int = MAX_PICTURE_PIXELS) -> "Image":
        """Read a whole picture.

        Args:
            path: the content names the format, not the suffix. Of a photograph that carries a second one beside it
                (MPO) the first is read.
            max_pixels: H x W above which a file is refused before it is decoded.

        Raises:
            DataError: the file is missing, is no picture, ends too early, is too large, or holds several pictures.
        """
        with reading(path, "picture"), PIL.Image.open(path, formats=PILLOW_FORMATS) as picture:
            check_size(picture.width * picture.height, max_pixels, "pixels", "max_pixels")
            check_end(path, picture)
            count = frame_count(picture)
            if count > 1 and picture.format == "TIFF":
                raise ConfigError(f"holds {count} pages; save the one that is meant as a picture of its own")
            if count > 1:
                raise ConfigError(f"moves: it holds {count} frames; load it as a video, or save one of them")
            return cls.from_pil(picture)


def frame_count(picture: PIL.Image.Image) -> int:
    """Frames of an animation or pages of a TIFF; 1 for a still, also where a second photograph lies beside it."""
    return 1 if picture.format == "MPO" else int(getattr(picture, "n_frames", 1))


def check_end(path: Path | str, picture: PIL.Image.Image) -> None:
    """Refuse a GIF without its last byte: Pillow shows the frames that are there of one that was cut.

    Raises:
        ShapeError: the file ends too early.
    """
    if picture.format == "GIF":
        with Path(path).open("rb") as file:
            file.seek(-min(64, Path(path).stat().st_size), 2)
            if not file.read().rstrip(b"\0\r\n").endswith(b";"):
                raise ShapeError("not a readable picture (it ends too early)")


def _grey(picture: PIL.Image.Image) -> Tensor:
    """[1, H, W] of a picture with one channel of more than 8 bits; its transparent value, if it has one, is white."""
    array = np.array(picture)
    if picture.mode == "I":
        raise ShapeError("grey of 32 bits has no known white; save it with 8 or 16 bits")
    if picture.mode == "F":
        low, high = float(array.min()), float(array.max())
        if not np.isfinite(array).all():
            raise NonFiniteError("some pixels are NaN or infinite")
        if low < 0 or high > 1:
            raise ShapeError(f"expected fractions in [0, 1], got {low:g} to {high:g}; divide them first")
        return torch.from_numpy(array.astype(np.float32))[None]
    grey = torch.from_numpy(array.astype(np.float32) / 65535)[None]
    clear = picture.info.get("transparency")
    if isinstance(clear, int):
        grey = grey.where(torch.from_numpy(array != clear), torch.ones(()))
    return grey
