"""Dynamic guidance: at every step each sample takes the guidance scale whose result the rewards like best."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from mmalign.errors import ConfigError
from mmalign.generators.rollout import Sampler, begin
from mmalign.media import Sample
from mmalign.rewards.base import Reward
from mmalign.rewards.direction import turned
from mmalign.rewards.groups import compares

SCALES = (1.0, 3.0, 7.5, 11.0, 15.0)
"""The paper's candidates for latent diffusion."""


@torch.no_grad()
def sample_with_dynamic_guidance(
    adapter: Any,
    rewards: Sequence[tuple[Reward, float]],
    prompts: Sequence[str],
    *,
    seeds: Sequence[int],
    steps: int,
    scales: Sequence[float] = SCALES,
    **options: Any,
) -> tuple[Tensor, Tensor]:
    """Clean latents of a deterministic sampler whose guidance follows rewards.

    At each step one conditional and one unconditional pass give a clean estimate for every scale; each reward scores
    them, its scores are standardised over the scales, and the weighted sum decides, the smaller scale winning ties.
    Rewards read the decoded estimate; the paper's read noisy latents and are trained for it.

    Args:
        adapter: draws.
        rewards: with their weights.
        prompts: B texts.
        seeds: B.
        steps: of denoising; the passes are those of one guided sample, whatever the number of scales.
        scales: candidates.
        options: the pipeline's own.

    Returns:
        Latents [B, ...] and the scales that were taken [B, steps].

    Raises:
        ConfigError: no scales, or a pipeline without guidance.

    Source: Papalampidi et al. 2025, Dynamic Classifier-Free Diffusion Guidance via Online Feedback (arXiv:2509.16131).
    """
    generator = adapter.generator
    ordered = sorted(scales)
    if not ordered:
        raise ConfigError("scales: expected at least one")
    if generator.guidance.layout == "none":
        raise ConfigError(f"{type(generator.pipeline).__name__} has no guidance whose scale could be chosen")
    start = begin(generator, prompts, seeds=seeds, steps=steps, guidance=max(ordered[-1], 2.0), **options)
    noisy, taken = start.noise.to(generator.device), []
    for k in range(len(start.levels) - 1):
        here, to = (start.levels.rows(torch.full((len(noisy),), j)).to(noisy.device) for j in (k, k + 1))
        conditional = generator.predict(noisy, here, start.conditioning)
        other = generator.unconditional_output(conditional, here, start.conditioning)
        candidates = [
            replace(conditional, output=a * conditional.output + b * other)
            for a, b in map(generator.guidance.weights, ordered)
        ]
        choice = torch.zeros(len(noisy), dtype=torch.long)
        if len(candidates) > 1:
            media = [adapter.decode(candidate.clean) for candidate in candidates]
            choice = preferred(media, rewards, prompts)
        outputs = torch.stack([candidate.output for candidate in candidates], 1)
        output = outputs[torch.arange(len(noisy)), choice.to(outputs.device)]
        noisy = Sampler(noise_level=0.0).step(replace(conditional, output=output), to).sample
        taken.append(torch.tensor(ordered)[choice])
    return noisy, torch.stack(taken, 1)


def preferred(
    media: Sequence[Sequence[Any]], rewards: Sequence[tuple[Reward, float]], prompts: Sequence[str]
) -> Tensor:
    """The candidate [B] that the weighted, standardised rewards like best; the first of equals.

    Args:
        media: S lists of B media.
        rewards: with their weights; a candidate without a score counts as its sample's mean.
        prompts: B texts.
    """
    total = torch.zeros(len(prompts), len(media))
    for reward, weight in rewards:
        rows = [[Sample(p, m) for p, m in zip(prompts, row, strict=True)] for row in media]
        if compares(reward):  # the candidates of a prompt are what it compares
            scores = turned(reward.score([sample for row in rows for sample in row]), reward)
            scores = scores.unflatten(0, (len(media), len(prompts))).T
        else:
            scores = torch.stack([turned(reward.score(row), reward) for row in rows], 1)
        centred = scores - scores.nanmean(1, keepdim=True)
        centred = centred.nan_to_num(0.0)
        std = centred.square().mean(1, keepdim=True).sqrt()
        total += weight * torch.where(std > 1e-6, centred / std.clamp_min(1e-6), torch.zeros_like(centred))
    return total.argmax(1)
