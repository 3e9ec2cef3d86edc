"""The reward that a generator tuned by DPO is itself: how much likelier it made a sample."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmalign.adapters.loading import load_adapter
from mmalign.errors import ConfigError
from mmalign.generators.denoising import DenoisingGenerator
from mmalign.generators.token_layouts import IGNORED
from mmalign.generators.tokens import TokenGenerator
from mmalign.likelihoods import denoising_log_likelihood, token_log_prob
from mmalign.media import Sample
from mmalign.training.recipe import load_recipe

LEVELS = 8
"""Noise levels, spread evenly, and one noise each, shared by all samples and by policy and reference."""
DERIVED = ("diffusion_dpo", "flow_dpo", "token_dpo")
"""Methods whose optimum is log p / p_ref = reward / beta + a constant of the prompt. D3PO's holds of single steps of a
trajectory, which no finished sample tells; of no other method does it hold."""


@torch.no_grad()
def implicit_rewards(
    adapter: Any, samples: Sequence[Sample], *, batch_size: int = 16, seed: int = 0, **options: Any
) -> Tensor:
    """The implicit reward of DPO, up to its positive factor and a constant of the prompt.

        of a denoiser:     mean over levels of [ log p(sample) - log p_ref(sample) ],   both the denoising surrogate at
                           shared noise
        of a token model:  sum over tokens of [ log p(token) - log p_ref(token) ]

    Args:
        adapter: one with a LoRA, whose reference is the LoRA off.
        samples: B, of the generator's own shape.
        batch_size: of the model.
        seed: of the noise.
        options: of the pipeline, as at sampling.

    Returns:
        [B]; 0 where policy and reference agree.

    Raises:
        ConfigError: a medium has another shape than the generator's.

    Source: Rafailov et al. 2023, Direct Preference Optimization, section 4 (arXiv:2305.18290), with the surrogate of
    Wallace et al. 2023, Diffusion-DPO (arXiv:2311.12908).
    """
    ratios = _token_ratios if isinstance(adapter.generator, TokenGenerator) else _denoising_ratios
    return torch.cat(
        [
            ratios(adapter, samples[start : start + batch_size], seed=seed, **options)
            for start in range(0, len(samples), batch_size)
        ]
    )


def _denoising_ratios(adapter: Any, batch: Sequence[Sample], *, seed: int, **options: Any) -> Tensor:
    generator: DenoisingGenerator = adapter.generator
    count = len(generator.timesteps)
    rows = ((torch.arange(LEVELS) + 0.5) / LEVELS * count).long()
    latents = adapter.encode([sample.media for sample in batch])
    conditioning = adapter.condition([sample.prompt for sample in batch], **options)
    random = torch.Generator().manual_seed(seed)
    total = torch.zeros(len(batch))
    for row in rows.tolist():
        noise = torch.randn(latents.shape[1:], generator=random).to(latents).expand_as(latents)
        level = generator.timesteps.at(torch.full((len(batch),), row))
        mine = denoising_log_likelihood(generator, latents, conditioning, noise=noise, level=level)
        with generator.weights("reference"):
            reference = denoising_log_likelihood(generator, latents, conditioning, noise=noise, level=level)
        total += (mine - reference).float().cpu() / LEVELS
    return total


def _token_ratios(adapter: Any, batch: Sequence[Sample], *, seed: int, **options: Any) -> Tensor:
    del seed, options  # nothing is noised, and no option of drawing changes what is said
    generator: TokenGenerator = adapter.generator
    tokens = adapter.encode([sample.media for sample in batch])
    conditioning = adapter.condition([sample.prompt for sample in batch])
    mine = token_log_prob(generator, tokens, conditioning)
    with generator.weights("reference"):
        reference = token_log_prob(generator, tokens, conditioning)
    said = (tokens != IGNORED).to(mine.device)
    return ((mine - reference) * said).flatten(1).sum(1).float().cpu()


def implicit_rewards_of_run(folder: Path, samples: Sequence[Sample]) -> Tensor:
    """Those of a run's LoRA, at its own sampling options.

    Raises:
        ConfigError: the run has no LoRA, or its method is not of the DPO family.
    """
    recipe = load_recipe(str(folder / "recipe.yaml"))
    if recipe.method.name not in DERIVED:
        raise ConfigError(
            f"{folder}: the implicit reward is derived from DPO, and {recipe.method.name} has another optimum; give a "
            f"run of {', '.join(DERIVED)}, or leave out --implicit"
        )
    lora = folder / "lora"
    if not lora.is_dir():
        raise ConfigError(
            f"{folder}: this run has no LoRA, whose implicit reward is asked for; let it finish first"
        )
    options = recipe.sampling.pipeline_options()
    adapter = load_adapter(recipe.model, modality=recipe.modality, **options)
    adapter.load_lora(lora)
    return implicit_rewards(adapter, samples, **options)
