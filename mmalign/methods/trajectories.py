"""What methods on the random steps of trajectories share: how samples are drawn, and that the first ratio is 1."""

import torch
from torch import Tensor

from mmalign.errors import ConfigError
from mmalign.generators.rollout import Sampler, Trajectory, scored_step
from mmalign.methods.base import Task
from mmalign.methods.configs.online import TrajectoryConfig
from mmalign.methods.online import OnlineMethod, scale_of


class TrajectoryMethod(OnlineMethod):
    """An online method on the log-probability of random steps; a diffusion's is DDIM's with eta = ``noise_level``."""

    def __init__(self, config: TrajectoryConfig, task: Task) -> None:
        super().__init__(config, task)
        self.trajectories = config

    def sampler(self) -> Sampler:
        """The random sampler of the settings."""
        return random_sampler(self.trajectories)

    def window(self, generator: torch.Generator) -> range:
        """The random and trained steps of a rollout."""
        return random_steps(self.trajectories, generator)

    @torch.no_grad()
    def check_first_ratio(self, trajectory: Trajectory, *, clip: float) -> None:
        """Before the first update the policy is the one that sampled: |log ratio| <= 1e-5 in fp32, clip / 10 in less.

        Raises:
            ConfigError: a ratio is not 1, so rollout and training compute differently.
        """
        rows = torch.arange(min(len(trajectory), self.task.draw_batch))
        for step in trajectory.window:
            now = scored_step(self.generator, trajectory, rows, torch.full_like(rows, step)).log_prob
            old = old_log_prob(trajectory, rows, torch.full_like(rows, step)).to(now.device)
            worst = float((now - old).abs().max())
            most = 1e-5 if self.generator.dtype == torch.float32 else clip / 10
            if not worst <= most:
                raise ConfigError(
                    f"before the first step a likelihood ratio is exp({worst:.2g}), not 1 (within {most:.2g}): rollout "
                    "and training compute differently; turn off dropout, compilation or lower precision"
                )


def random_sampler(config: TrajectoryConfig) -> Sampler:
    """How the settings say that steps are taken."""
    return Sampler(
        noise_level=config.noise_level,
        flow_step=config.flow_step,
        guidance=scale_of(config.guidance),
        ratio_guidance=config.ratio_guidance,
    )


def random_steps(config: TrajectoryConfig, generator: torch.Generator) -> range:
    """The random steps of a rollout: a window at a random place in the first half, or all but the last.

    >>> from mmalign.methods.configs import D3POConfig
    >>> random_steps(D3POConfig(rollout_steps=6), torch.Generator())
    range(0, 5)
    """
    size, count = config.window, config.rollout_steps
    if size == 0:
        return range(count - 1)
    first = int(torch.randint(max(1, count // 2 - size + 1), (), generator=generator))
    return range(first, first + size)


def old_log_prob(trajectory: Trajectory, sample: Tensor, step: Tensor) -> Tensor:
    """[N], of recorded steps under the weights that made them."""
    return trajectory.log_prob[sample, step - trajectory.window.start]
