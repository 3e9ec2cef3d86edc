"""What all scorers of single pictures share: sizes, batches, what cannot be scored, and the way back for gradients."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from mmalign.errors import ShapeError
from mmalign.media import Image, Sample
from mmalign.rewards.base import OK, Score, obstacle, scatter
from mmalign.rewards.cards import RewardCard
from mmalign.rewards.preprocessing import Preprocessing


class PictureReward(ABC):
    """Scores pictures in batches; a subclass says what a batch of prepared ones is worth.

    Args:
        card: of the reward.
        device: where the model runs.
        preprocessing: of the model.
        batch_size: pictures in one forward pass.
    """

    def __init__(
        self, card: RewardCard, *, device: str, preprocessing: Preprocessing, batch_size: int
    ) -> None:
        self.card, self.device = card, device
        self.preprocessing, self.batch_size = preprocessing, batch_size

    @abstractmethod
    def values(self, pixels: Tensor, samples: Sequence[Sample]) -> Tensor:
        """[B] of pictures [B, 3, H, W] of the model's size, normalised; of samples only what is no medium is read."""

    def read_prompts(self, samples: Sequence[Sample]) -> None:
        """Do with all prompts of a call at once what is faster so; ``values`` sees the same samples in batches."""
        return

    def obstacle(self, sample: Sample) -> str:
        """ "ok", or why the sample cannot be scored."""
        return obstacle(sample, self.card)

    def prepare(self, sample: Sample) -> Sample:
        """The sample with its picture at the model's size."""
        if not isinstance(sample.media, Image):
            return sample
        return replace(sample, media=Image(self.preprocessing.resize(sample.media.pixels[None])[0]))

    @torch.no_grad()
    def score(self, samples: Sequence[Sample]) -> Score:
        """One score per picture, in batches; values on the CPU."""
        status = [self.obstacle(sample) for sample in samples]
        ready = [sample for sample, entry in zip(samples, status, strict=True) if entry == OK]
        if ready:
            self.read_prompts(ready)
        values = [torch.zeros(0)]
        for start in range(0, len(ready), self.batch_size):
            batch = [self.prepare(sample) for sample in ready[start : start + self.batch_size]]
            pictures = torch.stack([s.media.pixels for s in batch if isinstance(s.media, Image)])
            values.append(self.score_with_grad(pictures.to(self.device), batch).cpu())
        return scatter(status, torch.cat(values))

    def score_with_grad(self, media: Tensor, samples: Sequence[Sample]) -> Tensor:
        """Scores whose gradient reaches the pictures.

        Args:
            media: [B, 3, H, W] in [0, 1].
            samples: B samples; only their prompts and contexts are read.

        Returns:
            [B], in the card's unit.

        Raises:
            ShapeError: ``media`` is not [B, 3, H, W] with one sample for each.
        """
        if media.ndim != 4 or media.shape[:2] != (len(samples), 3):
            raise ShapeError(f"media: expected [B, 3, H, W] with B = {len(samples)}, got {list(media.shape)}")
        return self.values(self.preprocessing(media), samples)
