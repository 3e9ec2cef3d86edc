"""The shape check that every loss begins with, where broadcasting would hide a mistake."""

from collections.abc import Sequence

from torch import Tensor

from mmalign.errors import ShapeError


def check_shape(tensor: Tensor, shape: Sequence[int], *, name: str, letters: str) -> None:
    """Refuse any shape but one.

    Args:
        tensor: any.
        shape: what it has to be.
        name: what to call ``tensor`` in the error.
        letters: the axes of ``shape``, as "[B, T]".

    Raises:
        ShapeError: ``tensor`` has another shape.

    >>> import torch
    >>> check_shape(torch.ones(3, 1), [3], name="advantage", letters="[B]")
    Traceback (most recent call last):
    mmalign.errors.ShapeError: advantage: expected [B] = [3], got [3, 1]
    """
    if list(tensor.shape) != list(shape):
        raise ShapeError(f"{name}: expected {letters} = {list(shape)}, got {list(tensor.shape)}")
