"""DiffusionNFT: learn from good and bad samples alike on the forward process, with no likelihood of a trajectory."""

from torch import Tensor

from mmalign.errors import ConfigError
from mmalign.losses.denoising import denoising_error
from mmalign.losses.shapes import check_shape


def optimality_probability(advantage: Tensor, *, advantage_max: float = 5.0) -> Tensor:
    """How probably a sample is one of the good ones.

        clamp(advantage / advantage_max, -1, 1) / 2 + 1/2

    Args:
        advantage: any shape, unitless.
        advantage_max: where it saturates, above 0.

    Returns:
        As ``advantage``, in [0, 1], detached.

    Raises:
        ConfigError: ``advantage_max`` is not positive.

    Source: the code of Zheng et al. 2025, DiffusionNFT (arXiv:2509.16117).

    >>> import torch
    >>> optimality_probability(torch.tensor([-5.0, 0.0, 2.5, 9.0]))
    tensor([0.0000, 0.5000, 0.7500, 1.0000])
    """
    if advantage_max <= 0:
        raise ConfigError(f"advantage_max = {advantage_max}, but it must be positive")
    return (advantage.detach() / advantage_max).clamp(-1, 1) / 2 + 0.5


def nft_loss(
    clean_prediction: Tensor,
    old_clean_prediction: Tensor,
    clean: Tensor,
    optimality: Tensor,
    *,
    beta: float = 1.0,
    advantage_max: float = 5.0,
) -> Tensor:
    """Contrast an implicit good policy with an implicit bad one, each error divided by its own size.

        good = beta * clean_prediction + (1 - beta) * old_clean_prediction
        bad = (1 + beta) * old_clean_prediction - beta * clean_prediction
        size(x) = max(mean_e |x - clean|, 1e-5), detached, in float64
        mean_b advantage_max / beta * [ optimality[b] * mean_e (good - clean)^2 / size(good)
                                        + (1 - optimality[b]) * mean_e (bad - clean)^2 / size(bad) ]

    On the paper's velocities, good and bad mix v_policy and v_old alike, since a clean estimate is linear in v. The
    reference is held by ``velocity_drift``, at weight 1e-4.

    Args:
        clean_prediction: [B, ...], the policy's estimate of the clean data at a noised rollout sample, without
            guidance; noisy - sigma * velocity of a flow.
        old_clean_prediction: as it, of the policy that sampled; detached.
        clean: as it, the rollout's sample; detached.
        optimality: [B], in [0, 1], of ``optimality_probability``; detached.
        beta: how far the good policy lies beyond the old one; a small one magnifies noise by its inverse.
        advantage_max: as in ``optimality_probability``, whose division it undoes.

    Returns:
        Scalar; on the first pass its gradient is the advantage times that of the size-normalised error, whatever
        ``beta`` and ``advantage_max`` are.

    Raises:
        ShapeError: not three times the same [B, ...] and once [B].
        ConfigError: ``beta`` or ``advantage_max`` is not positive, or an optimality is outside [0, 1].

    Source: Zheng et al. 2025, DiffusionNFT, section 3 (arXiv:2509.16117), in the self-normalised form of its code.

    >>> import torch
    >>> one = torch.ones(1, 2)
    >>> nft_loss(3 * one, 2 * one, 0 * one, torch.tensor([0.75]), beta=1.0)  # 5 * (0.75 * 9 / 3 + 0.25 * 1 / 1)
    tensor(12.5000)
    """
    if advantage_max <= 0:
        raise ConfigError(f"advantage_max = {advantage_max}, but it must be positive")
    old, good, bad = _implicit(clean_prediction, old_clean_prediction, optimality, beta, "clean_prediction")
    check_shape(clean, old.shape, name="clean", letters="[B, ...]")
    r = optimality.detach()
    good_error, bad_error = (denoising_error(x, clean) / _size(x, clean).to(r) for x in (good, bad))
    return (advantage_max / beta * (r * good_error + (1 - r) * bad_error)).mean()


