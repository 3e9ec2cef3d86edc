"""How sure several members of a reward are, and what a careful reader makes of it; pure functions of tensors.

Members are along the first axis. All of it presumes one scale: Bradley–Terry rewards have a free zero each, so
``Heads.standardise_outputs`` comes first. A member without a score (NaN) makes the result NaN: it is never a 0.
"""

import torch
from torch import Tensor

from mmalign.errors import ConfigError, ShapeError


def mean_less_std(scores: Tensor, *, pessimism: float = 1.0, correction: int = 0) -> Tensor:
    """A lower confidence bound.

        mean_k scores[k] - pessimism * std_k scores[k]

    Args:
        scores: [K, B] or [K, B, D].
        pessimism: at least 0; with 0 it is the mean.
        correction: 0 for the population std, 1 for the sample std.

    Returns:
        The shape of one member.

    Raises:
        ShapeError: fewer axes or members than that needs.
        ConfigError: ``pessimism`` is negative, or ``correction`` neither 0 nor 1.

    >>> mean_less_std(torch.tensor([[1.0], [2.0], [3.0]]))
    tensor([1.1835])
    """
    _check(scores, pessimism, correction)
    return scores.mean(0) - pessimism * _variance(scores, correction).sqrt()


def worst_case(scores: Tensor) -> Tensor:
    """Worst-case optimisation: the reward of the member that likes a sample least.

        min_k scores[k]

    Args:
        scores: [K, B] or [K, B, D].

    Returns:
        The shape of one member.

    Raises:
        ShapeError: not at least [K, B].

    Source: Coste et al. 2023, section 3 (arXiv:2310.02743), WCO.

    >>> worst_case(torch.tensor([[1.0, 5.0], [3.0, 4.0]]))
    tensor([1., 4.])
    """
    _check(scores, 0.0, 0)
    return scores.amin(0)


def soft_worst_case(scores: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Between the worst case (towards 0) and the mean (hot).

        -temperature * log mean_k exp(-scores[k] / temperature)

    Args:
        scores: [K, B] or [K, B, D].
        temperature: above 0, in the unit of the scores.

    Returns:
        The shape of one member, from ``worst_case`` to the mean.

    Raises:
        ShapeError: not at least [K, B].
        ConfigError: ``temperature`` is not positive.

    >>> soft_worst_case(torch.tensor([[0.0], [100.0]]))  # log 2
    tensor([0.6931])
    """
    _check(scores, 0.0, 0)
    if not temperature > 0:
        raise ConfigError(f"temperature = {temperature}, but it is above 0; at 0 it is worst_case")
    K = scores.new_tensor(float(len(scores)))
    return -temperature * ((-scores / temperature).logsumexp(0) - K.log())


def uncertainty_weighted(scores: Tensor, *, weight: float = 0.5, correction: int = 0) -> Tensor:
    """Uncertainty-weighted optimisation: the mean less the members' variance, not their std.

        mean_k scores[k] - weight * var_k scores[k]

    Args:
        scores: [K, B] or [K, B, D]; the variance grows with the square of their scale, so standardise first.
        weight: at least 0; 0.5 for best-of-n and 0.1 for policy gradients in the published code.
        correction: 0 as the published code has it for best-of-n, 1 as for policy gradients.

    Returns:
        The shape of one member.

    Raises:
        ShapeError: fewer axes or members than that needs.
        ConfigError: ``weight`` is negative, or ``correction`` neither 0 nor 1.

    Source: Coste et al. 2023, section 3 (arXiv:2310.02743), UWO.

    >>> uncertainty_weighted(torch.tensor([[1.0], [2.0], [3.0]]), correction=1)  # 2 - 1 / 2
    tensor([1.5000])
    """
    _check(scores, weight, correction)
    return scores.mean(0) - weight * _variance(scores, correction)


def agreement_weight(scores: Tensor, *, scale: float = 1.0) -> Tensor:
    """Ctrl-U for rewards: a sample counts less, the more its score changes with the noise.

        exp(-scale * std_k scores[k]),   population std

    Args:
        scores: [K, B], of one sample with K noises (or by K members). Pixels: ``mmalign.losses.ctrl_u_loss``.
        scale: at least 0, in the inverse unit of the scores.

    Returns:
        [B], in (0, 1].

    Raises:
        ShapeError: not at least [K, B].
        ConfigError: ``scale`` is negative.

    Source: Zhang et al. 2024, Ctrl-U, section 3 (arXiv:2410.11236), for pixels; this form for rewards is ours.

    >>> agreement_weight(torch.tensor([[1.0, 2.0], [1.0, 6.0]]), scale=0.1)  # e^0, e^-0.2
    tensor([1.0000, 0.8187])
    """
    _check(scores, scale, 0)
    return torch.exp(-scale * _variance(scores, 0).sqrt())


def reliability(std: Tensor, *, typical: float | None = None) -> Tensor:
    """Weight of a reward, or inverse factor of a KL penalty, by how unsure it is.

        1 / (1 + (std[b] / typical)^2)

    Args:
        std: [B], at least 0, NaN where there is none.
        typical: the std that halves a reward; the median of those that are there if not given.

    Returns:
        [B], in (0, 1]; 1 at a std of 0. The KL coefficient of a sample is beta divided by it.

    Raises:
        ShapeError: not [B].
        ConfigError: a std is negative, or ``typical`` is not positive (half of all are 0: give one).

    Source: the idea is of variance-aware alignment; this form is ours.

    >>> reliability(torch.tensor([0.0, 1.0, 3.0]))
    tensor([1.0000, 0.5000, 0.1000])
    """
    if std.ndim != 1:
        raise ShapeError(f"std: expected [B], got {list(std.shape)}")
    if (std < 0).any():
        raise ConfigError("std: expected numbers of at least 0")
    half = float(std.nanmedian()) if typical is None else typical
    if not half > 0 and bool((std > 0).any()):
        raise ConfigError(f"typical = {half}, but it is above 0; give one where half of the stds are 0")
    return 1 / (1 + (std / half) ** 2) if half > 0 else 1 / (1 + std)


def energy(logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """How far a sample is from what a scorer was trained on: the higher, the further.

        -temperature * logsumexp_c(logits[b, c] / temperature)

    Args:
        logits: [B, C], of classes; of a Bradley–Terry reward r, the two columns 0 and r.
        temperature: above 0.

    Returns:
        [B], nats.

    Raises:
        ShapeError: not [B, C].
        ConfigError: ``temperature`` is not positive.

    Source: Liu et al. 2020, Energy-based Out-of-distribution Detection, section 3.1 (arXiv:2010.03759).

    >>> energy(torch.tensor([[2.0, -1.0]]))
    tensor([-2.0486])
    """
    if logits.ndim != 2:
        raise ShapeError(f"logits: expected [B, C], got {list(logits.shape)}")
    if not temperature > 0:
        raise ConfigError(f"temperature = {temperature}, but it is above 0")
    return -temperature * (logits / temperature).logsumexp(1)


def _variance(scores: Tensor, correction: int) -> Tensor:
    return scores.var(0, correction=correction)


def _check(scores: Tensor, factor: float, correction: int) -> None:
    if correction not in (0, 1):
        raise ConfigError(f"correction = {correction}, but it is 0 (population) or 1 (sample)")
    if scores.ndim < 2 or len(scores) <= correction:
        raise ShapeError(f"scores: expected [K, B] with K > {correction}, got {list(scores.shape)}")
    if factor < 0:
        raise ConfigError(f"pessimism, weight or scale = {factor}, but it is at least 0")
