"""Training data as the policy sees it: clean latents, or tokens, with the conditioning of their prompts."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from mmalign.errors import ShapeError
from mmalign.generators.conditioning import Conditioning
from mmalign.methods.pair_columns import PairColumns


@dataclass(frozen=True, eq=False)
class LatentPairs:
    """Preference pairs.

    Args:
        chosen: [N, ...], clean latents; or tokens [N, T, K], ``IGNORED`` from the end of a sample on.
        rejected: as ``chosen``.
        conditioning: of the distinct prompts.
        prompt: [N], index into ``conditioning`` and ``texts``.
        texts: the distinct prompts.
        columns: what their file says beside.
    """

    chosen: Tensor
    rejected: Tensor
    conditioning: Conditioning
    prompt: Tensor
    texts: Sequence[str]
    columns: PairColumns = field(default_factory=PairColumns)

    def __post_init__(self) -> None:
        if self.chosen.shape != self.rejected.shape:
            raise ShapeError(
                f"rejected: expected {list(self.chosen.shape)}, got {list(self.rejected.shape)}; both sides have one "
                "size (stack_tokens pads tokens)"
            )

    def __len__(self) -> int:
        return len(self.chosen)


@dataclass(frozen=True, eq=False)
class LatentSamples:
    """Single samples, with or without a score.

    Args:
        clean: [N, ...], clean latents; or tokens [N, T, K], ``IGNORED`` from the end of a sample on.
        conditioning: of the distinct prompts.
        prompt: [N], index into ``conditioning`` and ``texts``.
        texts: the distinct prompts.
        score: [N], in the scorer's unit; None for demonstrations.
    """

    clean: Tensor
    conditioning: Conditioning
    prompt: Tensor
    texts: Sequence[str]
    score: Tensor | None = None

    def __post_init__(self) -> None:
        if self.score is not None and self.score.shape != self.prompt.shape:
            raise ShapeError(f"score: expected {list(self.prompt.shape)}, got {list(self.score.shape)}")

    def __len__(self) -> int:
        return len(self.clean)

    def texts_of(self, rows: Tensor) -> list[str]:
        """The prompt of each of some rows."""
        return [self.texts[int(index)] for index in self.prompt[rows]]
