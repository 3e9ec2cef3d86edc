"""Reward-guided consistency distillation: a teacher's steps x the student's one-step result x distance less reward."""

import torch
from torch import Tensor

from mmalign.generators.conditioning import Conditioning, concatenate
from mmalign.generators.rollout import Sampler, begin
from mmalign.generators.timesteps import NoiseLevel
from mmalign.losses.distillation import reward_distillation_loss
from mmalign.methods.base import Task, epoch_rows, step_generator
from mmalign.methods.configs import RewardDistillationConfig
from mmalign.methods.denoising_samples import NoisedBatch
from mmalign.methods.latents import LatentSamples
from mmalign.methods.online import scale_of
from mmalign.methods.reward_gradient import RewardGradientMethod
from mmalign.sampling.parametrisation import add_noise


class RewardDistillation(RewardGradientMethod):
    """Distil a generator to few steps while its one-step results gain reward.

        L = mean pseudo_huber(f_theta(x_t), f_target(x_t')) - reward_weight * mean R(f_theta(x_t))

    f is the clean estimate, x_t a noised sample of the teacher, x_t' what one deterministic step of the guided teacher
    makes of it, f_target a slow average of the student, and f_target(x_t') = x_t' at the clean end. Student and target
    are LoRAs on the teacher's own weights, and the guidance of the teacher goes into the student, which is drawn with
    none. A flow's estimate x - sigma * v is exact at sigma = 0, as the boundary condition wants.

    Denoiser passes per sample: one forward and backward (student), one forward (target), one or two (teacher).

    Source: Li et al. 2024, Reward Guided Latent Consistency Distillation, section 4 (arXiv:2403.11027), at one fixed
    guidance, since these models have no input for it; on flows the extension is ours.
    """

    def __init__(self, config: RewardDistillationConfig, task: Task) -> None:
        super().__init__(config, task)
        self.config = config
        self.samples = task.data_of(LatentSamples, what="samples of the teacher")
        self.generator.kept.keep("target")
        options = {k: v for k, v in task.sampling.items() if k not in ("steps", "guidance")}
        scale, texts = scale_of(config.guidance), self.samples.texts
        starts = []
        for first in range(0, len(texts), task.draw_batch):
            some = texts[first : first + task.draw_batch]
            seeds = range(len(some))
            starts.append(
                begin(
                    self.generator, some, seeds=seeds, steps=config.rollout_steps, guidance=scale, **options
                )
            )
        self.conditioning: Conditioning = concatenate([start.conditioning for start in starts])
        self.levels: NoiseLevel = starts[0].levels

    def batch(self, step: int, *, size: int, seed: int) -> NoisedBatch:
        """Samples, each with noise of its own at a random level of the teacher's grid; ``weight`` is its index."""
        random = step_generator(seed, step)
        rows = epoch_rows(step, size=size, count=len(self.samples), seed=seed)
        noise = torch.randn(size, *self.samples.clean.shape[1:], generator=random)
        at = torch.randint(self.config.rollout_steps, (size,), generator=random)
        return NoisedBatch(rows, noise, self.levels.rows(at), at.float())

    def loss(self, batch: NoisedBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Distance and reward, with the mean reward of the one-step results in its own unit."""
        device = self.generator.device
        level, to = batch.level.to(device), self.levels.rows(batch.weight.long() + 1).to(device)
        conditioning = self.conditioning.rows(self.samples.prompt[batch.rows])
        clean = self.samples.clean[batch.rows].to(device)
        noisy = add_noise(clean, batch.noise.to(device), level.alpha, level.sigma)
        with torch.no_grad():
            with self.generator.weights("reference"):
                taught = self.generator.predict(
                    noisy, level, conditioning, guidance=scale_of(self.config.guidance)
                )
            nearer = Sampler(noise_level=0.0).step(taught, to).sample
            with self.generator.weights("target"):
                target = self.generator.predict(nearer, to, conditioning).clean
            ended = (to.sigma == 0).reshape(-1, *[1] * (nearer.ndim - 1))
            target = torch.where(ended, nearer, target)
        output = self.generator.predict(noisy, level, conditioning).clean
        reward = self.standardised(output, self.samples.texts_of(batch.rows))
        loss = reward_distillation_loss(
            output, target, reward, reward_weight=self.config.reward_weight, c=self.config.huber
        )
        mean, std = self.unit()
        metrics = {
            "train_reward": reward.detach().mean() * std + mean,
            "distance": (output.detach() - target).abs().mean(),
        }
        return loss, metrics

    def after_step(self, step: int) -> None:
        """The target follows the student slowly."""
        self.generator.kept.blend("target", decay=self.config.target_decay)

    def state(self) -> dict[str, Tensor]:
        """The unit of the reward and the target."""
        return {**super().state(), **self.generator.kept.state()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """The unit of the reward and the target, as they were."""
        super().load_state({"unit": state["unit"]})
        self.generator.kept.load_state({name: value for name, value in state.items() if name != "unit"})
