"""A generator of pictures: what notebooks import."""

from typing import ClassVar

from torch import Tensor

from mmalign.adapters.denoising import DenoisingAdapter
from mmalign.media import Image, Modality


class ImageAdapter(DenoisingAdapter[Image]):
    """A text-to-image pipeline of diffusers."""

    modality: ClassVar[Modality] = "image"

    def medium(self, values: Tensor) -> Image:
        """A picture of pixels [3, H, W] in [0, 1]."""
        return Image(values)

    def values(self, medium: Image) -> Tensor:
        """Pixels [3, H, W] in [0, 1]."""
        return medium.pixels
