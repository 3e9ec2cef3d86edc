"""How sure a gain is: the mean difference of paired scores, with a bootstrap interval over prompts."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmalign.errors import ConfigError, MmalignError, ShapeError

_DRAWS_AT_ONCE = (
    2_000_000  # prompts drawn per block of resamples: about 50 MB, whatever the number of prompts
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Gain:
    """A mean score before and after, in the scorer's own unit, over the pairs that have both."""

    before: float
    after: float
    gain: float
    """``after - before``."""
    ci95: tuple[float, float]
    """Low and high end of the gain (at another ``level``, if one was asked for). NaN where there is one prompt only."""
    n: int
    """Pairs that entered."""
    prompts: int
    """Prompts that were resampled; equal to ``n`` where each prompt has one pair."""
    excluded: int
    """Pairs left out because a score is missing on either side."""
    level: float = 0.95


def paired_bootstrap(
    before: ArrayLike,
    after: ArrayLike,
    *,
    groups: Sequence[Hashable] | None = None,
    resamples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> Gain:
    """Mean gain of paired scores, with the percentile interval of a bootstrap over prompts.

        gain        = sum_i (after[i] - before[i]) / n
        resample    = sum over drawn prompts of their differences / number of their rows
        ci          = quantiles (1 - level) / 2 and (1 + level) / 2 of the resamples

    A pair with NaN on either side is left out and counted in ``excluded``: a missing score is never a 0. What is drawn
    is prompts, all rows of one together, since pictures of one prompt succeed and fail together. The order of the rows
    does not matter.

    Args:
        before: [B], scores in the scorer's unit, NaN where missing.
        after: [B], the same samples in the same order.
        groups: B prompt ids; None where every row is a prompt of its own.
        resamples: how often the prompts are drawn anew.
        level: share of repeated experiments whose interval should hold the true gain.
        seed: of the draws.

    Returns:
        Means, gain, interval and counts. With one prompt the interval is (NaN, NaN): it says nothing of others.

    Raises:
        ShapeError: ``before``, ``after`` and ``groups`` are not [B] each.
        ConfigError: ``level`` is not inside (0, 1), or ``resamples`` is not positive.
        MmalignError: a score is infinite, or no pair has both scores.

    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13 (percentile interval).

    >>> gain = paired_bootstrap([0.2, 0.4, float("nan")], [0.3, 0.7, 0.9])
    >>> round(gain.gain, 3), [round(end, 3) for end in gain.ci95], gain.n, gain.excluded
    (0.2, [0.1, 0.3], 2, 1)
    """
    first, second = _scores("before", before), _scores("after", after)
    if len(first) != len(second):
        raise ShapeError(f"after: expected [B] = [{len(first)}] as in before, got [{len(second)}]")
    if groups is not None and len(groups) != len(first):
        raise ShapeError(f"groups: expected [B] = [{len(first)}] as in before, got [{len(groups)}]")
    if not 0 < level < 1:
        raise ConfigError(f"level = {level}, but an interval covers a share inside (0, 1); 0.95 is usual")
    if resamples < 1:
        raise ConfigError(f"resamples = {resamples}, but at least one is needed; 10000 is usual")

    both = ~(np.isnan(first) | np.isnan(second))
    if not both.any():
        raise MmalignError(
            f"none of the {len(first)} pairs has a score both before and after: nothing to compare"
        )
    difference = (second - first)[both]
    prompt = _indices(range(len(first)) if groups is None else groups)[both]
    _, prompt = np.unique(prompt, return_inverse=True)
    low, high = _percentile_interval(difference, prompt, resamples=resamples, level=level, seed=seed)
    return Gain(
        before=float(first[both].mean()),
        after=float(second[both].mean()),
        gain=float(difference.mean()),
        ci95=(low, high),
        n=len(difference),
        prompts=int(prompt.max()) + 1,
        excluded=int((~both).sum()),
        level=level,
    )


def _percentile_interval(
    difference: NDArray[np.float64], prompt: NDArray[np.int64], *, resamples: int, level: float, seed: int
) -> tuple[float, float]:
    """Quantiles of the mean difference when the prompts, numbered from 0, are drawn with replacement."""
    sums, rows = np.bincount(prompt, weights=difference), np.bincount(prompt)
    if len(sums) == 1:
        return float("nan"), float("nan")
    order = np.lexsort((rows, sums))  # so that the same seed gives the same interval for rows in any order
    sums, rows = sums[order], rows[order]
    random = np.random.default_rng(seed)
    means = np.empty(resamples)
    block = max(1, _DRAWS_AT_ONCE // len(sums))
    for start in range(0, resamples, block):
        drawn = random.integers(len(sums), size=(min(block, resamples - start), len(sums)))
        means[start : start + len(drawn)] = sums[drawn].sum(1) / rows[drawn].sum(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _scores(name: str, values: ArrayLike) -> NDArray[np.float64]:
    scores = np.asarray(values, dtype=np.float64)
    if scores.ndim != 1:
        raise ShapeError(f"{name}: expected [B], got {list(scores.shape)}")
    infinite = np.flatnonzero(np.isinf(scores))
    if len(infinite):
        raise MmalignError(
            f"{name}: row {infinite[0]} is infinite; a score is a number, or NaN where it is missing"
        )
    return scores


def _indices(groups: Sequence[Hashable]) -> NDArray[np.int64]:
    """Number equal ids equally, whatever their type."""
    known: dict[Hashable, int] = {}
    return np.array([known.setdefault(group, len(known)) for group in groups], dtype=np.int64)
