"""What a generator says of data: its log-likelihood, or the surrogate of it that training uses."""

from torch import Tensor

from mmalign.generators.conditioning import Conditioning
from mmalign.generators.denoising import DenoisingGenerator
from mmalign.generators.timesteps import NoiseLevel
from mmalign.losses.denoising import denoising_log_prob
from mmalign.sampling.parametrisation import add_noise, target


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
