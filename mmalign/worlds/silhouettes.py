"""What stands out from a plain background: its silhouette, paint, place and area, and how a known outline fits it."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import grid_sample


def ramp(x: Tensor, *, full: float, zero: float) -> Tensor:
    """1 up to ``full``, 0 from ``zero`` on, straight between (either may be the larger).

    >>> ramp(torch.tensor([0.1, 0.3, 0.6]), full=0.2, zero=0.4)
    tensor([1.0000, 0.5000, 0.0000])
    """
    return ((x - zero) / (full - zero)).clamp(0, 1)


@dataclass(frozen=True, eq=False)
class Silhouettes:
    """One silhouette for each of B pictures.

    Args:
        mask: [B, H, H] in [0, 1], 1 inside.
        paint: [B], distance in RGB between silhouette and background.
        area: [B], in pixels, above 0.
        centres: [B, 2], centroid (x, y), x to the right and y down, in units of half the side.
        radii: [B], radius of the circle of the same area, same unit.
    """

    mask: Tensor
    paint: Tensor
    area: Tensor
    centres: Tensor
    radii: Tensor


def pixel_axis(side_px: int) -> Tensor:
    """[H], centres of pixels from -1 to 1.

    >>> pixel_axis(4)
    tensor([-0.7500, -0.2500,  0.2500,  0.7500])
    """
    return (torch.arange(side_px) + 0.5) * (2 / side_px) - 1


def find(pictures: Tensor, *, ignored: Tensor | None = None) -> Silhouettes:
    """Separate what is painted from the background, which is the median colour of the border.

    Args:
        pictures: [B, 3, H, H] in [0, 1].
        ignored: [B, H, H], true where nothing is looked for.
    """
    border = torch.cat(
        [pictures[..., 0, :], pictures[..., -1, :], pictures[..., :, 0], pictures[..., :, -1]], -1
    )
    background = border.median(-1).values[:, :, None, None]
    contrast = (pictures - background).square().sum(1).sqrt()
    if ignored is not None:
        contrast = torch.where(ignored, torch.zeros(()), contrast)
    # The paint's contrast: a mean weighted towards the strongest pixels, so that soft edges do not pull it down.
    weight = contrast**4
    paint = (weight * contrast).sum((1, 2)) / weight.sum((1, 2)).clamp_min(1e-12)
    mask = ramp(contrast / paint.clamp_min(1e-6)[:, None, None], full=0.75, zero=0.25)
    area = mask.sum((1, 2)).clamp_min(1e-6)
    axis = pixel_axis(pictures.shape[-1])
    centres = torch.stack([(mask * axis).sum((1, 2)), (mask * axis[:, None]).sum((1, 2))], -1) / area[:, None]
    return Silhouettes(mask, paint, area, centres, (area / math.pi).sqrt() * (2 / pictures.shape[-1]))


def overlap(mask: Tensor, drawn: Tensor) -> Tensor:
    """Intersection over union of soft masks, over the last two axes."""
    union = torch.maximum(mask, drawn).sum((-2, -1)).clamp_min(1e-6)
    return torch.minimum(mask, drawn).sum((-2, -1)) / union


def put(stencils: Tensor, centres: Tensor, scales: Tensor, *, side_px: int) -> Tensor:
    """Draw known outlines at a place and scale; many times as fast as drawing them from their corners.

        drawn(pixel) = stencil(p) at p = (pixel - centre) / scale,   bilinear, 0 outside

    Args:
        stencils: [B, K, h, h] in [0, 1], about as sharp as what is drawn: h x scale near side_px.
        centres: [B, 2], where the middle of a stencil is put, in units of half the side of the result.
        scales: [B], half the stencil's side, same unit.
        side_px: H of the result.

    Returns:
        [B, K, H, H] in [0, 1].
    """
    axis = pixel_axis(side_px)
    points = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)
    points = (points - centres[:, None, None]) / scales.clamp_min(1e-3)[:, None, None, None]
    return grid_sample(stencils, points, align_corners=False)
