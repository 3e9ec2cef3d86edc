"""RefCLIPScore: a caption against its picture and against other captions of it."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mmalign.media import Sample
from mmalign.rewards.base import OK
from mmalign.rewards.cards import RewardCard
from mmalign.rewards.clip import clip_cosine, clipscore_original
from mmalign.rewards.clip_encoder import ClipEncoder, load_encoder
from mmalign.rewards.pictures import PictureReward

REFERENCES = "references"
"""The key of ``Sample.context``: other captions of the picture, one a line."""


def harmonic_mean(first: Tensor, second: Tensor) -> Tensor:
    """Harmonic mean [B] of numbers that are not negative.

        2 * a * b / (a + b),   0 where a + b = 0

    >>> harmonic_mean(torch.tensor([1.0, 0.0, 2.0]), torch.tensor([1.0, 0.0, 0.5]))
    tensor([1.0000, 0.0000, 0.8000])
    """
    total = first + second
    # The guarded denominator keeps 0/0 out of the gradient too, which a where() around the quotient would not.
    return 2 * first * second / total.where(total > 0, torch.ones_like(total))


class ReferenceClipReward(PictureReward):
    """RefCLIPScore of a prompt, taken as a caption, beside reference captions r of the same picture.

        score = H(w * max(cos(E_image(picture), E_text(prompt)), 0), max(0, max_r cos(E_text(prompt), E_text(r))))

    with H the harmonic mean, and the prefix "A photo depicts " before every text. Range: [0, 2 w / (w + 1)], higher is
    better.

    Source: Hessel et al. 2021, CLIPScore, section 3 (arXiv:2104.08718). The authors' code does not floor the second
    term at 0, as the paper does; a negative one there turns the mean around.

    Args:
        card: whose weights are a CLIP's.
        device: where the model runs.
        encoder: a CLIP, or what ``load_encoder`` makes one from.
        w: the factor on the cosine with the picture.
        prefix: before every text.
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
        w: float = 2.5,
        prefix: str = "A photo depicts ",
        batch_size: int = 64,
    ) -> None:
        self.encoder = load_encoder(card, encoder, device=device)
        super().__init__(card, device=device, preprocessing=self.encoder.preprocessing, batch_size=batch_size)
        self.w, self.prefix = w, prefix

    def obstacle(self, sample: Sample) -> str:
        """ "ok", or why the sample cannot be scored."""
        entry = super().obstacle(sample)
        return entry if entry != OK or _references(sample) else f"no {REFERENCES}"

    def values(self, pixels: Tensor, samples: Sequence[Sample]) -> Tensor:
        """[B], unitless."""
        references = [_references(sample) for sample in samples]
        captions = self.encoder.text([self.prefix + sample.prompt for sample in samples])
        others = self.encoder.text([self.prefix + text for texts in references for text in texts])
        nearest = torch.stack(
            [
                (other @ caption).max()
                for caption, other in zip(
                    captions, others.split([len(texts) for texts in references]), strict=True
                )
            ]
        )
        shown = clipscore_original(clip_cosine(self.encoder.image(pixels), captions), w=self.w)
        return harmonic_mean(shown, nearest.clamp(min=0))


def _references(sample: Sample) -> list[str]:
    text = sample.context.get(REFERENCES)
    return [line.strip("\r") for line in text.split("\n") if line.strip()] if isinstance(text, str) else []
