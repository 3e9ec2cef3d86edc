"""Scores pictures against prompts with any open_clip checkpoint."""

import contextlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import open_clip
import torch
from open_clip.transform import center_crop_or_pad
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as transforms

from mmalign.errors import ConfigError, ShapeError
from mmalign.media import Image, Sample
from mmalign.rewards.base import OK, Score, obstacle, scatter
from mmalign.rewards.cards import RewardCard

PROMPTS_KEPT = 65_536
"""Embedded prompts are kept up to this many, about 256 MB at 1,024 dimensions."""

CPU_PROMPTS = 4
"""Prompts in one forward pass of the text encoder on the CPU, where more are not much faster."""


class ClipReward:
    """How well a picture shows its prompt, by an open_clip model.

        score = scale * cos(encode_image(picture), encode_text(prompt))

    Range: [-scale, scale], higher is better; the useful part of it is the checkpoint's own (about 15 to 40 at scale
    100 for models trained on the web), so compare scores of one checkpoint, and best of one prompt.

    Source: Hessel et al. 2021, CLIPScore, section 3 (arXiv:2104.08718). We neither clip at 0, which would hide a
    gradient, nor put words before the prompt.

    Args:
        card: its ``weights`` are a hub id or a folder in open_clip's format, loaded by open_clip itself.
        device: where the model runs.
        model: a model in the place of the card's, with ``tokenizer``.
        tokenizer: texts to [B, context] token ids.
        scale: a factor on the cosine.
        batch_size: pictures in one forward pass.

    Raises:
        ConfigError: the weights are not there or not in open_clip's format.
    """

    def __init__(
        self,
        card: RewardCard,
        *,
        device: str = "cpu",
        model: Any = None,
        tokenizer: Any = None,
        scale: float = 100.0,
        batch_size: int = 64,
    ) -> None:
        self.card, self.device, self.scale, self.batch_size = card, device, scale, batch_size
        if model is None:
            model, tokenizer = load_open_clip(card)
        self.model = model.to(device).eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.preprocessing: dict[str, Any] = open_clip.get_model_preprocess_cfg(model)
        self.padding = int(tokenizer([""])[0].mode().values)
        self._prompts: dict[str, Tensor] = {}

    def prepare(self, sample: Sample) -> Sample:
        """The sample with its picture at the model's size."""
        if not isinstance(sample.media, Image):
            return sample
        pixels = resize_and_crop(sample.media.pixels[None], **self.preprocessing)[0]
        return replace(sample, media=Image(pixels))

    @torch.no_grad()
    def score(self, samples: Sequence[Sample]) -> Score:
        """Score each picture against its own prompt, in batches; values on the CPU."""
        status = [obstacle(sample, self.card) for sample in samples]
        ready = [sample for sample, entry in zip(samples, status, strict=True) if entry == OK]
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
            samples: B samples; only their prompts are read.

        Returns:
            [B], in the card's unit.

        Raises:
            ShapeError: ``media`` is not [B, 3, H, W] with one sample for each.
        """
        if media.ndim != 4 or media.shape[:2] != (len(samples), 3):
            raise ShapeError(f"media: expected [B, 3, H, W] with B = {len(samples)}, got {list(media.shape)}")
        pixels = resize_and_crop(media, **self.preprocessing)
        pixels = transforms.normalize(pixels, self.preprocessing["mean"], self.preprocessing["std"])
        image = self.model.encode_image(pixels, normalize=True)
        return self.scale * (image * self.embed([sample.prompt for sample in samples])).sum(-1)

    @torch.no_grad()
    def embed(self, prompts: Sequence[str]) -> Tensor:
        """Unit vectors [B, D] of prompts, each computed once; warns of those too long for the model."""
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._prompts]
        if len(self._prompts) + len(new) > PROMPTS_KEPT:
            self._prompts, new = {}, list(dict.fromkeys(prompts))
        for start in range(0, len(new), self.batch_size):
            part = new[start : start + self.batch_size]
            self._prompts.update(zip(part, self._encode(self.tokenize(part)), strict=True))
        return torch.stack([self._prompts[prompt] for prompt in prompts])

    def _encode(self, tokens: Tensor) -> Tensor:
        """Unit vectors [B, D] of token ids, none of which depends on the others.

        On the CPU a product of few rows adds up in another order than one of many. With always as many rows, a prompt
        does not depend on which others are new, and a file that was resumed equals one that was not, bit for bit.
        """
        if self.device != "cpu":
            return self.model.encode_text(tokens.to(self.device), normalize=True)
        full = tokens[torch.arange(-(-len(tokens) // CPU_PROMPTS) * CPU_PROMPTS).clamp(max=len(tokens) - 1)]
        parts = [self.model.encode_text(rows, normalize=True) for rows in full.split(CPU_PROMPTS)]
        return torch.cat(parts)[: len(tokens)]

    def tokenize(self, prompts: Sequence[str]) -> Tensor:
        """Token ids [B, context]; a longer prompt keeps its beginning and the end token, and is warned of."""
        tokens: Tensor = self.tokenizer(list(prompts))
        context = tokens.shape[1]
        # With room for one more, only a prompt that was cut has one more token that is no padding.
        roomier = self.tokenizer(list(prompts), context_length=context + 1)
        cut = (roomier != self.padding).sum(1) > (tokens != self.padding).sum(1)
        if cut.any():
            first = prompts[int(cut.nonzero()[0])]
            warnings.warn(
                f"{self.card.name} reads {context} tokens and cut {int(cut.sum())} longer prompts, first: {first!r}"
            )
        return tokens


def load_open_clip(card: RewardCard) -> tuple[Any, Any]:
    """A card's model and tokenizer, by open_clip.

    Raises:
        ConfigError: the weights are not there or not in open_clip's format.
    """
    folder = card.weights_folder()
    name = f"local-dir:{folder}" if folder is not None else f"hf-hub:{card.weights}"
    try:
        with _quiet():
            model = open_clip.create_model(name, require_pretrained=True)
            return model, open_clip.get_tokenizer(name)
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        raise ConfigError(
            f"reward '{card.name}': open_clip could not load '{card.weights}' ({reason}); it takes a folder with "
            "open_clip_config.json and weights, or a hub id and a network"
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without open_clip's log lines: what matters of them is raised."""
    logger = logging.getLogger()
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def resize_and_crop(
    pixels: Tensor,
    *,
    size: int | Sequence[int],
    resize_mode: str,
    interpolation: str,
    fill_color: int = 0,
    **_: Any,
) -> Tensor:
    """What open_clip's evaluation transform does before it normalises, on tensors and with a gradient.

    open_clip resizes pictures with Pillow, which rounds to 8 bits after rows and after columns; nothing is rounded
    here, so the two differ by about 1/255 at most.

    Args:
        pixels: [B, 3, H, W] in [0, 1].
        size: of the result, side or (height, width) in pixels.
        resize_mode: "shortest" side to ``size``, then crop; "longest", then pad; "squash" to the exact size.
        interpolation: "bicubic", "bilinear" or "random", which is bicubic here.
        fill_color: of the padding, in [0, 255].

    Returns:
        [B, 3, size, size] in [0, 1].
    """
    target = (size, size) if isinstance(size, int) else tuple(size)
    height, width = pixels.shape[-2:]
    if (height, width) == target:
        return pixels
    if resize_mode == "squash":
        resized = target
    elif resize_mode == "shortest" and target[0] == target[1]:
        # torchvision, used here, rounds the longer side down; open_clip's own resizing, below, rounds to nearest.
        short = min(height, width)
        resized = (int(target[0] * height / short), int(target[0] * width / short))
    else:
        ratios = (height / target[0], width / target[1])
        ratio = max(ratios) if resize_mode == "longest" else min(ratios)
        resized = (round(height / ratio), round(width / ratio))
        if resize_mode == "shortest":  # open_clip 3.3 does not pass the interpolation on here
            interpolation = "bicubic"
    mode = InterpolationMode.BILINEAR if interpolation == "bilinear" else InterpolationMode.BICUBIC
    # Bicubic overshoots at edges. Pillow resizes rows, then columns, and its 8 bits cut the overshoot off each time.
    pixels = transforms.resize(pixels, [height, resized[1]], mode, antialias=True).clamp(0, 1)
    pixels = transforms.resize(pixels, [resized[0], resized[1]], mode, antialias=True).clamp(0, 1)
    return center_crop_or_pad(pixels, list(target), fill=fill_color / 255)
