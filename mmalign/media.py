"""What travels between packages: media with their units, and samples, a prompt with its medium."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import PIL.Image
import torch
from PIL import ExifTags, ImageOps
from torch import Tensor

from mmalign.errors import DataError, ShapeError

Modality = Literal["image", "video", "scene3d", "audio", "speech"]
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")


@dataclass(frozen=True, eq=False)
class Image:
    """A picture.

    Args:
        pixels: [3, H, W] in [0, 1], RGB.

    Raises:
        ShapeError: ``pixels`` is not [3, H, W].
    """

    pixels: Tensor

    def __post_init__(self) -> None:
        if self.pixels.ndim != 3 or self.pixels.shape[0] != 3:
            raise ShapeError(f"pixels: expected [3, H, W], got {list(self.pixels.shape)}")

    def to_pil(self) -> PIL.Image.Image:
        """The picture rounded to 8 bits, as diffusers rounds it."""
        array = (self.pixels.detach().clamp(0, 1) * 255).round().to(torch.uint8)
        return PIL.Image.fromarray(array.permute(1, 2, 0).contiguous().cpu().numpy())

    def save(self, path: Path | str) -> None:
        """Write the picture; the suffix names the format."""
        self.to_pil().save(path)

    @classmethod
    def from_pil(cls, picture: PIL.Image.Image) -> "Image":
        """Any PIL picture as RGB, turned upright if its EXIF says so; transparent parts are laid on white."""
        if picture.getexif().get(ExifTags.Base.Orientation, 1) != 1:
            picture = ImageOps.exif_transpose(picture)
        if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
            picture = picture.convert("RGBA")
            white = PIL.Image.new("RGBA", picture.size, "white")
            picture = PIL.Image.alpha_composite(white, picture)
        array = np.array(picture if picture.mode == "RGB" else picture.convert("RGB"))
        return cls(torch.from_numpy(array).permute(2, 0, 1).float().div_(255))

    @classmethod
    def load(cls, path: Path | str) -> "Image":
        """Read a whole picture.

        Raises:
            DataError: the file is missing, is no picture, or ends too early.
        """
        try:
            with PIL.Image.open(path) as picture:
                return cls.from_pil(picture)
        except FileNotFoundError:
            raise DataError("no such file", file=path) from None
        except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError) as error:
            raise DataError(f"not a readable picture ({error})", file=path) from None


Media = Image
"""Any medium. One type today; a union as media are added."""


@dataclass(frozen=True, eq=False)
class Sample:
    """A prompt with, or still without, its medium.

    ``context`` holds what else the generator or scorer is given (source image, transcript, negative prompt);
    ``meta`` holds what is only carried along (seed, file name, annotator).
    """

    prompt: str
    media: Media | None = None
    context: Mapping[str, Media | str] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SampleFile:
    """A sample whose medium is still a file: what readers find and scoring loads.

    ``place`` says where it was named ("pairs.csv, row 3, column 'media'"), for errors; ``path`` is None where the
    place is empty.
    """

    id: str
    path: Path | None
    prompt: str | None
    place: str

    def load(self) -> Sample:
        """Read the medium.

        Raises:
            DataError: no file is named, it is missing, or it cannot be read.
        """
        if self.path is None:
            raise DataError("no file is named", file=self.place)
        try:
            media = Image.load(self.path)
        except DataError as error:
            raise error if self.place == str(self.path) else DataError(str(error), file=self.place) from None
        return Sample(self.prompt or "", media, meta={"id": self.id, "path": str(self.path)})
