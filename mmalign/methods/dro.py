"""Diffusion-DRO: demonstrations and one's own samples x predictions at noisy points x a ranking hinge."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mmalign.generators.rollout import Trajectory
from mmalign.generators.timesteps import NoiseLevel
from mmalign.losses.ranking import diffusion_dro_loss
from mmalign.methods.base import Task, epoch_rows, mixed_seeds, step_generator
from mmalign.methods.configs import DROConfig
from mmalign.methods.latents import LatentSamples
from mmalign.methods.online import NOISE, STEPS, OnlineMethod
from mmalign.sampling.parametrisation import Kind, add_noise, target


@dataclass(frozen=True, eq=False)
class ExpertsAndOwn:
    """Demonstrations, noised, beside points of the policy's own trajectories at the same prompts and noise levels.

    Args:
        rows: [B], which demonstrations.
        noise: [B, ...], of the demonstrations.
        level: B noise levels, of both sides.
        own: [B, ...], noisy latents of the snapshot's trajectories.
        own_prediction: [B, ...], what the snapshot said there.
    """

    rows: Tensor
    noise: Tensor
    level: NoiseLevel
    own: Tensor
    own_prediction: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    def part(self, start: int, stop: int) -> "ExpertsAndOwn":
        """Its rows from ``start`` to ``stop``."""
        rows = slice(start, stop)
        level = self.level.rows(torch.arange(start, stop))
        return ExpertsAndOwn(
            self.rows[rows], self.noise[rows], level, self.own[rows], self.own_prediction[rows]
        )


class DRO(OnlineMethod):
    """Rank demonstrations above the trajectories of a snapshot of the policy, by errors against the reference.

        d = [e_phi(x_e) - e_ref(x_e)] - [e_phi(x_p) - e_ref(x_p)],   L = mean max(0, d + margin)

    where e(x_e) is the error of predicting a demonstration's noise and e(x_p) the distance to what the snapshot itself
    predicted at a point of its trajectory, at the same noise level. A flow's errors are of velocities, which is ours.
    The snapshot is the policy at the last rollout, ``updates_per_rollout`` steps ago at most.

    Denoiser passes per demonstration: ``rollout_steps`` / ``updates_per_rollout`` forward for the snapshot, two forward
    and backward (policy), two forward (reference).

    Source: Wu et al. 2025, Diffusion-DRO, section 4 and algorithm 1 (arXiv:2510.18353).
    """

    def __init__(self, config: DROConfig, task: Task) -> None:
        self.experts = task.data_of(LatentSamples, what="demonstrations")
        super().__init__(config, task)
        self.config = config

    def batch(self, step: int, *, size: int, seed: int) -> ExpertsAndOwn:
        """Each demonstration with a trajectory of its own prompt, both at a random step's noise level."""
        index, k = divmod(step, self.steps_per_rollout)
        count = size * self.steps_per_rollout
        rows = epoch_rows(index, size=count, count=len(self.experts), seed=seed)
        key = (index, count, seed)
        if self._drawn is None or self._drawn[0] != key:
            self._drawn = None
            self._drawn = (
                key,
                self.unroll(
                    self.experts.texts_of(rows),
                    noise_seeds=mixed_seeds(count, seed, NOISE, index),
                    step_seeds=mixed_seeds(count, seed, STEPS, index),
                    window=None,
                ),
            )
        trajectory: Trajectory = self._drawn[1]
        mine = torch.arange(k * size, (k + 1) * size)
        random = step_generator(seed, step)
        at = torch.randint(self.config.rollout_steps, (size,), generator=random)
        noise = torch.randn(size, *self.experts.clean.shape[1:], generator=random)
        level, to = trajectory.levels.rows(at), trajectory.levels.rows(at + 1)
        here, there = (trajectory.latents[mine, j].cpu() for j in (at, at + 1))
        return ExpertsAndOwn(
            rows[mine],
            noise,
            level,
            here,
            taken_prediction(here, there, level, to, self.generator.timesteps.kind),
        )

    def loss(self, batch: ExpertsAndOwn) -> tuple[Tensor, dict[str, Tensor]]:
        """The ranking hinge, with the share of pairs that still pull."""
        device, kind = self.generator.device, self.generator.timesteps.kind
        level = batch.level.to(device)
        clean, noise = self.experts.clean[batch.rows].to(device), batch.noise.to(device)
        expert = add_noise(clean, noise, level.alpha, level.sigma)
        goal = target(clean, noise, level.alpha, level.sigma, kind)
        both = torch.cat([expert, batch.own.to(device)])
        levels = level.rows(torch.arange(len(batch)).repeat(2))
        conditioning = self.experts.conditioning.rows(self.experts.prompt[batch.rows].repeat(2))
        found = self.generator.predict(both, levels, conditioning).output
        with torch.no_grad(), self.generator.weights("reference"):
            reference = self.generator.predict(both, levels, conditioning).output
        (on_expert, on_own), (ref_expert, ref_own) = found.chunk(2), reference.chunk(2)
        loss = diffusion_dro_loss(
            on_expert,
            ref_expert,
            goal,
            on_own,
            ref_own,
            batch.own_prediction.to(device),
            margin=self.config.margin,
        )
        with torch.no_grad():
            metrics = {
                "expert_error": (on_expert - goal).square().mean(),
                "own_drift": (on_own - batch.own_prediction.to(device)).square().mean(),
            }
        return loss, metrics


def taken_prediction(here: Tensor, there: Tensor, level: NoiseLevel, to: NoiseLevel, kind: Kind) -> Tensor:
    """What a network of this kind put out for a deterministic step, read back from the step.

    ``there = to.alpha * clean + to.sigma * noise`` and ``here = alpha * clean + sigma * noise`` are two equations for
    the two unknowns, so that no prediction has to be stored.
    """

    def column(values: Tensor) -> Tensor:
        return values.reshape(-1, *[1] * (here.ndim - 1))

    alpha, sigma, alpha_to, sigma_to = map(column, (level.alpha, level.sigma, to.alpha, to.sigma))
    determinant = alpha * sigma_to - sigma * alpha_to
    clean = (sigma_to * here - sigma * there) / determinant
    noise = (alpha * there - alpha_to * here) / determinant
    return target(clean, noise, level.alpha, level.sigma, kind)
