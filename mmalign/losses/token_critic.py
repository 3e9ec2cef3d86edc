"""PPO with a critic: advantages of single tokens from rewards and values, and the loss that fits the values."""

import torch
from torch import Tensor

from mmalign.errors import ConfigError
from mmalign.losses.masks import check_mask
from mmalign.losses.shapes import check_shape


def gae(rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float = 1.0, decay: float = 0.95) -> Tensor:
    """Generalised advantage estimation: what followed a token, less what was expected of it.

        delta[l] = rewards[l] + gamma * values[l + 1] - values[l]
        A[l] = delta[l] + gamma * decay * A[l + 1]

    over the entries that the mask keeps; after the last one value and advantage are 0.

    Args:
        rewards: [B, L], of each token; the score of a whole response stands on its last one.
        values: [B, L], the critic's, before each token; detached.
        mask: [B, L], booleans, the response.
        gamma: discount per token; 1 for responses, whose end is what counts.
        decay: lambda of the paper; 1 takes the whole return, 0 one step and the critic.

    Returns:
        [B, L], in the unit of ``rewards``, 0 where the mask is False, detached.

    Raises:
        ShapeError: not three times the same [B, L].
        ConfigError: ``mask`` is not of booleans, or ``gamma`` or ``decay`` is outside [0, 1].

    Source: Schulman et al. 2015, Generalized Advantage Estimation, section 3, equation 16 (arXiv:1506.02438).

    >>> everything = torch.ones(1, 3, dtype=torch.bool)
    >>> gae(torch.tensor([[0.0, 0.0, 1.0]]), torch.zeros(1, 3), everything)  # 0.95^2, 0.95, 1
    tensor([[0.9025, 0.9500, 1.0000]])
    """
    for name, value in (("gamma", gamma), ("decay", decay)):
        if not 0 <= value <= 1:
            raise ConfigError(f"{name} = {value}, but it is from 0 to 1")
    check_mask(mask, rewards)
    check_shape(values, rewards.shape, name="values", letters="[B, L]")
    rewards, values = (t.detach().masked_fill(~mask, 0) for t in (rewards, values))
    advantages = torch.zeros_like(rewards)
    next_value = next_advantage = torch.zeros_like(rewards[:, 0])
    for token in reversed(range(rewards.shape[1])):
        kept = mask[:, token]
        delta = rewards[:, token] + gamma * next_value - values[:, token]
        advantage = delta + gamma * decay * next_advantage
        advantages[:, token] = advantage.masked_fill(~kept, 0)
        next_value = torch.where(kept, values[:, token], next_value)
        next_advantage = torch.where(kept, advantage, next_advantage)
    return advantages


def whiten(advantages: Tensor, mask: Tensor, *, eps: float = 1e-8) -> Tensor:
    """Standardise the advantages of all tokens of a batch together.

        (A - mean A) / sqrt(var A + eps),  mean and population variance where the mask is True

    Args:
        advantages: [B, L].
        mask: [B, L], booleans, True somewhere.
        eps: added to the variance, in the squared unit of ``advantages``.

    Returns:
        [B, L], unitless, 0 where the mask is False, detached.

    Raises:
        ShapeError: not twice the same [B, L].
        ConfigError: ``mask`` is not of booleans, or is empty.

    Source: Schulman et al. 2017, PPO, section 6.1 (arXiv:1707.06347), whose code standardises; never of rewards, whose
    sum it would change.

    >>> whiten(torch.tensor([[1.0, 3.0, 9.0]]), torch.tensor([[True, True, False]]))
    tensor([[-1.,  1.,  0.]])
    """
    check_mask(mask, advantages)
    kept = advantages.detach()[mask]
    if not len(kept):
        raise ConfigError("mask: it is empty, so there is nothing to standardise")
    kept = kept - kept[0]  # equal advantages then give exact zeros
    kept = (kept - kept.mean()) / (kept.var(correction=0) + eps).sqrt()
    return torch.zeros_like(advantages).masked_scatter(mask, kept)


def clipped_value_loss(
    value: Tensor, old_value: Tensor, returns: Tensor, mask: Tensor, *, clip: float = 0.2
) -> Tensor:
    """Fit the critic, and do not follow it far from where it was when the rollout was made.

        clipped = old_value + clamp(value - old_value, -clip, clip)
        mean over the mask's tokens of max((value - returns)^2, (clipped - returns)^2) / 2

    Args:
        value: [B, L], the critic's.
        old_value: [B, L], at the rollout; detached.
        returns: [B, L], such as ``gae`` plus ``old_value``; detached.
        mask: [B, L], booleans, True somewhere.
        clip: in the unit of the values.

    Returns:
        Scalar, squared unit of the values.

    Raises:
        ShapeError: not four times the same [B, L].
        ConfigError: ``mask`` is not of booleans, or is empty; or ``clip`` is not positive.

    Source: the code of Schulman et al. 2017, PPO (arXiv:1707.06347).

    >>> one = torch.ones(1, 1)
    >>> clipped_value_loss(0.5 * one, 0 * one, one, one.bool())  # 0.2 is further from 1 than 0.5 is: 0.8^2 / 2
    tensor(0.3200)
    """
    check_mask(mask, value)
    check_shape(old_value, value.shape, name="old_value", letters="[B, L]")
    check_shape(returns, value.shape, name="returns", letters="[B, L]")
    if clip <= 0:
        raise ConfigError(f"clip = {clip}, but it must be positive; at 0 no value could move")
    if not mask.any():
        raise ConfigError("mask: it is empty, so there is nothing to average")
    value, old_value, returns = value[mask], old_value.detach()[mask], returns.detach()[mask]
    clipped = old_value + (value - old_value).clamp(-clip, clip)
    return torch.maximum((value - returns) ** 2, (clipped - returns) ** 2).mean() / 2
