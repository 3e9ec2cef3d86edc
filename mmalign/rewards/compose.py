"""Several rewards as one: sums, minima and gates, and rewards beside others of their prompt.

A card names any of them by its target and ``options``; ``mmalign rewards`` lists it like any other.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mmalign.errors import ConfigError
from mmalign.media import Sample
from mmalign.rewards.base import OK, DifferentiableReward, Reward, Score
from mmalign.rewards.cards import RewardCard, load_reward, parse_weighted
from mmalign.rewards.combining import standardised
from mmalign.rewards.direction import check_direction, turned
from mmalign.rewards.groups import compares


class WeightedSum:
    """The weighted sum of several rewards' raw scores, each turned so that higher is better.

        value = sum_k weight_k * (score_k if higher is better, else -score_k)

    A sample that one of them cannot score has no sum. Each reward's own score is an aspect.

    Args:
        rewards: with their weights, at least one.
        name: of the sum, such as "a:0.5 + b".

    Raises:
        ConfigError: no reward, or rewards without a medium in common.
    """

    def __init__(self, rewards: Sequence[tuple[Reward, float]], *, name: str) -> None:
        self.rewards = tuple(rewards)
        self.whole_groups = any(compares(reward) for reward, _ in rewards)
        cards = [reward.card for reward, _ in rewards]
        self.card = RewardCard(
            name=name,
            target="mmalign.rewards.compose:WeightedSum",
            modalities=common_modalities(cards, name),
            unit=cards[0].unit if len(cards) == 1 and rewards[0][1] == 1 else "weighted sum of raw scores",
            higher_is_better=True,
            differentiable=all(card.differentiable for card in cards),
            needs=tuple(dict.fromkeys(need for card in cards for need in card.needs)),
            reads=tuple(dict.fromkeys(name for card in cards for name in card.reads)),
            source="; ".join(card.source for card in cards),
        )

    @property
    def parts(self) -> tuple[Reward, ...]:
        """The rewards, in the order of ``Score.parts``."""
        return tuple(reward for reward, _ in self.rewards)

    def score(self, samples: Sequence[Sample]) -> Score:
        """One sum per sample."""
        scores = [reward.score(samples) for reward, _ in self.rewards]
        total = sum(
            (
                weight * turned(score, reward)
                for (reward, weight), score in zip(self.rewards, scores, strict=True)
            ),
            torch.zeros(len(samples)),
        )
        return combined(total, [reward for reward, _ in self.rewards], scores)

    def score_with_grad(self, media: Tensor, samples: Sequence[Sample]) -> Tensor:
        """The sums [B] of batched media, with gradient.

        Raises:
            ConfigError: one of the rewards has none.
        """
        total = torch.zeros(len(samples), device=media.device)
        for reward, weight in self.rewards:
            if not isinstance(reward, DifferentiableReward):
                raise ConfigError(f"reward '{reward.card.name}' has no gradient")
            total = total + weight * reward.card.sign * reward.score_with_grad(media, samples)
        return total


class Minimum:
    """The worst of several rewards, sample by sample: within a sample, no aspect is bought off by others.

        value = min_k z_k,   z_k = (score_k - mean_k) / std_k, turned so that higher is better

    The mean of this over samples is at most the least of the rewards' means, which MaxMin-RLHF maximises for groups of
    people; see :class:`mmalign.rewards.maxmin.GroupWeights`. A sample that one of them cannot score has no minimum.
    Each reward's raw score is an aspect.

    Args:
        card: of the minimum.
        rewards: at least one.
        scales: mean and std of each reward's raw scores, in its unit; (0, 1) leaves them as they are.

    Raises:
        ConfigError: another number of scales, a std that is not positive, or no medium in common.
    """

    def __init__(
        self, card: RewardCard, rewards: Sequence[Reward], *, scales: Sequence[tuple[float, float]]
    ) -> None:
        common_modalities([reward.card for reward in rewards], card.name)
        check_direction(card)
        if len(scales) != len(rewards):
            raise ConfigError(
                f"reward '{card.name}': expected {len(rewards)} scales, one for each reward, got {len(scales)}"
            )
        self.card, self.rewards, self.scales = card, tuple(rewards), tuple(scales)
        self.whole_groups = any(map(compares, rewards))

    @property
    def parts(self) -> tuple[Reward, ...]:
        """The rewards, in the order of ``Score.parts``."""
        return self.rewards

    def score(self, samples: Sequence[Sample]) -> Score:
        """One minimum per sample."""
        scores = [reward.score(samples) for reward in self.rewards]
        columns = [
            reward.card.sign * standardised(score.value.float().cpu(), mean=mean, std=std)
            for reward, score, (mean, std) in zip(self.rewards, scores, self.scales, strict=True)
        ]
        return combined(torch.stack(columns).amin(0), self.rewards, scores)


class Gate:
    """A reward that counts only where others pass.

        value = score where every gate_k >= threshold_k (<= where lower is better), else ``otherwise``

    A sample that the reward or a gate cannot score has no value. Each gate's own score is an aspect.

    Args:
        card: of the gated reward.
        reward: what counts.
        gates: rewards with their thresholds, each in its own unit.
        otherwise: the value where one does not pass, in the unit of ``reward``.

    Raises:
        ConfigError: no gate, or no medium in common.
    """

    def __init__(
        self, card: RewardCard, reward: Reward, gates: Sequence[tuple[Reward, float]], *, otherwise: float
    ) -> None:
        common_modalities([reward.card, *(gate.card for gate, _ in gates)], card.name)
        check_direction(card, reward.card)
        if not gates or not math.isfinite(otherwise):
            raise ConfigError(f"reward '{card.name}': expected a gate or more, and a finite 'otherwise'")
        self.card, self.reward, self.gates, self.otherwise = card, reward, tuple(gates), otherwise
        every = [reward, *(gate for gate, _ in gates)]
        self.whole_groups = any(map(compares, every))

    @property
    def parts(self) -> tuple[Reward, ...]:
        """The reward and its gates, in the order of ``Score.parts``."""
        return (self.reward, *(gate for gate, _ in self.gates))

    def score(self, samples: Sequence[Sample]) -> Score:
        """One value per sample."""
        rewards = [self.reward, *(gate for gate, _ in self.gates)]
        scores = [reward.score(samples) for reward in rewards]
        passed = torch.ones(len(samples), dtype=torch.bool)
        for (gate, threshold), score in zip(self.gates, scores[1:], strict=True):
            passed &= turned(score, gate) >= gate.card.sign * threshold
        value = scores[0].value.float().cpu()
        return combined(value.where(passed, self.otherwise), rewards, scores)


def combined(
    value: Tensor, rewards: Sequence[Reward], scores: Sequence[Score], *, missing: str = "no value"
) -> Score:
    """A score of B samples from those of several rewards: without a value where one of them has none.

    Args:
        value: [B], NaN where there is none.
        rewards: what it was made of.
        scores: of each.
        missing: the status where all of them have a score and there is still no value.
    """
    status = [OK] * len(value)
    for reward, score in zip(rewards, scores, strict=True):
        status = [
            mine if mine != OK or theirs == OK else f"{reward.card.name}: {theirs}"
            for mine, theirs in zip(status, score.status, strict=True)
        ]
    status = [
        missing if entry == OK and math.isnan(number) else entry
        for entry, number in zip(status, value.tolist(), strict=True)
    ]
    failed = torch.tensor([entry != OK for entry in status], dtype=torch.bool)
    aspects = {
        reward.card.name: score.value.float().cpu() for reward, score in zip(rewards, scores, strict=True)
    }
    return Score(value.masked_fill(failed, math.nan), status, aspects=aspects, parts=tuple(scores))


def common_modalities(cards: Sequence[RewardCard], name: str) -> tuple[str, ...]:
    """What all of several rewards take.

    Raises:
        ConfigError: nothing.
    """
    common = set.intersection(*(set(card.modalities) for card in cards)) if cards else set()
    if not common:
        raise ConfigError(f"rewards {name}: nothing that all of them can score")
    return tuple(sorted(common))


def load_weighted(names: Sequence[str], *, device: str = "cpu") -> WeightedSum:
    """Load rewards named NAME or NAME:WEIGHT once, as their weighted sum."""
    loaded = [(load_reward(name, device=device), weight) for name, weight in map(parse_weighted, names)]
    return WeightedSum(loaded, name=" + ".join(names))


def minimum(
    card: RewardCard,
    *,
    device: str = "cpu",
    of: Sequence[str],
    scales: Mapping[str, Sequence[float]] | None = None,
) -> Minimum:
    """The target of a card with ``options: {of: [NAME, NAME], scales: {NAME: [mean, std]}}``.

    A reward without a scale has that of its card's ``calibration`` (``mean`` and ``std``).

    Raises:
        ConfigError: a reward has neither, or a scale is for none of them.
    """
    given = {name: tuple(pair) for name, pair in (scales or {}).items()}
    for name, pair in given.items():
        if name not in of or len(pair) != 2:
            raise ConfigError(
                f"reward '{card.name}': scales has '{name}: {list(pair)}'; expected NAME: [mean, std]"
            )
    rewards, found = [load_reward(name, device=device) for name in of], []
    for name, reward in zip(of, rewards, strict=True):
        known = reward.card.calibration
        if name not in given and not {"mean", "std"} <= known.keys():
            raise ConfigError(
                f"reward '{card.name}': '{name}' has no scale, and raw scores of several rewards cannot be compared; "
                f"add scales: {{{name}: [mean, std]}}"
            )
        mean, std = given.get(name) or (known["mean"], known["std"])
        found.append((float(mean), float(std)))
    return Minimum(card, rewards, scales=found)


def gated(
    card: RewardCard, *, device: str = "cpu", of: str, gates: Mapping[str, float], otherwise: float
) -> Gate:
    """The target of a card with ``options: {of: NAME, gates: {NAME: threshold}, otherwise: NUMBER}``."""
    loaded = [(load_reward(name, device=device), float(threshold)) for name, threshold in gates.items()]
    return Gate(card, load_reward(of, device=device), loaded, otherwise=float(otherwise))
