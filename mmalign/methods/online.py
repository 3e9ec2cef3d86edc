"""What online methods share: groups of new samples of the policy, scored, drawn once for several optimiser steps."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from mmalign.errors import ConfigError
from mmalign.generators.conditioning import concatenate
from mmalign.generators.rollout import Sampler, Trajectory, begin, rollout
from mmalign.methods.base import Method, Task, epoch_rows, mixed_generator, mixed_seeds
from mmalign.methods.configs.online import OnlineConfig
from mmalign.processes import Processes

# What a random number is for; numbers of different purposes never meet.
PROMPTS, NOISE, STEPS, WINDOW, LEVELS = range(10, 15)


@dataclass(frozen=True, eq=False)
class Rollout:
    """P x G new samples with their scores, group by group.

    Args:
        trajectory: of B = P x G samples.
        prompts: B texts.
        scores: [P, G], in the scorer's unit; a missing one is its group's mean, so that its advantage is 0.
        missing: how many were missing.
    """

    trajectory: Trajectory
    prompts: list[str]
    scores: Tensor
    missing: int


class OnlineMethod(Method):
    """Draws a rollout for every ``steps_per_rollout`` optimiser steps and hands each its share of whole groups."""

    def __init__(self, config: OnlineConfig, task: Task) -> None:
        self.online, self.task = config, task
        self.generator = task.generator
        self.steps_per_rollout = config.updates_per_rollout
        self._drawn: tuple[tuple[int, ...], Any] | None = None
        if config.source == "prompts" and not task.prompts:
            raise ConfigError(f"{config.name} draws samples while it learns: give --prompts FILE")

    def sampler(self) -> Sampler:
        """How samples are drawn; deterministic unless a method says otherwise."""
        return Sampler(noise_level=0.0, guidance=scale_of(self.online.guidance))

    def rollout(self, step: int, *, size: int, seed: int) -> Rollout:
        """The rollout that a step belongs to; drawn with the present weights where it is a new one."""
        index, count = step // self.steps_per_rollout, size * self.steps_per_rollout
        key = (index, count, seed)
        if self._drawn is None or self._drawn[0] != key:
            self._drawn = None  # the old one is freed first
            self._drawn = key, self.draw(index, count=count, seed=seed)
        drawn: Rollout = self._drawn[1]
        return drawn

    def draw(self, index: int, *, count: int, seed: int) -> Rollout:
        """``count`` new samples, scored: whole groups, walking through the prompts."""
        trajectory, prompts = self.draw_unscored(index, count=count, seed=seed)
        scores = self.task.score(trajectory.clean, prompts).unflatten(0, (-1, self.online.group_size))
        missing = scores.isnan()
        if missing.all(1).any():
            raise ConfigError(
                f"reward {self.task.reward.card.name if self.task.reward else ''}: no sample of a prompt has a score"
            )
        return Rollout(
            trajectory,
            prompts,
            torch.where(missing, scores.nanmean(1, keepdim=True), scores),
            int(missing.sum()),
        )

    def draw_unscored(self, index: int, *, count: int, seed: int) -> tuple[Trajectory, list[str]]:
        """The samples and their prompts.

        Raises:
            ConfigError: ``count`` samples are no whole number of groups.
        """
        G = self.online.group_size
        if count % G:
            raise ConfigError(
                f"train.batch_size x updates_per_rollout = {count} samples are no whole groups of "
                f"method.group_size = {G}; make it a multiple"
            )
        rows = epoch_rows(index, size=count // G, count=len(self.task.prompts), seed=seed)
        prompts = [self.task.prompts[int(row)] for row in rows for _ in range(G)]
        noise_seeds = mixed_seeds(count, seed, NOISE, index)
        if getattr(self.online, "same_noise", False):
            noise_seeds = [noise_seeds[i // G * G] for i in range(count)]
        trajectory = self.unroll(
            prompts,
            noise_seeds=noise_seeds,
            step_seeds=mixed_seeds(count, seed, STEPS, index),
            window=self.window(mixed_generator(seed, WINDOW, index)),
        )
        return trajectory, prompts

    def window(self, generator: torch.Generator) -> range | None:
        """Which steps are random; None is the sampler's default."""
        del generator
        return None

    def unroll(
        self,
        prompts: Sequence[str],
        *,
        noise_seeds: Sequence[int],
        step_seeds: Sequence[int],
        window: range | None,
    ) -> Trajectory:
        """Roll out in batches of the task's size with the active weights, each process its share of every batch."""
        options = {k: v for k, v in self.task.sampling.items() if k not in ("steps", "guidance")}
        sampler, processes, parts = self.sampler(), Processes(), []
        for first in range(0, len(prompts), self.task.draw_batch):
            rows = slice(first, first + self.task.draw_batch)
            start = begin(
                self.generator,
                prompts[rows],
                seeds=noise_seeds[rows],
                steps=self.online.rollout_steps,
                guidance=sampler.guidance,
                **options,
            )
            mine = processes.share(len(start.noise))
            here = slice(first + mine.start, first + mine.stop)
            drawn = rollout(
                self.generator, start.rows(mine), sampler, step_seeds=step_seeds[here], window=window
            )
            parts.append(
                replace(
                    drawn,
                    latents=processes.gather(drawn.latents, total=len(start.noise)),
                    log_prob=processes.gather(drawn.log_prob, total=len(start.noise)),
                    conditioning=start.conditioning,
                )
            )
        return join(parts)

    def shares(self, step: int, count: int) -> Tensor:
        """The samples of this step: the k-th share of a rollout's groups, in a new order for every rollout."""
        k = step % self.steps_per_rollout
        return torch.arange(count)[
            k * count // self.steps_per_rollout : (k + 1) * count // self.steps_per_rollout
        ]


def join(parts: Sequence[Trajectory]) -> Trajectory:
    """Trajectories of several batches as one."""
    if len(parts) == 1:
        return parts[0]
    return replace(
        parts[0],
        latents=torch.cat([part.latents for part in parts]),
        conditioning=concatenate([part.conditioning for part in parts]),
        log_prob=torch.cat([part.log_prob for part in parts]),
    )


def scale_of(guidance: float) -> float | None:
    """A scale, or None where it is 1 and so costs no second branch."""
    return None if guidance == 1 else guidance
