"""Pictures come in upright, opaque and whole, or with a sentence that says what is wrong."""

from pathlib import Path

import PIL.Image
import pytest
import torch
from PIL import ExifTags

from mmalign.errors import DataError, ShapeError
from mmalign.media import Image, SampleFile

PIXELS = (torch.arange(3 * 4 * 6) % 256).reshape(3, 4, 6) / 255


def test_a_saved_picture_comes_back_to_the_bit(tmp_path: Path) -> None:
    Image(PIXELS).save(tmp_path / "a.png")
    assert torch.equal(Image.load(tmp_path / "a.png").pixels, PIXELS)


def test_pixels_outside_the_range_are_cut_and_not_wrapped() -> None:
    assert Image(torch.tensor([-0.5, 0.5, 1.5])[:, None, None]).to_pil().getpixel((0, 0)) == (0, 128, 255)


def test_a_turned_photograph_is_put_upright(tmp_path: Path) -> None:
    picture = Image(PIXELS).to_pil()
    exif = PIL.Image.Exif()
    exif[ExifTags.Base.Orientation] = 3  # taken upside down
    picture.save(tmp_path / "a.png", exif=exif)
    assert torch.equal(Image.load(tmp_path / "a.png").pixels, PIXELS.flip(1, 2))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparent_parts_are_white(mode: str) -> None:
    picture = PIL.Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    picture.putpixel((1, 0), (0, 0, 0, 255))
    pixels = Image.from_pil(picture.convert(mode) if mode != "RGBA" else picture).pixels
    assert pixels[:, 0, 0].tolist() == [1.0, 1.0, 1.0]
    assert pixels[:, 0, 1].tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("mode", ["L", "1", "CMYK", "P"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    white = PIL.Image.new("RGB", (3, 2), "white").convert(mode)
    assert torch.equal(Image.from_pil(white).pixels, torch.ones(3, 2, 3))


@pytest.mark.parametrize("content", [b"", b"no picture at all"])
def test_what_is_no_picture_is_one_sentence_with_its_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.png: not a readable picture"):
        Image.load(path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp"])
def test_a_picture_that_ends_too_early_is_not_scored_in_part(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image(torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match="not a readable picture"):
        Image.load(path)


def test_a_missing_file_is_named_with_the_place_that_named_it(tmp_path: Path) -> None:
    file = SampleFile("0", tmp_path / "gone.png", "a dog", "pairs.csv, row 3, column 'media'")
    with pytest.raises(DataError, match=r"^pairs\.csv, row 3, column 'media': .*gone\.png: no such file$"):
        file.load()


@pytest.mark.parametrize("shape", [(4, 6), (1, 4, 6), (4, 6, 3), (1, 3, 4, 6)])
def test_pixels_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"pixels: expected \[3, H, W\]"):
        Image(torch.zeros(shape))
