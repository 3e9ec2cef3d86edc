"""Rewards of pictures on media that have many of them: the frames of a video, the views of a 3D scene."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import torch
from torch import Tensor

from mmalign.errors import ConfigError, ShapeError, UnknownNameError
from mmalign.losses.temporal import segment_frames
from mmalign.media import Image, Sample, Scene3D, Video
from mmalign.rewards.base import OK, DifferentiableReward, PreparingReward, Reward, Score, obstacle
from mmalign.rewards.cards import RewardCard, load_reward
from mmalign.rewards.direction import check_direction
from mmalign.rewards.groups import refuse_comparing
from mmalign.rewards.rows import join_scores, pick, place, without_score
from mmalign.rewards.sound_lift import SoundLift

PICKED = "lifted_from"
"""Where a prepared sample's ``meta`` keeps which of how many pictures it still has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LiftOptions:
    """Which pictures of a medium are scored, and how their scores become one.

    Raises:
        ConfigError: a number or a name that cannot work.
    """

    frames: int | None = 4
    """S; None for all, and all where the medium has fewer."""
    mode: Literal["uniform", "segmental"] = "uniform"
    """``uniform``: the middles of S equal parts; ``segmental``: one at random in each part, the same for all media of
    equally many pictures."""
    reduce: Literal["mean", "min"] = "mean"
    """``min`` is the worst picture's score: one bad one is not outweighed by others."""
    decay: float = 0.0
    """Of the mean's weights, per frame away from the middle one; 0 counts all alike."""
    seed: int = 0
    """Of the segmental choice."""

    def __post_init__(self) -> None:
        if self.frames is not None and self.frames < 1:
            raise ConfigError(f"lift: frames = {self.frames}, expected at least 1, or null for all")
        for name, value, known in (
            ("mode", self.mode, ("uniform", "segmental")),
            ("reduce", self.reduce, ("mean", "min")),
        ):
            if value not in known:
                raise UnknownNameError(f"lift {name}", str(value), known)
        if self.decay < 0 or (self.decay and self.reduce == "min"):
            raise ConfigError(
                f"lift: decay = {self.decay}, expected at least 0, and 0 where the minimum is taken"
            )

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> "LiftOptions":
        """From a card.

        Raises:
            UnknownNameError: an option is not known.
        """
        names = [f.name for f in fields(cls)]
        for key in values:
            if key not in names:
                raise UnknownNameError("lift option", str(key), names)
        return cls(**values)

    def choose(self, count: int) -> Tensor:
        """Which of ``count`` pictures are scored, [S], rising.

        >>> LiftOptions(frames=3).choose(9), LiftOptions(frames=3).choose(2)
        (tensor([1, 4, 7]), tensor([0, 1]))
        """
        kept = count if self.frames is None else min(self.frames, count)
        if self.mode == "uniform":
            return ((torch.arange(kept, dtype=torch.float64) + 0.5) * count / kept).long()
        generator = torch.Generator().manual_seed(self.seed)
        return segment_frames(count, kept, count=1, generator=generator)[0]

    def weights(self, chosen: Tensor, count: int) -> Tensor:
        """What each chosen picture counts in the mean, [S], their sum 1.

        w[s] = exp(-decay * |chosen[s] - floor(count / 2)|) / sum over all s
        """
        return (-self.decay * (chosen - count // 2).abs().float()).softmax(0)


class ImageLift:
    """A reward of pictures on media that consist of pictures: the frames of a video, the views of a 3D scene.

        mean:  value = sum_s w[s] * score[s],   w as ``LiftOptions.weights`` has them
        min:   value = min_s score[s], max where lower is better

    A sample has no score where one of its pictures has none. Range, unit and direction are those of a picture's score;
    aspects are reduced alike.

    Source: Yuan et al. 2023, InstructVideo, section 4.2 (arXiv:2312.12490), for segments and attenuation. Its weights
    do not add up to 1; ours do, so that the score keeps the unit of a picture's.

    Args:
        card: of the lifted reward; ``modalities`` say what it takes, of video and scene3d.
        reward: of pictures.
        options: which pictures, and how they become one.

    Raises:
        ConfigError: ``reward`` takes no pictures.
    """

    def __init__(self, card: RewardCard, reward: Reward, *, options: LiftOptions | None = None) -> None:
        if "image" not in reward.card.modalities:
            raise ConfigError(
                f"reward '{card.name}': '{reward.card.name}' takes no pictures, so it cannot be lifted"
            )
        refuse_comparing(
            reward, f"'{card.name}' asks it for pictures one by one; lift first, and compare then"
        )
        check_direction(card, reward.card)
        self.card, self.reward, self.options = card, reward, options or LiftOptions()

    def prepare(self, sample: Sample) -> Sample:
        """The sample with only the pictures that are scored, each as the reward of pictures wants it."""
        pictures = _pictures(sample)
        if pictures is None or PICKED in sample.meta or obstacle(sample, self.card) != OK:
            return sample
        chosen = self.options.choose(len(pictures))
        ready = [replace(sample, media=Image(pictures[int(i)])) for i in chosen]
        if isinstance(self.reward, PreparingReward):
            ready = [self.reward.prepare(one) for one in ready]
        frames = torch.stack([one.media.pixels for one in ready if isinstance(one.media, Image)])
        media = replace(sample.media, frames=frames) if isinstance(sample.media, Video) else Scene3D(frames)
        return replace(sample, media=media, meta={**sample.meta, PICKED: (chosen.tolist(), len(pictures))})

    def score(self, samples: Sequence[Sample]) -> Score:
        """One score per sample; all pictures go to the reward in one call."""
        status = [self._obstacle(sample) for sample in samples]
        prepared = [self.prepare(s) for s, entry in zip(samples, status, strict=True) if entry == OK]
        single = [replace(s, media=Image(p)) for s in prepared for p in _pictures(s)]  # type: ignore[union-attr]
        whole = self.reward.score(single) if single else without_score([])
        parts, start = [], 0
        for sample in prepared:
            chosen, count = sample.meta[PICKED]
            rows = range(start, start + len(chosen))
            parts.append(self._reduced(pick(whole, rows), torch.tensor(chosen), count))
            start += len(chosen)
        return place(status, join_scores(parts))

    def _obstacle(self, sample: Sample) -> str:
        found = obstacle(sample, self.card)
        return "the scene has a mesh and no views" if found == OK and _pictures(sample) is None else found

    def _reduced(self, score: Score, chosen: Tensor, count: int) -> Score:
        """The scores of one sample's pictures as one."""
        for i, status in zip(chosen.tolist(), score.status, strict=True):
            if status != OK:
                return without_score([f"picture {i}: {status}"])
        weights = self.options.weights(chosen, count)

        def reduce(values: Tensor) -> Tensor:
            values = values.float().cpu()
            if self.options.reduce == "mean":
                return (weights * values).sum(0, keepdim=True)
            sign = self.reward.card.sign
            return sign * (sign * values).amin(0, keepdim=True)

        return Score(
            reduce(score.value),
            [OK],
            aspects={name: reduce(values) for name, values in score.aspects.items()},
        )


class DifferentiableImageLift(ImageLift):
    """A lift whose gradient reaches the frames that were chosen."""

    def score_with_grad(self, media: Tensor, samples: Sequence[Sample]) -> Tensor:
        """Scores [B] of batched frames or views.

        Args:
            media: [B, F, 3, H, W] in [0, 1].
            samples: B samples; only their prompts are read.

        Raises:
            ShapeError: ``media`` is not [B, F, 3, H, W] with one sample for each.
        """
        if media.ndim != 5 or media.shape[0] != len(samples) or media.shape[2] != 3:
            raise ShapeError(
                f"media: expected [B, F, 3, H, W] with B = {len(samples)}, got {list(media.shape)}"
            )
        assert isinstance(self.reward, DifferentiableReward)
        count = media.shape[1]
        chosen = self.options.choose(count)
        pictures = media[:, chosen.to(media.device)].flatten(0, 1)
        repeated = [sample for sample in samples for _ in chosen]
        scores = self.reward.score_with_grad(pictures, repeated).unflatten(0, (len(samples), len(chosen)))
        if self.options.reduce == "min":
            sign = self.reward.card.sign
            return sign * (sign * scores).amin(1)
        return (self.options.weights(chosen, count).to(scores) * scores).sum(1)


def _pictures(sample: Sample) -> Tensor | None:
    """[F, 3, H, W] of a video's frames or a scene's views; None where there are none."""
    match sample.media:
        case Video():
            return sample.media.frames
        case Scene3D():
            return sample.media.views
    return None


def lifted(
    card: RewardCard, *, device: str = "cpu", of: str, lift: Mapping[str, Any] | None = None
) -> Reward:
    """The target of a card whose ``options`` are ``{of: NAME, lift: {frames: 4, mode: segmental, ...}}``.

    Raises:
        ConfigError: the reward cannot be lifted to what the card takes, or the card promises a gradient there is not.
    """
    reward = load_reward(of, device=device)
    options = LiftOptions.read(lift or {})
    if "image" in reward.card.modalities:
        if card.differentiable and not isinstance(reward, DifferentiableReward):
            raise ConfigError(f"reward '{card.name}' says it has a gradient, but '{of}' has none")
        return (DifferentiableImageLift if card.differentiable else ImageLift)(card, reward, options=options)
    if lift:
        raise ConfigError(f"reward '{card.name}': lift chooses pictures, and '{of}' takes none")
    return SoundLift(card, reward)
