"""Prior-constrained margins: how far two rewards may differ, from how much the two samples do."""

from torch import Tensor

from mmalign.errors import ConfigError
from mmalign.losses.shapes import check_shape


def prior_distance(cosine: Tensor, length_ratio: Tensor | None = None, *, share: float = 0.5) -> Tensor:
    """How different two samples are, before any reward is asked.

        share * (1 - clamp(cosine, 0, 1)) + (1 - share) * (1 - length_ratio)

    Args:
        cosine: [B], of the two samples' embeddings.
        length_ratio: [B], the smaller length or duration over the larger, in (0, 1]; without one ``share`` is 1.
        share: of the embeddings, in [0, 1].

    Returns:
        [B], in [0, 1]; 0 for twins; detached.

    Raises:
        ShapeError: not [B], or the shapes differ.
        ConfigError: a ratio is outside (0, 1], or ``share`` outside [0, 1].

    Source: the priors are of Zhou et al. 2024, PCRM (arXiv:2404.00978); their form here is ours.

    >>> import torch
    >>> prior_distance(torch.tensor([0.5]), torch.tensor([0.5]))
    tensor([0.5000])
    """
    check_shape(cosine, cosine.shape[:1], name="cosine", letters="[B]")
    apart = 1 - cosine.detach().clamp(0, 1)
    if length_ratio is None:
        return apart
    check_shape(length_ratio, cosine.shape, name="length_ratio", letters="[B]")
    ratio = length_ratio.detach()
    if not bool(((ratio > 0) & (ratio <= 1)).all()):
        raise ConfigError(f"length_ratio: expected (0, 1], the smaller over the larger, got {ratio.min():g}")
    if not 0 <= share <= 1:
        raise ConfigError(f"share = {share}, but it is in [0, 1]")
    return share * apart + (1 - share) * (1 - ratio)


def margin_cap_penalty(gap: Tensor, distance: Tensor, *, base: float = 1.0, slope: float = 4.0) -> Tensor:
    """What a gap costs beyond the one that the prior allows, whichever side is ahead.

        most[b] = base + slope * distance[b]
        mean_b max(0, |gap[b]| - most[b])^2 / most[b]

    Added to ``bradley_terry_loss`` with a weight of about 0.1. The other form subtracts a margin there:
    ``bradley_terry_loss(gap, margin=distance)``.

    Args:
        gap: [B], reward of the chosen less that of the rejected.
        distance: [B], ``prior_distance``; detached.
        base: gap allowed between twins, above 0.
        slope: what full distance adds to it, at least 0.

    Returns:
        Scalar, in the unit of the rewards; 0 while no gap is too large.

    Raises:
        ShapeError: not twice the same [B].
        ConfigError: ``base`` is not positive, or ``slope`` is negative.

    Source: Zhou et al. 2024, PCRM (arXiv:2404.00978), for the idea; its own formula was not at hand, this one is ours.

    >>> import torch
    >>> margin_cap_penalty(torch.tensor([3.0, -0.5]), torch.tensor([0.0, 0.0]))  # ((3 - 1)^2 / 1 + 0) / 2
    tensor(2.)
    """
    check_shape(gap, gap.shape[:1], name="gap", letters="[B]")
    check_shape(distance, gap.shape, name="distance", letters="[B]")
    if base <= 0 or slope < 0:
        raise ConfigError(f"base = {base} and slope = {slope}, but base is above 0 and slope at least 0")
    most = base + slope * distance.detach()
    return ((gap.abs() - most).relu() ** 2 / most).mean()
