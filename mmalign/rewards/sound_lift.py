"""Rewards of sound on the sound of a video."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mmalign.errors import ConfigError, DataError
from mmalign.media import Audio, Sample, Video
from mmalign.media.video_sound import read_sound
from mmalign.rewards.base import OK, Reward, Score, obstacle
from mmalign.rewards.cards import RewardCard
from mmalign.rewards.direction import check_direction
from mmalign.rewards.groups import refuse_comparing
from mmalign.rewards.rows import place, without_score


class SoundLift:
    """A reward of sound on the sound of a video: its ``context["sound"]``, or that of the file it was read from.

    Range, unit and direction are those of the reward of sound.

    Args:
        card: of the lifted reward, which takes video.
        reward: of sound.

    Raises:
        ConfigError: ``reward`` takes no sound.
    """

    def __init__(self, card: RewardCard, reward: Reward) -> None:
        if "audio" not in reward.card.modalities:
            raise ConfigError(
                f"reward '{card.name}': '{reward.card.name}' takes no sound, so it cannot be lifted"
            )
        refuse_comparing(reward, f"'{card.name}' leaves out what has no sound; lift first, and compare then")
        check_direction(card, reward.card)
        self.card, self.reward = card, reward

    def prepare(self, sample: Sample) -> Sample:
        """The sample with the sound of its file in its context."""
        path = sample.meta.get("path")
        if "sound" in sample.context or path is None or not isinstance(sample.media, Video):
            return sample
        try:
            return replace(sample, context={**sample.context, "sound": read_sound(Path(path))})
        except DataError as error:
            return replace(sample, meta={**sample.meta, "sound": str(error)})

    def score(self, samples: Sequence[Sample]) -> Score:
        """One score per sample; a video without sound has none."""
        prepared = [self.prepare(sample) for sample in samples]
        status = [self._obstacle(sample) for sample in prepared]
        heard = [
            replace(s, media=s.context["sound"], context={k: v for k, v in s.context.items() if k != "sound"})
            for s, entry in zip(prepared, status, strict=True)
            if entry == OK and isinstance(s.context["sound"], Audio)
        ]
        return place(status, self.reward.score(heard) if heard else without_score([]))

    def _obstacle(self, sample: Sample) -> str:
        found = obstacle(sample, self.card)
        if found == OK and not isinstance(sample.context.get("sound"), Audio):
            return str(sample.meta.get("sound", "no sound"))
        return found
