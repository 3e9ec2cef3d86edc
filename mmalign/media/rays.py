"""Between the points of a scene and the pixels of a camera."""

import math

import torch
from torch import Tensor

from mmalign.media.scene3d import Camera


def pixel_rays(camera: Camera, side_px: int) -> tuple[Tensor, Tensor]:
    """Start and direction, each [side, side, 3] in scene axes, of the ray through the middle of each pixel."""
    pose = camera.world_to_camera()
    to_world, place = pose[:3, :3].T, -pose[:3, :3].T @ pose[:3, 3]
    steps = (2 * torch.arange(side_px) + 1) / side_px - 1
    down, right = torch.meshgrid(steps, steps, indexing="ij")
    if camera.fov_deg == 0:
        half = camera.distance / 2
        start = torch.stack([half * right, half * down, torch.zeros_like(right)], dim=-1) @ to_world.T + place
        return start, to_world[:, 2].expand(side_px, side_px, 3)
    slope = math.tan(math.radians(camera.fov_deg) / 2)
    direction = torch.stack([slope * right, slope * down, torch.ones_like(right)], dim=-1) @ to_world.T
    return place.expand(side_px, side_px, 3), direction / direction.norm(dim=-1, keepdim=True)


def project(points: Tensor, camera: Camera) -> Tensor:
    """Points [..., 3] of the scene as [..., 2], right and down from -1 to 1 in the picture; far off if behind it."""
    pose = camera.world_to_camera().to(points)
    seen = points @ pose[:3, :3].T + pose[:3, 3]
    if camera.fov_deg == 0:
        return seen[..., :2] * (2 / camera.distance)
    depth = seen[..., 2:]
    flat = seen[..., :2] / (depth.clamp_min(1e-6) * math.tan(math.radians(camera.fov_deg) / 2))
    return flat.where(depth > 1e-6, 1e3)
