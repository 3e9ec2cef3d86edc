"""Scores of a run's samples by one or several rewards, mixed as the recipe says."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmalign.media import Sample
from mmalign.rewards.base import Reward, Score
from mmalign.rewards.cards import load_reward, parse_weighted
from mmalign.training.progress import stage

BATCH = 64


@dataclass(frozen=True)
class Mixture:
    """Several rewards as one number: the weighted sum of their raw scores; one that is missing makes it missing."""

    name: str
    rewards: tuple[tuple[Reward, float], ...]

    def score(self, samples: Sequence[Sample]) -> Tensor:
        """[B], NaN where a reward has no score."""
        total = torch.zeros(len(samples))
        for reward, weight in self.rewards:
            total += weight * _signed(reward, reward.score(samples).value.cpu())
        return total


def _signed(reward: Reward, value: Tensor) -> Tensor:
    return value if reward.card.higher_is_better else -value


def load_mixture(names: Sequence[str]) -> Mixture:
    """Load the rewards of a recipe once."""
    loaded = tuple((load_reward(name), weight) for name, weight in map(parse_weighted, names))
    return Mixture(" + ".join(names), loaded)


def score_all(mixture: Mixture, samples: Sequence[Sample], *, title: str) -> Tensor:
    """Scores [N] of any number of samples, batched, with progress."""
    parts = []
    with stage(title, len(samples)) as bar:
        for start in range(0, len(samples), BATCH):
            parts.append(mixture.score(samples[start : start + BATCH]))
            bar.advance(len(parts[-1]))
    return torch.cat(parts)


def score_in_batches(reward: Reward, samples: Sequence[Sample]) -> Score:
    """One reward's whole score of any number of samples."""
    parts = [reward.score(samples[start : start + BATCH]) for start in range(0, len(samples), BATCH)]
    return Score(
        value=torch.cat([part.value.cpu() for part in parts]),
        status=[status for part in parts for status in part.status],
        aspects={name: torch.cat([part.aspects[name].cpu() for part in parts]) for name in parts[0].aspects},
    )
