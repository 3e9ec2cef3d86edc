"""Scores pictures by a head on their CLIP vectors, without a prompt: LAION's aesthetic predictor."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.nn.functional import normalize

from mmalign.errors import ConfigError
from mmalign.media import Sample
from mmalign.rewards.cards import RewardCard
from mmalign.rewards.clip_encoder import ClipEncoder, freeze, load_encoder
from mmalign.rewards.linear_head import LinearHead
from mmalign.rewards.pictures import PictureReward
from mmalign.rewards.weights import checkpoint, read_state


class AestheticReward(PictureReward):
    """How much people like pictures of this kind, by a head on the picture's CLIP vector.

        score = head(E_image(picture) / |E_image(picture)|)

    Range: made for ratings from 1 to 10, most pictures 4 to 7; the head is linear, so nothing stops it there. Higher is
    better. It reads no prompt and is easily hacked (saturated, painterly pictures): add a reward that reads one.

    Source: Schuhmann et al. 2022, LAION-5B, and github.com/christophschuhmann/improved-aesthetic-predictor, whose
    vectors have length 1.

    Args:
        card: its weights are the head; its part ``backbone`` the CLIP.
        device: where the model runs.
        head: the file that the head is in.
        encoder: a CLIP, or what ``load_encoder`` makes one from.
        batch_size: pictures in one forward pass.

    Raises:
        ConfigError: the weights are not there, or head and CLIP do not fit.
    """

    def __init__(
        self,
        card: RewardCard,
        *,
        device: str = "cpu",
        head: str,
        encoder: ClipEncoder | Mapping[str, Any],
        batch_size: int = 64,
    ) -> None:
        path = checkpoint(card, head)
        self.encoder = load_encoder(card, encoder, device=device)
        super().__init__(card, device=device, preprocessing=self.encoder.preprocessing, batch_size=batch_size)
        self.head = freeze(LinearHead(read_state(path), origin=path), device)
        width = self.encoder.text([""]).shape[-1]
        if width != self.head.width:
            raise ConfigError(
                f"reward '{card.name}': the head '{path}' takes vectors of {self.head.width}, the CLIP makes {width}"
            )

    def values(self, pixels: Tensor, samples: Sequence[Sample]) -> Tensor:
        """[B], in the unit of the ratings."""
        scores: Tensor = self.head(normalize(self.encoder.image(pixels), dim=-1))
        return scores
