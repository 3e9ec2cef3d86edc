"""Judges that score one medium by how probable their answer is: yes or no, and digits."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from mmalign.errors import ConfigError, ShapeError
from mmalign.media import Image, Sample, Scene3D
from mmalign.rewards import vlm_questions as questions
from mmalign.rewards.base import OK, Score, obstacle, scatter
from mmalign.rewards.cards import RewardCard
from mmalign.rewards.vlm_endpoint import ChatEndpoint
from mmalign.rewards.vlm_judge import Choices, Judge, Question, Words
from mmalign.rewards.vlm_model import LocalJudge, load_judge
from mmalign.rewards.vlm_questions import Scale, ask
from mmalign.rewards.vlm_scores import mass, ordinal_expectation, yes_probability

YES_NO: Words = (("Yes",), ("No",))
LEAST_MASS = 0.5
"""Of all probability, what the expected answers have to hold together; below, the judge is saying something else."""


def judge_of(
    card: RewardCard,
    *,
    device: str,
    judge: Judge | None = None,
    endpoint: dict[str, Any] | None = None,
    **options: Any,
) -> Judge:
    """The judge that a card's options name: the one given, an endpoint's, or the card's own weights.

    Raises:
        ConfigError: an endpoint on a differentiable card, or the weights cannot be loaded.
    """
    if judge is not None:
        return judge
    if endpoint is None:
        return load_judge(card, device=device, **options)
    if card.differentiable:
        raise ConfigError(
            f"reward '{card.name}': no gradient comes through an endpoint; set differentiable: false"
        )
    return ChatEndpoint(**endpoint, **options)


JUDGE_OPTIONS = (judge_of, load_judge, LocalJudge)
"""Whose options a judge's card may have, beside those of its own kind."""


def objections(samples: Sequence[Sample], card: RewardCard, judge: Judge) -> list[str]:
    """B times "ok", or why this judge cannot be asked about a sample."""
    found = []
    for sample in samples:
        entry = obstacle(sample, card)
        if entry == OK and isinstance(sample.media, Scene3D) and sample.media.views is None:
            entry = "a scene without views; render some of its mesh"
        found.append(judge.objection(sample.prompt) if entry == OK else entry)
    return found


def fill(template: str, sample: Sample, **values: object) -> str:
    """A question about one sample's medium and prompt."""
    medium = "picture" if sample.media is None else questions.MEDIUM_NAMES[sample.media.modality]
    return ask(template, prompt=sample.prompt, medium=medium, **values)


