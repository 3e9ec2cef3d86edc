"""How much of a picture stands out from its border: how large what it shows is, which says nothing of its quality."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mmalign.errors import ShapeError
from mmalign.media import Image, Sample
from mmalign.rewards.measured import TensorReward


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


class CoveredArea(TensorReward):
    """The covered area of a picture; see :func:`covered_area`.

    Range: [0, 1]. Neither way is better: it is what ``mmalign reward train --loss odin --nuisance covered-area`` keeps
    out of a reward.
    """

    def tensor(self, sample: Sample) -> Tensor:
        """[3, H, W]."""
        assert isinstance(sample.media, Image)
        return sample.media.pixels

    def score_with_grad(self, media: Tensor, samples: Sequence[Sample]) -> Tensor:
        """Covered area [B] of pictures [B, 3, H, W]; it has no gradient."""
        return covered_area(media)
