"""Rewards that say which words a picture does not show and where it is wrong: heads on a CLIP's patches and words."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from mmalign.errors import ConfigError
from mmalign.media import Image, Sample
from mmalign.rewards.base import OK, Score, TokenScores, scatter
from mmalign.rewards.cards import RewardCard
from mmalign.rewards.clip import ClipReward
from mmalign.rewards.clip_dense import DenseClip, pieces
from mmalign.rewards.clip_encoder import freeze
from mmalign.rewards.clip_tuning import take_tuned
from mmalign.rewards.dense_head import DenseHead, DenseHeadOptions
from mmalign.rewards.learned import HEAD, fingerprint, load_backbone
from mmalign.rewards.pictures import PictureReward
from mmalign.rewards.weights import checkpoint, fill, read_state

BACKBONE = "backbone.safetensors"
"""Of a trained reward's folder: what training changed in the backbone, where it did."""
LEAST_RIGHT, FAULT_SHARE = "least_right", "fault_share"
"""Aspects: the probability that the worst word is right, and the mean of the map."""


def word_rewards(logits: Tensor, mask: Tensor) -> Tensor:
    """What each word adds to the reward of a picture.

        r[w] = log(2 * sigmoid(logits[w])) / W,   W the number of words

    A word that could as well be wrong adds 0, and one that is surely wrong takes much more than a right one gives.

    Args:
        logits: [B, W], that a word is right.
        mask: [B, W], booleans, true on words.

    Returns:
        [B, W], nats, 0 where the mask is false; a row's sum is the mean over its words of the log of their probability
        over chance.

    >>> word_rewards(torch.tensor([[0.0, 100.0]]), torch.tensor([[True, True]])).round(decimals=4)
    tensor([[0.0000, 0.3466]])
    """
    each = logsigmoid(logits) + torch.log(torch.tensor(2.0))
    return each.masked_fill(~mask, 0) / mask.sum(1, keepdim=True).clamp(min=1)


def load_dense_backbone(name: str, *, patch_layer: int, device: str) -> tuple[ClipReward, DenseClip]:
    """A CLIP by name, and its patches and words.

    Raises:
        UnknownNameError: no such reward.
        ConfigError: it shows no patches or words.
    """
    backbone = load_backbone(name, device=device)
    if not isinstance(backbone, ClipReward):
        raise ConfigError(
            f"'{name}' is no CLIP of pictures, and heads of words and regions are on one's patches"
        )
    return backbone, DenseClip(backbone.encoder, name=name, layer=patch_layer, device=device)


