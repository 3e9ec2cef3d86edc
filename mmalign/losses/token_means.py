"""How a loss on tokens becomes one number: three averages that differ in what a long answer weighs."""

from torch import Tensor

from mmalign.errors import ConfigError
from mmalign.losses.masks import masked_mean, masked_sum


def grpo_mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean of each sequence's own mean: every answer weighs the same, so a token of a long one weighs less.

        mean_b ( sum_{l: mask[b, l]} values[b, l] / sum_l mask[b, l] )

    Args:
        values: [B, L], such as ``clipped_ratio_terms``.
        mask: [B, L], booleans, True on the tokens that count, at least one a row.

    Returns:
        Scalar, in the unit of ``values``.

    Raises:
        ShapeError: ``values`` is not [B, L], or ``mask`` has another shape.
        ConfigError: ``mask`` is not of booleans, or a row of it is empty.

    Source: Shao et al. 2024, DeepSeekMath, section 4.1.1, equation 3 (arXiv:2402.03300).

    >>> import torch
    >>> grpo_mean(torch.tensor([[1.0, 3.0], [6.0, 0.0]]), torch.tensor([[True, True], [True, False]]))  # (2 + 6) / 2
    tensor(4.)
    """
    return masked_mean(values, mask).mean()


def dapo_mean(values: Tensor, mask: Tensor, *, total_tokens: int | None = None) -> Tensor:
    """The mean over all tokens of the batch: every token weighs the same.

        sum_{b, l: mask[b, l]} values[b, l] / total_tokens

    Args:
        values: [B, L], such as ``clipped_ratio_terms``.
        mask: [B, L], booleans, True on the tokens that count; a row may be empty.
        total_tokens: of the whole batch over all micro-batches and devices, whose losses are then added up; those of
            this mask if not given.

    Returns:
        Scalar, in the unit of ``values``.

    Raises:
        ShapeError: ``values`` is not [B, L], or ``mask`` has another shape.
        ConfigError: ``mask`` is not of booleans, or ``total_tokens`` is smaller than its own tokens or 0.

    Source: Yu et al. 2025, DAPO, section 3.3 (arXiv:2503.14476).

    >>> import torch
    >>> dapo_mean(torch.tensor([[1.0, 3.0], [6.0, 0.0]]), torch.tensor([[True, True], [True, False]]))  # 10 / 3
    tensor(3.3333)
    """
    total = masked_sum(values, mask).sum()
    own = int(mask.sum())
    count = own if total_tokens is None else total_tokens
    if count < max(own, 1):
        raise ConfigError(
            f"total_tokens = {count}, but this mask has {own}; give the count of the whole batch"
        )
    return total / count


def dr_grpo_mean(values: Tensor, mask: Tensor, *, max_tokens: int) -> Tensor:
    """The sum over each sequence's tokens by a constant: length neither dilutes an answer nor is rewarded.

        mean_b ( sum_{l: mask[b, l]} values[b, l] / max_tokens )

    Args:
        values: [B, L], such as ``clipped_ratio_terms``.
        mask: [B, L], booleans, True on the tokens that count; a row may be empty.
        max_tokens: the longest answer that sampling allows, the same for every batch.

    Returns:
        Scalar, in the unit of ``values``.

    Raises:
        ShapeError: ``values`` is not [B, L], or ``mask`` has another shape.
        ConfigError: ``mask`` is not of booleans, or ``max_tokens`` is not positive.

    Source: Liu et al. 2025, Understanding R1-Zero-Like Training, section 3.2 (arXiv:2503.20783).

    >>> import torch
    >>> dr_grpo_mean(torch.tensor([[1.0, 3.0]]), torch.tensor([[True, True]]), max_tokens=8)  # 4 / 8
    tensor(0.5000)
    """
    if max_tokens <= 0:
        raise ConfigError(f"max_tokens = {max_tokens}, but it is the longest answer that sampling allows")
    return masked_sum(values, mask).mean() / max_tokens
