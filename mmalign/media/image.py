"""A picture: pixels in [0, 1], and the files that pictures come in."""

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, ClassVar

import numpy as np
import PIL.Image
import torch
from PIL import ExifTags, ImageOps
from torch import Tensor

from mmalign.errors import ConfigError, NonFiniteError, ShapeError
from mmalign.files import whole_file
from mmalign.media.checks import MAX_PICTURE_PIXELS, Modality, check_size, check_values, to_8_bits
from mmalign.media.decoding import BYTES_PER_PIXEL, take
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
        with whole_file(path, durable=False) as unfinished:
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
        del picture  # a large one is not held beside its fp32
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
            take(BYTES_PER_PIXEL * picture.width * picture.height)
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
    """Refuse a GIF that was cut: Pillow shows the frames that are there.

    Raises:
        ShapeError: the file ends too early.
    """
    if picture.format == "GIF" and gif_is_cut(Path(path)):
        raise ShapeError("not a readable picture (it ends too early)")


def gif_is_cut(path: Path) -> bool:
    """Whether a GIF ends before the byte that closes it, wherever that is: some programs write more behind it.

    Source: GIF89a specification, appendix B.
    """
    with path.open("rb") as file:
        flags = (file.read(11)[10:] or b"\0")[0]
        file.seek(13 + _colours(flags))
        while kind := file.read(1):
            if kind == b"!":
                file.seek(1, 1)
            elif kind == b",":
                flags = (file.read(9)[8:] or b"\0")[0]
                file.seek(_colours(flags) + 1, 1)
            else:
                return kind != b";"
            if not _passes_blocks(file):
                return True
        return True


def _passes_blocks(file: BinaryIO) -> bool:
    """Step over the data of a frame or an extension; whether it is closed by an empty block."""
    while length := file.read(1):
        if length == b"\0":
            return True
        file.seek(length[0], 1)
    return False


def _colours(flags: int) -> int:
    """Bytes of a table of colours."""
    return 3 * 2 ** ((flags & 7) + 1) if flags & 128 else 0


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
