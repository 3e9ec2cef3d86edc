"""Plain statistics of pictures, compared before and after a run: a reward that is fooled usually moves one of them."""

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from mmalign.errors import ShapeError
from mmalign.rewards.sharpness import luma, sharpness

THUMBNAIL_PX = 16
"""Side of the small copies that ``diversity`` compares: layout and colour count, texture does not."""


def brightness(pictures: Tensor) -> Tensor:
    """Mean luma, [B] in [0, 1], of pictures [B, 3, H, W] in [0, 1].

    >>> brightness(torch.ones(1, 3, 2, 2))
    tensor([1.])
    """
    return luma(pictures).mean((1, 2))


def saturation(pictures: Tensor) -> Tensor:
    """Mean HSV saturation: (largest - smallest channel) / largest, and 0 where a pixel is black.

    Args:
        pictures: [B, 3, H, W] in [0, 1].

    Returns:
        [B] in [0, 1]; 0 for grey pictures, 1 where each pixel lacks one primary colour.

    Raises:
        ShapeError: ``pictures`` is not [B, 3, H, W].

    Source: Smith 1978, Color gamut transform pairs.
    """
    if pictures.ndim != 4 or pictures.shape[1] != 3:
        raise ShapeError(f"pictures: expected [B, 3, H, W], got {list(pictures.shape)}")
    low, high = pictures.float().aminmax(dim=1)
    return ((high - low) / high.clamp_min(1e-6)).mean((1, 2))


def diversity(samples: Tensor, groups: Sequence[Hashable]) -> float:
    """How far apart the samples of one prompt are: the mean pairwise distance in a group, then the mean over groups.

        pictures:    root mean square difference of their 16 x 16 thumbnails, in [0, 1]
        embeddings:  Euclidean distance, in their own unit

    Args:
        samples: [B, 3, H, W] in [0, 1], or embeddings [B, D].
        groups: B prompt ids. A prompt with one sample has no distance and does not count.

    Returns:
        At least 0, which says that each prompt gives one picture only; NaN where no prompt has two samples.

    Raises:
        ShapeError: ``samples`` has another rank, or ``groups`` another length.

    >>> diversity(torch.tensor([[0.0, 0.0], [3.0, 4.0], [7.0, 7.0]]), ["a", "a", "b"])
    5.0
    """
    if samples.ndim not in (2, 4):
        raise ShapeError(f"samples: expected [B, 3, H, W] or [B, D], got {list(samples.shape)}")
    if len(groups) != len(samples):
        raise ShapeError(f"groups: expected [B] = [{len(samples)}], got [{len(groups)}]")
    vectors = samples.float()
    if samples.ndim == 4:
        small = torch.nn.functional.interpolate(vectors, (THUMBNAIL_PX, THUMBNAIL_PX), mode="area").flatten(1)
        vectors = small / small.shape[1] ** 0.5
    members: dict[Hashable, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(group, []).append(row)
    means = [torch.nn.functional.pdist(vectors[rows]).mean() for rows in members.values() if len(rows) > 1]
    return float(torch.stack(means).mean()) if means else float("nan")


def picture_guards(pictures: Tensor, groups: Sequence[Hashable]) -> dict[str, float]:
    """Means of all statistics, to be compared before and after; ``diversity`` only where a prompt has two pictures.

    Args:
        pictures: [B, 3, H, W] in [0, 1].
        groups: B prompt ids.

    Returns:
        ``sharpness``, ``brightness``, ``saturation`` and, if it is defined, ``diversity``.
    """
    guards = {
        "sharpness": float(sharpness(pictures).mean()),
        "brightness": float(brightness(pictures).mean()),
        "saturation": float(saturation(pictures).mean()),
    }
    spread = diversity(pictures, groups)
    return guards if spread != spread else {**guards, "diversity": spread}
