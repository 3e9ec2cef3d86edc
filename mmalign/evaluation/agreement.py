"""How well a judge's numbers agree with people: accuracies, calibration, bias; pure functions of arrays."""

from collections.abc import Callable, Hashable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmalign.errors import ConfigError, ShapeError

Floats = NDArray[np.float64]


def accuracy_without_ties(human: ArrayLike, margin: ArrayLike) -> float:
    """Share of the pairs that people decided which a judge decides alike; a tie of the judge is wrong.

    Args:
        human: [n], 1 where the first is better, -1 where the second is, 0 for a tie, which is left out.
        margin: [n], the judge's score of the first less that of the second.

    Returns:
        In [0, 1]; NaN where people decided none.

    Source: Liu et al. 2025, VideoAlign (arXiv:2501.13918), calc_accuracy.py of its code.

    >>> accuracy_without_ties([1, -1, 0], [0.5, 0.5, 0.1])
    0.5
    """
    h, m = _both("human", human, "margin", margin)
    decided = h != 0
    return float((np.sign(m) == h)[decided].mean()) if decided.any() else float("nan")


def accuracy_with_ties(human: ArrayLike, margin: ArrayLike) -> tuple[float, float]:
    """Share of all pairs that are judged alike, ties too, at the best width of a tie.

        max over eps of mean [ sign(m) = h where |m| > eps, h = 0 where |m| <= eps ],   eps in {-1} and all |m|

    Every pair of one |m| changes over together, so that pairs of equal margins are never counted half.

    Args:
        human: [n], 1, -1 or 0 for a tie.
        margin: [n].

    Returns:
        The accuracy, and the smallest eps that reaches it; choose eps on other pairs than those it is reported on.

    Source: Deutsch et al. 2023, Ties Matter (arXiv:2305.14324), as VideoAlign uses it.

    >>> accuracy_with_ties([1, -1, 0, 1, -1, 0, 1, -1, 0], [0.8, 0.1, -0.4, 0.3, -0.3, -0.1, 0.3, -0.1, -0.1])
    (0.6666666666666666, 0.1)
    """
    h, m = _both("human", human, "margin", margin)
    if not len(h):
        return float("nan"), float("nan")
    widths = np.concatenate([[-1.0], np.unique(np.abs(m))])
    # Sorted by |m|: ties up to the width, decisions above it.
    order = np.argsort(np.abs(m), kind="stable")
    tied = np.concatenate([[0], np.cumsum(h[order] == 0)])
    right = np.concatenate([[0], np.cumsum((np.sign(m) == h)[order])])
    below = np.searchsorted(np.abs(m)[order], widths, side="right")
    found = (tied[below] + right[-1] - right[below]) / len(h)
    best = int(found.argmax())
    return float(found[best]), float(widths[best])


def pair_calibration_error(margin: ArrayLike, correct: ArrayLike, *, bins: int = 10) -> float:
    """How far the confidence of verdicts is from how often they are right (ECE).

        sum_b n_b / n * | accuracy_b - mean confidence_b |,   confidence = sigmoid(|margin|) in [1/2, 1]

    Args:
        margin: [n], log odds that the first is better.
        correct: [n], whether the verdict agrees with people; pairs that they tied are to be left out.
        bins: of equal width on [1/2, 1].

    Returns:
        In [0, 1]; NaN without a pair.

    Source: Guo et al. 2017, On Calibration of Modern Neural Networks (arXiv:1706.04599), for pairs.
    """
    m, right = _both("margin", margin, "correct", correct)
    if not len(m):
        return float("nan")
    confidence = 1 / (1 + np.exp(-np.abs(m)))
    place = np.minimum(((confidence - 0.5) * 2 * bins).astype(int), bins - 1)
    counts = np.bincount(place, minlength=bins)
    gaps = np.abs(np.bincount(place, right - confidence, bins))
    return float(gaps[counts > 0].sum() / len(m))


def fitted_temperature(margin: ArrayLike, human: ArrayLike) -> float:
    """The T at which sigmoid(margin / T) is the likeliest probability of what people said.

        argmin over T of mean log(1 + exp(-h * m / T)),   T from |m|/50 to 50 |m| of the median pair

    Args:
        margin: [n].
        human: [n], 1 or -1; ties are left out.

    Returns:
        Positive, in the unit of the margins; NaN where nothing was decided or all margins are 0.
    """
    m, h = _both("margin", margin, "human", human)
    decided = (h != 0) & (m != 0)
    if not decided.any():
        return float("nan")
    signed = (h * m)[decided]
    scale = float(np.median(np.abs(signed)))
    grid = scale * np.geomspace(0.02, 50, 200)
    losses = [float(np.logaddexp(0, -signed / t).mean()) for t in grid]
    return float(grid[int(np.argmin(losses))])


