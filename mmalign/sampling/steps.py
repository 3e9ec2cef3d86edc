"""One denoising step that may be random, and the log-probability that a policy gradient needs of it."""

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from mmalign.errors import ConfigError, UnknownNameError
from mmalign.sampling.parametrisation import Prediction, check_same_shape, per_sample

FlowStep = Literal["flow-sde", "dance-sde", "cps"]
"""How a flow's step gets its noise: Flow-GRPO, DanceGRPO, coefficients-preserving sampling."""

Reduction = Literal["mean", "sum"]
"""Over the elements of a latent. A sum grows with resolution, and with it every clip range and KL weight."""


@dataclass(frozen=True, eq=False)
class Transition:
    """A step from one noise level to the next: a normal distribution, and the sample it gave.

    Args:
        sample: [B, ...], the next, less noisy latents. Keep them in this dtype: a cast moves (sample - mean) / std.
        mean: [B, ...].
        std: [B], 0 where the step is deterministic.
        reduction: of ``log_prob`` over elements.
        unscaled: ``log_prob`` is the bare negative squared distance, as "cps" has it.
    """

    sample: Tensor
    mean: Tensor
    std: Tensor
    reduction: Reduction = "mean"
    unscaled: bool = False

    @property
    def log_prob(self) -> Tensor:
        """How likely the step was; gradient flows through the mean alone.

            mean over elements of -(sample - mean)^2 / (2 std^2) - log(std) - log(2 pi) / 2
            mean over elements of -(sample - mean)^2                                         if unscaled

        Returns:
            [B], nats per element, or nats with reduction "sum"; without a unit if unscaled.

        Raises:
            ConfigError: a step of the batch has std = 0, and so no density.

        Source: Black et al. 2023, DDPO, section 4.3 (arXiv:2305.13301); the mean over elements is from its code.

        >>> zero = torch.zeros(1, 2)
        >>> Transition(sample=zero, mean=zero, std=torch.ones(1)).log_prob  # -log(2 pi) / 2
        tensor([-0.9189])
        """
        if (self.std == 0).any():
            raise ConfigError(
                "log_prob: a step with std = 0 has no density; leave the deterministic steps of a rollout out of "
                "training, or give eta or noise_level a positive value"
            )
        elements = -((self.sample.detach() - self.mean) ** 2)
        if not self.unscaled:
            std = per_sample(self.std, self.mean, name="std")
            elements = elements / (2 * std**2) - std.log() - math.log(2 * math.pi) / 2
        elements = elements.flatten(1)
        return elements.mean(1) if self.reduction == "mean" else elements.sum(1)


