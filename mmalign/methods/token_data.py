"""Training data of token generators: samples as tokens, with the conditioning of their prompts."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmalign.errors import ShapeError
from mmalign.generators.conditioning import Conditioning
from mmalign.generators.token_layouts import IGNORED


@dataclass(frozen=True, eq=False)
class TokenPairs:
    """Preference pairs.

    Args:
        chosen: [N, T, K], ``IGNORED`` from the end of a sample on.
        rejected: as ``chosen``.
        conditioning: of the distinct prompts.
        prompt: [N], index into ``conditioning`` and ``texts``.
        texts: the distinct prompts.
    """

    chosen: Tensor
    rejected: Tensor
    conditioning: Conditioning
    prompt: Tensor
    texts: Sequence[str]

    def __post_init__(self) -> None:
        if self.chosen.shape != self.rejected.shape:
            raise ShapeError(
                f"rejected: expected {list(self.chosen.shape)}, got {list(self.rejected.shape)}; "
                "stack_tokens gives both one length"
            )

    def __len__(self) -> int:
        return len(self.chosen)


@dataclass(frozen=True, eq=False)
class TokenSamples:
    """Single samples, with or without a score.

    Args:
        tokens: [N, T, K], ``IGNORED`` from the end of a sample on.
        conditioning: of the distinct prompts.
        prompt: [N], index into ``conditioning`` and ``texts``.
        texts: the distinct prompts.
        score: [N], in the scorer's unit; None for demonstrations.
    """

    tokens: Tensor
    conditioning: Conditioning
    prompt: Tensor
    texts: Sequence[str]
    score: Tensor | None = None

    def __post_init__(self) -> None:
        if self.score is not None and self.score.shape != self.prompt.shape:
            raise ShapeError(f"score: expected {list(self.prompt.shape)}, got {list(self.score.shape)}")

    def __len__(self) -> int:
        return len(self.tokens)

    def texts_of(self, rows: Tensor) -> list[str]:
        """The prompt of each of some rows."""
        return [self.texts[int(index)] for index in self.prompt[rows]]


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