class ChoiceReward:
    """Scores by the probabilities of a few answers to one question; a kind of it says which, and what they are worth.

    Args:
        card: its weights are the judge's, unless ``endpoint`` is among its options.
        words: K answers.
        question: the template that is asked.
        device: where the judge runs.
        exact: answers only as they are spelt.
        least_mass: below it the sample has a status and no score.
        options: of :func:`judge_of`.
    """

    takes_options_of = JUDGE_OPTIONS

    def __init__(
        self,
        card: RewardCard,
        *,
        words: Words,
        question: str,
        device: str = "cpu",
        exact: bool = False,
        least_mass: float = LEAST_MASS,
        **options: Any,
    ) -> None:
        self.card, self.words, self.question = card, words, question
        self.exact, self.least_mass = exact, least_mass
        self.judge = judge_of(card, device=device, **options)
        if card.differentiable:  # only what is declared can be differentiated
            self.score_with_grad: Callable[[Tensor, Sequence[Sample]], Tensor] = self._score_with_grad

    def value(self, log_prob: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Scores [n] and aspects [n] of the answers' log-probabilities [n, K]."""
        raise NotImplementedError

    def text(self, sample: Sample) -> str:
        """What is asked about a sample."""
        return fill(self.question, sample)

    @torch.no_grad()
    def score(self, samples: Sequence[Sample]) -> Score:
        """One score per sample; one whose judge says something else than the answers has a status."""
        status = objections(samples, self.card, self.judge)
        rows = [i for i, entry in enumerate(status) if entry == OK]
        asked = [Question(_media(samples[i]), self.text(samples[i])) for i in rows]
        choices = self.judge.choices(asked, self.words, exact=self.exact)
        good = []
        for n, (i, fault) in enumerate(zip(rows, faults(choices, self.words, self.least_mass), strict=True)):
            status[i] = fault
            if fault == OK:
                good.append(n)
        value, aspects = self.value(choices.log_prob[good])
        return scatter(status, value, aspects)

    def _score_with_grad(self, media: Tensor, samples: Sequence[Sample]) -> Tensor:
        """Scores [B] whose gradient reaches pictures [B, 3, H, W] in [0, 1]."""
        if media.ndim != 4 or media.shape[:2] != (len(samples), 3):
            raise ShapeError(f"media: expected [B, 3, H, W] with B = {len(samples)}, got {list(media.shape)}")
        shown = [replace(sample, media=Image(pixels)) for sample, pixels in zip(samples, media, strict=True)]
        asked = [Question(_media(sample), self.text(sample)) for sample in shown]
        return self.value(self.judge.choices(asked, self.words, exact=self.exact).log_prob)[0]


def faults(choices: Choices, words: Words, least_mass: float) -> list[str]:
    """N times "ok", or why a question was not answered with one of ``words``."""
    found = []
    for held, fault in zip(mass(choices.log_prob).tolist(), choices.status, strict=True):
        if fault == OK and not held >= least_mass:
            names = ", ".join(group[0] for group in words)
            fault = f"the judge says something else: {names} hold {held:.2f} of its answer"
        found.append(fault)
    return found


def _media(sample: Sample) -> tuple[Any, ...]:
    return () if sample.media is None else (sample.media,)


class VqaScore(ChoiceReward):
    """How probable it is that a judge says yes when asked whether a medium shows its prompt.

        score = P("Yes" | medium, question),   among all words there are

    Range: [0, 1], higher is better. A judge that does not begin with yes or no, such as one that thinks first, has a
    status: that it says "Yes" with no probability then does not mean that it denies.

    Source: Lin et al. 2024, VQAScore (arXiv:2404.01291), in its form for decoders: one answer token. That the other
    answer is looked at too is ours.

    Args:
        card: as in :class:`ChoiceReward`.
        question: with ``{prompt}``; the published one asks "Does this figure show".
        answer: the word that affirms, spelt as the judge would.
        denial: the word that denies.
        options: of :class:`ChoiceReward`; ``least_mass``, what both have to hold together, is 0.5.
    """

    def __init__(
        self,
        card: RewardCard,
        *,
        question: str = questions.VQASCORE,
        answer: str = "Yes",
        denial: str = "No",
        **options: Any,
    ) -> None:
        super().__init__(card, words=((answer,), (denial,)), question=question, exact=True, **options)

    def value(self, log_prob: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """P(answer), [n]."""
        return log_prob[:, 0].exp(), {}


class YesNo(ChoiceReward):
    """How far a judge prefers yes over no to any question about a medium.

        score = sigmoid(log P(yes) - log P(no)),   or the difference itself in nats (``logit``)

    Range: [0, 1], all numbers for ``logit``; higher is better. Spellings that are single tokens of the judge (capitals,
    a space before) count together. Aspect ``mass``: what yes and no hold together.

    Args:
        card: as in :class:`ChoiceReward`.
        question: may hold ``{prompt}`` and ``{medium}``.
        logit: the difference, which does not saturate, as rewards of policy gradients like it.
        options: of :class:`ChoiceReward`.
    """

    def __init__(
        self, card: RewardCard, *, question: str = questions.VQASCORE, logit: bool = False, **options: Any
    ) -> None:
        super().__init__(card, words=YES_NO, question=question, **options)
        self.logit = logit

    def value(self, log_prob: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Probability or difference, [n]."""
        aspects = {"mass": mass(log_prob)}
        return log_prob[:, 0] - log_prob[:, 1] if self.logit else yes_probability(log_prob), aspects


class DigitJudge(ChoiceReward):
    """The rating that a judge would give on average, from the probabilities of its digits, with nothing generated.

        score = sum_k p_k k,   p = softmax of the log-probabilities of the digits low..high

    Range: [low, high], higher is better. Aspects: ``spread``, the standard deviation of that distribution in the same
    unit, and ``mass``, what all digits hold together of the judge's first word.

    Source: Edit-R1, Li et al. 2025 (arXiv:2510.16888); there the scale is 0 to 5 and the result is divided by 5.

    Args:
        card: as in :class:`ChoiceReward`.
        question: may hold ``{prompt}``, ``{medium}``, ``{low}`` and ``{high}``.
        low: the lowest digit.
        high: the highest, at most 9, so that each is one token.
        options: of :class:`ChoiceReward`.

    Raises:
        ConfigError: the scale is no range of digits.
    """

    def __init__(
        self,
        card: RewardCard,
        *,
        question: str = questions.DIGITS,
        low: int = 1,
        high: int = 5,
        **options: Any,
    ) -> None:
        if not 0 <= low < high <= 9:
            raise ConfigError(
                f"reward '{card.name}': expected digits 0 <= low < high <= 9, got {low} and {high}"
            )
        self.scale = Scale(low, high)
        super().__init__(card, words=[(str(k),) for k in self.scale.values], question=question, **options)

    def text(self, sample: Sample) -> str:
        """What is asked about a sample."""
        return fill(self.question, sample, low=self.scale.low, high=self.scale.high)

    def value(self, log_prob: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean digit [n]."""
        steps = torch.tensor(self.scale.values, dtype=torch.float32)
        mean, variance, held = ordinal_expectation(log_prob, steps)
        return mean, {"spread": variance.clamp_min(0).sqrt(), "mass": held}
