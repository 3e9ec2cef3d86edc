"""How far people's labels can be trusted: agreement of everybody and of each pair, habits, and who stands out."""

import hashlib
import math
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from mmalign.data.label_store import choice_of
from mmalign.evaluation.agreement import bootstrap_interval
from mmalign.evaluation.krippendorff import (
    Metric,
    alpha_interval,
    coincidences_of,
    krippendorff_alpha,
    squared_distances,
)

Row = Mapping[str, Any]
SIDE_BEYOND = 0.65
"""A share of one side whose interval lies above this, or below its opposite, is a habit."""
CONSISTENT_BELOW = 0.7
"""Repeated items of which fewer are answered alike, by the upper end of the interval, are guesses."""
ALPHA_BELOW = 0.5
"""Agreement with the others that is, by the upper end of its interval, under this part of theirs."""
FAST_BELOW = 0.33
"""A median time under this part of the others' median."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AnnotatorReport:
    """One person. Shares are in [0, 1], NaN where there is nothing to count.

    Args:
        name: who.
        choices: that stand.
        skipped: of these.
        agreement: share of the same verdicts, over all values that others gave to the same.
        alpha: agreement with the others beyond chance.
        alpha_ci95: over prompts.
        left: share of decisions for what was shown first.
        left_ci95: Wilson's.
        consistent: share of repeated items that were answered alike.
        consistent_ci95: Wilson's.
        repeats: that were answered twice.
        seconds: the median time of an item.
        suspicions: why these labels may better be left out; none for most people.
    """

    name: str
    choices: int
    skipped: int
    agreement: float
    alpha: float
    alpha_ci95: tuple[float, float]
    left: float
    left_ci95: tuple[float, float]
    consistent: float
    consistent_ci95: tuple[float, float]
    repeats: int
    seconds: float
    suspicions: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelReport:
    """What a file of labels says of those who made it.

    Args:
        mode: of the page.
        choices: that stand, of all.
        shared: values (an item, a pair of a ranking, an aspect of a rating) that two people or more gave.
        alpha: Krippendorff's, of everybody.
        alpha_ci95: over prompts.
        people: one report each, by name.
        pairs: for each two people, how many values they share, the share of the same, and their alpha.
    """

    mode: str
    choices: int
    shared: int
    alpha: float
    alpha_ci95: tuple[float, float]
    people: tuple[AnnotatorReport, ...]
    pairs: Mapping[tuple[str, str], tuple[int, float, float]]


def report_annotators(choices: Sequence[Row], mode: str, *, resamples: int = 1_000) -> LabelReport:
    """Look over what several people said of the same.

    An item's first showing counts for agreement, its second for consistency alone. Of a ranking every two samples are a
    value, of a rating every aspect, whose scores are in an order. Which sample of a pair is called the first follows
    from a hash, so that names of files do not make one verdict more frequent than the other.

    Args:
        choices: rows that stand, as ``read_labels`` gives them.
        mode: of the page.
        resamples: of the bootstrap.
    """
    metric: Metric = "ordinal" if mode == "rating" else "nominal"
    said: dict[Hashable, dict[str, Any]] = defaultdict(dict)
    prompts: dict[Hashable, str] = {}
    for row in choices:
        if not row.get("repeat"):
            for unit, value in values_of(row):
                said[unit][row["annotator"]] = value
                prompts[unit] = row["prompt"]
    groups = [prompts[unit] for unit in said]
    units = [list(found.values()) for found in said.values()]
    names = sorted({row["annotator"] for row in choices})
    medians = {name: _median_s(choices, name) for name in names}
    pairs = {}
    for a, b in combinations(names, 2):
        both = [[found[a], found[b]] for found in said.values() if a in found and b in found]
        same = sum(x == y for x, y in both) / len(both) if both else math.nan
        pairs[a, b] = (len(both), same, krippendorff_alpha(both, metric=metric))
    people = [
        _report(name, choices, said, groups, metric, medians=medians, resamples=resamples) for name in names
    ]
    return LabelReport(
        mode=mode,
        choices=len(choices),
        shared=sum(len(unit) > 1 for unit in units),
        alpha=krippendorff_alpha(units, metric=metric),
        alpha_ci95=alpha_interval(units, groups, metric=metric, resamples=resamples),
        people=tuple(people),
        pairs=pairs,
    )


def values_of(row: Row) -> list[tuple[Hashable, Any]]:
    """What a label says, as (what it is about, value); nothing where it was skipped."""
    said, item = choice_of(row), row["item"]
    if said is None:
        return []
    match row["mode"]:
        case "pairs":
            return [(item, _turned(said, row["shown"], item))]
        case "ranking":
            return [
                ((item, a, b), _turned(a if p < q else b if q < p else "tie", (a, b), f"{item}{a}{b}"))
                for (a, p), (b, q) in combinations(said, 2)
            ]
        case "rating":
            return [((item, aspect), score) for aspect, score in said]
        case _:
            return [(item, said)]


def _turned(said: str, files: Sequence[str], name: str) -> str:
    """ "first" or "second" for a file, by an order of two that is as good as drawn; other verdicts as they are."""
    if said not in files:
        return said
    order = sorted(files, reverse=hashlib.sha256(name.encode()).digest()[0] % 2 == 1)
    return ("first", "second")[order.index(said)]


def _report(
    name: str,
    choices: Sequence[Row],
    said: Mapping[Hashable, Mapping[str, Any]],
    groups: Sequence[str],
    metric: Metric,
    *,
    medians: Mapping[str, float],
    resamples: int,
) -> AnnotatorReport:
    mine = [row for row in choices if row["annotator"] == name]
    alike = [
        found[name] == value
        for found in said.values()
        if name in found
        for other, value in found.items()
        if other != name
    ]
    alpha, interval = alpha_with_others(name, list(said.values()), groups, metric=metric, resamples=resamples)
    others = [[v for who, v in found.items() if who != name] for found in said.values()]
    firsts = [first for row in mine for first in _first_is_better(row)]
    again = _repeated(mine)
    left, left_interval = _share(firsts)
    consistent, consistent_interval = _share(again)
    suspicions = []
    if left_interval[0] > SIDE_BEYOND or left_interval[1] < 1 - SIDE_BEYOND:
        suspicions.append(f"takes what is shown first in {left:.0%} of {len(firsts)} decisions")
    if consistent_interval[1] < CONSISTENT_BELOW:
        suspicions.append(f"answers {consistent:.0%} of {len(again)} repeated items alike")
    among_others = krippendorff_alpha(others, metric=metric)
    if interval[1] < ALPHA_BELOW * among_others:
        suspicions.append(f"alpha {alpha:.2f} with the others, who have {among_others:.2f} among themselves")
    rest = [seconds for who, seconds in medians.items() if who != name and not math.isnan(seconds)]
    if rest and medians[name] < FAST_BELOW * float(np.median(rest)):
        suspicions.append(f"takes {medians[name]:.1f} s for an item, others {float(np.median(rest)):.1f} s")
    return AnnotatorReport(
        name=name,
        choices=len(mine),
        skipped=sum(bool(row.get("skipped")) for row in mine),
        agreement=sum(alike) / len(alike) if alike else math.nan,
        alpha=alpha,
        alpha_ci95=interval,
        left=left,
        left_ci95=left_interval,
        consistent=consistent,
        consistent_ci95=consistent_interval,
        repeats=len(again),
        seconds=medians[name],
        suspicions=tuple(suspicions),
    )


def alpha_with_others(
    name: str,
    said: Sequence[Mapping[str, Any]],
    groups: Sequence[Hashable],
    *,
    metric: Metric,
    resamples: int = 1_000,
) -> tuple[float, tuple[float, float]]:
    """One person's agreement with the others beyond chance, and its interval over groups.

        1 - (mean distance of this person's values and those that others gave to the same) / D_e of everybody

    The mean over people, each weighted by their comparisons, is close to Krippendorff's alpha.

    Args:
        name: who.
        said: for each unit, the value of each person.
        groups: one for each unit.
        metric: of the distance.
        resamples: of the bootstrap.

    Returns:
        At most 1; NaN where nobody else judged the same, or nothing varies.
    """
    values, coincidences = coincidences_of([list(found.values()) for found in said])
    counts = coincidences.sum((0, 1))
    n, distances = counts.sum(), squared_distances(values, coincidences.sum((0, 1)), metric)
    expected = float((np.outer(counts, counts) * distances).sum() / max(n * (n - 1), 1))
    place = {value: i for i, value in enumerate(values)}
    sums, compared = np.zeros(len(said)), np.zeros(len(said))
    for i, found in enumerate(said):
        for other, value in found.items() if name in found else ():
            if other != name:
                sums[i] += distances[place[found[name]], place[value]]
                compared[i] += 1

    def alpha(rows: Any) -> float:
        total = compared[rows].sum()
        return float(1 - sums[rows].sum() / total / expected) if total and expected else math.nan

    everything = np.arange(len(said))
    return alpha(everything), bootstrap_interval(alpha, groups, resamples=resamples)


def _first_is_better(row: Row) -> list[bool]:
    """For each decision that a label holds, whether it was for what was shown further left."""
    if row.get("skipped"):
        return []
    if row["mode"] == "pairs":
        return [row["choice"] == "left"] if row["choice"] in ("left", "right") else []
    if row["mode"] == "ranking":
        return [a < b for a, b in combinations(row["ranks"], 2) if a != b]
    return []


def _repeated(mine: Sequence[Row]) -> list[bool]:
    """For each item that was answered twice, whether alike."""
    first = {row["item"]: choice_of(row) for row in mine if not row.get("repeat")}
    found = []
    for row in mine:
        if row.get("repeat") and row["item"] in first:
            before, now = first[row["item"]], choice_of(row)
            if before is not None and now is not None:
                found.append(before == now)
    return found


def _median_s(choices: Sequence[Row], name: str) -> float:
    found = [row["seconds"] for row in choices if row["annotator"] == name and row.get("seconds") is not None]
    return float(np.median(found)) if found else math.nan


def _share(outcomes: Sequence[bool]) -> tuple[float, tuple[float, float]]:
    """A share and Wilson's 95 % interval, which is inside [0, 1] for small numbers too."""
    n = len(outcomes)
    if not n:
        return math.nan, (math.nan, math.nan)
    return sum(outcomes) / n, wilson_interval(sum(outcomes), n)


def wilson_interval(successes: int, n: int, *, z: float = 1.96) -> tuple[float, float]:
    """The interval of a share.

        (p + z^2 / 2n  -+  z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n),   p = successes / n

    Args:
        successes: of ``n``.
        n: at least 1.
        z: quantile of the normal distribution; 1.96 for 95 %.

    Source: Wilson 1927, Probable Inference, the Law of Succession, and Statistical Inference.

    >>> [round(end, 3) for end in wilson_interval(5, 10)]
    [0.237, 0.763]
    """
    p = successes / n
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)
