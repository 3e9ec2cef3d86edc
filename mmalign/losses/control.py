"""Control that is kept: the condition read back from a generated sample should be the one that was given."""

from torch import Tensor

from mmalign.errors import ConfigError, ShapeError
from mmalign.losses.selection import kept_mean
from mmalign.losses.shapes import check_shape


def control_consistency_loss(
    training_error: Tensor, consistency_error: Tensor, rewarded: Tensor, *, weight: float = 0.5
) -> Tensor:
    """ControlNet++: the denoising loss, and the distance between the condition and its reading, where that is sharp.

        mean_b training_error[b] + weight * (mean of consistency_error[b] where rewarded[b], 0 if nowhere)

    Args:
        training_error: [B], of ``denoising_error``.
        consistency_error: [B], between the condition and what a frozen extractor reads from the one-step estimate.
        rewarded: [B], booleans, True where little noise was added: the estimate is too blurred elsewhere. In the
            published run time <= 200 of 1000.
        weight: 0.5 for segmentation and lines, 1 for depth and edges.

    Returns:
        Scalar.

    Raises:
        ShapeError: not three times the same [B].
        ConfigError: ``rewarded`` is not of booleans.

    Source: Li et al. 2024, ControlNet++, section 3.3 (arXiv:2404.07987).

    >>> import torch
    >>> error, rewarded = torch.tensor([1.0, 3.0]), torch.tensor([True, False])
    >>> control_consistency_loss(error, torch.tensor([4.0, 9.0]), rewarded)  # 2 + 4 / 2
    tensor(4.)
    """
    check_shape(training_error, training_error.shape[:1], name="training_error", letters="[B]")
    check_shape(consistency_error, training_error.shape, name="consistency_error", letters="[B]")
    return training_error.mean() + weight * kept_mean(consistency_error, rewarded)


def ctrl_u_loss(
    training_error: Tensor,
    consistency_error: Tensor,
    uncertainty: Tensor,
    rewarded: Tensor,
    *,
    weight: float,
    uncertainty_weight: float = 1.0,
) -> Tensor:
    """Ctrl-U: a reading that changes with a little more noise is not to be trusted, and counts less.

        mean_n training_error[n] + weight * M[ mean_e consistency_error[b, e] * exp(-uncertainty[b, e]) ]
                                 + uncertainty_weight * M[ mean_e uncertainty[b, e] ]

    where M is the mean over the samples that ``rewarded`` marks, 0 if none. The uncertainty has gradient: alone it
    would grow, and the last term calls it back.

    Args:
        training_error: [N], of ``denoising_error``, of both noised copies of each sample.
        consistency_error: [B, ...], element by element, of the first copy.
        uncertainty: as ``consistency_error``, at least 0: ``class_disagreement``, or the absolute difference of the
            two copies' readings.
        rewarded: [B], booleans; time <= 400 of 1000 in the published run.
        weight: of the reward, ramped up from 0 over 5000 steps in the published run.
        uncertainty_weight: of the last term: 1, or 0.1 for the absolute difference.

    Returns:
        Scalar.

    Raises:
        ShapeError: not [N], twice the same [B, ...] and [B].
        ConfigError: ``rewarded`` is not of booleans.

    Source: Zhang et al. 2024, Ctrl-U, section 3 (arXiv:2410.11236), in the form of its code.

    >>> import torch
    >>> zero, yes = torch.zeros(1), torch.tensor([True])
    >>> ctrl_u_loss(zero, torch.tensor([[3.0]]), torch.tensor([[3.0]]).log(), yes, weight=1.0)  # 3 / 3 + log 3
    tensor(2.0986)
    """
    check_shape(training_error, training_error.shape[:1], name="training_error", letters="[N]")
    if consistency_error.ndim < 2:
        raise ShapeError(f"consistency_error: expected [B, ...], got {list(consistency_error.shape)}")
    check_shape(uncertainty, consistency_error.shape, name="uncertainty", letters="[B, ...]")
    trusted = (consistency_error * (-uncertainty).exp()).flatten(1).mean(1)
    doubt = uncertainty.flatten(1).mean(1)
    reward = weight * kept_mean(trusted, rewarded) + uncertainty_weight * kept_mean(doubt, rewarded)
    return training_error.mean() + reward


def class_disagreement(logits: Tensor, noisier_logits: Tensor) -> Tensor:
    """How far two segmentations of one sample differ, pixel by pixel.

        sum_k q[k] * (log q[k] - log p[k]),  p = softmax(logits),  q = softmax(noisier_logits)

    Args:
        logits: [B, K, ...], class logits of the first copy's reading.
        noisier_logits: as ``logits``, of the copy with one time step's more noise.

    Returns:
        [B, ...], nats, at least 0.

    Raises:
        ShapeError: the shapes differ, or are not [B, K, ...].

    Source: the code of Zhang et al. 2024, Ctrl-U (arXiv:2410.11236).

    >>> import torch
    >>> class_disagreement(torch.zeros(1, 2), torch.tensor([[3.0, 1.0]]).log())  # log 2 - entropy of 3 to 1
    tensor([0.1308])
    """
    if logits.ndim < 2:
        raise ShapeError(f"logits: expected [B, K, ...], got {list(logits.shape)}")
    check_shape(noisier_logits, logits.shape, name="noisier_logits", letters="[B, K, ...]")
    log_p, log_q = logits.log_softmax(1), noisier_logits.log_softmax(1)
    return (log_q.exp() * (log_q - log_p)).sum(1)


def ramp(step: int, *, steps: int = 5000) -> float:
    """Share of a weight that is reached after so many steps.

        min(1, step / steps)

    Args:
        step: optimiser steps done, at least 0.
        steps: until the weight is whole.

    Returns:
        In [0, 1].

    Raises:
        ConfigError: ``step`` is negative, or ``steps`` is not positive.

    Source: the code of Zhang et al. 2024, Ctrl-U (arXiv:2410.11236).

    >>> import torch
    >>> ramp(0), ramp(1250), ramp(9999)
    (0.0, 0.25, 1.0)
    """
    if step < 0 or steps <= 0:
        raise ConfigError(f"step = {step} and steps = {steps}, but step is at least 0 and steps at least 1")
    return min(1.0, step / steps)
