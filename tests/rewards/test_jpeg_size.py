"""JPEG sizes order pictures by detail; sharpness and sizes of real photographs."""

from pathlib import Path

import torch
from skimage import data

from mmalign.media import Image, Sample
from mmalign.rewards.cards import find_card, load_reward
from mmalign.rewards.jpeg_size import jpeg_size_kb

ASTRONAUT = Image(torch.tensor(data.astronaut()[::2, ::2]).permute(2, 0, 1) / 255)


def noisy(strength: float) -> Image:
    noise = torch.randn(3, 256, 256, generator=torch.Generator().manual_seed(0))
    return Image((ASTRONAUT.pixels + strength * noise).clamp(0, 1))


def blurred(picture: Image, radius: int) -> Image:
    size = 2 * radius + 1
    pixels = torch.nn.functional.pad(picture.pixels[None], (radius,) * 4, mode="replicate")
    return Image(torch.nn.functional.avg_pool2d(pixels, size, stride=1)[0])


def test_size_grows_with_noise_and_shrinks_with_blur() -> None:
    sizes = [jpeg_size_kb(noisy(strength)) for strength in (0.0, 0.02, 0.1, 0.3)]
    assert sizes == sorted(sizes)
    assert sizes[-1] > 1.5 * sizes[0]
    soft = [jpeg_size_kb(blurred(ASTRONAUT, radius)) for radius in (4, 2, 1, 0)]
    assert soft == sorted(soft)


def test_size_is_that_of_the_file_that_is_written(tmp_path: Path) -> None:
    ASTRONAUT.to_pil().save(tmp_path / "a.jpg", quality=95)
    assert jpeg_size_kb(ASTRONAUT) == (tmp_path / "a.jpg").stat().st_size / 1000
    assert (
        jpeg_size_kb(Image(torch.full((3, 64, 64), 0.5))) < 0.8
    )  # little more than header and tables, 623 bytes


def test_both_cards_give_the_size_and_differ_in_direction() -> None:
    samples = [Sample("", Image(torch.full((3, 64, 64), 0.5))), Sample("", noisy(0.1))]
    less, more = find_card("jpeg-compressibility"), find_card("jpeg-incompressibility")
    assert (less.higher_is_better, more.higher_is_better) == (False, True)
    values = [load_reward(card.name).score(samples).value for card in (less, more)]
    torch.testing.assert_close(values[0], values[1], rtol=0, atol=0)
    assert values[0][0] < values[0][1]


def test_sharpness_of_a_photograph_falls_with_each_blur_and_rises_with_noise() -> None:
    pictures = [blurred(ASTRONAUT, 2), blurred(ASTRONAUT, 1), ASTRONAUT, noisy(0.1), noisy(0.3)]
    values = load_reward("sharpness").score([Sample("", picture) for picture in pictures]).value.tolist()
    assert values == sorted(values)
    assert values[0] < 0.1 * values[2]


def test_sharpness_of_a_tiny_picture_is_a_status() -> None:
    score = load_reward("sharpness").score([Sample("", Image(torch.zeros(3, 2, 9)))])
    assert score.status == ["the picture is 9x2; sharpness needs 3x3"]
