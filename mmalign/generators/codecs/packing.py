"""How a denoiser's latents lie relative to its VAE's: as they are, frames first, or as a sequence of patches."""

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from mmalign.errors import ShapeError, UnsupportedPipelineError

Layout = Literal["same", "frames_first", "patches"]
PATCH_SIDES = (1, 2)
"""Sides of a patch, in latent cells."""


@dataclass(frozen=True)
class Packing:
    """Between latents [B, C, *grid] of a VAE and those of a denoiser.

    Args:
        layout: "same"; "frames_first", [B, T, C, H, W]; or "patches", a sequence [B, patches, C * cells of a patch]
            with the patches in reading order and, inside a patch, channels first.
        grid: of the VAE's latents, (H, W), (T, H, W) or (L,).
        patch: cells of a patch along each axis of ``grid``.
    """

    layout: Layout
    grid: tuple[int, ...]
    patch: tuple[int, ...] = ()

    def pack(self, latents: Tensor) -> Tensor:
        """The denoiser's latents of the VAE's [B, C, *grid]."""
        if self.layout == "same":
            return latents
        if self.layout == "frames_first":
            return latents.transpose(1, 2)
        axes = len(self.patch)
        for i, side in enumerate(self.patch):  # [B, C, n_1, p_1, n_2, p_2, ...]
            latents = latents.unflatten(2 + 2 * i, (-1, side))
        order = [0, *(2 + 2 * i for i in range(axes)), 1, *(3 + 2 * i for i in range(axes))]
        return latents.permute(order).flatten(1 + axes).flatten(1, axes)

    def unpack(self, latents: Tensor) -> Tensor:
        """The inverse of ``pack``.

        Raises:
            ShapeError: a sequence of another length than that of ``grid``.
        """
        if self.layout == "same":
            return latents
        if self.layout == "frames_first":
            return latents.transpose(1, 2)
        counts = [cells // side for cells, side in zip(self.grid, self.patch, strict=True)]
        if latents.shape[1] != math.prod(counts):
            raise ShapeError(
                f"latents: {latents.shape[1]} patches, but this codec was set up at load for "
                f"{math.prod(counts)}; give the size of your media to load_adapter(...)"
            )
        axes = len(counts)
        latents = latents.unflatten(2, (-1, *self.patch)).unflatten(1, counts)  # [B, n..., C, p...]
        order = [0, 1 + axes]
        for i in range(axes):
            order += [1 + i, 2 + axes + i]
        latents = latents.permute(order)
        for i in range(axes):
            latents = latents.flatten(2 + i, 3 + i)
        return latents


def possible_packings(packed: tuple[int, ...], unpacked: tuple[int, ...]) -> list[Packing]:
    """Every packing between a denoiser's latents of a sample and its VAE's (C, *grid) that their shapes allow.

    Raises:
        UnsupportedPipelineError: there is none.
    """
    channels, *cells = unpacked
    grid = tuple(cells)
    found = []
    if packed == unpacked:
        found.append(Packing("same", grid))
    if len(unpacked) == 4 and packed == (grid[0], channels, *grid[1:]):
        found.append(Packing("frames_first", grid))
    if len(packed) == 2 and len(grid) > 1:
        for time in PATCH_SIDES if len(grid) == 3 else (None,):
            for side in PATCH_SIDES:
                patch = (side, side) if time is None else (time, side, side)
                fits = all(n % p == 0 for n, p in zip(grid, patch, strict=True))
                size = math.prod(patch)
                if fits and packed == (math.prod(grid) // size, channels * size):
                    found.append(Packing("patches", grid, patch))
    if not found:
        raise UnsupportedPipelineError(
            f"the denoiser's latents {list(packed)} are no known packing of the VAE's {list(unpacked)}"
        )
    return found