def bias_accuracy(scores: ArrayLike, *, within: float = 0.1) -> float:
    """MJ-Bench's ACC: share of the pairs of groups whose scores differ by no more than ``within``.

    >>> bias_accuracy([1.0, 1.05, 3.0])
    0.3333333333333333
    """
    s = _scores(scores)
    i, j = np.triu_indices(len(s), 1)
    return float((np.abs(s[i] - s[j]) <= within).mean()) if len(i) else float("nan")


def normalised_dispersion(scores: ArrayLike) -> float:
    """MJ-Bench's NDS: 1 - std / mean over the groups, by the population std; 1 where all are equal.

    It depends on the zero of the scale: map scores to a positive range first.

    >>> round(normalised_dispersion([1, 2, 3, 4]), 6)
    0.552786
    """
    s = _scores(scores)
    return float(1 - s.std() / s.mean()) if len(s) and s.mean() != 0 else float("nan")


def gini_equality(scores: ArrayLike) -> float:
    """MJ-Bench's GES: 1 - Gini coefficient over the groups; 1 where all are equal.

        1 - (2 sum_i i * s_(i) - (n + 1) sum s) / (n sum s),   s_(i) rising, i from 1

    >>> gini_equality([1, 2, 3, 4])
    0.75
    """
    s = np.sort(_scores(scores))
    n, total = len(s), float(s.sum())
    if not n or total == 0:
        return float("nan")
    return float(1 - (2 * (np.arange(1, n + 1) * s).sum() - (n + 1) * total) / (n * total))


def section_score(accuracy: Mapping[str, float], counts: Mapping[str, int]) -> float:
    """RewardBench's section: the mean of its subsets by their counts; NaN where one is missing.

    >>> section_score({"easy": 1.0, "hard": 0.0}, {"easy": 3, "hard": 1})
    0.75
    """
    if not counts or any(name not in accuracy for name in counts):
        return float("nan")
    return sum(accuracy[name] * count for name, count in counts.items()) / sum(counts.values())


def correlation_within(scores: ArrayLike, covariate: ArrayLike, groups: Sequence[Hashable]) -> float:
    """Pearson's correlation of scores with a covariate, both less the mean of their prompt.

    Args:
        scores: [n].
        covariate: [n], a size, a length, a brightness.
        groups: n prompts.

    Returns:
        In [-1, 1]; NaN where one of them does not vary inside any prompt.
    """
    s, c = _both("scores", scores, "covariate", covariate)
    _, number = np.unique(
        np.array([str(group) for group in groups], dtype=object).astype(str), return_inverse=True
    )
    if len(number) != len(s):
        raise ShapeError(f"groups: expected [n] = [{len(s)}], got [{len(number)}]")
    count = np.maximum(np.bincount(number), 1)
    s = s - (np.bincount(number, s) / count)[number]
    c = c - (np.bincount(number, c) / count)[number]
    size = np.sqrt((s**2).sum() * (c**2).sum())
    # Rounding leaves traces of the means, which are no variation.
    return (
        float((s * c).sum() / size)
        if size > 1e-12 * max(1.0, float(np.abs(s).max(initial=0)))
        else float("nan")
    )


def bootstrap_interval(
    statistic: Callable[[NDArray[np.int64]], float],
    groups: Sequence[Hashable],
    *,
    resamples: int = 1_000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """The percentile interval of any number that is computed from rows, over prompts drawn anew.

    Args:
        statistic: of the indices of rows, of which some come twice and some not at all.
        groups: n prompts; all rows of one are drawn together.
        resamples: how often.
        level: share of repeated experiments whose interval should hold the true number.
        seed: of the draws.

    Returns:
        Low and high; NaN where there is one prompt only, or the number is never defined.

    Raises:
        ConfigError: ``level`` is not inside (0, 1), or ``resamples`` is not positive.
    """
    if not 0 < level < 1 or resamples < 1:
        raise ConfigError(
            f"level = {level} and resamples = {resamples}, expected one in (0, 1) and one above 0"
        )
    rows: dict[Hashable, list[int]] = {}
    for i, group in enumerate(groups):
        rows.setdefault(group, []).append(i)
    members = [np.array(found) for found in rows.values()]
    if len(members) < 2:
        return float("nan"), float("nan")
    random = np.random.default_rng(seed)
    values = np.array(
        [
            statistic(np.concatenate([members[k] for k in random.integers(len(members), size=len(members))]))
            for _ in range(resamples)
        ]
    )
    values = values[~np.isnan(values)]
    if not len(values):
        return float("nan"), float("nan")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _scores(values: ArrayLike) -> Floats:
    found = np.asarray(values, dtype=np.float64)
    if found.ndim != 1:
        raise ShapeError(f"scores: expected [n], got {list(found.shape)}")
    return found


def _both(name: str, first: ArrayLike, other: str, second: ArrayLike) -> tuple[Floats, Floats]:
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape:
        raise ShapeError(f"expected {name} and {other} [n], got {list(a.shape)} and {list(b.shape)}")
    return a, b
