"""How sharp a picture is, by the spread of its Laplacian."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mmalign.errors import ShapeError
from mmalign.media import Image, Sample
from mmalign.rewards.measured import TensorReward, Unmeasurable


def luma(pictures: Tensor) -> Tensor:
    """Brightness of each pixel as the eye weighs the three colours.

    Args:
        pictures: [B, 3, H, W] in [0, 1].

    Returns:
        [B, H, W] in [0, 1].

    Source: ITU-R BT.601, on the encoded values as they are.
    """
    if pictures.ndim != 4 or pictures.shape[1] != 3:
        raise ShapeError(f"pictures: expected [B, 3, H, W], got {list(pictures.shape)}")
    weights = torch.tensor([0.299, 0.587, 0.114], device=pictures.device)
    return (pictures.float() * weights[:, None, None]).sum(1)


def sharpness(pictures: Tensor) -> Tensor:
    """Variance of the Laplacian of the luma, over the pixels that have four neighbours.

        L[y, x] = Y[y-1, x] + Y[y+1, x] + Y[y, x-1] + Y[y, x+1] - 4 Y[y, x];   sharpness = population variance of L

    Args:
        pictures: [B, 3, H, W] in [0, 1], H and W at least 3.

    Returns:
        [B], squared luma; 0 for a constant picture, more for sharper edges and for noise. Compare only pictures of
        one size.

    Raises:
        ShapeError: ``pictures`` is not [B, 3, H, W], or is too small to have an inside.

    Source: Pech-Pacheco et al. 2000, Diatom autofocusing in brightfield microscopy (LAPV).

    >>> sharpness(torch.full((1, 3, 8, 8), 0.4))
    tensor([0.])
    """
    y = luma(pictures)
    if min(y.shape[1:]) < 3:
        raise ShapeError(f"pictures: sharpness needs H and W of at least 3, got {list(pictures.shape)}")
    inside = y[:, 1:-1, 1:-1]
    around = y[:, :-2, 1:-1] + y[:, 2:, 1:-1] + y[:, 1:-1, :-2] + y[:, 1:-1, 2:]
    return (around - 4 * inside).flatten(1).var(1, correction=0)


class Sharpness(TensorReward):
    """The sharpness of a picture; see :func:`sharpness`.

    Range: [0, 16], higher is better; photographs have about 0.0005 to 0.05, and white noise more than any of them, so
    it serves as a control or a small part of a sum.
    """

    def tensor(self, sample: Sample) -> Tensor:
        """[3, H, W]."""
        assert isinstance(sample.media, Image)
        height, width = sample.media.pixels.shape[1:]
        if min(height, width) < 3:
            raise Unmeasurable(f"the picture is {width}x{height}; sharpness needs 3x3")
        return sample.media.pixels

    def score_with_grad(self, media: Tensor, samples: Sequence[Sample]) -> Tensor:
        """Sharpness [B] of pictures [B, 3, H, W]."""
        return sharpness(media)
