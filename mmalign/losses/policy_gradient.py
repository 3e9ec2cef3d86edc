"""The policy gradient of rewards: the plain score function, and the clipped ratio of samples that are older."""

import torch
from torch import Tensor

from mmalign.errors import ConfigError, ShapeError
from mmalign.losses.masks import check_mask
from mmalign.losses.shapes import check_shape


def score_function_loss(log_prob: Tensor, advantage: Tensor) -> Tensor:
    """The plain policy gradient (REINFORCE), for one update per rollout.

        -mean A * log_prob

    Args:
        log_prob: [B] or [B, T], under the policy, which also sampled.
        advantage: [B], or as ``log_prob``, unitless; detached.

    Returns:
        Scalar; its gradient is that of ``clipped_ratio_loss`` on the first pass, its value means nothing.

    Raises:
        ShapeError: ``log_prob`` is neither [B] nor [B, T], or ``advantage`` does not match it.

    Source: Black et al. 2023, DDPO, section 4.3 (arXiv:2305.13301), as DDPO_SF; there steps are added up, so that
    its loss is T times this.

    >>> score_function_loss(torch.tensor([-1.0, -3.0]), torch.tensor([2.0, -1.0]))  # -(-2 + 3) / 2
    tensor(-0.5000)
    """
    return -(_broadcast_advantage(advantage, log_prob) * log_prob).mean()


def clipped_ratio_loss(
    log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, *, clip: float, clip_high: float | None = None
) -> Tensor:
    """The clipped surrogate of PPO and GRPO.

        ratio = exp(log_prob - old_log_prob)
        loss = mean max(-A * ratio, -A * clamp(ratio, 1 - clip, 1 + clip_high))

    Args:
        log_prob: [B] or [B, T], under the policy.
        old_log_prob: as ``log_prob``, under the policy that sampled; detached.
        advantage: [B], unitless, one for all steps of a sample, or as ``log_prob``; detached.
        clip: half the width of the trust region of the ratio; 1e-4 where ``log_prob`` is a mean over a latent.
            ``math.inf`` leaves plain importance sampling.
        clip_high: how far the ratio may rise; as ``clip`` if not given. DAPO lets it rise further than it may fall.

    Returns:
        Scalar, unitless; -mean A on the first pass, with the plain policy gradient.

    Raises:
        ShapeError: ``log_prob`` is neither [B] nor [B, T], or the others do not match it.
        ConfigError: ``clip`` or ``clip_high`` is not positive, and would stop every gradient.

    Source: Schulman et al. 2017, PPO, section 3, equation 7 (arXiv:1707.06347); Yu et al. 2025, DAPO, section 3.1
    (arXiv:2503.14476) for the two sides.

    >>> log_prob = torch.tensor([1.5, 0.5]).log()  # as likely again by half, and half as likely
    >>> clipped_ratio_loss(log_prob, torch.zeros(2), torch.ones(2), clip=0.25)  # -(1.25 + 0.5) / 2
    tensor(-0.8750)
    """
    return clipped_ratio_terms(log_prob, old_log_prob, advantage, clip=clip, clip_high=clip_high).mean()


def clipped_ratio_terms(
    log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, *, clip: float, clip_high: float | None = None
) -> Tensor:
    """The clipped surrogate before it is averaged, for losses that average over tokens in their own way.

        max(-A * ratio, -A * clamp(ratio, 1 - clip, 1 + clip_high)),  ratio = exp(log_prob - old_log_prob)

    Args:
        log_prob: [B], [B, T] or [B, L], under the policy.
        old_log_prob: as ``log_prob``, under the policy that sampled; detached.
        advantage: [B], or as ``log_prob``; detached.
        clip: as in ``clipped_ratio_loss``.
        clip_high: likewise.

    Returns:
        As ``log_prob``, unitless.

    Raises:
        ShapeError: ``log_prob`` is neither [B] nor [B, T], or the others do not match it.
        ConfigError: ``clip`` or ``clip_high`` is not positive.

    Source: as ``clipped_ratio_loss``.

    >>> clipped_ratio_terms(torch.tensor([[1.5, 0.5]]).log(), torch.zeros(1, 2), torch.ones(1), clip=0.25)
    tensor([[-1.2500, -0.5000]])
    """
    ratio, advantage = _ratio_and_advantage(log_prob, old_log_prob, advantage)
    low, high = _trust_region(clip, clip_high)
    return torch.maximum(-advantage * ratio, -advantage * ratio.clamp(low, high))


def clip_fraction(
    log_prob: Tensor,
    old_log_prob: Tensor,
    advantage: Tensor,
    *,
    clip: float,
    clip_high: float | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """Share of the entries whose gradient ``clipped_ratio_loss`` cuts: already moved far enough the right way.

        mean [(A > 0 and ratio > 1 + clip_high) or (A < 0 and ratio < 1 - clip)]

    Args:
        log_prob: [B] or [B, T], under the policy.
        old_log_prob: as ``log_prob``, under the policy that sampled.
        advantage: [B], or as ``log_prob``.
        clip: as in the loss.
        clip_high: as in the loss.
        mask: [B, L], booleans, the tokens to count; all of them if not given.

    Returns:
        Scalar in [0, 1], detached; 0 on the first pass.

    Raises:
        ShapeError: as the loss, or ``mask`` is not as ``log_prob``.
        ConfigError: as the loss, or ``mask`` is not of booleans.

    >>> clip_fraction(torch.tensor([1.5, 0.5]).log(), torch.zeros(2), torch.ones(2), clip=0.25)
    tensor(0.5000)
    """
    ratio, advantage = _ratio_and_advantage(log_prob.detach(), old_log_prob, advantage)
    low, high = _trust_region(clip, clip_high)
    clipped = ((advantage > 0) & (ratio > high)) | ((advantage < 0) & (ratio < low))
    if mask is not None:
        check_mask(mask, log_prob)
        clipped = clipped[mask]
    return clipped.to(ratio.dtype).mean()


def _trust_region(clip: float, clip_high: float | None) -> tuple[float, float]:
    clip_high = clip if clip_high is None else clip_high
    for name, value in (("clip", clip), ("clip_high", clip_high)):
        if value <= 0:
            raise ConfigError(f"{name} = {value}, but it must be positive; at 0 no ratio could move")
    return 1 - clip, 1 + clip_high


def _ratio_and_advantage(log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor) -> tuple[Tensor, Tensor]:
    advantage = _broadcast_advantage(advantage, log_prob)
    letters = "[B]" if log_prob.ndim == 1 else "[B, T]"
    check_shape(old_log_prob, log_prob.shape, name="old_log_prob", letters=letters)
    return (log_prob - old_log_prob.detach()).exp(), advantage


def _broadcast_advantage(advantage: Tensor, log_prob: Tensor) -> Tensor:
    if log_prob.ndim not in (1, 2):
        raise ShapeError(f"log_prob: expected [B] or [B, T], got {list(log_prob.shape)}")
    if advantage.shape == log_prob.shape:
        return advantage.detach()
    check_shape(advantage, log_prob.shape[:1], name="advantage", letters="[B]")
    return advantage.detach().reshape(-1, *[1] * (log_prob.ndim - 1))
