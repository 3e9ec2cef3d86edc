"""SSIM and MS-SSIM against scikit-image and torchmetrics on photographs, and by hand at their limits."""

from collections.abc import Callable
from functools import cache

import pytest
import torch
from skimage import data
from skimage.metrics import structural_similarity
from torch import Tensor
from torch.nn.functional import avg_pool2d
from torch.testing import assert_close
from torchmetrics.functional.image import structural_similarity_index_measure

from mmalign.errors import ShapeError
from mmalign.media import Audio, Image, Sample
from mmalign.rewards.cards import load_reward
from mmalign.rewards.ssim import C1, C2, SCALE_WEIGHTS, MsSsim, Ssim, ms_ssim, ssim


@cache
def photographs() -> Tensor:
    """[2, 3, 176, 180]: a face and a cat."""
    parts = [data.astronaut()[20:196, 120:300], data.chelsea()[50:226, 100:280]]
    return torch.stack([torch.tensor(part).permute(2, 0, 1) for part in parts]).double() / 255


def noisy(pictures: Tensor, strength: float) -> Tensor:
    noise = torch.randn(pictures.shape, dtype=pictures.dtype, generator=torch.Generator().manual_seed(0))
    return (pictures + strength * noise).clamp(0, 1)


def of_scikit_image(first: Tensor, second: Tensor) -> Tensor:
    """SSIM [B] with the window of the paper."""
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    values = [
        structural_similarity(x.numpy(), y.numpy(), channel_axis=0, data_range=1.0, **settings)
        for x, y in zip(first, second, strict=True)
    ]
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("strength", [0.01, 0.4])
def test_ssim_is_that_of_scikit_image(strength: float) -> None:
    first, second = photographs(), noisy(photographs(), strength)
    assert_close(ssim(first, second), of_scikit_image(first, second), atol=1e-12, rtol=0)


@pytest.mark.parametrize("strength", [0.01, 0.4])
def test_ms_ssim_is_the_product_over_the_scales_of_others(strength: float) -> None:
    """CS by torchmetrics, the coarsest SSIM by scikit-image: torchmetrics averages SSIM over its padding too."""
    first = photographs().mean(1, keepdim=True)
    second = noisy(first, strength)
    x, y, expected = first, second, torch.ones(2, dtype=torch.float64)
    for weight in SCALE_WEIGHTS[:-1]:
        _, structure = structural_similarity_index_measure(
            y, x, data_range=1.0, reduction="none", return_contrast_sensitivity=True
        )
        expected = expected * structure**weight
        x, y = avg_pool2d(x, 2), avg_pool2d(y, 2)
    assert_close(ms_ssim(first, second), expected * of_scikit_image(x, y) ** SCALE_WEIGHTS[-1])


def test_ssim_of_two_flat_pictures_is_worked_by_hand() -> None:
    first, second = torch.full((1, 3, 11, 12), 0.2), torch.full((1, 3, 11, 12), 0.6)
    expected = (2 * 0.2 * 0.6 + C1) / (0.2**2 + 0.6**2 + C1)  # no variance: the structure part is 1
    assert_close(ssim(first, second), torch.tensor([expected]), atol=1e-3, rtol=0)
    assert_close(ssim(first.double(), second.double()).item(), expected, atol=1e-6, rtol=0)


