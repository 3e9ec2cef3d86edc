"""LiFT's weights: what a critic answered in words, as the number that a sample's likelihood is multiplied with."""

from torch import Tensor

from mmalign.answers import named
from mmalign.errors import ShapeError, UnknownNameError

LIFT_SCORES = {"good": 0.9, "normal": 0.2, "bad": 0.05}
"""Grade to weight. None is 0, so that the bad ones are imitated a little too."""


def lift_score(answer: str) -> float:
    """Read the grade out of a critic's answer.

    Args:
        answer: says good, normal or bad plainly, in any case, once or more, and none of the others; see
            :func:`mmalign.answers.named`.

    Returns:
        0.9, 0.2 or 0.05.

    Raises:
        UnknownNameError: no grade, or more than one. Such an answer has no score; it is not a good one.

    Source: Wang et al. 2024, LiFT, section 3.3 (arXiv:2412.04814), with the numbers of its code, which counts whatever
    it cannot read as good.

    >>> lift_score("Normal. The motion stutters.")
    0.2
    """
    score = named(answer, LIFT_SCORES)
    if score is None:
        raise UnknownNameError("grade", answer, LIFT_SCORES)
    return score


def lift_weights(scores: Tensor) -> Tensor:
    """One weight for all that a critic was asked about a sample.

        round(mean_d scores[b, d], 2 decimals)

    Args:
        scores: [B, D], of ``lift_score``; the paper asks D = 3 questions: semantic consistency, motion smoothness and
            fidelity.

    Returns:
        [B], unitless, detached.

    Raises:
        ShapeError: ``scores`` is not [B, D].

    Source: the code of Wang et al. 2024, LiFT (arXiv:2412.04814).

    >>> import torch
    >>> lift_weights(torch.tensor([[0.9, 0.9, 0.2]]))  # 2 / 3
    tensor([0.6700])
    """
    if scores.ndim != 2:
        raise ShapeError(f"scores: expected [B, D], got {list(scores.shape)}")
    return scores.detach().mean(1).round(decimals=2)
