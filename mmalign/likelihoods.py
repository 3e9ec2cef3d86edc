"""What a generator says of data: its log-likelihood, or the surrogate of it that training uses."""

from torch import Tensor

from mmalign.generators.conditioning import Conditioning
from mmalign.generators.denoising import DenoisingGenerator
from mmalign.generators.timesteps import NoiseLevel
from mmalign.generators.token_layouts import IGNORED
from mmalign.generators.tokens import TokenGenerator
from mmalign.losses.denoising import denoising_log_prob
from mmalign.losses.tokens import token_log_probs
from mmalign.sampling.parametrisation import add_noise, target
from mmalign.sampling.tokens import TokenSampler


def denoising_log_likelihood(
    generator: DenoisingGenerator,
    latents: Tensor,
    conditioning: Conditioning,
    *,
    noise: Tensor,
    level: NoiseLevel,
) -> Tensor:
    """The denoising surrogate of the log-likelihood, without guidance.

        -1/2 * mean_e (network(noisy)_e - target_e)^2

    What is compared must share ``noise`` and ``level``: only differences of this number mean anything.

    Args:
        generator: its active weights are asked.
        latents: [B, ...], clean.
        conditioning: of B samples.
        noise: as ``latents``, standard normal.
        level: of each sample, from ``generator.timesteps``.

    Returns:
        [B], in the network's own parametrisation.

    Source: Wallace et al. 2023, Diffusion-DPO, section 4 (arXiv:2311.12908), with the weight of each noise level
    dropped as there; Liu et al. 2025, Flow-DPO, section 4 (arXiv:2501.13918) for flows.
    """
    level = level.to(latents.device)
    noisy = add_noise(latents, noise, level.alpha, level.sigma)
    output = generator.predict(noisy, level, conditioning).output
    return denoising_log_prob(
        output, target(latents, noise, level.alpha, level.sigma, generator.timesteps.kind)
    )


def token_log_prob(
    generator: TokenGenerator,
    tokens: Tensor,
    conditioning: Conditioning,
    *,
    sampler: TokenSampler | None = None,
) -> Tensor:
    """How likely each token of some samples is, given those before it, all in one call.

        log softmax(keep(logits / temperature))[token],  and 0 where the token is ``IGNORED``

    Args:
        generator: its active weights are asked; gradient flows to them.
        tokens: [B, T, K], T frames of K codebooks; ``IGNORED`` (-1) from the end of a sample on.
        conditioning: of B samples.
        sampler: how samples are drawn, which is what their likelihood is of; the model's own distribution if not given.

    Returns:
        [B, T, K], nats; ``.flatten(1)`` is the [B, L] that losses on tokens take.
    """
    sampler = sampler or TokenSampler()
    logits = generator.logits(tokens, conditioning, guidance=sampler.guidance)
    flat = tokens.to(logits.device).flatten(1)
    # The logarithm of a softmax is its own: what the sampler filtered and scaled stays as it is.
    scores = sampler.log_probs(logits).flatten(1, 2)
    return token_log_probs(scores, flat, mask=flat != IGNORED).unflatten(1, tokens.shape[1:])
