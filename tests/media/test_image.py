"""Pictures come in upright, opaque and whole, or with a sentence that says what is wrong."""

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from PIL import ExifTags

from mmalign.errors import ConfigError, DataError, NonFiniteError, ShapeError
from mmalign.media import Image

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


@pytest.mark.parametrize("shape", [(4, 6), (1, 4, 6), (4, 6, 3), (1, 3, 4, 6), (3, 0, 6)])
def test_pixels_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"pixels: expected \[3, H, W\]"):
        Image(torch.zeros(shape))


def test_pixels_of_another_unit_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"pixels: expected floating point in \[0, 1\], got torch\.uint8"):
        Image(torch.zeros(3, 4, 6, dtype=torch.uint8))
    with pytest.raises(ShapeError, match=r"expected values in \[0, 1\], got 0 to 255; divide them first"):
        Image(PIXELS * 255 / PIXELS.max())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_one_pixel_that_is_no_number_is_refused(value: float, dtype: torch.dtype) -> None:
    pixels = PIXELS.to(dtype, copy=True)
    Image(pixels)
    pixels[1, 2, 3] = value
    with pytest.raises(NonFiniteError, match="pixels: 1 of 72 values are NaN or infinite"):
        Image(pixels)


def test_a_gradient_passes_through_a_picture() -> None:
    pixels = PIXELS.clone().requires_grad_()
    Image(pixels).pixels.sum().backward()
    assert pixels.grad is not None


def test_what_is_saved_is_what_other_programs_read(tmp_path: Path) -> None:
    for suffix in ("png", "bmp", "tif"):
        Image(PIXELS).save(tmp_path / f"a.{suffix}")
        with PIL.Image.open(tmp_path / f"a.{suffix}") as picture:
            np.testing.assert_array_equal(np.array(picture), (PIXELS * 255).round().permute(1, 2, 0).numpy())


def test_an_unknown_suffix_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"a\.mp4: a picture is saved as \.png, "):
        Image(PIXELS).save(tmp_path / "a.mp4")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_grey_of_16_bits_keeps_them(tmp_path: Path, suffix: str) -> None:
    grey = np.array([[0, 1, 257], [32768, 65534, 65535]], dtype=np.uint16)
    PIL.Image.fromarray(grey).save(tmp_path / f"a.{suffix}")
    pixels = Image.load(tmp_path / f"a.{suffix}").pixels
    assert torch.equal(pixels, torch.from_numpy(grey.astype(np.float32) / 65535).expand(3, 2, 3))
    assert pixels[0, 0, 1] > 0, "the lowest bit is there"


def test_the_transparent_value_of_16_bits_is_white(tmp_path: Path) -> None:
    grey = np.array([[5, 600]], dtype=np.uint16)
    PIL.Image.fromarray(grey).save(tmp_path / "a.png", transparency=5)
    assert Image.load(tmp_path / "a.png").pixels[0, 0].tolist() == pytest.approx([1.0, 600 / 65535])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([[0.0, np.nan]], dtype=np.float32), "NaN or infinite"),
        (np.array([[0.0, 200.0]], dtype=np.float32), r"expected fractions in \[0, 1\], got 0 to 200"),
        (np.array([[0, 70_000]], dtype=np.int32), "grey of 32 bits has no known white"),
    ],
)
def test_grey_whose_unit_cannot_be_known_is_refused(tmp_path: Path, values: np.ndarray, message: str) -> None:
    PIL.Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=rf"a\.tif: .*{message}"):
        Image.load(tmp_path / "a.tif")


def test_grey_fractions_are_taken_as_they_are(tmp_path: Path) -> None:
    PIL.Image.fromarray(np.array([[0.0, 0.25, 1.0]], dtype=np.float32)).save(tmp_path / "a.tif")
    assert Image.load(tmp_path / "a.tif").pixels[2, 0].tolist() == [0.0, 0.25, 1.0]


def test_a_cmyk_photograph_has_its_colours(tmp_path: Path) -> None:
    PIL.Image.new("RGB", (16, 16), (220, 40, 30)).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    pixels = Image.load(tmp_path / "a.jpg").pixels * 255
    torch.testing.assert_close(pixels.mean((1, 2)), torch.tensor([220.0, 40.0, 30.0]), atol=4, rtol=0)


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_what_moves_is_no_picture(tmp_path: Path, suffix: str) -> None:
    frames = [PIL.Image.new("RGB", (4, 4), (80 * i, 0, 0)) for i in range(3)]
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], duration=100)
    with pytest.raises(DataError, match="moves: it holds 3 frames; load it as a video"):
        Image.load(tmp_path / f"a.{suffix}")


def test_several_pages_are_refused_and_a_second_photograph_is_not(tmp_path: Path) -> None:
    pages = [PIL.Image.new("RGB", (4, 4), (80 * i, 0, 0)) for i in range(3)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(DataError, match="holds 3 pages; save the one"):
        Image.load(tmp_path / "a.tif")
    pages[1].save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=pages[2:])
    torch.testing.assert_close(
        Image.load(tmp_path / "a.jpg").pixels[0].mean() * 255, torch.tensor(80.0), atol=2, rtol=0
    )


def test_the_suffix_may_be_wrong(tmp_path: Path) -> None:
    Image(PIXELS).to_pil().save(tmp_path / "a.jpg", "PNG")
    assert torch.equal(Image.load(tmp_path / "a.jpg").pixels, PIXELS)


def test_a_format_that_starts_other_programs_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n")
    with pytest.raises(DataError, match="cannot identify image file"):
        Image.load(tmp_path / "a.png")


def test_a_picture_too_large_for_memory_is_refused_with_the_limit(tmp_path: Path) -> None:
    Image(PIXELS).save(tmp_path / "a.png")
    with pytest.raises(
        DataError, match=r"holds at least 24 pixels, the limit is 23; .* load it with max_pixels="
    ):
        Image.load(tmp_path / "a.png", max_pixels=23)
    PIL.Image.new("1", (10_000, 10_000)).save(tmp_path / "b.png")  # 100 megapixels in 12 kB
    with (
        pytest.warns(PIL.Image.DecompressionBombWarning),
        pytest.raises(DataError, match="holds at least 100,000,000 pixels"),
    ):
        Image.load(tmp_path / "b.png")


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    PIL.Image.new("1", (20_000, 20_000)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="decompression bomb"):
        Image.load(tmp_path / "a.png", max_pixels=10**12)


def test_a_folder_is_no_picture(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a file"):
        Image.load(tmp_path)
