"""How like a reference a picture is in structure: SSIM at one scale and at several, both with gradients."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d

from mmalign.errors import ShapeError
from mmalign.media import Image, Sample
from mmalign.rewards.cards import RewardCard
from mmalign.rewards.measured import TensorReward, Unmeasurable

WINDOW_PX, WINDOW_SIGMA_PX = 11, 1.5
C1, C2 = 0.01**2, 0.03**2
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Of MS-SSIM, from the finest scale to the coarsest."""


def ssim_maps(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """SSIM and its contrast-structure part, at each place where the window lies inside the picture.

        CS   = (2 cov(x, y) + C2) / (var x + var y + C2)
        SSIM = CS (2 mean x mean y + C1) / (mean x^2 + mean y^2 + C1)

    with means and (co)variances under a Gaussian window of 11 x 11 and sigma 1.5, C1 = 0.01^2, C2 = 0.03^2.

    Args:
        first: [B, C, H, W] in [0, 1], H and W at least 11.
        second: the same shape.

    Returns:
        Two of [B, C, H - 10, W - 10].

    Raises:
        ShapeError: another shape, or smaller than the window.
    """
    if first.ndim != 4 or first.shape != second.shape or min(first.shape[2:]) < WINDOW_PX:
        raise ShapeError(
            f"pictures: expected two of [B, C, H, W] with H and W of at least {WINDOW_PX}, got {list(first.shape)} "
            f"and {list(second.shape)}"
        )
    batch, channels = first.shape[:2]
    both = torch.cat([first, second, first * first, second * second, first * second]).flatten(0, 1)[:, None]
    mean_1, mean_2, square_1, square_2, product = _blur(both).unflatten(0, (5, batch, channels)).squeeze(3)
    variances = square_1 - mean_1**2 + square_2 - mean_2**2
    structure = (2 * (product - mean_1 * mean_2) + C2) / (variances + C2)
    return structure * (2 * mean_1 * mean_2 + C1) / (mean_1**2 + mean_2**2 + C1), structure


def _blur(pictures: Tensor) -> Tensor:
    offsets = torch.arange(WINDOW_PX, dtype=pictures.dtype, device=pictures.device) - WINDOW_PX // 2
    window = torch.exp(-(offsets**2) / (2 * WINDOW_SIGMA_PX**2))
    window = window / window.sum()
    return conv2d(conv2d(pictures, window[None, None, None, :]), window[None, None, :, None])


def ssim(first: Tensor, second: Tensor) -> Tensor:
    """Structural similarity, the mean of :func:`ssim_maps` over places and channels.

    Args:
        first: [B, C, H, W] in [0, 1], H and W at least 11.
        second: the same shape.

    Returns:
        [B] in [-1, 1], 1 only for equal pictures.

    Source: Wang et al. 2004, Image quality assessment: from error visibility to structural similarity, section III.
    They take grey pictures; we take each channel by itself and average where the window lies inside, as scikit-image
    does (torchmetrics averages over reflected borders too).

    >>> ssim(torch.ones(1, 1, 16, 16), torch.zeros(1, 1, 16, 16))  # C1 / (1 + C1)
    tensor([9.9990e-05])
    """
    return ssim_maps(first, second)[0].flatten(1).mean(1)


def smallest_side(scales: int = len(SCALE_WEIGHTS)) -> int:
    """Pixels that a picture needs so that the window still lies inside it after ``scales - 1`` halvings.

    >>> smallest_side()
    176
    """
    return WINDOW_PX * 2 ** (scales - 1)


def ms_ssim(first: Tensor, second: Tensor, *, weights: Sequence[float] = SCALE_WEIGHTS) -> Tensor:
    """Structural similarity at several scales, each half as large as the one before.

        MS-SSIM = SSIM_M^w_M * product_{j < M} max(CS_j, 0)^w_j

    per channel, then the mean over channels; the next scale is the mean of 2 x 2 pixels.

    Args:
        first: [B, C, H, W] in [0, 1], H and W at least ``smallest_side(M)``.
        second: the same shape.
        weights: one per scale, the finest first.

    Returns:
        [B] in [0, 1], 1 only for equal pictures.

    Raises:
        ShapeError: the coarsest scale would be smaller than the window.

    Source: Wang et al. 2003, Multi-scale structural similarity for image quality assessment, equation 7. A negative CS
    has no real power, so it counts as 0, as in torchmetrics; its gradient is then 0 too.
    """
    if min(first.shape[-2:]) < smallest_side(len(weights)):
        raise ShapeError(
            f"pictures: {len(weights)} scales need H and W of at least {smallest_side(len(weights))}, got "
            f"{list(first.shape)}"
        )
    total = None
    for scale, weight in enumerate(weights):
        if scale:
            first, second = avg_pool2d(first, 2), avg_pool2d(second, 2)
        whole, structure = ssim_maps(first, second)
        last = scale == len(weights) - 1
        part = (whole if last else structure).flatten(2).mean(2)
        positive = part > 0
        # The inner where keeps the gradient of 0^w, which is infinite, out of the backward pass.
        power = torch.where(positive, part.where(positive, 1.0) ** weight, 0.0)
        total = power if total is None else total * power
    assert total is not None
    return total.mean(1)


class Ssim(TensorReward):
    """SSIM of a picture to the picture ``reference`` in its context; see :func:`ssim`.

    Range: [-1, 1], higher is better, 1 for equal pictures. A picture of another size than its reference has no score.
    """

    smallest_px = WINDOW_PX

    def tensor(self, sample: Sample) -> Tensor:
        """[3, H, W]."""
        picture, reference = sample.media, sample.context["reference"]
        assert isinstance(picture, Image)
        if not isinstance(reference, Image):
            raise Unmeasurable("the reference is no image")
        (height, width), other = picture.pixels.shape[1:], reference.pixels.shape[1:]
        if (height, width) != tuple(other):
            raise Unmeasurable(f"the picture is {width}x{height}, the reference {other[1]}x{other[0]}")
        if min(height, width) < self.smallest_px:
            raise Unmeasurable(
                f"the picture is {width}x{height}; it needs {self.smallest_px}x{self.smallest_px}"
            )
        return picture.pixels

    def score_with_grad(self, media: Tensor, samples: Sequence[Sample]) -> Tensor:
        """SSIM [B] of pictures [B, 3, H, W] to the references of ``samples``."""
        return ssim(media, references(media, samples))


class MsSsim(Ssim):
    """MS-SSIM of a picture to the picture ``reference`` in its context; see :func:`ms_ssim`.

    Range: [0, 1], higher is better, 1 for equal pictures.

    Args:
        card: says what it takes.
        device: where it is computed.
        weights: one per scale, the finest first; fewer than five for pictures under 176 pixels, under another name.
    """

    def __init__(
        self, card: RewardCard, *, device: str = "cpu", weights: Sequence[float] = SCALE_WEIGHTS
    ) -> None:
        super().__init__(card, device=device)
        self.weights = tuple(weights)
        self.smallest_px = smallest_side(len(self.weights))

    def score_with_grad(self, media: Tensor, samples: Sequence[Sample]) -> Tensor:
        """MS-SSIM [B] of pictures [B, 3, H, W] to the references of ``samples``."""
        return ms_ssim(media, references(media, samples), weights=self.weights)


def references(media: Tensor, samples: Sequence[Sample]) -> Tensor:
    """The pictures ``reference`` of B samples, on the device and in the precision of ``media``.

    Raises:
        ShapeError: a sample has none, or one of another size.
    """
    found = [sample.context.get("reference") for sample in samples]
    pixels = [reference.pixels for reference in found if isinstance(reference, Image)]
    if media.shape[0] != len(pixels) or any(entry.shape != media.shape[1:] for entry in pixels):
        raise ShapeError(
            f"media: expected [B, 3, H, W] with one reference of the same size for each, got {list(media.shape)} and "
            f"{[list(entry.shape) for entry in pixels]}"
        )
    return torch.stack(pixels).to(media)
