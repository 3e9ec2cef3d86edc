"""Preferences of which some are ties: Rao–Kupper and Davidson beside Bradley–Terry."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from mmalign.errors import ConfigError
from mmalign.losses.bradley_terry import only_valid
from mmalign.losses.selection import kept_mean
from mmalign.losses.shapes import check_shape


def rao_kupper_log_probs(gap: Tensor, *, threshold: float = 5.0) -> Tensor:
    """Log-probabilities that the first wins, that neither does, that the second wins.

        c = log threshold
        win = log sigmoid(gap - c),  loss = log sigmoid(-gap - c),  tie = log(threshold^2 - 1) + win + loss

    Args:
        gap: any shape, reward of the first less that of the second, in log odds.
        threshold: above 1; the odds by which a side has to lead before it wins half the time. A choice of the rewards'
            scale: at the published 5 even clear wins need gaps well beyond log 5.

    Returns:
        gap's shape and [3]: win, tie, loss; their exponentials add up to 1.

    Raises:
        ConfigError: ``threshold`` is not above 1, where no tie has a probability.

    Source: Rao and Kupper 1967, Ties in Paired-Comparison Experiments; Liu et al. 2025, VideoReward, section 3.2
    (arXiv:2501.13918), with the threshold 5 of its code.

    >>> rao_kupper_log_probs(torch.tensor([0.0])).exp()
    tensor([[0.1667, 0.6667, 0.1667]])
    """
    if not threshold > 1:
        raise ConfigError(
            f"threshold = {threshold}, but it is above 1; at 1 nothing ties, so use bradley_terry_loss"
        )
    c = math.log(threshold)
    win, loss = F.logsigmoid(gap - c), F.logsigmoid(-gap - c)
    return torch.stack([win, math.log(threshold**2 - 1) + win + loss, loss], -1)


def davidson_log_probs(gap: Tensor, *, tie: float = 1.0) -> Tensor:
    """As ``rao_kupper_log_probs``, with ties in proportion to the geometric mean of both strengths.

        log softmax( gap / 2,  log tie,  -gap / 2 )

    Args:
        gap: any shape, reward of the first less that of the second, in log odds.
        tie: above 0; at equal rewards a tie is so many times as probable as a win. Wins keep Bradley–Terry's odds.

    Returns:
        gap's shape and [3]: win, tie, loss.

    Raises:
        ConfigError: ``tie`` is not positive.

    Source: Davidson 1970, On Extending the Bradley–Terry Model to Accommodate Ties.

    >>> davidson_log_probs(torch.tensor([0.0]), tie=2.0).exp()
    tensor([[0.2500, 0.5000, 0.2500]])
    """
    if not tie > 0:
        raise ConfigError(f"tie = {tie}, but it is above 0")
    return torch.stack([gap / 2, torch.full_like(gap, math.log(tie)), -gap / 2], -1).log_softmax(-1)


def tied_preference_loss(log_probs: Tensor, label: Tensor, *, valid: Tensor | None = None) -> Tensor:
    """Negative log-likelihood of wins, ties and losses.

        mean_{i: valid[i]} -log_probs[i, 1 - label[i]]

    Args:
        log_probs: [B, 3] or [B, D, 3], of ``rao_kupper_log_probs`` or ``davidson_log_probs``.
        label: [B] or [B, D]: 1 where the first is better, 0 for a tie, -1 where the second is.
        valid: as ``label``, booleans, False where there is none, whose label may be any number; all are if not given.

    Returns:
        Scalar, nats; 0 where nothing is valid. The published code divides by all entries, invalid ones too.

    Raises:
        ShapeError: the shapes do not fit.
        ConfigError: a label is none of the three, or ``valid`` is not of booleans.

    Source: Liu et al. 2025, VideoReward, section 3.2 (arXiv:2501.13918).

    >>> tied_preference_loss(rao_kupper_log_probs(torch.tensor([0.0, 1.0])), torch.tensor([0, 1]))  # of 2/3 and 0.3522
    tensor(0.7245)
    """
    known = only_valid(label, valid, name="label")
    check_shape(log_probs, [*label.shape, 3], name="log_probs", letters="label's axes and [3]")
    if not bool(((known == 1) | (known == 0) | (known == -1)).all()):
        raise ConfigError(
            "label: expected 1 (first better), 0 (tie) or -1 (second better); mark others in valid"
        )
    if valid is not None:
        log_probs = log_probs.masked_fill(~valid[..., None], 0)
    loss = -log_probs.gather(-1, (1 - known.long())[..., None])[..., 0]
    return loss.mean() if valid is None else kept_mean(loss.flatten(), valid.flatten())


def squared_tie_loss(gap: Tensor) -> Tensor:
    """Pulls the two rewards of a tied pair together, beside ``bradley_terry_loss`` on the others.

        mean_b gap[b]^2

    Args:
        gap: [B], of tied pairs.

    Returns:
        Scalar, squared unit of the rewards.

    Raises:
        ShapeError: not [B].

    Source: the code of Zhang et al. 2025, MM-RLHF (arXiv:2502.10391).

    >>> squared_tie_loss(torch.tensor([1.0, -3.0]))
    tensor(5.)
    """
    check_shape(gap, gap.shape[:1], name="gap", letters="[B]")
    return (gap**2).mean()
