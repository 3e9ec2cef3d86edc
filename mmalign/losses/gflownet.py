"""Preference as a flow of probability: responses as often as they are good, rather than the best one always."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mmalign.errors import ConfigError
from mmalign.losses.masks import check_mask
from mmalign.losses.shapes import check_shape


def gdpo_loss(
    log_prob: Tensor,
    eos_log_prob: Tensor,
    ref_log_prob: Tensor,
    ref_eos_log_prob: Tensor,
    *,
    chosen: Tensor,
    mask: Tensor,
    alpha: float = 0.1,
    rejected_log_reward: float = -8.0,
) -> Tensor:
    """GFlowNet preference optimisation: the balance of flow between every prefix of a response and the next.

        log_R[b, t] = sum_{l < t} ref_log_prob[b, l] + ref_eos_log_prob[b, t]
                      + alpha * (0 if chosen[b] else rejected_log_reward)   only at the end, t = n[b]
        f[b, t] = log_R[b, t] - eos_log_prob[b, t]
        mean_b sum_{t < n[b]} (f[b, t] - f[b, t + 1] + log_prob[b, t])^2,  n[b] = sum_l mask[b, l]

    Args:
        log_prob: [B, L], of the response's tokens under the policy, the end of the sequence not among them.
        eos_log_prob: [B, L + 1], of ending after t tokens, under the policy; t = 0 is the empty response.
        ref_log_prob: [B, L], of the tokens under the frozen reference; detached.
        ref_eos_log_prob: [B, L + 1], of ending, under the reference at a temperature of its own, 0.1 in the
            published runs; detached.
        chosen: [B], booleans, True for the better response of a pair.
        mask: [B, L], booleans: True on the n[b] tokens of the response, which come first.
        alpha: weight of the preference.
        rejected_log_reward: of the worse response, in nats, where the better one has 0.

    Returns:
        Scalar, squared nats; 0 while policy and reference agree, at temperature 1 and alpha 0.

    Raises:
        ShapeError: not [B, L], [B, L + 1], [B, L], [B, L + 1], [B] and [B, L].
        ConfigError: ``mask`` or ``chosen`` is not of booleans, or a response does not begin its row.

    Source: Kwon et al. 2024, GDPO, section 3 (arXiv:2410.15096). Its code takes the reference's log-probability of one
    token where the identity above needs the sum; we take the sum.

    >>> half = torch.tensor([[0.5]]).log()
    >>> end = torch.tensor([[0.5, 1.0]]).log()
    >>> yes, no = torch.tensor([[True]]), torch.tensor([False])
    >>> gdpo_loss(half, end, half, end, chosen=no, mask=yes)  # the policy is the reference: (0.1 * 8)^2 is left
    tensor(0.6400)
    """
    check_mask(mask, log_prob)
    B, L = log_prob.shape
    for name, tensor, width in (
        ("eos_log_prob", eos_log_prob, L + 1),
        ("ref_log_prob", ref_log_prob, L),
        ("ref_eos_log_prob", ref_eos_log_prob, L + 1),
    ):
        check_shape(tensor, [B, width], name=name, letters="[B, L]" if width == L else "[B, L + 1]")
    check_shape(chosen, [B], name="chosen", letters="[B]")
    if chosen.dtype != torch.bool:
        raise ConfigError(f"chosen: expected booleans, got {chosen.dtype}; give chosen.bool()")
    if (mask[:, 1:] & ~mask[:, :-1]).any():
        raise ConfigError(
            "mask: a response has to begin its row, with padding after it alone; move it to the left"
        )

    length = mask.sum(1)
    reached = (
        torch.arange(L + 1, device=mask.device) <= length[:, None]
    )  # prefixes that exist, the empty one too
    prefix = F.pad(ref_log_prob.detach().masked_fill(~mask, 0).cumsum(1), (1, 0))
    last = F.one_hot(length, L + 1).bool()
    preference = (last & ~chosen[:, None]).to(log_prob) * (alpha * rejected_log_reward)
    log_reward = prefix + ref_eos_log_prob.detach().masked_fill(~reached, 0) + preference
    f = log_reward - eos_log_prob.masked_fill(~reached, 0)
    residual = f[:, :-1] - f[:, 1:] + log_prob.masked_fill(~mask, 0)
    return residual.masked_fill(~mask, 0).square().sum(1).mean()
