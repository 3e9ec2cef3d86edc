"""Solids of equal volume and the rays that meet them: each is where a few slabs and one round body overlap."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mmalign.media import Camera
from mmalign.worlds.silhouettes import pixel_axis

# Half the sides along x, y and z, and the round body that is cut by them, if any: (radius at the bottom, at the top).
# Each has the volume of the sphere of radius 1, and its middle in the origin.
SOLIDS: dict[str, tuple[tuple[float, float, float], tuple[float, float] | None]] = {
    "cube": ((0.806, 0.806, 0.806), None),
    "brick": ((1.223, 0.612, 0.700), None),
    "sphere": ((1.0, 1.0, 1.0), None),
    "cylinder": ((2.0, 2.0, 1.042), (0.8, 0.8)),
    "cone": ((2.0, 2.0, 1.389), (1.2, 0.0)),
}
KINDS = tuple(SOLIDS)
YAW_DEG = 30.0
"""How far each solid is turned around z, so that no camera looks straight at a side."""
LIGHT = (0.48, 0.36, 0.80)
"""Where the light comes from, of length 1; it stays while the camera turns."""


def trace(
    kinds: Tensor, scales: Tensor, places: Tensor, cameras: Sequence[Camera], *, side_px: int
) -> tuple[Tensor, Tensor]:
    """Look at solids with orthographic cameras that see -1 to 1.

    Args:
        kinds: [B], index into ``KINDS``.
        scales: [B], radius of the sphere of the same volume.
        places: [B, 3], where the middle of the solid is.
        cameras: V of them; none of them horizontal, or along a side of the solids.
        side_px: H of the result.

    Returns:
        Whether a ray meets the solid, [B, V, H, H], and how lit it is there, max(0, normal . light), same shape.
    """
    world_to_camera = torch.stack([camera.world_to_camera()[:3, :3] for camera in cameras])
    axis = pixel_axis(side_px)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    seen = torch.stack([x, y, torch.zeros_like(x)], -1).reshape(-1, 3)
    turn = _turn(YAW_DEG)
    # In the solid's own axes: rows are vectors, so that v @ turn is the vector turned back.
    origin = torch.einsum("vji,pj->vpi", world_to_camera, seen) @ turn
    along = (world_to_camera[:, 2] @ turn)[:, None]
    light = torch.tensor(LIGHT) @ turn
    inside = torch.zeros(len(kinds), len(cameras), side_px**2, dtype=torch.bool)
    lit = torch.zeros(inside.shape)
    for index, kind in enumerate(KINDS):
        rows = (kinds == index).nonzero()[:, 0]
        if len(rows):
            start = (origin - (places[rows] @ turn)[:, None, None]) / scales[rows, None, None, None]
            inside[rows], lit[rows] = _meet(kind, start, along, light)
    shape = (len(kinds), len(cameras), side_px, side_px)
    return inside.reshape(shape), lit.reshape(shape)


def _turn(degrees: float) -> Tensor:
    a = math.radians(degrees)
    return torch.tensor([[math.cos(a), -math.sin(a), 0.0], [math.sin(a), math.cos(a), 0.0], [0.0, 0.0, 1.0]])


def _meet(kind: str, start: Tensor, along: Tensor, light: Tensor) -> tuple[Tensor, Tensor]:
    """Whether rays start + t along, [n, V, P, 3], meet a solid, and how lit it is where they enter, both [n, V, P]."""
    half, round_body = SOLIDS[kind]
    enter = (-torch.tensor(half) * along.sign() - start) / along
    leave = (torch.tensor(half) * along.sign() - start) / along
    facing = -along.sign() * light  # a side's normal points against the ray
    first = enter.argmax(-1, keepdim=True)
    lit = facing.expand_as(enter).gather(-1, first)[..., 0]
    near, far = enter.amax(-1), leave.amin(-1)
    if kind == "sphere" or round_body is not None:
        # x^2 + y^2 + f z^2 <= (r + s z)^2: a sphere (f = 1, s = 0), a cylinder (f = s = 0) or a cone.
        bottom, top = round_body or (1.0, 1.0)
        radius, slope = (bottom + top) / 2, (top - bottom) / 2 / half[2]
        form = torch.tensor([1.0, 1.0, (1.0 if kind == "sphere" else 0.0) - slope**2])
        linear = torch.tensor([0.0, 0.0, radius * slope])
        a = (form * along.square()).sum(-1)
        b = (form * start * along - linear * along).sum(-1)
        c = (form * start.square() - 2 * linear * start).sum(-1) - radius**2
        root = (b.square() - a * c).clamp_min(0).sqrt()
        missed = b.square() < a * c
        round_near, round_far = (-b - root) / a, (-b + root) / a
        place = start + round_near[..., None] * along
        normal = torch.nn.functional.normalize(form * place - linear, dim=-1)
        lit = torch.where(round_near > near, (normal * light).sum(-1), lit)
        near, far = torch.maximum(near, round_near), torch.minimum(far, round_far)
        far = torch.where(missed, near - 1, far)
    return near < far, lit.clamp(0, 1)
