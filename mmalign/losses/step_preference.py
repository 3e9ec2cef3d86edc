"""A preference between whole samples, handed down to every step or token that made them."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from mmalign.errors import ConfigError, ShapeError
from mmalign.losses.masks import masked_mean
from mmalign.losses.shapes import check_shape


def d3po_loss(
    chosen_log_prob: Tensor,
    rejected_log_prob: Tensor,
    ref_chosen_log_prob: Tensor,
    ref_rejected_log_prob: Tensor,
    *,
    beta: float = 0.1,
    clamp: float = 0.1,
    label: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """DPO at every step of the two trajectories, each step's ratio to the reference clamped on both sides.

        q = log clamp(exp(log_prob - ref_log_prob), 1 - clamp, 1 + clamp)
        mean_b mean_{t: mask[b, t]} -log sigmoid(beta * label[b] * (q_chosen[b, t] - q_rejected[b, t]))

    The clamp also stops the gradient of a step that went the wrong way, where PPO's would call it back.

    Args:
        chosen_log_prob: [B], one step each; [B, T], the steps of a trajectory; or [B, L], tokens; under the policy.
        rejected_log_prob: as ``chosen_log_prob``; its steps are those at the same places.
        ref_chosen_log_prob: as ``chosen_log_prob``, under the frozen reference; detached.
        ref_rejected_log_prob: likewise; detached.
        beta: pull towards the reference.
        clamp: half the width of what the ratio may be; ``math.inf`` for none.
        label: [B], 1 where the chosen side won, 0 for a tie, which has log 2 and no gradient, -1 where it lost; all 1
            if not given; detached.
        mask: [B, L], booleans, the places that both sides have, so that the longer side's tail is left out; all of
            them if not given.

    Returns:
        Scalar, nats; log 2 while the policy is the reference.

    Raises:
        ShapeError: not four times the same [B], [B, T] or [B, L], or ``label`` or ``mask`` does not match.
        ConfigError: ``clamp`` is not positive, a label is none of the three, or ``mask`` is not of booleans, has an
            empty row, or comes with [B].

    Source: Yang et al. 2023, D3PO, section 4 and algorithm 1 (arXiv:2311.13231), with the clamp of its code. Tokens
    are ours.

    >>> pair = torch.tensor([[1.05], [0.5], [1.0], [1.0]]).log()  # the second ratio is clamped to 0.9
    >>> d3po_loss(*pair, beta=2.0)  # log(1 + (1.05 / 0.9)^-2)
    tensor(0.5508)
    """
    shape = chosen_log_prob.shape
    if len(shape) not in (1, 2):
        raise ShapeError(f"chosen_log_prob: expected [B], [B, T] or [B, L], got {list(shape)}")
    letters = "[B]" if len(shape) == 1 else "[B, T]"
    check_shape(rejected_log_prob, shape, name="rejected_log_prob", letters=letters)
    check_shape(ref_chosen_log_prob, shape, name="ref_chosen_log_prob", letters=letters)
    check_shape(ref_rejected_log_prob, shape, name="ref_rejected_log_prob", letters=letters)
    if clamp <= 0:
        raise ConfigError(f"clamp = {clamp}, but it must be positive; at 0 no ratio could move")
    low, high = (math.log(1 - clamp) if clamp < 1 else -math.inf), math.log(1 + clamp)
    # On the logarithm: clamping exp(x) is the same, but a ratio that overflows would make its gradient NaN.
    q_chosen = (chosen_log_prob - ref_chosen_log_prob.detach()).clamp(low, high)
    q_rejected = (rejected_log_prob - ref_rejected_log_prob.detach()).clamp(low, high)
    margin = beta * (q_chosen - q_rejected)
    if label is not None:
        check_shape(label, shape[:1], name="label", letters="[B]")
        if not torch.isin(label, label.new_tensor([-1, 0, 1])).all():
            raise ConfigError(f"label: expected 1, 0 for a tie or -1, got {sorted(set(label.tolist()))}")
        margin = margin * label.detach().reshape(-1, *[1] * (len(shape) - 1))
    loss = -F.logsigmoid(margin)
    if mask is None:
        return loss.mean()
    if len(shape) == 1:
        raise ConfigError("mask: a loss of one step each, [B], has nothing to mask; leave it out")
    return masked_mean(loss, mask).mean()
