"""Rewards that are differentiated through the sampler: what is minimised, and which steps keep their graph."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mmalign.errors import ConfigError, ShapeError
from mmalign.losses.shapes import check_shape


def refl_loss(
    reward: Tensor,
    *,
    target: float = 2.0,
    scale: float = 1e-3,
    pretraining_error: Tensor | None = None,
) -> Tensor:
    """ReFL: raise the reward of a one-step estimate of the clean sample, until it is good enough.

        scale * mean_b max(0, target - reward[b]) + mean_n pretraining_error[n]

    Args:
        reward: [B], standardised, with gradient to the sample.
        target: reward from which a sample teaches nothing more, in its unit.
        scale: in its inverse unit, so that the reward does not drown the second term.
        pretraining_error: [N], such as ``denoising_error`` of pretraining data; the published code leaves it out.

    Returns:
        Scalar.

    Raises:
        ShapeError: ``reward`` is not [B], or ``pretraining_error`` not [N].

    Source: Xu et al. 2023, ImageReward, algorithm 1 (arXiv:2304.05977), with the target and scale of
    its code.

    >>> refl_loss(torch.tensor([1.0, 5.0]), scale=1.0)  # (1 + 0) / 2
    tensor(0.5000)
    """
    check_shape(reward, reward.shape[:1], name="reward", letters="[B]")
    loss = scale * F.relu(target - reward).mean()
    if pretraining_error is None:
        return loss
    check_shape(pretraining_error, pretraining_error.shape[:1], name="pretraining_error", letters="[N]")
    return loss + pretraining_error.mean()


def draft_loss(reward: Tensor) -> Tensor:
    """DRaFT: raise the reward of a sample through the steps of the sampler that keep their graph.

        -mean reward

    Args:
        reward: [B], or [N, B] for the N copies of ``draft_lv_noisy``, with gradient to the sample.

    Returns:
        Scalar, in the unit of ``reward``.

    Raises:
        ShapeError: ``reward`` is neither [B] nor [N, B].

    Source: Clark et al. 2023, DRaFT (arXiv:2309.17400).

    >>> draft_loss(torch.tensor([1.0, 2.0]))
    tensor(-1.5000)
    """
    if reward.ndim not in (1, 2):
        raise ShapeError(f"reward: expected [B] or [N, B], got {list(reward.shape)}")
    return -reward.mean()


def alignprop_loss(reward: Tensor, *, target: float = 10.0, scale: float = 0.01) -> Tensor:
    """AlignProp: bring the reward to a target, from either side.

        scale * mean_b |target - reward[b]|

    Args:
        reward: [B], with gradient to the sample.
        target: in the reward's unit: 10 for the aesthetic score, 1 for HPS, which stays below it.
        scale: in its inverse unit.

    Returns:
        Scalar, unitless.

    Raises:
        ShapeError: ``reward`` is not [B].

    Source: the code of Prabhudesai et al. 2023, AlignProp (arXiv:2310.03739), with its target and coefficient for the
    aesthetic score; its HPS loss, 1 - reward, is this at target 1.

    >>> alignprop_loss(torch.tensor([6.0, 11.0]), scale=1.0)  # (4 + 1) / 2
    tensor(2.5000)
    """
    check_shape(reward, reward.shape[:1], name="reward", letters="[B]")
    return scale * (target - reward).abs().mean()


# Which steps keep their graph


def draft_k_start(steps: int, *, k: int) -> int:
    """The first step that keeps its graph when the last ``k`` do; ``steps`` of them is the whole chain.

    Args:
        steps: T, of the sampler.
        k: 1 in the published recommendation.

    Returns:
        Step index, T - ``k``.

    Raises:
        ConfigError: ``k`` is not from 1 to T.

    Source: Clark et al. 2023, DRaFT, as DRaFT-K (arXiv:2309.17400).

    >>> draft_k_start(50, k=1)
    49
    """
    if not 1 <= k <= steps:
        raise ConfigError(f"k = {k}, but it is from 1 to the {steps} steps of the sampler")
    return steps - k


def draw_step(first: int, last: int, *, generator: torch.Generator) -> int:
    """Draw one step evenly: ReFL's, of whose estimate the reward is taken, or the start of a random truncation.

    Args:
        first: smallest index; 30 of 40 for ReFL, 0 for AlignProp.
        last: largest index, drawn too; 39 of 40 for ReFL, T - 1 for AlignProp.
        generator: of any device.

    Returns:
        Step index.

    Raises:
        ConfigError: not 0 <= ``first`` <= ``last``.

    Source: Xu et al. 2023, ImageReward, algorithm 1 (arXiv:2304.05977); Prabhudesai et al. 2023, AlignProp, section
    4.2 (arXiv:2310.03739).

    >>> draw_step(7, 7, generator=torch.Generator())
    7
    """
    if not 0 <= first <= last:
        raise ConfigError(f"first = {first} and last = {last}, but steps go up from 0")
    return int(torch.randint(first, last + 1, (), generator=generator, device=generator.device))


def gaussian_truncation(
    steps: int, *, mean: float = 42.0, std: float = 5.0, generator: torch.Generator
) -> int:
    """Draw the first step that keeps its graph near the end of the chain.

        clamp(floor(mean + std * z), 0, steps - 1),  z standard normal

    Args:
        steps: T, of the sampler; the default mean is for 50.
        mean: step index.
        std: in steps.
        generator: of any device.

    Returns:
        Step index below T, so that at least the last step has gradient.

    Raises:
        ConfigError: ``mean`` is not a step of the sampler, ``std`` is negative, or there is no step.

    Source: the code of Prabhudesai et al. 2023, AlignProp (arXiv:2310.03739), whose draw may pass the end and then
    teaches nothing.

    >>> gaussian_truncation(50, mean=42.9, std=0.0, generator=torch.Generator())
    42
    """
    if not 0 <= mean < steps or std < 0:
        raise ConfigError(
            f"mean = {mean} and std = {std}, but mean is one of the {steps} steps and std at least 0"
        )
    z = torch.randn((), generator=generator, device=generator.device).item()
    return max(0, min(int(mean + std * z), steps - 1))


def truncate_gradient(prediction: Tensor, *, step: int, start: int) -> Tensor:
    """Cut the graph of a prediction before the truncation; the sample stays the same.

        prediction if step >= start, else prediction detached

    With the initial noise a constant, the latents before ``start`` then have no graph either. Under ``no_grad`` these
    steps cost less.

    Args:
        prediction: any shape.
        step: its index in the sampler.
        start: first step that keeps its graph.

    Returns:
        ``prediction``, of the same values.

    Source: the code of Prabhudesai et al. 2023, AlignProp (arXiv:2310.03739).

    >>> truncate_gradient(torch.ones(1, requires_grad=True), step=3, start=4).requires_grad
    False
    """
    return prediction if step >= start else prediction.detach()


def draft_lv_noisy(clean: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """Noise a finished sample again, several times, so that its last step has a gradient of less variance.

        alpha[b] * clean[b] + sigma[b] * noise[n, b]

    Each copy then takes the last step with its graph; ``draft_loss`` of all their rewards is the estimate.

    Args:
        clean: [B, ...], the sample; detached.
        noise: [N, B, ...], standard normal, one for each copy.
        alpha: [B], share of the data before the last step.
        sigma: [B], share of the noise there.

    Returns:
        [N, B, ...], detached.

    Raises:
        ShapeError: ``noise`` is not N times ``clean``, or ``alpha`` or ``sigma`` is not [B].

    Source: Clark et al. 2023, DRaFT, as DRaFT-LV (arXiv:2309.17400).

    >>> half = torch.tensor([0.5])
    >>> draft_lv_noisy(torch.tensor([[2.0]]), torch.tensor([[[4.0]], [[-4.0]]]), half, half)[:, 0, 0]
    tensor([ 3., -1.])
    """
    check_shape(noise, [*noise.shape[:1], *clean.shape], name="noise", letters="[N, B, ...]")
    axes = (-1, *[1] * (clean.ndim - 1))
    for name, share in (("alpha", alpha), ("sigma", sigma)):
        check_shape(share, clean.shape[:1], name=name, letters="[B]")
    return (alpha.reshape(axes) * clean + sigma.reshape(axes) * noise).detach()
