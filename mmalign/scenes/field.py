"""A radiance field on a grid of voxels: density and colour in a cube, and what a camera sees of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmalign.errors import ConfigError
from mmalign.media import Camera, Mesh, Video, turntable
from mmalign.media.rays import pixel_rays
from mmalign.scenes.surface import surface

DENSITY_UNIT = 20.0
"""Per scene unit, of a raw density of 1: so that raw values of a few units are opaque within a voxel or two."""
EMPTY = -5.0
"""Raw density at the start: a thin fog, through which every view still reaches every voxel."""


@dataclass(frozen=True, eq=False)
class Rendering:
    """What V cameras see.

    Args:
        views: [V, 3, H, H] in [0, 1], before the field's background.
        opacity: [V, H, H] in [0, 1], the share of the light that the field stops.
    """

    views: Tensor
    opacity: Tensor


class VoxelField(nn.Module):
    """Density and colour at the corners of a grid, linear between them; nothing is outside the cube.

        density(x) = 20 softplus(raw density(x)) per scene unit,  colour(x) = sigmoid(raw colour(x))

    Args:
        voxels: N, grid points along each side.
        half_extent: of the cube around the origin, in scene units.
        background: [3] in (0, 1), RGB; fitted along with the field.

    Raises:
        ConfigError: fewer than two grid points, or no extent.
    """

    def __init__(
        self, voxels: int = 32, *, half_extent: float = 1.0, background: Tensor | None = None
    ) -> None:
        super().__init__()
        if voxels < 2 or half_extent <= 0:
            raise ConfigError(
                f"voxels = {voxels} and half_extent = {half_extent}: expected 2 or more, and above 0"
            )
        self.half_extent = half_extent
        self.raw_density = nn.Parameter(torch.full((1, 1, voxels, voxels, voxels), EMPTY))
        self.raw_colour = nn.Parameter(torch.zeros(1, 3, voxels, voxels, voxels))
        start = torch.full((3,), 0.95) if background is None else background.detach().float()
        self.raw_background = nn.Parameter(start.clamp(0.02, 0.98).logit())

    @property
    def voxels(self) -> int:
        """N, grid points along each side."""
        return self.raw_density.shape[-1]

    @property
    def density(self) -> Tensor:
        """[N, N, N], along x, y, z, per scene unit."""
        return DENSITY_UNIT * F.softplus(self.raw_density[0, 0])

    @property
    def background(self) -> Tensor:
        """[3] in (0, 1), RGB."""
        return self.raw_background.sigmoid()

    @property
    def pitch(self) -> float:
        """Distance of neighbouring grid points, in scene units."""
        return 2 * self.half_extent / (self.voxels - 1)

    @property
    def half_level(self) -> float:
        """The density that stops half of the light within two voxels, per scene unit: where a surface is."""
        return math.log(2) / (2 * self.pitch)

    def at(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Density [...] per scene unit and colour [..., 3] in (0, 1) at points [..., 3]; no density outside."""
        inside = (points.abs() <= self.half_extent).all(-1)
        raw = torch.cat([self.raw_density, self.raw_colour], 1)
        # grid_sample names the last axis of the grid first.
        place = (points / self.half_extent).flip(-1).reshape(1, -1, 1, 1, 3).to(raw)
        found = F.grid_sample(raw, place, align_corners=True, padding_mode="border")
        found = found.reshape(4, *points.shape[:-1])
        return DENSITY_UNIT * F.softplus(found[0]) * inside, found[1:].sigmoid().movedim(0, -1)

    def render(self, cameras: Sequence[Camera], *, side_px: int, depths: int | None = None) -> Rendering:
        """Look at the field by emission and absorption, with gradient.

            weight[k] = (1 - exp(-density[k] step)) prod_{j < k} exp(-density[j] step)
            pixel = sum_k weight[k] colour[k] + (1 - sum_k weight[k]) background

        Args:
            cameras: V of them, outside the cube.
            side_px: H.
            depths: K, points along a ray through the whole cube; 3/2 per voxel if not given.

        Source: Mildenhall et al. 2020, NeRF, section 4, equation 3 (arXiv:2003.08934), with even steps.
        """
        count = depths or round(1.5 * self.voxels)
        reach = 3**0.5 * self.half_extent
        device = self.raw_density.device
        rays = [pixel_rays(camera, side_px) for camera in cameras]
        start, direction = (torch.stack(side).to(device) for side in zip(*rays, strict=True))
        nearest = -(start * direction).sum(-1, keepdim=True)  # along the ray, to the point next to the origin
        steps = ((torch.arange(count, device=device) + 0.5) * (2 / count) - 1) * reach
        points = start[..., None, :] + (nearest + steps)[..., None] * direction[..., None, :]
        density, colour = self.at(points)  # [V, H, H, K] and [V, H, H, K, 3]
        thickness = density * (2 * reach / count)
        before = thickness.cumsum(-1) - thickness
        weight = (-before).exp() * (1 - (-thickness).exp())
        opacity = weight.sum(-1)
        views = (weight[..., None] * colour).sum(-2) + (1 - opacity)[..., None] * self.background
        return Rendering(views.movedim(-1, 1), opacity)

    @torch.no_grad()
    def turntable(
        self, count: int = 36, *, elevation_deg: float = 20.0, side_px: int = 64, fps: float = 12.0
    ) -> Video:
        """One turn around the object, by orthographic cameras that see the whole cube from side to side."""
        cameras = turntable(count, elevation_deg=elevation_deg, distance=2 * self.half_extent, fov_deg=0.0)
        frames = [self.render([camera], side_px=side_px).views[0] for camera in cameras]
        return Video(torch.stack(frames).clamp(0, 1).cpu(), fps)

    @torch.no_grad()
    def to_mesh(self, *, level: float | None = None) -> Mesh:
        """The surface at one density, closed also where it meets the side of the cube, with the colours there.

        Cavities that no camera sees are filled, and crumbs are left out, of less than a twentieth of the largest body.

        Args:
            level: density per scene unit; by default ``half_level``.

        Raises:
            ConfigError: the density is nowhere above the level, or the extra ``mesh`` is missing.

        Source: Lorensen and Cline 1987, Marching cubes, in the form of Lewiner et al. 2003 (scikit-image).
        """
        level = self.half_level if level is None else level
        density = F.pad(self.density, (1, 1, 1, 1, 1, 1)).cpu()  # a layer of nothing closes the surface
        if not float(density.max()) > level:
            raise ConfigError(
                f"level = {level:g}: the density is {float(density.max()):g} at most, so there is no surface"
            )
        corners, faces = surface(density, level)
        vertices = (corners - 1) * self.pitch - self.half_extent
        return Mesh(vertices, faces, self._painted(vertices.to(self.raw_density.device)).cpu())

    def _painted(self, points: Tensor) -> Tensor:
        """Colours [..., 3] near points [..., 3] of a surface: of the neighbours by what each stops of the light.

        At the surface itself the field is thin, and its colour there is seen by nobody.
        """
        stopped = 1 - (-self.density * self.pitch).exp()[None, None]
        colour = F.avg_pool3d(stopped * self.raw_colour.sigmoid(), 3, stride=1, padding=1)
        colour = colour / F.avg_pool3d(stopped, 3, stride=1, padding=1).clamp_min(1e-6)
        place = (points / self.half_extent).flip(-1).reshape(1, -1, 1, 1, 3).to(colour)
        found = F.grid_sample(colour, place, align_corners=True, padding_mode="border")
        return found.reshape(3, *points.shape[:-1]).movedim(0, -1).clamp(0, 1)
