"""Preprocessing on tensors against what the libraries of the checkpoints' authors do to the same pictures."""

from typing import Any

import numpy as np
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from torch import Tensor
from torchvision.transforms import functional as transforms
from transformers import CLIPImageProcessorPil

from mmalign.errors import ConfigError
from mmalign.media import Image
from mmalign.rewards.preprocessing import Preprocessing, resize_and_crop
from tests.rewards.photographs import crops

MEAN, STD = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)
SIZES = ((97, 61), (61, 97), (255, 131), (64, 64), (23, 17), (33, 200))


def levels(ours: Tensor, theirs: Tensor) -> Tensor:
    """How far apart normalised pictures are, in levels of 8 bits."""
    return (ours - theirs).abs() * 255 * torch.tensor(STD)[:, None, None]


def assert_near(ours: Tensor, theirs: Tensor, about: Any) -> None:
    assert ours.shape == theirs.shape, about
    assert levels(ours, theirs).max() <= 1.5, about
    assert levels(ours, theirs).mean() <= 0.4, about


@pytest.mark.parametrize("size", [32, (32, 48), (40, 24)])
@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_it_is_open_clips_own(size: int | tuple[int, int], resize_mode: str, interpolation: str) -> None:
    theirs = image_transform_v2(
        PreprocessCfg(
            size=size, resize_mode=resize_mode, interpolation=interpolation, mean=MEAN, std=STD, fill_color=90
        ),
        is_train=False,
    )
    ours = Preprocessing.of(
        {
            "size": size,
            "resize_mode": resize_mode,
            "interpolation": interpolation,
            "mean": MEAN,
            "std": STD,
            "fill_color": 90,
        }
    )
    assert len(SIZES) > 3
    for picture in crops(*SIZES):
        assert_near(ours(Image.from_pil(picture).pixels[None])[0], theirs(picture), picture.size)


@pytest.mark.parametrize("resample", [2, 3])
@pytest.mark.parametrize("size", [{"shortest_edge": 32}, {"height": 32, "width": 32}])
def test_it_is_transformers_own(size: dict[str, int], resample: int) -> None:
    theirs = CLIPImageProcessorPil(size=size, crop_size=32, resample=resample, image_mean=MEAN, image_std=STD)
    ours = Preprocessing(
        size=(32, 32),
        resize_mode="shortest" if "shortest_edge" in size else "squash",
        interpolation={2: "bilinear", 3: "bicubic"}[resample],
        crop="down",
        mean=MEAN,
        std=STD,
    )
    for picture in crops(*SIZES):
        expected = torch.from_numpy(np.asarray(theirs(picture)["pixel_values"][0]))
        assert_near(ours(Image.from_pil(picture).pixels[None])[0], expected, picture.size)


def test_a_crop_of_an_odd_rest_starts_where_it_is_told() -> None:
    """Between 40 pixels and 37 are three: torchvision leaves two of them before (round to even), transformers one."""
    ramp = torch.arange(40.0).expand(1, 3, 37, 40) / 255
    options: dict[str, Any] = {"size": 37, "resize_mode": "shortest", "interpolation": "bicubic"}
    nearest, down = (resize_and_crop(ramp, crop=crop, **options) for crop in ("nearest", "down"))
    torch.testing.assert_close(nearest, ramp[..., 2:39], atol=1e-6, rtol=0)
    torch.testing.assert_close(down, ramp[..., 1:38], atol=1e-6, rtol=0)


def test_bicubic_overshoot_is_cut_or_kept() -> None:
    edge = torch.zeros(1, 3, 64, 64)
    edge[..., 32:] = 1
    options: dict[str, Any] = {"size": 24, "resize_mode": "longest", "interpolation": "bicubic"}
    cut = resize_and_crop(edge, **options)
    kept = resize_and_crop(edge, cut_overshoot=False, **options)
    assert [cut.min().item(), cut.max().item()] == [0, 1]
    assert kept.min() < -0.01
    assert kept.max() > 1.01
    torch.testing.assert_close(kept.clamp(0, 1), cut)


@pytest.mark.parametrize(("width", "height"), [(97, 61), (61, 97), (40, 40), (20, 11)])
def test_the_longest_side_on_tensors_is_torchvisions_resize_and_a_black_border(
    width: int, height: int
) -> None:
    """What HPS v2 does, in torchvision's words."""
    pixels = Image.from_pil(crops((width, height))[0]).pixels[None]
    scale = 32 / max(height, width)
    small = [round(height * scale), round(width * scale)]
    resized = transforms.resize(pixels, small, transforms.InterpolationMode.BICUBIC, antialias=True)
    border = [32 - small[1], 32 - small[0]]
    left, top = border[0] // 2, border[1] // 2
    expected = transforms.pad(resized, [left, top, border[0] - left, border[1] - top], fill=0)
    ours = resize_and_crop(
        pixels, size=32, resize_mode="longest", interpolation="bicubic", cut_overshoot=False
    )
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)


def test_a_picture_of_the_models_size_is_left_alone() -> None:
    pixels = Image.from_pil(crops((32, 32))[0]).pixels[None]
    assert resize_and_crop(pixels, size=32, resize_mode="shortest", interpolation="bicubic") is pixels


@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
def test_every_pixel_that_is_seen_has_a_gradient(resize_mode: Any) -> None:
    pixels = torch.full((1, 3, 40, 30), 0.5, requires_grad=True)
    Preprocessing(size=(20, 20), resize_mode=resize_mode)(pixels).sum().backward()
    assert pixels.grad is not None
    seen = pixels.grad.abs().sum((0, 1, 3)) > 0
    if resize_mode == "shortest":  # rows far above and below the crop are not
        assert seen[7:33].all()
        assert not seen[[0, -1]].any()
    else:
        assert seen.all()


@pytest.mark.parametrize(
    ("settings", "changes", "message"),
    [
        ({"resize_mode": "longer"}, {}, "resize_mode = 'longer', expected one of shortest, longest, squash"),
        ({}, {"crop": "up"}, "crop = 'up', expected one of nearest, down"),
        ({}, {"resise_mode": "longest"}, "no setting is called 'resise_mode'; known: crop, "),
    ],
)
def test_a_setting_that_does_not_exist_is_refused(
    settings: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        Preprocessing.of({"size": 32, **settings}, **changes)
