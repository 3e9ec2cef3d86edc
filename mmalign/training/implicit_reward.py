"""The reward that a preference-tuned generator is itself: how much likelier it made a sample."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmalign.adapters.loading import load_adapter
from mmalign.errors import ConfigError
from mmalign.generators.denoising import DenoisingGenerator
from mmalign.likelihoods import denoising_log_likelihood
from mmalign.media import Sample
from mmalign.training.recipe import load_recipe

LEVELS = 8
"""Noise levels, spread evenly, and one noise each, shared by all samples and by policy and reference."""


@torch.no_grad()
def implicit_rewards(
    adapter: Any, samples: Sequence[Sample], *, batch_size: int = 16, seed: int = 0, **options: Any
) -> Tensor:
    """The implicit reward of DPO, up to its positive factor and a constant of the prompt.

        mean over levels of [ log p(sample) - log p_ref(sample) ],   both the denoising surrogate at shared noise

    Args:
        adapter: a denoising one with a LoRA, whose reference is the LoRA off.
        samples: B, of the generator's own shape.
        batch_size: of the denoiser.
        seed: of the noise.
        options: of the pipeline, as at sampling.

    Returns:
        [B]; 0 where policy and reference agree.

    Raises:
        ConfigError: a medium has another shape than the generator's.

    Source: Rafailov et al. 2023, Direct Preference Optimization, section 4 (arXiv:2305.18290), with the surrogate of
    Wallace et al. 2023, Diffusion-DPO (arXiv:2311.12908).
    """
    generator: DenoisingGenerator = adapter.generator
    count = len(generator.timesteps)
    rows = ((torch.arange(LEVELS) + 0.5) / LEVELS * count).long()
    parts = []
    for start in range(0, len(samples), batch_size):
        batch = samples[start : start + batch_size]
        latents = adapter.encode([sample.media for sample in batch])
        conditioning = adapter.condition([sample.prompt for sample in batch], **options)
        random = torch.Generator().manual_seed(seed)
        total = torch.zeros(len(batch))
        for row in rows.tolist():
            noise = torch.randn(latents.shape[1:], generator=random).to(latents).expand_as(latents)
            level = generator.timesteps.at(torch.full((len(batch),), row))
            mine = denoising_log_likelihood(generator, latents, conditioning, noise=noise, level=level)
            with generator.weights("reference"):
                reference = denoising_log_likelihood(
                    generator, latents, conditioning, noise=noise, level=level
                )
            total += (mine - reference).float().cpu() / LEVELS
        parts.append(total)
    return torch.cat(parts)


def implicit_rewards_of_run(folder: Path, samples: Sequence[Sample]) -> Tensor:
    """Those of a run's LoRA, at its own sampling options.

    Raises:
        ConfigError: the run trained no LoRA of a denoising generator.
    """
    recipe = load_recipe(str(folder / "recipe.yaml"))
    lora = folder / "lora"
    if recipe.method.on_tokens or not lora.is_dir():
        raise ConfigError(f"{folder}: only a LoRA of a denoising generator has an implicit reward here")
    options = recipe.sampling.pipeline_options()
    adapter = load_adapter(recipe.model, modality=recipe.modality, **options)
    adapter.load_lora(lora)
    return implicit_rewards(adapter, samples, **options)
