"""A diffusers pipeline with its medium: prompts to media, media to latents and back, and its LoRA."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from mmalign.errors import ConfigError
from mmalign.generators.conditioning import Conditioning
from mmalign.generators.denoising import DenoisingGenerator
from mmalign.media import Media, Modality

M = TypeVar("M", bound=Media)


class DenoisingAdapter(ABC, Generic[M]):
    """What all denoised media share; a subclass says how one medium is a tensor.

    Args:
        pipeline: any diffusers pipeline that makes this medium; it stays live as ``adapter.generator.pipeline``.
        options: the pipeline's own options (``height``, ``frames``, ``duration_s``) where a call does not say
            otherwise; those that shape latents also hold for what is encoded and decoded.
    """

    modality: ClassVar[Modality]

    def __init__(self, pipeline: Any, **options: Any) -> None:
        self.generator = DenoisingGenerator(pipeline, **options)

    @abstractmethod
    def medium(self, values: Tensor) -> M:
        """A medium of its values, as the pipeline gives those of one sample."""

    @abstractmethod
    def values(self, medium: M) -> Tensor:
        """The values of a medium, as the pipeline gives them.

        Raises:
            ConfigError: it is in another unit than the pipeline's, such as a sample rate.
        """

    def generate(
        self, prompts: Sequence[str], *, seeds: Sequence[int], batch_size: int = 32, **options: Any
    ) -> list[M]:
        """Draw one medium for each prompt and seed.

        Args:
            prompts: N texts.
            seeds: N; in fp32 a sample depends on its own seed alone, not on its batch (beyond 1/255).
            batch_size: samples drawn at once.
            options: ``guidance``, ``steps``, ``frames``, ``duration_s``, and the pipeline's own (``height``,
                ``negative_prompt``).
        """
        media: list[M] = []
        for i in range(0, len(prompts), batch_size):
            rows = slice(i, i + batch_size)
            drawn = self.generator.sample(prompts[rows], seeds=seeds[rows], **options)
            media += [self.medium(values) for values in drawn.float().cpu()]
        return media

    def latents(
        self, prompts: Sequence[str], *, seeds: Sequence[int], batch_size: int = 32, **options: Any
    ) -> Tensor:
        """The final latents [N, ...] of what ``generate`` draws, as ``decode`` takes them."""
        starts = range(0, len(prompts), batch_size)
        rows = [slice(i, i + batch_size) for i in starts]
        return torch.cat(
            [self.generator.sample_latents(prompts[some], seeds=seeds[some], **options) for some in rows]
        )

    def condition(self, prompts: Sequence[str], **options: Any) -> Conditioning:
        """Conditioning of prompts without guidance, under the same options as samples are drawn with."""
        return self.generator.condition(prompts, **options)

    @torch.no_grad()
    def encode(self, media: Sequence[M]) -> Tensor:
        """Latents [B, ...] of media, fp32.

        Raises:
            ConfigError: a medium has another size, length or rate than the generator's; the message has both.
        """
        values = [self.values(medium) for medium in media]
        wanted = self.generator.media_shape
        for got in values:
            if tuple(got.shape) != wanted:
                raise ConfigError(
                    f"this generator makes {self.modality} of shape {list(wanted)}, and one to learn from has "
                    f"{list(got.shape)}; convert it, or set the sampling options to its size"
                )
        return self.generator.codec.encode(torch.stack(values))

    @torch.no_grad()
    def decode(self, latents: Tensor) -> list[M]:
        """Media of latents [B, ...]."""
        return [self.medium(values) for values in self.generator.decode(latents).cpu()]

    def decode_with_grad(self, latents: Tensor) -> Tensor:
        """What rewards take of latents [B, ...], with gradient: pixels [B, 3, H, W], frames [B, T, 3, H, W], ..."""
        return self.generator.decode(latents)

    def save_lora(self, folder: Path | str) -> None:
        """Write ``pytorch_lora_weights.safetensors``, for plain ``pipeline.load_lora_weights(folder)``."""
        self.generator.save_lora(Path(folder))

    def load_lora(self, folder: Path | str) -> None:
        """Load a saved LoRA as the policy; refuses one of which nothing fits."""
        self.generator.load_lora(Path(folder))
