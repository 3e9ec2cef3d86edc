"""Losses on pairs that know how strong the preference is: a gap of scores, a probability, a rate of wrong labels."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mmalign.errors import ConfigError
from mmalign.losses.bradley_terry import bradley_terry_loss, soft_bradley_terry_loss
from mmalign.losses.preference import dpo_logits
from mmalign.losses.shapes import check_shape


def gapo_weights(
    chosen_score: Tensor, rejected_score: Tensor, *, base: float = 2.0, scale: float = 100.0
) -> Tensor:
    """How much a pair counts: nearly equal scores little, a gap at the top of the scale more than one below.

        base^(chosen_score / scale) - base^(rejected_score / scale)

    Args:
        chosen_score: [B], from 0 to ``scale``; detached.
        rejected_score: [B], at most the chosen one; detached.
        base: above 1.
        scale: the top of the scorer's scale, in its unit.

    Returns:
        [B], unitless, from 0 to ``base`` - 1.

    Raises:
        ShapeError: not twice the same [B].
        ConfigError: a pair's rejected side has the higher score, and its weight would train the other way without
            bound; a score is outside 0 to ``scale``; or ``base`` is not above 1 or ``scale`` not above 0.

    Source: Zhu et al. 2025, Aligning Anime Video Generation with Human Feedback, section 4 (arXiv:2504.10044), with
    the base and scale of its code. That pairs with a higher rejected score are refused is ours.

    >>> gapo_weights(torch.tensor([90.0]), torch.tensor([60.0]))  # 2^0.9 - 2^0.6
    tensor([0.3503])
    """
    chosen, rejected = chosen_score.detach(), rejected_score.detach()
    check_shape(chosen, chosen.shape[:1], name="chosen_score", letters="[B]")
    check_shape(rejected, chosen.shape, name="rejected_score", letters="[B]")
    if base <= 1 or scale <= 0:
        raise ConfigError(f"base = {base} and scale = {scale}, but base is above 1 and scale above 0")
    if (chosen < rejected).any():
        pair = int((chosen < rejected).nonzero()[0])
        raise ConfigError(
            f"chosen_score: pair {pair} has {chosen[pair]:g} against {rejected[pair]:g}; swap its sides or leave it out"
        )
    if (rejected < 0).any() or (chosen > scale).any():
        raise ConfigError(
            f"scores are from {rejected.min():g} to {chosen.max():g}, but scale = {scale:g} says 0 to {scale:g}"
        )
    # float ** Tensor is Any to the type checker.
    return torch.pow(base, chosen / scale) - torch.pow(base, rejected / scale)


def gapo_loss(
    chosen_log_prob: Tensor,
    rejected_log_prob: Tensor,
    ref_chosen_log_prob: Tensor,
    ref_rejected_log_prob: Tensor,
    *,
    weight: Tensor,
    beta: float,
) -> Tensor:
    """DPO with a weight per pair, such as ``gapo_weights``.

        mean_b weight[b] * -log sigmoid(beta * dpo_logits[b])

    Args:
        chosen_log_prob: [B], under the policy.
        rejected_log_prob: [B].
        ref_chosen_log_prob: [B], under the frozen reference; detached.
        ref_rejected_log_prob: [B]; detached.
        weight: [B], unitless, at least 0; detached.
        beta: pull towards the reference, in the inverse unit of the log-probabilities.

    Returns:
        Scalar, nats; mean weight * log 2 while the policy is the reference.

    Raises:
        ShapeError: not five times the same [B].
        ConfigError: a weight is negative, and would train its pair the other way.

    Source: Zhu et al. 2025, section 4 (arXiv:2504.10044). Its code averages before it multiplies, which is the same
    at its one pair per device; here each pair has its own weight.

    >>> pair = torch.tensor([[-1.0], [-2.0], [-1.5], [-1.5]])
    >>> gapo_loss(*pair, weight=torch.tensor([0.5]), beta=2.0)  # log(1 + e^-2) / 2
    tensor(0.0635)
    """
    logits = dpo_logits(chosen_log_prob, rejected_log_prob, ref_chosen_log_prob, ref_rejected_log_prob)
    check_shape(weight, logits.shape, name="weight", letters="[B]")
    return bradley_terry_loss(beta * logits, weight=weight)


def osp_loss(
    first_log_prob: Tensor,
    second_log_prob: Tensor,
    ref_first_log_prob: Tensor,
    ref_second_log_prob: Tensor,
    *,
    probability: Tensor,
    beta: float,
) -> Tensor:
    """DPO with a soft label: how probably the first side is the better one.

        z = beta * ((first - ref_first) - (second - ref_second))
        mean_b -[ probability * log sigmoid(z) + (1 - probability) * log sigmoid(-z) ]

    A probability of 1 is DPO; one of 1 - epsilon for all pairs is conservative DPO. The gradient is 0 where
    sigmoid(z) is the probability, so a strength is learned and not only its sign.

    Args:
        first_log_prob: [B], under the policy.
        second_log_prob: [B].
        ref_first_log_prob: [B], under the frozen reference; detached.
        ref_second_log_prob: [B]; detached.
        probability: [B], in [0, 1], of a judge, averaged over both orders; detached.
        beta: pull towards the reference, in the inverse unit of the log-probabilities.

    Returns:
        Scalar, nats; log 2 while the policy is the reference.

    Raises:
        ShapeError: not five times the same [B].
        ConfigError: a probability is outside [0, 1].

    Source: Zhai et al. 2024, Online Self-Preferring Language Models, section 4 (arXiv:2405.14103).

    >>> pair = torch.tensor([[-1.0], [-2.0], [-1.5], [-1.5]])
    >>> osp_loss(*pair, probability=torch.tensor([0.75]), beta=2.0)  # 0.1269 + 2 / 4
    tensor(0.6269)
    """
    z = beta * dpo_logits(first_log_prob, second_log_prob, ref_first_log_prob, ref_second_log_prob)
    check_shape(probability, z.shape, name="probability", letters="[B]")
    return soft_bradley_terry_loss(z, probability)


def robust_dpo_loss(
    chosen_log_prob: Tensor,
    rejected_log_prob: Tensor,
    ref_chosen_log_prob: Tensor,
    ref_rejected_log_prob: Tensor,
    *,
    beta: float,
    flip_rate: float,
) -> Tensor:
    """DPO whose average over randomly flipped labels is that of DPO on the true ones.

        z = beta * dpo_logits
        mean_b -[ (1 - flip_rate) * log sigmoid(z) - flip_rate * log sigmoid(-z) ] / (1 - 2 * flip_rate)

    Args:
        chosen_log_prob: [B], under the policy.
        rejected_log_prob: [B].
        ref_chosen_log_prob: [B], under the frozen reference; detached.
        ref_rejected_log_prob: [B]; detached.
        beta: pull towards the reference, in the inverse unit of the log-probabilities.
        flip_rate: share of labels that are wrong, at random, in [0, 1/2).

    Returns:
        Scalar, nats; log 2 while the policy is the reference.

    Raises:
        ShapeError: not four times the same [B].
        ConfigError: ``flip_rate`` is outside [0, 1/2).

    Source: Chowdhury et al. 2024, Provably Robust DPO, section 3.1 (arXiv:2403.00409).

    >>> pair = torch.tensor([[-1.0], [-2.0], [-1.5], [-1.5]])  # z = 2, where the two logarithms are -0.1269, -2.1269
    >>> robust_dpo_loss(*pair, beta=2.0, flip_rate=0.25)  # (0.75 * 0.1269 - 0.25 * 2.1269) / 0.5
    tensor(-0.8731)
    """
    if not 0 <= flip_rate < 0.5:
        raise ConfigError(f"flip_rate = {flip_rate}, but it is in [0, 1/2); at 1/2 labels say nothing")
    z = beta * dpo_logits(chosen_log_prob, rejected_log_prob, ref_chosen_log_prob, ref_rejected_log_prob)
    loss = -((1 - flip_rate) * F.logsigmoid(z) - flip_rate * F.logsigmoid(-z)) / (1 - 2 * flip_rate)
    return loss.mean()
