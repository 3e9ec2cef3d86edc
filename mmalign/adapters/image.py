"""A generator of pictures: what notebooks import."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmalign.generators import lora
from mmalign.generators.denoising import DenoisingGenerator
from mmalign.media import Image, Modality


class ImageAdapter:
    """A text-to-image pipeline: prompts to pictures, pictures to latents and back, and its LoRA.

    Args:
        pipeline: any diffusers pipeline that draws pictures; it stays live as ``adapter.generator.pipeline``.
        options: the pipeline's own options for the checks at load; ``height`` and ``width`` are also those of latents.
    """

    modality: Modality = "image"

    def __init__(self, pipeline: Any, **options: Any) -> None:
        self.generator = DenoisingGenerator(pipeline, **options)

    def generate(
        self, prompts: Sequence[str], *, seeds: Sequence[int], batch_size: int = 32, **options: Any
    ) -> list[Image]:
        """Draw one picture for each prompt and seed.

        Args:
            prompts: N texts.
            seeds: N; in fp32 a picture depends on its own seed alone, not on its batch (beyond 1/255).
            batch_size: pictures drawn at once.
            options: ``guidance``, ``steps``, and the pipeline's own (``height``, ``width``, ``negative_prompt``).
        """
        pictures: list[Image] = []
        for i in range(0, len(prompts), batch_size):
            rows = slice(i, i + batch_size)
            pixels = self.generator.sample(prompts[rows], seeds=seeds[rows], **options)
            pictures += [Image(p) for p in pixels.float().cpu()]
        return pictures

    @torch.no_grad()
    def encode(self, media: Sequence[Image]) -> Tensor:
        """Latents [B, ...] of pictures of one size, fp32."""
        return self.generator.codec.encode(torch.stack([picture.pixels for picture in media]))

    @torch.no_grad()
    def decode(self, latents: Tensor) -> list[Image]:
        """Pictures of latents [B, ...]."""
        return [Image(pixels) for pixels in self.decode_with_grad(latents).cpu()]

    def decode_with_grad(self, latents: Tensor) -> Tensor:
        """Pixels [B, 3, H, W] in [0, 1] of latents [B, ...], with gradient."""
        return self.generator.codec.decode(latents)

    def save_lora(self, folder: Path) -> None:
        """Write ``pytorch_lora_weights.safetensors``, for plain ``pipeline.load_lora_weights(folder)``."""
        lora.save(self.generator.pipeline, self.generator.component, folder)

    def load_lora(self, folder: Path) -> None:
        """Load a saved LoRA into the pipeline; refuses one of which nothing fits."""
        lora.load(self.generator.pipeline, folder)
