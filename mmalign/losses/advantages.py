"""Advantages: rewards less what was to be expected of their prompt, in a scale that an optimiser can use."""

import torch
from torch import Tensor

from mmalign.errors import ConfigError, ShapeError


def group_advantages(rewards: Tensor, *, eps: float = 1e-6) -> Tensor:
    """Standardise rewards inside each prompt's group of samples.

        A[p, g] = (r[p, g] - mean_g r[p]) / (std_g r[p] + eps)

    Args:
        rewards: [P, G], G samples for each of P prompts, in the scorer's own unit.
        eps: same unit as ``rewards``, added to the population std, so that a group
            whose rewards are all equal gets zeros and not 0/0.

    Returns:
        [P, G], unitless, mean zero over G, detached from ``rewards``.

    Raises:
        ShapeError: ``rewards`` is not [P, G] with G >= 2; one sample has no baseline.

    Source: Shao et al. 2024, DeepSeekMath, section 4.1.2 (arXiv:2402.03300). The
    paper leaves the std estimator open; we divide by G, not G - 1.

    >>> group_advantages(torch.tensor([[1.0, 3.0], [5.0, 5.0]])).round(decimals=3)
    tensor([[-1.,  1.],
            [ 0.,  0.]])
    """
    centred = _centred(rewards)
    return centred / (centred.std(1, correction=0, keepdim=True) + eps)


def flow_grpo_advantages(rewards: Tensor, *, eps: float = 1e-4) -> Tensor:
    """Centre rewards inside each prompt's group, and divide all by one standard deviation.

        A[p, g] = (r[p, g] - mean_g r[p]) / (std_pg r + eps)

    A prompt whose samples hardly differ then teaches little, where ``group_advantages`` would magnify it.

    Args:
        rewards: [P, G], G samples for each of P prompts, in the scorer's own unit.
        eps: same unit as ``rewards``, added to the population std.

    Returns:
        [P, G], unitless, mean zero over G, detached from ``rewards``.

    Raises:
        ShapeError: ``rewards`` is not [P, G] with G >= 2; one sample has no baseline.

    Source: the code of Liu et al. 2025, Flow-GRPO (arXiv:2505.05470), whose default it is; section 3 of the paper
    has the form of ``group_advantages``.

    >>> flow_grpo_advantages(torch.tensor([[1.0, 3.0], [5.0, 5.0]])).round(decimals=3)  # over sqrt(11/4)
    tensor([[-0.6030,  0.6030],
            [ 0.0000,  0.0000]])
    """
    return _centred(rewards) / (rewards.detach().std(correction=0) + eps)


def dance_grpo_advantages(rewards: Tensor, *, eps: float = 1e-8) -> Tensor:
    """Standardise rewards inside each prompt's group by the std of a sample, which divides by G - 1.

        A[p, g] = (r[p, g] - mean_g r[p]) / (std_g r[p] + eps)

    Several rewards are standardised one by one and their advantages added, each with its weight.

    Args:
        rewards: [P, G], G samples for each of P prompts, in the scorer's own unit.
        eps: same unit as ``rewards``, added to the sample std.

    Returns:
        [P, G], unitless, mean zero over G, detached from ``rewards``; smaller than ``group_advantages`` by
        sqrt((G - 1) / G).

    Raises:
        ShapeError: ``rewards`` is not [P, G] with G >= 2; one sample has no baseline.

    Source: the code of Xue et al. 2025, DanceGRPO (arXiv:2505.07818).

    >>> dance_grpo_advantages(torch.tensor([[0.0, 0.0, 1.0, 1.0]]))  # 1/2 over sqrt(1/3)
    tensor([[-0.8660, -0.8660,  0.8660,  0.8660]])
    """
    centred = _centred(rewards)
    return centred / (centred.std(1, correction=1, keepdim=True) + eps)


def leave_one_out_advantages(rewards: Tensor) -> Tensor:
    """Rewards less the mean of the other samples of their group: a baseline that does not know its own sample.

        A[p, g] = r[p, g] - sum_{h != g} r[p, h] / (G - 1)

    Args:
        rewards: [P, G], G samples for each of P prompts, in the scorer's own unit.

    Returns:
        [P, G], in the unit of ``rewards``, mean zero over G, detached.

    Raises:
        ShapeError: ``rewards`` is not [P, G] with G >= 2; one sample has no others.

    Source: Ahmadian et al. 2024, Back to Basics, section 2.3 (arXiv:2402.14740), from Kool et al. 2019.

    >>> leave_one_out_advantages(torch.tensor([[1.0, 2.0, 6.0]]))  # 1 - 4, 2 - 3.5, 6 - 1.5
    tensor([[-3.0000, -1.5000,  4.5000]])
    """
    centred = _centred(rewards)
    G = rewards.shape[1]
    return centred * (G / (G - 1))


