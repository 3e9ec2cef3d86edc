"""The protocol of all rewards: a card that says what the number means, and a score for each sample."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from mmalign.errors import ShapeError
from mmalign.media import Audio, Image, Media, Sample, Scene3D, Video
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


@runtime_checkable
class PreparingReward(Reward, Protocol):
    """A reward that can do the work of a single sample ahead of its batch, as the threads that read files do."""

    def prepare(self, sample: Sample) -> Sample:
        """The sample with its medium made small; it scores exactly as the original does."""
        ...


@runtime_checkable
class EmbeddingReward(PreparingReward, Protocol):
    """A reward that compares vectors of media and of prompts; on them, frozen, other rewards are trained."""

    def obstacle(self, sample: Sample) -> str:
        """ "ok", or why this sample cannot be scored."""
        ...

    def media_vectors(self, samples: Sequence[Sample]) -> Tensor:
        """[B, D] of media without an obstacle, on the CPU, without gradient."""
        ...

    def media_vectors_with_grad(self, media: Tensor) -> Tensor:
        """[B, D] of batched media as ``score_with_grad`` takes them."""
        ...

    def prompt_vectors(self, prompts: Sequence[str]) -> Tensor:
        """[B, D], on the reward's device, without gradient."""
        ...


@runtime_checkable
class EnsembleReward(Reward, Protocol):
    """A reward of several members that can be asked one by one."""

    def score_members(self, samples: Sequence[Sample]) -> tuple[Tensor, Score]:
        """What each says, [K, B], NaN where there is no score, and the score of them together."""
        ...

    def members_with_grad(self, media: Tensor, samples: Sequence[Sample]) -> tuple[Tensor, Tensor | None]:
        """Members [K, B] and std [B], or None for one member without another, with gradient to the media."""
        ...


def obstacle(sample: Sample, card: RewardCard) -> str:
    """ "ok", or why this reward cannot score the sample.

    >>> from mmalign.rewards.cards import find_card
    >>> obstacle(Sample("a small red circle on the left"), find_card("shapes-truth"))
    'no media'
    """
    if sample.media is None:
        return "no media"
    if not takes(card, sample.media):
        return f"takes {' or '.join(card.modalities)}, not {sample.media.modality}"
    if not finite(sample.media):
        return "the medium has NaN or infinite values"
    for need in card.needs:
        if need == "prompt" and not sample.prompt.strip():
            return "no prompt"
        if need != "prompt" and need not in sample.context:
            return f"no {need}"
    return OK


def takes(card: RewardCard, media: Media) -> bool:
    """Whether a reward is made for this medium; what takes sound takes speech."""
    return card.takes(media.modality)


def finite(media: Media) -> bool:
    """Whether a medium, sound when it was made, still is; tensors can be changed in place."""
    match media:
        case Image():
            tensors = [media.pixels]
        case Video():
            tensors = [media.frames]
        case Scene3D():
            vertices = None if media.mesh is None else media.mesh.vertices
            tensors = [tensor for tensor in (media.views, vertices) if tensor is not None]
        case Audio():
            tensors = [media.waveform]
        case _:
            tensors = []
    return all(bool(tensor.detach().sum(dtype=torch.float32).isfinite()) for tensor in tensors)


def scatter(
    status: Sequence[str],
    value: Tensor,
    aspects: Mapping[str, Tensor] | None = None,
    *,
    std: Tensor | None = None,
) -> Score:
    """A score for each of B samples from the values of the n whose status is "ok".

    >>> scatter(["ok", "no media"], torch.tensor([3.0])).value
    tensor([3., nan])

    Args:
        status: B times "ok", or why there is no value.
        value: [n], in order. One that is not finite gets a status that says so.
        aspects: named [n].
        std: [n].
    """
    rows = torch.tensor([entry == OK for entry in status], dtype=torch.bool)

    def spread(values: Tensor) -> Tensor:
        full = torch.full((len(status),), math.nan)
        full[rows] = values.detach().float().cpu()
        return full.where(full.isfinite(), math.nan)

    full = spread(value)
    unsound = rows & full.isnan()
    return Score(
        full,
        [
            "the score is not a finite number" if bad else entry
            for entry, bad in zip(status, unsound, strict=True)
        ],
        std=None if std is None else spread(std).where(~unsound, math.nan),
        aspects={name: spread(aspect).where(~unsound, math.nan) for name, aspect in (aspects or {}).items()},
    )
