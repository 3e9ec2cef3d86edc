"""Parts of a real photograph, for what must agree with how other libraries prepare pictures."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import matplotlib
import PIL.Image

from mmalign.media import Image, Sample

PATH = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"


@cache
def photograph() -> PIL.Image.Image:
    with PIL.Image.open(PATH) as picture:
        return picture.convert("RGB")


def crops(*sizes: tuple[int, int]) -> list[PIL.Image.Image]:
    """Parts of it, (width, height)."""
    return [photograph().crop((60, 20, 60 + width, 20 + height)) for width, height in sizes]


def samples(prompts: Sequence[str], pictures: Sequence[PIL.Image.Image]) -> list[Sample]:
    return [Sample(p, Image.from_pil(picture)) for p, picture in zip(prompts, pictures, strict=True)]
