"""Log-probabilities of tokens and of whole sequences, and the distance between two next-token distributions."""

import torch
from torch import Tensor

from mmalign.errors import ConfigError, ShapeError
from mmalign.losses.masks import check_mask, lengths, masked_sum
from mmalign.losses.shapes import check_shape


def token_log_probs(
    logits: Tensor, tokens: Tensor, *, mask: Tensor | None = None, temperature: float = 1.0
) -> Tensor:
    """How likely each token was, given those before it.

        log_prob[b, l] = (logits[b, l] / temperature).log_softmax()[tokens[b, l]],  and 0 where the mask is False

    ``logits[:, l]`` are those that predict ``tokens[:, l]``: of a causal model's output and input, ``logits[:, :-1]``
    and ``tokens[:, 1:]``.

    Args:
        logits: [B, L, V]; what the mask leaves out may be any number, NaN included, and receives no gradient.
        tokens: [B, L], of integers; padding may lie outside the vocabulary.
        mask: [B, L], booleans, True on the tokens that count; all of them if not given.
        temperature: of the sampling, so that a rollout and its training agree; above 0.

    Returns:
        [B, L], nats, at most 0, in float32 at least.

    Raises:
        ShapeError: not [B, L, V] and twice [B, L].
        ConfigError: ``temperature`` is not positive, ``mask`` is not of booleans, or a token that counts is none of
            the vocabulary's.

    >>> token_log_probs(torch.tensor([[[0.0, 0.0], [0.0, 0.0]]]), torch.tensor([[1, 0]]))  # -log 2
    tensor([[-0.6931, -0.6931]])
    """
    if temperature <= 0:
        raise ConfigError(f"temperature = {temperature}, but it must be positive; 1 is the model's own")
    if logits.ndim != 3:
        raise ShapeError(f"logits: expected [B, L, V], got {list(logits.shape)}")
    check_shape(tokens, logits.shape[:2], name="tokens", letters="[B, L]")
    mask = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
    check_mask(mask, tokens)
    # Only the rows that count: the others may hold NaN, and a whole [B, L, V] in float32 is the largest tensor here.
    kept, V = tokens[mask], logits.shape[2]
    if ((kept < 0) | (kept >= V)).any():
        wrong = int(kept[(kept < 0) | (kept >= V)][0])
        raise ConfigError(
            f"tokens: expected 0 to {V - 1} wherever the mask is True, got {wrong}; mask padding out"
        )
    log_prob = (_at_least_float32(logits[mask]) / temperature).log_softmax(1).gather(1, kept[:, None])[:, 0]
    return log_prob.new_zeros(mask.shape).masked_scatter(mask, log_prob)


def sequence_log_prob(log_prob: Tensor, mask: Tensor, *, length_power: float = 0.0) -> Tensor:
    """How likely a whole sequence was, of its own tokens.

        (sum_{l: mask[b, l]} log_prob[b, l]) / (sum_l mask[b, l])^length_power

    Power 0 is the joint log-probability, which DPO takes; power 1 the mean, which IPO, RRHF and PRO take and which
    makes GSPO of ``clipped_ratio_loss``.

    Args:
        log_prob: [B, L], of ``token_log_probs``.
        mask: [B, L], booleans, True on the tokens that count, at least one a row.
        length_power: how far length is divided out.

    Returns:
        [B], nats, or nats per token at power 1.

    Raises:
        ShapeError: ``log_prob`` is not [B, L], or ``mask`` has another shape.
        ConfigError: ``mask`` is not of booleans, or a row of it is empty.

    >>> sequence_log_prob(torch.tensor([[-1.0, -3.0, -9.0]]), torch.tensor([[True, True, False]]), length_power=1.0)
    tensor([-2.])
    """
    total = masked_sum(log_prob, mask)
    return total / lengths(mask).to(total) ** length_power


def token_kl(logits: Tensor, other_logits: Tensor, *, mask: Tensor) -> Tensor:
    """Distance between two next-token distributions, over the whole vocabulary.

        KL[b, l] = sum_v p[v] * (log p[v] - log q[v]),  p = softmax(logits[b, l]),  q = softmax(other_logits[b, l])

    and 0 where the mask is False. Both sides receive gradient; detach the one that is constant.

    Args:
        logits: [B, L, V], of the distribution that the average is over.
        other_logits: as ``logits``.
        mask: [B, L], booleans.

    Returns:
        [B, L], nats, at least 0, in float32 at least; 0 only where the two agree.

    Raises:
        ShapeError: not twice the same [B, L, V], or ``mask`` is not [B, L].
        ConfigError: ``mask`` is not of booleans.

    >>> one, mask = torch.zeros(1, 1, 2), torch.tensor([[True]])
    >>> token_kl(one, torch.tensor([[[3.0, 1.0]]]).log(), mask=mask)  # log(1/2) - (log(3/4) + log(1/4)) / 2
    tensor([[0.1438]])
    """
    if logits.ndim != 3:
        raise ShapeError(f"logits: expected [B, L, V], got {list(logits.shape)}")
    check_shape(other_logits, logits.shape, name="other_logits", letters="[B, L, V]")
    check_mask(mask, logits[..., 0])
    log_p, log_q = (_at_least_float32(t[mask]).log_softmax(1) for t in (logits, other_logits))
    kl = (log_p.exp() * (log_p - log_q)).sum(1)
    return kl.new_zeros(mask.shape).masked_scatter(mask, kl)


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
