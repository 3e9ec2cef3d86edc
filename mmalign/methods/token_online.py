"""What online methods on tokens share: groups of new samples of the policy, scored, drawn once for several steps."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from mmalign.errors import ConfigError
from mmalign.generators.tokens import TokenGenerator, TokenTrajectory, join_trajectories
from mmalign.likelihoods import token_log_prob
from mmalign.methods.base import Method, Task, epoch_rows, mixed_seeds
from mmalign.methods.configs.tokens import TokenOnlineConfig
from mmalign.methods.online import STEPS, scale_of
from mmalign.methods.token_data import stack_tokens
from mmalign.processes import Processes


def token_generator(task: Task) -> TokenGenerator:
    """The task's generator, which has to make tokens.

    Raises:
        ConfigError: it is of another family.
    """
    generator: Any = task.generator
    if not isinstance(generator, TokenGenerator):
        raise ConfigError(
            f"this method learns from tokens, and the model is a {type(generator).__name__}; take the method without "
            "'token_' in its name"
        )
    return generator


@dataclass(frozen=True, eq=False)
class TokenRollout:
    """P x G new samples with their scores, group by group.

    Args:
        trajectory: of B = P x G samples.
        prompts: B texts.
        scores: [P, G], in the scorer's unit; a missing one is its group's mean, so that its advantage is 0.
        missing: how many were missing.
    """

    trajectory: TokenTrajectory
    prompts: list[str]
    scores: Tensor
    missing: int

    def notes(self) -> dict[str, float]:
        """Numbers of the whole rollout, for the metrics."""
        notes = {
            "train_reward": float(self.scores.mean()),
            "train_reward_std": float(self.scores.std(1).mean()),
            "frames": float(self.trajectory.mask[..., 0].sum(1).float().mean()),
        }
        return notes | ({"unscored": float(self.missing)} if self.missing else {})


class TokenOnlineMethod(Method):
    """Draws a rollout for every ``steps_per_rollout`` optimiser steps and hands each its share of whole groups."""

    def __init__(self, config: TokenOnlineConfig, task: Task) -> None:
        self.online, self.task = config, task
        self.generator = token_generator(task)
        self.steps_per_rollout = config.updates_per_rollout
        self._drawn: tuple[tuple[int, ...], Any] | None = None
        if config.frames is None and self.generator.layout.frames is None:
            raise ConfigError(f"method.frames: {config.name} has to know how long a sample may be")
        if config.source == "prompts" and not task.prompts:
            raise ConfigError(f"{config.name} draws samples while it learns: give --prompts FILE")

    def rollout(self, step: int, *, size: int, seed: int) -> TokenRollout:
        """The rollout that a step belongs to; drawn with the present weights where it is a new one."""
        index, count = step // self.steps_per_rollout, size * self.steps_per_rollout
        key = (index, count, seed)
        if self._drawn is None or self._drawn[0] != key:
            self._drawn = None  # the old one is freed first
            self._drawn = key, self.draw(index, count=count, seed=seed)
        drawn: TokenRollout = self._drawn[1]
        return drawn

    def draw(self, index: int, *, count: int, seed: int) -> TokenRollout:
        """``count`` new samples, scored: whole groups, walking through the prompts.

        Raises:
            ConfigError: ``count`` samples are no whole number of groups, or no sample of a prompt has a score.
        """
        G = self.online.group_size
        if count % G:
            raise ConfigError(
                f"train.batch_size x updates_per_rollout = {count} samples are no whole groups of "
                f"method.group_size = {G}; make it a multiple"
            )
        rows = epoch_rows(index, size=count // G, count=len(self.task.prompts), seed=seed)
        prompts = [self.task.prompts[int(row)] for row in rows for _ in range(G)]
        trajectory = self.unroll(prompts, seeds=mixed_seeds(count, seed, STEPS, index))
        scores = self.task.score(trajectory.tokens, prompts).unflatten(0, (-1, G))
        missing = scores.isnan()
        if missing.all(1).any():
            name = self.task.reward.card.name if self.task.reward else ""
            raise ConfigError(f"reward {name}: no sample of a prompt has a score")
        filled = torch.where(missing, scores.nanmean(1, keepdim=True), scores)
        return TokenRollout(trajectory, prompts, filled, int(missing.sum()))

    def unroll(self, prompts: Sequence[str], *, seeds: Sequence[int]) -> TokenTrajectory:
        """Draw in batches of the task's size with the active weights, each process its share of every batch."""
        guidance = scale_of(self.online.guidance)
        conditioning = self.generator.condition(prompts, guidance=guidance)
        T = self.online.frames or self.generator.layout.frames
        processes, parts = Processes(), []
        for first in range(0, len(prompts), self.task.draw_batch):
            size = min(self.task.draw_batch, len(prompts) - first)
            mine = processes.share(size)
            here = range(first + mine.start, first + mine.stop)
            drawn = self.generator.rollout(
                conditioning.rows(torch.tensor(here, dtype=torch.long)),
                seeds=seeds[here.start : here.stop],
                frames=T,
                temperature=self.online.sampling_temperature,
                guidance=guidance,
            )
            # Of one length in every process, so that they can be gathered.
            tokens = stack_tokens([drawn.tokens], frames=T)
            log_prob = torch.zeros(tokens.shape, device=tokens.device)
            log_prob[:, : drawn.log_prob.shape[1]] = drawn.log_prob
            parts.append(
                replace(
                    drawn,
                    tokens=processes.gather(tokens, total=size),
                    log_prob=processes.gather(log_prob, total=size),
                )
            )
        return join_trajectories(parts, conditioning)

    def shares(self, step: int, count: int) -> Tensor:
        """The samples of this step: the k-th share of a rollout's groups."""
        k, shares = step % self.steps_per_rollout, self.steps_per_rollout
        return torch.arange(k * count // shares, (k + 1) * count // shares)

    def log_prob(self, trajectory: TokenTrajectory, sample: Tensor) -> Tensor:
        """[N, L] of some samples [N] under the active weights; gradient flows."""
        return token_log_prob(
            self.generator,
            trajectory.tokens[sample],
            trajectory.conditioning.rows(sample),
            sampler=trajectory.sampler,
        ).flatten(1)

    @torch.no_grad()
    def check_first_ratio(self, trajectory: TokenTrajectory, *, clip: float) -> None:
        """Before the first update the policy is the one that sampled: every |log ratio| is at most 1e-4 or clip / 10.

        Wider than for denoising, since drawing with a cache and one call over all tokens round differently.

        Raises:
            ConfigError: a ratio is not 1, so rollout and training compute differently.
        """
        rows = torch.arange(min(len(trajectory), self.task.draw_batch))
        now, old = self.log_prob(trajectory, rows), trajectory.log_prob[rows].flatten(1)
        worst = float((now - old.to(now.device)).abs().max())
        most = 1e-4 if self.generator.dtype == torch.float32 else clip / 10
        if not worst <= most:
            raise ConfigError(
                f"before the first step a likelihood ratio is exp({worst:.2g}), not 1 (within {most:.2g}): rollout and "
                "training compute differently; turn off dropout, compilation or lower precision"
            )
