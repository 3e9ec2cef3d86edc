"""How much of a picture stands out from its border: how large what it shows is, which says nothing of its quality."""

import torch
from torch import Tensor

from mmalign.errors import ShapeError
from mmalign.media import Image, Sample
from mmalign.rewards.measured import MeasuredReward, Measurement


def covered_area(pictures: Tensor, *, apart: float = 0.25) -> Tensor:
    """Share of the pixels whose colour is far from the border's.

        mean over y, x of [ |p[:, y, x] - b| > apart ],   b the median of the outermost pixels, by channel

    Args:
        pictures: [B, 3, H, W] in [0, 1].
        apart: Euclidean distance of colours, from 0 to the root of 3.

    Returns:
        [B], in [0, 1], without gradient; 0 for a plain picture.

    Raises:
        ShapeError: ``pictures`` is not [B, 3, H, W].

    >>> picture = torch.zeros(1, 3, 4, 4)
    >>> picture[:, :, 1:3, 1:3] = 1.0
    >>> covered_area(picture)
    tensor([0.2500])
    """
    if pictures.ndim != 4 or pictures.shape[1] != 3:
        raise ShapeError(f"pictures: expected [B, 3, H, W], got {list(pictures.shape)}")
    p = pictures.detach().float()
    sides = [p[:, :, 0], p[:, :, -1], p[:, :, 1:-1, 0], p[:, :, 1:-1, -1]]
    border = torch.cat(sides, 2).median(2).values[..., None, None]
    return ((p - border).square().sum(1).sqrt() > apart).float().mean((1, 2))


class CoveredArea(MeasuredReward):
    """The covered area of a picture; see :func:`covered_area`.

    Range: [0, 1]. Neither way is better: it is what ``mmalign reward train --loss odin --nuisance covered-area`` keeps
    out of a reward.
    """

    def measure(self, sample: Sample) -> Measurement:
        """The covered area of one picture."""
        assert isinstance(sample.media, Image)
        return Measurement(float(covered_area(sample.media.pixels[None])))
