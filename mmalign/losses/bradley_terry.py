"""Bradley–Terry: how probably one sample is preferred, from the gap of two rewards; for fitting a reward model."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mmalign.errors import ConfigError, ShapeError
from mmalign.losses.selection import kept_mean
from mmalign.losses.shapes import check_shape


def bradley_terry_loss(
    gap: Tensor,
    *,
    margin: Tensor | float = 0.0,
    weight: Tensor | None = None,
    valid: Tensor | None = None,
) -> Tensor:
    """Negative log-likelihood of a preference; the gap is to be above a margin, not above 0.

        mean_{i: valid[i]} weight[i] * -log sigmoid(gap[i] - margin[i])

    Args:
        gap: [B] or [B, D] for D aspects, reward of the chosen less that of the rejected, in log odds. Where ``valid``
            is False it may be NaN.
        margin: a number, or as ``gap``, such as a multiple of the gap of people's ratings; detached.
        weight: as ``gap``, at least 0, such as ``strength_weights``; detached. The mean is over pairs, not over weight.
        valid: as ``gap``, booleans, False where there is no label; all are if not given.

    Returns:
        Scalar, nats; log 2 at a gap of the margin; 0 where nothing is valid.

    Raises:
        ShapeError: the shapes differ.
        ConfigError: a weight is negative, or ``valid`` is not of booleans.

    Source: Bradley and Terry 1952; Ouyang et al. 2022, InstructGPT, section 3.5 (arXiv:2203.02155); the margin is of
    Touvron et al. 2023, Llama 2, section 3.2.2 (arXiv:2307.09288).

    >>> import torch
    >>> bradley_terry_loss(torch.tensor([1.0])), bradley_terry_loss(torch.tensor([1.0]), margin=0.5)
    (tensor(0.3133), tensor(0.4741))
    """
    gap = only_valid(gap, valid, name="gap")
    if isinstance(margin, Tensor):
        margin = only_valid(_like(margin, gap, name="margin").detach(), valid, name="margin")
    return _weighted_mean(-F.logsigmoid(gap - margin), weight, valid)


def soft_bradley_terry_loss(
    gap: Tensor, probability: Tensor, *, weight: Tensor | None = None, valid: Tensor | None = None
) -> Tensor:
    """Cross-entropy to a share of votes, or to a judge's probability; the gap is learned and not only its sign.

        mean_{i: valid[i]} weight[i] * -[ p[i] * log sigmoid(gap[i]) + (1 - p[i]) * log sigmoid(-gap[i]) ]

    Args:
        gap: [B] or [B, D], reward of the first less that of the second, in log odds.
        probability: as ``gap``, in [0, 1], p that the first is better; detached.
        weight: as ``gap``, at least 0; detached.
        valid: as ``gap``, booleans; all are if not given.

    Returns:
        Scalar, nats; least, the entropy of p, where sigmoid(gap) = p. Its derivative is sigmoid(gap) - p.

    Raises:
        ShapeError: the shapes differ.
        ConfigError: a probability is outside [0, 1] (NaN too), a weight is negative, or ``valid`` is not of booleans.

    Source: the cross-entropy of two classes; Zhai et al. 2024 (arXiv:2405.14103), section 4, for strengths.

    >>> import torch
    >>> soft_bradley_terry_loss(torch.tensor([2.0]), torch.tensor([0.75]))  # 0.1269 + 2 / 4
    tensor(0.6269)
    """
    gap = only_valid(gap, valid, name="gap")
    p = only_valid(_like(probability, gap, name="probability").detach(), valid, name="probability")
    if not bool(((p >= 0) & (p <= 1)).all()):
        raise ConfigError(f"probability: expected 0 to 1, got {p.min():g} to {p.max():g}")
    return _weighted_mean(-(p * F.logsigmoid(gap) + (1 - p) * F.logsigmoid(-gap)), weight, valid)


def smoothed_probability(chosen_first: Tensor, *, smoothing: float) -> Tensor:
    """Labels that are not quite sure, for ``soft_bradley_terry_loss``.

        1 - smoothing / 2 where the first was chosen, smoothing / 2 where the second was

    With it the loss is -log sigmoid(g) + smoothing / 2 * g of the chosen side's gap g: a linear price on the gap, whose
    optimum is finite, log((1 - smoothing / 2) / (smoothing / 2)).

    Args:
        chosen_first: any shape, booleans.
        smoothing: share of the label spread over both classes, in [0, 1); 0.1 in GRAM.

    Returns:
        As ``chosen_first``, in the default dtype.

    Raises:
        ConfigError: ``chosen_first`` is not of booleans, or ``smoothing`` is outside [0, 1).

    Source: Wang et al. 2025, GRAM (arXiv:2506.14175), whose label tokens make two classes.

    >>> import torch
    >>> smoothed_probability(torch.tensor([True, False]), smoothing=0.1)
    tensor([0.9500, 0.0500])
    """
    if not 0 <= smoothing < 1:
        raise ConfigError(f"smoothing = {smoothing}, but it is in [0, 1); at 1 labels say nothing")
    _check_booleans(chosen_first, name="chosen_first")
    low = chosen_first.new_full(chosen_first.shape, smoothing / 2, dtype=torch.get_default_dtype())
    return low.masked_fill(chosen_first, 1 - smoothing / 2)


def strength_weights(strength: Tensor) -> Tensor:
    """Weights of pairs by how strongly people preferred, their mean 1.

        strength[b] / mean strength

    Args:
        strength: [B], such as the difference of two ratings, at least 0.

    Returns:
        [B], unitless, detached.

    Raises:
        ShapeError: not [B].
        ConfigError: a strength is negative or NaN, or all are 0.

    >>> import torch
    >>> strength_weights(torch.tensor([1.0, 3.0]))
    tensor([0.5000, 1.5000])
    """
    check_shape(strength, strength.shape[:1], name="strength", letters="[B]")
    s = strength.detach()
    if not bool((s >= 0).all()) or not s.sum() > 0:
        raise ConfigError("strength: expected numbers of at least 0, of which one is above 0")
    return s / s.mean()


def centring_penalty(*rewards: Tensor) -> Tensor:
    """Holds the free zero of Bradley–Terry rewards near 0; added with a weight of about 0.01.

        mean_b (sum_i rewards[i][b])^2

    Args:
        rewards: each [B], of the chosen and of the rejected samples.

    Returns:
        Scalar, squared unit of the rewards; it is 0 where each pair's rewards are opposite.

    Raises:
        ShapeError: none is given, or their shapes differ.

    Source: Eisenstein et al. 2023, Helping or Herding (arXiv:2312.09244), as TRL's RewardTrainer has it.

    >>> import torch
    >>> centring_penalty(torch.tensor([2.0]), torch.tensor([1.0]))
    tensor(9.)
    """
    if not rewards:
        raise ShapeError("rewards: expected at least one [B], got none")
    total = rewards[0]
    for reward in rewards[1:]:
        total = total + _like(reward, total, name="rewards")
    return (total**2).mean()


def gaussian_bradley_terry_loss(gap: Tensor, variance: Tensor, *, points: int = 64) -> Tensor:
    """Bradley–Terry on rewards that are normal and not numbers, averaged without drawing.

        mean_b E[-log sigmoid(d)],  d ~ N(gap[b], variance[b])

    by Gauss–Hermite quadrature. A model that doubts pays less where it is wrong, and more where it is right.

    Args:
        gap: [B], difference of the two means, chosen less rejected.
        variance: [B], sum of the two variances, at least 0; its square root has no gradient at 0.
        points: of the quadrature; 64 agree to 1e-8 up to a variance of about 4.

    Returns:
        Scalar, nats.

    Raises:
        ShapeError: not twice the same [B].
        ConfigError: a variance is negative, or ``points`` is below 1.

    Source: Ma et al. 2025, HPSv3 (arXiv:2508.03789), whose code averages 1000 draws.

    >>> import torch
    >>> gaussian_bradley_terry_loss(torch.tensor([1.0]), torch.tensor([2.0]))
    tensor(0.4918)
    """
    check_shape(gap, gap.shape[:1], name="gap", letters="[B]")
    check_shape(variance, gap.shape, name="variance", letters="[B]")
    if not bool((variance >= 0).all()):
        raise ConfigError(f"variance: expected at least 0, got {variance.min():g}")
    if points < 1:
        raise ConfigError(f"points = {points}, but a quadrature has at least 1")
    nodes, weights = _gauss_hermite(points, gap)
    drawn = gap[:, None] + variance[:, None].sqrt() * nodes
    return -(F.logsigmoid(drawn) @ weights).mean()


def only_valid(values: Tensor, valid: Tensor | None, *, name: str) -> Tensor:
    """Put 0 where there is no label, so that what stands there, NaN included, reaches neither loss nor gradient.

    Args:
        values: [B] or [B, D].
        valid: as ``values``, booleans, or None.
        name: what to call ``values`` in the error.

    Raises:
        ShapeError: ``values`` has another number of axes, or ``valid`` another shape.
        ConfigError: ``valid`` is not of booleans.
    """
    if values.ndim not in (1, 2):
        raise ShapeError(f"{name}: expected [B] or [B, D], got {list(values.shape)}")
    if valid is None:
        return values
    _like(valid, values, name="valid")
    _check_booleans(valid, name="valid")
    return values.masked_fill(~valid, 0)


def _weighted_mean(loss: Tensor, weight: Tensor | None, valid: Tensor | None) -> Tensor:
    if weight is not None:
        weight = only_valid(_like(weight, loss, name="weight").detach(), valid, name="weight")
        if not bool((weight >= 0).all()):
            raise ConfigError(
                f"weight: expected at least 0, got {weight.min():g}; swap the sides of such a pair"
            )
        loss = weight * loss
    return loss.mean() if valid is None else kept_mean(loss.flatten(), valid.flatten())


def _like(tensor: Tensor, like: Tensor, *, name: str) -> Tensor:
    check_shape(tensor, like.shape, name=name, letters="[B]" if like.ndim == 1 else "[B, D]")
    return tensor


def _check_booleans(tensor: Tensor, *, name: str) -> None:
    if tensor.dtype != torch.bool:
        raise ConfigError(f"{name}: expected booleans, got {tensor.dtype}; give {name}.bool()")


def _gauss_hermite(points: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes and weights of the standard normal's mean: eigenvalues of the Jacobi matrix (Golub and Welsch 1969)."""
    beside = torch.arange(1, points, dtype=torch.float64).sqrt()
    nodes, vectors = torch.linalg.eigh(torch.diag(beside, 1) + torch.diag(beside, -1))
    return nodes.to(like), vectors[0].square().to(like)
