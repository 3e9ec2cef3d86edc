"""DRaFT and AlignProp: the reward of a sample, back-propagated through the last steps of its chain."""

import torch
from torch import Tensor

from mmalign.generators.rollout import Start
from mmalign.losses.reward_backprop import (
    alignprop_loss,
    draft_k_start,
    draft_loss,
    draft_lv_noisy,
    draw_step,
)
from mmalign.methods.base import Task, step_generator
from mmalign.methods.configs import DRaFTConfig
from mmalign.methods.reward_gradient import PromptBatch, RewardGradientMethod


class DRaFT(RewardGradientMethod):
    """DRaFT-K on any denoiser; DRaFT-LV with ``low_variance`` n > 1.

        L = -mean R(x_0),   x_0 through the last K deterministic steps, the latents before them constant
        L = mean |T - R(x_0)|,   with a ``target`` T

    AlignProp is ``truncation="random"`` with ``last_steps = rollout_steps``, so that any number of steps may carry the
    gradient, and a ``target``, which its code has for the aesthetic score.

    R is in standard deviations of the reference's rewards. Denoiser passes per sample: ``rollout_steps`` - K forward, K
    forward and backward; n more of the latter for DRaFT-LV.

    Source: Clark et al. 2023, Directly Fine-Tuning Diffusion Models on Differentiable Rewards, as DRaFT-K and DRaFT-LV
    (arXiv:2309.17400); Prabhudesai et al. 2023, AlignProp, section 4 (arXiv:2310.03739).
    """

    def __init__(self, config: DRaFTConfig, task: Task) -> None:
        super().__init__(config, task)
        self.config = config

    def batch(self, step: int, *, size: int, seed: int) -> PromptBatch:
        """Prompts, with the first step that carries gradient."""
        prompts, seeds = self.draw_prompts(step, size=size, seed=seed)
        steps = self.config.rollout_steps
        first = draft_k_start(steps, k=self.config.last_steps)
        if self.config.truncation == "random":
            first = draw_step(first, steps - 1, generator=step_generator(seed, step))
        return PromptBatch(prompts, seeds, [first] * size)

    def loss(self, batch: PromptBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, with the mean reward in its own unit."""
        start = self.start(batch.prompts, batch.seeds)
        first, last = batch.number[0], len(start.levels) - 1
        with torch.no_grad():
            noisy = self.walk(start, start.noise.to(self.generator.device), 0, first)
        if self.config.low_variance == 1:
            reward = self.standardised(self.walk(start, noisy, first, last), batch.prompts)
        else:
            reward = self._low_variance(start, noisy, batch)
        mean, std = self.unit()
        return self._objective(reward), {"train_reward": reward.detach().mean() * std + mean}

    def _objective(self, reward: Tensor) -> Tensor:
        """Scalar, in the unit of the standardised reward [B] or [n, B]."""
        if self.config.target is None:
            return draft_loss(reward)
        mean, std = self.unit()
        higher = self.task.reward is None or self.task.reward.card.higher_is_better
        target = self.config.target if higher else -self.config.target
        return alignprop_loss(reward.flatten(), target=(target - mean) / std, scale=1.0)

    def _low_variance(self, start: Start, noisy: Tensor, batch: PromptBatch) -> Tensor:
        """[n, B], rewards of n copies of the results, each noised to the last level and denoised with gradient."""
        last = len(start.levels) - 1
        with torch.no_grad():
            clean = self.walk(start, noisy, last - 1, last)
        level = start.levels.rows(torch.full((len(clean),), last - 1)).to(clean.device)
        random = torch.Generator().manual_seed(batch.seeds[0])
        noise = torch.randn(self.config.low_variance, *clean.shape, generator=random).to(clean.device)
        copies = draft_lv_noisy(clean, noise, level.alpha, level.sigma)
        return torch.stack(
            [self.standardised(self.walk(start, copy, last - 1, last), batch.prompts) for copy in copies]
        )
