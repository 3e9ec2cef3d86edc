"""Fit a reward to reactions: a heart, a thumb, a report; sparse, and only where something was shown."""

import math

import torch.nn.functional as F
from torch import Tensor

from mmalign.errors import ConfigError
from mmalign.losses.shapes import check_shape


def binary_feedback_loss(logit: Tensor, label: Tensor, *, weight: Tensor | None = None) -> Tensor:
    """Cross-entropy of a reaction.

        sum_b w[b] * -[ label[b] * log sigmoid(logit[b]) + (1 - label[b]) * log sigmoid(-logit[b]) ] / sum_b w[b]

    Args:
        logit: [B], log odds of the reaction.
        label: [B], 1 where somebody reacted, else 0; shares between are allowed; detached.
        weight: [B], at least 0: ``balance_weights``, or the inverse propensity of being shown; detached. All alike if
            not given. They are normalised, so that their scale does not matter.

    Returns:
        Scalar, nats.

    Raises:
        ShapeError: the shapes differ.
        ConfigError: a label is outside [0, 1], a weight is negative, or none is positive.

    Source: P[Love] of Han et al. 2025, Reinforcement Learning from User Feedback (arXiv:2505.14946); the weights
    are ours.

    >>> import torch
    >>> binary_feedback_loss(torch.tensor([0.0, 2.0]), torch.tensor([0.0, 1.0]), weight=torch.tensor([0.0, 5.0]))
    tensor(0.1269)
    """
    check_shape(logit, logit.shape[:1], name="logit", letters="[B]")
    check_shape(label, logit.shape, name="label", letters="[B]")
    y = label.detach()
    if not bool(((y >= 0) & (y <= 1)).all()):
        raise ConfigError(f"label: expected 0 to 1, got {y.min():g} to {y.max():g}")
    loss = -(y * F.logsigmoid(logit) + (1 - y) * F.logsigmoid(-logit))
    if weight is None:
        return loss.mean()
    check_shape(weight, logit.shape, name="weight", letters="[B]")
    w = weight.detach()
    if not bool((w >= 0).all()) or not w.sum() > 0:
        raise ConfigError("weight: expected numbers of at least 0, of which one is above 0")
    return (w * loss).sum() / w.sum()


def balance_weights(label: Tensor, *, base_rate: float) -> Tensor:
    """Weights with which the rare reactions count as much as the frequent silence.

        1 / (2 * base_rate) where label is 1,  1 / (2 * (1 - base_rate)) where it is 0, mixed between

    Args:
        label: [B], in [0, 1].
        base_rate: share of reactions in the data, inside (0, 1).

    Returns:
        [B], of mean 1 over data with that share; detached.

    Raises:
        ConfigError: ``base_rate`` is not inside (0, 1).

    >>> import torch
    >>> balance_weights(torch.tensor([1.0, 0.0]), base_rate=0.1)
    tensor([5.0000, 0.5556])
    """
    _check_rate(base_rate)
    y = label.detach()
    return y / (2 * base_rate) + (1 - y) / (2 * (1 - base_rate))


def true_rate_logit(logit: Tensor, *, base_rate: float) -> Tensor:
    """Undo ``balance_weights``: the log odds of a model fitted with them, in the data's own rate.

        logit + log( base_rate / (1 - base_rate) )

    Args:
        logit: any shape.
        base_rate: that of the weights.

    Returns:
        As ``logit``; order, and so AUROC, is unchanged.

    Raises:
        ConfigError: ``base_rate`` is not inside (0, 1).

    Source: prior correction of King and Zeng 2001, Logistic Regression in Rare Events Data, section 4.1.

    >>> import torch
    >>> true_rate_logit(torch.tensor([0.0]), base_rate=0.25).sigmoid()
    tensor([0.2500])
    """
    _check_rate(base_rate)
    return logit + math.log(base_rate / (1 - base_rate))


def _check_rate(base_rate: float) -> None:
    if not 0 < base_rate < 1:
        raise ConfigError(f"base_rate = {base_rate}, but it is inside (0, 1)")
