"""Score distillation of a 3D scene by a frozen denoiser, with a reward of its renderings beside it."""

import torch.nn.functional as F
from torch import Tensor

from mmalign.errors import ConfigError, ShapeError
from mmalign.losses.shapes import check_shape


def sds_gradient(guided_noise: Tensor, noise: Tensor, weight: Tensor) -> Tensor:
    """Which way the denoiser would change a rendering.

        weight[b] * (guided_noise[b] - noise[b])

    Args:
        guided_noise: [B, ...], the frozen denoiser's prediction of the noise, with guidance.
        noise: as it, the noise that was added.
        weight: [B], of the noise level; 1 - abar in the published form.

    Returns:
        As ``guided_noise``, detached: the denoiser is not differentiated.

    Raises:
        ShapeError: not twice the same [B, ...] and once [B].

    Source: Poole et al. 2022, DreamFusion, section 3, equation 3 (arXiv:2209.14988).

    >>> import torch
    >>> sds_gradient(torch.tensor([[3.0]]), torch.tensor([[1.0]]), torch.tensor([0.5]))
    tensor([[1.]])
    """
    check_shape(noise, guided_noise.shape, name="noise", letters="[B, ...]")
    check_shape(weight, guided_noise.shape[:1], name="weight", letters="[B]")
    return (weight.reshape(-1, *[1] * (guided_noise.ndim - 1)) * (guided_noise - noise)).detach()


def sds_loss(rendering: Tensor, gradient: Tensor) -> Tensor:
    """A loss whose gradient is the given one, so that it goes through the renderer as any other.

        sum_{b, e} (rendering - stop(rendering - gradient))^2 / (2 * B)

    With rendering - clean_prediction for the gradient it pulls to the denoiser's estimate of the clean view.

    Args:
        rendering: [B, ...], B views, encoded as the denoiser sees them.
        gradient: as ``rendering``, such as ``sds_gradient``; detached.

    Returns:
        Scalar; its gradient is ``gradient`` / B.

    Raises:
        ShapeError: the shapes differ, or there is no axis beside the batch.

    Source: the code of Ye et al. 2024, DreamReward (arXiv:2403.14613).

    >>> import torch
    >>> sds_loss(torch.zeros(2, 1), torch.tensor([[3.0], [1.0]]))  # (9 + 1) / 4
    tensor(2.5000)
    """
    if rendering.ndim < 2:
        raise ShapeError(f"rendering: expected [B, ...], got {list(rendering.shape)}")
    check_shape(gradient, rendering.shape, name="gradient", letters="[B, ...]")
    target = (rendering - gradient).detach()
    return (rendering - target).square().sum() / (2 * rendering.shape[0])


def dream_fl_loss(distillation_loss: Tensor, reward: Tensor, *, weight: float, target: float = 4.0) -> Tensor:
    """DreamFL: score distillation, and a multi-view reward until it is good enough.

        distillation_loss + weight * mean_b max(0, target - reward[b])

    Args:
        distillation_loss: scalar, of ``sds_loss``.
        reward: [B], of the renderings, with gradient to them.
        weight: such as ``matched_weight``, or a ramp from 0.
        target: reward from which a scene is good enough, in its unit.

    Returns:
        Scalar.

    Raises:
        ShapeError: not a scalar and [B].

    Source: Ye et al. 2024, DreamReward, section 4.2 (arXiv:2403.14613), with the target of its code.

    >>> import torch
    >>> dream_fl_loss(torch.tensor(1.0), torch.tensor([3.0, 5.0]), weight=0.5)  # 1 + 0.5 * (1 + 0) / 2
    tensor(1.2500)
    """
    check_shape(distillation_loss, [], name="distillation_loss", letters="a scalar")
    check_shape(reward, reward.shape[:1], name="reward", letters="[B]")
    return distillation_loss + weight * F.relu(target - reward).mean()


def matched_weight(distillation_gradient: Tensor, reward_gradient: Tensor, *, share: float = 0.3) -> float:
    """The weight at which the reward pulls with a given share of the distillation's force.

        share * |distillation_gradient| / |reward_gradient|,  Euclidean norms; 0 where the reward does not pull

    Args:
        distillation_gradient: any shape, with respect to the renderings.
        reward_gradient: as it.
        share: 0.3 to 0.6 in the published runs.

    Returns:
        In the inverse unit of the reward, times that of the other loss.

    Raises:
        ShapeError: the shapes differ.
        ConfigError: ``share`` is negative.

    Source: this project's form of Ye et al. 2024, DreamReward (arXiv:2403.14613), whose code matches the two losses'
    numbers of digits and jumps tenfold between them.

    >>> import torch
    >>> matched_weight(torch.tensor([3.0, 4.0]), torch.tensor([0.0, 2.0]), share=0.5)  # 0.5 * 5 / 2
    1.25
    """
    check_shape(reward_gradient, distillation_gradient.shape, name="reward_gradient", letters="the other's")
    if share < 0:
        raise ConfigError(f"share = {share}, but it is at least 0")
    pull = reward_gradient.norm().item()
    return share * distillation_gradient.norm().item() / pull if pull > 0 else 0.0


def straight_through(value: Tensor, carrier: Tensor) -> Tensor:
    """One tensor's numbers with another's gradient.

        carrier + stop(value - carrier)

    The reward sees the sharp estimate of the denoiser, and its gradient goes to the rendering.

    Args:
        value: any shape; detached.
        carrier: as ``value``.

    Returns:
        As ``value``.

    Raises:
        ShapeError: the shapes differ.

    Source: Bengio et al. 2013, Estimating or Propagating Gradients, section 3 (arXiv:1308.3432), as used in the code
    of DreamReward.

    >>> import torch
    >>> straight_through(torch.tensor([2.0]), torch.tensor([5.0], requires_grad=True))
    tensor([2.], grad_fn=<AddBackward0>)
    """
    check_shape(carrier, value.shape, name="carrier", letters="value's")
    return carrier + (value - carrier).detach()
