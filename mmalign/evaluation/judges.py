"""Judges a reward: how often it agrees with people, how sure it may be, and what else it goes by."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmalign.errors import MmalignError
from mmalign.evaluation.agreement import (
    accuracy_with_ties,
    accuracy_without_ties,
    bias_accuracy,
    bootstrap_interval,
    correlation_within,
    fitted_temperature,
    gini_equality,
    normalised_dispersion,
    pair_calibration_error,
    section_score,
)
from mmalign.evaluation.judge_data import JudgeData
from mmalign.evaluation.verdicts import COVARIATES, Verdicts, compare_sides, score_sides, score_singles
from mmalign.rewards.base import Reward
from mmalign.rewards.pairwise import PairReward

Rows: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Measure:
    """One number about a judge, with its interval over prompts (or, of bias, over occupations)."""

    name: str
    value: float
    ci95: tuple[float, float]
    n: int
    """Pairs or pictures that entered."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """What is known of a judge after a benchmark."""

    reward: str
    layout: str
    pairs: int
    judged: int
    """Pairs that have a verdict; a pair that failed is neither right nor wrong, and enters nothing."""
    failures: tuple[str, ...]
    """Why pairs or pictures failed, each reason once."""
    measures: tuple[Measure, ...]


def judge(
    reward: Reward | PairReward,
    data: JudgeData,
    *,
    threshold: float = 0.0,
    batch_size: int = 32,
    resamples: int = 1_000,
    seed: int = 0,
) -> Judgement:
    """Judge a reward on pairs that people decided.

    Args:
        reward: of single samples, or of pairs, which is asked in both orders.
        data: the benchmark.
        threshold: the difference of scores, in their unit, up to which MJ-Bench's protocol sees a tie.
        batch_size: samples, or pairs, per call of the reward.
        resamples: of the intervals.
        seed: of the same.

    Returns:
        Accuracies (all, by aspect, by perspective or section and by subset), calibration, correlations with what should
        not matter, the consistency of the order for a judge of pairs, and MJ-Bench's measures of bias. The human label
        of an aspect is compared with the reward's aspect of that name where it has one, else with its score.

    Raises:
        MmalignError: not one pair has a verdict.
    """
    whole = isinstance(reward, PairReward)
    if isinstance(reward, PairReward):
        verdicts = compare_sides(reward, data.cases, batch_size=batch_size)
    else:
        verdicts = score_sides(reward, data.cases, batch_size=batch_size)
    if len(data.cases) and not verdicts.judged.any():
        raise MmalignError(
            f"none of the {len(data.cases)} pairs has a verdict by '{reward.card.name}': {verdicts.failures[0]}"
        )
    board = _Board(verdicts, resamples=resamples, seed=seed)
    measures = [*board.accuracies(), *board.calibration(known=whole), *board.parts(data.layout, threshold)]
    measures += board.order() if whole else board.biases()
    failures = list(verdicts.failures)
    if data.singles and not isinstance(reward, PairReward):
        found, more = _demographic_bias(reward, data, batch_size=batch_size, resamples=resamples, seed=seed)
        measures += found
        failures += more
    return Judgement(
        reward=reward.card.name,
        layout=data.layout,
        pairs=len(data.cases),
        judged=int(verdicts.judged.sum()),
        failures=tuple(dict.fromkeys(failures)),
        measures=tuple(measures),
    )


class _Board:
    """The verdicts that there are, and the numbers that are read from them."""

    def __init__(self, verdicts: Verdicts, *, resamples: int, seed: int) -> None:
        kept = np.flatnonzero(verdicts.judged)
        self.cases = [verdicts.cases[i] for i in kept]
        self.margin, self.agreed = verdicts.margin[kept], verdicts.agreed[kept]
        self.covariates = {name: values[kept] for name, values in verdicts.covariates.items()}
        self.human = np.array([case.human for case in self.cases], dtype=np.float64)
        self.prompts = [case.prompt for case in self.cases]
        self.resamples, self.seed = resamples, seed

    def measure(self, name: str, statistic: Callable[[Rows], float], rows: Rows) -> list[Measure]:
        """A number over some rows with its interval; none where it is not defined."""
        value = statistic(rows) if len(rows) else float("nan")
        if np.isnan(value):
            return []
        interval = bootstrap_interval(
            lambda drawn: statistic(rows[drawn]),
            [self.prompts[i] for i in rows],
            resamples=self.resamples,
            seed=self.seed,
        )
        return [Measure(name=name, value=float(value), ci95=interval, n=len(rows))]

    def accuracies(self) -> list[Measure]:
        """Of all pairs, and of each aspect that people judged apart."""
        measures = self._accuracies("accuracy", np.arange(len(self.cases)))
        aspects = dict.fromkeys(case.aspect for case in self.cases)
        if len(aspects) > 1:
            for aspect in aspects:
                rows = self._where(lambda case, aspect=aspect: case.aspect == aspect)
                measures += self._accuracies(f"accuracy, {aspect or 'overall'}", rows)
        return measures

    def _accuracies(self, name: str, rows: Rows) -> list[Measure]:
        def without(r: Rows) -> float:
            return accuracy_without_ties(self.human[r], self.margin[r])

        measures = self.measure(name, without, rows[self.human[rows] != 0])
        if (self.human[rows] == 0).any():
            _, width = accuracy_with_ties(self.human[rows], self.margin[rows])

            def with_ties(r: Rows) -> float:
                said = np.where(np.abs(self.margin[r]) <= width, 0, np.sign(self.margin[r]))
                return float((said == self.human[r]).mean())

            measures += self.measure(f"{name}, with ties (|margin| <= {width:.4g})", with_ties, rows)
        return measures

    def calibration(self, *, known: bool) -> list[Measure]:
        """ECE; the temperature of scores is fitted on one half of the prompts and used on the other, and back."""
        rows = np.flatnonzero(self.human != 0)
        scaled = self.margin.copy()
        if not known:
            names = {prompt: i for i, prompt in enumerate(dict.fromkeys(self.prompts))}
            half = np.array([names[prompt] % 2 for prompt in self.prompts], dtype=np.int64)
            for mine in (0, 1):
                other = rows[half[rows] != mine]
                scaled[half == mine] /= fitted_temperature(self.margin[other], self.human[other])
        rows = rows[~np.isnan(scaled[rows])]
        right = np.sign(self.margin) == self.human
        return self.measure(
            "calibration error (ECE)", lambda r: pair_calibration_error(scaled[r], right[r]), rows
        )

    def parts(self, layout: str, threshold: float) -> list[Measure]:
        """By MJ-Bench's perspectives, or RewardBench's sections, and their subsets."""
        if layout == "mj-bench":
            return self._perspectives(threshold)
        return self._sections() if layout == "rewardbench" else []

    def _perspectives(self, threshold: float) -> list[Measure]:
        said = np.where(np.abs(self.margin) <= threshold, 0, np.sign(self.margin))
        right = (said == self.human).astype(np.float64)
        measures = []
        for part in dict.fromkeys(case.part for case in self.cases):
            rows = self._where(lambda case, part=part: case.part == part)
            title = part or "all"
            measures += self.measure(f"{title}, ties wrong", lambda r: float(right[r].mean()), rows)
            decided = rows[said[rows] != 0]
            measures += self.measure(f"{title}, ties left out", lambda r: float(right[r].mean()), decided)
            for subset in dict.fromkeys(self.cases[i].subset for i in rows):
                if subset is not None:
                    some = rows[[self.cases[i].subset == subset for i in rows]]
                    measures += self.measure(f"{title}: {subset}", lambda r: float(right[r].mean()), some)
        return measures

    def _sections(self) -> list[Measure]:
        right = (np.sign(self.margin) == self.human).astype(np.float64)
        measures: list[Measure] = []
        sections = dict.fromkeys(case.part or "all" for case in self.cases)

        def section(name: str, r: Rows) -> float:
            mine = [i for i in r if (self.cases[i].part or "all") == name]
            parts: dict[str, list[float]] = {}
            for i in mine:
                parts.setdefault(self.cases[i].subset or "", []).append(float(right[i]))
            means = {subset: sum(values) / len(values) for subset, values in parts.items()}
            return section_score(means, {subset: len(values) for subset, values in parts.items()})

        every = np.arange(len(self.cases))
        for subset in dict.fromkeys(case.subset for case in self.cases):
            rows = self._where(lambda case, subset=subset: case.subset == subset)
            measures += self.measure(f"subset {subset}", lambda r: float(right[r].mean()), rows)
        for name in sections:
            rows = self._where(lambda case, name=name: (case.part or "all") == name)
            measures += self.measure(f"section {name}", lambda r, name=name: section(name, r), rows)  # type: ignore[misc]
        overall = self.measure(
            "mean of the sections",
            lambda r: float(np.nanmean([section(name, r) for name in sections])),
            every,
        )
        return measures + (overall if len(sections) > 1 else [])

    def biases(self) -> list[Measure]:
        """Correlation inside prompts with what should not matter, and how far that alone would come."""
        measures: list[Measure] = []
        n = len(self.cases)
        for name in COVARIATES:
            sides = self.covariates[name]
            rows = np.flatnonzero(~np.isnan(sides).any(1) & (sides[:, 0] != sides[:, 1]))
            if not len(rows):
                continue
            scores = np.stack([self.margin, np.zeros(n)], 1)  # only differences inside a pair count

            def correlation(
                r: Rows, sides: NDArray[np.float64] = sides, scores: NDArray[np.float64] = scores
            ) -> float:
                pairs = [group for k in range(len(r)) for group in (k, k)]
                return correlation_within(scores[r].ravel(), sides[r].ravel(), pairs)

            def alone(r: Rows, sides: NDArray[np.float64] = sides) -> float:
                return accuracy_without_ties(self.human[r], sides[r, 0] - sides[r, 1])

            measures += self.measure(f"correlation with {name}", correlation, rows)
            measures += self.measure(f"accuracy of {name} alone", alone, rows[self.human[rows] != 0])
        return measures

    def order(self) -> list[Measure]:
        """Share of the pairs that a judge decides alike in both orders."""
        return self.measure(
            "order consistency", lambda r: float(self.agreed[r].mean()), np.arange(len(self.cases))
        )

    def _where(self, test: Callable[..., bool]) -> Rows:
        return np.array([i for i, case in enumerate(self.cases) if test(case)], dtype=np.int64)


def _demographic_bias(
    reward: Reward, data: JudgeData, *, batch_size: int, resamples: int, seed: int
) -> tuple[list[Measure], tuple[str, ...]]:
    """MJ-Bench's ACC, NDS and GES, each the mean over occupations."""
    scores, failures = score_singles(reward, data.singles, batch_size=batch_size)
    occupations = list(dict.fromkeys(single.occupation for single in data.singles))
    groups = [
        np.array(
            [s for s, one in zip(scores, data.singles, strict=True) if one.occupation == name and s == s]
        )
        for name in occupations
    ]
    kept = [(name, group) for name, group in zip(occupations, groups, strict=True) if len(group) > 1]
    low, high = reward.card.range or (0.0, 1.0)
    measures = []
    kinds: list[tuple[str, Literal["raw", "positive"], Callable[[NDArray[np.float64]], float]]] = [
        ("bias: ACC", "raw", bias_accuracy),
        ("bias: NDS", "positive", normalised_dispersion),
        ("bias: GES", "positive", gini_equality),
    ]
    for name, scale, statistic in kinds:
        # NDS and GES depend on the zero of the scale: a stated range is mapped to [0, 1] for them.
        values = np.array(
            [statistic(group if scale == "raw" else (group - low) / (high - low)) for _, group in kept]
        )
        if not len(values) or np.isnan(values).any():
            continue
        interval = bootstrap_interval(
            lambda r, values=values: float(values[r].mean()),  # type: ignore[misc]
            [occupation for occupation, _ in kept],
            resamples=resamples,
            seed=seed,
        )
        count = sum(len(group) for _, group in kept)
        measures.append(Measure(name=name, value=float(values.mean()), ci95=interval, n=count))
    return measures, failures


def rows_of(judgement: Judgement) -> Sequence[dict[str, str | float | int | None]]:
    """A table of the measures, for people."""
    return [
        {
            "measure": measure.name,
            "value": measure.value,
            "low": None if np.isnan(measure.ci95[0]) else measure.ci95[0],
            "high": None if np.isnan(measure.ci95[1]) else measure.ci95[1],
            "n": measure.n,
        }
        for measure in judgement.measures
    ]
