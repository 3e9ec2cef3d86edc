"""One reward of a whole sequence as rewards of its tokens, the sum unchanged; pure functions of tensors.

A mask is True on the response's tokens, which follow each other without a gap, and False on prompt and padding, where
every reward here is 0.
"""

import torch
from torch import Tensor

from mmalign.errors import ConfigError, ShapeError
from mmalign.losses.masks import check_mask, lengths


def prefix_redistribution(
    prefix_value: Tensor, start_value: Tensor, mask: Tensor, *, share: float = 1.0
) -> Tensor:
    """RED: a token is worth what it adds to the reward model's value of the text so far.

        d[t] = prefix_value[t] - prefix_value[t - 1],  start_value before the first
        share * d[t] + (1 - share) * (prefix_value[last] - start_value) at the last token, share * d[t] elsewhere

    Args:
        prefix_value: [B, L], the reward of the text up to and with each token; one pass of a causal model has all.
        start_value: [B], of the prompt with no response.
        mask: [B, L], booleans.
        share: of the redistribution, in [0, 1]; with 0 all is at the last token.

    Returns:
        [B, L], of sum prefix_value[last] - start_value in each row.

    Raises:
        ShapeError: not [B, L], [B] and [B, L].
        ConfigError: a response is empty or has a gap, or ``share`` is outside [0, 1].

    Source: Li et al. 2024, RED: Unleashing Token-Level Rewards from Holistic Feedback (arXiv:2411.08302). Mixing with
    the sparse reward is ours; so that every share has one sum, that is less ``start_value`` too.

    >>> mask = torch.tensor([[False, True, True, True]])
    >>> prefix_redistribution(torch.tensor([[9.0, 1.0, 0.5, 2.0]]), torch.tensor([0.25]), mask)
    tensor([[ 0.0000,  0.7500, -0.5000,  1.5000]])
    """
    first, last = _response(prefix_value, mask)
    _check_rows(start_value, mask, name="start_value")
    _check_share(share)
    value = prefix_value.masked_fill(~mask, 0)
    before = torch.where(first, start_value[:, None], value.roll(1, 1))
    whole = (value * last).sum(1) - start_value
    return share * (value - before).masked_fill(~mask, 0) + (1 - share) * whole[:, None] * last


def attention_redistribution(
    reward: Tensor, attention: Tensor, mask: Tensor, *, share: float = 0.5, renormalise: bool = True
) -> Tensor:
    """Attention-based credit: a token is worth as much as the reward model looked at it.

        a[t] = attention[t] / sum over the response        (as it is without ``renormalise``)
        share * reward * a[t] + (1 - share) * reward * [t is the last]

    Args:
        reward: [B], of whole responses.
        attention: [B, L], at least 0, of the last position on all, averaged over the last layer's heads; detached.
        mask: [B, L], booleans.
        share: of the redistribution, in [0, 1].
        renormalise: without it what was looked at in the prompt is lost, as in the published code.

    Returns:
        [B, L]; with ``renormalise`` of sum ``reward`` in each row.

    Raises:
        ShapeError: not [B], [B, L] and [B, L].
        ConfigError: a response is empty, has a gap or no attention; attention is negative; ``share`` outside [0, 1].

    Source: Chan et al. 2024, Dense Reward for Free, section 3 (arXiv:2402.00782).

    >>> mask = torch.tensor([[False, True, True]])
    >>> attention_redistribution(torch.tensor([2.0]), torch.tensor([[0.5, 0.3, 0.1]]), mask)
    tensor([[0.0000, 0.7500, 1.2500]])
    """
    _, last = _response(attention, mask)
    _check_rows(reward, mask, name="reward")
    _check_share(share)
    looked = attention.detach().masked_fill(~mask, 0)
    total = looked.sum(1, keepdim=True)
    if (looked < 0).any() or (total <= 0).any():
        raise ConfigError(
            "attention: expected numbers of at least 0, of which one in each response is above 0"
        )
    weight = looked / total if renormalise else looked
    return reward[:, None] * (share * weight + (1 - share) * last.to(weight))


def uniform_redistribution(reward: Tensor, mask: Tensor) -> Tensor:
    """The same for every token: the control of every cleverer credit.

        reward / T on each of the response's T tokens

    Args:
        reward: [B].
        mask: [B, L], booleans.

    Returns:
        [B, L], of sum ``reward`` in each row.

    Raises:
        ShapeError: not [B] and [B, L].
        ConfigError: a response is empty, or ``mask`` is not of booleans.

    >>> uniform_redistribution(torch.tensor([3.0]), torch.tensor([[True, True, False]]))
    tensor([[1.5000, 1.5000, 0.0000]])
    """
    check_mask(mask, mask)
    _check_rows(reward, mask, name="reward")
    return (reward / lengths(mask))[:, None] * mask


