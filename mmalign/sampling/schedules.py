"""Noise levels as pure functions: the shares of a diffusion, the shift of a flow, densities of training times.

In a flow sigma = 1 is pure noise and sigma = 0 is data.
"""

import torch
from torch import Tensor

from mmalign.errors import ConfigError


def scaled_linear_abar(count: int = 1000, *, beta_start: float = 0.00085, beta_end: float = 0.012) -> Tensor:
    """The cumulated signal power of Stable Diffusion's schedule, from least to most noise.

        beta = linspace(sqrt(beta_start), sqrt(beta_end), count)^2,  abar[t] = prod_{i <= t} (1 - beta[i])

    Args:
        count: N, training times.
        beta_start: noise power added at the first time.
        beta_end: at the last.

    Returns:
        [N], float64, strictly decreasing inside (0, 1).

    Source: Rombach et al. 2022, Latent Diffusion, appendix (arXiv:2112.10752); the end points are the released ones.

    >>> scaled_linear_abar(2, beta_start=0.25, beta_end=0.36)  # 0.75, and 0.75 * 0.64
    tensor([0.7500, 0.4800], dtype=torch.float64)
    """
    root_beta = torch.linspace(beta_start**0.5, beta_end**0.5, count, dtype=torch.float64)
    return (1 - root_beta**2).cumprod(0)


def alpha_sigma(abar: Tensor) -> tuple[Tensor, Tensor]:
    """The shares of data and noise of a variance-preserving diffusion: sqrt(abar) and sqrt(1 - abar).

    Args:
        abar: any shape, in [0, 1]; diffusers calls it ``alphas_cumprod``.

    Returns:
        alpha and sigma, as ``abar``; alpha^2 + sigma^2 = 1.

    Source: Ho et al. 2020, DDPM, section 2, equation 4 (arXiv:2006.11239).

    >>> alpha_sigma(torch.tensor([0.36]))
    (tensor([0.6000]), tensor([0.8000]))
    """
    return abar.sqrt(), (1 - abar).sqrt()


def shift_sigma(sigma: Tensor, shift: float) -> Tensor:
    """Move a flow's noise levels towards noise, as large latents need.

        shift * sigma / (1 + (shift - 1) * sigma)

    The dynamic form of diffusers, e^mu / (e^mu + 1 / sigma - 1), is this one with shift = e^mu. A rollout and its
    training read their sigmas from the scheduler, which may shift twice; this function is for training times alone.

    Args:
        sigma: any shape, in [0, 1].
        shift: above 0; 1 changes nothing, above 1 moves towards noise.

    Returns:
        As ``sigma``; 0 and 1 stay where they are.

    Raises:
        ConfigError: ``shift`` is not positive.

    Source: Esser et al. 2024, Stable Diffusion 3, section 5.3.2, equation 23 (arXiv:2403.03206).

    >>> shift_sigma(torch.tensor([0.0, 0.5, 1.0]), 3.0)
    tensor([0.0000, 0.7500, 1.0000])
    """
    if shift <= 0:
        raise ConfigError(f"shift = {shift}, but it must be positive; 1 means no shift")
    return shift * sigma / (1 + (shift - 1) * sigma)


def uniform(count: int, *, generator: torch.Generator) -> Tensor:
    """Draw a flow's training times evenly.

    Args:
        count: N.
        generator: also says on which device.

    Returns:
        [N], sigma in [0, 1), float32.

    >>> uniform(3, generator=torch.Generator().manual_seed(0)).shape
    torch.Size([3])
    """
    return torch.rand(count, generator=generator, device=generator.device)


def logit_normal(count: int, mean: float = 0.0, std: float = 1.0, *, generator: torch.Generator) -> Tensor:
    """Draw a flow's training times where learning is hardest, in the middle.

        sigma = sigmoid(mean + std * z),  z standard normal

    Args:
        count: N.
        mean: of logit(sigma). Positive favours noise, as in the paper. In diffusers' training scripts the same draw
            counts down from the noisiest time, so their positive mean favours data; at 0 the two agree.
        std: of logit(sigma).
        generator: also says on which device.

    Returns:
        [N], sigma in [0, 1], float32.

    Source: Esser et al. 2024, Stable Diffusion 3, section 3.1, equation 19 (arXiv:2403.03206).

    >>> logit_normal(2, mean=0.0, std=0.0, generator=torch.Generator().manual_seed(0))
    tensor([0.5000, 0.5000])
    """
    z = torch.randn(count, generator=generator, device=generator.device)
    return torch.sigmoid(mean + std * z)
