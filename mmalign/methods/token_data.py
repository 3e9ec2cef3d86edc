"""Batches of token data, and tokens of different lengths as one tensor."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmalign.generators.token_layouts import IGNORED


@dataclass(frozen=True, eq=False)
class RowBatch:
    """Rows of some data: all that is random of a step on tokens.

    Args:
        rows: [B].
    """

    rows: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    def part(self, start: int, stop: int) -> "RowBatch":
        """Its rows from ``start`` to ``stop``."""
        return RowBatch(self.rows[start:stop])


def stack_tokens(samples: Sequence[Tensor], *, frames: int | None = None) -> Tensor:
    """Tokens [T, K] or [B, T, K] of different lengths as one [N, frames, K], ignored past their end.

    Args:
        samples: as they are.
        frames: the longest of them if not given; longer ones are not cut.

    >>> stack_tokens([torch.tensor([[1], [2]]), torch.tensor([[3]])])[..., 0]
    tensor([[ 1,  2],
            [ 3, -1]])
    """
    T = max([frames or 0, *(sample.shape[-2] for sample in samples)])
    padded = [nn.functional.pad(s, (0, 0, 0, T - s.shape[-2]), value=IGNORED) for s in samples]
    return torch.cat([s if s.ndim == 3 else s[None] for s in padded])
