"""Prior-constrained margins: how far two rewards may differ, from how much the two samples do."""

import math

import torch.nn.functional as F
from torch import Tensor

from mmalign.errors import ConfigError
from mmalign.losses.shapes import check_shape


def pcrm_similarity(cosine: Tensor) -> Tensor:
    """How alike two samples are, by the angle between their embeddings.

        1 - arccos(clamp(cosine, 0, 1)) / pi

    The other prior of the source is the ratio of the two lengths, the smaller over the larger, as it is.

    Args:
        cosine: [B].

    Returns:
        [B], from 1/2 to 1 for twins; detached.

    Raises:
        ShapeError: not [B].

    Source: the code of Zhou et al. 2024, PCRM (arXiv:2404.00978).

    >>> import torch
    >>> pcrm_similarity(torch.tensor([1.0, 0.5, -0.3])).round(decimals=4)
    tensor([1.0000, 0.6667, 0.5000])
    """
    check_shape(cosine, cosine.shape[:1], name="cosine", letters="[B]")
    return 1 - cosine.detach().clamp(0, 1).arccos() / math.pi


def pcrm_loss(
    gap: Tensor, similarity: Tensor, *, slope: float = 6.0, least: float = 1e-3, shift: float = 0.0
) -> Tensor:
    """Bradley–Terry with a second term that holds the gap below a margin, the closer the more alike the two are.

        most[b] = slope / (similarity[b] + least) + shift
        mean_b -log sigmoid(gap[b]) - log sigmoid(most[b] - gap[b])

    Args:
        gap: [B], reward of the chosen less that of the rejected.
        similarity: [B] in [0, 1], ``pcrm_similarity`` or the ratio of the two lengths; detached.
        slope: beta_1, above 0.
        least: beta_2, above 0, for pairs that have nothing in common.
        shift: beta_3.

    Returns:
        Scalar, nats; lowest where ``gap`` is half of ``most``.

    Raises:
        ShapeError: not twice the same [B].
        ConfigError: a similarity is outside [0, 1], or ``slope`` or ``least`` is not above 0.

    Source: Zhou et al. 2024, PCRM (arXiv:2404.00978), in the form and with the defaults of its code, which has a reward
    for each token and takes the mean over them; here a sample has one.

    >>> import torch
    >>> pcrm_loss(torch.tensor([3.0]), torch.tensor([1.0]), least=1e-9)  # 2 * log(1 + e^-3)
    tensor(0.0972)
    """
    check_shape(gap, gap.shape[:1], name="gap", letters="[B]")
    check_shape(similarity, gap.shape, name="similarity", letters="[B]")
    alike = similarity.detach()
    if not bool(((alike >= 0) & (alike <= 1)).all()):
        raise ConfigError("similarity: expected numbers in [0, 1]")
    if slope <= 0 or least <= 0:
        raise ConfigError(f"slope = {slope} and least = {least}, but both are above 0")
    most = slope / (alike + least) + shift
    return -(F.logsigmoid(gap) + F.logsigmoid(most - gap)).mean()


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

    Source: ours, from the two priors of Zhou et al. 2024, PCRM (arXiv:2404.00978), which takes one of them at a time;
    see ``pcrm_similarity``.

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

    Source: ours. ``pcrm_loss``, whose idea it has, holds a gap towards half of its margin at any size, and that of the
    chosen side alone; this costs nothing below the margin.

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
