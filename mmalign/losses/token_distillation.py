"""Distilling a small token model from a large one on the small one's own samples, and towards a reward."""

from torch import Tensor

from mmalign.losses.masks import masked_mean
from mmalign.losses.shapes import check_shape
from mmalign.losses.tokens import token_kl, token_log_probs


def token_reward_distillation_loss(
    logits: Tensor,
    teacher_logits: Tensor,
    tokens: Tensor,
    advantage: Tensor,
    mask: Tensor,
    *,
    reward_weight: float = 0.1,
) -> Tensor:
    """Distance to the teacher on the student's own samples, less the policy gradient of their reward.

        mean_b mean_{l: mask[b, l]} KL(student || teacher)[b, l]
            - reward_weight * mean_b advantage[b] * mean_{l: mask[b, l]} log student(tokens[b, l])

    The KL runs over the vocabulary. Samples are constants, as in on-policy distillation.

    Args:
        logits: [B, L, V], of the student.
        teacher_logits: as ``logits``, of the frozen teacher; detached.
        tokens: [B, L], sampled by the student at temperature 1.
        advantage: [B], unitless, such as ``leave_one_out_advantages`` of standardised rewards; detached.
        mask: [B, L], booleans, True somewhere in every row.
        reward_weight: in nats per unit of advantage.

    Returns:
        Scalar.

    Raises:
        ShapeError: not twice the same [B, L, V], twice [B, L] and once [B].
        ConfigError: ``mask`` is not of booleans or has an empty row, or a token that counts is none of the
            vocabulary's.

    Source: this project's extension of Li et al. 2024, RG-LCD (arXiv:2403.11027), to tokens; the on-policy KL is that
    of Agarwal et al. 2023, GKD, section 3 (arXiv:2306.13649).

    >>> import torch
    >>> even, yes, one = torch.zeros(1, 1, 2), torch.tensor([[True]]), torch.tensor([2.0])
    >>> token_reward_distillation_loss(even, even, torch.tensor([[1]]), one, yes)  # 0 + 0.1 * 2 * log 2
    tensor(0.1386)
    """
    check_shape(teacher_logits, logits.shape, name="teacher_logits", letters="[B, L, V]")
    check_shape(advantage, logits.shape[:1], name="advantage", letters="[B]")
    kl = masked_mean(token_kl(logits, teacher_logits.detach(), mask=mask), mask)
    log_prob = masked_mean(token_log_probs(logits, tokens, mask=mask), mask)
    return (kl - reward_weight * advantage.detach() * log_prob).mean()
