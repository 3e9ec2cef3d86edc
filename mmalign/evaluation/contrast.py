"""Whether a reward follows its prompt: prompts that nearly say the same, each with a medium of its own."""

from collections.abc import Sequence
from difflib import SequenceMatcher

import numpy as np
from numpy.typing import ArrayLike

from mmalign.errors import ShapeError
from mmalign.texts import normal


def contrast_partners(
    prompts: Sequence[str], *, least: float = 0.5, most: float = 0.95
) -> list[tuple[int, int]]:
    """Every prompt with the one that is most like it, each two once.

        similarity = 2 * words in common, in order / words of both

    Args:
        prompts: P.
        least: similarity below which two prompts are no contrast.
        most: similarity above which they are the same.

    Returns:
        Pairs (i, j), i < j, in order; of equally similar ones the earlier j.

    >>> contrast_partners(["a red circle", "a blue circle", "two tones"])
    [(0, 1)]
    """
    words = [normal(prompt).split() for prompt in prompts]
    found: set[tuple[int, int]] = set()
    for i, mine in enumerate(words):
        matcher = SequenceMatcher(None, b=mine, autojunk=False)
        best, partner = 0.0, -1
        for j, other in enumerate(words):
            if j == i or other == mine:
                continue
            matcher.set_seq1(other)
            if matcher.real_quick_ratio() <= best:
                continue
            ratio = matcher.ratio()
            if best < ratio <= most and ratio >= least:
                best, partner = ratio, j
        if partner >= 0:
            found.add((min(i, partner), max(i, partner)))
    return sorted(found)


def contrast_consistency(own: ArrayLike, swapped: ArrayLike) -> tuple[float, float]:
    """How often a reward tells two similar prompts' media apart, and two media's prompts.

        response:    mean of [ R(q1, a1) > R(q1, a2) ] and [ R(q2, a2) > R(q2, a1) ]
        instruction: mean of [ R(q1, a1) > R(q2, a1) ] and [ R(q2, a2) > R(q1, a2) ]

    A tie is wrong, so a reward that does not read prompts has a response consistency of 1/2 at most and an instruction
    consistency of 0; guessing has 1/2 of both.

    Args:
        own: [n, 2], R(q1, a1) and R(q2, a2) of n pairs of prompts.
        swapped: [n, 2], R(q1, a2) and R(q2, a1); NaN on either side leaves the pair out.

    Returns:
        Both, in [0, 1]; NaN without a pair.

    Raises:
        ShapeError: not twice [n, 2].

    Source: Shen et al. 2023, The Trickle-down Impact of Reward (In-)consistency on RLHF (arXiv:2309.16155), Contrast
    Instructions.

    >>> contrast_consistency([[2.0, 2.0]], [[1.0, 3.0]])
    (0.5, 0.5)
    """
    right, other = np.asarray(own, dtype=np.float64), np.asarray(swapped, dtype=np.float64)
    if right.ndim != 2 or right.shape[1] != 2 or right.shape != other.shape:
        raise ShapeError(
            f"expected own and swapped twice [n, 2], got {list(right.shape)}, {list(other.shape)}"
        )
    there = ~(np.isnan(right).any(1) | np.isnan(other).any(1))
    if not there.any():
        return float("nan"), float("nan")
    right, other = right[there], other[there]
    return float((right > other).mean()), float((right > other[:, ::-1]).mean())
