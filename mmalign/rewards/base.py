"""The protocol of all rewards: a card that says what the number means, and a score for each sample."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from mmalign.errors import ShapeError
from mmalign.media import Sample
from mmalign.rewards.cards import RewardCard

OK = "ok"


@dataclass(frozen=True)
class TokenScores:
    """A score for each piece of a text, in order."""

    text: tuple[str, ...]
    score: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Score:
    """What a reward says of B samples.

    Args:
        value: [B], in the card's unit; NaN exactly where ``status`` is not "ok".
        status: B times "ok", or why this sample has no score.
        std: [B], epistemic, same unit as ``value``.
        aspects: named [B].
        tokens: B times text and score per token.
        regions: [B, H, W] in [0, 1], high where the fault is.
        text: B times a judge's rationale.

    Raises:
        ShapeError: the lengths differ, or ``value`` and ``status`` disagree about what failed.
    """

    value: Tensor
    status: list[str]
    std: Tensor | None = None
    aspects: dict[str, Tensor] = field(default_factory=dict)
    tokens: list[TokenScores] | None = None
    regions: Tensor | None = None
    text: list[str] | None = None

    def __post_init__(self) -> None:
        count = len(self.status)
        if self.value.shape != (count,):
            raise ShapeError(f"value: expected [B] = [{count}], got {list(self.value.shape)}")
        for name, aspect in self.aspects.items():
            if aspect.shape != (count,):
                raise ShapeError(f"aspect {name}: expected [B] = [{count}], got {list(aspect.shape)}")
        failed = torch.tensor([status != OK for status in self.status], dtype=torch.bool)
        if not torch.equal(failed, torch.isnan(self.value).cpu()):
            raise ShapeError('value: must be NaN exactly where status is not "ok"')

    @property
    def ok(self) -> Tensor:
        """[B], true where there is a score."""
        return ~torch.isnan(self.value)


@runtime_checkable
class Reward(Protocol):
    """Anything that scores samples. ``score`` takes no gradient; a differentiable one also has ``score_with_grad``."""

    card: RewardCard

    def score(self, samples: Sequence[Sample]) -> Score:
        """One score per sample, in order; a sample that cannot be scored gets a status and NaN."""
        ...


@runtime_checkable
class DifferentiableReward(Reward, Protocol):
    """A reward whose gradient reaches the medium (``card.differentiable``)."""

    def score_with_grad(self, media: Tensor, samples: Sequence[Sample]) -> Tensor:
        """Scores [B] of batched media, for images [B, 3, H, W] in [0, 1]; prompts come from ``samples``."""
        ...
