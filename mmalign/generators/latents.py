"""Latents to pictures and back, by the class of the VAE: its normalisation, and how its latents are packed."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmalign.errors import UnsupportedPipelineError


def _scaled(vae: Any) -> tuple[Tensor, Tensor]:
    """AutoencoderKL: one mean and one standard deviation for all channels."""
    shift = vae.config.get("shift_factor") or 0.0
    return torch.tensor(float(shift)), torch.tensor(1 / float(vae.config["scaling_factor"]))


NORMALISATIONS: dict[str, Callable[[Any], tuple[Tensor, Tensor]]] = {"AutoencoderKL": _scaled}
"""By VAE class: the mean and standard deviation of its latents, broadcast over [B, C, H, W]."""


def pack_patches(latents: Tensor) -> Tensor:
    """Latents [B, C, H, W] as a sequence [B, H/2 * W/2, 4 C] of 2 x 2 patches, channels first inside a patch."""
    return torch.nn.functional.pixel_unshuffle(latents, 2).flatten(2).transpose(1, 2)


def unpack_patches(packed: Tensor, height: int, width: int) -> Tensor:
    """The inverse of ``pack_patches``; ``height`` and ``width`` in latent cells."""
    grid = packed.transpose(1, 2).unflatten(2, (height // 2, width // 2))
    return torch.nn.functional.pixel_shuffle(grid, 2)


@dataclass(frozen=True, eq=False)
class Codec:
    """Between the denoiser's latents and pixels; ``decode`` and ``encode`` carry gradient.

    Args:
        vae: the pipeline's own.
        packed: whether the denoiser sees a sequence of 2 x 2 patches rather than a grid.
        pixels_per_cell: side of one latent cell in pixels.
    """

    vae: Any
    packed: bool
    pixels_per_cell: int

    @property
    def _moments(self) -> tuple[Tensor, Tensor]:
        mean, std = NORMALISATIONS[type(self.vae).__name__](self.vae)
        return mean.to(self.vae.device, self.vae.dtype), std.to(self.vae.device, self.vae.dtype)

    def decode(self, latents: Tensor, *, height: int, width: int) -> Tensor:
        """Pictures [B, 3, height, width] in [0, 1] of the denoiser's latents."""
        if self.packed:
            latents = unpack_patches(latents, height // self.pixels_per_cell, width // self.pixels_per_cell)
        mean, std = self._moments
        decoded: Tensor = self.vae.decode(latents.to(self.vae.device, self.vae.dtype) * std + mean).sample
        return (decoded.float() / 2 + 0.5).clamp(0, 1)

    def encode(self, pixels: Tensor) -> Tensor:
        """The denoiser's latents, in fp32, of pictures [B, 3, H, W] in [0, 1]: the posterior's mode."""
        posterior = self.vae.encode((2 * pixels - 1).to(self.vae.device, self.vae.dtype)).latent_dist
        mean, std = self._moments
        latents = ((posterior.mode() - mean) / std).float()
        return pack_patches(latents) if self.packed else latents


def build_codec(pipeline: Any, latents: Tensor) -> Codec:
    """The codec of a pipeline whose denoiser sees ``latents``.

    Raises:
        UnsupportedPipelineError: no normalisation is known for the VAE's class.
    """
    vae: Any = getattr(pipeline, "vae", None)
    if type(vae).__name__ not in NORMALISATIONS or "sample" not in inspect.signature(vae.forward).parameters:
        raise UnsupportedPipelineError(
            f"no codec for a VAE of class {type(vae).__name__}; known: {', '.join(sorted(NORMALISATIONS))}. "
            "Add its normalisation to mmalign/generators/latents.py"
        )
    cell = 2 ** (len(vae.config["block_out_channels"]) - 1)
    return Codec(vae=vae, packed=latents.ndim == 3, pixels_per_cell=cell)
