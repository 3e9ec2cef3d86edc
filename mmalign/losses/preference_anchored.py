"""Losses on pairs that also hold up a likelihood, where a difference alone would let both sides fall."""

import torch.nn.functional as F
from torch import Tensor

from mmalign.losses.preference import dpo_loss
from mmalign.losses.shapes import check_shape


def crpo_loss(
    chosen_log_prob: Tensor,
    rejected_log_prob: Tensor,
    ref_chosen_log_prob: Tensor,
    ref_rejected_log_prob: Tensor,
    *,
    beta: float | Tensor,
    chosen_weight: float = 2.0,
) -> Tensor:
    """DPO plus the chosen side's own training loss.

        mean_b [ -log sigmoid(beta * dpo_logits[b]) - chosen_weight * chosen_log_prob[b] ]

    Args:
        chosen_log_prob: [B], under the policy.
        rejected_log_prob: [B].
        ref_chosen_log_prob: [B], under the frozen reference; detached.
        ref_rejected_log_prob: [B]; detached.
        beta: pull towards the reference, in the inverse unit of the log-probabilities; a number, or [B], detached.
        chosen_weight: of the chosen side's log-probability, in its inverse unit. 2 turns ``denoising_log_prob`` into
            the squared error, as published; 1 is the negative log-likelihood of tokens.

    Returns:
        Scalar; log 2 plus the chosen side's loss while the policy is the reference.

    Raises:
        ShapeError: a log-probability or a tensor ``beta`` is not [B].

    Source: Hung et al. 2024, TangoFlux, section 3.4 (arXiv:2412.21037).

    >>> import torch
    >>> crpo_loss(*torch.tensor([[-1.0], [-2.0], [-1.5], [-1.5]]), beta=2.0)  # log(1 + e^-2) + 2 * 1
    tensor(2.1269)
    """
    pairs = (chosen_log_prob, rejected_log_prob, ref_chosen_log_prob, ref_rejected_log_prob)
    return dpo_loss(*pairs, beta=beta) - chosen_weight * chosen_log_prob.mean()


def slic_loss(
    chosen_log_prob: Tensor,
    rejected_log_prob: Tensor,
    target_log_prob: Tensor,
    *,
    margin: float = 1.0,
    weight: float = 0.5,
) -> Tensor:
    """Sequence likelihood calibration: a margin between the two sides, and the likelihood of a target held up.

        mean_b [ max(0, margin - chosen_log_prob[b] + rejected_log_prob[b]) - weight * target_log_prob[b] ]

    There is no reference model; the target, an answer of the data or the chosen one itself, stands in for it.

    Args:
        chosen_log_prob: [B], under the policy; of whole sequences, summed over tokens.
        rejected_log_prob: [B].
        target_log_prob: [B], of the target, under the policy.
        margin: by which the chosen side should be likelier, in the unit of the log-probabilities.
        weight: of the target's likelihood, in its inverse unit; at 0 what was learned before is forgotten.

    Returns:
        Scalar.

    Raises:
        ShapeError: not three times the same [B].

    Source: Zhao et al. 2023, SLiC-HF, section 3.2, equation 1 (arXiv:2305.10425).

    >>> import torch
    >>> slic_loss(torch.tensor([-2.0]), torch.tensor([-2.5]), torch.tensor([-3.0]))  # (1 + 2 - 2.5) + 3 / 2
    tensor(2.)
    """
    check_shape(chosen_log_prob, chosen_log_prob.shape[:1], name="chosen_log_prob", letters="[B]")
    check_shape(rejected_log_prob, chosen_log_prob.shape, name="rejected_log_prob", letters="[B]")
    check_shape(target_log_prob, chosen_log_prob.shape, name="target_log_prob", letters="[B]")
    return (F.relu(margin - chosen_log_prob + rejected_log_prob) - weight * target_log_prob).mean()
