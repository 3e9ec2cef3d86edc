"""What online methods on tokens share: how the samples of a rollout are drawn, and their likelihood."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from mmalign.errors import ConfigError
from mmalign.generators.token_layouts import stack_tokens
from mmalign.generators.tokens import TokenGenerator, TokenTrajectory, join_trajectories
from mmalign.likelihoods import token_log_prob
from mmalign.methods.base import Task, mixed_seeds
from mmalign.methods.configs.tokens import TokenOnlineConfig
from mmalign.methods.groups import GroupMethod, Rollout
from mmalign.methods.online import STEPS, scale_of
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


class TokenOnlineMethod(GroupMethod):
    """Groups of token sequences of a token generator."""

    def __init__(self, config: TokenOnlineConfig, task: Task) -> None:
        super().__init__(config, task)
        self.online = config
        self.generator = token_generator(task)
        own = self.generator.layout.frames or getattr(task.adapter, "frames", None)
        self.frames = config.frames or own
        if self.frames is None:
            raise ConfigError(f"method.frames: {config.name} has to know how long a sample may be")

    def draw_unscored(self, index: int, *, count: int, seed: int) -> tuple[TokenTrajectory, list[str]]:
        """The samples and their prompts."""
        prompts = self.grouped_prompts(index, count=count, seed=seed)
        return self.unroll(prompts, seeds=mixed_seeds(count, seed, STEPS, index)), prompts

    def encoded(self, trajectory: TokenTrajectory) -> Tensor:
        """Tokens."""
        return trajectory.tokens

    def notes(self, drawn: Rollout) -> dict[str, float]:
        """Numbers of a rollout for the metrics, with the length of its samples."""
        return drawn.notes() | {"frames": float(drawn.trajectory.mask[..., 0].sum(1).float().mean())}

    def unroll(self, prompts: Sequence[str], *, seeds: Sequence[int]) -> TokenTrajectory:
        """Draw in batches of the task's size with the active weights, each process its share of every batch."""
        guidance = scale_of(self.online.guidance)
        conditioning = self.generator.condition(prompts, guidance=guidance)
        T = self.frames
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
