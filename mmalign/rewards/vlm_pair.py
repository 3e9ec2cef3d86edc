"""Judges that compare two media, each pair in both orders, so that which one comes first does not matter."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from mmalign.errors import ShapeError
from mmalign.media import Sample
from mmalign.rewards import vlm_questions as questions
from mmalign.rewards.base import OK, Score, scatter
from mmalign.rewards.cards import RewardCard
from mmalign.rewards.pairwise import Preference
from mmalign.rewards.vlm import JUDGE_OPTIONS, LEAST_MASS, _media, faults, fill, judge_of, objections
from mmalign.rewards.vlm_judge import Question, Words
from mmalign.rewards.vlm_parsing import parse_verdict
from mmalign.rewards.vlm_scores import debias_pair, settle
from mmalign.rewards.vlm_written import unread

VERDICTS: Words = (("1",), ("2",), ("0",))
"""First, second, neither."""


class _PairJudge:
    """What both kinds share: pairs with their obstacles, and a score against a reference."""

    takes_options_of = JUDGE_OPTIONS

    def __init__(
        self, card: RewardCard, *, goal: str | None = None, device: str = "cpu", **options: Any
    ) -> None:
        self.card, self.goal = card, goal
        self.judge = judge_of(card, device=device, **options)

    def compare(self, first: Sequence[Sample], second: Sequence[Sample]) -> Preference:
        """One preference per pair."""
        raise NotImplementedError

    def score(self, samples: Sequence[Sample]) -> Score:
        """Probability that each sample beats the medium in its context ``reference``, a tie counting one half."""
        status = objections(samples, self.card, self.judge)
        rows = [i for i, entry in enumerate(status) if entry == OK]
        mine, theirs = [], []
        for i in rows:
            reference = samples[i].context["reference"]
            if isinstance(reference, str):
                status[i] = "the reference is text, not a medium"
            else:
                mine.append(samples[i])
                theirs.append(replace(samples[i], media=reference))
        preference = self.compare(mine, theirs)
        verdicts = iter(preference.status)
        status = [next(verdicts) if entry == OK else entry for entry in status]
        ok = ~torch.isnan(preference.first)
        return scatter(status, preference.wins[ok], {"tie": preference.tie[ok]})

    def _pairs(self, first: Sequence[Sample], second: Sequence[Sample]) -> list[str]:
        """B times "ok", or why a pair cannot be compared."""
        if len(first) != len(second):
            raise ShapeError(
                f"second: expected {len(first)} samples, one for each of the first, got {len(second)}"
            )
        card = replace(self.card, needs=tuple(need for need in self.card.needs if need != "reference"))
        if self.goal is not None:
            card = replace(card, needs=tuple(need for need in card.needs if need != "prompt"))
        status = []
        sides = (objections(side, card, self.judge) for side in (first, second))
        for a, b, one, other in zip(first, second, *sides, strict=True):
            if one == OK and other == OK and self.goal is None and a.prompt != b.prompt:
                one = "the two have different prompts"
            status.append(f"first: {one}" if one != OK else f"second: {other}" if other != OK else OK)
        return status

    def _asked(self, template: str, first: Sample, second: Sample, **values: object) -> list[Question]:
        """The question in both orders."""
        shown = first if self.goal is None else replace(first, prompt=self.goal)
        text = fill(template, shown, **values)
        return [Question((*_media(a), *_media(b)), text) for a, b in ((first, second), (second, first))]


class PairJudge(_PairJudge):
    """Which of two media shows a prompt better, by the probabilities of the judge's verdict in both orders.

        p = softmax over the log-probabilities of 1, 2, 0;   P(first) = (p_1 of (a, b) + p_2 of (b, a)) / 2,   and so on

    Exchanging a and b exchanges the sides exactly. ``agreed`` says whether both orders prefer the same.

    Source: the two orders are those of Zheng et al. 2023 (arXiv:2306.05685), section 3.4, as probabilities.

    Args:
        card: its weights are the judge's, unless ``endpoint`` is among its options.
        question: may hold ``{prompt}`` and ``{medium}``; answered by 1, 2 or 0.
        goal: judges every pair by this text instead of its prompt, which may then differ or be missing.
        least_mass: what the three verdicts have to hold together of all probability.
        options: ``device``, and those of :func:`mmalign.rewards.vlm.judge_of`.
    """

    def __init__(
        self,
        card: RewardCard,
        *,
        question: str = questions.PAIR,
        goal: str | None = None,
        least_mass: float = LEAST_MASS,
        **options: Any,
    ) -> None:
        super().__init__(card, goal=goal, **options)
        self.question, self.least_mass = question, least_mass

    @torch.no_grad()
    def compare(self, first: Sequence[Sample], second: Sequence[Sample]) -> Preference:
        """One preference per pair."""
        status = self._pairs(first, second)
        rows = [i for i, entry in enumerate(status) if entry == OK]
        asked = [q for i in rows for q in self._asked(self.question, first[i], second[i])]
        choices = self.judge.choices(asked, VERDICTS)
        for n, fault in enumerate(faults(choices, VERDICTS, self.least_mass)):
            if fault != OK and status[rows[n // 2]] == OK:
                status[rows[n // 2]] = fault
        p = choices.log_prob.float().cpu().softmax(-1).reshape(len(rows), 2, 3)
        mean, agreed = debias_pair(p[:, 0], p[:, 1])
        return _preference(status, rows, mean, agreed)


class GoalJudge(_PairJudge):
    """Which of two media is nearer to a goal, by a judge that first describes both, then decides from its own words.

    Both stages run in both orders; a pair whose orders disagree is a tie, and so is one that the judge calls undecided.
    An answer without a verdict is a status. Keep ties out of a loss over hard labels, as the source does.

    Source: Wang et al. 2024, RL-VLM-F (arXiv:2402.03681), section 4.2; the second order is ours.

    Args:
        card: its weights are the judge's, unless ``endpoint`` is among its options.
        goal: the text that pairs are judged by; None for each pair's prompt.
        analysis: the first question, with the media.
        verdict: the second, in words only; may hold ``{analysis}``, ``{prompt}`` and ``{medium}``.
        analysis_tokens: after which the description is cut off.
        verdict_tokens: after which the verdict is.
        options: ``device``, and those of :func:`mmalign.rewards.vlm.judge_of`.
    """

    def __init__(
        self,
        card: RewardCard,
        *,
        goal: str | None = None,
        analysis: str = questions.ANALYSIS,
        verdict: str = questions.VERDICT,
        analysis_tokens: int = 256,
        verdict_tokens: int = 8,
        **options: Any,
    ) -> None:
        super().__init__(card, goal=goal, **options)
        self.analysis, self.verdict = analysis, verdict
        self.analysis_tokens, self.verdict_tokens = analysis_tokens, verdict_tokens

    def compare(self, first: Sequence[Sample], second: Sequence[Sample]) -> Preference:
        """One preference per pair, 0 or 1, with the analysis of the first order as text."""
        status = self._pairs(first, second)
        rows = [i for i, entry in enumerate(status) if entry == OK]
        asked = [q for i in rows for q in self._asked(self.analysis, first[i], second[i])]
        told = self.judge.write(asked, max_new_tokens=self.analysis_tokens)
        again = [
            replace(
                self._asked(self.verdict, first[i], second[i], analysis=told[2 * n + side].text)[side],
                media=(),
            )
            for n, i in enumerate(rows)
            for side in (0, 1)
        ]
        said = self.judge.write(again, max_new_tokens=self.verdict_tokens)
        verdicts, texts = [], [""] * len(status)
        for n, (analysis, verdict) in enumerate(zip(told, said, strict=True)):
            found = parse_verdict(verdict.text) if analysis.status == verdict.status == OK else None
            failed = [entry for entry in (analysis.status, verdict.status) if entry != OK]
            if found is None and status[rows[n // 2]] == OK:
                status[rows[n // 2]] = failed[0] if failed else unread(verdict.text)
            verdicts.append(2 if found is None else found)
            if n % 2 == 0:
                texts[rows[n // 2]] = analysis.text
        both = torch.tensor(verdicts, dtype=torch.long).reshape(-1, 2)
        settled = torch.nn.functional.one_hot(settle(both[:, 0], both[:, 1]), 3).float()
        agreed = both[:, 0] == torch.tensor([1, 0, 2])[both[:, 1]]
        return replace(_preference(status, rows, settled, agreed), text=texts)


def _preference(status: list[str], rows: Sequence[int], mean: Tensor, agreed: Tensor) -> Preference:
    """Of all pairs, from the probabilities [n, 3] of those that were judged."""
    first, tie = torch.full((2, len(status)), math.nan)
    both = torch.zeros(len(status), dtype=torch.bool)
    for n, i in enumerate(rows):
        if status[i] == OK:
            first[i], tie[i], both[i] = mean[n, 0], mean[n, 2], agreed[n]
    return Preference(first, tie, status, agreed=both)
