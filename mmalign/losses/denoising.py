"""How well a denoiser explains a sample: the surrogate log-probability that stands in for a likelihood."""

import torch
from torch import Tensor

from mmalign.errors import ShapeError
from mmalign.losses.shapes import check_shape


def denoising_log_prob(prediction: Tensor, target: Tensor) -> Tensor:
    """Minus half the mean squared error of each sample's prediction.

        log_prob[b] = -mean_e (prediction[b, e] - target[b, e])^2 / 2

    The mean, and the half, are fixed here once: ``dpo_loss`` of it at ``beta`` is Diffusion-DPO and Flow-DPO at
    their beta, whose factor is beta / 2 on squared errors. Policy and reference, and both sides of a pair, are
    compared at one noise and one time.

    Args:
        prediction: [B, ...], a denoiser's output, in any parametrisation.
        target: as ``prediction``, what it should have been; detached.

    Returns:
        [B], without a unit, at most 0, in float32 at least.

    Raises:
        ShapeError: ``target`` has another shape, or there is no axis beside the batch.

    Source: Wallace et al. 2023, Diffusion-DPO, section 4, equation 14 (arXiv:2311.12908), constant weight.

    >>> denoising_log_prob(torch.tensor([[1.0, 3.0]]), torch.tensor([[1.0, 1.0]]))  # -(0 + 4) / 2 / 2
    tensor([-1.])
    """
    return -denoising_error(prediction, target) / 2


def denoising_error(prediction: Tensor, target: Tensor) -> Tensor:
    """The mean squared error of each sample's prediction, as papers write it.

        mean_e (prediction[b, e] - target[b, e])^2

    Args:
        prediction: [B, ...], a denoiser's output, in any parametrisation.
        target: as ``prediction``, what it should have been; detached.

    Returns:
        [B], squared unit of the prediction, in float32 at least; -2 times ``denoising_log_prob``.

    Raises:
        ShapeError: ``target`` has another shape, or there is no axis beside the batch.

    >>> denoising_error(torch.tensor([[1.0, 3.0]]), torch.tensor([[1.0, 1.0]]))  # (0 + 4) / 2
    tensor([2.])
    """
    if prediction.ndim < 2:
        raise ShapeError(f"prediction: expected [B, ...], got {list(prediction.shape)}")
    check_shape(target, prediction.shape, name="target", letters="[B, ...]")
    dtype = torch.promote_types(prediction.dtype, torch.float32)
    return ((prediction.to(dtype) - target.detach().to(dtype)) ** 2).flatten(1).mean(1)
