"""Distances between the policy and its reference that carry gradient, in the unit that each likelihood has."""

import torch
from torch import Tensor

from mmalign.errors import ConfigError
from mmalign.losses.denoising import denoising_error
from mmalign.losses.shapes import check_shape


def gaussian_kl(mean: Tensor, ref_mean: Tensor, std: Tensor) -> Tensor:
    """Distance of the policy's step from the reference's, two normal distributions of one std.

        KL[b] = mean_e (mean[b, e] - ref_mean[b, e])^2 / (2 * std[b]^2)

    Args:
        mean: [B, ...], of the policy's transition.
        ref_mean: as ``mean``, of the frozen reference; detached.
        std: [B], of the transition, the length of the step included; detached.

    Returns:
        [B], nats per element, 0 while the policy is the reference.

    Raises:
        ShapeError: ``ref_mean`` is not as ``mean``, or ``std`` is not [B].
        ConfigError: a std is 0; two deterministic steps have no KL.

    Source: Liu et al. 2025, Flow-GRPO, section 4 (arXiv:2505.05470). Its image scripts divide by g instead of the
    std g * sqrt(-D); give g as ``std`` to repeat them.

    >>> gaussian_kl(torch.tensor([[1.0, 3.0]]), torch.zeros(1, 2), torch.tensor([2.0]))  # (1 + 9) / 2 / 8
    tensor([0.6250])
    """
    check_shape(ref_mean, mean.shape, name="ref_mean", letters="[B, ...]")
    check_shape(std, mean.shape[:1], name="std", letters="[B]")
    if (std == 0).any():
        raise ConfigError("std = 0: a deterministic step has no KL; leave it out, as its log_prob")
    return ((mean - ref_mean.detach()) ** 2).flatten(1).mean(1) / (2 * std.detach() ** 2)


def kl_k1(log_prob: Tensor, ref_log_prob: Tensor) -> Tensor:
    """The plain estimate of KL(policy || reference) from the policy's own samples.

        log_prob - ref_log_prob

    It belongs in a reward: as a loss its gradient is that of log_prob, which is zero on average.

    Args:
        log_prob: any shape, of sampled tokens or steps under the policy.
        ref_log_prob: as ``log_prob``, under the frozen reference; detached.

    Returns:
        As ``log_prob``, nats, unbiased, of either sign.

    Raises:
        ShapeError: the shapes differ.

    Source: Schulman 2020, Approximating KL Divergence, http://joschu.net/blog/kl-approx.html.

    >>> kl_k1(torch.tensor([-1.0]), torch.tensor([-1.5]))
    tensor([0.5000])
    """
    check_shape(ref_log_prob, log_prob.shape, name="ref_log_prob", letters="log_prob's")
    return log_prob - ref_log_prob.detach()


def kl_k3(log_prob: Tensor, ref_log_prob: Tensor) -> Tensor:
    """The estimate of KL(policy || reference) that is never negative, as GRPO's loss has it.

        exp(d) - 1 - d,  d = ref_log_prob - log_prob

    On the policy's own samples its average is that KL, and its average gradient that of KL(reference || policy):
    both pull to the reference, with different strength far from it.

    Args:
        log_prob: any shape, of sampled tokens or steps under the policy.
        ref_log_prob: as ``log_prob``, under the frozen reference; detached.

    Returns:
        As ``log_prob``, nats, at least 0, and 0 only where the two agree.

    Raises:
        ShapeError: the shapes differ.

    Source: Schulman 2020, Approximating KL Divergence, http://joschu.net/blog/kl-approx.html; Shao et al. 2024,
    DeepSeekMath, section 4.1.1, equation 4 (arXiv:2402.03300).

    >>> kl_k3(torch.tensor([-1.0]), torch.tensor([-1.5]))  # e^-0.5 - 1 + 0.5
    tensor([0.1065])
    """
    difference = -kl_k1(log_prob, ref_log_prob)
    return torch.expm1(difference) - difference


def velocity_drift(velocity: Tensor, ref_velocity: Tensor) -> Tensor:
    """Distance of a denoiser's prediction from the reference's, with no step length and no variance.

        mean_e (velocity[b, e] - ref_velocity[b, e])^2

    Args:
        velocity: [B, ...], of the policy; any parametrisation serves, but its weight is the parametrisation's.
        ref_velocity: as ``velocity``, of the frozen reference, at the same noisy sample; detached.

    Returns:
        [B], squared unit of the prediction, 0 while the policy is the reference, in float32 at least.

    Raises:
        ShapeError: the shapes differ, or there is no axis beside the batch.

    Source: Zheng et al. 2025, DiffusionNFT, section 3 (arXiv:2509.16117), with the weight 1e-4 of its code.

    >>> velocity_drift(torch.tensor([[1.0, 3.0]]), torch.tensor([[1.0, 1.0]]))  # (0 + 4) / 2
    tensor([2.])
    """
    check_shape(ref_velocity, velocity.shape, name="ref_velocity", letters="[B, ...]")
    return denoising_error(velocity, ref_velocity)
