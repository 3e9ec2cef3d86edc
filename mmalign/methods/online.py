"""What online methods on denoisers share: how the trajectories of a rollout are drawn."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from mmalign.generators.conditioning import concatenate
from mmalign.generators.rollout import Sampler, Trajectory, begin, rollout
from mmalign.methods.base import Task, mixed_generator, mixed_seeds
from mmalign.methods.configs.online import OnlineConfig
from mmalign.methods.groups import GroupMethod
from mmalign.processes import Processes

# What a random number is for; numbers of different purposes never meet.
PROMPTS, NOISE, STEPS, WINDOW, LEVELS = range(10, 15)


class OnlineMethod(GroupMethod):
    """Groups of trajectories of a denoiser."""

    def __init__(self, config: OnlineConfig, task: Task) -> None:
        super().__init__(config, task)
        self.online = config
        self.generator = task.generator

    def sampler(self) -> Sampler:
        """How samples are drawn; deterministic unless a method says otherwise."""
        return Sampler(noise_level=0.0, guidance=scale_of(self.online.guidance))

    def draw_unscored(self, index: int, *, count: int, seed: int) -> tuple[Trajectory, list[str]]:
        """The samples and their prompts."""
        prompts = self.grouped_prompts(index, count=count, seed=seed)
        noise_seeds = mixed_seeds(count, seed, NOISE, index)
        if getattr(self.online, "same_noise", False):
            G = self.online.group_size
            noise_seeds = [noise_seeds[i // G * G] for i in range(count)]
        trajectory = self.unroll(
            prompts,
            noise_seeds=noise_seeds,
            step_seeds=mixed_seeds(count, seed, STEPS, index),
            window=self.window(mixed_generator(seed, WINDOW, index)),
        )
        return trajectory, prompts

    def encoded(self, trajectory: Trajectory) -> Tensor:
        """Clean latents."""
        return trajectory.clean

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


def scale_of(guidance: float | None) -> float | None:
    """A scale, or None where there is none or it is 1 and so costs no second branch."""
    return None if guidance == 1 else guidance
