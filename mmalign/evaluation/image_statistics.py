"""Plain statistics of pictures, compared before and after a run: a reward that is fooled usually moves one of them."""

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from mmalign.errors import ShapeError

THUMBNAIL_PX = 16
"""Side of the small copies that ``diversity`` compares: layout and colour count, texture does not."""


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
