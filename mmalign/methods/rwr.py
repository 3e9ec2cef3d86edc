"""Reward-weighted regression: scored samples x the denoising surrogate x a weighted likelihood."""

import torch
from torch import Tensor

from mmalign.errors import ConfigError
from mmalign.likelihoods import denoising_log_likelihood
from mmalign.losses.regression import best_weights, exp_weights, softmax_weights, weighted_likelihood_loss
from mmalign.methods.base import Method, Task, epoch_rows, step_generator
from mmalign.methods.configs import RWRConfig
from mmalign.methods.denoising_samples import NoisedBatch, training_level
from mmalign.methods.latents import LatentSamples


class RWR(Method):
    """Imitate scored samples, the better ones of each prompt more.

        L = mean w(r) * 1/2 * mean_e (network - target)^2

    Weights of a prompt's samples add up to their number, so that a prompt whose scores are equal is plain fine-tuning.
    Denoiser passes per sample and step: one forward and backward.

    Source: Liu et al. 2025, Improving Video Generation with Human Feedback, section 4 (arXiv:2501.13918), as
    Flow-RWR; Lee et al. 2023, Aligning Text-to-Image Models using Human Feedback, section 3.3 (arXiv:2302.12192).
    """

    def __init__(self, config: RWRConfig, task: Task) -> None:
        self.config, self.generator = config, task.generator
        self.samples = task.data_of(LatentSamples, what="scored samples")
        if self.samples.score is None:
            raise ConfigError("rwr learns from scored samples, and these have no scores: give --ratings FILE")
        self.weight = prompt_weights(self.samples.score, self.samples.prompt, config)

    def batch(self, step: int, *, size: int, seed: int) -> NoisedBatch:
        """One noise and one noise level a sample."""
        random = step_generator(seed, step)
        rows = epoch_rows(step, size=size, count=len(self.samples), seed=seed)
        noise = torch.randn(size, *self.samples.clean.shape[1:], generator=random)
        level = training_level(self.generator, size, random=random)
        return NoisedBatch(rows, noise, level, self.weight[rows])

    def loss(self, batch: NoisedBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted loss, with the unweighted error and the share of rows that matter."""
        device = self.generator.device
        log_prob = denoising_log_likelihood(
            self.generator,
            self.samples.clean[batch.rows].to(device),
            self.samples.conditioning.rows(self.samples.prompt[batch.rows]),
            noise=batch.noise.to(device),
            level=batch.level,
        )
        loss = weighted_likelihood_loss(log_prob, batch.weight.to(device))
        return loss, {"error": -2 * log_prob.detach().mean(), "weight": batch.weight.mean()}


def prompt_weights(score: Tensor, prompt: Tensor, config: RWRConfig) -> Tensor:
    """Weights [N] of samples by their scores [N] among the samples of their prompt [N], whose mean is 1."""
    weight = torch.zeros_like(score)
    for index in prompt.unique():
        rows = prompt == index
        scores = score[rows]
        # One unit is a standard deviation within the prompt, whatever unit the scorer has.
        standard = (scores - scores.mean()) / scores.std(correction=0).clamp_min(1e-6)
        match config.weighting:
            case "softmax":
                weights = softmax_weights(standard[None], temperature=config.temperature)[0]
            case "exp":
                weights = exp_weights(standard, temperature=config.temperature)
            case _:
                weights = best_weights(scores[None])[0]
        weight[rows] = weights * (len(weights) / weights.sum())
    return weight
