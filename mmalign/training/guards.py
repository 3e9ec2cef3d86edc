"""Guards of a training step: nothing that is not finite is ever applied, and the place of the fault is named."""

import math

import torch
from torch import Tensor, nn

from mmalign.errors import ConfigError, NonFiniteError
from mmalign.methods.base import Method


def check_loss(loss: Tensor, *, step: int) -> None:
    """Stop on a loss that is NaN or infinite.

    Raises:
        NonFiniteError: it is.
    """
    if not bool(torch.isfinite(loss)):
        raise NonFiniteError(
            f"step {step}: the loss is {float(loss.detach())}; nothing was applied. Lower train.learning_rate, or use "
            "train.precision fp32"
        )


def clip_gradients(parameters: dict[str, nn.Parameter], max_norm: float, *, step: int) -> float:
    """Scale the gradients down to a norm and return the norm they had.

    Raises:
        NonFiniteError: a gradient is NaN or infinite, with the module.
    """
    norm = float(nn.utils.clip_grad_norm_(parameters.values(), max_norm))
    if not math.isfinite(norm):
        bad = next(
            (
                n
                for n, p in parameters.items()
                if p.grad is not None and not bool(torch.isfinite(p.grad).all())
            ),
            "none",
        )
        raise NonFiniteError(
            f"step {step}: the gradient is not finite, first in {bad}; nothing was applied. Lower "
            "train.learning_rate, or use train.precision fp32"
        )
    return norm


def check_start(method: Method, *, size: int, seed: int) -> None:
    """With a fresh LoRA the policy is the reference, so a DPO loss is log 2 to the last digits.

    Raises:
        ConfigError: it is not, so dropout is on, or policy and reference do not share their weights.
    """
    with torch.no_grad():
        loss, metrics = method.loss(method.batch(0, size=size, seed=seed).part(0, size))
    if abs(float(loss) - math.log(2)) > 1e-6 or float(metrics["margin"]) != 0:
        raise ConfigError(
            f"before the first step policy and reference differ: the loss is {float(loss):.6f}, not log 2 = 0.693147"
        )
