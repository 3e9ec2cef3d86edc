"""Groups of people in one reward: weights under which the policy raises the mean of whoever is worst off."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from mmalign.media import Sample
from mmalign.rewards.base import Reward, Score
from mmalign.rewards.combining import maxmin_weights


class GroupWeights:
    """How much each group counts; equal until the first rollout.

    Maximising the least of the groups' means over samples, max_policy min_u E[r_u], is a game against these weights:
    the policy maximises sum_u w_u E[r_u], and after each rollout w follows whoever's mean was lowest, by
    :func:`mmalign.rewards.combining.maxmin_weights`. The mean of each sample's least r_u is another number, and lower.

    Source: the objective of Chakraborty et al. 2024, MaxMin-RLHF (arXiv:2402.08925), whose algorithm puts all weight on
    the worst group of each step; the softened step is ours.

    Args:
        groups: U.
        rate: of the step, per unit of the rewards.
    """

    def __init__(self, groups: int, *, rate: float = 0.1) -> None:
        self.rate = rate
        self.weights = torch.full((groups,), 1 / groups)

    def update(self, scores: Tensor) -> None:
        """One step, from what each group's reward said of a rollout, [U, B]; nothing where one said nothing."""
        mean = scores.float().cpu().nanmean(1)
        if bool(mean.isfinite().all()):
            self.weights = maxmin_weights(self.weights, mean, rate=self.rate)


class Aspect:
    """One aspect of a reward as a reward of its own, such as that of one group of people.

    Args:
        reward: has the aspect.
        name: of the aspect.
    """

    def __init__(self, reward: Reward, name: str) -> None:
        self.reward, self.name = reward, name
        self.card = replace(reward.card, name=f"{reward.card.name}/{name}", differentiable=False)

    def score(self, samples: Sequence[Sample]) -> Score:
        """The aspect of each sample."""
        return self.of(self.reward.score(samples))

    def of(self, score: Score) -> Score:
        """The same of what the reward said."""
        return Score(score.aspects.get(self.name, score.value), score.status)  # none where all have failed