def nft_velocity_loss(
    velocity: Tensor, old_velocity: Tensor, target: Tensor, optimality: Tensor, *, beta: float = 1.0
) -> Tensor:
    """The objective that the theory is of: plain squared errors of the good and the bad velocity.

        good = beta * velocity + (1 - beta) * old_velocity,  bad = (1 + beta) * old_velocity - beta * velocity
        mean_b optimality[b] * mean_e (good - target)^2 + (1 - optimality[b]) * mean_e (bad - target)^2

    Args:
        velocity: [B, ...], the policy's, without guidance.
        old_velocity: as it, of the policy that sampled; detached.
        target: as it, the true velocity; detached.
        optimality: [B], in [0, 1]; detached.
        beta: how far the good policy lies beyond the old one, above 0.

    Returns:
        Scalar, squared unit of the velocity.

    Raises:
        ShapeError: not three times the same [B, ...] and once [B].
        ConfigError: ``beta`` is not positive, or an optimality is outside [0, 1].

    Source: Zheng et al. 2025, DiffusionNFT, section 3 (arXiv:2509.16117).

    >>> import torch
    >>> one = torch.ones(1, 2)
    >>> nft_velocity_loss(3 * one, 2 * one, 0 * one, torch.tensor([0.75]), beta=1.0)  # 0.75 * 9 + 0.25 * 1
    tensor(7.)
    """
    old, good, bad = _implicit(velocity, old_velocity, optimality, beta, "velocity")
    check_shape(target, old.shape, name="target", letters="[B, ...]")
    r = optimality.detach()
    return (r * denoising_error(good, target) + (1 - r) * denoising_error(bad, target)).mean()


def nft_old_decay(step: int, *, slope: float = 0.001, start: int = 0, most: float = 0.5) -> float:
    """How much of itself the sampling policy keeps when it follows the trained one after an epoch.

        old <- d * old + (1 - d) * policy,  d = min(slope * max(step - start, 0), most)

    The published schedules: the default; slope 0, where old is the policy itself; slope 0.0075 from step 75 to at
    most 0.999.

    Args:
        step: optimiser steps done.
        slope: per step.
        start: steps with d = 0.
        most: the upper bound.

    Returns:
        d, in [0, ``most``].

    Raises:
        ConfigError: a setting is negative, or ``most`` is above 1.

    Source: the code of Zheng et al. 2025, DiffusionNFT (arXiv:2509.16117).

    >>> nft_old_decay(100), nft_old_decay(9999), nft_old_decay(77, slope=0.0075, start=75, most=0.999)
    (0.1, 0.5, 0.015)
    """
    if min(step, slope, start) < 0 or not 0 <= most <= 1:
        raise ConfigError(
            f"step = {step}, slope = {slope}, start = {start}, most = {most}: none is negative, and most is up to 1"
        )
    return min(slope * max(step - start, 0), most)


def _implicit(
    prediction: Tensor, old: Tensor, optimality: Tensor, beta: float, name: str
) -> tuple[Tensor, Tensor, Tensor]:
    """The old prediction, detached, and those of the implicit good and bad policies."""
    check_shape(old, prediction.shape, name=f"old_{name}", letters="[B, ...]")
    check_shape(optimality, prediction.shape[:1], name="optimality", letters="[B]")
    if beta <= 0:
        raise ConfigError(f"beta = {beta}, but it must be positive; at 0 good and bad are one")
    if (optimality < 0).any() or (optimality > 1).any():
        raise ConfigError(f"optimality: expected 0 to 1, got {optimality.min():g} to {optimality.max():g}")
    old = old.detach()
    return old, beta * prediction + (1 - beta) * old, (1 + beta) * old - beta * prediction


def _size(prediction: Tensor, clean: Tensor) -> Tensor:
    # In float64: these errors are small, and a mean of many in half precision is off by as much as it corrects.
    return (prediction.detach().double() - clean.detach().double()).abs().flatten(1).mean(1).clamp_min(1e-5)
