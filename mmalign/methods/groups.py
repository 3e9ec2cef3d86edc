"""What online methods share, in any family of generators: groups of new samples, scored, for several steps."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmalign.errors import ConfigError
from mmalign.methods.base import Method, Task, epoch_rows
from mmalign.methods.configs.online import GroupConfig
from mmalign.rewards.base import Score
from mmalign.rewards.direction import turned
from mmalign.rewards.learning import learnt_state, load_learnt_state, reports


@dataclass(frozen=True, eq=False)
class Rollout:
    """P x G new samples with their scores, group by group.

    Args:
        trajectory: of B = P x G samples, of the generator's family.
        prompts: B texts.
        scores: [P, G], in the scorer's unit; a missing one is its group's mean, so that its advantage is 0.
        missing: how many were missing.
        judged: what the reward said.
        learnt: what was worth plotting of a reward that learns, as it was when it said so.
    """

    trajectory: Any
    prompts: list[str]
    scores: Tensor
    missing: int
    judged: Score
    learnt: Mapping[str, float]

    def notes(self) -> dict[str, float]:
        """Numbers of the whole rollout, for the metrics."""
        notes = {
            "train_reward": float(self.scores.mean()),
            "train_reward_std": float(self.scores.std(1).mean()),
            **self.learnt,
        }
        return notes | ({"unscored": float(self.missing)} if self.missing else {})


class GroupMethod(Method):
    """Draws a rollout for every ``steps_per_rollout`` optimiser steps and hands each its share of whole groups."""

    def __init__(self, config: GroupConfig, task: Task) -> None:
        self.groups, self.task = config, task
        self.steps_per_rollout = config.updates_per_rollout
        self._drawn: tuple[tuple[int, ...], Any] | None = None
        if config.source == "prompts" and not task.prompts:
            raise ConfigError(f"{config.name} draws samples while it learns: give --prompts FILE")

    @abstractmethod
    def draw_unscored(self, index: int, *, count: int, seed: int) -> tuple[Any, list[str]]:
        """``count`` samples of rollout ``index`` as a trajectory, with their prompts, ``grouped_prompts`` of them."""

    @abstractmethod
    def encoded(self, trajectory: Any) -> Tensor:
        """The samples [B, ...] of a trajectory, as the adapter decodes them."""

    def rollout(self, step: int, *, size: int, seed: int) -> Rollout:
        """The rollout that a step belongs to; drawn with the present weights where it is a new one."""
        index, count = step // self.steps_per_rollout, size * self.steps_per_rollout
        key = (index, count, seed)
        if self._drawn is None or self._drawn[0] != key:
            self._drawn = None  # the old one is freed first
            new = self.draw(index, count=count, seed=seed)
            self._drawn = key, new
            self.task.after_rollout(new.prompts, new.judged)
        drawn: Rollout = self._drawn[1]
        return drawn

    def draw(self, index: int, *, count: int, seed: int) -> Rollout:
        """``count`` new samples, scored: whole groups, walking through the prompts.

        Raises:
            ConfigError: ``count`` samples are no whole number of groups, or no sample of a prompt has a score.
        """
        trajectory, prompts = self.draw_unscored(index, count=count, seed=seed)
        learnt = reports(self.task.reward)
        judged = self.task.judged(self.encoded(trajectory), prompts)
        assert self.task.reward is not None  # else it was refused
        scores = turned(judged, self.task.reward).unflatten(0, (-1, self.groups.group_size))
        missing = scores.isnan()
        if missing.all(1).any():
            raise ConfigError(f"reward {self.task.reward.card.name}: no sample of a prompt has a score")
        filled = torch.where(missing, scores.nanmean(1, keepdim=True), scores)
        return Rollout(trajectory, prompts, filled, int(missing.sum()), judged, learnt)

    def grouped_prompts(self, index: int, *, count: int, seed: int) -> list[str]:
        """The prompts of ``count`` samples, each for a whole group.

        Raises:
            ConfigError: ``count`` samples are no whole number of groups.
        """
        G = self.groups.group_size
        if count % G:
            raise ConfigError(
                f"train.batch_size x updates_per_rollout = {count} samples are no whole groups of "
                f"method.group_size = {G}; make it a multiple"
            )
        rows = epoch_rows(index, size=count // G, count=len(self.task.prompts), seed=seed)
        return [self.task.prompts[int(row)] for row in rows for _ in range(G)]

    def state(self) -> dict[str, Tensor]:
        """What the reward has learnt."""
        return learnt_state(self.task.reward)

    def load_state(self, state: dict[str, Tensor]) -> None:
        """What the reward had learnt, as it was."""
        load_learnt_state(self.task.reward, state)

    def shares(self, step: int, count: int) -> Tensor:
        """The samples of this step: the k-th share of a rollout's groups, in a new order for every rollout."""
        k, shares = step % self.steps_per_rollout, self.steps_per_rollout
        return torch.arange(k * count // shares, (k + 1) * count // shares)
