"""The protocol of rewards that compare two media of one prompt."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from mmalign.errors import ShapeError
from mmalign.media import Sample
from mmalign.rewards.base import OK
from mmalign.rewards.cards import RewardCard


@dataclass(frozen=True, eq=False)
class Preference:
    """What a reward says of B pairs.

    Args:
        first: [B] in [0, 1], probability that the first is better; NaN exactly where ``status`` is not "ok".
        tie: [B] in [0, 1], probability that neither is; the second has the rest.
        status: B times "ok", or why this pair has no verdict.
        agreed: [B], whether both orders of showing the pair gave the same verdict; None where only one was shown.
        text: B times a judge's analysis.

    Raises:
        ShapeError: the lengths differ, or numbers and ``status`` disagree about what failed.
    """

    first: Tensor
    tie: Tensor
    status: list[str]
    agreed: Tensor | None = None
    text: list[str] | None = None

    def __post_init__(self) -> None:
        count = len(self.status)
        for name in ("first", "tie"):
            found = getattr(self, name)
            if found.shape != (count,):
                raise ShapeError(f"{name}: expected [B] = [{count}], got {list(found.shape)}")
            failed = torch.tensor([entry != OK for entry in self.status], dtype=torch.bool)
            if not torch.equal(failed, torch.isnan(found).cpu()):
                raise ShapeError(f'{name}: must be NaN exactly where status is not "ok"')

    @property
    def second(self) -> Tensor:
        """[B], probability that the second is better."""
        return 1 - self.first - self.tie

    @property
    def wins(self) -> Tensor:
        """[B] in [0, 1], ``first + tie / 2``: what a loss over soft labels takes; swapped pairs sum to 1."""
        return self.first + self.tie / 2

    @property
    def consistency(self) -> float:
        """Share of the judged pairs whose verdict did not depend on the order; NaN without such pairs."""
        ok = ~torch.isnan(self.first)
        if self.agreed is None or not bool(ok.any()):
            return float("nan")
        return float(self.agreed[ok].float().mean())


@runtime_checkable
class PairReward(Protocol):
    """Anything that prefers one of two samples of the same prompt."""

    card: RewardCard

    def compare(self, first: Sequence[Sample], second: Sequence[Sample]) -> Preference:
        """One preference per pair, in order."""
        ...
