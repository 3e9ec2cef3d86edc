"""ImageReward: a linear head on BLIP's reading of a prompt that sees the picture."""

from collections.abc import Sequence

from torch import Tensor

from mmalign.errors import ConfigError
from mmalign.media import Sample
from mmalign.rewards.blip import Blip
from mmalign.rewards.cards import RewardCard
from mmalign.rewards.clip_encoder import freeze
from mmalign.rewards.linear_head import LinearHead
from mmalign.rewards.pictures import PictureReward
from mmalign.rewards.preprocessing import Preprocessing
from mmalign.rewards.prompts import HuggingFaceTokenizer
from mmalign.rewards.weights import checkpoint, obtain, read_state

MEAN, STD = 0.16717362830052426, 1.0333394966054072
"""Of the head's output on the authors' data."""
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


def imagereward_normalise(m: Tensor) -> Tensor:
    """The score of what the head says.

        (m - 0.16717362830052426) / 1.0333394966054072

    Source: github.com/THUDM/ImageReward, ImageReward/ImageReward.py.

    >>> import torch
    >>> imagereward_normalise(torch.tensor([0.16717362830052426, 1.2005131]))
    tensor([0., 1.])
    """
    return (m - MEAN) / STD


class ImageReward(PictureReward):
    """How people would rank a picture for its prompt.

        score = (head(h) - mean) / std,   h = BLIP's text encoder at its first token, seeing the picture

    Range: all numbers, about standard normal on the pictures of its training, -2 to 2 as a rule; higher is better. It
    reads 35 tokens of a prompt.

    Source: Xu et al. 2023, ImageReward (arXiv:2304.05977). Its layers are linear with dropout between them,
    so in use the head is one affine map.

    Args:
        card: its weights are the authors' checkpoint, its part ``tokenizer`` the one of bert-base-uncased.
        device: where the model runs.
        file: the name of the checkpoint.
        context: tokens of a prompt that are read.
        batch_size: pictures in one forward pass.

    Raises:
        ConfigError: the weights or the tokenizer are not there, or are not ImageReward's.
    """

    def __init__(
        self,
        card: RewardCard,
        *,
        device: str = "cpu",
        file: str = "ImageReward.pt",
        context: int = 35,
        batch_size: int = 32,
    ) -> None:
        from transformers import BertTokenizer

        path = checkpoint(card, file)
        words = obtain(card, "tokenizer", files=TOKENIZER_FILES)
        state = read_state(path)
        self.blip = freeze(Blip(state, prefix="blip.", origin=path), device)
        self.head = freeze(LinearHead(state, prefix="mlp.", origin=path), device)
        try:
            tokenizer = BertTokenizer.from_pretrained(words, local_files_only=True)
        except (OSError, ValueError) as error:
            reason = str(error).strip().split("\n")[0]
            raise ConfigError(f"reward '{card.name}': no tokenizer in '{words}' ({reason})") from error
        self.tokenize = HuggingFaceTokenizer(tokenizer, context=context, name=card.name)
        size = self.blip.image_size
        super().__init__(
            card, device=device, preprocessing=Preprocessing(size=(size, size)), batch_size=batch_size
        )

    def values(self, pixels: Tensor, samples: Sequence[Sample]) -> Tensor:
        """[B], in standard deviations."""
        tokens = self.tokenize([sample.prompt for sample in samples])
        hidden = self.blip(pixels, tokens.ids.to(self.device), tokens.mask.to(self.device))
        return imagereward_normalise(self.head(hidden))
