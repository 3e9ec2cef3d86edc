"""Each statistic at its limits, and the order that a person would give."""

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from mmalign.errors import ShapeError
from mmalign.evaluation.image_statistics import (
    brightness,
    diversity,
    luma,
    picture_guards,
    saturation,
    sharpness,
)
from mmalign.worlds import shapes


@pytest.fixture(scope="module")
def pictures() -> Tensor:
    random = torch.Generator().manual_seed(0)
    scenes = [shapes.random_scene(random) for _ in range(5)]
    return shapes.render(scenes, random, side_px=48)


def blurred(pictures: Tensor) -> Tensor:
    return torch.nn.functional.avg_pool2d(
        torch.nn.functional.pad(pictures, (1, 1, 1, 1), mode="replicate"), 3, stride=1
    )


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_a_constant_picture_has_no_sharpness_and_its_own_brightness(value: float) -> None:
    constant = torch.full((2, 3, 5, 7), value)
    assert_close(sharpness(constant), torch.zeros(2))
    assert_close(brightness(constant), torch.full((2,), value))
    assert_close(saturation(constant), torch.zeros(2))


def test_a_straight_ramp_has_no_sharpness() -> None:
    ramp = torch.linspace(0, 1, 9).expand(1, 3, 6, 9)
    assert_close(sharpness(ramp), torch.zeros(1), atol=1e-10, rtol=0)


def test_sharpness_of_a_chessboard_is_worked_by_hand() -> None:
    # Inside, each pixel differs from its four neighbours: L = +4 on black, -4 on white, half each, variance 16.
    chessboard = ((torch.arange(6)[:, None] + torch.arange(6)) % 2).float().expand(1, 3, 6, 6)
    assert_close(sharpness(chessboard), torch.tensor([16.0]))


def test_blur_lowers_sharpness_of_every_picture_and_noise_raises_it(pictures: Tensor) -> None:
    noise = 0.05 * torch.randn(pictures.shape, generator=torch.Generator().manual_seed(1))
    assert (sharpness(blurred(pictures)) < 0.7 * sharpness(pictures)).all()
    assert (sharpness(pictures + noise) > 1.3 * sharpness(pictures)).all()


def test_luma_weighs_green_most() -> None:
    primaries = torch.eye(3)[:, :, None, None]
    assert_close(luma(primaries)[:, 0, 0], torch.tensor([0.299, 0.587, 0.114]))


def test_saturation_limits() -> None:
    primaries = torch.eye(3)[:, :, None, None].expand(3, 3, 4, 4)
    assert_close(saturation(primaries), torch.ones(3))
    half_grey = torch.tensor([1.0, 0.5, 0.5])[None, :, None, None]
    assert_close(saturation(half_grey), torch.tensor([0.5]))
    # Scaling all channels changes brightness, not saturation.
    assert_close(saturation(0.5 * half_grey), saturation(half_grey))


def test_statistics_of_a_picture_do_not_depend_on_its_neighbours(pictures: Tensor) -> None:
    for statistic in (sharpness, brightness, saturation):
        values = statistic(pictures)
        assert values.shape == (len(pictures),)
        assert_close(values[2:3], statistic(pictures[2:3]))


def test_identical_pictures_have_no_diversity(pictures: Tensor) -> None:
    assert diversity(pictures[:1].repeat(4, 1, 1, 1), ["a"] * 4) == 0.0
    assert diversity(pictures[:4], ["a"] * 4) > 0.02


def test_black_and_white_are_as_far_apart_as_pictures_get() -> None:
    extremes = torch.tensor([0.0, 1.0])[:, None, None, None].expand(2, 3, 40, 24)
    assert diversity(extremes, [7, 7]) == pytest.approx(1.0)


def test_only_pairs_of_one_prompt_count() -> None:
    # Distances inside a: 1, 2, 1, mean 4/3; inside b: 10; c has one sample. Mean of the groups, not of the pairs.
    embeddings = torch.tensor([[0.0], [50.0], [1.0], [40.0], [2.0], [99.0]])
    groups = ["a", "b", "a", "b", "a", "c"]
    assert diversity(embeddings, groups) == pytest.approx((4 / 3 + 10) / 2)
    order = [3, 5, 0, 2, 1, 4]
    assert diversity(embeddings[order], [groups[i] for i in order]) == pytest.approx((4 / 3 + 10) / 2)


def test_without_two_samples_of_a_prompt_diversity_is_missing_not_zero(pictures: Tensor) -> None:
    assert math.isnan(diversity(pictures, range(len(pictures))))
    assert set(picture_guards(pictures, range(len(pictures)))) == {"sharpness", "brightness", "saturation"}
    assert set(picture_guards(pictures, ["a"] * 5)) == {"sharpness", "brightness", "saturation", "diversity"}


def test_shapes_are_checked() -> None:
    with pytest.raises(ShapeError, match=r"expected \[B, 3, H, W\], got \[3, 8, 8\]"):
        brightness(torch.zeros(3, 8, 8))
    with pytest.raises(ShapeError, match=r"expected \[B, 3, H, W\], got \[2, 4, 8, 8\]"):
        saturation(torch.zeros(2, 4, 8, 8))
    with pytest.raises(ShapeError, match="at least 3"):
        sharpness(torch.zeros(1, 3, 2, 8))
    with pytest.raises(ShapeError, match=r"groups: expected \[B\] = \[2\], got \[1\]"):
        diversity(torch.zeros(2, 3, 8, 8), ["a"])
