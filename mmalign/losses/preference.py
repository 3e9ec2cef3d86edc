"""Losses on pairs, chosen against rejected, from log-probabilities of any likelihood."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mmalign.losses.shapes import check_shape


def dpo_logits(
    chosen_log_prob: Tensor,
    rejected_log_prob: Tensor,
    ref_chosen_log_prob: Tensor,
    ref_rejected_log_prob: Tensor,
) -> Tensor:
    """How much more the policy prefers the chosen side than the reference does.

        (chosen - ref_chosen) - (rejected - ref_rejected)

    Args:
        chosen_log_prob: [B], under the policy.
        rejected_log_prob: [B].
        ref_chosen_log_prob: [B], under the frozen reference; detached.
        ref_rejected_log_prob: [B]; detached.

    Returns:
        [B], in the unit of the log-probabilities; 0 while the policy is the reference.

    Raises:
        ShapeError: not four times the same [B].

    Source: Rafailov et al. 2023, DPO, section 4, equation 7 (arXiv:2305.18290).

    >>> dpo_logits(*torch.tensor([[-1.0], [-2.0], [-1.5], [-1.5]]))  # (-1 + 1.5) - (-2 + 1.5)
    tensor([1.])
    """
    B = chosen_log_prob.shape[:1]
    for name, log_prob in (
        ("chosen_log_prob", chosen_log_prob),
        ("rejected_log_prob", rejected_log_prob),
        ("ref_chosen_log_prob", ref_chosen_log_prob),
        ("ref_rejected_log_prob", ref_rejected_log_prob),
    ):
        check_shape(log_prob, B, name=name, letters="[B]")
    return (chosen_log_prob - ref_chosen_log_prob.detach()) - (
        rejected_log_prob - ref_rejected_log_prob.detach()
    )


def dpo_loss(
    chosen_log_prob: Tensor,
    rejected_log_prob: Tensor,
    ref_chosen_log_prob: Tensor,
    ref_rejected_log_prob: Tensor,
    *,
    beta: float | Tensor,
) -> Tensor:
    """Direct preference optimisation.

        -mean_b log sigmoid(beta * dpo_logits[b])

    With ``denoising_log_prob`` of noise predictions this is Diffusion-DPO, of velocities Flow-DPO; with the
    log-probabilities of whole token sequences it is DPO.

    Args:
        chosen_log_prob: [B], under the policy.
        rejected_log_prob: [B].
        ref_chosen_log_prob: [B], under the frozen reference; detached.
        ref_rejected_log_prob: [B]; detached.
        beta: pull towards the reference, in the inverse unit of the log-probabilities; a number, or [B], detached,
            such as Flow-DPO's beta * (1 - sigma)^2.

    Returns:
        Scalar, nats; log 2 while the policy is the reference.

    Raises:
        ShapeError: a log-probability or a tensor ``beta`` is not [B].

    Source: Rafailov et al. 2023, DPO, section 4, equation 7 (arXiv:2305.18290); Wallace et al. 2023, Diffusion-DPO,
    section 4, equation 14 (arXiv:2311.12908); Liu et al. 2025, Improving Video Generation with Human Feedback,
    section 4 (arXiv:2501.13918), who find the constant beta better than the one that falls with sigma.

    >>> dpo_loss(*torch.tensor([[-1.0], [-2.0], [-1.5], [-1.5]]), beta=2.0)  # log(1 + e^-2)
    tensor(0.1269)
    """
    logits = dpo_logits(chosen_log_prob, rejected_log_prob, ref_chosen_log_prob, ref_rejected_log_prob)
    if isinstance(beta, Tensor):
        check_shape(beta, logits.shape, name="beta", letters="[B]")
        beta = beta.detach()
    return -F.logsigmoid(beta * logits).mean()


def implicit_accuracy(
    chosen_log_prob: Tensor,
    rejected_log_prob: Tensor,
    ref_chosen_log_prob: Tensor,
    ref_rejected_log_prob: Tensor,
) -> Tensor:
    """Share of pairs that the policy, seen from its reference, ranks as the annotator did.

    Args:
        chosen_log_prob: [B], under the policy.
        rejected_log_prob: [B].
        ref_chosen_log_prob: [B], under the frozen reference.
        ref_rejected_log_prob: [B].

    Returns:
        Scalar in [0, 1], detached. An exact tie counts one half, so it is 1/2 while the policy is the reference.

    Raises:
        ShapeError: not four times the same [B].

    >>> implicit_accuracy(*torch.tensor([[-1.0, -1.0], [-2.0, -1.0], [-1.5, -1.0], [-1.5, -1.0]]))  # a hit and a tie
    tensor(0.7500)
    """
    logits = dpo_logits(
        chosen_log_prob, rejected_log_prob, ref_chosen_log_prob, ref_rejected_log_prob
    ).detach()
    return torch.heaviside(logits, logits.new_tensor(0.5)).mean()
