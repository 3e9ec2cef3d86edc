"""Batches of token data."""

from dataclasses import dataclass

from torch import Tensor


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
