"""Losses of heads that find what is wrong: in the words of a prompt, and in the patches of a picture."""

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from mmalign.errors import ShapeError
from mmalign.losses.masks import check_mask


def word_detection_loss(logits: Tensor, right: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy of whether each word is right.

        L = mean over words of -log sigmoid(z) where right, -log sigmoid(-z) elsewhere

    Args:
        logits: [B, W], that a word is right.
        right: [B, W], booleans; not read where the mask is false.
        mask: [B, W], booleans, true on words.

    Returns:
        Scalar, nats per word; 0 without a word.

    Raises:
        ShapeError: not three times [B, W].

    Source: Fu et al. 2024, TLDR: Token-Level Detective Reward Model (arXiv:2410.04734).

    >>> one = torch.tensor([[True, True]])
    >>> word_detection_loss(torch.zeros(1, 2), torch.tensor([[True, False]]), one)  # log 2
    tensor(0.6931)
    """
    check_mask(mask, logits)
    check_mask(right, logits)
    terms = binary_cross_entropy_with_logits(logits, right.to(logits.dtype), reduction="none")
    return terms.masked_fill(~mask, 0).sum() / mask.sum().clamp(min=1)


def region_detection_loss(logits: Tensor, region: Tensor, known: Tensor) -> Tensor:
    """Cross-entropy of how much of each patch is wrong.

        L = mean over patches of known samples of -y log sigmoid(z) - (1 - y) log sigmoid(-z)

    Args:
        logits: [B, P], that a patch is wrong.
        region: [B, P] in [0, 1], y, the share of a patch that is; not read where it is not known.
        known: [B], booleans, true where somebody said where the fault is, or that there is none.

    Returns:
        Scalar, nats per patch; 0 where nothing is known.

    Raises:
        ShapeError: not twice [B, P] and [B].

    Source: Liang et al. 2024, Rich Human Feedback for Text-to-Image Generation, section 4 (arXiv:2312.10240), which has
    a squared error; its gradient dies where a map of mostly zeros saturates.

    >>> region_detection_loss(torch.zeros(1, 4), torch.tensor([[0.0, 1.0, 0.5, 0.0]]), torch.tensor([True]))
    tensor(0.6931)
    """
    if logits.ndim != 2 or region.shape != logits.shape or known.shape != logits.shape[:1]:
        raise ShapeError(
            f"expected logits and region [B, P] and known [B], got {list(logits.shape)}, {list(region.shape)}, "
            f"{list(known.shape)}"
        )
    target = torch.where(known[:, None], region, 0.5)
    terms = binary_cross_entropy_with_logits(logits, target.to(logits.dtype), reduction="none")
    return terms.masked_fill(~known[:, None], 0).sum() / (known.sum() * logits.shape[1]).clamp(min=1)
