"""Judges that write their answer, which is then read strictly: levels in words, numbers, a critique before a score."""

import math
from collections.abc import Sequence
from typing import Any

import torch

from mmalign.media import Sample
from mmalign.rewards import vlm_questions as questions
from mmalign.rewards.base import OK, Score
from mmalign.rewards.cards import RewardCard
from mmalign.rewards.vlm import JUDGE_OPTIONS, _media, fill, judge_of, objections
from mmalign.rewards.vlm_judge import Question
from mmalign.rewards.vlm_parsing import parse_likert, parse_number
from mmalign.rewards.vlm_questions import LIKERT_WORDS, Scale


class WrittenReward:
    """Scores by what the judge writes; a kind of it says how an answer is read. ``Score.text`` has the answers.

    An answer that cannot be read gets a status that quotes it, and no score.

    Args:
        card: its weights are the judge's, unless ``endpoint`` is among its options.
        question: the template that is asked.
        max_new_tokens: after which the judge is cut off.
        device: where the judge runs.
        options: of :func:`mmalign.rewards.vlm.judge_of`.
    """

    takes_options_of = JUDGE_OPTIONS

    def __init__(
        self, card: RewardCard, *, question: str, max_new_tokens: int, device: str = "cpu", **options: Any
    ) -> None:
        self.card, self.question, self.max_new_tokens = card, question, max_new_tokens
        self.judge = judge_of(card, device=device, **options)

    def text(self, sample: Sample) -> str:
        """What is asked about a sample."""
        return fill(self.question, sample)

    def read(self, answer: str) -> float | None:
        """The score that an answer states, None where it states none."""
        raise NotImplementedError

    def score(self, samples: Sequence[Sample]) -> Score:
        """One score per sample, and the answer that it was read from."""
        status = objections(samples, self.card, self.judge)
        rows = [i for i, entry in enumerate(status) if entry == OK]
        asked = [Question(_media(samples[i]), self.text(samples[i])) for i in rows]
        values, texts = [math.nan] * len(samples), [""] * len(samples)
        for i, written in zip(rows, self.judge.write(asked, max_new_tokens=self.max_new_tokens), strict=True):
            status[i], texts[i] = written.status, written.text
            value = self.read(written.text) if written.status == OK else None
            if value is not None:
                values[i] = value
            elif status[i] == OK:
                status[i] = unread(written.text)
        return Score(torch.tensor(values), status, text=texts)


def unread(answer: str) -> str:
    """The status of an answer that says no one thing plainly, with its end, where scores stand.

    >>> unread("It is nice.")
    "no score in the judge's answer: 'It is nice.'"
    """
    answer = " ".join(answer.split())
    return f"no score in the judge's answer: {('…' + answer[-60:]) if len(answer) > 60 else answer!r}"


class LikertJudge(WrittenReward):
    """A level that the judge names in words, from 1 for the worst.

    Range: [1, 5], higher is better; whole numbers, so expect ties. Words gave steadier judgements than numbers in the
    source.

    Source: Chen et al. 2024, MJ-Bench (arXiv:2407.04842).

    Args:
        card: as in :class:`WrittenReward`.
        question: may hold ``{prompt}``, ``{medium}`` and ``{words}``.
        words: the levels, from worst to best.
        max_new_tokens: after which the judge is cut off.
        options: of :class:`WrittenReward`.
    """

    def __init__(
        self,
        card: RewardCard,
        *,
        question: str = questions.LIKERT,
        words: Sequence[str] = LIKERT_WORDS,
        max_new_tokens: int = 16,
        **options: Any,
    ) -> None:
        super().__init__(card, question=question, max_new_tokens=max_new_tokens, **options)
        self.words = tuple(words)

    def text(self, sample: Sample) -> str:
        """What is asked about a sample."""
        return fill(self.question, sample, words=", ".join(self.words))

    def read(self, answer: str) -> float | None:
        """The level named, from 1."""
        level = parse_likert(answer, self.words)
        return None if level is None else float(level)


class NumericJudge(WrittenReward):
    """A number that the judge writes, such as 1 to 5 or 1 to 10.

    Range: [low, high], higher is better; mostly whole numbers, so expect ties.

    Args:
        card: as in :class:`WrittenReward`.
        question: may hold ``{prompt}``, ``{medium}``, ``{low}`` and ``{high}``.
        low: the worst.
        high: the best.
        max_new_tokens: after which the judge is cut off.
        options: of :class:`WrittenReward`.
    """

    def __init__(
        self,
        card: RewardCard,
        *,
        question: str = questions.NUMBER,
        low: int = 1,
        high: int = 5,
        max_new_tokens: int = 16,
        **options: Any,
    ) -> None:
        self.scale = Scale(low, high)
        super().__init__(card, question=question, max_new_tokens=max_new_tokens, **options)

    def text(self, sample: Sample) -> str:
        """What is asked about a sample."""
        return fill(self.question, sample, low=self.scale.low, high=self.scale.high)

    def read(self, answer: str) -> float | None:
        """The number stated."""
        return parse_number(answer, self.scale)


class CritiqueJudge(NumericJudge):
    """A number that the judge writes after it has said what it sees; ``Score.text`` is the critique.

    Range: [low, high], higher is better.

    Args:
        card: as in :class:`WrittenReward`.
        question: as in :class:`NumericJudge`; it asks for the critique first and for the number after "score: ".
        max_new_tokens: enough for the critique; one that is cut off before its score has a status.
        options: of :class:`NumericJudge`.
    """

    def __init__(
        self,
        card: RewardCard,
        *,
        question: str = questions.CRITIQUE,
        max_new_tokens: int = 256,
        **options: Any,
    ) -> None:
        super().__init__(card, question=question, max_new_tokens=max_new_tokens, **options)
