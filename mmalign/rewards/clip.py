"""Scores pictures against prompts by the cosine of their CLIP vectors: CLIPScore, PickScore, HPS v2."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from mmalign.errors import ConfigError
from mmalign.media import Image, Sample
from mmalign.rewards.cards import RewardCard
from mmalign.rewards.clip_encoder import ClipEncoder, load_encoder
from mmalign.rewards.pictures import PictureReward

CHECKPOINT = "checkpoint"
"""The ``scale`` that is the checkpoint's own."""


def clip_cosine(image: Tensor, text: Tensor) -> Tensor:
    """Cosines [B] of vectors [B, D].

        cos = <image / |image|, text / |text|>

    Neither length counts; a vector of length 0 has cosine 0.

    >>> import torch
    >>> clip_cosine(torch.tensor([[7.0, 0.0]]), torch.tensor([[3.0, 4.0]]))
    tensor([0.6000])
    """
    return (normalize(image, dim=-1) * normalize(text, dim=-1)).sum(-1)


def clipscore_original(cosine: Tensor, *, w: float = 2.5) -> Tensor:
    """CLIPScore of a cosine.

        w * max(cos, 0)

    Source: Hessel et al. 2021, CLIPScore, section 3 (arXiv:2104.08718), with their w.

    >>> import torch
    >>> clipscore_original(torch.tensor([1.0, 0.3, -1.0]))
    tensor([2.5000, 0.7500, 0.0000])
    """
    return w * cosine.clamp(min=0)


class ClipReward(PictureReward):
    """How well a picture shows its prompt, by any CLIP.

        score = scale * cos(E_image(picture), E_text(prefix + prompt)),   at least 0 if ``clip_at_0``

    Range: [-scale, scale], or [0, scale]; higher is better. The useful part of it is the checkpoint's own (cosines of
    about 0.15 to 0.40 for models trained on the web), so compare scores of one checkpoint, and best of one prompt.

    CLIPScore is scale 2.5 with ``clip_at_0`` and the prefix "A photo depicts "; PickScore the checkpoint's own scale;
    HPS v2 scale 1. Clipping hides the gradient of what is clipped, so by default we do not.

    Source: Hessel et al. 2021, CLIPScore (arXiv:2104.08718); Kirstain et al. 2023, PickScore (arXiv:2305.01569);
    Wu et al. 2023, HPS v2 (arXiv:2306.09341).

    Args:
        card: whose weights are a CLIP's.
        device: where the model runs.
        encoder: a CLIP, or what ``load_encoder`` makes one from.
        scale: a factor on the cosine, or "checkpoint" for the one that the model was trained with.
        clip_at_0: whether cosines below 0 count as 0.
        prefix: before every prompt.
        batch_size: pictures in one forward pass.

    Raises:
        ConfigError: the weights are not there or not a CLIP's.
    """

    def __init__(
        self,
        card: RewardCard,
        *,
        device: str = "cpu",
        encoder: ClipEncoder | Mapping[str, Any] | None = None,
        scale: float | str = 100.0,
        clip_at_0: bool = False,
        prefix: str = "",
        batch_size: int = 64,
    ) -> None:
        self.encoder = load_encoder(card, encoder, device=device)
        super().__init__(card, device=device, preprocessing=self.encoder.preprocessing, batch_size=batch_size)
        if isinstance(scale, str) and scale != CHECKPOINT:
            raise ConfigError(f"reward '{card.name}': scale = {scale!r}, expected a number or '{CHECKPOINT}'")
        self.scale = self.encoder.logit_scale if isinstance(scale, str) else scale
        self.clip_at_0, self.prefix = clip_at_0, prefix

    def read_prompts(self, samples: Sequence[Sample]) -> None:
        """Embed them: among many, there are more of one length for a forward pass."""
        self._texts(samples)

    def _texts(self, samples: Sequence[Sample]) -> Tensor:
        return self.prompt_vectors([sample.prompt for sample in samples])

    def prompt_vectors(self, prompts: Sequence[str]) -> Tensor:
        """[B, D], of length 1."""
        return self.encoder.text([self.prefix + prompt for prompt in prompts])

    def media_vectors_with_grad(self, media: Tensor) -> Tensor:
        """[B, D], of length 1, of pictures [B, 3, H, W] in [0, 1]."""
        return normalize(self.encoder.image(self.preprocessing(media)), dim=-1)

    @torch.no_grad()
    def media_vectors(self, samples: Sequence[Sample]) -> Tensor:
        """[B, D], of length 1, of pictures of any sizes."""
        parts = []
        for start in range(0, len(samples), self.batch_size):
            batch = [self.prepare(sample) for sample in samples[start : start + self.batch_size]]
            pictures = torch.stack([s.media.pixels for s in batch if isinstance(s.media, Image)])
            parts.append(self.media_vectors_with_grad(pictures.to(self.device)).float().cpu())
        return torch.cat(parts)

    def values(self, pixels: Tensor, samples: Sequence[Sample]) -> Tensor:
        """[B], in the card's unit."""
        text = self._texts(samples)
        cosine = clip_cosine(self.encoder.image(pixels), text)
        return clipscore_original(cosine, w=self.scale) if self.clip_at_0 else self.scale * cosine