def potential_shaping(rewards: Tensor, potential: Tensor, mask: Tensor, *, gamma: float = 1.0) -> Tensor:
    """Move credit along a sequence without changing what is best: the best policy and the return stay.

        rewards[t] + (gamma * phi[t + 1] - phi[t]),   phi = potential less that of the first token, 0 after the last

    Args:
        rewards: [B, L].
        potential: [B, L], of the state before each token, such as a critic's value or a step's predicted progress.
        mask: [B, L], booleans.
        gamma: discount, in (0, 1].

    Returns:
        [B, L], with the same discounted sum in each row; whatever is added to a row's potential changes nothing.

    Raises:
        ShapeError: not three times [B, L].
        ConfigError: a response is empty or has a gap, or ``gamma`` is outside (0, 1].

    Source: Ng, Harada and Russell 1999, Policy Invariance under Reward Transformations, theorem 1. Taking the first
    potential off is ours: it moves every return of a prompt alike, and so keeps the sum.

    >>> yes = torch.tensor([[True, True, True]])
    >>> potential_shaping(torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([[5.0, 5.5, 5.75]]), yes)
    tensor([[0.5000, 0.2500, 0.2500]])
    """
    first, last = _response(rewards, mask)
    check_mask(mask, potential)
    if not 0 < gamma <= 1:
        raise ConfigError(f"gamma = {gamma}, but it is in (0, 1]")
    known = potential.masked_fill(~mask, 0)
    phi = (known - (known * first).sum(1, keepdim=True)).masked_fill(~mask, 0)
    after = phi.roll(-1, 1).masked_fill(last, 0)
    # What is added first, by itself: it cancels along the row, and rounding it with the rewards would not.
    return rewards.masked_fill(~mask, 0) + (gamma * after - phi)


def sampled_return(step_rewards: Tensor, chosen: Tensor, *, steps: int) -> Tensor:
    """GELI's randomised return decomposition: a whole return from some of its steps, without bias.

        steps / K * sum_k step_rewards[b, chosen[b, k]]

    Its squared distance to the reward of the whole is a loss; with K < steps that exceeds the full one by
    steps^2 / K * (1 - K / steps) * the steps' sample variance, which pulls the steps together.

    Args:
        step_rewards: [B, T].
        chosen: [B, K], indices drawn without replacement.
        steps: T, how many there are; given so that padding cannot be counted.

    Returns:
        [B].

    Raises:
        ShapeError: not [B, T] and [B, K] with 1 <= K <= ``steps`` <= T.

    Source: Lee et al. 2024, GELI, section 4.1 (arXiv:2403.11330); Ren et al. 2021 (arXiv:2111.13485).

    >>> sampled_return(torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([[0, 2]]), steps=3)  # 3 / 2 * 5
    tensor([7.5000])
    """
    if step_rewards.ndim != 2 or chosen.ndim != 2 or len(chosen) != len(step_rewards):
        raise ShapeError(
            f"expected step_rewards [B, T] and chosen [B, K], got {list(step_rewards.shape)}, {list(chosen.shape)}"
        )
    K = chosen.shape[1]
    if not 1 <= K <= steps <= step_rewards.shape[1]:
        raise ShapeError(
            f"steps = {steps} with K = {K} and T = {step_rewards.shape[1]}, expected K <= steps <= T"
        )
    return steps / K * step_rewards.gather(1, chosen).sum(1)


def _response(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Where each response begins and where it ends, booleans [B, L]."""
    check_mask(mask, values)
    lengths(mask)
    first = mask & ~torch.nn.functional.pad(mask, (1, 0))[:, :-1]
    last = mask & ~torch.nn.functional.pad(mask, (0, 1))[:, 1:]
    if (first.sum(1) > 1).any():
        raise ConfigError(
            f"mask: row {int((first.sum(1) > 1).nonzero()[0])} has a gap; a response is one piece"
        )
    return first, last


def _check_rows(tensor: Tensor, mask: Tensor, *, name: str) -> None:
    if tensor.shape != mask.shape[:1]:
        raise ShapeError(f"{name}: expected [B] = [{len(mask)}], got {list(tensor.shape)}")


def _check_share(share: float) -> None:
    if not 0 <= share <= 1:
        raise ConfigError(f"share = {share}, but it is in [0, 1]")
