"""How far a policy has moved from its reference: one number for each family of generators."""

from collections.abc import Sequence
from typing import Any

import torch

from mmalign.generators.token_layouts import IGNORED
from mmalign.generators.tokens import TokenGenerator
from mmalign.losses.tokens import token_kl
from mmalign.sampling.tokens import TokenSampler
from mmalign.training.recipe import SamplingConfig

DRIFT_SEED = 1_000_000


@torch.no_grad()
def drift(adapter: Any, prompts: Sequence[str], sampling: SamplingConfig) -> float:
    """Of a denoiser the mean squared distance of predictions at middle noise levels; of a token model nats per token.

    Args:
        adapter: whose policy.
        prompts: of a few samples.
        sampling: how samples are drawn.

    Returns:
        At least 0; 0 where policy and reference agree.
    """
    if isinstance(adapter.generator, TokenGenerator):
        return _token_drift(adapter, prompts, sampling)
    generator = adapter.generator
    conditioning = adapter.condition(prompts, **sampling.pipeline_options())
    random = torch.Generator().manual_seed(DRIFT_SEED)
    noisy = torch.randn(len(prompts), *conditioning.latent_shape, generator=random).to(generator.device)
    level = generator.timesteps.at(torch.full((len(prompts),), len(generator.timesteps) // 2))
    mine = generator.predict(noisy, level, conditioning).output
    with generator.weights("reference"):
        reference = generator.predict(noisy, level, conditioning).output
    return float((mine - reference).square().mean())


def _token_drift(adapter: Any, prompts: Sequence[str], sampling: SamplingConfig) -> float:
    """The mean of KL(policy || reference) over all tokens of new samples of the policy."""
    generator, sampler = adapter.generator, TokenSampler(temperature=sampling.temperature or 1.0)
    seeds = range(DRIFT_SEED, DRIFT_SEED + len(prompts))
    tokens = adapter.tokens(prompts, seeds=seeds, temperature=sampler.temperature)
    conditioning = adapter.condition(prompts)
    mask = (tokens != IGNORED).flatten(1)

    def scores() -> torch.Tensor:
        return sampler.log_probs(generator.logits(tokens, conditioning)).flatten(1, 2)

    mine = scores()
    with generator.weights("reference"):
        reference = scores()
    return float(token_kl(mine, reference, mask=mask)[mask].mean())
