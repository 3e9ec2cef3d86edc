"""Preference with a sense of degree: how much of what mattered was taken away from a sample."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mmalign.errors import ConfigError, ShapeError
from mmalign.losses.masks import check_mask
from mmalign.losses.shapes import check_shape


def spo_degree_loss(
    alignment_loss: Tensor, degree_logits: Tensor, degree: Tensor, *, weight: float
) -> Tensor:
    """Any preference loss, plus telling how much of the key content was removed from a sample.

        alignment_loss + weight * mean_n -degree_logits[n].log_softmax()[degree[n]]

    Args:
        alignment_loss: scalar, such as ``dpo_loss``.
        degree_logits: [N, K], of a head on the generator's last hidden state, for K degrees of removal.
        degree: [N], integers from 0 (nothing removed) to K - 1.
        weight: of the second term; too large a one harms what is generated.

    Returns:
        Scalar; at uniform logits the second term is weight * log K.

    Raises:
        ShapeError: ``alignment_loss`` is not a scalar, ``degree_logits`` not [N, K], or ``degree`` not [N].
        ConfigError: a degree is not from 0 to K - 1.

    Source: Li et al. 2024, Self-supervised Preference Optimization, section 3 (arXiv:2409.17791). The head and the
    weight are not published; they are the recipe's.

    >>> spo_degree_loss(torch.tensor(1.0), torch.zeros(3, 4), torch.tensor([0, 1, 3]), weight=0.5)  # 1 + log(4) / 2
    tensor(1.6931)
    """
    check_shape(alignment_loss, [], name="alignment_loss", letters="a scalar")
    if degree_logits.ndim != 2:
        raise ShapeError(f"degree_logits: expected [N, K], got {list(degree_logits.shape)}")
    check_shape(degree, degree_logits.shape[:1], name="degree", letters="[N]")
    K = degree_logits.shape[1]
    if (degree < 0).any() or (degree >= K).any():
        raise ConfigError(f"degree: expected 0 to {K - 1}, got {int(degree.min())} to {int(degree.max())}")
    return alignment_loss + weight * F.cross_entropy(degree_logits, degree)


def spo_removal(importance: Tensor, mask: Tensor, *, share: float) -> Tensor:
    """Which tokens are left when the most important share of them is removed; larger shares remove more of the same.

    Args:
        importance: [B, L], how much each token carries, such as TF-IDF; the larger goes first.
        mask: [B, L], booleans, the response.
        share: in [0, 1], of each response's tokens, rounded to the nearest token.

    Returns:
        [B, L], booleans: ``mask`` less what was removed. Replace the removed tokens rather than closing the gaps, or
        the head reads the degree off the length.

    Raises:
        ShapeError: not twice the same [B, L].
        ConfigError: ``mask`` is not of booleans, or ``share`` is outside [0, 1].

    Source: Li et al. 2024, section 3 (arXiv:2409.17791), which removes key content in steps.

    >>> spo_removal(torch.tensor([[0.1, 0.9, 0.5, 0.7]]), torch.ones(1, 4, dtype=torch.bool), share=0.5)
    tensor([[ True, False,  True, False]])
    """
    check_mask(mask, importance)
    if not 0 <= share <= 1:
        raise ConfigError(f"share = {share}, but it is of each response's tokens, from 0 to 1")
    # Rank 0 is the most important token of the response; padding comes last.
    order = importance.masked_fill(~mask, -torch.inf).argsort(dim=1, descending=True, stable=True)
    rank = order.argsort(dim=1)
    removed = (mask.sum(1, keepdim=True) * share).round()
    return mask & (rank >= removed)