class DenseReward(PictureReward):
    """How well a picture shows each word of its prompt and, where it was trained to say so, where it is wrong.

        r[w] = log(2 * P(word w is right)) / W,   value = sum_w r[w]

    Unit: nats per word, the log of a word's probability over chance. Range: below log 2 = 0.69, which all words
    surely right come to; 0 is what a coin would say; higher is better. ``tokens`` are r by word, in the order of the
    prompt, and add up to the value; words that the backbone does not read to have 0. ``regions`` are P(a patch is
    wrong), where the head has them, on the grid of the backbone's patches, 0 where it crops a picture. Aspects:
    ``least_right``, the probability that the worst word is right, and ``fault_share``, the mean of the map.

    Source: Fu et al. 2024, TLDR: Token-Level Detective Reward Model (arXiv:2410.04734); Liang et al. 2024, Rich Human
    Feedback for Text-to-Image Generation (arXiv:2312.10240). The value is ours.

    Args:
        card: its weights are the folder, its options what `mmalign reward train` wrote.
        device: where it runs.
        backbone: a CLIP of open_clip's format.
        head: of ``DenseHeadOptions``.
        weights_of: the backbone's ``fingerprint`` before training.
        batch_size: pictures in one forward pass.

    Raises:
        ConfigError: files are missing or do not fit, or the backbone's weights are not those it was trained on.
    """

    def __init__(
        self,
        card: RewardCard,
        *,
        device: str = "cpu",
        backbone: str,
        head: Mapping[str, Any],
        weights_of: str | None = None,
        batch_size: int = 64,
    ) -> None:
        options = DenseHeadOptions.read(head)
        path = checkpoint(card, HEAD)
        clip, self.dense = load_dense_backbone(backbone, patch_layer=options.patch_layer, device=device)
        found = fingerprint(clip)
        if weights_of not in (None, found):
            raise ConfigError(
                f"reward '{card.name}' was trained on other weights of '{backbone}' ({weights_of}) than those here "
                f"({found}); its scores would mean nothing"
            )
        if options.tune != "frozen":
            state = read_state(checkpoint(card, BACKBONE))
            take_tuned(self.dense.model, options.tune, state, rank=options.lora_rank)
            freeze(self.dense.model, device)
        module = DenseHead(self.dense.patch_width, self.dense.word_width, self.dense.grid, options)
        fill(module, read_state(path), origin=path)
        self.head = freeze(module, device)
        super().__init__(card, device=device, preprocessing=clip.preprocessing, batch_size=batch_size)

    def values(self, pixels: Tensor, samples: Sequence[Sample]) -> Tensor:
        """[B], nats per word."""
        right, _, mask = self._logits(pixels, samples)
        return word_rewards(right, mask).sum(1)

    def prepare(self, sample: Sample) -> Sample:
        """The sample with its picture at the backbone's size, and where in the whole picture that lies."""
        small = super().prepare(sample)
        if not isinstance(sample.media, Image) or SHOWN in sample.meta:
            return small
        return replace(
            small, meta={**small.meta, SHOWN: self.preprocessing.shown(sample.media.pixels.shape[-2:])}
        )

    @torch.no_grad()
    def score(self, samples: Sequence[Sample]) -> Score:
        """Value, words and regions of each sample; on the CPU."""
        status = [self.obstacle(sample) for sample in samples]
        ready = [sample for sample, entry in zip(samples, status, strict=True) if entry == OK]
        values, least = [torch.zeros(0)], [torch.zeros(0)]
        tokens: list[TokenScores] = []
        maps: list[Tensor] = []
        for start in range(0, len(ready), self.batch_size):
            batch = [self.prepare(sample) for sample in ready[start : start + self.batch_size]]
            pictures = torch.stack([s.media.pixels for s in batch if isinstance(s.media, Image)])
            right, wrong, mask = self._logits(self.preprocessing(pictures.to(self.device)), batch)
            each = word_rewards(right, mask).double().cpu()
            # Token scores add up to the value exactly, so the value is their sum and not the other way round.
            values.append(each.sum(1).float())
            least.append(right.masked_fill(~mask, torch.inf).amin(1).sigmoid().cpu())
            tokens += [_scored(s.prompt, row) for s, row in zip(batch, each.tolist(), strict=True)]
            if wrong is not None:
                heat = wrong.sigmoid().unflatten(1, self.dense.grid).float().cpu()
                maps += [whole_map(row, s.meta[SHOWN]) for s, row in zip(batch, heat, strict=True)]
        aspects = {LEAST_RIGHT: torch.cat(least)}
        if maps:
            aspects[FAULT_SHARE] = torch.stack([row.mean() for row in maps])
        score = scatter(status, torch.cat(values), aspects)
        rows = iter(range(len(ready)))
        order = [next(rows) if entry == OK else None for entry in status]
        nothing = torch.zeros(self.dense.grid)
        return replace(
            score,
            tokens=[TokenScores((), ()) if i is None else tokens[i] for i in order],
            regions=(
                torch.stack([nothing if i is None else maps[i] for i in order])
                if maps and self.head.options.regions
                else None
            ),
        )

    def _logits(self, pixels: Tensor, samples: Sequence[Sample]) -> tuple[Tensor, Tensor | None, Tensor]:
        """Of words [B, W] and patches [B, P], and which words there are."""
        with torch.no_grad():
            words, mask = self.dense.words([sample.prompt for sample in samples])
        right, wrong = self.head(self.dense.patches(pixels), words, mask)
        return right, wrong, mask


SHOWN = "shown"
"""Where a prepared sample's ``meta`` keeps which part of the picture the model sees."""


def whole_map(heat: Tensor, shown: tuple[float, float, float, float]) -> Tensor:
    """A map of what a model saw as one of the whole picture, of as many cells.

    Args:
        heat: [H, W].
        shown: top, left, bottom and right of what it saw, as shares of the picture; below 0 or above 1 where the
            picture was padded.

    Returns:
        [H, W], interpolated, 0 outside.

    >>> whole_map(torch.ones(4, 4), (0.0, 0.25, 1.0, 0.75))[0]
    tensor([0., 1., 1., 0.])
    """
    if shown == (0.0, 0.0, 1.0, 1.0):
        return heat
    top, left, bottom, right = shown
    H, W = heat.shape
    down = ((torch.arange(H) + 0.5) / H - top) / (bottom - top) * 2 - 1
    across = ((torch.arange(W) + 0.5) / W - left) / (right - left) * 2 - 1
    places = torch.stack([across.expand(H, W), down[:, None].expand(H, W)], -1)
    sampled = torch.nn.functional.grid_sample(
        heat[None, None], places[None], padding_mode="border", align_corners=False
    )[0, 0]
    return sampled.masked_fill((places.abs() > 1).any(-1), 0)


def _scored(prompt: str, rewards: Sequence[float]) -> TokenScores:
    """The words of a prompt with their rewards."""
    words = pieces(prompt)
    return TokenScores(words, tuple(rewards[: len(words)]))
