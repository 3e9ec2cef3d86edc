"""Policy gradients from rewards: advantages inside a group, the clipped ratio, and distances to the reference."""

import torch
from torch import Tensor

from mmalign.errors import ConfigError, ShapeError
from mmalign.losses.shapes import check_shape


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


def _centred(rewards: Tensor) -> Tensor:
    if rewards.ndim != 2 or rewards.shape[1] < 2:
        raise ShapeError(f"rewards: expected [P, G] with G >= 2, got {list(rewards.shape)}")
    # From the first reward: equal rewards then give exact zeros, where their mean is off by an ulp, which at a reward
    # of 21.3 in float32 is twice eps.
    rewards = rewards.detach() - rewards.detach()[:, :1]
    return rewards - rewards.mean(1, keepdim=True)


def clipped_ratio_loss(log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, *, clip: float) -> Tensor:
    """The clipped surrogate of PPO and GRPO.

        ratio = exp(log_prob - old_log_prob)
        loss = mean max(-A * ratio, -A * clamp(ratio, 1 - clip, 1 + clip))

    Args:
        log_prob: [B] or [B, T], under the policy.
        old_log_prob: as ``log_prob``, under the policy that sampled; detached.
        advantage: [B], unitless, one for all steps of a sample; detached.
        clip: half the width of the trust region of the ratio; 1e-4 where ``log_prob`` is a mean over a latent.

    Returns:
        Scalar, unitless; -mean A on the first pass, with the plain policy gradient.

    Raises:
        ShapeError: ``log_prob`` is neither [B] nor [B, T], or the others do not match it.

    Source: Schulman et al. 2017, PPO, section 3, equation 7 (arXiv:1707.06347).

    >>> log_prob = torch.tensor([1.5, 0.5]).log()  # as likely again by half, and half as likely
    >>> clipped_ratio_loss(log_prob, torch.zeros(2), torch.ones(2), clip=0.25)  # -(1.25 + 0.5) / 2
    tensor(-0.8750)
    """
    ratio, advantage = _ratio_and_advantage(log_prob, old_log_prob, advantage)
    return torch.maximum(-advantage * ratio, -advantage * ratio.clamp(1 - clip, 1 + clip)).mean()


def clip_fraction(log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, *, clip: float) -> Tensor:
    """Share of the entries whose gradient ``clipped_ratio_loss`` cuts: already moved far enough the right way.

        mean [(A > 0 and ratio > 1 + clip) or (A < 0 and ratio < 1 - clip)]

    Args:
        log_prob: [B] or [B, T], under the policy.
        old_log_prob: as ``log_prob``, under the policy that sampled.
        advantage: [B].
        clip: as in the loss.

    Returns:
        Scalar in [0, 1], detached; 0 on the first pass.

    Raises:
        ShapeError: as the loss.

    >>> clip_fraction(torch.tensor([1.5, 0.5]).log(), torch.zeros(2), torch.ones(2), clip=0.25)
    tensor(0.5000)
    """
    ratio, advantage = _ratio_and_advantage(log_prob.detach(), old_log_prob, advantage)
    clipped = ((advantage > 0) & (ratio > 1 + clip)) | ((advantage < 0) & (ratio < 1 - clip))
    return clipped.to(ratio.dtype).mean()


def _ratio_and_advantage(log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor) -> tuple[Tensor, Tensor]:
    if log_prob.ndim not in (1, 2):
        raise ShapeError(f"log_prob: expected [B] or [B, T], got {list(log_prob.shape)}")
    letters = "[B]" if log_prob.ndim == 1 else "[B, T]"
    check_shape(old_log_prob, log_prob.shape, name="old_log_prob", letters=letters)
    check_shape(advantage, log_prob.shape[:1], name="advantage", letters="[B]")
    ratio = (log_prob - old_log_prob.detach()).exp()
    return ratio, advantage.detach().reshape(-1, *[1] * (log_prob.ndim - 1))


def gaussian_kl(mean: Tensor, ref_mean: Tensor, std: Tensor) -> Tensor:
    """Distance of the policy's step from the reference's, two normal distributions of one std.

        KL[b] = mean_e (mean[b, e] - ref_mean[b, e])^2 / (2 * std[b]^2)

    Args:
        mean: [B, ...], of the policy's transition.
        ref_mean: as ``mean``, of the frozen reference; detached.
        std: [B], of the transition, the length of the step included; detached.

    Returns:
        [B], nats per element, 0 while the policy is the reference.

    Raises:
        ShapeError: ``ref_mean`` is not as ``mean``, or ``std`` is not [B].
        ConfigError: a std is 0; two deterministic steps have no KL.

    Source: Liu et al. 2025, Flow-GRPO, section 4 (arXiv:2505.05470). Its image scripts divide by g instead of the
    std g * sqrt(-D); give g as ``std`` to repeat them.

    >>> gaussian_kl(torch.tensor([[1.0, 3.0]]), torch.zeros(1, 2), torch.tensor([2.0]))  # (1 + 9) / 2 / 8
    tensor([0.6250])
    """
    check_shape(ref_mean, mean.shape, name="ref_mean", letters="[B, ...]")
    check_shape(std, mean.shape[:1], name="std", letters="[B]")
    if (std == 0).any():
        raise ConfigError("std = 0: a deterministic step has no KL; leave it out, as its log_prob")
    return ((mean - ref_mean.detach()) ** 2).flatten(1).mean(1) / (2 * std.detach() ** 2)


def kl_k1(log_prob: Tensor, ref_log_prob: Tensor) -> Tensor:
    """The plain estimate of KL(policy || reference) from the policy's own samples.

        log_prob - ref_log_prob

    It belongs in a reward: as a loss its gradient is that of log_prob, which is zero on average.

    Args:
        log_prob: any shape, of sampled tokens or steps under the policy.
        ref_log_prob: as ``log_prob``, under the frozen reference; detached.

    Returns:
        As ``log_prob``, nats, unbiased, of either sign.

    Raises:
        ShapeError: the shapes differ.

    Source: Schulman 2020, Approximating KL Divergence, http://joschu.net/blog/kl-approx.html.

    >>> kl_k1(torch.tensor([-1.0]), torch.tensor([-1.5]))
    tensor([0.5000])
    """
    check_shape(ref_log_prob, log_prob.shape, name="ref_log_prob", letters="log_prob's")
    return log_prob - ref_log_prob.detach()


def kl_k3(log_prob: Tensor, ref_log_prob: Tensor) -> Tensor:
    """The estimate of KL(policy || reference) that is never negative, as GRPO's loss has it.

        exp(d) - 1 - d,  d = ref_log_prob - log_prob

    On the policy's own samples its average is that KL, and its average gradient that of KL(reference || policy):
    both pull to the reference, with different strength far from it.

    Args:
        log_prob: any shape, of sampled tokens or steps under the policy.
        ref_log_prob: as ``log_prob``, under the frozen reference; detached.

    Returns:
        As ``log_prob``, nats, at least 0, and 0 only where the two agree.

    Raises:
        ShapeError: the shapes differ.

    Source: Schulman 2020, Approximating KL Divergence, http://joschu.net/blog/kl-approx.html; Shao et al. 2024,
    DeepSeekMath, section 4.1.1, equation 4 (arXiv:2402.03300).

    >>> kl_k3(torch.tensor([-1.0]), torch.tensor([-1.5]))  # e^-0.5 - 1 + 0.5
    tensor([0.1065])
    """
    difference = -kl_k1(log_prob, ref_log_prob)
    return torch.expm1(difference) - difference