def test_ssim_of_a_negative_is_worked_by_hand() -> None:
    """x and 1 - x of mean 1/2: cov = -var, so SSIM = (C2 - 2 var) / (C2 + 2 var) where the luminance part is 1."""
    board = (torch.arange(44)[:, None] + torch.arange(44)).remainder(2).double()[None, None]
    window = torch.exp(-((torch.arange(11) - 5.0) ** 2) / 4.5).double()
    window /= window.sum()
    mean = 0.5 + 0.5 * float((window * (-1.0) ** torch.arange(11)).sum()) ** 2 * torch.tensor([1.0, -1.0])
    variance = float((mean * (1 - mean))[0])
    luminance = (2 * mean[0] * mean[1] + C1) / (mean[0] ** 2 + mean[1] ** 2 + C1)
    expected = float(luminance) * (C2 - 2 * variance) / (C2 + 2 * variance)
    assert_close(ssim(board, 1 - board).item(), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("measure", [ssim, ms_ssim])
def test_equal_is_one_order_is_nothing_and_more_noise_is_less(
    measure: Callable[[Tensor, Tensor], Tensor],
) -> None:
    pictures = photographs()
    some, more = noisy(pictures, 0.05), noisy(pictures, 0.2)
    assert_close(measure(pictures, pictures), torch.ones(2, dtype=torch.float64))
    assert_close(measure(pictures, some), measure(some, pictures))
    assert (measure(pictures, more) < measure(pictures, some)).all()
    assert (measure(pictures, some) < 1).all()


def test_the_gradient_is_that_of_finite_differences() -> None:
    random = torch.Generator().manual_seed(0)
    first, second = torch.rand(2, 1, 1, 22, 23, dtype=torch.float64, generator=random)
    assert torch.autograd.gradcheck(lambda x: ssim(x, second), first.requires_grad_(), fast_mode=True)
    near = (first.detach() + second) / 2  # CS above 0, where the power is smooth
    assert torch.autograd.gradcheck(lambda x: ms_ssim(x, near, weights=(0.4, 0.6)), first, fast_mode=True)


def test_what_is_worse_than_unrelated_counts_as_zero_and_has_a_finite_gradient() -> None:
    picture = photographs()[:1].float().requires_grad_()
    value = ms_ssim(picture, 1 - picture.detach())
    assert value.item() == 0.0
    value.sum().backward()
    assert picture.grad is not None
    assert picture.grad.isfinite().all()


def test_a_picture_smaller_than_the_window_is_refused() -> None:
    with pytest.raises(ShapeError, match="H and W of at least 11"):
        ssim(torch.zeros(1, 3, 10, 20), torch.zeros(1, 3, 10, 20))
    with pytest.raises(ShapeError, match="5 scales need H and W of at least 176"):
        ms_ssim(torch.zeros(1, 3, 175, 200), torch.zeros(1, 3, 175, 200))


def test_rewards_compare_each_picture_with_its_own_reference() -> None:
    pictures = photographs().float()
    references = noisy(pictures, 0.1)
    for name, measure in (("ssim", ssim), ("ms-ssim", ms_ssim)):
        reward = load_reward(name)
        assert isinstance(reward, Ssim)
        assert isinstance(reward, MsSsim) == (name == "ms-ssim")
        samples = [
            Sample("", Image(picture), {"reference": Image(reference)})
            for picture, reference in zip(pictures, references, strict=True)
        ]
        assert_close(reward.score(samples).value, measure(pictures, references))
        with pytest.raises(ShapeError, match="one reference of the same size"):
            reward.score_with_grad(pictures, [samples[0], Sample("")])


@pytest.mark.parametrize(
    ("reference", "status"),
    [
        (None, "no reference"),
        (Image(torch.zeros(3, 20, 24)), "the picture is 24x22, the reference 24x20"),
        (Audio(torch.zeros(1, 9), 8000), "the reference is no image"),
        ("a picture", "the reference is no image"),
    ],
)
def test_a_reference_that_does_not_fit_is_a_status(reference: object, status: str) -> None:
    context = {} if reference is None else {"reference": reference}
    sample = Sample("", Image(torch.zeros(3, 22, 24)), context)  # type: ignore[arg-type]
    score = load_reward("ssim").score([sample])
    assert score.status == [status]
    assert score.value.isnan().all()


def test_a_small_picture_is_a_status() -> None:
    small = Image(torch.zeros(3, 100, 200))
    score = load_reward("ms-ssim").score([Sample("", small, {"reference": small})])
    assert score.status == ["the picture is 200x100; it needs 176x176"]
