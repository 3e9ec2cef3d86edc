"""Rewards that say how a sample stands beside others of its prompt, or beside the policy before training."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmalign.errors import ConfigError, DataError
from mmalign.media import Sample
from mmalign.rewards.base import OK, Reward, Score
from mmalign.rewards.cards import RewardCard, load_reward
from mmalign.rewards.combining import contrastive, lagrange_loss, lagrange_mix, multipliers, within_groups
from mmalign.rewards.compose import combined
from mmalign.rewards.direction import check_direction, turned
from mmalign.rewards.groups import refuse_comparing, score_in_batches

ALONE = "the only sample of its prompt with a score"


class WithinPrompt:
    """A reward beside those of the other samples of its prompt, turned so that higher is better.

    Unit: standard deviations of the prompt's samples (z), place from 0 to 1 (rank), or that of the reward
    (leave-one-out); see :func:`mmalign.rewards.combining.within_groups`.

    Args:
        card: of the relative reward.
        reward: of single samples.
        how: "z", "rank" or "leave-one-out".
    """

    whole_groups = True
    """All samples of a prompt have to come in one call."""

    def __init__(self, card: RewardCard, reward: Reward, *, how: str = "z") -> None:
        within_groups(torch.zeros(0), [], how=how)
        check_direction(card)
        self.card, self.reward, self.how = card, reward, how

    def score(self, samples: Sequence[Sample]) -> Score:
        """One value per sample; one that is alone with its prompt has none."""
        score = score_in_batches(self.reward, samples)
        value = within_groups(turned(score, self.reward), [s.prompt for s in samples], how=self.how)
        status = [
            ALONE if entry == OK and math.isnan(number) else entry
            for entry, number in zip(score.status, value.tolist(), strict=True)
        ]
        aspects = {self.reward.card.name: score.value.float().cpu()}
        return Score(value, status, aspects=aspects, parts=(score,))

    @property
    def parts(self) -> tuple[Reward, ...]:
        """The reward, as ``Score.parts`` has what it said."""
        return (self.reward,)


class Contrastive:
    """How much better a sample is than what the policy made of its prompt before training.

        value = score - mean_k (score of the prompt's k-th baseline sample), turned so that higher is better

    What depends on the prompt alone, such as its difficulty, cancels. Unit: that of the reward.

    Args:
        card: of the contrastive reward.
        reward: of single samples.
        baseline: raw scores of the untrained policy's samples by prompt, by the same reward.
        reduce: "mean", "min" or "max" over a prompt's baseline samples.
    """

    def __init__(
        self,
        card: RewardCard,
        reward: Reward,
        baseline: Mapping[str, Sequence[float]],
        *,
        reduce: str = "mean",
    ) -> None:
        contrastive(torch.zeros(0), torch.zeros(0, 1), reduce=reduce)
        check_direction(card)
        refuse_comparing(
            reward, f"'{card.name}' stands it beside a baseline of single samples; name what it is made of"
        )
        self.card, self.reward, self.baseline, self.reduce = card, reward, dict(baseline), reduce

    def score(self, samples: Sequence[Sample]) -> Score:
        """One value per sample; a prompt without a baseline has none."""
        score = self.reward.score(samples)
        most = max((len(values) for values in self.baseline.values()), default=0)
        table = torch.full((len(samples), max(most, 1)), math.nan)
        for i, sample in enumerate(samples):
            known = self.baseline.get(sample.prompt, ())
            table[i, : len(known)] = torch.tensor(known)
        value = contrastive(turned(score, self.reward), self.reward.card.sign * table, reduce=self.reduce)
        status = [
            "its prompt has no baseline" if entry == OK and math.isnan(number) else entry
            for entry, number in zip(score.status, value.tolist(), strict=True)
        ]
        return Score(value, status, aspects={self.reward.card.name: score.value.float().cpu()})


class Constrained:
    """A main reward, kept to thresholds of others by Lagrange multipliers that learn from each rollout.

        value = (n - sum_i m[i]) * A_0 + sum_i m[i] * A_i,   A the z scores inside each prompt's samples
        u <- u - rate * momentum average of d/du sum_i m[i](u) * (mean score_i - threshold_i)

    ``score`` is the same however often it is called; ``after_rollout`` takes the one step that belongs to a rollout,
    and every online method calls it. What scores files, or judges a run, leaves the multipliers where they are.

    Args:
        card: of the mixture.
        main: what is maximised.
        constraints: rewards with their thresholds, each in its own unit.
        kind: "inequality", the threshold is reached or passed, or "equality", it is met.
        rate: of the multipliers' steps.
        momentum: of the same.

    Raises:
        ConfigError: no constraint, or another kind.

    Source: Moskovitz et al. 2023, Confronting Reward Model Overoptimization with Constrained RLHF (arXiv:2310.04373),
    and the rate and momentum of its code.
    """

    whole_groups = True
    """All samples of a prompt have to come in one call."""

    def __init__(
        self,
        card: RewardCard,
        main: Reward,
        constraints: Sequence[tuple[Reward, float]],
        *,
        kind: str = "inequality",
        rate: float = 0.01,
        momentum: float = 0.1,
    ) -> None:
        if not constraints:
            raise ConfigError(f"reward '{card.name}': expected a constraint or more")
        check_direction(card)
        self.card, self.main, self.others, self.kind = card, main, [reward for reward, _ in constraints], kind
        self._signs = torch.tensor([reward.card.sign for reward in self.others])
        self.thresholds = torch.tensor([threshold for _, threshold in constraints]) * self._signs
        self.u = torch.zeros(len(constraints))
        multipliers(self.u, kind=kind)
        self.rate, self.momentum, self._speed = rate, momentum, torch.zeros(len(constraints))

    @property
    def multipliers(self) -> Tensor:
        """[n], what each constraint counts now."""
        return multipliers(self.u, kind=self.kind)

    @property
    def parts(self) -> tuple[Reward, ...]:
        """The main reward and the constraints, in the order of ``Score.parts``."""
        return (self.main, *self.others)

    def score(self, samples: Sequence[Sample]) -> Score:
        """One value per sample; one that a reward cannot score, or that is alone with its prompt, has none."""
        rewards = [self.main, *self.others]
        scores = [score_in_batches(reward, samples) for reward in rewards]
        prompts = [sample.prompt for sample in samples]
        whole = torch.stack([turned(s, r) for s, r in zip(scores, rewards, strict=True)])
        whole = whole.masked_fill(whole.isnan().any(0), math.nan)  # a sample counts for all or for none
        columns = [within_groups(values, prompts) for values in whole]
        value = lagrange_mix(columns[0], torch.stack(columns[1:], 1), self.u, kind=self.kind)
        return combined(value, rewards, scores, missing=ALONE)

    def update(self, score: Score) -> None:
        """Let the multipliers follow the mean scores of a batch.

        Args:
            score: what ``score`` gave; its parts hold the raw scores.

        Raises:
            ConfigError: it holds no score by a constraint.
        """
        means = torch.stack([part.value.float().cpu().nanmean() for part in score.parts[1:]])
        if not bool(means.isfinite().all()):
            raise ConfigError(
                f"reward '{self.card.name}': no sample of the batch has a score by every constraint"
            )
        u = self.u.clone().requires_grad_()
        lagrange_loss(u, means * self._signs, self.thresholds, kind=self.kind).backward()
        assert u.grad is not None
        self._speed = self.momentum * self._speed + u.grad
        self.u = self.u - self.rate * self._speed

    def after_rollout(self, samples: Sequence[Sample], scores: Score) -> None:
        """``update`` by a rollout."""
        del samples
        self.update(scores)

    def state(self) -> dict[str, Tensor]:
        """What the multipliers are made of, and their momentum."""
        return {"u": self.u, "speed": self._speed}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """As they were."""
        self.u, self._speed = state["u"].clone(), state["speed"].clone()

    def report(self) -> dict[str, float]:
        """Each constraint's multiplier."""
        return {
            f"multiplier/{reward.card.name}": value
            for reward, value in zip(self.others, self.multipliers.tolist(), strict=True)
        }


def within_prompt(card: RewardCard, *, device: str = "cpu", of: str, how: str = "z") -> WithinPrompt:
    """The target of a card with ``options: {of: NAME, how: z}``."""
    return WithinPrompt(card, load_reward(of, device=device), how=how)


def against_baseline(
    card: RewardCard, *, device: str = "cpu", of: str, baseline: str, reduce: str = "mean"
) -> Contrastive:
    """The target of a card with ``options: {of: NAME, baseline: FILE, reduce: mean}``.

    FILE is what ``mmalign score --reward NAME --out scores.jsonl`` wrote of the untrained policy's samples.

    Raises:
        DataError: the file cannot be read, or has no score by this reward.
    """
    import json

    path = Path(baseline)
    found: dict[str, list[float]] = {}
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
        rows: list[Any] = [json.loads(line) for line in lines if line]
        for row in rows:
            if row["reward"] == of and row["score"] is not None and row.get("status", OK) == OK:
                found.setdefault(str(row["prompt"]), []).append(float(row["score"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"no jsonl file of scores ({error})", file=path) from None
    if not found:
        raise DataError(f"no score by '{of}' in it", file=path)
    return Contrastive(card, load_reward(of, device=device), found, reduce=reduce)


def constrained(
    card: RewardCard,
    *,
    device: str = "cpu",
    of: str,
    constraints: Mapping[str, float],
    kind: str = "inequality",
    rate: float = 0.01,
) -> Constrained:
    """The target of a card with ``options: {of: NAME, constraints: {NAME: threshold}, kind: inequality}``."""
    loaded = [(load_reward(name, device=device), float(least)) for name, least in constraints.items()]
    return Constrained(card, load_reward(of, device=device), loaded, kind=kind, rate=rate)
