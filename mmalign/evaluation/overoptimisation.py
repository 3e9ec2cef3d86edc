"""How the true reward rises and falls as a proxy is optimised: the published laws, fitted with their uncertainty.

Distances are d = sqrt(KL(policy || reference)), the KL in nats and of whole samples: of a diffusion model the sum over
its steps. Rewards are less that of the reference, so that every law passes through 0 at d = 0.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmalign.errors import ConfigError, ShapeError, UnknownNameError
from mmalign.evaluation.agreement import bootstrap_interval
from mmalign.losses.selection import best_of_n_weights

Floats = NDArray[np.float64]
_HUGE = 1e300
Law = Literal["best-of-n", "policy-gradient", "direct"]
"""``direct`` (DPO, IPO, SLiC) has the form of ``policy-gradient``, of a win rate or a reward."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Overoptimisation:
    """A fitted law; ``alpha`` and ``beta`` in the reward's unit per sqrt(nat), of best-of-n ``beta`` per nat."""

    law: Law
    alpha: float
    beta: float
    peak: float
    """The distance at which the law is highest; infinite where it never falls, 0 where it never rises."""
    peak_reward: float
    r_squared: float
    """Share of the rewards' squares about their mean that the law explains; NaN where they do not vary."""
    alpha_ci: tuple[float, float]
    beta_ci: tuple[float, float]
    peak_ci: tuple[float, float]
    """NaN without at least two groups of points, and open (infinite) where some resamples never fall."""
    n: int
    """Points that entered; those at distance 0 say nothing."""


def distance(kl: ArrayLike) -> Floats:
    """The laws' distance.

        sqrt(max(kl, 0))

    Args:
        kl: any shape, nats of whole samples; estimates may be a little negative.

    Returns:
        As ``kl``, sqrt(nats).

    Source: Gao et al. 2023, Scaling Laws for Reward Model Overoptimization, section 3 (arXiv:2210.10760).

    >>> distance([4.0, -0.001]).tolist()
    [2.0, 0.0]
    """
    return np.sqrt(np.maximum(np.asarray(kl, dtype=np.float64), 0.0))


def law_reward(d: ArrayLike, alpha: float, beta: float, *, law: Law) -> Floats:
    """The reward that a law gives.

        best-of-n:                  d * (alpha - beta * d)
        policy-gradient, direct:    d * (alpha - beta * log d),  0 at d = 0

    Args:
        d: any shape, of ``distance``.
        alpha: the law's first coefficient.
        beta: its second one.
        law: which.

    Returns:
        As ``d``, in the unit of the reward.

    Raises:
        ConfigError: a distance is negative.
        UnknownNameError: ``law`` is none of the three.

    Source: Gao et al. 2023, section 3.1 (arXiv:2210.10760); for direct methods Rafailov et al. 2024, Scaling Laws for
    Reward Model Overoptimization in Direct Alignment Algorithms, section 3 (arXiv:2406.02900).

    >>> law_reward([0.0, 5.0], 1.0, 0.1, law="best-of-n").tolist()
    [0.0, 2.5]
    """
    at = np.asarray(d, dtype=np.float64)
    rise, fall = _terms(at, law)
    return alpha * rise - beta * fall


def law_peak(alpha: float, beta: float, *, law: Law) -> tuple[float, float]:
    """Where a law is highest, and how high.

        best-of-n:                  d = alpha / (2 beta),        alpha^2 / (4 beta)
        policy-gradient, direct:    d = exp(alpha / beta - 1),   beta * d

    Args:
        alpha: the law's first coefficient.
        beta: its second one.
        law: which.

    Returns:
        Distance and reward; infinite where beta is not positive and the law rises for ever; 0 and 0 where it only
        falls.

    Raises:
        UnknownNameError: ``law`` is none of the three.

    Source: algebra on ``law_reward``.

    >>> law_peak(1.0, 0.1, law="best-of-n")
    (5.0, 2.5)
    """
    _check_law(law)
    if law == "best-of-n":
        if alpha <= 0 <= beta:
            return 0.0, 0.0
        return (alpha / (2 * beta), alpha**2 / (4 * beta)) if beta > 0 else (math.inf, math.inf)
    if beta > 0:
        # Beyond what a float holds it never falls where anyone looks.
        peak = math.exp(alpha / beta - 1) if alpha / beta < 700 else math.inf
        return peak, beta * peak
    return (0.0, 0.0) if beta == 0 and alpha <= 0 else (math.inf, math.inf)


