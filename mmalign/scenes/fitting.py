"""Fits a voxel field to the views of an object."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mmalign.errors import ConfigError, ShapeError
from mmalign.media import Camera
from mmalign.media.rays import project
from mmalign.scenes.field import VoxelField

DIFFERENT = 0.1
"""Difference of a channel from the background below which a pixel is background, whatever else there is."""
COLOUR_RATE = 0.2
"""Of the learning rate: colour follows slowly, or what should be empty is painted as background."""
FULL = 1.0
"""Raw density in the hull at the start: opaque within about two voxels, and not yet saturated."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FitSettings:
    """How a field is fitted; the weights are those that recover solids of the views world from four views."""

    steps: int = 100
    learning_rate: float = 0.3
    """Of Adam, on the raw grids."""
    voxels: int = 32
    half_extent: float = 1.0
    """Of the cube, in scene units."""
    opacity_weight: float = 0.05
    """Of mean opacity (1 - opacity): objects are solid, not fog."""
    smoothness_weight: float = 0.05
    """Of the mean absolute difference of neighbouring voxels, in density's share of a voxel and in colour."""

    def __post_init__(self) -> None:
        if self.steps < 1 or not self.learning_rate > 0:
            raise ConfigError(
                f"steps = {self.steps} and learning_rate = {self.learning_rate}, but both are positive"
            )


def fit_field(views: Tensor, cameras: Sequence[Camera], *, settings: FitSettings | None = None) -> VoxelField:
    """Find density and colour whose renderings are the views.

        loss = mean (rendering - views)^2 + opacity_weight * mean opacity (1 - opacity) + smoothness_weight * variation

    Nothing is random. It begins at the visual hull, so that what no view shows is full, and not a hollow shell.

    Args:
        views: [V, 3, H, H] in [0, 1], before a plain background.
        cameras: V of them, outside the cube.
        settings: how long and how smooth.

    Returns:
        The field, its parameters without gradient.

    Raises:
        ShapeError: views that are not square, or not one for each camera.
    """
    chosen = settings or FitSettings()
    if (
        views.ndim != 4
        or views.shape[1] != 3
        or views.shape[2] != views.shape[3]
        or len(views) != len(cameras)
    ):
        raise ShapeError(
            f"views: expected [V, 3, H, H] with V = {len(cameras)} cameras, got {list(views.shape)}"
        )
    views = views.detach().float()
    border = torch.cat([views[..., 0, :], views[..., -1, :], views[..., :, 0], views[..., :, -1]], -1)
    background = border.movedim(1, 0).flatten(1).median(1).values
    field = VoxelField(chosen.voxels, half_extent=chosen.half_extent, background=background).to(views.device)
    start_from_hull(field, views, cameras)
    optimizer = torch.optim.Adam(
        [
            {"params": [field.raw_density], "lr": chosen.learning_rate},
            {"params": [field.raw_colour, field.raw_background], "lr": chosen.learning_rate * COLOUR_RATE},
        ]
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, chosen.steps)
    with torch.enable_grad():
        for _ in range(chosen.steps):
            seen = field.render(cameras, side_px=views.shape[-1])
            loss = (seen.views - views).square().mean()
            loss = loss + chosen.opacity_weight * (seen.opacity * (1 - seen.opacity)).mean()
            loss = loss + chosen.smoothness_weight * variation(field)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
    return field.requires_grad_(False)


@torch.no_grad()
def start_from_hull(field: VoxelField, views: Tensor, cameras: Sequence[Camera]) -> None:
    """Fill a field where every view has something before its background, in the mean colour of the views there.

    Args:
        field: changed in place; where a view shows background, or nothing of the place, it stays as it was.
        views: [V, 3, H, H] in [0, 1].
        cameras: V of them.

    Source: Laurentini 1994, The visual hull concept for silhouette-based image understanding.
    """
    background = field.background.detach()[:, None, None]
    contrast = (views - background).abs().amax(1, keepdim=True)
    # Half of the contrast is the edge: farther out a voxel would be painted as background rather than emptied.
    shown = (contrast > contrast.amax((1, 2, 3), keepdim=True).mul(0.5).clamp_min(DIFFERENT)).float()
    axis = torch.linspace(-field.half_extent, field.half_extent, field.voxels, device=views.device)
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    inside, colour = (
        torch.ones(len(points), device=views.device),
        torch.zeros(3, len(points), device=views.device),
    )
    for view, mask, camera in zip(views, shown, cameras, strict=True):
        place = project(points, camera)[None, None]
        seen = F.grid_sample(torch.cat([mask, view])[None], place, align_corners=False)[0, :, 0]
        inside = torch.minimum(inside, seen[0])
        colour = colour + seen[1:] / len(views)
    cube = (field.voxels,) * 3
    full = (inside > 0.5).reshape(cube)
    field.raw_density[0, 0, full] = FULL
    field.raw_colour[0, :, full] = colour.reshape(3, *cube)[:, full].clamp(0.02, 0.98).logit()


def variation(field: VoxelField) -> Tensor:
    """Mean absolute difference of neighbours along the three axes, of what a voxel stops and of its colour.

    Source: Sun et al. 2022, Direct voxel grid optimization, section 3 (arXiv:2111.11215), which smooths both alike.
    """
    stopped = 1 - (-field.density * field.pitch).exp()
    values = torch.cat([stopped[None], field.raw_colour[0].sigmoid()])
    return torch.stack([values.diff(dim=axis).abs().mean() for axis in (1, 2, 3)]).mean()
