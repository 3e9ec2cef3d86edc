"""How well a number tells two kinds apart, and how often an interval holds; pure functions of arrays."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmalign.errors import ConfigError, ShapeError


def auroc(score: ArrayLike, positive: ArrayLike) -> float:
    """Probability that a random positive has a higher score than a random negative; ties count half.

    Args:
        score: [n], finite.
        positive: [n], booleans.

    Returns:
        In [0, 1], 1/2 for noise; NaN where one kind is missing. No rising function of the score changes it.

    Raises:
        ShapeError: not twice [n].
        ConfigError: a score is NaN.

    Source: Hanley and McNeil 1982; the Mann–Whitney statistic.

    >>> auroc([0.1, 0.4, 0.4, 0.9], [False, True, False, True])
    0.875
    """
    s, of = _scored(score, positive)
    n, m = int(of.sum()), int((~of).sum())
    if not n or not m:
        return float("nan")
    _, place, count = np.unique(s, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[place]  # of equals the mean rank
    return float((rank[of].sum() - n * (n + 1) / 2) / (n * m))


def false_positives_at(score: ArrayLike, positive: ArrayLike, *, recall: float = 0.95) -> float:
    """Share of negatives that a threshold lets through which finds so many of the positives (FPR95).

    Args:
        score: [n], higher for positives.
        positive: [n], booleans.
        recall: share of positives at or above the threshold, in (0, 1].

    Returns:
        In [0, 1], at the highest threshold that reaches the recall; NaN where one kind is missing.

    Raises:
        ShapeError: not twice [n].
        ConfigError: a score is NaN, or ``recall`` is outside (0, 1].

    Source: Liu et al. 2020, Energy-based Out-of-distribution Detection, section 4 (arXiv:2010.03759).

    >>> false_positives_at([3, 2, 1, 2.5, 0, 0], [True, True, True, False, False, False], recall=0.6)
    0.3333333333333333
    """
    s, of = _scored(score, positive)
    if not 0 < recall <= 1:
        raise ConfigError(f"recall = {recall}, but it is in (0, 1]")
    if of.all() or not of.any():
        return float("nan")
    found = np.sort(s[of])[::-1]
    threshold = found[int(np.ceil(round(recall * len(found), 9))) - 1]
    return float((s[~of] >= threshold).mean())


def interval_coverage(low: ArrayLike, high: ArrayLike, truth: ArrayLike) -> float:
    """Share of the true numbers that lie in their interval, ends included.

    Args:
        low: [n].
        high: [n], NaN where there is no interval.
        truth: [n], NaN where it is not known; such rows are left out.

    Returns:
        In [0, 1]; NaN without a row.

    Raises:
        ShapeError: not three times [n].
        ConfigError: a low end is above its high end.

    >>> interval_coverage([0, 0, 0], [1, 1, 1], [0.5, 1.0, 2.0])
    0.6666666666666666
    """
    a, b, t = (np.asarray(x, dtype=np.float64) for x in (low, high, truth))
    if a.ndim != 1 or not a.shape == b.shape == t.shape:
        raise ShapeError(f"expected three times [n], got {list(a.shape)}, {list(b.shape)}, {list(t.shape)}")
    if (a > b).any():
        raise ConfigError(f"low: row {int((a > b).argmax())} is above its high end")
    known = ~(np.isnan(a) | np.isnan(b) | np.isnan(t))
    return float(((a <= t) & (t <= b))[known].mean()) if known.any() else float("nan")


def _scored(score: ArrayLike, positive: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    s, of = np.asarray(score, dtype=np.float64), np.asarray(positive)
    if s.ndim != 1 or s.shape != of.shape:
        raise ShapeError(f"expected score and positive twice [n], got {list(s.shape)}, {list(of.shape)}")
    if of.dtype != np.bool_:
        raise ConfigError(f"positive: expected booleans, got {of.dtype}")
    if np.isnan(s).any():
        raise ConfigError("score: some are NaN; leave out what has no score")
    return s, of
