"""Reward guidance: steer each denoising step along the gradient of one or several rewards, weighted by the user."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from mmalign.generators.rollout import Sampler, begin
from mmalign.generators.timesteps import NoiseLevel
from mmalign.media import Sample
from mmalign.rewards.base import DifferentiableReward
from mmalign.sampling.parametrisation import Prediction, with_noise

NoisyReward = Callable[[Tensor, Prediction, Sequence[str]], Tensor]
"""Rewards [B] of noisy latents [B, ...], with gradient to the latents; the prediction there is a constant."""

LARGEST_SIGMA = 0.95
"""Above it a flow's factor sigma / (1 - sigma) is too large to follow, and there is little to judge."""


def guided(prediction: Prediction, gradient: Tensor, *, weight: float = 1.0) -> Prediction:
    """A prediction whose score is that of the data tilted by exp(weight * reward).

        score' = score + weight * gradient,   noise' = noise - sigma * weight * gradient

    so that a flow's velocity becomes v - sigma / (1 - sigma) * weight * gradient.

    Args:
        prediction: at noisy latents [B, ...].
        gradient: as the latents, of the reward of noisy latents.
        weight: how much.

    Returns:
        The prediction, of the same kind; unchanged where alpha is 0, since pure noise has nothing to steer.

    Source: Liu et al. 2025, Improving Video Generation with Human Feedback, section 4.3, Flow-NRG (arXiv:2501.13918);
    for a diffusion Dhariwal and Nichol 2021, section 4.2 (arXiv:2105.05233).
    """
    sigma = prediction.sigma.reshape(-1, *[1] * (gradient.ndim - 1))
    defined = (prediction.alpha > 0).reshape(-1, *[1] * (gradient.ndim - 1))
    steered = with_noise(prediction, prediction.noise - sigma * weight * gradient)
    output = torch.where(defined, steered.output, prediction.output)
    return Prediction(prediction.noisy, output, prediction.alpha, prediction.sigma, prediction.kind)


def reward_of_estimate(adapter: Any, reward: DifferentiableReward) -> NoisyReward:
    """A reward of media as one of noisy latents: that of their clean estimate, the network's output being a constant.

    No reward trained on noisy latents is needed, at the price of a blurred estimate at high noise.
    """

    def score(noisy: Tensor, prediction: Prediction, prompts: Sequence[str]) -> Tensor:
        here = Prediction(noisy, prediction.output, prediction.alpha, prediction.sigma, prediction.kind)
        return reward.score_with_grad(
            adapter.decode_with_grad(here.clean), [Sample(prompt) for prompt in prompts]
        )

    return score


def sample_with_reward(
    adapter: Any,
    rewards: Sequence[tuple[NoisyReward, float]],
    prompts: Sequence[str],
    *,
    seeds: Sequence[int],
    steps: int,
    guidance: float | None = None,
    largest_sigma: float = LARGEST_SIGMA,
    **options: Any,
) -> Tensor:
    """Clean latents [B, ...] of a deterministic sampler that follows rewards.

    Args:
        adapter: draws.
        rewards: with their weights; a weight is in the inverse unit of its reward.
        prompts: B texts.
        seeds: B.
        steps: of denoising; each costs one decode and one backward through every reward, and no further pass.
        guidance: classifier-free guidance, applied first.
        largest_sigma: no reward is followed above it.
        options: the pipeline's own.
    """
    generator = adapter.generator
    start = begin(generator, prompts, seeds=seeds, steps=steps, guidance=guidance, **options)
    noisy = start.noise.to(generator.device)
    for k in range(len(start.levels) - 1):
        here, to = (start.levels.rows(torch.full((len(noisy),), j)) for j in (k, k + 1))
        with torch.no_grad():
            prediction = generator.predict(noisy, here, start.conditioning, guidance=guidance)
        if float(here.sigma[0]) <= largest_sigma and any(weight != 0 for _, weight in rewards):
            prediction = guided(prediction, reward_gradient(noisy, prediction, rewards, prompts))
        noisy = Sampler(noise_level=0.0).step(prediction, _on(to, noisy)).sample
    return noisy


def reward_gradient(
    noisy: Tensor,
    prediction: Prediction,
    rewards: Sequence[tuple[NoisyReward, float]],
    prompts: Sequence[str],
) -> Tensor:
    """sum_k weight_k * d reward_k / d noisy, as ``noisy``."""
    with torch.enable_grad():
        leaf = noisy.detach().requires_grad_()
        total = torch.zeros((), device=noisy.device)
        for reward, weight in rewards:
            if weight != 0:
                total = total + weight * reward(leaf, prediction, prompts).sum()
        (gradient,) = torch.autograd.grad(total, leaf)
    return gradient


def _on(level: NoiseLevel, like: Tensor) -> NoiseLevel:
    return level.to(like.device)
