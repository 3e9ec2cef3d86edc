"""ReFL: the reward of a one-step estimate of the clean sample, from a random late step, back-propagated."""

import torch
from torch import Tensor

from mmalign.likelihoods import denoising_log_likelihood
from mmalign.losses.reward_backprop import draw_step, refl_loss
from mmalign.methods.base import Task, epoch_rows, step_generator
from mmalign.methods.configs import ReFLConfig
from mmalign.methods.denoising_samples import training_level
from mmalign.methods.latents import LatentSamples
from mmalign.methods.reward_gradient import PromptBatch, RewardGradientMethod


class ReFL(RewardGradientMethod):
    """ReFL on any denoiser.

        L = reward_weight * mean relu(ceiling - R(x_hat_j)) + denoising_weight * mean_e (network - target)^2

    x_hat_j is the clean estimate at a random step j of the last quarter of the chain; the steps before carry no
    gradient, and R is in standard deviations of the reference's rewards. The second term is on demonstrations.

    Denoiser passes per sample: up to ``rollout_steps`` - 1 forward, one forward and backward.

    Source: Xu et al. 2023, ImageReward, algorithm 1 (arXiv:2304.05977).
    """

    def __init__(self, config: ReFLConfig, task: Task) -> None:
        super().__init__(config, task)
        self.config = config
        self.demonstrations = (
            task.data_of(LatentSamples, what="demonstrations") if config.denoising_weight > 0 else None
        )

    def batch(self, step: int, *, size: int, seed: int) -> PromptBatch:
        """Prompts, with the random late step that all of them share."""
        prompts, seeds = self.draw_prompts(step, size=size, seed=seed)
        steps = self.config.rollout_steps
        j = draw_step(int(self.config.first_share * steps), steps - 1, generator=step_generator(seed, step))
        return PromptBatch(prompts, seeds, [j] * size)

    def loss(self, batch: PromptBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, with the mean reward of the estimates in its own unit."""
        j = batch.number[0]
        start = self.start(batch.prompts, batch.seeds)
        with torch.no_grad():
            noisy = self.walk(start, start.noise.to(self.generator.device), 0, j)
        reward = self.standardised(self.predict(start, noisy, j).clean, batch.prompts)
        mean, std = self.unit()
        metrics = {"train_reward": reward.detach().mean() * std + mean}
        error = None
        if self.demonstrations is not None:
            error = self.config.denoising_weight * self._denoising_error(batch, self.demonstrations)
            metrics["denoising_error"] = error.detach().mean() / self.config.denoising_weight
        loss = refl_loss(
            reward, target=self.config.ceiling, scale=self.config.reward_weight, pretraining_error=error
        )
        return loss, metrics

    def _denoising_error(self, batch: PromptBatch, data: LatentSamples) -> Tensor:
        """[B], of as many demonstrations as the batch has prompts."""
        random = torch.Generator().manual_seed(batch.seeds[0])
        rows = epoch_rows(0, size=len(batch), count=len(data), seed=batch.seeds[0])
        noise = torch.randn(len(batch), *data.clean.shape[1:], generator=random).to(self.generator.device)
        log_prob = denoising_log_likelihood(
            self.generator,
            data.clean[rows].to(self.generator.device),
            data.conditioning.rows(data.prompt[rows]),
            noise=noise,
            level=training_level(self.generator, len(batch), random=random),
        )
        return -2 * log_prob