def ddim_step(
    prediction: Prediction,
    alpha_next: Tensor,
    sigma_next: Tensor,
    *,
    eta: float,
    noise: Tensor | None = None,
    sample: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Transition:
    """Take one DDIM step of a variance-preserving diffusion, or score a recorded one.

        variance = eta^2 * (sigma_next / sigma)^2 * (1 - (alpha / alpha_next)^2)
        mean = alpha_next * clean + sqrt(max(sigma_next^2 - variance, 0)) * noise_hat
        sample = mean + sqrt(variance) * noise

    ``clean`` and ``noise_hat`` are the prediction's; the clean estimate is not clipped. Half precision is computed
    in float32.

    Args:
        prediction: at the present noise level, with the guidance of the rollout.
        alpha_next: [B], share of the data after the step, at least the present one.
        sigma_next: [B], share of the noise after the step.
        eta: 0 is deterministic, 1 is DDPM's posterior.
        noise: [B, ...], standard normal, to take a step; not needed where nothing is random.
        sample: [B, ...], the recorded step, to score it instead.
        reduction: of the log-probability over elements.

    Returns:
        The transition, in float32 at least.

    Raises:
        ConfigError: ``prediction`` is a flow's; ``eta`` is outside [0, 1]; the step does not go towards data; or not
            exactly one of ``noise`` and ``sample`` says what happened in a random step.
        ShapeError: a tensor is not [B], or not as the prediction.

    Source: Song et al. 2020, DDIM, section 4.1, equations 12 and 16 (arXiv:2010.02502).

    >>> one, half = torch.ones(1, 1), torch.tensor([0.25])  # from abar = 1/4 to 1/2, clean = 0, noise_hat = 1
    >>> now = Prediction(0.75**0.5 * one, one, alpha=half.sqrt(), sigma=(1 - half).sqrt(), kind="epsilon")
    >>> step = ddim_step(now, (2 * half).sqrt(), (2 * half).sqrt(), eta=1.0, noise=one)
    >>> step.mean, step.std  # sqrt(1/2 - 1/3), sqrt(1/3)
    (tensor([[0.4082]]), tensor([0.5774]))
    """
    if prediction.kind == "flow_prediction":
        raise ConfigError(
            "ddim_step: kind = 'flow_prediction', but DDIM is variance preserving; use flow_sde_step"
        )
    if not 0 <= eta <= 1:
        raise ConfigError(f"eta = {eta}, but DDIM is defined from 0 (deterministic) to 1 (DDPM)")
    prediction = _in_full_precision(prediction)
    alpha = per_sample(prediction.alpha, prediction.noisy, name="alpha")
    sigma = per_sample(prediction.sigma, prediction.noisy, name="sigma")
    alpha_next = per_sample(alpha_next, prediction.noisy, name="alpha_next")
    sigma_next = per_sample(sigma_next, prediction.noisy, name="sigma_next")
    if (sigma == 0).any() or (alpha_next < alpha).any():
        raise ConfigError(
            "ddim_step: expected to go from noise towards data, alpha <= alpha_next and sigma > 0"
        )
    variance = eta**2 * (sigma_next / sigma) ** 2 * (1 - (alpha / alpha_next) ** 2)
    # With eta = 1 from almost pure noise the difference is 0 and may round to below it.
    direction = (sigma_next**2 - variance).clamp_min(0).sqrt()
    mean = alpha_next * prediction.clean + direction * prediction.noise
    return _transition(mean, variance.sqrt(), noise, sample, reduction)


def flow_sde_step(
    prediction: Prediction,
    sigma_next: Tensor,
    *,
    kind: FlowStep,
    noise_level: float,
    noise: Tensor | None = None,
    sample: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Transition:
    """Take one random step of a rectified flow, or score a recorded one; sigma = 1 is pure noise, 0 is data.

    "flow-sde" and "dance-sde" discretise an SDE with the marginals of the flow, D = sigma_next - sigma < 0:

        mean = noisy * (1 + g^2 * D / (2 * sigma)) + velocity * (1 + g^2 * (1 - sigma) / (2 * sigma)) * D
        std = g * sqrt(-D)
        g = noise_level * sqrt(sigma / (1 - sigma))     "flow-sde"; the 1 - sigma of sigma = 1 is 1 - sigma_next
        g = noise_level                                 "dance-sde"

    "cps" keeps the coefficients of data and noise, mean's noise^2 + std^2 = sigma_next^2, and has another log_prob,
    the bare -(sample - mean)^2, so that its clip ranges do not carry over:

        std = sigma_next * sin(pi * noise_level / 2)
        mean = (1 - sigma_next) * clean + sigma_next * cos(pi * noise_level / 2) * noise_hat

    Half precision is computed in float32. "flow-sde" adds noise even in the step to sigma_next = 0, so that step is
    left out of training and evaluation takes noise_level = 0, the Euler step.

    Args:
        prediction: at the present sigma, with the guidance of the rollout.
        sigma_next: [B], below the present one.
        kind: which of the three.
        noise_level: Flow-GRPO's a (0.7), DanceGRPO's eta (0.3 for images, 0.25 for video), or the share of a right
            angle of "cps" (0.8), at most 1.
        noise: [B, ...], standard normal, to take a step; not needed where nothing is random.
        sample: [B, ...], the recorded step, to score it instead.
        reduction: of the log-probability over elements.

    Returns:
        The transition, in float32 at least.

    Raises:
        ConfigError: ``prediction`` is not a flow's; ``noise_level`` is negative or, for "cps", above 1; not
            0 <= sigma_next < sigma; or not exactly one of ``noise`` and ``sample`` says what happened.
        ShapeError: a tensor is not [B], or not as the prediction.
        UnknownNameError: ``kind`` is none of the three.

    Source: Liu et al. 2025, Flow-GRPO, section 4 and appendix A (arXiv:2505.05470), with g at sigma = 1 from its
    code; Xue et al. 2025, DanceGRPO, section 2 (arXiv:2505.07818); Wang and Yu 2025, Coefficients-Preserving
    Sampling (arXiv:2509.05952), with the log_prob of Flow-GRPO's code.

    >>> one, sigma = torch.ones(1, 1), torch.tensor([0.7])
    >>> now = Prediction(one, 0 * one, alpha=1 - sigma, sigma=sigma, kind="flow_prediction")
    >>> step = flow_sde_step(now, torch.tensor([0.6]), kind="dance-sde", noise_level=0.3, noise=one)
    >>> step.mean, step.std  # 1 - 0.09 * 0.1 / 1.4, 0.3 * sqrt(0.1)
    (tensor([[0.9936]]), tensor([0.0949]))
    """
    if prediction.kind != "flow_prediction":
        raise ConfigError(f"flow_sde_step: kind = '{prediction.kind}' is no rectified flow; use ddim_step")
    if kind not in get_args(FlowStep):
        raise UnknownNameError("flow step", kind, get_args(FlowStep))
    if noise_level < 0 or (kind == "cps" and noise_level > 1):
        raise ConfigError(f"noise_level = {noise_level}, but it is at least 0 and, for 'cps', at most 1")
    prediction = _in_full_precision(prediction)
    noisy, velocity = prediction.noisy, prediction.velocity
    sigma = per_sample(prediction.sigma, noisy, name="sigma")
    sigma_next = per_sample(sigma_next, noisy, name="sigma_next")
    if not ((sigma_next >= 0) & (sigma_next < sigma)).all():
        raise ConfigError("flow_sde_step: expected to go from noise towards data, 0 <= sigma_next < sigma")

    if kind == "cps":
        angle = math.pi * noise_level / 2
        mean = (1 - sigma_next) * prediction.clean + sigma_next * math.cos(angle) * prediction.noise
        return _transition(mean, sigma_next * math.sin(angle), noise, sample, reduction, unscaled=True)

    step = sigma_next - sigma
    g = torch.full_like(sigma, noise_level)
    if kind == "flow-sde":
        g = g * (sigma / (1 - torch.where(sigma == 1, sigma_next, sigma))).sqrt()
    # The noise spreads the marginal by as much as this pull along the score gathers it.
    pull = g**2 / (2 * sigma)
    mean = noisy * (1 + pull * step) + velocity * (1 + pull * (1 - sigma)) * step
    return _transition(mean, g * (-step).sqrt(), noise, sample, reduction)


def _in_full_precision(prediction: Prediction) -> Prediction:
    dtype = torch.promote_types(prediction.noisy.dtype, torch.float32)
    return replace(prediction, noisy=prediction.noisy.to(dtype), output=prediction.output.to(dtype))


def _transition(
    mean: Tensor,
    std: Tensor,
    noise: Tensor | None,
    sample: Tensor | None,
    reduction: Reduction,
    unscaled: bool = False,
) -> Transition:
    if noise is not None and sample is not None:
        raise ConfigError(
            "noise and sample: give noise to take a step, or sample to score a recorded one, not both"
        )
    for name, given in (("noise", noise), ("sample", sample)):
        if given is not None:
            check_same_shape(given, mean, name=name)
    if sample is None:
        if noise is None and std.any():
            raise ConfigError("noise: a random step needs its noise, or the recorded sample to score")
        sample = mean if noise is None else mean + std * noise
    return Transition(sample, mean, std.flatten(), reduction, unscaled)
