"""Flow-GRPO, by options DDPO and DanceGRPO: online groups x random steps x the clipped policy gradient."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mmalign.generators.rollout import Trajectory, scored_step
from mmalign.losses.advantages import (
    clamp_advantages,
    dance_grpo_advantages,
    flow_grpo_advantages,
    group_advantages,
)
from mmalign.losses.drift import gaussian_kl
from mmalign.losses.policy_gradient import clip_fraction, clipped_ratio_loss
from mmalign.methods.base import Task
from mmalign.methods.configs import FlowGRPOConfig
from mmalign.methods.trajectories import TrajectoryMethod, old_log_prob

ADVANTAGES = {
    "dance_grpo": dance_grpo_advantages,
    "flow_grpo": flow_grpo_advantages,
    "group": group_advantages,
}


@dataclass(frozen=True, eq=False)
class StepBatch:
    """Steps of trajectories, each with its sample's advantage.

    Args:
        trajectory: of all samples.
        sample: [N], index of a sample.
        step: [N], index of a step of the window.
        advantage: [N].
        notes: numbers of the whole rollout, for the metrics.
    """

    trajectory: Trajectory
    sample: Tensor
    step: Tensor
    advantage: Tensor
    notes: dict[str, float]

    def __len__(self) -> int:
        return len(self.sample)

    def part(self, start: int, stop: int) -> "StepBatch":
        """Its rows from ``start`` to ``stop``."""
        rows = slice(start, stop)
        return StepBatch(
            self.trajectory, self.sample[rows], self.step[rows], self.advantage[rows], self.notes
        )


class FlowGRPO(TrajectoryMethod):
    """Flow-GRPO on any denoiser; a diffusion's random step is DDIM's with eta = ``noise_level``.

        L = mean max(-A * ratio, -A * clamp(ratio, 1 - clip, 1 + clip)) + kl_weight * mean KL(step || reference step)

    One optimiser step is over all trained steps of its samples. Denoiser passes per sample: ``rollout_steps`` forward,
    and for each trained step one forward and backward and, with a KL, one forward (twice as many with guidance inside).

    Source: Liu et al. 2025, Flow-GRPO, section 4 (arXiv:2505.05470); Black et al. 2023, DDPO, section 4.3
    (arXiv:2305.13301) with ``advantages="group"`` and ``kl_weight=0`` on a diffusion; Xue et al. 2025, DanceGRPO,
    section 2 (arXiv:2505.07818) with ``flow_step="dance-sde"``.
    """

    def __init__(self, config: FlowGRPOConfig, task: Task) -> None:
        super().__init__(config, task)
        self.config = config

    def batch(self, step: int, *, size: int, seed: int) -> StepBatch:
        """All trained steps of ``size`` samples; those of a group with equal scores teach nothing and are left out."""
        drawn = self.rollout(step, size=size, seed=seed)
        advantages = ADVANTAGES[self.config.advantages](drawn.scores)
        advantages = clamp_advantages(advantages, most=self.config.advantage_clip)
        samples = self.shares(step, len(drawn.prompts))
        flat = advantages.flatten()[samples]
        if (flat != 0).any():
            samples, flat = samples[flat != 0], flat[flat != 0]
        steps = torch.tensor(list(drawn.trajectory.window))
        notes = drawn.notes() | {"equal_groups": float((advantages == 0).all(1).float().mean())}
        return StepBatch(
            drawn.trajectory,
            samples.repeat_interleave(len(steps)),
            steps.repeat(len(samples)),
            flat.repeat_interleave(len(steps)),
            notes,
        )

    def loss(self, batch: StepBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of some steps, with clip fraction, ratio and KL."""
        trajectory = batch.trajectory
        now = scored_step(self.generator, trajectory, batch.sample, batch.step)
        device = now.mean.device
        old = old_log_prob(trajectory, batch.sample, batch.step).to(device)
        advantage = batch.advantage.to(device)
        loss = clipped_ratio_loss(now.log_prob, old, advantage, clip=self.config.clip)
        difference = (now.log_prob - old).detach()
        metrics = {name: torch.tensor(value) for name, value in batch.notes.items()}
        metrics |= {
            "clip_fraction": clip_fraction(now.log_prob, old, advantage, clip=self.config.clip),
            "old_kl": 0.5 * (difference**2).mean(),
            "log_ratio": difference.abs().mean(),
        }
        if self.config.kl_weight > 0:
            with torch.no_grad(), self.generator.weights("reference"):
                reference = scored_step(self.generator, trajectory, batch.sample, batch.step)
            kl = gaussian_kl(now.mean, reference.mean, now.std).mean()
            metrics["kl"] = kl.detach()
            loss = loss + self.config.kl_weight * kl
        return loss, metrics

    def check_start(self, *, size: int, seed: int) -> None:
        """On the first pass every ratio is 1."""
        self.check_first_ratio(self.rollout(0, size=size, seed=seed).trajectory, clip=self.config.clip)
