"""Guards of a training step: nothing that is not finite is applied or kept, and the place of the fault is named."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mmalign.errors import NonFiniteError
from mmalign.weights import first_not_finite


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


def check_weights(
    parameters: Mapping[str, nn.Parameter],
    moments: Mapping[str, Tensor],
    method: Mapping[str, Tensor],
    *,
    step: int,
) -> None:
    """Stop where a step left weights, the optimiser's moments or the method's state not finite.

    Raises:
        NonFiniteError: it did; nothing of this step is written, and the last checkpoint stays.
    """
    kinds = (
        ("the weights", parameters),
        ("the optimiser's moments", moments),
        ("the method's state", method),
    )
    bad = first_not_finite((f"{kind}: {name}", t) for kind, of in kinds for name, t in of.items())
    if bad is not None:
        kind, _, name = bad.partition(": ")
        raise NonFiniteError(
            f"step {step}: after it {kind} are not finite, first in {name}; nothing of this step was written, and the "
            "last checkpoint is as it was. Lower train.learning_rate, or use train.precision fp32"
        )
