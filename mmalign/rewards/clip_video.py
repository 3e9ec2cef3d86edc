"""Scores videos by the cosine of their CLIP vector and the prompt's; a head that sees the order joins the frames'."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from mmalign.errors import ShapeError
from mmalign.media import Sample, Video
from mmalign.rewards.base import OK, Score, obstacle, scatter
from mmalign.rewards.cards import RewardCard
from mmalign.rewards.clip import clip_cosine
from mmalign.rewards.clip_encoder import ClipEncoder, freeze, load_encoder
from mmalign.rewards.temporal_head import TemporalHead
from mmalign.rewards.weights import checkpoint, fill, read_state


class VideoClipReward:
    """How well a video shows its prompt, motion included.

        score = scale * cos(head(E_image(frame_1), ..., E_image(frame_T)), E_text(prompt))

    of T frames at equal distances from the first to the last; where there are fewer, some count twice. Range:
    [-scale, scale], higher is better. Compare scores of one checkpoint, and best of one prompt.

    Source: Luo et al. 2021, CLIP4Clip (arXiv:2104.08860).

    Args:
        card: its weights are a CLIP's, with the head beside it.
        device: where the models run.
        head: the file that the temporal head is in.
        heads: of its attention.
        encoder: a CLIP, or what ``load_encoder`` makes one from.
        scale: a factor on the cosine.
        batch_size: videos in one forward pass.

    Raises:
        ConfigError: the weights are not there, or not those of a CLIP and a temporal head.
    """

    def __init__(
        self,
        card: RewardCard,
        *,
        device: str = "cpu",
        head: str,
        heads: int,
        encoder: ClipEncoder | Mapping[str, Any] | None = None,
        scale: float = 100.0,
        batch_size: int = 16,
    ) -> None:
        self.card, self.device, self.scale, self.batch_size = card, device, scale, batch_size
        self.encoder = load_encoder(card, encoder, device=device)
        path = checkpoint(card, head)
        state = {name: tensor.float() for name, tensor in read_state(path).items()}
        self.head = TemporalHead.of_state(state, heads=heads)
        fill(self.head, state, origin=path)
        freeze(self.head, device)

    def prepare(self, sample: Sample) -> Sample:
        """The sample with only the frames that are scored, at the model's size."""
        if not isinstance(sample.media, Video):
            return sample
        frames = self.encoder.preprocessing.resize(self._chosen(sample.media.frames))
        return replace(sample, media=replace(sample.media, frames=frames))

    @torch.no_grad()
    def score(self, samples: Sequence[Sample]) -> Score:
        """One score per video, in batches; values on the CPU."""
        status = [obstacle(sample, self.card) for sample in samples]
        ready = [sample for sample, entry in zip(samples, status, strict=True) if entry == OK]
        values = [torch.zeros(0)]
        for start in range(0, len(ready), self.batch_size):
            batch = [self.prepare(sample) for sample in ready[start : start + self.batch_size]]
            frames = torch.stack([s.media.frames for s in batch if isinstance(s.media, Video)])
            values.append(self.score_with_grad(frames.float().to(self.device), batch).cpu())
        return scatter(status, torch.cat(values))

    def score_with_grad(self, media: Tensor, samples: Sequence[Sample]) -> Tensor:
        """Scores whose gradient reaches the frames.

        Args:
            media: [B, F, 3, H, W] in [0, 1].
            samples: B samples; only their prompts are read.

        Returns:
            [B], in the card's unit.

        Raises:
            ShapeError: ``media`` is not [B, F, 3, H, W] with one sample for each.
        """
        if media.ndim != 5 or media.shape[0] != len(samples) or media.shape[2] != 3:
            raise ShapeError(
                f"media: expected [B, F, 3, H, W] with B = {len(samples)}, got {list(media.shape)}"
            )
        frames = self._chosen(media.transpose(0, 1)).transpose(0, 1)
        vectors = self.encoder.image(self.encoder.preprocessing(frames.flatten(0, 1)))
        video = self.head(vectors.unflatten(0, frames.shape[:2]))
        return self.scale * clip_cosine(video, self.encoder.text([sample.prompt for sample in samples]))

    def _chosen(self, frames: Tensor) -> Tensor:
        """[T, ...] of [F, ...]."""
        wanted = len(self.head.position)
        if len(frames) == wanted:
            return frames
        return frames[torch.linspace(0, len(frames) - 1, wanted, device=frames.device).round().long()]
