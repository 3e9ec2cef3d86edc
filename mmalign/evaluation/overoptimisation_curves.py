"""A curve of rewards over distance with its law, the law's band and the points' own intervals, over prompts or runs."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmalign.errors import ConfigError, ShapeError
from mmalign.evaluation.overoptimisation import Floats, Law, law_peak, law_reward

GRID = 60
"""Distances at which a law is drawn."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedCurve:
    """C means with their intervals, and the law that goes through them.

    Args:
        law: which.
        d: [C], distances.
        reward: [C], means over groups.
        low: [C], of their interval.
        high: [C].
        alpha: of the law, with ``alpha_ci``; ``beta`` and ``peak`` alike. A peak may be infinite: it never falls.
        grid: distances at which the law is drawn, from 0.
        fitted: the law there, with ``band_low`` and ``band_high``.
        r_squared: share of the means' squares about their mean that the law explains; NaN where they do not vary.
        falls: share of the resamples whose law is past its peak at the largest distance.
    """

    law: Law
    d: Floats
    reward: Floats
    low: Floats
    high: Floats
    alpha: float
    alpha_ci: tuple[float, float]
    beta: float
    beta_ci: tuple[float, float]
    peak: float
    peak_ci: tuple[float, float]
    r_squared: float
    falls: float
    grid: Floats
    fitted: Floats
    band_low: Floats
    band_high: Floats


def fit_curve(
    d: ArrayLike,
    reward: ArrayLike,
    *,
    law: Law,
    resamples: int = 1_000,
    level: float = 0.95,
    seed: int = 0,
) -> FittedCurve:
    """Fit a law to mean rewards, with a bootstrap over what was averaged: prompts, or runs.

    The means go through the law by least squares without intercept, as ``fit_overoptimisation`` does; a resample of
    the rows gives other means, another law, and so the band.

    Args:
        d: [C], of ``distance``, two of them different and above 0.
        reward: [G, C], of G groups (prompts) at these distances, each less its own reward at distance 0; NaN where a
            group has none there.
        law: which.
        resamples: of the bootstrap.
        level: of the intervals.
        seed: of the draws.

    Returns:
        The curve. With one group all intervals are NaN.

    Raises:
        ShapeError: not [C] and [G, C].
        ConfigError: a distance is negative, or fewer than two that have a reward differ and are above 0.
        UnknownNameError: ``law`` is none of the three.

    Source: Gao et al. 2023, Scaling Laws for Reward Model Overoptimization, section 3 (arXiv:2210.10760); the intervals
    are Efron and Tibshirani 1993, chapter 13.
    """
    x, y = np.asarray(d, dtype=np.float64), np.asarray(reward, dtype=np.float64)
    if x.ndim != 1 or y.ndim != 2 or y.shape[1] != len(x):
        raise ShapeError(f"expected d [C] and reward [G, C], got {list(x.shape)} and {list(y.shape)}")
    known = ~np.isnan(y).all(0)
    x, y = x[known], y[:, known]
    terms = np.stack(
        [law_reward(x, 1.0, 0.0, law=law), law_reward(x, 0.0, 1.0, law=law)], 1
    )  # a, b -> reward
    if len(np.unique(x[x > 0])) < 2:
        raise ConfigError(
            f"d: {len(np.unique(x[x > 0]))} distances above 0 differ, but two coefficients need two"
        )
    inverse = np.linalg.pinv(terms)
    random = np.random.default_rng(seed)
    rows = random.integers(len(y), size=(resamples, len(y)))
    drawn = np.stack([_means(y[row]) for row in rows])  # [R, C]
    drawn = drawn[~np.isnan(drawn).any(1)]
    mean = _means(y)
    alpha, beta = (float(v) for v in inverse @ mean)
    grid = np.linspace(0.0, float(x.max()), GRID)
    coefficients = drawn @ inverse.T  # [R, 2]
    laws = np.stack([law_reward(grid, a, b, law=law) for a, b in coefficients]) if len(drawn) else drawn
    peaks = np.array([law_peak(a, b, law=law)[0] for a, b in coefficients])
    rest, spread = mean - terms @ (alpha, beta), mean - mean.mean()

    def ends(values: NDArray[np.float64]) -> tuple[Floats, Floats]:
        shares = ((1 - level) / 2, (1 + level) / 2)
        if len(y) < 2 or not len(values):
            nothing = np.full(values.shape[1:], math.nan)
            return nothing, nothing
        # Of infinite peaks the nearest rank: between two infinities nothing can be interpolated.
        low, high = np.quantile(values, shares, axis=0, method="nearest")
        return low, high

    alpha_ends, beta_ends, peak_ends = (ends(v) for v in (coefficients[:, 0], coefficients[:, 1], peaks))
    point_low, point_high = ends(drawn)
    band_low, band_high = ends(laws) if len(laws) else (np.full(GRID, math.nan),) * 2
    return FittedCurve(
        law=law,
        d=x,
        reward=mean,
        low=point_low,
        high=point_high,
        alpha=alpha,
        alpha_ci=(float(alpha_ends[0]), float(alpha_ends[1])),
        beta=beta,
        beta_ci=(float(beta_ends[0]), float(beta_ends[1])),
        peak=law_peak(alpha, beta, law=law)[0],
        peak_ci=(float(peak_ends[0]), float(peak_ends[1])),
        r_squared=float(1 - rest @ rest / (spread @ spread)) if np.ptp(mean) > 0 else math.nan,
        falls=float((peaks < x.max()).mean()) if len(y) > 1 and len(peaks) else math.nan,
        grid=grid,
        fitted=law_reward(grid, alpha, beta, law=law),
        band_low=band_low,
        band_high=band_high,
    )


def _means(y: Floats) -> Floats:
    """[C], of the rows that have a number there; NaN where none has."""
    there = ~np.isnan(y)
    count = there.sum(0)
    total = np.where(there, y, 0.0).sum(0)
    return np.where(count > 0, total / np.maximum(count, 1), math.nan)
