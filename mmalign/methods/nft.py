"""DiffusionNFT: online groups of an older policy x predictions at noisy points x a contrast of good and bad samples."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mmalign.generators.conditioning import Conditioning
from mmalign.generators.timesteps import NoiseLevel
from mmalign.losses.advantages import flow_grpo_advantages
from mmalign.losses.drift import velocity_drift
from mmalign.losses.negative_aware import nft_loss, nft_old_decay, optimality_probability
from mmalign.methods.base import Task, step_generator
from mmalign.methods.configs import NFTConfig
from mmalign.methods.online import OnlineMethod
from mmalign.sampling.parametrisation import add_noise

SCHEDULES: dict[str, dict[str, float]] = {
    "rising": {},
    "none": {"slope": 0.0},
    "late": {"slope": 0.0075, "start": 75, "most": 0.999},
}
"""The published schedules of how slowly the old policy follows."""


@dataclass(frozen=True, eq=False)
class NoisedRollout:
    """Samples of the old policy, noised, with how good each is.

    Args:
        clean: [N, ...].
        conditioning: of all samples of the rollout.
        sample: [N], index into ``conditioning``.
        noise: [N, ...].
        level: N noise levels.
        optimality: [N], in [0, 1].
        notes: numbers of the whole rollout, for the metrics.
    """

    clean: Tensor
    conditioning: Conditioning
    sample: Tensor
    noise: Tensor
    level: NoiseLevel
    optimality: Tensor
    notes: dict[str, float]

    def __len__(self) -> int:
        return len(self.clean)

    def part(self, start: int, stop: int) -> "NoisedRollout":
        """Its rows from ``start`` to ``stop``."""
        rows = slice(start, stop)
        return NoisedRollout(
            self.clean[rows],
            self.conditioning,
            self.sample[rows],
            self.noise[rows],
            self.level.rows(torch.arange(start, stop)),
            self.optimality[rows],
            self.notes,
        )


class NFT(OnlineMethod):
    """DiffusionNFT on any denoiser: no likelihood of a trajectory, any sampler, no guidance.

        good = beta * x_theta + (1 - beta) * x_old,   bad = (1 + beta) * x_old - beta * x_theta
        L = A_max / beta * mean [r * |good - x0|^2 / size + (1 - r) * |bad - x0|^2 / size]
            + kl_weight * |v_theta - v_ref|^2

    Denoiser passes per sample: ``rollout_steps`` forward, and for each of ``times_per_sample`` one forward and backward
    (policy) and two forward (old policy and reference).

    Source: Zheng et al. 2025, DiffusionNFT, section 3 (arXiv:2509.16117), in the form of its code.
    """

    def __init__(self, config: NFTConfig, task: Task) -> None:
        super().__init__(config, task)
        self.config = config
        self.generator.kept.keep("old")

    def batch(self, step: int, *, size: int, seed: int) -> NoisedRollout:
        """``size`` samples, each at a few of the rollout's noise levels with new noise."""
        with self.generator.weights("old"):
            drawn = self.rollout(step, size=size, seed=seed)
        optimality = optimality_probability(
            flow_grpo_advantages(drawn.scores), advantage_max=self.config.advantage_clip
        ).flatten()
        sample = self.shares(step, len(drawn.prompts)).repeat_interleave(self.config.times_per_sample)
        random = step_generator(seed, step)
        clean = drawn.trajectory.clean[sample].cpu()
        levels = len(drawn.trajectory.levels) - 1
        at = torch.randint(levels, (len(sample),), generator=random)
        return NoisedRollout(
            clean,
            drawn.trajectory.conditioning,
            sample,
            torch.randn(clean.shape, generator=random),
            drawn.trajectory.levels.rows(at),
            optimality[sample],
            drawn.notes(),
        )

    def loss(self, batch: NoisedRollout) -> tuple[Tensor, dict[str, Tensor]]:
        """The contrast and the pull to the reference, with the drift."""
        device = self.generator.device
        clean, level = batch.clean.to(device), batch.level.to(device)
        noisy = add_noise(clean, batch.noise.to(device), level.alpha, level.sigma)
        conditioning = batch.conditioning.rows(batch.sample)
        now = self.generator.predict(noisy, level, conditioning)
        with torch.no_grad():
            with self.generator.weights("old"):
                old = self.generator.predict(noisy, level, conditioning)
            with self.generator.weights("reference"):
                reference = self.generator.predict(noisy, level, conditioning)
        loss = nft_loss(
            now.clean,
            old.clean,
            clean,
            batch.optimality.to(device),
            beta=self.config.strength,
            advantage_max=self.config.advantage_clip,
        )
        drift = velocity_drift(now.velocity, reference.velocity).mean()
        metrics = {name: torch.tensor(value) for name, value in batch.notes.items()}
        metrics["drift"] = drift.detach()
        return loss + self.config.kl_weight * drift, metrics

    def after_step(self, step: int) -> None:
        """After a rollout's last update the old policy follows."""
        if step % self.steps_per_rollout == 0:
            decay = nft_old_decay(step, **SCHEDULES[self.config.old_decay])  # type: ignore[arg-type]
            self.generator.kept.blend("old", decay=decay)

    def state(self) -> dict[str, Tensor]:
        """The old policy, beside what the reward has learnt."""
        return {**super().state(), **self.generator.kept.state()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """The old policy and what the reward had learnt, as they were."""
        learnt = super().state().keys()
        super().load_state({name: state[name] for name in learnt & state.keys()})
        self.generator.kept.load_state({name: t for name, t in state.items() if name not in learnt})
