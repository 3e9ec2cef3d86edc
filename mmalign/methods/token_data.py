"""Batches of token data."""

from dataclasses import dataclass, field

from torch import Tensor

from mmalign.methods.pair_columns import PairColumns


@dataclass(frozen=True, eq=False)
class RowBatch:
    """Rows of some data: all that is random of a step on tokens.

    Args:
        rows: [B].
        columns: of pairs, what their file says of these rows.
    """

    rows: Tensor
    columns: PairColumns = field(default_factory=PairColumns)

    def __len__(self) -> int:
        return len(self.rows)

    def part(self, start: int, stop: int) -> "RowBatch":
        """Its rows from ``start`` to ``stop``."""
        return RowBatch(self.rows[start:stop], self.columns.rows(slice(start, stop)))
