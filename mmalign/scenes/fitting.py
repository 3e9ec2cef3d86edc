"""Fits a voxel field to the views of an object."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmalign.errors import ConfigError, ShapeError
from mmalign.media import Camera
from mmalign.scenes.field import VoxelField


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

    Nothing is random. What no view shows stays as it was, or fills up behind what they show.

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
    optimizer = torch.optim.Adam(field.parameters(), lr=chosen.learning_rate)
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


def variation(field: VoxelField) -> Tensor:
    """Mean absolute difference of neighbours along the three axes, of what a voxel stops and of its colour.

    Source: Sun et al. 2022, Direct voxel grid optimization, section 3 (arXiv:2111.11215), which smooths both alike.
    """
    stopped = 1 - (-field.density * field.pitch).exp()
    values = torch.cat([stopped[None], field.raw_colour[0].sigmoid()])
    return torch.stack([values.diff(dim=axis).abs().mean() for axis in (1, 2, 3)]).mean()