def fit_overoptimisation(
    d: ArrayLike,
    reward: ArrayLike,
    *,
    law: Law,
    groups: Sequence[Hashable] | None = None,
    resamples: int = 1_000,
    level: float = 0.95,
    seed: int = 0,
) -> Overoptimisation:
    """Fit a law by linear least squares without intercept, with bootstrap intervals.

        reward ~ alpha * d - beta * d^2,   or   alpha * d - beta * d * log d

    Args:
        d: [n], of ``distance``, at least 0; those at 0 are left out.
        reward: [n], less the reference's; NaN where missing, left out. The proxy's own curve has its own fit, and the
            gap between both is how far it is hacked.
        law: which.
        groups: n names of runs, resampled together, since the points of one run err together; None: each for itself.
        resamples: of the bootstrap.
        level: of the intervals.
        seed: of the draws.

    Returns:
        Coefficients, peak and intervals.

    Raises:
        ShapeError: not twice [n], or not n groups.
        ConfigError: a distance is negative, or fewer than two distances above 0 differ.
        UnknownNameError: ``law`` is none of the three.

    Source: Gao et al. 2023, section 3 (arXiv:2210.10760); the intervals are Efron and Tibshirani 1993, chapter 13.
    """
    x, y = np.asarray(d, dtype=np.float64), np.asarray(reward, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise ShapeError(f"expected d and reward twice [n], got {list(x.shape)} and {list(y.shape)}")
    names = list(range(len(x))) if groups is None else list(groups)
    if len(names) != len(x):
        raise ShapeError(f"groups: expected n = {len(x)}, got {len(names)}")
    if (x < 0).any():
        raise ConfigError("d: a distance is negative; give distance(kl)")
    used = np.flatnonzero((x > 0) & ~np.isnan(x) & ~np.isnan(y))
    x, y, names = x[used], y[used], [names[i] for i in used]
    if len(np.unique(x)) < 2:
        raise ConfigError(f"d: {len(np.unique(x))} distances above 0 differ, but two coefficients need two")
    alpha, beta = _solve(x, y, law)
    peak, peak_reward = law_peak(alpha, beta, law=law)
    rest, spread = y - law_reward(x, alpha, beta, law=law), y - y.mean()

    def interval(part: int) -> tuple[float, float]:
        def statistic(rows: NDArray[np.int64]) -> float:
            if len(np.unique(x[rows])) < 2:
                return float("nan")
            a, b = _solve(x[rows], y[rows], law)
            # Quantiles interpolate, and infinity less infinity is NaN: a huge number stands for it.
            return min((a, b, law_peak(a, b, law=law)[0])[part], _HUGE)

        low, high = bootstrap_interval(statistic, names, resamples=resamples, level=level, seed=seed)
        return _opened(low), _opened(high)

    return Overoptimisation(
        law=law,
        alpha=alpha,
        beta=beta,
        peak=peak,
        peak_reward=peak_reward,
        r_squared=float(1 - rest @ rest / (spread @ spread)) if spread.any() else float("nan"),
        alpha_ci=interval(0),
        beta_ci=interval(1),
        peak_ci=interval(2),
        n=len(x),
    )


def best_of_n_by_prompt(proxy: ArrayLike, gold: ArrayLike, counts: Sequence[int]) -> tuple[Floats, Floats]:
    """What the best of n by a proxy scores by the proxy and in truth, by prompt, without bias from N >= n samples.

        sum_{i = n..N} C(i - 1, n - 1) / C(N, n) * score_(i),   (1), (2), ... rising by the proxy

    ``mmalign.losses.best_of_n_kl(n)`` is the distance's square that goes with it.

    Args:
        proxy: [P, N], N samples for each of P prompts, without NaN; where two are equal the earlier counts as the
            worse.
        gold: as ``proxy``, of the same samples.
        counts: C times an n, from 1 to N.

    Returns:
        Proxy and gold scores, [P, C] each.

    Raises:
        ShapeError: not twice [P, N].
        ConfigError: an n is not from 1 to N, or a score is NaN.

    Source: Nakano et al. 2021, WebGPT, appendix I (arXiv:2112.09332), as Coste et al. 2023 (arXiv:2310.02743) use it.
    """
    p, g = np.asarray(proxy, dtype=np.float64), np.asarray(gold, dtype=np.float64)
    if p.ndim != 2 or p.shape != g.shape or not p.size:
        raise ShapeError(f"expected proxy and gold twice [P, N], got {list(p.shape)} and {list(g.shape)}")
    if np.isnan(p).any() or np.isnan(g).any():
        raise ConfigError("proxy and gold: some are NaN; leave such prompts out")
    order = np.argsort(p, axis=1, kind="stable")
    weights = np.array([best_of_n_weights(p.shape[1], n=n) for n in counts]).reshape(-1, p.shape[1]).T
    return np.take_along_axis(p, order, 1) @ weights, np.take_along_axis(g, order, 1) @ weights


def best_of_n_curve(proxy: ArrayLike, gold: ArrayLike, counts: Sequence[int]) -> list[tuple[float, float]]:
    """The means over prompts of ``best_of_n_by_prompt``.

    Args:
        proxy: [P, N].
        gold: [P, N].
        counts: each n.

    Returns:
        For each n the mean proxy and the mean gold score.

    Raises:
        ShapeError: not twice [P, N].
        ConfigError: an n is not from 1 to N, or a score is NaN.

    >>> best_of_n_curve([[0, 1, 2, 3]], [[0, 1, 3, 2]], [1, 4])
    [(1.5, 1.5), (3.0, 2.0)]
    """
    p, g = best_of_n_by_prompt(proxy, gold, counts)
    return [(float(a), float(b)) for a, b in zip(p.mean(0), g.mean(0), strict=True)]


def reward_variance(rewards: ArrayLike) -> Floats:
    """How much a reward tells the samples of one prompt apart: with little, the policy's landscape is flat.

        var_n( (rewards[m, n] - mean) / std ),   mean and std over all M * N, the variance of each prompt unbiased

    Args:
        rewards: [M, N], of N >= 2 samples of the current policy (at least 10 to be of use) for each of M prompts.

    Returns:
        [M]; their mean is near 1 where prompts do not matter, and 0 where only they do. NaN if all rewards are equal.
        It is of this policy, and says nothing of accuracy.

    Raises:
        ShapeError: not [M, N] with N >= 2.

    Source: Razin et al. 2025, What Makes a Reward Model a Good Teacher? (arXiv:2503.15477), in the form of its code.

    >>> reward_variance([[0.0, 2.0], [1.0, 1.0]]).tolist()
    [4.0, 0.0]
    """
    r = np.asarray(rewards, dtype=np.float64)
    if r.ndim != 2 or r.shape[1] < 2:
        raise ShapeError(f"rewards: expected [M, N] with N >= 2, got {list(r.shape)}")
    return r.var(1, ddof=1) / r.var() if np.ptp(r) > 0 else np.full(len(r), np.nan)


def _opened(end: float) -> float:
    return math.inf if end > _HUGE / 1e6 else end


def _check_law(law: str) -> None:
    if law not in get_args(Law):
        raise UnknownNameError("law", law, get_args(Law))


def _terms(d: Floats, law: Law) -> tuple[Floats, Floats]:
    _check_law(law)
    if (d < 0).any():
        raise ConfigError("d: a distance is negative; give distance(kl)")
    if law == "best-of-n":
        return d, d**2
    return d, d * np.log(np.where(d > 0, d, 1.0))


def _solve(d: Floats, reward: Floats, law: Law) -> tuple[float, float]:
    rise, fall = _terms(d, law)
    alpha, minus_beta = np.linalg.lstsq(np.stack([rise, fall], 1), reward, rcond=None)[0]
    return float(alpha), -float(minus_beta)
