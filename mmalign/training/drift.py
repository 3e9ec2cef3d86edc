"""How far a policy has moved from its reference: its KL in nats of whole samples, and a cheaper number beside it."""

from collections.abc import Sequence
from typing import Any

import torch

from mmalign.generators.rollout import Sampler, begin, predictions
from mmalign.generators.token_layouts import IGNORED
from mmalign.generators.tokens import TokenGenerator
from mmalign.losses.drift import gaussian_kl
from mmalign.losses.tokens import token_kl
from mmalign.methods.online import scale_of
from mmalign.sampling.tokens import TokenSampler
from mmalign.training.recipe import SamplingConfig

DRIFT_SEED = 1_000_000
KL_SAMPLES = 8
KL_STEPS = 10
"""Steps of the trajectories on which a denoiser's KL is measured; the last, which adds no noise, has no KL."""
FLOW_NOISE, DIFFUSION_NOISE = 0.7, 1.0
"""Of their random steps: Flow-GRPO's a on a flow, DDPM (eta = 1) on a diffusion."""


def distances(adapter: Any, prompts: Sequence[str], sampling: SamplingConfig) -> dict[str, float]:
    """``kl`` and ``drift`` of a policy from its reference; both at least 0, and 0 where the two agree.

    ``kl`` is the KL(policy || reference) of whole samples in nats, on the policy's own: of a token model the sum over
    a sample's tokens; of a denoiser the sum over the steps of its trajectory (``trajectory_kl``).
    ``drift`` is of a token model nats per token; of a denoiser no KL, but the mean squared distance of predictions on
    pure noise at the middle noise level.

    Args:
        adapter: whose policy.
        prompts: of a few samples.
        sampling: how samples are drawn.
    """
    if isinstance(adapter.generator, TokenGenerator):
        return _token_distances(adapter, prompts, sampling)
    return {
        "drift": prediction_drift(adapter, prompts, sampling),
        "kl": trajectory_kl(adapter, prompts[:KL_SAMPLES], sampling),
    }


@torch.no_grad()
def prediction_drift(adapter: Any, prompts: Sequence[str], sampling: SamplingConfig) -> float:
    """The mean squared distance of a denoiser's predictions from the reference's, on pure noise at the middle level."""
    generator = adapter.generator
    conditioning = adapter.condition(prompts, **sampling.pipeline_options())
    random = torch.Generator().manual_seed(DRIFT_SEED)
    noisy = torch.randn(len(prompts), *conditioning.latent_shape, generator=random).to(generator.device)
    level = generator.timesteps.at(torch.full((len(prompts),), len(generator.timesteps) // 2))
    mine = generator.predict(noisy, level, conditioning).output
    with generator.weights("reference"):
        reference = generator.predict(noisy, level, conditioning).output
    return float((mine - reference).square().mean())


@torch.no_grad()
def trajectory_kl(adapter: Any, prompts: Sequence[str], sampling: SamplingConfig) -> float:
    """KL(policy || reference) of the trajectories of a random sampler, in nats, along those of the policy.

        mean over samples of sum_t |mean_t - ref_mean_t|^2 / (2 std_t^2)

    By the chain rule this is the KL of whole trajectories, and so at least that of the samples at their end. A
    deterministic sampler has no such number, so the steps are those of ``FLOW_NOISE`` or ``DIFFUSION_NOISE``, under the
    recipe's guidance.

    Args:
        adapter: a denoising one.
        prompts: one sample each.
        sampling: guidance, and the pipeline's own options.

    Source: Fan et al. 2023, DPOK, section 4 (arXiv:2305.16381), where this sum bounds the KL of final samples.
    """
    generator, guidance = adapter.generator, scale_of(sampling.guidance)
    seeds = range(DRIFT_SEED, DRIFT_SEED + len(prompts))
    start = begin(
        generator, prompts, seeds=seeds, steps=KL_STEPS, guidance=guidance, **sampling.pipeline_options()
    )
    flow = generator.timesteps.kind == "flow_prediction"
    sampler = Sampler(noise_level=FLOW_NOISE if flow else DIFFUSION_NOISE, guidance=guidance)
    randoms = [torch.Generator().manual_seed(seed + len(prompts)) for seed in seeds]
    noisy = start.noise.to(generator.device)
    total = torch.zeros(len(prompts), device=noisy.device)
    for t in range(len(start.levels) - 2):
        here, to = (start.levels.rows(torch.full((len(noisy),), k)) for k in (t, t + 1))
        mine, _ = predictions(generator, noisy, here, start.conditioning, sampler)
        with generator.weights("reference"):
            reference, _ = predictions(generator, noisy, here, start.conditioning, sampler)
        noise = torch.stack([torch.randn(noisy.shape[1:], generator=random) for random in randoms])
        taken = sampler.step(mine, to, noise=noise.to(noisy.device))
        ref_mean = sampler.step(reference, to, sample=taken.sample).mean
        total += noisy[0].numel() * gaussian_kl(taken.mean, ref_mean, taken.std)
        noisy = taken.sample
    return float(total.mean())


@torch.no_grad()
def _token_distances(adapter: Any, prompts: Sequence[str], sampling: SamplingConfig) -> dict[str, float]:
    """Of KL(policy || reference) at all tokens of new samples of the policy the mean, and the sum over a sample."""
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
    kl = token_kl(mine, reference, mask=mask)
    return {"drift": float(kl[mask].mean()), "kl": float((kl * mask).sum(1).mean())}
