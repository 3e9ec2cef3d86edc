"""Sums and means over the tokens that count; a mask is True on them and False on prompt and padding."""

import torch
from torch import Tensor

from mmalign.errors import ConfigError, ShapeError
from mmalign.losses.shapes import check_shape


def check_mask(mask: Tensor, like: Tensor, *, name: str = "mask") -> None:
    """Refuse a mask of another shape, or of numbers, whose ``~`` would mean something else.

    Args:
        mask: as ``like``, booleans.
        like: [B, L].
        name: what to call ``mask`` in the error.

    Raises:
        ShapeError: ``like`` is not [B, L], or ``mask`` has another shape.
        ConfigError: ``mask`` is not of booleans.

    >>> check_mask(torch.ones(1, 2), torch.zeros(1, 2))
    Traceback (most recent call last):
    mmalign.errors.ConfigError: mask: expected booleans, True on what counts, got torch.float32; give mask.bool()
    """
    if like.ndim != 2:
        raise ShapeError(f"what {name} is for: expected [B, L], got {list(like.shape)}")
    check_shape(mask, like.shape, name=name, letters="[B, L]")
    if mask.dtype != torch.bool:
        raise ConfigError(
            f"{name}: expected booleans, True on what counts, got {mask.dtype}; give {name}.bool()"
        )


def lengths(mask: Tensor) -> Tensor:
    """How many entries of each row count.

    Args:
        mask: [B, L], booleans, True somewhere in every row.

    Returns:
        [B], integers, at least 1.

    Raises:
        ConfigError: a row is empty.

    >>> lengths(torch.tensor([[True, True, False], [True, False, False]]))
    tensor([2, 1])
    """
    count = mask.sum(1)
    if (count == 0).any():
        row = int((count == 0).nonzero()[0])
        raise ConfigError(f"mask: row {row} is empty, so there is nothing to average; leave that sample out")
    return count


def masked_sum(values: Tensor, mask: Tensor) -> Tensor:
    """Sum each row over what counts.

        sum_{l: mask[b, l]} values[b, l]

    Args:
        values: [B, L]; what the mask leaves out may be any number, NaN included.
        mask: as ``values``, booleans.

    Returns:
        [B].

    Raises:
        ShapeError: ``values`` is not [B, L], or ``mask`` has another shape.
        ConfigError: ``mask`` is not of booleans.

    >>> masked_sum(torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([[True, True, False]]))
    tensor([3.])
    """
    check_mask(mask, values)
    return values.masked_fill(~mask, 0).sum(1)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Average each row over what counts.

        sum_{l: mask[b, l]} values[b, l] / sum_l mask[b, l]

    Args:
        values: [B, L]; what the mask leaves out may be any number, NaN included.
        mask: as ``values``, booleans, True somewhere in every row.

    Returns:
        [B].

    Raises:
        ShapeError: ``values`` is not [B, L], or ``mask`` has another shape.
        ConfigError: ``mask`` is not of booleans, or a row of it is empty.

    >>> masked_mean(torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([[True, True, False]]))
    tensor([1.5000])
    """
    return masked_sum(values, mask) / lengths(mask)