def token_group_advantages(
    token_rewards: Tensor, rewards: Tensor, mask: Tensor, *, eps: float = 1e-6
) -> Tensor:
    """What followed a token, less what followed the same place in the other samples of its prompt.

        G[p, g, l] = sum_{k >= l} token_rewards[p, g, k]
        A[p, g, l] = (G[p, g, l] - mean_g G[p, g, l]) / (std_g r[p] + eps)

    A token is not credited with what was earned before it. Where all of a reward is at the last token of samples of one
    length, every token has ``group_advantages``; a sample that is over counts 0 in the mean.

    Args:
        token_rewards: [P, G, L], in the scorer's unit; each sample's sum is its reward.
        rewards: [P, G], of whole samples.
        mask: [P, G, L], booleans, true on tokens.
        eps: same unit as ``rewards``, added to the population std.

    Returns:
        [P, G, L], unitless, 0 where the mask is false, detached.

    Raises:
        ShapeError: not [P, G, L], [P, G] with G >= 2 and [P, G, L].
        ConfigError: token rewards of a sample do not add up to its reward, to 1e-6 of the largest of the numbers.

    Source: Shao et al. 2024, DeepSeekMath, section 4.1.3 (arXiv:2402.03300), for the sum of what follows; the baseline
    by place and the scale of whole rewards are ours.

    >>> all_of_it = torch.tensor([[[0.0, 1.0], [1.0, 2.0]]])
    >>> token_group_advantages(all_of_it, torch.tensor([[1.0, 3.0]]), all_of_it > -1).round(decimals=3)
    tensor([[[-1.0000, -0.5000],
             [ 1.0000,  0.5000]]])
    """
    std = _centred(rewards).std(1, correction=0)[:, None, None]
    if (
        token_rewards.ndim != 3
        or token_rewards.shape[:2] != rewards.shape
        or mask.shape != token_rewards.shape
    ):
        raise ShapeError(
            f"expected token_rewards and mask [P, G, L] with rewards [P, G], got {list(token_rewards.shape)}, "
            f"{list(mask.shape)}, {list(rewards.shape)}"
        )
    kept = token_rewards.detach().double().masked_fill(~mask, 0)
    whole = rewards.detach().double()
    scale = torch.maximum(kept.abs().amax(-1), whole.abs()).clamp(min=1)
    off = (kept.sum(-1) - whole).abs() / scale
    if not (off <= 1e-6).all():
        p, g = divmod(int(off.argmax()), off.shape[1])
        raise ConfigError(
            f"token_rewards: those of sample {g} of prompt {p} add up to {kept[p, g].sum():.7g}, and its reward is "
            f"{whole[p, g]:.7g}; a redistribution keeps the sum"
        )
    to_go = kept.flip(-1).cumsum(-1).flip(-1)
    centred = (to_go - to_go.mean(1, keepdim=True)).masked_fill(~mask, 0)
    return centred.to(rewards.dtype) / (std + eps)


def clamp_advantages(advantages: Tensor, *, most: float = 5.0) -> Tensor:
    """Bound how hard one sample can pull.

        clamp(A, -most, most)

    Args:
        advantages: any shape, unitless.
        most: the bound; 5 in DDPO, Flow-GRPO and DanceGRPO.

    Returns:
        As ``advantages``, detached.

    Raises:
        ConfigError: ``most`` is not positive.

    Source: the code of Black et al. 2023, DDPO (arXiv:2305.13301), and of its successors.

    >>> clamp_advantages(torch.tensor([-7.0, 0.5, 5.0]))
    tensor([-5.0000,  0.5000,  5.0000])
    """
    if most <= 0:
        raise ConfigError(f"most = {most}, but the bound of an advantage must be positive")
    return advantages.detach().clamp(-most, most)


def win_rate_rewards(win_probability: Tensor) -> Tensor:
    """Reward a sample by how often it beats the other samples of its prompt.

        r[p, i] = sum_{j != i} win_probability[p, i, j] / (K - 1)

    It needs no scalar score, and a judge whose preferences run in circles gives equal rewards.

    Args:
        win_probability: [P, K, K], how probably sample i beats sample j; the judge's both orders averaged, so that
            [i, j] and [j, i] add up to 1. The diagonal is not read.

    Returns:
        [P, K], in [0, 1], mean 1/2 over K, detached.

    Raises:
        ShapeError: not [P, K, K] with K >= 2.
        ConfigError: a pair does not add up to 1, as when only one order was judged.

    Source: Swamy et al. 2024, SPO, section 3 (arXiv:2401.04056).

    >>> win_rate_rewards(torch.tensor([[[0.5, 1.0, 0.5], [0.0, 0.5, 0.5], [0.5, 0.5, 0.5]]]))
    tensor([[0.7500, 0.2500, 0.5000]])
    """
    P = win_probability.detach()
    if P.ndim != 3 or P.shape[1] != P.shape[2] or P.shape[1] < 2:
        raise ShapeError(f"win_probability: expected [P, K, K] with K >= 2, got {list(P.shape)}")
    K = P.shape[1]
    other = ~torch.eye(K, dtype=torch.bool, device=P.device)
    sums = (P + P.mT)[:, other]
    if not torch.allclose(sums, torch.ones_like(sums), rtol=0, atol=1e-4):
        worst = sums.flatten()[(sums - 1).abs().argmax()].item()
        raise ConfigError(
            f"win_probability: [i, j] and [j, i] should add up to 1, got {worst:.4g}; judge both orders and average"
        )
    return P.masked_fill(~other, 0).sum(2) / (K - 1)


def _centred(rewards: Tensor) -> Tensor:
    if rewards.ndim != 2 or rewards.shape[1] < 2:
        raise ShapeError(f"rewards: expected [P, G] with G >= 2, got {list(rewards.shape)}")
    # From the first reward: equal rewards then give exact zeros, where their mean is off by an ulp, which at a reward
    # of 21.3 in float32 is twice eps.
    rewards = rewards.detach() - rewards.detach()[:, :1]
    return rewards - rewards.mean(1, keepdim=True)
