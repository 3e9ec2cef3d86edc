"""Numbers from how probable a judge finds each answer: functions of tensors, with gradients."""

import torch
from torch import Tensor

from mmalign.errors import ShapeError


def ordinal_expectation(log_prob: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean of the scale's steps under the judge's distribution over them, its variance, and how much it holds.

        p_k = softmax_k(log_prob),   mean = sum_k p_k v_k,   variance = sum_k p_k v_k^2 - mean^2,
        mass = sum_k exp(log_prob_k)

    Args:
        log_prob: [..., K] in nats, of each step among all words; mean and variance ignore a constant added to a row.
        values: [K], what each step is worth.

    Returns:
        Mean [...], in the unit of ``values``; variance [...], in its square; mass [...] in [0, 1].

    Raises:
        ShapeError: K differs.

    Source: Edit-R1, Li et al. 2025 (arXiv:2510.16888), expectation over the logits of digit tokens.

    >>> mean, _, _ = ordinal_expectation(torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 2.0]), torch.arange(6) / 5)
    >>> round(mean.item(), 5)
    0.75785
    """
    if log_prob.shape[-1:] != values.shape:
        raise ShapeError(f"values: expected [K] = [{log_prob.shape[-1]}], got {list(values.shape)}")
    p = log_prob.softmax(-1)
    values = values.to(p)
    mean = (p * values).sum(-1)
    variance = (p * (values - mean[..., None]).square()).sum(-1)
    return mean, variance, mass(log_prob)


def mass(log_prob: Tensor) -> Tensor:
    """How much of all probability these answers hold: ``sum_k exp(log_prob_k)``, [...] in [0, 1] of [..., K]."""
    return log_prob.logsumexp(-1).exp().clamp(max=1.0)


def yes_probability(log_prob: Tensor) -> Tensor:
    """Probability of yes where only yes and no count: ``sigmoid(log P(yes) - log P(no))``.

    Args:
        log_prob: [..., 2] in nats, yes before no.

    Returns:
        [...] in [0, 1].

    >>> yes_probability(torch.tensor([0.9, 0.3]).log())
    tensor(0.7500)
    """
    return log_prob.softmax(-1)[..., 0]


def debias_pair(forward: Tensor, backward: Tensor) -> tuple[Tensor, Tensor]:
    """A preference that does not depend on which medium was shown first.

        p_first = (forward_first + backward_second) / 2,   and the same of p_second and p_tie

    so a judge that always takes the one it sees first gives each side the same. Swapping the two media, which swaps the
    arguments, swaps the sides exactly.

    Args:
        forward: [..., 3], probabilities of first, second and neither, in the order given.
        backward: [..., 3], the same with the media exchanged: its first is the other's second.

    Returns:
        The mean [..., 3], in the order given; agreement [...], true where both orders prefer the same.
    """
    turned = backward[..., [1, 0, 2]]
    return (forward + turned) / 2, forward.argmax(-1) == turned.argmax(-1)


def settle(forward: Tensor, backward: Tensor) -> Tensor:
    """Verdicts of both orders as one: where they disagree, a tie.

    Args:
        forward: [N] of 0 (first), 1 (second), 2 (neither).
        backward: [N], the same with the media exchanged.

    Returns:
        [N] of 0, 1, 2, in the order given.

    >>> settle(torch.tensor([0, 0, 1]), torch.tensor([1, 0, 2]))
    tensor([0, 2, 2])
    """
    turned = torch.tensor([1, 0, 2], device=backward.device)[backward]
    return torch.where(forward == turned, forward, 2)
