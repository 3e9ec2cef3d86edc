"""Losses on pairs, chosen against rejected, from log-probabilities of any likelihood."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mmalign.errors import ConfigError
from mmalign.losses.bradley_terry import bradley_terry_loss
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
    _check_pairs(chosen_log_prob, rejected_log_prob, ref_chosen_log_prob, ref_rejected_log_prob)
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
    margin: Tensor | None = None,
    weight: Tensor | None = None,
) -> Tensor:
    """Direct preference optimisation.

        -mean_b weight[b] * log sigmoid(beta * dpo_logits[b] - margin[b])

    With ``denoising_log_prob`` of noise predictions this is Diffusion-DPO, of velocities Flow-DPO; with the
    log-probabilities of whole token sequences it is DPO.

    Args:
        chosen_log_prob: [B], under the policy.
        rejected_log_prob: [B].
        ref_chosen_log_prob: [B], under the frozen reference; detached.
        ref_rejected_log_prob: [B]; detached.
        beta: pull towards the reference, in the inverse unit of the log-probabilities; a number, or [B], detached,
            such as Flow-DPO's beta * (1 - sigma)^2.
        margin: [B], log odds by which the chosen side has to lead, such as a multiple of the difference of two scores;
            none if not given. Detached.
        weight: [B], at least 0, such as ``strength_weights``; 1 if not given. Detached.

    Returns:
        Scalar, nats; log 2 while the policy is the reference, without margin and weight.

    Raises:
        ShapeError: a log-probability, a tensor ``beta``, ``margin`` or ``weight`` is not [B].
        ConfigError: a weight is negative.

    Source: Rafailov et al. 2023, DPO, section 4, equation 7 (arXiv:2305.18290); Wallace et al. 2023, Diffusion-DPO,
    section 4, equation 14 (arXiv:2311.12908); Liu et al. 2025, Improving Video Generation with Human Feedback,
    section 4 (arXiv:2501.13918), who find the constant beta better than the one that falls with sigma. The margin is of
    Amini et al. 2024, Direct Preference Optimization with an Offset, section 3 (arXiv:2402.10571).

    >>> dpo_loss(*torch.tensor([[-1.0], [-2.0], [-1.5], [-1.5]]), beta=2.0)  # log(1 + e^-2)
    tensor(0.1269)
    """
    logits = dpo_logits(chosen_log_prob, rejected_log_prob, ref_chosen_log_prob, ref_rejected_log_prob)
    if isinstance(beta, Tensor):
        check_shape(beta, logits.shape, name="beta", letters="[B]")
        beta = beta.detach()
    return bradley_terry_loss(beta * logits, margin=0.0 if margin is None else margin, weight=weight)


def ipo_loss(
    chosen_log_prob: Tensor,
    rejected_log_prob: Tensor,
    ref_chosen_log_prob: Tensor,
    ref_rejected_log_prob: Tensor,
    *,
    beta: float,
) -> Tensor:
    """Identity preference optimisation: a margin to reach, and not to pass, however sure the annotator was.

        mean_b (dpo_logits[b] - 1 / (2 * beta))^2

    Args:
        chosen_log_prob: [B], under the policy; of tokens the mean over a sequence, not the sum.
        rejected_log_prob: [B].
        ref_chosen_log_prob: [B], under the frozen reference; detached.
        ref_rejected_log_prob: [B]; detached.
        beta: pull towards the reference, in the inverse unit of the log-probabilities; above 0.

    Returns:
        Scalar, squared unit of the log-probabilities; 1 / (4 beta^2) while the policy is the reference.

    Raises:
        ShapeError: not four times the same [B].
        ConfigError: ``beta`` is not positive.

    Source: Azar et al. 2023, IPO, section 5.2, equation 17 (arXiv:2310.12036).

    >>> ipo_loss(*torch.tensor([[-1.0], [-2.0], [-1.5], [-1.5]]), beta=2.0)  # (1 - 1/4)^2
    tensor(0.5625)
    """
    _check_beta(beta)
    logits = dpo_logits(chosen_log_prob, rejected_log_prob, ref_chosen_log_prob, ref_rejected_log_prob)
    return ((logits - 1 / (2 * beta)) ** 2).mean()


def hinge_dpo_loss(
    chosen_log_prob: Tensor,
    rejected_log_prob: Tensor,
    ref_chosen_log_prob: Tensor,
    ref_rejected_log_prob: Tensor,
    *,
    beta: float,
) -> Tensor:
    """DPO's logit under a hinge: a pair that is won by a margin of 1 / beta teaches nothing more.

        mean_b max(0, 1 - beta * dpo_logits[b])

    Args:
        chosen_log_prob: [B], under the policy.
        rejected_log_prob: [B].
        ref_chosen_log_prob: [B], under the frozen reference; detached.
        ref_rejected_log_prob: [B]; detached.
        beta: pull towards the reference, in the inverse unit of the log-probabilities; above 0.

    Returns:
        Scalar, unitless; 1 while the policy is the reference.

    Raises:
        ShapeError: not four times the same [B].
        ConfigError: ``beta`` is not positive.

    Source: Liu et al. 2023, RSO, section 3.3 (arXiv:2309.06657), as the normalised hinge of SLiC.

    >>> hinge_dpo_loss(*torch.tensor([[-1.0], [-2.0], [-1.5], [-1.5]]), beta=0.25)  # 1 - 0.25 * 1
    tensor(0.7500)
    """
    _check_beta(beta)
    logits = dpo_logits(chosen_log_prob, rejected_log_prob, ref_chosen_log_prob, ref_rejected_log_prob)
    return F.relu(1 - beta * logits).mean()


def sppo_loss(
    chosen_log_prob: Tensor,
    rejected_log_prob: Tensor,
    ref_chosen_log_prob: Tensor,
    ref_rejected_log_prob: Tensor,
    *,
    beta: float,
) -> Tensor:
    """Self-play preference optimisation with hard wins: each side has a value of its own to reach.

        mean_b [ (chosen - ref_chosen - 1 / (2 * beta))^2 + (rejected - ref_rejected + 1 / (2 * beta))^2 ]

    Where DPO and IPO see the difference alone, and may let both sides fall, here the chosen side has to rise.

    Args:
        chosen_log_prob: [B], under the policy.
        rejected_log_prob: [B].
        ref_chosen_log_prob: [B], under the frozen reference; detached.
        ref_rejected_log_prob: [B]; detached.
        beta: pull towards the reference, in the inverse unit of the log-probabilities; above 0.

    Returns:
        Scalar, squared unit of the log-probabilities; 1 / (2 beta^2) while the policy is the reference.

    Raises:
        ShapeError: not four times the same [B].
        ConfigError: ``beta`` is not positive.

    Source: Wu et al. 2024, SPPO, section 4 (arXiv:2405.00675), with win probabilities of 1 and 0.

    >>> sppo_loss(*torch.tensor([[-1.0], [-2.0], [-1.5], [-1.5]]), beta=1.0)  # (0.5 - 0.5)^2 + (-0.5 + 0.5)^2
    tensor(0.)
    """
    _check_beta(beta)
    _check_pairs(chosen_log_prob, rejected_log_prob, ref_chosen_log_prob, ref_rejected_log_prob)
    target = 1 / (2 * beta)
    chosen = chosen_log_prob - ref_chosen_log_prob.detach()
    rejected = rejected_log_prob - ref_rejected_log_prob.detach()
    return ((chosen - target) ** 2 + (rejected + target) ** 2).mean()


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


def _check_pairs(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor) -> None:
    B = chosen.shape[:1]
    for name, log_prob in (
        ("chosen_log_prob", chosen),
        ("rejected_log_prob", rejected),
        ("ref_chosen_log_prob", ref_chosen),
        ("ref_rejected_log_prob", ref_rejected),
    ):
        check_shape(log_prob, B, name=name, letters="[B]")


def _check_beta(beta: float) -> None:
    if beta <= 0:
        raise ConfigError(f"beta = {beta}, but it must be positive; at 0 no pair teaches anything")
