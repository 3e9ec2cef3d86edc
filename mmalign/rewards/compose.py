"""Several rewards as one."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mmalign.errors import ConfigError
from mmalign.media import Sample
from mmalign.rewards.base import OK, DifferentiableReward, Reward, Score
from mmalign.rewards.cards import RewardCard, load_reward, parse_weighted


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
        cards = [reward.card for reward, _ in rewards]
        common = set.intersection(*(set(card.modalities) for card in cards)) if cards else set()
        if not common:
            raise ConfigError(f"rewards {name}: nothing that all of them can score")
        self.card = RewardCard(
            name=name,
            target="mmalign.rewards.compose:WeightedSum",
            modalities=tuple(sorted(common)),
            unit=cards[0].unit if len(cards) == 1 and rewards[0][1] == 1 else "weighted sum of raw scores",
            higher_is_better=True,
            differentiable=all(card.differentiable for card in cards),
            needs=tuple(dict.fromkeys(need for card in cards for need in card.needs)),
            source="; ".join(card.source for card in cards),
        )

    def score(self, samples: Sequence[Sample]) -> Score:
        """One sum per sample."""
        total, status = torch.zeros(len(samples)), [OK] * len(samples)
        aspects = {}
        for reward, weight in self.rewards:
            score = reward.score(samples)
            value = score.value.float().cpu()
            aspects[reward.card.name] = value
            total = total + weight * _sign(reward) * value
            status = [
                mine if mine != OK or theirs == OK else f"{reward.card.name}: {theirs}"
                for mine, theirs in zip(status, score.status, strict=True)
            ]
        failed = torch.tensor([entry != OK for entry in status], dtype=torch.bool)
        return Score(total.masked_fill(failed, math.nan), status, aspects=aspects)

    def score_with_grad(self, media: Tensor, samples: Sequence[Sample]) -> Tensor:
        """The sums [B] of batched media, with gradient.

        Raises:
            ConfigError: one of the rewards has none.
        """
        total = torch.zeros(len(samples), device=media.device)
        for reward, weight in self.rewards:
            if not isinstance(reward, DifferentiableReward):
                raise ConfigError(f"reward '{reward.card.name}' has no gradient")
            total = total + weight * _sign(reward) * reward.score_with_grad(media, samples)
        return total


def _sign(reward: Reward) -> float:
    return 1.0 if reward.card.higher_is_better else -1.0


def load_weighted(names: Sequence[str], *, device: str = "cpu") -> WeightedSum:
    """Load rewards named NAME or NAME:WEIGHT once, as their weighted sum."""
    loaded = [(load_reward(name, device=device), weight) for name, weight in map(parse_weighted, names)]
    return WeightedSum(loaded, name=" + ".join(names))


def score_in_batches(reward: Reward, samples: Sequence[Sample], *, batch_size: int = 64) -> Score:
    """One reward's whole score of any number of samples."""
    parts = [reward.score(samples[i : i + batch_size]) for i in range(0, len(samples), batch_size)]
    return Score(
        value=torch.cat([part.value.cpu() for part in parts]),
        status=[status for part in parts for status in part.status],
        aspects={name: torch.cat([part.aspects[name].cpu() for part in parts]) for name in parts[0].aspects},
    )
