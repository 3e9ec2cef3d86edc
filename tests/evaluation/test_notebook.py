"""What a notebook shows holds its data, its captions as text, and nothing from outside."""

import re

import pytest
import torch

from mmalign import show
from mmalign.errors import ShapeError
from mmalign.media import Audio, Image, Media, Scene3D, Video, turntable

PIXELS = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("medium", "element"),
    [
        (Image(PIXELS), "<img"),
        (Video(PIXELS.expand(4, 3, 16, 16), 8.0), "<video"),
        (Audio(torch.zeros(1, 800), 8_000), "<audio"),
        (Scene3D(PIXELS.expand(4, 3, 16, 16), turntable(4)), "image/webp"),
    ],
)
def test_every_medium_is_an_element_with_its_data(medium: Media, element: str) -> None:
    html = show([medium, medium], ["first", "<b>second</b>"])._repr_html_()
    assert html.count("<figure") == 2
    assert html.count(element) == 2
    assert "&lt;b&gt;second&lt;/b&gt;" in html
    assert "<b>" not in html
    sources = re.findall(r'src="([^"]{0,40})', html)
    assert sources
    assert all(source.startswith("data:") for source in sources)


def test_captions_are_for_all_or_none() -> None:
    assert "<figcaption></figcaption>" in show([Image(PIXELS)])._repr_html_()
    with pytest.raises(ShapeError, match="one for each of 1 media, got 2"):
        show([Image(PIXELS)], ["a", "b"])
