"""Krippendorff's alpha: agreement of any number of people beyond chance, whoever judged what."""

from collections.abc import Hashable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mmalign.errors import ConfigError, ShapeError
from mmalign.evaluation.agreement import bootstrap_interval

Metric = Literal["nominal", "ordinal", "interval"]
Floats = NDArray[np.float64]
Units = Sequence[Sequence[Any]]


def krippendorff_alpha(units: Units, *, metric: Metric = "nominal") -> float:
    """How far people agree beyond chance: 1 always, 0 as by chance, below 0 where they disagree on purpose.

        alpha = 1 - D_o / D_e
        D_o   = sum_ck o_ck d_ck / n,   o_ck = sum over units of (pairs c, k inside it) / (values in it - 1)
        D_e   = sum_ck n_c n_k d_ck / (n (n - 1)),   n_c = sum_k o_ck,   n = sum_c n_c
        d_ck  = [c != k], or (c - k)^2, or, of ordered values, (sum_{g = c..k} n_g - (n_c + n_k) / 2)^2

    Args:
        units: what was judged; each holds the values it got, in any order, one or none a person. Units with fewer than
            two values say nothing and are left out. Values are anything that can be told apart and, but for
            ``nominal``, numbers.
        metric: what is a large disagreement.

    Returns:
        At most 1; NaN where no unit has two values or all values are alike, of which chance explains everything.

    Raises:
        ConfigError: no such metric.

    Source: Krippendorff 2011, Computing Krippendorff's Alpha-Reliability, section C, whose example of four observers
    gives 0.743 (nominal), 0.815 (ordinal) and 0.849 (interval).

    >>> round(krippendorff_alpha([[0, 1], [1, 1], [0, 1], [0, 0], [0, 0], [0, 1], [0, 0], [0, 0], [1, 0], [0, 0]]), 3)
    0.095
    """
    values, coincidences = coincidences_of(units)
    return _alpha(coincidences.sum(0), values, metric)


def alpha_interval(
    units: Units,
    groups: Sequence[Hashable],
    *,
    metric: Metric = "nominal",
    resamples: int = 1_000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """The percentile interval of alpha, over groups of units (prompts) drawn anew.

    Args:
        units: as in :func:`krippendorff_alpha`.
        groups: one for each unit; units of one are drawn together.
        metric: likewise.
        resamples: how often.
        level: share of repeated experiments whose interval should hold the true alpha.
        seed: of the draws.

    Returns:
        Low and high; NaN where there is one group only.

    Raises:
        ShapeError: another number of groups.
        ConfigError: a level or number of resamples that cannot be.
    """
    if len(groups) != len(units):
        raise ShapeError(f"groups: expected one for each of {len(units)} units, got {len(groups)}")
    values, coincidences = coincidences_of(units)
    return bootstrap_interval(
        lambda rows: _alpha(coincidences[rows].sum(0), values, metric),
        groups,
        resamples=resamples,
        level=level,
        seed=seed,
    )


def coincidences_of(units: Units) -> tuple[list[Any], Floats]:
    """The values in order, and [U, V, V]: the pairs of values inside each unit, over its number of values less one."""
    different = {value for unit in units for value in unit}
    values = sorted(different, key=lambda value: (str(type(value)), value)) if different else []
    place = {value: i for i, value in enumerate(values)}
    found = np.zeros((len(units), len(values), len(values)))
    for number, unit in enumerate(units):
        if len(unit) < 2:
            continue
        counts = np.bincount([place[value] for value in unit], minlength=len(values)).astype(float)
        found[number] = (np.outer(counts, counts) - np.diag(counts)) / (len(unit) - 1)
    return values, found


def _alpha(coincidences: Floats, values: Sequence[Any], metric: Metric) -> float:
    counts = coincidences.sum(1)
    n = counts.sum()
    distances = squared_distances(values, counts, metric)
    expected = (np.outer(counts, counts) * distances).sum()
    return float(1 - (n - 1) * (coincidences * distances).sum() / expected) if expected > 0 else float("nan")


def squared_distances(values: Sequence[Any], counts: Floats, metric: Metric) -> Floats:
    """[V, V]: how large a disagreement each pair of values is.

    Args:
        values: V of them, in order.
        counts: [V], how often each occurs, which ordered values are that far apart by.
        metric: as in :func:`krippendorff_alpha`.

    Raises:
        ConfigError: no such metric.
    """
    if metric == "nominal":
        return 1.0 - np.eye(len(values))
    if metric == "interval":
        numbers = np.array(values, dtype=np.float64)
        return (numbers[:, None] - numbers[None]) ** 2
    if metric == "ordinal":
        # The middle of each value's ranks: the sum between two of them is a difference of these.
        middle = np.cumsum(counts) - counts / 2
        return (middle[:, None] - middle[None]) ** 2
    raise ConfigError(f"metric = {metric!r}: expected nominal, ordinal or interval")
